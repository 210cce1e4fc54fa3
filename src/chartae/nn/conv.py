"""Convolutional networks, plain and residual, for vectors, images and volumes of any size."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from chartae.checks import check_integer
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


def split_shape(shape: tuple[int, ...], dims: int | None = None) -> tuple[int, tuple[int, ...]]:
    """Return (channels, spatial shape): (D,) and (H, W) have one channel, others name theirs.

    Of three sizes the first is a channel, unless ``dims`` says that all are spatial.

    >>> split_shape((28, 28)), split_shape((3, 32, 32)), split_shape((8, 32, 32), dims=3)
    ((1, (28, 28)), (3, (32, 32)), (1, (8, 32, 32)))
    """
    if dims is None:
        dims = {1: 1, 2: 2, 3: 2, 4: 3}.get(len(shape))
    if dims is not None and len(shape) == dims:
        return 1, tuple(shape)
    if dims is not None and len(shape) == dims + 1:
        return shape[0], tuple(shape[1:])
    expected = "(D, H, W) or (C, D, H, W)" if dims else "(D,), (H, W), (C, H, W) or (C, D, H, W)"
    raise ConfigurationError(f"input_shape={shape}: convolutions expect {expected}")


def halvings(spatial: tuple[int, ...], channels: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the spatial shapes from ``spatial`` down, halved once for each of ``channels``.

    Halving rounds up and stops at a size of 1, so that any shape works.

    >>> halvings((28, 20), (32, 64))
    [(28, 20), (14, 10), (7, 5)]
    """
    shapes = [tuple(spatial)]
    for _ in channels:
        shapes.append(tuple((size + 1) // 2 for size in shapes[-1]))
    return shapes


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


def _halve(
    input_shape: tuple[int, ...], channels: Sequence[int], blocks: int, dims: int | None
) -> tuple[list[nn.Module], tuple[int, ...]]:
    """Return layers that halve once for each of ``channels``, and the spatial shape they give."""
    in_channels, spatial = split_shape(input_shape, dims)
    dims, shapes = len(spatial), halvings(spatial, channels)
    # Vectors, grey images and plain volumes come without a channel: give them one.
    implicit = len(input_shape) == dims
    layers: list[nn.Module] = [nn.Unflatten(1, (1, spatial[0]))] if implicit else []
    for below, above in pairwise([in_channels, *channels]):
        layers += [CONV[dims](below, above, 3, stride=2, padding=1), nn.SiLU()]
        layers += [ResidualBlock(above, dims) for _ in range(blocks)]
    return layers, shapes[-1]


def _double(
    output_shape: tuple[int, ...], channels: Sequence[int], blocks: int, dims: int | None
) -> list[nn.Module]:
    """Return layers from ``channels[0]`` of the smallest map to the output: the mirror of that."""
    out_channels, spatial = split_shape(output_shape, dims)
    dims, shapes = len(spatial), halvings(spatial, channels)[::-1]
    layers: list[nn.Module] = []
    stages = zip(pairwise([*channels, out_channels]), pairwise(shapes), strict=True)
    for (below, above), (small, large) in stages:
        layers += [ResidualBlock(below, dims) for _ in range(blocks)]
        # A stride of 2 gives 2n - 1 or 2n, as the padding says: exactly what was halved.
        padding = tuple(m - (2 * n - 1) for n, m in zip(small, large, strict=True))
        layers += [
            TRANSPOSED[dims](below, above, 3, stride=2, padding=1, output_padding=padding),
            nn.SiLU(),
        ]
    return [*layers[:-1], nn.Flatten(), nn.Unflatten(1, tuple(output_shape))]


def _encoder(
    input_shape: tuple[int, ...],
    channels: Sequence[int],
    features: int,
    blocks: int = 0,
    dims: int | None = None,
) -> nn.Module:
    layers, spatial = _halve(input_shape, channels, blocks, dims)
    flat = channels[-1] * math.prod(spatial)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, features), nn.SiLU())


def _decoder(
    latent_dim: int,
    output_shape: tuple[int, ...],
    channels: Sequence[int],
    features: int,
    blocks: int = 0,
    dims: int | None = None,
) -> nn.Module:
    _, spatial = split_shape(output_shape, dims)
    start = (channels[0], *halvings(spatial, channels)[-1])
    layers: list[nn.Module] = [nn.Linear(latent_dim, features), nn.SiLU()]
    layers += [nn.Linear(features, math.prod(start)), nn.SiLU(), nn.Unflatten(1, start)]
    return nn.Sequential(*layers, *_double(output_shape, channels, blocks, dims))


