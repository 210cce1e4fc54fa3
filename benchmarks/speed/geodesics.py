"""1,000 distances and 1,000 exponential maps on an RHVAE's metric, N = 200, d = 10.

Distances: all pairs in one call, against one call a pair (over the first hundred pairs, the time
scaled to all). The exponential map: the closed-form gradients against autograd's, with the metric
written in PyTorch the same way, by matrix products, and as published, by a (points, N, d, d)
tensor.
"""

import torch
from harness import Row, interleave, main
from torch import Tensor

from chartae.geometry import CentroidMetric, distance, exponential_map

PAIRS, CENTROIDS, LATENT_DIM, STEPS = 1000, 200, 10, 100
ALONE, NAIVE = 100, 100
TEMPERATURE, REGULARIZATION = 1.5, 1e-3


def make_metric() -> CentroidMetric:
    generator = torch.Generator().manual_seed(0)
    centroids = torch.randn(CENTROIDS, LATENT_DIM, generator=generator)
    lower = 0.3 * torch.randn(CENTROIDS, LATENT_DIM, LATENT_DIM, generator=generator).tril(-1)
    factors = lower + torch.eye(LATENT_DIM)
    return CentroidMetric(centroids, factors @ factors.mT, TEMPERATURE, REGULARIZATION)


def by_products(metric: CentroidMetric, z: Tensor) -> Tensor:
    """Return the inverse metric from matrix products."""
    squared = torch.cdist(z, metric.centroids, compute_mode="use_mm_for_euclid_dist").square()
    weights = torch.exp(-squared / TEMPERATURE**2)
    bumps = (weights @ metric.matrices.flatten(1)).unflatten(-1, (LATENT_DIM, LATENT_DIM))
    return bumps + REGULARIZATION * torch.eye(LATENT_DIM)


def as_published(metric: CentroidMetric, z: Tensor) -> Tensor:
    """Return the inverse metric from a (points, N, d, d) tensor."""
    squared = (z[:, None] - metric.centroids).square().sum(-1)
    weights = torch.exp(-squared / TEMPERATURE**2)
    bumps = (weights[..., None, None] * metric.matrices).sum(1)
    return bumps + REGULARIZATION * torch.eye(LATENT_DIM)


def autograd_exponential(metric: CentroidMetric, inverse: object, z: Tensor, v: Tensor) -> Tensor:
    """Integrate thesis Alg. 2 with gradients of the Hamiltonian by autograd."""

    def slopes(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        p, q = p.detach().requires_grad_(), q.detach().requires_grad_()
        energy = 0.5 * torch.einsum("ni,nij,nj->", q, inverse(metric, p), q)  # type: ignore[operator]
        return torch.autograd.grad(energy, (p, q))  # type: ignore[return-value]

    p, q, step = z, torch.linalg.solve(inverse(metric, z), v), 1.0 / STEPS  # type: ignore[operator]
    for _ in range(STEPS):
        by_p, by_q = slopes(p, q)
        by_p, by_q = slopes(p + 0.5 * step * by_q, q - 0.5 * step * by_p)
        p, q = p + step * by_q, q - step * by_p
    return p


def measure(rounds: int) -> list[Row]:
    metric = make_metric()
    generator = torch.Generator().manual_seed(1)
    start, end = torch.randint(CENTROIDS, (2, PAIRS), generator=generator)
    a, b = metric.centroids[start], metric.centroids[end]
    v = torch.randn(PAIRS, LATENT_DIM, generator=generator)

    def alone() -> None:
        for k in range(ALONE):
            distance(metric, a[k], b[k])

    ours = exponential_map(metric, a[:NAIVE], v[:NAIVE], num_steps=STEPS)
    for inverse in (by_products, as_published):
        theirs = autograd_exponential(metric, inverse, a[:NAIVE], v[:NAIVE])
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)

    contestants = {
        "together": lambda: _discard(distance(metric, a, b)),
        "alone": alone,
        "closed form": lambda: _discard(exponential_map(metric, a, v, num_steps=STEPS)),
        "autograd": lambda: _discard(autograd_exponential(metric, by_products, a, v)),
        "published": lambda: _discard(
            autograd_exponential(metric, as_published, a[:NAIVE], v[:NAIVE])
        ),
    }
    times = interleave(contestants, rounds)
    seconds = {name: times.median(name) for name in contestants}
    every = PAIRS / ALONE
    what = f"exponential map, {PAIRS:,} points x {STEPS} steps, N = {CENTROIDS}, d = {LATENT_DIM}"
    return [
        Row(
            f"{PAIRS:,} distances, N = {CENTROIDS}, d = {LATENT_DIM}: speed",
            "one pair at a time",
            [every * ratio for ratio in times.ratios("alone", "together")],
            50.0,
            detail=f"{seconds['together']:.2f} against {every * seconds['alone']:.1f} s "
            f"({ALONE} pairs timed, scaled)",
        ),
        Row(
            f"{what}: speed",
            "autograd, the metric by matrix products",
            times.ratios("autograd", "closed form"),
            5.0,
            detail=f"{seconds['closed form']:.2f} against {seconds['autograd']:.2f} s",
        ),
        Row(
            f"{what}: speed",
            "autograd, the metric as published",
            [PAIRS / NAIVE * ratio for ratio in times.ratios("published", "closed form")],
            None,
            detail=f"{seconds['closed form']:.2f} against "
            f"{PAIRS / NAIVE * seconds['published']:.1f} s ({NAIVE} points timed, scaled)",
        ),
    ]


def _discard(result: Tensor) -> None:
    assert len(result) in (PAIRS, NAIVE)


if __name__ == "__main__":
    main(measure, rounds=3)
