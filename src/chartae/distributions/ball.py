r"""Distributions on the Poincare ball: the wrapped and the Riemannian normal.

The ball of curvature -c is :math:`\{z : c \|z\|^2 < 1\}` with the metric
:math:`\lambda_z^2 I, \lambda_z = 2 / (1 - c \|z\|^2)`. Lengths and scales are Riemannian. All
densities, of priors and posteriors, are with respect to the Riemannian volume
:math:`\lambda_z^d dz`. As c goes to 0, both laws become the normal of the same scale in the
coordinates 2z.

The formulas are evaluated in float64 and use the difference of two points. Geoopt uses the Moebius
difference and clamps the arguments of tanh and artanh, also in float64. The Moebius difference
cancels near the boundary: for two points at distance 0.5, it gives 17 in float32 at a distance of
10 from the origin, and 0.03 in float64 at a distance of 20.

A dtype can represent the ball only up to some distance from the origin. Both laws are conditioned
on the points that it can represent. Otherwise a draw from further out would have to be moved, and
its density would be the density of a different point.
"""

import math
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.types import _size

from chartae.checks import check_number
from chartae.distributions.base import BatchDistribution
from chartae.distributions.radial import RadialLaw, log_area, random_directions
from chartae.errors import ConfigurationError

__all__ = [
    "PoincareNormal",
    "PoincareNormalHead",
    "RiemannianNormal",
    "RiemannianNormalHead",
    "ball_point",
]


ROOM = 3.0
"""Minimum distance of centres from the end of the representable ball, in units of 1 / sqrt(c)."""


def ball_point(v: Tensor, curvature: float) -> Tensor:
    """Return the points at distance ||v|| from the origin in the direction of v, ``(..., d)``.

    The ball ends at a distance of 15 from the origin in float32, and of 35 in float64 (curvature
    -1). Points beyond are moved to this distance.
    """
    return _inside(_exponential(v.double(), curvature), curvature, v.dtype)


def _exponential(v: Tensor, c: float) -> Tensor:
    """Return tanh(sqrt(c) ||v|| / 2) v / (sqrt(c) ||v||), in float64."""
    half = 0.5 * (c * _square(v)).clamp_min(1e-60).sqrt()
    return 0.5 * v * half.tanh() / half


def _reach(dtype: torch.dtype) -> float:
    """Return the largest distance from the origin in the ball of curvature -1.

    It is 2 artanh(r), with r four rounding units below 1.
    """
    return math.log(0.5 / torch.finfo(dtype).eps - 1.0)


def _inside(z: Tensor, c: float, dtype: torch.dtype, room: float = 0.0) -> Tensor:
    """Return z in the dtype, moved to a distance of at most `_reach` - room from the origin."""
    bound = math.tanh(0.5 * (_reach(dtype) - room)) / math.sqrt(c)
    norm = _square(z).clamp_min(1e-60).sqrt()
    return (z * (bound / norm).clamp_max(1.0)).to(dtype)


def _square(v: Tensor) -> Tensor:
    return v.square().sum(-1, keepdim=True)


def _translate(x: Tensor, w: Tensor, c: float) -> Tensor:
    """Return the Moebius sum of x and w: the image of w under the isometry from the origin to x."""
    dot, x_square, w_square = 2.0 * c * (x * w).sum(-1, keepdim=True), _square(x), _square(w)
    numerator = (1.0 + dot + c * w_square) * x + (1.0 - c * x_square) * w
    return numerator / (1.0 + dot + c**2 * x_square * w_square)


def _logarithm(x: Tensor, z: Tensor, c: float) -> Tensor:
    """Return v, of length d(x, z), such that translating `_exponential` (v) to x gives z."""
    difference, room = z - x, 1.0 - c * _square(x)
    chord = _square(difference).clamp_min(1e-60)
    both = room * (1.0 - c * _square(z))
    distance = torch.asinh((c * chord / both).sqrt()) * 2.0 / math.sqrt(c)
    # The Moebius difference of x and z, without cancellation where they are close.
    direction = room * difference - c * chord * x
    return direction * distance / (chord * (both + c * chord)).sqrt()


