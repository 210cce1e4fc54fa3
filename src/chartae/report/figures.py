"""Figures of data, trainings and studies. Each function returns a new figure.

They do not use the global state of matplotlib, so they work in any process.
"""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from chartae.augmentation import REAL, StudyResult, TrainingSet
from chartae.checks import check_integer
from chartae.errors import ConfigurationError, DataError
from chartae.report.style import ACCENT, FAINT, INK, Array, class_colors, panels_across
from chartae.training import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "aspect_ratio",
    "draw_observations",
    "image_grid",
    "one_row_per_class",
    "scaling_plot",
    "score_plot",
    "training_curves",
    "value_range",
]

FEW = 2.0
"""Percentage of the values, at each end, that may be outside of the range of images."""


# --- observations -------------------------------------------------------------------------------


def one_row_per_class(x: ArrayLike | Tensor, y: ArrayLike | Tensor, columns: int = 10) -> Array:
    """Return the first ``columns`` observations of each class, class after class.

    The row of a class with fewer observations is filled with NaN, which `image_grid` leaves blank.

    >>> one_row_per_class(np.arange(4.0)[:, None], [0, 1, 1, 0], columns=2).ravel()
    array([0., 3., 1., 2.])
    """
    check_integer("columns", columns, minimum=1)
    x, y = np.asarray(x), np.asarray(y)
    rows = []
    for label in np.unique(y):
        members = x[y == label][:columns].astype(float)
        blank = np.full((columns - len(members), *x.shape[1:]), np.nan)
        rows.append(np.concatenate([members, blank]))
    return np.concatenate(rows)


def image_grid(groups: Mapping[str, ArrayLike | Tensor], *, columns: int = 10) -> "Figure":
    """Return a figure with one panel for each group of observations, on one common scale.

    Grey images ``(n, H, W)`` or ``(n, 1, H, W)`` and colour images ``(n, 3, H, W)`` fill their
    panel row by row. Volumes are shown by their middle slice. Vectors ``(n, D)`` are drawn as
    curves over their index.

    Args:
        groups: observations by title, all of the same shape.
        columns: number of images in a row.

    Raises:
        DataError: if there is no group, a group is empty, or shapes differ.

    >>> image_grid({"real": np.zeros((20, 8, 8)), "synthetic": np.ones((20, 8, 8))}).axes
    [<Axes: title={'center': 'real'}>, <Axes: title={'center': 'synthetic'}>]
    """
    from matplotlib.figure import Figure

    check_integer("columns", columns, minimum=1)
    arrays = {title: np.asarray(x, dtype=float) for title, x in groups.items()}
    _check_groups(arrays)
    low, high = value_range(arrays.values())
    across = panels_across(len(arrays))
    down = math.ceil(len(arrays) / across)
    aspect = max(aspect_ratio(x, columns) for x in arrays.values())
    width = 3.3 if across > 1 else 5.0
    figure = Figure((width * across, (width * aspect + 0.35) * down), layout="constrained")
    for place, (title, x) in enumerate(arrays.items(), start=1):
        axes = figure.add_subplot(down, across, place, title=title)
        draw_observations(axes, x, columns, low, high)
    return figure


def _check_groups(arrays: Mapping[str, Array]) -> None:
    if not arrays:
        raise DataError("groups is empty: expected at least one group of observations")
    shapes = {x.shape[1:] for x in arrays.values()}
    if len(shapes) > 1:
        raise DataError(f"groups hold observations of shapes {sorted(shapes)}: expected one shape")
    for title, x in arrays.items():
        if x.ndim < 2 or not np.isfinite(x).any():
            raise DataError(
                f"group {title!r} has shape {x.shape}: expected (n, *input_shape), with at least "
                "one finite value"
            )


def value_range(arrays: Iterable[Array]) -> tuple[float, float]:
    """Return the scale on which observations are drawn.

    It is [0, 1] if all values are in [0, 1], even if they cover only a part of it: the figure must
    not increase the contrast. For images a few values may be outside, because of a decoder or
    noise. In other cases the scale is from the minimum to the maximum.

    >>> value_range([np.array([0.4, 0.6])]), value_range([np.array([0.4]), np.array([3.0])])
    ((0.0, 1.0), (0.4, 3.0))
    """
    arrays = list(arrays)
    values = np.concatenate([np.ravel(x) for x in arrays])
    few = FEW if any(x.ndim > 2 for x in arrays) else 0.0
    usual = np.nanpercentile(values, [few, 100.0 - few])
    if usual[0] >= -0.05 and usual[1] <= 1.05:
        return 0.0, 1.0
    return float(np.nanmin(values)), float(np.nanmax(values))


