"""Distributions: posteriors, priors and likelihoods, thin over `torch.distributions`."""

from chartae.distributions.aggregate import Estimator, log_aggregate
from chartae.distributions.ball import (
    PoincareNormal,
    PoincareNormalHead,
    RiemannianNormal,
    RiemannianNormalHead,
    ball_point,
)
from chartae.distributions.base import Posterior, Prior, as_family, kl_divergence
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
from chartae.distributions.normal import (
    Covariance,
    DiagonalNormal,
    DiagonalNormalHead,
    FullNormal,
    FullNormalHead,
    Gaussian,
    LowRankNormal,
    LowRankNormalHead,
    NormalHead,
    StandardNormal,
    joined,
    normal_head,
)
from chartae.distributions.precision import powers, precisions, times
from chartae.distributions.sphere import (
    HypersphericalUniform,
    VonMisesFisher,
    VonMisesFisherHead,
)

# Their earlier names. `chartae.geometry.WrappedNormal` is a different class, for any metric.
WrappedNormal, WrappedNormalHead = PoincareNormal, PoincareNormalHead

__all__ = [
    "KERNELS",
    "LIKELIHOODS",
    "AutoregressiveFlow",
    "BernoulliLikelihood",
    "CategoricalLikelihood",
    "ContinuousBernoulli",
    "ContinuousBernoulliLikelihood",
    "Covariance",
    "DiagonalNormal",
    "DiagonalNormalHead",
    "DiscretizedLogistic",
    "DiscretizedLogisticLikelihood",
    "Estimator",
    "FlowPosterior",
    "FullNormal",
    "FullNormalHead",
    "Gaussian",
    "GaussianLikelihood",
    "HypersphericalUniform",
    "LaplaceLikelihood",
    "Likelihood",
    "LowRankNormal",
    "LowRankNormalHead",
    "MixedLikelihood",
    "Moments",
    "NegativeBinomialLikelihood",
    "NormalHead",
    "NormalMixture",
    "Observation",
    "PlanarFlow",
    "PoincareNormal",
    "PoincareNormalHead",
    "Posterior",
    "Prior",
    "RadialFlow",
    "RiemannianNormal",
    "RiemannianNormalHead",
    "ScaledLikelihood",
    "StandardNormal",
    "VonMisesFisher",
    "VonMisesFisherHead",
    "WrappedNormal",
    "WrappedNormalHead",
    "as_family",
    "ball_point",
    "joined",
    "kl_divergence",
    "log_aggregate",
    "make_likelihood",
    "mmd",
    "normal_head",
    "powers",
    "precisions",
    "register_likelihood",
    "times",
]
