"""What the samplers that train a network share: their options, and one small loop."""

import copy
import logging
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, ClassVar, Self, TypedDict

import torch
from torch import Tensor, nn

from chartae.checks import Count, Natural, Positive, Range
from chartae.data.arrays import takes_arrays
from chartae.errors import DataError, DivergenceError
from chartae.gradients import gradients
from chartae.models import Autoencoder
from chartae.randomness import make_generator, seeded
from chartae.samplers.base import Sampler, check_training_set

__all__ = ["LearnedSampler", "LearningOptions"]

logger = logging.getLogger(__name__)

Loss = Callable[[Tensor, Tensor | None], Tensor]
"""From samples and their conditions to the mean loss."""


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

    A share of the training set is held out; training keeps the weights that are best on it, and
    ends when they have not improved for a while. `fit` starts anew each time, and follows from the
    seed. A subclass says what is trained: `learn`.

    Args:
        model: a trained model.
        epochs: most passes over the training set.
        batch_size: samples in a step.
        learning_rate: of Adam.
        patience: epochs without improvement after which training ends.
        held_out: share of the training set held out, in (0, 1); at least one sample.
        seed: of weights, batches and the choice of what is held out.

    Raises:
        ConfigurationError: for a model that the sampler does not serve, or an argument out of
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

    @takes_arrays("x", "y")
    def fit(self, x: Tensor | None = None, y: Tensor | None = None) -> Self:
        """Train on the latents of the training set ``x``, ``(N, *input_shape)``, given ``y``.

        Raises:
            DataError: if x is not a tensor of three observations or more that the model accepts, or
                y not its conditions.
            DivergenceError: if the loss is not finite; the sampler is then not fitted.
        """
        x, y = check_training_set(self, x, y)
        with gradients(x, y) as (x, y):
            return self._fit(x, y)

    def _fit(self, x: Tensor, y: Tensor | None) -> Self:
        if len(x) < 3:
            raise DataError(
                f"x has {len(x)} observation(s): {type(self).__name__} needs at least 3, one of "
                "them to be held out"
            )
        self.fitted = self.fitted.new_zeros(0)
        order = torch.randperm(len(x), generator=make_generator(self.seed, "held out"))
        kept = min(len(x) - 1, max(1, round(len(x) * (1.0 - self.held_out))))
        with seeded(self.seed, type(self).__name__, device=self.model.device):
            self.learn(x, y, order[:kept].to(x.device), order[kept:].to(x.device))
        self.fitted = self.fitted.new_ones(1)
        return self

    @abstractmethod
    def learn(self, x: Tensor, y: Tensor | None, train: Tensor, held_out: Tensor) -> None:
        """Train on the rows ``train`` of x and y, and choose the weights on ``held_out``."""

    def train_network(
        self,
        network: nn.Module,
        loss: Loss,
        samples: Tensor,
        y: Tensor | None,
        train: Tensor,
        held_out: Tensor,
    ) -> None:
        """Train ``network`` to minimise ``loss``, in place; it ends in eval mode.

        Args:
            network: its parameters are trained.
            loss: of the rows of samples and their conditions, a mean over rows.
            samples: ``(N, ...)``.
            y: their conditions, or None.
            train: numbers of the rows to train on.
            held_out: numbers of the rows on which the best weights are chosen.

        Raises:
            DivergenceError: if a loss is not finite.
        """

        def of(rows: Tensor) -> Tensor:
            return loss(samples[rows], None if y is None else y[rows])

        optimizer = torch.optim.Adam(network.parameters(), self.learning_rate)
        best, weights, waited = math.inf, copy.deepcopy(network.state_dict()), 0
        for epoch in range(self.epochs):
            network.train()
            order = torch.randperm(len(train), generator=make_generator(self.seed, "order", epoch))
            for rows in order.to(train.device).split(self.batch_size):
                optimizer.zero_grad()
                of(train[rows]).backward()
                optimizer.step()
            network.eval()
            with torch.no_grad():
                parts = held_out.split(self.batch_size)
                value = sum(float(of(rows)) * len(rows) for rows in parts) / len(held_out)
            if not math.isfinite(value):
                raise DivergenceError(
                    f"{type(self).__name__}: the held-out loss of epoch {epoch + 1} is {value}; "
                    "lower learning_rate"
                )
            if value < best:
                best, weights, waited = value, copy.deepcopy(network.state_dict()), 0
            else:
                waited += 1
            if waited == self.patience:
                break
        network.load_state_dict(weights)
        logger.info(
            "%s: held-out loss %.4f, epoch %d", type(self).__name__, best, epoch + 1 - waited
        )


def standardisation(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation of each coordinate, ``(1, latent_dim)`` each."""
    spread = latents.std(0, correction=0, keepdim=True)
    # A coordinate that never changes has no scale to take out.
    return latents.mean(0, keepdim=True), torch.where(spread > 1e-6, spread, 1.0)
