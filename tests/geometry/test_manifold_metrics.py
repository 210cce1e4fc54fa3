"""Every metric against the truth: its tensor written naively, and autograd of that."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd.functional import hessian, jacobian
from torch.distributions import Normal

import chartae
from chartae.data import digits
from chartae.distributions import GaussianLikelihood
from chartae.errors import ConfigurationError, DataError
from chartae.geometry import (
    CentroidMetric,
    ConformalMetric,
    ConstantMetric,
    EuclideanMetric,
    Metric,
    PoincareMetric,
    PosteriorMetric,
    PullbackMetric,
    check_points,
)

CLOSE = {"rtol": 1e-7, "atol": 1e-8}


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def spd(*shape, seed=0):
    """Random symmetric positive definite matrices ``(*shape, d, d)``."""
    factors = randn(*shape, shape[-1], seed=seed) / math.sqrt(shape[-1])
    return factors @ factors.mT + 0.2 * torch.eye(shape[-1], dtype=torch.float64)


class ByTensor(Metric):
    """A user's own metric, known by its tensor only."""

    def __init__(self, function, dim):
        super().__init__()
        self.function, self._dim = function, dim

    @property
    def dim(self):
        return self._dim

    def tensor(self, z):
        return self.function(z)


class Torus(nn.Module):
    """Angles to points of space, with radii 2 and 1 that move with the module."""

    def __init__(self):
        super().__init__()
        self.register_buffer("radii", torch.tensor([2.0, 1.0], dtype=torch.float64))

    def forward(self, z):
        (big, small), (u, v) = self.radii, z.unbind(-1)
        ring = big + small * v.cos()
        return torch.stack([ring * u.cos(), ring * u.sin(), small * v.sin()], -1)


def identity(z):
    return torch.eye(z.shape[-1], dtype=z.dtype).expand(*z.shape, -1)


# --- each metric, and its tensor as its formula has it ------------------------------------------


def constant(d, n, seed):
    matrix = spd(d, seed=seed)
    return ConstantMetric(matrix), lambda z: matrix.expand(*z.shape, -1)


def euclidean(d, n, seed):
    return EuclideanMetric(d).double(), identity


def sphere(d, n, seed):
    # The stereographic chart, without a gradient of its own.
    metric = ConformalMetric(lambda z: -torch.log1p(z.square().sum(-1) / 4), d)
    return metric, lambda z: identity(z) / (1 + z.square().sum(-1) / 4)[..., None, None] ** 2


def poincare(d, n, seed):
    # Of radius 100: all points of a test are inside.
    def tensor(z):
        return identity(z) * (2 / (1 - 1e-4 * z.square().sum(-1)))[..., None, None] ** 2

    return PoincareMetric(d, curvature=1e-4), tensor


def centroid(d, n, seed):
    centroids, matrices = randn(n, d, seed=seed), spd(n, d, seed=seed + 1)

    def tensor(z):
        weights = torch.exp(-(z[..., None, :] - centroids).square().sum(-1) / 1.3**2)
        bumps = torch.einsum("...n,nij->...ij", weights, matrices)
        return torch.linalg.inv(bumps + 0.05 * identity(z))

    return CentroidMetric(centroids, matrices, 1.3, 0.05), tensor


def posterior(d, n, seed):
    means, variances = randn(n, d, seed=seed), 0.1 + randn(n, d, seed=seed + 1).square()

    def tensor(z):
        distances = ((z[..., None, :] - means).square() / variances).sum(-1)
        bumps = torch.exp(-distances / 2.0**2) @ variances.reciprocal()
        floor = 0.05 * torch.exp(-0.1 * z.square().sum(-1))
        return torch.diag_embed(bumps + floor[..., None])

    return PosteriorMetric(means, variances, 2.0, 0.05, tau=0.1), tensor


def avoiding(make, sign):
    def made(d, n, seed):
        metric, tensor = make(d, n, seed)
        return ConformalMetric.avoiding_the_void(
            metric, strength=0.7
        ), lambda z: identity(z) * torch.linalg.det(tensor(z))[..., None, None] ** (sign * 0.7)

    return made


