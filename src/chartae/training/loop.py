"""`fit`, the entry point of training: it checks arguments and data, and runs a `Trainer`."""

import logging
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from chartae.atomic import check_writable, remove_leftovers
from chartae.checks import check_integer, check_number
from chartae.errors import CheckpointError, ConfigurationError
from chartae.gradients import gradients
from chartae.models import Trainable
from chartae.persistence import check_ours, check_replaceable, is_state, read_state, save
from chartae.randomness import resolve_seed, seeded
from chartae.training.batches import Batches, Data, make_batches
from chartae.training.callbacks import Callback
from chartae.training.checkpoints import continue_from
from chartae.training.engine import Compilation, check_engine, is_first_process, make_fabric
from chartae.training.history import History
from chartae.training.loggers import hyperparameters, make_loggers
from chartae.training.optimizers import (
    OPTIMIZERS,
    SCHEDULERS,
    OptimizerFactory,
    SchedulerFactory,
    name_of,
)
from chartae.training.pictures import Reconstructions, shows_pictures
from chartae.training.processes import Processes, naming_lost_processes
from chartae.training.state import Plan
from chartae.training.trainer import Trainer

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.loggers.logger import Logger

__all__ = ["CHECKPOINT_FILE", "HISTORY_FILE", "fit"]

logger = logging.getLogger(__name__)

