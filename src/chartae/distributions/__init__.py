"""Distributions: posteriors, priors and likelihoods, thin over `torch.distributions`."""

from chartae.distributions.likelihoods import (
    LIKELIHOODS,
    BernoulliLikelihood,
    ContinuousBernoulliLikelihood,
    DiscretizedLogistic,
    DiscretizedLogisticLikelihood,
    GaussianLikelihood,
    LaplaceLikelihood,
    Likelihood,
    Observation,
    ScaledLikelihood,
    make_likelihood,
)
from chartae.distributions.normal import DiagonalNormal, DiagonalNormalHead

__all__ = [
    "LIKELIHOODS",
    "BernoulliLikelihood",
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
    "make_likelihood",
]
