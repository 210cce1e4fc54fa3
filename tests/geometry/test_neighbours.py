import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chartae.errors import ConfigurationError, DataError
from chartae.geometry import EuclideanMetric, hmc, neighbours
from chartae.geometry.neighbours import NeighbourMetric
from chartae.geometry.posterior import PosteriorMetric

# Squares of 1e8 are expanded where sigma is 0.01 and a point is 100 away.
ROUNDING = 1e-8


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch):
    monkeypatch.setattr(neighbours, "DENSE", 50)
    monkeypatch.setattr(neighbours, "WORTH", 1.0)


def clusters(n=600, d=3, *, seed=0, rho=1.0, spread=4.0, dtype=torch.float64, **options):
    """A metric of clusters whose sigmas differ a hundredfold, and by coordinate."""
    generator = torch.Generator().manual_seed(seed)
    centres = spread * torch.randn(5, d, generator=generator, dtype=torch.float64)
    label = torch.randint(5, (n,), generator=generator)
    means = centres[label] + torch.randn(n, d, generator=generator, dtype=torch.float64)
    exponent = torch.rand(n, d, generator=generator, dtype=torch.float64)
    sigmas = 10.0 ** (-2.0 * exponent * (label % 3)[:, None] / 2)
    return PosteriorMetric(means.to(dtype), sigmas.square().to(dtype), rho, **options)


def places(metric: PosteriorMetric, seed=0) -> torch.Tensor:
    """Points at the data, between clusters, at random, and in the void: ``(80, d)``."""
    generator = torch.Generator().manual_seed(seed)
    means = metric.means
    options = {"generator": generator, "dtype": means.dtype}
    first, second = means[torch.randint(len(means), (2, 20), generator=generator)]
    noise = torch.randn(2, 20, metric.dim, **options)
    void = 30.0 * torch.randn(20, metric.dim, **options)
    return torch.cat([first + 0.05 * noise[0], 0.5 * (first + second), 4 * noise[1], void])


def check_bounds(near: NeighbourMetric, z: torch.Tensor) -> None:
    """The docstring's bounds, by direct sums over all centroids; and something for rounding."""
    whole, c = near.metric, near.tolerance
    few, all_ = near.at(z), whole.at(z)
    error = all_.log_volume - few.log_volume
    assert (error >= -ROUNDING).all()
    assert (error <= -0.5 * math.log1p(-c) + ROUNDING).all()
    assert (few.diagonal <= all_.diagonal * (1 + 1e-8)).all()
    assert (few.diagonal >= all_.diagonal * (1 - c - 1e-8)).all()

    precisions = 1.0 / whole.variances
    squares = ((z[:, None] - whole.means).square() * precisions).sum(-1) / whole.rho**2
    weights = torch.exp(-squares)
    total = weights @ precisions
    m = ((weights * squares.sqrt()) @ precisions / total).nan_to_num().amax(-1, keepdim=True)
    # Of all centroids rather than of those kept, which are as good as all where c is small.
    bound = c * (1 + m) * precisions.amax(0).sqrt() / whole.rho + c * whole.tau * z.abs()
    assert (
        (few.log_volume_grad() - all_.log_volume_grad()).abs() <= bound * (1 + 1e-9) + 1e-6
    ).all()


@settings(max_examples=20)
@given(
    d=st.integers(1, 4),
    rho=st.sampled_from([0.5, 1.5, 4.0]),
    tolerance=st.sampled_from([1e-5, 1e-2]),
    tau=st.sampled_from([0.0, 1e-2]),
    group_size=st.sampled_from([1, 8, 200]),
    share=st.floats(0.0, 1.5),
    seed=st.integers(0, 1000),
)
def test_the_bounds_hold(d, rho, tolerance, tau, group_size, share, seed):
    metric = clusters(200, d, seed=seed, rho=rho, tau=tau)
    near = NeighbourMetric(metric, tolerance=tolerance, group_size=group_size)
    start = places(metric, seed)
    check_bounds(near, start)
    generator = torch.Generator().manual_seed(seed)
    step = torch.randn(start.shape, generator=generator, dtype=start.dtype)
    step *= share * near.reach / step.norm(dim=-1, keepdim=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "STRAYS", 1.0)  # the choice is kept, for those in reach
        check_bounds(near, start + step)


def kept(near: NeighbourMetric) -> float:
    """The share of (point, centroid) pairs that are summed."""
    known = near._neighbours
    pairs = sum(len(rows) * len(few.means) for rows, few in known.groups)
    return pairs / len(known.points) / len(near.centroids)


