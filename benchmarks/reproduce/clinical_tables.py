"""How well are the last visits of held-out individuals predicted from the earlier ones?

Three public tables of follow-ups: `pbc2.csv` (primary biliary cirrhosis, 7 blood scores),
`aids.csv` (square root of CD4 counts) and `oasis_longitudinal.csv` (ageing and dementia, 4 scores).
The individuals are divided into 5 folds. Each fold is held out once: models are trained on all
visits of the others. Of each held-out individual with enough visits, the last visit is hidden, and
predicted from the earlier ones at its time. The table has, for each score,

* mae: the mean absolute error of the predicted median, in the unit of the score named in `TABLES`
  (logarithms for skewed scores);
* cover, width: how often the value is inside the 90 % interval, and the mean width of it;
* against lvcf, against lmm: the mean difference of the absolute error to these two methods, with
  its standard error over individuals. Negative is better.

Methods:

* ``lvcf``: the last value is carried forward. Its interval comes from the differences between the
  last two values of the training individuals.
* ``lmm``: a linear mixed model for each score (statsmodels, REML), with a random intercept and a
  random slope in time, fitted on the training individuals. The prediction for a held-out individual
  is its best linear unbiased one from its earlier visits; the interval includes the uncertainty of
  the random effects, of the fixed effects, and the noise.
* ``leaspy``: its linear model for each score (`leaspy_predictions.py`), in an environment of its
  own; points only.
* the others are chartae's: see `MODELS`. The model of waves has a linear decoder and a flow of
  rotations, so that its posterior is exact; ``each score`` trains one for each score.

    python benchmarks/reproduce/clinical_tables.py FOLDER [--methods lvcf lmm ...] [--tables pbc2]
        [--out clinical.jsonl] [--quick]

MMSE and CDR take few values: the quantiles of all methods are rounded to the nearest one, which
are the quantiles of the rounded distribution.

The linear mixed model needs statsmodels, of the extra `bench`.

FOLDER has the tables. Rows that are in the output already are not computed again.
"""

import argparse
import json
import math
import subprocess
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

import chartae
from chartae.atomic import atomic_path
from chartae.data import Sequences, read_sequences
from chartae.longitudinal import FlowVAE, SequenceModel, TrajectoryVAE

FOLDS = 5
DRAWS = 1000
INTERVAL = (0.05, 0.95)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """How a table is read.

    Args:
        file: its name.
        individual: the column of individuals.
        time: the column of times.
        scores: columns, and what is done to each.
        earlier: how many visits an individual needs before the last one.
        unit: what times are divided by.
        values: the values of scores that take few; quantiles are rounded to them.
    """

    file: str
    individual: str
    time: str
    scores: dict[str, Callable[[Any], Any]]
    earlier: int
    unit: float = 1.0
    values: dict[str, Floats] = field(default_factory=dict)

    def read(self, folder: Path) -> Sequences:
        frame = pd.read_csv(folder / self.file)
        new = pd.DataFrame({"individual": frame[self.individual].astype(str)})
        new["time"] = frame[self.time] / self.unit
        for name, change in self.scores.items():
            new[name] = change(frame[name].astype(float))
        return read_sequences(new)


def same(x: Any) -> Any:
    return x


TABLES = {
    "pbc2": Table(
        "pbc2.csv",
        "id",
        "year",
        {
            "serBilir": np.log,
            "serChol": same,
            "albumin": same,
            "alkaline": np.log,
            "SGOT": np.log,
            "platelets": same,
            "prothrombin": np.log,
        },
        earlier=2,
    ),
    # The file has square roots of counts.
    "aids": Table("aids.csv", "patient", "obstime", {"CD4": same}, earlier=2),
    "oasis": Table(
        "oasis_longitudinal.csv",
        "Subject ID",
        "MR Delay",
        {"MMSE": same, "CDR": same, "eTIV": same, "nWBV": same},
        earlier=1,
        unit=365.25,
        values={"MMSE": np.arange(31.0), "CDR": np.array([0.0, 0.5, 1.0, 2.0, 3.0])},
    ),
}


class Prediction(NamedTuple):
    """Median and interval of each score of the last visit of held-out individuals, ``(n, D)``."""

    median: Floats
    low: Floats
    high: Floats


