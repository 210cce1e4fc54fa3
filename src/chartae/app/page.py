"""The explorer as one HTML file without a server: a decoded atlas of the map."""

import base64
import html
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chartae.app import view
from chartae.app.landscape import Landscape
from chartae.app.pictures import Painter, Pixels, data_uri, image_of, sheet
from chartae.atomic import write_text
from chartae.checks import check_integer
from chartae.errors import DataError
from chartae.randomness import make_generator
from chartae.report.latent import Plane, Square
from chartae.report.style import ACCENT, CURVES, class_colors

__all__ = ["Page", "atlas_page"]

SIDE = 64
"""Largest height or width of a picture of the page, in pixels."""
ATLAS = 1_200_000
"""Number of pixels of the atlas, which decides how fine it is."""
POINTS = 1500
"""Largest number of observations on a page."""
COLUMNS = 10
"""Number of images in a strip."""


@dataclass(frozen=True)
class Page:
    """A page that needs no server and no network. A notebook shows it inline.

    Args:
        html: the whole page.
    """

    html: str

    def save(self, path: str | Path) -> None:
        """Write the page to a file, atomically."""
        write_text(path, self.html)

    def _repr_html_(self) -> str:
        source = html.escape(self.html, quote=True)
        return f'<iframe srcdoc="{source}" width="100%" height="760" frameborder="0"></iframe>'


def atlas_page(
    space: Landscape,
    *,
    pairs: Sequence[tuple[int, int]] | None = None,
    color: str | None = None,
    title: str = "",
    grid: int | None = None,
    seed: int = 0,
) -> Page:
    """Return a page with a map on which the decoded image and neighbours follow the pointer.

    Images are decoded beforehand, at the points of a grid on the map. If the model does not decode
    single latents, reconstructions of the observations are shown.

    Args:
        space: the model and its observations; of more than 1,500, as many are drawn at random.
        pairs: numbers of two observations each, whose geodesic and straight line are shown; None
            takes the typical observations of the first three classes. Individuals of a model of
            sequences are shown by their trajectories and futures instead.
        color: the column that colours the points; None takes the first.
        title: title of the page.
        grid: number of decoded images along each axis; None takes as many as keep the page small.
        seed: the seed of the draw.

    Raises:
        DataError: for a number that is not that of an observation.
        ConfigurationError: for a grid below 2.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    painter, plane = Painter.of(space.x), Plane(space.codes)
    shown = _kept(len(space.codes), seed)
    square = plane.square(_fineness(space, painter, grid), space.codes)
    reason = view.without_decoding(space)
    rows = shown.tolist()
    strips, lines = _paths(space, plane, painter, pairs)
    column = color if color is not None else next(iter(space.columns), None)
    colors, legend = _colors(space, column, shown.numpy())
    content: dict[str, Any] = {
        "extent": square.extent,
        "grid": len(square.points),
        "dim": space.dim,
        "codes": _numbers(space.codes[shown]),
        "flat": _numbers(plane.project(space.codes[shown])),
        "origin": plane.origin.tolist(),
        "basis": plane.basis.tolist(),
        "names": _names(space, rows),
        "colors": colors,
        "lines": lines,
        "thumbnails": _sprite([_small(painter.pixels(x)) for x in space.x[shown].cpu()]),
        "background": _background(space, plane),
        "reconstructs": reason is not None,
        "atlas": _atlas(space, painter, plane, square, rows),
    }
    environment = Environment(
        loader=PackageLoader("chartae.app", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html.jinja").render(
        title=title or f"Latent space of a {type(space.model).__name__}",
        summary=_summary(space, plane, len(rows)),
        reason=reason,
        legend=legend,
        strips=strips,
        content=content,
    )
    return Page(text)


def _kept(count: int, seed: int) -> Tensor:
    """Return the numbers of the observations of a page."""
    order = torch.randperm(count, generator=make_generator(seed, "page"))
    return order[:POINTS].sort().values


def _fineness(space: Landscape, painter: Painter, grid: int | None) -> int:
    if grid is not None:
        return check_integer("grid", grid, minimum=2)
    height, width = _small(painter.pixels(space.x[0].cpu())).shape[:2]
    return max(8, min(32, int(math.sqrt(ATLAS / (height * width)))))


def _summary(space: Landscape, plane: Plane, count: int) -> str:
    what = "samples of the model" if space.drawn else "observations"
    guide = (
        f"Each point is {'a sample of the model' if space.drawn else 'an observation'}. Move the "
        "pointer over the map to see what is decoded there, and what is nearest."
    )
    kind = f"{type(space.model).__name__}, {space.dim} latent dimensions; {count:,} {what}."
    if space.classes:
        kind = f"{kind} The map is decoded as class {space.classes[0]}."
    if not plane.title:
        return f"{guide} {kind}"
    return f"{guide} {kind} The map is the {plane.title}; all else is projected onto it."


def _atlas(
    space: Landscape, painter: Painter, plane: Plane, square: Square, rows: list[int]
) -> dict[str, Any]:
    """Return decoded images at a square's points, or reconstructions of observations."""
    if view.without_decoding(space) is not None:
        images = view.reconstruct(space, torch.tensor(rows))
    else:
        images = view.decode(space, plane.lift(square.points.flatten(0, 1)))
    return _sprite([_small(painter.pixels(image.cpu())) for image in images])


