"""What the controls of the explorer's page do."""

import base64
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from chartae.app import view
from chartae.app.explorer import Explorer, latents_table, shown_arrays
from chartae.app.figure import map_figure
from chartae.app.landscape import Landscape
from chartae.errors import ChartaeError
from chartae.report.latent import Plane

if TYPE_CHECKING:
    from dash import Dash

__all__ = ["CONTROLS", "register"]

COLUMNS, DRAWS = 10, 36
"""Numbers of images in a strip, and of a sampler."""

CONTROLS = (
    ("color", "value"),
    ("kind", "value"),
    ("across", "value"),
    ("up", "value"),
    ("show", "value"),
    ("label", "value"),
    ("click", "value"),
    ("size", "value"),
    ("samplers", "value"),
    ("column", "value"),
    ("attribute", "value"),
    ("method", "value"),
    ("strength", "value"),
    ("point", "data"),
    ("pair", "data"),
    ("origin", "data"),
    ("chosen", "data"),
)
"""What the view consists of: the properties that are in the URL."""

Json = Any


def register(app: "Dash", explorer: Explorer) -> None:
    """Add all callbacks of the page to an application."""
    _browser_callbacks(app)
    _map_callbacks(app, explorer)
    _point_callbacks(app, explorer)
    _curve_callbacks(app, explorer)
    _sampler_callbacks(app, explorer)
    _individual_callbacks(app, explorer)
    _export_callbacks(app, explorer)


