"""Riemannian geometry of the latent space: metrics, geodesics, statistics, Markov chains."""

from chartae.geometry.centroid import CentroidMetric, squared_distances
from chartae.geometry.conformal import ConformalMetric, PoincareMetric
from chartae.geometry.constant import ConstantMetric, EuclideanMetric
from chartae.geometry.curves import energy, length
from chartae.geometry.density import ManifoldDensity
from chartae.geometry.exponential import exponential_map, exponential_path, parallel_transport
from chartae.geometry.geodesics import (
    Paths,
    distance,
    geodesic,
    initial_velocity,
    logarithmic_map,
    shortest_paths,
)
from chartae.geometry.hmc import hmc
from chartae.geometry.integrators import generalised_leapfrog
from chartae.geometry.jumps import Jumps
from chartae.geometry.mcmc import Chain, effective_sample_size, split_r_hat
from chartae.geometry.metric import DiagonalLocal, Local, Metric, check_points
from chartae.geometry.posterior import PosteriorMetric, Reach
from chartae.geometry.pullback import PullbackMetric
from chartae.geometry.random_walk import WrappedNormal, random_walk
from chartae.geometry.reach import mean_overlap, posterior_reach, scott_temperature
from chartae.geometry.selection import Selection, nearest_neighbour_distances, select_centroids
from chartae.geometry.statistics import KMeans, frechet_mean, kmeans, pairwise_distances

__all__ = [
    "CentroidMetric",
    "Chain",
    "ConformalMetric",
    "ConstantMetric",
    "DiagonalLocal",
    "EuclideanMetric",
    "Jumps",
    "KMeans",
    "Local",
    "ManifoldDensity",
    "Metric",
    "Paths",
    "PoincareMetric",
    "PosteriorMetric",
    "PullbackMetric",
    "Reach",
    "Selection",
    "WrappedNormal",
    "check_points",
    "distance",
    "effective_sample_size",
    "energy",
    "exponential_map",
    "exponential_path",
    "frechet_mean",
    "generalised_leapfrog",
    "geodesic",
    "hmc",
    "initial_velocity",
    "kmeans",
    "length",
    "logarithmic_map",
    "mean_overlap",
    "nearest_neighbour_distances",
    "pairwise_distances",
    "parallel_transport",
    "posterior_reach",
    "random_walk",
    "scott_temperature",
    "select_centroids",
    "shortest_paths",
    "split_r_hat",
    "squared_distances",
]
