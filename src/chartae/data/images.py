"""Folders of images: reading and writing datasets."""

import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from chartae.atomic import atomic_path
from chartae.checks import check_choice, check_integer
from chartae.data.arrays import DType, restored
from chartae.data.dataset import ArrayDataset
from chartae.data.folders import check_alike, list_files, read_each, write_folder
from chartae.data.streamed import FileSource, StreamedDataset
from chartae.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "Color",
    "check_size",
    "image_layout",
    "image_suffixes",
    "read_alike",
    "read_image",
    "read_images",
    "stream_images",
    "to_pixels",
    "write_images",
    "write_png",
]

logger = logging.getLogger(__name__)

Color = Literal["grey", "rgb", "rgba"]
CHANNELS = (1, 3, 4)
"""Numbers of channels of images: grey, RGB, and RGB with transparency."""

# Pillow's single-channel modes with more than 8 bits.
_WIDE = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
_GREY = ("1", "L", "LA", "La")
# The tag of EXIF that says how the camera was held, and its values for a quarter turn.
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)


def read_images(
    folder: str | os.PathLike[str],
    *,
    resize: Sequence[int] | None = None,
    crop: Sequence[int] | None = None,
    color: Color | None = None,
    skip_unreadable: bool = False,
    dtype: DType = "default",
) -> ArrayDataset:
    """Return the images of ``folder/<class>/``, all of one size; classes are sorted by name.

    Images may be in subfolders of their class's folder. A folder of images without subfolders has
    no labels. A class has the name of its folder, or its name in the table of `write_images`. A
    ``.csv`` file in the folder with columns ``file`` and ``label`` gives the labels instead.
    Grey and binary images become (height, width), colour images (3, height, width), in [0, 1]:
    bytes are divided by 255 and 16-bit values by 65535; floating-point pixels are unchanged.
    Palettes and other colour spaces become RGB; transparent pixels are blended with white, except
    with ``color="rgba"``. Images are rotated according to their EXIF orientation. Files whose
    suffix is not that of an image are left out, with a warning that counts them. Hidden files and
    those of file managers are left out without a warning. The ``names`` of the dataset are those of
    the files.

    Args:
        folder: the folder.
        resize: (height, width) to which every image is resampled, with antialiasing.
        crop: (height, width) of the centre to which every image is cut, before ``resize``.
        color: ``"grey"``, ``"rgb"`` or ``"rgba"``, with transparency as the fourth channel, to
            convert every image; None converts none, and all must be of the same kind.
        skip_unreadable: leave out, with a warning, files that cannot be read as one image.
        dtype: as in `ArrayDataset.from_arrays`.

    Raises:
        DataError: if a file is not readable as one image (it has several pages, or colours of 16
            bits, or is smaller than ``crop``), or has another size or other colours than the first;
            if a class has no images, or images are beside the class folders; if the table of labels
            names a file that is missing. The message names the files.
        ConfigurationError: for an option out of range.
    """
    listing = list_files(folder, image_suffixes(), "images")
    pixels = read_alike(listing.files, resize, color, crop=crop, skip_unreadable=skip_unreadable)
    listing.check_classes(pixels.files, "readable image")
    labels, names = listing.labels_of(pixels.files), listing.class_names or None
    data = ArrayDataset.from_arrays(pixels.values, labels, class_names=names, dtype=dtype)
    form = replace(data.form, stored=pixels.stored)
    return replace(data, form=form, names=listing.names_of(pixels.files))


