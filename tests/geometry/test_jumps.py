"""Jumps keep the law of a density whose masses are known, and find it where trajectories do not."""

import math

import pytest
import torch

from chartae.distributions import NormalMixture
from chartae.errors import ConfigurationError
from chartae.geometry import (
    CentroidMetric,
    Jumps,
    ManifoldDensity,
    PosteriorMetric,
    hmc,
    random_walk,
)
from chartae.geometry.mcmc.driver import State

CHAINS = 2000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def two_normals(dim: int) -> NormalMixture:
    """Two normals far apart, of unequal masses and widths."""
    loc = torch.zeros(2, dim, dtype=torch.float64)
    loc[:, 0] = torch.tensor([-20.0, 20.0])
    scale = torch.ones(2, dim, dtype=torch.float64)
    scale[1] = 0.5
    return NormalMixture(loc, scale, torch.tensor([0.987, 0.013], dtype=torch.float64))


def with_gradient(target):
    def density(z):
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            log_prob = target.log_prob(z)
            (grad,) = torch.autograd.grad(log_prob.sum(), z)
        return log_prob.detach(), grad

    return density


@pytest.mark.parametrize("dim", [2, 8, 16])
def test_masses_far_apart_are_found_from_any_start(dim):
    target = two_normals(dim)
    # Proposals with other shares and widths than the target's: only the acceptance corrects them.
    proposal = NormalMixture(target.loc, 0.9 * target.scale, torch.tensor([0.5, 0.5]).double())
    start = target.loc[torch.arange(CHAINS) % 2]
    options = {"num_steps": 20, "num_leapfrog": 4, "num_warmup": 10}
    still = hmc(with_gradient(target), start, **options, generator=generator())
    assert float((still.final[:, 0] < 0).double().mean()) == 0.5
    jumps = Jumps(target.log_prob, proposal, count=5)
    chain = hmc(with_gradient(target), start, **options, jumps=jumps, generator=generator())
    found = chain.final[:, 0] < 0
    assert abs(float(found.double().mean()) - 0.987) < 4 * math.sqrt(0.987 * 0.013 / CHAINS)
    assert float(chain.r_hat.max()) < 1.05
    spread = chain.samples[-10:].reshape(-1, dim)
    within = spread[spread[:, 0] < 0].std(0)
    torch.testing.assert_close(within, torch.ones(dim).double(), atol=0.05, rtol=0)


def test_one_jump_leaves_the_law_as_it_is():
    """Draws of the target stay draws of it, whatever the proposals are."""
    target = two_normals(2)
    proposal = NormalMixture(
        target.loc + 0.7, 1.3 * target.scale, torch.tensor([0.2, 0.8]).double()
    )
    z = target.sample((20_000,), generator())
    state = State(z, target.log_prob(z))
    moved = Jumps(target.log_prob, proposal)(state, generator(1))
    assert 0.1 < float((moved.z != z).any(-1).double().mean()) < 0.9
    assert moved.grad is None
    torch.testing.assert_close(moved.log_density, target.log_prob(moved.z))
    left, right = (moved.z[side] for side in (moved.z[:, 0] < 0, moved.z[:, 0] > 0))
    assert abs(len(left) / 20_000 - 0.987) < 4 * math.sqrt(0.987 * 0.013 / 20_000)
    for part, mean, deviation in ((left, -20.0, 1.0), (right, 20.0, 0.5)):
        error = deviation / math.sqrt(len(part))
        assert abs(float(part[:, 0].mean()) - mean) < 4 * error
        assert abs(float(part[:, 1].std()) - deviation) < 4 * error


def clusters(kind: str, dim: int, dtype: torch.dtype = torch.float64):
    """Six coinciding centroids and two, far apart: masses as 6^(d/2) and 2^(d/2)."""
    centroids = torch.zeros(8, dim, dtype=dtype)
    centroids[:6, 0], centroids[6:, 0] = -6.0, 6.0
    if kind == "posterior":
        return PosteriorMetric(centroids, torch.full_like(centroids, 0.25), 1.0, 1e-8)
    return CentroidMetric(centroids, torch.eye(dim, dtype=dtype).expand(8, dim, dim), 1.0, 1e-8)


