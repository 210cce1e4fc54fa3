import io
import logging
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chartae.data import ArrayDataset, read_data, write_npz
from chartae.errors import ConfigurationError, DataError


@pytest.fixture
def save(tmp_path):
    """Write arrays as ``.npz`` or ``.pt`` and return the path."""

    def write(suffix, **arrays):
        path = tmp_path / f"data{suffix}"
        if suffix == ".npz":
            np.savez(path, **arrays)
        else:
            torch.save({k: torch.from_numpy(v) for k, v in arrays.items()}, path)
        return path

    return write


X = np.arange(6, dtype=np.float32).reshape(3, 2)
Y = np.array([7, 5, 7])


# --- round trips ----------------------------------------------------------------------------------


@given(
    x=hnp.arrays(
        st.sampled_from([np.float32, np.float64]),
        hnp.array_shapes(min_dims=2, max_dims=4, max_side=4),
        elements=st.floats(-1e3, 1e3, width=32),
    ),
    labelled=st.booleans(),
    masked=st.booleans(),
)
def test_npz_round_trip(tmp_path_factory, x, labelled, masked):
    path = tmp_path_factory.mktemp("round") / "data.npz"
    y = [f"class {i % 3}" for i in range(len(x))] if labelled else None
    data = ArrayDataset.from_arrays(x, y, x > 0 if masked else None, dtype=None)
    write_npz(path, data)
    again = read_data(path, dtype=None)
    assert again.x.dtype == data.x.dtype
    assert again.class_names == data.class_names
    for name, field in data.batch(torch.arange(len(x))).items():
        assert torch.equal(getattr(again, name), field)
    assert (again.y is None, again.mask is None) == (not labelled, not masked)


def test_a_class_without_samples_survives_the_round_trip(tmp_path):
    data = ArrayDataset.from_arrays(X, [2, 0, 2], class_names=["a", "b", "c"])
    write_npz(tmp_path / "d.npz", data)
    again = read_data(tmp_path / "d.npz")
    assert again.class_names == ("a", "b", "c")
    assert again.y.tolist() == [2, 0, 2]


def test_writing_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "d.npz"
    for value in (1.0, 2.0):
        write_npz(path, ArrayDataset(torch.full((1, 1), value)), overwrite=True)
    assert read_data(path).x.item() == 2.0
    assert list(path.parent.iterdir()) == [path]


def test_an_interrupted_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "d.npz"
    write_npz(path, ArrayDataset(torch.ones(1, 1)))

    def full_disk(file, **arrays):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_npz(path, ArrayDataset(torch.zeros(1, 1)), overwrite=True)
    assert read_data(path).x.item() == 1.0
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_outputs_are_refused(tmp_path):
    data = ArrayDataset(torch.ones(1, 1))
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "file").write_text("")
    for bad in ("d.txt", "d", "folder.npz"):
        with pytest.raises(ConfigurationError, match=f"path='.*{bad}': expected a file whose name"):
            write_npz(tmp_path / bad, data)
    with pytest.raises(ConfigurationError, match="folder of path=.* cannot be written to"):
        write_npz(tmp_path / "file" / "d.npz", data)


# --- arrays by name -------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
@pytest.mark.parametrize(
    ("x_name", "y_name"),
    [
        ("x", "y"),
        ("X", "y"),
        ("x_train", "y_train"),
        ("X_train", "y_train"),
        ("data", "target"),
        ("images", "labels"),
        ("anything", "y"),
    ],
)
def test_usual_names_are_found(save, suffix, x_name, y_name):
    data = read_data(save(suffix, **{x_name: X, y_name: Y}))
    assert torch.equal(data.x, torch.from_numpy(X))
    assert data.y.tolist() == [1, 0, 1]
    assert data.class_names == ("5", "7")


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_samples_go_with_the_labels_of_their_part(save, suffix):
    path = save(suffix, x_train=X, y_train=Y, x_test=X[:1], y_test=Y[:1], x_val=X[:2])
    assert read_data(path).y.tolist() == [1, 0, 1]
    assert read_data(path, x_key="x_test").class_names == ("7",)
    assert read_data(path, x_key="x_val").y is None
    with pytest.raises(DataError, match="y has 3 labels for 2 samples in x"):
        read_data(path, x_key="x_val", y_key="y_train")