CHECKPOINT_FILE = "checkpoint.safetensors"
"""File in ``output_dir`` from which an interrupted training continues."""
HISTORY_FILE = "history.json"
"""File in ``output_dir`` with the `History` of a training."""


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
    nodes: int = 1,
    strategy: str = "auto",
    precision: str | None = None,
    compile: Compilation = False,
    num_workers: int = 0,
    loggers: "str | Logger | Sequence[str | Logger]" = (),
    callbacks: Sequence[Callback] = (),
    output_dir: str | Path | None = None,
    resume: bool = False,
    checkpoint_interval: float = 30.0,
    progress: bool = True,
) -> History:
    """Train ``model`` in place; it ends in eval mode, with the weights of its best epoch.

    The best epoch is the one with the lowest loss on the validation set, or on the training set
    without one; the weights are those at its end. The same seed on the same machine gives the same
    weights. Threads of one process share torch's global generators, so their trainings run one
    after the other; processes train in parallel. A thread that draws from these generators outside
    of `fit`, as the constructor of a model does, changes the results of a training in another
    thread.

    Ctrl-C ends training after the current step, and keeps the best weights. A second Ctrl-C, or an
    error, stops at once; the model then has its best weights, too. SIGTERM, by which job schedulers
    end a job, acts as the first Ctrl-C; when all is written, the process ends as by SIGTERM.

    With several ``devices`` or ``nodes`` the script runs in several processes
    (``docs/scaling.md``). Each needs all data, and trains with its share of each step: n processes
    with a ``batch_size`` of b take the steps of one process with n b. Only the first writes files.

    Args:
        model: any `Trainable`.
        train: at least 2 samples: for an `Autoencoder` a tensor, an array or a DataFrame
            ``(N, *input_shape)``, an `ArrayDataset` (with conditions, a mask or weights), or
            ``(x, y)`` or ``(x, y, mask)``. For any model a mapping of the names that its `loss`
            uses (``x``, ``y``, ``mask``, ``weight``), a `TensorSet`, or a torch ``Dataset`` or
            ``IterableDataset`` whose samples are x, (x, y), (x, y, mask) or mappings, such as those
            of Hugging Face. Weights are divided by their mean, except those of a ``Dataset``, which
            are used as they are. A `StreamedDataset` or a ``numpy.memmap`` is read batch by batch;
            training is that of the same data in memory. A stream without a length is read once to
            count its samples, and shuffled in a buffer of 64 MiB.
        validation: the same kinds of data, which choose the best epoch and are used for
            ``patience``.
        epochs: passes over ``train``.
        batch_size: largest number of samples in a step (on each device); the sizes of batches are
            as equal as possible.
        learning_rate: learning rate of every optimizer.
        optimizer: ``"adam"``, ``"adamw"``, ``"adamax"``, ``"rmsprop"``, ``"sgd"``, or
            ``f(parameters, learning_rate)``.
        scheduler: ``"cosine"``, ``"plateau"``, ``f(optimizer)``, or None; it steps once an epoch.
        patience: stop after this number of epochs without improvement; None never stops early.
        kl_warmup: epochs during which the weight of the KL rises from 0 to the model's own; none of
            them can be the best epoch.
        clip_grad_norm: largest norm of the gradients of each optimisation group.
        seed: seed of batches, noise and all other random numbers; None draws a seed.
        accelerator: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"``, or ``"gpu"`` for CUDA or MPS. On
            Apple hardware ``"auto"`` trains a float64 model on the CPU, as MPS has no float64.
        devices: number of devices on each node, with a process each. With more than one, Lightning
            Fabric starts the running script once for each, unless torchrun or SLURM has done so.
        nodes: number of machines; torchrun or SLURM starts the script on each.
        strategy: how the processes work together: ``"auto"`` or ``"ddp"``.
        precision: None or ``"32-true"`` (the model's precision), ``"bf16-mixed"`` or
            ``"16-mixed"``.
        compile: compile the loss with `torch.compile`, which needs a C++ compiler. With
            ``"reduce-overhead"``, PyTorch's mode of this name, its kernels and those of its
            gradients are also captured as CUDA graphs, so that a small model need not launch them
            one by one. On a CPU this changes nothing.
        num_workers: processes that load the samples of a ``Dataset``; for a stream at most the
            number of its shards. On macOS and Windows, more
            than 0 requires that the script's code is under ``if __name__ == "__main__":``.
        loggers: trackers of experiments: ``"csv"``, ``"tensorboard"``, ``"wandb"``, ``"mlflow"``,
            a Lightning logger, or a sequence of these. They receive the arguments of the model and
            of the training, and every term of every epoch; of images also pictures of
            reconstructions, ten times and at the end, as far as a logger has ``log_image``. A
            tracker given by name writes to the folder of its name in ``output_dir``. It sends
            nothing to a server, unless ``WANDB_MODE`` or ``MLFLOW_TRACKING_URI`` is set. A resumed
            training is a new run there, with the epochs that were done before.
        callbacks: hooks before and after epochs.
        output_dir: folder for the checkpoint, the history and the final model; None writes nothing.
            The files of an earlier completed training are replaced, other files never.
        resume: continue from the checkpoint in ``output_dir``, if there is one. The result is that
            of a training that was never interrupted (without ``num_workers``).
        checkpoint_interval: seconds between checkpoints; 0 writes one after every step.
            Several processes agree about it once a second.
        progress: show a progress bar on standard error, if it is a terminal.

    Returns:
        The `History`, with every loss term of every epoch.

    Raises:
        DataError: if the data do not fit the model, before training starts.
        ConfigurationError: for an argument out of range, or an output that cannot be written or
            would replace an unfinished training or a file of yours, before training starts.
        CheckpointError: if the checkpoint is damaged, cannot be written, or was made with other
            arguments.
        DivergenceError: if a loss is not finite; the model keeps its last good weights.
        ProcessError: if another process has ended early.

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
    nodes = check_integer("nodes", nodes, minimum=1)
    num_workers = check_integer("num_workers", num_workers, minimum=0)
    checkpoint_interval = check_number("checkpoint_interval", checkpoint_interval, minimum=0.0)
    check_engine(accelerator, strategy, precision, compile)
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
            f"epochs={epochs}: {type(model).__name__} has a warmup of {model.warmup} epochs, and "
            "none of them can be the best epoch; expected more"
        )
    if resume and output_dir is None:
        raise ConfigurationError("resume=True without output_dir: expected the folder to resume")
    trackers = make_loggers(loggers, output_dir)
    processes = devices * nodes
    batches = make_batches(
        "train", train, model, batch_size, minimum=max(2, processes), num_workers=num_workers
    )
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
        devices=processes,
        seed=resolve_seed(seed),
    )
    folder = checkpoint = None
    if output_dir is not None:
        folder = check_writable("output_dir", output_dir)
        checkpoint = folder / CHECKPOINT_FILE
        if processes == 1 or is_first_process():
            # The others may come when the first has begun to write.
            _check_replaceable(folder, resume=resume)
        plan.describe(model, batches, held_out)
    state = None
    if checkpoint is not None and resume and checkpoint.is_file():
        state = read_state(checkpoint)
        plan.resume(state, keep_seed=seed is not None)

    if accelerator == "auto" and model.dtype == torch.float64 and torch.backends.mps.is_available():
        accelerator = "cpu"
    fabric = make_fabric(accelerator, devices, nodes, strategy, precision, trackers)
    first = fabric.global_rank == 0
    with naming_lost_processes():
        plan.seed = fabric.broadcast(plan.seed)
        _check_shared(fabric, checkpoint, state)
        if checkpoint is not None and first:
            remove_leftovers(checkpoint)
        main = trackers if first else []
        _begin(main, model, plan, batches, held_out)
        with seeded(plan.seed, "training", device=fabric.device):
            trainer = Trainer(
                fabric,
                model,
                plan,
                batches,
                held_out,
                optimizer=optimizer,
                scheduler=scheduler,
                compile=compile,
                checkpoint=checkpoint,
                checkpoint_interval=checkpoint_interval,
            )
            if state is not None:
                continue_from(trainer, state)
                trainer.log_again()
            if folder is not None and first:
                # Until training ends, the record is marked as interrupted.
                trainer.history.save(folder / HISTORY_FILE)
            try:
                trainer.run([*callbacks, *_pictures(main, trainer)], progress=progress)
            finally:
                # The curves are also written after an error, when they help to find its cause.
                if folder is not None and first:
                    trainer.history.save(folder / HISTORY_FILE)
                failed = trainer.history.stopped in ("running", "diverged")
                for tracker in main:
                    tracker.finalize("failed" if failed else "success")
        if folder is not None and first:
            save(model, folder)
            logger.info("the model, its checkpoint and its history are in %s", folder)
        fabric.barrier()
    if trainer.signal == signal.SIGTERM:
        # Postponed until all is written, not refused.
        signal.raise_signal(signal.SIGTERM)
    return trainer.history


def _check_shared(
    fabric: "Fabric", checkpoint: Path | None, state: Mapping[str, Any] | None
) -> None:
    """Raise `CheckpointError`, in all processes, if only some of them have found a checkpoint."""
    found, missed = Processes(fabric).highest(state is not None, state is None)
    if found and missed:
        raise CheckpointError(
            f"{checkpoint} was found by some processes only: expected an output_dir that all nodes "
            "share"
        )


def _begin(
    trackers: Sequence[Any], model: Trainable, plan: Plan, train: Batches, held_out: Batches | None
) -> None:
    """Begin the runs of trackers with the arguments of the training."""
    sizes = {"train_size": train.size}
    if held_out is not None:
        sizes["validation_size"] = held_out.size
    for tracker in trackers:
        with suppress(NotImplementedError):  # Lightning's logger of CSV files
            tracker.log_hyperparams(hyperparameters(model, plan, sizes))


def _pictures(trackers: Sequence[Any], trainer: Trainer) -> list[Callback]:
    """Return what sends pictures to the trackers that take them."""
    shown = [tracker for tracker in trackers if hasattr(tracker, "log_image")]
    if not shown:
        return []
    batch = next(iter((trainer.held_out or trainer.batches).in_order()))
    if not shows_pictures(trainer.model, batch):
        return []
    return [Reconstructions(shown, batch, trainer.plan.epochs)]


def _check_replaceable(folder: Path, *, resume: bool) -> None:
    """Raise `ConfigurationError` if a training in the folder would replace other files."""
    record, checkpoint = folder / HISTORY_FILE, folder / CHECKPOINT_FILE
    check_replaceable("output_dir", folder)
    check_ours("output_dir", record, History.load)
    if resume:
        return
    check_ours("output_dir", checkpoint, is_state)
    stopped = History.load(record).stopped if record.exists() else "running"
    if checkpoint.exists() and stopped in ("running", "interrupted"):
        raise ConfigurationError(
            f"output_dir={str(folder)!r} holds a training that was interrupted: resume=True "
            "continues it; to start again, delete the folder or choose another"
        )
