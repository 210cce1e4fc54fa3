"""The benchmark: many models on one data set, compared on five tasks (thesis chapter 4)."""

import io
import json
import logging
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chartae import __version__
from chartae.checks import check_choice, check_integer
from chartae.data import ArrayDataset, stratified_split
from chartae.data.splits import random_parts
from chartae.errors import ConfigurationError, DataError
from chartae.evaluation.features import Classifier, train_classifier
from chartae.evaluation.grids import GRIDS, Configurations
from chartae.evaluation.tasks import METRICS, TASKS, Evaluation, Splits, evaluate_model
from chartae.models import CVAE, MODELS, Autoencoder
from chartae.randomness import derive_seed, seeded
from chartae.runs import Outcome, Progress, Row, RunTable, execute
from chartae.samplers import SAMPLERS
from chartae.training import fit, training_options

__all__ = ["BenchmarkResult", "Entry", "benchmark", "benchmark_settings", "split_data"]

PICTURES = "pictures.npz"
"""The file of a run with its reconstructions, samples and interpolations."""
SHARES = (0.6, 0.2, 0.2)
"""Shares of the training, validation and test sets."""


def split_data(data: ArrayDataset, *, test: ArrayDataset | None = None, seed: int = 0) -> Splits:
    """Return a training, a validation and a test set, stratified by class.

    Args:
        data: all data; 60 % are for training, 20 % for validation and 20 % for tests.
        test: a test set of its own; then 80 % of the data are for training.
        seed: the same seed gives the same sets.

    Raises:
        DataError: if a class is too small to be in every set, or the test set does not match.
    """
    shares: tuple[float, ...] = SHARES if test is None else (0.8, 0.2)
    if data.class_names:
        assert data.y is not None
        parts = stratified_split(data.y, shares, seed=seed)
    else:
        parts = random_parts(len(data), shares, seed=seed)
    train, validation, *rest = (data.subset(part) for part in parts)
    return Splits(train, validation, rest[0] if test is None else test)


# --- one run --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shared:
    """What all runs of a benchmark read."""

    splits: Splits
    classifier: Classifier | None


def _train_and_evaluate(settings: Mapping[str, Any], shared: _Shared, attempt: int) -> Outcome:
    """Train one model, evaluate it on all tasks, and keep pictures.

    Raises:
        DivergenceError: if training diverges.
    """
    splits = _subset(shared.splits, settings["train_size"], settings["seed"])
    with collected_warnings() as warnings:
        figures, pictures = _evaluated(settings, splits, shared.classifier, attempt)
    return Outcome({**figures, "warnings": warnings}, {PICTURES: pictures})


