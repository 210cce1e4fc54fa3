"""Two metrics in the plane, and how samples are judged against a density."""

import torch
from scipy import stats

from chartae.geometry import CentroidMetric, PosteriorMetric


def chi_square(samples, log_density, low, high, cells=8, fine=40):
    """p-value of independent 2-D samples against a density integrated over square cells."""
    ticks = torch.linspace(low, high, cells * fine + 1, dtype=torch.float64)
    middles = (ticks[1:] + ticks[:-1]) / 2
    grid = torch.cartesian_prod(middles, middles)
    mass = log_density(grid).exp().reshape(cells, fine, cells, fine).sum((1, 3))
    edges = ticks[::fine]
    counts = torch.histogramdd(samples.double(), bins=[edges, edges]).hist.flatten()
    expected = (mass / mass.sum()).flatten() * counts.sum()
    assert counts.sum() > 0.99 * len(samples)
    # Pearson's rule: cells of at least 5 expected points; the others count as one.
    large = expected >= 5
    counts = torch.cat([counts[large], counts[~large].sum()[None]])
    expected = torch.cat([expected[large], expected[~large].sum()[None]])
    if expected[-1] < 5:
        counts, expected = counts[:-1], expected[:-1] * counts[:-1].sum() / expected[:-1].sum()
    assert len(counts) > 10
    return stats.chisquare(counts.numpy(), expected.numpy()).pvalue


def planar_metric(name):
    angles = torch.arange(6, dtype=torch.float64)
    centroids = torch.stack([1.5 * angles.cos(), 1.2 * angles.sin()], 1)
    generator = torch.Generator().manual_seed(3)
    if name == "posterior":
        deviations = 0.2 + 0.5 * torch.rand(6, 2, generator=generator, dtype=torch.float64)
        return PosteriorMetric(centroids, deviations.square(), rho=1.5, regularization=0.1)
    factors = torch.randn(6, 2, 2, generator=generator, dtype=torch.float64)
    matrices = factors @ factors.mT + 0.3 * torch.eye(2, dtype=torch.float64)
    return CentroidMetric(centroids, matrices, 0.8, 1e-2)


PLANAR = {name: planar_metric(name) for name in ("centroid", "posterior")}
"""The metric of an RHVAE, small near its six centroids, and one that is large there."""


def draws(density, n, generator):
    """Independent draws of a density on its S, from a fine grid."""
    ticks = torch.linspace(-density.radius, density.radius, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(ticks, ticks)
    weights = density.log_prob(grid).softmax(0)
    index = torch.multinomial(weights, n, replacement=True, generator=generator)
    step = float(ticks[1] - ticks[0])
    jitter = torch.rand(n, 2, generator=generator, dtype=torch.float64) - 0.5
    points = grid[index] + step * jitter
    return points[density.contains(points)]  # a square on the wall reaches beyond it
