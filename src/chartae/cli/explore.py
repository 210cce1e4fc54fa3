"""``chartae explore``: a page on which a latent space is explored."""

import logging
import webbrowser
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chartae.app.explorer import Explorer
from chartae.app.landscape import Landscape
from chartae.app.page import atlas_page
from chartae.app.server import LOOPBACK, build_app, open_socket, serve
from chartae.checks import check_integer
from chartae.cli.followups import TrainedSequences
from chartae.cli.options import ConfigFile, DataOptions, MachineOptions, Overwrite, VisitOptions
from chartae.cli.output import Outputs, check_suffix, print_lines, record_of
from chartae.cli.trained import Trained, model_folder
from chartae.errors import ConfigurationError
from chartae.loading import load
from chartae.longitudinal import SequenceModel

__all__ = ["explore"]

logger = logging.getLogger(__name__)


def explore(
    model: Path,
    data: Path | None = None,
    *,
    html: Path | None = None,
    between: list[str] | None = None,
    metric: str = "auto",
    max_points: int = 50_000,
    host: str = LOOPBACK[0],
    port: int = 8050,
    no_browser: bool = False,
    seed: int = 0,
    overwrite: Overwrite = False,
    data_options: DataOptions = DataOptions(),
    visits: VisitOptions = VisitOptions(),
    machine: MachineOptions = MachineOptions(),
    config: ConfigFile = None,
) -> None:
    """Run the subcommand.

    Args:
        model: Folder of a trained model.
        data: Observations to show, as for train; by default samples of the model.
        html: Write one page that needs no server to this .html file, and stop.
        between: For --html, two observations whose geodesic is on the page, by their numbers, as
            in 0:7. It can be given several times. [default: the typical ones of the first classes]
        metric: Metric of the geodesics, as for interpolate.
        max_points: Largest number of observations on the map. Of more, a random subset is shown.
        host: Address at which the page is served. By default only this machine can reach it;
            0.0.0.0 is all addresses of the machine, and anybody who can reach them sees the data.
        port: Port of the page; if it is in use, the next free one.
        no_browser: Do not open the page in a browser.
        seed: Seed of samples.
    """
    given = dict(locals())
    check_integer("max_points", max_points, minimum=2)
    check_integer("seed", seed, minimum=0)
    check_integer("port", port, minimum=0, maximum=65535)
    pairs = [_pair(text) for text in between or []]
    if between and html is None:
        raise ConfigurationError("between is an option of --html: expected both")
    outputs = None
    if html is not None:
        check_suffix(html, ".html")
        inputs = [model, data, data_options.labels, visits.table, config]
        outputs = Outputs("explore", record_of(html), given, inputs=inputs)
        outputs.claim(html)
    machine.apply()
    space = _space(given)
    if html is None or outputs is None:
        _serve(space, model.resolve().name, host, port, open_browser=not no_browser)
        return
    with outputs.recording():
        title = f"Latent space of {model.resolve().name}"
        atlas_page(space, pairs=pairs or None, title=title, seed=seed).save(html)
    print_lines(f"page: {html}")


def _space(given: dict[str, Any]) -> Landscape:
    """Return the space of the model and the data that the options name."""
    folder, data = model_folder(given["model"]), given["data"]
    place = given["machine"].place
    how, visits = given["data_options"], given["visits"]
    limits = {"max_points": given["max_points"], "seed": given["seed"]}
    if isinstance(load(folder), SequenceModel):
        if data is None:
            raise ConfigurationError(
                "MODEL is a model of follow-ups: expected DATA with individuals"
            )
        if given["metric"] not in ("auto", "pullback"):
            raise ConfigurationError(
                f"metric={given['metric']!r}: a model of follow-ups has the pullback metric only"
            )
        followed = TrainedSequences.read(folder, place)
        people = followed.individuals(data, visits, how)
        return Landscape.of_sequences(followed.model, people, **limits)
    if visits != VisitOptions():
        raise ConfigurationError("options of visits are given: expected a model of follow-ups")
    trained = Trained.read(folder, place)
    source = None if data is None else trained.as_learned(how.read(data), "DATA")
    return Landscape.of(
        trained.model,
        source,
        None if source is None else trained.conditions(source),
        columns={} if source is None else _further_columns(data, len(source)),
        class_names=trained.class_names,
        metric=given["metric"],
        **limits,
    )


def _further_columns(path: Path, count: int) -> dict[str, NDArray[Any]]:
    """Return the other arrays of an .npz file that have a number or a text for each observation."""
    if path.suffix != ".npz":
        return {}
    with np.load(path, allow_pickle=False) as file:
        kept = [name for name in file.files if name not in ("x", "y", "mask", "class_names")]
        arrays = {name: file[name] for name in kept}
    return {
        name: array
        for name, array in arrays.items()
        if array.shape == (count,) and array.dtype.kind in "iufUb"
    }


def _pair(text: str) -> tuple[int, int]:
    """Return the two numbers of ``0:7``."""
    first, _, second = text.partition(":")
    if not (first.isdecimal() and second.isdecimal()):
        raise ConfigurationError(f"between={text!r}: expected two numbers, as in 0:7")
    return int(first), int(second)


def _serve(space: Landscape, title: str, host: str, port: int, *, open_browser: bool) -> None:
    app = build_app(Explorer(space, title), host=host)
    if host not in LOOPBACK:
        logger.warning("host=%s: anybody who can reach this address sees the data", host)
    listening = open_socket(host, port)
    name = f"[{host}]" if ":" in host else host
    url = f"http://{name}:{listening.getsockname()[1]}/"
    print_lines(f"explore at {url} (Ctrl-C ends)")
    if open_browser:
        webbrowser.open(url)
    serve(app, listening)
