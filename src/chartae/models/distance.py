"""Variational autoencoders whose reconstruction term is a distance between images."""

from collections.abc import Iterable
from typing import Unpack

import torch
from torch import Tensor, nn

from chartae.checks import Positive
from chartae.distributions import kl_divergence
from chartae.models.losses import Extra, Losses, average
from chartae.models.vae import VAE
from chartae.models.variational import GaussianNetworks
from chartae.nn import make_distance

__all__ = ["MSSSIMVAE", "DistanceVAE"]


class DistanceVAE(VAE):
    r"""Base of the VAEs with a distance :math:`\Delta(x, \hat x)` in place of -log p(x|z).

    A subclass defines `distance`. The reconstruction :math:`\hat x` is the mean of the likelihood.
    If the likelihood has a scale to learn, it is fitted by maximum likelihood, and this does not
    change the other parameters. `log_likelihood` is then that of the trained decoder with the
    fitted noise.
    """

    def distance(self, x: Tensor, mean: Tensor) -> Tensor:
        """Return the distances of observations from their reconstructions, ``(batch,)``.

        Args:
            x: observations on the networks' scale (`Likelihood.encoder_input`).
            mean: their reconstructions on the networks' scale.
        """
        raise NotImplementedError

    def optimization_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the groups of the model, and ``"likelihood"`` if it has parameters."""
        scale = list(self.observation_model.parameters())
        groups = super().optimization_groups()
        groups["model"] = [p for p in groups["model"] if all(p is not other for other in scale)]
        return groups | ({"likelihood": scale} if scale else {})

    def calibration(self, negative_log_likelihood: Tensor) -> dict[str, Tensor]:
        """Return the objective of the likelihood's own parameters, if it has any."""
        learns = list(self.observation_model.parameters())
        return {"likelihood": negative_log_likelihood} if learns else {}

    def loss(
        self, x: Tensor, *, y: Extra = None, mask: Extra = None, weight: Extra = None
    ) -> Losses:
        """Return the mean distance plus the divergence."""
        posterior = self.posterior(x, y, mask)
        observation = self.likelihood(posterior.rsample(), y)
        scaled = map(self.observation_model.encoder_input, (x, observation.mean))
        distance = average(self.distance(*observed(mask, *scaled)), weight)
        divergence = kl_divergence(posterior, self.prior(y))
        total = distance + self.kl_weight * average(self.weighted(divergence), weight)
        kl = average(divergence, weight)
        calibration = self.calibration(-average(observation.log_prob(x, mask), weight))
        return Losses({"model": total, **calibration}, {"reconstruction": distance, "kl": kl})


def observed(mask: Tensor | None, *images: Tensor) -> Iterable[Tensor]:
    """Return images that are 0 wherever the mask is False, so these pixels have distance 0."""
    return [image if mask is None else torch.where(mask, image, 0.0) for image in images]


class MSSSIMVAE(DistanceVAE):
    r"""VAE with a perceptual distance (Snell et al., 2017): multi-scale structural similarity.

    .. math:: \lambda \, (1 - \mathrm{MS\text{-}SSIM}(x, \hat x)) + KL(q(z|x) \| p(z))

    or any other distance between images (the EL-VAE of the literature).

    Use it for images, in [0, 1], whose structure matters more than the value of each pixel.

    Args:
        input_shape: shape of one observation; for ``"ms_ssim"`` an image or a volume, at least 3
            wide.
        latent_dim: size of the latent space.
        distance: ``"ms_ssim"``, ``"l1"`` or ``"l2"`` (sums over features), or a module from two
            batches of observations to ``(batch,)`` distances.
        weight: :math:`\lambda` > 0. The similarity is at most 1, but the divergence is several nats
            for each informative coordinate: with a small weight the latents collapse to the prior.
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.

    Raises:
        ConfigurationError: for an unknown distance, or if observations are not images.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        distance: str | nn.Module = "ms_ssim",
        weight: Positive = 500.0,
        **networks: Unpack[GaussianNetworks],
    ) -> None:
        super().__init__(input_shape, latent_dim, **networks)
        self.weight = weight
        self.measure = make_distance(distance, self.input_shape)

    def distance(self, x: Tensor, mean: Tensor) -> Tensor:
        """Return the weighted distances, ``(batch,)``."""
        return self.weight * self.measure(x, mean)
