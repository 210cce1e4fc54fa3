"""The maximum mean discrepancy between two samples."""

from collections.abc import Callable

import torch
from torch import Tensor

from chartae.checks import check_choice, check_number

__all__ = ["KERNELS", "mmd"]

IMQ_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def _rbf(squared: Tensor, variance: float) -> Tensor:
    return torch.exp(-squared / variance)


def _imq(squared: Tensor, variance: float) -> Tensor:
    return torch.stack([s * variance / (s * variance + squared) for s in IMQ_SCALES]).sum(0)


KERNELS: dict[str, Callable[[Tensor, float], Tensor]] = {"imq": _imq, "rbf": _rbf}
"""The kernels of `mmd` by name: functions of squared distances and a variance."""


def mmd(
    a: Tensor,
    b: Tensor,
    kernel: str = "imq",
    bandwidth: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    r"""Return the unbiased estimate of the squared MMD (Gretton et al., 2012, lemma 6).

    .. math:: \frac{1}{m(m-1)} \sum_{i \ne j} k(a_i, a_j) + \frac{1}{n(n-1)} \sum_{i \ne j}
        k(b_i, b_j) - \frac{2}{mn} \sum_{i, j} k(a_i, b_j)

    with :math:`k = e^{-r^2 / C}` (``"rbf"``) or :math:`\sum_s sC / (sC + r^2)` (``"imq"``, s from
    0.1 to 10), :math:`C = 2 d \sigma^2`, the mean squared distance of two draws of
    :math:`N(0, \sigma^2 I)` (Tolstikhin et al., 2018). It may be negative. A sample of size one has
    no pairs, and its term is 0.

    Args:
        a: ``(m, d)``.
        b: ``(n, d)``.
        kernel: ``"imq"`` or ``"rbf"``.
        bandwidth: :math:`\sigma` > 0.
        weight: weight of each row of a, ``(m,)``, at least 0. Averages over rows use the weights;
            averages over pairs of rows use their products. None gives equal weights.

    Raises:
        ConfigurationError: for an unknown kernel, or a bandwidth that is not positive.
    """
    check_choice("kernel", kernel, KERNELS)
    check_number("bandwidth", bandwidth, above=0.0)
    variance = 2.0 * a.shape[-1] * bandwidth**2
    pooled = torch.cat([a, b])
    # Centring avoids cancellation in the expansion of |a - b|^2.
    pooled = pooled - pooled.detach().mean(0)
    norms = pooled.square().sum(-1)
    squared = (norms[:, None] + norms - 2.0 * pooled @ pooled.mT).clamp_min(0.0)
    values = KERNELS[kernel](squared, variance)
    m = len(a)
    if weight is None:
        across = values[:m, m:].mean()
    else:
        weight = weight.to(values)
        across = weight @ values[:m, m:].mean(1) / _positive(weight.sum())
    return (
        _off_diagonal(values[:m, :m], weight) + _off_diagonal(values[m:, m:], None) - 2.0 * across
    )


def _off_diagonal(values: Tensor, weight: Tensor | None) -> Tensor:
    """Return the mean of the off-diagonal entries of a square matrix; 0 for a 1 x 1 matrix."""
    if weight is None:
        pairs = max(1, len(values) * (len(values) - 1))
        return (values.sum() - values.diagonal().sum()) / pairs
    shares = torch.outer(weight, weight).fill_diagonal_(0.0)
    return (shares * values).sum() / _positive(shares.sum())


def _positive(total: Tensor) -> Tensor:
    """Return a sum of weights, or 1 if all of them are 0, so that the quotient is 0."""
    return torch.where(total > 0.0, total, 1.0)
