"""Folders of files with one sample each, in class folders or beside a table of their labels."""

import csv
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from chartae.atomic import atomic_content, atomic_path
from chartae.data.dataset import ArrayDataset
from chartae.data.tables import integers_if_all, read_lines
from chartae.errors import ConfigurationError, DataError
from chartae.naming import folder_name

__all__ = [
    "MANIFEST",
    "Kind",
    "Listing",
    "check_alike",
    "files_below",
    "list_files",
    "list_samples",
    "read_each",
    "some",
    "write_folder",
]

logger = logging.getLogger(__name__)

MANIFEST = "manifest.csv"
"""The table that is written beside the files."""
_COLUMNS = ["file", "label"]

# Files that file managers and archives leave in folders, besides hidden files, in lower case.
_CLUTTER = frozenset(["thumbs.db", "desktop.ini", "__macosx", "@eadir"])

Sample = TypeVar("Sample")


class Kind(NamedTuple):
    """What holds one sample: a file with one of some suffixes, or a folder of slices.

    Attributes:
        name: of several, for messages, such as ``"images"``.
        find: returns all of them below a folder, in order.
        is_one: whether a path is one.
    """

    name: str
    find: Callable[[Path], list[Path]]
    is_one: Callable[[Path], bool]


class Listing(NamedTuple):
    """The files of a folder.

    Attributes:
        root: the folder.
        files: the files, in order.
        labels: the label of each file, as text; empty without labels.
        class_names: the names of the classes, in order.
    """

    root: Path
    files: list[Path]
    labels: Mapping[Path, str]
    class_names: tuple[str, ...]

    def check_classes(self, files: Sequence[Path], what: str) -> None:
        """Raise `DataError` if a class has none of ``files``."""
        present = {self.labels[file] for file in files} if self.labels else set()
        if missing := [name for name in self.class_names if name not in present]:
            raise DataError(
                f"{self.root}: class {missing[0]} has no {what}: expected at least one of its class"
            )

    def labels_of(self, files: Sequence[Path]) -> list[str] | None:
        """Return the labels of files; None without labels."""
        return [self.labels[file] for file in files] if self.labels else None

    def names_of(self, files: Sequence[Path]) -> tuple[str, ...]:
        """Return the paths of files inside the folder."""
        return tuple(file.relative_to(self.root).as_posix() for file in files)


def list_files(folder: str | os.PathLike[str], suffixes: Collection[str], what: str) -> Listing:
    """Return the files of a folder whose names end in one of ``suffixes``, as `list_samples` does.

    Args:
        folder: the folder.
        suffixes: in lower case, with their dots.
        what: the kind of files, for messages: ``"images"`` or ``"volumes"``.

    Raises:
        DataError: as in `list_samples`.
    """

    def is_one(path: Path) -> bool:
        return path.name.lower().endswith(tuple(suffixes)) and path.is_file()

    def find(root: Path) -> list[Path]:
        return [file for file in files_below(root) if is_one(file)]

    return list_samples(folder, Kind(what, find, is_one))


def list_samples(folder: str | os.PathLike[str], kind: Kind) -> Listing:
    """Return the files of a folder that hold samples, with their labels.

    Files may be in subfolders of their class's folder. A class has the name of its folder, or its
    name in the table of `write_folder`. Without class folders there are no labels. A ``.csv`` file
    in the folder with columns ``file`` and ``label`` gives the labels instead, wherever the files
    are. Other files are left out, with a warning that counts them; hidden files and those of file
    managers without a warning.

    Args:
        folder: the folder.
        kind: what holds a sample.

    Raises:
        DataError: if there are no such files, if a class has none, if a file has no class, or if
            the table names a file twice or one that is missing.
    """
    root, what = Path(folder), kind.name
    if not root.is_dir():
        raise DataError(f"folder={str(root)!r}: expected an existing folder of {what}")
    folders = [entry for entry in _visible(root) if entry.is_dir()]
    table = _find_table(root, folders)
    if table is not None:
        return _listed(root, table, kind)
    files = kind.find(root)
    _warn_of_others(root, files, what)
    if files == [root]:  # one sample, in a folder of slices
        return Listing(root, files, {}, ())
    class_folders = sorted({*folders} - {*files})
    names = _class_names(root, class_folders)
    stray = [file for file in files if file.parent == root]
    if not class_folders and not stray:
        raise DataError(
            f"{root} has no {what}: expected {what} in one subfolder per class, or without "
            "subfolders where there are no labels"
        )
    if class_folders and stray:
        raise DataError(
            f"{stray[0]} has no class: expected {what} in one subfolder per class, or a .csv file "
            "with the columns file and label"
        )
    labels = {file: names[file.relative_to(root).parts[0]] for file in files if class_folders}
    listing = Listing(root, files, labels, tuple(sorted(names.values())))
    listing.check_classes(files, what)
    return listing