def _evaluated(
    settings: Mapping[str, Any], splits: Splits, classifier: Classifier | None, attempt: int
) -> tuple[dict[str, Any], bytes]:
    """Return the figures of a run, and its pictures."""
    seed: int = settings["seed"]
    model = make_model(settings, splits.train)
    history = fit(
        model,
        splits.train if model.condition_dim else splits.train.x,
        splits.validation if model.condition_dim else splits.validation.x,
        epochs=settings["epochs"],
        batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"] * 0.1**attempt,
        seed=derive_seed(seed, "fit"),
        accelerator="cpu",
        progress=False,
    )
    if history.stopped == "interrupted":
        raise KeyboardInterrupt
    evaluation = evaluate_model(
        model,
        splits,
        features=classifier,
        samplers=settings["samplers"],
        tasks=settings["tasks"],
        runs=settings["runs"],
        seed=seed,
    )
    figures: dict[str, Any] = {
        "validation": evaluation.figures["validation"],
        "test": evaluation.figures["test"],
        "samplers": evaluation.samplers,
        "skipped": evaluation.skipped,
        "train_seconds": sum(history.seconds),
        "epochs": history.num_epochs,
        "best_epoch": (history.best_epoch or 0) + 1,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    return figures, _pictures(evaluation)


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect the library's warnings in the block, in place of printing them."""
    messages: dict[str, None] = {}
    logger = logging.getLogger("chartae")
    before = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [_Collector(messages)], False
    found: list[str] = []
    try:
        yield found
    finally:
        logger.handlers, logger.propagate = before
        found += messages


class _Collector(logging.Handler):
    def __init__(self, messages: dict[str, None]) -> None:
        super().__init__(logging.WARNING)
        self.messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self.messages[record.getMessage()] = None


def make_model(settings: Mapping[str, Any], train: ArrayDataset) -> Autoencoder:
    """Return a new model with the settings of a run, and the defaults for a training set."""
    kind = MODELS[settings["model"]]
    options = training_options(settings["model"], train)
    if settings["latent_dim"] is not None:
        options["latent_dim"] = settings["latent_dim"]
    if issubclass(kind, CVAE):
        options["conditions"] = train.num_classes
    options |= settings["networks"] | settings["options"]
    with seeded(settings["seed"], "model"):
        return kind(train.input_shape, **options)


def _subset(splits: Splits, size: int | None, seed: int) -> Splits:
    """Return the splits with a training set of a given size, as balanced as the whole."""
    if size is None or size == len(splits.train):
        return splits
    if splits.train.class_names:
        assert splits.train.y is not None
        (part,) = stratified_split(splits.train.y, (size,), seed=seed)
    else:
        (part,) = random_parts(len(splits.train), (size,), seed=seed)
    return Splits(splits.train.subset(part), splits.validation, splits.test)


def _pictures(evaluation: Evaluation) -> bytes:
    """Return the pictures as an .npz archive; a slash cannot be in its names."""
    content = io.BytesIO()
    arrays: dict[str, Any] = {
        name.replace("/", "|"): picture.float().numpy()
        for name, picture in evaluation.pictures.items()
    }
    np.savez_compressed(content, **arrays)
    return content.getvalue()


# --- the table ------------------------------------------------------------------------------------


def benchmark_settings(
    *,
    models: Sequence[str],
    samplers: Sequence[str] = ("auto",),
    grid: Configurations = GRIDS["default"],
    latent_dims: Sequence[int | None] = (None,),
    train_sizes: Sequence[int | None] = (None,),
    seeds: Sequence[int] = (0,),
    tasks: Sequence[str] = TASKS,
    epochs: int = 100,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    networks: Mapping[str, Any] | None = None,
    runs: int = 20,
) -> list[dict[str, Any]]:
    """Return the settings of all runs of a benchmark; arguments as for `benchmark`."""
    for name in models:
        check_choice("models", name, MODELS)
    for name in samplers:
        check_choice("samplers", name, ["auto", *SAMPLERS])
    for name in tasks:
        check_choice("tasks", name, TASKS)
    for sequence, names in (("models", models), ("samplers", samplers), ("seeds", seeds)):
        if not names:
            raise ConfigurationError(f"{sequence} is empty: expected at least one")
    common = {
        "samplers": list(samplers),
        "tasks": list(tasks),
        "epochs": check_integer("epochs", epochs, minimum=1),
        "batch_size": check_integer("batch_size", batch_size, minimum=1),
        "learning_rate": float(learning_rate),
        "networks": dict(networks or {}),
        "runs": check_integer("runs", runs, minimum=1),
    }
    return [
        {
            "model": model,
            "options": dict(options),
            "latent_dim": latent_dim,
            "train_size": size,
            "seed": seed,
            **common,
        }
        for seed in seeds
        for latent_dim in latent_dims
        for size in train_sizes
        for model in models
        for options in grid.get(model, [{}])
    ]


def benchmark(
    splits: Splits,
    settings: Sequence[Mapping[str, Any]],
    *,
    folder: str | Path,
    jobs: int | None = None,
    scheduler: str | None = None,
    budget: float | None = None,
    again: bool = False,
    feature_seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> "BenchmarkResult":
    """Train and evaluate many models, and return one table.

    Each run trains one configuration of one model and evaluates it as `evaluate_model` does, in the
    features of a small classifier that is trained once on the training and validation sets, or of
    the data themselves without labels. Runs are kept in the folder, so that the same call continues
    after an interruption; see `chartae.runs.execute`. A training that diverges is repeated with a
    tenth of the learning rate, and marked.

    Args:
        splits: the data (`split_data`).
        settings: what to run (`benchmark_settings`).
        folder: where rows are kept.
        jobs: number of processes; None takes one for each core.
        scheduler: address of a Dask scheduler.
        budget: seconds of wall-clock time; runs that do not fit are left out.
        again: True to compute rows again that the folder has.
        feature_seed: seed of the classifier whose features are compared.
        progress: called whenever a run ends.

    Raises:
        ConfigurationError: for a folder with rows of other data or of another version, an argument
            out of range, or a configuration that a model does not take.
        DataError: if the data do not fit a model.
    """
    if splits.test is None:
        raise DataError("splits has no test set: expected one, on which the benchmark reports")
    for one in settings:
        _check(one, splits)
    data = [part.fingerprint for part in (splits.train, *splits.held_out.values())]
    context = {"version": __version__, "data": data, "features": feature_seed}
    classifier = feature_classifier(splits, feature_seed)

    def cost(one: Mapping[str, Any]) -> tuple[str, float]:
        kind = json.dumps([one["model"], one["options"], one["samplers"]], sort_keys=True)
        return kind, float(one["epochs"] * (one["train_size"] or len(splits.train)))

    table = execute(
        _train_and_evaluate,
        settings,
        folder=folder,
        context=context,
        shared=_Shared(splits, classifier),
        jobs=jobs,
        scheduler=scheduler,
        budget=budget,
        cost=cost,
        again=again,
        progress=progress,
    )
    return BenchmarkResult(table, None if classifier is None else classifier.accuracy)


def feature_classifier(splits: Splits, seed: int) -> Classifier | None:
    """Return the classifier whose features are compared; None without labels.

    It learns from the training and the validation set.
    """
    if not splits.labelled:
        return None
    both = [splits.train, splits.validation]
    labels = torch.cat([_labels(part) for part in both]).numpy()
    return train_classifier(
        torch.cat([part.x for part in both]),
        np.asarray(splits.train.class_names)[labels],
        seed=seed,
        accelerator="cpu",
    )


def _labels(data: ArrayDataset) -> Tensor:
    assert data.y is not None
    return data.y


def _check(settings: Mapping[str, Any], splits: Splits) -> None:
    """Build the model once, so that a wrong configuration is found before any work."""
    size = settings["train_size"]
    if size is not None and not 2 <= size <= len(splits.train):
        raise ConfigurationError(
            f"train_sizes has {size}: expected from 2 to {len(splits.train)}, the training set"
        )
    if issubclass(MODELS[settings["model"]], CVAE) and not splits.labelled:
        raise DataError(f"the model {settings['model']!r} needs labels of at least two classes")
    make_model(settings, splits.train)


# --- results --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One configuration, over its seeds: chosen by validation, reported on the test set.

    Attributes:
        model: name of the model.
        options: arguments of its constructor.
        latent_dim: size of the latent space; None for the default.
        train_size: size of the training set; None for all.
        sampler: name of the sampler; empty for a figure of the model.
        metric: name of the figure (`METRICS`).
        validation: mean over seeds on the validation set; NaN for figures of the test set only.
        test: mean over seeds on the test set.
        deviation: standard deviation over seeds on the test set; NaN for one seed.
        rows: the runs.
    """

    model: str
    options: Mapping[str, Any]
    latent_dim: int | None
    train_size: int | None
    sampler: str
    metric: str
    validation: float
    test: float
    deviation: float
    rows: tuple[Row, ...] = field(repr=False)

    @property
    def title(self) -> str:
        """The model, with its options and its sampler."""
        parts = [f"{name}={value}" for name, value in self.options.items()]
        parts += [] if self.latent_dim is None else [f"d={self.latent_dim}"]
        named = f"{self.model} ({', '.join(parts)})" if parts else self.model
        return f"{named} + {self.sampler}" if self.sampler else named


@dataclass(frozen=True)
class BenchmarkResult:
    """The table of a benchmark.

    Attributes:
        table: the runs.
        feature_accuracy: accuracy of the classifier whose features are compared; None without one.
    """

    table: RunTable
    feature_accuracy: float | None

    def records(self) -> list[dict[str, Any]]:
        """Return a tidy table: a mapping for each figure of each run and sampler."""
        return [
            {
                "run": row.key,
                "model": row.settings["model"],
                "options": json.dumps(row.settings["options"], sort_keys=True),
                "latent_dim": row.settings["latent_dim"],
                "train_size": row.settings["train_size"],
                "seed": row.settings["seed"],
                "task": METRICS[metric].task if metric in METRICS else "cost",
                "sampler": sampler,
                "metric": metric,
                "validation": validation,
                "test": test,
                "diverged": row.attempts > 1,
            }
            for row in self.table.done
            for sampler, metric, validation, test in _figures(row)
        ]

    def entries(self, metric: str) -> list[Entry]:
        """Return the configurations with a figure, the best on the test set first.

        Args:
            metric: a name of `METRICS`.
        """
        check_choice("metric", metric, METRICS)
        groups: dict[str, list[tuple[Row, str, float, float]]] = {}
        for row in self.table.done:
            for sampler, name, validation, test in _figures(row):
                if name == metric and test is not None:
                    key = json.dumps([_configuration(row), sampler], sort_keys=True)
                    value = math.nan if validation is None else validation
                    groups.setdefault(key, []).append((row, sampler, value, test))
        found = [_entry(metric, members) for members in groups.values()]
        return sorted(found, key=lambda entry: entry.test, reverse=METRICS[metric].higher)

    def best(self, metric: str, *, by: Callable[[Entry], Any] | None = None) -> list[Entry]:
        """Return for each model its configuration with the best validation figure.

        Among its samplers too, where the figure is one of samples. The order is that of the figures
        on the test set, the best first; validation chooses, and the test set reports.

        Args:
            metric: a name of `METRICS`.
            by: what is compared, such as model and sampler; None is the model.
        """
        sign = -1.0 if METRICS[metric].higher else 1.0
        chosen: dict[Any, Entry] = {}
        for entry in self.entries(metric):
            key = entry.model if by is None else by(entry)
            value = entry.test if math.isnan(entry.validation) else entry.validation
            before = chosen.get(key)
            if before is None or sign * value < sign * _chooses(before):
                chosen[key] = entry
        return sorted(chosen.values(), key=lambda entry: sign * entry.test)

    def pictures(self, row: Row) -> dict[str, NDArray[Any]]:
        """Return the pictures of a run by name, as in `Evaluation`; empty if there are none."""
        path = self.table.file(row, PICTURES)
        if not path.is_file():
            return {}
        with np.load(path, allow_pickle=False) as archive:
            return {name.replace("|", "/"): archive[name] for name in archive.files}


def _chooses(entry: Entry) -> float:
    return entry.test if math.isnan(entry.validation) else entry.validation


def _configuration(row: Row) -> list[Any]:
    names = ("model", "options", "latent_dim", "train_size")
    return [row.settings[name] for name in names]


def _figures(row: Row) -> Iterable[tuple[str, str, float | None, float | None]]:
    """Yield sampler, name, validation figure and test figure of a run."""
    figures = row.figures
    parts = {"": {"validation": figures["validation"], "test": figures["test"]}}
    for sampler, both in {**parts, **figures["samplers"]}.items():
        for name in both["test"]:
            yield sampler, name, both["validation"].get(name), both["test"][name]
    for name in ("train_seconds", "epochs", "best_epoch", "parameters"):
        yield "", name, None, figures[name]


def _entry(metric: str, members: Sequence[tuple[Row, str, float, float]]) -> Entry:
    row, sampler = members[0][:2]
    test = [value for *_, value in members]
    model, options, latent_dim, size = _configuration(row)
    return Entry(
        *(model, options, latent_dim, size, sampler, metric),
        validation=statistics.fmean(value for _, _, value, _ in members),
        test=statistics.fmean(test),
        deviation=statistics.stdev(test) if len(test) > 1 else math.nan,
        rows=tuple(member[0] for member in members),
    )
