"""Reading and writing tables of numbers and categories, with a column of labels."""

import csv
import io
import logging
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chartae.atomic import atomic_path, check_writable
from chartae.data.archives import read_numpy
from chartae.data.arrays import DType
from chartae.data.columns import LARGEST_WHOLE, Categories, are_dates, categories_of
from chartae.data.dataset import ArrayDataset
from chartae.data.labels import LABEL_NAMES
from chartae.errors import ConfigurationError, DataError

__all__ = [
    "cell_text",
    "integers_if_all",
    "read_labels",
    "read_lines",
    "read_number",
    "read_table",
    "write_table",
]

logger = logging.getLogger(__name__)

_SEPARATORS = (",", ";", "\t")
# Texts that stand for an unobserved cell, in lower case.
_MISSING = frozenset(["", "na", "n/a", "nan", "null", "none"])
# Python's own notation also allows underscores, infinities and NaN.
_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")
_WHOLE = re.compile(r"[-+]?\d+")
# Numbers in any notation. A column with one of them is no column of categories.
_NUMERIC = re.compile(
    r"[-+]?(?=.*\d)[\d.,_' ]+([eE][-+]?\d+)?\s*%?|[-+]?inf(inity)?", re.IGNORECASE
)

Line = tuple[int, list[str]]


def read_table(
    path: str | os.PathLike[str],
    *,
    label_column: str | None = None,
    header: bool = True,
    dtype: DType = "default",
) -> ArrayDataset:
    r"""Return the samples (N, features) of a text file with columns of numbers and of text.

    A column of numbers is one feature. The texts of a column of text are its categories, each of
    which is one feature: 1 in cells with this text, 0 in others. The `Form` of the dataset restores
    cells with their texts, and whole numbers in columns that have no others.

    Cells are separated by commas, semicolons or tabs, as in the first line. An empty cell, NA, NaN,
    null or None is unobserved, and the dataset then has a mask. A first column without a name,
    which DataFrames write, is the index of the rows and is left out. (A first line of 0, 1, 2, ...,
    which DataFrames without column names write, is also a header.)

    Args:
        path: the file, in UTF-8.
        label_column: the column of the labels; by default the one with a name in `LABEL_NAMES`, if
            there is one. Labels that are all integers are sorted as numbers.
        header: whether the first line has the names of the columns; otherwise ``label_column`` is a
            number from 0.
        dtype: as in `ArrayDataset.from_arrays`.

    Raises:
        DataError: for text in a column of numbers (the message gives line and column); for a column
            of dates, of names of the rows, or of more than 100 different texts; for a file without
            a header or samples, or in which the labels cannot be found.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "patients.csv")
    ...     _ = path.write_text("age,sex,label\n61,f,ill\n58,,ill\n49,m,well\n")
    ...     data = read_table(path)
    >>> data.x.tolist(), data.form.restore(data.x[:1])
    ([[61.0, 1.0, 0.0], [58.0, 0.0, 0.0], [49.0, 0.0, 1.0]], array([[61, 'f']], dtype=object))
    """
    path = Path(path)
    names, lines = read_lines(path, header)
    label = _label_index(path, names, label_column)
    labels = [] if label is None else [cells.pop(label).strip() for _, cells in lines]
    if "" in labels:
        number, _ = lines[labels.index("")]
        raise DataError(f"{path}, line {number} has no label: expected one in every line")
    columns = [name for index, name in enumerate(names) if index != label]
    if not columns:
        raise DataError(f"{path} has only labels: expected other columns, too")
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise DataError(f"{path} has columns {twice} more than once: expected names that differ")
    lines_of = [number for number, _ in lines]
    cells_of = zip(*(row for _, row in lines), strict=True)
    parts, dtypes, categories = zip(
        *(
            _column(path, name, lines_of, cells)
            for name, cells in zip(columns, cells_of, strict=True)
        ),
        strict=True,
    )
    x = np.concatenate(parts, 1)
    hidden = np.isnan(x)
    y = None if label is None else integers_if_all(labels)
    mask = ~hidden if hidden.any() else None
    features = [name for name, part in zip(columns, parts, strict=True) for _ in part.T]
    dataset = ArrayDataset.from_arrays(
        np.where(hidden, 0.0, x), y, mask, columns=features, dtype=dtype
    )
    form = replace(
        dataset.form,
        container="table",
        columns=tuple(columns if header else map(int, columns)),
        column_dtypes=dtypes,
        categories=categories if any(categories) else (),
        label=names[label] if header and label is not None else "",
    )
    return replace(dataset, form=form)


