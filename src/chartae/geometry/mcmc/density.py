"""The density on the manifold of a metric that its samplers use as their target."""

import math

import torch
from torch import Tensor

from chartae.checks import check_number
from chartae.data.arrays import takes_arrays
from chartae.errors import ConfigurationError
from chartae.geometry.metrics.base import Metric

__all__ = ["ManifoldDensity"]


class ManifoldDensity:
    r"""The density on the manifold of a metric that is high where the data are, up to a constant.

    .. math:: p(z) \propto 1_S(z) \, \det(G(z))^{\pm 1/2}, \quad S = \{\|z\| \le r\}

    If the volume element is large near the data, p is the volume element: the Riemannian uniform
    distribution of the metric of a vanilla VAE (thesis section 3.3.2). If it is small near the
    data, as for the RHVAE, p is its inverse (eq. 1.8, 2.2). Both are flat in low-density regions
    and have a finite integral only inside S. Outside S, and outside the metric's domain, the log
    density is -inf. The `SphereMetric` has a finite volume and needs no bound.

    It is a `LogDensity`, so that `hmc` can sample it.

    Args:
        metric: a metric; its ``volume_is_large_near_data`` selects the sign of the exponent.
        radius: r > 0; None takes :math:`2 \max_i \|c_i\|` (thesis section 1.3.4) for a metric with
            ``centroids``, and infinity for a metric of finite total volume.

    Raises:
        ConfigurationError: if the radius is not positive; or if it is None, the total volume of
            the metric is not known, and the metric has no centroids or all are at the origin.

    >>> from chartae.geometry.metrics.conformal import PoincareMetric
    >>> density = ManifoldDensity(PoincareMetric(2), radius=0.9)
    >>> density.log_prob(torch.tensor([[0.5, 0.0], [0.95, 0.0]]))
    tensor([-1.9617,    -inf])
    """

    def __init__(self, metric: Metric, radius: float | None = None) -> None:
        if radius is None:
            finite = metric.total_volume is not None
            radius = math.inf if finite else _radius_around_centroids(metric)
        else:
            check_number("radius", radius, above=0.0)
        self.metric, self.radius = metric, radius
        self.sign = 1.0 if metric.volume_is_large_near_data else -1.0

    @property
    def dtype(self) -> torch.dtype | None:
        """The metric's dtype."""
        return self.metric.dtype

    @property
    def device(self) -> torch.device | None:
        """The metric's device."""
        return self.metric.device

    @takes_arrays("z")
    def contains(self, z: Tensor) -> Tensor:
        """Return whether z ``(..., d)`` lies in S and in the metric's domain, ``(...)`` bool."""
        inside: Tensor = z.norm(dim=-1) <= self.radius
        return inside & self.metric.contains(z)

    @takes_arrays("z")
    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log density of z ``(..., d)``, -inf where not `contains`: ``(...)``."""
        return torch.where(self.contains(z), self.sign * self.metric.log_volume(z), -torch.inf)

    @takes_arrays("z")
    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log density of z ``(..., d)`` and its gradient.

        The gradient continues outside S, so that a trajectory may leave S and come back.
        """
        local = self.metric.at(z)
        log_prob = torch.where(self.contains(z), self.sign * local.log_volume, -torch.inf)
        grad = self.sign * local.log_volume_grad()
        return log_prob, torch.where(self.metric.contains(z)[..., None], grad, 0.0)


def _radius_around_centroids(metric: Metric) -> float:
    centroids = getattr(metric, "centroids", None)
    if centroids is None:
        raise ConfigurationError(
            f"radius=None: {type(metric).__name__} has no centroids; expected a number"
        )
    radius = 2.0 * float(centroids.norm(dim=-1).max())
    if not radius > 0.0:
        raise ConfigurationError("radius=None: all centroids are at the origin; expected a number")
    return radius
