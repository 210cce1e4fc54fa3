"""The runs of a study: a synthetic set, tuned hyper-parameters, the scores of one training set."""

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from chartae.augmentation.classifiers import Classifier, fit_classifier, scores_of
from chartae.augmentation.draws import Draw
from chartae.augmentation.imputation import examples_of_classes, imputed, typical_values
from chartae.augmentation.methods import Method
from chartae.data import ArrayDataset
from chartae.data.arrays import as_tensor
from chartae.errors import DataError
from chartae.evaluation.classification import classification_figures
from chartae.evaluation.fidelity import precision_recall
from chartae.evaluation.memorisation import copies, membership_auc, nearest_distance_ratio
from chartae.randomness import derive_seed
from chartae.runs import Outcome

__all__ = [
    "SYNTHETIC",
    "Inputs",
    "class_indices",
    "generate",
    "numbers_by_class",
    "read_arrays",
    "score",
    "trained",
    "tune",
    "typical_of",
]

Array = NDArray[Any]
Predict = Callable[[Array], tuple[Array, Array | None]]
SYNTHETIC = "synthetic.npz"
"""The file of a run with the synthetic set of a method."""
COMPARED = 1000
"""Largest number of samples whose fidelity and memorisation are measured."""


@dataclass(frozen=True)
class Inputs:
    """What all runs of a study read.

    Attributes:
        pool: labelled observations.
        tests: test sets and cohorts by name; ``"test"`` is missing if each draw has its own.
        draws: rows of the training, the validation and the test set of each repeat.
        typical: for each repeat, the `typical_values` of the training set; empty if no value is
            missing.
        synthetic: for each repeat, the synthetic sets by method: arrays, or the file with them.
    """

    pool: ArrayDataset
    tests: Mapping[str, ArrayDataset]
    draws: Sequence[Draw]
    methods: Mapping[str, Method]
    classifiers: Mapping[str, Classifier]
    real_share: float | None
    typical: Sequence[Array] = ()
    synthetic: Sequence[Mapping[str, Path | tuple[Array, Array]]] = ()

    @property
    def y(self) -> Array:
        return class_indices(self.pool)

    @property
    def num_classes(self) -> int:
        return int(self.y.max()) + 1

    def train(self, repeat: int) -> tuple[Array, Array]:
        return self._complete(repeat, self.train_data(repeat))

    def train_data(self, repeat: int) -> ArrayDataset:
        """Return the training set with its mask."""
        return self.pool.subset(self.draws[repeat].train)

    def validation(self, repeat: int) -> tuple[Array, Array]:
        return self._complete(repeat, self.pool.subset(self.draws[repeat].validation))

    def _complete(self, repeat: int, data: ArrayDataset) -> tuple[Array, Array]:
        """Return imputed observations, and their class indices."""
        mask = None if data.mask is None else data.mask.numpy()
        return self.imputed(repeat, data.x.numpy(), mask), class_indices(data)

    def imputed(self, repeat: int, x: Array, mask: Array | None) -> Array:
        """Return observations with the typical values of a training set where the mask is False."""
        return imputed(x, mask, self.typical[repeat]) if self.typical else x

    def with_gaps(self, repeat: int, x: Array, y: Array, seed: int) -> Array:
        """Return samples in which values are missing, and imputed, as in a random real example."""
        train = self.train_data(repeat)
        if train.mask is None:
            return self.imputed(repeat, x, None)
        random = np.random.default_rng(derive_seed(seed, "missing values"))
        rows = examples_of_classes(class_indices(train), y, random)
        return self.imputed(repeat, x, train.mask.numpy()[rows])

    def held_out(self, repeat: int) -> dict[str, tuple[Array, Array]]:
        """Return the validation set, the test set and the cohorts of a repeat."""
        draw = self.draws[repeat]
        found = {"validation": self.validation(repeat)}
        if draw.test is not None:
            found["test"] = self._complete(repeat, self.pool.subset(draw.test))
        return found | {name: self._complete(repeat, of) for name, of in self.tests.items()}

    def made(self, repeat: int, method: str, counts: Mapping[int, int]) -> tuple[Array, Array]:
        """Return the first samples of each class of a synthetic set, as many as asked."""
        given = self.synthetic[repeat][method]
        x, y = read_arrays(given) if isinstance(given, Path) else given
        rows = np.concatenate([np.flatnonzero(y == c)[:n] for c, n in counts.items()])
        return x[rows], y[rows]


