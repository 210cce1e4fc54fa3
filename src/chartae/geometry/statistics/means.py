"""Fréchet means of one set of points, or of many sets at once."""

import logging

import torch
from torch import Tensor

from chartae.checks import check_finite, check_floating, check_integer, check_number
from chartae.data.arrays import takes_arrays
from chartae.errors import DataError
from chartae.geometry.metrics.base import Metric, check_points
from chartae.geometry.metrics.selection import select_centroids
from chartae.geometry.paths.exponential import shoot
from chartae.geometry.statistics.solver import Solver, Spokes

__all__ = ["Descent", "frechet_mean"]

logger = logging.getLogger(__name__)

CANDIDATES = 8
"""Number of candidate start points of a mean, besides the Euclidean mean."""
COARSE = 16
"""Number of points of the paths that compare the candidates."""
STEPS = 10
"""Integration steps of the exponential map in a descent step. Later steps correct its error."""
SHORTEST = 1e-2
"""Smallest step, as a share of a full step. The paths are not accurate enough for shorter steps."""
NOISE = 1e-6
"""Relative error of a mean of squared distances. Smaller changes are judged by the gradient."""


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
    (Karcher, 1977; Pennec, 2006), all logarithms at once. The step s starts at 1 and is halved
    until the objective falls. The descent starts from the Euclidean mean or from one of the
    medoids that k-medoids finds, whichever has the lowest objective: the Euclidean mean may lie in
    a low-density region. If the curvature is positive, or the data surround a low-density region,
    there may be several local minima. The result is one of them.

    Args:
        metric: a metric.
        points: ``(..., N, d)``; there is a mean for each leading index.
        weights: not negative, not all zero, ``(..., N)``, broadcast over leading dimensions; None
            gives all points the same weight.
        tolerance: the descent ends when the length of the mean logarithm, relative to the root
            mean squared distance, is at most this. Paths are found to a tenth of it. A warning
            gives the number of means that did not reach it.
        max_iterations: maximum number of descent steps.
        num_points: points of the paths, as in `shortest_paths`.

    Raises:
        DataError: for points of another shape or dtype than the metric's, outside its domain or
            not finite, or weights that are not valid for them.
        ConfigurationError: for a number out of range.

    >>> from chartae.geometry.metrics.conformal import PoincareMetric
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
    solver = Solver(metric, num_points, 0.1 * tolerance)
    descent = Descent(solver, sets[kept], owner, shares[kept], start, tolerance)
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
    """Return the start point of the descent to the mean of points ``(N, d)``: ``(d,)``."""
    used = weights > 0
    points, weights = points[used], weights[used]
    middle = (weights @ points)[None]
    some = points[select_centroids(points, min(CANDIDATES, len(points)))]
    usable = metric.contains(middle) & torch.isfinite(metric.log_volume(middle))
    candidates = torch.cat([middle[usable], some])
    coarse = Solver(metric, COARSE, tolerance=1e-1, max_iterations=30, resolution=1.0)
    distances = coarse.table(candidates, points)
    return candidates[(distances.square() @ weights).argmin()]


class Descent:
    """Riemannian gradient descent to the means of many sets of points at once.

    The objective is the weighted sum of twice the energies of the paths. Its gradient is given
    exactly by the initial velocities of the paths, for any number of path points. This does not
    hold for squared lengths, although lengths are closer to the distances.

    Args:
        solver: finds the paths.
        points: the points of all sets, ``(n, d)``.
        owner: the set of each point, ``(n,)``.
        weights: weights of the points, which sum to 1 over each set, ``(n,)``.
        means: start points, ``(sets, d)``.
        tolerance: as in `frechet_mean`.
    """

    def __init__(
        self,
        solver: Solver,
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
        """Continue with other sets and the current means."""
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
        """The sets that have not converged and can still take a step: ``(sets,)`` bool."""
        return (self.residuals > self.tolerance) & (self.steps > SHORTEST)

    def run(self, max_iterations: int) -> None:
        """Descend until all sets are done, with at most ``max_iterations`` steps."""
        for _ in range(max_iterations):
            moving = self.moving
            if not bool(moving.any()):
                return
            self._advance(moving)

    def _advance(self, moving: Tensor) -> None:
        """Try a step of each moving set. Keep it if it lowers the loss, else halve the step."""
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
        """Return the weighted mean of the points' values in each set: ``(sets, ...)``."""
        weighted = (self.weights * values.mT).mT if values.dim() > 1 else self.weights * values
        return values.new_zeros(len(self.means), *values.shape[1:]).index_add(
            0, self.owner, weighted
        )

    def _residuals(self, means: Tensor, paths: Spokes) -> Tensor:
        losses = self._average(paths.squares)
        tiny = torch.finfo(losses.dtype).tiny
        left = self.metric.norm(means, self._average(paths.velocities))
        return left / losses.clamp_min(tiny).sqrt()

    def warn(self) -> None:
        lost = self.residuals > self.tolerance
        if bool(lost.any()):
            logger.warning(
                "%d of %d means did not converge: the largest relative length of a mean logarithm "
                "is %.1e (tolerance %.1e); raise max_iterations or num_points",
                int(lost.sum()),
                len(lost),
                float(self.residuals.max()),
                self.tolerance,
            )
        self.solver.warn()


def _moved(metric: Metric, z: Tensor, v: Tensor) -> Tensor:
    """Return an approximation of Exp_z(v), or z if Exp_z(v) is outside the metric's domain."""
    if (formulas := metric.closed_form) is not None:
        end = formulas.exponential(z, v, z.new_ones(1))[..., 0, :]
    else:
        *_, (end, _) = shoot(metric, z, metric.at(z).momentum(v), STEPS)
    finite = torch.isfinite(end).all(-1)
    end = torch.where(finite[:, None], end, z)
    usable = metric.contains(end) & torch.isfinite(metric.log_volume(end))
    return torch.where(usable[:, None], end, z)
