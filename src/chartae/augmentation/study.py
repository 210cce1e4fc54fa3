"""Studies of augmentation: classifiers with and without synthetic data, over repeated draws."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from chartae import __version__
from chartae.augmentation.classifiers import (
    Classifier,
    default_classifiers,
    fit_classifier,
    scores_of,
)
from chartae.augmentation.draws import Draw, make_draws
from chartae.augmentation.imputation import imputed, typical_values
from chartae.augmentation.methods import Method, ModelMethod
from chartae.augmentation.results import REAL, WEIGHTED, StudyResult, TrainingSet
from chartae.checks import check_choice, check_integer, check_number
from chartae.data import ArrayDataset, encode_labels
from chartae.data.arrays import as_tensor
from chartae.errors import ConfigurationError, DataError
from chartae.evaluation.classification import CLASSIFICATION_FIGURES, classification_figures
from chartae.evaluation.fidelity import precision_recall
from chartae.evaluation.memorisation import copies, membership_auc, nearest_distance_ratio
from chartae.randomness import derive_seed
from chartae.runs import Outcome, Progress, RunTable, execute

__all__ = ["augmentation_study"]

logger = logging.getLogger(__name__)

Array = NDArray[Any]
Advance = Callable[[int, int], None]
Number = int | str
SYNTHETIC = "synthetic.npz"
"""The file of a run with the synthetic set of a method."""
COMPARED = 1000
"""Largest number of samples whose fidelity and memorisation are measured."""


def augmentation_study(
    x: Any,
    y: ArrayLike | Tensor | None = None,
    x_test: Any = None,
    y_test: ArrayLike | Tensor | None = None,
    *,
    methods: Mapping[str, Method],
    classifiers: Mapping[str, Classifier] | None = None,
    cohorts: Mapping[str, tuple[Any, Any]] | None = None,
    per_class: int | Mapping[Any, int] | None = None,
    synthetic: Number | Sequence[Number] = 200,
    real_share: float | None = 0.5,
    validation_share: float = 0.2,
    test_share: float = 0.3,
    metric: str | None = None,
    repeats: int = 5,
    seed: int = 0,
    workers: int | None = None,
    scheduler: str | None = None,
    folder: str | Path | None = None,
    advance: Advance | None = None,
) -> StudyResult:
    """Measure the effect of augmentation on classifiers trained on few labelled examples.

    Each repeat draws a training set, a validation set and, unless there is one, a test set. From
    the training set alone, every method makes its synthetic set, and cross-validation tunes every
    classifier. Each classifier is then trained on the real examples, on real and synthetic ones,
    and on synthetic ones only; with ``"transforms"`` among the methods also on real ones,
    transformed ones and those of each model. The validation set stops networks, and chooses between
    training sets in `StudyResult.verdict`. The test set serves for nothing but the figures.

    Vectors are standardised by the statistics of each training set. Observations with values beyond
    [0, 1] that are not vectors are scaled by the range of the real training set.

    Values may be missing. Models learn from the observed ones (`ModelMethod.of_dataset`). Other
    methods, and all classifiers, see values imputed from the training set: the median of the
    feature, or the most frequent category; a feature without any value there is 0 in all sets.
    Samples of models have gaps as often as real ones, each those of a random training example of
    its class, and are imputed, too. Without gaps, classifiers could recognise them, because no
    value is the imputed one.

    Args:
        x: the pool, ``(N, *input_shape)``; types as in `ArrayDataset.from_arrays`; or an
            `ArrayDataset` with labels.
        y: its labels, ``(N,)``.
        x_test: a test set, ``(M, *input_shape)``, or an `ArrayDataset`. None takes ``test_share``
            of the pool, another part in each repeat.
        y_test: its labels, ``(M,)``, of classes that are in ``y``.
        methods: `Method` functions by name (`METHODS`, `make_method`).
        classifiers: `Classifier` objects by name; None takes `default_classifiers`.
        cohorts: further test sets by name, each with observations and labels.
        per_class: number of real training examples of each class, drawn from the pool in each
            repeat, or the numbers by label. Validation examples are drawn in addition. None takes
            all that are not held out; with a test set of its own, the training sets of repeats then
            differ by their validation sets only, and intervals say nothing about other pools.
        synthetic: how many synthetic examples a method makes: a number for each class; ``"x5"`` for
            a training set of five times the size; ``"balance"`` for as many as each class lacks to
            the largest; or several of these.
        real_share: share of the real examples in the total weight of a training set with synthetic
            ones, in (0, 1); None gives all examples the same weight. Does not apply to
            ``"balance"``.
        validation_share: share of the validation set in the examples of a repeat that are not test
            data, in (0, 1).
        test_share: share of the test set in the pool, in (0, 1), without a test set.
        metric: the figure that is compared, a name of `CLASSIFICATION_FIGURES`; None takes the
            accuracy if the classes of the training set are of equal size, else the balanced
            accuracy.
        repeats: number of draws.
        seed: seed of the first repeat's draw, methods and classifiers; each next repeat has the
            next seed.
        workers: number of processes, with one thread each; None takes one per core.
        scheduler: address of a Dask scheduler, whose workers take the place of the processes.
        folder: where finished parts are kept, so that the same call goes on after an interruption;
            None keeps nothing. Models are known there by name and options, other methods and
            classifiers by their names: take another folder if one of them changes.
        advance: called with the number of finished tasks and the number of all tasks, after each.

    Raises:
        DataError: if shapes of arrays or columns of tables do not match, a class has too few
            examples, or a method returns arrays of other shapes, other labels or NaN.
        ConfigurationError: for an argument out of range, or without methods or classifiers.

    >>> from chartae.augmentation import CLASSIFIERS, gaussian_noise
    >>> from chartae.data import digits
    >>> data = digits()
    >>> result = augmentation_study(
    ...     data.x[:500],
    ...     data.y[:500],
    ...     data.x[500:700],
    ...     data.y[500:700],
    ...     methods={"noise": gaussian_noise},
    ...     classifiers={"k-NN": CLASSIFIERS["k-NN"]},
    ...     per_class=10,
    ...     synthetic=20,
    ...     repeats=3,
    ...     workers=1,
    ... )
    >>> result.score.shape, result.settings["metric"]
    ((3, 1, 3), 'accuracy')
    """
    check_integer("repeats", repeats, minimum=1)
    check_integer("seed", seed, minimum=0)
    if real_share is not None:
        check_number("real_share", real_share, above=0.0, below=1.0)
    if workers is not None:
        check_integer("workers", workers, minimum=1)
    if metric is not None:
        check_choice("metric", metric, CLASSIFICATION_FIGURES)
    if not methods or (classifiers is not None and not classifiers):
        raise ConfigurationError("methods or classifiers is empty: expected at least one of each")
    for name in methods:
        if name == "real" or "&" in name:
            raise ConfigurationError(
                f"methods has the name {name!r}: expected no 'real' and no '&'"
            )
    numbers = _check_numbers(synthetic)
    pool, tests = _check_sets(x, y, x_test, y_test, cohorts or {})
    if classifiers is None:
        classifiers = default_classifiers(pool.input_shape)
    draws = make_draws(
        pool,
        repeats=range(seed, seed + repeats),
        per_class=per_class,
        validation_share=validation_share,
        test_share=None if "test" in tests else test_share,
    )
    incomplete = any(data.mask is not None for data in (pool, *tests.values()))
    inputs = _Inputs(
        pool,
        tests,
        draws,
        methods,
        classifiers,
        real_share,
        typical=[_typical(pool, draw) for draw in draws] if incomplete else (),
    )
    sizes = np.bincount(inputs.y[draws[0].train], minlength=pool.num_classes)
    for label, size in zip(pool.class_names, sizes, strict=True):
        if size == 0:
            raise DataError(f"class {label!r} has no training example: expected at least 1")
    if not len(draws[0].validation):
        raise DataError("y has one example of each class: expected one more to be held out")
    if metric == "auc":
        _check_two_classes(inputs.held_out(0))
    study = _Study(
        inputs,
        pool.class_names,
        tuple(numbers),
        metric or ("accuracy" if np.ptp(sizes) == 0 else "balanced_accuracy"),
        seed,
        {
            "version": __version__,
            "data": [part.fingerprint for part in (pool, *tests.values())],
            "settings": [
                [list(sizes.tolist()), list(map(str, numbers)), real_share],
                [validation_share, test_share],
            ],
        },
        advance,
    )
    with _folder(folder) as place:
        return study.run(place, workers, scheduler)


@dataclass(frozen=True)
class _Inputs:
    """What all runs of a study read.

    Attributes:
        pool: labelled observations.
        tests: test sets and cohorts by name; ``"test"`` is missing if each draw has its own.
        draws: rows of the training, the validation and the test set of each repeat.
        typical: for each repeat, the `typical_values` of the training set; empty if no value is
            missing.
        synthetic: for each repeat, the synthetic sets by method: arrays, or the file with them.
        parameters: for each repeat, the tuned parameters by classifier.
    """

    pool: ArrayDataset
    tests: Mapping[str, ArrayDataset]
    draws: Sequence[Draw]
    methods: Mapping[str, Method]
    classifiers: Mapping[str, Classifier]
    real_share: float | None
    typical: Sequence[Array] = ()
    synthetic: Sequence[Mapping[str, Path | tuple[Array, Array]]] = ()
    parameters: Sequence[Mapping[str, Mapping[str, Any]]] = ()

    @property
    def y(self) -> Array:
        return _labels(self.pool)

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
        return self.imputed(repeat, data.x.numpy(), mask), _labels(data)

    def imputed(self, repeat: int, x: Array, mask: Array | None) -> Array:
        """Return observations with the typical values of a training set where the mask is False."""
        return imputed(x, mask, self.typical[repeat]) if self.typical else x

    def with_gaps(self, repeat: int, x: Array, y: Array, seed: int) -> Array:
        """Return samples in which values are missing, and imputed, as in a random real example."""
        train = self.train_data(repeat)
        if train.mask is None:
            return self.imputed(repeat, x, None)
        random = np.random.default_rng(derive_seed(seed, "missing values"))
        places = {c: np.flatnonzero(_labels(train) == c) for c in np.unique(y)}
        rows = [random.choice(places[c]) for c in y]
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
        x, y = _arrays(given) if isinstance(given, Path) else given
        rows = np.concatenate([np.flatnonzero(y == c)[:n] for c, n in counts.items()])
        return x[rows], y[rows]


@dataclass(frozen=True)
class _Study:
    """The three tables of runs of a study: synthetic sets, tuned parameters, and scores."""

    inputs: _Inputs
    class_names: tuple[str, ...]
    numbers: tuple[str, ...]
    metric: str
    seed: int
    context: Mapping[str, Any]
    advance: Advance | None

    def run(self, folder: Path, workers: int | None, scheduler: str | None) -> StudyResult:
        """Execute what the folder does not have, and return the result."""
        inputs, repeats = self.inputs, range(len(self.inputs.draws))
        made = self._settings("samples", method=inputs.methods)
        tuned = self._settings("tuning", classifier=inputs.classifiers)
        done = [0, len(made) + len(tuned) + len(repeats) * len(inputs.classifiers)]

        def execute_all(function: Any, settings: Sequence[Any], shared: _Inputs) -> RunTable:
            def tell(state: Progress) -> None:
                if self.advance is not None and state.done:
                    self.advance(done[0] + state.done, max(done[1], done[0] + state.total))

            table = execute(
                function,
                settings,
                folder=folder,
                context=self.context,
                shared=shared,
                jobs=workers,
                scheduler=scheduler,
                retries=0,
                strict=True,
                progress=tell,
            )
            done[0] += len(settings)
            return table

        numbers = {"numbers": list(self.numbers)}
        made = [one | numbers | {"options": self._options([one["method"]])} for one in made]
        table = execute_all(_generate, made, inputs)
        left_out: dict[str, str] = {
            row.settings["method"]: row.figures["reason"]
            for row in table
            if row.figures.get("reason")
        }
        for name, reason in left_out.items():
            logger.warning("method %r is left out: %s", name, reason)
        names = [name for name in inputs.methods if name not in left_out]
        if not names:
            raise DataError(f"no method can make samples: {'; '.join(left_out.values())}")
        quality = self._quality(table, names)
        files: list[dict[str, Any]] = [{} for _ in repeats]
        for row in table:
            if row.settings["method"] in names:
                path = table.file(row, SYNTHETIC)
                files[row.settings["repeat"]][row.settings["method"]] = (
                    path.resolve() if scheduler is None else _arrays(path)
                )
        rows = execute_all(_tune, tuned, inputs).rows
        parameters: list[dict[str, Any]] = [{} for _ in repeats]
        for row in rows:
            parameters[row.settings["repeat"]][row.settings["classifier"]] = row.figures
        sets = self._training_sets(names)
        scored = [
            one
            | {"part": which.part, "method": which.method, "number": which.number, "options": of}
            for which in sets
            for of in [self._options(names if which == REAL else which.methods)]
            for one in self._settings("scores", classifier=inputs.classifiers)
        ]
        done[1] = done[0] + len(scored)
        table = execute_all(_score, scored, replace(inputs, synthetic=files, parameters=parameters))
        result = self._result(table, sets, parameters, quality, left_out)
        return replace(result, samples=self._samples(files[0]))

    def _settings(self, stage: str, **names: Mapping[str, Any]) -> list[dict[str, Any]]:
        ((kind, values),) = names.items()
        return [
            {"stage": stage, "repeat": r, "seed": self.seed + r, kind: name}
            for r in range(len(self.inputs.draws))
            for name in values
        ]

    def _options(self, names: Sequence[str]) -> dict[str, str]:
        """Return the options of models by method, so that runs with others are other runs."""
        methods = {name: self.inputs.methods[name] for name in names}
        return {
            name: json.dumps(dict(of.options), sort_keys=True, default=_named)
            if isinstance(of, ModelMethod)
            else ""
            for name, of in methods.items()
        }

    def _training_sets(self, names: Sequence[str]) -> list[TrainingSet]:
        """Return the rows of the result."""
        sets = [REAL]
        if np.ptp(np.bincount(self.inputs.train(0)[1])) > 0:
            sets.append(WEIGHTED)
        both = [name for name in names if isinstance(self.inputs.methods[name], ModelMethod)]
        if "transforms" not in names:
            both = []
        combined = [f"transforms & {name}" for name in both]
        numbers = [n for n in self.numbers if _counts(n, self.inputs.train(0)[1])]
        sets += [
            TrainingSet("real + synthetic", name, number)
            for name in (*names, *combined)
            for number in numbers
        ]
        sets += [
            TrainingSet("synthetic only", name, number)
            for name in names
            for number in numbers
            if number != "balance"
        ]
        return sets

    def _samples(self, files: Mapping[str, Any]) -> dict[str, ArrayDataset]:
        """Return the first training set, and the synthetic sets that were made of it."""
        found = {"real": self.inputs.train(0)}
        found |= {name: _arrays(of) if isinstance(of, Path) else of for name, of in files.items()}
        return {
            name: ArrayDataset.from_arrays(
                x.astype(self.inputs.pool.x.numpy().dtype),
                np.asarray(self.class_names)[y],
                class_names=self.class_names,
            )
            for name, (x, y) in found.items()
        }

    def _quality(
        self, table: RunTable, names: Sequence[str]
    ) -> dict[str, dict[str, NDArray[np.float64]]]:
        """Return figures of the samples of each method: ``(repeats,)`` by name."""
        found: dict[str, dict[str, NDArray[np.float64]]] = {}
        for name in names:
            rows = [row.figures["quality"] for row in table if row.settings["method"] == name]
            found[name] = {
                figure: np.array([np.nan if r.get(figure) is None else r[figure] for r in rows])
                for figure in dict.fromkeys(figure for r in rows for figure in r)
            }
        return found

    def _result(
        self,
        table: RunTable,
        sets: Sequence[TrainingSet],
        parameters: Sequence[Mapping[str, Any]],
        quality: Mapping[str, dict[str, NDArray[np.float64]]],
        left_out: Mapping[str, str],
    ) -> StudyResult:
        inputs, repeats = self.inputs, len(self.inputs.draws)
        classifiers = tuple(inputs.classifiers)
        cohorts = list(inputs.held_out(0))
        figures = {
            cohort: {
                name: np.full((len(sets), len(classifiers), repeats), np.nan)
                for name in CLASSIFICATION_FIGURES
            }
            for cohort in cohorts
        }
        gan_test = {name: np.zeros(repeats) for name in quality}
        for row in table:
            one = row.settings
            place = (
                sets.index(TrainingSet(one["part"], one["method"], one["number"])),
                classifiers.index(one["classifier"]),
                one["repeat"],
            )
            for cohort in cohorts:
                for name, value in row.figures[cohort].items():
                    figures[cohort][name][place] = np.nan if value is None else value
            for name, value in row.figures["gan_test"].items():
                gan_test[name][one["repeat"]] += value / len(classifiers)
        full = {name: {**of, "gan_test": np.array(gan_test[name])} for name, of in quality.items()}
        draw = inputs.draws[0]
        return StudyResult(
            training_sets=tuple(sets),
            classifiers=classifiers,
            figures=figures,
            tuned={name: [of[name] for of in parameters] for name in classifiers},
            quality=full,
            left_out=left_out,
            settings={
                "metric": self.metric,
                "models": [n for n in full if isinstance(inputs.methods[n], ModelMethod)],
                "synthetic": list(self.numbers),
                "real_share": inputs.real_share,
                "repeats": repeats,
                "seed": self.seed,
                "class_names": list(self.class_names),
                "num_pool": len(inputs.pool),
                "num_train": len(draw.train),
                "num_validation": len(draw.validation),
                "num_test": len(inputs.held_out(0)["test"][1]),
                "per_class": np.bincount(inputs.y[draw.train]).tolist(),
                "resplit": draw.test is not None,
                "input_shape": list(inputs.pool.input_shape),
            },
        )


# --- arguments ----------------------------------------------------------------------------------


def _check_numbers(synthetic: Number | Sequence[Number]) -> list[str]:
    given = [synthetic] if isinstance(synthetic, (int, str)) else list(synthetic)
    for one in given:
        text = str(one)
        if text == "balance" or (text.isdecimal() and int(text) >= 1):
            continue
        if text.startswith("x") and text[1:].isdecimal() and int(text[1:]) >= 2:
            continue
        raise ConfigurationError(
            f"synthetic={one!r}: expected a number of at least 1, 'balance', or 'x5' for five "
            "times the size"
        )
    if not given or len(set(map(str, given))) < len(given):
        raise ConfigurationError(f"synthetic={synthetic!r}: expected different numbers")
    return list(map(str, given))


def _counts(number: str, y: Array) -> dict[int, int]:
    """Return how many samples of each class a number means, without classes that need none.

    >>> _counts("balance", np.array([0, 0, 0, 1])), _counts("x3", np.array([0, 0, 1]))
    ({1: 2}, {0: 4, 1: 2})
    """
    sizes = {int(c): int(n) for c, n in zip(*np.unique(y, return_counts=True), strict=True)}
    if number == "balance":
        largest = max(sizes.values())
        return {c: largest - n for c, n in sizes.items() if n < largest}
    if number.startswith("x"):
        return {c: (int(number[1:]) - 1) * n for c, n in sizes.items()}
    return dict.fromkeys(sizes, int(number))


def _check_sets(
    x: Any, y: Any, x_test: Any, y_test: Any, cohorts: Mapping[str, tuple[Any, Any]]
) -> tuple[ArrayDataset, dict[str, ArrayDataset]]:
    """Return the pool, and the test sets by name, with the classes of the pool."""
    pool = x if isinstance(x, ArrayDataset) else ArrayDataset.from_arrays(x, encoded(y))
    if pool.y is None or not pool.class_names:
        raise DataError("y has no labels: expected one for each observation of x")
    if len(pool.classes) < 2:
        raise DataError(f"y has {len(pool.classes)} class(es): expected at least two")
    given = {} if x_test is None else {"test": (x_test, y_test)}
    for name in cohorts:
        if name in ("test", "validation"):
            raise ConfigurationError(f"cohorts has the name {name!r}: expected another")
    tests = {
        name: _as_pool("x_test" if name == "test" else f"cohort {name!r}", pool, *sets)
        for name, sets in {**given, **cohorts}.items()
    }
    return pool, tests


def encoded(y: Any) -> Any:
    """Return labels unchanged; raise a clear error without labels."""
    if y is None:
        raise DataError("y is None: expected a label for each observation of x")
    return y


def _as_pool(name: str, pool: ArrayDataset, x: Any, y: Any) -> ArrayDataset:
    if isinstance(x, ArrayDataset):
        names, indices = x.class_names, x.y
        if indices is None or not names:
            raise DataError(f"{name} has no labels: expected one for each observation")
    else:
        indices, names = encode_labels(encoded(y))
    if unknown := sorted(set(names) - set(pool.class_names)):
        label = "y_test" if name == "x_test" else name
        raise DataError(f"{label} has classes that are not in y: {', '.join(unknown)}")
    if isinstance(x, ArrayDataset):
        places = torch.tensor([pool.class_names.index(label) for label in names])
        data = replace(x.to(dtype=pool.x.dtype), y=places[indices], class_names=pool.class_names)
    else:
        as_names = np.asarray(names)[indices.numpy()]
        data = ArrayDataset.from_arrays(x, as_names, class_names=pool.class_names)
    data = data.with_columns_of(pool.form, name)
    if data.input_shape != pool.input_shape:
        raise DataError(
            f"{name} has observations of shape {data.input_shape}: expected {pool.input_shape}"
        )
    return data


def _typical(pool: ArrayDataset, draw: Draw) -> Array:
    """Return the typical values of the training set of a draw."""
    train = pool.subset(draw.train)
    mask = None if train.mask is None else train.mask.numpy()
    return typical_values(train.x.numpy(), mask, pool.form)


def _check_two_classes(sets: Mapping[str, tuple[Array, Array]]) -> None:
    for name in ("validation", "test"):
        if len(np.unique(sets[name][1])) < 2:
            raise DataError(f"the {name} set has one class: expected two for metric='auc'")


def _labels(data: ArrayDataset) -> Array:
    assert data.y is not None
    return data.y.numpy()


@contextmanager
def _folder(folder: str | Path | None) -> Iterator[Path]:
    """Yield the folder, or a temporary one for None."""
    if folder is not None:
        yield Path(folder)
        return
    with TemporaryDirectory(prefix="chartae-study-") as temporary:
        yield Path(temporary)


def _named(value: Any) -> str:
    """Return the name of what is not JSON, without its address in memory."""
    return str(getattr(value, "__qualname__", type(value).__qualname__))


def _arrays(path: Path) -> tuple[Array, Array]:
    with np.load(path, allow_pickle=False) as archive:
        return archive["x"], archive["y"]


# --- the runs -----------------------------------------------------------------------------------


def _generate(settings: Mapping[str, Any], inputs: _Inputs, attempt: int) -> Outcome:
    """Call a method, check its output, which is a file of the row, and measure its quality."""
    name, repeat, seed = settings["method"], settings["repeat"], settings["seed"]
    x, y = inputs.train(repeat)
    counts: dict[int, int] = {}
    for number in settings["numbers"]:
        for c, n in _counts(number, y).items():
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
    inputs: _Inputs, repeat: int, seed: int, made: Array, labels: Array
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


def _tune(settings: Mapping[str, Any], inputs: _Inputs, attempt: int) -> Outcome:
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
    search = GridSearchCV(
        estimator,
        dict(classifier.grid),
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
    from sklearn.model_selection import ParameterGrid

    def score(parameters: Mapping[str, Any]) -> float:
        fitted = fit_classifier(
            classifier, *train, parameters=parameters, seed=seed, validation=validation
        )
        predicted = np.asarray(fitted.predict(validation[0]))
        return classification_figures(validation[1], predicted)["balanced_accuracy"]

    best: dict[str, Any] = max(ParameterGrid(dict(classifier.grid)), key=score)
    return best


def _score(settings: Mapping[str, Any], inputs: _Inputs, attempt: int) -> Outcome:
    """Train a classifier on one training set; measure it on all held-out sets."""
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
            inputs.made(repeat, part, _counts(number, y)) for part in method.split(" & ") if part
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
    sets = inputs.held_out(repeat)
    count = inputs.num_classes
    with _quiet():
        estimator = fit_classifier(
            classifier,
            _prepared(x, x, classifier, real),
            y,
            parameters=inputs.parameters[repeat][name],
            seed=derive_seed(settings["seed"], "classifier", name),
            weight=weight,
            growth=growth,
            validation=(
                _prepared(sets["validation"][0], x, classifier, real),
                sets["validation"][1],
            ),
        )

        def figures(part: Array, labels: Array) -> dict[str, float]:
            predicted, scores = scores_of(estimator, _prepared(part, x, classifier, real), count)
            return classification_figures(labels, predicted, scores, num_classes=count)

        found: dict[str, Any] = {cohort: figures(*both) for cohort, both in sets.items()}
        found["gan_test"] = {}
        if settings["part"] == "real" and method is None:
            largest = dict.fromkeys(range(count), COMPARED)
            for other in inputs.synthetic[repeat]:
                made = inputs.made(repeat, other, largest)
                found["gan_test"][other] = figures(made[0].astype(real.dtype), made[1])["accuracy"]
    return Outcome(found)


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
