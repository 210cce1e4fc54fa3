"""Shortest paths in a k-nearest-neighbour graph, used as initial paths for geodesics."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chartae.geometry.metrics.base import Metric
from chartae.geometry.paths.curves import at_constant_speed, segment_lengths

__all__ = ["graph_distances", "graph_paths"]

NEIGHBOURS = 8
"""Number of neighbours of each node."""
ENTRIES = 4
"""Number of nodes to which each end of a path is connected."""
MOST_NODES = 300
"""Maximum number of nodes. If there are more, an evenly spaced subset is used."""


def graph_paths(
    metric: Metric, start: Tensor, end: Tensor, num_points: int, nodes: Tensor
) -> Tensor:
    """Return the shortest paths through nodes, ``(pairs, num_points, d)``, at a constant speed.

    Each node is connected to its nearest neighbours. The edges of the minimum spanning tree are
    added, so that the graph is connected. Edges are straight and weighted by their Riemannian
    length.

    Args:
        metric: a metric.
        start: ``(pairs, d)``.
        end: ``(pairs, d)``.
        num_points: points of each path.
        nodes: ``(n, d)``, at least one.
    """
    if len(nodes) > MOST_NODES:
        nodes = nodes[torch.linspace(0, len(nodes) - 1, MOST_NODES).long()]
    between, before = graph_distances(metric, nodes)
    first, entry = _entries(metric, start, nodes)
    last, exit_ = _entries(metric, end, nodes)
    # The shortest path over all pairs of an entry node and an exit node.
    total = first[:, :, None] + between[entry[:, :, None], exit_[:, None, :]] + last[:, None, :]
    best = total.reshape(len(total), -1).argmin(1)
    rows, ways = np.arange(len(best)), last.shape[1]
    sources, targets = entry[rows, best // ways], exit_[rows, best % ways]
    chains = _chains(before, sources, targets)
    corners = torch.cat([start[:, None], nodes[torch.as_tensor(chains)], end[:, None]], 1)
    # A part of a shortest path is a shortest path: the lengths of the edges are known.
    edges = between[chains[:, :-1], chains[:, 1:]]
    ends = first[rows, best // ways, None], last[rows, best % ways, None]
    lengths = torch.as_tensor(np.concatenate([ends[0], edges, ends[1]], 1)).to(corners)
    return at_constant_speed(metric, corners, num_points, lengths)


def graph_distances(metric: Metric, nodes: Tensor) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Return the lengths of the shortest paths between all nodes, and their predecessors.

    Each is ``(n, n)``; a predecessor is the node before the last of the path, or negative. See
    `graph_paths` for the edges.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import dijkstra, minimum_spanning_tree

    straight = torch.cdist(nodes.double(), nodes.double())
    count = min(NEIGHBOURS + 1, len(nodes))
    near = straight.topk(count, largest=False).indices
    rows = np.repeat(np.arange(len(nodes)), count)
    # scipy ignores edges of length zero, so nodes that coincide get a tiny positive length.
    tree = minimum_spanning_tree((straight + 1e-12).cpu().numpy()).tocoo()
    pairs = np.stack([np.append(rows, tree.row), np.append(near.cpu().flatten(), tree.col)])
    pairs = np.unique(np.sort(pairs[:, pairs[0] != pairs[1]], axis=0), axis=1)
    lengths = segment_lengths(metric, nodes[pairs[0]], nodes[pairs[1]]).double().cpu().numpy()
    graph = coo_array((np.maximum(lengths, 1e-12), tuple(pairs)), shape=straight.shape)
    distances, before = dijkstra(graph.tocsr(), directed=False, return_predecessors=True)
    return distances, before


def _entries(
    metric: Metric, points: Tensor, nodes: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the lengths of the edges to the nearest nodes, and their indices: ``(pairs, k)``."""
    count = min(ENTRIES, len(nodes))
    points, rows = points.unique(dim=0, return_inverse=True)  # a point may end many paths
    near = torch.cdist(points, nodes).topk(count, largest=False).indices
    lengths = segment_lengths(metric, points[:, None].expand(-1, count, -1), nodes[near])
    return lengths.double()[rows].cpu().numpy(), near[rows].cpu().numpy()


def _chains(
    before: NDArray[np.int32], sources: NDArray[np.int64], targets: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the nodes on each path, ``(pairs, m)``; shorter paths repeat their first node."""
    steps, here = [targets], targets
    while (here != sources).any():
        previous = before[sources, here]
        # If no edge of finite length leads to the node, the path is the straight line.
        here = np.where((here == sources) | (previous < 0), sources, previous)
        steps.append(here)
    return np.stack(steps[::-1], axis=1)
