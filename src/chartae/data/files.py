"""Reading samples from files and writing them to files; nothing is unpickled."""

import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chartae.atomic import atomic_path, check_writable
from chartae.data.archives import Arrays, map_numpy, read_numpy, read_torch
from chartae.data.arrays import DType
from chartae.data.dataset import ArrayDataset
from chartae.data.folders import files_below
from chartae.data.images import Color, image_layout, image_suffixes, read_images, stream_images
from chartae.data.labels import LABEL_NAMES
from chartae.data.streamed import StreamedDataset
from chartae.data.tables import read_labels, read_table
from chartae.data.volumes import read_volumes, stream_volumes, volume_grid, volumes_below
from chartae.errors import ConfigurationError, DataError

__all__ = ["bytes_in_memory", "read_data", "stream_data", "write_npz"]


# Names under which samples are found, including those in the files of Keras and the thesis.
_X_KEYS = ("x", "X", "x_train", "X_train", "data", "images")
# Names that np.savez gives to unnamed arrays: samples, then labels.
_UNNAMED = ("arr_0", "arr_1")

_TABLE = {"label_column", "header"}
_ARRAYS = {"x_key", "y_key", "channels_last"}
# The options of each kind of source.
_OPTIONS: dict[str, set[str]] = {
    "folder": {"resize", "crop", "color", "skip_unreadable"},
    "folder of volumes": {"resize", "crop", "series", "skip_unreadable"},
    ".csv": _TABLE,
    ".tsv": _TABLE,
    ".npy": {"labels", "channels_last"},
    ".npz": _ARRAYS,
    ".pt": _ARRAYS,
}
_STREAMED = ("folder", "folder of volumes", ".npy")


def read_data(
    path: str | os.PathLike[str],
    *,
    x_key: str | None = None,
    y_key: str | None = None,
    label_column: str | None = None,
    labels: str | os.PathLike[str] | None = None,
    header: bool = True,
    channels_last: bool = False,
    resize: Sequence[int] | None = None,
    crop: Sequence[int] | None = None,
    color: Color | None = None,
    series: str | None = None,
    skip_unreadable: bool = False,
    dtype: DType = "default",
) -> ArrayDataset:
    """Return the samples of a file or a folder, with the labels if there are any.

    The suffix of ``path`` determines what is read:

    * ``.npz`` and ``.pt`` (a tensor, or a dictionary of tensors): samples under ``x``, ``X``,
      ``x_train``, ``X_train``, ``data`` or ``images``, or the only array; labels under one of
      `LABEL_NAMES`, or under ``y_train`` for ``x_train``; ``mask`` (``mask_train``) and
      ``class_names`` if present. Arrays that ``np.savez`` saved without names are samples and
      labels, in this order.
    * ``.npy``: samples, with labels from another file if it is given.
    * ``.csv`` and ``.tsv``: columns of numbers and of text, see `read_table`.
    * a folder: images, NIfTI volumes or DICOM series in one subfolder per class, beside a table of
      labels, or without labels, see `read_images` and `read_volumes`.

    uint8 is divided by 255, floats are unchanged (see `ArrayDataset.from_arrays`).

    Args:
        path: the file or folder.
        x_key: the name of the samples among the arrays of an ``.npz`` or ``.pt`` file.
        y_key: the name of the labels there.
        label_column: the column of a table that holds the labels.
        labels: for an ``.npy`` file, the file of its labels, see `read_labels`.
        header: for a table, whether its first line names the columns.
        channels_last: arrays are ``(N, *sizes, channels)``, and become ``(N, channels, *sizes)``,
            which models expect. By default no array is transposed.
        resize: for images and volumes, as in `read_images` and `read_volumes`.
        crop: for images and volumes, as in `read_images` and `read_volumes`.
        color: for images, as in `read_images`.
        series: for volumes, as in `read_volumes`.
        skip_unreadable: for images and volumes, as in `read_images`.
        dtype: as in `ArrayDataset.from_arrays`.

    Raises:
        DataError: for a file that is missing, unreadable, pickled or of another form.
        ConfigurationError: for an option that this kind of file does not have.
    """
    path = Path(path)
    kind = _kind_of(path)
    _check_options(
        path,
        kind,
        x_key=x_key,
        y_key=y_key,
        label_column=label_column,
        labels=labels,
        header=None if header else False,
        channels_last=channels_last or None,
        resize=resize,
        crop=crop,
        color=color,
        series=series,
        skip_unreadable=skip_unreadable or None,
    )
    shared: Any = {
        "resize": resize,
        "crop": crop,
        "skip_unreadable": skip_unreadable,
        "dtype": dtype,
    }
    if kind == "folder":
        return read_images(path, color=color, **shared)
    if kind == "folder of volumes":
        return read_volumes(path, series=series, **shared)
    if kind in (".csv", ".tsv"):
        return read_table(path, label_column=label_column, header=header, dtype=dtype)
    arrays = dict(read_torch(path) if kind == ".pt" else read_numpy(path))
    if labels is not None:
        arrays["y"] = read_labels(labels)
    return _from_named_arrays(path, arrays, x_key, y_key, channels_last, dtype)


