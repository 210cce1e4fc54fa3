"""The command ``chartae push``, and models of the hub in the other commands."""

import contextlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from chartae.cli import run
from chartae.data import ArrayDataset, Sequences, write_npz, write_sequences

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with data, and models of them."""
    folder = tmp_path_factory.mktemp("trained")
    with contextlib.chdir(folder):
        x = torch.rand(6, 4, 4, generator=torch.Generator().manual_seed(0))
        y = torch.arange(6) % 2
        write_npz("data.npz", ArrayDataset(x, y, class_names=("cat", "dog")))
        write_sequences("people.npz", Sequences(torch.rand(6, 3, 2), times=[0, 1, 2]))
        for arguments in (
            "data.npz --out vae --conditional --latent-dim 2",
            "people.npz --longitudinal --out visits --model visitvae --latent-dim 2",
        ):
            assert run(["train", *arguments.split(), "--epochs", "1"]) == 0
    return folder


@pytest.fixture(autouse=True)
def folder(hub, trained, tmp_path, monkeypatch):
    """An empty working directory, in which no model of the hub is a folder."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return trained


def page(hub, name="ada/cats"):
    return hub.repositories[name].files("main")["README.md"].decode()


def test_push_and_sample(hub, folder, capsys):
    figures = {"figures": {"test": {"psnr": 21.5, "ssim": None}}, "samplers": {}}
    figures["samplers"]["normal"] = {"test": {"frechet": 0.125}}
    Path("figures.json").write_text(json.dumps(figures))
    options = ["--license", "mit", "--about", "Of cats.", "--metrics", "figures.json"]
    assert run(["push", str(folder / "vae"), "ada/cats", *options, "--message", "One"]) == 0
    commit = hub.repositories["ada/cats"].branches["main"]
    assert f"VAE: {hub.url}/ada/cats/commit/{commit}" in capsys.readouterr().out
    assert hub.repositories["ada/cats"].messages()[-1] == "One"
    files = hub.repositories["ada/cats"].files("main")
    assert files.keys() == {"config.json", "model.safetensors", "README.md", "picture.png"}
    assert str(folder).encode() not in b"".join(files.values())
    for line in (
        'license: "mit"',
        "Of cats.",
        "| PSNR (dB) | 21.5 |",
        "| Frechet distance (normal sampler) | 0.125 |",
        "| Classes | cat, dog |",
    ):
        assert line in page(hub).splitlines()
    assert "| Training | 1 epochs in" in page(hub)
    sample = ["sample", f"ada/cats@{commit}", "--n", "4", "--label", "dog", "--out"]
    assert run([*sample, "hub.npz"]) == 0
    assert run(["sample", str(folder / "vae"), *sample[2:], "local.npz"]) == 0
    one, other = (np.load(name) for name in ("hub.npz", "local.npz"))
    assert np.array_equal(one["x"], other["x"])
    record = json.loads(Path("hub.json").read_text())
    assert record["sample"]["model"] == f"ada/cats@{commit}"


def test_a_model_of_follow_ups(hub, folder):
    assert run(["push", str(folder / "visits"), "ada/visits"]) == 0
    assert "![The training, epoch by epoch](picture.png)" in page(hub, "ada/visits")
    arguments = ["generate", "ada/visits", "--times", "0,1", "--n", "3", "--out", "new.npz"]
    assert run(arguments) == 0
    assert np.load("new.npz")["x"].shape == (3, 2, 2)
    assert run(["sample", "ada/visits", "--out", "x.npz"]) == 2


def test_real_images_only_if_asked(hub, folder):
    data = str(folder / "data.npz")
    assert run(["push", str(folder / "vae"), "ada/cats"]) == 0
    assert "![Samples (NormalSampler), a row for each of 2 classes](picture.png)" in page(hub)
    assert run(["push", str(folder / "vae"), "ada/cats", "--data", data]) == 0
    assert "![Observations and their reconstructions](picture.png)" in page(hub)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("push nowhere ada/x", 2, "MODEL='nowhere': expected the folder of a trained model"),
        ("push {}/vae x", 2, "--repo-id='x': expected the name of a model on the Hugging Face Hub"),
        ("push {}/vae ada/x --metrics no.json", 2, "--metrics='no.json': expected a .json file of"),
        ("push {}/vae eve/x", 1, "the Hugging Face Hub refuses 'eve/x' (403)"),
        ("push {}/vae ada/x --create-pr --revision v1", 2, "expected one of them"),
        ("sample ada/x --out x.npz", 1, "MODEL='ada/x' is not a folder, and the Hugging Face Hub"),
        (
            "sample nowhere --out x.npz",
            2,
            "or the name of one on the Hugging Face Hub, as in user/",
        ),
        ("generate a/b/c --times 0 --out x.npz", 2, "MODEL='a/b/c': expected the folder"),
        ("explore ada/x --html x.html", 1, "has no model 'ada/x'; if it is private, log in"),
    ],
)
def test_refuses(arguments, code, message, folder, capsys):
    assert run(arguments.format(folder).split()) == code
    assert message in capsys.readouterr().err


def test_the_page_of_the_documentation_runs(hub):
    names = {}
    for block in re.findall(
        r"```python\n(.*?)```", (DOCS / "hub.md").read_text("utf-8"), re.DOTALL
    ):
        exec(compile(block, "hub.md", "exec"), names)
    assert names["url"].startswith(f"{hub.url}/ada/digits-vae/commit/")
    assert torch.equal(
        names["copy"].encode(names["data"].x), names["model"].encode(names["data"].x)
    )
