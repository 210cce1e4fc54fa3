"""The flow of rotations: a sum of waves of individual phases and amplitudes."""

import torch
from torch import Tensor, nn

from chartae.checks import check_integer, check_number
from chartae.errors import ConfigurationError
from chartae.longitudinal.time_flows.base import TimeFeatures, TimeFlow

__all__ = ["RotationFlow"]

SLOPE = 0.3
"""Standard deviation of the slope of a line over that of its intercept, at the start."""


class RotationFlow(TimeFlow):
    r"""Rotations of pairs of coordinates, each with a frequency of its own, and a common drift.

    .. math:: z_k(t) = R(\omega_k t) \, u_k + m_k(t, c)

    where :math:`R` is the rotation of a plane. The flow is linear in u, and keeps volumes. With
    u ~ N(0, I), each coordinate of z is a stationary Gaussian process, and a linear decoder of z
    gives scores that are jointly Gaussian processes with learned spectra: what is constant of an
    individual is in slow waves, what lasts for some visits is in fast ones. It suits scores whose
    next value depends on the last ones more than on their line in time. The drift m is linear in
    functions of time, and in their products with the context.

    The first pairs can be lines in place of waves, that is a shear

    .. math:: z_k(t) = (u_{k1} + \omega_k t \, u_{k2}, \; u_{k2}) + m_k(t, c)

    With a linear decoder each of them is a random intercept and a random slope with any covariance,
    as in a linear mixed model.

    Args:
        dim: size d of the latents. If it is odd, the last coordinate has the drift only.
        context: size of the context c, 0 for none.
        slowest: the lowest frequency at the start, in radians per unit of time of the model.
        fastest: the highest. Frequencies are spread evenly in logarithm, and then learned.
        waves: number of pairs of waves of time in the drift, beside time itself.
        lines: number of pairs of coordinates that are lines in place of waves, at most d / 2.

    Raises:
        ConfigurationError: if ``fastest`` is below ``slowest``.
    """

    def __init__(
        self,
        dim: int,
        context: int = 0,
        *,
        slowest: float = 0.1,
        fastest: float = 6.0,
        waves: int = 0,
        lines: int = 0,
    ) -> None:
        super().__init__(dim, context)
        check_number("slowest", slowest, above=0.0)
        check_number("fastest", fastest, above=0.0)
        if fastest < slowest:
            raise ConfigurationError(f"fastest={fastest}: expected at least slowest={slowest}")
        self.lines = check_integer("lines", lines, minimum=0, maximum=dim // 2)
        turning = dim // 2 - lines
        share = torch.linspace(0.0, 1.0, max(turning, 1))[:turning]
        slopes = torch.full((lines,), SLOPE)
        frequencies = torch.cat([slopes, slowest * (fastest / slowest) ** share])
        self.log_frequencies = nn.Parameter(frequencies.log())
        self.time_features = TimeFeatures(check_integer("waves", waves, minimum=0))
        self.drift = nn.Linear(self.time_features.size * (1 + context), dim, bias=False)
        nn.init.zeros_(self.drift.weight)

    def _turned(self, u: Tensor, times: Tensor) -> Tensor:
        """Return u ``(..., n, d)``, with each pair turned or sheared by its angle at ``(n,)``."""
        angles = times[:, None] * self.log_frequencies.exp()
        cosine, sine = angles.cos(), angles.sin()
        half = self.dim // 2
        first, second, rest = u.split([half, half, self.dim - 2 * half], -1)
        turned = [cosine * first - sine * second, sine * first + cosine * second]
        if self.lines:
            line = first[..., : self.lines] + angles[:, : self.lines] * second[..., : self.lines]
            turned = [
                torch.cat([line, turned[0][..., self.lines :]], -1),
                torch.cat([second[..., : self.lines], turned[1][..., self.lines :]], -1),
            ]
        return torch.cat([*turned, rest], -1)

    def _shift(self, times: Tensor, context: Tensor | None) -> Tensor:
        """Return m(t, c), ``(n, d)``."""
        features = self.time_features(times)
        if context is not None:
            ones = torch.ones_like(context[:, :1])
            factors = torch.cat([ones, context], -1)
            features = (features[:, :, None] * factors[:, None, :]).flatten(1)
        shift: Tensor = self.drift(features)
        return shift

    def forward(
        self, u: Tensor, times: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        z = self._turned(u, times) + self._shift(times, context)
        return z, torch.zeros_like(z[..., 0])

    def inverse(
        self, z: Tensor, times: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        u = self._turned(z - self._shift(times, context), -times)
        return u, torch.zeros_like(u[..., 0])
