"""Hooks into `fit`: subclass `Callback` and override what you need."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chartae.models import Trainable
    from chartae.training.history import History

__all__ = ["Callback"]


class Callback:
    """Hooks that `fit` calls before and after epochs; each does nothing unless overridden.

    >>> class StopBelow(Callback):
    ...     def on_epoch_end(self, model, history):
    ...         return history.train["loss"][-1] < 10.0
    """

    def on_fit_start(self, model: "Trainable", history: "History") -> None:
        """Called once, before the first epoch."""

    def on_epoch_end(self, model: "Trainable", history: "History") -> bool | None:
        """Called after every epoch; ``history`` includes it. Returning True ends training."""
        return None

    def on_fit_end(self, model: "Trainable", history: "History") -> None:
        """Called once, when the model has its final weights."""
