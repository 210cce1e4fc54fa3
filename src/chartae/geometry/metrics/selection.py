"""Selection of representative codes, and nearest-neighbour distances between codes."""

from typing import Literal

import torch
from torch import Tensor

from chartae.checks import check_choice, check_integer
from chartae.distributions import powers, precisions, times
from chartae.randomness import derive_seed, make_generator

__all__ = ["Selection", "nearest_neighbour_distances", "select_centroids"]

Selection = Literal["k-medoids", "random"]
"""Ways to choose centroids, see `select_centroids`."""

POOL = 5000
"""Maximum number of codes given to k-medoids, whose distance matrix has N^2 entries."""
BLOCK = 2**22
"""Maximum number of distances computed at once."""


def select_centroids(
    codes: Tensor, count: int | None, selection: Selection = "k-medoids", seed: int = 0
) -> Tensor:
    """Return the sorted indices of representative codes, ``(count,)``.

    Args:
        codes: ``(N, d)``.
        count: how many, at most N; None takes all.
        selection: ``"k-medoids"``, by FasterPAM (Schubert and Rousseeuw, 2021) on Euclidean
            distances, or ``"random"``. For more than 5000 codes, k-medoids uses 5000 of them,
            chosen at random.
        seed: the random seed.

    Raises:
        ConfigurationError: for a count out of range or an unknown selection.
    """
    check_choice("selection", selection, ("k-medoids", "random"))
    check_integer("seed", seed, minimum=0)
    everything = torch.arange(len(codes), device=codes.device)
    if count is None:
        return everything
    check_integer("num_centroids", count, minimum=1, maximum=len(codes))
    if count == len(codes):
        return everything
    order = torch.randperm(len(codes), generator=make_generator(seed, "centroids"))
    if selection == "random":
        chosen = order[:count]
    else:
        pool = order[: max(POOL, count)].sort().values
        chosen = pool[_medoids(codes.detach().cpu()[pool], count, seed)]
    return chosen.sort().values.to(codes.device)


def _medoids(codes: Tensor, count: int, seed: int) -> Tensor:
    from kmedoids import fasterpam

    distances = torch.cdist(codes.double(), codes.double()).numpy()
    result = fasterpam(distances, count, random_state=derive_seed(seed, "medoids") % 2**32)
    return torch.as_tensor(result.medoids.astype("int64"))


@torch.no_grad()
def nearest_neighbour_distances(
    means: Tensor, variances: Tensor | None = None, every: int = 1
) -> Tensor:
    r"""Return the distance from each mean to the nearest other one, ``(N,)`` float64.

    Args:
        means: ``(N, d)``, at least 2.
        variances: ``(N, d)``, or covariances ``(N, d, d)``. If given, the distance from i to j is
            the square root of :math:`(\mu_i - \mu_j)^T \Sigma_j^{-1} (\mu_i - \mu_j)`.
        every: k; only distances from every k-th mean are returned, ``(ceil(N / k),)``.
    """
    x = means.double() - means.double().mean(0)
    rows = torch.ones_like(x) if variances is None else precisions(variances.double())
    scaled = times(rows, x)
    quadratic = torch.cat([rows, -2.0 * scaled], 1).mT
    constant = (scaled * x).sum(1)
    size = max(1, BLOCK // max(quadratic.shape))
    nearest = []
    for places in torch.arange(0, len(x), every, device=x.device).split(size):
        piece = x[places]
        products = torch.cat([powers(piece, rows.shape[1]), piece], 1)
        squared = torch.addmm(constant, products, quadratic)
        squared.scatter_(1, places[:, None], torch.inf)
        nearest.append(squared.amin(1).clamp_min(0.0).sqrt())
    return torch.cat(nearest)
