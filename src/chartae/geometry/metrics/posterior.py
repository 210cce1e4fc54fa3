"""The metric of a VAE with Gaussian posteriors, from their covariances (thesis chapter 3)."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol, Self, get_args

import torch
from torch import Tensor

from chartae.checks import (
    check_choice,
    check_finite,
    check_floating,
    check_integer,
    check_number,
    check_shape,
)
from chartae.data.arrays import takes_arrays
from chartae.distributions import (
    Gaussian,
    NormalMixture,
    Posterior,
    joined,
    powers,
    precisions,
    times,
)
from chartae.errors import ConfigurationError, DataError
from chartae.geometry.metrics.base import DiagonalLocal, Local, Metric, TensorLocal
from chartae.geometry.metrics.centroid import check_positive_definite
from chartae.geometry.metrics.selection import (
    Selection,
    nearest_neighbour_distances,
    select_centroids,
)

__all__ = ["PosteriorMetric", "Reach", "posterior_bumps"]

Reach = Literal["euclidean", "mahalanobis", "isolated", "posterior"]
"""Rules that choose rho, the reach of a centroid."""

BLOCK = 2**20
"""Maximum number of entries of a (points, centroids) array: 8 MiB in float64."""
COLUMNS = 2**10
"""Maximum number of centroids in one sum: longer sums have too large a rounding error in float32.
"""
KEPT = 2**24
"""Maximum number of weights kept for gradients at the same points (128 MiB). If there are more,
they are computed again."""
SAMPLE = 2000
"""Number of means from which the 5 % quantile of nearest-neighbour distances is estimated. The
estimate has an error of about half a per cent."""
CANCELLATION = 64.0
"""Largest accepted growth of float32's rounding error in a gradient: to 4e-6 of a centroid's slope.
"""


class _Encoding(Protocol):
    """The methods of a model that `PosteriorMetric.from_model` uses."""

    def check_data(self, name: str, x: Tensor) -> None: ...

    def check_conditions(self, name: str, y: Tensor | None, count: int) -> None: ...

    def posterior(self, x: Tensor, y: Tensor | None = None) -> Posterior: ...


class PosteriorMetric(Metric):
    r"""The metric of a VAE's posteriors :math:`N(\mu_i, \Sigma_i)` (thesis eq. 3.6).

    .. math::
        G(z) = \sum_i \Sigma_i^{-1} w_i(z) + \lambda e^{-\tau\|z\|^2} I, \quad
        w_i(z) = e^{-D_i(z)/\rho^2}, \quad
        D_i(z) = (z - \mu_i)^T \Sigma_i^{-1} (z - \mu_i)

    The thesis uses diagonal :math:`\Sigma_i = \mathrm{diag}\,\sigma_i^2`, and the metric is then
    diagonal everywhere. The thesis names full covariances as future work.

    The volume is *large* near the data. All quantities and gradients are products of the weights
    with ``(N, d)`` arrays, or with ``(N, d * d)`` arrays for full covariances, computed in blocks
    of points. The expanded square D is computed in float64 for every dtype, because its terms
    cancel: with :math:`\sigma = 10^{-3}` they reach 1e7 where their difference is 1. The other
    computations of a float32 metric are in float32. The exception is a spread of the means, in
    units of :math:`\rho\sigma`, so large that terms of the gradient cancel too.

    Args:
        means: the :math:`\mu_i`, ``(N, d)``.
        variances: the :math:`\sigma_i^2`, positive, ``(N, d)``; or the :math:`\Sigma_i`,
            symmetric positive definite, ``(N, d, d)``.
        rho: the reach of a centroid: a positive number, or a rule. ``"euclidean"`` is the rule of
            the thesis (Alg. 4): the largest distance from a mean to its nearest neighbour.
            ``"mahalanobis"`` is the median of these distances in the units of D. ``"isolated"`` is
            a third of the 5 % quantile of the latter, estimated on 2,000 to 4,000 means if there
            are more. The bumps then do not overlap and have equal mass, which uniform samples
            need (``docs/sampling.md``). ``"posterior"`` is :math:`\sqrt d`, for which the bump of
            an isolated mean is its posterior, or the reach of ``"isolated"`` if that is larger.
            None takes ``"euclidean"``.
        regularization: :math:`\lambda` > 0, the metric in low-density regions.
        tau: :math:`\tau` at least 0; the thesis takes a value below the machine precision.
        validate: whether to check the arguments; a training loop that builds a metric at every
            step passes False.

    Raises:
        DataError: for shapes that do not match, entries that are not finite, or variances that
            are not positive (definite).
        ConfigurationError: for a number out of range, or for a single centroid with a rule for rho
            other than ``"posterior"``.

    >>> metric = PosteriorMetric(torch.zeros(1, 2), torch.tensor([[0.25, 1.0]]), rho=1.0)
    >>> metric.tensor(torch.zeros(2))
    tensor([[4.0100, 0.0000],
            [0.0000, 1.0100]])
    """

    volume_is_large_near_data = True
    means: Tensor
    variances: Tensor

    def __init__(
        self,
        means: Tensor,
        variances: Tensor,
        rho: float | Reach | None = None,
        regularization: float = 1e-2,
        tau: float = 0.0,
        *,
        validate: bool = True,
    ) -> None:
        if validate:
            _check(means, variances)
            check_number("regularization", regularization, above=0.0)
            check_number("tau", tau, minimum=0.0)
        super().__init__()
        self.register_buffer("means", means)
        self.register_buffer("variances", variances)
        self.rho = _resolve_rho(rho, means.detach(), variances.detach())
        self.regularization, self.tau = regularization, tau
        self._derive()
        self.register_load_state_dict_post_hook(  # type: ignore[no-untyped-call]
            lambda metric, _: metric._derive()
        )

    def _derive(self) -> None:
        """Compute what all points share, in float64, relative to the mean of the means."""
        centre = self.means.detach().double().mean(0)
        means, rows = self.means.double() - centre, precisions(self.variances.double())
        scaled = times(rows, means)
        # log w = [powers(z), z] @ quadratic + constant: minus D over rho^2, expanded.
        quadratic = torch.cat([-rows, 2.0 * scaled], 1).mT / self.rho**2
        constant = -(scaled * means).sum(1) / self.rho**2
        # These are not buffers: they stay in float64 when the metric is cast.
        self.centre = centre
        # The identity matrix, flattened to one row.
        identity = torch.eye(self.dim).to(centre)
        self.unit = torch.ones_like(centre) if self.is_diagonal else identity.flatten()
        self.width = len(self.unit)
        largest = rows[:, :: 1 if self.is_diagonal else self.dim + 1].amax(0)
        steepest = means.abs().amax(0) * largest.sqrt() / self.rho
        mild = self.means.dtype == torch.float32 and float(steepest.detach().max()) < CANCELLATION
        self.working = torch.float32 if mild else torch.float64
        moments = torch.cat([rows, scaled], 1).to(self.working)
        self.pieces = list(
            map(
                _Piece,
                quadratic.split(COLUMNS, 1),
                constant.split(COLUMNS),
                rows.to(self.working).split(COLUMNS),
                moments.split(COLUMNS),
            )
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._derive()
        return self

    @classmethod
    @takes_arrays("x", "y", owner="model")
    def from_model(
        cls,
        model: _Encoding,
        x: Tensor,
        y: Tensor | None = None,
        *,
        num_centroids: int | None = None,
        selection: Selection = "k-medoids",
        rho: float | Reach | None = None,
        regularization: float = 1e-2,
        tau: float = 0.0,
        seed: int = 0,
        batch_size: int = 1024,
    ) -> Self:
        """Return the metric of a trained model (thesis Alg. 4).

        Args:
            model: any model whose ``posterior(x, y)`` is a `Gaussian`.
            x: the training set, ``(N, *input_shape)``.
            y: its conditions, for a conditional model.
            num_centroids: how many posteriors to keep, at most N; None keeps all.
            selection: how to choose them: ``"k-medoids"`` of the means, or ``"random"``.
            rho: as in the constructor; a rule is applied to the kept posteriors.
            regularization: as in the constructor.
            tau: as in the constructor.
            seed: the random seed of the selection.
            batch_size: number of observations encoded at once.

        Raises:
            ConfigurationError: if the model has no Gaussian posterior, or a number is out of range.
            DataError: if x does not have the model's shape and dtype, or y is not valid for it.
        """
        means, variances = _posteriors(model, x, y, batch_size)
        kept = select_centroids(means, num_centroids, selection, seed)
        return cls(means[kept], variances[kept], rho, regularization, tau)

    @property
    def dim(self) -> int:
        return self.means.shape[-1]

    @property
    def is_diagonal(self) -> bool:
        """Whether the covariances, and therefore G, are diagonal."""
        return self.variances.dim() == 2

    @property
    def bumps(self) -> NormalMixture:
        r"""Near an isolated mean the volume is about :math:`N(\mu_i, \rho^2 \Sigma_i / d)`."""
        return posterior_bumps(self.means, self.variances, self.rho)

    @property
    def centroids(self) -> Tensor:
        """The means of the posteriors, ``(N, d)``."""
        return self.means

    @property
    def landmarks(self) -> Tensor:
        return self.means

    def at(self, z: Tensor) -> Local:
        self.check(z)
        return DiagonalPosteriorLocal(self, z) if self.is_diagonal else FullPosteriorLocal(self, z)


def posterior_bumps(means: Tensor, variances: Tensor, rho: float) -> NormalMixture:
    """Return the `PosteriorMetric.bumps` of a metric without building the metric.

    Args:
        means: ``(N, d)``.
        variances: ``(N, d)``, or covariances ``(N, d, d)``.
        rho: positive.
    """
    root = variances.sqrt() if variances.dim() == 2 else torch.linalg.cholesky(variances)
    return NormalMixture(means, rho / math.sqrt(means.shape[1]) * root)


class _Piece(NamedTuple):
    """A block of n centroids: the coefficients of their weights, and the weighted terms."""

    quadratic: Tensor  # (p + d, n): log weights = [powers(z), z] @ quadratic + constant
    constant: Tensor  # (n,)
    precisions: Tensor  # (n, p)
    moments: Tensor  # (n, p + d): the precisions, and the precisions times the means

    def weights(self, offset: Tensor) -> Tensor:
        """Return the weights ``(rows, n)`` at points ``(rows, d)`` relative to the centre."""
        products = torch.cat([powers(offset, self.precisions.shape[1]), offset], 1)
        exponent = torch.addmm(self.constant, products, self.quadratic).to(self.precisions.dtype)
        # Arithmetic with subnormal numbers takes many times as long. The margin also keeps
        # products of small weights in the normal range.
        smallest = math.log(torch.finfo(exponent.dtype).tiny) + 20.0
        if exponent.requires_grad:
            return exponent.clamp(smallest, 0.0).exp()
        return exponent.clamp_(smallest, 0.0).exp_()


class _Sums:
    """Sums of weighted precisions over a metric's centroids at given points, and their gradients.

    Args:
        metric: the metric.
        z: the points, ``(..., d)``.

    Attributes:
        total: the entries of G, including lambda, ``(..., p)``.
    """

    def __init__(self, metric: PosteriorMetric, z: Tensor) -> None:
        self.metric, self.z = metric, z
        number = len(metric.means)
        self._offset = z.reshape(-1, metric.dim).double() - metric.centre
        self._rows = max(1, BLOCK // max(min(number, COLUMNS), metric.width))
        keep = len(self._offset) * number <= KEPT  # else weights are computed again
        self._kept: list[list[Tensor]] = []
        totals = []
        for offset in self._offset.split(self._rows):
            total, row = offset.new_zeros(len(offset), metric.width), []
            for piece in metric.pieces:
                weights = piece.weights(offset)
                total = total + weights @ piece.precisions
                row += [weights] if keep else []
            totals.append(total)
            self._kept += [row] if keep else []
        shape = (*z.shape[:-1], metric.width)
        self.total = torch.cat(totals).reshape(shape) + self._floor()[..., None] * metric.unit

    def _floor(self) -> Tensor:
        """Return lambda exp(-tau ||z||^2), ``(...)``."""
        norm = self.z.double().square().sum(-1)
        return self.metric.regularization * torch.exp(-self.metric.tau * norm)

    def pull(self, coefficients: Tensor) -> Tensor:
        """Return sum_k a_k grad total_k, ``(..., d)``, for coefficients a ``(..., p)``."""
        metric, p = self.metric, self.metric.width
        flat = coefficients.reshape(-1, p).to(metric.working)
        slopes = []
        for index, offset in enumerate(self._offset.split(self._rows)):
            moments = offset.new_zeros(len(offset), p + metric.dim)
            a = flat[index * self._rows :][: self._rows]
            for number, piece in enumerate(metric.pieces):
                weights = self._kept[index][number] if self._kept else piece.weights(offset)
                slope = a @ piece.precisions.mT
                # In place if autograd does not need it, because the array is large.
                slope = slope * weights if slope.requires_grad else slope.mul_(weights)
                moments = moments + slope @ piece.moments
            slopes.append(times(moments[:, :p], offset) - moments[:, p:])
        near = -2.0 / metric.rho**2 * torch.cat(slopes).reshape(self.z.shape)
        floor = -2.0 * metric.tau * self._floor() * (coefficients.double() @ metric.unit)
        return (near + floor[..., None] * self.z).to(self.z.dtype)


class DiagonalPosteriorLocal(DiagonalLocal):
    """A `PosteriorMetric` with variances; differentiable in points, means and variances."""

    def __init__(self, metric: PosteriorMetric, z: Tensor) -> None:
        self.z, self.sums = z, _Sums(metric, z)
        self._diagonal = self.sums.total.to(z.dtype)

    @property
    def diagonal(self) -> Tensor:
        return self._diagonal

    def pull(self, coefficients: Tensor) -> Tensor:
        return self.sums.pull(coefficients)


class FullPosteriorLocal(TensorLocal):
    """A `PosteriorMetric` with covariances; differentiable in points, means and covariances."""

    def __init__(self, metric: PosteriorMetric, z: Tensor) -> None:
        self.sums = _Sums(metric, z)
        super().__init__(z, self.sums.total.unflatten(-1, (metric.dim, metric.dim)).to(z.dtype))

    def pull(self, coefficients: Tensor) -> Tensor:
        return self.sums.pull(coefficients.flatten(-2))


def _check(means: Tensor, variances: Tensor) -> None:
    check_floating("means", means)
    check_floating("variances", variances)
    check_shape("means", means, ("N", "d"))
    full = isinstance(variances, Tensor) and variances.dim() == 3
    check_shape("variances", variances, (*means.shape, means.shape[1]) if full else means.shape)
    if not means.numel():
        raise DataError(f"means has shape {tuple(means.shape)}: expected at least one centroid")
    check_finite("means", means.detach())
    check_finite("variances", variances.detach())
    if full:
        check_positive_definite("variances", variances.detach())
    elif not bool((variances > 0).all()):
        raise DataError(
            f"variances has {int((variances <= 0).sum())} entries that are not positive: "
            "expected positive ones"
        )


def _resolve_rho(rho: float | Reach | None, means: Tensor, variances: Tensor) -> float:
    """Return rho as a number. If it names a rule, apply the rule."""
    if rho is not None and not isinstance(rho, str):
        check_number("rho", rho, above=0.0)
        return float(rho)
    rule = rho or "euclidean"
    check_choice("rho", rule, get_args(Reach))
    if rule == "posterior":
        own = math.sqrt(means.shape[1])
        return own if len(means) < 2 else max(own, _isolated_reach(means, variances))
    if len(means) < 2:
        raise ConfigurationError(f"rho={rho!r} needs two centroids or more: expected a number")
    if rule == "euclidean":
        found = float(nearest_neighbour_distances(means).max())
    elif rule == "isolated":
        found = _isolated_reach(means, variances)
    else:
        found = float(_without_twins(nearest_neighbour_distances(means, variances)).median())
    if found == 0.0:
        raise ConfigurationError(
            f"rho={rho!r} gives 0, because means coincide: expected a positive number"
        )
    return found


def _isolated_reach(means: Tensor, variances: Tensor) -> float:
    # All distances of 60,000 codes take 20 s.
    every = max(1, len(means) // SAMPLE)
    apart = _without_twins(nearest_neighbour_distances(means, variances, every))
    return float(apart.quantile(0.05)) / 3.0


def _without_twins(distances: Tensor) -> Tensor:
    """Return the positive distances, or all distances if none is positive.

    Means that coincide carry no information about the distance between the others.
    """
    positive = distances > 0
    return distances[positive] if bool(positive.any()) else distances


@torch.no_grad()
def _posteriors(
    model: _Encoding, x: Tensor, y: Tensor | None, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Return the means ``(N, d)`` of the posteriors of x, and their variances or covariances."""
    if not callable(getattr(model, "posterior", None)):
        raise ConfigurationError(
            f"{type(model).__name__} has no posterior: PosteriorMetric expects a model with a "
            "Gaussian one, such as a VAE"
        )
    check_integer("batch_size", batch_size, minimum=1)
    model.check_data("x", x)
    model.check_conditions("y", y, len(x))
    parts = [x.split(batch_size)] + ([] if y is None else [y.split(batch_size)])
    pieces = [model.posterior(*part) for part in zip(*parts, strict=True)]
    found = [piece for piece in pieces if isinstance(piece, Gaussian)]
    if len(found) < len(pieces):
        raise ConfigurationError(
            f"the posterior of {type(model).__name__} is {type(pieces[0]).__name__}: "
            "PosteriorMetric expects a Gaussian, such as a DiagonalNormal"
        )
    posterior = joined(found)
    return posterior.mean, posterior.covariance