def _small(pixels: Pixels) -> Pixels:
    """Return a picture that is shrunk to `SIDE` pixels if it is larger."""
    if max(pixels.shape[:2]) <= SIDE:
        return pixels
    image = image_of(pixels)
    image.thumbnail((SIDE, SIDE))
    return np.asarray(image)


def _sprite(pictures: list[Pixels]) -> dict[str, Any]:
    """Return pictures of one shape in one image, and where each is."""
    columns = math.ceil(math.sqrt(len(pictures)))
    height, width = pictures[0].shape[:2]
    return {
        "source": data_uri(sheet(pictures, columns), small=True),
        "columns": columns,
        "height": height,
        "width": width,
    }


def _background(space: Landscape, plane: Plane) -> dict[str, Any] | None:
    """Return the log-volume as a picture, dark where it is low, and its place on the map."""
    found = view.volume_map(space, plane)
    if found is None:
        return None
    square, values = found
    numbers = values.flip(0).cpu().double().numpy()
    low, high = np.nanmin(numbers), np.nanmax(numbers)
    shares = np.nan_to_num((numbers - low) / ((high - low) or 1.0), nan=1.0)
    pixels = np.rint(70.0 + 185.0 * shares).astype(np.uint8)  # points must be visible on it
    return {"source": data_uri(pixels, small=True), "extent": square.extent}


def _numbers(values: Tensor) -> str:
    """Return numbers in base64, as float32 in little-endian order."""
    return base64.b64encode(values.cpu().numpy().astype("<f4").tobytes()).decode()


def _names(space: Landscape, rows: list[int]) -> list[str]:
    label = space.columns.get("individual", space.columns.get("label"))
    return [f"#{row}" if label is None else f"#{row} {label[row]}" for row in rows]


def _colors(
    space: Landscape, column: str | None, rows: NDArray[np.int64]
) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the colour of each observation, and the legend."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    if column is None:
        return [ACCENT] * len(rows), []
    values = space.columns[column]
    present = np.unique(values)
    if values.dtype.kind in "fiu" or len(present) > view.MOST_CLASSES:
        ranks = np.searchsorted(present, values) / max(1, len(present) - 1)
        shades = [to_hex(color) for color in colormaps["viridis"](ranks[rows])]
        ends = [(str(present[0]), to_hex(colormaps["viridis"](0.0)))]
        return shades, [*ends, (f"{present[-1]} ({column})", to_hex(colormaps["viridis"](1.0)))]
    palette = {
        value: to_hex(color)
        for value, color in zip(present.tolist(), class_colors(len(present)), strict=True)
    }
    return [palette[values[row].item()] for row in rows], [
        (str(value), color) for value, color in palette.items()
    ]


