"""Quadratic forms of many normals at many points, as one matrix product.

The precisions of N normals are rows ``(N, p)``. For diagonal normals, p = d and a row holds the
inverse variances. For full normals, p = d * d and a row holds the inverse covariance. In both cases

    z^T P_i z = powers(z, p) @ P_i,    P_i z = times(P_i, z).
"""

import torch
from torch import Tensor

__all__ = ["powers", "precisions", "times"]


def precisions(spread: Tensor, *, factors: bool = False) -> Tensor:
    """Return the inverses of variances ``(N, d)`` or covariances ``(N, d, d)``, as rows ``(N, p)``.

    Args:
        spread: the variances or covariances.
        factors: if True, ``spread`` holds standard deviations, or lower Cholesky factors.
    """
    if spread.dim() == 2:
        return (spread.square() if factors else spread).reciprocal()
    lower = spread if factors else torch.linalg.cholesky(spread)
    inverse: Tensor = torch.cholesky_inverse(lower)
    return inverse.flatten(1)


def powers(z: Tensor, size: int) -> Tensor:
    """Return the squares or all products of the coordinates of z ``(..., d)``: ``(..., size)``."""
    if size == z.shape[-1]:
        return z.square()
    return (z[..., :, None] * z[..., None, :]).flatten(-2)


def times(rows: Tensor, z: Tensor) -> Tensor:
    """Return the products of precisions ``(..., p)`` with vectors ``(..., d)``: ``(..., d)``."""
    d = z.shape[-1]
    if rows.shape[-1] == d:
        return rows * z
    matrices: Tensor = rows.unflatten(-1, (d, d))
    return (matrices @ z[..., None])[..., 0]
