"""Variational autoencoders whose posterior is a normalizing flow."""

from collections.abc import Sequence
from functools import partial
from typing import Unpack

import torch
from torch import Tensor, nn

from chartae.checks import Count, Natural
from chartae.distributions import (
    AutoregressiveFlow,
    FlowPosterior,
    Gaussian,
    PlanarFlow,
    Posterior,
    RadialFlow,
    as_family,
)
from chartae.errors import ConfigurationError
from chartae.models.losses import Extra
from chartae.models.variational import GaussianNetworks, VariationalAutoencoder

__all__ = ["IAFVAE", "PlanarFlowVAE"]

FLOWS = {"P": PlanarFlow, "R": RadialFlow}


class PlanarFlowVAE(VariationalAutoencoder):
    r"""VAE with a posterior of planar and radial flows (Rezende and Mohamed, 2015).

    .. math:: q(z_K|x) = q(z_0|x) \prod_k |\det \partial f_k / \partial z_{k-1}|^{-1}

    The flows are the same for all x. Their order is given as a string of the letters P,
    `PlanarFlow`, and R, `RadialFlow`. (The thesis calls this model VAE-lin-NF.)

    Use it for posteriors that are slightly more flexible than Gaussians, at almost no cost. For
    much more flexible posteriors use an `IAFVAE`.

    Args:
        flows: the flows in order, such as ``"PPPPP"`` or ``"PRPR"``.
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.

    Raises:
        ConfigurationError: if the string is empty, or has another letter.
    """

    posterior_family = FlowPosterior

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        flows: str = "PPPPP",
        **networks: Unpack[GaussianNetworks],
    ) -> None:
        if not isinstance(flows, str) or not flows or set(flows) - set(FLOWS):
            raise ConfigurationError(
                f"flows={flows!r}: expected letters P (planar) and R (radial), such as 'PPPPP'"
            )
        super().__init__(input_shape, latent_dim, **networks)
        self.flows = flows
        self.steps = nn.ModuleList(FLOWS[letter](latent_dim) for letter in flows)

    def posterior(self, x: Tensor, y: Extra = None, mask: Extra = None) -> Posterior:
        """Return q(z|x, y), a `FlowPosterior`."""
        return FlowPosterior(as_family(super().posterior(x, y, mask), Gaussian), self.flow)

    def flow(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image of z_0 ``(..., d)``, and the log-determinant ``(...)``."""
        total = torch.zeros_like(z[..., 0])
        for step in self.steps:
            z, log_det = step(z)
            total = total + log_det
        return z, total


class IAFVAE(VariationalAutoencoder):
    r"""VAE with an inverse autoregressive flow as posterior (Kingma et al., 2016).

    .. math:: z_k = e^{a_k(z_{k-1}, c)} \odot z_{k-1} + b_k(z_{k-1}, c), \quad z_0 \sim q(z_0|x)

    with masked networks :math:`a_k, b_k`. The order of coordinates is reversed from one flow to the
    next. The context c is computed from the encoder's features.

    Use it for the tightest bounds with one latent for each x.

    Args:
        num_flows: number of flows.
        hidden: sizes of the hidden layers of each network.
        context_dim: size of the context, 0 for none.
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.
    """

    posterior_family = FlowPosterior

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        num_flows: Count = 2,
        hidden: Sequence[Count] = (128, 128),
        context_dim: Natural = 32,
        **networks: Unpack[GaussianNetworks],
    ) -> None:
        super().__init__(input_shape, latent_dim, **networks)
        self.num_flows, self.hidden, self.context_dim = num_flows, list(hidden), context_dim
        self.context_head = nn.Linear(self.num_features, context_dim) if context_dim else None
        self.steps = nn.ModuleList(
            AutoregressiveFlow(latent_dim, context_dim, hidden, reverse=bool(number % 2))
            for number in range(num_flows)
        )

    def posterior(self, x: Tensor, y: Extra = None, mask: Extra = None) -> Posterior:
        """Return q(z|x, y), a `FlowPosterior`."""
        features = self.features(x, y, mask)
        context = None if self.context_head is None else self.context_head(features)
        return FlowPosterior(self.posterior_head(features), partial(self.flow, context=context))

    def flow(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the image of z_0 ``(..., batch, d)``, and the log-determinant ``(..., batch)``."""
        total = torch.zeros_like(z[..., 0])
        for step in self.steps:
            z, log_det = step(z, context)
            total = total + log_det
        return z, total
