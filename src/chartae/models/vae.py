"""The variational autoencoder, and its weighted forms."""

from typing import Unpack

from torch import Tensor

from chartae.checks import Natural, NonNegative
from chartae.distributions import kl_divergence
from chartae.models.losses import Extra, Losses, average
from chartae.models.variational import GaussianNetworks, VariationalAutoencoder

__all__ = ["VAE", "BetaVAE", "DisentangledBetaVAE"]


class VAE(VariationalAutoencoder):
    r"""Variational autoencoder (Kingma and Welling, 2014), with the KL in closed form.

    .. math:: -\mathrm{ELBO}(x) = -E_q \log p(x|z) + KL(q(z|x) \| p(z))

    Use it first. It is fast and robust, and it is the baseline for every other model here. All
    samplers of Euclidean latent spaces, and the geometry, work with it.

    Args:
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.

    >>> import torch
    >>> model = VAE((8, 8), latent_dim=2, likelihood="bernoulli")
    >>> model.log_likelihood(torch.rand(5, 8, 8).round(), num_samples=10).shape
    torch.Size([5])
    """

    def weighted(self, kl: Tensor) -> Tensor:
        """Return the divergence of each sample as the loss counts it, ``(batch,)``."""
        return kl

    def loss(
        self, x: Tensor, *, y: Extra = None, mask: Extra = None, weight: Extra = None
    ) -> Losses:
        """Return minus the ELBO, with the divergence weighted by `weighted`."""
        posterior = self.posterior(x, y, mask)
        fit = self.likelihood(posterior.rsample(), y).log_prob(x, mask)
        reconstruction = -average(fit, weight)
        kl = kl_divergence(posterior, self.prior(y))
        total = reconstruction + self.kl_weight * average(self.weighted(kl), weight)
        return Losses.of(total, reconstruction=reconstruction, kl=average(kl, weight))


class BetaVAE(VAE):
    r"""beta-VAE (Higgins et al., 2017): a `VAE` whose divergence has a weight.

    .. math:: -E_q \log p(x|z) + \beta \, KL(q(z|x) \| p(z))

    Use it with :math:`\beta > 1` for disentangled coordinates, with :math:`\beta < 1` for sharper
    reconstructions.

    Args:
        beta: weight of the divergence, at least 0.
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        beta: NonNegative = 4.0,
        **networks: Unpack[GaussianNetworks],
    ) -> None:
        super().__init__(input_shape, latent_dim, **networks)
        self.beta = beta

    def weighted(self, kl: Tensor) -> Tensor:
        """Return beta times the divergence."""
        return self.beta * kl


class DisentangledBetaVAE(BetaVAE):
    r"""beta-VAE with a rising capacity (Burgess et al., 2018).

    .. math:: -E_q \log p(x|z) + \beta \, | KL(q(z|x) \| p(z)) - C |

    with C rising linearly from 0 to ``capacity`` over the first ``warmup`` epochs of a training.
    The difference is computed for each x. (Some published code computes it for the mean over a
    batch. Some posteriors are then far from the prior, and samples are worse.)

    Use it for disentangled coordinates without the blur of a large :math:`\beta`: as the capacity
    rises, the latents encode one factor of variation after the other.

    Args:
        beta: weight of the difference between divergence and capacity, at least 0.
        capacity: the final C, in nats; the published value of 25 suits about ten coordinates.
        warmup: epochs until the capacity is reached, at least 0; none of these can be the best
            epoch.
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        beta: float = 10.0,
        capacity: NonNegative = 25.0,
        warmup: Natural = 10,
        **networks: Unpack[GaussianNetworks],
    ) -> None:
        super().__init__(input_shape, latent_dim, beta=beta, **networks)
        self.capacity, self.warmup = capacity, warmup

    def weighted(self, kl: Tensor) -> Tensor:
        """Return beta times the absolute difference of each divergence and the epoch's capacity."""
        share = min(1.0, self.epoch / self.warmup) if self.warmup else 1.0
        return self.beta * (kl - share * self.capacity).abs()
