"""The Riemannian Hamiltonian variational autoencoder, with a metric on its latent space."""

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor

from chartae.checks import Count, Positive
from chartae.distributions import Gaussian, as_family, joined
from chartae.errors import ConfigurationError
from chartae.geometry import (
    CentroidMetric,
    Local,
    Metric,
    PosteriorMetric,
    mean_overlap,
    posterior_reach,
    scott_temperature,
)
from chartae.models.hvae import HVAE
from chartae.models.losses import Extra
from chartae.models.trainable import Batch
from chartae.models.variational import GaussianNetworks
from chartae.nn import MetricNetwork, NetworkSpec

__all__ = ["RHVAE"]

Geometry = Literal["learned", "posterior"]


class RHVAE(HVAE):
    r"""Geometry-aware VAE (Chadebec et al., 2020; thesis chapter 1).

    It is an `HVAE` whose latent space has a Riemannian metric. The inverse metric is learned:

    .. math:: G^{-1}(z) = \sum_i w_i(z) M_i + \lambda I, \quad w_i(z) = e^{-\|z - c_i\|^2 / T^2}

    with centroids :math:`c_i = \mu(x_i)`. A `MetricNetwork` gives matrices of determinant 1. The
    :math:`M_i` are these matrices divided by the mean sum of the weights :math:`w_i` at the
    centroids, so that the metric neither collapses nor explodes, for any number of centroids
    (``docs/rhvae.md``). Momenta are drawn from N(0, G(z_0)), and the generalised leapfrog is
    implicit (MATH.md section 3). During training the centroids are those of the batch. When
    training ends, the whole training set gives the centroids, in the buffers ``centroids`` and
    ``matrices``.

    With ``geometry="posterior"`` the metric is that of the posteriors (`PosteriorMetric`, thesis
    chapter 3 and its perspectives). It needs no network. The buffers are ``centroids`` and
    ``variances``, or the covariances of the posteriors if they have them.

    Use it for small data sets, and for its metric: samples from the metric's volume
    (`VolumeSampler`) stay close to the data. The flow alone improves the likelihood little.

    Args:
        input_shape: shape of one observation.
        latent_dim: size d of the latent space.
        geometry: ``"learned"`` or ``"posterior"``.
        temperature: T, a length in the latent space (thesis: 0.8 for d = 2, 1.5 for d = 10). None
            derives it from the spread of the posteriors (`scott_temperature`): an isolated bump of
            the volume is a Gaussian of standard deviation :math:`T / \sqrt d`, and Scott's rule
            gives its width.
        rho: reach of a posterior in units of its standard deviation, for the posterior metric; None
            derives it from the posteriors (`posterior_reach`).
        regularization: :math:`\lambda`. Far from all centroids it is the inverse of the learned
            metric, or the posterior metric itself. None takes 1e-3 for the learned metric. For the
            posterior metric None takes 0.1: velocities grow as :math:`\lambda^{-1/2}`, and soon
            become too large for the leapfrog.
        metric_network: body of the metric network, an encoder specification; not used with a
            posterior metric.
        fixed_point_steps: iterations for each implicit line of the leapfrog.
        num_leapfrog: number K of leapfrog steps.
        step_size: size of the leapfrog steps.
        sqrt_beta_0: start of the tempering, as in `HVAE`.
        learn_beta_0: whether training learns ``sqrt_beta_0``, as in `HVAE`.
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.
    """

    fitted_buffers: ClassVar[tuple[str, ...]] = ("centroids", "matrices", "variances")
    centroids: Tensor
    matrices: Tensor
    variances: Tensor
    fitted_temperature: Tensor
    fitted_rho: Tensor
    metric_network: MetricNetwork | None

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        geometry: Geometry = "learned",
        temperature: Positive | None = None,
        rho: Positive | None = None,
        regularization: Positive | None = None,
        metric_network: NetworkSpec = "thesis/mnist",
        fixed_point_steps: Count = 3,
        num_leapfrog: int = 3,
        step_size: float = 0.01,
        sqrt_beta_0: float = 0.3,
        learn_beta_0: bool = False,
        **networks: Unpack[GaussianNetworks],
    ) -> None:
        if regularization is None:
            regularization = 1e-3 if geometry == "learned" else 0.1
        super().__init__(
            input_shape,
            latent_dim,
            num_leapfrog=num_leapfrog,
            step_size=step_size,
            sqrt_beta_0=sqrt_beta_0,
            learn_beta_0=learn_beta_0,
            **networks,
        )
        self.geometry, self.temperature, self.rho = geometry, temperature, rho
        self.regularization, self.fixed_point_steps = regularization, fixed_point_steps
        self._kept: tuple[object, CentroidMetric | PosteriorMetric] | None = None
        self.metric_network = None
        if geometry == "learned":
            self.metric_network = MetricNetwork(metric_network, self.input_shape, latent_dim)
        self.on_fit_start(0)

    @property
    def metric(self) -> CentroidMetric | PosteriorMetric:
        """The metric of the training set; the same object as long as its buffers do not change.

        Raises:
            ConfigurationError: before training.
        """
        if not len(self.centroids):
            raise ConfigurationError(
                "this RHVAE has no metric yet: expected a model trained with chartae.fit"
            )
        posterior = self.geometry == "posterior"
        shapes = self.variances if posterior else self.matrices
        length = float(self.fitted_rho if posterior else self.fitted_temperature)
        buffers = [
            (id(t), -1 if t.is_inference() else t._version) for t in (self.centroids, shapes)
        ]
        state = (*buffers, length, self.regularization)
        # A cast of the metric replaces its buffers, and a cast of the model replaces the model's.
        kept = self._kept
        if kept is None or kept[0] != state or kept[1].centroids is not self.centroids:
            kind = PosteriorMetric if posterior else CentroidMetric
            metric = kind(self.centroids, shapes, length, self.regularization)
            self._kept = kept = state, metric
        return kept[1]

    def __getstate__(self) -> dict[str, Any]:
        # A copied model builds a metric from its own buffers.
        return {**vars(self), "_kept": None}

    def check_buffers(self) -> None:
        super().check_buffers()
        if len(self.centroids):
            _ = self.metric  # checks its buffers

    def on_fit_start(self, size: int) -> None:
        """Discard the metric of an earlier training set."""
        none = torch.zeros(0, self.latent_dim, dtype=self.dtype, device=self.device)
        unknown = torch.full_like(none.sum(), math.nan)
        self.register_buffer("centroids", none)
        no_matrices = none[..., None].expand(0, -1, self.latent_dim).clone()
        if self.geometry == "posterior":
            diagonal = self.posterior_covariance == "diagonal"
            self.register_buffer("variances", none.clone() if diagonal else no_matrices)
            self.register_buffer("fitted_rho", unknown)
        else:
            self.register_buffer("matrices", no_matrices)
            self.register_buffer("fitted_temperature", unknown)

    @torch.no_grad()
    def on_fit_end(self, batches: Iterable[Batch]) -> None:
        """Compute the metric of the whole training set."""
        pieces = [
            (
                self._gaussian(batch["x"], batch.get("y"), batch.get("mask")),
                self._shapes(batch["x"], batch.get("mask")),
            )
            for batch in batches
        ]
        metric = self._make_metric(
            joined([posterior for posterior, _ in pieces]),
            torch.cat([shapes for _, shapes in pieces]),
        )
        self.centroids = metric.centroids
        if isinstance(metric, PosteriorMetric):
            self.variances = metric.variances
            self.fitted_rho.fill_(metric.rho)
        else:
            self.matrices = metric.matrices
            self.fitted_temperature.fill_(metric.temperature)

    def _gaussian(self, x: Tensor, y: Extra, mask: Extra) -> Gaussian:
        return as_family(self.posterior(x, y, mask), Gaussian)

    def _shapes(self, x: Tensor, mask: Extra = None) -> Tensor:
        """Return the matrices of determinant 1 of x, ``(batch, d, d)``; None without a network."""
        if self.metric_network is None:
            return x.new_zeros(len(x), 0)
        shapes: Tensor = self.metric_network(self.network_input(x, mask))
        return shapes

    def _make_metric(self, posterior: Gaussian, shapes: Tensor) -> CentroidMetric | PosteriorMetric:
        """Return the metric around posteriors: learned if matrices are given, else posterior."""
        if self.geometry == "posterior":
            rho = self.rho or posterior_reach(posterior)
            return PosteriorMetric(
                posterior.mean, posterior.covariance, rho, self.regularization, validate=False
            )
        temperature = self.temperature or scott_temperature(posterior)
        centroids = posterior.mean
        matrices = shapes / mean_overlap(centroids, temperature)
        return CentroidMetric(centroids, matrices, temperature, self.regularization, validate=False)

    def _metric_of(self, x: Tensor, posterior: Gaussian, mask: Extra) -> Metric:
        """Return the metric of the training set or, during training, that of the batch."""
        if len(self.centroids) and not self.training:
            return self.metric
        return self._make_metric(posterior, self._shapes(x, mask))

    def flow(
        self, x: Tensor, z: Tensor, momentum: Tensor, *, y: Extra = None, mask: Extra = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return z_K, v_K and log p(x|z_K) with the model's metric; see `HVAE.flow`."""
        metric = self._metric_of(x, self._gaussian(x, y, mask), mask)
        end, momentum, fit = self.flow_on(metric, x, metric.at(z), momentum, y=y, mask=mask)
        return end.z, momentum, fit

    def flow_on(
        self,
        metric: Metric,
        x: Tensor,
        start: Local,
        momentum: Tensor,
        *,
        y: Extra = None,
        mask: Extra = None,
    ) -> tuple[Local, Tensor, Tensor]:
        """Return the metric at z_K, v_K and log p(x|z_K), from z_0 and the untempered momentum.

        Args:
            metric: the metric of the latent space.
            x: ``(batch, *input_shape)``.
            start: the metric at z_0 ``(..., batch, d)``.
            momentum: ``(..., batch, d)``.
            y: conditions of x, for a model that has them.
            mask: boolean, as x, True where a feature is observed.
        """
        half_step, roots = 0.5 * self.step_size, self.tempering()
        momentum = momentum / roots[0]
        local = start
        fit, grad = self.fit_and_grad(x, local.z, y=y, mask=mask)
        for before, after in pairwise(roots):
            force = grad - local.log_volume_grad()
            half = momentum
            for _ in range(self.fixed_point_steps):
                half = momentum + half_step * (force - local.kinetic_grad(half))
            shift = half_step * local.velocity(half)
            middle = local.z + shift
            z = middle + shift
            for _ in range(self.fixed_point_steps):
                z = middle + half_step * metric.at(z).velocity(half)
            local = metric.at(z)
            fit, grad = self.fit_and_grad(x, z, y=y, mask=mask)
            force = grad - local.log_volume_grad() - local.kinetic_grad(half)
            momentum = (half + half_step * force) * (before / after)
        return local, momentum, fit

    def log_weight_terms(
        self, x: Tensor, num_samples: int = 1, *, y: Extra = None, mask: Extra = None
    ) -> tuple[Tensor, Tensor]:
        """Return log p(x|z_K), and the rest of the log weight."""
        posterior = self._gaussian(x, y, mask)
        metric = self._metric_of(x, posterior, mask)
        z0, log_q = posterior.rsample_and_log_prob((num_samples,))
        start = metric.at(z0)
        gamma = start.draw_momentum(torch.randn_like(z0))
        end, momentum, fit = self.flow_on(metric, x, start, gamma, y=y, mask=mask)
        divergence = self.prior(y).log_prob(end.z) - log_q
        return fit, divergence + _log_momentum(end, momentum) - _log_momentum(start, gamma)


def _log_momentum(local: Local, momentum: Tensor) -> Tensor:
    """Return log N(momentum; 0, G(z)) up to a constant, from the metric at z."""
    return -local.kinetic(momentum) - local.log_volume
