"""The importance-weighted autoencoder."""

import math
from typing import Unpack

from torch import Tensor

from chartae.checks import check_integer
from chartae.models.base import Losses, Networks, VariationalAutoencoder

__all__ = ["IWAE"]


class IWAE(VariationalAutoencoder):
    r"""Importance-weighted autoencoder (Burda et al., 2016).

    Minimises :math:`-\log \frac1S \sum_s w_s`, with the weights of `log_weights`.

    Args:
        input_shape: shape of one observation.
        latent_dim: size of the latent space.
        num_samples: number S of weights for each x.
        networks: ``encoder``, ``decoder`` and ``likelihood``, as in `Autoencoder`.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        num_samples: int = 10,
        **networks: Unpack[Networks],
    ) -> None:
        check_integer("num_samples", num_samples, minimum=1)
        super().__init__(input_shape, latent_dim, **networks)
        self.num_samples = num_samples

    def loss(self, x: Tensor, *, y: Tensor | None = None, mask: Tensor | None = None) -> Losses:
        """Return minus the importance-weighted bound."""
        fit, divergence = self.log_weight_terms(x, self.num_samples, y=y, mask=mask)
        log_weights = fit + self.kl_weight * divergence
        bound = (log_weights.logsumexp(0) - math.log(self.num_samples)).mean()
        return Losses.of(-bound, reconstruction=-fit.mean(), kl=-divergence.mean())
