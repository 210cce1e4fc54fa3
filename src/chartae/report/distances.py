"""Riemannian distances from one point to a grid on a plane of the latent space, for figures."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from chartae.geometry import Metric
from chartae.report.latent import Plane, Square
from chartae.report.style import Array

__all__ = ["nearest", "plane_distances"]

REACH = 5
"""Largest number of rows or columns that an edge of the graph spans."""

Edges = tuple[Array, Array, Array]
"""Indices of tails and heads, and lengths."""


def plane_distances(metric: Metric, plane: Plane, square: Square, source: Tensor) -> Array:
    """Return distances from a point of the plane ``(2,)`` to the points of a square: ``(r, r)``.

    They are lengths of shortest paths in a graph, by Dijkstra's algorithm. They are infinite for
    points without a path. `distance_field` documents their accuracy.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import dijkstra

    points = square.points
    size = len(points)
    # Row by row, because a metric may need memory for every pair of point and centroid.
    tensors = torch.stack([_tensor(metric, plane, row) for row in points])
    near = ((points - source).abs() <= REACH * square.step).all(-1)
    heads = np.flatnonzero(near.cpu().numpy())
    spokes = np.full_like(heads, size**2), heads, _spokes(metric, plane, source, points[near])
    edges = [*_grid_edges(tensors, square.step), spokes]

    tails, heads, lengths = (np.concatenate(part) for part in zip(*edges, strict=True))
    known = np.isfinite(lengths)
    entries = lengths[known], (tails[known], heads[known])
    graph = coo_array(entries, shape=(size**2 + 1, size**2 + 1)).tocsr()
    found: Array = np.asarray(dijkstra(graph, directed=False, indices=size**2))
    return found[:-1].reshape((size, size))


def _tensor(metric: Metric, plane: Plane, flat: Tensor) -> Tensor:
    """Return the metric restricted to the plane, ``(..., 2, 2)`` in float64, at points of it."""
    return (plane.basis.mT @ metric.tensor(plane.lift(flat)) @ plane.basis).double()


def _grid_edges(tensors: Tensor, step: float) -> Iterator[Edges]:
    """Yield the edges between points of a grid whose metric is ``(r, r, 2, 2)``."""
    size = len(tensors)
    index = np.arange(size**2).reshape(size, size)
    reach = min(REACH, size - 1)
    for down in range(reach + 1):
        for across in range(-reach, reach + 1):
            # One edge for each direction, without its opposite and its multiples.
            if np.gcd(down, across) != 1 or (down == 0 and across < 0):
                continue
            left, right = max(0, -across), size - max(0, across)
            here = np.s_[: size - down, left:right]
            there = np.s_[down:, left + across : right + across]
            lengths = _means(
                _speeds(tensors, step * tensors.new_tensor([across, down])), down, across
            )
            yield index[here].ravel(), index[there].ravel(), lengths.ravel()


def _means(speeds: Array, down: int, across: int) -> Array:
    """Return the mean of speeds ``(r, r)`` along edges, by the trapezoidal rule.

    The rule has one point for every row or column that the edge crosses, interpolated between the
    two nearest grid points. With the two ends alone, an edge could skip a narrow region of large
    speed.
    """
    size, span, left = len(speeds), max(down, abs(across)), max(0, -across)
    rows, columns = size - down, size - abs(across)

    def shifted(row: int, column: int) -> Array:
        return speeds[row : row + rows, left + column : left + column + columns]

    total: Array = np.zeros((rows, columns))
    for k in range(span + 1):
        row, below = divmod(k * down, span)  # one of the two is a whole number
        column, beside = divmod(k * across, span)
        share = (below + beside) / span
        value = shifted(row, column)
        if share:
            value = (1.0 - share) * value + share * shifted(
                row + (below > 0), column + (beside > 0)
            )
        total += value * (0.5 if k in (0, span) else 1.0) / span
    return total


def _spokes(metric: Metric, plane: Plane, source: Tensor, points: Tensor) -> Array:
    """Return the lengths of straight lines from the source to points ``(n, 2)``."""
    times = torch.linspace(0.0, 1.0, 2 * REACH + 1).to(points)[:, None, None]
    speeds = _speeds(_tensor(metric, plane, torch.lerp(source, points, times)), points - source)
    return np.asarray(np.trapezoid(speeds, dx=1.0 / (2 * REACH), axis=0))


def _speeds(tensors: Tensor, velocity: Tensor) -> Array:
    """Return the norms of velocities ``(..., 2)`` for the metric ``(..., 2, 2)``."""
    velocity = velocity.double()
    squares = torch.einsum("...i,...ij,...j->...", velocity, tensors, velocity)
    speeds: Array = squares.clamp_min(0.0).sqrt().cpu().numpy()
    return speeds


def nearest(values: Array, square: Square, points: Tensor) -> Array:
    """Return the values at the grid points nearest to points of the plane ``(n, 2)``."""
    corner = square.points[0, 0]
    columns, rows = ((points - corner) / square.step).round().long().cpu().numpy().T
    chosen: Array = values[rows, columns]
    return chosen
