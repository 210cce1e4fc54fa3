"""Folders of images with one subfolder per class, as dataset and from a dataset."""

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from chartae.atomic import check_writable
from chartae.data.dataset import ArrayDataset
from chartae.errors import ConfigurationError, DataError

__all__ = ["read_image", "read_images", "write_images"]

# Pillow's names of the pixel formats taken as they are: binary, grey, colour.
_MODES = ("1", "L", "RGB")


def read_images(
    folder: str | os.PathLike[str], *, dtype: torch.dtype | None = torch.float32
) -> ArrayDataset:
    """Return the images of ``folder/<class>/``, all of one size; classes in order of their names.

    Grey and binary images become (height, width), colour images (3, height, width), in [0, 1].
    Files and folders whose name starts with a dot are left out; every other file has to be an
    image.

    Raises:
        DataError: naming the file, for one that is not a readable image or has another size or mode
            than the first; for a class without images; for a folder without subfolders.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"folder={str(root)!r}: expected an existing folder of images")
    class_folders = [entry for entry in _visible(root) if entry.is_dir()]
    stray = next((entry for entry in _visible(root) if not entry.is_dir()), None)
    if not class_folders:
        raise DataError(f"{root} has no subfolders: expected one subfolder of images per class")
    if stray:
        raise DataError(f"{stray} is in no class: expected images in one subfolder per class only")
    files: list[Path] = []
    labels: list[str] = []
    for class_folder in class_folders:
        members = _visible(class_folder)
        if not members:
            raise DataError(f"{class_folder} is empty: expected at least one image of its class")
        files += members
        labels += [class_folder.name] * len(members)
    pixels = _read_alike(files)
    names = [class_folder.name for class_folder in class_folders]
    return ArrayDataset.from_arrays(pixels, labels, class_names=names, dtype=dtype)


def write_images(folder: str | os.PathLike[str], dataset: ArrayDataset) -> None:
    """Write ``dataset`` as 8-bit PNG files ``folder/<class>/<row>.png``.

    ``x`` has to be (N, height, width), (N, 1, height, width) or (N, 3, height, width) in [0, 1],
    with labels and without a mask.

    Raises:
        DataError: before the first file is written, for a dataset of another form or a class whose
            name cannot be that of a folder.
        ConfigurationError: if ``folder`` cannot be written to or is not empty.
    """
    from PIL import Image

    root = Path(folder)
    pixels = _to_pixels(dataset)
    if dataset.y is None:
        raise DataError("y is missing: expected labels, as each class gets a subfolder")
    for name in dataset.class_names:
        if not name or name != Path(name).name or name.startswith("."):
            raise DataError(f"class name {name!r} cannot be the name of a folder")
    if any(check_writable("folder", root).iterdir()):
        raise ConfigurationError(f"folder={str(root)!r} is not empty: expected a new folder")
    digits = len(str(len(dataset) - 1))
    for row, (image, label) in enumerate(zip(pixels, dataset.y.tolist(), strict=True)):
        class_folder = root / dataset.class_names[label]
        class_folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(class_folder / f"{row:0{digits}}.png")


def read_image(path: str | Path) -> ArrayDataset:
    """Return the dataset of one image file: ``x`` (1, height, width) or (1, 3, height, width).

    Raises:
        DataError: if it cannot be read as a binary, grey or RGB image.
    """
    return ArrayDataset.from_arrays(_read_alike([Path(path)]))


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _read_alike(files: list[Path]) -> NDArray[np.generic]:
    """Pixels (N, height, width) or (N, 3, height, width): uint8, or bool for binary images."""
    first, mode = _read_image(files[0])
    images = [first]
    for file in files[1:]:
        image, other_mode = _read_image(file)
        if other_mode != mode:
            raise DataError(
                f"{file} has mode {other_mode} and {files[0]} {mode}: expected one mode"
            )
        if image.shape != first.shape:
            raise DataError(
                f"{file} is {_size(image)} and {files[0]} is {_size(first)}: expected one size"
            )
        images.append(image)
    pixels = np.stack(images)
    return np.moveaxis(pixels, -1, 1) if mode == "RGB" else pixels


def _read_image(file: Path) -> tuple[NDArray[np.generic], str]:
    from PIL import Image

    try:
        with Image.open(file) as image:
            pixels, mode = np.asarray(image), image.mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} cannot be read as an image: {error}") from None
    if mode not in _MODES:
        raise DataError(
            f"{file} has mode {mode}: expected 1 (binary), L (8-bit grey) or RGB; convert it first"
        )
    return pixels, mode


def _size(image: NDArray[np.generic]) -> str:
    return f"{image.shape[1]}x{image.shape[0]} pixels"


def _to_pixels(dataset: ArrayDataset) -> NDArray[np.uint8]:
    """Images (N, height, width) or (N, height, width, 3) from values in [0, 1]."""
    x, shape = dataset.x, dataset.input_shape
    if not (len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))):
        raise DataError(
            f"x has shape {tuple(x.shape)}: expected (N, height, width), (N, 1, height, width) "
            "or (N, 3, height, width)"
        )
    if dataset.mask is not None:
        raise DataError("mask is given: expected fully observed images, as PNG cannot hold a mask")
    low, high = float(x.min()), float(x.max())
    if low < 0 or high > 1:
        raise DataError(f"x ranges from {low:g} to {high:g}: expected values in [0, 1]")
    pixels = (x * 255).round().to(torch.uint8).cpu()
    if len(shape) == 3:
        pixels = pixels.movedim(1, -1).squeeze(-1) if shape[0] == 1 else pixels.movedim(1, -1)
    return np.asarray(pixels.contiguous().numpy())
