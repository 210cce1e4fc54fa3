"""Geodesics from a start point and velocity, and parallel transport along curves."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.func import jvp

from chartae.checks import check_finite, check_integer
from chartae.data.arrays import takes_arrays
from chartae.errors import DataError, DivergenceError
from chartae.geometry.metrics.base import Metric, check_points, check_vectors

__all__ = ["exponential_map", "exponential_path", "parallel_transport", "shoot"]


@takes_arrays("z", "v")
def exponential_map(metric: Metric, z: Tensor, v: Tensor, *, num_steps: int = 100) -> Tensor:
    r"""Return :math:`\mathrm{Exp}_z(v)`: the point at time 1 of the geodesic of velocity v at z.

    Hamilton's equations :math:`\dot z = G^{-1} q,\ \dot q = -\frac12 \nabla_z q^\top G^{-1} q` are
    integrated by the midpoint method, which is of second order (thesis Alg. 2). If the metric has
    its geodesics in closed form, the closed form is used instead.

    Args:
        metric: a metric.
        z: starting points, ``(..., d)``.
        v: velocities at z, ``(..., d)``; leading dimensions broadcast against those of z.
        num_steps: steps of the integrator, at least 1.

    Raises:
        DataError: for points or velocities of another shape or dtype than the metric's, outside
            its domain, or not finite.
        ConfigurationError: for a number of steps out of range.
        DivergenceError: if a geodesic reaches values that are not finite or leaves the metric's
            domain. The steps may be too long.

    >>> from chartae.geometry.metrics.conformal import PoincareMetric
    >>> z = exponential_map(PoincareMetric(2), torch.zeros(2), torch.tensor([0.5, 0.0]))
    >>> z  # tanh(0.5)
    tensor([0.4621, 0.0000])
    """
    return _checked_path(metric, z, v, num_steps)[-1]


@takes_arrays("z", "v")
def exponential_path(metric: Metric, z: Tensor, v: Tensor, *, num_steps: int = 100) -> Tensor:
    """Return the geodesic of velocity v at z, from time 0 to 1: ``(..., num_steps + 1, d)``.

    Arguments and errors are the same as in `exponential_map`.
    """
    return torch.stack(_checked_path(metric, z, v, num_steps), -2)


def shoot(
    metric: Metric, z: Tensor, momentum: Tensor, num_steps: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield points and momenta ``(..., d)`` of geodesics at times 0, 1/n ... 1, without checks."""
    step = 1.0 / num_steps
    yield z, momentum
    for _ in range(num_steps):
        slope, velocity = metric.hamiltonian_grad(z, momentum)
        middle = z + 0.5 * step * velocity, momentum - 0.5 * step * slope
        slope, velocity = metric.hamiltonian_grad(*middle)
        z, momentum = z + step * velocity, momentum - step * slope
        yield z, momentum


def _checked_path(metric: Metric, z: Tensor, v: Tensor, num_steps: int) -> list[Tensor]:
    """Return the points of a geodesic; differentiable in z and v if they require gradients."""
    check_integer("num_steps", num_steps, minimum=1)
    check_points(metric, z=z)
    check_vectors(metric, z, v=v)
    check_finite("v", v.detach())
    z, v = torch.broadcast_tensors(z, v)
    wanted = torch.is_grad_enabled() and (z.requires_grad or v.requires_grad)
    with torch.set_grad_enabled(wanted):
        if (formulas := metric.closed_form) is not None:
            times = torch.linspace(0.0, 1.0, num_steps + 1, dtype=z.dtype, device=z.device)
            points = list(formulas.exponential(z, v, times).unbind(-2))
            return _inside(metric, points)
        momentum = metric.at(z).momentum(v)
        points = [point for point, _ in shoot(metric, z, momentum, num_steps)]
    return _inside(metric, points)


