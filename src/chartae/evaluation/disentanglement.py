"""Disentanglement: does each latent coordinate follow one factor of variation?

All scores take codes ``(N, d)`` and the levels of the factors ``(N, k)``, as of
`chartae.data.sprites`. They are 1 for codes that are the factors, in any order and on any scale.
The scores of a representation without information are near 0, except where said.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from chartae.checks import check_finite, check_integer
from chartae.data.arrays import as_tensor
from chartae.errors import DataError
from chartae.randomness import derive_seed

__all__ = ["DCI", "beta_score", "dci", "factor_score", "mutual_information_gap", "sap"]

Array = NDArray[Any]

BINS = 20
"""Number of intervals of equal length in which a code is discretised."""


def mutual_information_gap(codes: ArrayLike | Tensor, factors: ArrayLike | Tensor) -> float:
    """Return the mutual information gap, MIG, in [0, 1] (Chen et al., 2018).

    For each factor it is the difference between the two largest mutual informations with a code,
    divided by the entropy of the factor; the score is the mean over factors. Codes are discretised
    in 20 intervals.

    Args:
        codes: ``(N, d)``, d at least 2.
        factors: integers ``(N, k)``.

    Raises:
        DataError: for arrays of other shapes, a factor with one level, or values that are not
            finite.

    >>> factors = np.random.default_rng(0).integers(0, 4, size=(2000, 2))
    >>> round(mutual_information_gap(factors * [3.0, -1.0], factors), 2)
    1.0
    """
    z, v = _pairs(codes, factors)
    information = _information(z, v)
    entropies = np.array([_entropy(v[:, k]) for k in range(v.shape[1])])
    largest = np.sort(information, 0)[-2:]
    return float(((largest[1] - largest[0]) / entropies).mean())


def sap(
    codes: ArrayLike | Tensor,
    factors: ArrayLike | Tensor,
    *,
    test_share: float = 0.3,
    seed: int = 0,
) -> float:
    """Return the separated attribute predictability, SAP, in [0, 1] (Kumar et al., 2018).

    For each factor a linear classifier of each single code and its square predicts its level; the
    square lets one level lie between two others. The score is the
    mean over factors of the difference between the two best accuracies. Accuracies are rescaled, so
    that 0 is the share of the most frequent level.

    Args:
        codes: ``(N, d)``, d at least 2.
        factors: integers ``(N, k)``.
        test_share: share of the samples on which accuracy is measured, in (0, 1).
        seed: the same seed gives the same split.

    Raises:
        DataError: as in `mutual_information_gap`.
    """
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    z, v = _pairs(codes, factors)
    train, test = _split(len(z), test_share, seed)
    scores = np.zeros((z.shape[1], v.shape[1]))
    for i in range(z.shape[1]):
        code = StandardScaler().fit(z[train, i : i + 1]).transform(z[:, i : i + 1])
        for k in range(v.shape[1]):
            if len(np.unique(v[train, k])) < 2:
                continue
            inputs = np.concatenate([code, code**2], 1)
            classifier = LinearSVC(C=10.0, class_weight="balanced", dual=False)
            classifier.fit(inputs[train], v[train, k])
            accuracy = classifier.score(inputs[test], v[test, k])
            base = np.unique_counts(v[test, k]).counts.max() / len(test)
            scores[i, k] = max(0.0, (accuracy - base) / (1.0 - base)) if base < 1.0 else 0.0
    best = np.sort(scores, 0)[-2:]
    return float((best[1] - best[0]).mean())


@dataclass(frozen=True)
class DCI:
    """Disentanglement, completeness and informativeness (Eastwood and Williams, 2018).

    Attributes:
        disentanglement: in [0, 1]: whether each code is important for one factor only.
        completeness: in [0, 1]: whether one code only is important for each factor.
        informativeness: share of held-out samples whose levels are predicted, in [0, 1], averaged
            over factors; that of a representation without information is the share of the most
            frequent level.
    """

    disentanglement: float
    completeness: float
    informativeness: float


def dci(
    codes: ArrayLike | Tensor,
    factors: ArrayLike | Tensor,
    *,
    num_trees: int = 20,
    test_share: float = 0.3,
    seed: int = 0,
) -> DCI:
    """Return disentanglement, completeness and informativeness (Eastwood and Williams, 2018).

    Importances are those of random forests that predict each factor from all codes.

    Args:
        codes: ``(N, d)``, d at least 2.
        factors: integers ``(N, k)``, k at least 2.
        num_trees: number of trees of each forest.
        test_share: share of the samples that measure informativeness, in (0, 1).
        seed: the same seed gives the same scores.

    Raises:
        DataError: as in `mutual_information_gap`.
    """
    from sklearn.ensemble import RandomForestClassifier

    check_integer("num_trees", num_trees, minimum=1)
    z, v = _pairs(codes, factors)
    if v.shape[1] < 2:
        raise DataError("factors has one factor: expected at least two")
    train, test = _split(len(z), test_share, seed)
    importance, accuracies = np.zeros((z.shape[1], v.shape[1])), []
    for k in range(v.shape[1]):
        forest = RandomForestClassifier(
            num_trees, max_features=None, random_state=derive_seed(seed, "forest", k) % 2**32
        )
        forest.fit(z[train], v[train, k])
        importance[:, k] = forest.feature_importances_
        accuracies.append(forest.score(z[test], v[test, k]))
    by_code, by_factor = importance.sum(1), importance.sum(0)
    share = by_code / max(by_code.sum(), 1e-300)
    disentangled = float((share * _concentration(importance)).sum())
    weights = by_factor / max(by_factor.sum(), 1e-300)
    complete = float((weights * _concentration(importance.T)).sum())
    return DCI(disentangled, complete, float(np.mean(accuracies)))


def beta_score(
    codes: ArrayLike | Tensor,
    factors: ArrayLike | Tensor,
    *,
    num_points: int = 1000,
    group: int = 64,
    seed: int = 0,
) -> float:
    """Return the score of the beta-VAE in [0, 1] (Higgins et al., 2017).

    A point is the mean absolute difference of the codes of pairs of samples that have the same
    level of one factor; a linear classifier tells which factor. The score is its accuracy on
    held-out points; 1 / k is chance.

    Args:
        codes: ``(N, d)``.
        factors: integers ``(N, k)``, k at least 2; the more complete the combinations, the better.
        num_points: number of points, half of which train the classifier.
        group: number of pairs behind each point.
        seed: the same seed gives the same score.

    Raises:
        DataError: as in `mutual_information_gap`.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def point(rng: np.random.Generator, z: Array, v: Array, k: int) -> Array:
        first = rng.integers(len(z), size=group)
        second = np.array([rng.choice(np.flatnonzero(v[:, k] == v[i, k])) for i in first])
        mean: Array = np.abs(z[first] - z[second]).mean(0)
        return mean

    points, names = _points(codes, factors, point, num_points, seed)
    half = len(points) // 2
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    classifier.fit(points[:half], names[:half])
    return float(classifier.score(points[half:], names[half:]))


