"""``chartae interpolate``: the geodesic and the straight line between two observations."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from chartae.atomic import atomic_path
from chartae.checks import check_choice, check_integer
from chartae.cli.options import ConfigFile, DataOptions, Overwrite
from chartae.cli.output import Outputs, check_suffix, print_lines, write_figure
from chartae.cli.trained import Trained
from chartae.data import ArrayDataset
from chartae.errors import ConfigurationError, DataError
from chartae.geometry import Metric
from chartae.models import Autoencoder, VariationalAutoencoder
from chartae.models.paths import join, natural_metrics
from chartae.report import Chart, interpolation_figure

__all__ = ["interpolate"]

IMAGES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff")
SMOOTH = 63
"""Smallest number of segments of a path in the solver, even if fewer points are written."""


def interpolate(
    model: Path,
    a: str,
    b: str,
    *,
    out: Path,
    data: Path | None = None,
    metric: str = "auto",
    num_points: int = 10,
    label: list[str] | None = None,
    overwrite: Overwrite = False,
    data_options: DataOptions = DataOptions(),
    config: ConfigFile = None,
) -> None:
    """Run the subcommand.

    Args:
        model: Folder of a trained model.
        a: An image, or a file as for train with one observation. For a file with several
            observations give FILE:INDEX; the index counts from 0, or from the end as -1, -2, ...
        b: Like A.
        out: A .png figure, or an .npz file of both curves: latents, observations, lengths.
        data: The training data. The posterior metric needs them, and the figure's map shows them.
        metric: Metric of the geodesic. model: the learned metric of an RHVAE. posterior: the volume
            of the posteriors of another VAE, whose paths stay near the data (thesis equation 3.8,
            tempered in more than two dimensions). pullback: distances between decoded observations.
            space: the metric of a sphere or a hyperbolic ball of latents; these have no other
            metric. auto: the first of these that the model has.
        num_points: Number of points of each curve, including both ends.
        label: For a conditional model, the class of both ends, or, given twice, the class of each;
            by default the classes of A and B in their files. Between the ends, the decoder gets
            interpolated classes.
    """
    given = dict(locals())
    check_integer("num_points", num_points, minimum=2)
    check_suffix(out, ".png", ".npz")
    files = [_file_and_index(text)[0] for text in (a, b)]
    inputs = [model, data, *files, data_options.labels, config]
    outputs = Outputs("interpolate", out.with_suffix(".json"), given, inputs=inputs)
    outputs.claim(out)
    trained = Trained.read(model)
    if trained.model.latent_dim < 2:
        raise ConfigurationError(
            f"{model} has a latent space of one dimension, where every path is the straight line: "
            "expected two or more"
        )
    source = None if data is None else data_options.read(data)
    if source is not None:
        source = trained.as_learned(source, "DATA")
        trained.model.check_data("data", source.x)
    ends = [_observation(n, text, trained, data_options) for n, text in (("A", a), ("B", b))]
    x = torch.cat([end.x for end in ends]).to(trained.model.device, trained.model.dtype)
    y = _conditions(trained.class_names, ends, label or [])
    conditions = None if source is None else trained.conditions(source)
    drawn, measure = natural_metrics(
        trained.model, None if source is None else source.x, conditions, metric=metric
    )
    curves, facts = _curves(trained.model, measure, x, y, num_points)
    decode = _decoder(trained, y)
    with outputs.recording():
        if out.suffix == ".png":
            chart = _chart(trained, drawn, source, curves["geodesic"])
            titles = {"line": "straight line", "geodesic": "geodesic"}
            named = {title: curves[name] for name, title in titles.items() if name in curves}
            figure = interpolation_figure(chart, named, decode, columns=num_points, ends=x)
            write_figure(out, figure, dpi=150)
        else:
            stride = (len(curves["geodesic"]) - 1) // (num_points - 1)
            _write(out, {name: curve[::stride] for name, curve in curves.items()}, decode, facts)
    geodesic, line = facts["lengths"]
    found = "converged"
    if not facts["converged"]:
        found = f"not converged, residual {facts['residual']:.1e}"
    print_lines(f"geodesic: length {geodesic:.4g}, {found}")
    if not math.isnan(line):
        print_lines(f"straight line: length {line:.4g}")
    print_lines(f"{'figure' if out.suffix == '.png' else 'curves'}: {out}")


def _file_and_index(text: str) -> tuple[Path, int | None]:
    """Return the file and the index of ``FILE`` or ``FILE:INDEX``."""
    file, colon, index = text.rpartition(":")
    if not colon or not index.removeprefix("-").isdecimal() or Path(text).exists():
        return Path(text), None
    return Path(file), int(index)


def _observation(name: str, text: str, trained: Trained, data_options: DataOptions) -> ArrayDataset:
    """Return the observation of ``FILE`` or ``FILE:INDEX``, as a dataset of one."""
    model = trained.model
    file, index = _file_and_index(text)
    image = file.suffix.lower() in IMAGES
    found = data_options.read_image(file) if image else data_options.read(file)
    if tuple(found.x.shape) == model.input_shape and index is None:
        found = replace(found, x=found.x[None], y=None, mask=None, class_names=(), names=())
    found = trained.as_learned(found, name)
    if index is None and len(found) != 1:
        raise DataError(f"{name}={text!r} has {len(found)} observations: expected {text}:INDEX")
    index = 0 if index is None else index
    if not -len(found) <= index < len(found):
        raise DataError(
            f"{name}={text!r}: expected an index from 0 to {len(found) - 1}, or from -1 to "
            f"{-len(found)}"
        )
    one = found.subset([index % len(found)])
    if one.mask is not None and not bool(one.mask.all()):
        raise DataError(f"{name}={text!r} has unobserved values: expected an observation without")
    model.check_data(name, one.x.to(model.device, model.dtype))
    return one


def _conditions(
    names: tuple[str, ...], ends: list[ArrayDataset], asked: list[str]
) -> Tensor | None:
    """Return the class indices of both ends; None for a model without conditions."""
    if not names:
        if asked:
            raise ConfigurationError(f"label={asked[0]!r}: the model has no conditions")
        return None
    if len(asked) > 2:
        raise ConfigurationError(f"label is given {len(asked)} times: expected once or twice")
    own = [end.class_names[end.classes[0]] if end.class_names else None for end in ends]
    chosen = asked * 2 if len(asked) == 1 else asked or own
    for name in chosen:
        if name is None:
            raise ConfigurationError(
                "A or B has no label, and this model is conditional: expected label=CLASS"
            )
        check_choice("label", name, names)
    return torch.tensor([names.index(str(name)) for name in chosen])


def _decoder(trained: Trained, y: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Return a function that decodes a curve, with conditions interpolated between its ends."""

    @torch.no_grad()
    def decode(z: Tensor) -> Tensor:
        if y is None:
            return trained.model.decode(z)
        first, last = one_hot(y, len(trained.class_names)).to(z)
        shares = torch.lerp(first, last, torch.linspace(0, 1, len(z)).to(z)[:, None])
        mean: Tensor = cast("VariationalAutoencoder", trained.model).likelihood(z, shares).mean
        return mean

    return decode


