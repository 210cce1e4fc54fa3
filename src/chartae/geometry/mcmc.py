"""Markov chain Monte Carlo over batches of chains: Hamiltonian Monte Carlo and its diagnostics."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from chartae.checks import check_floating, check_integer, check_number, check_shape
from chartae.data.arrays import takes_arrays
from chartae.errors import DataError

__all__ = ["Chain", "LogDensity", "effective_sample_size", "hmc", "split_r_hat"]

LogDensity = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps z ``(chains, d)`` to the log density ``(chains,)`` and its gradient ``(chains, d)``."""


@dataclass(frozen=True)
class Chain:
    """What a sampler of Markov chains returns.

    Attributes:
        samples: kept states, ``(kept steps, chains, d)``; the last row is the final state.
        acceptance: mean acceptance probability of each chain after warm-up, ``(chains,)``.
        divergences: number of steps of each chain on which the integrator failed, ``(chains,)``:
            its energy error exceeded 1000, or was NaN, or its equations had no solution.
        step_size: the step size used after warm-up.
    """

    samples: Tensor
    acceptance: Tensor
    divergences: Tensor
    step_size: float

    @property
    def final(self) -> Tensor:
        """The final states, ``(chains, d)``."""
        return self.samples[-1]

    @property
    def r_hat(self) -> Tensor:
        """Split R-hat of each coordinate, ``(d,)``; near 1 when the chains agree."""
        return split_r_hat(self.samples)

    @property
    def effective_sample_size(self) -> Tensor:
        """Effective sample size of each coordinate over all chains, ``(d,)``."""
        return effective_sample_size(self.samples)


