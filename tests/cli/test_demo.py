import json

import pytest
import torch

from chartae.cli import demo as module
from chartae.cli import run
from chartae.data import digits, read_data


def test_test_digits_are_apart_and_many():
    pool, test = module._split(module.RECIPE)
    assert len(test) >= 1300
    rows = {row.numpy().tobytes() for row in pool.x}
    duplicates = len(digits()) - len({row.numpy().tobytes() for row in digits().x})
    assert sum(row.numpy().tobytes() in rows for row in test.x) <= duplicates
    assert len(pool) + len(test) == len(digits())


@pytest.fixture
def tiny(monkeypatch):
    """The demo with trainings of no use, in this process."""
    recipe = module.Recipe(synthetic_per_class=3, epochs=2)
    monkeypatch.setattr(module, "QUICK", recipe)
    monkeypatch.setattr("joblib.cpu_count", lambda: 1)
    monkeypatch.setattr(module, "CHOSEN", ("k-NN",))


@pytest.mark.slow
def test_writes_everything(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["demo", "--quick", "--seeds", "1"]) == 0
    out, folder = capsys.readouterr().out, tmp_path / "chartae-demo"
    assert "synthetic only" in out
    assert "chartae-demo/report.html" in out
    made = read_data(folder / "synthetic.npz")
    assert made.x.shape == (30, 8, 8)
    assert torch.bincount(made.y).tolist() == [3] * 10
    page = (folder / "report.html").read_text(encoding="utf-8")
    for heading in ("In short", "Real beside synthetic", "Real or synthetic?", "Latent maps"):
        assert f"<h2>{heading}</h2>" in page
    study = json.loads((folder / "study.json").read_text())
    sets = 1 + 5 + 2 + 5  # real, added, with transforms, only
    assert len(study["records"]) == sets * 2  # on the validation and on the test set
    assert study["settings"]["num_test"] >= 1300
    assert json.loads((folder / "demo.json").read_text())["demo"]["quick"] is True
    names = {entry.name for entry in (folder / "models").iterdir()}
    assert names == {"augmenter.json", *map(str, range(10))}
    assert len(list(folder.iterdir())) == 6  # and nothing else is left
    assert out.startswith("On these digits synthetic data ")
    assert "On these digits synthetic data " in page.split("</header>")[0]
    assert run(["demo", "--quick", "--seeds", "1"]) == 2  # replaces nothing unasked
    assert run(["sample", "chartae-demo/models/3", "--n", "2", "--out", "s.npz"]) == 0
