"""DICOM series: values, order and place of voxels, against the standard's formula and nibabel."""

import warnings
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from chartae.data import read_data, read_volumes, stream_data, write_volumes
from chartae.errors import DataError

ROWS, COLUMNS, SLICES = 4, 5, 3
# Two directions that are orthogonal, neither of them along an axis.
ROW, COLUMN = np.array([0.8, 0.6, 0.0]), np.array([-0.36, 0.48, 0.8])
NORMAL = np.cross(ROW, COLUMN)
FIRST, SPACING, STEP = np.array([-12.0, 7.0, 30.0]), (2.0, 1.5), 3.0


def slice_of(number, pixels, **changes):
    """A slice whose tags have known values; ``changes`` replaces some, None removes them."""
    content = pydicom.Dataset()
    content.file_meta = FileMetaDataset()
    content.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    content.file_meta.MediaStorageSOPClassUID = content.SOPClassUID = CTImageStorage
    content.file_meta.MediaStorageSOPInstanceUID = content.SOPInstanceUID = generate_uid()
    content.SeriesInstanceUID, content.SeriesNumber = "1.2.3", 7
    content.SeriesDescription = "T1 MPRAGE"
    content.Rows, content.Columns = pixels.shape
    content.BitsAllocated = content.BitsStored = 8 * pixels.itemsize
    content.HighBit = content.BitsStored - 1
    content.PixelRepresentation = int(pixels.dtype.kind == "i")
    content.SamplesPerPixel, content.PhotometricInterpretation = 1, "MONOCHROME2"
    content.ImagePositionPatient = [round(v, 6) for v in FIRST + number * STEP * NORMAL]
    content.ImageOrientationPatient = [*ROW, *COLUMN]
    content.PixelSpacing = list(SPACING)
    content.PixelData = pixels.tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(content, name)
        else:
            setattr(content, name, value)
    return content


