"""The engine of `tune`: trials of an objective, proposed by Optuna, kept in a folder.

What a trial gave is a row of a table of runs (`chartae.runs`), which shares trials among processes
and machines. Optuna's study, a journal in the same folder, remembers what was proposed.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chartae.checks import check_integer
from chartae.errors import ConfigurationError, DivergenceError
from chartae.evaluation.spaces import Interval, Space
from chartae.randomness import derive_seed
from chartae.runs import Outcome, Progress, Row, RunTable, execute
from chartae.runs.settings import Settings

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

__all__ = ["JOURNAL", "Objective", "Pruned", "Report", "SearchResult", "Trial", "search"]

JOURNAL = "journal.log"
"""The file of Optuna's study in the folder."""
STUDY = "chartae"
RUN = "run"
"""Attribute of a trial of Optuna: the number of ours. A killed one has two of Optuna."""
STARTUP = 5
"""Number of complete trials before any is pruned."""

Report = Callable[[int, float], bool]
"""A function of the epoch and a loss; True if the trial is to be pruned, as others were better."""
Objective = Callable[[Mapping[str, Any], Report], Outcome]
"""A function of arguments by name; its outcome has a figure ``"value"``.

It raises `Pruned` if it has stopped because of a report, and `DivergenceError`.
"""


class Pruned(Exception):  # not an error: an end
    """A trial was stopped early, because others were better at the same epoch."""


@dataclass(frozen=True)
class _Search:
    """What all trials share."""

    objective: Objective
    space: Space
    first: Mapping[str, Any]
    higher: bool
    warmup: int
    seed: int
    folder: Path


@dataclass(frozen=True)
class Trial:
    """One trial of a search.

    Attributes:
        number: its number, from 0.
        state: ``"complete"``, ``"pruned"``, ``"diverged"`` or ``"failed"``.
        arguments: what was tried, by name; empty if it failed.
        value: the figure; NaN unless it is complete.
        row: its row, with all figures, its time, and the error if it failed.
    """

    number: int
    state: str
    arguments: Mapping[str, Any]
    value: float
    row: Row = field(repr=False)


@dataclass(frozen=True)
class SearchResult:
    """The trials of a search.

    Attributes:
        table: their rows.
        higher: whether a higher value is better.
    """

    table: RunTable
    higher: bool

    @property
    def trials(self) -> list[Trial]:
        """All trials that have ended, by their number."""
        return [_trial_of(row) for row in self.table]

    @property
    def complete(self) -> list[Trial]:
        """The trials with a value."""
        return [trial for trial in self.trials if trial.state == "complete"]

    @property
    def best(self) -> Trial:
        """The trial with the best value; of equal ones the first.

        Raises:
            DivergenceError: if no trial is complete.
        """
        if not self.complete:
            states = [trial.state for trial in self.trials]
            told = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states)) or "none"
            errors = [row.error for row in self.table.failed]
            why = errors[0] if errors else "try lower learning rates"
            raise DivergenceError(f"no trial gave a value ({told}): {why}")
        sign = -1.0 if self.higher else 1.0
        return min(self.complete, key=lambda trial: sign * trial.value)

    def importances(self) -> dict[str, float]:
        """Return how much each argument mattered, the most important first; they add up to 1.

        It is the share of each argument in the variance of the value among good trials (PED-ANOVA:
        Watanabe, Bansal & Hutter 2023, arXiv:2304.10255), as Optuna computes it. Empty with fewer
        than ten complete trials, or if all values are equal.
        """
        values = {trial.value for trial in self.complete}
        if len(self.complete) < 10 or len(values) < 2:
            return {}
        with _quiet():
            from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

            study = load_study(self.table.folder)
            return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())


