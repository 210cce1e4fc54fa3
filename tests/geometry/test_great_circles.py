"""Shortest paths on the unit sphere, in three charts, against the angle between points."""

import math

import pytest
import torch

from chartae.geometry import (
    ConformalMetric,
    Metric,
    distance,
    frechet_mean,
    length,
    shortest_paths,
)
from chartae.geometry.paths.energy_descent import EnergyDescent
from chartae.geometry.statistics.solver import Solver


def stereographic_point(z):
    squared = z.square().sum(-1, keepdim=True)
    return torch.cat([2.0 * z, squared - 1.0], -1) / (1.0 + squared)


def gnomonic_point(z):
    return torch.cat([z, torch.ones_like(z[..., :1])], -1) / (1 + z.square().sum(-1, True)).sqrt()


def angular_point(z):
    latitude, longitude = z.unbind(-1)
    across = latitude.cos()
    return torch.stack([across * longitude.cos(), across * longitude.sin(), latitude.sin()], -1)


class Gnomonic(Metric):
    """The sphere seen from its centre: great circles are straight lines."""

    dim = 2

    def tensor(self, z):
        square = 1.0 + z.square().sum(-1)[..., None, None]
        outer = z[..., :, None] * z[..., None, :]
        return torch.eye(2, dtype=z.dtype) / square - outer / square**2


class Angles(Metric):
    """Latitude and longitude."""

    dim = 2

    def tensor(self, z):
        one = torch.ones_like(z[..., 0])
        return torch.diag_embed(torch.stack([one, z[..., 0].cos().square()], -1))


STEREOGRAPHIC = ConformalMetric(lambda z: torch.log(2.0 / (1.0 + z.square().sum(-1))), 2)


def angle(point, a, b):
    """Angle between points of the chart, by the half chord, which loses no digits."""
    return 2.0 * ((point(a) - point(b)).norm(dim=-1) / 2.0).clamp_max(1.0).asin()


def uniform(low, high, count, seed):
    generator = torch.Generator().manual_seed(seed)
    low, high = (torch.tensor(end, dtype=torch.float64) for end in (low, high))
    return low + (high - low) * torch.rand(2, count, 2, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("metric", "point", "ends"),
    [
        (STEREOGRAPHIC, stereographic_point, uniform([-0.6, -0.6], [0.6, 0.6], 1500, 0)),
        (Gnomonic(), gnomonic_point, uniform([-2.0, -2.0], [2.0, 2.0], 500, 1)),
        (Angles(), angular_point, uniform([-1.0, -1.2], [1.0, 1.2], 500, 2)),
    ],
    ids=["stereographic", "gnomonic", "angles"],
)
def test_within_a_hemisphere_every_great_circle_is_found(metric, point, ends):
    paths = shortest_paths(metric, *ends, num_points=21)
    exact = angle(point, *ends)
    assert paths.converged.all()
    torch.testing.assert_close(paths.lengths, exact, rtol=1e-2, atol=1e-6)
    assert float((paths.lengths / exact - 1.0).abs().median()) < 1e-3


