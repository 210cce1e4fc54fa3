"""Encoders and decoders, by preset name or as a torch module; presets for the thesis' tables."""

from chartae.nn import thesis  # noqa: F401  registers its presets
from chartae.nn.classifiers import DenseNet, MRIClassifier, RegularisedConv, ThesisClassifier
from chartae.nn.conv import (
    ResidualBlock,
    conv3d_decoder,
    conv3d_encoder,
    conv_decoder,
    conv_encoder,
    conv_map_decoder,
    conv_map_encoder,
    resnet_decoder,
    resnet_encoder,
)
from chartae.nn.discriminator import Discriminator
from chartae.nn.distances import Scales, make_distance, similarity_scales
from chartae.nn.metric import MetricNetwork
from chartae.nn.mlp import mlp_decoder, mlp_encoder
from chartae.nn.registry import (
    DECODERS,
    ENCODERS,
    NetworkSpec,
    build_decoder,
    build_encoder,
    output_features,
    output_shape,
    probing,
    register_decoder,
    register_encoder,
)
from chartae.nn.transforms import random_affine

__all__ = [
    "DECODERS",
    "ENCODERS",
    "DenseNet",
    "Discriminator",
    "MRIClassifier",
    "MetricNetwork",
    "NetworkSpec",
    "RegularisedConv",
    "ResidualBlock",
    "Scales",
    "ThesisClassifier",
    "build_decoder",
    "build_encoder",
    "conv3d_decoder",
    "conv3d_encoder",
    "conv_decoder",
    "conv_encoder",
    "conv_map_decoder",
    "conv_map_encoder",
    "make_distance",
    "mlp_decoder",
    "mlp_encoder",
    "output_features",
    "output_shape",
    "probing",
    "random_affine",
    "register_decoder",
    "register_encoder",
    "resnet_decoder",
    "resnet_encoder",
    "similarity_scales",
]
