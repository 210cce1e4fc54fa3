"""Synthetic follow-ups with known courses: images that turn, change or grow, figures that move."""

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional

from chartae.checks import check_integer, check_number
from chartae.data.dataset import ArrayDataset
from chartae.data.sequences import Sequences
from chartae.errors import ConfigurationError, DataError
from chartae.randomness import make_generator

__all__ = ["ARM_ANGLES", "color_changes", "progression", "raising_arms", "rotations"]

TURQUOISE, YELLOW = 174.0, 60.0
"""Hues in degrees."""

SMALLEST = 0.5
"""The last size of a digit that shrinks, relative to the first."""

ARM_ANGLES = (-60.0, 60.0)
"""The arm's angles long before and long after the delay, in degrees above the horizontal."""

_SMALLEST_SIDE = 16  # at smaller sizes the limbs of a figure are thinner than a pixel


def rotations(
    images: ArrayLike | Tensor, num_visits: int = 8, *, degrees: float = 360.0
) -> Sequences:
    r"""Return each image at evenly spaced rotations: rotMNIST, of MNIST (thesis section 6.5.1).

    Visit j, at the time j, is rotated counter-clockwise by :math:`\text{degrees} \cdot j / T`. A
    full turn does not repeat the first image at its end. Pixels are interpolated linearly; outside
    the image there is 0.

    Args:
        images: ``(N, height, width)`` or ``(N, channels, height, width)``; uint8 (divided by 255)
            or floats.
        num_visits: the number T of visits of each individual, at least 1.
        degrees: the angle to which the visits divide.

    >>> rotations(torch.rand(5, 28, 28))
    Sequences(5 individuals, 40 visits of shape (28, 28), float32; 8 each)
    """
    x = _read(images)
    num_visits = check_integer("num_visits", num_visits, minimum=1)
    degrees = check_number("degrees", degrees)
    angles = degrees * torch.arange(num_visits, dtype=torch.float64) / num_visits
    turned = _over_visits(x[:, None], angles.expand(len(x), -1), torch.ones(len(x), num_visits))
    return Sequences(turned, times=torch.arange(num_visits), dtype=None)


def color_changes(images: ArrayLike | Tensor, num_visits: int = 12, *, seed: int = 0) -> Sequences:
    """Return coloured images of which each changes its colour, its size or its direction.

    Of MNIST it is a colorMNIST (thesis section 6.5.1, after Keller and Welling, 2021): every
    individual starts upright and turquoise, so that its first image does not tell its course. One
    of three changes, drawn at random, follows over the visits j = 0, ..., T - 1: the hue goes
    linearly from turquoise to yellow; the size goes linearly from 1 to 0.5; or the image turns
    counter-clockwise, by 360 j / T degrees. The thesis does not give these ranges.

    Args:
        images: ``(N, height, width)``; uint8 (divided by 255) or floats in [0, 1].
        num_visits: the number T of visits of each individual, at least 2.
        seed: the same seed gives the same changes.

    Returns:
        Visits ``(3, height, width)`` at the times 0, ..., T - 1. The kind of change of each
        individual is its covariate.

    >>> data = color_changes(torch.rand(6, 28, 28))
    >>> data.input_shape, data.class_names
    ((3, 28, 28), ('color', 'rotation', 'size'))
    """
    x = _read(images)
    if x.ndim != 3:
        raise DataError(f"images has shape {tuple(x.shape)}: expected (N, height, width)")
    _check_range(x)
    num_visits = check_integer("num_visits", num_visits, minimum=2)
    generator = make_generator(check_integer("seed", seed, minimum=0), "color_changes")
    kind = torch.randint(3, (len(x), 1), generator=generator)
    visit = torch.arange(num_visits, dtype=torch.float64)
    share = visit / (num_visits - 1)
    hues = torch.where(kind == 0, TURQUOISE + (YELLOW - TURQUOISE) * share, TURQUOISE)
    angles = torch.where(kind == 1, 360.0 * visit / num_visits, 0.0)
    sizes = torch.where(kind == 2, 1.0 + (SMALLEST - 1.0) * share, 1.0)
    grey = _over_visits(x[:, None], angles, sizes)
    colored = grey[:, :, None] * _rgb(hues).to(grey)[..., None, None]
    return Sequences(
        colored,
        times=visit,
        covariates=kind[:, 0],
        class_names=["color", "rotation", "size"],
        covariate_names=["change"],
        dtype=None,
    )