def _column(
    path: Path, name: str, lines: Sequence[int], cells: Sequence[str]
) -> tuple[NDArray[np.float64], str, Categories | None]:
    """Return the features ``(N, width)`` of a column, its dtype and its categories.

    Features are NaN where the column was not observed.
    """
    texts = [cell.strip() for cell in cells]
    seen = [text for text in texts if not _is_missing(text)]
    if not seen:
        raise DataError(f"{path} has no value in column {name!r}: expected at least one")
    if not any(map(_NUMERIC.fullmatch, seen)) or are_dates(seen):
        categories = categories_of(f"{path} has a column {name!r}", seen, "remove the column")
        place = {text: index for index, text in enumerate(categories.values)}
        codes = np.array([-1 if _is_missing(text) else place[text] for text in texts])
        features = np.eye(len(place))[codes]
        features[codes < 0] = np.nan
        return features, "text", categories
    example = next(n for n, text in zip(lines, texts, strict=True) if _NUMERIC.fullmatch(text))
    for number, text in zip(lines, texts, strict=True):
        if not _NUMERIC.fullmatch(text) and not _is_missing(text):
            raise DataError(
                f"{path}, line {number}: column {name!r} is {text!r}, expected a number as in line "
                f"{example}; a column of categories has text only"
            )
    values = np.array(
        [read_number(path, n, name, cell) for n, cell in zip(lines, cells, strict=True)]
    )
    whole = all(map(_WHOLE.fullmatch, seen)) and np.nanmax(np.abs(values)) <= LARGEST_WHOLE
    return values[:, None], "int64" if whole else "float64", None


def _is_missing(text: str) -> bool:
    return text.lower() in _MISSING


def write_table(
    path: str | os.PathLike[str], dataset: ArrayDataset, label: str | None = None
) -> None:
    """Write ``dataset`` (N, columns) as a ``.csv`` file that `read_table` can read.

    Cells are written in the dataset's `Form`: categories by name, whole numbers without a decimal
    point, other numbers with enough digits to be read back exactly, and booleans as 0 and 1.
    Columns have the names in the form. Columns without names, or with numbers as names, are called
    ``x`` followed by the number. An unobserved entry is an empty cell.

    Args:
        path: the file.
        dataset: samples that are vectors.
        label: the name of the column of labels, if there are any; None takes the name that the
            dataset was read with, or else ``"label"``.

    Raises:
        ConfigurationError: before any work, if ``path`` does not end in ``.csv`` or exists, or
            ``label`` is the name of a feature.
        DataError: if samples are not vectors, or if conditions are vectors.
    """
    path = Path(path)
    if path.suffix != ".csv":
        raise ConfigurationError(f"path={str(path)!r}: expected a file whose name ends in .csv")
    if path.exists():
        raise ConfigurationError(f"path={str(path)!r} exists: expected a new file")
    if len(dataset.input_shape) != 1:
        raise DataError(f"x has shape {tuple(dataset.x.shape)}: expected (N, columns)")
    if dataset.y is not None and not dataset.class_names:
        raise DataError("y holds vectors: expected labels, which fill one column")
    names = [str(name) for name in dataset.form.columns or range(dataset.input_shape[0])]
    # read_table reads a first line of numbers as a sample.
    names = [f"x{name}" if _NUMBER.fullmatch(name) else name for name in names]
    label = label or dataset.form.label or "label"
    if label in names:
        raise ConfigurationError(f"label={label!r} is a column of x: expected another name")
    check_writable("the folder of path", path.parent)
    columns = _cells(dataset)
    if dataset.y is not None:
        names.append(label)
        columns.append([dataset.class_names[index] for index in dataset.y.tolist()])
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        # Quotes protect separators inside names.
        csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(names)
        csv.writer(file, lineterminator="\n").writerows(zip(*columns, strict=True))


def _cells(dataset: ArrayDataset) -> list[list[str]]:
    """Return the cells of each column of features."""
    form, x = dataset.form, dataset.x.cpu()
    precision = x.numpy().dtype
    columns = [c.astype(precision) if c.dtype.kind == "f" else c for c in form.cells(x)]
    cells = [[cell_text(value) for value in column] for column in columns]
    if dataset.mask is not None:
        seen = form.of_columns(dataset.mask).T.tolist()
        pairs = zip(cells, seen, strict=True)
        cells = [[v if s else "" for v, s in zip(c, m, strict=True)] for c, m in pairs]
    return cells


def cell_text(value: object) -> str:
    """Return the text of a cell; booleans are 0 and 1."""
    return str(int(value)) if isinstance(value, (bool, np.bool_)) else str(value)


