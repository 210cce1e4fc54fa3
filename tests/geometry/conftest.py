"""Manifolds whose geodesics are known, as oracles."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from chartae.geometry import (
    CentroidMetric,
    ConformalMetric,
    ConstantMetric,
    PoincareMetric,
    PosteriorMetric,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Stereographic:
    """Constant curvature K in stereographic coordinates, G = (2 / (1 + K |z|^2))^2 I.

    A sphere for K > 0, the Poincare ball for K < 0; formulas of Ungar's gyrovectors.
    """

    curvature: float
    dim: int

    @property
    def metric(self):
        k = self.curvature
        potential = lambda z: math.log(2) - torch.log(1 + k * z.square().sum(-1))  # noqa: E731
        return ConformalMetric(potential, self.dim)

    def points(self, n, seed=0, dtype=torch.float64):
        # Well inside the ball, or within a quarter of the sphere: geodesics are unique.
        radius = 0.8 / abs(self.curvature) ** 0.5
        directions = torch.randn(n, self.dim, generator=generator(seed), dtype=torch.float64)
        lengths = radius * torch.rand(n, 1, generator=generator(seed + 1), dtype=torch.float64)
        return (directions / directions.norm(dim=-1, keepdim=True) * lengths).to(dtype)

    def _add(self, x, y):
        k, xy = self.curvature, (x * y).sum(-1, keepdim=True)
        xx, yy = x.square().sum(-1, keepdim=True), y.square().sum(-1, keepdim=True)
        top = (1 - 2 * k * xy - k * yy) * x + (1 + k * xx) * y
        return top / (1 - 2 * k * xy + k**2 * xx * yy)

    def _factor(self, x):
        return 2 / (1 + self.curvature * x.square().sum(-1, keepdim=True))

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        root = abs(self.curvature) ** 0.5
        norm = self._add(-x, y).norm(dim=-1)
        return 2 / root * (torch.atan if self.curvature > 0 else torch.atanh)(root * norm)

    def exponential(self, x: Tensor, v: Tensor) -> Tensor:
        root = abs(self.curvature) ** 0.5
        norm = v.norm(dim=-1, keepdim=True)
        tangent = torch.tan if self.curvature > 0 else torch.tanh
        return self._add(x, tangent(root * self._factor(x) * norm / 2) / root * v / norm)

    def logarithm(self, x: Tensor, y: Tensor) -> Tensor:
        way = self._add(-x, y)
        lengths = self.distance(x, y)[..., None] / self._factor(x)
        return lengths * way / way.norm(dim=-1, keepdim=True)


@dataclass(frozen=True)
class Flat:
    """A constant metric."""

    matrix: Tensor

    @property
    def metric(self):
        return ConstantMetric(self.matrix)

    def points(self, n, seed=0, dtype=torch.float64):
        return torch.randn(n, len(self.matrix), generator=generator(seed), dtype=dtype)

    def distance(self, x, y):
        return ((y - x) @ self.matrix.to(x) * (y - x)).sum(-1).sqrt()

    def exponential(self, x, v):
        return x + v

    def logarithm(self, x, y):
        return y - x


MANIFOLDS = {
    "flat": Flat(torch.tensor([[4.0, 1.0], [1.0, 2.0]], dtype=torch.float64)),
    "sphere": Stereographic(1.0, 2),
    "sphere in 3 dimensions, curvature 0.4": Stereographic(0.4, 3),
    "ball": Stereographic(-1.0, 2),
    "ball in 4 dimensions, curvature -2.5": Stereographic(-2.5, 4),
}


@pytest.fixture(params=MANIFOLDS)
def manifold(request):
    """A manifold with closed forms: metric, points, distance, exponential, logarithm."""
    return MANIFOLDS[request.param]


def centroid_metric(d=2, n=6, dtype=torch.float64):
    centroids = torch.randn(n, d, generator=generator(1), dtype=dtype)
    factors = torch.randn(n, d, d, generator=generator(2), dtype=dtype) / d**0.5
    matrices = factors @ factors.mT + 0.3 * torch.eye(d, dtype=dtype)
    return CentroidMetric(centroids, matrices, 1.2, 0.1)


def posterior_metric(d=2, n=6, dtype=torch.float64):
    means = torch.randn(n, d, generator=generator(1), dtype=dtype)
    variances = 0.2 + torch.rand(n, d, generator=generator(2), dtype=dtype)
    return PosteriorMetric(means, variances, rho=1.0, regularization=0.3)


@pytest.fixture(params=["centroid", "posterior"])
def learned_metric(request):
    """A function from a dimension to a metric around data."""
    return {"centroid": centroid_metric, "posterior": posterior_metric}[request.param]


class Ball(PoincareMetric):
    """The hyperbolic ball, whose geodesics the solvers have to find for themselves."""

    closed_form = None
