"""Seeded, stratified selections of samples, as tensors of indices."""

from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral, Real
from typing import Protocol, Self, TypeVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from chartae.checks import check_integer, check_number
from chartae.data.labels import encode_labels
from chartae.errors import ConfigurationError, DataError
from chartae.randomness import make_generator

__all__ = ["few_per_class", "held_out_split", "random_parts", "stratified_split"]


def stratified_split(
    y: ArrayLike | Tensor, sizes: Sequence[float] | Sequence[int], *, seed: int
) -> tuple[Tensor, ...]:
    """Return disjoint parts of the samples labelled ``y``, stratified by class.

    The share of a class in a part is its proportion among the remaining samples, rounded up or
    down. (scikit-learn's ``train_test_split`` makes two parts, and raises an error if fewer samples
    remain than there are classes.)

    Args:
        y: (N,) integer or string labels.
        sizes: numbers of samples (integers, with a sum of at most N), or fractions of N in (0, 1]
            (floats, with a sum of at most 1). The remaining samples belong to no part.
        seed: the same seed gives the same parts.

    Returns:
        One ascending int64 tensor of indices per size.

    Raises:
        ConfigurationError: if the sizes are not possible.
        DataError: if a class is too small to be in every part.

    >>> y = [0] * 60 + [1] * 30
    >>> train, test = stratified_split(y, (0.8, 0.2), seed=0)
    >>> len(train), len(test), sum(y[i] for i in test)
    (72, 18, 6)
    """
    check_integer("seed", seed, minimum=0)
    generator = make_generator(seed, "stratified_split")
    labels, names = encode_labels(y)
    counts = _part_sizes(sizes, len(labels))
    pools = [_shuffled(members, generator) for members in _members(labels, len(names))]
    parts = []
    for number, count in enumerate(counts):
        shares = _shares(torch.tensor([len(pool) for pool in pools]), count, generator)
        for name, share in zip(names, shares, strict=True):
            if share == 0:
                raise DataError(
                    f"y has too few samples of class {name!r} for sizes={tuple(sizes)}: none is "
                    f"in part {number}; expected larger parts or more samples of the class"
                )
        drawn = [pool[:share] for pool, share in zip(pools, shares, strict=True)]
        pools = [pool[share:] for pool, share in zip(pools, shares, strict=True)]
        parts.append(torch.cat(drawn).sort().values)
    return tuple(parts)


def random_parts(
    count: int, sizes: Sequence[float] | Sequence[int], *, seed: int
) -> tuple[Tensor, ...]:
    """Return disjoint random parts of ``count`` samples: ascending int64 tensors of indices.

    Args:
        count: number of samples.
        sizes: as in `stratified_split`.
        seed: the same seed gives the same parts.

    Raises:
        ConfigurationError: if the sizes are not possible, or a part is empty.
    """
    generator = make_generator(check_integer("seed", seed, minimum=0), "random_parts")
    counts = _part_sizes(sizes, count)
    if 0 in counts:
        raise ConfigurationError(
            f"sizes={tuple(sizes)!r} of {count} give {tuple(counts)}: expected at least 1 in each"
        )
    order = torch.randperm(count, generator=generator)[: sum(counts)]
    return tuple(part.sort().values for part in order.split(counts))


