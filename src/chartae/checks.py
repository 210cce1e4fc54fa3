"""Checks of arguments. Messages give the argument, its value and the expected value."""

import difflib
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import torch
from torch import Tensor

from chartae.errors import ConfigurationError, DataError

__all__ = [
    "Count",
    "Natural",
    "NonNegative",
    "OneOf",
    "Positive",
    "Range",
    "check_annotated",
    "check_boolean",
    "check_choice",
    "check_finite",
    "check_floating",
    "check_integer",
    "check_integers",
    "check_labels",
    "check_mask",
    "check_number",
    "check_shape",
    "check_weight",
    "named_options",
]


def check_choice(name: str, value: object, options: Iterable[str]) -> None:
    """Raise `ConfigurationError` unless ``value`` is one of ``options``; suggest a similar one."""
    options = list(options)
    if isinstance(value, str) and value in options:
        return
    near = difflib.get_close_matches(str(value), options, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ConfigurationError(
        f"{name}={value!r} is not known; expected one of {', '.join(map(repr, options))}{hint}"
    )


def named_options(
    kind: str, spec: object, known: Iterable[str], other: str = ""
) -> tuple[str, dict[str, Any]]:
    """Return the name and the options in ``spec``.

    Args:
        kind: name of the argument.
        spec: a name, or a mapping ``{"name": ..., **options}``.
        known: the known names.
        other: text for the message that describes other accepted values.

    Raises:
        ConfigurationError: for a value of another type, or an unknown name.

    >>> named_options("encoder", {"name": "mlp", "hidden": [8]}, ["mlp"])
    ('mlp', {'hidden': [8]})
    """
    if not isinstance(spec, (str, Mapping)):
        raise ConfigurationError(
            f"{kind}={spec!r}: expected a name, or a mapping {{'name': ..., **options}}{other}"
        )
    options = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = options.pop("name", None)
    check_choice(kind, name, known)
    return str(name), options


def check_boolean(name: str, value: object) -> None:
    """Raise `ConfigurationError` unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name}={value!r}: expected True or False")


def check_integer(
    name: str, value: object, *, minimum: int | None = None, maximum: int | None = None
) -> int:
    """Return ``value`` as a Python integer; NumPy integers and 0-d tensors are accepted.

    Raises:
        ConfigurationError: unless it is an integer in [minimum, maximum].

    >>> check_integer("epochs", torch.tensor(3), minimum=1)
    3
    """
    bounds = [f"at least {minimum}"] if minimum is not None else []
    bounds += [f"at most {maximum}"] if maximum is not None else []
    expected = " ".join(["an integer", " and ".join(bounds)]).strip()
    number = _integer(value)
    if (
        number is None
        or (minimum is not None and number < minimum)
        or (maximum is not None and number > maximum)
    ):
        raise ConfigurationError(f"{name}={value!r}: expected {expected}")
    return number


def _integer(value: Any) -> int | None:
    """Return a Python integer for an integer of any type, else None; booleans give None too."""
    if isinstance(value, bool) or getattr(value, "dtype", None) == torch.bool:
        return None
    if getattr(value, "ndim", 0):  # an array with one entry is a sequence
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def check_integers(name: str, values: object, *, minimum: int | None = None) -> None:
    """Raise `ConfigurationError` unless ``values`` are integers of at least ``minimum``."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ConfigurationError(f"{name}={values!r}: expected a sequence of integers")
    for value in values:
        check_integer(name, value, minimum=minimum)


def check_number(
    name: str,
    value: object,
    *,
    above: float = -math.inf,
    minimum: float = -math.inf,
    below: float = math.inf,
    maximum: float = math.inf,
) -> float:
    """Return ``value``, a real number of any type, as a Python float.

    ``above`` and ``below`` are exclusive, ``minimum`` and ``maximum`` inclusive.

    Raises:
        ConfigurationError: unless it is a finite number within the bounds.
    """
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (
            ("greater than", above),
            ("at least", minimum),
            ("less than", below),
            ("at most", maximum),
        )
        if math.isfinite(bound)
    ]
    expected = " ".join(["a finite number", " and ".join(bounds)]).strip()
    number = _number(value)
    if not (math.isfinite(number) and above < number < below and minimum <= number <= maximum):
        raise ConfigurationError(f"{name}={value!r}: expected {expected}")
    return number


def _number(value: Any) -> float:
    """Return a float for a real number of any type, else NaN; booleans give NaN too."""
    integer = _integer(value)
    if integer is None and (isinstance(value, bool) or not isinstance(value, Real)):
        return math.nan
    try:
        return float(value if integer is None else integer)
    except OverflowError:  # the integer is larger than every float
        return math.inf


def check_floating(name: str, value: Tensor) -> None:
    """Raise `DataError` unless ``value`` is a float32 or float64 tensor."""
    if not isinstance(value, Tensor):
        raise DataError(f"{name} is {type(value).__name__}: expected a torch.Tensor")
    if value.dtype not in (torch.float32, torch.float64):
        raise DataError(f"{name} has dtype {value.dtype}: expected torch.float32 or torch.float64")


