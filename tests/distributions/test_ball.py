import math

import numpy as np
import pytest
import torch
from mpmath import mp
from scipy import integrate, special, stats
from torch.distributions import Normal

from chartae import distributions, geometry
from chartae.distributions import (
    PoincareNormal,
    PoincareNormalHead,
    RiemannianNormal,
    RiemannianNormalHead,
    ball_point,
)
from chartae.distributions.ball import RadiusLaw, _exponential, _logarithm, _translate
from chartae.distributions.radial import log_area
from chartae.errors import ConfigurationError
from chartae.geometry import PoincareMetric

CURVATURES = [0.2, 1.0, 3.0]
every_curvature = pytest.mark.parametrize("c", CURVATURES)


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def points(n: int, d: int, c: float, spread: float = 1.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    v = spread * torch.randn(n, d, dtype=torch.float64, generator=generator)
    return ball_point(v, c)


def law_of(family: str, loc: torch.Tensor, c: float):
    """A wrapped normal of unequal scales, or a Riemannian one."""
    if family == "wrapped":
        scale = torch.linspace(0.4, 0.9, loc.shape[-1], dtype=loc.dtype)
        return PoincareNormal(loc, scale, c)
    return RiemannianNormal(loc, loc.new_tensor(0.7), c)


every_family = pytest.mark.parametrize("family", ["wrapped", "riemannian"])


# --- the ball -----------------------------------------------------------------------------------


@every_curvature
def test_formulas_are_geoopts_where_those_hold(c):
    geoopt = pytest.importorskip("geoopt")
    ball = geoopt.PoincareBall(c=torch.tensor(c, dtype=torch.float64))
    x, z = points(200, 3, c, 0.5, seed=1), points(200, 3, c, 0.5, seed=2)
    v = _logarithm(x, z, c)
    torch.testing.assert_close(v.norm(dim=-1), ball.dist(x, z), rtol=1e-8, atol=1e-8)
    tangent = v / ball.lambda_x(x, keepdim=True)
    torch.testing.assert_close(tangent, ball.logmap(x, z), rtol=1e-7, atol=1e-8)
    w = points(200, 3, c, 0.5, seed=3)
    torch.testing.assert_close(_translate(x, w, c), ball.mobius_add(x, w), rtol=1e-9, atol=1e-9)


@every_curvature
@pytest.mark.parametrize("radius", [0.0, 1e-6, 1.0, 5.0, 12.0])
def test_logarithm_undoes_exponential_even_near_the_rim(c, radius):
    x = _exponential(torch.tensor([[radius / math.sqrt(c), 0.0]]).double(), c)
    for length in (0.0, 1e-8, 1e-3, 1.0, 4.0):
        angle = torch.linspace(0, 6, 9, dtype=torch.float64)
        v = length / math.sqrt(c) * torch.stack([angle.cos(), angle.sin()], -1)
        z = _translate(x, _exponential(v, c), c)
        tolerance = 1e-15 * math.exp(radius)  # what a coordinate near the rim can tell
        torch.testing.assert_close(
            _logarithm(x, z, c), v, rtol=1e-9 + 10 * tolerance, atol=1e-15 + 10 * tolerance
        )


def test_points_stay_in_the_ball():
    for dtype in (torch.float32, torch.float64):
        for d in (1, 2, 100):
            for size in (0.0, 1e-30, 1.0, 20.0, 1e10):
                v = (size * torch.ones(d, dtype=dtype)).requires_grad_()
                z = ball_point(v, 0.5)
                assert z.dtype == dtype
                assert 0.5 * float(z.detach().double().square().sum()) < 1.0
                z.sum().backward()
                assert torch.isfinite(v.grad).all()


# --- densities ----------------------------------------------------------------------------------


@every_family
@every_curvature
def test_mass_over_the_disc_is_one(family, c):
    # Polar coordinates at the origin, with the centre elsewhere: the volume is the metric's own.
    q = law_of(family, points(1, 2, c, 0.7)[0], c)
    node, weight = map(torch.as_tensor, special.roots_legendre(200))
    radius, weight = 4.5 * (node + 1.0), 4.5 * weight  # distances up to 9
    angle = torch.arange(256, dtype=torch.float64) * (2 * math.pi / 256)
    directions = torch.stack([angle.cos(), angle.sin()], -1)
    z = _exponential(radius[:, None, None] * directions, c)
    euclidean = z[:, 0].norm(dim=-1)
    speed = 0.5 * (1.0 - c * euclidean.square())  # of the Euclidean radius, in distance
    area = PoincareMetric(2, c).log_volume(z[:, 0]).exp() * euclidean * speed
    density = q.log_prob(z).exp().mean(-1) * 2 * math.pi
    assert float((weight * area * density).sum()) == pytest.approx(1.0, abs=1e-7)


@every_family
def test_mass_over_the_interval_and_the_three_ball_is_one(family):
    c = 0.8
    radius = torch.linspace(0, 9, 4001, dtype=torch.float64)[1:]
    q = law_of(family, torch.tensor([0.3], dtype=torch.float64), c)
    ends = [q.log_prob(_exponential(s * radius[:, None], c)).exp() for s in (1.0, -1.0)]
    assert float(torch.trapezoid(ends[0] + ends[1], radius)) == pytest.approx(1.0, abs=2e-3)
    # In three dimensions: 40 x 40 directions on spheres around the origin.
    q = law_of(family, torch.tensor([0.3, -0.2, 0.4], dtype=torch.float64), c)
    height, weight = map(torch.as_tensor, special.roots_legendre(40))
    angle = torch.arange(40, dtype=torch.float64) * (2 * math.pi / 40)
    width = (1.0 - height.square()).sqrt()[:, None]
    directions = torch.stack(
        [width * angle.cos(), width * angle.sin(), height[:, None].expand(40, 40)], -1
    )
    radius, weights = map(torch.as_tensor, special.roots_legendre(60))
    radius, weights = 3.5 * (radius + 1.0), 3.5 * weights
    z = _exponential(radius[:, None, None, None] * directions, c)
    shell = (q.log_prob(z).exp() * weight[:, None]).sum((1, 2)) * (2 * math.pi / 40)
    area = (torch.sinh(math.sqrt(c) * radius) / math.sqrt(c)).square()
    assert float((weights * area * shell).sum()) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("d", [1, 2, 5, 50, 300])
@pytest.mark.parametrize("sigma", [1e-3, 0.3, 1.0, 20.0])
@pytest.mark.parametrize("c", [1e-8, 1.0, 4.0])
def test_constant_of_the_riemannian_normal(d, sigma, c):
    law = RadiusLaw(number(sigma), d, c)
    with mp.workdps(30):
        root, peak = mp.sqrt(mp.mpf(c)), mp.mpf(law.peak.item())

        def density(r):
            kernel = -(r**2) / (2 * mp.mpf(sigma) ** 2)
            kernel += (d - 1) * mp.log(mp.sinh(root * r) / root) if d > 1 else 0
            return mp.exp(kernel - peak)

        ends = [mp.mpf(edge) for edge in law.edges[::8].tolist()]
        expected = float(peak + mp.log(mp.quad(density, ends, maxdegree=5)))
    assert law.log_mass.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_constant_is_the_published_sum_of_error_functions_where_that_holds():
    # Mathieu et al. (2019), in their appendix: an alternating sum over binomials, here for c = 1.
    for d, sigma in [(2, 0.5), (3, 1.0), (6, 0.8)]:
        total = sum(
            (-1) ** k
            * special.comb(d - 1, k)
            * math.exp(0.5 * (d - 1 - 2 * k) ** 2 * sigma**2)
            * (1 + special.erf((d - 1 - 2 * k) * sigma / math.sqrt(2)))
            for k in range(d)
        )
        expected = math.log(math.sqrt(math.pi / 2) * sigma * total / 2 ** (d - 1))
        assert RadiusLaw(number(sigma), d, 1.0).log_mass.item() == pytest.approx(expected, rel=1e-8)


@every_curvature
def test_wrapped_density_is_the_change_of_variables(c):
    # log N(v) - log |d exp|, the Jacobian by autograd and the volume by the metric.
    loc, metric = points(1, 3, c)[0], PoincareMetric(3, c)
    q = PoincareNormal(loc, torch.tensor([0.3, 0.8, 1.1], dtype=torch.float64), c)
    for seed in range(5):
        v = torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        z = _translate(loc, _exponential(v, c), c)
        jacobian = torch.autograd.functional.jacobian(
            lambda u: _translate(loc, _exponential(u, c), c), v
        )
        base = Normal(torch.zeros(3).double(), q.scale).log_prob(v).sum()
        expected = base - torch.linalg.slogdet(jacobian).logabsdet - metric.log_volume(z)
        torch.testing.assert_close(q.log_prob(z), expected, rtol=1e-9, atol=1e-9)


@every_family
def test_a_flat_ball_has_the_normal(family):
    # As the curvature vanishes the metric is 4 I: a normal of half the scale, in volumes of 2^d.
    loc = torch.tensor([0.3, -0.7, 1.2], dtype=torch.float64)
    q = law_of(family, loc, 1e-9)
    scale = q.scale if family == "wrapped" else q.scale[..., None].expand(3)
    flat = Normal(loc, 0.5 * scale)
    z = loc + 0.5 * torch.randn(20, 3, dtype=torch.float64)
    expected = flat.log_prob(z).sum(-1) - 3 * math.log(2.0)
    torch.testing.assert_close(q.log_prob(z), expected, rtol=1e-6, atol=1e-6)
    torch.manual_seed(0)
    draws = q.rsample((3000,))
    for k in range(3):
        law = stats.norm(float(loc[k]), 0.5 * float(scale[k]))
        assert stats.kstest(draws[:, k], law.cdf).pvalue > 1e-3


# --- samples ------------------------------------------------------------------------------------


@every_family
@every_curvature
def test_samples_have_the_density_that_comes_with_them(family, c):
    torch.manual_seed(0)
    q = law_of(family, points(7, 4, c), c)
    z, log_prob = q.rsample_and_log_prob((50,))
    torch.testing.assert_close(log_prob, q.log_prob(z), rtol=1e-7, atol=1e-6)


@pytest.mark.parametrize(
    ("d", "sigma", "c"),
    [(1, 1.0, 1.0), (2, 0.01, 1.0), (2, 1.0, 1.0), (5, 2.0, 0.5), (60, 1.0, 0.1)],
)
def test_radius_of_the_riemannian_normal_follows_its_law(d, sigma, c):
    torch.manual_seed(0)
    q = RiemannianNormal(points(1, d, c)[0], torch.tensor(sigma, dtype=torch.float64), c)
    z = q.sample((4000,))
    distance = _logarithm(q.loc, z, c).norm(dim=-1)
    r = np.linspace(*(q.room * q.law.edges[[0, -1]]).tolist(), 20_001)[1:]
    kernel = -0.5 * (r / sigma) ** 2 + (d - 1) * (
        math.sqrt(c) * r + np.log1p(-np.exp(-2 * math.sqrt(c) * r))
    )
    cdf = integrate.cumulative_simpson(np.exp(kernel - kernel.max()), x=r, initial=0.0)
    assert stats.kstest(distance, lambda x: np.interp(x, r, cdf / cdf[-1])).pvalue > 1e-3
    sideways = torch.nn.functional.normalize(_logarithm(q.loc, z, c), dim=-1)
    assert float(sideways.mean(0).norm()) < 5 / math.sqrt(4000)


def test_wrapped_samples_are_normal_in_the_tangent_space():
    torch.manual_seed(0)
    q = law_of("wrapped", points(1, 3, 0.7)[0], 0.7)
    v = _logarithm(q.loc, q.sample((4000,)), 0.7)
    for k in range(3):
        assert stats.kstest(v[:, k], stats.norm(0, float(q.scale[k])).cdf).pvalue > 1e-3


# --- gradients ----------------------------------------------------------------------------------


def test_the_pathwise_gradient_of_the_radius_is_exact():
    for d, sigma, c in [(1, 0.5, 1.0), (2, 1.0, 1.0), (5, 2.0, 0.5), (40, 0.3, 2.0)]:
        step, scale, draws = 1e-5 * sigma, number(sigma), []
        for value in (scale, number(sigma - step), number(sigma + step)):
            torch.manual_seed(0)
            draws.append(RadiusLaw(value, d, c).rsample((40,)))
        slopes = torch.stack(
            [torch.autograd.grad(r, scale, retain_graph=True)[0] for r in draws[0]]
        )
        expected = (draws[2] - draws[1]).detach() / (2 * step)
        torch.testing.assert_close(slopes, expected, rtol=1e-5, atol=1e-8)


@every_family
def test_gradients_of_an_expectation_against_finite_differences_of_a_quadrature(family):
    # E f(z) over the disc, f a bump: derivatives in the centre and the scale.
    c, target = 0.6, torch.tensor([0.5, 0.1], dtype=torch.float64)
    node, weight = map(torch.as_tensor, special.roots_legendre(120))
    radius, weight = 4.0 * (node + 1.0), 4.0 * weight
    angle = torch.arange(128, dtype=torch.float64) * (2 * math.pi / 128)
    grid = _exponential(radius[:, None, None] * torch.stack([angle.cos(), angle.sin()], -1), c)
    area = torch.sinh(math.sqrt(c) * radius) / math.sqrt(c) * weight * (2 * math.pi / 128)
    family_of = PoincareNormal if family == "wrapped" else RiemannianNormal

    def bump(z):
        return (-3.0 * (z - target).square().sum(-1)).exp()

    loc = torch.tensor([0.2, -0.3], dtype=torch.float64, requires_grad=True)
    size = [0.5, 0.8] if family == "wrapped" else 0.6
    scale = torch.tensor(size, dtype=torch.float64, requires_grad=True)
    q = family_of(loc, scale, c)
    mean = (area[:, None] * bump(grid) * q.log_prob(grid).exp()).sum()
    expected = torch.cat(
        [g.reshape(-1) for g in torch.autograd.grad(mean, [loc, scale], retain_graph=True)]
    )
    torch.manual_seed(0)
    estimates = []
    for _ in range(25):
        grads = torch.autograd.grad(bump(q.rsample((800,))).mean(), [loc, scale], retain_graph=True)
        estimates.append(torch.cat([g.reshape(-1) for g in grads]))
    stacked = torch.stack(estimates)
    assert ((stacked.mean(0) - expected).abs() < 4.5 * stacked.std(0) / 5).all()


@every_family
def test_gradients_are_finite_at_the_centre_at_the_origin_and_at_the_rim(family):
    for dtype in (torch.float32, torch.float64):
        for size in (0.0, 1e-20, 1.0, 100.0):
            v = torch.tensor([[size, 0.0]], dtype=dtype, requires_grad=True)
            loc = ball_point(v, 1.0)
            scale = torch.ones(2 if family == "wrapped" else (), dtype=dtype, requires_grad=True)
            family_of = PoincareNormal if family == "wrapped" else RiemannianNormal
            q, prior = family_of(loc, scale), family_of(torch.zeros_like(loc), scale.detach())
            torch.manual_seed(0)
            z, log_prob = q.rsample_and_log_prob((20,))
            terms = [z, log_prob, prior.log_prob(z), q.log_prob(q.mean)]
            total = sum(term.sum() for term in terms)
            total.backward()
            assert torch.isfinite(total)
            assert torch.isfinite(v.grad).all()
            assert torch.isfinite(scale.grad).all()


# --- precision and contract ---------------------------------------------------------------------


@every_family
@pytest.mark.parametrize("radius", [0.5, 4.0, 8.0])
def test_float32_near_the_rim(family, radius):
    # The rounding of a point moves it by e^radius roundings, and nothing adds to that.
    torch.manual_seed(0)
    loc = ball_point(torch.tensor([radius, 0.0]), 1.0)
    q, twin = law_of(family, loc, 1.0), law_of(family, loc.double(), 1.0)
    z, log_prob = q.rsample_and_log_prob((500,))
    torch.testing.assert_close(q.log_prob(z), twin.log_prob(z.double()).float())
    exact = law_of(family, loc.double(), 1.0)
    shift = 1e-6 * math.exp(radius)
    error = (log_prob - exact.log_prob(z.double())).abs()
    assert float(error.quantile(0.9)) < shift


@every_family
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_dtypes_and_seeds(family, dtype):
    loc = ball_point(torch.randn(4, 1, 3, dtype=dtype), 0.5)
    scale = torch.rand((2, 3) if family == "wrapped" else (2,), dtype=dtype) + 0.1
    q = (PoincareNormal if family == "wrapped" else RiemannianNormal)(loc, scale, 0.5)
    assert q.batch_shape == (4, 2)
    assert q.mean.shape == (4, 2, 3)
    for shape in ((), (2,), (2, 6)):
        torch.manual_seed(0)
        z, log_prob = q.rsample_and_log_prob(shape)
        torch.manual_seed(0)
        assert (q.sample(torch.Size(shape)) == z).all()
        assert z.shape == (*shape, 4, 2, 3)
        assert log_prob.shape == q.log_prob(z).shape == (*shape, 4, 2)
        assert z.dtype == log_prob.dtype == dtype


def test_bad_arguments_are_refused():
    loc = torch.zeros(4, 3)
    for c in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ConfigurationError, match="curvature=.*: expected a finite number"):
            PoincareNormal(loc, torch.ones(3), c)
    with pytest.raises(ConfigurationError, match=r"scale has shape \(2,\): expected a shape"):
        PoincareNormal(loc, torch.ones(2))
    with pytest.raises(ConfigurationError, match=r"scale has shape \(3,\): expected a shape"):
        RiemannianNormal(loc, torch.ones(3))