def progression(
    images: ArrayLike | Tensor, num_visits: int = 10, *, noise: float = 0.001, seed: int = 0
) -> Sequences:
    r"""Return a simulated disease of each image: intensity, growth, rotation and noise.

    The model of thesis section 5.6.1. An image y is scaled to [0, 1]. At visit j = 1, ..., T, with
    the share s = j / T of the course, the intensities are :math:`y^{e^s}`, the image is magnified
    by :math:`1 + s (g - 1)` and rotated counter-clockwise by :math:`s \gamma` degrees, about its
    centre. It is cropped to its size, noise is added, and it is scaled to [0, 1] again. For each
    individual the exponent e is a or 1 / a, with equal probability, and

    .. math:: a \sim U(1, 2), \quad g \sim U(1, 1.5), \quad \gamma \sim U(-90, 90).

    The thesis gives the last image only; here the exponent changes geometrically, and growth and
    rotation linearly. Its formula for the exponent is read as above.

    Args:
        images: ``(N, height, width)`` or ``(N, channels, height, width)``; uint8 or floats.
        num_visits: the number T of visits of each individual, at least 1.
        noise: standard deviation of the noise, at least 0.
        seed: the same seed gives the same courses.

    Returns:
        Visits at the times 1, ..., T. The true ``exponent``, ``growth`` and ``rotation`` are the
        covariates.

    >>> progression(torch.rand(4, 32, 32)).covariate_names
    ('exponent', 'growth', 'rotation')
    """
    x = _stretched(_read(images))
    num_visits = check_integer("num_visits", num_visits, minimum=1)
    noise = check_number("noise", noise, minimum=0.0)
    generator = make_generator(check_integer("seed", seed, minimum=0), "progression")
    drawn = torch.rand(4, len(x), 1, generator=generator, dtype=torch.float64)
    exponent = torch.where(drawn[0] < 0.5, 1.0 + drawn[1], 1.0 / (1.0 + drawn[1]))
    growth, angle = 1.0 + 0.5 * drawn[2], 180.0 * drawn[3] - 90.0
    share = torch.arange(1, num_visits + 1, dtype=torch.float64) / num_visits
    power = (exponent**share).to(x).reshape(len(x), num_visits, *[1] * (x.ndim - 1))
    changed = _over_visits(x[:, None] ** power, angle * share, 1.0 + (growth - 1.0) * share)
    if noise:
        draws = torch.randn(changed.shape, generator=generator, dtype=changed.dtype)
        changed = changed + noise * draws
    return Sequences(
        _stretched(changed.flatten(0, 1)).view_as(changed),
        times=torch.arange(1, num_visits + 1),
        covariates=torch.cat([exponent, growth, angle], 1),
        covariate_names=["exponent", "growth", "rotation"],
        dtype=None,
    )


