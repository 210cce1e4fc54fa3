"""What the equations of all models are made of: densities, written out, and a case to compare.

Networks are the model's own: encoder, decoder, heads, discriminators, flows. Everything else is
written here from its formula. Noise is drawn from torch's global generator, in the order in which
the model draws it, so that one seed gives both sides the same noise.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.functional import jacobian
from torch.nn.functional import one_hot, softplus

from chartae.models import Autoencoder

BATCH, FEATURES = 5, 6
NETWORK = {"name": "mlp", "hidden": [7]}
KL_WEIGHT = 0.7
"""Of every model that has one, as in the middle of a warm-up; written w."""

Extra = Tensor | None
Values = dict[str, Tensor]
Equation = Callable[..., tuple[Values, Values]]
"""From ``(model, x, y, mask)`` to the objectives and to the terms that training reports."""


@dataclass(frozen=True)
class Case:
    """A model with options away from their defaults, its equation, and a batch of its data.

    Attributes:
        model: the class.
        equation: its objectives and terms.
        options: arguments of the model, beside its networks.
        groups: the beginnings of the names of the parameters that an objective trains.
        rest: the objective that trains all others.
        masked: whether a mask of observed features goes with the batch.
        input_shape: shape of one observation.
        latent_dim: size of a latent.
        prepare: called with the model before either side is evaluated.
    """

    model: type[Autoencoder]
    equation: Equation
    options: Mapping[str, Any] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rest: str = "model"
    masked: bool = False
    input_shape: tuple[int, ...] = (FEATURES,)
    latent_dim: int = 3
    prepare: Callable[[Any], None] = lambda model: None

    def build(self) -> Autoencoder:
        """Return the model in float64, with units, weights and a KL weight that are not trivial."""
        torch.manual_seed(0)
        networks = {"encoder": NETWORK, "decoder": NETWORK, **self.options}
        model = self.model(self.input_shape, self.latent_dim, **networks).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
            if model.observation_model.has_units:
                for buffer, low, high in zip(units(model), (0.2, 0.5), (0.6, 1.5), strict=True):
                    buffer.copy_(torch.linspace(low, high, buffer.numel()).view_as(buffer))
        if hasattr(model, "kl_weight"):
            model.kl_weight = KL_WEIGHT
        self.prepare(model)
        return model

    def batch(self, model: Autoencoder) -> tuple[Tensor, Extra, Extra]:
        """Return x, its conditions and its mask; unobserved features of x hold the centre."""
        generator = torch.Generator().manual_seed(2)
        x = torch.rand(BATCH, *self.input_shape, generator=generator, dtype=torch.float64)
        y = mask = None
        if isinstance(model.conditions, int):
            y = torch.arange(BATCH) % model.conditions
        elif model.conditions:
            y = torch.randn(BATCH, *model.conditions, generator=generator, dtype=torch.float64)
        if self.masked:
            mask = torch.rand(x.shape, generator=generator) < 0.6
            x = torch.where(mask, x, units(model)[0])
        return x, y, mask

    def parameters(self, model: Autoencoder) -> dict[str, dict[str, Tensor]]:
        """Return the parameters that each objective trains, by the names of both."""
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        found = {
            group: {name: p for name, p in named.items() if name.startswith(beginnings)}
            for group, beginnings in self.groups.items()
        }
        taken = {name for members in found.values() for name in members}
        return {self.rest: {n: p for n, p in named.items() if n not in taken}, **found}


# --- networks and their units ---------------------------------------------------------------------


def units(model: Any) -> tuple[Tensor, Tensor]:
    """Return the centre and the spread of the data, 0 and 1 where the likelihood has none."""
    likelihood = model.observation_model
    if likelihood.has_units:
        return likelihood.center, likelihood.spread
    return torch.zeros(()).double(), torch.ones(()).double()


def numbers(model: Any, y: Tensor) -> Tensor:
    """Return conditions as vectors: labels one-hot."""
    return one_hot(y, model.conditions).double() if isinstance(model.conditions, int) else y


def scaled(model: Any, x: Tensor) -> Tensor:
    """Return x in the units in which networks see it."""
    center, spread = units(model)
    return (x - center) / spread


def encoded(model: Any, x: Tensor, y: Extra = None) -> Tensor:
    """Return the encoder's features, joined by the conditions where there are any."""
    features = model.encoder(scaled(model, x)).flatten(1)
    if y is None:
        return features
    return model.conditioning(torch.cat([features, numbers(model, y)], 1))


