"""Figures of data, latent spaces, trainings and studies. Each function returns a new figure.

They use matplotlib's objects and never its global state, so that they work in any process.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from chartae.augmentation import REAL, StudyResult, TrainingSet
from chartae.checks import check_finite, check_floating, check_integer, check_shape
from chartae.errors import ConfigurationError, DataError
from chartae.training import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

    from chartae.geometry import Metric

__all__ = [
    "Chart",
    "accuracy_plot",
    "image_grid",
    "latent_map",
    "latent_maps",
    "one_row_per_class",
    "training_curves",
]

Array = NDArray[Any]

INK, FAINT, ACCENT, SAMPLE = "#333333", "#b8b8b8", "#1f8fb5", "#f2a33a"


# --- observations -------------------------------------------------------------------------------


def one_row_per_class(x: ArrayLike | Tensor, y: ArrayLike | Tensor, columns: int = 10) -> Array:
    """Return the first ``columns`` observations of each class, class after class.

    A class with fewer repeats none: its row is filled with NaN, which `image_grid` leaves blank.

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
    """Return a contact sheet: one panel for each group of observations, on one common scale.

    Grey images ``(n, H, W)`` or ``(n, 1, H, W)`` and colour images ``(n, 3, H, W)`` fill their
    panel row by row; of volumes the middle slice is shown. Vectors ``(n, D)`` are drawn as curves
    over their index.

    Args:
        groups: observations by title, all of one shape.
        columns: images in a row.

    Raises:
        DataError: without a group, for an empty one, or for shapes that differ.

    >>> image_grid({"real": np.zeros((20, 8, 8)), "synthetic": np.ones((20, 8, 8))}).axes
    [<Axes: title={'center': 'real'}>, <Axes: title={'center': 'synthetic'}>]
    """
    from matplotlib.figure import Figure

    check_integer("columns", columns, minimum=1)
    arrays = {title: np.asarray(x, dtype=float) for title, x in groups.items()}
    _check_groups(arrays)
    low = min(float(np.nanmin(x)) for x in arrays.values())
    high = max(float(np.nanmax(x)) for x in arrays.values())
    across = _across(len(arrays))
    down = math.ceil(len(arrays) / across)
    vectors = next(iter(arrays.values())).ndim == 2
    sheets = {} if vectors else {t: _contact_sheet(x, columns) for t, x in arrays.items()}
    aspect = 0.75 if vectors else max(s.shape[0] / s.shape[1] for s in sheets.values())
    width = 3.3 if across > 1 else 5.0
    figure = Figure((width * across, (width * aspect + 0.35) * down), layout="constrained")
    for place, (title, x) in enumerate(arrays.items(), start=1):
        axes = figure.add_subplot(down, across, place, title=title)
        if vectors:
            axes.plot(x.T, color=ACCENT, alpha=min(0.8, 5.0 / len(x)), linewidth=0.8)
            axes.set(ylim=(low, high) if low < high else None, xlabel="feature")
        else:
            sheet = sheets[title]
            scaled = (sheet - low) / ((high - low) or 1.0) if sheet.ndim == 3 else sheet
            axes.imshow(scaled, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            axes.set_axis_off()
    return figure


def _across(panels: int) -> int:
    """Return how many panels to put side by side."""
    return {1: 1, 2: 2, 4: 2}.get(panels, 3 if panels <= 9 else 4)


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


def _contact_sheet(x: Array, columns: int) -> Array:
    """Lay images out in rows, with a one-pixel gap of NaN, which is drawn as nothing."""
    images = [_as_image(observation) for observation in x]
    height, width = images[0].shape[:2]
    rows, columns = math.ceil(len(images) / columns), min(columns, len(images))
    gap = max(1, height // 12)
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, *images[0].shape[2:])
    sheet = np.full(shape, np.nan)
    for index, image in enumerate(images):
        top, left = (height + gap) * (index // columns), (width + gap) * (index % columns)
        sheet[top : top + height, left : left + width] = image
    if sheet.ndim == 3:  # colour has no value for "nothing" but transparency
        alpha = np.isfinite(sheet).all(-1, keepdims=True)
        sheet = np.concatenate([np.where(alpha, sheet, 0.0), alpha], axis=-1)
    return sheet


def _as_image(observation: Array) -> Array:
    """Return ``(H, W)`` or ``(H, W, 3)``."""
    if observation.ndim == 2:
        return observation
    if observation.ndim == 3 and observation.shape[0] == 3:
        return np.moveaxis(observation, 0, -1)
    if observation.shape[0] == 1:
        return _as_image(observation[0])
    return _as_image(observation[len(observation) // 2])


# --- the latent space ---------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Chart:
    """What a map of a latent space shows.

    Args:
        codes: ``(N, d)`` with N and d at least 2.
        labels: class indices ``(N,)``.
        metric: a metric of the latent space, ``model.metric``.
        samples: latents that a sampler drew, ``(n, d)``.
        class_names: names of the classes.

    Raises:
        DataError: for codes that are not of this form, or labels of another number.
    """

    codes: Tensor
    labels: ArrayLike | Tensor | None = None
    metric: "Metric | None" = None
    samples: Tensor | None = None
    class_names: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_floating("codes", self.codes)
        check_shape("codes", self.codes, ("N", "d"))
        check_finite("codes", self.codes)
        n, d = self.codes.shape
        if min(n, d) < 2:
            raise DataError(f"codes has shape {(n, d)}: expected (N, d), both at least 2")
        if self.samples is not None:
            check_shape("samples", self.samples, ("n", d))
        if self.labels is not None and np.shape(self.labels) != (n,):
            raise DataError(f"labels has shape {np.shape(self.labels)}: expected ({n},)")


def latent_map(
    codes: Tensor,
    labels: ArrayLike | Tensor | None = None,
    metric: "Metric | None" = None,
    *,
    samples: Tensor | None = None,
    class_names: Sequence[str] = (),
    resolution: int = 120,
) -> "Figure":
    """Return a map of the latent space: codes in colour over the metric's log-volume in grey.

    In two dimensions the map is the latent space itself. In more, it is the plane through the
    mean of the codes along their first two principal components: codes are projected onto it, and
    the log-volume is that of points *on* the plane, from which the codes may be far; the axes say
    how much of the codes' variance the plane holds.

    Args and errors as in `Chart`; ``resolution`` is that of the grey map, along each axis.

    >>> latent_map(torch.randn(10, 5)).axes[0].get_title()
    'principal plane of 5 dimensions'
    """
    chart = Chart(codes, labels, metric, samples, class_names)
    return latent_maps({"": chart}, resolution=resolution)


@torch.no_grad()
def latent_maps(charts: Mapping[str, Chart], *, resolution: int = 120) -> "Figure":
    """Return maps of several latent spaces, each as in `latent_map`, on one common grey scale.

    Args:
        charts: what to show, by title.
        resolution: points of each grey map along each axis.
    """
    from matplotlib.figure import Figure

    check_integer("resolution", resolution, minimum=2)
    if not charts:
        raise ConfigurationError("charts is empty: expected at least one")
    across = _across(len(charts))
    down = math.ceil(len(charts) / across)
    side = 6.4 if len(charts) == 1 else 9.6 / across
    figure = Figure((side * across, 0.85 * side * down), layout="constrained")
    images: list[AxesImage] = []
    ranges: list[float] = []
    for place, (title, chart) in enumerate(charts.items(), start=1):
        axes = figure.add_subplot(down, across, place)
        plane = _Plane(chart.codes)
        axes.set(title=title or plane.title, xlabel=plane.names[0], ylabel=plane.names[1])
        if chart.metric is not None:
            values, extent = _log_volume(chart.metric, plane, chart, resolution)
            ranges += [float(values.min()), float(values.max())]
            images.append(axes.imshow(values, extent=extent, origin="lower", cmap="gray"))
        _draw_codes(axes, chart, plane)
        axes.set_aspect("equal", adjustable="datalim" if chart.metric is None else "box")
        axes.locator_params(nbins=7 if len(charts) == 1 else 3)
    if images:
        for image in images:
            image.set_clim(min(ranges), max(ranges))
        bar = figure.colorbar(images[0], ax=figure.axes, shrink=min(0.85, 1.6 / down), pad=0.02)
        bar.set_label(r"log-volume  $\frac{1}{2}\,\log\det\,G(z)$")
    return figure


class _Plane:
    """The latent space itself if it is a plane, else the principal plane of the codes."""

    def __init__(self, codes: Tensor) -> None:
        d = codes.shape[1]
        if d == 2:
            self.origin, self.basis = codes.new_zeros(2), torch.eye(2).to(codes)
            self.names, self.title = ("$z_1$", "$z_2$"), ""
            return
        self.origin = codes.mean(0)
        _, scales, directions = torch.linalg.svd(codes - self.origin, full_matrices=False)
        shares = (scales.square() / scales.square().sum().clamp_min(1e-30)).tolist()
        self.basis = directions[:2].mT
        self.names = (f"component 1 ({shares[0]:.0%})", f"component 2 ({shares[1]:.0%})")
        self.title = f"principal plane of {d} dimensions"

    def project(self, z: Tensor) -> Tensor:
        """Return the coordinates on the plane, ``(n, 2)``, of latents ``(n, d)``."""
        return (z - self.origin) @ self.basis

    def lift(self, flat: Tensor) -> Tensor:
        """Return the latents ``(..., d)`` of points on the plane ``(..., 2)``."""
        return self.origin + flat @ self.basis.mT


def _log_volume(
    metric: "Metric", plane: _Plane, chart: Chart, resolution: int
) -> tuple[Array, tuple[float, float, float, float]]:
    """Return the log-volume on a square of the plane around all latents, and its extent."""
    shown = chart.codes if chart.samples is None else torch.cat([chart.codes, chart.samples])
    flat = plane.project(shown)
    low, high = flat.amin(0), flat.amax(0)
    center, half = (low + high) / 2, 0.575 * float((high - low).max()) + 1e-6
    steps = torch.linspace(-half, half, resolution).to(flat)
    grid = center + torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1)
    values = metric.log_volume(plane.lift(grid)).cpu().numpy()
    reach = half * resolution / (resolution - 1)  # pixels are centred on the grid's points
    x, y = center.tolist()
    return values, (x - reach, x + reach, y - reach, y + reach)


def _draw_codes(axes: "Axes", chart: Chart, plane: _Plane) -> None:
    points = plane.project(chart.codes).cpu().numpy()
    if chart.samples is not None:
        drawn = plane.project(chart.samples).cpu().numpy()
        axes.scatter(drawn[:, 0], drawn[:, 1], s=4, color=SAMPLE, linewidths=0, alpha=0.7)
    style: dict[str, Any] = {"s": 26, "linewidths": 0.6, "edgecolors": "white"}
    if chart.labels is None:
        axes.scatter(points[:, 0], points[:, 1], color=ACCENT, **style)
        return
    classes = np.asarray(chart.labels)
    present = np.unique(classes)
    for color, label in zip(_colors(len(present)), present, strict=True):
        name = chart.class_names[int(label)] if chart.class_names else str(label)
        members = points[classes == label]
        axes.scatter(members[:, 0], members[:, 1], color=color, label=name, **style)
    if len(present) <= 12:
        axes.legend(framealpha=0.85, fontsize="small", loc="best", ncols=2)


def _colors(count: int) -> list[Any]:
    from matplotlib import colormaps

    if count <= 10:
        return [colormaps["tab10"](index) for index in range(count)]
    return [colormaps["turbo"](index / (count - 1)) for index in range(count)]


# --- trainings and studies ----------------------------------------------------------------------


def training_curves(histories: Mapping[str, History]) -> "Figure":
    """Return the terms of one or more trainings over epochs, a panel for each term.

    Solid lines are training, dashed ones validation, dots the epochs whose weights were kept.

    Raises:
        ConfigurationError: if there is no epoch to show.
    """
    from matplotlib.figure import Figure

    terms = list(dict.fromkeys(term for history in histories.values() for term in history.train))
    if not terms:
        raise ConfigurationError("histories hold no epoch: expected at least one of one training")
    figure = Figure((3.4 * len(terms), 2.9), layout="constrained")
    for place, term in enumerate(terms, start=1):
        axes = figure.add_subplot(1, len(terms), place, title=term, xlabel="epoch")
        for color, (name, history) in zip(_colors(len(histories)), histories.items(), strict=True):
            _draw_term(axes, history, term, color, name)
        if max(history.num_epochs for history in histories.values()) > 50:
            axes.set_xscale("log")  # the first epochs change as much as all the others
        axes.spines[["top", "right"]].set_visible(False)
    if 1 < len(histories) <= 12:
        figure.axes[-1].legend(frameon=False, fontsize="small", ncols=2)
    return figure


def _draw_term(axes: "Axes", history: History, term: str, color: Any, name: str) -> None:
    for record, style in ((history.train, "-"), (history.validation, "--")):
        values = record.get(term, [])
        label = name if style == "-" else None
        axes.plot(range(1, len(values) + 1), values, style, color=color, linewidth=1.2, label=label)
        kept = history.best_epoch
        if values and kept is not None:
            axes.plot(kept + 1, values[kept], ".", color=color)


def accuracy_plot(study: StudyResult) -> "Figure":
    """Return the accuracies of a study, a panel for each classifier.

    The band is real data alone: mean and standard deviation over draws. Full dots are real and
    synthetic, hollow ones synthetic only, with the same spread.
    """
    from matplotlib.figure import Figure

    count = len(study.classifiers)
    across = min(2, count)
    down = math.ceil(count / across)
    height = 0.75 + 0.42 * len(study.methods)
    figure = Figure((4.2 * across, height * down + 0.4), layout="constrained")
    for place, classifier in enumerate(study.classifiers, start=1):
        axes = figure.add_subplot(down, across, place, title=classifier)
        _draw_accuracies(axes, study, classifier)
        if place > count - across:
            axes.set_xlabel("test accuracy (%)")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _draw_accuracies(axes: "Axes", study: StudyResult, classifier: str) -> None:
    def spread(training_set: TrainingSet) -> tuple[float, float]:
        scores = 100.0 * study.scores(training_set, classifier)
        return float(scores.mean()), float(scores.std(ddof=1)) if len(scores) > 1 else 0.0

    mean, deviation = spread(REAL)
    axes.axvspan(mean - deviation, mean + deviation, color=FAINT, alpha=0.35, linewidth=0)
    axes.axvline(mean, color=INK, linewidth=1, label="real")
    positions = np.arange(len(study.methods))[::-1]
    for part, shift, fill in (
        ("real + synthetic", 0.13, ACCENT),
        ("synthetic only", -0.13, "white"),
    ):
        rows = [row for row in study.training_sets if row.part == part]
        means, deviations = zip(*map(spread, rows), strict=True)
        axes.errorbar(
            means, positions + shift, xerr=deviations, fmt="o", color=ACCENT, label=part,
            markerfacecolor=fill, markersize=5, elinewidth=1.2, capsize=2,
        )  # fmt: skip
    axes.set_yticks(positions, study.methods)
    axes.set_ylim(-0.6, len(study.methods) - 0.4)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
