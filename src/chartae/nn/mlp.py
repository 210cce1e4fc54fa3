"""Multilayer perceptrons."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from torch import nn

from chartae.nn.registry import register_decoder, register_encoder

__all__ = ["mlp_decoder", "mlp_encoder"]


def _layers(sizes: Sequence[int], slope: float = 0.0) -> list[nn.Module]:
    activation = partial(nn.LeakyReLU, slope) if slope else nn.ReLU
    return [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), activation())]


@register_encoder("mlp")
def mlp_encoder(
    input_shape: tuple[int, ...], hidden: Sequence[int] = (512, 256), slope: float = 0.0
) -> nn.Module:
    """Return an encoder with ReLU layers of the ``hidden`` sizes; the last size is the output size.

    If ``slope`` is not 0, the layers are leaky ReLU with this slope for negative inputs.
    """
    return nn.Sequential(nn.Flatten(), *_layers([math.prod(input_shape), *hidden], slope))


@register_decoder("mlp")
def mlp_decoder(
    latent_dim: int, output_shape: tuple[int, ...], hidden: Sequence[int] = (256, 512)
) -> nn.Module:
    """Return a decoder with ReLU layers of the ``hidden`` sizes and a linear output layer."""
    sizes = [latent_dim, *hidden]
    output = nn.Linear(sizes[-1], math.prod(output_shape))
    return nn.Sequential(*_layers(sizes), output, nn.Unflatten(1, tuple(output_shape)))
