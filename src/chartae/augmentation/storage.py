"""The folder of an augmenter: its record, and one folder for each of its models."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import chartae
from chartae.atomic import check_writable, write_text
from chartae.errors import ChartaeError, CheckpointError, ConfigurationError
from chartae.naming import folder_name
from chartae.persistence import CONFIG_FILE, WEIGHTS_FILE
from chartae.training import CHECKPOINT_FILE, HISTORY_FILE

__all__ = ["RECORD_FILE", "claimed", "emptied", "json_or_none", "read_record", "write_record"]

RECORD_FILE = "augmenter.json"
"""File that lists the classes of an augmenter; each has a folder beside it."""

# Files in the folder of a class, written by `save` or by a training.
_FILES = {CONFIG_FILE, WEIGHTS_FILE, HISTORY_FILE, CHECKPOINT_FILE}


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record of the augmenter in a folder.

    Raises:
        CheckpointError: if there is none, or it is damaged.
    """
    path = folder / RECORD_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or not {"chartae", "names"} <= record.keys():
            raise ValueError("it is not a record of an augmenter")
        if not all(isinstance(name, str) for name in record["names"]):
            raise ValueError("its names are not strings")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    return record


def write_record(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the record of an augmenter; ``content`` has the ``names`` of its models."""
    record = {"chartae": chartae.__version__, **content}
    write_text(folder / RECORD_FILE, json.dumps(record, indent=1))


@contextmanager
def claimed(output_dir: str | Path, names: Iterable[str]) -> Iterator[None]:
    """Write a record with the names of models before they are trained in ``output_dir``.

    A new record is removed if the block raises an error before it writes other files.

    Raises:
        ConfigurationError: if the folder has models of other names.
    """
    folder, names = check_writable("output_dir", output_dir), list(names)
    record = folder / RECORD_FILE
    new = not record.exists()
    if not new and set(known := read_record(folder)["names"]) - set(names):
        raise ConfigurationError(
            f"output_dir={str(folder)!r} has models of the classes {', '.join(known)}: "
            f"expected the same as now, {', '.join(names)}, or another folder"
        )
    write_record(folder, {"names": names})
    try:
        yield
    except ChartaeError:
        files = (entry for entry in folder.rglob("*") if not entry.is_dir())
        if new and set(files) == {record}:  # e.g. a wrong option of `fit`
            record.unlink()
        raise


def emptied(folder: str | Path) -> Path:
    """Return a folder without the augmenter that was saved there before.

    Raises:
        ConfigurationError: if it has other files or is not writable; then nothing is removed.
        CheckpointError: if the record of that augmenter is damaged.
    """
    folder = check_writable("folder", folder)
    record = folder / RECORD_FILE
    names = read_record(folder)["names"] if record.exists() else []
    places = {place for name in names if (place := folder / folder_name(name)).is_dir()}
    files = [entry for place in places for entry in place.iterdir()]
    others = {entry for entry in files if entry.name not in _FILES}
    if strange := others | (set(folder.iterdir()) - {record, *places}):
        raise ConfigurationError(
            f"folder={str(folder)!r} has {min(strange).relative_to(folder)}, which no augmenter "
            "wrote: expected a new folder"
        )
    for entry in files:
        entry.unlink()
    for place in places:
        place.rmdir()
    record.unlink(missing_ok=True)
    return folder


def json_or_none(value: Any) -> Any:
    """Return an argument as JSON values; None for functions and modules, which are not saved."""
    try:
        return json.loads(json.dumps(str(value) if isinstance(value, Path) else value))
    except TypeError:
        return None
