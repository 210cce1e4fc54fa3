"""The contract of every model: an encoder, a decoder, a likelihood, and an objective."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypedDict

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import one_hot

from chartae.checks import (
    Count,
    check_finite,
    check_floating,
    check_integer,
    check_labels,
    check_mask,
    check_shape,
    check_weight,
)
from chartae.data.arrays import takes_arrays
from chartae.distributions import (
    Likelihood,
    Moments,
    Observation,
    make_likelihood,
)
from chartae.errors import ConfigurationError, DataError
from chartae.models.losses import Extra, Losses
from chartae.models.trainable import Batch, Trainable
from chartae.nn import NetworkSpec, build_decoder, build_encoder, output_features
from chartae.randomness import seeded

__all__ = ["Autoencoder", "LatentSpace", "Networks", "Shape"]

logger = logging.getLogger(__name__)

Shape = tuple[int, ...]
Conditions = int | tuple[int] | None
LatentSpace = Literal["euclidean", "sphere", "ball", "codes"]


class Networks(TypedDict, total=False):
    """The arguments that every model shares, and passes on to `Autoencoder`."""

    encoder: NetworkSpec
    decoder: NetworkSpec
    likelihood: str | Mapping[str, Any] | Likelihood
    conditions: Conditions


class Autoencoder(Trainable):
    """Base of all models: an encoder, a decoder, a likelihood, and an objective.

    A subclass defines `loss`, and the methods and modules that `loss` needs. The arguments of its
    constructor are its configuration (`Configured`).

    Public methods accept tensors or NumPy arrays. Given arrays, they return arrays of the same
    dtype, without gradients. Arrays of uint8 and bool are scaled to [0, 1].

    Args:
        input_shape: shape of one observation: ``(D,)``, ``(H, W)``, ``(C, H, W)`` or
            ``(C, D, H, W)``.
        latent_dim: size of the latent space.
        encoder: a preset's name (`chartae.nn.ENCODERS`), a mapping ``{"name": ..., **options}``, or
            any module from x to ``(batch, features)``; the model adds its own heads.
        decoder: the same choices, for a module from ``(batch, latent_dim)`` to the likelihood's
            parameters.
        likelihood: a name (`chartae.distributions.LIKELIHOODS`), a mapping, or an object.
        conditions: what x depends on besides the latent. A number K of classes: the conditions y
            are labels ``(batch,)`` of int64. ``(p,)``: y are vectors ``(batch, p)``. None: no
            conditions. Conditions are appended to the encoder's features and to the latent. The
            input of the decoder is then ``latent_dim`` + K or ``latent_dim`` + p wide.

    Raises:
        ConfigurationError: for an unknown name or a value out of range.
    """

    latent_space: ClassVar[LatentSpace] = "euclidean"
    """The kind of latents: vectors, points of the unit sphere or of a ball, or concatenated
    vectors of a codebook."""
    posterior_family: type[Distribution] | None = None
    """The class of q(z|x), which decides what samplers support; None without posteriors."""
    prior_family: type[Distribution] | None = None
    """The class of p(z|y), which decides what samplers support; None without a prior."""

    def __init__(
        self,
        input_shape: Shape,
        latent_dim: Count,
        *,
        encoder: NetworkSpec = "mlp",
        decoder: NetworkSpec = "mlp",
        likelihood: str | Mapping[str, Any] | Likelihood = "gaussian",
        conditions: Conditions = None,
    ) -> None:
        super().__init__()
        if not isinstance(input_shape, Sequence) or not input_shape:
            raise ConfigurationError(
                f"input_shape={input_shape!r}: expected a tuple of one dimension or more"
            )
        for size in input_shape:
            check_integer("input_shape", size, minimum=1)
        self.input_shape, self.latent_dim = tuple(input_shape), latent_dim
        self.conditions, self.condition_dim = _check_conditions_argument(conditions)
        self.encoder = build_encoder(encoder, self.input_shape)
        self.observation_model = make_likelihood(likelihood, self.input_shape)
        self.decoder = build_decoder(
            decoder, latent_dim + self.condition_dim, self.observation_model.output_shape
        )
        self.num_features = output_features(self.encoder, self.input_shape)
        self.conditioning = None
        if self.condition_dim:
            # Features and condition interact here. A linear head alone could only add them.
            self.conditioning = nn.Sequential(
                nn.Linear(self.num_features + self.condition_dim, self.num_features), nn.ReLU()
            )

    # --- the contract -------------------------------------------------------------------------

    def loss(
        self, x: Tensor, *, y: Extra = None, mask: Extra = None, weight: Extra = None
    ) -> Losses:
        """Return what training minimises on a batch: scalars, averaged over the batch.

        A subclass names in its signature those of ``y``, ``mask`` and ``weight`` that it uses.

        Args:
            x: ``(batch, *input_shape)``.
            y: conditions, for a model that has them.
            mask: boolean, as x, True where a feature is observed. Unobserved values of x have no
                influence, even if they are NaN.
            weight: how much each sample counts, ``(batch,)``, at least 0, with a mean of 1 over the
                training set; None counts all samples equally.
        """
        raise NotImplementedError

    def features(self, x: Tensor, y: Extra = None, mask: Extra = None) -> Tensor:
        """Return the features of x and its conditions, ``(batch, num_features)``."""
        features = self._output(self.encoder, self.network_input(x, mask))
        features = features.reshape(len(x), -1)
        if self.conditioning is not None:
            features = self.conditioning(torch.cat([features, self.condition(y)], -1))
        return features

    def filled(self, x: Tensor, mask: Extra = None) -> Tensor:
        """Return x with a neutral value where it was not observed, for samplers to `fit` on.

        Args:
            x: ``(batch, *input_shape)``.
            mask: boolean, as x, True where a feature is observed; None returns x unchanged.

        Raises:
            DataError: if x or the mask has another shape or dtype than the model.
        """
        if mask is None:
            return x
        self._check_tensor("x", x, ("batch", *self.input_shape))
        check_mask("mask", mask, x.shape)
        return self.observation_model.filled(x, mask)

    def network_input(self, x: Tensor, mask: Extra = None) -> Tensor:
        """Return the networks' input for x, on their scale.

        What was not observed has the neutral value of the likelihood: 0 on this scale, or equal
        probabilities of the categories of a variable.
        """
        observed = x if mask is None else self.observation_model.filled(x, mask)
        return self.observation_model.encoder_input(observed)

    def embed(self, x: Tensor, y: Extra = None, mask: Extra = None) -> Tensor:
        """Return the latent of each x; `encode` calls it after its checks."""
        raise NotImplementedError

    def condition(self, y: Tensor | None) -> Tensor:
        """Return the conditions as numbers, ``(batch, condition_dim)``: labels one-hot.

        Floats are returned unchanged, so shares of classes can be given instead of labels.

        Raises:
            DataError: if the conditions are missing.
        """
        if y is None:
            raise DataError(f"y is missing: this {type(self).__name__} has conditions")
        if y.is_floating_point() or not isinstance(self.conditions, int):
            return y
        return one_hot(y, self.conditions).to(self.dtype)

    @staticmethod
    def _output(network: nn.Module, inputs: Tensor) -> Tensor:
        try:
            output: Tensor = network(inputs)
        except ValueError as error:
            if len(inputs) != 1 or "more than 1 value per channel" not in str(error):
                raise
            raise DataError(
                "a batch of one observation: the batch normalisation of the networks expects at "
                "least 2 in training; call model.eval() first, or train with a batch_size that "
                "leaves no batch of one"
            ) from None
        return output

    def set_units(self, batches: Iterable[Batch]) -> None:
        """Compute the units of the likelihood from the training set, before the first step.

        Args:
            batches: the training set, in parts.

        Raises:
            DataError: if a deviation is too small for the dtype to hold its square.
        """
        if self.observation_model.has_units:
            moments = Moments.of((batch["x"], batch.get("mask")) for batch in batches)
            self.observation_model.set_units(moments)
            _name_constants(moments)

    # --- what users call ----------------------------------------------------------------------

    @takes_arrays("x", "y", "mask")
    def encode(
        self,
        x: Tensor,
        y: Extra = None,
        *,
        mask: Extra = None,
        batch_size: int | None = None,
    ) -> Tensor:
        """Return the embedding of x, without randomness: ``(batch, latent_dim)``.

        Args:
            x: ``(batch, *input_shape)``.
            y: their conditions, for a model that has them.
            mask: boolean, as x, True where a feature is observed; x is 0 or any other finite value
                elsewhere.
            batch_size: largest number of samples encoded at once; None encodes all at once.

        Raises:
            DataError: if x has another shape or dtype than the model, or is not finite; if the
                conditions are missing, not expected by the model, or of another kind.
        """
        self.check_call("x", x, y, mask)
        return _in_pieces(self.embed, batch_size, x, y, mask)

    @takes_arrays("z", "y")
    def decode(self, z: Tensor, y: Extra = None, *, batch_size: int | None = None) -> Tensor:
        """Return the likelihood's mean, in the range of the data: ``(batch, *input_shape)``.

        Args:
            z: ``(batch, latent_dim)``.
            y: their conditions, for a model that has them.
            batch_size: largest number of latents decoded at once; None decodes all at once.

        Raises:
            DataError: if z has another shape or dtype than the model, is not finite, or is not a
                point of the model's latent space; if the conditions do not fit the model.
        """
        self.check_call("z", z, y)
        return _in_pieces(lambda z, y: self.likelihood(z, y).mean, batch_size, z, y)

    @takes_arrays("z", "y")
    @torch.no_grad()
    def draw(
        self, z: Tensor, y: Extra = None, *, seed: int, batch_size: int | None = None
    ) -> Tensor:
        """Return a draw from p(x|z, y) for each latent, ``(batch, *input_shape)``.

        Args:
            z: ``(batch, latent_dim)``.
            y: their conditions, for a model that has them.
            seed: the same seed gives the same draws on one kind of device.
            batch_size: largest number of latents decoded at once; it does not change the result.

        Raises:
            DataError: as `decode`.
        """
        self.check_call("z", z, y)
        output = _in_pieces(self.decoder_output, batch_size, z, y)
        with seeded(seed, "observations", device=output.device):
            return self.observation_model.draw(output)

    @takes_arrays("x", "y", "mask", restores="x")
    def reconstruct(self, x: Tensor, y: Extra = None, *, mask: Extra = None) -> Tensor:
        """Return the decoded embedding of x, ``(batch, *input_shape)``, also where x is unobserved.

        An array of uint8 or bool gives an array of the same dtype. Args and errors as in `encode`.
        """
        return self.decode(self.encode(x, y, mask=mask), y)

    def likelihood(self, z: Tensor, y: Extra = None) -> Observation:
        """Return p(x|z, y) for z ``(..., batch, latent_dim)``; its ``log_prob`` takes a mask."""
        observation: Observation = self.observation_model(self.decoder_output(z, y))
        return observation

    def decoder_output(self, z: Tensor, y: Extra = None) -> Tensor:
        """Return the likelihood's parameters for z ``(..., batch, latent_dim)``."""
        inputs = z
        if self.condition_dim:
            condition = self.condition(y).expand(*z.shape[:-1], -1)
            inputs = torch.cat([z, condition], -1)
        output = self._output(self.decoder, inputs.reshape(-1, inputs.shape[-1]))
        return output.reshape(*z.shape[:-1], *self.observation_model.output_shape)

    def __getattr__(self, name: str) -> Tensor | nn.Module:
        if name == "metric":
            raise AttributeError(
                f"this {type(self).__name__} has no metric of its own, unlike an RHVAE: "
                "chartae.geometry.PosteriorMetric.from_model(model, x) makes a metric from "
                "Gaussian posteriors, PullbackMetric(decoder) from a decoder"
            )
        return super().__getattr__(name)

    # --- data and configuration ---------------------------------------------------------------

    def check_data(self, name: str, x: Tensor) -> None:
        """Raise `DataError` unless x has the model's shape and dtype, in the likelihood's range."""
        self._check_tensor(name, x, ("batch", *self.input_shape))
        if len(x) == 0:
            raise DataError(f"{name} is empty: expected at least one observation")
        self.observation_model.check_data(name, x.detach())

    def check_latents(self, name: str, z: Tensor) -> None:
        """Raise `DataError` unless z is ``(batch, latent_dim)``, of the model's dtype, finite."""
        self._check_tensor(name, z, ("batch", self.latent_dim))
        check_finite(name, z)

    def check_conditions(self, name: str, y: Tensor | None, count: int) -> None:
        """Raise `DataError` unless y is ``count`` conditions that fit the model, or None."""
        if self.conditions is None or y is None:
            if (y is None) != (self.conditions is None):
                wanted = "has none" if self.conditions is None else f"has {self.conditions}"
                given = f"{name} is missing" if y is None else f"{name} is given"
                raise DataError(f"{given}: this {type(self).__name__} {wanted} (conditions)")
        elif isinstance(self.conditions, int):
            if isinstance(y, Tensor) and y.shape == (count, self.conditions):
                raise DataError(
                    f"{name} has shape {tuple(y.shape)}: expected labels, ({count},); of one-hot "
                    f"rows take {name}.argmax(1)"
                )
            check_labels(name, y, count, self.conditions)
        else:
            self._check_tensor(name, y, (count, *self.conditions))
            check_finite(name, y)

    def check_call(
        self, name: Literal["x", "z"], value: Tensor, y: Extra = None, mask: Extra = None
    ) -> None:
        """Raise `DataError` unless data or latents, their conditions and their mask fit the model.

        They must be on the model's device, too, which the checks of each alone do not require.
        """
        for what, given in ((name, value), ("y", y), ("mask", mask)):
            _check_dense(what, given)
            if isinstance(given, Tensor) and given.device != self.device:
                raise DataError(
                    f"{what} is on {given.device}: the model is on {self.device}; move one of them"
                )
        if mask is not None and isinstance(value, Tensor):
            check_mask("mask", mask, value.shape)
            self._check_tensor(name, value, ("batch", *self.input_shape))
            value = self.observation_model.filled(value, mask)
        check = self.check_data if name == "x" else self.check_latents
        check(name, value)
        self.check_conditions("y", y, len(value))

    def _check_tensor(self, name: str, value: Tensor, shape: Sequence[int | str]) -> None:
        if not isinstance(value, Tensor):
            raise DataError(
                f"{name} is {type(value).__name__}: expected a torch.Tensor or a NumPy array"
            )
        _check_dense(name, value)
        check_floating(name, value)
        check_shape(name, value, shape)
        if value.dtype != self.dtype:
            raise DataError(
                f"{name} has dtype {value.dtype}: the model has {self.dtype}; convert one of them"
            )

    def batch_names(self) -> dict[str, bool]:
        """Return the names of the tensors that `loss` uses, and whether each is required.

        A model without conditions uses labels only if its `loss` requires them.
        """
        names = super().batch_names()
        if "y" in names and self.conditions is None and not names["y"]:
            del names["y"]
        return names

    def largest_input(self, batch: Batch) -> float:
        return float(self.network_input(batch["x"], batch.get("mask")).abs().max())

    def check_batch(self, name: str, batch: Batch) -> None:
        x, mask, weight = batch["x"], batch.get("mask"), batch.get("weight")
        if mask is not None and isinstance(x, Tensor):
            check_mask(f"mask of {name}", mask, x.shape)
            self._check_tensor(name, x, ("batch", *self.input_shape))
            x = self.observation_model.filled(x, mask)
        self.check_data(name, x)
        if self.conditions is not None:
            self.check_conditions(f"y of {name}", batch.get("y"), len(x))
        if weight is not None:
            check_weight(f"weight of {name}", weight, len(x))


