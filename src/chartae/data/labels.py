"""Conversion of labels (numbers or strings) to class indices and class names."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from chartae.data.arrays import check_dense
from chartae.errors import DataError

__all__ = ["LABEL_NAMES", "are_vectors", "encode_labels"]

LABEL_NAMES = ("y", "labels", "label", "targets", "target", "class")
"""Names of columns and arrays that are read as labels, in lower case."""


def are_vectors(y: object) -> bool:
    """Whether conditions are vectors, not labels."""
    if isinstance(y, Tensor):
        return y.ndim == 2 and y.is_floating_point()
    try:
        values = np.asarray(y)
    except ValueError:  # lists of different lengths, for which `encode_labels` raises an error
        return False
    return values.ndim == 2 and values.dtype.kind == "f"


def encode_labels(
    y: ArrayLike | Tensor, class_names: Sequence[str] | None = None
) -> tuple[Tensor, tuple[str, ...]]:
    """Return class indices (N,) int64 and the classes' names, from labels ``y`` (N,).

    Args:
        y: (N,) integers, booleans or strings.
        class_names: without it, the classes are the distinct labels in sorted order; with it,
            integer labels are indices into it and string labels are looked up in it.

    Raises:
        DataError: if ``y`` is empty, has another shape or dtype, or holds a label that is not in
            ``class_names``.

    >>> encode_labels(["cat", "dog", "cat"])
    (tensor([0, 1, 0]), ('cat', 'dog'))
    >>> encode_labels([7, 3, 7])
    (tensor([1, 0, 1]), ('3', '7'))
    >>> encode_labels([1, 1], class_names=("cat", "dog"))
    (tensor([1, 1]), ('cat', 'dog'))
    """
    labels = _label_array(y)
    if class_names is None:
        values, indices = np.unique(labels, return_inverse=True)
        names = tuple(str(value) for value in values)
    else:
        names = tuple(str(name) for name in class_names)
        if len(set(names)) < len(names):
            raise DataError(f"class_names={names}: expected names that differ")
        indices = _look_up(labels, names)
    return torch.from_numpy(indices.astype(np.int64)), names


def _label_array(y: ArrayLike | Tensor) -> NDArray[np.generic]:
    if y is None:
        raise DataError("y is None: expected (N,), one label per sample")
    check_dense("y", y)
    try:
        labels = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    except (TypeError, ValueError):  # bfloat16, or lists of different lengths
        given = f"has dtype {y.dtype}" if isinstance(y, Tensor) else f"is {type(y).__name__}"
        raise DataError(
            f"y {given}: expected (N,), one integer or string label per sample"
        ) from None
    if labels.ndim != 1:
        raise DataError(
            f"y has shape {labels.shape}: expected (N,), one label per sample{_way_out(labels)}"
        )
    if labels.size == 0:
        raise DataError("y is empty: expected at least one label")
    if labels.dtype.kind == "T" or (
        labels.dtype == object and all(isinstance(label, str) for label in labels)
    ):
        labels = labels.astype(np.str_)
    if labels.dtype.kind not in "iubU":
        raise DataError(
            f"y has dtype {labels.dtype}: expected integer or string labels; "
            "convert them explicitly, for example with y.astype(int)"
        )
    return labels


def _way_out(labels: NDArray[np.generic]) -> str:
    """Return a hint on how labels of another shape can be converted, if there is one."""
    if labels.ndim != 2:
        return ""
    if labels.shape[1] == 1:
        return "; convert them with y.ravel()"
    return "; convert one-hot labels with y.argmax(1)"


def _look_up(labels: NDArray[np.generic], names: tuple[str, ...]) -> NDArray[np.int64]:
    """Return the indices of ``labels`` in ``names``: strings by name, integers unchanged."""
    if labels.dtype.kind == "U":
        known = {name: index for index, name in enumerate(names)}
        indices = np.array([known.get(str(label), -1) for label in labels])
    else:
        indices = labels.astype(np.int64)
    bad = (indices < 0) | (indices >= len(names))
    if bad.any():
        first = int(bad.argmax())
        raise DataError(
            f"y[{first}]={labels[first].item()!r} is not a class: expected one of the "
            f"{len(names)} class_names {names} or an index into them"
        )
    return indices
