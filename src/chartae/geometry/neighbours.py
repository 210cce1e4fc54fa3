"""A posterior metric of very many centroids, without those too far to matter."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from chartae.checks import check_integer, check_number
from chartae.errors import ConfigurationError
from chartae.geometry.metric import DiagonalLocal, Metric
from chartae.geometry.posterior import KEPT, PosteriorLocal, PosteriorMetric

__all__ = ["NeighbourMetric"]

DENSE = 5000
"""With no more centroids than this, all are summed: choosing among them takes longer."""
FALL = 10.0
"""How far g may fall below what it was when centroids were chosen, before they no longer do."""
STRAYS = 0.05
"""The share of points for which their centroids no longer do that has all chosen anew."""
WORTH = 0.125
"""If more of all (point, centroid) pairs can matter than this share, all are summed."""
CHUNK = 2**17
"""Entries of a (points, centroids) array at once when choosing: what a core's cache holds."""
HUGE = 1e30
ROUNDS = 4
"""Of k-means, to put points into groups."""


class NeighbourMetric(Metric):
    r"""A `PosteriorMetric` with very many centroids, for points that move little between calls.

    Centroids far from a point weigh next to nothing. The points of a call are put into groups of
    close ones, and for each group the centroids are chosen whose weights can matter within
    ``reach`` of its points. As long as the next call has as many points, each within reach of
    where the point of the same number was, the choice stands: so it does for the chains of a
    sampler. A point for which it does not stand is given all centroids, and once many are,
    centroids are chosen anew. Nothing but the speed (and rounding) depends on earlier calls:

    The bound. With c the tolerance, the centroids i skipped at a point z satisfy

    .. math::
        \sum_i \sum_j \frac{\sigma_{ij}^{-2} w_i(z)}{g_j(z)} \Bigl(1 + \frac{\sqrt{D_i(z)}}{\rho}
        \Bigr) \le c,

    by the triangle inequality :math:`\sqrt{D_i(z)} \ge \sqrt{D_i(z_0)} - \|z - z_0\| \max_k
    \sigma_{ik}^{-1}` from the point :math:`z_0` of the choice. So the log-volume is too small by
    at most :math:`-\tfrac12 \log(1 - c)`, about c/2, and each :math:`g_j` by its share c. The
    k-th entry of the log-volume's gradient is off by at most
    :math:`c\,\max(1, m) / (\rho\sigma_k) + c\,\tau |z_k|`:
    :math:`\sigma_k` is the smallest of all centroids', and m the greatest mean of
    :math:`\sqrt{D_i}/\rho` over the centroids kept, weighed by the :math:`\sigma_{ij}^{-2} w_i` of
    a coordinate j. (The log of one centroid's weight falls by :math:`2/(\rho\sigma_k)` per unit
    length where its :math:`\sqrt{D} = \rho`.) In the void, where all weights are small against
    :math:`\lambda`, a single centroid is kept.

    How much is gained depends on how many weights matter, which grows with rho and with N. Of
    60,000 posteriors in 16 dimensions, those of a VAE of MNIST, a group's bound keeps a third by
    the thesis' rule for rho: it is then no gain to skip, and where more than an eighth is kept
    all are summed. With their sigmas halved a thirtieth is kept, and the metric costs a thirtieth
    as long as the choice stands. By the Mahalanobis rule half of all weights matter.

    The last choice is remembered, and is no part of the state: chains apart want a metric each.

    Args:
        metric: the metric of all centroids; with at most 5000 it is used as it is.
        tolerance: c, between 0 and 0.1.
        reach: how far a point may move, in the latent space's units, before its centroids are
            chosen again; None takes :math:`\rho/2` times the median :math:`\sigma_{ik}`.
        group_size: how many points, on average, share their centroids.

    Raises:
        ConfigurationError: for a metric that is no `PosteriorMetric`, or a number out of range.
    """

    volume_is_large_near_data = True

    def __init__(
        self,
        metric: PosteriorMetric,
        *,
        tolerance: float = 1e-5,
        reach: float | None = None,
        group_size: int = 16,
    ) -> None:
        if not isinstance(metric, PosteriorMetric):
            raise ConfigurationError(
                f"metric is {type(metric).__name__}: NeighbourMetric expects a PosteriorMetric"
            )
        check_number("tolerance", tolerance, above=0.0, maximum=0.1)
        if reach is not None:
            check_number("reach", reach, above=0.0)
        check_integer("group_size", group_size, minimum=1)
        super().__init__()
        self.metric = metric
        self.tolerance, self.group_size = tolerance, group_size
        self.reach = reach or 0.5 * metric.rho * float(metric.variances.detach().median().sqrt())
        self._neighbours: _Neighbours | None = None

    @property
    def dim(self) -> int:
        return self.metric.dim

    @property
    def centroids(self) -> Tensor:
        """The means of all posteriors, ``(N, d)``."""
        return self.metric.centroids

    @property
    def landmarks(self) -> Tensor:
        """Those of the metric that it stands for."""
        return self.metric.landmarks

    def at(self, z: Tensor) -> DiagonalLocal:
        self.check(z)
        if len(self.centroids) <= DENSE or not z.numel():
            return self.metric.at(z)
        known = self._neighbours
        if known is not None and known.serve(self.metric, z):
            local = _NeighbourLocal(known, z)
            if len(local.strays) <= STRAYS * len(known.points):
                return local
            lower = local.kept.detach()
        else:
            lower = self.metric.at(z.detach()).diagonal.reshape(-1, self.dim)
        self._neighbours = self._find(z.detach().reshape(-1, self.dim), lower)
        return _NeighbourLocal(self._neighbours, z)

    @torch.no_grad()
    def _find(self, points: Tensor, lower: Tensor) -> "_Neighbours":
        """Choose the centroids of points ``(n, d)``, given what g is there at least."""
        whole = self.metric
        finite = torch.isfinite(points).all(1, keepdim=True) & torch.isfinite(lower).all(1)[:, None]
        points = torch.where(finite, points, 0.0)
        lower = torch.where(finite, lower, HUGE)  # asks for no centroid
        bounds, budget = _Bounds(whole, self.reach), 0.99 * self.tolerance / FALL
        chosen = [
            (rows, _all_but(bounds.shares(points[rows].double(), lower[rows].double()), budget))
            for rows in _groups(points.double(), self.group_size)
        ]
        pairs = sum(len(rows) * len(kept) for rows, kept in chosen)
        if pairs > WORTH * len(points) * len(whole.means):
            everything = torch.arange(len(points), device=points.device)
            nothing = torch.zeros_like(lower)
            return _Neighbours(
                whole, whole.quadratic, points, nothing, math.inf, [(everything, whole)]
            )
        groups = [(rows, _only(whole, kept)) for rows, kept in chosen]
        return _Neighbours(whole, whole.quadratic, points, lower, self.reach, groups)


