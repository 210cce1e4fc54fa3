"""Distributions on the unit sphere: von Mises-Fisher and uniform."""

from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import register_kl
from torch.nn.functional import normalize, softplus
from torch.types import _size

from chartae.distributions.base import BatchDistribution
from chartae.distributions.radial import RadialLaw, log_area, random_directions
from chartae.errors import ConfigurationError

__all__ = ["HypersphericalUniform", "VonMisesFisher", "VonMisesFisherHead"]


class AngleLaw(RadialLaw):
    r"""Angle between a von Mises-Fisher draw and its mean direction, on [0, pi].

    .. math:: k(r) = \kappa (\cos r - 1) + (d - 2) \log \sin r

    Args:
        concentration: kappa, positive, in float64.
        dim: dimension d of the space around the sphere.
    """

    def __init__(self, concentration: Tensor, dim: int) -> None:
        self.concentration, self.power = concentration, dim - 2
        kappa = concentration.detach().clamp_min(1e-300)
        cosine = 2.0 * kappa / (self.power + (self.power**2 + 4.0 * kappa**2).sqrt())
        mode = torch.atan2((self.power * cosine / kappa).sqrt(), cosine)
        super().__init__(mode, torch.full_like(mode, torch.pi))

    def log_kernel(self, r: Tensor) -> Tensor:
        log_circle: Tensor = torch.special.xlogy(self.power, r.sin())
        return self.log_density(r) + log_circle

    def log_density(self, r: Tensor) -> Tensor:
        """Return kappa (cos r - 1), without cancellation."""
        return -2.0 * self.concentration * (0.5 * r).sin().square()


