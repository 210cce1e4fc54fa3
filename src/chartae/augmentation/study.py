"""Studies of augmentation: accuracy of classifiers with and without synthetic data, over seeds."""

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from chartae import __version__
from chartae.augmentation.methods import Method
from chartae.augmentation.results import REAL, Part, StudyResult, TrainingSet
from chartae.checks import check_integer, check_number
from chartae.data import ArrayDataset, encode_labels, few_per_class
from chartae.errors import ConfigurationError, DataError
from chartae.runs import Outcome, Progress, execute

__all__ = ["CLASSIFIERS", "Classifier", "augmentation_study"]

Array = NDArray[Any]
Advance = Callable[[int, int], None]
SYNTHETIC = "synthetic.npz"
"""The file of a run with the synthetic set of a method."""


@dataclass(frozen=True)
class Classifier:
    """A scikit-learn classifier, and the candidate values of its hyper-parameters.

    Args:
        make: returns a new estimator; called in worker processes.
        grid: candidate values by parameter, as for `sklearn.model_selection.GridSearchCV`; empty
            for a classifier without tuning.
    """

    make: Callable[[], Any]
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)


def _logistic_regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=300)


def _multilayer_perceptron() -> Any:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier((100,), learning_rate_init=3e-3, max_iter=100, n_iter_no_change=5)


def _nearest_neighbours() -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier()


def _support_vectors() -> Any:
    from sklearn.svm import SVC

    return SVC()


CLASSIFIERS: dict[str, Classifier] = {
    "logistic regression": Classifier(_logistic_regression, {"C": [0.01, 0.1, 1.0, 10.0, 100.0]}),
    "MLP": Classifier(_multilayer_perceptron, {"alpha": [1e-4, 1e-2, 1e-1, 1.0]}),
    "k-NN": Classifier(_nearest_neighbours, {"n_neighbors": [1, 3, 5, 7]}),
    "RBF SVM": Classifier(
        _support_vectors,
        {"C": [1.0, 10.0, 100.0], "gamma": ["scale", 0.003, 0.01, 0.03, 0.1, 0.3]},
    ),
}


# --- the study ----------------------------------------------------------------------------------


