"""DICOM series: a folder of slices is one volume. They are read, and never written."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chartae.data.folders import files_below, some
from chartae.data.space import Grid, Space
from chartae.errors import ConfigurationError, DataError

__all__ = ["find_series", "is_series", "read_series", "series_grid"]

EVEN = 0.01
"""Largest difference of the steps between slices, relative to the first step."""
TURNED = 1e-4
"""Largest difference of the directions of slices."""
_SUFFIXES = (".dcm", ".dicom", ".ima", "")
_NEEDED = (
    *("SeriesInstanceUID", "Rows", "Columns", "BitsStored", "PixelRepresentation"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
)
_USED = (
    *(*_NEEDED, "SeriesDescription", "SeriesNumber", "SliceThickness", "SamplesPerPixel"),
    *("NumberOfFrames", "PhotometricInterpretation", "RescaleSlope", "RescaleIntercept"),
    *("ModalityLUTSequence", "DirectoryRecordSequence"),
)
# From the axes of DICOM (left, posterior, superior) to those of NIfTI (right, anterior, superior).
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def find_series(root: Path) -> list[Path]:
    """Return the folders at and below ``root`` that hold slices, in order."""
    folders = dict.fromkeys(file.parent for file in files_below(root))
    return sorted(folder for folder in folders if is_series(folder))


def is_series(path: Path) -> bool:
    """Whether a path is a folder that holds DICOM files."""
    return path.is_dir() and any(map(_is_dicom, sorted(path.iterdir())))


def series_grid(folder: Path, series: str | None = None) -> Grid:
    """Return the shape, the dtype and the place of the voxels of a series, from its headers.

    Arguments and errors as in `read_series`.
    """
    return _Series.of(folder, series).grid


def read_series(folder: Path, series: str | None = None) -> tuple[NDArray[Any], Grid]:
    """Return the values of a series (D, H, W), and its grid.

    The axes are columns, rows, and slices in the order of space.

    Slices are sorted by their position along the normal of their plane. Stored numbers are
    converted by the slope and the intercept of their slice. Slices in which small numbers are
    bright (MONOCHROME1) are inverted first, within the range of the stored numbers (DICOM standard,
    part 3, C.7.6.2, C.7.6.3.1.2 and C.11.1).

    Args:
        folder: a folder with the slices of one series. Other files are ignored.
        series: the description, the number or the UID of the series, for a folder with several.

    Raises:
        DataError: if a file is damaged, the slices are not those of one grey volume with even
            steps, or pixels are compressed in a way that no installed package can decode.
        ConfigurationError: if pydicom is not installed.
    """
    found = _Series.of(folder, series)
    return found.values(), found.grid


@dataclass(frozen=True)
class _Series:
    """The slices of one series, in the order of space, with their headers."""

    files: list[Path]
    headers: list[Any]

    @classmethod
    def of(cls, folder: Path, series: str | None) -> "_Series":
        chosen = _chosen(folder, series)
        for file, header in chosen:
            _check_header(file, header)
        files, headers = zip(*chosen, strict=True)
        _check_one_plane(files, headers)
        order = np.argsort([_along_normal(header) for header in headers], kind="stable")
        found = cls([files[place] for place in order], [headers[place] for place in order])
        found._check_steps()
        return found

    def _check_steps(self) -> None:
        """Raise `DataError` unless slices follow each other in even steps."""
        steps = np.diff([_position(header) for header in self.headers], axis=0)
        lengths = np.linalg.norm(steps, axis=1)
        if len(steps) and lengths.min() < 1e-6:
            place = int(lengths.argmin())
            raise DataError(
                f"{self.files[place]} and {self.files[place + 1]} have one position: expected one "
                "slice for each position, without repetitions in time"
            )
        if len(steps) and np.abs(steps - steps[0]).max() > EVEN * lengths[0]:
            raise DataError(
                f"slices of {self.files[0].parent} are {lengths.min():.4g} to {lengths.max():.4g} "
                "mm apart: expected even steps; is a slice missing?"
            )

    @property
    def grid(self) -> Grid:
        first = self.headers[0]
        shape = (int(first.Columns), int(first.Rows), len(self.headers))
        stored = self._stored()
        is_bytes = stored == np.uint8 and not any(map(_is_rescaled, self.headers))
        wide = max(int(header.BitsStored) for header in self.headers) > 16
        dtype = "uint8" if is_bytes else "float64" if wide else "float32"
        return Grid(shape, dtype, self._space(), stored.name)

    def _stored(self) -> np.dtype[Any]:
        """Return the smallest dtype that holds all values that the slices may have."""
        factors = [_factors(header) for header in self.headers]
        if any(slope != 1.0 or intercept % 1.0 for slope, intercept in factors):
            return np.dtype(np.float32)
        low = min(_limits(h)[0] + f[1] for h, f in zip(self.headers, factors, strict=True))
        high = max(_limits(h)[1] + f[1] for h, f in zip(self.headers, factors, strict=True))
        for name in ("uint8", "int16", "uint16", "int32"):
            limits = np.iinfo(name)
            if limits.min <= low and high <= limits.max:
                return np.dtype(name)
        return np.dtype(np.float64)

    def _space(self) -> Space:
        first, last = self.headers[0], self.headers[-1]
        along_row, along_column = _directions(first)
        between_rows, between_columns = map(float, first.PixelSpacing)
        affine = np.eye(4)
        affine[:3, 0] = along_row * between_columns
        affine[:3, 1] = along_column * between_rows
        affine[:3, 2] = _step(first, last, len(self.headers))
        affine[:3, 3] = _position(first)
        rows = (_TO_RAS @ affine).tolist()
        return Space(tuple(tuple(row) for row in rows), unit="mm", qform=1, sform=1)

    def values(self) -> NDArray[Any]:
        dtype = self.grid.dtype
        slices = [_slice(file, dtype) for file in self.files]
        return np.stack(slices).transpose(2, 1, 0)


def _pydicom() -> ModuleType:
    try:
        import pydicom
    except ImportError:
        raise ConfigurationError(
            "DICOM series need the package pydicom: expected pip install 'chartae[dicom]'"
        ) from None
    return pydicom


def _is_dicom(file: Path) -> bool:
    """Whether a file has the mark of DICOM, tested only if its name can be that of a slice."""
    suffix = file.suffix.lower()  # names may be UIDs, which end in a number
    if not (suffix in _SUFFIXES or suffix[1:].isdecimal()) or not file.is_file():
        return False
    if file.name.startswith((".", "DICOMDIR")):
        return False
    with file.open("rb") as content:
        return content.read(132)[128:] == b"DICM"


def _chosen(folder: Path, series: str | None) -> list[tuple[Path, Any]]:
    """Return the files of one series with their headers."""
    found: dict[str, list[tuple[Path, Any]]] = {}
    for file in filter(_is_dicom, sorted(folder.iterdir())):
        header = _header(file)
        if "DirectoryRecordSequence" not in header:
            found.setdefault(str(header.get("SeriesInstanceUID", "")), []).append((file, header))
    kept = {
        uid: files for uid, files in found.items() if series in (None, uid, *_labels(files[0][1]))
    }
    if len(kept) == 1:
        return next(iter(kept.values()))
    listed = [
        f"{' '.join((*_labels(files[0][1]), uid))} ({len(files)} files)"
        for uid, files in found.items()
    ]
    raise DataError(
        f"{folder} has {len(kept) if series else len(found)} series"
        + (f" that are {series!r} among {some(listed)}" if series else f": {some(listed)}")
        + "; expected one, chosen with the option series by its description, number or UID"
    )


def _labels(header: Any) -> tuple[str, ...]:
    """Return the number and the description of a series, as far as it has them."""
    given = (header.get("SeriesNumber"), header.get("SeriesDescription"))
    return tuple(str(value) for value in given if value not in (None, ""))


def _header(file: Path) -> Any:
    try:
        return _pydicom().dcmread(file, stop_before_pixels=True, specific_tags=list(_USED))
    except ConfigurationError:
        raise
    except Exception as error:  # pydicom raises many types of errors for damaged files
        raise DataError(f"{file} cannot be read as a slice: {error}") from None


def _check_header(file: Path, header: Any) -> None:
    """Raise `DataError` unless a header is that of a grey slice with a place in space."""
    if lacking := [name for name in _NEEDED if header.get(name) is None]:
        raise DataError(f"{file} has no {lacking[0]}: expected slices with a place in space")
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise DataError(
            f"{file} has {header.NumberOfFrames} frames: expected a file for each slice; dcm2niix "
            "converts it to NIfTI"
        )
    if int(header.get("SamplesPerPixel") or 1) > 1:
        raise DataError(f"{file} has colours: expected grey slices")
    if "ModalityLUTSequence" in header:
        raise DataError(f"{file} has a table of values: expected a slope and an intercept")


def _check_one_plane(files: Sequence[Path], headers: Sequence[Any]) -> None:
    """Raise `DataError` unless all slices have the size, the pixels and the direction of one."""
    first = headers[0]
    for file, header in zip(files, headers, strict=True):
        for name in ("Rows", "Columns", "PixelSpacing"):
            if header.get(name) != first.get(name):
                raise DataError(
                    f"{file} has {name} {header.get(name)}, and {files[0]} {first.get(name)}: "
                    "expected slices of one size"
                )
        if np.abs(np.subtract(_directions(header), _directions(first))).max() > TURNED:
            raise DataError(f"{file} is not parallel to {files[0]}: expected parallel slices")


def _position(header: Any) -> NDArray[np.float64]:
    return np.array([float(value) for value in header.ImagePositionPatient])


def _directions(header: Any) -> NDArray[np.float64]:
    """Return the directions of increasing columns, and of increasing rows (2, 3)."""
    return np.array([float(value) for value in header.ImageOrientationPatient]).reshape(2, 3)


def _normal(header: Any) -> NDArray[np.float64]:
    return np.cross(*_directions(header))


def _along_normal(header: Any) -> float:
    return float(_position(header) @ _normal(header))


def _step(first: Any, last: Any, count: int) -> NDArray[np.float64]:
    """Return the vector from one slice to the next."""
    if count > 1:
        return (_position(last) - _position(first)) / (count - 1)
    return _normal(first) * float(first.get("SliceThickness") or 1.0)


def _factors(header: Any) -> tuple[float, float]:
    """Return the slope and the intercept of a slice."""
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    return (
        1.0 if slope is None else float(slope),
        0.0 if intercept is None else float(intercept),
    )


def _is_rescaled(header: Any) -> bool:
    return _factors(header) != (1.0, 0.0)


def _limits(header: Any) -> tuple[int, int]:
    """Return the smallest and the largest stored number that a slice may have."""
    span = 2 ** int(header.BitsStored)
    low = -span // 2 if header.PixelRepresentation else 0
    return low, low + span - 1


def _slice(file: Path, dtype: str) -> NDArray[Any]:
    """Return the values of one slice (rows, columns)."""
    try:
        content = _pydicom().dcmread(file)
        pixels = np.asarray(content.pixel_array)
    except ConfigurationError:
        raise
    except Exception as error:  # pydicom and its decoders raise many types of errors
        reason = "; ".join(line.strip() for line in str(error).splitlines())
        raise DataError(f"{file} cannot be read as a slice: {reason}") from None
    if content.get("PhotometricInterpretation") == "MONOCHROME1":
        pixels = sum(_limits(content)) - pixels.astype(np.int64)
    if dtype == "uint8":
        return pixels.astype(np.uint8)
    slope, intercept = _factors(content)
    return (pixels * slope + intercept).astype(dtype)
