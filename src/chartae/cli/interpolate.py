"""``chartae interpolate``: the geodesic between two observations, against the straight line."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from chartae.cli.options import ConfigFile, DataOptions
from chartae.cli.output import check_output, effective, say, write_config

if TYPE_CHECKING:
    from torch import Tensor

    from chartae.data import ArrayDataset
    from chartae.geometry import Metric
    from chartae.models import Autoencoder
    from chartae.report import Chart

__all__ = ["interpolate"]

EXAMPLE = (
    "Example: chartae interpolate digits-vae digits.npz:0 digits.npz:7 --data digits.npz "
    "--out path.png"
)

IMAGES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff")
SMOOTH = 63
"""Fewest segments of a path while it is sought, however few of its points are asked for."""


def interpolate(
    model: Path,
    a: str,
    b: str,
    *,
    out: Path,
    data: Path | None = None,
    metric: str = "auto",
    num_points: int = 10,
    data_options: DataOptions = DataOptions(),  # noqa: B008
    config: ConfigFile = None,
) -> None:
    """Follow the geodesic from observation A to observation B, and the straight line.

    Args:
        model: Folder of a trained model.
        a: An image, or a file as for train that holds one observation; FILE:INDEX for one of many.
        b: As A.
        out: A .png figure, or an .npz file of both curves: latents, observations, lengths.
        data: The training data: needed for the posterior metric, and drawn on the figure's map.
        metric: Whose geodesic: model, the metric that an RHVAE learned; posterior, the volume of
            the posteriors of any other VAE, where paths keep to the data (thesis equation 3.8,
            tempered in more than two dimensions); pullback, distances between decoded observations.
            auto takes the first that the model has.
        num_points: Points of each curve, both ends included.
    """
    from chartae.checks import check_integer

    check_integer("num_points", num_points, minimum=2)
    check_output(out, ".png", ".npz")
    autoencoder = _load(model)
    source = None if data is None else data_options.read(data)
    if source is not None:
        autoencoder.check_data("data", source.x)
    ends = [_observation(n, text, autoencoder, data_options) for n, text in (("A", a), ("B", b))]
    shown, measure = _metrics(autoencoder, metric, source)
    curves, told = _curves(autoencoder, measure, ends, num_points)
    if out.suffix == ".png":
        chart = _chart(autoencoder, shown, source, curves["geodesic"])
        _draw(out, autoencoder, chart, curves, num_points)
    else:
        stride = (len(curves["line"]) - 1) // (num_points - 1)
        thinned = {name: curve[::stride] for name, curve in curves.items()}
        _write(out, autoencoder, thinned, told)
    options = effective(
        data_options, model=model.resolve(), a=a, b=b, out=out, data=data, metric=metric,
        num_points=num_points,
    )  # fmt: skip
    write_config(out.with_suffix(".json"), "interpolate", options)
    _tell(told)
    say(f"{'figure' if out.suffix == '.png' else 'curves'}: {out}")


def _load(folder: Path) -> "Autoencoder":
    from chartae.errors import ConfigurationError
    from chartae.loading import load
    from chartae.samplers import Sampler

    if not folder.is_dir():
        raise ConfigurationError(f"MODEL={str(folder)!r}: expected the folder of a trained model")
    loaded = load(folder)
    model: Autoencoder = loaded.model if isinstance(loaded, Sampler) else loaded
    if model.latent_dim < 2:
        raise ConfigurationError(
            f"{folder} has a latent space of one dimension, where every path is the straight line: "
            "expected two or more"
        )
    return model


def _observation(name: str, text: str, model: "Autoencoder", data_options: DataOptions) -> "Tensor":
    """Return the one observation that ``FILE`` or ``FILE:INDEX`` names, with a batch dimension."""
    from chartae.errors import DataError

    file, colon, index = text.rpartition(":")
    if not colon or not index.isdecimal() or Path(text).exists():
        file, index = text, ""
    x = _read(Path(file), data_options)
    if tuple(x.shape) == model.input_shape and not index:
        x = x[None]
    if not index and len(x) != 1:
        raise DataError(f"{name}={text!r} holds {len(x)} observations: expected {text}:INDEX")
    if int(index or 0) >= len(x):
        raise DataError(f"{name}={text!r}: expected an index from 0 to {len(x) - 1}")
    x = x[int(index or 0)][None].to(model.device, model.dtype)
    model.check_data(name, x)
    return x


def _read(path: Path, data_options: DataOptions) -> "Tensor":
    """Return what a file holds, an image as one observation."""
    from chartae.data import read_image

    if path.suffix.lower() in IMAGES:
        return read_image(path).x
    return data_options.read(path).x


def _metrics(
    model: "Autoencoder", name: str, data: "ArrayDataset | None"
) -> tuple["Metric", "Metric"]:
    """Return the metric whose volume the map shows, and the one whose geodesic is wanted."""
    from chartae.checks import check_choice
    from chartae.errors import ConfigurationError
    from chartae.geometry import ConformalMetric, PosteriorMetric, PullbackMetric
    from chartae.models import VariationalAutoencoder

    check_choice("metric", name, ["auto", "model", "posterior", "pullback"])
    own = hasattr(type(model), "metric")
    if name == "auto":
        encodes = isinstance(model, VariationalAutoencoder)
        name = "model" if own else "posterior" if encodes else "pullback"
    if name == "model":
        if not own:
            raise ConfigurationError(
                f"{type(model).__name__} has learned no metric: expected --metric posterior or "
                "pullback"
            )
        learned = cast("Metric", model.metric)
        return learned, learned
    if name == "pullback":
        pullback = PullbackMetric.from_model(model)
        return pullback, pullback
    if not isinstance(model, VariationalAutoencoder):
        raise ConfigurationError(
            f"{type(model).__name__} has no posterior: expected --metric pullback"
        )
    if data is None:
        raise ConfigurationError(
            "the posterior metric is made of the training data: expected --data DATA"
        )
    posterior = PosteriorMetric.from_model(model, data.x)
    # Its own geodesics would keep off the data, where it is large. In two dimensions the strength
    # is that of equation 3.8; in 8, on digits, that left 10 of 12 paths unconverged, and 2/d none.
    strength = 2.0 / model.latent_dim
    return posterior, ConformalMetric.avoiding_the_void(posterior, strength)


def _curves(
    model: "Autoencoder", metric: "Metric", ends: list["Tensor"], num_points: int
) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """Return both curves, fine enough to be drawn, and what is to be said about them."""
    import torch

    from chartae.geometry import length, shortest_paths

    stride = -(-SMOOTH // (num_points - 1))
    with torch.no_grad():
        start, end = (model.encode(x)[0] for x in ends)
        times = torch.linspace(0, 1, stride * (num_points - 1) + 1).to(start)
        paths = shortest_paths(metric, start, end, num_points=len(times))
        line = torch.lerp(start, end, times[:, None])
        straight = float(length(metric, line))
    return {"geodesic": paths.points, "line": line}, {
        "lengths": [float(paths.lengths), straight],
        "converged": bool(paths.converged),
        "residual": float(paths.residual),
    }


def _chart(
    model: "Autoencoder", metric: "Metric", data: "ArrayDataset | None", curve: "Tensor"
) -> "Chart":
    """Return the map: of the training data, else the metric's centroids, else the curve itself."""
    import torch

    from chartae.report import Chart

    if data is not None and len(data) > 1:
        with torch.no_grad():
            codes = model.encode(data.x, batch_size=1024)
        return Chart(codes, data.y, metric, class_names=data.class_names)
    return Chart(metric.landmarks if len(metric.landmarks) > 1 else curve, metric=metric)


def _draw(
    path: Path,
    model: "Autoencoder",
    chart: "Chart",
    curves: dict[str, "Tensor"],
    num_points: int,
) -> None:
    from chartae.atomic import atomic_path
    from chartae.report import interpolation_figure

    named = {"straight line": curves["line"], "geodesic": curves["geodesic"]}
    figure = interpolation_figure(chart, named, model.decode, columns=num_points)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def _write(
    path: Path, model: "Autoencoder", curves: dict[str, "Tensor"], told: dict[str, Any]
) -> None:
    import numpy as np
    import torch

    from chartae.atomic import atomic_path

    arrays: dict[str, Any] = {f"z_{name}": z.cpu().numpy() for name, z in curves.items()}
    with torch.no_grad():
        arrays |= {f"x_{name}": model.decode(z).cpu().numpy() for name, z in curves.items()}
    arrays |= {name: np.asarray(value) for name, value in told.items()}
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def _tell(told: dict[str, Any]) -> None:
    geodesic, line = told["lengths"]
    found = "converged" if told["converged"] else f"not converged, residual {told['residual']:.1e}"
    say(f"geodesic: length {geodesic:.4g}, {found}", f"straight line: length {line:.4g}")