class Bent(nn.Module):
    """A function of W z, feature by feature; W moves with the module."""

    def __init__(self, function, weight):
        super().__init__()
        self.function = function
        self.register_buffer("weight", weight)

    def forward(self, z):
        return self.function(z @ self.weight.mT)


def pullback(d, n, seed):
    weight, spread = randn(n, d, seed=seed), 0.3 * randn(1, d, seed=seed + 1)
    metric = PullbackMetric(
        Bent(torch.tanh, weight), d, deviation=Bent(torch.exp, spread), regularization=0.05
    )

    def tensor(z):
        by_mean = (1 - torch.tanh(z @ weight.mT).square())[..., None] * weight
        by_deviation = torch.exp(z @ spread.mT)[..., None] * spread
        return by_mean.mT @ by_mean + by_deviation.mT @ by_deviation + 0.05 * identity(z)

    return metric, tensor


METRICS = {
    "constant": constant,
    "euclidean": euclidean,
    "conformal": sphere,
    "poincare": poincare,
    "centroid": centroid,
    "posterior": posterior,
    "avoiding the void, centroid": avoiding(centroid, 1),
    "avoiding the void, posterior": avoiding(posterior, -1),
    "pullback": pullback,
}
"""A new metric is proved by one line here."""

every_metric = pytest.mark.parametrize("make", METRICS.values(), ids=METRICS.keys())


# --- the contract -------------------------------------------------------------------------------


