"""The contracts of every model: `Autoencoder`, and `VariationalAutoencoder` above it."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypedDict, Unpack

import torch
from torch import Tensor, nn

from chartae.checks import check_finite, check_floating, check_integer, check_shape
from chartae.distributions import (
    DiagonalNormal,
    DiagonalNormalHead,
    Likelihood,
    Observation,
    StandardNormal,
    make_likelihood,
)
from chartae.errors import ConfigurationError, DataError
from chartae.nn import NetworkSpec, build_decoder, build_encoder, output_features
from chartae.persistence import register, save

__all__ = ["Autoencoder", "Losses", "Networks", "VariationalAutoencoder"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Losses:
    """What training minimises.

    Attributes:
        objectives: one scalar for each optimisation group of the model, by the group's name.
        terms: scalars worth following, by name; they are parts of the objectives.
    """

    objectives: Mapping[str, Tensor]
    terms: Mapping[str, Tensor]

    @classmethod
    def of(cls, loss: Tensor, **terms: Tensor) -> "Losses":
        """Return the losses of a model with the single optimisation group ``"model"``."""
        return cls({"model": loss}, terms)


class Networks(TypedDict, total=False):
    """The arguments that every model shares, and passes on to `Autoencoder`."""

    encoder: NetworkSpec
    decoder: NetworkSpec
    likelihood: str | Mapping[str, Any] | Likelihood


class Autoencoder(nn.Module):
    """Base of all models: an encoder, a decoder, a likelihood, and an objective.

    A subclass says what is new in it: `loss`, and what it needs for it. Its constructor's
    arguments are its configuration: each is kept as an attribute of the same name.

    Args:
        input_shape: shape of one observation: ``(D,)``, ``(H, W)`` or ``(C, H, W)``.
        latent_dim: size of the latent space.
        encoder: a preset's name (`chartae.nn.ENCODERS`), a mapping ``{"name": ..., **options}``,
            or any module from x to ``(batch, features)``; the model adds its own heads.
        decoder: likewise, from ``(batch, latent_dim)`` to the likelihood's parameters.
        likelihood: a name (`chartae.distributions.LIKELIHOODS`), a mapping, or an object.

    Raises:
        ConfigurationError: for an unknown name or a value out of range.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        register(cls)

    fitted_buffers: ClassVar[tuple[str, ...]] = ()
    """Names of the buffers whose shape is known only after training."""

    def __init__(
        self,
        input_shape: Shape,
        latent_dim: int,
        *,
        encoder: NetworkSpec = "mlp",
        decoder: NetworkSpec = "mlp",
        likelihood: str | Mapping[str, Any] | Likelihood = "gaussian",
    ) -> None:
        super().__init__()
        if not isinstance(input_shape, Iterable) or not input_shape:
            raise ConfigurationError(
                f"input_shape={input_shape!r}: expected a tuple of one dimension or more"
            )
        for size in input_shape:
            check_integer("input_shape", size, minimum=1)
        check_integer("latent_dim", latent_dim, minimum=1)
        self.input_shape, self.latent_dim = tuple(input_shape), latent_dim
        self.specifications = {"encoder": encoder, "decoder": decoder, "likelihood": likelihood}
        self.encoder = build_encoder(encoder, self.input_shape)
        self.observation_model = make_likelihood(likelihood, self.input_shape)
        self.decoder = build_decoder(decoder, latent_dim, self.observation_model.output_shape)
        self.num_features = output_features(self.encoder, self.input_shape)

    # --- the contract -------------------------------------------------------------------------

    def loss(self, x: Tensor) -> Losses:
        """Return what training minimises on a batch: scalars, averaged over the batch.

        Args:
            x: ``(batch, *input_shape)``. A model that uses labels or a mask of observed features
                names them ``y`` and ``mask`` in its signature, and gets them. A mask is for the
                likelihood: the encoder sees x as it is, so unobserved features need a neutral
                value.
        """
        raise NotImplementedError

    def features(self, x: Tensor) -> Tensor:
        """Return what the encoder makes of x, ``(batch, num_features)``."""
        features: Tensor = self.encoder(x)
        return features.reshape(len(x), -1)

    def embed(self, x: Tensor) -> Tensor:
        """Return the latent of each x, without checks: what `encode` is made of."""
        raise NotImplementedError

    def optimization_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters that each objective of `loss` trains, by the objective's name."""
        return {"model": list(self.parameters())}

    def on_fit_start(self) -> None:
        """Forget what `on_fit_end` fixed; called before the first epoch."""

    def on_fit_end(self, batches: Iterable[Tensor]) -> None:
        """Fix what depends on the whole training set; called with the final weights.

        Args:
            batches: the training set in its own order, in pieces ``(batch, *input_shape)``.
        """

    # --- what users call ----------------------------------------------------------------------

    def encode(self, x: Tensor, *, batch_size: int | None = None) -> Tensor:
        """Return the embedding of x, without randomness: ``(batch, latent_dim)``.

        Args:
            x: ``(batch, *input_shape)``.
            batch_size: work in pieces of this size; None takes all at once.

        Raises:
            DataError: if x has another shape or dtype than the model, or is not finite.
        """
        self.check_data("x", x)
        return _in_pieces(self.embed, x, batch_size)

    def decode(self, z: Tensor, *, batch_size: int | None = None) -> Tensor:
        """Return the likelihood's mean, in the range of the data: ``(batch, *input_shape)``.

        Args:
            z: ``(batch, latent_dim)``.
            batch_size: work in pieces of this size; None takes all at once.

        Raises:
            DataError: if z has another shape or dtype than the model, or is not finite.
        """
        check_floating("z", z)
        check_shape("z", z, ("batch", self.latent_dim))
        if z.dtype != self.dtype:
            raise DataError(f"z has dtype {z.dtype}: the model has {self.dtype}")
        check_finite("z", z)
        return _in_pieces(lambda piece: self.likelihood(piece).mean, z, batch_size)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return the decoded embedding of x, ``(batch, *input_shape)``."""
        return self.decode(self.encode(x))

    def likelihood(self, z: Tensor) -> Observation:
        """Return p(x|z) for z ``(..., latent_dim)``; its ``log_prob`` takes a mask."""
        output = self.decoder(z.reshape(-1, self.latent_dim))
        shape = (*z.shape[:-1], *self.observation_model.output_shape)
        observation: Observation = self.observation_model(output.reshape(shape))
        return observation

    # --- data and configuration ---------------------------------------------------------------

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters, float32 or float64."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    def check_data(self, name: str, x: Tensor) -> None:
        """Raise `DataError` unless x has the model's shape and dtype, in the likelihood's range."""
        check_floating(name, x)
        check_shape(name, x, ("batch", *self.input_shape))
        if len(x) == 0:
            raise DataError(f"{name} is empty: expected at least one observation")
        if x.dtype != self.dtype:
            raise DataError(
                f"{name} has dtype {x.dtype}: the model has {self.dtype}; convert one of them"
            )
        self.observation_model.check_data(name, x)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, from which the model can be built again."""
        names: dict[str, None] = {}
        for cls in type(self).__mro__:
            parameters = inspect.signature(cls).parameters
            others = [p for p in parameters.values() if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
            names |= {n: None for n, p in parameters.items() if p not in others}
            if others and others[-1].annotation == Unpack[Networks]:
                names |= dict.fromkeys(Networks.__annotations__)
            elif others:
                continue  # they are those of the class above
            break
        return {name: self.specifications.get(name, getattr(self, name)) for name in names}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors``; `chartae.load` reads them back."""
        save(self, folder)


class VariationalAutoencoder(Autoencoder):
    """Base of the models with a posterior q(z|x), a prior p(z) and a likelihood p(x|z).

    Everything derives from one primitive, `log_weights` (MATH.md section 1), in two parts:
    `log_weight_terms`. A model with another posterior or prior overrides `posterior` or `prior`;
    one with another objective overrides `loss`.

    Attributes:
        kl_weight: weight of the prior and posterior against the reconstruction in `loss`; `fit`
            raises it from 0 to 1 during a KL warm-up. It never enters a likelihood.
    """

    def __init__(self, input_shape: Shape, latent_dim: int, **networks: Unpack[Networks]) -> None:
        super().__init__(input_shape, latent_dim, **networks)
        self.register_buffer("origin", torch.zeros(latent_dim), persistent=False)
        self.posterior_head = DiagonalNormalHead(self.num_features, latent_dim)
        self.kl_weight = 1.0

    def posterior(self, x: Tensor) -> DiagonalNormal:
        """Return q(z|x) for x ``(batch, *input_shape)``."""
        posterior: DiagonalNormal = self.posterior_head(self.features(x))
        return posterior

    def prior(self) -> DiagonalNormal:
        """Return p(z), a standard normal over ``(latent_dim,)``."""
        return StandardNormal(self.get_buffer("origin"))

    def embed(self, x: Tensor) -> Tensor:
        """Return the posterior mean of each x, without checks."""
        return self.posterior(x).mean

    def log_weight_terms(
        self, x: Tensor, num_samples: int = 1, *, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the two parts of `log_weights`: log p(x|z), and log p(z) - log q(z|x)."""
        z, log_q = self.posterior(x).rsample_and_log_prob((num_samples,))
        return self.likelihood(z).log_prob(x, mask), self.prior().log_prob(z) - log_q

    def log_weights(self, x: Tensor, num_samples: int = 1, *, mask: Tensor | None = None) -> Tensor:
        """Return logs of unbiased estimates of p(x), one for each sample: ``(num_samples, batch)``.

        Args:
            x: ``(batch, *input_shape)``.
            num_samples: number of latents drawn for each x.
            mask: boolean, as x, True where a feature is observed.
        """
        fit, divergence = self.log_weight_terms(x, num_samples, mask=mask)
        return fit + divergence

    def loss(self, x: Tensor, mask: Tensor | None = None) -> Losses:
        """Return minus the ELBO, from one latent for each x."""
        fit, divergence = self.log_weight_terms(x, mask=mask)
        reconstruction, kl = -fit.mean(), -divergence.mean()
        return Losses.of(reconstruction + self.kl_weight * kl, reconstruction=reconstruction, kl=kl)

    def elbo(self, x: Tensor, num_samples: int = 1, *, mask: Tensor | None = None) -> Tensor:
        """Return the evidence lower bound of each x, averaged over samples: ``(batch,)``.

        Args and errors as in `log_likelihood`.
        """
        self.check_data("x", x)
        _check_mask(mask, x)
        check_integer("num_samples", num_samples, minimum=1)
        return self.log_weights(x, num_samples, mask=mask).mean(0)

    @torch.no_grad()
    def log_likelihood(
        self,
        x: Tensor,
        num_samples: int = 100,
        *,
        mask: Tensor | None = None,
        max_batch: int | None = None,
    ) -> Tensor:
        """Return log p(x) by importance sampling, in nats: ``(batch,)``.

        The work is split over points and samples, so that memory depends on neither.

        Args:
            x: ``(batch, *input_shape)``.
            num_samples: importance samples for each x; the estimate is a lower bound in
                expectation that tightens with more (Burda et al., 2016).
            mask: boolean, as x, True where a feature is observed.
            max_batch: largest number of (sample, point) pairs at once; None takes what keeps the
                decoded data near 8 MiB in float32.

        Raises:
            DataError: if x or the mask has another shape or dtype than the model, or x is not
                finite or out of the likelihood's range.
        """
        self.check_data("x", x)
        _check_mask(mask, x)
        check_integer("num_samples", num_samples, minimum=1)
        if max_batch is None:
            max_batch = max(1, 2**21 // max(1024, math.prod(self.input_shape)))
        check_integer("max_batch", max_batch, minimum=1)
        samples = min(num_samples, max_batch)
        points = max_batch // samples
        total = x.new_full((len(x),), -math.inf)
        for start in range(0, len(x), points):
            rows = slice(start, start + points)
            observed = None if mask is None else mask[rows]
            for done in range(0, num_samples, samples):
                count = min(samples, num_samples - done)
                log_weights = self.log_weights(x[rows], count, mask=observed)
                total[rows] = torch.logaddexp(total[rows], log_weights.logsumexp(0))
        return total - math.log(num_samples)


def _check_mask(mask: Tensor | None, x: Tensor) -> None:
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        given = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise DataError(f"mask is {given}: expected a tensor of torch.bool")
    check_shape("mask", mask, x.shape)


def _in_pieces(
    function: Callable[[Tensor], Tensor], inputs: Tensor, batch_size: int | None
) -> Tensor:
    if batch_size is None:
        return function(inputs)
    check_integer("batch_size", batch_size, minimum=1)
    return torch.cat([function(piece) for piece in inputs.split(batch_size)])
