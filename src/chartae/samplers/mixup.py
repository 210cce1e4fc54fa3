"""Latents on the shortest paths between codes of a manifold."""

import logging
from typing import Annotated, Unpack

import torch
from torch import Tensor
from torch.distributions import Beta

from chartae.checks import Count, NonNegative, Positive, Range
from chartae.errors import ConfigurationError
from chartae.geometry import ConformalMetric, Metric, shortest_paths
from chartae.models import Autoencoder
from chartae.randomness import make_generator, seeded
from chartae.samplers.manifold import ManifoldOptions, ManifoldSampler

__all__ = ["MixupSampler"]

logger = logging.getLogger(__name__)

TOLERANCE = 1e-2
"""Tolerance of the paths: their relative excess length is its square."""


class MixupSampler(ManifoldSampler):
    r"""Draw latents along the geodesics between codes of the training set.

    This is mix-up (Zhang et al., 2018), or SMOTE (Chawla et al., 2002) if ``neighbours`` is given,
    with shortest paths instead of straight lines, so that latents between two codes stay close to
    the data. Fit it to one class. The paths are geodesics of the model's own metric (`RHVAE`). For
    a model with a Gaussian posterior they avoid the low-density region of the `PosteriorMetric`
    (thesis eq. 3.8). A latent is :math:`\gamma(t)`, where
    :math:`t \sim \mathrm{Beta}(\alpha, \alpha)` is a fraction of the length of the path.

    Args:
        model: a trained model with a metric (`RHVAE`), which needs no `fit`, or with a Gaussian
            posterior, which needs it.
        neighbours: each code is joined to one of this number of nearest codes; None joins it to any
            other code.
        alpha: :math:`\alpha` > 0; 1 gives a uniform t, smaller values give latents near the codes.
        strength: how strongly paths avoid the low-density region of the posterior metric, as in
            `ConformalMetric.avoiding_the_void`.
        num_points: number of points of each path.
        options: ``geometry``, ``num_centroids``, ``selection``, ``rho``, ``regularization`` and
            ``max_chains`` (here, paths computed at once), as in `ManifoldSampler`.

    Raises:
        ConfigurationError: if the model has no such metric, or an argument is out of range.

    >>> import chartae
    >>> model = chartae.VAE((8, 8), latent_dim=2).eval()
    >>> sampler = MixupSampler(model).fit(torch.rand(20, 8, 8))
    >>> sampler.sample(5, seed=0).shape
    torch.Size([5, 8, 8])
    """

    def __init__(
        self,
        model: Autoencoder,
        neighbours: Count | None = None,
        alpha: Positive = 1.0,
        strength: NonNegative | None = None,
        num_points: Annotated[int, Range(minimum=3)] = 32,
        **options: Unpack[ManifoldOptions],
    ) -> None:
        # Here bumps should overlap, so that paths can pass between them. Other samplers keep bumps
        # apart.
        options.setdefault("rho", "euclidean")
        super().__init__(model, **options)
        self.neighbours, self.alpha, self.strength = neighbours, alpha, strength
        self.num_points = num_points

    @property
    def path_metric(self) -> Metric:
        """The metric whose geodesics connect the codes."""
        if self.uses_model_metric:
            return self.metric
        return ConformalMetric.avoiding_the_void(self.metric, self.strength)

    def draw_latents(self, n: int, seed: int, y: Tensor | None = None) -> Tensor:
        metric = self.path_metric
        codes = metric.landmarks
        if len(codes) < 2:
            raise ConfigurationError(f"there is {len(codes)} code: mix-up needs at least 2")
        with seeded(seed, "position"):
            times = Beta(self.alpha, self.alpha).sample((n,)).to(codes)
        generator = make_generator(seed, "pairs")
        start = torch.randint(len(codes), (n,), generator=generator)
        rank = torch.rand(n, generator=generator)
        blocks, lost = [], 0
        for block in torch.arange(n).split(self.max_chains):
            first, second = (
                codes[start[block]],
                codes[self._partners(codes, start[block], rank[block])],
            )
            paths = shortest_paths(
                metric, first, second, num_points=self.num_points, tolerance=TOLERANCE
            )
            blocks.append(_along(paths.points, times[block]))
            lost += int((~paths.converged).sum())
        if lost:
            logger.warning(
                "%d of %d paths between codes are not geodesics to the tolerance: their latents "
                "may be far from the data; lower strength, or give neighbours",
                lost,
                n,
            )
        return torch.cat(blocks)

    def _partners(self, codes: Tensor, start: Tensor, rank: Tensor) -> Tensor:
        """Return the second code of each pair, ``(n,)``, chosen by ranks in [0, 1)."""
        count = min(self.neighbours or len(codes), len(codes) - 1)
        choice = (rank * count).long()
        if self.neighbours is None:
            return choice + (choice >= start)
        distances = torch.cdist(codes[start], codes)
        distances[torch.arange(len(start)), start] = torch.inf
        nearest = distances.topk(count, largest=False).indices.cpu()
        return nearest.gather(1, choice[:, None])[:, 0]


def _along(points: Tensor, times: Tensor) -> Tensor:
    """Return the points at times ``(n,)`` in [0, 1] of paths ``(n, T, d)``: ``(n, d)``."""
    place = times * (points.shape[1] - 1)
    before = place.long().clamp(max=points.shape[1] - 2)
    rows = torch.arange(len(points), device=points.device)
    share = (place - before)[:, None]
    return torch.lerp(points[rows, before], points[rows, before + 1], share)
