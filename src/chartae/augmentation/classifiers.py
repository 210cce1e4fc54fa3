"""The classifiers of a study: scikit-learn's, and networks with early stopping."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chartae.checks import check_choice
from chartae.data import ArrayDataset
from chartae.errors import ConfigurationError
from chartae.evaluation.features import Classifier as Network
from chartae.models import Losses
from chartae.nn import NetworkSpec, random_affine
from chartae.randomness import derive_seed, seeded
from chartae.training import fit

__all__ = [
    "CLASSIFIERS",
    "Classifier",
    "NetworkClassifier",
    "default_classifiers",
    "fit_classifier",
    "scores_of",
]

Array = NDArray[Any]
SMALLEST = 8
"""Observations that a step of a network has at least."""


@dataclass(frozen=True)
class Classifier:
    """A classifier with the interface of scikit-learn, and candidates of its hyper-parameters.

    Args:
        make: returns a new estimator; called in worker processes.
        grid: candidate values by parameter, as for `sklearn.model_selection.GridSearchCV`; empty
            for a classifier without tuning. Cross-validation chooses among them, and the validation
            set for a network. Both judge estimators trained on real examples alone, so each
            candidate must suit training sets with added examples as well.
        draws: number of random combinations of the candidates that are tried (Bergstra and Bengio,
            2012); None tries all.
        grows: parameters that are numbers of examples, such as ``n_neighbors``. They are multiplied
            by the size of a training set, relative to the real one, so that a neighbourhood of more
            examples is as large as before.
        network: whether it takes observations in their own shape, and a validation set; otherwise
            it takes rows.
    """

    make: Callable[[], Any]
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    draws: int | None = None
    grows: tuple[str, ...] = ()
    network: bool = False

    def candidates(self, seed: int) -> list[dict[str, Any]]:
        """Return the combinations of hyper-parameters that tuning tries.

        >>> tuned = Classifier(list, {"a": [1, 2], "b": [3, 4]}, draws=3)
        >>> len(tuned.candidates(0)), tuned.candidates(0) == tuned.candidates(0)
        (3, True)
        """
        from sklearn.model_selection import ParameterGrid, ParameterSampler

        every = ParameterGrid(dict(self.grid))
        if self.draws is None or self.draws >= len(every):
            return list(every)
        return list(ParameterSampler(dict(self.grid), self.draws, random_state=seed % 2**32))


@dataclass
class NetworkClassifier:
    """A network trained with Adam until the validation loss stops falling.

    Its parameters are those of scikit-learn's estimators: `get_params` and `set_params` know them.

    Args:
        encoder: the body, as in `chartae.evaluation.train_classifier`.
        transforms: whether each step rotates, shifts and scales its images at random
            (`chartae.nn.random_affine`).
        epochs: largest number of passes over the training set.
        patience: epochs without a lower validation loss after which training stops.
        batch_size: largest number of observations in a step.
        steps: an epoch has at least this number of steps, of at least ``SMALLEST`` observations
            each. With large batches, 100 observations would have one step in an epoch, so that
            training would stop long before the network has learned them, and any larger training
            set would seem to help. The thesis has batches of 200 at every size (``steps=1``).
        learning_rate: learning rate of the optimiser.
        weight_decay: weight of the squared parameters in AdamW.
        precision: as in `chartae.fit`; ``"bf16-mixed"`` is faster where the processor has it.
        random_state: seed of the weights and of the order of batches.
    """

    encoder: NetworkSpec | None = None
    transforms: bool = False
    epochs: int = 200
    patience: int = 20
    batch_size: int = 200
    steps: int = 10
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    precision: str | None = None
    random_state: int = 0

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> "NetworkClassifier":
        """Change arguments; the next `fit` uses them.

        Args:
            params: arguments by name; ``encoder__dropout`` is the option ``dropout`` of an encoder
                that is a preset.

        Raises:
            ConfigurationError: for an unknown name.
        """
        nested = {name.partition("__")[2]: v for name, v in params.items() if _is_nested(name)}
        params = {name: value for name, value in params.items() if not _is_nested(name)}
        for name in params:
            check_choice("params", name, self.get_params())
        vars(self).update(params)
        if nested:
            preset = {"name": self.encoder} if isinstance(self.encoder, str) else self.encoder
            if not isinstance(preset, Mapping):
                raise ConfigurationError(
                    f"params has options of the encoder, {', '.join(nested)}: expected an encoder "
                    "that is a preset"
                )
            self.encoder = {**preset, **nested}
        return self

    def fit(
        self,
        x: Array,
        y: Array,
        sample_weight: Array | None = None,
        validation: tuple[Array, Array] | None = None,
    ) -> "NetworkClassifier":
        """Train on observations ``(N, *input_shape)`` and class indices ``(N,)``.

        Args:
            x: observations.
            y: class indices.
            sample_weight: ``(N,)``, at least 0: how much each observation counts.
            validation: observations and class indices that stop the training; without them it takes
                all epochs.
        """
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ConfigurationError("y has one class: a classifier expects at least two")
        names = [str(c) for c in self.classes_]
        train = _dataset(x, y, names, sample_weight)
        held_out = None
        if validation is not None:
            known = np.isin(validation[1], self.classes_)
            held_out = _dataset(validation[0][known], validation[1][known], names)
        kind = _Moving if self.transforms else Network
        with seeded(self.random_state, "classifier"):
            self.network_ = kind(train.input_shape, names, self.encoder).to(train.x.dtype)
        fit(
            *(self.network_, train, held_out),
            epochs=self.epochs,
            patience=self.patience if held_out is not None else None,
            batch_size=min(self.batch_size, max(SMALLEST, len(train) // self.steps)),
            learning_rate=self.learning_rate,
            optimizer=partial(torch.optim.AdamW, weight_decay=self.weight_decay),
            seed=derive_seed(self.random_state, "fit"),
            precision=self.precision,
            accelerator="cpu",
            progress=False,
        )
        return self

    def predict_proba(self, x: Array) -> Array:
        """Return the probabilities of the classes in ``classes_``, ``(n, classes)``."""
        return self.network_.probabilities(x).numpy()

    def predict(self, x: Array) -> Array:
        """Return class indices ``(n,)``."""
        predicted: Array = self.classes_[self.predict_proba(x).argmax(1)]
        return predicted


def _is_nested(name: str) -> bool:
    return name.startswith("encoder__")


class _Moving(Network):
    """A network whose training images are transformed at random in each step."""

    def loss(self, x: Tensor, y: Tensor, *, weight: Tensor | None = None) -> Losses:
        return super().loss(random_affine(x) if self.training else x, y, weight=weight)


def _dataset(x: Array, y: Array, names: Sequence[str], weight: Array | None = None) -> ArrayDataset:
    labels = [str(label) for label in y]
    return ArrayDataset.from_arrays(x, labels, class_names=names, weight=weight)


# --- those of the thesis, and stronger ones -----------------------------------------------------


def _logistic_regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=300)


def _multilayer_perceptron() -> Any:
    from sklearn.neural_network import MLPClassifier

    # Up to 200 examples are one step in an epoch, and the loss rises in some of the first ones.
    return MLPClassifier((400,), learning_rate_init=1e-3, max_iter=200, n_iter_no_change=20)


def _nearest_neighbours() -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier()


def _random_forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier()


def _support_vectors() -> Any:
    from sklearn.svm import SVC

    # With gamma="scale" the mean kernel of two training rows is at least exp(-2). A kernel so
    # narrow that it is almost zero between rows leaves the intercept to decide. Cross-validation
    # does not see it: the intercept is small as long as all classes have the same number of rows.
    return SVC(gamma="scale")


def _gradient_boosting() -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=100, min_samples_leaf=5, early_stopping=False)


CLASSIFIERS: dict[str, Classifier] = {
    "logistic regression": Classifier(_logistic_regression, {"C": [0.01, 0.1, 1.0, 10.0, 100.0]}),
    "MLP": Classifier(_multilayer_perceptron, {"alpha": [1e-4, 1e-1]}),
    "k-NN": Classifier(_nearest_neighbours, {"n_neighbors": [1, 3, 5, 7]}, grows=("n_neighbors",)),
    "random forest": Classifier(_random_forest),
    "RBF SVM": Classifier(_support_vectors, {"C": [1.0, 10.0, 100.0]}),
    "gradient boosting": Classifier(_gradient_boosting),
    "CNN": Classifier(
        partial(NetworkClassifier, "thesis/classifier"),
        {"learning_rate": [1e-2, 1e-3, 1e-4]},
        network=True,
    ),
    "MRI CNN": Classifier(
        partial(NetworkClassifier, "thesis/mri_classifier"),
        {"learning_rate": [1e-3, 1e-4, 1e-5]},
        network=True,
    ),
    "MRI CNN A2": Classifier(
        partial(NetworkClassifier, {"name": "thesis/mri_classifier", "hidden": 2}),
        {"learning_rate": [1e-3, 1e-4, 1e-5]},
        network=True,
    ),
    "MRI CNN search": Classifier(
        partial(NetworkClassifier, "thesis/mri_classifier", epochs=50),
        {
            "encoder__blocks": [2, 3, 4, 5],
            "encoder__channels": [4, 8, 16, 32],
            "encoder__convolutions": [1, 2, 3],
            "encoder__hidden": [0, 1, 2],
            "encoder__dropout": [0.0, 0.25, 0.5, 0.75],
            "learning_rate": [1e-2, 1e-3, 1e-4, 1e-5],
            "weight_decay": [0.0, 1e-4, 1e-3, 1e-2],
        },
        draws=20,
        network=True,
    ),
    "DenseNet": Classifier(
        partial(NetworkClassifier, "densenet", patience=50, epochs=500), network=True
    ),
    **{
        f"DenseNet {depth}": Classifier(
            partial(
                NetworkClassifier, {"name": "densenet", "depth": depth}, patience=50, epochs=500
            ),
            network=True,
        )
        for depth in (10, 40)
    },
    "ResNet": Classifier(
        partial(NetworkClassifier, "resnet"), {"learning_rate": [1e-2, 1e-3, 1e-4]}, network=True
    ),
    "strong CNN": Classifier(
        partial(NetworkClassifier, "regularised_conv", transforms=True, weight_decay=1e-2),
        network=True,
    ),
}
"""The classifiers by name. ``"CNN"`` is that of thesis Tables 2.6 and 3.5, ``"DenseNet"`` that of
section 1.8.3, with a depth of 20; others have their depth in the name (Fig. 1.6, middle).
``"MRI CNN"`` and ``"MRI CNN A2"`` are the networks A1 and A2 of Fig. 1.7. ``"MRI CNN search"`` is
the random search of section 1.5.5, from which the networks B1 and B2 of the thesis come. The thesis
says what is varied, but gives no ranges: those here are a choice. So is the number of draws, 100 in
the thesis. The validation set judges candidates, in place of five folds. ``"ResNet"`` has
residual blocks. ``"strong CNN"`` has dropout, weight decay and classic transforms in each step."""


def default_classifiers(input_shape: tuple[int, ...]) -> dict[str, Classifier]:
    """Return the classifiers of a study without a choice: for images and volumes, or for vectors.

    >>> list(default_classifiers((30,)))
    ['logistic regression', 'k-NN', 'random forest', 'RBF SVM', 'gradient boosting']
    """
    names = ["logistic regression", "MLP", "k-NN", "random forest", "RBF SVM", "strong CNN"]
    if len(input_shape) == 1:
        names = ["logistic regression", "k-NN", "random forest", "RBF SVM", "gradient boosting"]
    return {name: CLASSIFIERS[name] for name in names}


# --- training one -------------------------------------------------------------------------------


def fit_classifier(
    classifier: Classifier,
    x: Array,
    y: Array,
    *,
    parameters: Mapping[str, Any],
    seed: int,
    weight: Array | None = None,
    growth: float = 1.0,
    validation: tuple[Array, Array] | None = None,
) -> Any:
    """Return a trained estimator.

    Args:
        classifier: what to train.
        x: ``(N, *input_shape)``, or rows for a classifier that is no network.
        y: class indices, ``(N,)``.
        parameters: its hyper-parameters.
        seed: its seed, if it has one.
        weight: ``(N,)``, positive. An estimator without weights gets each example several times, in
            proportion to its weight, rounded.
        growth: factor of the parameters that grow with the training set.
        validation: observations and labels that stop the training of a network.
    """
    estimator = classifier.make()
    if "random_state" in estimator.get_params():
        estimator.set_params(random_state=seed % 2**32)
    estimator.set_params(**parameters)
    rows = np.arange(len(x))
    given: dict[str, Any] = {}
    if weight is not None and np.ptp(weight) > 0.0:
        if "sample_weight" in inspect.signature(estimator.fit).parameters:
            given["sample_weight"] = weight
        else:
            times = np.rint(weight / weight.min()).astype(int)
            rows = rows.repeat(times)
            growth *= len(rows) / len(x)
    for name in classifier.grows:
        value = max(1, round(estimator.get_params()[name] * growth))
        estimator.set_params(**{name: min(value, len(rows))})
    if classifier.network:
        given["validation"] = validation
    return estimator.fit(x[rows], y[rows], **given)


def scores_of(estimator: Any, x: Array, num_classes: int) -> tuple[Array, Array | None]:
    """Return predicted class indices, and a score of each class, ``(n, num_classes)``, if any.

    Classes that the estimator has not seen have the lowest score.
    """
    predicted: Array = np.asarray(estimator.predict(x))
    if hasattr(estimator, "predict_proba"):
        found = np.asarray(estimator.predict_proba(x), dtype=np.float64)
    elif hasattr(estimator, "decision_function"):
        found = np.asarray(estimator.decision_function(x), dtype=np.float64)
        if found.ndim == 1:
            found = np.stack([-found, found], 1)
    else:
        return predicted, None
    scores = np.full((len(x), num_classes), found.min())
    scores[:, estimator.classes_] = found
    return predicted, scores
