"""Models that go to a hub and come back, and what is refused on the way."""

import logging
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from hypothesis import example, given
from hypothesis import strategies as st

import chartae
from chartae import persistence
from chartae.data import Sequences
from chartae.errors import CheckpointError, ConfigurationError
from chartae.hub import Card, is_hub_id
from chartae.longitudinal import VisitVAE
from chartae.persistence import CONFIG_FILE, WEIGHTS_FILE
from chartae.report import model_card

NAME = "ada/digits"
SMALL = {"name": "mlp", "hidden": [4]}
X = torch.rand(8, 3, 2, generator=torch.Generator().manual_seed(0))


def build(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return chartae.VAE((3, 2), 2, encoder=SMALL, decoder=SMALL, **options).eval()


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def files(hub, revision="main"):
    return hub.repositories[NAME].files(revision)


# --- there and back -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Use 'content=<...>'")  # huggingface_hub's own
@pytest.mark.parametrize("mode", ["regular", "lfs"])
def test_a_model_comes_back(mode, hub, monkeypatch):
    hub.mode = mode
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", mode == "lfs")  # xet needs its own server
    model = build()
    url = model.push_to_hub(NAME, message="The first one")
    assert url == f"{hub.url}/{NAME}/commit/{hub.repositories[NAME].branches['main']}"
    assert hub.repositories[NAME].messages()[-1] == "The first one"
    assert files(hub).keys() == {CONFIG_FILE, WEIGHTS_FILE, "README.md"}
    loaded = chartae.load(NAME)
    assert type(loaded) is chartae.VAE
    assert same(loaded, model)
    assert torch.equal(loaded.reconstruct(X), model.reconstruct(X))
    assert not loaded.training
    assert chartae.load(NAME, dtype=torch.float64).dtype == torch.float64


def test_a_sampler_and_a_model_of_follow_ups_come_back(hub):
    sampler = chartae.MixtureSampler(build(), num_components=2).fit(X)
    sampler.push_to_hub(NAME)
    assert torch.equal(chartae.load(NAME).sample(5, seed=1), sampler.sample(5, seed=1))
    model = VisitVAE((3,), 2, encoder=SMALL, decoder=SMALL).eval()
    model.push_to_hub("ada/visits")
    people = Sequences(torch.rand(4, 3, 3), times=[0, 1, 2])
    again = chartae.load("ada/visits").impute(people, num_draws=2, seed=0)
    assert torch.equal(again.values, model.impute(people, num_draws=2, seed=0).values)


def test_only_our_files_are_downloaded_and_only_once(hub):
    build().push_to_hub(NAME)
    extra = {"pytorch_model.bin": b"0" * 9, "run.py": b"1/0", "sub/config.json": b"{}"}
    hub.repositories[NAME].commit("main", extra)
    chartae.load(NAME)
    chartae.load(NAME)
    assert [path.rsplit("/")[-1] for path in hub.downloads()] == [CONFIG_FILE, WEIGHTS_FILE]


def test_names_that_leave_the_folder_of_the_cache_are_not_written(hub, tmp_path):
    build().push_to_hub(NAME)
    names = [f"../../../../{CONFIG_FILE}", f"a/../../{WEIGHTS_FILE}", f"/{CONFIG_FILE}", "..\\x"]
    hub.repositories[NAME].commit("main", dict.fromkeys(names, b"{}"))
    chartae.load(NAME)
    assert all("snapshots" in path.parts for path in tmp_path.rglob(CONFIG_FILE))
    assert len(list(tmp_path.rglob(WEIGHTS_FILE))) == 1


def test_revisions(hub):
    first, second = build(), build(likelihood="bernoulli")
    first.push_to_hub(NAME)
    commit = hub.repositories[NAME].branches["main"]
    second.push_to_hub(NAME, revision="next")
    assert same(chartae.load(NAME), first)
    assert same(chartae.load(NAME, revision="next"), second)
    second.push_to_hub(NAME)
    assert type(chartae.load(NAME).observation_model) is type(second.observation_model)
    assert same(chartae.load(NAME, revision=commit), first)
    with pytest.raises(
        CheckpointError, match="'ada/digits' on the Hugging Face Hub has no revision 'v9'"
    ):
        chartae.load(NAME, revision="v9")


def test_a_pull_request(hub):
    build().push_to_hub(NAME)
    before = files(hub)
    second = build(likelihood="bernoulli")
    url = second.push_to_hub(NAME, create_pr=True, message="Bernoulli")
    assert url == f"{hub.url}/{NAME}/discussions/1"
    assert files(hub) == before
    assert same(chartae.load(NAME, revision="refs/pr/1"), second)
    with pytest.raises(ConfigurationError, match="create_pr=True and revision='v1'"):
        build().push_to_hub(NAME, create_pr=True, revision="v1")


# --- private and public -------------------------------------------------------------------------


def test_a_private_model_needs_a_token(hub, monkeypatch):
    build().push_to_hub(NAME, private=True)
    assert same(chartae.load(NAME), build())
    for token in (False, "hf_another"):
        with pytest.raises(CheckpointError, match="has no model 'ada/digits'; if it is private"):
            chartae.load(NAME, token=token)
    monkeypatch.delenv("HF_TOKEN")
    assert same(chartae.load(NAME, token="hf_secretOfAda"), build())
    with pytest.raises(ConfigurationError, match="token=True: this machine has no token; log in"):
        chartae.load(NAME, token=True)


def test_a_model_whose_readers_are_approved(hub):
    build().push_to_hub(NAME)
    hub.failure = (403, "Access is restricted", "GatedRepo")
    with pytest.raises(CheckpointError, match="'ada/digits' is gated: ask for access on its page"):
        chartae.load(NAME)


def test_private_does_not_become_public(hub):
    build().push_to_hub(NAME)
    before = files(hub)
    with pytest.raises(ConfigurationError, match="private=True: 'ada/digits' exists and is public"):
        build(likelihood="bernoulli").push_to_hub(NAME, private=True)
    assert files(hub) == before


@pytest.mark.parametrize(
    ("name", "token", "message"),
    [
        (NAME, False, r"refuses 'ada/digits' \(401\): Invalid token None; log in"),
        (NAME, "hf_wrong", r"refuses 'ada/digits' \(401\): Invalid token.*\(token\); log in"),
        ("eve/digits", None, r"refuses 'eve/digits' \(403\): You don't have the rights.*; log in"),
    ],
)
def test_who_may_not_write(name, token, message, hub):
    with pytest.raises(CheckpointError, match=message):
        build().push_to_hub(name, token=token)
    assert not hub.repositories


def test_the_token_is_nowhere(hub, tmp_path, caplog, capfd, offline):
    """Not in files, logs, output or errors, even if the hub repeats it."""
    secret, errors = "hf_secretOfAda", []
    caplog.set_level(logging.DEBUG)
    build().push_to_hub(NAME, token=secret)
    chartae.load(NAME, token=secret)
    hub.failure = (403, f"Bearer {secret} may not")
    for token in (secret, None):
        for action in (build().push_to_hub, chartae.load):
            with pytest.raises(CheckpointError) as caught:
                action(NAME, token=token)
            assert caught.value.__suppress_context__
            errors.append(str(caught.value))
    for bad in ("hf_one\n", "hf_öne", "hf one", ""):
        with pytest.raises(ConfigurationError, match="token is empty, or has spaces") as caught:
            chartae.load(NAME, token=bad)
        errors.append(str(caught.value))
    offline("no network")
    with pytest.raises(CheckpointError) as caught:
        build().push_to_hub(NAME, token=secret)
    errors.append(str(caught.value))
    shown = "".join([*errors, caplog.text, *capfd.readouterr()])
    assert "secretOfAda" not in shown
    assert "hf_one" not in shown
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 3
    assert not any(b"secretOfAda" in path.read_bytes() for path in written)
    assert not any(b"secretOfAda" in content for content in files(hub).values())
    with pytest.raises(ConfigurationError, match="token is int: expected text"):
        chartae.load(NAME, token=3)


# --- without a network --------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["HF_HUB_OFFLINE", "no network", "the hub is down"])
def test_the_copy_in_the_cache_is_used_and_this_is_said(how, hub, offline, caplog):
    model = build()
    model.push_to_hub(NAME)
    chartae.load(NAME)
    assert "cache" not in caplog.text
    if how == "the hub is down":
        hub.failure = (503, "maintenance")
    else:
        offline(how)
    assert same(chartae.load(NAME), model)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("Could not reach the Hub")
    assert "Using cached commit hash for 'ada/digits'" in line
    with pytest.raises(
        CheckpointError, match="cannot be reached, and the cache has no copy of 'ada/o"
    ):
        chartae.load("ada/other")


def test_a_part_of_a_copy_is_not_enough(hub, offline, tmp_path):
    build().push_to_hub(NAME)
    chartae.load(NAME)
    for path in (tmp_path / "cache").rglob(WEIGHTS_FILE):
        path.resolve().unlink()
        path.unlink()
    offline()
    with pytest.raises(
        CheckpointError, match="cannot be reached, and the cache has no copy of 'ada"
    ):
        chartae.load(NAME)


# --- what is not a model of chartae -------------------------------------------------------------


def put(hub, content):
    """Replace files of a model on the hub."""
    build().push_to_hub(NAME)
    hub.repositories[NAME].commit("main", content)


def test_no_such_repository(hub):
    message = "'runs/vae' is not a folder, and the Hugging Face Hub has no model 'runs/vae'"
    with pytest.raises(CheckpointError, match=message):
        chartae.load("runs/vae")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"model_type": "bert"}', "is no model of chartae: .* does not describe a model"),
        (b"\x80\x04", "is no model of chartae: .* cannot be read"),
        (b"[]", "is no model of chartae"),
    ],
)
def test_a_model_of_another_library(content, message, hub):
    put(hub, {CONFIG_FILE: content})
    with pytest.raises(CheckpointError, match=f"'ada/digits' on the Hugging Face Hub {message}"):
        chartae.load(NAME)
    assert not any(path.endswith(WEIGHTS_FILE) for path in hub.downloads())


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_repository_without_a_model(name, hub):
    build().push_to_hub(NAME)
    del files(hub)[name]
    message = "'ada/digits' on the Hugging Face Hub is no model of chartae: expected the files"
    with pytest.raises(CheckpointError, match=message):
        chartae.load(NAME)


