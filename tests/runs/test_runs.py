"""Tables of runs: resumption, failures, budgets, claims."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from chartae.errors import ConfigurationError, DivergenceError
from chartae.runs import Outcome, Progress, execute, grid, run_key
from chartae.runs.store import SILENCE, Store
from chartae.runs.table import write_table

Settings = Mapping[str, Any]
LINUX = pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
CONTEXT = {"data": "abc", "version": "1"}


def square(settings: Settings, shared: Any, attempt: int) -> Outcome:
    x = settings["x"]
    if shared is not None:
        with Path(shared).open("a") as file:
            file.write(f"{x}\n")
    return Outcome({"square": x * x, "attempt": attempt}, {"x.txt": str(x).encode()})


def slow_square(settings: Settings, shared: Any, attempt: int) -> Outcome:
    time.sleep(0.02)
    return square(settings, shared, attempt)


def calls(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def strip(table: Any) -> list[dict[str, Any]]:
    return [{"settings": dict(r.settings), "figures": dict(r.figures)} for r in table]


class TestSettings:
    def test_the_hash_depends_on_every_value_and_on_no_order(self) -> None:
        keys = {run_key(s) for s in grid(a=[1, 1.5, "1", None], b=[[1], [2]])}
        assert len(keys) == 8
        assert run_key({"a": 1, "b": 2}) == run_key({"b": 2, "a": 1})

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
    def test_what_is_not_finite_json_is_refused(self, value: Any) -> None:
        with pytest.raises(ConfigurationError, match="not finite JSON"):
            run_key({"a": value})


class TestExecute:
    def test_rows_come_in_the_order_of_the_settings(self, tmp_path: Path) -> None:
        settings = [{"x": x} for x in (3, 1, 2)]
        table = execute(square, settings, folder=tmp_path, context=CONTEXT, jobs=1)
        assert [row.figures["square"] for row in table] == [9, 1, 4]
        assert table.file(table[0], "x.txt").read_bytes() == b"3"
        assert not table.failed
        assert not table.left_out

    def test_a_row_that_is_there_is_not_run_again(self, tmp_path: Path) -> None:
        settings = [{"x": x} for x in range(4)]
        log = tmp_path / "log"
        options = {"folder": tmp_path / "t", "context": CONTEXT, "jobs": 1, "shared": str(log)}
        execute(square, settings[:2], **options)
        execute(square, settings, **options)
        assert calls(log) == [0, 1, 2, 3]

    def test_a_damaged_row_is_run_again(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings = [{"x": x} for x in range(3)]
        options = {"folder": tmp_path, "context": CONTEXT, "jobs": 1}
        before = execute(square, settings, **options)
        row = tmp_path / "rows" / f"{before[1].key}.json"
        for text in ("{", "[]", json.dumps({"settings": {"x": 1}}), row.read_text()[:-40]):
            row.write_text(text)
            assert strip(execute(square, settings, **options)) == strip(before)
            assert "damaged" in caplog.text

    def test_a_divergence_is_tried_again_and_marked(self, tmp_path: Path) -> None:
        def diverges(settings: Settings, shared: Any, attempt: int) -> Outcome:
            if attempt < settings["x"]:
                raise DivergenceError("loss is nan")
            return Outcome({"attempt": attempt})

        settings = [{"x": x} for x in range(3)]
        table = execute(diverges, settings, folder=tmp_path, context=CONTEXT, jobs=1)
        assert [row.attempts for row in table] == [1, 2, 2]
        assert [row.figures.get("attempt") for row in table] == [0, 1, None]
        assert [row.error for row in table.failed] == ["DivergenceError: loss is nan"]

    def test_an_error_fails_its_row_only_and_is_tried_again(self, tmp_path: Path) -> None:
        broken = tmp_path / "broken"
        broken.touch()

        def fails(settings: Settings, shared: Any, attempt: int) -> Outcome:
            if settings["x"] == 1 and broken.exists():
                raise KeyError("missing")
            return square(settings, None, attempt)

        settings = [{"x": x} for x in range(3)]
        options = {"folder": tmp_path / "t", "context": CONTEXT, "jobs": 1}
        table = execute(fails, settings, **options)
        assert [row.error for row in table] == ["", "KeyError: 'missing'", ""]
        assert len(table.done) == 2
        broken.unlink()
        assert not execute(fails, settings, **options).failed

    def test_ctrl_c_keeps_what_is_done(self, tmp_path: Path) -> None:
        def interrupted(settings: Settings, shared: Any, attempt: int) -> Outcome:
            if settings["x"] == 2:
                raise KeyboardInterrupt
            return square(settings, None, attempt)

        settings = [{"x": x} for x in range(4)]
        options = {"folder": tmp_path, "context": CONTEXT, "jobs": 1}
        with pytest.raises(KeyboardInterrupt):
            execute(interrupted, settings, **options)
        assert len(list((tmp_path / "rows").glob("*.json"))) == 2
        assert not list((tmp_path / "claims").iterdir())
        assert len(execute(square, settings, **options)) == 4

    def test_progress_counts_and_expects(self, tmp_path: Path) -> None:
        seen: list[Progress] = []
        settings = [{"x": x} for x in range(3)]
        execute(
            slow_square, settings, folder=tmp_path, context=CONTEXT, jobs=1, progress=seen.append
        )
        assert [p.done for p in seen] == [0, 1, 2, 3]
        assert seen[0].seconds_left is None
        assert seen[1].seconds_left > seen[2].seconds_left > seen[3].seconds_left == 0.0

    def test_numbers_that_are_not_finite_are_kept_as_none(self, tmp_path: Path) -> None:
        def odd(settings: Settings, shared: Any, attempt: int) -> Outcome:
            return Outcome({"a": float("nan"), "b": [1.0, float("inf")], "c": 2.0})

        for _ in range(2):
            table = execute(odd, [{"x": 0}], folder=tmp_path, context={}, jobs=1)
        assert table[0].figures == {"a": None, "b": [1.0, None], "c": 2.0}

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"jobs": 0}, "jobs=0"),
            ({"budget": 0.0}, "budget"),
            ({"retries": -1}, "retries=-1"),
            ({"settings": [{"x": 1}, {"x": 1}]}, "given twice"),
            ({"scheduler": "tcp://127.0.0.1:1"}, "does not answer"),
        ],
    )
    def test_bad_input_is_refused_before_work(
        self, options: dict[str, Any], match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("chartae.runs.execution.CONNECTION", 0.5)
        log = tmp_path / "log"
        given = {"settings": [{"x": 1}], "folder": tmp_path / "t", "context": {}, "jobs": 1}
        with pytest.raises(ConfigurationError, match=match):
            execute(square, shared=str(log), **(given | options))
        assert not log.exists()

    def test_a_folder_of_other_data_or_another_version_is_refused(self, tmp_path: Path) -> None:
        options = {"folder": tmp_path, "jobs": 1}
        execute(square, [{"x": 1}], context=CONTEXT, **options)
        with pytest.raises(ConfigurationError, match="data = 'abc', and this run has 'xyz'"):
            execute(square, [{"x": 1}], context=CONTEXT | {"data": "xyz"}, **options)
        with pytest.raises(ConfigurationError, match="version = '1', and this run has '2'"):
            execute(square, [{"x": 1}], context=CONTEXT | {"version": "2"}, **options)

    def test_figures_that_are_not_json_fail_their_row_only(self, tmp_path: Path) -> None:
        def odd(settings: Settings, shared: Any, attempt: int) -> Outcome:
            return Outcome({"a": object() if settings["x"] == 0 else 1})

        settings = [{"x": 0}, {"x": 1}]
        table = execute(odd, settings, folder=tmp_path, context={}, jobs=1)
        assert [row.failed for row in table] == [True, False]

    def test_a_row_whose_file_is_lost_is_run_again(self, tmp_path: Path) -> None:
        options = {"folder": tmp_path, "context": CONTEXT, "jobs": 1}
        before = execute(square, [{"x": 3}], **options)
        before.file(before[0], "x.txt").unlink()
        after = execute(square, [{"x": 3}], **options)
        assert after.file(after[0], "x.txt").read_bytes() == b"3"


class TestBudget:
    def run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
        """Execute runs that take x seconds of a clock that only they move."""
        clock = [0.0]

        def takes(settings: Settings, shared: Any, attempt: int) -> Outcome:
            clock[0] += settings["x"]
            return Outcome({})

        monkeypatch.setattr("chartae.runs.execution.time.monotonic", lambda: clock[0])
        monkeypatch.setattr("chartae.runs.execution.time.perf_counter", lambda: clock[0])
        settings = options.pop("settings")
        table = execute(takes, settings, folder=tmp_path, context={}, jobs=1, **options)
        return clock[0], table

    def test_no_run_starts_that_would_end_late(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = [{"x": 10, "seed": seed} for seed in range(5)]
        spent, table = self.run(tmp_path, monkeypatch, settings=settings, budget=35.0)
        assert spent == 30.0
        assert len(table) == 3
        reason = "it would take about 10 s, and 5 s were left"
        assert [(dict(s)["seed"], why) for s, why in table.left_out] == [(3, reason), (4, reason)]

    def test_costs_are_measured_for_each_kind_and_scaled(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = [{"kind": k, "x": x} for k, x in (("a", 1), ("a", 4), ("b", 20), ("b", 60))]
        spent, table = self.run(
            tmp_path,
            monkeypatch,
            settings=settings,
            budget=50.0,
            cost=lambda s: (s["kind"], s["x"] / (1 if s["kind"] == "a" else 20)),
        )
        assert spent == 25.0  # not the 60 seconds that follow from 20 for a third of the cost
        assert [row.settings["x"] for row in table] == [1, 4, 20]

    def test_rows_of_an_earlier_start_serve_as_measurements(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = [{"x": 10, "seed": seed} for seed in range(3)]
        self.run(tmp_path, monkeypatch, settings=settings[:1])
        spent, table = self.run(tmp_path, monkeypatch, settings=settings, budget=9.0)
        assert spent == 0.0
        assert len(table) == 1
        assert len(table.left_out) == 2


class TestClaims:
    def test_a_living_claim_is_respected_and_a_dead_one_taken(self, tmp_path: Path) -> None:
        with Store(tmp_path, {}) as one, Store(tmp_path, {}) as other:
            assert one.claim("k")
            assert not other.claim("k")
            one.release("k")
            assert other.claim("k")
            path = tmp_path / "claims" / "j.json"
            process = subprocess.Popen([sys.executable, "-c", ""])
            process.wait()
            host = json.loads(other.claims["k"])["host"]
            path.write_text(json.dumps({"host": host, "pid": process.pid, "token": "t"}))
            assert one.claim("j")

    def test_a_claim_of_another_machine_lasts_while_it_gives_signs(self, tmp_path: Path) -> None:
        with Store(tmp_path, {}) as store:
            path = tmp_path / "claims" / "k.json"
            path.write_text(json.dumps({"host": "elsewhere", "pid": os.getpid(), "token": "t"}))
            assert not store.claim("k")
            old = time.time() - 2 * SILENCE
            os.utime(path, (old, old))
            assert store.claim("k")

    def test_a_claim_that_was_renewed_after_it_was_judged_stays(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "claims" / "k.json"
        living = json.dumps({"host": "elsewhere", "pid": 1, "token": "new"})
        with Store(tmp_path, {}) as store:
            path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "token": "old"}))

            def void(path: Path) -> bool:  # another coordinator is faster
                path.write_text(living)
                return True

            monkeypatch.setattr(store, "_is_void", void)
            assert not store.claim("k")
            assert path.read_text() == living

    @pytest.mark.slow
    def test_two_coordinators_do_no_work_twice(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        command = [sys.executable, "-c", COORDINATOR, str(tmp_path / "t"), str(log)]
        processes = [subprocess.Popen(command) for _ in range(2)]
        assert [process.wait() for process in processes] == [0, 0]
        assert sorted(calls(log)) == list(range(30))


COORDINATOR = """
import sys, time
from chartae.runs import Outcome, execute
def run(settings, log, attempt):
    time.sleep(0.02)
    with open(log, "a") as file:
        file.write(f"{settings['x']}\\n")
    return Outcome({"square": settings["x"] ** 2})
