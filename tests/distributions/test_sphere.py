import math

import numpy as np
import pytest
import torch
from mpmath import mp
from scipy import integrate, special, stats
from torch.distributions import kl_divergence

from chartae.distributions import HypersphericalUniform, VonMisesFisher, VonMisesFisherHead
from chartae.distributions.radial import log_area
from chartae.errors import ConfigurationError

DIMS = [2, 3, 4, 10, 100, 512]
KAPPAS = [1e-3, 1e-1, 1.0, 10.0, 1e3, 1e5]
every_dim = pytest.mark.parametrize("d", DIMS)
every_kappa = pytest.mark.parametrize("kappa", KAPPAS)


def pole(d: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.eye(d, dtype=dtype)[0]


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def exact(d: int, kappa: float) -> tuple[float, float, float]:
    """log C + kappa, E[cos] and Var[cos], by Bessel functions to 40 digits."""
    with mp.workdps(40):
        nu, k = mp.mpf(d) / 2 - 1, mp.mpf(kappa)
        bessel = mp.besseli(nu, k)
        ratio = mp.besseli(nu + 1, k) / bessel
        log_constant = nu * mp.log(k) - (nu + 1) * mp.log(2 * mp.pi) - mp.log(bessel)
        variance = 1 - ratio**2 - (d - 1) / k * ratio
        return float(log_constant + k), float(ratio), float(variance)


# --- density ------------------------------------------------------------------------------------


@every_dim
@every_kappa
def test_constant_and_its_gradient_are_the_bessel_functions(d, kappa):
    concentration = number(kappa)
    log_prob = VonMisesFisher(pole(d), concentration).log_prob(pole(d))
    (slope,) = torch.autograd.grad(log_prob, concentration)
    expected, ratio, _ = exact(d, kappa)
    assert log_prob.item() == pytest.approx(expected, rel=1e-13, abs=1e-12)
    assert slope.item() == pytest.approx(1.0 - ratio, rel=1e-11)


@every_dim
@every_kappa
def test_float32_is_as_good_as_its_inputs(d, kappa):
    torch.manual_seed(0)
    concentration = torch.tensor(kappa)
    q = VonMisesFisher(pole(d, torch.float32), concentration)
    twin = VonMisesFisher(pole(d), concentration.double())
    z, log_prob = q.rsample_and_log_prob((200,))
    assert z.dtype == log_prob.dtype == kl_of(q).dtype == torch.float32
    assert float((z.norm(dim=-1) - 1.0).abs().max()) < 1e-6
    expected = twin.log_prob(z.double()).float()
    torch.testing.assert_close(q.log_prob(z), expected, rtol=1e-6, atol=1e-6)
    # The sample is rounded to float32, the density of the draw is not.
    torch.testing.assert_close(log_prob, expected, rtol=1e-5, atol=1e-2)
    torch.testing.assert_close(kl_of(q), kl_of(twin).float(), rtol=1e-6, atol=1e-12)


def kl_of(q: VonMisesFisher) -> torch.Tensor:
    return kl_divergence(q, HypersphericalUniform(torch.zeros_like(q.loc)))


@pytest.mark.parametrize("kappa", [1e-3, 1.0, 30.0])
def test_mass_over_circle_and_sphere_is_one(kappa):
    torch.manual_seed(0)
    for d in (2, 3):
        loc = torch.nn.functional.normalize(torch.randn(d, dtype=torch.float64), dim=0)
        q = VonMisesFisher(loc, torch.tensor(kappa))
        longitude = torch.arange(400, dtype=torch.float64) * (2 * math.pi / 400)
        if d == 2:
            points = torch.stack([longitude.cos(), longitude.sin()], -1)
            weights = torch.full((400,), 2 * math.pi / 400, dtype=torch.float64)
        else:
            height, weight = map(torch.as_tensor, special.roots_legendre(200))
            width = (1 - height.square()).sqrt()
            points = torch.stack(
                [
                    width[:, None] * longitude.cos(),
                    width[:, None] * longitude.sin(),
                    height[:, None].expand(200, 400),
                ],
                -1,
            )
            weights = weight[:, None] * (2 * math.pi / 400)
        assert float((q.log_prob(points).exp() * weights).sum()) == pytest.approx(1.0, abs=1e-10)


@pytest.mark.parametrize(("d", "kappa"), [(10, 5.0), (100, 1e3), (512, 1e5), (512, 1e-3)])
def test_mass_is_one_radially(d, kappa):
    law = VonMisesFisher(pole(d), number(kappa))

    def ring(angle: float) -> float:
        z = math.cos(angle) * pole(d) + math.sin(angle) * pole(d).roll(1)
        area = log_area(d - 1) + (d - 2) * math.log(math.sin(angle))
        return math.exp(law.log_prob(z).item() + area)

    lower, *_, upper = law.law.edges.tolist()
    mass, _ = integrate.quad(ring, lower, upper, points=[0.5 * (lower + upper)], epsabs=1e-11)
    assert mass == pytest.approx(1.0, abs=1e-9)


# --- divergence and moments ---------------------------------------------------------------------


@every_dim
@every_kappa
def test_kl_to_the_uniform_and_its_slope_in_closed_form(d, kappa):
    concentration = number(kappa)
    kl = kl_of(VonMisesFisher(pole(d), concentration))
    (slope,) = torch.autograd.grad(kl, concentration)
    log_constant, ratio, variance = exact(d, kappa)
    expected = log_constant - kappa * (1.0 - ratio) + log_area(d)
    assert kl.item() == pytest.approx(expected, rel=1e-11, abs=1e-11)
    assert slope.item() == pytest.approx(kappa * variance, rel=1e-7)


@pytest.mark.parametrize(("d", "kappa"), [(2, 3.0), (3, 10.0), (10, 5.0), (50, 100.0)])
def test_kl_against_monte_carlo(d, kappa):
    torch.manual_seed(0)
    q, p = VonMisesFisher(pole(d), number(kappa)), HypersphericalUniform(pole(d))
    with torch.no_grad():
        z, log_q = q.rsample_and_log_prob((40_000,))
        terms = log_q - p.log_prob(z)
        assert float(terms.mean()) == pytest.approx(
            kl_divergence(q, p).item(), abs=4 * float(terms.std()) / 200
        )


# --- samples ------------------------------------------------------------------------------------


@every_dim
@pytest.mark.parametrize("kappa", [1e-3, 1.0, 10.0, 1e5])
def test_samples_follow_the_density(d, kappa):
    torch.manual_seed(0)
    loc = torch.nn.functional.normalize(torch.randn(d, dtype=torch.float64), dim=0)
    q = VonMisesFisher(loc, torch.tensor(kappa, dtype=torch.float64))
    n = 4000
    z, log_prob = q.rsample_and_log_prob((n,))
    torch.testing.assert_close(log_prob, q.log_prob(z), rtol=1e-9, atol=1e-9)
    _, ratio, variance = exact(d, kappa)
    cosine = z @ loc
    assert float(cosine.mean()) == pytest.approx(ratio, abs=5 * math.sqrt(variance / n))
    assert float(cosine.var()) == pytest.approx(variance, rel=0.2)
    # The whole law of the angle, by another quadrature.
    grid = torch.linspace(*q.law.edges[[0, -1]].tolist(), 20_001, dtype=torch.float64)
    grid = grid[1:-1]
    log_ring = kappa * (grid.cos() - 1) + (d - 2) * grid.sin().log()
    cdf = integrate.cumulative_simpson((log_ring - log_ring.max()).exp(), x=grid, initial=0.0)
    angle = 2.0 * torch.asin(0.5 * (z - loc).norm(dim=-1))
    law = stats.kstest(angle, lambda r: np.interp(r, grid, cdf / cdf[-1]))
    assert law.pvalue > 1e-3
    # And around the mean direction no direction is preferred.
    sideways = torch.nn.functional.normalize(z - cosine[:, None] * loc, dim=-1)
    assert float(sideways.mean(0).norm()) < 5 / math.sqrt(n)


@pytest.mark.parametrize(("d", "kappa"), [(2, 1e-3), (2, 1e5), (3, 1e5), (4, 1.0), (200, 50.0)])
def test_draws_invert_the_cumulative_distribution_to_its_tails(d, kappa):
    law = VonMisesFisher(pole(d), number(kappa)).law
    torch.manual_seed(0)
    draws = law.rsample((200_000,)).detach().sort().values
    torch.manual_seed(0)
    uniform = torch.rand(200_000, dtype=torch.float64).sort().values
    ends = law.edges[[0, -1]].tolist()
    peak = law.peak.item()

    def density(r: float) -> float:
        log_sine = (d - 2) * math.log(math.sin(r)) if d > 2 else 0.0
        return math.exp(-2 * kappa * math.sin(0.5 * r) ** 2 + log_sine - peak)

    def integral(lower: float, upper: float) -> float:
        return integrate.quad(density, lower, upper, epsrel=1e-12, epsabs=0.0, limit=200)[0]

    middle = draws[100_000].item()
    total = integral(ends[0], middle) + integral(middle, ends[1])
    for i in (0, 1, 50, 3000, 100_000):
        share = integral(ends[0], draws[i].item()) / total
        assert share == pytest.approx(uniform[i].item(), rel=1e-9)
        share = integral(draws[-1 - i].item(), ends[1]) / total
        assert share == pytest.approx(1.0 - uniform[-1 - i].item(), rel=1e-8)


@pytest.mark.parametrize(("d", "kappa"), [(3, 1.0), (3, 1e4), (4, 1e-12)])
def test_draws_are_exact_for_the_rarest_numbers(d, kappa, monkeypatch):
    tail = torch.logspace(-9, -1, 33, dtype=torch.float64)
    uniform = torch.cat([tail, 1.0 - tail])
    monkeypatch.setattr(torch, "rand", lambda *shape, **options: uniform)
    r = VonMisesFisher(pole(d), number(kappa)).law.rsample((66,)).detach()
    if d == 3:  # a truncated exponential, of 1 - cos r
        drop = 2.0 * (0.5 * r).sin().square()
        below, above = -torch.expm1(-kappa * drop), (-kappa * drop).exp() - math.exp(-2 * kappa)
        below, above = (share / -math.expm1(-2 * kappa) for share in (below, above))
    else:  # uniform, and symmetric
        below, above = ((t - t.sin() * t.cos()) / math.pi for t in (r, math.pi - r))
    torch.testing.assert_close(below[:33], tail, rtol=2e-6, atol=0.0)
    torch.testing.assert_close(above[33:], tail, rtol=2e-6, atol=0.0)


def test_uniform_samples_and_density():
    torch.manual_seed(0)
    p = HypersphericalUniform(torch.zeros(3))
    z = p.sample((5000,))
    assert (z.dtype, p.mean.tolist()) == (torch.float32, [0.0, 0.0, 0.0])
    # Archimedes: on the 2-sphere each coordinate is uniform.
    for coordinate in z.T:
        assert stats.kstest(coordinate, stats.uniform(-1, 2).cdf).pvalue > 1e-3
    torch.testing.assert_close(p.log_prob(z).exp(), torch.full((5000,), 1 / (4 * math.pi)))
    assert p.entropy().item() == pytest.approx(math.log(4 * math.pi))


# --- gradients ----------------------------------------------------------------------------------


def test_the_pathwise_gradient_of_the_angle_is_exact():
    # Against finite differences of the inverse of F, sample by sample.
    for d, kappa in [(2, 0.5), (2, 40.0), (3, 2.0), (10, 20.0), (100, 1e3)]:
        step = 1e-5 * kappa
        draws = []
        concentration = number(kappa)
        for value in (concentration, number(kappa - step), number(kappa + step)):
            torch.manual_seed(0)
            draws.append(VonMisesFisher(pole(d), value).law.rsample((50,)))
        slopes = torch.stack(
            [torch.autograd.grad(r, concentration, retain_graph=True)[0] for r in draws[0]]
        )
        expected = (draws[2] - draws[1]).detach() / (2 * step)
        torch.testing.assert_close(slopes, expected, rtol=1e-5, atol=1e-9 / kappa)


@pytest.mark.parametrize(("d", "kappa"), [(2, 3.0), (3, 0.5), (3, 20.0), (8, 10.0)])
def test_gradients_of_expectations_against_quadrature(d, kappa):
    # f(z) = exp(a.z) has a known mean: the ratio of the constants at kappa and ||kappa mu + a||.
    torch.manual_seed(0)
    a = torch.randn(d, dtype=torch.float64) / math.sqrt(d)
    raw = torch.randn(d, dtype=torch.float64, requires_grad=True)
    concentration = number(kappa)
    loc = torch.nn.functional.normalize(raw, dim=0)
    size = (concentration * loc + a).norm()
    first, second = VonMisesFisher(pole(d), concentration), VonMisesFisher(pole(d), size)
    log_mean = second.log_normalizer + size - first.log_normalizer - concentration
    expected = torch.autograd.grad(log_mean.exp(), [concentration, raw], retain_graph=True)

    n, chunks = 4000, 20
    q = VonMisesFisher(loc, concentration)
    estimates = []
    for _ in range(chunks):
        value = (q.rsample((n // chunks,)) @ a).exp().mean()
        grads = torch.autograd.grad(value, [concentration, raw], retain_graph=True)
        estimates.append(torch.cat([grads[0].reshape(1), grads[1]]))
    stacked = torch.stack(estimates)
    error = stacked.mean(0) - torch.cat([expected[0].reshape(1), expected[1]])
    assert (error.abs() < 4.5 * stacked.std(0) / math.sqrt(chunks) + 1e-12).all()


def test_the_density_of_a_draw_has_the_gradient_of_the_entropy():
    torch.manual_seed(0)
    concentration = number(7.0)
    q = VonMisesFisher(pole(5), concentration)
    (expected,) = torch.autograd.grad(q.entropy(), concentration, retain_graph=True)
    slopes = torch.stack(
        [
            torch.autograd.grad(
                -q.rsample_and_log_prob((200,))[1].mean(), concentration, retain_graph=True
            )[0]
            for _ in range(20)
        ]
    )
    assert float(slopes.mean()) == pytest.approx(
        expected.item(), abs=4 * float(slopes.std()) / math.sqrt(20)
    )


def test_a_use_without_gradients_takes_them_from_no_other():
    kappa = number(2.0)
    q = VonMisesFisher(pole(3), kappa)
    with torch.no_grad():
        assert not q.sample((2,)).requires_grad
        assert not q.rsample_and_log_prob()[1].requires_grad
        assert not q.entropy().requires_grad
    (slope,) = torch.autograd.grad(q.entropy(), kappa)
    assert slope.item() == pytest.approx(-2.0 * exact(3, 2.0)[2])


def test_gradients_are_finite_everywhere():
    # The mean direction at a pole, at its antipode, or where the draw is.
    for sign in (1.0, -1.0):
        for d in (2, 3, 20):
            loc = (sign * pole(d, torch.float32)).requires_grad_()
            kappa = torch.tensor([1e-3, 1.0, 1e5], requires_grad=True)
            q = VonMisesFisher(loc, kappa)
            z, log_prob = q.rsample_and_log_prob((50,))
            at_mode = q.log_prob(q.mean)
            (z.sum() + log_prob.sum() + at_mode.sum() + kl_of(q).sum()).backward()
            assert torch.isfinite(loc.grad).all()
            assert torch.isfinite(kappa.grad).all()
            # A draw turns as fast as its mean direction, and no faster.
            assert float(loc.grad.abs().max()) < 1e3


# --- contract -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_dtypes_and_seeds(dtype):
    loc = torch.nn.functional.normalize(torch.randn(4, 1, 5, dtype=dtype), dim=-1)
    q = VonMisesFisher(loc, torch.rand(3, dtype=dtype) + 0.1)
    assert q.batch_shape == (4, 3)
    assert q.event_shape == (5,)
    assert q.mean.shape == (4, 3, 5)
    for shape in ((), (2,), (2, 6)):
        torch.manual_seed(0)
        z, log_prob = q.rsample_and_log_prob(shape)
        torch.manual_seed(0)
        assert (q.sample(torch.Size(shape)) == z).all()
        assert z.shape == (*shape, 4, 3, 5)
        assert log_prob.shape == q.log_prob(z).shape == (*shape, 4, 3)
        assert z.dtype == log_prob.dtype == q.entropy().dtype == dtype
    assert kl_divergence(q, HypersphericalUniform(torch.zeros(5, dtype=dtype))).shape == (4, 3)


def test_a_point_has_no_directions():
    with pytest.raises(ConfigurationError, match=r"loc has shape \(3, 1\): expected .* at least 2"):
        VonMisesFisher(torch.ones(3, 1), torch.ones(3))


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
def test_the_head_gives_directions_and_finite_densities(size):
    torch.manual_seed(0)
    head = VonMisesFisherHead(6, 4)
    features = (size * torch.randn(10, 6)).requires_grad_()
    q = head(features)
    torch.testing.assert_close(q.mean.norm(dim=-1), torch.ones(10))
    assert (q.concentration >= head.floor).all()
    z, log_prob = q.rsample_and_log_prob()
    (log_prob.sum() + z.sum() + kl_of(q).sum()).backward()
    assert torch.isfinite(log_prob).all()
    assert torch.isfinite(features.grad).all()
