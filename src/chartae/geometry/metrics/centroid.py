"""The metric of the RHVAE (thesis chapter 1): its inverse is a sum of bumps around centroids."""

import math

import torch
from torch import Tensor

from chartae.checks import check_finite, check_floating, check_number, check_shape
from chartae.distributions import NormalMixture
from chartae.errors import DataError
from chartae.geometry.metrics.base import Local, Metric

__all__ = ["CentroidMetric", "check_positive_definite", "squared_distances"]


class CentroidMetric(Metric):
    r"""The metric of the RHVAE: its inverse is a sum of bumps around centroids (thesis eq. 1.7).

    .. math:: G^{-1}(z) = \sum_i w_i(z) M_i + \lambda I, \quad w_i(z) = e^{-\|z - c_i\|^2 / T^2}

    All quantities and gradients are in closed form, as products of the ``(..., N)`` weights with
    ``(N, d * d)`` and ``(N, d)`` arrays (MATH.md section 3). No array of shape ``(..., N, d, d)``
    is formed.

    Args:
        centroids: the :math:`c_i`, ``(N, d)``.
        matrices: the :math:`M_i`, symmetric positive definite, ``(N, d, d)``.
        temperature: T > 0, a length in the latent space.
        regularization: :math:`\lambda` > 0, the inverse metric far from all centroids.
        validate: whether to check the arguments; a training loop that builds a metric at every
            step passes False.

    Raises:
        DataError: for shapes that do not match, entries that are not finite, or matrices that are
            not symmetric positive definite.
        ConfigurationError: for a temperature or regularization that is not positive.

    >>> metric = CentroidMetric(torch.zeros(1, 2), torch.eye(2)[None], 1.0, 1.0)
    >>> metric.inverse(torch.zeros(2))
    tensor([[2., 0.],
            [0., 2.]])
    """

    centroids: Tensor
    matrices: Tensor
    centre: Tensor
    centred: Tensor
    flat: Tensor

    def __init__(
        self,
        centroids: Tensor,
        matrices: Tensor,
        temperature: float,
        regularization: float,
        *,
        validate: bool = True,
    ) -> None:
        if validate:
            check_floating("centroids", centroids)
            check_shape("centroids", centroids, ("N", "d"))
            n, d = centroids.shape
            check_shape("matrices", matrices, (n, d, d))
            check_finite("centroids", centroids.detach())
            check_positive_definite("matrices", matrices.detach())
            check_number("temperature", temperature, above=0.0)
            check_number("regularization", regularization, above=0.0)
        super().__init__()
        self.register_buffer("centroids", centroids)
        self.register_buffer("matrices", matrices)
        self.temperature, self.regularization = temperature, regularization
        self._derive()
        self.register_load_state_dict_post_hook(  # type: ignore[no-untyped-call]
            lambda metric, _: metric._derive()
        )

    def _derive(self) -> None:
        """Compute what all points share. Centring the codes avoids cancellation in squares."""
        centre = self.centroids.detach().mean(0)
        self.register_buffer("centre", centre, persistent=False)
        self.register_buffer("centred", self.centroids - centre, persistent=False)
        self.register_buffer("flat", self.matrices.flatten(1), persistent=False)

    @property
    def dim(self) -> int:
        return self.centroids.shape[-1]

    @property
    def dtype(self) -> torch.dtype:
        # Every step of a flow asks for it: looking it up in the list of buffers takes longer.
        return self.centroids.dtype

    @property
    def bumps(self) -> NormalMixture:
        """Near an isolated centroid the inverse volume is proportional to N(c_i, T^2 / d I)."""
        deviation = self.temperature / math.sqrt(self.dim)
        return NormalMixture(self.centroids, self.centroids.new_tensor(deviation))

    @property
    def landmarks(self) -> Tensor:
        return self.centroids

    def at(self, z: Tensor) -> "CentroidLocal":
        self.check(z)
        return CentroidLocal(self, z)


