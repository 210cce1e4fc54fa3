"""Generative autoencoders, one file a family."""

from chartae.models.ae import AE
from chartae.models.base import Autoencoder, Losses, VariationalAutoencoder
from chartae.models.hvae import HVAE
from chartae.models.iwae import IWAE
from chartae.models.rhvae import RHVAE
from chartae.models.vae import VAE, BetaVAE

__all__ = [
    "AE",
    "HVAE",
    "IWAE",
    "RHVAE",
    "VAE",
    "Autoencoder",
    "BetaVAE",
    "Losses",
    "VariationalAutoencoder",
]
