"""The Riemannian random walk: geodesics of random velocities, accepted or rejected."""

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from chartae.checks import check_integer, check_number
from chartae.data.arrays import takes_arrays
from chartae.errors import ConfigurationError
from chartae.geometry.mcmc.density import ManifoldDensity
from chartae.geometry.mcmc.driver import Chain, Schedule, State, accept, check_chains, run_chains
from chartae.geometry.mcmc.jumps import Jumps
from chartae.geometry.mcmc.leapfrog import generalised_leapfrog
from chartae.geometry.metrics.base import ClosedForm, Local, Metric, check_points
from chartae.geometry.metrics.gaussian import covariance_factor, log_normal
from chartae.geometry.paths.exponential import shoot

__all__ = ["random_walk"]


@takes_arrays("initial", "covariance")
@torch.no_grad()
def random_walk(
    metric: Metric,
    initial: Tensor,
    *,
    num_steps: int,
    covariance: Tensor | float,
    exact: bool = False,
    whitened: bool = False,
    num_integration_steps: int = 10,
    num_warmup: int = 0,
    target_acceptance: float = 0.4,
    radius: float | None = None,
    log_prob: Callable[[Tensor], Tensor] | None = None,
    thinning: int = 1,
    jumps: Jumps | None = None,
    generator: torch.Generator | None = None,
) -> Chain:
    r"""Walk on a manifold by geodesics of random velocities, all chains at once.

    The target is the manifold's density p (`ManifoldDensity`), or another density. A step from z
    draws a velocity :math:`v \sim N(0, \Sigma)`, follows the geodesic to
    :math:`z' = \mathrm{Exp}_z(v)` and accepts z' with a probability :math:`\alpha`. A proposal
    outside S, or for which the integrator fails, is rejected.

    As published (Algorithm 3), :math:`\alpha = \min(1, p(z') / p(z))`. The proposal is not
    symmetric, so the stationary distribution of the walk is not p. It depends on :math:`\Sigma`,
    and does *not* tend to p as :math:`\Sigma \to 0` (``docs/sampling.md`` has figures). Remark 3
    of the thesis approximates short geodesics by straight lines. The error is of second order,
    but the effect of the gradient of p on the acceptance is of second order too.

    With ``exact``, the stationary distribution is p for every :math:`\Sigma`. The map
    :math:`(z, v) \mapsto (z', -v')`, with v' the velocity at z', is its own inverse. The geodesic
    flow preserves volume in (z, Gv), so the Jacobian of the map is
    :math:`\det G(z) / \det G(z')`, and Metropolis-Hastings accepts with

    .. math::
        \alpha = \min\left(1, \frac{p(z')\, N(v'; 0, \Sigma) \det G(z)}
        {p(z)\, N(v; 0, \Sigma) \det G(z')}\right).

    With ``whitened``, velocities are :math:`v \sim N(0, s\, G(z)^{-1})`. Their Riemannian length
    has the same distribution everywhere; in the chart they are long where the metric is small. The
    momentum Gv has the distribution :math:`N(0, s\, G(z))`. With the kinetic energies
    :math:`K = \frac12 v^\top G(z) v` at both ends, the acceptance probability is

    .. math::
        \alpha = \min\left(1, \frac{p(z') \sqrt{\det G(z)}}{p(z) \sqrt{\det G(z')}}\,
        e^{(K - K') / s}\right).

    Geodesics conserve K, so the last factor is the error of the integrator. If p is the volume
    element, nearly every step is accepted.

    The discretisation must have the same properties as the flow. Geodesics are therefore
    integrated by the `generalised_leapfrog`, forwards and backwards, at twice the cost. A proposal
    is rejected if its implicit equations are not solved in both directions, or if the backward
    geodesic does not return to z. If the metric has its geodesics in closed form, the closed form
    is used. A proposal beyond the cut locus is then rejected, because the shortest geodesic back
    is a different one.

    Args:
        metric: a metric.
        initial: starting points, ``(chains, d)``, inside S.
        num_steps: steps of the chains after warm-up.
        covariance: :math:`\Sigma`, symmetric positive definite, ``(d, d)``; a number s stands for
            :math:`s I`.
        exact: True accepts by Metropolis-Hastings, False as published.
        whitened: whether the covariance is :math:`s\, G(z)^{-1}`; this requires ``exact`` and a
            number s.
        num_integration_steps: integration steps of each geodesic, by the midpoint method
            (Algorithm 2) or, with ``exact``, by the leapfrog.
        num_warmup: steps of warm-up, which are not kept. Dual averaging adapts a factor on the
            velocities in these steps, starting from 0.1. Without warm-up the factor is 1.
        target_acceptance: target acceptance of the adaptation.
        radius: radius of S, as in `ManifoldDensity`.
        log_prob: log of another density p, with respect to the Lebesgue measure and up to a
            constant: ``(chains, d)`` to ``(chains,)``. The walk is then not restricted to S.
        thinning: keep every ``thinning``-th step, counted back from the last.
        jumps: proposals far from the current point, after every step of an exact walk.
        generator: source of randomness, on the device of ``initial``.

    Returns:
        The `Chain`. Its divergences are the failures of the integrator. Its step size is the
        factor on the velocities.

    Raises:
        DataError: if ``initial`` is not a ``(chains, d)`` float tensor of points inside S, or the
            covariance is not a symmetric positive definite matrix.
        ConfigurationError: for a count or a rate out of range; for a radius that is not valid in
            `ManifoldDensity`; for jumps or whitened velocities if the walk is not exact; for a
            matrix as covariance of whitened velocities; or for both a radius and a ``log_prob``.

    >>> from chartae.geometry.metrics.conformal import PoincareMetric
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
            "jumps: the published walk (exact=False) does not sample the density that jumps "
            "preserve; expected exact=True, or no jumps"
        )
    if whitened and not exact:
        raise ConfigurationError("whitened=True: expected exact=True too")
    if whitened and isinstance(covariance, Tensor) and covariance.dim():
        raise ConfigurationError(
            f"whitened=True, covariance of shape {tuple(covariance.shape)}: expected a number"
        )
    law: MomentumLaw
    if whitened:
        check_number("covariance", covariance, above=0.0)
        law = _MetricVelocities(math.sqrt(covariance))
    else:
        law = _ChartVelocities(covariance_factor(covariance, initial))
    if log_prob is None:
        log_prob = ManifoldDensity(metric, radius).log_prob
    elif radius is not None:
        raise ConfigurationError(f"radius={radius!r}: expected None with log_prob")
    propose = _exact_proposal if exact else _published_proposal

    def kernel(
        state: State, size: float, generator: torch.Generator | None
    ) -> tuple[State, Tensor, Tensor]:
        noise = torch.empty_like(state.z).normal_(generator=generator)
        momenta = law.scaled(size)
        z, correction, valid = propose(metric, state.z, noise, momenta, num_integration_steps)
        log_density = log_prob(torch.where(valid[:, None], z, state.z))
        gain = torch.where(valid, log_density - state.log_density + correction, -torch.inf)
        state, acceptance = accept(state, State(z, log_density), gain, generator)
        return state, acceptance, ~valid

    state = State(initial, log_prob(initial))
    return run_chains(kernel, state, schedule, generator, jumps)


class MomentumLaw(Protocol):
    """The law of the initial momenta of a step, given the metric at the current point."""

    def scaled(self, size: float) -> Self:
        """Return the law of momenta ``size`` times as large."""
        ...

    def draw(self, local: Local, noise: Tensor) -> Tensor:
        """Return momenta ``(..., d)``, computed from draws of N(0, I)."""
        ...

    def log_prob(self, local: Local, momentum: Tensor) -> Tensor:
        """Return the log density of momenta, up to a constant: ``(...)``."""
        ...


class _ChartVelocities(NamedTuple):
    """Momenta of velocities v ~ N(0, L L^T), in coordinates of the chart."""

    factor: Tensor

    def scaled(self, size: float) -> Self:
        return self._replace(factor=size * self.factor)

    def draw(self, local: Local, noise: Tensor) -> Tensor:
        return local.momentum(noise @ self.factor.mT)

    def log_prob(self, local: Local, momentum: Tensor) -> Tensor:
        return log_normal(local.velocity(momentum), self.factor) - 2.0 * local.log_volume


class _MetricVelocities(NamedTuple):
    """Momenta of velocities v ~ N(0, scale^2 G^-1): p ~ N(0, scale^2 G)."""

    scale: float

    def scaled(self, size: float) -> Self:
        return self._replace(scale=size * self.scale)

    def draw(self, local: Local, noise: Tensor) -> Tensor:
        return self.scale * local.draw_momentum(noise)

    def log_prob(self, local: Local, momentum: Tensor) -> Tensor:
        return -local.kinetic(momentum) / self.scale**2 - local.log_volume


def _published_proposal(
    metric: Metric, z: Tensor, noise: Tensor, law: MomentumLaw, num_steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return z', the log of the correction to the ratio of p, and validity.

    ``noise`` is a draw of N(0, I).
    """
    momentum = law.draw(metric.at(z), noise)
    *_, (proposal, _) = shoot(metric, z, momentum, num_steps)
    return proposal, torch.zeros_like(z[:, 0]), torch.isfinite(proposal).all(-1)


