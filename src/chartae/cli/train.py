"""``chartae train``: one model on one data set."""

import inspect
from pathlib import Path
from typing import Any

from chartae.augmentation import default_options
from chartae.augmentation.augmenter import in_unit_range
from chartae.checks import check_choice, check_integer, check_number
from chartae.cli.options import (
    ConfigFile,
    DataOptions,
    MachineOptions,
    ModelName,
    ModelOptions,
    Overwrite,
    TrainingOptions,
    without_none,
)
from chartae.cli.output import Outputs, constant_line, print_lines
from chartae.cli.trained import RECORD
from chartae.data import ArrayDataset, held_out_split
from chartae.errors import DataError
from chartae.models import CVAE, MODELS, Autoencoder
from chartae.persistence import CONFIG_FILE, WEIGHTS_FILE
from chartae.randomness import seeded
from chartae.training import CHECKPOINT_FILE, HISTORY_FILE, fit

__all__ = ["train"]


def train(
    data: Path,
    *,
    out: Path,
    model: ModelName = "vae",
    conditional: bool = False,
    model_options: ModelOptions = ModelOptions(),
    training: TrainingOptions = TrainingOptions(),
    validation: float = 0.0,
    seed: int = 0,
    resume: bool = False,
    overwrite: Overwrite = False,
    data_options: DataOptions = DataOptions(),
    machine: MachineOptions = MachineOptions(),
    config: ConfigFile = None,
) -> None:
    """Run the subcommand.

    Args:
        data: A .npz, .npy, .csv, .tsv or .pt file, or a folder of images, with one subfolder per
            class if there are classes.
        out: Folder for the model, its history and its checkpoint.
        conditional: Train the model on the labels too, so that it can draw samples of each class.
            A cvae is always conditional.
        validation: Fraction of the data held out for the choice of the best epoch and for
            --patience.
        seed: Seed of the weights, the split, the batches and the noise.
        resume: Continue an interrupted training from the checkpoint in the folder.
    """
    given = dict(locals())
    check_integer("seed", seed, minimum=0)
    check_choice("model", model, MODELS)
    check_number("validation", validation, minimum=0.0, below=1.0)
    inputs = [data, data_options.labels, None if resume else config]
    outputs = Outputs("train", out / RECORD, given, inputs=inputs)
    files = (CONFIG_FILE, WEIGHTS_FILE, HISTORY_FILE, CHECKPOINT_FILE)
    outputs.claim(resumable=[out / name for name in files])
    machine.apply()
    source = data_options.read(data)
    learned, held_out = (source, None)
    if validation:
        learned, held_out = held_out_split(source, validation, seed=seed)
    arguments = _arguments(model, model_options, source)
    autoencoder = _make_model(model, conditional, source, arguments, seed)
    autoencoder.check_data("DATA", source.x)
    outputs.options |= _effective(training, model_options, arguments)
    constant = list(learned.constant_columns)
    with outputs.recording(constant_columns=constant):
        history = fit(
            autoencoder,
            learned,
            held_out,
            **training.arguments(),
            seed=seed,
            accelerator=machine.device,
            output_dir=out,
            resume=resume,
        )
    if history.stopped == "interrupted":
        raise KeyboardInterrupt(f"interrupted; the same command with --resume continues in {out}")
    best = history.best_epoch or 0
    record = history.validation or history.train
    print_lines(
        *([constant_line(constant, "the training set")] if constant else []),
        f"{type(autoencoder).__name__} trained on {len(learned)} observations: "
        f"{history.num_epochs} epochs, best {best + 1} with loss {record['loss'][best]:.4g}",
        f"model: {out}",
    )


def _arguments(name: str, options: ModelOptions, source: ArrayDataset) -> dict[str, Any]:
    """Return the arguments of the model's class, with the defaults of this subcommand."""
    defaults = default_options(name, data=source)
    if in_unit_range(defaults):
        defaults["likelihood"] = "bernoulli"
    return {**defaults, **options.arguments()}


def _make_model(
    name: str, conditional: bool, source: ArrayDataset, arguments: dict[str, Any], seed: int
) -> Autoencoder:
    if conditional or issubclass(MODELS[name], CVAE):
        if not source.class_names:
            raise DataError(
                "DATA has no labels: a conditional model expects one for each observation"
            )
        arguments = {"conditions": source.num_classes, **arguments}
    with seeded(seed, "model"):
        model = MODELS[name](source.input_shape, **arguments)
    model.metadata = source.metadata
    return model


def _effective(
    training: TrainingOptions, options: ModelOptions, arguments: dict[str, Any]
) -> dict[str, Any]:
    """Return the values of all options, with the defaults of `fit` and the model's arguments.

    Arguments without their own flag are under ``model_options``.
    """
    parameters = inspect.signature(fit).parameters
    defaults = {name: parameters[name].default for name in vars(training)}
    named = {name: value for name, value in arguments.items() if name in vars(options)}
    others = {name: value for name, value in arguments.items() if name not in named}
    return without_none({**defaults, **training.arguments(), **named, "model_options": others})
