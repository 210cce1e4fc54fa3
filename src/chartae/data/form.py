"""The form in which samples were given, so that results have the same form."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from chartae.checks import check_shape
from chartae.data.arrays import as_tensor, restored
from chartae.data.columns import Categories, column_features, restored_cells, restored_column
from chartae.data.space import Space
from chartae.errors import DataError

__all__ = [
    "Container",
    "Form",
    "Samples",
    "check_precision",
    "is_frame",
    "read_samples",
    "warn_of_scale",
]

logger = logging.getLogger(__name__)

Container = Literal["tensor", "array", "frame", "table"]

_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.uint8, torch.bool, torch.float32, torch.float64)
}
# Rounding below this share of a feature's standard deviation loses no information.
_HARMLESS = 0.05
# float64 values whose relative difference is smaller than this differ only by rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Form:
    """The dtype, layout and container in which samples were given.

    Args:
        dtype: torch.uint8, torch.bool, torch.float32 or torch.float64.
        container: a tensor, a NumPy array, a pandas DataFrame, or a table of a text file, which is
            restored as an array of its cells.
        channels_last: whether the channels, the first axis of a sample in a dataset, were its last
            axis.
        columns: the names of the columns of a table; empty otherwise.
        column_dtypes: for a DataFrame, the names of its columns' dtypes; for a table, ``"int64"``,
            ``"float64"`` or ``"text"``.
        categories: for a DataFrame or a table with categories, those of each column; None for a
            column of numbers. The features of a column with K categories are one-hot, K features.
        label: the name of the column of labels of a table; empty otherwise.
        stored: NumPy's name of the dtype of pixels or voxels in files, such as ``"uint16"``; empty
            for samples that were not read from images or volumes.
        space: where the voxels of volumes are; None for other samples.
        normalized: whether each sample was scaled to [0, 1] by its own minimum and maximum. Results
            stay in [0, 1], as those of a new sample are not known.

    >>> Form(torch.uint8, "array").restore(torch.tensor([[0.2, 1.0]]))
    array([[ 51, 255]], dtype=uint8)
    """

    dtype: torch.dtype
    container: Container = "tensor"
    channels_last: bool = False
    columns: tuple[str | int, ...] = ()
    column_dtypes: tuple[str, ...] = ()
    label: str = ""
    categories: tuple[Categories | None, ...] = ()
    stored: str = ""
    space: Space | None = None
    normalized: bool = False

    @property
    def widths(self) -> tuple[int, ...]:
        """The number of features of each column of a table."""
        if not self.categories:
            return (1,) * len(self.columns)
        return tuple(1 if kind is None else len(kind.values) for kind in self.categories)

    @property
    def starts(self) -> tuple[tuple[str | int, int, Categories | None], ...]:
        """The name, the first feature and the categories of each column of a table."""
        places = np.cumsum([0, *self.widths])[:-1].tolist()
        kinds = self.categories or (None,) * len(self.columns)
        return tuple(zip(self.columns, places, kinds, strict=True))

    @property
    def feature_names(self) -> tuple[str | int, ...]:
        """The name of the column of each feature of a table; empty without names."""
        pairs = zip(self.columns, self.widths, strict=True)
        return tuple(name for name, width in pairs for _ in range(width))

    def of_columns(self, flags: Tensor) -> Tensor:
        """Return boolean flags of features ``(..., D)`` as flags of columns ``(..., columns)``.

        The flag of a column is True if it is True for all features of the column.
        """
        if not self.categories:
            return flags
        return torch.stack([part.all(-1) for part in flags.split(list(self.widths), -1)], -1)

    def restore(self, x: Tensor) -> Any:
        """Return samples ``(N, *input_shape)`` of a dataset or a model in this form.

        Bytes are rounded and clipped to [0, 255]; booleans are True for values of at least 0.5.
        Columns of integers are rounded and clipped to the range of their dtype. A cell with a
        category has the one with the largest of its features.
        """
        x = restored(x.detach(), self.dtype)
        if self.channels_last:
            x = x.movedim(1, -1).contiguous()
        if self.container == "tensor":
            return x
        if self.container == "array":
            return x.cpu().numpy()
        columns = self._columns(x)
        if self.container == "frame":
            from pandas import DataFrame

            frame = DataFrame(dict(enumerate(columns)))
            frame.columns = list(self.columns)
            return frame
        cells = [column.astype(object) for column in columns] if self.categories else columns
        return np.stack(cells, 1)

    def cells(self, x: Tensor) -> list[NDArray[Any]]:
        """Return the cells ``(N,)`` of each column of vectors ``(N, D)`` in this form."""
        x = restored(x.detach(), self.dtype)
        if self.column_dtypes:
            return [np.asarray(column) for column in self._columns(x)]
        return list(x.cpu().numpy().T)

    def _columns(self, x: Tensor) -> list[Any]:
        """Return the columns of a DataFrame as pandas Series; those of a table as arrays."""
        parts = np.split(x.cpu().numpy(), np.cumsum(self.widths)[:-1], axis=1)
        kinds = self.categories or (None,) * len(parts)
        restore = restored_column if self.container == "frame" else restored_cells
        return list(map(restore, parts, self.column_dtypes, kinds))

    def of_unit_range(self) -> Self:
        """Return the form of these samples, each scaled to [0, 1] by its own range.

        Files of integers that are not scaled to [0, 1] by their own type become files of floats.
        """
        stored, space = self.stored, self.space
        if space is not None and self.dtype != torch.uint8:
            stored = stored if np.dtype(stored).kind == "f" else "float32"
            space = replace(space, rescaled=False)
        return replace(self, stored=stored, space=space, normalized=True)

    def to_json(self) -> dict[str, Any]:
        """Return the form as JSON values."""
        return {
            **vars(self),
            "dtype": str(self.dtype).removeprefix("torch."),
            "categories": [kind and kind.to_json() for kind in self.categories],
            "space": None if self.space is None else asdict(self.space),
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        """Return the form from the JSON values of `to_json`.

        Raises:
            DataError: for another record.
        """
        try:
            fields: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in record.items()
            }
            fields["categories"] = tuple(map(Categories.from_json, fields.get("categories", ())))
            space = None if fields.get("space") is None else Space.from_json(fields["space"])
            return cls(**{**fields, "dtype": _DTYPES[fields["dtype"]], "space": space})
        except (AttributeError, KeyError, TypeError):
            raise DataError(f"form={record!r}: expected the result of Form.to_json") from None


class Samples(NamedTuple):
    """Samples as tensors, not yet scaled, with the form in which they were given."""

    values: Tensor
    mask: Tensor | None
    form: Form


def read_samples(
    x: Any,
    mask: ArrayLike | Tensor | Sequence[Tensor] | None = None,
    *,
    channels_last: bool = False,
    columns: Sequence[str] = (),
) -> Samples:
    """Return samples with channels first, and the mask of their observed entries.

    Args:
        x: an array, a tensor, a list of these or a DataFrame, as in `ArrayDataset.from_arrays`.
        mask: bool, the shape of ``x``.
        channels_last: whether the last axis of ``x`` holds the channels.
        columns: names of the features of samples that are vectors.

    Raises:
        DataError: if ``x`` is not one array of numbers, if the mask or the names do not fit, or if
            there are two masks.
    """
    container: Container = "tensor" if _is_tensors(x) else "array"
    column_dtypes: tuple[str, ...] = ()
    categories: tuple[Categories | None, ...] = ()
    if is_frame(x):
        container, columns = "frame", tuple(x.columns)
        # Samples of a sparse column are dense.
        column_dtypes = tuple(str(getattr(dtype, "subtype", dtype)) for dtype in x.dtypes)
        x, categories = _from_frame(x)
    if isinstance(x, np.ma.MaskedArray):
        hidden = np.ma.getmaskarray(x)
        if hidden.any():
            if mask is not None:
                raise DataError("x has a mask of its own, and mask is given: expected one of them")
            mask = ~hidden
        x = x.filled(0)
    values = as_tensor("x", x)
    observed = None if mask is None else as_tensor("mask", mask)
    if observed is not None:
        if observed.dtype != torch.bool:
            raise DataError(f"mask has dtype {observed.dtype}: expected booleans")
        check_shape("mask", observed, values.shape)
    if columns and not column_dtypes and values.shape[1:] != (len(columns),):
        raise DataError(
            f"columns={tuple(columns)}: expected a name for each feature of x, which has shape "
            f"{tuple(values.shape)}"
        )
    form = Form(
        values.dtype,
        container,
        channels_last,
        tuple(columns),
        column_dtypes,
        categories=categories if any(categories) else (),
    )
    if channels_last:
        if values.ndim < 3:
            raise DataError(
                f"x has shape {tuple(values.shape)}: expected (N, *sizes, channels) with "
                "channels_last"
            )
        values = values.movedim(-1, 1)
        observed = None if observed is None else observed.movedim(-1, 1)
    elif values.ndim == 4 and values.shape[-1] in (1, 3) and values.shape[1] not in (1, 3):
        logger.warning(
            "x has shape %s, which is read as %d channels of %d x %d; if the channels are its last "
            "axis, give channels_last",
            tuple(values.shape),
            *values.shape[1:],
        )
    return Samples(values, observed, form)


def warn_of_scale(samples: Samples, values: Tensor) -> None:
    """Warn if floats look like images of bytes, because models expect images in [0, 1].

    Images look so if their values are whole numbers up to 255, or reach the upper half of this
    range. Vectors may have any values; they look so only if they are whole numbers from 0 to
    exactly 255.
    """
    if not samples.values.is_floating_point() or not values.numel():
        return
    low, high = (float(v) for v in values.aminmax())
    if low < 0.0 or not 1.0 < high <= 255.0:
        return
    if values.ndim > 2:
        looks_so = high > 127.0 or _are_whole(values)
    else:
        looks_so = low == 0.0 and high == 255.0 and _are_whole(values)
    if looks_so:
        logger.warning(
            "x ranges from %g to %g: floats are not scaled; if these are images of 8 bits, "
            "divide them by 255 or give them as uint8",
            low,
            high,
        )


def check_precision(samples: Samples, values: Tensor) -> None:
    """Raise `DataError` if float32 has too little precision for float64 samples.

    This is so if rounding changes a feature by more than a twentieth of its standard deviation, as
    for times within a few minutes, given in seconds since 1970. A feature that is constant up to
    float64 rounding loses nothing.
    """
    exact = samples.values
    if exact.dtype != torch.float64 or values.dtype != torch.float32 or not values.numel():
        return
    moved = (exact - values).abs()
    if samples.mask is not None:
        moved = moved.where(samples.mask, 0.0)
        count = samples.mask.sum(0).clamp(min=1)
        mean = exact.where(samples.mask, 0.0).sum(0) / count
        exact = exact.where(samples.mask, mean)
    size, spread = exact.abs().amax(0), exact.amax(0) - exact.amin(0)
    lost = moved.amax(0) > _HARMLESS * exact.std(0, correction=0)
    # Underflow to zero and overflow do not count as a loss of precision.
    lost &= (spread > _ROUNDING * size) & (size > 1e-30) & values.isfinite().all(0)
    if values.ndim > 1 and bool(lost.any()):
        place = tuple(lost.nonzero()[0].tolist())
        names = samples.form.feature_names
        name = repr(names[place[0]]) if names and len(place) == 1 else f"{place}"
        raise DataError(
            f"x has values in its feature {name} that differ by less than float32 resolves: "
            "subtract an offset from them, or use dtype=torch.float64"
        )


def _are_whole(values: Tensor) -> bool:
    return bool((values == values.round()).all())


def _is_tensors(x: object) -> bool:
    if isinstance(x, (list, tuple)):
        return bool(x) and all(isinstance(item, Tensor) for item in x)
    return isinstance(x, Tensor)


def is_frame(x: object) -> bool:
    """Whether x is a pandas DataFrame, tested without importing pandas."""
    return hasattr(x, "columns") and hasattr(x, "dtypes") and hasattr(x, "to_numpy")


def _from_frame(frame: Any) -> tuple[Any, tuple[Categories | None, ...]]:
    """Return the features of a DataFrame, masked where a cell is missing, and their categories."""
    for name in frame.columns:
        if not isinstance(name, (str, int)):
            raise DataError(f"x has a column {name!r}: expected names that are text or integers")
    if len(set(frame.columns)) < frame.shape[1]:
        raise DataError(f"x has columns {list(frame.columns)}: expected names that differ")
    if frame.shape[1] == 0:
        return frame.to_numpy(dtype=np.float64), ()
    parts, categories = zip(*(column_features(column) for _, column in frame.items()), strict=True)
    values = np.concatenate(parts, 1)
    return np.ma.masked_array(values, np.isnan(values)), categories
