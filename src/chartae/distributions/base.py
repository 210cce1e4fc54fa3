"""What torch's distributions leave to each class: expansion to a batch, and a telling repr."""

import copy
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

__all__ = ["BatchDistribution"]


class BatchDistribution(Distribution):
    """Base of the distributions that are not made of torch's own."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    parameters: ClassVar[tuple[str, ...]] = ()
    """Attributes that begin with the dimensions of the batch: tensors or distributions."""
    settings: ClassVar[tuple[str, ...]] = ()
    """Attributes that are those of the whole batch."""

    def expand(self, batch_shape: _size, _instance: Self | None = None) -> Self:
        """Return the distribution with its parameters expanded to a larger batch, not copied."""
        shape, dims = torch.Size(batch_shape), len(self.batch_shape)
        new = copy.copy(self) if _instance is None else _instance
        for name in self.parameters:
            value: Any = getattr(self, name)
            own = value.shape[dims:] if isinstance(value, Tensor) else torch.Size()
            vars(new)[name] = value.expand(shape + own)
        for name in list(vars(new)):
            if isinstance(getattr(type(new), name, None), cached_property):
                del vars(new)[name]  # of the parameters before
        vars(new)["_batch_shape"] = shape
        return new

    def __repr__(self) -> str:
        names = (*self.parameters, *self.settings)
        parts = [f"{name}: {_summary(getattr(self, name))}" for name in names]
        return f"{type(self).__name__}({', '.join(parts)})"


def _summary(value: object) -> str:
    if isinstance(value, Tensor):
        return str(value.item() if value.numel() == 1 else value.size())
    return repr(value)
