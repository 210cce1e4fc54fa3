"""Does over-sampling of a rare class help classifiers? Three tables that scikit-learn ships.

Each draw of a table has few training rows of one class and many of the rest; all other rows are
held out:

* cancer: `load_breast_cancer`, 30 malignant and 200 benign rows, 30 columns;
* wine: `load_wine`, 20 rows of the second cultivar and 65 of the others, 13 columns;
* digits: `load_digits`, 50 eights and 700 other digits, 64 columns.

Every method balances the training rows. Logistic regression (of standardised columns) and gradient
boosting, with the default settings of scikit-learn, are then trained on them. The figures are
balanced accuracy (at a probability of one half) and area under the ROC curve on the held-out rows,
in percent. The last table has differences from `ManifoldOverSampler()`, paired over the draws,
averaged over the tables, with 95 % intervals.

    python benchmarks/reproduce/imbalance.py --folder runs [--draws 15] [--methods none SMOTE ...]

Runs that are in the folder already are not computed again. The default was chosen on other draws.
"""

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from imblearn.over_sampling import ADASYN, SMOTE, RandomOverSampler
from numpy.typing import NDArray
from scipy.stats import t
from sklearn.covariance import LedoitWolf
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from chartae import Augmenter, ManifoldOverSampler
from chartae.augmentation.oversampler import TABLES as DEFAULT
from chartae.runs import Outcome, RunTable, execute

Array = NDArray[Any]
FIRST_DRAW = 10
TABLES = {
    "cancer": (load_breast_cancer, 0, 30, 200),
    "wine": (load_wine, 1, 20, 65),
    "digits": (load_digits, 8, 50, 700),
}
"""The loader, the rare class, and the numbers of training rows of this class and of the rest."""
FIGURES = ("LR accuracy", "LR AUC", "GB accuracy", "GB AUC")


def gaussian(x: Array, y: Array, seed: int) -> tuple[Array, Array]:
    """Balance by draws from a Gaussian with the shrunk covariance of the rare class."""
    rare = x[y == 1]
    units = StandardScaler().fit(rare)
    found = LedoitWolf().fit(units.transform(rare))
    count = int((y == 0).sum() - len(rare))
    draws = np.random.default_rng(seed).multivariate_normal(
        found.location_, found.covariance_, count
    )
    return np.concatenate([x, units.inverse_transform(draws)]), np.append(y, np.ones(count, int))


def by(make: Callable[..., Any], x: Array, y: Array, seed: int) -> tuple[Array, Array]:
    """Balance by an over-sampler with the interface of imbalanced-learn."""
    x_all, y_all = make(random_state=seed).fit_resample(x, y)
    return x_all, y_all


def _ours(**changes: Any) -> Callable[..., tuple[Array, Array]]:
    options = {**DEFAULT, **changes}
    return partial(by, partial(ManifoldOverSampler, augmenter=Augmenter(**options)))


METHODS: dict[str, Callable[[Array, Array, int], tuple[Array, Array]] | None] = {
    "none": None,
    "class weights": None,
    "random": partial(by, RandomOverSampler),
    "random with noise": partial(by, partial(RandomOverSampler, shrinkage=1.0)),
    "SMOTE": partial(by, SMOTE),
    "ADASYN": partial(by, ADASYN),
    "one Gaussian": gaussian,
    "ManifoldOverSampler()": partial(by, ManifoldOverSampler),
    "VAE, mixture": _ours(sampler="mixture"),
    "conditional VAE": _ours(conditional=True),
    "RHVAE": _ours(model="rhvae"),
}


def split(name: str, draw: int) -> tuple[Array, Array, Array, Array]:
    """Return training rows and their labels, 1 for the rare class, and the held-out ones."""
    load, rare, few, many = TABLES[name]
    x, y = load(return_X_y=True)
    y = (y == rare).astype(int)
    random = np.random.default_rng(draw)
    ours, others = (random.permutation(np.flatnonzero(y == label)) for label in (1, 0))
    train, test = np.r_[ours[:few], others[:many]], np.r_[ours[few:], others[many:]]
    return x[train], y[train], x[test], y[test]


def score(settings: dict[str, Any], shared: object, attempt: int) -> Outcome:
    """Return the figures of one method on one draw of a table."""
    x, y, x_test, y_test = split(settings["table"], settings["draw"])
    method, name = METHODS[settings["method"]], settings["method"]
    started = time.process_time()
    if method is not None:
        x, y = method(x, y, settings["draw"])
    seconds = time.process_time() - started
    weight = compute_sample_weight("balanced", y) if name == "class weights" else None
    units = StandardScaler().fit(x)
    figures = []
    for classifier in (
        LogisticRegression(max_iter=5000),
        GradientBoostingClassifier(random_state=settings["draw"]),
    ):
        classifier.fit(units.transform(x), y, sample_weight=weight)
        found = classifier.predict_proba(units.transform(x_test))[:, 1]
        figures += [balanced_accuracy_score(y_test, found > 0.5), roc_auc_score(y_test, found)]
    return Outcome({**dict(zip(FIGURES, figures, strict=True)), "seconds": seconds})


def show(table: RunTable, methods: list[str]) -> None:
    """Print the figures of each table, and the paired differences, in Markdown."""
    found = {
        (row.settings["method"], row.settings["table"], row.settings["draw"]): row.figures
        for row in table
    }
    draws = sorted({draw for _, _, draw in found})

    def values(method: str, name: str, figure: str) -> list[float]:
        return [100.0 * found[method, name, draw][figure] for draw in draws]

    for name in TABLES:
        print(f"\n| {name} | {' | '.join(FIGURES)} | seconds |\n|---|{'---:|' * 5}")
        for method in methods:
            cells = [values(method, name, figure) for figure in FIGURES]
            texts = [f"{statistics.mean(c):.1f} ± {statistics.stdev(c):.1f}" for c in cells]
            spent = statistics.mean(found[method, name, draw]["seconds"] for draw in draws)
            print(f"| {method} | {' | '.join(texts)} | {spent:.1f} |")
    if "ManifoldOverSampler()" not in methods:
        return
    print(f"\n| difference from | {' | '.join(FIGURES)} |\n|---|{'---:|' * 4}")
    factor = t.ppf(0.975, len(draws) - 1) / math.sqrt(len(draws))
    for method in methods:
        if method == "ManifoldOverSampler()":
            continue
        cells = []
        for figure in FIGURES:
            pairs = [
                np.subtract(
                    values("ManifoldOverSampler()", name, figure), values(method, name, figure)
                )
                for name in TABLES
            ]
            over = np.mean(pairs, 0)
            cells.append(f"{over.mean():+.1f} ± {factor * over.std(ddof=1):.1f}")
        print(f"| {method} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--folder", default="imbalance-runs", help="where finished runs are kept")
    parser.add_argument("--draws", type=int, default=15)
    parser.add_argument("--first", type=int, default=FIRST_DRAW, help="number of the first draw")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    settings = [
        {"table": name, "draw": draw, "method": method}
        for draw in range(options.first, options.first + options.draws)
        for name in TABLES
        for method in options.methods
    ]
    table = execute(
        score,
        settings,
        folder=options.folder,
        context={"version": 1},
        jobs=options.jobs,
        strict=True,
    )
    show(table, options.methods)


if __name__ == "__main__":
    main()
