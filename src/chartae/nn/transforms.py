"""Classic random transforms of images and volumes: rotation, shift, zoom, flip."""

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from chartae.checks import check_number
from chartae.nn.conv import split_shape

__all__ = ["random_affine"]


def random_affine(
    x: Tensor,
    *,
    rotation: float = 15.0,
    shift: float = 0.1,
    zoom: float = 0.1,
    flip: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return each image or volume rotated, shifted and scaled at random, as classic augmentation.

    Values are interpolated linearly; beyond the border they are those of the nearest border pixel.
    A volume is rotated about one of its three axes, chosen at random.

    Args:
        x: ``(batch, H, W)``, ``(batch, C, H, W)`` or ``(batch, C, D, H, W)``.
        rotation: largest angle in degrees, in both directions.
        shift: largest shift along each axis, as a share of the size, at least 0.
        zoom: largest change of scale, as a share, in [0, 1).
        flip: whether half of the images are mirrored along their last axis.
        generator: source of the randomness; None takes torch's.

    Raises:
        ConfigurationError: for a number out of range, or data that are neither images nor volumes.

    >>> x = torch.rand(5, 28, 28)
    >>> random_affine(x).shape
    torch.Size([5, 28, 28])
    >>> torch.allclose(random_affine(x, rotation=0.0, shift=0.0, zoom=0.0), x, atol=1e-5)
    True
    """
    check_number("rotation", rotation, minimum=0.0, maximum=180.0)
    check_number("shift", shift, minimum=0.0)
    check_number("zoom", zoom, minimum=0.0, below=1.0)
    channels, sizes = split_shape(tuple(x.shape[1:]))
    images = x.reshape(len(x), channels, *sizes)
    maps = _maps(len(x), sizes, rotation, shift, zoom, flip, generator).to(x)
    grid = affine_grid(maps, list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="border", align_corners=False).reshape(x.shape)


def _maps(
    n: int,
    sizes: tuple[int, ...],
    rotation: float,
    shift: float,
    zoom: float,
    flip: bool,
    generator: torch.Generator | None,
) -> Tensor:
    """Return affine maps of normalised coordinates, ``(n, dims, dims + 1)``.

    A rotation is one of pixels, so that images with unequal sides are not sheared.
    """

    def uniform(*shape: int) -> Tensor:
        return 2.0 * torch.rand(n, *shape, generator=generator) - 1.0

    dims = len(sizes)
    angles = uniform() * math.radians(rotation)
    scales = 1.0 + zoom * uniform()
    # The last axis of the data is the first coordinate of the grid.
    extents = torch.tensor(sizes[::-1], dtype=torch.float32)
    planes = torch.tensor([[a, b] for a in range(dims) for b in range(a + 1, dims)])
    chosen = planes[torch.randint(len(planes), (n,), generator=generator)] if len(planes) else None
    linear = torch.eye(dims).repeat(n, 1, 1)
    if chosen is not None:
        rows, (first, second) = torch.arange(n), chosen.unbind(1)
        linear[rows, first, first] = linear[rows, second, second] = angles.cos()
        linear[rows, first, second], linear[rows, second, first] = angles.sin(), -angles.sin()
    linear = linear * scales[:, None, None] * extents / extents[:, None]
    if flip:
        mirrored = torch.rand(n, generator=generator) < 0.5
        linear[mirrored, :, 0] *= -1.0
    return torch.cat([linear, 2.0 * shift * uniform(dims)[..., None]], -1)
