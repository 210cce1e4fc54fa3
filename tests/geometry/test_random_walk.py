import math

import pytest
import torch
from scipy import stats
from tests.geometry.quadrature import PLANAR, chi_square, draws

from chartae.errors import ConfigurationError, DataError
from chartae.geometry import ConformalMetric, ConstantMetric, EuclideanMetric, PoincareMetric
from chartae.geometry.mcmc.density import ManifoldDensity
from chartae.geometry.mcmc.leapfrog import generalised_leapfrog
from chartae.geometry.mcmc.walk import random_walk
from chartae.geometry.paths.exponential import exponential_map
from chartae.geometry.paths.wrapped_normal import WrappedNormal


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


planar = pytest.mark.parametrize("metric", PLANAR.values(), ids=PLANAR)
WIDE = torch.tensor([[1.0, 0.4], [0.4, 0.5]], dtype=torch.float64)
SPHERE = ConformalMetric(lambda z: -torch.log1p(z.square().sum(-1) / 4), 2)


# --- the density --------------------------------------------------------------------------------


@planar
def test_the_density_is_high_where_the_data_are(metric):
    density = ManifoldDensity(metric)
    assert density.radius == pytest.approx(float(2 * metric.centroids.norm(dim=-1).max()))
    sign = 1 if metric.volume_is_large_near_data else -1
    z = (0.8 * normal(50, 2)).requires_grad_()
    log_prob, grad = density(z)
    torch.testing.assert_close(log_prob, sign * metric.log_volume(z))
    torch.testing.assert_close(grad, torch.autograd.grad(log_prob.sum(), z)[0])
    torch.testing.assert_close(density.log_prob(z), log_prob)
    rim = torch.tensor([[0.0, 0.99 * density.radius]], dtype=torch.float64)
    assert density.log_prob(metric.centroids).min() > density.log_prob(rim) + 1


def test_the_density_is_nothing_outside():
    density = ManifoldDensity(PoincareMetric(2), radius=2.0)
    log_prob, grad = density(torch.tensor([[0.5, 0.0], [0.0, 1.5], [0.0, 2.5]]))
    assert torch.isfinite(log_prob[0])
    assert (log_prob[1:] == -math.inf).all()
    assert torch.isfinite(grad).all()


def test_a_wall_needs_a_radius():
    with pytest.raises(ConfigurationError, match="radius=None: EuclideanMetric has no centroids"):
        ManifoldDensity(EuclideanMetric(2))
    with pytest.raises(ConfigurationError, match=r"radius=0.0: .* greater than 0"):
        ManifoldDensity(EuclideanMetric(2), radius=0.0)
    lonely = type(PLANAR["posterior"])(torch.zeros(1, 2), torch.ones(1, 2), rho=1.0)
    with pytest.raises(ConfigurationError, match="all centroids are at the origin"):
        ManifoldDensity(lonely)


# --- the integrator -----------------------------------------------------------------------------


def flow(metric, state, **options):
    z, momentum, solved = generalised_leapfrog(metric, *state.chunk(2, -1), **options)
    return torch.cat([z, momentum], -1), solved


@planar
def test_the_leapfrog_is_reversible_and_of_volume_one(metric):
    z = 0.8 * normal(8, 2)
    state = torch.cat([z, metric.at(z).momentum(0.5 * normal(8, 2, seed=1))], -1)
    there, solved = flow(metric, state, num_steps=10)
    assert solved.all()
    flip = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64)
    back, _ = flow(metric, flip * there, num_steps=10)
    torch.testing.assert_close(flip * back, state, atol=1e-8, rtol=0)
    step = 1e-5
    columns = [
        (flow(metric, state + e, num_steps=10)[0] - flow(metric, state - e, num_steps=10)[0])
        / (2 * step)
        for e in step * torch.eye(4, dtype=torch.float64)
    ]
    log_determinant = torch.stack(columns, -1).slogdet().logabsdet
    assert log_determinant.abs().max() < 1e-5
    assert (there - state)[:, :2].norm(dim=-1).min() > 0.05  # and it does move


@planar
def test_the_leapfrog_follows_geodesics_to_second_order(metric):
    z, v = 0.8 * normal(20, 2), 0.1 * normal(20, 2, seed=1)
    exact = exponential_map(metric, z, v, num_steps=500)
    momentum = metric.at(z).momentum(v)
    errors = [
        float((generalised_leapfrog(metric, z, momentum, num_steps=n)[0] - exact).norm())
        for n in (10, 20, 40)
    ]
    assert 1.7 < math.log2(errors[0] / errors[2]) / 2 < 2.3


