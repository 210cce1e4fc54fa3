"""The base class of samplers, which draw latents and decode them."""

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from chartae.checks import check_boolean, check_integer
from chartae.data.arrays import takes_arrays
from chartae.errors import ConfigurationError, DataError
from chartae.models import Autoencoder
from chartae.models.base import LatentSpace
from chartae.models.configured import Configured
from chartae.randomness import make_generator, resolve_seed, seeded

__all__ = ["SAMPLERS", "Sampler", "compatible_samplers", "natural_sampler"]

SPACES = {
    "sphere": "points of a sphere",
    "ball": "points of a hyperbolic ball",
    "codes": "codes of a codebook",
}


class Sampler(Configured, ABC):
    """Base of all samplers: a trained model, and a way to draw latents for its decoder.

    A subclass defines `draw_latents`, and `fit` if it learns from data. It keeps what it learns in
    buffers named in ``fitted_buffers``, or in modules. `unsupported_reason` gives the models that
    it does not support. The arguments of its constructor are its configuration (`Configured`).

    For a model with conditions, `fit`, `sample_latents` and `sample` take them as ``y``: labels
    ``(n,)`` of int64 or vectors ``(n, p)``. One label, or one vector ``(p,)``, is used for all n.
    Data and conditions may be NumPy arrays; if the conditions are an array, so is the result.

    Args:
        model: a trained model.

    Raises:
        ConfigurationError: if the sampler does not support the model; the message names those that
            do.
    """

    latent_space: ClassVar[LatentSpace] = "euclidean"
    """The kind of latents that the sampler draws, as in `Autoencoder.latent_space`."""
    model: Autoencoder

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        if not isinstance(model, Autoencoder):
            given = (
                f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
            )
            raise ConfigurationError(f"model is {given}: expected a trained model of chartae")
        if reason := self.unsupported_reason(model):
            names = ", ".join(sampler.__name__ for sampler in compatible_samplers(model)) or "none"
            raise ConfigurationError(
                f"{type(self).__name__} does not support this {type(model).__name__}: {reason}; "
                f"samplers that do: {names}"
            )
        self.model = model
        for name in self.fitted_buffers:
            self.register_buffer(name, torch.zeros(0, dtype=model.dtype, device=model.device))

    @classmethod
    def unsupported_reason(cls, model: Autoencoder) -> str | None:
        """Return the reason this sampler does not support the model, or None.

        By default, a model with another latent space is not supported. The reason is a clause.
        """
        if model.latent_space == cls.latent_space:
            return None
        if cls.latent_space == "euclidean":
            return f"its latents are {SPACES[model.latent_space]}"
        return f"its latents are not {SPACES[cls.latent_space]}"

    @takes_arrays("x", "y", "mask")
    def fit(
        self, x: Tensor | None = None, y: Tensor | None = None, mask: Tensor | None = None
    ) -> Self:
        """Learn from the training set ``x``, ``(N, *input_shape)``; return the sampler.

        A sampler with nothing to learn accepts None.

        Args:
            x: the training set.
            y: its conditions, for a model that has them.
            mask: boolean, as x, True where a feature is observed. Values elsewhere have no effect.
        """
        return self

    @property
    def needs_data(self) -> bool:
        """Whether `fit` learns from a training set."""
        return bool(self.fitted_buffers)

    def check_fitted(self) -> None:
        """Raise `ConfigurationError` if the sampler needs `fit` first."""
        for name in self.fitted_buffers:
            if not self.get_buffer(name).numel():
                raise ConfigurationError(
                    f"this {type(self).__name__} has not been fitted: call fit(x_train) first"
                )

    @abstractmethod
    def draw_latents(self, n: int, seed: int, y: Tensor | None = None) -> Tensor:
        """Return n latents; all random numbers follow from ``seed``.

        ``y`` has the condition of each latent, already checked; None for a model without
        conditions.
        """

    @takes_arrays("y")
    def sample_latents(
        self, n: int, seed: int | None = None, y: Tensor | int | None = None
    ) -> Tensor:
        """Draw ``n`` latents: ``(n, latent_dim)``.

        Args:
            n: number of latents, at least 1.
            seed: the same seed gives the same latents; None draws one.
            y: conditions, for a model that has them: one for each latent, or one for all.

        Raises:
            ConfigurationError: if n is less than 1, or the sampler needs `fit` first.
            DataError: if the conditions are missing, not expected by the model, or of another kind.
        """
        check_integer("n", n, minimum=1)
        n = int(n)
        conditions = self._conditions(y, n)
        self.check_fitted()
        with torch.no_grad():
            return self.draw_latents(n, resolve_seed(seed), conditions)

    @takes_arrays("y")
    def sample(
        self,
        n: int,
        seed: int | None = None,
        y: Tensor | int | None = None,
        batch_size: int = 512,
        *,
        draw: bool = False,
    ) -> Tensor:
        """Draw ``n`` observations, the decoded means of `sample_latents`: ``(n, *input_shape)``.

        A mean is not always valid data: the mean of counts need not be an integer, and the mean of
        categories is not a category. With ``draw`` each observation is drawn from the likelihood
        p(x|z) of its latent instead.

        Args:
            n: number of observations, at least 1.
            seed: as for `sample_latents`.
            y: as for `sample_latents`.
            batch_size: largest number of latents decoded at once; it does not change the result.
            draw: True to draw from p(x|z), with noise that follows from the seed, too; False to
                take its mean.

        Raises:
            ConfigurationError: for a count out of range, or if the sampler needs `fit` first.
            DataError: if the conditions are missing, not expected by the model, or of another kind.

        >>> import chartae
        >>> model = chartae.VAE((8, 8), latent_dim=2, conditions=10)
        >>> chartae.NormalSampler(model).sample(3, seed=0, y=7).shape
        torch.Size([3, 8, 8])
        """
        check_integer("n", n, minimum=1)
        check_boolean("draw", draw)
        n, seed = int(n), resolve_seed(seed)
        z, conditions = self.sample_latents(n, seed, y), self._conditions(y, n)
        if draw:
            return self.model.draw(z, conditions, seed=seed, batch_size=batch_size)
        with torch.no_grad():
            return self.model.decode(z, conditions, batch_size=batch_size)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the model, float32 or float64."""
        return self.model.dtype

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.model.device

    def noise(self, shape: tuple[int, ...], seed: int) -> Tensor:
        """Return standard normal noise of the model's dtype, on its device."""
        generator = make_generator(seed, type(self).__name__)
        return torch.randn(shape, generator=generator, dtype=self.dtype).to(self.device)

    def _conditions(self, y: Tensor | int | None, n: int) -> Tensor | None:
        """Return the conditions of n latents, on the model's device."""
        conditions = torch.tensor(int(y)) if isinstance(y, (int, np.integer)) else y
        if isinstance(conditions, Tensor):
            conditions = conditions.to(self.device)
            single = len(self.model.conditions) if isinstance(self.model.conditions, tuple) else 0
            if conditions.dim() == single and self.model.conditions is not None:
                conditions = conditions.expand(n, *conditions.shape)
        self.model.check_conditions("y", conditions, n)
        return conditions


