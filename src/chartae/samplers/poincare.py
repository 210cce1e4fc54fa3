"""Latents from the prior on the hyperbolic ball."""

from torch import Tensor

from chartae.models import Autoencoder
from chartae.models.poincare import PoincareVAE
from chartae.randomness import seeded
from chartae.samplers.base import Sampler

__all__ = ["PoincareSampler"]


class PoincareSampler(Sampler):
    """Draw z from the prior of a `PoincareVAE`, wrapped or Riemannian; there is nothing to fit.

    Args:
        model: a trained model whose latents are in a hyperbolic ball.

    Raises:
        ConfigurationError: for a model of another latent space.

    >>> from chartae.models.poincare import PoincareVAE
    >>> z = PoincareSampler(PoincareVAE((8, 8), latent_dim=2)).sample_latents(5, seed=0)
    >>> bool((z.norm(dim=-1) < 1).all())
    True
    """

    model: PoincareVAE

    @classmethod
    def unsupported_reason(cls, model: Autoencoder) -> str | None:
        """Return why, if the model's latents are not in a ball."""
        if isinstance(model, PoincareVAE):
            return None
        return "its latents are not points of a hyperbolic ball"

    def draw_latents(self, n: int, seed: int, y: Tensor | None = None) -> Tensor:
        with seeded(seed, type(self).__name__, device=self.model.device):
            z: Tensor = self.model.prior().sample((n,))
        return z
