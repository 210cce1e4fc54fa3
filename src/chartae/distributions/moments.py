"""Means and deviations of a training set, feature by feature, in one pass."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

__all__ = ["Moments"]

UNIT_SPREAD = 0.1
"""The spread with which data in [0, 1] are on a scale of their own already."""
BOUND_SHARE, BOUND_COUNT = 0.005, 10
"""Where so large a share of all values, and so many at least, are equal to the least or to the
greatest of all, as blank or saturated pixels are, these two are bounds."""


@dataclass
class Moments:
    """What is known of the observed values of each feature, in float64.

    Attributes:
        count: how many values there are, ``shape``.
        mean: their mean; 0 where there are none.
        squares: sum of their squared differences from the mean.
        low: the least value; infinity where there are none.
        high: the greatest value; minus infinity where there are none.
        at_low: how many values are equal to the least.
        at_high: how many values are equal to the greatest.

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
        """Return the moments of batches of observations and masks, of which there is one at least.

        Args:
            batches: observations ``(batch, *shape)``, and masks of that shape, True where a value
                is observed, or None when all are.
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
        """Return the moments of both (Chan et al., 1979): no large sums that cancel."""
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
        """Return how many values of each feature are equal to a number that none is below."""
        return torch.where(self.low == low, self.at_low, 0.0)

    def _at_high(self, high: Tensor) -> Tensor:
        """Return how many values of each feature are equal to a number that none is above."""
        return torch.where(self.high == high, self.at_high, 0.0)

    @property
    def deviation(self) -> Tensor:
        """The standard deviation of each feature, ``shape``."""
        return (self.squares / self.count.clamp_min(1.0)).sqrt()

    @property
    def spread(self) -> Tensor:
        """The root of the mean variance of the features that were observed, ``()``."""
        variances = self.deviation.square()[self.count > 0.0]
        return variances.mean().sqrt() if len(variances) else self.count.new_zeros(())

    @property
    def fills_unit_range(self) -> bool:
        """Whether values are in [0, 1] and have a spread of a tenth of it, as most images do."""
        inside = bool(self.low.min() >= 0.0) and bool(self.high.max() <= 1.0)
        return inside and bool(self.spread >= UNIT_SPREAD)

    @property
    def shows_bounds(self) -> bool:
        """Whether the least and the greatest of all values look like bounds of the data.

        That is where one value in 200, and ten at least, are equal to one of them: noise without
        bounds reaches an end once. The answer does not depend on the units of the data.
        """
        pooled = self.pooled()
        most = float(torch.maximum(pooled.at_low, pooled.at_high))
        enough = max(BOUND_COUNT, BOUND_SHARE * float(pooled.count))
        return bool(pooled.low < pooled.high) and most >= enough

    def pooled(self) -> Self:
        """Return the moments of all features taken as one, of shape ``()``."""
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
