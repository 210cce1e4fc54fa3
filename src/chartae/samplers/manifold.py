"""The base of the samplers of a latent manifold: metric, starting points and diagnostics."""

import logging
import math
from abc import abstractmethod
from typing import Any, ClassVar, Literal, Self, TypedDict

import torch
from torch import Tensor

from chartae.checks import Count, Positive
from chartae.data.arrays import takes_arrays
from chartae.distributions import FullNormal, Gaussian, LowRankNormal, NormalMixture
from chartae.errors import ConfigurationError
from chartae.geometry import (
    Chain,
    Jumps,
    ManifoldDensity,
    Metric,
    PosteriorMetric,
    Reach,
    Selection,
)
from chartae.geometry.metrics.posterior import posterior_bumps
from chartae.models import Autoencoder
from chartae.randomness import make_generator, seeded
from chartae.samplers.base import Sampler, check_training_set

__all__ = ["ChainSampler", "ManifoldOptions", "ManifoldSampler", "MetricSource"]

logger = logging.getLogger(__name__)

MetricSource = Literal["auto", "model", "posterior"]


class ManifoldOptions(TypedDict, total=False):
    """The arguments that every `ManifoldSampler` shares."""

    geometry: MetricSource
    num_centroids: int | None
    selection: Selection
    rho: float | Reach
    regularization: float
    max_chains: int


class ManifoldSampler(Sampler):
    r"""Base of the samplers of a latent manifold.

    The uniform distribution on it is the `ManifoldDensity` of a metric. The density is
    :math:`1/\sqrt{\det G}` for the metric of an RHVAE and :math:`\sqrt{\det G}` for that of a
    vanilla VAE's posteriors; the metric's class determines which.
    A subclass defines how latents are drawn from it.

    Args:
        model: a trained model that has a metric (`RHVAE`), or a Gaussian posterior.
        geometry: ``"model"`` takes the model's own metric, and there is nothing to fit.
            ``"posterior"`` takes the `PosteriorMetric` (thesis chapter 3), which `fit` computes
            from the training set with the arguments below. ``"auto"`` takes the model's metric if
            it has one, otherwise the posterior metric.
        num_centroids: largest number of posteriors in the metric; None keeps all.
        selection: how these posteriors are chosen: ``"k-medoids"`` or ``"random"``.
        rho: reach of a centroid, a number or a rule, as in `PosteriorMetric`. The default keeps the
            bumps of the density apart: where bumps overlap in many dimensions, the volume grows so
            much that all latents would gather where codes are densest (``docs/sampling.md``). A
            subclass may have other defaults for ``rho`` and ``num_centroids``.
        regularization: :math:`\lambda` > 0, the metric far from all centroids.
        max_chains: largest number of chains run at once; more latents are drawn in blocks.

    Raises:
        ConfigurationError: if the model has no such metric, or an argument is out of range.
    """

    fitted_buffers: ClassVar[tuple[str, ...]] = ("means", "variances", "fitted_rho")
    means: Tensor
    variances: Tensor
    fitted_rho: Tensor

    def __init__(
        self,
        model: Autoencoder,
        *,
        geometry: MetricSource = "auto",
        num_centroids: Count | None = 1000,
        selection: Selection = "k-medoids",
        rho: Positive | Reach = "isolated",
        regularization: Positive = 1e-2,
        max_chains: Count = 1000,
    ) -> None:
        super().__init__(model)
        own = _has_metric(model)
        if geometry == "model" and not own:
            raise ConfigurationError(
                f"geometry='model': {type(model).__name__} has no metric; expected an RHVAE"
            )
        self.uses_model_metric = own and geometry != "posterior"
        self.geometry, self.num_centroids, self.selection = geometry, num_centroids, selection
        self.rho, self.regularization, self.max_chains = rho, regularization, max_chains
        # `load` requires these shapes; only the first dimension may grow.
        self.means = self.means.reshape(0, model.latent_dim)
        family, d = model.posterior_family, model.latent_dim
        full = family is not None and issubclass(family, (FullNormal, LowRankNormal))
        self.variances = self.variances.reshape((0, d, d) if full else (0, d))

    @classmethod
    def unsupported_reason(cls, model: Autoencoder) -> str | None:
        if reason := super().unsupported_reason(model):
            return reason
        family = model.posterior_family
        if _has_metric(model) or (family is not None and issubclass(family, Gaussian)):
            return None
        lacks = "posterior" if family is None else "Gaussian posterior"
        return f"it has neither a metric nor a {lacks}"

    @takes_arrays("x", "y", "mask")
    def fit(
        self, x: Tensor | None = None, y: Tensor | None = None, mask: Tensor | None = None
    ) -> Self:
        """Compute the metric of the posteriors of the training set ``x``, ``(N, *input_shape)``.

        With the model's own metric x is not needed, and `fit` only checks that the model is
        trained. In a model with conditions ``y`` the posteriors are q(z|x, y), and one metric
        serves all conditions.

        Raises:
            ConfigurationError: if a model with a metric of its own has not been trained.
            DataError: if x is needed and is not a tensor that the model accepts, or if y is not its
                conditions.
        """
        if self.uses_model_metric:
            self.check_fitted()
            return self
        model: Any = self.model
        x, y = check_training_set(self, x, y, mask)
        with seeded(0):
            metric = PosteriorMetric.from_model(
                model,
                x,
                y,
                num_centroids=min(self.num_centroids or len(x), len(x)),
                selection=self.selection,
                rho=self.rho,
                regularization=self.regularization,
            )
        self.means, self.variances = metric.means, metric.variances
        self.fitted_rho = metric.means.new_tensor([metric.rho])
        return self

    @property
    def needs_data(self) -> bool:
        return not self.uses_model_metric

    def check_fitted(self) -> None:
        if self.uses_model_metric:
            _ = self.metric  # raises if the model is not trained
        else:
            super().check_fitted()

    def check_buffers(self) -> None:
        super().check_buffers()
        if len(self.means):
            _ = self.metric  # checks its buffers

    @property
    def metric(self) -> Metric:
        """The metric whose manifold is sampled.

        Raises:
            ConfigurationError: if the sampler, or the model, has not been fitted.
        """
        model: Any = self.model
        if self.uses_model_metric:
            metric: Metric = model.metric
            return metric
        self.check_fitted()
        return PosteriorMetric(
            self.means, self.variances, float(self.fitted_rho), self.regularization
        )

    @property
    def bumps(self) -> NormalMixture | None:
        """The component of the density for each centroid: `Metric.bumps`, without the metric.

        Raises:
            ConfigurationError: as in `metric`.
        """
        if self.uses_model_metric:
            return self.metric.bumps
        self.check_fitted()
        return posterior_bumps(self.means, self.variances, float(self.fitted_rho))


