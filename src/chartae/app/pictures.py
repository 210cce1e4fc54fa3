"""Observations as pictures that a page can show: data URIs of PNG or SVG."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from chartae.report.figures import value_range
from chartae.report.style import ACCENT, FAINT

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Painter", "data_uri", "image_of", "sheet"]

Pixels = NDArray[np.uint8]

ENOUGH = 1000
"""Number of observations that give the scale of pictures."""
GAP = 2
"""Pixels between the pictures of a sheet."""
BARS = 96
"""Height of a picture of a vector."""


@dataclass(frozen=True)
class Painter:
    """Draws observations of one shape on one scale.

    Images are drawn as they are, volumes by the middle slices along their three axes, and vectors
    as bars, or as a curve if they are long.

    Args:
        low: the value that is black, or the lower end of bars.
        high: the value that is white, or the upper end of bars.
    """

    low: float
    high: float

    @classmethod
    def of(cls, x: Tensor) -> "Painter":
        """Return the painter on the scale of observations ``(N, *input_shape)``.

        Of many observations, evenly spaced ones decide.
        """
        few = x[:: max(1, len(x) // ENOUGH)]
        return cls(*value_range([few.detach().cpu().double().numpy()]))

    def pixels(self, observation: Tensor | NDArray[Any]) -> Pixels:
        """Return a picture of an observation, ``(height, width)`` or ``(height, width, 3)``."""
        values = np.asarray(observation, dtype=np.float64)
        if values.ndim == 1:
            return _bars(self._share(values))
        return _joined([self._bytes(image) for image in slices(values)], 1)

    def strip(self, x: Tensor | NDArray[Any], columns: int | None = None) -> str:
        """Return observations ``(n, *input_shape)`` side by side as a data URI, in rows."""
        return data_uri(sheet([self.pixels(one) for one in x], columns or len(x)))

    def uri(self, observation: Tensor | NDArray[Any]) -> str:
        """Return the picture of an observation as a data URI."""
        return data_uri(self.pixels(observation))

    def _share(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        shares: NDArray[np.float64] = (values - self.low) / ((self.high - self.low) or 1.0)
        return shares.clip(0.0, 1.0)

    def _bytes(self, image: NDArray[np.float64]) -> Pixels:
        return np.rint(255.0 * self._share(image)).astype(np.uint8)


def slices(observation: NDArray[Any]) -> list[NDArray[Any]]:
    """Return an image ``(H, W)`` or ``(H, W, 3)``, or the three middle slices of a volume.

    >>> [image.shape for image in slices(np.zeros((1, 4, 5, 6)))]
    [(5, 6), (4, 6), (4, 5)]
    """
    if observation.ndim == 2:
        return [observation]
    if observation.ndim == 3:
        if observation.shape[0] == 3:
            return [np.moveaxis(observation, 0, -1)]
        return [observation[0]]
    volume = observation[0]
    return [np.take(volume, volume.shape[axis] // 2, axis) for axis in range(3)]


def _bars(shares: NDArray[np.float64]) -> Pixels:
    """Return bars of the heights of ``shares``, each in [0, 1]."""
    width = max(2, 192 // len(shares))
    tops = np.rint((1.0 - shares) * (BARS - 2)).astype(int)
    inside = np.arange(BARS)[:, None] >= np.repeat(tops, width)[None]
    inside[:, width - 1 :: width] &= width < 4  # a gap between bars that are wide enough
    ink, paper = (np.array(_rgb(color), dtype=np.uint8) for color in (ACCENT, "#ffffff"))
    picture: Pixels = np.where(inside[..., None], ink, paper)
    picture[-1] = _rgb(FAINT)
    return picture


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def sheet(pictures: Sequence[Pixels], columns: int) -> Pixels:
    """Return pictures of one shape in rows of ``columns``, with white gaps.

    >>> sheet([np.zeros((3, 4), np.uint8)] * 5, 3).shape
    (8, 16)
    """
    blank = np.full_like(pictures[0], 255)
    missing = -len(pictures) % columns
    filled = [*pictures, *[blank] * missing]
    rows = [_joined(filled[k : k + columns], 1) for k in range(0, len(filled), columns)]
    return _joined(rows, 0)


def _joined(pictures: Sequence[Pixels], axis: int) -> Pixels:
    """Return pictures side by side (axis 1) or one below the other (axis 0)."""
    if len(pictures) == 1:
        return pictures[0]
    across = 1 - axis
    size = max(picture.shape[across] for picture in pictures)
    parts: list[Pixels] = []
    for picture in pictures:
        short = [(0, 0)] * picture.ndim
        short[across] = (0, size - picture.shape[across])
        padded = np.pad(picture, short, constant_values=255)
        gap = list(padded.shape)
        gap[axis] = GAP
        parts += [padded, np.full(gap, 255, dtype=np.uint8)]
    return np.concatenate(parts[:-1], axis)


def image_of(pixels: Pixels) -> "Image":
    """Return pixels as an image of Pillow."""
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(pixels))


def data_uri(pixels: Pixels, *, small: bool = False) -> str:
    """Return a picture as a PNG in a data URI.

    Args:
        pixels: the picture.
        small: whether it is to be small, for a file; or made at once, for many.
    """
    buffer = io.BytesIO()
    image_of(pixels).save(buffer, format="png", compress_level=9 if small else 1)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
