"""Execution of a table of runs: on this machine by joblib, or on a Dask cluster."""

import logging
import os
import socket
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from chartae.checks import check_integer, check_number
from chartae.errors import ConfigurationError, DivergenceError
from chartae.runs.settings import Settings, canonical, run_key
from chartae.runs.store import Store
from chartae.runs.table import Outcome, Row, RunTable, finite

__all__ = ["Cost", "Function", "Progress", "execute"]

logger = logging.getLogger(__name__)

Function = Callable[[Settings, Any, int], Outcome]
"""A run: it takes the settings, what all runs share, and the number of the attempt, from 0."""
Cost = Callable[[Settings], tuple[str, float]]
"""The kind of a run and its relative cost among those of its kind, above 0."""

DEATHS = 2
"""How often the process of a run may die before the run counts as failed."""
WATCH = 1.0
"""Seconds between two looks of a worker process whether its coordinator is alive."""
PAUSE = 0.5
"""Seconds between two looks for the rows of another coordinator."""
CONNECTION = 10.0
"""Seconds to wait for a scheduler."""


@dataclass(frozen=True)
class Progress:
    """The state of a table of runs.

    Attributes:
        done: finished runs, those of an earlier start and failed ones too.
        total: all runs that are not left out.
        failed: failed ones.
        seconds_left: expected time until the end; None while nothing has been measured.
    """

    done: int
    total: int
    failed: int
    seconds_left: float | None


