"""Samplers that are fitted after training: ways to draw latents for a trained model."""

from chartae.samplers.base import SAMPLERS, Sampler, compatible_samplers, natural_sampler
from chartae.samplers.codes import CodeSampler
from chartae.samplers.flow import FlowSampler
from chartae.samplers.learned import LearnedSampler
from chartae.samplers.manifold import ChainSampler, ManifoldSampler
from chartae.samplers.mixture import MixtureSampler
from chartae.samplers.mixup import MixupSampler
from chartae.samplers.prior import (
    NormalSampler,
    PoincareSampler,
    PriorSampler,
    SphereSampler,
    VampSampler,
)
from chartae.samplers.random_walk import RandomWalkSampler
from chartae.samplers.two_stage import TwoStageSampler
from chartae.samplers.volume import VolumeSampler

__all__ = [
    "SAMPLERS",
    "ChainSampler",
    "CodeSampler",
    "FlowSampler",
    "LearnedSampler",
    "ManifoldSampler",
    "MixtureSampler",
    "MixupSampler",
    "NormalSampler",
    "PoincareSampler",
    "PriorSampler",
    "RandomWalkSampler",
    "Sampler",
    "SphereSampler",
    "TwoStageSampler",
    "VampSampler",
    "VolumeSampler",
    "compatible_samplers",
    "natural_sampler",
]

SAMPLERS.update(
    code=CodeSampler,
    flow=FlowSampler,
    mixture=MixtureSampler,
    mixup=MixupSampler,
    normal=NormalSampler,
    poincare=PoincareSampler,
    random_walk=RandomWalkSampler,
    sphere=SphereSampler,
    two_stage=TwoStageSampler,
    vamp=VampSampler,
    volume=VolumeSampler,
)
