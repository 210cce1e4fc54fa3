"""Predictions of leaspy, for `clinical_tables.py`; run by the Python of an environment of its own.

It reads a JSON object from standard input: for each score of a table the visits of training and of
held-out individuals, ``[individual, time, value]``, and the times wanted. It writes the predicted
values. The model is leaspy's linear one of one feature: the individual's speed, time shift and the
population's line, fitted by MCMC-SAEM. It expects scores that grow, so a score whose mean slope is
negative is turned round.

    python -m venv leaspy-env && leaspy-env/bin/pip install leaspy==2.1.0
    python benchmarks/reproduce/clinical_tables.py DATA --methods lvcf lmm leaspy \
        --leaspy leaspy-env/bin/python
"""

import json
import sys
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import pandas as pd


def predict(task: dict[str, Any], iterations: int) -> list[float]:
    """Return the predictions of one score."""
    from leaspy.io.data import Data
    from leaspy.models import LinearModel

    train, seen = (
        pd.DataFrame(task[name], columns=["ID", "TIME", "score"]).astype({"ID": str})
        for name in ("train", "seen")
    )
    slopes = [
        np.polyfit(part["TIME"], part["score"], 1)[0]
        for _, part in train.groupby("ID")
        if part["TIME"].nunique() > 1
    ]
    sign = -1.0 if np.mean(slopes) < 0.0 else 1.0
    center, scale = train["score"].mean(), train["score"].std()
    for frame in (train, seen):
        frame["score"] = sign * (frame["score"] - center) / scale
    model = LinearModel("linear", dimension=1, source_dimension=0)
    with redirect_stdout(sys.stderr):
        model.fit(
            Data.from_dataframe(train), "mcmc_saem", n_iter=iterations, seed=0, progress_bar=False
        )
        persons = model.personalize(
            Data.from_dataframe(seen), "scipy_minimize", seed=0, progress_bar=False
        )
    wanted = {str(name): [time] for name, time in task["wanted"]}
    found = model.estimate(wanted, persons)
    return [
        center + sign * scale * float(np.ravel(found[str(name)])[0]) for name, _ in task["wanted"]
    ]


def main() -> None:
    given = json.load(sys.stdin)
    json.dump([predict(task, given["iterations"]) for task in given["scores"]], sys.stdout)


if __name__ == "__main__":
    main()
