"""Weights of real and synthetic observations in the training of a classifier."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chartae.checks import check_number
from chartae.errors import DataError

__all__ = ["sample_weight"]


def sample_weight(y: ArrayLike, y_new: ArrayLike, share: float = 1.0) -> NDArray[Any]:
    """Return weights of real and synthetic observations for a classifier, ``(N + n,)``.

    A real observation has weight 1. The synthetic observations of a class have, in total, ``share``
    times the weight of its real observations, whatever their number. Without weights a large
    synthetic set outweighs the real one. Most classifiers of scikit-learn take the weights as
    ``sample_weight``. Those by nearest neighbours do not: multiply their number of neighbours by
    1 + n/N, so that neighbourhoods keep their size (``docs/augmentation.md``).

    Args:
        y: labels of the real observations, ``(N,)``.
        y_new: labels of the synthetic observations that follow them, ``(n,)``.
        share: total weight of synthetic relative to real observations, at least 0.

    Raises:
        DataError: for a synthetic label that is not in ``y``, or labels of another shape.
        ConfigurationError: if ``share`` is out of range.

    >>> sample_weight(["a", "a", "b"], ["a", "a", "a", "a", "b"])
    array([1. , 1. , 1. , 0.5, 0.5, 0.5, 0.5, 1. ])
    """
    check_number("share", share, minimum=0.0)
    real, made = np.asarray(y), np.asarray(y_new)
    for name, labels in (("y", real), ("y_new", made)):
        if labels.ndim != 1:
            raise DataError(f"{name} has shape {labels.shape}: expected labels, (N,)")
    classes, counts = np.unique(real, return_counts=True)
    if len(unknown := np.setdiff1d(made, classes)):
        raise DataError(f"y_new has the label {str(unknown[0])!r}: expected those of y")
    places = np.searchsorted(classes, made)
    synthetic = np.bincount(places, minlength=len(classes))
    weights = share * counts / np.maximum(synthetic, 1)
    return np.concatenate([np.ones(len(real)), weights[places]])
