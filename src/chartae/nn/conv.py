"""Convolutional networks, plain and residual, for signals, images and volumes of any size."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from chartae.checks import check_boolean, check_integer
from chartae.errors import ConfigurationError
from chartae.nn.registry import register_decoder, register_encoder

__all__ = [
    "ResidualBlock",
    "conv3d_decoder",
    "conv3d_encoder",
    "conv_decoder",
    "conv_encoder",
    "conv_map_decoder",
    "conv_map_encoder",
    "resnet_decoder",
    "resnet_encoder",
]

CONV: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, type[nn.Module]] = {
    1: nn.ConvTranspose1d,
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}

Stride = int | Sequence[int] | Sequence[Sequence[int]]
"""One number; or one for each axis; or one for each axis of each layer."""
Kernel = int | Sequence[int]
"""One number, or one for each axis."""


def split_shape(shape: tuple[int, ...], dims: int | None = None) -> tuple[int, tuple[int, ...]]:
    """Return (channels, spatial shape). Shapes without a channel axis have one channel.

    ``dims`` is the number of spatial axes. Without it, (D,) and (H, W) have no channel axis, and
    the first of three or four axes is the channel axis. Signals (C, L) and volumes (D, H, W)
    therefore need ``dims``.

    >>> split_shape((28, 28)), split_shape((3, 32, 32)), split_shape((8, 32, 32), dims=3)
    ((1, (28, 28)), (3, (32, 32)), (1, (8, 32, 32)))
    >>> split_shape((12, 1000), dims=1)
    (12, (1000,))
    """
    if dims is None:
        dims = {1: 1, 2: 2, 3: 2, 4: 3}.get(len(shape), 0)
        wanted = {0: "(D,), (H, W), (C, H, W) or (C, D, H, W), or another shape with dims"}
    else:
        check_integer("dims", dims, minimum=1, maximum=3)
        axes = {1: "L", 2: "H, W", 3: "D, H, W"}[dims]
        wanted = {dims: f"({axes}{',' * (dims == 1)}) or (C, {axes}) for dims={dims}"}
    if dims and len(shape) == dims:
        return 1, tuple(shape)
    if dims and len(shape) == dims + 1:
        return shape[0], tuple(shape[1:])
    raise ConfigurationError(f"input_shape={shape}: convolutions expect {wanted[dims]}")


class Pyramid(NamedTuple):
    """The feature maps of a network, from the data to the smallest map, and its convolutions.

    Attributes:
        shape: shape of the data, with or without channels.
        channels: number of channels of each map, starting with the data.
        sizes: the spatial shape of each map.
        strides: strides of each layer, one for each axis.
        kernel: kernel width for each axis, odd.
    """

    shape: tuple[int, ...]
    channels: tuple[int, ...]
    sizes: list[tuple[int, ...]]
    strides: list[tuple[int, ...]]
    kernel: tuple[int, ...]

    @property
    def dims(self) -> int:
        """The number of spatial axes."""
        return len(self.kernel)

    @property
    def top(self) -> tuple[int, ...]:
        """Shape of the smallest map, with channels."""
        return (self.channels[-1], *self.sizes[-1])

    def layer(self, index: int, below: int, above: int) -> dict[str, Any]:
        """Return the arguments that convolution ``index`` and its transpose share."""
        padding = tuple(size // 2 for size in self.kernel)
        shared = {"kernel_size": self.kernel, "stride": self.strides[index], "padding": padding}
        return {"in_channels": below, "out_channels": above, **shared}


def pyramid(
    shape: tuple[int, ...],
    channels: Sequence[int],
    dims: int | None = None,
    stride: Stride = 2,
    kernel: Kernel = 3,
    *,
    mirrored: bool = False,
) -> Pyramid:
    """Return the feature maps of convolutions with ``channels`` for data of a given shape.

    A stride divides a size and rounds up, so that any shape works. With ``mirrored``, channels and
    strides are given from the smallest map to the data, as in a decoder.

    >>> pyramid((28, 20), (32, 64)).sizes
    [(28, 20), (14, 10), (7, 5)]
    >>> pyramid((9, 32, 32), (8, 16), dims=3, stride=[(1, 2, 2), (2, 2, 2)]).sizes
    [(9, 32, 32), (9, 16, 16), (5, 8, 8)]
    """
    if not isinstance(channels, Sequence) or isinstance(channels, str) or not channels:
        raise ConfigurationError(f"channels={channels!r}: expected one number for each layer")
    for number in channels:
        check_integer("channels", number, minimum=1)
    in_channels, spatial = split_shape(shape, dims)
    strides = _strides(stride, len(spatial), len(channels))
    kernel = _per_axis("kernel", kernel, len(spatial))
    if mirrored:
        channels, strides = channels[::-1], strides[::-1]
    if any(size % 2 == 0 for size in kernel):
        raise ConfigurationError(f"kernel={kernel}: expected odd numbers")
    sizes = [spatial]
    for steps in strides:
        sizes.append(tuple(-(-n // step) for n, step in zip(sizes[-1], steps, strict=True)))
    return Pyramid(tuple(shape), (in_channels, *channels), sizes, strides, kernel)


def _is_nested(stride: Stride) -> TypeGuard[Sequence[Sequence[int]]]:
    return isinstance(stride, Sequence) and any(isinstance(row, Sequence) for row in stride)


def _strides(stride: Stride, axes: int, layers: int) -> list[tuple[int, ...]]:
    if not _is_nested(stride):
        return [_per_axis("stride", stride, axes)] * layers
    if len(stride) != layers:
        raise ConfigurationError(
            f"stride={stride!r}: expected one entry for each of the {layers} layers in channels"
        )
    return [_per_axis("stride", row, axes) for row in stride]


def _per_axis(name: str, value: object, axes: int) -> tuple[int, ...]:
    values = value if isinstance(value, Sequence) else [value] * axes
    if len(values) != axes:
        raise ConfigurationError(
            f"{name}={value!r}: expected one number, or {axes} numbers, one for each axis"
        )
    for number in values:
        check_integer(name, number, minimum=1)
    return tuple(values)


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), of the same shape as x."""

    def __init__(self, channels: int, dims: int) -> None:
        super().__init__()
        groups = math.gcd(channels, 8)
        self.body = nn.Sequential(
            nn.GroupNorm(groups, channels),
            nn.SiLU(),
            CONV[dims](channels, channels, 3, padding=1),
            nn.GroupNorm(groups, channels),
            nn.SiLU(),
            CONV[dims](channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.body(x)
        return x + residual


_COSTLY = (*CONV.values(), *TRANSPOSED.values(), ResidualBlock)


def _down(maps: Pyramid, blocks: int) -> list[nn.Module]:
    """Return layers from the data to the smallest map."""
    # Vectors, grey images and volumes without a channel axis get one.
    implicit = len(maps.shape) == maps.dims
    layers: list[nn.Module] = [nn.Unflatten(1, (1, maps.shape[0]))] if implicit else []
    for index, (below, above) in enumerate(pairwise(maps.channels)):
        layers += [CONV[maps.dims](**maps.layer(index, below, above)), nn.SiLU()]
        layers += [ResidualBlock(above, maps.dims) for _ in range(blocks)]
    return layers


def _up(maps: Pyramid, blocks: int) -> list[nn.Module]:
    """Return layers from the smallest map to the data: the mirror of `_down`."""
    layers: list[nn.Module] = []
    for index in reversed(range(len(maps.strides))):
        above, below = maps.channels[index : index + 2]
        large, small = maps.sizes[index : index + 2]
        layers += [ResidualBlock(below, maps.dims) for _ in range(blocks)]
        # A stride s turns n into s (n - 1) + 1 to s n, depending on the output padding. The
        # padding is chosen so that the result is the size before the division.
        padding = tuple(
            m - s * (n - 1) - 1 for n, m, s in zip(small, large, maps.strides[index], strict=True)
        )
        transposed = TRANSPOSED[maps.dims]
        layers += [
            transposed(**maps.layer(index, below, above), output_padding=padding),
            nn.SiLU(),
        ]
    return [*layers[:-1], nn.Flatten(), nn.Unflatten(1, maps.shape)]


class Recomputed(nn.Sequential):
    """Layers that compute their maps again in the backward pass (Chen et al., 2016).

    Training keeps only the inputs of convolutions and residual blocks. Gradients are the same.
    """

    def forward(self, input: Tensor) -> Tensor:
        layers = list(self)
        if not (self.training and torch.is_grad_enabled()):
            return _in_turn(layers, input)
        starts = [i for i, layer in enumerate(layers) if isinstance(layer, _COSTLY)]
        for start, end in pairwise(sorted({0, *starts, len(layers)})):
            # None of the layers draws random numbers.
            input = checkpoint(
                _in_turn, layers[start:end], input, use_reentrant=False, preserve_rng_state=False
            )
        return input


def _in_turn(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _sequence(layers: Sequence[nn.Module], recompute: bool) -> nn.Module:
    check_boolean("recompute", recompute)
    return Recomputed(*layers) if recompute else nn.Sequential(*layers)


def _encoder(maps: Pyramid, features: int, recompute: bool, blocks: int = 0) -> nn.Module:
    last = nn.Linear(math.prod(maps.top), features)
    return _sequence([*_down(maps, blocks), nn.Flatten(), last, nn.SiLU()], recompute)


def _decoder(
    latent_dim: int, maps: Pyramid, features: int, recompute: bool, blocks: int = 0
) -> nn.Module:
    layers: list[nn.Module] = [nn.Linear(latent_dim, features), nn.SiLU()]
    layers += [nn.Linear(features, math.prod(maps.top)), nn.SiLU(), nn.Unflatten(1, maps.top)]
    return _sequence([*layers, *_up(maps, blocks)], recompute)


@register_encoder("conv")
def conv_encoder(
    input_shape: tuple[int, ...],
    channels: Sequence[int] = (32, 64),
    features: int = 128,
    dims: int | None = None,
    stride: Stride = 2,
    kernel: Kernel = 3,
    recompute: bool = False,
) -> nn.Module:
    """Return an encoder with strided convolutions and a final linear layer to ``features``.

    Args:
        input_shape: shape of one observation. Without ``dims`` it is ``(D,)``, ``(H, W)``,
            ``(C, H, W)`` or ``(C, D, H, W)``; ``(12, 1000)`` is then an image of height 12.
        channels: number of channels of each layer.
        features: size of the output.
        dims: number of spatial axes: 1 for signals ``(C, L)``, 3 for volumes ``(D, H, W)``.
        stride: factor by which each layer divides sizes, rounding up. One number, or one for each
            axis, or a list with one entry for each layer: ``[(1, 2, 2), (2, 2, 2)]`` for volumes
            with thick slices.
        kernel: width of the convolutions, odd: one number, or one for each axis.
        recompute: whether training computes maps again in the backward pass instead of keeping them
            (gradient checkpointing). It takes less memory and more time, and gives the same
            gradients.

    Raises:
        ConfigurationError: for a wrong number of dimensions, or an option out of range.

    >>> conv_encoder((12, 1000), dims=1)(torch.zeros(5, 12, 1000)).shape
    torch.Size([5, 128])
    """
    return _encoder(pyramid(input_shape, channels, dims, stride, kernel), features, recompute)


@register_decoder("conv")
def conv_decoder(
    latent_dim: int,
    output_shape: tuple[int, ...],
    channels: Sequence[int] = (64, 32),
    features: int = 128,
    dims: int | None = None,
    stride: Stride = 2,
    kernel: Kernel = 3,
    recompute: bool = False,
) -> nn.Module:
    """Return the mirror of `conv_encoder`, with transposed convolutions.

    The options are the same, but channels and strides are given from the smallest map to the data.
    """
    maps = pyramid(output_shape, channels, dims, stride, kernel, mirrored=True)
    return _decoder(latent_dim, maps, features, recompute)


@register_encoder("resnet")
def resnet_encoder(
    input_shape: tuple[int, ...],
    channels: Sequence[int] = (32, 64),
    features: int = 128,
    blocks: int = 1,
    dims: int | None = None,
    stride: Stride = 2,
    kernel: Kernel = 3,
    recompute: bool = False,
) -> nn.Module:
    """Return a `conv_encoder` with ``blocks`` residual blocks after each convolution."""
    return _encoder(
        pyramid(input_shape, channels, dims, stride, kernel), features, recompute, blocks
    )


@register_decoder("resnet")
def resnet_decoder(
    latent_dim: int,
    output_shape: tuple[int, ...],
    channels: Sequence[int] = (64, 32),
    features: int = 128,
    blocks: int = 1,
    dims: int | None = None,
    stride: Stride = 2,
    kernel: Kernel = 3,
    recompute: bool = False,
) -> nn.Module:
    """Return the mirror of `resnet_encoder`."""
    maps = pyramid(output_shape, channels, dims, stride, kernel, mirrored=True)
    return _decoder(latent_dim, maps, features, recompute, blocks)


@register_encoder("conv3d")
def conv3d_encoder(
    input_shape: tuple[int, ...],
    channels: Sequence[int] = (16, 32, 64),
    features: int = 128,
    stride: Stride = 2,
    kernel: Kernel = 3,
    recompute: bool = False,
) -> nn.Module:
    """Return a `conv_encoder` for volumes, ``(D, H, W)`` or ``(C, D, H, W)``."""
    return conv_encoder(input_shape, channels, features, 3, stride, kernel, recompute)


@register_decoder("conv3d")
def conv3d_decoder(
    latent_dim: int,
    output_shape: tuple[int, ...],
    channels: Sequence[int] = (64, 32, 16),
    features: int = 128,
    stride: Stride = 2,
    kernel: Kernel = 3,
    recompute: bool = False,
) -> nn.Module:
    """Return the mirror of `conv3d_encoder`."""
    return conv_decoder(latent_dim, output_shape, channels, features, 3, stride, kernel, recompute)


@register_encoder("conv_map")
def conv_map_encoder(
    input_shape: tuple[int, ...],
    channels: Sequence[int] = (32, 64),
    features: int = 16,
    blocks: int = 1,
    dims: int | None = None,
    stride: Stride = 2,
    kernel: Kernel = 3,
) -> nn.Module:
    """Return a `resnet_encoder` without the dense layer; its output is a map.

    The output has the shape ``(batch, features, h, w)``. It is for models whose latents are a grid
    of codes of size ``features``. Each layer of ``channels`` divides the grid by the stride.
    """
    maps = pyramid(input_shape, channels, dims, stride, kernel)
    return nn.Sequential(*_down(maps, blocks), CONV[maps.dims](channels[-1], features, 1))


@register_decoder("conv_map")
def conv_map_decoder(
    latent_dim: int,
    output_shape: tuple[int, ...],
    channels: Sequence[int] = (64, 32),
    blocks: int = 1,
    features: int | None = None,
    dims: int | None = None,
    stride: Stride = 2,
    kernel: Kernel = 3,
) -> nn.Module:
    """Return the mirror of `conv_map_encoder`. Its input is the flattened map, channel by channel.

    Latents hold ``features`` numbers for each grid position. The remaining numbers, a condition,
    are repeated at all positions. With ``features=None``, ``features`` is as large as possible.
    """
    if features is not None:
        check_integer("features", features, minimum=1)
    maps = pyramid(output_shape, channels, dims, stride, kernel, mirrored=True)
    grid = maps.sizes[-1]
    if latent_dim < math.prod(grid) * (features or 1):
        raise ConfigurationError(
            f"latent_dim={latent_dim}: expected at least {math.prod(grid) * (features or 1)} for a "
            f"map of {grid}; change channels or latent_dim"
        )
    features = latent_dim // math.prod(grid) if features is None else features
    inputs = features + latent_dim - features * math.prod(grid)
    first = CONV[maps.dims](inputs, channels[0], 3, padding=1)
    return nn.Sequential(_Places(features, grid), first, nn.SiLU(), *_up(maps, blocks))


class _Places(nn.Module):
    """Unflatten a map, and append the remaining numbers to the channels of each position."""

    def __init__(self, features: int, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = (features, *grid)

    def forward(self, z: Tensor) -> Tensor:
        size = math.prod(self.shape)
        places, others = z[:, :size].unflatten(1, self.shape), z[:, size:]
        everywhere = others.reshape(*others.shape, *[1] * (len(self.shape) - 1))
        return torch.cat([places, everywhere.expand(-1, -1, *self.shape[1:])], 1)
