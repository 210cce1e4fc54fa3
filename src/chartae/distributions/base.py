"""Protocols of posteriors and priors, and the base of distributions that torch does not have."""

import copy
from functools import cached_property
from typing import Any, ClassVar, Protocol, Self, TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, kl
from torch.types import _size

from chartae.errors import ConfigurationError

__all__ = ["BatchDistribution", "Posterior", "Prior", "as_family", "kl_divergence"]


SINGLE = torch.Size()

Family = TypeVar("Family")


class Posterior(Protocol):
    """The members of q(z|x) that models use, over latents ``(batch, d)``."""

    @property
    def mean(self) -> Tensor:
        """The mean, or another representative point of the distribution, ``(batch, d)``."""

    def rsample(self, sample_shape: torch.Size = SINGLE) -> Tensor:
        """Return reparametrised samples, ``(*sample_shape, batch, d)``."""

    def rsample_and_log_prob(self, sample_shape: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        """Return reparametrised samples and their log density, ``(*sample_shape, batch)``."""


class Prior(Protocol):
    """The members of p(z|y) that models use, over latents ``(d,)``, or ``(batch, d)`` given y."""

    def sample(self, sample_shape: torch.Size = SINGLE) -> Tensor:
        """Return samples, ``(*sample_shape, ..., d)``."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density at ``value``, ``(..., d)``: ``(...)``."""


def as_family(posterior: Posterior, family: type[Family]) -> Family:
    """Return the posterior, typed as a member of a family.

    Raises:
        ConfigurationError: if it is not a member of the family.
    """
    if not isinstance(posterior, family):
        raise ConfigurationError(
            f"the posterior is {type(posterior).__name__}: expected a {family.__name__}"
        )
    return posterior


def kl_divergence(q: Posterior, p: Prior) -> Tensor:
    """Return KL(q || p) in closed form, ``(batch,)``.

    Raises:
        NotImplementedError: for a pair without a closed form.
    """
    assert isinstance(q, Distribution)
    assert isinstance(p, Distribution)
    return kl.kl_divergence(q, p)


class BatchDistribution(Distribution):
    """Base of the distributions that are not built from torch's distributions."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    parameters: ClassVar[tuple[str, ...]] = ()
    """Attributes whose first dimensions are those of the batch: tensors or distributions."""
    settings: ClassVar[tuple[str, ...]] = ()
    """Attributes that the whole batch shares."""

    def expand(self, batch_shape: _size, _instance: Self | None = None) -> Self:
        """Return the distribution with its parameters expanded to a larger batch, not copied."""
        shape, dims = torch.Size(batch_shape), len(self.batch_shape)
        new = copy.copy(self) if _instance is None else _instance
        for name in self.parameters:
            value: Any = getattr(self, name)
            own = value.shape[dims:] if isinstance(value, Tensor) else torch.Size()
            vars(new)[name] = value.expand(shape + own)
        for name in list(vars(new)):
            if isinstance(getattr(type(new), name, None), cached_property):
                del vars(new)[name]  # it was computed from the old parameters
        vars(new)["_batch_shape"] = shape
        return new

    def __repr__(self) -> str:
        names = (*self.parameters, *self.settings)
        parts = [f"{name}: {_summary(getattr(self, name))}" for name in names]
        return f"{type(self).__name__}({', '.join(parts)})"


def _summary(value: object) -> str:
    if isinstance(value, Tensor):
        return str(value.item() if value.numel() == 1 else value.size())
    return repr(value)