def test_equations_without_solution_are_reported():
    metric = PLANAR["posterior"]
    z = metric.centroids[:2]
    velocity = torch.tensor([[0.1, 0.0], [math.nan, 0.0]], dtype=torch.float64)
    _, _, solved = generalised_leapfrog(metric, z, metric.at(z).momentum(velocity), num_steps=10)
    assert solved.tolist() == [True, False]
    violent = metric.at(z).momentum(1e3 * normal(2, 2))
    assert not generalised_leapfrog(metric, z, violent, num_steps=2)[2].any()


# --- the random walk ----------------------------------------------------------------------------


@pytest.mark.slow
@planar
@pytest.mark.parametrize("covariance", [0.1, WIDE])
def test_the_exact_walk_keeps_the_density_whatever_the_covariance(metric, covariance):
    density = ManifoldDensity(metric)
    start = draws(density, 1000, generator(1))
    chain = random_walk(
        metric, start, num_steps=4, covariance=covariance, exact=True,
        num_integration_steps=6, generator=generator(),
    )  # fmt: skip
    moved = (chain.final != start).any(-1).double().mean()
    assert moved > 0.6
    assert chi_square(chain.final, density.log_prob, -density.radius, density.radius) > 1e-3


@pytest.mark.slow
@planar
@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_the_exact_walk_of_whitened_velocities_keeps_the_density(metric, scale):
    density = ManifoldDensity(metric)
    start = draws(density, 1000, generator(1))
    chain = random_walk(
        metric, start, num_steps=4, covariance=scale, exact=True, whitened=True,
        num_integration_steps=6, generator=generator(),
    )  # fmt: skip
    moved = (chain.final != start).any(-1).double().mean()
    assert moved > 0.6
    assert chi_square(chain.final, density.log_prob, -density.radius, density.radius) > 1e-3


def test_a_walk_follows_another_density():
    target = torch.distributions.MultivariateNormal(torch.ones(2).double(), WIDE)
    metric = PLANAR["posterior"]
    chain = random_walk(
        metric, target.sample((1000,)), num_steps=4, covariance=0.3, exact=True, whitened=True,
        num_integration_steps=6, log_prob=target.log_prob, generator=generator(),
    )  # fmt: skip
    assert chi_square(chain.final, target.log_prob, -4.0, 6.0) > 1e-3


@planar
def test_the_published_walk_does_not(metric):
    # Not even with small velocities: as many chains leave the density within 40 short steps.
    density = ManifoldDensity(metric)
    start = draws(density, 4000, generator(1))
    chain = random_walk(
        metric, start, num_steps=40, covariance=0.02, num_integration_steps=3, generator=generator()
    )
    assert chain.acceptance.mean() > 0.7
    assert chi_square(chain.final, density.log_prob, -density.radius, density.radius) < 1e-6


@pytest.mark.slow
@planar
def test_the_exact_walk_finds_the_density(metric):
    density = ManifoldDensity(metric)
    start = metric.centroids[torch.arange(1500) % 6]
    chain = random_walk(
        metric, start, num_steps=150, covariance=0.5, exact=True, num_integration_steps=10,
        thinning=150, generator=generator(),
    )  # fmt: skip
    assert chi_square(chain.final, density.log_prob, -density.radius, density.radius) > 1e-3


def test_on_a_flat_space_both_are_the_random_walk_in_a_ball():
    metric = ConstantMetric(torch.tensor([[4.0, 1.0], [1.0, 2.0]], dtype=torch.float64))
    start = torch.zeros(3000, 2, dtype=torch.float64)
    options = {"num_steps": 40, "covariance": WIDE, "radius": 2.0, "num_integration_steps": 2}
    walks = [
        random_walk(metric, start, exact=exact, generator=generator(), **options)
        for exact in (False, True)
    ]
    torch.testing.assert_close(walks[0].samples, walks[1].samples)
    radius = walks[0].final.norm(dim=-1)
    assert radius.max() <= 2
    # Uniform in the disk.
    assert stats.kstest((radius.square() / 4).numpy(), "uniform").pvalue > 1e-3
    first = walks[0].samples[0]
    assert ((first == 0).all(-1) | (first.norm(dim=-1) > 0)).all()


