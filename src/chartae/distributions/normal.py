"""Normal distributions with diagonal, full or low-rank covariances: posteriors and priors."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    register_kl,
)
from torch.nn.functional import softplus
from torch.types import _size

from chartae.checks import check_choice, check_integer

__all__ = [
    "Covariance",
    "DiagonalNormal",
    "DiagonalNormalHead",
    "FullNormal",
    "FullNormalHead",
    "Gaussian",
    "LowRankNormal",
    "LowRankNormalHead",
    "NormalHead",
    "StandardNormal",
    "joined",
    "normal_head",
]

Covariance = Literal["diagonal", "full", "low-rank"]
"""The kinds of covariance of `normal_head`."""
LARGEST = 30.0
"""Bound of the coefficients of a head, so that float32 can invert the covariance."""


class Gaussian(Distribution):
    """Base of the normal distributions over R^d, over the last dimension."""

    @property
    @abstractmethod
    def factor(self) -> Tensor:
        """Standard deviations ``(..., d)``, or lower triangular factors ``(..., d, d)``."""

    @property
    def covariance(self) -> Tensor:
        """Variances ``(..., d)`` of a diagonal normal, else covariances ``(..., d, d)``."""
        factor = self.factor
        return factor @ factor.mT

    def expand(self, batch_shape: _size, _instance: Self | None = None) -> Self:
        """Return the distribution with its parameters expanded to a larger batch, not copied."""
        new = type(self).__new__(type(self)) if _instance is None else _instance
        expand: Any = super().expand
        expand(batch_shape, new)
        return new

    def rsample_and_log_prob(self, sample_shape: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        """Return reparametrised samples ``(*sample_shape, ..., d)`` and their log density."""
        z = self.rsample(torch.Size(sample_shape))
        return z, self.log_prob(z)


class DiagonalNormal(Gaussian, Independent[Normal]):
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

    @property
    def factor(self) -> Tensor:
        """The standard deviations, ``(..., d)``."""
        return self.stddev

    @property
    def covariance(self) -> Tensor:
        """The variances, ``(..., d)``."""
        return self.variance

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density at ``value``, ``(..., d)``: ``(...)``."""
        log_prob: Tensor = self.base_dist.log_prob(value).sum(-1)
        return log_prob


class StandardNormal(DiagonalNormal):
    r"""The prior :math:`N(0, I)`. The KL divergence to it takes half the operations.

    Args:
        zeros: its mean, ``(d,)``, which also sets dtype and device.
    """

    def __init__(self, zeros: Tensor) -> None:
        super().__init__(zeros, torch.ones_like(zeros))


