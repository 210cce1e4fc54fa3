"""Studies of augmentation: classifiers with and without synthetic data, over repeated draws."""

import json
import logging
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
from chartae.augmentation.classifiers import Classifier, default_classifiers
from chartae.augmentation.draws import make_draws
from chartae.augmentation.methods import Method, ModelMethod
from chartae.augmentation.results import REAL, WEIGHTED, StudyResult, TrainingSet
from chartae.augmentation.study_runs import (
    SYNTHETIC,
    Inputs,
    generate,
    numbers_by_class,
    read_arrays,
    score,
    tune,
    typical_of,
)
from chartae.checks import check_choice, check_integer, check_number
from chartae.data import ArrayDataset, encode_labels
from chartae.errors import ConfigurationError, DataError
from chartae.evaluation.classification import CLASSIFICATION_FIGURES
from chartae.runs import Progress, RunTable, execute

__all__ = ["augmentation_study"]

logger = logging.getLogger(__name__)

Array = NDArray[Any]
Advance = Callable[[int, int], None]
Number = int | str


def augmentation_study(
    x: Any,
    y: ArrayLike | Tensor | None = None,
    x_test: Any = None,
    y_test: ArrayLike | Tensor | None = None,
    *,
    methods: Mapping[str, Method],
    classifiers: Mapping[str, Classifier] | None = None,
    cohorts: Mapping[str, tuple[Any, Any]] | None = None,
    channels_last: bool = False,
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
        channels_last: whether arrays are ``(N, *sizes, channels)``. An `ArrayDataset` has its own.
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
        folder: keeps finished parts, so that the same call continues after an interruption;
            None keeps nothing. Models are known there by name and options, classifiers by name and
            hyper-parameters, and other methods by name: take another folder if one changes in
            another way.
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
    pool, tests = _check_sets(x, y, x_test, y_test, cohorts or {}, channels_last)
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
    inputs = Inputs(
        pool,
        tests,
        draws,
        methods,
        classifiers,
        real_share,
        typical=[typical_of(pool, draw) for draw in draws] if incomplete else (),
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
class _Study:
    """The three tables of runs of a study: synthetic sets, tuned parameters, and scores."""

    inputs: Inputs
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
        tuned = [
            one | {"candidates": self._candidates(one)}
            for one in self._settings("tuning", classifier=inputs.classifiers)
        ]
        done = [0, len(made) + len(tuned) + len(repeats) * len(inputs.classifiers)]

        def execute_all(function: Any, settings: Sequence[Any], shared: Inputs) -> RunTable:
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
        table = execute_all(generate, made, inputs)
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
                    path.resolve() if scheduler is None else read_arrays(path)
                )
        rows = execute_all(tune, tuned, inputs).rows
        parameters: list[dict[str, Any]] = [{} for _ in repeats]
        for row in rows:
            parameters[row.settings["repeat"]][row.settings["classifier"]] = row.figures
        sets = self._training_sets(names)
        scored = [
            one
            | {"part": which.part, "method": which.method, "number": which.number, "options": of}
            | {"parameters": parameters[one["repeat"]][one["classifier"]]}
            for which in sets
            for of in [self._options(names if which == REAL else which.methods)]
            for one in self._settings("scores", classifier=inputs.classifiers)
        ]
        done[1] = done[0] + len(scored)
        table = execute_all(score, scored, replace(inputs, synthetic=files))
        result = self._result(table, sets, parameters, quality, left_out)
        return replace(result, samples=self._samples(files[0]))

    def _settings(self, stage: str, **names: Mapping[str, Any]) -> list[dict[str, Any]]:
        ((kind, values),) = names.items()
        return [
            {"stage": stage, "repeat": r, "seed": self.seed + r, kind: name}
            for r in range(len(self.inputs.draws))
            for name in values
        ]

    def _candidates(self, one: Mapping[str, Any]) -> str:
        """Return the hyper-parameters that tuning tries, so that a choice of others is another."""
        candidates = self.inputs.classifiers[one["classifier"]].candidates(one["seed"])
        return json.dumps(candidates, default=_named)

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
        numbers = [n for n in self.numbers if numbers_by_class(n, self.inputs.train(0)[1])]
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
        found |= {
            name: read_arrays(of) if isinstance(of, Path) else of for name, of in files.items()
        }
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


def _check_sets(
    x: Any,
    y: Any,
    x_test: Any,
    y_test: Any,
    cohorts: Mapping[str, tuple[Any, Any]],
    channels_last: bool,
) -> tuple[ArrayDataset, dict[str, ArrayDataset]]:
    """Return the pool, and the test sets by name, with the classes of the pool."""
    pool = x
    if not isinstance(x, ArrayDataset):
        pool = ArrayDataset.from_arrays(x, encoded(y), channels_last=channels_last)
    if pool.y is None or not pool.class_names:
        raise DataError("y has no labels: expected one for each observation of x")
    if len(pool.classes) < 2:
        raise DataError(f"y has {len(pool.classes)} class(es): expected at least two")
    given = {} if x_test is None else {"test": (x_test, y_test)}
    for name in cohorts:
        if name in ("test", "validation"):
            raise ConfigurationError(f"cohorts has the name {name!r}: expected another")
    tests = {
        name: _as_pool(
            "x_test" if name == "test" else f"cohort {name!r}", pool, *sets, channels_last
        )
        for name, sets in {**given, **cohorts}.items()
    }
    return pool, tests


def encoded(y: Any) -> Any:
    """Return labels unchanged; raise a clear error without labels."""
    if y is None:
        raise DataError("y is None: expected a label for each observation of x")
    return y


def _as_pool(name: str, pool: ArrayDataset, x: Any, y: Any, channels_last: bool) -> ArrayDataset:
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
        data = ArrayDataset.from_arrays(
            x, as_names, class_names=pool.class_names, channels_last=channels_last
        )
    data = data.with_columns_of(pool.form, name)
    if data.input_shape != pool.input_shape:
        raise DataError(
            f"{name} has observations of shape {data.input_shape}: expected {pool.input_shape}"
        )
    return data


def _check_two_classes(sets: Mapping[str, tuple[Array, Array]]) -> None:
    for name in ("validation", "test"):
        if len(np.unique(sets[name][1])) < 2:
            raise DataError(f"the {name} set has one class: expected two for metric='auc'")


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