def raising_arms(
    num_individuals: int = 100,
    num_visits: int = 10,
    *,
    shape: tuple[int, int] = (32, 32),
    jitter: float = 0.3,
    seed: int = 0,
) -> Sequences:
    r"""Return images of figures that raise an arm, each with its own speed and delay.

    At the time t, the arm's angle above the horizontal, in degrees, is

    .. math:: -60 + 120 \, \sigma(\text{speed} \cdot (t - \text{delay}))

    with the logistic function :math:`\sigma`, log speed ~ N(0, 0.4^2) and delay ~ N(0, 1). So the
    true course is the line in time of thesis section 5.2.2. Figures also differ in their size, from
    0.8 to 1, and in the stance of their legs, which do not change with time. The figures stand in
    for the Starmen of the thesis, which are another data set.

    Args:
        num_individuals: at least 1.
        num_visits: of each, at least 2.
        shape: (height, width), each at least 16.
        jitter: visits are evenly spaced in [-3, 3], each moved by at most this share of the
            interval, in [0, 0.5).
        seed: the same seed gives the same figures.

    Returns:
        Visits ``(height, width)`` in [0, 1]. The true ``speed``, ``delay``, ``size`` and ``stance``
        are the covariates.

    >>> data = raising_arms(20)
    >>> data.x.shape, data.covariate_names
    (torch.Size([20, 10, 32, 32]), ('speed', 'delay', 'size', 'stance'))
    """
    count = check_integer("num_individuals", num_individuals, minimum=1)
    num_visits = check_integer("num_visits", num_visits, minimum=2)
    jitter = check_number("jitter", jitter, minimum=0.0, below=0.5)
    generator = make_generator(check_integer("seed", seed, minimum=0), "raising_arms")
    options: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    speed = (0.4 * torch.randn(count, **options)).exp()
    delay = torch.randn(count, **options)
    size = 0.8 + 0.2 * torch.rand(count, **options)
    stance = 0.08 + 0.12 * torch.rand(count, **options)
    grid = torch.linspace(-3.0, 3.0, num_visits, dtype=torch.float64)
    moved = 2.0 * torch.rand(count, num_visits, **options) - 1.0
    times = grid + jitter * 6.0 / (num_visits - 1) * moved
    low, high = ARM_ANGLES
    angle = low + (high - low) * torch.sigmoid(speed[:, None] * (times - delay[:, None]))
    return Sequences(
        _figures(angle, size, stance, shape),
        times=times,
        covariates=torch.stack([speed, delay, size, stance], 1),
        covariate_names=["speed", "delay", "size", "stance"],
        dtype=None,
    )


# --- images ---------------------------------------------------------------------------------------


def _read(images: Any) -> Tensor:
    """Return images as floats, ``(N, [channels,] height, width)``."""
    x = ArrayDataset.from_arrays(images).x
    if x.ndim not in (3, 4):
        raise DataError(
            f"images has shape {tuple(x.shape)}: expected (N, height, width) or "
            "(N, channels, height, width)"
        )
    return x


def _check_range(x: Tensor) -> None:
    low, high = (float(value) for value in x.aminmax())
    if low < 0.0 or high > 1.0:
        raise DataError(f"images ranges from {low:g} to {high:g}: expected values in [0, 1]")


def _stretched(x: Tensor) -> Tensor:
    """Return images with each scaled to [0, 1]; constant images are 0."""
    flat = x.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    spread = torch.where(high > low, high - low, 1.0)
    return ((flat - low) / spread).view_as(x)


def _over_visits(x: Tensor, degrees: Tensor, sizes: Tensor) -> Tensor:
    """Return images ``(N, T or 1, ...)`` turned and magnified by values ``(N, T)``."""
    x = x.expand(*degrees.shape, *x.shape[2:])
    frames = x.reshape(degrees.numel(), -1, *x.shape[-2:])
    return _warped(frames, degrees.flatten(), sizes.flatten()).reshape(x.shape)


def _warped(x: Tensor, degrees: Tensor, sizes: Tensor) -> Tensor:
    """Return images turned counter-clockwise about their centres, and magnified.

    Args:
        x: ``(n, channels, height, width)``.
        degrees: ``(n,)``.
        sizes: ``(n,)``.
    """
    height, width = x.shape[-2:]
    cos, sin = degrees.deg2rad().cos() / sizes, degrees.deg2rad().sin() / sizes
    # grid_sample measures each axis in halves of its own length.
    rows = [[cos, -sin * height / width], [sin * width / height, cos]]
    matrix = torch.stack([torch.stack(row, -1) for row in rows], -2)
    matrix = functional.pad(matrix, (0, 1)).to(x)  # no shift
    grid = functional.affine_grid(matrix, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)


