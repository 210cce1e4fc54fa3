"""Residual vector quantisation: the codebooks of vector-quantize-pytorch with a faster step."""

from typing import Any

import torch
from torch import Tensor
from vector_quantize_pytorch import ResidualVQ
from vector_quantize_pytorch.vector_quantize_pytorch import (
    batched_sample_vectors,
    sample_vectors_distributed,
)

__all__ = ["ResidualQuantizer"]


class ResidualQuantizer(ResidualVQ):  # type: ignore[misc]
    """Codebooks in levels; each quantises what the levels before it leave.

    The codebooks are those of vector-quantize-pytorch: their buffers, their smoothed running means,
    and their replacement of dead codes. Its own step takes four times as long, because it forms
    several arrays of a number for each vector and code.

    Args:
        num_levels: number of levels.
        num_codes: number of codes of each level.
        dim: size of a code.
        decay: decay of the running means.

    Attributes:
        shared: whether updates use the vectors of all processes of `torch.distributed`.
    """

    def __init__(self, num_levels: int, num_codes: int, dim: int, decay: float) -> None:
        super().__init__(
            dim=dim,
            num_quantizers=num_levels,
            codebook_size=num_codes,
            decay=decay,
            threshold_ema_dead_code=0.05,
            rotation_trick=False,
        )
        self.shared = False

    @torch.no_grad()
    def forward(self, vectors: Tensor, learn: bool = False) -> tuple[Tensor, Tensor]:
        """Return the codes of each level, ``(levels, ..., dim)``, and indices ``(..., levels)``.

        Args:
            vectors: ``(..., dim)``.
            learn: whether the codebooks are then updated; they are updated in training mode only.
        """
        codes, indices = [], []
        with torch.autocast(vectors.device.type, enabled=False):
            left = vectors.to(self.codebooks).flatten(0, -2)
            for level in self.layers:
                index = _nearest(level.codebook, left)
                code = level.codebook[index]
                if learn and self.training:
                    _follow(level._codebook, left, index, self.shared)
                left = left - code
                codes.append(code)
                indices.append(index)
        shape = vectors.shape[:-1]
        return torch.stack(codes).unflatten(1, shape), torch.stack(indices, -1).unflatten(0, shape)


def _nearest(codes: Tensor, vectors: Tensor) -> Tensor:
    """Return the indices of the codes nearest to vectors ``(n, dim)``: ``(n,)``."""
    # Half the squared distance, up to a constant for each vector.
    half = 0.5 * codes.square().sum(-1)
    # `argmin` is slower than `min`.
    return torch.addmm(half, vectors, codes.mT, alpha=-1.0).min(-1).indices


def _follow(book: Any, vectors: Tensor, indices: Tensor, shared: bool) -> None:
    """Update a codebook by vectors ``(n, dim)`` and the indices of their codes ``(n,)``."""
    size, share = book.codebook_size, 1.0 - book.decay
    # A matrix product adds in a fixed order on every device.
    chosen = vectors.new_zeros(size, len(vectors)).scatter_(0, indices[None], 1.0)
    sums, counts = chosen @ vectors, chosen.sum(1)
    if shared:
        torch.distributed.all_reduce(sums)
        torch.distributed.all_reduce(counts)
    book.embed_avg.lerp_(sums[None], share)
    book.cluster_size.lerp_(counts[None], share)
    book.update_ema()
    # What replaces dead codes must be the same vectors in all processes.
    book.replace_sample_fn = sample_vectors_distributed if shared else batched_sample_vectors
    book.expire_codes_(vectors[None])
