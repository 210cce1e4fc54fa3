"""Laws of the ball so broad that they would leave what the dtype holds of it."""

import math

import pytest
import torch
from scipy import special

from chartae.distributions import (
    PoincareNormal,
    PoincareNormalHead,
    RiemannianNormal,
    RiemannianNormalHead,
    ball_point,
)
from chartae.distributions.ball import _exponential, _logarithm, _translate

every_family = pytest.mark.parametrize("family", ["wrapped", "riemannian"])
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def law_of(family: str, loc: torch.Tensor, scale: float, c: float = 1.0):
    """A law of that scale, the wrapped one broader in its first direction."""
    if family == "wrapped":
        stretch = torch.tensor([1.0, *[0.7] * (loc.shape[-1] - 1)], dtype=loc.dtype)
        return PoincareNormal(loc, scale * stretch, c)
    return RiemannianNormal(loc, loc.new_tensor(scale), c)


def centre(distance: float, dtype: torch.dtype, d: int = 2, c: float = 1.0) -> torch.Tensor:
    v = torch.zeros(d, dtype=dtype)
    v[0], v[-1] = 0.8 * distance / math.sqrt(c), 0.6 * distance / math.sqrt(c)
    return ball_point(v, c)


@every_family
@pytest.mark.parametrize("c", [0.3, 1.0])
@pytest.mark.parametrize("distance", [0.0, 5.0, 14.0])
@pytest.mark.parametrize("scale", [1.0, 5.0, 30.0, 1e4])
def test_mass_of_a_broad_law_is_one(family, c, distance, scale):
    # Polar coordinates around the centre, stretched to the law's ellipse; a law in float32, at
    # points in float64.
    q = law_of(family, centre(distance, torch.float32, c=c), scale, c)
    node, weight = map(torch.as_tensor, special.roots_legendre(300))
    half = 0.5 * float(q._limit)
    radius, weight = half * (node + 1.0), half * weight
    angle = torch.arange(100, dtype=torch.float64) * (2 * math.pi / 100)
    stretch = q._stretch.expand(2)
    v = stretch * radius[:, None, None] * torch.stack([angle.cos(), angle.sin()], -1)
    z = _translate(q.loc.double(), _exponential(v, c), c)
    length = math.sqrt(c) * v.norm(dim=-1)
    area = torch.sinh(length) / length * stretch.prod() * radius[:, None] * 2 * math.pi
    mass = (q.log_prob(z).double().exp() * area).mean(-1) @ weight
    assert float(mass) == pytest.approx(1.0, abs=2e-5)


@every_family
def test_a_law_ends_where_the_ball_does(family):
    q = law_of(family, centre(5.0, torch.float32), 30.0)
    directions = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    near, far = (
        _translate(q.loc.double(), _exponential(share * q.room * directions, 1.0), 1.0)
        for share in (0.99, 1.01)
    )
    assert torch.isfinite(q.log_prob(near)).all()
    # Away from the rim the law ends sharply; at the rim a rounding is a distance.
    assert float(q.log_prob(far).min()) == -math.inf
    assert float(q.room) == pytest.approx(15.25 - 5.0, abs=0.05)


@every_family
@every_dtype
@pytest.mark.parametrize("scale", [0.5, 3.0, 100.0, 1e8])
def test_the_density_is_that_of_the_point_returned(family, dtype, scale):
    torch.manual_seed(0)
    for distance in (0.0, 4.0, 1e3):
        q = law_of(family, centre(distance, dtype), scale)
        z, log_prob = q.rsample_and_log_prob((400,))
        assert (z.double().norm(dim=-1) < 1.0).all()
        again = q.log_prob(z)
        assert torch.isfinite(again).all()
        # A rounding of z is a distance; it stretches the volume, and moves the exponent little.
        rounding = 8 * torch.finfo(dtype).eps / (1.0 - z.double().square().sum(-1))
        moved = _logarithm(q.loc.double(), z.double(), 1.0).norm(dim=-1)
        allowed = rounding * (1.0 + 2.0 * moved / (0.7 * scale) ** 2)
        error = (log_prob - again).double().abs()
        assert (error <= 1e-5 * (1.0 + log_prob.abs()) + 2.0 * allowed).all()


@every_family
@every_dtype
@pytest.mark.parametrize("d", [1, 2, 20])
@pytest.mark.parametrize("scale", [1.0, 10.0, 1e6])
def test_importance_weights_give_the_prior_no_more_mass_than_it_has(family, dtype, d, scale):
    # E p(z) / q(z) is the prior's mass where q is: what made evidence impossible.
    torch.manual_seed(0)
    prior = law_of(family, torch.zeros(d, dtype=dtype), 1.0)
    for distance in (0.0, 6.0, 1e3):
        q = law_of(family, centre(distance, dtype, d), scale)
        z, log_prob = q.rsample_and_log_prob((2000,))
        weights = (prior.log_prob(z) - log_prob).double().exp()
        assert float(weights.mean()) <= 1.0 + 6 * float(weights.std()) / math.sqrt(2000) + 1e-4


@every_family
def test_gradients_of_draws_and_densities_of_a_broad_law_are_exact(family):
    # The room, and with it the law, depends on the centre: against finite differences.
    loc = centre(9.0, torch.float64).requires_grad_()
    size = [30.0, 4.0] if family == "wrapped" else 6.0
    scale = torch.tensor(size, dtype=torch.float64, requires_grad=True)
    family_of = PoincareNormal if family == "wrapped" else RiemannianNormal

    def quantities(loc, scale):
        torch.manual_seed(0)
        q = family_of(loc, scale)
        radius, (_, log_prob) = q._limit * q.law.rsample((20,)), q.rsample_and_log_prob((20,))
        inside = q.log_prob(_translate(loc, _exponential(q.scale.new_tensor([1.0, 2.0]), 1.0), 1.0))
        return q.room, radius, log_prob, inside

    assert torch.autograd.gradcheck(quantities, (loc, scale), eps=1e-7, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("head_class", [PoincareNormalHead, RiemannianNormalHead])
def test_wild_features_leave_a_scale_that_can_come_back(head_class):
    torch.manual_seed(0)
    head = head_class(6, 3, 1.0)
    features = (1e4 * torch.randn(50, 6)).requires_grad_()
    q = head(features)
    assert float(q.scale.detach().max()) < 15.0
    z, log_prob = q.rsample_and_log_prob()
    (log_prob.sum() + z.sum()).backward()
    assert torch.isfinite(features.grad).all()
    # Scales up to twice the prior's are a plain softplus.
    small = head(1e-3 * torch.randn(50, 6))
    raw = head.linear.bias[3:]
    expected = torch.nn.functional.softplus(raw) + head.floor
    torch.testing.assert_close(
        small.scale[0], expected.reshape(small.scale[0].shape), rtol=0.01, atol=0
    )
