"""The sphere's metric against great circles in R^(d+1), and its uniform law."""

import math

import pytest
import torch
from scipy import integrate, stats

import chartae
from chartae.errors import ConfigurationError
from chartae.geometry import (
    ConformalMetric,
    ManifoldDensity,
    PoincareMetric,
    SphereMetric,
    WrappedNormal,
    distance,
    exponential_map,
    frechet_mean,
    geodesic,
    hmc,
    kmeans,
    logarithmic_map,
    parallel_transport,
    random_walk,
    shortest_paths,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def uniform(n, metric, seed=0):
    """Points of the sphere in R^(d+1), by definition uniform."""
    points = torch.randn(n, metric.dim + 1, generator=generator(seed), dtype=torch.float64)
    return metric.radius * points / points.norm(dim=-1, keepdim=True)


def height_p_values(z):
    """Of the unit sphere in R^3: each coordinate of a uniform point is uniform in [-1, 1]."""
    points = SphereMetric(2).to_sphere(z.double())
    return [stats.kstest(column.numpy(), "uniform", args=(-1, 2)).pvalue for column in points.mT]


SPHERES = [SphereMetric(1), SphereMetric(2), SphereMetric(5, radius=2.5)]
spheres = pytest.mark.parametrize("metric", SPHERES, ids=["1", "2", "5, radius 2.5"])


# --- great circles --------------------------------------------------------------------------------


@spheres
def test_geodesics_are_great_circles(metric):
    a, b = uniform(300, metric, 0), uniform(300, metric, 1)
    x, y, radius = metric.to_chart(a), metric.to_chart(b), metric.radius
    torch.testing.assert_close(metric.to_sphere(x), a)
    angle = 2 * ((a - b).norm(dim=-1) / (2 * radius)).asin()
    torch.testing.assert_close(distance(metric, x, y), radius * angle)
    times = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]
    path = metric.to_sphere(geodesic(metric, x, y, num_points=9))
    wide = angle[:, None, None]
    arc = ((1 - times) * wide).sin() * a[:, None] + (times * wide).sin() * b[:, None]
    torch.testing.assert_close(path, arc / wide.sin(), atol=1e-9, rtol=0)
    v = logarithmic_map(metric, x, y)
    torch.testing.assert_close(metric.norm(x, v), radius * angle)
    torch.testing.assert_close(metric.to_sphere(exponential_map(metric, x, v)), b)
    # Once around.
    around = v * (2 * math.pi / angle)[:, None]
    torch.testing.assert_close(metric.to_sphere(exponential_map(metric, x, around)), a)


def test_formulas_agree_with_solvers():
    metric = SphereMetric(3, radius=1.5)
    solved = ConformalMetric(metric.log_potential, 3)
    a, b = 1.2 * torch.rand(2, 20, 3, generator=generator(), dtype=torch.float64) - 0.6
    paths, found = shortest_paths(metric, a, b), shortest_paths(solved, a, b)
    torch.testing.assert_close(paths.lengths, found.lengths, rtol=1e-3, atol=0)
    torch.testing.assert_close(paths.points, found.points, rtol=0, atol=5e-3)
    v = logarithmic_map(metric, a, b)
    torch.testing.assert_close(
        exponential_map(metric, a, v), exponential_map(solved, a, v, num_steps=300),
        rtol=0, atol=1e-4,
    )  # fmt: skip


def test_antipodes_and_the_missing_pole():
    metric = SphereMetric(2)
    east = torch.tensor([1.0, 0.0], dtype=torch.float64)
    paths = shortest_paths(metric, east, -east, num_points=6)
    assert float(paths.lengths) == pytest.approx(math.pi)
    steps = distance(metric, paths.points[:-1], paths.points[1:])
    torch.testing.assert_close(steps, torch.full_like(steps, math.pi / 5))
    # Far from the origin, next to the pole, nothing is lost.
    far = torch.tensor([1e5, 2e5], dtype=torch.float64)
    assert float(distance(metric, far, far * 1.001)) == pytest.approx(
        2 * (math.atan(5**0.5 * 1.001e5) - math.atan(5**0.5 * 1e5)), rel=1e-6
    )
    torch.testing.assert_close(
        exponential_map(metric, far, logarithmic_map(metric, far, 1.001 * far)), 1.001 * far
    )
    assert (logarithmic_map(metric, far, far) == 0).all()
    assert float(distance(metric, far, far)) == 0
    # A geodesic to the pole ends next to it.
    there = exponential_map(metric, 0 * east, 0.5 * math.pi * east)
    assert float(metric.to_sphere(there)[2]) == pytest.approx(1.0)


def test_parallel_transport_keeps_norms_and_turns_by_the_area():
    metric = SphereMetric(2)
    angles = torch.linspace(0, 2 * math.pi, 2001, dtype=torch.float64)
    parallel = 0.5 * torch.stack([angles.cos(), angles.sin()], -1)  # a circle of latitude
    v = torch.tensor([0.7, -0.2], dtype=torch.float64)
    moved = parallel_transport(metric, parallel, v)
    norms = metric.norm(parallel, moved)
    torch.testing.assert_close(norms, norms[0].expand_as(norms), rtol=1e-5, atol=0)
    # The cap's area, 2 pi (1 - cos of its angle), is the holonomy.
    height = float(metric.to_sphere(parallel[0])[2])
    turn = 2 * math.pi * (1 + height)
    cos, sin = math.cos(turn), math.sin(turn)
    expected = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64) @ v
    torch.testing.assert_close(moved[-1], expected, atol=1e-4, rtol=0)


