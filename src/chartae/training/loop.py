"""`fit`, the one door to training: it checks, prepares, and runs a `Trainer`."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from chartae.atomic import check_writable, remove_leftovers
from chartae.checks import check_integer, check_number
from chartae.errors import ConfigurationError
from chartae.gradients import gradients
from chartae.models import Trainable
from chartae.persistence import check_ours, check_replaceable, is_state, read_state, save
from chartae.randomness import resolve_seed, seeded
from chartae.training.batches import Data, make_batches
from chartae.training.callbacks import Callback
from chartae.training.engine import check_engine, make_fabric
from chartae.training.history import History
from chartae.training.optimizers import (
    OPTIMIZERS,
    SCHEDULERS,
    OptimizerFactory,
    SchedulerFactory,
    name_of,
)
from chartae.training.state import Plan
from chartae.training.trainer import Trainer

__all__ = ["CHECKPOINT_FILE", "HISTORY_FILE", "fit"]

logger = logging.getLogger(__name__)

CHECKPOINT_FILE = "checkpoint.safetensors"
HISTORY_FILE = "history.json"


@gradients()
def fit(
    model: Trainable,
    train: Data,
    validation: Data | None = None,
    *,
    epochs: int = 100,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    optimizer: str | OptimizerFactory = "adam",
    scheduler: str | SchedulerFactory | None = None,
    patience: int | None = None,
    kl_warmup: int = 0,
    clip_grad_norm: float | None = None,
    seed: int | None = None,
    accelerator: str = "auto",
    devices: int = 1,
    strategy: str = "auto",
    precision: str | None = None,
    compile: bool = False,
    num_workers: int = 0,
    loggers: Sequence[Any] = (),
    callbacks: Sequence[Callback] = (),
    output_dir: str | Path | None = None,
    resume: bool = False,
    checkpoint_interval: float = 30.0,
    progress: bool = True,
) -> History:
    """Train ``model`` in place; it ends in eval mode, with the weights of its best epoch.

    The best epoch is the one with the lowest loss on the validation set, or on the training set
    without one; its weights are those at its end. The same seed on the same machine gives the same
    weights. Threads of one process share torch's generators, so their trainings take turns, while
    processes train in parallel. A thread that draws from these generators outside of `fit`, as a
    model's constructor does, disturbs a training in another thread.

    Ctrl-C ends training after the current step, and keeps the best weights; a second Ctrl-C, like
    an error, stops at once, and leaves the model with its best weights too.

    Args:
        model: any `Trainable`.
        train: samples ``(N, *input_shape)``, N at least 2: a tensor, an array, a DataFrame, an
            `ArrayDataset` (with conditions or a mask), ``(x, y)`` or ``(x, y, mask)`` or a mapping
            of these names, or a map-style torch ``Dataset`` whose samples are x, (x, y),
            (x, y, mask) or mappings.
        validation: the same, for the choice of the best epoch and for ``patience``.
        epochs: passes over ``train``.
        batch_size: largest number of samples in a step (on each device); batches are as even as
            can be.
        learning_rate: of every optimizer.
        optimizer: ``"adam"``, ``"adamw"``, ``"adamax"``, ``"rmsprop"``, ``"sgd"``, or
            ``f(parameters, learning_rate)``.
        scheduler: ``"cosine"``, ``"plateau"``, ``f(optimizer)``, or None; steps once an epoch.
        patience: stop after so many epochs without improvement; None never does.
        kl_warmup: epochs during which the weight of the KL rises from 0 to the model's own; none
            of them counts as best.
        clip_grad_norm: largest norm of the gradients of each optimisation group.
        seed: of batches, noise and everything else; None draws one.
        accelerator: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"``, or ``"gpu"`` for either of these.
            ``"auto"`` trains in float64 on an Apple GPU's CPU, for MPS has no float64.
        devices: number of processes, each with its device and its share of every epoch; more than
            one starts the running script once for each, by Lightning Fabric.
        strategy: how they work together: ``"auto"`` or ``"ddp"``.
        precision: None or ``"32-true"`` (that of the model), ``"bf16-mixed"`` or ``"16-mixed"``.
        compile: compile the loss with `torch.compile`, which needs a C++ compiler.
        num_workers: processes that load the samples of a ``Dataset``; on macOS and Windows, more
            than 0 wants the script's work under ``if __name__ == "__main__":``.
        loggers: Lightning loggers; they get every term of every epoch.
        callbacks: hooks around epochs.
        output_dir: folder for the checkpoint, the history and the final model; None writes nothing.
            Those of an earlier training that was completed are replaced, other files never.
        resume: continue from the checkpoint in ``output_dir``, if there is one, to the same result
            as a training that was never interrupted (without ``num_workers``, on one device).
        checkpoint_interval: seconds between checkpoints; 0 writes one after every step.
        progress: show a progress bar on standard error, if that is a terminal.

    Returns:
        The `History`, with every loss term of every epoch.

    Raises:
        DataError: if the data do not fit the model, before any work.
        ConfigurationError: for an argument out of range, or an output that cannot be written or
            would replace an unfinished training or a file of yours, before any work.
        CheckpointError: if the checkpoint is damaged, cannot be written, or was made with other
            arguments.
        DivergenceError: if a loss is not finite; the model keeps its last good weights.

    >>> import chartae, torch
    >>> model = chartae.VAE((8, 8), latent_dim=2)
    >>> history = chartae.fit(model, torch.rand(20, 8, 8), epochs=3, seed=0, progress=False)
    >>> history.num_epochs, sorted(history.train)
    (3, ['kl', 'loss', 'reconstruction'])
    """
    epochs = check_integer("epochs", epochs, minimum=1)
    batch_size = check_integer("batch_size", batch_size, minimum=1)
    learning_rate = check_number("learning_rate", learning_rate, above=0.0)
    kl_warmup = check_integer("kl_warmup", kl_warmup, minimum=0, maximum=epochs - 1)
    devices = check_integer("devices", devices, minimum=1)
    num_workers = check_integer("num_workers", num_workers, minimum=0)
    checkpoint_interval = check_number("checkpoint_interval", checkpoint_interval, minimum=0.0)
    check_engine(accelerator, strategy, precision)
    if patience is not None:
        patience = check_integer("patience", patience, minimum=1)
    if clip_grad_norm is not None:
        clip_grad_norm = check_number("clip_grad_norm", clip_grad_norm, above=0.0)
    if not isinstance(model, Trainable):
        raise ConfigurationError(f"model is {type(model).__name__}: expected a model of chartae")
    if kl_warmup and not hasattr(model, "kl_weight"):
        raise ConfigurationError(f"kl_warmup={kl_warmup}: {type(model).__name__} has no KL")
    if model.warmup >= epochs:
        raise ConfigurationError(
            f"epochs={epochs}: {type(model).__name__} has a warmup of {model.warmup}, none of "
            "which counts as best; expected more"
        )
    if resume and output_dir is None:
        raise ConfigurationError("resume=True without output_dir: expected the folder to resume")
    batches = make_batches("train", train, model, batch_size, minimum=2, num_workers=num_workers)
    held_out = None
    if validation is not None:
        held_out = make_batches("validation", validation, model, batch_size)
    plan = Plan(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        optimizer=name_of("optimizer", optimizer, OPTIMIZERS),
        scheduler=None if scheduler is None else name_of("scheduler", scheduler, SCHEDULERS),
        patience=patience,
        kl_warmup=kl_warmup,
        clip_grad_norm=clip_grad_norm,
        precision=precision,
        devices=devices,
        seed=resolve_seed(seed),
    )
    folder = checkpoint = None
    if output_dir is not None:
        folder = check_writable("output_dir", output_dir)
        checkpoint = folder / CHECKPOINT_FILE
        _check_replaceable(folder, resume=resume)
        plan.describe(model, batches, held_out)
    state = None
    if checkpoint is not None and resume and checkpoint.is_file():
        state = read_state(checkpoint)
        plan.resume(state, keep_seed=seed is not None)

    if accelerator == "auto" and model.dtype == torch.float64 and torch.backends.mps.is_available():
        accelerator = "cpu"
    fabric = make_fabric(accelerator, devices, strategy, precision, loggers)
    plan.seed = fabric.broadcast(plan.seed)
    if checkpoint is not None and fabric.global_rank == 0:
        remove_leftovers(checkpoint)
    with seeded(plan.seed, "training", device=fabric.device):
        trainer = Trainer(
            fabric,
            model,
            plan,
            batches,
            held_out,
            optimizer=optimizer,
            scheduler=scheduler,
            precision=precision,
            compile=compile,
            checkpoint=checkpoint,
            checkpoint_interval=checkpoint_interval,
        )
        if state is not None:
            trainer.load_checkpoint(state)
        if folder is not None and fabric.global_rank == 0:
            # Until it is over, the record is of a training that was cut short.
            trainer.history.save(folder / HISTORY_FILE)
        try:
            trainer.run(callbacks, progress=progress)
        finally:
            # The curves are worth most when something went wrong.
            if folder is not None and fabric.global_rank == 0:
                trainer.history.save(folder / HISTORY_FILE)
            failed = trainer.history.stopped in ("running", "diverged")
            for tracker in loggers:
                tracker.finalize("failed" if failed else "success")
    if folder is not None:
        if fabric.global_rank == 0:
            save(model, folder)
            logger.info("the model, its checkpoint and its history are in %s", folder)
        fabric.barrier()
    return trainer.history


def _check_replaceable(folder: Path, *, resume: bool) -> None:
    """Raise `ConfigurationError` if a training in the folder would replace what it should not."""
    record, checkpoint = folder / HISTORY_FILE, folder / CHECKPOINT_FILE
    check_replaceable("output_dir", folder)
    check_ours("output_dir", record, History.load)
    if resume:
        return
    check_ours("output_dir", checkpoint, is_state)
    stopped = History.load(record).stopped if record.exists() else "running"
    if checkpoint.exists() and stopped in ("running", "interrupted"):
        raise ConfigurationError(
            f"output_dir={str(folder)!r} holds a training that was cut short: resume=True "
            "continues it; to start anew, delete the folder or take another"
        )
