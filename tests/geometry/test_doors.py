"""Closed forms where there are any, arrays in and out, and what a metric must have."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.geometry.conftest import Ball

import chartae
from chartae.errors import ConfigurationError, DataError, DivergenceError
from chartae.geometry import (
    CentroidMetric,
    ConstantMetric,
    EuclideanMetric,
    ManifoldDensity,
    Metric,
    PoincareMetric,
    PosteriorMetric,
    PullbackMetric,
    WrappedNormal,
    distance,
    energy,
    exponential_map,
    exponential_path,
    frechet_mean,
    geodesic,
    hmc,
    initial_velocity,
    kmeans,
    length,
    logarithmic_map,
    pairwise_distances,
    parallel_transport,
    random_walk,
    shortest_paths,
)
from chartae.geometry.paths.graph import graph_paths

# --- closed forms ---------------------------------------------------------------------------------


@given(
    st.floats(1e-12, 0.5),
    st.floats(1e-12, 0.5),
    st.floats(0.3, 3.0),
    st.floats(0, 2 * math.pi),
)
def test_lengths_in_the_ball_are_exact_to_the_rim(gap_a, gap_b, curvature, turn):
    """Along a diameter, a distance is a difference of 2 artanh: known to the last digits."""
    mpmath = pytest.importorskip("mpmath")
    direction = torch.tensor([math.cos(turn), math.sin(turn)], dtype=torch.float64)
    radius = 1 / math.sqrt(curvature)
    a, b = -(1 - gap_a) * radius * direction, (1 - gap_b) * radius * direction
    with mpmath.workdps(40):
        norms = [mpmath.sqrt(sum(mpmath.mpf(float(v)) ** 2 for v in z)) for z in (a, b)]
        root = mpmath.sqrt(mpmath.mpf(curvature))
        expected = float(sum(2 / root * mpmath.atanh(root * norm) for norm in norms))
    metric = PoincareMetric(2, curvature)
    # The ends themselves are rounded, by 1e-16 of what is left to the rim.
    assert float(distance(metric, a, b)) == pytest.approx(expected, rel=1e-3, abs=1e-9)
    if min(gap_a, gap_b) > 1e-6:
        assert float(distance(metric, a, b)) == pytest.approx(expected, rel=1e-9)


def test_the_length_that_was_wrong():
    end = torch.tensor([1 - 1e-6, 0.0], dtype=torch.float64)
    paths = shortest_paths(PoincareMetric(2), -end, end)
    assert float(paths.lengths) == pytest.approx(29.0173, abs=1e-3)
    assert bool(paths.converged)
    steps = distance(PoincareMetric(2), paths.points[:-1], paths.points[1:])
    torch.testing.assert_close(steps, paths.lengths.expand(63) / 63, rtol=1e-6, atol=0)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_formulas_agree_with_solvers(d):
    """Away from the rim, where solvers are exact enough, both give the same geodesics."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(2, 20, d, generator=generator, dtype=torch.float64)
    a, b = 0.8 * points / (1 + points.norm(dim=-1, keepdim=True))
    ball, solved = PoincareMetric(d, 0.8), Ball(d, 0.8)
    torch.testing.assert_close(distance(ball, a, b), distance(solved, a, b), rtol=1e-3, atol=0)
    torch.testing.assert_close(geodesic(ball, a, b), geodesic(solved, a, b), rtol=1e-2, atol=2e-3)
    v = logarithmic_map(ball, a, b)
    torch.testing.assert_close(v, logarithmic_map(solved, a, b), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ball.norm(a, v), distance(ball, a, b))
    torch.testing.assert_close(exponential_map(ball, a, v), b)
    torch.testing.assert_close(
        exponential_path(ball, a, v, num_steps=10),
        exponential_path(solved, a, v, num_steps=1000)[:, ::100],
        rtol=1e-4,
        atol=1e-5,
    )


def test_points_that_coincide_have_no_way_between_them():
    z = torch.tensor([[0.3, 0.4], [0.0, 0.0]], dtype=torch.float64)
    for metric in (PoincareMetric(2), EuclideanMetric(2)):
        assert (distance(metric, z, z) == 0).all()
        assert (logarithmic_map(metric, z, z) == 0).all()
        torch.testing.assert_close(geodesic(metric, z, z), z[:, None].expand(2, 64, 2))
        torch.testing.assert_close(exponential_map(metric, z, torch.zeros_like(z)), z)


