"""Representations: what a linear classifier and k-means find in a model's embeddings."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from chartae.checks import check_finite, check_integer
from chartae.data import encode_labels
from chartae.data.arrays import as_tensor
from chartae.errors import DataError
from chartae.geometry import Metric, kmeans
from chartae.randomness import derive_seed

__all__ = ["Clustering", "Probe", "cluster_accuracy", "linear_probe"]

Array = NDArray[Any]

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)
"""Inverse strengths of the penalty of a linear classifier, of which validation chooses one."""
SHARE = 0.8
"""Share of the training set on which a run of the linear probe learns."""


@dataclass(frozen=True)
class Probe:
    """Accuracies of linear classifiers.

    Attributes:
        accuracies: the share of test samples that each run classifies correctly, in [0, 1].
    """

    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over runs."""
        return float(np.mean(self.accuracies))

    @property
    def deviation(self) -> float:
        """The standard deviation over runs; 0 for one run."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else 0.0


def linear_probe(
    train: ArrayLike | Tensor,
    y_train: ArrayLike | Tensor,
    test: ArrayLike | Tensor,
    y_test: ArrayLike | Tensor,
    *,
    runs: int = 20,
    seed: int = 0,
) -> Probe:
    """Return the test accuracy of a linear classifier on embeddings (thesis section 4.4.2, task 3).

    Each run learns a multinomial logistic regression on a random 80 % of the training set,
    stratified by class. The remaining 20 % choose the strength of its penalty. Features are
    standardised by the training set.

    Args:
        train: ``(N, features)``; further dimensions are flattened.
        y_train: ``(N,)`` integer or string labels of at least two classes, with at least two
            samples each.
        test: ``(M, features)``.
        y_test: ``(M,)`` labels.
        runs: number of runs; the thesis has 20.
        seed: the same seed gives the same runs.

    Raises:
        DataError: for arrays that do not fit together or are not finite, or too few samples.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(100, 2))
    >>> linear_probe(x, x[:, 0] > 0, x, x[:, 0] > 0, runs=2).mean > 0.9
    True
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    check_integer("runs", runs, minimum=1)
    x, y = _labelled("train", train, y_train)
    x_test, y_test = _labelled("test", test, y_test)
    if x.shape[1] != x_test.shape[1]:
        raise DataError(
            f"train has {x.shape[1]} features and test {x_test.shape[1]}: expected the same"
        )
    counts = np.unique_counts(y).counts
    if len(counts) < 2 or counts.min() < 2:
        raise DataError(
            "y_train has one class, or a class of one sample: expected at least two of each of "
            "at least two classes"
        )
    accuracies = []
    for run in range(runs):
        state = derive_seed(seed, "linear_probe", run) % 2**32
        size = max(len(counts), round(SHARE * len(x)))
        size = min(size, len(x) - len(counts))
        parts = train_test_split(x, y, train_size=size, stratify=y, random_state=state)
        best, best_score = None, -1.0
        for strength in PENALTIES:
            probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
            probe.fit(parts[0], parts[2])
            score = float(probe.score(parts[1], parts[3]))
            if score > best_score:
                best, best_score = probe, score
        assert best is not None
        accuracies.append(float(best.score(x_test, y_test)))
    return Probe(tuple(accuracies))


@dataclass(frozen=True)
class Clustering:
    """How clusters agree with classes, in each run.

    Attributes:
        accuracies: shares of samples whose class is the most frequent one of their cluster, in
            (0, 1].
        nmi: normalised mutual information of clusters and classes, in [0, 1].
        ari: adjusted Rand index, at most 1, about 0 for random clusters.
    """

    accuracies: tuple[float, ...]
    nmi: tuple[float, ...]
    ari: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """The mean accuracy over runs."""
        return float(np.mean(self.accuracies))


def cluster_accuracy(
    x: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    *,
    clusters: int | None = None,
    runs: int = 100,
    metric: Metric | None = None,
    seed: int = 0,
) -> Clustering:
    """Cluster embeddings by k-means, and compare with classes (thesis section 4.4.2, task 4).

    Each cluster stands for its most frequent class. Each run starts from other centres, by
    k-means++. The thesis clusters the embeddings of the training set.

    Args:
        x: ``(N, features)``; further dimensions are flattened.
        y: ``(N,)`` integer or string labels.
        clusters: number of clusters, at most N; None takes the number of classes.
        runs: number of runs; the thesis has 100.
        metric: a metric of the latent space for Riemannian k-means; None is Euclidean.
        seed: the same seed gives the same runs.

    Raises:
        DataError: for arrays that do not fit together or are not finite, or fewer samples than
            clusters.

    >>> found = cluster_accuracy([[0.0], [0.1], [5.0], [5.1]], ["a", "a", "b", "b"], runs=3)
    >>> found.accuracy, found.nmi[0], found.ari[0]
    (1.0, 1.0, 1.0)
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    check_integer("runs", runs, minimum=1)
    rows, labels = _labelled("x", x, y)
    k = len(np.unique(labels)) if clusters is None else clusters
    check_integer("clusters", k, minimum=1)
    if k > len(rows):
        raise DataError(
            f"x has {len(rows)} samples: expected at least one for each of {k} clusters"
        )
    accuracies, nmi, ari = [], [], []
    _, indices = np.unique(labels, return_inverse=True)
    for run in range(runs):
        found = _assign(rows, k, derive_seed(seed, "clusters", run) % 2**32, metric)
        table = np.zeros((k, indices.max() + 1))
        np.add.at(table, (found, indices), 1)
        accuracies.append(float(table.max(1).sum() / len(rows)))
        nmi.append(float(normalized_mutual_info_score(indices, found)))
        ari.append(float(adjusted_rand_score(indices, found)))
    return Clustering(tuple(accuracies), tuple(nmi), tuple(ari))


def _assign(rows: Array, k: int, seed: int, metric: Metric | None) -> Array:
    """Return the cluster of each row."""
    if metric is not None:
        points = as_tensor("x", rows).to(metric.dtype, copy=False)
        labels: Array = kmeans(metric, points.to(metric.device), k, seed=seed).labels.cpu().numpy()
        return labels
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # Fewer different points than clusters: a collapsed representation. Its accuracy says so.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(KMeans(k, n_init=1, random_state=seed).fit_predict(rows))


def _labelled(name: str, x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> tuple[Array, Array]:
    """Return rows of float64 and the names of their classes."""
    rows = as_tensor(name, x).detach().cpu().double()
    if rows.ndim < 2 or not len(rows):
        raise DataError(f"{name} has shape {tuple(rows.shape)}: expected (N, features), N >= 1")
    check_finite(name, rows)
    indices, names = encode_labels(y)
    if len(indices) != len(rows):
        raise DataError(
            f"{name} has {len(rows)} samples and {len(indices)} labels: expected as many labels"
        )
    return rows.flatten(1).numpy(), np.asarray(names)[indices.numpy()]