@pytest.mark.parametrize("kind", ["centroid", "posterior"])
@pytest.mark.parametrize("dim", [8, 16])
def test_bumps_of_a_metric_have_the_masses_of_the_volume(kind, dim):
    metric = clusters(kind, dim)
    density = ManifoldDensity(metric)
    exact = 6 ** (dim / 2) / (6 ** (dim / 2) + 2 ** (dim / 2))
    jumps, starts = Jumps.adapted(density.log_prob, metric.bumps, generator())
    weights = jumps.proposal.weights
    assert abs(float(weights[:6].sum()) - (0.9 * exact + 0.1 * 0.75)) < 0.02
    assert jumps.count <= 3
    assert abs(float((starts[:, 0] < 0).double().mean()) - exact) < 0.02
    start = metric.centroids[torch.arange(CHAINS) % 8]  # the law of the codes, not of the volume
    chain = hmc(
        density, start, num_steps=20, num_leapfrog=3, num_warmup=10, jumps=jumps,
        generator=generator(1),
    )  # fmt: skip
    found = float((chain.final[:, 0] < 0).double().mean())
    assert abs(found - exact) < 4 * math.sqrt(exact * (1 - exact) / CHAINS) + 1e-4
    assert float(chain.r_hat.max()) < 1.05


def test_the_exact_walk_jumps_too():
    metric = clusters("centroid", 2)
    density = ManifoldDensity(metric)
    jumps, _ = Jumps.adapted(density.log_prob, metric.bumps, generator())
    start = metric.centroids[torch.arange(1000) % 8]
    options = {"num_steps": 5, "covariance": 0.1, "num_integration_steps": 2}
    chain = random_walk(metric, start, exact=True, **options, jumps=jumps, generator=generator(1))
    found = float((chain.final[:, 0] < 0).double().mean())
    assert abs(found - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 1000)
    with pytest.raises(
        ConfigurationError, match="jumps: the published walk .* does not sample the density"
    ):
        random_walk(metric, start, **options, jumps=jumps)


@pytest.mark.slow
def test_a_density_that_the_mixture_does_not_cover_has_many_jumps_and_keeps_its_law():
    target = NormalMixture(torch.zeros(1, 6).double(), torch.tensor(1.0).double())
    narrow = NormalMixture(torch.zeros(1, 6).double(), torch.tensor(0.2).double())
    jumps, _ = Jumps.adapted(target.log_prob, narrow, generator())
    assert jumps.count > 5
    start = target.sample((CHAINS,), generator())
    chain = hmc(with_gradient(target), start, num_steps=10, jumps=jumps, generator=generator(1))
    torch.testing.assert_close(chain.final.std(0), torch.ones(6).double(), atol=0.08, rtol=0)


@pytest.mark.slow
def test_codes_that_nearly_coincide_are_sampled_within_their_narrow_wall():
    """S is then far narrower than a bump, and all proposals as wide as bumps are beyond it."""
    centroids = 1e-3 * torch.randn(10, 6, generator=generator()).double()
    metric = CentroidMetric(centroids, torch.eye(6).double().expand(10, 6, 6), 1.0, 1e-2)
    density = ManifoldDensity(metric)
    jumps, starts = Jumps.adapted(density.log_prob, metric.bumps, generator())
    assert density.contains(starts).all()
    chain = hmc(density, starts[:500], num_steps=20, first_step_size=1e-3, jumps=jumps,
                generator=generator(1))  # fmt: skip
    # Flat inside: the norm has the law of a uniform point of a ball in 6 dimensions.
    norm = chain.final.norm(dim=-1) / density.radius
    assert abs(float(norm.mean()) - 6 / 7) < 4 * math.sqrt(6 / 8 - (6 / 7) ** 2) / math.sqrt(500)


def test_more_components_than_can_be_adapted_keep_equal_weights():
    many = NormalMixture(torch.randn(5000, 2, generator=generator()), torch.tensor(0.1))
    jumps, starts = Jumps.adapted(many.log_prob, many, generator())
    assert jumps.proposal is many
    assert starts.shape == (1000, 2)
    assert jumps.count == 1


def test_a_count_is_checked():
    target = two_normals(2)
    with pytest.raises(ConfigurationError, match="count=0: expected an integer"):
        Jumps(target.log_prob, target, count=0)


@pytest.mark.slow
def test_the_mass_between_many_bumps_is_found():
    """It is uniform in a ball, most draws of the widest component are outside it or near its rim,
    and the bumps have a hundredth of the mass."""
    dim, radius = 16, 10.0
    loc = torch.randn(201, dim, generator=generator(), dtype=torch.float64)
    loc[-1] = 0.0
    scale = torch.full((201, dim), 0.05, dtype=torch.float64)
    scale[-1] = radius / dim**0.5
    proposal = NormalMixture(loc, scale)
    bumps = NormalMixture(loc[:-1], scale[:-1])
    log_ball = 0.5 * dim * math.log(math.pi) - math.lgamma(0.5 * dim + 1) + dim * math.log(radius)

    def log_prob(z):
        inside = torch.where(z.norm(dim=-1) <= radius, math.log(0.99) - log_ball, -math.inf)
        return torch.logaddexp(inside, math.log(0.01) + bumps.log_prob(z))

    for seed in range(6):
        jumps, _ = Jumps.adapted(log_prob, proposal, generator(seed))
        assert float(jumps.proposal.weights[-1]) > 0.8
