"""chartae: charts of the latent space of autoencoders.

The names below are imported at first use, so that ``import chartae`` and ``chartae --help`` are
fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chartae.app import explore
    from chartae.augmentation import Augmenter, ManifoldOverSampler
    from chartae.evaluation import tune
    from chartae.loading import load
    from chartae.models import *
    from chartae.samplers import *
    from chartae.training import History, fit

__version__ = "0.1.0"

__all__ = [
    "AAE",
    "AE",
    "CIWAE",
    "CVAE",
    "HRQVAE",
    "HVAE",
    "IAFVAE",
    "IWAE",
    "MIWAE",
    "MSSSIMVAE",
    "PIWAE",
    "RAE",
    "RHVAE",
    "SVAE",
    "VAE",
    "VAEGAN",
    "VAMP",
    "VQVAE",
    "WAE",
    "Augmenter",
    "BetaTCVAE",
    "BetaVAE",
    "CodeSampler",
    "DisentangledBetaVAE",
    "FactorVAE",
    "FlowSampler",
    "History",
    "InfoVAE",
    "ManifoldOverSampler",
    "MixtureSampler",
    "MixtureVAE",
    "MixupSampler",
    "NormalSampler",
    "PlanarFlowVAE",
    "PoincareSampler",
    "PoincareVAE",
    "RandomWalkSampler",
    "SphereSampler",
    "TwoStageSampler",
    "VampSampler",
    "VolumeSampler",
    "explore",
    "fit",
    "load",
    "tune",
]

_HOMES = {
    "Augmenter": "augmentation",
    "History": "training",
    "ManifoldOverSampler": "augmentation",
    "explore": "app",
    "fit": "training",
    "load": "loading",
    "tune": "evaluation",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'chartae' has no attribute {name!r}")
    # All others are samplers or models.
    home = _HOMES.get(name, "samplers" if name.endswith("Sampler") else "models")
    return getattr(import_module(f"chartae.{home}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