def factor_score(
    codes: ArrayLike | Tensor,
    factors: ArrayLike | Tensor,
    *,
    num_points: int = 1000,
    group: int = 64,
    seed: int = 0,
) -> float:
    """Return the score of the FactorVAE in [0, 1] (Kim and Mnih, 2018).

    Samples with the same level of one factor are drawn, and the code that varies least, relative to
    its variance over all samples, votes for this factor. The score is the share of held-out votes
    that agree with the majority of their code; 1 / k is chance. Codes that do not vary take no
    part.

    Args:
        codes: ``(N, d)``.
        factors: integers ``(N, k)``, k at least 2; the more complete the combinations, the better.
        num_points: number of votes, half of which make the majorities.
        group: number of samples behind each vote.
        seed: the same seed gives the same score.

    Raises:
        DataError: as in `mutual_information_gap`, or if no code varies.
    """

    def vote(rng: np.random.Generator, z: Array, v: Array, k: int) -> Array:
        members = np.flatnonzero(v[:, k] == v[rng.integers(len(z)), k])
        variance: Array = z[rng.choice(members, size=group)].var(0)
        return np.array([np.argmin(variance)])

    z, _ = _pairs(codes, factors, least=1)
    deviation = z.std(0)
    active = deviation > 1e-9 * max(1.0, float(np.abs(z).max()))
    if not active.any():
        raise DataError("codes do not vary: expected at least one that does")
    scaled = z[:, active] / deviation[active]
    votes, names = _points(scaled, factors, vote, num_points, seed)
    half = len(votes) // 2
    table = np.zeros((scaled.shape[1], int(names.max()) + 1))
    np.add.at(table, (votes[:half, 0], names[:half]), 1)
    return float((table.argmax(1)[votes[half:, 0]] == names[half:]).mean())


