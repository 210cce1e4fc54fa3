"""Estimates of the aggregated posterior q(z) of a training set, from one batch."""

from typing import Literal

import torch
from torch import Tensor

from chartae.distributions.normal import DiagonalNormal

__all__ = ["Estimator", "log_aggregate"]

Estimator = Literal["mss", "mws"]
"""The estimators of `log_aggregate`."""


def log_aggregate(
    posterior: DiagonalNormal,
    z: Tensor,
    size: int | Tensor,
    estimator: Estimator = "mss",
    weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Return estimates of :math:`\log q(z)` and :math:`\sum_j \log q(z_j)`, ``(batch,)`` each.

    q(z) is the mixture of the posteriors of N samples. It is estimated from the posteriors of one
    batch (Chen et al., 2018, section 4 and appendix C). Minibatch stratified sampling, ``"mss"``,
    gives an unbiased estimate of the density. Minibatch weighted sampling, ``"mws"``, gives each
    posterior of a batch of M the weight 1 / (N M). (In the published code of the former, a third of
    the weights is in the wrong column.)

    Args:
        posterior: the posteriors of the batch, over ``(batch, d)``.
        z: one draw of each posterior, ``(batch, d)``.
        size: N, also as a tensor, which need not leave its device; if it is less than the batch
            size, the batch size is used.
        estimator: ``"mss"`` or ``"mws"``.
        weight: the weight of each sample of the batch, ``(batch,)``, with a mean of 1 over the
            training set; None gives all samples the same weight.
    """
    # log q(z_i | x_k) of each coordinate: (i, k, d).
    pairs = posterior.base_dist.log_prob(z[:, None])
    # N may be beyond the largest number of 16 bits.
    dtype = torch.promote_types(z.dtype, torch.float32)
    total = torch.as_tensor(size, dtype=dtype, device=z.device).clamp_min(len(z))
    log_weights = log_shares(len(z), total, estimator).to(z)
    if weight is not None:
        # A weight of 0 is the least positive number: densities stay finite if all are 0.
        log_weights = log_weights + weight.to(z).clamp_min(torch.finfo(z.dtype).tiny).log()
    log_joint = torch.logsumexp(pairs.sum(-1) + log_weights, 1)
    log_product = torch.logsumexp(pairs + log_weights[..., None], 1).sum(-1)
    return log_joint, log_product


def log_shares(batch: int, size: Tensor, estimator: Estimator) -> Tensor:
    """Return the log weight of sample k of a batch in q(z_i), ``(batch, batch)``."""
    if estimator == "mws":
        return -(batch * size).log().expand(batch, batch)
    if batch == 1:
        return size.new_zeros(1, 1)
    # The own posterior of z_i has weight 1 / N. The others are M = batch - 1 draws from the
    # remaining N - 1 samples. They share the remaining weight; one of them has a larger share.
    others = batch - 1
    weights = size.new_full((batch, batch), 1.0 / others)
    rows = torch.arange(batch, device=size.device)
    weights[rows, (rows + 1) % batch] = (size - others) / (size * others)
    weights[rows, rows] = 1.0 / size
    return weights.log()
