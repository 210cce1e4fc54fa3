"""The contract of every Riemannian metric on the latent space, in its global chart.

A `Metric` gives, at points z of shape ``(..., d)``, the tensor G(z), its inverse, the log of the
volume element 1/2 log det G(z), the kinetic energy of geodesics, and their gradients. Several of
these share intermediate results (weights, a Cholesky factor). The `Local` view that
``metric.at(z)`` returns computes them once. The methods of `Metric` are shorthands for it.

To write a metric, define `dim` and either `tensor` or `at`. With `tensor`, autograd computes the
gradients. With `at`, return a `Local` with the gradients in closed form.
"""

from abc import ABC, abstractmethod
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from chartae.checks import check_finite, check_floating, check_shape
from chartae.data.arrays import check_dense, takes_arrays
from chartae.distributions import NormalMixture
from chartae.errors import ConfigurationError, DataError
from chartae.gradients import gradients

__all__ = [
    "AutogradLocal",
    "ClosedForm",
    "DiagonalLocal",
    "Local",
    "Metric",
    "TensorLocal",
    "check_points",
    "check_vectors",
]

_TAKE_ARRAYS = {
    "contains": ("z",),
    "tensor": ("z",),
    "inverse": ("z",),
    "log_volume": ("z",),
    "log_volume_grad": ("z",),
    "inner": ("z", "u", "v"),
    "norm": ("z", "v"),
    "hamiltonian": ("z", "momentum"),
    "hamiltonian_grad": ("z", "momentum"),
}
"""The methods of a metric that also accept arrays, with the arguments that may be arrays."""


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
    def kinetic_grad(self, momentum: Tensor) -> Tensor:
        """Gradient of the kinetic energy in z at a fixed momentum, ``(..., d)``."""

    @abstractmethod
    def velocity(self, momentum: Tensor) -> Tensor:
        """G^-1 p, ``(..., d)``."""

    @abstractmethod
    def momentum(self, velocity: Tensor) -> Tensor:
        """G v, ``(..., d)``."""

    @abstractmethod
    def draw_momentum(self, noise: Tensor) -> Tensor:
        """A draw from N(0, G), ``(..., d)``, computed from a draw of N(0, I)."""

    def kinetic(self, momentum: Tensor) -> Tensor:
        """1/2 p^T G^-1 p, ``(...)``, for momenta ``(..., d)``."""
        return 0.5 * (momentum * self.velocity(momentum)).sum(-1)

    def inner(self, u: Tensor, v: Tensor) -> Tensor:
        """u^T G v, ``(...)``, for tangent vectors ``(..., d)``."""
        return (u * self.momentum(v)).sum(-1)

    def energy_grad(self, velocity: Tensor) -> Tensor:
        """Gradient in z of 1/2 v^T G v at a fixed *velocity*, ``(..., d)``.

        It is minus the gradient at a fixed momentum, by the derivative of an inverse matrix.
        """
        return -self.kinetic_grad(self.momentum(velocity))


class ClosedForm(Protocol):
    """Geodesics of a metric in closed form. Solvers approximate them for all other metrics."""

    def paths(self, start: Tensor, end: Tensor, num_points: int) -> tuple[Tensor, Tensor]:
        """Return shortest paths at equal times, ``(..., num_points, d)``, and their lengths."""
        ...

    def exponential(self, z: Tensor, v: Tensor, times: Tensor) -> Tensor:
        """Return geodesics of velocity v at z, at times ``(T,)``: points ``(..., T, d)``."""
        ...

    def logarithm(self, z: Tensor, target: Tensor) -> Tensor:
        """Return the velocities at z of the geodesics that reach the targets at time 1."""
        ...


