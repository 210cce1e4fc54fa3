"""The networks of the thesis, one preset a table, layer by layer.

A table's last layer of the encoder, to the mean and covariance of the posterior, is the model's own
head, and the last activation of its decoder the likelihood's link: neither is part of a preset. The
tables give no padding. An encoder pads by half a kernel, so that a stride of 2 halves; a decoder
starts from the grid whose doublings, rounded up, give the image, and pads to meet them. Both take
images of other sizes too, ``(H, W)`` or ``(C, H, W)``.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from chartae.errors import ConfigurationError
from chartae.nn.conv import split_shape
from chartae.nn.mlp import mlp_decoder, mlp_encoder
from chartae.nn.registry import register_decoder, register_encoder

__all__ = ["BottleneckBlock"]

Shape = tuple[int, ...]
Factory = Callable[[int], nn.Module]
"""From the number of channels to a module that keeps it."""


class _Conv(NamedTuple):
    """A row of a table, Conv(channels, kernel, stride); the padding is half a kernel if None."""

    channels: int
    kernel: int
    stride: int | tuple[int, int] = 2
    padding: int | None = None

    @property
    def strides(self) -> tuple[int, int]:
        return self.stride if isinstance(self.stride, tuple) else (self.stride, self.stride)


Row = _Conv | Factory


class BottleneckBlock(nn.Module):
    """The thesis' ResBlock: x + conv1x1(relu(conv3x3(relu(x)))), through 32 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.body(x)
        return x + residual


def _plain(activation: type[nn.Module]) -> Factory:
    return lambda channels: activation()


RELU, LEAKY = _plain(nn.ReLU), _plain(nn.LeakyReLU)
TANH, SIGMOID = _plain(nn.Tanh), _plain(nn.Sigmoid)
NORM: Factory = nn.BatchNorm2d
RES: Factory = BottleneckBlock


def _each(convolutions: Sequence[_Conv], *after: Factory) -> list[Row]:
    """Return the convolutions, each followed by ``after``."""
    rows: list[Row] = []
    for convolution in convolutions:
        rows += [convolution, *after]
    return rows


def _split(shape: Shape) -> tuple[int, Shape]:
    channels, spatial = split_shape(shape)
    if len(spatial) != 2:
        raise ConfigurationError(f"shape {shape}: this preset expects images, (H, W) or (C, H, W)")
    return channels, spatial


def _encoder(input_shape: Shape, rows: Sequence[Row]) -> nn.Module:
    channels, _ = _split(input_shape)
    layers: list[nn.Module] = []
    if len(input_shape) == 2:
        layers.append(nn.Unflatten(1, (1, input_shape[0])))
    for row in rows:
        if not isinstance(row, _Conv):
            layers.append(row(channels))
            continue
        padding = (row.kernel - 1) // 2 if row.padding is None else row.padding
        layers.append(nn.Conv2d(channels, row.channels, row.kernel, row.stride, padding))
        channels = row.channels
    return nn.Sequential(*layers, nn.Flatten())


def _decoder(
    latent_dim: int,
    output_shape: Shape,
    channels: int,
    rows: Sequence[Row],
    *,
    grid: Shape | None = None,
) -> nn.Module:
    """Return a linear layer to ``channels`` of a grid, and the rows, to the image.

    The last convolution has the channels of the image, whatever its row says.
    """
    image_channels, spatial = _split(output_shape)
    convolutions = [row for row in rows if isinstance(row, _Conv)]
    sizes = [spatial]
    for last in reversed(convolutions):
        kernels = (last.kernel, last.kernel)
        sizes.insert(0, tuple(map(_before, sizes[0], kernels, last.strides)))
    size = grid or sizes[0]
    layers: list[nn.Module] = [nn.Linear(latent_dim, channels * math.prod(size))]
    layers.append(nn.Unflatten(1, (channels, *size)))
    targets = iter(sizes[1:])
    for row in rows:
        if not isinstance(row, _Conv):
            layers.append(row(channels))
            continue
        above = image_channels if row is convolutions[-1] else row.channels
        layer, size = _enlarge(channels, above, row, size, next(targets))
        layers.append(layer)
        channels = above
    if size != spatial:
        raise ConfigurationError(
            f"output_shape={output_shape}: this preset's layers give images of {size}"
        )
    return nn.Sequential(*layers, nn.Flatten(), nn.Unflatten(1, tuple(output_shape)))


