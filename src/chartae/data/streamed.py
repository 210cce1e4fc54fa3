"""Data sets that stay on disk: each batch is read when it is needed."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset

from chartae.checks import check_finite, check_integer
from chartae.data.arrays import DType, as_tensor, resolve_dtype, scaled
from chartae.data.form import Form, check_precision, read_samples, warn_of_scale
from chartae.data.labels import are_vectors, encode_labels
from chartae.data.ranges import check_normalizable, in_unit_range
from chartae.data.space import Space
from chartae.data.tensors import selected_rows
from chartae.errors import DataError

__all__ = ["ArraySource", "FileSource", "Source", "StreamedDataset"]

LOOK = 2**24
"""Number of bytes of samples that are read to look at them, before training."""


class Source(Protocol):
    """Samples outside of memory, all of one shape and dtype."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, *shape)``, with the axes of the source."""
        ...

    @property
    def uses_workers(self) -> bool:
        """Whether reading takes so long that other processes should do it."""
        ...

    def read(self, rows: Sequence[int]) -> NDArray[Any]:
        """Return the samples ``(len(rows), *shape)`` of some rows, not scaled."""
        ...


class ArraySource:
    """The rows of an array, which may be a memory map.

    Args:
        array: ``(N, *shape)``.
    """

    uses_workers = False

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def read(self, rows: Sequence[int]) -> NDArray[Any]:
        return np.asarray(self.array[np.asarray(rows)])


class FileSource:
    """Files with one sample each.

    Args:
        files: the files.
        read_one: reads the sample of a file.
        shape: that of each sample.
        dtype: NumPy's dtype of the samples.
    """

    uses_workers = True

    def __init__(
        self,
        files: Sequence[Path],
        read_one: Callable[[Path], NDArray[Any]],
        shape: Sequence[int],
        dtype: Any,
    ) -> None:
        self.files, self.read_one, self.dtype = files, read_one, np.dtype(dtype)
        self.shape = (len(files), *shape)

    def read(self, rows: Sequence[int]) -> NDArray[Any]:
        samples = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for place, row in enumerate(rows):
            sample = self.read_one(self.files[row])
            if sample.shape != self.shape[1:]:
                raise DataError(
                    f"{self.files[row]} has shape {sample.shape}: expected {self.shape[1:]}, which "
                    "its header gave before; was it replaced?"
                )
            samples[place] = sample
        return samples


