"""Figures of classifiers, against scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics

from chartae.errors import DataError
from chartae.evaluation import CLASSIFICATION_FIGURES, classification_figures

random = np.random.default_rng(0)


def case(classes: int, n: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    y = np.concatenate([np.arange(classes), random.integers(classes, size=n)])
    scores = random.random((len(y), classes))
    scores[np.arange(len(y)), y] += 0.3
    return y, scores.argmax(1), scores


def test_two_classes_are_those_of_scikit_learn() -> None:
    y, predicted, scores = case(2)
    found = classification_figures(y, predicted, scores)
    assert found.keys() == CLASSIFICATION_FIGURES.keys()
    assert found["sensitivity"] == pytest.approx(metrics.recall_score(y, predicted))
    assert found["specificity"] == pytest.approx(metrics.recall_score(y, predicted, pos_label=0))
    assert found["precision"] == pytest.approx(metrics.precision_score(y, predicted))
    assert found["f1"] == pytest.approx(metrics.f1_score(y, predicted))
    assert found["balanced_accuracy"] == pytest.approx(
        metrics.balanced_accuracy_score(y, predicted)
    )
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(y, predicted))
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(y, scores[:, 1]))


def test_more_classes_are_means_over_classes() -> None:
    y, predicted, scores = case(4)
    scores /= scores.sum(1, keepdims=True)
    found = classification_figures(y, predicted, scores)
    macro = {"average": "macro", "zero_division": 0}
    assert found["sensitivity"] == pytest.approx(metrics.recall_score(y, predicted, **macro))
    assert found["sensitivity"] == pytest.approx(found["balanced_accuracy"])
    assert found["precision"] == pytest.approx(metrics.precision_score(y, predicted, **macro))
    assert found["f1"] == pytest.approx(metrics.f1_score(y, predicted, **macro))
    expected = metrics.roc_auc_score(y, scores, multi_class="ovr", average="macro")
    assert found["auc"] == pytest.approx(expected)
    each = [metrics.recall_score(y == k, predicted == k, pos_label=False) for k in range(4)]
    assert found["specificity"] == pytest.approx(np.mean(each))


def test_a_class_without_cases_is_left_out() -> None:
    y, predicted = [0, 0, 1, 1], [0, 0, 1, 2]
    found = classification_figures(y, predicted, np.eye(4)[predicted], num_classes=4)
    assert found["balanced_accuracy"] == 0.75
    assert found["sensitivity"] == 0.75
    assert found["auc"] == pytest.approx((1.0 + 0.75) / 2)


def test_figures_of_two_classes_are_unknown_without_a_case() -> None:
    found = classification_figures([0, 0, 0], [0, 0, 1], num_classes=2)
    unknown = {name for name, value in found.items() if np.isnan(value)}
    assert unknown == {"f1", "precision", "sensitivity"}
    assert found["specificity"] == pytest.approx(2 / 3)
    assert np.isnan(classification_figures([1, 1], [0, 1])["specificity"])


def test_a_perfect_classifier_has_ones_and_the_reverse_zeros() -> None:
    y = np.array([0, 1, 1, 0])
    assert set(classification_figures(y, y, np.eye(2)[y]).values()) == {1.0}
    assert set(classification_figures(y, 1 - y, np.eye(2)[1 - y]).values()) == {0.0}


def test_without_two_classes_there_is_no_auc() -> None:
    assert "auc" not in classification_figures([1, 1], [1, 0], np.eye(2)[[1, 0]])
    assert "auc" not in classification_figures([0, 1], [1, 0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([], []), "y has shape"),
        (([0, 1], [0]), "predicted has 1 labels: expected 2"),
        (([0.5, 1.0], [0, 1]), "y has values of float64"),
        (([0, -1], [0, 1]), "expected indices of classes"),
        (([0, 1], [0, 1], [[1.0], [0.0]]), r"expected \(2, 2\)"),
        (([0, 1], [0, 1], [[np.nan, 0.0], [0.0, 1.0]]), "not finite"),
    ],
)
def test_wrong_arguments(given: tuple, message: str) -> None:
    with pytest.raises(DataError, match=message):
        classification_figures(*given)
