"""The variational autoencoder with latents in a hyperbolic ball."""

import logging
import math
from typing import ClassVar, Literal, Unpack

import torch
from torch import Tensor

from chartae.checks import Positive
from chartae.distributions import (
    PoincareNormal,
    PoincareNormalHead,
    Prior,
    RiemannianNormal,
    RiemannianNormalHead,
)
from chartae.errors import DataError
from chartae.models.base import LatentSpace, Networks
from chartae.models.losses import Extra
from chartae.models.variational import VariationalAutoencoder

__all__ = ["PoincareVAE"]

logger = logging.getLogger(__name__)


class PoincareVAE(VariationalAutoencoder):
    r"""Poincare VAE (Mathieu et al., 2019; Nagano et al., 2019): latents in a hyperbolic ball.

    .. math:: q(z|x) = \mathcal N_{\mathbb B}(\mu(x), \sigma(x)), \quad
        p(z) = \mathcal N_{\mathbb B}(0, 1), \quad \mathbb B = \{ c \|z\|^2 < 1 \}

    with :math:`\mathcal N_{\mathbb B}` the wrapped normal with a diagonal scale, or the Riemannian
    normal with one scale for each x. Densities are with respect to the Riemannian volume. The input
    of the decoder is the coordinates in the ball.

    Use it for hierarchical data: the volume of the ball grows exponentially with its radius, as the
    number of leaves of a tree does with its depth. In float32 the points of the ball reach a
    distance of :math:`15 / \sqrt c` from the origin, and prior and posterior are conditioned on
    these points. The Riemannian prior is concentrated around the distance :math:`(d - 1) \sqrt c`:
    in many dimensions d, use a curvature well below 15/d, or float64.

    Args:
        input_shape: shape of one observation.
        latent_dim: dimension of the ball.
        curvature: c > 0, for a ball of curvature -c and radius :math:`1 / \sqrt c`.
        posterior: ``"wrapped"`` or ``"riemannian"``, for both posterior and prior.
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.

    >>> model = PoincareVAE((8, 8), latent_dim=2, curvature=0.5)
    >>> bool((0.5 * model.encode(torch.rand(4, 8, 8)).square().sum(-1) < 1).all())
    True
    """

    latent_space: ClassVar[LatentSpace] = "ball"

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        curvature: Positive = 1.0,
        posterior: Literal["wrapped", "riemannian"] = "wrapped",
        **networks: Unpack[Networks],
    ) -> None:
        super().__init__(input_shape, latent_dim, **networks)
        self.curvature, self.family = float(curvature), posterior
        wrapped = posterior == "wrapped"
        self.posterior_family = PoincareNormal if wrapped else RiemannianNormal
        self.prior_family = self.posterior_family
        head = PoincareNormalHead if wrapped else RiemannianNormalHead
        self.posterior_head = head(self.num_features, latent_dim, self.curvature)
        # The distance of the prior from the origin, in units of 1 / sqrt(c).
        depth = math.sqrt(latent_dim * curvature)
        if posterior == "riemannian":
            depth = max(depth, (latent_dim - 1) * curvature)
        if depth > 12.0:
            logger.warning(
                "curvature=%g: the prior of %d dimensions lies %.3g / sqrt(curvature) from the "
                "origin, but float32 reaches only 15; use a smaller curvature, or float64",
                *(curvature, latent_dim, depth),
            )

    def prior(self, y: Extra = None) -> Prior:
        """Return the posterior's family at the origin with scale 1; it does not depend on y."""
        origin = self.get_buffer("origin")
        if self.family == "wrapped":
            return PoincareNormal(origin, torch.ones_like(origin), self.curvature)
        return RiemannianNormal(origin, origin.new_ones(()), self.curvature)

    def check_latents(self, name: str, z: Tensor) -> None:
        """Raise `DataError` unless z is points of the ball, ``(batch, latent_dim)``."""
        super().check_latents(name, z)
        size = self.curvature * z.double().square().sum(-1)
        if len(z) and size.max().item() >= 1.0:
            raise DataError(
                f"{name} has points of norm up to {z.norm(dim=-1).max().item():g}: expected points "
                f"in the ball of radius {self.curvature**-0.5:g} of this {type(self).__name__}"
            )