@register_encoder("conv")
def conv_encoder(
    input_shape: tuple[int, ...], channels: Sequence[int] = (32, 64), features: int = 128
) -> nn.Module:
    """Return an encoder of 3-wide convolutions of stride 2, and a linear layer to ``features``."""
    return _encoder(input_shape, channels, features)


@register_decoder("conv")
def conv_decoder(
    latent_dim: int,
    output_shape: tuple[int, ...],
    channels: Sequence[int] = (64, 32),
    features: int = 128,
) -> nn.Module:
    """Return the mirror of `conv_encoder`, with transposed convolutions."""
    return _decoder(latent_dim, output_shape, channels, features)


@register_encoder("resnet")
def resnet_encoder(
    input_shape: tuple[int, ...],
    channels: Sequence[int] = (32, 64),
    features: int = 128,
    blocks: int = 1,
) -> nn.Module:
    """Return `conv_encoder` with ``blocks`` residual blocks after each halving."""
    return _encoder(input_shape, channels, features, blocks)


@register_decoder("resnet")
def resnet_decoder(
    latent_dim: int,
    output_shape: tuple[int, ...],
    channels: Sequence[int] = (64, 32),
    features: int = 128,
    blocks: int = 1,
) -> nn.Module:
    """Return the mirror of `resnet_encoder`."""
    return _decoder(latent_dim, output_shape, channels, features, blocks)


@register_encoder("conv3d")
def conv3d_encoder(
    input_shape: tuple[int, ...], channels: Sequence[int] = (16, 32, 64), features: int = 128
) -> nn.Module:
    """Return `conv_encoder` for volumes, ``(D, H, W)`` or ``(C, D, H, W)``."""
    return _encoder(input_shape, channels, features, dims=3)


@register_decoder("conv3d")
def conv3d_decoder(
    latent_dim: int,
    output_shape: tuple[int, ...],
    channels: Sequence[int] = (64, 32, 16),
    features: int = 128,
) -> nn.Module:
    """Return the mirror of `conv3d_encoder`."""
    return _decoder(latent_dim, output_shape, channels, features, dims=3)


@register_encoder("conv_map")
def conv_map_encoder(
    input_shape: tuple[int, ...],
    channels: Sequence[int] = (32, 64),
    features: int = 16,
    blocks: int = 1,
) -> nn.Module:
    """Return `resnet_encoder` that keeps its map, ``(batch, features, h, w)``: no dense layer.

    For the models whose latents are a grid of codes of size ``features``; each of ``channels``
    halves the grid.
    """
    layers, spatial = _halve(input_shape, channels, blocks, None)
    return nn.Sequential(*layers, CONV[len(spatial)](channels[-1], features, 1))


@register_decoder("conv_map")
def conv_map_decoder(
    latent_dim: int,
    output_shape: tuple[int, ...],
    channels: Sequence[int] = (64, 32),
    blocks: int = 1,
    features: int | None = None,
) -> nn.Module:
    """Return the mirror of `conv_map_encoder`, from its map laid flat, channel after channel.

    What latents have besides ``features`` numbers for each place, a condition, goes to all places;
    None takes as many as there can be.
    """
    if features is not None:
        check_integer("features", features, minimum=1)
    _, spatial = split_shape(output_shape)
    grid = halvings(spatial, channels)[-1]
    if latent_dim < math.prod(grid) * (features or 1):
        raise ConfigurationError(
            f"latent_dim={latent_dim}: a map of {grid} needs {math.prod(grid) * (features or 1)} "
            "or more; expected other channels"
        )
    features = latent_dim // math.prod(grid) if features is None else features
    inputs = features + latent_dim - features * math.prod(grid)
    first = CONV[len(grid)](inputs, channels[0], 3, padding=1)
    return nn.Sequential(
        _Places(features, grid), first, nn.SiLU(), *_double(output_shape, channels, blocks, None)
    )


class _Places(nn.Module):
    """Unflatten a map, and give each of its places what comes after it."""

    def __init__(self, features: int, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = (features, *grid)

    def forward(self, z: Tensor) -> Tensor:
        size = math.prod(self.shape)
        places, others = z[:, :size].unflatten(1, self.shape), z[:, size:]
        everywhere = others.reshape(*others.shape, *[1] * (len(self.shape) - 1))
        return torch.cat([places, everywhere.expand(-1, -1, *self.shape[1:])], 1)
