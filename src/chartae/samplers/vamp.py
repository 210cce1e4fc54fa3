"""Latents from the prior that a model has learned."""

from typing import Any

import torch
from torch import Tensor

from chartae.models import Autoencoder
from chartae.randomness import seeded
from chartae.samplers.base import Sampler
from chartae.samplers.normal import has_standard_prior

__all__ = ["VampSampler"]


class VampSampler(Sampler):
    r"""Draw latents from the model's own learned prior; there is nothing to fit.

    That of a `VAMP` is the mixture :math:`\frac1K \sum_k q(z|u_k)` (Tomczak and Welling, 2018);
    that of a `CVAE` with ``learned_prior`` is :math:`p(z|y)` (Sohn et al., 2015).

    Args:
        model: a trained model whose ``prior(y)`` is another than N(0, I).

    Raises:
        ConfigurationError: for a model whose prior is N(0, I), or that has none, or whose latents
            are no vectors.

    >>> import chartae
    >>> model = chartae.VAMP((8, 8), latent_dim=2, num_pseudo_inputs=5).eval()
    >>> VampSampler(model).sample(5, seed=0).shape
    torch.Size([5, 8, 8])
    """

    @classmethod
    def unsupported_reason(cls, model: Autoencoder) -> str | None:
        """Return why the model has no prior to draw from but N(0, I)."""
        if reason := super().unsupported_reason(model):
            return reason
        standard = has_standard_prior(model)
        if standard is None:
            return "it has no prior"
        return "its prior is N(0, I)" if standard else None

    def draw_latents(self, n: int, seed: int, y: Tensor | None = None) -> Tensor:
        model: Any = self.model
        prior = model.prior(y)
        shape = torch.Size() if prior.batch_shape else torch.Size((n,))
        with seeded(seed, "VampSampler", device=self.model.device):
            z: Tensor = prior.sample(shape)
        return z