class Task(NamedTuple):
    """One fold: whole training individuals, and held-out ones with their last visit hidden.

    Attributes:
        train: the training individuals.
        seen: the held-out individuals without their last visit.
        when: ``(n,)``, the times of the last visits.
        target: ``(n, D)``, the scores there, NaN where missing.
    """

    train: Sequences
    seen: Sequences
    when: Floats
    target: Floats


def make_task(data: Sequences, fold: int, earlier: int) -> Task:
    """Return one of the folds."""
    order = np.random.default_rng(0).permutation(len(data))
    held = np.zeros(len(data), bool)
    held[order[fold::FOLDS]] = True
    test = data.subset(np.flatnonzero(held))
    test = test.subset(np.flatnonzero(test.num_visits.numpy() > earlier))
    last = test.num_visits - 1
    rows = torch.arange(len(test))
    target = torch.where(test.known, test.x, torch.nan)[rows, last].numpy()
    when = test.times[rows, last].numpy()
    x, times, _ = arrays(test)
    x[rows, last], times[rows, last] = np.nan, np.nan
    keep = np.isfinite(x).any((1, 2))
    seen = Sequences(
        x[keep], times=times[keep], mask=np.isfinite(x[keep]), ids=np.array(test.ids)[keep]
    )
    return Task(data.subset(np.flatnonzero(~held)), seen, when[keep], target[keep])


