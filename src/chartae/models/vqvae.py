"""Autoencoders whose latents are vectors of a learned codebook."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from chartae.checks import Count, NonNegative, Range, check_shape
from chartae.data.arrays import takes_arrays
from chartae.errors import ConfigurationError, DataError
from chartae.models.base import Autoencoder, LatentSpace, Networks
from chartae.models.losses import Extra, Losses, average, resampled
from chartae.nn import output_shape

__all__ = ["HRQVAE", "VQVAE"]


LEAST_USAGE, LEAST_PERPLEXITY = 0.1, 2.0
"""With a lower usage or perplexity most codes are dead. Small image sets have a usage of 0.3 to
1."""
MOST_LEVELS = 1000
"""Each level at least halves the residual of the last one, so more levels exceed the precision."""


class CodebookOptions(Networks, total=False):
    """The arguments that the models of this module share."""

    num_codes: int
    grid: tuple[int, ...] | None
    commitment: float
    decay: float


class VQVAE(Autoencoder):
    r"""Vector-quantised autoencoder (van den Oord et al., 2017).

    .. math:: -\log p(x|z_q) + \beta \, \| z_e - \mathrm{sg}(z_q) \|^2, \quad
        z_q = \arg\min_{e_k} \| z_e - e_k \| \text{ at each place of a grid}

    with straight-through gradients. Each vector of the codebook follows the running mean of the
    vectors assigned to it. A latent is the codes of all places of the grid, flattened, channels
    first: ``(latent_dim,)`` is ``(latent_dim / places, *grid)``. If the output of the encoder has
    this shape (``"conv_map"``), it is quantised directly; otherwise a linear layer maps it to this
    shape.

    Training monitors the usage of the codebook, the share of its codes that an epoch used; and its
    perplexity, the exponential of the entropy of the codes' frequencies. The perplexity is
    ``num_codes`` if all codes are equally frequent. With several levels these are the mean usage
    and the geometric mean of the perplexities.

    Use it for discrete codes, sharp reconstructions, and a powerful sampler of the codes
    (`CodeSampler`).

    Args:
        input_shape: shape of one observation.
        latent_dim: size of a latent, a multiple of the number of places in the grid.
        num_codes: size of the codebook.
        grid: shape of the grid of codes; None takes the largest square grid, up to 4 x 4, whose
            number of places divides ``latent_dim``.
        commitment: :math:`\beta`, at least 0.
        decay: decay of the running means in the codebook, in [0, 1).
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.

    Raises:
        ConfigurationError: if the grid does not divide ``latent_dim``, or an argument is out of
            range.
    """

    latent_space: ClassVar[LatentSpace] = "codes"
    watched = "quantizer"
    num_levels = 1

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        num_codes: Annotated[int, Range(minimum=2)] = 256,
        grid: tuple[Count, ...] | None = None,
        commitment: NonNegative = 0.25,
        decay: Annotated[float, Range(minimum=0.0, below=1.0)] = 0.99,
        **networks: Unpack[Networks],
    ) -> None:
        from chartae.nn.codebooks import ResidualQuantizer

        super().__init__(input_shape, latent_dim, **networks)
        if grid is None:
            grid = next((side, side) for side in (4, 3, 2, 1) if latent_dim % side**2 == 0)
        self.num_codes, self.grid = num_codes, tuple(grid)
        self.index_shape = self.grid
        self.commitment, self.decay = commitment, decay
        places = math.prod(self.grid)
        if latent_dim % places:
            raise ConfigurationError(
                f"latent_dim={latent_dim}: expected a multiple of the {places} places of "
                f"grid={self.grid}"
            )
        self.code_size = latent_dim // places
        self.quantizer = ResidualQuantizer(self.num_levels, num_codes, self.code_size, decay)
        self.code_head: nn.Module = nn.Identity()
        if output_shape(self.encoder, self.input_shape) != (self.code_size, *self.grid):
            self.code_head = nn.Linear(self.num_features, latent_dim)

    @property
    def tally_size(self) -> int:
        return self.num_levels * self.num_codes

    def tally(self, output: Any) -> Tensor:
        """Return the frequency of each code of each level."""
        indices: Tensor = output[1].flatten(0, -2)
        levels = torch.arange(self.num_levels, device=indices.device)
        numbers = (indices + self.num_codes * levels).flatten()
        # `bincount` would make the step wait for an accelerator.
        counts = torch.zeros(self.tally_size, device=indices.device)
        counts.scatter_add_(0, numbers, torch.ones_like(numbers, dtype=counts.dtype))
        return counts / len(indices)

    def latent_use(self, tally: Sequence[float]) -> dict[str, float]:
        every = torch.tensor(tally, dtype=torch.float64)
        frequencies = every.unflatten(0, (self.num_levels, self.num_codes))
        entropy = torch.special.entr(frequencies).sum(-1)
        return {
            "code_usage": float((frequencies > 0.0).double().mean()),
            "perplexity": float(entropy.mean().exp()),
        }

    def unused_latents(self, use: Mapping[str, float]) -> str | None:
        if use["code_usage"] >= LEAST_USAGE and use["perplexity"] >= LEAST_PERPLEXITY:
            return None
        return (
            f"most codes are dead: {use['code_usage']:.0%} of {self.num_codes} are used, with a "
            f"perplexity of {use['perplexity']:.1f}; train for more epochs or lower num_codes"
        )

    def share_updates(self, shared: bool) -> None:
        self.quantizer.shared = shared

    def continuous(self, x: Tensor, y: Extra = None, mask: Extra = None) -> Tensor:
        """Return the vectors before quantisation, ``(batch, places, code_size)``."""
        vectors: Tensor = self.code_head(self.features(x, y, mask))
        parts: Tensor = vectors.unflatten(1, (self.code_size, -1))
        return parts.mT

    def quantize(
        self, vectors: Tensor, *, learn: bool = False, weight: Extra = None
    ) -> tuple[Tensor, Tensor]:
        """Return the codes of each level, ``(levels, batch, places, size)``, and their indices.

        Args:
            vectors: ``(batch, places, code_size)``.
            learn: whether the codebook is updated; it is updated in training mode only.
            weight: weight of each sample, ``(batch,)``; the update then uses samples drawn by these
                weights.
        """
        codes: Tensor
        indices: Tensor
        codes, indices = self.quantizer(vectors, learn=learn and weight is None)
        if learn and weight is not None:
            self.quantizer(vectors[resampled(weight, len(vectors))], learn=True)
        return codes, indices

    def embed(self, x: Tensor, y: Extra = None, mask: Extra = None) -> Tensor:
        """Return the quantised latent of each x, without checks."""
        codes, _ = self.quantize(self.continuous(x, y, mask))
        return _flat(codes.sum(0))

    @takes_arrays("x", "y", "mask")
    def codes(self, x: Tensor, y: Extra = None, *, mask: Extra = None) -> Tensor:
        """Return the indices of the codes of each x, ``(batch, *grid)`` of int64.

        Args and errors as in `encode`.
        """
        self.check_call("x", x, y, mask)
        _, indices = self.quantize(self.continuous(x, y, mask))
        return indices.reshape(len(x), *self.index_shape)

    @takes_arrays("codes")
    def embed_codes(self, codes: Tensor) -> Tensor:
        """Return the latents of indices ``(batch, *grid)``: ``(batch, latent_dim)``.

        Raises:
            DataError: if they are not indices of the codebook, or have another shape.
        """
        check_shape("codes", codes, ("batch", *self.index_shape))
        if codes.dtype != torch.int64 or codes.numel() == 0:
            raise DataError(f"codes is {codes.dtype}: expected torch.int64, at least one")
        if int(codes.min()) < 0 or int(codes.max()) >= self.num_codes:
            raise DataError(
                f"codes range from {int(codes.min())} to {int(codes.max())}: expected 0 to "
                f"{self.num_codes - 1}"
            )
        indices = codes.reshape(len(codes), -1, self.num_levels)
        vectors: Tensor = self.quantizer.get_codes_from_indices(indices).sum(0)
        return _flat(vectors)

    def loss(
        self, x: Tensor, *, y: Extra = None, mask: Extra = None, weight: Extra = None
    ) -> Losses:
        """Return the reconstruction from the codes, and the encoder's commitment to the codes."""
        vectors = self.continuous(x, y, mask)
        codes, _ = self.quantize(vectors, learn=self.training, weight=weight)
        quantized = codes.sum(0)
        straight = vectors + (quantized - vectors).detach()
        reconstruction = -average(self.likelihood(_flat(straight), y).log_prob(x, mask), weight)
        # Each level quantises the residual of the level before.
        left = (vectors - codes.cumsum(0)).square()
        commitment = average(left.sum((0, 2, 3)), weight)
        total = reconstruction + self.commitment * commitment
        return Losses.of(total, reconstruction=reconstruction, commitment=commitment)