def test_points_next_to_the_rim_are_inside_and_those_on_it_are_not():
    metric = PoincareMetric(2)
    near = torch.tensor([1 - 1e-8, 0.0], dtype=torch.float64)
    assert bool(metric.contains(near))
    assert math.isfinite(distance(metric, near, -near))
    model = chartae.PoincareVAE((6,), 2).double()
    assert torch.isfinite(model.decode(near[None])).all()
    with pytest.raises(DataError, match="start: 1 of 1 points lie outside the domain"):
        distance(metric, torch.tensor([1.0, 0.0]), torch.zeros(2))
    with pytest.raises(DivergenceError, match="1 of 1 geodesics diverged"):
        exponential_map(metric, torch.zeros(2), torch.tensor([300.0, 0.0]))


def test_in_a_constant_metric_all_is_linear():
    metric = ConstantMetric(torch.tensor([[4.0, 1.0], [1.0, 1.0]]))
    a, b = torch.zeros(3, 2), torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    paths = shortest_paths(metric, a, b, num_points=5)
    torch.testing.assert_close(paths.points[:, 1], 0.25 * b)
    torch.testing.assert_close(paths.lengths, metric.norm(a, b))
    torch.testing.assert_close(exponential_map(metric, a, b), b)


def test_where_there_are_formulas_no_mean_is_sought_by_descent_of_paths(monkeypatch):
    monkeypatch.setattr("chartae.geometry.statistics.solver.resolve", None)
    points = torch.tensor([[0.9, 0.0], [0.0, 0.8], [-0.1, 0.2]], dtype=torch.float64)
    for metric in (PoincareMetric(2), EuclideanMetric(2)):
        mean = frechet_mean(metric, points)
        assert logarithmic_map(metric, mean, points).mean(0).norm() < 1e-3
    torch.testing.assert_close(mean, points.mean(0))


def test_means_of_points_at_the_rim_are_exact(caplog):
    gap = torch.tensor(1e-6, dtype=torch.float64)
    turn = torch.tensor([0.6, 0.8], dtype=torch.float64)
    ends = torch.stack([-(1 - gap) * turn, (1 - gap) * turn])
    mean = frechet_mean(PoincareMetric(2), ends, torch.tensor([3.0, 1.0], dtype=torch.float64))
    # On the diameter, at a quarter of the way: half as far from the middle as the end is.
    expected = -torch.tanh(0.5 * torch.atanh(1 - gap)) * turn
    torch.testing.assert_close(mean, expected, rtol=1e-6, atol=0)
    metric, points = PoincareMetric(2), torch.cat([ends, (1 - gap) * turn.flip(0)[None]])
    logarithms = logarithmic_map(metric, frechet_mean(metric, points), points)
    assert logarithms.mean(0).norm() < 1e-3 * logarithms.norm(dim=1).mean()
    clusters = kmeans(metric, torch.cat([ends, -ends.flip(1)]), 4)
    assert clusters.converged
    assert clusters.inertia == 0
    assert not caplog.records


# --- arrays in, arrays out ------------------------------------------------------------------------

Z = np.random.default_rng(0).uniform(-0.5, 0.5, (4, 2))
SMALL = {"name": "mlp", "hidden": [4]}
MODEL = chartae.VAE((4,), 2, encoder=SMALL, decoder=SMALL, likelihood="bernoulli")
METRICS = {
    "ball": PoincareMetric(2),
    "flat": EuclideanMetric(2),
    "constant": ConstantMetric(torch.eye(2)),
    "centroids": CentroidMetric(
        torch.zeros(1, 2), torch.eye(2)[None], temperature=1.0, regularization=0.1
    ),
    "posterior": PosteriorMetric(torch.eye(2), torch.ones(2, 2)),
    "pullback": PullbackMetric.from_model(MODEL),
}
FUNCTIONS = {
    "contains": lambda m, z: m.contains(z),
    "tensor": lambda m, z: m.tensor(z),
    "inverse": lambda m, z: m.inverse(z),
    "log_volume": lambda m, z: m.log_volume(z),
    "log_volume_grad": lambda m, z: m.log_volume_grad(z),
    "inner": lambda m, z: m.inner(z, z, z),
    "norm": lambda m, z: m.norm(z, z),
    "hamiltonian": lambda m, z: m.hamiltonian(z, z),
    "hamiltonian_grad": lambda m, z: m.hamiltonian_grad(z, z)[0],
    "distance": lambda m, z: distance(
        m, z, z[::-1].copy() if isinstance(z, np.ndarray) else z.flip(0), max_iterations=10
    ),
    "geodesic": lambda m, z: geodesic(m, z[:2], z[:1], num_points=3),
    "paths": lambda m, z: shortest_paths(m, z, z[:1], num_points=3).points,
    "length": lambda m, z: length(m, z),
    "energy": lambda m, z: energy(m, z),
    "exponential": lambda m, z: exponential_map(m, z, 0.1 * z, num_steps=10),
    "path": lambda m, z: exponential_path(m, z, 0.1 * z, num_steps=3),
    "logarithm": lambda m, z: logarithmic_map(m, z, z[:1]),
    "velocity": lambda m, z: initial_velocity(m, z),
    "transport": lambda m, z: parallel_transport(m, z, z[0]),
    "mean": lambda m, z: frechet_mean(m, z),
    "pairwise": lambda m, z: pairwise_distances(m, z),
    "clusters": lambda m, z: kmeans(m, z, 2, seed=0).centers,
}


