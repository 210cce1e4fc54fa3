"""Training on sets that stay on disk, and on streams, whose samples have no indices."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import IterableDataset

import chartae
from chartae.data import StreamedDataset, read_data, stream_data
from chartae.errors import CheckpointError, ConfigurationError, DataError
from chartae.training import batches as batches_module
from chartae.training.batches import make_batches

SMALL = {"name": "mlp", "hidden": [8]}
RNG = np.random.default_rng(0)


def check_same(model, other, history, expected):
    assert (history.train, history.validation) == (expected.train, expected.validation)
    for name, tensor in other.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


@pytest.fixture
def mapped(tmp_path):
    """A memory map of 40 samples of bytes, and the same samples in memory."""
    x = RNG.integers(0, 256, (40, 6), dtype=np.uint8)
    np.save(tmp_path / "x.npy", x)
    return np.load(tmp_path / "x.npy", mmap_mode="r"), x


def test_a_memory_map_trains_as_the_array_it_holds(make_vae, fit, mapped):
    on_disk, x = mapped
    model, other = make_vae("RHVAE"), make_vae("RHVAE")
    history = fit(model, on_disk, on_disk[:9], epochs=2, batch_size=8)
    check_same(model, other, history, fit(other, x, x[:9], epochs=2, batch_size=8))


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_folder_trains_as_it_does_in_memory(tmp_path, fit, num_workers):
    for row in range(12):
        (tmp_path / "ab"[row % 2]).mkdir(exist_ok=True)
        pixels = RNG.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "ab"[row % 2] / f"{row}.png")
    histories, models = [], []
    network = {"name": "conv", "channels": [4]}
    for data in (stream_data(tmp_path), read_data(tmp_path)):
        torch.manual_seed(0)
        # Images are standardised by statistics of the training set, which are those of its batches.
        options = {"likelihood": "gaussian", "encoder": network, "decoder": network}
        models.append(chartae.CVAE((3, 4, 4), 2, conditions=2, **options))
        chosen = {"num_workers": num_workers} if isinstance(data, StreamedDataset) else {}
        histories.append(fit(models[-1], data, epochs=2, batch_size=5, **chosen))
    check_same(*models, *histories)


def test_an_interrupted_training_goes_on_with_the_same_samples_only(
    make_vae, fit, mapped, tmp_path
):
    on_disk, x = mapped
    options = {"epochs": 2, "batch_size": 8, "output_dir": tmp_path / "out"}

    class Stop(chartae.training.Callback):
        def on_epoch_end(self, model, history):
            return True

    fit(make_vae(), on_disk, callbacks=[Stop()], **options)
    np.save(tmp_path / "other.npy", x[::-1])
    other = np.load(tmp_path / "other.npy", mmap_mode="r")
    with pytest.raises(CheckpointError, match="train="):
        fit(make_vae(), other, resume=True, **options)


def test_a_memory_map_with_a_mask_is_refused(make_vae, fit, mapped):
    on_disk, x = mapped
    with pytest.raises(ConfigurationError, match="train is a memory map with mask"):
        fit(make_vae(), (on_disk, None, x > 3), epochs=1)


def test_samples_that_are_not_finite_are_named(make_vae, fit, tmp_path):
    x = np.full((100, 6), 0.5, dtype=np.float32)
    x[81, 2] = np.inf
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(DataError, match="x, row 81 has NaN or infinite values"):
        fit(make_vae(), np.load(tmp_path / "x.npy", mmap_mode="r"), epochs=1)


# --- streams --------------------------------------------------------------------------------------


class Stream(IterableDataset):
    """Samples whose values say which they are."""

    def __init__(self, size, ends=None):
        self.size, self.ends, self.passes = size, ends, 0

    def __iter__(self):
        self.passes += 1
        count = self.size if self.ends is None or self.passes == 1 else self.ends
        return iter(torch.arange(count).float()[:, None].expand(count, 3) / 1000)


def stream_batches(parabola, data, *, rank=0, world=1, num_workers=0, batch_size=4):
    found = make_batches("train", data, parabola(), batch_size, num_workers=num_workers)
    found.place(torch.device("cpu"), rank, world)
    return found


def numbers(batches):
    return [(1000 * batch["x"][:, 0]).round().int().tolist() for batch in batches]


def seen(epochs):
    return Counter(number for batches in epochs for batch in batches for number in batch)


@pytest.mark.parametrize(("size", "world"), [(22, 1), (22, 2), (23, 3)])
def test_processes_share_out_a_stream(parabola, monkeypatch, size, world):
    monkeypatch.setattr(batches_module, "BUFFER", 60)  # five samples
    parts = []
    for rank in range(world):
        batches = stream_batches(parabola, Stream(size), rank=rank, world=world)
        parts.append(numbers(batches.epoch(0, 0)))
        assert len(parts[-1]) == batches.num_batches
        assert numbers(batches.epoch(0, 0)) == parts[-1]
        assert numbers(batches.epoch(0, 0, start=2)) == parts[-1][2:]
        assert numbers(batches.epoch(0, 1)) != parts[-1]
        assert seen([numbers(batches.in_order())]) == Counter(range(size))
    assert seen(parts) == Counter(range(size))
    alone = stream_batches(parabola, Stream(size), batch_size=4 * world)
    steps = [list(chain(*shares)) for shares in zip(*parts, strict=True)]
    assert steps == numbers(alone.epoch(0, 0))


def test_a_stream_is_shuffled_as_far_as_the_buffer_reaches(parabola, monkeypatch):
    whole = numbers(stream_batches(parabola, Stream(40), batch_size=40).epoch(0, 0))[0]
    assert whole != sorted(whole)
    monkeypatch.setattr(batches_module, "BUFFER", 60)
    near = numbers(stream_batches(parabola, Stream(40), batch_size=40).epoch(0, 0))[0]
    assert near != sorted(near)
    # A sample can leave late, but not before the buffer has reached it.
    assert all(number <= place + 5 for place, number in enumerate(near))


def test_a_stream_trains_a_model(fit):
    model = chartae.VAE((3,), 2, encoder=SMALL, decoder=SMALL)
    history = fit(model, Stream(22), Stream(7), epochs=2, batch_size=8)
    assert history.num_epochs == 2
    assert len(history.validation["loss"]) == 2


def test_streams_that_cannot_be_shared_out_are_refused(parabola):
    with pytest.raises(ConfigurationError, match="num_workers=2: expected at most 0"):
        stream_batches(parabola, Stream(9), num_workers=2)
    for ends, what in ((7, "less"), (11, "more")):
        with pytest.raises(DataError, match=f"train has {what} than 9 samples in a pass"):
            list(stream_batches(parabola, Stream(9, ends=ends)).epoch(0, 0))
    with pytest.raises(DataError, match=r"train has 0 sample\(s\)"):
        stream_batches(parabola, Stream(0))


# --- Hugging Face ---------------------------------------------------------------------------------


@pytest.mark.slow  # the package takes seconds to import
def test_images_of_hugging_face_train_as_the_array_they_hold(fit):
    datasets = pytest.importorskip("datasets")
    x, y = RNG.integers(0, 256, (20, 2, 3), dtype=np.uint8), [0, 1] * 10
    images = {"x": [Image.fromarray(pixels) for pixels in x], "y": y}
    features = datasets.Features(x=datasets.Image(), y=datasets.ClassLabel(names=["a", "b"]))
    given = datasets.Dataset.from_dict(images, features).with_format("torch")
    histories, models = [], []
    for data in (given, (x[:, None], y)):
        torch.manual_seed(0)
        models.append(chartae.CVAE((1, 2, 3), 2, conditions=2, encoder=SMALL, decoder=SMALL))
        histories.append(fit(models[-1], data, epochs=2, batch_size=8))
    check_same(*models, *histories)


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2])
def test_workers_share_out_the_shards_of_hugging_face(parabola, world):
    datasets = pytest.importorskip("datasets")
    x = (np.arange(41)[:, None].repeat(3, 1) / 1000).astype(np.float32)
    given = datasets.Dataset.from_dict({"x": x}).with_format("torch")
    stream = given.to_iterable_dataset(num_shards=4)
    parts = []
    for rank in range(world):
        batches = stream_batches(parabola, stream, rank=rank, world=world, num_workers=2)
        parts.append(numbers(batches.epoch(0, 0)))
    assert seen(parts) == Counter(range(41))
    with pytest.raises(ConfigurationError, match="num_workers=5: expected at most 4"):
        stream_batches(parabola, stream, num_workers=5)