def test_keys_can_be_named(save):
    path = save(".npz", x=X, first=X[:2], subject=Y[:2])
    data = read_data(path, x_key="first", y_key="subject")
    assert len(data) == 2
    assert data.class_names == ("5", "7")


def test_class_names_in_the_file_are_used(save):
    path = save(".npz", x=X, y=np.array([1, 0, 1]), class_names=np.array(["no", "yes"]))
    assert read_data(path).class_names == ("no", "yes")
    bad = save(".npz", x=X, y=np.array([1, 0, 2]), class_names=np.array(["no", "yes"]))
    with pytest.raises(DataError, match=r"y\[2\]=2 is not a class"):
        read_data(bad)


def test_class_names_of_a_tensor_file_may_be_a_list(tmp_path):
    content = {"x": torch.ones(2, 2), "y": torch.tensor([1, 0]), "class_names": ["no", "yes"]}
    torch.save(content | {"note": "not data"}, tmp_path / "d.pt")
    assert read_data(tmp_path / "d.pt").class_names == ("no", "yes")


def test_the_mask_is_read(save):
    x, mask = X.copy(), X > 2
    x[~mask] = np.nan
    data = read_data(save(".npz", x_train=x, mask_train=mask))
    assert torch.equal(data.mask, torch.from_numpy(mask))
    assert torch.isfinite(data.x).all()


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_uint8_images_are_scaled(save, suffix):
    assert read_data(save(suffix, x=np.full((2, 3, 3), 255, dtype=np.uint8))).x.max() == 1.0


def test_npy_and_plain_tensors_are_samples_without_labels(tmp_path):
    np.save(tmp_path / "d.npy", X)
    torch.save(torch.from_numpy(X), tmp_path / "d.pt")
    for name in ("d.npy", "d.pt"):
        data = read_data(tmp_path / name)
        assert torch.equal(data.x, torch.from_numpy(X))
        assert data.y is None


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_names_that_cannot_be_found_are_refused(save, suffix):
    path = save(suffix, a=X, b=X)
    with pytest.raises(DataError, match=r"has arrays \['a', 'b'\]: expected samples under one of"):
        read_data(path)
    with pytest.raises(DataError, match=r"x_key='c' is not in .* has arrays \['a', 'b'\]"):
        read_data(path, x_key="c")
    with pytest.raises(DataError, match="y_key='c' is not in"):
        read_data(path, x_key="a", y_key="c")


@pytest.mark.parametrize("labelled", [True, False])
def test_arrays_saved_without_names_are_samples_and_labels(tmp_path, labelled):
    np.savez(tmp_path / "d.npz", *([X, np.array(["u", "v", "u"])] if labelled else [X]))
    data = read_data(tmp_path / "d.npz")
    np.testing.assert_array_equal(data.x, X)
    assert data.class_names == (("u", "v") if labelled else ())


def test_three_arrays_without_names_are_refused(tmp_path):
    np.savez(tmp_path / "d.npz", X, X, X)
    with pytest.raises(DataError, match="expected samples under one of x, X.*name as x_key"):
        read_data(tmp_path / "d.npz")


# --- channels -------------------------------------------------------------------------------------


def test_channels_last_is_explicit(save, caplog):
    x = np.random.default_rng(0).integers(0, 255, (2, 5, 4, 3), dtype=np.uint8)
    path = save(".npz", x=x)
    with caplog.at_level(logging.WARNING):
        assert read_data(path).input_shape == (5, 4, 3)
    assert "which is read as 5 channels of 4 x 3; if the channels are its last" in caplog.text
    caplog.clear()
    data = read_data(path, channels_last=True)
    assert data.input_shape == (3, 5, 4)
    np.testing.assert_allclose(data.x.numpy(), np.moveaxis(x, -1, 1) / 255, rtol=1e-6)
    assert caplog.text == ""


