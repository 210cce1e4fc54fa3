"""Ways to augment a labelled set, as functions of one form, so that they can be compared."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chartae.augmentation.augmenter import Augmenter

__all__ = ["Method", "ModelMethod", "gaussian_noise", "smote"]

Array = NDArray[Any]

Method = Callable[[Array, Array, int, int], tuple[Array, Array]]
"""From observations ``(N, *input_shape)``, their class indices ``(N,)``, how many to make of each
class and a seed, to synthetic observations and their class indices."""


@dataclass(frozen=True)
class ModelMethod:
    """An `Augmenter` with these arguments as a method; it is trained anew at each call.

    Args:
        options: arguments of `Augmenter`; the seed is the call's.
        output_dir: where to keep the models, in a folder ``seed-<seed>`` for each call.

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
        """Return the augmenter of a call; if the call was made, its `fit` finds the models kept."""
        folder = None if self.output_dir is None else self.output_dir / f"seed-{seed}"
        return Augmenter(**self.options, seed=seed, output_dir=folder)


def smote(x: Array, y: Array, samples_per_class: int, seed: int) -> tuple[Array, Array]:
    """Interpolate between neighbours of one class (Chawla et al., 2002), by imbalanced-learn.

    Neighbours are the 5 nearest, or all others of a class of fewer than 6.
    """
    from imblearn.over_sampling import SMOTE

    classes, counts = np.unique(y, return_counts=True)
    wanted = {c: n + samples_per_class for c, n in zip(classes, counts, strict=True)}
    sampler = SMOTE(
        sampling_strategy=wanted,
        k_neighbors=max(1, min(5, int(counts.min()) - 1)),
        random_state=seed % 2**32,
    )
    all_x, all_y = sampler.fit_resample(x.reshape(len(x), -1), y)
    return all_x[len(x) :].reshape(-1, *x.shape[1:]), all_y[len(x) :]


def gaussian_noise(
    x: Array, y: Array, samples_per_class: int, seed: int, *, scale: float = 0.1
) -> tuple[Array, Array]:
    """Repeat real observations with independent noise N(0, scale^2), clipped to the data's range.

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
    noise = scale * random.standard_normal(x[rows].shape)
    return (x[rows] + noise).clip(x.min(), x.max()).astype(x.dtype), y[rows]
