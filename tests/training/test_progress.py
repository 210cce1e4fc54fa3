import io

import pytest
import torch
from rich.console import Console

import chartae
from chartae.training import progress as module
from chartae.training.progress import TrainingProgress


@pytest.fixture
def terminal(monkeypatch):
    """Standard error as a terminal that remembers what it showed."""
    screen = io.StringIO()
    monkeypatch.setattr(
        "rich.console.Console",
        lambda stderr: Console(file=screen, force_terminal=True, width=160, color_system=None),
    )
    return screen


def test_it_shows_the_terms_the_steps_and_the_time_left(terminal):
    with TrainingProgress("VAE", total=30, done=0, enabled=True) as bar:
        bar.update(12, {"loss": [9.0, 3.25], "kl": [1.0, 0.125]})
        bar.bar.refresh()
    text = terminal.getvalue()
    for part in ("VAE", "12/30", "loss 3.25", "kl 0.125", ":"):
        assert part in text


def test_it_is_updated_ten_times_a_second_at_most(terminal, monkeypatch):
    now = iter([0.0, 0.05, 0.11, 0.2])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    bar = TrainingProgress("VAE", total=30, done=0, enabled=True)
    updates = []
    bar.task = 0
    bar.next_update = -1.0
    monkeypatch.setattr(bar.bar, "update", lambda task, completed, terms: updates.append(completed))
    for done in range(4):
        bar.update(done, {})
    assert updates == [0, 2]


def test_it_is_silent_when_asked_or_not_in_a_terminal(make_vae, data, capfd):
    for progress in (True, False):
        chartae.fit(make_vae(), data, epochs=3, accelerator="cpu", progress=progress)
    assert capfd.readouterr() == ("", "")


def test_fit_shows_it_in_a_terminal(make_vae, data, terminal, monkeypatch):
    monkeypatch.setattr(TrainingProgress, "interval", 0.0)
    chartae.fit(make_vae(), torch.cat([data] * 4), epochs=40, batch_size=8, accelerator="cpu")
    assert "VAE" in terminal.getvalue()
    assert "/600" in terminal.getvalue()
