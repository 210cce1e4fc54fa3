"""Imputation of unobserved values by the typical values of a training set."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chartae.data import Form

__all__ = ["examples_of_classes", "imputed", "typical_values"]

Array = NDArray[Any]


def typical_values(x: Array, mask: Array | None, form: Form) -> Array:
    """Return the median of the observed values of each feature; for categories the most frequent.

    Args:
        x: observations, ``(N, *input_shape)``.
        mask: bool, the shape of ``x``, True where it was observed; None if it was everywhere.
        form: the form of the observations, which says which features are categories. The first of
            several categories of the same frequency counts as the most frequent.

    Returns:
        ``(*input_shape)``, NaN for a feature that was never observed.

    >>> x, mask = (
    ...     np.array([[1.0], [2.0], [9.0], [0.0]]),
    ...     np.array([[True], [True], [True], [False]]),
    ... )
    >>> import torch
    >>> typical_values(x, mask, Form(torch.float64))
    array([2.])
    """
    observed = x.astype(np.float64) if mask is None else np.where(mask, x, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a feature that was never observed
        typical: Array = np.nanmedian(observed, 0)
    for _, start, kind in form.starts:
        if kind is not None and not np.isnan(typical[start]):
            group = slice(start, start + len(kind.values))
            seen = x[:, group] if mask is None else x[mask[:, start], group]
            typical[group] = np.eye(len(kind.values))[seen.sum(0).argmax()]
    return typical


def imputed(x: Array, mask: Array | None, typical: Array) -> Array:
    """Return observations with typical values where the mask is False.

    A feature without a typical value is 0 in all observations: a training set in which it was never
    observed says nothing about it.

    >>> imputed(np.ones((2, 2)), np.eye(2, dtype=bool), np.array([5.0, np.nan]))
    array([[1., 0.],
           [5., 0.]])
    """
    known = np.isfinite(typical)
    seen = known if mask is None else mask & known
    return np.where(seen, x, np.where(known, typical, 0.0)).astype(x.dtype)


def examples_of_classes(y: Array, y_new: Array, random: np.random.Generator) -> Array:
    """Return, for each new label, the row of a random example of this class, ``(n,)``.

    Samples that lack what these examples lack have gaps as often as real ones.

    >>> examples_of_classes(np.array([0, 1]), np.array([1, 0, 1]), np.random.default_rng(0))
    array([1, 0, 1])
    """
    rows = np.zeros(len(y_new), dtype=np.int64)
    for label in np.unique(y_new):
        of_class = y_new == label
        rows[of_class] = random.choice(np.flatnonzero(y == label), int(of_class.sum()))
    return rows
