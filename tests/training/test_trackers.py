"""Trackers by name: what each is given, where it goes, and what is refused."""

import csv
import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import chartae
from chartae.errors import ConfigurationError
from chartae.training import TRACKERS, Callback
from chartae.training.engine import Hidden, Objective
from chartae.training.loggers import make_loggers
from chartae.training.pictures import sheet

IMAGES = torch.rand(20, 1, 6, 6, generator=torch.Generator().manual_seed(0))
SMALL = {"name": "mlp", "hidden": [8]}


def vae(**options):
    torch.manual_seed(0)
    return chartae.VAE(
        (1, 6, 6), 2, encoder=SMALL, decoder=SMALL, likelihood="bernoulli", **options
    )


@pytest.fixture
def track(fit):
    """A function that trains four epochs with trackers."""

    def train(loggers, folder, **options):
        model = vae()
        history = fit(
            model, IMAGES, IMAGES[:5], epochs=4, loggers=loggers, output_dir=folder, **options
        )
        return model, history

    return train


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def expected(history):
    """Return the figures that a tracker gets, epoch by epoch."""
    curves = {"train": history.train, "validation": history.validation, "latents": history.latents}
    return [
        {
            **{f"{g}/{n}": v[k] for g, terms in curves.items() for n, v in terms.items()},
            "learning_rate": history.learning_rate[k],
        }
        for k in range(history.num_epochs)
    ]


# --- csv ----------------------------------------------------------------------------------------


def test_csv_has_the_history_the_arguments_and_pictures(track, tmp_path):
    _, history = track("csv", tmp_path)
    folder = tmp_path / "csv" / "version_0"
    found = [{name: float(value) for name, value in row.items()} for row in rows(folder)]
    assert found == [{**row, "step": k} for k, row in enumerate(expected(history))]
    arguments = json.loads((folder / "hyperparameters.json").read_text())
    assert (
        arguments.items()
        >= {
            "model": "VAE",
            "model/latent_dim": 2,
            "model/encoder/name": "mlp",
            "model/encoder/hidden": "[8]",
            "epochs": 4,
            "seed": 0,
            "train_size": 20,
            "validation_size": 5,
        }.items()
    )
    pictures = sorted(path.name for path in folder.glob("*.png"))
    steps = [f"reconstructions_step_{k}.png" for k in range(4)]
    assert pictures == [f"reconstructions_best_step_{history.best_epoch}.png", *steps]


def test_the_picture_of_the_end_shows_the_kept_weights(track, tmp_path):
    model, history = track(["csv"], tmp_path)
    name = f"reconstructions_best_step_{history.best_epoch}.png"
    shown = np.asarray(Image.open(tmp_path / "csv" / "version_0" / name))
    assert (shown == sheet(IMAGES[:5], model.reconstruct(IMAGES[:5]))[..., 0]).all()


def test_trackers_change_nothing_of_a_training(track, tmp_path):
    tracked, history = track("csv", tmp_path / "a")
    bare, other = track((), tmp_path / "b")
    assert (history.train, history.latents) == (other.train, other.latents)
    for one, two in zip(tracked.parameters(), bare.parameters(), strict=True):
        assert torch.equal(one, two)


def test_the_use_of_latents_is_that_of_the_batch():
    model = vae()
    objective = Objective(model, compile=False)

    def values():
        torch.manual_seed(0)
        return objective(Hidden({"x": IMAGES}))[1]

    plain = values()
    model.encode(IMAGES[:3])  # as for a picture, between two steps
    assert torch.equal(values(), plain)


def test_a_resumed_training_is_a_run_with_all_epochs(track, tmp_path):
    class Fails(Callback):
        def on_epoch_end(self, model, history):
            if history.num_epochs == 2:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        track("csv", tmp_path, callbacks=[Fails()], checkpoint_interval=0)
    _, history = track("csv", tmp_path, resume=True)
    first, second = (rows(tmp_path / "csv" / f"version_{k}") for k in (0, 1))
    assert [row["step"] for row in first] == ["0", "1"]
    assert [row["step"] for row in second] == ["0", "1", "2", "3"]
    assert [float(row["train/loss"]) for row in second] == history.train["loss"]


def test_vectors_have_no_pictures(fit, tmp_path):
    model = chartae.VAE((6,), 2, encoder=SMALL, decoder=SMALL)
    fit(model, IMAGES[:, 0, 0], epochs=1, loggers="csv", output_dir=tmp_path)
    assert {path.name for path in (tmp_path / "csv" / "version_0").iterdir()} == {
        "metrics.csv",
        "hyperparameters.json",
    }


@pytest.mark.parametrize("shape", [(5, 7), (1, 5, 7), (3, 5, 7), (4, 5, 7), (1, 3, 5, 7)])
def test_a_sheet_has_observations_above_reconstructions(shape):
    x = torch.arange(2.0 * np.prod(shape)).reshape(2, *shape) * 3.0 - 50.0
    picture = sheet(x, x.flip(0))
    channels = shape[0] if len(shape) == 3 else 1
    assert picture.shape == (2 * (8 * 5 + 2), 2 * (8 * 7 + 2), channels)
    assert len(shape) == 4 or picture.min() == 0  # a volume has its minimum in another slice
    top, bottom = picture[:40], picture[42:82]
    assert (top[:, :56] == bottom[:, 58:114]).all()
    assert (top[:, 58:114] == bottom[:, :56]).all()
    assert top[:, :56].mean() < top[:, 58:114].mean()


