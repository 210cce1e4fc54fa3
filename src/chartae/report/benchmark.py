"""The report of a benchmark: answers, tables, curves and sheets of pictures."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chartae.evaluation import METRICS, BenchmarkResult, Entry, Evaluation, Splits
from chartae.report.figures import draw_observations, value_range
from chartae.report.html import Report, Section, Table, versions
from chartae.report.style import Array, class_colors
from chartae.runs import RunTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "answers",
    "better",
    "curves",
    "picture_sheet",
    "write_benchmark_report",
    "write_evaluation_report",
]

QUESTIONS = {
    "mse": "Which model reconstructs best?",
    "frechet": "Which model and sampler generate best?",
    "probe_accuracy": "Which representation serves a linear classifier best?",
    "cluster_accuracy": "Which representation has clusters like the classes?",
    "straight": "Which model interpolates best?",
}
"""The figure that answers each question."""
COLUMNS = {
    "reconstruction": (
        *("mse", "psnr", "ssim", "reconstruction_frechet", "log_likelihood", "train_seconds"),
    ),
    "generation": (
        *("frechet", "kernel", "inception_score", "precision", "recall", "density", "coverage"),
        *("prd_f8", "prd_f1_8", "novelty", "copies"),
    ),
    "representation": ("probe_accuracy", "cluster_accuracy", "cluster_nmi", "cluster_ari"),
    "interpolation": ("straight", "geodesic"),
}
"""The figures of each table."""
TEXTS = {
    "reconstruction": "Errors of the reconstructions of the test set. The Frechet distance is that "
    "between features of the data and of their reconstructions. log p(x) is an estimate by 50 "
    "importance samples, which is a lower bound on average; it depends on the likelihood.",
    "generation": "Samples against the test set. Lower is better for the Frechet and the kernel "
    "distance. Precision and density say whether samples are like data, recall and coverage "
    "whether all kinds of data are among them. Distance to training data: that of samples, "
    "divided by that of the test set; it is 0 for copies. Near copies: share of samples that are "
    "nearer to a training observation than the nearest 5 % of the test set.",
    "representation": "Accuracy on the test set of a linear classifier of the embeddings, and how "
    "k-means of the training set's embeddings agrees with the classes.",
    "interpolation": "Mean distance of decoded points between pairs of test observations to the "
    "nearest training observation, divided by that of the test set: 1 is the same as for data.",
}
SHOWN = 10
"""Number of pictures in a row."""
MOST_PLACES = 6
"""Largest number of decimal places of a figure; smaller ones have an exponent."""
NEAR = 0.05
"""The share of near copies if samples are like the test set."""


def answers(result: BenchmarkResult) -> dict[str, str]:
    """Return a sentence for each question that the benchmark can answer.

    Configurations are chosen by validation, and the sentences report the test set. Models are
    called level if their means differ by less than the standard deviation over seeds.
    """
    found = {}
    for metric, question in QUESTIONS.items():
        ranking = result.best(metric)
        if not ranking:
            continue
        first, *others = ranking
        near = [entry for entry in others if _level(first, entry)]
        text = f"{first.title}: {METRICS[metric].title} {_value(first)}."
        if near:
            text += f" Equally good: {'; '.join(f'{e.title} {_value(e)}' for e in near)}."
        if others and len(near) < len(others):
            following = next(entry for entry in others if entry not in near)
            text += f" Next best: {following.title} {_value(following)}."
        found[question] = text + _cost(first)
    return found


def _level(first: Entry, other: Entry) -> bool:
    spread = [d for d in (first.deviation, other.deviation) if not math.isnan(d)]
    return bool(spread) and abs(first.test - other.test) < max(spread)


def _value(entry: Entry) -> str:
    if math.isnan(entry.deviation):
        return _number(entry.test)
    return _with_spread(entry.test, entry.deviation)


def _with_spread(value: float, deviation: float) -> str:
    """Return a figure with three digits, and its deviation with as many decimal places.

    >>> _with_spread(0.073, 0.000265), _with_spread(1395.9, 5.29), _with_spread(0.0, 2e-9)
    ('0.0730 ± 0.0003', '1,396 ± 5', '0 ± 2e-09')
    """
    size = max(abs(value), deviation)
    places = max(0, 2 - math.floor(math.log10(size))) if size > 0.0 else 0
    if places > MOST_PLACES:
        return f"{value:.3g} ± {deviation:.2g}"
    return f"{value:,.{places}f} ± {deviation:,.{places}f}"


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return ""
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"


def _cost(entry: Entry) -> str:
    seconds = [row.figures["train_seconds"] for row in entry.rows]
    return f" Training took {sum(seconds) / len(seconds):.0f} s on one core."


# --- tables ---------------------------------------------------------------------------------------


def _table(result: BenchmarkResult, name: str) -> Table | None:
    """Return a table with a line for each configuration, and sampler; None if it has no figures."""
    cells: dict[str, dict[str, Entry]] = {}
    for metric in COLUMNS[name]:
        for entry in result.entries(metric) if metric in METRICS else []:
            cells.setdefault(entry.title + _size(entry), {})[metric] = entry
    metrics = [m for m in COLUMNS[name] if any(m in line for line in cells.values())]
    if not metrics:
        return None
    timed = "train_seconds" in COLUMNS[name]
    order = {entry.title + _size(entry): i for i, entry in enumerate(result.entries(metrics[0]))}
    titles = sorted(cells, key=lambda title: order.get(title, len(order)))
    rows = []
    for title in titles:
        line = cells[title]
        row = [title, *(_value(line[m]) if m in line else "" for m in metrics)]
        rows.append(row + ([_cost_cell(next(iter(line.values())))] if timed else []))
    headings = ["model", *(METRICS[m].title for m in metrics), *(["training (s)"] if timed else [])]
    return Table(name.capitalize(), TEXTS[name], headings, rows, sortable=True)


def _size(entry: Entry) -> str:
    return "" if entry.train_size is None else f", {entry.train_size} samples"


def _cost_cell(entry: Entry) -> str:
    seconds = [row.figures["train_seconds"] for row in entry.rows]
    return f"{sum(seconds) / len(seconds):.1f}"


def _problems(result: BenchmarkResult) -> Table | None:
    """Return a table of what failed, diverged or was left out."""
    rows = [[_name(row.settings), "failed", row.error] for row in result.table.failed]
    rows += [
        [_name(row.settings), "diverged", "trained again with a tenth of the learning rate"]
        for row in result.table.done
        if row.attempts > 1
    ]
    rows += [[_name(one), "left out", reason] for one, reason in result.table.left_out]
    skipped: dict[tuple[str, str, str], None] = {}
    for row in result.table.done:
        for part, reason in row.figures["skipped"].items():
            skipped[row.settings["model"], part, reason] = None
        for message in row.figures["warnings"]:
            skipped[row.settings["model"], "warning", message] = None
    rows += [[model, part, reason] for model, part, reason in skipped]
    if not rows:
        return None
    return Table(
        "What is missing, and warnings",
        "Parts that a model cannot do, runs that failed or were left out, warnings of trainings.",
        ["model", "what", "reason"],
        rows,
    )


def _name(settings: Mapping[str, Any]) -> str:
    parts = [f"{key}={value}" for key, value in settings["options"].items()]
    parts += [f"{key}={settings[key]}" for key in ("latent_dim", "train_size", "seed")]
    return f"{settings['model']} ({', '.join(p for p in parts if not p.endswith('None'))})"


def _rerun(result: BenchmarkResult, command: str) -> Table:
    """Return a table with the command that repeats each run."""
    rows = [
        [_name(row.settings), f"{row.seconds:.0f}", f"{command} --row {row.key}"]
        for row in result.table
    ]
    return Table(
        "Repeat one run",
        "The command computes one row again, and nothing else.",
        ["run", "seconds", "command"],
        rows,
        sortable=True,
        folded=True,
    )


# --- figures --------------------------------------------------------------------------------------


def curves(result: BenchmarkResult, metric: str, across: str) -> "Figure | None":
    """Return a figure of a metric against the latent dimension or the size of the training set.

    Each model has its configuration and sampler with the best validation figure at each value.

    Args:
        result: the table.
        metric: a name of `METRICS`.
        across: ``"latent_dim"``, ``"train_size"`` or ``"options"``; for the last, the number of the
            configuration in its grid.

    Returns:
        The figure; None if there are fewer than two values.
    """
    from matplotlib.figure import Figure

    places: dict[str, dict[Any, int]] = {}

    def place(entry: Entry) -> float:
        if across != "options":
            value = getattr(entry, across)
            return math.nan if value is None else float(value)
        seen = places.setdefault(entry.model, {})
        return float(seen.setdefault(str(sorted(entry.options.items())), len(seen) + 1))

    if across == "options":  # numbered in the order of the grid
        for row in result.table:
            seen = places.setdefault(row.settings["model"], {})
            seen.setdefault(str(sorted(row.settings["options"].items())), len(seen) + 1)
    chosen = result.best(metric, by=lambda entry: (entry.model, place(entry)))
    lines: dict[str, list[Entry]] = {}
    for entry in sorted(chosen, key=place):
        if not math.isnan(place(entry)):
            lines.setdefault(entry.model, []).append(entry)
    lines = {model: entries for model, entries in lines.items() if len(entries) > 1}
    if not lines:
        return None
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.subplots()
    for (model, entries), color in zip(lines.items(), class_colors(len(lines)), strict=True):
        x, y = [place(e) for e in entries], [e.test for e in entries]
        error = [0.0 if math.isnan(e.deviation) else e.deviation for e in entries]
        axes.errorbar(x, y, error, color=color, marker="o", label=model, capsize=2.0)
    names = {
        "latent_dim": "latent dimension",
        "train_size": "training samples",
        "options": "number of the configuration",
    }
    axes.set_xlabel(names[across])
    axes.set_ylabel(METRICS[metric].title)
    if across != "options":
        axes.set_xscale("log")
        ticks = sorted({place(e) for entries in lines.values() for e in entries})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
        axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small", ncols=2)
    return figure


def picture_sheet(rows: Mapping[str, Array]) -> "Figure":
    """Return a figure with one row of observations for each title.

    Args:
        rows: ``(n, *input_shape)`` by title; the first ten are drawn, on one scale.
    """
    from matplotlib.figure import Figure

    shown = {title: np.asarray(x)[:SHOWN] for title, x in rows.items()}
    low, high = value_range(shown.values())
    height = 0.66 * len(shown)
    figure = Figure(figsize=(8.0, height))
    edges = {"left": 0.26, "right": 0.995, "bottom": 0.05 / height, "top": 1.0 - 0.05 / height}
    panels = figure.subplots(len(shown), 1, squeeze=False, gridspec_kw={**edges, "hspace": 0.06})
    for axes, (title, x) in zip(panels[:, 0], shown.items(), strict=True):
        draw_observations(axes, x, SHOWN, low, high)
        _name_row(axes, title)
    return figure


def _name_row(axes: "Axes", title: str) -> None:
    axes.set_axis_on()
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=7.0)


def _sheets(result: BenchmarkResult, splits: Splits) -> list[Section]:
    """Return the sheets of reconstructions, samples with their nearest data, and interpolations."""
    if len(splits.train.input_shape) < 2:
        return []
    sections = []
    rows: dict[str, Array] = {}
    for entry in result.best("mse"):
        pictures = result.pictures(entry.rows[0])
        if "reconstruction" in pictures:
            rows = {"data": pictures["real"]} | rows
            rows[entry.title] = pictures["reconstruction"]
    if rows:
        sections.append(_sheet("Reconstructions", "Observations of the test set.", rows))
    rows = {}
    for entry in result.best("frechet"):
        pictures = result.pictures(entry.rows[0])
        if f"samples/{entry.sampler}" in pictures:
            rows[entry.title] = pictures[f"samples/{entry.sampler}"]
            rows[f"nearest data ({entry.model})"] = pictures[f"nearest/{entry.sampler}"]
    if rows:
        text = "Random samples of each model, its sampler chosen by validation; below each sample "
        text += "the nearest training observation."
        sections.append(_sheet("Samples", text, rows))
    rows = {}
    for metric in ("straight", "geodesic"):
        for entry in result.best(metric):
            pictures = result.pictures(entry.rows[0])
            if metric in pictures:
                rows[f"{entry.title}, {metric}"] = pictures[metric][0]
    if rows:
        text = "Points between the same two test observations: on straight lines between their "
        text += "latents, and on geodesics of the model's metric, if it has one."
        sections.append(_sheet("Interpolations", text, rows))
    return sections


def _sheet(title: str, text: str, rows: Mapping[str, Array]) -> Section:
    return Section(title, text, picture_sheet(rows), f"{title} of {len(rows)} models.")


def _curve_sections(result: BenchmarkResult) -> list[Section]:
    titles = {
        "latent_dim": "against the latent dimension",
        "train_size": "against the size of the training set",
        "options": "of each configuration",
    }
    found = []
    for across, title in titles.items():
        for metric in ("mse", "frechet", "probe_accuracy", "cluster_accuracy"):
            figure = curves(result, metric, across)
            if figure is not None:
                name = f"{METRICS[metric].task.capitalize()} {title}"
                text = "On the test set. Bars are standard deviations over seeds, if there are any."
                found.append(Section(name, text, figure, name))
    return found


def write_benchmark_report(
    path: str | Path,
    result: BenchmarkResult,
    splits: Splits,
    *,
    title: str = "Benchmark",
    facts: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    command: str = "chartae benchmark",
    files: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Write the report of a benchmark as one HTML file, atomically; return its answers.

    Args:
        path: the file.
        result: the table.
        splits: the data.
        title: title of the page.
        facts: further facts about the run by name.
        settings: the value of every option.
        command: the command, to which ``--row`` is added to repeat a run.
        files: a description of each written file, by path.
    """
    found = answers(result)
    tables: Sequence[Table | None] = [
        *(_table(result, name) for name in COLUMNS),
        _problems(result),
        _rerun(result, command),
    ]
    table = result.table
    sizes = ", ".join(f"{len(part)} for {name}" for name, part in _parts(splits).items())
    features = "the data themselves"
    if result.feature_accuracy is not None:
        share = 100.0 * result.feature_accuracy
        features = f"features of a small classifier, which is right for {share:.1f} % of other data"
    Report(
        title,
        f"{len(table.done)} trainings of {len({r.settings['model'] for r in table})} models. "
        "Configurations and samplers are chosen on the validation set; all figures are of the test "
        f"set{_spread(table)} d is the number of latent dimensions.",
        answers=found,
        facts={
            **(facts or {}),
            "Observations": f"{sizes}, of shape {splits.train.input_shape}",
            "Compared in": features,
            "Versions": versions(),
        },
        settings=settings or {},
        tables=[table for table in tables if table is not None],
        sections=[*_curve_sections(result), *_sheets(result, splits)],
        files=files or {},
    ).save(path)
    return found


