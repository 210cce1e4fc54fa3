"""Reading and writing follow-ups: individuals with visits, as scores, images or arrays."""

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chartae.atomic import atomic_path, check_writable
from chartae.data.archives import read_numpy
from chartae.data.arrays import DType
from chartae.data.images import Color, read_alike, to_pixels, write_png
from chartae.data.sequence_arguments import KEY_COLUMNS, some
from chartae.data.sequences import Sequences
from chartae.data.tables import cell_text
from chartae.data.visit_tables import Individuals, VisitTable
from chartae.errors import ConfigurationError, DataError
from chartae.naming import folder_name

__all__ = ["VISITS", "read_sequences", "write_sequences"]

VISITS = "visits.csv"
"""The table of visits in a folder of images."""

# Names of the arrays of times in an .npz file.
_TIMES = ("times", "time")
# The options of each kind of source.
_OPTIONS: dict[str, set[str]] = {
    "folder": {"table", "individual", "time", "file", "resize", "color"},
    "table": {"individual", "time", "scores"},
    "npz": {"individual", "time", "x_key", "channels_last"},
}


def read_sequences(
    source: Any,
    *,
    individual: str | None = None,
    time: str | None = None,
    scores: Sequence[str] | None = None,
    covariates: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    table: Any = None,
    file: str | None = None,
    resize: Sequence[int] | None = None,
    color: Color | None = None,
    x_key: str | None = None,
    channels_last: bool = False,
    dtype: DType = "default",
) -> Sequences:
    """Return individuals with their visits from a table of scores, a folder of images, or arrays.

    The source is one of these:

    * **Scores**: a ``.csv`` or ``.tsv`` file, or a pandas DataFrame, with a row for each visit and
      the columns ``individual``, ``time`` and the scores. A missing cell is an unobserved score. A
      row without any score is a visit that was not observed, at whose time a value is wanted.
    * **Images**: a folder with a table, ``visits.csv`` or the only ``.csv`` file there, with the
      columns ``individual``, ``time`` and ``file``, a path inside the folder. An empty ``file`` is
      a visit that was not observed. Images are read as `chartae.data.read_images` does. Volumes are
      ``.npy`` files, one for each visit.
    * **Arrays**: an ``.npz`` file with ``x`` and ``times``, and if present ``observed``, ``mask``,
      ``ids``, ``covariates``, ``class_names``, ``covariate_names``, ``columns`` and
      ``key_columns``; see `Sequences`.

    Individuals are in the order of their first rows. Their visits are sorted by time. What a table
    calls the columns of individuals and of times is kept, for `write_sequences`.

    Args:
        source: the file, the folder or the DataFrame.
        individual: the column with the names of individuals, by default ``"individual"``; in an
            ``.npz`` file their array, by default ``"ids"``.
        time: the column of times, by default ``"time"``; in an ``.npz`` file their array, by
            default ``"times"`` or ``"time"``.
        scores: the columns of the scores; None means all others, which then must be numbers.
        covariates: columns, constant within an individual (missing cells do not count). A single
            column of text gives classes. Otherwise covariates are vectors, with a number 0 or 1 for
            each class of a column of text, named ``column=class``. Such a name is accepted too:
            ``covariates=train.covariate_names`` reads a second file as the first. In an ``.npz``
            file, arrays ``(N,)`` or ``(N, p)``, by default ``"covariates"``.
        class_names: the classes of a single covariate, in the order of their indices.
        table: for images, the table of visits: a file or a DataFrame.
        file: for images, the column of file names, by default ``"file"``.
        resize: for images, as in `chartae.data.read_images`.
        color: for images, as in `chartae.data.read_images`.
        x_key: in an ``.npz`` file, the array of visits, by default ``"x"``.
        channels_last: the arrays of an ``.npz`` file are ``(N, T, *sizes, channels)``.
        dtype: as in `ArrayDataset.from_arrays`.

    Raises:
        DataError: before any work, for a source that is missing, empty or of another form; for a
            time that is text or missing, two visits of one individual at one time, a covariate that
            varies, or files that the folder lacks; for images of different sizes or kinds. Messages
            name the individuals, lines or files. Files of other formats, such as NIfTI, are not
            read.
        ConfigurationError: for an option that this kind of source does not have.

    >>> import pandas
    >>> rows = {"individual": ["ann", "ann", "bo"], "time": [0.0, 1.5, 0.3], "sex": ["f", "f", "m"]}
    >>> rows["memory"], rows["speed"] = [29.0, 27.0, 30.0], [1.5, None, 2.5]
    >>> data = read_sequences(pandas.DataFrame(rows), covariates=["sex"])
    >>> data
    Sequences(2 individuals, 3 visits of shape (2,), float32; 1 to 2 each; 83.3% of their features
    observed)
    >>> data.form.columns, data.class_names, data.y.tolist()
    (('memory', 'speed'), ('f', 'm'), [0, 1])
    """
    kind = _kind(source)
    _check_options(
        kind,
        individual=individual,
        time=time,
        scores=scores,
        table=table,
        file=file,
        resize=resize,
        color=color,
        x_key=x_key,
        channels_last=channels_last or None,
    )
    if kind == "npz":
        names = (x_key or "x", individual or "ids", (time,) if time else _TIMES)
        return _from_arrays(Path(source), *names, covariates, class_names, channels_last, dtype)
    where = (individual or KEY_COLUMNS[0], time or KEY_COLUMNS[1])
    if kind == "table":
        visits = VisitTable.read(source)
        return _from_scores(visits, *where, scores, covariates or (), class_names, dtype)
    root = Path(source)
    visits = VisitTable.read(_table_of(root) if table is None else table)
    people = Individuals(visits, *where)
    y, names_of_y = people.covariates(covariates or (), class_names)
    x, observed = _read_images(root, people, file or "file", resize, color)
    return Sequences(
        x,
        times=people.times,
        observed=observed,
        covariates=y,
        ids=people.ids,
        class_names=class_names,
        covariate_names=names_of_y,
        key_columns=where,
        dtype=dtype,
    )


