"""Synthetic labelled data from a few real ones."""

import copy
import inspect
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, get_args

import torch
from numpy.typing import NDArray
from torch import Tensor

import chartae
from chartae.atomic import check_writable, write_text
from chartae.augmentation.fidelity import ClassFidelity, Fidelity
from chartae.augmentation.labels import Labels
from chartae.augmentation.messages import warnings_about
from chartae.augmentation.recipes import RECIPES
from chartae.checks import check_boolean, check_choice, check_integer
from chartae.data import ArrayDataset, Form, encode_labels, held_out_split
from chartae.errors import ChartaeError, CheckpointError, ConfigurationError, DataError
from chartae.models import CVAE, MODELS, Autoencoder
from chartae.naming import folder_name
from chartae.persistence import CONFIG_FILE, WEIGHTS_FILE
from chartae.persistence import load as load_module
from chartae.randomness import derive_seed, resolve_seed, seeded
from chartae.samplers import SAMPLERS, Sampler, natural_sampler
from chartae.training import (
    CHECKPOINT_FILE,
    HISTORY_FILE,
    History,
    default_options,
    fit,
    fit_defaults,
)

__all__ = ["ALL", "MODELS", "RECORD_FILE", "SAMPLERS", "Augmenter", "json_or_none"]

logger = logging.getLogger(__name__)

Singles = Literal["skip", "refuse"]
Count = int | Mapping[Any, int] | Literal["balance"]
CHECKED = 100
"""Number of samples of each class that `fit` compares to its real examples."""
RECORD_FILE = "augmenter.json"
"""File that lists the classes of an augmenter; each has a folder beside it."""
EPOCHS = 250
"""Number of epochs for few examples, from which none can be held out."""
ENOUGH = 500
"""Number of examples of a model from which on held-out examples choose the number of epochs.

The loss of fewer is lowest long before samples are sharp (docs/augmentation.md).
"""
LONGEST, PATIENCE, HELD_OUT = 500, 40, 0.2
"""Limit of that choice, the epochs without improvement that end it, and the share held out."""
ALL = "all"
"""The name under which a conditional augmenter keeps its one model."""


class Learned(NamedTuple):
    """A trained model with its sampler, its history and a check of its samples."""

    sampler: Sampler
    history: History
    fidelity: Mapping[str, ClassFidelity]
    """For each class of the model, by name."""


