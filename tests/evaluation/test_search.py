"""The engine of `tune`: it finds a known optimum, loses no trial and runs none twice."""

import json
import math
import shutil
import subprocess
import sys
import threading
import time

import pytest

from chartae.errors import ConfigurationError, DivergenceError
from chartae.evaluation import Choice, Interval, read_range
from chartae.evaluation.search import Pruned, load_study, search
from chartae.runs import Outcome

pytest.importorskip("optuna", reason="optuna is not installed")

SPACE = {"x": Interval(0.0, 1.0), "kind": Choice(["odd", "even"])}


def bowl(arguments, report):
    """A parabola with its minimum 0 at x = 0.3 of the kind "even"."""
    return Outcome({"value": (arguments["x"] - 0.3) ** 2 + (arguments["kind"] == "odd")})


def run(folder, objective=bowl, space=SPACE, **options):
    return search(
        objective, space, **{"trials": 12, "folder": folder, "context": {}, "seed": 0, **options}
    )


def tried(result):
    return [(t.state, t.arguments, t.value) for t in result.trials]


def states(folder):
    """Return the states of Optuna's trials."""
    return [trial.state.name for trial in load_study(folder).get_trials()]


# --- what it finds --------------------------------------------------------------------------------


def test_a_known_optimum_is_found(tmp_path):
    result = run(tmp_path, trials=30, first={"x": 0.5, "kind": "odd", "other": 3})
    assert result.trials[0].arguments == {"x": 0.5, "kind": "odd"}
    assert result.best.arguments["kind"] == "even"
    assert abs(result.best.arguments["x"] - 0.3) < 0.02
    # At random, 4 of 20 are so near, and 8 or more in one search of thirty.
    assert sum(abs(t.arguments["x"] - 0.3) < 0.1 for t in result.trials[10:]) >= 8
    shares = result.importances()
    assert sum(shares.values()) == pytest.approx(1.0)


def test_the_first_trial_may_have_an_equal_choice(tmp_path):
    result = run(
        tmp_path,
        lambda a, report: Outcome({"value": a["x"]}),
        {"x": Choice([2, 1])},
        trials=1,
        first={"x": 1.0},
    )
    assert result.best.arguments == {"x": 1}
    with pytest.raises(ConfigurationError, match="expected another folder"):
        run(tmp_path, space={"x": Choice([1, 2])})


def test_the_latent_dimension_of_probabilistic_pca(tmp_path):
    # The likelihood of validation data has a closed form (Tipping & Bishop 1999), and is highest at
    # the dimension of the truth.
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    loadings = torch.randn(3, 8, generator=generator, dtype=torch.float64)
    codes = torch.randn(400, 3, generator=generator, dtype=torch.float64)
    x = codes @ loadings + 0.5 * torch.randn(400, 8, generator=generator, dtype=torch.float64)
    train, validation = x[:200], x[200:]
    values, vectors = torch.linalg.eigh(train.T.cov())

    def likelihood(arguments, report):
        d = arguments["latent_dim"]
        noise = values[: 8 - d].mean()
        spread = torch.where(torch.arange(8) < 8 - d, noise, values)
        covariance = vectors @ spread.diag() @ vectors.T
        model = torch.distributions.MultivariateNormal(train.mean(0), covariance)
        return Outcome({"value": float(model.log_prob(validation).mean())})

    result = run(tmp_path, likelihood, {"latent_dim": Interval(1, 7)}, higher=True)
    assert result.best.arguments == {"latent_dim": 3}
    assert result.best.value == max(trial.value for trial in result.trials)


@pytest.mark.parametrize("higher", [False, True])
def test_pruning_stops_the_worse_half(higher, tmp_path):
    seen = []

    def objective(arguments, report):
        for epoch in range(6):
            seen.append(epoch)
            if report(epoch, arguments["x"]):  # a loss, whatever the direction of the value
                raise Pruned
        return Outcome({"value": -arguments["x"] if higher else arguments["x"]})

    result = run(tmp_path, objective, {"x": Interval(0.0, 1.0)}, higher=higher, warmup=2)
    states = [trial.state for trial in result.trials]
    assert states[:5] == ["complete"] * 5
    assert {*states[5:]} == {"complete", "pruned"}
    worst = max(t.arguments["x"] for t in result.complete[5:])
    assert worst < max(t.arguments["x"] for t in result.trials if t.state == "pruned")
    assert len(seen) == 6 * states.count("complete") + 3 * states.count("pruned")
    assert all(math.isnan(t.value) for t in result.trials if t.state == "pruned")