def numbers_by_class(number: str, y: Array) -> dict[int, int]:
    """Return how many samples of each class a number means, without classes that need none.

    >>> (
    ...     numbers_by_class("balance", np.array([0, 0, 0, 1])),
    ...     numbers_by_class("x3", np.array([0, 0, 1])),
    ... )
    ({1: 2}, {0: 4, 1: 2})
    """
    sizes = {int(c): int(n) for c, n in zip(*np.unique(y, return_counts=True), strict=True)}
    if number == "balance":
        largest = max(sizes.values())
        return {c: largest - n for c, n in sizes.items() if n < largest}
    if number.startswith("x"):
        return {c: (int(number[1:]) - 1) * n for c, n in sizes.items()}
    return dict.fromkeys(sizes, int(number))


def typical_of(pool: ArrayDataset, draw: Draw) -> Array:
    """Return the typical values of the training set of a draw."""
    train = pool.subset(draw.train)
    mask = None if train.mask is None else train.mask.numpy()
    return typical_values(train.x.numpy(), mask, pool.form)


def class_indices(data: ArrayDataset) -> Array:
    """Return the labels ``(N,)`` of a data set that has them."""
    assert data.y is not None
    return data.y.numpy()


def read_arrays(file: Path | BinaryIO) -> tuple[Array, Array]:
    """Return observations and class indices of the file of a synthetic set."""
    with np.load(file, allow_pickle=False) as archive:
        return archive["x"], archive["y"]


def generate(settings: Mapping[str, Any], inputs: Inputs, attempt: int) -> Outcome:
    """Call a method, check its output, which is a file of the row, and measure its quality."""
    name, repeat, seed = settings["method"], settings["repeat"], settings["seed"]
    x, y = inputs.train(repeat)
    counts: dict[int, int] = {}
    for number in settings["numbers"]:
        for c, n in numbers_by_class(number, y).items():
            counts[c] = max(n, counts.get(c, 0))
    if not counts:
        return Outcome({"reason": "the classes are balanced: it has nothing to make"})
    of_dataset = getattr(inputs.methods[name], "of_dataset", None)
    try:
        if of_dataset is None:
            made = inputs.methods[name](x.copy(), y.copy(), counts, seed)
        else:
            made = of_dataset(inputs.train_data(repeat), counts, seed)
    except DataError as error:
        return Outcome({"reason": str(error)})
    x_new, y_new = map(np.asarray, made)
    if x_new.shape[1:] != x.shape[1:] or y_new.shape != (len(x_new),) or not len(x_new):
        raise DataError(
            f"the method {name!r} returned arrays of shapes {x_new.shape} and {y_new.shape}: "
            f"expected (n, {', '.join(map(str, x.shape[1:]))}) and (n,)"
        )
    if not np.isfinite(x_new).all():
        raise DataError(f"the method {name!r} returned NaN or infinite values")
    if not np.isin(y_new, y).all():
        raise DataError(f"the method {name!r} returned labels that are not in y")
    if of_dataset is not None:
        x_new = inputs.with_gaps(repeat, x_new, y_new, seed)
    if len(counts) > 1 and len(np.unique(y_new)) < 2 and settings["numbers"] != ["balance"]:
        return Outcome({"reason": "it makes samples of one class only"})
    content = io.BytesIO()
    np.savez(content, x=x_new, y=y_new.astype(y.dtype))
    quality = _quality(inputs, repeat, seed, x_new.astype(x.dtype), y_new)
    return Outcome({"samples": len(x_new), "quality": quality}, {SYNTHETIC: content.getvalue()})


