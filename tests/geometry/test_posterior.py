import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import chartae
from chartae.errors import ConfigurationError, DataError
from chartae.geometry.metrics.posterior import PosteriorMetric
from chartae.geometry.metrics.selection import nearest_neighbour_distances


def random_metric(
    n=6, d=3, *, seed=0, dtype=torch.float64, sigma=(0.3, 1.0), rho=1.3, full=False, **options
):
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(n, d, generator=generator, dtype=torch.float64)
    low, high = sigma
    sigmas = low + (high - low) * torch.rand(n, d, generator=generator, dtype=torch.float64)
    spread = sigmas.square()
    if full:
        factor = torch.randn(n, d, d, generator=generator, dtype=torch.float64).tril(-1)
        factor = sigmas[..., None] * (factor / d**0.5 + torch.eye(d, dtype=torch.float64))
        spread = factor @ factor.mT
    return PosteriorMetric(means.to(dtype), spread.to(dtype), rho, **options)


def naive_tensor(metric: PosteriorMetric, z: torch.Tensor) -> torch.Tensor:
    """MATH.md section 5 as it stands, with a (..., N, d, d) array and direct differences."""
    precisions = (
        torch.diag_embed(1.0 / metric.variances)
        if metric.variances.dim() == 2
        else torch.linalg.inv(metric.variances)
    )
    difference = z[..., None, :] - metric.means
    distances = torch.einsum("...ni,nij,...nj->...n", difference, precisions, difference)
    terms = torch.exp(-distances / metric.rho**2)[..., None, None] * precisions
    floor = metric.regularization * torch.exp(-metric.tau * z.square().sum(-1))
    return terms.sum(-3) + floor[..., None, None] * torch.eye(metric.dim, dtype=z.dtype)


