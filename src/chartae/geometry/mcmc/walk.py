"""The Riemannian random walk: geodesics of random velocities, accepted or not."""

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

    The target is the manifold's own density p (`ManifoldDensity`), or another one. A step from z
    draws a velocity :math:`v \sim N(0, \Sigma)`, follows the geodesic to
    :math:`z' = \mathrm{Exp}_z(v)` and accepts it with a probability :math:`\alpha`; outside S, or
    where the integrator fails, it is rejected.

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

    With ``whitened``, velocities are :math:`v \sim N(0, s\, G(z)^{-1})`: of one Riemannian length
    everywhere, long in the chart where the metric is small. The momentum Gv has the law
    :math:`N(0, s\, G(z))`, so with the kinetic energies
    :math:`K = \frac12 v^\top G(z) v` at both ends

    .. math::
        \alpha = \min\Big(1, \frac{p(z') \sqrt{\det G(z)}}{p(z) \sqrt{\det G(z')}}\,
        e^{(K - K') / s}\Big).

    Geodesics conserve K: the last factor is the error of the integrator. Where p is the volume
    element, nearly every step is accepted.

    What holds of the flow must hold of its discretisation: geodesics are followed by the
    `generalised_leapfrog`, and followed back, at twice the cost; a proposal whose implicit
    equations are not solved both ways, or that does not return to z, is rejected. A metric with its
    geodesics in closed form uses that, and nothing is integrated; beyond the cut locus, where the
    shortest way back is another one, a proposal is rejected.

    Args:
        metric: a metric.
        initial: starting points, ``(chains, d)``, inside S.
        num_steps: steps of the chains after warm-up.
        covariance: :math:`\Sigma`, symmetric positive definite, ``(d, d)``; a number s stands for
            :math:`s I`.
        exact: whether to accept by Metropolis-Hastings, or as published.
        whitened: whether the covariance is :math:`s\, G(z)^{-1}`, for an exact walk and a number s.
        num_integration_steps: steps of each geodesic: of the midpoint method (Algorithm 2), or of
            the leapfrog.
        num_warmup: steps, not kept, during which dual averaging multiplies velocities by a factor
            that it adapts, from 0.1 on; without them the factor is 1.
        target_acceptance: what it aims at.
        radius: of S, as in `ManifoldDensity`.
        log_prob: log of another density p, with respect to Lebesgue's measure and up to a
            constant: ``(chains, d)`` to ``(chains,)``; there is then no S.
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
            jumps or whitened velocities of a walk that is not exact, a matrix for the
            covariance of whitened ones, or both a radius and a ``log_prob``.

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
            "jumps: the published walk has a law of its own, which no jump keeps; expected "
            "exact=True, or no jumps"
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
    """The law of the momenta with which a walk sets out, given the metric there."""

    def scaled(self, size: float) -> Self:
        """Return the law of momenta ``size`` times as large."""
        ...

    def draw(self, local: Local, noise: Tensor) -> Tensor:
        """Return momenta ``(..., d)``, made from draws of N(0, I)."""
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
    """Return z', log of what p's ratio is multiplied by, and validity, given a draw of N(0, I)."""
    momentum = law.draw(metric.at(z), noise)
    *_, (proposal, _) = shoot(metric, z, momentum, num_steps)
    return proposal, torch.zeros_like(z[:, 0]), torch.isfinite(proposal).all(-1)


def _exact_proposal(
    metric: Metric, z: Tensor, noise: Tensor, law: MomentumLaw, num_steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `_published_proposal` does."""
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
    """Return where geodesics lead, the momenta there, and for which the map can be undone."""
    proposal, arriving, solved = generalised_leapfrog(metric, z, momentum, num_steps=num_steps)
    back, _, returned = generalised_leapfrog(metric, proposal, -arriving, num_steps=num_steps)
    tolerance = torch.finfo(z.dtype).eps ** 0.5
    returned &= ((back - z).abs() <= tolerance * (1.0 + z.abs())).all(-1)
    return proposal, arriving, solved & returned


def _by_formulas(
    metric: Metric, formulas: ClosedForm, z: Tensor, momentum: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `_by_leapfrog` does.

    Beyond the cut locus the way back is another one, and shorter: such steps are rejected.
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
