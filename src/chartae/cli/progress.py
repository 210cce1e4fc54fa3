"""The bar of a command that runs a table of runs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["showing"]


@contextmanager
def showing(what: str) -> Iterator[Callable[..., None]]:
    """Show on standard error how many tasks are finished, if that is a terminal.

    Yields:
        A function of the number of finished tasks and of all tasks; of the seconds until the end if
        they are known; and of a text that stands behind the time.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=None, left="")
        started = time.monotonic()

        def advance(done: int, total: int, seconds: float | None = None, note: str = "") -> None:
            if seconds is None:
                seconds = (time.monotonic() - started) / max(done, 1) * (total - done)
            left = f"{seconds / 60.0:.0f} min left{note}"
            bar.update(task, completed=done, total=total, left=left)

        yield advance
