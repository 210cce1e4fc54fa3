"""Memorisation: are synthetic data copies, and do they reveal who was in the training set?"""

from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from chartae.checks import check_finite, check_number
from chartae.data.arrays import as_tensor, takes_arrays
from chartae.errors import DataError
from chartae.evaluation.neighbours import as_rows, nearest

__all__ = ["Copies", "copies", "membership_auc", "nearest_distance_ratio", "score_auc"]


@takes_arrays("train", "held_out", "synthetic")
def nearest_distance_ratio(train: Tensor, held_out: Tensor, synthetic: Tensor) -> float:
    """Return how far synthetic data are from the training set, relative to held-out data.

    It is the median distance from a synthetic sample to the nearest training sample, divided by
    that of held-out samples: 1 if synthetic data are as new as held-out ones, 0 for copies.
    Distances are Euclidean. Features of vectors are divided by their standard deviation in the
    training set first, here and in the functions below.

    Args:
        train: ``(N, *input_shape)``: what the generator has seen.
        held_out: ``(M, *input_shape)``: real data that it has not seen.
        synthetic: ``(n, *input_shape)``.

    Raises:
        DataError: for fewer than 2 samples, other shapes or dtypes, values that are not finite, or
            if most held-out samples are in the training set.

    >>> train = torch.tensor([[0.0], [1.0], [2.0]])
    >>> nearest_distance_ratio(train, train + 0.5, train + 0.25)
    0.5
    """
    of_held_out, of_synthetic = _distances(train, held_out, synthetic)
    reference = of_held_out.median()
    if not float(reference) > 0.0:
        raise DataError("most held-out samples are in train: expected others")
    return float(of_synthetic.median() / reference)


@dataclass(frozen=True)
class Copies:
    """Shares of synthetic samples that are copies.

    Attributes:
        exact: share of samples that are equal to a training sample, in [0, 1].
        near: share of samples that are as near to a training sample as the nearest held-out ones,
            in [0, 1]; about the chosen ``quantile`` for data that are as new as held-out ones.
    """

    exact: float
    near: float


@takes_arrays("train", "held_out", "synthetic")
def copies(train: Tensor, held_out: Tensor, synthetic: Tensor, *, quantile: float = 0.05) -> Copies:
    """Return the shares of synthetic samples that are copies of training samples.

    Args:
        train: ``(N, *input_shape)``: what the generator has seen.
        held_out: ``(M, *input_shape)``: real data that it has not seen.
        synthetic: ``(n, *input_shape)``.
        quantile: share of held-out samples that are called near, in (0, 1).

    Raises:
        DataError: for fewer than 2 samples, other shapes or dtypes, or values that are not finite.

    >>> train = torch.arange(40.0)[:, None]
    >>> copies(train, train + 0.4, torch.cat([train[:10], train[:30] + 0.5]))
    Copies(exact=0.25, near=0.25)
    """
    check_number("quantile", quantile, above=0.0, below=1.0)
    of_held_out, of_synthetic = _distances(train, held_out, synthetic)
    near = of_synthetic < of_held_out.quantile(quantile)
    exact = of_synthetic == 0.0
    return Copies(float(exact.double().mean()), float((near | exact).double().mean()))


@takes_arrays("train", "held_out", "synthetic")
def membership_auc(train: Tensor, held_out: Tensor, synthetic: Tensor) -> float:
    """Return how well an attacker tells training samples from held-out ones by synthetic data.

    The attacker has the synthetic data only, and takes a sample that is near to one of them for a
    member of the training set. The result is the area under the attacker's ROC curve: 0.5 if
    synthetic data reveal nothing, 1 if they reveal every member (Hilprecht et al., 2019; Chen et
    al., 2020).

    Args:
        train: ``(N, *input_shape)``: what the generator has seen.
        held_out: ``(M, *input_shape)``: real data of the same distribution that it has not seen.
        synthetic: ``(n, *input_shape)``.

    Raises:
        DataError: for fewer than 2 samples, other shapes or dtypes, or values that are not finite.

    >>> train, held_out = (
    ...     torch.arange(0.0, 40.0, 2.0)[:, None],
    ...     torch.arange(1.0, 41.0, 2.0)[:, None],
    ... )
    >>> membership_auc(train, held_out, train + 0.1)
    1.0
    """
    x, observed, (other, s) = as_rows(train, {"held_out": held_out, "synthetic": synthetic})
    seen = torch.ones_like(s)
    members = nearest(x, observed, s, seen).distances
    others = nearest(other, torch.ones_like(other), s, seen).distances
    return score_auc(-members, -others)


def score_auc(positive: ArrayLike | Tensor, negative: ArrayLike | Tensor) -> float:
    """Return the probability that a positive case has the higher score: the area under the ROC.

    It is 1 if scores separate the cases, and 0.5 if they do not. Ties count one half. It serves

    * the detection of anomalies: the scores of anomalous and normal samples, such as
      ``-model.log_likelihood(x)``;
    * the detection of members of the training set by a model: the scores ``log p(x)`` of training
      and of held-out samples. It is above 0.5 if the model has learned members by heart.

    Args:
        positive: ``(n,)`` scores of positive cases.
        negative: ``(m,)`` scores of the others.

    Raises:
        DataError: if one of them is empty, has another shape, or is not finite.

    >>> score_auc([0.9, 0.8], [0.1, 0.8])
    0.875
    """
    from sklearn.metrics import roc_auc_score

    scores = []
    for name, value in (("positive", positive), ("negative", negative)):
        score = as_tensor(name, value).detach().cpu().double()
        if score.ndim != 1 or not len(score):
            raise DataError(f"{name} has shape {tuple(score.shape)}: expected (n,), n at least 1")
        check_finite(name, score)
        scores.append(score)
    labels = torch.cat([torch.ones(len(scores[0])), torch.zeros(len(scores[1]))])
    return float(roc_auc_score(labels.numpy(), torch.cat(scores).numpy()))


def _distances(train: Tensor, held_out: Tensor, synthetic: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distances of held-out and of synthetic samples to the nearest training sample."""
    x, observed, rows = as_rows(train, {"held_out": held_out, "synthetic": synthetic})
    first, last = (nearest(row, torch.ones_like(row), x, observed).distances for row in rows)
    return first, last