def _spread(table: RunTable) -> str:
    if len({row.settings["seed"] for row in table}) > 1:
        return ", mean ± standard deviation over seeds."
    return ". There is one seed, so small differences mean little."


def write_evaluation_report(
    path: str | Path,
    evaluation: Evaluation,
    *,
    title: str,
    facts: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write the report of one model as one HTML file, atomically.

    Args:
        path: the file.
        evaluation: the result of `evaluate_model`.
        title: title of the page.
        facts: facts about the model and the data by name.
        settings: the value of every option.
    """
    tables = [table for name in COLUMNS for table in _figures(evaluation, name)]
    if evaluation.skipped:
        skipped = [[name, reason] for name, reason in evaluation.skipped.items()]
        tables.append(Table("What is missing", "And why.", ["what", "reason"], skipped))
    pictures = {name: tensor.numpy() for name, tensor in evaluation.pictures.items()}
    rows_shown = {
        name: x[0] if name in ("straight", "geodesic") else x for name, x in pictures.items()
    }
    sections = []
    if rows_shown and next(iter(rows_shown.values())).ndim > 2:
        text = "Observations of the test set and their reconstructions; samples and the nearest "
        text += "training observations; points between two test observations."
        sections = [_sheet("Pictures", text, rows_shown)]
    Report(
        title,
        "How one trained model does on data that it has not seen.",
        answers=_in_words(evaluation),
        facts={**(facts or {}), "Versions": versions()},
        settings=settings or {},
        tables=tables,
        sections=sections,
    ).save(path)


def _figures(evaluation: Evaluation, name: str) -> list[Table]:
    """Return the table of the figures of `COLUMNS` with a name, if there are any."""
    samplers = {sampler: of["test"] for sampler, of in evaluation.samplers.items()}
    rows = [
        [METRICS[metric].title, sampler, _number(figures[metric]), better(metric)]
        for metric in COLUMNS[name]
        for sampler, figures in {"": evaluation.figures["test"], **samplers}.items()
        if metric in figures
    ]
    headings, place = ["figure", "sampler", "value", "better"], 1
    if not any(row[place] for row in rows):  # only samples are of a sampler
        rows = [row[:place] + row[place + 1 :] for row in rows]
        headings.pop(place)
    return [Table(name.capitalize(), TEXTS[name], headings, rows)] if rows else []


def _in_words(evaluation: Evaluation) -> dict[str, str]:
    """Return what the main figures mean, by question."""
    found, answers = evaluation.figures["test"], {}
    if "mse" in found:
        names = [name for name in ("mse", "psnr", "ssim") if name in found]
        told = ", ".join(f"{METRICS[name].title} {_number(found[name])}" for name in names)
        answers["How good are reconstructions?"] = f"{told[:1].upper()}{told[1:]}."
    alike, copied = [], []
    for sampler, of in evaluation.samplers.items():
        test = of["test"]
        if {"precision", "recall"} <= test.keys():
            alike.append(
                f"{sampler}: {test['precision']:.0%} of the samples are among the data, and "
                f"{test['recall']:.0%} of the data are among the samples."
            )
        if {"novelty", "copies"} <= test.keys():
            copied.append(
                f"{sampler}: {test['copies']:.0%} of the samples are near copies of training data, "
                f"where {NEAR:.0%} are expected. Samples are {test['novelty']:.2f} times as far "
                "from training data as test data are."
            )
    answers |= {"Are samples like the data?": " ".join(alike)} if alike else {}
    answers |= {"Are samples copies?": " ".join(copied)} if copied else {}
    if "probe_accuracy" in found:
        answers["Do the latents tell the classes apart?"] = (
            f"A linear classifier of the latents is right for {found['probe_accuracy']:.0%} of the "
            "test data."
        )
    return answers


def better(metric: str) -> str:
    """Return whether a metric is better higher or lower.

    >>> better("mse"), better("recall")
    ('lower', 'higher')
    """
    return "higher" if METRICS[metric].higher else "lower"


def _parts(splits: Splits) -> dict[str, Any]:
    return {"training": splits.train, **splits.held_out}