def test_no_path_around_the_sphere_is_wrong_without_a_word():
    """Ends may be so far out that the great circle leaves the chart through infinity."""
    a, b = 6.0 * torch.randn(
        2, 150, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    paths = shortest_paths(STEREOGRAPHIC, a, b, num_points=21)
    exact = angle(stereographic_point, a, b)
    found = paths.converged
    assert float(found.double().mean()) > 0.8
    torch.testing.assert_close(paths.lengths[found], exact[found], rtol=1e-2, atol=1e-6)
    times = torch.linspace(0.0, 1.0, 501, dtype=torch.float64)[:, None]
    lines = length(STEREOGRAPHIC, torch.lerp(a[:, None], b[:, None], times))
    assert (paths.lengths <= lines * (1.0 + 5e-2)).all()


def test_an_ascent_is_no_residual_of_zero(caplog):
    start = torch.tensor([1.0679713618832807, -0.1990283293068106], dtype=torch.float64)
    end = torch.tensor([-2.418153766122256, 0.5193614030311192], dtype=torch.float64)
    exact = 2.25617
    paths = shortest_paths(STEREOGRAPHIC, start, end)
    assert not paths.converged
    assert math.isinf(paths.residual)
    # The line, which is the other arc of the great circle.
    assert float(paths.lengths) == pytest.approx(2.0 * math.pi - exact, rel=1e-3)
    assert float(distance(STEREOGRAPHIC, start, end)) > exact
    assert "1 of 1 shortest paths were not found" in caplog.text


def test_a_residual_is_that_of_the_points_returned():
    """Great circles are straight lines here, so the paths start at what they seek."""
    start, end = uniform([-2.0, -2.0], [2.0, 2.0], 500, 1)
    paths = shortest_paths(Gnomonic(), start, end, num_points=21)
    assert (own_residuals(Gnomonic(), paths.points) <= 3e-4).all()
    times = torch.linspace(0.0, 1.0, 41, dtype=torch.float64)[:, None]
    lines = length(Gnomonic(), torch.lerp(start[:, None], end[:, None], times))
    assert (paths.lengths <= lines * (1.0 + 1e-12)).all()


def own_residuals(metric, points):
    """Residuals of paths as they are, by the first variation of the energy at their points."""
    points = points.clone().requires_grad_()
    step = points.diff(dim=1)
    segments = step.shape[1]
    tensor = metric.tensor(0.5 * (points[:, 1:] + points[:, :-1]))
    energy = 0.5 * segments * torch.einsum("pki,pkij,pkj->p", step, tensor, step)
    (grad,) = torch.autograd.grad(energy.sum(), points)
    hessian = torch.zeros(len(points), segments - 1, 2, segments - 1, 2, dtype=points.dtype)
    # Of the metric frozen where the path is: block tridiagonal.
    blocks = segments * tensor.detach()
    for k in range(segments - 1):
        hessian[:, k, :, k] = blocks[:, k] + blocks[:, k + 1]
        if k:
            hessian[:, k, :, k - 1] = hessian[:, k - 1, :, k] = -blocks[:, k]
    inner = grad[:, 1:-1].flatten(1)
    size = inner.shape[1]
    move = torch.linalg.solve(hessian.reshape(-1, size, size), inner)
    return ((inner * move).sum(-1) / (2.0 * energy.detach())).sqrt()


@pytest.mark.slow
def test_the_paths_of_a_mean_are_never_shorter_than_distances(caplog, monkeypatch):
    """They continue one another, and where one is lost its length is still an upper bound."""
    ratios = []
    relax = Solver._relax

    def recorded(solver, curves):
        paths = relax(solver, curves)
        exact = angle(stereographic_point, curves[:, 0], curves[:, -1])
        ratios.append(paths.lengths / exact)
        return paths

    monkeypatch.setattr(Solver, "_relax", recorded)
    points = 6.0 * torch.randn(
        12, 2, generator=torch.Generator().manual_seed(7), dtype=torch.float64
    )
    mean = frechet_mean(STEREOGRAPHIC, points, num_points=21)
    assert float(torch.cat(ratios).min()) > 0.97
    assert float(mean.norm()) < 1e3  # not out through infinity
    assert "means did not converge" in caplog.text


def test_a_memory_that_misleads_is_dropped(monkeypatch):
    times = torch.linspace(0.0, 1.0, 9, dtype=torch.float64)[:, None]
    start, end = torch.tensor([0.5, 0.1]).double(), torch.tensor([-0.3, 0.6]).double()
    descent = EnergyDescent(STEREOGRAPHIC, torch.lerp(start, end, times)[None], 1e-4)
    local, *_ = descent._evaluate(descent.x)
    down = descent._direction(local)
    descent.curvatures = torch.ones_like(descent.curvatures)
    monkeypatch.setattr(
        descent, "_direction", lambda local: -down if descent.curvatures.any() else down
    )
    direction, slope, lost = descent._descending(local)
    assert not lost.any()
    assert (slope < 0.0).all()
    torch.testing.assert_close(direction, down)
    assert (descent.curvatures == 0.0).all()
