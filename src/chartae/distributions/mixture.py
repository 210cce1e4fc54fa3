"""Mixtures of normals, as priors."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.types import _size

from chartae.distributions.base import BatchDistribution
from chartae.errors import ConfigurationError

__all__ = ["NormalMixture"]


class NormalMixture(BatchDistribution):
    r"""Mixture of K diagonal normals over R^d, in equal shares.

    .. math:: p(z) = \frac1K \sum_{k=1}^K N(z; \mu_k, \mathrm{diag}(\sigma_k^2))

    Log densities of components are linear in :math:`(z^2, z)`, so that one product of matrices
    gives them all, without a tensor of ``(..., K, d)`` for `MixtureSameFamily`. It is taken in
    float64, where squares may cancel: errors are of the order of
    :math:`10^{-16} \|\mu_k / \sigma_k\|^2`, for :math:`\mu_k` from the mean of the mixture.

    Args:
        loc: means of the components, ``(K, d)``.
        scale: their standard deviations, positive, broadcastable to ``(K, d)``.

    Raises:
        ConfigurationError: for means of another shape, or scales that do not fit them.

    >>> p = NormalMixture(torch.tensor([[-1.0], [1.0]]), torch.tensor(0.1))
    >>> p.sample((5,)).shape, p.log_prob(torch.tensor([1.0])).exp()
    (torch.Size([5, 1]), tensor(1.9947))
    """

    settings: ClassVar[tuple[str, ...]] = ("loc", "scale")

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        if loc.dim() != 2 or not len(loc):
            raise ConfigurationError(f"loc has shape {tuple(loc.shape)}: expected (K, d), K >= 1")
        try:
            self.loc, self.scale = loc, scale.expand_as(loc)
        except RuntimeError as error:
            raise ConfigurationError(
                f"scale has shape {tuple(scale.shape)}: it does not fit loc {tuple(loc.shape)}"
            ) from error
        super().__init__(torch.Size(), loc.shape[1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean of the mixture, ``(d,)``."""
        return self.loc.mean(0).expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        """The variance of each coordinate, ``(d,)``: that within components and among them."""
        variance = self.scale.square().mean(0) + self.loc.var(0, correction=0)
        return variance.expand(self.batch_shape + self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density at ``value``, ``(..., d)``: ``(...)``."""
        num_components, dim = self.loc.shape
        # MPS has no float64, and what it loses is small unless scales are.
        wide = torch.float32 if value.device.type == "mps" else torch.float64
        loc, scale, z = (t.to(wide) for t in (self.loc, self.scale, value))
        origin = loc.detach().mean(0)
        loc, z = loc - origin, z - origin
        precision = scale.square().reciprocal()
        weights = torch.cat([-0.5 * precision, loc * precision], -1)
        bias = -(0.5 * loc.square() * precision + scale.log()).sum(-1)
        bias = bias - 0.5 * dim * math.log(2.0 * math.pi) - math.log(num_components)
        log_joint = torch.cat([z.square(), z], -1) @ weights.mT + bias
        log_prob = log_joint.logsumexp(-1).to(self.loc.dtype)
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    @torch.no_grad()
    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Return draws ``(*sample_shape, d)``."""
        shape = (*sample_shape, *self.batch_shape)
        component = torch.randint(len(self.loc), shape, device=self.loc.device)
        return torch.normal(self.loc[component], self.scale[component])
