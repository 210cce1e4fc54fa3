"""``chartae benchmark``: many models on one data set, ranked on five tasks."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from chartae.checks import check_choice, check_integer, check_number
from chartae.cli.options import ConfigFile, DataOptions, Overwrite, listed, seconds_of
from chartae.cli.output import Outputs, print_lines
from chartae.cli.progress import showing
from chartae.data import ArrayDataset
from chartae.errors import ConfigurationError
from chartae.evaluation import (
    TASKS,
    BenchmarkResult,
    Splits,
    benchmark_settings,
    read_grid,
    split_data,
)
from chartae.evaluation import benchmark as run_benchmark
from chartae.report import write_benchmark_report
from chartae.runs import Progress, run_key, write_table

__all__ = ["WORK", "benchmark", "missing", "tell"]

RECORD, REPORT, TABLE, PARQUET = "benchmark.json", "report.html", "results.csv", "results.parquet"
WORK = ("context.json", "rows", "files", "claims")
"""What the table of runs keeps in the folder."""
COMMON = "ae,vae,betavae,iwae,vamp,wae,infovae,rae,aae,vqvae,svae,iafvae"
"""The models of a benchmark without ``--models``."""


def benchmark(
    data: Path,
    *,
    out: Path,
    models: str = COMMON,
    samplers: str = "auto,mixture",
    grid: str = "default",
    latent_dims: str | None = None,
    train_sizes: str | None = None,
    seeds: int = 1,
    tasks: str = ",".join(TASKS),
    epochs: int = 100,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    encoder: str | None = None,
    decoder: str | None = None,
    test: Path | None = None,
    jobs: int | None = None,
    scheduler: str | None = None,
    budget: str | None = None,
    row: str | None = None,
    seed: int = 0,
    overwrite: Overwrite = False,
    data_options: DataOptions = DataOptions(),
    config: ConfigFile = None,
) -> None:
    """Run the subcommand.

    Args:
        data: A .npz, .npy, .csv, .tsv or .pt file, or a folder of images or NIfTI volumes, as for
            train.
        out: Folder for the report, the table and the rows. If the command is started again, it goes
            on.
        models: Names between commas, as in vae,ae,wae.
        samplers: Names between commas; auto is the natural sampler of each model. Those that do not
            support a model are left out.
        grid: Configurations of each model: default has one; thesis has those of the thesis; or a
            .toml or .json file with a list of tables for each model, as in betavae = [{beta = 2}].
        latent_dims: Dimensions of the latent space, as in 8,16,32. [default: 8; with codebooks 64]
        train_sizes: Sizes of the training set, as in 200,500. [default: all]
        seeds: Number of trainings of each configuration.
        tasks: Tasks between commas.
        epochs: Number of passes over the data.
        batch_size: Number of observations in each step.
        learning_rate: Learning rate of the Adam optimiser; a training that diverges is repeated
            with a tenth of it.
        encoder: Preset of the encoder of all models. [default: mlp]
        decoder: Preset of the decoder of all models. [default: mlp]
        test: Test data in a separate file or folder; by default a fifth of DATA.
        jobs: Number of processes, with one thread each. [default: one for each core]
        scheduler: Address of a Dask scheduler, whose workers take the place of the processes.
        budget: Time for all runs, as in 90s, 30m or 2h. Runs that do not fit are left out.
        row: Compute the row with this name again, and nothing else.
        seed: Seed of the split, and of the first training; each next training has the next seed.
    """
    given = {**locals(), "resume": (out / RECORD).exists() and not overwrite}
    check_integer("seeds", seeds, minimum=1)
    check_integer("seed", seed, minimum=0)
    check_number("learning_rate", learning_rate, above=0.0)
    seconds = seconds_of(budget)
    networks = {"encoder": encoder, "decoder": decoder}
    settings = benchmark_settings(
        models=listed("models", models) or [],
        samplers=listed("samplers", samplers) or [],
        grid=read_grid(grid),
        latent_dims=_integers("latent_dims", latent_dims),
        train_sizes=_integers("train_sizes", train_sizes),
        seeds=range(seed, seed + seeds),
        tasks=listed("tasks", tasks) or [],
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        networks={name: preset for name, preset in networks.items() if preset is not None},
    )
    if row is not None:
        check_choice("row", row, [run_key(one) for one in settings])
    grid_file = Path(grid) if Path(grid).suffix else None
    inputs = [data, test, data_options.labels, grid_file, None if given["resume"] else config]
    outputs = Outputs("benchmark", out / RECORD, given, inputs=inputs)
    written = [RECORD, REPORT, TABLE, PARQUET, *WORK]
    outputs.claim(resumable=[out / name for name in written[1:]])
    source = data_options.read(data)
    splits = split_data(source, test=_matching(source, test, data_options), seed=seed)
    chosen = [one for one in settings if row in (None, run_key(one))]
    with outputs.recording():
        with showing("trainings") as advance:
            result = run_benchmark(
                splits,
                chosen,
                folder=out,
                jobs=jobs,
                scheduler=scheduler,
                budget=seconds,
                again=row is not None,
                feature_seed=seed,
                progress=lambda state: tell(state, advance),
            )
        found = {} if row else _write(out, result, splits, data, outputs.options)
    if row is not None:
        _print_row(result)
        return
    print_lines(
        *(f"{question} {answer}" for question, answer in found.items()),
        *missing(len(result.table.failed), "failed"),
        *missing(len(result.table.left_out), "did not fit into the budget"),
        f"table: {out / TABLE}",
        f"report: {out / REPORT}",
    )


def _write(
    out: Path,
    result: BenchmarkResult,
    splits: Splits,
    data: Path,
    options: Mapping[str, Any],
) -> dict[str, str]:
    """Write the tables and the report; return the answers."""
    records = result.records()
    write_table(records, out / TABLE)
    files = {str(out / TABLE): "all figures: a line for each run, sampler and figure"}
    try:
        write_table(records, out / PARQUET)
        files[str(out / PARQUET)] = "the same as a Parquet file"
    except ConfigurationError:  # pandas or pyarrow is not installed
        (out / PARQUET).unlink(missing_ok=True)
    files[str(out / "rows")] = "the finished runs, from which the command continues"
    command = (
        f"chartae benchmark {shlex.quote(str(data))} --config {shlex.quote(str(out / RECORD))}"
    )
    return write_benchmark_report(
        out / REPORT,
        result,
        splits,
        title=f"Benchmark of {data.name}",
        facts={"Data": str(data)},
        settings=options,
        command=command,
        files=files,
    )


def tell(state: Progress, advance: Callable[..., None]) -> None:
    """Show the state of a table of runs."""
    failed = f", {state.failed} failed" if state.failed else ""
    advance(state.done, state.total, state.seconds_left, failed)


def missing(count: int, what: str) -> list[str]:
    """Return a line about runs without figures; none if there are none."""
    if not count:
        return []
    return [f"{count} {'run' if count == 1 else 'runs'} {what}; see the report"]


def _print_row(result: BenchmarkResult) -> None:
    (done,) = result.table
    print_lines(
        json.dumps(
            done.to_json()["figures"] if not done.failed else {"error": done.error}, indent=1
        )
    )


def _integers(name: str, text: str | None) -> Sequence[int | None]:
    parts = listed(name, text)
    if parts is None:
        return [None]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigurationError(f"{name}={text!r}: expected numbers of at least 1, as in 8,16")
    return [int(part) for part in parts]


def _matching(source: ArrayDataset, path: Path | None, options: DataOptions) -> ArrayDataset | None:
    """Return the test set with the classes of the data, or None."""
    if path is None:
        return None
    found = options.read(path)
    if not source.class_names or found.y is None or found.class_names == source.class_names:
        return found
    for name in found.class_names:
        check_choice("the class in test", name, source.class_names)
    names = [found.class_names[int(label)] for label in found.y]
    return ArrayDataset.from_arrays(found.x, names, class_names=source.class_names)
