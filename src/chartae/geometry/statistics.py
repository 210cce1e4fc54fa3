"""Statistics with Riemannian distances: their matrices, means, and clusters around means."""

import logging
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from chartae.checks import check_finite, check_floating, check_integer, check_number, check_shape
from chartae.data.arrays import takes_arrays
from chartae.errors import DataError
from chartae.geometry.exponential import shoot
from chartae.geometry.geodesics import initial_velocity, resolve, shortest_paths
from chartae.geometry.metric import Metric, check_points
from chartae.geometry.selection import select_centroids
from chartae.randomness import make_generator

__all__ = ["KMeans", "frechet_mean", "kmeans", "pairwise_distances"]

logger = logging.getLogger(__name__)

BLOCK = 2**12
"""Most distances computed at once."""
RESOLUTION = 1e-2
"""Relative error of lengths above which a path takes more points, as in `shortest_paths`."""
CANDIDATES = 8
"""Points from which a mean may start, beside the Euclidean one."""
COARSE = 16
"""Points of the paths by which these are compared."""
STEPS = 10
"""Integration steps of the exponential map in a step of the descent, which corrects itself."""
MEAN_STEPS = 3
"""Steps towards the means of clusters between two assignments."""
SHORTEST = 1e-2
"""Share of a full step below which none is tried: the paths are not exact enough for it."""
NOISE = 1e-6
"""Relative error of a mean of squared distances, below which the gradient is the judge."""


