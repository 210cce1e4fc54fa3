"""Distributions: posteriors, priors and likelihoods, thin over `torch.distributions`."""

from chartae.distributions.bounded import ContinuousBernoulli, DiscretizedLogistic
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
)
from chartae.distributions.normal import DiagonalNormal, DiagonalNormalHead, StandardNormal

__all__ = [
    "LIKELIHOODS",
    "BernoulliLikelihood",
    "ContinuousBernoulli",
    "ContinuousBernoulliLikelihood",
    "DiagonalNormal",
    "DiagonalNormalHead",
    "DiscretizedLogistic",
    "DiscretizedLogisticLikelihood",
    "GaussianLikelihood",
    "LaplaceLikelihood",
    "Likelihood",
    "Observation",
    "ScaledLikelihood",
    "StandardNormal",
    "make_likelihood",
]
