"""Convolutional networks, plain and residual, for vectors, images and volumes of any size."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from chartae.errors import ConfigurationError
from chartae.nn.registry import register_decoder, register_encoder

__all__ = ["ResidualBlock", "conv_decoder", "conv_encoder", "resnet_decoder", "resnet_encoder"]

CONV: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, type[nn.Module]] = {
    1: nn.ConvTranspose1d,
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}


def split_shape(shape: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """Return (channels, spatial shape): (D,) and (H, W) have one channel, others name theirs.

    >>> split_shape((28, 28)), split_shape((3, 32, 32))
    ((1, (28, 28)), (3, (32, 32)))
    """
    if len(shape) in (1, 2):
        return 1, tuple(shape)
    if len(shape) in (3, 4):
        return shape[0], tuple(shape[1:])
    raise ConfigurationError(
        f"input_shape={shape}: convolutions expect (D,), (H, W), (C, H, W) or (C, D, H, W)"
    )


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


def _encoder(
    input_shape: tuple[int, ...], channels: Sequence[int], features: int, blocks: int
) -> nn.Module:
    in_channels, spatial = split_shape(input_shape)
    dims, shapes = len(spatial), halvings(spatial, channels)
    # Vectors and grey images come without a channel: give them one.
    implicit = len(input_shape) == dims
    layers: list[nn.Module] = [nn.Unflatten(1, (1, spatial[0]))] if implicit else []
    for below, above in pairwise([in_channels, *channels]):
        layers += [CONV[dims](below, above, 3, stride=2, padding=1), nn.SiLU()]
        layers += [ResidualBlock(above, dims) for _ in range(blocks)]
    flat = channels[-1] * math.prod(shapes[-1])
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, features), nn.SiLU())


def _decoder(
    latent_dim: int,
    output_shape: tuple[int, ...],
    channels: Sequence[int],
    features: int,
    blocks: int,
) -> nn.Module:
    out_channels, spatial = split_shape(output_shape)
    dims, shapes = len(spatial), halvings(spatial, channels)[::-1]
    start = (channels[0], *shapes[0])
    layers: list[nn.Module] = [nn.Linear(latent_dim, features), nn.SiLU()]
    layers += [nn.Linear(features, math.prod(start)), nn.SiLU(), nn.Unflatten(1, start)]
    stages = zip(pairwise([*channels, out_channels]), pairwise(shapes), strict=True)
    for (below, above), (small, large) in stages:
        layers += [ResidualBlock(below, dims) for _ in range(blocks)]
        # A stride of 2 gives 2n - 1 or 2n, as the padding says: exactly what was halved.
        padding = tuple(m - (2 * n - 1) for n, m in zip(small, large, strict=True))
        layers += [
            TRANSPOSED[dims](below, above, 3, stride=2, padding=1, output_padding=padding),
            nn.SiLU(),
        ]
    return nn.Sequential(*layers[:-1], nn.Flatten(), nn.Unflatten(1, tuple(output_shape)))


@register_encoder("conv")
def conv_encoder(
    input_shape: tuple[int, ...], channels: Sequence[int] = (32, 64), features: int = 128
) -> nn.Module:
    """Return an encoder of 3-wide convolutions of stride 2, and a linear layer to ``features``."""
    return _encoder(input_shape, channels, features, blocks=0)


@register_decoder("conv")
def conv_decoder(
    latent_dim: int,
    output_shape: tuple[int, ...],
    channels: Sequence[int] = (64, 32),
    features: int = 128,
) -> nn.Module:
    """Return the mirror of `conv_encoder`, with transposed convolutions."""
    return _decoder(latent_dim, output_shape, channels, features, blocks=0)


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
