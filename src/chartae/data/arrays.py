"""Conversion of arrays to tensors and back, so that results have the type of the input."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from chartae.errors import ConfigurationError, DataError

__all__ = [
    "DType",
    "as_tensor",
    "check_dense",
    "resolve_dtype",
    "restored",
    "scaled",
    "takes_arrays",
]

DType = torch.dtype | Literal["default"] | None
"""float32, float64, ``"default"`` for torch's default dtype, or None to keep the given floats."""

P = ParamSpec("P")
R = TypeVar("R")

# The divisor that scales each accepted dtype to [0, 1]; floats are not scaled.
_SCALES = {torch.uint8: 255.0, torch.bool: 1.0, torch.float32: None, torch.float64: None}


def as_tensor(name: str, value: ArrayLike | Tensor | Sequence[Tensor]) -> Tensor:
    """Return a tensor of the dtype of ``value``; the arrays of a list are stacked.

    Raises:
        DataError: if ``value`` is not one array of numbers.
    """
    check_dense(name, value)
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            check_dense(f"{name}[{index}]", item)
        _check_one_shape(name, value)
        if all(isinstance(item, Tensor) for item in value):
            return torch.stack(value).detach() if value else torch.empty(0)
    try:
        array = np.asarray(value)
        # torch does not support foreign byte order or negative strides, and warns of read-only
        # memory.
        return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
    except (TypeError, ValueError):  # torch has no such dtype, or the value is not an array
        given = (
            f"has dtype {value.dtype}" if hasattr(value, "dtype") else f"is {type(value).__name__}"
        )
        raise DataError(f"{name} {given}: expected one array of numbers") from None


def check_dense(name: str, value: object) -> None:
    """Raise `DataError` for a sparse or nested tensor of torch, or a sparse array of SciPy."""
    if isinstance(value, Tensor) and (value.layout != torch.strided or value.is_nested):
        raise DataError(f"{name} is a sparse or nested tensor: expected a dense one")
    if hasattr(value, "toarray"):
        raise DataError(f"{name} is a sparse array: expected a dense one, {name}.toarray()")


def resolve_dtype(dtype: DType) -> torch.dtype | None:
    """Return the torch dtype for an argument ``dtype``.

    Raises:
        ConfigurationError: for a dtype other than float32 and float64.
    """
    if dtype == "default":
        return torch.get_default_dtype()
    if dtype not in (torch.float32, torch.float64, None):
        raise ConfigurationError(
            f"dtype={dtype!r}: expected torch.float32, torch.float64, 'default' or None"
        )
    return dtype


def scaled(x: Tensor, dtype: torch.dtype | None, name: str = "x") -> Tensor:
    """Return data as floats of ``dtype``: uint8 and bool scaled to [0, 1], floats unchanged.

    Raises:
        DataError: for another dtype; the message has ``name``.
    """
    if x.dtype not in _SCALES:
        raise DataError(
            f"{name} has dtype {x.dtype}: expected uint8 (divided by 255), bool, float32 or "
            "float64; convert and scale it explicitly, for example with "
            f"{name}.astype('float32') / maximum"
        )
    scale = _SCALES[x.dtype]
    if scale is None:
        return x.to(dtype or x.dtype)
    return x.to(dtype or torch.get_default_dtype()) / scale


