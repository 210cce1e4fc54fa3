"""Groups of options that subcommands share."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from chartae import HOMES  # names alone: the classes themselves would cost an import of torch

if TYPE_CHECKING:
    from chartae.data import ArrayDataset

__all__ = [
    "ConfigFile",
    "DataOptions",
    "ModelName",
    "ModelOptions",
    "TrainingOptions",
    "given",
]

ConfigFile = Annotated[
    Path | None,
    Parameter(help="Read options from this .toml or .json file; the command line goes before it."),
]

ModelName = Annotated[
    str,
    Parameter(help=f"One of {', '.join(sorted(map(str.lower, HOMES['models'])))}."),
]


@Parameter(name="*")
@dataclass(frozen=True)
class DataOptions:
    """How to read the data.

    Args:
        x_key: Name of the samples in an .npz or .pt file.
        y_key: Name of the labels there.
        label_column: Column of a .csv file that holds the labels.
        channels_last: Arrays are (N, height, width, channels).
    """

    x_key: str | None = None
    y_key: str | None = None
    label_column: str | None = None
    channels_last: bool = False

    def read(self, path: Path) -> "ArrayDataset":
        """Read a data set as `chartae.data.read_data` does."""
        from chartae.data import read_data

        return read_data(path, **vars(self))


@Parameter(name="*")
@dataclass(frozen=True)
class ModelOptions:
    """Which model; None is the subcommand's own choice.

    Args:
        latent_dim: Dimension of the latent space.
        likelihood: Of observations given a latent, such as bernoulli, gaussian or categorical; a
            wrong name lists them all.
        encoder: Preset of the encoder, such as mlp, conv or resnet; a wrong name lists them all.
        decoder: Preset of the decoder, as for the encoder.
        model_options: Any other argument of the model, as in --model-options.temperature 0.8.
    """

    latent_dim: int | None = None
    likelihood: str | None = None
    encoder: str | None = None
    decoder: str | None = None
    model_options: Annotated[dict[str, str], Parameter(show_default=False)] = field(
        default_factory=dict
    )

    def arguments(self) -> dict[str, Any]:
        """Return the arguments for the model's class that were given."""
        named = {name: v for name, v in vars(self).items() if name != "model_options"}
        others = {name.replace("-", "_"): _value(v) for name, v in self.model_options.items()}
        return {**given(named), **others}


def _value(text: str) -> Any:
    """Return what JSON makes of a text, or the text itself.

    >>> _value("3"), _value("0.5"), _value("true"), _value("mlp")
    (3, 0.5, True, 'mlp')
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


@Parameter(name="*")
@dataclass(frozen=True)
class TrainingOptions:
    """How to train; None is the subcommand's own choice.

    Args:
        epochs: Passes over the data.
        batch_size: Observations for each step.
        learning_rate: Of the Adam optimiser.
        patience: Stop after so many epochs without improvement.
        kl_warmup: Epochs during which the weight of the KL term rises from 0 to 1.
    """

    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    patience: int | None = None
    kl_warmup: int | None = None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments for `chartae.fit` that were given."""
        return given(vars(self))


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is None or empty.

    >>> given({"epochs": None, "seed": 0, "model_options": {}})
    {'seed': 0}
    """
    return {name: value for name, value in options.items() if value is not None and value != {}}
