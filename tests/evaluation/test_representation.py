import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from chartae.errors import ConfigurationError, DataError
from chartae.evaluation import cluster_accuracy, linear_probe
from chartae.geometry import EuclideanMetric

RNG = np.random.default_rng(0)
LABELS = np.repeat(["a", "b", "c"], 40)
CENTRES = np.repeat([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]], 40, axis=0)
BLOBS = CENTRES + RNG.normal(size=(120, 2))
NOISE = RNG.normal(size=(120, 2))


class TestProbe:
    def test_blobs_are_separated_and_noise_is_not(self) -> None:
        assert linear_probe(BLOBS, LABELS, BLOBS, LABELS, runs=2).accuracies == (1.0, 1.0)
        fresh = np.random.default_rng(1).normal(size=(300, 2))
        found = linear_probe(NOISE, LABELS, fresh, np.tile(["a", "b", "c"], 100), runs=2)
        # the standard error of a share of 1/3 among 300 is 0.027
        assert found.mean == pytest.approx(1 / 3, abs=0.1)

    def test_a_linear_classifier_cannot_separate_a_ring(self) -> None:
        angle, radius = RNG.uniform(0, 2 * math.pi, 200), np.repeat([1.0, 3.0], 100)
        ring = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
        y = radius > 2.0
        assert linear_probe(ring, y, ring, y, runs=2).mean < 0.7
        lifted = np.concatenate([ring, radius[:, None] ** 2], 1)
        assert linear_probe(lifted, y, lifted, y, runs=2).mean == 1.0

    def test_validation_chooses_the_penalty(self) -> None:
        # The class is in a small difference of two features, which a strong penalty ignores.
        a, b = np.random.default_rng(3).normal(size=(2, 300))
        x, y = np.stack([a, a + 0.02 * b], 1), b > 0.0
        strong = LogisticRegression(C=0.01).fit(x / x.std(0), y).score(x / x.std(0), y)
        assert strong < 0.7
        assert linear_probe(x, y, x, y, runs=2).mean > 0.85

    def test_runs_follow_the_seed(self) -> None:
        def probe(seed: int, runs: int = 3) -> tuple[float, ...]:
            return linear_probe(NOISE, LABELS, BLOBS, LABELS, runs=runs, seed=seed).accuracies

        assert probe(0) == probe(0)
        assert probe(0, 3)[:2] == probe(0, 2)  # more runs do not change the first
        assert len({*probe(0), *probe(1)}) > 1
        found = linear_probe(NOISE, LABELS, BLOBS, LABELS, runs=3)
        assert found.deviation == pytest.approx(np.std(found.accuracies, ddof=1))

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"y_train": LABELS[:5]}, "120 samples and 5 labels"),
            ({"test": BLOBS[:, :1]}, "2 features and test 1"),
            ({"y_train": ["a"] * 120}, "one class"),
            ({"y_train": ["a"] * 119 + ["b"]}, "a class of one sample"),
            ({"train": np.full((120, 2), np.nan)}, "train"),
            ({"train": BLOBS[:, 0]}, r"expected \(N, features\)"),
        ],
    )
    def test_bad_data_are_refused(self, change, match: str) -> None:
        given = {"train": BLOBS, "y_train": LABELS, "test": BLOBS, "y_test": LABELS} | change
        with pytest.raises(DataError, match=match):
            linear_probe(**given)


class TestClusters:
    @pytest.mark.parametrize("metric", [None, EuclideanMetric(2)])
    def test_blobs(self, metric) -> None:
        found = cluster_accuracy(BLOBS, LABELS, runs=3, metric=metric)
        # A run may end in a local optimum, with two blobs in one cluster.
        assert max(found.accuracies) == max(found.nmi) == max(found.ari) == 1.0

    def test_noise_agrees_by_chance_only(self) -> None:
        found = cluster_accuracy(NOISE, LABELS, runs=5)
        assert found.accuracy < 0.5
        assert np.mean(found.ari) == pytest.approx(0.0, abs=0.05)

    def test_each_cluster_stands_for_its_most_frequent_class(self) -> None:
        x = [[0.0]] * 3 + [[1.0]] * 3
        found = cluster_accuracy(x, ["a", "a", "b", "b", "b", "b"], runs=1)
        assert found.accuracy == pytest.approx(5 / 6)

    def test_one_cluster_has_the_share_of_the_largest_class(self) -> None:
        found = cluster_accuracy(BLOBS[:100], LABELS[:100], clusters=1, runs=1)
        assert found.accuracy == 0.4
        assert found.nmi == (0.0,)

    def test_more_clusters_than_different_points(self) -> None:
        assert cluster_accuracy(np.zeros((120, 2)), LABELS, runs=1).accuracy == pytest.approx(1 / 3)

    def test_the_order_of_samples_and_names_of_classes_do_not_matter(self) -> None:
        order = RNG.permutation(120)
        names = np.array([{"a": 7, "b": 3, "c": 5}[y] for y in LABELS])
        one = cluster_accuracy(BLOBS, LABELS, runs=8)
        other = cluster_accuracy(BLOBS[order], names[order], runs=8)
        assert max(one.accuracies) == max(other.accuracies) == 1.0

    def test_runs_follow_the_seed(self) -> None:
        one, two = (cluster_accuracy(torch.tensor(NOISE), LABELS, runs=r) for r in (2, 4))
        assert two.accuracies[:2] == one.accuracies

    def test_bad_input_is_refused(self) -> None:
        with pytest.raises(DataError, match="expected at least one for each of 5"):
            cluster_accuracy(BLOBS[:4], LABELS[:4], clusters=5)
        with pytest.raises(ConfigurationError, match="runs=0"):
            cluster_accuracy(BLOBS, LABELS, runs=0)
