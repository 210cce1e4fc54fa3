"""Latents from a manifold, by its volume or by its codes."""

from typing import ClassVar, Literal, Unpack

import torch
from torch import Tensor

from chartae.checks import Count, Natural, Positive
from chartae.distributions import NormalMixture
from chartae.errors import ConfigurationError
from chartae.geometry import Chain, Jumps, ManifoldDensity, hmc
from chartae.models import Autoencoder
from chartae.randomness import make_generator
from chartae.samplers.manifold import ChainSampler, ManifoldOptions

__all__ = ["VolumeSampler"]

Target = Literal["volume", "codes"]


class VolumeSampler(ChainSampler):
    r"""Draw latents from the manifold of a model (thesis eq. 1.8, Alg. 5).

    There are two densities. Both are high near the data:

    * ``"volume"`` is the density of the thesis: uniform on the manifold, `ManifoldDensity`, inside
      the ball :math:`S = \{\|z\| \le 2 \max_i \|c_i\|\}`. Where m bumps overlap it is
      :math:`m^{d/2}` times higher, so in many dimensions latents gather where codes are densest.
    * ``"codes"`` gives each code the same mass. It is the mixture of the densities of the single
      centroids, widened, :math:`\frac1N \sum_i N(c_i, w^2 \Sigma_i)`, with
      :math:`\Sigma_i = \rho^2 \mathrm{diag}(\sigma_i^2)/d` for posteriors and
      :math:`T^2 I/d` for the metric of an RHVAE. It is the default, because its samples vary as
      much as the data, and those of the volume vary less (``docs/sampling.md``). The cost of a
      draw does not depend on N, so all posteriors are kept, and bumps may overlap. By default
      :math:`\Sigma_i` is the covariance of the posterior, or wider where codes are far apart.

    Both are sampled exactly. The mixture is drawn from directly. The volume is sampled by
    Hamiltonian Monte Carlo steps and `Jumps`, alternately: chains start from draws with nearly its
    law, trajectories explore a bump, and jumps move between bumps. A mixture with adapted weights
    proposes the jumps.

    Args:
        model: a trained model with a metric (`RHVAE`), which needs no `fit`, or with a Gaussian
            posterior, which needs it.
        num_steps: number of steps of each chain after adaptation.
        num_leapfrog: number of leapfrog steps in each step.
        step_size: fixed step size; None adapts it.
        num_warmup: number of adaptation steps.
        target: the density: ``"volume"`` or ``"codes"``.
        width: w > 0, for ``target="codes"``.
        options: ``geometry``, ``num_centroids``, ``selection``, ``rho``, ``regularization`` and
            ``max_chains``, as in `ManifoldSampler`. With ``target="codes"`` the default of
            ``num_centroids`` is None and that of ``rho`` is ``"posterior"``.

    Raises:
        ConfigurationError: if the model has no such metric, or an argument is out of range.

    >>> import chartae
    >>> from chartae.data import digits
    >>> model = chartae.VAE((8, 8), latent_dim=2)
    >>> sampler = VolumeSampler(model, target="volume", num_centroids=50).fit(digits().x)
    >>> sampler.sample(3, seed=0).shape
    torch.Size([3, 8, 8])
    """

    remedy: ClassVar[str] = "lower step_size or raise num_warmup"
    least_acceptance: ClassVar[float] = 0.5

    def __init__(
        self,
        model: Autoencoder,
        num_steps: Count = 30,
        num_leapfrog: Count = 3,
        step_size: Positive | None = None,
        num_warmup: Natural = 15,
        target: Target = "codes",
        width: Positive = 1.5,
        **options: Unpack[ManifoldOptions],
    ) -> None:
        if target == "codes":
            options = {"num_centroids": None, "rho": "posterior", **options}
        super().__init__(model, **options)
        self.target: Target = target
        self.width = width
        self.num_steps, self.num_leapfrog = num_steps, num_leapfrog
        self.step_size, self.num_warmup = step_size, num_warmup

    def draw_latents(self, n: int, seed: int, y: Tensor | None = None) -> Tensor:
        if self.target == "volume":
            return super().draw_latents(n, seed, y)
        bumps = self.bumps
        if bumps is None:
            name = type(self.metric).__name__
            raise ConfigurationError(
                f"target='codes': {name} has no bumps; expected target='volume'"
            )
        generator = make_generator(seed, "VolumeSampler", "codes", device=self.device)
        return NormalMixture(bumps.loc, self.width * bumps.scale).sample((n,), generator)

    def run(
        self,
        density: ManifoldDensity,
        start: Tensor,
        jumps: Jumps | None,
        generator: torch.Generator,
    ) -> Chain:
        # A leapfrog integrates stably with half the smallest standard deviation of a bump as its
        # step.
        narrow = 0.2 if jumps is None else float(jumps.proposal.narrowest.median())
        return hmc(
            density,
            start,
            num_steps=self.num_steps,
            num_leapfrog=self.num_leapfrog,
            step_size=self.step_size,
            num_warmup=self.num_warmup,
            first_step_size=0.5 * narrow,
            jumps=jumps,
            generator=generator,
        )
