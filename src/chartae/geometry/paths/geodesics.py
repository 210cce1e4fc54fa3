"""Shortest paths between points: geodesics, distances, logarithms."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from chartae.checks import check_integer, check_number
from chartae.data.arrays import takes_arrays
from chartae.errors import DataError
from chartae.geometry.metrics.base import Metric, check_points
from chartae.geometry.paths.curves import at_constant_speed, refined, smooth_length
from chartae.geometry.paths.energy_descent import EnergyDescent
from chartae.geometry.paths.exponential import check_curve, shoot
from chartae.geometry.paths.graph import graph_paths

__all__ = [
    "Paths",
    "departure",
    "distance",
    "geodesic",
    "initial_velocity",
    "logarithmic_map",
    "shortest_paths",
]

logger = logging.getLogger(__name__)

BLOCK = 2**12
"""Maximum number of path points that are optimised at once."""
MOST_POINTS = 512
"""Maximum number of points of a path. A path that needs more is reported as not found."""
UNMEASURED = 0.5
"""Relative error of a length above which the length is rejected."""


@dataclass(frozen=True)
class Paths:
    """Shortest paths between pairs of points, and how well they were found.

    Attributes:
        points: at equal times, both ends included, ``(..., num_points, d)``.
        lengths: ``(...)``.
        converged: whether residual and error are both within the requested bounds, ``(...)`` bool.
        residual: estimated distance to the minimum, in the norm of the energy and relative to the
            norm of the path, ``(...)``. The relative excess of the length is about its square.
        error: relative change of the length when the number of points is doubled, ``(...)``.
    """

    points: Tensor
    lengths: Tensor
    converged: Tensor
    residual: Tensor
    error: Tensor


@takes_arrays("start", "end", "nodes")
@torch.no_grad()
def shortest_paths(
    metric: Metric,
    start: Tensor,
    end: Tensor,
    *,
    num_points: int = 64,
    tolerance: float | None = None,
    resolution: float = 1e-2,
    max_iterations: int = 300,
    nodes: Tensor | None = None,
) -> Paths:
    r"""Find the curves of least energy :math:`\frac12\int\|\dot\gamma\|_G^2\,dt` between points.

    The initial path of each pair is the straight line or the shortest path in a
    k-nearest-neighbour graph, whichever is shorter. L-BFGS then minimises the energy over the
    inner points, for all pairs at once. Its preconditioner is the Hessian of the energy for a
    metric that is held constant at the current path. Its inverse takes two cumulative sums.

    If the length of a path changes when its points are doubled, the metric varies on a scale
    below the segments. The path is then optimised again with twice as many points. A minimum of
    the energy has constant speed. It is a local minimum: the method cannot prove that the path is
    the shortest of all. If the descent finds no descent direction, or ends with a longer path than
    the initial one, the initial path is returned with an infinite residual. If the metric has its
    geodesics in closed form, the closed form is used.

    Args:
        metric: a metric.
        start: ``(..., d)``.
        end: ``(..., d)``; leading dimensions broadcast against those of ``start``.
        num_points: points of each path, at least 3.
        tolerance: the largest residual at which a path counts as found, positive; None takes 1e-4
            in float64. In float32 it takes 3e-3, because rounding limits the residual on a steep
            metric.
        resolution: the largest error at which the number of points is enough, positive.
        max_iterations: maximum number of descent steps, for each number of points.
        nodes: nodes of the graph, ``(n, d)``; None takes the metric's `landmarks`. Without nodes,
            the initial paths are straight lines.

    Raises:
        DataError: for points of another shape or dtype than the metric's, outside its domain, or
            not finite.
        ConfigurationError: for a number out of range.

    >>> from chartae.geometry.metrics.conformal import PoincareMetric
    >>> paths = shortest_paths(
    ...     PoincareMetric(2), torch.tensor([0.0, 0.5]), torch.tensor([[0.5, 0.0], [0.0, -0.5]])
    ... )
    >>> paths.lengths, paths.converged
    (tensor([1.6807, 2.1972]), tensor([True, True]))
    """
    check_integer("num_points", num_points, minimum=3)
    check_integer("max_iterations", max_iterations, minimum=1)
    start, end = _pairs(metric, start, end)
    tolerance = _default(tolerance, start.dtype, 3e-3, 1e-4)
    check_number("resolution", resolution, above=0.0)
    landmarks = metric.landmarks if nodes is None else nodes
    if len(landmarks):
        check_points(metric, nodes=landmarks)
    if (formulas := metric.closed_form) is not None:
        points, lengths = formulas.paths(start, end, num_points)
        exact = torch.zeros_like(lengths)
        return Paths(points, lengths, exact == 0, exact, exact)
    shape = start.shape[:-1]
    start, end = start.reshape(-1, metric.dim), end.reshape(-1, metric.dim)
    first = _first_paths(metric, start, end, num_points, landmarks)
    pieces = [
        resolve(metric, piece, tolerance, resolution, max_iterations)
        for piece in first.split(max(1, BLOCK // num_points))
    ]
    points, lengths, residual, error = (torch.cat(column) for column in zip(*pieces, strict=True))
    return Paths(
        points.reshape(*shape, num_points, metric.dim),
        lengths.reshape(shape),
        ((residual <= tolerance) & (error <= resolution)).reshape(shape),
        residual.reshape(shape),
        error.reshape(shape),
    )


@takes_arrays("start", "end")
def geodesic(
    metric: Metric, start: Tensor, end: Tensor, *, num_points: int = 64, **options: Any
) -> Tensor:
    """Return shortest paths at equal times, ``(..., num_points, d)``.

    A warning gives the number of paths that were not found to the tolerance. `shortest_paths`
    returns the residuals and errors. Arguments and errors are the same as in `shortest_paths`.

    >>> from chartae.geometry.metrics.constant import EuclideanMetric
    >>> geodesic(EuclideanMetric(1), torch.zeros(1), torch.ones(1), num_points=3)[:, 0]
    tensor([0.0000, 0.5000, 1.0000])
    """
    return _warned(shortest_paths(metric, start, end, num_points=num_points, **options)).points


@takes_arrays("start", "end")
def distance(
    metric: Metric, start: Tensor, end: Tensor, *, num_points: int = 21, **options: Any
) -> Tensor:
    r"""Return Riemannian distances, the lengths of shortest paths: ``(...)``.

    A warning gives the number of paths that were not found to the tolerance. `shortest_paths`
    returns the residuals and errors. Arguments and errors are the same as in `shortest_paths`.

    Points that require a gradient get the gradient of the first variation formula:
    :math:`G \dot\gamma / \|\dot\gamma\|` at the end, and minus this quantity at the start. It is as
    accurate as the path, to second order in its segments. If the two points coincide it is 0, the
    subgradient of least norm. The metric is held fixed. Second derivatives are not available.

    >>> from chartae.geometry.metrics.conformal import PoincareMetric
    >>> distance(PoincareMetric(1), torch.zeros(1), torch.tensor([[0.5], [-0.5]]))
    tensor([1.0986, 1.0986])
    >>> z = torch.zeros(1, requires_grad=True)
    >>> distance(PoincareMetric(1), z, torch.tensor([0.5])).backward()
    >>> z.grad
    tensor([-2.])
    """
    paths = _warned(shortest_paths(metric, start, end, num_points=num_points, **options))
    if not (torch.is_grad_enabled() and (start.requires_grad or end.requires_grad)):
        return paths.lengths
    # These terms have the value 0 and the right gradients.
    curves = paths.points
    at_start = (departure(metric, curves) * (start.detach() - start)).sum(-1)
    at_end = (departure(metric, curves.flip(-2)) * (end.detach() - end)).sum(-1)
    return paths.lengths + at_start + at_end


@torch.no_grad()
def departure(metric: Metric, curve: Tensor) -> Tensor:
    """Return the momentum G v of the unit velocity v at the first point of a geodesic."""
    first, last = curve[..., 0, :], curve[..., -1, :]
    formulas = metric.closed_form
    if formulas is None:
        velocity = initial_velocity(metric, curve)
    else:
        velocity = formulas.logarithm(first, last)
    momentum = metric.at(first).momentum(velocity)
    speed = (momentum * velocity).sum(-1, keepdim=True).clamp_min(0.0).sqrt()
    return torch.where(speed > 0.0, momentum / speed, 0.0)


@takes_arrays("curve")
@torch.no_grad()
def initial_velocity(metric: Metric, curve: Tensor) -> Tensor:
    """Return the velocity at the first point of a geodesic, to second order: ``(..., d)``.

    Args:
        metric: a metric.
        curve: points at equal times, ``(..., T, d)``, T at least 2, as `geodesic` returns them.

    Raises:
        DataError: for a wrong shape or dtype, or points that are not valid for the metric.
    """
    check_curve(metric, curve)
    first, second = curve[..., 0, :], curve[..., 1, :]
    step = 1.0 / (curve.shape[-2] - 1)
    local = metric.at(0.5 * (first + second))
    momentum = local.momentum((second - first) / step)
    # Half a step back in time, by Hamilton's equation for the momentum.
    return metric.at(first).velocity(momentum + 0.5 * step * local.kinetic_grad(momentum))


@takes_arrays("z", "target")
@torch.no_grad()
def logarithmic_map(
    metric: Metric,
    z: Tensor,
    target: Tensor,
    *,
    num_points: int = 64,
    num_steps: int = 100,
    tolerance: float | None = None,
    max_iterations: int = 20,
    **options: Any,
) -> Tensor:
    r"""Return :math:`\mathrm{Log}_z(y)`, the velocity at z of the geodesic to y: ``(..., d)``.

    The shortest path gives the velocity to second order. Broyden's method, started from a
    finite-difference Jacobian, then corrects it until `exponential_map` reaches y. This shooting
    fails where geodesics from z diverge from each other too fast. The velocity of the shortest
    path is then returned, and a warning gives the number of such points.

    Args:
        metric: a metric.
        z: base points, ``(..., d)``.
        target: the points y, ``(..., d)``; leading dimensions broadcast.
        num_points: points of the paths.
        num_steps: steps of the exponential map.
        tolerance: distance from Exp_z(Log_z(y)) to y, relative to the distance from z to y; None
            takes 1e-4 in float32 and 1e-8 in float64.
        max_iterations: maximum number of corrections.
        options: further arguments of `shortest_paths`.

    Raises:
        DataError, ConfigurationError: as in `shortest_paths`.

    >>> from chartae.geometry.metrics.conformal import PoincareMetric
    >>> logarithmic_map(PoincareMetric(2), torch.zeros(2), torch.tensor([0.4621, 0.0]))
    tensor([0.5000, 0.0000])
    """
    if (formulas := metric.closed_form) is not None:
        z, target = _pairs(metric, z, target, names=("z", "target"))
        return formulas.logarithm(z, target)
    paths = _warned(shortest_paths(metric, z, target, num_points=num_points, **options))
    z, target = paths.points[..., 0, :], paths.points[..., -1, :]
    first = initial_velocity(metric, paths.points)
    tolerance = _default(tolerance, z.dtype, 1e-4, 1e-8)
    shape = z.shape
    z, target, first = (tensor.reshape(-1, metric.dim) for tensor in (z, target, first))
    velocity, found = _corrected(metric, z, target, first, num_steps, tolerance, max_iterations)
    lost = int((~found).sum())
    if lost:
        logger.warning(
            "shooting did not converge for %d of %d logarithms: these have the accuracy of the "
            "shortest paths",
            lost,
            len(found),
        )
    return torch.where(found[:, None], velocity, first).reshape(shape)


def _corrected(
    metric: Metric,
    z: Tensor,
    target: Tensor,
    velocity: Tensor,
    num_steps: int,
    tolerance: float,
    max_iterations: int,
) -> tuple[Tensor, Tensor]:
    """Return corrected velocities, ``(n, d)``, and whether their geodesics reach the targets."""

    def miss(v: Tensor) -> Tensor:
        start = z.expand_as(v)
        *_, (end, _) = shoot(metric, start, metric.at(start).momentum(v), num_steps)
        return end - target

    within = tolerance * (target - z).norm(dim=-1)
    residual = miss(velocity)
    inverse = _inverse_jacobian(miss, velocity, residual)
    damping = torch.ones_like(within)[:, None]
    for _ in range(max_iterations):
        active = residual.norm(dim=-1, keepdim=True) > within[:, None]
        if not bool(active.any()):
            break
        step = -damping * (inverse @ residual[..., None])[..., 0]
        step = torch.where(active & torch.isfinite(step), step, 0.0)
        after = miss(velocity + step)
        change = (after - residual)[..., None]
        left = step[:, None, :] @ inverse
        update = (step[..., None] - inverse @ change) @ left / (left @ change)
        inverse = torch.where(torch.isfinite(update), inverse + update, inverse)
        closer = after.norm(dim=-1, keepdim=True) < residual.norm(dim=-1, keepdim=True)
        velocity = torch.where(closer, velocity + step, velocity)
        residual = torch.where(closer, after, residual)
        damping = torch.where(closer, (2.0 * damping).clamp_max(1.0), 0.5 * damping)
    return velocity, residual.norm(dim=-1) <= within


def _inverse_jacobian(function: Callable[[Tensor], Tensor], v: Tensor, value: Tensor) -> Tensor:
    """Return the inverse of a function's Jacobian at each v ``(n, d)``, by finite differences."""
    d = v.shape[-1]
    step = torch.finfo(v.dtype).eps ** 0.5 * v.norm(dim=-1, keepdim=True)
    shifts = step * torch.eye(d, dtype=v.dtype, device=v.device)[:, None]
    columns = (function(v + shifts) - value) / step
    inverse: Tensor = torch.linalg.inv_ex(columns.movedim(0, -1))[0]
    return inverse