def test_channels_last_of_tensors_and_of_masks(save):
    x = np.random.default_rng(0).random((2, 5, 4, 3), dtype=np.float32)
    data = read_data(save(".pt", x=x, mask=x > 0.5), channels_last=True)
    assert data.input_shape == (3, 5, 4)
    assert torch.equal(data.mask, torch.from_numpy(np.moveaxis(x > 0.5, -1, 1)))


def test_channels_last_needs_images(save):
    with pytest.raises(DataError, match=r"x has shape \(3, 2\): expected \(N, \*sizes, channels\)"):
        read_data(save(".npz", x=X), channels_last=True)


# --- what cannot be read --------------------------------------------------------------------------


class Touch:
    """Unpickled, it would make a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_nothing_is_unpickled(tmp_path):
    trace = tmp_path / "trace"
    objects = np.array([Touch(trace)], dtype=object)
    np.save(tmp_path / "d.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "d.npz", x=objects)
    torch.save({"x": Touch(trace)}, tmp_path / "d.pt")
    for name in ("d.npy", "d.npz", "d.pt"):
        with pytest.raises(DataError, match=f"{name} cannot be read as .* without pickle"):
            read_data(tmp_path / name)
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".pt"])
@pytest.mark.parametrize(
    "content", [b"", b"not data at all", b"PK\x03\x04 cut", b"\x93NUMPY\x01\x00\x03\x00(1,"]
)
def test_damaged_files_are_refused(tmp_path, suffix, content):
    path = tmp_path / f"d{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"d{suffix} cannot be read as"):
        read_data(path)


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_truncated_files_are_refused(save, suffix):
    path = save(suffix, x=np.random.default_rng(0).random((50, 20)))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="cannot be read as"):
        read_data(path)


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
@pytest.mark.parametrize("shape", [(10**6, 10**7), (2**31, 2**31, 4), (1, 10**7)])
def test_a_header_that_claims_more_than_there_is_is_refused(tmp_path, suffix, shape):
    claim = io.BytesIO()
    described = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(claim, described)
    content = claim.getvalue() + bytes(64)
    path = tmp_path / f"d{suffix}"
    path.write_bytes(content)
    if suffix == ".npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", content)
    reason = "cannot be read as NumPy arrays without pickle"
    with pytest.raises(DataError, match=f"d{suffix} {reason}"):
        read_data(path)
    if suffix == ".npy":
        np.save(tmp_path / "x.npy", X)
        with pytest.raises(DataError, match=f"d{suffix} {reason}"):
            read_data(tmp_path / "x.npy", labels=path)


def test_a_damaged_array_in_an_archive_is_refused(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, x=np.random.default_rng(0).random((50, 20)))
    content = bytearray(path.read_bytes())
    content[4000:4100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as NumPy arrays"):
        read_data(path)


def test_a_tensor_file_of_something_else_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "d.pt")
    with pytest.raises(DataError, match="holds a list: expected a tensor or a dictionary"):
        read_data(tmp_path / "d.pt")


def test_missing_and_unknown_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="absent.npz' does not exist"):
        read_data(tmp_path / "absent.npz")
    (tmp_path / "d.txt").write_text("1")
    with pytest.raises(DataError, match=r"d.txt': expected a folder .* \.csv, \.npy, \.npz, \.pt"):
        read_data(tmp_path / "d.txt")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("d.npz", {"label_column": "y"}, "label_column='y' is not an option of a .npz source"),
        ("d.npy", {"x_key": "x"}, "x_key='x' is not an option of a .npy source, .* channels_last"),
        ("d.csv", {"y_key": "y"}, "y_key='y' is not an option of a .csv source"),
        ("d.csv", {"channels_last": True}, "channels_last=True is not an option of a .csv source"),
        ("folder", {"x_key": "x"}, "x_key='x' is not an option of a folder source, "),
    ],
)
def test_options_without_effect_are_refused(tmp_path, name, options, message):
    if name == "folder":
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_text("")
    with pytest.raises(ConfigurationError, match=message):
        read_data(tmp_path / name, **options)


def test_importing_the_data_package_imports_no_heavy_library():
    code = "import sys, chartae.data; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"sklearn", "PIL", "lightning_fabric", "matplotlib"} & set(done.stdout.split())
