"""Where the voxels of volumes are, so that a viewer shows results in the place of the input."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Grid", "Space", "cropped_at"]

Affine = tuple[tuple[float, ...], ...]
_IDENTITY: Affine = tuple(tuple(float(i == j) for j in range(4)) for i in range(4))


@dataclass(frozen=True)
class Space:
    """The grid of volumes in space, as the header of a NIfTI file gives it.

    Args:
        affine: 4 rows of 4 numbers: the matrix from indices of voxels (i, j, k, 1) to coordinates.
            Its first three columns have the sizes of a voxel (the zooms) as lengths.
        unit: the unit of coordinates, ``"mm"``, ``"meter"``, ``"micron"`` or ``"unknown"``.
        qform: code of the coordinate system of a rigid transformation (the NIfTI standard).
        sform: code of the coordinate system of the affine transformation.
        rescaled: whether files store integers that a factor of their own converts to values.

    >>> Space(((2.0, 0, 0, 0), (0, 2.0, 0, 0), (0, 0, 3.0, 0), (0, 0, 0, 1))).zooms
    (2.0, 2.0, 3.0)
    """

    affine: Affine = _IDENTITY
    unit: str = "mm"
    qform: int = 0
    sform: int = 2
    rescaled: bool = False

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        """Return the space from the JSON values of its fields."""
        return cls(**{**record, "affine": _rows(np.asarray(record["affine"], dtype=float))})

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The affine as an array (4, 4)."""
        return np.asarray(self.affine, dtype=float)

    @property
    def zooms(self) -> tuple[float, float, float]:
        """The sizes of a voxel along the three axes of the array, in `unit`."""
        first, second, third = np.linalg.norm(self.matrix[:3, :3], axis=0).tolist()
        return first, second, third

    def moved(self, offset: Sequence[int]) -> Self:
        """Return the space of a part of the grid that starts at a voxel."""
        return self._from(np.eye(3), np.asarray(offset, dtype=float))

    def scaled(self, before: Sequence[int], after: Sequence[int]) -> Self:
        """Return the space of a grid of another size that covers the same field of view."""
        factor = np.asarray(before) / np.asarray(after)
        # Borders of the field stay where they are: half a voxel outside the centres.
        return self._from(np.diag(factor), (factor - 1.0) / 2.0)

    def distance(self, other: "Space", shape: Sequence[int]) -> float:
        """Return how far corners of a grid in this space are from those in another, in voxels."""
        corners = np.array([(*c, 1.0) for c in product(*((0.0, n - 1.0) for n in shape))])
        moved = (corners @ (self.matrix - other.matrix).T)[:, :3]
        return float(np.linalg.norm(moved, axis=1).max() / min(self.zooms))

    def _from(self, scale: NDArray[np.float64], shift: NDArray[np.float64]) -> Self:
        """Return the space of indices that ``scale`` and ``shift`` map to those of this one."""
        to_old = np.eye(4)
        to_old[:3, :3], to_old[:3, 3] = scale, shift
        return replace(self, affine=_rows(self.matrix @ to_old))


class Grid(NamedTuple):
    """What the header of a volume says of its voxels.

    Attributes:
        shape: (D, H, W).
        dtype: NumPy's name of the dtype of values: ``"uint8"``, ``"float32"`` or ``"float64"``.
        space: where the voxels are.
        stored: NumPy's name of the dtype in the file.
    """

    shape: tuple[int, ...]
    dtype: str
    space: Space
    stored: str

    def fitted(self, resize: Sequence[int] | None, crop: Sequence[int] | None) -> "Grid":
        """Return the grid of the volume cut to ``crop``, then resampled to ``resize``.

        Raises:
            ValueError: if it is smaller than ``crop``.
        """
        shape, space = self.shape, self.space
        if crop is not None:
            if any(want > have for want, have in zip(crop, shape, strict=True)):
                given, wanted = (" x ".join(map(str, sizes)) for sizes in (shape, crop))
                raise ValueError(f"it is {given}, smaller than crop, {wanted}")
            space, shape = space.moved(cropped_at(shape, crop)), tuple(crop)
        if resize is not None:
            space, shape = space.scaled(shape, resize), tuple(resize)
        return self._replace(shape=shape, space=space)


def cropped_at(shape: Sequence[int], crop: Sequence[int]) -> list[int]:
    """Return where the middle part of a volume starts."""
    return [(have - want) // 2 for want, have in zip(crop, shape, strict=True)]


def _rows(matrix: NDArray[np.float64]) -> Affine:
    return tuple(tuple(row) for row in matrix.tolist())
