"""The base of the models with a latent for each visit, rather than one for each individual."""

import torch
from torch import Tensor

from chartae.longitudinal.base import Proposal, SequenceModel
from chartae.longitudinal.visits import Visits
from chartae.models.losses import Extra

__all__ = ["VisitLatentModel"]


class VisitLatentModel(SequenceModel):
    """Base of the models whose latents are those of the observed visits of an individual.

    A subclass defines `infer_visits`, which draws the latents of observed visits, and `elsewhere`,
    which draws those at other times given them. The latents of a batch are one tensor,
    ``(..., B, W, latent_dim + 2)``, where W is the largest number of visits of an individual. The
    last two columns are the time of the visit, and 1 if there is a visit, else 0.

    `path` returns the latent of a visit at the time of the visit, and a new draw at any other time.
    The draws at the times of one call are joint; two calls give two draws.
    """

    proposals = ("set",)

    # --- what a subclass defines ------------------------------------------------------------------

    def infer_visits(self, visits: Visits, num_samples: int) -> tuple[Tensor, Tensor]:
        """Draw latents of visits from a proposal q(z | visits).

        Returns:
            ``(num_samples, M, latent_dim)``, and log p(z) - log q(z), ``(num_samples, B)``.
        """
        raise NotImplementedError

    def elsewhere(
        self, z: Tensor, at: Tensor, known: Tensor, owner: Tensor, times: Tensor, y: Extra
    ) -> Tensor:
        """Draw latents at other times of individuals, given those of their visits.

        Args:
            z: ``(..., B, W, latent_dim)``, the latents of visits, 0 in padding.
            at: ``(B, W)``, the times of the visits.
            known: ``(B, W)`` bool, False in padding.
            owner: ``(n,)``, the individual of each time.
            times: ``(n,)``.
            y: conditions of the B individuals.

        Returns:
            ``(..., n, latent_dim)``.
        """
        raise NotImplementedError

    # --- the contract of sequences ----------------------------------------------------------------

    def infer(self, visits: Visits, num_samples: int, proposal: Proposal) -> tuple[Tensor, Tensor]:
        z, ratio = self.infer_visits(visits, num_samples)
        when = visits.times.expand(num_samples, -1)
        columns = torch.cat([z, torch.stack([when, torch.ones_like(when)], -1)], -1)
        return padded(columns, visits.owner, visits.rank, visits.counts), ratio

    def log_fit(self, latents: Tensor, visits: Visits) -> Tensor:
        z = latents[..., visits.owner, visits.rank, : self.latent_dim]
        fit: Tensor = self.likelihood(z, visits.conditions).log_prob(visits.x, visits.mask)
        return visits.sum(fit)

    def path(self, latents: Tensor, owner: Tensor, times: Tensor, y: Extra = None) -> Tensor:
        z, at, flag = latents.split([self.latent_dim, 1, 1], -1)
        width = latents.shape[-2]
        first = (0,) * (latents.dim() - 3)  # all draws have the visits in common
        at, known = at[first][..., 0], flag[first][..., 0] > 0.5
        drawn = self.elsewhere(z, at, known, owner, times, y)
        if not width:
            return drawn
        same = known[owner] & (at[owner] == times[:, None])
        own = z[..., owner, same.float().argmax(-1), :]
        return torch.where(same.any(-1)[:, None], own, drawn)

    def sample_latents(self, n: int, y: Extra = None) -> Tensor:
        """Return the latents of n individuals without a visit: ``(n, 0, latent_dim + 2)``."""
        return torch.zeros(n, 0, self.latent_dim + 2, dtype=self.dtype, device=self.device)


def padded(values: Tensor, owner: Tensor, rank: Tensor, counts: Tensor) -> Tensor:
    """Return values of entries ``(..., n, d)`` by individual and rank, 0 in padding.

    Args:
        values: ``(..., n, d)``.
        owner: ``(n,)``, the individual of each entry.
        rank: ``(n,)``, its place among those of the individual.
        counts: ``(B,)``, the number of entries of each individual.

    Returns:
        ``(..., B, W, d)``, where W is the largest count.
    """
    width = int(counts.max()) if len(counts) else 0
    shape = (*values.shape[:-2], len(counts) * width, values.shape[-1])
    places = owner * width + rank
    filled = values.new_zeros(shape).index_copy(-2, places, values)
    return filled.reshape(*shape[:-2], len(counts), width, shape[-1])


def ranks(owner: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the place of each entry among those of its individual, and the numbers of entries.

    Args:
        owner: ``(n,)``, the individual of each entry, in [0, count).
        count: number of individuals.

    >>> ranks(torch.tensor([1, 0, 1, 1]), 2)
    (tensor([0, 0, 1, 2]), tensor([1, 3]))
    """
    counts = torch.bincount(owner, minlength=count)
    order = owner.argsort(stable=True)
    places = torch.arange(len(owner), device=owner.device)
    first = (counts.cumsum(0) - counts)[owner[order]]
    return torch.empty_like(places).scatter(0, order, places - first), counts