class FullNormal(Gaussian, MultivariateNormal):
    r"""Normal distribution :math:`N(\mu, L L^T)` over the last dimension.

    Args:
        loc: means, ``(..., d)``.
        scale_tril: the L, lower triangular with a positive diagonal, ``(..., d, d)``.

    >>> q = FullNormal(torch.zeros(5, 2), torch.tensor([[1.0, 0.0], [0.5, 1.0]]))
    >>> q.rsample_and_log_prob((3,))[1].shape
    torch.Size([3, 5])
    """

    def __init__(self, loc: Tensor, scale_tril: Tensor) -> None:
        super().__init__(loc, scale_tril=scale_tril, validate_args=False)

    @property
    def factor(self) -> Tensor:
        """The L, ``(..., d, d)``."""
        factor: Tensor = self.scale_tril
        return factor

    def rsample_and_log_prob(self, sample_shape: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        """Return reparametrised samples ``(*sample_shape, ..., d)`` and their log density."""
        # The density follows from the noise, without a triangular solve.
        noise = torch.randn(
            (*sample_shape, *self.loc.shape), dtype=self.loc.dtype, device=self.loc.device
        )
        factor = self.factor
        z = self.loc + (factor @ noise[..., None])[..., 0]
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return z, -0.5 * (noise.square() + math.log(2.0 * math.pi)).sum(-1) - log_det


class LowRankNormal(Gaussian, LowRankMultivariateNormal):
    r"""Normal distribution :math:`N(\mu, W W^T + \mathrm{diag}(v))` over the last dimension.

    A density costs :math:`O(d r^2)` operations, where r is the number of columns of W.

    Args:
        loc: means, ``(..., d)``.
        columns: the W, ``(..., d, r)``.
        variances: the v, positive, ``(..., d)``.

    >>> q = LowRankNormal(torch.zeros(5, 2), torch.ones(5, 2, 1), torch.ones(5, 2))
    >>> q.covariance[0]
    tensor([[2., 1.],
            [1., 2.]])
    """

    def __init__(self, loc: Tensor, columns: Tensor, variances: Tensor) -> None:
        super().__init__(loc, columns, variances, validate_args=False)

    @property
    def factor(self) -> Tensor:
        """The Cholesky factor of the covariance, ``(..., d, d)``."""
        factor: Tensor = self.scale_tril
        return factor

    @property
    def covariance(self) -> Tensor:
        """The covariance, ``(..., d, d)``."""
        covariance: Tensor = self.covariance_matrix
        return covariance


def joined(parts: Sequence[Gaussian]) -> Gaussian:
    """Return the normals ``(n, d)`` of several batches as one batch, in their order."""
    loc = torch.cat([part.mean for part in parts])
    factor = torch.cat([part.factor for part in parts])
    return DiagonalNormal(loc, factor) if factor.dim() == 2 else FullNormal(loc, factor)


# --- divergences --------------------------------------------------------------------------------


def _kl_to_standard(q: DiagonalNormal, p: StandardNormal) -> Tensor:
    loc, scale = q.base_dist.loc, q.base_dist.scale
    kl: Tensor = (0.5 * (loc.square() + scale.square() - 1.0) - scale.log()).sum(-1)
    return kl


def _kl_to_diagonal(q: FullNormal | LowRankNormal, p: DiagonalNormal) -> Tensor:
    """Return the cross entropy, which depends on variances only, minus the entropy."""
    distance = (q.variance + (q.mean - p.mean).square()) / p.variance
    cross = 0.5 * (distance + math.log(2.0 * math.pi)) + p.stddev.log()
    entropy: Tensor = q.entropy()  # type: ignore[no-untyped-call]
    return cross.sum(-1) - entropy


register_kl(DiagonalNormal, StandardNormal)(_kl_to_standard)
register_kl(FullNormal, DiagonalNormal)(_kl_to_diagonal)
register_kl(LowRankNormal, DiagonalNormal)(_kl_to_diagonal)


# --- heads --------------------------------------------------------------------------------------


class NormalHead(nn.Module):
    r"""Base of the linear maps from features ``(batch, features)`` to a `Gaussian` over R^d.

    The standard deviations are a softplus: exponential for small values and linear for large ones,
    so that an outlying feature cannot overflow it. A floor of 1e-5 keeps densities finite.

    A subclass with correlations gives each coordinate j some coefficients :math:`a_j`. They are
    scaled by :math:`\sigma_j / \sqrt{1 + \|a_j\|^2}`, so that :math:`\sigma_j` is the standard
    deviation of the coordinate for all coefficients.

    Args:
        features: number of features.
        latent_dim: size d of the latent space.
        coefficients: total number of coefficients.
    """

    family: ClassVar[type[Gaussian]]
    """The class of the normals."""
    floor = 1e-5

    def __init__(self, features: int, latent_dim: int, coefficients: int = 0) -> None:
        super().__init__()
        self.latent_dim, self.coefficients = latent_dim, coefficients
        self.linear = nn.Linear(features, 2 * latent_dim + coefficients)

    def parts(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return means and deviations, ``(batch, d)``, and coefficients in (-30, 30)."""
        d = self.latent_dim
        loc, raw, coefficients = self.linear(features).split([d, d, self.coefficients], -1)
        bounded = LARGEST * torch.tanh(coefficients / LARGEST)
        return loc, softplus(raw) + self.floor, bounded


class DiagonalNormalHead(NormalHead):
    """Linear map from features ``(batch, features)`` to a `DiagonalNormal` over ``latent_dim``."""

    family = DiagonalNormal

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__(features, latent_dim)

    def forward(self, features: Tensor) -> DiagonalNormal:
        loc, raw = self.linear(features).chunk(2, dim=-1)
        return DiagonalNormal(loc, softplus(raw) + self.floor)


class FullNormalHead(NormalHead):
    r"""Linear map from features ``(batch, features)`` to a `FullNormal` over ``latent_dim``.

    Row j of the Cholesky factor is :math:`(a_j, 1)`, with j - 1 coefficients, scaled.
    """

    family = FullNormal

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__(features, latent_dim, latent_dim * (latent_dim - 1) // 2)

    def forward(self, features: Tensor) -> FullNormal:
        loc, scale, coefficients = self.parts(features)
        d = self.latent_dim
        rows, columns = torch.tril_indices(d, d, -1, device=loc.device)
        unit = torch.eye(d, dtype=loc.dtype, device=loc.device).repeat(len(loc), 1, 1)
        unit[:, rows, columns] = coefficients
        return FullNormal(loc, (scale / unit.norm(dim=-1))[..., None] * unit)


class LowRankNormalHead(NormalHead):
    r"""Linear map from features ``(batch, features)`` to a `LowRankNormal` over ``latent_dim``.

    The covariance before scaling is :math:`A A^T + I`. Row j of A holds the r coefficients of
    coordinate j.

    Args:
        features: number of features.
        latent_dim: size d of the latent space.
        rank: the r, from 1 to d.
    """

    family = LowRankNormal

    def __init__(self, features: int, latent_dim: int, rank: int) -> None:
        check_integer("posterior_rank", rank, minimum=1, maximum=latent_dim)
        super().__init__(features, latent_dim, latent_dim * rank)

    def forward(self, features: Tensor) -> LowRankNormal:
        loc, scale, coefficients = self.parts(features)
        columns = coefficients.unflatten(-1, (self.latent_dim, -1))
        share = scale / (1.0 + columns.square().sum(-1)).sqrt()
        return LowRankNormal(loc, share[..., None] * columns, share.square())


def normal_head(
    covariance: Covariance, features: int, latent_dim: int, rank: int = 1
) -> NormalHead:
    """Return a head for posteriors with covariances of a given kind.

    Args:
        covariance: ``"diagonal"``, ``"full"`` or ``"low-rank"``.
        features: number of features.
        latent_dim: size of the latent space.
        rank: rank of the low-rank part.

    Raises:
        ConfigurationError: for an unknown kind, or a rank out of range.
    """
    check_choice("posterior_covariance", covariance, get_args(Covariance))
    if covariance == "full":
        return FullNormalHead(features, latent_dim)
    if covariance == "low-rank":
        return LowRankNormalHead(features, latent_dim, rank)
    return DiagonalNormalHead(features, latent_dim)