def read_labels(path: str | os.PathLike[str]) -> np.ndarray:
    """Return the labels (N,) of a ``.npy`` file, or of a text file with one label per line.

    A first line that is one of `LABEL_NAMES` is a header.

    Raises:
        DataError: for a file that is missing or has another form.
    """
    path = Path(path)
    if path.suffix == ".npy":
        return np.asarray(read_numpy(path)["x"])
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as labels: {error}") from None
    labels = [line.strip().strip('"') for line in lines]
    if path.suffix in (".csv", ".tsv") and len(_parted("\n".join(lines))[0][1]) > 1:
        raise DataError(f"{path} has several cells in its first line: expected one label a line")
    labels = labels[1:] if labels and labels[0].lower() in LABEL_NAMES else labels
    if "" in labels or not labels:
        raise DataError(f"{path} has lines without a label: expected one label a line")
    return np.asarray(integers_if_all(labels))


def read_lines(path: Path, header: bool) -> tuple[list[str], list[Line]]:
    """Return the names of the columns, and the non-empty lines below as (line number, cells).

    Raises:
        DataError: for a file that is missing or not such a table.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            text = file.read()
        lines = _parted(text)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table of text: {error}") from None
    if len(lines) < 1 + header:
        raise DataError(
            f"{path} has {len(lines)} line(s): expected {'a header and ' * header}at least one "
            "sample"
        )
    names = [name.strip() for name in lines[0][1]]
    if not header:
        names = [str(index) for index in range(len(names))]
    elif all(_NUMBER.fullmatch(name) for name in names) and not _are_numbered(names):
        raise DataError(
            f"{path} starts with numbers: expected a header with the names of the columns; use "
            "header=False for a file without a header"
        )
    lines = lines[header:]
    for number, cells in lines:
        if len(cells) != len(names):
            raise DataError(
                f"{path}, line {number} has {len(cells)} cells: expected {len(names)}, "
                "as in the first line"
            )
    return _without_index(path, names, lines)


def _parted(text: str) -> list[Line]:
    """Return the lines of a text, split by the separator that gives most cells in the first."""

    def reader(separator: str) -> Iterator[Line]:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        # An empty line is not a sample. In a table with one column, a missing cell is in quotes.
        return ((rows.line_num, cells) for cells in rows if cells)

    firsts = {separator: next(reader(separator), (0, [])) for separator in _SEPARATORS}
    best = max(firsts, key=lambda separator: len(firsts[separator][1]))
    one_column = len(firsts[best][1]) == 1
    return [line for line in reader(best) if one_column or line[1] != [""]]


def _are_numbered(names: Sequence[str]) -> bool:
    """Whether numbers in the first line are column names written by a DataFrame."""
    return len(names) > 2 and list(names) == [str(index) for index in range(len(names))]


def _without_index(path: Path, names: list[str], lines: list[Line]) -> tuple[list[str], list[Line]]:
    """Leave out an unnamed first column, or raise `DataError` if it is not an index of rows."""
    if len(names) < 2 or (names[0] and not re.fullmatch(r"Unnamed: \d+", names[0])):
        return names, lines
    cells = [row[0].strip() for _, row in lines]
    if len(set(cells)) < len(cells) or any(
        _NUMBER.fullmatch(c) and not c.isdecimal() for c in cells
    ):
        raise DataError(f"{path} has a first column without a name: expected a name in the header")
    logger.info("%s: the first column has no name; it is read as the index of the rows", path)
    return names[1:], [(number, row[1:]) for number, row in lines]


def _label_index(path: Path, header: list[str], label_column: str | None) -> int | None:
    if label_column is not None:
        found = [index for index, name in enumerate(header) if name == label_column]
        if len(found) != 1:
            raise DataError(
                f"label_column={label_column!r} is the name of {len(found)} columns of {path}: "
                f"expected one of {header}"
            )
        return found[0]
    found = [index for index, name in enumerate(header) if name.lower() in LABEL_NAMES]
    if len(found) > 1:
        raise DataError(
            f"{path} has columns {[header[index] for index in found]}: expected label_column to "
            "give the name of the one with the labels"
        )
    return found[0] if found else None


def read_number(path: Path, line: int, column: str, cell: str) -> float:
    """Return the number in a cell, or NaN if the cell is unobserved."""
    if _NUMBER.fullmatch(cell) and math.isfinite(value := float(cell)):
        return value
    if _is_missing(cell.strip()):
        return math.nan
    hint = ", with a decimal point" if _NUMBER.fullmatch(cell.replace(",", ".")) else ""
    raise DataError(f"{path}, line {line}: column {column!r} is {cell!r}, expected a number{hint}")


def integers_if_all(labels: Sequence[str]) -> list[int] | list[str]:
    """Return integer labels as integers, so that 10 sorts after 9; else strings."""
    try:
        numbers = [int(label) for label in labels]
    except ValueError:
        return list(labels)
    return numbers if [str(number) for number in numbers] == list(labels) else list(labels)