def _quality(
    inputs: Inputs, repeat: int, seed: int, made: Array, labels: Array
) -> dict[str, float]:
    """Return fidelity and memorisation of samples, against training and test set.

    The test set is drawn with the proportions of the training set's classes; otherwise a class that
    is rarer there would seem to be memorised. Classes without samples are left out.
    """
    random = np.random.default_rng(derive_seed(seed, "quality"))
    x, y = inputs.train(repeat)
    other, other_y = inputs.held_out(repeat)["test"]
    classes = [c for c in np.unique(labels) if (other_y == c).any()]
    if not classes:
        return {}
    share = min((other_y == c).sum() / (y == c).sum() for c in classes)
    share = min(share, COMPARED / max(1, np.isin(y, classes).sum()))
    held_out = np.concatenate(
        [
            random.permutation(np.flatnonzero(other_y == c))[: max(1, int(share * (y == c).sum()))]
            for c in classes
        ]
    )
    known = np.flatnonzero(np.isin(labels, classes))
    rows = random.permutation(known)[:COMPARED]
    arrays = x[np.isin(y, classes)][:COMPARED], other[held_out], made[rows]
    sets = [as_tensor("x", part) for part in arrays]
    if min(map(len, sets)) < 2:
        return {}
    found = {"copies": copies(*sets).exact, "membership_auc": float(membership_auc(*sets))}
    try:
        found["distance_ratio"] = nearest_distance_ratio(*sets)
    except DataError:  # most test observations are in the training set
        found["distance_ratio"] = float("nan")
    few = min(5, len(held_out) - 1, len(rows) - 1)
    both = precision_recall(*(_in_units(part, x) for part in arrays[1:]), k=few)
    return {**found, "precision": both.precision, "recall": both.recall}


def tune(settings: Mapping[str, Any], inputs: Inputs, attempt: int) -> Outcome:
    """Choose the hyper-parameters of a classifier on the real examples."""
    repeat, seed = settings["repeat"], settings["seed"]
    classifier = inputs.classifiers[settings["classifier"]]
    if not classifier.grid:
        return Outcome({})
    with _quiet():
        train = inputs.train(repeat)
        if classifier.network:
            held_out, labels = inputs.validation(repeat)
            held_out = _prepared(held_out, train[0], classifier)
            train = _prepared(train[0], train[0], classifier), train[1]
            return Outcome(_held_out_search(classifier, train, (held_out, labels), seed))
        return Outcome(_cross_validation(classifier, *train, seed))


def _cross_validation(classifier: Classifier, x: Array, y: Array, seed: int) -> dict[str, Any]:
    """Return the parameters with the best accuracy in at most 5 folds; none for single examples."""
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    folds = min(5, int(np.unique(y, return_counts=True)[1].min()))
    if folds < 2:
        return {}
    estimator = classifier.make()
    if "random_state" in estimator.get_params():
        estimator.set_params(random_state=seed % 2**32)
    candidates = [{k: [v] for k, v in one.items()} for one in classifier.candidates(seed)]
    search = GridSearchCV(
        estimator,
        candidates,
        cv=StratifiedKFold(folds, shuffle=True, random_state=seed % 2**32),
        scoring="accuracy" if np.ptp(np.bincount(y)) == 0 else "balanced_accuracy",
        refit=False,
        n_jobs=1,
    )
    parameters: dict[str, Any] = search.fit(_prepared(x, x, classifier), y).best_params_
    return parameters


def _held_out_search(
    classifier: Classifier,
    train: tuple[Array, Array],
    validation: tuple[Array, Array],
    seed: int,
) -> dict[str, Any]:
    """Return the parameters of a network with the best balanced accuracy on the validation set.

    It is the search of thesis section 2.7.2: networks are too slow for cross-validation.
    """

    def score(parameters: Mapping[str, Any]) -> float:
        fitted = fit_classifier(
            classifier, *train, parameters=parameters, seed=seed, validation=validation
        )
        predicted = np.asarray(fitted.predict(validation[0]))
        return classification_figures(validation[1], predicted)["balanced_accuracy"]

    best: dict[str, Any] = max(classifier.candidates(seed), key=score)
    return best


