import itertools
import logging
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.geometry.conftest import Ball

from chartae.errors import ConfigurationError, DataError
from chartae.geometry import (
    CentroidMetric,
    ConformalMetric,
    ConstantMetric,
    EuclideanMetric,
    PosteriorMetric,
)
from chartae.geometry.paths.exponential import exponential_map
from chartae.geometry.paths.geodesics import distance
from chartae.geometry.statistics import clusters, solver
from chartae.geometry.statistics.clusters import kmeans
from chartae.geometry.statistics.distances import pairwise_distances
from chartae.geometry.statistics.means import frechet_mean

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def in_ball(*shape, radius=0.8, seed=0):
    """Random points of the ball of that radius."""
    z = randn(*shape, seed=seed)
    return radius * z / (1 + z.norm(dim=-1, keepdim=True))


def sphere():
    """The unit sphere in its stereographic chart, from the pole opposite to 0."""
    return ConformalMetric(lambda z: -torch.log1p(z.square().sum(-1) / 4), 2)


def on_sphere(z):
    """Points of space, of points of the chart ``(..., 2)``."""
    squared = z.square().sum(-1, keepdim=True)
    return torch.cat([4 * z, 4 - squared], -1) / (squared + 4)


def chart(x):
    return 2 * x[..., :2] / (1 + x[..., 2:])


def hyperbolic_distance(a, b):
    """In the unit ball."""
    gap = (a - b).square().sum(-1)
    room = (1 - a.square().sum(-1)) * (1 - b.square().sum(-1))
    return torch.acosh(1 + 2 * gap / room)


def spherical_distance(a, b):
    return 2 * torch.asin((on_sphere(a) - on_sphere(b)).norm(dim=-1) / 2)


def bumpy(seed=0):
    """Four mild bumps on a plane: curved both ways."""
    means = randn(4, 2, seed=seed)
    return PosteriorMetric(means, torch.full_like(means, 0.5), rho=2.0, regularization=1.0)


# --- distances ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "formula"),
    [
        (Ball(2), hyperbolic_distance),
        (sphere(), spherical_distance),
        (EuclideanMetric(2).double(), lambda a, b: (a - b).norm(dim=-1)),
    ],
    ids=["Poincare", "sphere", "Euclidean"],
)
def test_matrices_of_distances_of_known_spaces(metric, formula):
    a, b = in_ball(9, 2), in_ball(5, 2, seed=1)
    torch.testing.assert_close(pairwise_distances(metric, a, b), formula(a[:, None], b), **CLOSE)
    within = pairwise_distances(metric, a)
    torch.testing.assert_close(within, formula(a[:, None], a), **CLOSE)
    assert (within.diagonal() == 0).all()
    assert (within == within.mT).all()


def test_distances_are_computed_in_blocks_and_once_for_each_pair(monkeypatch):
    metric, a, b = bumpy(), randn(7, 2), randn(4, 2, seed=1)
    whole, between = pairwise_distances(metric, a), pairwise_distances(metric, a, b)
    solve, sizes = solver.shortest_paths, []

    def counted(metric, start, end, **options):
        sizes.append(len(start))
        return solve(metric, start, end, **options)

    monkeypatch.setattr(solver, "shortest_paths", counted)
    monkeypatch.setattr(solver, "BLOCK", 8)
    torch.testing.assert_close(pairwise_distances(metric, a), whole)
    assert sizes == [8, 8, 5]  # 7 * 6 / 2 pairs
    sizes.clear()
    torch.testing.assert_close(pairwise_distances(metric, a, b), between)
    assert sizes == [8, 8, 8, 4]
    torch.testing.assert_close(between, distance(metric, a[:, None], b), **CLOSE)


@settings(max_examples=3)
@given(seed=st.integers(0, 1000))
def test_distances_are_a_metric(seed):
    d = pairwise_distances(bumpy(seed=seed), randn(5, 2, seed=seed + 1), num_points=32)
    assert (d + 2 * torch.eye(5) > 0).all()
    for i, j, k in itertools.permutations(range(5), 3):
        assert d[i, j] <= (d[i, k] + d[k, j]) * (1 + 1e-3)


def test_one_point_is_at_no_distance_from_itself():
    metric, point = bumpy(), randn(1, 2)
    assert pairwise_distances(metric, point).tolist() == [[0.0]]
    assert pairwise_distances(metric, point, point).tolist() == [[0.0]]
    twice = torch.cat([point, point])
    assert (pairwise_distances(metric, twice) == 0).all()


