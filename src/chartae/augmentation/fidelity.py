"""How synthetic observations of a class compare to its real ones: collapse and copies."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from chartae.data.arrays import takes_arrays
from chartae.evaluation.neighbours import Neighbours, as_rows, nearest

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


class Problem(NamedTuple):
    """A kind of problem of samples: what it is, and what can be done."""

    name: str
    remedy: str


COLLAPSED = Problem(
    f"classes that have collapsed (spread below {LEAST_SPREAD})",
    "scale the data to use their range, or train for more epochs",
)
COPIED = Problem(
    f"classes whose samples are near copies (distance below {LEAST_DISTANCE})",
    "try another sampler, such as normal",
)
GATHERED = Problem(
    "classes whose samples gather around two real examples (a share more than "
    f"{MOST_EXCESS} above the expected one)",
    "train for more epochs, or try another sampler, such as mixture",
)
QUERIES = 1000
"""Largest number of real examples that are compared with all; more hardly change a median."""


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
    def kinds(self) -> tuple[Problem, ...]:
        """The kinds of problems of the samples."""
        present = {
            COLLAPSED: self.spread < LEAST_SPREAD,
            COPIED: self.distance < LEAST_DISTANCE,
            GATHERED: self.concentration - self.expected > MOST_EXCESS,
        }
        return tuple(kind for kind, found in present.items() if found)

    @property
    def problems(self) -> tuple[str, ...]:
        """Problems of the samples, in sentences: collapse, copies, samples around few examples."""
        told = {
            COLLAPSED: f"samples have {self.spread:.0%} of the spread of real examples: the class "
            "has collapsed",
            COPIED: f"samples are {self.distance:.2f} times as far from training examples as "
            "held-out examples: they are near copies",
            GATHERED: f"{self.concentration:.0%} of the samples are nearest to two training "
            f"examples, where {self.expected:.0%} are expected",
        }
        return tuple(f"{told[kind]}; {kind.remedy}" for kind in self.kinds)


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

    def notes(self) -> list[str]:
        """Return a sentence for each kind of problem, with the classes that have it.

        >>> rings = ClassFidelity(0.1, 0.8, 0.4, 0.4)
        >>> Fidelity({"ring": rings, "disk": rings}).notes()[0][:62]
        'classes that have collapsed (spread below 0.25): ring, disk; s'
        """
        classes: dict[Problem, list[str]] = {}
        for name, found in self.items():
            for kind in found.kinds:
                classes.setdefault(kind, []).append(name)
        return [f"{kind.name}: {', '.join(of)}; {kind.remedy}" for kind, of in classes.items()]

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
    """Return observations as rows, and which of the real features were observed."""
    x, observed, (s,) = as_rows(real, {"synthetic": synthetic}, mask)
    return x, s, observed


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


def _neighbours(x: Tensor, s: Tensor, observed: Tensor) -> tuple[Neighbours, Neighbours]:
    """Return the nearest real example of each sample, and the nearest other of each real one."""
    rows = torch.arange(0, len(x), -(-len(x) // QUERIES), device=x.device)
    of_samples = nearest(s, torch.ones_like(s), x, observed)
    return of_samples, nearest(x[rows], observed[rows], x, observed, themselves=rows)


def _top_two(indices: Tensor, count: int) -> float:
    popular = torch.bincount(indices, minlength=count).sort(descending=True).values[:2]
    return int(popular.sum()) / len(indices)
