"""The regularised autoencoder."""

from typing import Literal, Unpack

import torch
from torch import Tensor
from torch.nn.utils.parametrizations import spectral_norm

from chartae.checks import NonNegative
from chartae.errors import DataError
from chartae.gradients import gradients, leave_inference_mode
from chartae.models.ae import AE
from chartae.models.base import Networks
from chartae.models.losses import Extra, Losses, average

__all__ = ["RAE"]

Regularization = Literal["l2", "gp", "sn", "none"]


class RAE(AE):
    r"""Regularised autoencoder (Ghosh et al., 2020): deterministic, with a smooth decoder.

    .. math:: -\log p(x|z = f(x)) + \frac\beta2 \|z\|^2 + \lambda \, \mathcal L_{reg}

    with one of these terms as :math:`\mathcal L_{reg}`: the squared norm of the decoder's
    parameters (RAE-L2), the squared norm of its Jacobian at the code,
    :math:`\|\partial g / \partial z\|_F^2` (RAE-GP), or none. RAE-SN normalises the decoder's
    weights to a spectral norm of 1 instead. The Jacobian's norm is estimated without bias
    (Hutchinson, 1989). The published penalty uses the gradient of the sum of all pixels, which is
    not a norm of the Jacobian.

    Use it with a sampler fitted ex post (`MixtureSampler`, `FlowSampler`), as it has no prior. Its
    samples are sharper than those of a `VAE`.

    Args:
        regularization: ``"l2"``, ``"gp"``, ``"sn"`` or ``"none"``.
        embedding_weight: :math:`\beta`, at least 0.
        weight: :math:`\lambda`, at least 0; ``"sn"`` and ``"none"`` do not use it.
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        regularization: Regularization = "l2",
        embedding_weight: NonNegative = 1e-2,
        weight: NonNegative = 1e-3,
        **networks: Unpack[Networks],
    ) -> None:
        super().__init__(input_shape, latent_dim, **networks)
        self.regularization = regularization
        self.embedding_weight, self.weight = embedding_weight, weight
        if regularization == "sn":
            for layer in self.decoder.modules():
                matrix = getattr(layer, "weight", None)
                if isinstance(matrix, Tensor) and matrix.dim() > 1:
                    spectral_norm(layer)

    def check_buffers(self) -> None:
        super().check_buffers()
        weights = [getattr(layer, "weight", None) for layer in self.decoder.modules()]
        if not all(bool(w.isfinite().all()) for w in weights if isinstance(w, Tensor)):
            raise DataError("decoder has spectral norms of 0: expected positive ones")

    def loss(
        self, x: Tensor, *, y: Extra = None, mask: Extra = None, weight: Extra = None
    ) -> Losses:
        """Return the reconstruction, the size of the codes, and the decoder's penalty."""
        z = self.embed(x, y, mask)
        reconstruction = -average(self.likelihood(z, y).log_prob(x, mask), weight)
        embedding = 0.5 * average(z.square().sum(-1), weight)
        total = reconstruction + self.embedding_weight * embedding
        terms = {"reconstruction": reconstruction, "embedding": embedding}
        if self.regularization in ("l2", "gp"):
            terms["penalty"] = self.penalty(z, y, weight)
            total = total + self.weight * terms["penalty"]
        return Losses.of(total, **terms)

    def penalty(self, z: Tensor, y: Extra = None, weight: Extra = None) -> Tensor:
        """Return the penalised norm of the decoder at codes z ``(batch, d)``: a scalar."""
        if self.regularization == "l2":
            return torch.stack([p.square().sum() for p in self.decoder.parameters()]).sum()
        differentiable = torch.is_grad_enabled()
        with gradients(z, y) as (z, y):
            leave_inference_mode(self)
            z = z if z.requires_grad else z.detach().requires_grad_()
            mean = self.observation_model.encoder_input(self.likelihood(z, y).mean)
            # E |J^T v|^2 over v ~ N(0, I) is the squared norm of J.
            projection = (mean * torch.randn_like(mean)).sum()
            (gradient,) = torch.autograd.grad(projection, z, create_graph=differentiable)
        return average(gradient.square().sum(-1), weight)