def augmentation_study(
    x: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    x_test: ArrayLike | Tensor,
    y_test: ArrayLike | Tensor,
    *,
    methods: Mapping[str, Method],
    classifiers: Mapping[str, Classifier] = CLASSIFIERS,
    per_class: int = 10,
    synthetic_per_class: int = 200,
    real_share: float | None = None,
    repeats: int = 5,
    seed: int = 0,
    workers: int | None = None,
    folder: str | Path | None = None,
    advance: Advance | None = None,
) -> StudyResult:
    """Measure the effect of augmentation on classifiers trained on few examples.

    Each repeat draws ``per_class`` labelled examples of each class from the pool ``(x, y)``. From
    these examples alone, every method makes its synthetic set, and 5-fold cross-validation tunes
    every classifier. Each classifier is then trained, with the tuned hyper-parameters, on the real
    examples, on real and synthetic ones, and on synthetic ones only. The test set is used neither
    for training nor for tuning.

    Args:
        x: the pool, ``(N, *input_shape)``; types as in `ArrayDataset.from_arrays`.
        y: its labels, ``(N,)``.
        x_test: the test set, ``(M, *input_shape)``.
        y_test: its labels, ``(M,)``, of classes that are in ``y``.
        methods: `Method` functions by name.
        classifiers: `Classifier` objects by name.
        per_class: real examples of each class, at least 2.
        synthetic_per_class: number of synthetic examples of each class that a method makes.
        real_share: share of the real examples in the total weight of a training set with synthetic
            ones, in (0, 1); None gives all examples the same weight. For a classifier without
            weights, the real examples are repeated.
        repeats: number of draws.
        seed: seed of the first repeat's draw, methods and classifiers; each next repeat has the
            next seed.
        workers: number of processes, with one thread each; None takes one per core.
        folder: where finished parts are kept, so that the same call goes on after an interruption;
            None keeps nothing. Methods and classifiers are known there by their names: take another
            folder if one of them changes.
        advance: called with the number of finished tasks and the number of all tasks, after each.

    Raises:
        DataError: if the shapes of the arrays do not match, a class has fewer than ``per_class``
            examples, or a method returns arrays of other shapes, other labels or NaN.
        ConfigurationError: for a number out of range, or without methods or classifiers.

    >>> from chartae.augmentation import gaussian_noise
    >>> from chartae.data import digits
    >>> data = digits()
    >>> result = augmentation_study(
    ...     data.x[:500],
    ...     data.y[:500],
    ...     data.x[500:700],
    ...     data.y[500:700],
    ...     methods={"noise": gaussian_noise},
    ...     classifiers={"k-NN": CLASSIFIERS["k-NN"]},
    ...     synthetic_per_class=20,
    ...     repeats=2,
    ...     workers=1,
    ... )
    >>> (
    ...     result.accuracy.shape,
    ...     result.compare(TrainingSet("synthetic only", "noise"), "k-NN").verdict,
    ... )
    ((3, 1, 2), 'no clear difference')
    """
    check_integer("per_class", per_class, minimum=2)
    check_integer("synthetic_per_class", synthetic_per_class, minimum=1)
    check_integer("repeats", repeats, minimum=1)
    check_integer("seed", seed, minimum=0)
    if real_share is not None:
        check_number("real_share", real_share, above=0.0, below=1.0)
    if workers is not None:
        check_integer("workers", workers, minimum=1)
    if not methods or not classifiers:
        raise ConfigurationError("methods or classifiers is empty: expected at least one of each")
    pool, test = _check_sets(x, y, x_test, y_test)
    pool_x, pool_y = pool.x.numpy(), _labels(pool)
    seeds = range(seed, seed + repeats)
    draws = [few_per_class(pool_y, per_class, seed=s)[0].numpy() for s in seeds]
    inputs = _Inputs(
        [(pool_x[draw], pool_y[draw]) for draw in draws],
        (_flat(test.x.numpy()), _labels(test)),
        methods,
        classifiers,
        synthetic_per_class,
        real_share,
    )
    made = [
        {"repeat": r, "seed": seeds[r], "method": name} for r in range(repeats) for name in methods
    ]
    scored = [
        {"repeat": r, "seed": seeds[r], "classifier": name}
        for r in range(repeats)
        for name in classifiers
    ]
    context = {
        "version": __version__,
        "data": [pool.fingerprint, test.fingerprint],
        "settings": [per_class, synthetic_per_class, real_share, list(methods)],
    }
    total = len(made) + len(scored)

    def tell(before: int) -> Callable[[Progress], None]:
        def progress(state: Progress) -> None:
            if advance is not None and state.done:
                advance(before + state.done, total)

        return progress

    with _folder(folder) as place:
        kept: dict[str, Any] = {"folder": place, "context": context, "jobs": workers}
        kept |= {"retries": 0, "strict": True}
        table = execute(_generate, made, shared=inputs, progress=tell(0), **kept)
        synthetic = [_arrays(table.file(row, SYNTHETIC)) for row in table]
        groups = [synthetic[r * len(methods) : (r + 1) * len(methods)] for r in range(repeats)]
        inputs = replace(inputs, synthetic=groups)
        rows = execute(_score, scored, shared=inputs, progress=tell(len(made)), **kept).rows
    columns = len(classifiers)
    accuracy = np.array([row.figures["accuracy"] for row in rows]).reshape(repeats, columns, -1)
    parts: tuple[Part, ...] = ("real + synthetic", "synthetic only")
    return StudyResult(
        training_sets=(REAL, *(TrainingSet(part, name) for part in parts for name in methods)),
        classifiers=tuple(classifiers),
        accuracy=accuracy.transpose(2, 1, 0),
        tuned={
            name: [row.figures["parameters"] for row in rows[column::columns]]
            for column, name in enumerate(classifiers)
        },
        settings={
            "per_class": per_class,
            "synthetic_per_class": synthetic_per_class,
            "real_share": real_share,
            "repeats": repeats,
            "seed": seed,
            "num_pool": len(pool),
            "num_test": len(test),
            "num_classes": pool.num_classes,
            "input_shape": list(pool.input_shape),
        },
    )


@dataclass(frozen=True)
class _Inputs:
    """What all runs of a study read."""

    real: Sequence[tuple[Array, Array]]
    test: tuple[Array, Array]
    methods: Mapping[str, Method]
    classifiers: Mapping[str, Classifier]
    synthetic_per_class: int
    real_share: float | None
    synthetic: Sequence[Sequence[tuple[Array, Array]]] = ()


@contextmanager
def _folder(folder: str | Path | None) -> Iterator[Path]:
    """Yield the folder, or a temporary one for None."""
    if folder is not None:
        yield Path(folder)
        return
    with TemporaryDirectory(prefix="chartae-study-") as temporary:
        yield Path(temporary)


def _arrays(path: Path) -> tuple[Array, Array]:
    with np.load(path, allow_pickle=False) as archive:
        return archive["x"], archive["y"]