def write_sequences(
    path: str | os.PathLike[str],
    sequences: Sequences,
    *,
    overwrite: bool = False,
    clip: bool = False,
    further: Mapping[str, Any] | None = None,
) -> None:
    """Write individuals and their visits in a form that `read_sequences` reads.

    Visits have the dtype and the layout in which they were given (their `Form`). By the name of
    ``path``:

    * ``.npz``: everything.
    * ``.csv``: scores, with the columns of individuals and times (``key_columns`` of `Sequences`),
      covariates and scores. Scores without names are called ``x0``, ``x1`` and so on; unobserved
      cells are empty.
    * no suffix: a folder with an 8-bit PNG file for each observed visit, in a subfolder for each
      individual, and the table ``visits.csv``. Masks are not written to images.

    Covariates without names are called ``covariate``, or ``covariate0`` and so on.

    Args:
        path: the file or folder.
        sequences: what to write.
        overwrite: replace the file if it exists; a folder must be new or empty.
        clip: clip images outside [0, 1], with a warning that counts the values.
        further: other arrays for an ``.npz`` file, by name.

    Raises:
        ConfigurationError: before any work, if ``path`` exists, cannot be written or has another
            suffix, or if two columns would have one name.
        DataError: if visits are not vectors (``.csv``), or not images in [0, 1] without a mask.

    >>> import tempfile
    >>> data = Sequences(np.ones((2, 3, 4)), times=[0, 1, 3], ids=["ann", "bo"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_sequences(f"{folder}/scores.csv", data)
    ...     read_sequences(f"{folder}/scores.csv").ids
    ('ann', 'bo')
    """
    path = Path(path)
    if path.suffix not in (".npz", ".csv", ""):
        raise ConfigurationError(f"path={str(path)!r}: expected a .npz or .csv file, or a folder")
    if not path.suffix:
        _write_images(path, sequences, clip)
        return
    if path.is_dir() or (path.exists() and not overwrite):
        raise ConfigurationError(f"path={str(path)!r} exists: overwrite=True replaces a file")
    check_writable("the folder of path", path.parent)
    if path.suffix == ".npz":
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, **_arrays(sequences), **(further or {}))
        return
    names, cells = _scores(sequences)
    _write_table(path, sequences, names, cells)