def test_paths_that_are_not_found_are_counted(caplog):
    caplog.set_level(logging.WARNING)
    a = in_ball(4, 2, radius=0.95)
    pairwise_distances(Ball(2), a)
    assert not caplog.records
    pairwise_distances(Ball(2), a, max_iterations=1, tolerance=1e-9)
    (record,) = caplog.records
    assert "6 of 6 shortest paths were not found to the tolerance 1.0e-09" in record.getMessage()


# --- means --------------------------------------------------------------------------------------


def test_flat_means_are_arithmetic():
    points, weights = randn(20, 3), randn(20).square()
    factor = randn(3, 3, seed=1)
    for metric in (
        EuclideanMetric(3).double(),
        ConstantMetric(factor @ factor.mT + torch.eye(3, dtype=torch.float64)),
    ):
        torch.testing.assert_close(frechet_mean(metric, points), points.mean(0), **CLOSE)
        expected = weights @ points / weights.sum()
        torch.testing.assert_close(frechet_mean(metric, points, weights), expected, **CLOSE)


@settings(max_examples=3)
@given(seed=st.integers(0, 1000))
def test_the_mean_of_two_points_is_the_middle_of_their_geodesic(seed):
    a, b = in_ball(2, 2, seed=seed)
    options = {"tolerance": 1e-5}
    mean = frechet_mean(Ball(2), torch.stack([a, b]), **options)
    half = 0.5 * hyperbolic_distance(a, b)
    torch.testing.assert_close(hyperbolic_distance(a, mean), half, **CLOSE)
    torch.testing.assert_close(hyperbolic_distance(b, mean), half, **CLOSE)

    a, b = 2 * a, 2 * b
    mean = frechet_mean(sphere(), torch.stack([a, b]), **options)
    middle = chart(torch.nn.functional.normalize(on_sphere(a) + on_sphere(b), dim=-1))
    torch.testing.assert_close(mean, middle, **CLOSE)


@pytest.mark.parametrize("share", [0.1, 0.7])
def test_weights_move_the_mean_along_the_geodesic(share):
    a, b = torch.tensor([[0.6, 0.2], [-0.3, 0.5]], dtype=torch.float64)
    weights = torch.tensor([1 - share, share], dtype=torch.float64)
    for scale in (1.0, 100.0):
        mean = frechet_mean(Ball(2), torch.stack([a, b]), scale * weights, tolerance=1e-5)
        whole = hyperbolic_distance(a, b)
        torch.testing.assert_close(hyperbolic_distance(a, mean), share * whole, **CLOSE)
        torch.testing.assert_close(hyperbolic_distance(b, mean), (1 - share) * whole, **CLOSE)


@pytest.mark.parametrize("metric", [Ball(2), sphere()], ids=["Poincare", "sphere"])
def test_symmetric_points_have_their_centre_as_mean(metric):
    angles = 2 * math.pi * torch.arange(5, dtype=torch.float64) / 5
    ring = 0.7 * torch.stack([angles.cos(), angles.sin()], -1)
    torch.testing.assert_close(frechet_mean(metric, ring), torch.zeros(2).double(), **CLOSE)
    # The same ring elsewhere: its points are at one distance in evenly spread directions.
    centre = torch.tensor([0.3, -0.2], dtype=torch.float64)
    velocity = ring / metric.norm(centre, torch.tensor([1.0, 0.0]).double())
    moved = exponential_map(metric, centre, velocity, num_steps=400)
    mean = frechet_mean(metric, moved, tolerance=1e-5)
    torch.testing.assert_close(mean, centre, **CLOSE)


@pytest.mark.parametrize(
    "metric",
    [Ball(2), bumpy(), ConformalMetric.avoiding_the_void(bumpy(), 0.5)],
    ids=["Poincare", "posterior", "avoiding"],
)
def test_no_point_around_is_better_than_the_mean(metric):
    points = in_ball(12, 2, radius=0.9, seed=3)
    weights = randn(12, seed=4).square()
    mean = frechet_mean(metric, points, weights, tolerance=1e-4)

    def objective(z):
        return distance(metric, z[:, None], points).square() @ weights

    angles = 2 * math.pi * torch.arange(6, dtype=torch.float64) / 6
    circle = torch.stack([angles.cos(), angles.sin()], -1)
    for radius in (0.02, 0.2):
        around = mean + radius * circle
        assert (objective(around) > objective(mean[None])).all()
    assert (objective(points) > objective(mean[None])).all()