@every_metric
@settings(max_examples=8)
@given(
    d=st.integers(1, 3),
    n=st.integers(1, 6),
    batch=st.lists(st.integers(1, 3), max_size=3).map(tuple),
    seed=st.integers(0, 1000),
)
def test_every_quantity_follows_from_the_tensor(make, d, n, batch, seed):
    metric, tensor = make(d, n, seed)
    naive = ByTensor(tensor, d)
    z, u, v, noise = randn(4, *batch, d, seed=seed + 2)
    g = tensor(z)
    z.requires_grad_()
    log_volume = 0.5 * torch.logdet(tensor(z))
    slope = torch.zeros_like(z)
    if log_volume.requires_grad:
        (slope,) = torch.autograd.grad(log_volume.sum(), z)
    z = z.detach()

    assert metric.dim == d
    assert metric.log_volume(z).shape == metric.norm(z, u).shape == batch
    for candidate in (metric, naive):
        torch.testing.assert_close(candidate.tensor(z), g, **CLOSE)
        torch.testing.assert_close(candidate.inverse(z) @ g, identity(z), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(candidate.log_volume(z), log_volume.detach(), **CLOSE)
        torch.testing.assert_close(candidate.log_volume_grad(z), slope, **CLOSE)
        inner = torch.einsum("...i,...ij,...j->...", u, g, v)
        torch.testing.assert_close(candidate.inner(z, u, v), inner, **CLOSE)
        length = torch.einsum("...i,...ij,...j->...", u, g, u).sqrt()
        torch.testing.assert_close(candidate.norm(z, u), length, **CLOSE)
        local = candidate.at(z)
        torch.testing.assert_close(local.momentum(v), (g @ v[..., None])[..., 0], **CLOSE)
        torch.testing.assert_close(local.velocity(local.momentum(v)), v, rtol=1e-6, atol=1e-7)
        # Linear in the noise with p^T G^-1 p = |noise|^2: its covariance is G.
        momentum = local.draw_momentum(noise)
        torch.testing.assert_close(local.kinetic(momentum), 0.5 * noise.square().sum(-1), **CLOSE)


@every_metric
@settings(max_examples=8)
@given(
    d=st.integers(1, 3),
    n=st.integers(1, 6),
    batch=st.lists(st.integers(1, 3), max_size=2).map(tuple),
    seed=st.integers(0, 1000),
)
def test_gradients_of_the_kinetic_energy(make, d, n, batch, seed):
    metric, tensor = make(d, n, seed)
    naive = ByTensor(tensor, d)
    z, v = randn(2, *batch, d, seed=seed + 2)
    p = (tensor(z) @ v[..., None])[..., 0].detach()
    leaf, momentum = z.clone().requires_grad_(), p.clone().requires_grad_()
    inverse = torch.linalg.inv(tensor(leaf))
    kinetic = 0.5 * torch.einsum("...i,...ij,...j->...", momentum, inverse, momentum)
    by_z, by_p = torch.autograd.grad(
        kinetic.sum(), (leaf, momentum), allow_unused=True, materialize_grads=True
    )
    scale = float(1 + by_z.abs().max())
    for candidate in (metric, naive):
        torch.testing.assert_close(candidate.hamiltonian(z, p), kinetic.detach(), **CLOSE)
        slope, velocity = candidate.hamiltonian_grad(z, p)
        torch.testing.assert_close(slope, by_z, rtol=1e-6, atol=1e-7 * scale)
        torch.testing.assert_close(velocity, by_p, rtol=1e-6, atol=1e-7)
        # At a fixed velocity the sign is the other.
        energy_slope = candidate.at(z).energy_grad(v)
        torch.testing.assert_close(energy_slope, -by_z, rtol=1e-6, atol=1e-7 * scale)


@every_metric
def test_gradients_can_be_differentiated_again(make):
    metric, tensor = make(2, 4, 0)
    for candidate in (metric, ByTensor(tensor, 2)):

        def volume_slope(z, candidate=candidate):
            return candidate.log_volume_grad(z)

        def kinetic_slope(z, p, candidate=candidate):
            return candidate.hamiltonian_grad(z, p)[0]

        z, p = 0.5 * randn(2, 3, 2)
        for point in z:
            by_slope = jacobian(volume_slope, point)
            by_volume = hessian(lambda z: 0.5 * torch.logdet(tensor(z)), point)
            torch.testing.assert_close(by_slope, by_volume, **CLOSE)
        # In the momentum alone too, at points that ask for no gradient.
        for point, momentum in zip(z, p, strict=True):
            mixed = jacobian(kinetic_slope, (point, momentum))[1]
            alone = jacobian(lambda p, point=point: kinetic_slope(point, p), momentum)
            truth = torch.einsum(
                "ijk,j->ki", jacobian(lambda z: torch.linalg.inv(tensor(z)), point), momentum
            )
            torch.testing.assert_close(mixed, truth, **CLOSE)
            torch.testing.assert_close(alone, truth, **CLOSE)


@every_metric
def test_plain_points_give_plain_results(make):
    metric, tensor = make(2, 4, 0)
    z, v = randn(2, 5, 2)
    for candidate in (metric, ByTensor(tensor, 2)):
        slope, velocity = candidate.hamiltonian_grad(z, v)
        for result in (slope, velocity, candidate.log_volume_grad(z), candidate.log_volume(z)):
            assert not result.requires_grad
        with torch.no_grad():
            torch.testing.assert_close(
                candidate.log_volume_grad(z), candidate.at(z).log_volume_grad()
            )
            assert (candidate.hamiltonian_grad(z, v)[0] == slope).all()


@every_metric
def test_metrics_are_copied_and_cast_whole(make):
    metric, tensor = make(2, 4, 0)
    z, v = randn(2, 5, 2)
    before = metric.tensor(z).clone()
    twin = copy.deepcopy(metric)
    for buffer in twin.buffers():
        buffer.mul_(2.0)
    assert (metric.tensor(z) == before).all()

    single = copy.deepcopy(metric).float()
    for result, expected in [
        (single.tensor(z.float()), tensor(z)),
        (single.norm(z.float(), v.float()), metric.norm(z, v)),
        (single.log_volume_grad(z.float()), metric.log_volume_grad(z)),
        (single.hamiltonian_grad(z.float(), v.float())[0], metric.hamiltonian_grad(z, v)[0]),
    ]:
        assert result.dtype == torch.float32
        scale = float(expected.abs().max())
        torch.testing.assert_close(result.double(), expected, rtol=1e-3, atol=1e-4 * scale + 1e-6)
    again = single.double()
    torch.testing.assert_close(again.tensor(z), tensor(z), rtol=1e-4, atol=1e-4)


@every_metric
def test_points_of_another_dimension_are_refused(make):
    metric, tensor = make(2, 4, 0)
    for candidate in (metric, ByTensor(tensor, 2)):
        for shape in [(3,), (4, 3), (2, 1, 1)]:
            with pytest.raises(DataError, match=rf"z has shape \({shape[0]}.*: expected \(.*2\)"):
                candidate.at(torch.zeros(shape, dtype=torch.float64))
            with pytest.raises(DataError, match=rf"start has shape \({shape[0]}.*: expected"):
                check_points(candidate, start=torch.zeros(shape, dtype=torch.float64))


@every_metric
def test_points_are_checked_at_the_door(make):
    metric, _ = make(2, 4, 0)
    z = randn(5, 2)
    check_points(metric, z=z)
    for bad, message in [
        (z.numpy(), "goal is ndarray: expected a torch.Tensor"),
        (z.long(), "goal has dtype torch.int64"),
        (z * math.nan, "goal has 10 NaN or infinite"),
        (z[:0], r"goal has shape \(0, 2\): expected at least one point"),
    ]:
        with pytest.raises(DataError, match=message):
            check_points(metric, goal=bad)


# --- each by itself -----------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("curvature", [0.5, 1.0, 4.0])
def test_the_hyperbolic_ball(d, curvature):
    metric = PoincareMetric(d, curvature)
    radius = curvature**-0.5
    direction = torch.nn.functional.normalize(randn(20, d), dim=-1)
    shares = torch.linspace(0.0, 0.999, 20, dtype=torch.float64)[:, None]
    z = radius * shares * direction
    assert metric.contains(z).all()
    assert not metric.contains(1.001 * radius * direction).any()
    # On a ray from the centre the metric element is d artanh: 2 / (1 - c r^2).
    element = 2 / (1 - shares[:, 0].square())
    torch.testing.assert_close(metric.norm(z, direction), element)
    torch.testing.assert_close(metric.log_volume(z), d * element.log())
    # Scaled to the unit ball it is the standard one, of curvature -1, over c.
    unit = PoincareMetric(d)
    torch.testing.assert_close(metric.tensor(z), unit.tensor(z / radius))
    check_points(metric, z=z)
    with pytest.raises(DataError, match="goal: 20 of 20 points lie outside the domain of Poincar"):
        check_points(metric, goal=1.001 * radius * direction)
    with pytest.raises(DataError, match="goal: 1 of 2 points lie outside"):
        check_points(metric, goal=torch.stack([z[0], 2 * radius * direction[0]]))


@pytest.mark.parametrize("curvature", [0.0, -1.0, math.inf, math.nan])
def test_curvatures_are_positive(curvature):
    with pytest.raises(ConfigurationError, match="curvature=.*: expected a finite number greater"):
        PoincareMetric(2, curvature)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "1 of 1 are not symmetric positive definite"),
        (torch.tensor([[1.0, 0.5], [0.0, 1.0]]), "1 of 1 are not symmetric positive definite"),
        (torch.zeros(2, 2), "1 of 1 are not symmetric positive definite"),
        (-torch.eye(2), "1 of 1 are not symmetric positive definite"),
        (torch.eye(2) * math.nan, "matrix has 4 NaN"),
        (torch.ones(2), r"matrix has shape \(2,\): expected \(d, 2\)"),
        (torch.ones(2, 3), r"matrix has shape \(2, 3\): expected \(d, 2\)"),
        (torch.tensor(1.0), r"matrix has shape \(\): expected \(d, d\)"),
        (torch.eye(2).long(), "matrix has dtype torch.int64"),
        ([[1.0]], "matrix is list"),
    ],
)
def test_constant_metrics_are_positive_definite(matrix, message):
    with pytest.raises(DataError, match=message):
        ConstantMetric(matrix)