def _warned(paths: Paths) -> Paths:
    lost = int((~paths.converged).sum())
    if lost:
        logger.warning(
            "%d of %d shortest paths were not found to the tolerance (largest residual %.1e, "
            "largest relative error of a length %.1e): raise max_iterations or num_points; "
            "shortest_paths returns which ones",
            lost,
            paths.converged.numel(),
            float(paths.residual.max()),
            float(paths.error.max()),
        )
    return paths


def _default(tolerance: float | None, dtype: torch.dtype, single: float, double: float) -> float:
    """Return a checked tolerance, or the default for the dtype."""
    if tolerance is None:
        return single if dtype == torch.float32 else double
    check_number("tolerance", tolerance, above=0.0)
    return tolerance


def _pairs(
    metric: Metric, start: Tensor, end: Tensor, names: tuple[str, str] = ("start", "end")
) -> tuple[Tensor, Tensor]:
    """Return checked points, broadcast against each other."""
    check_points(metric, **dict(zip(names, (start, end), strict=True)))
    try:
        start, end = torch.broadcast_tensors(start, end)
    except RuntimeError as error:
        raise DataError(
            f"{names[0]} has shape {tuple(start.shape)} and {names[1]} {tuple(end.shape)}: "
            "expected shapes that broadcast"
        ) from error
    return start, end