class ChainSampler(ManifoldSampler):
    """Base of the manifold samplers whose latents are the final states of chains, one each.

    A subclass defines the chains: `run`. If the chains keep the manifold's density as their
    stationary law, they may make jumps as well, and start from draws that have nearly that law.
    Other chains start from randomly drawn codes.

    Attributes:
        diagnostics: the `Chain` of the last block of the last draw, with its acceptance and
            divergences.
    """

    diagnostics: Chain | None = None
    least_acceptance: ClassVar[float]
    """A warning is given if the share of accepted steps is below this value."""
    remedy: ClassVar[str]
    """What the warning recommends."""

    @abstractmethod
    def run(
        self,
        density: ManifoldDensity,
        start: Tensor,
        jumps: Jumps | None,
        generator: torch.Generator,
    ) -> Chain:
        """Return chains that explore the density from the starting points ``(chains, d)``."""

    @property
    def keeps_density(self) -> bool:
        """Whether the stationary law of the chains is the manifold's density."""
        return True

    def draw_latents(self, n: int, seed: int, y: Tensor | None = None) -> Tensor:
        metric: Any = self.metric
        density, device, name = ManifoldDensity(metric), self.device, type(self).__name__
        jumps, starts = None, metric.landmarks
        if not len(starts):
            starts = torch.zeros(1, metric.dim, device=device)
        if self.keeps_density and metric.bumps is not None:
            generator = make_generator(seed, name, "jumps", device=device)
            proposal = _with_rest(metric.bumps, density.radius)
            jumps, starts = Jumps.adapted(density.log_prob, proposal, generator)
        blocks = []
        for done in range(0, n, self.max_chains):
            chains = min(self.max_chains, n - done)
            generator = make_generator(seed, name, done, device=device)
            start = torch.randint(len(starts), (chains,), generator=generator, device=device)
            chain = self.run(density, starts[start], jumps, generator)
            blocks.append(chain.final)
            self.diagnostics = chain
        self._warn(chain)
        return torch.cat(blocks)

    def _warn(self, chain: Chain) -> None:
        name = type(self).__name__
        acceptance, diverged = float(chain.acceptance.mean()), int((chain.divergences > 0).sum())
        if acceptance < self.least_acceptance:
            logger.warning(
                "%s accepted %.0f %% of its steps; %s", name, 100.0 * acceptance, self.remedy
            )
        if diverged:
            logger.warning("%d of %d chains had divergent steps", diverged, len(chain.acceptance))
        if self.keeps_density and not chain.has_mixed:
            logger.warning(
                "%s's chains have not mixed (R-hat %.2f): its latents do not yet follow the "
                "density; raise num_steps",
                name,
                float(chain.r_hat.max()),
            )


def _with_rest(bumps: NormalMixture, radius: float) -> NormalMixture:
    """Return the mixture with one more component, as wide as S, for the space between bumps."""
    wide = torch.full_like(bumps.loc[0], radius / math.sqrt(bumps.loc.shape[-1]))
    scale = wide if bumps.scale.dim() == 2 else torch.diag(wide)
    loc = torch.cat([bumps.loc, torch.zeros_like(bumps.loc[:1])])
    return NormalMixture(loc, torch.cat([bumps.scale, scale[None]]))


def _has_metric(model: Autoencoder) -> bool:
    return hasattr(type(model), "metric")