def stream_images(
    folder: str | os.PathLike[str],
    *,
    resize: Sequence[int] | None = None,
    crop: Sequence[int] | None = None,
    color: Color | None = None,
    skip_unreadable: bool = False,
    dtype: DType = "default",
) -> StreamedDataset:
    """Return the images of a folder as `read_images` does, but read them batch by batch.

    Sizes and kinds of images are taken from the headers of the files.

    Args:
        folder: as in `read_images`.
        resize: as in `read_images`.
        crop: as in `read_images`.
        color: as in `read_images`.
        skip_unreadable: leave out files whose headers cannot be read. A file that is damaged after
            its header raises an error when it is read.
        dtype: as in `read_images`.

    Raises:
        DataError: as `read_images`, as far as headers show it; later for a damaged file.
        ConfigurationError: for an option out of range.
    """
    _check_options(resize, crop, color)
    listing = list_files(folder, image_suffixes(), "images")
    look = partial(image_layout, resize=resize, crop=crop, color=color)
    layouts, files = read_each(listing.files, look, skip_unreadable, "an image")
    listing.check_classes(files, "readable image")
    _check_one_kind(files, [layout.shape for layout in layouts])
    stored = np.result_type(*{layout.dtype for layout in layouts}).name
    read = partial(_read_values, resize=resize, crop=crop, color=color, stored=stored)
    height, width, *channels = layouts[0].shape
    dtype_read = np.uint8 if stored == "uint8" else np.float32
    return StreamedDataset.from_source(
        FileSource(files, read, (*channels, height, width), dtype_read),
        listing.labels_of(files),
        class_names=listing.class_names or None,
        dtype=dtype,
        names=listing.names_of(files),
        stored=stored,
    )


def write_images(
    folder: str | os.PathLike[str],
    dataset: ArrayDataset,
    *,
    clip: bool = False,
    columns: Mapping[str, Sequence[object]] | None = None,
) -> list[Path]:
    """Write ``dataset`` as PNG files, and a table of them, ``manifest.csv``.

    The files are ``folder/<class>/<row>.png``, where ``<class>`` is the `folder_name` of the class,
    or ``folder/<row>.png`` without labels. The table has the columns ``file`` and ``label``.
    `read_images` reads the folder again, with the names of the classes. ``x`` must be (N, height,
    width), or (N, channels, height, width) with 1, 3 or 4 channels, in [0, 1], without a mask. Grey
    images have 16 bits if they were read from such files, and otherwise 8. If writing fails, no
    file remains.

    Args:
        folder: a new or an empty folder.
        dataset: images, with or without labels.
        clip: clip values outside [0, 1], with a warning that counts them.
        columns: further columns of the table: for each name, a value for each sample.

    Returns:
        The paths of the files, that of the table last.

    Raises:
        DataError: before the first file is written, if the dataset has another form.
        ConfigurationError: if ``folder`` is not writable or not empty, or if columns do not fit.
        OSError: from the file system (for example a full disk).
    """
    pixels = to_pixels(dataset, clip)

    def write(file: Path, row: int) -> None:
        write_png(file, pixels[row])

    return write_folder(folder, dataset, ".png", write, columns or {})


def read_image(
    path: str | Path,
    *,
    resize: Sequence[int] | None = None,
    crop: Sequence[int] | None = None,
    color: Color | None = None,
) -> ArrayDataset:
    """Return the dataset of one image file, as a folder of this image alone.

    Args:
        path: the file.
        resize: as in `read_images`.
        crop: as in `read_images`.
        color: as in `read_images`.

    Raises:
        DataError: if it cannot be read as one image.
    """
    return ArrayDataset.from_arrays(read_alike([Path(path)], resize, color, crop=crop).values)


def write_png(file: Path, pixels: NDArray[Any]) -> None:
    """Write the pixels of one image, (height, width) or (height, width, channels), atomically.

    Pixels are bytes, or 16-bit values of a grey image.
    """
    from PIL import Image

    with atomic_path(file) as temporary:
        Image.fromarray(pixels).save(temporary)


def image_suffixes() -> Collection[str]:
    """Return the suffixes of images that Pillow reads."""
    from PIL import Image

    Image.init()  # registers all formats; few are registered before
    # Formats that Pillow writes but does not read are left out. MPO photographs are read as JPEG.
    readable = {*Image.OPEN, "MPO"}
    return {s for s, kind in Image.registered_extensions().items() if kind in readable}


