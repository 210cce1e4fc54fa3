"""A report as one HTML file without references to other files."""

import base64
import io
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chartae.atomic import write_text
from chartae.augmentation import REAL, Comparison, StudyResult, TrainingSet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Report", "Section", "Table", "versions"]

MARKS = {"helps": "▲", "no clear difference": "·", "hurts": "▼"}


@dataclass(frozen=True, eq=False)
class Section:
    """A figure of a report, with its heading.

    Args:
        title: the heading.
        text: what the figure shows and how to read it.
        figure: the figure.
        alt: a description for readers who cannot see the figure.
    """

    title: str
    text: str
    figure: "Figure"
    alt: str

    @property
    def image(self) -> str:
        """The figure as a PNG in base64."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=150, facecolor="white")
        return base64.b64encode(buffer.getvalue()).decode()


@dataclass(frozen=True)
class Table:
    """A table of a report, with its heading.

    Args:
        title: the heading.
        text: what the table shows and how to read it.
        headings: headings of the columns.
        rows: the cells of each row, as text.
        notes: sentences below the table.
        sortable: True to sort the rows by a column when its heading is clicked.
    """

    title: str
    text: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    sortable: bool = False


@dataclass(frozen=True, eq=False)
class Report:
    """A page with the settings of a run, its results and the files that it wrote.

    Args:
        title: title of the page.
        summary: one or two sentences under the title.
        answers: sentences that answer the questions of the page, by question.
        facts: facts about the run by name: data, sizes, seeds, versions.
        settings: the value of every option.
        study: accuracies, shown as a table with verdicts.
        tables: other tables.
        sections: figures.
        files: a description of each written file, by path.

    >>> html = Report("Digits", "A test.", facts={"data": "none"}).render()
    >>> html[:15], "<h1>Digits</h1>" in html
    ('<!doctype html>', True)
    """

    title: str
    summary: str = ""
    answers: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    study: StudyResult | None = None
    tables: Sequence[Table] = ()
    sections: Sequence[Section] = ()
    files: Mapping[str, str] = field(default_factory=dict)

    def render(self) -> str:
        """Return the page as HTML."""
        from jinja2 import Environment, PackageLoader, StrictUndefined

        environment = Environment(
            loader=PackageLoader("chartae.report", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        table = [] if self.study is None else _rows(self.study)
        return environment.get_template("report.html.jinja").render(
            report=self,
            table=table,
            verdicts=[] if self.study is None else _verdicts(self.study, table),
            written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )

    def save(self, path: str | Path) -> None:
        """Write the page to ``path``, atomically."""
        write_text(path, self.render())


def versions() -> str:
    """Return the versions of the libraries that affect results, in one line."""
    names = ("chartae", "torch", "scikit-learn", "imbalanced-learn", "numpy")
    found = [f"Python {platform.python_version()}", *(f"{name} {_version(name)}" for name in names)]
    return ", ".join(found)


def _version(name: str) -> str:
    if name == "chartae":
        from chartae import __version__

        return __version__
    return version(name)


# --- the study's table and verdicts -------------------------------------------------------------


@dataclass(frozen=True)
class _Cell:
    text: str
    best: bool
    comparison: Comparison | None

    @property
    def mark(self) -> str:
        return MARKS[self.comparison.verdict] if self.comparison else ""

    @property
    def note(self) -> str:
        return _interval(self.comparison) if self.comparison else ""

    @property
    def kind(self) -> str:
        return self.comparison.verdict.split()[0] if self.comparison else ""


def _cell(study: StudyResult, row: int, column: int, text: str) -> _Cell:
    training_set, classifier = study.training_sets[row], study.classifiers[column]
    comparison = None if training_set == REAL else study.compare(training_set, classifier)
    return _Cell(text, row == study.mean[:, column].argmax(), comparison)


def _rows(study: StudyResult) -> list[tuple[TrainingSet, list[_Cell]]]:
    """Return the rows of the table."""
    return [
        (
            training_set,
            [_cell(study, row, column, text) for column, text in enumerate(cells[2:])],
        )
        for row, (training_set, cells) in enumerate(
            zip(study.training_sets, study.cells(), strict=True)
        )
    ]


@dataclass(frozen=True)
class _Verdict:
    """The effect on a classifier of adding each method's data to the real data."""

    classifier: str
    added: list[tuple[str, _Cell]]


def _verdicts(study: StudyResult, table: list[tuple[TrainingSet, list[_Cell]]]) -> list[_Verdict]:
    return [
        _Verdict(
            classifier,
            [
                (row.method, cells[column])
                for row, cells in table
                if row.method is not None and row.part == "real + synthetic"
            ],
        )
        for column, classifier in enumerate(study.classifiers)
    ]


def _interval(comparison: Comparison) -> str:
    difference, margin = 100 * comparison.difference, 100 * comparison.margin
    if margin == float("inf"):
        return f"{_points(difference)} points; too few draws for a verdict"
    low, high = _points(difference - margin), _points(difference + margin)
    return f"{_points(difference)} points, 95 % interval {low} to {high}"


def _points(value: float) -> str:
    """Return a signed number with a typographic minus sign, and zero without a sign."""
    return f"{round(value, 1):+.1f}".replace("+0.0", "0.0").replace("-0.0", "0.0").replace("-", "−")
