"""Distances between sets of samples, against closed forms."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from chartae.errors import ConfigurationError, DataError
from chartae.evaluation import (
    density_coverage,
    fidelity,
    frechet_distance,
    frechet_distance_infinity,
    inception_score,
    kernel_distance,
    prd,
    precision_recall,
    subset_kernel_distance,
)
from chartae.evaluation.fidelity import PRD
from chartae.randomness import make_generator

ALL = (
    frechet_distance,
    frechet_distance_infinity,
    kernel_distance,
    subset_kernel_distance,
    prd,
    precision_recall,
    density_coverage,
)


def normal(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def modes(places: list[float], n: int, seed: int) -> np.ndarray:
    """Return n points near each place of a line in the plane, far from the other places."""
    return np.concatenate(
        [normal(n, 2, seed + int(p)) + np.array([100.0 * p, 0.0]) for p in places]
    )


def with_moments(mean: np.ndarray, factor: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return samples whose sample mean and covariance are exactly those given."""
    z = np.random.default_rng(seed).normal(size=(n, len(mean)))
    z -= z.mean(0)
    z = z @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T))).T
    return mean + z @ factor.T


def test_it_is_the_closed_form_of_normals() -> None:
    rng = np.random.default_rng(0)
    means, factors = rng.normal(size=(2, 4)), np.tril(rng.normal(size=(2, 4, 4)))
    real, fake = (
        with_moments(*part, 50, n) for n, part in enumerate(zip(means, factors, strict=True))
    )
    first, second = (factor @ factor.T for factor in factors)
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(
        first + second - 2.0 * sqrtm(first @ second).real
    )
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(fake, real) == pytest.approx(expected, rel=1e-6)


