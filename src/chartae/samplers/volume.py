"""Latents from the Riemannian uniform distribution of a model's own metric."""

import logging
from typing import Self

import torch
from torch import Tensor

from chartae.checks import check_integer, check_number
from chartae.errors import ConfigurationError
from chartae.geometry import CentroidMetric, Chain, hmc
from chartae.models import Autoencoder
from chartae.randomness import make_generator
from chartae.samplers.base import Sampler

__all__ = ["VolumeSampler"]

logger = logging.getLogger(__name__)


class VolumeSampler(Sampler):
    r"""Draw latents from :math:`p(z) \propto 1_S(z) \sqrt{\det G^{-1}(z)}` by HMC (thesis eq. 1.8).

    The density is high where the learned metric has data, and
    :math:`S = \{\|z\| \le 2 \max_i \|c_i\|\}` is a wall that no chain leaves. One chain gives one
    latent: chains start at centroids drawn at random and run ``num_steps`` steps after an
    adaptation of the step size. There is nothing to fit.

    Args:
        model: a trained model with a metric (`RHVAE`).
        num_steps: steps of each chain after adaptation.
        num_leapfrog: leapfrog steps of each step.
        step_size: fixed step size; None adapts it.
        num_warmup: steps of adaptation.
        max_chains: chains run at once; more latents are drawn in blocks.

    Attributes:
        diagnostics: the `Chain` of the last draw's last block, with its acceptance and divergences.

    Raises:
        ConfigurationError: if the model has no metric, or an argument is out of range.
    """

    diagnostics: Chain | None = None

    def __init__(
        self,
        model: Autoencoder,
        num_steps: int = 200,
        num_leapfrog: int = 10,
        step_size: float | None = None,
        num_warmup: int = 50,
        max_chains: int = 1000,
    ) -> None:
        check_integer("num_steps", num_steps, minimum=1)
        check_integer("num_leapfrog", num_leapfrog, minimum=1)
        check_integer("num_warmup", num_warmup, minimum=0)
        check_integer("max_chains", max_chains, minimum=1)
        if step_size is not None:
            check_number("step_size", step_size, above=0.0)
        super().__init__(model)
        if not hasattr(type(model), "metric"):
            raise ConfigurationError(
                f"{type(model).__name__} has no metric: VolumeSampler expects an RHVAE"
            )
        self.num_steps, self.num_leapfrog = num_steps, num_leapfrog
        self.step_size, self.num_warmup = step_size, num_warmup
        self.max_chains = max_chains

    def fit(self, x: Tensor | None = None) -> Self:
        """Check that the model has been trained; nothing else is learned."""
        self._metric()
        return self

    def _metric(self) -> CentroidMetric:
        """Return the metric of the model, or raise if it has not been trained."""
        metric: CentroidMetric = getattr(self.model, "metric")  # noqa: B009
        return metric

    def draw_latents(self, n: int, seed: int) -> Tensor:
        metric = self._metric()
        centroids = metric.centroids
        wall = 2.0 * centroids.norm(dim=-1).max()

        def log_density_and_grad(z: Tensor) -> tuple[Tensor, Tensor]:
            local = metric.at(z)
            inside = z.norm(dim=-1) <= wall
            log_density = torch.where(inside, -local.log_volume, -torch.inf)
            return log_density, -local.log_volume_grad()

        blocks = []
        for done in range(0, n, self.max_chains):
            chains = min(self.max_chains, n - done)
            generator = make_generator(seed, "volume", done, device=centroids.device)
            start = torch.randint(
                len(centroids), (chains,), generator=generator, device=centroids.device
            )
            chain = hmc(
                log_density_and_grad,
                centroids[start],
                num_steps=self.num_steps,
                num_leapfrog=self.num_leapfrog,
                step_size=self.step_size,
                num_warmup=self.num_warmup,
                generator=generator,
            )
            blocks.append(chain.final)
            self._diagnose(chain)
        return torch.cat(blocks)

    def _diagnose(self, chain: Chain) -> None:
        self.diagnostics = chain
        acceptance, diverged = float(chain.acceptance.mean()), int((chain.divergences > 0).sum())
        if acceptance < 0.5:
            logger.warning(
                "VolumeSampler accepted %.0f %% of its steps: its latents may stay near their "
                "starting codes; lower step_size or raise num_warmup",
                100.0 * acceptance,
            )
        if diverged:
            logger.warning("%d of %d chains diverged at times", diverged, len(chain.acceptance))
        if (r_hat := float(chain.r_hat.max())) > 1.2:
            logger.warning(
                "VolumeSampler's chains have not mixed (R-hat %.2f): its latents keep the "
                "proportions of the codes they started from; raise num_steps, or the model's "
                "temperature",
                r_hat,
            )
