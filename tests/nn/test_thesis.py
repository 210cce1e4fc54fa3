"""The presets against the thesis' tables: (channels in, channels out, kernel, stride) a row."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

import chartae
from chartae.errors import ConfigurationError
from chartae.nn import DECODERS, ENCODERS, build_decoder, build_encoder
from chartae.nn.thesis import BottleneckBlock

Conv, ConvT = nn.Conv2d, nn.ConvTranspose2d
RES = "ResBlock"


def rows(module):
    """What has weights, in the notation of the tables, and the activations between."""
    found = []
    for part in module:
        if isinstance(part, nn.Linear):
            found.append((part.in_features, part.out_features))
        elif isinstance(part, Conv | ConvT):
            (k, _), (s, t) = part.kernel_size, part.stride
            stride = s if s == t else (s, t)
            found.append((type(part), part.in_channels, part.out_channels, k, stride))
        elif isinstance(part, BottleneckBlock):
            found.append(RES)
        elif not isinstance(part, nn.Flatten | nn.Unflatten):
            found.append({"BatchNorm2d": "BN"}.get(type(part).__name__, type(part).__name__))
    return found


def convolutions(kind, channels, kernels, *after, strides=2):
    """Convolutions through ``channels``, each followed by ``after``."""
    n = len(channels) - 1
    kernels = [kernels] * n if isinstance(kernels, int) else kernels
    strides = [strides] * n if isinstance(strides, int) else strides
    found = []
    for i in range(n):
        found += [(kind, channels[i], channels[i + 1], kernels[i], strides[i]), *after]
    return found


def perceptron(sizes, *, open_end):
    found = []
    for pair in pairwise(sizes):
        found += [pair, "ReLU"]
    return found[:-1] if open_end else found


BN = ("BN", "ReLU")
PERCEPTRONS = {
    "thesis/mnist": ((28, 28), 2, [400]),  # Tables 1.10 and 2.5
    "thesis/adni": ((777504,), 10, [500, 500, 400]),  # Table 1.13
    "thesis/oasis": ((208, 176), 2, [1000, 400]),  # Table 2.5
    "thesis/svhn": ((3, 32, 32), 16, [1000, 500]),  # Table 3.4
    "thesis/starmen": ((1, 64, 64), 8, [512]),  # Table 5.3
    "thesis/rotmnist": ((1, 28, 28), 16, [1024, 256]),  # Table 6.4
}


@pytest.mark.parametrize("name", PERCEPTRONS)
def test_perceptrons_have_the_layers_of_their_tables(name):
    shape, d, hidden = PERCEPTRONS[name]
    size = math.prod(shape)
    with torch.device("meta"):
        encoder, decoder = ENCODERS[name](shape), DECODERS[name](d, shape)
    assert rows(encoder) == perceptron([size, *hidden], open_end=False)
    assert rows(decoder) == perceptron([d, *hidden[::-1], size], open_end=True)


def four(channels, kernel):
    return convolutions(Conv, [channels, 128, 256, 512, 1024], kernel, *BN)


# name: (image, features of the encoder, encoder, latent size, decoder)
TABLES = {
    # Tables 1.12 and 3.4.
    "thesis/cifar": (
        (3, 32, 32),
        4096,
        four(3, 4),
        5,
        [
            (5, 65536),
            *convolutions(ConvT, [1024, 512, 256], 4, *BN),
            (ConvT, 256, 3, 4, 1),
            "BN",
        ],
    ),
    # Table 3.4.
    "thesis/celeba": (
        (3, 64, 64),
        16384,
        four(3, 5),
        64,
        [
            (64, 65536),
            *convolutions(ConvT, [1024, 512, 256, 128], 5, *BN),
            (ConvT, 128, 3, 5, 1),
            "BN",
        ],
    ),
    "thesis/oasis_conv": (
        (1, 208, 176),
        1024 * 7 * 6,
        convolutions(Conv, [1, 64, 128, 256, 512, 1024], 5, "ReLU"),
        16,
        [
            (16, 65536),
            *convolutions(ConvT, [1024, 512, 256, 128, 64], 5, "ReLU", strides=[(3, 2), 2, 2, 2]),
            (ConvT, 64, 1, 5, 1),
        ],
    ),
    # Table 4.5.
    "thesis/mnist_conv": (
        (1, 28, 28),
        1024,
        four(1, 4),
        16,
        [(16, 16384), *convolutions(ConvT, [1024, 512, 256], 3, *BN), (ConvT, 256, 1, 3, 2)],
    ),
    "thesis/cifar_conv": (
        (3, 32, 32),
        4096,
        four(3, 4),
        16,
        [(16, 65536), *convolutions(ConvT, [1024, 512, 256], 4, *BN), (ConvT, 256, 3, 4, 1)],
    ),
    "thesis/celeba_conv": (
        (3, 64, 64),
        16384,
        four(3, 4),
        64,
        [(64, 65536), *convolutions(ConvT, [1024, 512, 256, 128], 5, *BN), (ConvT, 128, 3, 5, 1)],
    ),
    # Table 4.6.
    "thesis/mnist_resnet": (
        (1, 28, 28),
        2048,
        [*convolutions(Conv, [1, 64, 128, 128], [4, 4, 3]), RES, RES],
        16,
        [
            (16, 2048),
            (ConvT, 128, 128, 3, 2),
            RES,
            RES,
            "ReLU",
            (ConvT, 128, 64, 3, 2),
            "ReLU",
            (ConvT, 64, 1, 3, 2),
        ],
    ),
    "thesis/cifar_resnet": (
        (3, 32, 32),
        8192,
        [*convolutions(Conv, [3, 64, 128, 128], [4, 4, 3], strides=[2, 2, 1]), RES, RES],
        16,
        [(16, 8192), RES, RES, *convolutions(ConvT, [128, 64, 3], 4)],
    ),
    "thesis/celeba_resnet": (
        (3, 64, 64),
        2048,
        [*convolutions(Conv, [3, 64, 128, 128, 128], [4, 4, 3, 3]), RES, RES],
        64,
        [
            (64, 2048),
            (ConvT, 128, 128, 3, 2),
            RES,
            RES,
            *convolutions(ConvT, [128, 128, 64], 5, "Sigmoid"),
            (ConvT, 64, 3, 4, 2),
        ],
    ),
    # Table 5.3.
    "thesis/celeba_grey": (
        (1, 64, 64),
        16384,
        four(1, 4),
        64,
        [(64, 16384), *convolutions(ConvT, [256, 512, 256, 128], 5, *BN), (ConvT, 128, 1, 5, 1)],
    ),
    "thesis/adni_conv": (
        (1, 182, 182),
        36864,
        convolutions(Conv, [1, 64, 128, 256, 512, 1024], 4, *BN),
        8,
        [(8, 36864), *convolutions(ConvT, [1024, 512, 256, 128, 64], 4, *BN), (ConvT, 64, 1, 4, 2)],
    ),
    # Table 6.4.
    "thesis/sprites": (
        (3, 64, 64),
        2048,
        [
            (Conv, 3, 16, 4, 2),
            *convolutions(Conv, [16, 32, 64, 128], [4, 3, 3], "LeakyReLU"),
            *[RES] * 6,
        ],
        16,
        [
            (16, 2048),
            (ConvT, 512, 128, 3, 2),
            *[RES] * 6,
            *convolutions(ConvT, [128, 64, 32, 16], [5, 5, 4], "LeakyReLU"),
            (ConvT, 16, 3, 4, 2),
        ],
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_convolutions_have_the_layers_of_their_tables(name):
    shape, features, down, d, up = TABLES[name]
    with torch.device("meta"):
        encoder, decoder = ENCODERS[name](shape), DECODERS[name](d, shape)
        assert rows(encoder) == down
        assert rows(decoder) == up
        assert encoder(torch.zeros(2, *shape)).shape == (2, features)
        assert decoder(torch.zeros(2, d)).shape == (2, *shape)


def test_every_preset_of_the_thesis_is_tried_here():
    ours = {name for name in ENCODERS if name.startswith("thesis/")}
    others = {"thesis/discriminator", "thesis/celeba_discriminator"}
    others |= {"thesis/classifier", "thesis/mri_classifier"}
    assert ours == {*PERCEPTRONS, *TABLES, *others}
    assert {name for name in DECODERS if name.startswith("thesis/")} == {*PERCEPTRONS, *TABLES}


@pytest.mark.parametrize("name", ["thesis/discriminator", "thesis/celeba_discriminator"])
def test_discriminators_have_tanh_in_their_second_layer(name):
    norm = ("BN",) if "celeba" in name else ()
    expected = convolutions(Conv, [3, 128, 256, 512, 1024], 4, *norm, "ReLU")
    expected[2 * (2 + len(norm)) - 1] = "Tanh"
    with torch.device("meta"):
        assert rows(ENCODERS[name]((3, 32, 32))) == expected


def test_the_residual_block_of_the_thesis():
    torch.manual_seed(0)
    block = BottleneckBlock(128)
    x = torch.randn(2, 128, 5, 6)
    three, one = block.body[1], block.body[3]
    assert (three.in_channels, three.out_channels, three.kernel_size) == (128, 32, (3, 3))
    assert (one.in_channels, one.out_channels, one.kernel_size) == (32, 128, (1, 1))
    torch.testing.assert_close(block(x), x + one(three(x.relu()).relu()))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("thesis/cifar", (33, 32)),
        ("thesis/mnist_conv", (2, 20, 28)),
        ("thesis/celeba_conv", (37, 41)),
        ("thesis/cifar_resnet", (1, 9, 14)),
        ("thesis/sprites", (3, 40, 64)),
    ],
)
def test_images_of_other_sizes(name, shape):
    with torch.device("meta"):
        encoder, decoder = build_encoder(name, shape), build_decoder(name, 3, shape)
        assert encoder(torch.zeros(2, *shape)).dim() == 2
        assert decoder(torch.zeros(2, 3)).shape == (2, *shape)


def test_shapes_that_a_preset_cannot_have():
    with pytest.raises(ConfigurationError, match=r"\(30,\): this preset expects images"):
        build_encoder("thesis/cifar", (30,))
    with torch.device("meta"), pytest.raises(ConfigurationError, match="expected images of"):
        build_decoder("thesis/oasis_conv", 3, (400, 400))
    with pytest.raises(ConfigurationError, match="does not accept a batch"):
        chartae.VAE((4, 4), 2, encoder="thesis/celeba_grey")


def test_a_model_of_a_table_learns():
    torch.manual_seed(0)
    model = chartae.VAE(
        (1, 28, 28), 4, encoder="thesis/mnist_resnet", decoder="thesis/mnist_resnet"
    )
    loss = model.loss(torch.rand(2, 1, 28, 28)).objectives["model"]
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