# --- others -------------------------------------------------------------------------------------


def test_tensorboard_has_curves_arguments_and_pictures(track, tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard"
    )
    _, history = track("tensorboard", tmp_path)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard" / "version_0")).Reload()
    values = [event.value for event in events.Scalars("validation/loss")]
    assert values == pytest.approx(history.validation["loss"])
    assert set(events.Tags()["scalars"]) == set(expected(history)[0])
    assert [event.step for event in events.Images("reconstructions")] == [0, 1, 2, 3]
    assert [event.step for event in events.Images("reconstructions_best")] == [history.best_epoch]
    sessions = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"model/latent_dim" in sessions


class Calls:
    """An object whose methods note their arguments."""

    def __init__(self):
        self.noted = []

    def __getattr__(self, name):
        return lambda *args, **options: self.noted.append((name, args, options))


@pytest.fixture
def fake(monkeypatch):
    """A function that puts a module in the place of a package."""

    def place(name, **content):
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)

    return place


def test_wandb_is_offline_unless_told_otherwise(track, fake, tmp_path, monkeypatch):
    run = Calls()
    run.config = run
    begun = []
    fake(
        "wandb",
        init=lambda **options: begun.append(options) or run,
        Settings=lambda **options: options,
        Image=lambda image: image.shape,
        Error=RuntimeError,
    )
    monkeypatch.delenv("WANDB_MODE", raising=False)
    _, history = track("wandb", tmp_path)
    assert begun[0]["mode"] == "offline"
    assert begun[0]["dir"] == tmp_path / "wandb"
    assert run.noted[1][0] == "update"
    assert run.noted[1][1][0]["model/latent_dim"] == 2
    logged = [args[0] for name, args, _ in run.noted if name == "log"]
    figures = [one for one in logged if "train/loss" in one]
    assert figures == [{**row, "epoch": k} for k, row in enumerate(expected(history))]
    assert logged[-1].keys() == {"reconstructions_best", "epoch"}
    assert run.noted[-1] == ("finish", (), {"exit_code": 0})
    monkeypatch.setenv("WANDB_MODE", "online")
    track("wandb", tmp_path / "other")
    assert begun[1]["mode"] == "online"


def test_mlflow_has_its_store_in_the_folder(track, fake, tmp_path, monkeypatch):
    client, addresses = Calls(), []
    client.get_experiment_by_name = lambda name: None
    client.create_run = lambda experiment: SimpleNamespace(info=SimpleNamespace(run_id="r1"))
    fake("mlflow", MlflowClient=lambda address: addresses.append(address) or client)
    fake("mlflow.exceptions", MlflowException=RuntimeError)
    fake("mlflow.entities", Metric=lambda *values: values, Param=lambda *values: values)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    _, history = track("mlflow", tmp_path)
    assert addresses == [f"sqlite:///{tmp_path.resolve() / 'mlflow' / 'mlflow.db'}"]
    batches = [(args, options) for name, args, options in client.noted if name == "log_batch"]
    assert ("model/latent_dim", "2") in batches[0][1]["params"]
    found = [
        {name: value for name, value, _, step in options["metrics"] if step == k}
        for k, (_, options) in enumerate(batches[1:])
    ]
    assert found == expected(history)
    assert client.noted[-1] == ("set_terminated", ("r1", "FINISHED"), {})


@pytest.mark.slow
def test_wandb_itself(track, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    track("wandb", tmp_path)
    (run,) = (tmp_path / "wandb" / "wandb").glob("offline-run-*")
    assert (next(run.glob("*.wandb"))).stat().st_size > 1000
    assert len(list((run / "files" / "media" / "images").glob("*.png"))) == 5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of its own dependencies
def test_mlflow_itself(track, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    _, history = track("mlflow", tmp_path)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("chartae").experiment_id])
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert [metric.value for metric in losses] == history.train["loss"]
    assert run.data.params["model/latent_dim"] == "2"
    assert run.info.status == "FINISHED"
    assert len(list(Path(run.info.artifact_uri.removeprefix("file://")).rglob("*.png"))) == 5


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loggers", "folder", "message"),
    [
        ("tensorbord", "here", "loggers='tensorbord' is not known; .*did you mean 'tensorboard'"),
        ("csv", None, "loggers='csv' without output_dir: expected the folder"),
        (["csv", "csv"], "here", "loggers has 'csv' twice"),
        (["csv", 3], "here", "loggers has int: expected Lightning loggers, or names among csv"),
    ],
)
def test_refusals(loggers, folder, message):
    with pytest.raises(ConfigurationError, match=message):
        make_loggers(loggers, folder)


@pytest.mark.parametrize("name", sorted(set(TRACKERS) - {"csv"}))
def test_a_missing_package_is_named_before_any_work(name, track, tmp_path, monkeypatch):
    monkeypatch.setattr("chartae.training.loggers.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=f"pip install {name}"):
        track(name, tmp_path / "out")
    assert not (tmp_path / "out").exists()
