"""Conformal metrics, a scalar times the identity: a potential, the hyperbolic ball."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from chartae.checks import check_integer, check_number
from chartae.geometry.metric import DiagonalLocal, Metric

__all__ = ["ConformalMetric", "PoincareMetric"]


class ConformalMetric(Metric):
    r"""G(z) = V(z)^2 I, for a potential V given by its logarithm.

    A curve's length is :math:`\int V(\gamma) \|\dot\gamma\| dt`: with
    :math:`V = 1/\sqrt{\det G_0}`, geodesics minimise equation 3.8 of the thesis, and so keep to
    where the metric G_0 of a vanilla VAE has data (`avoiding_the_void`).

    Args:
        log_potential: log V, from ``(n, d)`` to ``(n,)``: a function, or a module, which is then
            moved and cast with the metric. Its method ``grad``, from ``(n, d)`` to ``(n, d)``,
            gives the gradient if it has one; else autograd does.
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
        r"""Return the metric whose geodesics keep to the data of another one (thesis eq. 3.8).

        :math:`V = \det(G)^{\mp s/2}`, small where the data are, whichever way G goes there.

        Args:
            metric: the metric G whose volume element says where the data are.
            strength: s, at least 0; 1 is equation 3.8, and 0 the Euclidean metric. None takes
                2/d: equation 3.8 in two dimensions, and what it is for each two in more, where
                the volume itself spans too many orders of magnitude for a path to be found.

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
        with torch.enable_grad():
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

    (The thesis' Example 9 lacks the square.) Outside the ball there is no metric, only NaN.

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
        super().__init__(_HyperbolicPotential(curvature), dim)
        self.curvature = curvature

    def contains(self, z: Tensor) -> Tensor:
        return self.curvature * z.square().sum(-1) < 1.0


class _HyperbolicPotential(nn.Module):
    """log(2 / (1 - c ||z||^2))."""

    def __init__(self, curvature: float) -> None:
        super().__init__()
        self.curvature = curvature

    def forward(self, z: Tensor) -> Tensor:
        return -torch.log(0.5 * (1.0 - self.curvature * z.square().sum(-1)))

    def grad(self, z: Tensor) -> Tensor:
        norm = z.square().sum(-1, keepdim=True)
        return 2.0 * self.curvature * z / (1.0 - self.curvature * norm)
