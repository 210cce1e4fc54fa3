"""The adversarial autoencoder."""

from typing import Unpack

import torch
from torch import Tensor, nn

from chartae.checks import NonNegative
from chartae.distributions import DiagonalNormal, Gaussian, Posterior
from chartae.errors import ConfigurationError
from chartae.models.adversarial import discriminator_loss, generator_loss
from chartae.models.losses import Extra, Losses, average
from chartae.models.variational import GaussianNetworks, VariationalAutoencoder
from chartae.nn import Discriminator, NetworkSpec

__all__ = ["AAE"]


class AAE(VariationalAutoencoder):
    r"""Adversarial autoencoder (Makhzani et al., 2016): a discriminator in place of the KL.

    .. math:: -E_q \log p(x|z) - \lambda \, E_q \log D(z)

    The discriminator D learns to distinguish latents from draws of the prior N(0, I).

    Use it if the aggregated posterior matters more than the posterior of each x. A Gaussian encoder
    gives posteriors, hence likelihoods and a geometry. A deterministic encoder (a `WAE` with the
    same discriminator) gives codes only.

    Args:
        weight: :math:`\lambda`, at least 0.
        stochastic: True for a Gaussian encoder, False for a deterministic one.
        discriminator: body of the discriminator, as in `FactorVAE`.
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.
    """

    adversaries = ("discriminator",)
    posterior_family: type[Gaussian] | None = DiagonalNormal

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        weight: NonNegative = 1.0,
        stochastic: bool = True,
        discriminator: NetworkSpec | None = None,
        **networks: Unpack[GaussianNetworks],
    ) -> None:
        super().__init__(input_shape, latent_dim, **networks)
        self.weight, self.stochastic = weight, stochastic
        self.discriminator = Discriminator(discriminator, (latent_dim,))
        # This term depends on the discriminator, which changes, so it cannot choose the best epoch.
        self.monitored = "reconstruction"
        if not stochastic:
            self.posterior_family = None
            del self.posterior_head
            self.code_head = nn.Linear(self.num_features, latent_dim)

    def posterior(self, x: Tensor, y: Extra = None, mask: Extra = None) -> Posterior:
        """Return q(z|x, y), a `Gaussian`.

        Raises:
            ConfigurationError: if the encoder is deterministic.
        """
        if not self.stochastic:
            raise ConfigurationError(
                "stochastic=False: expected True, as this AAE has no posterior and no likelihoods"
            )
        return super().posterior(x, y, mask)

    def embed(self, x: Tensor, y: Extra = None, mask: Extra = None) -> Tensor:
        """Return the posterior mean of each x, or its code, without checks."""
        if self.stochastic:
            return super().embed(x, y, mask)
        code: Tensor = self.code_head(self.features(x, y, mask))
        return code

    def loss(
        self, x: Tensor, *, y: Extra = None, mask: Extra = None, weight: Extra = None
    ) -> Losses:
        """Return the objective of encoder and decoder, and that of the discriminator."""
        z = self.posterior(x, y, mask).rsample() if self.stochastic else self.embed(x, y, mask)
        reconstruction = -average(self.likelihood(z, y).log_prob(x, mask), weight)
        real, fake = self.discriminator(torch.randn_like(z)), self.discriminator(z)
        deception = generator_loss(fake, weight)
        return Losses(
            {
                "model": reconstruction + self.kl_weight * self.weight * deception,
                "discriminator": discriminator_loss(real, fake, fake_weight=weight),
            },
            {"reconstruction": reconstruction, "deception": deception},
        )
