"""What the explorer shows: functions of a `Landscape` and a point. They draw nothing.

Latents are tensors on the model's device, ``(..., d)``. Coordinates on the map are ``(..., 2)``.
"""

from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chartae.app.landscape import Column, Landscape
from chartae.checks import check_choice, check_shape
from chartae.data import Sequences
from chartae.errors import DataError, DivergenceError
from chartae.geometry import PullbackMetric, exponential_path
from chartae.longitudinal import SequenceModel
from chartae.models import Autoencoder
from chartae.models.paths import Join, join
from chartae.report.latent import Plane, Square, log_volumes
from chartae.samplers import SAMPLERS, Sampler

__all__ = [
    "Fan",
    "Neighbours",
    "attribute_direction",
    "decode",
    "decoded_along",
    "exponential_fan",
    "fitted_sampler",
    "futures",
    "geodesic_and_line",
    "nearest_points",
    "offered_samplers",
    "on_the_space",
    "reconstruct",
    "sample_latents",
    "split_by",
    "trajectory",
    "volume_map",
    "without_decoding",
]

Method = Literal["mean", "logistic"]

COARSE = 40
"""Largest number of points along each axis of a map of the volume of a pullback metric."""
MOST_CLASSES = 40
"""Largest number of different values of a column that are classes, with a colour each."""


# --- decoding -------------------------------------------------------------------------------------


def without_decoding(space: Landscape) -> str | None:
    """Return the reason that single latents of the model are not decoded, or None."""
    if space.model.latent_space != "codes":
        return None
    return (
        f"The latent of this {type(space.model).__name__} is a grid of codes of a codebook. A "
        "point between codes is no latent of the model, so reconstructions of the data are shown."
    )


def on_the_space(model: Autoencoder, z: Tensor) -> Tensor:
    """Return the points of the latent space that are nearest to z, ``(..., d)``.

    Latents that are vectors are returned as they are, those of a sphere are divided by their norm,
    and those outside a ball are moved to just inside of it.
    """
    norm: Tensor = z.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    if model.latent_space == "sphere":
        return z / norm
    if model.latent_space == "ball":
        radius = 0.999 / float(cast("Any", model).curvature) ** 0.5
        z = z * (radius / norm).clamp(max=1.0)
    return z


@torch.no_grad()
def decode(space: Landscape, z: Tensor, label: int | None = None) -> Tensor:
    """Return decoded latents ``(n, d)``: the likelihood's mean, ``(n, *input_shape)``.

    Args:
        space: the model and its observations.
        z: latents; points that are not on the space are moved there (`on_the_space`).
        label: the class, for a model whose conditions are classes. Vectors as conditions are the
            mean of those of the data.

    Raises:
        DataError: if the model does not decode single latents (`without_decoding`).
    """
    if reason := without_decoding(space):
        raise DataError(reason)
    z = on_the_space(space.model, z)
    decoded: Tensor = space.model.decode(z, conditions(space, len(z), label), batch_size=256)
    return decoded


def conditions(space: Landscape, count: int, label: int | None) -> Tensor | None:
    """Return the same condition ``count`` times; None for a model without conditions."""
    kind = space.model.conditions
    if kind is None:
        return None
    if isinstance(kind, int):
        return torch.full((count,), label or 0, device=space.model.device)
    assert space.y is not None
    return space.y.mean(0).expand(count, -1)


@torch.no_grad()
def reconstruct(space: Landscape, indices: Tensor) -> Tensor:
    """Return reconstructions of observations by their numbers ``(n,)``: ``(n, *input_shape)``."""
    parts = []
    for rows in indices.to(space.x.device).split(256):
        y = None if space.y is None else space.y[rows]
        parts.append(space.model.reconstruct(space.x[rows], y))
    return torch.cat(parts)


def decoded_along(
    space: Landscape, curve: Tensor, columns: int = 10, label: int | None = None
) -> Tensor:
    """Return the decoded points of a curve ``(T, d)``, evenly spaced: ``(columns, ...)``."""
    places = torch.linspace(0, len(curve) - 1, columns, dtype=torch.float64).round().long()
    return decode(space, curve[places.to(curve.device)], label)


# --- the map --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Neighbours:
    """The observations whose codes are nearest to a point.

    Attributes:
        indices: ``(k,)``, nearest first.
        distances: Euclidean distances in the latent space, ``(k,)``.
    """

    indices: Tensor
    distances: Tensor


