"""The progress bar of a training: loss terms and the time left, on standard error."""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["TrainingProgress"]


class TrainingProgress:
    """A bar over steps with the terms of the latest epoch, updated ten times a second at most.

    Args:
        description: what stands before the bar.
        total: number of steps.
        done: those done before.
        enabled: False shows nothing, nor does a standard error that is not a terminal.
    """

    interval = 0.1

    def __init__(self, description: str, total: int, done: int, *, enabled: bool) -> None:
        self.description, self.total, self.done = description, total, done
        self.bar = _make_bar() if enabled else None
        self.next_update = 0.0

    def __enter__(self) -> "TrainingProgress":
        if self.bar is not None:
            self.bar.start()
            self.task = self.bar.add_task(
                self.description, total=self.total, completed=self.done, terms=""
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def update(self, done: int, terms: Mapping[str, Sequence[float]]) -> None:
        """Show ``done`` steps and the last of each term, unless the last update was just now."""
        if self.bar is None or (now := time.monotonic()) < self.next_update:
            return
        self.next_update = now + self.interval
        text = "  ".join(f"{name} {values[-1]:.4g}" for name, values in terms.items())
        self.bar.update(self.task, completed=done, terms=text)


def _make_bar() -> "Progress | None":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        return None
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[terms]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