@pytest.mark.parametrize("content", [b"", b"\xff" * 200])
def test_damaged_weights(content, hub):
    put(hub, {WEIGHTS_FILE: content})
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        chartae.load(NAME)


def test_weights_of_another_save(hub):
    build().push_to_hub(NAME)
    put(hub, {CONFIG_FILE: files(hub)[CONFIG_FILE] + b"\n"})
    with pytest.raises(CheckpointError, match="does not belong to config.json"):
        chartae.load(NAME)


def test_an_unknown_class(hub, monkeypatch):
    class OfAScript(chartae.VAE):
        """Known to the process that pushes only."""

    OfAScript((3, 2), 2, encoder=SMALL, decoder=SMALL).push_to_hub(NAME)
    monkeypatch.delitem(persistence.CLASSES, "OfAScript")
    with pytest.raises(CheckpointError, match="class 'OfAScript' is unknown: expected one of AAE"):
        chartae.load(NAME)


# --- names --------------------------------------------------------------------------------------


def test_a_folder_wins(hub):
    build(likelihood="bernoulli").push_to_hub(NAME)
    model = build()
    model.save_pretrained(NAME)
    hub.requests.clear()
    assert same(chartae.load(NAME), model)
    with pytest.raises(ConfigurationError, match="revision='v1': 'ada/digits' is a path"):
        chartae.load(NAME, revision="v1")
    assert not hub.requests


