"""Riemannian geometry of the latent space: metrics, geodesics, statistics, Markov chains."""

from chartae.geometry.centroid import CentroidMetric, squared_distances
from chartae.geometry.conformal import ConformalMetric, PoincareMetric
from chartae.geometry.constant import ConstantMetric, EuclideanMetric
from chartae.geometry.curves import energy, length
from chartae.geometry.exponential import exponential_map, exponential_path, parallel_transport
from chartae.geometry.geodesics import (
    Paths,
    distance,
    geodesic,
    initial_velocity,
    logarithmic_map,
    shortest_paths,
)
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
    "Paths",
    "PoincareMetric",
    "PosteriorMetric",
    "PullbackMetric",
    "check_points",
    "distance",
    "effective_sample_size",
    "energy",
    "exponential_map",
    "exponential_path",
    "geodesic",
    "hmc",
    "initial_velocity",
    "length",
    "logarithmic_map",
    "parallel_transport",
    "select_centroids",
    "shortest_paths",
    "split_r_hat",
    "squared_distances",
]
