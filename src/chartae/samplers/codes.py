"""Latents from an autoregressive model of the codes of a vector-quantised model."""

from typing import Annotated, ClassVar, Unpack, cast

import torch
from torch import Tensor

from chartae.checks import Count, Range
from chartae.errors import ConfigurationError
from chartae.models import Autoencoder
from chartae.models.base import LatentSpace
from chartae.models.vqvae import HRQVAE, VQVAE
from chartae.randomness import make_generator, seeded
from chartae.samplers.learned import Density, LearnedSampler, LearningOptions, rows_of
from chartae.samplers.pixelcnn import PixelCNN

__all__ = ["CodeSampler"]

BLOCK = 1024
"""Number of grids drawn at once."""


class CodeSampler(LearnedSampler):
    r"""Draw latents from a `PixelCNN` over the codes of a `VQVAE` or `HRQVAE`.

    .. math:: c \sim \prod_i p(c_i | c_{<i}, y), \quad z = e(c)

    The network is trained by cross-entropy on the codes of the training set, row by row. For an
    HRQVAE the levels at each place follow one another. A one-dimensional grid is treated as a
    single row.

    Args:
        model: a trained model whose latents are codes, on a grid of one or two dimensions.
        channels: number of channels of the network.
        num_layers: number of gated layers.
        kernel_size: size of the convolutions, odd, at least 3. The receptive field reaches
            ``num_layers`` times half of it in each direction.
        options: ``epochs``, ``batch_size``, ``learning_rate``, ``patience``, ``held_out`` and
            ``seed``, as in `LearnedSampler`.

    Raises:
        ConfigurationError: for a model with other latents, or an argument out of range.

    >>> import chartae
    >>> model = chartae.VQVAE((8, 8), latent_dim=8, grid=(2, 2), num_codes=16).eval()
    >>> sampler = CodeSampler(model, channels=8, num_layers=2, epochs=2)
    >>> sampler.fit(torch.rand(20, 8, 8)).sample(5, seed=0).shape
    torch.Size([5, 8, 8])
    """

    latent_space: ClassVar[LatentSpace] = "codes"
    model: VQVAE

    def __init__(
        self,
        model: Autoencoder,
        channels: Count = 64,
        num_layers: Count = 5,
        kernel_size: Annotated[int, Range(minimum=3)] = 5,
        **options: Unpack[LearningOptions],
    ) -> None:
        if kernel_size % 2 == 0:
            raise ConfigurationError(f"kernel_size={kernel_size}: expected an odd number")
        super().__init__(model, **options)
        self.channels, self.num_layers, self.kernel_size = channels, num_layers, kernel_size
        self.network = self._make_network()

    @classmethod
    def unsupported_reason(cls, model: Autoencoder) -> str | None:
        if reason := super().unsupported_reason(model):
            return reason
        dims = len(cast(VQVAE, model).grid)
        return None if dims <= 2 else f"its codes are on a grid of {dims} dimensions"

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the grid of codes."""
        *rows, columns = self.model.grid
        return (rows[0] if rows else 1), columns

    def _make_network(self) -> PixelCNN:
        """Return a network with new weights."""
        model = self.model
        with seeded(self.seed, "network"):
            network = PixelCNN(
                model.num_codes,
                model.num_levels,
                model.condition_dim,
                self.channels,
                self.num_layers,
                self.kernel_size,
            )
        return network.to(device=self.model.device, dtype=self.model.dtype)

    def learn(self, x: Tensor, y: Tensor | None, train: Tensor, held_out: Tensor) -> None:
        self.network = self._make_network()
        codes = self._codes(x, y)

        objective = Density(self.network, lambda c, y: -self.log_prob(c, y) / c[0].numel())
        self.fit_network(objective, rows_of(codes, y, train), rows_of(codes, y, held_out))

    @torch.no_grad()
    def _codes(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Return the codes of the training set, ``(N, *grid)`` or ``(N, *grid, levels)``."""
        pieces = [x.split(BLOCK)] + ([] if y is None else [y.split(BLOCK)])
        return torch.cat([self.model.codes(*piece) for piece in zip(*pieces, strict=True)])

    def log_prob(self, codes: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the log probability of codes from `VQVAE.codes`, in nats: ``(n,)``."""
        places = codes.reshape(len(codes), *self.grid, -1)
        return self.network.log_prob(places, self._condition(y))

    def draw_latents(self, n: int, seed: int, y: Tensor | None = None) -> Tensor:
        levels = (self.model.num_levels,) if isinstance(self.model, HRQVAE) else ()
        blocks = []
        for done in range(0, n, BLOCK):
            size, rows = min(BLOCK, n - done), slice(done, done + BLOCK)
            codes = self.network.sample(
                size,
                self.grid,
                make_generator(seed, "CodeSampler", done),
                self._condition(None if y is None else y[rows]),
            )
            codes = codes.reshape(size, *self.model.grid, *levels)
            blocks.append(self.model.embed_codes(codes))
        return torch.cat(blocks)

    def _condition(self, y: Tensor | None) -> Tensor | None:
        return self.model.condition(y) if self.model.condition_dim else None
