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

    The pseudo-inputs :math:`u_k` are mapped into the range of the data if it is bounded. In a
    conditional model each pseudo-input has a learned condition of its own.

    Use it if the prior limits the likelihood of a VAE. It gives higher likelihoods, and samples
    close to the data (`VampSampler`). The cost is K more inputs to encode at every step.

    Args:
        num_pseudo_inputs: number K of components.
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.
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
        """Return the pseudo-inputs in the range of the data, ``(K, *input_shape)``."""
        return self.observation_model.squashed(self.raw_pseudo_inputs)

    def pseudo_conditions(self) -> Tensor | None:
        """Return their conditions, ``(K, condition_dim)``: class shares or vectors; or None."""
        raw = self.raw_pseudo_conditions
        return raw if raw is None or isinstance(self.conditions, tuple) else raw.softmax(-1)

    def prior(self, y: Extra = None) -> NormalMixture:
        """Return the mixture over ``(latent_dim,)``; it does not depend on y."""
        components = self.posterior(self.pseudo_inputs(), self.pseudo_conditions())
        normals = as_family(components, Gaussian)
        return NormalMixture(normals.mean, normals.factor)
