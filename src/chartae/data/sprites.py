"""Images of simple shapes with known factors of variation."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from chartae.checks import check_integer
from chartae.errors import ConfigurationError
from chartae.randomness import make_generator

__all__ = ["Sprites", "sprites"]

SHAPES = ("square", "ellipse", "triangle")
"""The shapes, in the order of the first factor."""
PERIODS = (math.pi / 2.0, math.pi, 2.0 * math.pi / 3.0)
"""The angle after which each shape looks the same."""
FACTORS = ("shape", "scale", "orientation", "x", "y")


@dataclass(frozen=True)
class Sprites:
    """Images and the factors that made them.

    Attributes:
        x: images ``(N, size, size)`` in [0, 1].
        factors: the level of each factor, int64 ``(N, 5)``, from 0.
        names: names of the factors: shape, scale, orientation, x and y.
        levels: number of levels of each factor.
    """

    x: Tensor
    factors: Tensor
    names: tuple[str, ...]
    levels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.x)


def sprites(
    num_samples: int | None = None,
    *,
    size: int = 32,
    levels: tuple[int, int, int, int, int] = (3, 4, 8, 6, 6),
    seed: int = 0,
) -> Sprites:
    """Return images of one shape each, with known shape, scale, orientation and position.

    They are like those of dSprites (Matthey et al., 2017), of any size and number of levels, and
    with smooth edges. The orientations cover a quarter turn of a square, half a turn of an ellipse
    and a third of a turn of a triangle, after which the shape looks the same.

    Args:
        num_samples: number of images, drawn without replacement; None returns all combinations, in
            order, the last factor varying fastest.
        size: height and width, at least 16.
        levels: number of shapes (at most 3), scales, orientations, and positions along x and y.
        seed: the same seed gives the same images.

    Raises:
        ConfigurationError: for a number out of range, or more samples than combinations.

    >>> data = sprites(100, size=16)
    >>> data.x.shape, data.factors.shape, data.names
    (torch.Size([100, 16, 16]), torch.Size([100, 5]), ('shape', 'scale', 'orientation', 'x', 'y'))
    """
    check_integer("size", size, minimum=16)
    check_integer("seed", seed, minimum=0)
    if len(levels) != len(FACTORS):
        raise ConfigurationError(f"levels={levels!r}: expected one number for each of {FACTORS}")
    for name, count in zip(FACTORS, levels, strict=True):
        check_integer(f"levels of {name}", count, minimum=1)
    if levels[0] > len(SHAPES):
        raise ConfigurationError(f"levels={levels!r}: expected at most {len(SHAPES)} shapes")
    total = math.prod(levels)
    chosen = torch.arange(total)
    if num_samples is not None:
        check_integer("num_samples", num_samples, minimum=1)
        if num_samples > total:
            raise ConfigurationError(
                f"num_samples={num_samples}: expected at most {total}, the number of combinations"
            )
        generator = make_generator(seed, "sprites")
        chosen = torch.randperm(total, generator=generator)[:num_samples]
    factors = torch.stack(torch.unravel_index(chosen, levels), 1)
    x = torch.cat([_draw(part, levels, size) for part in factors.split(1024)])
    return Sprites(x.to(torch.get_default_dtype()), factors, FACTORS, tuple(levels))


def _draw(factors: Tensor, levels: tuple[int, ...], size: int) -> Tensor:
    """Return images ``(N, size, size)`` of float64."""
    shape = factors[:, 0]
    scale, turn, x, y = (
        factors[:, k].double() / max(1, levels[k] - (0 if k == 2 else 1)) for k in range(1, 5)
    )
    radius = 0.14 + 0.12 * scale  # of the image's side
    angle = turn * torch.tensor(PERIODS, dtype=torch.float64)[shape]
    margin = 0.27  # no shape is cut
    centre = margin + (1.0 - 2.0 * margin) * torch.stack([x, y], 1)
    places = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    dx = places - centre[:, 0, None]
    dy = places - centre[:, 1, None]
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    u = (cos * dx[:, None, :] + sin * dy[:, :, None]) / radius[:, None, None]
    v = (cos * dy[:, :, None] - sin * dx[:, None, :]) / radius[:, None, None]
    # Each is negative inside its shape, with a slope of about 1 at its edge.
    square = torch.maximum(u.abs(), v.abs()) - math.sqrt(0.5)
    ellipse = 0.5 * (torch.hypot(u, 2.0 * v) - 1.0)
    root = math.sqrt(3.0)
    triangle = torch.stack([v - 0.5, 0.5 * (root * u - v) - 0.5, -0.5 * (root * u + v) - 0.5])
    distance = torch.stack([square, ellipse, triangle.amax(0)], 1)
    chosen = distance[torch.arange(len(shape)), shape]
    return (0.5 - chosen * radius[:, None, None] * size).clamp(0.0, 1.0)
