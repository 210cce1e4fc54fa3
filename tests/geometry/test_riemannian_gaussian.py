"""The Riemannian Gaussian: its constants, its gradient, and its draws against quadrature."""

import math

import pytest
import torch
from scipy import integrate
from tests.geometry.quadrature import PLANAR, chi_square

from chartae.distributions import RiemannianNormal
from chartae.errors import ConfigurationError, DataError
from chartae.geometry import (
    ConstantMetric,
    EuclideanMetric,
    PoincareMetric,
    RiemannianGaussian,
    SphereMetric,
    hmc,
)

MEAN = torch.tensor([0.2, -0.1], dtype=torch.float64)
SKEWED = ConstantMetric(torch.tensor([[4.0, 1.0], [1.0, 2.0]], dtype=torch.float64))


class Unnamed(PoincareMetric):
    """The hyperbolic plane, whose curvature is not told."""

    sectional_curvature = None


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_on_a_flat_space_it_is_the_normal():
    law = torch.distributions.MultivariateNormal(MEAN, precision_matrix=SKEWED.matrix / 0.7**2)
    z = law.sample((20,))
    for measure in ("riemannian", "lebesgue"):
        gaussian = RiemannianGaussian(SKEWED, MEAN, 0.7, measure=measure)
        log_prob = gaussian.log_prob(z) - gaussian.log_normaliser()
        torch.testing.assert_close(log_prob, law.log_prob(z), atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [0.3, 1.0, 30.0])
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_constants_of_spheres(dim, scale):
    radius = 1.5

    def kernel(r):
        sine = radius * math.sin(r / radius)
        return math.exp(-0.5 * (r / scale) ** 2) * sine ** (dim - 1)

    area = 2 * math.pi ** (dim / 2) / math.gamma(dim / 2)
    expected = area * integrate.quad(kernel, 0, math.pi * radius)[0]
    gaussian = RiemannianGaussian(SphereMetric(dim, radius), torch.zeros(dim).double(), scale)
    assert gaussian.log_normaliser() == pytest.approx(math.log(expected), abs=1e-9)


def test_constant_of_the_hyperbolic_plane():
    scale, c = 0.7, 2.0
    error = math.erf(scale * math.sqrt(c / 2))  # Said et al. (2014), eq. 15
    expected = math.pi * math.sqrt(2 * math.pi / c) * scale * math.exp(c * scale**2 / 2) * error
    for metric in (PoincareMetric(2, c), Unnamed(2, c)):
        gaussian = RiemannianGaussian(metric, MEAN, scale)
        assert gaussian.log_normaliser(60) == pytest.approx(math.log(expected), abs=1e-3)
    normal = RiemannianNormal(MEAN, torch.tensor(scale).double(), c)
    z = MEAN + 0.2 * torch.randn(20, 2, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(
        gaussian.log_prob(z) - math.log(expected),
        normal.log_prob(z) + gaussian.metric.log_volume(z),
        atol=1e-6,
        rtol=0,
    )


@pytest.mark.parametrize("measure", ["riemannian", "lebesgue"])
@pytest.mark.parametrize("name", [*PLANAR, "sphere"])
def test_its_gradient_is_that_of_its_density(name, measure):
    metric = PLANAR.get(name, SphereMetric(2))
    if name == "sphere" and measure == "lebesgue":
        pytest.skip("refused")
    gaussian = RiemannianGaussian(metric, MEAN, 0.8, measure=measure, num_points=41)
    z = 0.5 * torch.randn(10, 2, generator=generator(), dtype=torch.float64)
    _, grad = gaussian(z)
    step = 1e-3
    shifts = step * torch.eye(2, dtype=torch.float64)
    slopes = [(gaussian.log_prob(z + e) - gaussian.log_prob(z - e)) / (2 * step) for e in shifts]
    slopes = torch.stack(slopes, -1)
    assert float((grad - slopes).norm()) < 0.02 * float(slopes.norm())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "measure"), [("centroid", "lebesgue"), ("posterior", "riemannian")]
)
def test_draws_of_learned_metrics_follow_the_density(name, measure):
    metric = PLANAR[name]
    gaussian = RiemannianGaussian(metric, 0.8 * metric.centroids[0], 0.7, measure=measure)
    samples = gaussian.sample(500, num_steps=20, num_warmup=15, generator=generator())
    assert chi_square(samples, gaussian.log_prob, -2.5, 2.5, fine=12) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "reach"), [(Unnamed(2), 0.97), (SKEWED, 2.5)], ids=["ball", "flat"]
)
def test_draws_follow_the_density(metric, reach):
    gaussian = RiemannianGaussian(metric, MEAN, 0.8)
    chain = gaussian.chains(600, num_steps=20, num_warmup=15, generator=generator())
    assert chi_square(chain.final, gaussian.log_prob, -reach, reach) > 1e-3
    start = MEAN.expand(600, 2)
    chain = hmc(gaussian, start, num_steps=15, num_warmup=20, num_leapfrog=4, generator=generator())
    assert chi_square(chain.final, gaussian.log_prob, -reach, reach) > 1e-3


