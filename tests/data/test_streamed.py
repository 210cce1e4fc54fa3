"""Sets that stay on disk: the samples of a batch are those of the set in memory."""

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from chartae.data import (
    ArrayDataset,
    StreamedDataset,
    held_out_split,
    read_data,
    stream_data,
)
from chartae.data.files import bytes_in_memory
from chartae.errors import ConfigurationError, DataError

RNG = np.random.default_rng(0)


def check_same(streamed, read):
    """Assert that both have the same samples and say the same about them."""
    assert isinstance(streamed, StreamedDataset)
    for rows in (torch.arange(len(read)), torch.tensor([2, 0])):
        batch, expected = streamed.batch(rows), read.batch(rows)
        assert batch.keys() == expected.keys()
        for name, values in expected.items():
            assert torch.equal(batch[name], values), name
        assert batch["x"].is_contiguous()
    assert (len(streamed), streamed.input_shape) == (len(read), read.input_shape)
    assert (streamed.metadata, streamed.names) == (read.metadata, read.names)


@pytest.mark.parametrize("dtype", ["uint8", "bool", "float32", "float64", ">f4"])
def test_rows_of_an_npy_file(tmp_path, dtype):
    x = (RNG.random((5, 4, 3)) * 2).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.array(["b", "a", "b", "b", "a"]))
    options = {"labels": tmp_path / "y.npy"}
    check_same(stream_data(tmp_path / "x.npy", **options), read_data(tmp_path / "x.npy", **options))


def test_conditions_may_be_vectors():
    x, y = RNG.random((4, 3), dtype=np.float32), RNG.random((4, 2))
    check_same(StreamedDataset.from_array(x, y), ArrayDataset.from_arrays(x, y))


def test_channels_become_the_first_axis(tmp_path):
    np.save(tmp_path / "x.npy", RNG.integers(0, 255, (4, 5, 6, 3), dtype=np.uint8))
    read = read_data(tmp_path / "x.npy", channels_last=True)
    check_same(stream_data(tmp_path / "x.npy", channels_last=True), read)


def image(mode):
    size = (6, 4)
    if mode == "I;16":
        return Image.fromarray(RNG.integers(0, 65535, size[::-1], dtype=np.uint16))
    if mode == "F":
        return Image.fromarray(RNG.random(size[::-1], dtype=np.float32))
    channels = {"RGBA": (4,), "RGB": (3,), "LA": (2,)}.get(mode, ())
    pixels = RNG.integers(0, 255, (*size[::-1], *channels), dtype=np.uint8)
    found = Image.fromarray(pixels)
    if mode == "P":
        return Image.fromarray(pixels[..., None].repeat(3, -1)).quantize(5)
    return found.convert(mode)


@pytest.mark.parametrize(
    ("modes", "options"),
    [
        ("L L L", {}),
        ("1 L LA", {}),
        ("RGB P RGBA", {"crop": (3, 4), "resize": (5, 2)}),
        ("RGB RGBA L", {"color": "rgba"}),
        ("L RGB P", {"color": "grey"}),
        ("I;16 L I;16", {}),
        ("F F F", {}),
        ("F L I;16", {"resize": (3, 3)}),
    ],
)
def test_images_of_a_folder(tmp_path, modes, options):
    for row, mode in enumerate(modes.split()):
        folder = tmp_path / "ab"[row // 2]
        folder.mkdir(exist_ok=True)
        made, suffix = image(mode), "tiff" if mode == "F" else "png"
        made.save(folder / f"{row}.{suffix}")
    check_same(stream_data(tmp_path, **options), read_data(tmp_path, **options))
    shape = read_data(tmp_path, **options).x.shape
    assert bytes_in_memory(tmp_path, **options) == 4 * shape.numel()


def test_the_size_in_memory_of_arrays_and_of_what_is_not_streamed(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 2), dtype=np.uint8))
    assert bytes_in_memory(tmp_path / "x.npy") == 4 * 3 * 2
    assert bytes_in_memory(tmp_path / "none") == 0
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "0.png").write_text("text")
    assert bytes_in_memory(tmp_path / "damaged") == 0


def test_a_photograph_that_was_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for row in range(3):
        image("RGB").save(tmp_path / f"{row}.jpg", exif=exif)
    assert read_data(tmp_path).input_shape == (3, 6, 4)
    check_same(stream_data(tmp_path), read_data(tmp_path))


@pytest.mark.parametrize(
    "dtypes", ["uint8 uint8 uint8", "uint8 int16 float32", "int32 int16 int16"]
)
def test_volumes_of_a_folder(tmp_path, dtypes):
    affine = np.diag([2.0, 1.0, 3.0, 1.0])
    for row, dtype in enumerate(dtypes.split()):
        values = RNG.integers(0, 200, (4, 5, 6)).astype(dtype)
        nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / f"{row}.nii")
    check_same(stream_data(tmp_path), read_data(tmp_path))
    options = {"crop": (4, 4, 4), "resize": (3, 2, 4)}
    check_same(stream_data(tmp_path, **options), read_data(tmp_path, **options))


