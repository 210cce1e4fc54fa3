"""Named tensors whose first dimension is the sample: the data set that training uses."""

from collections.abc import Mapping

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from chartae.checks import check_shape
from chartae.data.arrays import as_tensor
from chartae.errors import DataError

__all__ = ["TensorSet", "selected_rows"]


class TensorSet:
    """Named tensors with one row per sample; a model's `loss` names those that it uses.

    Args:
        tensors: each ``(N, ...)``.

    Raises:
        DataError: if there are none, if they are not tensors, or if they have different lengths.

    >>> import torch
    >>> data = TensorSet(codes=torch.zeros(3, 4, dtype=torch.int64), weight=torch.ones(3))
    >>> len(data), sorted(data.tensors)
    (3, ['codes', 'weight'])
    """

    def __init__(self, **tensors: Tensor) -> None:
        if not tensors:
            raise DataError("there are no tensors: expected at least one")
        for name, value in tensors.items():
            if not isinstance(value, Tensor) or not value.dim():
                raise DataError(f"{name} is {type(value).__name__}: expected a tensor (N, ...)")
        lengths = {name: len(value) for name, value in tensors.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"tensors have different lengths: {lengths}; expected one row a sample")
        self._tensors = tensors

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The tensors, by name."""
        return self._tensors

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        """Return the rows at ``indices`` of every tensor."""
        return {name: tensor[indices] for name, tensor in self.tensors.items()}

    def rows(self, name: str, indices: ArrayLike | Tensor, device: torch.device) -> Tensor:
        """Return the rows that an argument selects, as int64 on ``device``.

        Args:
            name: name of the argument.
            indices: integers in [0, N), or N booleans.
            device: of the rows.

        Raises:
            DataError: if ``indices`` selects nothing, is out of range or of another type.
        """
        return selected_rows(name, indices, len(self)).to(device)


def selected_rows(name: str, indices: ArrayLike | Tensor, size: int) -> Tensor:
    """Return the rows of a set of ``size`` samples that an argument selects, as int64.

    Args:
        name: name of the argument.
        indices: integers in [0, size), or booleans ``(size,)``.
        size: number of samples.

    Raises:
        DataError: if ``indices`` selects nothing, is out of range or of another type.
    """
    rows = as_tensor(name, indices)
    if rows.dtype == torch.bool:
        check_shape(name, rows, (size,))
        rows = rows.nonzero().squeeze(1)
    check_shape(name, rows, ("n",))
    if rows.numel() == 0:
        raise DataError(f"{name} selects no sample: expected at least one")
    if rows.is_floating_point() or rows.is_complex():
        raise DataError(f"{name} has dtype {rows.dtype}: expected integers or booleans")
    low, high = int(rows.min()), int(rows.max())
    if low < 0 or high >= size:
        raise DataError(f"{name} ranges from {low} to {high}: expected 0 to {size - 1}")
    return rows.long()
