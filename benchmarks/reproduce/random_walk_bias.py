"""How far the law of the random walk is from the density that it is accepted by.

Algorithm 3 of the thesis accepts a geodesic proposal by the ratio of densities alone; the exact
walk by Metropolis-Hastings. On two metrics in two dimensions (the RHVAE's, and a vanilla VAE's)
chains start from the density itself, by quadrature, walk until the published walk has found its own
law, and are then counted in square cells. Reported for velocities N(0, s^2 I): the total variation
distance between these counts and the quadrature, and the acceptance. What as many independent draws
would show is the floor.

    python benchmarks/reproduce/random_walk_bias.py [--chains 2000] [--scales 0.1 0.2 ...]
"""

import argparse
import math

import torch
from torch import Tensor

from chartae.geometry import CentroidMetric, ManifoldDensity, Metric, PosteriorMetric, random_walk

CELLS, FINE = 8, 60
LEAST_EXACT = 0.1
"""Below this scale the exact walk, which would take hours, is left out."""


def metrics() -> dict[str, Metric]:
    angles = torch.arange(6, dtype=torch.float64)
    centroids = torch.stack([1.5 * angles.cos(), 1.2 * angles.sin()], 1)
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(6, 2, 2, generator=generator, dtype=torch.float64)
    matrices = factors @ factors.mT + 0.3 * torch.eye(2, dtype=torch.float64)
    deviations = 0.2 + 0.5 * torch.rand(6, 2, generator=generator, dtype=torch.float64)
    return {
        "RHVAE's": CentroidMetric(centroids, matrices, 0.8, 1e-2),
        "posterior": PosteriorMetric(centroids, deviations.square(), rho=1.5, regularization=0.1),
    }


class Quadrature:
    """A density on S, by sums over a fine grid of square cells."""

    def __init__(self, density: ManifoldDensity) -> None:
        r = density.radius
        self.edges = torch.linspace(-r, r, CELLS + 1, dtype=torch.float64)
        self.step = 2.0 * r / (CELLS * FINE)
        ticks = torch.arange(CELLS * FINE, dtype=torch.float64) * self.step + 0.5 * self.step - r
        self.grid = torch.cartesian_prod(ticks, ticks)
        self.weights = density.log_prob(self.grid).softmax(0)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        index = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        jitter = torch.rand(n, 2, generator=generator, dtype=torch.float64) - 0.5
        return self.grid[index] + 0.999 * self.step * jitter

    def distance(self, samples: Tensor) -> float:
        """Return the total variation distance of samples ``(n, 2)``, cell by cell."""
        mass = self.weights.reshape(CELLS, FINE, CELLS, FINE).sum((1, 3))
        counts = torch.histogramdd(samples, bins=[self.edges, self.edges]).hist
        return float(0.5 * (counts / len(samples) - mass).abs().sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chains", type=int, default=3000)
    parser.add_argument("--scales", type=float, nargs="*", default=[0.05, 0.15, 0.3, 0.6, 1.2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| metric | s | published: distance | acceptance | exact: distance | acceptance |")
    print("|---|---|---|---|---|---|")
    for name, metric in metrics().items():
        density = ManifoldDensity(metric)
        quadrature = Quadrature(density)
        generator = torch.Generator().manual_seed(0)
        start = quadrature.draw(arguments.chains, generator)
        start = start[density.contains(start)]  # a cell on the wall reaches beyond it
        noise = quadrature.distance(quadrature.draw(len(start), generator))
        for scale in arguments.scales:
            cells = [name, f"{scale:g}"]
            # Time enough to diffuse twice across a radius of the codes.
            settling = max(20, math.ceil(2.0 * (1.5 / scale) ** 2))
            for exact in (False, True) if scale >= LEAST_EXACT else (False,):
                chain = random_walk(
                    metric,
                    start,
                    num_steps=2 * settling,
                    covariance=scale**2,
                    exact=exact,
                    num_integration_steps=10,
                    thinning=settling // 20,
                    generator=generator,
                )
                distance = quadrature.distance(chain.samples[-20:].flatten(0, 1))
                cells += [f"{distance:.3f}", f"{float(chain.acceptance.mean()):.2f}"]
            print(f"| {' | '.join(cells)} |", flush=True)
        print(f"| {name} | noise, at most | {noise:.3f} | | {noise:.3f} | |", flush=True)


if __name__ == "__main__":
    main()
