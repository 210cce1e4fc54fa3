"""Distances between sets of samples, against closed forms."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from chartae.errors import DataError
from chartae.evaluation import frechet_distance


def with_moments(mean: np.ndarray, factor: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return samples whose sample mean and covariance are exactly those given."""
    z = np.random.default_rng(seed).normal(size=(n, len(mean)))
    z -= z.mean(0)
    z = z @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T))).T
    return mean + z @ factor.T


def test_it_is_the_closed_form_of_normals() -> None:
    rng = np.random.default_rng(0)
    means, factors = rng.normal(size=(2, 4)), np.tril(rng.normal(size=(2, 4, 4)))
    real, fake = (
        with_moments(*part, 50, n) for n, part in enumerate(zip(means, factors, strict=True))
    )
    first, second = (factor @ factor.T for factor in factors)
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(
        first + second - 2.0 * sqrtm(first @ second).real
    )
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(fake, real) == pytest.approx(expected, rel=1e-6)


def test_it_is_0_for_the_same_set_in_another_order_and_with_fewer_samples_than_features() -> None:
    x = torch.rand(20, 5, 10, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(x, x.flip(0)) == pytest.approx(0.0, abs=1e-9)


def test_a_collapsed_set_is_further_than_half_of_the_set() -> None:
    x = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    halves = frechet_distance(x[:500], x[500:])
    assert halves < 0.05 < 1.0 < frechet_distance(x, x[:1].repeat(500, 1))


@pytest.mark.parametrize(
    ("real", "fake", "words"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), r"real has shape \(1, 3\)"),
        (np.zeros((5, 3)), np.zeros((5, 2)), "real has 3 features and fake 2"),
        (np.zeros((5, 3)), np.full((5, 3), np.nan), "fake has 15 NaN"),
    ],
)
def test_bad_input_is_refused(real: np.ndarray, fake: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words):
        frechet_distance(real, fake)
