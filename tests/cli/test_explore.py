"""The command ``chartae explore``."""

import contextlib
import json
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch

from chartae.cli import explore as command
from chartae.cli import run
from chartae.data import ArrayDataset, Sequences, write_npz, write_sequences


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with 12 images of two classes, follow-ups, and trained models."""
    folder = tmp_path_factory.mktemp("explore")
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(12, 4, 4, generator=generator)
    with contextlib.chdir(folder):
        y = torch.arange(12) % 2
        write_npz("data.npz", ArrayDataset(x, y, class_names=("cat", "dog")))
        with np.load("data.npz") as file:
            np.savez("more.npz", **file, age=np.arange(12.0), wide=np.zeros((12, 2)))
        people = torch.rand(6, 3, 2, generator=generator)
        write_sequences("people.npz", Sequences(people, times=[0, 1, 2]))
        common = "--epochs 2 --latent-dim"
        for arguments in (
            f"data.npz --out vae {common} 2",
            f"data.npz --out cond --conditional {common} 2",
            f"data.npz --out flat {common} 1",
            f"data.npz --out ae --model ae {common} 2",
            f"people.npz --longitudinal --out flow {common} 2",
        ):
            assert run(["train", *arguments.split()]) == 0
    return folder


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for result in Path().glob("page.*"):
        result.unlink()


def explore(arguments):
    return run(["explore", *arguments.split()])


@pytest.mark.parametrize(
    "what", ["vae data.npz", "cond data.npz", "vae", "cond", "flow people.npz"]
)
def test_writes_a_page(what, capsys):
    assert explore(f"{what} --html page.html") == 0
    assert Path("page.html").read_text().startswith("<!doctype html>")
    assert "page: page.html" in capsys.readouterr().out
    record = json.loads(Path("page.html.json").read_text())
    assert record["explore"]["port"] == 8050


def test_joins_what_is_asked():
    assert explore("vae data.npz --html page.html --between 3:5 --between 0:1") == 0
    text = Path("page.html").read_text()
    assert "geodesic from #3 to #5" in text
    assert "geodesic from #0 to #1" in text


def test_further_arrays_are_columns():
    found = command._further_columns(Path("more.npz"), 12)
    assert list(found) == ["age"]


def test_serves_on_loopback_and_opens_a_browser(monkeypatch, capsys):
    pytest.importorskip("dash")
    opened, answers = [], []

    def serve(app, listening):
        threading.Thread(target=original, args=(app, listening), daemon=True).start()
        with urllib.request.urlopen(opened[0], timeout=30) as reply:
            answers.append(reply.read().decode())

    original = command.serve
    monkeypatch.setattr(command, "serve", serve)
    monkeypatch.setattr(command.webbrowser, "open", opened.append)
    assert explore("vae more.npz --port 0") == 0
    assert opened[0].startswith("http://127.0.0.1:")
    assert f"explore at {opened[0]} (Ctrl-C ends)" in capsys.readouterr().out
    assert "<title>chartae: vae</title>" in answers[0]


BAD = {
    "no model": "nothing data.npz",
    "one dimension": "flat data.npz",
    "no prior and no data": "ae",
    "follow-ups without data": "flow",
    "metric of follow-ups": "flow people.npz --metric posterior",
    "follow-ups' options": "vae data.npz --individual who",
    "no such metric": "vae data.npz --metric euclid",
    "data of another shape": "vae people.npz",
    "not a pair": "vae data.npz --html page.html --between 3",
    "pair without a page": "vae data.npz --between 3:5",
    "number of no observation": "vae data.npz --html page.html --between 3:12",
    "another kind of file": "vae data.npz --html page.png",
    "port": "vae data.npz --port 70000",
    "number of points": "vae data.npz --max-points 1",
}


@pytest.mark.parametrize("arguments", BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line_and_exit_code_2(arguments, capsys):
    before = set(Path().iterdir())
    assert explore(arguments) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("chartae: ")
    assert error.count("\n") == 1
    assert set(Path().iterdir()) == before