def execute(
    function: Function,
    settings: Sequence[Settings],
    *,
    folder: str | Path,
    context: Settings,
    shared: Any = None,
    jobs: int | None = None,
    scheduler: str | None = None,
    budget: float | None = None,
    cost: Cost = lambda settings: ("", 1.0),
    retries: int = 1,
    again: bool = False,
    strict: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> RunTable:
    """Execute the runs that the folder does not have yet, and return the table of all.

    A run that raises `DivergenceError` is repeated ``retries`` times with the next number of the
    attempt; the function then takes a lower learning rate. A run that raises another error has a
    row with the error; the others go on, and the next call tries it again. Runs whose process dies
    are repeated once. After a kill or Ctrl-C, the same call continues; at most unfinished runs are
    lost. Several calls on one folder, also on several machines, share the work.

    Args:
        function: called as ``function(settings, shared, attempt)`` in worker processes with one
            thread each; its module must be importable there.
        settings: JSON values by name, all different. They determine the row, so the seed is one.
        folder: where rows are kept.
        context: what all rows have in common, as JSON values, such as a hash of the data. A folder
            of another context is refused.
        shared: an object that all runs read; it is sent to the workers.
        jobs: number of processes; None takes one for each core, 1 runs in this process.
        scheduler: address of a Dask scheduler, whose workers take the place of the processes.
        budget: seconds of wall-clock time. Runs whose expected end is later are left out.
        cost: the kind and the relative cost of a run; from finished ones of its kind follows the
            expected time of the others.
        retries: see above.
        again: True to execute runs again that the folder has.
        strict: True to raise the error of a run, in place of a row with the error.
        progress: called in this process whenever a run ends.

    Raises:
        ConfigurationError: for equal settings, a number out of range, a folder of other runs, or a
            scheduler that does not answer.

    >>> from tempfile import TemporaryDirectory
    >>> def square(settings, shared, attempt):
    ...     return Outcome({"square": settings["x"] ** 2})
    >>> with TemporaryDirectory() as folder:
    ...     table = execute(square, [{"x": 2}, {"x": 3}], folder=folder, context={}, jobs=1)
    >>> [row.figures["square"] for row in table]
    [4, 9]
    """
    if jobs is not None:
        check_integer("jobs", jobs, minimum=1)
    if budget is not None:
        check_number("budget", budget, above=0.0)
    check_integer("retries", retries, minimum=0)
    keys = [run_key(one) for one in settings]
    if len(set(keys)) < len(keys):
        twice = next(one for one, key in zip(settings, keys, strict=True) if keys.count(key) > 1)
        raise ConfigurationError(
            f"settings={dict(twice)!r} are given twice: expected different runs"
        )
    with Store(folder, context) as store, _engine(jobs, scheduler, shared) as engine:
        for one in settings if again else ():
            store.remove(one)
        plan = _Plan(settings, store, cost, budget, engine.workers, progress)
        engine.perform(partial(_run, function, retries, strict), plan)
        return plan.table()


# --- the order of runs ----------------------------------------------------------------------------


class _Plan:
    """What is to be done: gives out runs one by one, and takes their rows.

    With a budget the first run of each kind comes first, so that its cost is measured early. joblib
    asks for runs from a thread of its own, so public methods hold a lock.
    """

    def __init__(
        self,
        settings: Sequence[Settings],
        store: Store,
        cost: Cost,
        budget: float | None,
        workers: int,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.settings, self.store, self.cost = settings, store, cost
        self.end = None if budget is None else time.monotonic() + budget
        self.workers, self.progress = workers, progress
        self.lock = threading.RLock()
        self.rows: dict[str, Row] = {}
        self.rates: dict[str, list[float]] = {}
        self.left_out: dict[str, str] = {}
        self.deaths: dict[str, int] = {}
        self.suspects: set[str] = set()
        self.running: dict[str, tuple[Settings, float]] = {}
        self.waiting = list(settings)
        for one in settings:
            row = store.read(one)
            if row is not None and not row.failed:
                self._keep(row)
        self.waiting = [one for one in settings if run_key(one) not in self.rows]
        if budget is not None:
            seen = {cost(row.settings)[0] for row in self.rows.values()}
            self.waiting.sort(key=lambda one: not _is_new(cost(one)[0], seen))
        self._tell()

    def next(self) -> Settings | None:
        """Return a run to start now, claimed; None if there is none now."""
        with self.lock:
            for one in list(self.waiting):
                key = run_key(one)
                if (late := self._too_late(one)) is not None:
                    self.left_out[key] = late
                elif not self.store.claim(key):  # another coordinator has it
                    continue
                elif (row := self.store.read(one)) is not None and not row.failed:
                    self._keep(row)  # it has just finished it
                    self.store.release(key)
                else:
                    self.waiting.remove(one)
                    self.running[key] = one, time.monotonic()
                    return one
                self.waiting.remove(one)
            return None

    @property
    def finished(self) -> bool:
        """Whether no run is left for this coordinator or another."""
        return not self.waiting and not self.running

    def take(self, row: Row, files: dict[str, bytes]) -> None:
        """Keep the row of a run that has ended."""
        with self.lock:
            self.store.write(row, files)
            self.running.pop(row.key)
            self.suspects.discard(row.key)
            self.store.release(row.key)
            if row.failed:
                logger.warning("run %s failed: %s", row.key, row.error)
            self._keep(row)
            self._tell()

    def processes_died(self, error: str) -> None:
        """Give all running runs back; joblib stops every process when one dies.

        If there are several, each is a suspect, and is run alone next.
        """
        with self.lock:
            ones = [one for one, _ in self.running.values()]
            if len(ones) == 1:
                self.died(ones[0], error)
                return
            for one in ones:
                self.suspects.add(run_key(one))
                self._give_back(one)

    def died(self, one: Settings, error: str) -> None:
        """Give a run whose process has died back, or fail it."""
        key = run_key(one)
        with self.lock:
            self.deaths[key] = self.deaths.get(key, 0) + 1
            if self.deaths[key] >= DEATHS:
                self.take(Row(one, {}, error=error, attempts=DEATHS), {})
            else:
                self._give_back(one)

    def _give_back(self, one: Settings) -> None:
        key = run_key(one)
        self.running.pop(key)
        self.store.release(key)
        self.waiting.insert(0, one)

    def table(self) -> RunTable:
        """Return the rows in the order of the settings."""
        keys = {run_key(one): one for one in self.settings}
        return RunTable(
            tuple(self.rows[key] for key in keys if key in self.rows),
            self.store.folder,
            tuple((keys[key], reason) for key, reason in self.left_out.items()),
        )

    def _keep(self, row: Row) -> None:
        self.rows[row.key] = row
        if not row.failed:
            kind, amount = self.cost(row.settings)
            self.rates.setdefault(kind, []).append(row.seconds / amount)

    def _expected(self, one: Settings) -> float | None:
        """Return the expected seconds of a run from finished ones; None before the first."""
        kind, amount = self.cost(one)
        rates = self.rates.get(kind) or [rate for kind in self.rates for rate in self.rates[kind]]
        return amount * statistics.median(rates) if rates else None

    def _too_late(self, one: Settings) -> str | None:
        if self.end is None:
            return None
        left = self.end - time.monotonic()
        expected = self._expected(one) or 0.0
        if left > 0.0 and expected <= left:
            return None
        return f"it would take about {expected:.0f} s, and {max(0.0, left):.0f} s were left"

    def _tell(self) -> None:
        if self.progress is None:
            return
        started = [(one, time.monotonic() - start) for one, start in self.running.values()]
        rest = [*((one, 0.0) for one in self.waiting), *started]
        times = [(self._expected(one), spent) for one, spent in rest]
        known = [max(0.0, expected - spent) for expected, spent in times if expected is not None]
        seconds = sum(known) / self.workers if len(known) == len(rest) else None
        failed = sum(row.failed for row in self.rows.values())
        total = len(self.settings) - len(self.left_out)
        self.progress(Progress(len(self.rows), total, failed, seconds))


def _is_new(kind: str, seen: set[str]) -> bool:
    if kind in seen:
        return False
    seen.add(kind)
    return True


# --- one run --------------------------------------------------------------------------------------


Result = tuple[Row, dict[str, bytes]]
"""A row and its files."""


def _run(function: Function, retries: int, strict: bool, one: Settings, shared: Any) -> Result:
    """Call the function, again after a divergence; return the row and its files."""
    start, start_cpu = time.perf_counter(), time.process_time()
    outcome, error, attempt = Outcome({}), "", 0
    for attempt in range(retries + 1):
        try:
            with _one_thread():
                made = function(one, shared, attempt)
            canonical(finite(made.figures))  # what is not JSON fails this row, not the table
            outcome, error = made, ""
            break
        except DivergenceError as divergence:
            error = f"DivergenceError: {divergence}"
        except Exception as other:
            if strict:
                raise
            error = f"{type(other).__name__}: {other}"
            break
    if strict and error:
        raise DivergenceError(error.partition(": ")[2])
    row = Row(
        one,
        outcome.figures,
        error=error,
        attempts=attempt + 1,
        seconds=time.perf_counter() - start,
        cpu_seconds=time.process_time() - start_cpu,
        memory=_peak_memory(),
        host=socket.gethostname(),
        files=tuple(outcome.files),
    )
    return row, dict(outcome.files)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit torch to one thread, so that results do not depend on the number of jobs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _peak_memory() -> int:
    """Return the largest memory of this process so far in bytes; 0 where it is not known."""
    if sys.platform == "win32":
        return 0
    import resource

    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak if sys.platform == "darwin" else peak * 1024


# --- engines --------------------------------------------------------------------------------------


@contextmanager
def _engine(jobs: int | None, scheduler: str | None, shared: Any) -> Iterator[Any]:
    if scheduler is not None:
        with _cluster(scheduler) as client:
            yield _Dask(client, shared)
        return
    jobs = jobs or os.cpu_count() or 1
    if jobs == 1:
        yield _Here(shared)
        return
    yield _Processes(jobs, shared)


class _Here:
    """Runs one after the other in this process."""

    workers = 1

    def __init__(self, shared: Any) -> None:
        self.shared = shared

    def perform(self, run: Callable[[Settings, Any], Result], plan: _Plan) -> None:
        while not plan.finished:
            one = plan.next()
            if one is not None:
                plan.take(*run(one, self.shared))
            elif plan.waiting:
                time.sleep(PAUSE)


class _Processes:
    """Worker processes of joblib."""

    def __init__(self, workers: int, shared: Any) -> None:
        self.workers, self.shared = workers, shared

    def perform(self, run: Callable[[Settings, Any], Result], plan: _Plan) -> None:
        from joblib import Parallel, delayed, parallel_config
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        def calls() -> Iterator[Any]:
            # joblib asks for the next call whenever a worker is free.
            while (one := plan.next()) is not None:
                yield delayed(_as_worker_of)(os.getpid(), run, one, self.shared)
                if plan.suspects:
                    return

        while not plan.finished:
            if not plan.running and plan.waiting:
                with parallel_config("loky", n_jobs=self.workers, inner_max_num_threads=1):
                    parallel = Parallel(
                        return_as="generator_unordered", pre_dispatch=self.workers, batch_size=1
                    )
                    try:
                        with _aborted_at_end(parallel(calls())) as results:
                            for row, files in results:
                                plan.take(row, files)
                    except TerminatedWorkerError as error:
                        plan.processes_died(f"its process died: {str(error).splitlines()[0]}")
            if plan.waiting:
                time.sleep(PAUSE)


@contextmanager
def _aborted_at_end(
    results: Generator[Result, None, None],
) -> Iterator[Generator[Result, None, None]]:
    """Stop the runs in flight when the block ends by an error or Ctrl-C, not when it is forgotten.

    An interpreter keeps the frames of the last error, and the workers would go on until then.
    """
    try:
        yield results
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of joblib, about runs without a result
            results.close()


def _as_worker_of(
    coordinator: int, run: Callable[[Settings, Any], Result], one: Settings, shared: Any
) -> Result:
    """Perform a run in a worker process, which ends with its coordinator."""
    _end_with(coordinator)
    return run(one, shared)


@cache
def _end_with(coordinator: int) -> None:
    """Start a thread that ends this process soon after its parent has died, even by a kill.

    Otherwise it would finish a run whose row nobody takes, beside a new coordinator. Windows does
    not tell; there the process goes on to the end of its run.
    """

    def watch() -> None:
        while os.getppid() == coordinator:
            time.sleep(WATCH)
        os._exit(1)

    if os.getppid() == coordinator:
        threading.Thread(target=watch, daemon=True).start()


class _Dask:
    """Workers of a Dask cluster."""

    def __init__(self, client: Any, shared: Any) -> None:
        self.client = client
        self.shared = client.scatter(shared, broadcast=True, hash=False)

    @property
    def workers(self) -> int:
        """The number of runs that the cluster executes at once."""
        threads: dict[str, int] = self.client.nthreads()
        return max(1, sum(threads.values()))

    def perform(self, run: Callable[[Settings, Any], Result], plan: _Plan) -> None:
        from distributed import KilledWorker, as_completed

        futures: dict[Any, Settings] = {}
        while not plan.finished:
            while len(futures) < self.workers and (one := plan.next()) is not None:
                # The settings are in the key of a run, but an earlier result must not be taken.
                future = self.client.submit(run, one, self.shared, pure=False, retries=DEATHS - 1)
                futures[future] = one
            if not futures:
                if plan.waiting:
                    time.sleep(PAUSE)
                continue
            future = next(iter(as_completed(list(futures))))
            one = futures.pop(future)
            error = future.exception()
            if error is None:
                plan.take(*future.result())
            elif isinstance(error, KilledWorker):
                plan.died(one, f"its workers died: {error}")
            else:  # of a strict run
                raise error


@contextmanager
def _cluster(address: str) -> Iterator[Any]:
    try:
        from distributed import Client
    except ImportError as error:
        raise ConfigurationError(
            f"scheduler={address!r} needs Dask: install chartae[cluster]"
        ) from error
    try:
        client = Client(address, timeout=CONNECTION, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise ConfigurationError(
            f"scheduler={address!r} does not answer: expected the address of a running Dask "
            "scheduler, such as tcp://host:8786"
        ) from error
    with client, client.as_current():
        yield client