@torch.enable_grad()  # a metric that is trained stays so
def _only(metric: PosteriorMetric, kept: Tensor) -> PosteriorMetric:
    """Return the metric of some of the centroids."""
    return PosteriorMetric(
        metric.means[kept],
        metric.variances[kept],
        metric.rho,
        metric.regularization,
        metric.tau,
        validate=False,
    )


class _Bounds:
    r"""Bounds of what a centroid contributes within reach of some points, by one matrix product.

    With :math:`u = \sqrt{D_i}/\rho` at a point and f what a move by the reach can take from it, the
    contribution is at most :math:`e^{-v^2} (1 + v) A_i`, where :math:`v \ge u - f` and
    :math:`A_i = \sum_j \sigma_{ij}^{-2} / g_j`. The square and the log are replaced by bounds that
    are linear in :math:`u^2 = D_i/\rho^2` and touch them at u = 4, about where centroids cease to
    matter: :math:`(u - f)^2 \ge (1 - \delta) u^2 - f^2 (1/\delta - 1)` for every
    :math:`\delta`, which is f/4, and :math:`\log(1 + v) \le \log 5 + (v^2 - 16)/40`.
    """

    def __init__(self, metric: PosteriorMetric, reach: float) -> None:
        precisions = metric.variances.double().reciprocal()
        f = reach / metric.rho * precisions.amax(1).sqrt()
        delta = (f / 4.0).clamp(max=0.5)
        rate = 0.975 * (1.0 - delta)
        self.centre, self.precisions = metric.centre, precisions
        self.quadratic = torch.cat([metric.quadratic * rate, torch.ones_like(f)[None]])
        self.constant = metric.constant * rate
        self.rise = 0.975 * f.square() * (1.0 / delta - 1.0) + math.log(5.0) - 0.4

    def shares(self, points: Tensor, lower: Tensor) -> Tensor:
        """Return the bound of each centroid over all points ``(n, d)``, ``(N,)``.

        Args:
            points: the points.
            lower: what g is there at least, ``(n, d)``.
        """
        rates = lower.reciprocal()
        size = rates.amax(1, keepdim=True)
        offset = points - self.centre
        powers = torch.cat([offset.square(), offset, size.log()], 1)
        columns = max(1, CHUNK // len(points))
        greatest = [
            torch.addmm(constant, powers, quadratic).amax(0)
            for constant, quadratic in zip(
                self.constant.split(columns), self.quadratic.split(columns, 1), strict=True
            )
        ]
        slopes = self.precisions @ (rates / size).amax(0)
        return (torch.cat(greatest) + self.rise).exp() * slopes


def _all_but(shares: Tensor, budget: float) -> Tensor:
    """Return the fewest indices such that the shares ``(N,)`` of the others sum to the budget."""
    # What is larger than the budget is kept, and what is tiny goes: few are left to be sorted.
    tiny = shares < 0.5 * budget / len(shares)
    kept = shares > budget
    middle = (~(tiny | kept)).nonzero()[:, 0]
    found = shares[middle].sort()
    spent = shares[tiny].sum()
    kept[middle[found.indices[found.values.cumsum(0) + spent > budget]]] = True
    # A metric has a centroid.
    return kept.nonzero()[:, 0] if bool(kept.any()) else shares.argmax()[None]


def _groups(points: Tensor, size: int) -> list[Tensor]:
    """Return the rows of points ``(n, d)`` in groups of close ones, by a few rounds of k-means."""
    step = max(1, size)
    centres = points[::step]
    for _ in range(ROUNDS):
        nearest = torch.cdist(points, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add(0, nearest, points)
        counts = torch.bincount(nearest, minlength=len(centres))[:, None]
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    order = nearest.argsort(stable=True)
    return [rows for rows in order.split(counts[:, 0].tolist()) if len(rows)]


@dataclass(frozen=True, eq=False)
class _Neighbours:
    """Points in groups, and for each group the metric of the centroids that matter near it.

    Attributes:
        metric: the metric of all centroids.
        version: an array that the metric makes anew whenever it changes.
        points: the points for which centroids were chosen, ``(n, d)``.
        lower: what g is there at least, ``(n, d)``.
        reach: how far from them the choice stands.
        groups: rows of points, and their metric.
    """

    metric: PosteriorMetric
    version: Tensor
    points: Tensor
    lower: Tensor
    reach: float
    groups: list[tuple[Tensor, PosteriorMetric]]

    def serve(self, metric: PosteriorMetric, z: Tensor) -> bool:
        """Return whether these are neighbours of as many points, of the metric as it is now."""
        same = self.version is metric.quadratic and z.device == self.points.device
        return same and z.numel() == self.points.numel()


class _NeighbourLocal(DiagonalLocal):
    """A posterior metric at given points: each from its neighbours, or if it strayed, from all."""

    def __init__(self, known: _Neighbours, z: Tensor) -> None:
        self.z = z
        points = z.reshape(known.points.shape)
        self._rows = torch.cat([rows for rows, _ in known.groups])
        keep = sum(len(rows) * len(few.means) for rows, few in known.groups) <= KEPT
        self._groups = [PosteriorLocal(few, points[rows], keep) for rows, few in known.groups]
        self.kept = self._in_order([local.diagonal for local in self._groups])
        near = (points - known.points).detach().norm(dim=-1) <= known.reach
        held = (known.lower <= FALL * self.kept.detach()).all(1)
        self.strays = (~(near & held)).nonzero()[:, 0]
        self._strayed = PosteriorLocal(known.metric, points[self.strays])
        diagonal = self.kept.index_copy(0, self.strays, self._strayed.diagonal)
        self._diagonal = diagonal.reshape(z.shape)

    def _in_order(self, pieces: list[Tensor]) -> Tensor:
        """Return what the groups have, ``(n, d)``, in the order of the points."""
        return torch.cat(pieces)[self._rows.argsort()]

    @property
    def diagonal(self) -> Tensor:
        return self._diagonal

    def pull(self, coefficients: Tensor) -> Tensor:
        flat = coefficients.reshape(self.kept.shape)
        pieces = flat[self._rows].split([len(local.z) for local in self._groups])
        found = self._in_order(
            [local.pull(a) for local, a in zip(self._groups, pieces, strict=True)]
        )
        found = found.index_copy(0, self.strays, self._strayed.pull(flat[self.strays]))
        return found.reshape(self.z.shape)
