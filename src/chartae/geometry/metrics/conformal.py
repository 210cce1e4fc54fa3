"""Conformal metrics (a scalar times the identity): from a potential, and the hyperbolic ball."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from chartae.checks import check_integer, check_number
from chartae.geometry.metrics.base import ClosedForm, DiagonalLocal, Metric
from chartae.gradients import gradients

__all__ = ["ConformalMetric", "PoincareMetric", "StereographicLines", "StereographicPotential"]

TINY = 1e-300
"""Smallest divisor used for a norm."""


class ConformalMetric(Metric):
    r"""G(z) = V(z)^2 I, for a potential V given by its logarithm.

    A curve's length is :math:`\int V(\gamma) \|\dot\gamma\| dt`: with
    :math:`V = 1/\sqrt{\det G_0}`, geodesics minimise equation 3.8 of the thesis. They then stay
    near the data of the metric G_0 of a vanilla VAE (`avoiding_the_void`).

    Args:
        log_potential: log V, from ``(n, d)`` to ``(n,)``: a function or a module. A module is
            moved and cast with the metric. If it has a method ``grad``, from ``(n, d)`` to
            ``(n, d)``, that method computes the gradient; else autograd does.
        dim: dimension d of the space.

    >>> sphere = ConformalMetric(lambda z: -torch.log1p(z.square().sum(-1) / 4), dim=2)
    >>> sphere.tensor(torch.zeros(2))
    tensor([[1., 0.],
            [0., 1.]])
    """

    def __init__(self, log_potential: Callable[[Tensor], Tensor], dim: int) -> None:
        check_integer("dim", dim, minimum=1)
        super().__init__()
        self.log_potential = log_potential
        self._dim = dim

    @classmethod
    def avoiding_the_void(cls, metric: Metric, strength: float | None = None) -> "ConformalMetric":
        r"""Return a metric whose geodesics stay near the data of another metric (thesis eq. 3.8).

        :math:`V = \det(G)^{\mp s/2}`. The sign is chosen so that V is small where the data are.

        Args:
            metric: the metric G whose volume element shows where the data are.
            strength: s, at least 0; 1 is equation 3.8, and 0 is the Euclidean metric. None takes
                2/d, which is equation 3.8 in two dimensions. In more dimensions s = 1 often finds
                no path, because the volume spans too many orders of magnitude.

        Raises:
            ConfigurationError: for a negative strength.
        """
        if strength is None:
            strength = 2.0 / metric.dim
        check_number("strength", strength, minimum=0.0)
        power = -strength if metric.volume_is_large_near_data else strength
        return cls(_VolumePotential(metric, power), metric.dim)

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def landmarks(self) -> Tensor:
        known: Tensor = getattr(self.log_potential, "landmarks", super().landmarks)
        return known

    def at(self, z: Tensor) -> "ConformalLocal":
        self.check(z)
        return ConformalLocal(self, z)

    def potential_grad(self, z: Tensor) -> Tensor:
        """Return the gradient of log V at z ``(..., d)``."""
        flat = z.reshape(-1, self.dim)
        grad_of = getattr(self.log_potential, "grad", None)
        grad: Tensor = self._autograd(flat) if grad_of is None else grad_of(flat)
        return grad.reshape(z.shape)

    def _autograd(self, z: Tensor) -> Tensor:
        differentiable = torch.is_grad_enabled() and z.requires_grad
        with gradients(z) as (z,):
            leaf = z if z.requires_grad else z.detach().requires_grad_()
            total = self.log_potential(leaf).sum()
            if not total.requires_grad:  # a constant
                return torch.zeros_like(z)
            (grad,) = torch.autograd.grad(
                total, leaf, create_graph=differentiable, materialize_grads=True
            )
        return grad


class ConformalLocal(DiagonalLocal):
    """A conformal metric at given points."""

    def __init__(self, metric: ConformalMetric, z: Tensor) -> None:
        self.metric, self.z = metric, z
        self.log_potential = metric.log_potential(z.reshape(-1, metric.dim)).reshape(z.shape[:-1])
        self._slope: Tensor | None = None

    @property
    def diagonal(self) -> Tensor:
        return (2.0 * self.log_potential).exp()[..., None].expand(self.z.shape)

    @property
    def log_volume(self) -> Tensor:
        return self.z.shape[-1] * self.log_potential

    def pull(self, coefficients: Tensor) -> Tensor:
        if self._slope is None:
            self._slope = self.metric.potential_grad(self.z)
        total = (coefficients * self.diagonal).sum(-1, keepdim=True)
        return 2.0 * total * self._slope


class _VolumePotential(nn.Module):
    """A power of a metric's volume element, in logarithms."""

    def __init__(self, metric: Metric, power: float) -> None:
        super().__init__()
        self.metric, self.power = metric, power

    @property
    def landmarks(self) -> Tensor:
        return self.metric.landmarks

    def forward(self, z: Tensor) -> Tensor:
        return self.power * self.metric.log_volume(z)

    def grad(self, z: Tensor) -> Tensor:
        return self.power * self.metric.log_volume_grad(z)


class PoincareMetric(ConformalMetric):
    r"""The hyperbolic ball of curvature -c: :math:`G(z) = (2 / (1 - c\|z\|^2))^2 I`.

    (The thesis' Example 9 lacks the square.) Outside the ball the metric is not defined, and its
    values are NaN.

    Args:
        dim: dimension d of the ball.
        curvature: c > 0; the ball's radius is :math:`1/\sqrt c`.

    Raises:
        ConfigurationError: for a dimension or curvature out of range.

    >>> PoincareMetric(2).contains(torch.tensor([[0.5, 0.5], [1.0, 1.0]]))
    tensor([ True, False])
    """

    def __init__(self, dim: int, curvature: float = 1.0) -> None:
        check_number("curvature", curvature, above=0.0)
        curvature = float(curvature)
        super().__init__(StereographicPotential(-curvature), dim)
        self.curvature = curvature

    @property
    def closed_form(self) -> ClosedForm | None:
        return HyperbolicLines(self.curvature)

    @property
    def sectional_curvature(self) -> float:
        return -self.curvature

    def contains(self, z: Tensor) -> Tensor:
        return self.curvature * z.square().sum(-1) < 1.0