def test_a_mean_is_sought_from_the_data_where_the_euclidean_one_lies_in_the_void():
    # Codes on an arc of 300 degrees: their mean is on it, not in the middle of the disk.
    angles = torch.linspace(-150, 150, 16, dtype=torch.float64).deg2rad()
    arc = 2 * torch.stack([angles.cos(), angles.sin()], -1)
    metric = ConformalMetric.avoiding_the_void(
        PosteriorMetric(arc, torch.full_like(arc, 0.1), rho=1.5, regularization=0.1), 0.5
    )
    mean = frechet_mean(metric, arc, num_points=32)
    assert float(mean.norm()) > 1.8
    assert abs(float(torch.atan2(mean[1], mean[0]))) < 0.1


def test_many_means_at_once():
    points = in_ball(2, 3, 5, 2)
    weights = randn(5, seed=1).square()
    weights[2] = 0.0
    metric = Ball(2)
    means = frechet_mean(metric, points, weights, tolerance=1e-5)
    assert means.shape == (2, 3, 2)
    for i, j in itertools.product(range(2), range(3)):
        alone = frechet_mean(metric, points[i, j], weights, tolerance=1e-5)
        torch.testing.assert_close(means[i, j], alone, **CLOSE)
        without = [0, 1, 3, 4]
        alone = frechet_mean(metric, points[i, j, without], weights[without], tolerance=1e-5)
        torch.testing.assert_close(means[i, j], alone, **CLOSE)


def test_one_point_is_its_mean():
    for metric in (Ball(2), bumpy()):
        point = in_ball(1, 2)
        torch.testing.assert_close(frechet_mean(metric, point), point[0])
        torch.testing.assert_close(frechet_mean(metric, point.repeat(3, 1)), point[0])


def test_means_in_single_precision():
    points = in_ball(20, 2)
    exact = frechet_mean(Ball(2), points, tolerance=1e-5)
    mean = frechet_mean(Ball(2), points.float())
    assert mean.dtype == torch.float32
    torch.testing.assert_close(mean.double(), exact, rtol=0, atol=1e-3)


def test_far_points_of_the_ball_need_shorter_steps(caplog):
    # Distances of 7: a step of 1 overshoots, for the curvature spreads geodesics apart.
    caplog.set_level(logging.WARNING)
    angles = torch.tensor([0.0, 2.0, 2.5], dtype=torch.float64)
    points = 0.998 * torch.stack([angles.cos(), angles.sin()], -1)
    metric = Ball(2)
    mean = frechet_mean(metric, points, num_points=256, tolerance=1e-3)
    assert not caplog.records
    objective = hyperbolic_distance(mean, points).square().sum()
    for step in 0.02 * randn(20, 2):
        assert hyperbolic_distance(mean + step, points).square().sum() > objective


def test_a_mean_that_is_not_found_is_named(caplog):
    caplog.set_level(logging.WARNING)
    points = in_ball(10, 2, radius=0.99)
    frechet_mean(Ball(2), points)
    assert not caplog.records
    frechet_mean(Ball(2), points, tolerance=1e-4, max_iterations=1)
    assert "1 of 1 means did not converge: the largest relative length" in caplog.text
    assert "raise max_iterations" in caplog.text


@pytest.mark.parametrize(
    ("points", "weights", "message"),
    [
        (in_ball(2), None, r"points has shape \(2,\): expected \(..., N, 2\)"),
        (in_ball(5, 3), None, r"points has shape \(5, 3\)"),
        (in_ball(0, 2), None, r"points has shape \(0, 2\): expected at least one"),
        (1.3 + in_ball(5, 2), None, "points: 5 of 5 points lie outside the domain of Ball"),
        (in_ball(5, 2) * math.nan, None, "points has 10 NaN"),
        (in_ball(5, 2), randn(4), r"weights has shape \(4,\): expected \(5,\)"),
        (in_ball(5, 2), -torch.ones(5), "weights: expected numbers at least 0"),
        (in_ball(5, 2), torch.zeros(5), "weights: expected numbers at least 0, not all of them"),
        (in_ball(5, 2), torch.full((5,), math.nan), "weights has 5 NaN"),
        (in_ball(5, 2), [1.0] * 5, "weights is list"),
    ],
)
def test_means_refuse_bad_points(points, weights, message):
    with pytest.raises(DataError, match=message):
        frechet_mean(Ball(2), points, weights)


