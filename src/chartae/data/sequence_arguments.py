"""The arguments of `Sequences`: arrays of individuals and visits, checked and made tensors."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from chartae.checks import check_shape
from chartae.data.arrays import as_tensor
from chartae.data.form import Form, read_samples
from chartae.data.labels import encode_labels
from chartae.errors import ConfigurationError, DataError

__all__ = [
    "DATES_HINT",
    "KEY_COLUMNS",
    "read_covariates",
    "read_flags",
    "read_ids",
    "read_key_columns",
    "read_times",
    "read_values",
    "refuse",
    "some",
]

KEY_COLUMNS = ("individual", "time")
"""What tables call the columns of individuals and of times, by default."""
SHOWN = 5
"""How many offenders a message names."""

DATES_HINT = (
    "convert dates to days since a day of your choice, for example "
    "(dates - dates.min()) / numpy.timedelta64(1, 'D')"
)


def some(things: Sequence[object]) -> str:
    """Return the first items of a list as text, and the number of the others."""
    more = f" and {len(things) - SHOWN} more" if len(things) > SHOWN else ""
    return ", ".join(map(repr, things[:SHOWN])) + more


def read_key_columns(names: Sequence[str]) -> tuple[str, str]:
    """Return what tables call the columns of individuals and of times.

    Raises:
        ConfigurationError: unless these are two different names.
    """
    if isinstance(names, str) or len(names) != 2 or len({*names}) < 2 or not all(names):
        raise ConfigurationError(
            f"key_columns={names!r}: expected two different names, of individuals and of times"
        )
    individual, time = map(str, names)
    return individual, time


def refuse(what: str, bad: Tensor, ids: Sequence[str]) -> None:
    """Raise `DataError` that names the individuals with any True in ``bad``, ``(N, ...)``."""
    rows = bad.reshape(len(bad), -1).any(1).nonzero()[:, 0].tolist()
    if rows:
        raise DataError(f"individuals {what}: {some([ids[row] for row in rows])}")


def read_values(
    x: Any, mask: Any, channels_last: bool, columns: tuple[str, ...]
) -> tuple[Tensor, Tensor | None, Form]:
    """Return values and mask ``(N, T, *input_shape)``, not scaled, and the form of one visit."""
    x, mask = _padded("x", x), _padded("mask", mask)
    if isinstance(x, np.ma.MaskedArray):
        hidden = np.ma.getmaskarray(x)
        if hidden.any() and mask is not None:
            raise DataError("x has a mask of its own, and mask is given: expected one of them")
        x, mask = x.filled(0), ~hidden if hidden.any() else mask
    values = as_tensor("x", x)
    shape = tuple(values.shape)
    if values.ndim < 3 or values.numel() == 0:
        raise DataError(
            f"x has shape {shape}: expected (N, T, *input_shape), with at least one individual, "
            "one visit and one feature"
        )
    frames = values.flatten(0, 1)
    flags = read_flags("mask", mask, shape)
    samples = read_samples(
        frames if _are_tensors(x) else frames.numpy(),
        None if flags is None else flags.flatten(0, 1),
        channels_last=channels_last,
        columns=columns,
    )
    observed = None if samples.mask is None else samples.mask.unflatten(0, shape[:2])
    return samples.values.unflatten(0, shape[:2]), observed, samples.form


def read_flags(name: str, value: Any, shape: Sequence[int]) -> Tensor | None:
    """Return booleans of a shape; None if ``value`` is None.

    Raises:
        DataError: for another dtype or shape.
    """
    if value is None:
        return None
    flags = as_tensor(name, _padded(name, value))
    if flags.dtype != torch.bool:
        raise DataError(f"{name} has dtype {flags.dtype}: expected booleans")
    check_shape(name, flags, shape)
    return flags


def read_times(times: Any, count: int, visits: int | None = None) -> Tensor:
    """Return times as ``(N, T)`` float64, NaN where there is no visit.

    Args:
        times: ``(N, T)`` or ``(T,)``; a masked array is NaN where it is masked.
        count: the number N of individuals.
        visits: the number T of visits; None is any number.

    Raises:
        DataError: for text, dates, booleans or another shape.
    """
    times = _padded("times", times)
    if not isinstance(times, Tensor):
        times = _array("times", times)
        _check_are_numbers(times)
        if isinstance(times, np.ma.MaskedArray):
            times = np.where(np.ma.getmaskarray(times), np.nan, times.filled(0))
    given = as_tensor("times", times)
    if given.dtype == torch.bool or given.is_complex():
        raise DataError(f"times has dtype {given.dtype}: expected numbers")
    when = given.double()
    if when.ndim == 1:
        when = when.expand(count, -1)
    check_shape("times", when, (count, "K" if visits is None else visits))
    return when.contiguous()


def _check_are_numbers(times: Any) -> None:
    """Raise `DataError` for times that are text, dates or other objects."""
    if times.dtype.kind in "mM":
        raise DataError(f"times has dtype {times.dtype}: expected numbers; {DATES_HINT}")
    if times.dtype.kind in "OSTU":
        first = times.ravel().tolist()[0] if times.size else ""
        what = "text" if isinstance(first, (str, bytes)) else type(first).__name__
        raise DataError(
            f"times holds {what} such as {first!r}: expected numbers, NaN where there is no visit; "
            f"{DATES_HINT}"
        )


def read_ids(ids: Any, count: int) -> tuple[str, ...]:
    """Return the names of the individuals as text; numbers from 0 if ``ids`` is None.

    Raises:
        DataError: if there are not as many as individuals, if one is missing, or two are equal.
    """
    if ids is None:
        return tuple(map(str, range(count)))
    given = list(ids.tolist() if hasattr(ids, "tolist") else ids)
    if len(given) != count:
        raise DataError(f"ids has {len(given)} names for {count} individuals in x")
    # NaN, with which pandas marks a missing cell, is not equal to itself.
    if missing := [row for row, name in enumerate(given) if name is None or name != name]:
        raise DataError(f"ids has no name at {some(missing)}: expected one for each individual")
    names = tuple(map(str, given))
    if len(set(names)) < count:
        twice = [name for name, number in Counter(names).items() if number > 1]
        raise DataError(f"ids has {some(twice)} more than once: expected names that differ")
    return names


def read_covariates(
    covariates: Any,
    class_names: Sequence[str] | None,
    names: Sequence[str],
    x: Tensor,
    ids: Sequence[str],
) -> tuple[Tensor | None, tuple[str, ...]]:
    """Return the covariates as labels or vectors like ``x``, and the names of the classes.

    Raises:
        DataError: for vectors that are not finite, or another shape or dtype.
        ConfigurationError: for names without covariates, or of another number.
    """
    if covariates is None:
        if class_names is not None or names:
            given = "class_names" if class_names is not None else "covariate_names"
            raise ConfigurationError(f"{given} is given without covariates: expected both")
        return None, ()
    values = covariates if isinstance(covariates, Tensor) else np.asanyarray(covariates)
    if values.ndim == 2:
        if class_names is not None:
            raise ConfigurationError("class_names is given, but covariates are vectors")
        vectors = as_tensor("covariates", values).to(x)
        check_shape("covariates", vectors, (len(x), len(names) or "p"))
        refuse("with covariates that are NaN or infinite", ~vectors.isfinite(), ids)
        return vectors, ()
    try:
        labels, classes = encode_labels(values, class_names)
    except DataError as error:
        raise DataError(f"covariates as labels: {error}") from None
    check_shape("covariates", labels, (len(x),))
    if len(names) > 1:
        raise ConfigurationError(f"covariate_names={tuple(names)!r}: expected one, for the classes")
    return labels.to(x.device), classes


def _are_tensors(x: object) -> bool:
    first = x[0] if isinstance(x, (list, tuple)) and x else x
    return isinstance(first, Tensor)


def _padded(name: str, value: Any) -> Any:
    """Return one array for a list of the arrays of individuals, if their lengths differ.

    The end of shorter ones is NaN for times, and 0 or False otherwise.
    """
    if not isinstance(value, (list, tuple)):
        return value
    given = [part if isinstance(part, Tensor) else _array(name, part) for part in value]
    if not all(part.ndim for part in given):
        return value
    if len(set(map(len, given))) == 1:  # np.asarray would drop the masks
        masked = any(isinstance(part, np.ma.MaskedArray) for part in given)
        return np.ma.stack(given) if masked else value
    if all(isinstance(part, Tensor) for part in given):
        _check_shapes(name, given)
        parts = [part.detach().double() if name == "times" else part.detach() for part in given]
        return pad_sequence(parts, True, torch.nan if name == "times" else 0.0)
    arrays = [np.asanyarray(part) for part in given]
    _check_shapes(name, arrays)
    if name == "times":
        for array in arrays:
            _check_are_numbers(array)
    masked = any(isinstance(array, np.ma.MaskedArray) for array in arrays)
    shape = (len(arrays), max(map(len, arrays)), *arrays[0].shape[1:])
    dtype = np.float64 if name == "times" else np.result_type(*arrays)
    whole = np.zeros(shape, dtype)
    if masked:
        whole = np.ma.MaskedArray(whole, mask=True)
    if name == "times" and not masked:
        whole[:] = np.nan
    for row, array in enumerate(arrays):
        whole[row, : len(array)] = array
    return whole


def _array(name: str, value: Any) -> Any:
    """Return an array, masked if it was; raise `DataError` for lists of uneven lengths."""
    try:
        return np.asanyarray(value)
    except ValueError:
        raise DataError(
            f"{name} has lists of uneven lengths: expected an array for each individual"
        ) from None


def _check_shapes(name: str, parts: Sequence[Any]) -> None:
    for row, part in enumerate(parts):
        if tuple(part.shape[1:]) != tuple(parts[0].shape[1:]):
            raise DataError(
                f"{name}[{row}] has shape {tuple(part.shape)} and {name}[0] "
                f"{tuple(parts[0].shape)}: expected visits of one shape"
            )
