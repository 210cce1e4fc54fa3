"""Importance-weighted autoencoders: four bounds computed from one array of weights."""

import math
from typing import Annotated, Unpack

from torch import Tensor, nn

from chartae.checks import Count, Range
from chartae.models.losses import Extra, Losses, average
from chartae.models.variational import GaussianNetworks, VariationalAutoencoder

__all__ = ["CIWAE", "IWAE", "MIWAE", "PIWAE"]


class IWAE(VariationalAutoencoder):
    r"""Importance-weighted autoencoder (Burda et al., 2016): a bound that tightens as S grows.

    .. math:: \mathcal L_S(x) = E \log \frac1S \sum_{s=1}^S w_s, \quad
        w_s = \frac{p(x|z_s) \, p(z_s)}{q(z_s|x)}

    Use it for higher likelihoods, at S times the cost of the decoder. The learned posterior may
    then be broader than the true one.

    Args:
        num_samples: number S of weights for each x.
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        num_samples: Count = 10,
        **networks: Unpack[GaussianNetworks],
    ) -> None:
        super().__init__(input_shape, latent_dim, **networks)
        self.num_samples = self.total_samples = num_samples

    def bound(self, log_weights: Tensor) -> Tensor:
        """Return the bound that training maximises, from log weights ``(S, batch)``."""
        return log_weights.logsumexp(0) - math.log(len(log_weights))

    def loss(
        self, x: Tensor, *, y: Extra = None, mask: Extra = None, weight: Extra = None
    ) -> Losses:
        """Return minus the bound."""
        fit, divergence = self.log_weight_terms(x, self.total_samples, y=y, mask=mask)
        bound = average(self.bound(fit + self.kl_weight * divergence), weight)
        terms = {"reconstruction": -average(fit, weight), "kl": -average(divergence, weight)}
        return Losses.of(-bound, **terms)


class MIWAE(IWAE):
    r"""Multiply importance-weighted autoencoder (Rainforth et al., 2018): M groups of K weights.

    .. math:: \frac1M \sum_{m=1}^M \log \frac1K \sum_{k=1}^K w_{mk}

    Use it if the gradients of an `IWAE` are too noisy for the encoder: their signal-to-noise ratio
    falls with K and rises with M.

    Args:
        num_samples: number K of weights in a group.
        num_groups: number M of groups.
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        num_samples: int = 5,
        num_groups: Count = 5,
        **networks: Unpack[GaussianNetworks],
    ) -> None:
        super().__init__(input_shape, latent_dim, num_samples=num_samples, **networks)
        self.num_groups, self.total_samples = num_groups, num_groups * num_samples

    def bound(self, log_weights: Tensor) -> Tensor:
        """Return the mean of the groups' bounds, from M K log weights."""
        groups = log_weights.unflatten(0, (self.num_groups, self.num_samples))
        bounds: Tensor = groups.logsumexp(1) - math.log(self.num_samples)
        return bounds.mean(0)


class PIWAE(MIWAE):
    r"""Partially importance-weighted autoencoder (Rainforth et al., 2018).

    The decoder maximises the bound of an `IWAE` with all M K weights. The encoder maximises that of
    a `MIWAE` with M groups of K weights:

    .. math:: \nabla_\theta \mathcal L_{MK}, \quad
        \nabla_\phi \frac1M \sum_{m=1}^M \log \frac1K \sum_{k=1}^K w_{mk}

    Use it for the likelihood of an `IWAE` with the encoder gradients of a `MIWAE`, at the cost of a
    second backward pass.

    Args:
        num_samples: number K of weights in a group.
        num_groups: number M of groups.
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.
    """

    def optimization_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the generative parameters, ``"model"``, and the inference ones, ``"encoder"``."""
        generative = {*self.decoder.parameters(), *self.observation_model.parameters()}
        inference = [p for p in self.parameters() if p not in generative]
        return {"model": [p for p in self.parameters() if p in generative], "encoder": inference}

    def loss(
        self, x: Tensor, *, y: Extra = None, mask: Extra = None, weight: Extra = None
    ) -> Losses:
        """Return minus each bound, from the same weights."""
        fit, divergence = self.log_weight_terms(x, self.total_samples, y=y, mask=mask)
        log_weights = fit + self.kl_weight * divergence
        objectives = {
            "model": -average(IWAE.bound(self, log_weights), weight),
            "encoder": -average(self.bound(log_weights), weight),
        }
        terms = {"reconstruction": -average(fit, weight), "kl": -average(divergence, weight)}
        return Losses(objectives, terms)


class CIWAE(IWAE):
    r"""Combination of the ELBO and the bound of the IWAE (Rainforth et al., 2018).

    .. math:: \beta \, \mathrm{ELBO}(x) + (1 - \beta) \, \mathcal L_S(x)

    Use it for a compromise between a `VAE` (:math:`\beta = 1`) and an `IWAE` (:math:`\beta = 0`).

    Args:
        beta: :math:`\beta` in [0, 1].
        num_samples: number S of weights for each x.
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        beta: Annotated[float, Range(minimum=0.0, maximum=1.0)] = 0.05,
        num_samples: int = 10,
        **networks: Unpack[GaussianNetworks],
    ) -> None:
        super().__init__(input_shape, latent_dim, num_samples=num_samples, **networks)
        self.beta = beta

    def bound(self, log_weights: Tensor) -> Tensor:
        """Return the combined bound, from weights ``(num_samples, batch)``."""
        return self.beta * log_weights.mean(0) + (1.0 - self.beta) * super().bound(log_weights)