# --- clusters -----------------------------------------------------------------------------------


def three_heaps(seed=0):
    """Points around three far corners of the hyperbolic disk, and whose they are."""
    angles = 2 * math.pi * torch.arange(3, dtype=torch.float64) / 3
    corners = 0.8 * torch.stack([angles.cos(), angles.sin()], -1)
    labels = torch.arange(30) % 3
    return corners[labels] + 0.06 * randn(30, 2, seed=seed).clamp(-2, 2), labels


def same_partition(a, b):
    return bool(((a[:, None] == a) == (b[:, None] == b)).all())


def test_clusters_of_heaps():
    metric = Ball(2)
    points, truth = three_heaps()
    found = kmeans(metric, points, 3, num_restarts=2)
    assert found.converged
    assert same_partition(found.labels, truth)
    assert found.centers.shape == (3, 2)
    own = hyperbolic_distance(points, found.centers[found.labels])
    assert found.inertia == pytest.approx(float(own.square().sum()), rel=1e-4)
    for label, center in enumerate(found.centers):
        mean = frechet_mean(metric, points[found.labels == label], tolerance=1e-5)
        torch.testing.assert_close(center, mean, rtol=0, atol=2e-3)
    # New points go to the nearest centre.
    new, owners = three_heaps(seed=1)
    assert same_partition(
        torch.cat([found.predict(metric, new), found.labels]), torch.cat([owners, truth])
    )


@settings(max_examples=3)
@given(seed=st.integers(0, 1000), k=st.integers(1, 4))
def test_labels_are_those_of_the_nearest_centres(seed, k):
    # Whatever the bounds spared.
    metric, points = bumpy(seed=seed), randn(15, 2, seed=seed + 1)
    found = kmeans(metric, points, k, seed=seed)
    distances = pairwise_distances(metric, points, found.centers, num_points=32)
    nearest = distances.amin(1)
    own = distances.gather(1, found.labels[:, None])[:, 0]
    torch.testing.assert_close(own, nearest, rtol=2e-3, atol=1e-3)
    assert found.inertia == pytest.approx(float(nearest.square().sum()), rel=5e-3)
    assert len(found.labels.unique()) == k


def test_flat_clusters_are_those_of_scikit_learn():
    from sklearn.cluster import KMeans

    points = torch.cat([randn(20, 2) + shift for shift in (0.0, 8.0, 16.0, 24.0)])
    theirs = KMeans(4, n_init=10, random_state=0).fit(points.numpy())
    ours = kmeans(EuclideanMetric(2).double(), points, 4, num_restarts=3)
    assert same_partition(ours.labels, torch.as_tensor(theirs.labels_))
    assert ours.inertia == pytest.approx(theirs.inertia_, rel=1e-4)


def test_bounds_spare_most_distances(monkeypatch):
    points, _ = three_heaps()
    solve, pairs = solver.shortest_paths, []

    def counted(metric, start, end, **options):
        pairs.append(len(start))
        return solve(metric, start, end, **options)

    monkeypatch.setattr(solver, "shortest_paths", counted)
    monkeypatch.setattr(solver, "shortest_paths", counted)
    found = kmeans(Ball(2), points, 3, seed=1)
    logarithms = clusters.MEAN_STEPS * found.iterations * len(points)
    seeding = 3 * len(points)
    assert 0 < sum(pairs) <= seeding + logarithms + found.iterations * (3 + len(points))


@pytest.mark.slow
def test_seeds_decide():
    metric, points = Ball(2), in_ball(25, 2, radius=0.95, seed=1)
    first, second = kmeans(metric, points, 4, seed=3), kmeans(metric, points, 4, seed=3)
    assert (first.labels == second.labels).all()
    assert (first.centers == second.centers).all()
    state = torch.get_rng_state()
    inertias = [kmeans(metric, points, 4, seed=seed).inertia for seed in range(4)]
    assert (torch.get_rng_state() == state).all()
    assert max(inertias) > 1.01 * min(inertias)
    best = kmeans(metric, points, 4, num_restarts=4).inertia
    assert best < kmeans(metric, points, 4).inertia * (1 + 1e-6)


