"""``chartae augment``: synthetic labelled data from a few real ones."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
from cyclopts import Parameter

from chartae.augmentation import RECIPES, RECORD_FILE, Augmenter, would_help
from chartae.augmentation.augmenter import Singles
from chartae.augmentation.imputation import examples_of_classes
from chartae.checks import check_integer
from chartae.cli.options import (
    ConfigFile,
    DataOptions,
    MachineOptions,
    ModelName,
    ModelOptions,
    Overwrite,
    SamplerOptions,
    TrainingOptions,
)
from chartae.cli.output import (
    Outputs,
    check_folder_of,
    check_rows,
    constant_line,
    print_lines,
    write_folder_of,
)
from chartae.cli.results import (
    ALIKE,
    few_baselines,
    fidelity_answer,
    fidelity_table,
    sections,
)
from chartae.data import ArrayDataset, write_npz, write_table
from chartae.errors import ChartaeError, ConfigurationError, DataError
from chartae.evaluation.neighbours import nearest_real
from chartae.randomness import derive_seed
from chartae.report import Report, versions

__all__ = ["augment"]

UNLIKE = 3
"""Exit status with ``--strict`` if the samples of a class differ from its real examples."""

RecipeName = Annotated[
    str | None,
    Parameter(
        help="Hyper-parameters of a table of the thesis, which other options replace: one of "
        f"{', '.join(RECIPES)}."
    ),
]


def augment(
    data: Path,
    *,
    out: Path,
    per_class: int = 1000,
    balance: bool = False,
    model: ModelName = "rhvae",
    recipe: RecipeName = None,
    sampling: SamplerOptions = SamplerOptions(),
    conditional: bool = False,
    model_options: ModelOptions = ModelOptions(),
    training: TrainingOptions = TrainingOptions(),
    include_real: bool = False,
    keep_gaps: bool = False,
    report: bool = False,
    singles: str = "skip",
    strict: bool = False,
    no_check: bool = False,
    jobs: int = 1,
    seed: int = 0,
    resume: bool = False,
    overwrite: Overwrite = False,
    data_options: DataOptions = DataOptions(),
    machine: MachineOptions = MachineOptions(),
    config: ConfigFile = None,
) -> int:
    """Run the subcommand.

    Args:
        data: Labelled data: a .npz, .npy with --labels, .csv, .tsv or .pt file, or a folder of
            images or NIfTI volumes in one subfolder per class or beside a .csv file with columns
            file and label.
        out: An .npz file of synthetic data (x, y and class_names), a .csv file of vectors, or a
            folder of images or volumes in class folders, with a table of their labels, seed and
            nearest real files, manifest.csv.
        per_class: Number of synthetic observations of each class.
        balance: Fill up each class to the size of the largest one, instead of --per-class.
        conditional: Learn all classes with one model, given the label, instead of one model for
            each class. A cvae is always conditional.
        include_real: Write the real data before the synthetic data.
        keep_gaps: Leave out of each synthetic observation what a random real one of its class
            lacks. By default synthetic observations are complete, and a classifier that takes
            missing values could recognise them by that.
        report: Write a report with images, latent maps and training curves.
        singles: What to do with a class of one observation, which is not enough for its own model:
            skip it with a warning, or refuse the data.
        strict: End with exit status 3 if a class has collapsed, its samples are copies, or its
            samples gather around a few examples. All output is written in any case.
        no_check: Do not measure whether the samples would help a classifier (a random forest), on
            real examples that are held out in turn. The check takes twice as long as the training,
            and needs 100 examples, and 6 of each class.
        jobs: Number of classes learned at the same time, in processes of one thread each.
        seed: Seed of the models, their training and the samples.
        resume: Continue after an interruption; classes that are already learned are kept.
    """
    given = dict(locals())
    check_integer("per_class", per_class, minimum=1)
    models, page = _beside(out, "-models"), _beside(out, ".html")
    inputs = [data, data_options.labels, config]
    outputs = Outputs("augment", _beside(out, ".json"), given, inputs=inputs)
    outputs.claim(out, *([page] if report else []), resumable=[models])
    if resume and models.exists() and not (models / RECORD_FILE).exists():
        raise ConfigurationError(f"resume=True: {models} has no augmentation to continue")
    machine.apply()
    source = data_options.read(data)
    if not source.class_names:
        raise DataError(f"{data} has no labels: expected one for each observation")
    _check_form(out, source, with_mask=include_real or keep_gaps)
    if keep_gaps and source.mask is None:
        raise ConfigurationError("keep_gaps=True: expected data with missing values")
    make: Callable[..., Augmenter] = Augmenter
    if recipe is not None:
        make = partial(Augmenter.from_recipe, recipe)
    augmenter = make(
        model=model,
        sampler=sampling.sampler,
        model_options=model_options.arguments(),
        sampler_options=sampling.arguments(),
        fit_options={"progress": True, **training.arguments(), "accelerator": machine.device},
        conditional=conditional,
        singles=cast("Singles", singles),
        jobs=jobs,
        seed=seed,
        output_dir=models,
    )
    _check_balance(source, balance)
    many = "as many as each class lacks" if balance else f"{per_class} of each class"
    files = {str(out): f"synthetic observations, {many}", str(models): "models"}
    fidelity: dict[str, Any] = {}
    benefit: dict[str, Any] = {}
    answer = ""
    constant = _constant_columns(source, each_class=not augmenter.is_conditional)
    try:
        with outputs.recording(fidelity=fidelity, constant_columns=constant, benefit=benefit):
            augmenter.fit(source)
            fidelity |= augmenter.fidelity_.to_json()
            synthetic = _named_as(
                source, augmenter.sample_dataset("balance" if balance else per_class)
            )
            augmenter.save(models)
            outputs.remove(out)
            written = _with_gaps(source, synthetic, seed) if keep_gaps else synthetic
            _write(out, source, written, include_real, {"model": model, "seed": seed})
            if not no_check:
                answer, figures = _checked(augmenter, source, per_class, balance)
                benefit |= figures
            if report:
                files[str(page)] = "report"
                made = _report(data, augmenter, source, synthetic, answer, outputs.options, files)
                made.save(page)
    except KeyboardInterrupt:
        message = f"interrupted; the same command with --resume continues in {models}"
        raise KeyboardInterrupt(message) from None
    print_lines(*(constant_line(columns, place) for place, columns in constant.items()))
    print_lines(*(f"{meaning}: {path}" for path, meaning in files.items()))
    print_lines(*([f"check: {answer}"] if answer else []))
    return UNLIKE if strict and augmenter.fidelity_.problems else 0


def _checked(
    augmenter: Augmenter, source: ArrayDataset, per_class: int, balance: bool
) -> tuple[str, dict[str, Any]]:
    """Return whether samples would help, in a sentence and in figures.

    An error does not end the command, because the samples are already written.
    """
    # More samples than 200 of each class hardly change a classifier.
    number: Any = "balance" if balance else min(per_class, 200)
    try:
        found = would_help(augmenter, source, per_class=number)
    except ChartaeError as error:
        return f"it failed: {error}", {"error": str(error)}
    return str(found), found.to_json()


def _check_balance(source: ArrayDataset, balance: bool) -> None:
    assert source.y is not None
    sizes = torch.bincount(source.y, minlength=source.num_classes)
    if balance and bool((sizes == sizes[0]).all()):
        raise ConfigurationError(
            f"balance=True, and all classes have {int(sizes[0])} observations: expected classes of "
            "different sizes, or per_class"
        )


def _beside(out: Path, ending: str) -> Path:
    return out.with_name(f"{out.stem if out.suffix in ('.npz', '.csv') else out.name}{ending}")


def _constant_columns(source: ArrayDataset, *, each_class: bool) -> dict[str, list[str]]:
    """Return the constant columns of a table, by place: in all classes, or in one class only."""
    found = {"all classes": list(source.constant_columns)}
    names = [source.class_names[index] for index in source.classes] if each_class else []
    for name in names:
        members = source.of_class(name)
        if len(members) > 1:  # a class of one observation is not learned
            everywhere = found["all classes"]
            found[f"class {name!r}"] = [
                column for column in members.constant_columns if column not in everywhere
            ]
    return {place: columns for place, columns in found.items() if columns}


def _check_form(out: Path, source: ArrayDataset, *, with_mask: bool) -> None:
    """Raise an error, before any work, if the output cannot store such data."""
    shape = source.input_shape
    if out.suffix == ".csv":
        check_rows(out, shape)
    if out.suffix not in ("", ".npz", ".csv"):
        raise ConfigurationError(
            f"out={str(out)!r}: expected a name that ends in .npz or .csv, or that of a folder"
        )
    if out.suffix != "" and out.is_dir():
        raise ConfigurationError(f"out={str(out)!r} is a folder: expected a file, by its name")
    if out.suffix == "":
        check_folder_of(out, shape)
    if out.suffix == "" and with_mask and source.mask is not None:
        raise ConfigurationError(
            f"out={str(out)!r}: files of images or volumes cannot store the mask of the real data: "
            "expected a name that ends in .npz"
        )


def _named_as(source: ArrayDataset, synthetic: ArrayDataset) -> ArrayDataset:
    """Return synthetic data with the classes numbered as in the source."""
    assert synthetic.y is not None
    numbers = torch.tensor([source.class_names.index(name) for name in synthetic.class_names])
    return replace(synthetic, y=numbers[synthetic.y], class_names=source.class_names)


def _with_gaps(source: ArrayDataset, synthetic: ArrayDataset, seed: int) -> ArrayDataset:
    """Return synthetic data in which values are missing as in random real ones of the class."""
    assert source.y is not None
    assert source.mask is not None
    assert synthetic.y is not None
    random = np.random.default_rng(derive_seed(seed, "missing values"))
    rows = examples_of_classes(source.y.numpy(), synthetic.y.numpy(), random)
    return replace(synthetic, mask=source.mask[torch.from_numpy(rows)])


def _joined(real: ArrayDataset, synthetic: ArrayDataset) -> ArrayDataset:
    """Return real and synthetic data."""
    assert real.y is not None
    assert synthetic.y is not None
    mask = real.mask
    if mask is not None:
        complete = torch.ones_like(synthetic.x, dtype=torch.bool)
        mask = torch.cat([mask, complete if synthetic.mask is None else synthetic.mask])
    x, y = torch.cat([real.x, synthetic.x]), torch.cat([real.y, synthetic.y])
    return replace(real, x=x, y=y, mask=mask, names=())


def _write(
    out: Path,
    source: ArrayDataset,
    synthetic: ArrayDataset,
    include_real: bool,
    facts: Mapping[str, object],
) -> None:
    """Write synthetic data; in a folder with their ``facts`` and nearest real observations."""
    dataset = _joined(source, synthetic) if include_real else synthetic
    if out.suffix == ".npz":
        write_npz(out, dataset)
        return
    if out.suffix == ".csv":
        write_table(out, dataset)
        return
    names = source.names or tuple(map(str, range(len(source))))
    found = nearest_real(source.x.cpu(), synthetic.x.cpu(), source.mask)
    columns: dict[str, list[object]] = {
        **{name: [value] * len(synthetic) for name, value in facts.items()},
        "nearest": [names[row] for row in found.indices.tolist()],
        "distance": [f"{distance:.6g}" for distance in found.distances.tolist()],
    }
    if include_real:  # real observations have neither a model nor a seed
        own: dict[str, Sequence[object]] = {"nearest": names, "distance": ["0"] * len(source)}
        none = [""] * len(source)
        columns = {name: [*own.get(name, none), *values] for name, values in columns.items()}
    write_folder_of(out, dataset, columns)


def _report(
    data: Path,
    augmenter: Augmenter,
    source: ArrayDataset,
    synthetic: ArrayDataset,
    answer: str,
    options: Mapping[str, Any],
    files: Mapping[str, str],
) -> Report:
    model = next(iter(augmenter.models_.values()))
    groups = {"real": source, "synthetic": synthetic, **few_baselines(source, augmenter.seed)}
    return Report(
        f"Augmentation of {data.name}",
        f"{len(synthetic):,} synthetic observations of {source.num_classes} classes, learned from "
        f"{len(source):,} real ones.",
        answers={
            ALIKE: fidelity_answer(augmenter.fidelity_),
            **({"Would they help a classifier?": _sentence(answer)} if answer else {}),
        },
        facts={
            "Data": f"{data}: {source}",
            "Models": f"{len(augmenter.models_)} {type(model).__name__}, with {model.latent_dim} "
            "latent dimensions",
            "Seed": str(augmenter.seed),
            "Versions": versions(),
        },
        settings=options,
        tables=[fidelity_table(augmenter.fidelity_)],
        sections=sections(augmenter, groups),
        commands={
            "Measure whether they help your classifiers": "chartae study "
            f"{shlex.quote(str(data))} --out {shlex.quote(f'{data.stem}-study')}"
        },
        files=files,
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
