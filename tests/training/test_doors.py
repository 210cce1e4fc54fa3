"""What people hand to `fit`, and the state of the process they call it in."""

import threading

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, random_split

import chartae
import chartae.training
from chartae.data import ArrayDataset
from chartae.errors import ConfigurationError, DataError, DivergenceError
from chartae.randomness import seeded
from chartae.training import History

MASK = torch.arange(180).reshape(30, 6) % 3 > 0


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


class Items(Dataset):
    """Whatever samples."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


# --- containers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form", ["array", "double array", "list", "pair", "mapping", "frame", "triple", "masked array"]
)
def test_every_container_trains_as_the_tensor(make_vae, fit, data, form):
    expected, model = make_vae(), make_vae()
    masked = form in ("triple", "masked array")
    x = data.numpy()
    fit(expected, ArrayDataset(data * MASK, mask=MASK) if masked else data, epochs=2)
    hidden = np.where(MASK.numpy(), x, np.nan)
    given = {
        "array": x,
        "double array": x.astype(np.float64),
        "list": x.tolist(),
        "pair": (data, torch.zeros(30, dtype=torch.int64)),
        "mapping": {"x": x},
        "frame": pd.DataFrame(x),
        "triple": (hidden, None, MASK.numpy()),
        "masked array": np.ma.masked_invalid(hidden),
    }
    fit(model, given[form], epochs=2)
    assert same(weights(expected), weights(model))


def test_bytes_are_scaled(make_vae, fit):
    x = np.random.default_rng(0).integers(0, 256, (30, 6), dtype=np.uint8)
    one, other = make_vae(), make_vae()
    fit(one, x, epochs=1)
    fit(other, torch.from_numpy(x) / 255, epochs=1)
    assert same(weights(one), weights(other))


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (DataLoader(TensorDataset(torch.zeros(4, 6))), "fit.model, loader.dataset, batch_size="),
        ({"z": torch.zeros(4, 6)}, "train has no x: VAE needs x in addition to z"),
        ({"z": np.zeros((4, 6))}, "train is dict: expected a tensor, an array, .x, y."),
        ({"x": torch.zeros(4, 6), "z": torch.zeros(4)}, "train has z, which VAE ignores"),
        (3.0, "train is float: expected a tensor"),
        ((), "train is tuple: expected a tensor"),
        (tuple(torch.zeros(4, 6)), r"train has 4 parts: expected x, \(x, y\) or \(x, y, mask\)"),
        (Items([(torch.zeros(6), 0, 1, 2)] * 4), "a sample of train has 4 parts: expected x"),
        (torch.zeros(4, 6).to_sparse(), "x is a sparse or nested tensor: expected a dense one"),
    ],
)
def test_what_is_no_data_is_told_the_way(make_vae, fit, train, message):
    with pytest.raises((DataError, ConfigurationError), match=message):
        fit(make_vae(), train, epochs=1)


X = torch.full((6,), 0.5)


@pytest.mark.parametrize(
    "items",
    [
        [Image.new("L", (3, 2))] * 4,
        [X, torch.zeros(7)],
        [None] * 4,
        ["text"] * 4,
        [X.to_sparse()] * 4,
        [(X, None)] * 4,
        [object()] * 4,
    ],
)
def test_samples_that_make_no_batch_are_a_sentence(make_vae, fit, items):
    with pytest.raises(DataError, match="train has samples that|batch 1 of train"):
        fit(make_vae(), Items(items), epochs=1)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(6), "mask of batch 1 of train is torch.float32: expected a tensor of"),
        (torch.ones(1, 6, dtype=torch.bool), r"mask of batch 1 of train has shape \(1, 1, 6\)"),
        (torch.ones(1, dtype=torch.bool), r"mask of batch 1 of train has shape \(1, 1\)"),
        (1, "mask of batch 1 of train is torch.int64"),
    ],
)
def test_a_mask_of_a_data_set_is_checked_as_that_of_an_array(make_vae, fit, mask, message):
    with pytest.raises(DataError, match=message):
        fit(make_vae(), Items([{"x": X, "mask": mask}] * 4), epochs=1)


def test_a_third_part_of_a_sample_is_its_mask(make_vae, fit, data):
    expected, model = make_vae(), make_vae()
    fit(expected, (data, None, MASK), epochs=2, batch_size=8)
    fit(
        model,
        Items([(x, 0, mask) for x, mask in zip(data, MASK, strict=True)]),
        epochs=2,
        batch_size=8,
    )
    assert same(weights(expected), weights(model))
    with pytest.raises(DataError, match="mask of batch 1 of train is torch.int64"):
        fit(model, Items([(X, 0, row) for row in range(4)]), epochs=1)


def test_a_part_that_torch_split_off_keeps_its_mask(make_vae, fit, data):
    expected, model = make_vae(), make_vae()
    whole = ArrayDataset.from_arrays(data, mask=MASK)
    part, _ = random_split(whole, [20, 10], torch.Generator().manual_seed(0))
    fit(expected, whole.subset(part.indices), epochs=2)
    fit(model, part, epochs=2)
    assert same(weights(expected), weights(model))


def test_a_mask_that_goes_wrong_later_is_found(make_vae, fit):
    good, bad = torch.ones(6, dtype=torch.bool), torch.ones(1, dtype=torch.bool)
    items = [{"x": X, "mask": good if row < 6 else bad} for row in range(8)]
    with pytest.raises(DataError, match="mask of batch|do not make a batch"):
        fit(make_vae(), Items(items), epochs=1, batch_size=1)


def test_what_is_not_observed_in_a_data_set_may_be_nan(make_vae, fit, data):
    expected, model = make_vae(), make_vae()
    fit(expected, ArrayDataset(data * MASK, mask=MASK), epochs=2, batch_size=8)
    hidden = torch.where(MASK, data, torch.nan)
    items = [{"x": x, "mask": mask} for x, mask in zip(hidden, MASK, strict=True)]
    fit(model, Items(items), epochs=2, batch_size=8)
    assert same(weights(expected), weights(model))


# --- the state of the process ---------------------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ["VAE", "RHVAE"])
def test_the_mode_of_the_caller_changes_nothing(make_vae, fit, data, mode, name):
    expected = make_vae(name)
    fit(expected, data, epochs=2)
    with mode():
        model = make_vae(name)
        fit(model, data.clone(), data.clone(), epochs=2)
        codes = model.encode(data)
    assert not any(p.is_inference() for p in model.parameters())
    torch.testing.assert_close(codes, expected.encode(data).detach())
    fit(model, data, epochs=1)


def test_float64_as_the_default(fit):
    torch.set_default_dtype(torch.float64)
    try:
        data = chartae.data.disks_and_rings(8)
        model = chartae.VAE((28, 28), 2, encoder={"name": "mlp", "hidden": [8]})
        history = fit(model, data, epochs=1)
        assert model.dtype == torch.float64
        fit(model, data.x.numpy().astype(np.float32), epochs=1)
    finally:
        torch.set_default_dtype(torch.float32)
    assert history.num_epochs == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_loaded_does_not_depend_on_the_process(make_vae, data, tmp_path, dtype):
    model = make_vae("RHVAE").to(dtype)
    model.save_pretrained(tmp_path)
    other = torch.float64 if dtype == torch.float32 else torch.float32
    torch.set_default_dtype(other)
    try:
        with torch.inference_mode():
            copy = chartae.load(tmp_path)
    finally:
        torch.set_default_dtype(torch.float32)
    assert not any(t.is_inference() for t in copy.state_dict().values())
    torch.testing.assert_close(
        copy.state_dict(), model.state_dict(), rtol=0.0, atol=0.0, equal_nan=True
    )
    assert copy.encode(data.to(dtype)).requires_grad


def test_threads_take_turns_and_give_what_one_alone_gives(make_vae, fit, data):
    def train(results):
        with seeded(0):
            model = make_vae()
        fit(model, data, epochs=6, batch_size=4)
        results.append(weights(model))

    alone, together = [], []
    train(alone)
    threads = [threading.Thread(target=train, args=(together,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(together) == 4
    assert all(same(alone[0], other) for other in together)


def test_numpys_numbers_are_numbers(make_vae, fit, data, tmp_path):
    one, other = make_vae(), make_vae()
    options = {
        "epochs": np.int64(2),
        "batch_size": np.int32(8),
        "seed": np.uint8(3),
        "devices": np.int8(1),
    }
    fit(one, data, learning_rate=np.float32(0.5), output_dir=tmp_path, **options)
    fit(other, data, learning_rate=0.5, epochs=2, batch_size=8, seed=3)
    assert same(weights(one), weights(other))
    assert chartae.load(tmp_path).latent_dim == one.latent_dim
    for wrong in (np.float64(2), np.bool_(True), "2"):
        with pytest.raises(ConfigurationError, match=r"epochs=.*expected an integer"):
            fit(one, data, epochs=wrong)


def test_a_double_model_is_not_sent_to_a_device_without_doubles(make_vae, fit, data, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    model = make_vae().double()
    fit(model, data.double(), epochs=1, accelerator="auto")
    assert model.device.type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_word_gpu_is_known_and_a_missing_one_is_a_sentence(make_vae, fit, data, tmp_path):
    with pytest.raises(
        ConfigurationError, match=r"accelerator='gpu'.*is not available on this machine"
    ):
        fit(make_vae(), data, epochs=1, accelerator="gpu")
    make_vae().save_pretrained(tmp_path)
    for device in ("cuda", "nonsense"):
        with pytest.raises(
            ConfigurationError, match=f"device='{device}' is not available on this machine"
        ):
            chartae.load(tmp_path, device=device)


# --- divergence -----------------------------------------------------------------------------------


def test_huge_data_are_refused(fit):
    x = 1e25 * torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    with pytest.raises(DataError, match=r"train has values up to [0-9.]+e\+25: expected at most"):
        fit(chartae.VAE((6,), 2), x, epochs=2)


def test_huge_validation_data_are_blamed_too(fit, data):
    model = chartae.VAE((6,), 2, encoder={"name": "mlp", "hidden": [8]}, likelihood="gaussian")
    x, far = 1e-10 * data, 1e15 * data
    with pytest.raises(
        DivergenceError, match=r"on the validation set.*validation has values up to .*: scale x"
    ) as found:
        fit(model, x, far, epochs=1)
    assert "learning_rate" not in str(found.value)


def test_a_diverged_model_has_the_metric_of_its_best_weights(make_vae, fit, data):
    class Ruin(chartae.training.Callback):
        def on_epoch_end(self, model, history):
            if history.num_epochs == 2:
                nn.init.constant_(next(model.decoder.parameters()), torch.nan)

    model = make_vae("RHVAE")
    with pytest.raises(DivergenceError, match="in step 1 of epoch 3"):
        fit(model, data, epochs=5, callbacks=[Ruin()])
    assert torch.isfinite(model.metric.log_volume(model.encode(data))).all()


# --- folders --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "history.json", "checkpoint.safetensors"]
)
@pytest.mark.parametrize("content", ["mine", '{"mine": 1}'])
def test_files_of_others_are_never_replaced(make_vae, fit, data, tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigurationError, match=f"{name}' was not written by chartae"):
        fit(make_vae(), data, epochs=1, output_dir=tmp_path)
    if name in ("config.json", "model.safetensors"):
        with pytest.raises(ConfigurationError, match=f"{name}' was not written by chartae"):
            make_vae().save_pretrained(tmp_path)
    if name == "history.json":
        with pytest.raises(ConfigurationError, match=f"{name}' was not written by chartae"):
            History().save(tmp_path / name)
    assert (tmp_path / name).read_text() == content
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_weights_of_others_beside_a_configuration_of_ours_are_not_replaced(make_vae, tmp_path):
    make_vae().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({"mine": torch.zeros(3)}, path)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=r"model.safetensors' was not written by chartae"):
        make_vae().save_pretrained(tmp_path)
    assert path.read_bytes() == before


def test_a_training_that_diverged_may_be_started_over_in_its_folder(fit, data, tmp_path):
    def train(learning_rate):
        model = chartae.VAE((6,), 2, encoder={"name": "mlp", "hidden": [8]})
        return fit(model, data, epochs=3, learning_rate=learning_rate, output_dir=tmp_path)

    with pytest.raises(DivergenceError):
        train(1e30)
    assert train(1e-3).stopped == "finished"


def test_a_training_that_was_killed_after_a_divergence_is_not_started_over(
    make_vae, fit, data, tmp_path
):
    class Look(chartae.training.Callback):
        def on_epoch_end(self, model, history):
            seen.append(History.load(tmp_path / "history.json").stopped)

    seen = []
    History(stopped="diverged").save(tmp_path / "history.json")
    fit(make_vae(), data, epochs=1, output_dir=tmp_path, callbacks=[Look()])
    assert seen == ["running"]  # what a killed process leaves


def test_an_unfinished_training_is_not_started_over_by_mistake(make_vae, fit, data, tmp_path):
    class Stop(chartae.training.Callback):
        def on_epoch_end(self, model, history):
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fit(
            make_vae(),
            data,
            epochs=3,
            output_dir=tmp_path,
            callbacks=[Stop()],
            checkpoint_interval=0,
        )
    message = r"holds a training that was interrupted: resume=True continues it"
    with pytest.raises(ConfigurationError, match=message):
        fit(make_vae(), data, epochs=3, output_dir=tmp_path)
    assert fit(make_vae(), data, epochs=3, output_dir=tmp_path, resume=True).num_epochs == 3
    assert fit(make_vae(), data, epochs=1, output_dir=tmp_path).num_epochs == 1
