"""Riemannian geometry of the latent space: metrics and Markov chains."""

from chartae.geometry.mcmc import Chain, effective_sample_size, hmc, split_r_hat
from chartae.geometry.metrics import CentroidMetric, Local, Metric, squared_distances

__all__ = [
    "CentroidMetric",
    "Chain",
    "Local",
    "Metric",
    "effective_sample_size",
    "hmc",
    "split_r_hat",
    "squared_distances",
]
