"""The variational autoencoder with latents on a sphere."""

from typing import Annotated, ClassVar, Unpack

from torch import Tensor

from chartae.checks import Range
from chartae.distributions import HypersphericalUniform, Prior, VonMisesFisher, VonMisesFisherHead
from chartae.errors import DataError
from chartae.models.base import LatentSpace, Networks
from chartae.models.losses import Extra
from chartae.models.vae import VAE

__all__ = ["SVAE"]


class SVAE(VAE):
    r"""Hyperspherical VAE (Davidson et al., 2018): latents on the unit sphere of R^d.

    .. math:: q(z|x) = \mathrm{vMF}(\mu(x), \kappa(x)), \quad p(z) = \mathcal U(S^{d-1})

    with the KL in closed form. Draws are exact, and so are their gradients for :math:`\mu` and
    :math:`\kappa`.

    Use it for directional data, or if the prior should not pull latents to a centre: with a uniform
    prior clusters stay where they are. The sphere has d - 1 dimensions; the model works best if d
    is small.

    Args:
        input_shape: shape of one observation.
        latent_dim: dimension d of the space around the sphere, at least 2.
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.

    >>> import torch
    >>> z = SVAE((8, 8), latent_dim=3).encode(torch.rand(2, 8, 8))
    >>> torch.allclose(z.norm(dim=-1), torch.ones(2))
    True
    """

    latent_space: ClassVar[LatentSpace] = "sphere"
    posterior_family = VonMisesFisher
    prior_family = HypersphericalUniform

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: Annotated[int, Range(minimum=2)],
        **networks: Unpack[Networks],
    ) -> None:
        super().__init__(input_shape, latent_dim, **networks)
        self.posterior_head = VonMisesFisherHead(self.num_features, latent_dim)

    def prior(self, y: Extra = None) -> Prior:
        """Return the uniform distribution on the sphere; it does not depend on the conditions."""
        return HypersphericalUniform(self.get_buffer("origin"))

    def check_latents(self, name: str, z: Tensor) -> None:
        """Raise `DataError` unless z is points of the sphere, ``(batch, latent_dim)``."""
        super().check_latents(name, z)
        norms = z.norm(dim=-1)
        if len(z) and bool(((norms - 1.0).abs() > 1e-3).any()):
            low, high = (norm.item() for norm in norms.aminmax())
            raise DataError(
                f"{name} has points of norm {low:g} to {high:g}: expected points on the unit "
                f"sphere, the latent space of this {type(self).__name__}"
            )