# --- strips ---------------------------------------------------------------------------------------


Strips = list[dict[str, str]]


def _paths(
    space: Landscape, plane: Plane, painter: Painter, pairs: Sequence[tuple[int, int]] | None
) -> tuple[Strips, list[dict[str, Any]]]:
    """Return the strips below the map, and the curves on it."""
    if space.sequences is not None:
        return _courses(space, plane, painter)
    if pairs is None:
        pairs = typical_pairs(space) if space.joins else []
    strips: Strips = []
    lines: list[dict[str, Any]] = []
    for number, (first, last) in enumerate(pairs, start=1):
        for index in (first, last):
            if not 0 <= index < len(space.codes):
                raise DataError(
                    f"pairs={first}:{last}: expected numbers from 0 to {len(space.codes) - 1}"
                )
        found = view.geodesic_and_line(space, space.codes[first], space.codes[last])
        curves = {"geodesic": found.geodesic, "straight line": found.line}
        for (name, curve), length, color in zip(
            curves.items(), found.lengths, CURVES, strict=False
        ):
            if curve is None:
                continue
            label = int(space.y[first]) if space.y is not None and space.classes else None
            x = view.decoded_along(space, curve, COLUMNS, label).cpu()
            title = f"{number}. {name} from #{first} to #{last}: length {length:.4g}"
            strips.append({"title": title, "color": color, "source": painter.strip(x)})
            lines.append({"points": plane.project(curve).tolist(), "color": color})
    return strips, lines


def typical_pairs(space: Landscape) -> list[tuple[int, int]]:
    """Return the observations nearest to the means of the first three classes, in pairs.

    Without classes, the pair are the first and the last along the first principal component.
    """
    for column in space.columns.values():
        groups = view.split_by(column) if column.dtype.kind not in "fiu" else {}
        if len(groups) > 1:
            typical = [_typical(space, flags) for flags in list(groups.values())[:3]]
            return list(itertools.pairwise(typical))
    along = Plane(space.codes).project(space.codes)[:, 0]
    return [(int(along.argmin()), int(along.argmax()))]


def _typical(space: Landscape, flags: NDArray[np.bool_]) -> int:
    """Return the observation of a group whose code is nearest to the mean of the group."""
    rows = torch.as_tensor(np.flatnonzero(flags), device=space.codes.device)
    codes = space.codes[rows]
    return int(rows[view.nearest_points(codes, codes.mean(0), 1).indices[0]])


def _courses(
    space: Landscape, plane: Plane, painter: Painter
) -> tuple[Strips, list[dict[str, Any]]]:
    """Return the visits and two futures of the first individuals, and their trajectories."""
    assert space.sequences is not None
    strips: Strips = []
    lines: list[dict[str, Any]] = []
    for individual in range(min(3, len(space.sequences))):
        color, name = CURVES[individual], space.sequences.ids[individual]
        _, z = view.trajectory(space, individual)
        lines.append({"points": plane.project(z).tolist(), "color": color})
        times, values = view.futures(space, individual, num_times=COLUMNS, count=2)
        seen = space.x[space.owner == individual][:COLUMNS].cpu()
        title = f"individual {name}: the observed visits"
        strips.append({"title": title, "color": color, "source": painter.strip(seen)})
        when = f"times {float(times[0]):.3g} to {float(times[-1]):.3g}"
        strips += [
            {
                "title": f"individual {name}: possible course {k}, {when}",
                "color": color,
                "source": painter.strip(course.cpu()),
            }
            for k, course in enumerate(values, start=1)
        ]
    return strips, lines