@pytest.mark.parametrize("exact", [False, True])
def test_failures_are_rejections(exact):
    # Velocities that leave the ball in a step or two.
    chain = random_walk(
        PoincareMetric(2), torch.zeros(200, 2), num_steps=10, covariance=100.0, exact=exact,
        num_integration_steps=3, radius=0.9, generator=generator(),
    )  # fmt: skip
    assert torch.isfinite(chain.samples).all()
    assert torch.isfinite(chain.acceptance).all()
    assert chain.samples.norm(dim=-1).max() <= 0.9
    assert (chain.divergences > 0).any()


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_a_walk_returns(exact, dtype):
    metric = type(PLANAR["posterior"])(
        PLANAR["posterior"].means.to(dtype), PLANAR["posterior"].variances.to(dtype), rho=1.5
    )
    start = metric.centroids

    def run(seed=0, **options):
        options = {"num_steps": 5, "covariance": 0.1, "num_integration_steps": 3, **options}
        return random_walk(metric, start, exact=exact, generator=generator(seed), **options)

    chain = run()
    assert chain.samples.shape == (5, 6, 2)
    assert chain.samples.dtype == chain.acceptance.dtype == dtype
    assert chain.acceptance.shape == chain.divergences.shape == (6,)
    assert chain.step_size == 1.0
    assert 0 < chain.acceptance.mean() < 1
    assert (chain.samples == run().samples).all()
    assert (chain.samples != run(seed=1).samples).any()
    assert (run(thinning=2).samples == chain.samples[[0, 2, 4]]).all()
    assert (run(covariance=0.1 * torch.eye(2, dtype=dtype)).samples == chain.samples).all()


@pytest.mark.parametrize("target", [0.3, 0.6])
def test_warm_up_finds_the_scale_of_velocities(target):
    metric = PLANAR["centroid"]
    start = metric.centroids.repeat(50, 1)
    chain = random_walk(
        metric, start, num_steps=20, covariance=WIDE, num_integration_steps=4,
        num_warmup=100, target_acceptance=target, generator=generator(),
    )  # fmt: skip
    assert chain.acceptance.mean().item() == pytest.approx(target, abs=0.08)
    assert chain.step_size != 1.0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"initial": torch.zeros(2)}, DataError, r"initial has shape \(2,\): .* \(chains, d\)"),
        ({"initial": torch.zeros(0, 2)}, DataError, "initial is empty"),
        ({"initial": torch.zeros(3, 3)}, DataError, r"initial has shape \(3, 3\)"),
        ({"initial": torch.full((3, 2), math.nan)}, DataError, "initial has 6 NaN"),
        ({"initial": torch.full((3, 2), 0.65)}, DataError, "3 of 3 states have no finite log den"),
        ({"initial": torch.full((3, 2), 2.0)}, DataError, "3 of 3 points lie outside the domain"),
        ({"num_steps": 0}, ConfigurationError, "num_steps=0: .* at least 1"),
        ({"num_integration_steps": 0}, ConfigurationError, "num_integration_steps=0: .* at leas"),
        ({"num_warmup": -1}, ConfigurationError, "num_warmup=-1: .* at least 0"),
        ({"target_acceptance": 1.0}, ConfigurationError, "target_acceptance=1.0: .* less than 1"),
        ({"thinning": 0}, ConfigurationError, "thinning=0: .* at least 1"),
        ({"covariance": -1.0}, ConfigurationError, "covariance=-1.0: .* greater than 0"),
        ({"covariance": torch.eye(3)}, DataError, r"covariance has shape \(3, 3\): .* \(2, 2\)"),
        ({"covariance": -torch.eye(2)}, DataError, "covariance: 1 of 1 are not symmetric positiv"),
        ({"radius": None}, ConfigurationError, "radius=None: PoincareMetric has no centroids"),
        ({"log_prob": len}, ConfigurationError, "radius=0.9: expected None with log_prob"),
        ({"whitened": True}, ConfigurationError, "whitened=True: expected exact=True too"),
        (
            {"whitened": True, "exact": True, "covariance": torch.eye(2)},
            ConfigurationError,
            r"whitened=True, covariance of shape \(2, 2\): expected a number",
        ),
    ],
)
def test_bad_arguments_are_refused(change, error, message):
    arguments = {
        "initial": torch.zeros(3, 2), "num_steps": 2, "covariance": 0.1, "radius": 0.9, **change,
    }  # fmt: skip
    with pytest.raises(error, match=message):
        random_walk(PoincareMetric(2), arguments.pop("initial"), **arguments)


# --- the wrapped normal -------------------------------------------------------------------------

MEAN = torch.tensor([0.2, -0.1], dtype=torch.float64)


def test_on_a_flat_space_it_is_the_normal():
    metric = ConstantMetric(torch.tensor([[4.0, 1.0], [1.0, 2.0]], dtype=torch.float64))
    wrapped = WrappedNormal(metric, MEAN, WIDE, num_steps=5)
    law = torch.distributions.MultivariateNormal(MEAN, WIDE)
    z = law.sample((3, 7))
    torch.testing.assert_close(wrapped.log_prob(z), law.log_prob(z))
    samples = wrapped.sample(4000, generator())
    torch.testing.assert_close(samples.mean(0), MEAN, atol=0.06, rtol=0)
    torch.testing.assert_close(torch.cov(samples.mT), WIDE, atol=0.08, rtol=0)


