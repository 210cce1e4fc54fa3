"""The progress bar of a training: loss terms and the time left, on standard error."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["TrainingProgress"]


class TrainingProgress:
    """A bar over batches; silent when not ``enabled``, and never slower than 10 updates a second."""

    interval = 0.1

    def __init__(self, description: str, total: int, done: int, *, enabled: bool) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[terms]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not enabled,
            transient=True,
        )
        self.enabled = enabled
        self.task = self.progress.add_task(description, total=total, completed=done, terms="")
        self.next_update = 0.0

    def __enter__(self) -> "TrainingProgress":
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def update(self, done: int, terms: dict[str, float]) -> None:
        """Show ``done`` epochs and the latest terms, unless the last update was just now."""
        if not self.enabled or (now := time.monotonic()) < self.next_update:
            return
        self.next_update = now + self.interval
        text = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())
        self.progress.update(self.task, completed=done, terms=text)
