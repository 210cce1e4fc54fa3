"""The base class of the models with a posterior, a prior and a likelihood."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from chartae.checks import Count, check_integer
from chartae.data.arrays import takes_arrays
from chartae.distributions import (
    Covariance,
    DiagonalNormal,
    NormalHead,
    Posterior,
    Prior,
    StandardNormal,
    normal_head,
)
from chartae.models.base import Autoencoder, Networks, Shape
from chartae.models.losses import Extra, Losses, average
from chartae.randomness import resolve_seed, seeded

__all__ = ["GaussianNetworks", "VariationalAutoencoder"]

ACTIVE = 0.01
"""Least variance over the data of the posterior mean of an active coordinate."""


class GaussianNetworks(Networks, total=False):
    """The arguments of every model, and those of a Gaussian posterior."""

    posterior_covariance: Covariance
    posterior_rank: Count


class VariationalAutoencoder(Autoencoder):
    """Base of the models with a posterior q(z|x), a prior p(z) and a likelihood p(x|z).

    Everything is computed from `log_weights` (MATH.md section 1), whose two parts are
    `log_weight_terms`. A model with another posterior or prior overrides `posterior` or `prior`,
    and gives its class as `posterior_family` or `prior_family`. A model with another objective
    overrides `loss`.

    Training monitors the number of active units of a Gaussian posterior. A coordinate is active if
    its posterior mean has a variance over x above 0.01 (Burda et al., 2016); the others carry no
    information about x. For a posterior with a flow, the number is that of the posterior before the
    flow. Posteriors on a sphere or a ball have no such coordinates.

    Args:
        posterior_covariance: covariances of a Gaussian posterior: ``"diagonal"``, ``"full"``, or
            ``"low-rank"``, which is a diagonal plus a low-rank part. ``docs/metrics.md`` reports
            what the last two improve.
        posterior_rank: rank of the low-rank part, from 1 to ``latent_dim``.
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.

    Attributes:
        kl_weight: weight of the prior and posterior against the reconstruction in `loss`; `fit`
            raises it from 0 to 1 during a KL warm-up. Likelihoods do not depend on it.
    """

    posterior_family: type[Distribution] | None = DiagonalNormal
    prior_family: type[Distribution] | None = StandardNormal
    watched = "posterior_head"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for method, family in (("posterior", "posterior_family"), ("prior", "prior_family")):
            if method in vars(cls) and family not in vars(cls):
                setattr(cls, family, Distribution)  # another family, of unknown properties

    def __init__(
        self,
        input_shape: Shape,
        latent_dim: int,
        *,
        posterior_covariance: Covariance = "diagonal",
        posterior_rank: Count = 1,
        **networks: Unpack[Networks],
    ) -> None:
        super().__init__(input_shape, latent_dim, **networks)
        self.register_buffer("origin", torch.zeros(latent_dim), persistent=False)
        self.posterior_covariance, self.posterior_rank = posterior_covariance, posterior_rank
        head = normal_head(posterior_covariance, self.num_features, latent_dim, posterior_rank)
        self.posterior_head: nn.Module = head
        if self.posterior_family is DiagonalNormal:
            self.posterior_family = head.family
        self.kl_weight = 1.0

    @property
    def tally_size(self) -> int:
        head = getattr(self, self.watched, None)
        return 2 * self.latent_dim if isinstance(head, NormalHead) else 0

    def tally(self, output: Any) -> Tensor:
        """Return the mean and the mean square of each coordinate of the posterior means."""
        mean = output.mean.detach()
        return torch.cat([mean, mean.square()], -1).mean(0)

    def latent_use(self, tally: Sequence[float]) -> dict[str, float]:
        moments = zip(tally[: self.latent_dim], tally[self.latent_dim :], strict=True)
        return {"active_units": sum(square - mean**2 > ACTIVE for mean, square in moments)}

    def unused_latents(self, use: Mapping[str, float]) -> str | None:
        if use["active_units"]:
            return None
        ways = ["train for more epochs", "raise kl_warmup"]
        if hasattr(self, "beta"):
            ways.append("lower beta")
        if hasattr(self.observation_model, "scale"):
            ways.append("give the likelihood a smaller scale")
        return (
            f"the latents are not used: none of the {self.latent_dim} posterior means varies over "
            f"the data; {', '.join(ways[:-1])} or {ways[-1]}"
        )

    def posterior(self, x: Tensor, y: Extra = None, mask: Extra = None) -> Posterior:
        """Return q(z|x, y) for x ``(batch, *input_shape)``.

        A distribution with ``rsample_and_log_prob``, ``rsample`` and ``mean``. By default a
        `Gaussian`.
        """
        posterior: Posterior = self.posterior_head(self.features(x, y, mask))
        return posterior

    def prior(self, y: Extra = None) -> Prior:
        """Return p(z|y): here a standard normal over ``(latent_dim,)``, the same for all y."""
        return StandardNormal(self.get_buffer("origin"))

    def embed(self, x: Tensor, y: Extra = None, mask: Extra = None) -> Tensor:
        """Return the posterior mean of each x, without checks."""
        mean: Tensor = self.posterior(x, y, mask).mean
        return mean

    def log_weight_terms(
        self, x: Tensor, num_samples: int = 1, *, y: Extra = None, mask: Extra = None
    ) -> tuple[Tensor, Tensor]:
        """Return the two parts of `log_weights`: log p(x|z), and log p(z) - log q(z|x)."""
        z, log_q = self.posterior(x, y, mask).rsample_and_log_prob((num_samples,))
        return self.likelihood(z, y).log_prob(x, mask), self.prior(y).log_prob(z) - log_q

    def log_weights(
        self, x: Tensor, num_samples: int = 1, *, y: Extra = None, mask: Extra = None
    ) -> Tensor:
        """Return logs of unbiased estimates of p(x|y), one a sample: ``(num_samples, batch)``.

        Args:
            x: ``(batch, *input_shape)``.
            num_samples: number of latents drawn for each x.
            y: conditions of each x, for a model that has them.
            mask: boolean, as x, True where a feature is observed.
        """
        fit, divergence = self.log_weight_terms(x, num_samples, y=y, mask=mask)
        return fit + divergence

    def loss(
        self, x: Tensor, *, y: Extra = None, mask: Extra = None, weight: Extra = None
    ) -> Losses:
        """Return minus the ELBO, from one latent for each x."""
        fit, divergence = self.log_weight_terms(x, y=y, mask=mask)
        reconstruction, kl = -average(fit, weight), -average(divergence, weight)
        return Losses.of(reconstruction + self.kl_weight * kl, reconstruction=reconstruction, kl=kl)

    @takes_arrays("x", "y", "mask")
    def elbo(
        self,
        x: Tensor,
        num_samples: int = 1,
        *,
        y: Extra = None,
        mask: Extra = None,
        seed: int | None = None,
    ) -> Tensor:
        """Return the evidence lower bound of each x, averaged over samples: ``(batch,)``.

        Args and errors as in `log_likelihood`.
        """
        self.check_call("x", x, y, mask)
        check_integer("num_samples", num_samples, minimum=1)
        with self._own_stream(seed, "elbo"):
            return self.log_weights(x, int(num_samples), y=y, mask=mask).mean(0)

    @takes_arrays("x", "y", "mask")
    @torch.no_grad()
    def log_likelihood(
        self,
        x: Tensor,
        num_samples: int = 100,
        *,
        y: Extra = None,
        mask: Extra = None,
        max_batch: int | None = None,
        seed: int | None = None,
    ) -> Tensor:
        """Return log p(x|y) by importance sampling, in nats: ``(batch,)``.

        The computation is split over points and samples, so memory depends on the number of
        neither.

        Args:
            x: ``(batch, *input_shape)``.
            num_samples: importance samples for each x; the estimate is a lower bound in
                expectation that tightens with more (Burda et al., 2016).
            y: conditions of each x, for a model that has them.
            mask: boolean, as x, True where a feature is observed. Unobserved values of x have no
                influence.
            max_batch: largest number of (sample, point) pairs at once; None keeps the decoded data
                near 8 MiB in float32.
            seed: the same seed gives the same samples on one kind of device, with the same x and
                ``max_batch``, and does not change torch's global generators; None uses these
                generators.

        Raises:
            ConfigurationError: if ``num_samples``, ``max_batch`` or the seed is out of range.
            DataError: if x or the mask has another shape or dtype than the model, or x is not
                finite or is outside the likelihood's range; if the conditions do not fit the model.
        """
        self.check_call("x", x, y, mask)
        check_integer("num_samples", num_samples, minimum=1)
        if max_batch is None:
            max_batch = max(1, 2**21 // max(1024, math.prod(self.input_shape)))
        check_integer("max_batch", max_batch, minimum=1)
        num_samples, max_batch = int(num_samples), int(max_batch)
        samples = min(num_samples, max_batch)
        points = max_batch // samples
        total = x.new_full((len(x),), -math.inf)
        with self._own_stream(seed, "log_likelihood"):
            for start in range(0, len(x), points):
                rows = slice(start, start + points)
                given = {"y": y, "mask": mask}
                extras = {name: value[rows] for name, value in given.items() if value is not None}
                for done in range(0, num_samples, samples):
                    count = min(samples, num_samples - done)
                    log_weights = self.log_weights(x[rows], count, **extras)
                    # A sample whose path overflowed has weight 0, which keeps the estimate a lower
                    # bound.
                    log_weights = log_weights.masked_fill(log_weights.isnan(), -math.inf)
                    total[rows] = torch.logaddexp(total[rows], log_weights.logsumexp(0))
        return total - math.log(num_samples)

    def _own_stream(self, seed: int | None, stream: str) -> AbstractContextManager[None]:
        """Return a context whose draws follow from ``seed``; None changes nothing."""
        if seed is None:
            return nullcontext()
        return seeded(resolve_seed(seed), stream, device=self.device)
