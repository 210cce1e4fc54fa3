"""What the subcommands write: claimed before any work, recorded after it."""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from chartae import __version__
from chartae.atomic import atomic_path, check_writable, write_text
from chartae.cli.options import without_none
from chartae.errors import ConfigurationError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Outputs", "check_suffix", "constant_line", "print_lines", "write_figure"]

SHOWN = 10
"""So many names a line lists; the record has all."""


def print_lines(*lines: str) -> None:
    """Write lines to standard output, as they are."""
    console = Console(soft_wrap=True, markup=False, highlight=False)
    for line in lines:
        console.print(line)


def constant_line(columns: Sequence[str], place: str) -> str:
    """Return a line on columns in which no two values differ.

    >>> constant_line(["a", "b"], "DATA")
    'constant in DATA: a, b'
    """
    more = f" and {len(columns) - SHOWN} more" if len(columns) > SHOWN else ""
    return f"constant in {place}: {', '.join(columns[:SHOWN])}{more}"


def check_suffix(path: Path, *suffixes: str) -> None:
    """Raise `ConfigurationError` for an output file whose name ends in none of ``suffixes``."""
    if path.suffix not in suffixes or path.is_dir():
        raise ConfigurationError(
            f"out={str(path)!r}: expected a file whose name ends in {' or '.join(suffixes)}"
        )


def write_figure(path: Path, figure: "Figure", dpi: int) -> None:
    """Write a figure as a PNG file, atomically."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)


class Outputs:
    """The files that a run writes, and the record that says which they are.

    An output is never an input, whatever their paths look like. Files of an earlier run are
    replaced only if asked, and only those that its record lists and that are as it left them:
    a file that chartae did not write, or that was changed since, is never touched. The record also
    holds the options of the run, in the form that ``--config`` reads.

    Args:
        command: the subcommand.
        record: the file of the record.
        given: all arguments of the subcommand by name, groups of options among them. ``overwrite``
            says whether the files of an earlier run are replaced, ``resume`` whether the run
            continues an earlier one, whose files may be there.
        inputs: files and folders that the run reads, None for those that were not given.

    Attributes:
        options: those in effect, as one flat mapping of JSON values.
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
        self.earlier = self._read_record()
        self.strange: dict[Path, str] = {}

    def claim(self, *paths: Path, resumable: Iterable[Path] = ()) -> None:
        """Refuse what the run may not write or remove, the record among it, before any work.

        Args:
            paths: files, or folders with all that is in them.
            resumable: more of them, that may hold the unfinished work of a run that is resumed,
                which no record lists; what resumes it checks that it is.

        Raises:
            ConfigurationError: for an output that is an input, holds one or lies in one; for an
                input that the earlier run wrote, where that is to be replaced; for an output that
                exists and is not to be replaced, or is not chartae's to replace; for a place that
                cannot be written to.
        """
        resumable = list(resumable)
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
                # No record lists what a run leaves when it is killed.
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
            check_writable("the folder of out", path.parent)

    def _check_no_input(self, path: Path, what: str) -> None:
        for source in self.inputs:
            if _overlap(path, source):
                raise ConfigurationError(
                    f"out: {str(path)!r} {what} the input {str(source)!r}: expected another place"
                )

    def _earlier_files(self) -> list[Path]:
        """Return the files that the record lists and that are as they were left."""
        files = [self.record.parent / name for name in self.earlier or {}]
        return [file for file in files if file.exists() and self._is_ours(file)]

    def _also_removed(self) -> str:
        """Name what replacing the earlier run would remove beside what is written anew."""
        others = [
            str(file)
            for file in self._earlier_files()
            if not any(file == path or path in file.parents for path in self.claimed)
        ]
        shown = [*others[:3], *(["..."] if len(others) > 3 else [])]
        return f", which removes {', '.join(shown)} too" if others else ""

    def _clear(self) -> None:
        """Remove what the earlier run wrote, as far as it is as it was left."""
        for file in self._earlier_files():
            self.remove(file)
        self.record.unlink(missing_ok=True)

    def remove(self, path: Path) -> None:
        """Remove a file, or the files in a folder, of the earlier run, and folders left empty."""
        for file in _files(path):
            if not self._is_ours(file):
                continue
            file.unlink()
            for folder in file.parents:  # never that of the record itself
                if folder == self.record.parent or any(folder.iterdir()):
                    break
                folder.rmdir()

    @contextmanager
    def recording(self, **facts: Any) -> Iterator[None]:
        """Replace the earlier run, if asked; write the record after the block, also if it fails.

        Not if it fails before anything is written: what an earlier run did then still holds.

        Args:
            facts: what the record says besides the options in effect and the files of the run.
        """
        if self.overwrite:
            self._clear()
        try:
            yield
        except BaseException:
            if self._has_written():
                self._write_record(facts)
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
                if self.strange.get(file) != digest  # which the run has left alone
            },
        }
        write_text(self.record, json.dumps(content, indent=2))

    def _written_files(self) -> list[Path]:
        return [file for path in self.claimed for file in _files(path) if file != self.record]

    def _has_written(self) -> bool:
        """Whether claimed files are not as they were when they were claimed."""
        return any(
            not self._is_ours(file) and self.strange.get(file) != _digest(file)
            for file in self._written_files()
        )

    def _read_record(self) -> dict[str, str] | None:
        """Return the files of the earlier run, by their digests; None without a record of one."""
        try:
            content = json.loads(self.record.read_text(encoding="utf-8"))
            files = dict(content["files"]) if {"chartae", self.command} <= set(content) else None
        except (OSError, ValueError, TypeError, KeyError):
            return None
        if files is None:
            return None
        # A record speaks of files beside it and below, never of others.
        return {str(name): str(digest) for name, digest in files.items() if _is_below(name)}

    def _is_ours(self, file: Path) -> bool:
        if self.earlier is None:
            return False
        if file == self.record:
            return True
        return self.earlier.get(_relative(file, self.record.parent)) == _digest(file)


def _flat(given: Mapping[str, Any], inputs: Collection[Path]) -> dict[str, Any]:
    """Return arguments as options that make the same again, from wherever ``--config`` reads them.

    Without None, and what says how to run rather than what to make.
    """
    flat: dict[str, Any] = {}
    for name, value in given.items():
        flat |= asdict(value) if is_dataclass(value) else {name: value}  # type: ignore[arg-type]
    for name, value in flat.items():
        if isinstance(value, Path):
            flat[name] = str(value.resolve() if value in inputs else value)
    how = {"overwrite", "resume", "config"}
    return {name: value for name, value in without_none(flat).items() if name not in how}


def _files(path: Path) -> list[Path]:
    """Return a file, or all files below a folder."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if not file.is_dir())
    return [path] if path.exists() or path.is_symlink() else []


def _overlap(output: Path, source: Path) -> bool:
    """Whether two paths are one place, or one lies in the other."""
    one, other = output.resolve(), source.resolve()
    if one == other or other in one.parents or (one in other.parents and output.is_dir()):
        return True
    return output.exists() and source.exists() and output.samefile(source)


def _is_below(name: str) -> bool:
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def _relative(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix()


def _digest(file: Path) -> str:
    if not file.is_file():  # a link to nowhere
        return ""
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
