"""The contract of every model of individuals with several visits."""

import math
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from chartae.checks import check_choice, check_integer, check_mask, check_weight
from chartae.data import Sequences
from chartae.data.arrays import as_tensor
from chartae.distributions import Moments
from chartae.errors import DataError
from chartae.longitudinal.draws import Draws, How, JointLikelihood
from chartae.longitudinal.visits import Visits
from chartae.longitudinal.weights import effective_samples, finite_weights, resampled, tempered
from chartae.models.base import Autoencoder
from chartae.models.losses import Extra
from chartae.models.trainable import Batch
from chartae.randomness import resolve_seed, seeded

__all__ = ["How", "Proposal", "SequenceModel", "times_of"]

Proposal = Literal["set", "mixture", "visit", "prior"]
"""What latents of individuals are drawn from, see `SequenceModel.log_likelihood`."""

BLOCK = 2**21
"""Number of decoded features at once, which bounds the memory of likelihoods and draws."""


class SequenceModel(Autoencoder):
    """Base of the models of individuals with several visits, at any times, with holes.

    `chartae.fit` trains it on `chartae.data.Sequences`. Inside, a model sees the observed visits of
    a batch only (`Visits`), at standardised times. What was not observed cannot influence it.

    A subclass defines `loss`, and three methods:

    * `infer` draws the latents of individuals, given their visits;
    * `path` gives the decoder's latents at any time, from the latents of individuals;
    * `sample_latents` draws the latents of new individuals.

    Everything else follows: `log_likelihood`, `impute`, `futures`, `interpolate` and `generate`.

    Args:
        networks: the arguments of `Autoencoder`; ``input_shape`` is the shape of one visit. With
            ``conditions``, the covariates of individuals are conditions of the model.
    """

    proposals: tuple[Proposal, ...] = ("set", "mixture", "visit")
    """The proposals that `infer` knows; the first is the default."""

    def __init__(self, *args: Any, **networks: Any) -> None:
        super().__init__(*args, **networks)
        self.add_time_units()

    def add_time_units(self) -> None:
        """Add the buffers of the units of time."""
        # In the model's precision, as all that is saved; `model_times` subtracts in float64.
        self.register_buffer("time_center", torch.zeros(()))
        self.register_buffer("time_scale", torch.ones(()))

    # --- what a subclass defines --------------------------------------------------------------

    def infer(self, visits: Visits, num_samples: int, proposal: Proposal) -> tuple[Tensor, Tensor]:
        """Draw latents u of individuals from a proposal q(u | visits).

        Returns:
            ``(num_samples, B, *latent)``, and log p(u) - log q(u), ``(num_samples, B)``.
        """
        raise NotImplementedError

    def path(self, latents: Tensor, owner: Tensor, times: Tensor, y: Extra = None) -> Tensor:
        """Return the decoder's latents z(t) at times of individuals.

        Args:
            latents: ``(..., B, *latent)``, from `infer` or `sample_latents`.
            owner: ``(n,)``, the individual of each time.
            times: ``(n,)``, in the model's units.
            y: conditions of the B individuals.

        Returns:
            ``(..., n, latent_dim)``.
        """
        raise NotImplementedError

    def sample_latents(self, n: int, y: Extra = None) -> Tensor:
        """Return the latents of n new individuals, ``(n, *latent)``, from global generators."""
        raise NotImplementedError

    # --- time -------------------------------------------------------------------------------------

    def model_times(self, times: Tensor) -> Tensor:
        """Return times in the model's units: standardised by those of the training set."""
        center, scale = self.get_buffer("time_center"), self.get_buffer("time_scale")
        return ((times.double() - center.double()) / scale.double()).to(self.dtype)

    def set_units(self, batches: Iterable[Batch]) -> None:
        """Compute the units of the likelihood and of time from the training set."""
        whens: list[Tensor] = []

        def frames() -> Iterator[tuple[Tensor, Extra]]:
            for batch in batches:
                times, observed = _defaults(batch["x"], batch.get("times"), batch.get("observed"))
                whens.append(times[observed].double())
                mask = batch.get("mask")
                yield batch["x"][observed], None if mask is None else mask[observed]

        moments = Moments.of(frames())
        if self.observation_model.has_units:
            self.observation_model.set_units(moments)
        when = torch.cat(whens)
        spread = when.std(correction=0)
        self.get_buffer("time_center").copy_(when.mean())
        self.get_buffer("time_scale").copy_(torch.where(spread > 0.0, spread, 1.0))
        self.set_times(when)

    def set_times(self, times: Tensor) -> None:
        """Learn the times ``(n,)`` of the training set's visits; by default nothing."""

    # --- likelihoods ------------------------------------------------------------------------------

    def visits(
        self,
        x: Tensor,
        times: Extra = None,
        observed: Extra = None,
        mask: Extra = None,
        y: Extra = None,
    ) -> Visits:
        """Return the observed visits of tensors of a batch, ``(B, T, ...)``."""
        times, observed = _defaults(x, times, observed)
        return Visits.of(x, self.model_times(times), observed, mask, y)

    def visit_features(self, visits: Visits) -> Tensor:
        """Return the encoder's features of each visit, ``(M, num_features)``."""
        return self.features(visits.x, visits.conditions, visits.mask)

    def log_fit(self, latents: Tensor, visits: Visits) -> Tensor:
        """Return log p(visits | u) of latents ``(..., B, *latent)``: ``(..., B)``."""
        z = self.path(latents, visits.owner, visits.times, visits.y)
        fit: Tensor = self.likelihood(z, visits.conditions).log_prob(visits.x, visits.mask)
        return visits.sum(fit)

    def log_weights(
        self, visits: Visits, num_samples: int = 1, proposal: Proposal | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return log p(visits | u), and log p(u) - log q(u), of drawn u: ``(num_samples, B)``.

        The mean of exp(their sum) over samples is an unbiased estimate of p(visits).
        """
        latents, ratio = self.infer(visits, num_samples, proposal or self.proposals[0])
        return self._log_fits(latents, visits), ratio

    def _log_fits(self, latents: Tensor, visits: Visits) -> Tensor:
        """Return `log_fit` of latents ``(S, B, *latent)``, in parts that bound the memory."""
        size = self._block(len(visits))
        return torch.cat([self.log_fit(part, visits) for part in latents.split(size)])

    def _block(self, visits: int) -> int:
        """Return how many times a number of visits may be decoded at once."""
        return max(1, BLOCK // (visits * math.prod(self.input_shape)))

    def estimate(
        self, visits: Visits, num_samples: int, proposal: Proposal
    ) -> tuple[Tensor, Tensor]:
        """Return estimates of log p(visits), and their effective sample sizes: ``(B,)`` each."""
        fit, ratio = self.log_weights(visits, num_samples, proposal)
        weights = finite_weights(fit + ratio)
        return weights.logsumexp(0) - math.log(num_samples), effective_samples(weights)

    @torch.no_grad()
    def log_likelihood(
        self,
        sequences: Sequences,
        num_samples: int = 100,
        *,
        proposal: Proposal | None = None,
        seed: int = 0,
    ) -> JointLikelihood:
        """Return the joint log p(x_1, ..., x_T) of the observed visits, by importance sampling.

        Args:
            sequences: the individuals.
            num_samples: importance samples of each individual. In expectation the estimate is a
                lower bound, which tightens with more.
            proposal: ``"set"`` sees all visits of an individual; ``"visit"`` sees one, drawn at
                random (as published); ``"mixture"`` is the mixture of the latter over the visits,
                with their balance weights. None is the tightest of the model's.
            seed: the same seed gives the same samples.

        Raises:
            ConfigurationError: for a proposal that the model does not have.
            DataError: if the sequences do not fit the model.
        """
        check_integer("num_samples", num_samples, minimum=1)
        proposal = self._proposal(proposal)
        logs, sizes, features = [], [], []
        with seeded(resolve_seed(seed), "log_likelihood", device=self.device):
            for _, visits in self._blocks(sequences, num_samples):
                log_prob, size = self.estimate(visits, num_samples, proposal)
                logs.append(log_prob)
                sizes.append(size)
                seen = visits.counts * math.prod(self.input_shape)
                if visits.mask is not None:
                    seen = visits.sum(visits.mask.flatten(1).sum(-1))
                features.append(seen)
        return JointLikelihood(
            torch.cat(logs),
            torch.cat(sizes),
            num_samples,
            sequences.num_visits,
            torch.cat(features),
        )

    # --- tasks ------------------------------------------------------------------------------------

    def impute(
        self,
        sequences: Sequences,
        how: How = "best",
        num_draws: int = 16,
        *,
        noise: bool | None = None,
        seed: int = 0,
    ) -> Draws:
        """Return draws of all visits of individuals, those that were not observed included.

        Args:
            sequences: the individuals; visits that are not observed are imputed at their times,
                features outside the mask inside their visits.
            how: ``"best"`` keeps the draws as they are, and `Draws.best` is the one that fits what
                was observed best (thesis Alg. 7: an argmax, not a draw of the posterior);
                ``"resample"`` resamples them by their importance weights, so that means and
                quantiles are those of the posterior; ``"naive"`` draws given one visit, chosen at
                random. Where weights would leave fewer than a quarter of the draws, and fewer than
                64, as an effective sample size, they are raised to the largest power that leaves as
                many: draws are then between those of the encoder and those of the posterior.
            num_draws: number of draws, at least 1.
            noise: whether values are draws of p(x|z) or its means; None draws for tables, and
                takes means of images.
            seed: the same seed gives the same draws.

        Raises:
            ConfigurationError: for another ``how``.
            DataError: if the sequences do not fit the model.
        """
        return self._draws(sequences, sequences.times, how, num_draws, noise, seed)

    def futures(
        self,
        sequences: Sequences,
        times: ArrayLike | Tensor,
        n: int = 16,
        *,
        how: How = "resample",
        proposal: Proposal | None = None,
        noise: bool | None = None,
        seed: int = 0,
    ) -> Draws:
        """Return n possible courses of each individual at given times, given what was observed.

        Args:
            sequences: the individuals.
            times: ``(K,)`` for all of them, or ``(N, K)``, in the unit of the data.
            n: number of draws, at least 1.
            how: as in `impute`.
            proposal: as in `log_likelihood`; what individuals are drawn from.
            noise: as in `impute`.
            seed: the same seed gives the same draws.
        """
        when = times_of(sequences, times)
        return self._draws(sequences, when, how, n, noise, seed, proposal=proposal, complete=False)

    def interpolate(
        self, sequences: Sequences, times: ArrayLike | Tensor, n: int = 16, *, seed: int = 0
    ) -> Draws:
        """Return draws of the individuals at any times, between their visits or beyond them.

        Args and errors as in `futures`. Values are means of p(x|z).
        """
        return self.futures(sequences, times, n, noise=False, seed=seed)

    @torch.no_grad()
    def generate(
        self,
        n: int,
        times: ArrayLike | Tensor,
        *,
        y: ArrayLike | Tensor | None = None,
        noise: bool | None = None,
        seed: int = 0,
    ) -> Any:
        """Return visits of n new individuals, ``(n, K, *input_shape)``.

        They are a tensor, or an array if ``times`` or ``y`` is one.

        Args:
            n: number of individuals, at least 1.
            times: ``(K,)``, in the unit of the data.
            y: their conditions, for a model that has them.
            noise: as in `impute`.
            seed: the same seed gives the same individuals.
        """
        n = check_integer("n", n, minimum=1)
        when = as_tensor("times", times).double().to(self.device)
        if when.ndim != 1 or not when.numel() or not bool(when.isfinite().all()):
            raise DataError(f"times has shape {tuple(when.shape)}: expected finite numbers, (K,)")
        conditions = None if y is None else as_tensor("y", y).to(self.device)
        if conditions is not None and conditions.is_floating_point():
            conditions = conditions.to(self.dtype)
        self.check_conditions("y", conditions, n)
        count = len(when)
        rows, drawn = self._block(count), []
        with seeded(resolve_seed(seed), "generate", device=self.device):
            latents = self.sample_latents(n, conditions)
            for start in range(0, n, rows):
                block = latents[start : start + rows]
                own = None if conditions is None else conditions[start : start + rows]
                owner = torch.arange(len(block), device=self.device).repeat_interleave(count)
                z = self.path(block, owner, self.model_times(when).repeat(len(block)), own)
                values = self._values(z, None if own is None else own[owner], noise)
                drawn.append(values.unflatten(0, (-1, count)))
        values = torch.cat(drawn)
        arrays = isinstance(times, np.ndarray) or isinstance(y, np.ndarray)
        return values.cpu().numpy() if arrays else values

    @torch.no_grad()
    def individuals(self, sequences: Sequences, *, seed: int = 0) -> Tensor:
        """Return a representation of each individual: the mean of its latents, ``(N, size)``.

        Args:
            sequences: the individuals.
            seed: of the draws, where the mean is not known in closed form.
        """
        found = []
        with seeded(resolve_seed(seed), "individuals", device=self.device):
            for _, visits in self._blocks(sequences, 64):
                found.append(self.individual_means(visits).flatten(1))
        return torch.cat(found)

    def individual_means(self, visits: Visits) -> Tensor:
        """Return the means of the latents of individuals, ``(B, *latent)``."""
        latents, _ = self.infer(visits, 64, self.proposals[0])
        return latents.mean(0)

    @torch.no_grad()
    def latent_means(
        self, sequences: Sequences, times: Tensor, *, num_draws: int = 16, seed: int = 0
    ) -> Tensor:
        """Return posterior means of the decoder's latents z(t), ``(N, K, latent_dim)``.

        Args:
            sequences: the individuals.
            times: ``(N, K)``, in the unit of the data.
            num_draws: draws of each individual, resampled by their weights, that are averaged.
            seed: the same seed gives the same draws.

        Raises:
            DataError: if the sequences do not fit the model.
        """
        check_integer("num_draws", num_draws, minimum=1)
        found, count = [], times.shape[1]
        with seeded(resolve_seed(seed), "latent_means", device=self.device):
            for rows, visits in self._blocks(sequences, num_draws, count):
                drawn, _, _ = self.draw_latents(visits, num_draws, self.proposals[0], "resample")
                when = self.model_times(times[rows].to(self.device)).flatten()
                owner = torch.arange(visits.num_individuals, device=self.device)
                z = self.path(drawn, owner.repeat_interleave(count), when, visits.y)
                found.append(z.mean(0).unflatten(0, (-1, count)))
        return torch.cat(found)

    def individual_scales(self) -> Tensor:
        """Return the standard deviations of the prior of `individuals`, ``(size,)`` or ``()``."""
        return torch.ones((), dtype=self.dtype, device=self.device)

    # --- checks, pieces ---------------------------------------------------------------------------

    def check_batch(self, name: str, batch: Batch) -> None:
        x, mask, weight = batch["x"], batch.get("mask"), batch.get("weight")
        self._check_tensor(name, x, ("individuals", "visits", *self.input_shape))
        if not len(x):
            raise DataError(f"{name} is empty: expected at least one individual")
        for what in ("times", "observed"):
            if (given := batch.get(what)) is not None and given.shape != x.shape[:2]:
                raise DataError(
                    f"{what} of {name} has shape {tuple(given.shape)}: expected "
                    f"{tuple(x.shape[:2])}"
                )
        times, observed = _defaults(x, batch.get("times"), batch.get("observed"))
        if observed.dtype != torch.bool or not bool(observed.any(1).all()):
            raise DataError(
                f"observed of {name}: expected booleans, with at least one visit an individual"
            )
        if not bool(times[observed].isfinite().all()):
            raise DataError(f"times of {name} has NaN or infinite values at observed visits")
        frames = x[observed]
        if mask is not None:
            check_mask(f"mask of {name}", mask, x.shape)
            frames = self.observation_model.filled(frames, mask[observed])
        self.check_data(name, frames)
        if self.conditions is not None:
            self.check_conditions(f"y of {name}", batch.get("y"), len(x))
        if weight is not None:
            check_weight(f"weight of {name}", weight, len(x))

    def largest_input(self, batch: Batch) -> float:
        names = ("x", "times", "observed", "mask")
        visits = self.visits(**{k: v for k, v in batch.items() if k in names})
        return float(self.network_input(visits.x, visits.mask).abs().max())

    def _proposal(self, proposal: Proposal | None) -> Proposal:
        if proposal is None:
            return self.proposals[0]
        check_choice("proposal", proposal, self.proposals)
        return proposal

    def _blocks(
        self, sequences: Sequences, num_samples: int, visits: int = 0
    ) -> Iterator[tuple[slice, Visits]]:
        """Yield the individuals in blocks, which bound the memory of decoding, and their visits.

        Args:
            sequences: the individuals.
            num_samples: draws of each individual.
            visits: number of visits decoded for each, if there are more than in ``sequences``.
        """
        if not isinstance(sequences, Sequences):
            raise DataError(
                f"sequences is {type(sequences).__name__}: expected chartae.data.Sequences"
            )
        self.check_batch("sequences", sequences.tensors)
        if sequences.x.device != self.device:
            raise DataError(
                f"sequences are on {sequences.x.device}: the model is on {self.device}; move one"
            )
        visits = max(visits, sequences.x.shape[1])
        size = self._block(num_samples * visits)
        used = sequences.tensors.keys() - ({"y"} if self.conditions is None else set())
        for start in range(0, len(sequences), size):
            rows = slice(start, start + size)
            yield rows, self.visits(**{name: sequences.tensors[name][rows] for name in used})

    def draw_latents(
        self, visits: Visits, num_draws: int, proposal: Proposal, how: How
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Draw latents of individuals, resampled by their weights if ``how`` says so.

        Returns:
            ``(num_draws, B, *latent)``; log p(visits | u), ``(num_draws, B)``; and the effective
            sample sizes ``(B,)`` of the weights, None without resampling.
        """
        latents, ratio = self.infer(visits, num_draws, proposal)
        fit = self._log_fits(latents, visits)
        if how != "resample":
            return latents, fit, None
        weights = finite_weights(fit + ratio)
        chosen = resampled(tempered(weights))
        index = chosen.reshape(*chosen.shape, *[1] * (latents.ndim - 2))
        latents = latents.gather(0, index.expand_as(latents))
        return latents, fit.gather(0, chosen), effective_samples(weights)

    @torch.no_grad()
    def _draws(
        self,
        sequences: Sequences,
        times: Tensor,
        how: How,
        num_draws: int,
        noise: bool | None,
        seed: int,
        *,
        proposal: Proposal | None = None,
        complete: bool = True,
    ) -> Draws:
        check_choice("how", how, get_args(How))
        check_integer("num_draws", num_draws, minimum=1)
        if proposal is None and how == "naive" and "visit" in self.proposals:
            proposal = "visit"
        proposal = self._proposal(proposal)
        times = times.to(self.device)
        count = times.shape[1]
        shape = (num_draws, len(times), count, *self.input_shape)
        values = torch.empty(shape, dtype=self.dtype, device=self.device)
        fits, sizes = [], []
        with seeded(resolve_seed(seed), "draws", device=self.device):
            for rows, visits in self._blocks(sequences, num_draws, count):
                latents, fit, size = self.draw_latents(visits, num_draws, proposal, how)
                self._fill(values[:, rows], latents, times[rows], visits.y, noise)
                fits.append(fit)
                sizes += [] if size is None else [size]
        known = data = None
        if complete:
            known = sequences.observed.reshape(*times.shape, *[1] * len(self.input_shape))
            known = known.expand(sequences.x.shape) if sequences.mask is None else sequences.mask
            data = sequences.x
        return Draws(
            values,
            times,
            torch.cat(fits, 1),
            how,
            sequences.form,
            torch.cat(sizes) if sizes else None,
            known,
            data,
        )

    def _fill(
        self, values: Tensor, latents: Tensor, times: Tensor, y: Extra, noise: bool | None
    ) -> None:
        """Write visits at ``times`` ``(B, K)`` of latents ``(S, B, *latent)`` into ``values``."""
        count = times.shape[1]
        owner = torch.arange(len(times), device=self.device).repeat_interleave(count)
        when, own = self.model_times(times).flatten(), None if y is None else y[owner]
        size = self._block(len(owner))
        for target, part in zip(values.split(size), latents.split(size), strict=True):
            z = self.path(part, owner, when, y)
            target.copy_(self._values(z, own, noise).unflatten(1, times.shape))

    def _values(self, z: Tensor, y: Extra, noise: bool | None) -> Tensor:
        """Return means of p(x|z), or draws, for latents ``(..., n, d)``."""
        output = self.decoder_output(z, y)
        if self.observation_model.samples_are_draws if noise is None else noise:
            return self.observation_model.draw(output)
        mean: Tensor = self.observation_model(output).mean
        return mean


def times_of(sequences: Sequences, times: ArrayLike | Tensor) -> Tensor:
    """Return times ``(N, K)`` of individuals, given for each or for all of them.

    Raises:
        DataError: for another shape, or numbers that are not finite.
    """
    when = as_tensor("times", times).double()
    if when.ndim not in (1, 2) or (when.ndim == 2 and len(when) != len(sequences)):
        raise DataError(
            f"times has shape {tuple(when.shape)}: expected (K,) or ({len(sequences)}, K)"
        )
    if not when.numel() or not bool(when.isfinite().all()):
        raise DataError("times is empty, or has NaN or infinite values: expected finite numbers")
    return when.expand(len(sequences), -1) if when.ndim == 1 else when


def _defaults(x: Tensor, times: Extra, observed: Extra) -> tuple[Tensor, Tensor]:
    """Return times and observed visits ``(B, T)``; by default 0, 1, ..., all observed."""
    if times is None:
        times = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
    if observed is None:
        observed = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    return times, observed
