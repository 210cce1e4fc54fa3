"""Models of individuals with several visits: trajectories, flows in time, and baselines."""

from chartae.longitudinal.base import Proposal, SequenceModel
from chartae.longitudinal.clustering import Clusters, cluster
from chartae.longitudinal.codes import decode_visits, encode_visits
from chartae.longitudinal.draws import Draws, How, JointLikelihood
from chartae.longitudinal.flow import FlowVAE
from chartae.longitudinal.gpvae import GPVAE
from chartae.longitudinal.per_visit import VisitVAE
from chartae.longitudinal.topographic import BubbleVAE, TopographicVAE
from chartae.longitudinal.trajectory import Trajectories, TrajectoryVAE
from chartae.longitudinal.visits import Visits

__all__ = [
    "GPVAE",
    "SEQUENCE_MODELS",
    "BubbleVAE",
    "Clusters",
    "Draws",
    "FlowVAE",
    "How",
    "JointLikelihood",
    "Proposal",
    "SequenceModel",
    "TopographicVAE",
    "Trajectories",
    "TrajectoryVAE",
    "VisitVAE",
    "Visits",
    "cluster",
    "decode_visits",
    "encode_visits",
]

SEQUENCE_MODELS: dict[str, type[SequenceModel]] = {
    "bubblevae": BubbleVAE,
    "flowvae": FlowVAE,
    "gpvae": GPVAE,
    "topographicvae": TopographicVAE,
    "trajectoryvae": TrajectoryVAE,
    "visitvae": VisitVAE,
}
"""The models of sequences by name, which is that of the class in lower case."""
