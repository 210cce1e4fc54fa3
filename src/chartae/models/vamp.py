"""The variational autoencoder with a mixture of its own posteriors as prior."""

from typing import Unpack

import torch
from torch import Tensor, nn

from chartae.checks import Count
from chartae.distributions import Gaussian, NormalMixture, as_family
from chartae.models.losses import Extra
from chartae.models.variational import GaussianNetworks, VariationalAutoencoder

__all__ = ["VAMP"]


class VAMP(VariationalAutoencoder):
    r"""VAE with a VampPrior (Tomczak and Welling, 2018): posteriors of learned pseudo-inputs.

    .. math:: p(z) = \frac1K \sum_{k=1}^K q(z | u_k)

    The pseudo-inputs :math:`u_k` are squashed into the data's range where that is bounded. In a
    conditional model each has a learned condition of its own.

    Use it where the prior is what limits a VAE: higher likelihoods, and samples from where the
    data are (`VampSampler`), at the price of encoding K inputs more in every step.

    Args:
        num_pseudo_inputs: number K of components.
        networks: ``input_shape``, ``latent_dim`` and the others of `Autoencoder`.
    """

    prior_family = NormalMixture

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        num_pseudo_inputs: Count = 50,
        **networks: Unpack[GaussianNetworks],
    ) -> None:
        super().__init__(input_shape, latent_dim, **networks)
        self.num_pseudo_inputs = num_pseudo_inputs
        self.raw_pseudo_inputs = nn.Parameter(torch.randn(num_pseudo_inputs, *self.input_shape))
        self.raw_pseudo_conditions = None
        if self.condition_dim:
            raw = torch.randn(num_pseudo_inputs, self.condition_dim)
            self.raw_pseudo_conditions = nn.Parameter(raw)

    def pseudo_inputs(self) -> Tensor:
        """Return the pseudo-inputs, ``(K, *input_shape)``, in the range of the data."""
        return self.observation_model.squashed(self.raw_pseudo_inputs)

    def pseudo_conditions(self) -> Tensor | None:
        """Return their conditions, ``(K, condition_dim)``: shares of classes, or vectors."""
        raw = self.raw_pseudo_conditions
        return raw if raw is None or isinstance(self.conditions, tuple) else raw.softmax(-1)

    def prior(self, y: Extra = None) -> NormalMixture:
        """Return the mixture over ``(latent_dim,)``, whatever the conditions."""
        components = self.posterior(self.pseudo_inputs(), self.pseudo_conditions())
        normals = as_family(components, Gaussian)
        return NormalMixture(normals.mean, normals.factor)
