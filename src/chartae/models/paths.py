"""The metric of a model's latent space, and curves that join two of its points."""

from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from chartae.checks import check_choice
from chartae.errors import ConfigurationError
from chartae.geometry import (
    ConformalMetric,
    Metric,
    PoincareMetric,
    PosteriorMetric,
    PullbackMetric,
    great_circle,
    length,
    shortest_paths,
)
from chartae.models.base import Autoencoder
from chartae.models.variational import VariationalAutoencoder

__all__ = ["Join", "MetricName", "join", "natural_metrics"]

MetricName = Literal["auto", "model", "posterior", "pullback", "space"]


def natural_metrics(
    model: Autoencoder,
    x: Tensor | None = None,
    y: Tensor | None = None,
    *,
    metric: str = "auto",
    num_centroids: int | None = None,
) -> tuple[Metric | None, Metric | None]:
    """Return the metric whose volume is shown on a map, and the metric of geodesics.

    Both are None on the sphere, where geodesics are great circles.

    Args:
        model: a trained model.
        x: the training set, ``(N, *input_shape)``; only the posterior metric needs it.
        y: its conditions.
        metric: ``"model"``, the learned metric of an RHVAE; ``"posterior"``, the volume of the
            posteriors of another VAE, whose paths stay near the data (thesis equation 3.8, tempered
            in more than two dimensions); ``"pullback"``, distances between decoded observations;
            ``"space"``, the metric of a sphere or a hyperbolic ball of latents, which have no
            other; ``"auto"``, the first of these that the model has.
        num_centroids: how many posteriors the posterior metric keeps, chosen at random; None keeps
            all.

    Raises:
        ConfigurationError: for a metric that the model does not have, or that needs data.
    """
    check_choice("metric", metric, get_args(MetricName))
    kind = type(model).__name__
    if model.latent_space in ("sphere", "ball"):
        return _of_the_space(model, metric)
    own = hasattr(type(model), "metric")
    if metric == "auto":
        encodes = isinstance(model, VariationalAutoencoder)
        metric = "model" if own else "posterior" if encodes else "pullback"
    if metric == "space":
        raise ConfigurationError(
            f"metric='space': the latents of {kind} are not points of a sphere or a ball"
        )
    if metric == "model":
        if not own:
            raise ConfigurationError(
                f"metric='model': {kind} has no learned metric: expected posterior or pullback"
            )
        learned = cast("Metric", model.metric)
        return learned, learned
    if metric == "pullback":
        if model.conditions is not None:
            raise ConfigurationError(
                f"metric='pullback': the decoder of this {kind} depends on the class: "
                "expected another metric"
            )
        pullback = PullbackMetric.from_model(model)
        return pullback, pullback
    if not isinstance(model, VariationalAutoencoder):
        raise ConfigurationError(f"metric='posterior': {kind} has no posterior: expected pullback")
    if x is None:
        raise ConfigurationError(
            "metric='posterior' needs the training data: expected the option data"
        )
    posterior = PosteriorMetric.from_model(
        model, x, y, num_centroids=num_centroids, selection="random"
    )
    # Geodesics of the posterior metric avoid the data, where it is large. In two dimensions the
    # strength is that of equation 3.8. In 8 dimensions, on digits, 10 of 12 paths did not converge
    # with that strength, and all converged with 2/d.
    strength = 2.0 / model.latent_dim
    return posterior, ConformalMetric.avoiding_the_void(posterior, strength)


def _of_the_space(model: Autoencoder, metric: str) -> tuple[Metric | None, Metric | None]:
    if metric not in ("auto", "space"):
        raise ConfigurationError(
            f"metric={metric!r}: the latents of {type(model).__name__} are points of a "
            f"{model.latent_space}, and only its own geodesics stay on it: expected auto or space"
        )
    if model.latent_space == "sphere":
        return None, None
    ball = PoincareMetric(model.latent_dim, float(cast("Any", model).curvature))
    ball = ball.to(model.device, model.dtype)
    return ball, ball


@dataclass(frozen=True, eq=False)
class Join:
    """The curves between two latents.

    Attributes:
        geodesic: ``(num_points, d)``, at equal Riemannian distances.
        line: the straight line, ``(num_points, d)``; None on the sphere, which it would leave.
        lengths: the lengths of both, by the same metric; None for a line that is None.
        converged: whether the geodesic was found to the tolerance.
        residual: as in `chartae.geometry.Paths`.
    """

    geodesic: Tensor
    line: Tensor | None
    lengths: tuple[float, float | None]
    converged: bool
    residual: float


@torch.no_grad()
def join(metric: Metric | None, start: Tensor, end: Tensor, *, num_points: int = 64) -> Join:
    """Return the geodesic and the straight line between two latents, ``(d,)`` each.

    Args:
        metric: the metric of the geodesic; None for unit vectors and great circles.
        start: the first latent.
        end: the last latent.
        num_points: points of each curve, at least 3.

    Raises:
        DataError: for points that are not valid for the metric.

    >>> from chartae.geometry import EuclideanMetric
    >>> found = join(EuclideanMetric(2), torch.zeros(2), torch.tensor([3.0, 4.0]))
    >>> [round(v, 4) for v in found.lengths], found.converged
    ([5.0, 5.0], True)
    """
    times = torch.linspace(0, 1, num_points).to(start)
    if metric is None:  # the straight line, projected to the sphere, is the same curve
        angle = 2.0 * torch.asin((0.5 * (start - end).norm()).clamp(max=1.0))
        return Join(great_circle(start, end, times), None, (float(angle), None), True, 0.0)
    paths = shortest_paths(metric, start, end, num_points=num_points)
    line = torch.lerp(start, end, times[:, None])
    lengths = float(paths.lengths), float(length(metric, line))
    return Join(paths.points, line, lengths, bool(paths.converged), float(paths.residual))
