"""Methods of augmentation, as functions with the same signature, so that studies compare them."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from chartae.augmentation.augmenter import Augmenter
from chartae.checks import check_choice, check_number
from chartae.data import ArrayDataset
from chartae.data.arrays import as_tensor, restored, scaled
from chartae.errors import ConfigurationError, DataError
from chartae.models import MODELS
from chartae.nn import random_affine
from chartae.randomness import derive_seed, make_generator
from chartae.samplers import SAMPLERS

__all__ = [
    "METHODS",
    "OVERSAMPLERS",
    "Method",
    "MethodName",
    "ModelMethod",
    "gaussian_noise",
    "make_method",
    "mixup",
    "resampling",
    "smote",
    "transforms",
]

Array = NDArray[Any]
Counts = Mapping[int, int]

Method = Callable[[Array, Array, Counts, int], tuple[Array, Array]]
"""A function of observations ``(N, *input_shape)``, their class indices ``(N,)``, the numbers of
samples by class index, each at least 1, and a seed; it returns synthetic observations and their
class indices. A method that is an object may have a method ``of_dataset(data, counts, seed)`` as
well. Studies then call it with an `ArrayDataset`, which has the mask of observed values and the
kinds of columns; other methods see imputed values."""

OVERSAMPLERS = {
    "smote": "SMOTE",
    "borderline": "BorderlineSMOTE",
    "svm": "SVMSMOTE",
    "adasyn": "ADASYN",
}
"""Classes of imbalanced-learn by the names that `smote` takes as ``kind``."""


@dataclass(frozen=True)
class ModelMethod:
    """A method that trains a new `Augmenter` at each call.

    Args:
        options: arguments of `Augmenter`, except the seed, which is that of the call.
        output_dir: folder for the models, with a folder ``seed-<seed>`` for each call.

    >>> from chartae.data import digits
    >>> data = digits()
    >>> method = ModelMethod({"model": "rhvae", "fit_options": {"epochs": 2}})
    >>> x_new, y_new = method(data.x[:50].numpy(), data.y[:50].numpy(), {0: 3, 8: 2}, 0)
    >>> x_new.shape, y_new
    ((5, 8, 8), array([0, 0, 0, 8, 8]))
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    output_dir: Path | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # A subclass with a call of its own must not be passed by through the inherited method.
        super().__init_subclass__(**kwargs)
        if "__call__" in vars(cls) and "of_dataset" not in vars(cls):
            cls.of_dataset = None  # type: ignore[assignment, method-assign]

    def __call__(self, x: Array, y: Array, counts: Counts, seed: int) -> tuple[Array, Array]:
        """Train on ``x`` and ``y``, and draw as many observations of each class as ``counts``."""
        augmenter = self.augmenter(seed)
        if not augmenter.is_conditional:  # classes that need no samples need no model
            needed = np.isin(y, list(counts))
            x, y = x[needed], y[needed]
        x_new, y_new = augmenter.fit(x, y).sample(dict(counts))
        return np.asarray(x_new), np.asarray(y_new)

    def of_dataset(self, data: ArrayDataset, counts: Counts, seed: int) -> tuple[Array, Array]:
        """Train on a data set with labels, its mask and the kinds of its columns.

        Args:
            data: observations with class indices.
            counts: number of samples of each class.
            seed: the same seed gives the same samples.

        Returns:
            Observations ``(n, *input_shape)`` without gaps, on the scale of ``data.x``, and class
            indices ``(n,)``.
        """
        assert data.y is not None
        augmenter = self.augmenter(seed)
        if not augmenter.is_conditional:
            data = data.subset(np.isin(data.y.numpy(), list(counts)))
        named = {data.class_names[index]: n for index, n in counts.items()}
        made = augmenter.fit(data).sample_dataset(named)
        return made.x.numpy(), np.repeat(list(counts), list(counts.values()))

    def augmenter(self, seed: int) -> Augmenter:
        """Return the untrained augmenter of a call; `fit` loads models kept by an earlier call."""
        folder = None if self.output_dir is None else self.output_dir / f"seed-{seed}"
        return Augmenter(**self.options, seed=seed, output_dir=folder)


