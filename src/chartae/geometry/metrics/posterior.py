"""The metric of any VAE with Gaussian posteriors, from their covariances (thesis chapter 3)."""

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
from chartae.distributions import DiagonalNormal, NormalMixture
from chartae.errors import ConfigurationError, DataError
from chartae.geometry.metrics.base import DiagonalLocal, Metric
from chartae.geometry.metrics.selection import (
    Selection,
    nearest_neighbour_distances,
    select_centroids,
)

__all__ = ["PosteriorMetric", "Reach", "posterior_bumps"]

Reach = Literal["euclidean", "mahalanobis", "isolated", "posterior"]
"""Rules for the reach rho of a centroid."""

BLOCK = 2**20
"""Most entries of a (points, centroids) array made at once: 8 MiB in float64."""
COLUMNS = 2**10
"""Most centroids summed at once: float32 sums of more round too much."""
KEPT = 2**24
"""Most weights kept for the gradients of the same points, 128 MiB; more are computed again."""
SAMPLE = 2000
"""Means of which the 5 % quantile of the distances to neighbours is taken: it is that of all, give
or take half a per cent."""
CANCELLATION = 64.0
"""Most by which float32's rounding may grow in a gradient: to 4e-6 of a centroid's slope."""


class _Encoding(Protocol):
    """What `PosteriorMetric.from_model` needs of a model."""

    def check_data(self, name: str, x: Tensor) -> None: ...

    def check_conditions(self, name: str, y: Tensor | None, count: int) -> None: ...

    def posterior(self, x: Tensor, y: Tensor | None = None) -> torch.distributions.Distribution: ...


class PosteriorMetric(Metric):
    r"""The metric of a VAE's posteriors :math:`N(\mu_i, \mathrm{diag}\,\sigma_i^2)` (eq. 3.6).

    .. math::
        G(z) = \sum_i \mathrm{diag}(\sigma_i^{-2}) w_i(z) + \lambda e^{-\tau\|z\|^2} I, \quad
        w_i(z) = e^{-D_i(z)/\rho^2}, \quad
        D_i(z) = \sum_k \sigma_{ik}^{-2} (z_k - \mu_{ik})^2

    Its volume is *large* near the data. All quantities and gradients are products of the weights
    with ``(N, d)`` arrays, made in blocks of points. The expanded square D is computed in float64
    whatever the dtype, because it cancels: with :math:`\sigma = 10^{-3}` its terms reach 1e7 where
    their difference is 1. What follows it is in float32 for a float32 metric, unless the spread
    of the means in units of :math:`\rho\sigma` is such that the gradient cancels too.

    Args:
        means: the :math:`\mu_i`, ``(N, d)``.
        variances: the :math:`\sigma_i^2`, positive, ``(N, d)``.
        rho: the reach of a centroid: a positive number, or a rule. ``"euclidean"`` is the thesis'
            (Alg. 4): the largest distance from a mean to its nearest neighbour. ``"mahalanobis"``
            is the median of these distances in the units of D. ``"isolated"`` is a third of
            their 5 % quantile, over 2,000 to 4,000 means where there are more: bumps that do not
            overlap, of equal mass, which uniform samples need (``docs/sampling.md``).
            ``"posterior"`` is :math:`\sqrt d`, for which the bump of a lone mean is its posterior,
            or the reach of ``"isolated"`` where that is larger. None takes the thesis'.
        regularization: :math:`\lambda` > 0, the metric in the void.
        tau: :math:`\tau` at least 0; the thesis takes it below the computer's precision.
        validate: check the arguments; a training loop that makes a metric a step does not.

    Raises:
        DataError: for shapes that do not match, entries that are not finite, or variances that
            are not positive.
        ConfigurationError: for a number out of range, or a rule for rho with a single centroid, but
            for ``"posterior"``.

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
        """Compute what every point needs, in float64, about the mean of the means."""
        centre = self.means.detach().double().mean(0)
        means, precisions = self.means.double() - centre, self.variances.double().reciprocal()
        scaled = precisions * means
        # log w = [z^2, z] @ quadratic + constant: minus D over rho^2, expanded.
        quadratic = torch.cat([-precisions, 2.0 * scaled], 1).mT / self.rho**2
        constant = -(scaled * means).sum(1) / self.rho**2
        # No buffers: they stay in float64 whatever the metric is cast to.
        self.centre = centre
        self.quadratic, self.constant, self.precisions = quadratic, constant, precisions
        steepest = means.abs().amax(0) * precisions.amax(0).sqrt() / self.rho
        mild = self.means.dtype == torch.float32 and float(steepest.detach().max()) < CANCELLATION
        self.working = torch.float32 if mild else torch.float64
        moments = torch.cat([precisions, scaled], 1).to(self.working)
        self.pieces = list(
            map(
                _Piece,
                quadratic.split(COLUMNS, 1),
                constant.split(COLUMNS),
                precisions.to(self.working).split(COLUMNS),
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
            model: any model whose ``posterior(x, y)`` is a diagonal normal.
            x: the training set, ``(N, *input_shape)``.
            y: its conditions, for a model that has them.
            num_centroids: how many posteriors to keep, at most N; None keeps all.
            selection: which: ``"k-medoids"`` of the means, or ``"random"``.
            rho: as in the constructor, of the posteriors kept.
            regularization: as in the constructor.
            tau: as in the constructor.
            seed: of the selection.
            batch_size: observations encoded at once.

        Raises:
            ConfigurationError: if the model has no Gaussian posterior, or a number is out of range.
            DataError: if x is not of the model's shape and dtype, or y not its conditions.
        """
        means, variances = _posteriors(model, x, y, batch_size)
        kept = select_centroids(means, num_centroids, selection, seed)
        return cls(means[kept], variances[kept], rho, regularization, tau)

    @property
    def dim(self) -> int:
        return self.means.shape[-1]

    @property
    def bumps(self) -> NormalMixture:
        r"""Near a lone mean the volume is :math:`N(\mu_i, \rho^2 \mathrm{diag}\,\sigma_i^2/d)`."""
        return posterior_bumps(self.means, self.variances, self.rho)

    @property
    def centroids(self) -> Tensor:
        """The means of the posteriors, ``(N, d)``."""
        return self.means

    @property
    def landmarks(self) -> Tensor:
        return self.means

    def at(self, z: Tensor) -> "PosteriorLocal":
        self.check(z)
        return PosteriorLocal(self, z)


