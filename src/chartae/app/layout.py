"""The parts of the explorer's page."""

from typing import TYPE_CHECKING, Any

from dash import dcc, html

from chartae.app import view
from chartae.app.callbacks import CONTROLS
from chartae.samplers import natural_sampler

if TYPE_CHECKING:
    from chartae.app.explorer import Explorer
    from chartae.app.landscape import Landscape

__all__ = ["layout"]

STORES = (
    "pointer", "asked", "answered", "clicked", "point", "pair", "origin", "chosen", "curves",
    "fan", "drawn", "course", "remembered", "pictured",
)  # fmt: skip
"""What the browser keeps. A latent is a list of numbers."""


def layout(explorer: "Explorer") -> Any:
    """Return the page of an explorer."""
    space = explorer.space
    what = "samples of the model, as there are no data" if space.drawn else "observations"
    if space.sequences is not None:
        what = f"visits of {len(space.sequences)} individuals"
    summary = (
        f"{type(space.model).__name__}, {space.dim} latent dimensions, {len(space.x):,} {what}"
    )
    header = html.Header([html.H1(explorer.title), html.P(summary)])
    return html.Div(
        [
            dcc.Location(id="url", refresh=False),
            *(dcc.Store(id=name) for name in STORES),
            dcc.Store(id="names", data=[name for name, _ in CONTROLS]),
            dcc.Download(id="file"),
            header,
            html.Main([html.Div(_left(space)), html.Div(_right(space))]),
        ]
    )


def _left(space: "Landscape") -> list[Any]:
    # None that needs a network.
    tools = ["pan2d", "zoom2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]
    config: Any = {"displaylogo": False, "scrollZoom": True, "modeBarButtons": [tools]}
    return [
        html.Div(_map_controls(space), className="controls"),
        dcc.Graph(id="map", config=config),
        html.P(id="map-note", className="note"),
        html.P(id="fan-note", className="note"),
        _section("Geodesic and straight line", dcc.Loading(html.Div(id="strips")), space.joins),
        _section("Individual", dcc.Loading(html.Div(id="films")), space.sequences is not None),
        *_samplers(space),
    ]


def _right(space: "Landscape") -> list[Any]:
    reason = view.without_decoding(space)
    title = "Reconstruction of the nearest observation" if reason else "Decoded at the pointer"
    nearest = "Nearest samples" if space.drawn else "Nearest observations"
    return [
        html.H2(title),
        html.P(reason or "Move the pointer over the map.", className="note"),
        html.Img(id="decoded", className="sample", alt=title),
        html.P(id="where", className="note"),
        html.H2(nearest),
        html.P("With their distance in the latent space.", className="note"),
        html.Div(id="near", className="near"),
        html.Div(_axes(space), style=_hidden(reason is None)),
        *_attributes(space, shown=reason is None),
        html.H2("Export"),
        html.Div(
            [
                html.Button("map (PNG)", id="save-map"),
                html.Button("image (PNG)", id="save-image"),
                html.Button("latents (CSV)", id="save-latents"),
                html.Button("all that is shown (.npz)", id="save-arrays"),
            ],
            className="controls",
        ),
    ]


def _map_controls(space: "Landscape") -> list[Any]:
    numbers = [{"label": str(k + 1), "value": k} for k in range(space.dim)]
    kinds = {"principal": "principal components", "coordinates": "coordinates"}
    clicks = {"point": "choose a point"}
    if space.joins and view.without_decoding(space) is None:
        clicks["pair"] = "geodesic"
    if space.metric is not None:
        clicks["origin"] = "exponential fan"
    if space.sequences is not None:
        clicks["chosen"] = "individual"
    shown = ["volume"] if space.volume is not None else []
    shown += ["trajectories"] if space.sequences is not None else []
    first = "time" if space.sequences is not None else next(iter(space.columns), None)
    classes = [{"label": name, "value": k} for k, name in enumerate(space.classes)]
    many = space.dim > 2
    return [
        _control("colour", dcc.Dropdown(list(space.columns), first, id="color")),
        _control("plane of", dcc.Dropdown(kinds, "principal", id="kind", clearable=False), many),
        _control("across", dcc.Dropdown(numbers, 0, id="across", clearable=False), many),
        _control("up", dcc.Dropdown(numbers, 1, id="up", clearable=False), many),
        _control("class", dcc.Dropdown(classes, 0, id="label", clearable=False), bool(classes)),
        _control("a click", dcc.RadioItems(clicks, "point", id="click", inline=True)),
        _control("show", dcc.Checklist(shown, shown, id="show", inline=True), bool(shown)),
        _control(
            "size of the fan",
            dcc.Slider(0.05, 1.0, 0.05, value=0.3, id="size", marks=None),
            space.metric is not None,
        ),
        html.Button("clear", id="clear"),
    ]


def _samplers(space: "Landscape") -> list[Any]:
    names = view.offered_samplers(space)
    first = [natural_sampler(space.model)] if names else []
    return [
        html.Div(
            [
                html.H2("Samplers"),
                html.Div(
                    [
                        dcc.Checklist(names, first, id="samplers", inline=True),
                        html.Button("draw", id="draw"),
                    ],
                    className="controls",
                ),
                dcc.Loading(html.Div(id="sheets")),
            ],
            style=_hidden(bool(names)),
        )
    ]


def _axes(space: "Landscape") -> list[Any]:
    low, high = space.codes.amin(0), space.codes.amax(0)
    margin = 0.15 * (high - low) + 1e-3
    sliders = [
        html.Div(
            [
                html.Label(f"z{k + 1}"),
                dcc.Slider(
                    a, b, value=c, id={"type": "axis", "index": k}, marks=None, updatemode="drag"
                ),
            ],
            className="axis",
        )
        for k, (a, b, c) in enumerate(
            zip(
                (low - margin).tolist(),
                (high + margin).tolist(),
                space.codes.mean(0).tolist(),
                strict=True,
            )
        )
    ]
    return [html.H2("Coordinates of the chosen point"), html.Div(sliders, className="axes")]


def _attributes(space: "Landscape", *, shown: bool) -> list[Any]:
    columns = [name for name, column in space.columns.items() if view.split_by(column)]
    methods = {"mean": "difference of means", "logistic": "logistic"}
    return [
        html.Div(
            [
                html.H2("Edit by an attribute"),
                html.Div(
                    [
                        _control("column", dcc.Dropdown(columns, None, id="column")),
                        _control("attribute", dcc.Dropdown([], None, id="attribute")),
                        _control(
                            "direction", dcc.RadioItems(methods, "mean", id="method", inline=True)
                        ),
                        _control(
                            "steps",
                            dcc.Slider(0.5, 4.0, 0.5, value=1.5, id="strength", marks=None),
                        ),
                    ],
                    className="controls",
                ),
                dcc.Loading(html.Div(id="edits")),
            ],
            style=_hidden(shown and bool(columns)),
        )
    ]


def _control(label: str, part: Any, shown: bool = True) -> Any:
    return html.Div([html.Label(label), part], className="control", style=_hidden(shown))


def _section(title: str, part: Any, shown: bool) -> Any:
    return html.Div([html.H2(title), part], style=_hidden(shown))


def _hidden(shown: bool) -> dict[str, str]:
    """Return the style of a part; controls that do not apply stay in the page, unseen."""
    return {} if shown else {"display": "none"}
