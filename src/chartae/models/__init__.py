"""Generative autoencoders, one module for each family."""

from chartae.models.aae import AAE
from chartae.models.ae import AE
from chartae.models.base import Autoencoder
from chartae.models.cvae import CVAE
from chartae.models.distance import MSSSIMVAE, DistanceVAE
from chartae.models.flows import IAFVAE, PlanarFlowVAE
from chartae.models.hvae import HVAE
from chartae.models.infovae import InfoVAE
from chartae.models.iwae import CIWAE, IWAE, MIWAE, PIWAE
from chartae.models.losses import Losses
from chartae.models.mixture import MixtureVAE
from chartae.models.poincare import PoincareVAE
from chartae.models.rae import RAE
from chartae.models.rhvae import RHVAE
from chartae.models.svae import SVAE
from chartae.models.total_correlation import BetaTCVAE, FactorVAE
from chartae.models.trainable import Batch, Trainable
from chartae.models.vae import VAE, BetaVAE, DisentangledBetaVAE
from chartae.models.vaegan import VAEGAN
from chartae.models.vamp import VAMP
from chartae.models.variational import VariationalAutoencoder
from chartae.models.vqvae import HRQVAE, VQVAE
from chartae.models.wae import WAE

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
    "MODELS",
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
    "Autoencoder",
    "Batch",
    "BetaTCVAE",
    "BetaVAE",
    "DisentangledBetaVAE",
    "DistanceVAE",
    "FactorVAE",
    "InfoVAE",
    "Losses",
    "MixtureVAE",
    "PlanarFlowVAE",
    "PoincareVAE",
    "Trainable",
    "VariationalAutoencoder",
]

MODELS: dict[str, type[Autoencoder]] = {
    "aae": AAE,
    "ae": AE,
    "betatcvae": BetaTCVAE,
    "betavae": BetaVAE,
    "ciwae": CIWAE,
    "cvae": CVAE,
    "disentangledbetavae": DisentangledBetaVAE,
    "factorvae": FactorVAE,
    "hrqvae": HRQVAE,
    "hvae": HVAE,
    "iafvae": IAFVAE,
    "infovae": InfoVAE,
    "iwae": IWAE,
    "miwae": MIWAE,
    "mixturevae": MixtureVAE,
    "msssimvae": MSSSIMVAE,
    "piwae": PIWAE,
    "planarflowvae": PlanarFlowVAE,
    "poincarevae": PoincareVAE,
    "rae": RAE,
    "rhvae": RHVAE,
    "svae": SVAE,
    "vae": VAE,
    "vaegan": VAEGAN,
    "vamp": VAMP,
    "vqvae": VQVAE,
    "wae": WAE,
}
"""The models by name, which is that of the class in lower case."""
