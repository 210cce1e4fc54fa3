"""The map of the explorer, as a figure of Plotly in JSON values."""

import base64
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from chartae.app.landscape import Column, Landscape
from chartae.app.view import MOST_CLASSES
from chartae.report.latent import Plane
from chartae.report.style import ACCENT, CURVES, INK, SAMPLE, class_colors

__all__ = ["map_figure"]

TRAJECTORIES = 200
"""Largest number of individuals whose visits are joined by lines."""
SMALL = 5_000
"""Number of points above which they are drawn smaller."""
SAMPLES = (INK, *CURVES[2:])
"""Colours of samplers on a map with classes."""
LINE_COLORS = {"geodesic": CURVES[0], "straight line": CURVES[1]}

Trace = dict[str, Any]


def map_figure(
    space: Landscape,
    plane: Plane,
    *,
    color: str | None = None,
    volume: tuple[Any, Any, Any] | None = None,
    trajectories: bool = False,
    lines: Mapping[str, Tensor] | None = None,
    samples: Mapping[str, Tensor] | None = None,
    marks: Tensor | None = None,
) -> dict[str, Any]:
    """Return the codes on a plane, with all that is drawn over them and behind them.

    Points and lines are drawn by WebGL, which shows 50,000 points without delay.

    Args:
        space: the model and its observations.
        plane: the plane of the map.
        color: the column that colours the points; None gives all of them one colour.
        volume: positions along both axes, ``(r,)`` each, and the log-volume there, ``(r, r)``.
        trajectories: whether to join the visits of individuals by lines.
        lines: curves ``(T, d)`` by name.
        samples: latents ``(n, d)`` by the name of their sampler.
        marks: chosen latents, ``(n, d)``.
    """
    traces: list[Trace] = []
    if volume is not None:
        traces.append(_background(*volume))
    flat = plane.project(space.codes).cpu().float().numpy()
    if trajectories and space.owner is not None:
        traces.append(_visits(flat, space.owner.cpu().numpy()))
    traces += _points(flat, space.columns.get(color or ""), color)
    for place, (name, z) in enumerate((samples or {}).items()):
        shade = SAMPLES[place % len(SAMPLES)] if color else SAMPLE
        traces.append(_dots(plane, z, name, {"size": 5, "color": shade, "symbol": "diamond"}))
    for name, curve in (lines or {}).items():
        fan = name.startswith("fan")
        style = {"color": LINE_COLORS.get(name, CURVES[2]), "width": 1.5 if fan else 3}
        x, y = plane.project(curve).cpu().float().numpy().T
        traces.append(_gl(x, y, name, mode="lines", line=style, showlegend=not fan))
    if marks is not None:
        ring: Trace = {"size": 12, "color": "white", "line": {"color": INK, "width": 2}}
        traces.append(_dots(plane, marks, "chosen", ring))
    return {"data": traces, "layout": _layout(space, plane)}


def _gl(x: Any, y: Any, name: str, **options: Any) -> Trace:
    base = {
        "type": "scattergl",
        "x": _packed(x),
        "y": _packed(y),
        "name": name,
        "hoverinfo": "skip",
    }
    return {**base, **options}


def _packed(values: NDArray[Any]) -> Trace:
    """Return numbers as Plotly takes them in base64, a fifth as long as their digits.

    >>> _packed(np.array([[1.0, 2.0]]))
    {'dtype': 'f4', 'bdata': 'AACAPwAAAEA=', 'shape': '1, 2'}
    """
    text = base64.b64encode(values.astype("<f4").tobytes()).decode()
    return {"dtype": "f4", "bdata": text, "shape": ", ".join(map(str, values.shape))}


def _dots(plane: Plane, z: Tensor, name: str, marker: dict[str, Any]) -> Trace:
    x, y = plane.project(z).cpu().float().numpy().T
    return _gl(x, y, name, mode="markers", marker=marker)


def _background(x: Any, y: Any, values: Any) -> Trace:
    bar: Trace = {"title": {"text": "log-volume", "side": "right"}, "thickness": 12, "len": 0.7}
    return {
        "type": "heatmap",
        "x": _packed(x),
        "y": _packed(y),
        "z": _packed(values),
        "colorscale": "Greys",
        "hoverinfo": "skip",
        "colorbar": bar,
        "opacity": 0.8,
    }


def _visits(flat: Any, owner: Any) -> Trace:
    """Return lines through the visits of the first individuals, with gaps between them."""
    kept = owner < TRAJECTORIES
    flat, owner = flat[kept], owner[kept]
    breaks = np.flatnonzero(np.diff(owner)) + 1
    x, y = (np.insert(column, breaks, np.nan) for column in flat.T)
    line = {"color": "rgba(60,60,60,0.35)", "width": 1}
    return _gl(x, y, "follow-ups", mode="lines", line=line)


def _points(flat: Any, column: Column | None, name: str | None) -> list[Trace]:
    from matplotlib.colors import to_hex

    size: Trace = {"size": 6 if len(flat) <= SMALL else 3, "opacity": 0.85}
    x, y = flat.T
    if column is None:
        return [_gl(x, y, "codes", mode="markers", marker={**size, "color": ACCENT})]
    present = np.unique(column)
    if column.dtype.kind in "fiu" or len(present) > MOST_CLASSES:
        numbers = column if column.dtype.kind in "fiu" else np.searchsorted(present, column)
        bar: Trace = {
            "title": {"text": name, "side": "right"},
            "thickness": 12,
            "len": 0.7,
            "x": -0.12,
        }
        shades: Trace = {
            "color": _packed(numbers),
            "colorscale": "Viridis",
            "colorbar": bar,
        }
        return [_gl(x, y, str(name), mode="markers", marker={**size, **shades}, showlegend=False)]
    traces = []
    for shade, value in zip(class_colors(len(present)), present, strict=True):
        rows = column == value
        marker = {**size, "color": to_hex(shade)}
        traces.append(_gl(x[rows], y[rows], str(value), mode="markers", marker=marker))
    return traces


def _layout(space: Landscape, plane: Plane) -> dict[str, Any]:
    left, right, below, above = plane.square(2, space.codes).extent
    half = (right - left) / 4  # of two points, each stands for half of the square
    axis = {"zeroline": False, "showgrid": False, "constrain": "domain"}
    across, up = ({"text": _plain(name)} for name in plane.names)
    return {
        "xaxis": {**axis, "title": across, "range": [left + half, right - half]},
        "yaxis": {**axis, "title": up, "range": [below + half, above - half], "scaleanchor": "x"},
        "margin": {"l": 60, "r": 10, "t": 10, "b": 50},
        "hovermode": False,
        "dragmode": "pan",
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        "plot_bgcolor": "white",
        "uirevision": f"{plane.names} {plane.title}",
    }


def _plain(name: str) -> str:
    """Return the name of an axis without TeX.

    >>> _plain("$z_{12}$"), _plain("component 1 (40%)")
    ('z<sub>12</sub>', 'component 1 (40%)')
    """
    return re.sub(r"^\$(\w)_\{?(\d+)\}?\$$", r"\1<sub>\2</sub>", name)
