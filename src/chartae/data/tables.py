"""Tables of numbers with a column of labels, from comma-separated text."""

import csv
import os
from pathlib import Path

import numpy as np
import torch

from chartae.data.dataset import ArrayDataset
from chartae.errors import DataError

__all__ = ["read_table"]

# Columns taken for the labels, in any case of letters, when none is named.
_LABEL_COLUMNS = ("y", "label", "class")


def read_table(
    path: str | os.PathLike[str],
    *,
    label_column: str | None = None,
    dtype: torch.dtype | None = torch.float32,
) -> ArrayDataset:
    """Return the samples (N, columns) of a ``.csv`` file with a header line and numeric columns.

    Args:
        path: the file, in UTF-8.
        label_column: the column of the labels; without it, the one called ``y``, ``label`` or
            ``class`` if there is one. Labels that are all integers are ordered as numbers.
        dtype: torch.float32 or torch.float64.

    Raises:
        DataError: naming line and column, for a cell that is not a number; for a file without a
            header or samples, or in which the labels cannot be found.
    """
    path = Path(path)
    header, lines = _read_lines(path)
    label = _label_index(path, header, label_column)
    rows, labels = [], []
    for number, cells in lines:
        if len(cells) != len(header):
            raise DataError(
                f"{path}, line {number} has {len(cells)} cells: expected {len(header)}, "
                "as in the header"
            )
        if label is not None:
            labels.append(cells.pop(label).strip())
        rows.append(cells)
    if "" in labels:
        number, _ = lines[labels.index("")]
        raise DataError(f"{path}, line {number} has no label: expected one in every line")
    columns = [name for index, name in enumerate(header) if index != label]
    x = np.array(
        [
            [_number(path, number, column, cell) for column, cell in zip(columns, row, strict=True)]
            for (number, _), row in zip(lines, rows, strict=True)
        ]
    )
    y = None if label is None else _integers_if_all(labels)
    return ArrayDataset.from_arrays(x, y, dtype=dtype)


def _read_lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header, and the other non-empty lines as (line number, cells)."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as comma-separated text: {error}") from None
    if len(lines) < 2:
        raise DataError(
            f"{path} has {len(lines)} line(s): expected a header and at least one sample"
        )
    header = [name.strip() for name in lines[0][1]]
    if all(_is_number(name) for name in header):
        raise DataError(f"{path} starts with numbers: expected a header with the columns' names")
    return header, lines[1:]


def _label_index(path: Path, header: list[str], label_column: str | None) -> int | None:
    if label_column is not None:
        found = [index for index, name in enumerate(header) if name == label_column]
        if len(found) != 1:
            raise DataError(
                f"label_column={label_column!r} is the name of {len(found)} columns of {path}: "
                f"expected one of {header}"
            )
        return found[0]
    found = [index for index, name in enumerate(header) if name.lower() in _LABEL_COLUMNS]
    if len(found) > 1:
        raise DataError(
            f"{path} has columns {[header[index] for index in found]}: expected label_column to "
            "name the one that holds the labels"
        )
    return found[0] if found else None


def _number(path: Path, line: int, column: str, cell: str) -> float:
    if _is_number(cell):
        return float(cell)
    given = repr(cell) if cell.strip() else "empty"
    raise DataError(f"{path}, line {line}: column {column!r} is {given}, expected a number")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _integers_if_all(labels: list[str]) -> list[int] | list[str]:
    """Integers, so that class 10 comes after class 9; strings if one is written otherwise."""
    try:
        numbers = [int(label) for label in labels]
    except ValueError:
        return labels
    return numbers if [str(number) for number in numbers] == labels else labels
