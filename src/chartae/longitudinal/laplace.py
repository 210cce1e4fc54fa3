"""The normal approximation of the posterior of individuals, computed from the model itself."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jvp, vmap

from chartae.distributions import FullNormal, Observation
from chartae.longitudinal.visits import Visits

__all__ = ["laplace_posterior"]

SMALLEST = 1e-10
"""Lower bound of the variance of a feature, such as one with an improbable class."""


def laplace_posterior(
    observe: Callable[[Tensor], Observation], visits: Visits, start: Tensor, steps: int
) -> FullNormal:
    r"""Return a normal approximation of p(u | visits), with p(u) = N(0, I), by Gauss-Newton steps.

    .. math:: \Lambda = I + \sum_j J_j^T V_j^{-1} J_j, \quad
        m = \Lambda^{-1} \sum_j J_j^T V_j^{-1} (x_j - \mu_j + J_j u)

    where :math:`\mu_j(u)` and the diagonal :math:`V_j(u)` are mean and variances of p(x_j|u), and
    :math:`J_j` is the Jacobian of the mean. A step moves u to m; the posterior is
    :math:`N(m, \Lambda^{-1})` of the last step. If the mean is linear in u, and V constant, as for
    a linear decoder, a linear flow and a Gaussian likelihood, one step gives the exact posterior.
    For other exponential families it is a step of Fisher scoring.

    Args:
        observe: maps u ``(B, d)`` to p(x_j|u) of the visits, a batch of M.
        visits: the visits; what is outside their mask does not count.
        start: the u of the first step, ``(B, d)``.
        steps: number of steps, at least 1.
    """
    u, basis = start, torch.eye(start.shape[-1], dtype=start.dtype, device=start.device)
    x = visits.x.flatten(1)

    def mean_of(u: Tensor) -> Tensor:
        mean: Tensor = observe(u).mean
        return mean.flatten(1)

    def column(direction: Tensor) -> Tensor:
        change: Tensor = jvp(mean_of, (u,), (direction.expand_as(u),))[1]
        return change

    for _ in range(steps):
        mean, jacobian = mean_of(u), vmap(column, out_dims=-1)(basis)  # (M, D), (M, D, d)
        precision = observe(u).variance.flatten(1).clamp(min=SMALLEST).reciprocal()
        if visits.mask is not None:
            precision = precision * visits.mask.flatten(1)
        weighted = (jacobian * precision[..., None]).mT
        linear = (jacobian @ u[visits.owner][..., None])[..., 0]
        gradient = (weighted @ (x - mean + linear)[..., None])[..., 0]
        information = basis + _by_individual(weighted @ jacobian, visits)
        factor = torch.linalg.cholesky(information)
        u = torch.cholesky_solve(_by_individual(gradient, visits)[..., None], factor)[..., 0]
    # Lambda = L L^T, hence Lambda^-1 = R R^T with the triangular R of the reversed order.
    flipped = torch.linalg.cholesky(information.flip((-2, -1))).flip((-2, -1))
    return FullNormal(u, torch.linalg.solve_triangular(flipped, basis, upper=True).mT)


def _by_individual(values: Tensor, visits: Visits) -> Tensor:
    """Return the sums of values ``(M, ...)`` over the visits of each individual, ``(B, ...)``."""
    total = values.new_zeros(visits.num_individuals, *values.shape[1:])
    return total.index_add(0, visits.owner, values)
