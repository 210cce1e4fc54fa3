"""How close reconstructions are to the data: averages over images of a measure of each image."""

import math
from collections.abc import Callable, Iterator

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from chartae.checks import check_finite, check_number
from chartae.data.arrays import as_tensor, scaled
from chartae.errors import DataError
from chartae.nn.distances import WINDOWS, Scales, similarity_scales

__all__ = ["ms_ssim", "mse", "psnr", "ssim"]

ENTRIES = 2**20
"""Largest number of entries of a block of images; SSIM needs about 20 times their memory."""


def mse(real: ArrayLike | Tensor, reconstruction: ArrayLike | Tensor) -> float:
    """Return the mean squared error of a feature, at least 0.

    Args:
        real: ``(N, *input_shape)``; data of any kind. Here and below, arrays of uint8 and bool are
            scaled to [0, 1] first, as for models.
        reconstruction: their reconstructions, of the same shape.

    Raises:
        DataError: for different shapes, no samples, or values that are not finite.

    >>> import numpy as np
    >>> mse(np.zeros((5, 8, 8)), np.full((5, 8, 8), 0.5))
    0.25
    """
    pairs = _pairs(real, reconstruction)
    return _average(pairs, lambda x, y: (x - y).square().flatten(1).mean(1))


def psnr(
    real: ArrayLike | Tensor,
    reconstruction: ArrayLike | Tensor,
    *,
    data_range: float | None = None,
) -> float:
    r"""Return the peak signal-to-noise ratio in decibels, averaged over samples; more is better.

    .. math:: 10 \log_{10} \frac{R^2}{\mathrm{MSE}}

    It is infinite if a sample is equal to its reconstruction.

    Args:
        real: ``(N, *input_shape)``.
        reconstruction: their reconstructions, of the same shape.
        data_range: R, the difference of the largest and the smallest possible value, greater than
            0. None means 1, for data in [0, 1].

    Raises:
        DataError: as in `mse`; or without a ``data_range`` for ``real`` outside of [0, 1].
        ConfigurationError: for a ``data_range`` that is not possible.

    >>> import numpy as np
    >>> round(psnr(np.zeros((5, 8, 8)), np.full((5, 8, 8), 0.1)), 6)
    20.0
    """
    pairs = _pairs(real, reconstruction)
    size = _data_range(pairs, data_range)

    def of_each(x: Tensor, y: Tensor) -> Tensor:
        return 10.0 * torch.log10(size**2 / (x - y).square().flatten(1).mean(1))

    return _average(pairs, of_each)


def ssim(
    real: ArrayLike | Tensor,
    reconstruction: ArrayLike | Tensor,
    *,
    data_range: float | None = None,
) -> float:
    """Return the structural similarity (Wang et al., 2004), averaged over images, in [-1, 1].

    It is 1 for equal images. The window is Gaussian and has 11 pixels, with a standard deviation of
    1.5, as published. Images less than 11 wide have the largest window of 7, 5 or 3 pixels that
    fits. Windows at the margins see a reflection of the image. (torchmetrics computes it.)

    Args:
        real: images ``(N, H, W)`` or ``(N, C, H, W)``, or volumes ``(N, C, D, H, W)``, at least
            3 wide.
        reconstruction: their reconstructions, of the same shape.
        data_range: as in `psnr`.

    Raises:
        DataError: as in `psnr`, or for data that are not images.
        ConfigurationError: for a ``data_range`` that is not possible.

    >>> import numpy as np
    >>> x = np.random.default_rng(0).uniform(size=(4, 28, 28))
    >>> round(ssim(x, x), 6), ssim(x, x[::-1]) < 0.1
    (1.0, True)
    """
    pairs = _pairs(real, reconstruction)
    size, width = _data_range(pairs, data_range), _width(pairs)
    window = next(window for window in WINDOWS if window <= width)
    from torchmetrics.functional.image import structural_similarity_index_measure as similarity

    def of_each(x: Tensor, y: Tensor) -> Tensor:
        values = similarity(
            *(_with_channels(y), _with_channels(x)),
            sigma=WINDOWS[window],
            kernel_size=window,
            reduction="none",
            data_range=size,
        )
        assert isinstance(values, Tensor)  # the full images are not asked for
        return values

    return _average(pairs, of_each, _fast(pairs))