def _before(size: int, kernel: int, stride: int) -> int:
    """Return the size that a transposed convolution takes to ``size``."""
    if stride == 1:  # an even kernel changes the size by an odd number
        return size if kernel % 2 else max(1, size - 1)
    return -(-size // stride)


def _enlarge(
    below: int, above: int, row: _Conv, size: Shape, target: Shape
) -> tuple[nn.Module, Shape]:
    """Return a transposed convolution from ``size`` to ``target``, or as near as it can come."""
    padding, extra, reached = [], [], []
    for n, m, stride in zip(size, target, row.strides, strict=True):
        full = (n - 1) * stride + row.kernel
        crop = max(full - m, -1 if stride > 1 else 0)
        padding.append((crop + 1) // 2)
        extra.append(crop % 2 if stride > 1 else 0)
        reached.append(full - 2 * padding[-1] + extra[-1])
    h, w = range(2)
    layer = nn.ConvTranspose2d(
        below,
        above,
        row.kernel,
        row.stride,
        (padding[h], padding[w]),
        output_padding=(extra[h], extra[w]),
    )
    return layer, tuple(reached)


# --- Tables 1.10, 1.13, 2.5, 3.4 (SVHN), 5.3 (Starmen), 6.4 (rotMNIST): perceptrons ---------------


@register_encoder("thesis/mnist")
def _thesis_mnist_encoder(input_shape: Shape) -> nn.Module:
    """Tables 1.10 and 2.5, synthetic shapes, MNIST, EMNIST, Fashion: (D, 400)."""
    return mlp_encoder(input_shape, hidden=(400,))


@register_decoder("thesis/mnist")
def _thesis_mnist_decoder(latent_dim: int, output_shape: Shape) -> nn.Module:
    """Tables 1.10 and 2.5, synthetic shapes, MNIST, EMNIST, Fashion: (d, 400), (400, D)."""
    return mlp_decoder(latent_dim, output_shape, hidden=(400,))


@register_encoder("thesis/adni")
def _thesis_adni_encoder(input_shape: Shape) -> nn.Module:
    """Table 1.13: (D, 500), (500, 500), (500, 400)."""
    return mlp_encoder(input_shape, hidden=(500, 500, 400))


@register_decoder("thesis/adni")
def _thesis_adni_decoder(latent_dim: int, output_shape: Shape) -> nn.Module:
    """Table 1.13: (d, 400), (400, 500), (500, 500), (500, D)."""
    return mlp_decoder(latent_dim, output_shape, hidden=(400, 500, 500))


@register_encoder("thesis/oasis")
def _thesis_oasis_encoder(input_shape: Shape) -> nn.Module:
    """Table 2.5, OASIS: (D, 1000), (1000, 400)."""
    return mlp_encoder(input_shape, hidden=(1000, 400))


@register_decoder("thesis/oasis")
def _thesis_oasis_decoder(latent_dim: int, output_shape: Shape) -> nn.Module:
    """Table 2.5, OASIS: (d, 400), (400, 1000), (1000, D)."""
    return mlp_decoder(latent_dim, output_shape, hidden=(400, 1000))


@register_encoder("thesis/svhn")
def _thesis_svhn_encoder(input_shape: Shape) -> nn.Module:
    """Table 3.4, SVHN: (3072, 1000), (1000, 500)."""
    return mlp_encoder(input_shape, hidden=(1000, 500))


@register_decoder("thesis/svhn")
def _thesis_svhn_decoder(latent_dim: int, output_shape: Shape) -> nn.Module:
    """Table 3.4, SVHN: (16, 500), (500, 1000), (1000, 3072)."""
    return mlp_decoder(latent_dim, output_shape, hidden=(500, 1000))


@register_encoder("thesis/starmen")
def _thesis_starmen_encoder(input_shape: Shape) -> nn.Module:
    """Table 5.3, Starmen: (4096, 512)."""
    return mlp_encoder(input_shape, hidden=(512,))


@register_decoder("thesis/starmen")
def _thesis_starmen_decoder(latent_dim: int, output_shape: Shape) -> nn.Module:
    """Table 5.3, Starmen: (8, 512), (512, 4096)."""
    return mlp_decoder(latent_dim, output_shape, hidden=(512,))


@register_encoder("thesis/rotmnist")
def _thesis_rotmnist_encoder(input_shape: Shape) -> nn.Module:
    """Table 6.4, rotMNIST and colorMNIST: (D, 1024), (1024, 256)."""
    return mlp_encoder(input_shape, hidden=(1024, 256))


@register_decoder("thesis/rotmnist")
def _thesis_rotmnist_decoder(latent_dim: int, output_shape: Shape) -> nn.Module:
    """Table 6.4, rotMNIST and colorMNIST: (16, 256), (256, 1024), (1024, D)."""
    return mlp_decoder(latent_dim, output_shape, hidden=(256, 1024))


# --- Tables 1.12, 3.4, 4.5 and 5.3: convolutions --------------------------------------------------

FOUR = [_Conv(128, 4), _Conv(256, 4), _Conv(512, 4), _Conv(1024, 4)]
FOUR_WIDE = [_Conv(128, 5), _Conv(256, 5), _Conv(512, 5), _Conv(1024, 5)]


@register_encoder("thesis/cifar")
@register_encoder("thesis/mnist_conv")
@register_encoder("thesis/cifar_conv")
@register_encoder("thesis/celeba_conv")
@register_encoder("thesis/celeba_grey")
def _four_convolutions(input_shape: Shape) -> nn.Module:
    """Tables 1.12, 3.4 (CIFAR10, and MNIST in 32 x 32), 4.5 (all) and 5.3 (CelebA).

    Conv(128, 4, 2), Conv(256, 4, 2), Conv(512, 4, 2), Conv(1024, 4, 2), each with BN and ReLU.
    """
    return _encoder(input_shape, _each(FOUR, NORM, RELU))


@register_decoder("thesis/cifar")
def _cifar_decoder(latent_dim: int, output_shape: Shape) -> nn.Module:
    """Tables 1.12, and 3.4 for CIFAR10 and MNIST in 32 x 32.

    Linear(65536) to (1024, 8, 8), ConvT(512, 4, 2), ConvT(256, 4, 2), ConvT(3, 4, 1), each with
    BN, the last one too, and the first two with ReLU.
    """
    rows = [*_each([_Conv(512, 4), _Conv(256, 4)], NORM, RELU), _Conv(3, 4, 1), NORM]
    return _decoder(latent_dim, output_shape, 1024, rows)


@register_decoder("thesis/mnist_conv")
def _mnist_conv_decoder(latent_dim: int, output_shape: Shape) -> nn.Module:
    """Table 4.5, MNIST: Linear(16384) to (1024, 4, 4), ConvT(512, 3, 2), ConvT(256, 3, 2), both
    with BN and ReLU, ConvT(1, 3, 2) (printed as Conv).
    """
    rows = [*_each([_Conv(512, 3), _Conv(256, 3)], NORM, RELU), _Conv(1, 3)]
    return _decoder(latent_dim, output_shape, 1024, rows)


@register_decoder("thesis/cifar_conv")
def _cifar_conv_decoder(latent_dim: int, output_shape: Shape) -> nn.Module:
    """Table 4.5, CIFAR10: Linear(65536) to (1024, 8, 8), ConvT(512, 4, 2), ConvT(256, 4, 2), both
    with BN and ReLU, ConvT(3, 4, 1) (printed as Conv).
    """
    rows = [*_each([_Conv(512, 4), _Conv(256, 4)], NORM, RELU), _Conv(3, 4, 1)]
    return _decoder(latent_dim, output_shape, 1024, rows)


@register_decoder("thesis/celeba_conv")
def _celeba_conv_decoder(latent_dim: int, output_shape: Shape) -> nn.Module:
    """Table 4.5, CELEBA: Linear(65536) to (1024, 8, 8), ConvT(512, 5, 2), ConvT(256, 5, 2),
    ConvT(128, 5, 2), all with BN and ReLU, ConvT(3, 5, 1).
    """
    rows = [
        *_each([_Conv(512, 5), _Conv(256, 5), _Conv(128, 5)], NORM, RELU),
        _Conv(3, 5, 1),
    ]
    return _decoder(latent_dim, output_shape, 1024, rows)


@register_encoder("thesis/celeba")
def _celeba_encoder(input_shape: Shape) -> nn.Module:
    """Table 3.4, CELEBA: Conv(128, 5, 2), Conv(256, 5, 2), Conv(512, 5, 2), Conv(1024, 5, 2), each
    with BN and ReLU.
    """
    return _encoder(input_shape, _each(FOUR_WIDE, NORM, RELU))


@register_decoder("thesis/celeba")
def _celeba_decoder(latent_dim: int, output_shape: Shape) -> nn.Module:
    """Table 3.4, CELEBA: that of Table 4.5 with BN after the last layer too."""
    rows = [
        *_each([_Conv(512, 5), _Conv(256, 5), _Conv(128, 5)], NORM, RELU),
        _Conv(3, 5, 1),
        NORM,
    ]
    return _decoder(latent_dim, output_shape, 1024, rows)


@register_encoder("thesis/oasis_conv")
def _oasis_conv_encoder(input_shape: Shape) -> nn.Module:
    """Table 3.4, OASIS: Conv(64, 5, 2), Conv(128, 5, 2), Conv(256, 5, 2), Conv(512, 5, 2),
    Conv(1024, 5, 2), each with ReLU.

    The table's head, Linear(4096, 16), asks for a 2 x 2 map, which its layers do not make of
    208 x 176 with any padding: here the map is 7 x 6.
    """
    return _encoder(input_shape, _each([_Conv(64, 5), *FOUR_WIDE], RELU))


@register_decoder("thesis/oasis_conv")
def _oasis_conv_decoder(latent_dim: int, output_shape: Shape) -> nn.Module:
    """Table 3.4, OASIS: Linear(65536) to (1024, 8, 8), ConvT(512, 5, (3, 2)), ConvT(256, 5, 2),
    ConvT(128, 5, 2), ConvT(64, 5, 2), each with ReLU, ConvT(1, 5, 1).

    The table ends in a ReLU, as others do in a sigmoid; that is the likelihood's. The grid is
    fixed, so images must be near 208 x 176.
    """
    inner = [_Conv(512, 5, (3, 2)), _Conv(256, 5), _Conv(128, 5), _Conv(64, 5)]
    rows = [*_each(inner, RELU), _Conv(1, 5, 1)]
    return _decoder(latent_dim, output_shape, 1024, rows, grid=(8, 8))


@register_decoder("thesis/celeba_grey")
def _celeba_grey_decoder(latent_dim: int, output_shape: Shape) -> nn.Module:
    """Table 5.3, CelebA in grey, 64 x 64: Linear(64, 16384), ConvT(512, 5, 2), ConvT(256, 5, 2),
    ConvT(128, 5, 2) (printed as Conv), all with BN and ReLU, ConvT(1, 5, 1).

    16384 is read as (256, 8, 8), from which three doublings give 64; the table does not say.
    """
    rows = [
        *_each([_Conv(512, 5), _Conv(256, 5), _Conv(128, 5)], NORM, RELU),
        _Conv(1, 5, 1),
    ]
    return _decoder(latent_dim, output_shape, 256, rows)


@register_encoder("thesis/adni_conv")
def _adni_conv_encoder(input_shape: Shape) -> nn.Module:
    """Table 5.3, ADNI, 182 x 182: Conv(64, 4, 2), Conv(128, 4, 2), Conv(256, 4, 2),
    Conv(512, 4, 2), Conv(1024, 4, 2), each with BN and ReLU.

    The odd maps, of 91 and 23, are padded by 2: the table's head has 36864 = 1024 x 6 x 6 inputs.
    """
    rows = [
        _Conv(64, 4),
        _Conv(128, 4, 2, 2),
        _Conv(256, 4),
        _Conv(512, 4, 2, 2),
        _Conv(1024, 4),
    ]
    return _encoder(input_shape, _each(rows, NORM, RELU))


@register_decoder("thesis/adni_conv")
def _adni_conv_decoder(latent_dim: int, output_shape: Shape) -> nn.Module:
    """Table 5.3, ADNI: Linear(8, 36864) to (1024, 6, 6), ConvT(512, 4, 2), ConvT(256, 4, 2),
    ConvT(128, 4, 2), ConvT(64, 4, 2), all with BN and ReLU, ConvT(1, 4, 2).
    """
    inner = [_Conv(512, 4), _Conv(256, 4), _Conv(128, 4), _Conv(64, 4)]
    return _decoder(latent_dim, output_shape, 1024, [*_each(inner, NORM, RELU), _Conv(1, 4)])


# --- Tables 4.6 and 6.4: residual blocks ----------------------------------------------------------


@register_encoder("thesis/mnist_resnet")
def _mnist_resnet_encoder(input_shape: Shape) -> nn.Module:
    """Table 4.6, MNIST: Conv(64, 4, 2), Conv(128, 4, 2), Conv(128, 3, 2), two ResBlocks."""
    return _encoder(input_shape, [_Conv(64, 4), _Conv(128, 4), _Conv(128, 3), RES, RES])


@register_decoder("thesis/mnist_resnet")
def _mnist_resnet_decoder(latent_dim: int, output_shape: Shape) -> nn.Module:
    """Table 4.6, MNIST: Linear(2048) to (128, 4, 4), ConvT(128, 3, 2), two ResBlocks, ReLU,
    ConvT(64, 3, 2), ReLU, ConvT(1, 3, 2).
    """
    rows: list[Row] = [_Conv(128, 3), RES, RES, RELU, _Conv(64, 3), RELU, _Conv(1, 3)]
    return _decoder(latent_dim, output_shape, 128, rows)


@register_encoder("thesis/cifar_resnet")
def _cifar_resnet_encoder(input_shape: Shape) -> nn.Module:
    """Table 4.6, CIFAR10: Conv(64, 4, 2), Conv(128, 4, 2), Conv(128, 3, 1), two ResBlocks."""
    return _encoder(input_shape, [_Conv(64, 4), _Conv(128, 4), _Conv(128, 3, 1), RES, RES])


@register_decoder("thesis/cifar_resnet")
def _cifar_resnet_decoder(latent_dim: int, output_shape: Shape) -> nn.Module:
    """Table 4.6, CIFAR10: Linear(8192) to (128, 8, 8), two ResBlocks, ConvT(64, 4, 2),
    ConvT(3, 4, 2).
    """
    return _decoder(latent_dim, output_shape, 128, [RES, RES, _Conv(64, 4), _Conv(3, 4)])


@register_encoder("thesis/celeba_resnet")
def _celeba_resnet_encoder(input_shape: Shape) -> nn.Module:
    """Table 4.6, CELEBA: Conv(64, 4, 2), Conv(128, 4, 2), Conv(128, 3, 2) twice, two ResBlocks."""
    rows: list[Row] = [_Conv(64, 4), _Conv(128, 4), _Conv(128, 3), _Conv(128, 3), RES, RES]
    return _encoder(input_shape, rows)


@register_decoder("thesis/celeba_resnet")
def _celeba_resnet_decoder(latent_dim: int, output_shape: Shape) -> nn.Module:
    """Table 4.6, CELEBA: Linear(2048) to (128, 4, 4), ConvT(128, 3, 2), two ResBlocks,
    ConvT(128, 5, 2), Sigmoid, ConvT(64, 5, 2), Sigmoid, ConvT(3, 4, 2).

    The inner sigmoids are the table's.
    """
    rows: list[Row] = [
        _Conv(128, 3),
        RES,
        RES,
        _Conv(128, 5),
        SIGMOID,
        _Conv(64, 5),
        SIGMOID,
        _Conv(3, 4),
    ]
    return _decoder(latent_dim, output_shape, 128, rows)


@register_encoder("thesis/sprites")
def _sprites_encoder(input_shape: Shape) -> nn.Module:
    """Table 6.4, Starmen, 3d chairs and Sprites: Conv(16, 4, 2), then Conv(32, 4, 2),
    Conv(64, 3, 2), Conv(128, 3, 2), each with leaky ReLU, six ResBlocks.
    """
    inner = _each([_Conv(32, 4), _Conv(64, 3), _Conv(128, 3)], LEAKY)
    rows: list[Row] = [_Conv(16, 4), *inner, *[RES] * 6]
    return _encoder(input_shape, rows)


@register_decoder("thesis/sprites")
def _sprites_decoder(latent_dim: int, output_shape: Shape) -> nn.Module:
    """Table 6.4, Starmen, 3d chairs and Sprites: Linear(2048), ConvT(128, 3, 2), six ResBlocks,
    ConvT(64, 5, 2), ConvT(32, 5, 2), ConvT(16, 4, 2), each with leaky ReLU, ConvT(3, 4, 2).

    2048 is read as (512, 2, 2), from which the table's five doublings give 64; its author's code
    has one layer less, without the 16 channels, and starts from (128, 4, 4).
    """
    inner = _each([_Conv(64, 5), _Conv(32, 5), _Conv(16, 4)], LEAKY)
    rows: list[Row] = [_Conv(128, 3), *[RES] * 6, *inner, _Conv(3, 4)]
    return _decoder(latent_dim, output_shape, 512, rows)


# --- discriminators (section 4.6) -----------------------------------------------------------------


@register_encoder("thesis/discriminator")
def _discriminator(input_shape: Shape) -> nn.Module:
    """Of the VAEGAN on MNIST and CIFAR10: the encoder of Table 4.5 without BN, Tanh in layer 2."""
    activations = [RELU, TANH, RELU, RELU]
    rows: list[Row] = [row for pair in zip(FOUR, activations, strict=True) for row in pair]
    return _encoder(input_shape, rows)


@register_encoder("thesis/celeba_discriminator")
def _celeba_discriminator(input_shape: Shape) -> nn.Module:
    """Of the VAEGAN on CELEBA: the encoder of Table 4.5, with Tanh in layer 2."""
    activations = [RELU, TANH, RELU, RELU]
    rows: list[Row] = [
        row for layer, f in zip(FOUR, activations, strict=True) for row in (layer, NORM, f)
    ]
    return _encoder(input_shape, rows)
