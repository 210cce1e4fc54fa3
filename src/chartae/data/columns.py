"""The columns of a table as features: numbers, and categories as one-hot features."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from chartae.errors import DataError

__all__ = [
    "Categories",
    "are_dates",
    "categories_of",
    "column_features",
    "restored_cells",
    "restored_column",
]

MOST_TEXTS = 100
"""Largest number of distinct texts in a column that is not declared as categorical."""
FEWEST_NAMES = 5
"""From this number of cells on, a column with another text in each has names of the rows."""
LARGEST_WHOLE = 2**53
"""float64 holds all whole numbers up to this one."""

# Dates such as 2020-01-31, 2020-01, 31.1.2020 and 1/31/20, with or without a time.
_DATE = re.compile(
    r"(\d{4}-\d{1,2}(-\d{1,2})?|\d{1,2}-\d{1,2}-\d{2,4}|\d{1,4}([./])\d{1,2}\3\d{1,4})([T ].*)?"
)


@dataclass(frozen=True)
class Categories:
    """The categories of a column of a table, each of which is one feature.

    Args:
        values: the categories, in the order of their features.
        dtype: the name of the dtype of the categories.
        ordered: whether the categories of a categorical dtype have an order.
    """

    values: tuple[str | int | float | bool, ...]
    dtype: str = "object"
    ordered: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the categories as JSON values."""
        return vars(self)

    @classmethod
    def from_json(cls, record: dict[str, Any] | None) -> Self | None:
        """Return the categories from the output of `to_json`; None for None."""
        return None if record is None else cls(**{**record, "values": tuple(record["values"])})


def column_features(column: Any) -> tuple[NDArray[np.float64], Categories | None]:
    """Return the features ``(N, width)`` of a column, NaN where a cell is missing.

    A column of numbers or booleans is one feature. A column of text or of a categorical dtype has
    one feature for each category, 1 for the category of the cell and 0 for others.

    Args:
        column: a pandas Series.

    Returns:
        The features, and the categories; None for a column of numbers.

    Raises:
        DataError: for a column of another type, or of dates or names of rows (`categories_of`).
    """
    if getattr(column.dtype, "kind", "O") in "iufb":
        return column.to_numpy(dtype=np.float64, na_value=np.nan)[:, None], None
    from pandas import Categorical, CategoricalDtype

    if isinstance(column.dtype, CategoricalDtype):
        categories = _declared(column)
    else:
        categories = _of_texts(column)
    codes = np.asarray(Categorical(column, categories=list(categories.values)).codes)
    features = np.eye(len(categories.values))[codes]
    features[codes < 0] = np.nan
    return features, categories


def _declared(column: Any) -> Categories:
    """Return the categories of a column of a categorical dtype."""
    found = column.cat.categories
    values = tuple(value.item() if hasattr(value, "item") else value for value in found)
    if strange := [value for value in values if not isinstance(value, (str, int, float, bool))]:
        raise DataError(
            f"x has a column {column.name!r} with the category {strange[0]!r}: expected categories "
            "that are text or numbers"
        )
    return Categories(_some(column, values), str(found.dtype), bool(column.cat.ordered))


def _of_texts(column: Any) -> Categories:
    """Return the sorted texts of a column."""
    texts = list(column.dropna())
    if not all(isinstance(text, str) for text in texts):
        raise DataError(
            f"x has a column {column.name!r} of dtype {column.dtype}: expected columns of numbers, "
            "booleans, text or categories"
        )
    _some(column, tuple(texts))
    way_out = "leave it out, or give it a categorical dtype"
    return categories_of(f"x has a column {column.name!r}", texts, way_out)


def categories_of(subject: str, texts: Sequence[str], way_out: str) -> Categories:
    """Return the sorted texts of a column as its categories.

    Args:
        subject: the start of messages, such as ``"x has a column 'sex'"``.
        texts: the text of each observed cell, at least one.
        way_out: the end of messages: what to do with a column that has no categories.

    Raises:
        DataError: if the texts are dates, more than 100 different ones, or names of rows: at least
            5 texts, no two of which are equal.

    >>> categories_of("x has a column 'sex'", ["m", "f", "m"], "leave it out").values
    ('f', 'm')
    """
    found = tuple(sorted(set(texts)))
    if are_dates(found):
        raise DataError(
            f"{subject} with dates, such as {found[0]!r}: expected numbers, such as days since a "
            "day of your choice, or no such column"
        )
    if len(found) == len(texts) >= FEWEST_NAMES:
        raise DataError(
            f"{subject} with {len(found)} different texts in {len(texts)} cells, such as "
            f"{found[0]!r}: expected categories, not names of the rows; {way_out}"
        )
    if len(found) > MOST_TEXTS:
        raise DataError(
            f"{subject} with {len(found)} different texts: expected at most {MOST_TEXTS}; {way_out}"
        )
    return Categories(found)


def are_dates(texts: Sequence[str]) -> bool:
    """Whether all texts are dates, such as 2020-01-31 or 31.1.2020.

    >>> are_dates(["2020-01-31", "2020-02-01 12:30"]), are_dates(["20-29", "30-39"])
    (True, False)
    """
    return all(_DATE.fullmatch(text) for text in texts)


def _some(column: Any, values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise DataError(f"x has a column {column.name!r} without a value: expected at least one")
    return values


def restored_column(features: NDArray[Any], dtype: str, categories: Categories | None) -> Any:
    """Return the pandas Series of a column with these features ``(N, width)``.

    Integers are rounded and clipped to the range of their dtype. Booleans are True for values of at
    least 0.5. A cell has the category with the largest feature.
    """
    from pandas import Categorical, CategoricalDtype, Index, Series

    if categories is None:
        return Series(_rounded(features[:, 0], dtype)).astype(dtype)
    known = Index(list(categories.values), dtype=categories.dtype)
    codes = features.argmax(1)
    if dtype != "category":
        return Series(known.take(codes)).astype(dtype)
    return Series(Categorical.from_codes(codes, dtype=CategoricalDtype(known, categories.ordered)))


def restored_cells(
    features: NDArray[Any], dtype: str, categories: Categories | None
) -> NDArray[Any]:
    """Return the cells of a column of a text file with these features ``(N, width)``.

    It is `restored_column` without pandas, for ``dtype`` ``"int64"``, ``"float64"`` or ``"text"``.
    """
    if categories is not None:
        texts: NDArray[Any] = np.array(categories.values, dtype=object)
        chosen: NDArray[Any] = texts[features.argmax(1)]
        return chosen
    if dtype == "int64":
        limit = LARGEST_WHOLE
        whole = np.rint(features[:, 0].astype(np.float64)).clip(-limit, limit)
        integers: NDArray[Any] = whole.astype(np.int64)
        return integers
    numbers: NDArray[Any] = features[:, 0]
    return numbers


def _rounded(column: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return numbers that fit a DataFrame's column, by its dtype."""
    from pandas.api.types import is_bool_dtype, is_integer_dtype, pandas_dtype

    if is_bool_dtype(dtype):
        return column >= 0.5
    if not is_integer_dtype(dtype):
        return column
    kind = pandas_dtype(dtype)
    limits = np.iinfo(getattr(kind, "numpy_dtype", kind))
    return column.round().clip(limits.min, limits.max)
