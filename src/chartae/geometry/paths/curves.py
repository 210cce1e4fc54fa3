"""Length and energy of curves that are given by points."""

import torch
from torch import Tensor

from chartae.data.arrays import takes_arrays
from chartae.geometry.metrics.base import Metric
from chartae.geometry.paths.exponential import check_curve

__all__ = ["at_constant_speed", "energy", "length", "refined", "segment_lengths", "smooth_length"]

QUADRATURE = 4
"""Number of points at which the metric is evaluated on a straight segment."""


@takes_arrays("curve")
def length(metric: Metric, curve: Tensor) -> Tensor:
    r"""Return :math:`\int_0^1 \|\dot\gamma\|_G\, dt` of a smooth curve through points: ``(...)``.

    Velocities at the midpoints of the segments are computed from the four surrounding points, to
    fourth order. The midpoint rule sums them. It is exact for a constant speed, and otherwise of
    second order in the distance between points.

    Args:
        metric: a metric.
        curve: points at equal times, ``(..., T, d)``, T at least 2.

    Raises:
        DataError: for a wrong shape or dtype, or points that are not valid for the metric.

    >>> from chartae.geometry.metrics.conformal import PoincareMetric
    >>> line = torch.linspace(0, 0.5, 64)[:, None] * torch.tensor([1.0, 0.0])
    >>> length(PoincareMetric(2), line)  # 2 artanh(0.5)
    tensor(1.0986)
    """
    check_curve(metric, curve)
    return smooth_length(metric, curve)


@takes_arrays("curve")
def energy(metric: Metric, curve: Tensor) -> Tensor:
    r"""Return :math:`\frac12 \int_0^1 \|\dot\gamma\|_G^2\, dt` of a curve, ``(...)``.

    It is at least half the squared length, with equality for a constant speed. Arguments and
    errors are the same as in `length`.
    """
    check_curve(metric, curve)
    middle, velocity = middles(curve)
    return 0.5 * metric.inner(middle, velocity, velocity).mean(-1)


def smooth_length(metric: Metric, curve: Tensor) -> Tensor:
    """Return the same as `length`, without checks."""
    middle, velocity = middles(curve)
    return metric.norm(middle, velocity).mean(-1)


def segment_lengths(metric: Metric, start: Tensor, end: Tensor) -> Tensor:
    """Return the Riemannian lengths of straight segments, ``(...)``."""
    times = (torch.arange(QUADRATURE, dtype=start.dtype, device=start.device) + 0.5) / QUADRATURE
    step = (end - start)[..., None, :]
    points = start[..., None, :] + times[:, None] * step
    return metric.norm(points, step.expand_as(points)).mean(-1)


def at_constant_speed(
    metric: Metric, corners: Tensor, num_points: int, lengths: Tensor | None = None
) -> Tensor:
    """Return points at equal Riemannian distances on polygons ``(pairs, m, d)``.

    ``lengths`` are those of the segments, ``(pairs, m - 1)``, where they are known.
    """
    if lengths is None:
        lengths = segment_lengths(metric, corners[:, :-1], corners[:, 1:])
    reached = torch.cat([torch.zeros_like(lengths[:, :1]), lengths.cumsum(1)], 1)
    wanted = reached[:, -1:] * torch.linspace(0, 1, num_points).to(reached)
    after = torch.searchsorted(reached, wanted).clamp(1, corners.shape[1] - 1)
    low, high = reached.gather(1, after - 1), reached.gather(1, after)
    share = ((wanted - low) / (high - low).clamp_min(torch.finfo(low.dtype).tiny))[..., None]
    wide = after[..., None].expand(-1, -1, corners.shape[-1])
    points = torch.lerp(corners.gather(1, wide - 1), corners.gather(1, wide), share.clamp(0, 1))
    points[:, 0], points[:, -1] = corners[:, 0], corners[:, -1]
    return points


def refined(curve: Tensor) -> Tensor:
    """Return the curve with one more point in the middle of each segment, ``(..., 2T - 1, d)``."""
    middle, _ = middles(curve)
    pairs = torch.stack([curve[..., :-1, :], middle], -2).flatten(-3, -2)
    return torch.cat([pairs, curve[..., -1:, :]], -2)


def middles(curve: Tensor) -> tuple[Tensor, Tensor]:
    """Return points and velocities at the middle of each segment, ``(..., T - 1, d)``."""
    padded = torch.cat([_before(curve), curve, _before(curve.flip(-2))], -2)
    count = curve.shape[-2] - 1
    a, b, c, d = (padded.narrow(-2, k, count) for k in range(4))
    middle = (9.0 * (b + c) - (a + d)) / 16.0
    velocity = (27.0 * (c - b) - (d - a)) * (count / 24.0)
    return middle, velocity


def _before(curve: Tensor) -> Tensor:
    """Extrapolate one point before the first, by the polynomial through the first points."""
    binomials = {2: (2.0, -1.0), 3: (3.0, -3.0, 1.0)}.get(curve.shape[-2], (4.0, -6.0, 4.0, -1.0))
    weights = torch.tensor(binomials, dtype=curve.dtype, device=curve.device)
    return (weights[:, None] * curve[..., : len(weights), :]).sum(-2, keepdim=True)
