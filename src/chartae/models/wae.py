"""The Wasserstein autoencoder."""

from typing import Annotated, Literal, Unpack

import torch
from torch import Tensor

from chartae.checks import NonNegative, OneOf, Positive
from chartae.distributions import KERNELS, mmd
from chartae.models.adversarial import discriminator_loss, generator_loss
from chartae.models.ae import AE
from chartae.models.base import Networks
from chartae.models.losses import Extra, Losses, average
from chartae.nn import Discriminator, NetworkSpec

__all__ = ["WAE"]

Regularization = Literal["mmd", "gan"]


class WAE(AE):
    r"""Wasserstein autoencoder (Tolstikhin et al., 2018): codes distributed like a prior.

    .. math:: -\log p(x|z = f(x)) + \lambda \, \mathcal D(q(z), p(z)), \quad p(z) = N(0, I)

    with :math:`\mathcal D` the squared maximum mean discrepancy (WAE-MMD), or the loss of a
    discriminator of the codes (WAE-GAN).

    Use it for sharper samples than those of a `VAE`: the encoder is deterministic, and only the
    distribution of the codes of a whole batch is compared with the prior.

    Args:
        weight: :math:`\lambda` >= 0; None takes 10 for ``"mmd"`` and 1 for ``"gan"``.
        regularization: ``"mmd"`` or ``"gan"``.
        kernel: kernel of the MMD: ``"imq"``, inverse multiquadratics of several widths, or
            ``"rbf"``.
        bandwidth: standard deviation of the prior for the kernel, positive.
        discriminator: body of the discriminator for ``"gan"``, as in `FactorVAE`.
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        weight: NonNegative | None = None,
        regularization: Regularization = "mmd",
        kernel: Annotated[str, OneOf(KERNELS)] = "imq",
        bandwidth: Positive = 1.0,
        discriminator: NetworkSpec | None = None,
        **networks: Unpack[Networks],
    ) -> None:
        if weight is None:
            weight = 10.0 if regularization == "mmd" else 1.0
        super().__init__(input_shape, latent_dim, **networks)
        self.weight, self.regularization = weight, regularization
        self.kernel, self.bandwidth = kernel, bandwidth
        self.discriminator = None
        if regularization == "gan":
            self.discriminator = Discriminator(discriminator, (latent_dim,))
            self.adversaries = ("discriminator",)
            # This term depends on the discriminator, which changes, so it cannot choose the best
            # epoch.
            self.monitored = "reconstruction"

    def loss(
        self, x: Tensor, *, y: Extra = None, mask: Extra = None, weight: Extra = None
    ) -> Losses:
        """Return the reconstruction plus the weighted divergence, and the discriminator's loss."""
        z = self.embed(x, y, mask)
        reconstruction = -average(self.likelihood(z, y).log_prob(x, mask), weight)
        prior = torch.randn_like(z)
        if self.discriminator is None:
            divergence = mmd(z, prior, self.kernel, self.bandwidth, weight)
            total = reconstruction + self.weight * divergence
            return Losses.of(total, reconstruction=reconstruction, mmd=divergence)
        logits = self.discriminator(z)
        deception = generator_loss(logits, weight)
        return Losses(
            {
                "model": reconstruction + self.weight * deception,
                "discriminator": discriminator_loss(
                    self.discriminator(prior), logits, fake_weight=weight
                ),
            },
            {"reconstruction": reconstruction, "deception": deception},
        )