def stream_data(
    path: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    channels_last: bool = False,
    resize: Sequence[int] | None = None,
    crop: Sequence[int] | None = None,
    color: Color | None = None,
    series: str | None = None,
    skip_unreadable: bool = False,
    dtype: DType = "default",
) -> StreamedDataset:
    """Return the samples of an ``.npy`` file or a folder, which are read batch by batch.

    They are those of `read_data`, in the same order. Only labels and the names of files are kept in
    memory.

    Args:
        path: an ``.npy`` file, or a folder of images or volumes.
        labels: as in `read_data`.
        channels_last: as in `read_data`.
        resize: as in `read_data`.
        crop: as in `read_data`.
        color: as in `read_data`.
        series: as in `read_data`.
        skip_unreadable: leave out files whose headers cannot be read.
        dtype: as in `read_data`.

    Raises:
        DataError: for a file that is missing, unreadable or of another form, as far as headers show
            it; later for a damaged file.
        ConfigurationError: for an option that this kind of file does not have.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/images.npy", np.zeros((3, 8, 8), dtype=np.uint8))
    ...     stream_data(f"{folder}/images.npy")
    StreamedDataset(3 samples of shape (8, 8), float32)
    """
    path = Path(path)
    kind = _kind_of(path)
    if kind in _OPTIONS and kind not in _STREAMED:
        raise ConfigurationError(
            f"path={str(path)!r} is read as a whole, not streamed: expected an .npy file, or a "
            "folder of images or volumes"
        )
    _check_options(
        path,
        kind,
        labels=labels,
        channels_last=channels_last or None,
        resize=resize,
        crop=crop,
        color=color,
        series=series,
        skip_unreadable=skip_unreadable or None,
    )
    shared: Any = {
        "resize": resize,
        "crop": crop,
        "skip_unreadable": skip_unreadable,
        "dtype": dtype,
    }
    if kind == "folder":
        return stream_images(path, color=color, **shared)
    if kind == "folder of volumes":
        return stream_volumes(path, series=series, **shared)
    y = None if labels is None else read_labels(labels)
    return StreamedDataset.from_array(map_numpy(path), y, channels_last=channels_last, dtype=dtype)


