"""The data set class: samples in memory, with labels and a mask of observed entries."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from chartae.checks import check_finite, check_floating, check_shape, check_weight
from chartae.data.arrays import DType, as_tensor, resolve_dtype, scaled
from chartae.data.form import Form, check_precision, read_samples, warn_of_scale
from chartae.data.labels import are_vectors, encode_labels
from chartae.data.ranges import check_normalizable, in_unit_range
from chartae.data.tensors import TensorSet
from chartae.errors import DataError

__all__ = ["ArrayDataset"]

AS_STORED = Form(torch.float32)
"""Default of ``form``: the form of the samples themselves."""


@dataclass(frozen=True, eq=False, repr=False)
class ArrayDataset(TensorSet):
    """Samples ``x``, with optional labels, a mask of observed entries, and weights.

    Args:
        x: ``(N, *input_shape)``, float32 or float64, finite.
        y: (N,) int64, class indices in [0, len(class_names)); or (N, p), the dtype of ``x``,
            vectors that a model takes as conditions.
        mask: bool, the shape of ``x``; True where the entry was observed.
        class_names: one name per class; by default the indices.
        form: the form in which the samples were given; by default that of ``x``.
        weight: (N,), the dtype of ``x``, at least 0 and not all 0: how much each sample counts in
            training, relative to the others.
        names: one name per sample, such as that of its file; empty without names.

        Use `from_arrays` for arrays of other types. It scales the values, names the classes and
        fills unobserved entries.

        Raises:
            DataError: if these are empty or not finite, or do not fit together.

    >>> import torch
    >>> data = ArrayDataset(torch.zeros(3, 8, 8), torch.tensor([0, 1, 1]), class_names=("a", "b"))
    >>> data
    ArrayDataset(3 samples of shape (8, 8), float32; a: 1, b: 2)
    >>> data.of_class("b")
    ArrayDataset(2 samples of shape (8, 8), float32; a: 0, b: 2)
    """

    x: Tensor
    y: Tensor | None = None
    mask: Tensor | None = None
    class_names: tuple[str, ...] = ()
    form: Form = AS_STORED
    weight: Tensor | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_floating("x", self.x)
        if self.form is AS_STORED:
            object.__setattr__(self, "form", Form(self.x.dtype))
        if self.x.ndim < 2 or self.x.numel() == 0:
            raise DataError(
                f"x has shape {tuple(self.x.shape)}: expected (N, *input_shape), "
                "with at least one sample and one feature"
            )
        check_finite("x", self.x)
        if self.mask is not None:
            _check_dtype("mask", self.mask, torch.bool)
            check_shape("mask", self.mask, self.x.shape)
        if self.weight is not None:
            _check_dtype("weight", self.weight, self.x.dtype)
            check_weight("weight", self.weight, len(self))
            if not bool(self.weight.any()):
                raise DataError("weight is 0 for all samples: expected some greater than 0")
        if self.names and len(self.names) != len(self):
            raise DataError(
                f"names are {len(self.names)} for {len(self)} samples: expected one each"
            )
        if self.y is not None and not are_vectors(self.y):
            self._check_labels(self.y)
        elif self.class_names:
            raise DataError(f"class_names={self.class_names} without labels in y: expected both")
        elif self.y is not None:
            _check_dtype("y", self.y, self.x.dtype)
            check_shape("y", self.y, (len(self), "p"))
            check_finite("y", self.y)

    def _check_labels(self, y: Tensor) -> None:
        _check_dtype("y", y, torch.int64)
        check_shape("y", y, (len(self),))
        low, high = int(y.min()), int(y.max())
        if not self.class_names:
            object.__setattr__(self, "class_names", tuple(map(str, range(high + 1))))
        if low < 0 or high >= self.num_classes:
            raise DataError(
                f"y ranges from {low} to {high}: expected class indices from 0 to "
                f"{self.num_classes - 1}, one for each of class_names={self.class_names}"
            )

    @classmethod
    def from_arrays(
        cls,
        x: ArrayLike | Tensor | Sequence[Tensor],
        y: ArrayLike | Tensor | None = None,
        mask: ArrayLike | Tensor | Sequence[Tensor] | None = None,
        *,
        class_names: Sequence[str] | None = None,
        channels_last: bool = False,
        columns: Sequence[str] = (),
        dtype: DType = "default",
        weight: ArrayLike | Tensor | None = None,
    ) -> "ArrayDataset":
        """Return a dataset from arrays, tensors, a DataFrame or lists of equally shaped arrays.

        Scaling depends on the dtype, never on the values: uint8 is divided by 255, booleans become
        0 and 1, float32 and float64 are unchanged. Entries where ``mask`` is False are set to 0;
        they may be NaN in ``x``. A float array that already has the requested ``dtype`` is not
        copied. The dataset records the `form` in which samples were given.

        Args:
            x: ``(N, *input_shape)``; uint8, bool, float32 or float64. In a masked array, entries
                that are not masked are observed. A DataFrame has columns of numbers or booleans,
                which are not scaled, and columns of text or categories, which become one-hot
                features; its missing cells are unobserved.
            y: (N,) integers or strings; see `encode_labels` for how they become class indices. Or
                (N, p) floats: vectors that a model takes as conditions.
            mask: bool, the shape of ``x``; True where the entry was observed.
            class_names: names of the classes, in the order of their indices.
            channels_last: ``x`` is ``(N, *sizes, channels)``; it becomes ``(N, channels, *sizes)``.
            columns: names of the features of vectors; those of a DataFrame are its columns.
            dtype: torch.float32, torch.float64, ``"default"`` for torch's default dtype, or None to
                keep floats as given.
            weight: (N,) numbers, as in the class.

        Raises:
            DataError: for an array that is empty, not finite, or has an unexpected dtype or shape.
            ConfigurationError: for another ``dtype``.

        >>> import numpy as np
        >>> images = np.full((2, 4, 4), 51, dtype=np.uint8)
        >>> data = ArrayDataset.from_arrays(images, y=["ring", "disk"])
        >>> data.x[0, 0, 0].item(), data.y.tolist(), data.class_names
        (0.20000000298023224, [1, 0], ('disk', 'ring'))
        """
        dtype = resolve_dtype(dtype)
        samples = read_samples(x, mask, channels_last=channels_last, columns=columns)
        values, observed = scaled(samples.values, dtype), samples.mask
        if observed is not None:
            values = values.masked_fill(~observed, 0.0)
        warn_of_scale(samples, values)
        check_precision(samples, values)
        labels, names = None, () if class_names is None else tuple(class_names)
        if y is not None and are_vectors(y):
            labels = as_tensor("y", y).to(values)
        elif y is not None:
            labels, names = encode_labels(y, class_names)
            if len(labels) != len(values):
                raise DataError(f"y has {len(labels)} labels for {len(values)} samples in x")
            labels = labels.to(values.device)
        weights = None if weight is None else as_tensor("weight", weight).to(values)
        return cls(values, labels, observed, names, samples.form, weights)

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        return f"ArrayDataset({self})"

    def __str__(self) -> str:
        """The size, the shape and the classes, for people."""
        dtype = str(self.x.dtype).removeprefix("torch.")
        text = f"{len(self)} samples of shape {self.input_shape}, {dtype}"
        if self.class_names and self.y is not None:
            counts = torch.bincount(self.y, minlength=self.num_classes).tolist()
            pairs = zip(self.class_names, counts, strict=True)
            text += "; " + ", ".join(f"{name}: {count}" for name, count in pairs)
        if self.mask is not None:
            text += f"; {self.mask.double().mean():.1%} observed"
        return text

    @property
    def tensors(self) -> dict[str, Tensor]:
        """``x``, and those of ``y``, ``mask`` and ``weight`` that are not None, by name."""
        given = {"x": self.x, "y": self.y, "mask": self.mask, "weight": self.weight}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.x.shape[1:])

    @property
    def fingerprint(self) -> str:
        """A hash of samples, labels, mask, and names of classes and categories."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(repr((tuple(self.x.shape), self.x.dtype, self.class_names)).encode())
        for tensor in (self.x, self.y, self.mask):
            if tensor is not None:
                digest.update(tensor.cpu().contiguous().numpy().tobytes())
        if self.form.column_dtypes:
            digest.update(repr((self.form.column_dtypes, self.form.categories)).encode())
        return digest.hexdigest()

    @property
    def num_classes(self) -> int:
        """The number of classes, including those without a sample here; 0 without labels."""
        return len(self.class_names)

    @property
    def classes(self) -> tuple[int, ...]:
        """The indices of the classes that have samples here."""
        return (
            () if self.y is None or not self.class_names else tuple(torch.unique(self.y).tolist())
        )

    @property
    def metadata(self) -> dict[str, Any]:
        """What is saved with a model trained on the data: their form, and the class names."""
        return {"form": self.form.to_json(), "class_names": list(self.class_names)}

    @property
    def constant_columns(self) -> tuple[str, ...]:
        """The columns of vector samples in which all observed values are equal.

        They are given by name, or by index from 0 if columns have no names.
        """
        if len(self.input_shape) != 1:
            return ()
        low = high = self.x
        if self.mask is not None:
            low, high = (torch.where(self.mask, self.x, end) for end in (torch.inf, -torch.inf))
        constant = self.form.of_columns(low.amin(0) >= high.amax(0)).tolist()
        names = self.form.columns or range(len(constant))
        return tuple(str(name) for name, so in zip(names, constant, strict=True) if so)

    def subset(self, indices: ArrayLike | Tensor) -> Self:
        """Return the dataset of the rows at ``indices``: integers in [0, N), or N booleans.

        The classes keep their indices and names, including those without a sample.

        Raises:
            DataError: if ``indices`` selects nothing, is out of range or of another type.
        """
        rows = self.rows("indices", indices, self.x.device)
        names = tuple(self.names[row] for row in rows.tolist()) if self.names else ()
        tensors: dict[str, Any] = self.batch(rows)
        return replace(self, names=names, **tensors)

    def of_class(self, label: int | str) -> "ArrayDataset":
        """Return the dataset of the samples of one class.

        Args:
            label: the name of the class; a number stands for the class with this name, never for an
                index.

        Raises:
            DataError: if there are no labels, or no sample of that class.
        """
        if self.y is None or not self.class_names:
            raise DataError("y has no labels: expected a dataset with classes")
        present = tuple(self.class_names[c] for c in self.classes)
        if str(label) not in present:
            raise DataError(f"class {label!r} has no sample: expected one of {present}")
        return self.subset(self.y == self.class_names.index(str(label)))

    def with_columns_of(self, form: Form, name: str = "x") -> "ArrayDataset":
        """Return the rows with the columns and categories of another table, in its order.

        Columns are found by their names. Data that are not tables come back unchanged.

        Args:
            form: the form of the other table, such as that of a training set.
            name: what this table is called in messages.

        Raises:
            DataError: if columns are missing or too many, have numbers in place of categories or
                the reverse, or a category that the other table does not have.

        >>> import pandas as pd
        >>> train = ArrayDataset.from_arrays(pd.DataFrame({"sex": ["f", "m"], "age": [61, 58]}))
        >>> test = ArrayDataset.from_arrays(pd.DataFrame({"age": [49], "sex": ["m"]}))
        >>> test.with_columns_of(train.form).x
        tensor([[ 0.,  1., 49.]])
        """
        if not form.column_dtypes or not self.form.column_dtypes:
            return self
        places, firsts = self._places(form, name)
        absent = torch.tensor([place is None for place in places], device=self.x.device)
        x = self.x[:, [place or 0 for place in places]].masked_fill(absent, 0.0)
        mask = None if self.mask is None else self.mask[:, firsts]
        return replace(self, x=x, mask=mask, form=form)

    def _places(self, form: Form, name: str) -> tuple[list[int | None], list[int]]:
        """Return the feature here of each feature of ``form``, and the first one of its column.

        The feature of a category that is not among those here is None.
        """
        own = {column: (start, kind) for column, start, kind in self.form.starts}
        if set(own) != set(form.columns):
            raise DataError(
                f"{name} has the columns {list(self.form.columns)}: expected {list(form.columns)}"
            )
        places: list[int | None] = []
        firsts: list[int] = []
        for column, _, kind in form.starts:
            start, found = own[column]
            if (kind is None) != (found is None):
                texts = ["categories", "numbers"]
                raise DataError(
                    f"{name} has {texts[found is None]} in column {column!r}: expected "
                    f"{texts[kind is None]}"
                )
            if kind is None or found is None:
                places.append(start)
                firsts.append(start)
                continue
            for index, value in enumerate(found.values):
                if value not in kind.values and bool(self.x[:, start + index].any()):
                    raise DataError(
                        f"{name} has {value!r} in column {column!r}: expected one of "
                        f"{', '.join(map(repr, kind.values))}"
                    )
            known = {value: start + index for index, value in enumerate(found.values)}
            places += [known.get(value) for value in kind.values]
            firsts += [start] * len(kind.values)
        return places, firsts

    def normalized(self) -> "ArrayDataset":
        """Return images or volumes scaled to [0, 1], each by its own minimum and maximum.

        So scans of different intensity become comparable, and their intensities are lost: what a
        model generates is in [0, 1] too. The `form` records it. Samples that are scaled already
        come back unchanged.

        Raises:
            DataError: for samples that are vectors, or for one that is constant.

        >>> x = torch.tensor([[[2.0, 4.0], [3.0, 6.0]]])
        >>> ArrayDataset(x).normalized().x
        tensor([[[0.0000, 0.5000],
                 [0.2500, 1.0000]]])
        """
        if self.form.normalized:
            return self
        check_normalizable(self.input_shape)

        def name(row: int) -> str:
            return f"x, row {row}" + (f" ({self.names[row]})" if self.names else "")

        x = in_unit_range(self.x, self.mask, name)
        return replace(self, x=x, form=self.form.of_unit_range())

    def to(
        self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> "ArrayDataset":
        """Return the dataset with ``x`` in another ``dtype``, on another ``device``."""
        moved: dict[str, Any] = {
            name: value.to(dtype=dtype if value.is_floating_point() else None, device=device)
            for name, value in self.tensors.items()
        }
        return replace(self, **moved)


def _check_dtype(name: str, value: Tensor, dtype: torch.dtype) -> None:
    if not isinstance(value, Tensor) or value.dtype != dtype:
        given = getattr(value, "dtype", type(value).__name__)
        raise DataError(f"{name} has dtype {given}: expected a tensor of {dtype}")
