"""The page of a model on the Hugging Face Hub, with a picture of what the model makes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from chartae import __version__
from chartae.checks import check_integer, check_number
from chartae.errors import ConfigurationError
from chartae.hub import Card
from chartae.longitudinal import SequenceModel
from chartae.models import Autoencoder, VariationalAutoencoder
from chartae.report.figures import image_grid, training_curves
from chartae.samplers import SAMPLERS, Sampler, natural_sampler
from chartae.training import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["model_card"]

COLUMNS, ROWS = 10, 5
"""Numbers of columns and rows of samples; with classes, at most twice as many rows."""
VISITS, INDIVIDUALS, SPREAD = 8, 5, 1.5
"""Numbers of visits and of individuals, and how many standard deviations of the times of training
the visits are from their mean."""
SHOWN = 20
"""Largest number of classes that are listed."""


class Picture(NamedTuple):
    """A figure and what it shows; empty if there is none."""

    figure: "Figure | None" = None
    caption: str = ""


def model_card(
    model: Autoencoder | Sampler,
    *,
    title: str = "",
    about: str = "",
    license: str | None = None,
    history: History | None = None,
    metrics: Mapping[str, float] | None = None,
    data: ArrayLike | Tensor | None = None,
    y: ArrayLike | Tensor | None = None,
    seed: int = 0,
) -> Card:
    r"""Return the page of a model or a fitted sampler for the Hugging Face Hub.

    The picture shows samples of images or volumes; for a model of follow-ups, generated
    individuals over time. It shows no real data, unless ``data`` are given: then it shows these and
    their reconstructions. The picture of other models is their training, if ``history`` is given.
    So is that of a model whose natural sampler learns from data first.

    Args:
        model: a trained model, or a fitted sampler.
        title: the heading; by default the name of the repository.
        about: the data, the purpose and the limits of the model, in Markdown.
        license: an identifier of the hub, such as ``"mit"`` or ``"cc-by-4.0"``.
        history: the training of the model.
        metrics: figures of the model, by name.
        data: images or volumes ``(n, *input_shape)`` that may be public.
        y: their conditions, for a model that has them.
        seed: seed of the samples.

    Raises:
        ConfigurationError: for another object, a license or a metric of another kind, or ``data``
            for a model of vectors or of follow-ups.
        DataError: if the data do not fit the model.

    >>> import chartae
    >>> card = model_card(chartae.VAE((8, 8), latent_dim=2), about="Of digits.", license="mit")
    >>> card.summary
    'VAE, a generative model of images of shape 8 × 8, with 2 latent dimensions.\n\nOf digits.'
    >>> card.task, card.caption
    ('unconditional-image-generation', 'Samples (NormalSampler)')
    """
    if not isinstance(model, Autoencoder | Sampler):
        raise ConfigurationError(
            f"model is {type(model).__name__}: expected a model or a sampler of chartae"
        )
    if license is not None and (not isinstance(license, str) or not license.strip()):
        raise ConfigurationError(f"license={license!r}: expected an identifier, such as 'mit'")
    metrics = {name: check_number(f"metrics[{name!r}]", v) for name, v in (metrics or {}).items()}
    check_integer("seed", seed, minimum=0)
    picture = _samples(model, seed) if data is None else _reconstructions(model, data, y)
    if picture.figure is None and history is not None and history.num_epochs:
        picture = Picture(training_curves({"": history}), "The training, epoch by epoch")
    return Card(
        summary=f"{_summary(model)}\n\n{about}".strip(),
        title=title,
        usage=_usage(model),
        facts=_facts(model, history),
        metrics=metrics,
        license=license,
        task=_task(_bare(model)),
        tags=_tags(_bare(model)),
        figure=picture.figure,
        caption=picture.caption,
    )


def _bare(model: Autoencoder | Sampler) -> Autoencoder:
    """Return the model, or that of the sampler."""
    return model.model if isinstance(model, Sampler) else model


# --- words ----------------------------------------------------------------------------------------


def _summary(model: Autoencoder | Sampler) -> str:
    bare = _bare(model)
    sampler = f"{type(model).__name__}, a fitted sampler of " if model is not bare else ""
    size = " × ".join(map(str, bare.input_shape))
    kinds = {1: f"vectors of {size} features", 4: f"volumes of shape {size}"}
    what = kinds.get(len(bare.input_shape), f"images of shape {size}")
    if isinstance(bare, SequenceModel):
        what = f"individuals with several visits, which are {what}"
    return (
        f"{sampler}{type(bare).__name__}, a generative model of {what}, "
        f"with {bare.latent_dim} latent dimensions."
    )


def _facts(model: Autoencoder | Sampler, history: History | None) -> dict[str, str]:
    bare = _bare(model)
    facts = {
        "Parameters": f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        "Likelihood": type(bare.observation_model).__name__,
    }
    if isinstance(bare.conditions, int):
        names = [str(name) for name in bare.metadata.get("class_names") or range(bare.conditions)]
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        facts["Classes"] = ", ".join(names[:SHOWN]) + more
    elif bare.conditions is not None:
        facts["Conditions"] = f"vectors of {bare.conditions[0]} numbers"
    if history is not None and history.num_epochs:
        facts["Training"] = f"{history.num_epochs} epochs in {sum(history.seconds):.0f} seconds"
        if history.best_epoch is not None:
            part = "validation" if history.validation else "training"
            losses = (history.validation or history.train)["loss"]
            facts[f"Loss ({part})"] = (
                f"{losses[history.best_epoch]:.4g} in epoch {history.best_epoch + 1}, whose "
                "weights are here"
            )
    return {**facts, "Version of chartae": __version__}


def _usage(model: Autoencoder | Sampler) -> list[str]:
    """Return lines of Python that load ``model`` and draw samples."""
    bare, y = _bare(model), ""
    many = isinstance(bare, SequenceModel)
    if isinstance(bare.conditions, int):
        y = ", y=torch.zeros(10, dtype=torch.long)" if many else ", y=0"  # the first class
    elif bare.conditions is not None:
        y = f", y=torch.zeros({'10, ' if many else ''}{bare.conditions[0]})"
    lines = ["import chartae", *(["import torch"] if "torch" in y else []), ""]
    if isinstance(model, Sampler):
        return [*lines, 'sampler = chartae.load("REPO_ID")', f"x = sampler.sample(10{y})"]
    lines.append('model = chartae.load("REPO_ID")')
    if many:
        return [*lines, f"x = model.generate(10, times=[0.0, 1.0, 2.0]{y})  # ten individuals"]
    kind = _natural(bare)
    if kind is None:
        return [*lines, "x = model.reconstruct(x)  # observations of yours"]
    lines.append(f"sampler = chartae.{kind.__name__}(model)")
    if kind(bare).needs_data:
        fit = "sampler.fit(x)" if bare.conditions is None else "sampler.fit(x, y)"
        lines.append(f"{fit}  # observations of yours, from which it learns")
    return [*lines, f"x = sampler.sample(10{y})"]


def _natural(model: Autoencoder) -> type[Sampler] | None:
    """Return the class of the sampler that suits a model; None if no sampler supports it."""
    try:
        return SAMPLERS[natural_sampler(model)]
    except ConfigurationError:
        return None


def _task(model: Autoencoder) -> str | None:
    """Return the task of the hub that fits; None if there is no such task."""
    if isinstance(model, SequenceModel):
        return "time-series-forecasting" if len(model.input_shape) == 1 else None
    images = len(model.input_shape) in (2, 3) and model.conditions is None
    return "unconditional-image-generation" if images else None


def _tags(model: Autoencoder) -> list[str]:
    tags = ["generative-model", "autoencoder", type(model).__name__.lower()]
    if isinstance(model, VariationalAutoencoder):
        tags.append("variational-autoencoder")
    if isinstance(model, SequenceModel):
        tags.append("longitudinal")
    return tags


# --- pictures -------------------------------------------------------------------------------------


def _samples(model: Autoencoder | Sampler, seed: int) -> Picture:
    """Return samples of images or volumes, with a row for each class; empty for other models."""
    bare = _bare(model)
    if len(bare.input_shape) == 1 or isinstance(bare.conditions, tuple):
        return Picture()
    if isinstance(bare, SequenceModel):
        return _individuals(bare, seed)
    sampler = model
    if not isinstance(sampler, Sampler):
        kind = _natural(bare)
        if kind is None or (sampler := kind(bare)).needs_data:
            return Picture()
        sampler.fit()
    y, rows, count = None, "", COLUMNS * ROWS
    if bare.conditions is not None:
        shown = min(bare.conditions, 2 * ROWS)
        y, count = torch.arange(shown).repeat_interleave(COLUMNS), shown * COLUMNS
        rows = f", a row for each of {shown} classes"
    draw = bare.observation_model.samples_are_draws
    x = sampler.sample(count, seed=seed, y=y, draw=draw).cpu()
    figure = image_grid({"samples": x}, columns=COLUMNS)
    return Picture(figure, f"Samples ({type(sampler).__name__}){rows}")


def _individuals(model: SequenceModel, seed: int) -> Picture:
    """Return generated individuals, a row for each."""
    center, scale = (float(model.get_buffer(f"time_{name}")) for name in ("center", "scale"))
    times = center + scale * torch.linspace(-SPREAD, SPREAD, VISITS, dtype=torch.float64)
    classes = model.conditions if isinstance(model.conditions, int) else None
    y = None if classes is None else torch.arange(INDIVIDUALS) % classes
    x = model.generate(INDIVIDUALS, times, y=y, seed=seed).flatten(0, 1).cpu()
    figure = image_grid({"generated individuals": x}, columns=VISITS)
    return Picture(
        figure,
        f"Generated individuals, a row for each, at times from {times[0]:.3g} to {times[-1]:.3g}",
    )


def _reconstructions(
    model: Autoencoder | Sampler, data: ArrayLike | Tensor, y: ArrayLike | Tensor | None
) -> Picture:
    """Return real observations beside their reconstructions."""
    bare = _bare(model)
    if isinstance(bare, SequenceModel) or len(bare.input_shape) == 1:
        raise ConfigurationError(
            f"data are given: the page of this {type(bare).__name__} shows none, because it is of "
            "vectors or of follow-ups; expected None"
        )
    count = COLUMNS * ROWS
    x, labels = _first(data, count), None if y is None else _first(y, count)
    with torch.no_grad():
        again = bare.reconstruct(x, labels)
    figure = image_grid({"data": x, "reconstructions": again}, columns=COLUMNS)
    return Picture(figure, "Observations and their reconstructions")


def _first(values: ArrayLike | Tensor, count: int) -> Any:
    return values[:count] if isinstance(values, Tensor) else np.asarray(values)[:count]