class Pixels(NamedTuple):
    """The pixels of images of one size and kind.

    Attributes:
        values: channels first; bytes, or floats in [0, 1].
        files: the files that they were read from.
        stored: NumPy's name of the dtype of pixels in files.
    """

    values: NDArray[Any]
    files: list[Path]
    stored: str


def read_alike(
    files: Sequence[Path],
    resize: Sequence[int] | None = None,
    color: Color | None = None,
    *,
    crop: Sequence[int] | None = None,
    skip_unreadable: bool = False,
) -> Pixels:
    """Return the pixels of images of one size and kind. Arguments as in `read_images`."""
    _check_options(resize, crop, color)
    read = partial(_read_pixels, resize=resize, crop=crop, color=color)
    images, kept = read_each(files, read, skip_unreadable, "an image")
    _check_one_kind(kept, [image.shape for image in images])
    stored = np.result_type(*images).name
    return Pixels(np.stack([_as_values(image, stored) for image in images]), kept, stored)


def _check_options(
    resize: Sequence[int] | None, crop: Sequence[int] | None, color: Color | None
) -> None:
    if color is not None:
        check_choice("color", color, get_args(Color))
    for name, size in (("resize", resize), ("crop", crop)):
        check_size(name, size, "(height, width)")


def _check_one_kind(files: Sequence[Path], shapes: Sequence[Sequence[int]]) -> None:
    """Raise `DataError` unless images have one size and kind.

    Args:
        files: the files.
        shapes: of the pixels of each: (height, width) or (height, width, channels).
    """
    check_alike(
        files,
        [f"{shape[1]}x{shape[0]} pixels" for shape in shapes],
        "images of one size; the option resize converts them, and the option crop cuts them",
    )
    check_alike(
        files,
        [_kind(shape) for shape in shapes],
        "images of one kind; the option color converts them",
    )


def check_size(name: str, size: object, axes: str) -> None:
    """Raise `ConfigurationError` unless a size is None, or has a number for each of ``axes``.

    Args:
        name: of the argument.
        size: its value.
        axes: what is expected, such as ``"(height, width)"``.
    """
    if size is None:
        return
    if not isinstance(size, Sequence) or len(size) != axes.count(",") + 1:
        raise ConfigurationError(f"{name}={size!r}: expected {axes}")
    for number in size:
        check_integer(name, number, minimum=1)


def _as_values(image: NDArray[Any], stored: str) -> NDArray[Any]:
    """Return pixels with channels first: bytes if all files have bytes, else floats in [0, 1].

    Pixels of floats are unchanged.
    """
    if stored != "uint8":
        if image.dtype.kind == "u":
            image = image / float(np.iinfo(image.dtype).max)
        image = image.astype(np.float32)
    return np.moveaxis(image, -1, 0) if image.ndim == 3 else image


def _kind(shape: Sequence[int]) -> str:
    if len(shape) == 2:
        return "grey"
    return "RGB" if shape[-1] == 3 else "RGB with transparency"


def _read_values(
    file: Path,
    resize: Sequence[int] | None,
    crop: Sequence[int] | None,
    color: Color | None,
    stored: str,
) -> NDArray[Any]:
    return _as_values(_read_pixels(file, resize, crop, color), stored)


class Layout(NamedTuple):
    """The shape and dtype of pixels: (height, width) or (height, width, channels)."""

    shape: tuple[int, ...]
    dtype: str


def image_layout(
    file: Path,
    resize: Sequence[int] | None = None,
    crop: Sequence[int] | None = None,
    color: Color | None = None,
) -> Layout:
    """Return the shape and dtype of the pixels of a file, from its header.

    Arguments as in `read_images`.

    Raises:
        DataError: if it cannot be read as one image.
    """
    with _opened(file) as opened:
        width, height = opened.size
        if opened.getexif().get(_ORIENTATION, 1) in _TURNED:
            width, height = height, width
        if crop is not None:
            _check_crop(height, width, crop)
            height, width = crop
        if resize is not None:
            height, width = resize
        if opened.mode in _WIDE:
            _check_wide(color)
            return Layout((height, width), "float32" if opened.mode == "F" else "uint16")
        kind = color or ("grey" if opened.mode in _GREY else "rgb")
        channels = {"grey": (), "rgb": (3,), "rgba": (4,)}[kind]
        return Layout((height, width, *channels), "uint8")