def test_centroid_matrices_are_positive_definite():
    matrices = torch.eye(2).repeat(4, 1, 1)
    for index, bad in [(1, -torch.eye(2)), (3, torch.tensor([[1.0, 0.3], [0.0, 1.0]]))]:
        wrong = matrices.clone()
        wrong[index] = bad
        with pytest.raises(DataError, match="matrices: 1 of 4 are not symmetric positive definite"):
            CentroidMetric(torch.zeros(4, 2), wrong, 1.0, 0.1)


@pytest.mark.parametrize("dim", [0, -1, 2.0, True])
def test_dimensions_are_positive_integers(dim):
    for make in (
        EuclideanMetric,
        PoincareMetric,
        lambda d: ConformalMetric(lambda z: z[:, 0], d),
        lambda d: PullbackMetric(lambda z: z, d),
    ):
        with pytest.raises(ConfigurationError, match=f"dim={dim}: expected an integer at least 1"):
            make(dim)


def test_a_metric_that_is_not_positive_definite_is_named():
    saddle = ByTensor(lambda z: torch.diag_embed(torch.stack([z[..., 0], z[..., 1]], -1)), 2)
    good, bad = torch.tensor([1.0, 1.0]), torch.tensor([1.0, -1.0])
    check_points(saddle, z=good)
    with pytest.raises(DataError, match="ByTensor is not positive definite at 1 of 2 points of z"):
        check_points(saddle, z=torch.stack([good, bad]))
    flat = PullbackMetric(lambda z: z[:, :1], 2)
    with pytest.raises(DataError, match="PullbackMetric is not positive definite at 1 of 1"):
        check_points(flat, z=good)
    check_points(PullbackMetric(lambda z: z[:, :1], 2, regularization=1e-3), z=good)


