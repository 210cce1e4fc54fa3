"""``chartae train``: one model on one data set."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chartae.cli.options import (
    ConfigFile,
    DataOptions,
    ModelName,
    ModelOptions,
    TrainingOptions,
    given,
)
from chartae.cli.output import effective, say, write_config

if TYPE_CHECKING:
    from chartae.data import ArrayDataset
    from chartae.models import Autoencoder

__all__ = ["class_names_of", "keep_class_names", "train"]

EXAMPLE = (
    "Example: chartae train digits.npz --out digits-vae --model vae --latent-dim 8 --epochs 200"
)

CONFIG_FILE = "train.json"


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
    data_options: DataOptions = DataOptions(),  # noqa: B008
    config: ConfigFile = None,
) -> None:
    """Train a model on DATA and keep it in a folder.

    Args:
        data: A .npz, .npy, .csv or .pt file, or a folder of images in one subfolder per class.
        out: Folder for the model, its history and its checkpoint.
        conditional: Give the model the labels, so that it can be asked for samples of each class.
            A cvae is conditional by its nature.
        validation: Fraction of the data held out to choose the best epoch, and for --patience.
        seed: Of the weights, the split, the batches and the noise.
        resume: Continue an interrupted training from the checkpoint in the folder.
    """
    from chartae.atomic import check_writable
    from chartae.augmentation import MODELS
    from chartae.checks import check_choice, check_integer
    from chartae.training import fit

    check_integer("seed", seed, minimum=0)
    check_writable("out", out)
    source = data_options.read(data)
    learned, held_out = _split(source, validation, seed)
    check_choice("model", model, MODELS)
    # Eight numbers, or four for each place of a grid of codes.
    latent_dim = 64 if MODELS[model].latent_space == "codes" else 8
    arguments = {
        "latent_dim": latent_dim,
        "likelihood": "bernoulli",
        **model_options.arguments(),
    }
    autoencoder = _make_model(model, conditional, source, arguments, seed)
    autoencoder.check_data("DATA", source.x)
    options = effective(
        data_options,
        data=data.resolve(),
        out=out,
        model=model,
        conditional=conditional,
        validation=validation,
        seed=seed,
    )
    options |= {**_defaults(), **training.arguments(), **_named(arguments)}
    write_config(out / CONFIG_FILE, "train", given(options))
    if autoencoder.conditions == len(source.class_names):
        keep_class_names(out, source.class_names)
    history = fit(
        autoencoder,
        learned,
        held_out,
        **training.arguments(),
        seed=seed,
        output_dir=out,
        resume=resume,
    )
    if history.stopped == "interrupted":
        raise KeyboardInterrupt
    best = history.best_epoch or 0
    record = history.validation or history.train
    say(
        f"{type(autoencoder).__name__} trained on {len(learned)} observations: "
        f"{history.num_epochs} epochs, best {best} with loss {record['loss'][best]:.4g}",
        f"model: {out}",
    )


def _split(
    source: "ArrayDataset", fraction: float, seed: int
) -> tuple["ArrayDataset", "ArrayDataset | None"]:
    from chartae.checks import check_number
    from chartae.data import stratified_split

    check_number("validation", fraction, minimum=0.0, below=1.0)
    if fraction == 0.0:
        return source, None
    labels = [0] * len(source) if source.y is None else source.y
    learned, held_out = stratified_split(labels, (1.0 - fraction, fraction), seed=seed)
    return source.subset(learned), source.subset(held_out)


def _make_model(
    name: str, conditional: bool, source: "ArrayDataset", arguments: dict[str, Any], seed: int
) -> "Autoencoder":
    from chartae.augmentation import MODELS
    from chartae.errors import ConfigurationError, DataError
    from chartae.models import CVAE
    from chartae.randomness import seeded

    if conditional or issubclass(MODELS[name], CVAE):
        if not source.class_names:
            raise DataError("DATA has no labels: a conditional model expects one for each of them")
        arguments = {"conditions": source.num_classes, **arguments}
    try:
        with seeded(seed, "model"):
            return MODELS[name](source.input_shape, **arguments)
    except TypeError as error:
        raise ConfigurationError(f"model_options={arguments}: {error}") from error


def _defaults() -> dict[str, Any]:
    """Return the defaults of `fit` for the training options."""
    import inspect

    from chartae.training import fit

    parameters = inspect.signature(fit).parameters
    return {name: parameters[name].default for name in vars(TrainingOptions())}


def _named(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the model's arguments as options: those without a flag under ``model_options``."""
    flags = vars(ModelOptions()).keys()
    others = {name: value for name, value in arguments.items() if name not in flags}
    return {**{n: v for n, v in arguments.items() if n in flags}, "model_options": others}


# --- the names of a conditional model's classes, beside it in its folder ------------------------


def keep_class_names(folder: Path, names: Sequence[str]) -> None:
    """Write the names of the classes into the folder of a conditional model."""
    from chartae.atomic import write_text

    path = folder / CONFIG_FILE
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    write_text(path, json.dumps({**record, "class_names": list(names)}, indent=2))


def class_names_of(folder: Path, count: int) -> tuple[str, ...]:
    """Return the names of ``count`` classes, or their indices where no names were kept.

    Raises:
        CheckpointError: if the file that keeps them is damaged, or of a model with other classes.
    """
    from chartae.errors import CheckpointError

    path = folder / CONFIG_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        names = tuple(map(str, record.get("class_names", range(count))))
    except (ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read (truncated or damaged?): {error}") from error
    if len(names) != count:
        raise CheckpointError(f"{path} names {len(names)} classes: the model has {count}")
    return names
