"""The Riemannian Hamiltonian variational autoencoder, which learns a metric of its latent space."""

import math
from collections.abc import Iterable
from typing import ClassVar, Unpack

import torch
from torch import Tensor

from chartae.checks import check_integer, check_number
from chartae.errors import ConfigurationError
from chartae.geometry import CentroidMetric
from chartae.models.base import Networks
from chartae.models.hvae import HVAE
from chartae.nn import MetricNetwork, NetworkSpec

__all__ = ["RHVAE"]


class RHVAE(HVAE):
    r"""Geometry-aware VAE (Chadebec et al., 2020; thesis chapter 1).

    The Hamiltonian flow of the `HVAE` on a Riemannian latent space, whose inverse metric is learned:

    .. math:: G^{-1}(z) = \sum_i w_i(z) M_i + \lambda I, \quad w_i(z) = e^{-\|z - c_i\|^2 / T^2}

    with centroids :math:`c_i = \mu(x_i)` and matrices :math:`M_i` from a `MetricNetwork`. Momenta
    come from N(0, G(z_0)), and the generalised leapfrog is implicit (MATH.md section 3). During
    training the centroids are the batch's; when it ends, the whole training set fixes them, in
    the buffers ``centroids`` and ``matrices``.

    Args:
        input_shape: shape of one observation.
        latent_dim: size d of the latent space.
        temperature: T, a length in the latent space.
        regularization: :math:`\lambda`, the inverse metric far from all centroids.
        metric_network: body of the metric network, an encoder specification.
        fixed_point_steps: iterations for each implicit line of the leapfrog.
        num_leapfrog: number K of leapfrog steps.
        step_size: their size.
        sqrt_beta_0: start of the tempering, as in `HVAE`.
        networks: ``encoder``, ``decoder`` and ``likelihood``, as in `Autoencoder`.
    """

    fitted_buffers: ClassVar[tuple[str, ...]] = ("centroids", "matrices")
    centroids: Tensor
    matrices: Tensor

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        temperature: float = 1.5,
        regularization: float = 1e-3,
        metric_network: NetworkSpec = "thesis/mnist",
        fixed_point_steps: int = 3,
        num_leapfrog: int = 3,
        step_size: float = 0.01,
        sqrt_beta_0: float = 0.3,
        **networks: Unpack[Networks],
    ) -> None:
        check_number("temperature", temperature, above=0.0)
        check_number("regularization", regularization, above=0.0)
        check_integer("fixed_point_steps", fixed_point_steps, minimum=1)
        super().__init__(
            input_shape,
            latent_dim,
            num_leapfrog=num_leapfrog,
            step_size=step_size,
            sqrt_beta_0=sqrt_beta_0,
            **networks,
        )
        self.temperature, self.regularization = temperature, regularization
        self.fixed_point_steps = fixed_point_steps
        self.specifications["metric_network"] = metric_network
        self.metric_network = MetricNetwork(metric_network, self.input_shape, latent_dim)
        self.on_fit_start()

    @property
    def metric(self) -> CentroidMetric:
        """The metric that the training set fixed.

        Raises:
            ConfigurationError: before training, when no metric is fixed yet.
        """
        if not len(self.centroids):
            raise ConfigurationError(
                "this RHVAE has no metric yet: train it with chartae.fit first"
            )
        return self._make_metric(self.centroids, self.matrices)

    def on_fit_start(self) -> None:
        """Forget the metric of an earlier training set."""
        d = self.latent_dim
        options = {"dtype": self.dtype, "device": self.device}
        self.register_buffer("centroids", torch.zeros(0, d, **options))
        self.register_buffer("matrices", torch.zeros(0, d, d, **options))

    @torch.no_grad()
    def on_fit_end(self, batches: Iterable[Tensor]) -> None:
        """Fix the centroids and matrices of the whole training set."""
        pieces = [(self.embed(x), self.metric_network(x)) for x in batches]
        self.centroids = torch.cat([centroid for centroid, _ in pieces])
        self.matrices = torch.cat([matrix for _, matrix in pieces])

    def _make_metric(self, centroids: Tensor, matrices: Tensor) -> CentroidMetric:
        return CentroidMetric(centroids, matrices, self.temperature, self.regularization)

    def _metric_of(self, x: Tensor, means: Tensor) -> CentroidMetric:
        """Return the fixed metric, or the batch's own while training."""
        if len(self.centroids) and not self.training:
            return self.metric
        return self._make_metric(means, self.metric_network(x))

    def flow_on(
        self,
        metric: CentroidMetric,
        x: Tensor,
        z: Tensor,
        momentum: Tensor,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return (z_K, v_K) from z_0 and the untempered momentum, all ``(..., batch, d)``."""
        eps, roots = self.step_size, self.tempering()
        momentum = momentum / roots[0]
        local, grad = metric.at(z), self.log_joint_grad(x, z, mask)
        for before, after in zip(roots[:-1], roots[1:], strict=True):
            force = grad - local.log_volume_grad()
            half = momentum
            for _ in range(self.fixed_point_steps):
                half = momentum + 0.5 * eps * (force - local.kinetic_grad(half))
            start = z + 0.5 * eps * local.velocity(half)
            z = start + 0.5 * eps * local.velocity(half)
            for _ in range(self.fixed_point_steps):
                z = start + 0.5 * eps * metric.at(z).velocity(half)
            local, grad = metric.at(z), self.log_joint_grad(x, z, mask)
            force = grad - local.log_volume_grad() - local.kinetic_grad(half)
            momentum = (half + 0.5 * eps * force) * (before / after)
        return z, momentum

    def log_weight_terms(
        self, x: Tensor, num_samples: int = 1, *, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return log p(x|z_K), and the rest of the log weight."""
        posterior = self.posterior(x)
        metric = self._metric_of(x, posterior.mean)
        z0, log_q = posterior.rsample_and_log_prob((num_samples,))
        start = metric.at(z0)
        noise = torch.randn_like(z0)[..., None]
        gamma = torch.linalg.solve_triangular(start.cholesky.mT, noise, upper=True)[..., 0]
        z, momentum = self.flow_on(metric, x, z0, gamma, mask)
        fit = self.likelihood(z).log_prob(x, mask)
        divergence = self.prior().log_prob(z) - log_q
        divergence = (
            divergence + _log_momentum(metric, z, momentum) - _log_momentum(metric, z0, gamma)
        )
        return fit, divergence


def _log_momentum(metric: CentroidMetric, z: Tensor, momentum: Tensor) -> Tensor:
    """Return log N(momentum; 0, G(z))."""
    local = metric.at(z)
    constant = 0.5 * z.shape[-1] * math.log(2.0 * math.pi)
    return -local.kinetic(momentum) - local.log_volume - constant
