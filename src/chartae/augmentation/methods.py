"""Methods of augmentation, as functions with the same signature, so that studies compare them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from chartae.augmentation.augmenter import Augmenter
from chartae.data.arrays import as_tensor, restored, scaled
from chartae.errors import DataError
from chartae.randomness import derive_seed

__all__ = ["Method", "ModelMethod", "gaussian_noise", "smote"]

Array = NDArray[Any]

Method = Callable[[Array, Array, int, int], tuple[Array, Array]]
"""A function of observations ``(N, *input_shape)``, their class indices ``(N,)``, the number of
samples per class and a seed; it returns synthetic observations and their class indices."""


@dataclass(frozen=True)
class ModelMethod:
    """A method that trains a new `Augmenter` at each call.

    Args:
        options: arguments of `Augmenter`, except the seed, which is that of the call.
        output_dir: folder for the models, with a folder ``seed-<seed>`` for each call.

    >>> from chartae.data import digits
    >>> data = digits()
    >>> method = ModelMethod({"model": "rhvae", "fit_options": {"epochs": 2}})
    >>> x_new, y_new = method(data.x[:50].numpy(), data.y[:50].numpy(), 3, 0)
    >>> x_new.shape, y_new.shape
    ((30, 8, 8), (30,))
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    output_dir: Path | None = None

    def __call__(
        self, x: Array, y: Array, samples_per_class: int, seed: int
    ) -> tuple[Array, Array]:
        """Train on ``x`` and ``y``, and draw ``samples_per_class`` observations of each class."""
        x_new, y_new = self.augmenter(seed).fit(x, y).sample(samples_per_class)
        return np.asarray(x_new), np.asarray(y_new)

    def augmenter(self, seed: int) -> Augmenter:
        """Return the untrained augmenter of a call; `fit` loads models kept by an earlier call."""
        folder = None if self.output_dir is None else self.output_dir / f"seed-{seed}"
        return Augmenter(**self.options, seed=seed, output_dir=folder)


def smote(x: Array, y: Array, samples_per_class: int, seed: int) -> tuple[Array, Array]:
    """Interpolate between neighbours of one class (Chawla et al., 2002), with imbalanced-learn.

    Neighbours are the 5 nearest examples, or all others in a class of fewer than 6 examples.

    Raises:
        DataError: for a class of one example, because it has no neighbour.

    >>> x, y = np.array([[0.0], [1.0], [8.0], [9.0]]), np.array([0, 0, 1, 1])
    >>> x_new, y_new = smote(x, y, 2, seed=0)
    >>> x_new.shape, y_new
    ((4, 1), array([0, 0, 1, 1]))
    """
    classes = np.unique(y)
    made = [_smote_class(x[y == c], c, samples_per_class, seed) for c in classes]
    return np.concatenate(made), np.repeat(classes, samples_per_class)


def _smote_class(members: Array, label: Any, count: int, seed: int) -> Array:
    from imblearn.over_sampling import SMOTE

    if len(members) < 2:
        raise DataError(f"y has one example of class {label!r}: SMOTE expects at least 2")
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


def gaussian_noise(
    x: Array, y: Array, samples_per_class: int, seed: int, *, scale: float = 0.1
) -> tuple[Array, Array]:
    """Repeat real observations with independent noise N(0, scale^2), clipped to the data's range.

    For uint8 data, ``scale`` is relative to values in [0, 1].

    >>> x, y = np.zeros((4, 3)), np.array([0, 0, 1, 1])
    >>> x_new, y_new = gaussian_noise(x, y, 2, seed=0)
    >>> x_new.shape, y_new
    ((4, 3), array([0, 0, 1, 1]))
    """
    random = np.random.default_rng(seed)
    classes = np.unique(y)
    rows = np.concatenate(
        [random.choice(np.flatnonzero(y == c), samples_per_class) for c in classes]
    )
    given = as_tensor("x", x)
    values = scaled(given, torch.float64)
    noise = scale * torch.from_numpy(random.standard_normal(x[rows].shape))
    noised = (values[rows] + noise).clamp(values.min(), values.max())
    return restored(noised, given.dtype).numpy(), y[rows]
