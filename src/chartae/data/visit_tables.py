"""Tables with a row for each visit of an individual: text files and DataFrames."""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chartae.data.form import is_frame
from chartae.data.sequence_arguments import DATES_HINT, some
from chartae.data.tables import read_lines, read_number
from chartae.errors import ConfigurationError, DataError

__all__ = ["Individuals", "VisitTable"]

logger = logging.getLogger(__name__)

# Texts that stand for a missing value among names of classes, in capitals.
_MISSING = frozenset(["", "NA", "N/A", "NAN"])


@dataclass(frozen=True)
class VisitTable:
    """Columns of a table, with the place of each row for messages.

    Args:
        name: what the table is called in messages.
        columns: the cells of each column; those of a text file are text.
        rows: the number of the line, or the index, of each row.
        row: what a row is called in messages.
    """

    name: str
    columns: Mapping[str, Any]
    rows: Sequence[Any]
    row: str = "line"
    _parsed: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    @classmethod
    def read(cls, source: Any) -> "VisitTable":
        """Read a file of text with a header, or take a DataFrame.

        Raises:
            DataError: if it has no rows, or columns of one name.
        """
        if is_frame(source):
            names = [str(name) for name in source.columns]
            columns = {name: source.iloc[:, place] for place, name in enumerate(names)}
            table = cls("the DataFrame", columns, list(source.index), "row")
        else:
            path = Path(source)
            names, lines = read_lines(path, header=True)
            cells = zip(*(row for _, row in lines), strict=True)
            columns = dict(zip(names, map(list, cells), strict=True))
            table = cls(str(path), columns, [number for number, _ in lines])
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(f"{table.name} has columns {some(twice)} more than once")
        if not table.rows:
            raise DataError(f"{table.name} is empty: expected a row for each visit")
        return table

    @classmethod
    def is_table(cls, source: object) -> bool:
        """Whether a source is a DataFrame, or the name of a text file."""
        named = isinstance(source, (str, os.PathLike)) and Path(source).suffix.lower()
        return is_frame(source) or named in (".csv", ".tsv")

    def check_column(self, option: str, name: str) -> None:
        """Raise `DataError` unless there is a column ``name``."""
        if name not in self.columns:
            raise DataError(
                f"{option}={name!r} is not a column of {self.name}: expected one of "
                f"{list(self.columns)}"
            )

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Return the numbers of a column, NaN where a cell is missing.

        Raises:
            DataError: for a cell that is not a number.
        """
        if name not in self._parsed:
            self._parsed[name] = self._numbers(name)
        return self._parsed[name]

    def _numbers(self, name: str) -> NDArray[np.float64]:
        cells = self.columns[name]
        if not isinstance(cells, list):
            if getattr(cells.dtype, "kind", "O") not in "iufb":
                raise DataError(
                    f"{self.name}: column {name!r} has dtype {cells.dtype}, expected numbers"
                )
            return np.asarray(cells.to_numpy(dtype=np.float64, na_value=np.nan))
        path = Path(self.name)
        pairs = zip(self.rows, cells, strict=True)
        return np.array([read_number(path, line, name, cell) for line, cell in pairs])

    def texts(self, name: str) -> list[str]:
        """Return the cells of a column as text, empty where a cell is missing."""
        return [_text(cell) for cell in self.columns[name]]

    def is_text(self, name: str) -> bool:
        """Whether a column has cells that are not numbers."""
        try:
            self.numbers(name)
        except DataError:
            return True
        return False

    def at(self, rows: Any) -> str:
        """Return the places of some rows, for messages; ``rows`` are booleans."""
        places = [f"{self.row} {self.rows[row]}" for row in np.flatnonzero(rows).tolist()]
        more = f" and {len(places) - 5} more" if len(places) > 5 else ""
        return ", ".join(places[:5]) + more


class Individuals:
    """The individuals of a table of visits.

    Args:
        table: a row for each visit.
        individual: the column of their names.
        time: the column of times.

    Attributes:
        ids: their names, in the order of their first rows.
        owner: ``(rows,)``, the individual of each row.
        rank: ``(rows,)``, the place of each row among those of its individual.
        times: ``(N, T)``, NaN where an individual has no further visit.

    Raises:
        DataError: for rows without a name, or a time that is text or missing, or two visits of one
            individual at one time.
    """

    def __init__(self, table: VisitTable, individual: str, time: str) -> None:
        table.check_column("individual", individual)
        table.check_column("time", time)
        names = table.texts(individual)
        if any(unnamed := [not name for name in names]):
            raise DataError(
                f"{table.name} has no name in column {individual!r} at {table.at(unnamed)}: "
                "expected the individual of every visit"
            )
        self.table = table
        self.ids = tuple(dict.fromkeys(names))
        numbers = {name: number for number, name in enumerate(self.ids)}
        self.owner = np.array([numbers[name] for name in names])
        order = np.argsort(self.owner, kind="stable")
        counts = np.bincount(self.owner)
        self.rank = np.empty_like(self.owner)
        self.rank[order] = np.arange(len(order)) - np.repeat(counts.cumsum() - counts, counts)
        when = self._read_times(time)
        self._check_differ(when)
        self.times = self.spread(when, np.nan)

    def _read_times(self, time: str) -> NDArray[np.float64]:
        table = self.table
        try:
            when = table.numbers(time)
        except DataError as error:
            raise DataError(f"{error}; times are numbers: {DATES_HINT}") from None
        if (missing := ~np.isfinite(when)).any():
            raise DataError(
                f"{table.name} has no time in column {time!r} at {table.at(missing)}: "
                "expected a finite number for every visit"
            )
        return when

    def _check_differ(self, when: NDArray[np.float64]) -> None:
        """Raise `DataError` for two visits of one individual at one time."""
        order = np.lexsort((when, self.owner))
        same = np.zeros(len(when), bool)
        pairs = (np.diff(self.owner[order]) == 0) & (np.diff(when[order]) == 0.0)
        same[order[1:]] = pairs
        same[order[:-1]] |= pairs
        if same.any():
            named = [self.ids[owner] for owner in dict.fromkeys(self.owner[same].tolist())]
            raise DataError(
                f"individuals with two visits at one time: {some(named)} (in {self.table.name}, "
                f"{self.table.at(same)})"
            )

    def spread(self, values: NDArray[Any], fill: Any) -> NDArray[Any]:
        """Return the values of rows ``(rows, ...)`` as ``(N, T, ...)``."""
        shape = (len(self.ids), int(self.rank.max()) + 1, *values.shape[1:])
        whole = np.full(shape, fill, values.dtype)
        whole[self.owner, self.rank] = values
        return whole

    def covariates(
        self, names: Sequence[str], class_names: Sequence[str] | None
    ) -> tuple[Any, tuple[str, ...]]:
        """Return the covariates in columns, and their names.

        Args:
            names: columns. A single one of text, or any single one with ``class_names``, gives the
                classes ``(N,)``. Otherwise there are vectors ``(N, p)``, with a number 0 or 1 for
                each class of a column of text, named ``column=class``; such a name selects it.
            class_names: the classes.

        Raises:
            DataError: for a column that is missing, varies within an individual, or has no value
                for one.
        """
        if isinstance(names, str):
            raise ConfigurationError(f"covariates={names!r}: expected a sequence of names")
        if not names:
            return None, ()
        wanted = [self.covariate_column(name) for name in names]
        if len(wanted) == 1 and not wanted[0][1]:
            column = wanted[0][0]
            if class_names is not None or self.table.is_text(column):
                return self._constant(column, self.table.texts(column)), (column,)
        if class_names is not None:
            raise ConfigurationError(
                f"class_names are given for covariates={list(names)}: expected one column of "
                "classes"
            )
        found: dict[str, NDArray[Any]] = {}
        for column, one in wanted:
            if not one and not self.table.is_text(column):
                numbers = self._constant(column, self.table.numbers(column).tolist())
                found[column] = np.array(numbers, np.float64)
                continue
            texts = np.array(self._constant(column, self.table.texts(column)))
            for each in [one] if one else np.unique(texts).tolist():
                found[f"{column}={each}"] = (texts == each).astype(np.float64)
        return np.stack(list(found.values()), 1), tuple(found)

    def covariate_column(self, name: str) -> tuple[str, str]:
        """Return the column and the class of a name ``column=class``, or a column and no class."""
        column, _, one = name.rpartition("=")
        if name not in self.table.columns and column in self.table.columns:
            return column, one
        self.table.check_column("covariates", name)
        return name, ""

    def _constant(self, column: str, cells: Sequence[Any]) -> list[Any]:
        """Return the value of each individual in a column; missing cells do not count."""
        found: dict[int, Any] = {}
        vary = set()
        for owner, cell in zip(self.owner.tolist(), cells, strict=True):
            if _is_missing(cell):
                continue
            if found.setdefault(owner, cell) != cell:
                vary.add(owner)
        named = [self.ids[owner] for owner in sorted(vary)]
        if named:
            raise DataError(
                f"{self.table.name}: covariate {column!r} varies within individuals "
                f"{some(named)}: expected one value each; what varies is a score"
            )
        if missing := [name for owner, name in enumerate(self.ids) if owner not in found]:
            raise DataError(
                f"{self.table.name}: covariate {column!r} is missing for individuals "
                f"{some(missing)}: expected a value each"
            )
        return [found[owner] for owner in range(len(self.ids))]


def _is_missing(cell: str | float) -> bool:
    return cell.upper() in _MISSING if isinstance(cell, str) else math.isnan(cell)


def _text(cell: Any) -> str:
    # pandas' NA cannot be compared, and NaN differs from itself.
    if cell is None or type(cell).__name__ == "NAType" or cell != cell:
        return ""
    if isinstance(cell, float) and math.isfinite(cell) and cell == int(cell):
        cell = int(cell)  # pandas makes integers with a missing one floats
    return str(cell).strip()
