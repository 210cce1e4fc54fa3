"""The report of a search for arguments: the best trial, values over trials and over arguments."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chartae.evaluation import OBJECTIVES, TuningResult
from chartae.evaluation.spaces import Interval, Space
from chartae.report.figures import training_curves
from chartae.report.html import Report, Section, Table, versions
from chartae.report.style import ACCENT, FAINT, INK, panels_across
from chartae.training import HISTORY_FILE, History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["argument_plot", "trial_plot", "write_tuning_report"]


def trial_plot(result: TuningResult) -> "Figure":
    """Return a figure of the values of trials in their order, and of the best one so far.

    Trials without a value are marks at the bottom.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 3.6), layout="constrained")
    axes = figure.subplots()
    complete, better = result.search.complete, max if result.search.higher else min
    numbers, values = [t.number for t in complete], [t.value for t in complete]
    so_far = [better(values[: place + 1]) for place in range(len(values))]
    axes.step(numbers, so_far, where="post", color=INK, linewidth=1.0, label="best so far")
    axes.plot(numbers, values, "o", color=ACCENT, label="complete")
    for state, mark in (("pruned", "|"), ("diverged", "x"), ("failed", "+")):
        ended = [t.number for t in result.search.trials if t.state == state]
        if ended:
            low = [0.03] * len(ended)
            place = axes.get_xaxis_transform()
            axes.plot(ended, low, mark, color=INK, transform=place, label=state)
    axes.set(xlabel="trial", ylabel=OBJECTIVES[result.metric].title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small", ncols=2)
    return figure


def argument_plot(result: TuningResult) -> "Figure":
    """Return a figure with one panel for each argument: the values of complete trials over it."""
    from matplotlib.figure import Figure

    across = panels_across(len(result.space))
    down = math.ceil(len(result.space) / across)
    figure = Figure((3.3 * across, 2.6 * down), layout="constrained")
    importances = result.search.importances()
    for place, (name, values) in enumerate(result.space.items(), start=1):
        axes = figure.add_subplot(down, across, place)
        share = f" ({100.0 * importances[name]:.0f} %)" if name in importances else ""
        axes.set_title(f"{name}{share}", fontsize="medium")
        _draw_argument(axes, result, name, values)
        if place % across == 1 or across == 1:
            axes.set_ylabel(OBJECTIVES[result.metric].title)
    return figure


def _draw_argument(axes: "Axes", result: TuningResult, name: str, values: Any) -> None:
    complete, best = result.search.complete, result.best
    places: dict[int, Any]
    if isinstance(values, Interval):
        places = {trial.number: trial.arguments[name] for trial in complete}
        if values.log:
            axes.set_xscale("log")
            ticks = np.geomspace(values.low, values.high, 3)
            axes.set_xticks(ticks, [f"{float(f'{tick:.2g}'):g}" for tick in ticks])
            axes.set_xlim(values.low / 1.2, values.high * 1.2)
            axes.minorticks_off()
    else:
        texts = [str(value) for value in values.values]
        places = {trial.number: texts.index(str(trial.arguments[name])) for trial in complete}
        axes.set_xticks(range(len(texts)), texts)
    axes.plot(list(places.values()), [t.value for t in complete], "o", color=FAINT, markersize=4)
    axes.plot(places[best.number], best.value, "o", color=ACCENT)
    axes.spines[["top", "right"]].set_visible(False)


def write_tuning_report(
    path: str | Path,
    result: TuningResult,
    *,
    title: str,
    facts: Mapping[str, str],
    settings: Mapping[str, Any],
    commands: Mapping[str, str],
    files: Mapping[str, str],
) -> None:
    """Write the report of a search as one HTML file.

    Args:
        path: the file.
        result: the trials, of which one is complete at least.
        title: title of the page.
        facts: facts about the run by name.
        settings: the value of every option.
        commands: commands to run next, by their purpose.
        files: a description of each written file, by path.

    Raises:
        DivergenceError: if no trial has a value.
    """
    words = result.best_in_words
    history = History.load(result.search.table.file(result.best.row, HISTORY_FILE))
    pruning = (
        "Trials with a worse validation loss than the median at the same epoch were pruned."
        if result.prunes
        else "No trial was pruned."
    )
    sections = [
        Section(
            "Trials",
            f"The value of each trial on validation data, in the order of trials. {pruning}",
            trial_plot(result),
            "Dots for the values of trials, and a line for the best one so far",
        ),
        Section(
            "Arguments",
            "The values of complete trials over each argument; the best trial is blue. A "
            "percentage is the importance of the argument among complete trials (PED-ANOVA), which "
            "is rough for few trials.",
            argument_plot(result),
            "One panel of dots for each argument",
        ),
        Section(
            "The training of the best trial",
            "Solid: training set. Dashed: validation set. The dot is the epoch that was kept.",
            training_curves({"best": history}),
            "Curves of the loss over epochs",
        ),
    ]
    Report(
        title,
        summary=f"{len(result.search.trials)} configurations were tried, and compared by the "
        f"{OBJECTIVES[result.metric].title} on validation data.",
        answers={
            "Which configuration is best?": f"{words[:1].upper()}{words[1:]}.",
            "Is it as good on new data?": "Probably not quite. The best of many trials on the same "
            "validation data looks better than it is. Evaluate the model once on test data that "
            "played no part in the search.",
        },
        facts={**facts, "Versions": versions()},
        settings=settings,
        tables=[_searched(result.space), _trials(result)],
        sections=sections,
        commands=commands,
        files=files,
    ).save(path)


def _searched(space: Space) -> Table:
    rows = [(name, str(values)) for name, values in space.items()]
    return Table("What was searched", "", ("argument", "values"), rows)


def _trials(result: TuningResult) -> Table:
    records = result.records()
    headings = list(dict.fromkeys(name for record in records for name in record))
    rows = [[_cell(record.get(name)) for name in headings] for record in records]
    return Table("All trials", "", headings, rows, sortable=True, folded=True)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
