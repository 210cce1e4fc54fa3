"""The result of an augmentation study: accuracies, paired comparisons, tables."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from chartae.checks import check_choice

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["REAL", "Comparison", "Part", "StudyResult", "TrainingSet"]

Part = Literal["real", "real + synthetic", "synthetic only"]
Verdict = Literal["helps", "no clear difference", "hurts"]


@dataclass(frozen=True)
class TrainingSet:
    """A training set of the classifiers: real examples, synthetic ones of a method, or both."""

    part: Part
    method: str | None = None

    def __str__(self) -> str:
        return self.part if self.method is None else f"{self.part} ({self.method})"


REAL = TrainingSet("real")

FEWEST_REPEATS = 3
"""With fewer repeats no difference is called clear: two draws too easily agree by chance."""


@dataclass(frozen=True)
class Comparison:
    """The difference of accuracy of two training sets, paired over repeats.

    Attributes:
        difference: mean difference of accuracy.
        margin: half the width of its 95 % confidence interval (Student's t); infinite
            for fewer than 3 repeats.
    """

    difference: float
    margin: float

    @property
    def verdict(self) -> Verdict:
        """Whether the interval is above zero (helps), below zero (hurts), or contains zero."""
        if self.difference > self.margin:
            return "helps"
        return "hurts" if self.difference < -self.margin else "no clear difference"


@dataclass(frozen=True, eq=False)
class StudyResult:
    """The accuracies of an `augmentation_study`.

    Attributes:
        training_sets: the rows: `REAL`, then two for each method.
        classifiers: the columns.
        accuracy: ``(training sets, classifiers, repeats)``, on the test set.
        tuned: for each classifier, the hyper-parameters chosen on the real data of each repeat.
        settings: the settings of the study.
    """

    training_sets: tuple[TrainingSet, ...]
    classifiers: tuple[str, ...]
    accuracy: NDArray[np.float64]
    tuned: Mapping[str, Sequence[Mapping[str, Any]]]
    settings: Mapping[str, Any]

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the methods compared."""
        return tuple(dict.fromkeys(s.method for s in self.training_sets if s.method is not None))

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean accuracy over repeats, ``(training sets, classifiers)``."""
        mean: NDArray[np.float64] = self.accuracy.mean(-1)
        return mean

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Standard deviation over repeats, ``(training sets, classifiers)``; NaN with only one."""
        if self.accuracy.shape[-1] < 2:
            return np.full(self.accuracy.shape[:2], np.nan)
        deviation: NDArray[np.float64] = self.accuracy.std(-1, ddof=1)
        return deviation

    def scores(self, training_set: TrainingSet, classifier: str) -> NDArray[np.float64]:
        """Return the accuracy of every repeat, ``(repeats,)``.

        Raises:
            ConfigurationError: for a classifier or training set that the study does not have.
        """
        check_choice("classifier", classifier, self.classifiers)
        check_choice("training_set", str(training_set), map(str, self.training_sets))
        row = self.training_sets.index(training_set)
        scores: NDArray[np.float64] = self.accuracy[row, self.classifiers.index(classifier)]
        return scores

    def compare(
        self, training_set: TrainingSet, classifier: str, reference: TrainingSet = REAL
    ) -> Comparison:
        """Compare a training set with a reference on the same draws; by default real data alone."""
        from scipy.stats import t

        differences = self.scores(training_set, classifier) - self.scores(reference, classifier)
        repeats = len(differences)
        if repeats < FEWEST_REPEATS:
            return Comparison(float(differences.mean()), float("inf"))
        error = differences.std(ddof=1) / np.sqrt(repeats)
        return Comparison(float(differences.mean()), float(t.ppf(0.975, repeats - 1) * error))

    def best(self, classifier: str) -> TrainingSet:
        """Return the training set with the highest mean accuracy."""
        check_choice("classifier", classifier, self.classifiers)
        return self.training_sets[int(self.mean[:, self.classifiers.index(classifier)].argmax())]

    # --- tables -------------------------------------------------------------------------------

    def cells(self) -> list[list[str]]:
        """Return the table's rows, ``[training set, method, *accuracies in percent]``."""
        return [
            [row.part, row.method or "", *map(_percent, means, deviations)]
            for row, means, deviations in zip(
                self.training_sets, self.mean, self.deviation, strict=True
            )
        ]

    def to_table(self) -> "Table":
        """Return a rich table, with the best value of every classifier in bold."""
        from rich.table import Table

        repeats = self.accuracy.shape[-1]
        title = f"Test accuracy (%), mean ± standard deviation over {repeats} draws"
        table = Table("trained on", title=title)
        for name in self.classifiers:
            table.add_column(name, justify="right")
        best, part = self.mean.argmax(0), None
        for row, (label, method, *cells) in enumerate(self.cells()):
            if method and label != part:
                table.add_section()
                table.add_row(label)
            part = label
            shown = [f"[bold]{c}[/]" if row == b else c for c, b in zip(cells, best, strict=True)]
            table.add_row(f"  {method}" if method else label, *shown)
        return table

    def to_markdown(self) -> str:
        """Return the table in Markdown, with the best value of every classifier in bold."""
        best = self.mean.argmax(0)
        lines = [["training set", "method", *self.classifiers]]
        lines += [["---", "---", *["---:"] * len(self.classifiers)]]
        for row, cells in enumerate(self.cells()):
            shown = [f"**{c}**" if row == b else c for c, b in zip(cells[2:], best, strict=True)]
            lines.append([*cells[:2], *shown])
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def records(self) -> list[dict[str, Any]]:
        """Return one record for each training set, classifier and repeat."""
        return [
            {
                "training_set": row.part,
                "method": row.method,
                "classifier": classifier,
                "repeat": repeat,
                "accuracy": float(accuracy),
            }
            for row, block in zip(self.training_sets, self.accuracy, strict=True)
            for classifier, scores in zip(self.classifiers, block, strict=True)
            for repeat, accuracy in enumerate(scores)
        ]

    def to_csv(self) -> str:
        """Return the `records` as comma-separated values with a header."""
        text = io.StringIO()
        records = self.records()
        writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        return text.getvalue()

    def to_json(self) -> str:
        """Return settings, tuned hyper-parameters and `records` as JSON."""
        content = {
            "settings": dict(self.settings),
            "tuned": {name: list(map(dict, values)) for name, values in self.tuned.items()},
            "records": self.records(),
        }
        return json.dumps(content, indent=1)


def _percent(mean: float, deviation: float) -> str:
    spread = "" if np.isnan(deviation) else f" ± {100 * deviation:.1f}"
    return f"{100 * mean:.1f}{spread}"
