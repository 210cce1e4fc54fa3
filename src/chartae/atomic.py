"""Atomic writing: after an interruption, a file is either complete or absent."""

import glob
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chartae.errors import ConfigurationError

__all__ = ["atomic_content", "atomic_path", "check_writable", "remove_leftovers", "write_text"]


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; rename it to ``path`` after the block.

    The file is flushed to the disk first, so that a crash leaves either the old or the new file. If
    the block raises an error, ``path`` does not change.

    Raises:
        OSError: from the block or the file system (for example a full disk).
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


@contextmanager
def atomic_content(folder: str | Path) -> Iterator[Path]:
    """Yield a temporary folder inside ``folder``; after the block, move its content to ``folder``.

    If the block raises an error, nothing of it remains. ``folder`` is created if needed.

    Raises:
        ConfigurationError: before the block, if ``folder`` is not writable.
        OSError: from the block or the file system (for example a full disk).
    """
    folder = Path(folder)
    created = not folder.exists()
    # Inside, because the folder may be the root of another file system.
    temporary = check_writable("folder", folder) / f".{secrets.token_hex(4)}"
    temporary.mkdir()
    done = False
    try:
        yield temporary
        for entry in sorted(temporary.iterdir()):
            entry.rename(folder / entry.name)
        done = True
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if created and not done:
            folder.rmdir()


def remove_leftovers(path: str | Path) -> None:
    """Remove temporary files of ``path`` that killed processes have left in its folder."""
    path = Path(path)
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.????????{path.suffix}"):
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8, atomically.

    Characters that UTF-8 cannot encode, for example from a file name in another encoding, are
    written as escapes.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def check_writable(name: str, folder: str | Path) -> Path:
    """Create ``folder`` if needed, check that it is writable, and return it.

    Raises:
        ConfigurationError: if it cannot be created, is a file, or is not writable.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ConfigurationError(
            f"{name}={str(folder)!r} cannot be written to ({error.strerror}): "
            "expected a writable folder"
        ) from error
