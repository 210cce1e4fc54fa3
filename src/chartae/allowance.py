"""A limit on the memory that a piece of work may take, which holds before it is taken."""

import functools
import math
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from chartae.errors import ConfigurationError

__all__ = ["LEAST", "Allowance"]

LEAST = 1 << 16
"""Bytes that a tensor counts for at least: the objects around it take memory too."""
META = torch.device("meta")
SMALL = 1 << 22
"""Numbers that a result may have without a look at its shape before it is made."""


class Allowance(TorchDispatchMode):
    """Inside its block, tensors that together need more than ``size`` bytes are not made.

    The shape of a large result is computed first, without the result, on torch's meta device. A
    tensor counts as long as it lives, and for `LEAST` bytes at least, so that a million layers of
    one number are not made either.

    Raises:
        ConfigurationError: from the line in the block that asks for more.

    >>> with Allowance(10**6):
    ...     layer = torch.nn.Linear(30, 30)
    >>> with Allowance(10**6):
    ...     layer = torch.nn.Linear(30_000, 30_000)
    Traceback (most recent call last):
        ...
    chartae.errors.ConfigurationError: it needs 3600 MB, where 1 MB is expected
    """

    def __init__(self, size: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.size, self.used = size, 0
        self.living: dict[weakref.ref[torch.UntypedStorage], int] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if not _makes_tensors(func):
            return func(*args, **kwargs)
        if _bound(args) > SMALL and kwargs.get("device") != META:
            for tensor in _tensors(_planned(func, args, kwargs)):
                self._check(tensor.nbytes)
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            if not tensor.is_meta:
                self._count(tensor.untyped_storage())
        return result

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self.living.clear()

    def _check(self, size: int) -> None:
        if self.used + size > self.size:
            raise ConfigurationError(
                f"it needs {(self.used + size) / 1e6:.0f} MB, where {self.size / 1e6:.0f} MB is "
                "expected"
            )

    def _count(self, storage: torch.UntypedStorage) -> None:
        size = max(LEAST, storage.nbytes())
        self._check(size)
        self.used += size
        self.living[weakref.ref(storage, self._release)] = size

    def _release(self, storage: weakref.ref[torch.UntypedStorage]) -> None:
        self.used -= self.living.pop(storage)


@functools.cache
def _makes_tensors(func: Any) -> bool:
    """Return whether an operation has a result that is a tensor of its own, not a view."""
    return any(
        value.alias_info is None and "Tensor" in str(value.type) for value in func._schema.returns
    )


def _bound(args: Sequence[Any]) -> int:
    """Return how many numbers an operation may make: rather too many than too few.

    What is made from nothing is as large as its arguments say. A product or a convolution of x, or
    x spread over another array, is as large as x times a side of the other.
    """
    sizes = [size for value in args if isinstance(value, (list, tuple)) for size in value]
    tensors = [value for value in (*args, *sizes) if isinstance(value, Tensor)]
    if any(tensor.is_meta for tensor in tensors):
        return 0
    if not tensors:
        sides = [side for side in args if isinstance(side, int)]
        sizes += [*sides, *sides]  # the identity has as many rows as columns
        return math.prod(size for size in sizes if isinstance(size, int) and size > 1)
    x = next((tensor for tensor in tensors if tensor.dim() > 1), tensors[0])
    sides = [side for tensor in tensors if tensor is not x for side in tensor.shape]
    if not sides:
        sides = [math.prod(size for size in sizes if isinstance(size, int) and size > 1)]
    return x.numel() * max(sides)


def _planned(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return the results of an operation on the meta device; None where they need the numbers."""
    known = {argument.name for argument in func._schema.arguments}
    places = {"device": META, "pin_memory": None, "generator": None}
    where = {name: value for name, value in places.items() if name in known}
    args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, dict(kwargs)))
    try:
        return func(*args, **{**kwargs, **where})
    except Exception:  # of many kinds
        return None


def _tensors(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, (list, tuple)):
        for part in result:
            yield from _tensors(part)
