"""A report as one HTML file without references to other files."""

import base64
import io
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chartae.atomic import write_text
from chartae.augmentation import REAL, Comparison, StudyResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Question", "Report", "Section", "Table", "versions"]

NUMBER = re.compile(r"|–|[-−+]?[\d.,]+(e[-+]\d+)?( ?%)?( ± [\d.,]+(e[-+]\d+)?)?( of \d+)?")
"""The text of a cell that is a number, or missing."""
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
    def inches(self) -> str:
        """The width of the figure, in which its letters are as large as in a text."""
        return f"{self.figure.get_figwidth():.3g}"

    @property
    def image(self) -> str:
        """The figure as a PNG in base64."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=150, facecolor="white")
        return base64.b64encode(buffer.getvalue()).decode()


@dataclass(frozen=True)
class Question:
    """A picture of a quiz.

    Args:
        image: the picture as a PNG in base64.
        real: whether it is real.
    """

    image: str
    real: bool


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
        folded: True to show the table only after a click.
    """

    title: str
    text: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    sortable: bool = False
    folded: bool = False

    @property
    def textual(self) -> tuple[bool, ...]:
        """Whether each column has cells of text; numbers are aligned on the right.

        >>> Table("", "", ("x", "y"), [("1.5 ± 0.1", "ten"), ("–", "1e-05")]).textual
        (False, True)
        """
        columns = zip(*self.rows, strict=True) if self.rows else [()] * len(self.headings)
        return tuple(not all(map(NUMBER.fullmatch, cells)) for cells in columns)


@dataclass(frozen=True, eq=False)
class Report:
    """A page with the settings of a run, its results and the files that it wrote.

    Args:
        title: title of the page.
        summary: one or two sentences under the title.
        answers: sentences that answer the questions of the page, by question.
        facts: facts about the run by name: data, sizes, seeds, versions.
        settings: the value of every option.
        study: figures of classifiers, shown as a table with comparisons.
        tables: other tables.
        sections: figures.
        quiz: pictures that the reader calls real or synthetic before the page tells.
        commands: commands to run next, by their purpose.
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
    quiz: Sequence[Question] = ()
    commands: Mapping[str, str] = field(default_factory=dict)
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
        return environment.get_template("report.html.jinja").render(
            report=self,
            table=[] if self.study is None else _rows(self.study),
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


# --- the study's table -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cell:
    text: str
    best: bool
    comparison: Comparison | None

    @property
    def mark(self) -> str:
        return MARKS[self.comparison.effect] if self.comparison else ""

    @property
    def kind(self) -> str:
        return self.comparison.effect.split()[0] if self.comparison else ""


@dataclass(frozen=True)
class _Row:
    part: str
    label: str
    """The method; empty for real data alone."""
    cells: list[_Cell]


def _rows(study: StudyResult) -> list[_Row]:
    """Return the rows of the table, each cell compared with real data alone."""
    others = [s for s in study.training_sets if s != REAL]
    count = len(others) * len(study.classifiers)
    best = study.mean.argmax(0)

    def cell(row: int, column: int, text: str) -> _Cell:
        training_set, name = study.training_sets[row], study.classifiers[column]
        compared = training_set != REAL
        found = study.compare(training_set, name, comparisons=count) if compared else None
        return _Cell(text, row == best[column], found)

    return [
        _Row(cells[0], cells[1], [cell(row, *both) for both in enumerate(cells[2:])])
        for row, cells in enumerate(study.cells())
    ]