def test_most_centroids_are_skipped_and_the_choice_is_made_again_in_time():
    metric = clusters(600, rho=1.0)
    near = NeighbourMetric(metric, group_size=4)
    z = metric.means[::10]
    near.at(z)
    assert kept(near) < 0.3
    chosen = near._neighbours
    near.at(z + 0.02 * near.reach)
    assert near._neighbours is chosen
    moved = z.clone()
    moved[7] += 5.0  # one that strays is given all centroids
    assert near.at(moved).strays.tolist() == [7]
    assert near._neighbours is chosen
    near.at(z + 5.0)
    assert near._neighbours is not chosen
    void = NeighbourMetric(metric)
    void.at(z + 1e4)
    assert kept(void) == 1 / 600


def test_all_are_summed_where_most_matter(monkeypatch):
    monkeypatch.setattr(neighbours, "WORTH", 0.125)
    metric = clusters(300, rho=20.0)
    near, z = NeighbourMetric(metric), places(metric)
    assert torch.equal(near.log_volume(z), metric.log_volume(z))
    chosen = near._neighbours
    assert torch.equal(near.log_volume_grad(z + 3.0), metric.log_volume_grad(z + 3.0))
    assert near._neighbours is chosen


def test_other_points_and_another_state_are_noticed():
    metric, other = clusters(seed=0), clusters(seed=1)
    near = NeighbourMetric(metric)
    for z in (places(metric), places(metric)[:33], places(metric).reshape(8, 10, 3)):
        torch.testing.assert_close(near.log_volume(z), metric.log_volume(z), rtol=0, atol=1e-5)
    z = places(other)
    near.metric.load_state_dict(other.state_dict())
    torch.testing.assert_close(near.log_volume(z), other.log_volume(z), rtol=0, atol=1e-5)
    copied = copy.deepcopy(near).float()
    assert copied.log_volume(z.float()).dtype == torch.float32
    assert torch.equal(near.centroids, other.means)


def test_float32():
    single = clusters(dtype=torch.float32)
    exact = PosteriorMetric(single.means.double(), single.variances.double(), single.rho)
    near, z = NeighbourMetric(single), places(single)
    volume, gradient = near.log_volume(z), near.log_volume_grad(z)
    expected = exact.log_volume_grad(z.double())
    torch.testing.assert_close(volume.double(), exact.log_volume(z.double()), rtol=1e-5, atol=1e-4)
    error = (gradient - expected).abs().max()
    assert gradient.dtype == torch.float32
    assert error < 2e-5 * expected.abs().max()


def test_it_is_differentiable():
    metric = clusters(100)
    near = NeighbourMetric(metric, tolerance=1e-8)
    z = places(metric)[::9].requires_grad_()
    momentum = torch.ones_like(z)
    for name in ("log_volume", "log_volume_grad", "kinetic_grad"):
        grads = []
        for local in (near.at(z), metric.at(z)):
            value = getattr(local, name)
            value = value if name == "log_volume" else value(*[momentum] * (name[0] == "k"))
            grads.append(torch.autograd.grad(value.sum(), z)[0])
        scale = float(grads[1].abs().max())
        torch.testing.assert_close(grads[0], grads[1], rtol=1e-5, atol=1e-6 * scale)


def test_nan_stays_where_it_is():
    metric = clusters()
    near, z = NeighbourMetric(metric), places(metric)
    z[3], z[4] = math.nan, math.inf
    finite = torch.isfinite(z).all(1)
    for _ in range(2):
        assert near.log_volume(z).isnan().tolist()[3]
        assert torch.isfinite(near.log_volume(z)[finite]).all()
        assert torch.isfinite(near.log_volume_grad(z)[finite]).all()
        z = z + 1e-3


def test_chains_are_those_of_all_centroids():
    metric = clusters(300, 2, rho=2.0)
    initial = metric.means[:40]

    def run(metric):
        def density(z):
            local = metric.at(z)
            return local.log_volume, local.log_volume_grad()

        generator = torch.Generator().manual_seed(0)
        options = {"num_steps": 5, "num_leapfrog": 5, "num_warmup": 0, "step_size": 0.01}
        return hmc(density, initial, generator=generator, **options).final

    chains = run(NeighbourMetric(metric, tolerance=1e-7))
    torch.testing.assert_close(chains, run(metric), rtol=0, atol=1e-5)


def test_bad_arguments_are_refused():
    metric = clusters()
    with pytest.raises(ConfigurationError, match="metric is EuclideanMetric: .* PosteriorMetric"):
        NeighbourMetric(EuclideanMetric(3))
    with pytest.raises(ConfigurationError, match=r"tolerance=0.5: .* at most 0.1"):
        NeighbourMetric(metric, tolerance=0.5)
    with pytest.raises(ConfigurationError, match=r"reach=0.0: .* greater than 0"):
        NeighbourMetric(metric, reach=0.0)
    with pytest.raises(ConfigurationError, match="group_size=0"):
        NeighbourMetric(metric, group_size=0)
    with pytest.raises(DataError, match=r"z has shape \(4, 2\): expected \(..., 3\)"):
        NeighbourMetric(metric).at(torch.zeros(4, 2, dtype=torch.float64))
