"""The losses of a batch, and weighted means over its samples."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Extra", "Losses", "average", "resampled"]

Extra = Tensor | None
"""Conditions, a mask or weights of a batch; None if there are none."""


@dataclass(frozen=True)
class Losses:
    """What training minimises.

    Attributes:
        objectives: one scalar for each optimisation group of the model, by the group's name.
        terms: scalars to monitor, by name; they are parts of the objectives.
    """

    objectives: Mapping[str, Tensor]
    terms: Mapping[str, Tensor]

    @classmethod
    def of(cls, loss: Tensor, **terms: Tensor) -> "Losses":
        """Return the losses of a model with the single optimisation group ``"model"``."""
        return cls({"model": loss}, terms)


def average(values: Tensor, weight: Extra = None) -> Tensor:
    """Return the mean of values ``(..., batch)``, each times the weight of its sample: a scalar.

    The weighted sum is divided by the number of samples, not by the sum of the weights. Batches of
    a training set whose weights have a mean of 1 then give unbiased gradients.

    >>> average(torch.tensor([1.0, 3.0]), torch.tensor([0.5, 1.5]))
    tensor(2.5000)
    """
    return values.mean() if weight is None else (weight.to(values.dtype) * values).mean()


def resampled(weight: Tensor, count: int) -> Tensor:
    """Return indices of samples drawn by their weights ``(batch,)``, with replacement: (count,).

    If all weights are 0, as in a small batch they may be, all samples are equally likely.
    """
    odds = torch.where(weight.any(), weight, torch.ones_like(weight))
    return torch.multinomial(odds, count, replacement=True)