# --- arithmetic -----------------------------------------------------------------------------------


def _pairs(
    codes: ArrayLike | Tensor, factors: ArrayLike | Tensor, *, least: int = 2
) -> tuple[Array, Array]:
    """Return codes as float64 and factors as integers."""
    z, v = as_tensor("codes", codes), as_tensor("factors", factors)
    if z.ndim != 2 or v.ndim != 2 or len(z) != len(v) or len(z) < 10:
        raise DataError(
            f"codes have shape {tuple(z.shape)} and factors {tuple(v.shape)}: expected (N, d) and "
            "(N, k), N at least 10"
        )
    if z.shape[1] < least:
        raise DataError(f"codes have {z.shape[1]} coordinate(s): expected at least {least}")
    check_finite("codes", z)
    check_finite("factors", v)
    levels = v.detach().cpu().double().numpy()
    if not (levels == levels.round()).all():
        raise DataError("factors has fractions: expected integers, the levels of each factor")
    for k in range(levels.shape[1]):
        if len(np.unique(levels[:, k])) < 2:
            raise DataError(f"factor {k} has one level: expected at least two")
    return z.detach().cpu().double().numpy(), levels.astype(np.int64)


def _split(count: int, share: float, seed: int) -> tuple[Array, Array]:
    order = np.random.default_rng(derive_seed(seed, "split")).permutation(count)
    tests = min(max(1, round(share * count)), count - 1)
    return order[tests:], order[:tests]


def _information(z: Array, v: Array) -> Array:
    """Return the mutual information of each code and factor, ``(d, k)`` in nats."""
    from sklearn.metrics import mutual_info_score

    bins = np.stack([_discretised(z[:, i]) for i in range(z.shape[1])], 1)
    return np.array(
        [
            [mutual_info_score(bins[:, i], v[:, k]) for k in range(v.shape[1])]
            for i in range(z.shape[1])
        ]
    )


def _discretised(code: Array) -> Array:
    edges = np.linspace(code.min(), code.max(), BINS + 1)[1:-1]
    return np.digitize(code, edges)


def _entropy(levels: Array) -> float:
    shares = np.unique_counts(levels).counts / len(levels)
    return float(-(shares * np.log(shares)).sum())


def _concentration(importance: Array) -> Array:
    """Return 1 minus the normalised entropy of each row; 0 for a row of zeros."""
    total = importance.sum(1, keepdims=True)
    shares = importance / np.where(total > 0.0, total, 1.0)
    logs = np.log(np.where(shares > 0.0, shares, 1.0))
    found: Array = 1.0 + (shares * logs).sum(1) / np.log(importance.shape[1])
    return np.where(total[:, 0] > 0.0, found, 0.0)


def _points(codes: Any, factors: Any, make: Any, num_points: int, seed: int) -> tuple[Array, Array]:
    """Return one point for each of many random factors, and the factors."""
    check_integer("num_points", num_points, minimum=10)
    z, v = _pairs(codes, factors, least=1)
    if v.shape[1] < 2:
        raise DataError("factors has one factor: expected at least two")
    rng = np.random.default_rng(derive_seed(seed, "points"))
    names = rng.integers(v.shape[1], size=num_points)
    return np.stack([make(rng, z, v, k) for k in names]), names