def _check_sets(
    x: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    x_test: ArrayLike | Tensor,
    y_test: ArrayLike | Tensor,
) -> tuple[ArrayDataset, ArrayDataset]:
    _, names = encode_labels(y)
    pool = ArrayDataset.from_arrays(x, y)
    if pool.mask is not None:
        raise DataError(
            "x has a mask: expected fully observed data, because classifiers take no mask"
        )
    test_indices, test_names = encode_labels(y_test)
    if unknown := sorted(set(test_names) - set(names)):
        raise DataError(f"y_test has classes that are not in y: {', '.join(unknown)}")
    as_names = np.asarray(test_names)[test_indices]
    test = ArrayDataset.from_arrays(x_test, as_names, class_names=names)
    if test.input_shape != pool.input_shape:
        raise DataError(
            f"x_test has observations of shape {test.input_shape}: expected {pool.input_shape}"
        )
    return pool, test


def _labels(data: ArrayDataset) -> Array:
    assert data.y is not None
    return data.y.numpy()


def _flat(x: Array) -> Array:
    return x.reshape(len(x), -1)


def _generate(settings: Mapping[str, Any], inputs: _Inputs, attempt: int) -> Outcome:
    """Call a method, and check its output, which is a file of the row."""
    name, seed, (x, y) = settings["method"], settings["seed"], inputs.real[settings["repeat"]]
    made = inputs.methods[name](x.copy(), y.copy(), inputs.synthetic_per_class, seed)
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
    content = io.BytesIO()
    np.savez(content, x=x_new, y=y_new)
    return Outcome({"samples": len(x_new)}, {SYNTHETIC: content.getvalue()})


def _score(settings: Mapping[str, Any], inputs: _Inputs, attempt: int) -> Outcome:
    """Tune a classifier on the real examples; measure its accuracy for every training set."""
    repeat, seed = settings["repeat"], settings["seed"]
    classifier, real_share = inputs.classifiers[settings["classifier"]], inputs.real_share
    synthetic, test = inputs.synthetic[repeat], inputs.test
    x, y = _flat(inputs.real[repeat][0]), inputs.real[repeat][1]
    with warnings.catch_warnings():
        # A network that stops at its last epoch is intended. Candidates that are not possible for
        # few examples (7 neighbours of 5) get the worst score.
        for category in _expected_warnings():
            warnings.filterwarnings("ignore", category=category)
        parameters = _tune(classifier, x, y, seed)

        def accuracy(x: Array, y: Array, num_real: int = 0, weight: float = 1.0) -> float:
            estimator = _estimator(classifier, seed).set_params(**parameters)
            _fit(estimator, x, y, num_real, weight)
            return float(estimator.score(*test))

        scores = [accuracy(x, y)]
        for x_new, y_new in synthetic:
            weight = 1.0
            if real_share is not None:
                weight = real_share / (1.0 - real_share) * len(x_new) / len(x)
            both = np.concatenate([x, _flat(x_new)]), np.concatenate([y, y_new])
            scores.append(accuracy(*both, len(x), weight))
        scores += [accuracy(_flat(x_new), y_new) for x_new, y_new in synthetic]
    return Outcome({"accuracy": scores, "parameters": parameters})


def _tune(classifier: Classifier, x: Array, y: Array, seed: int) -> dict[str, Any]:
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    if not classifier.grid:
        return {}
    folds = StratifiedKFold(
        min(5, int(np.bincount(y).min())), shuffle=True, random_state=seed % 2**32
    )
    search = GridSearchCV(
        _estimator(classifier, seed), dict(classifier.grid), cv=folds, refit=False, n_jobs=1
    )
    parameters: dict[str, Any] = search.fit(x, y).best_params_
    return parameters


def _estimator(classifier: Classifier, seed: int) -> Any:
    estimator = classifier.make()
    seeded = {"random_state": seed % 2**32} if "random_state" in estimator.get_params() else {}
    return estimator.set_params(**seeded)


def _fit(estimator: Any, x: Array, y: Array, num_real: int, weight: float) -> None:
    """Train with ``weight`` on the first ``num_real`` rows and 1 on the others."""
    from sklearn.utils.validation import has_fit_parameter

    if weight == 1.0:
        estimator.fit(x, y)
    elif has_fit_parameter(estimator, "sample_weight"):
        weights = np.ones(len(x))
        weights[:num_real] = weight
        estimator.fit(x, y, sample_weight=weights)
    else:
        times = np.ones(len(x), dtype=int)
        times[:num_real] = max(1, round(weight))
        estimator.fit(x.repeat(times, axis=0), y.repeat(times))


def _expected_warnings() -> tuple[type[Warning], ...]:
    from sklearn.exceptions import ConvergenceWarning, FitFailedWarning

    return ConvergenceWarning, FitFailedWarning, UserWarning
