"""How close the distribution of generated data is to that of real data, in features of both.

Features are vectors: pixels, an embedding, or a layer of a network; see
`chartae.evaluation.features`. All functions take real data first. Distances between all pairs are
computed in blocks: 10,000 samples of each need less than 200 MB in addition to the features.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from chartae.checks import check_finite, check_integer, check_number
from chartae.data.arrays import as_tensor
from chartae.errors import DataError
from chartae.randomness import derive_seed, make_generator

__all__ = [
    "PRD",
    "DensityCoverage",
    "FrechetInfinity",
    "KernelDistance",
    "PrecisionRecall",
    "density_coverage",
    "frechet_distance",
    "frechet_distance_infinity",
    "inception_score",
    "kernel_distance",
    "prd",
    "precision_recall",
    "subset_kernel_distance",
]

Array = NDArray[Any]

PAIRS = 2**20
"""Largest number of pairs of samples in a block."""
ROUNDING = 1e-12
"""Squared distances whose difference is a smaller share of the squared norms are equal."""
LARGEST = 1e50
"""Largest feature: the cubes of products of larger ones overflow."""
GROUPS = 10
"""Number of groups of samples of which the jackknife leaves out one at a time."""
SLOPES = 1001
"""Number of points of a PRD curve (Sajjadi et al., 2018)."""


# --- distances between distributions -------------------------------------------------------------


def frechet_distance(real: ArrayLike | Tensor, fake: ArrayLike | Tensor) -> float:
    r"""Return the Frechet distance of normals fitted to two sets of features, at least 0.

    .. math:: \|\mu_1 - \mu_2\|^2
        + \mathrm{tr}\left(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2}\right)

    With the features of an Inception network it is the FID (Heusel et al., 2017). It is 0 if means
    and covariances are equal. It is biased upwards, by an amount that decreases with the number of
    samples and increases with the number of features; below one sample per feature the bias can be
    larger than the distance. So sets of equal sizes should be compared, of more samples than
    features. `frechet_distance_infinity` removes the bias; `kernel_distance` has none and should be
    preferred for small sets.

    The distance to the model's own reconstructions judges the sampler without the decoder, whose
    blur both sets have (thesis section 3.5.1)::

        features = train_classifier(x_train, y_train).features
        frechet_distance(features(x_test), features(samples))
        frechet_distance(features(model.reconstruct(x_test)), features(samples))

    For sequences ``(N, T, ...)``, the features of the visits side by side compare whole courses,
    where those of the visits one by one compare frames and ignore time::

        visits = [features(x[:, t]) for t in range(x.shape[1])]
        whole, frames = torch.cat(visits, 1), torch.cat(visits)

    Args:
        real: ``(N, ...)``; features of real data. Further dimensions are flattened.
        fake: ``(M, ...)``, features of generated data, of the same size.

    Raises:
        DataError: for fewer than 2 samples, values that are not finite, or different sizes.

    >>> x = np.random.default_rng(0).normal(size=(1000, 3))
    >>> round(frechet_distance(x, x + 1.0), 6)
    3.0
    """
    return _frechet(*_both(real, fake))


def _frechet(a: Tensor, b: Tensor) -> float:
    means = a.mean(0), b.mean(0)
    # tr (S1 S2)^1/2 is the sum of singular values of the product of roots S1 = A A^T, S2 = B B^T.
    roots = [
        _smaller((values - mean).mT / (len(values) - 1) ** 0.5)
        for values, mean in zip((a, b), means, strict=True)
    ]
    cross = torch.linalg.svdvals(roots[0].mT @ roots[1]).sum()
    traces = sum(root.square().sum() for root in roots)
    return max(0.0, float((means[0] - means[1]).square().sum() + traces - 2.0 * cross))


def _smaller(root: Tensor) -> Tensor:
    """Return a root ``(d, min(d, n))`` of the same covariance as a root ``(d, n)``."""
    if root.shape[1] <= root.shape[0]:
        return root
    triangle: Tensor = torch.linalg.qr(root.mT, mode="r").R
    return triangle.mT


@dataclass(frozen=True)
class FrechetInfinity:
    """A Frechet distance without the bias of few samples.

    Attributes:
        distance: the distance extrapolated to infinitely many samples. It is negative by chance if
            the distributions are equal.
        standard_error: its standard error over data sets of the same sizes, at least 0.
    """

    distance: float
    standard_error: float


def frechet_distance_infinity(
    real: ArrayLike | Tensor, fake: ArrayLike | Tensor, *, num_sizes: int = 5, seed: int = 0
) -> FrechetInfinity:
    r"""Return the Frechet distance extrapolated to infinitely many samples.

    With the features of an Inception network it is the :math:`\mathrm{FID}_\infty` (Chong and
    Forsyth, 2020, section 3). The bias of `frechet_distance` is proportional to 1 / n to first
    order, with n the number of samples, and depends on the model. Distances of random subsets are
    therefore fitted by a line in 1 / n; its intercept at 1 / n = 0 is the result.

    Both sets are divided at random into 1, 2, ... ``num_sizes`` equal parts. The distance at each
    size is the mean over the parts. The paper draws one subset of each of 15 sizes, and keeps the
    real set whole, so its bias remains. Means over disjoint parts vary less: for normals in 10
    to 64 dimensions the standard deviation of the result is .6 to .8 of that by 15 subsets.

    The standard error is that of the jackknife, which repeats the extrapolation without each tenth
    of the samples. It is rather too large: for the same normals 1.0 to 1.5 times the true one.
    The regression's own standard error would be too small, as subsets share samples.

    The time is that of ``11 num_sizes (num_sizes + 1) / 2`` distances. For features as many as
    Inception's 2,048, ``num_sizes=2`` saves most of it.

    Args:
        real: ``(N, ...)``; features of real data. Further dimensions are flattened.
        fake: ``(M, ...)``, features of generated data, of the same size.
        num_sizes: number of sizes of subsets, at least 2.
        seed: seed of the parts.

    Raises:
        DataError: for values that are not finite, different sizes, or fewer samples in the smallest
            part than features + 1, or than 10: there the bias is not proportional to 1 / n.
        ConfigurationError: for fewer than 2 sizes.

    >>> rng = np.random.default_rng(0)
    >>> real, fake = rng.normal(size=(2, 200, 30))  # the same distribution
    >>> round(frechet_distance(real, fake), 1)
    2.8
    >>> result = frechet_distance_infinity(real, fake)
    >>> abs(result.distance) < 2.0 * result.standard_error
    True
    """
    check_integer("num_sizes", num_sizes, minimum=2)
    generator = make_generator(check_integer("seed", seed, minimum=0), "frechet_distance_infinity")
    pair = _both(real, fake)
    least = num_sizes * max(pair[0].shape[1] + 1, GROUPS)
    for name, values in zip(("real", "fake"), pair, strict=True):
        if len(values) < least:
            raise DataError(
                f"{name} has {len(values)} samples of {values.shape[1]} features: expected at "
                f"least {least} for num_sizes={num_sizes}"
            )
    a, b = (x[torch.randperm(len(x), generator=generator).to(x.device)] for x in pair)
    without = [_extrapolated(a, b, num_sizes, group) for group in range(GROUPS)]
    error = math.sqrt(GROUPS - 1) * float(np.std(without))
    return FrechetInfinity(_extrapolated(a, b, num_sizes, None), error)


def _extrapolated(a: Tensor, b: Tensor, num_sizes: int, left_out: int | None) -> float:
    """Return the intercept, without one of the groups of samples."""
    sizes = range(1, num_sizes + 1)  # in parts: 1 / n is proportional to it
    distances = [
        sum(
            _frechet(*(x[_part(len(x), count, part, left_out)] for x in (a, b)))
            for part in range(count)
        )
        / count
        for count in sizes
    ]
    return float(np.polyfit(sizes, distances, 1)[-1])


def _part(samples: int, count: int, part: int, left_out: int | None) -> Tensor:
    """Return the indices of one of ``count`` parts; leaving out a group changes no other index."""
    index = torch.arange(part, samples, count)
    return index if left_out is None else index[index * GROUPS // samples != left_out]


def kernel_distance(real: ArrayLike | Tensor, fake: ArrayLike | Tensor) -> float:
    r"""Return the unbiased squared maximum mean discrepancy of two sets of features.

    With the features of an Inception network it is the KID (Binkowski et al., 2018, section 4). The
    kernel is a polynomial, with d the number of features:

    .. math:: k(x, y) = (x^T y / d + 1)^3

    All pairs are used. For equal distributions the expectation is 0 at any number of samples, so
    values can be negative.

    Args:
        real: ``(N, ...)``, N at least 2; features of real data. Further dimensions are flattened.
        fake: ``(M, ...)``, M at least 2, features of generated data, of the same size.

    Raises:
        DataError: for fewer than 2 samples, values that are not finite, or different sizes.

    >>> kernel_distance([[0.0], [0.0]], [[1.0], [1.0]])  # 1 + 8 - 2
    7.0
    """
    a, b = _both(real, fake)
    return _unbiased_mmd(a, b)


@dataclass(frozen=True)
class KernelDistance:
    """A kernel distance over random subsets.

    Attributes:
        mean: the mean over the subsets.
        std: their standard deviation.
    """

    mean: float
    std: float


def subset_kernel_distance(
    real: ArrayLike | Tensor,
    fake: ArrayLike | Tensor,
    *,
    num_subsets: int = 100,
    size: int = 1000,
    seed: int = 0,
) -> KernelDistance:
    """Return mean and standard deviation of `kernel_distance` over random subsets.

    Published tables use 100 subsets of 1,000 samples (Binkowski et al., 2018).

    Args:
        real: as in `kernel_distance`.
        fake: as in `kernel_distance`.
        num_subsets: number of subsets, at least 2.
        size: number of samples of each set in a subset, at least 2, without repetition.
        seed: seed of the subsets.

    Raises:
        DataError: as in `kernel_distance`, or for fewer than ``size`` samples.

    >>> x = np.random.default_rng(0).normal(size=(2, 300, 3))
    >>> result = subset_kernel_distance(*x, size=100)
    >>> abs(result.mean) < 2 * result.std
    True
    """
    check_integer("num_subsets", num_subsets, minimum=2)
    check_integer("size", size, minimum=2)
    a, b = _both(real, fake)
    for name, values in (("real", a), ("fake", b)):
        if len(values) < size:
            raise DataError(f"{name} has {len(values)} samples: expected at least size={size}")
    generator = make_generator(check_integer("seed", seed, minimum=0), "subset_kernel_distance")

    def subset(values: Tensor) -> Tensor:
        return values[torch.randperm(len(values), generator=generator)[:size].to(values.device)]

    distances = [_unbiased_mmd(subset(a), subset(b)) for _ in range(num_subsets)]
    return KernelDistance(float(np.mean(distances)), float(np.std(distances, ddof=1)))


def _unbiased_mmd(a: Tensor, b: Tensor) -> float:
    within = [
        (_kernel_sum(x, x) - float(_kernel(x.square().sum(1), x).sum())) / (len(x) * (len(x) - 1))
        for x in (a, b)
    ]
    return sum(within) - 2.0 * _kernel_sum(a, b) / (len(a) * len(b))


def _kernel_sum(a: Tensor, b: Tensor) -> float:
    return sum(float(_kernel(a[rows] @ b.mT, b).sum()) for rows in _blocks(a, b))


def _kernel(products: Tensor, features: Tensor) -> Tensor:
    """Return values of the kernel from scalar products, in their place."""
    return products.div_(features.shape[1]).add_(1.0).pow_(3)


# --- classes of samples --------------------------------------------------------------------------


def inception_score(probabilities: ArrayLike | Tensor, splits: int = 1) -> float:
    r"""Return the inception score of a classifier's probabilities, in [1, C].

    Salimans et al. (2016), section 4:

    .. math:: \exp\, E_x\, KL(p(y|x) \| p(y))

    It is 1 if all samples have the same probabilities, and C if each sample has one certain class
    and all C classes are equally frequent. It does not use real data: neither copies nor a lack of
    variety within a class lower it. Small sets have lower scores.

    Args:
        probabilities: ``(n, C)``, each row in [0, 1] with a sum of 1.
        splits: number of consecutive parts of which the mean score is returned; 10 in published
            tables. With more than 1 the score depends on the order of the samples.

    Raises:
        DataError: if rows are not probabilities.
        ConfigurationError: for more ``splits`` than samples.

    >>> inception_score([[1.0, 0.0], [0.0, 1.0]])
    2.0
    """
    p = as_tensor("probabilities", probabilities).double()
    if p.ndim != 2 or p.numel() == 0:
        raise DataError(f"probabilities has shape {tuple(p.shape)}: expected (n, C), not empty")
    check_finite("probabilities", p)
    error = float((p.sum(1) - 1.0).abs().max())
    if float(p.min()) < 0.0 or error > 1e-3:
        raise DataError(
            f"probabilities has a smallest value of {float(p.min()):g} and a row whose sum is "
            f"{error:g} away from 1: expected rows at least 0 with a sum of 1"
        )
    check_integer("splits", splits, minimum=1, maximum=len(p))
    scores = [
        # The mean KL is the entropy of the mean minus the mean entropy.
        (torch.special.entr(part.mean(0)).sum() - torch.special.entr(part).sum(1).mean()).exp()
        for part in p.tensor_split(splits)
    ]
    return max(1.0, float(torch.stack(scores).mean()))


# --- precision and recall ------------------------------------------------------------------------


@dataclass(frozen=True)
class PRD:
    """A curve of precision and recall of distributions (Sajjadi et al., 2018).

    Attributes:
        precision: ``(1001,)``, in [0, 1]: how much of the generated data is like real data.
        recall: ``(1001,)``, in [0, 1]: how much of the real data is like generated data. It falls
            along the curve as precision rises.
    """

    precision: Tensor
    recall: Tensor

    def f_score(self, beta: float) -> float:
        """Return the largest F score of the curve; recall counts ``beta`` times as much."""
        check_number("beta", beta, above=0.0)
        weighted = beta**2 * self.precision + self.recall
        scores = (1.0 + beta**2) * self.precision * self.recall / weighted
        return float(scores.nan_to_num(0.0).max())  # 0 / 0 without overlap

    @property
    def f_8(self) -> float:
        """The largest F_8: it weights RECALL, and is low if modes of the real data are missing."""
        return self.f_score(8.0)

    @property
    def f_1_8(self) -> float:
        """The largest F_1/8: it weights PRECISION, and is low if samples are unlike real data."""
        return self.f_score(1.0 / 8.0)


def prd(
    real: ArrayLike | Tensor,
    fake: ArrayLike | Tensor,
    *,
    num_clusters: int = 20,
    runs: int = 10,
    seed: int = 0,
) -> PRD:
    r"""Return precision and recall of distributions as a curve (Sajjadi et al., 2018).

    Features of both sets are pooled and clustered by k-means. With :math:`p` and :math:`q` the
    shares of real and generated data in each cluster, a slope :math:`\lambda` has

    .. math:: \mathrm{precision} = \sum_k \min(\lambda p_k, q_k), \quad
        \mathrm{recall} = \sum_k \min(p_k, q_k / \lambda)

    for the tangents of 1,001 angles in :math:`(0, \pi/2)`. The curve is the mean of ``runs``
    clusterings. The two sets have the same weight in k-means if their sizes differ. The order of
    the samples has no influence. (scikit-learn's mini-batch k-means, as in the published code.)

    Args:
        real: ``(N, ...)``, N at least 2; features of real data. Further dimensions are flattened.
        fake: ``(M, ...)``, M at least 2, features of generated data, of the same size.
        num_clusters: number of clusters, at least 2. Fewer are used if there are fewer distinct
            samples.
        runs: number of clusterings.
        seed: seed of k-means.

    Returns:
        The curve; its ``f_8`` weights recall, its ``f_1_8`` precision.

    Raises:
        DataError: for fewer than 2 samples, values that are not finite, or different sizes.

    >>> x = np.random.default_rng(0).normal(size=(1000, 2)) + 10.0 * np.arange(1000)[:, None] % 20.0
    >>> curve = prd(x, x[::2])  # one of the two modes is missing
    >>> curve.f_8 < 0.6, curve.f_1_8 > 0.9
    (True, True)
    """
    check_integer("num_clusters", num_clusters, minimum=2)
    check_integer("runs", runs, minimum=1)
    check_integer("seed", seed, minimum=0)
    a, b = _both(real, fake)
    pooled = torch.cat([a, b]).cpu().numpy()
    order = np.argsort(_keys(pooled), kind="stable")
    x, is_real = pooled[order], order < len(a)
    x = x - x.mean(0)
    x = (x / (np.abs(x).max() or 1.0)).astype(np.float32)
    count = min(num_clusters, len(np.unique(_keys(x))))
    angles = torch.linspace(1e-6, math.pi / 2.0 - 1e-6, SLOPES, dtype=torch.float64)
    slopes = angles.tan()[:, None]
    precisions = []
    for run in range(runs):
        labels = _cluster(x, is_real, count, derive_seed(seed, "prd", run) % 2**32)
        shares = [np.bincount(labels[part], minlength=count) for part in (is_real, ~is_real)]
        p, q = (torch.from_numpy(share / share.sum()) for share in shares)
        precisions.append(torch.minimum(slopes * p, q).sum(1))
    precision = torch.stack(precisions).mean(0).clamp(max=1.0)
    return PRD(precision, (precision / slopes[:, 0]).clamp(max=1.0))


def _keys(x: Array) -> Array:
    """Return one item of bytes for each row, by which rows can be ordered: ``(n,)``."""
    rows = np.ascontiguousarray(x + 0.0)  # -0.0 becomes 0.0
    return rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))[:, 0]


def _cluster(x: Array, is_real: Array, count: int, seed: int) -> Array:
    """Return the cluster of each row. Both sets have the same weight."""
    from sklearn.cluster import MiniBatchKMeans

    weights = np.where(is_real, 0.5 / is_real.mean(), 0.5 / (~is_real).mean())
    means = MiniBatchKMeans(count, n_init=10, random_state=seed)
    labels: Array = means.fit(x, sample_weight=weights).labels_
    return labels


@dataclass(frozen=True)
class PrecisionRecall:
    """Improved precision and recall (Kynkaanniemi et al., 2019).

    Attributes:
        precision: share of generated data inside the real data's support, in [0, 1].
        recall: share of real data inside the generated data's support, in [0, 1].
    """

    precision: float
    recall: float


def precision_recall(
    real: ArrayLike | Tensor, fake: ArrayLike | Tensor, *, k: int = 3
) -> PrecisionRecall:
    """Return improved precision and recall (Kynkaanniemi et al., 2019, equation 1).

    The support of a set is estimated by balls around its samples, each of which reaches to the
    k-th nearest other sample of the set. Balls are closed. A generator that misses modes has a low
    recall; one that invents modes has a low precision. One outlier with a large ball can raise
    both; see `density_coverage`. Sets should have equal sizes.

    Args:
        real: ``(N, ...)``; features of real data. Further dimensions are flattened.
        fake: ``(M, ...)``, features of generated data, of the same size.
        k: number of neighbours, at least 1.

    Raises:
        DataError: unless both have more than ``k`` samples; for values that are not finite, or
            different sizes.

    >>> real = [[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]]
    >>> precision_recall(real, [[0.5], [0.6], [1.5]], k=1)
    PrecisionRecall(precision=1.0, recall=0.3333333333333333)
    """
    check_integer("k", k, minimum=1)
    a, b = _centred(real, fake, real=k, fake=k)
    return PrecisionRecall(_covered(b, a, k), _covered(a, b, k))


@dataclass(frozen=True)
class DensityCoverage:
    """Density and coverage (Naeem et al., 2020).

    Attributes:
        density: how many balls of real data hold a generated sample, over the k expected, at least
            0; it can be greater than 1.
        coverage: share of real data's balls that hold a generated sample, in [0, 1].
    """

    density: float
    coverage: float


def density_coverage(
    real: ArrayLike | Tensor, fake: ArrayLike | Tensor, *, k: int = 5
) -> DensityCoverage:
    """Return density and coverage (Naeem et al., 2020, equations 2 and 3).

    Both use balls around real samples only, so that outliers of the generated data have no
    influence, and outliers of the real data little. Density replaces precision and coverage recall.
    Balls are closed and reach to the k-th nearest other real sample. For equal distributions the
    expected density is 1, and the expected coverage about 1 - 2^-k for sets of equal sizes.

    Args:
        real: ``(N, ...)``; features of real data. Further dimensions are flattened.
        fake: ``(M, ...)``, M at least 2, features of generated data, of the same size.
        k: number of neighbours, at least 1.

    Raises:
        DataError: unless ``real`` has more than ``k`` samples; for fewer than 2 generated ones, for
            values that are not finite, or different sizes.

    >>> density_coverage([[0.0], [1.0], [2.0], [10.0]], [[0.1], [0.2]], k=1)
    DensityCoverage(density=2.0, coverage=0.5)
    """
    check_integer("k", k, minimum=1)
    a, b = _centred(real, fake, real=k)
    pairs, covered = 0, torch.zeros(len(a), dtype=torch.bool, device=a.device)
    for inside in _inside(b, a, k):
        pairs += int(inside.sum())
        covered |= inside.any(0)
    return DensityCoverage(pairs / (k * len(b)), float(covered.double().mean()))


def _covered(points: Tensor, centres: Tensor, k: int) -> float:
    """Return the share of points inside a ball."""
    return sum(int(inside.any(1).sum()) for inside in _inside(points, centres, k)) / len(points)


def _inside(points: Tensor, centres: Tensor, k: int) -> Iterator[Tensor]:
    """Yield for blocks of points whether each is in the ball of each centre: ``(block, N)``.

    Rounding errors are allowed for, so that ties and duplicates are inside at any size of blocks.
    """
    squares = torch.empty(len(centres), dtype=centres.dtype, device=centres.device)
    for rows, distances in _squared_distances(centres, centres):
        # The nearest of all, at a distance of 0, is the centre itself.
        squares[rows] = distances.topk(k + 1, largest=False).values[:, -1]
    for _, distances in _squared_distances(points, centres, ROUNDING):
        yield distances <= squares


def _squared_distances(
    points: Tensor, centres: Tensor, slack: float = 0.0
) -> Iterator[tuple[slice, Tensor]]:
    """Yield blocks of rows and their squared distances, less a share of the squared norms."""
    norms = centres.square().sum(1)
    for rows in _blocks(points, centres):
        part = points[rows]
        squares = (1.0 - slack) * (part.square().sum(1, keepdim=True) + norms)
        yield rows, squares.addmm_(part, centres.mT, alpha=-2.0).clamp_(min=0.0)


def _blocks(points: Tensor, others: Tensor) -> Iterator[slice]:
    """Yield slices of points, each of which makes at most `PAIRS` pairs with the others.

    Users keep nothing that they allocate for a block: small tensors between large ones would
    fragment the memory.
    """
    size = max(1, PAIRS // len(others))
    return (slice(start, start + size) for start in range(0, len(points), size))


# --- arguments -----------------------------------------------------------------------------------


def _centred(
    real: ArrayLike | Tensor, fake: ArrayLike | Tensor, /, **neighbours: int
) -> tuple[Tensor, Tensor]:
    """Return both less the mean of the real ones, which lowers rounding errors of distances.

    Args:
        real: features.
        fake: features.
        neighbours: the numbers of neighbours that are looked for in ``real`` and in ``fake``.
    """
    a, b = _both(real, fake)
    sizes = {"real": len(a), "fake": len(b)}
    for name, k in neighbours.items():
        if sizes[name] <= k:
            raise DataError(
                f"{name} has {sizes[name]} samples: expected more than k={k}, the number of "
                "neighbours"
            )
    mean = a.mean(0)
    return a - mean, b - mean


def _both(real: ArrayLike | Tensor, fake: ArrayLike | Tensor) -> tuple[Tensor, Tensor]:
    a, b = _features("real", real), _features("fake", fake)
    if a.shape[1] != b.shape[1]:
        raise DataError(f"real has {a.shape[1]} features and fake {b.shape[1]}: expected the same")
    return a, b.to(a.device)


def _features(name: str, value: ArrayLike | Tensor) -> Tensor:
    features = as_tensor(name, value).double()
    if features.ndim < 2 or len(features) < 2:
        raise DataError(f"{name} has shape {tuple(features.shape)}: expected (N, ...), N >= 2")
    check_finite(name, features)
    if (largest := float(features.abs().max())) > LARGEST:
        raise DataError(f"{name} has a value of {largest:g}: expected at most {LARGEST:g}")
    return features.flatten(1)