def write_series(folder, pixels, *, names="cab", **changes):
    """Write slices under names that are not in the order of space."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, rows) in enumerate(zip(names, pixels, strict=False)):
        content = slice_of(number, rows, **changes)
        content.save_as(folder / f"{name}.dcm", enforce_file_format=True)


def random_pixels(seed=0, dtype=np.int16):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 200, (SLICES, ROWS, COLUMNS)).astype(dtype)


@pytest.fixture
def folder(tmp_path):
    """Four patients of two classes."""
    for row in range(4):
        write_series(tmp_path / "in" / ("ad", "cn")[row // 2] / f"p{row}", random_pixels(row))
    return tmp_path / "in"


def test_values_labels_and_order(folder):
    data = read_data(folder)
    for row in range(4):
        np.testing.assert_array_equal(data.x[row, 0].numpy(), random_pixels(row).T)
    assert (data.y.tolist(), data.class_names) == ([0, 0, 1, 1], ("ad", "cn"))
    assert data.names == ("ad/p0", "ad/p1", "cn/p2", "cn/p3")
    streamed = stream_data(folder)
    assert np.array_equal(streamed[3]["x"], data.x[3])
    assert streamed.metadata == data.metadata


def test_every_voxel_is_where_the_standard_puts_it(folder):
    matrix = read_data(folder).form.space.matrix
    for i, j, k in np.ndindex(COLUMNS, ROWS, SLICES):
        # Equation C.7.6.2.1-1 of part 3, in the axes left, posterior, superior.
        place = FIRST + k * STEP * NORMAL + i * SPACING[1] * ROW + j * SPACING[0] * COLUMN
        found = (matrix @ [i, j, k, 1.0])[:3]
        np.testing.assert_allclose(found * [-1, -1, 1], place, atol=1e-5)


def test_the_affine_is_that_of_nibabels_own_reader(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it is experimental
        from nibabel.nicom.dicomwrappers import wrapper_from_file
    form = read_data(folder).form
    for k, name in enumerate("cab"):
        theirs = wrapper_from_file(folder / "ad" / "p0" / f"{name}.dcm").affine
        for row, column in np.ndindex(ROWS, COLUMNS):
            left, posterior, superior, _ = theirs @ [row, column, 0, 1]
            ours = (form.space.matrix @ [column, row, k, 1])[:3]
            np.testing.assert_allclose(ours, [-left, -posterior, superior], atol=1e-5)


def test_the_output_is_nifti_in_the_same_place(folder, tmp_path):
    data = read_data(folder)
    write_volumes(tmp_path / "out", data)
    again = nibabel.load(tmp_path / "out" / "ad" / "0.nii.gz")
    np.testing.assert_array_equal(again.get_fdata(), random_pixels(0).T)
    np.testing.assert_allclose(again.affine, data.form.space.matrix, atol=1e-5)
    assert again.get_data_dtype() == np.int16


@pytest.mark.parametrize(
    ("changes", "dtype", "value", "stored"),
    [
        ({}, np.int16, lambda v: v, "int16"),
        ({}, np.uint8, lambda v: v / 255, "uint8"),
        ({"RescaleSlope": 2.5, "RescaleIntercept": -3}, np.int16, lambda v: 2.5 * v - 3, "float32"),
        ({"RescaleSlope": 1, "RescaleIntercept": -10}, np.uint8, lambda v: v - 10.0, "int16"),
        ({"RescaleSlope": 1, "RescaleIntercept": -1024}, np.int16, lambda v: v - 1024.0, "int32"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, np.int16, lambda v: -1.0 - v, "int16"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, np.uint16, lambda v: 65535.0 - v, "uint16"),
    ],
)
def test_stored_numbers_become_values(tmp_path, changes, dtype, value, stored):
    pixels = random_pixels(dtype=dtype)
    write_series(tmp_path / "p", pixels, **changes)
    data = read_volumes(tmp_path)
    np.testing.assert_allclose(data.x[0, 0].numpy(), value(pixels.T.astype(float)), rtol=1e-6)
    assert data.form.stored == stored


def test_a_table_names_folders(folder):
    lines = ["file,label", "ad/p1,old", "cn/p2,young"]
    (folder / "people.csv").write_text("\n".join(lines))
    data = read_data(folder)
    assert (data.names, data.class_names) == (("ad/p1", "cn/p2"), ("old", "young"))


def test_one_folder_of_slices_and_patients_without_classes(tmp_path):
    write_series(tmp_path / "p", random_pixels())
    assert read_volumes(tmp_path / "p").y is None
    write_series(tmp_path / "q", random_pixels(1))
    data = read_volumes(tmp_path)
    assert (data.y, data.names) == (None, ("p", "q"))


def test_one_of_several_series_is_chosen(tmp_path):
    write_series(tmp_path / "p", random_pixels())
    other = {"SeriesInstanceUID": "1.2.4", "SeriesDescription": "FLAIR"}
    write_series(tmp_path / "p", random_pixels(1), names="xyz", **other)
    message = r"has 2 series: 7 T1 MPRAGE 1.2.3 \(3 files\), 7 FLAIR 1.2.4"
    with pytest.raises(DataError, match=message):
        read_data(tmp_path)
    for chosen in ("FLAIR", "1.2.4"):
        data = read_data(tmp_path, series=chosen)
        np.testing.assert_array_equal(data.x[0, 0].numpy(), random_pixels(1).T)
    with pytest.raises(DataError, match="has 0 series that are 'T2' among"):
        read_data(tmp_path, series="T2")


def broken(folder, number, **changes):
    slice_of(number, random_pixels()[0], **changes).save_as(
        folder / "b.dcm", enforce_file_format=True
    )


@pytest.mark.parametrize(
    ("number", "changes", "message"),
    [
        (1, {}, "b.dcm have one position: expected one slice for each position"),
        (3, {}, "are 3 to 6 mm apart: expected even steps; is a slice missing"),
        (2, {"ImagePositionPatient": None}, "b.dcm has no ImagePositionPatient"),
        (2, {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}, "is not parallel to"),
        (2, {"PixelSpacing": [2.0, 2.0]}, "has PixelSpacing"),
        (2, {"SamplesPerPixel": 3}, "b.dcm has colours"),
        (2, {"NumberOfFrames": 4}, "b.dcm has 4 frames: expected a file for each slice"),
        (2, {"ModalityLUTSequence": []}, "b.dcm has a table of values"),
        (2, {"PixelData": b"\0" * 8}, "b.dcm cannot be read as a slice"),
    ],
)
def test_slices_that_make_no_volume_are_refused(tmp_path, number, changes, message):
    write_series(tmp_path, random_pixels())
    broken(tmp_path, number, **changes)
    with pytest.raises(DataError, match=message):
        read_volumes(tmp_path)


def test_a_damaged_header_is_named_and_other_files_are_left_out(tmp_path):
    write_series(tmp_path, random_pixels())
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "notes.txt").write_bytes(bytes(128) + b"DICM")
    assert read_volumes(tmp_path).input_shape == (1, COLUMNS, ROWS, SLICES)
    (tmp_path / "d.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 20)
    for read in (read_volumes, stream_data):
        with pytest.raises(DataError, match="d.dcm cannot be read as a slice"):
            read(tmp_path)


def test_pixels_without_a_decoder_name_its_package(tmp_path):
    source = Path(get_testdata_file("MR_small_jpeg_ls_lossless.dcm", download=False))
    (tmp_path / "a.dcm").write_bytes(source.read_bytes())
    with pytest.raises(DataError, match="a.dcm cannot be read as a slice.*JPEG-LS.*pylibjpeg"):
        read_volumes(tmp_path)


@pytest.mark.parametrize("name", ["MR_small.dcm", "MR_small_RLE.dcm", "CT_small.dcm"])
def test_real_slices(tmp_path, name):
    source = Path(get_testdata_file(name, download=False))
    (tmp_path / "1.2.840.7").write_bytes(source.read_bytes())
    data, content = read_volumes(tmp_path), pydicom.dcmread(source)
    slope, intercept = content.get("RescaleSlope", 1), content.get("RescaleIntercept", 0)
    expected = content.pixel_array.astype(float) * float(slope) + float(intercept)
    np.testing.assert_array_equal(data.x[0, 0, :, :, 0].numpy(), expected.T)
    between_rows, between_columns = content.PixelSpacing
    zooms = (between_columns, between_rows, content.SliceThickness)
    np.testing.assert_allclose(data.form.space.zooms, np.float64(zooms), rtol=1e-6)
