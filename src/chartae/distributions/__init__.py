"""Distributions: posteriors, priors and likelihoods, thin over `torch.distributions`."""

from chartae.distributions.aggregate import Estimator, log_aggregate
from chartae.distributions.ball import (
    PoincareNormal,
    PoincareNormalHead,
    RiemannianNormal,
    RiemannianNormalHead,
    ball_point,
)
from chartae.distributions.bounded import ContinuousBernoulli, DiscretizedLogistic
from chartae.distributions.discrete import CategoricalLikelihood, NegativeBinomialLikelihood
from chartae.distributions.flows import AutoregressiveFlow, FlowPosterior, PlanarFlow, RadialFlow
from chartae.distributions.likelihoods import (
    LIKELIHOODS,
    BernoulliLikelihood,
    ContinuousBernoulliLikelihood,
    DiscretizedLogisticLikelihood,
    GaussianLikelihood,
    LaplaceLikelihood,
    Likelihood,
    Observation,
    ScaledLikelihood,
    make_likelihood,
    register_likelihood,
)
from chartae.distributions.mixed import MixedLikelihood
from chartae.distributions.mixture import NormalMixture
from chartae.distributions.mmd import KERNELS, mmd
from chartae.distributions.moments import Moments
from chartae.distributions.normal import DiagonalNormal, DiagonalNormalHead, StandardNormal
from chartae.distributions.sphere import (
    HypersphericalUniform,
    VonMisesFisher,
    VonMisesFisherHead,
)

# Their names before; `chartae.geometry.WrappedNormal` is another, on any metric.
WrappedNormal, WrappedNormalHead = PoincareNormal, PoincareNormalHead

__all__ = [
    "KERNELS",
    "LIKELIHOODS",
    "AutoregressiveFlow",
    "BernoulliLikelihood",
    "CategoricalLikelihood",
    "ContinuousBernoulli",
    "ContinuousBernoulliLikelihood",
    "DiagonalNormal",
    "DiagonalNormalHead",
    "DiscretizedLogistic",
    "DiscretizedLogisticLikelihood",
    "Estimator",
    "FlowPosterior",
    "GaussianLikelihood",
    "HypersphericalUniform",
    "LaplaceLikelihood",
    "Likelihood",
    "MixedLikelihood",
    "Moments",
    "NegativeBinomialLikelihood",
    "NormalMixture",
    "Observation",
    "PlanarFlow",
    "PoincareNormal",
    "PoincareNormalHead",
    "RadialFlow",
    "RiemannianNormal",
    "RiemannianNormalHead",
    "ScaledLikelihood",
    "StandardNormal",
    "VonMisesFisher",
    "VonMisesFisherHead",
    "WrappedNormal",
    "WrappedNormalHead",
    "ball_point",
    "log_aggregate",
    "make_likelihood",
    "mmd",
    "register_likelihood",
]
