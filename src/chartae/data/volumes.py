"""Folders of NIfTI volumes or DICOM series: reading datasets, and writing NIfTI files."""

import gzip
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from chartae.atomic import atomic_path
from chartae.data.arrays import DType, resolve_dtype, scaled
from chartae.data.dataset import ArrayDataset
from chartae.data.dicom import find_series, is_series, read_series, series_grid
from chartae.data.folders import (
    Kind,
    Listing,
    check_alike,
    files_below,
    list_files,
    list_samples,
    read_each,
    some,
    write_folder,
)
from chartae.data.form import Form, check_precision, read_samples
from chartae.data.images import check_size
from chartae.data.labels import encode_labels
from chartae.data.space import Grid, Space, cropped_at
from chartae.data.streamed import FileSource, StreamedDataset
from chartae.errors import ConfigurationError, DataError

__all__ = [
    "check_volumes",
    "read_volumes",
    "stream_volumes",
    "volume_grid",
    "volumes_below",
    "write_volumes",
]

SUFFIXES = (".nii", ".nii.gz")
NEAR = 0.01
"""Largest distance of the corners of two grids that are the same, in voxels."""


def read_volumes(
    folder: str | os.PathLike[str],
    *,
    resize: Sequence[int] | None = None,
    crop: Sequence[int] | None = None,
    series: str | None = None,
    skip_unreadable: bool = False,
    dtype: DType = "default",
) -> ArrayDataset:
    """Return the volumes of ``folder/<class>/``, all on one grid; classes are sorted by name.

    A volume is a NIfTI file, whose name ends in ``.nii`` or ``.nii.gz``, or, in a folder without
    such files, a folder with the slices of one DICOM series. Folders and labels are those of
    `read_images`: class folders, a ``.csv`` file with columns ``file`` and ``label``, or no labels.
    Samples are (1, D, H, W) with the axes of the file; those of a series are columns, rows, and
    slices in the order of space. Values are those of the file: its integers or floats, converted
    by its scale factor if it has one. Only bytes are divided by 255, as everywhere. The `Form` of
    the dataset has the dtype in the files and the `Space` of the voxels, and `write_volumes`
    restores both. The ``names`` of the dataset are those of the files. The extra ``nifti`` is
    needed, or ``dicom`` for DICOM.

    Args:
        folder: the folder.
        resize: (D, H, W) to which every volume is resampled, linearly and with antialiasing. The
            voxels change their size, and the field of view does not.
        crop: (D, H, W) of the centre to which every volume is cut, before ``resize``.
        series: the description, the number or the UID of the DICOM series to read, where folders
            hold several.
        skip_unreadable: leave out, with a warning, files that cannot be read as one volume.
        dtype: as in `ArrayDataset.from_arrays`.

    Raises:
        DataError: if a file is not readable as one volume (it is damaged, has another number of
            axes or complex values, has NaN, or is smaller than ``crop``), has another size than the
            first, or its voxels are elsewhere; if a class has no volumes, or the labels are not
            clear. The message names the files.
        ConfigurationError: for an option out of range, or if nibabel, or for DICOM pydicom, is not
            installed.
    """
    listing = _listing(folder, resize, crop)
    read = partial(_read, resize=resize, crop=crop, series=series)
    volumes, files = read_each(listing.files, read, skip_unreadable, "a volume")
    listing.check_classes(files, "readable volume")
    grid = _one_grid(files, [volume.grid for volume in volumes])
    samples = read_samples(np.stack([volume.values for volume in volumes])[:, None])
    values = scaled(samples.values, resolve_dtype(dtype))
    check_precision(samples, values)
    labels, names = listing.labels_of(files), listing.class_names
    y = None if labels is None else encode_labels(labels, names)[0]
    form = replace(samples.form, stored=grid.stored, space=grid.space)
    return ArrayDataset(values, y, class_names=names, form=form, names=listing.names_of(files))


def stream_volumes(
    folder: str | os.PathLike[str],
    *,
    resize: Sequence[int] | None = None,
    crop: Sequence[int] | None = None,
    series: str | None = None,
    skip_unreadable: bool = False,
    dtype: DType = "default",
) -> StreamedDataset:
    """Return the volumes of a folder as `read_volumes` does, but read them batch by batch.

    Sizes and places of voxels are taken from the headers of the files.

    Args:
        folder: as in `read_volumes`.
        resize: as in `read_volumes`.
        crop: as in `read_volumes`.
        series: as in `read_volumes`.
        skip_unreadable: leave out files whose headers cannot be read. A file that is damaged after
            its header raises an error when it is read.
        dtype: as in `read_volumes`.

    Raises:
        DataError: as `read_volumes`, as far as headers show it; later for a damaged file.
        ConfigurationError: as in `read_volumes`.
    """
    listing = _listing(folder, resize, crop)
    look = partial(volume_grid, resize=resize, crop=crop, series=series)
    grids, files = read_each(listing.files, look, skip_unreadable, "a volume")
    listing.check_classes(files, "readable volume")
    grid = _one_grid(files, grids)
    read = partial(_read_values, resize=resize, crop=crop, series=series)
    return StreamedDataset.from_source(
        FileSource(files, read, (1, *grid.shape), grid.dtype),
        listing.labels_of(files),
        class_names=listing.class_names or None,
        dtype=dtype,
        names=listing.names_of(files),
        stored=grid.stored,
        space=grid.space,
    )


