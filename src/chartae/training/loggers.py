"""Trackers of experiments by name: where curves, hyper-parameters and pictures of a training go."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chartae.checks import check_choice
from chartae.errors import ConfigurationError
from chartae.models import Trainable
from chartae.training.history import History

if TYPE_CHECKING:
    from lightning_fabric.loggers.logger import Logger

    from chartae.training.state import Plan

__all__ = ["TRACKERS", "figures_of", "hyperparameters", "make_loggers"]

TRACKERS = ("csv", "mlflow", "tensorboard", "wandb")
"""Names of trackers. All but csv need the package of their name."""


def make_loggers(loggers: Any, output_dir: str | Path | None) -> list[Any]:
    """Return Lightning loggers for names and loggers; nothing is written yet.

    Args:
        loggers: a name of `TRACKERS`, a Lightning logger, or a sequence of these.
        output_dir: a tracker writes to the folder of its name in there.

    Raises:
        ConfigurationError: for another name or object, a name twice or without ``output_dir``, or
            a tracker whose package is missing.
    """
    several = isinstance(loggers, Sequence) and not isinstance(loggers, str)
    given = list(loggers) if several else [loggers]
    names = [one for one in given if isinstance(one, str)]
    for name in names:
        check_choice("loggers", name, TRACKERS)
        if names.count(name) > 1:
            raise ConfigurationError(f"loggers has {name!r} twice: expected different names")
        if output_dir is None:
            raise ConfigurationError(
                f"loggers={name!r} without output_dir: expected the folder for its files"
            )
    for one in given:
        if not isinstance(one, str) and not hasattr(one, "log_metrics"):
            raise ConfigurationError(
                f"loggers has {type(one).__name__}: expected Lightning loggers, or names among "
                f"{', '.join(TRACKERS)}"
            )
    return [_make(one, output_dir) if isinstance(one, str) else one for one in given]


def _make(name: str, output_dir: Any) -> "Logger":
    if find_spec(name) is None:
        raise ConfigurationError(f"loggers={name!r} needs a package: pip install {name}")
    module = import_module(f"chartae.training.trackers.{name}")
    tracker: Logger = module.Tracker(Path(output_dir) / name)
    return tracker


def hyperparameters(model: Trainable, plan: "Plan", sizes: Mapping[str, int]) -> dict[str, Any]:
    """Return what a tracker shows of a training, as numbers, texts and None.

    They are the name of the model, its arguments as ``"model/latent_dim"``, those of the training
    as ``"epochs"``, and the ``sizes`` of data sets.
    """
    others = ("model", "train", "validation")  # descriptions for resuming
    training = {name: value for name, value in asdict(plan).items() if name not in others}
    return {
        "model": type(model).__name__,
        **training,
        **sizes,
        **_flat("model", model.config()),
    }


def figures_of(history: History, epoch: int) -> dict[str, float]:
    """Return what a tracker shows of an epoch, such as ``"train/loss"``; no unknown figures."""
    groups = {
        "train": history.train,
        "validation": history.validation,
        "latents": history.latents,
    }
    figures = {
        f"{group}/{name}": values[epoch]
        for group, curves in groups.items()
        for name, values in curves.items()
        if not math.isnan(values[epoch])
    }
    return {**figures, "learning_rate": history.learning_rate[epoch]}


def _flat(name: str, value: Any) -> dict[str, Any]:
    """Return a value, and the parts of a mapping, by name.

    >>> _flat("decoder", {"name": "mlp", "hidden": [8]})
    {'decoder/name': 'mlp', 'decoder/hidden': '[8]'}
    """
    if isinstance(value, Mapping):
        parts = [_flat(f"{name}/{key}", part) for key, part in value.items()]
        return {key: part for one in parts for key, part in one.items()}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {name: value}
    return {name: str(value) if isinstance(value, (list, tuple)) else type(value).__name__}
