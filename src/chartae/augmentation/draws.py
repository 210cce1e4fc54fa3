"""The training, validation and test sets of the repeats of a study."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chartae.checks import check_choice, check_integer, check_number
from chartae.data import ArrayDataset
from chartae.errors import DataError
from chartae.randomness import derive_seed

__all__ = ["Draw", "make_draws"]

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Draw:
    """Rows of the pool in one repeat; no row is in two sets.

    Attributes:
        train: those of the training set.
        validation: those of the validation set.
        test: those of the test set; None if the study has a test set of its own.
    """

    train: Rows
    validation: Rows
    test: Rows | None


def make_draws(
    pool: ArrayDataset,
    *,
    repeats: Iterable[int],
    per_class: int | Mapping[Any, int] | None,
    validation_share: float,
    test_share: float | None,
) -> list[Draw]:
    """Return the sets of each repeat, drawn class by class.

    Args:
        pool: labelled data.
        repeats: the seed of each repeat.
        per_class: training examples of each class, the numbers by label, or None for all.
        validation_share: share of the validation set in training and validation set, in (0, 1); at
            least one example of each class that has two or more.
        test_share: share of the test set in the pool, in (0, 1); None makes none.

    Raises:
        DataError: if a class has too few examples.
        ConfigurationError: for a number out of range, or an unknown label.
    """
    check_number("validation_share", validation_share, above=0.0, below=1.0)
    if test_share is not None:
        check_number("test_share", test_share, above=0.0, below=1.0)
    assert pool.y is not None
    y = pool.y.numpy()
    wanted = _wanted(pool, per_class)
    return [
        _draw(y, pool.class_names, seed, wanted, validation_share, test_share) for seed in repeats
    ]


def _wanted(pool: ArrayDataset, per_class: int | Mapping[Any, int] | None) -> dict[int, int]:
    """Return the number of training examples by class index; empty for all."""
    if per_class is None:
        return {}
    if not isinstance(per_class, Mapping):
        check_integer("per_class", per_class, minimum=2)
        return dict.fromkeys(pool.classes, per_class)
    found = {}
    for label, count in per_class.items():
        check_choice("per_class", str(label), pool.class_names)
        check_integer(f"per_class[{label!r}]", count, minimum=1)
        found[pool.class_names.index(str(label))] = count
    for index in pool.classes:
        check_choice("the labels of y", pool.class_names[index], list(map(str, per_class)))
    return found


def _draw(
    y: NDArray[Any],
    names: tuple[str, ...],
    seed: int,
    wanted: Mapping[int, int],
    validation_share: float,
    test_share: float | None,
) -> Draw:
    train: list[Rows] = []
    validation: list[Rows] = []
    test: list[Rows] = []
    for label in np.unique(y):
        random = np.random.default_rng(derive_seed(seed, "draw", int(label)))
        rows = random.permutation(np.flatnonzero(y == label))
        if test_share is not None:
            split = max(1, round(test_share * len(rows)))
            test.append(rows[:split])
            rows = rows[split:]
        if wanted:
            count = wanted[int(label)]
            share = count * validation_share / (1.0 - validation_share)
            held_out = max(1, math.ceil(round(share, 9)))  # 12 * 0.2 / 0.8 is above 3
        else:
            # A class of one example is trained on, and not held out.
            held_out = min(max(1, round(validation_share * len(rows))), max(len(rows) - 1, 0))
            count = max(len(rows) - held_out, 1)
        if count + held_out > len(rows):
            kept = "" if test_share is None else f", beside {split} of the test set"
            raise DataError(
                f"class {names[int(label)]!r} has {len(rows)} examples for training and "
                f"validation{kept}: expected at least {count + held_out}"
            )
        train.append(rows[:count])
        validation.append(rows[count : count + held_out])
    return Draw(
        np.concatenate(train),
        np.concatenate(validation),
        np.concatenate(test) if test else None,
    )
