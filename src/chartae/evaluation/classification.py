"""Figures of classifiers: accuracy, sensitivity, specificity, precision, F1 and AUC."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chartae.errors import DataError

__all__ = ["CLASSIFICATION_FIGURES", "classification_figures"]

CLASSIFICATION_FIGURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "precision": "precision",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "auc": "AUC",
}
"""Titles of the figures of `classification_figures`, by name; all are in [0, 1]."""


def classification_figures(
    y: ArrayLike,
    predicted: ArrayLike,
    probabilities: ArrayLike | None = None,
    *,
    num_classes: int | None = None,
) -> dict[str, float]:
    """Return how well a classifier predicts held-out labels (thesis sections 1.5.4, 2.5 and 3.7.3).

    With two classes, class 1 is the positive one: sensitivity is the share of its cases that are
    found, specificity the share of the cases of class 0 that are found, precision the share of true
    cases among those that are called positive, and F1 the harmonic mean of precision and
    sensitivity. With more classes each of these is the mean over classes, each against all others;
    the sensitivity is then the balanced accuracy. A class without a case in ``y`` is left out of
    these means; with two classes, figures that need its cases are NaN. Precision and F1 of a class
    that has cases and is never predicted are 0.

    Args:
        y: ``(n,)`` indices of the true classes, from 0.
        predicted: ``(n,)`` indices of the predicted classes.
        probabilities: ``(n, num_classes)``, or any scores that rise with the probability of a
            class. They give the area under the ROC curve: of class 1 for two classes, else the mean
            over classes, each against all others.
        num_classes: number of classes; None takes the largest index.

    Returns:
        The figures by name (`CLASSIFICATION_FIGURES`), each in [0, 1] or NaN. ``"auc"`` is missing
        without probabilities, and if ``y`` has one class only.

    Raises:
        DataError: for empty arrays, arrays of other shapes, labels that are not indices, or scores
            that are not finite.

    >>> figures = classification_figures([0, 0, 0, 1, 1], [0, 0, 1, 1, 0])
    >>> round(figures["sensitivity"], 3), round(figures["specificity"], 3), figures["accuracy"]
    (0.5, 0.667, 0.6)
    """
    truth, found = _indices("y", y), _indices("predicted", predicted)
    if len(truth) != len(found):
        raise DataError(f"predicted has {len(found)} labels: expected {len(truth)}, as y has")
    count = max(int(max(truth.max(), found.max())) + 1, 2, num_classes or 0)
    confusion = np.zeros((count, count))
    np.add.at(confusion, (truth, found), 1.0)
    hits, actual, called = np.diagonal(confusion), confusion.sum(1), confusion.sum(0)
    others = len(truth) - actual
    present = actual > 0
    recall = hits / np.maximum(actual, 1)
    each = {
        "f1": 2.0 * hits / np.maximum(actual + called, 1),
        "precision": hits / np.maximum(called, 1),
        "sensitivity": recall,
        "specificity": (others - called + hits) / np.maximum(others, 1),
    }
    figures = {
        "accuracy": float(hits.sum() / len(truth)),
        "balanced_accuracy": float(recall[present].mean()),
    }
    for name, values in each.items():
        needed = present[0] if name == "specificity" else present[1]
        if count == 2:
            figures[name] = float(values[1]) if needed else float("nan")
        else:
            figures[name] = float(values[present].mean())
    if probabilities is not None and present.sum() > 1:
        figures["auc"] = _auc(truth, probabilities, count, present)
    return figures


def _indices(name: str, values: ArrayLike) -> NDArray[Any]:
    labels = np.asarray(values)
    if labels.ndim != 1 or not len(labels):
        raise DataError(f"{name} has shape {labels.shape}: expected labels, (n,), n at least 1")
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        raise DataError(f"{name} has values of {labels.dtype}: expected indices of classes, from 0")
    return labels


def _auc(
    truth: NDArray[Any], probabilities: ArrayLike, count: int, present: NDArray[np.bool_]
) -> float:
    from sklearn.metrics import roc_auc_score

    scores = np.asarray(probabilities, dtype=np.float64)
    if scores.shape != (len(truth), count):
        raise DataError(f"probabilities has shape {scores.shape}: expected ({len(truth)}, {count})")
    if not np.isfinite(scores).all():
        raise DataError("probabilities has values that are not finite: expected numbers")
    if count == 2:
        return float(roc_auc_score(truth == 1, scores[:, 1]))
    areas = [roc_auc_score(truth == k, scores[:, k]) for k in np.flatnonzero(present)]
    return float(np.mean(areas))