# --- reading --------------------------------------------------------------------------------------


def _kind(source: Any) -> str:
    """Return the kind of a source; raise `DataError` for another."""
    if VisitTable.is_table(source):
        return "table"
    if not isinstance(source, (str, os.PathLike)):
        raise DataError(
            f"source is {type(source).__name__}: expected a file, a folder of images or a DataFrame"
        )
    path = Path(source)
    if path.is_dir():
        return "folder"
    if path.suffix.lower() == ".npz":
        return "npz"
    raise DataError(
        f"source={str(path)!r}: expected an existing folder of images, or a .csv, .tsv or .npz file"
    )


def _check_options(kind: str, **options: object) -> None:
    for name, value in options.items():
        if value is not None and name not in _OPTIONS[kind]:
            raise ConfigurationError(
                f"{name}={value!r} is not an option of a {kind} source, which has "
                f"{', '.join(sorted(_OPTIONS[kind]))}"
            )


def _from_scores(
    visits: VisitTable,
    individual: str,
    time: str,
    scores: Sequence[str] | None,
    covariates: Sequence[str],
    class_names: Sequence[str] | None,
    dtype: DType,
) -> Sequences:
    people = Individuals(visits, individual, time)
    y, names = people.covariates(covariates, class_names)
    used = {individual, time, *(people.covariate_column(name)[0] for name in covariates)}
    columns = _score_columns(visits, scores, used)
    x = np.stack([visits.numbers(column) for column in columns], 1)
    seen = ~np.isnan(x)
    if empty := [columns[place] for place in np.flatnonzero(~seen.any(0)).tolist()]:
        raise DataError(f"{visits.name} has no value in columns {some(empty)}: expected some")
    return Sequences(
        people.spread(np.where(seen, x, 0.0), 0.0),
        times=people.times,
        mask=None if seen.all() else people.spread(seen, False),
        covariates=y,
        ids=people.ids,
        class_names=class_names,
        covariate_names=names,
        columns=columns,
        key_columns=(individual, time),
        dtype=dtype,
    )


def _score_columns(
    visits: VisitTable, scores: Sequence[str] | None, used: set[str]
) -> Sequence[str]:
    """Return the columns of the scores; raise an error if there are none, or some are text."""
    if isinstance(scores, str):
        raise ConfigurationError(f"scores={scores!r}: expected a sequence of names")
    columns = list(scores if scores is not None else (c for c in visits.columns if c not in used))
    if not columns:
        raise DataError(f"{visits.name} has no column of scores: expected at least one")
    for column in columns:
        visits.check_column("scores", column)
    if both := [column for column in columns if column in used]:
        raise ConfigurationError(f"scores has {some(both)}, which are used otherwise")
    if scores is None and (text := [column for column in columns if visits.is_text(column)]):
        raise DataError(
            f"{visits.name} has columns {some(text)} that are not numbers: expected the option "
            "scores with the columns of scores, or the option covariates with those of text"
        )
    return columns


def _table_of(root: Path) -> Path:
    """Return the table of visits of a folder of images."""
    tables = sorted(root.glob("*.csv"))
    if (root / VISITS) in tables:
        return root / VISITS
    if len(tables) != 1:
        raise DataError(
            f"{root} has {len(tables)} .csv files: expected {VISITS} or one table of the visits, "
            "or the option table"
        )
    return tables[0]


