"""Synthetic labelled data from a few real ones."""

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
from numpy.typing import NDArray
from torch import Tensor

from chartae.augmentation.fidelity import Fidelity
from chartae.augmentation.labels import Labels
from chartae.augmentation.learning import Learned, Learning, check_fit_options
from chartae.augmentation.messages import warnings_about
from chartae.augmentation.recipes import RECIPES
from chartae.augmentation.sampling import Count, counts_by_name, draw
from chartae.augmentation.storage import (
    RECORD_FILE,
    claimed,
    emptied,
    json_or_none,
    read_record,
    write_record,
)
from chartae.augmentation.untrained import default_arguments, make_model, make_sampler
from chartae.checks import check_boolean, check_choice, check_integer
from chartae.data import ArrayDataset, Form, encode_labels
from chartae.errors import ChartaeError, CheckpointError, ConfigurationError, DataError
from chartae.models import CVAE, MODELS, Autoencoder
from chartae.naming import folder_name
from chartae.persistence import load as load_module
from chartae.randomness import derive_seed, resolve_seed, seeded
from chartae.samplers import SAMPLERS, Sampler
from chartae.training import HISTORY_FILE, History

__all__ = ["Augmenter", "Singles"]

logger = logging.getLogger(__name__)

Singles = Literal["skip", "refuse"]
ALL = "all"
"""The name under which a conditional augmenter keeps its one model."""


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
        fresh = self._untrained(data, parts)
        for name, members in parts.items():
            # Check all classes before the first training: an error later would waste it.
            model = fresh[name].model
            model.check_data("x", model.filled(members.x, members.mask))
        learned = self._learned(fresh, parts)
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
        folder = emptied(folder)
        for name, sampler in self.samplers_.items():
            sampler.save_pretrained(folder / folder_name(name))
            self.histories_[name].save(folder / folder_name(name) / HISTORY_FILE)
        write_record(
            folder,
            {
                "arguments": {k: json_or_none(v) for k, v in self.get_params().items()},
                "form": self._form.to_json(),
                "labels": self._labels.to_json(),
                "names": list(self.samplers_),
                "counts": self.class_counts_,
                "fidelity": self.fidelity_.to_json(),
            },
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
        record = read_record(folder)
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
        check_fit_options(self.fit_options)

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

    def _untrained(
        self, data: ArrayDataset, parts: Mapping[str, ArrayDataset]
    ) -> dict[str, Sampler]:
        """Return an untrained model with its sampler for the training set of each name."""
        defaults: Mapping[str, Mapping[str, Any]] = {name: {} for name in parts}
        if isinstance(self.model, str):
            defaults = default_arguments(self.model, data, parts, conditional=self.is_conditional)
        fresh, example = {}, data.subset([0])
        for name in parts:
            with seeded(self.seed, "model", name):
                model = make_model(
                    self.model,
                    example,
                    conditional=self.is_conditional,
                    defaults=defaults[name],
                    options=self.model_options or {},
                )
            fresh[name] = make_sampler(self.sampler, model, self.sampler_options or {})
        return fresh

    def _learned(
        self, fresh: Mapping[str, Sampler], parts: Mapping[str, ArrayDataset]
    ) -> dict[str, Learned]:
        """Return the trained models by name; record their names in ``output_dir`` before."""
        learning = Learning(
            fit_options=self.fit_options or {},
            jobs=self.jobs,
            seed=self.seed,
            output_dir=self.output_dir,
            conditional=self.is_conditional,
        )
        if self.output_dir is None:
            return learning.learn_all(fresh, parts)
        with claimed(self.output_dir, parts):
            return learning.learn_all(fresh, parts)

    def _draw_all(self, counts: Mapping[str, int], seed: int | None) -> Tensor:
        seed = self.seed if seed is None else resolve_seed(seed)
        return torch.cat([self._draw(name, n, seed) for name, n in counts.items()]).cpu()

    def _draw(self, name: str, n: int, seed: int) -> Tensor:
        """Return n observations of a class."""
        sampler = self.samplers_[ALL if self.is_conditional else name]
        y = self._labels.names.index(name) if self.is_conditional else None
        with warnings_about(f"class {name!r}"):
            return draw(sampler, n, derive_seed(seed, "class", name), y)

    def _check_fitted(self) -> None:
        if not getattr(self, "samplers_", None):
            raise ConfigurationError("this Augmenter has not been fitted: call fit(x, y) first")

    def _counts(self, per_class: Count) -> dict[str, int]:
        return counts_by_name(per_class, self.class_names, self.class_counts_)


_ARGUMENTS = dict(inspect.signature(Augmenter).parameters)


def _of_present_classes(data: ArrayDataset) -> ArrayDataset:
    """Return the data set without the classes that have no sample."""
    present = torch.tensor(data.classes)
    if len(present) == data.num_classes or data.y is None:
        return data
    names = tuple(data.class_names[index] for index in data.classes)
    y = torch.searchsorted(present, data.y.cpu()).to(data.y.device)
    return replace(data, y=y, class_names=names)
