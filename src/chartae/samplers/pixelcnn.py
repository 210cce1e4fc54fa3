"""The gated PixelCNN, a model of grids of codes (van den Oord et al., 2016)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

__all__ = ["PixelCNN"]


class PixelCNN(nn.Module):
    r"""Distribution over grids of codes, autoregressive in places (row by row) and in levels.

    .. math:: p(c|y) = \prod_{i} \prod_{l} p(c_{i,l} | c_{i,<l}, c_{<i}, y)

    Two stacks of masked convolutions (Fig. 2 of the paper). The vertical stack covers the rows
    above without a blind spot. The horizontal stack covers the places to the left, and receives the
    output of the vertical stack. Each layer is :math:`\tanh(a) \odot \sigma(b)`, with residual
    connections in the horizontal stack and a bias from the conditions. The levels of a place are
    computed from its features, each level given the previous ones.

    Args:
        num_codes: number K of codes at each level.
        num_levels: number L of levels.
        condition_dim: size of the conditions, or 0.
        channels: number of channels of both stacks.
        num_layers: number of gated layers.
        kernel_size: size of the convolutions, odd.
    """

    def __init__(
        self,
        num_codes: int,
        num_levels: int,
        condition_dim: int,
        channels: int,
        num_layers: int,
        kernel_size: int,
    ) -> None:
        super().__init__()
        self.num_codes, self.num_levels, self.channels = num_codes, num_levels, channels
        self.places = _embeddings(num_levels, num_codes, channels)
        self.layers: Any = nn.ModuleList(
            GatedLayer(channels, kernel_size, condition_dim, first=number == 0)
            for number in range(num_layers)
        )
        self.features = nn.Sequential(nn.ReLU(), nn.Conv2d(channels, channels, 1))
        self.levels = _embeddings(num_levels - 1, num_codes, channels)
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(), nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, num_codes)
            )
            for _ in range(num_levels)
        )

    def context(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return features of each place, from the places before it: ``(n, h, w, channels)``.

        Args:
            codes: ``(n, h, w, L)``.
            condition: ``(n, condition_dim)``, or None without.
        """
        vertical = horizontal = self.embed(codes)
        for layer in self.layers:
            above = layer.above(pad(vertical, (0, 0, layer.reach, 0)))
            # The vertical stack includes its own row, so the horizontal one takes the row above.
            seen = layer.across(pad(above, (0, 0, 1, 0))[:, :, :-1])
            horizontal = layer.beside(horizontal, seen, condition)
            vertical = layer.gate(above, condition)
        return torch.movedim(self.features(horizontal), 1, -1)

    def embed(self, codes: Tensor) -> Tensor:
        """Return the sum of the embeddings of each place's levels, ``(n, channels, h, w)``."""
        levels = [place(codes[..., level]) for level, place in enumerate(self.places)]
        return torch.movedim(torch.stack(levels).sum(0), -1, 1)

    def level_logits(self, context: Tensor, codes: Tensor, level: int) -> Tensor:
        """Return the logits of one level, ``(..., K)``, given those before it in ``codes``."""
        for before in range(level):
            context = context + self.levels[before](codes[..., before])
        logits: Tensor = self.heads[level](context)
        return logits

    def logits(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the logits of each code given those before it, ``(n, h, w, L, K)``."""
        context = self.context(codes, condition)
        levels = range(self.num_levels)
        return torch.stack([self.level_logits(context, codes, level) for level in levels], -2)

    def log_prob(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the log probability of each grid of codes, ``(n,)``, in nats."""
        logits = self.logits(codes, condition)
        nats = cross_entropy(logits.flatten(0, -2), codes.flatten(), reduction="none")
        return -nats.reshape(len(codes), -1).sum(1)

    def sample(
        self,
        n: int,
        grid: tuple[int, int],
        generator: torch.Generator,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Draw grids of codes, ``(n, h, w, L)``: place after place, all n at once.

        Args:
            n: number of grids.
            grid: their height and width.
            generator: random generator, on the CPU.
            condition: ``(n, condition_dim)``, or None without.
        """
        parameter = next(self.parameters())
        codes = torch.zeros(n, *grid, self.num_levels, dtype=torch.int64, device=parameter.device)
        channels, width = self.channels, grid[1]
        # The rows that the vertical stack still needs, and its output for the row above.
        memories = [parameter.new_zeros(n, channels, layer.reach, width) for layer in self.layers]
        aboves = [parameter.new_zeros(n, 2 * channels, 1, width) for _ in self.layers]
        for row in range(grid[0]):
            seen = [layer.across(above) for layer, above in zip(self.layers, aboves, strict=True)]
            for column in range(width):
                horizontal = self.embed(codes[:, row : row + 1, : column + 1])
                for layer, other in zip(self.layers, seen, strict=True):
                    horizontal = layer.beside(horizontal, other[..., : column + 1], condition)
                context = self.features(horizontal[..., -1:])[:, :, 0, 0]
                self._draw_levels(codes[:, row, column], context, generator)
            vertical = self.embed(codes[:, row : row + 1])
            for number, layer in enumerate(self.layers):
                rows = torch.cat([memories[number], vertical], 2)
                memories[number], aboves[number] = rows[:, :, 1:], layer.above(rows)
                vertical = layer.gate(aboves[number], condition)
        return codes

    def _draw_levels(self, place: Tensor, context: Tensor, generator: torch.Generator) -> None:
        """Draw the levels of a place, ``(n, L)``, in place, each given the previous ones."""
        for level in range(self.num_levels):
            shares = self.level_logits(context, place, level).softmax(-1)
            drawn = torch.multinomial(shares.cpu(), 1, generator=generator)
            place[:, level] = drawn[:, 0].to(place.device)


class GatedLayer(nn.Module):
    """One layer of both stacks; the first layer excludes the place itself."""

    def __init__(self, channels: int, kernel_size: int, condition_dim: int, *, first: bool) -> None:
        super().__init__()
        self.first, self.reach = first, kernel_size // 2
        self.vertical = nn.Conv2d(channels, 2 * channels, (self.reach + 1, kernel_size))
        self.horizontal = nn.Conv2d(channels, 2 * channels, (1, self.reach + 1))
        self.across = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.residual = nn.Conv2d(channels, channels, 1)
        self.for_above = nn.Linear(condition_dim, 2 * channels) if condition_dim else None
        self.for_beside = nn.Linear(condition_dim, 2 * channels) if condition_dim else None

    def above(self, rows: Tensor) -> Tensor:
        """Return the vertical convolution of all rows but the first ``reach``."""
        seen: Tensor = self.vertical(pad(rows, (self.reach, self.reach)))
        return seen

    def gate(self, above: Tensor, condition: Tensor | None) -> Tensor:
        """Return the vertical stack's next rows."""
        return _gate(_shifted(above, self.for_above, condition))

    def beside(self, row: Tensor, seen: Tensor, condition: Tensor | None) -> Tensor:
        """Return the next rows of the horizontal stack, from its own rows and those above."""
        inputs = pad(row, (self.reach + self.first, 0))
        beside = self.horizontal(inputs[..., :-1] if self.first else inputs) + seen
        residual: Tensor = self.residual(_gate(_shifted(beside, self.for_beside, condition)))
        return residual if self.first else row + residual


def _shifted(maps: Tensor, bias: nn.Linear | None, condition: Tensor | None) -> Tensor:
    return maps if bias is None else maps + bias(condition)[..., None, None]


def _gate(x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    return torch.tanh(a) * torch.sigmoid(b)


def _embeddings(levels: int, num_codes: int, channels: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Embedding(num_codes, channels) for _ in range(levels))
