"""``chartae sample``: observations from a trained model."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from chartae.augmentation import RECORD_FILE, SAMPLERS, Augmenter
from chartae.checks import check_choice, check_integer
from chartae.cli.options import (
    ConfigFile,
    DataOptions,
    MachineOptions,
    Overwrite,
    SamplerOptions,
)
from chartae.cli.output import (
    Outputs,
    check_folder_of,
    check_rows,
    check_suffix,
    print_lines,
    write_figure,
    write_folder_of,
)
from chartae.cli.trained import Trained
from chartae.data import ArrayDataset, Form, write_npz, write_table
from chartae.errors import ConfigurationError
from chartae.report import image_grid
from chartae.samplers import Sampler, natural_sampler

__all__ = ["sample"]


def sample(
    model: Path,
    *,
    n: int = 100,
    out: Path,
    label: list[str] | None = None,
    sampling: SamplerOptions = SamplerOptions(),
    fit_on: Path | None = None,
    seed: int = 0,
    overwrite: Overwrite = False,
    data_options: DataOptions = DataOptions(),
    machine: MachineOptions = MachineOptions(),
    config: ConfigFile = None,
) -> None:
    """Run the subcommand.

    Args:
        model: Folder of a trained model or sampler, or the folder of models of "chartae augment".
        n: Number of observations.
        out: A .npz file, a .csv file of vectors, a .png figure of all observations, or a folder of
            images or volumes in class folders, with a table of their labels, manifest.csv.
        label: For a model of several classes, a class to draw. It can be given several times; by
            default all classes are drawn. Each class gets the same number of observations.
        fit_on: Training data for samplers that learn from data, such as code and mixture; with
            labels for a conditional model.
        seed: Seed of the samples.
    """
    given = dict(locals())
    check_integer("n", n, minimum=1)
    check_integer("seed", seed, minimum=0)
    if out.suffix:
        check_suffix(out, ".npz", ".csv", ".png")
    inputs = [model, fit_on, data_options.labels, config]
    outputs = Outputs("sample", out.with_suffix(".json"), given, inputs=inputs)
    outputs.claim(out)
    machine.apply()
    asked = sampling != SamplerOptions() or fit_on is not None
    if (model / RECORD_FILE).exists():
        _refuse('of "chartae augment", with fitted samplers', asked)
        augmenter = Augmenter.load(model)
        drawn, title = _of_each_class(augmenter, label or [], n, seed, machine.place)
        kind = type(next(iter(augmenter.models_.values())))
    else:
        trained = Trained.read(model, machine.place)
        y = _labels(trained.class_names, label or [], n)
        check_choice("sampler", sampling.sampler, ["auto", *SAMPLERS])
        if isinstance(trained.loaded, Sampler):
            _refuse(f"a fitted {type(trained.loaded).__name__}", asked)
            sampler = trained.loaded
        else:
            source = None if fit_on is None else data_options.read(fit_on)
            if source is not None:
                source = trained.as_learned(source, "the table of --fit-on")
            sampler = _fitted(trained, sampling, source)
        as_draws = sampler.model.observation_model.samples_are_draws
        x = sampler.sample(n, seed=seed, y=y, draw=as_draws).cpu()
        form, title = trained.form or Form(x.dtype), type(sampler).__name__
        drawn = ArrayDataset(x, y, class_names=trained.class_names, form=form)
        kind = type(trained.model)
    if not out.suffix:
        check_folder_of(out, drawn.input_shape)
    if out.suffix == ".csv":
        check_rows(out, drawn.input_shape)
    with outputs.recording():
        if out.suffix == ".npz":
            write_npz(out, drawn)
        elif out.suffix == ".csv":
            outputs.remove(out)
            write_table(out, drawn)
        elif not out.suffix:
            facts = {"model": kind.__name__.lower(), "seed": seed}
            write_folder_of(out, drawn, {name: [value] * n for name, value in facts.items()})
        else:
            grid = image_grid({title: drawn.x}, columns=max(1, round(n**0.5)))
            write_figure(out, grid, dpi=200)
    print_lines(f"{n} observations: {out}")


def _refuse(what: str, asked: bool) -> None:
    """Raise `ConfigurationError` if options of a sampler are given for a fitted one."""
    if asked:
        raise ConfigurationError(
            f"MODEL is {what}: expected neither --sampler, --sampler-options nor --fit-on"
        )


def _of_each_class(
    augmenter: Augmenter, asked: Sequence[str], n: int, seed: int, device: str
) -> tuple[ArrayDataset, str]:
    """Return samples of an augmenter, and their title."""
    for fitted in augmenter.samplers_.values():
        fitted.to(device)
    names = augmenter.class_names
    y = _labels(names, asked, n)
    assert y is not None
    counts = {names[index]: int((y == index).sum()) for index in dict.fromkeys(y.tolist())}
    return augmenter.sample_dataset(counts, seed), "synthetic"


def _labels(names: tuple[str, ...], asked: Sequence[str], n: int) -> Tensor | None:
    """Return the classes of n observations, class after class; None without conditions."""
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


def _fitted(trained: Trained, sampling: SamplerOptions, data: ArrayDataset | None) -> Sampler:
    """Return the sampler that the options name, fitted."""
    model, name = trained.model, sampling.sampler
    name = natural_sampler(model) if name == "auto" else name
    chosen = SAMPLERS[name](model, **sampling.arguments())
    if data is not None:
        return chosen.fit(data.x, trained.conditions(data), data.mask)
    if chosen.needs_data:
        raise ConfigurationError(
            f"sampler={name!r}, for this {type(model).__name__}, learns from data: "
            "expected --fit-on DATA"
        )
    return chosen.fit()
