"""The likelihood of a table whose columns are of several kinds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn
from torch.types import _size

from chartae.checks import check_integer
from chartae.distributions.base import BatchDistribution
from chartae.distributions.likelihoods import (
    Likelihood,
    Observation,
    make_likelihood,
    register_likelihood,
)
from chartae.distributions.moments import Moments
from chartae.errors import ConfigurationError

__all__ = ["MixedLikelihood"]

Columns = Sequence[Sequence[Any] | Mapping[str, Any]]


class _Blocks(BatchDistribution):
    """Independent observations, concatenated."""

    settings: ClassVar[tuple[str, ...]] = ("blocks",)

    def __init__(self, blocks: Sequence[Observation]) -> None:
        self.blocks = blocks
        self.widths = [block.event_shape[0] for block in blocks]
        event_shape = torch.Size([sum(self.widths)])
        super().__init__(blocks[0].batch_shape, event_shape, validate_args=False)

    def expand(self, batch_shape: _size, _instance: Self | None = None) -> Self:
        new = super().expand(batch_shape, _instance)
        blocks: Sequence[Any] = self.blocks
        new.blocks = [block.expand(batch_shape) for block in blocks]
        return new

    @property
    def mean(self) -> Tensor:
        return torch.cat([block.mean for block in self.blocks], -1)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        return torch.cat([block.sample(torch.Size(sample_shape)) for block in self.blocks], -1)

    def log_prob(self, value: Tensor, mask: Tensor | None = None) -> Tensor:
        values = value.split(self.widths, -1)
        masks = [None] * len(values) if mask is None else mask.split(self.widths, -1)
        triples = zip(self.blocks, values, masks, strict=True)
        return torch.stack([block.log_prob(x, m) for block, x, m in triples]).sum(0)


class _Row(Observation):
    """The observation of blocks. Each block applies the mask by its own rule."""

    base_dist: _Blocks

    def log_prob(self, value: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.base_dist.log_prob(value, mask)


@register_likelihood("mixed")
class MixedLikelihood(Likelihood):
    """A table with continuous, binary, categorical and count columns, in consecutive blocks.

    Args:
        input_shape: ``(D,)``.
        columns: blocks from left to right, whose widths add up to D. A block is ``[name, width]``
            or ``{"name": ..., "width": ..., **options}``, with the name of a likelihood. A
            categorical block is one variable, one-hot over its width.

    Raises:
        ConfigurationError: for an unknown likelihood or option, or widths that do not add up.

    >>> likelihood = MixedLikelihood((6,), columns=[["gaussian", 3], ["categorical", 3]])
    >>> likelihood(torch.zeros(5, 6)).mean[0]
    tensor([0.0000, 0.0000, 0.0000, 0.3333, 0.3333, 0.3333])
    """

    def __init__(self, input_shape: tuple[int, ...], columns: Columns) -> None:
        super().__init__(input_shape)
        blocks = [_read(block) for block in columns]
        self.widths = [width for width, _ in blocks]
        if len(self.input_shape) != 1 or sum(self.widths) != self.input_shape[0]:
            raise ConfigurationError(
                f"columns has blocks of {self.widths}, {sum(self.widths)} in all: expected the "
                f"number of columns of input_shape={self.input_shape}"
            )
        made = [make_likelihood(spec, (width,)) for width, spec in blocks]
        self.blocks = nn.ModuleList(made)
        self.discrete = any(block.discrete for block in made)
        self.has_units = any(block.has_units for block in made)

    def _pieces(self, values: Tensor) -> Iterator[tuple[Likelihood, Tensor]]:
        """Return each block with its columns."""
        blocks = cast(Iterable[Likelihood], self.blocks)
        return zip(blocks, values.split(self.widths, -1), strict=True)

    def forward(self, output: Tensor) -> Observation:
        blocks = [block(piece) for block, piece in self._pieces(output)]
        return _Row(_Blocks(blocks), 0, validate_args=False)

    def set_units(self, moments: Moments) -> None:
        """Set the units of each block from the moments of its columns."""
        for block, piece in zip(self.blocks, moments.split(self.widths), strict=True):
            cast(Likelihood, block).set_units(piece)

    def filled(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return x with the neutral value of each block wherever the mask is False."""
        pieces = zip(self._pieces(x), mask.split(self.widths, -1), strict=True)
        return torch.cat([block.filled(piece, seen) for (block, piece), seen in pieces], -1)

    def encoder_input(self, x: Tensor) -> Tensor:
        """Return x with each block on the scale of its own likelihood."""
        return torch.cat([block.encoder_input(piece) for block, piece in self._pieces(x)], -1)

    def squashed(self, raw: Tensor) -> Tensor:
        """Map unbounded numbers to the support of each block."""
        return torch.cat([block.squashed(piece) for block, piece in self._pieces(raw)], -1)

    def draw(self, output: Tensor) -> Tensor:
        """Return a draw of x, each block from its own likelihood."""
        return torch.cat([block.draw(piece) for block, piece in self._pieces(output)], -1)

    def check_data(self, name: str, x: Tensor) -> None:
        """Raise `DataError` unless each block's data are in its own support."""
        ends = pairwise(accumulate(self.widths, initial=0))
        for (block, piece), (start, end) in zip(self._pieces(x), ends, strict=True):
            block.check_data(f"{name}[..., {start}:{end}]", piece)


def _read(block: Sequence[Any] | Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return the width of a block, and the specification of its likelihood."""
    if isinstance(block, Mapping):
        spec = dict(block)
    elif isinstance(block, (list, tuple)) and len(block) == 2:
        spec = {"name": block[0], "width": block[1]}
    else:
        raise ConfigurationError(f"columns has {block!r}: expected [name, width] or a mapping")
    width = spec.pop("width", None)
    check_integer("width", width, minimum=1)
    return width, spec