def _rgb(hues: Tensor) -> Tensor:
    """Return the colours of hues in degrees at full value and saturation: ``(..., 3)``."""
    place = torch.tensor([5.0, 3.0, 1.0], dtype=hues.dtype)
    offset = (place + hues[..., None] / 60.0) % 6.0
    return 1.0 - torch.minimum(offset, 4.0 - offset).clamp(0.0, 1.0)


# --- figures --------------------------------------------------------------------------------------

# Lengths are relative to the shorter side of the image, for a figure of size 1.
SHOULDER = (0.0, 0.14)
ARM = 0.3
_HIP, _NECK, _HEAD, _HEAD_RADIUS = (0.0, -0.08), (0.0, 0.2), (0.0, 0.3), 0.1
_LEG, _HALF_WIDTH, _RESTING = 0.34, 0.035, -50.0


def _figures(angle: Tensor, size: Tensor, stance: Tensor, shape: Sequence[int]) -> Tensor:
    """Return images ``(N, T, height, width)`` for the angles ``(N, T)`` of the arm.

    A pixel is 1 inside a figure and 0 outside, with a linear edge one pixel wide.
    """
    if len(shape) != 2:
        raise ConfigurationError(f"shape={shape!r}: expected (height, width)")
    height = check_integer("shape[0]", shape[0], minimum=_SMALLEST_SIDE)
    width = check_integer("shape[1]", shape[1], minimum=_SMALLEST_SIDE)
    dtype = torch.get_default_dtype()
    angle, size, stance = (values.to(dtype) for values in (angle, size, stance))
    unit = size[:, None, None] * min(height, width)
    rows = ((height - 1) / 2 - torch.arange(height, dtype=dtype))[:, None] / unit
    columns = (torch.arange(width, dtype=dtype) - (width - 1) / 2) / unit
    legs = [(side * stance, torch.full_like(stance, -_LEG) + _HIP[1]) for side in (-1.0, 1.0)]
    resting = _end(torch.full_like(stance, 180.0 - _RESTING))
    lines = [(_HIP, _NECK), (_HIP, legs[0]), (_HIP, legs[1]), (SHOULDER, resting)]
    body = torch.hypot(columns - _HEAD[0], rows - _HEAD[1]) - (_HEAD_RADIUS - _HALF_WIDTH)
    for start, end in lines:
        body = torch.minimum(body, _distance(columns, rows, start, end))
    hand = _end(angle)
    arm = _distance(columns[:, None], rows[:, None], SHOULDER, hand)
    distance = torch.minimum(arm, body[:, None])
    return (0.5 + (_HALF_WIDTH - distance) * unit[:, None]).clamp(0.0, 1.0)


def _end(degrees: Tensor) -> tuple[Tensor, Tensor]:
    """Return the end of an arm at angles above the horizontal."""
    angle = degrees.deg2rad()
    return SHOULDER[0] + ARM * angle.cos(), SHOULDER[1] + ARM * angle.sin()


def _distance(
    columns: Tensor, rows: Tensor, start: tuple[float, float], end: tuple[Any, Any]
) -> Tensor:
    """Return the distances of pixels from lines ``(...)``: ``(..., height, width)``."""
    offsets = [torch.as_tensor(e - s).to(columns) for s, e in zip(start, end, strict=True)]
    across, up = (offset[..., None, None] for offset in offsets)
    x, y = columns - start[0], rows - start[1]
    share = ((x * across + y * up) / (across**2 + up**2)).clamp(0.0, 1.0)
    return ((x - share * across) ** 2 + (y - share * up) ** 2).sqrt()
