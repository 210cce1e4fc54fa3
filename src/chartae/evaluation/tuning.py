"""`tune`: the arguments of a model and of its training with the best figure on validation data."""

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike
from torch import Tensor

from chartae import __version__
from chartae.atomic import atomic_path, check_writable
from chartae.checks import check_choice, check_integer, check_number
from chartae.data import ArrayDataset, held_out_split
from chartae.errors import ConfigurationError, DataError
from chartae.evaluation.benchmark import collected_warnings, feature_classifier, make_model
from chartae.evaluation.features import Classifier
from chartae.evaluation.search import Pruned, Report, SearchResult, Trial, search
from chartae.evaluation.spaces import Choice, Interval, Space, default_space
from chartae.evaluation.tasks import METRICS, TEST_ONLY, Measure, Splits, evaluate_model
from chartae.models import CVAE, MODELS, Autoencoder, Trainable, VariationalAutoencoder
from chartae.persistence import CONFIG_FILE, WEIGHTS_FILE, check_replaceable
from chartae.runs import Outcome, Progress
from chartae.samplers import SAMPLERS
from chartae.training import HISTORY_FILE, Callback, History, fit, fit_defaults, training_options

__all__ = ["OBJECTIVES", "TuningResult", "tune"]

LOSS = "loss"
OBJECTIVES: dict[str, Measure] = {
    LOSS: Measure("training", "loss", False),
    **{name: one for name, one in METRICS.items() if name not in TEST_ONLY},
}
"""What `tune` can look for, on validation data: the loss of `History`, and figures of `METRICS`."""
TRAINING = {"learning_rate": 1e-3, "batch_size": 128, "kl_warmup": 0}
"""The arguments of `fit` that can be searched, with their defaults."""
COMPARABLE = {
    *TRAINING,
    *("latent_dim", "encoder", "decoder", "hidden", "num_samples", "num_pseudo_inputs"),
    *("flows", "num_flows", "num_codes", "num_components", "posterior_covariance"),
    *("posterior_rank", "num_steps"),
}
"""Arguments that leave the loss what it is; others, such as weights of its terms, change it."""
LABELLED = ("inception_score", "probe_accuracy", "cluster_accuracy", "cluster_nmi", "cluster_ari")
MODEL_FILES = (CONFIG_FILE, WEIGHTS_FILE, HISTORY_FILE)


