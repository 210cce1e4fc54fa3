"""The labels of a data set, and their return in the type in which they were given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chartae.data import ArrayDataset

__all__ = ["Labels"]

Container = Literal["tensor", "array", "series"]


@dataclass(frozen=True)
class Labels:
    """The names of the classes of a data set, and the type of its labels.

    Args:
        names: names of the classes, ascending.
        values: the label of each class, in the dtype of the labels given.
        container: ``"tensor"``, ``"series"`` (pandas), or ``"array"`` for arrays and lists.
    """

    names: tuple[str, ...]
    values: NDArray[Any]
    container: Container

    @classmethod
    def of(cls, names: tuple[str, ...], y: Any) -> Self:
        """Return the `Labels` of classes with these names; ``y`` has labels or is a dataset."""
        if isinstance(y, ArrayDataset):
            return cls(names, np.array(y.classes), "tensor")
        container: Container = "tensor" if isinstance(y, Tensor) else "array"
        if hasattr(y, "to_numpy"):
            container = "series"
        values = np.unique(y.cpu().numpy() if isinstance(y, Tensor) else np.asarray(y))
        return cls(names, values, container)

    def repeated(self, counts: Mapping[str, int]) -> Any:
        """Return the given number of labels of each class, class after class, in their type."""
        chosen = [self.names.index(name) for name in counts]
        labels = np.repeat(self.values[chosen], list(counts.values()))
        if self.container == "tensor":
            return torch.as_tensor(labels)
        if self.container == "array":
            return labels
        from pandas import Series

        return Series(labels)

    def to_json(self) -> dict[str, Any]:
        """Return the labels as JSON values."""
        return {
            "names": list(self.names),
            "values": self.values.tolist(),
            "dtype": self.values.dtype.str,
            "container": self.container,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Return the labels from the output of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: for other values.
        """
        names: Sequence[str] = record["names"]
        dtype = None if record["dtype"] == "|O" else np.dtype(record["dtype"])
        values = np.array(record["values"], dtype=dtype)
        if values.shape != (len(names),):
            raise ValueError(f"it has {len(names)} names for labels of shape {values.shape}")
        return cls(tuple(names), values.astype(record["dtype"]), record["container"])
