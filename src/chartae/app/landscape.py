"""A model and its observations, prepared for the explorer: codes, columns and metrics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chartae.checks import check_finite, check_integer, check_shape
from chartae.data import ArrayDataset, Sequences
from chartae.errors import ConfigurationError, DataError
from chartae.geometry import Metric, PullbackMetric
from chartae.longitudinal import SequenceModel
from chartae.models import Autoencoder
from chartae.models.paths import natural_metrics
from chartae.randomness import make_generator, seeded
from chartae.samplers import SAMPLERS, natural_sampler

__all__ = ["Column", "Landscape"]

Column = NDArray[Any]

CENTROIDS = 1000
"""Largest number of posteriors in the metric of a model without its own."""
DRAWN = 1000
"""Number of samples that stand for the data if there are none."""
SHALLOW = 4
"""Largest latent dimension in which the volume of a pullback metric is drawn."""


@dataclass(frozen=True, eq=False)
class Landscape:
    """A model, and the observations that are shown in its latent space.

    For a model of sequences, observations are visits.

    Args:
        model: a trained model, in evaluation mode.
        x: observations ``(N, *input_shape)``, on the model's device.
        codes: their latents, ``(N, d)``, d at least 2.
        columns: what points can be coloured by and attributes are made of: ``(N,)`` each, text or
            numbers.
        y: the conditions of the observations, for a model that has them.
        class_names: the names of the classes that are conditions.
        volume: the metric whose log-volume is drawn behind the map; None draws none.
        metric: the metric of geodesics and of the exponential map; None on the sphere.
        joins: whether there are geodesics.
        drawn: whether the observations are samples of the model, because there are no data.
        sequences: the individuals, for a model of sequences.
        owner: the individual of each visit, ``(N,)``.
    """

    model: Autoencoder
    x: Tensor
    codes: Tensor
    columns: Mapping[str, Column]
    y: Tensor | None = None
    class_names: tuple[str, ...] = ()
    volume: Metric | None = None
    metric: Metric | None = None
    joins: bool = True
    drawn: bool = False
    sequences: Sequences | None = None
    owner: Tensor | None = None

    def __post_init__(self) -> None:
        if self.model.latent_dim < 2:
            raise ConfigurationError(
                "the latent space of the model has one dimension: expected two or more"
            )
        check_shape("codes", self.codes, (len(self.x), self.model.latent_dim))
        if len(self.codes) < 2:
            raise DataError(f"data have {len(self.codes)} observation: expected at least 2")
        for name, column in self.columns.items():
            if np.shape(column) != (len(self.x),):
                raise DataError(
                    f"columns[{name!r}] has shape {np.shape(column)}: expected ({len(self.x)},)"
                )

    @classmethod
    def of(
        cls,
        model: Autoencoder,
        data: ArrayDataset | None = None,
        y: Tensor | None = None,
        *,
        columns: Mapping[str, Column] | None = None,
        class_names: tuple[str, ...] = (),
        metric: str = "auto",
        max_points: int = 50_000,
        seed: int = 0,
    ) -> "Landscape":
        """Return the space of a model of single observations.

        Args:
            model: a trained model.
            data: observations to show; None shows samples of the model.
            y: their conditions; by default the labels of the data.
            columns: further columns, ``(N,)`` each.
            class_names: names of the classes that are conditions.
            metric: as in `chartae.models.paths.natural_metrics`.
            max_points: largest number of observations; of more, a random subset is shown.
            seed: the seed of samples and of the draw.

        Raises:
            DataError: if the data do not fit the model.
            ConfigurationError: for a model of sequences, a latent space of one dimension, or a
                metric that the model does not have.
        """
        if isinstance(model, SequenceModel):
            raise ConfigurationError(
                f"model is a {type(model).__name__}: expected Landscape.of_sequences for it"
            )
        check_integer("max_points", max_points, minimum=2)
        model.eval()
        if data is None:
            return cls._of_samples(model, class_names, metric, seed)
        columns = {**_columns_of(data), **(columns or {})}
        if model.conditions is not None and y is None:
            y = data.y
        if len(data) > max_points:
            kept = torch.randperm(len(data), generator=make_generator(seed, "shown"))[:max_points]
            kept = kept.sort().values
            data, y = data.subset(kept), None if y is None else y[kept]
            columns = {name: column[kept.numpy()] for name, column in columns.items()}
        x = data.x.to(model.device, model.dtype)
        y = None if y is None else y.to(model.device)
        mask = None if data.mask is None else data.mask.to(model.device)
        model.check_call("x", x, y, mask)
        with torch.no_grad(), seeded(0):
            codes = model.encode(x, y, mask=mask, batch_size=1024)
        found = _metrics(model, x if mask is None else model.filled(x, mask), y, metric)
        return cls(model, x, codes, columns, y, class_names, *found)

    @classmethod
    def _of_samples(
        cls, model: Autoencoder, class_names: tuple[str, ...], metric: str, seed: int
    ) -> "Landscape":
        name = natural_sampler(model)
        sampler = SAMPLERS[name](model)
        if sampler.needs_data:
            raise ConfigurationError(
                f"this {type(model).__name__} has no prior: expected data, whose codes are shown"
            )
        y, columns = None, {}
        if isinstance(model.conditions, int):
            y = torch.arange(DRAWN, device=model.device) % model.conditions
            columns["label"] = _named(y, class_names)
        sampler.fit()
        codes = sampler.sample_latents(DRAWN, seed, y)
        as_draws = model.observation_model.samples_are_draws
        x = sampler.sample(DRAWN, seed, y, draw=as_draws)
        found = _metrics(model, x, y, metric)
        return cls(model, x, codes, columns, y, class_names, *found, drawn=True)

    @classmethod
    def of_sequences(
        cls, model: SequenceModel, sequences: Sequences, *, max_points: int = 50_000, seed: int = 0
    ) -> "Landscape":
        """Return the space of the visits of individuals, for a model of sequences.

        The code of a visit is the posterior mean of z(t) given all visits of its individual.

        Args:
            model: a trained model.
            sequences: the individuals, on the model's device.
            max_points: largest number of visits; of more, the first individuals are shown.
            seed: the seed of the posterior means.

        Raises:
            DataError: if the individuals do not fit the model.
        """
        check_integer("max_points", max_points, minimum=2)
        model.eval()
        kept = int((sequences.num_visits.cumsum(0) <= max_points).sum())
        sequences = sequences.subset(torch.arange(max(1, kept)))
        seen = sequences.observed
        codes = model.latent_means(sequences, sequences.times, seed=seed)[seen]
        owner, visit = seen.nonzero().T
        ids = np.asarray([str(name) for name in sequences.ids])
        columns: dict[str, Column] = {
            "time": sequences.times[seen].cpu().numpy(),
            "individual": ids[owner.cpu().numpy()],
            "visit": visit.cpu().numpy(),
        }
        y = None if sequences.y is None else sequences.y[owner]
        if y is not None and not y.is_floating_point():
            (name,) = sequences.covariate_names or ("covariate",)
            columns[name] = _named(y, sequences.class_names)
        x = sequences.x[seen]
        if len(model.input_shape) == 1:
            names = [str(name) for name in sequences.form.feature_names]
            columns |= _features(x, names)
        pulled = model.conditions is None and model.latent_space == "euclidean"
        metric = natural_metrics(model, metric="pullback")[1] if pulled else None
        return cls(
            model,
            x,
            codes,
            columns,
            y if model.conditions is not None else None,
            sequences.class_names if model.conditions is not None else (),
            None,
            metric,
            joins=pulled,
            sequences=sequences,
            owner=owner,
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes that are conditions, or their numbers; empty without any."""
        kind = self.model.conditions
        numbers = tuple(map(str, range(kind))) if isinstance(kind, int) else ()
        return self.class_names or numbers

    @property
    def dim(self) -> int:
        """The dimension of the latent space."""
        return self.model.latent_dim

    def latent(self, values: Any) -> Tensor:
        """Return numbers ``(..., d)`` as latents of the model's dtype, on its device.

        Raises:
            DataError: for another dimension, or numbers that are not finite.
        """
        z = torch.as_tensor(values, dtype=self.model.dtype, device=self.model.device)
        if z.dim() == 0 or z.shape[-1] != self.dim:
            raise DataError(f"a latent has shape {tuple(z.shape)}: expected (..., {self.dim})")
        check_finite("a latent", z)
        return z