@dataclass(frozen=True)
class TuningResult:
    """What `tune` found.

    Attributes:
        search: all trials.
        model: name of the model.
        metric: what was looked for (`OBJECTIVES`).
        space: what was searched.
        fixed: the arguments that all trials have in common.
        prunes: whether trials could be pruned.
    """

    search: SearchResult
    model: str
    metric: str
    space: Space
    fixed: Mapping[str, Any]
    prunes: bool

    @property
    def best(self) -> Trial:
        """The trial with the best value.

        Raises:
            DivergenceError: if no trial has a value.
        """
        return self.search.best

    def arguments(self, trial: Trial) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the arguments of the model's class, and those of `fit`, of a trial."""
        return divided({**self.fixed, **trial.arguments})

    @property
    def incomparable(self) -> list[str]:
        """The arguments that were searched and change the loss; with any, no trial is pruned."""
        return [name for name in self.space if name not in COMPARABLE]

    def describe(self) -> str:
        """Return the number of trials, and the best configuration in words."""
        states = [trial.state for trial in self.search.trials]
        others = {s: states.count(s) for s in ("pruned", "diverged", "failed") if s in states}
        told = "".join(f", {count} {state}" for state, count in others.items())
        return f"best of {len(states)} trial{'s' * (len(states) > 1)}{told}: {self.best_in_words}"

    @property
    def best_in_words(self) -> str:
        """The value of the best trial, its arguments, and the value of the defaults."""
        best, title = self.best, OBJECTIVES[self.metric].title
        chosen = ", ".join(f"{name} {_short(value)}" for name, value in best.arguments.items())
        before = ""
        for first in self.search.complete[:1]:
            if first.number == 0 != best.number:
                before = f"; the first trial, from the defaults, has {first.value:.4g}"
        return f"{title} {best.value:.4g} on validation data with {chosen}{before}"

    def records(self) -> list[dict[str, Any]]:
        """Return a tidy table: a mapping for each trial."""
        return [
            {
                "trial": trial.number,
                "state": trial.state,
                self.metric: None if math.isnan(trial.value) else trial.value,
                **trial.arguments,
                "epochs": trial.row.figures.get("epochs"),
                "seconds": trial.row.seconds,
                "reason": trial.row.error or trial.row.figures.get("reason"),
            }
            for trial in self.search.trials
        ]

    def save_best(self, folder: str | Path) -> None:
        """Write the best model and its history to a folder, which `chartae.load` reads.

        Raises:
            DivergenceError: if no trial has a value.
            ConfigurationError: if the folder is not writable or has files of others.
        """
        place = check_writable("folder", folder)
        check_replaceable("folder", place)
        for name in MODEL_FILES:
            source = self.search.table.file(self.best.row, name)
            with atomic_path(place / name) as temporary:
                temporary.write_bytes(source.read_bytes())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def tune(
    data: ArrayDataset | ArrayLike | Tensor,
    validation: ArrayDataset | ArrayLike | Tensor | float = 0.2,
    *,
    model: str = "vae",
    metric: str | None = None,
    space: Space | None = None,
    options: Mapping[str, Any] | None = None,
    trials: int = 50,
    epochs: int = 100,
    patience: int | None = None,
    sampler: str = "auto",
    prune: bool = True,
    folder: str | Path,
    workers: int = 1,
    scheduler: str | None = None,
    budget: float | None = None,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> TuningResult:
    """Look for the arguments of a model and its training with the best figure on validation data.

    Each trial trains the model on the training set, with its best epoch by the validation loss, on
    the CPU with one thread, and computes one figure on the validation set. Optuna proposes the
    arguments of the next trial (`chartae.evaluation.search.search`). The first trial has the
    defaults. Trials whose validation loss is worse than the median of the others at the same epoch
    are pruned, but only if no argument is searched that changes the loss itself, such as a weight
    of one of its terms. Trials that diverge are marked.

    Validation data choose here, so that their figure of the best trial is too good. Keep test data
    out of this function, and evaluate the best model on them once (``chartae evaluate``).

    Args:
        data: the training set, fully observed; an array or an `ArrayDataset`, which has labels.
        validation: the validation set; or the share of ``data`` that is held out as such.
        model: a name (`chartae.models.MODELS`).
        metric: what to look for (`OBJECTIVES`): ``"loss"``, or a figure as in `evaluate_model`. Its
            direction follows. None takes ``"log_likelihood"`` for a variational model, and
            ``"frechet"``, of samples, for another.
        space: for each argument the values to choose from, `Interval` or `Choice`. They replace
            those of `default_space`, and add to them. Arguments are those of the model, and
            ``learning_rate``, ``batch_size`` and ``kl_warmup``.
        options: arguments that are fixed in all trials.
        trials: number of trials, those of an earlier call too.
        epochs: passes over the training set.
        patience: stop a trial after this number of epochs without improvement; None never does.
        sampler: name of the sampler of figures of samples; ``"auto"`` is the model's natural one.
        prune: whether trials are pruned.
        folder: where trials are kept; the same call goes on there. Several calls share them.
        workers: number of processes, with one thread each.
        scheduler: address of a Dask scheduler, whose workers take the place of the processes.
        budget: seconds of wall-clock time; trials that do not fit are left out.
        seed: seed of the split, of every training and of the proposals. With one worker, the same
            seed gives the same result.
        progress: called whenever a trial ends.

    Raises:
        ConfigurationError: for an unknown name or a value out of range, an argument that the model
            does not have, a metric that the model or the data do not have, a loss that cannot be
            compared between trials, a folder of another search, or if Optuna is missing.
        DataError: if the data do not fit the model.

    >>> import tempfile, chartae
    >>> from chartae.data import digits
    >>> from chartae.evaluation import Interval
    >>> few, space = digits().x[:60], {"latent_dim": Interval(1, 4)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = chartae.tune(
    ...         few, metric="loss", space=space, trials=2, epochs=2, folder=folder
    ...     )
    ...     result.save_best(f"{folder}/best")
    ...     best = chartae.load(f"{folder}/best")
    >>> (
    ...     len(result.search.trials),
    ...     result.best.state,
    ...     best.latent_dim == result.best.arguments["latent_dim"],
    ... )
    (2, 'complete', True)
    """
    splits = _splits(data, validation, seed)
    check_choice("model", model, MODELS)
    check_choice("sampler", sampler, ["auto", *SAMPLERS])
    metric = _default_metric(model) if metric is None else metric
    check_choice("metric", metric, OBJECTIVES)
    if reason := _unavailable(metric, model, splits):
        raise ConfigurationError(f"metric={metric!r} is not available: {reason}")
    searched = _space(space or {}, options or {}, model, metric, splits.train)
    usual = {**TRAINING, **fit_defaults(splits.train), **training_options(model, splits.train)}
    plan = {"epochs": check_integer("epochs", epochs, minimum=1), "seed": seed}
    if patience is not None:
        plan["patience"] = check_integer("patience", patience, minimum=1)
    every = {**usual, **(options or {}), **plan}
    fixed = {name: value for name, value in every.items() if name not in searched}
    prunes = prune and searched.keys() <= COMPARABLE
    task = _Task(splits, model, metric, sampler, fixed, prunes)
    own = task.build(every).config()
    first = {**every, **{name: own[name] for name in searched.keys() & own.keys()}}
    task.check(searched, first)
    if metric == LOSS and (changing := [name for name in searched if name not in COMPARABLE]):
        raise ConfigurationError(
            f"metric={metric!r} with {', '.join(changing)} in space, which changes the loss "
            "itself, so that the lowest loss is not the best model; expected a metric such as "
            "'frechet'"
        )
    if metric != LOSS:
        task = replace(task, features=feature_classifier(splits, seed))
    found = search(
        partial(_objective, task),
        searched,
        trials=trials,
        folder=folder,
        context={
            "version": __version__,
            "data": [part.fingerprint for part in (splits.train, splits.validation)],
            "model": model,
            "metric": metric,
            "sampler": sampler,
            "prunes": prunes,
            "fixed": fixed,
        },
        higher=OBJECTIVES[metric].higher,
        first=first,
        warmup=max(1, epochs // 5),
        seed=seed,
        workers=workers,
        scheduler=scheduler,
        budget=budget,
        progress=progress,
    )
    return TuningResult(found, model, metric, searched, fixed, prunes)


# --- what is asked for, checked before any work ---------------------------------------------------


def _splits(data: Any, validation: Any, seed: int) -> Splits:
    """Return a training and a validation set; there is no test set."""
    whole = data if isinstance(data, ArrayDataset) else ArrayDataset.from_arrays(data)
    if isinstance(validation, (int, float)):
        share = check_number("validation", validation, above=0.0, below=1.0)
        return Splits(*held_out_split(whole, share, seed=seed))
    if not isinstance(validation, ArrayDataset):
        validation = ArrayDataset.from_arrays(validation)
    if validation.fingerprint == whole.fingerprint:
        raise DataError("validation is the training set: expected data that no model learns from")
    return Splits(whole, validation)


def _default_metric(model: str) -> str:
    return "log_likelihood" if issubclass(MODELS[model], VariationalAutoencoder) else "frechet"


def _unavailable(metric: str, model: str, splits: Splits) -> str | None:
    """Return why there is no such figure of a model on these data; None if there is."""
    kind, task = MODELS[model], OBJECTIVES[metric].task
    if metric in LABELLED and not splits.labelled:
        return "the data have no labels of at least two classes"
    if metric in ("psnr", "ssim") and len(splits.train.input_shape) == 1:
        return "the data are no images"
    if metric == "log_likelihood" and not issubclass(kind, VariationalAutoencoder):
        return f"{model} has no likelihood of observations"
    if task == "interpolation" and (kind.latent_space == "codes" or issubclass(kind, CVAE)):
        return f"{model} does not decode single latents"
    return None


def _space(
    given: Space, options: Mapping[str, Any], model: str, metric: str, train: ArrayDataset
) -> dict[str, Interval | Choice]:
    """Return what is searched: the given values, and defaults of what is not fixed."""
    for name in ("epochs", "patience", "seed"):
        if name in options or name in given:
            raise ConfigurationError(f"{name} is the same in all trials: expected tune({name}=...)")
    for name, values in given.items():
        if not isinstance(values, (Interval, Choice)):
            raise ConfigurationError(
                f"space has {name}={values!r}: expected an Interval or a Choice"
            )
        if name in options:
            raise ConfigurationError(
                f"{name} is in space and in options: expected one of them, values to choose from "
                "or a fixed one"
            )
    defaults = {
        name: values
        for name, values in default_space(model, train).items()
        if name not in options and (metric != LOSS or name in COMPARABLE)
    }
    return {**defaults, **given}


# --- one trial ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    """What all trials have in common.

    Attributes:
        fixed: arguments of the model and of `fit`.
        prunes: whether trials are pruned.
        features: the classifier in whose features distributions are compared, if there is one.
    """

    splits: Splits
    model: str
    metric: str
    sampler: str
    fixed: Mapping[str, Any]
    prunes: bool
    features: Classifier | None = None

    def build(self, arguments: Mapping[str, Any]) -> Autoencoder:
        """Return a new model; arguments of the training are ignored."""
        options, _ = divided({**self.fixed, **arguments})
        settings = {
            "model": self.model,
            "latent_dim": None,
            "networks": {},
            "options": options,
            "seed": self.fixed["seed"],
        }
        model = make_model(settings, self.splits.train)
        model.metadata = self.splits.train.metadata
        return model

    def check(self, space: Space, first: Mapping[str, Any]) -> None:
        """Build models at the ends of each range, so that wrong values are found before any work.

        Raises:
            ConfigurationError: for a value that the model or the training does not take.
            DataError: if the data do not fit the model.
        """
        _, training = divided(first)
        model = self.build(first)
        check_training(training, model)
        model.check_batch("data", self.splits.train.tensors)
        if self.sampler != "auto" and (reason := SAMPLERS[self.sampler].unsupported_reason(model)):
            raise ConfigurationError(f"sampler={self.sampler!r}: {reason}")
        for name, values in space.items():
            for value in values.ends:
                try:
                    if name in TRAINING:
                        check_training({**training, name: value}, model)
                    else:
                        self.build({**first, name: value})
                except ConfigurationError as error:
                    raise ConfigurationError(f"space with {name}={value!r}: {error}") from error


def check_training(training: Mapping[str, Any], model: Autoencoder) -> None:
    """Raise `ConfigurationError` for arguments that `fit` would refuse."""
    check_number("learning_rate", training["learning_rate"], above=0.0)
    check_integer("batch_size", training["batch_size"], minimum=1)
    kl_warmup, epochs = training["kl_warmup"], training["epochs"]
    check_integer("kl_warmup", kl_warmup, minimum=0, maximum=epochs - 1)
    if kl_warmup and not hasattr(model, "kl_weight"):
        raise ConfigurationError(f"kl_warmup={kl_warmup}: {type(model).__name__} has no KL")


def divided(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments of a model's class, and those of `fit`.

    >>> divided({"latent_dim": 8, "epochs": 3})
    ({'latent_dim': 8}, {'epochs': 3})
    """
    theirs = {*TRAINING, "epochs", "patience", "seed"}
    return (
        {name: value for name, value in arguments.items() if name not in theirs},
        {name: value for name, value in arguments.items() if name in theirs},
    )


class _Reports(Callback):
    """Reports the validation loss of each epoch, and ends a training that is to be pruned."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def on_epoch_end(self, model: Trainable, history: History) -> bool:
        return self.report(history.num_epochs, history.validation[model.monitored][-1])


def _objective(task: _Task, arguments: Mapping[str, Any], report: Report) -> Outcome:
    """Train and evaluate one model.

    Raises:
        Pruned: if others were better at the same epoch.
        DivergenceError: if training diverges.
    """
    with collected_warnings() as warnings:
        model = task.build(arguments)
        _, training = divided({**task.fixed, **arguments})
        history = fit(
            model,
            task.splits.train,
            task.splits.validation,
            **training,
            accelerator="cpu",
            callbacks=[_Reports(report)] if task.prunes else [],
            progress=False,
        )
        if history.stopped == "interrupted":
            raise KeyboardInterrupt
        if history.stopped == "callback":
            raise Pruned
        best = history.best_epoch or 0
        loss = history.validation[model.monitored][best]
        value = loss if task.metric == LOSS else _figure(task, model)
    figures = {
        "value": value,
        "loss": loss,
        "epochs": history.num_epochs,
        "best_epoch": best + 1,
        "warnings": warnings,
    }
    return Outcome(figures, _files(model, history))


def _figure(task: _Task, model: Autoencoder) -> float:
    """Return the figure of a model on the validation set.

    Raises:
        ConfigurationError: if it has none.
    """
    found = evaluate_model(
        model,
        task.splits,
        features=task.features,
        samplers=[task.sampler],
        tasks=[OBJECTIVES[task.metric].task],
        seed=task.fixed["seed"],
    )
    for part in (found.figures, *found.samplers.values()):
        if task.metric in part["validation"]:
            return part["validation"][task.metric]
    reasons = "; ".join(found.skipped.values()) or "the data do not have it"
    raise ConfigurationError(f"metric={task.metric!r} could not be computed: {reasons}")


def _files(model: Autoencoder, history: History) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        history.save(Path(folder) / HISTORY_FILE)
        return {name: (Path(folder) / name).read_bytes() for name in MODEL_FILES}
