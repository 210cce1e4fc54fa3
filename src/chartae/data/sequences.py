"""`Sequences`: individuals seen at several visits, at irregular times, with holes."""

import copy
import logging
from collections.abc import Sequence
from itertools import combinations
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from chartae.checks import check_integer, check_number
from chartae.data.arrays import DType, resolve_dtype, scaled
from chartae.data.dataset import ArrayDataset
from chartae.data.form import Samples, check_precision, warn_of_scale
from chartae.data.sequence_arguments import (
    KEY_COLUMNS,
    read_covariates,
    read_flags,
    read_ids,
    read_key_columns,
    read_times,
    read_values,
    refuse,
    some,
)
from chartae.data.splits import random_parts
from chartae.data.tensors import TensorSet
from chartae.errors import DataError
from chartae.randomness import make_generator

__all__ = ["Sequences", "check_disjoint"]

logger = logging.getLogger(__name__)


class Sequences(TensorSet):
    """Individuals seen at several visits: images, volumes or vectors of scores, with their times.

    Individuals may have different numbers of visits, at any real times. A visit is *observed*, or
    it is only a time at which a value is wanted. Inside an observed visit, a mask says which
    features were observed. Values that were not observed have no influence anywhere.

    The visits of each individual are sorted by time, with a message in the log if they were not.
    Entries of ``times`` that are NaN are padding, and come last.

    Args:
        x: ``(N, T, *input_shape)``: N individuals with up to T visits each; uint8 (divided by 255),
            bool, float32 or float64. Or a list of N arrays, ``(T_i, *input_shape)``, and then so
            are the other arguments. Entries that were not observed may be NaN. In a masked array,
            the entries that are not masked were observed. Floats of the requested ``dtype`` are not
            copied if all were observed.
        times: ``(N, T)``, or ``(T,)`` for all individuals alike; numbers in any unit, finite where
            a visit is observed. Dates are refused: the origin of time is your choice.
        observed: ``(N, T)`` bool, True where a visit was observed; None means all visits with a
            time.
        mask: bool, the shape of ``x``, True where a feature was observed.
        covariates: ``(N,)`` integers or strings, classes such as treatment or sex; or ``(N, p)``
            numbers. They are the conditions of a model that has ``conditions``.
        ids: N names of the individuals, all different; by default their numbers from 0.
        class_names: names of the classes of the covariates, in the order of their indices.
        covariate_names: a name for each of the p covariates, or one for the classes.
        channels_last: ``x`` is ``(N, T, *sizes, channels)``.
        columns: names of the features of vectors.
        key_columns: what tables call the columns of individuals and of times.
        dtype: as in `ArrayDataset.from_arrays`.

    Attributes:
        x: ``(N, T, *input_shape)`` floats, with channels first, 0 where not observed.
        times: ``(N, T)`` float64; in padding the last time of the individual.
        observed: ``(N, T)`` bool.
        mask: as ``x``, bool, False at visits that were not observed; None if all features of
            observed visits were observed.
        y: the covariates: ``(N,)`` int64, ``(N, p)`` floats, or None.
        padding: ``(N, T)`` bool, True where there is no visit.
        ids: names of the individuals, N strings.
        form: the dtype and layout in which visits were given, a `Form`.

    Raises:
        DataError: for an individual without an observed visit, with two visits at one time, or with
            a time that is not finite; for values that are not finite where observed; for times that
            are text or dates; for a mask or other arrays that do not fit; for names that are not
            all different. Messages name the individuals.
        ConfigurationError: for another ``dtype``, names without covariates, or other than two
            different ``key_columns``.

    >>> import numpy as np
    >>> scores = np.array([[[1.0], [2.0], [4.0]], [[0.0], [1.0], [np.nan]]])
    >>> times = [[0.0, 1.0, 3.0], [0.5, 2.5, np.nan]]
    >>> data = Sequences(scores, times=times, ids=["anna", "bo"])
    >>> data
    Sequences(2 individuals, 5 visits of shape (1,), float32; 2 to 3 each)
    >>> data.subset([1]).x[0, :2, 0].tolist()
    [0.0, 1.0]
    """

    x: Tensor
    times: Tensor
    observed: Tensor
    mask: Tensor | None
    y: Tensor | None
    padding: Tensor

    def __init__(
        self,
        x: ArrayLike | Tensor | Sequence[Any],
        *,
        times: ArrayLike | Tensor | Sequence[Any],
        observed: ArrayLike | Tensor | Sequence[Any] | None = None,
        mask: ArrayLike | Tensor | Sequence[Any] | None = None,
        covariates: ArrayLike | Tensor | None = None,
        ids: ArrayLike | Sequence[Any] | None = None,
        class_names: Sequence[str] | None = None,
        covariate_names: Sequence[str] = (),
        channels_last: bool = False,
        columns: Sequence[str] = (),
        key_columns: Sequence[str] = KEY_COLUMNS,
        dtype: DType = "default",
    ) -> None:
        dtype = resolve_dtype(dtype)
        self.key_columns = read_key_columns(key_columns)
        values, features, self.form = read_values(x, mask, channels_last, tuple(columns))
        count, visits = values.shape[:2]
        self.ids = read_ids(ids, count)
        # Numbers are names only among sets that come from one.
        self._numbering = object() if ids is None else None
        when = read_times(times, count, visits).to(values.device)
        seen = read_flags("observed", observed, (count, visits))
        padding = when.isnan()
        seen = ~padding if seen is None else seen.to(values.device)
        refuse("observed at a time that is not finite", seen & ~when.isfinite(), self.ids)
        refuse("with a time that is infinite", when.isinf(), self.ids)
        if features is not None:
            features = features.to(values.device) & _like(seen, values)
            seen = features.flatten(2).any(-1)
            if bool((features.flatten(2).all(-1) == seen).all()):
                features = None
        refuse("without an observed visit", ~seen.any(1), self.ids)
        last = torch.where(padding, -torch.inf, when).cummax(1).values
        if bool(((when < last) & ~padding).any()):
            logger.info("visits were not in the order of their times: they have been sorted")
        order = torch.where(padding, torch.inf, when).argsort(stable=True, dim=1)
        if bool((order.diff(dim=1) != 1).any()):
            values, when, seen, padding = (_at(order, t) for t in (values, when, seen, padding))
            features = None if features is None else _at(order, features)
        refuse("with two visits at one time", (when.diff(dim=1) == 0.0).any(1), self.ids)
        self.times = _without_padding(when, padding)
        self.observed, self.mask, self.padding = seen, features, padding
        self.x = scaled(values, dtype)
        self._check_values(values)
        self.covariate_names = tuple(map(str, covariate_names))
        self.y, self.class_names = read_covariates(
            covariates, class_names, self.covariate_names, self.x, self.ids
        )

    def _check_values(self, values: Tensor) -> None:
        """Set what was not observed to 0, and check the rest, given the values before scaling."""
        known = self.known
        complete = bool(known.all())
        if not complete:
            self.x = torch.where(known, self.x, 0.0)
            values = torch.where(known, values, torch.zeros((), dtype=values.dtype))
        # The sum is finite unless an entry is not finite, or it overflows.
        if not bool(self.x.sum().isfinite()):
            what = "with NaN or infinite values where observed (give mask=, False at these)"
            refuse(what, ~self.x.isfinite(), self.ids)
        frames = self.x.flatten(0, 1)
        mask = None if complete else known.flatten(0, 1)
        samples = Samples(values.flatten(0, 1), mask, self.form)
        warn_of_scale(samples, frames)
        check_precision(samples, frames)

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
    def known(self) -> Tensor:
        """Bool, the shape of ``x``: True where the value was observed."""
        return _like(self.observed, self.x) if self.mask is None else self.mask

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
        """What is saved with a model trained on the data: their form, and names of columns."""
        return {
            "form": self.form.to_json(),
            "class_names": list(self.class_names),
            "covariate_names": list(self.covariate_names),
            "key_columns": list(self.key_columns),
        }

    def __repr__(self) -> str:
        return f"Sequences({self})"

    def __str__(self) -> str:
        """The size and the shape, for people."""
        text = (
            f"{len(self)} individuals, {int(self.num_visits.sum())} visits of shape "
            f"{self.input_shape}, {str(self.x.dtype).removeprefix('torch.')}; "
            f"{_range(self.num_visits)} each"
        )
        if self.mask is not None:
            text += f"; {self._share_known:.1%} of their features observed"
        return text

    @property
    def _share_known(self) -> float:
        """The share of the features of observed visits that were observed."""
        return float(self.known.sum() / (self.num_visits.sum() * self.x[0, 0].numel()))

    def summary(self) -> str:
        """Return a short table of the set as plain text.

        >>> scores = [[[1.0], [2.0], [4.0]], [[0.0], [1.0], [0.0]]]
        >>> times = [[0.0, 1.0, 3.0], [0.5, 2.5, float("nan")]]
        >>> print(Sequences(scores, times=times, covariates=["placebo", "drug"]).summary())
        individuals    2
        visits         5; 2 to 3 each, median 2.5
        shape          (1,), float32
        times          0 to 3
        follow-up      2 to 3, median 2.5
        gaps           1 to 2, median 2
        covariates     drug 1, placebo 1
        """
        counts, unseen = self.num_visits, int((~self.observed & ~self.padding).sum())
        gaps = [row[seen].diff() for row, seen in zip(self.times, self.observed, strict=True)]
        when = torch.where(self.observed, self.times, torch.nan)
        spans = _largest(when) + _largest(-when)
        lines = {
            "individuals": str(len(self)),
            "visits": f"{int(counts.sum())}; {_range(counts)} each, median {_median(counts)}",
            "not observed": f"{unseen} further visits" if unseen else "",
            "shape": f"{self.input_shape}, {str(self.x.dtype).removeprefix('torch.')}",
            "times": _range(when[self.observed]),
            "follow-up": f"{_range(spans)}, median {_median(spans)}",
            "gaps": "",
            "observed": "" if self.mask is None else f"{self._share_known:.1%} of the features",
            "scores": self._scores(),
            "covariates": self._covariates(),
        }
        if len(between := torch.cat(gaps)):
            lines["gaps"] = f"{_range(between)}, median {_median(between)}"
        return "\n".join(f"{name:<15}{text}" for name, text in lines.items() if text)

    def _scores(self) -> str:
        """Return the names of the features, each with the share of visits where it was observed."""
        shares = self.known[self.observed].double().mean(0).flatten().tolist()
        names = self.form.columns
        return ", ".join(f"{name} {share:.0%}" for name, share in zip(names, shares, strict=False))

    def _covariates(self) -> str:
        """Return the numbers of individuals of each class, or the range of each covariate."""
        if self.y is None:
            return ""
        if self.class_names:
            counts = torch.bincount(self.y, minlength=self.num_classes).tolist()
            pairs = zip(self.class_names, counts, strict=True)
            title = f"{self.covariate_names[0]}: " if self.covariate_names else ""
            return title + ", ".join(f"{name} {count}" for name, count in pairs)
        names = self.covariate_names or range(self.y.shape[1])
        return ", ".join(f"{n} {_range(values)}" for n, values in zip(names, self.y.T, strict=True))

    # --- other sets from this one -----------------------------------------------------------------

    def subset(self, indices: ArrayLike | Tensor) -> "Sequences":
        """Return the individuals at ``indices``: integers in [0, N), or N booleans.

        If an individual is selected more than once, all get new names, the numbers from 0.

        Raises:
            DataError: if ``indices`` selects nothing, is out of range or of another type.
        """
        rows = self.rows("indices", indices, self.x.device)
        new = self._changed(**self.batch(rows), padding=self.padding[rows])
        new.ids = tuple(self.ids[row] for row in rows.tolist())
        if len(set(new.ids)) < len(new.ids):
            new.ids, new._numbering = read_ids(None, len(rows)), object()
        return new

    def split(
        self, sizes: Sequence[float] | Sequence[int], *, seed: int = 0
    ) -> tuple["Sequences", ...]:
        """Return disjoint sets of individuals, drawn at random. All visits of one stay together.

        Args:
            sizes: numbers of individuals, or fractions of N. The others are in no set.
            seed: the same seed gives the same sets.

        Raises:
            ConfigurationError: if the sizes are not possible.

        >>> data = Sequences(np.zeros((10, 3, 2)), times=[0, 1, 2])
        >>> train, test = data.split((0.8, 0.2), seed=0)
        >>> len(train), len(test), set(train.ids) & set(test.ids)
        (8, 2, set())
        """
        return tuple(self.subset(part) for part in random_parts(len(self), sizes, seed=seed))

    def first(self, visits: int) -> "Sequences":
        """Return the individuals with only their first observed visits observed.

        The later visits keep their times, so that they can be imputed.

        Args:
            visits: how many visits stay observed, at least 1.
        """
        visits = check_integer("visits", visits, minimum=1)
        return self._restricted(_like(self.observed.cumsum(1) <= visits, self.x))

    def hidden(self, *, visits: float = 0.0, features: float = 0.0, seed: int = 0) -> "Sequences":
        """Return the individuals with some of what was observed hidden at random.

        At least one visit of each individual stays, and at least one of its features.

        Args:
            visits: share of each individual's observed visits, in [0, 1), rounded to a number.
            features: the probability with which each feature of a visit is hidden, in [0, 1). A
                visit whose features are all hidden is not observed.
            seed: the same seed hides the same.
        """
        check_number("visits", visits, minimum=0.0, below=1.0)
        check_number("features", features, minimum=0.0, below=1.0)
        generator = make_generator(check_integer("seed", seed, minimum=0), "hidden")
        rank = torch.rand(self.observed.shape, generator=generator).to(self.x.device)
        rank = torch.where(self.observed, rank, torch.inf).argsort(1).argsort(1)
        count = (self.num_visits - (visits * self.num_visits).round()).clamp(min=1)
        kept = _like(rank < count[:, None], self.x)
        if features > 0.0:
            drawn = torch.rand(self.x.shape, generator=generator).to(self.x.device)
            drawn = torch.where(self.known & kept, drawn, -1.0)
            best = drawn.flatten(1).argmax(1, keepdim=True)
            kept = (drawn >= features).flatten(1).scatter(1, best, True).view_as(drawn)
        return self._restricted(kept)

    def at(self, times: ArrayLike | Tensor) -> "Sequences":
        """Return the individuals with further visits, not observed, at the given times.

        Times at which an individual already has a visit add nothing to it.

        Args:
            times: ``(K,)`` for all individuals, or ``(N, K)``; NaN adds nothing.

        Raises:
            DataError: if two of an individual are equal, or are infinite; for another shape.
        """
        added = read_times(times, len(self)).to(self.x.device)
        refuse("with an infinite time in times", added.isinf(), self.ids)
        refuse("with equal times in times", added.sort().values.diff(dim=1) == 0.0, self.ids)
        own = torch.where(self.padding, torch.nan, self.times)
        added = torch.where((added[:, :, None] == own[:, None]).any(-1), torch.nan, added)
        when = torch.cat([own, added], 1)
        order = torch.where(when.isnan(), torch.inf, when).argsort(stable=True, dim=1)
        order = order[:, : int((~when.isnan()).sum(1).max())]
        when = _at(order, when)

        def longer(values: Tensor) -> Tensor:
            empty = values.new_zeros(*added.shape, *values.shape[2:])
            return _at(order, torch.cat([values, empty], 1))

        return self._changed(
            x=longer(self.x),
            times=_without_padding(when, when.isnan()),
            observed=longer(self.observed),
            mask=None if self.mask is None else longer(self.mask),
            padding=when.isnan(),
        )

    def filled(self, x: ArrayLike | Tensor) -> "Sequences":
        """Return the individuals with all visits observed, and with the values ``x``.

        So `chartae.longitudinal.Draws.completed` becomes a set that can be written to a file.

        Args:
            x: ``(N, T, *input_shape)``, in the layout in which visits were given.
        """
        new = Sequences(
            x,
            times=torch.where(self.padding, torch.nan, self.times),
            ids=self.ids,
            channels_last=self.form.channels_last,
            columns=tuple(map(str, self.form.columns)),
            dtype=self.x.dtype,
        )
        if new.x.shape != self.x.shape:
            raise DataError(
                f"x has visits {tuple(new.x.shape)}: expected {tuple(self.x.shape)}, as here"
            )
        return self._changed(x=new.x, observed=new.observed, mask=None)

    def visits(self) -> ArrayDataset:
        """Return the M observed visits as a data set of samples, with the covariates as ``y``.

        Models of single images are trained on it.
        """
        mask = None if self.mask is None else self.mask[self.observed]
        y = None if self.y is None else self.y[self.observed.nonzero()[:, 0]]
        return ArrayDataset(self.x[self.observed], y, mask, self.class_names, self.form)

    def to(
        self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> "Sequences":
        """Return the sequences with ``x`` in another ``dtype``, on another ``device``.

        Covariates that are vectors change with ``x``. Times stay float64.
        """
        vectors = None if self.class_names else dtype
        kinds = {"x": dtype, "y": vectors}
        moved = {
            name: value.to(device=device, dtype=kinds.get(name))
            for name, value in self.tensors.items()
        }
        return self._changed(**moved, padding=self.padding.to(device=device))

    def _restricted(self, kept: Tensor) -> "Sequences":
        """Return the individuals with only those values observed that ``kept`` selects."""
        known = self.known & kept
        observed = known.flatten(2).any(-1)
        complete = self.mask is None and bool((known.flatten(2).all(-1) == observed).all())
        return self._changed(
            x=torch.where(known, self.x, 0.0),
            observed=observed,
            mask=None if complete else known,
        )

    def _changed(self, **tensors: Tensor | None) -> Self:
        """Return a copy with other tensors, which are known to be valid."""
        new = copy.copy(self)
        for name, value in tensors.items():
            setattr(new, name, value)
        return new


def check_disjoint(**sets: Sequences) -> None:
    """Raise `DataError` if an individual is in two sets, such as ``train`` and ``test``.

    Individuals are compared by their names. Sets in which individuals have only numbers are
    compared if they come from one set.

    Args:
        sets: the sets, by their names in the message.

    >>> data = Sequences(np.zeros((4, 3, 2)), times=[0, 1, 2], ids=["ann", "bo", "cy", "di"])
    >>> check_disjoint(train=data.subset([0, 1]), test=data.subset([1, 3]))
    Traceback (most recent call last):
    ...
    chartae.errors.DataError: individuals both in train and in test: 'bo'; expected different ones
    """
    for (first, one), (second, other) in combinations(sets.items(), 2):
        if one._numbering is other._numbering and (both := {*one.ids} & {*other.ids}):
            named = some([name for name in one.ids if name in both])
            raise DataError(
                f"individuals both in {first} and in {second}: {named}; expected different ones"
            )


def _like(flags: Tensor, x: Tensor) -> Tensor:
    """Return flags of visits ``(N, T)``, expanded to the shape of a tensor ``(N, T, ...)``."""
    return flags.reshape(*flags.shape, *[1] * (x.ndim - 2)).expand(*flags.shape, *x.shape[2:])


def _at(order: Tensor, x: Tensor) -> Tensor:
    """Return the visits ``(N, K, ...)`` of a tensor ``(N, T, ...)`` at indices ``(N, K)``."""
    return x.gather(1, _like(order, x))


def _without_padding(times: Tensor, padding: Tensor) -> Tensor:
    """Return times with the last time of the individual in place of padding."""
    last = torch.where(padding, -torch.inf, times).amax(1, keepdim=True)
    return torch.where(padding, last, times)


def _largest(times: Tensor) -> Tensor:
    """Return the largest time of each row, without NaN."""
    return torch.where(times.isnan(), -torch.inf, times).amax(1)


def _median(values: Tensor) -> str:
    return f"{np.median(values.cpu().numpy()):g}"


def _range(values: Tensor) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
