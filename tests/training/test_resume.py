"""A training that was cut ends as one that was not, bit for bit; another training is refused."""

import json
from pathlib import Path

import pytest
import torch
from torch import optim

import chartae
from chartae.errors import CheckpointError, ConfigurationError
from chartae.training import CHECKPOINT_FILE, HISTORY_FILE, Callback, History
from chartae.training.trainer import Trainer


class Killed(BaseException):
    """Not an error that anything would handle."""


@pytest.fixture
def cut(monkeypatch):
    """Make the training stop dead in its n-th step, as a kill would, or not at all."""

    def at(step):
        calls = 0
        original = Trainer.step

        def dying(self, batch):
            nonlocal calls
            calls += 1
            if calls == step:
                raise Killed
            original(self, batch)

        monkeypatch.setattr(Trainer, "step", dying)

    return at


def step_lr(optimizer):
    return optim.lr_scheduler.StepLR(optimizer, 2)


# 30 samples in batches of 8 are four steps an epoch.
SETTINGS = {
    "plain": {},
    "validation": {"validate": True},
    "cosine": {"scheduler": "cosine"},
    "plateau": {"scheduler": "plateau", "epochs": 16, "batch_size": 30, "learning_rate": 1e-7},
    "scheduler of mine": {"scheduler": step_lr},
    "warm-up": {"kl_warmup": 2},
    "clipped": {"clip_grad_norm": 0.1},
    "patience": {"patience": 1, "learning_rate": 0.5},
    "one batch": {"epochs": 16, "batch_size": 30},
    "sgd": {"optimizer": "sgd"},
    "bfloat16": {"precision": "bf16-mixed"},
    "RHVAE": {"name": "RHVAE"},
}


# A plain training is cut anywhere; the others within an epoch, and in the first step of one.
@pytest.mark.parametrize(
    ("setting", "step"),
    [(s, n) for s in SETTINGS for n in ((1, 2, 6, 9, 14) if s == "plain" else (6, 9))],
)
def test_a_cut_training_ends_as_an_uncut_one(setting, step, make_vae, fit, data, tmp_path, cut):
    options = {"epochs": 4, "batch_size": 8, "seed": 3, **SETTINGS[setting]}
    name, sets = options.pop("name", "VAE"), (data,)
    if options.pop("validate", False):
        sets = (data, data[:11])
    uncut = make_vae(name)
    expected = fit(uncut, *sets, **options)

    options |= {"output_dir": tmp_path, "checkpoint_interval": 0.0}
    cut(min(step, expected.num_epochs * -(-30 // options["batch_size"])))
    with pytest.raises(Killed):
        fit(make_vae(name), *sets, **options)
    resumed = make_vae(name, seed=99)
    history = fit(resumed, *sets, resume=True, **options)

    assert history.train == expected.train
    assert history.validation == expected.validation
    assert history.latents == expected.latents != {}
    assert history.learning_rate == expected.learning_rate
    assert history.best_epoch == expected.best_epoch
    assert history.stopped == expected.stopped
    for key, tensor in uncut.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], tensor), key


def test_several_cuts(make_vae, fit, data, tmp_path, cut):
    uncut = make_vae()
    fit(uncut, data, epochs=5, batch_size=8, seed=3)
    options = {"epochs": 5, "batch_size": 8, "seed": 3, "output_dir": tmp_path}
    for step in (3, 4, 2, 6):
        cut(step)
        with pytest.raises(Killed):
            fit(make_vae(), data, resume=True, checkpoint_interval=0.0, **options)
    resumed = make_vae()
    fit(resumed, data, resume=True, **options)
    for key, tensor in uncut.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], tensor), key


def test_opponents_resume(duel, fit, tmp_path, cut):
    uncut, resumed, x = duel(), duel(start=1.0), torch.zeros(8, 3)
    options = {"epochs": 6, "batch_size": 4, "optimizer": "adamw"}
    fit(uncut, x, **options)
    cut(5)
    with pytest.raises(Killed):
        fit(duel(), x, output_dir=tmp_path, checkpoint_interval=0.0, **options)
    fit(resumed, x, output_dir=tmp_path, resume=True, **options)
    assert (resumed.p.item(), resumed.q.item()) == (uncut.p.item(), uncut.q.item())