def test_avoiding_the_void_is_cheap_near_data():
    for make in (centroid, posterior):
        metric, _ = make(2, 5, 0)
        data = metric.centroids
        conformal = ConformalMetric.avoiding_the_void(metric)
        direction = randn(5, 2)
        near, far = conformal.norm(data, direction), conformal.norm(data + 50, direction)
        assert (near < 0.2 * far).all()
        # Equation 3.8: the length of a curve is the integral of its speed over sqrt(det G), or
        # of its speed by sqrt(det G) where G is small near the data.
        sign = -1 if metric.volume_is_large_near_data else 1
        potential = (sign * metric.log_volume(data)).exp()
        torch.testing.assert_close(near, potential * direction.norm(dim=-1))
        flat = ConformalMetric.avoiding_the_void(metric, strength=0.0)
        torch.testing.assert_close(flat.tensor(data), identity(data))
    with pytest.raises(ConfigurationError, match="strength=-1.0: .* at least 0"):
        ConformalMetric.avoiding_the_void(metric, strength=-1.0)


# --- the pull-back ------------------------------------------------------------------------------


def test_the_pull_back_of_known_surfaces():
    z = randn(20, 2)
    torus = PullbackMetric(Torus(), 2)
    expected = torch.diag_embed(torch.stack([(2 + z[:, 1].cos()).square(), torch.ones(20)], -1))
    torch.testing.assert_close(torus.tensor(z), expected.double())

    def globe(z):
        longitude, latitude = z.unbind(-1)
        level = latitude.cos()
        return torch.stack([level * longitude.cos(), level * longitude.sin(), latitude.sin()], -1)

    expected = torch.diag_embed(torch.stack([z[:, 1].cos().square(), torch.ones(20)], -1))
    torch.testing.assert_close(PullbackMetric(globe, 2).tensor(z), expected.double())

    # Two charts of one sphere: the stereographic one is conformal.
    def stereographic(z):
        squared = z.square().sum(-1, keepdim=True)
        return torch.cat([4 * z, squared - 4], -1) / (squared + 4)

    metric, _ = sphere(2, 0, 0)
    torch.testing.assert_close(PullbackMetric(stereographic, 2).tensor(z), metric.tensor(z))


def test_the_pull_back_of_a_network_against_its_jacobian():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 20), nn.Unflatten(1, (4, 5)))
    network.double()
    z = randn(2, 3, 3)
    metric = PullbackMetric(network, 3, regularization=0.5)
    result = metric.tensor(z)
    assert result.shape == (2, 3, 3, 3)
    for index in [(0, 0), (1, 2)]:
        j = jacobian(lambda z: network(z[None])[0].flatten(), z[index])
        torch.testing.assert_close(result[index], j.mT @ j + 0.5 * identity(z[index]))
    # A module moves with the metric.
    assert metric.float().tensor(z.float()).dtype == torch.float32
    assert next(network.parameters()).dtype == torch.float32


