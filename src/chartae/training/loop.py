"""The one training loop, on Lightning Fabric: `fit`."""

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from chartae.atomic import check_writable
from chartae.checks import check_integer, check_number
from chartae.errors import CheckpointError, ConfigurationError, DivergenceError
from chartae.models import Autoencoder, Losses
from chartae.persistence import read_state, save, write_state
from chartae.randomness import derive_seed, resolve_seed, seeded
from chartae.training.batches import Batches, Data, InMemoryBatches, make_batches
from chartae.training.callbacks import Callback
from chartae.training.history import History
from chartae.training.optimizers import (
    OptimizerFactory,
    SchedulerFactory,
    make_optimizer,
    make_scheduler,
)
from chartae.training.progress import TrainingProgress

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["CHECKPOINT_FILE", "HISTORY_FILE", "fit"]

logger = logging.getLogger(__name__)

CHECKPOINT_FILE = "checkpoint.safetensors"
HISTORY_FILE = "history.json"
CHECK_EVERY = 50
"""Losses are looked at every so many steps, so that an accelerator need not wait at each."""


def fit(
    model: Autoencoder,
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
    loggers: Sequence[Any] = (),
    callbacks: Sequence[Callback] = (),
    output_dir: str | Path | None = None,
    resume: bool = False,
    checkpoint_interval: float = 30.0,
    progress: bool = True,
) -> History:
    """Train ``model`` in place; it ends in eval mode, with the weights of its best epoch.

    The best epoch is the one with the lowest validation loss, or training loss without a
    validation set. Ctrl-C ends training after the current step, as if patience had run out; a
    second Ctrl-C stops at once. The same seed on the same machine gives the same weights.

    Args:
        model: any `Autoencoder`.
        train: observations ``(N, *input_shape)``, N at least 2: a tensor, an array, an
            `ArrayDataset` (with labels or a mask), or a torch ``Dataset`` of x, (x, y) or mappings.
        validation: the same, for the choice of the best epoch and for ``patience``.
        epochs: passes over ``train``.
        batch_size: observations for each step (and device).
        learning_rate: of every optimiser.
        optimizer: ``"adam"``, ``"adamw"``, ``"adamax"``, ``"rmsprop"``, ``"sgd"``, or
            ``f(parameters, learning_rate)``.
        scheduler: ``"cosine"``, ``"plateau"``, ``f(optimizer)``, or None; steps once an epoch.
        patience: stop after so many epochs without improvement; None never does.
        kl_warmup: epochs during which the model's ``kl_weight`` rises from 0 to 1; none of them
            counts as best.
        clip_grad_norm: largest norm of the gradients of each optimisation group.
        seed: of batches, noise and everything else; None draws one.
        accelerator: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``, as are ``devices``,
            ``strategy`` (``"ddp"``, ``"fsdp"``) and ``precision`` (``"bf16-mixed"`` ...) Lightning
            Fabric's.
        compile: compile the loss with `torch.compile`.
        loggers: Lightning loggers; they get every term of every epoch.
        callbacks: hooks around epochs.
        output_dir: folder for the checkpoint, the history and the final model; None writes nothing.
        resume: continue from the checkpoint in ``output_dir``, if there is one, to the same result
            as a training that was never interrupted (for in-memory data).
        checkpoint_interval: seconds between checkpoints; 0 writes one after every step.
        progress: show a progress bar on standard error.

    Returns:
        The `History`, with every loss term of every epoch.

    Raises:
        DataError: if the data do not fit the model, before any work.
        ConfigurationError: for an argument out of range or an output that cannot be written.
        CheckpointError: if the checkpoint is damaged or was made with other arguments.
        DivergenceError: if a loss is not finite; the model keeps the last good weights.

    >>> import chartae, torch
    >>> model = chartae.VAE((8, 8), latent_dim=2)
    >>> history = chartae.fit(model, torch.rand(20, 8, 8), epochs=3, seed=0, progress=False)
    >>> history.num_epochs, sorted(history.train)
    (3, ['kl', 'loss', 'reconstruction'])
    """
    check_integer("epochs", epochs, minimum=1)
    check_integer("batch_size", batch_size, minimum=1)
    check_number("learning_rate", learning_rate, above=0.0)
    check_integer("kl_warmup", kl_warmup, minimum=0, maximum=epochs - 1)
    check_integer("devices", devices, minimum=1)
    check_number("checkpoint_interval", checkpoint_interval, minimum=0.0)
    if patience is not None:
        check_integer("patience", patience, minimum=1)
    if clip_grad_norm is not None:
        check_number("clip_grad_norm", clip_grad_norm, above=0.0)
    if resume and output_dir is None:
        raise ConfigurationError("resume=True without output_dir: expected the folder to resume")
    folder = None if output_dir is None else check_writable("output_dir", output_dir)

    fabric = _make_fabric(accelerator, devices, strategy, precision, loggers)
    rank, world = fabric.global_rank, fabric.world_size
    options = {"rank": rank, "world": world}
    batches = make_batches("train", train, model, batch_size, minimum=2, **options)
    held_out = None
    if validation is not None:
        held_out = make_batches("validation", validation, model, batch_size, **options)

    plan = _Plan(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        patience=patience,
        kl_warmup=kl_warmup,
        clip_grad_norm=clip_grad_norm,
        seed=resolve_seed(seed),
    )
    checkpoint = None if folder is None else folder / CHECKPOINT_FILE
    state = read_state(checkpoint) if checkpoint and resume and checkpoint.is_file() else None
    if state is not None and seed is None:
        plan.seed = state["plan"]["seed"]
    trainer = _Trainer(fabric, model, plan, batches, held_out, optimizer, scheduler, compile)
    trainer.checkpoint, trainer.checkpoint_interval = checkpoint, checkpoint_interval
    with seeded(plan.seed, "training", device=fabric.device):
        if state is not None:
            trainer.load_state(state)
        trainer.run(callbacks, progress=progress and rank == 0)
    if folder is not None and rank == 0:
        trainer.history.save(folder / HISTORY_FILE)
        save(model, folder)
        logger.info("the model, its checkpoint and its history are in %s", folder)
    return trainer.history