def test_diverged_and_failed_trials_are_marked(tmp_path):
    def objective(arguments, report):
        if arguments["x"] > 0.7:
            raise DivergenceError("too large")
        if arguments["x"] > 0.4:
            raise ZeroDivisionError("mine")
        return Outcome({"value": math.nan if arguments["x"] < 0.1 else arguments["x"]})

    result = run(tmp_path, objective, trials=20)
    for trial in result.trials:
        if trial.state == "failed":
            assert trial.row.error == "ZeroDivisionError: mine"
        else:
            x = trial.arguments["x"]
            assert trial.state == ("complete" if 0.1 <= x <= 0.4 else "diverged")
    assert {trial.state for trial in result.trials} == {"complete", "diverged", "failed"}


def test_no_trial_with_a_value(tmp_path):
    def objective(arguments, report):
        raise DivergenceError("nan")

    result = run(tmp_path, objective, trials=2)
    with pytest.raises(DivergenceError, match=r"no trial gave a value \(2 diverged\): try"):
        _ = result.best


# --- interruptions --------------------------------------------------------------------------------


def test_a_killed_search_goes_on_as_if_it_had_not_been(tmp_path):
    moments = {}

    def objective(arguments, report):
        report(0, arguments["x"])
        number = len(moments)
        moments[number] = tmp_path / f"killed-{number}"
        # What a process leaves that is killed here, in the middle of its trial.
        shutil.copytree(tmp_path / "whole", moments[number], ignore=claims)
        return bowl(arguments, report)

    def claims(folder, names):
        return [name for name in names if folder.endswith("claims")]

    whole = run(tmp_path / "whole", objective, trials=13)
    for number in (3, 12):
        folder = moments[number]
        with (folder / "journal.log").open("a") as journal:
            journal.write('{"op_code":4,"worker')  # of a line that was being written
        calls = []

        def counted(arguments, report, calls=calls):
            calls.append(arguments)
            report(0, arguments["x"])
            return bowl(arguments, report)

        again = run(folder, counted, trials=13)
        assert tried(again) == tried(whole)
        assert len(calls) == 13 - number
        # Optuna has forgotten the trial that was killed.
        assert [name for name in states(folder) if name in ("RUNNING", "FAIL")] == ["FAIL"]


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path):
    """It had the lock when it was killed, and left the file behind."""
    code = "import os, sys, filelock; filelock.FileLock(sys.argv[1]).acquire(); os._exit(1)"
    lock = tmp_path / "journal.log.lock"
    subprocess.run([sys.executable, "-c", code, str(lock)], check=False)
    assert lock.exists()
    start = time.monotonic()
    assert len(run(tmp_path, trials=1).trials) == 1
    assert time.monotonic() - start < 25.0  # Optuna waits for 30


def test_a_lost_row_is_the_same_trial_again(tmp_path):
    whole = run(tmp_path)
    lost = whole.trials[4]
    (tmp_path / "rows" / f"{lost.row.key}.json").unlink()
    again = run(tmp_path)
    assert tried(again) == tried(whole)
    assert again.trials[4].row != lost.row
    assert states(tmp_path) == ["COMPLETE"] * 12


def test_ctrl_c_keeps_what_is_done_and_more_trials_may_follow(tmp_path):
    calls = []

    def objective(arguments, report):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return bowl(arguments, report)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, objective, trials=5)
    again = run(tmp_path, objective, trials=6)
    assert len(calls) == 4 + 3  # the fourth, which was interrupted, and two more
    assert tried(again) == tried(run(tmp_path / "other", trials=6))


