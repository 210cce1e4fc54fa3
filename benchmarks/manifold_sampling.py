"""Uniform sampling of a VAE's manifold by HMC: ours, the published algorithm, and many centroids.

1,000 chains x 10 iterations x 10 leapfrog steps of 0.01 (thesis, Alg. 5), d = 16, chains started at
centroids. The posteriors are synthetic, with the statistics of those of a VAE trained on the 60,000
images of MNIST (`thesis/mnist`, Bernoulli, 20 epochs): all 16 coordinates active, means about
N(0, I) in ten clusters, each coordinate's typical sigma between 0.14 and 0.40 (0.24 overall), and a
spread of log sigma of 0.25 about it. A second set is as sharp as those of a model that sees little
noise: the same, with every sigma halved. rho is by the thesis' rule, for each N its own.
"""

import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch
from harness import Row, interleave, main

from chartae.geometry import Metric, NeighbourMetric, PosteriorMetric, hmc

CHAINS, STEPS, LEAPFROG, DIM, STEP_SIZE = 1000, 10, 10, 16, 0.01
FEW, MANY = 1000, 100_000
NAIVE_CHAINS = 50
"""Chains of the published algorithm: of all 1,000 a gradient takes 1 GB, and the run minutes."""


def posteriors(number: int, scale: float = 1.0, rho: float | None = None) -> PosteriorMetric:
    """Return the metric of ``number`` posteriors, their sigmas times ``scale``; rho by the rule."""
    generator = torch.Generator().manual_seed(0)
    centres = 0.6 * torch.randn(10, DIM, generator=generator)
    label = torch.randint(10, (number,), generator=generator)
    means = centres[label] + 0.8 * torch.randn(number, DIM, generator=generator)
    typical = torch.linspace(math.log(0.14), math.log(0.40), DIM)
    sigmas = (typical + 0.25 * torch.randn(number, DIM, generator=generator)).exp()
    return PosteriorMetric(means, (scale * sigmas).square(), rho)


