"""Uniform sampling of a VAE's manifold: the published algorithm, and chains that jump.

1,000 chains x 10 iterations x 10 leapfrog steps of 0.01 (thesis, Alg. 5), d = 16, chains started at
centroids. The posteriors are synthetic, with the statistics of those of a VAE trained on the 60,000
images of MNIST (`thesis/mnist`, Bernoulli, 20 epochs): all 16 coordinates active, means about
N(0, I) in ten clusters, each coordinate's typical sigma between 0.14 and 0.40 (0.24 overall), and a
spread of log sigma of 0.25 about it. rho is by the thesis' rule.

Chains that jump, the volume of `VolumeSampler`, are compared with the same Hamiltonian Monte Carlo
without jumps, 200 steps of 10 leapfrog steps after 50 of adaptation, from the codes: effective
samples a second of the worst coordinate, on these posteriors and on the metric of an RHVAE trained
on 20 digits.
"""

import math
from functools import partial

import torch
from harness import Row, interleave, main

import chartae
from chartae.data import digits
from chartae.geometry import Chain, ManifoldDensity, Metric, PosteriorMetric, hmc

CHAINS, STEPS, LEAPFROG, DIM, STEP_SIZE = 1000, 10, 10, 16, 0.01
FEW = 1000
NAIVE_CHAINS = 50
"""Chains of the published algorithm: of all 1,000 a gradient takes 1 GB, and the run minutes."""


def posteriors(number: int) -> PosteriorMetric:
    """Return the metric of ``number`` posteriors; rho by the rule."""
    generator = torch.Generator().manual_seed(0)
    centres = 0.6 * torch.randn(10, DIM, generator=generator)
    label = torch.randint(10, (number,), generator=generator)
    means = centres[label] + 0.8 * torch.randn(number, DIM, generator=generator)
    typical = torch.linspace(math.log(0.14), math.log(0.40), DIM)
    sigmas = (typical + 0.25 * torch.randn(number, DIM, generator=generator)).exp()
    return PosteriorMetric(means, sigmas.square())


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
    for name, sampler in {
        "1,000 posteriors, d = 16": posterior_sampler(few),
        "RHVAE of 20 digits, d = 8": rhvae_sampler(),
    }.items():
        metric = sampler.metric
        chains: dict[str, Chain] = {}
        times = interleave(
            {
                "before": partial(without_jumps, metric, chains),
                "now": partial(with_jumps, sampler, chains),
            },
            max(1, rounds // 3),
            warmup=0,
        )
        sizes = {k: float(chain.effective_sample_size.min()) for k, chain in chains.items()}
        gain = sizes["now"] / sizes["before"]
        mixed = {k: float(chain.r_hat.max()) for k, chain in chains.items()}
        rows += [
            Row(
                f"volume of {name}: effective samples a second",
                "chains without jumps",
                [gain * ratio for ratio in times.ratios("before", "now")],
                3.0,
                detail=f"R-hat {mixed['now']:.2f} against {mixed['before']:.2f}",
            ),
            Row(
                f"volume of {name}: time of 1,000 latents",
                "chains without jumps",
                times.ratios("now", "before"),
                1.0,
                sense="<=",
                detail=f"{times.median('now'):.2f} against {times.median('before'):.2f} s",
            ),
        ]
    return rows


def posterior_sampler(metric: PosteriorMetric) -> chartae.VolumeSampler:
    """Return the sampler of a metric, as if it had been fitted to posteriors."""
    sampler = chartae.VolumeSampler(chartae.VAE((4,), DIM), target="volume")
    sampler.means, sampler.variances = metric.means, metric.variances
    sampler.fitted_rho = metric.means.new_tensor([metric.rho])
    return sampler


def rhvae_sampler() -> chartae.VolumeSampler:
    """Return the sampler of the metric that an augmenter learns of a class."""
    data = digits().of_class("3").subset(range(20))
    augmenter = chartae.Augmenter(sampler_options={"target": "volume"}).fit(data)
    sampler = augmenter.samplers_["3"]
    assert isinstance(sampler, chartae.VolumeSampler)
    return sampler


def without_jumps(metric: Metric, chains: dict[str, Chain]) -> None:
    """Run the chains of `VolumeSampler` before there were jumps."""
    generator = torch.Generator().manual_seed(0)
    codes = metric.landmarks
    start = codes[torch.randint(len(codes), (CHAINS,), generator=generator)]
    options = {"num_steps": 200, "num_leapfrog": 10, "num_warmup": 50}
    chains["before"] = hmc(ManifoldDensity(metric), start, **options, generator=generator)


def with_jumps(sampler: chartae.VolumeSampler, chains: dict[str, Chain]) -> None:
    """Draw latents with the defaults."""
    sampler.sample_latents(CHAINS, seed=0)
    assert sampler.diagnostics is not None
    chains["now"] = sampler.diagnostics


if __name__ == "__main__":
    main(measure, rounds=3)