def _read_images(
    root: Path,
    people: Individuals,
    file: str,
    resize: Sequence[int] | None,
    color: Color | None,
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the images of visits, ``(N, T, *input_shape)``, and which were observed."""
    visits = people.table
    visits.check_column("file", file)
    cells = visits.texts(file)
    seen = np.array([bool(name) for name in cells])
    names = [name for name in cells if name]
    if not names:
        raise DataError(f"{visits.name} has no file in column {file!r}: expected some")
    if lacking := [name for name in names if not (root / name).is_file()]:
        raise DataError(
            f"{root} lacks {len(lacking)} of {len(names)} file(s) that {visits.name} names: "
            f"{some(lacking)}"
        )
    if any(name.endswith(".npy") for name in names):
        if resize is not None or color is not None:
            raise ConfigurationError("resize and color are options of images, not of .npy files")
        pixels = _read_volumes(root, names)
    else:
        pixels = read_alike([root / name for name in names], resize, color).values
    whole = np.zeros((len(people.ids), people.times.shape[1], *pixels.shape[1:]), pixels.dtype)
    whole[people.owner[seen], people.rank[seen]] = pixels
    return whole, people.spread(seen, False)


def _read_volumes(root: Path, names: Sequence[str]) -> np.ndarray[Any, Any]:
    """Return the arrays of ``.npy`` files, all of one shape and dtype."""
    if others := [name for name in names if not name.endswith(".npy")]:
        raise DataError(f"{root} has .npy files and others: {some(others)}; expected one kind")
    arrays = [np.asarray(read_numpy(root / name)["x"]) for name in names]
    kinds = [f"{array.dtype} of shape {array.shape}" for array in arrays]
    if odd := [name for name, kind in zip(names, kinds, strict=True) if kind != kinds[0]]:
        raise DataError(
            f"{some(odd)} in {root} are not {kinds[0]}, as {names[0]!r} is: expected arrays of one "
            "shape and dtype"
        )
    return np.stack(arrays)


def _from_arrays(
    path: Path,
    x_key: str,
    individual: str,
    time: Sequence[str],
    covariates: Sequence[str] | None,
    class_names: Sequence[str] | None,
    channels_last: bool,
    dtype: DType,
) -> Sequences:
    arrays = dict(read_numpy(path))
    when = next((name for name in time if name in arrays), time[0])
    needed = [x_key, when, *(covariates or ()), *([individual] if individual != "ids" else [])]
    if missing := [name for name in needed if name not in arrays]:
        raise DataError(f"{path} lacks {some(missing)}: it has the arrays {sorted(arrays)}")
    names: Any = arrays.get("covariate_names", ())
    y = arrays.get("covariates")
    if covariates is not None:
        y, names = _joined(path, arrays, covariates)
    elif class_names is None:
        class_names = arrays.get("class_names")
    return Sequences(
        arrays[x_key],
        times=arrays[when],
        observed=arrays.get("observed"),
        mask=arrays.get("mask"),
        covariates=y,
        ids=arrays.get(individual),
        class_names=None if class_names is None else [str(name) for name in class_names],
        covariate_names=names,
        channels_last=channels_last,
        columns=[str(name) for name in arrays.get("columns", ())],
        key_columns=[str(name) for name in arrays.get("key_columns", KEY_COLUMNS)],
        dtype=dtype,
    )


def _joined(path: Path, arrays: dict[str, Any], names: Sequence[str]) -> tuple[Any, Sequence[str]]:
    """Return the arrays of covariates as one, and the names of the covariates."""
    if not names:
        return None, ()
    first = arrays[names[0]]
    if len(names) == 1 and first.ndim == 1 and first.dtype.kind in "iubUT":
        return first, names
    parts, found = [], []
    for name in names:
        part = arrays[name]
        if part.ndim not in (1, 2) or part.dtype.kind not in "iufb" or len(part) != len(first):
            raise DataError(
                f"{path} has {name!r} of dtype {part.dtype} and shape {part.shape}: expected "
                f"numbers, ({len(first)},) or ({len(first)}, p)"
            )
        parts.append(part.reshape(len(part), -1).astype(np.float64))
        count = parts[-1].shape[1]
        found += [name] if part.ndim == 1 else [f"{name}{place}" for place in range(count)]
    return np.concatenate(parts, 1), found


# --- writing --------------------------------------------------------------------------------------


def _arrays(sequences: Sequences) -> dict[str, Any]:
    """Return the arrays of an ``.npz`` file."""
    form = replace(sequences.form, container="array")
    shape = sequences.x.shape[:2]

    def restored(values: torch.Tensor, dtype: torch.dtype = form.dtype) -> Any:
        frames = replace(form, dtype=dtype).restore(values.flatten(0, 1))
        return frames.reshape(*shape, *frames.shape[1:])

    times = torch.where(sequences.padding, torch.nan, sequences.times)
    arrays = {
        "x": restored(sequences.x),
        "times": times.cpu().numpy(),
        "observed": sequences.observed.cpu().numpy(),
        "ids": np.array(sequences.ids),
    }
    if sequences.mask is not None:
        arrays["mask"] = restored(sequences.mask.float(), torch.bool)
    if sequences.y is not None:
        arrays["covariates"] = sequences.y.cpu().numpy()
    texts = {
        "class_names": sequences.class_names,
        "covariate_names": sequences.covariate_names,
        "columns": form.columns,
        "key_columns": () if sequences.key_columns == KEY_COLUMNS else sequences.key_columns,
    }
    return arrays | {name: np.array(text, np.str_) for name, text in texts.items() if text}


def _scores(sequences: Sequences) -> tuple[list[str], list[list[str]]]:
    """Return the names of the scores, and their cells at each visit ``(N * T)``."""
    if len(sequences.input_shape) != 1:
        raise DataError(
            f"visits have shape {sequences.input_shape}: expected vectors of scores; write others "
            "to an .npz file or a folder"
        )
    values = replace(sequences.form, container="array").restore(sequences.x.flatten(0, 1))
    if values.dtype.kind == "f":  # as many digits as the values have
        values = values.astype(sequences.x.cpu().numpy().dtype)
    known = sequences.known.flatten(0, 1).tolist()
    cells = [
        [cell_text(value) if seen else "" for value, seen in zip(row, shown, strict=True)]
        for row, shown in zip(values, known, strict=True)
    ]
    columns = sequences.form.columns or [f"x{place}" for place in range(values.shape[1])]
    return list(map(str, columns)), cells


def _write_images(folder: Path, sequences: Sequences, clip: bool) -> None:
    _header(folder / VISITS, sequences, ["file"])
    pixels = to_pixels(sequences.visits(), clip)
    if any(check_writable("path", folder).iterdir()):
        raise ConfigurationError(f"path={str(folder)!r} is not empty: expected a new folder")
    observed = sequences.observed.tolist()
    digits = len(str(sequences.x.shape[1] - 1))
    places = [folder_name(name) for name in sequences.ids]
    files = [
        [f"{place}/{visit:0{digits}}.png" if seen else "" for visit, seen in enumerate(row)]
        for place, row in zip(places, observed, strict=True)
    ]
    for place in places:
        (folder / place).mkdir()
    names = [name for row in files for name in row]
    for name, image in zip(filter(None, names), pixels, strict=True):
        write_png(folder / name, image)
    _write_table(folder / VISITS, sequences, ["file"], [[name] for name in names])


def _write_table(
    path: Path, sequences: Sequences, names: Sequence[str], cells: Sequence[Sequence[str]]
) -> None:
    """Write a row for each visit: the individual, the time, covariates and other cells."""
    header = _header(path, sequences, names)
    _, values = _covariate_cells(sequences)

    def rows() -> Iterator[list[str]]:
        count = sequences.x.shape[1]
        times, padding = sequences.times.tolist(), sequences.padding.tolist()
        for row, name in enumerate(sequences.ids):
            for visit in range(count):
                if not padding[row][visit]:
                    when = repr(times[row][visit])
                    yield [name, when, *values[row], *cells[row * count + visit]]

    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(header)
        csv.writer(file, lineterminator="\n").writerows(rows())


def _header(path: Path, sequences: Sequences, names: Sequence[str]) -> list[str]:
    """Return the names of the columns: individual, time, covariates and ``names``."""
    header = [*sequences.key_columns, *_covariate_cells(sequences)[0], *names]
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise ConfigurationError(
            f"columns {some(twice)} would be in {path.name} more than once: rename scores or "
            "covariates"
        )
    return header


def _covariate_cells(sequences: Sequences) -> tuple[list[str], list[list[str]]]:
    """Return the names of the covariates, and the cells of each individual."""
    y, given = sequences.y, sequences.covariate_names
    if y is None:
        return [], [[] for _ in sequences.ids]
    if sequences.class_names:
        labels = [[sequences.class_names[index]] for index in y.tolist()]
        return [given[0] if given else "covariate"], labels
    names = list(given) or [f"covariate{place}" for place in range(y.shape[1])]
    return names, [[cell_text(value) for value in row] for row in y.cpu().numpy()]
