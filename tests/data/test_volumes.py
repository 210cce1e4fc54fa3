"""Folders of NIfTI volumes: what comes in goes out, in the same place."""

import gzip
import resource
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nibabel.testing import data_path

from chartae.data import ArrayDataset, Form, Space, read_data, read_volumes, write_volumes
from chartae.errors import ConfigurationError, DataError

AFFINE = np.array([[-2.0, 0.1, 0, 30], [0.2, 1.5, 0, -40], [0, 0, 3.0, -20], [0, 0, 0, 1]])
SHAPE = (5, 6, 4)


def write_volume(path, values, affine=AFFINE, **scale):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, affine, dtype=values.dtype)
    image.header.set_xyzt_units("mm")
    if scale:
        image.header.set_slope_inter(**scale)
    nibabel.save(image, path)


def random_values(dtype, count=4):
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=(count, *SHAPE)).astype(dtype)
    limits = np.iinfo(dtype)
    low, high = max(limits.min, -30_000), min(limits.max, 30_000)
    return rng.integers(low, high, (count, *SHAPE), endpoint=True).astype(dtype)


@pytest.fixture
def folder(tmp_path):
    """Four volumes of int16 of the classes ad and cn."""
    for row, values in enumerate(random_values(np.int16)):
        write_volume(tmp_path / "in" / ("ad", "cn")[row // 2] / f"{row}.nii.gz", values)
    return tmp_path / "in"


# --- reading --------------------------------------------------------------------------------------


def test_values_labels_and_place_are_those_of_the_files(folder):
    data = read_data(folder)
    np.testing.assert_array_equal(data.x[:, 0].numpy(), random_values(np.int16))
    assert (data.y.tolist(), data.class_names) == ([0, 0, 1, 1], ("ad", "cn"))
    assert data.names == ("ad/0.nii.gz", "ad/1.nii.gz", "cn/2.nii.gz", "cn/3.nii.gz")
    assert data.of_class("cn").names == data.names[2:]
    np.testing.assert_allclose(data.form.space.matrix, AFFINE, rtol=1e-6)
    assert data.form.space.zooms == pytest.approx(np.linalg.norm(AFFINE[:3, :3], axis=0))
    assert (data.form.stored, data.form.space.unit) == ("int16", "mm")


@pytest.mark.parametrize("name", ["anatomical.nii", "example_nifti2.nii.gz"])
def test_a_real_file_is_read_as_nibabel_reads_it(tmp_path, name):
    source = Path(data_path) / name
    expected = nibabel.load(source)
    (tmp_path / name).write_bytes(source.read_bytes())
    if len([n for n in expected.shape if n > 1]) > 3:
        with pytest.raises(DataError, match="its shape is .*; expected a file for each volume"):
            read_volumes(tmp_path)
        return
    data = read_volumes(tmp_path)
    scale = 255.0 if data.form.dtype == torch.uint8 else 1.0
    np.testing.assert_allclose(data.x[0, 0].numpy() * scale, expected.get_fdata(), rtol=1e-6)
    write_volumes(tmp_path / "out", data)
    again = nibabel.load(tmp_path / "out" / "0.nii.gz")
    np.testing.assert_array_equal(again.get_fdata(), expected.get_fdata())
    np.testing.assert_allclose(again.affine, expected.affine, rtol=1e-6)
    assert again.header.get_zooms() == expected.header.get_zooms()
    assert again.get_data_dtype() == expected.get_data_dtype().newbyteorder("=")


def test_bytes_are_divided_by_255_and_other_integers_are_not(tmp_path):
    for kind, largest in (("uint8", 1.0), ("uint16", 255.0)):
        write_volume(tmp_path / kind / "0.nii", np.full(SHAPE, 255, dtype=kind))
        assert read_volumes(tmp_path / kind).x.max() == largest


def test_a_scale_factor_is_applied(tmp_path):
    values = random_values(np.int16)[0]
    write_volume(tmp_path / "0.nii", values, slope=0.5, inter=3.0)
    data = read_volumes(tmp_path)
    np.testing.assert_allclose(data.x[0, 0].numpy(), values * 0.5 + 3.0)
    assert data.form.space.rescaled


def test_labels_may_be_in_a_table(tmp_path):
    for row, values in enumerate(random_values(np.int16)):
        write_volume(tmp_path / f"sub-{row}" / "t1.nii", values)
    lines = [f"sub-{row}/t1.nii,7{row},{label}" for row, label in enumerate([10, 9, 10])]
    (tmp_path / "people.csv").write_text("\n".join(["file,age,label", *lines]))
    data = read_volumes(tmp_path)
    assert (data.class_names, data.y.tolist()) == (("9", "10"), [1, 0, 1])
    assert data.names == ("sub-0/t1.nii", "sub-1/t1.nii", "sub-2/t1.nii")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("a.nii,x\nc.nii,y", r"people.csv names 1 file\(s\) that are missing: .*c.nii"),
        ("a.nii,x\na.nii,y", "people.csv names .*a.nii twice"),
        ("a.nii,x\nb.nii,", "people.csv, line 3 has no label"),
        ("a.nii,x\nb.txt,y", "people.csv names .*b.txt: expected volumes"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path, table, message):
    for name in "ab":
        write_volume(tmp_path / f"{name}.nii", random_values(np.int16)[0])
    (tmp_path / "b.txt").write_text("x")
    (tmp_path / "people.csv").write_text(f"file,label\n{table}")
    with pytest.raises(DataError, match=message):
        read_volumes(tmp_path)


def test_two_tables_are_refused(folder):
    for name in "ab":
        (folder / f"{name}.csv").write_text("file,label\n")
    with pytest.raises(DataError, match="a.csv, .*b.csv have the columns file and label: expected"):
        read_volumes(folder)


def test_other_sizes_are_refused_by_name(folder):
    for name in "xyz":
        write_volume(folder / "cn" / f"{name}.nii", np.zeros((5, 6, 3), dtype=np.int16))
    with pytest.raises(
        DataError,
        match=r"x.nii is 5 x 6 x 3, .*y.nii .*z.nii is .*, but .*ad/0.nii.gz is 5 x 6 x 4: "
        "expected volumes of one size; the option resize",
    ):
        read_volumes(folder)
    assert read_volumes(folder, crop=(5, 6, 3)).input_shape == (1, 5, 6, 3)


def test_other_affines_are_refused_by_name(folder):
    moved = AFFINE.copy()
    moved[0, 3] += 6.0
    write_volume(folder / "cn" / "x.nii", random_values(np.int16)[0], moved)
    with pytest.raises(
        DataError, match=r"cn/x.nii are up to 3.99 voxels away from those of .*ad/0"
    ):
        read_volumes(folder)
    moved[0, 3] -= 6.0 - 1e-4  # as another program rounds
    write_volume(folder / "cn" / "x.nii", random_values(np.int16)[0], moved)
    assert len(read_volumes(folder)) == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ""),
        (b"text", ""),
        (gzip.compress(bytes(348)), ""),
        ("short", ""),
        (np.full(SHAPE, np.nan, dtype=np.float32), r"it has 120 NaN or infinite value\(s\)"),
        (np.zeros((*SHAPE, 2), dtype=np.float32), r"its shape is \(5, 6, 4, 2\)"),
        (np.zeros(SHAPE, dtype=np.complex64), "its voxels are of dtype complex64"),
    ],
    ids=["empty", "text", "header of zeros", "cut", "NaN", "series", "complex"],
)
def test_unreadable_volumes_are_refused_or_left_out(folder, content, message, caplog):
    bad = folder / "cn" / "x.nii.gz"
    if isinstance(content, np.ndarray):
        write_volume(bad, content)
    elif content == "short":
        bad.write_bytes((folder / "cn" / "2.nii.gz").read_bytes()[:150])
    else:
        bad.write_bytes(content)
    with pytest.raises(DataError, match=f"cn/x.nii.gz cannot be read as a volume: .*{message}"):
        read_volumes(folder)
    assert len(read_volumes(folder, skip_unreadable=True)) == 4
    assert "left out 1 unreadable file(s)" in caplog.text


