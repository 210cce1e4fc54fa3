"""Output files of the subcommands: checked before any work, recorded after it."""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from chartae import __version__
from chartae.atomic import atomic_path, check_writable, write_text
from chartae.cli.options import without_none
from chartae.data import ArrayDataset, write_images, write_volumes
from chartae.data.images import CHANNELS
from chartae.data.volumes import check_volumes
from chartae.errors import ConfigurationError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Outputs",
    "check_suffix",
    "constant_line",
    "print_lines",
    "record_of",
    "write_figure",
]

SHOWN = 10
"""Largest number of names in a line; the record has all."""


def print_lines(*lines: str) -> None:
    """Write lines to standard output without markup."""
    console = Console(soft_wrap=True, markup=False, highlight=False)
    for line in lines:
        console.print(line)


def constant_line(columns: Sequence[str], place: str) -> str:
    """Return a line that names constant columns.

    >>> constant_line(["a", "b"], "DATA")
    'constant in DATA: a, b'
    """
    more = f" and {len(columns) - SHOWN} more" if len(columns) > SHOWN else ""
    return f"constant in {place}: {', '.join(columns[:SHOWN])}{more}"


def record_of(out: Path) -> Path:
    """Return the record beside an output, which no other output shares.

    >>> record_of(Path("new.csv")).name
    'new.csv.json'
    """
    return out.with_name(f"{out.name}.json")


def check_suffix(path: Path, *suffixes: str) -> None:
    """Raise `ConfigurationError` unless the name of an output file ends in one of ``suffixes``."""
    if path.suffix not in suffixes or path.is_dir():
        raise ConfigurationError(
            f"out={str(path)!r}: expected a file whose name ends in {' or '.join(suffixes)}"
        )


def check_rows(out: Path, shape: tuple[int, ...]) -> None:
    """Raise `ConfigurationError` if observations of a shape are not rows of a table."""
    if len(shape) != 1:
        raise ConfigurationError(
            f"out={str(out)!r}: observations of shape {shape} are not rows of a table"
        )


def check_folder_of(out: Path, shape: tuple[int, ...]) -> None:
    """Raise `ConfigurationError` if observations of a shape cannot be files in a folder."""
    if _are_volumes(shape):
        check_volumes()
    elif not (len(shape) == 2 or (len(shape) == 3 and shape[0] in CHANNELS)):
        raise ConfigurationError(
            f"out={str(out)!r}: observations of shape {shape} are neither images nor volumes: "
            "expected a name that ends in .npz"
        )


def write_folder_of(
    out: Path, dataset: ArrayDataset, columns: Mapping[str, Sequence[object]]
) -> None:
    """Write images or volumes in class folders, and a table with further ``columns``."""
    if _are_volumes(dataset.input_shape):
        write_volumes(out, dataset, columns=columns)
    else:
        write_images(out, dataset, clip=True, columns=columns)