def nearest_points(codes: Tensor, z: Tensor, count: int) -> Neighbours:
    """Return the ``count`` codes ``(N, d)`` nearest to a latent ``(d,)``.

    >>> found = nearest_points(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.zeros(2), 2)
    >>> found.indices.tolist(), found.distances.tolist()
    ([0, 1], [0.0, 5.0])
    """
    distances = (codes - z).square().sum(-1)
    found = distances.topk(min(count, len(codes)), largest=False)
    return Neighbours(found.indices, found.values.sqrt())


def volume_map(
    space: Landscape, plane: Plane, resolution: int = 100
) -> tuple[Square, Tensor] | None:
    """Return a square around the codes and the log-volume at its points; None without a metric.

    Values outside the domain of the metric are NaN.
    """
    if space.volume is None:
        return None
    if isinstance(space.volume, PullbackMetric):
        resolution = min(resolution, COARSE)
    square = plane.square(resolution, space.codes)
    values = log_volumes(space.volume, plane, square)
    inside = space.volume.contains(plane.lift(square.points))
    return square, torch.where(inside & values.isfinite(), values, torch.nan)


# --- geometry -------------------------------------------------------------------------------------


def geodesic_and_line(
    space: Landscape, start: Tensor, end: Tensor, *, num_points: int = 64
) -> Join:
    """Return the geodesic and the straight line between two latents ``(d,)``, with lengths.

    Raises:
        DataError: for a model without a metric of geodesics.
    """
    if not space.joins:
        raise DataError(f"this {type(space.model).__name__} has no metric, so it has no geodesics")
    ends = on_the_space(space.model, torch.stack([start, end]))
    return join(space.metric, ends[0], ends[1], num_points=num_points)


@dataclass(frozen=True, eq=False)
class Fan:
    """Geodesics from a point in all directions of the map.

    Attributes:
        paths: ``(count, steps + 1, d)``.
        length: the Riemannian length of each.
        shortened: whether they are shorter than asked, because longer ones diverged.
    """

    paths: Tensor
    length: float
    shortened: bool


@torch.no_grad()
def exponential_fan(
    space: Landscape,
    plane: Plane,
    start: Tensor,
    size: float,
    *,
    count: int = 24,
    num_steps: int = 40,
) -> Fan:
    """Return geodesics of equal Riemannian length from a point, by the exponential map.

    Args:
        space: the model and its observations.
        plane: the plane that contains the initial directions.
        start: the point, ``(d,)``.
        size: the median length, on the map, of the initial velocities, which gives the Riemannian
            length of the geodesics.
        count: number of directions.
        num_steps: steps of the integrator.

    Raises:
        DataError: for a model without a metric, or if geodesics diverge at any length.
    """
    metric = space.metric
    if metric is None:
        raise DataError(f"this {type(space.model).__name__} has no metric for the exponential map")
    start = on_the_space(space.model, start)
    angles = torch.arange(count, dtype=start.dtype, device=start.device) * (2 * torch.pi / count)
    directions = torch.stack([angles.cos(), angles.sin()], -1) @ plane.basis.mT
    norms = metric.norm(start.expand_as(directions), directions)
    length = size * float(norms.median())
    for halvings in range(8):
        velocities = directions * (length / norms)[:, None]
        try:
            paths = exponential_path(metric, start, velocities, num_steps=num_steps)
        except DivergenceError:
            length = 0.5 * length
            continue
        return Fan(paths, length, halvings > 0)
    raise DataError("the geodesics from this point diverge at any length")


# --- samples, attributes --------------------------------------------------------------------------


def offered_samplers(space: Landscape) -> list[str]:
    """Return the names of the samplers that support the model and draw single latents."""
    if space.model.latent_space == "codes" or isinstance(space.model, SequenceModel):
        return []
    return [name for name, cls in SAMPLERS.items() if cls.unsupported_reason(space.model) is None]


def fitted_sampler(space: Landscape, name: str) -> Sampler:
    """Return a sampler by name, fitted to the observations.

    Raises:
        ConfigurationError: for a name that `offered_samplers` does not have.
    """
    check_choice("sampler", name, offered_samplers(space))
    return SAMPLERS[name](space.model).fit(space.x, space.y)


def sample_latents(
    space: Landscape, sampler: Sampler, count: int, *, label: int | None = None, seed: int = 0
) -> Tensor:
    """Return latents of a fitted sampler, ``(count, d)``."""
    return sampler.sample_latents(count, seed, conditions(space, count, label))


