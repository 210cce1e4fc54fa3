"""Variational autoencoders whose reconstruction is a distance between images."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from chartae.checks import check_choice, check_number
from chartae.errors import ConfigurationError
from chartae.models.base import Losses, Networks
from chartae.models.vae import VAE

__all__ = ["MSSSIMVAE", "DistanceVAE"]

Distance = Callable[[Tensor, Tensor], Tensor]


class DistanceVAE(VAE):
    r"""Base of the VAEs with a distance :math:`\Delta(x, \hat x)` in place of -log p(x|z).

    A subclass defines `distance`. The likelihood gives :math:`\hat x`, its mean. Where it has a
    scale to learn, that follows by maximum likelihood, which moves nothing else: `log_likelihood`
    then is that of the decoder as trained, with honest noise.
    """

    def distance(self, x: Tensor, mean: Tensor) -> Tensor:
        """Return the distances of observations from their reconstructions, ``(batch,)``."""
        raise NotImplementedError

    def optimization_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the groups of a model, and ``"likelihood"``, the parameters of the scale."""
        scale = list(self.observation_model.parameters())
        groups = super().optimization_groups()
        groups["model"] = [p for p in groups["model"] if all(p is not other for other in scale)]
        return groups | ({"likelihood": scale} if scale else {})

    def calibration(self, negative_log_likelihood: Tensor) -> dict[str, Tensor]:
        """Return the objective of the likelihood's own parameters, if it has any."""
        learns = any(True for _ in self.observation_model.parameters())
        return {"likelihood": negative_log_likelihood} if learns else {}

    def loss(self, x: Tensor, *, y: Tensor | None = None, mask: Tensor | None = None) -> Losses:
        """Return the mean distance plus the divergence."""
        posterior = self.posterior(x, y)
        observation = self.likelihood(posterior.rsample(), y)
        distance = self.distance(*observed(mask, x, observation.mean)).mean()
        kl = kl_divergence(posterior, self.prior(y)).mean()
        total = distance + self.kl_weight * self.weighted(kl)
        calibration = self.calibration(-observation.log_prob(x, mask).mean())
        return Losses({"model": total, **calibration}, {"reconstruction": distance, "kl": kl})


def observed(mask: Tensor | None, *images: Tensor) -> Iterable[Tensor]:
    """Return images that are 0 wherever the mask is False, so that no distance comes from there."""
    if mask is None:
        return images
    return [torch.where(mask, image, 0.0) for image in images]


class MSSSIMVAE(DistanceVAE):
    r"""VAE with a perceptual distance (Snell et al., 2017): multi-scale structural similarity.

    .. math:: \lambda \, (1 - \mathrm{MS\text{-}SSIM}(x, \hat x)) + KL(q(z|x) \| p(z))

    or any other distance of yours (the EL-VAE of the literature). Windows and the number of scales
    follow the size of the images: of Wang et al.'s (2003) 11 pixels and 5 scales, what fits.

    Use it for images, in [0, 1], whose structure matters more than the value of each pixel.

    Args:
        input_shape: shape of one observation; for ``"ms_ssim"`` an image or a volume, at least 3
            wide.
        latent_dim: size of the latent space.
        distance: ``"ms_ssim"``, ``"l1"`` or ``"l2"`` (sums over features), or a module from two
            batches of observations to ``(batch,)`` distances.
        weight: :math:`\lambda` > 0. The similarity is at most 1, and the divergence some nats for
            each informative coordinate: a small weight makes the latents collapse.
        networks: the arguments of `Autoencoder`.

    Raises:
        ConfigurationError: for an unknown distance, or observations that are no images.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        distance: str | nn.Module = "ms_ssim",
        weight: float = 500.0,
        **networks: Unpack[Networks],
    ) -> None:
        check_number("weight", weight, above=0.0)
        super().__init__(input_shape, latent_dim, **networks)
        self.weight = weight
        self.specifications["distance"] = distance
        self.measure: Any = distance
        if not isinstance(distance, nn.Module):
            check_choice("distance", distance, ("ms_ssim", *NORMS))
            self.measure = NORMS.get(distance) or ms_ssim_distance(self.input_shape)

    def distance(self, x: Tensor, mean: Tensor) -> Tensor:
        """Return the weighted distances, ``(batch,)``."""
        distance: Tensor = self.measure(x, mean)
        return self.weight * distance


def _l1(x: Tensor, mean: Tensor) -> Tensor:
    return (x - mean).abs().flatten(1).sum(1)


def _l2(x: Tensor, mean: Tensor) -> Tensor:
    return (x - mean).square().flatten(1).sum(1)


NORMS: dict[str, Distance] = {"l1": _l1, "l2": _l2}

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of Wang et al. (2003), from fine to coarse."""


def ms_ssim_distance(input_shape: tuple[int, ...]) -> Distance:
    """Return 1 - MS-SSIM for images ``(H, W)`` or ``(C, H, W)``, or volumes ``(C, D, H, W)``.

    The window is the largest of Wang et al.'s 11 (standard deviation 1.5), 7, 5 and 3 that leaves
    two scales, if any does, and there are as many scales as fit.

    Raises:
        ConfigurationError: for vectors, and images less than 3 wide.
    """
    spatial = input_shape if len(input_shape) == 2 else input_shape[1:]
    width = min(spatial) if len(spatial) in (2, 3) else 0
    fitting = [(scales, window) for window in WINDOWS if (scales := _scales(width, window))]
    if not fitting:
        raise ConfigurationError(
            f"input_shape={input_shape}: distance='ms_ssim' expects images (H, W), (C, H, W) or "
            "volumes (C, D, H, W), at least 3 wide; try distance='l2'"
        )
    scales, window = next((pair for pair in fitting if pair[0] > 1), fitting[0])
    weights = SCALE_WEIGHTS[:scales]
    betas = tuple(weight / math.fsum(weights) for weight in weights)
    return partial(_ms_ssim, window=window, betas=betas)


WINDOWS: dict[int, float] = {11: 1.5, 7: 0.9, 5: 0.6, 3: 0.3}


def _scales(width: int, window: int) -> int:
    """Return at how many scales, of at most 5, an image is no smaller than the window."""
    return sum(width >> scale >= window for scale in range(5))


def _ms_ssim(x: Tensor, mean: Tensor, *, window: int, betas: tuple[float, ...]) -> Tensor:
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    if x.dim() == 3:  # grey images come without a channel
        x, mean = x[:, None], mean[:, None]
    similarity = multiscale_structural_similarity_index_measure(
        mean,
        x,
        sigma=WINDOWS[window],
        # The size follows from sigma, but for the depth of volumes.
        kernel_size=[1, 1, window][: x.dim() - 2],
        betas=betas,
        data_range=1.0,
        reduction="none",
        normalize="simple",
    )
    return 1.0 - similarity
