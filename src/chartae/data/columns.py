"""The columns of a DataFrame as features: numbers, and categories as one-hot features."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from chartae.errors import DataError

__all__ = ["Categories", "column_features", "restored_column"]

MOST_TEXTS = 100
"""Largest number of distinct texts in a column that is not declared as categorical."""


@dataclass(frozen=True)
class Categories:
    """The categories of a column of a DataFrame, each of which is one feature.

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
        DataError: for a column of another type, or of more than 100 different texts.
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
    texts = set(column.dropna())
    if not all(isinstance(text, str) for text in texts):
        raise DataError(
            f"x has a column {column.name!r} of dtype {column.dtype}: expected columns of numbers, "
            "booleans, text or categories"
        )
    if len(texts) > MOST_TEXTS:
        raise DataError(
            f"x has a column {column.name!r} with {len(texts)} different texts: expected at most "
            f"{MOST_TEXTS}; leave it out, or give it a categorical dtype"
        )
    return Categories(_some(column, tuple(sorted(texts))))


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
