"""Riemannian geometry of the latent space: metrics and Markov chains."""

from chartae.geometry.centroid import CentroidMetric, squared_distances
from chartae.geometry.conformal import ConformalMetric, PoincareMetric
from chartae.geometry.constant import ConstantMetric, EuclideanMetric
from chartae.geometry.mcmc import Chain, effective_sample_size, hmc, split_r_hat
from chartae.geometry.metric import DiagonalLocal, Local, Metric, check_points
from chartae.geometry.posterior import PosteriorMetric
from chartae.geometry.pullback import PullbackMetric
from chartae.geometry.selection import select_centroids

__all__ = [
    "CentroidMetric",
    "Chain",
    "ConformalMetric",
    "ConstantMetric",
    "DiagonalLocal",
    "EuclideanMetric",
    "Local",
    "Metric",
    "PoincareMetric",
    "PosteriorMetric",
    "PullbackMetric",
    "check_points",
    "effective_sample_size",
    "hmc",
    "select_centroids",
    "split_r_hat",
    "squared_distances",
]
