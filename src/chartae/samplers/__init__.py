"""Ex-post samplers: ways to draw latents from a trained model."""

from chartae.samplers.base import Sampler
from chartae.samplers.manifold import ManifoldSampler
from chartae.samplers.mixture import MixtureSampler
from chartae.samplers.mixup import MixupSampler
from chartae.samplers.normal import NormalSampler
from chartae.samplers.random_walk import RandomWalkSampler
from chartae.samplers.volume import VolumeSampler

__all__ = [
    "ManifoldSampler",
    "MixtureSampler",
    "MixupSampler",
    "NormalSampler",
    "RandomWalkSampler",
    "Sampler",
    "VolumeSampler",
]
