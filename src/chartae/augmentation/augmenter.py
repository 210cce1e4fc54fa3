"""Synthetic labelled data from a few real ones."""

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Self
from urllib.parse import quote

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import chartae
from chartae import models, samplers
from chartae.checks import check_choice, check_integer
from chartae.data import ArrayDataset
from chartae.errors import ConfigurationError, DataError
from chartae.models import CVAE, Autoencoder
from chartae.randomness import derive_seed, resolve_seed, seeded
from chartae.samplers import Sampler
from chartae.training import History, fit

__all__ = ["ALL", "MODELS", "MODEL_OPTIONS", "SAMPLERS", "Augmenter"]

Array = np.ndarray[Any, Any] | Tensor


def _classes(package: ModuleType, rename: Callable[[str], str]) -> dict[str, Any]:
    """Return what a package has for use by names of another form.

    Its abstract bases are its own affair; what can be used is importable from `chartae`.
    """
    public = set(package.__all__) & set(chartae.__all__)
    return {rename(name): getattr(package, name) for name in sorted(public, key=str.lower)}


def _snake_case(name: str) -> str:
    """Return the short name of a sampler.

    >>> _snake_case("TwoStageSampler")
    'two_stage'
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.removesuffix("Sampler")).lower()


MODELS: dict[str, type[Autoencoder]] = _classes(models, str.lower)
"""The models by name: that of the class in lower case."""
SAMPLERS: dict[str, type[Sampler]] = _classes(samplers, _snake_case)
"""The samplers by name: ``two_stage`` is `TwoStageSampler`."""

MODEL_OPTIONS: dict[str, Any] = {
    "latent_dim": 8,
    # Sharp, for data in [0, 1]: on ten small images a Bernoulli leaves the codes next to nothing.
    "likelihood": {"name": "gaussian", "scale": 0.1, "link": "sigmoid"},
}
CONDITIONAL_OPTIONS: dict[str, Any] = {
    # Less sharp: codes then leave the class to the label, which is what makes labels come true.
    "likelihood": {"name": "gaussian", "scale": 0.5, "link": "sigmoid"},
}
EPOCHS = 250
ALL = "all"
"""The name under which a conditional augmenter keeps its one model."""


class Augmenter:
    """Learn each class from its few examples with a model of its own, and draw new ones.

    The recipe of the thesis (section 1.4): a geometry-aware VAE for each class, sampled from the
    volume of the metric that it learned. With ``conditional`` one model learns all classes, given
    the label, and codes hold what classes have in common.

    Args:
        model: a name (`MODELS`), or a function from an input shape to a model; with
            ``conditional``, a function that takes ``conditions``, the number of classes, besides.
        sampler: a name (`SAMPLERS`), or a function from a trained model to a sampler.
        model_options: arguments of the model's class, where ``model`` is a name; `MODEL_OPTIONS`,
            for data in [0, 1], are the defaults, with a scale of 0.5 for a conditional model:
            codes of a sharper one carry the class, and samples are not of that of their label.
        sampler_options: arguments of the sampler's class, where ``sampler`` is a name.
        fit_options: arguments of `chartae.fit`; 250 epochs without progress by default.
        conditional: whether one model learns all classes. A CVAE does so by its nature.
        seed: of models, training and, unless `sample` is given another, samples.
        output_dir: folder where each model is trained and kept; an interrupted `fit` continues
            there. None keeps nothing.

    Attributes:
        classes_: the labels, ascending; their places are the conditions of a conditional model.
        models_: the trained models, by class name; a conditional one is alone, as ``"all"``.
        samplers_: the samplers, by the same names.
        histories_: the `History` of each training, by the same names.

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

    classes_: NDArray[Any]
    models_: dict[str, Autoencoder]
    samplers_: dict[str, Sampler]
    histories_: dict[str, History]

    def __init__(
        self,
        model: str | Callable[..., Autoencoder] = "rhvae",
        sampler: str | Callable[[Autoencoder], Sampler] = "volume",
        *,
        model_options: Mapping[str, Any] | None = None,
        sampler_options: Mapping[str, Any] | None = None,
        fit_options: Mapping[str, Any] | None = None,
        conditional: bool = False,
        seed: int = 0,
        output_dir: str | Path | None = None,
    ) -> None:
        if isinstance(model, str):
            check_choice("model", model, MODELS)
        if isinstance(sampler, str):
            check_choice("sampler", sampler, SAMPLERS)
        check_integer("seed", seed, minimum=0)
        _check_options("fit_options", fit_options, fit)
        self.model, self.sampler = model, sampler
        self.model_options = dict(model_options or {})
        self.sampler_options = dict(sampler_options or {})
        self.fit_options = dict(fit_options or {})
        self.conditional = conditional or (
            isinstance(model, str) and issubclass(MODELS[model], CVAE)
        )
        self.seed = seed
        self.output_dir = None if output_dir is None else Path(output_dir)

    def fit(self, x: Array, y: Array | list[Any]) -> Self:
        """Train on observations ``(N, *input_shape)`` with labels ``(N,)``.

        uint8 arrays are divided by 255 for the models, and multiplied again in what `sample` gives.

        Raises:
            DataError: if x and y do not fit together or hold NaN, or a class has one example,
                which is enough for a conditional model alone.
            ConfigurationError: for a wrong option of the model or the sampler, a sampler that does
                not serve the model, or a model that has not the conditions it should.
            KeyboardInterrupt: after Ctrl-C; with ``output_dir``, another `fit` continues.
        """
        data = ArrayDataset.from_arrays(x, y)
        self._remember(x, y, data)
        parts = {ALL: data} if self.conditional else _each_class(data)
        self.models_, self.samplers_, self.histories_ = {}, {}, {}
        for name, members in parts.items():
            model = self._make_model(name, data)
            sampler = self._make_sampler(model)  # before training, which its refusal would waste
            self.histories_[name] = self._train(name, model, members)
            if self.histories_[name].stopped == "interrupted":
                raise KeyboardInterrupt  # the classes to come are not to be trained
            self.models_[name] = model
            self.samplers_[name] = sampler.fit(members.x, members.y if self.conditional else None)
        return self

    def sample(
        self, per_class: int | Mapping[Any, int], seed: int | None = None
    ) -> tuple[Array, Array]:
        """Draw synthetic observations and their labels, class after class.

        Args:
            per_class: how many of each class, or of each label in a mapping.
            seed: of the samples; None takes the augmenter's.

        Returns:
            Observations ``(n, *input_shape)`` and labels ``(n,)``, of the types given to `fit`.

        Raises:
            ConfigurationError: before `fit`, for an unknown label or a count below 1.
        """
        counts = self._counts(per_class)
        seed = self.seed if seed is None else resolve_seed(seed)
        x = torch.cat([self._draw(name, n, seed) for name, n in counts.items()]).cpu()
        labels = np.repeat([self._labels[name] for name in counts], list(counts.values()))
        return self._as_given(x), (torch.as_tensor(labels) if self._tensor_labels else labels)

    # --- details ------------------------------------------------------------------------------

    def _make_model(self, name: str, data: ArrayDataset) -> Autoencoder:
        conditions = data.num_classes if self.conditional else None
        with seeded(self.seed, "model", name):
            model = self._new_model(data.input_shape, conditions)
        if model.conditions != conditions:
            raise ConfigurationError(
                f"conditional={self.conditional}, and the model has conditions={model.conditions}: "
                f"expected {conditions}"
            )
        return model

    def _new_model(self, input_shape: tuple[int, ...], conditions: int | None) -> Autoencoder:
        given = {} if conditions is None else {"conditions": conditions}
        if not isinstance(self.model, str):
            return self.model(input_shape, **given)
        defaults = {**MODEL_OPTIONS, **(CONDITIONAL_OPTIONS if given else {})}
        options = {**defaults, **given, **self.model_options}
        try:
            return MODELS[self.model](input_shape, **options)
        except TypeError as error:
            raise ConfigurationError(f"model_options={self.model_options}: {error}") from error

    def _train(self, name: str, model: Autoencoder, data: ArrayDataset) -> History:
        options: dict[str, Any] = {"epochs": EPOCHS, "progress": False, **self.fit_options}
        options["seed"] = derive_seed(self.seed, "fit", name)
        if self.output_dir is not None:
            # A label may hold a slash: it names a folder, not a path.
            options |= {"output_dir": self.output_dir / quote(name, safe=" "), "resume": True}
        return fit(model, data, **options)

    def _make_sampler(self, model: Autoencoder) -> Sampler:
        if not isinstance(self.sampler, str):
            return self.sampler(model)
        try:
            return SAMPLERS[self.sampler](model, **self.sampler_options)
        except TypeError as error:
            raise ConfigurationError(f"sampler_options={self.sampler_options}: {error}") from error

    def _draw(self, name: str, n: int, seed: int) -> Tensor:
        """Return n observations of the class of a name."""
        seed = derive_seed(seed, "class", name)
        if self.conditional:
            return self.samplers_[ALL].sample(n, seed=seed, y=list(self._labels).index(name))
        return self.samplers_[name].sample(n, seed=seed)

    def _remember(self, x: Array, y: Array | list[Any], data: ArrayDataset) -> None:
        """Keep what `sample` needs to give arrays and labels as they were given."""
        self._tensor_data, self._tensor_labels = isinstance(x, Tensor), isinstance(y, Tensor)
        self._bytes = x.dtype in (torch.uint8, np.uint8)
        self.classes_ = np.unique(y.cpu().numpy() if isinstance(y, Tensor) else np.asarray(y))
        self._labels = dict(zip(data.class_names, self.classes_, strict=True))

    def _as_given(self, x: Tensor) -> Array:
        if self._bytes:
            x = (x.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
        return x if self._tensor_data else x.numpy()

    def _counts(self, per_class: int | Mapping[Any, int]) -> dict[str, int]:
        if not getattr(self, "samplers_", None):
            raise ConfigurationError("this Augmenter has not been fitted: call fit(x, y) first")
        known = list(self._labels if self.conditional else self.samplers_)
        if not isinstance(per_class, Mapping):
            per_class = dict.fromkeys(known, per_class)
        counts = {str(label): n for label, n in per_class.items()}
        for name, n in counts.items():
            check_choice("per_class", name, known)
            check_integer(f"per_class[{name!r}]", n, minimum=1)
        return counts


def _each_class(data: ArrayDataset) -> dict[str, ArrayDataset]:
    """Return the examples of each class, by its name."""
    parts = {name: data.of_class(name) for name in (data.class_names[c] for c in data.classes)}
    for name, members in parts.items():
        if len(members) < 2:
            raise DataError(f"y has one example of class {name!r}: expected at least 2")
    return parts


def _check_options(
    name: str, options: Mapping[str, Any] | None, function: Callable[..., Any]
) -> None:
    # The augmenter fixes the data, the seed and where models are kept.
    own = {"model", "train", "seed", "output_dir", "resume"}
    known = [option for option in inspect.signature(function).parameters if option not in own]
    for option in options or {}:
        check_choice(name, option, known)
