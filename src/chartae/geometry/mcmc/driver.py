"""Markov chain Monte Carlo over batches of chains: the driver, its result, and diagnostics."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from chartae.checks import (
    check_floating,
    check_integer,
    check_number,
    check_shape,
)
from chartae.data.arrays import takes_arrays
from chartae.errors import DataError

__all__ = ["Chain", "Schedule", "State", "effective_sample_size", "run_chains", "split_r_hat"]


class State(NamedTuple):
    """The current state of chains.

    Attributes:
        z: points, ``(chains, d)``.
        log_density: log density of the target at z, ``(chains,)``.
        grad: gradient of the log density, ``(chains, d)``; None if it is not known.
    """

    z: Tensor
    log_density: Tensor
    grad: Tensor | None = None


Kernel = Callable[[State, float, torch.Generator | None], tuple[State, Tensor, Tensor]]
"""Maps a state and a step size to the new state, acceptance probabilities ``(chains,)``, and
failures ``(chains,)``."""
Move = Callable[[State, torch.Generator | None], State]
"""A kernel without a step size."""


@dataclass(frozen=True)
class Schedule:
    """The number of steps of chains, the steps that are kept, and the step size.

    Attributes:
        num_steps: steps after warm-up, at least 1.
        num_warmup: steps of warm-up, which are not kept.
        step_size: a fixed size, positive; None adapts it during warm-up.
        first_step_size: initial step size of the adaptation, positive.
        target_acceptance: target of the mean acceptance probability, in (0, 1).
        thinning: keep every ``thinning``-th step, counted back from the last.

    Raises:
        ConfigurationError: for a count or a rate out of range.
    """

    num_steps: int
    num_warmup: int
    step_size: float | None
    first_step_size: float
    target_acceptance: float
    thinning: int = 1

    def __post_init__(self) -> None:
        check_integer("num_steps", self.num_steps, minimum=1)
        check_integer("num_warmup", self.num_warmup, minimum=0)
        check_integer("thinning", self.thinning, minimum=1)
        check_number("target_acceptance", self.target_acceptance, above=0.0, below=1.0)
        check_number("first_step_size", self.first_step_size, above=0.0)
        if self.step_size is not None:
            check_number("step_size", self.step_size, above=0.0)


MIXED = 1.1
"""Largest split R-hat of chains that have mixed."""


@dataclass(frozen=True)
class Chain:
    """The result of a Markov chain sampler.

    Attributes:
        samples: kept states, ``(kept steps, chains, d)``; the last row is the final state.
        acceptance: mean acceptance probability of each chain after warm-up, ``(chains,)``.
        divergences: number of steps of each chain on which the integrator failed, ``(chains,)``.
            It fails if its energy error exceeds 1000 or is NaN, or its equations are not solved.
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
    def has_mixed(self) -> bool:
        """Whether split R-hat is at most 1.1 in every coordinate."""
        return float(self.r_hat.max()) <= MIXED

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
        """The averaged step size, used after adaptation."""
        return math.exp(self.log_average) if self.count else self.step_size


def run_chains(
    kernel: Kernel,
    state: State,
    schedule: Schedule,
    generator: torch.Generator | None = None,
    move: Move | None = None,
) -> Chain:
    """Run chains with a kernel and one common step size.

    Args:
        kernel: makes one step of a given size. It computes the gradient if the state has none.
        state: initial state of the chains.
        schedule: the number of steps, and the step size.
        generator: source of randomness, on the device of the state.
        move: another kernel with the same stationary law, applied after each step.

    Raises:
        DataError: if a state has no finite log density.
    """
    check_positive_density(state.log_density)
    adaptation = DualAveraging(schedule.first_step_size, schedule.target_acceptance)
    kept: list[Tensor] = []
    total = torch.zeros_like(state.log_density)
    divergences = torch.zeros(len(total), dtype=torch.long, device=total.device)
    for step in range(-schedule.num_warmup, schedule.num_steps):
        size = adaptation.step_size if step < 0 else adaptation.average
        state, acceptance, failed = kernel(state, schedule.step_size or size, generator)
        if move is not None:
            state = move(state, generator)
        if step < 0:
            adaptation.update(float(acceptance.mean()))
            continue
        total += acceptance
        divergences += failed
        if (schedule.num_steps - 1 - step) % schedule.thinning == 0:
            kept.append(state.z)
    used = schedule.step_size or adaptation.average
    return Chain(torch.stack(kept), total / schedule.num_steps, divergences, used)


def accept(
    state: State, proposed: State, gain: Tensor, generator: torch.Generator | None
) -> tuple[State, Tensor]:
    """Accept or reject proposals by Metropolis' rule; return the new state and probabilities.

    Args:
        state: current state.
        proposed: proposed state; it has a gradient if the state has one.
        gain: log of the acceptance ratio, ``(chains,)``.
        generator: source of randomness.

    Returns:
        The new state, and the acceptance probabilities, ``(chains,)``.
    """
    acceptance = acceptance_probability(gain)
    accepted = torch.empty_like(acceptance).uniform_(generator=generator) < acceptance
    grad = None
    if state.grad is not None and proposed.grad is not None:
        grad = torch.where(accepted[:, None], proposed.grad, state.grad)
    z = torch.where(accepted[:, None], proposed.z, state.z)
    log_density = torch.where(accepted, proposed.log_density, state.log_density)
    return State(z, log_density, grad), acceptance


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


def acceptance_probability(gain: Tensor) -> Tensor:
    """Return min(1, e^gain), ``(chains,)``; a gain that is NaN or infinite gives 0."""
    finite = torch.nan_to_num(gain, nan=-math.inf, posinf=-math.inf, neginf=-math.inf)
    return finite.clamp_max(0.0).exp()


@takes_arrays("samples")
def split_r_hat(samples: Tensor) -> Tensor:
    """Return split R-hat of each coordinate (Gelman et al., 2013), ``(d,)``.

    Args:
        samples: ``(steps, chains, d)``; with fewer than 4 steps the result is NaN.
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

    Autocorrelations are computed by FFT, and summed in pairs while the sums of pairs are positive
    (Geyer, 1992; the Stan reference manual).

    Args:
        samples: ``(steps, chains, d)``; with fewer than 4 steps the result is NaN.
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
    # Anticorrelated chains: at most 1.5 times the number of samples.
    size: Tensor = steps * chains / time.clamp_min(2.0 / 3.0)
    return size
