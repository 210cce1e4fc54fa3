"""Maps of latent spaces: codes and samples over the log-volume of a metric."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from chartae.checks import check_finite, check_floating, check_integer, check_shape
from chartae.errors import ConfigurationError, DataError
from chartae.report.style import ACCENT, CURVES, SAMPLE, Array, class_colors, panels_across

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

    from chartae.geometry import Metric

__all__ = [
    "Chart",
    "Plane",
    "Square",
    "draw_codes",
    "draw_field",
    "draw_frame",
    "draw_map",
    "latent_map",
    "latent_maps",
    "log_volumes",
    "volume_bar",
]


@dataclass(frozen=True, eq=False)
class Chart:
    """The content of a map of a latent space.

    Args:
        codes: ``(N, d)`` with N and d at least 2.
        labels: class indices ``(N,)``.
        metric: a metric of the latent space, such as ``model.metric``.
        samples: latents drawn by a sampler, ``(n, d)``.
        class_names: names of the classes.

    Raises:
        DataError: for codes of another shape or dtype or that are not finite, or labels of another
            shape.
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

    @property
    def latents(self) -> list[Tensor]:
        """The codes, and the samples if they are not None: the map contains all of them."""
        return [self.codes] if self.samples is None else [self.codes, self.samples]


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

    In two dimensions the map is the latent space itself. In more dimensions it is the plane through
    the mean of the codes along their first two principal components. Codes are projected onto this
    plane. The log-volume is that of points *on* the plane, and the codes may be far from it. The
    axes give the share of the codes' variance along each component.

    Args and errors as in `Chart`; ``resolution`` is the number of points of the grey map along each
    axis.

    >>> latent_map(torch.randn(10, 5)).axes[0].get_title()
    'principal plane of 5 dimensions'
    """
    chart = Chart(codes, labels, metric, samples, class_names)
    return latent_maps({"": chart}, resolution=resolution)


def latent_maps(charts: Mapping[str, Chart], *, resolution: int = 120) -> "Figure":
    """Return maps of several latent spaces, each as in `latent_map`, on one common grey scale.

    Args:
        charts: the content of each map, by title.
        resolution: number of points of each grey map along each axis.

    Raises:
        ConfigurationError: without a chart, or for a resolution below 2.
    """
    from matplotlib.figure import Figure

    check_integer("resolution", resolution, minimum=2)
    if not charts:
        raise ConfigurationError("charts is empty: expected at least one")
    across = panels_across(len(charts))
    down = math.ceil(len(charts) / across)
    side = 6.4 if len(charts) == 1 else 9.6 / across
    figure = Figure((side * across, 0.85 * side * down), layout="constrained")
    images: list[AxesImage] = []
    for place, (title, chart) in enumerate(charts.items(), start=1):
        axes = figure.add_subplot(down, across, place)
        plane = Plane(chart.codes)
        image = draw_map(axes, chart, plane, plane.square(resolution, *chart.latents), title=title)
        images += [] if image is None else [image]
        axes.locator_params(nbins=7 if len(charts) == 1 else 3)
    if images:
        ranges = [image.get_clim() for image in images]
        for image in images:
            image.set_clim(min(low for low, _ in ranges), max(high for _, high in ranges))
        volume_bar(figure, images[0], figure.axes, shrink=min(0.85, 1.6 / down))
    return figure


# --- parts shared by other figures --------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Square:
    """A square grid on a `Plane`.

    Attributes:
        points: coordinates on the plane, ``(r, r, 2)``; the first index is along the second
            coordinate.
        extent: the sides left, right, below and above, half a step outside of the points.
    """

    points: Tensor
    extent: tuple[float, float, float, float]

    @property
    def step(self) -> float:
        """The distance between neighbouring points."""
        return float(self.points[0, 1, 0] - self.points[0, 0, 0])


class Plane:
    """The latent space itself in two dimensions, else a plane through the mean of the codes.

    Args:
        codes: ``(N, d)``, N and d at least 2.
        axes: the components, or the coordinates, that span it, from 0.
        principal: whether they are principal components of the codes, or coordinates. In two
            dimensions they are always coordinates.
    """

    def __init__(
        self, codes: Tensor, axes: tuple[int, int] = (0, 1), *, principal: bool = True
    ) -> None:
        d = codes.shape[1]
        first, second = axes
        self.title = f"coordinates {first + 1} and {second + 1} of {d}" if d > 2 else ""
        if d == 2 or not principal:
            self.basis = torch.eye(d).to(codes)[:, [first, second]]
            self.names = (f"$z_{{{first + 1}}}$", f"$z_{{{second + 1}}}$")
            mean = codes.mean(0)
            self.origin = mean - self.basis @ (mean @ self.basis)
            if d == 2:
                self.origin, self.names = codes.new_zeros(2), ("$z_1$", "$z_2$")
            return
        self.origin = codes.mean(0)
        _, scales, directions = torch.linalg.svd(codes - self.origin, full_matrices=False)
        shares = (scales.square() / scales.square().sum().clamp_min(1e-30)).tolist()
        self.basis = directions[[first, second]].mT
        self.names = (
            f"component {first + 1} ({shares[first]:.0%})",
            f"component {second + 1} ({shares[second]:.0%})",
        )
        plane = "principal plane"
        if axes != (0, 1):
            plane = f"plane of components {first + 1} and {second + 1}"
        self.title = f"{plane} of {d} dimensions"

    def through(self, z: Tensor) -> "Plane":
        """Return the parallel plane through a latent ``(d,)``, with the same coordinates."""
        moved = copy.copy(self)
        away = z - self.origin
        moved.origin = self.origin + away - self.basis @ (away @ self.basis)
        return moved

    def project(self, z: Tensor) -> Tensor:
        """Return coordinates on the plane, ``(..., 2)``, of latents ``(..., d)``."""
        return (z - self.origin) @ self.basis

    def lift(self, flat: Tensor) -> Tensor:
        """Return the latents ``(..., d)`` of points on the plane ``(..., 2)``."""
        return self.origin + flat @ self.basis.mT

    def square(self, resolution: int, *latents: Tensor) -> Square:
        """Return the square around latents, each ``(..., d)``, with a margin."""
        flat = torch.cat([self.project(z).reshape(-1, 2) for z in latents])
        low, high = flat.amin(0), flat.amax(0)
        center, half = (low + high) / 2, 0.575 * float((high - low).max()) + 1e-6
        steps = torch.linspace(-half, half, resolution, dtype=flat.dtype, device=flat.device)
        points = center + torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1)
        reach = half * resolution / (resolution - 1)  # pixels are centred on the grid's points
        x, y = center.tolist()
        return Square(points, (x - reach, x + reach, y - reach, y + reach))


@torch.no_grad()
def log_volumes(metric: "Metric", plane: Plane, square: Square) -> Tensor:
    """Return the log-volume of a metric at the points of a square, ``(r, r)``."""
    # Row by row, because a metric may need memory for every pair of point and centroid.
    return torch.stack([metric.log_volume(plane.lift(row)) for row in square.points])


@torch.no_grad()
def draw_map(
    axes: "Axes", chart: Chart, plane: Plane, square: Square, *, title: str = ""
) -> "AxesImage | None":
    """Draw a chart; return the image of the log-volume, or None without a metric."""
    image = None
    if chart.metric is not None:
        volume = log_volumes(chart.metric, plane, square)
        image = draw_field(axes, volume.cpu().numpy(), square, "gray")
    draw_codes(axes, chart, plane)
    draw_frame(axes, plane, square, title)
    return image


def draw_field(axes: "Axes", values: Array, square: Square, colors: str) -> "AxesImage":
    """Draw values ``(r, r)`` at a square's points; values that are not finite stay blank."""
    finite = np.where(np.isfinite(values), values, np.nan)
    return axes.imshow(finite, extent=square.extent, origin="lower", cmap=colors)