class DualAveraging:
    """Step size adaptation by dual averaging (Hoffman and Gelman, 2014, section 3.2.1)."""

    def __init__(self, step_size: float, target: float) -> None:
        self.target, self.anchor = target, math.log(10.0 * step_size)
        self.count, self.error, self.log_average = 0, 0.0, 0.0
        self.step_size = step_size

    def update(self, acceptance: float) -> None:
        """Move the step size towards the target, given the mean acceptance of one step."""
        self.count += 1
        weight = 1.0 / (self.count + 10.0)
        self.error += weight * (self.target - acceptance - self.error)
        log_step = self.anchor - math.sqrt(self.count) / 0.05 * self.error
        eta = self.count**-0.75
        self.log_average += eta * (log_step - self.log_average)
        self.step_size = math.exp(log_step)

    @property
    def average(self) -> float:
        """The averaged step size, to be used once adaptation ends."""
        return math.exp(self.log_average) if self.count else self.step_size


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
    generator: torch.Generator | None = None,
) -> Chain:
    r"""Sample a density by Hamiltonian Monte Carlo, all chains at once.

    Every step draws a momentum from N(0, I), integrates ``num_leapfrog`` leapfrog steps, and
    accepts with probability :math:`\min(1, e^{H_0 - H})`. A log density of -inf is a wall, and a
    NaN a rejection: neither can poison a chain. All chains share one step size; unless it is
    given, dual averaging adapts it during ``num_warmup`` steps, which are not kept. Each
    trajectory's step is jittered by 10 %, so that no period of the target is locked in.

    Args:
        log_density_and_grad: maps z ``(chains, d)`` to log density ``(chains,)`` and gradient
            ``(chains, d)``, known up to a constant. It is called under `torch.no_grad`.
        initial: starting states, ``(chains, d)``, of positive density.
        num_steps: steps after warm-up.
        num_leapfrog: leapfrog steps of each step.
        step_size: fixed step size; None adapts it.
        num_warmup: steps of adaptation; they are made, and not kept, for a fixed step too.
        target_acceptance: what dual averaging aims at.
        thinning: keep every ``thinning``-th step, counted back from the last.
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
    check_integer("num_steps", num_steps, minimum=1)
    check_integer("num_leapfrog", num_leapfrog, minimum=1)
    check_integer("num_warmup", num_warmup, minimum=0)
    check_integer("thinning", thinning, minimum=1)
    check_number("target_acceptance", target_acceptance, above=0.0, below=1.0)
    if step_size is not None:
        check_number("step_size", step_size, above=0.0)
    state = (initial, *log_density_and_grad(initial))
    check_positive_density(state[1])
    adaptation = DualAveraging(step_size or 0.1, target_acceptance)
    kept: list[Tensor] = []
    total = torch.zeros_like(state[1])
    divergences = torch.zeros(len(initial), dtype=torch.long, device=initial.device)
    for step in range(-num_warmup, num_steps):
        size = adaptation.step_size if step < 0 else adaptation.average
        state, acceptance, diverged = _transition(
            log_density_and_grad, state, step_size or size, num_leapfrog, generator
        )
        if step < 0:
            if step_size is None:
                adaptation.update(float(acceptance.mean()))
            continue
        total += acceptance
        divergences += diverged
        if (num_steps - 1 - step) % thinning == 0:
            kept.append(state[0])
    used = step_size or adaptation.average
    return Chain(torch.stack(kept), total / num_steps, divergences, used)


def check_chains(initial: Tensor) -> None:
    """Raise `DataError` unless starting states are a float tensor ``(chains, d)``."""
    check_floating("initial", initial)
    check_shape("initial", initial, ("chains", "d"))
    if not len(initial):
        raise DataError("initial is empty: expected at least one chain")


def check_positive_density(log_density: Tensor) -> None:
    """Raise `DataError` unless the log density of the starting states, ``(chains,)``, is finite."""
    bad = int((~torch.isfinite(log_density)).sum())
    if bad:
        raise DataError(
            f"initial: {bad} of {len(log_density)} states have no finite log density: "
            "expected states of positive density"
        )


State = tuple[Tensor, Tensor, Tensor]


def _transition(
    log_density_and_grad: LogDensity,
    state: State,
    step_size: float,
    num_leapfrog: int,
    generator: torch.Generator | None,
) -> tuple[State, Tensor, Tensor]:
    """Make one step; return the new state, acceptance probabilities and divergence flags."""
    z0, log_density0, grad0 = state
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
    acceptance = acceptance_probability(gain)
    accepted = torch.empty_like(acceptance).uniform_(generator=generator) < acceptance
    # A wall is a boundary of the target, not a failure of the integrator.
    wall = (log_density == -math.inf) & torch.isfinite(kinetic)
    diverged = ~((gain >= -1000.0) & (gain < math.inf)) & ~wall
    new = (
        torch.where(accepted[:, None], z, z0),
        torch.where(accepted, log_density, log_density0),
        torch.where(accepted[:, None], grad, grad0),
    )
    return new, acceptance, diverged


def acceptance_probability(gain: Tensor) -> Tensor:
    """Return min(1, e^gain), ``(chains,)``; a gain that is NaN or infinite gives 0."""
    finite = torch.nan_to_num(gain, nan=-math.inf, posinf=-math.inf, neginf=-math.inf)
    return finite.clamp_max(0.0).exp()


@takes_arrays("samples")
def split_r_hat(samples: Tensor) -> Tensor:
    """Return split R-hat of each coordinate (Gelman et al., 2013), ``(d,)``.

    Args:
        samples: ``(steps, chains, d)``, at least 4 steps, else NaN.
    """
    half = samples.shape[0] // 2
    if half < 2:
        return samples.new_full(samples.shape[-1:], math.nan)
    split = torch.cat([samples[:half], samples[-half:]], dim=1)
    within = split.var(0).mean(0)
    between = split.mean(0).var(0)
    return ((half - 1) / half + between / within).sqrt()


@takes_arrays("samples")
def effective_sample_size(samples: Tensor) -> Tensor:
    """Return the effective sample size of each coordinate over all chains, ``(d,)``.

    Autocorrelations by FFT, summed in pairs while these are positive (Geyer, 1992; Stan's manual).

    Args:
        samples: ``(steps, chains, d)``, at least 4 steps, else NaN.
    """
    steps, chains, d = samples.shape
    if steps < 4:
        return samples.new_full((d,), math.nan)
    centred = samples - samples.mean(0)
    spectrum = torch.fft.rfft(centred, n=2 * steps, dim=0)
    covariance = torch.fft.irfft(spectrum.abs().square(), n=2 * steps, dim=0)[:steps] / steps
    within = covariance[0].mean(0) * steps / (steps - 1)
    between = samples.mean(0).var(0) if chains > 1 else torch.zeros_like(within)
    pooled = within * (steps - 1) / steps + between
    rho = 1.0 - (within - covariance.mean(1)) / pooled
    rho[0] = 1.0
    pairs = rho[: steps - steps % 2].unflatten(0, (-1, 2)).sum(1)
    positive = (pairs > 0).cumprod(0)
    monotone = torch.cummin(pairs, 0).values * positive
    time = -1.0 + 2.0 * monotone.sum(0)
    size: Tensor = steps * chains / time.clamp_min(2.0 / 3.0)  # alternating chains: 1.5 at most
    return size