class Labelled(Protocol):
    """Samples that may have labels, as `ArrayDataset` and `StreamedDataset`."""

    @property
    def y(self) -> Tensor | None: ...

    @property
    def class_names(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def subset(self, indices: Tensor, /) -> Self: ...


Data = TypeVar("Data", bound=Labelled)


def held_out_split(dataset: Data, fraction: float, *, seed: int) -> tuple[Data, Data]:
    """Return a training set and a held-out set of ``fraction`` of the samples, at least one.

    Both are stratified by class, as far as possible. A class keeps at least one sample for
    training, so a class with a single sample is not held out. Without labels, or with vectors as
    conditions, the held-out samples are drawn from all samples.

    Args:
        dataset: at least two samples; if there are classes, at least two samples of one class.
        fraction: in (0, 1).
        seed: the same seed gives the same sets.

    Raises:
        ConfigurationError: if the ``fraction`` is not possible.
        DataError: if no sample can be held out.

    >>> from chartae.data import ArrayDataset
    >>> data = ArrayDataset.from_arrays(torch.rand(13, 2), [0] * 8 + [1] * 4 + [2])
    >>> held_out_split(data, 0.25, seed=0)[1]
    ArrayDataset(3 samples of shape (2,), float32; 0: 2, 1: 1, 2: 0)
    """
    check_number("fraction", fraction, above=0.0, below=1.0)
    check_integer("seed", seed, minimum=0)
    generator = make_generator(seed, "held_out_split")
    labels = dataset.y.cpu() if dataset.y is not None and dataset.class_names else None
    if labels is None:
        labels = torch.zeros(len(dataset), dtype=torch.int64)
    pools = [_shuffled(members, generator) for members in _members(labels, int(labels.max()) + 1)]
    pools = [pool for pool in pools if len(pool) > 1]
    if not pools:
        raise DataError(
            f"dataset has {len(dataset)} sample(s), all of different classes: expected at "
            "least two samples of one class, to hold one out"
        )
    sizes = torch.tensor([len(pool) for pool in pools])
    count = min(max(round(fraction * len(dataset)), 1), int(sizes.sum()))
    shares = _shares(sizes, count, generator)
    held_out = torch.zeros(len(dataset), dtype=torch.bool)
    for pool, share in zip(pools, shares, strict=True):
        held_out[pool[: min(share, len(pool) - 1)]] = True
    return dataset.subset(~held_out), dataset.subset(held_out)


def few_per_class(y: ArrayLike | Tensor, n: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Return ``n`` random samples of each class, and the others: two ascending int64 tensors.

    Args:
        y: (N,) integer or string labels.
        n: number of samples per class, at least 1.
        seed: the same seed gives the same samples.

    Raises:
        DataError: if a class has fewer than ``n`` samples.

    >>> chosen, rest = few_per_class(["a", "b", "b", "a", "b"], 2, seed=0)
    >>> len(chosen), len(rest)
    (4, 1)
    """
    check_integer("n", n, minimum=1)
    check_integer("seed", seed, minimum=0)
    generator = make_generator(seed, "few_per_class")
    labels, names = encode_labels(y)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for name, members in zip(names, _members(labels, len(names)), strict=True):
        if len(members) < n:
            raise DataError(
                f"y has {len(members)} sample(s) of class {name!r}: expected at least n={n}"
            )
        chosen[_shuffled(members, generator)[:n]] = True
    return chosen.nonzero().squeeze(1), (~chosen).nonzero().squeeze(1)


def _members(labels: Tensor, num_classes: int) -> list[Tensor]:
    return [(labels == c).nonzero().squeeze(1) for c in range(num_classes)]


def _shuffled(indices: Tensor, generator: torch.Generator) -> Tensor:
    return indices[torch.randperm(len(indices), generator=generator)]


def _part_sizes(sizes: Sequence[float] | Sequence[int], total: int) -> list[int]:
    """Return numbers of samples from fractions or numbers."""
    if not hasattr(sizes, "__len__"):
        raise ConfigurationError(f"sizes={sizes!r}: expected a sequence of sizes, one per part")
    given = f"sizes={tuple(sizes)!r}"
    if len(sizes) and all(isinstance(size, Integral) for size in sizes):
        if min(sizes) < 1 or sum(sizes) > total:
            raise ConfigurationError(
                f"{given}: expected numbers of at least 1, together at most {total}, "
                "the number of samples"
            )
        return [int(size) for size in sizes]
    # An integer is a number of samples, never a fraction.
    if not len(sizes) or not all(_is_fraction(size) for size in sizes):
        raise ConfigurationError(f"{given}: expected all integers or all fractions (floats)")
    # The tolerance allows (0.7, 0.2, 0.1), whose floating-point sum is not exactly 1.
    if not (all(0 < size <= 1 for size in sizes) and sum(sizes) <= 1 + 1e-9):
        raise ConfigurationError(f"{given}: expected fractions above 0, together at most 1")
    ends = [round(sum(sizes[: k + 1]) * total) for k in range(len(sizes))]
    return [end - start for start, end in pairwise([0, *ends])]


def _is_fraction(size: object) -> bool:
    return isinstance(size, Real) and not isinstance(size, Integral)


def _shares(available: Tensor, count: int, generator: torch.Generator) -> list[int]:
    """Return ``count`` in proportion to ``available``: largest remainders, ties at random."""
    quotas = available.double() * count / available.sum()
    shares = quotas.floor().long()
    missing = count - int(shares.sum())
    shuffled = torch.randperm(len(shares), generator=generator)
    by_remainder = (quotas - shares)[shuffled].argsort(descending=True, stable=True)
    shares[shuffled[by_remainder[:missing]]] += 1
    return [int(share) for share in shares]