def test_it_is_0_for_the_same_set_in_another_order_and_with_fewer_samples_than_features() -> None:
    x = torch.rand(20, 5, 10, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(x, x.flip(0)) == pytest.approx(0.0, abs=1e-9)


def test_it_is_the_closed_form_of_normals_on_a_line() -> None:
    x = normal(50, 1, 0)
    spread = x.std(ddof=1)
    assert frechet_distance(x, 3.0 * x + 1.0) == pytest.approx(
        (2.0 * x.mean() + 1.0) ** 2 + (2.0 * spread) ** 2
    )


def test_visits_side_by_side_see_the_order_of_time_that_frames_do_not_have() -> None:
    courses = torch.from_numpy(np.cumsum(normal(2000, 4, 0), 1))[:, :, None]  # (N, T, 1)
    generator = torch.Generator().manual_seed(0)
    shuffled = torch.stack([c[torch.randperm(4, generator=generator)] for c in courses])
    frames = frechet_distance(courses.flatten(0, 1), shuffled.flatten(0, 1))
    whole = frechet_distance(courses.flatten(1), shuffled.flatten(1))
    assert frames == pytest.approx(0.0, abs=1e-9)
    assert whole > 0.5


def test_a_collapsed_set_is_further_than_half_of_the_set() -> None:
    x = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    halves = frechet_distance(x[:500], x[500:])
    assert halves < 0.05 < 1.0 < frechet_distance(x, x[:1].repeat(500, 1))


# --- without the bias of few samples --------------------------------------------------------------


@pytest.fixture(scope="module")
def extrapolated() -> dict[str, np.ndarray]:
    """Distances of 30 pairs of normal sets, of 240 and 300 samples, whose true distance is 2.6."""
    found: dict[str, list[float]] = {"plain": [], "distance": [], "standard_error": []}
    for seed in range(30):
        rng = np.random.default_rng(seed)
        real, fake = rng.normal(size=(240, 20)), 0.3 + 1.2 * rng.normal(size=(300, 20))
        result = frechet_distance_infinity(real, fake, num_sizes=3)
        found["plain"].append(frechet_distance(real, fake))
        found["distance"].append(result.distance)
        found["standard_error"].append(result.standard_error)
    return {name: np.array(values) for name, values in found.items()}


def test_extrapolation_removes_the_bias(extrapolated: dict[str, np.ndarray]) -> None:
    true = 20 * (0.3**2 + 0.2**2)
    plain, distance = extrapolated["plain"], extrapolated["distance"]
    assert plain.mean() - true > 10 * plain.std() / math.sqrt(30)
    assert abs(distance.mean() - true) < 3 * distance.std() / math.sqrt(30)
    assert distance.std() < 1.5 * plain.std()


def test_the_standard_error_is_that_of_other_data(extrapolated: dict[str, np.ndarray]) -> None:
    ratio = extrapolated["standard_error"].mean() / extrapolated["distance"].std()
    assert 0.7 < ratio < 1.8


def test_a_distance_without_bias_stays_as_it_is() -> None:
    # Each sample is there 240 times, in each part too: all distances are those of the two means.
    real, fake = np.zeros((240, 2)), np.full((240, 2), 3.0)
    result = frechet_distance_infinity(real, fake)
    assert result.distance == pytest.approx(18.0)
    assert result.standard_error == pytest.approx(0.0, abs=1e-12)


def test_the_line_is_fitted_through_the_means_of_disjoint_parts() -> None:
    # Two sets on a line: a distance is a function of means and deviations that a loop can repeat.
    real, fake = normal(40, 1, 0), 2.0 * normal(40, 1, 1)
    generator = make_generator(0, "frechet_distance_infinity")
    a, b = (x[torch.randperm(40, generator=generator).numpy(), 0] for x in (real, fake))

    def gap(x: np.ndarray, y: np.ndarray) -> float:
        return float((x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2)

    whole, halves = gap(a, b), (gap(a[::2], b[::2]) + gap(a[1::2], b[1::2])) / 2
    found = frechet_distance_infinity(real, fake, num_sizes=2)
    assert found.distance == pytest.approx(2 * whole - halves)  # through (1, whole), (2, halves)
    assert found == frechet_distance_infinity(real, fake, num_sizes=2, seed=0)
    assert found != frechet_distance_infinity(real, fake, num_sizes=2, seed=1)


@pytest.mark.parametrize(
    ("sizes", "options", "error", "words"),
    [
        (
            ((104, 20), (500, 20)), {}, DataError,
            "real has 104 samples of 20 features: expected at least 105 for num_sizes=5",
        ),
        (((500, 2), (19, 2)), {"num_sizes": 2}, DataError, "fake has 19 .* least 20"),
        (((50, 2), (50, 2)), {"num_sizes": 1}, ConfigurationError, "num_sizes=1"),
        (((50, 2), (50, 2)), {"seed": -1}, ConfigurationError, "seed=-1"),
    ],
)  # fmt: skip
def test_too_few_samples_for_an_extrapolation_are_refused(
    sizes: tuple[tuple[int, int], tuple[int, int]],
    options: dict[str, int],
    error: type[Exception],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        frechet_distance_infinity(np.zeros(sizes[0]), np.zeros(sizes[1]), **options)


# --- kernel distance -----------------------------------------------------------------------------


def test_the_kernel_distance_is_its_definition_over_all_pairs() -> None:
    a, b = normal(7, 3, 0), normal(5, 3, 1) + 0.5

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 3 + 1) ** 3)

    within = [
        np.mean([k(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j])
        for s in (a, b)
    ]
    across = np.mean([k(x, y) for x in a for y in b])
    assert kernel_distance(a, b) == pytest.approx(sum(within) - 2 * across)


def test_the_kernel_distance_is_that_of_torchmetrics() -> None:
    from torchmetrics.image.kid import poly_mmd

    a, b = torch.from_numpy(normal(30, 5, 0)), torch.from_numpy(normal(30, 5, 1) + 0.3)
    assert kernel_distance(a, b) == pytest.approx(float(poly_mmd(a, b)))


def test_the_kernel_distance_of_equal_distributions_is_0_on_average_and_not_biased() -> None:
    splits = np.array(
        [kernel_distance(x[:20], x[20:]) for x in normal(200 * 40, 3, 0).reshape(200, 40, 3)]
    )
    error = splits.std() / math.sqrt(len(splits))
    assert abs(splits.mean()) < 3.0 * error
    assert (splits < 0).any()


def test_the_kernel_distance_of_a_shift_is_that_of_the_moments() -> None:
    # In one dimension, k(x, y) = (xy + 1)^3 has the features x^3, sqrt(3) x^2, sqrt(3) x, 1.
    a, b = normal(4000, 1, 0), normal(4000, 1, 1) + 1.0
    gaps = [(1 + 3) - 0, math.sqrt(3) * ((1 + 1) - 1), math.sqrt(3) * (1 - 0)]
    assert kernel_distance(a, b) == pytest.approx(sum(gap**2 for gap in gaps), rel=0.1)


def test_subsets_have_the_mean_of_all_pairs() -> None:
    a, b = normal(300, 3, 0), normal(300, 3, 1) + 1.0
    result = subset_kernel_distance(a, b, num_subsets=100, size=100, seed=0)
    assert result.mean == pytest.approx(kernel_distance(a, b), abs=3 * result.std / 10)
    assert result == subset_kernel_distance(a, b, num_subsets=100, size=100, seed=0)
    assert result != subset_kernel_distance(a, b, num_subsets=100, size=100, seed=1)


# --- inception score -----------------------------------------------------------------------------


def test_the_inception_score_has_its_bounds_and_its_definition() -> None:
    assert inception_score(np.full((9, 4), 0.25)) == pytest.approx(1.0)
    assert inception_score(np.eye(4)[[0, 1, 2, 3] * 3]) == pytest.approx(4.0)
    p = np.random.default_rng(0).dirichlet([0.3] * 4, size=50)
    expected = np.exp((p * np.log(p / p.mean(0))).sum(1).mean())
    assert inception_score(p) == pytest.approx(expected)
    parts = [inception_score(part) for part in np.split(p, 5)]
    assert inception_score(p, splits=5) == pytest.approx(np.mean(parts))


@pytest.mark.parametrize(
    ("probabilities", "splits", "error", "words"),
    [
        (np.ones((3, 2)), 1, DataError, "whose sum is 1 away from 1"),
        ([[1.5, -0.5]], 1, DataError, "smallest value of -0.5"),
        (np.ones(3), 1, DataError, r"shape \(3,\): expected \(n, C\)"),
        ([[np.nan, 1.0]], 1, DataError, "1 NaN"),
        ([[0.5, 0.5]], 2, ConfigurationError, "splits=2: expected an integer at least 1 and at"),
    ],
)
def test_what_is_not_a_probability_is_refused(
    probabilities: np.ndarray, splits: int, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        inception_score(probabilities, splits)


# --- precision and recall ------------------------------------------------------------------------


def brute_force(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, float, float, float]:
    """Precision, recall, density and coverage by loops over the definitions."""

    def distance(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.sqrt(((x - y) ** 2).sum()))

    def radius(points: np.ndarray, i: int) -> float:
        others = [distance(points[i], y) for j, y in enumerate(points) if j != i]
        return sorted(others)[k - 1]

    balls = [(c, radius(real, i)) for i, c in enumerate(real)]
    theirs = [(c, radius(fake, i)) for i, c in enumerate(fake)]
    precision = np.mean([any(distance(x, c) <= r for c, r in balls) for x in fake])
    recall = np.mean([any(distance(x, c) <= r for c, r in theirs) for x in real])
    density = np.sum([distance(x, c) <= r for x in fake for c, r in balls]) / (k * len(fake))
    coverage = np.mean([any(distance(x, c) <= r for x in fake) for c, r in balls])
    return float(precision), float(recall), float(density), float(coverage)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("tied", [False, True])
def test_neighbours_are_those_of_loops_with_ties_and_duplicates_too(tied: bool, k: int) -> None:
    real, fake = normal(50, 3, 0), normal(40, 3, 1) + 0.5
    if tied:  # of whole numbers, whose distances are exact in loops, and many of them equal
        real, fake = np.rint(real[:, :2]), np.rint(fake[:, :2])
        assert len(np.unique(real, axis=0)) < 20
    for offset in (0.0, 1000.0):
        a, b = real + offset, fake + offset
        balls, cover = precision_recall(a, b, k=k), density_coverage(a, b, k=k)
        found = (balls.precision, balls.recall, cover.density, cover.coverage)
        assert found == pytest.approx(brute_force(real, fake, k), abs=1e-12)


def test_copies_and_duplicates_are_inside_the_balls_of_radius_0() -> None:
    real = np.repeat(np.random.default_rng(0).uniform(size=(10, 30)), 8, axis=0)
    assert precision_recall(real, real[::-1]) == fidelity.PrecisionRecall(1.0, 1.0)
    assert density_coverage(real, real[::-1]) == fidelity.DensityCoverage(8 / 5, 1.0)


def test_half_of_each_distribution_is_in_the_other() -> None:
    shared = modes([0], 30, 0)
    real = np.concatenate([shared, modes([1], 30, 1)])
    fake = np.concatenate([shared, modes([2], 30, 2)])
    assert precision_recall(real, fake) == fidelity.PrecisionRecall(0.5, 0.5)
    cover = density_coverage(real, fake)
    assert cover.coverage == 0.5
    # each of 30 balls holds its centre and 5 others
    assert cover.density == pytest.approx(30 * 6 / (5 * 60))
    curve = prd(real, fake)
    assert float(curve.precision.max()) == pytest.approx(0.5)
    assert float(curve.recall.max()) == pytest.approx(0.5)
    assert curve.f_8 == pytest.approx(0.5, abs=0.01)
    assert curve.f_1_8 == pytest.approx(0.5, abs=0.01)


def test_a_curve_is_that_of_the_histograms_of_points() -> None:
    p, q = np.array([5, 3, 2, 0]), np.array([1, 3, 0, 4])
    places = np.array([[0.0], [10.0], [30.0], [70.0]])
    curve = prd(np.repeat(places, p, 0), np.repeat(places, q, 0), runs=2)
    angles = np.linspace(1e-6, np.pi / 2 - 1e-6, 1001)
    slopes = np.tan(angles)[:, None]
    precision = np.minimum(slopes * p / 10, q / 8).sum(1)
    recall = np.minimum(p / 10, q / 8 / slopes).sum(1)
    np.testing.assert_allclose(curve.precision, precision, atol=1e-12)
    np.testing.assert_allclose(curve.recall, recall, atol=1e-12)
    assert curve.precision.max() == pytest.approx(4 / 8)  # what is generated where there are data
    assert curve.recall.max() == pytest.approx(8 / 10)


def test_f_8_is_recall_and_f_1_8_is_precision() -> None:
    curve = PRD(torch.tensor([0.9, 0.0]), torch.tensor([0.2, 0.0]))
    assert curve.f_8 == pytest.approx(65 * 0.9 * 0.2 / (64 * 0.9 + 0.2))
    assert curve.f_8 < 0.21
    assert curve.f_1_8 > 0.8
    assert curve.f_score(1.0) == pytest.approx(2 * 0.9 * 0.2 / (0.9 + 0.2))


def test_a_mode_dropper_has_precision_and_an_inventor_has_recall() -> None:
    # Modes of points, each twice where the other set has both.
    one, two = modes([0], 100, 0), modes([0, 1], 50, 0)
    one, two = np.concatenate([two[:50], two[:50]]), two
    dropper, inventor = precision_recall(two, one), precision_recall(one, two)
    assert (dropper.precision, dropper.recall) == (1.0, 0.5)
    assert (inventor.precision, inventor.recall) == (0.5, 1.0)
    assert density_coverage(two, one).coverage == 0.5
    assert density_coverage(two, one).density > 1.0
    assert density_coverage(one, two).coverage == 1.0
    assert density_coverage(one, two).density < 0.8
    dropped, invented = prd(two, one), prd(one, two)
    # At best, precision 1 and recall 1/2: F_8 = 65 / 2 / (64 + 1/2), F_1/8 = 65 / 2 / (1 + 32).
    assert dropped.f_8 == pytest.approx(0.504, abs=0.005)
    assert dropped.f_1_8 == pytest.approx(0.985, abs=0.005)
    assert invented.f_8 == pytest.approx(dropped.f_1_8, abs=1e-6)
    assert invented.f_1_8 == pytest.approx(dropped.f_8, abs=1e-6)


def test_equal_distributions_have_the_expected_density_and_coverage() -> None:
    a, b = normal(1000, 4, 0), normal(1000, 4, 1)
    result = density_coverage(a, b, k=5)
    assert result.density == pytest.approx(1.0, abs=0.1)
    assert result.coverage == pytest.approx(1 - 2**-5, abs=0.02)


def test_sets_of_other_sizes_have_the_same_weight_in_a_curve() -> None:
    # Of three places two share a cluster. By weight, -3 and 0 do: it costs 9 / 6, and 0 with 4
    # costs 16 / 6. By number, 0 with 4 would cost less, as so few samples are at 4.
    real = np.array([[0.0]] * 10 + [[4.0]] * 10)
    fake = np.array([[0.0]] * 500 + [[-3.0]] * 500)
    curve = prd(real, fake, num_clusters=2)
    assert (curve.precision.max(), curve.recall.max()) == pytest.approx((1.0, 0.5), abs=1e-6)


# --- of all of them ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metric", [m for m in ALL if m not in (frechet_distance_infinity, subset_kernel_distance)]
)
def test_neither_blocks_nor_the_order_of_samples_matter(
    metric: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, fake = normal(60, 3, 0), np.rint(normal(50, 3, 1))
    expected = vars_of(metric(real, fake))
    rng = np.random.default_rng(0)
    others = [vars_of(metric(rng.permutation(real), rng.permutation(fake)))]
    for pairs in (1, 130):
        monkeypatch.setattr(fidelity, "PAIRS", pairs)
        others.append(vars_of(metric(real, fake)))
    for other in others:
        np.testing.assert_allclose(other, expected, rtol=1e-9, atol=1e-12)


def vars_of(result: object) -> list[float]:
    if isinstance(result, PRD):
        return [result.f_8, result.f_1_8, *result.precision.tolist()]
    return [result] if isinstance(result, float) else list(vars(result).values())


@pytest.mark.parametrize("metric", ALL)
def test_arrays_and_tensors_of_any_dtype_give_floats(metric: Callable[..., object]) -> None:
    real, fake = np.rint(9 * normal(30, 3, 0)), np.rint(9 * normal(30, 3, 1))
    options = {subset_kernel_distance: {"size": 10}, frechet_distance_infinity: {"num_sizes": 2}}
    options = options.get(metric, {})
    expected = vars_of(metric(real, fake, **options))
    assert all(isinstance(value, float) for value in expected)
    for cast in (np.int64, np.float32):
        assert vars_of(metric(real.astype(cast), fake.astype(cast), **options)) == expected
    assert vars_of(metric(torch.tensor(real)[:, :, None], fake[:, None], **options)) == expected


def test_each_failure_is_last_by_the_metric_that_should_see_it() -> None:
    angles = np.repeat(np.arange(8) * np.pi / 4, 50)
    circle = 10.0 * np.stack([np.cos(angles), np.sin(angles)], 1)
    real = circle + normal(400, 2, 0)
    rng = np.random.default_rng(1)
    models = {
        "good": circle + normal(400, 2, 2),
        "constant": np.repeat(real[:1], 400, 0),
        "shuffled": np.stack([rng.permutation(column) for column in real.T], 1),
        "dropper": np.repeat(circle[:100], 4, 0) + normal(400, 2, 3),
    }

    def last(score: Callable[[np.ndarray], float], *without: str) -> str:
        some = {name: x for name, x in models.items() if name not in without}
        return min(some, key=lambda name: score(some[name]))

    def classes(x: np.ndarray) -> np.ndarray:
        return np.eye(8)[((x[:, None] - circle[::50]) ** 2).sum(2).argmin(1)]

    assert last(lambda x: -frechet_distance(real, x)) == "constant"
    assert last(lambda x: -kernel_distance(real, x)) == "constant"
    assert last(lambda x: inception_score(classes(x))) == "constant"
    assert last(lambda x: precision_recall(real, x).recall) == "constant"
    assert last(lambda x: density_coverage(real, x).coverage) == "constant"
    assert last(lambda x: precision_recall(real, x).precision) == "shuffled"
    assert last(lambda x: density_coverage(real, x).density) == "shuffled"
    assert last(lambda x: prd(real, x).f_1_8, "constant") == "shuffled"
    assert last(lambda x: prd(real, x).f_8, "constant") == "dropper"
    assert last(lambda x: precision_recall(real, x).recall, "constant") == "dropper"


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize(
    ("real", "fake", "words"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), r"real has shape \(1, 3\)"),
        (np.zeros((5, 3)), np.zeros((5, 2)), "real has 3 features and fake 2"),
        (np.zeros((5, 3)), np.full((5, 3), np.nan), "fake has 15 NaN"),
        (np.zeros(5), np.zeros(5), r"real has shape \(5,\)"),
        (np.zeros((5, 3)), np.full((5, 3), 1e60), "fake has a value of 1e.60: expected at most"),
    ],
)
def test_bad_input_is_refused(
    metric: Callable[..., object], real: np.ndarray, fake: np.ndarray, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        metric(real, fake)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e40])
