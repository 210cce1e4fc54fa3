import logging
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.geometry.conftest import centroid_metric

from chartae.errors import ConfigurationError, DataError
from chartae.geometry import (
    ConformalMetric,
    ConstantMetric,
    EuclideanMetric,
    PoincareMetric,
    distance,
    energy,
    exponential_map,
    exponential_path,
    geodesic,
    initial_velocity,
    length,
    logarithmic_map,
    shortest_paths,
)


def line(start, end, count):
    times = torch.linspace(0, 1, count, dtype=start.dtype)[:, None]
    return torch.lerp(start[..., None, :], end[..., None, :], times)


# --- length and energy --------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 4, 5, 50])
def test_the_length_of_a_line_in_a_flat_space(count):
    metric = ConstantMetric(torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
    start, end = torch.zeros(3, 2), torch.tensor([[1.0, 0.0], [0.0, 3.0], [3.0, 8.0]])
    expected = torch.tensor([2.0, 3.0, 10.0])
    curve = line(start, end, count)
    torch.testing.assert_close(length(metric, curve), expected)
    torch.testing.assert_close(energy(metric, curve), 0.5 * expected.square())


def test_lengths_converge_at_the_order_stated():
    # A circle at a constant speed: fourth order. Its points at uneven times: second.
    metric = EuclideanMetric(2).double()
    for warp, order in ((lambda t: t, 4), (lambda t: t + 0.3 * t**2, 2)):
        errors = []
        for count in (40, 80):
            times = torch.linspace(0, 1, count + 1, dtype=torch.float64)
            angles = 2 * warp(times)
            circle = torch.stack([angles.cos(), angles.sin()], -1)
            errors.append(abs(float(length(metric, circle)) - float(angles[-1])))
        assert errors[1] < 1e-6 or order == 2
        assert math.log2(errors[0] / errors[1]) > order - 0.6
    speed = (2 + 1.2 * times).square()
    assert float(energy(metric, circle)) == pytest.approx(0.5 * float(speed.mean()), rel=0.02)


# --- known manifolds ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_closed_forms(manifold, dtype):
    start, end = manifold.points(20, dtype=dtype), manifold.points(20, seed=7, dtype=dtype)
    metric = manifold.metric.to(dtype)
    expected = manifold.distance(start, end)
    paths = shortest_paths(metric, start, end)
    assert paths.converged.all()
    torch.testing.assert_close(paths.lengths, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(distance(metric, start, end), expected, atol=1e-4, rtol=1e-4)
    logarithm = manifold.logarithm(start, end)
    # The points are those of the true geodesic, at equal times.
    middle = manifold.exponential(start, logarithm / 3)
    torch.testing.assert_close(paths.points[:, 21], middle, atol=1e-3, rtol=1e-3)
    found = logarithmic_map(metric, start, end)
    torch.testing.assert_close(found, logarithm, atol=1e-3, rtol=1e-3)


def test_a_geodesic_on_the_line_is_an_integral():
    # One dimension: the distance is the integral of the square root of G.
    metric = ConformalMetric(lambda z: 2 * z[:, 0], 1)
    found = distance(metric, torch.zeros(1).double(), torch.ones(1).double())
    assert float(found) == pytest.approx((math.exp(2) - 1) / 2, rel=2e-4)


def test_a_ridge_between_the_points_is_not_overlooked():
    # 10 high and 0.03 wide, it falls between the nine points of the first path.
    def wall(z):
        return torch.log1p(10 * torch.exp(-(((z[:, 0] - 0.53) / 0.03) ** 2)))

    metric = ConformalMetric(wall, 1)
    expected = 1 + 10 * 0.03 * math.pi**0.5
    paths = shortest_paths(metric, torch.zeros(1).double(), torch.ones(1).double(), num_points=9)
    assert paths.converged
    assert paths.points.shape == (9, 1)
    assert float(paths.lengths) == pytest.approx(expected, rel=1e-2)


# --- metrics around data ------------------------------------------------------------------------


def test_geodesics_beat_straight_lines_at_a_constant_speed(learned_metric):
    metric = learned_metric(3)
    start, end = metric.landmarks[:, None], metric.landmarks.flip(0)
    paths = shortest_paths(metric, start, end)
    assert paths.converged.all()
    assert paths.points.shape == (6, 6, 64, 3)
    straight = length(metric, line(*torch.broadcast_tensors(start, end), 400))
    assert (paths.lengths <= straight * (1 + 1e-4)).all()
    assert (paths.lengths < 0.97 * straight).any()
    torch.testing.assert_close(length(metric, paths.points), paths.lengths, atol=1e-3, rtol=1e-2)
    apart = (start != end).any(-1)
    velocity = 63 * paths.points.diff(dim=-2)
    middle = 0.5 * (paths.points[..., 1:, :] + paths.points[..., :-1, :])
    speed = metric.norm(middle, velocity)[apart]
    assert (speed.std(-1) < 0.02 * speed.mean(-1)).all()
    # The energy is its least for the length.
    torch.testing.assert_close(
        energy(metric, paths.points), 0.5 * paths.lengths.square(), atol=1e-3, rtol=2e-2
    )


def test_a_geodesic_solves_hamiltons_equations(learned_metric):
    metric = learned_metric(2)
    start, end = metric.landmarks[:3], metric.landmarks[3:]
    points = geodesic(metric, start, end, num_points=201, tolerance=1e-6)
    velocity = initial_velocity(metric, points)
    shot = exponential_path(metric, start, velocity, num_steps=200)
    torch.testing.assert_close(points, shot, atol=5e-3, rtol=0)


@pytest.mark.parametrize("d", [2, 5])
def test_exp_of_log_is_the_identity(learned_metric, d):
    metric = learned_metric(d)
    start, end = metric.landmarks[:3], metric.landmarks[3:]
    velocity = logarithmic_map(metric, start, end)
    torch.testing.assert_close(exponential_map(metric, start, velocity), end, atol=1e-6, rtol=0)
    lengths = distance(metric, start, end)
    torch.testing.assert_close(metric.norm(start, velocity), lengths, atol=1e-4, rtol=1e-2)


def test_log_of_exp_is_the_identity_nearby(learned_metric):
    metric = learned_metric(3)
    start = metric.landmarks
    v = 0.2 * torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = logarithmic_map(metric, start, exponential_map(metric, start, v))
    torch.testing.assert_close(found, v, atol=1e-6, rtol=0)


coordinates = st.lists(st.floats(-2, 2), min_size=6, max_size=6)


@settings(max_examples=15)
@given(coordinates)
def test_a_distance_is_a_metric(values):
    a, b, c = torch.tensor(values, dtype=torch.float64).reshape(3, 2)
    metric = centroid_metric()
    pairs = torch.stack([a, b, a, b, a]), torch.stack([b, c, c, a, a])
    ab, bc, ac, ba, aa = distance(metric, *pairs).tolist()
    assert aa == 0.0
    assert ab == pytest.approx(ba, rel=1e-3, abs=1e-9)
    assert ac <= (ab + bc) * (1 + 1e-3) + 1e-9


def test_every_pair_by_itself(learned_metric):
    metric = learned_metric(2)
    start, end = metric.landmarks[:, None], metric.landmarks
    together = distance(metric, start, end)
    one = distance(metric, metric.landmarks[4], metric.landmarks[1])
    assert one.shape == ()
    torch.testing.assert_close(one, together[4, 1], atol=0, rtol=1e-4)


# --- the graph ----------------------------------------------------------------------------------


def ring():
    """A hill in the middle of a ring of nodes."""
    angles = torch.linspace(0, 2 * math.pi, 25, dtype=torch.float64)[:-1]
    nodes = torch.stack([angles.cos(), angles.sin()], -1)
    hill = ConformalMetric(lambda z: 4 * torch.exp(-3 * z.square().sum(-1)), 2)
    return hill, nodes


def test_the_graph_finds_the_way_around_a_hill():
    hill, nodes = ring()
    left, right = torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    over = shortest_paths(hill, left, right)  # by symmetry the descent stays on the line
    assert float(over.points[:, 1].abs().max()) < 1e-6
    around = shortest_paths(hill, left, right, nodes=nodes)
    assert around.converged
    assert float(around.lengths) < 0.6 * float(over.lengths)
    assert float(around.points.norm(dim=-1).min()) > 0.9


def test_nodes_that_coincide_or_lie_apart():
    hill, nodes = ring()
    islands = torch.cat([nodes, nodes, nodes[:3] + 30, nodes[:1] - 50])
    left, right = torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    expected = shortest_paths(hill, left, right, nodes=nodes).lengths
    found = shortest_paths(hill, left, right, nodes=islands)
    torch.testing.assert_close(found.lengths, expected, atol=0, rtol=1e-3)
    lone = shortest_paths(hill, left, right, nodes=nodes[6:7]).lengths
    torch.testing.assert_close(lone, expected, atol=0, rtol=1e-3)


def test_many_nodes_are_thinned_out():
    hill, nodes = ring()
    noise = 0.01 * torch.randn(40, 24, 2, generator=torch.Generator().manual_seed(0))
    many = (nodes + noise).reshape(-1, 2)
    left, right = torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    expected = shortest_paths(hill, left, right, nodes=nodes).lengths
    found = shortest_paths(hill, left, right, nodes=many).lengths
    torch.testing.assert_close(found, expected, atol=0, rtol=1e-3)


def test_the_void_is_avoided():
    # Thesis eq. 3.8: the straight line crosses the void inside a ring of codes.
    from chartae.geometry import PosteriorMetric

    _, nodes = ring()
    posterior = PosteriorMetric(nodes, torch.full_like(nodes, 0.01), rho=2.0)
    metric = ConformalMetric.avoiding_the_void(posterior)
    points = geodesic(metric, nodes[0], nodes[12])
    assert float(points.norm(dim=-1).min()) > 0.8
    volume = posterior.log_volume
    assert volume(points).min() > volume(line(nodes[0], nodes[12], 64)).min() + 2


# --- convergence --------------------------------------------------------------------------------


def test_what_is_not_found_is_said(caplog):
    metric = centroid_metric()
    start, end = metric.landmarks[:3], metric.landmarks[3:]
    caplog.set_level(logging.WARNING)
    geodesic(metric, start, end)
    assert not caplog.records
    geodesic(metric, start, end, max_iterations=1)
    assert "3 of 3 shortest paths were not found to the tolerance" in caplog.text
    caplog.clear()
    distance(metric, start, end, num_points=5, max_iterations=2)
    assert "shortest paths were not found" in caplog.text
    stopped = shortest_paths(metric, start, end, max_iterations=1)
    found = shortest_paths(metric, start, end)
    assert not stopped.converged.any()
    assert (stopped.residual > found.residual).all()
    assert (stopped.lengths >= found.lengths * (1 - 1e-3)).all()


def test_the_residual_bounds_what_is_left(learned_metric):
    metric = learned_metric(3)
    start, end = metric.landmarks[:3], metric.landmarks[3:]
    best = shortest_paths(metric, start, end, tolerance=1e-7).lengths
    rough = shortest_paths(metric, start, end, tolerance=0.05)
    assert (rough.lengths / best - 1 < 3 * rough.residual.square() + 1e-4).all()


def test_a_logarithm_that_cannot_be_shot_is_said(caplog):
    # Over the hill geodesics spread apart so fast that shooting misses.
    hill, nodes = ring()
    velocity = logarithmic_map(hill, nodes[0], nodes[12], max_iterations=1, tolerance=1e-13)
    assert "shooting did not converge for 1 of 1 logarithms" in caplog.text
    assert torch.isfinite(velocity).all()


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"start": torch.zeros(3)}, DataError, r"start has shape \(3,\): expected \(2\)"),
        ({"end": torch.zeros(2).double()}, DataError, "end has dtype torch.float64: the metric"),
        ({"end": torch.tensor([math.nan, 0.0])}, DataError, "end has 1 NaN or infinite"),
        ({"end": torch.tensor([1.0, 1.0])}, DataError, "end: 1 of 1 points lie outside the dom"),
        (
            {"start": torch.zeros(3, 2), "end": torch.zeros(4, 2)},
            DataError,
            r"start has shape \(3, 2\) and end \(4, 2\): expected shapes that broadcast",
        ),
        ({"nodes": torch.ones(4, 2)}, DataError, "nodes: 4 of 4 points lie outside"),
        ({"num_points": 2}, ConfigurationError, "num_points=2: expected an integer at least 3"),
        ({"tolerance": 0.0}, ConfigurationError, "tolerance=0.0: .* greater than 0"),
        ({"resolution": -1.0}, ConfigurationError, "resolution=-1.0: .* greater than 0"),
        ({"max_iterations": 0}, ConfigurationError, "max_iterations=0: .* at least 1"),
    ],
)
def test_bad_arguments_are_refused(change, error, message):
    metric = PoincareMetric(2)
    metric.register_buffer("anchor", torch.zeros(1))  # gives it a dtype
    arguments = {"start": torch.zeros(2), "end": torch.full((2,), 0.5), **change}
    with pytest.raises(error, match=message):
        shortest_paths(metric, arguments.pop("start"), arguments.pop("end"), **arguments)
