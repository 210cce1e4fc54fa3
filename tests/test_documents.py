"""The examples of README and CONTRIBUTING are run as they stand."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import chartae
import chartae.cli
from chartae.data import ArrayDataset, Sequences, read_volumes, write_sequences

ROOT = Path(__file__).parents[1]


def python_blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text("utf-8"), flags=re.DOTALL)


def run(*blocks: str) -> dict[str, Any]:
    """Run the blocks of a page, as a reader would, one after the other."""
    namespace: dict[str, Any] = {"__name__": "example"}
    for block in blocks:
        exec(compile(block, "example", "exec"), namespace)
    return namespace


def commands(name: str) -> list[list[str]]:
    """Return the arguments of the commands of a page, with one epoch for those that train."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / name).read_text("utf-8"), flags=re.DOTALL)
    found = []
    for line in "".join(blocks).splitlines():
        program, *arguments = shlex.split(re.sub(r"--epochs \d+ ?", "", line))
        assert program == "chartae"
        trains = arguments[0] in {"train", "augment", "study", "benchmark"}
        found.append([*arguments, *["--epochs", "1"] * trains])
    return found


# tests/hub runs the examples of docs/hub.md, which need a hub.
NAMES = sorted(page.name for page in (ROOT / "docs").glob("*.md") if page.name != "hub.md")
PAGES = ["README.md", *(f"docs/{name}" for name in NAMES)]


# Pages whose examples take seconds, of functions that have tests of their own.
SLOW = {
    "docs/augmentation.md",
    "docs/evaluation.md",
    "docs/followup_scores.md",
    "docs/followups.md",
    "docs/geodesics.md",
    "docs/imbalance.md",
    "docs/sampling.md",
    "docs/start_vae.md",
    "docs/statistics.md",
    "docs/study.md",
    "docs/tuning.md",
    "docs/volumes.md",
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW))
        for name in PAGES
        if python_blocks(name)
    ],
)
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(*python_blocks(name))


@pytest.mark.slow
def test_commands_of_followups_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a reader would type them, but with one epoch."""
    monkeypatch.chdir(tmp_path)
    run(python_blocks("docs/followups.md")[0])
    scores = np.random.default_rng(0).random((12, 3, 2))
    people = Sequences(scores, times=[0, 1, 2], covariates=["f", "m"] * 6, covariate_names=["sex"])
    write_sequences("scores.csv", people)
    for arguments in commands("docs/followups.md"):
        assert chartae.cli.run(arguments) == 0, arguments


@pytest.mark.slow
@pytest.mark.parametrize("name", ["start_images", "start_followups", "start_models"])
def test_commands_of_a_first_page_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a newcomer would type them, but with one epoch."""
    monkeypatch.chdir(tmp_path)
    run(*python_blocks(f"docs/{name}.md"))
    for arguments in commands(f"docs/{name}.md"):
        assert chartae.cli.run(arguments) == 0, arguments


@pytest.mark.slow
def test_command_of_volumes_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a reader would type it, but with one epoch."""
    monkeypatch.chdir(tmp_path)
    run(python_blocks("docs/volumes.md")[0])
    arguments, _ = commands("docs/volumes.md")  # the other is a study of slow networks
    assert chartae.cli.run(arguments) == 0
    assert len(read_volumes("new")) == 20
    for name in ("new.json", "new.html", "new-models", "new/manifest.csv", "new/control/00.nii.gz"):
        assert Path(name).exists()


def test_contributed_model_and_sampler_work(tmp_path: Path) -> None:
    model_block, _, sampler_block = python_blocks("CONTRIBUTING.md")
    for block in (model_block, sampler_block):
        assert len(block[block.index("class ") :].strip().splitlines()) <= 20
    x = torch.rand(20, 8, 8)
    model = run(model_block)["CapacityVAE"]((8, 8), 2, capacity=1.0)
    data = ArrayDataset(x, mask=x > 0.1, weight=torch.ones(20))
    history = chartae.fit(model, data, epochs=30, seed=0, progress=False)
    assert history.train["loss"][-1] < history.train["loss"][0]
    sampler = run(sampler_block)["SmoothedCodes"](model, bandwidth=0.2).fit(x)
    sampler.save_pretrained(tmp_path)
    again = chartae.load(tmp_path)
    assert again.model.capacity == 1.0
    assert torch.equal(again.sample(5, seed=0), sampler.sample(5, seed=0))


def test_contributed_trainable_is_trained() -> None:
    _, block, _ = python_blocks("CONTRIBUTING.md")
    assert run(block)["line"].slope.item() == pytest.approx(2.0, abs=0.01)