class Metric(nn.Module, ABC):
    """Base of all metrics; a subclass gives `dim`, and `tensor` or `at`.

    Attributes:
        volume_is_large_near_data: True if the volume element is large where the data are (the
            metric of a vanilla VAE). False if it is small there (the metric of the RHVAE, whose
            inverse is large near the data).
    """

    volume_is_large_near_data: bool = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, arguments in _TAKE_ARRAYS.items():
            if name in vars(cls):
                setattr(cls, name, takes_arrays(*arguments)(vars(cls)[name]))

    def __init__(self) -> None:
        if type(self).tensor is Metric.tensor and type(self).at is Metric.at:
            raise ConfigurationError(
                f"{type(self).__name__} has neither `tensor` nor `at`: a metric expects one of them"
            )
        super().__init__()

    @property
    @abstractmethod
    def dim(self) -> int:
        """Dimension d of the latent space."""

    @property
    def closed_form(self) -> ClosedForm | None:
        """The geodesics in closed form, or None."""
        return None

    @property
    def sectional_curvature(self) -> float | None:
        """The sectional curvature if it is known and constant, else None."""
        return None

    @property
    def total_volume(self) -> float | None:
        """The volume of the whole space if it is known and finite, else None."""
        return None

    @property
    def bumps(self) -> NormalMixture | None:
        """A mixture with one normal for each landmark, or None.

        Each component approximates the density that its landmark alone would give. All components
        have the same mass. Landmarks that lie close together contribute more to the manifold's
        density than this mixture shows.
        """
        return None

    @property
    def landmarks(self) -> Tensor:
        """Points near the data, ``(n, d)``. Geodesic solvers start from paths through them."""
        return torch.empty(0, self.dim)

    def at(self, z: Tensor) -> Local:
        """Return the metric at ``z``, ``(..., d)``; shared quantities are computed once."""
        return AutogradLocal(self, z)

    @takes_arrays(*_TAKE_ARRAYS["contains"])
    def contains(self, z: Tensor) -> Tensor:
        """Return whether points lie in the metric's domain, ``(...)`` bool; by default all do."""
        return torch.ones_like(z[..., 0], dtype=torch.bool)

    def check(self, z: Tensor, name: str = "z") -> None:
        """Raise `DataError` unless ``z`` is ``(..., d)``, of the metric's own dtype if it has one.

        It checks shape and dtype only. `check_points` also checks the values.
        """
        if not isinstance(z, Tensor) or not z.is_floating_point():  # autocast has its own dtypes
            check_floating(name, z)
        check_shape(name, z, (*["..."] * (z.dim() - 1), self.dim))
        if self.dtype is not None and z.dtype != self.dtype:
            raise DataError(f"{name} has dtype {z.dtype}: the metric has {self.dtype}")

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype of its tensors; None if it has no tensors, and then it accepts any dtype."""
        own = chain(self.buffers(), self.parameters())
        return next((t.dtype for t in own if t.is_floating_point()), None)

    @property
    def device(self) -> torch.device | None:
        """The device of its tensors; None if it has none."""
        return next((t.device for t in chain(self.buffers(), self.parameters())), None)

    @takes_arrays(*_TAKE_ARRAYS["tensor"])
    def tensor(self, z: Tensor) -> Tensor:
        """Return G(z), ``(..., d, d)``, for z ``(..., d)``."""
        return self.at(z).tensor

    @takes_arrays(*_TAKE_ARRAYS["inverse"])
    def inverse(self, z: Tensor) -> Tensor:
        """Return the inverse of G(z), ``(..., d, d)``."""
        return self.at(z).inverse

    @takes_arrays(*_TAKE_ARRAYS["log_volume"])
    def log_volume(self, z: Tensor) -> Tensor:
        """Return 1/2 log det G(z), ``(...)``."""
        return self.at(z).log_volume

    @takes_arrays(*_TAKE_ARRAYS["log_volume_grad"])
    def log_volume_grad(self, z: Tensor) -> Tensor:
        """Return the gradient of the log-volume in z, ``(..., d)``."""
        return self.at(z).log_volume_grad()

    @takes_arrays(*_TAKE_ARRAYS["inner"])
    def inner(self, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return the inner product u^T G(z) v of tangent vectors ``(..., d)``: ``(...)``."""
        local = self.at(z)
        check_vectors(self, z, u=u, v=v)
        return local.inner(u, v)

    @takes_arrays(*_TAKE_ARRAYS["norm"])
    def norm(self, z: Tensor, v: Tensor) -> Tensor:
        """Return the length of tangent vectors v at z, ``(...)``."""
        local = self.at(z)
        check_vectors(self, z, v=v)
        return local.inner(v, v).clamp_min(0.0).sqrt()

    @takes_arrays(*_TAKE_ARRAYS["hamiltonian"])
    def hamiltonian(self, z: Tensor, momentum: Tensor) -> Tensor:
        """Return 1/2 p^T G(z)^-1 p, the Hamiltonian of geodesics: ``(...)``."""
        local = self.at(z)
        check_vectors(self, z, momentum=momentum)
        return local.kinetic(momentum)

    @takes_arrays(*_TAKE_ARRAYS["hamiltonian_grad"])
    def hamiltonian_grad(self, z: Tensor, momentum: Tensor) -> tuple[Tensor, Tensor]:
        """Return the Hamiltonian's gradients in z and in the momentum, both ``(..., d)``."""
        local = self.at(z)
        check_vectors(self, z, momentum=momentum)
        return local.kinetic_grad(momentum), local.velocity(momentum)


