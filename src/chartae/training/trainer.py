"""The course of one training: its epochs, the best one, its end, and divergence."""

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from chartae.errors import DivergenceError
from chartae.gradients import leave_inference_mode
from chartae.models import Trainable
from chartae.persistence import write_state
from chartae.randomness import seed_generators, seeded
from chartae.training.batches import Batch, Batches, size_of
from chartae.training.callbacks import Callback
from chartae.training.checkpoints import state_of
from chartae.training.descent import Descent
from chartae.training.engine import Compilation, Hidden
from chartae.training.history import History
from chartae.training.interrupts import Interrupts, interrupts
from chartae.training.loggers import figures_of
from chartae.training.optimizers import OptimizerFactory, SchedulerFactory, make_scheduler
from chartae.training.processes import Processes
from chartae.training.progress import TrainingProgress
from chartae.training.state import Plan, Position, Snapshots

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Trainer"]

logger = logging.getLogger(__name__)

LARGE = 1e6
"""Data beyond it are what a divergence is blamed on, not the learning rate."""
CHECK_EVERY = 50
"""Losses are looked at every so many steps, so that an accelerator need not wait at each."""
AGREE_EVERY = 1.0
"""Several processes agree about every so many seconds on whether to stop."""


class Trainer:
    """The training of one model under one plan.

    Args:
        fabric: launched.
        model: to be trained in place.
        plan: what fixes the training.
        batches: the training set.
        held_out: the validation set, if any.
        optimizer, scheduler, compile: as in `fit`.
        checkpoint: the file that `save_checkpoint` writes; None for no checkpoints.
        checkpoint_interval: seconds between two.
    """

    def __init__(
        self,
        fabric: "Fabric",
        model: Trainable,
        plan: Plan,
        batches: Batches,
        held_out: Batches | None,
        *,
        optimizer: str | OptimizerFactory,
        scheduler: str | SchedulerFactory | None,
        compile: Compilation,
        checkpoint: Path | None,
        checkpoint_interval: float,
    ) -> None:
        self.fabric, self.model, self.plan = fabric, model, plan
        self.batches, self.held_out = batches, held_out
        self.checkpoint, self.checkpoint_interval = checkpoint, checkpoint_interval
        self.optimizer, self.scheduler = optimizer, scheduler
        self.kl_weight = getattr(model, "kl_weight", None)
        self.processes = Processes(fabric)
        leave_inference_mode(model)
        model.on_fit_start(batches.size)
        self.descent = Descent(fabric, model, plan, optimizer=optimizer, compile=compile)
        self.objective = self.descent.objective
        self.schedulers = [
            make_scheduler(scheduler, one, plan.epochs) for one in self.descent.unwrapped
        ]
        for source in filter(None, (batches, held_out)):
            source.place(fabric.device, self.processes.rank, self.processes.count)
        self.history, self.at, self.good = History(), Position(), Snapshots(model)
        self.next_checkpoint = math.inf
        self.signal = 0

    # --- the loop -----------------------------------------------------------------------------

    def run(self, callbacks: Sequence[Callback], *, progress: bool) -> None:
        """Train until the plan, patience, a callback or a signal ends it; leave the model ready."""
        self.check_processes()
        for callback in callbacks:
            callback.on_fit_start(self.model, self.history)
        try:
            self.prepare()
            if self.history.stopped == "running":
                self.save_checkpoint()
                self.train(callbacks, progress=progress)
                self.save_checkpoint()
        finally:
            # Also after an error or a second Ctrl-C: a model that can be used.
            self.objective.unwatch()
            self.model.share_updates(False)
            self.restore()
            self.fix()
        self.warn_of_latents()
        for callback in callbacks:
            callback.on_fit_end(self.model, self.history)

    def check_processes(self) -> None:
        """Raise `DataError` unless all processes have the same data."""
        for name, source in (("train", self.batches), ("validation", self.held_out)):
            if source is not None and not self.processes.alone:
                self.processes.check_same(name, source.describe())

    def prepare(self) -> None:
        """Give all processes one model; let it learn the units of the data.

        A checkpoint has the units.
        """
        self.processes.copy_first(self.model.state_dict().values())
        self.model.share_updates(not self.processes.alone)
        if (self.at.epoch, self.at.step) == (0, 0):
            self.model.set_units(self.batches.in_order())

    def train(self, callbacks: Sequence[Callback], *, progress: bool) -> None:
        """Run epochs until something ends the training; ``history.stopped`` says what."""
        at, history, per_epoch = self.at, self.history, self.batches.num_batches
        # Signals first: the bar takes a moment.
        with (
            interrupts() as asked,
            TrainingProgress(
                type(self.model).__name__,
                total=self.plan.epochs * per_epoch,
                done=at.epoch * per_epoch + at.step,
                enabled=progress and self.processes.rank == 0,
            ) as bar,
        ):
            while history.stopped == "running" and at.epoch < self.plan.epochs:
                self.run_epoch(bar, asked)
                if at.step == 0:
                    self.call(callbacks)
                    self.agree(asked)
                if self.signal and at.epoch < self.plan.epochs:
                    history.stopped = "interrupted"
            if history.stopped == "running":
                history.stopped = "finished"
        if history.stopped == "interrupted" and self.processes.rank == 0:
            where, epoch = ("in", at.epoch + 1) if at.step else ("after", at.epoch)
            way = "" if self.checkpoint is None else f", and {self.checkpoint} can be resumed"
            logger.warning(
                "interrupted %s epoch %d; its best weights are kept%s", where, epoch, way
            )

    def call(self, callbacks: Sequence[Callback]) -> None:
        """Call every callback after an epoch; any of them may end the training."""
        wishes = [bool(callback.on_epoch_end(self.model, self.history)) for callback in callbacks]
        if any(self.processes.highest(any(wishes))):
            self.history.stopped = "callback"

    def agree(self, asked: Interrupts, seconds: float = 0.0) -> int:
        """Learn of the signals that any process received; write a checkpoint if it is time.

        Args:
            asked: what this process was asked.
            seconds: that a step takes in this process, 0 between epochs.

        Returns:
            After how many steps the processes agree again: a process alone after each.
        """
        due = time.monotonic() >= self.next_checkpoint
        signal, due_in_any, slowest = self.processes.highest(asked.signal, due, seconds)
        self.signal = int(signal)
        if due_in_any:
            self.save_checkpoint()
        if self.processes.alone or not slowest:
            return 1
        return max(1, min(CHECK_EVERY, int(min(AGREE_EVERY, self.checkpoint_interval) / slowest)))

    def run_epoch(self, bar: TrainingProgress, asked: Interrupts) -> None:
        """Train one epoch, from the step where the training stands, and record it."""
        at, plan, fabric = self.at, self.plan, self.fabric
        started = time.monotonic() - at.seconds
        self.set_epoch(at.epoch)
        if not self.model.training:
            self.model.train()
        if at.step == 0:
            # Each epoch has its own noise, whatever callbacks and validation have drawn.
            stream = ("noise", at.epoch, self.processes.rank)
            seed_generators(plan.seed, *stream, device=fabric.device)
        first, offset = at.step, at.epoch * self.batches.num_batches
        next_agreement, begun = first + 1, time.monotonic()
        for batch in self.batches.epoch(plan.seed, at.epoch, start=first):
            self.step(batch)
            at.step += 1
            if at.step % CHECK_EVERY == 0:
                rows = torch.stack(at.terms[-CHECK_EVERY:])
                self.check_finite(rows)
                # In one piece: small tensors between those of batches would fragment the memory.
                at.terms[-CHECK_EVERY:] = rows.unbind()
            bar.update(offset + at.step, self.history.train)
            if at.step == next_agreement:
                now = time.monotonic()
                at.seconds = now - started
                next_agreement += self.agree(asked, (now - begun) / (at.step - first))
                if self.signal:
                    return
        self.end_epoch(time.monotonic() - started)

    def step(self, batch: Batch) -> None:
        """Update the model by a batch; keep the terms and the size of the step."""
        alone = self.processes.alone
        size = size_of(batch) if alone else self.batches.step_size(self.at.step)
        self.at.terms.append(self.descent.step(batch, size))
        self.at.sizes.append(size)

    def end_epoch(self, seconds: float) -> None:
        """Record the epoch, keep the weights if they are the best, and move on to the next."""
        at, history, plan = self.at, self.history, self.plan
        # Running statistics, which batches of a process have changed.
        self.processes.copy_first(self.model.buffers())
        rows, samples = torch.stack(at.terms), sum(at.sizes) * self.processes.count
        train, latents = self.mean_terms(rows, [size / samples for size in at.sizes])
        validation = {} if self.held_out is None else self.evaluate(self.held_out)
        monitored = (validation or train)[self.model.monitored]
        rate = next(iter(self.descent.optimizers.values())).param_groups[0]["lr"]
        history.add(train, validation, latents=latents, learning_rate=rate, seconds=seconds)
        self.log(at.epoch)
        # Losses of the warm-up are another objective's: none of them is the one to beat.
        warming_up = at.epoch < max(plan.kl_warmup, self.model.warmup)
        for scheduler in self.schedulers:
            if not isinstance(scheduler, ReduceLROnPlateau):
                if scheduler is not None:
                    scheduler.step()
            elif not warming_up:
                scheduler.step(monitored)
        if warming_up or monitored < at.best:
            at.best = math.inf if warming_up else monitored
            at.bad_epochs, history.best_epoch = 0, at.epoch
            self.good.take(at.epoch)
        else:
            at.bad_epochs += 1
            if plan.patience is not None and at.bad_epochs >= plan.patience:
                history.stopped = "patience"
        at.epoch, at.step, at.seconds, at.terms, at.sizes = at.epoch + 1, 0, 0.0, [], []

    @torch.no_grad()
    def evaluate(self, batches: Batches) -> dict[str, float]:
        """Return the mean terms over a set, in eval mode, with the full weight of the KL.

        Each process handles some of the batches. The noise of a batch follows from its number.
        """
        self.model.eval()
        self.set_epoch(math.inf)
        terms, sizes, device = [], [], self.fabric.device
        with seeded(self.plan.seed, "evaluation", device=device):
            for number, batch in batches.share_in_order():
                seed_generators(self.plan.seed, "evaluation", number, device=device)
                terms.append(self.descent.own_losses(Hidden(batch))[1])
                sizes.append(size_of(batch))
        rows = torch.stack(terms) if terms else torch.stack(self.at.terms[-1:])[:0]
        shares = [size / batches.size for size in sizes]
        return self.mean_terms(rows, shares, where="on the validation set, at the end")[0]

    def restore(self) -> None:
        """Give the model its best weights, as far as there are any yet."""
        if self.history.stopped == "interrupted" and self.history.best_epoch is None:
            self.good.take(None)  # a first epoch cut short is better than none
        self.history.best_epoch = self.good.restore()
        self.set_epoch(math.inf)
        self.model.eval()

    @torch.no_grad()
    def fix(self) -> None:
        """Let the model fix what depends on the whole training set."""
        self.model.on_fit_end(self.batches.in_order())

    # --- details ------------------------------------------------------------------------------

    def set_epoch(self, epoch: float) -> None:
        """Tell the model the epoch, and set the weight of its KL, which rises to its own."""
        self.model.epoch = epoch
        if self.kl_weight is not None and self.plan.kl_warmup:
            self.model.kl_weight = self.kl_weight * min(1.0, epoch / self.plan.kl_warmup)

    def mean_terms(
        self, rows: Tensor, shares: Sequence[float], where: str = ""
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Return means over samples, in all processes: of every term, and how latents were used.

        Args:
            rows: the terms of each batch of this process, of which there may be none.
            shares: those of the batches in the mean; over all processes their sum is 1.
            where: for errors; empty for steps of the training.

        Raises:
            DivergenceError: if one is not finite.
        """
        names = self.objective.names
        mean = self.processes.total(rows.new_tensor(shares) @ rows)
        numbers: list[float] = mean.tolist()
        values, tally = numbers[: len(names)], numbers[len(names) :]
        if not all(map(math.isfinite, values)):
            self.check_finite(rows, where)
            self.check_finite(mean[None], where)
        known = tally and all(map(math.isfinite, tally))
        latents = self.model.latent_use(tally) if known else {}
        return dict(zip(names, values, strict=True)), latents

    def check_finite(self, rows: Tensor, where: str = "") -> None:
        """Raise `DivergenceError` if a term is not finite; the last row is the latest step's.

        All processes raise it if one of them has such a term.
        """
        finite = torch.isfinite(rows[:, : len(self.objective.names)])
        bad = torch.nonzero(~finite.all(1))
        # Counted from the last row, as the processes agree on the highest number.
        (ago,) = self.processes.highest(len(rows) - int(bad[0]) if len(bad) else 0)
        if not ago:
            return
        step = self.at.step - int(ago)
        if step == 0 and self.held_out is None and self.good.epochs[0] == self.at.epoch - 1:
            self.good.undo()
        self.history.stopped = "diverged"
        what = "a term became infinite or NaN in another process"
        if len(bad):
            row = int(bad[0])
            term = int(torch.nonzero(~finite[row])[0])
            what = f"the term {self.objective.names[term]!r} became {float(rows[row, term])}"
        raise DivergenceError(
            f"{what} {where or f'in step {step + 1}'} of epoch {self.at.epoch + 1}: the model "
            f"keeps its last good weights; {self.advice()}"
        )

    def advice(self) -> str:
        """Return what is to be done about a divergence."""
        for name, source in (("train", self.batches), ("validation", self.held_out)):
            batches = () if source is None else source.in_order()
            largest = max(map(self.model.largest_input, batches), default=0.0)
            if largest > LARGE:
                seen = f"{name} has values up to {largest:.3g} as the networks see them"
                return f"{seen}: scale x, or look for outliers"
        return "try a lower learning_rate or clip_grad_norm"

    def log_again(self) -> None:
        """Send the figures of the epochs of a loaded checkpoint to the loggers."""
        for epoch in range(self.history.num_epochs):
            self.log(epoch)

    def log(self, epoch: int) -> None:
        """Send the figures of an epoch of the history to the loggers."""
        if self.processes.rank == 0 and self.fabric.loggers:
            self.fabric.log_dict(figures_of(self.history, epoch), step=epoch)

    def warn_of_latents(self) -> None:
        """Say so if the model that came out does not use its latents."""
        best, latents = self.history.best_epoch, self.history.latents
        if best is None or not latents or self.history.stopped == "interrupted":
            return
        use = {name: values[best] for name, values in latents.items()}
        unused = self.model.unused_latents(use)
        if unused is not None and self.processes.rank == 0:
            logger.warning("%s: %s", type(self.model).__name__, unused)

    # --- checkpoints --------------------------------------------------------------------------

    def save_checkpoint(self) -> None:
        """Write where the training stands, and all that what follows depends on."""
        self.next_checkpoint = time.monotonic() + self.checkpoint_interval
        if self.checkpoint is None:
            return
        state = state_of(self)
        if self.processes.rank == 0:
            write_state(self.checkpoint, state)
