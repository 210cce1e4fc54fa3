"""Groups of options that subcommands share."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import Parameter

from chartae.checks import check_integer
from chartae.data import ArrayDataset, read_data
from chartae.data.images import Color
from chartae.errors import ConfigurationError
from chartae.models import MODELS

__all__ = [
    "ConfigFile",
    "DataOptions",
    "MachineOptions",
    "ModelName",
    "ModelOptions",
    "Overwrite",
    "SamplerOptions",
    "TrainingOptions",
    "without_none",
]

ConfigFile = Annotated[
    Path | None,
    Parameter(help="Read options from this .toml or .json file; the command line goes before it."),
]

ModelName = Annotated[str, Parameter(help=f"One of {', '.join(MODELS)}.")]


@Parameter(name="*")
@dataclass(frozen=True)
class DataOptions:
    """How to read the data.

    Args:
        x_key: Name of the samples in an .npz or .pt file.
        y_key: Name of the labels there.
        label_column: Column of a table that holds the labels; its number from 0 with --no-header.
        labels: File of the labels of an .npy file: .npy, or text with one label a line.
        no_header: The first line of a table is a sample.
        channels_last: Arrays are (N, height, width, channels).
        resize: Size to which images are resampled, as HEIGHTxWIDTH.
        grey: Convert images to grey.
        rgb: Convert images to RGB.
        skip_unreadable: Leave out files that cannot be read as one image.
    """

    x_key: str | None = None
    y_key: str | None = None
    label_column: str | None = None
    labels: Path | None = None
    no_header: bool = False
    channels_last: bool = False
    resize: str | None = None
    grey: bool = False
    rgb: bool = False
    skip_unreadable: bool = False

    def read(self, path: Path) -> ArrayDataset:
        """Read a data set as `chartae.data.read_data` does."""
        return read_data(
            path,
            x_key=self.x_key,
            y_key=self.y_key,
            label_column=self.label_column,
            labels=self.labels,
            header=not self.no_header,
            channels_last=self.channels_last,
            resize=self.size,
            color=self.color,
            skip_unreadable=self.skip_unreadable,
        )

    @property
    def size(self) -> tuple[int, int] | None:
        """The size of ``resize``, as numbers.

        Raises:
            ConfigurationError: if it is not written as HEIGHTxWIDTH.
        """
        if self.resize is None:
            return None
        height, _, width = self.resize.partition("x")
        if not (height.isdecimal() and width.isdecimal()):
            raise ConfigurationError(f"resize={self.resize!r}: expected HEIGHTxWIDTH, as in 64x64")
        return int(height), int(width)

    @property
    def color(self) -> Color | None:
        """What images are converted to."""
        if self.grey and self.rgb:
            raise ConfigurationError("grey and rgb are given: expected one of them")
        return "grey" if self.grey else "rgb" if self.rgb else None


Overwrite = Annotated[
    bool, Parameter(help="Replace what an earlier run wrote there, and nothing else.")
]


@Parameter(name="*")
@dataclass(frozen=True)
class MachineOptions:
    """What to work on.

    Args:
        device: cpu, cuda, mps, or auto for the best there is.
        threads: Threads of a process on the CPU; by default as many as there are cores.
    """

    device: str = "auto"
    threads: int | None = None

    def apply(self) -> None:
        """Set the number of threads of this process.

        Raises:
            ConfigurationError: for a number out of range.
        """
        if self.threads is not None:
            check_integer("threads", self.threads, minimum=1)
            torch.set_num_threads(self.threads)

    @property
    def place(self) -> str:
        """The device, for what takes one and knows no ``auto``."""
        if self.device not in ("auto", "gpu"):
            return self.device
        return "cuda" if torch.cuda.is_available() or self.device == "gpu" else "cpu"


@Parameter(name="*")
@dataclass(frozen=True)
class ModelOptions:
    """Which model; None is the subcommand's own choice.

    Args:
        latent_dim: Dimension of the latent space. [default: 8, of codebooks 64]
        likelihood: Of observations given a latent, such as bernoulli, gaussian or categorical; a
            wrong name lists them all. [default: bernoulli to train; to augment a gaussian with a
            sigmoid link, of scale 0.1, or 0.5 if conditional; for data beyond [0, 1] a gaussian in
            units of the data]
        encoder: Preset of the encoder, such as mlp, conv or resnet; a wrong name lists them all.
            [default: mlp]
        decoder: Preset of the decoder, as for the encoder. [default: mlp]
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
        return {**without_none(named), **_values(self.model_options)}


@Parameter(name="*")
@dataclass(frozen=True)
class SamplerOptions:
    """Which sampler.

    Args:
        sampler: Name of a sampler, as two_stage for TwoStageSampler; a wrong one lists them all, or
            those that serve the model. auto takes volume for a model with a metric, the model's own
            prior for another one that has a prior, code for a codebook, else mixture.
        sampler_options: Arguments of the sampler, as in --sampler-options.num-steps 100.
    """

    sampler: str = "auto"
    sampler_options: Annotated[dict[str, str], Parameter(show_default=False)] = field(
        default_factory=dict
    )

    def arguments(self) -> dict[str, Any]:
        """Return the arguments for the sampler's class that were given."""
        return _values(self.sampler_options)


def _values(options: Mapping[str, str]) -> dict[str, Any]:
    """Return options as arguments: what JSON makes of each text, or the text itself.

    >>> _values({"num-steps": "3", "scale": "0.5", "center": "true", "encoder": "mlp"})
    {'num_steps': 3, 'scale': 0.5, 'center': True, 'encoder': 'mlp'}
    """
    found: dict[str, Any] = {}
    for name, text in options.items():
        try:
            found[name.replace("-", "_")] = json.loads(text)
        except json.JSONDecodeError:
            found[name.replace("-", "_")] = text
    return found


@Parameter(name="*")
@dataclass(frozen=True)
class TrainingOptions:
    """How to train; None is the subcommand's own choice.

    Args:
        epochs: Passes over the data. [default: 100 to train, 250 to augment]
        batch_size: Observations for each step. [default: 128]
        learning_rate: Of the Adam optimiser. [default: 0.001]
        patience: Stop after so many epochs without improvement. [default: never]
        kl_warmup: Epochs during which the weight of the KL term rises from 0 to 1. [default: 0]
    """

    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    patience: int | None = None
    kl_warmup: int | None = None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments for `chartae.fit` that were given."""
        return without_none(vars(self))


def without_none(options: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is None or empty.

    >>> without_none({"epochs": None, "seed": 0, "model_options": {}})
    {'seed': 0}
    """
    return {name: value for name, value in options.items() if value is not None and value != {}}
