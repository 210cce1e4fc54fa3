"""chartae: charts of the latent space of autoencoders.

The names below are imported when first used, so that ``import chartae`` stays cheap and
``chartae --help`` is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chartae.augmentation import Augmenter
    from chartae.loading import load
    from chartae.models import (
        AAE,
        AE,
        CIWAE,
        CVAE,
        HRQVAE,
        HVAE,
        IAFVAE,
        IWAE,
        MIWAE,
        MSSSIMVAE,
        PIWAE,
        RAE,
        RHVAE,
        SVAE,
        VAE,
        VAEGAN,
        VAMP,
        VQVAE,
        WAE,
        BetaTCVAE,
        BetaVAE,
        DisentangledBetaVAE,
        FactorVAE,
        InfoVAE,
        MixtureVAE,
        PlanarFlowVAE,
        PoincareVAE,
    )
    from chartae.samplers import (
        CodeSampler,
        FlowSampler,
        MixtureSampler,
        MixupSampler,
        NormalSampler,
        PoincareSampler,
        RandomWalkSampler,
        SphereSampler,
        TwoStageSampler,
        VampSampler,
        VolumeSampler,
    )
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
    "fit",
    "load",
]

# Which module each public name comes from.
HOMES = {
    "augmentation": ("Augmenter",),
    "loading": ("load",),
    "models": (
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
        "BetaTCVAE",
        "BetaVAE",
        "DisentangledBetaVAE",
        "FactorVAE",
        "InfoVAE",
        "MixtureVAE",
        "PlanarFlowVAE",
        "PoincareVAE",
    ),
    "samplers": (
        "CodeSampler",
        "FlowSampler",
        "MixtureSampler",
        "MixupSampler",
        "NormalSampler",
        "PoincareSampler",
        "RandomWalkSampler",
        "SphereSampler",
        "TwoStageSampler",
        "VampSampler",
        "VolumeSampler",
    ),
    "training": ("History", "fit"),
}
_HOME_OF = {name: home for home, names in HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'chartae' has no attribute {name!r}")
    return getattr(import_module(f"chartae.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
