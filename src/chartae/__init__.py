"""chartae: charts of the latent space of autoencoders.

The names below are imported when first used, so that ``import chartae`` stays cheap and
``chartae --help`` is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chartae.augmentation import Augmenter
    from chartae.loading import load
    from chartae.models import AE, HVAE, IWAE, RHVAE, VAE, BetaVAE
    from chartae.samplers import (
        MixtureSampler,
        MixupSampler,
        NormalSampler,
        RandomWalkSampler,
        VolumeSampler,
    )
    from chartae.training import History, fit

__version__ = "0.1.0"

__all__ = [
    "AE",
    "HVAE",
    "IWAE",
    "RHVAE",
    "VAE",
    "Augmenter",
    "BetaVAE",
    "History",
    "MixtureSampler",
    "MixupSampler",
    "NormalSampler",
    "RandomWalkSampler",
    "VolumeSampler",
    "fit",
    "load",
]

_HOMES = {
    "augmentation": ("Augmenter",),
    "loading": ("load",),
    "models": ("AE", "HVAE", "IWAE", "RHVAE", "VAE", "BetaVAE"),
    "samplers": (
        "MixtureSampler",
        "MixupSampler",
        "NormalSampler",
        "RandomWalkSampler",
        "VolumeSampler",
    ),
    "training": ("History", "fit"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'chartae' has no attribute {name!r}")
    return getattr(import_module(f"chartae.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