class Augmenter:
    """Learn each class from a few examples with its own model, and draw new examples.

    The method is that of the thesis (section 1.4): a geometry-aware VAE for each class, sampled by
    its learned metric (`VolumeSampler`). With ``conditional`` one model learns all classes, given
    the label. Its codes then represent what classes have in common.

    Samples and labels have the dtype, layout and container of the data given to `fit`. Samples of
    tables, counts and categories are drawn from the likelihood. Other samples, such as images, are
    means of the likelihood.

    Args:
        model: a name (`MODELS`), or a function from an input shape to a model; with
            ``conditional``, the function also takes ``conditions``, the number of classes.
        sampler: a name (`SAMPLERS`), ``"auto"`` for the sampler that suits the model
            (`natural_sampler`), or a function from an untrained model to a sampler.
        model_options: arguments of the model's class, if ``model`` is a name. They replace the
            `default_options`, which suit the data.
        sampler_options: arguments of the sampler's class, if ``sampler`` is a name.
        fit_options: arguments of `chartae.fit`; by default without a progress bar. Without
            ``"epochs"`` a model of fewer than 500 examples has 250 epochs. For more examples a
            first training on four fifths of them finds the number of epochs with the lowest loss on
            the others, at most 500, and a second one on all examples takes this number.
        conditional: whether one model learns all classes. A CVAE always does.
        channels_last: whether samples are ``(N, *sizes, channels)``.
        singles: what to do with a class of one example, which is not enough for its own model:
            ``"skip"`` it with a warning, or ``"refuse"`` the data.
        jobs: number of processes that learn classes at the same time, with one thread each.
        seed: seed of the models, of training, and of samples if `sample` gets no other seed.
        output_dir: folder that keeps the trained models, in one folder per class; an interrupted
            `fit` continues there. None keeps nothing.

    Attributes:
        class_counts_: the number of examples of each class, by name.
        classes_: the labels, ascending; their indices are the conditions of a conditional model.
        models_: the trained models, by class name; a conditional model has the name ``"all"``.
        samplers_: the samplers, by the same names.
        histories_: the `History` of each training, by the same names.
        fidelity_: how samples compare to the real examples, by class name: whether a class has
            collapsed, whether samples are copies or gather around a few examples, and the warnings
            of the library. `fit` logs its ``problems``, one line per class.

    Raises:
        ConfigurationError: for unknown names or options.

    >>> from chartae.data import digits, few_per_class
    >>> data = digits()
    >>> few, _ = few_per_class(data.y, 5, seed=0)
    >>> augmenter = Augmenter(fit_options={"epochs": 5}, seed=0)
    >>> augmenter = augmenter.fit(data.x[few].numpy(), data.y[few].numpy())
    >>> x, y = augmenter.sample(2)
    >>> x.shape, y[:4]
    ((20, 8, 8), array([0, 0, 1, 1]))
    """

    class_counts_: dict[str, int]
    classes_: NDArray[Any]
    models_: dict[str, Autoencoder]
    samplers_: dict[str, Sampler]
    histories_: dict[str, History]
    fidelity_: Fidelity

    def __init__(
        self,
        model: str | Callable[..., Autoencoder] = "rhvae",
        sampler: str | Callable[[Autoencoder], Sampler] = "volume",
        *,
        model_options: Mapping[str, Any] | None = None,
        sampler_options: Mapping[str, Any] | None = None,
        fit_options: Mapping[str, Any] | None = None,
        conditional: bool = False,
        channels_last: bool = False,
        singles: Singles = "skip",
        jobs: int = 1,
        seed: int = 0,
        output_dir: str | Path | None = None,
    ) -> None:
        # Kept unchanged, so that scikit-learn can clone the augmenter.
        self.model, self.sampler = model, sampler
        self.model_options, self.sampler_options = model_options, sampler_options
        self.fit_options = fit_options
        self.conditional, self.channels_last = conditional, channels_last
        self.singles, self.jobs, self.seed, self.output_dir = singles, jobs, seed, output_dir
        self._check_arguments()

    @classmethod
    def from_recipe(cls, name: str, **arguments: Any) -> Self:
        """Return an augmenter with the hyper-parameters of a table of the thesis.

        Args:
            name: a name of `RECIPES`.
            arguments: arguments of `Augmenter`. Options of the model, the sampler and the training
                replace those of the recipe one by one. Another sampler has no options of the
                recipe.

        Raises:
            ConfigurationError: for an unknown name, another model, or a wrong argument.

        >>> Augmenter.from_recipe("thesis/mnist", seed=3).model_options["latent_dim"]
        2
        """
        check_choice("recipe", name, RECIPES)
        recipe: dict[str, Any] = dict(RECIPES[name].arguments)
        if (model := arguments.get("model", recipe["model"])) != recipe["model"]:
            raise ConfigurationError(
                f"model={model!r}: the recipe {name!r} is one of the model {recipe['model']!r}"
            )
        if arguments.get("sampler", "auto") not in ("auto", recipe["sampler"]):
            del recipe["sampler_options"]
        for key in ("model_options", "sampler_options", "fit_options"):
            if key in recipe:
                arguments[key] = recipe[key] | dict(arguments.get(key) or {})
        return cls(**(recipe | arguments))

    def fit(self, x: Any, y: Any = None, mask: Any = None, *, weight: Any = None) -> Self:
        """Train on observations ``(N, *input_shape)`` with labels ``(N,)``.

        uint8 values are divided by 255 for the models. If `fit` raises an error or is interrupted,
        the augmenter does not change.

        Args:
            x: observations, as for `ArrayDataset.from_arrays`; or an `ArrayDataset` with labels,
                whose labels, mask and weights are used.
            y: labels: integers, booleans or strings.
            mask: bool, the shape of x, True where a feature was observed. A masked array has its
                own mask.
            weight: ``(N,)``, at least 0: how much each example counts in training, relative to the
                other examples of the same model; None gives all the same weight.

        Raises:
            DataError: if the shapes of x and y do not match, if they contain NaN, or if no class
                has two examples, the fewest that a model needs.
            ConfigurationError: for a wrong option of the model or the sampler, a sampler that does
                not support the model, a model without the expected conditions, or an
                ``output_dir`` with other classes.
            KeyboardInterrupt: after Ctrl-C; with ``output_dir``, another `fit` continues.
        """
        self._check_arguments()
        if self.model is None or self.sampler is None:
            raise ConfigurationError(
                "this Augmenter was loaded, and its model or sampler was a function: set it with "
                "set_params before fit"
            )
        data = self.labelled(x, y, mask, weight)
        labels = Labels.of(data.class_names, x if isinstance(x, ArrayDataset) else y)
        parts = {ALL: data} if self.is_conditional else self._each_class(data)
        example, defaults = data.subset([0]), self._default_options(data, parts)
        fresh = {name: self._make(name, example, defaults[name]) for name in parts}
        for name, members in parts.items():
            # Check all classes before the first training: an error later would waste it.
            model = fresh[name].model
            model.check_data("x", model.filled(members.x, members.mask))
        with self._claimed_output(parts):
            learned = self._learn_all(fresh, parts)
        self._form, self._labels = data.form, labels
        self.class_counts_ = {
            name: len(data.of_class(name)) for name in (data.class_names[c] for c in data.classes)
        }
        self.classes_ = labels.values
        self.samplers_ = {name: of.sampler for name, of in learned.items()}
        self.models_ = {name: sampler.model for name, sampler in self.samplers_.items()}
        self.histories_ = {name: of.history for name, of in learned.items()}
        self.fidelity_ = Fidelity({c: f for of in learned.values() for c, f in of.fidelity.items()})
        for note in self.fidelity_.notes():
            logger.warning("%s", note)
        return self

    def sample(self, per_class: Count, seed: int | None = None) -> tuple[Any, Any]:
        """Draw synthetic observations and their labels, class after class.

        Args:
            per_class: number of samples of each class; a mapping from labels to numbers; or
                ``"balance"`` to fill up each class to the size of the largest one.
            seed: seed of the samples; None takes the augmenter's.

        Returns:
            Observations ``(n, *input_shape)`` and labels ``(n,)``, of the types given to `fit`.

        Raises:
            ConfigurationError: before `fit`, for an unknown label or a count below 1.
        """
        counts = self._counts(per_class)
        return self._form.restore(self._draw_all(counts, seed)), self._labels.repeated(counts)

    def sample_dataset(self, per_class: Count, seed: int | None = None) -> ArrayDataset:
        """Draw as `sample` does; return a dataset with the classes of the augmenter.

        Args:
            per_class: as in `sample`.
            seed: as in `sample`.

        Raises:
            ConfigurationError: as `sample` does.
        """
        counts = self._counts(per_class)
        indices = torch.tensor([self.class_names.index(name) for name in counts])
        y = indices.repeat_interleave(torch.tensor(list(counts.values())))
        x = self._draw_all(counts, seed)
        return ArrayDataset(x, y, class_names=self.class_names, form=self._form)

    def labelled(self, x: Any, y: Any = None, mask: Any = None, weight: Any = None) -> ArrayDataset:
        """Return the data set with labels from which `fit` learns, without classes of no example.

        Args:
            x: as in `fit`.
            y: as in `fit`.
            mask: as in `fit`.
            weight: as in `fit`.

        Raises:
            DataError: as `fit` does for x, y, mask and weight.
        """
        if isinstance(x, ArrayDataset):
            if any(given is not None for given in (y, mask, weight)):
                raise DataError("x is an ArrayDataset: expected no y, mask or weight as well")
            if not x.class_names:
                raise DataError("x has no labels: expected one for each observation")
            return _of_present_classes(x)
        encode_labels(y)  # raises an error if they are not labels
        return ArrayDataset.from_arrays(x, y, mask, channels_last=self.channels_last, weight=weight)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes that can be sampled.

        Raises:
            ConfigurationError: before `fit`.
        """
        self._check_fitted()
        return tuple(n for n in self._labels.names if self.is_conditional or n in self.samplers_)

    @property
    def is_conditional(self) -> bool:
        """Whether one model learns all classes."""
        named = isinstance(self.model, str) and issubclass(MODELS[self.model], CVAE)
        return self.conditional or named

    # --- as scikit-learn's estimators -----------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's arguments, as they were given."""
        return {name: getattr(self, name) for name in _ARGUMENTS}

    def set_params(self, **params: Any) -> Self:
        """Change arguments; the next `fit` uses them.

        Raises:
            ConfigurationError: for an unknown name or a value that is not allowed.
        """
        for name in params:
            check_choice("params", name, _ARGUMENTS)
        before = self.get_params()
        try:
            vars(self).update(params)
            self._check_arguments()
        except ConfigurationError:
            vars(self).update(before)
            raise
        return self

    def __repr__(self) -> str:
        given = {
            name: value
            for name, value in self.get_params().items()
            if value != _ARGUMENTS[name].default
        }
        return f"Augmenter({', '.join(f'{name}={value!r}' for name, value in given.items())})"

    # --- persistence ----------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write one folder per class, with its sampler, its model and its history.

        `Augmenter.load` and ``chartae sample`` read them. An augmenter that was saved in the same
        folder before is replaced, with all its folders. No other file is replaced.

        Raises:
            ConfigurationError: before `fit`; if the folder has other files or is not writable; if
                a model contains a module that cannot be saved.
            CheckpointError: if writing fails.
        """
        self._check_fitted()
        folder = check_writable("folder", folder)
        record = folder / RECORD_FILE
        if record.exists():
            _clear(folder)
        if any(folder.iterdir()):
            raise ConfigurationError(
                f"folder={str(folder)!r} has files that no augmenter wrote: expected a new folder"
            )
        for name, sampler in self.samplers_.items():
            sampler.save_pretrained(folder / folder_name(name))
            self.histories_[name].save(folder / folder_name(name) / HISTORY_FILE)
        write_text(
            record,
            json.dumps(
                {
                    "chartae": chartae.__version__,
                    "arguments": {k: json_or_none(v) for k, v in self.get_params().items()},
                    "form": self._form.to_json(),
                    "labels": self._labels.to_json(),
                    "names": list(self.samplers_),
                    "counts": self.class_counts_,
                    "fidelity": self.fidelity_.to_json(),
                },
                indent=1,
            ),
        )

    @classmethod
    def load(cls, folder: str | Path, **modules: Any) -> Self:
        """Return the augmenter that `save` wrote.

        Args:
            folder: the folder given to `save`.
            modules: arguments of models that are modules of your own, as for `chartae.load`.

        Raises:
            CheckpointError: if the folder does not contain an augmenter, or a file is damaged.
        """
        folder = Path(folder)
        record = _read_record(folder / RECORD_FILE)
        try:
            augmenter = cls(**record["arguments"])
            augmenter._form = Form.from_json(record["form"])
            augmenter._labels = Labels.from_json(record["labels"])
            augmenter.classes_ = augmenter._labels.values
            augmenter.class_counts_ = {str(k): int(n) for k, n in record["counts"].items()}
            augmenter.fidelity_ = Fidelity.from_json(record.get("fidelity", {}))
            places = {name: folder / folder_name(name) for name in record["names"]}
        except (ChartaeError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{folder / RECORD_FILE} is damaged: {error}") from error
        augmenter.samplers_ = {
            name: load_module(place, **modules) for name, place in places.items()
        }
        if strange := [n for n, s in augmenter.samplers_.items() if not isinstance(s, Sampler)]:
            raise CheckpointError(
                f"{places[strange[0]]} contains no sampler: the augmenter is damaged"
            )
        augmenter.models_ = {name: s.model for name, s in augmenter.samplers_.items()}
        augmenter.histories_ = {n: History.load(p / HISTORY_FILE) for n, p in places.items()}
        return augmenter

    # --- details ------------------------------------------------------------------------------

    def _check_arguments(self) -> None:
        if isinstance(self.model, str):
            check_choice("model", self.model, MODELS)
        if isinstance(self.sampler, str):
            check_choice("sampler", self.sampler, ["auto", *SAMPLERS])
        for name in ("model_options", "sampler_options", "fit_options"):
            if not isinstance(given := getattr(self, name), Mapping | None):
                raise ConfigurationError(f"{name}={given!r}: expected a mapping or None")
        check_boolean("conditional", self.conditional)
        check_boolean("channels_last", self.channels_last)
        check_choice("singles", self.singles, get_args(Singles))
        check_integer("jobs", self.jobs, minimum=1)
        check_integer("seed", self.seed, minimum=0)
        _check_options("fit_options", self.fit_options, fit)

    def _each_class(self, data: ArrayDataset) -> dict[str, ArrayDataset]:
        """Return the examples of each class that has at least two, by class name."""
        names = [data.class_names[index] for index in data.classes]
        parts = {name: data.of_class(name) for name in names}
        single = [name for name, members in parts.items() if len(members) < 2]
        if single and (self.singles == "refuse" or len(single) == len(parts)):
            raise DataError(
                f"y has one example of class {single[0]!r}: expected at least 2 to learn it from"
            )
        if single:
            logger.warning(
                "left out %s, with one example each: a class needs 2 to be learned",
                ", ".join(f"class {name!r}" for name in single),
            )
        return {name: members for name, members in parts.items() if name not in single}

    def _default_options(
        self, data: ArrayDataset, parts: Mapping[str, ArrayDataset]
    ) -> dict[str, dict[str, Any]]:
        """Return default arguments of the model's class for the training set of each name."""
        if not isinstance(self.model, str):
            return {name: {} for name in parts}
        chosen = partial(default_options, self.model, conditional=self.is_conditional)
        whole = chosen(data=data)
        # Contrast is checked for each class of images; a table has one likelihood for all classes.
        if len(data.input_shape) == 1 or "link" not in whole["likelihood"]:
            return dict.fromkeys(parts, whole)
        return {name: chosen(data=members) for name, members in parts.items()}

    def _make(self, name: str, data: ArrayDataset, defaults: Mapping[str, Any]) -> Sampler:
        """Return an untrained model with its sampler.

        Args:
            name: name of a class, or `ALL`.
            data: one observation of the training set, with its shape and its classes.
            defaults: arguments for the model's class; those of the user replace them.
        """
        conditions = data.num_classes if self.is_conditional else None
        given = {} if conditions is None else {"conditions": conditions}
        with seeded(self.seed, "model", name):
            if isinstance(self.model, str):
                options = {**defaults, **given, **(self.model_options or {})}
                model = MODELS[self.model](data.input_shape, **options)
            else:
                model = self.model(data.input_shape, **given)
        if not isinstance(model, Autoencoder):
            raise ConfigurationError(
                f"model returns {type(model).__name__}: expected a model of chartae"
            )
        if model.conditions != conditions:
            raise ConfigurationError(
                f"conditional={self.is_conditional}, and the model has "
                f"conditions={model.conditions}: expected {conditions}"
            )
        model = model.to(data.x.dtype)
        model.metadata = {**model.metadata, **data.metadata}
        if isinstance(self.sampler, str):
            kind = natural_sampler(model) if self.sampler == "auto" else self.sampler
            return SAMPLERS[kind](model, **(self.sampler_options or {}))
        return self.sampler(model)

    def _learn(
        self,
        name: str,
        sampler: Sampler,
        members: ArrayDataset,
        place: Path | None,
    ) -> Learned:
        """Train a model, fit its sampler, and compare its samples to the real examples."""
        options: dict[str, Any] = {"epochs": EPOCHS, "progress": False, **fit_defaults(members)}
        options |= self.fit_options or {}
        options["seed"] = derive_seed(self.seed, "fit", name)
        if self.jobs > 1:
            options["progress"] = False  # several processes would overwrite each other's bars
        if place is not None:
            folder = place / folder_name(name)
            options |= {"output_dir": folder, "resume": True}
        subject = "all classes" if self.is_conditional else f"class {name!r}"
        with warnings_about(subject) as warned:
            if "epochs" not in (self.fit_options or {}) and len(members) >= ENOUGH:
                options["epochs"] = self._chosen_epochs(name, sampler.model, members, options)
            history = fit(sampler.model, members, **options)
            if history.stopped == "interrupted":
                return Learned(sampler, history, {})
            given = {} if members.mask is None else {"mask": members.mask}
            sampler.fit(members.x, members.y if self.is_conditional else None, **given)
        return Learned(sampler, history, self._compare(sampler, members, warned))

    def _chosen_epochs(
        self, name: str, model: Autoencoder, members: ArrayDataset, options: Mapping[str, Any]
    ) -> int:
        """Return the number of epochs after which the loss of held-out examples is lowest.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
        """
        train, held_out = held_out_split(members, HELD_OUT, seed=derive_seed(self.seed, name))
        own = {"epochs": LONGEST, "patience": PATIENCE, "output_dir": None, "resume": False}
        history = fit(copy.deepcopy(model), train, held_out, **{**options, **own})
        if history.stopped == "interrupted":
            raise KeyboardInterrupt
        assert history.best_epoch is not None  # there was a validation set
        return history.best_epoch + 1

    def _compare(
        self, sampler: Sampler, members: ArrayDataset, warned: list[str]
    ) -> dict[str, ClassFidelity]:
        """Return how samples compare to the examples of each class that has at least two."""
        found = {}
        for index in members.classes:
            name = members.class_names[index]
            real = members.of_class(name)
            if len(real) < 2:
                continue
            y = index if self.is_conditional else None
            with warnings_about(f"class {name!r}") as also:
                made = _draw(sampler, CHECKED, derive_seed(self.seed, "class", name), y)
            warnings = dict.fromkeys([*warned, *also])
            found[name] = ClassFidelity.of(real.x.cpu(), made.cpu(), _on_cpu(real.mask), warnings)
        return found

    def _learn_all(
        self, fresh: Mapping[str, Sampler], parts: Mapping[str, ArrayDataset]
    ) -> dict[str, Learned]:
        """Return the result of `_learn` for each name, one after another or in several processes.

        Raises:
            KeyboardInterrupt: after Ctrl-C; the remaining classes are not trained.
        """
        # An absolute path, because a worker process may have another working directory.
        place = None if self.output_dir is None else Path(self.output_dir).resolve()
        calls = [(name, fresh[name], members, place) for name, members in parts.items()]
        learned: Iterable[Learned]
        if self.jobs == 1 or len(parts) == 1:
            learned = (self._learn(*call) for call in calls)
        else:
            from joblib import Parallel, delayed, parallel_config

            with parallel_config("loky", n_jobs=self.jobs, inner_max_num_threads=1):
                learned = Parallel()(delayed(self._learn)(*call) for call in calls)
        results = {}
        for name, of in zip(parts, learned, strict=True):
            if of.history.stopped == "interrupted":
                raise KeyboardInterrupt
            results[name] = of
        return results

    @contextmanager
    def _claimed_output(self, names: Iterable[str]) -> Iterator[None]:
        """Write a record of the classes to ``output_dir``.

        A new record is removed if the block raises an error before it writes other files.

        Raises:
            ConfigurationError: if the folder has models of other classes.
        """
        if self.output_dir is None:
            yield
            return
        folder = check_writable("output_dir", self.output_dir)
        record = folder / RECORD_FILE
        names = list(names)
        if record.exists() and set(known := _read_record(record)["names"]) - set(names):
            raise ConfigurationError(
                f"output_dir={str(folder)!r} has models of the classes {', '.join(known)}: "
                f"expected the same as now, {', '.join(names)}, or another folder"
            )
        content = {"chartae": chartae.__version__, "names": names}
        new = not record.exists()
        write_text(record, json.dumps(content, indent=1))
        try:
            yield
        except ChartaeError:
            files = (entry for entry in folder.rglob("*") if not entry.is_dir())
            if new and set(files) == {record}:  # e.g. a wrong option of `fit`
                record.unlink()
            raise

    def _draw_all(self, counts: Mapping[str, int], seed: int | None) -> Tensor:
        seed = self.seed if seed is None else resolve_seed(seed)
        return torch.cat([self._draw(name, n, seed) for name, n in counts.items()]).cpu()

    def _draw(self, name: str, n: int, seed: int) -> Tensor:
        """Return n observations of a class."""
        sampler = self.samplers_[ALL if self.is_conditional else name]
        y = self._labels.names.index(name) if self.is_conditional else None
        with warnings_about(f"class {name!r}"):
            return _draw(sampler, n, derive_seed(seed, "class", name), y)

    def _check_fitted(self) -> None:
        if not getattr(self, "samplers_", None):
            raise ConfigurationError("this Augmenter has not been fitted: call fit(x, y) first")

    def _counts(self, per_class: Count) -> dict[str, int]:
        known = self.class_names
        if per_class == "balance":
            largest = max(self.class_counts_.values())
            per_class = {name: largest - self.class_counts_[name] for name in known}
            per_class = {name: n for name, n in per_class.items() if n}
            if not per_class:
                raise ConfigurationError(
                    "per_class='balance', and all classes have the same size: expected a number"
                )
        if isinstance(per_class, str):
            raise ConfigurationError(
                f"per_class={per_class!r}: expected a number, a mapping or 'balance'"
            )
        if not isinstance(per_class, Mapping):
            per_class = dict.fromkeys(known, per_class)
        if not per_class:
            raise ConfigurationError(f"per_class is empty: expected counts of {', '.join(known)}")
        counts = {str(label): n for label, n in per_class.items()}
        for name, n in counts.items():
            check_choice("per_class", name, known)
            check_integer(f"per_class[{name!r}]", n, minimum=1)
        return {name: int(n) for name, n in counts.items()}


