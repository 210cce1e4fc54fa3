"""Latents from a mixture of Gaussians fitted to the training embeddings."""

import logging
import warnings
from typing import ClassVar, Self

import torch
from torch import Tensor

from chartae.checks import Count, Natural, Positive
from chartae.data.arrays import takes_arrays
from chartae.distributions import NormalMixture
from chartae.errors import DataError
from chartae.models import Autoencoder
from chartae.randomness import derive_seed, make_generator
from chartae.samplers.base import Sampler, check_training_set, embeddings

__all__ = ["MixtureSampler", "check_mixture", "fitted_mixture"]

logger = logging.getLogger(__name__)


class MixtureSampler(Sampler):
    """Draw latents from a Gaussian mixture fitted ex post (Ghosh et al., 2020).

    A model with conditions has one mixture for all of them. How latents depend on y is not fitted;
    `FlowSampler` fits this, too.

    Args:
        model: a trained model whose latents are vectors.
        num_components: number of components of the mixture; None takes 10, or fewer so that each
            has about 5 distinct codes.
        regularization: added to the diagonal of every covariance, positive.
        seed: seed of the mixture's initialisation.

    Raises:
        ConfigurationError: for a model with other latents, or an argument out of range.
    """

    fitted_buffers: ClassVar[tuple[str, ...]] = ("weights", "means", "factors")
    weights: Tensor
    means: Tensor
    factors: Tensor

    def __init__(
        self,
        model: Autoencoder,
        num_components: Count | None = None,
        regularization: Positive = 1e-6,
        seed: Natural = 0,
    ) -> None:
        super().__init__(model)
        self.num_components, self.regularization = num_components, regularization
        self.seed = seed
        d = model.latent_dim
        # `load` requires these shapes; only the first dimension may grow.
        self.means = self.means.reshape(0, d)
        self.factors = self.factors.reshape(0, d, d)

    @takes_arrays("x", "y", "mask")
    def fit(
        self, x: Tensor | None = None, y: Tensor | None = None, mask: Tensor | None = None
    ) -> Self:
        """Fit the mixture to the embeddings of ``x``, ``(N, *input_shape)``, with conditions ``y``.

        Raises:
            DataError: if x is not a tensor that the model accepts, or y is not its conditions, or
                there are fewer than 2 observations, or fewer than components.
        """
        codes = embeddings(self, *check_training_set(self, x, y, mask))
        count = self.num_components or min(10, max(1, len(codes.unique(dim=0)) // 5))
        if len(codes) < max(2, count):
            raise DataError(
                f"x has {len(codes)} observation(s): a mixture of {count} component(s) "
                f"(num_components) needs at least {max(2, count)}"
            )
        fitted = fitted_mixture(codes, count, regularization=self.regularization, seed=self.seed)
        self.weights, self.means, self.factors = fitted.weights, fitted.loc, fitted.scale
        return self

    def check_buffers(self) -> None:
        super().check_buffers()
        check_mixture(self.weights, self.means, self.factors)

    def draw_latents(self, n: int, seed: int, y: Tensor | None = None) -> Tensor:
        generator = make_generator(seed, "component")
        component = torch.multinomial(
            self.weights.cpu(), n, replacement=True, generator=generator
        ).to(self.means.device)
        noise = self.noise((n, self.model.latent_dim), seed)
        return self.means[component] + (self.factors[component] @ noise[..., None])[..., 0]


def check_mixture(weights: Tensor, means: Tensor, factors: Tensor) -> None:
    """Raise `DataError` unless loaded tensors are a mixture of normals, or empty."""
    parts = (len(weights), len(means), len(factors))
    if len(set(parts)) > 1:
        raise DataError(
            f"weights, means and factors are of {parts} components: expected equal numbers"
        )
    if len(weights) and not (weights.min() >= 0 and weights.sum() > 0):
        raise DataError("weights has negative values, or zeros only: expected weights of a mixture")


def fitted_mixture(
    codes: Tensor, count: int, *, regularization: float = 1e-6, seed: int = 0
) -> NormalMixture:
    """Return the mixture of ``count`` normals fitted to codes, ``(N, d)``, by scikit-learn.

    Args:
        codes: at least 2, and at least ``count``.
        count: number of components.
        regularization: added to the diagonal of every covariance, positive.
        seed: seed of the initialisation.

    Raises:
        DataError: if no mixture fits codes of such a size.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(
        count,
        max_iter=500,
        reg_covar=regularization,
        random_state=derive_seed(seed, "mixture") % 2**32,
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a message below replaces it
            mixture.fit(codes.double().cpu().numpy())
    except ValueError as error:
        raise DataError(
            f"no mixture fits the codes of x, of size up to {codes.abs().max():.3g}: expected "
            f"more than regularization={regularization:g} for codes of this size"
        ) from error
    distinct = len(codes.unique(dim=0))
    if distinct < count:
        logger.warning(
            "num_components=%d: x has %d distinct code(s), and the other components have weight 0",
            *(count, distinct),
        )
    elif not mixture.converged_:
        logger.warning(
            "the mixture of num_components=%d was still improving after %d iterations; "
            "expected a smaller number, or a larger regularization than %g",
            *(count, mixture.n_iter_, regularization),
        )
    weights, means = (torch.as_tensor(v).to(codes) for v in (mixture.weights_, mixture.means_))
    factors = torch.linalg.cholesky(torch.as_tensor(mixture.covariances_)).to(codes)
    return NormalMixture(means, factors, weights)
