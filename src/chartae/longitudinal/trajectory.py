"""The model of trajectories that are straight lines in time, with individual speed and delay."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, ClassVar, Literal, Unpack

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from chartae.checks import Count, Natural, NonNegative, Positive, check_number
from chartae.data import Sequences
from chartae.distributions import (
    DiagonalNormal,
    DiagonalNormalHead,
    Gaussian,
    NormalMixture,
    StandardNormal,
    kl_divergence,
    normal_head,
)
from chartae.errors import ConfigurationError
from chartae.longitudinal.base import Proposal, SequenceModel, times_of
from chartae.longitudinal.draws import Draws
from chartae.longitudinal.visit_latents import padded
from chartae.longitudinal.visits import Visits
from chartae.models.base import Networks
from chartae.models.losses import Extra, Losses, average
from chartae.models.trainable import Batch
from chartae.samplers.mixture import check_mixture, fitted_mixture

__all__ = ["Trajectories", "TrajectoryVAE"]


@dataclass(frozen=True, repr=False)
class Trajectories:
    """The trajectories of individuals, with the uncertainty of the posterior.

    Given the visits, log speed and delay are normal, with a correlation; coordinates in space are
    independent and normal.

    Attributes:
        ids: the names of the individuals.
        speed: ``(N,)``, the median of the speed, per unit of time of the data; 1 / time_scale is
            the speed of log_speed 0.
        log_speed: ``(N,)``, the mean of eta, the log of the speed relative to the others.
        log_speed_std: ``(N,)``.
        delay: ``(N,)``, the mean of the time at which an individual passes the origin of the line,
            in the unit of time of the data.
        delay_std: ``(N,)``.
        space: ``(N, latent_dim - 1)``, the mean of the coordinates that do not change in time.
        space_std: ``(N, latent_dim - 1)``.
        correlation: ``(N,)``, of log speed and delay.
    """

    ids: tuple[str, ...]
    speed: Tensor
    log_speed: Tensor
    log_speed_std: Tensor
    delay: Tensor
    delay_std: Tensor
    space: Tensor
    space_std: Tensor
    correlation: Tensor

    def __len__(self) -> int:
        """The number N of individuals."""
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Trajectories({len(self)} individuals)"

    def speed_quantile(self, q: float) -> Tensor:
        """Return a quantile of the posterior of each speed, ``(N,)``.

        Args:
            q: in (0, 1).
        """
        return self.speed * (_normal_quantile(q) * self.log_speed_std).exp()

    def delay_quantile(self, q: float) -> Tensor:
        """Return a quantile of the posterior of each delay, ``(N,)``; q is in (0, 1)."""
        return self.delay + _normal_quantile(q) * self.delay_std

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row for each individual, named by its id.

        Needs pandas.
        """
        from pandas import DataFrame, Index

        columns = {
            "speed": self.speed,
            "speed_low": self.speed_quantile(0.05),
            "speed_high": self.speed_quantile(0.95),
            "delay": self.delay,
            "delay_low": self.delay_quantile(0.05),
            "delay_high": self.delay_quantile(0.95),
            "correlation": self.correlation,
        }
        for number, (place, deviation) in enumerate(
            zip(self.space.T, self.space_std.T, strict=True)
        ):
            columns[f"space_{number}"] = place
            columns[f"space_{number}_std"] = deviation
        values = {name: column.cpu().numpy() for name, column in columns.items()}
        return DataFrame(values, index=Index(self.ids, name="id"))