# --- distances ----------------------------------------------------------------------------------


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

    They are computed in blocks of pairs; those of one set with itself once for each pair. Shortest
    paths that were not found to the tolerance are counted in a warning.

    Args:
        metric: a metric.
        a: ``(N, d)``.
        b: ``(M, d)``; None takes those of ``a``.
        num_points: points of each path, as in `shortest_paths`.
        tolerance: likewise.
        max_iterations: likewise.

    Raises:
        DataError: for points of another shape or dtype than the metric's, outside its domain, or
            not finite.
        ConfigurationError: for a number out of range.

    >>> from chartae.geometry.constant import EuclideanMetric
    >>> pairwise_distances(EuclideanMetric(1), torch.tensor([[0.0], [1.0], [3.0]]))
    tensor([[0., 1., 3.],
            [1., 0., 2.],
            [3., 2., 0.]])
    """
    check_set(metric, "a", a)
    solver = _Solver(metric, num_points, tolerance, max_iterations)
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


class _Solver:
    """Shortest paths with one set of options, that counts those it did not find."""

    def __init__(
        self,
        metric: Metric,
        num_points: int,
        tolerance: float,
        max_iterations: int = 300,
        resolution: float = RESOLUTION,
    ) -> None:
        self.metric, self.num_points = metric, num_points
        self.tolerance, self.max_iterations = tolerance, max_iterations
        self.resolution = resolution
        self.lost, self.total = 0, 0

    def distances(self, a: Tensor, rows: Tensor, b: Tensor, columns: Tensor) -> Tensor:
        """Return the distances from ``a[rows]`` to ``b[columns]``, in blocks: ``(pairs,)``."""
        if not len(rows):
            return a.new_zeros(0)
        blocks = zip(rows.split(BLOCK), columns.split(BLOCK), strict=True)
        return torch.cat([self._solve(a[i], b[j])[0] for i, j in blocks])

    def table(self, a: Tensor, b: Tensor) -> Tensor:
        """Return all distances from points of ``a`` to points of ``b``: ``(N, M)``."""
        rows, columns = torch.cartesian_prod(_indices(a), _indices(b)).T
        return self.distances(a, rows, b, columns).reshape(len(a), len(b))

    def paths(self, z: Tensor, points: Tensor) -> "_Paths":
        """Return the paths from z to points, both ``(n, d)``, in blocks."""
        blocks = zip(z.split(BLOCK), points.split(BLOCK), strict=True)
        pieces = [_Paths.of(self.metric, *self._solve(start, end)) for start, end in blocks]
        return _Paths.joined(pieces)

    def continued(self, paths: "_Paths", z: Tensor) -> "_Paths":
        """Return paths from z ``(n, d)`` that are near given ones, from points near z.

        Sought anew, a path may turn up on another side of a void, and its length jump.
        """
        if self.metric.closed_form is not None:
            return self.paths(z, paths.curves[:, -1])
        shift = (1.0 - torch.linspace(0.0, 1.0, self.num_points).to(z))[:, None]
        curves = paths.curves + shift * (z - paths.curves[:, 0])[:, None]
        curves[:, 0] = z
        usable = self.metric.contains(curves).all(1)
        if not bool(usable.all()):
            return self.paths(z, curves[:, -1])
        pieces = [self._relax(piece) for piece in curves.split(max(1, BLOCK // self.num_points))]
        return _Paths.joined(pieces)

    def _relax(self, curves: Tensor) -> "_Paths":
        points, lengths, residual, error = resolve(
            self.metric, curves, self.tolerance, self.resolution, self.max_iterations
        )
        self._count((residual <= self.tolerance) & (error <= self.resolution))
        return _Paths.of(self.metric, lengths, points)

    def _solve(self, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
        """Return lengths and points of the shortest paths."""
        paths = shortest_paths(
            self.metric,
            start,
            end,
            num_points=self.num_points,
            tolerance=self.tolerance,
            resolution=self.resolution,
            max_iterations=self.max_iterations,
        )
        self._count(paths.converged)
        return paths.lengths, paths.points

    def _count(self, converged: Tensor) -> None:
        self.lost += int((~converged).sum())
        self.total += converged.numel()

    def warn(self) -> None:
        if self.lost:
            logger.warning(
                "%d of %d shortest paths were not found to the tolerance %.1e: their lengths are "
                "upper bounds of distances",
                self.lost,
                self.total,
                self.tolerance,
            )


class _Paths(NamedTuple):
    """What a mean needs of the paths that start from it."""

    lengths: Tensor  # (n,)
    squares: Tensor  # twice the energies, squared lengths at a constant speed, (n,)
    velocities: Tensor  # at the start, (n, d)
    curves: Tensor  # (n, T, d)

    @classmethod
    def of(cls, metric: Metric, lengths: Tensor, curves: Tensor) -> "_Paths":
        """Return paths given by their points."""
        if (formulas := metric.closed_form) is not None:
            velocities = formulas.logarithm(curves[:, 0], curves[:, -1])
            return cls(lengths, lengths.square(), velocities, curves)
        before, after = curves[:, :-1], curves[:, 1:]
        step = (curves.shape[1] - 1) * (after - before)
        squares = metric.inner(0.5 * (before + after), step, step).mean(-1)
        return cls(lengths, squares, initial_velocity(metric, curves), curves)

    @classmethod
    def joined(cls, pieces: list["_Paths"]) -> "_Paths":
        return cls(*(torch.cat(column) for column in zip(*pieces, strict=True)))

    def at(self, rows: Tensor) -> "_Paths":
        return _Paths(*(column[rows] for column in self))

    def replaced(self, rows: Tensor, new: "_Paths") -> "_Paths":
        """Return these paths, with new ones in some rows, ``(n,)`` bool."""
        columns = [column.clone() for column in self]
        for column, values in zip(columns, new, strict=True):
            column[rows] = values
        return _Paths(*columns)


def check_set(metric: Metric, name: str, points: Tensor) -> None:
    """Raise `DataError` unless ``points`` are ``(N, d)`` and can be used with the metric."""
    check_points(metric, **{name: points})
    check_shape(name, points, ("N", metric.dim))


# --- means --------------------------------------------------------------------------------------


@takes_arrays("points", "weights")
@torch.no_grad()
def frechet_mean(
    metric: Metric,
    points: Tensor,
    weights: Tensor | None = None,
    *,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
    num_points: int = 64,
) -> Tensor:
    r"""Return the points that minimise :math:`\sum_i w_i\, d(m, x_i)^2`: ``(..., d)``.

    Riemannian gradient descent :math:`m \leftarrow \mathrm{Exp}_m(s \sum_i w_i \mathrm{Log}_m x_i)`
    (Karcher, 1977; Pennec, 2006), all logarithms at once. The step s, at first 1, is halved until
    the objective falls. It starts from the Euclidean mean or from a point among those that
    k-medoids finds representative, whichever is best: the former may lie in the void. Where the
    curvature is positive or data surround a void there may be several local minima, and it is
    one of them.

    Args:
        metric: a metric.
        points: ``(..., N, d)``; there is a mean for each leading index.
        weights: not negative, not all zero, ``(..., N)``, broadcast over leading dimensions; None
            gives all points the same.
        tolerance: the mean logarithm's length, relative to the root mean squared distance, at
            which the descent ends. Paths are found to a tenth of it. A mean that did not get
            there is counted in a warning.
        max_iterations: steps of the descent, at most.
        num_points: points of the paths, as in `shortest_paths`.

    Raises:
        DataError: for points of another shape or dtype than the metric's, outside its domain or
            not finite, or weights that do not fit them.
        ConfigurationError: for a number out of range.

    >>> from chartae.geometry.conformal import PoincareMetric
    >>> frechet_mean(PoincareMetric(2), torch.tensor([[0.0, 0.0], [0.8, 0.0]]))
    tensor([0.5000, 0.0000])
    """
    check_number("tolerance", tolerance, above=0.0)
    check_integer("max_iterations", max_iterations, minimum=1)
    check_points(metric, points=points)
    if points.dim() < 2:
        raise DataError(f"points has shape {tuple(points.shape)}: expected (..., N, {metric.dim})")
    weights = _check_weights(weights, points)
    sets, shares = points.reshape(-1, *points.shape[-2:]), weights.reshape(-1, points.shape[-2])
    start = torch.stack([_first_mean(metric, *pair) for pair in zip(sets, shares, strict=True)])
    owner, _ = kept = shares.nonzero(as_tuple=True)
    solver = _Solver(metric, num_points, 0.1 * tolerance)
    descent = _Descent(solver, sets[kept], owner, shares[kept], start, tolerance)
    descent.run(max_iterations)
    descent.warn()
    return descent.means.reshape(*points.shape[:-2], metric.dim)


def _check_weights(weights: Tensor | None, points: Tensor) -> Tensor:
    """Return weights ``(..., N)`` that sum to 1 over N."""
    if weights is None:
        return points.new_full(points.shape[:-1], 1.0 / points.shape[-2])
    check_floating("weights", weights)
    check_finite("weights", weights)
    try:
        weights = weights.to(points).broadcast_to(points.shape[:-1])
    except RuntimeError as error:
        raise DataError(
            f"weights has shape {tuple(weights.shape)}: expected {tuple(points.shape[:-1])}"
        ) from error
    if bool((weights < 0).any()) or bool((weights.sum(-1) <= 0).any()):
        raise DataError("weights: expected numbers at least 0, not all of them 0")
    return weights / weights.sum(-1, keepdim=True)


def _first_mean(metric: Metric, points: Tensor, weights: Tensor) -> Tensor:
    """Return where the mean of points ``(N, d)`` is sought from: ``(d,)``."""
    used = weights > 0
    points, weights = points[used], weights[used]
    middle = (weights @ points)[None]
    some = points[select_centroids(points, min(CANDIDATES, len(points)))]
    usable = metric.contains(middle) & torch.isfinite(metric.log_volume(middle))
    candidates = torch.cat([middle[usable], some])
    coarse = _Solver(metric, COARSE, tolerance=1e-1, max_iterations=30, resolution=1.0)
    distances = coarse.table(candidates, points)
    return candidates[(distances.square() @ weights).argmin()]


class _Descent:
    """Riemannian gradient descent to the means of many sets of points at once.

    The objective is made of twice the energies of the paths: however few points these have, their
    initial velocities are exactly its gradient. Lengths are nearer to distances, but not that.

    Args:
        solver: what finds the paths.
        points: of all sets, ``(n, d)``.
        owner: the set of each point, ``(n,)``.
        weights: of the points, summing to 1 over each set, ``(n,)``.
        means: where to start, ``(sets, d)``.
        tolerance: as in `frechet_mean`.
    """

    def __init__(
        self,
        solver: _Solver,
        points: Tensor,
        owner: Tensor,
        weights: Tensor,
        means: Tensor,
        tolerance: float,
    ) -> None:
        self.solver, self.metric, self.tolerance = solver, solver.metric, tolerance
        self.points, self.means = points, means
        self.owner, self.weights = owner, weights
        self.paths = solver.paths(means[owner], points)
        self.steps = torch.ones_like(means[:, 0])

    def assign(self, owner: Tensor, weights: Tensor) -> None:
        """Go on with other sets, around the same means."""
        rows = owner != self.owner
        self.steps[owner[rows]] = self.steps[self.owner[rows]] = 1.0
        if bool(rows.any()):
            found = self.solver.paths(self.means[owner[rows]], self.points[rows])
            self.paths = self.paths.replaced(rows, found)
        self.owner, self.weights = owner, weights

    @property
    def losses(self) -> Tensor:
        """The mean squared distance of each set, ``(sets,)``."""
        return self._average(self.paths.squares)

    @property
    def residuals(self) -> Tensor:
        """The mean logarithm's length over the root mean squared distance, ``(sets,)``."""
        return self._residuals(self.means, self.paths)

    @property
    def moving(self) -> Tensor:
        """The sets whose means are not found, and may be by a step: ``(sets,)`` bool."""
        return (self.residuals > self.tolerance) & (self.steps > SHORTEST)

    def run(self, max_iterations: int) -> None:
        """Descend until all sets are done, by at most that many steps."""
        for _ in range(max_iterations):
            moving = self.moving
            if not bool(moving.any()):
                return
            self._advance(moving)

    def _advance(self, moving: Tensor) -> None:
        """Try the steps of the sets that move; keep those that lower the loss, halve the others."""
        move = self.steps[:, None] * self._average(self.paths.velocities)
        means = _moved(self.metric, self.means, torch.where(moving[:, None], move, 0.0))
        tried = moving & (means != self.means).any(-1)
        rows = tried[self.owner]
        paths = self.paths
        if bool(rows.any()):
            found = self.solver.continued(paths.at(rows), means[self.owner[rows]])
            paths = paths.replaced(rows, found)
        before, after = self.losses, self._average(paths.squares)
        flatter = self._residuals(means, paths) < self.residuals
        lower = (after < (1 - NOISE) * before) | ((after < (1 + NOISE) * before) & flatter)
        taken = tried & lower
        self.means = torch.where(taken[:, None], means, self.means)
        rows = taken[self.owner]
        self.paths = self.paths.replaced(rows, paths.at(rows))
        self.steps = torch.where(moving & ~taken, 0.5 * self.steps, self.steps)

    def _average(self, values: Tensor) -> Tensor:
        """Return the weighted means over the sets of values of points: ``(sets, ...)``."""
        weighted = (self.weights * values.mT).mT if values.dim() > 1 else self.weights * values
        return values.new_zeros(len(self.means), *values.shape[1:]).index_add(
            0, self.owner, weighted
        )

    def _residuals(self, means: Tensor, paths: _Paths) -> Tensor:
        losses = self._average(paths.squares)
        tiny = torch.finfo(losses.dtype).tiny
        left = self.metric.norm(means, self._average(paths.velocities))
        return left / losses.clamp_min(tiny).sqrt()

    def warn(self) -> None:
        lost = self.residuals > self.tolerance
        if bool(lost.any()):
            logger.warning(
                "%d of %d means did not converge: a mean logarithm of %.1e of the spread is left "
                "(tolerance %.1e); raise max_iterations, or the number of points of paths",
                int(lost.sum()),
                len(lost),
                float(self.residuals.max()),
                self.tolerance,
            )
        self.solver.warn()


