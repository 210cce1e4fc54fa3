"""The metric network of the RHVAE: from an observation to the matrix of its centroid."""

import torch
from torch import Tensor, nn

from chartae.nn.registry import NetworkSpec, build_encoder, output_features

__all__ = ["MetricNetwork"]


class MetricNetwork(nn.Module):
    r"""Map x to :math:`M = L L^T`, symmetric positive definite, of determinant 1.

    The network has a body (the thesis: one layer of 400 ReLU) and two linear heads, for the
    diagonal and the lower part of L. Only the *shape* of M is learned: the scale of the inverse
    metric is a gauge that the exact objective would drive to zero, so it is fixed here
    (``docs/rhvae.md``). The log-diagonal is bounded by ``bound`` with a tanh and centred, and the
    entries below it are bounded alike, so that M stays well conditioned whatever the network says.

    Args:
        body: encoder specification, x to ``(batch, features)``.
        input_shape: shape of one observation.
        latent_dim: size d of the matrices.
        bound: largest absolute value of the log-diagonal of L before centring, and of its entries
            below the diagonal.
    """

    def __init__(
        self,
        body: NetworkSpec,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        bound: float = 1.0,
    ) -> None:
        super().__init__()
        self.body = build_encoder(body, input_shape)
        features = output_features(self.body, input_shape)
        self.latent_dim, self.bound = latent_dim, bound
        self.diagonal = nn.Linear(features, latent_dim)
        self.lower = nn.Linear(features, latent_dim * (latent_dim - 1) // 2)
        self.register_buffer(
            "lower_indices", torch.tril_indices(latent_dim, latent_dim, -1), persistent=False
        )

    def cholesky(self, x: Tensor) -> Tensor:
        """Return L, ``(batch, d, d)``, lower triangular, of determinant 1."""
        features = self.body(x)
        log_diagonal = self.bound * torch.tanh(self.diagonal(features) / self.bound)
        log_diagonal = log_diagonal - log_diagonal.mean(-1, keepdim=True)
        rows, columns = self.get_buffer("lower_indices")
        factor = torch.diag_embed(log_diagonal.exp())
        factor[:, rows, columns] = self.bound * torch.tanh(self.lower(features) / self.bound)
        return factor

    def forward(self, x: Tensor) -> Tensor:
        factor = self.cholesky(x)
        return factor @ factor.mT
