"""Ex-post samplers: ways to draw latents from a trained model."""

from chartae.samplers.base import Sampler, compatible_samplers, serving_table
from chartae.samplers.codes import CodeSampler
from chartae.samplers.flow import FlowSampler
from chartae.samplers.learned import LearnedSampler
from chartae.samplers.manifold import ChainSampler, ManifoldSampler
from chartae.samplers.mixture import MixtureSampler
from chartae.samplers.mixup import MixupSampler
from chartae.samplers.normal import NormalSampler
from chartae.samplers.poincare import PoincareSampler
from chartae.samplers.random_walk import RandomWalkSampler
from chartae.samplers.sphere import SphereSampler
from chartae.samplers.two_stage import TwoStageSampler
from chartae.samplers.vamp import VampSampler
from chartae.samplers.volume import VolumeSampler

__all__ = [
    "ChainSampler",
    "CodeSampler",
    "FlowSampler",
    "LearnedSampler",
    "ManifoldSampler",
    "MixtureSampler",
    "MixupSampler",
    "NormalSampler",
    "PoincareSampler",
    "RandomWalkSampler",
    "Sampler",
    "SphereSampler",
    "TwoStageSampler",
    "VampSampler",
    "VolumeSampler",
    "compatible_samplers",
    "serving_table",
]
