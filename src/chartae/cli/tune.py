"""``chartae tune``: the configuration of a model with the best figure on validation data."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from chartae import __version__
from chartae.atomic import write_text
from chartae.checks import check_integer, check_number
from chartae.cli.benchmark import WORK, missing, tell
from chartae.cli.options import (
    ConfigFile,
    DataOptions,
    ModelName,
    ModelOptions,
    Overwrite,
    TrainingOptions,
    seconds_of,
)
from chartae.cli.output import Outputs, print_lines
from chartae.cli.progress import showing
from chartae.cli.train import effective
from chartae.evaluation import OBJECTIVES, TuningResult, read_range
from chartae.evaluation import tune as run_search
from chartae.evaluation.search import JOURNAL
from chartae.report import write_tuning_report
from chartae.runs import write_table

__all__ = ["tune"]

RECORD, REPORT, TABLE = "tune.json", "report.html", "trials.csv"
BEST, OPTIONS = "best", "best.json"
"""The folder of the best model, and the options with which ``train`` makes it again."""

SpaceOption = Annotated[
    dict[str, str] | None,
    Parameter(
        show_default=False,
        help="Values of an argument to choose from: --space.latent-dim 2:64 for integers, "
        "--space.learning-rate 1e-4:1e-2:log by orders of magnitude, --space.batch-size 32,64,128 "
        "for choices. They replace or add to the defaults: learning_rate 1e-4:1e-2:log; batch_size "
        "32,64,128,256; latent_dim 2:32:log, not with codebooks; and the arguments of the model "
        "that the thesis varies, such as beta 0.01:10:log of a betavae.",
    ),
]
MetricOption = Annotated[
    str | None,
    Parameter(
        help=f"What to look for on validation data: {', '.join(OBJECTIVES)}. Its direction "
        "follows. [default: log_likelihood for variational models, frechet for others]"
    ),
]


def tune(
    data: Path,
    *,
    out: Path,
    model: ModelName = "vae",
    metric: MetricOption = None,
    trials: int = 50,
    space: SpaceOption = None,
    model_options: ModelOptions = ModelOptions(),
    training: TrainingOptions = TrainingOptions(),
    sampler: str = "auto",
    validation: float = 0.2,
    no_pruning: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
    budget: str | None = None,
    seed: int = 0,
    overwrite: Overwrite = False,
    data_options: DataOptions = DataOptions(),
    config: ConfigFile = None,
) -> None:
    """Run the subcommand.

    Args:
        data: A .npz, .npy, .csv, .tsv or .pt file, or a folder of images or NIfTI volumes, as for
            train. Keep test data out of it.
        out: Folder for the best model, the report and the trials. If the command is started again,
            it goes on; then there may be more trials.
        trials: Number of configurations that are tried.
        sampler: Sampler of figures of samples; auto is the natural one of the model.
        validation: Fraction of the data that is held out to compare configurations.
        no_pruning: Train every configuration to its end.
        workers: Number of processes, with one thread each. With one, the same seed gives the same
            result.
        scheduler: Address of a Dask scheduler, whose workers take the place of the processes.
        budget: Time for all trials, as in 90s, 30m or 2h. Trials that do not fit are left out.
        seed: Seed of the split, of every training and of the proposals.
    """
    given = {**locals(), "resume": (out / RECORD).exists() and not overwrite}
    check_integer("seed", seed, minimum=0)
    check_number("validation", validation, above=0.0, below=1.0)
    ranges = {
        name.replace("-", "_"): read_range(f"--space.{name}", text)
        for name, text in (space or {}).items()
    }
    seconds = seconds_of(budget)
    inputs = [data, data_options.labels, None if given["resume"] else config]
    outputs = Outputs("tune", out / RECORD, given, inputs=inputs)
    outputs.claim(resumable=[out / name for name in (REPORT, TABLE, BEST, OPTIONS, JOURNAL, *WORK)])
    source = data_options.read(data)
    fixed = {**model_options.arguments(), **training.arguments()}
    plan = {name: fixed.pop(name) for name in ("epochs", "patience") if name in fixed}
    with outputs.recording():
        try:
            with showing("trials") as advance:
                result = run_search(
                    source,
                    validation,
                    model=model,
                    metric=metric,
                    space=ranges,
                    options=fixed,
                    trials=trials,
                    **plan,
                    sampler=sampler,
                    prune=not no_pruning,
                    folder=out,
                    workers=workers,
                    scheduler=scheduler,
                    budget=seconds,
                    seed=seed,
                    progress=lambda state: tell(state, advance),
                )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted; the finished trials are in {out}, and the same command goes on"
            ) from None
        command = _write(out, result, data, validation, data_options, outputs.options)
    print_lines(
        *([] if result.prunes or no_pruning else [_unpruned(result)]),
        result.describe(),
        *missing(len(result.search.table.left_out), "did not fit into the budget"),
        f"best model: {out / BEST}",
        f"train it again: {command}",
        f"table: {out / TABLE}",
        f"report: {out / REPORT}",
    )


def _unpruned(result: TuningResult) -> str:
    return (
        "no trial was stopped early: losses cannot be compared between trials with different "
        f"{', '.join(result.incomparable)}"
    )


def _write(
    out: Path,
    result: TuningResult,
    data: Path,
    validation: float,
    how: DataOptions,
    options: Mapping[str, Any],
) -> str:
    """Write the best model, the table and the report; return the command that trains it again."""
    result.save_best(out / BEST)
    again = {"train": _options_of(result, validation, how)}
    write_text(out / OPTIONS, json.dumps({"chartae": __version__, **again}, indent=2))
    write_table(result.records(), out / TABLE)
    config = shlex.quote(str(out / OPTIONS))
    command = f"chartae train {shlex.quote(str(data))} --config {config} --out NEW-FOLDER"
    write_tuning_report(
        out / REPORT,
        result,
        title=f"Tuning of {result.model} on {data.name}",
        facts={"Data": str(data)},
        settings=options,
        commands={
            "Evaluate the best model on test data": "chartae evaluate "
            f"{shlex.quote(str(out / BEST))} TEST-DATA --train {shlex.quote(str(data))} "
            "--out evaluation.html",
            "Train the best configuration again": command,
        },
        files={
            str(out / BEST): "the best model, trained on the training set",
            str(out / OPTIONS): "its options, for chartae train --config",
            str(out / TABLE): "all trials",
            str(out / JOURNAL): "the study of Optuna; with rows, from which the command goes on",
        },
    )
    return command


def _options_of(result: TuningResult, validation: float, how: DataOptions) -> dict[str, Any]:
    """Return the options of ``train`` that give the best model, with the same weights."""
    arguments, training = result.arguments(result.best)
    seed = training.pop("seed")
    reading = vars(how) | {"labels": how.labels and str(how.labels.resolve())}
    return {
        "model": result.model,
        **effective(TrainingOptions(**training), ModelOptions(), arguments),
        **{name: value for name, value in reading.items() if value not in (None, False)},
        "validation": validation,
        "seed": seed,
        "device": "cpu",
        "threads": 1,
    }