class ScaledByDecoder(GaussianLikelihood):
    """A Gaussian whose decoder gives, for each feature, a mean and the log of a scale."""

    @property
    def output_shape(self):
        return (2, *self.input_shape)

    def features(self, output):
        mean, log_scale = output.unbind(-len(self.output_shape))
        return Normal(self.location(mean), log_scale.exp(), validate_args=False)


@pytest.mark.parametrize("varies", [True, False])
def test_the_pull_back_of_a_model(varies):
    torch.manual_seed(0)
    likelihood = ScaledByDecoder((4, 3)) if varies else GaussianLikelihood((4, 3), link="sigmoid")
    model = chartae.VAE((4, 3), 2, likelihood=likelihood).double().eval()
    metric = PullbackMetric.from_model(model, regularization=0.1)
    assert (metric.deviation is not None) == varies
    z = randn(3, 2)
    with torch.no_grad():
        assert not metric.tensor(z).requires_grad
    for point, result in zip(z, metric.tensor(z), strict=True):
        by_mean = jacobian(lambda z: model.likelihood(z).mean.flatten(), point)
        expected = by_mean.mT @ by_mean + 0.1 * identity(point)
        if varies:
            by_scale = jacobian(lambda z: model.likelihood(z).stddev.flatten(), point)
            assert by_scale.abs().max() > 0.01
            expected = expected + by_scale.mT @ by_scale
        torch.testing.assert_close(result, expected)


def test_the_pull_back_wants_a_decoder():
    with pytest.raises(ConfigurationError, match="decoder is str: expected a function or a module"):
        PullbackMetric("mlp", 2)
    with pytest.raises(ConfigurationError, match="regularization=-1: .* at least 0"):
        PullbackMetric(nn.Identity(), 2, regularization=-1)
    with pytest.raises(ConfigurationError, match="model is Linear: expected a model of chartae"):
        PullbackMetric.from_model(nn.Linear(2, 2))


def precisions(model, x, scale):
    """Precisions of posteriors, and what the pull-back predicts of them, ``(N, d)`` each."""
    with torch.no_grad():
        posterior = model.posterior(x)
        metric = PullbackMetric.from_model(model, regularization=0.0)
        predicted = metric.tensor(posterior.mean).diagonal(dim1=-2, dim2=-1) / scale**2 + 1
    active = posterior.mean.var(0) > 0.1
    return posterior.variance.reciprocal(), predicted, active


def log_correlation(a, b):
    return float(torch.corrcoef(torch.stack([a.log().flatten(), b.log().flatten()]))[0, 1])


@pytest.mark.slow
def test_posterior_precisions_follow_the_pull_back():
    # Thesis section 3.4.4, for the diagonal posteriors of a Gaussian likelihood of fixed scale s:
    # the ELBO is stationary where sigma_j^-2 = (J^T J)_jj / s^2 + 1, up to the decoder's bending.
    scale, x = 0.2, digits().x
    network = {"name": "mlp", "hidden": [256, 256]}
    likelihood = {"name": "gaussian", "scale": scale, "link": "sigmoid"}
    torch.manual_seed(0)
    model = chartae.VAE((8, 8), 10, encoder=network, decoder=network, likelihood=likelihood).eval()
    untrained, predicted, _ = precisions(model, x[:300], scale)
    assert log_correlation(untrained, predicted) < 0.5
    chartae.fit(model, x, epochs=150, seed=0, progress=False)
    found, predicted, active = precisions(model, x[:300], scale)
    assert int(active.sum()) >= 5
    assert log_correlation(found, predicted) > 0.95
    assert log_correlation(found[:, active], predicted[:, active]) > 0.9
    ratio = float((found / predicted)[:, active].median())
    assert 0.85 < ratio < 1.2
    assert float((found / predicted)[:, ~active].median()) == pytest.approx(1.0, abs=0.1)
