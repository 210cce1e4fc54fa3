"""The result of an augmentation study: figures, paired comparisons, a verdict, tables."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from chartae.checks import check_choice, check_integer
from chartae.data import ArrayDataset
from chartae.errors import ConfigurationError
from chartae.evaluation.classification import CLASSIFICATION_FIGURES

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["REAL", "WEIGHTED", "Comparison", "Part", "StudyResult", "TrainingSet"]

Part = Literal["real", "real + synthetic", "synthetic only"]
Effect = Literal["helps", "no clear difference", "hurts"]


@dataclass(frozen=True)
class TrainingSet:
    """A training set of the classifiers.

    Attributes:
        part: whether it has real examples, synthetic ones, or both.
        method: the method of the synthetic examples, or of two methods, as in ``"transforms &
            rhvae"``. For real examples alone None, or ``"class weights"`` if each class has the
            same total weight.
        number: how many synthetic examples: ``"200"`` per class, ``"x5"`` times the size, or
            ``"balance"``.
    """

    part: Part
    method: str | None = None
    number: str | None = None

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that make its synthetic examples."""
        return () if self.number is None else tuple(str(self.method).split(" & "))

    def __str__(self) -> str:
        if self.method is None:
            return self.part
        number = "" if self.number is None else f", {self.number}"
        return f"{self.part} ({self.method}{number})"


REAL = TrainingSet("real")
"""Real examples alone."""
WEIGHTED = TrainingSet("real", "class weights")
"""Real examples, of which those of each class have the same total weight."""
FEWEST_JUDGES = 200
"""With fewer validation examples, over all repeats, the validation set does not choose."""
FEWEST_REPEATS = 3
"""With fewer repeats no difference is called clear: two draws too easily agree by chance."""
TOLERANCE = 0.02
"""A synthetic set stands in for the real one if it loses less than this."""
REVEALING = 0.6
"""From this area under the curve on, samples are said to reveal members of the training set."""


@dataclass(frozen=True)
class Comparison:
    """The difference of a figure between two training sets, paired over repeats.

    Attributes:
        difference: mean difference.
        margin: half the width of its 95 % confidence interval (Student's t), simultaneous for all
            ``comparisons`` (Bonferroni); infinite for fewer than 3 repeats.
        comparisons: number of comparisons that were made together.
    """

    difference: float
    margin: float
    comparisons: int = 1

    @property
    def effect(self) -> Effect:
        """Whether the interval is above zero (helps), below zero (hurts), or contains zero."""
        if self.difference > self.margin:
            return "helps"
        return "hurts" if self.difference < -self.margin else "no clear difference"

    def __str__(self) -> str:
        """The difference in points, with its interval."""
        text = _points(self.difference)
        if not np.isfinite(self.margin):
            return f"{text} points; too few draws for an interval"
        if self.margin > 1.0:  # wider than all possible differences
            return f"{text} points; the draws differ too much for an interval"
        low, high = _points(self.difference - self.margin), _points(self.difference + self.margin)
        return f"{text} points, 95 % interval {low} to {high}"


