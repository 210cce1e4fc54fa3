"""A convolution over the visits of an individual, at irregular times."""

import torch
from torch import Tensor, nn

from chartae.longitudinal.time_flows import TimeFeatures
from chartae.longitudinal.visits import Visits

__all__ = ["TemporalConvolution"]


class TemporalConvolution(nn.Module):
    """Features of each visit, given its neighbours in time and how far away they are.

    It is a convolution over the observed visits of an individual, whose inputs are also the gaps of
    time to the neighbours. A neighbour that does not exist has the input 0.

    Args:
        features: number of features of a visit.
        neighbours: number of visits before a visit that it sees, and after it.
        size: number of features that it returns.
    """

    def __init__(self, features: int, neighbours: int = 2, size: int = 128) -> None:
        super().__init__()
        self.neighbours, self.size = neighbours, size
        self.time_features = TimeFeatures()
        self.alone = nn.Sequential(nn.Linear(features + self.time_features.size, size), nn.SiLU())
        others = 2 * neighbours * (size + 2)
        self.together = nn.Sequential(nn.Linear(size + others, size), nn.SiLU())

    def forward(self, features: Tensor, visits: Visits) -> Tensor:
        """Return the features of each visit, ``(M, size)``, from ``(M, features)``."""
        own = self.alone(torch.cat([features, self.time_features(visits.times)], -1))
        reach = range(-self.neighbours, self.neighbours + 1)
        parts = [own if not k else _neighbour(own, visits, k) for k in reach]
        encoded: Tensor = self.together(torch.cat(parts, -1))
        return encoded


def _neighbour(own: Tensor, visits: Visits, offset: int) -> Tensor:
    """Return features, gap and presence of the visit ``offset`` places later, ``(M, size + 2)``."""
    place = torch.arange(len(visits), device=own.device) + offset
    index = place.clamp(0, len(visits) - 1)
    exists = (place == index) & (visits.owner[index] == visits.owner)
    gap = visits.times[index] - visits.times
    values = torch.cat([own[index], gap[:, None], torch.ones_like(gap)[:, None]], -1)
    return torch.where(exists[:, None], values, 0.0)
