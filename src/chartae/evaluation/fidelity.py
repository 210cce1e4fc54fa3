"""Distances between the distribution of real data and that of generated data."""

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from chartae.checks import check_finite
from chartae.data.arrays import as_tensor
from chartae.errors import DataError

__all__ = ["frechet_distance"]


def frechet_distance(real: ArrayLike | Tensor, fake: ArrayLike | Tensor) -> float:
    r"""Return the Frechet distance of normals fitted to two sets of features, at least 0.

    .. math:: \|\mu_1 - \mu_2\|^2
        + \mathrm{tr}\left(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2}\right)

    With the features of an Inception network it is the FID (Heusel et al., 2017). It is 0 if means
    and covariances are equal. With few samples it is biased upwards, so sets of equal sizes should
    be compared, of more samples than features.

    Args:
        real: ``(N, ...)``; features of real data. Further dimensions are flattened.
        fake: ``(M, ...)``, features of generated data, of the same size.

    Raises:
        DataError: for fewer than 2 samples, values that are not finite, or different sizes.

    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(1000, 3))
    >>> round(frechet_distance(x, x + 1.0), 6)
    3.0
    """
    a, b = (_features(name, value) for name, value in (("real", real), ("fake", fake)))
    if a.shape[1] != b.shape[1]:
        raise DataError(f"real has {a.shape[1]} features and fake {b.shape[1]}: expected the same")
    means = a.mean(0), b.mean(0)
    # tr (S1 S2)^1/2 is the sum of singular values of the product of roots S1 = A A^T, S2 = B B^T.
    roots = [
        (values - mean).mT / (len(values) - 1) ** 0.5
        for values, mean in zip((a, b), means, strict=True)
    ]
    roots = [_smaller(root) for root in roots]
    cross = torch.linalg.svdvals(roots[0].mT @ roots[1]).sum()
    traces = sum(root.square().sum() for root in roots)
    return max(0.0, float((means[0] - means[1]).square().sum() + traces - 2.0 * cross))


def _smaller(root: Tensor) -> Tensor:
    """Return a root ``(d, min(d, n))`` of the same covariance as a root ``(d, n)``."""
    if root.shape[1] <= root.shape[0]:
        return root
    left, values, _ = torch.linalg.svd(root, full_matrices=False)
    smaller: Tensor = left * values
    return smaller


def _features(name: str, value: ArrayLike | Tensor) -> Tensor:
    features = as_tensor(name, value).double()
    if features.ndim < 2 or len(features) < 2:
        raise DataError(f"{name} has shape {tuple(features.shape)}: expected (N, ...), N >= 2")
    check_finite(name, features)
    return features.flatten(1)