def aspect_ratio(x: Array, columns: int) -> float:
    """Return height divided by width of the drawing of `draw_observations`."""
    if x.ndim == 2:
        return 0.75
    height, width = _sheet_shape(x, columns)
    return height / width


def draw_observations(axes: "Axes", x: Array, columns: int, low: float, high: float) -> None:
    """Draw observations ``(n, *input_shape)``, on a scale from ``low`` to ``high``.

    Images are laid out in rows of ``columns``; vectors are curves over their index.
    """
    if x.ndim == 2:
        axes.plot(x.T, color=ACCENT, alpha=min(0.8, 5.0 / len(x)), linewidth=0.8)
        axes.set(ylim=(low, high) if low < high else None, xlabel="feature")
        return
    sheet = _contact_sheet(x, columns)
    if sheet.ndim == 3:  # colours have a last channel of transparency
        sheet[..., :3] = ((sheet[..., :3] - low) / ((high - low) or 1.0)).clip(0, 1)
    axes.imshow(sheet, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    axes.set_axis_off()


def _sheet_shape(x: Array, columns: int) -> tuple[int, int]:
    """Return height and width of the sheet of images, in pixels."""
    height, width = _as_image(x[0]).shape[:2]
    rows, columns = math.ceil(len(x) / columns), min(columns, len(x))
    gap = _gap(height)
    return rows * (height + gap) - gap, columns * (width + gap) - gap


def _gap(height: int) -> int:
    """Return the number of pixels between images of this height."""
    return max(1, height // 12)


def _contact_sheet(x: Array, columns: int) -> Array:
    """Arrange images in rows, with gaps of NaN, which stay blank."""
    images = [_as_image(observation) for observation in x]
    height, width = images[0].shape[:2]
    gap = _gap(height)
    sheet = np.full((*_sheet_shape(x, columns), *images[0].shape[2:]), np.nan)
    for index, image in enumerate(images):
        top, left = (height + gap) * (index // columns), (width + gap) * (index % columns)
        sheet[top : top + height, left : left + width] = image
    if sheet.ndim == 3:  # blank pixels of a colour image must be transparent
        alpha = np.isfinite(sheet).all(-1, keepdims=True)
        sheet = np.concatenate([np.where(alpha, sheet, 0.0), alpha], axis=-1)
    return sheet


def _as_image(observation: Array) -> Array:
    """Return ``(H, W)`` or ``(H, W, 3)``."""
    if observation.ndim == 2:
        return observation
    if observation.ndim == 3 and observation.shape[0] in (3, 4):  # without transparency
        return np.moveaxis(observation[:3], 0, -1)
    if observation.shape[0] == 1:
        return _as_image(observation[0])
    return _as_image(observation[len(observation) // 2])


# --- trainings and studies ----------------------------------------------------------------------


def training_curves(histories: Mapping[str, History]) -> "Figure":
    """Return a figure of the loss terms of trainings over epochs, and of their use of latents.

    Each term has a panel. Solid lines are the training set, dashed lines the validation set. A dot
    marks the epoch whose weights were kept.

    Raises:
        ConfigurationError: if no training has an epoch.
    """
    from matplotlib.figure import Figure

    terms = list(
        dict.fromkeys(
            term for h in histories.values() for record in (h.train, h.latents) for term in record
        )
    )
    if not terms:
        raise ConfigurationError(
            "histories have no epoch: expected at least one epoch of one training"
        )
    across = panels_across(len(terms))
    down = math.ceil(len(terms) / across)
    figure = Figure((3.4 * across, 2.9 * down), layout="constrained")
    for place, term in enumerate(terms, start=1):
        title = term.replace("_", " ")
        axes = figure.add_subplot(down, across, place, title=title, xlabel="epoch")
        for color, (name, history) in zip(
            class_colors(len(histories)), histories.items(), strict=True
        ):
            _draw_term(axes, history, term, color, name)
        if max(history.num_epochs for history in histories.values()) > 50:
            axes.set_xscale("log")  # the first epochs change as much as all the others
        else:
            axes.locator_params(axis="x", integer=True)
        axes.spines[["top", "right"]].set_visible(False)
    if 1 < len(histories) <= 12:
        figure.axes[-1].legend(frameon=False, fontsize="small", ncols=2)
    return figure


def _draw_term(axes: "Axes", history: History, term: str, color: Any, name: str) -> None:
    for record, style in (({**history.train, **history.latents}, "-"), (history.validation, "--")):
        values = record.get(term, [])
        label = name if style == "-" else None
        axes.plot(range(1, len(values) + 1), values, style, color=color, linewidth=1.2, label=label)
        kept = history.best_epoch
        if values and kept is not None:
            axes.plot(kept + 1, values[kept], ".", color=color)


def score_plot(study: StudyResult) -> "Figure":
    """Return a figure of the scores of a study, with one panel for each classifier.

    The band shows real data alone: mean and standard deviation over draws. Filled dots show real
    and synthetic data, hollow dots synthetic data only, with bars of one standard deviation.
    """
    from matplotlib.figure import Figure

    count = len(study.classifiers)
    across = min(2, count)
    down = math.ceil(count / across)
    height = 0.75 + 0.42 * len(_made(study))
    figure = Figure((4.2 * across, height * down + 0.4), layout="constrained")
    for place, classifier in enumerate(study.classifiers, start=1):
        axes = figure.add_subplot(down, across, place, title=classifier)
        _draw_scores(axes, study, classifier)
        if place > count - across:
            axes.set_xlabel(f"test {study.title} (%)")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def scaling_plot(studies: Mapping[int, StudyResult]) -> "Figure":
    """Return a figure of scores against the number of real examples of each class (Fig. 1.6).

    It has one panel for each classifier, and one line for each training set: solid with real
    examples, dashed for synthetic ones only. Bars are one standard deviation over repeats.

    Args:
        studies: studies of the same methods and classifiers, by the number of examples.
    """
    from matplotlib.figure import Figure

    first = next(iter(studies.values()))
    sizes = sorted(studies)
    shared = [
        one for one in first.training_sets if all(one in s.training_sets for s in studies.values())
    ]
    across = min(2, len(first.classifiers))
    down = math.ceil(len(first.classifiers) / across)
    figure = Figure((4.6 * across, 3.2 * down + 0.25 * len(shared)), layout="constrained")
    colours = dict.fromkeys(one.method for one in shared)
    for place, classifier in enumerate(first.classifiers, start=1):
        axes = figure.add_subplot(down, across, place, title=classifier, xscale="log")
        for row in shared:
            scores = [100.0 * studies[size].scores(row, classifier) for size in sizes]
            axes.errorbar(
                sizes,
                [of.mean() for of in scores],
                [of.std(ddof=1) if len(of) > 1 else 0.0 for of in scores],
                label=str(row),
                color=INK if row == REAL else f"C{list(colours).index(row.method)}",
                linestyle="dashed" if row.part == "synthetic only" else "solid",
                marker="o",
                markersize=3,
                capsize=2,
            )
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel("real examples of each class")
        axes.set_ylabel(f"test {first.title} (%)")
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=across, frameon=False)
    return figure


def _made(study: StudyResult) -> dict[tuple[str | None, str | None], str]:
    """Return the label of each method and number of samples."""
    rows = zip(study.training_sets, study.labels(), strict=True)
    return {(s.method, s.number): label for s, label in rows if s.part == "real + synthetic"}


def _draw_scores(axes: "Axes", study: StudyResult, classifier: str) -> None:
    def spread(training_set: TrainingSet) -> tuple[float, float]:
        scores = 100.0 * study.scores(training_set, classifier)
        return float(scores.mean()), float(scores.std(ddof=1)) if len(scores) > 1 else 0.0

    mean, deviation = spread(REAL)
    axes.axvspan(mean - deviation, mean + deviation, color=FAINT, alpha=0.35, linewidth=0)
    axes.axvline(mean, color=INK, linewidth=1, label="real")
    made = _made(study)
    heights = dict(zip(made, range(len(made) - 1, -1, -1), strict=True))
    for part, shift, fill in (
        ("real + synthetic", 0.13, ACCENT),
        ("synthetic only", -0.13, "white"),
    ):
        rows = [row for row in study.training_sets if row.part == part]
        if not rows:
            continue
        means, deviations = zip(*map(spread, rows), strict=True)
        positions = [heights[row.method, row.number] + shift for row in rows]
        axes.errorbar(
            means, positions, xerr=deviations, fmt="o", color=ACCENT, label=part,
            markerfacecolor=fill, markersize=5, elinewidth=1.2, capsize=2,
        )  # fmt: skip
    axes.set_yticks(list(heights.values()), list(made.values()))
    axes.set_ylim(-0.6, len(made) - 0.4)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
