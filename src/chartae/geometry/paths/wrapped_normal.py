"""The wrapped normal distribution: normal velocities, mapped by the exponential map."""

import torch
from torch import Tensor

from chartae.checks import check_integer, check_shape
from chartae.data.arrays import takes_arrays
from chartae.geometry.metrics.base import Metric, check_points
from chartae.geometry.metrics.gaussian import covariance_factor, log_normal
from chartae.geometry.paths.exponential import exponential_map
from chartae.geometry.paths.geodesics import logarithmic_map
from chartae.gradients import gradients

__all__ = ["WrappedNormal"]


class WrappedNormal:
    r"""The wrapped normal distribution (Mallasto and Feragen, 2018; thesis section 2.1).

    A normal velocity at a point is mapped to the manifold by the exponential map:
    :math:`z = \mathrm{Exp}_p(v),\ v \sim N(0, \Sigma)`, in coordinates of the chart. The density
    is with respect to the Lebesgue measure of the chart. `chartae.distributions.PoincareNormal`,
    on the hyperbolic ball, has a density with respect to the Riemannian volume of the ball.

    Args:
        metric: a metric.
        mean: p, ``(d,)``.
        covariance: :math:`\Sigma`, symmetric positive definite, ``(d, d)``; a number s stands for
            :math:`s I`.
        num_steps: steps of the exponential map.

    Raises:
        DataError: if the mean is not a valid point of the metric, or the covariance does not have
            its shape or is not symmetric positive definite.
        ConfigurationError: for a number out of range.

    >>> from chartae.geometry.metrics.conformal import PoincareMetric
    >>> normal = WrappedNormal(PoincareMetric(2), torch.zeros(2), 0.1)
    >>> normal.log_prob(normal.sample(5, generator=torch.Generator().manual_seed(0))).shape
    torch.Size([5])
    """

    def __init__(
        self,
        metric: Metric,
        mean: Tensor,
        covariance: Tensor | float,
        *,
        num_steps: int = 100,
    ) -> None:
        check_points(metric, mean=mean)
        check_shape("mean", mean, (metric.dim,))
        check_integer("num_steps", num_steps, minimum=1)
        self.metric, self.mean, self.num_steps = metric, mean, num_steps
        self.factor = covariance_factor(covariance, mean)

    @property
    def dtype(self) -> torch.dtype:
        """The mean's dtype."""
        return self.mean.dtype

    @property
    def device(self) -> torch.device:
        """The mean's device."""
        return self.mean.device

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points, ``(n, d)``.

        Args:
            n: at least 1.
            generator: source of randomness, on the device of the mean.

        Raises:
            ConfigurationError: if n is less than 1.
            DivergenceError: if a geodesic leaves the metric's domain, as in `exponential_map`.
        """
        check_integer("n", n, minimum=1)
        noise = self.mean.new_empty(n, self.metric.dim).normal_(generator=generator)
        velocities = noise @ self.factor.mT
        return exponential_map(self.metric, self.mean, velocities, num_steps=self.num_steps)

    @takes_arrays("z")
    def log_prob(self, z: Tensor) -> Tensor:
        r"""Return the log density of z ``(..., d)``, for the chart's Lebesgue measure: ``(...)``.

        It is :math:`\log N(v; 0, \Sigma) - \log |\det D\,\mathrm{Exp}_p(v)|` at
        :math:`v = \mathrm{Log}_p(z)`. This is the full density where a single geodesic leads from
        p to z. That holds everywhere if the curvature is not positive, and before the cut locus if
        it is positive. Beyond the cut locus the value includes only the shortest geodesic. The
        value is not valid where `logarithmic_map` warns that it did not find a shortest path.

        Raises:
            DataError: if z are not valid points of the metric.
        """
        check_points(self.metric, z=z)
        v = logarithmic_map(self.metric, self.mean, z, num_points=self.num_steps + 1)
        with gradients(v, self.mean) as (v, mean):
            v = v.detach().requires_grad_()
            end = exponential_map(self.metric, mean, v, num_steps=self.num_steps)
            rows = [
                torch.autograd.grad(coordinate.sum(), v, retain_graph=True)[0]
                for coordinate in end.unbind(-1)
            ]
        stretch = torch.stack(rows, -2).slogdet().logabsdet
        return log_normal(v.detach(), self.factor) - stretch.detach()
