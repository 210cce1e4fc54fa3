"""What latents carry: the parts of the ELBO, active units, and the use of codebooks."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from chartae.checks import check_integer, check_number
from chartae.data.arrays import takes_arrays
from chartae.distributions import DiagonalNormal
from chartae.distributions.base import as_family
from chartae.errors import ConfigurationError, DataError
from chartae.models import VQVAE, Autoencoder, VariationalAutoencoder
from chartae.randomness import seeded

__all__ = ["CodeUsage", "Surgery", "active_units", "code_usage", "elbo_surgery"]

PAIRS = 2**22
"""Largest number of pairs of latents and posteriors, times coordinates, in memory at once."""


@dataclass(frozen=True)
class Surgery:
    r"""The parts of the mean ELBO of a data set, in nats (Hoffman and Johnson, 2016).

    .. math:: \mathrm{ELBO} = E \log p(x|z) - I(x; z) - KL(q(z) \| p(z)), \quad
        q(z) = \frac1N \sum_i q(z|x_i)

    Attributes:
        reconstruction: :math:`E \log p(x|z)`.
        information: :math:`I(x; z)`, the mutual information of an observation's index and its
            latent under q, in [0, log N].
        marginal_kl: :math:`KL(q(z) \| p(z))`, at least 0: how far the aggregated posterior is from
            the prior, which is what a sampler fitted ex post can gain.
        total_correlation: :math:`KL(q(z) \| \prod_j q(z_j))`, at least 0.
    """

    reconstruction: float
    information: float
    marginal_kl: float
    total_correlation: float

    @property
    def kl(self) -> float:
        """The mean divergence of posteriors from the prior: information plus marginal KL."""
        return self.information + self.marginal_kl

    @property
    def elbo(self) -> float:
        """The mean ELBO."""
        return self.reconstruction - self.kl


@takes_arrays("x", "y")
def elbo_surgery(
    model: VariationalAutoencoder,
    x: Tensor,
    y: Tensor | None = None,
    *,
    num_samples: int = 1,
    seed: int = 0,
) -> Surgery:
    """Return the parts of the mean ELBO of a data set (thesis section 0.6.3, equation 13).

    The aggregated posterior is that of the given data; its density is computed at draws of all
    posteriors, at a cost of N^2 d. Estimates have a standard error of about one over the root of N.

    Args:
        model: a model whose posteriors are normals with a diagonal covariance, and whose prior has
            a density.
        x: ``(N, *input_shape)``, N at least 2.
        y: conditions, for a model that has them. Its prior must not depend on them.
        num_samples: number of draws of each posterior.
        seed: the same seed gives the same estimate.

    Raises:
        ConfigurationError: for a model of another kind.
        DataError: if the data do not fit the model, or there are fewer than 2.
    """
    check_integer("num_samples", num_samples, minimum=1)
    if len(x) < 2:
        raise DataError(f"x has {len(x)} observation(s): expected at least 2")
    x = x.to(model.device)
    model.check_data("x", x)
    with torch.no_grad(), seeded(seed, "surgery"):
        posterior = as_family(model.posterior(x, y), DiagonalNormal)
        means, scales = posterior.mean.double(), posterior.stddev.double()
        totals = torch.zeros(4, dtype=torch.float64)
        for _ in range(num_samples):
            z, log_q = posterior.rsample_and_log_prob()
            fit = model.likelihood(z, y).log_prob(x)
            log_p = model.prior(y).log_prob(z)
            joint, product = _aggregate(z.double(), means, scales)
            terms = (fit, log_q.double() - joint, joint - log_p.double(), joint - product)
            totals += torch.stack([term.double().mean().cpu() for term in terms])
    return Surgery(*(float(total) / num_samples for total in totals))


def _aggregate(z: Tensor, means: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """Return log q(z) and sum_j log q(z_j) at each z, ``(N,)``."""
    size = max(1, PAIRS // means.numel())
    joint, product = [], []
    for part in z.split(size):
        logs = torch.distributions.Normal(means, scales).log_prob(part[:, None])
        joint.append(logs.sum(-1).logsumexp(1) - math.log(len(means)))
        product.append((logs.logsumexp(1) - math.log(len(means))).sum(-1))
    return torch.cat(joint), torch.cat(product)


@takes_arrays("x", "y")
def active_units(
    model: Autoencoder, x: Tensor, y: Tensor | None = None, *, threshold: float = 0.01
) -> int:
    """Return the number of coordinates of the embedding that vary over the data.

    A unit is active if the variance of its posterior mean exceeds the threshold (Burda et al.,
    2016). Without a posterior it is the variance of the code.

    Args:
        model: a trained model.
        x: ``(N, *input_shape)``, N at least 2.
        y: conditions, for a model that has them.
        threshold: of the variance, at least 0.

    Raises:
        DataError: if the data do not fit the model, or there are fewer than 2.
    """
    check_number("threshold", threshold, minimum=0.0)
    if len(x) < 2:
        raise DataError(f"x has {len(x)} observation(s): expected at least 2")
    with torch.no_grad():
        codes = model.encode(x.to(model.device), y, batch_size=1024)
    return int((codes.double().var(0) > threshold).sum())


@dataclass(frozen=True)
class CodeUsage:
    """How data use a codebook.

    Attributes:
        share: share of the codes that are used at all, in (0, 1].
        perplexity: the exponential of the entropy of the codes, from 1 to their number.
    """

    share: float
    perplexity: float


@takes_arrays("x")
def code_usage(model: VQVAE, x: Tensor) -> CodeUsage:
    """Return how data use the codebooks of a model; of several levels, the mean.

    Args:
        model: a model with codebooks.
        x: ``(N, *input_shape)``.

    Raises:
        ConfigurationError: for another model.
        DataError: if the data do not fit the model.
    """
    if not isinstance(model, VQVAE):
        raise ConfigurationError(f"model is {type(model).__name__}: expected one with codebooks")
    with torch.no_grad():
        codes = model.codes(x.to(model.device))
    shares, perplexities = [], []
    levels = (
        codes.flatten(0, -2).unbind(-1) if codes.ndim > 1 + len(model.grid) else [codes.flatten()]
    )
    for level in levels:
        counts = torch.bincount(level, minlength=model.num_codes).double()
        shares.append(float((counts > 0).double().mean()))
        p = counts[counts > 0] / counts.sum()
        perplexities.append(math.exp(-float((p * p.log()).sum())))
    return CodeUsage(sum(shares) / len(shares), sum(perplexities) / len(perplexities))