class TensorLocal(Local):
    """A metric given by its tensor. A subclass defines `pull`; the rest uses a Cholesky factor.

    Args:
        z: the points, ``(..., d)``.
        tensor: G at these points, ``(..., d, d)``.
    """

    def __init__(self, z: Tensor, tensor: Tensor) -> None:
        self.z, self._tensor = z, tensor
        # `cholesky_ex` does not check for errors, so it does not wait for the device. A NaN stays
        # NaN, and the caller rejects it.
        self.cholesky: Tensor = torch.linalg.cholesky_ex(tensor).L

    @abstractmethod
    def pull(self, coefficients: Tensor) -> Tensor:
        """Return sum_jk a_jk grad G_jk, ``(..., d)``, for symmetric a ``(..., d, d)``."""

    @property
    def tensor(self) -> Tensor:
        return self._tensor

    @property
    def inverse(self) -> Tensor:
        inverse: Tensor = torch.cholesky_inverse(self.cholesky)
        return inverse

    @property
    def log_volume(self) -> Tensor:
        return self.cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def log_volume_grad(self) -> Tensor:
        return self.pull(0.5 * self.inverse)

    def velocity(self, momentum: Tensor) -> Tensor:
        solved: Tensor = torch.cholesky_solve(momentum[..., None], self.cholesky)
        return solved[..., 0]

    def momentum(self, velocity: Tensor) -> Tensor:
        return (self._tensor @ velocity[..., None])[..., 0]

    def draw_momentum(self, noise: Tensor) -> Tensor:
        return (self.cholesky @ noise[..., None])[..., 0]

    def kinetic_grad(self, momentum: Tensor) -> Tensor:
        return -self.energy_grad(self.velocity(momentum))

    def energy_grad(self, velocity: Tensor) -> Tensor:
        return self.pull(0.5 * velocity[..., :, None] * velocity[..., None, :])


class AutogradLocal(TensorLocal):
    """A metric given by its tensor alone: gradients by autograd, inverse by Cholesky."""

    def __init__(self, metric: Metric, z: Tensor) -> None:
        metric.check(z)
        self.metric = metric
        self._with_graph: tuple[Tensor, Tensor] | None = None
        super().__init__(z, metric.tensor(z))

    def pull(self, coefficients: Tensor) -> Tensor:
        wanted = self.z.requires_grad or coefficients.requires_grad
        differentiable = torch.is_grad_enabled() and wanted
        with gradients(coefficients) as (coefficients,):
            z, tensor = self._graph()
            if not tensor.requires_grad:  # it does not depend on z
                return torch.zeros_like(z)
            (grad,) = torch.autograd.grad(
                tensor,
                z,
                coefficients,
                create_graph=differentiable,
                retain_graph=True,
                materialize_grads=True,
            )
        return grad

    def _graph(self) -> tuple[Tensor, Tensor]:
        """Return z and G(z) with the autograd graph between them, which is built once."""
        if self._with_graph is None:
            z = self.z.clone() if self.z.is_inference() else self.z
            z = z if z.requires_grad else z.detach().requires_grad_()
            self._with_graph = z, self.metric.tensor(z)
        return self._with_graph


