"""Distances between observations, for models whose reconstruction error is a distance."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, avg_pool3d

from chartae.checks import check_choice
from chartae.errors import ConfigurationError

__all__ = ["Scales", "make_distance", "similarity_scales"]

Distance = Callable[[Tensor, Tensor], Tensor]

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of the scales, from fine to coarse (Wang et al., 2003)."""
WINDOWS: dict[int, float] = {11: 1.5, 7: 0.9, 5: 0.6, 3: 0.3}
"""Standard deviations of Gaussian windows, by size. The first is from Wang et al. (2003)."""
C1, C2 = 0.01**2, 0.03**2
"""Constants of the same paper for a data range of 1. They avoid 0 / 0."""


def make_distance(spec: str | nn.Module, input_shape: tuple[int, ...]) -> Distance:
    """Return a distance between two batches of observations: ``(batch,)``.

    Args:
        spec: ``"ms_ssim"``, ``"l1"``, ``"l2"`` or a torch module. ``"ms_ssim"`` is one minus the
            multi-scale structural similarity (Wang et al., 2003) of images in [0, 1]. The
            published window has 11 pixels, with 5 scales. Small images use the largest window
            that allows two scales, if there is one, and all scales that are at least as large as
            the window. ``"l1"`` and ``"l2"`` are sums over features of absolute and squared
            differences.
        input_shape: shape of one observation; for ``"ms_ssim"`` an image ``(H, W)`` or
            ``(C, H, W)``, or a volume ``(C, D, H, W)``, at least 3 wide.

    Raises:
        ConfigurationError: for an unknown distance, or observations that are not images.

    >>> import torch
    >>> make_distance("l1", (4, 4))(torch.zeros(3, 4, 4), torch.ones(3, 4, 4))
    tensor([16., 16., 16.])
    """
    if isinstance(spec, nn.Module):
        return spec
    check_choice("distance", spec, ("ms_ssim", *NORMS))
    return NORMS[spec] if spec in NORMS else _ms_ssim_distance(input_shape)


def _l1(x: Tensor, mean: Tensor) -> Tensor:
    return (x - mean).abs().flatten(1).sum(1)


def _l2(x: Tensor, mean: Tensor) -> Tensor:
    return (x - mean).square().flatten(1).sum(1)


NORMS: dict[str, Distance] = {"l1": _l1, "l2": _l2}


class Scales(NamedTuple):
    """The window and the scales of the multi-scale structural similarity.

    Attributes:
        window: size of the Gaussian window; its standard deviation is ``WINDOWS[window]``.
        weights: weights of the scales, from fine to coarse, with a sum of 1.
    """

    window: int
    weights: tuple[float, ...]


def similarity_scales(width: int) -> Scales | None:
    """Return the window and the scales for images whose smallest side is ``width``.

    The window is the largest that allows two scales, if there is one, else the largest that fits.
    All scales are used that are at least as large as the window, up to five. Images less than 3
    wide give None.

    >>> scales = similarity_scales(28)
    >>> scales.window, len(scales.weights)
    (11, 2)
    """
    counts = {w: sum(width >> k >= w for k in range(5)) for w in WINDOWS if width >= w}
    if not counts:
        return None
    window = next((w for w, count in counts.items() if count > 1), next(iter(counts)))
    weights = SCALE_WEIGHTS[: counts[window]]
    return Scales(window, tuple(weight / math.fsum(weights) for weight in weights))


def _ms_ssim_distance(input_shape: tuple[int, ...]) -> Distance:
    spatial = input_shape if len(input_shape) == 2 else input_shape[1:]
    scales = similarity_scales(min(spatial)) if len(spatial) in (2, 3) else None
    if scales is None:
        raise ConfigurationError(
            f"input_shape={input_shape}: distance='ms_ssim' expects images (H, W), (C, H, W) or "
            "volumes (C, D, H, W), at least 3 wide; try distance='l2'"
        )
    return partial(_ms_ssim, dims=len(spatial), window=scales.window, betas=scales.weights)


def _ms_ssim(
    x: Tensor, mean: Tensor, *, dims: int, window: int, betas: tuple[float, ...]
) -> Tensor:
    dtype = torch.promote_types(mean.dtype, torch.float32)
    with torch.autocast(x.device.type, enabled=False):  # in 16 bits the variances cancel
        x, mean = x.to(dtype), mean.to(dtype)
        similarities = torch.stack(list(_similarities(x, mean, dims, window, len(betas))))
        # Similarities can be negative, and powers of negative numbers are not defined. They are
        # mapped from [-1, 1] to [0, 1].
        shares = 0.5 * (similarities + 1.0)
        return -torch.expm1(shares.new_tensor(betas) @ shares.log())


def _similarities(
    x: Tensor, mean: Tensor, dims: int, window: int, num_scales: int
) -> Iterator[Tensor]:
    """Yield the mean similarity of structure at each scale, fine to coarse: ``(batch,)`` each.

    At the coarsest scale it includes the similarity of luminance (Wang et al., 2003, equation 7).
    Only windows that lie within the image are used.
    """
    pool = avg_pool2d if dims == 2 else avg_pool3d
    for scale in range(num_scales):
        if scale:
            x, mean = pool(x, 2), pool(mean, 2)
        moments = torch.stack([x, mean, x.square() + mean.square(), x * mean])
        for size in x.shape[-dims:]:  # each axis moves to the end, so their order is restored
            moments = moments.movedim(-dims, -1) @ _sliding_window(size, window, x).mT
        x_mean, y_mean, squares, product = moments
        mean_product, mean_squares = x_mean * y_mean, x_mean.square() + y_mean.square()
        similarity = (2.0 * (product - mean_product) + C2) / (squares - mean_squares + C2)
        if scale == num_scales - 1:
            similarity = similarity * (2.0 * mean_product + C1) / (mean_squares + C1)
        yield similarity.flatten(1).mean(1)


def _sliding_window(size: int, window: int, like: Tensor) -> Tensor:
    """Return the matrix of Gaussian averages along an axis, ``(size - window + 1, size)``."""
    t = torch.arange(window, dtype=like.dtype, device=like.device) - window // 2
    weights = torch.softmax(-0.5 * (t / WINDOWS[window]).square(), 0)
    identity = torch.eye(size, dtype=like.dtype, device=like.device)
    return identity.unfold(0, window, 1) @ weights