def _first_paths(
    metric: Metric, start: Tensor, end: Tensor, num_points: int, nodes: Tensor
) -> Tensor:
    """Return the initial paths of the descent, ``(pairs, num_points, d)``."""
    times = torch.linspace(0.0, 1.0, num_points, dtype=start.dtype, device=start.device)[:, None]
    lines = torch.lerp(start[:, None], end[:, None], times)
    if not len(nodes):
        return lines
    paths = graph_paths(metric, start, end, num_points, nodes)
    shorter = smooth_length(metric, paths) < smooth_length(metric, lines)
    return torch.where(shorter[:, None, None], paths, lines)


def resolve(
    metric: Metric, first: Tensor, tolerance: float, resolution: float, max_iterations: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return points, lengths, residuals and errors of paths, ``(n, ...)`` each, without checks.

    Where the descent fails, the first path is returned, with an infinite residual. No returned
    length is greater than the length of the first path.

    Args:
        metric: a metric.
        first: initial paths, ``(n, T, d)``; T - 1 is doubled where more points are needed.
        tolerance: as in `shortest_paths`.
        resolution: as in `shortest_paths`.
        max_iterations: as in `shortest_paths`.
    """
    at_first = smooth_length(metric, refined(first))
    points, lengths, residual, error = _descended(
        metric, first, tolerance, resolution, max_iterations
    )
    lost = (residual > 1.0) | (error > UNMEASURED) | (lengths > (1.0 + resolution) * at_first)
    if bool(lost.any()):
        points[lost] = at_constant_speed(metric, first[lost], first.shape[1])
        lengths, residual = lengths.where(~lost, at_first), residual.masked_fill(lost, math.inf)
    # If the first path is already a geodesic, rounding of its points may make the result longer.
    return points, lengths.fmin(at_first), residual, error


def _descended(
    metric: Metric, first: Tensor, tolerance: float, resolution: float, max_iterations: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the results of the descent, with as many points as each path needs."""
    points, residual = EnergyDescent(metric, first, tolerance).run(max_iterations)
    fine = refined(points)
    lengths = smooth_length(metric, fine)
    change = (lengths - smooth_length(metric, points)).abs()
    still = (points == points[:, :1]).all(-1).all(-1)  # start and end coincide
    lengths = torch.where(still, 0.0, lengths)
    error = torch.where(still, 0.0, change / lengths)
    coarse = (error > resolution) & residual.isfinite()
    if bool(coarse.any()) and fine.shape[1] <= MOST_POINTS:
        # The speed is not constant, because the metric varies between the points.
        even = at_constant_speed(metric, fine[coarse], fine.shape[1])
        better = _descended(metric, even, tolerance, resolution, max_iterations)
        points[coarse] = better[0][:, ::2]
        lengths[coarse], residual[coarse], error[coarse] = better[1:]
    return points, lengths, residual, error
