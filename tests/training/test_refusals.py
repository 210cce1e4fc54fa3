"""What `fit` refuses before any work, naming the argument: the model is then as it was."""

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

import chartae
from chartae.data import ArrayDataset
from chartae.errors import ConfigurationError, DataError

NAN = torch.full((4, 6), float("nan"))


@pytest.fixture
def refuse(make_vae, monkeypatch):
    """Check that a call is refused with a message, and that nothing was touched or started."""

    def no_step(*arguments):
        raise AssertionError("work has started")

    monkeypatch.setattr("chartae.training.trainer.Trainer.step", no_step)

    def run(error, message, *data, model=None, **options):
        model = model or make_vae()
        options = {"accelerator": "cpu", "progress": False, **options}
        with pytest.raises(error, match=message):
            chartae.fit(model, *data, **options)

    return run


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (torch.rand(1, 6), r"train has 1 sample\(s\): expected at least 2"),
        (torch.rand(0, 6), "x has shape \\(0, 6\\)"),
        (torch.rand(4, 5), r"train has shape \(4, 5\): expected \(batch, 6\)"),
        (torch.rand(6), "shape"),
        (torch.rand(4, 6).double(), "train has dtype torch.float64"),
        (torch.zeros(4, 6, dtype=torch.int64), "dtype torch.int64"),
        (torch.rand(4, 6) * 3, r"train has values in \[.*expects values in \[0, 1\]"),
        (NAN, "24 NaN or infinite"),
        (NAN.numpy(), "24 NaN or infinite"),
        (np.array([["a"] * 6] * 3), "expected one array of numbers"),
        (None, "train is NoneType: expected"),
    ],
)
def test_data(refuse, train, message):
    refuse(DataError, message, train)


def test_validation_data(refuse, data):
    refuse(DataError, "validation has shape", data, data[:, :3])
    refuse(DataError, "validation is str", data, "data.npz")


def test_a_mask_that_the_model_does_not_use(refuse, data, parabola):
    masked = ArrayDataset(data[:, :3], mask=torch.ones(30, 3, dtype=torch.bool))
    message = "train has a mask of observed features, which Parabola does not use"
    refuse(ConfigurationError, message, masked, model=parabola())


def test_missing_labels(refuse, data, parabola):
    class Labelled(parabola):
        def loss(self, x, y):
            raise NotImplementedError

    refuse(DataError, "train has no labels: Labelled needs y", data[:, :3], model=Labelled())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"epochs": 2.5}, "epochs=2.5"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"patience": 0}, "patience=0"),
        ({"kl_warmup": 100}, "kl_warmup=100: expected an integer at least 0 and at most 99"),
        ({"clip_grad_norm": -1.0}, "clip_grad_norm=-1.0"),
        ({"num_workers": -1}, "num_workers=-1"),
        ({"checkpoint_interval": -1.0}, "checkpoint_interval=-1.0"),
        ({"seed": -3}, "seed=-3"),
        ({"devices": 0}, "devices=0"),
        ({"nodes": 0}, "nodes=0"),
        ({"optimizer": "adm"}, r"optimizer='adm' is not known.*did you mean 'adam'"),
        ({"optimizer": None}, "optimizer=None is not known"),
        ({"scheduler": "cosin"}, "scheduler='cosin' is not known"),
        ({"accelerator": "gpuu"}, "accelerator='gpuu' is not known"),
        ({"strategy": "dp2"}, "strategy='dp2' is not known"),
        ({"strategy": "fsdp"}, "strategy='fsdp' is not supported: expected 'ddp'"),
        ({"precision": "8-bit"}, "precision='8-bit' is not known"),
        ({"precision": "16-mixed"}, "precision='16-mixed' is not available on this machine"),
        ({"resume": True}, "resume=True without output_dir"),
    ],
)
def test_arguments(refuse, data, options, message):
    refuse(ConfigurationError, message, data, **options)


def test_more_processes_than_samples(refuse, data):
    refuse(DataError, r"train has 30 sample\(s\): expected at least 32", data, devices=16, nodes=2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there(refuse, data):
    refuse(
        ConfigurationError,
        "accelerator='cuda'.*is not available on this machine",
        data,
        accelerator="cuda",
    )


def test_warming_up_without_a_kl(refuse, parabola):
    refuse(
        ConfigurationError,
        "kl_warmup=3: Parabola has no KL",
        torch.zeros(4, 3),
        model=parabola(),
        kl_warmup=3,
    )


def test_something_else_than_a_model(refuse, data):
    refuse(ConfigurationError, "model is Linear", data, model=torch.nn.Linear(6, 6))


def test_an_output_that_cannot_be_written(refuse, data, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        refuse(ConfigurationError, "output_dir='.*file.*cannot be written", data, output_dir=folder)


def test_a_model_that_could_not_be_saved_is_refused_with_an_output(refuse, tmp_path, parabola):
    model = parabola()
    model.start = object()
    x = torch.zeros(4, 3)
    refuse(ConfigurationError, "start=<object", x, model=model, output_dir=tmp_path)


class Rows(Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([torch.rand(6)], DataError, "train has 1 sample"),
        ([], DataError, "train has 0 sample"),
        ([torch.rand(5)] * 4, DataError, r"batch 1 of train has shape \(1, 5\)"),
        ([np.random.default_rng(0).random(6)] * 4, DataError, "dtype torch.float64"),
        (
            [{"image": torch.rand(6)}] * 4,
            DataError,
            "train has no x: VAE needs x in addition to image",
        ),
        ([torch.rand(6) + 1] * 4, DataError, "values in"),
    ],
)
def test_datasets(refuse, rows, error, message):
    refuse(error, message, Rows(rows))


def test_a_mask_in_a_dataset_that_the_model_does_not_use(refuse, parabola):
    rows = Rows([{"x": torch.rand(3), "mask": torch.ones(3, dtype=torch.bool)}] * 4)
    refuse(ConfigurationError, "train has a mask", rows, model=parabola())


def test_a_dataset_without_length(refuse):
    class Stream(Dataset):
        def __getitem__(self, index):
            return torch.rand(6)

    refuse(DataError, "train has no length", Stream())