def read_each(
    files: Sequence[Path], read: Callable[[Path], Sample], skip_unreadable: bool, what: str
) -> tuple[list[Sample], list[Path]]:
    """Return what ``read`` makes of each file, and the files that it can read.

    Args:
        files: the files.
        read: raises `DataError` for a file that is not readable.
        skip_unreadable: leave such files out, with a warning.
        what: the kind of files, for messages: ``"an image"`` or ``"a volume"``.

    Raises:
        DataError: for a file that is not readable, or if none is.
    """
    samples, kept, unreadable = [], [], []
    for file in files:
        try:
            samples.append(read(file))
            kept.append(file)
        except DataError as error:
            if not skip_unreadable:
                raise
            unreadable.append(error)
    if unreadable:
        logger.warning("left out %d unreadable file(s): %s", len(unreadable), some(unreadable))
    if not samples:
        raise DataError(f"none of {len(files)} file(s) can be read as {what}: {unreadable[0]}")
    return samples, kept


def check_alike(files: Sequence[Path], given: Sequence[str], expected: str) -> None:
    """Raise `DataError` if the description of a file differs from that of the first one."""
    odd = [f"{file} is {kind}" for file, kind in zip(files, given, strict=True) if kind != given[0]]
    if odd:
        raise DataError(f"{some(odd)}, but {files[0]} is {given[0]}: expected {expected}")


def write_folder(
    folder: str | os.PathLike[str],
    dataset: ArrayDataset,
    suffix: str,
    write: Callable[[Path, int], None],
    columns: Mapping[str, Sequence[object]],
) -> list[Path]:
    """Write a file for each sample in the folder of its class, and a table of them.

    The files are ``folder/<class>/<row><suffix>``, where ``<class>`` is the `folder_name` of the
    class, or ``folder/<row><suffix>`` without labels. The table is ``manifest.csv``. If writing
    fails, no file remains.

    Args:
        folder: a new or an empty folder.
        dataset: samples with or without labels.
        suffix: of the files.
        write: writes the sample of a row to a file.
        columns: further columns of the table besides ``file`` and ``label``: for each name, a value
            for each sample.

    Returns:
        The paths of the files, that of the table last.

    Raises:
        DataError: if y holds vectors.
        ConfigurationError: if ``folder`` is not writable or not empty, or if columns do not fit.
    """
    root, labels = Path(folder), [""] * len(dataset)
    if dataset.y is not None:
        if not dataset.class_names:
            raise DataError("y holds vectors: expected labels, which name the folders")
        labels = [dataset.class_names[index] for index in dataset.y.tolist()]
    for name, values in columns.items():
        if name in _COLUMNS or len(values) != len(dataset):
            raise ConfigurationError(
                f"columns[{name!r}] has {len(values)} values: expected a name other than file and "
                f"label, and {len(dataset)} values, one for each sample"
            )
    if root.is_dir() and any(root.iterdir()):
        raise ConfigurationError(f"folder={str(root)!r} is not empty: expected a new folder")
    digits = len(str(len(dataset) - 1))
    places = {label: f"{folder_name(label)}/" if dataset.class_names else "" for label in labels}
    files = [f"{places[label]}{row:0{digits}}{suffix}" for row, label in enumerate(labels)]
    with atomic_content(root) as place:
        for row, file in enumerate(files):
            write(place / file, row)
        with (
            atomic_path(place / MANIFEST) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as table,
        ):
            writer = csv.writer(table, lineterminator="\n")
            writer.writerow([*_COLUMNS, *columns])
            writer.writerows(zip(files, labels, *columns.values(), strict=True))
    return [root / name for name in (*files, MANIFEST)]


# --- finding files and labels ---------------------------------------------------------------------


def _visible(folder: Path) -> list[Path]:
    return sorted(
        entry
        for entry in folder.iterdir()
        if not entry.name.startswith(".") and entry.name.lower() not in _CLUTTER
    )


