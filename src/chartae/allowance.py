"""A limit on the memory of a computation, checked before the memory is allocated."""

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
"""Minimum number of bytes counted for a tensor, because its Python objects take memory too."""
META = torch.device("meta")
SMALL = 1 << 22
"""Number of entries up to which a result is computed without checking its shape first."""


class Allowance(TorchDispatchMode):
    """Inside its block, tensors that together need more than ``size`` bytes are not allocated.

    The shape of a large result is first computed on torch's meta device, without allocating it. A
    tensor is counted as long as it exists, with at least `LEAST` bytes, so that a million layers of
    one entry are refused too.

    Raises:
        ConfigurationError: from the line in the block that needs more memory.

    >>> with Allowance(10**6):
    ...     layer = torch.nn.Linear(30, 30)
    >>> with Allowance(10**6):
    ...     layer = torch.nn.Linear(30_000, 30_000)
    Traceback (most recent call last):
        ...
    chartae.errors.ConfigurationError: it needs 3600 MB: expected at most 1 MB
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
                f"it needs {(self.used + size) / 1e6:.0f} MB: expected at most "
                f"{self.size / 1e6:.0f} MB"
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
    """Return whether an operation returns a new tensor, not a view."""
    return any(
        value.alias_info is None and "Tensor" in str(value.type) for value in func._schema.returns
    )


def _bound(args: Sequence[Any]) -> int:
    """Return an upper estimate of the number of entries that an operation may create.

    Without tensor arguments, the size follows from the integer arguments. A product or a
    convolution of x, or x broadcast against another array, has at most the entries of x times one
    side of the other array.
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
    """Return the results of an operation on the meta device; None if they depend on values."""
    known = {argument.name for argument in func._schema.arguments}
    places = {"device": META, "pin_memory": None, "generator": None}
    where = {name: value for name, value in places.items() if name in known}
    args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, dict(kwargs)))
    try:
        return func(*args, **{**kwargs, **where})
    except Exception:  # torch raises many types here
        return None


def _tensors(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, (list, tuple)):
        for part in result:
            yield from _tensors(part)