@pytest.mark.slow
def test_draws_on_the_sphere_have_the_law_of_the_distance():
    metric, scale = SphereMetric(2), 0.8
    mean = torch.tensor([0.9, 0.3], dtype=torch.float64)
    samples = RiemannianGaussian(metric, mean, scale).sample(1000, generator=generator())
    cosine = (metric.to_sphere(samples) @ metric.to_sphere(mean)).numpy()
    kernel = lambda c: math.exp(-0.5 * (math.acos(c) / scale) ** 2)  # noqa: E731
    total = integrate.quad(kernel, -1, 1)[0]
    expected = integrate.quad(lambda c: c * kernel(c), -1, 1)[0] / total
    assert cosine.mean() == pytest.approx(expected, abs=4 * cosine.std() / 1000**0.5)


def test_a_coarse_grid_is_reported(caplog):
    RiemannianGaussian(Unnamed(2), MEAN, 1.0).log_normaliser(6)
    assert "raise num_points=6" in caplog.text


def test_chains_that_have_not_mixed_are_reported(caplog):
    gaussian = RiemannianGaussian(EuclideanMetric(2), torch.zeros(2), 1.0)
    generator = torch.Generator().manual_seed(0)
    gaussian.sample(200, generator=generator)
    assert not caplog.records
    gaussian.sample(20, num_steps=2, num_warmup=0, generator=generator)
    assert "have not mixed (R-hat" in caplog.text


def test_outside_it_is_nothing():
    gaussian = RiemannianGaussian(PoincareMetric(2), MEAN, 1.0)
    log_prob, grad = gaussian(torch.tensor([[0.5, 0.0], [2.0, 0.0]], dtype=torch.float64))
    assert torch.isfinite(log_prob[0])
    assert log_prob[1] == -math.inf
    assert torch.isfinite(grad).all()


def test_bad_arguments_are_refused():
    with pytest.raises(DataError, match="mean: 1 of 1 points lie outside the domain"):
        RiemannianGaussian(PoincareMetric(2), torch.ones(2), 1.0)
    with pytest.raises(ConfigurationError, match=r"scale=0.0: .* greater than 0"):
        RiemannianGaussian(EuclideanMetric(2), MEAN, 0.0)
    with pytest.raises(ConfigurationError, match="measure='counting' is not known"):
        RiemannianGaussian(EuclideanMetric(2), MEAN, 1.0, measure="counting")
    with pytest.raises(ConfigurationError, match="measure='lebesgue': on SphereMetric"):
        RiemannianGaussian(SphereMetric(2), MEAN, 1.0, measure="lebesgue")
    with pytest.raises(ConfigurationError, match="in 3 dimensions: expected at most 2"):
        RiemannianGaussian(
            EuclideanMetric(3), torch.zeros(3), 1.0, measure="lebesgue"
        ).log_normaliser()
