"""Figures of follow-ups, and the report of a model of sequences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from chartae.checks import check_integer, check_number
from chartae.data import Sequences
from chartae.distributions.likelihoods import BernoulliLikelihood
from chartae.errors import DataError
from chartae.evaluation import (
    Calibration,
    calibration,
    carried_forward,
)
from chartae.longitudinal import Draws, SequenceModel, TrajectoryVAE
from chartae.report.figures import training_curves
from chartae.report.filmstrips import filmstrips, pace_strips
from chartae.report.html import Report, Section, Table, versions
from chartae.report.latent import Plane
from chartae.report.style import ACCENT, FAINT, INK, SAMPLE, Array, class_colors
from chartae.training import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "HiddenPart",
    "calibration_plot",
    "latent_courses",
    "score_fits",
    "write_followup_report",
]

MOST = 2**26
"""Largest number of values in the draws of a report, which bounds its memory."""

LATER = "all visits after the first"
"""The start of the name of a part that is hidden."""
SAME = 0.05
"""Errors that differ by less than this share are called the same."""
BACKGROUND = 0.25
"""Pixels whose standard deviation is less than this share of the largest one are background."""


# --- figures --------------------------------------------------------------------------------------


def latent_courses(
    model: SequenceModel,
    sequences: Sequences,
    *,
    individuals: int = 5,
    num_draws: int = 16,
    seed: int = 0,
) -> "Figure":
    """Return a figure of courses in the latent space, on its first two principal components.

    Dots are the posterior means of z(t) at the observed visits, coloured by time. Thin lines are
    the courses of a few individuals over their follow-up. The thick line is the mean course of all
    individuals, over the times from the 5th to the 95th percentile; its start is a hollow dot.

    Args:
        model: the model, with at least two latent dimensions.
        sequences: the individuals; 500 of them are used at most.
        individuals: the number of thin lines.
        num_draws: draws of the posterior, of which the mean is taken.
        seed: the same seed gives the same draws.

    Raises:
        DataError: for a model with one latent dimension, or if the sequences do not fit the model.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    if model.latent_dim < 2:
        raise DataError("the model has one latent dimension: expected at least two")
    sequences = sequences.subset(torch.arange(min(500, len(sequences))))
    individuals = min(check_integer("individuals", individuals, minimum=1), len(sequences))
    seen, when = sequences.observed, sequences.times
    at_visits = model.latent_means(sequences, when, num_draws=num_draws, seed=seed)
    low, high = when[seen].quantile(torch.tensor([0.05, 0.95]).to(when)).tolist()
    grid = torch.linspace(low, high, 60, dtype=when.dtype, device=when.device)
    mean = model.latent_means(
        sequences, grid.expand(len(seen), -1), num_draws=num_draws, seed=seed
    ).mean(0)
    few = sequences.subset(torch.arange(individuals))
    lines = model.latent_means(few, _own_grid(few, 60), num_draws=num_draws, seed=seed)
    plane = Plane(at_visits[seen])
    figure = Figure((6.4, 5.0), layout="constrained")
    axes = figure.add_subplot(xlabel=plane.names[0], ylabel=plane.names[1], title=plane.title)
    x, y = plane.project(at_visits[seen]).cpu().numpy().T
    colors = when[seen].cpu().numpy()
    dots = axes.scatter(x, y, c=colors, s=14, cmap="viridis", linewidths=0, alpha=0.6)
    for color, line in zip(class_colors(individuals), lines, strict=True):
        axes.plot(*plane.project(line).cpu().numpy().T, color=color, linewidth=1.2, alpha=0.9)
    course = plane.project(mean).cpu().numpy()
    axes.plot(*course.T, color=INK, linewidth=3, label="mean course")
    axes.plot(*course[0], "o", color=INK, markerfacecolor="white", markersize=7)
    axes.legend(frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    bar = figure.colorbar(ScalarMappable(dots.norm, dots.cmap), ax=axes, pad=0.02)
    bar.set_label("time")
    return figure


def _own_grid(sequences: Sequences, count: int) -> Tensor:
    """Return evenly spaced times over the follow-up of each individual, ``(N, count)``."""
    when, seen = sequences.times, sequences.observed
    first = torch.where(seen, when, torch.inf).amin(1, keepdim=True)
    last = torch.where(seen, when, -torch.inf).amax(1, keepdim=True)
    share = torch.linspace(0.0, 1.0, count, dtype=when.dtype, device=when.device)
    return first + (last - first) * share


def calibration_plot(found: Mapping[str, Calibration]) -> "Figure":
    """Return a figure of the share of hidden values inside intervals against their level.

    Curves on the diagonal are right. Below it, intervals are too narrow; above it, too wide.

    Args:
        found: results of `chartae.evaluation.calibration`, by name.
    """
    from matplotlib.figure import Figure

    figure = Figure((4.6, 4.2), layout="constrained")
    axes = figure.add_subplot(xlabel="level of the interval (%)", ylabel="hidden values inside (%)")
    axes.plot([0, 100], [0, 100], color=FAINT, linewidth=1, zorder=0)
    for color, (name, curve) in zip((ACCENT, SAMPLE, INK), found.items(), strict=False):
        levels, shares = (100.0 * v.cpu().numpy() for v in (curve.levels, curve.shares))
        axes.plot(levels, shares, ".-", color=color, linewidth=1.2, label=name)
    axes.set(xlim=(0, 100), ylim=(0, 100))
    axes.set_aspect("equal")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small", loc="upper left")
    return figure


def score_fits(
    truth: Sequences,
    seen: Sequences,
    courses: Draws,
    *,
    individuals: int = 4,
    scores: int = 5,
) -> "Figure":
    """Return a figure of the scores of individuals over time, with what the model makes of them.

    Each row is an individual, each column a score. The line is the median of the draws, the bands
    are their central 50 % and 90 %. Filled dots were seen by the model, hollow dots were hidden
    from it.

    Args:
        truth: individuals with vectors of scores.
        seen: the same individuals with a part hidden.
        courses: draws of ``model.futures(seen, times)`` at a grid of times.
        individuals: how many of the first individuals are shown.
        scores: how many of the first scores are shown.

    Raises:
        DataError: for images, or if the three do not belong together.
    """
    from matplotlib.figure import Figure

    if len(truth.input_shape) != 1:
        raise DataError(
            f"visits have shape {truth.input_shape}: expected vectors of scores; filmstrips shows "
            "images"
        )
    if not len(truth) == len(seen) == courses.values.shape[1]:
        raise DataError(
            f"truth has {len(truth)} individuals, seen {len(seen)} and courses "
            f"{courses.values.shape[1]}: expected the same"
        )
    rows = min(check_integer("individuals", individuals, minimum=1), len(truth))
    columns = min(check_integer("scores", scores, minimum=1), truth.input_shape[0])
    levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]).to(courses.values)
    bands = courses.values[:, :rows].quantile(levels, 0).cpu().numpy()
    names = truth.form.columns or [f"score {place}" for place in range(columns)]
    figure = Figure((0.6 + 2.5 * columns, 0.5 + 1.75 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharey="col", sharex="row", squeeze=False)
    for row in range(rows):
        for column in range(columns):
            axes = grid[row, column]
            _draw_bands(axes, courses.times[row].cpu().numpy(), bands[:, row, :, column])
            _draw_scores(axes, truth, seen, row, column)
            axes.spines[["top", "right"]].set_visible(False)
            axes.locator_params(nbins=4)
        grid[row, 0].set_ylabel(str(truth.ids[row]), fontsize="small")
    for column in range(columns):
        grid[0, column].set_title(str(names[column]))
        grid[-1, column].set_xlabel("time")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def _draw_bands(axes: "Axes", times: Array, bands: Array) -> None:
    """Draw the median and two bands from quantiles ``(5, K)``."""
    style: dict[str, Any] = {"color": ACCENT, "linewidth": 0}
    axes.fill_between(times, bands[0], bands[4], alpha=0.18, label="90 %", **style)
    axes.fill_between(times, bands[1], bands[3], alpha=0.32, label="50 %", **style)
    axes.plot(times, bands[2], color=ACCENT, linewidth=1.4, label="median")


def _draw_scores(axes: "Axes", truth: Sequences, seen: Sequences, row: int, column: int) -> None:
    known, shown = truth.known[row, :, column], seen.known[row, :, column]
    for flags, name, fill in ((shown, "seen", INK), (known & ~shown, "hidden", "white")):
        places = flags.nonzero()[:, 0]
        axes.plot(
            truth.times[row, places].cpu().numpy(),
            truth.x[row, places, column].cpu().numpy(),
            "o",
            color=INK,
            markerfacecolor=fill,
            markersize=4.5,
            label=name,
        )


# --- the report -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class HiddenPart:
    """How well a model finds what was hidden from it.

    Attributes:
        name: what was hidden, in words.
        visits: number of visits of which something was hidden.
        total: number of observed visits.
        error: root mean square error of the imputed values; that of several scores is in units of
            their standard deviations.
        carried: that of the last observed value carried forward.
        coverage: share of hidden values inside the 90 % intervals.
        scores: for each of several scores its name, and both errors in its own unit.
    """

    name: str
    visits: int
    total: int
    error: float
    carried: float
    coverage: float
    scores: tuple[tuple[str, float, float], ...] = ()

    @property
    def cells(self) -> list[str]:
        """The cells of a row of a table."""
        return [
            self.name,
            f"{self.visits} of {self.total}",
            f"{self.error:.4g}",
            f"{self.carried:.4g}",
            f"{self.coverage:.0%}",
        ]

    @property
    def sentence(self) -> str:
        """The result in plain words."""
        unit = " standard deviations" if self.scores else ""
        return (
            f"Hidden: {self.name}, {self.visits} of {self.total}. The error is {self.error:.3g}"
            f"{unit}, {_compared(self.error, self.carried)} that of the last value carried forward "
            f"({self.carried:.3g}). The 90 % intervals contain {self.coverage:.0%} of the hidden "
            "values."
        )


def _compared(error: float, other: float) -> str:
    """Return how an error compares to another one, in words."""
    ratio = error / other if other > 0.0 else 1.0
    if ratio >= 2.0:
        return f"{ratio:.3g} times"
    if abs(ratio - 1.0) < 0.005:
        return "equal to"
    return f"{abs(ratio - 1.0):.0%} {'less' if ratio < 1.0 else 'more'} than"


def write_followup_report(
    path: str | Path,
    model: SequenceModel,
    sequences: Sequences,
    *,
    held_out: bool = True,
    history: History | None = None,
    hidden: float = 0.5,
    num_draws: int | None = None,
    title: str = "",
    facts: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> list[HiddenPart]:
    """Write a report of a trained model: what it finds when a part of the visits is hidden.

    Two parts are hidden, one after the other: visits at random, and all visits after the first
    ones. The page is one HTML file with figures and a summary in plain words. It is written
    atomically.

    Args:
        path: the file.
        model: the trained model.
        sequences: the individuals. If there are many, the first of them are used.
        held_out: whether they are not those of the training set; the page says so.
        history: the history of the training, for its curves.
        hidden: the share of visits to hide at random, in (0, 1).
        num_draws: draws of each individual; by default 64 for images, 200 for scores.
        title: title of the page.
        facts: further facts about the run, by name.
        settings: options of the run.
        seed: the same seed hides the same, and gives the same draws.

    Returns:
        The results for both parts.

    Raises:
        DataError: if no individual has two observed visits, or if the sequences do not fit.
    """
    check_number("hidden", hidden, above=0.0, below=1.0)
    if num_draws is None:
        num_draws = 200 if len(model.input_shape) == 1 else 64
    check_integer("num_draws", num_draws, minimum=2)
    people = _several_visits(sequences, num_draws)
    half = _half(people)
    parts = {
        "visits at random": people.hidden(visits=hidden, seed=seed),
        f"{LATER}{'' if half == 1 else f' {half}'}": people.first(half),
    }
    results, curves, sections = [], {}, []
    for name, seen in parts.items():
        if not bool((people.known & ~seen.known).any()):
            continue
        found, curves[name], figure = _examine(name, model, people, seen, num_draws, seed)
        results.append(found)
        sections.append(_picture(name, people, figure))
    page = Report(
        title or f"Follow-ups with {type(model).__name__}",
        _summary(model, people, held_out),
        answers={_question(result): f"{_verdict(result)} {result.sentence}" for result in results},
        facts={**(facts or {}), "Individuals": str(people), "Versions": versions()},
        settings=settings or {},
        tables=[_table(results), *_score_tables(results)],
        sections=[*sections, *_further(model, people, curves, history, seed)],
    )
    page.save(path)
    return results


def _several_visits(sequences: Sequences, num_draws: int) -> Sequences:
    """Return the individuals with two visits or more, as many as the memory allows."""
    several = (sequences.num_visits > 1).nonzero()[:, 0]
    if not len(several):
        raise DataError("no individual has two observed visits: expected some to hide")
    most = max(2, MOST // (num_draws * sequences.x[0].numel()))
    return sequences.subset(several[:most])


def _half(people: Sequences) -> int:
    """Return half the usual number of visits, at least 1."""
    return max(1, int(people.num_visits.median()) // 2)


def _examine(
    name: str,
    model: SequenceModel,
    people: Sequences,
    seen: Sequences,
    num_draws: int,
    seed: int,
) -> tuple[HiddenPart, Calibration, "Figure"]:
    """Impute what is hidden; return the result, its calibration and a figure of it."""
    draws = model.impute(seen, "best", num_draws, noise=_with_noise(model), seed=seed)
    images = len(people.input_shape) > 1
    if images:
        shown = model.impute(seen, "best", num_draws, noise=False, seed=seed)
        figure = filmstrips(people, seen, shown)
    else:
        shown = model.impute(seen, "resample", num_draws, seed=seed)
        few = torch.arange(min(4, len(people)))
        true, given = people.subset(few), seen.subset(few)
        courses = model.futures(given, _own_grid(true, 40), num_draws, seed=seed)
        figure = score_fits(true, given, courses)
        draws = shown
    curve = calibration(draws, people, seen, features=_varying(people) if images else None)
    lost = people.known & ~seen.known
    off = shown.point_values() - people.x, carried_forward(seen) - people.x
    unit = torch.ones(()).to(people.x)
    scores: tuple[tuple[str, float, float], ...] = ()
    if not images and people.input_shape[0] > 1:
        spread = _spread(people)
        unit = torch.where(spread > 0.0, spread, 1.0)
        scores = _each_score(people, lost, *off)
    error, carried = (_size((part / unit)[lost]) for part in off)
    result = HiddenPart(
        name,
        int(lost.flatten(2).any(-1).sum()),
        int(people.num_visits.sum()),
        error,
        carried,
        float(curve.shares[curve.levels.sub(0.9).abs().argmin()]),
        scores,
    )
    return result, curve, figure


def _each_score(
    people: Sequences, lost: Tensor, off: Tensor, carried: Tensor
) -> tuple[tuple[str, float, float], ...]:
    """Return the name of each score of which values were hidden, and its two errors."""
    names = people.form.columns or [f"score {k}" for k in range(people.input_shape[0])]
    return tuple(
        (str(name), _size(off[..., k][lost[..., k]]), _size(carried[..., k][lost[..., k]]))
        for k, name in enumerate(names)
        if bool(lost[..., k].any())
    )


def _size(differences: Tensor) -> float:
    """Return the root mean square."""
    return float(differences.square().mean().sqrt())


def _spread(people: Sequences) -> Tensor:
    """Return the standard deviation of each feature among all visits."""
    known = people.known
    count = known.sum((0, 1)).clamp(min=1)
    mean = torch.where(known, people.x, 0.0).sum((0, 1)) / count
    return (torch.where(known, people.x - mean, 0.0).square().sum((0, 1)) / count).sqrt()


def _varying(people: Sequences) -> Tensor:
    """Return which pixels are not background: they vary, among all visits."""
    spread = _spread(people)
    return spread >= BACKGROUND * spread.max()


def _with_noise(model: SequenceModel) -> bool:
    """Whether draws of observations are of use: those of a Bernoulli likelihood are 0 or 1."""
    return not isinstance(model.observation_model, BernoulliLikelihood)


def _summary(model: SequenceModel, people: Sequences, held_out: bool) -> str:
    who = (
        f"{len(people)} individuals that the {type(model).__name__} has not seen in training"
        if held_out
        else f"{len(people)} individuals of the training set, because none were held out: errors "
        "of new individuals are larger"
    )
    return f"Tested on {who}. A part of their visits was hidden from the model."


def _question(result: HiddenPart) -> str:
    later = result.name.startswith(LATER)
    return f"Can it {'predict later' if later else 'fill in missing'} visits?"


def _verdict(result: HiddenPart) -> str:
    """Return in a sentence whether the model is better than the simplest prediction."""
    ratio = result.error / result.carried if result.carried > 0.0 else 1.0
    if abs(ratio - 1.0) < SAME:
        return "About as well as the last value carried forward."
    return f"{'Better' if ratio < 1.0 else 'Worse'} than the last value carried forward."


def _table(results: Sequence[HiddenPart]) -> Table:
    return Table(
        "Does it find what was hidden?",
        "Visits were hidden from the model, which then imputed them. Error: the root mean square "
        "of the differences between imputed and true values, in the unit of the data; of several "
        "scores, in standard deviations of each. Carried "
        "forward: that of the simplest prediction, the last value seen, or the first one for "
        "earlier visits. Inside 90 %: the share of hidden values inside the intervals (of images, "
        "of the pixels that vary); it is 90 % if the intervals are right.",
        ["Hidden", "Visits", "Error", "Carried forward", "Inside 90 %"],
        [result.cells for result in results],
    )


def _score_tables(results: Sequence[HiddenPart]) -> list[Table]:
    return [
        Table(
            f"Each score; hidden: {result.name}",
            "Root mean square errors, each in the unit of the score.",
            ["Score", "Error", "Carried forward"],
            [[name, f"{error:.4g}", f"{carried:.4g}"] for name, error, carried in result.scores],
        )
        for result in results
        if result.scores
    ]


def _picture(name: str, people: Sequences, figure: "Figure") -> Section:
    if len(people.input_shape) > 1:
        text = (
            "Images that the model saw, those that were hidden from it, its imputation of every "
            "visit, and the spread of its draws: bright pixels are uncertain. Below are the times."
        )
    else:
        text = (
            "Filled dots were seen by the model, hollow dots were hidden from it. The line is the "
            "median of its draws; bands contain 50 % and 90 % of them."
        )
    return Section(f"Hidden: {name}", text, figure, f"Imputed follow-ups; hidden: {name}")


def _further(
    model: SequenceModel,
    people: Sequences,
    curves: Mapping[str, Calibration],
    history: History | None,
    seed: int,
) -> list[Section]:
    """Return the sections about calibration, the latent space, the pace and the training."""
    text = (
        "The share of hidden values inside the central intervals of the draws, against the level "
        "of the interval. On the diagonal the uncertainty is right; below it, it is too small."
    )
    if len(people.input_shape) > 1:
        text += (
            " Only pixels count whose values vary among the visits, not those of the background."
        )
    if not _with_noise(model):
        text += (
            " The draws are of means, because a Bernoulli likelihood has no noise of grey values: "
            "the intervals are expected to be too narrow."
        )
    found = [Section("Is it as sure as it should be?", text, calibration_plot(curves), "Shares")]
    if model.latent_dim > 1:
        courses = (
            "Each dot is a visit, at its place in the latent space, coloured by time. Coloured "
            "lines are the courses of some individuals. The black line is the mean course."
        )
        figure = latent_courses(model, people, seed=seed)
        found.append(Section("Courses in the latent space", courses, figure, "Latent courses"))
    if isinstance(model, TrajectoryVAE) and len(people.input_shape) > 1:
        told = (
            "The course of one individual as it is (middle row), and as it would be with another "
            "delay or speed, up to two standard deviations of all individuals. What does not "
            "change in time should stay the same in all rows."
        )
        figure = pace_strips(model, people)
        found.append(Section("Other delays, other speeds", told, figure, "Delays and speeds"))
    if history is not None and history.num_epochs:
        told = "Each term of the loss over epochs; dashed: the held-out individuals."
        curve = training_curves({type(model).__name__: history})
        found.append(Section("Training", told, curve, "Curves of the training losses"))
    return found