def _name_constants(moments: Moments) -> None:
    constant = moments.low >= moments.high
    if bool(constant.all()):
        logger.warning("the training set is constant: there is nothing to learn from it")
    elif constant.dim() == 1 and bool(constant.any()):
        places = ", ".join(map(str, constant.nonzero()[:, 0].tolist()))
        logger.info("constant in the training set: feature(s) %s", places)


def _check_dense(name: str, value: object) -> None:
    if isinstance(value, Tensor) and value.layout is not torch.strided:
        raise DataError(f"{name} is a sparse tensor: expected a dense one, {name}.to_dense()")


def _check_conditions_argument(conditions: Conditions) -> tuple[Conditions, int]:
    """Return the normalised argument, and how many numbers a condition has."""
    if conditions is None:
        return None, 0
    if isinstance(conditions, (tuple, list)) and len(conditions) == 1:
        check_integer("conditions", conditions[0], minimum=1)
        return (conditions[0],), conditions[0]
    if isinstance(conditions, (tuple, list)):
        raise ConfigurationError(
            f"conditions={conditions!r}: expected a number of classes, (p,) for vectors, or None"
        )
    check_integer("conditions", conditions, minimum=1)
    return conditions, conditions


def _in_pieces(
    function: Callable[..., Tensor], batch_size: int | None, *inputs: Tensor | None
) -> Tensor:
    """Return the results of a function of tensors, computed in pieces along the first dimension."""
    if batch_size is None:
        return function(*inputs)
    check_integer("batch_size", batch_size, minimum=1)
    (first, *_) = (given for given in inputs if given is not None)
    starts = range(0, len(first), int(batch_size)) if len(first) else range(1)
    rows = [slice(start, start + int(batch_size)) for start in starts]
    return torch.cat(
        [function(*(None if v is None else v[piece] for v in inputs)) for piece in rows]
    )