def search(
    objective: Objective,
    space: Space,
    *,
    trials: int,
    folder: str | Path,
    context: Settings,
    higher: bool = False,
    first: Mapping[str, Any] | None = None,
    warmup: int = 0,
    seed: int = 0,
    workers: int = 1,
    scheduler: str | None = None,
    budget: float | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> SearchResult:
    """Look for the arguments with the best value of an objective, in trials kept in a folder.

    Arguments are proposed by the tree-structured Parzen estimator (Bergstra et al. 2011) of Optuna,
    the first ten at random. A trial whose reports are worse than the median of the others at the
    same epoch is pruned. One that diverges is marked, and so is one with an error. After a kill or
    Ctrl-C, the same call goes on; several calls on one folder share the trials. With one worker,
    the same seed gives the same trials, whether the search was interrupted or not.

    Args:
        objective: a function that worker processes can call.
        space: the arguments, with their values.
        trials: number of trials, those of an earlier call too.
        folder: where trials are kept.
        context: what tells this search from others, as JSON values; the space and the seed are
            added. A folder of another search is refused.
        higher: whether a higher value is better.
        first: arguments of the first trial; those outside of the space are proposed instead.
        warmup: no trial is pruned before this epoch.
        seed: seed of the proposals.
        workers: number of processes, with one thread each; 1 runs in this process.
        scheduler: address of a Dask scheduler, whose workers take the place of the processes.
        budget: seconds of wall-clock time; trials that do not fit are left out.
        progress: called whenever a trial ends.

    Raises:
        ConfigurationError: if Optuna is missing, for a number out of range, an empty space, or the
            folder of another search.
    """
    check_integer("trials", trials, minimum=1)
    check_integer("workers", workers, minimum=1)
    check_integer("seed", seed, minimum=0)
    if not space:
        raise ConfigurationError("space is empty: expected one argument at least")
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            "a search needs the package optuna: pip install 'chartae[tune]'"
        ) from error
    inside = {name: v for name, v in (first or {}).items() if name in space and v in space[name]}
    shared = _Search(objective, space, inside, higher, warmup, seed, Path(folder).resolve())
    described = {
        name: [*map(repr, values.ends), isinstance(values, Interval) and values.log]
        for name, values in space.items()
    }
    table = execute(
        _run,
        [{"trial": number} for number in range(trials)],
        folder=folder,
        context={**context, "space": described, "higher": higher, "seed": seed},
        shared=shared,
        jobs=workers,
        scheduler=scheduler,
        budget=budget,
        retries=0,
        progress=progress,
    )
    return SearchResult(table, higher)


# --- one trial ------------------------------------------------------------------------------------


def _run(settings: Settings, shared: _Search, attempt: int) -> Outcome:
    """Perform a trial; an earlier one of the same number was killed, or its row was not written."""
    number: int = settings["trial"]
    with _quiet():
        study = _open(shared, number)
        earlier = [t for t in study.get_trials(deepcopy=False) if t.user_attrs.get(RUN) == number]
        if earlier and earlier[-1].state.is_finished() and earlier[-1].state.name != "FAIL":
            return _repeat(shared, earlier[-1])
        if earlier:
            fixed = earlier[-1].params
        else:
            fixed = _encoded(shared.space, shared.first if number == 0 else {})
        for one in earlier:
            if not one.state.is_finished():
                _tell(study, one.number, "FAIL")
        return _perform(shared, study, number, fixed)


def _perform(shared: _Search, study: "Study", number: int, fixed: Mapping[str, Any]) -> Outcome:
    """Ask Optuna for a trial, perform it, and tell Optuna the result."""
    trial = _ask(study, shared.space, fixed)
    trial.set_user_attr(RUN, number)
    arguments = _decoded(shared.space, trial.params)
    sign = -1.0 if shared.higher else 1.0

    def report(epoch: int, loss: float) -> bool:
        trial.report(sign * loss, epoch)  # Optuna compares reports as it compares values
        return bool(trial.should_prune())

    try:
        outcome = shared.objective(arguments, report)
        value = float(outcome.figures["value"])
        if not math.isfinite(value):
            raise DivergenceError(f"the value became {value}")
    except Pruned:
        _tell(study, trial.number, "PRUNED")
        return Outcome({"state": "pruned", "arguments": arguments})
    except DivergenceError as error:
        # Not as failed, which Optuna would forget: it would propose the like again.
        _tell(study, trial.number, "PRUNED")
        return Outcome({"state": "diverged", "arguments": arguments, "reason": str(error)})
    except BaseException:
        _tell(study, trial.number, "FAIL")
        raise
    best = _is_best(study, value, shared.higher)
    _tell(study, trial.number, "COMPLETE", value)
    figures = {"state": "complete", "arguments": arguments, **outcome.figures}
    return Outcome(figures, outcome.files if best else {})


