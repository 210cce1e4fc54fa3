"""The metric network of the RHVAE: from an observation to the matrix of its centroid."""

import math

import torch
from torch import Tensor, nn

from chartae.nn.registry import NetworkSpec, build_encoder, output_features

__all__ = ["MetricNetwork"]


class MetricNetwork(nn.Module):
    r"""Map x to :math:`M = L L^T`, symmetric positive definite, of determinant 1, well conditioned.

    The network has a body (the thesis: one layer of 400 ReLU) and two linear heads, for the
    diagonal and the lower part of L:

    .. math:: L = D (I + S), \quad D = e^{\mathrm{diag}(\ell - \bar\ell)}

    with S strictly lower triangular. Only the *shape* of M is learned. The exact objective does not
    determine the scale of M, and drives it to zero. The unit determinant therefore fixes the scale
    of each matrix. Fixing the scale over the whole batch would let one centroid take all of it, and
    a fixed trace would let the determinant vanish (``docs/rhvae.md``). :math:`|\ell| \le 1` and
    :math:`\|S\|_F \le 0.7` bound the anisotropy. The bounding function has heavy tails and, unlike
    tanh, does not saturate early. The heads have small initial outputs, so that training starts
    near M = I.

    Args:
        body: encoder specification, x to ``(batch, features)``.
        input_shape: shape of one observation.
        latent_dim: size d of the matrices.
    """

    diagonal_bound = 1.0
    lower_bound = 0.7
    head_scale = 0.1

    def __init__(self, body: NetworkSpec, input_shape: tuple[int, ...], latent_dim: int) -> None:
        super().__init__()
        self.body = build_encoder(body, input_shape)
        features = output_features(self.body, input_shape)
        entries = latent_dim * (latent_dim - 1) // 2
        self.diagonal = nn.Linear(features, latent_dim)
        # A latent space of one dimension has no entries below the diagonal.
        self.lower = nn.Linear(features, entries) if entries else None
        self.entry_bound = self.lower_bound / math.sqrt(max(1, entries))
        indices = torch.tril_indices(latent_dim, latent_dim, -1)
        self.register_buffer("lower_indices", indices, persistent=False)

    def cholesky(self, x: Tensor) -> Tensor:
        """Return L, ``(batch, d, d)``, lower triangular, of determinant 1 and positive diagonal."""
        features = self.body(x).flatten(1)
        log_diagonal = _squash(self.head_scale * self.diagonal(features), self.diagonal_bound)
        scale = (log_diagonal - log_diagonal.mean(-1, keepdim=True)).exp()
        shear = torch.diag_embed(torch.ones_like(scale))
        if self.lower is not None:
            rows, columns = self.get_buffer("lower_indices")
            shear[:, rows, columns] = _squash(
                self.head_scale * self.lower(features), self.entry_bound
            )
        return scale[..., None] * shear

    def forward(self, x: Tensor) -> Tensor:
        factor = self.cholesky(x)
        return factor @ factor.mT


def _squash(value: Tensor, bound: float) -> Tensor:
    """Return bound * value / sqrt(bound^2 + value^2): the identity near 0, within +-bound."""
    return bound * value / torch.sqrt(bound**2 + value.square())
