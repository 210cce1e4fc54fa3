"""Flows in time: inverses, log-determinants, densities, and the identity at the start."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chartae.errors import ConfigurationError, DataError
from chartae.longitudinal.time_flows import OdeFlow, make_time_flow

FLOWS = {
    "time": {"name": "time", "hidden": [16]},
    "chain iaf": {"name": "chain", "num_times": 4, "hidden": [16, 16]},
    "chain coupling": {"name": "chain", "num_times": 4, "kind": "coupling", "hidden": [16, 16]},
    "ode": {"name": "ode", "hidden": 16, "num_steps": 32},
    "rotation": {"name": "rotation", "waves": 2},
    "lines": {"name": "rotation", "lines": 1},
}
# The steps of a vector field invert each other only up to their error.
EXACT = {"ode": 1e-5}


def moved(name, dim=3, context=0, *, seed=0, size=0.3):
    """A flow in float64 with random weights, which is not the identity."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        flow = make_time_flow(FLOWS[name], dim, context).double()
        with torch.no_grad():
            for parameter in flow.parameters():
                parameter.add_(size * torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    return flow


def times_of(name, count, generator):
    """Times at which the flow is defined: real ones, or those of the grid."""
    if name.startswith("chain"):
        return torch.randint(0, 4, (count,), generator=generator).double()
    return 1.5 * torch.randn(count, generator=generator, dtype=torch.float64)


@pytest.fixture(params=FLOWS)
def name(request):
    return request.param


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("context", [0, 2])
def test_backward_inverts_forward_at_any_time(name, dim, context):
    flow, generator = moved(name, dim, context), torch.Generator().manual_seed(1)
    times = times_of(name, 20, generator)
    given = torch.randn(20, context, generator=generator).double() if context else None
    u = torch.randn(5, 20, dim, generator=generator, dtype=torch.float64)
    z, log_det = flow(u, times, given)
    back, same = flow.inverse(z, times, given)
    assert (z - u).abs().max() > 0.1
    torch.testing.assert_close(back, u, atol=EXACT.get(name, 1e-9), rtol=0.0)
    torch.testing.assert_close(same, log_det, atol=EXACT.get(name, 1e-9), rtol=0.0)


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), time=st.floats(-3.0, 3.0))
def test_coupling_is_invertible_for_any_weights_and_time(seed, time):
    flow = moved("time", seed=seed, size=1.0)
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    times = torch.full((4,), time, dtype=torch.float64)
    z, _ = flow(u, times)
    torch.testing.assert_close(flow.inverse(z, times)[0], u, atol=1e-6, rtol=0.0)


def test_log_determinant_is_that_of_the_jacobian(name):
    flow, generator = moved(name, context=2), torch.Generator().manual_seed(2)
    times = times_of(name, 6, generator)
    given = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    u = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    _, log_det = flow(u, times, given)
    for row in range(6):
        rows = slice(row, row + 1)
        jacobian = torch.autograd.functional.jacobian(
            lambda v, rows=rows: flow(v[None], times[rows], given[rows])[0][0], u[row]
        )
        expected = torch.linalg.slogdet(jacobian)[1]
        torch.testing.assert_close(log_det[row], expected, atol=EXACT.get(name, 1e-9), rtol=0.0)


@torch.no_grad()
def test_density_of_the_latent_integrates_to_one(name):
    axis = torch.linspace(-9.0, 9.0, 121, dtype=torch.float64)
    flow = moved(name, dim=2, size=0.2)
    z = torch.cartesian_prod(axis, axis)
    for time in (0.0, 1.0, 3.0) if name.startswith("chain") else (-1.3, 0.0, 0.4, 1.8):
        u, log_det = flow.inverse(z, torch.full((len(z),), time, dtype=torch.float64))
        log_p = -0.5 * u.square().sum(-1) - math.log(2.0 * math.pi) - log_det
        total = log_p.exp().sum() * (axis[1] - axis[0]) ** 2
        assert float(total) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_starts_at_the_identity(name, dim):
    if name == "chain coupling" and dim == 1:
        pytest.skip("coupling layers without time need two coordinates")
    if name in ("rotation", "lines") and dim > 1:
        pytest.skip("it turns from the start")
    if name == "lines":
        pytest.skip("a line needs two coordinates")
    flow, u = make_time_flow(FLOWS[name], dim, 2), torch.randn(7, dim)
    times, given = torch.arange(7.0) % 4, torch.randn(7, 2)
    for direction in (flow, flow.inverse):
        z, log_det = direction(u, times, given)
        assert torch.equal(z, u)
        assert not log_det.any()


