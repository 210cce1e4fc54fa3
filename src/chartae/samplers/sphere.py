"""Latents from the uniform distribution on the sphere."""

from torch import Tensor
from torch.nn.functional import normalize

from chartae.models import Autoencoder
from chartae.samplers.base import Sampler

__all__ = ["SphereSampler"]


class SphereSampler(Sampler):
    """Draw z uniformly on the unit sphere, the prior of an `SVAE`; there is nothing to fit.

    Args:
        model: a trained model whose latents are points of the sphere.

    Raises:
        ConfigurationError: for a model of another latent space.

    >>> import chartae, torch
    >>> z = SphereSampler(chartae.SVAE((8, 8), latent_dim=3)).sample_latents(2, seed=0)
    >>> torch.allclose(z.norm(dim=-1), torch.ones(len(z)))
    True
    """

    @classmethod
    def unsupported_reason(cls, model: Autoencoder) -> str | None:
        """Return why, if the model's latents are not on a sphere."""
        return None if model.latent_space == "sphere" else "its latents are not points of a sphere"

    def draw_latents(self, n: int, seed: int, y: Tensor | None = None) -> Tensor:
        return normalize(self.noise((n, self.model.latent_dim), seed), dim=-1)