def _repeat(shared: _Search, trial: "FrozenTrial") -> Outcome:
    """Perform a trial again that Optuna knows, but whose row was lost."""
    arguments = _decoded(shared.space, trial.params)
    try:
        if trial.state.name == "PRUNED":
            raise Pruned
        outcome = shared.objective(arguments, lambda epoch, loss: False)
    except Pruned:
        return Outcome({"state": "pruned", "arguments": arguments})
    figures = {"state": "complete", "arguments": arguments, **outcome.figures}
    return Outcome(figures, outcome.files)


def _is_best(study: "Study", value: float, higher: bool) -> bool:
    """Return whether no complete trial is better. Only then its files may be of use later."""
    with suppress(ValueError):  # there is no complete one
        return value >= study.best_value if higher else value <= study.best_value
    return True


# --- Optuna ---------------------------------------------------------------------------------------


def _open(shared: _Search, number: int) -> "Study":
    """Return the study, with the sampler of one trial.

    Each trial has its own seed. What it draws does not depend on the process that draws it.
    """
    import optuna

    seed = derive_seed(shared.seed, "trial", number) % 2**32
    return optuna.create_study(
        study_name=STUDY,
        storage=_storage(shared.folder),
        direction="maximize" if shared.higher else "minimize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=shared.warmup),
        load_if_exists=True,
    )


def load_study(folder: Path) -> "Study":
    """Return Optuna's study in a folder."""
    import optuna

    return optuna.load_study(study_name=STUDY, storage=_storage(folder))


def _storage(folder: Path) -> Any:
    from filelock import FileLock
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path = folder / JOURNAL
    # The system releases this lock when its process dies. Those of Optuna are files that a killed
    # process leaves behind, for which others would wait half a minute.
    lock: Any = FileLock(f"{path}.lock")
    _repair(path, lock)
    return JournalStorage(JournalFileBackend(str(path), lock))


def _repair(path: Path, lock: Any) -> None:
    """Cut off the end of a line that a killed process has begun; Optuna would append to it."""
    if not path.exists() or path.stat().st_size == 0:
        return
    lock.acquire()
    try:
        with path.open("r+b") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
    finally:
        lock.release()


def _ask(study: "Study", space: Space, fixed: Mapping[str, Any]) -> Any:
    """Return a new trial of Optuna; ``fixed`` are values in its own form."""
    from optuna.samplers import PartialFixedSampler

    usual = study.sampler
    if fixed:
        study.sampler = PartialFixedSampler(dict(fixed), usual)
    try:
        return study.ask({name: _distribution(values) for name, values in space.items()})
    finally:
        study.sampler = usual


def _tell(study: "Study", number: int, state: str, value: float | None = None) -> None:
    from optuna.trial import TrialState

    study.tell(number, value, state=TrialState[state], skip_if_finished=True)


def _distribution(values: Any) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(values, Interval):
        return CategoricalDistribution([json.dumps(value) for value in values.values])
    kind = IntDistribution if values.integer else FloatDistribution
    return kind(values.low, values.high, log=values.log)  # type: ignore[arg-type]


def _encoded(space: Space, arguments: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, value in arguments.items():
        one = space[name]
        # The choice that is equal: 1.0 may be given for 1.
        found[name] = (
            value if isinstance(one, Interval) else json.dumps(one.ends[one.ends.index(value)])
        )
    return found


def _decoded(space: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments in the order of the space; Optuna has choices as texts of JSON."""
    return {
        name: values[name] if isinstance(one, Interval) else json.loads(values[name])
        for name, one in space.items()
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna's messages and its warnings of new features from the user."""
    import warnings

    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _trial_of(row: Row) -> Trial:
    figures, number = row.figures, row.settings["trial"]
    if row.failed:
        return Trial(number, "failed", {}, math.nan, row)
    value = figures["value"] if figures["state"] == "complete" else math.nan
    return Trial(number, figures["state"], figures["arguments"], value, row)