def test_the_results_are_in_the_folder(make_vae, fit, data, tmp_path, caplog):
    model = make_vae()
    with caplog.at_level("INFO"):
        history = fit(model, data, epochs=2, output_dir=tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    names = {"config.json", "model.safetensors", CHECKPOINT_FILE, HISTORY_FILE}
    assert {path.name for path in folder.iterdir()} == names
    assert [r.getMessage() for r in caplog.records if str(folder) in r.getMessage()] == [
        f"the model, its checkpoint and its history are in {folder}"
    ]
    assert History.load(folder / HISTORY_FILE) == history
    loaded = chartae.load(folder)
    assert torch.equal(loaded.encode(data), model.encode(data))


def test_resuming_what_is_finished_trains_no_more(make_vae, fit, data, tmp_path, cut):
    model = make_vae("RHVAE")
    options = {"epochs": 3, "output_dir": tmp_path, "resume": True}
    expected = fit(model, data, **options)
    cut(1)
    again = make_vae("RHVAE", seed=5)
    assert fit(again, data, **options) == expected
    for key, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key


def test_more_epochs_and_more_patience_go_on(make_vae, fit, data, tmp_path):
    uncut = make_vae()
    fit(uncut, data, epochs=6, batch_size=8)
    model, options = make_vae(), {"batch_size": 8, "output_dir": tmp_path, "resume": True}
    fit(model, data, epochs=2, **options)
    history = fit(model, data, epochs=6, **options)
    assert history.num_epochs == 6
    for key, tensor in uncut.state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor), key


def test_more_patience_goes_on(parabola, fit, tmp_path):
    options = {"optimizer": "sgd", "learning_rate": 1.5, "output_dir": tmp_path, "resume": True}
    x = torch.zeros(4, 3)
    assert fit(parabola(), x, patience=2, epochs=20, **options).num_epochs == 3
    assert fit(parabola(), x, patience=2, epochs=20, **options).num_epochs == 3
    assert fit(parabola(), x, patience=4, epochs=20, **options).num_epochs == 5


def test_a_callback_that_stopped_is_not_overruled(make_vae, fit, data, tmp_path):
    class Stop(Callback):
        def on_epoch_end(self, model, history):
            return history.num_epochs >= 2

    options = {"epochs": 9, "output_dir": tmp_path, "resume": True, "callbacks": [Stop()]}
    assert fit(make_vae(), data, **options).num_epochs == 2
    assert fit(make_vae(), data, **options).num_epochs == 2


def test_resume_without_a_checkpoint_starts(make_vae, fit, data, tmp_path):
    assert fit(make_vae(), data, epochs=2, output_dir=tmp_path, resume=True).num_epochs == 2


def test_without_resume_training_starts_again(make_vae, fit, data, tmp_path, cut):
    fit(make_vae(), data, epochs=2, output_dir=tmp_path)
    cut(1)
    with pytest.raises(Killed):
        fit(make_vae(), data, epochs=2, output_dir=tmp_path)
    # The old checkpoint is gone with it: nothing of the old training can be mistaken for the new.
    history = fit(make_vae(), data, epochs=2, output_dir=tmp_path, resume=True)
    assert history.stopped == "finished"
    assert history.num_epochs == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 9}, r"batch_size=9 \(was 8\)"),
        ({"learning_rate": 2e-3}, r"learning_rate=0.002 \(was 0.001\)"),
        ({"optimizer": "adamw"}, r"optimizer='adamw' \(was 'adam'\)"),
        ({"scheduler": "plateau"}, r"scheduler='plateau' \(was 'cosine'\)"),
        ({"epochs": 5}, r"epochs=5 \(was 4\)"),
        ({"kl_warmup": 1}, r"kl_warmup=1 \(was 0\)"),
        ({"clip_grad_norm": 1.0}, r"clip_grad_norm=1.0 \(was None\)"),
        ({"precision": "bf16-mixed"}, "precision='bf16-mixed'"),
        ({"seed": 4}, r"seed=4 \(was 3\)"),
        ({"train": torch.rand(30, 6)}, "train='30 samples"),
        ({"train": torch.rand(29, 6)}, "train='29 samples"),
        ({"validation": torch.rand(5, 6)}, "validation='5 samples"),
        ({"name": "BetaVAE"}, "model='.*BetaVAE"),
        ({"name": "RHVAE", "batch_size": 9}, "batch_size=9.*model="),
    ],
)
def test_another_training_is_refused_by_name(change, message, make_vae, fit, data, tmp_path):
    def train(name="VAE", train=data, validation=None, **options):
        options = {"epochs": 4, "batch_size": 8, "seed": 3, "scheduler": "cosine", **options}
        fit(make_vae(name), train, validation, output_dir=tmp_path, resume=True, **options)

    train()
    before = (tmp_path / CHECKPOINT_FILE).read_bytes()
    with pytest.raises(CheckpointError, match=message):
        train(**change)
    assert (tmp_path / CHECKPOINT_FILE).read_bytes() == before