def posterior_bumps(means: Tensor, variances: Tensor, rho: float) -> NormalMixture:
    """Return the `PosteriorMetric.bumps` of such a metric, which takes longer to make.

    Args:
        means: ``(N, d)``.
        variances: ``(N, d)``.
        rho: positive.
    """
    return NormalMixture(means, rho * (variances / means.shape[1]).sqrt())


class _Piece(NamedTuple):
    """Some n of the centroids: what their weights are made of, and what is made of the weights."""

    quadratic: Tensor  # (2d, n), of [z^2, z], and
    constant: Tensor  # (n,), give the log of the weights
    precisions: Tensor  # (n, d)
    moments: Tensor  # (n, 2d): the precisions, and they times the means

    def weights(self, offset: Tensor) -> Tensor:
        """Return the weights at points about the centre, ``(rows, n)`` for ``(rows, d)``."""
        powers = torch.cat([offset.square(), offset], 1)
        exponent = torch.addmm(self.constant, powers, self.quadratic).to(self.precisions.dtype)
        # Arithmetic with numbers below the smallest normal one, be it a product of such a weight,
        # takes many times as long.
        smallest = math.log(torch.finfo(exponent.dtype).tiny) + 20.0
        if exponent.requires_grad:
            return exponent.clamp(smallest, 0.0).exp()
        return exponent.clamp_(smallest, 0.0).exp_()