def _inside(metric: Metric, points: list[Tensor]) -> list[Tensor]:
    """Return the points of geodesics; raise `DivergenceError` if any geodesic diverged."""
    last = points[-1].detach()
    lost = int((~(torch.isfinite(last).all(-1) & metric.contains(last))).sum())
    if lost:
        raise DivergenceError(
            f"{lost} of {last[..., 0].numel()} geodesics diverged or left the metric's domain: "
            "expected finite points inside the domain; raise num_steps or shorten v"
        )
    return points


@takes_arrays("curve", "v")
@torch.no_grad()
def parallel_transport(metric: Metric, curve: Tensor, v: Tensor) -> Tensor:
    r"""Transport v in parallel along a curve; return its value at each point, ``(..., T, d)``.

    The equation of parallel transport, for the momentum :math:`\alpha = G v` at velocity u,

    .. math::
        \dot\alpha = \tfrac12 [(D_u G) v - (D_v G) u + \nabla_z (u^\top G v)],

    is integrated by the implicit midpoint method on each segment. The method is of second order in
    the distance between points, and preserves inner products of transported vectors to that order.

    Args:
        metric: a metric, differentiable by autograd.
        curve: points of the curve, ``(..., T, d)``, T at least 2.
        v: vectors at its first point, ``(..., d)``; leading dimensions broadcast.

    Raises:
        DataError: for shapes or dtypes that do not match, values that are not finite, or points
            outside the metric's domain.

    >>> from chartae.geometry.metrics.constant import EuclideanMetric
    >>> line = torch.linspace(0, 1, 5)[:, None] * torch.ones(2)
    >>> parallel_transport(EuclideanMetric(2), line, torch.tensor([1.0, 2.0]))[-1]
    tensor([1., 2.])
    """
    check_curve(metric, curve)
    check_vectors(metric, curve[..., 0, :], v=v)
    check_finite("v", v.detach())
    start, v = torch.broadcast_tensors(curve[..., 0, :], v)
    momentum = metric.at(start).momentum(v)
    momenta = [momentum]
    for turn in _turns(metric, curve).unbind(-3):
        momentum = (turn @ momentum[..., None])[..., 0]
        momenta.append(momentum)
    moved = torch.stack(momenta, -2)
    return metric.at(curve.expand_as(moved)).velocity(moved)


def _turns(metric: Metric, curve: Tensor) -> Tensor:
    """Return the matrices that transport momenta over each segment, ``(..., T - 1, d, d)``."""
    step, middle = curve.diff(dim=-2), 0.5 * (curve[..., 1:, :] + curve[..., :-1, :])
    identity = torch.eye(metric.dim, dtype=curve.dtype, device=curve.device)
    basis = identity.reshape(-1, *[1] * (curve.dim() - 1), metric.dim)
    change = _change(metric, middle, step, basis).movedim(0, -1) @ metric.at(middle).inverse
    turns: Tensor = torch.linalg.solve(identity - 0.5 * change, identity + 0.5 * change)
    return turns


def _change(metric: Metric, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Return the change of the momentum of v over a small displacement u, ``(..., d)``."""
    z, u, v = (tensor.contiguous() for tensor in torch.broadcast_tensors(z, u, v))
    both, vectors = torch.stack([z, z]), torch.stack([v, u])
    directions = torch.stack([u, v])
    along: Tensor = jvp(lambda x: metric.at(x).momentum(vectors), (both,), (directions,))[1]
    local = metric.at(z)
    # The gradient of a bilinear form, from the gradients of its quadratic form.
    slope = 0.5 * (local.energy_grad(u + v) - local.energy_grad(u - v))
    change: Tensor = 0.5 * (along[0] - along[1] + slope)
    return change


def check_curve(metric: Metric, curve: Tensor) -> None:
    """Raise `DataError` unless ``curve`` is ``(..., T, d)``, T at least 2, of valid points."""
    check_points(metric, curve=curve)
    if curve.dim() < 2 or curve.shape[-2] < 2:
        raise DataError(
            f"curve has shape {tuple(curve.shape)}: expected (..., T, {metric.dim}), T at least 2"
        )