def _log_sinhc(square: Tensor) -> Tensor:
    """Return log(sinh(x) / x) for the square of x, smooth at 0."""
    near = square < 1e-3
    series = square * (1 / 6 - square * (1 / 180 - square / 2835))
    x = torch.where(near, 1.0, square).sqrt()
    return torch.where(near, series, x + torch.log(-torch.expm1(-2.0 * x) / (2.0 * x)))


class BallDistribution(BatchDistribution):
    """A law of the vector v in the tangent space at a centre, mapped to the ball.

    The frame of the tangent space at the centre is the image of the frame at the origin under the
    isometry. It is orthonormal for the metric, so ||v|| is the distance to the centre. The vector
    is v = s * e, where e has a uniform direction and s is a stretch. The law is conditioned on
    max(s) ||e|| <= room, where room is the distance from the centre to the end of the ball in this
    dtype (see the module's docstring). A subclass defines s, the law of ||e||, and the density at
    v.

    Args:
        loc: centres, points of the ball, ``(..., d)``. Centres closer than 3 / sqrt(c) to the end
            of the representable ball are moved to that distance.
        scale: ``(..., *scale_shape)``.
        curvature: c > 0.
        scale_dims: number of dimensions of the scale after those of the batch.

    Raises:
        ConfigurationError: for a curvature that is not above 0, or shapes that do not match.
    """

    parameters: ClassVar[tuple[str, ...]] = ("loc", "scale")
    settings: ClassVar[tuple[str, ...]] = ("curvature",)
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, curvature: float, scale_dims: int) -> None:
        check_number("curvature", curvature, above=0.0)
        event = loc.shape[-1:]
        try:
            shape = torch.broadcast_shapes(loc.shape, (*scale.shape, *event[scale_dims:]))
        except RuntimeError as error:
            raise ConfigurationError(
                f"scale has shape {tuple(scale.shape)}: expected a shape that broadcasts with loc "
                f"{tuple(loc.shape)}"
            ) from error
        self.curvature = float(curvature)
        self.loc = _inside(loc.double(), self.curvature, loc.dtype, ROOM).expand(shape)
        self.scale = scale.expand(shape if scale_dims else shape[:-1])
        super().__init__(shape[:-1], event, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The centre, a point of the ball."""
        return self.loc

    @property
    def room(self) -> Tensor:
        """Distance from the centre to the end of the ball in this dtype, ``(...)`` in float64."""
        norm = (self.curvature * _square(self.loc.double())).clamp_min(1e-60).sqrt()[..., 0]
        return (_reach(self.loc.dtype) - 2.0 * norm.atanh()) / math.sqrt(self.curvature)

    @property
    def _stretch(self) -> Tensor:
        """s, ``(..., d)`` or ``(..., 1)`` in float64."""
        raise NotImplementedError

    @cached_property
    def _limit(self) -> Tensor:
        """The largest ||e||, ``(...)`` in float64."""
        with torch.enable_grad():  # it is cached, and later calls may need gradients
            return self.room / self._stretch.amax(-1)

    @cached_property
    def law(self) -> "RadiusLaw":
        """The law of ||e||, in units of its limit."""
        raise NotImplementedError

    def _log_kernel(self, v: Tensor) -> Tensor:
        """Return the log density of the point at v without `_log_mass`, in float64."""
        raise NotImplementedError

    @property
    def _log_mass(self) -> Tensor:
        """Logarithm of the integral of the kernel, without the stretch."""
        d = self.event_shape[0]
        return self.law.log_mass + d * self._limit.log() + log_area(d)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density at ``value``, ``(..., d)`` in the ball: ``(...)``.

        It is -inf outside the region on which the law is conditioned.
        """
        c, z = self.curvature, value.double()
        v = _logarithm(self.loc.double(), z, c)
        with torch.no_grad():
            # Near the boundary, rounding moves a point by a large distance. The bound allows it.
            rounding = 2.0 * torch.finfo(self.loc.dtype).eps / (1.0 - c * _square(z)) / math.sqrt(c)
            kept = (1.0 - rounding / _square(v).clamp_min(1e-60).sqrt()).clamp_min(0.0)
            outside = (kept * v / self._stretch).norm(dim=-1) > self._limit
        log_prob = self._log_kernel(v) - self._log_mass
        return log_prob.masked_fill(outside, -math.inf).to(self.loc.dtype)

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        return self.rsample_and_log_prob(tuple(sample_shape))[0]

    def rsample_and_log_prob(self, sample_shape: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        """Return reparametrised samples ``(*sample_shape, ..., d)`` and their log density."""
        radius = (self._limit * self.law.rsample(sample_shape))[..., None]
        e = radius * random_directions((*radius.shape[:-1], *self.event_shape), radius.device)
        v = self._stretch * e
        w = _exponential(v, self.curvature)
        z = _translate(self.loc.double(), w, self.curvature)
        log_prob = (self._log_kernel(v) - self._log_mass).to(self.loc.dtype)
        return _inside(z, self.curvature, self.loc.dtype), log_prob


class PoincareNormal(BallDistribution):
    r"""Wrapped normal on the Poincare ball (Nagano et al., 2019; Mathieu et al., 2019).

    A normal vector :math:`v \sim N(0, \mathrm{diag}(\sigma^2))` at the origin is moved to the
    centre by parallel transport, and to the ball by the exponential map. With
    :math:`r = \|v\|` the distance from the centre,

    .. math:: \log q(z) = \log N(v; 0, \mathrm{diag}(\sigma^2))
        - (d - 1) \log \frac{\sinh \sqrt c\, r}{\sqrt c\, r}

    with respect to the Riemannian volume. With respect to the Lebesgue measure of the coordinates
    it is larger by :math:`d \log \lambda_z`. `chartae.geometry.WrappedNormal`, for any metric, uses
    the Lebesgue measure, and its covariance is in coordinates too.

    Args:
        loc: centres mu, points of the ball, ``(..., d)``.
        scale: standard deviations sigma in Riemannian length, positive, broadcastable with loc.
        curvature: c > 0; the ball's radius is :math:`1/\sqrt c`.

    Raises:
        ConfigurationError: for a curvature that is not above 0, or shapes that do not match.

    >>> q = PoincareNormal(torch.zeros(5, 2), torch.ones(5, 2))
    >>> z, log_prob = q.rsample_and_log_prob((3,))
    >>> z.shape, log_prob.shape, bool((z.norm(dim=-1) < 1).all())
    (torch.Size([3, 5, 2]), torch.Size([3, 5]), True)
    """

    def __init__(self, loc: Tensor, scale: Tensor, curvature: float = 1.0) -> None:
        super().__init__(loc, scale, curvature, scale_dims=1)

    @property
    def _stretch(self) -> Tensor:
        return self.scale.double()

    @cached_property
    def law(self) -> "RadiusLaw":
        """The law of ||v / sigma||, in units of its limit, as for a normal in flat space."""
        with torch.enable_grad():
            return RadiusLaw(1.0 / self._limit, self.event_shape[0], 0.0, limit=1.0)

    def _log_kernel(self, v: Tensor) -> Tensor:
        sigma = self._stretch
        volume = (v.shape[-1] - 1) * _log_sinhc(self.curvature * v.square().sum(-1))
        return -0.5 * (v / sigma).square().sum(-1) - sigma.log().sum(-1) - volume


class RadiusLaw(RadialLaw):
    r"""Distance of a Riemannian normal draw from its centre.

    .. math:: k(r) = -\frac{r^2}{2 \sigma^2} + (d - 1) \log \frac{\sinh \sqrt c\, r}{\sqrt c}

    Args:
        scale: sigma, positive, in float64.
        dim: dimension d of the ball.
        curvature: c, a number or a tensor of the scale's shape; at 0 the last term is log r.
        limit: the largest distance.
    """

    def __init__(
        self, scale: Tensor, dim: int, curvature: float | Tensor, limit: float = math.inf
    ) -> None:
        self.scale, self.power, self.curvature = scale, dim - 1, curvature
        sigma = scale.detach()
        # The mode solves r^2 = b x coth(x), x = sqrt(c) r; x coth(x) is within 8 % below
        # sqrt(1 + x^2), and k curves by 1 / sigma^2 or more.
        b = self.power * sigma.square()
        bend = torch.as_tensor(b * curvature).detach()
        mode = (0.5 * b * (bend + (bend.square() + 4.0).sqrt())).sqrt()
        super().__init__(mode.clamp_max(limit), (mode + 10.0 * sigma).clamp_max(limit))

    def log_kernel(self, r: Tensor) -> Tensor:
        log_sinh: Tensor = torch.special.xlogy(self.power, r)
        log_sinh = log_sinh + self.power * _log_sinhc(self.curvature * r.square())
        return log_sinh - 0.5 * (r / self.scale).square()


class RiemannianNormal(BallDistribution):
    r"""Riemannian normal on the Poincare ball, of maximal entropy (Mathieu et al., 2019).

    .. math:: q(z) \propto \exp\left(-\frac{d(\mu, z)^2}{2 \sigma^2}\right)

    The constant is the integral of the density of the radius, computed by quadrature. The published
    formula, an alternating sum of error functions, cancels as sigma or d grow. The radius is drawn
    by inversion of its cumulative distribution, with an exact pathwise gradient.

    Args:
        loc: centres mu, points of the ball, ``(..., d)``.
        scale: sigma in Riemannian length, positive, broadcastable with ``(...)``.
        curvature: c > 0; the ball's radius is :math:`1/\sqrt c`.

    Raises:
        ConfigurationError: for a curvature that is not above 0, or shapes that do not match.

    >>> q = RiemannianNormal(torch.zeros(5, 2), torch.ones(5), curvature=0.5)
    >>> q.rsample((3,)).shape, q.log_prob(q.mean).shape
    (torch.Size([3, 5, 2]), torch.Size([5]))
    """

    def __init__(self, loc: Tensor, scale: Tensor, curvature: float = 1.0) -> None:
        super().__init__(loc, scale, curvature, scale_dims=0)

    @property
    def _stretch(self) -> Tensor:
        return self.scale.new_ones((1,), dtype=torch.float64)

    @cached_property
    def law(self) -> RadiusLaw:
        """The law of the distance to the centre, in units of its limit."""
        with torch.enable_grad():
            scale, c = self.scale.double() / self._limit, self.curvature * self._limit.square()
            return RadiusLaw(scale, self.event_shape[0], c, limit=1.0)

    def _log_kernel(self, v: Tensor) -> Tensor:
        return -0.5 * v.square().sum(-1) / self.scale.double().square()


def _tempered(scale: Tensor) -> Tensor:
    """Return scales unchanged up to 2, twice the prior's scale, and logarithmic beyond."""
    excess = (scale - 2.0).clamp_min(0.0)
    return scale - excess + excess.log1p()


class PoincareNormalHead(nn.Module):
    """Linear map from features ``(batch, features)`` to a `PoincareNormal` over ``latent_dim``.

    The centre is the exponential map at the origin of a linear output. Scales are a softplus plus a
    floor of 1e-5, and grow logarithmically beyond 2. A law that fills the ball hardly depends on
    its scale: without this bound, a scale that outlying features make large would stay large.
    """

    floor = 1e-5

    def __init__(self, features: int, latent_dim: int, curvature: float) -> None:
        super().__init__()
        self.curvature = curvature
        self.linear = nn.Linear(features, 2 * latent_dim)

    def forward(self, features: Tensor) -> PoincareNormal:
        v, raw = self.linear(features).chunk(2, dim=-1)
        loc = ball_point(v, self.curvature)
        return PoincareNormal(loc, _tempered(softplus(raw) + self.floor), self.curvature)


class RiemannianNormalHead(nn.Module):
    """Linear map to a `RiemannianNormal`: like `PoincareNormalHead`, with one scale for each x."""

    floor = 1e-5

    def __init__(self, features: int, latent_dim: int, curvature: float) -> None:
        super().__init__()
        self.curvature = curvature
        self.linear = nn.Linear(features, latent_dim + 1)

    def forward(self, features: Tensor) -> RiemannianNormal:
        output = self.linear(features)
        loc, scale = ball_point(output[..., :-1], self.curvature), softplus(output[..., -1])
        return RiemannianNormal(loc, _tempered(scale + self.floor), self.curvature)
