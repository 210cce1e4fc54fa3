"""``chartae train``: one model on one data set."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from chartae.cli.options import ConfigFile, DataOptions, ModelOptions, TrainingOptions, given
from chartae.cli.output import effective, say, write_config

if TYPE_CHECKING:
    from chartae.data import ArrayDataset
    from chartae.models import Autoencoder

__all__ = ["train"]

EXAMPLE = (
    "Example: chartae train digits.npz --out digits-vae --model vae --latent-dim 8 --epochs 200"
)

CONFIG_FILE = "train.json"


def train(
    data: Path,
    *,
    out: Path,
    model: str = "vae",
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
        model: ae, vae, betavae, iwae, hvae or rhvae.
        validation: Fraction of the data held out to choose the best epoch, and for --patience.
        seed: Of the weights, the split, the batches and the noise.
        resume: Continue an interrupted training from the checkpoint in the folder.
    """
    from chartae.atomic import check_writable
    from chartae.checks import check_integer
    from chartae.training import fit

    check_integer("seed", seed, minimum=0)
    check_writable("out", out)
    source = data_options.read(data)
    learned, held_out = _split(source, validation, seed)
    arguments = {"latent_dim": 8, "likelihood": "bernoulli", **model_options.arguments()}
    autoencoder = _make_model(model, source.input_shape, arguments, seed)
    autoencoder.check_data("DATA", source.x)
    options = effective(
        data_options, data=data.resolve(), out=out, model=model, validation=validation, seed=seed
    )
    options |= {**_defaults(), **training.arguments(), **_named(arguments)}
    write_config(out / CONFIG_FILE, "train", given(options))
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
    name: str, input_shape: tuple[int, ...], arguments: dict[str, Any], seed: int
) -> "Autoencoder":
    from chartae.augmentation import MODELS
    from chartae.checks import check_choice
    from chartae.errors import ConfigurationError
    from chartae.models import AE, Autoencoder
    from chartae.randomness import seeded

    models: dict[str, type[Autoencoder]] = {"ae": AE, **MODELS}
    check_choice("model", name, models)
    try:
        with seeded(seed, "model"):
            return models[name](input_shape, **arguments)
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
