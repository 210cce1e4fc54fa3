"""From a folder of images or volumes to a folder of synthetic ones."""

import csv
import errno
import gzip
import os
from dataclasses import replace
from functools import wraps
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from chartae import Augmenter
from chartae.cli import options, run
from chartae.cli.trained import Trained
from chartae.data import phantom_heads, read_data, read_images, read_volumes
from chartae.errors import ConfigurationError
from chartae.training import default_options, fit, fit_defaults

QUICK = ["--model", "vae", "--sampler", "normal", "--epochs", "1", "--per-class", "2"]
AFFINE = np.array([[-2.0, 0, 0, 30], [0, 2.0, 0, -40], [0, 0, 3.0, -20], [0, 0, 0, 1]])


def augment(*options):
    return run(["augment", *map(str, options), *QUICK])


def place(row):
    folder = Path("in", ("ad", "cn")[row % 2])
    folder.mkdir(parents=True, exist_ok=True)
    return folder / str(row)


@pytest.fixture
def rng(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return np.random.default_rng(0)


@pytest.fixture
def volumes(rng):
    for row in range(6):
        values = rng.integers(0, 1000, (8, 9, 7)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(values, AFFINE), f"{place(row)}.nii.gz")


def rows_of(folder):
    with Path(folder, "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_volumes_become_volumes_of_their_dtype_and_place(volumes):
    assert augment("in", "--out", "new", "--seed", "3") == 0
    real, made = read_data("in"), read_data("new")
    assert (made.form, made.class_names) == (real.form, real.class_names)
    image = nibabel.load("new/ad/0.nii.gz")
    assert image.get_data_dtype() == np.int16
    np.testing.assert_array_equal(image.affine, AFFINE)
    rows = rows_of("new")
    assert [row["file"] for row in rows] == [
        f"{c}/{k}.nii.gz" for k, c in enumerate(["ad"] * 2 + ["cn"] * 2)
    ]
    assert {(row["model"], row["seed"]) for row in rows} == {("vae", "3")}
    apart = (made.x[:, None] - real.x).square().flatten(2).mean(2).sqrt()
    assert [row["nearest"] for row in rows] == [real.names[k] for k in apart.argmin(1)]
    # Files have rounded values.
    found = [float(row["distance"]) for row in rows]
    np.testing.assert_allclose(found, apart.amin(1), rtol=1e-3)


def test_volumes_are_reported_and_sampled_again(volumes):
    assert augment("in", "--out", "new", "--crop", "8x8x6", "--resize", "4x4x4", "--report") == 0
    assert read_data("new").input_shape == (1, 4, 4, 4)
    np.testing.assert_allclose(nibabel.load("new/ad/0.nii.gz").header.get_zooms(), [4, 4, 4.5])
    assert "data:image/png" in Path("new.html").read_text("utf-8")
    assert run(["sample", "new-models", "--n", "2", "--out", "s.npz"]) == 0
    assert read_data("s.npz").input_shape == (1, 4, 4, 4)
    assert run(["sample", "new-models", "--n", "4", "--out", "more", "--seed", "7"]) == 0
    more = read_volumes("more")
    assert (more.form, more.class_names) == (read_volumes("new").form, ("ad", "cn"))
    assert {(row["model"], row["seed"]) for row in rows_of("more")} == {("vae", "7")}


def test_volumes_have_convolutions_by_default():
    data, _ = phantom_heads(4, size=16)
    for name in ("vae", "rhvae", "cvae"):
        options = default_options(name, data=data)
        assert options["encoder"] == options["decoder"] == "conv3d"
        assert options.get("metric_network") == ("conv3d" if name == "rhvae" else None)
    for name, of in (("vae", replace(data, x=data.x[:, 0])), ("vqvae", data)):
        assert "encoder" not in default_options(name, data=of)


def test_volumes_are_learned_in_small_batches_by_default(monkeypatch):
    data, _ = phantom_heads(4, size=16)
    given = []

    @wraps(fit)
    def record(model, members, **options):
        given.append(options)
        return fit(model, members, **options)

    monkeypatch.setattr("chartae.augmentation.learning.fit", record)
    for own in ({}, {"batch_size": 2}):
        Augmenter("ae", "mixture", fit_options={"epochs": 1, **own}).fit(data)
    assert [options["batch_size"] for options in given] == [5, 5, 2, 2]
    assert {options["learning_rate"] for options in given} == {5e-3}
    assert fit_defaults(replace(data, x=data.x[:, 0])) == {}


def test_a_model_without_labels_writes_files_side_by_side(volumes):
    assert run(["train", "in", "--model", "ae", "--epochs", "1", "--out", "model"]) == 0
    options = ["--sampler", "normal", "--fit-on", "in", "--n", "3"]
    assert run(["sample", "model", "--out", "made", *options]) == 0
    assert read_volumes("made").names == ("0.nii.gz", "1.nii.gz", "2.nii.gz")


def test_vectors_are_no_files(rng, capsys):
    np.savez("rows.npz", x=rng.random((6, 3)), y=[0, 0, 0, 1, 1, 1])
    assert augment("rows.npz", "--out", "new") == 2
    assert "neither images nor volumes" in capsys.readouterr().err
    assert run(["train", "rows.npz", "--epochs", "1", "--out", "model"]) == 0
    assert run(["sample", "model", "--out", "made"]) == 2
    assert "neither images nor volumes" in capsys.readouterr().err


def test_real_volumes_may_come_first(volumes):
    assert augment("in", "--out", "new", "--include-real") == 0
    rows, real = rows_of("new"), read_volumes("in")
    assert len(rows) == 10
    assert [(r["model"], r["seed"], r["nearest"], r["distance"]) for r in rows[:6]] == [
        ("", "", name, "0") for name in real.names
    ]
    assert {row["model"] for row in rows[6:]} == {"vae"}
    again = read_volumes("new")
    first = [again.names.index(row["file"]) for row in rows[:6]]
    assert (again.x[first] == real.x).all()


@pytest.mark.parametrize(
    ("shape", "dtype", "option", "mode"),
    [
        ((6, 5), np.uint8, [], "L"),
        ((6, 5), np.uint16, [], "I;16"),
        ((6, 5, 3), np.uint8, [], "RGB"),
        ((6, 5, 4), np.uint8, [], "RGB"),
        ((6, 5, 4), np.uint8, ["--rgba"], "RGBA"),
    ],
)
def test_images_become_images_of_their_kind(rng, shape, dtype, option, mode):
    for row in range(6):
        values = rng.integers(0, np.iinfo(dtype).max, shape, endpoint=True, dtype=dtype)
        Image.fromarray(values).save(f"{place(row)}.tiff")
    assert augment("in", "--out", "new", *option) == 0
    with Image.open("new/cn/3.png") as image:
        assert (image.mode, image.size) == (mode, (5, 6))
    assert (
        read_images("new", color="rgba" if option else None).form
        == read_images("in", color="rgba" if option else None).form
    )
    assert {row["nearest"][:3] for row in rows_of("new")} <= {"ad/", "cn/"}


def test_a_disk_without_space_leaves_no_folder(volumes, monkeypatch, capsys):
    written = []

    def compress(content, **options):
        if written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(content)
        return gzip_compress(content, **options)

    gzip_compress = gzip.compress
    monkeypatch.setattr("chartae.data.volumes.gzip.compress", compress)
    assert augment("in", "--out", "new") == 1
    assert "chartae: No space left on device" in capsys.readouterr().err
    assert written
    assert not Path("new").exists()


def test_an_output_that_exists_stays(volumes, capsys):
    Path("new").mkdir()
    Path("new/mine.txt").write_text("mine")
    assert augment("in", "--out", "new") == 2
    assert "was not written by this command" in capsys.readouterr().err
    assert [file.name for file in Path("new").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resize", "8x8"], "--resize=(8, 8): expected (D, H, W)"),
        (["--crop", "9x9x9"], "smaller than crop, 9 x 9 x 9"),
        (["--crop", "9 9 9"], "--crop='9 9 9': expected HEIGHTxWIDTH"),
        (["--grey"], "is not an option of a folder of volumes"),
        (["--grey", "--rgba"], "grey and rgba are given"),
    ],
)
def test_options_that_do_not_fit_are_refused(volumes, options, message, capsys):
    assert augment("in", "--out", "new", *options) == 2
    assert message in capsys.readouterr().err
    assert not Path("new-models").exists()


# --- sets that stay on disk, and samples scaled by their own range --------------------------------


@pytest.fixture
def images(rng):
    for row in range(12):
        pixels = rng.integers(40, 90, (6, 6), dtype=np.uint8)
        Image.fromarray(pixels).save(f"{place(row)}.png")


def train(*options):
    return run(["train", "in", "--epochs", "1", "--validation", "0.25", *map(str, options)])


def test_a_streamed_folder_gives_the_same_model(images, monkeypatch, capsys):
    assert train("--out", "memory", "--normalize", "image") == 0
    assert "streamed" not in capsys.readouterr().out
    assert train("--out", "streamed", "--normalize", "image", "--stream") == 0
    assert "in is streamed: its 12 observations are read batch by batch" in capsys.readouterr().out
    monkeypatch.setattr(options, "SHARE", 0.0)
    assert train("--out", "large", "--normalize", "image") == 0
    assert "in is streamed" in capsys.readouterr().out
    for file in ("model.safetensors", "config.json"):
        contents = {Path(name, file).read_bytes() for name in ("memory", "streamed", "large")}
        assert len(contents) == 1, file


def test_a_damaged_file_is_named_before_training(images, capsys):
    content = Path("in/cn/11.png").read_bytes()
    Path("in/cn/11.png").write_bytes(content[:60])
    assert train("--out", "model", "--stream") == 2
    assert "11.png cannot be read as an image" in capsys.readouterr().err
    assert not Path("model").exists()


def test_new_data_are_scaled_as_the_model_learned(images, capsys):
    assert train("--out", "scaled", "--normalize", "image") == 0
    trained, new = Trained.read(Path("scaled")), read_data("in")
    assert trained.form.normalized
    x = trained.as_learned(new, "DATA").x
    assert (x.amin((1, 2)) == 0).all()
    assert (x.amax((1, 2)) == 1).all()
    assert train("--out", "plain") == 0
    with pytest.raises(ConfigurationError, match="the model learned samples that were not"):
        Trained.read(Path("plain")).as_learned(new.normalized(), "DATA")


def test_scaled_volumes_become_volumes_of_floats(volumes):
    assert augment("in", "--out", "new", "--normalize", "image") == 0
    image = nibabel.load("new/ad/0.nii.gz")
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(image.affine, AFFINE)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--stream", "--x-key", "x"], "--x-key='x' is not an option of streamed data"),
        (["--stream", "--longitudinal"], "--stream: individuals with visits are read as a whole"),
        (["--normalize", "batch"], "normalize"),
    ],
)
def test_options_of_streams_that_do_not_fit_are_refused(images, given, message, capsys):
    assert train("--out", "model", *given) == 2
    assert message in capsys.readouterr().err
