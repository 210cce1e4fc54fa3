"""The networks of the thesis: one preset for each table, layer by layer.

Two layers of the tables are not part of a preset. The last layer of an encoder, to the mean and
covariance of the posterior, is the model's head. The last activation of a decoder is the
likelihood's link. The tables give no padding. An encoder pads by half a kernel, so that a stride of
2 halves sizes. A decoder starts from the grid from which its doublings, rounded up, give the image,
and pads accordingly. Both also accept images of other sizes, ``(H, W)`` or ``(C, H, W)``.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from chartae.errors import ConfigurationError
from chartae.nn.conv import split_shape
from chartae.nn.mlp import mlp_decoder, mlp_encoder
from chartae.nn.registry import register_decoder, register_encoder

__all__ = ["PRESETS", "BottleneckBlock"]

Shape = tuple[int, ...]
Factory = Callable[[int], nn.Module]
"""Maps the number of channels to a module that keeps this number."""


class Conv(NamedTuple):
    """A row of a table, Conv(channels, kernel, stride); padding None is half a kernel."""

    channels: int
    kernel: int
    stride: int | tuple[int, int] = 2
    padding: int | None = None

    @property
    def strides(self) -> tuple[int, int]:
        return self.stride if isinstance(self.stride, tuple) else (self.stride, self.stride)


Row = Conv | Factory


class BottleneckBlock(nn.Module):
    """The thesis' ResBlock: x + conv1x1(relu(conv3x3(relu(x)))), with 32 inner channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.body(x)
        return x + residual


@dataclass(frozen=True)
class Perceptron:
    """Layers of the ``hidden`` sizes in the encoder, and in reverse order in the decoder."""

    source: str
    hidden: tuple[int, ...]

    def encoder(self, input_shape: Shape) -> nn.Module:
        return mlp_encoder(input_shape, self.hidden)

    def decoder(self, latent_dim: int, output_shape: Shape) -> nn.Module:
        return mlp_decoder(latent_dim, output_shape, self.hidden[::-1])


@dataclass(frozen=True)
class Convolutions:
    """The rows of an encoder and of a decoder. The decoder starts with a linear layer to a grid.

    Attributes:
        source: the table.
        down: rows of the encoder.
        channels: number of channels of the grid from which the decoder starts.
        up: rows of the decoder, transposed convolutions. The last one always has the channels of
            the image. Empty for a discriminator, which has no decoder.
        grid: size of the decoder's first maps. None computes it from the rows and the image size.
            With a fixed grid, images must have nearly the size in the table.
    """

    source: str
    down: Sequence[Row]
    channels: int = 0
    up: Sequence[Row] = ()
    grid: Shape | None = None

    def encoder(self, input_shape: Shape) -> nn.Module:
        channels, _ = _split(input_shape)
        layers: list[nn.Module] = []
        if len(input_shape) == 2:
            layers.append(nn.Unflatten(1, (1, input_shape[0])))
        for row in self.down:
            if not isinstance(row, Conv):
                layers.append(row(channels))
                continue
            padding = (row.kernel - 1) // 2 if row.padding is None else row.padding
            layers.append(nn.Conv2d(channels, row.channels, row.kernel, row.stride, padding))
            channels = row.channels
        return nn.Sequential(*layers, nn.Flatten())

    def decoder(self, latent_dim: int, output_shape: Shape) -> nn.Module:
        image_channels, spatial = _split(output_shape)
        convolutions = [row for row in self.up if isinstance(row, Conv)]
        sizes = [spatial]
        for last in reversed(convolutions):
            kernels = (last.kernel, last.kernel)
            sizes.insert(0, tuple(map(_before, sizes[0], kernels, last.strides)))
        channels, size = self.channels, self.grid or sizes[0]
        layers: list[nn.Module] = [nn.Linear(latent_dim, channels * math.prod(size))]
        layers.append(nn.Unflatten(1, (channels, *size)))
        targets = iter(sizes[1:])
        for row in self.up:
            if not isinstance(row, Conv):
                layers.append(row(channels))
                continue
            above = image_channels if row is convolutions[-1] else row.channels
            layer, size = _enlarge(channels, above, row, size, next(targets))
            layers.append(layer)
            channels = above
        if size != spatial:
            raise ConfigurationError(
                f"output_shape={output_shape}: expected images of {size}, the output of this preset"
            )
        return nn.Sequential(*layers, nn.Flatten(), nn.Unflatten(1, tuple(output_shape)))


