"""The round sphere, in its stereographic chart."""

import math

import torch
from torch import Tensor

from chartae.checks import check_number
from chartae.distributions.radial import log_area
from chartae.geometry.metrics.conformal import (
    ConformalMetric,
    StereographicLines,
    StereographicPotential,
)

__all__ = ["SphereMetric", "great_circle"]


class SphereMetric(ConformalMetric):
    r"""The sphere of radius R in R^(d+1): :math:`G(z) = (2 / (1 + \|z\|^2 / R^2))^2 I`.

    The chart is the stereographic projection from the north pole onto the plane of the equator
    (`to_sphere`, `to_chart`): the origin is the south pole, :math:`\|z\| = R` is the equator. One
    point is missing, the north pole, where z is infinite. Geodesics are great circles, in closed
    form and float64; near the pole their points are large numbers.

    The shortest path between two points is unique unless they are antipodes. For these, one of
    the shortest paths is returned.

    The volume is finite, so the uniform distribution on the whole chart is proper, and
    `ManifoldDensity` needs no radius.

    Args:
        dim: dimension d of the sphere.
        radius: R > 0; the curvature is :math:`1/R^2`.

    Raises:
        ConfigurationError: for a dimension or radius out of range.

    >>> from chartae.geometry import distance
    >>> distance(SphereMetric(2), torch.zeros(2), torch.tensor([1.0, 0.0]))  # a quarter of 2 pi
    tensor(1.5708)
    """

    volume_is_large_near_data = True

    def __init__(self, dim: int, radius: float = 1.0) -> None:
        check_number("radius", radius, above=0.0)
        radius = float(radius)
        super().__init__(StereographicPotential(radius**-2), dim)
        self.radius = radius

    @property
    def closed_form(self) -> "GreatCircles":
        return GreatCircles(self.radius)

    @property
    def sectional_curvature(self) -> float:
        return self.radius**-2

    @property
    def total_volume(self) -> float:
        return math.exp(log_area(self.dim + 1) + self.dim * math.log(self.radius))

    def to_sphere(self, z: Tensor) -> Tensor:
        """Return the points of the sphere, ``(..., d + 1)``, at z ``(..., d)``.

        >>> SphereMetric(2).to_sphere(torch.tensor([1.0, 0.0]))
        tensor([1., 0., 0.])
        """
        x = z / self.radius
        square = x.square().sum(-1, keepdim=True)
        return self.radius * torch.cat([2.0 * x, square - 1.0], -1) / (1.0 + square)

    def to_chart(self, points: Tensor) -> Tensor:
        """Return z ``(..., d)`` of points of the sphere, ``(..., d + 1)``; infinite at the pole."""
        across, height = points[..., :-1], points[..., -1:]
        # The usual quotient, R x / (R - h), loses digits near the north pole.
        north = across * (self.radius + height) / across.square().sum(-1, keepdim=True)
        south = across / (self.radius - height)
        return self.radius * torch.where(height > 0.0, north, south)


class GreatCircles(StereographicLines):
    """The geodesics of a `SphereMetric`."""

    def __init__(self, radius: float) -> None:
        self.radius = radius

    def factor(self, x: Tensor) -> Tensor:
        return 2.0 / (1.0 + (x / self.radius).square().sum(-1))

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        # The half angle is computed from the distances to the point and to its antipode. Both have
        # the same factor, which cancels.
        x, y = x / self.radius, y / self.radius
        norm = x.norm(dim=-1, keepdim=True)
        opposite = norm * y + torch.where(norm > 0.0, x / norm, _first_axis(x))
        return 2.0 * self.radius * torch.atan2((x - y).norm(dim=-1), opposite.norm(dim=-1))

    def direction(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = x / self.radius, y / self.radius
        step = y - x
        moved = (1.0 + _square(x)) * step + _square(step) * x  # the Moebius difference, rescaled
        norm = moved.norm(dim=-1, keepdim=True)
        # All directions lead to the antipode.
        return torch.where(norm > 0.0, moved / norm, _first_axis(x))

    def along(self, x: Tensor, direction: Tensor, lengths: Tensor) -> Tensor:
        x, u = (x / self.radius)[..., None, :], direction[..., None, :]
        half = (0.5 / self.radius) * lengths[..., None]
        c, s = half.cos(), half.sin()
        aligned = (x * u).sum(-1, keepdim=True)
        ahead = c - s * aligned
        numerator = (ahead.square() - s.square() * (1.0 + aligned.square())) * x
        numerator = numerator + (1.0 + _square(x)) * c * s * u
        # A sum of squares, which is 0 only at the pole.
        left = ahead.square() + s.square() * _square(x - aligned * u)
        return self.radius * numerator / left


def great_circle(start: Tensor, end: Tensor, times: Tensor) -> Tensor:
    """Return the points of the shorter arc between unit vectors, ``(..., times, d)``, of norm 1.

    Args:
        start: ``(..., d)``.
        end: ``(..., d)``.
        times: ``(times,)`` in [0, 1]: 0 is the start and 1 the end.

    >>> east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    >>> great_circle(east, north, torch.tensor([0.5]))
    tensor([[0.7071, 0.7071]])
    """
    across = end - (end * start).sum(-1, keepdim=True) * start
    direction = across / across.norm(dim=-1, keepdim=True).clamp(min=1e-30)
    half = ((start - end).norm(dim=-1, keepdim=True) / 2.0).clamp(max=1.0)
    angles = (2.0 * half.asin() * times)[..., None]
    points = angles.cos() * start[..., None, :] + angles.sin() * direction[..., None, :]
    circle: Tensor = points / points.norm(dim=-1, keepdim=True)
    return circle


def _square(x: Tensor) -> Tensor:
    return x.square().sum(-1, keepdim=True)


def _first_axis(x: Tensor) -> Tensor:
    """Return the first unit vector, of the shape of x."""
    return torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)[0].expand_as(x)
