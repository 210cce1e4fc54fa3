"""What a checkpoint of a training holds, and how the training continues from it."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from chartae.checks import check_integer
from chartae.errors import CheckpointError
from chartae.training.history import History
from chartae.training.optimizers import state_like
from chartae.training.processes import Processes
from chartae.training.state import Position, check_alike, rng_state, set_rng_state

if TYPE_CHECKING:
    from chartae.training.trainer import Trainer

__all__ = ["continue_from", "state_of"]

State = Mapping[str, Any]


def state_of(trainer: "Trainer") -> dict[str, Any]:
    """Return where the training stands, and all that what follows depends on.

    All processes must call it; it has the terms and generators of each.
    """
    state = _own_state(trainer)
    return state if trainer.processes.alone else _with_all(trainer.processes, state)


def continue_from(trainer: "Trainer", state: State) -> None:
    """Continue a training from a state of `state_of`; the plan has been checked.

    Raises:
        CheckpointError: if the checkpoint is of another training, or damaged; nothing has
            changed then.
    """
    descent = trainer.descent
    try:
        if not trainer.processes.alone:
            state = _with_own(trainer.processes, state)
        _check(trainer, state)
        trainer.model.load_state_dict(state["model"])
        for name, optimizer in descent.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        for scheduler, saved in zip(trainer.schedulers, state["schedulers"], strict=True):
            if scheduler is not None:
                scheduler.load_state_dict(saved)
        trainer.good.load_state_dict(state["good"])
        trainer.history = History.of(state["history"])
        trainer.at = Position(**state["position"])
        descent.objective.names = state["names"]
        trainer.fabric.strategy.precision.load_state_dict(state["precision"])
        set_rng_state(state["rng"], trainer.fabric.device)
    except Exception as error:  # of many kinds, as optimizers of yours may raise any
        raise CheckpointError(
            f"the checkpoint is of another training, or damaged: {error}"
        ) from error
    if _is_to_continue(trainer):
        trainer.history.stopped = "running"


def _own_state(trainer: "Trainer") -> dict[str, Any]:
    """Return the state of this process."""
    descent = trainer.descent
    return {
        "plan": asdict(trainer.plan),
        "position": vars(trainer.at),
        "names": descent.objective.names,
        "history": asdict(trainer.history),
        "model": trainer.model.state_dict(),
        "good": trainer.good.state_dict(),
        "optimizers": {name: o.state_dict() for name, o in descent.optimizers.items()},
        "schedulers": [s and s.state_dict() for s in trainer.schedulers],
        "precision": trainer.fabric.strategy.precision.state_dict(),
        "rng": rng_state(trainer.fabric.device),
    }


def _with_all(processes: Processes, state: dict[str, Any]) -> dict[str, Any]:
    """Return a state with the terms and generators of every process, stacked."""
    gathered, position = processes.gathered, state["position"]
    terms = gathered(torch.stack(position["terms"])).unbind(1) if position["terms"] else ()
    rng = {kind: gathered(of_kind) for kind, of_kind in state["rng"].items()}
    return {**state, "position": {**position, "terms": list(terms)}, "rng": rng}


def _with_own(processes: Processes, state: State) -> State:
    """Return the part of this process of a state from `_with_all`."""
    rank, position = processes.rank, state["position"]
    # torch crashes if a generator is set to a view.
    terms = [of_all[rank].clone() for of_all in position["terms"]]
    rng = {kind: of_all[rank].clone() for kind, of_all in state["rng"].items()}
    return {**state, "position": {**position, "terms": terms}, "rng": rng}


def _check(trainer: "Trainer", state: State) -> None:
    """Raise an error of some kind unless a state can be one of this training.

    Optimizers and schedulers of yours look after their states themselves.
    """
    groups, objective = trainer.descent.groups, trainer.descent.objective
    fresh, names = _own_state(trainer), state["names"]
    for part in ("model", "precision"):
        check_alike(part, state[part], fresh[part])
    for part in ("newer", "older"):
        check_alike(part, state["good"][part], fresh["good"][part])
    check_alike("cpu", state["rng"]["cpu"], fresh["rng"]["cpu"])
    check_alike("optimizers", dict.fromkeys(state["optimizers"]), dict.fromkeys(groups))
    if isinstance(trainer.optimizer, str):
        for name, parameters in groups.items():
            saved = state["optimizers"][name]
            like = state_like(trainer.optimizer, parameters, saved["state"])
            check_alike(name, saved, {**fresh["optimizers"][name], "state": like})
    if isinstance(trainer.scheduler, str):
        check_alike("schedulers", state["schedulers"], fresh["schedulers"])
    history, at = History.of(state["history"]), Position(**state["position"])
    done = history.num_epochs
    width = len(names) + objective.tally_size
    at.check(epoch=done, num_batches=trainer.batches.num_batches, num_terms=width)
    newer, older = state["good"]["epochs"]
    for epoch in (newer, older):
        if epoch is not None:
            check_integer("good.epochs", epoch, minimum=0, maximum=done - 1)
    held_out = [] if trainer.held_out is None else names
    if done:
        check_alike("history", [*history.train, *history.validation], [*names, *held_out])
    if names and trainer.model.monitored not in names:
        raise CheckpointError(f"names={names!r}: expected {trainer.model.monitored!r} among them")


def _is_to_continue(trainer: "Trainer") -> bool:
    """Return whether a loaded training has epochs left, perhaps by a larger plan."""
    plan, at, stopped = trainer.plan, trainer.at, trainer.history.stopped
    if stopped == "patience":
        return at.epoch < plan.epochs and (plan.patience is None or at.bad_epochs < plan.patience)
    return stopped != "callback" and at.epoch < plan.epochs