def test_the_seed_of_the_checkpoint_is_kept(make_vae, fit, data, tmp_path, cut):
    torch.manual_seed(1)
    uncut = make_vae()
    fit(uncut, data, epochs=3, seed=None)
    torch.manual_seed(1)
    cut(2)
    options = {"epochs": 3, "seed": None, "output_dir": tmp_path, "checkpoint_interval": 0.0}
    with pytest.raises(Killed):
        fit(make_vae(), data, **options)
    resumed = make_vae()
    fit(resumed, data, resume=True, **options)
    for key, tensor in uncut.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], tensor), key


@pytest.mark.parametrize("size", [0, 7, 100, 3000])
def test_a_truncated_checkpoint_is_refused(make_vae, fit, data, tmp_path, size):
    fit(make_vae(), data, epochs=2, output_dir=tmp_path)
    path = tmp_path / CHECKPOINT_FILE
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match="cannot be read"):
        fit(make_vae(), data, epochs=2, output_dir=tmp_path, resume=True)


def test_the_weights_of_a_model_are_not_a_checkpoint(make_vae, fit, data, tmp_path):
    make_vae().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / CHECKPOINT_FILE)
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        fit(make_vae(), data, epochs=2, output_dir=tmp_path, resume=True)


def test_what_a_killed_writer_left_is_cleaned_up(make_vae, fit, data, tmp_path):
    (tmp_path / f".{CHECKPOINT_FILE}.0a1b2c3d.safetensors").write_bytes(b"half")
    (tmp_path / "mine.safetensors").write_bytes(b"mine")
    fit(make_vae(), data, epochs=2, output_dir=tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert (tmp_path / "mine.safetensors").exists()


def test_a_state_that_a_checkpoint_cannot_hold_is_refused_before_work(
    make_vae, fit, data, tmp_path, cut
):
    def scheduler(optimizer):
        made = optim.lr_scheduler.StepLR(optimizer, 1)
        made.mine = {1, 2}
        return made

    cut(1)
    with pytest.raises(ConfigurationError, match="cannot hold"):
        fit(make_vae(), data, scheduler=scheduler, output_dir=tmp_path)


def test_a_full_disk_is_said_and_leaves_the_last_checkpoint(
    make_vae, fit, data, tmp_path, monkeypatch
):
    class Full(Callback):
        def on_epoch_end(self, model, history):
            if history.num_epochs == 2:
                monkeypatch.setattr(Path, "write_bytes", full)

    def full(path, content):
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
            raise OSError(28, "No space left on device")

    model = make_vae()
    options = {"epochs": 4, "output_dir": tmp_path, "checkpoint_interval": 0.0}
    with pytest.raises(CheckpointError, match="could not be written.*No space left"):
        fit(model, data, callbacks=[Full()], **options)
    assert not model.training
    assert {path.name for path in tmp_path.iterdir()} == {CHECKPOINT_FILE, HISTORY_FILE}
    monkeypatch.undo()
    uncut, resumed = make_vae(), make_vae()
    fit(uncut, data, epochs=4)
    fit(resumed, data, resume=True, **options)
    for key, tensor in uncut.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], tensor), key


def test_a_failed_training_leaves_its_curves(parabola, fit, tmp_path):
    with pytest.raises(chartae.errors.DivergenceError):
        fit(
            parabola(),
            torch.zeros(4, 3),
            epochs=9,
            optimizer="sgd",
            learning_rate=1e5,
            output_dir=tmp_path,
        )
    record = json.loads((tmp_path / HISTORY_FILE).read_text())
    assert record["stopped"] == "diverged"
    assert len(record["train"]["loss"]) >= 1
