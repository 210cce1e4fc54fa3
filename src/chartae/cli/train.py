"""``chartae train``: one model on one data set."""

import inspect
import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from chartae.checks import check_choice, check_integer, check_number
from chartae.cli.followups import REPORT, held_out_individuals, write_report
from chartae.cli.options import (
    AnyModelName,
    ConfigFile,
    DataOptions,
    MachineOptions,
    ModelOptions,
    Overwrite,
    ProcessOptions,
    TrainingOptions,
    VisitOptions,
    listed,
    without_none,
)
from chartae.cli.output import Outputs, constant_line, print_lines
from chartae.cli.trained import RECORD
from chartae.data import ArrayDataset, Sequences, StreamedDataset, held_out_split
from chartae.errors import ConfigurationError, DataError
from chartae.longitudinal import SEQUENCE_MODELS
from chartae.models import CVAE, MODELS, Autoencoder
from chartae.models.base import Conditions
from chartae.persistence import CONFIG_FILE, WEIGHTS_FILE
from chartae.randomness import seeded
from chartae.training import CHECKPOINT_FILE, HISTORY_FILE, TRACKERS, fit, training_options

__all__ = ["effective", "train"]

Source = ArrayDataset | StreamedDataset | Sequences

EPOCHS, BATCH_SIZE = 200, 32
"""Defaults with ``--longitudinal``: there are fewer individuals than observations."""
SCORES: dict[str, Any] = {"inference": "laplace", "decoder": {"name": "mlp", "hidden": []}}
"""Defaults of a flowvae of scores, beside a flow of a line and waves: all is linear and exact."""
SCORES_TRAINING: dict[str, Any] = {"epochs": 300, "batch_size": 1024, "learning_rate": 0.02}
"""Its training: few parameters, and all individuals in one batch."""


def train(
    data: Path,
    *,
    out: Path,
    model: AnyModelName = None,
    longitudinal: bool = False,
    conditional: bool = False,
    model_options: ModelOptions = ModelOptions(),
    training: TrainingOptions = TrainingOptions(),
    validation: float = 0.0,
    stream: bool = False,
    seed: int = 0,
    logger: str | None = None,
    resume: bool = False,
    overwrite: Overwrite = False,
    data_options: DataOptions = DataOptions(),
    visits: VisitOptions = VisitOptions(),
    machine: MachineOptions = MachineOptions(),
    processes: ProcessOptions = ProcessOptions(),
    config: ConfigFile = None,
) -> None:
    """Run the subcommand.

    Args:
        data: A .npz, .npy, .csv, .tsv or .pt file, or a folder of images, NIfTI volumes or DICOM
            series, with one subfolder per class if there are classes. With --longitudinal: an .npz
            file with x and times; a .csv or .tsv file with a row for each visit; or a folder of
            images with a table of visits.
        out: Folder for the model, its history and its checkpoint; with --longitudinal for a report,
            too.
        longitudinal: DATA are individuals with several visits. The report shows what the model
            finds when visits are hidden from it. For scores the default is a linear flowvae: a
            line and waves for each individual, with exact likelihoods, as in a mixed model. For a
            neural flowvae give --decoder mlp --model-options.flow time
            --model-options.inference set.
        conditional: Train the model on the labels too, so that it can draw samples of each class.
            A cvae is always conditional. With --longitudinal: on the covariates.
        validation: Fraction of the data held out for the choice of the best epoch and for
            --patience. With --longitudinal it is a fraction of the individuals, and the report is
            about them.
        stream: Read a .npy file or a folder batch by batch, so that it need not fit in memory. Data
            that would take more than a quarter of the memory of this machine are always read so.
        seed: Seed of the weights, the split, the batches and the noise.
        logger: Trackers of the training, between commas: csv, tensorboard, wandb or mlflow. Each
            adds a run with curves, options and pictures to the folder of its name in OUT, and sends
            nothing to a server, unless WANDB_MODE or MLFLOW_TRACKING_URI is set.
        resume: Continue an interrupted training from the checkpoint in the folder.
    """
    given = dict(locals())
    trackers = listed("logger", logger) or []
    for tracker in trackers:
        check_choice("logger", tracker, TRACKERS)
    check_integer("seed", seed, minimum=0)
    name = model or ("flowvae" if longitudinal else "vae")
    check_choice("model", name, SEQUENCE_MODELS if longitudinal else MODELS)
    check_number("validation", validation, minimum=0.0, below=1.0)
    if not longitudinal:
        for option, value in without_none(vars(visits)).items():
            raise ConfigurationError(f"{option}={value!r}: expected --longitudinal with it")
    elif stream:
        raise ConfigurationError("stream=True: individuals with visits are read as a whole")
    inputs = [data, data_options.labels, visits.table, None if resume else config]
    outputs = Outputs("train", out / RECORD, given, inputs=inputs)
    files = [CONFIG_FILE, WEIGHTS_FILE, HISTORY_FILE, CHECKPOINT_FILE]
    if processes.is_first:
        # Trackers add a run to their folders, and replace none.
        outputs.claim(resumable=[out / file for file in files + [REPORT] * longitudinal])
    machine.apply()
    source: Source = (
        visits.read(data, data_options) if longitudinal else data_options.open(data, stream=stream)
    )
    if isinstance(source, StreamedDataset):
        print_lines(f"{data} is streamed: its {len(source)} observations are read batch by batch")
    learned, held_out = _split(source, validation, seed)
    arguments = _arguments(name, model_options, source)
    autoencoder = _make_model(name, conditional, source, arguments, seed)
    if not isinstance(source, StreamedDataset):  # `fit` looks at each of its batches
        autoencoder.check_batch("DATA", source.tensors)
    if isinstance(source, Sequences):
        usual = {"epochs": EPOCHS, "batch_size": BATCH_SIZE}
        usual |= SCORES_TRAINING if _is_linear(name, arguments) else {}
        training = replace(training, **(usual | training.arguments()))
    outputs.options |= {"model": name, **effective(training, model_options, arguments)}
    observations = learned.visits() if isinstance(learned, Sequences) else learned
    constant: list[str] = []
    if not isinstance(observations, StreamedDataset):
        constant += observations.constant_columns
    lines: list[str] = []
    recording = outputs.recording(constant_columns=constant)
    with recording if processes.is_first else nullcontext():
        history = fit(
            autoencoder,
            learned,
            held_out,
            **training.arguments(),
            seed=seed,
            accelerator=machine.device,
            devices=processes.devices,
            nodes=processes.nodes,
            precision=processes.precision,
            loggers=trackers,
            output_dir=out,
            resume=resume,
        )
        ended = history.stopped != "interrupted"
        if isinstance(learned, Sequences) and ended and processes.is_first:
            people = held_out if isinstance(held_out, Sequences) else None
            lines = write_report(
                out, autoencoder, learned, people, history, {"Data": str(data)}, outputs.options
            )
    if not ended:
        raise KeyboardInterrupt(f"interrupted; the same command with --resume continues in {out}")
    if not processes.is_first:
        return
    best = history.best_epoch or 0
    record = history.validation or history.train
    what = "individuals" if longitudinal else "observations"
    print_lines(
        *([constant_line(constant, "the training set")] if constant else []),
        f"{type(autoencoder).__name__} trained on {len(learned)} {what}: "
        f"{history.num_epochs} epochs, best {best + 1} with loss {record['loss'][best]:.4g}",
        *lines,
        f"model: {out}",
        *(f"{tracker}: {out / tracker}" for tracker in trackers),
    )


