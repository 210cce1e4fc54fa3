"""Riemannian geometry of the latent space: metrics, geodesics, statistics, Markov chains."""

from chartae.geometry.mcmc.density import ManifoldDensity
from chartae.geometry.mcmc.driver import Chain, effective_sample_size, split_r_hat
from chartae.geometry.mcmc.hmc import hmc
from chartae.geometry.mcmc.jumps import Jumps
from chartae.geometry.mcmc.leapfrog import generalised_leapfrog
from chartae.geometry.mcmc.riemannian_gaussian import RiemannianGaussian
from chartae.geometry.mcmc.walk import random_walk
from chartae.geometry.metrics.base import DiagonalLocal, Local, Metric, check_points
from chartae.geometry.metrics.centroid import CentroidMetric, squared_distances
from chartae.geometry.metrics.conformal import ConformalMetric, PoincareMetric
from chartae.geometry.metrics.constant import ConstantMetric, EuclideanMetric
from chartae.geometry.metrics.posterior import PosteriorMetric, Reach
from chartae.geometry.metrics.pullback import PullbackMetric
from chartae.geometry.metrics.reach import mean_overlap, posterior_reach, scott_temperature
from chartae.geometry.metrics.selection import (
    Selection,
    nearest_neighbour_distances,
    select_centroids,
)
from chartae.geometry.metrics.sphere import SphereMetric, great_circle
from chartae.geometry.paths.curves import energy, length
from chartae.geometry.paths.exponential import exponential_map, exponential_path, parallel_transport
from chartae.geometry.paths.geodesics import (
    Paths,
    distance,
    geodesic,
    initial_velocity,
    logarithmic_map,
    shortest_paths,
)
from chartae.geometry.paths.wrapped_normal import WrappedNormal
from chartae.geometry.statistics.clusters import KMeans, kmeans
from chartae.geometry.statistics.distances import pairwise_distances
from chartae.geometry.statistics.means import frechet_mean

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
    "RiemannianGaussian",
    "Selection",
    "SphereMetric",
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
    "great_circle",
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
