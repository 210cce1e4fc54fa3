"""Folders of images with one subfolder per class: reading and writing datasets."""

import csv
import logging
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from chartae.atomic import atomic_path, check_writable
from chartae.checks import check_choice, check_integer
from chartae.data.arrays import DType, restored
from chartae.data.dataset import ArrayDataset
from chartae.errors import ConfigurationError, DataError
from chartae.naming import folder_name

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "MANIFEST",
    "Color",
    "read_alike",
    "read_image",
    "read_images",
    "to_pixels",
    "write_images",
    "write_png",
]

logger = logging.getLogger(__name__)

Color = Literal["grey", "rgb"]
MANIFEST = "manifest.csv"
"""The table that `write_images` writes beside the image files."""
_COLUMNS = ["file", "label"]

# Files that file managers and archives leave in folders, besides hidden files, in lower case.
_CLUTTER = frozenset(["thumbs.db", "desktop.ini", "__macosx", "@eadir"])
# Pillow's single-channel modes with more than 8 bits.
_WIDE = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")


def read_images(
    folder: str | os.PathLike[str],
    *,
    resize: tuple[int, int] | None = None,
    color: Color | None = None,
    skip_unreadable: bool = False,
    dtype: DType = "default",
) -> ArrayDataset:
    """Return the images of ``folder/<class>/``, all of one size; classes are sorted by name.

    Images may be in subfolders of their class's folder. A folder of images without subfolders has
    no labels. A class has the name of its folder, or its name in the table of `write_images`. Grey
    and binary images become (height, width), colour images (3, height, width), in [0, 1]: bytes are
    divided by 255 and 16-bit values by 65535; floating-point pixels are unchanged. Palettes and
    other colour spaces become RGB; transparent pixels are blended with white. Images are rotated
    according to their EXIF orientation. Files whose suffix is not that of an image are left out,
    with a warning that counts them. Hidden files and those of file managers are left out without a
    warning.

    Args:
        folder: the folder.
        resize: (height, width) to which every image is resampled, with antialiasing.
        color: ``"grey"`` or ``"rgb"`` to convert every image; None converts none, and all must be
            of the same kind.
        skip_unreadable: leave out, with a warning, files that cannot be read as one image.
        dtype: as in `ArrayDataset.from_arrays`.

    Raises:
        DataError: if a file is not readable as one image (it has several pages, or colours of 16
            bits), or has another size or other colours than the first; if a class has no images, or
            images are beside the class folders. The message names the files.
        ConfigurationError: for an option out of range.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"folder={str(root)!r}: expected an existing folder of images")
    class_folders = [entry for entry in _visible(root) if entry.is_dir()]
    names = _class_names(root, class_folders)
    found = _only_images(_below(root))
    stray = [file for file in found if file.parent == root]
    if not class_folders and not stray:
        raise DataError(
            f"{root} has no images: expected images in one subfolder per class, or without "
            "subfolders where there are no labels"
        )
    if class_folders and stray:
        raise DataError(f"{stray[0]} has no class: expected images in one subfolder per class")
    _check_none_is_empty(root, names, found, "images")
    pixels, files = read_alike(found, resize, color, skip_unreadable)
    if not class_folders:
        return ArrayDataset.from_arrays(pixels, dtype=dtype)
    _check_none_is_empty(root, names, files, "readable image")
    labels = [names[_class_folder(root, file)] for file in files]
    return ArrayDataset.from_arrays(pixels, labels, class_names=sorted(names.values()), dtype=dtype)


def write_images(
    folder: str | os.PathLike[str], dataset: ArrayDataset, *, clip: bool = False
) -> list[Path]:
    """Write ``dataset`` as 8-bit PNG files, and a table of them, ``manifest.csv``.

    The files are ``folder/<class>/<row>.png``, where ``<class>`` is the `folder_name` of the class,
    or ``folder/<row>.png`` without labels. The table has the columns ``file`` and ``label``.
    `read_images` reads the folder again, with the names of the classes. ``x`` must be (N, height,
    width), (N, 1, height, width) or (N, 3, height, width) in [0, 1], without a mask.

    Args:
        folder: a new or an empty folder.
        dataset: images, with or without labels.
        clip: clip values outside [0, 1], with a warning that counts them.

    Returns:
        The paths of the files, that of the table last.

    Raises:
        DataError: before the first file is written, if the dataset has another form.
        ConfigurationError: if ``folder`` is not writable or not empty.
    """
    root = Path(folder)
    if dataset.y is not None and not dataset.class_names:
        raise DataError("y holds vectors: expected labels, which name the folders")
    pixels = to_pixels(dataset, clip)
    if any(check_writable("folder", root).iterdir()):
        raise ConfigurationError(f"folder={str(root)!r} is not empty: expected a new folder")
    labels = [""] * len(dataset)
    if dataset.y is not None:
        labels = [dataset.class_names[index] for index in dataset.y.tolist()]
    places = dict.fromkeys(labels, root)
    if dataset.class_names:
        places = {label: root / folder_name(label) for label in places}
    for place in places.values():
        place.mkdir(exist_ok=True)
    digits = len(str(len(dataset) - 1))
    files = [places[label] / f"{row:0{digits}}.png" for row, label in enumerate(labels)]
    for file, image in zip(files, pixels, strict=True):
        write_png(file, image)
    with (
        atomic_path(root / MANIFEST) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as table,
    ):
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(_COLUMNS)
        rows = zip(files, labels, strict=True)
        writer.writerows([file.relative_to(root).as_posix(), label] for file, label in rows)
    return [*files, root / MANIFEST]


def read_image(
    path: str | Path, *, resize: tuple[int, int] | None = None, color: Color | None = None
) -> ArrayDataset:
    """Return the dataset of one image file: ``x`` (1, height, width) or (1, 3, height, width).

    Args:
        path: the file.
        resize: as in `read_images`.
        color: as in `read_images`.

    Raises:
        DataError: if it cannot be read as one image.
    """
    return ArrayDataset.from_arrays(read_alike([Path(path)], resize, color, False)[0])


def write_png(file: Path, pixels: NDArray[np.uint8]) -> None:
    """Write the pixels of one image, (height, width) or (height, width, 3), atomically."""
    from PIL import Image

    with atomic_path(file) as temporary:
        Image.fromarray(pixels).save(temporary)


def _visible(folder: Path) -> list[Path]:
    return sorted(
        entry
        for entry in folder.iterdir()
        if not entry.name.startswith(".") and entry.name.lower() not in _CLUTTER
    )


def _below(folder: Path) -> list[Path]:
    """Return the files of a folder and its subfolders, without hidden ones."""
    entries = _visible(folder)
    files = [entry for entry in entries if not entry.is_dir()]
    # A link to a parent folder would give the same images again and again.
    above = {folder.resolve(), *folder.resolve().parents}
    deeper = [entry for entry in entries if entry.is_dir() and entry.resolve() not in above]
    return files + [file for entry in deeper for file in _below(entry)]


def _class_names(root: Path, folders: Sequence[Path]) -> dict[str, str]:
    """Return the class names by the names of their folders."""
    names = {folder.name: folder.name for folder in folders}
    if unreadable := [name for name in names if not _is_text(name)]:
        raise DataError(
            f"{root} has a folder named {unreadable[0]!a}, which is not UTF-8: "
            "expected the name of a class; rename it"
        )
    try:
        with (root / MANIFEST).open(newline="", encoding="utf-8") as table:
            rows = list(csv.reader(table))
    except (OSError, UnicodeDecodeError, csv.Error):
        return names
    if not rows or rows[0] != _COLUMNS or any(len(row) != len(_COLUMNS) for row in rows):
        return names  # a table that `write_images` did not write
    given = {Path(file).parts[0]: label for file, label in rows[1:] if len(Path(file).parts) > 1}
    names |= {folder: label for folder, label in given.items() if folder in names}
    if len(set(names.values())) < len(names):
        raise DataError(f"{root / MANIFEST} gives one label to several folders: expected one each")
    return names


def _is_text(name: str) -> bool:
    """Whether a file name is valid text; on some systems names are bytes in any encoding."""
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def _class_folder(root: Path, file: Path) -> str:
    return file.relative_to(root).parts[0]


def _check_none_is_empty(
    root: Path, folders: Collection[str], files: Sequence[Path], what: str
) -> None:
    if missing := sorted({*folders} - {_class_folder(root, file) for file in files}):
        raise DataError(f"{root / missing[0]} has no {what}: expected at least one of its class")


def _only_images(files: Sequence[Path]) -> list[Path]:
    """Leave out files that are not images by their suffix, with a warning."""
    from PIL import Image

    Image.init()  # registers all formats; few are registered before
    # Formats that Pillow writes but does not read are left out. MPO photographs are read as JPEG.
    readable = {*Image.OPEN, "MPO"}
    suffixes = {s for s, kind in Image.registered_extensions().items() if kind in readable}
    images = [file for file in files if file.suffix.lower() in suffixes]
    others = sorted({*files} - {*images})
    others = [file for file in others if file.name != MANIFEST]
    if others:
        logger.warning("left out %d file(s) that are not images: %s", len(others), _some(others))
    return images


def _some(things: Sequence[object]) -> str:
    """Return the first three items of a list, and the number of the others."""
    more = f" and {len(things) - 3} more" if len(things) > 3 else ""
    return ", ".join(map(str, things[:3])) + more


def read_alike(
    files: Sequence[Path],
    resize: tuple[int, int] | None,
    color: Color | None,
    skip_unreadable: bool,
) -> tuple[NDArray[Any], list[Path]]:
    """Return the pixels of images of one size and kind, channels first, and which are readable.

    Arguments as in `read_images`. Pixels are bytes, or floats in [0, 1].
    """
    if color is not None:
        check_choice("color", color, get_args(Color))
    if resize is not None:
        if not isinstance(resize, Sequence) or len(resize) != 2:
            raise ConfigurationError(f"resize={resize!r}: expected (height, width)")
        for size in resize:
            check_integer("resize", size, minimum=1)
    images, kept, unreadable = [], [], []
    for file in files:
        try:
            images.append(_read_pixels(file, resize, color))
            kept.append(file)
        except DataError as error:
            if not skip_unreadable:
                raise
            unreadable.append(error)
    if unreadable:
        logger.warning("left out %d unreadable file(s): %s", len(unreadable), _some(unreadable))
    if not images:
        raise DataError(f"none of {len(files)} file(s) can be read as an image: {unreadable[0]}")
    _check_alike(kept, images)
    if any(image.dtype != np.uint8 for image in images):
        images = [image / 255.0 if image.dtype == np.uint8 else image for image in images]
        images = [image.astype(np.float32) for image in images]
    pixels = np.stack(images)
    return (np.moveaxis(pixels, -1, 1) if pixels.ndim == 4 else pixels), kept


def _check_alike(files: Sequence[Path], images: Sequence[NDArray[Any]]) -> None:
    """Raise `DataError` if images have another size or kind than the first one."""
    for what, option, describe in (("size", "resize", _size), ("kind", "color", _kind)):
        wanted = describe(images[0])
        named = [(file, describe(image)) for file, image in zip(files, images, strict=True)]
        odd = [f"{file} is {given}" for file, given in named if given != wanted]
        if odd:
            raise DataError(
                f"{_some(odd)}, but {files[0]} is {wanted}: expected images of one {what}; "
                f"the option {option} converts them"
            )


def _size(image: NDArray[Any]) -> str:
    return f"{image.shape[1]}x{image.shape[0]} pixels"


def _kind(image: NDArray[Any]) -> str:
    return "RGB" if image.ndim == 3 else "grey"


def _read_pixels(file: Path, resize: tuple[int, int] | None, color: Color | None) -> NDArray[Any]:
    """Return (height, width) or (height, width, 3): bytes, or floats for more than 8 bits."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            # Cameras write MPO files as .jpg. Their further pictures are previews.
            pages = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)
            if pages > 1:
                raise DataError(
                    f"{file} has {pages} pages or frames: expected a file for each image"
                )
            # Pillow would drop half of the bits. Only the file's raw mode shows how many there are.
            if opened.mode in ("RGB", "RGBA") and ";16" in str(opened.tile):
                raise ValueError("its colours have 16 bits; convert it to 8 bits first")
            image: Image.Image = ImageOps.exif_transpose(opened)
            image = _plain(image, color)
            if resize is not None:
                image = image.resize((resize[1], resize[0]), Image.Resampling.BILINEAR)
            return np.asarray(image)
    except DataError:
        raise
    except Exception as error:  # each format of Pillow raises its own types of errors
        raise DataError(f"{file} cannot be read as an image: {error}") from None