class VonMisesFisher(BatchDistribution):
    r"""Von Mises-Fisher distribution on the sphere :math:`S^{d-1}` of R^d, for any d >= 2.

    .. math:: q(z) = C_d(\kappa) e^{\kappa \mu^T z}, \quad
        C_d(\kappa) = \frac{\kappa^{d/2-1}}{(2\pi)^{d/2} I_{d/2-1}(\kappa)}

    The density is with respect to the area of the sphere. The constant is computed by a quadrature
    in float64 for every dtype. No Bessel function is evaluated, so none can overflow. Draws are
    exact. The angle is drawn by inversion; with rejection, the gradient would need a correction
    term (which the code of Davidson et al., 2018, omits). The direction in the tangent space is
    uniform, and moves with the mean direction by parallel transport.

    Args:
        loc: mean directions mu, ``(..., d)``, of unit length.
        concentration: kappa > 0, broadcastable with ``(...)``.

    Raises:
        ConfigurationError: if d is less than 2.

    >>> q = VonMisesFisher(torch.eye(3), torch.tensor(10.0))
    >>> z, log_prob = q.rsample_and_log_prob((5,))
    >>> z.shape, log_prob.shape
    (torch.Size([5, 3, 3]), torch.Size([5, 3]))
    """

    parameters: ClassVar[tuple[str, ...]] = ("loc", "concentration")
    has_rsample = True

    def __init__(self, loc: Tensor, concentration: Tensor) -> None:
        if loc.dim() < 1 or loc.shape[-1] < 2:
            raise ConfigurationError(
                f"loc has shape {tuple(loc.shape)}: expected (..., d) with d at least 2"
            )
        batch_shape = torch.broadcast_shapes(loc.shape[:-1], concentration.shape)
        self.loc = loc.expand(*batch_shape, loc.shape[-1])
        self.concentration = concentration.expand(batch_shape)
        super().__init__(batch_shape, loc.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean *direction* mu, a point of the sphere (the mean in R^d lies inside it)."""
        return self.loc

    @cached_property
    def law(self) -> AngleLaw:
        """The law of the angle to the mean direction."""
        with torch.enable_grad():  # it is cached, and later calls may need gradients
            return AngleLaw(self.concentration.double(), self.loc.shape[-1])

    @property
    def log_normalizer(self) -> Tensor:
        """Logarithm of the integral over the sphere of exp(kappa (mu.z - 1)), in float64."""
        return self.law.log_mass + log_area(self.loc.shape[-1] - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density at ``value``, ``(..., d)`` on the sphere: ``(...)``."""
        # 1 - cos is computed from the chord. The plain difference loses all digits of float32 at
        # large kappa.
        chord = normalize(value.double(), dim=-1) - normalize(self.loc.double(), dim=-1)
        log_prob = -0.5 * self.concentration * chord.square().sum(-1) - self.log_normalizer
        return log_prob.to(self.loc.dtype)

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        return self.rsample_and_log_prob(tuple(sample_shape))[0]

    def rsample_and_log_prob(self, sample_shape: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        """Return reparametrised samples ``(*sample_shape, ..., d)`` and their log density."""
        angle = self.law.rsample(sample_shape)
        loc = normalize(self.loc.double(), dim=-1)
        noise = random_directions((*angle.shape, loc.shape[-1]), loc.device)
        tangent = normalize(_orthogonal(noise, loc.detach()), dim=-1)
        # The second projection gives the gradient: if mu moves, parallel transport moves the
        # tangent. A Householder reflection from a fixed pole has an infinite gradient at the pole.
        tangent = _orthogonal(tangent, loc)
        z = angle.cos()[..., None] * loc + angle.sin()[..., None] * tangent
        log_prob = self.law.log_density(angle) - self.log_normalizer
        return z.to(self.loc.dtype), log_prob.to(self.loc.dtype)

    def entropy(self) -> Tensor:
        """Return the entropy with respect to the area of the sphere: ``(...)``."""
        return self._entropy().to(self.loc.dtype)

    def _entropy(self) -> Tensor:
        return self.log_normalizer - self.law.expectation(self.law.log_density)


def _orthogonal(v: Tensor, direction: Tensor) -> Tensor:
    """Return the part of v that is orthogonal to a unit vector."""
    return v - (v * direction).sum(-1, keepdim=True) * direction


class HypersphericalUniform(BatchDistribution):
    """Uniform distribution on the unit sphere of R^d. The density is one over the area.

    Args:
        zeros: ``(d,)``, which sets dimension, dtype and device.

    >>> z = HypersphericalUniform(torch.zeros(3)).sample((5,))
    >>> torch.allclose(z.norm(dim=-1), torch.ones(5))
    True
    """

    parameters: ClassVar[tuple[str, ...]] = ("zeros",)
    has_rsample = True

    def __init__(self, zeros: Tensor) -> None:
        self.zeros = zeros
        super().__init__(torch.Size(), zeros.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Zero: there is no mean direction."""
        return torch.zeros_like(self.zeros)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density at ``value``, ``(..., d)`` on the sphere: ``(...)``."""
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return value.new_full(shape, -log_area(self.event_shape[0]))

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        shape = (*sample_shape, *self.zeros.shape)
        return random_directions(shape, self.zeros.device).to(self.zeros.dtype)

    def entropy(self) -> Tensor:
        """Return the log area of the sphere."""
        return self.zeros.new_full(self.batch_shape, log_area(self.event_shape[0]))


def _kl_to_uniform(q: VonMisesFisher, p: HypersphericalUniform) -> Tensor:
    # The difference is computed in float64: at small kappa two large numbers nearly cancel.
    return (log_area(p.event_shape[0]) - q._entropy()).to(q.loc.dtype)


register_kl(VonMisesFisher, HypersphericalUniform)(_kl_to_uniform)


class VonMisesFisherHead(nn.Module):
    """Linear map from features ``(batch, features)`` to a `VonMisesFisher` in ``latent_dim``.

    The concentration is d times a softplus, because a draw has a clear direction only if kappa is
    of the order of d. The floor of 1, as in the published code, prevents posterior collapse at the
    start of training: near kappa = 0 the gradient of the likelihood vanishes.
    """

    floor = 1.0

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.linear = nn.Linear(features, latent_dim + 1)

    def forward(self, features: Tensor) -> VonMisesFisher:
        loc, raw = self.linear(features).split([self.latent_dim, 1], dim=-1)
        concentration = self.latent_dim * softplus(raw[..., 0]) + self.floor
        return VonMisesFisher(normalize(loc, dim=-1), concentration)
