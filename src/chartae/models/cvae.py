"""The conditional variational autoencoder."""

from typing import Unpack

from chartae.distributions import DiagonalNormal, DiagonalNormalHead, Prior, StandardNormal
from chartae.errors import ConfigurationError
from chartae.models.losses import Extra
from chartae.models.vae import VAE
from chartae.models.variational import GaussianNetworks

__all__ = ["CVAE"]


class CVAE(VAE):
    r"""Conditional variational autoencoder (Sohn et al., 2015).

    .. math:: -E_q \log p(x|z, y) + KL(q(z|x, y) \| p(z|y))

    Any model takes ``conditions``; this one insists on them, and may learn a prior for each.

    Use it to generate what a label, or a vector of covariates, asks for: with classes the latent
    holds what they share, the style, so that few samples of one class profit from all others.

    Args:
        learned_prior: whether p(z|y) is a learned diagonal normal, or the standard normal.
        networks: ``input_shape``, ``latent_dim`` and the others of `Autoencoder`.

    Raises:
        ConfigurationError: without conditions.

    >>> import torch
    >>> model = CVAE((8, 8), latent_dim=2, conditions=10).eval()
    >>> model.decode(torch.zeros(3, 2), torch.tensor([0, 1, 2])).shape
    torch.Size([3, 8, 8])
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        learned_prior: bool = False,
        **networks: Unpack[GaussianNetworks],
    ) -> None:
        if networks.get("conditions") is None:
            raise ConfigurationError(
                "conditions=None: a CVAE expects a number of classes, or (p,) for vectors"
            )
        super().__init__(input_shape, latent_dim, **networks)
        self.learned_prior = learned_prior
        self.prior_head = None
        self.prior_family = DiagonalNormal if learned_prior else StandardNormal
        if learned_prior:
            self.prior_head = DiagonalNormalHead(self.condition_dim, latent_dim)

    def prior(self, y: Extra = None) -> Prior:
        """Return p(z|y), ``(batch, latent_dim)`` if it is learned, else p(z)."""
        if self.prior_head is None:
            return super().prior(y)
        prior: Prior = self.prior_head(self.condition(y))
        return prior
