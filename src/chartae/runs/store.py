"""The folder of a table of runs: rows, their files, and claims of runs in flight."""

import json
import logging
import os
import secrets
import shutil
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

from chartae.atomic import atomic_path, check_writable, write_text
from chartae.errors import ConfigurationError
from chartae.runs.settings import Settings, canonical, run_key
from chartae.runs.table import Row

__all__ = ["Store"]

logger = logging.getLogger(__name__)

CONTEXT, ROWS, FILES, CLAIMS = "context.json", "rows", "files", "claims"
HEARTBEAT = 5.0
"""Seconds between two signs of life of a coordinator."""
SILENCE = 60.0
"""Seconds without a sign of life after which a claim is void."""


class Store:
    """The rows of a folder, and claims, by which several coordinators share the work.

    Only coordinators write here, each row by one rename, so that a row is complete or absent. A
    coordinator claims a run before it starts it, and touches its claims while it lives.

    Args:
        folder: the folder; it is created.
        context: what all rows have in common, such as a hash of the data and the version, as JSON
            values.

    Raises:
        ConfigurationError: if the folder cannot be written, or has rows of another context.
    """

    def __init__(self, folder: str | Path, context: Settings) -> None:
        self.folder = check_writable("folder", folder)
        for name in (ROWS, FILES, CLAIMS):
            (self.folder / name).mkdir(exist_ok=True)
        self._check_context(context)
        self.claims: dict[str, str] = {}
        self._stop = threading.Event()
        self._pulse = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        self._pulse.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._pulse.join()
        for key in list(self.claims):
            self.release(key)

    def _check_context(self, context: Settings) -> None:
        path, text = self.folder / CONTEXT, canonical(context)
        if not path.exists():
            write_text(path, text)
        try:
            earlier = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigurationError(f"{path} is damaged: expected JSON") from error
        now = json.loads(text)
        if earlier != now:
            name = next(n for n in {**earlier, **now} if earlier.get(n) != now.get(n))
            raise ConfigurationError(
                f"folder={str(self.folder)!r} has rows with {name} = {earlier.get(name)!r}, and "
                f"this run has {now.get(name)!r}: expected another folder"
            )

    # --- rows -------------------------------------------------------------------------------------

    def read(self, settings: Settings) -> Row | None:
        """Return a row, or None if there is none; a damaged one counts as none."""
        path = self.folder / ROWS / f"{run_key(settings)}.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            names = {field.name for field in fields(Row)}
            if set(record) != names or canonical(record["settings"]) != canonical(settings):
                raise ValueError("it has other settings")
            files = self.folder / FILES / run_key(settings)
            if missing := [name for name in record["files"] if not (files / name).is_file()]:
                raise ValueError(f"its files are missing: {', '.join(missing)}")
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            logger.warning("%s is damaged (%s) and will be computed again", path, error)
            return None
        return Row(**(record | {"settings": settings, "files": tuple(record["files"])}))

    def write(self, row: Row, files: Mapping[str, bytes]) -> None:
        """Write the files of a row, and then the row."""
        for name, content in files.items():
            with atomic_path(self.folder / FILES / row.key / name) as temporary:
                temporary.write_bytes(content)
        text = json.dumps(row.to_json(), indent=1, allow_nan=False)
        write_text(self.folder / ROWS / f"{row.key}.json", text)

    def remove(self, settings: Settings) -> None:
        """Remove a row with its files, if there is one."""
        key = run_key(settings)
        (self.folder / ROWS / f"{key}.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder / FILES / key, ignore_errors=True)

    # --- claims -----------------------------------------------------------------------------------

    def claim(self, key: str) -> bool:
        """Claim a run; False if another coordinator that is alive has it."""
        path = self._claim(key)
        mine = {"host": socket.gethostname(), "pid": os.getpid(), "token": secrets.token_hex(8)}
        text = json.dumps(mine)
        for _ in range(2):
            before = _content(path)  # read before it is judged: a later owner has another token
            try:
                with path.open("x", encoding="utf-8") as file:
                    file.write(text)
            except FileExistsError:
                if not self._is_void(path) or not self._take_away(path, before):
                    return False
            else:
                self.claims[key] = text
                return True
        return False

    def release(self, key: str) -> None:
        """Give up a claim of this coordinator."""
        text = self.claims.pop(key, None)
        path = self._claim(key)
        if text is not None and _content(path) == text:
            path.unlink(missing_ok=True)

    def _claim(self, key: str) -> Path:
        return self.folder / CLAIMS / f"{key}.json"

    def _is_void(self, path: Path) -> bool:
        """Whether the owner of a claim has died, or has been silent for long."""
        try:
            age = self._now() - path.stat().st_mtime
            owner = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return True
        except ValueError:  # just being written, unless it is old
            return age > SILENCE
        if owner.get("host") == socket.gethostname() and not _is_alive(owner.get("pid")):
            return True
        return age > SILENCE

    def _take_away(self, path: Path, before: str | None) -> bool:
        """Remove a void claim; False if another coordinator was faster."""
        taken = path.with_suffix(f".{secrets.token_hex(4)}")
        try:
            path.rename(taken)
        except FileNotFoundError:
            return True
        ours = _content(taken) == before
        if not ours:  # it was replaced by a living one in the meantime: give it back
            taken.rename(path)
        else:
            taken.unlink()
        return ours

    def _now(self) -> float:
        """Return the time of the file system, which may be another machine's."""
        with _temporary(self.folder / CLAIMS) as path:
            return path.stat().st_mtime

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            for key in list(self.claims):
                try:
                    os.utime(self._claim(key))
                except OSError:  # it is gone, or a network folder fails for a moment
                    continue


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    path = folder / f".{secrets.token_hex(8)}"
    path.touch()
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _content(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _is_alive(pid: Any) -> bool:
    if os.name == "nt":  # where the signal 0 ends a process; silence decides there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, TypeError, OverflowError):
        return True
    return True