def test_damaged_bytes_and_affines_are_found(folder):
    good = (folder / "cn" / "2.nii.gz").read_bytes()
    for content in (good[:-4], good[:-20] + bytes([good[-20] ^ 16]) + good[-19:]):
        (folder / "cn" / "2.nii.gz").write_bytes(content)
        with pytest.raises(DataError, match="cn/2.nii.gz cannot be read as a volume"):
            read_volumes(folder)
    header = gzip.decompress(good)
    for affine in (np.diag([2.0, 0, 2, 1]), np.diag([2.0, np.nan, 2, 1])):
        rows = affine[:3].astype("<f4").tobytes()  # at byte 280 of the header
        (folder / "cn" / "2.nii.gz").write_bytes(gzip.compress(header[:280] + rows + header[328:]))
        with pytest.raises(DataError, match="its affine is not finite or not invertible"):
            read_volumes(folder)


def test_a_last_axis_of_one_is_no_series(tmp_path):
    write_volume(tmp_path / "0.nii", random_values(np.int16)[0][..., None])
    assert read_volumes(tmp_path).input_shape == (1, *SHAPE)


@pytest.mark.parametrize("size", [(4, 4), (0, 4, 4), 4, (4, 4, 4.0)])
@pytest.mark.parametrize("option", ["resize", "crop"])
def test_sizes_out_of_range_are_refused(folder, option, size):
    with pytest.raises(ConfigurationError, match=f"{option}="):
        read_volumes(folder, **{option: size})