table = execute(
    run, [{"x": x} for x in range(30)], folder=sys.argv[1], context={}, jobs=1, shared=sys.argv[2]
)
assert [row.figures["square"] for row in table] == [x * x for x in range(30)]
"""


SCRIPT = """
import sys, time
from chartae.runs import Outcome, execute
def run(settings, shared, attempt):
    time.sleep(0.01)
    return Outcome({"square": settings["x"] ** 2}, {"x.txt": b"x" * 2000})
execute(run, [{"x": x} for x in range(40)], folder=sys.argv[1], context={}, jobs=int(sys.argv[2]))
"""


def _kill_and_resume(folder: Path, moments: int, jobs: int, seed: int) -> None:
    """Kill a coordinator at random moments, resume it, and compare with an uninterrupted one."""
    draw = random.Random(seed)
    command = [sys.executable, "-c", SCRIPT, str(folder), str(jobs)]
    counts = [0]
    for _ in range(moments):
        process = subprocess.Popen(command, start_new_session=True)
        rows = folder / "rows"
        while process.poll() is None and len(list(rows.glob("*.json"))) <= counts[-1]:
            time.sleep(0.005)
        time.sleep(draw.uniform(0.0, 0.05))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        counts.append(len(list(rows.glob("[!.]*.json"))))
    assert counts == sorted(counts)  # no row was lost
    subprocess.run(command, check=True)

    def expected(settings: Settings, shared: Any, attempt: int) -> Outcome:
        raise AssertionError("a row is missing")

    settings = [{"x": x} for x in range(40)]
    table = execute(expected, settings, folder=folder, context={}, jobs=1)
    assert [row.figures for row in table] == [{"square": x * x} for x in range(40)]
    assert all(table.file(row, "x.txt").read_bytes() == b"x" * 2000 for row in table)


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed(tmp_path: Path) -> None:
    _kill_and_resume(tmp_path, moments=2, jobs=1, seed=0)


@pytest.mark.slow
def test_killed_at_fifty_random_moments_and_resumed(tmp_path: Path) -> None:
    for batch in range(5):
        _kill_and_resume(tmp_path / str(batch), moments=10, jobs=1 + batch % 2, seed=batch)


@pytest.mark.slow
def test_a_process_that_dies_loses_only_its_run(tmp_path: Path) -> None:
    def dies_once(settings: Settings, shared: str, attempt: int) -> Outcome:
        mark = Path(shared) / str(settings["x"])
        if settings["x"] == 3 or (settings["x"] in (1, 2) and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Outcome({"x": settings["x"]})

    marks = tmp_path / "marks"
    marks.mkdir()
    table = execute(
        dies_once,
        [{"x": x} for x in range(8)],
        folder=tmp_path / "t",
        context={},
        jobs=2,
        shared=str(marks),
    )
    assert [row.settings["x"] for row in table.failed] == [3]
    assert "its process died" in table.failed[0].error


ORPHANS = """
import os, sys, time
from pathlib import Path
from chartae.runs import execute
def run(settings, shared, attempt):
    Path(sys.argv[1], f"pid-{os.getpid()}").touch()
    time.sleep(600)
