"""The base of the samplers that train a network: their options, and how they call `chartae.fit`."""

import logging
from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, ClassVar, Self, TypedDict

import torch
from torch import Tensor, nn

from chartae.checks import Count, Natural, Positive, Range
from chartae.data import TensorSet
from chartae.data.arrays import takes_arrays
from chartae.errors import DataError
from chartae.gradients import gradients
from chartae.models import Autoencoder, Batch, Losses, Trainable
from chartae.randomness import derive_seed, make_generator, seeded
from chartae.samplers.base import Sampler, check_training_set
from chartae.training import fit

__all__ = ["LearnedSampler", "LearningOptions"]

logger = logging.getLogger(__name__)


class LearningOptions(TypedDict, total=False):
    """The arguments that every `LearnedSampler` shares."""

    epochs: int
    batch_size: int
    learning_rate: float
    patience: int
    held_out: float
    seed: int


class LearnedSampler(Sampler):
    """Base of the samplers that train a network on the latents of the training set.

    A share of the training set is held out. Training keeps the weights with the lowest loss on it,
    and stops when this loss has not improved for ``patience`` epochs. Each call of `fit` starts
    with new weights, and its result follows from the seed. A subclass defines what is trained:
    `learn`.

    Args:
        model: a trained model.
        epochs: largest number of passes over the training set.
        batch_size: samples in a step.
        learning_rate: learning rate of Adam.
        patience: epochs without improvement after which training stops.
        held_out: share of the training set that is held out, in (0, 1); at least one sample.
        seed: seed of the weights, the batches and the choice of the held-out samples.

    Raises:
        ConfigurationError: for a model that the sampler does not support, or an argument out of
            range.
    """

    fitted_buffers: ClassVar[tuple[str, ...]] = ("fitted",)
    fitted: Tensor

    def __init__(
        self,
        model: Autoencoder,
        *,
        epochs: Count = 200,
        batch_size: Count = 128,
        learning_rate: Positive = 1e-3,
        patience: Count = 20,
        held_out: Annotated[float, Range(above=0.0, below=1.0)] = 0.1,
        seed: Natural = 0,
    ) -> None:
        super().__init__(model)
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.patience, self.held_out, self.seed = patience, held_out, seed

    @takes_arrays("x", "y", "mask")
    def fit(
        self, x: Tensor | None = None, y: Tensor | None = None, mask: Tensor | None = None
    ) -> Self:
        """Train on the latents of the training set ``x``, ``(N, *input_shape)``, with conditions
        ``y``.

        Raises:
            DataError: if x is not a tensor that the model accepts, with at least three
                observations, or if y is not its conditions.
            DivergenceError: if the loss is not finite; the sampler is then not fitted.
        """
        x, y = check_training_set(self, x, y, mask)
        with gradients(x, y) as (x, y):
            return self._fit(x, y)

    def _fit(self, x: Tensor, y: Tensor | None) -> Self:
        if len(x) < 3:
            raise DataError(
                f"x has {len(x)} observation(s): {type(self).__name__} needs at least 3, one of "
                "which is held out"
            )
        self.fitted = self.fitted.new_zeros(0)
        order = torch.randperm(len(x), generator=make_generator(self.seed, "held out"))
        kept = min(len(x) - 1, max(2, round(len(x) * (1.0 - self.held_out))))
        with seeded(self.seed, type(self).__name__, device=self.model.device):
            self.learn(x, y, order[:kept].to(x.device), order[kept:].to(x.device))
        self.fitted = self.fitted.new_ones(1)
        return self

    @abstractmethod
    def learn(self, x: Tensor, y: Tensor | None, train: Tensor, held_out: Tensor) -> None:
        """Train on the rows ``train`` of x and y, and keep the best weights on ``held_out``."""

    def fit_network(self, objective: Trainable, train: TensorSet, held_out: TensorSet) -> None:
        """Train in place with `chartae.fit`, and keep the weights with the lowest held-out loss.

        Raises:
            DivergenceError: if a loss is not finite.
            KeyboardInterrupt: after Ctrl-C; the sampler is then not fitted.
        """
        history = fit(
            objective,
            train,
            held_out,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            patience=self.patience,
            seed=derive_seed(self.seed, type(self).__name__),
            accelerator=self.model.device.type,
            progress=False,
        )
        if history.stopped == "interrupted":
            raise KeyboardInterrupt  # `chartae.fit` returns normally; the caller must not go on
        best = history.best_epoch or 0
        loss = history.validation["loss"][best]
        logger.info("%s: held-out loss %.4f, epoch %d", type(self).__name__, loss, best + 1)


class Density(Trainable):
    """A network trained by maximum likelihood.

    Args:
        network: holds the parameters.
        loss: from samples ``(batch, ...)`` and their conditions to minus their log density,
            ``(batch,)``.
    """

    def __init__(self, network: nn.Module, loss: Callable[[Tensor, Tensor | None], Tensor]) -> None:
        super().__init__()
        self.network, self.nats = network, loss

    def check_batch(self, name: str, batch: Batch) -> None:
        pass  # the sampler has checked the samples

    def loss(self, samples: Tensor, *, y: Tensor | None = None) -> Losses:
        return Losses.of(self.nats(samples, y).mean())


def rows_of(samples: Tensor, y: Tensor | None, rows: Tensor) -> TensorSet:
    """Return a part of the samples with their conditions."""
    given = {} if y is None else {"y": y[rows]}
    return TensorSet(samples=samples[rows], **given)


def standardisation(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation of each coordinate, ``(1, latent_dim)`` each."""
    spread = latents.std(0, correction=0, keepdim=True)
    # A constant coordinate has no scale.
    return latents.mean(0, keepdim=True), torch.where(spread > 1e-6, spread, 1.0)
