"""Inception v3 as the FID uses it (Szegedy et al., 2016; Heusel et al., 2017).

The names of its parameters are those of the file ``pt_inception-2015-12-05`` of pytorch-fid, the
weights of TensorFlow's network of 2015. As there, average pooling leaves margins out, and the last
block pools by the maximum.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d, relu

__all__ = ["Inception"]

NUM_CLASSES = 1008


class Layer(NamedTuple):
    """A convolution. With a stride of 1 it keeps the size of its input."""

    channels: int
    height: int = 1
    width: int = 1
    stride: int = 1


Stage = Layer | tuple[Layer, Layer]
"""One convolution, or two side by side, called a and b."""
Branches = Mapping[str, Sequence[Stage]]


class Convolution(nn.Module):
    """Convolution, normalisation and ReLU."""

    def __init__(self, inputs: int, layer: Layer, padding: tuple[int, int] | None = None) -> None:
        super().__init__()
        kernel = (layer.height, layer.width)
        if padding is None:
            padding = (layer.height // 2, layer.width // 2) if layer.stride == 1 else (0, 0)
        self.conv = nn.Conv2d(inputs, layer.channels, kernel, layer.stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(layer.channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.bn(self.conv(x)))


_average = partial(avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
_largest = partial(max_pool2d, kernel_size=3, stride=1, padding=1)
_halved = partial(max_pool2d, kernel_size=3, stride=2)


class Block(nn.Module):
    """Branches of convolutions side by side; the last, ``branch_pool``, pools its input first.

    The convolutions of a branch are numbered if there is more than one.
    """

    def __init__(
        self, inputs: int, branches: Branches, pool: Callable[[Tensor], Tensor] = _average
    ) -> None:
        super().__init__()
        self.pool, self.stages, self.channels = pool, dict[str, list[list[str]]](), 0
        for branch, stages in branches.items():
            self.stages[branch], size = [], inputs
            for number, stage in enumerate(stages, start=1):
                layers = (stage,) if isinstance(stage, Layer) else stage
                name = branch if len(stages) == 1 else f"{branch}_{number}"
                names = [name] if len(layers) == 1 else [name + letter for letter in "ab"]
                for part, layer in zip(names, layers, strict=True):
                    self.add_module(part, Convolution(size, layer))
                self.stages[branch].append(names)
                size = sum(layer.channels for layer in layers)
            self.channels += size

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for branch, stages in self.stages.items():
            part = self.pool(x) if branch == "branch_pool" else x
            for names in stages:
                part = torch.cat([self.get_submodule(name)(part) for name in names], 1)
            outputs.append(part)
        return torch.cat(outputs, 1)


Size = Callable[[int], int]


def _block_a(n: Size, pooled: int) -> Branches:
    return {
        "branch1x1": [Layer(n(64))],
        "branch5x5": [Layer(n(48)), Layer(n(64), 5, 5)],
        "branch3x3dbl": [Layer(n(64)), Layer(n(96), 3, 3), Layer(n(96), 3, 3)],
        "branch_pool": [Layer(n(pooled))],
    }


def _block_b(n: Size) -> Branches:
    return {
        "branch3x3": [Layer(n(384), 3, 3, stride=2)],
        "branch3x3dbl": [Layer(n(64)), Layer(n(96), 3, 3), Layer(n(96), 3, 3, stride=2)],
        "branch_pool": [],
    }


def _block_c(n: Size, inner: int) -> Branches:
    c = n(inner)
    return {
        "branch1x1": [Layer(n(192))],
        "branch7x7": [Layer(c), Layer(c, 1, 7), Layer(n(192), 7, 1)],
        "branch7x7dbl": [
            *(Layer(c), Layer(c, 7, 1), Layer(c, 1, 7)),
            *(Layer(c, 7, 1), Layer(n(192), 1, 7)),
        ],
        "branch_pool": [Layer(n(192))],
    }


def _block_d(n: Size) -> Branches:
    c = n(192)
    return {
        "branch3x3": [Layer(c), Layer(n(320), 3, 3, stride=2)],
        "branch7x7x3": [Layer(c), Layer(c, 1, 7), Layer(c, 7, 1), Layer(c, 3, 3, stride=2)],
        "branch_pool": [],
    }


def _block_e(n: Size) -> Branches:
    split = (Layer(n(384), 1, 3), Layer(n(384), 3, 1))
    return {
        "branch1x1": [Layer(n(320))],
        "branch3x3": [Layer(n(384)), split],
        "branch3x3dbl": [Layer(n(448)), Layer(n(384), 3, 3), split],
        "branch_pool": [Layer(n(192))],
    }


class Inception(nn.Module):
    """The network from images ``(n, 3, 299, 299)`` in [-1, 1] to features ``(n, 2048)``.

    Args:
        width: factor of the numbers of channels; the published network has 1.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()

        def n(channels: int) -> int:
            return max(1, round(channels * width))

        stem = {
            "Conv2d_1a_3x3": (Layer(n(32), 3, 3, stride=2), (0, 0)),
            "Conv2d_2a_3x3": (Layer(n(32), 3, 3), (0, 0)),
            "Conv2d_2b_3x3": (Layer(n(64), 3, 3), (1, 1)),
            "Conv2d_3b_1x1": (Layer(n(80)), (0, 0)),
            "Conv2d_4a_3x3": (Layer(n(192), 3, 3), (0, 0)),
        }
        size = 3
        for name, (layer, padding) in stem.items():
            self.add_module(name, Convolution(size, layer, padding))
            size = layer.channels
        blocks: dict[str, tuple[Branches, Callable[[Tensor], Tensor]]] = {
            "Mixed_5b": (_block_a(n, 32), _average),
            "Mixed_5c": (_block_a(n, 64), _average),
            "Mixed_5d": (_block_a(n, 64), _average),
            "Mixed_6a": (_block_b(n), _halved),
            "Mixed_6b": (_block_c(n, 128), _average),
            "Mixed_6c": (_block_c(n, 160), _average),
            "Mixed_6d": (_block_c(n, 160), _average),
            "Mixed_6e": (_block_c(n, 192), _average),
            "Mixed_7a": (_block_d(n), _halved),
            "Mixed_7b": (_block_e(n), _average),
            "Mixed_7c": (_block_e(n), _largest),
        }
        for name, (branches, pool) in blocks.items():
            block = Block(size, branches, pool)
            self.add_module(name, block)
            size = block.channels
        self.fc = nn.Linear(size, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for name, layer in self.named_children():
            if name == "fc":
                break
            x = layer(x)
            if name in ("Conv2d_2b_3x3", "Conv2d_4a_3x3"):
                x = _halved(x)
        return x.mean((2, 3))

    def logits(self, features: Tensor) -> Tensor:
        """Return logits ``(n, 1008)`` without bias, as the inception score's own code does."""
        return features @ self.fc.weight.mT