def _listing(
    folder: str | os.PathLike[str], resize: Sequence[int] | None, crop: Sequence[int] | None
) -> Listing:
    for name, size in (("resize", resize), ("crop", crop)):
        check_size(name, size, "(D, H, W)")
    root = Path(folder)
    if root.is_dir() and any(path.is_dir() for path in volumes_below(root)):
        return list_samples(folder, Kind("DICOM series", find_series, is_series))
    check_volumes()
    return list_files(folder, SUFFIXES, "volumes")


def _one_grid(files: Sequence[Path], grids: Sequence[Grid]) -> Grid:
    """Return the grid of all volumes, in the dtypes that hold all of them.

    Raises:
        DataError: if they differ.
    """
    check_alike(
        files,
        [" x ".join(map(str, grid.shape)) for grid in grids],
        "volumes of one size; the option resize resamples them, and the option crop cuts them",
    )
    first = grids[0]
    apart = [first.space.distance(grid.space, first.shape) for grid in grids]
    if odd := [file for file, distance in zip(files, apart, strict=True) if distance > NEAR]:
        raise DataError(
            f"voxels of {some(odd)} are up to {max(apart):.3g} voxels away from those of "
            f"{files[0]}: expected volumes with one affine; register them, or resample them to "
            "one grid, first"
        )
    return Grid(
        first.shape,
        np.result_type(*{grid.dtype for grid in grids}).name,
        replace(first.space, rescaled=any(grid.space.rescaled for grid in grids)),
        np.result_type(*{grid.stored for grid in grids}).name,
    )


def write_volumes(
    folder: str | os.PathLike[str],
    dataset: ArrayDataset,
    *,
    columns: Mapping[str, Sequence[object]] | None = None,
) -> list[Path]:
    """Write ``dataset`` as NIfTI files, and a table of them, ``manifest.csv``.

    The files are ``folder/<class>/<row>.nii.gz``, or ``folder/<row>.nii.gz`` without labels.
    Folders and the table are those of `write_images`. Volumes have the dtype and the affine in the
    dataset's `Form`; without them, float32 and the identity. Integers are rounded and clipped to
    the range of their dtype. `read_volumes` reads the folder again. If writing fails, no file
    remains. The extra ``nifti`` is needed.

    Args:
        folder: a new or an empty folder.
        dataset: volumes (N, 1, D, H, W) or (N, D, H, W), with or without labels and without a mask.
        columns: further columns of the table: for each name, a value for each sample.

    Returns:
        The paths of the files, that of the table last.

    Raises:
        DataError: before the first file is written, if the dataset has another form.
        ConfigurationError: if ``folder`` is not writable or not empty, if columns do not fit, or if
            nibabel is not installed.
        OSError: from the file system (for example a full disk).
    """
    check_volumes()
    shape = dataset.input_shape
    if len(shape) != 3 and not (len(shape) == 4 and shape[0] == 1):
        raise DataError(
            f"x has shape {tuple(dataset.x.shape)}: expected (N, 1, D, H, W) or (N, D, H, W)"
        )
    if dataset.mask is not None:
        raise DataError("mask is given: expected fully observed volumes, as NIfTI has no mask")

    def write(file: Path, row: int) -> None:
        _write(file, dataset.x[row].reshape(shape[-3:]), dataset.form)

    return write_folder(folder, dataset, ".nii.gz", write, columns or {})


def volumes_below(folder: Path) -> list[Path]:
    """Return the NIfTI files below a folder; without any, the folders with slices of DICOM."""
    files = [file for file in files_below(folder) if file.name.lower().endswith(SUFFIXES)]
    return files or find_series(folder)


def check_volumes() -> None:
    """Raise `ConfigurationError` if volumes cannot be read and written."""
    _nibabel()


def _nibabel() -> ModuleType:
    try:
        import nibabel
    except ImportError:
        raise ConfigurationError(
            "NIfTI volumes need the package nibabel: expected pip install 'chartae[nifti]'"
        ) from None
    module: ModuleType = nibabel
    return module


class _Volume(NamedTuple):
    values: NDArray[Any]
    grid: Grid


def _read(
    file: Path, resize: Sequence[int] | None, crop: Sequence[int] | None, series: str | None
) -> _Volume:
    try:
        if file.is_dir():
            values, grid = read_series(file, series)
        else:
            _check_sum(file)
            image = _nibabel().load(file)
            grid = _grid(image)
            values = _values(image, grid)
        fitted = grid.fitted(resize, crop)  # first, for it checks the sizes
        return _Volume(_fitted(values, resize, crop), fitted)
    except (ConfigurationError, DataError):
        raise
    except Exception as error:  # nibabel, zlib and the file system raise their own types of errors
        raise DataError(f"{file} cannot be read as a volume: {error}") from None


