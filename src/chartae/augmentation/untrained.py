"""The models and samplers of an augmenter before its training."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from chartae.data import ArrayDataset
from chartae.errors import ConfigurationError
from chartae.models import MODELS, Autoencoder
from chartae.samplers import SAMPLERS, Sampler, natural_sampler
from chartae.training import default_options

__all__ = ["default_arguments", "make_model", "make_sampler"]


def default_arguments(
    model: str, data: ArrayDataset, parts: Mapping[str, ArrayDataset], *, conditional: bool
) -> dict[str, dict[str, Any]]:
    """Return default arguments of a model's class for each training set.

    Args:
        model: name of the class.
        data: all observations.
        parts: the training sets, by name.
        conditional: whether one model learns all classes.
    """
    chosen = partial(default_options, model, conditional=conditional)
    whole = chosen(data=data)
    # Contrast is checked for each class of images; a table has one likelihood for all classes.
    if len(data.input_shape) == 1 or "link" not in whole["likelihood"]:
        return dict.fromkeys(parts, whole)
    return {name: chosen(data=members) for name, members in parts.items()}


def make_model(
    model: str | Callable[..., Autoencoder],
    data: ArrayDataset,
    *,
    conditional: bool,
    defaults: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Autoencoder:
    """Return an untrained model for observations of the shape and the classes of ``data``.

    Args:
        model: name of a class, or a function, as in `Augmenter`.
        data: at least one observation.
        conditional: whether the model learns all classes, given the label.
        defaults: arguments for a class given by name.
        options: those of the user, which replace the defaults.

    Raises:
        ConfigurationError: for a wrong option, another object than a model, or a model without the
            expected conditions.
    """
    conditions = data.num_classes if conditional else None
    given = {} if conditions is None else {"conditions": conditions}
    if isinstance(model, str):
        made = MODELS[model](data.input_shape, **{**defaults, **given, **options})
    else:
        made = model(data.input_shape, **given)
    if not isinstance(made, Autoencoder):
        raise ConfigurationError(
            f"model returns {type(made).__name__}: expected a model of chartae"
        )
    if made.conditions != conditions:
        raise ConfigurationError(
            f"conditional={conditional}, and the model has "
            f"conditions={made.conditions}: expected {conditions}"
        )
    made = made.to(data.x.dtype)
    made.metadata = {**made.metadata, **data.metadata}
    return made


def make_sampler(
    sampler: str | Callable[[Autoencoder], Sampler],
    model: Autoencoder,
    options: Mapping[str, Any],
) -> Sampler:
    """Return the sampler of a model.

    Args:
        sampler: name of a class, ``"auto"``, or a function, as in `Augmenter`.
        model: untrained.
        options: arguments for a class given by name.

    Raises:
        ConfigurationError: for a wrong option, or a sampler that does not support the model.
    """
    if not isinstance(sampler, str):
        return sampler(model)
    kind = natural_sampler(model) if sampler == "auto" else sampler
    return SAMPLERS[kind](model, **options)