@given(
    d=st.integers(1, 5),
    n=st.integers(1, 7),
    batch=st.lists(st.integers(1, 3), max_size=3).map(tuple),
    rho=st.sampled_from([0.4, 1.0, 3.0]),
    tau=st.sampled_from([0.0, 1e-3, 0.3]),
    regularization=st.sampled_from([1e-4, 1e-2, 1.0]),
    full=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_closed_forms_against_autograd(d, n, batch, rho, tau, regularization, full, seed):
    options = {"rho": rho, "tau": tau, "regularization": regularization, "full": full}
    metric = random_metric(n, d, seed=seed, **options)
    generator = torch.Generator().manual_seed(seed + 1)
    z, u, p = torch.randn(3, *batch, d, generator=generator, dtype=torch.float64)
    z.requires_grad_()
    p.requires_grad_()
    tensor = naive_tensor(metric, z)
    inverse = torch.linalg.inv(tensor)
    log_volume = 0.5 * torch.logdet(tensor)
    kinetic = 0.5 * torch.einsum("...i,...ij,...j->...", p, inverse, p)
    energy = 0.5 * torch.einsum("...i,...ij,...j->...", u, tensor, u)
    (volume_grad,) = torch.autograd.grad(log_volume.sum(), z, retain_graph=True)
    kinetic_grad, velocity = torch.autograd.grad(kinetic.sum(), (z, p), retain_graph=True)
    (energy_grad,) = torch.autograd.grad(energy.sum(), z)
    for context in (torch.enable_grad(), torch.no_grad()):
        with context:
            local = metric.at(z)
            for result, expected in [
                (local.tensor, tensor),
                (local.inverse, inverse),
                (local.log_volume, log_volume),
                (local.log_volume_grad(), volume_grad),
                (local.kinetic_grad(p), kinetic_grad),
                (local.velocity(p), velocity),
                (local.energy_grad(u), energy_grad),
            ]:
                torch.testing.assert_close(result, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("full", [False, True])
def test_the_closed_forms_are_differentiable(full):
    metric = random_metric(4, 2, tau=0.1, full=full)
    z, p = torch.randn(2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def closed_forms(means, variances, z, p):
        variances = 0.5 * (variances + variances.mT) if full else variances
        local = PosteriorMetric(means, variances, 1.3, tau=0.1, validate=False).at(z)
        return local.log_volume, local.log_volume_grad(), local.kinetic_grad(p), local.velocity(p)

    inputs = [t.clone().requires_grad_() for t in (metric.means, metric.variances, z, p)]
    assert torch.autograd.gradcheck(closed_forms, inputs)


def test_full_covariances_that_are_diagonal_give_the_diagonal_metric():
    diagonal = random_metric(40, 3, tau=0.1)
    z, p = torch.randn(2, 9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for rho in (1.3, "mahalanobis", "isolated", "euclidean"):
        first = PosteriorMetric(diagonal.means, diagonal.variances, rho, tau=0.1)
        full = PosteriorMetric(diagonal.means, torch.diag_embed(diagonal.variances), rho, tau=0.1)
        assert full.rho == pytest.approx(first.rho)
        for a, b in (
            (full.tensor(z), first.tensor(z)),
            (full.log_volume_grad(z), first.log_volume_grad(z)),
            (full.at(z).kinetic_grad(p), first.at(z).kinetic_grad(p)),
            (full.bumps.log_prob(z), first.bumps.log_prob(z)),
        ):
            torch.testing.assert_close(a, b)


def test_full_covariances_turn_with_the_latent_space():
    # A rotation of all means and covariances rotates the metric, which a diagonal one cannot.
    metric = random_metric(30, 3, full=True, rho="isolated")
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    turned = PosteriorMetric(
        metric.means @ rotation.mT, rotation @ metric.variances @ rotation.mT, "isolated"
    )
    z = torch.randn(9, 3, dtype=torch.float64)
    assert turned.rho == pytest.approx(metric.rho)
    torch.testing.assert_close(turned.log_volume(z @ rotation.mT), metric.log_volume(z))
    gradient = metric.log_volume_grad(z) @ rotation.mT
    torch.testing.assert_close(turned.log_volume_grad(z @ rotation.mT), gradient)


def test_the_gradient_is_the_slope_of_the_log_volume():
    metric = random_metric(5, 3, tau=0.2)
    z = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    step = 1e-5 * torch.eye(3, dtype=torch.float64)
    ahead, behind = (metric.log_volume(z[:, None] + s * step) for s in (1, -1))
    torch.testing.assert_close(
        metric.log_volume_grad(z), (ahead - behind) / 2e-5, rtol=0, atol=1e-8
    )


@pytest.mark.parametrize("full", [False, True])
def test_many_centroids_and_points_in_blocks(monkeypatch, full):
    metric = random_metric(2500, 3, sigma=(0.1, 0.3), tau=0.1, full=full)  # three pieces
    z, p = torch.randn(2, 7, 9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    whole = metric.log_volume(z), metric.log_volume_grad(z), metric.at(z).kinetic_grad(p)
    torch.testing.assert_close(metric.tensor(z), naive_tensor(metric, z))
    monkeypatch.setattr("chartae.geometry.metrics.posterior.BLOCK", 10_000)  # 9 points at once
    monkeypatch.setattr("chartae.geometry.metrics.posterior.KEPT", 0)
    blocks = metric.log_volume(z), metric.log_volume_grad(z), metric.at(z).kinetic_grad(p)
    for result, expected in zip(blocks, whole, strict=True):
        torch.testing.assert_close(result, expected)


def relative_error(result: torch.Tensor, expected: torch.Tensor) -> float:
    return float((result.double() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("sigma", [(0.1, 0.5), (0.01, 0.1), (1e-3, 1.2e-3)])
def test_float32_is_as_good_as_float64(sigma, full):
    single = random_metric(200, 16, dtype=torch.float32, sigma=sigma, rho=3.0, full=full)
    exact = PosteriorMetric(single.means.double(), single.variances.double(), single.rho)
    noise = torch.randn(200, 16, generator=torch.Generator().manual_seed(4))
    variances = single.variances
    root = torch.linalg.cholesky(variances) if full else torch.diag_embed(variances.sqrt())
    z = single.means + (root @ noise[..., None])[..., 0]
    p = torch.randn(200, 16, generator=torch.Generator().manual_seed(5))
    near, true = single.at(z), exact.at(z.double())
    assert near.log_volume.dtype == torch.float32
    assert relative_error(near.log_volume, true.log_volume) < 1e-5
    assert relative_error(near.log_volume_grad(), true.log_volume_grad()) < 1e-5
    assert relative_error(near.kinetic_grad(p), true.kinetic_grad(p.double())) < 1e-5

    if full:
        return
    # The expanded square in float32, as one would write it, is far from that at small sigmas.
    precisions = single.variances.reciprocal()
    squares = z.square() @ precisions.mT - 2 * z @ (precisions * single.means).mT
    squares = squares + (precisions * single.means.square()).sum(1)
    g = torch.exp(-squares / 9.0) @ precisions + single.regularization
    error = relative_error(0.5 * g.log().sum(-1), true.log_volume)
    assert error > 1e-5 or sigma[0] > 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_away_it_is_the_regularization(dtype):
    metric = random_metric(50, 4, dtype=dtype, sigma=(1e-3, 1.0))
    for distance in (1e4, 1e8):
        far = torch.full((2, 4), distance, dtype=dtype)
        far[1] *= -1
        expected = 0.01 * torch.eye(4, dtype=dtype).expand(2, 4, 4)
        torch.testing.assert_close(metric.tensor(far), expected, rtol=0, atol=0)
        torch.testing.assert_close(
            metric.log_volume(far), torch.full((2,), 2 * math.log(0.01)).to(dtype)
        )
        assert (metric.log_volume_grad(far).abs() < 1e-20).all()
        assert torch.isfinite(metric.at(far).kinetic_grad(far)).all()


def test_nan_stays_where_it_is():
    metric = random_metric(4, 2)
    z = torch.zeros(3, 2, dtype=torch.float64)
    z[1] = math.nan
    for values in (metric.log_volume(z), metric.log_volume_grad(z).sum(-1)):
        assert torch.isfinite(values).tolist() == [True, False, True]


def test_the_volume_is_large_near_the_data():
    metric = random_metric(4, 2)
    assert metric.volume_is_large_near_data
    assert (metric.log_volume(metric.means) > metric.log_volume(metric.means + 20)).all()


@pytest.mark.parametrize("n", [2, 40])
def test_rho_rules_by_brute_force(n):
    metric = random_metric(n, 3)
    means, variances = metric.means.tolist(), metric.variances.tolist()

    def nearest(i, scaled):
        return min(
            math.sqrt(
                sum((a - b) ** 2 / (v if scaled else 1) for a, b, v in zip(x, y, s, strict=True))
            )
            for x in [means[i]]
            for j, (y, s) in enumerate(zip(means, variances, strict=True))
            if j != i
        )

    def metric_by(rule):
        return PosteriorMetric(metric.means, metric.variances, rule)

    euclidean = max(nearest(i, scaled=False) for i in range(n))
    assert metric_by("euclidean").rho == pytest.approx(euclidean, rel=1e-9)
    assert metric_by(None).rho == metric_by("euclidean").rho
    mahalanobis = sorted(nearest(i, scaled=True) for i in range(n))[(n - 1) // 2]
    assert metric_by("mahalanobis").rho == pytest.approx(mahalanobis, rel=1e-9)
    isolated = np.quantile([nearest(i, scaled=True) for i in range(n)], 0.05) / 3
    assert metric_by("isolated").rho == pytest.approx(isolated, rel=1e-9)


def test_the_reach_of_the_posteriors_themselves():
    means = torch.randn(5000, 4, generator=torch.Generator().manual_seed(0)).double()
    ones = torch.ones_like(means)
    near, far = (PosteriorMetric(s * means, ones, "posterior") for s in (1.0, 1000.0))
    torch.testing.assert_close(near.bumps.loc, means)
    torch.testing.assert_close(near.bumps.scale, ones)  # that of each posterior
    # Of so many means, the neighbours of some are enough.
    expected = float(nearest_neighbour_distances(1000.0 * means).quantile(0.05)) / 3.0
    assert far.rho == PosteriorMetric(1000.0 * means, ones, "isolated").rho
    assert far.rho == pytest.approx(expected, rel=0.1)
    assert PosteriorMetric(means[:1], ones[:1], "posterior").rho == 2.0
    assert PosteriorMetric(torch.zeros(5, 4), torch.ones(5, 4), "posterior").rho == 2.0


def test_twins_do_not_decide_the_reach():
    metric = random_metric(40, 3)
    twins = PosteriorMetric(
        torch.cat([metric.means, metric.means[:10]]),
        torch.cat([metric.variances, metric.variances[:10]]),
        "isolated",
    )
    assert twins.rho > 0
    with pytest.raises(ConfigurationError, match="means coincide"):
        PosteriorMetric(torch.zeros(5, 2), torch.ones(5, 2), "isolated")


def test_isolated_bumps_are_equal_and_normal():
    # Near a code the volume is N(mu, rho^2 / d Sigma), of one mass for all codes.
    metric = random_metric(30, 4, seed=1, rho="isolated", regularization=1e-6)
    deviations = metric.rho / 2 * metric.variances.sqrt()
    noise = torch.randn(1000, 1, 4, generator=torch.Generator().manual_seed(0)).double()
    for scale in (0.0, 0.5, 1.0):
        z = metric.means + scale * deviations * noise
        height = metric.log_volume(z) + 0.5 * metric.variances.log().sum(-1)
        expected = -0.5 * scale**2 * noise.square().sum(-1).expand(-1, 30)
        assert float((height - expected).abs().median()) < 0.05


def test_state_moves_and_copies_with_the_module():
    metric = random_metric(dtype=torch.float32)
    z = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    assert set(metric.state_dict()) == {"means", "variances"}
    other = copy.deepcopy(metric)
    torch.testing.assert_close(other.log_volume(z.float()), metric.log_volume(z.float()))
    other.to(torch.float64)
    torch.testing.assert_close(other.tensor(z), naive_tensor(other, z))
    assert metric.log_volume(z.float()).dtype == torch.float32
    assert torch.equal(metric.centroids, metric.means)


def test_a_loaded_state_replaces_everything_derived():
    first, second = random_metric(seed=0), random_metric(seed=1)
    z = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    first.load_state_dict(second.state_dict())
    torch.testing.assert_close(first.log_volume_grad(z), second.log_volume_grad(z))


@pytest.mark.parametrize("covariance", ["full", "low-rank"])
def test_the_metric_of_correlated_posteriors(covariance):
    torch.manual_seed(0)
    model = chartae.VAE((6,), 3, posterior_covariance=covariance).eval()
    x = torch.rand(30, 6)
    metric = PosteriorMetric.from_model(model, x, batch_size=7)
    posterior = model.posterior(x)
    torch.testing.assert_close(metric.variances, posterior.covariance_matrix.detach())
    torch.testing.assert_close(metric.means, posterior.mean.detach())


MODELS = {
    "VAE": chartae.VAE,
    "BetaVAE": chartae.BetaVAE,
    "IWAE": chartae.IWAE,
    "HVAE": chartae.HVAE,
    "RHVAE": chartae.RHVAE,
}


@pytest.mark.parametrize("name", MODELS)
def test_the_metric_of_a_model(name):
    torch.manual_seed(0)
    model = MODELS[name]((6,), 2).eval()
    x = torch.rand(30, 6)
    metric = PosteriorMetric.from_model(model, x, batch_size=7)
    with torch.no_grad():
        posterior = model.posterior(x)
    torch.testing.assert_close(metric.means, posterior.mean)
    torch.testing.assert_close(metric.variances, posterior.variance)
    few = PosteriorMetric.from_model(model, x, num_centroids=5, selection="random", batch_size=7)
    rows = (few.means[:, None] == metric.means).all(-1)
    assert len(few.means) == 5
    assert rows.any(1).all()
    same = PosteriorMetric.from_model(model, x, num_centroids=5, selection="random", batch_size=7)
    assert torch.equal(few.means, same.means)


def test_models_without_a_gaussian_posterior_are_refused():
    x = torch.rand(4, 6)
    with pytest.raises(ConfigurationError, match="AE has no posterior"):
        PosteriorMetric.from_model(chartae.AE((6,), 2), x)

    class Laplace(chartae.VAE):
        def posterior(self, x):
            return torch.distributions.Laplace(x[:, :2], 1.0)

    with pytest.raises(ConfigurationError, match="posterior of Laplace is Laplace: .* Gaussian"):
        PosteriorMetric.from_model(Laplace((6,), 2), x)
    with pytest.raises(DataError, match="x has shape"):
        PosteriorMetric.from_model(chartae.VAE((6,), 2), x[:, :3])
    with pytest.raises(ConfigurationError, match="num_centroids=5: expected .* at most 4"):
        PosteriorMetric.from_model(chartae.VAE((6,), 2), x, num_centroids=5)
    with pytest.raises(ConfigurationError, match="batch_size=0"):
        PosteriorMetric.from_model(chartae.VAE((6,), 2), x, batch_size=0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"means": torch.zeros(5)}, DataError, r"means has shape \(5,\): expected \(N, d\)"),
        ({"means": torch.zeros(0, 2)}, DataError, "variances has shape"),
        ({"means": torch.zeros(5, 2).long()}, DataError, "means has dtype"),
        ({"means": [[0.0]]}, DataError, "means is list: expected a torch.Tensor"),
        ({"variances": torch.ones(4, 2)}, DataError, r"variances has shape .* \(5, 2\)"),
        ({"variances": torch.zeros(5, 2)}, DataError, "variances has 10 entries .* not positive"),
        ({"variances": torch.full((5, 2), math.nan)}, DataError, "variances has 10 NaN"),
        ({"variances": torch.ones(5, 2, 3)}, DataError, r"variances has shape .* \(5, 2, 2\)"),
        ({"variances": -torch.eye(2).repeat(5, 1, 1)}, DataError, "variances: 5 of 5 .* definite"),
        ({"means": torch.full((5, 2), math.inf)}, DataError, "means has 10 NaN or inf"),
        ({"rho": 0.0}, ConfigurationError, "rho=0.0: .* greater than 0"),
        ({"rho": "euclid"}, ConfigurationError, "rho='euclid' .* mean 'euclidean'"),
        ({"rho": None}, ConfigurationError, "means coincide"),
        ({"regularization": 0.0}, ConfigurationError, "regularization=0.0: .* greater than 0"),
        ({"tau": -1.0}, ConfigurationError, "tau=-1.0: .* at least 0"),
    ],
)
def test_bad_arguments_are_refused(change, error, message):
    arguments = {"means": torch.zeros(5, 2), "variances": torch.ones(5, 2), "rho": 1.0}
    with pytest.raises(error, match=message):
        PosteriorMetric(**{**arguments, **change})


def test_a_rule_needs_two_centroids_and_a_metric_one():
    with pytest.raises(ConfigurationError, match="rho=None needs two centroids"):
        PosteriorMetric(torch.zeros(1, 2), torch.ones(1, 2))
    with pytest.raises(DataError, match="at least one centroid"):
        PosteriorMetric(torch.zeros(0, 2), torch.ones(0, 2), 1.0)


def test_bad_points_are_refused():
    metric = random_metric()
    with pytest.raises(DataError, match=r"z has shape \(4, 2\): expected \(..., 3\)"):
        metric.tensor(torch.zeros(4, 2, dtype=torch.float64))
    with pytest.raises(DataError, match="z has dtype torch.float32: the metric has torch.float64"):
        metric.tensor(torch.zeros(4, 3))