def _browser_callbacks(app: "Dash") -> None:
    """Register what the browser does alone, see assets/explore.js."""
    from dash import ALL, ClientsideFunction, Input, Output, State

    def here(name: str) -> ClientsideFunction:
        return ClientsideFunction("explorer", name)

    app.clientside_callback(
        here("throttle"),
        Output("asked", "data"),
        Input("pointer", "data"),
        Input("answered", "data"),
    )
    sliders = {"type": "axis", "index": ALL}
    app.clientside_callback(here("spread"), [Output(sliders, "value")], Input("point", "data"))
    app.clientside_callback(
        here("slid"),
        Output("pointer", "data", allow_duplicate=True),
        Input(sliders, "value"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        here("remember"),
        Output("remembered", "data"),
        *(Input(name, prop) for name, prop in CONTROLS),
        State("names", "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        here("restore"),
        [Output(name, prop, allow_duplicate=True) for name, prop in CONTROLS],
        Input("url", "search"),
        State("names", "data"),
        prevent_initial_call="initial_duplicate",
    )
    app.clientside_callback(
        here("picture"),
        Output("pictured", "data"),
        Input("save-map", "n_clicks"),
        prevent_initial_call=True,
    )


PLANE = (("kind", "value"), ("across", "value"), ("up", "value"), ("point", "data"))
"""The properties that name the plane of the map."""


def _map_callbacks(app: "Dash", explorer: Explorer) -> None:
    from dash import Input, Output, State, no_update

    space = explorer.space

    @app.callback(
        Output("map", "figure"),
        Output("map-note", "children"),
        *(Input(*control) for control in PLANE),
        Input("color", "value"),
        Input("show", "value"),
        Input("pair", "data"),
        Input("curves", "data"),
        Input("fan", "data"),
        Input("drawn", "data"),
        Input("course", "data"),
    )
    def draw(  # the controls of the plane come first
        kind: str,
        across: int,
        up: int,
        point: Json,
        color: str | None,
        show: list[str],
        pair: Json,
        curves: Json,
        fan: Json,
        drawn: Json,
        course: Json,
    ) -> Any:
        try:
            plane = explorer.plane(kind, across, up, point)
        except ChartaeError as error:
            return no_update, str(error)
        marks = [*(pair or []), *([] if point is None else [point])]
        lines = {**(curves or {}), **(fan or {}), **(course or {})}
        figure = map_figure(
            space,
            plane,
            color=color,
            volume=explorer.volume(kind, across, up, point) if "volume" in show else None,
            trajectories="trajectories" in show,
            lines={name: space.latent(line) for name, line in lines.items()},
            samples={name: space.latent(z) for name, z in (drawn or {}).items()},
            marks=space.latent(marks) if marks else None,
        )
        return figure, _plane_note(space, plane, point)

    @app.callback(
        Output("point", "data"),
        Output("pair", "data"),
        Output("origin", "data"),
        Output("chosen", "data"),
        Input("clicked", "data"),
        State("click", "value"),
        *(State(*control) for control in PLANE),
        State("pair", "data"),
        prevent_initial_call=True,
    )
    def click(
        clicked: Json, mode: str, kind: str, across: int, up: int, point: Json, pair: Json
    ) -> Any:
        plane = explorer.plane(kind, across, up, point)
        z = view.on_the_space(space.model, explorer.at(clicked, plane))
        values = z.tolist()
        found: dict[str, Any] = {mode: values}
        if mode == "pair":
            found["pair"] = [values] if not pair or len(pair) == 2 else [*pair, values]
        if mode == "chosen":
            assert space.owner is not None
            nearest = view.nearest_points(plane.project(space.codes), plane.project(z), 1)
            found["chosen"] = int(space.owner[nearest.indices[0]])
        return [found.get(name, no_update) for name in ("point", "pair", "origin", "chosen")]

    @app.callback(
        *(
            Output(name, "data", allow_duplicate=True)
            for name in ("pair", "origin", "drawn", "chosen", "point")
        ),
        Input("clear", "n_clicks"),
        prevent_initial_call=True,
    )
    def clear(_: int) -> Any:
        return None, None, None, None, None


def _plane_note(space: Landscape, plane: Plane, point: Json) -> str:
    """Return what the map shows, in words."""
    parts = []
    if plane.title:
        place = "the chosen point" if point is not None else "the mean of the codes"
        parts.append(
            f"The map is the {plane.title}, through {place}; codes and curves are projected onto it"
        )
    if space.model.latent_space in ("sphere", "ball"):
        shape = space.model.latent_space
        parts.append(f"points of the map are moved to the nearest point of the {shape}")
    return "; ".join(parts) + "." if parts else ""


def _point_callbacks(app: "Dash", explorer: Explorer) -> None:
    """Register what follows the pointer, and the chosen point."""
    from dash import Input, Output, State, html, no_update

    space = explorer.space

    @app.callback(
        Output("decoded", "src"),
        Output("where", "children"),
        Output("near", "children"),
        Output("answered", "data"),
        Input("asked", "data"),
        Input("label", "value"),
        *(State(*control) for control in PLANE),
        prevent_initial_call=True,
    )
    def decode(asked: Json, label: int | None, kind: str, across: int, up: int, point: Json) -> Any:
        asked = asked or {"n": 0, "z": point or space.codes[0].tolist()}
        with _Caught() as failed:
            z = explorer.at(asked, explorer.plane(kind, across, up, point))
            picture, near = explorer.decoded(z, label)
            return picture, _coordinates(z), neighbours(near), {"n": asked["n"]}
        return no_update, failed.note, no_update, {"n": asked["n"]}

    def neighbours(near: view.Neighbours) -> list[Any]:
        return [
            html.Figure(
                [
                    html.Img(src=explorer.painter.uri(space.x[index].cpu()), className="sample"),
                    html.Figcaption(f"{name}, {distance:.3g}"),
                ]
            )
            for index, distance, name in _named_neighbours(space, near)
        ]

    @app.callback(
        Output("attribute", "options"),
        Input("column", "value"),
    )
    def ways(column: str | None) -> list[str]:
        return list(_splits(space, column))

    @app.callback(
        Output("edits", "children"),
        Input("point", "data"),
        Input("column", "value"),
        Input("attribute", "value"),
        Input("method", "value"),
        Input("strength", "value"),
        Input("label", "value"),
    )
    def edit(
        point: Json,
        column: str | None,
        attribute: str | None,
        method: str,
        strength: float,
        label: int | None,
    ) -> Any:
        flags = _splits(space, column)
        if attribute not in flags:
            return _note("Choose a column and an attribute.")
        if point is None:
            return _note("Click on the map: the image there is edited.")
        with _Caught() as failed:
            step = view.attribute_direction(
                space.codes, flags[attribute], method=cast("view.Method", method)
            )
            z = space.latent(point)
            scale = torch.linspace(-strength, strength, 9).to(z)
            x = view.decode(space, z + scale[:, None] * step, label)
            text = f"{-strength:g} to {strength:g} steps along “{column}: {attribute}”"
            return _strip(text, explorer.strip(x))
        return failed.note


def _splits(space: Landscape, column: str | None) -> dict[str, Any]:
    """Return the ways to divide the observations by a column; none without one."""
    return {} if column not in space.columns else view.split_by(space.columns[str(column)])


def _named_neighbours(space: Landscape, near: view.Neighbours) -> list[tuple[int, float, str]]:
    """Return index, distance and name of each neighbour."""
    names = space.columns.get("individual", space.columns.get("label"))
    found = []
    for index, distance in zip(near.indices.tolist(), near.distances.tolist(), strict=True):
        name = f"#{index}" if names is None else f"#{index} {names[index]}"
        found.append((index, distance, name))
    return found


def _coordinates(z: Tensor) -> str:
    """Return a latent as text; of many coordinates the first ones."""
    values = ", ".join(f"{value:.3g}" for value in z[:8].tolist())
    return f"z = ({values}{', ...' if len(z) > 8 else ''})"


def _curve_callbacks(app: "Dash", explorer: Explorer) -> None:
    from dash import Input, Output, State

    space = explorer.space

    @app.callback(
        Output("curves", "data"),
        Output("strips", "children"),
        Input("pair", "data"),
        Input("label", "value"),
    )
    def curves(pair: Json, label: int | None) -> Any:
        if not pair or len(pair) < 2:
            return None, _note("Choose “geodesic” and click on two points of the map.")
        with _Caught() as failed:
            found = view.geodesic_and_line(space, *space.latent(pair))
            lines = {"geodesic": found.geodesic}
            if found.line is not None:
                lines["straight line"] = found.line
            strips = [
                _strip(
                    f"{name}: length {length:.4g}",
                    explorer.strip(view.decoded_along(space, line, COLUMNS, label)),
                )
                for (name, line), length in zip(lines.items(), found.lengths, strict=False)
            ]
            if not found.converged:
                strips.append(_note(f"The geodesic has not converged ({found.residual:.1e})."))
            return {name: line.tolist() for name, line in lines.items()}, strips
        return None, failed.note

    @app.callback(
        Output("fan", "data"),
        Output("fan-note", "children"),
        Input("origin", "data"),
        Input("size", "value"),
        *(State(*control) for control in PLANE),
    )
    def fan(origin: Json, size: float, kind: str, across: int, up: int, point: Json) -> Any:
        if origin is None:
            return None, ""
        with _Caught() as failed:
            plane = explorer.plane(kind, across, up, point)
            half = plane.square(2, space.codes).step / 2
            found = view.exponential_fan(space, plane, space.latent(origin), size * half)
            note = f"Fan: {len(found.paths)} geodesics of length {found.length:.4g}"
            note += "; longer ones leave the domain." if found.shortened else "."
            return {f"fan {k}": path.tolist() for k, path in enumerate(found.paths)}, note
        return None, failed.note


def _sampler_callbacks(app: "Dash", explorer: Explorer) -> None:
    from dash import Input, Output, State

    space = explorer.space

    @app.callback(
        Output("drawn", "data"),
        Output("sheets", "children"),
        Input("draw", "n_clicks"),
        State("samplers", "value"),
        State("label", "value"),
        prevent_initial_call=True,
    )
    def draw_samples(clicks: int, names: list[str], label: int | None) -> Any:
        drawn, sheets = {}, []
        for name in names or []:
            with _Caught(name) as failed:
                sampler = explorer.sampler(name)
                z = view.sample_latents(space, sampler, DRAWS, label=label, seed=clicks)
                sheets.append(_strip(name, explorer.strip(view.decode(space, z, label), 12)))
                drawn[name] = z.tolist()
                continue
            sheets.append(failed.note)
        return drawn, sheets or _note("Choose samplers first.")


def _individual_callbacks(app: "Dash", explorer: Explorer) -> None:
    from dash import Input, Output, html, no_update

    space = explorer.space

    @app.callback(Output("course", "data"), Output("films", "children"), Input("chosen", "data"))
    def films(chosen: int | None) -> Any:
        if space.sequences is None:
            return no_update, no_update
        if chosen is None or not 0 <= chosen < len(space.sequences):
            return None, _note("Choose “individual” and click on the map.")
        with _Caught() as failed:
            _, z = view.trajectory(space, chosen)
            times, values = view.futures(space, chosen, num_times=COLUMNS)
            seen = space.x[space.owner == chosen]
            name = space.sequences.ids[chosen]
            when = f"times {float(times[0]):.3g} to {float(times[-1]):.3g}"
            strips = [_strip(f"individual {name}: the observed visits", explorer.strip(seen[:20]))]
            strips += [
                _strip(f"possible course {k + 1}, {when}", explorer.strip(course))
                for k, course in enumerate(values)
            ]
            return {f"individual {name}": z.tolist()}, html.Div(strips)
        return None, failed.note


def _export_callbacks(app: "Dash", explorer: Explorer) -> None:
    from dash import Input, Output, State, no_update

    @app.callback(
        Output("file", "data"), Input("save-latents", "n_clicks"), prevent_initial_call=True
    )
    def latents(_: int) -> Any:
        return {"content": latents_table(explorer.space), "filename": "latents.csv"}

    @app.callback(
        Output("file", "data", allow_duplicate=True),
        Input("save-arrays", "n_clicks"),
        State("point", "data"),
        State("curves", "data"),
        State("fan", "data"),
        State("drawn", "data"),
        State("course", "data"),
        State("label", "value"),
        prevent_initial_call=True,
    )
    def arrays(_: int, point: Json, *others: Any) -> Any:
        *groups, label = others
        shown = {} if point is None else {"point": [point]}
        for group in groups:
            shown |= group or {}
        content = shown_arrays(explorer.space, shown, label)
        text = base64.b64encode(content).decode()
        return {"content": text, "base64": True, "filename": "explored.npz"}

    @app.callback(
        Output("file", "data", allow_duplicate=True),
        Input("save-image", "n_clicks"),
        State("decoded", "src"),
        prevent_initial_call=True,
    )
    def image(_: int, source: str | None) -> Any:
        if not source:
            return no_update
        content = source.split(",", 1)[1]
        return {"content": content, "base64": True, "type": "image/png", "filename": "decoded.png"}


def _strip(title: str, source: str) -> Any:
    from dash import html

    return html.Figure(
        [html.Figcaption(title), html.Img(src=source, className="sample", alt=title)],
        className="strip",
    )


def _note(text: str, *, error: bool = False) -> Any:
    from dash import html

    return html.P(text, className="note error" if error else "note")


class _Caught:
    """Turns an error of the library inside a block into a line on the page."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix, self.note = prefix, _note("")

    def __enter__(self) -> "_Caught":
        return self

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> bool:
        if isinstance(error, ChartaeError):
            start = f"{self.prefix}: " if self.prefix else ""
            self.note = _note(f"{start}{error}", error=True)
            return True
        return False
