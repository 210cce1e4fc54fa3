"""``chartae sample``: observations from a trained model."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from chartae.cli.options import ConfigFile, DataOptions
from chartae.cli.output import check_output, effective, say, write_config
from chartae.cli.train import class_names_of

if TYPE_CHECKING:
    from torch import Tensor

    from chartae.data import ArrayDataset
    from chartae.models import Autoencoder
    from chartae.samplers import Sampler

__all__ = ["sample"]

EXAMPLE = "Example: chartae sample digits-vae --n 64 --out digits.png"


def sample(
    model: Path,
    *,
    n: int = 100,
    out: Path,
    label: list[str] | None = None,
    sampler: str = "auto",
    fit_on: Path | None = None,
    seed: int = 0,
    data_options: DataOptions = DataOptions(),  # noqa: B008
    config: ConfigFile = None,
) -> None:
    """Draw observations from MODEL and write them to a file.

    Args:
        model: Folder of a trained model or sampler.
        n: Number of observations.
        out: A .npz file, or a .png contact sheet.
        label: For a conditional model, a class to draw; given several times, or not at all for
            every class, observations are spread evenly.
        sampler: Name of a sampler, as two_stage for TwoStageSampler; a wrong one lists them all, or
            those that serve the model. auto takes volume for a model with a metric, the model's own
            prior for another one that has a prior, code for a codebook, else mixture.
        fit_on: Training data, for the samplers that learn from them, as code and mixture do; with
            labels for a conditional model.
        seed: Of the samples.
    """
    from chartae.checks import check_integer
    from chartae.data import ArrayDataset
    from chartae.errors import ConfigurationError
    from chartae.loading import load
    from chartae.samplers import Sampler

    check_integer("n", n, minimum=1)
    check_integer("seed", seed, minimum=0)
    check_output(out, ".npz", ".png")
    if not model.is_dir():
        raise ConfigurationError(f"MODEL={str(model)!r}: expected the folder of a trained model")
    loaded = load(model)
    names = _class_names(model, loaded.model if isinstance(loaded, Sampler) else loaded)
    y = _labels(names, label or [], n)
    data = None if fit_on is None else data_options.read(fit_on)
    chosen = _fitted(loaded, sampler, data, names)
    drawn = ArrayDataset(chosen.sample(n, seed=seed, y=y).cpu(), y, class_names=names)
    _write(out, drawn, type(chosen).__name__)
    options = effective(
        data_options,
        model=model.resolve(),
        n=n,
        out=out,
        label=label,
        sampler=sampler,
        fit_on=fit_on,
        seed=seed,
    )
    write_config(out.with_suffix(".json"), "sample", options)
    say(f"{n} observations: {out}")


def _class_names(folder: Path, model: "Autoencoder") -> tuple[str, ...]:
    """Return the names of the classes that a model knows; none if it has no conditions."""
    from chartae.errors import ConfigurationError

    if model.conditions is None:
        return ()
    if isinstance(model.conditions, int):
        return class_names_of(folder, model.conditions)
    raise ConfigurationError(
        f"{folder} holds a model with vectors as conditions: expected one with labels; "
        "a sampler's method sample takes vectors"
    )


def _labels(names: tuple[str, ...], asked: Sequence[str], n: int) -> "Tensor | None":
    """Return the classes of n observations, class after class; None without conditions."""
    import torch

    from chartae.checks import check_choice
    from chartae.errors import ConfigurationError

    if not names and asked:
        raise ConfigurationError(
            f"label={', '.join(asked)!r}: the model has no conditions; "
            "expected one trained with --conditional"
        )
    if not names:
        return None
    for name in asked:
        check_choice("label", name, names)
    classes = torch.tensor([names.index(name) for name in asked or names])
    return classes[torch.arange(n) * len(classes) // n]


def _fitted(
    loaded: "Autoencoder | Sampler",
    name: str,
    data: "ArrayDataset | None",
    names: tuple[str, ...],
) -> "Sampler":
    """Return the sampler of a name, fitted, or the loaded one."""
    from chartae.augmentation import SAMPLERS
    from chartae.checks import check_choice
    from chartae.errors import ConfigurationError
    from chartae.samplers import Sampler

    check_choice("sampler", name, ["auto", *SAMPLERS])
    if isinstance(loaded, Sampler):
        if name != "auto" or data is not None:
            raise ConfigurationError(
                f"MODEL is a fitted {type(loaded).__name__}: expected neither --sampler nor "
                "--fit-on"
            )
        return loaded
    name = _natural(loaded) if name == "auto" else name
    chosen = SAMPLERS[name](loaded)
    if data is None and chosen.needs_data:
        raise ConfigurationError(
            f"sampler={name!r}, for this {type(loaded).__name__}, learns from data: "
            "expected --fit-on DATA"
        )
    return chosen.fit() if data is None else chosen.fit(data.x, _conditions(data, names))


def _natural(model: "Autoencoder") -> str:
    """Return the name of the sampler that goes with a model, of those that serve it."""
    from chartae.augmentation import SAMPLERS
    from chartae.errors import ConfigurationError
    from chartae.models import VariationalAutoencoder
    from chartae.samplers import serving

    metric = ["volume"] if hasattr(type(model), "metric") else []
    prior = ["normal", "vamp", "sphere", "poincare"]
    prior = prior if isinstance(model, VariationalAutoencoder) else []
    served = serving(model)
    for name in [*metric, *prior, "code", "mixture"]:
        if SAMPLERS[name] in served:
            return name
    raise ConfigurationError(f"no sampler of chartae serves this {type(model).__name__}")


def _conditions(data: "ArrayDataset", names: tuple[str, ...]) -> "Tensor | None":
    """Return the labels of data as a model with classes of these names numbers them."""
    import torch

    from chartae.checks import check_choice
    from chartae.errors import DataError

    if not names:
        return None
    if data.y is None or not data.class_names:
        raise DataError("the data of --fit-on have no labels: the model is conditional on them")
    for name in data.class_names:
        check_choice("label of --fit-on", name, names)
    return torch.tensor([names.index(name) for name in data.class_names])[data.y]


def _write(path: Path, drawn: "ArrayDataset", title: str) -> None:
    from chartae.atomic import atomic_path
    from chartae.data import write_npz
    from chartae.report import image_grid

    if path.suffix == ".npz":
        write_npz(path, drawn, overwrite=True)
        return
    figure = image_grid({title: drawn.x}, columns=max(1, round(len(drawn) ** 0.5)))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=200)