def draw_codes(axes: "Axes", chart: Chart, plane: Plane, size: float = 26.0) -> None:
    """Draw codes in the colours of their classes, and the samples below them."""
    points = plane.project(chart.codes).cpu().numpy()
    if chart.samples is not None:
        drawn = plane.project(chart.samples).cpu().numpy()
        color = SAMPLE if chart.labels is None else CURVES[0]  # not the colour of a class
        axes.scatter(drawn[:, 0], drawn[:, 1], s=7, color=color, linewidths=0, alpha=0.8)
    style: dict[str, Any] = {"s": size, "linewidths": 0.6, "edgecolors": "white"}
    if chart.labels is None:
        axes.scatter(points[:, 0], points[:, 1], color=ACCENT, **style)
        return
    classes = np.asarray(chart.labels)
    present = np.unique(classes)
    for color, label in zip(class_colors(len(present)), present, strict=True):
        name = chart.class_names[int(label)] if chart.class_names else str(label)
        members = points[classes == label]
        shown = name if len(present) <= 12 else None  # a longer legend would hide the map
        axes.scatter(members[:, 0], members[:, 1], color=color, label=shown, **style)


def draw_frame(
    axes: "Axes", plane: Plane, square: Square, title: str = "", *, legend: bool = True
) -> None:
    """Name the axes, limit them to the square, and add a legend if anything has a label."""
    left, right, below, above = square.extent
    axes.set(
        title=title or plane.title,
        xlabel=plane.names[0],
        ylabel=plane.names[1],
        xlim=(left, right),
        ylim=(below, above),
    )
    axes.set_aspect("equal")
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(framealpha=0.85, fontsize="small", loc="best", ncols=2)


def volume_bar(figure: "Figure", image: "AxesImage", axes: Any, **options: Any) -> None:
    """Add a colour bar for the log-volume beside ``axes``."""
    bar = figure.colorbar(image, ax=axes, pad=0.02, **options)
    bar.set_label(r"log-volume  $\frac{1}{2}\,\log\det\,G(z)$")
