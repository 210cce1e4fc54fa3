"""The Riemannian Gaussian of any metric: its density, its normalising constant, its sampler."""

import logging
import math
from typing import Literal, get_args

import torch
from torch import Tensor

from chartae.checks import check_choice, check_integer, check_number, check_shape
from chartae.data.arrays import takes_arrays
from chartae.distributions.ball import RadiusLaw
from chartae.distributions.radial import RadialLaw, log_area
from chartae.errors import ConfigurationError
from chartae.geometry.mcmc.driver import Chain
from chartae.geometry.mcmc.walk import random_walk
from chartae.geometry.metrics.base import Metric, check_points
from chartae.geometry.paths.exponential import exponential_path
from chartae.geometry.paths.geodesics import departure, shortest_paths
from chartae.geometry.paths.wrapped_normal import WrappedNormal

__all__ = ["Measure", "RiemannianGaussian"]

logger = logging.getLogger(__name__)

Measure = Literal["riemannian", "lebesgue"]

REACH = 6.0
"""Radius of the quadrature region around the mean, in units of the scale."""
DIRECTIONS = 64
"""Number of geodesics from the mean that bound the quadrature region."""
TOLERANCE = 3e-3
"""Tolerance of the paths; the relative excess of a length is about its square."""
COARSE = 0.01
"""Relative difference of two grids above which a warning is logged."""


