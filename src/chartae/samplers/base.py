"""The contract of every sampler: ways to draw latents, and what they decode to."""

import inspect
from pathlib import Path
from typing import Any, ClassVar, Self, get_args

import torch
from torch import Tensor, nn

from chartae.checks import check_integer
from chartae.errors import ConfigurationError, DataError
from chartae.models import Autoencoder
from chartae.persistence import register, save
from chartae.randomness import make_generator, resolve_seed, seeded

__all__ = ["Sampler"]


class Sampler(nn.Module):
    """Base of all samplers: a trained model, and a way to draw latents for its decoder.

    A subclass says how: `draw_latents`, and `fit` if it has something to learn; what it learns is
    in buffers named in ``fitted_buffers``. Its constructor's arguments are attributes.

    Args:
        model: a trained model.

    Raises:
        ConfigurationError: if the model is not of the kind the sampler needs.
    """

    fitted_buffers: ClassVar[tuple[str, ...]] = ()
    model: Autoencoder

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        register(cls)

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        if not isinstance(model, Autoencoder):
            raise ConfigurationError(
                f"model is {type(model).__name__}: expected a model of chartae"
            )
        self.model = model
        for name in self.fitted_buffers:
            self.register_buffer(name, torch.zeros(0, dtype=model.dtype, device=model.device))

    def fit(self, x: Tensor | None = None) -> Self:
        """Learn from the training set ``x``, ``(N, *input_shape)``; return the sampler.

        A sampler with nothing to learn accepts None.
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

    def draw_latents(self, n: int, seed: int) -> Tensor:
        """Return n latents; everything random in it follows from ``seed``."""
        raise NotImplementedError

    def sample_latents(self, n: int, seed: int | None = None) -> Tensor:
        """Draw ``n`` latents: ``(n, latent_dim)``.

        Args:
            n: number of latents, at least 1.
            seed: the same seed gives the same latents; None draws one.

        Raises:
            ConfigurationError: if n is less than 1, or the sampler needs `fit` first.
        """
        check_integer("n", n, minimum=1)
        self.check_fitted()
        with torch.no_grad():
            return self.draw_latents(n, resolve_seed(seed))

    def sample(self, n: int, seed: int | None = None, batch_size: int = 512) -> Tensor:
        """Draw ``n`` observations, the decoded means of `sample_latents`: ``(n, *input_shape)``.

        Args:
            n: number of observations, at least 1.
            seed: as for `sample_latents`.
            batch_size: latents decoded at once; it does not change the result.

        Raises:
            ConfigurationError: for a count out of range, or if the sampler needs `fit` first.
        """
        z = self.sample_latents(n, seed)
        with torch.no_grad():
            return self.model.decode(z, batch_size=batch_size)

    def noise(self, shape: tuple[int, ...], seed: int) -> Tensor:
        """Return standard normal noise of the model's dtype, on its device."""
        generator = make_generator(seed, type(self).__name__)
        return torch.randn(shape, generator=generator, dtype=self.model.dtype).to(self.model.device)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, from which the sampler can be built again."""
        names: list[str] = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:  # **options: Unpack[Options]
                names += get_args(parameter.annotation)[0].__annotations__
            else:
                names.append(name)
        return {name: getattr(self, name) for name in names}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the sampler and its model to one folder; `chartae.load` reads them back."""
        save(self, folder)


def check_training_set(sampler: Sampler, x: Tensor | None) -> Tensor:
    """Return the training set on the model's device; raise `DataError` unless it is a tensor."""
    if not isinstance(x, Tensor):
        raise DataError(
            f"x is {type(x).__name__}: {type(sampler).__name__}.fit expects the training set, "
            "a torch.Tensor"
        )
    return x.to(sampler.model.device)


def embeddings(sampler: Sampler, x: Tensor | None) -> Tensor:
    """Return the embeddings of the training set, for samplers that learn from them."""
    with torch.no_grad(), seeded(0):
        return sampler.model.encode(check_training_set(sampler, x), batch_size=1024)
