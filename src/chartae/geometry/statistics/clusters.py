"""Riemannian k-means: clusters around Fréchet means."""

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from chartae.checks import check_integer, check_number
from chartae.data.arrays import takes_arrays
from chartae.errors import DataError
from chartae.geometry.metrics.base import Metric
from chartae.geometry.statistics.distances import check_set, pairwise_distances
from chartae.geometry.statistics.means import Descent
from chartae.geometry.statistics.solver import Solver, indices
from chartae.randomness import make_generator

__all__ = ["KMeans", "kmeans"]

logger = logging.getLogger(__name__)

MEAN_STEPS = 3
"""Number of steps towards the means of clusters between two assignments."""


@dataclass(frozen=True)
class KMeans:
    """Clusters around Fréchet means.

    Attributes:
        centers: ``(k, d)``.
        labels: the cluster of each point, ``(N,)``.
        inertia: sum of squared distances from points to their centres.
        converged: whether labels and centres stopped changing.
        iterations: number of assignments made.
    """

    centers: Tensor
    labels: Tensor
    inertia: float
    converged: bool
    iterations: int

    @takes_arrays("points", owner="metric")
    def predict(self, metric: Metric, points: Tensor) -> Tensor:
        """Return the index of the nearest centre of new points ``(M, d)``: ``(M,)``.

        Pass the metric that was used for clustering.
        """
        return pairwise_distances(metric, points, self.centers).argmin(1)


@takes_arrays("points", "weights")
@torch.no_grad()
def kmeans(
    metric: Metric,
    points: Tensor,
    k: int,
    *,
    num_restarts: int = 1,
    max_iterations: int = 100,
    tolerance: float = 1e-3,
    num_points: int = 32,
    seed: int = 0,
) -> KMeans:
    """Cluster points around k Fréchet means (Riemannian k-means).

    Lloyd's algorithm with Riemannian distances, initialised by k-means++ (Arthur and Vassilvitskii,
    2007). If a centre moves, its distances change by at most the length of the move. Only the
    distances that can then change an assignment are computed again (Elkan, 2003).

    Args:
        metric: a metric.
        points: ``(N, d)``, at least k of them different.
        k: number of clusters.
        num_restarts: number of initialisations; the result with the lowest inertia is returned.
        max_iterations: maximum number of assignments in one restart. A warning is logged if the
            returned result did not converge.
        tolerance: of the centres, as in `frechet_mean`.
        num_points: points of the paths, as in `shortest_paths`.
        seed: the same seed gives the same clusters.

    Raises:
        DataError: for points of another shape or dtype than the metric's, outside its domain or
            not finite, or fewer different points than clusters.
        ConfigurationError: for a number out of range.

    >>> from chartae.geometry.metrics.constant import EuclideanMetric
    >>> points = torch.tensor([[0.0], [1.0], [10.0], [12.0]])
    >>> found = kmeans(EuclideanMetric(1), points, 2)
    >>> found.centers.sort(0).values
    tensor([[ 0.5000],
            [11.0000]])
    """
    for name, value in (
        ("k", k),
        ("num_restarts", num_restarts),
        ("max_iterations", max_iterations),
    ):
        check_integer(name, value, minimum=1)
    check_number("tolerance", tolerance, above=0.0)
    check_integer("seed", seed, minimum=0)
    check_set(metric, "points", points)
    distinct = len(points.unique(dim=0))
    if distinct < k:
        raise DataError(
            f"points has {distinct} different point(s): {k} clusters need at least as many"
        )
    solver = Solver(metric, num_points, 0.1 * tolerance)
    found = [
        _lloyd(solver, points, k, max_iterations, tolerance, make_generator(seed, "kmeans", r))
        for r in range(num_restarts)
    ]
    best = min(found, key=lambda result: result.inertia)
    if not best.converged:
        logger.warning(
            "k-means did not converge in %d iterations: raise max_iterations", best.iterations
        )
    solver.warn()
    return best


def _lloyd(
    solver: Solver,
    points: Tensor,
    k: int,
    max_iterations: int,
    tolerance: float,
    generator: torch.Generator,
) -> KMeans:
    bounds, centers = _plus_plus(solver, points, k, generator)
    everyone, clusters = indices(points), indices(centers)
    labels = bounds.argmin(1)
    descent = Descent(solver, points, labels, _shares(labels, k, points), centers, tolerance)
    iterations, rested = 1, False
    while not rested and iterations < max_iterations:
        iterations += 1
        descent.run(MEAN_STEPS)
        # Lower bounds of the distances to the new centres; exact for the point's own centre.
        bounds -= solver.distances(centers, clusters, descent.means, clusters)
        own = descent.paths.lengths
        bounds[everyone, labels] = own
        rows, columns = (bounds < own[:, None]).nonzero(as_tuple=True)
        bounds[rows, columns] = solver.distances(points, rows, descent.means, columns)
        previous, labels = labels, bounds.argmin(1)
        _fill_empty(points, labels, descent.means, bounds)
        centers = descent.means.clone()
        rested = bool((labels == previous).all()) and not bool(descent.moving.any())
        descent.assign(labels, _shares(labels, k, points))
    inertia = float(descent.paths.lengths.square().sum())
    converged = rested and bool((descent.residuals <= tolerance).all())
    return KMeans(descent.means, labels, inertia, converged, iterations)


def _shares(labels: Tensor, k: int, points: Tensor) -> Tensor:
    """Return weights that sum to 1 over each cluster, ``(N,)``."""
    return labels.bincount(minlength=k).to(points).reciprocal()[labels]


def _plus_plus(
    solver: Solver, points: Tensor, k: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Choose k points by k-means++; return the distances to them ``(N, k)``, and the points."""
    everyone = indices(points)
    odds, columns, chosen = torch.ones(len(points)), [], []
    for _ in range(k):
        index = int(torch.multinomial(odds, 1, generator=generator))
        column = solver.distances(points, everyone, points, torch.full_like(everyone, index))
        column[index] = 0.0
        chosen.append(index)
        columns.append(column)
        odds = torch.stack(columns).amin(0).square().cpu()
    return torch.stack(columns, 1), points[chosen]


def _fill_empty(points: Tensor, labels: Tensor, centers: Tensor, bounds: Tensor) -> None:
    """Give each empty cluster the point that is farthest from its centre, in place."""
    counts = labels.bincount(minlength=len(centers))
    distances = bounds.amin(1)
    for empty in (counts == 0).nonzero().flatten().tolist():
        far = distances.where(counts[labels] > 1, -1.0).argmax()
        counts[labels[far]] -= 1
        counts[empty] = 1
        labels[far], centers[empty] = empty, points[far]
        bounds[:, empty] = 0.0  # no bound is known for the new centre
