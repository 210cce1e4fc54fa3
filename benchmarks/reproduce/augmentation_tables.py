"""Tables 1.2, 1.3, 2.2, 2.3 and 3.2 of the thesis: does augmentation help, on its data sets?

Each set is drawn as the thesis does: some examples of each class, a fifth of them for validation,
the official test set. Generators see the training examples only. Beside the thesis' classifiers
stand a regularised network with classic transforms, and classic transforms as a method. Omniglot
stands in for EMNIST, and chest radiographs for OASIS, which are not at hand. Runs are kept in the
folder: the same command goes on after an interruption.

The thesis stops a DenseNet after 50 epochs without progress. An epoch of 10,000 synthetic examples
has 25 times the steps of one of 400 real examples, so real data alone get far less training.
``--patience-steps`` gives all training sets the same patience in steps.

    python benchmarks/reproduce/augmentation_tables.py DATA --out FOLDER --sets mnist
    python benchmarks/reproduce/augmentation_tables.py DATA --out FOLDER --sets mnist \\
        --classifiers DenseNet --repeats 5 --numbers 200 1000 --patience-steps 400
"""

import argparse
import logging
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from chartae.augmentation import (
    CLASSIFIERS,
    METHODS,
    REAL,
    Classifier,
    Method,
    NetworkClassifier,
    StudyResult,
    augmentation_study,
    make_method,
)
from chartae.data import ArrayDataset

Arrays = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
DEFAULT = ["transforms", "smote", "vae+normal", "vae+mixture", "rhvae+volume"]
CLASSIC = ["logistic regression", "MLP", "k-NN", "random forest", "RBF SVM", "CNN", "strong CNN"]


class Set(NamedTuple):
    """A data set of the thesis."""

    read: Callable[[Path], tuple[Arrays, Arrays]]
    per_class: dict[str, int]
    """Training examples of each class; validation examples are drawn in addition."""
    real: float
    """Accuracy of the thesis' DenseNet on real data alone, Table 1.3; NaN if it has none."""
    gain: float
    """Its gain with real and 1,000 synthetic examples per class, in points."""


def images(name: str, classes: list[int] | None = None) -> Callable[[Path], tuple[Arrays, Arrays]]:
    """Return a reader of the training and the test set of a file."""

    def read(folder: Path) -> tuple[Arrays, Arrays]:
        with np.load(folder / f"{name}.npz", allow_pickle=False) as archive:
            parts = []
            for part in ("train", "test"):
                x, y = archive[f"x_{part}"], archive[f"y_{part}"]
                kept = np.isin(y, np.unique(y) if classes is None else classes)
                x = np.moveaxis(x[kept], -1, 1) if x.ndim == 4 else x[kept]
                parts.append((x, y[kept]))
        return parts[0], parts[1]

    return read


def omniglot(folder: Path) -> tuple[Arrays, Arrays]:
    """Return ten characters of the Latin alphabet: ten drawers for training, ten for testing."""
    with np.load(folder / "omniglot_28.npz", allow_pickle=False) as archive:
        latin = list(archive["alphabet_names"]).index("Latin")
        kept = (archive["alphabet"] == latin) & (archive["character"] < 10)
        x, y = 255 * archive["x"][kept], archive["character"][kept]
        first = archive["drawer"][kept] <= 13
    return (x[first], y[first]), (x[~first], y[~first])


SIZES = [76, 9, 62, 24, 55, 15, 70, 31, 48, 10]
"""A random split of 400 examples over ten classes, some of them small."""
SETS = {
    "mnist": Set(images("mnist"), {str(k): 40 for k in range(10)}, 89.9, 3.3),
    "mnist-unbalanced": Set(images("mnist"), {str(k): n for k, n in enumerate(SIZES)}, 81.5, 8.2),
    "fashion": Set(images("fashion_mnist", [0, 3, 6]), dict.fromkeys("036", 80), 76.0, 4.2),
    "cifar": Set(images("cifar10_12k", [3, 5, 7]), dict.fromkeys("357", 40), 42.6, 6.6),
    "omniglot": Set(omniglot, {str(k): 10 for k in range(10)}, math.nan, math.nan),
    "pneumonia": Set(images("pneumonia_mnist"), {"0": 20, "1": 60}, math.nan, math.nan),
}


