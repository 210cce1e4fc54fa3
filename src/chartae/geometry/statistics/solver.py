"""Shortest paths between sets of points, in blocks, with a count of the paths not found."""

import logging
from typing import NamedTuple

import torch
from torch import Tensor

from chartae.geometry.metrics.base import Metric
from chartae.geometry.paths.geodesics import initial_velocity, resolve, shortest_paths

__all__ = ["Solver", "Spokes", "indices"]

logger = logging.getLogger(__name__)

BLOCK = 2**12
"""Maximum number of distances computed at once."""
RESOLUTION = 1e-2
"""Relative error of a length above which its path gets more points, as in `shortest_paths`."""


class Solver:
    """Finds shortest paths with one set of options, and counts the paths that it did not find."""

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
        rows, columns = torch.cartesian_prod(indices(a), indices(b)).T
        return self.distances(a, rows, b, columns).reshape(len(a), len(b))

    def paths(self, z: Tensor, points: Tensor) -> "Spokes":
        """Return the paths from z to points, both ``(n, d)``, in blocks."""
        blocks = zip(z.split(BLOCK), points.split(BLOCK), strict=True)
        pieces = [Spokes.of(self.metric, *self._solve(start, end)) for start, end in blocks]
        return Spokes.joined(pieces)

    def continued(self, paths: "Spokes", z: Tensor) -> "Spokes":
        """Return paths from z ``(n, d)``, optimised from given paths that start near z.

        A new search could find a path on the other side of a low-density region, with a very
        different length.
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
        return Spokes.joined(pieces)

    def _relax(self, curves: Tensor) -> "Spokes":
        points, lengths, residual, error = resolve(
            self.metric, curves, self.tolerance, self.resolution, self.max_iterations
        )
        self._count((residual <= self.tolerance) & (error <= self.resolution))
        return Spokes.of(self.metric, lengths, points)

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


class Spokes(NamedTuple):
    """The quantities of the paths from a mean to its points."""

    lengths: Tensor  # (n,)
    squares: Tensor  # twice the energies, squared lengths at a constant speed, (n,)
    velocities: Tensor  # at the start, (n, d)
    curves: Tensor  # (n, T, d)

    @classmethod
    def of(cls, metric: Metric, lengths: Tensor, curves: Tensor) -> "Spokes":
        """Return paths given by their points."""
        if (formulas := metric.closed_form) is not None:
            velocities = formulas.logarithm(curves[:, 0], curves[:, -1])
            return cls(lengths, lengths.square(), velocities, curves)
        before, after = curves[:, :-1], curves[:, 1:]
        step = (curves.shape[1] - 1) * (after - before)
        squares = metric.inner(0.5 * (before + after), step, step).mean(-1)
        return cls(lengths, squares, initial_velocity(metric, curves), curves)

    @classmethod
    def joined(cls, pieces: list["Spokes"]) -> "Spokes":
        return cls(*(torch.cat(column) for column in zip(*pieces, strict=True)))

    def at(self, rows: Tensor) -> "Spokes":
        return Spokes(*(column[rows] for column in self))

    def replaced(self, rows: Tensor, new: "Spokes") -> "Spokes":
        """Return these paths, with new ones in some rows, ``(n,)`` bool."""
        columns = [column.clone() for column in self]
        for column, values in zip(columns, new, strict=True):
            column[rows] = values
        return Spokes(*columns)


def indices(points: Tensor) -> Tensor:
    """Return the indices of points, ``(N,)``, on their device."""
    return torch.arange(len(points), device=points.device)