class CentroidLocal(Local):
    """`CentroidMetric` at given points; differentiable in points, centroids and matrices."""

    def __init__(self, metric: CentroidMetric, z: Tensor) -> None:
        self.z, self.centred, self.flat = z, metric.centred, metric.flat
        self.offset = z - metric.centre
        self.scale = 1.0 / metric.temperature**2
        # -||z - c||^2 / T^2. Arrays (..., N) cost most of the time: they are changed in place.
        exponent = (2.0 * self.scale * self.offset) @ self.centred.mT
        exponent.sub_(self.scale * self.offset.square().sum(-1, keepdim=True))
        exponent.sub_(self.scale * self.centred.square().sum(-1))
        # An exponential that underflows to a subnormal number takes ten times as long.
        smallest = math.log(torch.finfo(z.dtype).tiny)
        self.weights = exponent.clamp_(smallest, 0.0).exp_()
        d = z.shape[-1]
        floor = metric.regularization * torch.eye(d, dtype=z.dtype, device=z.device)
        self._inverse: Tensor = (self.weights @ self.flat).unflatten(-1, (d, d)) + floor
        self._cholesky: Tensor | None = None
        self._tensor: Tensor | None = None
        self._traces: Tensor | None = None

    @property
    def cholesky(self) -> Tensor:
        """Lower Cholesky factor of the *inverse* metric, ``(..., d, d)``."""
        if self._cholesky is None:
            # `cholesky_ex` does not check for errors, so it does not wait for the device. A NaN
            # stays NaN, and the caller rejects it.
            self._cholesky = torch.linalg.cholesky_ex(self._inverse).L
        return self._cholesky

    @property
    def inverse(self) -> Tensor:
        return self._inverse

    @property
    def tensor(self) -> Tensor:
        if self._tensor is None:
            self._tensor = torch.cholesky_inverse(self.cholesky)
        return self._tensor

    @property
    def log_volume(self) -> Tensor:
        return -self.cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def log_volume_grad(self) -> Tensor:
        if self._traces is None:  # tr(G M_i), (..., N)
            self._traces = self.tensor.flatten(-2) @ self.flat.mT
        return self._pull(self._traces)

    def velocity(self, momentum: Tensor) -> Tensor:
        return (self._inverse @ momentum[..., None])[..., 0]

    def momentum(self, velocity: Tensor) -> Tensor:
        solved: Tensor = torch.cholesky_solve(velocity[..., None], self.cholesky)
        return solved[..., 0]

    def inner(self, u: Tensor, v: Tensor) -> Tensor:
        if u is not v:
            return super().inner(u, v)
        # v^T G v = ||C^-1 v||^2 takes half of a solve.
        half: Tensor = torch.linalg.solve_triangular(self.cholesky, v[..., None], upper=False)
        return half.square().sum((-2, -1))

    def draw_momentum(self, noise: Tensor) -> Tensor:
        # G^-1 = C C^T, so C^-T noise has covariance (C C^T)^-1 = G.
        upper = self.cholesky.mT
        draw: Tensor = torch.linalg.solve_triangular(upper, noise[..., None], upper=True)[..., 0]
        return draw

    def kinetic_grad(self, momentum: Tensor) -> Tensor:
        outer = (momentum[..., :, None] * momentum[..., None, :]).flatten(-2)
        return -self._pull(outer @ self.flat.mT)

    def _pull(self, coefficients: Tensor) -> Tensor:
        """Return sum_i w_i a_i (z - c_i) / T^2 for coefficients a ``(..., N)``."""
        weighted = self.weights * coefficients
        total = weighted.sum(-1, keepdim=True)
        return self.scale * (total * self.offset - weighted @ self.centred)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return ||a - b||^2 for a ``(..., d)`` and b ``(N, d)``: ``(..., N)``, by a matrix product.

    Subtract a common centre from both first: far from the origin, the expanded square loses
    digits by cancellation.
    """
    squared = a.square().sum(-1, keepdim=True) + b.square().sum(-1)
    return torch.sub(squared, a @ b.mT, alpha=2).clamp_min(0.0)


def check_positive_definite(name: str, matrices: Tensor) -> None:
    """Raise `DataError` unless ``(..., d, d)`` matrices are symmetric positive definite."""
    check_finite(name, matrices)
    asymmetry = (matrices - matrices.mT).abs().amax((-2, -1))
    bad = asymmetry > 1e-4 * matrices.abs().amax((-2, -1))
    bad |= torch.linalg.cholesky_ex(matrices).info != 0
    if bool(bad.any()):
        raise DataError(
            f"{name}: {int(bad.sum())} of {bad.numel()} are not symmetric positive definite: "
            "expected matrices that are"
        )
