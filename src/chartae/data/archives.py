"""Named arrays from files of NumPy and torch; nothing is unpickled."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chartae.errors import DataError

__all__ = ["Arrays", "map_numpy", "read_numpy", "read_torch"]

Arrays = Mapping[str, Any]


def read_numpy(path: Path) -> Arrays:
    """Return the arrays of an ``.npz`` file, or the array of an ``.npy`` file as ``x``.

    Raises:
        DataError: for a file that is missing, damaged, pickled or larger than the available memory.
    """
    try:
        # Opened here, because np.load does not close the file of a damaged archive.
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return {"x": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except Exception as error:  # np.load raises many types of errors for damaged files
        raise DataError(f"{path} cannot be read as NumPy arrays without pickle: {error}") from None


def map_numpy(path: Path) -> "np.memmap[Any, Any]":
    """Return the array of an ``.npy`` file as a memory map, which cannot be written to.

    Raises:
        DataError: for a file that is missing, damaged or pickled.
    """
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # np.load raises many types of errors for damaged files
        raise DataError(f"{path} cannot be read as a NumPy array without pickle: {error}") from None
    if not isinstance(mapped, np.memmap):
        raise DataError(f"{path} holds several arrays: expected one")
    return mapped


def read_torch(path: Path) -> Arrays:
    """Return the tensors of a ``.pt`` file, and ``class_names``; a single tensor is ``x``.

    Raises:
        DataError: for a file that is missing, damaged, or holds anything else.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types of errors for damaged files
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
