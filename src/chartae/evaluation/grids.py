"""Configurations of models: the grids of the thesis' benchmark, and grids from a file."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chartae.checks import check_choice
from chartae.errors import ConfigurationError
from chartae.models import MODELS

__all__ = ["GRIDS", "Configurations", "read_grid"]

Configurations = Mapping[str, Sequence[Mapping[str, Any]]]
"""For each name of a model, the arguments of its constructor in each configuration."""

BANDWIDTHS = (1e-2, 1e-1, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 5.0)


def _each(name: str, values: Sequence[Any]) -> list[dict[str, Any]]:
    return [{name: value} for value in values]


def _infovae(kernel: str) -> list[dict[str, Any]]:
    # The weight of the MMD is lambda - 1 at alpha = 0. At lambda < 1 the printed configurations 4
    # and 5 maximise it; here its weight is lambda in these two.
    weights = (10.0, 10.0, 10.0, 1.01, 1.1, 10.0, 100.0, 100.0, 10.0, 10.0)
    return [
        {"alpha": 0.0, "kernel": kernel, "bandwidth": bandwidth, "weight": weight}
        for bandwidth, weight in zip(BANDWIDTHS, weights, strict=True)
    ]


def _wae(kernel: str) -> list[dict[str, Any]]:
    weights = (1.0, 1.0, 1.0, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1.0, 1.0)
    return [
        {"kernel": kernel, "bandwidth": bandwidth, "weight": weight}
        for bandwidth, weight in zip(BANDWIDTHS, weights, strict=True)
    ]


def _rae(regularization: str) -> list[dict[str, Any]]:
    embedding = (1e-6, 1e-4, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-2, 1e-1, 1.0)
    weights = (1e-3, 1e-3, 1e-6, 1e-4, 1e-2, 1e-1, 1.0, 1e-3, 1e-3, 1e-3)
    return [
        {"regularization": regularization, "embedding_weight": beta, "weight": weight}
        for beta, weight in zip(embedding, weights, strict=True)
    ]


def _vqvae() -> list[dict[str, Any]]:
    # Printed as 2948; the published code has 2048.
    codes = (128, 256, 512, 512, 512, 512, 512, 512, 1024, 2048)
    commitments = (0.25, 0.25, 0.9, 0.1, 0.5, 0.25, 0.75, 0.25, 0.25, 0.25)
    return [
        {"num_codes": count, "commitment": weight}
        for count, weight in zip(codes, commitments, strict=True)
    ]


def _vaegan() -> list[dict[str, Any]]:
    reconstruction = (0.3, 0.5, 0.7, 0.8, 0.8, 0.8, 0.9, 0.9, 0.99, 0.999)
    layers = (3, 3, 3, 3, 2, 4, 3, 3, 3, 3)
    return [
        {
            "adversarial_weight": round(1.0 - share, 3),
            "layer": layer,
            "discriminator": "thesis/discriminator",
            "feature_scale": 1.0,
        }
        for share, layer in zip(reconstruction, layers, strict=True)
    ]


THESIS: Configurations = {
    "ae": [{}],
    "vae": [{}],
    # Configuration 4 is printed as 500, between 30 and 100; section 3.7.7 has 50.
    "vamp": _each("num_pseudo_inputs", (10, 20, 30, 50, 100, 150, 200, 250, 300, 500)),
    "iwae": _each("num_samples", (2, 3, 4, 5, 6, 7, 8, 9, 10, 12)),
    "planarflowvae": _each(
        "flows",
        (
            *("PPPPP", "RRRRR", "PRPRP"),
            *("P" * count for count in (10, 15, 20, 30)),
            *("PRPRPRPRPR", "PPP", "PRPPRPPPPR"),
        ),
    ),
    "iafvae": [
        {"num_flows": flows, "hidden": [width] * depth}
        for flows, width, depth in (
            *((count, 32, 2) for count in (1, 2, 5, 10, 20, 4)),
            *((4, 32, 4), (4, 32, 6), (4, 64, 2), (4, 128, 2)),
        )
    ],
    "betavae": _each("beta", (1e-3, 1e-2, 1e-1, 0.5, 2.0, 5.0, 10.0, 20.0, 1e2, 1e3)),
    "betatcvae": _each("beta", (1e-3, 1e-2, 1e-1, 0.5, 1.0, 2.0, 5.0, 10.0, 50.0, 1e2)),
    "factorvae": _each("gamma", (1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 100.0)),
    "infovae": [*_infovae("rbf"), *_infovae("imq")],
    "aae": _each("weight", (1e-3, 1e-2, 1e-1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)),
    # The divergence has weight 1 here, so the distance has 1 / beta. The window follows from the
    # size of the images, so configurations of the same beta are one.
    "msssimvae": _each("weight", (100.0, 10.0, 1.0)),
    "vaegan": _vaegan(),
    "wae": [*_wae("rbf"), *_wae("imq")],
    "vqvae": _vqvae(),
    "rae": [*_rae("l2"), *_rae("gp")],
}
"""Tables 4.8 to 4.21 of the thesis, with their slips corrected."""

GRIDS: dict[str, Configurations] = {
    "default": {name: [{}] for name in MODELS},
    "thesis": THESIS,
}
"""Named grids: one default configuration of each model, and the thesis' grid."""


def read_grid(name: str) -> Configurations:
    """Return a grid of `GRIDS`, or that of a .toml or .json file.

    A file has, for each name of a model, a list of tables with arguments of its constructor, as
    ``vae = [{}]`` and ``betavae = [{beta = 2}, {beta = 4}]``.

    Raises:
        ConfigurationError: if there is no such grid or file, or the file has another form.

    >>> len(read_grid("thesis")["betavae"]), read_grid("default")["vae"]
    (10, [{}])
    """
    path = Path(name)
    if path.suffix not in (".toml", ".json"):
        check_choice("grid", name, [*GRIDS, "a .toml or .json file"])
        return GRIDS[name]
    try:
        text = path.read_text(encoding="utf-8")
        grid = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"grid={name!r} cannot be read: {error}") from error
    if not isinstance(grid, dict) or not grid:
        raise ConfigurationError(f"grid={name!r}: expected lists of configurations by model")
    for model, configurations in grid.items():
        check_choice(f"the model in grid={name!r}", model, MODELS)
        if not _are_configurations(configurations):
            raise ConfigurationError(
                f"grid={name!r} has {model} = {configurations!r}: expected a list of tables of "
                "arguments, as [{}]"
            )
    return grid


def _are_configurations(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(c, dict) for c in value)
