"""Importance weights of S draws of each of B individuals: logs, of shape ``(S, B)``."""

import math

import torch
from torch import Tensor

__all__ = ["effective_samples", "finite_weights", "resampled", "tempered"]

KEPT, ENOUGH = 0.25, 64
"""Tempering leaves this share of the draws at least, or this number, as an effective sample size.
The number lets large sets of draws have the weights that are right."""


def finite_weights(log_weights: Tensor) -> Tensor:
    """Return log weights with -inf in place of NaN: the weight of an overflow is 0."""
    return log_weights.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)


def effective_samples(log_weights: Tensor) -> Tensor:
    """Return the effective sample size of weights ``(S, B)``: ``(B,)``."""
    shares = log_weights.softmax(0)
    return 1.0 / shares.square().sum(0)


def tempered(log_weights: Tensor) -> Tensor:
    """Return log weights ``(S, B)`` times the largest number in (0, 1] that leaves enough draws.

    The effective sample size is then at least `KEPT` of the draws, or `ENOUGH`, where so many have
    a weight. A few draws that happen to have all the weight say little: their mean has the variance
    of single draws, and they have no spread.
    """
    target = min(KEPT * len(log_weights), ENOUGH)
    low, high = torch.zeros_like(log_weights[0]), torch.ones_like(log_weights[0])
    power = high
    for _ in range(40):
        enough = effective_samples(power * log_weights) >= target
        low, high = torch.where(enough, power, low), torch.where(enough, high, power)
        power = 0.5 * (low + high)
    # Not 0, for which draws without any weight would have one.
    return torch.where(low > 0.0, low, power) * log_weights


def resampled(log_weights: Tensor) -> Tensor:
    """Return indices of draws by their weights ``(S, B)``, systematically: ``(S, B)``."""
    count = len(log_weights)
    ends = log_weights.double().softmax(0).cumsum(0).mT.contiguous()
    offsets = torch.rand(log_weights.shape[1], 1, device=ends.device, dtype=ends.dtype)
    places = (torch.arange(count, device=ends.device) + offsets) / count
    return torch.searchsorted(ends, places * ends[:, -1:]).clamp(max=count - 1).mT