class PosteriorLocal(DiagonalLocal):
    """A `PosteriorMetric` at given points; differentiable in points, means and variances.

    Args:
        metric: the metric.
        z: the points, ``(..., d)``.
        keep: keep the weights for the gradients; None does if they are few.
    """

    def __init__(self, metric: PosteriorMetric, z: Tensor, keep: bool | None = None) -> None:
        self.metric, self.z = metric, z
        number = len(metric.means)
        self._offset = z.reshape(-1, metric.dim).double() - metric.centre
        self._rows = max(1, BLOCK // min(number, COLUMNS))
        keep = len(self._offset) * number <= KEPT if keep is None else keep
        self._kept: list[list[Tensor]] = []
        totals = []
        for offset in self._offset.split(self._rows):
            total, row = torch.zeros_like(offset), []
            for piece in metric.pieces:
                weights = piece.weights(offset)
                total = total + weights @ piece.precisions
                row += [weights] if keep else []
            totals.append(total)
            self._kept += [row] if keep else []
        total = torch.cat(totals).reshape(z.shape) + self._floor()[..., None]
        self._diagonal = total.to(z.dtype)

    def _floor(self) -> Tensor:
        """Return lambda exp(-tau ||z||^2), ``(...)``."""
        norm = self.z.double().square().sum(-1)
        return self.metric.regularization * torch.exp(-self.metric.tau * norm)

    @property
    def diagonal(self) -> Tensor:
        return self._diagonal

    def pull(self, coefficients: Tensor) -> Tensor:
        metric, d = self.metric, self.metric.dim
        flat = coefficients.reshape(-1, d).to(metric.working)
        slopes = []
        for index, offset in enumerate(self._offset.split(self._rows)):
            moments = offset.new_zeros(len(offset), 2 * d)
            a = flat[index * self._rows :][: self._rows]
            for number, piece in enumerate(metric.pieces):
                weights = self._kept[index][number] if self._kept else piece.weights(offset)
                slope = a @ piece.precisions.mT
                # In place where autograd has no say: the array is a large one.
                slope = slope * weights if slope.requires_grad else slope.mul_(weights)
                moments = moments + slope @ piece.moments
            slopes.append(offset * moments[:, :d] - moments[:, d:])
        near = -2.0 / metric.rho**2 * torch.cat(slopes).reshape(self.z.shape)
        floor = -2.0 * metric.tau * self._floor() * coefficients.double().sum(-1)
        return (near + floor[..., None] * self.z).to(self.z.dtype)


def _check(means: Tensor, variances: Tensor) -> None:
    check_floating("means", means)
    check_floating("variances", variances)
    check_shape("means", means, ("N", "d"))
    check_shape("variances", variances, means.shape)
    if not means.numel():
        raise DataError(f"means has shape {tuple(means.shape)}: expected at least one centroid")
    check_finite("means", means.detach())
    check_finite("variances", variances.detach())
    if not bool((variances > 0).all()):
        raise DataError(
            f"variances has {int((variances <= 0).sum())} entries that are not positive: "
            "expected positive ones"
        )


def _resolve_rho(rho: float | Reach | None, means: Tensor, variances: Tensor) -> float:
    """Return rho, by the rule that it names."""
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
        raise ConfigurationError(f"rho={rho!r} is 0, for means coincide: expected a number")
    return found


def _isolated_reach(means: Tensor, variances: Tensor) -> float:
    # All distances of 60,000 codes take 20 s.
    every = max(1, len(means) // SAMPLE)
    apart = _without_twins(nearest_neighbour_distances(means, variances, every))
    return float(apart.quantile(0.05)) / 3.0


def _without_twins(distances: Tensor) -> Tensor:
    """Return the distances that are not 0, unless all are: twins say nothing about the others."""
    positive = distances > 0
    return distances[positive] if bool(positive.any()) else distances


@torch.no_grad()
def _posteriors(
    model: _Encoding, x: Tensor, y: Tensor | None, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Return means and variances of the posteriors of x, ``(N, d)`` each."""
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
    for posterior in pieces:
        if not isinstance(posterior, DiagonalNormal):
            raise ConfigurationError(
                f"the posterior of {type(model).__name__} is {type(posterior).__name__}: "
                "PosteriorMetric expects a DiagonalNormal"
            )
    means = torch.cat([posterior.mean for posterior in pieces])
    return means, torch.cat([posterior.variance for posterior in pieces])
