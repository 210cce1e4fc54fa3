"""Figures of the geometry of a latent space: curves, distances and chains on its map.

Each function returns a new figure. Curves are drawn on the map of a `Chart`. In more than two
dimensions the map is the principal plane of the codes, and curves are projected onto it.
"""

from collections.abc import Callable, Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from chartae.checks import check_finite, check_floating, check_integer, check_shape
from chartae.errors import ConfigurationError, DataError
from chartae.geometry import Chain, Metric, check_points, exponential_path
from chartae.report.distances import nearest, plane_distances
from chartae.report.figures import aspect_ratio, draw_observations, value_range
from chartae.report.latent import (
    Chart,
    Plane,
    Square,
    draw_codes,
    draw_field,
    draw_frame,
    draw_map,
    volume_bar,
)
from chartae.report.style import CURVES, INK, Array, class_colors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["chain_traces", "distance_field", "exponential_fan", "interpolation_figure"]

STYLES = ("--", "-", "-.", ":")


# --- interpolations -----------------------------------------------------------------------------


@torch.no_grad()
def interpolation_figure(
    chart: Chart,
    curves: Mapping[str, Tensor],
    decode: Callable[[Tensor], Tensor],
    *,
    columns: int = 10,
    ends: Tensor | None = None,
    resolution: int = 120,
) -> "Figure":
    """Return curves on the latent map, with the decoded points of each curve below it.

    It is like Figures 1.2 and 3.1 of the thesis. Dots mark the decoded points. They are evenly
    spaced in the curve's own parameter; on a geodesic this means equal Riemannian distances.

    Args:
        chart: the map.
        curves: curves by name, as in ``{"straight line": line, "geodesic": path}``, ``(T, d)``; or
            ``(P, T, d)`` for P pairs of ends, which are then numbered.
        decode: a function from latents ``(n, d)`` to observations ``(n, *input_shape)``, such as
            ``model.decode``.
        columns: number of observations shown for each curve, at least 2.
        ends: the two observations that the curves join, ``(2, *input_shape)``, shown in a row of
            their own; None shows none.
        resolution: number of points of the grey map along each axis.

    Raises:
        DataError: for curves of another shape, or not finite.
        ConfigurationError: without a curve, or for a number out of range.

    >>> codes = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    >>> def decode(z):
    ...     return z[:, :, None] * torch.ones(4)
    >>> figure = interpolation_figure(Chart(codes), {"straight line": codes}, decode, columns=2)
    >>> [axes.get_title(loc="left") for axes in figure.axes]
    ['', 'straight line']
    """
    from matplotlib.figure import Figure

    check_integer("columns", columns, minimum=2)
    check_integer("resolution", resolution, minimum=2)
    paths = _as_paths(chart, curves)
    count = len(next(iter(paths.values())))
    rows = [(name, pair) for pair in range(count) for name in paths]
    shown = {name: path[:, _spread(path.shape[1], columns)] for name, path in paths.items()}
    strips = [decode(shown[name][pair]).cpu().numpy() for name, pair in rows]
    titles = [f"{name} {pair + 1}" if count > 1 else name for name, pair in rows]
    colors = dict(zip(paths, cycle(CURVES), strict=False))
    inks = [colors[name] for name, _ in rows]
    if ends is not None:
        strips.insert(0, _at_both_ends(ends.cpu().numpy(), columns))
        titles.insert(0, "the two originals")
        inks.insert(0, INK)

    width, side = 7.0, 5.6
    heights = [side, *(width * aspect_ratio(strip, columns) + 0.3 for strip in strips)]
    figure = Figure((width, sum(heights)), layout="constrained")
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    plane = Plane(chart.codes)
    square = plane.square(resolution, *chart.latents, *paths.values())
    axes = figure.add_subplot(grid[0])
    for (name, path), style in zip(paths.items(), cycle(STYLES), strict=False):
        draw_curves(axes, plane.project(path), colors[name], style, label=name)
        _draw_points(axes, plane.project(shown[name]), colors[name])
    _draw_ends(axes, plane.project(next(iter(paths.values()))))
    image = draw_map(axes, chart, plane, square, title=_projected(plane))
    if image is not None:
        volume_bar(figure, image, axes, shrink=0.85)
    low, high = value_range(strips)
    for place, (title, ink, strip) in enumerate(zip(titles, inks, strips, strict=True), start=1):
        axes = figure.add_subplot(grid[place])
        draw_observations(axes, strip, columns, low, high)
        axes.set_title(title, loc="left", color=ink, fontsize="medium")
    return figure