def restored(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return data in the dtype that they had before `scaled`.

    >>> restored(torch.tensor([0.0, 0.2, 1.1]), torch.uint8)
    tensor([  0,  51, 255], dtype=torch.uint8)
    >>> restored(torch.tensor([0.2, 0.8]), torch.bool)
    tensor([False,  True])
    """
    if dtype == torch.bool:
        return x >= 0.5
    if dtype == torch.uint8:
        return (x.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
    return x.to(dtype)


def takes_arrays(
    *names: str, restores: str | None = None, owner: str | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function of tensors accept NumPy arrays. It then returns arrays, without gradients.

    Arrays of floats become tensors with the dtype and device of the function's first argument (a
    model, a metric), if it has them. Data, the argument ``x``, are scaled by `scaled`. Results have
    the dtype of the first array given, if that is a float. Masked arrays with hidden values raise
    an error, except ``x`` if the function has an argument ``mask``.

    Args:
        names: arguments that may be arrays.
        owner: the argument whose dtype and device arrays take; None is the first.
        restores: the argument whose dtype the result gets: uint8 data give a uint8 result.

    >>> @takes_arrays("z")
    ... def double(metric, z):
    ...     return 2 * z
    >>> double(None, np.ones(2))
    array([2., 2.])
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            if not any(isinstance(value, np.ndarray) for value in (*args, *kwargs.values())):
                return function(*args, **kwargs)
            bound = signature.bind(*args, **kwargs)
            given = bound.arguments
            arrays = {n: given[n] for n in names if isinstance(given.get(n), np.ndarray)}
            whose = next(iter(given.values())) if owner is None else given[owner]
            for name, array in arrays.items():
                given[name] = _like_owner(name, array, whose)
            if isinstance(masked := arrays.get("x"), np.ma.MaskedArray):
                _hand_over_mask(function.__name__, masked, given, signature)
            with torch.no_grad():
                result = function(*bound.args, **bound.kwargs)
            kind = None
            if restores in arrays:
                kind = _torch_dtype(arrays[restores])
            elif arrays and (first := next(iter(arrays.values()))).dtype.kind == "f":
                kind = _torch_dtype(first)
            converted: R = _to_arrays(result, kind)
            return converted

        return wrapper

    return decorate


def _torch_dtype(array: np.ndarray[Any, Any]) -> torch.dtype:
    return as_tensor("", np.empty(0, array.dtype)).dtype


def _like_owner(name: str, array: np.ndarray[Any, Any], owner: object) -> Tensor:
    dtype, device = getattr(owner, "dtype", None), getattr(owner, "device", None)
    if isinstance(array, np.ma.MaskedArray):
        if name != "x" and np.ma.getmaskarray(array).any():
            raise DataError(f"{name} is a masked array that hides values: expected a plain array")
        array = array.filled(0)
    tensor = as_tensor(name, array)
    if name == "x":
        tensor = scaled(tensor, dtype if isinstance(dtype, torch.dtype) else None)
    elif tensor.is_floating_point() and isinstance(dtype, torch.dtype):
        tensor = tensor.to(dtype)
    elif name == "y" and array.dtype.kind in "iu":  # labels, of any width
        tensor = tensor.long()
    return tensor.to(device) if isinstance(device, torch.device) else tensor


def _hand_over_mask(
    function: str,
    x: np.ma.MaskedArray[Any, Any],
    given: dict[str, Any],
    signature: inspect.Signature,
) -> None:
    """Move the mask of a masked array to ``mask``, True where a feature is observed."""
    hidden = np.ma.getmaskarray(x)
    if not hidden.any():
        return
    if "mask" not in signature.parameters or given.get("mask") is not None:
        raise DataError(
            f"x is a masked array: {function} expects a plain array"
            + (", with its mask given once" if "mask" in signature.parameters else "")
        )
    given["mask"] = torch.from_numpy(~hidden).to(given["x"].device)


def _to_arrays(result: Any, dtype: torch.dtype | None) -> Any:
    """Return a result with its tensors converted to arrays; those of floats in ``dtype``."""
    if isinstance(result, Tensor):
        result = result.detach()
        if dtype is not None and result.is_floating_point():
            result = restored(result, dtype)
        return result.cpu().numpy()
    if isinstance(result, tuple) and not hasattr(result, "_fields"):
        return tuple(_to_arrays(item, dtype) for item in result)
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        fields = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
        return dataclasses.replace(
            result, **{name: _to_arrays(value, dtype) for name, value in fields.items()}
        )
    return result


def _check_one_shape(name: str, items: Sequence[object]) -> None:
    try:
        shapes = [tuple(getattr(item, "shape", None) or np.asarray(item).shape) for item in items]
    except ValueError:  # a list whose parts have different shapes
        raise DataError(
            f"{name} has lists of uneven lengths: expected one shape for all samples"
        ) from None
    for index, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise DataError(
                f"{name}[{index}] has shape {shape} and {name}[0] {shapes[0]}: "
                "expected one shape for all samples"
            )