def decoder_output(model: Any, z: Tensor, y: Extra = None) -> Tensor:
    """Return the decoder's output for latents ``(..., batch, d)``."""
    if y is not None:
        z = torch.cat([z, numbers(model, y).expand(*z.shape[:-1], -1)], -1)
    return model.decoder(z.flatten(0, -2)).unflatten(0, z.shape[:-1])


def decoded(model: Any, z: Tensor, y: Extra = None) -> Tensor:
    """Return the mean of a Gaussian likelihood, in the units of the data."""
    center, spread = units(model)
    return center + spread * decoder_output(model, z, y)


# --- densities ------------------------------------------------------------------------------------


def log_likelihood(model: Any, x: Tensor, z: Tensor, y: Extra = None, mask: Extra = None) -> Tensor:
    """Return log p(x|z) of the observed features, ``(..., batch)``: Gaussian or Bernoulli."""
    likelihood = model.observation_model
    if likelihood.has_units:
        scale = (softplus(likelihood.raw_scale) + 1e-3) * likelihood.spread
        error = (x - decoded(model, z, y)) / scale
        terms = -0.5 * error**2 - torch.log(scale) - 0.5 * math.log(2 * math.pi)
    else:
        p = torch.sigmoid(decoder_output(model, z, y))
        terms = x * p.log() + (1 - x) * (1 - p).log()
    if mask is not None:
        terms = terms * mask
    return terms.flatten(-len(model.input_shape)).sum(-1)


def log_normal(z: Tensor, mean: Any = 0.0, deviation: Any = 1.0) -> Tensor:
    """Return log N(z; mean, deviation^2), summed over the last dimension."""
    deviation = torch.as_tensor(deviation, dtype=torch.float64)
    terms = -0.5 * ((z - mean) / deviation) ** 2 - deviation.log() - 0.5 * math.log(2 * math.pi)
    return terms.sum(-1)


def kl_to_standard(mean: Tensor, deviation: Tensor) -> Tensor:
    """Return KL(N(mean, deviation^2) || N(0, I)), ``(batch,)``."""
    return 0.5 * (mean**2 + deviation**2 - 1 - 2 * deviation.log()).sum(-1)


def gaussian_posterior(model: Any, x: Tensor, y: Extra = None) -> tuple[Tensor, Tensor]:
    """Return means and standard deviations of q(z|x, y)."""
    head = model.posterior_head(encoded(model, x, y))
    return head.mean, head.stddev


def drawn(mean: Tensor, deviation: Tensor, *samples: int) -> Tensor:
    """Return mean + deviation * noise, with the noise that the model draws next."""
    return mean + deviation * noise(*samples, *mean.shape)


def noise(*shape: int) -> Tensor:
    """Return draws of N(0, 1)."""
    return torch.randn(*shape, dtype=torch.float64)


# --- derivatives ----------------------------------------------------------------------------------


def jacobians(function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    """Return the Jacobian in its first argument of a function of rows, ``(batch, out, d)``."""

    def of_row(z: Tensor, *others: Tensor) -> Tensor:
        return function(z[None], *(other[None] for other in others))[0]

    found = [
        jacobian(lambda z, others=others: of_row(z, *others), z, create_graph=True)
        for z, *others in zip(*rows, strict=True)
    ]
    return torch.stack(found)