def files_below(folder: Path) -> list[Path]:
    """Return the files of a folder and its subfolders, without hidden ones."""
    entries = _visible(folder)
    files = [entry for entry in entries if not entry.is_dir()]
    # A link to a parent folder would give the same files again and again.
    above = {folder.resolve(), *folder.resolve().parents}
    deeper = [entry for entry in entries if entry.is_dir() and entry.resolve() not in above]
    return files + [file for entry in deeper for file in files_below(entry)]


def _warn_of_others(root: Path, samples: Sequence[Path], what: str) -> None:
    """Warn of the files of a folder that are neither samples nor in the folder of one."""
    used = {*samples}
    others = [file for file in files_below(root) if file not in used and file.parent not in used]
    others = sorted(file for file in others if file.name != MANIFEST)
    if others:
        logger.warning("left out %d file(s) that are not %s: %s", len(others), what, some(others))


def _class_names(root: Path, folders: Sequence[Path]) -> dict[str, str]:
    """Return the class names by the names of their folders."""
    names = {folder.name: folder.name for folder in folders}
    if unreadable := [name for name in names if not _is_text(name)]:
        raise DataError(
            f"{root} has a folder named {unreadable[0]!a}, which is not UTF-8: "
            "expected the name of a class; rename it"
        )
    try:
        with (root / MANIFEST).open(newline="", encoding="utf-8") as table:
            rows = list(csv.reader(table))
    except (OSError, UnicodeDecodeError, csv.Error):
        return names
    if not rows or rows[0][:2] != _COLUMNS or any(len(row) != len(rows[0]) for row in rows):
        return names  # a table that `write_folder` did not write
    given = {Path(row[0]).parts[0]: row[1] for row in rows[1:] if len(Path(row[0]).parts) > 1}
    names |= {folder: label for folder, label in given.items() if folder in names}
    if len(set(names.values())) < len(names):
        raise DataError(f"{root / MANIFEST} gives one label to several folders: expected one each")
    return names


def _is_text(name: str) -> bool:
    """Whether a file name is valid text; on some systems names are bytes in any encoding."""
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def _find_table(root: Path, class_folders: Sequence[Path]) -> Path | None:
    """Return the table of labels in a folder; None without one."""
    found = [file for file in _visible(root) if file.suffix.lower() == ".csv" and _is_table(file)]
    if class_folders:  # then it names the folders
        found = [file for file in found if file.name != MANIFEST]
    if len(found) > 1:
        raise DataError(f"{some(found)} have the columns file and label: expected one such table")
    return found[0] if found else None


def _is_table(file: Path) -> bool:
    """Whether a file has columns called file and label."""
    try:
        with file.open(encoding="utf-8-sig") as content:
            header = re.split(r"[,;\t]", content.readline())
    except (OSError, UnicodeDecodeError):
        return False
    return {*_COLUMNS} <= {name.strip().strip('"') for name in header}


def _listed(root: Path, table: Path, kind: Kind) -> Listing:
    """Return the files that a table of labels names."""
    header, lines = read_lines(table, True)
    place, label = (header.index(name) for name in _COLUMNS)
    files = [root / cells[place].strip() for _, cells in lines]
    labels = [cells[label].strip() for _, cells in lines]
    if lacking := [file for file in files if not file.exists()]:
        raise DataError(f"{table} names {len(lacking)} file(s) that are missing: {some(lacking)}")
    if twice := [file for file, count in Counter(files).items() if count > 1]:
        raise DataError(f"{table} names {twice[0]} twice: expected each file once")
    if other := [file for file in files if not kind.is_one(file)]:
        raise DataError(f"{table} names {other[0]}: expected {kind.name}")
    if "" in labels and any(labels):
        number = lines[labels.index("")][0]
        raise DataError(f"{table}, line {number} has no label: expected one in every line")
    if others := sorted({*kind.find(root)} - {*files}):
        logger.warning("left out %d file(s) that %s lacks: %s", len(others), table, some(others))
    if not any(labels):
        return Listing(root, files, {}, ())
    names = tuple(map(str, sorted({*integers_if_all(labels)})))
    return Listing(root, files, dict(zip(files, labels, strict=True)), names)


def some(things: Sequence[object]) -> str:
    """Return the first three items of a list, and the number of the others."""
    more = f" and {len(things) - 3} more" if len(things) > 3 else ""
    return ", ".join(map(str, things[:3])) + more