class StereographicLines(ABC):
    """The geodesics of a stereographic chart, from their directions and distances, in float64.

    A subclass defines `factor`, `distance`, `direction` and `along`.
    """

    @abstractmethod
    def factor(self, x: Tensor) -> Tensor:
        """Return the factor V of the metric V^2 I at points ``(..., d)``: ``(...)``."""

    @abstractmethod
    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the distances between points of float64."""

    @abstractmethod
    def direction(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the initial directions of geodesics from x to y, as Euclidean unit vectors."""

    @abstractmethod
    def along(self, x: Tensor, direction: Tensor, lengths: Tensor) -> Tensor:
        """Return the points at lengths ``(..., T)`` along geodesics: ``(..., T, d)``."""

    def paths(self, start: Tensor, end: Tensor, num_points: int) -> tuple[Tensor, Tensor]:
        """Return shortest paths at equal times, and their lengths."""
        times = torch.linspace(0.0, 1.0, num_points, dtype=torch.float64, device=start.device)
        x, y = start.double(), end.double()
        distance = self.distance(x, y)
        points = self.between(x, y, distance[..., None] * times).to(start.dtype)
        points[..., 0, :], points[..., -1, :] = start, end
        return points, distance.to(start.dtype)

    def between(self, x: Tensor, y: Tensor, lengths: Tensor) -> Tensor:
        """Return the points at lengths ``(..., T)`` of the shortest paths from x to y."""
        return self.along(x, self.direction(x, y), lengths)

    def exponential(self, z: Tensor, v: Tensor, times: Tensor) -> Tensor:
        """Return the points at given times of geodesics of velocity v at z."""
        x, u = z.double(), v.double()
        # At velocity 0, the derivative is the derivative of the limit.
        norm = u.square().sum(-1, keepdim=True).clamp_min(TINY).sqrt()
        speed = self.factor(x)[..., None] * norm
        return self.along(x, u / norm, speed * times.double()).to(z.dtype)

    def logarithm(self, z: Tensor, target: Tensor) -> Tensor:
        """Return the velocities at z of the geodesics that reach the targets at time 1."""
        x, y = z.double(), target.double()
        norm = self.distance(x, y) / self.factor(x)
        return (norm[..., None] * self.direction(x, y)).to(z.dtype)


class HyperbolicLines(StereographicLines):
    r"""The geodesics of a `PoincareMetric`, by Moebius addition (Ganea et al., 2018).

    All is computed in float64: near the boundary a distance is the logarithm of a small difference.
    """

    def __init__(self, curvature: float) -> None:
        self.curvature, self.root = curvature, math.sqrt(curvature)

    def factor(self, x: Tensor) -> Tensor:
        return 2.0 / self._gap(x)

    def between(self, x: Tensor, y: Tensor, lengths: Tensor) -> Tensor:
        # Each half is computed from its nearer end. Near the boundary of the ball, points far from
        # an end would lose all digits.
        left = lengths[..., -1:] - lengths
        first = self.along(x, self.direction(x, y), lengths)
        last = self.along(y, self.direction(y, x), left)
        return torch.where((lengths <= left)[..., None], first, last)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        apart: Tensor = (x - y).norm(dim=-1)
        scale = (self._gap(x) * self._gap(y)).sqrt()
        return 2.0 / self.root * torch.asinh(self.root * apart / scale)

    def _gap(self, x: Tensor) -> Tensor:
        """Return 1 - c ||x||^2, to full precision near the boundary of the ball."""
        norm: Tensor = self.root * x.norm(dim=-1)
        return (1.0 - norm) * (1.0 + norm)

    def _add(self, x: Tensor, y: Tensor, gap: Tensor) -> Tensor:
        """Return the Moebius sum of x and y, where ``gap`` is 1 - c ||y||^2.

        It is written in terms of x + y, which is small where the usual formula would cancel.
        """
        own = self._gap(x)[..., None]
        square = self.curvature * (x + y).square().sum(-1, keepdim=True)
        return (own * (x + y) + square * x) / (own * gap[..., None] + square)

    def direction(self, x: Tensor, y: Tensor) -> Tensor:
        moved = self._add(-x, y, self._gap(y))
        norm = moved.norm(dim=-1, keepdim=True)
        return torch.where(norm > 0, moved / norm.clamp(min=TINY), 0.0)

    def along(self, x: Tensor, direction: Tensor, lengths: Tensor) -> Tensor:
        half = 0.5 * self.root * lengths
        steps = (torch.tanh(half) / self.root)[..., None] * direction[..., None, :]
        return self._add(x[..., None, :], steps, torch.cosh(half.clamp(max=300.0)) ** -2)


class StereographicPotential(nn.Module):
    """log(2 / (1 + K ||z||^2)), of the stereographic chart of the space of curvature K."""

    def __init__(self, curvature: float) -> None:
        super().__init__()
        self.curvature = curvature

    def forward(self, z: Tensor) -> Tensor:
        return -torch.log(0.5 * (1.0 + self.curvature * z.square().sum(-1)))

    def grad(self, z: Tensor) -> Tensor:
        norm = z.square().sum(-1, keepdim=True)
        return -2.0 * self.curvature * z / (1.0 + self.curvature * norm)
