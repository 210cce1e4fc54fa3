"""The law of a distance, by quadrature. Isotropic distributions on sphere and ball use it.

Such a distribution has a uniform direction around a centre, and a distance r from the centre whose
density is known up to a constant. One quadrature gives the constant and its gradient, the
cumulative distribution, exact draws by its inversion, and their pathwise gradients.
"""

import math
from collections.abc import Callable
from functools import cached_property

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor
from torch.nn.functional import normalize

__all__ = ["RadialLaw", "log_area", "random_directions"]

# For a normal, the points where the kernel has fallen to e^-45 of its peak are 19 standard
# deviations apart. 16 panels of 8 nodes integrate it to rounding: on panels of 1.2 standard
# deviations, the remainder of Gauss-Legendre, of the 16th derivative, is 1e-15 at the peak.
DEPTH, PANELS = 45.0, 16
NODES, WEIGHTS = (values.tolist() for values in leggauss(8))
# With this number of bisections, the window is at most 11 % too wide.
BISECTIONS, NEWTON_STEPS = 8, 5


def log_area(dim: int) -> float:
    r"""Return the log area of the unit sphere in R^dim, :math:`2 \pi^{d/2} / \Gamma(d/2)`.

    >>> round(math.exp(log_area(3)) / math.pi, 6)
    4.0
    """
    return math.log(2.0) + 0.5 * dim * math.log(math.pi) - math.lgamma(0.5 * dim)


def random_directions(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Return vectors of unit length, uniform on the sphere of the last dimension, in float64."""
    return normalize(torch.randn(shape, dtype=torch.float64, device=device), dim=-1)


class RadialLaw:
    r"""Law of a distance :math:`r \ge 0` with the unimodal density :math:`e^{k(r)} / M`.

    A subclass defines the kernel k, `log_kernel`, with parameters of any shape ``(...)`` in
    float64. Quantities are once differentiable in the parameters.

    Args:
        mode: an approximate mode, at which k is within a few units of its maximum.
        limit: an upper bound of r, or a point where k is at least 45 below its maximum.
    """

    def __init__(self, mode: Tensor, limit: Tensor) -> None:
        with torch.no_grad():
            self.peak = self.log_kernel(mode)
            lower, upper = self._window(mode, limit)
            steps = torch.linspace(0.0, 1.0, PANELS + 1, dtype=mode.dtype, device=mode.device)
            self.edges = lower + (upper - lower) * _leading(steps, mode)
        self._nodes = 0.5 * (mode.new_tensor(NODES) + 1.0)
        self._weights = 0.5 * mode.new_tensor(WEIGHTS)

    def log_kernel(self, r: Tensor) -> Tensor:
        """Return k at r, ``(*, ...)``."""
        raise NotImplementedError

    def _window(self, mode: Tensor, limit: Tensor) -> Tensor:
        """Return the two ends, stacked, beyond which the kernel is negligible."""
        # Geometric bisection of the distance from the mode, which may have any magnitude.
        outside = torch.stack([-mode, limit - mode])
        inside = 1e-12 * outside
        for _ in range(BISECTIONS):
            middle = outside * (inside / outside).nan_to_num().sqrt()
            deep = self.log_kernel(mode + middle) < self.peak - DEPTH
            outside = torch.where(deep, middle, outside)
            inside = torch.where(deep, inside, middle)
        return mode + outside

    def _quadrature(self, start: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        """Return nodes from ``start`` on, and their terms in the integral of exp(k - peak)."""
        r = start + width * _leading(self._nodes, start)
        terms = (self.log_kernel(r) - self.peak).exp()
        return r, width * _leading(self._weights, start) * terms

    @cached_property
    def _whole(self) -> tuple[Tensor, Tensor]:
        """Nodes and terms of all panels, ``(nodes, panels, ...)`` each."""
        with torch.enable_grad():  # it is cached, and later calls may need gradients
            return self._quadrature(self.edges[:-1], self.edges.diff(dim=0))

    @property
    def _panels(self) -> Tensor:
        """Integrals of exp(k - peak) over the panels, ``(panels, ...)``."""
        return self._whole[1].sum(0)

    @property
    def _total(self) -> Tensor:
        return self._panels.sum(0)

    @property
    def log_mass(self) -> Tensor:
        r"""Logarithm of M, where :math:`M = \int e^{k(r)} dr`: ``(...)``."""
        return self.peak + self._total.log()

    def expectation(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the mean of a smooth function of r, given the nodes ``(*, ...)``: ``(...)``."""
        r, terms = self._whole
        return (terms * function(r)).sum((0, 1)) / self._total

    def rsample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        r"""Return draws ``(*sample_shape, ...)`` by inversion of the cumulative distribution F.

        Each draw uses one uniform number u. Newton's method solves F(r) = u, to rounding. Its last
        step is differentiable, and gives the derivative of the solution,
        :math:`dr/d\theta = -\partial_\theta F(r) / p(r)` (implicit reparametrisation, Figurnov et
        al., 2018).
        """
        shape = (math.prod(sample_shape), *self.edges.shape[1:])
        uniform = torch.rand(shape, dtype=self.edges.dtype, device=self.edges.device)
        uniform = uniform.clamp_min(2.0**-54)  # at u = 0 the density may vanish
        panels, total = self._panels, self._total
        cumulative = torch.cat([torch.zeros_like(total)[None], panels.cumsum(0)]) / total
        panel = (uniform[None] > cumulative[1:-1, None]).sum(0)
        left, right = (self.edges.gather(0, i) for i in (panel, panel + 1))
        below, above = (cumulative.gather(0, i) for i in (panel, panel + 1))

        def newton_step(r: Tensor) -> Tensor:
            excess = below + self._quadrature(left, r - left)[1].sum(0) / total - uniform
            density = (self.log_kernel(r) - self.peak).exp() / total
            return r - excess / density.detach()

        with torch.no_grad():
            # Start as if the density were linear in the panel, or a power if it is nearly 0 at one
            # end. F is convex or concave in a panel, except around the mode, where clamping is
            # enough.
            density = (self.log_kernel(self.edges) - self.peak).exp() / total
            first, last = (density.gather(0, i) for i in (panel, panel + 1))
            share = (uniform - below) / (above - below)
            slope = (first.square() + share * (last.square() - first.square())).sqrt()
            linear = share * (first + last) / (first + slope)
            height = (above - below) / (right - left)
            rise = share ** (height / last)
            fall = 1.0 - (1.0 - share).clamp_min(0.0) ** (height / first)
            position = torch.where(first < 0.01 * last, rise, linear)
            position = torch.where(last < 0.01 * first, fall, position)
            r = left + (right - left) * position
            for _ in range(NEWTON_STEPS):
                r = newton_step(r).clamp(left, right)
        return newton_step(r).reshape((*sample_shape, *shape[1:]))


def _leading(values: Tensor, like: Tensor) -> Tensor:
    """Return values ``(n,)`` as ``(n, 1, ...)``, with one dimension more than ``like``."""
    return values.reshape(-1, *[1] * like.dim())