def _make_fabric(
    accelerator: str, devices: int, strategy: str, precision: str | None, loggers: Sequence[Any]
) -> "Fabric":
    from lightning_fabric import Fabric

    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=devices,
            strategy=strategy,
            precision=precision,  # type: ignore[arg-type]
            loggers=list(loggers),
        )
    except (ValueError, RuntimeError, ImportError) as error:
        raise ConfigurationError(
            f"accelerator={accelerator!r}, devices={devices}, strategy={strategy!r}, "
            f"precision={precision!r}: {error}"
        ) from error
    fabric.launch()
    return fabric


@dataclass
class _Plan:
    """The numbers that fix a training; a checkpoint resumes only under the same ones."""

    epochs: int
    batch_size: int
    learning_rate: float
    patience: int | None
    kl_warmup: int
    clip_grad_norm: float | None
    seed: int

    def check_same(self, saved: dict[str, Any]) -> None:
        """Raise `CheckpointError` if ``saved`` differs; more epochs are welcome."""
        now = asdict(self)
        different = [
            f"{name}={now[name]!r} (was {saved.get(name)!r})"
            for name in now
            if name not in ("epochs", "patience") and now[name] != saved.get(name)
        ]
        if different:
            raise CheckpointError(
                f"the checkpoint was made with other arguments: {', '.join(different)}; "
                "expected the same, or another output_dir"
            )


@dataclass
class _Progress:
    """Where a training stands."""

    epoch: int = 0
    step: int = 0
    best: float = math.inf
    bad_epochs: int = 0
    terms: list[Tensor] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)


class _Snapshot:
    """A copy of a model's tensors, made again in place."""

    def __init__(self, model: nn.Module) -> None:
        self.live = list(model.state_dict().values())
        self.copy = [tensor.detach().clone() for tensor in self.live]

    @torch.no_grad()
    def take(self) -> None:
        torch._foreach_copy_(self.copy, self.live)

    @torch.no_grad()
    def restore(self) -> None:
        torch._foreach_copy_(self.live, self.copy)