def test_as_many_clusters_as_points():
    points = randn(4, 2)
    found = kmeans(EuclideanMetric(2).double(), points, 4)
    assert found.inertia == pytest.approx(0.0, abs=1e-9)
    assert sorted(found.labels.tolist()) == [0, 1, 2, 3]


def test_an_empty_cluster_takes_the_farthest_point():
    # Seeds of which one has no point of its own.
    points = torch.tensor([[0.0], [1.0], [2.0], [30.0]])
    labels, centers = torch.zeros(4, dtype=torch.long), torch.tensor([[8.0], [99.0], [98.0]])
    bounds = (points - centers.T).abs()
    clusters._fill_empty(points, labels, centers, bounds)
    assert labels.tolist() == [2, 0, 0, 1]
    assert centers.tolist() == [[8.0], [30.0], [0.0]]
    assert (bounds[:, 1:] == 0).all()


def test_clusters_that_do_not_rest_are_named(caplog):
    caplog.set_level(logging.WARNING)
    metric, points = Ball(2), in_ball(25, 2, radius=0.95, seed=1)
    assert kmeans(metric, points, 4).converged
    assert not caplog.records
    found = kmeans(metric, points, 4, max_iterations=2)
    assert not found.converged
    assert found.iterations == 2
    assert "k-means did not converge in 2 iterations" in caplog.text


def test_fewer_points_than_clusters_are_refused():
    metric, points = EuclideanMetric(2).double(), randn(3, 2)
    with pytest.raises(DataError, match=r"points has 3 different point\(s\): 4 clusters need at"):
        kmeans(metric, points, 4)
    with pytest.raises(DataError, match=r"points has 1 different point\(s\): 2 clusters need at"):
        kmeans(metric, points[:1].repeat(5, 1), 2)


def test_sets_of_points_are_checked():
    metric = Ball(2)
    for call in (
        lambda z: kmeans(metric, z, 2),
        lambda z: pairwise_distances(metric, z),
        lambda z: pairwise_distances(metric, in_ball(3, 2), z),
    ):
        for z, message in [
            (in_ball(2, 5, 2), r"has shape \(2, 5, 2\): expected \(N, 2\)"),
            (in_ball(5, 3), r"has shape \(5, 3\)"),
            (2 + in_ball(5, 2), "5 of 5 points lie outside the domain of Ball"),
            (in_ball(5, 2) * math.inf, "has 10 NaN or inf"),
        ]:
            with pytest.raises(DataError, match=message):
                call(z)


@pytest.mark.parametrize(
    "options",
    [{"k": 0}, {"k": 2.0}, {"num_restarts": 0}, {"max_iterations": 0}, {"seed": -1}],
)
def test_bad_numbers_are_refused(options):
    (name,) = options
    with pytest.raises(ConfigurationError, match=f"{name}=.*: expected an integer at least"):
        kmeans(EuclideanMetric(2).double(), randn(5, 2), **{"k": 2, **options})
    with pytest.raises(ConfigurationError, match="tolerance=0.0: .* greater than 0"):
        kmeans(EuclideanMetric(2).double(), randn(5, 2), 2, tolerance=0.0)
    with pytest.raises(ConfigurationError, match="tolerance=0.0: .* greater than 0"):
        frechet_mean(EuclideanMetric(2).double(), randn(5, 2), tolerance=0.0)
    with pytest.raises(ConfigurationError, match="max_iterations=0: .* at least 1"):
        frechet_mean(EuclideanMetric(2).double(), randn(5, 2), max_iterations=0)


@pytest.mark.slow
def test_a_learned_metric_gathers_what_its_manifold_joins():
    # Two arcs face each other across a void; k-means in the plane cuts both in halves.
    angles = torch.linspace(0, math.pi, 20, dtype=torch.float64)
    upper = torch.stack([3 * angles.cos(), 1.0 + 0.5 * angles.sin()], -1)
    codes = torch.cat([upper, -upper])
    truth = torch.arange(40) // 20
    metric = CentroidMetric(codes, torch.eye(2, dtype=torch.float64).repeat(40, 1, 1), 0.4, 1e-3)
    assert same_partition(kmeans(metric, codes, 2).labels, truth)
    flat = kmeans(EuclideanMetric(2).double(), codes, 2, num_restarts=2)
    assert not same_partition(flat.labels, truth)
