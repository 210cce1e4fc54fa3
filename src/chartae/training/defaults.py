"""Default arguments of a model's constructor for given data."""

from itertools import repeat
from typing import Any

from chartae.data import ArrayDataset, StreamedDataset
from chartae.distributions import Moments
from chartae.models import MODELS, RHVAE

__all__ = ["default_options", "fills_unit_range", "fit_defaults", "training_options"]

CHUNK = 1024
"""Number of observations in one piece of the computation of moments."""


def default_options(
    model: str, *, conditional: bool = False, data: ArrayDataset | StreamedDataset | None = None
) -> dict[str, Any]:
    """Return the default arguments for the constructor of a model that learns from few examples.

    Each column of a table has the likelihood of its kind (`MixedLikelihood`). A table is a
    DataFrame, or was read from a text file.

    Args:
        model: a name (`MODELS`).
        conditional: whether one model learns all classes.
        data: the training set; None means images in [0, 1].

    >>> default_options("vae")["latent_dim"], default_options("vqvae")["latent_dim"]
    (8, 64)
    """
    # Eight numbers, or four for each place of a 4 x 4 grid of codes.
    latent_dim = 64 if MODELS[model].latent_space == "codes" else 8
    # A small scale: with a Bernoulli likelihood on ten small images, codes carry almost no
    # information. Larger for a conditional model: otherwise codes encode the class, and samples
    # do not have the class of their label.
    scale = 0.5 if conditional else 0.1
    likelihood: dict[str, Any] = {"name": "gaussian", "scale": scale, "link": "sigmoid"}
    if isinstance(data, ArrayDataset) and data.form.column_dtypes:
        likelihood = _likelihood_of_columns(data)
    elif data is not None and not fills_unit_range(data):
        # Relative to the standard deviation of the data. In chest radiographs in [0, 1], a scale of
        # 0.1 is 0.75 standard deviations.
        relative = "per_feature" if len(data.input_shape) == 1 else 7.5 * scale
        likelihood = {"name": "gaussian", "scale": relative}
    return {"latent_dim": latent_dim, "likelihood": likelihood, **_networks(model, data)}


def _networks(model: str, data: ArrayDataset | StreamedDataset | None) -> dict[str, Any]:
    """Return convolutions for volumes (C, D, H, W): a dense layer would have too many weights."""
    if data is None or len(data.input_shape) != 4 or MODELS[model].latent_space == "codes":
        return {}
    names = ["encoder", "decoder"]
    names += ["metric_network"] if issubclass(MODELS[model], RHVAE) else []
    return dict.fromkeys(names, "conv3d")


def fit_defaults(data: ArrayDataset) -> dict[str, Any]:
    """Return default arguments of `fit` for a model that learns from few examples.

    Convolutions of volumes need more and larger steps than the dense networks of other data. With
    20 heads of `phantom_heads`, one batch an epoch and small steps, the class collapses
    (``docs/volumes.md``).

    Args:
        data: the training set.
    """
    return {"batch_size": 5, "learning_rate": 5e-3} if len(data.input_shape) == 4 else {}


def training_options(model: str, data: ArrayDataset | StreamedDataset) -> dict[str, Any]:
    """Return the default arguments of ``chartae train`` and ``chartae benchmark`` for a model.

    They are the `default_options`, with a Bernoulli likelihood for data spread over [0, 1].

    Args:
        model: a name (`MODELS`).
        data: the training set.
    """
    options = default_options(model, data=data)
    if "link" in options["likelihood"]:
        options["likelihood"] = "bernoulli"
    return options


def fills_unit_range(data: ArrayDataset | StreamedDataset) -> bool:
    """Return whether values are in [0, 1] and spread over it, as in most images.

    It is False for images of low contrast, with a standard deviation about their mean below 0.1.
    With a likelihood of fixed scale, their codes would carry no information.
    """
    if isinstance(data, StreamedDataset):
        return Moments.of((batch["x"], None) for batch in data.batches(CHUNK)).fills_unit_range
    masks = repeat(None) if data.mask is None else data.mask.split(CHUNK)
    return Moments.of(zip(data.x.split(CHUNK), masks, strict=False)).fills_unit_range


def _likelihood_of_columns(data: ArrayDataset) -> dict[str, Any]:
    """Return the likelihood of a table, with one block for neighbouring columns of a kind.

    Booleans, and integers that are all 0 or 1, are Bernoulli. Other numbers are Gaussian.
    """
    form = data.form
    binary = form.of_columns(((data.x == 0.0) | (data.x == 1.0)).all(0)).tolist()
    categories = form.categories or (None,) * len(form.columns)
    blocks: list[dict[str, Any]] = []
    for dtype, kinds, width, is_binary in zip(
        form.column_dtypes, categories, form.widths, binary, strict=True
    ):
        if kinds is not None:
            new: dict[str, Any] = {"name": "categorical", "width": width}
        elif is_binary and "float" not in dtype.lower():
            new = {"name": "bernoulli", "width": 1}
        else:
            new = {"name": "gaussian", "width": 1, "scale": "per_feature"}
        if new["name"] != "categorical" and blocks and blocks[-1]["name"] == new["name"]:
            blocks[-1]["width"] += 1
        else:
            blocks.append(new)
    if [block["name"] for block in blocks] == ["gaussian"]:
        return {"name": "gaussian", "scale": "per_feature"}
    return {"name": "mixed", "columns": blocks}
