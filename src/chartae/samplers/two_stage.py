"""Latents from a second variational autoencoder, trained on the latents of the first."""

from collections.abc import Sequence
from typing import ClassVar, Unpack, cast

import torch
from torch import Tensor

from chartae.checks import Count
from chartae.data import ArrayDataset
from chartae.models import VAE, Autoencoder, VariationalAutoencoder
from chartae.randomness import seeded
from chartae.samplers.base import embeddings
from chartae.samplers.learned import LearnedSampler, LearningOptions, standardisation

__all__ = ["TwoStageSampler"]


class TwoStageSampler(LearnedSampler):
    r"""Draw latents from a second VAE (Dai and Wipf, 2019).

    .. math:: u \sim N(0, I), \quad z \sim p_2(z|u)

    The second VAE is trained on standardised samples of the aggregated posterior: one
    :math:`z \sim q(z|x)` for each x, or the embeddings if the model has no posterior. Its latent
    has the same size as the first one's, and its Gaussian likelihood has a learned scale. As it
    does not reduce the dimension, its own aggregated posterior can match N(0, I) even if the first
    one's does not. In a model with conditions it is :math:`p_2(z|u, y)`.

    The thesis' benchmark (section 4.6) uses two hidden layers of 1024 units, 200 epochs and a
    learning rate of 1e-4.

    Args:
        model: a trained model whose latents are vectors.
        hidden: sizes of the hidden layers of the second encoder; its decoder has them in reverse
            order.
        options: ``epochs``, ``batch_size``, ``learning_rate``, ``patience``, ``held_out`` and
            ``seed``, as in `LearnedSampler`.

    Raises:
        ConfigurationError: for a model with other latents, or an argument out of range.

    >>> import chartae
    >>> model = chartae.VAE((8, 8), latent_dim=2).eval()
    >>> sampler = TwoStageSampler(model, hidden=[32], epochs=2).fit(torch.rand(20, 8, 8))
    >>> sampler.sample(5, seed=0).shape
    torch.Size([5, 8, 8])
    """

    fitted_buffers: ClassVar[tuple[str, ...]] = (*LearnedSampler.fitted_buffers, "shift", "spread")
    shift: Tensor
    spread: Tensor

    def __init__(
        self,
        model: Autoencoder,
        hidden: Sequence[Count] = (1024, 1024),
        **options: Unpack[LearningOptions],
    ) -> None:
        super().__init__(model, **options)
        self.hidden = tuple(hidden)
        self.shift = self.shift.reshape(0, model.latent_dim)
        self.spread = self.spread.reshape(0, model.latent_dim)
        self.second = self._make_second()

    def _make_second(self) -> VAE:
        """Return a second VAE with new weights."""
        d = self.model.latent_dim
        with seeded(self.seed, "second stage"):
            second = VAE(
                (d,),
                d,
                encoder={"name": "mlp", "hidden": list(self.hidden)},
                decoder={"name": "mlp", "hidden": list(self.hidden[::-1])},
                likelihood={"name": "gaussian", "scale": "learned"},
                conditions=self.model.conditions,
            )
        return second.to(device=self.model.device, dtype=self.model.dtype)

    def learn(self, x: Tensor, y: Tensor | None, train: Tensor, held_out: Tensor) -> None:
        z = self._first_stage(x, y)
        self.shift, self.spread = standardisation(z[train])
        z = (z - self.shift) / self.spread
        self.second = self._make_second()
        sets = [ArrayDataset(z[rows], None if y is None else y[rows]) for rows in (train, held_out)]
        self.fit_network(self.second, *sets)

    @torch.no_grad()
    def _first_stage(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Return a latent of each x."""
        if self.model.posterior_family is None:
            return embeddings(self, x, y)
        posterior = cast(VariationalAutoencoder, self.model).posterior
        pieces = [x.split(1024)] + ([] if y is None else [y.split(1024)])
        return torch.cat([posterior(*piece).rsample() for piece in zip(*pieces, strict=True)])

    def draw_latents(self, n: int, seed: int, y: Tensor | None = None) -> Tensor:
        u = self.noise((n, self.model.latent_dim), seed)
        with seeded(seed, "second stage", device=u.device):
            z: Tensor = self.second.likelihood(u, y).sample()
        return self.shift + self.spread * z