@pytest.mark.parametrize("name", ["ball", "sphere"])
def test_closed_forms_at_the_origin(name):
    # Exp_0(v) = f(|v|) v / |v|, so |det D Exp| = f'(s) f(s) / s at s = |v|.
    metric = {"ball": PoincareMetric(2), "sphere": SPHERE}[name]
    v = 0.4 * normal(20, 2)
    s = v.norm(dim=-1)
    if name == "ball":
        reach, slope = s.tanh(), 1 - s.tanh().square()
    else:
        reach, slope = 2 * (s / 2).tan(), 1 + (s / 2).tan().square()
    law = torch.distributions.MultivariateNormal(torch.zeros(2).double(), 0.2 * WIDE)
    wrapped = WrappedNormal(metric, torch.zeros(2).double(), 0.2 * WIDE, num_steps=300)
    log_prob = wrapped.log_prob((reach / s)[:, None] * v)
    torch.testing.assert_close(
        log_prob, law.log_prob(v) - (slope * reach / s).log(), atol=1e-3, rtol=0
    )


GENTLE = type(PLANAR["centroid"])(
    torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.2]], dtype=torch.float64),
    torch.tensor([0.3, 0.5, 0.4], dtype=torch.float64)[:, None, None] * torch.eye(2).double(),
    1.5,
    1.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "covariance", "reach"),
    [(GENTLE, 0.2 * WIDE, 3.5), (PoincareMetric(2), 0.05, 0.98), (SPHERE, 0.2 * WIDE, 4.0)],
    ids=["gentle", "ball", "sphere"],
)
def test_the_density_integrates_to_one_and_is_that_of_the_samples(metric, covariance, reach):
    wrapped = WrappedNormal(metric, MEAN, covariance, num_steps=20)
    step = 2 * reach / 24
    ticks = torch.arange(24, dtype=torch.float64) * step + step / 2 - reach
    grid = torch.cartesian_prod(ticks, ticks)
    grid = grid[metric.contains(grid)]
    log_prob = wrapped.log_prob(grid)
    assert float(log_prob.exp().sum() * step**2) == pytest.approx(1.0, abs=3e-3)
    # Moments, and the mean log density, against those of samples.
    weights = log_prob.softmax(0)
    samples = wrapped.sample(4000, generator())
    mean = weights @ grid
    deviation = (weights @ (grid - mean).square()).sqrt()
    assert ((samples.mean(0) - mean).abs() < 4 * deviation / 4000**0.5).all()
    torch.testing.assert_close(samples.std(0), deviation, atol=0, rtol=0.05)
    entropy = -float(wrapped.log_prob(samples[:400]).mean())
    assert entropy == pytest.approx(-float(weights @ log_prob), abs=0.2)


def test_the_wrapped_normal_refuses_bad_arguments():
    metric = PoincareMetric(2)
    with pytest.raises(DataError, match="mean: 1 of 1 points lie outside the domain"):
        WrappedNormal(metric, torch.ones(2), 1.0)
    with pytest.raises(DataError, match=r"mean has shape \(3, 2\): expected \(2\)"):
        WrappedNormal(metric, torch.zeros(3, 2), 1.0)
    with pytest.raises(DataError, match="covariance: 1 of 1 are not symmetric positive definite"):
        WrappedNormal(metric, torch.zeros(2), torch.tensor([[1.0, 2.0], [2.0, 1.0]]))
    with pytest.raises(ConfigurationError, match="num_steps=0: .* at least 1"):
        WrappedNormal(metric, torch.zeros(2), 1.0, num_steps=0)
    with pytest.raises(ConfigurationError, match="n=0: .* at least 1"):
        WrappedNormal(metric, torch.zeros(2), 1.0).sample(0)
    with pytest.raises(DataError, match="z: 1 of 1 points lie outside the domain"):
        WrappedNormal(metric, torch.zeros(2), 1.0).log_prob(torch.ones(1, 2))


def test_the_same_seed_gives_the_same_samples():
    wrapped = WrappedNormal(PoincareMetric(2), torch.zeros(2), 0.1)
    first = wrapped.sample(5, generator())
    assert (wrapped.sample(5, generator()) == first).all()
    assert (wrapped.sample(5, generator(1)) != first).any()
    assert first.dtype == torch.float32
