"""`Trainable`: the interface that `chartae.fit` needs, a loss on batches of named tensors."""

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from chartae.models.configured import Configured
from chartae.models.losses import Losses

__all__ = ["Batch", "Trainable"]

STARRED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

Batch = Mapping[str, Tensor]
"""Tensors of one batch, by name; the first dimension of each is the sample."""


class Trainable(Configured):
    """Base of what `chartae.fit` trains.

    A subclass defines `loss` and `check_batch`. The names of the arguments of `loss` say which
    tensors of a data set it uses. The other methods and attributes have defaults.

    Attributes:
        epoch: the number of the current epoch, infinite outside of training; for objectives that
            change during training.
        warmup: how many epochs the objective takes to reach its final form. None of these epochs
            can be the best epoch.
    """

    adversaries: tuple[str, ...] = ()
    """Names of the submodules that have an objective of their own, under the same name, in
    `loss`."""
    monitored: str = "loss"
    """The term that chooses the best epoch, by its lowest value; ``"loss"`` is the model's
    objective."""
    warmup: int = 0
    watched: ClassVar[str] = ""
    """Name of the submodule whose output `tally` receives at each training step."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch = math.inf

    def loss(self, *args: Any, **batch: Any) -> Losses:
        """Return what training minimises on a batch: scalars, averaged over the batch.

        A subclass names the tensors that it uses, as in ``loss(self, x, *, weight=None)``. Every
        data set must have the arguments without a default.
        """
        raise NotImplementedError

    def check_batch(self, name: str, batch: Batch) -> None:
        """Raise `DataError` unless tensors can be given to `loss`.

        Args:
            name: the name of the data in messages.
            batch: a batch or a whole data set; only tensors that `loss` uses.
        """
        raise NotImplementedError

    def batch_names(self) -> dict[str, bool]:
        """Return the names of the tensors that `loss` uses, and whether each is required."""
        parameters = inspect.signature(self.loss).parameters.values()
        return {p.name: p.default is p.empty for p in parameters if p.kind not in STARRED}

    def optimization_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters that each objective of `loss` trains, by the objective's name."""
        groups = {name: list(getattr(self, name).parameters()) for name in self.adversaries}
        theirs = {id(parameter) for group in groups.values() for parameter in group}
        return {"model": [p for p in self.parameters() if id(p) not in theirs], **groups}

    def set_units(self, batches: Iterable[Batch]) -> None:
        """Compute the units of the training set, before the first step.

        Args:
            batches: the training set, in parts.
        """

    def on_fit_start(self, size: int) -> None:
        """Discard what `on_fit_end` computed; called before the first epoch.

        Args:
            size: number of samples of the training set.
        """

    def on_fit_end(self, batches: Iterable[Batch]) -> None:
        """Compute what depends on the whole training set; called with the final weights.

        Args:
            batches: the training set in its own order, in parts.
        """

    def share_updates(self, shared: bool) -> None:
        """Set whether state that `loss` updates follows the batches of all processes.

        Parameters do so anyway. Other running statistics are those of the first process.

        Args:
            shared: whether several processes train this model, each with a part of every batch.
        """

    def largest_input(self, batch: Batch) -> float:
        """Return the largest absolute value in the networks' input for a batch."""
        floats = [value for value in batch.values() if value.is_floating_point()]
        return max((float(value.abs().max()) for value in floats), default=0.0)

    @property
    def tally_size(self) -> int:
        """How many numbers `tally` returns; 0 if the use of latents is not monitored."""
        return 0

    def tally(self, output: Any) -> Tensor:
        """Return numbers ``(tally_size,)`` from the ``watched`` output, averaged over a batch."""
        raise NotImplementedError

    def latent_use(self, tally: Sequence[float]) -> dict[str, float]:
        """Return how latents are used, by name, from the average `tally` of an epoch."""
        raise NotImplementedError

    def unused_latents(self, use: Mapping[str, float]) -> str | None:
        """Return a warning about unused latents, from their `latent_use`, or None."""
        raise NotImplementedError

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters, float32 or float64."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device