def _plain(image: "Image", color: Color | None) -> "Image":
    """Return an image of mode L, RGB or F, without transparency."""
    from PIL import Image

    if image.mode in _WIDE:
        if color == "rgb":
            raise ValueError("it has one channel of more than 8 bits, which cannot become RGB")
        wide = np.asarray(image)
        if image.mode == "F":
            return image
        if wide.min() < 0 or wide.max() > 65535:
            raise ValueError(f"its values from {wide.min()} to {wide.max()} are not of 16 bits")
        return Image.fromarray((wide / 65535.0).astype(np.float32))
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    wanted = {"grey": "L", "rgb": "RGB", None: "L" if grey else "RGB"}[color]
    return image.convert(wanted)


def to_pixels(dataset: ArrayDataset, clip: bool) -> NDArray[np.uint8]:
    """Images (N, height, width) or (N, height, width, 3) from values in [0, 1]."""
    x, shape = dataset.x, dataset.input_shape
    if not (len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))):
        raise DataError(
            f"x has shape {tuple(x.shape)}: expected (N, height, width), (N, 1, height, width) "
            "or (N, 3, height, width)"
        )
    if dataset.mask is not None:
        raise DataError("mask is given: expected fully observed images, as PNG has no mask")
    outside = int(((x < 0) | (x > 1)).sum())
    if outside and not clip:
        raise DataError(
            f"x ranges from {x.min():g} to {x.max():g}: expected values in [0, 1]; clip=True "
            "clips them"
        )
    if outside:
        logger.warning("clipped %d of %d values that are outside [0, 1]", outside, x.numel())
    pixels = restored(x, torch.uint8).cpu()
    if len(shape) == 3:
        pixels = pixels.movedim(1, -1).squeeze(-1) if shape[0] == 1 else pixels.movedim(1, -1)
    return np.asarray(pixels.contiguous().numpy())
