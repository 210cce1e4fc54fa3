"""Gradients of distances in their end points: closed forms, and differences of distances."""

import math

import pytest
import torch

from chartae.geometry import (
    CentroidMetric,
    ConstantMetric,
    EuclideanMetric,
    PoincareMetric,
    distance,
)


def leaves(*points):
    return [torch.as_tensor(p, dtype=torch.float64).requires_grad_() for p in points]


def bumpy() -> CentroidMetric:
    generator = torch.Generator().manual_seed(0)
    centroids = torch.randn(4, 2, generator=generator, dtype=torch.float64)
    factors = torch.randn(4, 2, 2, generator=generator, dtype=torch.float64)
    matrices = 0.3 * factors @ factors.mT + 0.5 * torch.eye(2, dtype=torch.float64)
    return CentroidMetric(centroids, matrices, temperature=1.0, regularization=0.5)


def test_of_a_constant_metric_it_is_the_lowered_direction():
    matrix = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    start, end = leaves([[0.0, 0.0], [1.0, 2.0]], [0.3, -0.4])
    lengths = distance(ConstantMetric(matrix), start, end)
    lengths.sum().backward()
    step = (end - start).detach()
    expected = step @ matrix / lengths.detach()[:, None]
    torch.testing.assert_close(start.grad, -expected)
    # An end that is broadcast collects from all its pairs.
    torch.testing.assert_close(end.grad, expected.sum(0))


def test_near_the_rim_of_the_ball_it_is_that_of_the_formula():
    start, end = leaves([0.3, 0.2], [[0.1, -0.9], [0.9999, 0.0], [-0.2, 0.1]])
    metric = PoincareMetric(2)
    distance(metric, start, end).sum().backward()
    x, y = leaves(start.detach(), end.detach())
    gap = (1 - x.square().sum()) * (1 - y.square().sum(-1))
    torch.acosh(1 + 2 * (x - y).square().sum(-1) / gap).sum().backward()
    torch.testing.assert_close(start.grad, x.grad, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(end.grad, y.grad, rtol=1e-8, atol=1e-8)


def test_of_a_metric_without_formulas_it_is_the_slope_of_the_distance():
    metric = bumpy()
    options = {"num_points": 101, "tolerance": 1e-8, "max_iterations": 2000}
    start, end = leaves([[-1.0, 0.3], [0.5, 1.0]], [[0.8, -0.2], [-0.4, -1.2]])
    distance(metric, start, end, **options).sum().backward()
    step = 1e-3
    for point, grad in ((start, start.grad), (end, end.grad)):
        for axis in range(2):
            shift = step * torch.eye(2, dtype=torch.float64)[axis]
            ends = [
                distance(metric, *(p.detach() + s * shift if p is point else p.detach() for p in
                                   (start, end)), **options)
                for s in (1.0, -1.0)
            ]  # fmt: skip
            slope = (ends[0] - ends[1]) / (2 * step)
            torch.testing.assert_close(grad[:, axis], slope, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("metric", [EuclideanMetric(2), PoincareMetric(2), bumpy()])
def test_points_that_coincide_have_the_gradient_zero(metric):
    start, end = leaves([[0.1, 0.2], [0.3, 0.0]], [[0.1, 0.2], [-0.2, 0.4]])
    lengths = distance(metric, start, end)
    lengths.sum().backward()
    assert float(lengths[0].detach()) == pytest.approx(0.0, abs=1e-12)
    for grad in (start.grad, end.grad):
        assert grad[0].tolist() == [0.0, 0.0]
        assert torch.isfinite(grad).all()
        assert float(grad[1].norm()) > 0.1


def test_a_loss_of_distances_pulls_points_together():
    metric, points = bumpy(), torch.tensor([[1.0, 1.0], [-1.0, 0.4]], dtype=torch.float64)
    mean = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([mean], lr=0.2)
    before = None
    for _ in range(15):
        optimizer.zero_grad()
        loss = distance(metric, mean, points).square().mean()
        before = before or float(loss.detach())
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.9 * before
    assert float(mean.grad.norm()) < 0.1


def test_only_what_asks_gets_a_gradient():
    start, end = leaves([0.0, 0.0], [0.3, 0.4])
    metric = EuclideanMetric(2)
    assert not distance(metric, start.detach(), end.detach()).requires_grad
    with torch.no_grad():
        assert not distance(metric, start, end).requires_grad
    (slope,) = torch.autograd.grad(distance(metric, start.detach(), end), end)
    torch.testing.assert_close(slope, torch.tensor([0.6, 0.8], dtype=torch.float64))
    single = torch.tensor([0.3, 0.4], requires_grad=True)
    distance(metric, torch.zeros(2), single).backward()
    assert single.grad.dtype == torch.float32
    assert math.isclose(float(single.grad.norm()), 1.0, rel_tol=1e-6)


def test_gradients_are_constants():
    start, end = leaves([0.0, 0.0], [0.3, 0.4])
    lengths = distance(PoincareMetric(2), start, end)
    (slope,) = torch.autograd.grad(lengths, end, create_graph=True)
    assert not slope.requires_grad
