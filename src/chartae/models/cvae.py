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

    Any model accepts ``conditions``. This one requires them, and can learn a prior p(z|y).

    Use it to generate data for a given label or vector of covariates. With classes, the latent
    encodes what the classes have in common (the style), so a class with few samples benefits from
    all the others.

    Args:
        learned_prior: True for a learned diagonal normal as p(z|y), False for the standard normal.
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.

    Raises:
        ConfigurationError: if conditions is None.

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
        """Return p(z|y), ``(batch, latent_dim)`` if it is learned, otherwise p(z)."""
        if self.prior_head is None:
            return super().prior(y)
        prior: Prior = self.prior_head(self.condition(y))
        return prior