def test_along_equals_each_time_alone(name):
    flow, generator = moved(name, context=2), torch.Generator().manual_seed(3)
    owner = torch.tensor([0, 0, 0, 1, 2, 2])
    times, given = times_of(name, 6, generator), torch.randn(3, 2, dtype=torch.float64)
    u = torch.randn(4, 3, 3, generator=generator, dtype=torch.float64)
    z, log_det = flow.along(u, owner, times, given)
    assert z.shape == (4, 6, 3)
    for visit, individual in enumerate(owner.tolist()):
        one, alone = slice(visit, visit + 1), slice(individual, individual + 1)
        expected, its_log_det = flow(u[:, alone], times[one], given[alone])
        torch.testing.assert_close(z[:, one], expected, atol=1e-10, rtol=0.0)
        torch.testing.assert_close(log_det[:, one], its_log_det, atol=1e-10, rtol=0.0)


def test_rows_do_not_depend_on_other_rows(name):
    flow, generator = moved(name), torch.Generator().manual_seed(4)
    times, u = times_of(name, 8, generator), torch.randn(8, 3, dtype=torch.float64)
    changed = torch.cat([u[:1], 10.0 * u[1:]])
    for direction in (flow, flow.inverse):
        torch.testing.assert_close(
            direction(u, times)[0][0], direction(changed, times)[0][0], atol=1e-12, rtol=0.0
        )


def test_gradients_reach_all_weights(name):
    flow = moved(name, context=2)
    u = torch.randn(8, 3, dtype=torch.float64)
    z, log_det = flow(u, torch.full((8,), 3.0).double(), torch.randn(8, 2, dtype=torch.float64))
    (z.square().sum() + log_det.sum()).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in flow.parameters())


# --- the chain ----------------------------------------------------------------------------------


def test_the_grid_of_a_chain_is_that_of_the_training_set():
    flow = moved("chain iaf")
    ages = torch.tensor([70.0, 60.0, 65.0, 60.0, 80.0, 70.0], dtype=torch.float64)
    flow.set_times((ages - 68.0) / 7.0, ages)
    assert flow.index((torch.tensor([80.0, 60.0, 65.0]).double() - 68.0) / 7.0).tolist() == [
        3,
        0,
        1,
    ]
    with pytest.raises(DataError, match=r"time 62 is not on the grid .* 60, 65, 70, 80"):
        flow(torch.zeros(1, 3).double(), torch.tensor([-6.0 / 7.0]).double())
    with pytest.raises(DataError, match="has 3 different times: .*num_times=4"):
        flow.set_times(torch.arange(3.0))


def test_rotations_make_stationary_processes():
    flow = make_time_flow("rotation", 4).double()
    times = torch.tensor([0.0, 0.7, 5.0], dtype=torch.float64)
    turns = flow(torch.eye(4, dtype=torch.float64)[:, None].expand(4, 3, 4), times)[0].permute(
        1, 2, 0
    )
    for t, turn in zip(times, turns, strict=True):
        angles = t * flow.log_frequencies.exp()
        product = turns[0] @ turn.mT  # the covariance of z(0) and z(t), of u ~ N(0, I)
        torch.testing.assert_close(product.diagonal(), angles.cos().repeat(2))
        torch.testing.assert_close(turn @ turn.mT, torch.eye(4, dtype=torch.float64))