@pytest.mark.parametrize("head_class", [PoincareNormalHead, RiemannianNormalHead])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
def test_heads_give_points_of_the_ball_and_finite_densities(head_class, size):
    torch.manual_seed(0)
    head = head_class(6, 3, 2.0)
    features = (size * torch.randn(10, 6)).requires_grad_()
    q = head(features)
    assert (2.0 * q.mean.double().square().sum(-1) < 1.0).all()
    assert (q.scale >= head.floor).all()
    z, log_prob = q.rsample_and_log_prob()
    (log_prob.sum() + z.sum()).backward()
    assert torch.isfinite(log_prob).all()
    assert torch.isfinite(features.grad).all()


def test_area_of_spheres():
    for d, area in [(1, 2.0), (2, 2 * math.pi), (3, 4 * math.pi), (4, 2 * math.pi**2)]:
        assert math.exp(log_area(d)) == pytest.approx(area)


def test_the_wrapped_normal_of_the_metric_has_the_other_base_measure():
    # Lebesgue's measure of the coordinates, in which a unit of length is lambda = 2 at the origin.
    torch.manual_seed(0)
    for c in (0.5, 1.0):
        ours = PoincareNormal(torch.zeros(2).double(), torch.tensor([0.4, 0.8]).double(), c)
        covariance = torch.diag((ours.scale / 2).square())
        theirs = geometry.WrappedNormal(PoincareMetric(2, c), ours.loc, covariance)
        z = ours.sample((6,))
        stretch = 2.0 * (2.0 / (1.0 - c * z.square().sum(-1))).log()
        torch.testing.assert_close(
            theirs.log_prob(z), ours.log_prob(z) + stretch, rtol=1e-4, atol=1e-4
        )


def test_the_names_before_still_work():
    assert distributions.WrappedNormal is PoincareNormal
    assert distributions.WrappedNormalHead is PoincareNormalHead