def test_constant_and_few_distinct_samples_are_no_problem_in_any_unit(scale: float) -> None:
    same, two = np.full((9, 2), scale), scale * np.array([[0.0, 1.0]] * 4 + [[1.0, 1.0]] * 4)
    curve = prd(same, same)
    assert (curve.f_8, curve.f_1_8) == pytest.approx((1.0, 1.0), abs=1e-3)
    assert prd(two, same).recall.max() == pytest.approx(0.5)
    assert frechet_distance(same, same) == kernel_distance(same, same) == 0.0
    balls = precision_recall(two, same)
    assert (balls.precision, balls.recall) == (1.0, 0.5)


def test_more_neighbours_or_larger_subsets_than_samples_are_refused() -> None:
    x = normal(5, 2, 0)
    with pytest.raises(DataError, match="real has 5 samples: expected more than k=5"):
        precision_recall(x, normal(9, 2, 1), k=5)
    with pytest.raises(DataError, match="fake has 5 samples: expected more than k=5"):
        precision_recall(normal(9, 2, 1), x, k=5)
    with pytest.raises(DataError, match="real has 5 samples: expected more than k=5"):
        density_coverage(x, x)
    with pytest.raises(DataError, match="real has 5 samples: expected at least size=1000"):
        subset_kernel_distance(x, x)
    for bad in ({"k": 0}, {"k": 1.5}):
        with pytest.raises(ConfigurationError, match="expected an integer at least 1"):
            density_coverage(x, x, **bad)
