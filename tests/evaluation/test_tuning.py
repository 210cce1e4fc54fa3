"""`tune`: what it chooses from, what it finds, and what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import chartae
from chartae.cli.app import run as command
from chartae.data import ArrayDataset, digits
from chartae.errors import ConfigurationError, DataError
from chartae.evaluation import OBJECTIVES, Choice, Interval, Splits, default_space, tune
from chartae.evaluation.search import Pruned
from chartae.evaluation.spaces import own_space
from chartae.evaluation.tuning import _objective, _Task
from chartae.models import MODELS
from chartae.training import History

pytest.importorskip("optuna", reason="optuna is not installed")

DIGITS = digits().subset(range(80))
TRAIN, VALIDATION = DIGITS.subset(range(60)), DIGITS.subset(range(60, 80))
SMALL = {name: {"name": "mlp", "hidden": [8]} for name in ("encoder", "decoder")}


def quick(data, folder, **options):
    usual = {"trials": 3, "epochs": 2, "options": SMALL, "metric": "loss", "folder": folder}
    return tune(data, **{**usual, **options})


# --- what it finds --------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_latent_dimension_of_the_truth_wins(tmp_path):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 2, generator=generator) @ torch.randn(2, 6, generator=generator)
    x = x + 0.1 * torch.randn(400, 6, generator=generator)
    linear = {name: {"name": "mlp", "hidden": []} for name in ("encoder", "decoder")}
    options = {
        **linear,
        "likelihood": {"name": "gaussian", "scale": "learned"},
        "learning_rate": 0.03,
        "batch_size": 100,
    }
    result = quick(
        x,
        tmp_path,
        metric="log_likelihood",
        space={"latent_dim": Choice([1, 2])},
        options=options,
        epochs=25,
        trials=4,
    )
    assert result.best.arguments == {"latent_dim": 2}
    values = {t.arguments["latent_dim"]: t.value for t in result.search.complete}
    assert values[2] > values[1] + 1.0


@pytest.mark.slow
def test_a_figure_that_needs_labels(tmp_path):
    few = digits().subset(range(200))
    result = quick(few, tmp_path, metric="probe_accuracy", epochs=5, trials=2)
    assert result.search.higher
    assert 0.2 < result.best.value == max(trial.value for trial in result.search.complete)


def test_a_figure_of_samples(tmp_path):
    result = quick(DIGITS.x, tmp_path, model="ae", metric=None, trials=2)
    assert result.metric == "frechet"
    assert 0.0 < result.best.value == min(trial.value for trial in result.search.complete)


def test_the_first_trial_has_the_defaults_and_the_best_model_is_that_of_its_row(tmp_path):
    result = quick(DIGITS.x, tmp_path, options={})
    first = result.search.trials[0]
    assert first.arguments["learning_rate"] == 1e-3
    assert first.arguments["latent_dim"] == 8
    assert first.arguments["batch_size"] in (32, 64)  # 128 is more than the training set has
    result.save_best(tmp_path / "best")
    model = chartae.load(tmp_path / "best")
    history = History.load(tmp_path / "best" / "history.json")
    assert model.latent_dim == result.best.arguments["latent_dim"]
    assert result.best.value == min(history.validation["loss"])
    assert [record["trial"] for record in result.records()] == [0, 1, 2]
    assert result.records()[0]["loss"] == first.value
    assert f"loss {result.best.value:.4g} on validation data" in result.describe()


def test_a_pruned_training_ends_at_once():
    fixed = {"latent_dim": 2, "learning_rate": 1e-3, "batch_size": 60, "epochs": 9, "seed": 0}
    task = _Task(Splits(TRAIN, VALIDATION), "vae", "loss", "auto", {**fixed, **SMALL}, True)
    seen = []

    def report(epoch, loss):
        seen.append((epoch, loss))
        return epoch == 3

    with pytest.raises(Pruned):
        _objective(task, {}, report)
    assert [epoch for epoch, _ in seen] == [1, 2, 3]
    figures = _objective(task, {"epochs": 2}, lambda epoch, loss: False).figures
    assert figures["value"] == min(loss for epoch, loss in seen if epoch < 3)


# --- what it chooses from -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_a_space_that_it_takes(model):
    fixed = {"learning_rate": 1e-3, "batch_size": 8, "kl_warmup": 0, "epochs": 2, "seed": 0}
    task = _Task(Splits(TRAIN, VALIDATION), model, "frechet", "auto", fixed, False)
    task.check(default_space(model, TRAIN), fixed)


def test_the_guide_lists_the_spaces():
    guide = (Path(__file__).parents[2] / "docs" / "tuning.md").read_text(encoding="utf-8")
    spaces = {model: own_space(model) for model in MODELS}
    rows = [
        f"| `{model}` | {'; '.join(f'`{name}` {values}' for name, values in space.items())} |"
        for model, space in spaces.items()
        if space
    ]
    assert "|---|---|\n" + "\n".join(rows) + "\n\n" in guide


def test_the_default_space():
    assert default_space("betavae", DIGITS) == {
        "learning_rate": Interval(1e-4, 1e-2, log=True),
        "batch_size": Choice([32, 64]),
        "latent_dim": Interval(2, 32, log=True),
        "beta": Interval(0.01, 10.0, log=True),
    }
    assert default_space("wae", DIGITS)["kernel"] == Choice(["rbf", "imq"])
    assert default_space("vqvae", DIGITS).keys() == {
        *("learning_rate", "batch_size", "num_codes", "commitment")
    }
    assert default_space("vae", DIGITS.subset(range(9)))["batch_size"] == Choice([9])
    volumes = ArrayDataset(torch.rand(6, 1, 2, 2, 2))
    assert default_space("vae", volumes)["batch_size"] == Choice([1, 2, 5])


def test_a_fixed_argument_is_not_searched(tmp_path):
    result = quick(DIGITS.x, tmp_path, options=SMALL | {"latent_dim": 3}, trials=1)
    assert result.space.keys() == {"learning_rate", "batch_size"}
    assert result.arguments(result.best)[0]["latent_dim"] == 3


def test_losses_of_different_objectives_are_not_compared(tmp_path):
    result = quick(DIGITS.x, tmp_path / "loss", model="betavae", trials=1)
    assert "beta" not in result.space
    assert result.prunes
    result = quick(DIGITS.x, tmp_path / "mse", model="betavae", metric="mse", trials=1)
    assert "beta" in result.space
    assert not result.prunes
    assert result.incomparable == ["beta"]


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "novelty"}, "metric='novelty' is not known"),
        ({"metric": "prd_f8"}, "metric='prd_f8' is not known"),
        ({"metric": "probe_accuracy"}, "no labels of at least two classes"),
        ({"metric": "log_likelihood", "model": "ae"}, "ae has no likelihood"),
        ({"metric": "straight", "model": "vqvae"}, "does not decode single latents"),
        ({"model": "vea"}, "model='vea' is not known; .*did you mean 'vae'"),
        ({"sampler": "volum"}, "sampler='volum' is not known"),
        ({"sampler": "code"}, "sampler='code': "),
        ({"space": {"latent_dm": Interval(1, 2)}}, "latent_dm is not an argument of VAE; did you"),
        ({"space": {"latent_dim": Interval(0, 2)}}, "space with latent_dim=0: latent_dim=0"),
        ({"space": {"latent_dim": Interval(1, 2.5)}}, "space with latent_dim=2.5"),
        ({"space": {"learning_rate": Interval(0.0, 1.0)}}, "space with learning_rate=0.0"),
        ({"space": {"kl_warmup": Interval(0, 2)}}, "space with kl_warmup=2"),
        ({"space": {"latent_dim": [1, 2]}}, r"latent_dim=\[1, 2\]: expected an Interval or a Ch"),
        (
            {"space": {"beta": Interval(1, 2)}, "model": "betavae"},
            "beta in space, which changes the loss",
        ),
        (
            {"space": {"latent_dim": Interval(1, 2)}, "options": {"latent_dim": 3}},
            "latent_dim is in space and in options",
        ),
        ({"options": {"learning_rate": 0.0}}, "learning_rate=0.0"),
        ({"options": {"epochs": 3}}, "epochs is the same in all trials"),
        ({"space": {"seed": Interval(0, 3)}}, "seed is the same in all trials"),
        ({"validation": 1.0}, "validation=1.0"),
        ({"patience": 0}, "patience=0"),
        ({"epochs": 0}, "epochs=0"),
    ],
)
def test_refusals_before_any_work(options, message, tmp_path):
    with pytest.raises(ConfigurationError, match=message):
        quick(DIGITS.x, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_the_training_set_is_no_validation_set(tmp_path):
    with pytest.raises(DataError, match="validation is the training set"):
        quick(DIGITS.x, tmp_path, validation=DIGITS.x.clone())


def test_no_figure_that_only_a_test_set_has_is_an_objective():
    assert not {"prd_f8", "prd_f1_8", "novelty", "copies"} & OBJECTIVES.keys()


# --- the command ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_writes_what_train_makes_again(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("data.npz", x=DIGITS.x.numpy(), y=DIGITS.y.numpy())
    line = ["tune", "data.npz", "--metric", "loss", "--trials", "2", "--epochs", "2"]
    line += ["--space.latent-dim", "2,3", "--batch-size", "32", "--out", "tuned"]
    assert command(line) == 0
    said = capsys.readouterr().out
    assert "best of 2 trials: loss" in said
    again = next(one for one in said.splitlines() if one.startswith("train it again: "))
    words = again.removeprefix("train it again: chartae ").split()
    assert command([*words[:-1], "again"]) == 0
    for name in ("config.json", "model.safetensors"):
        one, other = (tmp_path / place / name for place in ("again", "tuned/best"))
        assert one.read_bytes() == other.read_bytes()
    assert (tmp_path / "tuned" / "trials.csv").read_text().startswith("trial,state,loss,")
    page = (tmp_path / "tuned" / "report.html").read_text()
    assert "latent_dim" in page
    assert "best of many trials" in page
    # The same command goes on, here with one more trial; other options are another search.
    capsys.readouterr()
    assert command([*line[:5], "3", *line[6:]]) == 0
    assert "best of 3 trials" in capsys.readouterr().out
    assert command([*line, "--seed", "1"]) == 2
    assert "expected another folder" in capsys.readouterr().err
    record = json.loads((tmp_path / "tuned" / "tune.json").read_text())
    assert record["tune"]["space"] == {"latent-dim": "2,3"}
    shutil.rmtree("tuned")
    assert command(["tune", "data.npz", "--space.latent-dim", "9:2", "--out", "tuned"]) == 2
    assert "--space.latent-dim='9:2': the range 9 to 2 is empty" in capsys.readouterr().err
    assert not (tmp_path / "tuned").exists()
