import math

import pytest
import torch
from scipy import stats
from tests.geometry.quadrature import PLANAR, chi_square

from chartae.errors import ConfigurationError, DataError
from chartae.geometry import Jumps, effective_sample_size, hmc, split_r_hat
from chartae.geometry.mcmc.density import ManifoldDensity


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def standard_normal(z):
    return -0.5 * z.square().sum(-1), -z


COVARIANCE = torch.tensor([[1.0, 1.2], [1.2, 4.0]], dtype=torch.float64)
MEAN = torch.tensor([3.0, -1.0], dtype=torch.float64)


def correlated(z):
    precision = torch.linalg.inv(COVARIANCE)
    grad = -(z - MEAN) @ precision
    return 0.5 * ((z - MEAN) * grad).sum(-1), grad


# --- targets ------------------------------------------------------------------------------------


def test_a_correlated_gaussian_with_large_steps():
    # Steps so large that the rejections matter: the integrator must be reversible.
    chain = hmc(
        correlated,
        MEAN.repeat(4000, 1),
        num_steps=15,
        num_leapfrog=3,
        step_size=1.3,
        num_warmup=15,
        generator=generator(),
    )
    assert 0.4 < float(chain.acceptance.mean()) < 0.9
    final = chain.final
    assert ((final.mean(0) - MEAN).abs() < 4 * (COVARIANCE.diag() / 4000).sqrt()).all()
    torch.testing.assert_close(torch.cov(final.mT), COVARIANCE, atol=0.25, rtol=0)
    whitened = torch.linalg.solve_triangular(
        torch.linalg.cholesky(COVARIANCE), (final - MEAN).mT, upper=False
    ).mT
    log_density = lambda z: standard_normal(z)[0]  # noqa: E731
    assert chi_square(whitened, log_density, -5, 5) > 1e-3


@pytest.mark.parametrize("jumping", [False, True], ids=["alone", "with jumps"])
@pytest.mark.parametrize("planar", PLANAR.values(), ids=PLANAR)
def test_the_density_of_a_manifold_against_quadrature(planar, jumping):
    density = ManifoldDensity(planar)
    radius = density.radius
    start = planar.centroids[torch.arange(3000) % 6]
    options = {"num_steps": 40, "num_leapfrog": 10, "num_warmup": 40}
    if jumping:  # from proposals that are rather wrong
        options |= {"num_steps": 8, "num_leapfrog": 3, "num_warmup": 15}
        options["jumps"] = Jumps(density.log_prob, planar.bumps, count=5)
    chain = hmc(density, start, **options, generator=generator())
    assert float(chain.final.norm(dim=-1).max()) <= radius
    assert chain.divergences.sum() == 0
    ticks = torch.linspace(-radius, radius, 301, dtype=torch.float64)
    grid = torch.cartesian_prod(ticks, ticks)
    weights = density.log_prob(grid).softmax(0)
    mean = weights @ grid
    spread = (weights @ (grid - mean).square()).sqrt()
    torch.testing.assert_close(chain.final.mean(0), mean, atol=0.08, rtol=0)
    torch.testing.assert_close(chain.final.std(0), spread, atol=0.05, rtol=0)
    assert chi_square(chain.final, density.log_prob, -radius, radius) > 1e-3


@pytest.mark.parametrize("planar", PLANAR.values(), ids=PLANAR)
def test_the_energy_is_kept_as_the_steps_shrink(planar):
    # Only with the right gradient does the rejection rate vanish, as the square of the step.
    rejected = []
    for step in (0.4, 0.2, 0.1):
        chain = hmc(
            ManifoldDensity(planar, radius=1e6),
            planar.centroids.repeat(100, 1),
            num_steps=5,
            num_leapfrog=round(0.8 / step),
            step_size=step,
            num_warmup=0,
            generator=generator(),
        )
        rejected.append(1 - chain.acceptance.mean().item())
    assert rejected[-1] < 0.01
    assert 1.6 < math.log(rejected[0] / rejected[2]) / math.log(4) < 2.4


