"""An encoder of sets of visits: what all visits of an individual say together."""

import torch
from torch import Tensor, nn

from chartae.longitudinal.time_flows import TimeFeatures
from chartae.longitudinal.visits import Visits

__all__ = ["SetEncoder"]


class SetEncoder(nn.Module):
    """Features of a set of visits with their times, of any number (Zaheer et al., 2017).

    Each visit is encoded with its time, and the means over the visits of an individual are added to
    its visits once more, so that the second pass can compare a visit with the others.

    Args:
        features: number of features of a visit.
        size: number of features of a set.
    """

    def __init__(self, features: int, size: int = 256) -> None:
        super().__init__()
        self.size = size
        self.time_features = TimeFeatures()
        self.alone = nn.Sequential(
            nn.Linear(features + self.time_features.size, size), nn.SiLU(), nn.Linear(size, size)
        )
        self.compared = nn.Sequential(nn.Linear(2 * size, size), nn.SiLU(), nn.Linear(size, size))
        self.together = nn.Sequential(nn.Linear(2 * size + 1, size), nn.SiLU())

    def forward(self, features: Tensor, visits: Visits) -> Tensor:
        """Return the features of each individual, ``(B, size)``, from ``(M, features)``."""
        own = self.alone(torch.cat([features, self.time_features(visits.times)], -1))
        mean = visits.mean(own)
        compared = self.compared(torch.cat([own, mean[visits.owner]], -1))
        counts = visits.counts.to(mean)[:, None].log()
        encoded: Tensor = self.together(torch.cat([mean, visits.mean(compared), counts], -1))
        return encoded