def split_by(column: Column) -> dict[str, NDArray[np.bool_]]:
    """Return the ways to divide observations by a column, ``(N,)`` bool each, by name.

    For classes each class is told from all others. Numbers are divided at their median.

    >>> {name: flags.tolist() for name, flags in split_by(np.array(["a", "b", "a"])).items()}
    {'a': [True, False, True], 'b': [False, True, False]}
    >>> list(split_by(np.array([0.5, 1.5, 2.5, 9.0])))
    ['above 2']
    """
    if column.dtype.kind in "fiu":
        middle = np.nanmedian(column)
        flags = column > middle
        return {f"above {middle:.4g}": flags} if flags.any() and not flags.all() else {}
    present = np.unique(column)
    if not 2 <= len(present) <= MOST_CLASSES:
        return {}
    return {str(value): column == value for value in present}


def attribute_direction(
    codes: Tensor, has: NDArray[np.bool_] | Tensor, *, method: Method = "mean"
) -> Tensor:
    """Return the direction in which an attribute of observations changes, ``(d,)``.

    A step of 1 is the distance between the means of both groups along it.

    Args:
        codes: ``(N, d)``.
        has: which observations have the attribute, ``(N,)`` bool; some have it, others do not.
        method: ``"mean"``, the difference of the means of both groups; ``"logistic"``, the normal
            of the plane that separates them best by logistic regression, in standardised
            coordinates.

    Raises:
        ConfigurationError: for another method.
        DataError: if all observations or none have the attribute.

    >>> codes = torch.tensor([[0.0, 0.0], [0.0, 1.0], [4.0, 0.0], [4.0, 1.0]])
    >>> attribute_direction(codes, torch.tensor([False, False, True, True]))
    tensor([4., 0.])
    """
    check_choice("method", method, ("mean", "logistic"))
    flags = torch.as_tensor(has, device=codes.device)
    check_shape("has", flags, (len(codes),))
    if bool(flags.all()) or not bool(flags.any()):
        raise DataError("has is the same for all observations: expected both True and False")
    step = codes[flags].mean(0) - codes[~flags].mean(0)
    if method == "mean":
        return step
    from sklearn.linear_model import LogisticRegression

    scale = codes.std(0, correction=0).clamp_min(1e-12)
    rows = ((codes - codes.mean(0)) / scale).cpu().double().numpy()
    fitted = LogisticRegression(class_weight="balanced", max_iter=1000).fit(rows, flags.cpu())
    normal = torch.as_tensor(fitted.coef_[0]).to(codes) / scale
    normal = normal / normal.norm()
    scaled: Tensor = normal * (step @ normal)
    return scaled


# --- individuals ----------------------------------------------------------------------------------


def _individual(space: Landscape, individual: int) -> tuple[SequenceModel, Sequences]:
    if space.sequences is None:
        raise DataError("these are not the visits of individuals")
    return cast("SequenceModel", space.model), space.sequences.subset([individual])


def trajectory(
    space: Landscape, individual: int, *, num_points: int = 60, beyond: float = 0.5, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Return times ``(num_points,)`` and the posterior means of z(t) of an individual.

    Args:
        space: the visits of individuals.
        individual: its number, from 0.
        num_points: number of times.
        beyond: how far the trajectory goes beyond the last visit, as a share of the follow-up.
        seed: the same seed gives the same trajectory.
    """
    model, one = _individual(space, individual)
    times = _spread_times(one, num_points, beyond)
    z = model.latent_means(one, times[None], seed=seed)[0]
    return times, z


def futures(
    space: Landscape,
    individual: int,
    *,
    num_times: int = 10,
    count: int = 4,
    beyond: float = 0.5,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return times ``(K,)``, and possible courses of an individual, ``(count, K, *input_shape)``.

    Times are spaced evenly from the first visit to ``beyond`` the last, as in `trajectory`.
    """
    model, one = _individual(space, individual)
    times = _spread_times(one, num_times, beyond)
    draws = model.futures(one, times, count, noise=False, seed=seed)
    return times, draws.values[:, 0]


def _spread_times(one: Sequences, count: int, beyond: float) -> Tensor:
    when = one.times[one.observed]
    first, last = float(when.min()), float(when.max())
    end = last + beyond * ((last - first) or 1.0)
    return torch.linspace(first, end, count, dtype=when.dtype, device=when.device)
