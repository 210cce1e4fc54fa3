"""Files that are either complete or absent, whatever interrupts their writing."""

import glob
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chartae.errors import ConfigurationError

__all__ = ["atomic_path", "check_writable", "remove_leftovers", "write_text"]


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; move it there once the block has ended well.

    The file is flushed to the disk first, so that a crash leaves the old file or the new one.

    Raises:
        OSError: as the block or the file system does (a full disk); ``path`` is then untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: str | Path) -> None:
    """Remove what processes killed while writing ``path`` have left beside it."""
    path = Path(path)
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.????????{path.suffix}"):
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8, atomically.

    What is no text, as a file name in another encoding may be, is written as an escape.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def check_writable(name: str, folder: str | Path) -> Path:
    """Make ``folder`` if needed and return it, before any work that would write there.

    Raises:
        ConfigurationError: if it cannot be made, is a file, or cannot be written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ConfigurationError(
            f"{name}={str(folder)!r} cannot be written to ({error.strerror}): "
            "expected a folder that can be"
        ) from error