execute(run, [{"x": 0}, {"x": 1}], folder=sys.argv[1], context={}, jobs=2)
"""


@pytest.mark.slow
@LINUX
def test_workers_end_soon_after_their_coordinator_was_killed(tmp_path: Path) -> None:
    """They would go on with runs that nobody takes."""
    process = subprocess.Popen([sys.executable, "-c", ORPHANS, str(tmp_path)])
    workers: list[int] = []
    while len(workers) < 2:
        assert process.poll() is None
        time.sleep(0.1)
        workers = [int(path.name[4:]) for path in tmp_path.glob("pid-*")]
    process.kill()
    process.wait()
    for _ in range(300):
        if not any(map(_lives, workers)):
            return
        time.sleep(0.1)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    pytest.fail("the workers are alive")


def _lives(pid: int) -> bool:
    """Whether a process is there and not a zombie that nobody has reaped."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.slow
@LINUX
@pytest.mark.filterwarnings("error")
def test_an_error_of_the_coordinator_stops_the_workers(tmp_path: Path) -> None:
    def run(settings: Settings, shared: str, attempt: int) -> Outcome:
        Path(shared, f"pid-{os.getpid()}").touch()
        time.sleep(600.0 * settings["x"])
        return Outcome({})

    def full(progress: Progress) -> None:
        if progress.done:
            raise OSError("no space left")

    options: Any = {"folder": tmp_path / "t", "context": {}, "jobs": 2, "progress": full}
    with pytest.raises(OSError, match="no space left") as kept:
        execute(run, [{"x": 0}, {"x": 1}], shared=str(tmp_path), **options)
    workers = [int(path.name[4:]) for path in tmp_path.glob("pid-*")]
    assert workers
    assert not any(map(_lives, workers)), kept  # whose frames have the runs in flight


