"""Multilayer perceptrons, and the thesis' own (Tables 1.10 and 2.5)."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from chartae.nn.registry import register_decoder, register_encoder

__all__ = ["mlp_decoder", "mlp_encoder"]


def _layers(sizes: Sequence[int]) -> list[nn.Module]:
    return [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]


@register_encoder("mlp")
def mlp_encoder(input_shape: tuple[int, ...], hidden: Sequence[int] = (512, 256)) -> nn.Module:
    """Return an encoder of ReLU layers of the ``hidden`` sizes; the last is the features'."""
    return nn.Sequential(nn.Flatten(), *_layers([math.prod(input_shape), *hidden]))


@register_decoder("mlp")
def mlp_decoder(
    latent_dim: int, output_shape: tuple[int, ...], hidden: Sequence[int] = (256, 512)
) -> nn.Module:
    """Return a decoder of ReLU layers of the ``hidden`` sizes, and a linear one to the output."""
    sizes = [latent_dim, *hidden]
    output = nn.Linear(sizes[-1], math.prod(output_shape))
    return nn.Sequential(*_layers(sizes), output, nn.Unflatten(1, tuple(output_shape)))


@register_encoder("thesis/mnist")
def _thesis_mnist_encoder(input_shape: tuple[int, ...]) -> nn.Module:
    """Tables 1.10 and 2.5, synthetic shapes, MNIST, EMNIST and Fashion: (D, 400, ReLU)."""
    return mlp_encoder(input_shape, hidden=(400,))


@register_decoder("thesis/mnist")
def _thesis_mnist_decoder(latent_dim: int, output_shape: tuple[int, ...]) -> nn.Module:
    """Tables 1.10 and 2.5: (d, 400, ReLU), (400, D); the sigmoid is the likelihood's link."""
    return mlp_decoder(latent_dim, output_shape, hidden=(400,))


@register_encoder("thesis/oasis")
def _thesis_oasis_encoder(input_shape: tuple[int, ...]) -> nn.Module:
    """Table 2.5, OASIS: (D, 1000, ReLU), (1000, 400, ReLU)."""
    return mlp_encoder(input_shape, hidden=(1000, 400))


@register_decoder("thesis/oasis")
def _thesis_oasis_decoder(latent_dim: int, output_shape: tuple[int, ...]) -> nn.Module:
    """Table 2.5, OASIS: (d, 400, ReLU), (400, 1000, ReLU), (1000, D)."""
    return mlp_decoder(latent_dim, output_shape, hidden=(400, 1000))
