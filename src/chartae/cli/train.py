"""``chartae train``: one model on one data set."""

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from chartae.cli.output import Outputs, constant_line, effective, print_lines

if TYPE_CHECKING:
    from chartae.data import ArrayDataset
    from chartae.models import Autoencoder

__all__ = ["RECORD", "train"]

EXAMPLE = (
    "Example: chartae train digits.npz --out digits-vae --model vae --latent-dim 8 --epochs 200"
)

RECORD = "train.json"


def train(
    data: Path,
    *,
    out: Path,
    model: ModelName = "vae",
    conditional: bool = False,
    model_options: ModelOptions = ModelOptions(),  # noqa: B008
    training: TrainingOptions = TrainingOptions(),  # noqa: B008
    validation: float = 0.0,
    seed: int = 0,
    resume: bool = False,
    overwrite: Overwrite = False,
    data_options: DataOptions = DataOptions(),  # noqa: B008
    machine: MachineOptions = MachineOptions(),  # noqa: B008
    config: ConfigFile = None,
) -> None:
    """Train a model on DATA and keep it in a folder.

    Args:
        data: A .npz, .npy, .csv, .tsv or .pt file, or a folder of images, in one subfolder per
            class where there are classes.
        out: Folder for the model, its history and its checkpoint.
        conditional: Give the model the labels, so that it can be asked for samples of each class.
            A cvae is conditional by its nature.
        validation: Fraction of the data held out to choose the best epoch, and for --patience.
        seed: Of the weights, the split, the batches and the noise.
        resume: Continue an interrupted training from the checkpoint in the folder.
    """
    from chartae.augmentation import MODELS
    from chartae.checks import check_choice, check_integer
    from chartae.training import CHECKPOINT_FILE, HISTORY_FILE, fit

    check_integer("seed", seed, minimum=0)
    check_choice("model", model, MODELS)
    inputs = [data, data_options.labels, None if resume else config]
    outputs = Outputs("train", out / RECORD, inputs=inputs, overwrite=overwrite, resume=resume)
    files = ("config.json", "model.safetensors", HISTORY_FILE, CHECKPOINT_FILE)
    outputs.claim(resumable=[out / name for name in files])
    machine.apply()
    source = data_options.read(data)
    learned, held_out = _split(source, validation, seed)
    arguments = _arguments(model, model_options, source)
    autoencoder = _make_model(model, conditional, source, arguments, seed)
    autoencoder.check_data("DATA", source.x)
    options = effective(
        data_options,
        machine,
        data=data.resolve(),
        out=out,
        model=model,
        conditional=conditional,
        validation=validation,
        seed=seed,
    )
    options |= {**_defaults(), **training.arguments(), **_named(arguments)}
    if overwrite:
        outputs.clear()
    conditions = autoencoder.conditions == len(source.class_names) and source.class_names
    constant = learned.constant_columns
    facts: dict[str, Any] = {"form": source.form.to_json(), "constant_columns": list(constant)}
    if conditions:
        facts["class_names"] = list(source.class_names)
    with outputs.recording(without_none(options), **facts):
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


def _split(
    source: "ArrayDataset", fraction: float, seed: int
) -> tuple["ArrayDataset", "ArrayDataset | None"]:
    from chartae.checks import check_number
    from chartae.data import held_out_split

    check_number("validation", fraction, minimum=0.0, below=1.0)
    return (source, None) if fraction == 0.0 else held_out_split(source, fraction, seed=seed)


def _arguments(name: str, options: ModelOptions, source: "ArrayDataset") -> dict[str, Any]:
    """Return the arguments of the model's class, with the defaults of this subcommand."""
    from chartae.augmentation import default_options, fills_unit_range

    defaults = default_options(name, data=source)
    if fills_unit_range(source):
        defaults["likelihood"] = "bernoulli"
    return {**defaults, **options.arguments()}


def _make_model(
    name: str, conditional: bool, source: "ArrayDataset", arguments: dict[str, Any], seed: int
) -> "Autoencoder":
    from chartae.augmentation import MODELS
    from chartae.errors import DataError
    from chartae.models import CVAE
    from chartae.randomness import seeded

    if conditional or issubclass(MODELS[name], CVAE):
        if not source.class_names:
            raise DataError("DATA has no labels: a conditional model expects one for each of them")
        arguments = {"conditions": source.num_classes, **arguments}
    with seeded(seed, "model"):
        return MODELS[name](source.input_shape, **arguments)


def _defaults() -> dict[str, Any]:
    """Return the defaults of `fit` for the training options."""
    from chartae.training import fit

    parameters = inspect.signature(fit).parameters
    return {name: parameters[name].default for name in vars(TrainingOptions())}


def _named(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the model's arguments as options: those without a flag under ``model_options``."""
    flags = vars(ModelOptions()).keys()
    others = {name: value for name, value in arguments.items() if name not in flags}
    return {**{n: v for n, v in arguments.items() if n in flags}, "model_options": others}
