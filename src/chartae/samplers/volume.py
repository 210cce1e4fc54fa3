"""Latents from the uniform distribution on a manifold, by Hamiltonian Monte Carlo."""

from typing import ClassVar, Unpack

import torch
from torch import Tensor

from chartae.checks import check_integer, check_number
from chartae.geometry import Chain, ManifoldDensity, NeighbourMetric, PosteriorMetric, hmc
from chartae.models import Autoencoder
from chartae.samplers.manifold import ChainSampler, ManifoldOptions

__all__ = ["VolumeSampler"]


class VolumeSampler(ChainSampler):
    r"""Draw latents uniformly from the manifold of a model, by HMC (thesis eq. 1.8, Alg. 5).

    The target is that of `ManifoldSampler`, high where the data are;
    :math:`S = \{\|z\| \le 2 \max_i \|c_i\|\}` is a wall that no chain leaves. Chains run
    ``num_steps`` steps after an adaptation of the step size.

    Args:
        model: a trained model with a metric (`RHVAE`), which needs no `fit`, or with a Gaussian
            posterior, which does.
        num_steps: steps of each chain after adaptation.
        num_leapfrog: leapfrog steps of each step.
        step_size: fixed step size; None adapts it.
        num_warmup: steps of adaptation.
        options: ``geometry``, ``num_centroids``, ``selection``, ``rho``, ``regularization`` and
            ``max_chains``, as in `ManifoldSampler`.

    Raises:
        ConfigurationError: if the model has no such metric, or an argument is out of range.

    >>> import chartae
    >>> from chartae.data import digits
    >>> model = chartae.VAE((8, 8), latent_dim=2)
    >>> sampler = VolumeSampler(model, num_steps=5, num_centroids=50).fit(digits().x)
    >>> sampler.sample(3, seed=0).shape
    torch.Size([3, 8, 8])
    """

    remedy: ClassVar[str] = "lower step_size or raise num_warmup"
    least_acceptance: ClassVar[float] = 0.5

    def __init__(
        self,
        model: Autoencoder,
        num_steps: int = 200,
        num_leapfrog: int = 10,
        step_size: float | None = None,
        num_warmup: int = 50,
        **options: Unpack[ManifoldOptions],
    ) -> None:
        check_integer("num_steps", num_steps, minimum=1)
        check_integer("num_leapfrog", num_leapfrog, minimum=1)
        check_integer("num_warmup", num_warmup, minimum=0)
        if step_size is not None:
            check_number("step_size", step_size, above=0.0)
        super().__init__(model, **options)
        self.num_steps, self.num_leapfrog = num_steps, num_leapfrog
        self.step_size, self.num_warmup = step_size, num_warmup

    def run(self, density: ManifoldDensity, start: Tensor, generator: torch.Generator) -> Chain:
        if isinstance(density.metric, PosteriorMetric):  # very many centroids are thinned out
            density = ManifoldDensity(NeighbourMetric(density.metric), density.radius)
        return hmc(
            density,
            start,
            num_steps=self.num_steps,
            num_leapfrog=self.num_leapfrog,
            step_size=self.step_size,
            num_warmup=self.num_warmup,
            generator=generator,
        )