def check_finite(name: str, value: Tensor) -> None:
    """Raise `DataError` if ``value`` has NaN or infinite entries; give their number and index."""
    if not value.is_floating_point():
        return
    # The usual case takes one pass: the sum is not finite if an entry is not, or if it overflows.
    if bool(torch.isfinite(value.sum())):
        return
    bad = ~torch.isfinite(value)
    count = int(bad.sum())
    if count:
        first = tuple(torch.nonzero(bad)[0].tolist())
        raise DataError(
            f"{name} has {count} NaN or infinite value(s) among {value.numel()}, "
            f"the first at index {first}: expected finite numbers"
        )


def check_shape(name: str, value: Tensor, expected: Sequence[int | str]) -> None:
    """Raise `DataError` unless ``value.shape`` is ``expected``; a string stands for any size."""
    shape = tuple(value.shape)
    matches = len(shape) == len(expected) and all(
        isinstance(want, str) or want == have for want, have in zip(expected, shape, strict=True)
    )
    if not matches:
        wanted = ", ".join(map(str, expected))
        raise DataError(f"{name} has shape {shape}: expected ({wanted})")


def check_labels(name: str, value: object, count: int, num_classes: int) -> None:
    """Raise `DataError` unless ``value`` is ``(count,)`` int64, each in [0, num_classes)."""
    if not isinstance(value, Tensor) or value.dtype != torch.int64:
        given = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise DataError(f"{name} is {given}: expected labels, a tensor of torch.int64")
    check_shape(name, value, (count,))
    if count and not 0 <= int(value.min()) <= int(value.max()) < num_classes:
        raise DataError(
            f"{name} ranges from {int(value.min())} to {int(value.max())}: expected labels from 0 "
            f"to {num_classes - 1}"
        )


def check_mask(name: str, value: object, shape: Sequence[int | str]) -> None:
    """Raise `DataError` unless ``value`` is a boolean tensor of ``shape``."""
    if not isinstance(value, Tensor) or value.dtype != torch.bool:
        given = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise DataError(f"{name} is {given}: expected a tensor of torch.bool")
    check_shape(name, value, shape)


def check_weight(name: str, value: object, count: int) -> None:
    """Raise `DataError` unless ``value`` is ``(count,)`` floats, finite and at least 0."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        given = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise DataError(f"{name} is {given}: expected a tensor of floats")
    check_shape(name, value, (count,))
    check_finite(name, value)
    if count and float(value.min()) < 0.0:
        raise DataError(f"{name} has a value of {float(value.min()):g}: expected at least 0")


# --- constraints as data -------------------------------------------------------------------------


@dataclass(frozen=True)
class Range:
    """Bounds of a number in an annotation, ``Annotated[int, Range(minimum=1)]``.

    ``above`` and ``below`` are exclusive, ``minimum`` and ``maximum`` inclusive.
    """

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None


@dataclass(frozen=True)
class OneOf:
    """The allowed values of a string in an annotation, if they are only known at run time."""

    options: Iterable[str]


Count = Annotated[int, Range(minimum=1)]
Natural = Annotated[int, Range(minimum=0)]
Positive = Annotated[float, Range(above=0.0)]
NonNegative = Annotated[float, Range(minimum=0.0)]


def check_annotated(name: str, value: object, annotation: Any) -> None:
    """Raise `ConfigurationError` unless ``value`` agrees with its annotation.

    It checks numbers with a `Range`, sequences of such numbers, strings with `OneOf`, literals,
    booleans, and unions of these. Other annotations are not checked.

    >>> check_annotated("hidden", [8, 0], Sequence[Count])
    Traceback (most recent call last):
    chartae.errors.ConfigurationError: hidden=0: expected an integer at least 1
    """
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else [annotation]
    if value is None and NoneType in options:
        return
    options = [option for option in options if option is not NoneType]
    if len(options) > 1:  # a name or something else
        named = isinstance(value, str)
        options = [option for option in options if (get_origin(option) is Literal) == named]
    for option in options:
        _check_option(name, value, option)


def _check_option(name: str, value: object, annotation: Any) -> None:
    kind, arguments = get_origin(annotation), get_args(annotation)
    if annotation is bool:
        check_boolean(name, value)
    elif kind is Literal:
        check_choice(name, value, arguments)
    elif kind in (Sequence, tuple) and get_origin(arguments[0]) is Annotated:
        _, bounds = get_args(arguments[0])
        check_integers(name, value, minimum=bounds.minimum)
    elif kind is Annotated:
        for constraint in arguments[1:]:
            if isinstance(constraint, OneOf):
                check_choice(name, value, constraint.options)
            elif isinstance(constraint, Range):
                check: Any = check_integer if arguments[0] is int else check_number
                check(name, value, **{k: v for k, v in vars(constraint).items() if v is not None})