def _exact_proposal(
    metric: Metric, z: Tensor, noise: Tensor, law: MomentumLaw, num_steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same quantities as `_published_proposal`, for the exact walk."""
    start = metric.at(z)
    momentum = law.draw(start, noise)
    if metric.closed_form is None:
        proposal, arriving, valid = _by_leapfrog(metric, z, momentum, num_steps)
    else:
        proposal, arriving, valid = _by_formulas(metric, metric.closed_form, z, momentum)
    correction = law.log_prob(metric.at(proposal), arriving) - law.log_prob(start, momentum)
    return proposal, correction, valid & torch.isfinite(correction)


def _by_leapfrog(
    metric: Metric, z: Tensor, momentum: Tensor, num_steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the end points of geodesics, their momenta, and which geodesics are reversible."""
    proposal, arriving, solved = generalised_leapfrog(metric, z, momentum, num_steps=num_steps)
    back, _, returned = generalised_leapfrog(metric, proposal, -arriving, num_steps=num_steps)
    tolerance = torch.finfo(z.dtype).eps ** 0.5
    returned &= ((back - z).abs() <= tolerance * (1.0 + z.abs())).all(-1)
    return proposal, arriving, solved & returned


def _by_formulas(
    metric: Metric, formulas: ClosedForm, z: Tensor, momentum: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same quantities as `_by_leapfrog`, from the closed form.

    Beyond the cut locus the shortest geodesic back is a different one: such steps are rejected.
    """
    start = metric.at(z)
    end = formulas.exponential(z, start.velocity(momentum), z.new_ones(1))[..., 0, :]
    inside = metric.contains(end) & torch.isfinite(end).all(-1)
    end = torch.where(inside[..., None], end, z)
    local = metric.at(end)
    arriving = -local.momentum(formulas.logarithm(end, z))
    before, after = start.kinetic(momentum), local.kinetic(arriving)
    same = (after - before).abs() <= torch.finfo(z.dtype).eps ** 0.5 * (1.0 + before)
    return end, arriving, inside & same