def _moved(metric: Metric, z: Tensor, v: Tensor) -> Tensor:
    """Return Exp_z(v), about; z itself where that leaves the domain of the metric."""
    if (formulas := metric.closed_form) is not None:
        end = formulas.exponential(z, v, z.new_ones(1))[..., 0, :]
    else:
        *_, (end, _) = shoot(metric, z, metric.at(z).momentum(v), STEPS)
    finite = torch.isfinite(end).all(-1)
    end = torch.where(finite[:, None], end, z)
    usable = metric.contains(end) & torch.isfinite(metric.log_volume(end))
    return torch.where(usable[:, None], end, z)


# --- clusters -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class KMeans:
    """Clusters around Fréchet means.

    Attributes:
        centers: ``(k, d)``.
        labels: the cluster of each point, ``(N,)``.
        inertia: sum of squared distances from points to their centres.
        converged: whether labels and centres had come to rest.
        iterations: number of assignments made.
    """

    centers: Tensor
    labels: Tensor
    inertia: float
    converged: bool
    iterations: int

    @takes_arrays("points", owner="metric")
    def predict(self, metric: Metric, points: Tensor) -> Tensor:
        """Return the nearest centre of new points ``(M, d)``, by the same metric: ``(M,)``."""
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

    Lloyd's algorithm with Riemannian distances, seeded by k-means++ (Arthur and Vassilvitskii,
    2007). A centre that moves changes a distance by no more than its own move: only distances
    that this leaves in doubt are computed again (Elkan, 2003).

    Args:
        metric: a metric.
        points: ``(N, d)``, at least k of them different.
        k: number of clusters.
        num_restarts: seedings tried; the result with the lowest inertia is returned.
        max_iterations: assignments of one restart, at most. A result that did not come to rest
            is named in a warning.
        tolerance: of the centres, as in `frechet_mean`.
        num_points: points of the paths, as in `shortest_paths`.
        seed: the same seed gives the same clusters.

    Raises:
        DataError: for points of another shape or dtype than the metric's, outside its domain or
            not finite, or fewer different points than clusters.
        ConfigurationError: for a number out of range.

    >>> from chartae.geometry.constant import EuclideanMetric
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
    solver = _Solver(metric, num_points, 0.1 * tolerance)
    found = [
        _lloyd(solver, points, k, max_iterations, tolerance, make_generator(seed, "kmeans", r))
        for r in range(num_restarts)
    ]
    best = min(found, key=lambda result: result.inertia)
    if not best.converged:
        logger.warning(
            "k-means did not come to rest in %d iterations: raise max_iterations", best.iterations
        )
    solver.warn()
    return best


def _lloyd(
    solver: _Solver,
    points: Tensor,
    k: int,
    max_iterations: int,
    tolerance: float,
    generator: torch.Generator,
) -> KMeans:
    bounds, centers = _plus_plus(solver, points, k, generator)
    everyone, clusters = _indices(points), _indices(centers)
    labels = bounds.argmin(1)
    descent = _Descent(solver, points, labels, _shares(labels, k, points), centers, tolerance)
    iterations, rested = 1, False
    while not rested and iterations < max_iterations:
        iterations += 1
        descent.run(MEAN_STEPS)
        # Lower bounds of the distances to the new centres, the exact one to a point's own.
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
    solver: _Solver, points: Tensor, k: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return k of the points, far apart at random, after the distances to them ``(N, k)``."""
    everyone = _indices(points)
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
        bounds[:, empty] = 0.0  # nothing is known of the new centre


def _indices(points: Tensor) -> Tensor:
    return torch.arange(len(points), device=points.device)
