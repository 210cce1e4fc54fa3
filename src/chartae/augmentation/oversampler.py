"""Over-sampling of rare classes by generative models, with the interface of imbalanced-learn."""

import json
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from imblearn.over_sampling.base import BaseOverSampler
from imblearn.utils import check_target_type
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data
from torch import Tensor

import chartae
from chartae.atomic import check_writable, write_text
from chartae.augmentation.augmenter import Augmenter
from chartae.augmentation.imputation import examples_of_classes
from chartae.augmentation.storage import json_or_none
from chartae.data import ArrayDataset
from chartae.data.arrays import check_dense
from chartae.data.form import is_frame
from chartae.errors import CheckpointError, ConfigurationError, DataError
from chartae.randomness import derive_seed

__all__ = ["ManifoldOverSampler"]

RECORD_FILE = "oversampler.json"
"""File with the settings of an over-sampler; the folder ``augmenter`` beside it has the models."""
AUGMENTER_FOLDER = "augmenter"
_NETWORK = {"name": "mlp", "hidden": [64, 64]}
TABLES: dict[str, Any] = {
    "model": "vae",
    "model_options": {
        "encoder": _NETWORK,
        "decoder": _NETWORK,
        "likelihood": {"name": "gaussian", "scale": "per_feature"},
    },
    "fit_options": {"kl_warmup": 100},
}
"""Arguments of the default augmenter for tables (``docs/imbalance.md``)."""


class _Given(NamedTuple):
    """Observations as they were given, and as a data set."""

    x: Any
    data: ArrayDataset


