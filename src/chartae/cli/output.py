"""What the subcommands write beside their results, and say about them."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chartae.cli.options import given

__all__ = ["check_output", "effective", "say", "write_config"]


def say(*lines: str) -> None:
    """Write lines to standard output, as they are."""
    from rich.console import Console

    console = Console(soft_wrap=True, markup=False, highlight=False)
    for line in lines:
        console.print(line)


def check_output(path: Path, *suffixes: str) -> None:
    """Refuse an output file that cannot be written, before any work.

    Raises:
        ConfigurationError: for another suffix, a folder, or a place that cannot be written to.
    """
    from chartae.atomic import check_writable
    from chartae.errors import ConfigurationError

    if path.suffix not in suffixes or path.is_dir():
        raise ConfigurationError(
            f"out={str(path)!r}: expected a file whose name ends in {' or '.join(suffixes)}"
        )
    check_writable("the folder of out", path.parent)


def effective(*groups: Any, **options: Any) -> dict[str, Any]:
    """Return options and groups of options as one flat mapping of JSON values, without None."""
    flat = {name: str(v) if isinstance(v, Path) else v for name, v in options.items()}
    for group in groups:
        flat |= asdict(group)
    return given(flat)


def write_config(path: Path, command: str, options: Mapping[str, Any]) -> None:
    """Write the options in effect as JSON that ``--config`` reads."""
    from chartae import __version__
    from chartae.atomic import write_text

    write_text(path, json.dumps({"chartae": __version__, command: dict(options)}, indent=2))
