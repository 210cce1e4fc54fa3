"""``chartae evaluate``: the figures of one trained model on five tasks."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from chartae.atomic import write_text
from chartae.checks import check_integer
from chartae.cli.options import ConfigFile, DataOptions, MachineOptions, Overwrite, listed
from chartae.cli.output import Outputs, check_suffix, print_lines
from chartae.cli.trained import Trained
from chartae.data import ArrayDataset
from chartae.errors import DataError
from chartae.evaluation import (
    METRICS,
    TASKS,
    Evaluation,
    Splits,
    evaluate_model,
    split_data,
    train_classifier,
)
from chartae.report import better, write_evaluation_report
from chartae.runs import finite

__all__ = ["evaluate"]


def evaluate(
    model: Path,
    data: Path,
    *,
    out: Path,
    train: Path | None = None,
    samplers: str = "auto",
    tasks: str = ",".join(TASKS),
    seed: int = 0,
    overwrite: Overwrite = False,
    data_options: DataOptions = DataOptions(),
    machine: MachineOptions = MachineOptions(),
    config: ConfigFile = None,
) -> None:
    """Run the subcommand.

    Args:
        model: Folder of a model of "chartae train".
        data: Data that the model has not seen.
        out: An .html report or a .json file of figures.
        train: The training data of the model, from which samplers and the linear probe learn. By
            default three fifths of DATA take their place.
        samplers: Names between commas; auto is the natural sampler of the model.
        tasks: Tasks between commas.
        seed: Seed of samples, splits and classifiers.
    """
    given = dict(locals())
    check_integer("seed", seed, minimum=0)
    check_suffix(out, ".html", ".json")
    record = out.with_name(f"{out.stem}-options.json")
    inputs = [model, data, train, data_options.labels, config]
    outputs = Outputs("evaluate", record, given, inputs=inputs)
    outputs.claim(out)
    machine.apply()
    trained = Trained.read(model, machine.place)
    held_out = _as_learned(trained, data_options.read(data), "DATA")
    splits = _splits(trained, held_out, train, data_options, seed)
    with outputs.recording():
        features = None
        if splits.labelled:
            names = np.asarray(splits.train.class_names)[_labels(splits.train)]
            features = train_classifier(splits.train.x, names, seed=seed)
        found = evaluate_model(
            trained.model,
            splits,
            features=features,
            samplers=listed("samplers", samplers) or [],
            tasks=listed("tasks", tasks) or [],
            seed=seed,
        )
        if out.suffix == ".html":
            facts = {"Model": str(model), "Data": str(data), "Test set": str(splits.test)}
            write_evaluation_report(
                out,
                found,
                title=f"{type(trained.model).__name__} on {data.name}",
                facts=facts,
                settings=outputs.options,
            )
        else:
            write_text(out, _json(found))
    print_lines(*_lines(found), f"{'report' if out.suffix == '.html' else 'figures'}: {out}")


def _splits(
    trained: Trained, held_out: ArrayDataset, train: Path | None, options: DataOptions, seed: int
) -> Splits:
    if train is None:
        return split_data(held_out, seed=seed)
    learned = _as_learned(trained, options.read(train), "train")
    if learned.class_names != held_out.class_names:
        raise DataError(
            f"train has the classes {', '.join(learned.class_names) or 'none'}: expected those of "
            f"DATA, {', '.join(held_out.class_names) or 'none'}"
        )
    return Splits(learned, held_out, held_out)


def _as_learned(trained: Trained, data: ArrayDataset, name: str) -> ArrayDataset:
    """Return data with the columns of the model, and the classes of a conditional one."""
    data = trained.as_learned(data, name)
    if not trained.class_names or data.class_names == trained.class_names:
        return data
    labels = trained.conditions(data)
    assert labels is not None
    return replace(data, y=labels, class_names=trained.class_names)


def _labels(data: ArrayDataset) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    assert data.y is not None
    return data.y.numpy()


def _lines(found: Evaluation) -> list[str]:
    samplers = {f" ({name})": figures for name, figures in found.samplers.items()}
    lines = [
        f"{METRICS[name].title}{sampler}: {value:.4g} ({better(name)} is better)"
        for sampler, figures in {"": found.figures, **samplers}.items()
        for name, value in figures["test"].items()
    ]
    return lines + [f"left out: {name}: {reason}" for name, reason in found.skipped.items()]


def _json(found: Evaluation) -> str:
    figures = {"figures": found.figures, "samplers": found.samplers, "skipped": found.skipped}
    return json.dumps(finite(figures), indent=1)