class ManifoldOverSampler(BaseOverSampler):  # type: ignore[misc]
    """Add synthetic observations to rare classes, as an over-sampler of imbalanced-learn.

    An `Augmenter` learns the classes that need observations, and draws as many as
    ``sampling_strategy`` asks for. The observations given come first in the result, unchanged. The
    synthetic ones follow, class after class, with the same dtype and container. It can be a step of
    `imblearn.pipeline.Pipeline`, and then resamples in training only. ``docs/imbalance.md`` reports
    when it helps.

    Numbers in a table stay within the range of their column. A column of a DataFrame may hold
    numbers, booleans, text or categories, and cells may be missing. Synthetic rows have missing
    cells, too: each has those of a random row of its class. Otherwise a classifier could recognise
    synthetic rows, and with them the class, by their missing cells.

    Args:
        sampling_strategy: how many observations each class has in the result. ``"auto"`` or ``"not
            majority"`` gives every class as many as the largest has, ``"minority"`` only the
            smallest class; ``"not minority"`` and ``"all"`` are the other names. A number in (0, 1]
            is the size of the smaller of two classes relative to the larger. A mapping, or a
            function of y that returns a mapping, has the number of each class.
        augmenter: the settings of the models, which are learned anew in each call. None is
            ``Augmenter(**TABLES)`` for tables, a small VAE for each class, and ``Augmenter()`` for
            images. A conditional augmenter learns all classes with one model.
        random_state: seed of the models and of the samples; None takes that of the augmenter.

    Attributes:
        sampling_strategy_: the number of synthetic observations by class.
        augmenter_: the fitted augmenter; None if no class needed observations. Its classes have the
            names of the labels, as in ``augmenter_.sample({"malignant": 10})``.
        n_features_in_: the number of columns, or the size of the first axis of an image.
        feature_names_in_: the names of the columns of a DataFrame, if they are text.

    >>> from sklearn.datasets import load_wine
    >>> x, y = load_wine(return_X_y=True)
    >>> settings = chartae.Augmenter("vae", fit_options={"epochs": 5})
    >>> x_all, y_all = ManifoldOverSampler(augmenter=settings).fit_resample(x, y)
    >>> np.bincount(y), np.bincount(y_all)
    (array([59, 71, 48]), array([71, 71, 71]))
    """

    sampling_strategy_: dict[Any, int]
    augmenter_: Augmenter | None

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseOverSampler._parameter_constraints,
        "augmenter": [Augmenter, None],
    }

    def __init__(
        self,
        *,
        sampling_strategy: Any = "auto",
        augmenter: Augmenter | None = None,
        random_state: Any = None,
    ) -> None:
        super().__init__(sampling_strategy=sampling_strategy)
        self.augmenter = augmenter
        self.random_state = random_state

    def fit_resample(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Return observations and labels, with the synthetic ones at the end.

        Args:
            X: a table ``(N, columns)``, or images ``(N, H, W)`` or ``(N, C, H, W)``: an array, a
                tensor or a list of numbers, or a DataFrame. uint8 images have values from 0 to 255.
            y: labels ``(N,)``: numbers, booleans or strings; or one-hot rows ``(N, classes)``.

        Raises:
            DataError: for data that are not finite, of another type or of other shapes, and for a
                class of one example that needs more. It is a ValueError.
            ConfigurationError: for an augmenter with an ``output_dir``. It would reuse the models
                of other data, such as another fold. It is a ValueError.
            ValueError: for a ``sampling_strategy`` that does not fit the labels.
        """
        _check_one_type(y)
        # imbalanced-learn knows no tensors.
        x_all, y_all = super().fit_resample(*map(_as_array, (X, y)))
        return _like(X, x_all), _like(y, y_all)

    def save(self, folder: str | Path) -> None:
        """Write the settings and the fitted augmenter. `load` reads them, without pickle.

        A function as ``sampling_strategy`` is not saved, nor is a generator as ``random_state``.

        Args:
            folder: a folder, new or one that `save` wrote.

        Raises:
            ConfigurationError: before `fit_resample`, and as `Augmenter.save` does.
        """
        augmenter: Augmenter | None = getattr(self, "augmenter_", None)
        if augmenter is None:
            raise ConfigurationError(
                "this ManifoldOverSampler has no models: call fit_resample(X, y) first"
            )
        folder = check_writable("folder", folder)
        augmenter.save(folder / AUGMENTER_FOLDER)
        given = None if self.augmenter is None else self.augmenter.get_params()
        names = getattr(self, "feature_names_in_", None)
        record = {
            "chartae": chartae.__version__,
            "sampling_strategy": _to_pairs(self.sampling_strategy),
            "random_state": int(seed) if isinstance(seed := self.random_state, Integral) else None,
            "augmenter": given and {name: json_or_none(value) for name, value in given.items()},
            "sampling_strategy_": _to_pairs(self.sampling_strategy_),
            "n_features_in_": self.n_features_in_,
            "feature_names_in_": None if names is None else list(names),
        }
        write_text(folder / RECORD_FILE, json.dumps(record, indent=1))

    @classmethod
    def load(cls, folder: str | Path, **modules: Any) -> Self:
        """Return the over-sampler that `save` wrote.

        Args:
            folder: the folder given to `save`.
            modules: as for `Augmenter.load`.

        Raises:
            CheckpointError: if the folder does not contain an over-sampler, or a file is damaged.
        """
        path = Path(folder) / RECORD_FILE
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            given = record["augmenter"]
            sampler = cls(
                sampling_strategy=_from_pairs(record["sampling_strategy"]),
                augmenter=None if given is None else Augmenter(**given),
                random_state=record["random_state"],
            )
            sampler.sampling_strategy_ = dict(record["sampling_strategy_"])
            sampler.n_features_in_ = record["n_features_in_"]
            if (names := record["feature_names_in_"]) is not None:
                sampler.feature_names_in_ = np.array(names, dtype=object)
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        sampler.augmenter_ = Augmenter.load(path.parent / AUGMENTER_FOLDER, **modules)
        return sampler

    # --- what imbalanced-learn calls ------------------------------------------------------------

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = False
        tags.input_tags.three_d_array = True
        return tags

    def _check_X_y(self, X: Any, y: Any) -> tuple[_Given, NDArray[Any], bool]:
        labels, one_hot = check_target_type(y, indicate_one_vs_all=True)
        labels = np.asarray(labels)
        if isinstance(X, np.ma.MaskedArray):
            raise DataError("X is a masked array: expected a plain one, or a DataFrame with NaN")
        if is_frame(X):
            validate_data(self, X=X, reset=True, skip_check_array=True)
            x = X
        else:
            # ArrayDataset refuses NaN; its message says where.
            x = validate_data(self, X=X, reset=True, allow_nd=True, ensure_all_finite=False)
        classes, indices = np.unique(labels, return_inverse=True)
        data = ArrayDataset.from_arrays(
            _as_floats(x),
            indices,
            class_names=[str(label) for label in classes],
            channels_last=self.augmenter is not None and self.augmenter.channels_last,
            # Columns such as dates in seconds differ by less than float32 resolves.
            dtype=torch.float64 if x.ndim == 2 else "default",
        )
        return _Given(x, data), labels, one_hot

    def _fit_resample(self, given: _Given, y: NDArray[Any]) -> tuple[Any, NDArray[Any]]:
        counts = {label: int(n) for label, n in self.sampling_strategy_.items() if n > 0}
        self.augmenter_ = None
        if not counts:
            return given.x, y
        augmenter = self._fresh_augmenter(given.data)
        wanted = np.isin(y, list(counts))
        data = given.data if augmenter.is_conditional else given.data.subset(wanted)
        self.augmenter_ = augmenter.fit(data)
        names = dict(zip(np.unique(y).tolist(), given.data.class_names, strict=True))
        made = augmenter.sample_dataset({names[label]: n for label, n in counts.items()})
        new = made.form.restore(_within(made.x, given.data))
        labels = np.repeat(np.array(list(counts), dtype=y.dtype), list(counts.values()))
        if given.data.mask is not None:
            random = np.random.default_rng(derive_seed(augmenter.seed, "missing cells"))
            missing = given.x.isna().to_numpy()
            new = new.mask(missing[examples_of_classes(y, labels, random)])
        return _joined(given.x, new), np.concatenate([y, labels])

    def _fresh_augmenter(self, data: ArrayDataset) -> Augmenter:
        """Return an untrained augmenter with the seed of this call."""
        if self.augmenter is not None and self.augmenter.output_dir is not None:
            raise ConfigurationError(
                f"augmenter has output_dir={str(self.augmenter.output_dir)!r}: expected None, "
                "because models of other data are not reused; save keeps the models"
            )
        augmenter: Augmenter = clone(self.augmenter or Augmenter())
        if self.augmenter is None and len(data.input_shape) == 1:
            augmenter.set_params(**_default_for_tables(data))
        if self.random_state is not None:
            seed = int(check_random_state(self.random_state).randint(2**31 - 1))
            augmenter.set_params(seed=seed)
        return augmenter.set_params(singles="refuse")


def _default_for_tables(data: ArrayDataset) -> dict[str, Any]:
    """Return `TABLES`; the likelihood of a DataFrame depends on its columns."""
    if data.form.container != "frame":
        return TABLES
    options = TABLES["model_options"]
    networks = {name: value for name, value in options.items() if name != "likelihood"}
    return {**TABLES, "model_options": networks}


def _within(new: Tensor, data: ArrayDataset) -> Tensor:
    """Return synthetic rows of a table in the observed range of each column; images as they are."""
    if new.ndim > 2:
        return new
    low = high = data.x
    if data.mask is not None:
        low, high = (data.x.where(data.mask, end) for end in (torch.inf, -torch.inf))
    return new.clamp(low.amin(0), high.amax(0))


def _check_one_type(y: Any) -> None:
    """Raise `DataError` if some labels are text and others are not."""
    labels = np.asarray(y, dtype=object).ravel()
    texts = [isinstance(label, str) for label in labels]
    if any(texts) and not all(texts):
        text, other = labels[texts.index(True)], labels[texts.index(False)]
        raise DataError(f"y has the labels {text!r} and {other!r}: expected labels of one type")


def _as_array(given: Any) -> Any:
    """Return a tensor as an array; other data as they are."""
    if not isinstance(given, Tensor):
        return given
    check_dense("X", given)
    return given.detach().cpu().numpy()


def _like(given: Any, result: Any) -> Any:
    """Return an array as a tensor on the device of ``given``, if that is a tensor."""
    return torch.as_tensor(result).to(given.device) if isinstance(given, Tensor) else result


def _as_floats(x: Any) -> Any:
    """Return an array of integers, or of half floats, as float64; other data as they are."""
    kept = (np.uint8, np.bool_, np.float32, np.float64)
    return x if is_frame(x) or x.dtype in kept else x.astype(np.float64)


def _joined(x: Any, new: Any) -> Any:
    """Return observations followed by synthetic ones, in the form of the former."""
    if is_frame(x):
        from pandas import concat

        return concat([x, new], ignore_index=True)
    if x.dtype.kind in "iu":
        limits = np.iinfo(x.dtype)
        new = new.round().clip(limits.min, limits.max)
    return np.concatenate([x, new.astype(x.dtype)])


def _to_pairs(strategy: Any) -> Any:
    """Return a strategy as JSON values: a mapping as pairs, and a function as None."""
    if not isinstance(strategy, Mapping):
        return json_or_none(strategy)
    return [[k.item() if hasattr(k, "item") else k, int(n)] for k, n in strategy.items()]


def _from_pairs(record: Any) -> Any:
    return dict(record) if isinstance(record, list) else record
