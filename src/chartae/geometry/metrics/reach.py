"""Rules that choose the width of a metric's bumps from the posteriors."""

import math

import torch
from torch import Tensor

from chartae.distributions import Gaussian
from chartae.geometry.metrics.centroid import squared_distances
from chartae.geometry.metrics.selection import nearest_neighbour_distances

__all__ = ["mean_overlap", "posterior_reach", "scott_temperature"]


@torch.no_grad()
def scott_temperature(posterior: Gaussian) -> float:
    r"""Return a temperature for a metric around N posteriors over d coordinates.

    :math:`T = 0.7 \sqrt d \, N^{-1/(d+4)} \sigma`, with :math:`\sigma^2` the mean variance of a
    coordinate under the aggregated posterior. It is a little less than Scott's rule (1992) for a
    kernel density, because overlapping bumps multiply in the volume. Before training the codes
    nearly coincide. The variance of the posteriors then keeps the bumps at least as wide as the
    spread of the latents.
    """
    n, d = posterior.mean.shape
    variance = posterior.mean.var(0, correction=0).mean() + posterior.variance.mean()
    scott: float = n ** (-1.0 / (d + 4))
    return 0.7 * math.sqrt(d * variance.item()) * scott


@torch.no_grad()
def posterior_reach(posterior: Gaussian) -> float:
    r"""Return a rho for the metric of N posteriors over d coordinates.

    :math:`\rho^2 = d + m^2`, with m the median distance from a mean to its nearest neighbour, in
    standard deviations of the neighbour. The term m^2 makes neighbouring bumps overlap. The term d
    is the mean squared distance of a draw from its own posterior. It keeps such draws out of
    low-density regions before training, when the means nearly coincide and m is near 0.
    """
    n, d = posterior.mean.shape
    if n == 1:
        return math.sqrt(d)
    distances = nearest_neighbour_distances(posterior.mean, posterior.covariance)
    return math.hypot(math.sqrt(d), distances.median().item())


def mean_overlap(centroids: Tensor, temperature: float) -> Tensor:
    r"""Return the mean over i of :math:`\sum_j e^{-\|c_i - c_j\|^2 / T^2}`: a scalar, at least 1.

    Args:
        centroids: the :math:`c_i`, ``(N, d)``.
        temperature: T, positive.
    """
    offset = centroids - centroids.detach().mean(0)
    # In blocks: the (N, N) distances of a large training set would not fit in memory.
    sums = [
        torch.exp(-squared_distances(piece, offset) / temperature**2).sum()
        for piece in offset.split(1024)
    ]
    return torch.stack(sums).sum() / len(centroids)
