"""Latents from a random walk along the geodesics of a manifold."""

from typing import ClassVar, Unpack

import torch
from torch import Tensor

from chartae.checks import Count, Natural, Positive
from chartae.errors import ConfigurationError
from chartae.geometry import Chain, Jumps, ManifoldDensity, random_walk
from chartae.models import Autoencoder
from chartae.samplers.manifold import ChainSampler, ManifoldOptions

__all__ = ["RandomWalkSampler"]


class RandomWalkSampler(ChainSampler):
    r"""Draw latents by a Riemannian random walk (thesis chapter 2, Algorithm 3).

    Each step proposes a point on a geodesic with a random velocity, and accepts or rejects it: see
    `random_walk`. As published, the stationary law of the walk is close to that of `VolumeSampler`,
    but not equal to it. With ``exact`` it is equal, and a step costs several times more. As
    published, the walk seldom leaves the neighbourhood of its starting code; the exact walk makes
    jumps as well.

    Args:
        model: a trained model with a metric (`RHVAE`), which needs no `fit`, or with a Gaussian
            posterior, which needs it.
        num_steps: number of steps of each chain (thesis: 200).
        scale: fixed standard deviation of each coordinate of a velocity; None adapts it.
        exact: True for a Metropolis-Hastings acceptance, False for the acceptance as published.
        num_integration_steps: number of integration steps of each geodesic.
        num_warmup: number of adaptation steps.
        whitened: True if velocities of an exact walk have the covariance scale^2 G^-1(z), so that a
            step has the same Riemannian length everywhere; False for scale^2 I.
        options: ``geometry``, ``num_centroids``, ``selection``, ``rho``, ``regularization`` and
            ``max_chains``, as in `ManifoldSampler`.

    Raises:
        ConfigurationError: if the model has no such metric, or an argument is out of range.
    """

    remedy: ClassVar[str] = "lower scale or raise num_warmup"
    least_acceptance: ClassVar[float] = 0.1

    def __init__(
        self,
        model: Autoencoder,
        num_steps: Count = 200,
        scale: Positive | None = None,
        exact: bool = False,
        num_integration_steps: Count = 10,
        num_warmup: Natural = 50,
        whitened: bool = False,
        **options: Unpack[ManifoldOptions],
    ) -> None:
        if whitened and not exact:
            raise ConfigurationError("whitened=True: expected exact=True too")
        super().__init__(model, **options)
        self.num_steps, self.scale, self.exact = num_steps, scale, exact
        self.num_integration_steps, self.num_warmup = num_integration_steps, num_warmup
        self.whitened = whitened

    @property
    def keeps_density(self) -> bool:
        return self.exact

    def run(
        self,
        density: ManifoldDensity,
        start: Tensor,
        jumps: Jumps | None,
        generator: torch.Generator,
    ) -> Chain:
        return random_walk(
            density.metric,
            start,
            num_steps=self.num_steps,
            covariance=1.0 if self.scale is None else self.scale**2,
            exact=self.exact,
            whitened=self.whitened,
            num_integration_steps=self.num_integration_steps,
            num_warmup=self.num_warmup if self.scale is None else 0,
            radius=density.radius,
            jumps=jumps,
            generator=generator,
        )