@dataclass(frozen=True, eq=False)
class StudyResult:
    """The figures of an `augmentation_study`.

    Attributes:
        training_sets: the rows: `REAL`, `WEIGHTED` if classes are unbalanced, then those of the
            methods.
        classifiers: the columns.
        figures: for ``"validation"``, ``"test"`` and each further cohort, arrays ``(training sets,
            classifiers, repeats)`` by figure (`CLASSIFICATION_FIGURES`); NaN for an AUC that cannot
            be computed.
        tuned: for each classifier, the hyper-parameters chosen on the real data of each repeat.
        quality: for each method, arrays ``(repeats,)``: ``"precision"`` and ``"recall"`` of its
            samples, the ``"distance_ratio"`` to training data against that of test data, the share
            of exact ``"copies"``, the ``"membership_auc"``, and ``"gan_test"``, the share of
            samples to which classifiers of real data give their label.
        left_out: the methods that could not make samples, with the reason.
        samples: of the first repeat, the training set under ``"real"``, and the synthetic sets by
            method.
        settings: the settings of the study.
    """

    training_sets: tuple[TrainingSet, ...]
    classifiers: tuple[str, ...]
    figures: Mapping[str, Mapping[str, NDArray[np.float64]]]
    tuned: Mapping[str, Sequence[Mapping[str, Any]]]
    settings: Mapping[str, Any]
    quality: Mapping[str, Mapping[str, NDArray[np.float64]]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    samples: Mapping[str, ArrayDataset] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The figure that is compared, a name of `CLASSIFICATION_FIGURES`."""
        return str(self.settings["metric"])

    @property
    def title(self) -> str:
        """What the metric is called in a sentence."""
        return CLASSIFICATION_FIGURES[self.metric]

    @property
    def score(self) -> NDArray[np.float64]:
        """The metric on the test set, ``(training sets, classifiers, repeats)``."""
        return self.figures["test"][self.metric]

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the methods that make samples, combinations included."""
        found = (s.method for s in self.training_sets if s.part == "real + synthetic")
        return tuple(dict.fromkeys(name for name in found if name is not None))

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of the metric over repeats, ``(training sets, classifiers)``."""
        mean: NDArray[np.float64] = self.score.mean(-1)
        return mean

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Standard deviation over repeats, ``(training sets, classifiers)``; NaN with only one."""
        if self.score.shape[-1] < 2:
            return np.full(self.score.shape[:2], np.nan)
        deviation: NDArray[np.float64] = self.score.std(-1, ddof=1)
        return deviation

    def scores(
        self,
        training_set: TrainingSet,
        classifier: str,
        *,
        cohort: str = "test",
        metric: str | None = None,
    ) -> NDArray[np.float64]:
        """Return a figure of every repeat, ``(repeats,)``; by default the metric on the test set.

        Args:
            training_set: one of the study; its number may be None if the study has only one.
            classifier: one of the study.
            cohort: the held-out data: ``"test"``, ``"validation"``, or a further cohort.
            metric: a name of `CLASSIFICATION_FIGURES`.

        Raises:
            ConfigurationError: for a name that the study does not have.
        """
        check_choice("classifier", classifier, self.classifiers)
        check_choice("cohort", cohort, self.figures)
        check_choice("metric", metric or self.metric, CLASSIFICATION_FIGURES)
        values = self.figures[cohort][metric or self.metric]
        row = self._row(training_set)
        scores: NDArray[np.float64] = values[row, self.classifiers.index(classifier)]
        return scores

    def _row(self, training_set: TrainingSet) -> int:
        """Return the index of a training set; without a number, of the only one of its method."""
        same = [
            row
            for row, one in enumerate(self.training_sets)
            if (one.part, one.method) == (training_set.part, training_set.method)
            and training_set.number in (None, one.number)
        ]
        if len(same) != 1:
            check_choice("training_set", str(training_set), map(str, self.training_sets))
        return same[0]

    def compare(
        self,
        training_set: TrainingSet,
        classifier: str,
        reference: TrainingSet = REAL,
        *,
        comparisons: int = 1,
        cohort: str = "test",
    ) -> Comparison:
        """Compare a training set with a reference on the same draws; by default real data alone.

        Args:
            training_set: one of the study.
            classifier: one of the study.
            reference: another training set.
            comparisons: number of comparisons whose intervals shall all be right with 95 %.
            cohort: the held-out data.
        """
        check_integer("comparisons", comparisons, minimum=1)
        first = self.scores(training_set, classifier, cohort=cohort)
        return self._comparison(
            first - self.scores(reference, classifier, cohort=cohort), comparisons
        )

    def _comparison(self, differences: NDArray[np.float64], comparisons: int) -> Comparison:
        """Return mean and interval of paired differences ``(repeats,)``.

        If each repeat splits the pool again, its sets overlap with those of the others, and the
        variance over repeats is too small. It is then corrected as by Nadeau and Bengio (2003): to
        1 / repeats is added the ratio of the size of the test set to the rest of the pool. The rest
        is more than the training set if that is a draw of few examples: draws of few examples
        hardly overlap, and need no larger correction.
        """
        from scipy.stats import t

        repeats, mean = len(differences), float(differences.mean())
        if repeats < FEWEST_REPEATS:
            return Comparison(mean, float("inf"), comparisons)
        overlap = 0.0
        if self.settings.get("resplit"):
            tested, pool = self.settings["num_test"], self.settings["num_pool"]
            overlap = tested / (pool - tested)
        error = differences.std(ddof=1) * np.sqrt(1.0 / repeats + overlap)
        quantile = t.ppf(1.0 - 0.025 / comparisons, repeats - 1)
        return Comparison(mean, float(quantile * error), comparisons)

    def best(self, classifier: str) -> TrainingSet:
        """Return the training set with the highest mean on the test set."""
        check_choice("classifier", classifier, self.classifiers)
        return self.training_sets[int(self.mean[:, self.classifiers.index(classifier)].argmax())]

    # --- the verdict --------------------------------------------------------------------------

    @property
    def models(self) -> tuple[str, ...]:
        """The methods that are generative models of chartae."""
        return tuple(self.settings.get("models", ()))

    def uses_model(self, training_set: TrainingSet) -> bool:
        """Whether a training set has samples of a generative model."""
        return any(name in self.models for name in (training_set.method or "").split(" & "))

    @property
    def judge(self) -> str:
        """The cohort that chooses between training sets: ``"validation"`` if it is large enough.

        With fewer than 200 validation examples in all repeats together their choice is mostly
        chance. Then the test set chooses, and intervals are corrected for the number of candidates.
        """
        size = self.settings["num_validation"] * self.settings["repeats"]
        return "validation" if size >= FEWEST_JUDGES else "test"

    def chosen(self, training_sets: Sequence[TrainingSet]) -> tuple[TrainingSet, str]:
        """Return the training set and the classifier with the best mean, as the `judge` sees it.

        Of equal ones it is the first, so that real data come before synthetic ones.

        Raises:
            ConfigurationError: without training sets.
        """
        if not training_sets:
            raise ConfigurationError("training_sets is empty: expected at least one of the study")
        rows = [self._row(one) for one in training_sets]
        means = self.figures[self.judge][self.metric].mean(-1)[rows]
        row, column = np.unravel_index(int(means.argmax()), means.shape)
        return training_sets[int(row)], self.classifiers[int(column)]

    def verdict(self) -> dict[str, str]:
        """Return the answers of the study, by question.

        The best way with a generative model and the best way without one are chosen by the `judge`.
        The test sets compare the two. If validation sets have chosen, that is one comparison, whose
        interval needs no correction; else it is corrected for the number of candidates with a
        model. The other answers correct theirs for the number of classifiers. A classifier that
        fails where the others do not is named: the samples are hardly the cause.
        """
        answers: dict[str, str] = {}
        if not self.models:
            return answers
        added = [s for s in self.training_sets if s.part == "real + synthetic"]
        answers["Do synthetic data help?"] = self._help()
        answers["Do they harm?"] = self._harm([s for s in added if s.method in self.models])
        if failed := self._failed():
            answers["Did a classifier fail?"] = failed
        if combined := [s for s in added if " & " in str(s.method)]:
            answers["Do they add to classic transforms?"] = self._add(combined)
        if any(s.part == "synthetic only" for s in self.training_sets):
            answers["Can they stand in for the real data?"] = self._stand_in()
        if copied := self._copied():
            answers["Are they copies?"] = copied
        return answers

    def _help(self) -> str:
        with_model = [s for s in self.training_sets if self.uses_model(s)]
        without = [s for s in self.training_sets if not self.uses_model(s)]
        (ours, first), (theirs, second) = self.chosen(with_model), self.chosen(without)
        difference = self.scores(ours, first) - self.scores(theirs, second)
        fair = self.judge == "validation"
        found = self._comparison(difference, 1 if fair else len(with_model) * len(self.classifiers))
        answer = {
            "helps": "Yes.",
            "no clear difference": "No clear difference.",
            "hurts": "No: they are clearly worse than the best method without a model.",
        }[found.effect]
        chosen = "validation data" if fair else "test data, because there are few validation data"
        return (
            f"{answer} Best without a model: {second} on {self._name(theirs)}, {self.title} "
            f"{_percent(self._mean(theirs, second))} %. Best with a model: {first} on "
            f"{self._name(ours)}, {_percent(self._mean(ours, first))} %. Difference: {found}"
            f"{_corrected(found)}. Both were chosen on {chosen}."
        )

    def _harm(self, added: Sequence[TrainingSet]) -> str:
        count = len(added) * len(self.classifiers)
        found = {
            (s, name): self.compare(s, name, comparisons=count)
            for s in added
            for name in self.classifiers
        }
        harmed = {pair: of for pair, of in found.items() if of.effect == "hurts"}
        worst, least = min((harmed or found).items(), key=lambda item: item[1].difference)
        what = "largest loss" if least.difference < 0.0 else "smallest gain"
        ending = (
            f"The {what} against real data alone is that of {worst[1]} on {self._name(worst[0])}: "
            f"{least}{_corrected(least)}."
        )
        if not harmed:
            return f"Not clearly, for any classifier. {ending}"
        names = ", ".join(dict.fromkeys(name for _, name in harmed))
        return f"Yes, in {len(harmed)} of {count} comparisons ({names}). {ending}"

    def _failed(self) -> str:
        """Name the classifiers that fail with added examples where the others do not.

        One fails if it loses more than half of its balanced accuracy above chance, and more than
        three standard errors of the difference of two shares of the test set.
        """
        if len(self.classifiers) < 2:
            return ""
        scores = self.figures["test"]["balanced_accuracy"]
        added = [s for s in self.training_sets if s.part == "real + synthetic"]
        real = scores[self._row(REAL)]
        lost = real - scores[[self._row(s) for s in added]]
        chance = 1.0 / len(self.settings["class_names"])
        noise = 3.0 * np.sqrt(0.5 / self.settings["num_test"])
        failed = lost > np.maximum(0.5 * (real - chance), noise)
        failed &= failed.sum(1, keepdims=True) == 1
        sentences = []
        for column, name in enumerate(self.classifiers):
            alone = np.where(failed[:, column], lost[:, column], 0.0)
            if not alone.any():
                continue
            row, draw = np.unravel_index(int(alone.argmax()), alone.shape)
            sentences.append(
                f"{name} fails in {alone.any(0).sum()} of {alone.shape[1]} draws: its balanced "
                f"accuracy falls to {_percent(real[column, draw] - alone[row, draw])} % on "
                f"{self._name(added[row])}, from {_percent(real[column, draw])} % on real data "
                "alone. The cause is likely the classifier, not the samples: look at its "
                "hyper-parameters."
            )
        return " ".join(sentences)

    def _add(self, combined: Sequence[TrainingSet]) -> str:
        ours, name = self.chosen(combined)
        theirs = TrainingSet("real + synthetic", "transforms", ours.number)
        count = 1 if self.judge == "validation" else len(combined) * len(self.classifiers)
        found = self.compare(ours, name, theirs, comparisons=count)
        answer = {
            "helps": "Yes.",
            "no clear difference": "No clear difference.",
            "hurts": "No, they take away from them.",
        }[found.effect]
        return (
            f"{answer} {name} on {self._name(ours)}, compared with {self._name(theirs)}: "
            f"{found}{_corrected(found)}."
        )

    def _stand_in(self) -> str:
        only = [s for s in self.training_sets if s.part == "synthetic only" and self.uses_model(s)]
        if not only:
            return "There is no training set of synthetic examples only."
        ours, _ = self.chosen(only)
        count = len(self.classifiers) * (1 if self.judge == "validation" else len(only))
        found = {name: self.compare(ours, name, comparisons=count) for name in self.classifiers}
        fair = [n for n, of in found.items() if of.difference - of.margin > -TOLERANCE]
        worst = min(found, key=lambda name: found[name].difference)
        if len(fair) == len(found):
            answer = f"Yes: no classifier loses {100 * TOLERANCE:.0f} points or more"
        elif fair:
            answer = f"For {len(fair)} of {len(found)} classifiers ({', '.join(fair)})"
        else:
            answer = (
                f"It is not shown: each classifier may lose {100 * TOLERANCE:.0f} points or more"
            )
        return (
            f"{answer}. This compares training on {self._name(ours)} with training on real data. "
            f"The worst is {worst}: {found[worst]}{_corrected(found[worst])}."
        )

    def _copied(self) -> str:
        details, copied, revealing = [], False, False
        for name in self.models:
            of = self.quality.get(name, {})
            if not {"copies", "membership_auc", "distance_ratio"} <= of.keys():
                continue
            share, auc, ratio = (
                float(np.nanmean(of[key])) if np.isfinite(of[key]).any() else float("nan")
                for key in ("copies", "membership_auc", "distance_ratio")
            )
            copied, revealing = copied or share > 0.0, revealing or auc >= REVEALING
            details.append(
                f"{name}: {_percent(share)} % exact copies; samples are {ratio:.2f} times as far "
                f"from training data as test data are; membership AUC {auc:.2f} (0.5 is chance)."
            )
        if not details:
            return ""
        first = "Some are exact copies" if copied else "There are no exact copies"
        link = "and" if copied == revealing else "but"
        how = "reveal" if revealing else "hardly reveal"
        return f"{first}, {link} samples {how} who was in the training set. {' '.join(details)}"

    def _name(self, training_set: TrainingSet) -> str:
        """Return what a training set is called in a sentence."""
        method, number = training_set.method, training_set.number
        size = ""
        if number and self._several_numbers:
            size = f" ({number} of each class)" if number.isdigit() else f" ({number})"
        if training_set.part == "synthetic only":
            return f"{method}{size} alone"
        if number is None:
            return f"real data with {method}" if method else "real data alone"
        return f"real data and {method}{size}"

    @property
    def _several_numbers(self) -> bool:
        """Whether rows of one method differ by the number of their samples."""
        return len({s.number for s in self.training_sets if s.number}) > 1

    def _mean(self, training_set: TrainingSet, classifier: str) -> float:
        return float(self.scores(training_set, classifier).mean())

    # --- tables -------------------------------------------------------------------------------

    def labels(self) -> list[str]:
        """Return the name of each row within its part."""
        return [
            s.part
            if s.method is None
            else f"{s.method}, {s.number}"
            if self._several_numbers and s.number
            else s.method
            for s in self.training_sets
        ]

    def cells(self) -> list[list[str]]:
        """Return the table's rows, ``[training set, method, *the metric in percent]``."""
        return [
            [row.part, label if row.method else "", *map(_spread, means, deviations)]
            for row, label, means, deviations in zip(
                self.training_sets, self.labels(), self.mean, self.deviation, strict=True
            )
        ]

    def to_table(self) -> "Table":
        """Return a rich table, with the best value of every classifier in bold."""
        from rich.table import Table

        repeats = self.score.shape[-1]
        title = f"Test {self.title} (%), mean ± standard deviation over {repeats} draws"
        table = Table("trained on", title=title)
        for name in self.classifiers:
            table.add_column(name, justify="right")
        best, part = self.mean.argmax(0), "real"
        for row, (label, method, *cells) in enumerate(self.cells()):
            if label != part:
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
        """Return one record for each training set, classifier, repeat and held-out set."""
        return [
            {
                "training_set": row.part,
                "method": row.method,
                "synthetic": row.number,
                "classifier": classifier,
                "repeat": repeat,
                "cohort": cohort,
                **{
                    name: None if np.isnan(value) else float(value)
                    for name, values in figures.items()
                    for value in [values[i, j, repeat]]
                },
            }
            for cohort, figures in self.figures.items()
            for i, row in enumerate(self.training_sets)
            for j, classifier in enumerate(self.classifiers)
            for repeat in range(self.score.shape[-1])
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
        """Return settings, verdict, tuned hyper-parameters, quality and `records` as JSON."""
        content = {
            "settings": dict(self.settings),
            "verdict": self.verdict(),
            "tuned": {name: list(map(dict, values)) for name, values in self.tuned.items()},
            "quality": {
                method: {
                    name: [None if np.isnan(v) else float(v) for v in values]
                    for name, values in of.items()
                }
                for method, of in self.quality.items()
            },
            "left_out": dict(self.left_out),
            "records": self.records(),
        }
        return json.dumps(content, indent=1)


def _spread(mean: float, deviation: float) -> str:
    spread = "" if np.isnan(deviation) else f" ± {100 * deviation:.1f}"
    return f"{100 * mean:.1f}{spread}"


def _corrected(found: Comparison) -> str:
    """Return for how many comparisons an interval is corrected, if there is one and it is."""
    if found.comparisons == 1 or not found.margin <= 1.0:
        return ""
    return f", corrected for {found.comparisons} comparisons"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _points(value: float) -> str:
    """Return a difference in points with a typographic minus sign, and zero without a sign."""
    text = f"{100 * value:+.1f}".replace("+0.0", "0.0").replace("-0.0", "0.0")
    return text.replace("-", "−")
