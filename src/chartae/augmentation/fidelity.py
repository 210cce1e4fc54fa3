"""How synthetic observations of a class compare to its real ones: collapse and copies."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from chartae.checks import check_finite, check_mask, check_shape
from chartae.data.arrays import takes_arrays
from chartae.errors import DataError

__all__ = [
    "LEAST_DISTANCE",
    "LEAST_SPREAD",
    "MOST_EXCESS",
    "ClassFidelity",
    "Fidelity",
    "concentration",
    "distance_ratio",
    "spread_ratio",
]

# Measured on nine small sets of images, with 8 to 40 examples per class. Classes that had not
# collapsed had spreads and distances of at least 0.34; held-out examples have about 1 of each.
# Classes that had collapsed had spreads of at most 0.22.
LEAST_SPREAD = 0.25
"""Smallest `spread_ratio` of a class that has not collapsed."""
LEAST_DISTANCE = 0.25
"""Smallest `distance_ratio` of samples that are not copies."""
MOST_EXCESS = 0.3
"""Largest difference of the two shares of `concentration` for samples that do not gather."""
QUERIES = 1000
"""Largest number of real examples that are compared with all; more hardly change a median."""
PAIRS = 2**22
"""Largest number of distances in memory at once."""


@takes_arrays("real", "synthetic", "mask")
def spread_ratio(real: Tensor, synthetic: Tensor, mask: Tensor | None = None) -> float:
    """Return the spread of synthetic observations, relative to that of real ones.

    Spread is the square root of the variance, averaged over features. The ratio is about 1 for
    samples that vary as much as the data, and 0 for samples that are all equal. Features of vectors
    may have different units. So they are divided by their standard deviation in the real data
    first, here and in the functions below.

    Args:
        real: ``(N, *input_shape)``, N at least 2.
        synthetic: ``(n, *input_shape)``, n at least 2.
        mask: bool, the shape of ``real``, True where a feature was observed.

    Returns:
        The ratio; NaN if the real observations are all equal.

    Raises:
        DataError: if there are too few observations, or their shapes do not match.

    >>> real = torch.tensor([[0.0], [2.0]])
    >>> spread_ratio(real, real / 2 + 5)
    0.5
    """
    return _spread(*_matrices(real, synthetic, mask))


@takes_arrays("real", "synthetic", "mask")
def distance_ratio(real: Tensor, synthetic: Tensor, mask: Tensor | None = None) -> float:
    """Return how far samples are from the training examples, relative to held-out real ones.

    It is the median distance from a sample to the nearest real example, divided by the median
    distance from a real example to the nearest other one. The ratio is about 1 for samples that are
    as new as held-out examples, and 0 for copies. Distances are Euclidean, over the features that
    were observed.

    Args:
        real: ``(N, *input_shape)``, N at least 2: the examples that the samples were learned from.
        synthetic: ``(n, *input_shape)``, n at least 2.
        mask: bool, the shape of ``real``, True where a feature was observed.

    Returns:
        The ratio; NaN if most real examples have a duplicate.

    Raises:
        DataError: if there are too few observations, or their shapes do not match.

    >>> distance_ratio(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.5], [1.5]]))
    0.5
    """
    of_samples, of_real = _neighbours(*_matrices(real, synthetic, mask))
    return _or_nan(of_samples.distances.median() / of_real.distances.median())


@takes_arrays("real", "synthetic", "mask")
def concentration(
    real: Tensor, synthetic: Tensor, mask: Tensor | None = None
) -> tuple[float, float]:
    """Return the share of samples nearest to two real examples, and the expected share.

    Each sample is assigned to the nearest real example. The first share is that of the samples
    assigned to the two real examples with the most samples. The expected share is the same number
    for real examples, each assigned to the nearest other one.

    Args:
        real: ``(N, *input_shape)``, N at least 2: the examples that the samples were learned from.
        synthetic: ``(n, *input_shape)``, n at least 2.
        mask: bool, the shape of ``real``, True where a feature was observed.

    Returns:
        The share and the expected share, in [0, 1].

    Raises:
        DataError: if there are too few observations, or their shapes do not match.

    >>> real = torch.tensor([[0.0], [1.0], [3.0], [7.0], [8.5]])
    >>> concentration(real, torch.tensor([[0.1], [0.2], [0.9], [7.1]]))
    (0.75, 0.6)
    """
    x, s, observed = _matrices(real, synthetic, mask)
    of_samples, of_real = _neighbours(x, s, observed)
    return _top_two(of_samples.indices, len(x)), _top_two(of_real.indices, len(x))


@dataclass(frozen=True)
class ClassFidelity:
    """How the samples of one class compare to its real examples.

    Attributes:
        spread: `spread_ratio`; the best value is about 1.
        distance: `distance_ratio`; the best value is about 1, and 0 means copies.
        concentration: share of samples around two real examples, as in `concentration`.
        expected: the expected share, as in `concentration`.
        warnings: warnings of the library while the class was learned and sampled.
    """

    spread: float
    distance: float
    concentration: float
    expected: float
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        real: Tensor,
        synthetic: Tensor,
        mask: Tensor | None = None,
        warnings: Iterable[str] = (),
    ) -> Self:
        """Compare samples to the real examples of the training set, at least two of each.

        Raises:
            DataError: if there are too few observations, or their shapes do not match.
        """
        x, s, observed = _matrices(real, synthetic, mask)
        of_samples, of_real = _neighbours(x, s, observed)
        return cls(
            _spread(x, s, observed),
            _or_nan(of_samples.distances.median() / of_real.distances.median()),
            _top_two(of_samples.indices, len(x)),
            _top_two(of_real.indices, len(x)),
            tuple(warnings),
        )

    @property
    def problems(self) -> tuple[str, ...]:
        """Problems of the samples, in sentences: collapse, copies, samples around few examples."""
        found = []
        if self.spread < LEAST_SPREAD:
            found.append(
                f"samples have {self.spread:.0%} of the spread of real examples: the class has "
                "collapsed; scale the data to use their range, or train for more epochs"
            )
        if self.distance < LEAST_DISTANCE:
            found.append(
                f"samples are {self.distance:.2f} times as far from training examples as held-out "
                "examples: they are near copies; try another sampler, such as normal"
            )
        if self.concentration - self.expected > MOST_EXCESS:
            found.append(
                f"{self.concentration:.0%} of the samples are nearest to two training examples, "
                f"where {self.expected:.0%} are expected; train for more epochs, or try "
                "another sampler, such as mixture"
            )
        return tuple(found)


@dataclass(frozen=True, repr=False)
class Fidelity(Mapping[str, ClassFidelity]):
    """How the samples of each class compare to its real examples, by class name.

    >>> print(Fidelity({"ring": ClassFidelity(0.1, 0.8, 0.9, 0.4)}))
    class  spread  distance  around two  expected
    ring     0.10      0.80        0.90      0.40
    >>> Fidelity({"ring": ClassFidelity(0.8, 0.9, 0.4, 0.4)}).problems
    {}
    """

    classes: Mapping[str, ClassFidelity]

    HEADINGS: ClassVar = ("class", "spread", "distance", "around two", "expected")

    def __getitem__(self, name: str) -> ClassFidelity:
        return self.classes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.classes)

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def problems(self) -> dict[str, tuple[str, ...]]:
        """Problems of the samples, in sentences, for each class that has any."""
        return {name: found.problems for name, found in self.items() if found.problems}

    def cells(self) -> list[tuple[str, ...]]:
        """Return the rows of the table as text, one per class, with the columns `HEADINGS`."""
        return [
            (name, *(f"{v:.2f}" for v in (c.spread, c.distance, c.concentration, c.expected)))
            for name, c in self.items()
        ]

    def __repr__(self) -> str:
        rows = [self.HEADINGS, *self.cells()]
        first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
        return "\n".join(
            "  ".join(
                [row[0].ljust(first), *(c.rjust(w) for c, w in zip(row[1:], others, strict=True))]
            )
            for row in rows
        )

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values, with None in place of NaN."""
        return {
            name: {k: None if v != v else v for k, v in asdict(found).items()}
            for name, found in self.items()
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Return the figures from the output of `to_json`.

        Raises:
            AttributeError, TypeError: for other values.
        """
        return cls({name: ClassFidelity(**_figures(found)) for name, found in record.items()})


def _figures(record: Mapping[str, Any]) -> dict[str, Any]:
    figures = {k: math.nan if v is None else v for k, v in record.items()}
    return {**figures, "warnings": tuple(record["warnings"])}


# --- arithmetic ---------------------------------------------------------------------------------


def _matrices(
    real: Tensor, synthetic: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return observations as rows of float64, and which of the real features were observed.

    Raises:
        DataError: if there are too few observations, or their shapes do not match.
    """
    check_shape("synthetic", synthetic, ("n", *real.shape[1:]))
    if synthetic.dtype != real.dtype:
        raise DataError(
            f"synthetic has dtype {synthetic.dtype}: expected that of real, {real.dtype}"
        )
    if mask is not None:
        check_mask("mask", mask, real.shape)
        real = real.masked_fill(~mask, 0)
    for name, x in (("real", real), ("synthetic", synthetic)):
        check_finite(name, x)
        if len(x) < 2:
            raise DataError(f"{name} has {len(x)} observation(s): expected at least 2")
    observed = torch.ones_like(real) if mask is None else mask
    x, s, m = (t.detach().double().flatten(1) for t in (real, synthetic.to(real.device), observed))
    # Centred on the real mean, so that small differences of large numbers keep their precision.
    mean = (m * x).sum(0) / m.sum(0).clamp_min(1.0)
    x, s = m * (x - mean), s - mean
    if real.dim() == 2:  # features of vectors may have different units
        deviation = (x.square().sum(0) / m.sum(0).clamp_min(1.0)).sqrt()
        weight = torch.where(deviation > 0.0, 1.0 / deviation, 0.0)
        x, s = x * weight, s * weight
    return x, s, m


def _or_nan(ratio: Tensor) -> float:
    return float(ratio) if ratio.isfinite() else math.nan


def _spread(x: Tensor, s: Tensor, observed: Tensor) -> float:
    ratio = _mean_variance(s, torch.ones_like(s)) / _mean_variance(x, observed)
    return _or_nan(ratio.sqrt())


def _mean_variance(x: Tensor, observed: Tensor) -> Tensor:
    """Return the unbiased variance of rows, averaged over features observed at least twice."""
    count = observed.sum(0)
    known = count > 1
    x, observed, count = x[:, known], observed[:, known], count[known]
    mean = (observed * x).sum(0) / count
    return ((observed * (x - mean).square()).sum(0) / (count - 1)).mean()


class _Neighbours(NamedTuple):
    """The nearest real example of each row."""

    distances: Tensor
    indices: Tensor


def _neighbours(x: Tensor, s: Tensor, observed: Tensor) -> tuple[_Neighbours, _Neighbours]:
    """Return the nearest real example of each sample, and the nearest other of each real one."""
    rows = torch.arange(0, len(x), -(-len(x) // QUERIES), device=x.device)
    of_samples = _nearest(s, torch.ones_like(s), x, observed)
    return of_samples, _nearest(x[rows], observed[rows], x, observed, themselves=rows)


def _nearest(
    a: Tensor, seen_a: Tensor, b: Tensor, seen_b: Tensor, themselves: Tensor | None = None
) -> _Neighbours:
    """Return the nearest row of b for each row of a, except itself if a row is also in b."""
    found = []
    for rows in torch.arange(len(a), device=a.device).split(max(1, PAIRS // len(b))):
        squares = _squares(a[rows], seen_a[rows], b, seen_b)
        if themselves is not None:
            squares.scatter_(1, themselves[rows, None], math.inf)
        found.append(squares.min(1))
    values, indices = (torch.cat(part) for part in zip(*found, strict=True))
    return _Neighbours(values.sqrt(), indices)


def _squares(a: Tensor, seen_a: Tensor, b: Tensor, seen_b: Tensor) -> Tensor:
    """Return mean squared differences of rows over the features that are observed in both.

    Unobserved features are zero. The distance of rows without a common observed feature is
    infinite.
    """
    both = seen_a @ seen_b.mT
    squares = a.square() @ seen_b.mT + seen_a @ b.square().mT - 2.0 * (a @ b.mT)
    # The difference of equal rows is rounding error, below 1e-12 of their squares: set it to 0.
    noise = 1e-12 * (a.square().sum(1)[:, None] + b.square().sum(1))
    squares = torch.where(squares <= noise, 0.0, squares)
    return torch.where(both > 0, squares / both.clamp_min(1.0), math.inf)


def _top_two(indices: Tensor, count: int) -> float:
    popular = torch.bincount(indices, minlength=count).sort(descending=True).values[:2]
    return int(popular.sum()) / len(indices)
