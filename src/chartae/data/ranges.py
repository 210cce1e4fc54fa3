"""Each sample scaled to [0, 1] by its own minimum and maximum."""

from collections.abc import Callable

import torch
from torch import Tensor

from chartae.errors import DataError

__all__ = ["check_normalizable", "in_unit_range"]


def check_normalizable(shape: tuple[int, ...]) -> None:
    """Raise `DataError` for samples that are vectors: the range of a row has no meaning."""
    if len(shape) < 2:
        raise DataError(
            f"samples have shape {shape}: expected images or volumes, each of which is scaled by "
            "its own range"
        )


def in_unit_range(x: Tensor, mask: Tensor | None, name: Callable[[int], str]) -> Tensor:
    """Return ``(x - min) / (max - min)`` with the range of each sample; unobserved entries are 0.

    Args:
        x: ``(N, *shape)``, finite.
        mask: bool, the shape of x, True where an entry is observed; None if all are.
        name: what the sample of a row is called in messages.

    Raises:
        DataError: for a sample that is constant. The message names it.

    >>> in_unit_range(torch.tensor([[[2.0, 4.0], [3.0, 6.0]]]), None, str)
    tensor([[[0.0000, 0.5000],
             [0.2500, 1.0000]]])
    """
    seen = torch.ones_like(x, dtype=torch.bool) if mask is None else mask
    low = x.masked_fill(~seen, torch.inf).flatten(1).amin(1)
    high = x.masked_fill(~seen, -torch.inf).flatten(1).amax(1)
    if bool((low >= high).any()):
        row = int((low >= high).nonzero()[0])
        raise DataError(f"{name(row)} is constant: expected a range to scale it by")
    edges = (-1, *(1,) * (x.dim() - 1))
    low, size = low.reshape(edges), (high - low).reshape(edges)
    return ((x - low) / size).masked_fill(~seen, 0.0)
