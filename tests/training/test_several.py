"""Two processes train as one does, agree on when to stop, and end together."""

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import chartae
from chartae.training import CHECKPOINT_FILE, HISTORY_FILE

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("several.py")
HERE = runpy.run_path(str(SCRIPT))


def launch(folder, what, *arguments, start=(sys.executable,), wait=True):
    """Run the script as a user would; Fabric starts the second process, unless ``start`` does."""
    folder.mkdir(exist_ok=True)
    # Not those of a test that is itself one of several processes.
    names = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    environment = {k: v for k, v in os.environ.items() if k not in names}
    process = subprocess.Popen(
        [*start, str(SCRIPT), what, str(folder), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**environment, "OMP_NUM_THREADS": "1"},
        start_new_session=True,  # a Ctrl-C of the tests is not theirs
    )
    return finish(process) if wait else process


def finish(process):
    """Wait for a process that `launch` has started; return its exit status and its output."""
    try:
        output, _ = process.communicate(timeout=400)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output


def of_ranks(folder):
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def assert_close(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        options = {"rtol": tolerance, "atol": tolerance, "equal_nan": True}
        one, other = (torch.tensor(v, dtype=torch.float64) for v in (found[name], values))
        torch.testing.assert_close(one, other, **options, msg=lambda text, name=name: name + text)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Results of all cases in two processes, those of one of them."""
    folder = tmp_path_factory.mktemp("cases")
    status, output = launch(folder, "cases")
    assert status == 0, output
    first, second = of_ranks(folder)
    assert first == second  # weights, figures and ends
    return first


@pytest.mark.parametrize("case", HERE["CASES"])
def test_two_processes_train_as_one_with_larger_batches(case, cases):
    """37 samples are five steps of 8 or 7, so that shares differ."""
    split = 2 if case in HERE["OF_BATCHES"] else 0
    expected = HERE["results"](*HERE["train"](case, processes=1, split=split))
    tolerance = 1e-6 if "float32" in case else 1e-10
    for part in ("weights", "train", "validation"):
        assert_close(cases[case][part], expected[part], tolerance)
    assert bool(expected["validation"]) == (case not in HERE["OF_BATCHES"])


def test_gradients_are_clipped_as_in_one_process(cases):
    expected = HERE["results"](*HERE["train"]("AE", processes=1, clip_grad_norm=0.01))
    assert_close(cases["clipped"]["weights"], expected["weights"], 1e-10)


def test_more_processes_than_batches(cases):
    expected = HERE["results"](*HERE["train"]("AE", processes=1, batch_size=128))
    for part in ("weights", "train", "validation"):
        assert_close(cases["of one step"][part], expected[part], 1e-10)


def test_the_same_seed_gives_the_same_weights(cases):
    assert cases["again"] == cases["VAE"]


def test_processes_stop_together(cases):
    assert cases["stopped alone"]["stopped"] == "callback"
    assert len(cases["stopped alone"]["train"]["loss"]) == 2
    assert cases["patience"]["stopped"] == "patience"
    assert len(cases["patience"]["train"]["loss"]) < 50


def test_noise_of_processes_differs(cases):
    """With real noise, each process draws its own: two equal halves give different losses."""
    assert cases["noise"][0] != cases["noise"][1]


@pytest.fixture(scope="module")
def uncut(tmp_path_factory):
    """A training of two processes that nothing interrupts."""
    folder = tmp_path_factory.mktemp("uncut")
    status, output = launch(folder, "long")
    assert status == 0, output
    first, second = of_ranks(folder)
    assert first == second
    # The first process has written the checkpoint: see `main`.
    assert {CHECKPOINT_FILE, HISTORY_FILE} < {path.name for path in (folder / "run").iterdir()}
    saved = chartae.load(folder / "run").state_dict()
    assert {k: v.tolist() for k, v in saved.items()} == first["long"]["weights"]
    return first


@pytest.mark.parametrize(
    ("number", "rank", "step"), [(signal.SIGINT, 0, 75), (signal.SIGTERM, 1, 40)]
)
def test_a_signal_to_one_process_ends_both_and_resuming_gives_the_same(
    number, rank, step, uncut, tmp_path
):
    status, output = launch(tmp_path, "signal", step, int(number), rank)
    assert f"interrupted in epoch {1 + step // 60}; its best weights are kept" in output
    assert output.count("best weights are kept") == 1
    if number == signal.SIGTERM:
        assert status == -signal.SIGTERM
    else:
        assert status == 0, output
        assert [each["long"]["stopped"] for each in of_ranks(tmp_path)] == ["interrupted"] * 2
    status, output = launch(tmp_path, "long")
    assert status == 0, output
    assert of_ranks(tmp_path) == [uncut, uncut]


def test_sigterm_to_the_first_process_ends_both(tmp_path):
    process = launch(tmp_path, "endless", wait=False)
    while not (tmp_path / "started").exists():
        assert process.poll() is None, finish(process)
    process.terminate()
    status, output = finish(process)  # the output of both, so it waits for both
    assert status == -signal.SIGTERM, output
    assert "Traceback" not in output


def test_a_divergence_in_one_process_is_an_error_in_both(tmp_path):
    status, output = launch(tmp_path, "broken", "nan")
    assert status != 0
    assert "DivergenceError: the term 'kl' became nan in step 2 of epoch 2" in output
    assert "DivergenceError: a term became infinite or NaN in another process in step 2" in output


def test_an_error_in_one_process_ends_both(tmp_path):
    status, output = launch(tmp_path, "broken", "error")
    assert status != 0
    assert "ZeroDivisionError: mine" in output
    assert "ProcessError: another process of this training has ended" in output


def test_different_data_are_refused(tmp_path):
    status, output = launch(tmp_path, "different data")
    assert status != 0
    assert output.count("DataError: train is not the same in all 2 processes") == 2


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


TORCHRUN = (sys.executable, "-m", "torch.distributed.run")


def test_torchrun_on_one_machine(cases, tmp_path):
    start = (*TORCHRUN, f"--master-port={free_port()}", "--nproc-per-node=2")
    status, output = launch(tmp_path, "torchrun", 2, 1, start=start)
    assert status == 0, output
    assert of_ranks(tmp_path) == [{"VAE": cases["VAE"]}] * 2


def test_torchrun_on_two_machines(cases, tmp_path):
    """Two agents on loopback, each of which starts one process."""
    common = ("--master-addr=127.0.0.1", f"--master-port={free_port()}", "--nnodes=2")
    agents = [
        launch(
            tmp_path,
            "torchrun",
            1,
            2,
            start=(*TORCHRUN, *common, "--nproc-per-node=1", f"--node-rank={rank}"),
            wait=False,
        )
        for rank in (0, 1)
    ]
    for status, output in map(finish, agents):
        assert status == 0, output
    assert of_ranks(tmp_path) == [{"VAE": cases["VAE"]}] * 2


def test_torchrun_with_another_number_of_processes_is_refused(tmp_path):
    start = (*TORCHRUN, f"--master-port={free_port()}", "--nproc-per-node=2")
    status, output = launch(tmp_path, "torchrun", 1, 1, start=start)
    assert status != 0
    assert "devices=1, nodes=1: torchrun has started 2 processes" in output


def test_the_command_trains_on_two_devices(tmp_path):
    command = ("-m", "chartae", "train", "digits.npz", "--epochs=2", "--seed=3", "--device=cpu")
    np.savez(tmp_path / "digits.npz", x=np.random.default_rng(0).random((30, 6)))
    for name, batch_size, devices in (("one", 8, 1), ("two", 4, 2)):
        options = (f"--batch-size={batch_size}", f"--devices={devices}", f"--out={name}")
        done = subprocess.run(
            [sys.executable, *command, *options, "--model=ae"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("AE trained on 30 observations: 2 epochs") == 1
    one, two = (chartae.load(tmp_path / name).state_dict() for name in ("one", "two"))
    for name, tensor in one.items():
        # Adam divides by small gradients; a step is 1e-3.
        torch.testing.assert_close(two[name], tensor, rtol=0.0, atol=1e-4)
    record = json.loads((tmp_path / "two" / "train.json").read_text())
    assert record["train"]["devices"] == 2
