"""Covariances of Gaussian processes of time, at any real times."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["TIME_KERNELS", "GaussianProcess"]

TIME_KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "rbf": lambda r: (-0.5 * r.square()).exp(),
    "cauchy": lambda r: 1.0 / (1.0 + r.square()),
    "diffusion": lambda r: (1.0 - r).clamp(min=0.0),
    "matern": lambda r: (-r).exp(),
    "matern32": lambda r: (1.0 + 3.0**0.5 * r) * (-(3.0**0.5) * r).exp(),
}
"""Correlations of a process at two times, by name, from their distance in length scales r.

``"rbf"`` is exp(-r^2 / 2), and ``"cauchy"`` 1 / (1 + r^2), a mixture of such processes of all
lengths. ``"matern"`` has the smoothness 1/2, exp(-r), as in the code of Fortuin et al. (2020), and
``"matern32"`` 3/2. ``"diffusion"`` is 1 - r, and 0 from r = 1 on: the increments of a Brownian
motion over one length. At equal steps and with a length of one to two steps it is the matrix of
that code, in which only successive visits are correlated.
"""

TINY = 1e-9
"""Added to the variances of joint draws in float64, whose times may be equal."""


class GaussianProcess:
    r"""Independent processes of mean 0 and variance 1, one for each length scale.

    .. math:: k(t, t') = (1 - \nu) \, c(|t - t'| / l) + \nu \, [t = t']

    All computations are in float64; results have the dtype of the times or of the values.

    Args:
        kernel: the name of the correlation c (`TIME_KERNELS`).
        lengths: ``(G,)``, the length scales l, positive.
        nugget: the :math:`\nu`, from 1e-5 to below 1: the share of the variance that is
            independent from time to time.
    """

    def __init__(self, kernel: str, lengths: Tensor, nugget: float) -> None:
        self.correlation = TIME_KERNELS[kernel]
        self.lengths, self.nugget = lengths.double(), nugget

    def covariance(self, first: Tensor, second: Tensor) -> Tensor:
        """Return covariances between times ``(..., n)`` and ``(..., m)``: ``(..., G, n, m)``."""
        gaps = (first.double()[..., :, None] - second.double()[..., None, :]).abs()
        scaled = gaps[..., None, :, :] / self.lengths.to(gaps.device)[:, None, None]
        same = (gaps == 0.0).double()[..., None, :, :]
        return (1.0 - self.nugget) * self.correlation(scaled) + self.nugget * same

    def factor(self, times: Tensor, known: Tensor) -> Tensor:
        """Return the Cholesky factors of covariances at times ``(B, W)``: ``(B, G, W, W)``.

        Entries where ``known`` is False are padding: independent, with a variance of 1.
        """
        covariance = _with_padding(self.covariance(times, times), known)
        factor: Tensor = torch.linalg.cholesky(covariance)
        return factor

    def whitener(self, times: Tensor, known: Tensor) -> Tensor:
        """Return the inverses of the factors, ``(B, G, W, W)``."""
        factor = self.factor(times, known)
        unit = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
        inverse: Tensor = torch.linalg.solve_triangular(factor, unit, upper=False)
        return inverse

    def conditional(
        self, at: Tensor, known: Tensor, times: Tensor, wanted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the law of values at some times, given those at others.

        Args:
            at: ``(B, W)``, the times of known values.
            known: ``(B, W)`` bool, False in padding.
            times: ``(B, K)``, other times.
            wanted: ``(B, K)`` bool, False in padding.

        Returns:
            ``(B, G, K, W)``, the weights of the known values in the mean, and Cholesky factors of
            the covariance, ``(B, G, K, K)``.
        """
        between = self.covariance(times, at) * known[:, None, None, :]
        white = self.whitener(at, known)
        scaled = between @ white.mT  # (B, G, K, W)
        own = self.covariance(times, times) - scaled @ scaled.mT
        # Variances are 0 at the times of known values, up to rounding.
        own = _with_padding(own, wanted)
        own.diagonal(dim1=-2, dim2=-1).clamp_(min=0.0).add_(TINY)
        return scaled @ white, torch.linalg.cholesky(own)


def _with_padding(covariance: Tensor, known: Tensor) -> Tensor:
    """Return covariances ``(B, G, n, n)`` with those of independent variables in padding."""
    both = (known[:, :, None] & known[:, None, :])[:, None]
    unit = torch.eye(known.shape[-1], dtype=covariance.dtype, device=covariance.device)
    return torch.where(both, covariance, unit)