def _read_values(
    file: Path, resize: Sequence[int] | None, crop: Sequence[int] | None, series: str | None
) -> NDArray[Any]:
    """Return the values of a volume with one channel (1, D, H, W)."""
    return _read(file, resize, crop, series).values[None]


def volume_grid(
    file: Path,
    resize: Sequence[int] | None = None,
    crop: Sequence[int] | None = None,
    series: str | None = None,
) -> Grid:
    """Return the grid of a NIfTI file, or of a folder with a DICOM series, from headers.

    Arguments as in `read_volumes`.

    Raises:
        DataError: if it cannot be read as one volume.
        ConfigurationError: if nibabel or pydicom is not installed.
    """
    try:
        grid = series_grid(file, series) if file.is_dir() else _grid(_nibabel().load(file))
        return grid.fitted(resize, crop)
    except (ConfigurationError, DataError):
        raise
    except Exception as error:  # nibabel, zlib and the file system raise their own types of errors
        raise DataError(f"{file} cannot be read as a volume: {error}") from None


def _check_sum(file: Path) -> None:
    """Raise an error if a compressed file is damaged. nibabel stops before the check sum."""
    if file.suffix.lower() == ".gz":
        with gzip.open(file) as content:
            while content.read(2**20):
                pass


def _grid(image: Any) -> Grid:
    """Return the grid of one volume (D, H, W), whose values are uint8 as stored, or floats."""
    stored, shape = image.get_data_dtype(), image.shape
    if stored.kind not in "iuf":
        raise ValueError(f"its voxels are of dtype {stored}; expected real numbers")
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"its shape is {image.shape}; expected a file for each volume (D, H, W)")
    precise = stored.itemsize > 4 or stored in (np.int32, np.uint32)
    is_bytes = stored == np.uint8 and not _is_rescaled(image)
    dtype = "uint8" if is_bytes else "float64" if precise else "float32"
    return Grid(shape, dtype, _space(image), stored.name)


def _values(image: Any, grid: Grid) -> NDArray[Any]:
    if grid.dtype == "uint8":
        return np.asarray(image.dataobj).reshape(grid.shape)
    values = image.get_fdata(dtype=np.dtype(grid.dtype).type, caching="unchanged")
    if bad := int((~np.isfinite(values)).sum()):
        raise ValueError(f"it has {bad} NaN or infinite value(s); expected finite numbers")
    return np.asarray(values.reshape(grid.shape))


def _is_rescaled(image: Any) -> bool:
    return bool(image.dataobj.slope != 1.0 or image.dataobj.inter != 0.0)


def _space(image: Any) -> Space:
    header, affine = image.header, image.affine
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine) < 4:
        raise ValueError("its affine is not finite or not invertible")
    return Space(
        affine=tuple(tuple(row) for row in affine.tolist()),
        unit=header.get_xyzt_units()[0],
        qform=int(header["qform_code"]),
        sform=int(header["sform_code"]),
        rescaled=_is_rescaled(image),
    )


def _fitted(
    values: NDArray[Any], resize: Sequence[int] | None, crop: Sequence[int] | None
) -> NDArray[Any]:
    """Return the middle of a volume, resampled; see `Grid.fitted` for its grid."""
    if crop is not None:
        start = cropped_at(values.shape, crop)
        values = values[tuple(slice(a, a + size) for a, size in zip(start, crop, strict=True))]
    if resize is None:
        return values
    floats = np.ascontiguousarray(values, dtype=np.result_type(values, np.float32))
    new = _resampled(torch.from_numpy(floats), resize).numpy()
    return new.round().astype(np.uint8) if values.dtype == np.uint8 else new


def _resampled(x: Tensor, size: Sequence[int]) -> Tensor:
    """Return (D, H, W) resampled by a triangle along each axis, as Pillow resamples images."""
    depth, height, width = size

    def planes(x: Tensor, size: tuple[int, int]) -> Tensor:
        return interpolate(x[:, None], size, mode="bilinear", antialias=True)[:, 0]

    x = planes(x, (height, width))
    return planes(x.transpose(0, 1), (depth, width)).transpose(0, 1).contiguous()


def _write(file: Path, x: Tensor, form: Form) -> None:
    """Write one volume (D, H, W), atomically."""
    space, stored = form.space or Space(), np.dtype(form.stored or np.float32)
    values = x.detach().cpu().double()
    if form.dtype == torch.uint8:
        values = values * 255.0
    if stored.kind in "iu" and not space.rescaled:
        limits = np.iinfo(stored)
        array = values.round().clamp(limits.min, limits.max).numpy().astype(stored)
    else:
        array = values.numpy().astype(stored if stored.kind == "f" else np.float64)
    image = _nibabel().Nifti1Image(array, space.matrix, dtype=array.dtype)
    image.set_data_dtype(stored)  # nibabel then chooses the scale factor
    image.set_qform(space.matrix, space.qform)
    # Without any code, a reader would take the sizes of voxels only.
    image.set_sform(space.matrix, space.sform or int(space.qform == 0))
    image.header.set_xyzt_units(space.unit)
    with atomic_path(file) as temporary:
        # Without the time of writing, so that one seed gives the same bytes.
        temporary.write_bytes(gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))
