"""Jumps between regions of high density: independent Metropolis proposals from a mixture."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from chartae.checks import check_integer
from chartae.distributions import NormalMixture
from chartae.geometry.mcmc.driver import State, accept, acceptance_probability

__all__ = ["Jumps"]

DEFENSIVE = 0.1
"""Share of the weights that stays equal over all components during adaptation."""
ROUNDS = 6
"""Number of rounds of adaptation."""
DRAWS = (1000, 16)
"""Minimum number of draws in a round, and number of draws for each component. With fewer draws,
adaptation can miss a component that has most of the mass but whose draws are mostly outside the
target's support. An example is a wide component between the bumps."""
WITHIN = 0.1
"""Minimum share of draws with a positive density. Component scales are halved until it is reached.
"""
HALVINGS = 50
"""Maximum number of halvings."""
LARGEST = 2**24
"""Maximum number of (draw, component) pairs in a round."""
FEWEST = 4
"""Minimum number of draws for each component. If LARGEST allows fewer, the weights stay equal."""
STUCK = 0.1
"""Accepted share of chains without an accepted jump in a step. It sets the number of jumps."""
MOST = 20
"""Maximum number of jumps in a step."""


@dataclass(frozen=True)
class Jumps:
    r"""Independent proposals from a mixture q, accepted by Metropolis' rule.

    A chain at z moves to :math:`z' \sim q` with probability
    :math:`\min(1, p(z') q(z) / (p(z) q(z')))`. The distribution p is invariant for every q. A
    chain moves more often if q is closer to p.

    Attributes:
        log_prob: log of the density p, up to a constant: ``(chains, d)`` to ``(chains,)``.
        proposal: the mixture q.
        count: number of jumps in a step, at least 1.

    >>> from chartae.geometry.mcmc.hmc import hmc
    >>> target = NormalMixture(torch.tensor([[-9.0], [9.0]]), torch.tensor(1.0))
    >>> def density(z):
    ...     with torch.enable_grad():
    ...         z = z.detach().requires_grad_()
    ...         log_prob = target.log_prob(z)
    ...         (grad,) = torch.autograd.grad(log_prob.sum(), z)
    ...     return log_prob.detach(), grad
    >>> generator = torch.Generator().manual_seed(0)
    >>> start = torch.full((500, 1), 9.0)
    >>> hmc(density, start, num_steps=20, generator=generator).final.mean() > 8
    tensor(True)
    >>> jumps = Jumps(target.log_prob, NormalMixture(target.loc, torch.tensor(1.5)))
    >>> chain = hmc(density, start, num_steps=20, jumps=jumps, generator=generator)
    >>> abs(chain.final.mean()) < 1.5
    tensor(True)
    """

    log_prob: Callable[[Tensor], Tensor]
    proposal: NormalMixture
    count: int = 1

    def __post_init__(self) -> None:
        check_integer("count", self.count, minimum=1)

    def __call__(self, state: State, generator: torch.Generator | None) -> State:
        """Return the state after ``count`` jumps, without its gradient."""
        weight = state.log_density - self.proposal.log_prob(state.z)
        for _ in range(self.count):
            z = self.proposal.sample((len(state.z),), generator)
            log_density = self.log_prob(z)
            new_weight = log_density - self.proposal.log_prob(z)
            proposed = State(z, log_density)
            state, _ = accept(state, proposed, new_weight - weight, generator)
            weight = torch.where((state.z == z).all(-1), new_weight, weight)
        return state

    @classmethod
    @torch.no_grad()
    def adapted(
        cls,
        log_prob: Callable[[Tensor], Tensor],
        proposal: NormalMixture,
        generator: torch.Generator | None = None,
    ) -> tuple[Self, Tensor]:
        r"""Return jumps whose mixture weights are adapted to a density, and initial points.

        The method is population Monte Carlo (Cappé et al., 2008). Draws of q have the importance
        weights p / q. The new weight of a component is its share of these weights, averaged over
        the rounds so far in proportion to their effective sample sizes. Ten percent of the total
        weight stays equal over components, so that no component is lost.

        Args:
            log_prob: log of the density, up to a constant; it must be finite at the means.
            proposal: a mixture whose components cover the density; their weights may be arbitrary.
                If fewer than a tenth of its draws have a positive density, its components are made
                narrower.
            generator: source of randomness.

        Returns:
            The jumps; their number in a step is such that about a tenth of the chains accept none.
            And draws, resampled by their weights, that follow the density approximately,
            ``(n, d)``.
        """
        proposal = _within_reach(log_prob, proposal, generator)
        components = len(proposal.loc)
        draws = min(max(DRAWS[0], DRAWS[1] * components), LARGEST // components)
        if draws < FEWEST * components:
            found = _Weighted.of(log_prob, proposal, DRAWS[0], generator)
        else:
            found = _Weighted.of(log_prob, proposal, draws, generator)
            total = torch.zeros_like(proposal.weights)
            for _ in range(ROUNDS - 1):
                total = total + found.effective_size * found.shares()
                weights = (1.0 - DEFENSIVE) * total / total.sum() + DEFENSIVE / components
                mixture = NormalMixture(proposal.loc, proposal.scale, weights)
                found = _Weighted.of(log_prob, mixture, draws, generator)
        chosen = torch.multinomial(
            found.weights, len(found.z), replacement=True, generator=generator
        )
        acceptance = acceptance_probability(found.log_ratio - found.log_ratio[chosen]).mean()
        return cls(log_prob, found.proposal, _enough(float(acceptance))), found.z[chosen]


@dataclass(frozen=True)
class _Weighted:
    """Draws of a proposal with their importance weights.

    Attributes:
        proposal: the mixture q.
        z: draws, ``(n, d)``.
        log_ratio: log of p / q, ``(n,)``.
    """

    proposal: NormalMixture
    z: Tensor
    log_ratio: Tensor

    @classmethod
    def of(
        cls,
        log_prob: Callable[[Tensor], Tensor],
        proposal: NormalMixture,
        draws: int,
        generator: torch.Generator | None,
    ) -> Self:
        z = proposal.sample((draws,), generator)
        return cls(proposal, z, log_prob(z) - proposal.log_prob(z))

    @property
    def weights(self) -> Tensor:
        """The weights, of sum 1, ``(n,)``."""
        return self.log_ratio.softmax(0)

    @property
    def effective_size(self) -> float:
        """The effective sample size of the weights."""
        return float(1.0 / self.weights.square().sum())

    def shares(self) -> Tensor:
        """Return the share of the weights of each component, ``(K,)``."""
        responsibilities = self.proposal.log_joint(self.z).softmax(-1)
        return self.weights @ responsibilities.to(self.weights)


def _within_reach(
    log_prob: Callable[[Tensor], Tensor],
    proposal: NormalMixture,
    generator: torch.Generator | None,
) -> NormalMixture:
    """Return the mixture, narrowed until a tenth of its draws have a positive density."""
    z = proposal.sample((DRAWS[0],), generator)
    for _ in range(HALVINGS):
        if float(log_prob(z).isfinite().double().mean()) >= WITHIN:
            break
        proposal = NormalMixture(proposal.loc, 0.5 * proposal.scale, proposal.weights)
        z = proposal.sample((DRAWS[0],), generator)
    return proposal


def _enough(acceptance: float) -> int:
    """Return the number of jumps in a step for an acceptance probability."""
    if acceptance >= 1.0 - STUCK:
        return 1
    if acceptance <= 0.0:
        return MOST
    return min(MOST, math.ceil(math.log(STUCK) / math.log1p(-acceptance)))
