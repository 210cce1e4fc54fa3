"""The diagonal normal, default posterior and prior."""

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, register_kl
from torch.nn.functional import softplus
from torch.types import _size

__all__ = ["DiagonalNormal", "DiagonalNormalHead", "StandardNormal"]


class DiagonalNormal(Independent[Normal]):
    r"""Normal distribution :math:`N(\mu, \mathrm{diag}(\sigma^2))` over the last dimension.

    Args:
        loc: means, ``(..., d)``.
        scale: standard deviations, positive, broadcastable with ``loc``.

    >>> q = DiagonalNormal(torch.zeros(5, 2), torch.ones(5, 2))
    >>> z, log_prob = q.rsample_and_log_prob((3,))
    >>> z.shape, log_prob.shape
    (torch.Size([3, 5, 2]), torch.Size([3, 5]))
    """

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        super().__init__(Normal(loc, scale, validate_args=False), 1, validate_args=False)

    def expand(self, batch_shape: _size, _instance: Self | None = None) -> Self:
        """Return the distribution with its parameters expanded to a larger batch, not copied."""
        new = type(self).__new__(type(self)) if _instance is None else _instance
        expand: Any = super().expand
        expand(batch_shape, new)
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density at ``value``, ``(..., d)``: ``(...)``."""
        log_prob: Tensor = self.base_dist.log_prob(value).sum(-1)
        return log_prob

    def rsample_and_log_prob(self, sample_shape: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        """Return reparametrised samples ``(*sample_shape, ..., d)`` and their log density."""
        z = self.rsample(torch.Size(sample_shape))
        return z, self.log_prob(z)


class StandardNormal(DiagonalNormal):
    r"""The prior :math:`N(0, I)`, against which the KL takes half the operations.

    Args:
        zeros: its mean, ``(d,)``, which gives dtype and device.
    """

    def __init__(self, zeros: Tensor) -> None:
        super().__init__(zeros, torch.ones_like(zeros))


def _kl_to_standard(q: DiagonalNormal, p: StandardNormal) -> Tensor:
    loc, scale = q.base_dist.loc, q.base_dist.scale
    kl: Tensor = (0.5 * (loc.square() + scale.square() - 1.0) - scale.log()).sum(-1)
    return kl


register_kl(DiagonalNormal, StandardNormal)(_kl_to_standard)


class DiagonalNormalHead(nn.Module):
    """Linear map from features ``(batch, features)`` to a `DiagonalNormal` over ``latent_dim``.

    The standard deviation is a softplus: an exponential where it is small, but linear where it is
    large, so that a wild feature cannot overflow it. Its floor of 1e-5 keeps densities finite.
    """

    floor = 1e-5

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 2 * latent_dim)

    def forward(self, features: Tensor) -> DiagonalNormal:
        loc, raw = self.linear(features).chunk(2, dim=-1)
        return DiagonalNormal(loc, softplus(raw) + self.floor)