SAMPLERS: dict[str, type[Sampler]] = {}
"""The samplers of chartae by name; filled by `chartae.samplers`."""


def compatible_samplers(model: Autoencoder) -> list[type[Sampler]]:
    """Return the samplers of chartae that support a model.

    >>> import chartae
    >>> [sampler.__name__ for sampler in compatible_samplers(chartae.AE((8, 8), latent_dim=2))]
    ['FlowSampler', 'MixtureSampler', 'NormalSampler', 'TwoStageSampler']
    """
    return [cls for cls in SAMPLERS.values() if cls.unsupported_reason(model) is None]


# --- checks for subclasses -----------------------------------------------------------------------


def check_training_set(
    sampler: Sampler, x: Tensor | None, y: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return the training set on the model's device, with neutral values where it is unobserved.

    Raises:
        DataError: unless x is a tensor that the model accepts, y its conditions and mask its mask.
    """
    if not isinstance(x, Tensor):
        raise DataError(
            f"x is {type(x).__name__}: {type(sampler).__name__}.fit expects the training set, "
            "a torch.Tensor or a NumPy array"
        )
    model = sampler.model
    x = x.to(model.device)
    y = y.to(model.device) if isinstance(y, Tensor) else y
    if mask is not None:
        x = model.filled(x, mask.to(model.device) if isinstance(mask, Tensor) else mask)
    model.check_data("x", x)
    model.check_conditions("y", y, len(x))
    return x, y


def embeddings(sampler: Sampler, x: Tensor, y: Tensor | None) -> Tensor:
    """Return the embeddings of a training set, for samplers that are fitted to them."""
    with torch.no_grad(), seeded(0):
        return sampler.model.encode(x, y, batch_size=1024)


def natural_sampler(model: Autoencoder) -> str:
    """Return the name of the sampler that suits a model.

    The first of these that supports the model: ``"volume"`` for a learned metric, a sampler of the
    model's own prior, a sampler over codes, a mixture fitted to the embeddings.

    Raises:
        ConfigurationError: if no sampler of chartae supports the model.

    >>> import chartae
    >>> natural_sampler(chartae.VAE((8, 8), 2)), natural_sampler(chartae.RHVAE((8, 8), 2))
    ('normal', 'volume')
    """
    metric = ["volume"] if hasattr(type(model), "metric") else []
    priors = ["normal", "vamp", "sphere", "poincare"]
    prior = [] if model.prior_family is None else priors
    for name in [*metric, *prior, "code", "mixture"]:
        if SAMPLERS[name].unsupported_reason(model) is None:
            return name
    raise ConfigurationError(f"no sampler of chartae supports this {type(model).__name__}")
