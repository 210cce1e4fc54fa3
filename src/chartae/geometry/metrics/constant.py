"""Metrics that do not depend on the point: flat spaces, whose geodesics are straight lines."""

import torch
from torch import Tensor

from chartae.checks import check_floating, check_integer, check_shape
from chartae.geometry.metrics.base import Local, Metric
from chartae.geometry.metrics.centroid import check_positive_definite

__all__ = ["ConstantMetric", "EuclideanMetric"]


class ConstantMetric(Metric):
    """G(z) = A everywhere. Distances are Mahalanobis distances.

    Args:
        matrix: A, symmetric positive definite, ``(d, d)``.

    Raises:
        DataError: if the matrix is not symmetric positive definite.

    >>> metric = ConstantMetric(torch.diag(torch.tensor([4.0, 1.0])))
    >>> metric.norm(torch.zeros(2), torch.tensor([1.0, 0.0]))
    tensor(2.)
    """

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        check_floating("matrix", matrix)
        check_shape("matrix", matrix, ("d", matrix.shape[0] if matrix.dim() else "d"))
        check_positive_definite("matrix", matrix)
        super().__init__()
        self.register_buffer("matrix", matrix)

    @property
    def dim(self) -> int:
        return self.matrix.shape[0]

    @property
    def closed_form(self) -> "StraightLines":
        return StraightLines(self)

    @property
    def sectional_curvature(self) -> float:
        return 0.0

    def at(self, z: Tensor) -> Local:
        self.check(z)
        return ConstantLocal(self.matrix.to(z.dtype), z)


class EuclideanMetric(ConstantMetric):
    """G(z) = I, for float32 and float64.

    Args:
        dim: dimension d of the space.
    """

    def __init__(self, dim: int) -> None:
        check_integer("dim", dim, minimum=1)
        super().__init__(torch.eye(int(dim)))

    @property
    def dtype(self) -> None:
        """None: the identity matrix is exact in every dtype."""
        return None


class StraightLines:
    """The geodesics of a `ConstantMetric`."""

    def __init__(self, metric: ConstantMetric) -> None:
        self.metric = metric

    def paths(self, start: Tensor, end: Tensor, num_points: int) -> tuple[Tensor, Tensor]:
        """Return straight lines, and their lengths."""
        times = torch.linspace(0.0, 1.0, num_points, dtype=start.dtype, device=start.device)
        lines = torch.lerp(start[..., None, :], end[..., None, :], times[:, None])
        return lines, self.metric.norm(start, end - start)

    def exponential(self, z: Tensor, v: Tensor, times: Tensor) -> Tensor:
        """Return z + t v."""
        return z[..., None, :] + times[:, None] * v[..., None, :]

    def logarithm(self, z: Tensor, target: Tensor) -> Tensor:
        """Return the difference."""
        return target - z


class ConstantLocal(Local):
    """A `ConstantMetric` at given points."""

    def __init__(self, matrix: Tensor, z: Tensor) -> None:
        self.z, self.matrix = z, matrix
        self.cholesky: Tensor = torch.linalg.cholesky_ex(matrix).L
        self._inverse: Tensor = torch.cholesky_inverse(self.cholesky)

    @property
    def tensor(self) -> Tensor:
        return self.matrix.expand(*self.z.shape[:-1], -1, -1)

    @property
    def inverse(self) -> Tensor:
        return self._inverse.expand(*self.z.shape[:-1], -1, -1)

    @property
    def log_volume(self) -> Tensor:
        return self.cholesky.diagonal().log().sum().expand(self.z.shape[:-1])

    def log_volume_grad(self) -> Tensor:
        return torch.zeros_like(self.z)

    def kinetic_grad(self, momentum: Tensor) -> Tensor:
        return torch.zeros_like(momentum)

    def velocity(self, momentum: Tensor) -> Tensor:
        return momentum @ self._inverse

    def momentum(self, velocity: Tensor) -> Tensor:
        return velocity @ self.matrix

    def draw_momentum(self, noise: Tensor) -> Tensor:
        return noise @ self.cholesky.mT