class RiemannianGaussian:
    r"""The Riemannian Gaussian of a metric (Said et al., 2017; thesis eq. 3.5).

    .. math:: p(z) \propto \exp\left(-\frac{d(z, \mu)^2}{2 \sigma^2}\right)

    The density is with respect to the Riemannian volume or to the Lebesgue measure of the chart.
    All log densities are returned with respect to the Lebesgue measure. For the Riemannian measure
    they therefore include the term log vol(z).

    It is a `LogDensity`, so that `hmc` can sample it. Calling it returns the log density up to its
    constant, and its gradient. The gradient uses the identity
    :math:`\nabla_z \frac12 d(z, \mu)^2 = -G(z)\, \mathrm{Log}_z(\mu)`. Distances are the lengths of
    `shortest_paths`. If a path is not found, its length is used, which is an upper bound of the
    distance.

    `chartae.distributions.RiemannianNormal` is the same distribution on the hyperbolic ball, for
    training.

    Args:
        metric: a metric.
        mean: :math:`\mu`, ``(d,)``.
        scale: :math:`\sigma` > 0, a Riemannian length.
        measure: ``"riemannian"`` or ``"lebesgue"``.
        num_points: points of the shortest paths, at least 3.

    Raises:
        DataError: if the mean is not a valid point of the metric.
        ConfigurationError: for an argument out of range, or ``"lebesgue"`` on a space of finite
            volume, where the density has no finite integral.

    >>> from chartae.geometry import EuclideanMetric
    >>> gaussian = RiemannianGaussian(EuclideanMetric(2), torch.zeros(2), 1.0)
    >>> gaussian.log_prob(torch.tensor([1.0, 1.0])) - gaussian.log_normaliser()
    tensor(-2.8379)
    >>> gaussian.sample(5, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        metric: Metric,
        mean: Tensor,
        scale: float,
        *,
        measure: Measure = "riemannian",
        num_points: int = 21,
    ) -> None:
        check_points(metric, mean=mean)
        check_shape("mean", mean, (metric.dim,))
        check_number("scale", scale, above=0.0)
        check_choice("measure", measure, get_args(Measure))
        check_integer("num_points", num_points, minimum=3)
        if measure == "lebesgue" and metric.total_volume is not None:
            raise ConfigurationError(
                f"measure='lebesgue': on {type(metric).__name__} distances are bounded and the "
                "chart is not; expected 'riemannian'"
            )
        self.metric, self.mean, self.scale = metric, mean, float(scale)
        self.measure: Measure = measure
        self.num_points = num_points

    @property
    def dtype(self) -> torch.dtype:
        """The mean's dtype."""
        return self.mean.dtype

    @property
    def device(self) -> torch.device:
        """The mean's device."""
        return self.mean.device

    @takes_arrays("z")
    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log density of z ``(..., d)`` without `log_normaliser`: ``(...)``.

        It is -inf outside the metric's domain. The result is not differentiable by autograd; call
        the object to get the gradient.
        """
        log_prob, _ = self(z)
        return log_prob

    @takes_arrays("z")
    @torch.no_grad()
    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log density of z ``(..., d)`` up to a constant, and its gradient."""
        inside = self.metric.contains(z) & torch.isfinite(self.metric.log_volume(z))
        z = torch.where(inside[..., None], z, self.mean)
        paths = shortest_paths(
            self.metric, z, self.mean, num_points=self.num_points, tolerance=TOLERANCE
        )
        pull = paths.lengths / self.scale**2
        log_prob = -0.5 * pull * paths.lengths
        grad = pull[..., None] * departure(self.metric, paths.points)
        if self.measure == "riemannian":
            local = self.metric.at(z)
            log_prob, grad = log_prob + local.log_volume, grad + local.log_volume_grad()
        return log_prob.masked_fill(~inside, -torch.inf), grad

    @torch.no_grad()
    def log_normaliser(self, num_points: int = 100) -> float:
        r"""Return the logarithm of the integral of exp(`log_prob`).

        If the measure is Riemannian and the curvature is known and constant (flat, hyperbolic and
        spherical spaces), it is computed from the density of the distance to the mean, exact to
        rounding, in any dimension. Otherwise it is a sum over a grid in the chart, for d <= 2. The
        grid covers the points that geodesics of length :math:`6 \sigma` reach from the mean.

        Args:
            num_points: points of the grid in each coordinate, at least 4. A warning is logged if
                every second point gives a sum that differs by more than a percent.

        Raises:
            ConfigurationError: in more than 2 dimensions, if the constant is not known by formula.
            DivergenceError: if a geodesic leaves the metric's domain, as in `exponential_map`.
        """
        check_integer("num_points", num_points, minimum=4)
        curvature, d = self.metric.sectional_curvature, self.metric.dim
        if curvature is not None and self.measure == "riemannian":
            scale = torch.tensor(self.scale, dtype=torch.float64)
            law = _radius_law(scale, d, curvature)
            return float(law.log_mass) + log_area(d)
        if d > 2:
            raise ConfigurationError(
                f"log_normaliser of {type(self.metric).__name__} in {d} dimensions: expected at "
                "most 2, or a metric of known constant curvature"
            )
        num_points += num_points % 2
        low, high = self._box()
        shares = (torch.arange(num_points).to(low) + 0.5) / num_points
        ticks = low + (high - low) * shares[:, None]
        grid = torch.cartesian_prod(*ticks.unbind(-1)).reshape(-1, d)
        values = self.log_prob(grid).double().reshape([num_points] * d)
        cell = float(((high - low) / num_points).double().log().sum())
        total = float(values.flatten().logsumexp(0))
        half = float(values[(slice(None, None, 2),) * d].flatten().logsumexp(0))
        if not abs(half + d * math.log(2.0) - total) <= COARSE:
            logger.warning(
                "the normalising constant of a RiemannianGaussian changes by more than a percent "
                "on a grid of half as many points: raise num_points=%d",
                num_points,
            )
        return total + cell

    def _box(self) -> tuple[Tensor, Tensor]:
        """Return two corners ``(d,)`` of a box that contains the geodesics from the mean."""
        angles = torch.arange(DIRECTIONS).to(self.mean) * (2.0 * math.pi / DIRECTIONS)
        directions = torch.stack([angles.cos(), angles.sin()], -1)[:, : self.metric.dim]
        local = self.metric.at(self.mean.expand_as(directions))
        velocities = REACH * self.scale * local.velocity(local.draw_momentum(directions))
        points = exponential_path(self.metric, self.mean, velocities).flatten(0, 1)
        return points.amin(0), points.amax(0)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        num_steps: int | None = None,
        num_warmup: int = 25,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw n points, ``(n, d)``: the final states of n chains. Arguments as in `chains`.

        A warning is logged if the chains have not mixed.
        """
        chain = self.chains(n, num_steps=num_steps, num_warmup=num_warmup, generator=generator)
        if n > 1 and not chain.has_mixed:
            logger.warning(
                "chains of a RiemannianGaussian have not mixed (R-hat %.2f): raise num_steps=%d",
                float(chain.r_hat.max()),
                len(chain.samples),
            )
        return chain.final

    @torch.no_grad()
    def chains(
        self,
        n: int,
        *,
        num_steps: int | None = None,
        num_warmup: int = 25,
        generator: torch.Generator | None = None,
    ) -> Chain:
        """Run n chains of the exact `random_walk`, with velocities whitened by the metric.

        They start from a `WrappedNormal` of the same scale.

        Args:
            n: number of chains, at least 1.
            num_steps: steps of each chain after warm-up; None takes 150 per dimension.
            num_warmup: steps that adapt the length of velocities.
            generator: source of randomness, on the device of the mean.

        Raises:
            ConfigurationError: for a count out of range.
            DivergenceError: if a geodesic of the `WrappedNormal` leaves the metric's domain.
        """
        covariance = self.scale**2 * self.metric.inverse(self.mean)
        wrapped = WrappedNormal(self.metric, self.mean, covariance)
        return random_walk(
            self.metric,
            wrapped.sample(n, generator),
            num_steps=150 * self.metric.dim if num_steps is None else num_steps,
            covariance=self.scale**2,
            exact=True,
            whitened=True,
            num_warmup=num_warmup,
            log_prob=self.log_prob,
            generator=generator,
        )


class _SphericalRadiusLaw(RadialLaw):
    r"""The law of the distance to the mean, on a sphere of dimension d and curvature K.

    .. math:: k(r) = -\frac{r^2}{2 \sigma^2} + (d - 1) \log \frac{\sin \sqrt K\, r}{\sqrt K}
    """

    def __init__(self, scale: Tensor, dim: int, curvature: float) -> None:
        self.scale, self.power, self.root = scale, dim - 1, math.sqrt(curvature)
        # An approximation of the mode, between the mode of the flat space and the equator.
        equator = 0.5 * math.pi / self.root
        flat = math.sqrt(self.power) * scale
        mode = flat / (1.0 + (flat / equator).square()).sqrt()
        super().__init__(mode, torch.full_like(mode, 2.0 * equator))

    def log_kernel(self, r: Tensor) -> Tensor:
        sine = (self.root * r).sin().clamp_min(0.0) / self.root
        kernel: Tensor = torch.special.xlogy(self.power, sine) - 0.5 * (r / self.scale).square()
        return kernel


def _radius_law(scale: Tensor, dim: int, curvature: float) -> RadialLaw:
    """Return the law of the distance to the mean in a space of constant curvature."""
    if curvature > 0.0:
        return _SphericalRadiusLaw(scale, dim, curvature)
    return RadiusLaw(scale, dim, -curvature)
