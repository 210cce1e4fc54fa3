"""Means and standard deviations of each feature of a training set, in one pass."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

__all__ = ["Moments"]

UNIT_SPREAD = 0.1
"""Smallest spread at which data in [0, 1] are not rescaled."""
BOUND_SHARE, BOUND_COUNT = 0.005, 10
"""Minimum share and minimum number of values that are equal to the minimum, or to the maximum, of
all values. If they are reached, as for blank or saturated pixels, the two are taken as bounds."""


@dataclass
class Moments:
    """Statistics of the observed values of each feature, in float64.

    Attributes:
        count: number of observed values, ``shape``.
        mean: their mean; 0 without observed values.
        squares: sum of their squared differences from the mean.
        low: the minimum; infinity without observed values.
        high: the maximum; minus infinity without observed values.
        at_low: number of values equal to the minimum.
        at_high: number of values equal to the maximum.

    >>> moments = Moments.of([(torch.tensor([[1.0, 5.0], [3.0, 5.0]]), None)])
    >>> moments.mean, moments.deviation
    (tensor([2., 5.], dtype=torch.float64), tensor([1., 0.], dtype=torch.float64))
    """

    count: Tensor
    mean: Tensor
    squares: Tensor
    low: Tensor
    high: Tensor
    at_low: Tensor
    at_high: Tensor

    @classmethod
    def of(cls, batches: Iterable[tuple[Tensor, Tensor | None]]) -> Self:
        """Return the moments of batches of observations and masks.

        Args:
            batches: at least one pair of observations ``(batch, *shape)`` and a mask of the same
                shape, True where a value is observed; None if all are observed.
        """
        parts = [cls._of_batch(x, mask) for x, mask in batches]
        total = parts[0]
        for part in parts[1:]:
            total = total._joined(part)
        return total

    @classmethod
    def _of_batch(cls, x: Tensor, mask: Tensor | None) -> Self:
        x = x.detach().double()
        seen = torch.ones_like(x, dtype=torch.bool) if mask is None else mask
        count = seen.sum(0).double()
        mean = torch.where(seen, x, 0.0).sum(0) / count.clamp_min(1.0)
        squares = torch.where(seen, x - mean, 0.0).square().sum(0)
        low = torch.where(seen, x, torch.inf).amin(0)
        high = torch.where(seen, x, -torch.inf).amax(0)
        at_low, at_high = (((x == end) & seen).sum(0).double() for end in (low, high))
        return cls(count, mean, squares, low, high, at_low, at_high)

    def _joined(self, other: Self) -> Self:
        """Return the moments of both, without cancellation (Chan et al., 1979)."""
        count = self.count + other.count
        share = other.count / count.clamp_min(1.0)
        gap = other.mean - self.mean
        mean = self.mean + gap * share
        squares = self.squares + other.squares + gap.square() * self.count * share
        low, high = torch.minimum(self.low, other.low), torch.maximum(self.high, other.high)
        at_low = self._at_low(low) + other._at_low(low)
        at_high = self._at_high(high) + other._at_high(high)
        return type(self)(count, mean, squares, low, high, at_low, at_high)

    def _at_low(self, low: Tensor) -> Tensor:
        """Return how many values of each feature equal ``low``, a lower bound of all values."""
        return torch.where(self.low == low, self.at_low, 0.0)

    def _at_high(self, high: Tensor) -> Tensor:
        """Return how many values of each feature equal ``high``, an upper bound of all values."""
        return torch.where(self.high == high, self.at_high, 0.0)

    @property
    def deviation(self) -> Tensor:
        """The standard deviation of each feature, ``shape``."""
        return (self.squares / self.count.clamp_min(1.0)).sqrt()

    @property
    def spread(self) -> Tensor:
        """The root of the mean variance over features with observed values, ``()``."""
        variances = self.deviation.square()[self.count > 0.0]
        return variances.mean().sqrt() if len(variances) else self.count.new_zeros(())

    @property
    def fills_unit_range(self) -> bool:
        """Whether values are in [0, 1] with a spread of at least 0.1, as in most images."""
        inside = bool(self.low.min() >= 0.0) and bool(self.high.max() <= 1.0)
        return inside and bool(self.spread >= UNIT_SPREAD)

    @property
    def shows_bounds(self) -> bool:
        """Whether the minimum and maximum of all values are taken as bounds of the data.

        This is so if one value in 200, and at least ten values, are equal to one of them. Noise
        without bounds takes its minimum only once. The answer does not depend on the units of the
        data.
        """
        pooled = self.pooled()
        most = float(torch.maximum(pooled.at_low, pooled.at_high))
        enough = max(BOUND_COUNT, BOUND_SHARE * float(pooled.count))
        return bool(pooled.low < pooled.high) and most >= enough

    def pooled(self) -> Self:
        """Return the moments of all features pooled into one, of shape ``()``."""
        count = self.count.sum()
        mean = (self.count * self.mean).sum() / count.clamp_min(1.0)
        squares = (self.squares + self.count * (self.mean - mean).square()).sum()
        low, high = self.low.amin(), self.high.amax()
        at_low, at_high = self._at_low(low).sum(), self._at_high(high).sum()
        return type(self)(count, mean, squares, low, high, at_low, at_high)

    def split(self, widths: Sequence[int]) -> list[Self]:
        """Return the moments of blocks of features, along the last dimension."""
        parts = zip(*(t.split(list(widths), -1) for t in vars(self).values()), strict=True)
        return [type(self)(*part) for part in parts]
