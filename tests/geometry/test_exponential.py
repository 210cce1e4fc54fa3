import math

import pytest
import torch

from chartae.errors import ConfigurationError, DataError, DivergenceError
from chartae.geometry import (
    ConformalMetric,
    EuclideanMetric,
    PoincareMetric,
    exponential_map,
    exponential_path,
    parallel_transport,
)
from chartae.geometry.paths.exponential import shoot


def velocities(z, seed=5, scale=0.4):
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (scale * noise).to(z)


# --- the exponential map ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_closed_form(manifold, dtype):
    z = manifold.points(20, dtype=dtype)
    v = velocities(z, scale=0.3)
    end = exponential_map(manifold.metric.to(dtype), z, v)
    torch.testing.assert_close(end, manifold.exponential(z, v), atol=1e-4, rtol=1e-4)


def test_the_error_is_of_second_order(manifold):
    z = manifold.points(20)
    v = velocities(z, scale=0.3)
    errors = [
        (exponential_map(manifold.metric, z, v, num_steps=n) - manifold.exponential(z, v)).norm()
        for n in (40, 80)
    ]
    assert errors[0] < 1e-12 or 3.5 < errors[0] / errors[1] < 4.6  # a flat space has no error


def test_the_energy_is_kept_to_second_order(learned_metric):
    metric = learned_metric(3)
    z = metric.landmarks.repeat(3, 1)
    v = velocities(z, scale=0.8)
    momentum = metric.at(z).momentum(v)
    drifts = []
    for n in (100, 200):
        start, *_, end = shoot(metric, z, momentum, n)
        drifts.append((metric.hamiltonian(*end) / metric.hamiltonian(*start) - 1).abs().max())
    assert drifts[0] < 0.02
    assert drifts[0] / drifts[1] > 3.5


def test_a_geodesic_is_reversible(learned_metric):
    metric = learned_metric(2)
    z = metric.landmarks
    *_, (end, momentum) = shoot(metric, z, metric.at(z).momentum(velocities(z)), 400)
    back = exponential_map(metric, end, -metric.at(end).velocity(momentum), num_steps=400)
    torch.testing.assert_close(back, z, atol=1e-4, rtol=0)


def test_the_path_has_the_speed_asked_for(learned_metric):
    metric = learned_metric(2)
    z = metric.landmarks
    v = velocities(z)
    path = exponential_path(metric, z, v, num_steps=50)
    assert path.shape == (6, 51, 2)
    torch.testing.assert_close(path[:, 0], z)
    torch.testing.assert_close(path[:, -1], exponential_map(metric, z, v, num_steps=50))
    # Twice the velocity is the same geodesic, twice as far.
    double = exponential_path(metric, z, 2 * v, num_steps=100)
    torch.testing.assert_close(double[:, :51], path)


def test_leading_dimensions_broadcast():
    metric = PoincareMetric(2)
    z, v = torch.zeros(2), 0.5 * torch.randn(4, 3, 2)
    end = exponential_map(metric, z, v)
    assert end.shape == (4, 3, 2)
    torch.testing.assert_close(end[2, 1], exponential_map(metric, z, v[2, 1]))


def test_it_is_differentiable_and_the_identity_at_first_order(learned_metric):
    metric = learned_metric(2)
    z = metric.landmarks[0]
    jacobian = torch.autograd.functional.jacobian(
        lambda v: exponential_map(metric, z, v), torch.full((2,), 1e-7, dtype=torch.float64)
    )
    torch.testing.assert_close(jacobian, torch.eye(2).double(), atol=1e-5, rtol=0)
    assert not exponential_map(metric, z, torch.ones(2).double()).requires_grad


# --- parallel transport -------------------------------------------------------------------------


def test_the_holonomy_of_a_circle_is_the_area_inside():
    sphere = ConformalMetric(lambda z: math.log(2) - torch.log1p(z.square().sum(-1)), 2)
    ball = PoincareMetric(2).double()
    r = 0.6
    areas = {sphere: 4 * math.pi * r**2 / (1 + r**2), ball: -4 * math.pi * r**2 / (1 - r**2)}
    errors = []
    for count in (100, 200):
        angles = torch.linspace(0, 2 * math.pi, count + 1, dtype=torch.float64)
        circle = r * torch.stack([angles.cos(), angles.sin()], -1)
        for metric, area in areas.items():
            turned = parallel_transport(metric, circle, torch.tensor([1.0, 0.0]).double())[-1]
            angle = math.atan2(turned[1], turned[0])
            errors.append(abs(math.remainder(angle - area, 2 * math.pi)))
            assert float(turned.norm()) == pytest.approx(1.0, abs=1e-2)
    assert max(errors[2:]) < 3e-3
    assert errors[0] / errors[2] > 3.5
    assert errors[1] / errors[3] > 3.5