class TrajectoryVAE(SequenceModel):
    r"""A VAE of trajectories that are straight lines in time (thesis ch. 5).

    .. math:: l_i(t) = e^{\eta_i} (t - \tau_i) \, e_1 + \sum_{k \ge 2} \lambda_i^k e_k, \quad
        x_{it} \sim p(x | l_i(t))

    An individual has a speed :math:`e^\eta`, a delay :math:`\tau`, and coordinates :math:`\lambda`
    in space, which do not change in time: ``latent_dim + 1`` numbers. Priors are
    :math:`\eta \sim N(m_\eta, s_\eta^2)`, :math:`\tau \sim N(m_\tau, s_\tau^2)` and
    :math:`\lambda \sim N(0, I)`, at standardised times. In the thesis :math:`m_\eta` is 0: the
    decoder can absorb it, but learns to slowly. The objective is

    .. math:: E_q \sum_{j \in O} \log p(x_j | l(t_j))
        - \beta \, KL(q(\eta, \tau, \lambda | x_O, t_O) \| p(\eta, \tau, \lambda)).

    The noise of the likelihood weighs the first term: by default it is learned, and :math:`\beta`
    is 1. The published objective has a fixed variance of 1/2 (``likelihood={"name": "gaussian",
    "scale": 0.7071}``) and :math:`\beta = 0.1`. A fixed variance :math:`s^2` with a weight
    :math:`\beta` has the same minima as the variance :math:`\beta s^2` with the weight 1.

    Use it for a progression that individuals pass through at their own pace: scores of a disease,
    or images of it. For images, encode visits with a trained autoencoder first
    (`chartae.longitudinal.encode_visits`), as in the thesis, or give networks for images.

    Args:
        input_shape: shape of one visit.
        latent_dim: size d of the space of the line, at least 2.
        beta: weight of the divergence, at least 0.
        speed_scale: the :math:`s_\eta`; where the prior is learned, at the start.
        delay_scale: the :math:`s_\tau`, in standard deviations of the times; likewise.
        learned_prior: whether the :math:`m` and :math:`s` are learned. Otherwise :math:`m_\eta` is
            0, and :math:`m_\tau` is the mean time of the training set.
        covariance: ``"full"``: the posterior of :math:`\eta, \tau` has a 2 x 2 covariance, which
            calibrated futures need; ``"diagonal"`` is the thesis' choice.
        space_from: ``"all"``: the posterior of :math:`\lambda` sees all visits; ``"first"``: the
            first observed one (the thesis).
        prefixes: how the posterior given the first visits is learned, which futures need; the
            length of the prefix of each individual is random. ``"matched"`` adds two terms to the
            objective: the log density of the latents of the whole sequence under the posterior
            given a prefix, which gives it the right spread, and the fit of all visits to the line
            of its mean, at the noise of the first term. ``"complete"``: the posterior in the
            objective is given a prefix only. ``"seen"``: the prefix is a sequence of its own.
            ``"none"``: whole sequences only (the thesis).
        hidden: size of the recurrent network.
        num_layers: number of its layers.
        space_components: number of components of the mixture of normals that is fitted to the
            :math:`\lambda` of the training set, from which new individuals are drawn; 0 draws from
            the prior.
        networks: the other arguments of `Autoencoder`.

    Raises:
        ConfigurationError: if latent_dim is less than 2.

    >>> import torch, chartae
    >>> from chartae.data import Sequences
    >>> x = torch.linspace(0.0, 1.0, 5)[None, :, None] * torch.rand(20, 1, 3)
    >>> data = Sequences(x, times=torch.arange(5.0))
    >>> model = TrajectoryVAE((3,), latent_dim=2, space_components=2)
    >>> _ = chartae.fit(model, data, epochs=2, seed=0, progress=False)
    >>> model.trajectories(data).delay.shape
    torch.Size([20])
    """

    fitted_buffers: ClassVar[tuple[str, ...]] = ("space_weights", "space_means", "space_factors")
    proposals: tuple[Proposal, ...] = ("set", "prior")
    space_weights: Tensor
    space_means: Tensor
    space_factors: Tensor

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        beta: NonNegative = 1.0,
        speed_scale: Positive = 0.55,
        delay_scale: Positive = 0.55,
        learned_prior: bool = True,
        covariance: Literal["full", "diagonal"] = "full",
        space_from: Literal["all", "first"] = "all",
        prefixes: Literal["matched", "complete", "seen", "none"] = "matched",
        hidden: Count = 128,
        num_layers: Count = 1,
        space_components: Natural = 10,
        **networks: Unpack[Networks],
    ) -> None:
        if latent_dim < 2:
            raise ConfigurationError(
                f"latent_dim={latent_dim}: expected at least 2, one for time and one for space"
            )
        super().__init__(input_shape, latent_dim, **networks)
        self.beta, self.learned_prior, self.covariance = beta, learned_prior, covariance
        self.speed_scale, self.delay_scale = speed_scale, delay_scale
        self.space_from, self.prefixes = space_from, prefixes
        self.hidden, self.num_layers, self.space_components = hidden, num_layers, space_components
        space = latent_dim - 1
        self.recurrent = nn.GRU(self.num_features + 2, hidden, num_layers, batch_first=True)
        self.pace_head = normal_head(covariance, hidden, 2)
        size = self.num_features + (hidden if space_from == "all" else 0)
        self.space_body = nn.Sequential(nn.Linear(size, hidden), nn.Tanh())
        self.space_head = DiagonalNormalHead(hidden, space)
        prior = torch.tensor([speed_scale, delay_scale]).log()
        self.log_scales = nn.Parameter(prior, requires_grad=learned_prior)
        self.mean_log_speed = nn.Parameter(torch.zeros(()), requires_grad=learned_prior)
        self.mean_delay = nn.Parameter(torch.zeros(()), requires_grad=learned_prior)
        self.register_buffer("origin", torch.zeros(space), persistent=False)
        self.register_buffer("space_weights", torch.zeros(0))
        self.register_buffer("space_means", torch.zeros(0, space))
        self.register_buffer("space_factors", torch.zeros(0, space, space))

    def check_buffers(self) -> None:
        super().check_buffers()
        check_mixture(self.space_weights, self.space_means, self.space_factors)

    # --- prior and posterior ----------------------------------------------------------------------

    def pace_prior(self) -> DiagonalNormal:
        """Return the prior of (eta, tau), over ``(2,)``."""
        mean = torch.stack([self.mean_log_speed, self.mean_delay])
        return DiagonalNormal(mean, self.log_scales.exp())

    def space_prior(self) -> StandardNormal:
        """Return the prior of lambda, over ``(latent_dim - 1,)``."""
        return StandardNormal(self.get_buffer("origin"))

    def posteriors(self, visits: Visits) -> tuple[Gaussian, Gaussian]:
        """Return q(eta, tau | visits) and q(lambda | visits) of each individual."""
        (found,) = self._posteriors(visits, visits.ends)
        return found

    def _posteriors(self, visits: Visits, *ends: Tensor) -> Iterator[tuple[Gaussian, Gaussian]]:
        """Yield the posteriors given the visits up to those at places ``(B,)``."""
        features = self.visit_features(visits)
        states = self._states(features, visits)
        first = features[visits.starts]
        for places in ends:
            state = states[places]
            given = torch.cat([first, state], -1) if self.space_from == "all" else first
            yield self.pace_head(state), self.space_head(self.space_body(given))

    def _states(self, features: Tensor, visits: Visits) -> Tensor:
        """Return the state of the recurrent network after each visit, ``(M, hidden)``."""
        times = visits.times
        before = torch.where(visits.rank > 0, times.roll(1), times)
        inputs = torch.cat([features, torch.stack([times, times - before], -1)], -1)
        rows = padded(inputs, visits.owner, visits.rank, visits.counts)
        # The padding comes after the last visit of an individual, and changes no state before it.
        states: Tensor = self.recurrent(rows)[0][visits.owner, visits.rank]
        return states

    def infer(self, visits: Visits, num_samples: int, proposal: Proposal) -> tuple[Tensor, Tensor]:
        """Draw (eta, tau, lambda), ``(num_samples, B, latent_dim + 1)``.

        With the proposal ``"prior"`` speed and delay do not depend on the visits.
        """
        pace, space = self.posteriors(visits)
        prior = self.pace_prior()
        if proposal == "prior":
            drawn = prior.rsample((num_samples, visits.num_individuals))
            ratio = torch.zeros_like(drawn[..., 0])
        else:
            drawn, log_q = pace.rsample_and_log_prob((num_samples,))
            ratio = prior.log_prob(drawn) - log_q
        place, log_q = space.rsample_and_log_prob((num_samples,))
        ratio = ratio + self.space_prior().log_prob(place) - log_q
        return torch.cat([drawn, place], -1), ratio

    def individual_means(self, visits: Visits) -> Tensor:
        pace, space = self.posteriors(visits)
        return torch.cat([pace.mean, space.mean], -1)

    def individual_scales(self) -> Tensor:
        return torch.cat([self.pace_prior().stddev, self.space_prior().stddev])

    def path(self, latents: Tensor, owner: Tensor, times: Tensor, y: Extra = None) -> Tensor:
        pace, delay, space = latents[..., owner, :].split([1, 1, self.latent_dim - 1], -1)
        return torch.cat([pace.exp() * (times[:, None] - delay), space], -1)

    def sample_latents(self, n: int, y: Extra = None) -> Tensor:
        pace = self.pace_prior().sample(torch.Size((n,)))
        space: Tensor = self.space_prior().sample(torch.Size((n,)))
        if len(self.space_weights):
            mixture = NormalMixture(self.space_means, self.space_factors, self.space_weights)
            space = mixture.sample(torch.Size((n,)))
        return torch.cat([pace, space], -1)

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
        """Return minus the objective, from one draw for each individual.

        With matched prefixes, ``matching`` and ``completion`` are added, also in evaluation, so
        that they take part in the choice of the best epoch.
        """
        visits = self.visits(x, times, observed, mask, y)
        ends = [visits.ends]
        if self.prefixes == "matched" or (self.training and self.prefixes != "none"):
            share = torch.rand(visits.num_individuals, device=visits.owner.device)
            ends.append(visits.pick(share))
        if self.training and self.prefixes == "seen":
            places = torch.arange(len(visits), device=share.device)
            visits = visits.kept(places <= ends[1][visits.owner])
            ends = [visits.ends]
        found = list(self._posteriors(visits, *ends))
        used = found[-1] if self.prefixes == "complete" else found[0]
        latents = [posterior.rsample() for posterior in used]
        reconstruction = -average(self.log_fit(torch.cat(latents, -1), visits), weight)
        divergence = kl_divergence(used[0], self.pace_prior())
        divergence = divergence + kl_divergence(used[1], self.space_prior())
        kl = average(divergence, weight)
        total = reconstruction + self.beta * kl
        if self.prefixes != "matched":
            return Losses.of(total, reconstruction=reconstruction, kl=kl)
        matching, completion = self._prefix_terms(found[1], latents, visits)
        terms = {"matching": -average(matching, weight), "completion": -average(completion, weight)}
        total = total + terms["matching"] + terms["completion"]
        return Losses.of(total, reconstruction=reconstruction, kl=kl, **terms)

    def _prefix_terms(
        self, given: tuple[Gaussian, Gaussian], latents: list[Tensor], visits: Visits
    ) -> tuple[Tensor, Tensor]:
        """Return how well posteriors given prefixes fit whole sequences, ``(B,)`` each.

        Args:
            given: the posteriors of speed and delay, and of space.
            latents: draws of the posteriors given all visits.
            visits: all visits.
        """
        matching = [q.log_prob(u.detach()) for q, u in zip(given, latents, strict=True)]
        # A prefix does not determine the later visits. Their errors would teach the likelihood a
        # larger noise than that of visits on a known line.
        noise = [p for p in self.observation_model.parameters() if p.requires_grad]
        for parameter in noise:
            parameter.requires_grad_(False)
        completion = self.log_fit(torch.cat([q.mean for q in given], -1), visits)
        for parameter in noise:
            parameter.requires_grad_(True)
        return matching[0] + matching[1], completion

    def on_fit_start(self, size: int) -> None:
        for name in self.fitted_buffers:
            setattr(self, name, self.get_buffer(name)[:0])

    @torch.no_grad()
    def on_fit_end(self, batches: Iterable[Batch]) -> None:
        """Fit the mixture of the space coordinates of the training set."""
        if not self.space_components:
            return
        found = []
        for batch in batches:
            given = {name: value for name, value in batch.items() if name != "weight"}
            _, space = self.posteriors(self.visits(**given))
            found.append(space.rsample())
        codes = torch.cat(found)
        fitted = fitted_mixture(codes, min(self.space_components, max(1, len(codes) // 5)))
        self.space_weights = fitted.weights
        self.space_means, self.space_factors = fitted.loc, fitted.scale

    # --- what a clinician asks for ----------------------------------------------------------------

    @torch.no_grad()
    def trajectories(self, sequences: Sequences) -> Trajectories:
        """Return speed, delay and space of each individual, with their uncertainty.

        Raises:
            DataError: if the sequences do not fit the model.
        """
        means, covariances, places, spreads = [], [], [], []
        for _, visits in self._blocks(sequences, 1):
            pace, space = self.posteriors(visits)
            covariance = pace.covariance.double()
            means.append(pace.mean.double())
            covariances.append(covariance if covariance.dim() == 3 else covariance.diag_embed())
            places.append(space.mean)
            spreads.append(space.stddev)
        mean, covariance = torch.cat(means), torch.cat(covariances)
        deviation = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
        center, scale = (self.get_buffer(f"time_{n}").double() for n in ("center", "scale"))
        return Trajectories(
            sequences.ids,
            mean[:, 0].exp() / scale,
            mean[:, 0],
            deviation[:, 0],
            center + scale * mean[:, 1],
            scale * deviation[:, 1],
            torch.cat(places),
            torch.cat(spreads),
            covariance[:, 0, 1] / deviation.prod(-1),
        )

    def pace_scales(self) -> tuple[float, float]:
        """Return the standard deviations of log speed and of delay over individuals.

        They are those of the prior; that of the delay is in the unit of time of the data.
        """
        log_speed, delay = self.pace_prior().stddev.tolist()
        return log_speed, delay * float(self.get_buffer("time_scale"))

    @torch.no_grad()
    def varied(
        self,
        sequences: Sequences,
        times: ArrayLike | Tensor,
        *,
        speed: float = 1.0,
        delay: float = 0.0,
    ) -> Tensor:
        """Return the courses of individuals if they had another speed or delay (Fig. 5.6 a, b).

        Latents are their means given the visits, and values are means of p(x|z), in the range of
        the data, with channels first.

        Args:
            sequences: the individuals.
            times: ``(K,)`` for all of them, or ``(N, K)``, in the unit of the data.
            speed: a factor of the speed, above 0.
            delay: what is added to the delay, in the unit of time of the data.

        Returns:
            ``(N, K, *input_shape)``.

        Raises:
            DataError: if the sequences do not fit the model, or for times that are not finite.
            ConfigurationError: for numbers out of range.
        """
        shift = [math.log(check_number("speed", speed, above=0.0)), check_number("delay", delay)]
        shift[1] /= float(self.get_buffer("time_scale"))
        when, found = times_of(sequences, times).to(self.device), []
        for rows, visits in self._blocks(sequences, 1, when.shape[1]):
            latents = self.individual_means(visits)
            latents[:, :2] += torch.tensor(shift).to(latents)
            owner = torch.arange(len(latents), device=self.device).repeat_interleave(when.shape[1])
            z = self.path(latents, owner, self.model_times(when[rows]).flatten(), visits.y)
            own = None if visits.y is None else visits.y[owner]
            found.append(self._values(z, own, False).unflatten(0, (len(latents), -1)))
        return torch.cat(found)

    def possible_courses(
        self,
        sequences: Sequences,
        times: ArrayLike | Tensor,
        n: int = 16,
        *,
        noise: bool | None = None,
        seed: int = 0,
    ) -> Draws:
        """Return n courses with the space of each individual, and any speed and delay.

        Speed and delay are drawn from their prior, so the stage of the visits is ignored (thesis
        section 5.4, Fig. 5.6); `futures` draws them given the visits. Arguments as in `futures`.
        """
        return self.futures(
            sequences, times, n, how="best", proposal="prior", noise=noise, seed=seed
        )


def _normal_quantile(q: float) -> float:
    """Return a quantile of the standard normal."""
    check_number("q", q, above=0.0, below=1.0)
    return NormalDist().inv_cdf(q)