def ms_ssim(
    real: ArrayLike | Tensor,
    reconstruction: ArrayLike | Tensor,
    *,
    data_range: float | None = None,
) -> float:
    """Return the multi-scale structural similarity (Wang et al., 2003), averaged, in [0, 1].

    It is 1 for equal images. Negative similarities count as 0. The window and the number of scales
    follow from the smallest side of the images, as in `chartae.nn.similarity_scales`: from 176
    pixels on they are the published ones, 11 pixels and five scales; 28 pixels have two scales.
    Only images of one size can be compared with each other. (torchmetrics computes it.)

    Args:
        real: as in `ssim`.
        reconstruction: their reconstructions, of the same shape.
        data_range: as in `psnr`.

    Raises:
        DataError: as in `ssim`.
        ConfigurationError: for a ``data_range`` that is not possible.

    >>> import numpy as np
    >>> x = np.random.default_rng(0).uniform(size=(4, 28, 28))
    >>> round(ms_ssim(x, x), 6), ms_ssim(x, x[::-1]) < 0.2
    (1.0, True)
    """
    pairs = _pairs(real, reconstruction)
    size, scales = _data_range(pairs, data_range), _scales(_width(pairs))
    from torchmetrics.functional.image import (
        multiscale_structural_similarity_index_measure as similarity,
    )

    def of_each(x: Tensor, y: Tensor) -> Tensor:
        return similarity(
            *(_with_channels(y), _with_channels(x)),
            sigma=WINDOWS[scales.window],
            kernel_size=scales.window,
            reduction="none",
            data_range=size,
            betas=scales.weights,
        )

    return _average(pairs, of_each, _fast(pairs))


Pair = tuple[Tensor, Tensor]


def _pairs(real: ArrayLike | Tensor, reconstruction: ArrayLike | Tensor) -> Pair:
    x, y = as_tensor("real", real), as_tensor("reconstruction", reconstruction)
    if x.ndim < 2 or x.numel() == 0:
        raise DataError(f"real has shape {tuple(x.shape)}: expected (N, *input_shape), not empty")
    if x.shape != y.shape:
        raise DataError(
            f"reconstruction has shape {tuple(y.shape)}: expected {tuple(x.shape)}, as real"
        )
    for name, value in (("real", x), ("reconstruction", y)):
        scaled(value[:1], None, name)  # checks the dtype
        check_finite(name, value)
    return x, y


def _blocks(pairs: Pair, dtype: torch.dtype = torch.float64) -> Iterator[Pair]:
    """Yield blocks of both in a dtype; the results do not depend on their size."""
    x, y = pairs
    size = max(1, ENTRIES // x[0].numel())
    for a, b in zip(x.split(size), y.split(size), strict=True):
        yield scaled(a, dtype), scaled(b.to(a.device), dtype)


def _fast(pairs: Pair) -> torch.dtype:
    """Return float32 unless both are float64: convolutions in float64 take 25 times as long."""
    both = {value.dtype for value in pairs}
    return torch.float64 if both == {torch.float64} else torch.float32


def _average(
    pairs: Pair,
    of_each: Callable[[Tensor, Tensor], Tensor],
    dtype: torch.dtype = torch.float64,
) -> float:
    values = torch.cat([of_each(x, y) for x, y in _blocks(pairs, dtype)])
    result = float(values.double().mean())
    if math.isnan(result):  # an overflow, or a data_range whose square is 0
        raise DataError(
            f"real and reconstruction have values up to {float(pairs[0].abs().max()):g} and "
            f"{float(pairs[1].abs().max()):g}, which give NaN: expected smaller ones, or another "
            "data_range"
        )
    return result


def _data_range(pairs: Pair, given: float | None) -> float:
    if given is not None:
        return check_number("data_range", given, above=0.0)
    x = pairs[0]
    low, high = float(x.min()), float(x.max())
    if x.is_floating_point() and not 0.0 <= low <= high <= 1.0:
        raise DataError(
            f"real ranges from {low:g} to {high:g}: expected data in [0, 1], or the argument "
            "data_range, the difference of the largest and the smallest possible value"
        )
    return 1.0


def _width(pairs: Pair) -> int:
    """Return the smallest side of images or volumes."""
    shape = tuple(pairs[0].shape)
    sides = shape[2:] if len(shape) > 3 else shape[1:]
    if len(shape) not in (3, 4, 5) or min(sides) < min(WINDOWS):
        raise DataError(
            f"real has shape {shape}: expected images (N, H, W) or (N, C, H, W), or volumes "
            f"(N, C, D, H, W), at least {min(WINDOWS)} wide"
        )
    return min(sides)


def _scales(width: int) -> Scales:
    """Return the scales of `similarity_scales` that torchmetrics accepts.

    It asks for more than 9 windows' width for four scales, where 8 are enough.
    """
    scales = similarity_scales(width)
    assert scales is not None  # `_width` refuses smaller images
    count = len(scales.weights)
    accepted = [n for n in range(1, count + 1) if width // max(1, n - 1) ** 2 >= scales.window]
    weights = scales.weights[: max(accepted)]
    return Scales(scales.window, tuple(weight / sum(weights) for weight in weights))


def _with_channels(x: Tensor) -> Tensor:
    return x[:, None] if x.ndim == 3 else x
