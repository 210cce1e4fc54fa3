"""Generative autoencoders, one file a family."""

from chartae.models.aae import AAE
from chartae.models.ae import AE
from chartae.models.base import Autoencoder, VariationalAutoencoder
from chartae.models.cvae import CVAE
from chartae.models.distance import MSSSIMVAE, DistanceVAE
from chartae.models.flows import IAFVAE, PlanarFlowVAE
from chartae.models.hvae import HVAE
from chartae.models.infovae import InfoVAE
from chartae.models.iwae import CIWAE, IWAE, MIWAE, PIWAE
from chartae.models.losses import Losses
from chartae.models.poincare import PoincareVAE
from chartae.models.rae import RAE
from chartae.models.rhvae import RHVAE
from chartae.models.svae import SVAE
from chartae.models.total_correlation import BetaTCVAE, FactorVAE
from chartae.models.trainable import Batch, Trainable
from chartae.models.vae import VAE, BetaVAE, DisentangledBetaVAE
from chartae.models.vaegan import VAEGAN
from chartae.models.vamp import VAMP
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
    "PlanarFlowVAE",
    "PoincareVAE",
    "Trainable",
    "VariationalAutoencoder",
]