def smote(
    x: Array, y: Array, counts: Counts, seed: int, *, kind: str = "smote"
) -> tuple[Array, Array]:
    """Interpolate between neighbours of one class (Chawla et al., 2002), with imbalanced-learn.

    Neighbours are the 5 nearest examples, or all others in a class of fewer than 6 examples.

    Args:
        x: observations, ``(N, *input_shape)``.
        y: class indices, ``(N,)``.
        counts: number of samples of each class.
        seed: the same seed gives the same samples.
        kind: a name of `OVERSAMPLERS`. Those near the border of a class, ``"borderline"`` and
            ``"svm"``, make no samples of a class without such a border; ``"adasyn"`` makes more
            where other classes are near, and roughly as many as asked.

    Raises:
        DataError: for a class of one example, because it has no neighbour, or if the method cannot
            make samples of these data.

    >>> x, y = np.array([[0.0], [1.0], [8.0], [9.0]]), np.array([0, 0, 1, 1])
    >>> x_new, y_new = smote(x, y, {0: 2, 1: 2}, seed=0)
    >>> x_new.shape, y_new
    ((4, 1), array([0, 0, 1, 1]))
    """
    check_choice("kind", kind, OVERSAMPLERS)
    given = as_tensor("x", x)
    x = scaled(given, None).numpy()  # differences of integers would wrap around
    sizes = dict(zip(*np.unique(y, return_counts=True), strict=True))
    for label in counts:
        if sizes.get(label, 0) < 2:
            raise DataError(
                f"y has {sizes.get(label, 0)} example(s) of class {label!r}: {OVERSAMPLERS[kind]} "
                "expects at least 2"
            )
    if kind == "smote":
        parts = [_smote_class(x[y == c], c, n, seed) for c, n in counts.items()]
        made, labels = np.concatenate(parts), np.repeat(list(counts), list(counts.values()))
    else:
        made, labels = _oversampled(x, y, counts, seed, kind)
    return restored(torch.from_numpy(made), given.dtype).numpy(), labels


def _smote_class(members: Array, label: int, count: int, seed: int) -> Array:
    from imblearn.over_sampling import SMOTE

    sampler = SMOTE(
        sampling_strategy={0: len(members) + count},
        k_neighbors=min(5, len(members) - 1),
        random_state=derive_seed(seed, "smote", str(label)) % 2**32,
    )
    # SMOTE requires a second class; it does not change it.
    flat = members.reshape(len(members), -1)
    rows, labels = np.append(flat, flat[:1], axis=0), np.append(np.zeros(len(flat), int), 1)
    made: Array = sampler.fit_resample(rows, labels)[0][len(rows) :]
    return made.reshape(-1, *members.shape[1:])


def _oversampled(x: Array, y: Array, counts: Counts, seed: int, kind: str) -> tuple[Array, Array]:
    """Return samples of a method of imbalanced-learn that looks at all classes."""
    import imblearn.over_sampling

    sizes = {int(c): int(n) for c, n in zip(*np.unique(y, return_counts=True), strict=True)}
    smallest = min(sizes[c] for c in counts)
    name = "n_neighbors" if kind == "adasyn" else "k_neighbors"
    sampler = getattr(imblearn.over_sampling, OVERSAMPLERS[kind])(
        sampling_strategy={c: sizes[c] + n for c, n in counts.items()},
        random_state=derive_seed(seed, kind) % 2**32,
        **{name: min(5, smallest - 1)},
    )
    try:
        made, labels = sampler.fit_resample(x.reshape(len(x), -1), y)
    except (ValueError, RuntimeError) as error:
        raise DataError(f"{OVERSAMPLERS[kind]} cannot make samples of these data: {error}") from (
            error
        )
    if len(made) == len(x):
        raise DataError(f"{OVERSAMPLERS[kind]} makes no sample of these data")
    return made[len(x) :].reshape(-1, *x.shape[1:]), labels[len(x) :]


def resampling(x: Array, y: Array, counts: Counts, seed: int) -> tuple[Array, Array]:
    """Repeat real examples, drawn at random with replacement.

    >>> x, y = np.array([[0.0], [1.0], [8.0]]), np.array([0, 0, 1])
    >>> resampling(x, y, {1: 2}, seed=0)
    (array([[8.],
           [8.]]), array([1, 1]))
    """
    rows = _drawn(y, counts, seed)
    return x[rows], y[rows]


def gaussian_noise(
    x: Array, y: Array, counts: Counts, seed: int, *, scale: float = 0.1
) -> tuple[Array, Array]:
    """Repeat real observations with independent normal noise, clipped to the range of each feature.

    Args:
        x: observations, ``(N, *input_shape)``.
        y: class indices, ``(N,)``.
        counts: number of samples of each class.
        seed: the same seed gives the same samples.
        scale: standard deviation of the noise, above 0, relative to the range of the data; for
            vectors of floats relative to the standard deviation of each feature.

    >>> x, y = np.zeros((4, 3)), np.array([0, 0, 1, 1])
    >>> x_new, y_new = gaussian_noise(x, y, {0: 2, 1: 2}, seed=0)
    >>> x_new.shape, y_new
    ((4, 3), array([0, 0, 1, 1]))
    """
    check_number("scale", scale, above=0.0)
    rows = _drawn(y, counts, seed)
    random = np.random.default_rng(derive_seed(seed, "noise"))
    given = as_tensor("x", x)
    values = scaled(given, torch.float64)
    table = x.ndim == 2 and given.is_floating_point()
    axes = (0,) if table else tuple(range(x.ndim))
    low, high = values.amin(axes), values.amax(axes)
    unit = values.std(0, correction=0) if table else high - low
    noise = scale * unit * torch.from_numpy(random.standard_normal(x[rows].shape))
    noised = (values[rows] + noise).clamp(low, high)
    return restored(noised, given.dtype).numpy(), y[rows]


