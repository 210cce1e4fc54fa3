"""The labels of a labelled set, as they were given and as they come back."""

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
    """The classes of a data set by their names, and how their labels were given.

    Args:
        names: the classes' names, ascending.
        values: the label of each, of the dtype that was given.
        container: whether labels were a tensor, a pandas Series, or an array or a list.
    """

    names: tuple[str, ...]
    values: NDArray[Any]
    container: Container

    @classmethod
    def of(cls, names: tuple[str, ...], y: Any) -> Self:
        """Return the labels of classes of these names, from ``y``: labels, or their dataset."""
        if isinstance(y, ArrayDataset):
            return cls(names, np.array(y.classes), "tensor")
        container: Container = "tensor" if isinstance(y, Tensor) else "array"
        if hasattr(y, "to_numpy"):
            container = "series"
        values = np.unique(y.cpu().numpy() if isinstance(y, Tensor) else np.asarray(y))
        return cls(names, values, container)

    def repeated(self, counts: Mapping[str, int]) -> Any:
        """Return so many labels of each class, one class after another, as they were given."""
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
        """Return the labels that `to_json` described.

        Raises:
            KeyError, TypeError, ValueError: for another record.
        """
        names: Sequence[str] = record["names"]
        dtype = None if record["dtype"] == "|O" else np.dtype(record["dtype"])
        values = np.array(record["values"], dtype=dtype)
        if values.shape != (len(names),):
            raise ValueError(f"it has {len(names)} names for labels of shape {values.shape}")
        return cls(tuple(names), values.astype(record["dtype"]), record["container"])