def arrays(data: Sequences) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Return the scores ``(N, T, D)`` and times ``(N, T)``, NaN where not observed, and a mask."""
    known = data.known.numpy()
    x = np.where(known, data.x.numpy(), np.nan)
    times = np.where(data.observed.numpy(), data.times.numpy(), np.nan)
    return x, times, known


# --- methods beside chartae's --------------------------------------------------------------------


def carried_forward(task: Task) -> Prediction:
    """Return the last value of each score; the mean of the training set where there is none."""
    x, _, _ = arrays(task.seen)
    own, _, known = arrays(task.train)
    median, low, high = (np.empty_like(task.target) for _ in range(3))
    for score in range(x.shape[2]):
        mean = np.nanmean(own[..., score])
        changes = [np.diff(row[seen])[-1:] for row, seen in of_score(own, known, score)]
        changes = np.concatenate(changes)
        steps = np.quantile(changes - np.median(changes), INTERVAL)
        for i, row in enumerate(x[..., score]):
            values = row[np.isfinite(row)]
            median[i, score] = values[-1] if len(values) else mean
        low[:, score], high[:, score] = (median[:, score] + step for step in steps)
    return Prediction(median, low, high)


def of_score(
    x: Floats, known: NDArray[np.bool_], score: int
) -> Iterator[tuple[Floats, NDArray[np.bool_]]]:
    """Yield the values of one score of each individual with two or more, and where they are."""
    for row, seen in zip(x[..., score], known[..., score], strict=True):
        if seen.sum() > 1:
            yield row, seen


def mixed_model(task: Task) -> Prediction:
    """Return predictions of a linear mixed model for each score, with its own units of time."""
    from statsmodels.regression.mixed_linear_model import MixedLM

    x, times, known = arrays(task.train)
    center, scale = np.nanmean(times), np.nanstd(times)
    design = np.stack([np.ones_like(times), (times - center) / scale], -1)
    seen_x, seen_times, seen_known = arrays(task.seen)
    seen_design = np.stack([np.ones_like(seen_times), (seen_times - center) / scale], -1)
    at = np.stack([np.ones_like(task.when), (task.when - center) / scale], -1)
    owner = np.broadcast_to(np.arange(len(x))[:, None], times.shape)
    median, half = np.empty_like(task.target), np.empty_like(task.target)
    for score in range(x.shape[2]):
        seen, unit = known[..., score], np.nanstd(x[..., score])
        rows = design[seen]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = MixedLM(x[seen][:, score] / unit, rows, owner[seen], exog_re=rows)
            found = model.fit(reml=True, method=["lbfgs", "bfgs", "powell"])
        fixed, noise = np.asarray(found.fe_params), float(found.scale)
        spread, doubt = np.asarray(found.cov_re), np.asarray(found.cov_params())[:2, :2]
        for i, observed in enumerate(seen_known[..., score]):
            z, y = seen_design[i, observed], seen_x[i, observed, score] / unit
            inside = np.linalg.inv(z @ spread @ z.T + noise * np.eye(len(z)))
            gain = spread @ z.T @ inside
            effect = gain @ (y - z @ fixed)
            rest = spread - gain @ z @ spread
            lever = at[i] @ (np.eye(2) - gain @ z)
            variance = at[i] @ rest @ at[i] + noise + lever @ doubt @ lever
            median[i, score] = unit * (at[i] @ (fixed + effect))
            half[i, score] = unit * 1.6448536 * math.sqrt(variance)
    return Prediction(median, median - half, median + half)


def leaspy(task: Task, args: Any) -> Prediction:
    """Return predictions of leaspy for each score, without intervals."""
    x, times, known = arrays(task.train)
    seen_x, seen_times, seen_known = arrays(task.seen)
    scores, rows = [], []
    for score in range(x.shape[2]):
        parts = [
            [
                [int(i), float(t[i, j]), float(v[i, j, score])]
                for i, j in zip(*k[..., score].nonzero(), strict=True)
            ]
            for v, t, k in ((x, times, known), (seen_x, seen_times, seen_known))
        ]
        members = sorted({row[0] for row in parts[1]})
        wanted = [[i, float(task.when[i])] for i in members]
        scores.append({"train": parts[0], "seen": parts[1], "wanted": wanted})
        rows.append(members)
    given = json.dumps({"scores": scores, "iterations": args.iterations})
    script = Path(__file__).with_name("leaspy_predictions.py")
    command = [args.leaspy, str(script)]
    run = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
    median = np.broadcast_to(np.nanmean(x, (0, 1)), task.target.shape).copy()
    for score, (members, values) in enumerate(zip(rows, json.loads(run.stdout), strict=True)):
        median[members, score] = values
    nothing = np.full_like(median, np.nan)
    return Prediction(median, nothing, nothing)


# --- chartae's methods ----------------------------------------------------------------------------

LINEAR: dict[str, Any] = {
    "decoder": {"name": "mlp", "hidden": []},
    "likelihood": {"name": "gaussian", "scale": "per_feature"},
}
WAVES: dict[str, Any] = {"flow": "rotation", "inference": "laplace", **LINEAR}
LINE: dict[str, Any] = {**WAVES, "flow": {"name": "rotation", "lines": 1}}
MODELS: dict[str, Callable[[int], SequenceModel]] = {
    "flowvae": lambda size: FlowVAE((size,), 8, likelihood=LINEAR["likelihood"]),
    "flowvae, waves": lambda size: FlowVAE((size,), 12 if size > 1 else 8, **WAVES),
    "flowvae, waves and a line": lambda size: FlowVAE((size,), 12 if size > 1 else 8, **LINE),
    "trajectoryvae": lambda size: TrajectoryVAE((size,), 4, likelihood=LINEAR["likelihood"]),
}


def predicted(name: str, task: Task, args: Any, seed: int = 0) -> Prediction:
    """Return predictions of a model of `MODELS`, trained on all scores together."""
    torch.manual_seed(seed)
    model = MODELS[name](task.train.x.shape[-1])
    common: dict[str, Any] = {"epochs": args.epochs, "seed": seed, "progress": False}
    if "waves" in name:  # few parameters, an exact likelihood: all individuals, in one batch
        chartae.fit(model, task.train, batch_size=len(task.train), learning_rate=2e-2, **common)
    else:
        train, validation = task.train.split((0.85, 0.15), seed=seed)
        common |= {"patience": 40, "batch_size": 64, "learning_rate": 2e-3}
        chartae.fit(model, train, validation, **common)
    draws = model.futures(task.seen, task.when[:, None], DRAWS, noise=True, seed=seed)
    low, median, high = (np.asarray(draws.quantile(q))[:, 0] for q in (0.05, 0.5, 0.95))
    return Prediction(median, low, high)


def each_score(name: str, task: Task, args: Any) -> Prediction:
    """Return predictions of a model of `MODELS`, trained on each score alone."""
    found = []
    for score in range(task.target.shape[1]):
        train, seen = (of_one(part, score) for part in (task.train, task.seen))
        rows = np.array([task.seen.ids.index(i) for i in seen.ids])
        part = Task(train, seen, task.when[rows], task.target[rows, score : score + 1])
        whole = np.full((3, len(task.when), 1), np.nan)
        whole[:, rows] = np.stack(predicted(name, part, args))
        mean = float(train.x[train.known].mean())
        whole[:, ~np.isin(np.arange(len(task.when)), rows)] = mean
        found.append(whole)
    return Prediction(*np.concatenate(found, -1))


def of_one(data: Sequences, score: int) -> Sequences:
    """Return the individuals with one of the scores, without those who have no value of it."""
    x, times, _ = arrays(data)
    x = x[..., score : score + 1]
    keep = np.isfinite(x).any((1, 2))
    ids = np.array(data.ids)[keep]
    return Sequences(x[keep], times=times[keep], mask=np.isfinite(x[keep]), ids=ids)


def predict(method: str, task: Task, args: Any) -> Prediction:
    if method == "lvcf":
        return carried_forward(task)
    if method == "lmm":
        return mixed_model(task)
    if method == "leaspy":
        return leaspy(task, args)
    name = method.removesuffix(", each score")
    return predicted(name, task, args) if name == method else each_score(name, task, args)


METHODS = [
    *("lvcf", "lmm", "leaspy", *MODELS),
    *("flowvae, waves, each score", "flowvae, waves and a line, each score"),
]


# --- the table ------------------------------------------------------------------------------------


def rows_of(path: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    rows = map(json.loads, lines)
    return {(row["table"], row["method"], row["fold"]): row for row in rows}


def nearest(values: Floats, x: Floats) -> Floats:
    """Return the nearest of the values to each number ``(n,)``; NaN stays NaN."""
    found = values[np.abs(np.nan_to_num(x)[:, None] - values).argmin(1)]
    return np.where(np.isnan(x), np.nan, found)


def report(rows: dict[tuple[str, str, int], dict[str, Any]], table: str, folds: int) -> None:
    """Print the figures of a table, of the methods that have all of the folds."""
    methods = [
        method for method in METHODS if all((table, method, fold) in rows for fold in range(folds))
    ]

    def stacked(method: str, what: str) -> Floats:
        parts = [rows[table, method, fold][what] for fold in range(folds)]
        return np.concatenate([np.array(part, float) for part in parts])

    for index, score in enumerate(TABLES[table].scores):
        print(f"{table} {score}")
        errors = {}
        for method in methods:
            target, median, low, high = (
                stacked(method, what)[:, index] for what in ("target", "median", "low", "high")
            )
            known = np.isfinite(target)
            if score in TABLES[table].values:
                values = TABLES[table].values[score]
                median, low, high = (nearest(values, part) for part in (median, low, high))
            errors[method] = np.abs(median - target)[known]
            interval = ""
            if np.isfinite(low).any():
                inside = ((low <= target) & (target <= high))[known].mean()
                interval = f"  cover {inside:.0%}  width {np.nanmean((high - low)[known]):.3g}"
            versus = [
                f"{(d := errors[method] - errors[base]).mean() / errors[base].mean():+7.1%} "
                f"({d.std() / len(d) ** 0.5 / errors[base].mean():.1%})"
                for base in ("lvcf", "lmm")
                if base in errors
            ]
            print(
                f"  {method:28s} mae {errors[method].mean():.4g}{interval}"
                f"  against lvcf, lmm: {'  '.join(versus)}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with the tables")
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=TABLES)
    usual = [method for method in METHODS if method != "leaspy"]
    parser.add_argument("--methods", nargs="+", default=usual, choices=METHODS)
    parser.add_argument("--folds", type=int, default=FOLDS, help="how many of the folds are run")
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("clinical.jsonl"))
    parser.add_argument("--leaspy", help="the Python of an environment with leaspy 2.1")
    parser.add_argument("--iterations", type=int, default=1000, help="of leaspy's MCMC-SAEM")
    parser.add_argument("--quick", action="store_true", help="one fold, 20 epochs")
    args = parser.parse_args()
    if args.quick:
        args.folds, args.epochs = 1, 20
    for table in args.tables:
        data = TABLES[table].read(args.folder)
        for fold in range(args.folds):
            task = make_task(data, fold, TABLES[table].earlier)
            for method in args.methods:
                rows = rows_of(args.out)
                if (table, method, fold) in rows:
                    continue
                found = predict(method, task, args)._asdict() | {"target": task.target}
                row = {"table": table, "method": method, "fold": fold, "epochs": args.epochs}
                row |= {name: np.round(value, 6).tolist() for name, value in found.items()}
                rows[table, method, fold] = row
                with atomic_path(args.out) as path:
                    path.write_text("\n".join(map(json.dumps, rows.values())), "utf-8")
        report(rows_of(args.out), table, args.folds)


if __name__ == "__main__":
    main()
