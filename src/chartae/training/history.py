"""What happened during a training, epoch by epoch."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from chartae.atomic import write_text
from chartae.errors import DataError
from chartae.persistence import writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["History"]

Stopped = Literal["running", "finished", "patience", "callback", "interrupted", "diverged"]


@dataclass
class History:
    """The record of a training.

    Attributes:
        train: for each term, its mean over every epoch; ``"loss"`` is what training minimises.
        validation: the same on the validation set; empty without one.
        learning_rate: during every epoch.
        seconds: duration of every epoch.
        best_epoch: the epoch, from 0, whose weights the model has; None if no epoch was completed.
        stopped: why training ended: all epochs are ``"finished"``, ``"patience"`` ran out, a
            ``"callback"`` wanted it, Ctrl-C ``"interrupted"`` it, or it ``"diverged"``.
    """

    train: dict[str, list[float]] = field(default_factory=dict)
    validation: dict[str, list[float]] = field(default_factory=dict)
    learning_rate: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    best_epoch: int | None = None
    stopped: Stopped = "running"

    @property
    def num_epochs(self) -> int:
        """Number of epochs done."""
        return len(self.seconds)

    def add(
        self,
        train: dict[str, float],
        validation: dict[str, float],
        *,
        learning_rate: float,
        seconds: float,
    ) -> None:
        """Record one more epoch."""
        for record, terms in ((self.train, train), (self.validation, validation)):
            for name, value in terms.items():
                record.setdefault(name, []).append(value)
        self.learning_rate.append(learning_rate)
        self.seconds.append(seconds)

    def save(self, path: str | Path) -> None:
        """Write the record to ``path`` as JSON, atomically.

        Raises:
            CheckpointError: if writing fails.
        """
        with writing(Path(path)):
            write_text(path, json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: str | Path) -> "History":
        """Read a record that `save` wrote.

        Raises:
            DataError: if the file is missing or is not such a record.
        """
        try:
            return cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, TypeError, ValueError) as error:
            raise DataError(f"path={str(path)!r} is not a saved History: {error}") from error

    def plot(self) -> "Figure":
        """Return a figure of every term over the epochs, one panel each."""
        from matplotlib.figure import Figure

        terms = list(self.train)
        figure = Figure(figsize=(3.2 * max(1, len(terms)), 2.6), layout="constrained")
        for index, term in enumerate(terms):
            axes = figure.add_subplot(1, len(terms), index + 1)
            axes.plot(self.train[term], label="train", linewidth=1)
            if term in self.validation:
                axes.plot(self.validation[term], label="validation", linewidth=1)
            if self.best_epoch is not None:
                axes.axvline(self.best_epoch, color="0.7", linewidth=0.8, label="kept")
            axes.set(title=term, xlabel="epoch")
        if terms:
            axes.legend(frameon=False)
        return figure