def bytes_in_memory(
    path: str | os.PathLike[str],
    *,
    resize: Sequence[int] | None = None,
    crop: Sequence[int] | None = None,
    color: Color | None = None,
    series: str | None = None,
) -> int:
    """Return about how many bytes the samples of a path take as float32.

    For a folder it is the size of the first readable image or volume times the number of files. It
    is 0 for what `stream_data` does not read.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy" and path.is_file():
        return 4 * map_numpy(path).size
    if not path.is_dir():
        return 0
    files = volumes_below(path)
    if files:
        shapes = (volume_grid(file, resize, crop, series).shape for file in files)
    else:
        suffixes = tuple(image_suffixes())
        files = [file for file in files_below(path) if file.name.lower().endswith(suffixes)]
        shapes = (image_layout(file, resize, crop, color).shape for file in files)
    with suppress(DataError, StopIteration):  # reading will say what is wrong with the first one
        return 4 * len(files) * math.prod(next(shapes))
    return 0


def write_npz(
    path: str | os.PathLike[str], dataset: ArrayDataset, *, overwrite: bool = False
) -> None:
    """Write ``dataset`` as a compressed ``.npz``, atomically.

    Its arrays are ``x`` and, if present, ``y`` (class indices), ``class_names`` and ``mask``.
    Samples have the dtype and the layout in which the dataset was given (its `Form`). The folder is
    created if needed.

    Args:
        path: the file.
        dataset: what to write.
        overwrite: replace the file if it exists.

    Raises:
        ConfigurationError: before any work, if ``path`` does not end in ``.npz``, exists and
            ``overwrite`` is False, is a folder, or is in a folder that is not writable.

    >>> import tempfile
    >>> from chartae.data import disks_and_rings
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_npz(f"{folder}/shapes.npz", disks_and_rings(10))
    ...     read_data(f"{folder}/shapes.npz")
    ArrayDataset(10 samples of shape (28, 28), float32; disk: 5, ring: 5)
    """
    path = Path(path)
    if path.suffix != ".npz" or path.is_dir():
        raise ConfigurationError(f"path={str(path)!r}: expected a file whose name ends in .npz")
    if path.exists() and not overwrite:
        raise ConfigurationError(f"path={str(path)!r} exists: overwrite=True replaces it")
    check_writable("the folder of path", path.parent)
    form = replace(dataset.form, container="array")
    arrays: dict[str, Any] = {"x": form.restore(dataset.x)}
    if dataset.y is not None:
        arrays["y"] = dataset.y.cpu().numpy()
    if dataset.mask is not None:
        arrays["mask"] = replace(form, dtype=torch.bool).restore(dataset.mask.float())
    if dataset.class_names:
        arrays["class_names"] = np.array(dataset.class_names)
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def _kind_of(path: Path) -> str:
    """Return the suffix of a file, or the kind of a folder."""
    if not path.exists():
        raise DataError(f"path={str(path)!r} does not exist: expected a file or a folder of images")
    if path.is_dir():
        return "folder of volumes" if volumes_below(path) else "folder"
    return path.suffix.lower()


def _check_options(path: Path, kind: str, **options: object) -> None:
    """Raise an error for an unsupported kind of source, or an option that it does not have."""
    if kind not in _OPTIONS:
        raise DataError(
            f"path={str(path)!r}: expected a folder of images or volumes, or a file that ends in "
            f"{', '.join(sorted(kind for kind in _OPTIONS if kind.startswith('.')))}"
        )
    for name, value in options.items():
        if value is not None and name not in _OPTIONS[kind]:
            raise ConfigurationError(
                f"{name}={value!r} is not an option of a {kind} source, which has "
                f"{' and '.join(sorted(_OPTIONS[kind])) or 'no such option'}"
            )


def _from_named_arrays(
    path: Path,
    arrays: Arrays,
    x_key: str | None,
    y_key: str | None,
    channels_last: bool,
    dtype: DType,
) -> ArrayDataset:
    x_key = _find_key(path, arrays, "x_key", x_key, _X_KEYS)
    if x_key is None:
        not_samples = (y_key, *LABEL_NAMES, "class_names", "mask")
        others = [name for name in arrays if name not in not_samples]
        if set(others) == set(_UNNAMED):
            others, y_key = [_UNNAMED[0]], y_key or _UNNAMED[1]
        if len(others) != 1:
            raise DataError(
                f"{path} has arrays {sorted(arrays)}: expected samples under one of "
                f"{', '.join(_X_KEYS)}, or their name as x_key"
            )
        x_key = others[0]
    # x_test is read with y_test and mask_test, never with the labels of another part.
    part = x_key[1:] if x_key.startswith(("x_", "X_")) else ""
    y_key = _find_key(path, arrays, "y_key", y_key, (f"y{part}",) if part else LABEL_NAMES)
    x, mask = arrays[x_key], arrays.get(f"mask{part}")
    y, names = (arrays[y_key], arrays.get("class_names")) if y_key else (None, None)
    return ArrayDataset.from_arrays(
        x, y, mask, class_names=names, channels_last=channels_last, dtype=dtype
    )


def _find_key(
    path: Path, arrays: Arrays, option: str, wanted: str | None, usual: Sequence[str]
) -> str | None:
    if wanted is None:
        return next((key for key in usual if key in arrays), None)
    if wanted not in arrays:
        raise DataError(f"{option}={wanted!r} is not in {path}, which has arrays {sorted(arrays)}")
    return wanted
