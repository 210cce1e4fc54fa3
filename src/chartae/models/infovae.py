"""The information-maximising variational autoencoder."""

from typing import Annotated, Unpack

from torch import Tensor

from chartae.checks import OneOf, Positive, Range
from chartae.distributions import KERNELS, kl_divergence, mmd
from chartae.errors import ConfigurationError
from chartae.models.losses import Extra, Losses, average
from chartae.models.vae import VAE
from chartae.models.variational import GaussianNetworks

__all__ = ["InfoVAE"]


class InfoVAE(VAE):
    r"""InfoVAE (Zhao et al., 2019): a `VAE` with a divergence of the aggregated posterior.

    .. math:: -E_q \log p(x|z) + (1 - \alpha) \, KL(q(z|x) \| p(z))
        + (\alpha + \lambda - 1) \, \mathrm{MMD}^2(q(z), p(z))

    Use it if a strong decoder makes a `VAE` ignore its latents. With :math:`\alpha` near 1 each
    latent may be as informative as possible, as long as the aggregated posterior is close to the
    prior.

    Args:
        alpha: :math:`\alpha`, at most 1. ``alpha=0`` with ``weight=1`` is a VAE.
        weight: :math:`\lambda`, at least :math:`1 - \alpha`.
        kernel: ``"imq"``, inverse multiquadratics of several widths, or ``"rbf"``.
        bandwidth: standard deviation of the prior for the kernel, positive.
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        alpha: Annotated[float, Range(maximum=1.0)] = 0.5,
        weight: Annotated[float, Range()] = 10.0,
        kernel: Annotated[str, OneOf(KERNELS)] = "imq",
        bandwidth: Positive = 1.0,
        **networks: Unpack[GaussianNetworks],
    ) -> None:
        if alpha + weight < 1.0:
            raise ConfigurationError(f"weight={weight}: expected at least 1 - alpha, {1 - alpha}")
        super().__init__(input_shape, latent_dim, **networks)
        self.alpha, self.weight = alpha, weight
        self.kernel, self.bandwidth = kernel, bandwidth

    def loss(
        self, x: Tensor, *, y: Extra = None, mask: Extra = None, weight: Extra = None
    ) -> Losses:
        """Return the reconstruction, and the two weighted divergences."""
        posterior, prior = self.posterior(x, y, mask), self.prior(y)
        z = posterior.rsample()
        reconstruction = -average(self.likelihood(z, y).log_prob(x, mask), weight)
        kl = average(kl_divergence(posterior, prior), weight)
        discrepancy = mmd(z, prior.sample(z.shape[:1]), self.kernel, self.bandwidth, weight)
        divergence = (1 - self.alpha) * kl + (self.alpha + self.weight - 1) * discrepancy
        return Losses.of(
            reconstruction + self.kl_weight * divergence,
            reconstruction=reconstruction,
            kl=kl,
            mmd=discrepancy,
        )
