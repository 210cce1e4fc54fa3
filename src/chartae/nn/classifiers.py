"""The bodies of the classifiers of the thesis: a DenseNet, and a small convolutional network."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from chartae.checks import check_integer, check_number
from chartae.errors import ConfigurationError
from chartae.nn.conv import CONV, split_shape
from chartae.nn.registry import register_encoder

__all__ = ["DenseNet", "MRIClassifier", "RegularisedConv", "ThesisClassifier"]

NORM: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
AVERAGE: dict[int, type[nn.Module]] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
MAXIMUM: dict[int, type[nn.Module]] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}


class _Bottleneck(nn.Module):
    """A layer of a dense block: its output is concatenated to its input."""

    def __init__(self, dims: int, channels: int, growth: int) -> None:
        super().__init__()
        conv, norm = CONV[dims], NORM[dims]
        self.layers = nn.Sequential(
            norm(channels),
            nn.ReLU(),
            conv(channels, 4 * growth, 1, bias=False),
            norm(4 * growth),
            nn.ReLU(),
            conv(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.layers(x)], 1)


@register_encoder("densenet")
class DenseNet(nn.Module):
    """Densely connected network with bottlenecks and compression (Huang et al., 2017).

    With its defaults it is the classifier of thesis section 1.8.3: growth 10, depth 20, reduction
    0.5. It has three dense blocks of ``(depth - 4) // 6`` layers, a transition after each of the
    first two, and a mean over positions at the end.

    Args:
        input_shape: ``(C, H, W)``, ``(H, W)``, or ``(C, D, H, W)``.
        growth: channels that a layer adds.
        depth: number of convolutions, at least 10.
        reduction: share of the channels that a transition keeps, in (0, 1].

    Raises:
        ConfigurationError: for a number out of range.

    >>> DenseNet((28, 28))(torch.zeros(2, 28, 28)).shape
    torch.Size([2, 40])
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        *,
        growth: int = 10,
        depth: int = 20,
        reduction: float = 0.5,
    ) -> None:
        super().__init__()
        check_integer("growth", growth, minimum=1)
        check_integer("depth", depth, minimum=10)
        check_number("reduction", reduction, above=0.0, maximum=1.0)
        channels, sizes = split_shape(input_shape)
        dims, self.image_shape = len(sizes), (channels, *sizes)
        conv, norm = CONV[dims], NORM[dims]
        width = 2 * growth
        layers: list[nn.Module] = [conv(channels, width, 3, padding=1, bias=False)]
        for block in range(3):
            for _ in range((depth - 4) // 6):
                layers.append(_Bottleneck(dims, width, growth))
                width += growth
            layers += [norm(width), nn.ReLU()]
            if block < 2:
                kept = math.floor(width * reduction)
                layers.append(conv(width, kept, 1, bias=False))
                if min(sizes) > 1:
                    layers.append(AVERAGE[dims](2))
                    sizes = tuple(size // 2 for size in sizes)
                width = kept
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``(batch, channels)``."""
        x = x.reshape(-1, *self.image_shape)
        if x.ndim == 4:  # in this layout a step on a CPU takes 0.6 of the time
            x = x.contiguous(memory_format=torch.channels_last)
        found: Tensor = self.layers(x).flatten(2).mean(2)
        return found


@register_encoder("thesis/classifier")
class ThesisClassifier(nn.Module):
    """The convolutional classifier of thesis Tables 2.6 and 3.5, without its last layer.

    Four convolutions of 8, 16, 32 and 64 channels, with strides 1, 1, 2 and 2, batch normalisation,
    leaky ReLU and a pooling by 2; then a layer of ``hidden`` units. The tables have images of
    208 x 176, and 256 entries before that layer; by their own strides and paddings there are 576.
    In smaller images a stride or a pooling that would leave nothing is left out. For
    volumes it is a network of the same kind in three dimensions.

    Args:
        input_shape: ``(C, H, W)``, ``(H, W)``, or ``(C, D, H, W)``.
        hidden: size of the last layer.

    Raises:
        ConfigurationError: if ``hidden`` is below 1.

    >>> ThesisClassifier((1, 208, 176))(torch.zeros(2, 1, 208, 176)).shape
    torch.Size([2, 100])
    """

    def __init__(self, input_shape: tuple[int, ...], *, hidden: int = 100) -> None:
        super().__init__()
        check_integer("hidden", hidden, minimum=1)
        channels, sizes = split_shape(input_shape)
        dims, self.image_shape = len(sizes), (channels, *sizes)
        layers: list[nn.Module] = []
        for width, stride in ((8, 1), (16, 1), (32, 2), (64, 2)):
            stride = stride if min(sizes) > 1 else 1
            layers += [CONV[dims](channels, width, 3, stride=stride, padding=1), NORM[dims](width)]
            layers.append(nn.LeakyReLU())
            sizes = tuple((size + 1) // 2 if stride == 2 else size for size in sizes)
            if min(sizes) > 1:
                layers.append(MAXIMUM[dims](2))
                sizes = tuple(size // 2 for size in sizes)
            channels = width
        self.layers = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(channels * math.prod(sizes), hidden), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``(batch, hidden)``."""
        found: Tensor = self.layers(x.reshape(-1, *self.image_shape))
        return found


@register_encoder("regularised_conv")
class RegularisedConv(nn.Module):
    """A small convolutional network with dropout, which few examples do not over-fit at once.

    Three blocks of convolution, batch normalisation, ReLU, pooling by 2 and dropout.

    Args:
        input_shape: ``(C, H, W)``, ``(H, W)``, or ``(C, D, H, W)``.
        channels: channels of the blocks.
        dropout: share of channels that a training step drops after a block, in [0, 1).

    Raises:
        ConfigurationError: for a dropout out of range, or no block.

    >>> RegularisedConv((28, 28))(torch.zeros(2, 28, 28)).shape
    torch.Size([2, 1152])
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        *,
        channels: tuple[int, ...] = (32, 64, 128),
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        check_number("dropout", dropout, minimum=0.0, below=1.0)
        if not channels:
            raise ConfigurationError("channels is empty: expected the channels of at least 1 block")
        before, sizes = split_shape(input_shape)
        dims, self.image_shape = len(sizes), (before, *sizes)
        layers: list[nn.Module] = []
        for width in channels:
            layers += [CONV[dims](before, width, 3, padding=1, bias=False), NORM[dims](width)]
            layers.append(nn.ReLU())
            if min(sizes) > 1:
                layers.append(MAXIMUM[dims](2))
                sizes = tuple(size // 2 for size in sizes)
            layers.append(nn.Dropout(dropout))
            before = width
        self.layers = nn.Sequential(*layers, nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``(batch, features)``."""
        found: Tensor = self.layers(x.reshape(-1, *self.image_shape))
        return found


@register_encoder("thesis/mri_classifier")
class MRIClassifier(nn.Module):
    """The networks of thesis Fig. 1.7 for volumes, without their last layer.

    Blocks of convolutions with batch normalisation and ReLU, each with a pooling by 2, rounded up,
    and with twice the channels of the block before; dropout; fully connected layers with leaky
    ReLU. The defaults are the network A1 (Conv5_FC3 of Wen et al., 2020) for volumes of
    169 x 208 x 179: five blocks of one convolution, and layers of 1,300 and 50 units.

    ``hidden=2`` is the network A2 for volumes of 84 x 104 x 89: the layers keep the same ratio of
    their inputs to their outputs, down to two classes (section 1.5.5), which makes them 349 and 26
    units there. The networks B1 and B2 come from a random search over the other arguments
    (``CLASSIFIERS["MRI CNN search"]``); the figure has their sizes.

    Args:
        input_shape: ``(C, D, H, W)``, ``(C, H, W)`` or ``(H, W)``.
        blocks: number of blocks.
        channels: channels of the first block.
        convolutions: number of convolutions in a block.
        hidden: sizes of the fully connected layers, or their number.
        dropout: share of features that a training step drops, in [0, 1).

    Raises:
        ConfigurationError: for a number out of range.

    >>> MRIClassifier((1, 16, 20, 18))(torch.zeros(2, 1, 16, 20, 18)).shape
    torch.Size([2, 50])
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        *,
        blocks: int = 5,
        channels: int = 8,
        convolutions: int = 1,
        hidden: Sequence[int] | int = (1300, 50),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_number("dropout", dropout, minimum=0.0, below=1.0)
        for name, size in (("blocks", blocks), ("channels", channels)):
            check_integer(name, size, minimum=1)
        check_integer("convolutions", convolutions, minimum=1)
        before, sizes = split_shape(input_shape)
        dims, self.image_shape = len(sizes), (before, *sizes)
        layers: list[nn.Module] = []
        for width in (channels * 2**block for block in range(blocks)):
            for _ in range(convolutions):
                layers += [CONV[dims](before, width, 3, padding=1), NORM[dims](width), nn.ReLU()]
                before = width
            layers.append(MAXIMUM[dims](2, ceil_mode=True))
            sizes = tuple((size + 1) // 2 for size in sizes)
        layers += [nn.Flatten(), nn.Dropout(dropout)]
        features = before * math.prod(sizes)
        for size in _even(features, hidden) if isinstance(hidden, int) else hidden:
            check_integer("hidden", size, minimum=1)
            layers += [nn.Linear(features, size), nn.LeakyReLU()]
            features = size
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``(batch, features)``."""
        found: Tensor = self.layers(x.reshape(-1, *self.image_shape))
        return found


def _even(features: int, count: int) -> list[int]:
    """Return sizes of layers with the same ratio of inputs to outputs, down to two classes.

    >>> _even(128 * 3 * 4 * 3, 2)
    [349, 26]
    """
    check_integer("hidden", count, minimum=0)
    ratio = max(1.0, (features / 2) ** (1 / (count + 1)))
    return [max(2, round(features / ratio**layer)) for layer in range(1, count + 1)]
