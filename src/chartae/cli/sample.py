"""``chartae sample``: observations from a trained model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chartae.cli.options import (
    ConfigFile,
    DataOptions,
    MachineOptions,
    Overwrite,
    SamplerOptions,
)
from chartae.cli.output import Outputs, check_suffix, effective, print_lines
from chartae.cli.train import RECORD

if TYPE_CHECKING:
    from torch import Tensor

    from chartae.data import ArrayDataset, Form
    from chartae.models import Autoencoder
    from chartae.samplers import Sampler

__all__ = ["class_names", "conditions", "sample"]

EXAMPLE = "Example: chartae sample digits-vae --n 64 --out digits.png"


def sample(
    model: Path,
    *,
    n: int = 100,
    out: Path,
    label: list[str] | None = None,
    sampling: SamplerOptions = SamplerOptions(),  # noqa: B008
    fit_on: Path | None = None,
    seed: int = 0,
    overwrite: Overwrite = False,
    data_options: DataOptions = DataOptions(),  # noqa: B008
    machine: MachineOptions = MachineOptions(),  # noqa: B008
    config: ConfigFile = None,
) -> None:
    """Draw observations from MODEL and write them to a file.

    Those of an .npz file have the dtype and the layout of the data that "chartae train" or "chartae
    augment" learned from.

    Args:
        model: Folder of a trained model or sampler, or that of the models of "chartae augment".
        n: Number of observations.
        out: A .npz file, or a .png contact sheet.
        label: For a model of several classes, a class to draw; given several times, or not at all
            for every class, observations are spread evenly.
        fit_on: Training data, for the samplers that learn from them, as code and mixture do; with
            labels for a conditional model.
        seed: Of the samples.
    """
    from chartae.augmentation import RECORD_FILE
    from chartae.checks import check_integer
    from chartae.errors import ConfigurationError

    check_integer("n", n, minimum=1)
    check_integer("seed", seed, minimum=0)
    check_suffix(out, ".npz", ".png")
    if not model.is_dir():
        raise ConfigurationError(f"MODEL={str(model)!r}: expected the folder of a trained model")
    inputs = [model, fit_on, data_options.labels, config]
    outputs = Outputs("sample", out.with_suffix(".json"), inputs=inputs, overwrite=overwrite)
    outputs.claim(out)
    machine.apply()
    if (model / RECORD_FILE).exists():
        if sampling != SamplerOptions() or fit_on is not None:
            raise ConfigurationError(
                'MODEL is of "chartae augment", with fitted samplers: expected neither --sampler, '
                "--sampler-options nor --fit-on"
            )
        drawn, title = _of_each_class(model, label or [], n, seed, machine.place)
    else:
        data = None if fit_on is None else data_options.read(fit_on)
        drawn, title = _of_a_model(model, label or [], n, seed, sampling, data, machine.place)
    if overwrite:
        outputs.clear()
    _write(out, drawn, title)
    options = effective(
        sampling,
        data_options,
        machine,
        model=model.resolve(),
        n=n,
        out=out,
        label=label,
        fit_on=fit_on,
        seed=seed,
    )
    outputs.write_record(options)
    print_lines(f"{n} observations: {out}")


def _of_each_class(
    folder: Path, asked: Sequence[str], n: int, seed: int, device: str
) -> tuple["ArrayDataset", str]:
    """Return what the samplers of an augmenter draw, and what it is called."""
    from chartae.augmentation import Augmenter

    augmenter = Augmenter.load(folder)
    for fitted in augmenter.samplers_.values():
        fitted.to(device)
    names = augmenter.class_names
    y = _labels(names, asked, n)
    assert y is not None
    counts = {names[index]: int((y == index).sum()) for index in dict.fromkeys(y.tolist())}
    return augmenter.sample_dataset(counts, seed), "synthetic"


def _of_a_model(
    folder: Path,
    asked: Sequence[str],
    n: int,
    seed: int,
    sampling: SamplerOptions,
    data: "ArrayDataset | None",
    device: str,
) -> tuple["ArrayDataset", str]:
    """Return what a model's sampler draws, and what it is called."""
    from chartae.data import ArrayDataset, Form
    from chartae.loading import load
    from chartae.samplers import Sampler

    loaded = load(folder, device=device)
    model = loaded.model if isinstance(loaded, Sampler) else loaded
    names = class_names(folder, model)
    y = _labels(names, asked, n)
    chosen = _fitted(loaded, sampling, data, names)
    x = chosen.sample(n, seed=seed, y=y, draw=model.observation_model.samples_are_draws).cpu()
    form = _form(folder) or Form(x.dtype)
    return ArrayDataset(x, y, class_names=names, form=form), type(chosen).__name__