@contextmanager
def _opened(file: Path) -> Iterator["Image"]:
    """Open a file with one image, and explain errors inside of the block.

    Raises:
        DataError: if it cannot be read as one image.
    """
    from PIL import Image

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
            yield opened
    except DataError:
        raise
    except Exception as error:  # each format of Pillow raises its own types of errors
        raise DataError(f"{file} cannot be read as an image: {error}") from None


def _read_pixels(
    file: Path,
    resize: Sequence[int] | None,
    crop: Sequence[int] | None,
    color: Color | None,
) -> NDArray[Any]:
    """Return (height, width) or (height, width, channels): uint8, uint16 or float32."""
    from PIL import Image, ImageOps

    with _opened(file) as opened:
        is_wide = opened.mode in _WIDE and opened.mode != "F"
        image: Image.Image = ImageOps.exif_transpose(opened)
        image = _plain(image, color)
        if crop is not None:
            image = _centre(image, *crop)
        if resize is not None:
            image = image.resize((resize[1], resize[0]), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
        return pixels.round().astype(np.uint16) if is_wide else pixels


def _centre(image: "Image", height: int, width: int) -> "Image":
    """Return the middle of an image."""
    _check_crop(image.height, image.width, (height, width))
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _check_crop(height: int, width: int, crop: Sequence[int]) -> None:
    if height < crop[0] or width < crop[1]:
        raise ValueError(
            f"it is {width}x{height} pixels, smaller than crop, {crop[1]}x{crop[0]} pixels"
        )


def _check_wide(color: Color | None) -> None:
    if color in ("rgb", "rgba"):
        raise ValueError("it has one channel of more than 8 bits, which cannot become RGB")


def _plain(image: "Image", color: Color | None) -> "Image":
    """Return an image of mode L, RGB or RGBA; of mode F if it has more than 8 bits."""
    from PIL import Image

    if image.mode in _WIDE:
        _check_wide(color)
        wide = np.asarray(image)
        if image.mode == "F":
            return image
        if wide.min() < 0 or wide.max() > 65535:
            raise ValueError(f"its values from {wide.min()} to {wide.max()} are not of 16 bits")
        return Image.fromarray(wide.astype(np.float32))
    if color == "rgba":
        return image.convert("RGBA")
    grey = image.mode in _GREY
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    wanted = {"grey": "L", "rgb": "RGB", None: "L" if grey else "RGB"}[color]
    return image.convert(wanted)


def to_pixels(dataset: ArrayDataset, clip: bool) -> NDArray[Any]:
    """Images (N, height, width) or (N, height, width, channels) from values in [0, 1].

    Grey images have 16 bits if they were read from such files, and otherwise 8.
    """
    x, shape = dataset.x, dataset.input_shape
    if not (len(shape) == 2 or (len(shape) == 3 and shape[0] in CHANNELS)):
        raise DataError(
            f"x has shape {tuple(x.shape)}: expected (N, height, width), or (N, channels, height, "
            "width) with 1, 3 or 4 channels"
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
    if len(shape) == 3:
        x = x.movedim(1, -1).squeeze(-1) if shape[0] == 1 else x.movedim(1, -1)
    x = x.detach().cpu()
    if dataset.form.stored == "uint16" and x.ndim == 3:
        return np.asarray((x.double().clamp(0.0, 1.0) * 65535.0).round().numpy().astype(np.uint16))
    return np.asarray(restored(x, torch.uint8).contiguous().numpy())
