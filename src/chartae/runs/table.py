"""Rows, and the table of all rows of a folder."""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chartae.atomic import atomic_path, write_text
from chartae.errors import ConfigurationError
from chartae.runs.settings import Settings, run_key

__all__ = ["Outcome", "Row", "RunTable", "finite", "write_table"]


@dataclass(frozen=True)
class Outcome:
    """What a run gives.

    Args:
        figures: JSON values by name; numbers that are not finite are kept as None.
        files: the content of files that belong to the row, by name.
    """

    figures: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A finished run.

    Attributes:
        settings: what determines it.
        figures: what it gave; empty if it failed.
        error: why it failed; empty if it did not.
        attempts: how often the function was called; 2 after a divergence.
        seconds: wall-clock time of all attempts.
        cpu_seconds: processor time of all attempts.
        memory: largest memory of the process until its end, in bytes.
        host: name of the machine.
        files: names of its files.
    """

    settings: Settings
    figures: Mapping[str, Any]
    error: str = ""
    attempts: int = 1
    seconds: float = math.nan
    cpu_seconds: float = math.nan
    memory: int = 0
    host: str = ""
    files: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The hash of its settings."""
        return run_key(self.settings)

    @property
    def failed(self) -> bool:
        """Whether it ended with an error."""
        return bool(self.error)

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        values = asdict(self) | {"settings": dict(self.settings), "files": list(self.files)}
        return {name: finite(value) for name, value in values.items()}


def finite(value: Any) -> Any:
    """Return a JSON value with None in place of numbers that are not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(part) for part in value]
    return value


@dataclass(frozen=True)
class RunTable(Sequence[Row]):
    """The rows of a table of runs, in the order of their settings.

    Attributes:
        rows: those that are finished, failed ones too.
        folder: the folder that keeps them.
        left_out: settings that were not run, each with the reason.
    """

    rows: tuple[Row, ...]
    folder: Path
    left_out: tuple[tuple[Settings, str], ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    @property
    def failed(self) -> tuple[Row, ...]:
        """The rows that ended with an error."""
        return tuple(row for row in self.rows if row.failed)

    @property
    def done(self) -> tuple[Row, ...]:
        """The rows with figures."""
        return tuple(row for row in self.rows if not row.failed)

    def file(self, row: Row, name: str) -> Path:
        """Return the path of a file of a row."""
        return self.folder / "files" / row.key / name


def write_table(records: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Write mappings as the rows of a .csv or .parquet file, atomically.

    A row has an empty cell where it lacks a name that another has, and for None.

    Raises:
        ConfigurationError: for another suffix, or for .parquet if pandas or pyarrow is missing.
    """
    path = Path(path)
    names = list(dict.fromkeys(name for record in records for name in record))
    if path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(dict(record) for record in records)
        write_text(path, text.getvalue())
    elif path.suffix == ".parquet":
        try:
            import pandas as pd

            with atomic_path(path) as temporary:
                pd.DataFrame.from_records(list(records), columns=names).to_parquet(temporary)
        except ImportError as error:
            raise ConfigurationError(
                f"path={str(path)!r}: .parquet files need pandas and pyarrow; "
                "install chartae[parquet], or write a .csv file"
            ) from error
    else:
        raise ConfigurationError(f"path={str(path)!r}: expected a .csv or .parquet file")