def transforms(
    x: Array, y: Array, counts: Counts, seed: int, *, flip: bool = False
) -> tuple[Array, Array]:
    """Rotate, shift and scale real images or volumes at random (`chartae.nn.random_affine`).

    Raises:
        DataError: for data that are neither images nor volumes.

    >>> x, y = np.random.default_rng(0).random((4, 9, 9)), np.array([0, 0, 1, 1])
    >>> x_new, y_new = transforms(x, y, {0: 2, 1: 3}, seed=0)
    >>> x_new.shape, y_new
    ((5, 9, 9), array([0, 0, 1, 1, 1]))
    """
    if x.ndim not in (3, 4, 5):
        raise DataError(
            f"x has observations of shape {x.shape[1:]}: transforms expect images or volumes"
        )
    rows = _drawn(y, counts, seed)
    given = as_tensor("x", x)
    values = scaled(given, torch.float32)[rows]
    moved = random_affine(values, flip=flip, generator=make_generator(seed, "transforms"))
    return restored(moved, given.dtype).numpy(), y[rows]


def mixup(x: Array, y: Array, counts: Counts, seed: int) -> tuple[Array, Array]:
    """Return random convex combinations of two examples of one class.

    It is mix-up (Zhang et al., 2018) with uniform weights and within classes, so that labels are
    those of classifiers that take no shares of classes.

    >>> x, y = np.array([[0.0], [1.0], [8.0]]), np.array([0, 0, 1])
    >>> x_new, y_new = mixup(x, y, {0: 3}, seed=0)
    >>> bool(x_new.min() >= 0.0), bool(x_new.max() <= 1.0), y_new
    (True, True, array([0, 0, 0]))
    """
    random = np.random.default_rng(derive_seed(seed, "shares"))
    first, second = _drawn(y, counts, seed), _drawn(y, counts, derive_seed(seed, "partners"))
    given = as_tensor("x", x)
    values = scaled(given, torch.float64)
    shares = torch.from_numpy(random.random((len(first), *[1] * (x.ndim - 1))))
    mixed = shares * values[first] + (1.0 - shares) * values[second]
    return restored(mixed, given.dtype).numpy(), y[first]


def _drawn(y: Array, counts: Counts, seed: int) -> Array:
    """Return rows of examples drawn with replacement, class after class."""
    random = np.random.default_rng(derive_seed(seed, "rows"))
    return np.concatenate([random.choice(np.flatnonzero(y == c), n) for c, n in counts.items()])


METHODS: dict[str, Method] = {
    "resampling": resampling,
    "noise": gaussian_noise,
    "transforms": transforms,
    "mixup": mixup,
    **{name: smote if name == "smote" else partial(smote, kind=name) for name in OVERSAMPLERS},
}
"""The methods without a model, by name."""


class MethodName(NamedTuple):
    """The parts of the name of a method with a model."""

    model: str
    model_options: dict[str, Any]
    sampler: str
    conditional: bool

    @classmethod
    def of(cls, name: str) -> Self:
        """Read a name as `make_method` does.

        >>> MethodName.of("conditional vae(latent_dim=5 encoder=conv)+mixture")[:3]
        ('vae', {'latent_dim': 5, 'encoder': 'conv'}, 'mixture')

        Raises:
            ConfigurationError: if it is not the name of a model, options and a sampler.
        """
        found = re.fullmatch(r"(conditional )?([^(+]*)(?:\((.*)\))?(?:\+(.*))?", name)
        given = [] if found is None else (found[3] or "").split()
        if found is None or not all(re.fullmatch(r"\w+=.+", one) for one in given):
            raise ConfigurationError(
                f"methods has {name!r}: expected a name, or a model, options in parentheses and a "
                "sampler, as in 'vae(latent_dim=5)+mixture'"
            )
        options = {}
        for one in given:
            key, _, text = one.partition("=")
            try:
                options[key] = json.loads(text)
            except json.JSONDecodeError:
                options[key] = text
        check_choice("methods", found[2], [*METHODS, *MODELS])
        if found[4] is not None:
            check_choice("the sampler in methods", found[4], ["auto", *SAMPLERS])
        return cls(found[2], options, found[4] or "auto", found[1] is not None)


def make_method(name: str, **options: Any) -> Method:
    """Return a method by its name.

    Args:
        name: a name of `METHODS`; or a model and a sampler with a plus between them, as in
            ``"rhvae+volume"`` or ``"vae+mixture"``; a model alone takes its natural sampler.
            Parentheses have options of the model with spaces between them, as in
            ``"vae(latent_dim=5 encoder=conv)+mixture"``. The prefix ``"conditional "`` learns all
            classes with one model.
        options: arguments of `Augmenter` for models.

    Raises:
        ConfigurationError: for an unknown name.

    >>> make_method("vae(latent_dim=5)+mixture").options["model_options"]
    {'latent_dim': 5}
    >>> make_method("vae+mixture").options["sampler"]
    'mixture'
    """
    if name in METHODS:
        return METHODS[name]
    model = MethodName.of(name)
    given = {**options.get("model_options", {}), **model.model_options}
    return ModelMethod(
        {
            "model": model.model,
            "sampler": model.sampler,
            "conditional": model.conditional,
            **options,
            **({"model_options": given} if given else {}),
        }
    )