HEAVY = {"mean", "clusters", "transport", "pairwise", "paths", "logarithm", "geodesic"}
PAIRS = [(f, m) for f in FUNCTIONS for m in METRICS if f not in HEAVY or m in ("ball", "flat")]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("function", "metric"), PAIRS)
def test_arrays_give_arrays_of_their_dtype_and_the_same_numbers(function, metric, dtype):
    found = FUNCTIONS[function](METRICS[metric], Z.astype(dtype))
    assert isinstance(found, np.ndarray)
    assert found.dtype == (bool if function == "contains" else dtype)
    own = METRICS[metric].dtype or (torch.float32 if dtype == np.float32 else torch.float64)
    expected = FUNCTIONS[function](METRICS[metric], torch.tensor(Z.astype(dtype)).to(own))
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_a_posterior_metric_is_made_from_arrays():
    x = np.random.default_rng(0).random((6, 4))
    metric = PosteriorMetric.from_model(MODEL, x)
    expected = PosteriorMetric.from_model(MODEL, torch.tensor(x, dtype=torch.float32))
    torch.testing.assert_close(metric.means, expected.means)


def walk(kernel, metric, initial):
    density = ManifoldDensity(metric)
    options = {"num_steps": 6, "generator": torch.Generator().manual_seed(0)}
    if kernel == "hmc":
        return hmc(density, initial, num_leapfrog=2, num_warmup=0, step_size=0.1, **options)
    return random_walk(metric, initial, covariance=0.1, **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel", ["hmc", "walk"])
def test_chains_start_from_arrays(kernel, dtype):
    metric = METRICS["posterior"]
    found = walk(kernel, metric, Z.astype(dtype))
    expected = walk(kernel, metric, torch.tensor(Z, dtype=torch.float32))
    for name in ("samples", "acceptance", "final", "r_hat", "effective_sample_size"):
        value = getattr(found, name)
        assert isinstance(value, np.ndarray)
        assert value.dtype == dtype
        np.testing.assert_allclose(value, getattr(expected, name), rtol=1e-3, atol=1e-5)


def test_densities_take_arrays():
    metric = METRICS["posterior"]
    z = torch.tensor(Z, dtype=torch.float32)
    normal, density = (
        WrappedNormal(metric, torch.zeros(2), 0.1, num_steps=20),
        ManifoldDensity(metric),
    )
    np.testing.assert_allclose(normal.log_prob(Z), normal.log_prob(z), rtol=1e-4)
    assert normal.log_prob(Z).dtype == np.float64
    for found, expected in zip(density(Z), density(z), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert density.contains(Z).dtype == bool
    np.testing.assert_allclose(density.log_prob(Z), density.log_prob(z), rtol=1e-5)


def test_new_arrays_join_clusters_in_the_precision_of_the_metric():
    metric = METRICS["posterior"]
    clusters = kmeans(metric, torch.tensor(Z, dtype=torch.float32), 2)
    assert (clusters.predict(metric, Z) == clusters.labels.numpy()).all()
    arrays = kmeans(metric, Z, 2)
    assert (arrays.predict(metric, Z) == arrays.labels).all()


def test_hidden_values_are_no_points():
    hidden = np.ma.masked_greater(Z, 0.1)
    with pytest.raises(DataError, match="end is a masked array that hides values"):
        distance(METRICS["ball"], Z, hidden)
    bare = np.ma.masked_array(Z)
    assert (distance(METRICS["flat"], bare, Z) == 0).all()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("metric", METRICS)
def test_the_mode_of_the_caller_does_not_matter(metric, mode):
    z = torch.tensor(Z, dtype=METRICS[metric].dtype or torch.float64)
    expected = distance(METRICS[metric], z, z.flip(0), max_iterations=10)
    gradient = METRICS[metric].log_volume_grad(z).detach()
    with mode():
        inside = torch.tensor(Z, dtype=z.dtype)
        found = distance(METRICS[metric], inside, inside.flip(0), max_iterations=10)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(METRICS[metric].log_volume_grad(inside), gradient)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_normal_made_in_any_mode_has_its_density(mode):
    metric = METRICS["posterior"]
    z = torch.tensor(Z, dtype=torch.float32)
    expected = WrappedNormal(metric, z[0], 0.1, num_steps=20).log_prob(z)
    with mode():
        inside = torch.tensor(Z, dtype=torch.float32)
        found = WrappedNormal(metric, inside[0], 0.1, num_steps=20).log_prob(inside)
        torch.testing.assert_close(found, expected)


# --- what a metric must have ----------------------------------------------------------------------


def test_a_metric_without_a_tensor_is_refused_by_name():
    class Nothing(Metric):
        dim = 2

    with pytest.raises(ConfigurationError, match="Nothing has neither `tensor` nor `at`"):
        Nothing()


REFUSED = {
    "no metric": (lambda m, z: distance(None, z, z), "metric is NoneType: expected a Metric"),
    "a matrix": (lambda m, z: kmeans(np.eye(2), z, 2), "metric is ndarray: expected a Metric"),
    "sparse points": (lambda m, z: distance(m, z.to_sparse(), z), "start is a sparse or nested"),
    "a list": (lambda m, z: m.tensor([0.0, 0.0]), "z is list: expected a torch.Tensor"),
    "integers": (lambda m, z: m.log_volume(z.long()), "z has dtype torch.int64: expected"),
    "points too long": (lambda m, z: m.tensor(torch.zeros(3)), r"z has shape \(3,\): expected"),
    "vectors too long": (lambda m, z: m.norm(z, z[:, :1]), r"v has shape \(4, 1\): expected"),
    "too many vectors": (
        lambda m, z: m.inner(z, z[:3], z),
        r"u has shape \(3, 2\) and v has shape \(4, 2\) for points of shape \(4, 2\): expected "
        "shapes that broadcast",
    ),
    "momenta of another dtype": (
        lambda m, z: m.hamiltonian_grad(z, z.double()),
        "momentum has dtype torch.float64: the points have torch.float32",
    ),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("metric", METRICS)
def test_what_fits_no_metric_is_told_in_a_sentence(metric, call, message):
    with pytest.raises((ConfigurationError, DataError), match=message):
        call(METRICS[metric], torch.tensor(Z, dtype=torch.float32))


def test_a_sphere_is_not_left_by_the_pull_back():
    model = chartae.SVAE((4,), 3, encoder={"name": "mlp", "hidden": [4]})
    with pytest.raises(ConfigurationError, match="model is SVAE: its latents lie on a sphere"):
        PullbackMetric.from_model(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_flat_metric_takes_either_precision(dtype):
    z = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=dtype)
    metric = EuclideanMetric(np.int64(2))
    assert distance(metric, z[0], z[1]).dtype == dtype
    assert float(distance(metric, z[0], z[1])) == 5.0
    assert metric.tensor(z).dtype == dtype


def test_where_no_edge_joins_landmarks_the_way_is_the_line():
    class Walled(EuclideanMetric):
        """No finite length leads through the strip |x| < 0.1."""

        closed_form = None

        def at(self, z):
            local = super().at(z)
            wall = torch.where(z[..., :1].abs() < 0.1, torch.inf, 1.0)
            local.momentum = lambda v: v * wall
            local.inner = lambda u, v: (u * v * wall).sum(-1)
            return local

    nodes = torch.tensor([[-1.0, 0.0], [-0.9, 0.2], [1.0, 0.0], [0.9, 0.2]])
    paths = graph_paths(Walled(2), nodes[:1], nodes[2:3], 5, nodes)
    assert torch.isfinite(paths).all()
    torch.testing.assert_close(paths[0, [0, -1]], nodes[[0, 2]])