def test_inner_products_are_kept(learned_metric):
    metric = learned_metric(3)
    times = torch.linspace(0, 1, 150, dtype=torch.float64)[:, None]
    curve = torch.cat([times, (3 * times).sin(), times.square()], -1)
    u, v = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    both = parallel_transport(metric, curve, torch.stack([u, v]))
    assert both.shape == (2, 5, 150, 3)
    expected = metric.inner(curve[0], u, v)
    torch.testing.assert_close(
        metric.inner(curve[-1], *both[..., -1, :]), expected, atol=1e-3, rtol=1e-3
    )
    # It is linear, and undone by the way back.
    total = parallel_transport(metric, curve, 2 * u - v)
    torch.testing.assert_close(total, 2 * both[0] - both[1])
    back = parallel_transport(metric, curve.flip(0), both[0, :, -1])[:, -1]
    torch.testing.assert_close(back, u, atol=1e-3, rtol=1e-3)


def test_a_geodesic_carries_its_own_velocity(learned_metric):
    metric = learned_metric(2)
    z = metric.landmarks
    v = velocities(z)
    *_, (_, momentum) = shoot(metric, z, metric.at(z).momentum(v), 100)
    points = exponential_path(metric, z, v, num_steps=100)
    end = metric.at(points[:, -1]).velocity(momentum)
    carried = parallel_transport(metric, points, v)[:, -1]
    torch.testing.assert_close(carried, end, atol=1e-3, rtol=1e-3)
    assert (end - v).norm() > 0.05  # the metric turns it


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("z", "v", "message"),
    [
        (torch.zeros(3), torch.zeros(2), r"z has shape \(3,\): expected \(2\)"),
        (torch.zeros(2), torch.zeros(3), r"v has shape \(3,\): expected \(2\)"),
        (torch.zeros(2), torch.zeros(2).double(), "v has dtype torch.float64: the points have"),
        (torch.zeros(2).double(), torch.zeros(2), "v has dtype torch.float32: the points have"),
        (torch.zeros(2), torch.tensor([0.0, math.nan]), "v has 1 NaN or infinite"),
        (torch.tensor([math.inf, 0.0]), torch.zeros(2), "z has 1 NaN or infinite"),
        (
            torch.zeros(3, 2),
            torch.zeros(4, 2),
            r"v has shape \(4, 2\) for points of shape \(3, 2\)",
        ),
        (torch.zeros(0, 2), torch.zeros(2), r"z has shape \(0, 2\): expected at least one point"),
        ([0.0, 0.0], torch.zeros(2), "z is list: expected a torch.Tensor"),
    ],
)
def test_bad_points_are_refused(z, v, message):
    with pytest.raises(DataError, match=message):
        exponential_map(EuclideanMetric(2), z, v)


def test_points_outside_the_ball_are_refused():
    with pytest.raises(DataError, match="z: 1 of 2 points lie outside the domain of PoincareMet"):
        exponential_map(PoincareMetric(2), torch.tensor([[0.5, 0.5], [1.0, 0.5]]), torch.ones(2))


def test_a_metric_that_is_not_positive_definite_is_refused():
    class Lorentz(EuclideanMetric):
        def at(self, z):
            return super(EuclideanMetric, self).at(z)

    metric = Lorentz(2)
    metric.matrix = torch.diag(torch.tensor([1.0, -1.0]))
    with pytest.raises(DataError, match="Lorentz is not positive definite at 1 of 1 points of z"):
        exponential_map(metric, torch.zeros(2), torch.ones(2))


def test_other_refusals():
    metric = EuclideanMetric(2)
    with pytest.raises(ConfigurationError, match="num_steps=0: expected an integer at least 1"):
        exponential_map(metric, torch.zeros(2), torch.zeros(2), num_steps=0)
    with pytest.raises(DataError, match=r"curve has shape \(1, 2\): expected \(..., T, 2\), T at"):
        parallel_transport(metric, torch.zeros(1, 2), torch.zeros(2))
    with pytest.raises(DivergenceError, match="1 of 2 geodesics diverged"):
        exponential_map(
            PoincareMetric(2), torch.zeros(2), torch.tensor([[0.1, 0.0], [300.0, 0.0]]), num_steps=3
        )
