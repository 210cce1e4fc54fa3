"""Shortest paths on the unit sphere, in three charts, against the angle between points."""

import math

import pytest
import torch

from chartae.geometry import ConformalMetric, Metric, distance, length, shortest_paths


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
        2, 400, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    paths = shortest_paths(STEREOGRAPHIC, a, b, num_points=21)
    exact = angle(stereographic_point, a, b)
    found = paths.converged
    assert float(found.double().mean()) > 0.8
    torch.testing.assert_close(paths.lengths[found], exact[found], rtol=1e-2, atol=1e-6)
    times = torch.linspace(0.0, 1.0, 2001, dtype=torch.float64)[:, None]
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
