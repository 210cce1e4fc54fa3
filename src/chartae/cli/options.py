"""Groups of options that subcommands share."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from cyclopts import Parameter

from chartae.checks import check_integer
from chartae.data import (
    ArrayDataset,
    Sequences,
    StreamedDataset,
    read_data,
    read_image,
    read_sequences,
    stream_data,
)
from chartae.data.files import bytes_in_memory
from chartae.data.images import Color
from chartae.errors import ConfigurationError
from chartae.longitudinal import SEQUENCE_MODELS
from chartae.models import MODELS
from chartae.training import is_first_process

__all__ = [
    "AnyModelName",
    "ConfigFile",
    "DataOptions",
    "MachineOptions",
    "ModelName",
    "ModelOptions",
    "Overwrite",
    "ProcessOptions",
    "SamplerOptions",
    "TrainingOptions",
    "VisitOptions",
    "listed",
    "seconds_of",
    "without_none",
]

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
SHARE = 0.25
"""Largest part of the memory of the machine that data may take without being streamed."""

ConfigFile = Annotated[
    Path | None,
    Parameter(
        help="Read options from this .toml or .json file. Options of the command line replace them."
    ),
]

ModelName = Annotated[str, Parameter(help=f"One of {', '.join(MODELS)}.")]

AnyModelName = Annotated[
    str | None,
    Parameter(
        help=f"One of {', '.join(MODELS)}; with --longitudinal one of "
        f"{', '.join(SEQUENCE_MODELS)}. [default: vae; with --longitudinal flowvae]"
    ),
]


@Parameter(name="*")
@dataclass(frozen=True)
class DataOptions:
    """How to read the data.

    Args:
        x_key: Name of the samples in an .npz or .pt file.
        y_key: Name of the labels there.
        label_column: Column of a table with the labels; its number, from 0, with --no-header.
        labels: File of the labels of an .npy file: .npy, or text with one label per line.
        no_header: The first line of a table is a sample.
        channels_last: Arrays are (N, height, width, channels).
        resize: Size to which images are resampled, as HEIGHTxWIDTH; for volumes one number for
            each axis of the file, as in 84x104x89.
        crop: Size of the centre to which images or volumes are cut, before --resize, in the same
            notation.
        grey: Convert images to grey.
        rgb: Convert images to RGB.
        rgba: Convert images to RGB with transparency.
        series: Description, number or UID of the DICOM series to read, where a folder has several.
        normalize: image scales each image or volume to [0, 1] by its own minimum and maximum. New
            data for the trained model are then scaled in the same way. Intensities are lost: what
            the model generates is in [0, 1]. [default: no scaling]
        skip_unreadable: Ignore files that cannot be read as one image or volume.
    """

    x_key: str | None = None
    y_key: str | None = None
    label_column: str | None = None
    labels: Path | None = None
    no_header: bool = False
    channels_last: bool = False
    resize: str | None = None
    crop: str | None = None
    grey: bool = False
    rgb: bool = False
    rgba: bool = False
    series: str | None = None
    normalize: Literal["image"] | None = None
    skip_unreadable: bool = False

    def read(self, path: Path) -> ArrayDataset:
        """Read a data set as `chartae.data.read_data` does."""
        found = read_data(
            path,
            x_key=self.x_key,
            y_key=self.y_key,
            label_column=self.label_column,
            labels=self.labels,
            header=not self.no_header,
            channels_last=self.channels_last,
            resize=sizes("resize", self.resize),
            crop=sizes("crop", self.crop),
            color=self.color,
            series=self.series,
            skip_unreadable=self.skip_unreadable,
        )
        return found.normalized() if self.normalize else found

    def open(self, path: Path, *, stream: bool) -> ArrayDataset | StreamedDataset:
        """Read a data set, or open it to be read batch by batch.

        Args:
            path: the data.
            stream: whether it is read batch by batch in any case, not only if it would take more
                than `SHARE` of the memory of this machine.

        Raises:
            ConfigurationError: for an option that data read batch by batch do not have.
        """
        if not stream and not self._is_large(path):
            return self.read(path)
        for name in ("x_key", "y_key", "label_column", "no_header"):
            if given := getattr(self, name):
                raise ConfigurationError(f"{name}={given!r} is not an option of streamed data")
        found = stream_data(
            path,
            labels=self.labels,
            channels_last=self.channels_last,
            resize=sizes("resize", self.resize),
            crop=sizes("crop", self.crop),
            color=self.color,
            series=self.series,
            skip_unreadable=self.skip_unreadable,
        )
        return found.normalized() if self.normalize else found

    def _is_large(self, path: Path) -> bool:
        if not hasattr(os, "sysconf"):  # Windows does not say how much memory there is
            return False
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        resize, crop = sizes("resize", self.resize), sizes("crop", self.crop)
        size = bytes_in_memory(path, resize=resize, crop=crop, color=self.color, series=self.series)
        return size > SHARE * memory

    def read_image(self, path: Path) -> ArrayDataset:
        """Read one image as `chartae.data.read_image` does."""
        resize, crop = sizes("resize", self.resize), sizes("crop", self.crop)
        found = read_image(path, resize=resize, crop=crop, color=self.color)
        return found.normalized() if self.normalize else found

    @property
    def color(self) -> Color | None:
        """The colour mode to which images are converted; None keeps theirs."""
        modes: dict[Color, bool] = {"grey": self.grey, "rgb": self.rgb, "rgba": self.rgba}
        chosen = [mode for mode, given in modes.items() if given]
        if len(chosen) > 1:
            raise ConfigurationError(f"{' and '.join(chosen)} are given: expected one of them")
        return chosen[0] if chosen else None


def sizes(name: str, text: str | None) -> tuple[int, ...] | None:
    """Return the numbers of a size; None for None.

    Raises:
        ConfigurationError: if it is not written as HEIGHTxWIDTH, or with three numbers.

    >>> sizes("resize", "84x104x89")
    (84, 104, 89)
    """
    if text is None:
        return None
    parts = text.split("x")
    if len(parts) not in (2, 3) or not all(part.isdecimal() for part in parts):
        raise ConfigurationError(
            f"{name}={text!r}: expected HEIGHTxWIDTH, as in 64x64, or three numbers for volumes"
        )
    return tuple(map(int, parts))


@Parameter(name="*")
@dataclass(frozen=True)
class VisitOptions:
    """How to read individuals with several visits.

    Args:
        individual: Column with the names of individuals; in an .npz file their array. [default:
            individual, or that of the model's table; ids]
        time: Column of times; in an .npz file their array. [default: time, or that of the model's
            table; times]
        scores: Columns of the scores, as in memory,speed. [default: all others; those of the model]
        covariates: Columns that do not vary within an individual, such as treatment or sex.
        table: Table of the visits of a folder of images, with the columns individual, time and
            file. [default: visits.csv, or the only .csv file in the folder]
        file: Column of that table with the names of files. [default: file]
    """

    individual: str | None = None
    time: str | None = None
    scores: str | None = None
    covariates: str | None = None
    table: Path | None = None
    file: str | None = None

    def read(
        self,
        path: Path,
        how: DataOptions,
        *,
        scores: Sequence[str] | None = None,
        covariates: Sequence[str] | None = None,
        key_columns: tuple[str | None, str | None] = (None, None),
    ) -> Sequences:
        """Read individuals as `chartae.data.read_sequences` does.

        Args:
            path: the data.
            how: the options that other data have, too.
            scores: the columns of scores if none are given.
            covariates: the columns of covariates if none are given.
            key_columns: those of individuals and times if none are given.

        Raises:
            ConfigurationError: for an option of other data.
        """
        others = (
            *("y_key", "label_column", "labels", "no_header", "skip_unreadable", "crop"),
            *("series", "normalize"),
        )
        for name in others:
            if given := getattr(how, name):
                raise ConfigurationError(
                    f"{name}={given!r} is not an option of individuals with visits"
                )
        return read_sequences(
            path,
            individual=self.individual or key_columns[0],
            time=self.time or key_columns[1],
            scores=listed("scores", self.scores) or scores,
            covariates=listed("covariates", self.covariates) or covariates,
            table=self.table,
            file=self.file,
            resize=sizes("resize", how.resize),
            color=how.color,
            x_key=how.x_key,
            channels_last=how.channels_last,
        )


def listed(name: str, text: str | None) -> list[str] | None:
    """Return the parts of a text between commas; None for None.

    Raises:
        ConfigurationError: for an empty part.

    >>> listed("scores", "memory, speed")
    ['memory', 'speed']
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise ConfigurationError(f"{name}={text!r}: expected names or numbers, as in a,b,c")
    return parts


def seconds_of(text: str | None) -> float | None:
    """Return a time in seconds; None for None.

    Raises:
        ConfigurationError: for another form.

    >>> seconds_of("30m"), seconds_of("90s"), seconds_of(None)
    (1800.0, 90.0, None)
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if match is None or float(match[1]) == 0.0:
        raise ConfigurationError(f"budget={text!r}: expected a time, as in 90s, 30m or 2h")
    return float(match[1]) * UNITS[match[2]]


Overwrite = Annotated[
    bool, Parameter(help="Replace the files that an earlier run wrote there, and no others.")
]


@Parameter(name="*")
@dataclass(frozen=True)
class MachineOptions:
    """Device and threads.

    Args:
        device: cpu, cuda, mps, or auto for the best available device.
        threads: Number of threads of a process on the CPU; by default the number of cores.
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
        """The device, with ``auto`` replaced by the device that it selects."""
        if self.device not in ("auto", "gpu"):
            return self.device
        return "cuda" if torch.cuda.is_available() or self.device == "gpu" else "cpu"


@Parameter(name="*")
@dataclass(frozen=True)
class ProcessOptions:
    """Several devices and machines.

    Args:
        devices: Number of devices on each machine, with a process each. The command starts itself
            once for each, unless torchrun or SLURM has done so.
        nodes: Number of machines. torchrun or SLURM starts the command on each.
        precision: 32-true, bf16-mixed or 16-mixed. [default: that of the model]
    """

    devices: int = 1
    nodes: int = 1
    precision: str | None = None

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.devices * self.nodes == 1 or is_first_process()


@Parameter(name="*")
@dataclass(frozen=True)
class ModelOptions:
    """Options of the model; None is the default of the subcommand.

    Args:
        latent_dim: Dimension of the latent space. [default: 8; with codebooks 64]
        likelihood: Likelihood of observations given a latent, such as bernoulli, gaussian or
            categorical; the error for a wrong name lists all. [default: for train bernoulli; for
            augment a gaussian with a sigmoid link and scale 0.1, or 0.5 if conditional; for data
            beyond [0, 1] a gaussian in units of the data; with --longitudinal a gaussian whose
            scale is learned]
        encoder: Preset of the encoder, such as mlp, conv or resnet; the error for a wrong name
            lists all. [default: mlp]
        decoder: Preset of the decoder, like that of the encoder. [default: mlp]
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
    """Options of the sampler.

    Args:
        sampler: Name of a sampler, such as two_stage for TwoStageSampler; the error for a wrong
            name lists all, or those that support the model. auto takes volume for a model with a
            learned metric, the prior for another model with a prior, code for a model with a
            codebook, and mixture for all others.
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
    """Return options as arguments: each text parsed as JSON, or the text itself if it is not JSON.

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
    """Options of the training; None is the default of the subcommand.

    Args:
        epochs: Number of passes over the data; with --longitudinal 200 by default, and 300 for a
            linear model of scores. [default: 100 for train; for augment 250, or from 500 examples
            on the number that held-out examples choose, at most 500]
        batch_size: Number of observations in each step; with --longitudinal of individuals, 32 by
            default, and 1024 for a linear model of scores. [default: 128]
        learning_rate: Learning rate of the Adam optimiser; 0.02 by default for a linear model of
            scores. [default: 0.001]
        patience: Stop after this number of epochs without improvement. [default: never]
        kl_warmup: Number of epochs in which the weight of the KL term rises from 0 to 1.
            [default: 0]
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
    """Return the options that are neither None nor empty.

    >>> without_none({"epochs": None, "seed": 0, "model_options": {}})
    {'seed': 0}
    """
    return {name: value for name, value in options.items() if value is not None and value != {}}
