"""`Sequences`: individuals seen at several visits, at irregular times, with holes."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from chartae.checks import check_finite, check_integer, check_number, check_shape
from chartae.data.arrays import DType, as_tensor, resolve_dtype, scaled
from chartae.data.form import Form, read_samples
from chartae.data.labels import encode_labels
from chartae.data.tensors import TensorSet
from chartae.errors import ConfigurationError, DataError
from chartae.randomness import make_generator

__all__ = ["Sequences"]

logger = logging.getLogger(__name__)

SHOWN = 5
"""How many offenders a message names."""


class Sequences(TensorSet):
    """Individuals seen at several visits: images, volumes or vectors of scores, with their times.

    Individuals may have different numbers of visits, at any real times. A visit is *observed*, or
    it is only a time at which a value is wanted. Inside an observed visit, a mask says which
    features were observed. Values that were not observed have no influence anywhere.

    The visits of each individual are sorted by time. Entries of ``times`` that are NaN are padding,
    and come last.

    Args:
        x: ``(N, T, *input_shape)``: N individuals with up to T visits each; uint8 (divided by 255),
            bool, float32 or float64. Entries that were not observed may be NaN.
        times: ``(N, T)``, or ``(T,)`` for all individuals alike; finite where a visit is observed.
            In any unit.
        observed: ``(N, T)`` bool, True where a visit was observed; None means all visits with a
            time.
        mask: bool, the shape of ``x``, True where a feature was observed.
        covariates: ``(N,)`` integers or strings, classes such as treatment or sex; or ``(N, p)``
            floats. They are the conditions of a model that has ``conditions``.
        ids: N names of the individuals, all different; by default their numbers.
        class_names: names of the classes of the covariates, in the order of their indices.
        channels_last: ``x`` is ``(N, T, *sizes, channels)``.
        columns: names of the features of vectors.
        dtype: as in `ArrayDataset.from_arrays`.

    Attributes:
        x: ``(N, T, *input_shape)`` floats, with channels first, 0 where not observed.
        times: ``(N, T)`` float64; in padding the last time of the individual.
        observed: ``(N, T)`` bool.
        mask: as ``x``, bool, False at visits that were not observed; None if all features of
            observed visits were observed.
        y: the covariates: ``(N,)`` int64, ``(N, p)`` floats, or None.
        padding: ``(N, T)`` bool, True where there is no visit.

    Raises:
        DataError: for an individual without an observed visit, with duplicate times or with a time
            that is not finite; for values that are not finite where observed; for shapes that do
            not fit. Messages name the individuals.

    >>> import numpy as np
    >>> scores = np.array([[[1.0], [2.0], [4.0]], [[0.0], [1.0], [np.nan]]])
    >>> times = [[0.0, 1.0, 3.0], [0.5, 2.5, np.nan]]
    >>> data = Sequences(scores, times=times, ids=["anna", "bo"])
    >>> data
    Sequences(2 individuals, 5 visits of shape (1,), float32; 2 to 3 visits each)
    >>> data.subset([1]).x[0, :2, 0].tolist()
    [0.0, 1.0]
    """

    def __init__(
        self,
        x: ArrayLike | Tensor,
        *,
        times: ArrayLike | Tensor,
        observed: ArrayLike | Tensor | None = None,
        mask: ArrayLike | Tensor | None = None,
        covariates: ArrayLike | Tensor | None = None,
        ids: Sequence[Any] | None = None,
        class_names: Sequence[str] | None = None,
        channels_last: bool = False,
        columns: Sequence[str] = (),
        dtype: DType = "default",
    ) -> None:
        values, features, form = _read(x, mask, channels_last, tuple(columns))
        count, visits = values.shape[:2]
        self.ids = _names(ids, count)
        when = _times(times, count, visits)
        seen = _flags("observed", observed, (count, visits))
        padding = when.isnan()
        seen = ~padding if seen is None else seen.to(when.device)
        self._refuse("observed at a time that is not finite", seen & ~when.isfinite())
        if features is not None:
            features = features & seen.reshape(*seen.shape, *[1] * (values.ndim - 2))
            seen = features.flatten(2).any(-1)
            if bool((features.flatten(2).all(-1) == seen).all()):
                features = None
        self._refuse("without an observed visit", ~seen.any(1))
        order = torch.where(padding, torch.inf, when).argsort(stable=True, dim=1)
        if bool((when.diff(dim=1) < 0.0).any()):
            logger.info("visits were not in the order of their times: they have been sorted")
        values, when, seen, padding = (
            tensor.gather(1, _like(order, tensor)) for tensor in (values, when, seen, padding)
        )
        if features is not None:
            features = features.gather(1, _like(order, features))
        self._refuse("with two visits at one time", (when.diff(dim=1) == 0.0).any(1))
        known = _like(seen, values) if features is None else features
        floats = scaled(values, resolve_dtype(dtype))
        self._refuse_values(floats, known)
        self.x = torch.where(known, floats, 0.0)
        last = torch.where(padding, -torch.inf, when).amax(1, keepdim=True)
        self.times = torch.where(padding, last, when)
        self.observed, self.mask, self.padding, self.form = seen, features, padding, form
        self.y, self.class_names = _covariates(covariates, class_names, self.x)
        super().__init__(**self.tensors)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """``x``, ``times``, ``observed``, and ``mask`` and ``y`` if they are not None, by name."""
        given = {
            "x": self.x,
            "times": self.times,
            "observed": self.observed,
            "mask": self.mask,
            "y": self.y,
        }
        return {name: value for name, value in given.items() if value is not None}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one visit."""
        return tuple(self.x.shape[2:])

    @property
    def num_visits(self) -> Tensor:
        """The number of observed visits of each individual, ``(N,)``."""
        return self.observed.sum(1)

    @property
    def num_classes(self) -> int:
        """The number of classes of the covariates; 0 if they are not classes."""
        return len(self.class_names)

    @property
    def metadata(self) -> dict[str, Any]:
        """What is saved with a model trained on the data: their form, and the class names."""
        return {"form": self.form.to_json(), "class_names": list(self.class_names)}

    def __repr__(self) -> str:
        low, high = int(self.num_visits.min()), int(self.num_visits.max())
        each = f"{low} visits" if low == high else f"{low} to {high} visits"
        text = (
            f"{len(self)} individuals, {int(self.num_visits.sum())} visits of shape "
            f"{self.input_shape}, {str(self.x.dtype).removeprefix('torch.')}; {each} each"
        )
        if self.mask is not None:
            share = self.mask.sum() / (self.num_visits.sum() * self.x[0, 0].numel())
            text += f"; {share:.1%} of their features observed"
        return f"Sequences({text})"

    # --- other sequences from these ---------------------------------------------------------------

    def subset(self, indices: ArrayLike | Tensor) -> "Sequences":
        """Return the individuals at ``indices``: integers in [0, N), or N booleans.

        Raises:
            DataError: if ``indices`` selects nothing, is out of range or of another type.
        """
        rows = as_tensor("indices", indices).to(self.x.device)
        if rows.dtype == torch.bool:
            check_shape("indices", rows, (len(self),))
            rows = rows.nonzero().squeeze(1)
        check_shape("indices", rows, ("n",))
        if rows.numel() == 0:
            raise DataError("indices selects no individual: expected at least one")
        if rows.is_floating_point() or rows.is_complex():
            raise DataError(f"indices has dtype {rows.dtype}: expected integers or booleans")
        low, high = int(rows.min()), int(rows.max())
        if low < -len(self) or high >= len(self):
            raise DataError(f"indices ranges from {low} to {high}: expected 0 to {len(self) - 1}")
        return self._with(rows=rows.long())

    def split(
        self, sizes: Sequence[float] | Sequence[int], *, seed: int = 0
    ) -> tuple["Sequences", ...]:
        """Return disjoint sets of individuals, drawn at random. All visits of one stay together.

        Args:
            sizes: numbers of individuals, or fractions of N.
            seed: the same seed gives the same sets.

        Raises:
            ConfigurationError: if the sizes are not possible.
        """
        from chartae.data.splits import stratified_split

        parts = stratified_split([0] * len(self), sizes, seed=seed)
        return tuple(self.subset(part) for part in parts)

    def first(self, visits: int) -> "Sequences":
        """Return the individuals with only their first observed visits observed.

        The later visits keep their times, so that they can be imputed.

        Args:
            visits: how many visits stay observed, at least 1.
        """
        visits = check_integer("visits", visits, minimum=1)
        return self._with(observed=self.observed & (self.observed.cumsum(1) <= visits))

    def hidden(self, *, visits: float = 0.0, features: float = 0.0, seed: int = 0) -> "Sequences":
        """Return the individuals with some of what was observed hidden at random.

        Args:
            visits: share of each individual's observed visits, in [0, 1); at least one visit of
                each stays.
            features: share of the observed features of visits, in [0, 1).
            seed: the same seed hides the same.
        """
        check_number("visits", visits, minimum=0.0, below=1.0)
        check_number("features", features, minimum=0.0, below=1.0)
        generator = make_generator(check_integer("seed", seed, minimum=0), "hidden")
        rank = torch.rand(self.observed.shape, generator=generator).to(self.x.device)
        rank = torch.where(self.observed, rank, torch.inf).argsort(1).argsort(1)
        kept = (self.num_visits - (visits * self.num_visits).round()).clamp(min=1)
        observed = self.observed & (rank < kept[:, None])
        mask = self.mask
        if features > 0.0:
            drawn = torch.rand(self.x.shape, generator=generator).to(self.x.device) >= features
            mask = drawn if mask is None else drawn & mask
        return self._with(observed=observed, mask=mask)

    def at(self, times: ArrayLike | Tensor) -> "Sequences":
        """Return the individuals with further visits, not observed, at the given times.

        Times at which an individual already has a visit add nothing to it.

        Args:
            times: ``(K,)`` for all individuals, or ``(N, K)``.
        """
        added = _times(times, len(self), as_tensor("times", times).shape[-1]).to(self.x.device)
        present = added[:, :, None] == torch.where(self.padding, torch.nan, self.times)[:, None]
        added = torch.where(present.any(-1), torch.nan, added)
        own = torch.where(self.padding, torch.nan, self.times)
        empty = self.x.new_zeros(len(self), added.shape[1], *self.input_shape)
        mask = self.mask
        if mask is not None:
            mask = torch.cat([mask, torch.zeros_like(empty, dtype=torch.bool)], 1)
        unseen = torch.zeros_like(added, dtype=torch.bool)
        return self._like(
            torch.cat([self.x, empty], 1),
            times=torch.cat([own, added], 1),
            observed=torch.cat([self.observed, unseen], 1),
            mask=mask,
        )

    def to(
        self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> "Sequences":
        """Return the sequences with ``x`` in another ``dtype``, on another ``device``."""
        new = self._with()
        for name, value in self.tensors.items():
            floats = name == "x" or (name == "y" and value.is_floating_point())
            setattr(new, name, value.to(device=device, dtype=dtype if floats else None))
        new.padding = self.padding.to(device=device)
        return new

    def _with(
        self,
        *,
        rows: Tensor | None = None,
        observed: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> "Sequences":
        """Return some individuals, or all with other observed entries."""
        pick = torch.arange(len(self), device=self.x.device) if rows is None else rows
        ids = None if rows is not None and len(rows.unique()) < len(rows) else self.ids
        mask = self.mask if mask is None else mask
        return self._like(
            self.x[pick],
            times=torch.where(self.padding, torch.nan, self.times)[pick],
            observed=(self.observed if observed is None else observed)[pick],
            mask=None if mask is None else mask[pick],
            y=None if self.y is None else self.y[pick],
            ids=None if ids is None else [ids[row] for row in pick.tolist()],
        )

    def _like(
        self,
        x: Tensor,
        *,
        times: Tensor,
        observed: Tensor,
        mask: Tensor | None,
        y: Tensor | None = None,
        ids: Sequence[str] | None = None,
    ) -> "Sequences":
        new = Sequences(
            x,
            times=times,
            observed=observed,
            mask=mask,
            ids=self.ids if ids is None and len(x) == len(self) else ids,
            dtype=None,
        )
        new.y = self.y if y is None and len(x) == len(self) else y
        new.form, new.class_names = self.form, self.class_names
        return new

    def _refuse(self, what: str, bad: Tensor) -> None:
        """Raise `DataError` that names the individuals with any True in ``bad``."""
        rows = bad.reshape(len(bad), -1).any(1).nonzero()[:, 0].tolist()
        if rows:
            shown = ", ".join(repr(self.ids[row]) for row in rows[:SHOWN])
            more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
            raise DataError(f"individuals {what}: {shown}{more}")

    def _refuse_values(self, x: Tensor, known: Tensor) -> None:
        bad = known & ~x.isfinite()
        if bool(bad.any()):
            self._refuse(
                "with NaN or infinite values where observed (give mask=, False at these)", bad
            )


def _read(
    x: Any, mask: Any, channels_last: bool, columns: tuple[str, ...]
) -> tuple[Tensor, Tensor | None, Form]:
    """Return values and mask ``(N, T, *input_shape)``, not scaled, and the form of one visit."""
    values = x if isinstance(x, Tensor) else as_tensor("x", x)
    shape = tuple(values.shape)
    if values.ndim < 3 or values.numel() == 0:
        raise DataError(
            f"x has shape {shape}: expected (N, T, *input_shape), with at least one individual, "
            "one visit and one feature"
        )
    frames = values.detach().flatten(0, 1)
    samples = read_samples(
        frames if isinstance(x, Tensor) else frames.numpy(),
        None if mask is None else _flags("mask", mask, shape).flatten(0, 1),
        channels_last=channels_last,
        columns=columns,
    )
    unflat = [None if t is None else t.unflatten(0, shape[:2]) for t in samples[:2]]
    assert unflat[0] is not None
    return unflat[0], unflat[1], samples.form


def _flags(name: str, value: Any, shape: Sequence[int]) -> Any:
    if value is None:
        return None
    flags = as_tensor(name, value)
    if flags.dtype != torch.bool:
        raise DataError(f"{name} has dtype {flags.dtype}: expected booleans")
    check_shape(name, flags, shape)
    return flags


def _times(times: Any, count: int, visits: int) -> Tensor:
    """Return the times as ``(N, T)`` float64."""
    given = as_tensor("times", times)
    if given.dtype == torch.bool or given.is_complex():
        raise DataError(f"times has dtype {given.dtype}: expected numbers")
    when = given.double()
    if when.ndim == 1:
        when = when.expand(count, -1)
    check_shape("times", when, (count, visits))
    return when.contiguous()


def _names(ids: Sequence[Any] | None, count: int) -> tuple[str, ...]:
    names = tuple(map(str, range(count) if ids is None else ids))
    if len(names) != count:
        raise DataError(f"ids has {len(names)} names for {count} individuals in x")
    if len(set(names)) < count:
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"ids has {', '.join(map(repr, twice[:SHOWN]))} more than once")
    return names


def _like(index: Tensor, tensor: Tensor) -> Tensor:
    """Return an index of visits ``(N, T)``, expanded to the shape of a tensor ``(N, T, ...)``."""
    return index.reshape(*index.shape, *[1] * (tensor.ndim - 2)).expand(tensor.shape)


def _covariates(
    covariates: Any, class_names: Sequence[str] | None, x: Tensor
) -> tuple[Tensor | None, tuple[str, ...]]:
    """Return the covariates as labels or vectors, and the names of the classes."""
    if covariates is None:
        if class_names is not None:
            raise ConfigurationError("class_names is given without covariates: expected both")
        return None, ()
    if getattr(covariates, "ndim", 1) == 2:
        vectors = as_tensor("covariates", covariates).to(x)
        check_shape("covariates", vectors, (len(x), "p"))
        check_finite("covariates", vectors)
        return vectors, ()
    labels, names = encode_labels(covariates, class_names)
    check_shape("covariates", labels, (len(x),))
    return labels.to(x.device), names