def _curves(
    model: Autoencoder, metric: Metric | None, x: Tensor, y: Tensor | None, num_points: int
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the curves, with enough points for a drawing, and their lengths and convergence."""
    stride = -(-SMOOTH // (num_points - 1))
    with torch.no_grad():
        start, end = model.encode(x, y)
    found = join(metric, start, end, num_points=stride * (num_points - 1) + 1)
    curves = {"geodesic": found.geodesic}
    if found.line is not None:
        curves["line"] = found.line
    geodesic, line = found.lengths
    return curves, {
        "lengths": [geodesic, math.nan if line is None else line],
        "converged": found.converged,
        "residual": found.residual,
    }


def _chart(
    trained: Trained, metric: Metric | None, data: ArrayDataset | None, curve: Tensor
) -> Chart:
    """Return a map of the training data, else of the metric's centroids, else of the curve."""
    if data is not None and len(data) > 1:
        with torch.no_grad():
            codes = trained.model.encode(
                data.x, trained.conditions(data), mask=data.mask, batch_size=1024
            )
        return Chart(codes, data.y, metric, class_names=data.class_names)
    landmarks = curve if metric is None else metric.landmarks
    return Chart(landmarks if len(landmarks) > 1 else curve, metric=metric)


def _write(
    path: Path,
    curves: dict[str, Tensor],
    decode: Callable[[Tensor], Tensor],
    facts: dict[str, Any],
) -> None:
    arrays: dict[str, Any] = {f"z_{name}": z.cpu().numpy() for name, z in curves.items()}
    arrays |= {f"x_{name}": decode(z).cpu().numpy() for name, z in curves.items()}
    arrays |= {name: np.asarray(value) for name, value in facts.items()}
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)
