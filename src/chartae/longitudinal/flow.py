"""The variational autoencoder of sequences whose latent flows through time."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal, Unpack, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from chartae.checks import Count, Natural, Range
from chartae.distributions import (
    AutoregressiveFlow,
    Covariance,
    FlowPosterior,
    Gaussian,
    NormalMixture,
    Observation,
    Posterior,
    Prior,
    StandardNormal,
    as_family,
    kl_divergence,
    normal_head,
)
from chartae.errors import ConfigurationError
from chartae.longitudinal.base import Proposal, SequenceModel
from chartae.longitudinal.laplace import laplace_posterior
from chartae.longitudinal.sets import SetEncoder
from chartae.longitudinal.time_flows import make_time_flow
from chartae.longitudinal.visits import Visits
from chartae.models.base import Networks
from chartae.models.losses import Extra, Losses, average

__all__ = ["FlowVAE"]

Share = Annotated[float, Range(minimum=0.0, maximum=1.0)]


class FlowVAE(SequenceModel):
    r"""A VAE of sequences: one latent an individual, moved through time by a flow (thesis ch. 6).

    .. math:: u \sim p(u), \quad z(t) = F(u; t), \quad x_t \sim p(x | z(t))

    F is invertible for every t, so any visit determines the whole course, and the density of z(t)
    is known. The objective is the ELBO of all visits of an individual,

    .. math:: E_q \sum_{l \in O} \log p(x_l | F(u; t_l)) - KL(q(u | x_O, t_O) \| p(u)),

    where O are the observed visits. With ``length_normalised`` the sum is a mean, as in the thesis;
    this is not a bound, but for n observed visits the objective of a beta-VAE with beta = n,
    divided by n.

    Use it for images, volumes or scores at irregular times, with missing visits and features, to
    complete them, to continue them, and to draw new individuals.

    Args:
        input_shape: shape of one visit.
        latent_dim: size of the latent.
        flow: ``"time"``, one flow with the time as context, at any real time; ``"chain"``, one flow
            from each time of a grid to the next (the thesis); ``"ode"``, a vector field; or a
            mapping ``{"name": ..., **options}``.
        inference: ``"set"``: the posterior sees all observed visits of an individual, with their
            times. ``"visit"``: it sees one, drawn at random (the thesis). ``"laplace"``: there is
            no encoder; the posterior is computed from decoder and flow (`laplace_posterior`), with
            a full covariance. It is exact for a linear decoder with the flow ``"rotation"`` and a
            Gaussian likelihood. Use it for scores and small latents: a step costs latent_dim
            decodings.
        laplace_steps: number of its Gauss-Newton steps; more than 1 for what is not linear.
        prior: ``"standard"``, or ``"vamp"``: the mixture of the posteriors of learned visits,
            before ``posterior_flows``. It does not depend on conditions.
        num_pseudo_inputs: number of these.
        posterior_flows: number of inverse autoregressive flows of the posterior.
        posterior_covariance: that of the Gaussian posterior, as in `VariationalAutoencoder`.
        posterior_rank: rank of a low-rank covariance.
        hidden_share: in training with a set, the share of individuals of which only some visits are
            seen at each step. The posterior of few visits, which futures need, is learned so, and
            there is less over-fitting. The loss in training then counts fewer visits than that in
            validation.
        length_normalised: whether the visits of an individual count as one.
        warmup: epochs in which the objective passes from that of a VAE of single visits to that of
            the sequence; the first half has the former only. The thesis has 10.
        networks: the other arguments of `Autoencoder`. With ``conditions``, the covariates of
            individuals are given to encoder, flow and decoder.

    >>> import torch, chartae
    >>> from chartae.data import Sequences
    >>> x = torch.linspace(0.0, 1.0, 5)[None, :, None] * torch.rand(20, 1, 3)
    >>> data = Sequences(x, times=torch.arange(5.0))
    >>> model = FlowVAE((3,), latent_dim=2)
    >>> _ = chartae.fit(model, data, epochs=2, seed=0, progress=False)
    >>> model.futures(data.first(2), times=[4.0, 6.0], n=8)
    Draws(8 of 20 individuals at 2 times, of shape (3,))
    """

    prior_family = StandardNormal

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        flow: str | Mapping[str, Any] = "time",
        inference: Literal["set", "visit", "laplace"] = "set",
        laplace_steps: Count = 1,
        prior: Literal["standard", "vamp"] = "standard",
        num_pseudo_inputs: Count = 500,
        posterior_flows: Natural = 0,
        posterior_covariance: Covariance = "diagonal",
        posterior_rank: Count = 1,
        hidden_share: Share = 0.8,
        length_normalised: bool = False,
        warmup: Natural = 0,
        **networks: Unpack[Networks],
    ) -> None:
        if inference == "laplace" and (posterior_flows or warmup or prior == "vamp"):
            raise ConfigurationError(
                f"inference='laplace' with posterior_flows={posterior_flows}, warmup={warmup}, "
                f"prior={prior!r}: expected 0, 0 and 'standard', as it has no encoder"
            )
        super().__init__(input_shape, latent_dim, **networks)
        self.laplace_steps = laplace_steps
        self.inference, self.posterior_flows = inference, posterior_flows
        self.posterior_covariance, self.posterior_rank = posterior_covariance, posterior_rank
        self.hidden_share, self.length_normalised = hidden_share, length_normalised
        self.warmup, self.num_pseudo_inputs = warmup, num_pseudo_inputs
        self.register_buffer("origin", torch.zeros(latent_dim), persistent=False)
        self.time_flow = make_time_flow(flow, latent_dim, self.condition_dim)
        if inference == "laplace":
            self.proposals = ("set",)
            self.encoder, self.conditioning = nn.Flatten(), None
            return
        self.set_encoder = None
        if inference == "set":
            self.set_encoder = SetEncoder(self.num_features, latent_dim)
        size = self.num_features if self.set_encoder is None else self.set_encoder.size
        self.posterior_head = normal_head(posterior_covariance, size, latent_dim, posterior_rank)
        if self.set_encoder is not None:
            self.set_encoder.start(self.posterior_head.linear)
        self.posterior_context = nn.Linear(size, 32) if posterior_flows else None
        self.posterior_steps = nn.ModuleList(
            AutoregressiveFlow(latent_dim, 32, (128, 128), reverse=bool(number % 2))
            for number in range(posterior_flows)
        )
        if inference == "visit":
            self.proposals = ("mixture", "visit")
        if prior == "vamp":
            self.raw_pseudo_inputs = nn.Parameter(torch.randn(num_pseudo_inputs, *input_shape))
            self.pseudo_times = None
            if inference == "set":
                self.pseudo_times = nn.Parameter(torch.randn(num_pseudo_inputs))
            self.raw_pseudo_conditions = None
            if self.condition_dim:
                raw = torch.randn(num_pseudo_inputs, self.condition_dim)
                self.raw_pseudo_conditions = nn.Parameter(raw)

    # --- posterior and prior ----------------------------------------------------------------------

    def posterior(self, visits: Visits) -> Posterior:
        """Return q(u | visits) of each individual, or with ``inference="visit"`` q(z_j | x_j).

        The latter is a law of the latent at the time of the visit, ``(M, latent_dim)``, not of u.
        """
        if self.inference == "laplace":
            start = self.get_buffer("origin").expand(visits.num_individuals, -1)
            observe = partial(self._observed, visits)
            return laplace_posterior(observe, visits, start, self.laplace_steps)
        return self._posterior_of(self._summary(visits))

    def _observed(self, visits: Visits, u: Tensor) -> Observation:
        """Return p(x|u) of each visit, for latents of individuals ``(B, d)``."""
        return self.likelihood(
            self.path(u, visits.owner, visits.times, visits.y), visits.conditions
        )

    def _summary(self, visits: Visits) -> Tensor:
        """Return what the posterior of each individual, or of each visit, is computed from."""
        features = self.visit_features(visits)
        if self.set_encoder is not None:
            features = self.set_encoder(features, visits, partial(self._to_origin, visits))
        return features

    def _posterior_of(self, features: Tensor) -> Posterior:
        normal: Posterior = self.posterior_head(features)
        if self.posterior_context is None:
            return normal
        context = self.posterior_context(features)
        return FlowPosterior(
            as_family(normal, Gaussian),
            partial(self._posterior_flow, context=context),
            partial(self._posterior_inverse, context=context),
        )

    def _posterior_flow(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        total = torch.zeros_like(z[..., 0])
        for step in self.posterior_steps:
            z, log_det = step(z, context)
            total = total + log_det
        return z, total

    def _posterior_inverse(self, z: Tensor, context: Tensor) -> Tensor:
        for step in reversed(self.posterior_steps):
            z = cast(AutoregressiveFlow, step).inverse(z, context)
        return z

    def prior(self) -> Prior:
        """Return p(u), over ``(latent_dim,)``."""
        if not hasattr(self, "raw_pseudo_inputs"):
            return StandardNormal(self.get_buffer("origin"))
        x = self.observation_model.squashed(self.raw_pseudo_inputs)
        owner = torch.arange(len(x), device=x.device)
        raw = self.raw_pseudo_conditions
        conditions = (
            raw.softmax(-1) if raw is not None and isinstance(self.conditions, int) else raw
        )
        times = x.new_zeros(len(x))
        if self.pseudo_times is not None:
            times = self.time_flow.nearest(self.pseudo_times)
        pseudo = Visits(x, times, owner, torch.ones_like(owner), None, conditions)
        posterior = self.posterior(pseudo)
        base = posterior.base if isinstance(posterior, FlowPosterior) else posterior
        normals = as_family(base, Gaussian)
        return NormalMixture(normals.mean, normals.factor)

    def sample_latents(self, n: int, y: Extra = None) -> Tensor:
        return self.prior().sample(torch.Size((n,)))

    # --- time -------------------------------------------------------------------------------------

    def set_times(self, times: Tensor) -> None:
        self.time_flow.set_times(self.model_times(times), times)

    def _context(self, y: Extra) -> Extra:
        return self.condition(y) if self.condition_dim else None

    def _to_origin(self, visits: Visits, z: Tensor) -> Tensor:
        context = self._context(visits.conditions)
        return self.time_flow.inverse(z, visits.times, context)[0]

    def path(self, latents: Tensor, owner: Tensor, times: Tensor, y: Extra = None) -> Tensor:
        z, _ = self.time_flow.along(latents, owner, times, self._context(y))
        return z

    # --- inference --------------------------------------------------------------------------------

    def infer(self, visits: Visits, num_samples: int, proposal: Proposal) -> tuple[Tensor, Tensor]:
        if proposal == "set":
            u, log_q = self.posterior(visits).rsample_and_log_prob((num_samples,))
            return u, self.prior().log_prob(u) - log_q
        count = visits.num_individuals
        offset = torch.rand(num_samples, count, device=visits.owner.device)
        if proposal == "mixture":  # each visit of an individual is drawn from equally often
            numbers = torch.arange(num_samples, device=offset.device)[:, None]
            offset = (numbers + offset[:1]) / num_samples
        chosen = visits.pick(offset).flatten()
        # A visit is encoded once, however often it is drawn; the mixture needs all of them.
        used, place = chosen.unique(return_inverse=True)
        if proposal == "mixture":
            used, place = torch.arange(len(visits), device=chosen.device), chosen
        features = self._summary(visits.alone(used))
        drawn, log_q = self._posterior_of(features[place]).rsample_and_log_prob()
        if self.inference == "visit":
            context = self._context(visits.y)
            context = None if context is None else context.repeat(num_samples, 1)
            drawn, log_det = self.time_flow.inverse(drawn, visits.times[chosen], context)
            log_q = log_q + log_det
        u, log_q = drawn.unflatten(0, (num_samples, count)), log_q.unflatten(0, (-1, count))
        if proposal == "mixture":
            log_q = self._mixture_log_prob(self._posterior_of(features), u, visits)
        return u, self.prior().log_prob(u) - log_q

    def _mixture_log_prob(self, posterior: Posterior, u: Tensor, visits: Visits) -> Tensor:
        """Return the log density of the mixture over visits, ``(S, B)``."""
        assert isinstance(posterior, Distribution)
        if self.inference == "set":
            logs = posterior.log_prob(u[:, visits.owner])
        else:
            z, log_det = self.time_flow.along(
                u, visits.owner, visits.times, self._context(visits.y)
            )
            logs = posterior.log_prob(z) + log_det
        return visits.logsumexp(logs) - visits.counts.log()

    def individual_means(self, visits: Visits) -> Tensor:
        if self.inference != "visit":
            mean: Tensor = self.posterior(visits).mean
            return mean
        return super().individual_means(visits)

    def individual_scales(self) -> Tensor:
        return cast(Distribution, self.prior()).stddev

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
        """Return minus the objective, from one latent for each individual."""
        visits = self.visits(x, times, observed, mask, y)
        if self.training and self.inference == "set" and self.hidden_share > 0.0:
            visits = self._partly_hidden(visits)
        share = min(1.0, max(0.0, 2.0 * self.epoch / self.warmup - 1.0)) if self.warmup else 1.0
        terms = x.new_zeros(2, len(x))
        if share > 0.0:
            terms = share * torch.stack(self._sequence_terms(visits))
        if share < 1.0:
            terms = terms + (1.0 - share) * torch.stack(self._visit_terms(visits))
        reconstruction, kl = -average(terms[0], weight), average(terms[1], weight)
        return Losses.of(reconstruction + kl, reconstruction=reconstruction, kl=kl)

    def _sequence_terms(self, visits: Visits) -> tuple[Tensor, Tensor]:
        """Return log p(visits | u) and the divergence of u, ``(B,)`` each."""
        if self.inference != "visit":
            u, kl = self._divergence(self.posterior(visits))
        else:
            drawn, ratio = self.infer(visits, 1, "visit")
            u, kl = drawn[0], -ratio[0]
        fit = self.log_fit(u, visits)
        return (fit / visits.counts if self.length_normalised else fit), kl

    def _visit_terms(self, visits: Visits) -> tuple[Tensor, Tensor]:
        """Return the terms of a VAE that sees each visit alone, summed or averaged likewise."""
        single = visits.singly()
        z, kl = self._divergence(self.posterior(single))
        fit = self.likelihood(z, single.y).log_prob(single.x, single.mask)
        terms = visits.sum(torch.stack([fit, kl]))
        alone, divergence = terms / visits.counts if self.length_normalised else terms
        return alone, divergence

    def _divergence(self, posterior: Posterior) -> tuple[Tensor, Tensor]:
        """Return a draw of the posterior and its divergence from the prior, exact if possible."""
        prior = self.prior()
        # Of an exact posterior, the objective from a draw is that of every draw, without noise.
        exact = self.inference != "laplace" and isinstance(posterior, Gaussian)
        if exact and isinstance(prior, StandardNormal):
            return posterior.rsample(), kl_divergence(posterior, prior)
        z, log_q = posterior.rsample_and_log_prob()
        return z, log_q - prior.log_prob(z)

    def _partly_hidden(self, visits: Visits) -> Visits:
        """Hide some visits of some individuals: the last ones, or any."""
        # The numbers are drawn for observed visits only, so that padding changes nothing.
        draws = torch.rand(3, visits.num_individuals, device=visits.owner.device)
        order = torch.rand(len(visits), device=visits.owner.device)
        hides, prefix = draws[0] < self.hidden_share, draws[1] < 0.5
        kept = (draws[2] * visits.counts).long().minimum(visits.counts - 1) + 1
        kept = torch.where(hides, kept, visits.counts)
        # The rank of each visit of an individual in a random order.
        places = order.argsort(stable=True)
        places = places[visits.owner[places].argsort(stable=True)]
        shuffled = torch.empty_like(places).scatter(0, places, visits.rank)
        rank = torch.where(prefix[visits.owner], visits.rank, shuffled)
        return visits.kept(rank < kept[visits.owner])
