"""The variational autoencoder, and its weighted form."""

from typing import Unpack

from torch import Tensor
from torch.distributions import kl_divergence

from chartae.checks import check_number
from chartae.models.base import Losses, Networks, VariationalAutoencoder

__all__ = ["VAE", "BetaVAE"]


class VAE(VariationalAutoencoder):
    r"""Variational autoencoder (Kingma and Welling, 2014), with the KL in closed form.

    .. math:: -\mathrm{ELBO}(x) = -E_q \log p(x|z) + KL(q(z|x) \| p(z))

    Args:
        input_shape: shape of one observation.
        latent_dim: size of the latent space.
        networks: ``encoder``, ``decoder`` and ``likelihood``, as in `Autoencoder`.

    >>> import torch
    >>> model = VAE((8, 8), latent_dim=2, likelihood="bernoulli")
    >>> model.log_likelihood(torch.rand(5, 8, 8).round(), num_samples=10).shape
    torch.Size([5])
    """

    beta = 1.0

    def loss(self, x: Tensor, *, y: Tensor | None = None, mask: Tensor | None = None) -> Losses:
        """Return minus the ELBO, with the divergence weighted by ``beta``."""
        posterior = self.posterior(x, y)
        reconstruction = -self.likelihood(posterior.rsample(), y).log_prob(x, mask).mean()
        kl = kl_divergence(posterior, self.prior(y)).mean()
        weight = self.kl_weight * self.beta
        return Losses.of(reconstruction + weight * kl, reconstruction=reconstruction, kl=kl)


class BetaVAE(VAE):
    r"""beta-VAE (Higgins et al., 2017): reconstruction + :math:`\beta` KL.

    Args:
        input_shape: shape of one observation.
        latent_dim: size of the latent space.
        beta: weight of the divergence, at least 0; more than 1 disentangles, less than 1 sharpens.
        networks: ``encoder``, ``decoder`` and ``likelihood``, as in `Autoencoder`.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        beta: float = 4.0,
        **networks: Unpack[Networks],
    ) -> None:
        check_number("beta", beta, minimum=0.0)
        super().__init__(input_shape, latent_dim, **networks)
        self.beta = beta