def test_volumes_have_no_colours(folder):
    with pytest.raises(
        ConfigurationError, match="color='grey' is not an option of a folder of vol"
    ):
        read_data(folder, color="grey")
    with pytest.raises(DataError, match="ad/0.nii.gz .* 5 x 6 x 4, smaller than crop, 9 x 6 x 4"):
        read_volumes(folder, crop=(9, 6, 4))


# --- place ----------------------------------------------------------------------------------------


def linear(affine, shape):
    """Values that are a linear function of the coordinates of voxels."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    places = grid @ affine[:3, :3].T + affine[:3, 3]
    return places @ np.array([1.0, -2.0, 0.5])


@pytest.mark.parametrize(
    "options",
    [{"crop": (8, 7, 6)}, {"resize": (4, 3, 5)}, {"crop": (9, 8, 6), "resize": (6, 12, 3)}],
    ids=str,
)
def test_cut_and_resampled_voxels_stay_where_they_are(tmp_path, options):
    """A linear function of coordinates is the same function of the new voxels' coordinates."""
    shape = (12, 9, 10)
    write_volume(tmp_path / "0.nii", linear(AFFINE, shape))
    data = read_volumes(tmp_path, **options, dtype=torch.float64)
    expected = linear(data.form.space.matrix, data.input_shape[1:])
    # The filter is exact for whole factors only; a voxel is up to 3 units from the next one.
    inside = (slice(1, -1),) * 3
    np.testing.assert_allclose(data.x[0, 0].numpy()[inside], expected[inside], atol=0.1)


@given(
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(1, 9)] * 3),
)
def test_the_field_of_view_does_not_change_with_the_size(before, after):
    space = Space(tuple(map(tuple, AFFINE.tolist())))
    new = space.scaled(before, after)
    for corner in (np.zeros(3), np.ones(3)):
        old_index, new_index = (corner * np.array(n) - 0.5 for n in (before, after))
        np.testing.assert_allclose(
            space.matrix @ [*old_index, 1], new.matrix @ [*new_index, 1], atol=1e-9
        )


def test_the_form_keeps_the_space_in_json(folder):
    form = read_volumes(folder).form
    assert Form.from_json(form.to_json()) == form
    with pytest.raises(DataError, match="expected the result of Form.to_json"):
        Form.from_json({**form.to_json(), "space": {"afine": 3}})


