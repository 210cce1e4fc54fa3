"""Optimizers and schedulers by name, or any of yours."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn, optim
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LRScheduler,
    ReduceLROnPlateau,
)

from chartae.checks import check_choice

__all__ = [
    "OPTIMIZERS",
    "SCHEDULERS",
    "OptimizerFactory",
    "SchedulerFactory",
    "make_optimizer",
    "make_scheduler",
    "name_of",
    "state_like",
]

OptimizerFactory = Callable[[Iterable[nn.Parameter], float], optim.Optimizer]
SchedulerFactory = Callable[[optim.Optimizer], LRScheduler]

OPTIMIZERS: dict[str, OptimizerFactory] = {
    # Fused kernels update all parameters in one call: a third of a small model's step.
    "adam": lambda parameters, lr: optim.Adam(parameters, lr, fused=True),
    "adamw": lambda parameters, lr: optim.AdamW(parameters, lr, fused=True),
    "adamax": lambda parameters, lr: optim.Adamax(parameters, lr),
    "rmsprop": lambda parameters, lr: optim.RMSprop(parameters, lr),
    "sgd": lambda parameters, lr: optim.SGD(parameters, lr, fused=True),
}
"""The optimizers by name: functions of parameters and a learning rate."""
SCHEDULERS = ("cosine", "plateau")
"""The names of the schedulers of the learning rate."""


def name_of(argument: str, spec: object, choices: Iterable[str]) -> str:
    """Return the name of a choice, or of a function of yours.

    Raises:
        ConfigurationError: if it is neither.
    """
    if not callable(spec):
        check_choice(argument, spec, choices)
        return str(spec)
    return str(getattr(spec, "__qualname__", type(spec).__qualname__))


def make_optimizer(
    spec: str | OptimizerFactory, parameters: Iterable[nn.Parameter], learning_rate: float
) -> optim.Optimizer:
    """Return the optimizer of a name, or ``spec(parameters, learning_rate)``."""
    factory = OPTIMIZERS[spec] if isinstance(spec, str) else spec
    return factory(parameters, learning_rate)


def state_like(
    spec: str, parameters: Sequence[nn.Parameter], numbers: Iterable[int]
) -> dict[int, dict[str, Any]]:
    """Return tensors of the shapes that a named optimizer keeps for some of its parameters.

    Args:
        spec: a name.
        parameters: what it optimises.
        numbers: of the parameters that have had a gradient.
    """
    twin = nn.Parameter(parameters[0].detach().new_zeros(2))
    twin.grad = torch.zeros_like(twin)
    optimizer = make_optimizer(spec, [twin], 0.0)
    optimizer.step()
    state = optimizer.state[twin]
    return {
        number: {
            name: parameters[number].detach() if value.shape == twin.shape else value
            for name, value in state.items()
        }
        for number in numbers
    }


def make_scheduler(
    spec: str | SchedulerFactory | None, optimizer: optim.Optimizer, epochs: int
) -> LRScheduler | None:
    """Return the scheduler of a name, ``spec(optimizer)``, or None; it steps once an epoch.

    ``"cosine"`` decays to 0 over the epochs; ``"plateau"`` halves the rate when the monitored loss
    has not improved for 10 epochs.
    """
    if spec == "cosine":
        return CosineAnnealingLR(optimizer, T_max=epochs)
    if spec == "plateau":
        return ReduceLROnPlateau(optimizer, factor=0.5, patience=10)
    return spec(optimizer) if callable(spec) else None
