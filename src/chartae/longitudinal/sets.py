"""An encoder of sets of visits: what all visits of an individual say together."""

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from chartae.longitudinal.time_flows import TimeFeatures
from chartae.longitudinal.visits import Visits

__all__ = ["SetEncoder"]


class SetEncoder(nn.Module):
    """Features of a set of visits with their times, of any number (Zaheer et al., 2017).

    Each visit is encoded with its time. A second layer sees each visit beside the mean over the
    visits of its individual, so that it can compare a visit with the others. The means over visits
    of both layers, and the log number of visits, are then mapped to the features of the set.

    Args:
        features: number of features of a visit.
        size: number of features of a set.
    """

    def __init__(self, features: int, size: int = 256) -> None:
        super().__init__()
        self.size = size
        self.time_features = TimeFeatures()
        self.alone = nn.Sequential(nn.Linear(features + self.time_features.size, size), nn.SiLU())
        self.own, self.others = nn.Linear(size, size), nn.Linear(size, size, bias=False)
        self.together = nn.Sequential(nn.Linear(2 * size + 1, size), nn.SiLU())

    def forward(self, features: Tensor, visits: Visits) -> Tensor:
        """Return the features of each individual, ``(B, size)``, from ``(M, features)``."""
        own = self.alone(torch.cat([features, self.time_features(visits.times)], -1))
        mean = visits.mean(own)
        # The part of the mean is computed once for each individual, not for each visit.
        compared = silu(self.own(own) + self.others(mean)[visits.owner])
        counts = visits.counts.to(mean)[:, None].log()
        encoded: Tensor = self.together(torch.cat([mean, visits.mean(compared), counts], -1))
        return encoded
