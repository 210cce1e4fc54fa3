"""Mixtures of normals."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.types import _size

from chartae.distributions.base import BatchDistribution
from chartae.distributions.precision import powers, precisions, times
from chartae.errors import ConfigurationError

__all__ = ["NormalMixture"]

PAIRS = 2**22
"""Maximum number of (point, component) pairs at once: 32 MiB."""


class NormalMixture(BatchDistribution):
    r"""Mixture of K normals over R^d, with diagonal or full covariances.

    .. math:: p(z) = \sum_{k=1}^K \pi_k N(z; \mu_k, L_k L_k^T)

    Log densities of components are linear in :math:`(z^2, z)`, or in :math:`(z z^T, z)`. One matrix
    product gives them all, without the ``(..., K, d)`` tensor of `MixtureSameFamily`. The product
    is computed in float64, because squares may cancel. Errors are of the order of
    :math:`10^{-16} \|L_k^{-1} \mu_k\|^2`, with :math:`\mu_k` relative to the mean of the
    component means.

    Args:
        loc: means of the components, ``(K, d)``.
        scale: their standard deviations, positive, broadcastable to ``(K, d)``; or the
            :math:`L_k`, lower triangular with positive diagonals, ``(K, d, d)``.
        weights: their weights :math:`\pi_k`, at least 0, ``(K,)``; they are divided by their sum.
            None gives equal weights.

    Raises:
        ConfigurationError: for means of a wrong shape, or scales or weights that do not match them.

    >>> p = NormalMixture(torch.tensor([[-1.0], [1.0]]), torch.tensor(0.1))
    >>> p.sample((5,)).shape, p.log_prob(torch.tensor([1.0])).exp()
    (torch.Size([5, 1]), tensor(1.9947))
    """

    settings: ClassVar[tuple[str, ...]] = ("loc", "scale", "weights")

    def __init__(self, loc: Tensor, scale: Tensor, weights: Tensor | None = None) -> None:
        if loc.dim() != 2 or not len(loc):
            raise ConfigurationError(f"loc has shape {tuple(loc.shape)}: expected (K, d), K >= 1")
        shape = loc.shape if scale.dim() < 3 else (*loc.shape, loc.shape[1])
        try:
            self.loc, self.scale = loc, scale.expand(shape)
        except RuntimeError as error:
            raise ConfigurationError(
                f"scale has shape {tuple(scale.shape)}: expected a shape that broadcasts to "
                f"{tuple(shape)}"
            ) from error
        if weights is not None and weights.shape != loc.shape[:1]:
            raise ConfigurationError(
                f"weights has shape {tuple(weights.shape)}: expected ({len(loc)},), as loc has "
                f"{len(loc)} components"
            )
        shares = loc.new_ones(len(loc)) if weights is None else weights
        self.weights = shares / shares.sum()
        super().__init__(torch.Size(), loc.shape[1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean of the mixture, ``(d,)``."""
        return (self.weights @ self.loc).expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        """The variance of each coordinate, within and between components, ``(d,)``."""
        among = (self.loc - self.weights @ self.loc).square()
        variance = self.weights @ (self._within() + among)
        return variance.expand(self.batch_shape + self.event_shape)

    @property
    def narrowest(self) -> Tensor:
        """The smallest standard deviation of each component in any direction, ``(K,)``."""
        if self.scale.dim() == 2:
            return self.scale.amin(-1)
        narrowest: Tensor = torch.linalg.svdvals(self.scale).amin(-1)
        return narrowest

    def _within(self) -> Tensor:
        """Return the variances of coordinates within each component, ``(K, d)``."""
        squares = self.scale.square()
        return squares if squares.dim() == 2 else squares.sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density at ``value``, ``(..., d)``: ``(...)``."""
        # In blocks, to bound the memory for many points.
        columns = max(len(self.loc), self.scale[0].numel())
        pieces = value.reshape(-1, value.shape[-1]).split(max(1, PAIRS // columns))
        found = torch.cat([self.log_joint(piece).logsumexp(-1) for piece in pieces])
        log_prob = found.to(self.loc.dtype).reshape(value.shape[:-1])
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def log_joint(self, value: Tensor) -> Tensor:
        """Return log(pi_k N(z; mu_k, ...)) of each component, ``(..., K)``, in float64."""
        # MPS has no float64. The loss of precision is small unless scales are small.
        wide = torch.float32 if value.device.type == "mps" else torch.float64
        loc, scale, z = (t.to(wide) for t in (self.loc, self.scale, value))
        origin = loc.detach().mean(0)
        loc, z = loc - origin, z - origin
        precision = precisions(scale, factors=True)
        scaled = times(precision, loc)
        coefficients = torch.cat([-0.5 * precision, scaled], -1)
        roots = scale if scale.dim() == 2 else scale.diagonal(dim1=-2, dim2=-1)
        bias = -(0.5 * loc * scaled + roots.log()).sum(-1)
        bias = bias - 0.5 * loc.shape[-1] * math.log(2.0 * math.pi) + self.weights.to(wide).log()
        return torch.cat([powers(z, precision.shape[1]), z], -1) @ coefficients.mT + bias

    @torch.no_grad()
    def sample(self, sample_shape: _size = (), generator: torch.Generator | None = None) -> Tensor:
        """Return draws ``(*sample_shape, d)``.

        Args:
            sample_shape: shape of the sample.
            generator: source of randomness, on the device of the means; None uses torch's default.
        """
        shape = torch.Size((*sample_shape, *self.batch_shape))
        device = self.loc.device
        wide = torch.float32 if device.type == "mps" else torch.float64
        uniform = torch.rand(shape, generator=generator, dtype=wide, device=device)
        ends = self.weights.to(wide).cumsum(0)[:-1]
        component = torch.searchsorted(ends, uniform, right=True)
        loc, scale = self.loc[component], self.scale[component]
        if self.scale.dim() == 2:
            return torch.normal(loc, scale, generator=generator)
        noise = torch.empty_like(loc).normal_(generator=generator)
        return loc + (scale @ noise[..., None])[..., 0]