def score(settings: Mapping[str, Any], inputs: Inputs, attempt: int) -> Outcome:
    """Train a classifier on one training set; measure it on all held-out sets."""
    repeat, count = settings["repeat"], inputs.num_classes
    predict = trained(settings, inputs)

    def figures(x: Array, y: Array) -> dict[str, float]:
        predicted, scores = predict(x)
        return classification_figures(y, predicted, scores, num_classes=count)

    found: dict[str, Any] = {
        cohort: figures(*both) for cohort, both in inputs.held_out(repeat).items()
    }
    found["gan_test"] = {}
    if settings["part"] == "real" and settings["method"] is None:
        largest = dict.fromkeys(range(count), COMPARED)
        for other in inputs.synthetic[repeat]:
            made = inputs.made(repeat, other, largest)
            found["gan_test"][other] = figures(*made)["accuracy"]
    return Outcome(found)


def trained(settings: Mapping[str, Any], inputs: Inputs) -> Predict:
    """Train a classifier on one training set; return what predicts classes and their scores."""
    repeat, name, method = settings["repeat"], settings["classifier"], settings["method"]
    classifier, number = inputs.classifiers[name], settings["number"]
    x, y = inputs.train(repeat)
    real, weight, growth = x, np.ones(len(x)), 1.0
    if settings["part"] == "real":
        if method is not None:
            sizes = np.bincount(y)
            weight = len(y) / (np.count_nonzero(sizes) * sizes[y])
    else:
        parts = [
            inputs.made(repeat, part, numbers_by_class(number, y))
            for part in method.split(" & ")
            if part
        ]
        x_new, y_new = (np.concatenate(of) for of in zip(*parts, strict=True))
        x_new = x_new.astype(x.dtype)
        if settings["part"] == "synthetic only":
            x, y, weight = x_new, y_new, np.ones(len(x_new))
        else:
            each = 1.0
            if inputs.real_share is not None and number != "balance":
                each = (1.0 - inputs.real_share) / inputs.real_share * len(x) / len(x_new)
            weight = np.concatenate([weight, np.full(len(x_new), each)])
            x, y = np.concatenate([x, x_new]), np.concatenate([y, y_new])
        growth = len(x) / len(real)

    def prepared(of: Array) -> Array:
        return _prepared(of.astype(real.dtype), x, classifier, real)

    held_out, labels = inputs.validation(repeat)
    with _quiet():
        estimator = fit_classifier(
            classifier,
            prepared(x),
            y,
            parameters=settings["parameters"],
            seed=derive_seed(settings["seed"], "classifier", name),
            weight=weight,
            growth=growth,
            validation=(prepared(held_out), labels),
        )

    def predict(of: Array) -> tuple[Array, Array | None]:
        with _quiet():
            return scores_of(estimator, prepared(of), inputs.num_classes)

    return predict


def _prepared(x: Array, train: Array, classifier: Classifier, real: Array | None = None) -> Array:
    """Return observations in units of a training set, as a classifier takes them."""
    if x.ndim == 2:
        return _in_units(x, train)
    if classifier.network:
        return x
    reference = train if real is None else real
    low, high = float(reference.min()), float(reference.max())
    if (low < 0.0 or high > 1.0) and high > low:
        x = (x - low) / (high - low)
    return x.reshape(len(x), -1)


def _in_units(x: Array, train: Array) -> Array:
    """Return rows; features of vectors are standardised by the statistics of ``train``."""
    from sklearn.preprocessing import StandardScaler

    if x.ndim > 2:
        return x.reshape(len(x), -1)
    # In double precision a constant feature has no deviation, and large ones have a finite one.
    rows: Array = StandardScaler().fit(train.astype(np.float64)).transform(x.astype(np.float64))
    return rows


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what is expected of classifiers on few examples.

    A network that stops at its last epoch is intended. Candidates that are not possible for few
    examples (7 neighbours of 5) get the worst score.
    """
    from sklearn.exceptions import ConvergenceWarning, FitFailedWarning

    with warnings.catch_warnings():
        for category in (ConvergenceWarning, FitFailedWarning, UserWarning):
            warnings.filterwarnings("ignore", category=category)
        yield
