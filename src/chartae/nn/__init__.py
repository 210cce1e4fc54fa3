"""Encoders and decoders by name, or any module of yours; the thesis' tables as presets."""

from chartae.nn.conv import (
    ResidualBlock,
    conv_decoder,
    conv_encoder,
    resnet_decoder,
    resnet_encoder,
)
from chartae.nn.metric import MetricNetwork
from chartae.nn.mlp import mlp_decoder, mlp_encoder
from chartae.nn.registry import (
    DECODERS,
    ENCODERS,
    NetworkSpec,
    build_decoder,
    build_encoder,
    output_features,
    register_decoder,
    register_encoder,
)

__all__ = [
    "DECODERS",
    "ENCODERS",
    "MetricNetwork",
    "NetworkSpec",
    "ResidualBlock",
    "build_decoder",
    "build_encoder",
    "conv_decoder",
    "conv_encoder",
    "mlp_decoder",
    "mlp_encoder",
    "output_features",
    "register_decoder",
    "register_encoder",
    "resnet_decoder",
    "resnet_encoder",
]