def test_a_wall_is_never_crossed():
    # Uniform on the unit disk: the squared radius of independent samples is uniform on [0, 1].
    def disk(z):
        inside = z.square().sum(-1) <= 1
        return torch.where(inside, 0.0, -math.inf).to(z.dtype), torch.zeros_like(z)

    chain = hmc(disk, torch.zeros(2000, 2), num_steps=30, num_leapfrog=3, generator=generator())
    assert float(chain.samples.norm(dim=-1).max()) <= 1
    assert chain.divergences.sum() == 0
    assert stats.kstest(chain.final.square().sum(-1).numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    ("bad", "slope"), [(math.nan, math.nan), (math.inf, math.inf), (math.nan, 0.0), (math.inf, 0.0)]
)
def test_a_density_that_fails_is_a_rejection(bad, slope):
    # Above 1 the density fails, and perhaps the gradient; below, a truncated normal.
    def failing(z):
        log_density, grad = standard_normal(z)
        failed = z[:, 0] > 1
        return torch.where(failed, bad, log_density), torch.where(failed[:, None], slope, grad)

    chain = hmc(failing, torch.zeros(2000, 1), num_steps=40, num_leapfrog=4, generator=generator())
    assert torch.isfinite(chain.samples).all()
    assert float(chain.samples.max()) <= 1
    assert (chain.divergences > 0).any()
    law = stats.truncnorm(-math.inf, 1)
    assert stats.kstest(chain.final[:, 0].numpy(), law.cdf).pvalue > 1e-3


# --- adaptation and diagnostics -----------------------------------------------------------------


@pytest.mark.parametrize("target", [0.6, 0.8, 0.95])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e2])
def test_dual_averaging_hits_the_target_whatever_the_scale(target, scale):
    scales = scale * torch.linspace(0.5, 2.0, 10)  # uneven, so that no period stands out

    def normal(z):
        return -0.5 * (z / scales).square().sum(-1), -z / scales**2

    chain = hmc(
        normal,
        scales * torch.randn(100, 10, generator=generator(1)),
        num_steps=30,
        num_leapfrog=5,
        num_warmup=250,
        target_acceptance=target,
        generator=generator(),
    )
    # Near the limit of stability acceptance falls so fast that the average errs on the safe side.
    tolerance = 0.05 if target >= 0.8 else 0.12
    assert chain.acceptance.mean().item() == pytest.approx(target, abs=tolerance)


def test_divergences_are_counted_and_leave_the_chain_where_it_was():
    def stiff(z):
        return -z.pow(4).sum(-1), -4 * z.pow(3)

    start = torch.tensor([[2.0], [0.0]])
    start[1] = 1e-9
    chain = hmc(
        stiff, start, num_steps=7, num_leapfrog=20, step_size=1.0, num_warmup=0,
        generator=generator(),
    )  # fmt: skip
    assert chain.divergences[0] == 7
    assert (chain.samples[:, 0] == 2.0).all()
    assert chain.acceptance[0] == 0
    assert chain.divergences.dtype == torch.long


def test_the_same_seed_gives_the_same_chain():
    def run(seed, **options):
        start = torch.zeros(5, 3)
        return hmc(standard_normal, start, num_steps=12, generator=generator(seed), **options)

    first = run(0)
    assert (first.samples == run(0).samples).all()
    assert (first.samples != run(1).samples).any()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    run(0)
    assert (torch.get_rng_state() == state).all()
    thinned = run(0, thinning=5).samples
    assert (thinned == first.samples[[1, 6, 11]]).all()
    assert (run(0, thinning=100).final == first.final).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_a_chain_holds(dtype):
    start = torch.zeros(5, 3, dtype=dtype)
    chain = hmc(
        standard_normal, start, num_steps=40, step_size=0.3, num_warmup=3, generator=generator()
    )
    assert chain.samples.shape == (40, 5, 3)
    assert chain.samples.dtype == chain.acceptance.dtype == dtype
    assert (chain.final == chain.samples[-1]).all()
    assert chain.acceptance.shape == chain.divergences.shape == (5,)
    assert ((chain.acceptance > 0) & (chain.acceptance <= 1)).all()
    assert chain.step_size == 0.3
    assert chain.r_hat.shape == chain.effective_sample_size.shape == (3,)
    assert not start.any()


