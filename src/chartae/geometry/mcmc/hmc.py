"""Hamiltonian Monte Carlo."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from chartae.checks import check_integer
from chartae.data.arrays import takes_arrays
from chartae.geometry.mcmc.driver import Chain, Schedule, State, accept, check_chains, run_chains
from chartae.geometry.mcmc.jumps import Jumps

__all__ = ["LogDensity", "hmc"]

LogDensity = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps z ``(chains, d)`` to the log density ``(chains,)`` and its gradient ``(chains, d)``."""


@takes_arrays("initial")
@torch.no_grad()
def hmc(
    log_density_and_grad: LogDensity,
    initial: Tensor,
    *,
    num_steps: int,
    num_leapfrog: int = 10,
    step_size: float | None = None,
    num_warmup: int = 50,
    target_acceptance: float = 0.8,
    thinning: int = 1,
    first_step_size: float = 0.1,
    jumps: Jumps | None = None,
    generator: torch.Generator | None = None,
) -> Chain:
    r"""Sample a density by Hamiltonian Monte Carlo, all chains at once.

    Every step draws a momentum from N(0, I), integrates ``num_leapfrog`` leapfrog steps, and
    accepts with probability :math:`\min(1, e^{H_0 - H})`. A proposal with log density -inf or NaN
    is rejected. All chains share one step size. If it is not given, dual averaging adapts it
    during ``num_warmup`` steps, which are not kept. The step size of each trajectory is varied at
    random by up to 10 %, to avoid resonance with a period of the target.

    Trajectories explore a region of high density, and rarely cross a low-density region to another
    one. The optional ``jumps`` do this after every step. They do not change the stationary
    distribution.

    Args:
        log_density_and_grad: maps z ``(chains, d)`` to log density ``(chains,)`` and gradient
            ``(chains, d)``. The density may lack a constant factor. It is called under
            `torch.no_grad`.
        initial: starting states, ``(chains, d)``, of positive density.
        num_steps: steps after warm-up.
        num_leapfrog: number of leapfrog steps in each step.
        step_size: fixed step size; None adapts it.
        num_warmup: steps of warm-up, which are not kept. They are also made with a fixed step size.
        target_acceptance: target acceptance of dual averaging.
        thinning: keep every ``thinning``-th step, counted back from the last.
        first_step_size: initial step size of the adaptation.
        jumps: proposals far from the current point, for the same density.
        generator: source of randomness, on the device of ``initial``.

    Raises:
        DataError: if ``initial`` is not a ``(chains, d)`` float tensor of positive density.
        ConfigurationError: for a count or a rate out of range.

    >>> def standard_normal(z):
    ...     return -0.5 * z.square().sum(-1), -z
    >>> chain = hmc(
    ...     standard_normal,
    ...     torch.zeros(500, 2),
    ...     num_steps=50,
    ...     generator=torch.Generator().manual_seed(0),
    ... )
    >>> chain.samples.shape, bool((chain.samples.std((0, 1)) - 1).abs().max() < 0.05)
    (torch.Size([50, 500, 2]), True)
    """
    check_chains(initial)
    check_integer("num_leapfrog", num_leapfrog, minimum=1)
    schedule = Schedule(
        num_steps, num_warmup, step_size, first_step_size, target_acceptance, thinning
    )

    def kernel(
        state: State, size: float, generator: torch.Generator | None
    ) -> tuple[State, Tensor, Tensor]:
        return _transition(log_density_and_grad, state, size, num_leapfrog, generator)

    state = State(initial, *log_density_and_grad(initial))
    return run_chains(kernel, state, schedule, generator, jumps)


def _transition(
    log_density_and_grad: LogDensity,
    state: State,
    step_size: float,
    num_leapfrog: int,
    generator: torch.Generator | None,
) -> tuple[State, Tensor, Tensor]:
    """Make one step; return the new state, acceptance probabilities and divergence flags."""
    z0, log_density0, grad0 = state
    if grad0 is None:
        grad0 = log_density_and_grad(z0)[1]
        state = state._replace(grad=grad0)
    momentum0 = torch.empty_like(z0).normal_(generator=generator)
    eps = step_size * torch.empty_like(z0[:, :1]).uniform_(0.9, 1.1, generator=generator)
    z, grad = z0, grad0
    momentum = momentum0 + 0.5 * eps * grad
    for step in range(num_leapfrog):
        z = z + eps * momentum
        log_density, grad = log_density_and_grad(z)
        momentum = momentum + (eps if step < num_leapfrog - 1 else 0.5 * eps) * grad
    kinetic, kinetic0 = 0.5 * momentum.square().sum(-1), 0.5 * momentum0.square().sum(-1)
    gain = (log_density - kinetic) - (log_density0 - kinetic0)
    # A log density of -inf is a boundary of the target, not a failure of the integrator.
    wall = (log_density == -math.inf) & torch.isfinite(kinetic)
    diverged = ~((gain >= -1000.0) & (gain < math.inf)) & ~wall
    state, acceptance = accept(state, State(z, log_density, grad), gain, generator)
    return state, acceptance, diverged