@dataclass(frozen=True, eq=False, repr=False)
class StreamedDataset(Dataset[dict[str, Tensor]]):
    """Samples that are read batch by batch; only labels and names are in memory.

    It is a map-style ``Dataset`` of torch, so that `fit` and a ``DataLoader`` take it. Samples are
    scaled as in `ArrayDataset`: bytes are divided by 255, floats are unchanged. All of them are
    observed. Make one with `from_array` or `stream_data`.

    Args:
        source: reads samples by row.
        form: the form in which samples were given.
        dtype: of the samples of a batch, torch.float32 or torch.float64.
        y: (N,) int64, class indices in [0, len(class_names)); or (N, p), vectors that a model takes
            as conditions.
        class_names: one name per class.
        names: one name per sample, such as that of its file; empty without names.
        places: (N,) int64, the rows of the source; None for all rows, in their order.

    >>> data = StreamedDataset.from_array(np.full((3, 4, 4), 51, dtype=np.uint8), ["a", "b", "b"])
    >>> data
    StreamedDataset(3 samples of shape (4, 4), float32; a: 1, b: 2)
    >>> batch = data.batch(torch.tensor([2, 0]))
    >>> batch["x"].shape, batch["x"].max().item(), batch["y"].tolist()
    (torch.Size([2, 4, 4]), 0.20000000298023224, [1, 0])
    """

    source: Source
    form: Form
    dtype: torch.dtype
    y: Tensor | None = None
    class_names: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    places: Tensor | None = None

    @classmethod
    def from_array(
        cls,
        x: NDArray[Any],
        y: ArrayLike | Tensor | None = None,
        *,
        class_names: Sequence[str] | None = None,
        channels_last: bool = False,
        dtype: DType = "default",
    ) -> "StreamedDataset":
        """Return the dataset of a memory map, such as ``numpy.load(file, mmap_mode="r")``.

        Args:
            x: ``(N, *input_shape)``; uint8, bool, float32 or float64.
            y: (N,) integers or strings, or (N, p) floats.
            class_names: as in `ArrayDataset.from_arrays`.
            channels_last: as in `ArrayDataset.from_arrays`.
            dtype: as in `ArrayDataset.from_arrays`.

        Raises:
            DataError: for an array that is empty, or has an unexpected dtype or shape; if the first
                samples are not finite.
            ConfigurationError: for another ``dtype``.
        """
        return cls.from_source(
            ArraySource(x), y, class_names=class_names, channels_last=channels_last, dtype=dtype
        )

    @classmethod
    def from_source(
        cls,
        source: Source,
        y: ArrayLike | Tensor | None = None,
        *,
        class_names: Sequence[str] | None = None,
        channels_last: bool = False,
        dtype: DType = "default",
        names: tuple[str, ...] = (),
        stored: str = "",
        space: Space | None = None,
    ) -> "StreamedDataset":
        """Return the dataset of a source. Its first samples show the form.

        Args:
            source: the samples.
            y: as in `from_array`.
            class_names: as in `from_array`.
            channels_last: as in `from_array`.
            dtype: as in `from_array`.
            names: one name per sample.
            stored: as in `Form`.
            space: as in `Form`.

        Raises:
            DataError: as in `from_array`, or for a file that cannot be read.
            ConfigurationError: for another ``dtype``.
        """
        shape = source.shape
        if len(shape) < 2 or 0 in shape:
            raise DataError(
                f"x has shape {shape}: expected (N, *input_shape), with at least one sample and "
                "one feature"
            )
        first = read_samples(source.read(range(_few(shape))), channels_last=channels_last)
        values = scaled(first.values, resolve_dtype(dtype))
        warn_of_scale(first, values)
        check_precision(first, values)
        labels: Tensor | None = None
        classes = () if class_names is None else tuple(class_names)
        if y is not None and are_vectors(y):
            labels = as_tensor("y", y).to(values.dtype)
            check_finite("y", labels)
        elif y is not None:
            labels, classes = encode_labels(y, class_names)
        if labels is not None and len(labels) != shape[0]:
            raise DataError(f"y has {len(labels)} labels for {shape[0]} samples in x")
        form = replace(first.form, stored=stored, space=space)
        return cls(source, form, values.dtype, labels, classes, names)

    def __len__(self) -> int:
        return self.source.shape[0] if self.places is None else len(self.places)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: tensor[0] for name, tensor in self.batch(torch.tensor([index])).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Return a whole batch: a ``DataLoader`` calls this instead of ``__getitem__``."""
        return self.batch(torch.as_tensor(indices))

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        text = f"{len(self)} samples of shape {self.input_shape}, {dtype}"
        if self.class_names and self.y is not None:
            counts = torch.bincount(self.y, minlength=self.num_classes).tolist()
            pairs = zip(self.class_names, counts, strict=True)
            text += "; " + ", ".join(f"{name}: {count}" for name, count in pairs)
        return f"StreamedDataset({text})"

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        """Read the samples at ``indices``, int64 in [0, N): ``x``, and ``y`` if there are labels.

        Raises:
            DataError: for a file that cannot be read, and for a sample that is not finite. The
                message names the file or the row.
        """
        rows = indices if self.places is None else self.places[indices]
        x = scaled(as_tensor("x", self.source.read(rows.tolist())), self.dtype)
        if self.form.channels_last:
            x = x.movedim(-1, 1).contiguous()
        if self.form.dtype.is_floating_point and not bool(torch.isfinite(x).all()):
            bad = int(torch.isfinite(x).flatten(1).all(1).logical_not().nonzero()[0])
            raise DataError(f"{self._name(int(rows[bad]))} has NaN or infinite values")
        if self.form.normalized:
            x = in_unit_range(x, None, lambda place: self._name(int(rows[place])))
        return {"x": x} if self.y is None else {"x": x, "y": self.y[indices]}

    def batches(self, batch_size: int) -> Iterator[dict[str, Tensor]]:
        """Read all samples in their own order, in batches of at most ``batch_size``.

        >>> data = StreamedDataset.from_array(np.zeros((5, 2), dtype=np.float32))
        >>> [len(batch["x"]) for batch in data.batches(2)]
        [2, 2, 1]
        """
        check_integer("batch_size", batch_size, minimum=1)
        return map(self.batch, torch.arange(len(self)).split(batch_size))

    def subset(self, indices: ArrayLike | Tensor) -> Self:
        """Return the dataset of the samples at ``indices``: integers in [0, N), or N booleans.

        Raises:
            DataError: if ``indices`` selects nothing, is out of range or of another type.
        """
        rows = selected_rows("indices", indices, len(self))
        places = rows if self.places is None else self.places[rows]
        return replace(self, places=places, y=None if self.y is None else self.y[rows])

    def normalized(self) -> "StreamedDataset":
        """Return the samples scaled by their own range, as `ArrayDataset.normalized` does.

        Raises:
            DataError: for samples that are vectors; from `batch`, for a constant sample.
        """
        check_normalizable(self.input_shape)
        return replace(self, form=self.form.of_unit_range())

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample in a batch."""
        shape = self.source.shape[1:]
        return (shape[-1], *shape[:-1]) if self.form.channels_last else shape

    @property
    def num_classes(self) -> int:
        """The number of classes, including those without a sample here; 0 without labels."""
        return len(self.class_names)

    @property
    def metadata(self) -> dict[str, Any]:
        """What is saved with a model trained on the data: their form, and the class names."""
        return {"form": self.form.to_json(), "class_names": list(self.class_names)}

    @property
    def fingerprint(self) -> str:
        """A hash of the number of samples, the labels, and some samples across the whole set."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(repr((len(self), self.input_shape, self.form, self.class_names)).encode())
        if self.y is not None:
            digest.update(self.y.numpy().data)
        rows = torch.linspace(0, len(self) - 1, _few(self.source.shape)).long()
        for row in rows.unique().tolist():
            digest.update(self[row]["x"].numpy().tobytes())
        return digest.hexdigest()

    def _name(self, row: int) -> str:
        """Return what a row of the source is called in messages."""
        return f"x, row {row}" + (f" ({self.names[row]})" if self.names else "")


def _few(shape: Sequence[int]) -> int:
    """Return a number of samples that are fast to read: at most 64, and 16 MiB as floats."""
    return min(shape[0], 64, max(1, LOOK // (4 * int(np.prod(shape[1:])))))