def _split(shape: Shape) -> tuple[int, Shape]:
    channels, spatial = split_shape(shape)
    if len(spatial) != 2:
        raise ConfigurationError(f"shape {shape}: this preset expects images, (H, W) or (C, H, W)")
    return channels, spatial


def _before(size: int, kernel: int, stride: int) -> int:
    """Return the input size for which a transposed convolution gives ``size``."""
    if stride == 1:  # an even kernel changes the size by an odd number
        return size if kernel % 2 else max(1, size - 1)
    return -(-size // stride)


def _enlarge(
    below: int, above: int, row: Conv, size: Shape, target: Shape
) -> tuple[nn.Module, Shape]:
    """Return a transposed convolution from ``size`` to ``target`` or the nearest possible size,
    and the size that it gives.
    """
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


# --- the tables -----------------------------------------------------------------------------------


def _plain(activation: type[nn.Module]) -> Factory:
    return lambda channels: activation()


RELU, LEAKY = _plain(nn.ReLU), _plain(nn.LeakyReLU)
TANH, SIGMOID = _plain(nn.Tanh), _plain(nn.Sigmoid)
NORM: Factory = nn.BatchNorm2d
RES: Factory = BottleneckBlock


def _convolutions(kernel: int, *channels: int) -> list[Conv]:
    return [Conv(size, kernel) for size in channels]


def _each(convolutions: Sequence[Conv], *after: Factory) -> list[Row]:
    """Return the convolutions, each followed by ``after``."""
    rows: list[Row] = []
    for convolution in convolutions:
        rows += [convolution, *after]
    return rows


FOUR = _convolutions(4, 128, 256, 512, 1024)
FOUR_NORMED = _each(FOUR, NORM, RELU)
TWO_UP = _each(_convolutions(4, 512, 256), NORM, RELU)
THREE_UP = _each(_convolutions(5, 512, 256, 128), NORM, RELU)

PRESETS: dict[str, Perceptron | Convolutions] = {
    "mnist": Perceptron("Tables 1.10, 2.5: synthetic shapes, MNIST, EMNIST, Fashion", (400,)),
    "adni": Perceptron("Table 1.13", (500, 500, 400)),
    "oasis": Perceptron("Table 2.5, OASIS", (1000, 400)),
    "svhn": Perceptron("Table 3.4, SVHN", (1000, 500)),
    "starmen": Perceptron("Table 5.3, Starmen", (512,)),
    "rotmnist": Perceptron("Table 6.4, rotMNIST and colorMNIST", (1024, 256)),
    "cifar": Convolutions(
        "Tables 1.12, 3.4: CIFAR10, and MNIST in 32 x 32",
        *(FOUR_NORMED, 1024, [*TWO_UP, Conv(3, 4, 1), NORM]),
    ),
    "mnist_conv": Convolutions(
        "Table 4.5, MNIST",
        *(FOUR_NORMED, 1024, [*_each(_convolutions(3, 512, 256), NORM, RELU), Conv(1, 3)]),
    ),
    "cifar_conv": Convolutions("Table 4.5, CIFAR10", FOUR_NORMED, 1024, [*TWO_UP, Conv(3, 4, 1)]),
    "celeba_conv": Convolutions("Table 4.5, CELEBA", FOUR_NORMED, 1024, [*THREE_UP, Conv(3, 5, 1)]),
    # 16384 numbers are read as (256, 8, 8): three doublings give 64. The table gives no shape.
    "celeba_grey": Convolutions(
        "Table 5.3, CelebA in grey, 64 x 64", FOUR_NORMED, 256, [*THREE_UP, Conv(1, 5, 1)]
    ),
    "celeba": Convolutions(
        "Table 3.4, CELEBA",
        down=_each(_convolutions(5, 128, 256, 512, 1024), NORM, RELU),
        channels=1024,
        up=[*THREE_UP, Conv(3, 5, 1), NORM],
    ),
    # The head of the table's encoder expects a 2 x 2 map. No padding gives this map for
    # 208 x 176: here the map is 7 x 6. The decoder's table ends in a ReLU, and others end in a
    # sigmoid; here the last activation is the likelihood's link.
    "oasis_conv": Convolutions(
        "Table 3.4, OASIS, 208 x 176",
        down=_each(_convolutions(5, 64, 128, 256, 512, 1024), RELU),
        channels=1024,
        up=[*_each([Conv(512, 5, (3, 2)), *_convolutions(5, 256, 128, 64)], RELU), Conv(1, 5, 1)],
        grid=(8, 8),
    ),
    # Odd maps, of 91 and 23, are padded by 2: the table's head has 36864 = 1024 x 6 x 6 inputs.
    "adni_conv": Convolutions(
        "Table 5.3, ADNI, 182 x 182",
        down=_each(
            [Conv(64, 4), Conv(128, 4, 2, 2), Conv(256, 4), Conv(512, 4, 2, 2), Conv(1024, 4)],
            *(NORM, RELU),
        ),
        channels=1024,
        up=[*_each(_convolutions(4, 512, 256, 128, 64), NORM, RELU), Conv(1, 4)],
    ),
    "mnist_resnet": Convolutions(
        "Table 4.6, MNIST",
        down=[Conv(64, 4), Conv(128, 4), Conv(128, 3), RES, RES],
        channels=128,
        up=[Conv(128, 3), RES, RES, RELU, Conv(64, 3), RELU, Conv(1, 3)],
    ),
    "cifar_resnet": Convolutions(
        "Table 4.6, CIFAR10",
        down=[Conv(64, 4), Conv(128, 4), Conv(128, 3, 1), RES, RES],
        channels=128,
        up=[RES, RES, Conv(64, 4), Conv(3, 4)],
    ),
    # The inner sigmoids are in the table.
    "celeba_resnet": Convolutions(
        "Table 4.6, CELEBA",
        down=[Conv(64, 4), Conv(128, 4), Conv(128, 3), Conv(128, 3), RES, RES],
        channels=128,
        up=[Conv(128, 3), RES, RES, *_each(_convolutions(5, 128, 64), SIGMOID), Conv(3, 4)],
    ),
    # 2048 numbers are read as (512, 2, 2): the table's five doublings give 64. The author's code
    # does not have the layer of 16 channels, and starts from (128, 4, 4).
    "sprites": Convolutions(
        "Table 6.4, Starmen, 3d chairs and Sprites",
        down=[Conv(16, 4), *_each([Conv(32, 4), Conv(64, 3), Conv(128, 3)], LEAKY), *6 * [RES]],
        channels=512,
        up=[
            Conv(128, 3),
            *6 * [RES],
            *_each([Conv(64, 5), Conv(32, 5), Conv(16, 4)], LEAKY),
            Conv(3, 4),
        ],
    ),
    # The encoder of Table 4.5, without batch normalisation on small images.
    "discriminator": Convolutions(
        "Section 4.6, VAEGAN on MNIST and CIFAR10",
        [FOUR[0], RELU, FOUR[1], TANH, *_each(FOUR[2:], RELU)],
    ),
    "celeba_discriminator": Convolutions(
        "Section 4.6, VAEGAN on CELEBA",
        [FOUR[0], NORM, RELU, FOUR[1], NORM, TANH, *_each(FOUR[2:], NORM, RELU)],
    ),
}
"""The presets, by their names after ``thesis/``. Some tables write Conv instead of ConvT."""

for name, preset in PRESETS.items():
    register_encoder(f"thesis/{name}")(preset.encoder)
    if isinstance(preset, Perceptron) or preset.up:
        register_decoder(f"thesis/{name}")(preset.decoder)