def _metrics(
    model: Autoencoder, x: Tensor, y: Tensor | None, metric: str
) -> tuple[Metric | None, Metric | None, bool]:
    """Return the metric of the volume and that of geodesics, and whether there are geodesics.

    A model whose posteriors are not Gaussian has the pullback metric, unless its decoder depends on
    the class.
    """
    if model.latent_space == "codes":
        return None, None, False
    centroids = min(CENTROIDS, len(x))
    for name in ("auto", "pullback") if metric == "auto" else (metric,):
        try:
            volume, paths = natural_metrics(model, x, y, metric=name, num_centroids=centroids)
        except ConfigurationError:
            if metric != "auto":
                raise
            continue
        # A map needs a Jacobian of the decoder at thousands of points.
        costly = isinstance(volume, PullbackMetric) and model.latent_dim > SHALLOW
        return None if costly else volume, paths, True
    return None, None, False


def _columns_of(data: ArrayDataset) -> dict[str, Column]:
    """Return the columns of a data set: its labels, and the features of a table of at most 100."""
    columns: dict[str, Column] = {}
    if data.y is not None and data.class_names:
        columns["label"] = _named(data.y, data.class_names)
    if data.x.dim() == 2 and data.x.shape[1] <= 100:
        columns |= _features(data.x, [str(name) for name in data.form.feature_names])
    return columns


def _named(y: Tensor, names: tuple[str, ...]) -> Column:
    """Return classes by their names, or by their numbers if they have none."""
    numbers = y.cpu().numpy()
    return np.asarray(names)[numbers] if names else numbers.astype(str)


def _features(x: Tensor, names: list[str]) -> dict[str, Column]:
    names = names if len(set(names)) == x.shape[1] else [f"x{k}" for k in range(x.shape[1])]
    return dict(zip(names, x.cpu().numpy().T, strict=True))
