"""What happened during a training, epoch by epoch."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from chartae.atomic import write_text
from chartae.errors import DataError
from chartae.persistence import check_ours, writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["History"]

Stopped = Literal["running", "finished", "patience", "callback", "interrupted", "diverged"]


@dataclass(repr=False)
class History:
    """The record of a training.

    Places in lists count from 0. Epochs in messages and figures count from 1.

    Attributes:
        train: for each term, its mean over every epoch; ``"loss"`` is what training minimises.
        validation: the same on the validation set; empty without one.
        learning_rate: during every epoch.
        seconds: duration of every epoch.
        best_epoch: place in these lists of the epoch whose weights the model has; None if no epoch
            was completed.
        stopped: why training ended: all epochs are ``"finished"``, ``"patience"`` ran out, a
            ``"callback"`` wanted it, Ctrl-C ``"interrupted"`` it, or it ``"diverged"``.

    >>> History(
    ...     {"loss": [3.0, 2.0, 2.5]}, {}, [0.1] * 3, [1.5] * 3, best_epoch=1, stopped="patience"
    ... )
    History(3 epochs, best 2 with loss 2, stopped: patience)
    """

    train: dict[str, list[float]] = field(default_factory=dict)
    validation: dict[str, list[float]] = field(default_factory=dict)
    learning_rate: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    best_epoch: int | None = None
    stopped: Stopped = "running"

    def __repr__(self) -> str:
        text = f"{self.num_epochs} epoch{'' if self.num_epochs == 1 else 's'}"
        losses = (self.validation or self.train).get("loss", [])
        if self.best_epoch is not None and self.best_epoch < len(losses):
            text += f", best {self.best_epoch + 1} with loss {losses[self.best_epoch]:.4g}"
        return f"History({text}, stopped: {self.stopped})"

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
            ConfigurationError: if a file is there that is no record of a training.
            CheckpointError: if writing fails.
        """
        check_ours("path", Path(path), History.load)
        with writing(Path(path)):
            write_text(path, json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: str | Path) -> "History":
        """Read a record that `save` wrote.

        Raises:
            DataError: if the file is missing or is not such a record.
        """
        try:
            record = json.loads(Path(path).read_text(encoding="utf-8"))
            if set(record) != {attribute.name for attribute in fields(cls)}:
                raise ValueError(f"it holds {', '.join(map(str, record)) or 'nothing'}")
            return cls(**record)
        except (OSError, TypeError, ValueError) as error:
            raise DataError(f"path={str(path)!r} is not a saved History: {error}") from error

    def plot(self) -> "Figure":
        """Return a figure of every term over the epochs, one panel each."""
        from matplotlib.figure import Figure

        terms = list(self.train)
        figure = Figure(figsize=(3.2 * max(1, len(terms)), 2.6), layout="constrained")
        for index, term in enumerate(terms):
            axes = figure.add_subplot(1, len(terms), index + 1)
            epochs = range(1, self.num_epochs + 1)
            axes.plot(epochs, self.train[term], label="train", linewidth=1)
            if term in self.validation:
                axes.plot(epochs, self.validation[term], label="validation", linewidth=1)
            if self.best_epoch is not None:
                axes.axvline(self.best_epoch + 1, color="0.7", linewidth=0.8, label="kept")
            axes.set(title=term, xlabel="epoch")
        if terms:
            axes.legend(frameon=False)
        return figure
