"""One training: its steps and epochs, its checkpoints, and what the model is left with."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from chartae.checks import check_integer
from chartae.errors import CheckpointError, ConfigurationError, DivergenceError
from chartae.gradients import leave_inference_mode
from chartae.models import Trainable
from chartae.persistence import write_state
from chartae.randomness import seed_generators, seeded
from chartae.training.batches import Batch, Batches, size_of
from chartae.training.callbacks import Callback
from chartae.training.engine import Compilation, Hidden, Objective
from chartae.training.history import History
from chartae.training.interrupts import Interrupts, interrupts
from chartae.training.optimizers import (
    OptimizerFactory,
    SchedulerFactory,
    make_optimizer,
    make_scheduler,
    state_like,
)
from chartae.training.processes import Processes
from chartae.training.progress import TrainingProgress
from chartae.training.state import (
    Plan,
    Position,
    Snapshots,
    check_alike,
    rng_state,
    set_rng_state,
)

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
        precision: str | None,
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
        self.groups = _trainable_groups(model)
        self.objective = Objective(model, compile=compile)
        made = [make_optimizer(optimizer, p, plan.learning_rate) for p in self.groups.values()]
        # Fabric's wrappers cast and synchronise processes; where there is neither to do, they are a
        # detour of some 5 % of a small model's step.
        self.direct = self.processes.alone and precision in (None, "32-true")
        # DDP averages the gradients of one backward pass; opponents have one each.
        self.synchronised = self.processes.alone or len(self.groups) == 1
        if self.synchronised:
            wrapper, *wrapped = fabric.setup(self.objective, *made)
            self.losses = self.objective if self.direct else wrapper
        else:
            fabric.to_device(self.objective)
            wrapped = [fabric.setup_optimizers(one) for one in made]
            self.losses = self.own_losses
        self.optimizers = dict(zip(self.groups, made if self.direct else wrapped, strict=True))
        self.schedulers = [make_scheduler(scheduler, o, plan.epochs) for o in made]
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
        """Update every group of parameters by its own objective."""
        # Before the forward pass, which then finds the memory of the last gradients warm.
        for parameter in chain.from_iterable(self.groups.values()):
            parameter.grad = None
        objectives, values = self.losses(Hidden(batch))
        size = size_of(batch)
        if not self.processes.alone:
            # Means over samples, not over processes: their batches may differ by a sample.
            total = self.batches.step_size(self.at.step)
            share, size = size * self.processes.count / total, total
            objectives = {name: share * value for name, value in objectives.items()}
            values = share * values
        for name, parameters in self.groups.items():
            # Opponents share the graph, and each objective moves its own parameters only.
            options: dict[str, Any] = {}
            if len(self.groups) > 1:
                options = {"inputs": parameters, "retain_graph": True}
            if self.direct:
                objectives[name].backward(**options)
            else:
                self.fabric.backward(objectives[name], **options)
        if not self.synchronised:
            for parameters in self.groups.values():
                self.processes.average_gradients(parameters)
        # Only now, for every gradient is taken at the same point.
        for name, optimizer in self.optimizers.items():
            if self.plan.clip_grad_norm is not None:
                self.clip(name, optimizer, self.plan.clip_grad_norm)
            optimizer.step()
        self.at.terms.append(values)
        self.at.sizes.append(size)

    def own_losses(self, batch: Hidden) -> tuple[dict[str, Tensor], Tensor]:
        """Return the losses of a batch, without the other processes."""
        with self.fabric.autocast():
            losses: tuple[dict[str, Tensor], Tensor] = self.objective(batch)
        return losses

    def clip(self, name: str, optimizer: Any, max_norm: float) -> None:
        """Scale down the gradients of a group whose norm is larger."""
        if self.direct:
            nn.utils.clip_grad_norm_(self.groups[name], max_norm)
        else:
            self.fabric.clip_gradients(
                self.losses, optimizer, max_norm=max_norm, error_if_nonfinite=False
            )

    def end_epoch(self, seconds: float) -> None:
        """Record the epoch, keep the weights if they are the best, and move on to the next."""
        at, history, plan = self.at, self.history, self.plan
        # Running statistics, which batches of a process have changed.
        self.processes.copy_first(self.model.buffers())
        rows, samples = torch.stack(at.terms), sum(at.sizes) * self.processes.count
        train, latents = self.mean_terms(rows, [size / samples for size in at.sizes])
        validation = {} if self.held_out is None else self.evaluate(self.held_out)
        monitored = (validation or train)[self.model.monitored]
        rate = next(iter(self.optimizers.values())).param_groups[0]["lr"]
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
                terms.append(self.own_losses(Hidden(batch))[1])
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
            history = self.history
            groups = {
                "train": history.train,
                "validation": history.validation,
                "latents": history.latents,
            }
            figures = {
                f"{group}/{name}": values[epoch]
                for group, curves in groups.items()
                for name, values in curves.items()
                if not math.isnan(values[epoch])
            }
            rate = history.learning_rate[epoch]
            self.fabric.log_dict({**figures, "learning_rate": rate}, step=epoch)

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
        state = self.state()
        if not self.processes.alone:
            state = self.with_all_processes(state)
        if self.processes.rank == 0:
            write_state(self.checkpoint, state)

    def with_all_processes(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return a state with the terms and generators of every process, stacked."""
        gathered, position = self.processes.gathered, state["position"]
        terms = gathered(torch.stack(position["terms"])).unbind(1) if position["terms"] else ()
        rng = {kind: gathered(of_kind) for kind, of_kind in state["rng"].items()}
        return {**state, "position": {**position, "terms": list(terms)}, "rng": rng}

    def with_own(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the part of this process of a state from `with_all_processes`."""
        rank, position = self.processes.rank, state["position"]
        # torch crashes if a generator is set to a view.
        terms = [of_all[rank].clone() for of_all in position["terms"]]
        rng = {kind: of_all[rank].clone() for kind, of_all in state["rng"].items()}
        return {**state, "position": {**position, "terms": terms}, "rng": rng}

    def state(self) -> dict[str, Any]:
        """Return where the training stands, and all that what follows depends on."""
        return {
            "plan": asdict(self.plan),
            "position": vars(self.at),
            "names": self.objective.names,
            "history": asdict(self.history),
            "model": self.model.state_dict(),
            "good": self.good.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "schedulers": [s and s.state_dict() for s in self.schedulers],
            "precision": self.fabric.strategy.precision.state_dict(),
            "rng": rng_state(self.fabric.device),
        }

    def load_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Continue where `save_checkpoint` left off; the plan has been checked.

        Raises:
            CheckpointError: if the checkpoint is of another training, or damaged; nothing has
                changed then.
        """
        try:
            if not self.processes.alone:
                state = self.with_own(state)
            self.check_checkpoint(state)
            self.model.load_state_dict(state["model"])
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(state["optimizers"][name])
            for scheduler, saved in zip(self.schedulers, state["schedulers"], strict=True):
                if scheduler is not None:
                    scheduler.load_state_dict(saved)
            self.good.load_state_dict(state["good"])
            self.history = History.of(state["history"])
            self.at = Position(**state["position"])
            self.objective.names = state["names"]
            self.fabric.strategy.precision.load_state_dict(state["precision"])
            set_rng_state(state["rng"], self.fabric.device)
        except Exception as error:  # of many kinds, as optimizers of yours may raise any
            raise CheckpointError(
                f"the checkpoint is of another training, or damaged: {error}"
            ) from error
        if self.is_to_continue():
            self.history.stopped = "running"

    def check_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Raise an error of some kind unless a checkpoint can be one of this training.

        Optimizers and schedulers of yours look after their states themselves.
        """
        fresh, names = self.state(), state["names"]
        for part in ("model", "precision"):
            check_alike(part, state[part], fresh[part])
        for part in ("newer", "older"):
            check_alike(part, state["good"][part], fresh["good"][part])
        check_alike("cpu", state["rng"]["cpu"], fresh["rng"]["cpu"])
        check_alike("optimizers", dict.fromkeys(state["optimizers"]), dict.fromkeys(self.groups))
        if isinstance(self.optimizer, str):
            for name, parameters in self.groups.items():
                saved = state["optimizers"][name]
                like = state_like(self.optimizer, parameters, saved["state"])
                check_alike(name, saved, {**fresh["optimizers"][name], "state": like})
        if isinstance(self.scheduler, str):
            check_alike("schedulers", state["schedulers"], fresh["schedulers"])
        history, at = History.of(state["history"]), Position(**state["position"])
        done = history.num_epochs
        width = len(names) + self.objective.tally_size
        at.check(epoch=done, num_batches=self.batches.num_batches, num_terms=width)
        newer, older = state["good"]["epochs"]
        for epoch in (newer, older):
            if epoch is not None:
                check_integer("good.epochs", epoch, minimum=0, maximum=done - 1)
        held_out = [] if self.held_out is None else names
        if done:
            check_alike("history", [*history.train, *history.validation], [*names, *held_out])
        if names and self.model.monitored not in names:
            raise CheckpointError(f"names={names!r}: expected {self.model.monitored!r} among them")

    def is_to_continue(self) -> bool:
        """Return whether a loaded training has epochs left, perhaps by a larger plan."""
        plan, at = self.plan, self.at
        if self.history.stopped == "patience":
            return at.epoch < plan.epochs and (
                plan.patience is None or at.bad_epochs < plan.patience
            )
        return self.history.stopped != "callback" and at.epoch < plan.epochs


def _trainable_groups(model: Trainable) -> dict[str, list[nn.Parameter]]:
    groups = {
        name: [parameter for parameter in parameters if parameter.requires_grad]
        for name, parameters in model.optimization_groups().items()
    }
    if "model" not in groups:
        raise ConfigurationError(
            f"{type(model).__name__}.optimization_groups() has {sorted(groups)}: expected "
            "'model', whose objective is the one that says which epoch is best"
        )
    if empty := [name for name, parameters in groups.items() if not parameters]:
        raise ConfigurationError(f"model has nothing to train in {', '.join(empty)}")
    return groups
