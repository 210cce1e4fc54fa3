"""Estimates of the aggregated posterior q(z) of a training set, from a batch of it."""

import math
from typing import Literal

import torch
from torch import Tensor

from chartae.distributions.normal import DiagonalNormal

__all__ = ["Estimator", "log_aggregate"]

Estimator = Literal["mss", "mws"]


def log_aggregate(
    posterior: DiagonalNormal,
    z: Tensor,
    size: int,
    estimator: Estimator = "mss",
    weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Return estimates of :math:`\log q(z)` and :math:`\sum_j \log q(z_j)`, ``(batch,)`` each.

    q(z) is the mixture of the posteriors of N samples, of which a batch is known (Chen et al.,
    2018, section 4 and appendix C): by minibatch stratified sampling, ``"mss"``, whose estimate of
    the density is unbiased, or by minibatch weighted sampling, ``"mws"``, which takes the known
    posteriors for N times as many. (The published code of the former has a third of its weights
    in the wrong column.)

    Args:
        posterior: the posteriors of the batch, over ``(batch, d)``.
        z: a draw of each, ``(batch, d)``.
        size: N; less than the batch counts as the batch.
        estimator: ``"mss"`` or ``"mws"``.
        weight: how much each sample of the batch counts, ``(batch,)``, with a mean of 1 over the
            training set; None counts all alike.
    """
    # log q(z_i | x_k) of each coordinate: (i, k, d).
    pairs = posterior.base_dist.log_prob(z[:, None])
    log_weights = log_shares(len(z), max(size, len(z)), estimator).to(z)
    if weight is not None:
        log_weights = log_weights + weight.log()
    log_joint = torch.logsumexp(pairs.sum(-1) + log_weights, 1)
    log_product = torch.logsumexp(pairs + log_weights[..., None], 1).sum(-1)
    return log_joint, log_product


def log_shares(batch: int, size: int, estimator: Estimator) -> Tensor:
    """Return how much sample k of a batch counts for q(z_i), ``(batch, batch)``, as logs."""
    if estimator == "mws":
        return torch.full((batch, batch), -math.log(batch * size), dtype=torch.float64)
    if batch == 1:
        return torch.zeros(1, 1, dtype=torch.float64)
    # z_i's own posterior counts 1 / N; the others, M = batch - 1 draws from the remaining N - 1,
    # share the rest: one of them more than the others.
    others = batch - 1
    weights = torch.full((batch, batch), 1.0 / others, dtype=torch.float64)
    rows = torch.arange(batch)
    weights[rows, (rows + 1) % batch] = (size - others) / (size * others)
    weights[rows, rows] = 1.0 / size
    return weights.log()