def test_two_coordinators_share_the_trials(tmp_path):
    calls = []

    def objective(arguments, report):
        calls.append(arguments["x"])
        time.sleep(0.02)
        return bowl(arguments, report)

    results = []
    threads = [
        threading.Thread(target=lambda: results.append(run(tmp_path, objective, trials=10)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one, other = results
    assert tried(one) == tried(other)
    assert sorted(calls) == sorted(trial.arguments["x"] for trial in one.trials)
    assert len(calls) == 10


SCRIPT = """
import sys, time
from chartae.evaluation import Interval
from chartae.evaluation.search import search
from chartae.runs import Outcome

def objective(arguments, report):
    with open(sys.argv[1] + "/../calls", "a") as file:
        file.write(repr(arguments["x"]) + "\\n")
    for epoch in range(5):
        time.sleep(0.05)
        report(epoch, arguments["x"])
    return Outcome({"value": (arguments["x"] - 0.3) ** 2})

result = search(objective, {"x": Interval(0.0, 1.0)}, trials=16, folder=sys.argv[1], context={},
                workers=int(sys.argv[2]))
print([trial.arguments["x"] for trial in result.trials])
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_for_good_and_resumed(workers, tmp_path):
    command = [sys.executable, "-c", SCRIPT]
    killed = tmp_path / "killed" / "folder"
    killed.parent.mkdir()
    for least in (2, 6):  # two kills, each in the middle of a trial
        process = subprocess.Popen([*command, str(killed), str(workers)], start_new_session=True)
        calls = killed.parent / "calls"
        while not calls.exists() or len(calls.read_text().splitlines()) < least:
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(0.1)
        subprocess.run(["kill", "-9", "--", f"-{process.pid}"], check=True)
        process.wait()
    run = subprocess.run([*command, str(killed), str(workers)], capture_output=True, check=True)
    found = json.loads(run.stdout)
    assert len(found) == 16
    done = [float(line) for line in calls.read_text().splitlines()]
    assert set(done) >= set(found)
    assert len(done) <= 16 + 2 * workers
    if workers == 1:
        fresh = tmp_path / "fresh" / "folder"
        fresh.parent.mkdir()
        whole = subprocess.run([*command, str(fresh), "1"], capture_output=True, check=True)
        assert json.loads(whole.stdout) == found


# --- refusals -------------------------------------------------------------------------------------


def test_a_folder_of_another_search_is_refused(tmp_path):
    run(tmp_path, trials=1)
    for change in ({"space": {"x": Interval(0.0, 2.0)}}, {"seed": 1}, {"higher": True}):
        with pytest.raises(ConfigurationError, match="expected another folder"):
            run(tmp_path, **change)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 0}, "trials=0: expected an integer at least 1"),
        ({"workers": 0}, "workers=0"),
        ({"space": {}}, "space is empty"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_refusals(options, message, tmp_path):
    with pytest.raises(ConfigurationError, match=message):
        run(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_without_optuna(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'chartae\[tune\]'"):
        run(tmp_path)


# --- ranges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("2:64", Interval(2, 64)),
        ("0:1.5", Interval(0, 1.5)),
        ("1e-4:1e-2:log", Interval(1e-4, 1e-2, log=True)),
        ("-3:-1", Interval(-3, -1)),
        ("2, 4,8", Choice([2, 4, 8])),
        ("rbf,imq", Choice(["rbf", "imq"])),
        ("true,null", Choice([True, None])),
        ("16", Choice([16])),
    ],
)
def test_ranges_of_texts(text, values):
    assert read_range("name", text) == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("64:2", "the range 64 to 2 is empty"),
        ("2:2", "is empty"),
        ("0:1:log", "by orders: expected numbers above 0"),
        ("1:2:lin", "'lin' follows the second number"),
        ("a:b", "expected two finite numbers"),
        ("1:Infinity", "expected two finite numbers"),
        ("true:3", "expected two finite numbers"),
        ("2,,4", "a value is missing"),
        ("", "a value is missing"),
        ("2,2", "all different"),
        ("1,NaN", "are not JSON"),
    ],
)
def test_texts_that_are_no_ranges(text, message):
    with pytest.raises(ConfigurationError, match=rf"^latent_dim='{text}': .*{message}"):
        read_range("latent_dim", text)


def test_what_is_in_a_range():
    assert 3 in Interval(1, 4)
    assert 3.5 not in Interval(1, 4)
    assert 3.5 in Interval(1, 4.0)
    assert True not in Interval(0, 4)
    assert 5 not in Interval(1, 4)
    assert None not in Interval(1, 4)