def _split(source: Source, validation: float, seed: int) -> tuple[Source, Source | None]:
    """Return the training set, and the held-out set if there is one."""
    if not validation:
        return source, None
    if isinstance(source, Sequences):
        return held_out_individuals(source, validation, seed)
    return held_out_split(source, validation, seed=seed)


def _arguments(name: str, options: ModelOptions, source: Source) -> dict[str, Any]:
    """Return the arguments of the model's class, with the defaults of this subcommand."""
    if isinstance(source, Sequences):
        scores = len(source.input_shape) == 1
        likelihood: Any = {"name": "gaussian", "scale": "per_feature" if scores else "learned"}
        defaults: dict[str, Any] = {"latent_dim": 8, "likelihood": likelihood}
        if scores and name == "flowvae":
            defaults["latent_dim"] = 12 if source.input_shape[0] > 1 else 8
            size = options.arguments().get("latent_dim", defaults["latent_dim"])
            lines = min(1, size // 2) if isinstance(size, int) else 1
            defaults |= SCORES | {"flow": {"name": "rotation", "lines": lines}}
    else:
        defaults = training_options(name, source)
    return {**defaults, **options.arguments()}


def _is_linear(name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether a model has the defaults of scores."""
    return name == "flowvae" and SCORES.items() <= arguments.items()


def _make_model(
    name: str,
    conditional: bool,
    source: Source,
    arguments: dict[str, Any],
    seed: int,
) -> Autoencoder:
    kind = SEQUENCE_MODELS[name] if isinstance(source, Sequences) else MODELS[name]
    if conditional or issubclass(kind, CVAE):
        arguments = {"conditions": _conditions(source), **arguments}
    with seeded(seed, "model"):
        model = kind(source.input_shape, **arguments)
    model.metadata = source.metadata
    return model


def _conditions(source: Source) -> Conditions:
    """Return the number of classes, or for covariates that are numbers ``(p,)``."""
    if source.class_names:
        return source.num_classes
    if not isinstance(source, Sequences):
        raise DataError("DATA has no labels: a conditional model expects one for each observation")
    if source.y is None:
        raise DataError("DATA has no covariates: a conditional model expects --covariates")
    return (source.y.shape[1],)


def effective(
    training: TrainingOptions, options: ModelOptions, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values of all options, with the defaults of `fit` and the model's arguments.

    Arguments without their own flag are under ``model_options``, and mappings, as JSON.
    """
    parameters = inspect.signature(fit).parameters
    defaults = {name: parameters[name].default for name in vars(training)}
    # A mapping, such as a likelihood with options, cannot be the value of a flag of its own.
    texts = {n: json.dumps(v) for n, v in arguments.items() if isinstance(v, Mapping)}
    named = {n: v for n, v in arguments.items() if n in vars(options) and n not in texts}
    others = {n: v for n, v in arguments.items() if n not in named} | texts
    return without_none({**defaults, **training.arguments(), **named, "model_options": others})