def class_names(folder: Path, model: "Autoencoder") -> tuple[str, ...]:
    """Return the names of the classes that a model knows; none if it has no conditions."""
    from chartae.errors import ConfigurationError

    if model.conditions is None:
        return ()
    if isinstance(model.conditions, int):
        return _kept_names(folder, model.conditions)
    raise ConfigurationError(
        f"{folder} holds a model with vectors as conditions: expected one with labels; "
        "a sampler's method sample takes vectors"
    )


def _kept_names(folder: Path, count: int) -> tuple[str, ...]:
    """Return the names of ``count`` classes, or their indices where no names were kept.

    Raises:
        CheckpointError: if the file that keeps them is damaged, or of a model with other classes.
    """
    from chartae.errors import CheckpointError

    path, record = _kept(folder)
    try:
        names = record.get("class_names") or record.get("labels", {}).get("names") or range(count)
        names = tuple(map(str, names))
    except (AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if len(names) != count:
        raise CheckpointError(f"{path} names {len(names)} classes: the model has {count}")
    return names


def _form(folder: Path) -> "Form | None":
    """Return the form of the data that a model was trained on, if it was kept."""
    from chartae.data import Form
    from chartae.errors import CheckpointError, DataError

    path, record = _kept(folder)
    try:
        return Form.from_json(record["form"]) if "form" in record else None
    except DataError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def _kept(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return what is known of the data that a model was trained on, and the file that says it.

    Raises:
        CheckpointError: if the file is damaged.
    """
    from chartae.augmentation import RECORD_FILE
    from chartae.errors import CheckpointError

    path = folder / RECORD
    if not path.is_file():  # a model of an augmenter, which knows the data of all
        path = folder.resolve().parent / RECORD_FILE
    try:
        return path, {**json.loads(path.read_text(encoding="utf-8"))} if path.is_file() else {}
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read (truncated or damaged?): {error}") from error


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
    sampling: SamplerOptions,
    data: "ArrayDataset | None",
    names: tuple[str, ...],
) -> "Sampler":
    """Return the sampler that is asked for, fitted, or the loaded one."""
    from chartae.augmentation import SAMPLERS, natural_sampler
    from chartae.checks import check_choice
    from chartae.errors import ConfigurationError
    from chartae.samplers import Sampler

    name = sampling.sampler
    check_choice("sampler", name, ["auto", *SAMPLERS])
    if isinstance(loaded, Sampler):
        if sampling != SamplerOptions() or data is not None:
            raise ConfigurationError(
                f"MODEL is a fitted {type(loaded).__name__}: expected neither --sampler, "
                "--sampler-options nor --fit-on"
            )
        return loaded
    name = natural_sampler(loaded) if name == "auto" else name
    chosen = SAMPLERS[name](loaded, **sampling.arguments())
    if data is None and chosen.needs_data:
        raise ConfigurationError(
            f"sampler={name!r}, for this {type(loaded).__name__}, learns from data: "
            "expected --fit-on DATA"
        )
    if data is None:
        return chosen.fit()
    return chosen.fit(loaded.filled(data.x, data.mask), conditions(data, names))


def conditions(data: "ArrayDataset", names: tuple[str, ...]) -> "Tensor | None":
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
        write_npz(path, drawn)
        return
    figure = image_grid({title: drawn.x}, columns=max(1, round(len(drawn) ** 0.5)))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=200)
