"""The deterministic autoencoder."""

from typing import Unpack

from torch import Tensor, nn

from chartae.models.base import Autoencoder, Networks
from chartae.models.losses import Extra, Losses, average

__all__ = ["AE"]


class AE(Autoencoder):
    r"""Autoencoder, trained by the log-likelihood at the code of x (Gaussian: a squared error).

    .. math:: -\log p(x | z = f(x))

    Use it to embed and reconstruct, or with a sampler fitted ex post (`MixtureSampler`). For a
    smooth latent space use an `RAE`; for samples of good quality use any of the other models.

    Args:
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.

    >>> import torch
    >>> AE((8, 8), latent_dim=2).reconstruct(torch.rand(5, 8, 8)).shape
    torch.Size([5, 8, 8])
    """

    def __init__(
        self, input_shape: tuple[int, ...], latent_dim: int, **networks: Unpack[Networks]
    ) -> None:
        super().__init__(input_shape, latent_dim, **networks)
        self.code_head = nn.Linear(self.num_features, latent_dim)

    def embed(self, x: Tensor, y: Extra = None, mask: Extra = None) -> Tensor:
        """Return the code of each x, without checks."""
        code: Tensor = self.code_head(self.features(x, y, mask))
        return code

    def loss(
        self, x: Tensor, *, y: Extra = None, mask: Extra = None, weight: Extra = None
    ) -> Losses:
        r"""Return the mean of :math:`-\log p(x|z)` at the code of x."""
        fit = self.likelihood(self.embed(x, y, mask), y).log_prob(x, mask)
        reconstruction = -average(fit, weight)
        return Losses.of(reconstruction, reconstruction=reconstruction)
