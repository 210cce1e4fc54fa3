"""What Lightning Fabric runs: the devices, and a model's loss as the module that they share."""

import os
import warnings
from collections.abc import Callable, Sequence
from math import nan
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from chartae.checks import check_choice
from chartae.errors import ConfigurationError
from chartae.models import Losses, Trainable

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = [
    "ACCELERATORS",
    "PRECISIONS",
    "STRATEGIES",
    "Compilation",
    "Hidden",
    "Objective",
    "check_engine",
    "is_first_process",
    "make_fabric",
]

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
STRATEGIES = ("auto", "ddp")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
Compilation = bool | Literal["reduce-overhead"]
"""Whether a loss is compiled; with the name of PyTorch's mode also captured, as CUDA graphs."""
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
"""Environment variables that number the processes of a training: torchrun's, Fabric's, SLURM's."""


def check_engine(
    accelerator: str, strategy: str, precision: str | None, compile: Compilation
) -> None:
    """Raise `ConfigurationError` for an unknown name; Fabric is not needed to tell."""
    check_choice("accelerator", accelerator, ACCELERATORS)
    if strategy == "fsdp":
        raise ConfigurationError(
            "strategy='fsdp' is not supported: expected 'ddp', with which every device holds the "
            "whole model"
        )
    check_choice("strategy", strategy, STRATEGIES)
    if precision is not None:
        check_choice("precision", precision, PRECISIONS)
    if not isinstance(compile, bool):
        check_choice("compile", compile, ("reduce-overhead",))


def make_fabric(
    accelerator: str,
    devices: int,
    nodes: int,
    strategy: str,
    precision: str | None,
    loggers: Sequence[Any],
) -> "Fabric":
    """Return a Fabric whose processes, where there are several, have been started.

    Raises:
        ConfigurationError: if this machine has no such devices, or torchrun or SLURM has started
            another number of processes.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    by_torchrun = torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()
    started = int(os.environ["WORLD_SIZE"]) if by_torchrun else 1
    if started != 1 and started != devices * nodes:
        raise ConfigurationError(
            f"devices={devices}, nodes={nodes}: torchrun has started {started} processes; expected "
            "--nproc-per-node as devices, and --nnodes as nodes"
        )
    try:
        with warnings.catch_warnings():
            # What Fabric would replace on a CPU is refused below.
            warnings.filterwarnings("ignore", message=".*AMP with fp16 is not supported on CPU")
            fabric = Fabric(
                accelerator=accelerator,
                devices=devices,
                num_nodes=nodes,
                strategy=strategy,
                precision=precision,  # type: ignore[arg-type]
                loggers=list(loggers),
            )
        if precision == "16-mixed" and fabric.device.type == "cpu":
            raise ValueError("a CPU has no 16-bit floats but bfloat16; try 'bf16-mixed'")
        fabric.launch()
    except (ValueError, RuntimeError, ImportError, MisconfigurationException) as error:
        raise ConfigurationError(
            f"accelerator={accelerator!r}, devices={devices}, nodes={nodes}, "
            f"strategy={strategy!r}, precision={precision!r} is not available on this machine: "
            f"{error}"
        ) from error
    return fabric


def is_first_process() -> bool:
    """Return whether this process is the first of a training, which alone writes files.

    It is known before the training starts. A process without others is the first.
    """
    return not any(int(os.environ.get(name, "0")) for name in RANKS)


class Hidden:
    """A batch that mixed precision leaves alone: data are never rounded, only computations."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors


class Watch:
    """A hook that keeps the outputs of a module."""

    def __init__(self) -> None:
        self.outputs: list[Any] = []

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.outputs.append(output)


class Objective(nn.Module):
    """A model's loss as a module's forward, for Fabric to wrap: it casts and synchronises there.

    Until `unwatch`, the model has a hook that shows how its latents are used.

    Attributes:
        names: of the objectives and terms, known after the first call.
    """

    def __init__(self, model: Trainable, *, compile: Compilation) -> None:
        super().__init__()
        self.model = model
        self.tally_size = model.tally_size
        self.watch = Watch()
        if self.tally_size:
            self.hook = model.get_submodule(model.watched).register_forward_hook(self.watch)
        self.loss = _compiled(model, compile) if compile else model.loss
        self.names: list[str] = []

    def forward(self, batch: Hidden) -> tuple[dict[str, Tensor], Tensor]:
        """Return each objective; and the values of all objectives and terms, then the tally."""
        self.watch.outputs.clear()  # what a callback has encoded is not of this batch
        losses = self.loss(**batch.tensors)
        objectives = dict(losses.objectives)
        if not self.names:
            self.names = [*map(_history_name, objectives), *losses.terms]
        with torch.no_grad():
            values = torch.stack([*objectives.values(), *losses.terms.values()])
            if self.tally_size:
                values = torch.cat([values, self.tally().to(values)])
        return objectives, values

    def tally(self) -> Tensor:
        """Return the model's tally of the batch, which its loss encodes first; NaN without one."""
        outputs = self.watch.outputs
        tally = self.model.tally(outputs[0]) if outputs else torch.full((self.tally_size,), nan)
        outputs.clear()
        return tally

    def unwatch(self) -> None:
        """Take the hook from the model."""
        if self.tally_size:
            self.hook.remove()


def _compiled(model: Trainable, compile: Compilation) -> Callable[..., Losses]:
    from torch._dynamo.exc import TorchDynamoException

    # A graph is captured for each size of a batch, of which there are two at most.
    options: dict[str, Any] = {} if compile is True else {"mode": compile, "dynamic": False}
    compiled = torch.compile(model.loss, **options)

    def loss(**batch: Tensor) -> Losses:
        torch.compiler.cudagraph_mark_step_begin()  # the losses of the last step are not used again
        try:
            return compiled(**batch)
        except TorchDynamoException as error:
            raise ConfigurationError(
                f"compile={compile!r}: the loss of {type(model).__name__} cannot be compiled here: "
                f"{error}"
            ) from error

    return loss


def _history_name(group: str) -> str:
    return "loss" if group == "model" else group
