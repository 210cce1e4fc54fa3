"""Riemannian metrics on the latent space, in its global chart.

A `Metric` gives, at points z of shape ``(..., d)``, the tensor G(z), its inverse, the log of the
volume element 1/2 log det G(z), and their gradients. What several of these share (weights, a
Cholesky factor) is computed once in the `Local` view that ``metric.at(z)`` returns; the methods of
`Metric` are shorthands for it.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from chartae.checks import check_finite, check_floating, check_number, check_shape
from chartae.errors import DataError

__all__ = ["CentroidMetric", "Local", "Metric", "squared_distances"]


class Local(ABC):
    """A metric at given points ``z``, of shape ``(..., d)``."""

    z: Tensor

    @property
    @abstractmethod
    def inverse(self) -> Tensor:
        """The inverse tensor, ``(..., d, d)``."""

    @property
    @abstractmethod
    def tensor(self) -> Tensor:
        """The tensor G, ``(..., d, d)``."""

    @property
    @abstractmethod
    def log_volume(self) -> Tensor:
        """1/2 log det G, ``(...)``."""

    @abstractmethod
    def log_volume_grad(self) -> Tensor:
        """Gradient of the log-volume in z, ``(..., d)``."""

    @abstractmethod
    def kinetic(self, momentum: Tensor) -> Tensor:
        """1/2 p^T G^-1 p, ``(...)``, for momenta ``(..., d)``."""

    @abstractmethod
    def kinetic_grad(self, momentum: Tensor) -> Tensor:
        """Gradient of the kinetic energy in z at a fixed momentum, ``(..., d)``."""

    @abstractmethod
    def velocity(self, momentum: Tensor) -> Tensor:
        """G^-1 p, ``(..., d)``."""

    @abstractmethod
    def momentum(self, noise: Tensor) -> Tensor:
        """A draw from N(0, G), ``(..., d)``, made from one of N(0, I)."""


class Metric(nn.Module, ABC):
    """Base of all metrics; a subclass gives `dim` and `at`.

    Attributes:
        volume_is_large_near_data: whether the volume element is large where the data are
            (the metric of a vanilla VAE), or small there (the RHVAE's, whose inverse is large).
    """

    volume_is_large_near_data: bool = False

    @property
    @abstractmethod
    def dim(self) -> int:
        """Dimension d of the latent space."""

    @abstractmethod
    def at(self, z: Tensor) -> Local:
        """Return the metric at ``z``, ``(..., d)``; what its quantities share is computed once."""

    def tensor(self, z: Tensor) -> Tensor:
        """Return G(z), ``(..., d, d)``, for z ``(..., d)``."""
        return self.at(z).tensor

    def inverse(self, z: Tensor) -> Tensor:
        """Return the inverse of G(z), ``(..., d, d)``."""
        return self.at(z).inverse

    def log_volume(self, z: Tensor) -> Tensor:
        """Return 1/2 log det G(z), ``(...)``."""
        return self.at(z).log_volume

    def log_volume_grad(self, z: Tensor) -> Tensor:
        """Return the gradient of the log-volume in z, ``(..., d)``."""
        return self.at(z).log_volume_grad()

    def inner(self, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return the inner product u^T G(z) v of tangent vectors ``(..., d)``: ``(...)``."""
        return torch.einsum("...i,...ij,...j->...", u, self.tensor(z), v)

    def norm(self, z: Tensor, v: Tensor) -> Tensor:
        """Return the length of tangent vectors v at z, ``(...)``."""
        return self.inner(z, v, v).clamp_min(0.0).sqrt()

    def hamiltonian(self, z: Tensor, momentum: Tensor) -> Tensor:
        """Return 1/2 p^T G(z)^-1 p, the Hamiltonian of geodesics: ``(...)``."""
        return self.at(z).kinetic(momentum)

    def hamiltonian_grad(self, z: Tensor, momentum: Tensor) -> tuple[Tensor, Tensor]:
        """Return the Hamiltonian's gradients in z and in the momentum, both ``(..., d)``."""
        local = self.at(z)
        return local.kinetic_grad(momentum), local.velocity(momentum)


class CentroidMetric(Metric):
    r"""The metric of the RHVAE: its inverse is a sum of bumps around centroids (thesis eq. 1.7).

    .. math:: G^{-1}(z) = \sum_i w_i(z) M_i + \lambda I, \quad w_i(z) = e^{-\|z - c_i\|^2 / T^2}

    All quantities and gradients are in closed form, as products of the ``(..., N)`` weights with
    ``(N, d * d)`` and ``(N, d)`` arrays (MATH.md section 3): no ``(..., N, d, d)`` is ever formed.

    Args:
        centroids: the :math:`c_i`, ``(N, d)``.
        matrices: the :math:`M_i`, symmetric positive definite, ``(N, d, d)``.
        temperature: T > 0, a length in the latent space.
        regularization: :math:`\lambda` > 0, the inverse metric far from all centroids.
        validate: check the arguments; a training loop that makes a metric a step does not.

    Raises:
        DataError: for shapes that do not match, or entries that are not finite.
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
            check_finite("matrices", matrices.detach())
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
        """Compute what every point needs: codes about their mean, where squares do not cancel."""
        centre = self.centroids.detach().mean(0)
        self.register_buffer("centre", centre, persistent=False)
        self.register_buffer("centred", self.centroids - centre, persistent=False)
        self.register_buffer("flat", self.matrices.flatten(1), persistent=False)

    @property
    def dim(self) -> int:
        return self.centroids.shape[-1]

    def at(self, z: Tensor) -> "CentroidLocal":
        check_shape("z", z, (*["..."] * (z.dim() - 1), self.dim))
        if z.dtype != self.centroids.dtype:
            raise DataError(f"z has dtype {z.dtype}: the metric has {self.centroids.dtype}")
        return CentroidLocal(self, z)


class CentroidLocal(Local):
    """`CentroidMetric` at given points; differentiable in points, centroids and matrices."""

    def __init__(self, metric: CentroidMetric, z: Tensor) -> None:
        self.z, self.centred, self.flat = z, metric.centred, metric.flat
        self.offset = z - metric.centre
        self.scale = 1.0 / metric.temperature**2
        self.weights = torch.exp(-self.scale * squared_distances(self.offset, self.centred))
        self.slopes = self.scale * self.weights
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
            # Unchecked, it waits for no device, and a NaN stays one: the caller's to reject.
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

    def momentum(self, noise: Tensor) -> Tensor:
        # G^-1 = C C^T, so C^-T noise has covariance (C C^T)^-1 = G.
        upper = self.cholesky.mT
        draw: Tensor = torch.linalg.solve_triangular(upper, noise[..., None], upper=True)[..., 0]
        return draw

    def kinetic(self, momentum: Tensor) -> Tensor:
        return 0.5 * (momentum * self.velocity(momentum)).sum(-1)

    def kinetic_grad(self, momentum: Tensor) -> Tensor:
        outer = (momentum[..., :, None] * momentum[..., None, :]).flatten(-2)
        return -self._pull(outer @ self.flat.mT)

    def _pull(self, coefficients: Tensor) -> Tensor:
        """Return sum_i w_i a_i (z - c_i) / T^2 for coefficients a ``(..., N)``."""
        weighted = self.slopes * coefficients
        total = weighted.sum(-1, keepdim=True)
        return total * self.offset - weighted @ self.centred


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return ||a - b||^2 for a ``(..., d)`` and b ``(N, d)``: ``(..., N)``, by a matrix product.

    Give both about a common centre: far from the origin, the expansion of the square cancels.
    """
    squared = a.square().sum(-1, keepdim=True) + b.square().sum(-1)
    return torch.sub(squared, a @ b.mT, alpha=2).clamp_min(0.0)
