"""Matrices of Riemannian distances."""

import torch
from torch import Tensor

from chartae.checks import check_shape
from chartae.data.arrays import takes_arrays
from chartae.geometry.metrics.base import Metric, check_points
from chartae.geometry.statistics.solver import Solver

__all__ = ["check_set", "pairwise_distances"]


@takes_arrays("a", "b")
@torch.no_grad()
def pairwise_distances(
    metric: Metric,
    a: Tensor,
    b: Tensor | None = None,
    *,
    num_points: int = 64,
    tolerance: float = 1e-4,
    max_iterations: int = 300,
) -> Tensor:
    """Return the Riemannian distances between all points of two sets: ``(N, M)``.

    They are computed in blocks of pairs. Within one set, each unordered pair is computed once. A
    warning gives the number of shortest paths that were not found to the tolerance.

    Args:
        metric: a metric.
        a: ``(N, d)``.
        b: ``(M, d)``; None takes ``a``.
        num_points: points of each path, as in `shortest_paths`.
        tolerance: as in `shortest_paths`.
        max_iterations: as in `shortest_paths`.

    Raises:
        DataError: for points of another shape or dtype than the metric's, outside its domain, or
            not finite.
        ConfigurationError: for a number out of range.

    >>> from chartae.geometry.metrics.constant import EuclideanMetric
    >>> pairwise_distances(EuclideanMetric(1), torch.tensor([[0.0], [1.0], [3.0]]))
    tensor([[0., 1., 3.],
            [1., 0., 2.],
            [3., 2., 0.]])
    """
    check_set(metric, "a", a)
    solver = Solver(metric, num_points, tolerance, max_iterations)
    if b is None:
        rows, columns = torch.triu_indices(len(a), len(a), 1, device=a.device)
        distances = a.new_zeros(len(a), len(a))
        distances[rows, columns] = solver.distances(a, rows, a, columns)
        distances = distances + distances.mT
    else:
        check_set(metric, "b", b)
        distances = solver.table(a, b)
    solver.warn()
    return distances


def check_set(metric: Metric, name: str, points: Tensor) -> None:
    """Raise `DataError` unless ``points`` are ``(N, d)`` and valid for the metric."""
    check_points(metric, **{name: points})
    check_shape(name, points, ("N", metric.dim))