class StepsClassifier(NetworkClassifier):
    """A DenseNet whose training stops after so many steps, not epochs, without progress."""

    def __init__(self, patience_steps: int, precision: str | None, random_state: int = 0) -> None:
        super().__init__("densenet", batch_size=50, precision=precision, random_state=random_state)
        self.patience_steps = patience_steps

    def fit(self, x: np.ndarray[Any, Any], *others: Any, **options: Any) -> "StepsClassifier":
        steps_per_epoch = math.ceil(len(x) / self.batch_size)
        self.patience = max(3, self.patience_steps // steps_per_epoch)
        self.epochs = max(6, 20 * self.patience_steps // steps_per_epoch)
        super().fit(x, *others, **options)
        return self


def classifiers(arguments: argparse.Namespace) -> dict[str, Classifier]:
    """Return the classifiers of a run by name."""
    found = {key: CLASSIFIERS[key] for key in arguments.classifiers}
    if arguments.patience_steps is not None and "DenseNet" in found:
        make = partial(StepsClassifier, arguments.patience_steps, arguments.precision)
        found["DenseNet"] = Classifier(make, network=True)
    return found


def run(name: str, arguments: argparse.Namespace) -> StudyResult:
    """Return the study of one set."""
    (x, y), (x_test, y_test) = SETS[name].read(arguments.data)
    test = ArrayDataset.from_arrays(x_test, y_test)
    options = {} if arguments.epochs is None else {"fit_options": {"epochs": arguments.epochs}}
    methods: dict[str, Method] = {
        method: make_method(method, **({} if method in METHODS else options))
        for method in arguments.methods
    }
    return augmentation_study(
        x,
        y,
        test.subset(np.arange(len(test))[:: max(1, len(test) // arguments.most_test)]),
        methods=methods,
        classifiers=classifiers(arguments),
        per_class=SETS[name].per_class,
        synthetic=arguments.numbers,
        real_share=None if arguments.no_weights else 0.5,
        repeats=arguments.repeats,
        workers=arguments.workers,
        folder=arguments.out / name,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with mnist.npz, fashion_mnist.npz, ...")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="*", choices=SETS, default=list(SETS))
    parser.add_argument("--methods", nargs="*", default=DEFAULT)
    parser.add_argument("--classifiers", nargs="*", choices=CLASSIFIERS, default=CLASSIC)
    parser.add_argument("--numbers", nargs="*", default=["200"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="of the generators")
    parser.add_argument("--patience-steps", type=int, help="of the DenseNet, with batches of 50")
    parser.add_argument("--precision", choices=["bf16-mixed"], help="of the DenseNet")
    parser.add_argument("--most-test", type=int, default=10_000)
    parser.add_argument(
        "--no-weights", action="store_true", help="pool all examples, as the thesis"
    )
    parser.add_argument("--workers", type=int)
    arguments = parser.parse_args()
    logging.getLogger("chartae").setLevel(logging.ERROR)
    for name in arguments.sets:
        started = perf_counter()
        result = run(name, arguments)
        print(f"\n## {name}, {perf_counter() - started:.0f} s\n\n{result.to_markdown()}")
        thesis = SETS[name]
        if not math.isnan(thesis.real):
            print(f"Thesis: DenseNet {thesis.real} %, with 1k samples {thesis.gain:+.1f} points.")
        for row in result.training_sets:
            if row != REAL and result.uses_model(row):
                found = [str(result.compare(row, c)) for c in result.classifiers]
                print(f"{row}: {dict(zip(result.classifiers, found, strict=True))}")
        for question, answer in result.verdict().items():
            print(f"* **{question}** {answer}")
        (arguments.out / f"{name}.json").write_text(result.to_json())


if __name__ == "__main__":
    main()
