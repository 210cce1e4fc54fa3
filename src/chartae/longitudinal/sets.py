"""An encoder of sets of visits: what all visits of an individual say together."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from chartae.longitudinal.time_flows import TimeFeatures
from chartae.longitudinal.visits import Visits

__all__ = ["SetEncoder"]

ToOrigin = Callable[[Tensor], Tensor]
"""From latents at the times of the visits, ``(M, d)``, to the latents u that lead to them."""


class SetEncoder(nn.Module):
    r"""Features of a set of visits with their times, of any number.

    Each visit proposes a latent at its own time, which the flow maps to a latent :math:`u_j` of the
    individual, and a precision :math:`\lambda_j`. The product of these normals is a first
    posterior,

    .. math:: \Lambda = \sum_j \lambda_j, \quad m = \Lambda^{-1} \sum_j \lambda_j u_j,

    which narrows as visits are added. Beside it there are learned features of the whole set (Zaheer
    et al., 2017): the visits are encoded with their times, and encoded again beside their mean, so
    that the second pass can compare a visit with the others.

    Args:
        features: number of features of a visit.
        dim: size d of the latents.
        hidden: number of learned features of a set.
    """

    floor = 1e-3  # lower bound of a precision, so that their sum is never 0

    def __init__(self, features: int, dim: int, hidden: int = 128) -> None:
        super().__init__()
        self.dim, self.size = dim, hidden + 2 * dim
        self.time_features = TimeFeatures()
        # Of the features of a visit: its latent, the part of the precision, the learned features.
        self.sizes = [dim, dim, hidden]
        self.given = nn.Linear(features, sum(self.sizes))
        self.timed = nn.Linear(self.time_features.size, dim)
        self.beside = nn.Linear(dim + self.time_features.size, hidden, bias=False)
        self.own, self.others = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden, bias=False)
        self.together = nn.Sequential(nn.Linear(2 * hidden + 1, hidden), nn.ReLU())

    def start(self, head: nn.Linear) -> None:
        """Let the linear layer of a posterior's head start at the product of normals."""
        with torch.no_grad():
            head.weight[: 2 * self.dim].zero_()
            head.weight[: 2 * self.dim, -2 * self.dim :].copy_(torch.eye(2 * self.dim))
            head.bias[: 2 * self.dim].zero_()

    def forward(self, features: Tensor, visits: Visits, to_origin: ToOrigin) -> Tensor:
        """Return the features of each individual, ``(B, size)``, from ``(M, features)``.

        The last ``2 d`` are the mean m, and the number whose softplus is the deviation.
        """
        when = self.time_features(visits.times)
        location, precision, own = self.given(features).split(self.sizes, -1)
        u = to_origin(location)
        precisions = softplus(precision + self.timed(when)) + self.floor
        total = visits.sum(precisions.mT).mT
        mean = visits.sum((precisions * u).mT).mT / total
        deviation = total.rsqrt()
        raw = deviation + torch.log(-torch.expm1(-deviation))  # the inverse of softplus
        own = relu(own + self.beside(torch.cat([u, when], -1)))
        average = visits.mean(own)
        # The part of the mean is computed once for each individual, not for each visit.
        others = self.others(average).index_select(0, visits.owner)
        compared = relu(self.own(own) + others)
        counts = visits.counts.to(average)[:, None].log()
        encoded = self.together(torch.cat([average, visits.mean(compared), counts], -1))
        return torch.cat([encoded, mean, raw], -1)
