"""Walking along geodesics: the wrapped normal distribution and the Riemannian random walk."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from chartae.checks import check_floating, check_integer, check_number, check_shape
from chartae.data.arrays import takes_arrays
from chartae.errors import ConfigurationError
from chartae.geometry.centroid import check_positive_definite
from chartae.geometry.density import ManifoldDensity
from chartae.geometry.exponential import exponential_map, shoot
from chartae.geometry.geodesics import logarithmic_map
from chartae.geometry.integrators import generalised_leapfrog
from chartae.geometry.jumps import Jumps
from chartae.geometry.mcmc import Chain, Schedule, State, accept, check_chains, run_chains
from chartae.geometry.metric import Metric, check_points
from chartae.gradients import gradients

__all__ = ["WrappedNormal", "random_walk"]


class WrappedNormal:
    r"""The wrapped normal distribution (Mallasto and Feragen, 2018; thesis section 2.1).

    A normal velocity at a point, carried to the manifold by the exponential map:
    :math:`z = \mathrm{Exp}_p(v),\ v \sim N(0, \Sigma)`, in coordinates of the chart. Its density
    is one with respect to Lebesgue's measure of the chart; `chartae.distributions.PoincareNormal`,
    of the hyperbolic ball, has one with respect to the ball's own volume.

    Args:
        metric: a metric.
        mean: p, ``(d,)``.
        covariance: :math:`\Sigma`, symmetric positive definite, ``(d, d)``; a number s stands for
            :math:`s I`.
        num_steps: steps of the exponential map.

    Raises:
        DataError: if the mean is not a point of the metric, or the covariance is not symmetric
            positive definite, of its shape.
        ConfigurationError: for a number out of range.

    >>> from chartae.geometry.conformal import PoincareMetric
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
        self.factor = _cholesky(covariance, mean)

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
        r"""Return the log density of z ``(..., d)`` for Lebesgue's measure of the chart: ``(...)``.

        :math:`\log N(v; 0, \Sigma) - \log |\det D\,\mathrm{Exp}_p(v)|` at
        :math:`v = \mathrm{Log}_p(z)`. That is all of the density where a single geodesic leads
        from p to z: everywhere, if the curvature is not positive, and nearer than the cut locus if
        it is. Beyond, it counts the shortest geodesic alone; where `logarithmic_map` warns that it
        found none, the value means nothing.

        Raises:
            DataError: if z are not points of the metric.
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
        return _log_normal(v.detach(), self.factor) - stretch.detach()


def _log_normal(v: Tensor, factor: Tensor) -> Tensor:
    """Return log N(v; 0, L L^T) of v ``(..., d)``, for the lower factor L: ``(...)``."""
    zero = torch.zeros_like(factor[0])
    normal = MultivariateNormal(zero, scale_tril=factor, validate_args=False)
    log_prob: Tensor = normal.log_prob(v)
    return log_prob


@takes_arrays("initial", "covariance")
@torch.no_grad()
def random_walk(
    metric: Metric,
    initial: Tensor,
    *,
    num_steps: int,
    covariance: Tensor | float,
    exact: bool = False,
    num_integration_steps: int = 10,
    num_warmup: int = 0,
    target_acceptance: float = 0.4,
    radius: float | None = None,
    thinning: int = 1,
    jumps: Jumps | None = None,
    generator: torch.Generator | None = None,
) -> Chain:
    r"""Walk on a manifold by geodesics of random velocities, all chains at once.

    The target is the manifold's own density p (`ManifoldDensity`). A step from z draws a velocity
    :math:`v \sim N(0, \Sigma)`, follows the geodesic to :math:`z' = \mathrm{Exp}_z(v)` and accepts
    it with a probability :math:`\alpha`; outside S, or where the integrator fails, it is rejected.

    As published (Algorithm 3), :math:`\alpha = \min(1, p(z') / p(z))`. The proposal is not
    symmetric, and so the walk has another law than p: one that depends on :math:`\Sigma`, and does
    *not* tend to p as :math:`\Sigma \to 0` (``docs/sampling.md`` has figures). The thesis' remark
    3 takes short geodesics for straight lines; their bending is of second order, but so is
    what a gradient of p does to the acceptance.

    With ``exact``, the walk has the law p for every :math:`\Sigma`. The map
    :math:`(z, v) \mapsto (z', -v')`, with v' the velocity on arrival, is its own inverse; the
    geodesic flow preserves volume in (z, Gv), so its Jacobian is
    :math:`\det G(z) / \det G(z')`, and Metropolis-Hastings accepts with

    .. math::
        \alpha = \min\Big(1, \frac{p(z')\, N(v'; 0, \Sigma) \det G(z)}
        {p(z)\, N(v; 0, \Sigma) \det G(z')}\Big).

    What holds of the flow must hold of its discretisation: geodesics are followed by the
    `generalised_leapfrog`, and followed back, at twice the cost; a proposal whose implicit
    equations are not solved both ways, or that does not return to z, is rejected.

    Args:
        metric: a metric.
        initial: starting points, ``(chains, d)``, inside S.
        num_steps: steps of the chains after warm-up.
        covariance: :math:`\Sigma`, symmetric positive definite, ``(d, d)``; a number s stands for
            :math:`s I`.
        exact: whether to accept by Metropolis-Hastings, or as published.
        num_integration_steps: steps of each geodesic: of the midpoint method (Algorithm 2), or of
            the leapfrog.
        num_warmup: steps, not kept, during which dual averaging multiplies velocities by a factor
            that it adapts, from 0.1 on; without them the factor is 1.
        target_acceptance: what it aims at.
        radius: of S, as in `ManifoldDensity`.
        thinning: keep every ``thinning``-th step, counted back from the last.
        jumps: proposals far from where a chain is, after every step of an exact walk.
        generator: source of randomness, on the device of ``initial``.

    Returns:
        The `Chain`; its divergences are the failures of the integrator, its step size is the
        factor on velocities.

    Raises:
        DataError: if ``initial`` is not a ``(chains, d)`` float tensor of points inside S, or the
            covariance is not symmetric positive definite, of its dtype.
        ConfigurationError: for a count or a rate out of range, a radius as in `ManifoldDensity`,
            or jumps of a walk that is not exact.

    >>> from chartae.geometry.conformal import PoincareMetric
    >>> chain = random_walk(
    ...     PoincareMetric(2),
    ...     torch.zeros(100, 2),
    ...     num_steps=10,
    ...     covariance=0.02,
    ...     exact=True,
    ...     radius=0.95,
    ...     generator=torch.Generator().manual_seed(0),
    ... )
    >>> chain.samples.shape, int(chain.divergences.sum())
    (torch.Size([10, 100, 2]), 0)
    """
    check_chains(initial)
    check_points(metric, initial=initial)
    check_integer("num_integration_steps", num_integration_steps, minimum=1)
    first = 0.1 if num_warmup else 1.0
    schedule = Schedule(num_steps, num_warmup, None, first, target_acceptance, thinning)
    if jumps is not None and not exact:
        raise ConfigurationError(
            "jumps: the published walk has a law of its own, which no jump keeps; expected "
            "exact=True, or no jumps"
        )
    factor = _cholesky(covariance, initial)
    density = ManifoldDensity(metric, radius)
    propose = _exact_proposal if exact else _published_proposal

    def kernel(
        state: State, size: float, generator: torch.Generator | None
    ) -> tuple[State, Tensor, Tensor]:
        noise = torch.empty_like(state.z).normal_(generator=generator)
        z, correction, valid = propose(metric, state.z, noise, size * factor, num_integration_steps)
        log_density = density.log_prob(torch.where(valid[:, None], z, state.z))
        gain = torch.where(valid, log_density - state.log_density + correction, -torch.inf)
        state, acceptance = accept(state, State(z, log_density), gain, generator)
        return state, acceptance, ~valid

    state = State(initial, density.log_prob(initial))
    return run_chains(kernel, state, schedule, generator, jumps)


Proposal = Callable[[Metric, Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor, Tensor]]
"""From z, noise and the factor of Sigma: z', log of what p's ratio is multiplied by, validity."""


def _published_proposal(
    metric: Metric, z: Tensor, noise: Tensor, factor: Tensor, num_steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    momentum = metric.at(z).momentum(noise @ factor.mT)
    *_, (proposal, _) = shoot(metric, z, momentum, num_steps)
    return proposal, torch.zeros_like(z[:, 0]), torch.isfinite(proposal).all(-1)


def _exact_proposal(
    metric: Metric, z: Tensor, noise: Tensor, factor: Tensor, num_steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    start = metric.at(z)
    velocity = noise @ factor.mT
    momentum = start.momentum(velocity)
    proposal, arriving, solved = generalised_leapfrog(metric, z, momentum, num_steps=num_steps)
    back, _, returned = generalised_leapfrog(metric, proposal, -arriving, num_steps=num_steps)
    tolerance = torch.finfo(z.dtype).eps ** 0.5
    returned &= ((back - z).abs() <= tolerance * (1.0 + z.abs())).all(-1)
    end = metric.at(proposal)
    normal = _log_normal(end.velocity(arriving), factor) - _log_normal(velocity, factor)
    correction = normal + 2.0 * (start.log_volume - end.log_volume)
    return proposal, correction, solved & returned & torch.isfinite(correction)


def _cholesky(covariance: Tensor | float, like: Tensor) -> Tensor:
    """Return the lower factor of a covariance, ``(d, d)``, once it is checked."""
    d = like.shape[-1]
    if not isinstance(covariance, Tensor):
        check_number("covariance", covariance, above=0.0)
        return math.sqrt(covariance) * torch.eye(d, dtype=like.dtype, device=like.device)
    check_floating("covariance", covariance)
    check_shape("covariance", covariance, (d, d))
    check_positive_definite("covariance", covariance)
    factor: Tensor = torch.linalg.cholesky(covariance.to(like))
    return factor