class _Trainer:
    def __init__(
        self,
        fabric: "Fabric",
        model: Autoencoder,
        plan: _Plan,
        batches: Batches,
        held_out: Batches | None,
        optimizer: str | OptimizerFactory,
        scheduler: str | SchedulerFactory | None,
        compile: bool,
    ) -> None:
        self.fabric, self.model, self.plan = fabric, model, plan
        self.batches, self.held_out = batches, held_out
        model.on_fit_start()
        self.groups = model.optimization_groups()
        made = [make_optimizer(optimizer, p, plan.learning_rate) for p in self.groups.values()]
        # Fabric's wrapper is what is called: it moves, shards and casts.
        self.wrapped, *optimizers = _as_tuple(fabric.setup(model, *made))
        self.wrapped.mark_forward_method("loss")
        self.optimizers = dict(zip(self.groups, optimizers, strict=True))
        self.schedulers = [make_scheduler(scheduler, o, plan.epochs) for o in made]
        self.loss: Callable[..., Losses] = self.wrapped.loss
        if compile:
            self.loss = torch.compile(self.loss)
        for source in (batches, held_out):
            if isinstance(source, InMemoryBatches):
                source.to(fabric.device)
        self.history = History()
        self.at = _Progress()
        self.names: list[str] = []
        self.checkpoint: Path | None = None
        self.checkpoint_interval = math.inf
        self.next_checkpoint = math.inf
        self.stop_requested = threading.Event()
        self.good = _Snapshot(model)

    # --- the loop -----------------------------------------------------------------------------

    def run(self, callbacks: Sequence[Callback], *, progress: bool) -> None:
        history, plan = self.history, self.plan
        for callback in callbacks:
            callback.on_fit_start(self.model, history)
        self.next_checkpoint = time.monotonic() + self.checkpoint_interval
        total = plan.epochs * self.batches.num_batches
        done = self.at.epoch * self.batches.num_batches + self.at.step
        bar = TrainingProgress(type(self.model).__name__, total, done, enabled=progress)
        if history.stopped in ("running", "interrupted"):
            history.stopped = "running"
            with bar, _interrupts(self.stop_requested):
                while self.at.epoch < plan.epochs and history.stopped == "running":
                    self.run_epoch(bar)
                    if self.stop_requested.is_set():
                        history.stopped = "interrupted"
                    elif self.at.step == 0 and any(
                        [callback.on_epoch_end(self.model, history) for callback in callbacks]
                    ):
                        history.stopped = "patience"
            if history.stopped == "running":
                history.stopped = "finished"
            self.save_checkpoint()
        if history.stopped == "interrupted":
            logger.warning("interrupted in epoch %d: the best weights are kept", self.at.epoch)
        self.finish()
        for callback in callbacks:
            callback.on_fit_end(self.model, history)

    def run_epoch(self, bar: TrainingProgress) -> None:
        """Train one epoch, from the step where the training stands, and record it."""
        at, plan, started = self.at, self.plan, time.monotonic()
        self.set_kl_weight(at.epoch)
        self.model.train()
        if at.step == 0:
            torch.manual_seed(derive_seed(plan.seed, "noise", at.epoch))
        offset = at.epoch * self.batches.num_batches
        shown = {name: values[-1] for name, values in self.history.train.items()}
        for batch in self.batches.epoch(plan.seed, at.epoch, shuffle=True, start=at.step):
            self.step(self.fabric.to_device(batch))
            at.step += 1
            if at.step % CHECK_EVERY == 0:
                self.check_finite(from_step=at.step - CHECK_EVERY)
            bar.update(offset + at.step, shown)
            if self.stop_requested.is_set():
                return
            if time.monotonic() >= self.next_checkpoint:
                self.save_checkpoint()
        self.check_finite(from_step=at.step - at.step % CHECK_EVERY)
        self.end_epoch(time.monotonic() - started)

    def step(self, batch: dict[str, Tensor]) -> None:
        losses = self.loss(**batch)
        if not self.names:
            self.names = _term_names(losses)
        alone = len(self.groups) == 1
        for name, parameters in self.groups.items():
            self.optimizers[name].zero_grad()
            # Opponents share the graph, and each objective moves its own parameters only.
            options = {} if alone else {"inputs": parameters, "retain_graph": True}
            self.fabric.backward(losses.objectives[name], **options)
        for name in self.groups:
            if self.plan.clip_grad_norm is not None:
                self.fabric.clip_gradients(
                    self.wrapped, self.optimizers[name], max_norm=self.plan.clip_grad_norm
                )
            self.optimizers[name].step()
        self.at.terms.append(_stack_terms(losses))
        self.at.sizes.append(len(batch["x"]))

    def end_epoch(self, seconds: float) -> None:
        at, history, plan = self.at, self.history, self.plan
        train = self.mean_terms(at.terms, at.sizes)
        _append(history.train, train)
        monitored = train["loss"]
        if self.held_out is not None:
            measured = self.evaluate(self.held_out)
            _append(history.validation, measured)
            monitored = measured["loss"]
        history.seconds.append(seconds)
        history.learning_rate.append(next(iter(self.optimizers.values())).param_groups[0]["lr"])
        self.fabric.log_dict({f"train/{k}": v for k, v in train.items()}, step=at.epoch)
        for scheduler in self.schedulers:
            if isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step(monitored)
            elif scheduler is not None:
                scheduler.step()
        if at.epoch < plan.kl_warmup or monitored < at.best:
            # Losses of the warm-up are another objective's: none of them is the one to beat.
            at.best = math.inf if at.epoch < plan.kl_warmup else monitored
            at.bad_epochs, history.best_epoch = 0, at.epoch
            self.good.take()
        else:
            at.bad_epochs += 1
            if plan.patience is not None and at.bad_epochs >= plan.patience:
                history.stopped = "patience"
        at.epoch, at.step, at.terms, at.sizes = at.epoch + 1, 0, [], []

    def evaluate(self, batches: Batches) -> dict[str, float]:
        """Return the mean terms over a set, in eval mode, with the full weight of the KL."""
        self.model.eval()
        self.set_kl_weight(self.plan.kl_warmup)
        terms, sizes = [], []
        with torch.no_grad(), seeded(self.plan.seed, "evaluation", device=self.fabric.device):
            for batch in batches.epoch(0, 0, shuffle=False):
                losses = self.loss(**self.fabric.to_device(batch))
                terms.append(_stack_terms(losses))
                sizes.append(len(batch["x"]))
        return self.mean_terms(terms, sizes)

    def finish(self) -> None:
        """Give the model its best weights, and what depends on the whole training set."""
        self.good.restore()
        self.set_kl_weight(self.plan.kl_warmup)
        self.model.eval()
        with torch.no_grad():
            self.model.on_fit_end(
                self.fabric.to_device(batch["x"])
                for batch in self.batches.epoch(self.plan.seed, 0, shuffle=False)
            )

    # --- details ------------------------------------------------------------------------------

    def set_kl_weight(self, epoch: int) -> None:
        if hasattr(self.model, "kl_weight"):
            warmup = self.plan.kl_warmup
            self.model.kl_weight = 1.0 if warmup == 0 else min(1.0, epoch / warmup)

    def mean_terms(self, terms: list[Tensor], sizes: list[int]) -> dict[str, float]:
        weights = torch.tensor(sizes, dtype=terms[0].dtype, device=terms[0].device)
        mean = (torch.stack(terms) * weights[:, None]).sum(0) / weights.sum()
        if self.fabric.world_size > 1:
            mean = self.fabric.all_reduce(mean)
        return dict(zip(self.names, mean.tolist(), strict=True))

    def check_finite(self, from_step: int) -> None:
        """Raise `DivergenceError` if a term since ``from_step`` is not finite."""
        recent = self.at.terms[from_step:]
        if not recent:
            return
        finite = torch.isfinite(torch.stack(recent))
        if bool(finite.all()):
            return
        step, term = torch.nonzero(~finite)[0].tolist()
        value = float(recent[step][term])
        epoch = self.at.epoch
        self.finish()
        raise DivergenceError(
            f"the term {self.names[term]!r} became {value} in epoch {epoch}, step "
            f"{from_step + step}: the model keeps the weights of its best epoch "
            f"({self.history.best_epoch}); try a lower learning_rate or clip_grad_norm"
        )

    def save_checkpoint(self) -> None:
        self.next_checkpoint = time.monotonic() + self.checkpoint_interval
        if self.checkpoint is None or self.fabric.global_rank != 0:
            return
        device = self.fabric.device
        rng = {"cpu": torch.get_rng_state()}
        if device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(device)
        state = {
            "plan": asdict(self.plan),
            "progress": {**vars(self.at), "terms": self.at.terms},
            "names": self.names,
            "history": asdict(self.history),
            "model": self.model.state_dict(),
            "good": dict(enumerate(self.good.copy)),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "schedulers": [s.state_dict() if s is not None else None for s in self.schedulers],
            "rng": rng,
        }
        write_state(self.checkpoint, state)

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue where `save_checkpoint` left off.

        Raises:
            CheckpointError: if the checkpoint is of another training.
        """
        self.plan.check_same(state["plan"])
        try:
            self.model.load_state_dict(state["model"])
            for name, saved in state["optimizers"].items():
                self.optimizers[name].load_state_dict(saved)
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(f"the checkpoint is of another model: {error}") from error
        for scheduler, saved in zip(self.schedulers, state["schedulers"], strict=True):
            if scheduler is not None and saved is not None:
                scheduler.load_state_dict(saved)
        self.good = _Snapshot(self.model)
        for copy, saved in zip(self.good.copy, state["good"].values(), strict=True):
            copy.copy_(saved)
        self.history = History(**state["history"])
        if self.history.stopped == "finished" and self.history.num_epochs < self.plan.epochs:
            self.history.stopped = "running"
        self.names = state["names"]
        self.at = _Progress(**state["progress"])
        torch.set_rng_state(state["rng"]["cpu"])
        if "cuda" in state["rng"] and self.fabric.device.type == "cuda":
            torch.cuda.set_rng_state(state["rng"]["cuda"], self.fabric.device)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _objective_name(group: str) -> str:
    return "loss" if group == "model" else group


def _term_names(losses: Losses) -> list[str]:
    return [*map(_objective_name, losses.objectives), *losses.terms]


def _stack_terms(losses: Losses) -> Tensor:
    values = [*losses.objectives.values(), *losses.terms.values()]
    return torch.stack([value.detach() for value in values])


def _append(record: dict[str, list[float]], terms: dict[str, float]) -> None:
    for name, value in terms.items():
        record.setdefault(name, []).append(value)


@contextmanager
def _interrupts(event: threading.Event) -> Iterator[None]:
    """Let the first Ctrl-C set ``event``; the second acts as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        event.set()
        signal.signal(signal.SIGINT, previous)

    previous = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