def autoregression(rho, steps, chains, seed=0, d=1):
    noise = torch.randn(steps, chains, d, generator=generator(seed), dtype=torch.float64)
    x = torch.empty_like(noise)
    x[0] = noise[0]
    for t in range(1, steps):
        x[t] = rho * x[t - 1] + math.sqrt(1 - rho**2) * noise[t]
    return x


@pytest.mark.parametrize("rho", [-0.15, 0.0, 0.5, 0.9])
def test_effective_sample_size_of_an_autoregression(rho):
    samples = autoregression(rho, 4000, 8)
    expected = 32000 * (1 - rho) / (1 + rho)
    assert effective_sample_size(samples).item() == pytest.approx(expected, rel=0.15)
    # Coordinates do not disturb each other, nor does a shift or a scale.
    both = torch.cat([5 * samples + 100, autoregression(0.3, 4000, 8, seed=1)], -1)
    torch.testing.assert_close(effective_sample_size(both)[:1], effective_sample_size(samples))


def test_r_hat():
    samples = autoregression(0.5, 2000, 4)
    assert split_r_hat(samples).item() == pytest.approx(1.0, abs=0.01)
    # Chains of variance 1 whose means have variance v: sqrt(1 + v), nearly.
    shift = torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64)[None, :, None]
    between = (shift.repeat(1, 2, 1)).var().item()
    assert split_r_hat(samples + shift).item() == pytest.approx((1 + between) ** 0.5, abs=0.05)
    # A drift that all chains share is seen, thanks to the split.
    drift = torch.linspace(-2, 2, 2000, dtype=torch.float64)[:, None, None]
    assert split_r_hat(samples + drift).item() > 1.3
    assert effective_sample_size(samples + shift).item() < 40


def test_too_few_steps_for_a_diagnostic():
    assert torch.isnan(split_r_hat(torch.randn(3, 5, 2))).all()
    assert torch.isnan(effective_sample_size(torch.randn(3, 5, 2))).all()
    assert split_r_hat(torch.randn(4, 5, 2)).isfinite().all()


# --- arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"initial": torch.zeros(3)}, DataError, r"initial has shape \(3,\): .* \(chains, d\)"),
        ({"initial": torch.zeros(3, 2).long()}, DataError, "initial has dtype torch.int64"),
        ({"initial": torch.zeros(0, 2)}, DataError, "initial is empty"),
        (
            {"initial": torch.full((3, 2), math.nan)},
            DataError,
            "initial: 3 of 3 states have no fin",
        ),
        ({"num_steps": 0}, ConfigurationError, "num_steps=0: .* at least 1"),
        ({"num_leapfrog": 0}, ConfigurationError, "num_leapfrog=0: .* at least 1"),
        ({"num_warmup": -1}, ConfigurationError, "num_warmup=-1: .* at least 0"),
        ({"thinning": 0}, ConfigurationError, "thinning=0: .* at least 1"),
        ({"step_size": 0.0}, ConfigurationError, "step_size=0.0: .* greater than 0"),
        ({"target_acceptance": 1.0}, ConfigurationError, "target_acceptance=1.0: .* less than 1"),
    ],
)
def test_bad_arguments_are_refused(change, error, message):
    arguments = {"initial": torch.zeros(3, 2), "num_steps": 2, **change}
    with pytest.raises(error, match=message):
        hmc(standard_normal, arguments.pop("initial"), **arguments)
