"""Samples from files and to files; nothing is ever unpickled."""

import logging
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chartae.atomic import atomic_path, check_writable
from chartae.data.dataset import ArrayDataset
from chartae.data.images import read_images
from chartae.data.tables import read_table
from chartae.errors import ConfigurationError, DataError

__all__ = ["read_data", "write_npz"]

logger = logging.getLogger(__name__)

Arrays = Mapping[str, Any]

# Names under which samples and labels are found; those of Keras' and the thesis' files among them.
_X_KEYS = ("x", "X", "x_train", "X_train", "data", "images")
_Y_KEYS = ("y", "labels", "label", "targets", "target")

# What can be said about each kind of source.
_OPTIONS: dict[str, set[str]] = {
    "folder": set(),
    ".csv": {"label_column"},
    ".npy": {"channels_last"},
    ".npz": {"x_key", "y_key", "channels_last"},
    ".pt": {"x_key", "y_key", "channels_last"},
}


def read_data(
    path: str | os.PathLike[str],
    *,
    x_key: str | None = None,
    y_key: str | None = None,
    label_column: str | None = None,
    channels_last: bool = False,
    dtype: torch.dtype | None = torch.float32,
) -> ArrayDataset:
    """Return the samples, and the labels if there are any, of a file or a folder of images.

    What is read, by the suffix of ``path``:

    * ``.npz`` and ``.pt`` (a tensor, or a dictionary of tensors): samples under ``x``, ``X``,
      ``x_train``, ``X_train``, ``data`` or ``images``, or the only array; labels under ``y``,
      ``labels``, ``label``, ``targets`` or ``target``, but under ``y_train`` for ``x_train``;
      ``mask`` (``mask_train``) and ``class_names`` if there.
    * ``.npy``: samples without labels.
    * ``.csv``: a header and numeric columns, see `read_table`.
    * a folder: one subfolder of images per class, see `read_images`.

    uint8 is divided by 255, floats are taken as they are (see `ArrayDataset.from_arrays`).

    Args:
        path: the file or folder.
        x_key: the name of the samples among the arrays of an ``.npz`` or ``.pt`` file.
        y_key: the name of the labels there.
        label_column: the column of a ``.csv`` file that holds the labels.
        channels_last: move the last axis of arrays (N, height, width, channels) to where models
            expect it, (N, channels, height, width). No array is transposed without it.
        dtype: torch.float32, torch.float64, or None to keep floats as given.

    Raises:
        DataError: for a file that is missing, unreadable, pickled or not of this form.
        ConfigurationError: for an option that this kind of file does not have.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"path={str(path)!r} does not exist: expected a file or a folder of images")
    kind = "folder" if path.is_dir() else path.suffix.lower()
    _check_options(
        path,
        kind,
        x_key=x_key,
        y_key=y_key,
        label_column=label_column,
        channels_last=channels_last or None,
    )
    if kind == "folder":
        return read_images(path, dtype=dtype)
    if kind == ".csv":
        return read_table(path, label_column=label_column, dtype=dtype)
    arrays = _read_torch(path) if kind == ".pt" else _read_numpy(path)
    return _from_named_arrays(path, arrays, x_key, y_key, channels_last, dtype)


def write_npz(path: str | os.PathLike[str], dataset: ArrayDataset) -> None:
    """Write ``dataset`` as a compressed ``.npz``, whole or not at all.

    Its arrays are ``x`` and, where there are any, ``y`` (class indices), ``class_names`` and
    ``mask``. The folder is made if needed.

    Raises:
        ConfigurationError: before any work, if ``path`` does not end in ``.npz``, is a folder, or
            is in a folder that cannot be written to.

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
    check_writable("the folder of path", path.parent)
    fields = {"x": dataset.x, "y": dataset.y, "mask": dataset.mask}
    arrays: dict[str, Any] = {
        name: field.cpu().numpy() for name, field in fields.items() if field is not None
    }
    if dataset.class_names:
        arrays["class_names"] = np.array(dataset.class_names)
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def _check_options(path: Path, kind: str, **options: object) -> None:
    """Refuse a kind of source that is not read, and an option that it does not have."""
    if kind not in _OPTIONS:
        raise DataError(
            f"path={str(path)!r}: expected a folder of images or a file that ends in "
            f"{', '.join(sorted(_OPTIONS.keys() - {'folder'}))}"
        )
    for name, value in options.items():
        if value is not None and name not in _OPTIONS[kind]:
            raise ConfigurationError(
                f"{name}={value!r} means nothing for a {kind} source, which takes "
                f"{' and '.join(sorted(_OPTIONS[kind])) or 'no such option'}"
            )


def _from_named_arrays(
    path: Path,
    arrays: Arrays,
    x_key: str | None,
    y_key: str | None,
    channels_last: bool,
    dtype: torch.dtype | None,
) -> ArrayDataset:
    x_key = _find_key(path, arrays, "x_key", x_key, _X_KEYS)
    if x_key is None:
        others = [name for name in arrays if name not in (y_key, *_Y_KEYS, "class_names", "mask")]
        if len(others) != 1:
            raise DataError(
                f"{path} has arrays {sorted(arrays)}: expected samples under one of "
                f"{', '.join(_X_KEYS)}, or their name as x_key"
            )
        x_key = others[0]
    # x_test goes with y_test and mask_test, never with the labels of another part.
    part = x_key[1:] if x_key.startswith(("x_", "X_")) else ""
    y_key = _find_key(path, arrays, "y_key", y_key, (f"y{part}",) if part else _Y_KEYS)
    x, mask = arrays[x_key], arrays.get(f"mask{part}")
    if channels_last:
        x, mask = (_channels_first(x_key, value) for value in (x, mask))
    elif _looks_channels_last(x):
        shape = tuple(x.shape)
        logger.warning("%s: %s is read as %s; is it channels_last?", path, x_key, shape)
    y, names = (arrays[y_key], arrays.get("class_names")) if y_key else (None, None)
    return ArrayDataset.from_arrays(x, y, mask, class_names=names, dtype=dtype)


def _find_key(
    path: Path, arrays: Arrays, option: str, wanted: str | None, usual: Sequence[str]
) -> str | None:
    if wanted is None:
        return next((key for key in usual if key in arrays), None)
    if wanted not in arrays:
        raise DataError(f"{option}={wanted!r} is not in {path}, which has arrays {sorted(arrays)}")
    return wanted


def _looks_channels_last(x: Any) -> bool:
    return x.ndim == 4 and x.shape[-1] in (1, 3) and x.shape[1] not in (1, 3)


def _channels_first(key: str, value: Any) -> Any:
    if value is None:
        return None
    if value.ndim < 4:
        raise DataError(
            f"{key} has shape {tuple(value.shape)}: expected (N, height, width, channels) "
            "with channels_last"
        )
    return torch.moveaxis(value, -1, 1) if isinstance(value, Tensor) else np.moveaxis(value, -1, 1)


def _read_numpy(path: Path) -> Arrays:
    try:
        # Opened here, as np.load leaves the file of a damaged archive open.
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return {"x": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read as NumPy arrays without pickle: {error}") from None


def _read_torch(path: Path) -> Arrays:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load fails in as many ways as a pickle has
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} cannot be read as tensors without pickle: {reason}") from None
    if isinstance(loaded, Tensor):
        return {"x": loaded}
    if not isinstance(loaded, dict):
        raise DataError(
            f"{path} holds a {type(loaded).__name__}: expected a tensor or a dictionary of tensors"
        )
    return {
        name: value
        for name, value in loaded.items()
        if isinstance(value, Tensor) or name == "class_names"
    }