class HRQVAE(VQVAE):
    r"""Hierarchical residual-quantised autoencoder (Hosking et al., 2022).

    .. math:: z_q = \sum_{l=1}^L e^{(l)}, \quad
        e^{(l)} = \arg\min_{e_k^{(l)}} \left\| z_e - \sum_{m<l} e^{(m)} - e_k^{(l)} \right\|

    Use it if a `VQVAE` would need a very large codebook: L levels of K codes each, from coarse to
    fine, represent :math:`K^L` vectors.

    Args:
        input_shape: shape of one observation.
        latent_dim: size of a latent, a multiple of the number of places in the grid.
        num_levels: number L of levels, at most 1000.
        options: the arguments of `VQVAE`; ``num_codes`` is the size K of each codebook.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        num_levels: Annotated[int, Range(minimum=1, maximum=MOST_LEVELS)] = 4,
        **options: Unpack[CodebookOptions],
    ) -> None:
        self.__dict__["num_levels"] = num_levels  # before super().__init__, which uses it
        super().__init__(input_shape, latent_dim, **options)
        self.index_shape = (*self.grid, num_levels)


def _flat(vectors: Tensor) -> Tensor:
    """Return vectors ``(batch, places, size)`` as flat latents, channels first."""
    return vectors.mT.flatten(1)