def test_lines_are_random_intercepts_and_slopes():
    flow = make_time_flow({"name": "rotation", "lines": 1}, 4).double()
    s, w = (
        float(flow.log_frequencies.detach().exp()[0]),
        torch.tensor([0.7, -0.4], dtype=torch.float64),
    )
    times = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
    u = torch.eye(4, dtype=torch.float64)[:, None].expand(4, 3, 4)
    with torch.no_grad():
        z = flow(u, times)[0]  # what each coordinate of u gives
    scores = z[..., 0] * w[0] + z[..., 2] * w[1]  # the pairs are coordinates 0 and 2, 1 and 3
    # x(t) = (w1 u1 + w2 u2) + t (s w1 u2)
    intercept, slope = torch.zeros(4).double(), torch.zeros(4).double()
    intercept[0], intercept[2], slope[2] = w[0], w[1], s * w[0]
    expected = intercept[:, None] + slope[:, None] * times
    torch.testing.assert_close(scores, expected)
    torch.testing.assert_close(z[..., 1].square() + z[..., 3].square(), u[..., 1] + u[..., 3])


def test_a_chain_at_its_first_time_is_the_identity():
    flow, u = moved("chain iaf"), torch.randn(2, 3, dtype=torch.float64)
    z, log_det = flow(u, torch.zeros(2, dtype=torch.float64))
    assert torch.equal(z, u)
    assert not log_det.any()


def test_a_step_of_the_chain_follows_the_one_before():
    flow, u = moved("chain iaf"), torch.randn(2, 3, dtype=torch.float64)
    at = partial(torch.full, (2,), dtype=torch.float64)
    z, log_det = flow(u, at(fill_value=1.0))
    after, step = flow.steps[1](z)
    torch.testing.assert_close(flow(u, at(fill_value=2.0)), (after, log_det + step))


# --- the vector field ---------------------------------------------------------------------------


class LinearField(OdeFlow):
    """dz/dt = A z."""

    def __init__(self, matrix, **options):
        super().__init__(len(matrix), **options)
        self.register_buffer("matrix", matrix)

    def field(self, z, times, context=None):
        return z @ self.matrix.mT, self.matrix.trace().expand(z.shape[:-1])


@pytest.mark.parametrize(("num_steps", "error"), [(8, 2e-4), (16, 2e-5), (32, 1e-6)])
def test_a_linear_field_gives_the_matrix_exponential(num_steps, error):
    generator = torch.Generator().manual_seed(5)
    matrix = 0.5 * torch.randn(4, 4, generator=generator, dtype=torch.float64)
    flow = LinearField(matrix, num_steps=num_steps)
    times = torch.tensor([-1.7, -0.2, 0.0, 0.9, 1.8], dtype=torch.float64)
    u = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    z, log_det = flow(u, times)
    exact = torch.linalg.matrix_exp(times[:, None, None] * matrix)
    torch.testing.assert_close(z, (exact @ u[..., None])[..., 0], atol=error, rtol=0.0)
    torch.testing.assert_close(log_det, times * matrix.trace(), atol=1e-12, rtol=0.0)
    torch.testing.assert_close(flow.inverse(z, times)[1], log_det, atol=1e-12, rtol=0.0)


def test_the_trace_of_a_field_is_that_of_its_jacobian():
    flow = moved("ode", context=2)
    z, time = torch.randn(1, 3, dtype=torch.float64), torch.tensor([0.7], dtype=torch.float64)
    given = torch.randn(1, 2, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: flow.field(v, time, given)[0], z)
    trace = flow.field(z, time, given)[1]
    torch.testing.assert_close(trace[0], jacobian[0, :, 0].trace())


# --- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("times", "flow='times' is not known.*did you mean 'time'"),
        ({"name": "time", "depth": 3}, "unexpected keyword argument 'depth'"),
        ({"name": "time", "layers": 0}, "layers=0: expected an integer at least 1"),
        ({"name": "chain", "num_times": 1}, "num_times=1: expected an integer at least 2"),
        ({"name": "chain", "kind": "maf"}, "kind='maf' is not known"),
        ({"name": "rotation", "lines": 2}, "lines=2: expected an integer at least 0 and at most 1"),
        ({"name": "ode", "num_steps": 0}, "num_steps=0: expected an integer at least 1"),
        ({"name": "ode", "hidden": 0}, "hidden=0: expected an integer at least 1"),
    ],
)
def test_bad_options_are_refused(spec, message):
    with pytest.raises(ConfigurationError, match=message):
        make_time_flow(spec, 2)


def test_coupling_steps_need_two_coordinates():
    with pytest.raises(ConfigurationError, match="latent_dim of at least 2"):
        make_time_flow(FLOWS["chain coupling"], 1)
