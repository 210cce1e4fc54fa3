"""What training minimises, and means over a batch whose samples do not all count alike."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Extra", "Losses", "average", "resampled"]

Extra = Tensor | None
"""Conditions, a mask or weights of a batch, where there are any."""


@dataclass(frozen=True)
class Losses:
    """What training minimises.

    Attributes:
        objectives: one scalar for each optimisation group of the model, by the group's name.
        terms: scalars worth following, by name; they are parts of the objectives.
    """

    objectives: Mapping[str, Tensor]
    terms: Mapping[str, Tensor]

    @classmethod
    def of(cls, loss: Tensor, **terms: Tensor) -> "Losses":
        """Return the losses of a model with the single optimisation group ``"model"``."""
        return cls({"model": loss}, terms)


def average(values: Tensor, weight: Extra = None) -> Tensor:
    """Return the mean of values ``(..., batch)``, each times the weight of its sample: a scalar.

    The mean is over the number of samples, whatever the sum of the weights, so that batches of a
    training set whose weights have a mean of 1 give unbiased gradients.

    >>> average(torch.tensor([1.0, 3.0]), torch.tensor([0.5, 1.5]))
    tensor(2.5000)
    """
    return values.mean() if weight is None else (weight * values).mean()


def resampled(weight: Tensor, count: int) -> Tensor:
    """Return indices of samples drawn by their weights ``(batch,)``, with replacement: (count,)."""
    return torch.multinomial(weight, count, replacement=True)
