"""Flows: their log-determinants against autograd, their invertibility, the densities they make."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chartae.distributions import DiagonalNormal
from chartae.distributions.flows import AutoregressiveFlow, FlowPosterior, PlanarFlow, RadialFlow


def make(kind, dim, seed=0, wild=1.0):
    torch.manual_seed(seed)
    if kind == "iaf":
        flow = AutoregressiveFlow(dim, hidden=(16,), reverse=bool(seed % 2))
    else:
        flow = {"planar": PlanarFlow, "radial": RadialFlow}[kind](dim)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(wild)
    return flow.double()


@given(
    kind=st.sampled_from(["planar", "radial", "iaf"]),
    dim=st.integers(1, 4),
    seed=st.integers(0, 50),
    wild=st.sampled_from([1.0, 5.0]),
)
def test_log_determinants_against_autograd(kind, dim, seed, wild):
    flow = make(kind, dim, seed, wild)
    z = torch.randn(3, dim).double()
    image, log_det = flow(z)
    assert image.shape == (3, dim)
    assert log_det.shape == (3,)
    for point, expected in zip(z, log_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda p: flow(p)[0], point)
        sign, value = jacobian.slogdet()
        assert sign > 0  # orientation is kept: the flow is invertible
        torch.testing.assert_close(value, expected.detach())


@pytest.mark.parametrize("kind", ["planar", "radial"])
def test_distant_points_keep_their_order_along_the_flow(kind):
    # Both are maps of one variable along a line through the axis or the centre: increasing.
    for seed in range(20):
        flow = make(kind, 2, seed, wild=6.0)
        if kind == "planar":
            line = torch.linspace(-20, 20, 4001).double()[:, None] * flow.w / flow.w.norm()
            height = flow(line)[0] @ flow.w
        else:
            direction = torch.tensor([0.6, 0.8]).double()
            line = flow.center + torch.linspace(0, 20, 4001).double()[:, None] * direction
            height = (flow(line)[0] - flow.center) @ direction
        assert (height.diff() > 0).all()


@pytest.mark.parametrize("context", [0, 3])
def test_an_autoregressive_flow_inverts(context):
    torch.manual_seed(0)
    flow = AutoregressiveFlow(5, context, hidden=(16, 16)).double()
    c = torch.randn(6, context).double() if context else None
    z = torch.randn(2, 6, 5).double()
    image, _ = flow(z, c)
    torch.testing.assert_close(flow.inverse(image, c), z)


@pytest.mark.parametrize("reverse", [False, True])
def test_an_autoregressive_flow_has_a_triangular_jacobian(reverse):
    torch.manual_seed(0)
    flow = AutoregressiveFlow(4, hidden=(16,), reverse=reverse).double()
    jacobian = torch.autograd.functional.jacobian(lambda p: flow(p)[0], torch.randn(4).double())
    zero = jacobian.tril(-1) if reverse else jacobian.triu(1)
    assert (zero == 0).all()
    assert (jacobian - zero).abs().min(0).values.max() > 0


@pytest.mark.parametrize("kind", ["planar", "radial", "iaf"])
def test_the_density_is_that_of_the_draws(kind):
    # E_q [h(z) / q(z)] is the integral of h, here of a Gaussian: 1.
    flow = make(kind, 2, seed=3, wild=1.5)
    base = DiagonalNormal(torch.zeros(2).double(), 2.0 * torch.ones(2).double())
    posterior = FlowPosterior(base, flow)
    torch.manual_seed(0)
    z, log_q = posterior.rsample_and_log_prob((100000,))
    with torch.no_grad():
        h = -0.5 * z.square().sum(-1) - math.log(2 * math.pi)
        weights = (h - log_q).exp()
    error = (weights.std() / len(weights) ** 0.5).item()
    assert error < 0.02
    assert weights.mean().item() == pytest.approx(1.0, abs=4 * error)
    torch.testing.assert_close(posterior.mean, flow(torch.zeros(2).double())[0])
    torch.manual_seed(0)
    torch.testing.assert_close(posterior.rsample((100000,)), z)