@pytest.mark.slow
def test_processes_and_one_process_give_the_same_rows(tmp_path: Path) -> None:
    def noise(settings: Settings, shared: Any, attempt: int) -> Outcome:
        values = torch.rand(500, generator=torch.Generator().manual_seed(settings["x"]))
        return Outcome({"sum": float((values @ values.outer(values)).sum()), "shared": shared})

    settings = [{"x": x} for x in range(12)]
    one, two = (
        execute(noise, settings, folder=tmp_path / str(jobs), context={}, shared=[1], jobs=jobs)
        for jobs in (1, 2)
    )
    assert strip(one) == strip(two)


@pytest.mark.slow
def test_a_cluster_of_two_workers_of_which_one_is_killed(tmp_path: Path) -> None:
    from distributed import LocalCluster, get_worker

    def named(settings: Settings, shared: Any, attempt: int) -> Outcome:
        time.sleep(0.05)
        return Outcome({"square": settings["x"] ** 2, "worker": get_worker().name})

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        killed: list[int] = []

        def kill(progress: Progress) -> None:
            if progress.done == 5 and not killed:
                killed.append(cluster.workers[0].pid)
                os.kill(killed[0], signal.SIGKILL)

        settings = [{"x": x} for x in range(40)]
        table = execute(
            named,
            settings,
            folder=tmp_path,
            context={},
            scheduler=cluster.scheduler_address,
            progress=kill,
        )
    assert killed
    assert [row.figures["square"] for row in table] == [x * x for x in range(40)]
    assert len({row.figures["worker"] for row in table}) >= 2


class TestTables:
    RECORDS = ({"a": 1, "b": "x,y"}, {"a": None, "c": 0.5})

    def test_csv(self, tmp_path: Path) -> None:
        write_table(self.RECORDS, tmp_path / "t.csv")
        assert (tmp_path / "t.csv").read_text() == 'a,b,c\n1,"x,y",\n,,0.5\n'

    def test_parquet(self, tmp_path: Path) -> None:
        import pandas as pd

        write_table(self.RECORDS, tmp_path / "t.parquet")
        frame = pd.read_parquet(tmp_path / "t.parquet")
        assert list(frame.columns) == ["a", "b", "c"]
        assert frame["c"].tolist()[1] == 0.5

    def test_other_files_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"expected a .csv or .parquet"):
            write_table(self.RECORDS, tmp_path / "t.txt")
