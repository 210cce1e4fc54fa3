"""Ctrl-C, SIGTERM, and kill -9."""

import multiprocessing
import os
import random
import signal
import threading
import time

import pytest
import torch
from safetensors.torch import load_file

from chartae.training import CHECKPOINT_FILE, Callback, History


@pytest.fixture(autouse=True)
def ctrl_c():
    """Python's own answer to Ctrl-C, which a job in the background of a script does not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Press(Callback):
    """Presses Ctrl-C, or sends another signal, after an epoch, so many times."""

    def __init__(self, epoch, times=1, number=signal.SIGINT):
        self.epoch, self.times, self.number = epoch, times, number

    def on_epoch_end(self, model, history):
        if history.num_epochs == self.epoch:
            for _ in range(self.times):
                signal.raise_signal(self.number)
                time.sleep(0.01)  # two signals at once are one to the interpreter


def test_ctrl_c_ends_training_with_the_best_weights(parabola, fit):
    model, x = parabola(), torch.zeros(4, 3)
    before = signal.getsignal(signal.SIGINT)
    history = fit(model, x, x, epochs=50, optimizer="sgd", learning_rate=1.5, callbacks=[Press(3)])
    assert history.stopped == "interrupted"
    assert history.num_epochs == 3
    assert model.p.item() == -2.0
    assert not model.training
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_stops_at_once_with_the_best_weights_too(parabola, fit):
    model, x = parabola(), torch.zeros(4, 3)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(model, x, x, epochs=50, optimizer="sgd", learning_rate=1.5, callbacks=[Press(3, 2)])
    assert model.p.item() == -2.0
    assert not model.training
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_in_the_middle_of_an_epoch_resumes_bit_for_bit(
    make_vae, fit, data, tmp_path, monkeypatch
):
    from chartae.training.trainer import Trainer

    original, calls = Trainer.step, []

    def step(self, batch):
        calls.append(None)
        if len(calls) == 6:
            signal.raise_signal(signal.SIGINT)
        original(self, batch)

    uncut, model = make_vae(), make_vae()
    options = {"epochs": 4, "batch_size": 8}
    fit(uncut, data, **options)
    monkeypatch.setattr(Trainer, "step", step)
    history = fit(model, data, output_dir=tmp_path, **options)
    assert (history.stopped, history.num_epochs, len(calls)) == ("interrupted", 1, 6)
    history = fit(model, data, output_dir=tmp_path, resume=True, **options)
    assert history.stopped == "finished"
    for key, tensor in uncut.state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor), key


def test_ctrl_c_in_the_first_epoch_keeps_what_was_learned(parabola, fit, monkeypatch):
    from chartae.training.trainer import Trainer

    original = Trainer.step

    def step(self, batch):
        original(self, batch)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Trainer, "step", step)
    model = parabola()
    history = fit(
        model, torch.zeros(8, 3), epochs=9, batch_size=2, optimizer="sgd", learning_rate=0.25
    )
    assert history.best_epoch is None
    assert model.p.item() == 0.5


def test_sigterm_acts_when_all_is_written(make_vae, fit, data, tmp_path):
    written = []
    files = tmp_path / "model.safetensors", tmp_path / CHECKPOINT_FILE
    before = signal.signal(
        signal.SIGTERM, lambda *_: written.append([file.exists() for file in files])
    )
    try:
        press = Press(3, times=2, number=signal.SIGTERM)
        history = fit(make_vae(), data, epochs=50, callbacks=[press], output_dir=tmp_path)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (history.stopped, history.num_epochs) == ("interrupted", 3)
    assert written == [[True, True]]


def test_where_ctrl_c_is_ignored_it_stays_so(make_vae, fit, data):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    history = fit(make_vae(), data, epochs=3, callbacks=[Press(1, times=2)])
    assert (history.stopped, history.num_epochs) == ("finished", 3)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_thread_trains_without_signals(make_vae, fit, data):
    results = []
    thread = threading.Thread(target=lambda: results.append(fit(make_vae(), data, epochs=2)))
    thread.start()
    thread.join()
    assert results[0].stopped == "finished"


# Processes are forked from one that has imported everything: starting Python takes seconds.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["pytest", "chartae.training.trainer", "lightning_fabric"])

SCRIPT = """
import signal, sys, torch, chartae
from chartae.training import Callback

class Report(Callback):
    def on_fit_start(self, model, history):
        started.set()

sys.stderr = open(errors, "a", buffering=1)
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.manual_seed(0)
x = torch.rand(30, 6)
model = chartae.VAE((6,), 2, encoder={"name": "mlp", "hidden": [8]})
chartae.fit(
    model, x, x[:10], epochs=epochs, batch_size=8, seed=1, scheduler="cosine", kl_warmup=3,
    accelerator="cpu", output_dir=folder, resume=True, checkpoint_interval=interval,
    callbacks=[Report()],
)
assert not model.training
"""


def start(folder, epochs, interval):
    """Return a process whose training has started."""
    folder.mkdir(exist_ok=True)
    started = PROCESSES.Event()
    names = {
        "folder": str(folder),
        "errors": str(folder / "stderr"),
        "epochs": epochs,
        "interval": interval,
        "started": started,
    }
    process = PROCESSES.Process(target=exec, args=(SCRIPT, names))
    process.start()
    assert started.wait(60)
    return process


def end(process, folder):
    """Wait until a training has ended well; return what it said."""
    process.join(60)
    said = (folder / "stderr").read_text()
    assert process.exitcode == 0, said
    return said


def kill_and_resume(tmp_path, kills, epochs):
    uncut = start(tmp_path / "uncut", epochs, 3600.0)
    for delay in kills:
        process = start(tmp_path / "cut", epochs, 0.0)
        time.sleep(delay)
        process.kill()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, "it was over before it was killed"
    end(start(tmp_path / "cut", epochs, 3600.0), tmp_path / "cut")
    end(uncut, tmp_path / "uncut")

    one, other = (History.load(tmp_path / name / "history.json") for name in ("uncut", "cut"))
    assert one.train == other.train
    assert one.num_epochs == epochs
    for name in ("model.safetensors", CHECKPOINT_FILE):
        expected, found = (load_file(tmp_path / folder / name) for folder in ("uncut", "cut"))
        assert expected.keys() == found.keys()
        for key, tensor in expected.items():
            assert torch.equal(tensor, found[key]), (name, key)
    assert not list((tmp_path / "cut").glob(".*"))


@pytest.mark.slow
def test_kill_9_then_resume_gives_the_same_weights_bit_for_bit(tmp_path):
    kill_and_resume(tmp_path, [random.uniform(0.02, 0.2)], epochs=80)


@pytest.mark.slow
def test_many_kill_9(tmp_path):
    kill_and_resume(tmp_path, [random.uniform(0.0, 0.6) for _ in range(8)], epochs=500)


@pytest.mark.slow
def test_ctrl_c_in_a_terminal(tmp_path):
    process = start(tmp_path, 1_000_000, 3600.0)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    said = end(process, tmp_path)
    assert "Traceback" not in said
    assert f"; its best weights are kept, and {tmp_path / CHECKPOINT_FILE} can be resumed" in said
    history = History.load(tmp_path / "history.json")
    assert history.stopped == "interrupted"
    assert history.num_epochs < 1_000_000  # on a busy machine, it may be none