def test_a_split_selects_the_same_samples(tmp_path):
    x, y = RNG.random((20, 3), dtype=np.float32), [0] * 15 + [1] * 5
    split = held_out_split(StreamedDataset.from_array(x, y), 0.3, seed=0)
    expected = held_out_split(ArrayDataset.from_arrays(x, y), 0.3, seed=0)
    for found, part in zip(split, expected, strict=True):
        check_same(found, part)
    nested = split[0].subset([3, 1])
    assert torch.equal(nested[0]["x"], expected[0].x[3])
    check_same(split[0].subset([5, 3, 1]), expected[0].subset([5, 3, 1]))


def test_each_image_is_scaled_by_its_own_range(tmp_path):
    x = RNG.integers(0, 200, (4, 3, 3), dtype=np.uint8)
    read = ArrayDataset.from_arrays(x).normalized()
    low, high = x.min((1, 2), keepdims=True), x.max((1, 2), keepdims=True)
    np.testing.assert_allclose(read.x.numpy(), (x - low) / (high - low).astype(float), atol=1e-6)
    check_same(StreamedDataset.from_array(x).normalized(), read)
    assert read.form.normalized
    assert read.normalized() is read
    x[2] = 7
    for make in (StreamedDataset.from_array, ArrayDataset.from_arrays):
        with pytest.raises(DataError, match="x, row 2 is constant"):
            make(x).normalized().batch(torch.arange(4))
        with pytest.raises(DataError, match="expected images or volumes"):
            make(np.ones((4, 3), dtype=np.float32)).normalized()


def test_the_range_is_that_of_observed_values():
    x, mask = (
        torch.tensor([[[1.0, 5.0], [3.0, 9.0]]]),
        torch.tensor([[[True, True], [True, False]]]),
    )
    data = ArrayDataset(x.masked_fill(~mask, 0.0), mask=mask).normalized()
    assert data.x.tolist() == [[[0.0, 1.0], [0.5, 0.0]]]


def test_scaled_volumes_are_written_as_floats(tmp_path):
    values = RNG.integers(0, 3000, (4, 4, 4)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "0.nii")
    form = read_data(tmp_path).normalized().form
    assert (form.stored, form.normalized) == ("float32", True)
    assert type(form).from_json(form.to_json()) == form


# --- what is refused ------------------------------------------------------------------------------


def test_a_value_that_is_not_finite_names_its_row(tmp_path):
    x = np.zeros((100, 5), dtype=np.float32)
    x[70, 3] = np.nan
    data = StreamedDataset.from_array(x).subset(range(10, 100))
    with pytest.raises(DataError, match="x, row 70 has NaN or infinite values"):
        list(data.batches(16))


def test_files_that_change_or_end_early_are_named(tmp_path):
    for row in range(70):
        image("RGB").save(tmp_path / f"{row:02}.png")
    data = stream_data(tmp_path)
    image("RGB").crop((0, 0, 3, 3)).save(tmp_path / "67.png")
    with pytest.raises(DataError, match=r"67.png has shape \(3, 3, 3\): expected \(3, 4, 6\)"):
        data[67]
    content = (tmp_path / "68.png").read_bytes()
    (tmp_path / "68.png").write_bytes(content[:60])
    with pytest.raises(DataError, match="68.png cannot be read as an image"):
        list(data.subset([65, 66, 68, 69]).batches(2))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"path": "x.npz"}, ConfigurationError, "is read as a whole, not streamed"),
        ({"path": "none.npy"}, DataError, "does not exist"),
        ({"path": "x.npy", "resize": (2, 2)}, ConfigurationError, "resize=.* is not an option"),
        ({"path": "text.npy"}, DataError, "text.npy cannot be read as a NumPy array"),
        ({"path": "several.npy"}, DataError, "several.npy holds several arrays: expected one"),
        ({"path": "int.npy"}, DataError, "x has dtype torch.int64: expected uint8"),
        ({"path": "one.npy"}, DataError, "x has shape"),
        ({"path": "x.npy", "labels": "short.npy"}, DataError, "y has 2 labels for 3 samples"),
    ],
)
def test_what_cannot_be_streamed_is_refused(tmp_path, monkeypatch, options, error, message):
    monkeypatch.chdir(tmp_path)
    np.savez("x.npz", x=np.zeros((3, 2)))
    np.save("x.npy", np.zeros((3, 2), dtype=np.float32))
    np.save("int.npy", np.zeros((3, 2), dtype=np.int64))
    np.save("one.npy", np.zeros(3, dtype=np.float32))
    np.save("short.npy", np.zeros(2, dtype=np.int64))
    (tmp_path / "x.npz").rename("several.npy")
    np.savez("x.npz", x=np.zeros((3, 2)))
    (tmp_path / "text.npy").write_text("text")
    with pytest.raises(error, match=message):
        stream_data(**options)


def test_headers_show_sizes_that_differ(tmp_path):
    image("L").save(tmp_path / "a.png")
    image("L").crop((0, 0, 3, 3)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match="b.png is 3x3 pixels, but .*a.png is 6x4"):
        stream_data(tmp_path)
    with pytest.raises(DataError, match="b.png cannot be read .* smaller than crop"):
        stream_data(tmp_path, crop=(4, 4))


def test_a_damaged_header_may_be_skipped(tmp_path, caplog):
    image("L").save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("text")
    assert len(stream_data(tmp_path, skip_unreadable=True)) == 1
    assert "left out 1 unreadable file" in caplog.text
