"""Latents from the prior of the model, for each kind of prior."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from chartae.distributions import StandardNormal
from chartae.models import Autoencoder
from chartae.models.base import LatentSpace
from chartae.randomness import seeded
from chartae.samplers.base import Sampler

__all__ = ["NormalSampler", "PoincareSampler", "PriorSampler", "SphereSampler", "VampSampler"]


class PriorSampler(Sampler):
    """Base of the samplers that draw z ~ p(z|y), the model's own prior. There is nothing to fit.

    Args:
        model: a trained model that has a prior.

    Raises:
        ConfigurationError: for a model without a prior, or with another latent space.
    """

    @classmethod
    def unsupported_reason(cls, model: Autoencoder) -> str | None:
        if reason := super().unsupported_reason(model):
            return reason
        return "it has no prior" if model.prior_family is None else None

    def draw_latents(self, n: int, seed: int, y: Tensor | None = None) -> Tensor:
        model: Any = self.model
        prior = model.prior(y)
        shape = torch.Size() if prior.batch_shape else torch.Size((n,))
        with seeded(seed, type(self).__name__, device=self.device):
            z: Tensor = prior.sample(shape)
        return z


class NormalSampler(Sampler):
    """Draw z ~ N(0, I), the prior of a plain VAE. There is nothing to fit.

    Args:
        model: a trained model whose prior is N(0, I), or a model without a prior, such as an AE or
            WAE. The embeddings of a model without a prior are not guaranteed to follow N(0, I).

    Raises:
        ConfigurationError: for a model with another prior, or whose latents are not vectors.

    >>> import chartae
    >>> NormalSampler(chartae.VAE((8, 8), latent_dim=2)).sample(5, seed=0).shape
    torch.Size([5, 8, 8])
    """

    @classmethod
    def unsupported_reason(cls, model: Autoencoder) -> str | None:
        if reason := super().unsupported_reason(model):
            return reason
        known = model.prior_family in (None, StandardNormal)
        return None if known else "its prior is not N(0, I)"

    def draw_latents(self, n: int, seed: int, y: Tensor | None = None) -> Tensor:
        return self.noise((n, self.model.latent_dim), seed)


class SphereSampler(PriorSampler):
    """Draw z uniformly on the unit sphere, the prior of an `SVAE`. There is nothing to fit.

    Args:
        model: a trained model whose latents are points of the sphere.

    Raises:
        ConfigurationError: for a model with another latent space.

    >>> import chartae, torch
    >>> z = SphereSampler(chartae.SVAE((8, 8), latent_dim=3)).sample_latents(2, seed=0)
    >>> torch.allclose(z.norm(dim=-1), torch.ones(len(z)))
    True
    """

    latent_space: ClassVar[LatentSpace] = "sphere"


class PoincareSampler(PriorSampler):
    """Draw z from the prior of a `PoincareVAE`, wrapped or Riemannian. There is nothing to fit.

    Args:
        model: a trained model whose latents are in a hyperbolic ball.

    Raises:
        ConfigurationError: for a model with another latent space.

    >>> import chartae
    >>> z = PoincareSampler(chartae.PoincareVAE((8, 8), latent_dim=2)).sample_latents(5, seed=0)
    >>> bool((z.norm(dim=-1) < 1).all())
    True
    """

    latent_space: ClassVar[LatentSpace] = "ball"


class VampSampler(PriorSampler):
    r"""Draw latents from the model's own learned prior. There is nothing to fit.

    The prior of a `VAMP` is the mixture :math:`\frac1K \sum_k q(z|u_k)` (Tomczak and Welling,
    2018). The prior of a `MixtureVAE` is a mixture, too. The prior of a `CVAE` with
    ``learned_prior`` is :math:`p(z|y)` (Sohn et al., 2015).

    Args:
        model: a trained model with another ``prior(y)`` than N(0, I).

        Raises:
            ConfigurationError: for a model whose prior is N(0, I), a model without a prior, or one
                whose latents are not vectors.

    >>> import chartae
    >>> model = chartae.VAMP((8, 8), latent_dim=2, num_pseudo_inputs=5).eval()
    >>> VampSampler(model).sample(5, seed=0).shape
    torch.Size([5, 8, 8])
    """

    @classmethod
    def unsupported_reason(cls, model: Autoencoder) -> str | None:
        if reason := super().unsupported_reason(model):
            return reason
        return "its prior is N(0, I)" if model.prior_family is StandardNormal else None
