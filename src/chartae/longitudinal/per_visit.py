"""A variational autoencoder of single visits, as a model of sequences: a baseline."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Unpack, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from chartae.checks import named_options
from chartae.distributions import Observation
from chartae.errors import ConfigurationError
from chartae.longitudinal.base import Proposal
from chartae.longitudinal.draws import How
from chartae.longitudinal.visit_latents import VisitLatentModel, padded
from chartae.longitudinal.visits import Visits
from chartae.models import MODELS, Batch, Losses, VariationalAutoencoder
from chartae.models.losses import Extra
from chartae.models.trainable import Trainable
from chartae.models.variational import GaussianNetworks

__all__ = ["VisitVAE"]


class VisitVAE(VisitLatentModel):
    r"""A variational autoencoder of the library that sees each visit alone (thesis section 6.5.2).

    .. math:: p(x_1, ..., x_T) = \prod_t p(x_t), \quad p(x_t) = \int p(x_t | z) p(z) dz

    The visits of an individual are independent: its latents at a time without a visit are draws of
    the prior. Features of a visit that were not observed follow from the others of the visit.

    Use it as a baseline: what it does not reach is due to time.

    Args:
        input_shape: shape of one visit.
        latent_dim: size of the latent of a visit.
        model: the model of a visit: a name of `chartae.models.MODELS` such as ``"vae"`` or
            ``"vamp"``, a mapping ``{"name": ..., **options}``, or a `VariationalAutoencoder`,
            trained or not.
        networks: the other arguments of the model of a visit; none with a model that exists.

    Raises:
        ConfigurationError: for a model without a posterior and a prior, of another
            ``input_shape`` or ``latent_dim``, or an option that it does not have.

    >>> import torch, chartae
    >>> from chartae.data import Sequences
    >>> data = Sequences(torch.rand(20, 5, 3), times=torch.arange(5.0))
    >>> model = VisitVAE((3,), latent_dim=2, model={"name": "vamp", "num_pseudo_inputs": 10})
    >>> _ = chartae.fit(model, data, epochs=2, seed=0, progress=False)
    >>> model.log_likelihood(data, num_samples=10).log_prob.shape
    torch.Size([20])
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        model: str | Mapping[str, Any] | VariationalAutoencoder = "vae",
        **networks: Unpack[GaussianNetworks],
    ) -> None:
        # Networks and likelihood are those of the model of a visit; no others are built.
        Trainable.__init__(self)
        self.add_time_units()
        inner = _visit_model(input_shape, latent_dim, model, networks)
        self.model = inner
        self.input_shape, self.latent_dim = inner.input_shape, inner.latent_dim
        self.conditions, self.condition_dim = inner.conditions, inner.condition_dim
        self.observation_model = inner.observation_model
        self.adversaries, self.monitored = inner.adversaries, inner.monitored
        self.warmup, self.kl_weight = inner.warmup, inner.kl_weight
        self.to(device=inner.device, dtype=inner.dtype)

    # --- the networks of the model of a visit -----------------------------------------------------

    def features(self, x: Tensor, y: Extra = None, mask: Extra = None) -> Tensor:
        return self.model.features(x, y, mask)

    def network_input(self, x: Tensor, mask: Extra = None) -> Tensor:
        return self.model.network_input(x, mask)

    def likelihood(self, z: Tensor, y: Extra = None) -> Observation:
        return self.model.likelihood(z, y)

    def decoder_output(self, z: Tensor, y: Extra = None) -> Tensor:
        return self.model.decoder_output(z, y)

    # --- training ---------------------------------------------------------------------------------

    def loss(
        self,
        x: Tensor,
        *,
        times: Extra = None,
        observed: Extra = None,
        y: Extra = None,
        mask: Extra = None,
        weight: Extra = None,
    ) -> Losses:
        """Return the losses of the model of a visit, summed over visits, averaged over individuals.

        The sum makes them comparable with those of the other models of sequences.
        """
        visits = self.visits(x, times, observed, mask, y)
        self.model.epoch, self.model.kl_weight = self.epoch, self.kl_weight
        given: dict[str, Tensor | None] = {
            "y": visits.conditions,
            "mask": visits.mask,
            "weight": None if weight is None else weight[visits.owner],
        }
        losses = self.model.loss(visits.x, **given)
        visits_each = len(visits) / visits.num_individuals
        return Losses(
            {name: visits_each * value for name, value in losses.objectives.items()},
            {name: visits_each * value for name, value in losses.terms.items()},
        )

    def optimization_groups(self) -> dict[str, list[nn.Parameter]]:
        return self.model.optimization_groups()

    def on_fit_start(self, size: int) -> None:
        self.model.on_fit_start(size)

    def on_fit_end(self, batches: Iterable[Batch]) -> None:
        self.model.on_fit_end(self._single_visits(batches))

    def _single_visits(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches that the model of a visit sees."""
        names = ("x", "times", "observed", "mask", "y")
        for batch in batches:
            visits = self.visits(**{name: batch[name] for name in names if name in batch})
            given = {"x": visits.x, "mask": visits.mask, "y": visits.conditions}
            yield {name: value for name, value in given.items() if value is not None}

    # --- inference --------------------------------------------------------------------------------

    def infer_visits(self, visits: Visits, num_samples: int) -> tuple[Tensor, Tensor]:
        y = visits.conditions
        posterior = self.model.posterior(visits.x, y, visits.mask)
        z, log_q = posterior.rsample_and_log_prob((num_samples,))
        return z, visits.sum(self.model.prior(y).log_prob(z) - log_q)

    def elsewhere(
        self, z: Tensor, at: Tensor, known: Tensor, owner: Tensor, times: Tensor, y: Extra
    ) -> Tensor:
        """Draw latents from the prior, independent of those of the visits."""
        prior = self.model.prior(None if y is None else y[owner])
        one_each = bool(cast(Distribution, prior).batch_shape)
        shape = z.shape[:-3] if one_each else (*z.shape[:-3], len(owner))
        return prior.sample(torch.Size(shape))

    def individual_means(self, visits: Visits) -> Tensor:
        """Return the means over visits of their embeddings, ``(B, latent_dim)``."""
        return visits.mean(self.model.embed(visits.x, visits.conditions, visits.mask))

    def estimate(
        self, visits: Visits, num_samples: int, proposal: Proposal
    ) -> tuple[Tensor, Tensor]:
        """Return the sums of the estimates of visits, and the lowest effective sample sizes.

        Each visit has its own importance weights, so that the estimate is as tight as that of one
        visit.
        """
        y, mask = visits.conditions, visits.mask
        size = self._block(len(visits))
        counts = [min(size, num_samples - done) for done in range(0, num_samples, size)]
        weights = torch.cat(
            [self.model.log_weights(visits.x, count, y=y, mask=mask) for count in counts]
        ).nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)
        sizes = weights.softmax(0).square().sum(0).reciprocal()
        return visits.sum(weights.logsumexp(0) - math.log(num_samples)), _least(sizes, visits)

    def draw_latents(
        self, visits: Visits, num_draws: int, proposal: Proposal, how: How
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Draw latents of visits, each resampled by its own weights, or sorted by its own fit.

        Visits are independent, so the best draw of an individual has the best draw of each visit.
        """
        drawn, fit, sizes = super().draw_latents(visits.singly(), num_draws, proposal, how)
        drawn = drawn[:, :, 0]  # each individual has a single visit
        if how == "best":
            fit, order = fit.sort(0, descending=True)
            drawn = drawn.gather(0, order[..., None].expand_as(drawn))
        latents = padded(drawn, visits.owner, visits.rank, visits.counts)
        return latents, visits.sum(fit), None if sizes is None else _least(sizes, visits)


def _least(sizes: Tensor, visits: Visits) -> Tensor:
    """Return the lowest of numbers of visits ``(M,)`` of each individual, ``(B,)``."""
    least = sizes.new_full((visits.num_individuals,), math.inf)
    return least.scatter_reduce(0, visits.owner, sizes, "amin")


def _visit_model(
    input_shape: tuple[int, ...], latent_dim: int, model: Any, networks: GaussianNetworks
) -> VariationalAutoencoder:
    """Return the model of a visit that the arguments of `VisitVAE` describe."""
    if not isinstance(model, nn.Module):
        known = [name for name, kind in MODELS.items() if issubclass(kind, VariationalAutoencoder)]
        name, options = named_options(
            "model", model, known, ", or a VariationalAutoencoder of the library"
        )
        options = {**networks, **options}
        return cast(VariationalAutoencoder, MODELS[name](input_shape, latent_dim, **options))
    if not isinstance(model, VariationalAutoencoder):
        raise ConfigurationError(
            f"model is {type(model).__name__}: expected a VariationalAutoencoder, with a posterior "
            "and a prior"
        )
    if networks:
        raise ConfigurationError(
            f"{', '.join(networks)} given with a model that exists: expected a name, or no options"
        )
    given, own = (tuple(input_shape), latent_dim), (model.input_shape, model.latent_dim)
    if given != own:
        raise ConfigurationError(
            f"input_shape={given[0]}, latent_dim={given[1]}: the model has {own[0]} and {own[1]}"
        )
    return model
