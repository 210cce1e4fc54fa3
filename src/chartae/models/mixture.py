"""The variational autoencoder with a learned mixture of normals as prior."""

from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from chartae.checks import Count
from chartae.data.arrays import takes_arrays
from chartae.distributions import NormalHead, NormalMixture
from chartae.models.losses import Extra
from chartae.models.variational import GaussianNetworks, VariationalAutoencoder

__all__ = ["MixtureVAE"]


class MixtureVAE(VariationalAutoencoder):
    r"""VAE whose prior is a mixture of normals, learned in training (Jiang et al., 2017).

    .. math:: p(z) = \sum_{k=1}^K \pi_k N(z; \mu_k, \mathrm{diag}(\sigma_k^2))

    The objective is the ELBO with the component summed out. It equals that of Jiang et al. if their
    q(c|x) is exact. In a conditional model the mixture is the same for all conditions.

    Use it to cluster without labels (`cluster_probabilities`), or for a prior that is more flexible
    than N(0, I). It costs less than the prior of a `VAMP`, which encodes its pseudo-inputs at every
    step.

    Args:
        num_components: number K of components.
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.

    >>> model = MixtureVAE((8, 8), latent_dim=2, num_components=3).eval()
    >>> model.cluster_probabilities(torch.rand(5, 8, 8)).shape
    torch.Size([5, 3])
    """

    prior_family = NormalMixture

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        num_components: Count = 10,
        **networks: Unpack[GaussianNetworks],
    ) -> None:
        super().__init__(input_shape, latent_dim, **networks)
        self.num_components = num_components
        self.component_means = nn.Parameter(torch.randn(num_components, latent_dim))
        self.raw_deviations = nn.Parameter(torch.zeros(num_components, latent_dim))
        self.component_logits = nn.Parameter(torch.zeros(num_components))

    def prior(self, y: Extra = None) -> NormalMixture:
        """Return the mixture over ``(latent_dim,)``; it does not depend on the conditions."""
        deviations = softplus(self.raw_deviations) + NormalHead.floor
        return NormalMixture(self.component_means, deviations, self.component_logits.softmax(-1))

    @takes_arrays("x", "y", "mask")
    def cluster_probabilities(self, x: Tensor, y: Extra = None, *, mask: Extra = None) -> Tensor:
        """Return the probability p(k|z) of each component at the embedding of x, ``(batch, K)``.

        Args:
            x: ``(batch, *input_shape)``.
            y: their conditions, for a model that has them.
            mask: boolean, as x, True where a feature is observed.

        Raises:
            DataError: as in `encode`.
        """
        log_joint = self.prior(y).log_joint(self.encode(x, y, mask=mask))
        return log_joint.softmax(-1).to(self.dtype)