# --- writing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int16", "uint16", "int32", "float32", "float64"]
)
def test_round_trip(tmp_path, dtype):
    values = random_values(dtype)
    for row, volume in enumerate(values):
        write_volume(tmp_path / "in" / "AD/MCI"[row % 2 * 3 :][:2] / f"{row}.nii.gz", volume)
    data = read_volumes(tmp_path / "in", dtype=None)
    files = write_volumes(tmp_path / "out", data)
    again = read_volumes(tmp_path / "out", dtype=None)
    assert (again.form, again.class_names) == (data.form, data.class_names)
    assert torch.equal(again.x, data.x)
    assert torch.equal(again.y, data.y)
    image = nibabel.load(files[0])
    assert image.get_data_dtype() == dtype
    np.testing.assert_allclose(image.affine, AFFINE, rtol=1e-6)
    np.testing.assert_array_equal(
        np.asarray(image.dataobj), values[data.names.index(data.names[0])]
    )


def test_integers_with_a_scale_factor_are_written_with_one(tmp_path):
    write_volume(tmp_path / "in" / "0.nii", random_values(np.int16)[0], slope=1e-3, inter=0.5)
    data = read_volumes(tmp_path / "in")
    write_volumes(tmp_path / "out", data)
    image = nibabel.load(tmp_path / "out" / "0.nii.gz")
    assert image.get_data_dtype() == np.int16
    np.testing.assert_allclose(image.get_fdata(), data.x[0, 0].numpy(), atol=1e-3)


def test_integers_are_rounded_and_clipped(tmp_path):
    x = torch.tensor([-70_000.0, -1.6, 0.4, 70_000.0]).reshape(1, 1, 4, 1, 1)
    write_volumes(tmp_path / "out", ArrayDataset(x, form=Form(torch.float32, stored="int16")))
    stored = np.asarray(nibabel.load(tmp_path / "out" / "0.nii.gz").dataobj)
    assert stored.flatten().tolist() == [-32768, -2, 0, 32767]


def test_volumes_without_a_space_have_the_identity(tmp_path):
    write_volumes(tmp_path / "out", ArrayDataset(torch.rand(2, *SHAPE), torch.tensor([0, 1])))
    image = nibabel.load(tmp_path / "out" / "0" / "0.nii.gz")
    np.testing.assert_array_equal(image.affine, np.eye(4))
    assert image.get_data_dtype() == np.float32


def test_the_same_data_give_the_same_bytes(tmp_path, folder):
    data = read_volumes(folder)
    one, two = (write_volumes(tmp_path / name, data) for name in ("one", "two"))
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in two]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"x": torch.zeros(2, 5, 5)}, r"x has shape \(2, 5, 5\): expected \(N, 1, D, H, W\)"),
        ({"x": torch.zeros(2, 3, 5, 5, 5)}, r"x has shape \(2, 3, 5, 5, 5\): expected"),
        ({"mask": torch.ones(2, 1, 5, 5, 5, dtype=torch.bool)}, "NIfTI has no mask"),
        ({"y": torch.zeros(2, 3)}, "y holds vectors"),
    ],
)
def test_what_cannot_be_written_is_refused_before_writing(tmp_path, fields, message):
    usual = {"x": torch.zeros(2, 1, 5, 5, 5), "y": torch.tensor([0, 1])}
    with pytest.raises(DataError, match=message):
        write_volumes(tmp_path / "out", ArrayDataset(**(usual | fields)))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("columns", [{"label": [1, 2]}, {"seed": [1]}])
def test_columns_that_do_not_fit_are_refused(tmp_path, columns):
    data = ArrayDataset(torch.zeros(2, *SHAPE))
    with pytest.raises(ConfigurationError, match=r"columns\['(label|seed)'\] has"):
        write_volumes(tmp_path / "out", data, columns=columns)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("exists", [False, True])
def test_nothing_remains_if_the_disk_is_full(tmp_path, exists):
    """The limit of the size of a file stands for the end of a disk."""
    noise = torch.rand(3, 1, 20, 20, 20, generator=torch.Generator().manual_seed(0))
    noise[0] = 0.0  # the first file is small enough
    out = tmp_path / "sub" / "out"
    if exists:
        out.mkdir(parents=True)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_volumes(out, ArrayDataset(noise, torch.tensor([0, 1, 1])))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (list(out.iterdir()) == []) if exists else not out.exists()


def test_without_nibabel_the_error_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    with pytest.raises(ConfigurationError, match=r"expected pip install 'chartae\[nifti\]'"):
        read_data(folder)