# --- volume and uniform law -----------------------------------------------------------------------


@pytest.mark.parametrize(("dim", "radius", "volume"), [
    (1, 2.0, 4 * math.pi), (2, 1.5, 9 * math.pi), (3, 1.0, 2 * math.pi**2),
])  # fmt: skip
def test_the_volume_is_that_of_the_sphere(dim, radius, volume):
    metric = SphereMetric(dim, radius)
    assert metric.total_volume == pytest.approx(volume)

    def shell(r):
        z = torch.zeros(dim, dtype=torch.float64)
        z[0] = r
        area = 2 * math.pi ** (dim / 2) / math.gamma(dim / 2)
        return area * r ** (dim - 1) * float(metric.log_volume(z).exp())

    assert integrate.quad(shell, 0, math.inf)[0] == pytest.approx(volume, rel=1e-6)


def test_the_density_is_uniform_without_a_wall():
    metric = SphereMetric(2)
    density = ManifoldDensity(metric)
    z = metric.to_chart(uniform(50, metric)).requires_grad_()
    log_prob, grad = density(z)
    torch.testing.assert_close(log_prob, metric.log_volume(z))
    torch.testing.assert_close(grad, torch.autograd.grad(log_prob.sum(), z)[0])


def test_chains_are_uniform_on_the_sphere():
    metric = SphereMetric(2)
    chain = hmc(
        ManifoldDensity(metric), torch.zeros(2000, 2), num_steps=100, num_warmup=30,
        num_leapfrog=5, generator=generator(),
    )  # fmt: skip
    assert min(height_p_values(chain.final)) > 1e-3


@pytest.mark.parametrize("whitened", [False, True])
def test_the_exact_walk_keeps_the_uniform_law(whitened):
    metric = SphereMetric(2)
    start = metric.to_chart(uniform(1500, metric))
    chain = random_walk(
        metric, start, num_steps=5, covariance=0.2, exact=True, whitened=whitened,
        num_integration_steps=5, generator=generator(),
    )  # fmt: skip
    moved = distance(metric, start, chain.final)
    assert moved.median() > 0.3
    assert min(height_p_values(chain.final)) > 1e-3


def test_the_volume_sampler_of_a_spherical_model_is_uniform():
    class Ball(chartae.VAE):
        metric = SphereMetric(2)

    sampler = chartae.VolumeSampler(Ball((4,), 2), target="volume", num_steps=100)
    assert min(height_p_values(sampler.fit().sample_latents(1500, seed=0))) > 1e-3


# --- statistics and the wrapped normal ------------------------------------------------------------


def test_means_and_clusters():
    metric = SphereMetric(2)
    poles = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.8]], dtype=torch.float64)
    noise = 0.15 * torch.randn(2, 20, 3, generator=generator(), dtype=torch.float64)
    points = poles[:, None] + torch.cat([noise, -noise], 1)  # symmetric about the pole, nearly
    z = metric.to_chart(points / points.norm(dim=-1, keepdim=True))
    means = frechet_mean(metric, z)
    logarithms = logarithmic_map(metric, means[:, None], z)
    assert metric.norm(means, logarithms.mean(1)).max() < 1e-3
    found = kmeans(metric, z.flatten(0, 1), 2, seed=0)
    assert len(set(found.labels[:40].tolist())) == len(set(found.labels[40:].tolist())) == 1
    gaps = distance(metric, found.centers[:, None], means)
    assert gaps.min(1).values.max() < 1e-2


def test_the_wrapped_normal_integrates_to_one_below_the_cut_locus():
    metric = SphereMetric(2)
    mean, variance = torch.tensor([0.4, -0.2], dtype=torch.float64), 0.5
    # In the chart, so that a velocity's Riemannian variance is that times the factor squared.
    factor = float(metric.tensor(mean)[0, 0])
    wrapped = WrappedNormal(metric, mean, variance / factor)
    # Polar coordinates of the sphere, rho = cot of half the angle from the pole.
    count = 80
    polar = (torch.arange(count, dtype=torch.float64) + 0.5) * (math.pi / count)
    turns = (torch.arange(count, dtype=torch.float64) + 0.5) * (2 * math.pi / count)
    polar, turns = (values.flatten() for values in torch.meshgrid(polar, turns, indexing="ij"))
    rho = (polar / 2).tan()
    z = torch.stack([rho * turns.cos(), rho * turns.sin()], -1)
    # The chart's area element, in the angle and the turn.
    area = rho * 0.5 * (1 + rho.square()) * (math.pi / count) * (2 * math.pi / count)
    mass = float((wrapped.log_prob(z).exp() * area).sum())
    # Velocities longer than pi pass the cut locus, and are not counted.
    assert mass == pytest.approx(1 - math.exp(-(math.pi**2) / (2 * variance)), abs=1e-3)


@pytest.mark.parametrize("metric", [SphereMetric(2), PoincareMetric(2)], ids=["sphere", "ball"])
def test_the_wrapped_normal_has_a_density_at_its_mean(metric):
    mean = torch.tensor([0.1, 0.3], dtype=torch.float64)
    wrapped = WrappedNormal(metric, mean, 0.3)
    assert float(wrapped.log_prob(mean)) == pytest.approx(-math.log(2 * math.pi * 0.3))


def test_bad_arguments_are_refused():
    with pytest.raises(ConfigurationError, match="dim=0: .* at least 1"):
        SphereMetric(0)
    with pytest.raises(ConfigurationError, match=r"radius=0.0: .* greater than 0"):
        SphereMetric(2, radius=0.0)