@pytest.mark.parametrize("name", ["nowhere", "./ada/digits", "ada/digits/", "/ada/digits", "a/b/c"])
def test_other_names_are_paths(name, hub):
    with pytest.raises(CheckpointError, match=f"has no {CONFIG_FILE}: expected a folder written"):
        chartae.load(name)
    with pytest.raises(ConfigurationError, match="repo_id='.*': expected the name of a model"):
        build().push_to_hub(name)
    assert not hub.requests


@given(st.from_regex(r"[a-zA-Z0-9_.\-/é]{0,12}", fullmatch=True) | st.text(max_size=12))
@example("a/" + "b" * 96)
@example("a/" + "b" * 97)
@example("ada/digits\n")
@example("ada/x.git")
@example("ada/x--y")
@example("ada/x..y")
@example("ada/-x")
@example("ada/x.")
def test_names_are_those_that_huggingface_hub_accepts(name):
    try:
        validate_repo_id(name)
        valid = "/" in name
    except HFValidationError:
        valid = False
    assert is_hub_id(name) == valid


def test_without_huggingface_hub(hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    message = r"the Hugging Face Hub needs huggingface_hub: pip install 'chartae\[hub\]'"
    with pytest.raises(ConfigurationError, match=f"'runs/vae' is not a folder, and {message}"):
        chartae.load("runs/vae")
    with pytest.raises(ConfigurationError, match=message):
        build().push_to_hub(NAME)


# --- pages --------------------------------------------------------------------------------------


def test_a_page_with_a_picture(hub):
    card = model_card(build(), license="mit", about="Of *noise*.", metrics={"MSE | test": 0.25})
    build().push_to_hub(NAME, card=card)
    page = files(hub)["README.md"].decode()
    assert page.startswith('---\nlibrary_name: "chartae"\ntags: ["chartae", ')
    for line in (
        'license: "mit"',
        'pipeline_tag: "unconditional-image-generation"',
        "# digits",
        "Of *noise*.",
        "| MSE \\| test | 0.25 |",
        'model = chartae.load("ada/digits")',
    ):
        assert line in page.splitlines()
    assert "![Samples (NormalSampler)](picture.png)" in page
    assert files(hub)["picture.png"].startswith(b"\x89PNG")


def test_a_page_of_the_repository_stays(hub):
    build().push_to_hub(NAME)
    assert "VAE" in files(hub)["README.md"].decode()
    hub.repositories[NAME].commit("main", {"README.md": b"mine"})
    build(likelihood="bernoulli").push_to_hub(NAME)
    assert files(hub)["README.md"] == b"mine"
    build().push_to_hub(NAME, card=Card("New."))
    assert "New." in files(hub)["README.md"].decode()


def test_a_license_that_the_hub_does_not_know(hub):
    with pytest.raises(CheckpointError, match='ada/digits.*"license" must be one of mit'):
        build().push_to_hub(NAME, card=model_card(build(), license="my own"))
    assert not files(hub)


def trajectory(**options):
    return VisitVAE((3, 2), 2, encoder=SMALL, decoder=SMALL, **options).eval()


KINDS = {
    "images": build,
    "classes": lambda: build(conditions=3),
    "vectors as conditions": lambda: build(conditions=(2,)),
    "learns from data": lambda: chartae.AE((3, 2), 2, encoder=SMALL, decoder=SMALL).eval(),
    "a sampler": lambda: chartae.MixtureSampler(build(), num_components=1).fit(X),
    "a sampler of classes": lambda: chartae.NormalSampler(build(conditions=2)),
    "vectors": lambda: chartae.VAE((4,), 2, encoder=SMALL, decoder=SMALL).eval(),
    "visits": trajectory,
    "visits of classes": lambda: trajectory(conditions=2),
    "visits with numbers": lambda: trajectory(conditions=(1,)),
}
DRAWN = KINDS.keys() - {
    "vectors as conditions", "learns from data", "vectors", "visits with numbers"
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_lines_of_every_page_run(kind, hub):
    model = KINDS[kind]()
    card = model_card(model)
    assert (card.figure is not None) == (kind in DRAWN)
    model.push_to_hub(NAME, card=replace(card, figure=None))
    page = files(hub)["README.md"].decode()
    lines = page.partition("```python\n")[2].partition("```")[0]
    shape = model.model.input_shape if isinstance(model, chartae.NormalSampler) else (3, 2)
    names = {"x": torch.rand(9, *getattr(model, "input_shape", shape))}
    exec(compile(lines, "page", "exec"), names)
    assert len(names["x"]) == 10
    assert bool(names["x"].isfinite().all())


def test_a_page_tells_the_training(hub):
    model = chartae.VAE((4,), 2, encoder=SMALL, decoder=SMALL)
    x = torch.rand(12, 4)
    history = chartae.fit(model, x, x[:4], epochs=2, seed=0, progress=False)
    card = model_card(model, history=history)
    loss = history.validation["loss"][history.best_epoch]
    assert card.facts["Loss (validation)"].startswith(f"{loss:.4g} in epoch ")
    assert card.facts["Training"].startswith("2 epochs in ")
    assert card.caption == "The training, epoch by epoch"
    assert card.figure.axes


def test_each_class_has_a_row_of_samples(monkeypatch):
    drawn, sample = [], chartae.NormalSampler.sample

    def spy(self, n, **options):
        drawn.append(options["y"].tolist())
        return sample(self, n, **options)

    monkeypatch.setattr(chartae.NormalSampler, "sample", spy)
    card = model_card(build(conditions=12))
    assert drawn == [[label for label in range(10) for _ in range(10)]]
    assert card.caption == "Samples (NormalSampler), a row for each of 10 classes"


def test_real_data_are_shown_only_if_given():
    assert [axes.get_title() for axes in model_card(build()).figure.axes] == ["samples"]
    card = model_card(build(), data=X.numpy())
    assert [axes.get_title() for axes in card.figure.axes] == ["data", "reconstructions"]
    labels = np.arange(8) % 2
    assert model_card(build(conditions=2), data=X, y=torch.as_tensor(labels)).figure is not None
    with pytest.raises(ConfigurationError, match="data are given: the page of this VisitVAE"):
        model_card(trajectory(), data=X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"license": 3}, "license=3: expected an identifier"),
        ({"license": " "}, "license=' ': expected an identifier"),
        ({"metrics": {"mse": float("nan")}}, r"metrics\['mse'\]=nan: expected a finite number"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_wrong_pages(options, message):
    with pytest.raises(ConfigurationError, match=message):
        model_card(build(), **options)


def test_a_page_is_of_a_model(hub):
    with pytest.raises(ConfigurationError, match="card is str: expected the result of chartae"):
        build().push_to_hub(NAME, card="# Digits")
    with pytest.raises(ConfigurationError, match="model is Linear: expected a model or a sampler"):
        model_card(torch.nn.Linear(2, 2))