def _are_volumes(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[0] == 1


def write_figure(path: Path, figure: "Figure", dpi: int) -> None:
    """Write a figure as a PNG file, atomically."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)


class Outputs:
    """The files that a run writes, and the record that lists them.

    An output never replaces an input, whatever their paths. Files of an earlier run are replaced
    only with ``overwrite``, and only if its record lists them and they have not changed since. A
    file that chartae did not write, or that was changed since, is never replaced. The record also
    has the options of the run, in the form that ``--config`` reads.

    Args:
        command: the subcommand.
        record: the file of the record.
        given: all arguments of the subcommand by name, including groups of options. With
            ``overwrite`` the files of an earlier run are replaced. With ``resume`` the run
            continues an earlier one, and the files of that run may exist.
        inputs: files and folders that the run reads, None for those that were not given.

    Attributes:
        options: the values of all options, as one flat mapping of JSON values.
    """

    def __init__(
        self,
        command: str,
        record: Path,
        given: Mapping[str, Any],
        *,
        inputs: Iterable[Path | None],
    ) -> None:
        self.command, self.record = command, record
        self.overwrite, self.resume = given["overwrite"], given.get("resume", False)
        if self.overwrite and self.resume:
            raise ConfigurationError("overwrite and resume are given: expected one of them")
        self.inputs = [path for path in inputs if path is not None]
        self.options = _flat(given, self.inputs)
        self.claimed: list[Path] = []
        self.resumable = False
        self.earlier = self._read_record()
        self.strange: dict[Path, str] = {}
        self.lacking: list[Path] = []

    def claim(self, *paths: Path, resumable: Iterable[Path] = ()) -> None:
        """Check, before any work, that the run may write these outputs and its record.

        Args:
            paths: files, or folders with all their content.
            resumable: further files or folders, which may contain the unfinished work of a run
                that is resumed. No record lists them; the caller that resumes must check them.

        Raises:
            ConfigurationError: for an output that is an input, contains one or is inside one; with
                ``overwrite``, for an input that the earlier run wrote; for an output that exists,
                without ``overwrite`` or if chartae did not write it or it has changed; for a folder
                that is not writable.
        """
        resumable = list(resumable)
        self.resumable = bool(resumable)
        self.claimed += [*paths, *resumable]
        for path in (*self.claimed, self.record):
            self._check_no_input(path, "would be written over")
        if self.overwrite:
            for file in self._earlier_files():
                self._check_no_input(file, "of the earlier run would be removed, and belongs to")
        for path in (*self.claimed, self.record):
            strange = [file for file in _files(path) if not self._is_ours(file)]
            self.strange |= {file: _digest(file) for file in strange}
            if strange and not (self.resume and path in resumable):
                # A killed run leaves files that no record lists.
                killed = ", or --resume if a run was killed there" if path in resumable else ""
                raise ConfigurationError(
                    f"out: {str(strange[0])!r} was not written by this command, or was changed "
                    f"since: expected another place{killed}"
                )
            if _files(path) and not (self.overwrite or self.resume):
                raise ConfigurationError(
                    f"out: {str(path)!r} exists: expected --overwrite{self._also_removed()}, "
                    "or another place"
                )
            self.lacking += [one for one in (path, *path.parents) if not one.exists()]
            try:
                check_writable("the folder of out", path.parent)
            finally:
                self._remove_empty()

    def _remove_empty(self) -> None:
        """Remove empty folders that were not there before: a refused run leaves nothing."""
        for folder in self.lacking:
            with suppress(OSError):
                folder.rmdir()

    def _check_no_input(self, path: Path, what: str) -> None:
        for source in self.inputs:
            if _overlap(path, source):
                raise ConfigurationError(
                    f"out: {str(path)!r} {what} the input {str(source)!r}: expected another place"
                )

    def _earlier_files(self) -> list[Path]:
        """Return the files that the record lists and that have not changed since."""
        files = [self.record.parent / name for name in self.earlier or {}]
        return [file for file in files if file.exists() and self._is_ours(file)]

    def _also_removed(self) -> str:
        """Return a text that names the files of the earlier run that would only be removed."""
        others = [
            str(file)
            for file in self._earlier_files()
            if not any(file == path or path in file.parents for path in self.claimed)
        ]
        shown = [*others[:3], *(["..."] if len(others) > 3 else [])]
        return f", which removes {', '.join(shown)} too" if others else ""

    def _clear(self) -> None:
        """Remove the files of the earlier run that have not changed since."""
        for file in self._earlier_files():
            self.remove(file)
        self.record.unlink(missing_ok=True)

    def remove(self, path: Path) -> None:
        """Remove those files of the earlier run that are at or below a path, and empty folders."""
        for file in _files(path):
            if not self._is_ours(file):
                continue
            file.unlink()
            for folder in file.parents:  # except the folder of the record
                if folder == self.record.parent or any(folder.iterdir()):
                    break
                folder.rmdir()

    @contextmanager
    def recording(self, **facts: Any) -> Iterator[None]:
        """Remove an earlier run with ``overwrite``, and write the record after the block.

        If the block fails, the record is written only if the block has written files. Otherwise
        the record of an earlier run stays valid. A run that can be resumed has a record from its
        start, because a killed process writes none.

        Args:
            facts: content of the record besides the options and the files of the run.
        """
        if self.overwrite:
            self._clear()
        begins = self.resumable and not self.record.exists()
        if begins:
            self._write_record(facts)
        try:
            yield
        except BaseException:
            if self._has_written():
                self._write_record(facts)
            elif begins:
                self.record.unlink(missing_ok=True)
            self._remove_empty()
            raise
        self._write_record(facts)

    def _write_record(self, facts: Mapping[str, Any]) -> None:
        digests = {file: _digest(file) for file in self._written_files()}
        content = {
            "chartae": __version__,
            self.command: self.options,
            **facts,
            "files": {
                _relative(file, self.record.parent): digest
                for file, digest in digests.items()
                if self.strange.get(file) != digest  # the run did not change it
            },
        }
        write_text(self.record, json.dumps(content, indent=2))

    def _written_files(self) -> list[Path]:
        return [file for path in self.claimed for file in _files(path) if file != self.record]

    def _has_written(self) -> bool:
        """Whether claimed files have changed since they were claimed."""
        return any(
            not self._is_ours(file) and self.strange.get(file) != _digest(file)
            for file in self._written_files()
        )

    def _read_record(self) -> dict[str, str] | None:
        """Return the digests of the files of the earlier run, by name; None without a record."""
        try:
            content = json.loads(self.record.read_text(encoding="utf-8"))
            files = dict(content["files"]) if {"chartae", self.command} <= set(content) else None
        except (OSError, ValueError, TypeError, KeyError):
            return None
        if files is None:
            return None
        # A record lists only files in its own folder and below.
        return {str(name): str(digest) for name, digest in files.items() if _is_below(name)}

    def _is_ours(self, file: Path) -> bool:
        if self.earlier is None:
            return False
        if file == self.record:
            return True
        return self.earlier.get(_relative(file, self.record.parent)) == _digest(file)


def _flat(given: Mapping[str, Any], inputs: Collection[Path]) -> dict[str, Any]:
    """Return arguments as options that repeat the run, for ``--config`` in any working directory.

    None is left out, and so are options that do not change the result, such as ``overwrite``.
    """
    flat: dict[str, Any] = {}
    for name, value in given.items():
        flat |= asdict(value) if is_dataclass(value) else {name: value}  # type: ignore[arg-type]

    def text(value: Any) -> Any:
        if isinstance(value, list):
            return [text(part) for part in value]
        if isinstance(value, Path):
            # A model of the hub is no path.
            return str(value.resolve() if value in inputs and value.exists() else value)
        return value

    flat = {name: text(value) for name, value in flat.items()}
    how = {"overwrite", "resume", "config"}
    return {name: value for name, value in without_none(flat).items() if name not in how}


def _files(path: Path) -> list[Path]:
    """Return a file, or all files below a folder."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if not file.is_dir())
    return [path] if path.exists() or path.is_symlink() else []


def _overlap(output: Path, source: Path) -> bool:
    """Whether two paths are the same, or one is inside the other."""
    one, other = output.resolve(), source.resolve()
    if one == other or other in one.parents or (one in other.parents and output.is_dir()):
        return True
    return output.exists() and source.exists() and output.samefile(source)


def _is_below(name: str) -> bool:
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def _relative(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix()


def _digest(file: Path) -> str:
    if not file.is_file():  # a broken link
        return ""
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