class DiagonalLocal(Local):
    """A diagonal metric G = diag(g). A subclass defines `diagonal` and `pull`."""

    @property
    @abstractmethod
    def diagonal(self) -> Tensor:
        """The diagonal g of G, ``(..., d)``, positive."""

    @abstractmethod
    def pull(self, coefficients: Tensor) -> Tensor:
        """Return sum_j a_j grad g_j, ``(..., d)``, for coefficients a ``(..., d)``."""

    @property
    def tensor(self) -> Tensor:
        return torch.diag_embed(self.diagonal)

    @property
    def inverse(self) -> Tensor:
        return torch.diag_embed(self.diagonal.reciprocal())

    @property
    def log_volume(self) -> Tensor:
        return 0.5 * self.diagonal.log().sum(-1)

    def log_volume_grad(self) -> Tensor:
        return self.pull(0.5 / self.diagonal)

    def velocity(self, momentum: Tensor) -> Tensor:
        return momentum / self.diagonal

    def momentum(self, velocity: Tensor) -> Tensor:
        return velocity * self.diagonal

    def draw_momentum(self, noise: Tensor) -> Tensor:
        return noise * self.diagonal.sqrt()

    def kinetic_grad(self, momentum: Tensor) -> Tensor:
        return self.pull(-0.5 * self.velocity(momentum).square())


def check_vectors(metric: Metric, z: Tensor, **vectors: Tensor) -> None:
    """Raise `DataError` unless vectors ``(..., d)`` match points z in shape and dtype.

    It checks shape and dtype only, not values.
    """
    for name, v in vectors.items():
        if isinstance(v, Tensor) and v.shape == z.shape and v.dtype == z.dtype:
            continue  # the usual case, in inner loops
        check_floating(name, v)
        check_shape(name, v, (*["..."] * (v.dim() - 1), metric.dim))
        if v.dtype != z.dtype:
            raise DataError(f"{name} has dtype {v.dtype}: the points have {z.dtype}")
    if all(v.shape == z.shape for v in vectors.values()):
        return
    try:
        torch.broadcast_shapes(z.shape, *(v.shape for v in vectors.values()))
    except RuntimeError as error:
        shapes = " and ".join(f"{name} has shape {tuple(v.shape)}" for name, v in vectors.items())
        raise DataError(
            f"{shapes} for points of shape {tuple(z.shape)}: expected shapes that broadcast"
        ) from error


def check_points(metric: Metric, **points: Tensor) -> None:
    """Raise `DataError` unless points can be used with ``metric``. Public functions call it.

    The points must be finite float tensors ``(..., d)`` of the metric's dtype. They must lie in
    the metric's domain, and the metric must be positive definite there.

    Args:
        metric: a metric.
        points: the points, by the name of the caller's argument.
    """
    if not isinstance(metric, Metric):
        raise ConfigurationError(f"metric is {type(metric).__name__}: expected a Metric")
    for name, z in points.items():
        check_dense(name, z)
        metric.check(z, name)
        if not z.numel():
            raise DataError(f"{name} has shape {tuple(z.shape)}: expected at least one point")
        check_finite(name, z.detach())
        outside = int((~metric.contains(z)).sum())
        if outside:
            raise DataError(
                f"{name}: {outside} of {z[..., 0].numel()} points lie outside the domain of "
                f"{type(metric).__name__}: expected points inside"
            )
        bad = int((~torch.isfinite(metric.log_volume(z.detach()))).sum())
        if bad:
            raise DataError(
                f"{type(metric).__name__} is not positive definite at {bad} of "
                f"{z[..., 0].numel()} points of {name}: expected a metric that is"
            )