def _draw(sampler: Sampler, n: int, seed: int, y: int | None) -> Tensor:
    """Return n observations: draws from the likelihood if its means are not valid observations."""
    return sampler.sample(n, seed=seed, y=y, draw=sampler.model.observation_model.samples_are_draws)


def _on_cpu(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.cpu()


_ARGUMENTS = dict(inspect.signature(Augmenter).parameters)


def _check_options(
    name: str, options: Mapping[str, Any] | None, function: Callable[..., Any]
) -> None:
    # The augmenter sets the data, the seed and the folder of models itself.
    own = {"model", "train", "seed", "output_dir", "resume"}
    known = [option for option in inspect.signature(function).parameters if option not in own]
    for option in options or {}:
        check_choice(name, option, known)


def _of_present_classes(data: ArrayDataset) -> ArrayDataset:
    """Return the data set without the classes that have no sample."""
    present = torch.tensor(data.classes)
    if len(present) == data.num_classes or data.y is None:
        return data
    names = tuple(data.class_names[index] for index in data.classes)
    y = torch.searchsorted(present, data.y.cpu()).to(data.y.device)
    return replace(data, y=y, class_names=names)


# Files in the folder of a class, written by `save` or by a training.
_FILES = {CONFIG_FILE, WEIGHTS_FILE, HISTORY_FILE, CHECKPOINT_FILE}


def _clear(folder: Path) -> None:
    """Remove the files of an augmenter from a folder.

    Raises:
        ConfigurationError: if there are other files; then nothing is removed.
    """
    places = [folder / folder_name(name) for name in _read_record(folder / RECORD_FILE)["names"]]
    entries = [entry for place in places if place.is_dir() for entry in place.iterdir()]
    if strange := [entry for entry in entries if entry.name not in _FILES]:
        raise ConfigurationError(
            f"folder={str(folder)!r} has {strange[0]}, which no augmenter wrote: expected a new "
            "folder"
        )
    for entry in entries:
        entry.unlink()
    for place in places:
        if place.is_dir():
            place.rmdir()
    (folder / RECORD_FILE).unlink()


def json_or_none(value: Any) -> Any:
    """Return an argument as JSON values; None for functions and modules, which are not saved."""
    try:
        return json.loads(json.dumps(str(value) if isinstance(value, Path) else value))
    except TypeError:
        return None


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or not {"chartae", "names"} <= record.keys():
            raise ValueError("it is not a record of an augmenter")
        if not all(isinstance(name, str) for name in record["names"]):
            raise ValueError("its names are not strings")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    return record
