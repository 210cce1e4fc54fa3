"""How well are the last visits of held-out individuals predicted from the earlier ones?

Three public tables of follow-ups: `pbc2.csv` (primary biliary cirrhosis, 7 blood scores), `aids.csv`
(square root of CD4 counts) and `oasis_longitudinal.csv` (ageing and dementia, 4 scores). The
individuals are divided into 5 folds. Each fold is held out once: models are trained on all visits
of the others. Of each held-out individual with enough visits, the last visit is hidden, and
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
* ``leaspy``: see `clinical_leaspy.py`, which runs in an environment of its own.
* the others are chartae's: see `MODELS`.

    python benchmarks/reproduce/clinical_tables.py FOLDER [--methods lvcf lmm ...] [--tables pbc2]
        [--out clinical.jsonl] [--quick]

FOLDER has the tables. Rows that are in the output already are not computed again.
"""

import argparse
import json
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

import chartae
from chartae.atomic import atomic_path
from chartae.data import Sequences, read_sequences

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
    """

    file: str
    individual: str
    time: str
    scores: dict[str, Callable[[Any], Any]]
    earlier: int
    unit: float = 1.0

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