def sample(metric: Metric, initial: torch.Tensor, num_steps: int = STEPS) -> None:
    """Run the chains."""

    def log_density_and_grad(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        local = metric.at(z)
        return local.log_volume, local.log_volume_grad()

    chain = hmc(
        log_density_and_grad,
        initial,
        num_steps=num_steps,
        num_leapfrog=LEAPFROG,
        step_size=STEP_SIZE,
        num_warmup=0,
        generator=torch.Generator().manual_seed(0),
    )
    assert torch.isfinite(chain.final).all()


def sample_many(metric: PosteriorMetric, num_steps: int = STEPS) -> None:
    """Run the chains with the centroids that matter; choosing them is in the time."""
    sample(NeighbourMetric(metric), metric.means[:CHAINS], num_steps)


class Published:
    """The algorithm as published, on the same metric: tensors (chains, N, d, d) in each gradient.

    Momenta and acceptance are as they should be (MATH.md lists the published defects), which
    changes nothing in the time.
    """

    def __init__(self, metric: PosteriorMetric) -> None:
        self.centroids, self.rho = metric.means, metric.rho
        self.inverse_covariances = torch.diag_embed(metric.variances.reciprocal())
        self.floor = metric.regularization * torch.eye(DIM)

    def tensor(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return G, the terms of its sum ``(chains, N, d, d)``, and Sigma_i^-1 (z - mu_i)."""
        difference = z[:, None] - self.centroids
        scaled = (self.inverse_covariances @ difference[..., None])[..., 0]
        weights = torch.exp(-(difference * scaled).sum(-1) / self.rho**2)
        terms = self.inverse_covariances * weights[..., None, None]
        return terms.sum(1) + self.floor, terms, scaled

    def log_volume(self, z: torch.Tensor) -> torch.Tensor:
        return 0.5 * torch.logdet(self.tensor(z)[0])

    def gradient(self, z: torch.Tensor) -> torch.Tensor:
        """Return 1/2 tr(G^-1 dG/dz_k) for every k."""
        tensor, terms, scaled = self.tensor(z)
        traces = (torch.linalg.inv(tensor)[:, None] @ terms).diagonal(dim1=-2, dim2=-1).sum(-1)
        return -(traces[..., None] * scaled).sum(1) / self.rho**2

    @torch.no_grad()
    def sample(self, z: torch.Tensor, num_steps: int) -> None:
        """Alg. 5: two gradients in each leapfrog step."""
        generator = torch.Generator().manual_seed(0)
        for _ in range(num_steps):
            z0, v = z, torch.randn(z.shape, generator=generator)
            start = self.log_volume(z) - 0.5 * v.square().sum(-1)
            for _ in range(LEAPFROG):
                half = v + 0.5 * STEP_SIZE * self.gradient(z)
                z = z + STEP_SIZE * half
                v = half + 0.5 * STEP_SIZE * self.gradient(z)
            end = self.log_volume(z) - 0.5 * v.square().sum(-1)
            accepted = torch.rand(len(z), generator=generator) < torch.exp(end - start)
            z = torch.where(accepted[:, None], z, z0)


def validate(metric: PosteriorMetric, published: Published) -> None:
    """Check that the published gradient and ours are the same."""
    with torch.no_grad():
        z = metric.means[:5] + 0.1
        torch.testing.assert_close(
            metric.log_volume_grad(z), published.gradient(z), rtol=1e-3, atol=1e-3
        )


def measure(rounds: int) -> list[Row]:
    few = posteriors(FEW)
    published = Published(few)
    validate(few, published)
    many, sharp = posteriors(MANY), posteriors(MANY, 0.5)
    sharp_few = posteriors(FEW, 0.5)
    with torch.no_grad():
        z = sharp.means[:CHAINS]
        full = sharp.log_volume(z)
        torch.testing.assert_close(NeighbourMetric(sharp).log_volume(z), full, rtol=1e-5, atol=0)
    naive = partial(published.sample, few.means[:NAIVE_CHAINS], 1)
    half = partial(published.sample, few.means[: NAIVE_CHAINS // 2], 1)
    small = interleave(
        {
            "published": naive,
            "published, half": half,
            "ours": lambda: sample(few, few.means),
        },
        rounds,
    )
    scale = CHAINS / NAIVE_CHAINS * STEPS
    linear = small.median("published") / small.median("published, half")
    what = "uniform sampling of a VAE's manifold, 1,000 chains x 10 x 10 leapfrog, d = 16"
    rows = [
        Row(
            f"{what}, N = 1,000: speed",
            "the published algorithm, with (B, N, d, d) tensors",
            [scale * ratio for ratio in small.ratios("published", "ours")],
            300.0,
            detail=f"{small.median('ours'):.2f} against {scale * small.median('published'):.0f} s, "
            f"scaled from {NAIVE_CHAINS} chains x 1 iteration "
            f"(half as many chains: {1 / linear:.2f} of the time)",
        )
    ]
    # Of the first too many weights matter: all are summed, and an iteration is like another.
    for name, scarce, plenty, steps, reach in [
        ("posteriors as of MNIST (1 iteration)", few, many, 1, 3.0),
        ("sigmas halved", sharp_few, sharp, STEPS, None),
    ]:
        large = interleave(
            {
                "few": partial(sample, scarce, scarce.means, steps),
                "many": partial(sample_many, plenty, steps),
            },
            max(1, rounds // 3),
            warmup=0,
        )
        rows.append(
            Row(
                f"{what}, N = 100,000: time, {name}",
                "N = 1,000",
                large.ratios("many", "few"),
                reach,
                sense="<=",
                detail=f"{large.median('many'):.1f} against {large.median('few'):.2f} s",
            )
        )
    rows.append(
        Row(
            f"{what}, N = 100,000: memory that sampling adds to the metric's, sigmas halved",
            "nothing",
            [_peak()],
            None,
            sense="<=",
            unit=" MiB",
            detail="NeighbourMetric, the growth of the process's peak; B x N float64 is 763 MiB",
        )
    )
    return rows


def _peak() -> float:
    """Return the MiB by which sampling raises the peak memory of a process of its own."""
    result = subprocess.run(
        [sys.executable, __file__, "--peak"], capture_output=True, text=True, check=True
    )
    return float(result.stdout)


def _print_peak() -> None:
    metric = posteriors(MANY, 0.5, rho=3.7)  # as by the rule, whose own memory would hide the rest
    before = _high_water_mark()
    sample_many(metric)
    print(_high_water_mark() - before)


def _high_water_mark() -> float:
    """Return the most MiB this process has held; `resource` would count its parent's (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    if "--peak" in sys.argv:
        _print_peak()
    else:
        main(measure, rounds=3)
