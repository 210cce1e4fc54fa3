"""The state of a training and the arguments that fix its course: the contents of a checkpoint."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from chartae.checks import (
    check_floating,
    check_integer,
    check_integers,
    check_number,
    check_shape,
)
from chartae.errors import CheckpointError
from chartae.models import Trainable
from chartae.persistence import describe
from chartae.training.batches import Batches

__all__ = ["Plan", "Position", "Snapshots", "check_alike", "rng_state", "set_rng_state"]


@dataclass
class Plan:
    """Everything that fixes the course of a training; resuming requires the same plan."""

    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: str
    scheduler: str | None
    patience: int | None
    kl_warmup: int
    clip_grad_norm: float | None
    precision: str | None
    devices: int
    seed: int
    model: str = ""
    train: str = ""
    validation: str = ""

    def describe(self, model: Trainable, train: Batches, validation: Batches | None) -> None:
        """Record which model and data are trained.

        Raises:
            ConfigurationError: if the model cannot be saved.
        """
        description = describe(model)
        self.model = json.dumps([description["class"], description["arguments"]])
        self.train = train.describe()
        self.validation = "" if validation is None else validation.describe()

    def resume(self, state: Mapping[str, Any], *, keep_seed: bool) -> None:
        """Take the seed of a checkpoint, unless a seed was given, and compare all other fields.

        Another ``patience`` or more ``epochs`` continue the same training, unless the scheduler
        depends on the number of epochs.

        Raises:
            CheckpointError: if the checkpoint was made with other arguments; the message names
                them.
        """
        saved = state.get("plan")
        if not isinstance(saved, Mapping) or not isinstance(saved.get("seed"), int):
            raise CheckpointError("the checkpoint is damaged: it has no plan with a seed")
        if not keep_seed:
            self.seed = saved["seed"]
        free = {"patience"} if self.scheduler == "cosine" else {"patience", "epochs"}
        different = [
            f"{name}={value!r} (was {saved.get(name)!r})"
            for name, value in asdict(self).items()
            if name not in free and not _is_same(saved.get(name), value)
        ]
        if different:
            raise CheckpointError(
                f"the checkpoint was made with other arguments: {', '.join(different)}; expected "
                "the same, or another output_dir"
            )


@dataclass
class Position:
    """The progress of a training, within an epoch or between two epochs."""

    epoch: int = 0
    step: int = 0
    best: float = math.inf
    bad_epochs: int = 0
    seconds: float = 0.0
    terms: list[Tensor] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def check(self, *, epoch: int, num_batches: int, num_terms: int) -> None:
        """Raise an error of chartae's unless the values are consistent with the recorded training.

        Args:
            epoch: number of epochs that the training has recorded.
            num_batches: number of batches in an epoch.
            num_terms: number of terms of the loss, and of the tally of latents.
        """
        check_integer("epoch", self.epoch, minimum=epoch, maximum=epoch)
        check_integer("step", self.step, minimum=0, maximum=num_batches)
        check_integer("bad_epochs", self.bad_epochs, minimum=0)
        check_number("seconds", self.seconds, minimum=0.0)
        if self.best != math.inf:
            check_number("best", self.best)
        check_integers("sizes", self.sizes, minimum=1)
        if len(self.sizes) != self.step or len(self.terms) != self.step:
            raise CheckpointError(f"the terms are not those of {self.step} step(s)")
        for row in self.terms:
            check_floating("terms", row)
            check_shape("terms", row, (num_terms,))


class Snapshots:
    """The tensors of a model after its two latest best epochs.

    The loss of an epoch is known before its last update, which may give weights that are not
    finite. The weights of the older snapshot have given a finite loss after that update.
    """

    def __init__(self, model: nn.Module) -> None:
        state = model.state_dict()
        self.live = list(state.values())
        # Buffers may have values that are not finite.
        parameters = {name for name, _ in model.named_parameters()}
        self.numbers = [number for number, name in enumerate(state) if name in parameters]
        self.newer = [tensor.detach().clone() for tensor in self.live]
        self.older = [tensor.detach().clone() for tensor in self.live]
        self.epochs: list[int | None] = [None, None]

    @torch.no_grad()
    def take(self, epoch: int | None) -> None:
        """Copy the model's tensors after ``epoch``."""
        self.newer, self.older = self.older, self.newer
        self.epochs = [epoch, self.epochs[0]]
        torch._foreach_copy_(self.newer, self.live)

    def undo(self) -> None:
        """Discard the latest snapshot, because its weights give a loss that is not finite."""
        self.newer, self.older = self.older, self.newer
        self.epochs = [self.epochs[1], None]

    @torch.no_grad()
    def restore(self) -> int | None:
        """Restore the latest finite snapshot; return its epoch."""
        ruined = not all(bool(torch.isfinite(self.newer[k]).all()) for k in self.numbers)
        torch._foreach_copy_(self.live, self.older if ruined else self.newer)
        return self.epochs[1] if ruined else self.epochs[0]

    def state_dict(self) -> dict[str, Any]:
        """Return the argument of `load_state_dict`."""
        return {"newer": self.newer, "older": self.older, "epochs": self.epochs}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the snapshots of a checkpoint."""
        torch._foreach_copy_(self.newer, state["newer"])
        torch._foreach_copy_(self.older, state["older"])
        self.epochs = state["epochs"]


CHANGING = {
    *("lr", "last_epoch", "_step_count", "_last_lr", "best", "num_bad_epochs", "cooldown_counter"),
    *("_get_lr_called_within_step", "_is_initial", "scale", "_growth_tracker"),
}
"""What changes in the states of optimizers, schedulers and scalers, besides tensors."""


def check_alike(name: str, saved: Any, fresh: Any, *, changing: bool = False) -> None:
    """Raise `CheckpointError` unless a saved state can replace a fresh state.

    Tensors must have the same shapes and dtypes, mappings the same keys, and lists the same
    lengths. Other values must be equal, except numbers whose name is in `CHANGING`.
    """
    if isinstance(fresh, Tensor):
        if not isinstance(saved, Tensor):
            raise CheckpointError(f"{name} is {type(saved).__name__}: expected a tensor")
        if saved.dtype != fresh.dtype or saved.shape != fresh.shape:
            raise CheckpointError(
                f"{name} has shape {tuple(saved.shape)} and dtype {saved.dtype}: expected "
                f"{tuple(fresh.shape)} and {fresh.dtype}"
            )
    elif isinstance(fresh, Mapping):
        if not isinstance(saved, Mapping) or saved.keys() != fresh.keys():
            held = ", ".join(map(str, saved)) if isinstance(saved, Mapping) else saved
            raise CheckpointError(f"{name} holds {held}: expected {', '.join(map(str, fresh))}")
        for key, value in fresh.items():
            check_alike(f"{name}.{key}", saved[key], value, changing=changing or key in CHANGING)
    elif isinstance(fresh, (list, tuple)):
        if not isinstance(saved, list) or len(saved) != len(fresh):
            raise CheckpointError(f"{name} is {saved!r}: expected a list of {len(fresh)}")
        for place, (item, value) in enumerate(zip(saved, fresh, strict=True)):
            check_alike(f"{name}.{place}", item, value, changing=changing)
    elif changing and isinstance(fresh, float):
        if saved != math.inf:
            check_number(name, saved)
    elif changing and isinstance(fresh, int) and not isinstance(fresh, bool):
        check_integer(name, saved, minimum=0, maximum=2**53)
    elif not (isinstance(saved, bool) if changing else _is_same(saved, fresh)):
        raise CheckpointError(f"{name} is {saved!r}: expected {fresh!r}")


def _is_same(saved: object, value: object) -> bool:
    return not isinstance(saved, Tensor) and saved == value


def rng_state(device: torch.device) -> dict[str, Tensor]:
    """Return the states of torch's global generators that a training on ``device`` uses."""
    state = {"cpu": torch.get_rng_state()}
    if device.type in ("cuda", "mps"):
        index = (device,) if device.type == "cuda" else ()
        state[device.type] = getattr(torch, device.type).get_rng_state(*index)
    return state


def set_rng_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Restore a state from `rng_state`; on another kind of device, as far as it applies."""
    torch.set_rng_state(state["cpu"])
    if device.type in state and device.type != "cpu":
        index = (device,) if device.type == "cuda" else ()
        getattr(torch, device.type).set_rng_state(state[device.type], *index)