def _at_both_ends(ends: Array, columns: int) -> Array:
    """Return a row with the first observation at its start and the last at its end."""
    if ends.ndim == 2:
        return ends
    blank = np.full((columns - 2, *ends.shape[1:]), np.nan)
    return np.concatenate([ends[:1], blank, ends[1:]])


def _as_paths(chart: Chart, curves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return each curve as ``(P, T, d)``, with the same P for all."""
    if not curves:
        raise ConfigurationError("curves is empty: expected at least one")
    d = chart.codes.shape[1]
    paths = {}
    for name, curve in curves.items():
        check_floating(f"curves[{name!r}]", curve)
        path = curve[None] if curve.dim() == 2 else curve
        check_shape(f"curves[{name!r}]", path, ("P", "T", d))
        check_finite(f"curves[{name!r}]", path)
        paths[name] = path
    if len({len(path) for path in paths.values()}) > 1 or not all(
        p.numel() for p in paths.values()
    ):
        shapes = {name: tuple(path.shape) for name, path in paths.items()}
        raise DataError(
            f"curves have shapes {shapes}: expected the same number P of pairs, and points"
        )
    return paths


def _spread(length: int, count: int) -> Tensor:
    """Return ``count`` indices from 0 to ``length - 1``, as evenly spaced as possible."""
    return torch.linspace(0, length - 1, count, dtype=torch.float64).round().long()


def _projected(plane: Plane) -> str:
    """Return the title of a map with curves on it."""
    return f"{plane.title}; curves are projected onto it" if plane.title else ""


def draw_curves(
    axes: "Axes", curves: Tensor, color: Any, style: str = "-", label: str | None = None
) -> None:
    """Draw curves on the plane, ``(..., T, 2)``, with a white outline to be visible on any grey."""
    from matplotlib.patheffects import Normal, Stroke

    halo = [Stroke(linewidth=3.4, foreground="white", alpha=0.8), Normal()]
    for curve in curves.reshape(-1, *curves.shape[-2:]).cpu().numpy():
        axes.plot(
            curve[:, 0], curve[:, 1], style, color=color, linewidth=1.8, label=label,
            path_effects=halo, zorder=3,
        )  # fmt: skip
        label = None


def _draw_points(axes: "Axes", points: Tensor, color: Any) -> None:
    flat = points.reshape(-1, 2).cpu().numpy()
    axes.scatter(flat[:, 0], flat[:, 1], s=16, color=color, edgecolors="white", zorder=4)


def _draw_ends(axes: "Axes", curves: Tensor) -> None:
    """Mark where curves ``(P, T, 2)`` start and end, and number them if there are several."""
    ends = curves[:, [0, -1]].cpu().numpy()
    x, y = ends.reshape(-1, 2).T
    axes.scatter(x, y, s=90, color="white", edgecolors=INK, zorder=5)
    for number, (start, _) in enumerate(ends, start=1):
        if len(ends) > 1:
            axes.annotate(
                str(number),
                start,
                ha="center",
                va="center",
                fontsize="x-small",
                color=INK,
                zorder=6,
            )


# --- distances ----------------------------------------------------------------------------------


@torch.no_grad()
def distance_field(
    chart: Chart,
    source: Tensor,
    *,
    metric: Metric | None = None,
    curves: Mapping[str, Tensor] | None = None,
    resolution: int = 120,
) -> "Figure":
    r"""Return the Riemannian distance from a point as colours on the plane, with curves over it.

    Distances are lengths of shortest paths in a graph, by Dijkstra's algorithm. The graph joins
    every grid point to those at most five rows and columns away (80 directions). Paths stay in the
    square that is drawn, and in more than two dimensions on the plane. So they may be longer than
    shortest paths of the latent space.

    Because the graph has few directions, distances are too long: by at most about 0.5 % if the
    metric is a multiple of the identity, 2 % if lengths in one direction are doubled, 11 % if they
    are five times as large. The graph may miss structures narrower than a step of the grid.

    The colour scale ends at the distance that contains nine tenths of the codes.
    For few points and exact distances, use `chartae.geometry.distance`.

    Args:
        chart: the map.
        source: the point, ``(d,)``; projected onto the plane if d is more than 2.
        metric: the metric of the distances; None takes the chart's.
        curves: curves to draw over the distances, as in `interpolation_figure`.
        resolution: number of grid points along each axis.

    Raises:
        ConfigurationError: without a metric, or for a resolution below 2.
        DataError: for a source or curves of another dimension than the codes, or not finite.

    >>> from chartae.geometry import EuclideanMetric
    >>> chart = Chart(torch.randn(9, 2), metric=EuclideanMetric(2))
    >>> distance_field(chart, torch.zeros(2), resolution=20).axes[-1].get_ylabel()
    'Riemannian distance from the star'
    """
    from matplotlib.figure import Figure

    check_integer("resolution", resolution, minimum=2)
    measure = _metric_of(chart, metric)
    check_shape("source", source, (chart.codes.shape[1],))
    paths = _as_paths(chart, curves) if curves else {}
    plane = Plane(chart.codes)
    center = plane.project(source)
    check_points(measure, source=plane.lift(center))
    square = plane.square(resolution, *chart.latents, source, *paths.values())
    values = plane_distances(measure, plane, square, center)

    figure = Figure((6.4, 5.6), layout="constrained")
    axes = figure.add_subplot()
    image = draw_field(axes, values, square, "viridis")
    # The colour scale covers the data: low-density regions, and codes beyond one, may be orders of
    # magnitude farther away.
    known = nearest(values, square, plane.project(chart.codes))
    reach = np.quantile(known, 0.9, method="lower")  # a value of the data, without interpolation
    if np.isfinite(reach) and reach > 0:
        image.set_clim(0.0, float(reach))
        x, y = square.points[0, :, 0].cpu().numpy(), square.points[:, 0, 1].cpu().numpy()
        levels = np.linspace(0.0, float(reach), 13)[1:]
        axes.contour(x, y, values, levels=levels, colors="white", linewidths=0.5, alpha=0.6)
    draw_codes(axes, chart, plane, size=16.0)
    colors = zip(paths.items(), cycle(CURVES), cycle(STYLES))
    for (name, path), color, style in colors:
        draw_curves(axes, plane.project(path), color, style, label=name)
    star = center.tolist()
    axes.plot(*star, "*", markersize=16, color="white", markeredgecolor=INK, zorder=5)
    title = f"{plane.title}; distances along paths on it" if plane.title else ""
    draw_frame(axes, plane, square, title)
    bar = figure.colorbar(image, ax=axes, pad=0.02, extend="max")
    bar.set_label("Riemannian distance from the star")
    return figure


def _metric_of(chart: Chart, metric: Metric | None) -> Metric:
    found = chart.metric if metric is None else metric
    if found is None:
        raise ConfigurationError("metric=None, and the chart has none: expected a metric")
    return found


# --- geodesics from a point ---------------------------------------------------------------------


@torch.no_grad()
def exponential_fan(
    chart: Chart,
    start: Tensor,
    velocities: Tensor,
    *,
    metric: Metric | None = None,
    num_steps: int = 100,
    resolution: int = 120,
) -> "Figure":
    """Return geodesics of unit time from points with given velocities (thesis Figure 2.1).

    Arrows show the initial velocities, all on one scale. Dots mark the ends.

    Args:
        chart: the map. It covers the codes and the starting points; parts of geodesics outside of
            it are not shown.
        start: ``(d,)``, or ``(P, d)`` for P points.
        velocities: ``(V, d)``, the same at each point, or ``(P, V, d)``.
        metric: the metric of the geodesics; None takes the chart's.
        num_steps: number of steps of the integrator, see `chartae.geometry.exponential_path`.
        resolution: number of points of the grey map along each axis.

    Raises:
        ConfigurationError: without a metric, or for a number out of range.
        DataError: for points or velocities of another shape than these, or not finite.
        DivergenceError: if a geodesic is no longer finite.

    >>> from chartae.geometry import PoincareMetric
    >>> chart = Chart(0.3 * torch.randn(9, 2).tanh(), metric=PoincareMetric(2))
    >>> velocities = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> len(exponential_fan(chart, torch.zeros(2), velocities).axes[0].lines)
    2
    """
    from matplotlib.figure import Figure

    check_integer("resolution", resolution, minimum=2)
    d = chart.codes.shape[1]
    points = start[None] if start.dim() == 1 else start
    check_shape("start", points, ("P", d))
    if velocities.dim() == 2:
        velocities = velocities.expand(len(points), -1, -1)
    check_shape("velocities", velocities, (len(points), "V", d))
    origins = points[:, None].expand_as(velocities)
    paths = exponential_path(_metric_of(chart, metric), origins, velocities, num_steps=num_steps)

    figure = Figure((6.4, 5.6), layout="constrained")
    axes = figure.add_subplot()
    plane = Plane(chart.codes)
    square = plane.square(resolution, *chart.latents, points)
    draw_curves(axes, plane.project(paths), CURVES[1])
    _draw_points(axes, plane.project(paths[:, :, -1]), CURVES[1])
    _draw_arrows(axes, plane.project(origins), velocities @ plane.basis, square)
    image = draw_map(axes, chart, plane, square, title=_projected(plane))
    if image is not None:
        volume_bar(figure, image, axes)
    return figure


def _draw_arrows(axes: "Axes", starts: Tensor, velocities: Tensor, square: Square) -> None:
    """Draw velocities on the plane as arrows; the longest is an eighth of the square."""
    longest = float(velocities.norm(dim=-1).max()) or 1.0
    reach = (square.extent[1] - square.extent[0]) / 8
    x, y = starts.reshape(-1, 2).T.cpu().numpy()
    u, v = (velocities * (reach / longest)).reshape(-1, 2).T.cpu().numpy()
    axes.quiver(
        x, y, u, v, angles="xy", scale_units="xy", scale=1.0, color=CURVES[0], width=0.006, zorder=4
    )
    axes.scatter(x, y, s=50, color="white", edgecolors=INK, zorder=5)


# --- chains -------------------------------------------------------------------------------------


@torch.no_grad()
def chain_traces(
    chain: Chain,
    chart: Chart | None = None,
    *,
    max_chains: int = 6,
    max_coordinates: int = 4,
    resolution: int = 120,
) -> "Figure":
    """Return the traces of Markov chains over their kept steps, and their paths on a latent map.

    The titles give R-hat and effective sample size over *all* chains. Only the first chains are
    drawn, and only the coordinates with the largest R-hat if there are too many.

    Args:
        chain: the result of `chartae.geometry.hmc` or `chartae.geometry.random_walk`.
        chart: the map for the paths; None draws no map.
        max_chains: largest number of chains to draw.
        max_coordinates: largest number of coordinates to draw.
        resolution: number of points of the grey map along each axis.

    Raises:
        ConfigurationError: for a number out of range.
        DataError: if the chart and the chain have different dimensions.

    >>> samples = torch.randn(50, 3, 2, generator=torch.Generator().manual_seed(0))
    >>> chain = Chain(samples, torch.ones(3), torch.zeros(3), 0.1)
    >>> [axes.get_title() for axes in chain_traces(chain).axes]
    ['$z_{1}$: R-hat 1.00, effective size 138', '$z_{2}$: R-hat 1.02, effective size 186']
    """
    from matplotlib.figure import Figure

    for name, value in (("max_chains", max_chains), ("max_coordinates", max_coordinates)):
        check_integer(name, value, minimum=1)
    check_integer("resolution", resolution, minimum=2)
    r_hat, size = chain.r_hat, chain.effective_sample_size
    # R-hat is NaN for too few steps; the descending order starts with NaN.
    chosen = r_hat.argsort(descending=True)[:max_coordinates].sort().values.tolist()
    drawn = chain.samples[:, :max_chains]
    colors = class_colors(drawn.shape[1])

    height = max(1.5 * len(chosen) + 0.3, 2.2 if chart is None else 4.8)
    figure = Figure((6.4 if chart is None else 11.0, height), layout="constrained")
    panels = figure.add_gridspec(len(chosen), 1 if chart is None else 2)
    for row, k in enumerate(chosen):
        axes = figure.add_subplot(panels[row, -1])
        for color, trace in zip(colors, drawn[:, :, k].T.cpu().numpy(), strict=True):
            axes.plot(trace, color=color, linewidth=0.9)
        axes.set_title(f"$z_{{{k + 1}}}$: R-hat {r_hat[k]:.2f}, effective size {size[k]:.0f}")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[-1].set_xlabel("kept step")
    if chart is not None:
        check_shape("chain.samples", chain.samples, ("steps", "chains", chart.codes.shape[1]))
        axes = figure.add_subplot(panels[:, 0])
        plane = Plane(chart.codes)
        for color, path in zip(colors, plane.project(drawn).unbind(1), strict=True):
            draw_curves(axes, path, color)
        square = plane.square(resolution, *chart.latents, drawn)
        image = draw_map(axes, chart, plane, square, title=_projected(plane))
        if image is not None:
            volume_bar(figure, image, axes, shrink=0.85)
    return figure
