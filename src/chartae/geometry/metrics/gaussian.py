"""Normally distributed velocities: the factor of their covariance, and their density."""

import math

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from chartae.checks import check_floating, check_number, check_shape
from chartae.geometry.metrics.centroid import check_positive_definite

__all__ = ["covariance_factor", "log_normal"]


def covariance_factor(covariance: Tensor | float, like: Tensor) -> Tensor:
    """Check a covariance and return its lower Cholesky factor, ``(d, d)``."""
    d = like.shape[-1]
    if not isinstance(covariance, Tensor):
        check_number("covariance", covariance, above=0.0)
        return math.sqrt(covariance) * torch.eye(d, dtype=like.dtype, device=like.device)
    check_floating("covariance", covariance)
    check_shape("covariance", covariance, (d, d))
    check_positive_definite("covariance", covariance)
    factor: Tensor = torch.linalg.cholesky(covariance.to(like))
    return factor


def log_normal(v: Tensor, factor: Tensor) -> Tensor:
    """Return log N(v; 0, L L^T) of v ``(..., d)``, for the lower factor L: ``(...)``."""
    zero = torch.zeros_like(factor[0])
    normal = MultivariateNormal(zero, scale_tril=factor, validate_args=False)
    log_prob: Tensor = normal.log_prob(v)
    return log_prob
