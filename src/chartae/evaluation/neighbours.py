"""Nearest neighbours of observations, of which some features may be unobserved."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from chartae.checks import check_finite, check_mask, check_shape
from chartae.errors import DataError

__all__ = ["Neighbours", "as_rows", "nearest", "nearest_real"]

PAIRS = 2**22
"""Largest number of distances in memory at once."""
ENTRIES = 2**25
"""Largest number of values of other observations that are compared at once."""


def as_rows(
    real: Tensor, others: Mapping[str, Tensor], mask: Tensor | None = None, *, least: int = 2
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return observations as rows of float64 in the units of the real ones.

    Features of vectors may have different units: they are divided by their standard deviation in
    the real data, and constant ones are left out. Unobserved features are 0.

    Args:
        real: ``(N, *input_shape)``, N at least ``least``.
        others: ``(n, *input_shape)`` of the same dtype, n at least ``least``, by the name of the
            argument.
        mask: bool, the shape of ``real``, True where a feature was observed.
        least: smallest number of observations.

    Returns:
        Real rows, 1 where they are observed and 0 elsewhere, and the rows of the others.

    Raises:
        DataError: if there are too few observations, or they do not match.
    """
    for name, other in others.items():
        check_shape(name, other, ("n", *real.shape[1:]))
        if other.dtype != real.dtype:
            raise DataError(
                f"{name} has dtype {other.dtype}: expected that of real data, {real.dtype}"
            )
    if mask is not None:
        check_mask("mask", mask, real.shape)
        real = real.masked_fill(~mask, 0)
    for name, x in {"real": real, **others}.items():
        check_finite(name, x)
        if len(x) < least:
            raise DataError(f"{name} has {len(x)} observation(s): expected at least {least}")
    observed = torch.ones_like(real) if mask is None else mask
    x, m = (t.detach().double().flatten(1) for t in (real, observed))
    rows = [other.detach().to(x).flatten(1) for other in others.values()]
    # Centred on the real mean, so that small differences of large numbers keep their precision.
    mean = (m * x).sum(0) / m.sum(0).clamp_min(1.0)
    x, rows = m * (x - mean), [row - mean for row in rows]
    if real.dim() == 2:
        deviation = (x.square().sum(0) / m.sum(0).clamp_min(1.0)).sqrt()
        weight = torch.where(deviation > 0.0, 1.0 / deviation, 0.0)
        x, rows = x * weight, [row * weight for row in rows]
    return x, m, rows


class Neighbours(NamedTuple):
    """The nearest row of another set for each row."""

    distances: Tensor
    indices: Tensor


def nearest_real(real: Tensor, synthetic: Tensor, mask: Tensor | None = None) -> Neighbours:
    """Return the nearest real observation of each synthetic one.

    The distance is the root of the mean squared difference over features. Features of vectors are
    divided by their standard deviation in the real data.

    Args:
        real: ``(N, *input_shape)``.
        synthetic: ``(n, *input_shape)`` of the same dtype.
        mask: bool, the shape of ``real``, True where a feature was observed.

    Returns:
        Distances and indices of real observations, each ``(n,)``.

    Raises:
        DataError: if one of them is empty, or they do not match.

    >>> real = torch.tensor([[[0.0, 0.0]], [[1.0, 1.0]]])
    >>> nearest_real(real, torch.tensor([[[1.0, 0.5]]])).indices
    tensor([1])
    """
    parts = []
    for some in synthetic.split(max(1, ENTRIES // math.prod(synthetic.shape[1:]))):
        x, observed, (rows,) = as_rows(real, {"synthetic": some}, mask, least=1)
        parts.append(nearest(rows, torch.ones_like(rows), x, observed))
    values, indices = (torch.cat(part) for part in zip(*parts, strict=True))
    return Neighbours(values, indices)


def nearest(
    a: Tensor, seen_a: Tensor, b: Tensor, seen_b: Tensor, themselves: Tensor | None = None
) -> Neighbours:
    """Return the nearest row of b for each row of a, except itself if a row is also in b."""
    found = []
    for rows in torch.arange(len(a), device=a.device).split(max(1, PAIRS // len(b))):
        squares = _squares(a[rows], seen_a[rows], b, seen_b)
        if themselves is not None:
            squares.scatter_(1, themselves[rows, None], math.inf)
        found.append(squares.min(1))
    values, indices = (torch.cat(part) for part in zip(*found, strict=True))
    return Neighbours(values.sqrt(), indices)


def _squares(a: Tensor, seen_a: Tensor, b: Tensor, seen_b: Tensor) -> Tensor:
    """Return mean squared differences of rows over the features that are observed in both.

    Unobserved features are zero. The distance of rows without a common observed feature is
    infinite.
    """
    both = seen_a @ seen_b.mT
    squares = a.square() @ seen_b.mT + seen_a @ b.square().mT - 2.0 * (a @ b.mT)
    # The difference of equal rows is rounding error, below 1e-12 of their squares: set it to 0.
    noise = 1e-12 * (a.square().sum(1)[:, None] + b.square().sum(1))
    squares = torch.where(squares <= noise, 0.0, squares)
    return torch.where(both > 0, squares / both.clamp_min(1.0), math.inf)
