"""Models that penalise an estimate of the dependence between latent coordinates."""

from typing import Unpack

import torch
from torch import Tensor

from chartae.checks import NonNegative
from chartae.distributions import DiagonalNormal, Estimator, as_family, kl_divergence, log_aggregate
from chartae.models.adversarial import discriminator_loss
from chartae.models.base import Networks
from chartae.models.losses import Extra, Losses, average, resampled
from chartae.models.vae import VAE
from chartae.models.variational import GaussianNetworks, VariationalAutoencoder
from chartae.nn import Discriminator, NetworkSpec

__all__ = ["BetaTCVAE", "FactorVAE"]


class BetaTCVAE(VariationalAutoencoder):
    r"""beta-TC-VAE (Chen et al., 2018): three parts of the divergence, each with a weight.

    .. math:: -E_q \log p(x|z) + \alpha I(x; z) + \beta \, KL(q(z) \| {\textstyle\prod_j q(z_j)})
        + \gamma \sum_j KL(q(z_j) \| p(z_j))

    The aggregated posterior q(z) of the N training samples is estimated on each batch
    (`log_aggregate`).

    Use it for disentangled coordinates: unlike a `BetaVAE` it can penalise only their dependence.

    Args:
        alpha: weight of the mutual information I(x; z) between the latent and the index of x, at
            least 0.
        beta: weight of the total correlation, at least 0.
        gamma: weight of the divergences of the coordinates from the prior, at least 0.
        estimator: ``"mss"``, minibatch stratified sampling, unbiased for the density; or
            ``"mws"``, minibatch weighted sampling.
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.

    Attributes:
        training_size: N, a buffer that `chartae.fit` sets; 0 stands for the size of each batch.
    """

    training_size: Tensor

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        alpha: NonNegative = 1.0,
        beta: NonNegative = 6.0,
        gamma: NonNegative = 1.0,
        estimator: Estimator = "mss",
        **networks: Unpack[Networks],
    ) -> None:
        super().__init__(input_shape, latent_dim, **networks)
        self.alpha, self.beta, self.gamma, self.estimator = alpha, beta, gamma, estimator
        self.register_buffer("training_size", torch.tensor(0))

    def on_fit_start(self, size: int) -> None:
        """Store the size of the training set, which the estimates use."""
        self.training_size.fill_(size)

    def divergences(
        self, x: Tensor, y: Extra = None, mask: Extra = None, weight: Extra = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return latents ``(batch, d)`` and estimates of the three parts, each ``(batch,)``."""
        posterior = as_family(self.posterior(x, y, mask), DiagonalNormal)
        z = posterior.rsample()
        log_joint, log_product = log_aggregate(
            posterior, z, self.training_size, self.estimator, weight
        )
        log_posterior = posterior.log_prob(z)
        log_prior = self.prior(y).log_prob(z)
        return z, log_posterior - log_joint, log_joint - log_product, log_product - log_prior

    def loss(
        self, x: Tensor, *, y: Extra = None, mask: Extra = None, weight: Extra = None
    ) -> Losses:
        """Return the reconstruction and the three weighted parts."""
        z, *parts = self.divergences(x, y, mask, weight)
        reconstruction = -average(self.likelihood(z, y).log_prob(x, mask), weight)
        information, correlation, coordinates = (average(part, weight) for part in parts)
        divergence = self.alpha * information + self.beta * correlation + self.gamma * coordinates
        return Losses.of(
            reconstruction + self.kl_weight * divergence,
            reconstruction=reconstruction,
            mutual_information=information,
            total_correlation=correlation,
            coordinates_kl=coordinates,
        )


class FactorVAE(VAE):
    r"""FactorVAE (Kim and Mnih, 2018): a `VAE` whose adversary estimates total correlation.

    .. math:: -\mathrm{ELBO}(x) + \gamma \, E_q \log \frac{D(z)}{1 - D(z)}

    A discriminator D learns to distinguish latents from latents whose coordinates are permuted over
    the batch. At its optimum the last term is the total correlation.

    Use it for disentangled coordinates if batches are too small for a `BetaTCVAE`.

    Args:
        gamma: weight of the total correlation, at least 0.
        discriminator: body of the discriminator, an encoder specification for
            ``(batch, latent_dim)``; None takes a multilayer perceptron.
        halved: whether each batch is split in two, as in Algorithm 2 of the paper: the first half
            is reconstructed, and latents of the second half are permuted. It takes half the time,
            and each epoch reconstructs half of the data.
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.
    """

    adversaries = ("discriminator",)

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        gamma: NonNegative = 10.0,
        discriminator: NetworkSpec | None = None,
        halved: bool = False,
        **networks: Unpack[GaussianNetworks],
    ) -> None:
        super().__init__(input_shape, latent_dim, **networks)
        self.gamma, self.halved = gamma, halved
        self.discriminator = Discriminator(discriminator, (latent_dim,))

    def loss(
        self, x: Tensor, *, y: Extra = None, mask: Extra = None, weight: Extra = None
    ) -> Losses:
        """Return minus the ELBO plus the adversary's term, and the adversary's own loss."""
        batch = (x, y, mask, weight)
        first, second = batch, batch
        if self.halved and len(x) > 1:
            half = (len(x) + 1) // 2
            first, second = _rows(batch, slice(half)), _rows(batch, slice(half, None))
        x, y, mask, weight = first
        posterior = self.posterior(x, y, mask)
        z = posterior.rsample()
        reconstruction = -average(self.likelihood(z, y).log_prob(x, mask), weight)
        kl = average(kl_divergence(posterior, self.prior(y)), weight)
        logits = self.discriminator(z)
        correlation = average(logits, weight)
        total = reconstruction + self.kl_weight * (kl + self.gamma * correlation)
        others = z if first is second else self.posterior(*second[:3]).rsample()
        fakes = self.discriminator(permuted(others.detach(), second[3]))
        return Losses(
            {
                "model": total,
                "discriminator": discriminator_loss(logits, fakes, real_weight=weight),
            },
            {"reconstruction": reconstruction, "kl": kl, "total_correlation": correlation},
        )


Rows = tuple[Tensor, Extra, Extra, Extra]
"""Rows of x, and of its conditions, mask and weights."""


def _rows(batch: Rows, rows: slice) -> Rows:
    x, *extras = batch
    y, mask, weight = (None if extra is None else extra[rows] for extra in extras)
    return x[rows], y, mask, weight


def permuted(z: Tensor, weight: Extra = None) -> Tensor:
    """Return latents ``(batch, d)``, each coordinate permuted over the batch independently.

    With weights ``(batch,)`` each coordinate is drawn by these weights, with replacement, instead.
    """
    if weight is None:
        return z.gather(0, torch.rand_like(z).argsort(0))
    return z.gather(0, resampled(weight, z.numel()).view_as(z))
