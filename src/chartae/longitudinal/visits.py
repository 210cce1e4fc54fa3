"""The observed visits of a batch of individuals, packed one after the other."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from chartae.models.losses import Extra

__all__ = ["Visits"]


@dataclass(frozen=True)
class Visits:
    """The M observed visits of B individuals, in the order of individuals and times.

    Nothing that was not observed is in it, so that nothing unobserved can influence a result.

    Attributes:
        x: ``(M, *input_shape)``.
        times: ``(M,)``, in the model's units of time.
        owner: ``(M,)`` int64, the individual of each visit, in [0, B).
        counts: ``(B,)`` int64, the number of visits of each individual, at least 1.
        mask: as x, bool, True where a feature was observed; None if all were.
        y: conditions of the B individuals, or None.
    """

    x: Tensor
    times: Tensor
    owner: Tensor
    counts: Tensor
    mask: Extra = None
    y: Extra = None

    @classmethod
    def of(cls, x: Tensor, times: Tensor, observed: Tensor, mask: Extra, y: Extra) -> "Visits":
        """Return the observed visits of tensors ``(B, T, ...)``, sorted by time."""
        complete = bool(observed.all())

        def packed(values: Tensor) -> Tensor:
            return values.flatten(0, 1) if complete else values[observed]

        owner, when = observed.nonzero()[:, 0], packed(times)
        seen = None if mask is None else packed(mask)
        found = cls(packed(x), when, owner, observed.sum(1), seen, y)
        if not bool(((when.diff() < 0.0) & (owner.diff() == 0)).any()):
            return found
        order = when.argsort(stable=True)
        order = order[owner[order].argsort(stable=True)]
        return found._at(order, owner)

    def __len__(self) -> int:
        """The number M of visits."""
        return len(self.owner)

    @property
    def num_individuals(self) -> int:
        """The number B of individuals."""
        return len(self.counts)

    @property
    def starts(self) -> Tensor:
        """The place of the first visit of each individual, ``(B,)``."""
        return self.counts.cumsum(0) - self.counts

    @property
    def ends(self) -> Tensor:
        """The place of the last visit of each individual, ``(B,)``."""
        return self.counts.cumsum(0) - 1

    @property
    def rank(self) -> Tensor:
        """The place of each visit among those of its individual, ``(M,)``, from 0."""
        return torch.arange(len(self), device=self.owner.device) - self.starts[self.owner]

    @property
    def conditions(self) -> Extra:
        """The conditions of the individual of each visit."""
        return None if self.y is None else self.y[self.owner]

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over the visits of each individual: ``(..., M)`` to ``(..., B)``."""
        total = values.new_zeros(*values.shape[:-1], self.num_individuals)
        return total.index_add(-1, self.owner, values)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over the visits of each individual: ``(M, n)`` to ``(B, n)``."""
        total = values.new_zeros(self.num_individuals, values.shape[-1])
        return total.index_add(0, self.owner, values) / self.counts[:, None]

    def logsumexp(self, values: Tensor) -> Tensor:
        """Return log sum exp over the visits of each individual: ``(..., M)`` to ``(..., B)``."""
        owner = self.owner.expand(values.shape)
        top = values.new_full((*values.shape[:-1], self.num_individuals), -torch.inf)
        top = top.scatter_reduce(-1, owner, values.detach(), "amax")
        shift = torch.where(top.isfinite(), top, 0.0)
        return self.sum((values - shift.gather(-1, owner)).exp()).log() + shift

    def pick(self, share: Tensor) -> Tensor:
        """Return the place of one visit of each individual, chosen by numbers in [0, 1).

        Args:
            share: ``(..., B)``; uniform numbers make all visits of an individual equally likely.
        """
        rank = (share * self.counts).long().minimum(self.counts - 1)
        return self.starts + rank

    def kept(self, keep: Tensor) -> "Visits":
        """Return only the visits where ``keep`` ``(M,)`` is True, at least one an individual."""
        if bool(keep.all()):
            return self
        counts = torch.zeros_like(self.counts).index_add(0, self.owner, keep.long())
        return replace(self._at(keep, self.owner[keep]), counts=counts)

    def singly(self) -> "Visits":
        """Return the visits as those of M individuals with one visit each."""
        owner = torch.arange(len(self), device=self.owner.device)
        return replace(self, owner=owner, counts=torch.ones_like(owner), y=self.conditions)

    def alone(self, places: Tensor) -> "Visits":
        """Return the visits at ``places`` ``(n,)`` as those of n individuals with one each."""
        owner = torch.arange(len(places), device=self.owner.device)
        y = None if self.y is None else self.y[self.owner[places]]
        return replace(self._at(places, owner), counts=torch.ones_like(owner), y=y)

    def _at(self, places: Tensor, owner: Tensor) -> "Visits":
        mask = None if self.mask is None else self.mask[places]
        return replace(self, x=self.x[places], times=self.times[places], owner=owner, mask=mask)
