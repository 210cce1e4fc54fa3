"""The record of a training, epoch by epoch."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

from chartae.atomic import write_text
from chartae.checks import check_choice, check_integer
from chartae.errors import DataError
from chartae.persistence import check_ours, writing

__all__ = ["History"]

Stopped = Literal["running", "finished", "patience", "callback", "interrupted", "diverged"]


@dataclass(repr=False)
class History:
    """The record of a training.

    Indices of lists count from 0. Epochs in messages and figures count from 1.

    Attributes:
        train: for each term, its mean over every epoch; ``"loss"`` is what training minimises.
        validation: the same on the validation set; empty without one.
        learning_rate: the learning rate in every epoch.
        seconds: duration of every epoch.
        best_epoch: index in these lists of the epoch whose weights the model has; None if no epoch
            was completed.
        stopped: why training ended: ``"finished"`` (all epochs are done), ``"patience"`` (no
            improvement for ``patience`` epochs), ``"callback"`` (a callback returned True),
            ``"interrupted"`` (Ctrl-C) or ``"diverged"`` (a loss was not finite).
        latents: how latents were used in every epoch: ``"active_units"`` of a Gaussian posterior
            (`VariationalAutoencoder`), ``"code_usage"`` and ``"perplexity"`` of a codebook
            (`VQVAE`); empty for other models. NaN in epochs for which it is unknown.

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
    latents: dict[str, list[float]] = field(default_factory=dict)

    def __repr__(self) -> str:
        text = f"{self.num_epochs} epoch{'' if self.num_epochs == 1 else 's'}"
        losses = (self.validation or self.train).get("loss", [])
        if self.best_epoch is not None and self.best_epoch < len(losses):
            text += f", best {self.best_epoch + 1} with loss {losses[self.best_epoch]:.4g}"
        return f"History({text}, stopped: {self.stopped})"

    @property
    def num_epochs(self) -> int:
        """Number of completed epochs."""
        return len(self.seconds)

    def add(
        self,
        train: dict[str, float],
        validation: dict[str, float],
        *,
        learning_rate: float,
        seconds: float,
        latents: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Record one more epoch."""
        for record, terms in ((self.train, train), (self.validation, validation)):
            for name, value in terms.items():
                record.setdefault(name, []).append(value)
        for name in {**self.latents, **latents}:
            curve = self.latents.setdefault(name, [math.nan] * self.num_epochs)
            curve.append(latents.get(name, math.nan))
        self.learning_rate.append(learning_rate)
        self.seconds.append(seconds)

    def save(self, path: str | Path) -> None:
        """Write the record to ``path`` as JSON, atomically.

        Raises:
            ConfigurationError: if ``path`` exists and is not the record of a training.
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
            return cls.of(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"path={str(path)!r} is not a saved History: {error}") from error

    @classmethod
    def of(cls, record: object) -> "History":
        """Return the history from a mapping of its attributes by name.

        Raises:
            DataError: if the mapping is not a history.
        """
        if not isinstance(record, Mapping):
            raise DataError(f"it is {type(record).__name__}: expected a mapping")
        # Records of earlier versions have no latents.
        record = {"latents": {}, **record}
        if set(record) != {attribute.name for attribute in fields(cls)}:
            raise DataError(f"it holds {', '.join(map(str, record)) or 'nothing'}")
        curves = {name: record[name] for name in ("seconds", "learning_rate")}
        for name in ("train", "validation", "latents"):
            if not isinstance(record[name], Mapping):
                raise DataError(f"{name} is {type(record[name]).__name__}: expected a mapping")
            curves |= {f"{name}[{term!r}]": values for term, values in record[name].items()}
        for name, values in curves.items():
            if not isinstance(values, list) or not all(map(_is_number, values)):
                raise DataError(f"{name} holds something else: expected a list of numbers")
            if len(values) != len(curves["seconds"]):
                raise DataError(f"{name} and seconds are of different lengths: expected one length")
        history = cls(**record)
        if history.best_epoch is not None:
            check_integer(
                "best_epoch", history.best_epoch, minimum=0, maximum=history.num_epochs - 1
            )
        check_choice("stopped", history.stopped, get_args(Stopped))
        return history


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
