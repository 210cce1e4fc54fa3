"""Whether the samples of an augmenter would help a classifier, measured on held-out examples."""

import io
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from chartae.augmentation.augmenter import Augmenter
from chartae.augmentation.classifiers import CLASSIFIERS
from chartae.augmentation.draws import Draw
from chartae.augmentation.methods import ModelMethod
from chartae.augmentation.results import REAL, WEIGHTED, Comparison, TrainingSet
from chartae.augmentation.study_runs import (
    SYNTHETIC,
    Inputs,
    class_indices,
    generate,
    read_arrays,
    trained,
    tune,
    typical_of,
)
from chartae.checks import check_choice, check_integer
from chartae.data import ArrayDataset
from chartae.errors import ConfigurationError, DataError
from chartae.randomness import derive_seed

__all__ = ["FEWEST", "Benefit", "would_help"]

Array = NDArray[Any]
Answer = Literal["help", "make no clear difference", "would harm", "too few examples to tell"]

FEWEST = 100
"""With fewer examples the interval is too wide for an answer."""
METHOD = "samples"
"""The name of the augmenter among the methods."""
SEEDS = 3
"""Classifiers trained on each set, with different seeds, whose predictions are averaged."""
ANSWERS: dict[str, Answer] = {
    "helps": "help",
    "no clear difference": "make no clear difference",
    "hurts": "would harm",
}


@dataclass(frozen=True)
class Benefit:
    """What samples bring to a classifier, measured by `would_help`.

    Attributes:
        answer: ``"help"`` if the interval of the difference is above zero, ``"would harm"`` if it
            is below, ``"make no clear difference"`` if it contains zero, or ``"too few examples to
            tell"``; all figures are then NaN.
        classifier: the name of the classifier.
        examples: number of real examples.
        smallest: number of examples of the smallest class.
        folds: number of parts, each of which was held out once.
        weighted: whether the classifier of real examples alone has class weights.
        real: balanced accuracy of the classifier trained on real examples alone, in [0, 1].
        augmented: balanced accuracy with real examples and samples.
        margin: half the width of the 95 % confidence interval of the difference.
        right_label: share of samples to which the classifier of real examples gives their label.
        membership_auc: how well samples tell the examples that they were learned from from others:
            0.5 is not at all, 1 always.
    """

    answer: Answer
    classifier: str
    examples: int
    smallest: int
    folds: int
    weighted: bool
    real: float = float("nan")
    augmented: float = float("nan")
    margin: float = float("nan")
    right_label: float = float("nan")
    membership_auc: float = float("nan")

    @property
    def comparison(self) -> Comparison:
        """The difference of the balanced accuracies, with its interval."""
        return Comparison(self.augmented - self.real, self.margin)

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values, with None in place of NaN."""
        return {name: None if v != v else v for name, v in asdict(self).items()}

    def __str__(self) -> str:
        """The answer in one line."""
        if self.answer == "too few examples to tell":
            return (
                f"too few examples to tell whether the samples help: {self.examples}, the smallest "
                f"class with {self.smallest}; at least {FEWEST} are needed, and "
                f"{2 * self.folds} of each class"
            )
        weights = ", but with class weights" if self.weighted else ""
        return (
            f"the samples {self.answer} (classifier: {self.classifier}): balanced accuracy "
            f"{100 * self.augmented:.1f} % with them, {100 * self.real:.1f} % without{weights}, "
            f"{self.comparison}; {100 * self.right_label:.0f} % of the samples have the right "
            f"label; membership AUC {self.membership_auc:.2f}"
        )


def would_help(
    augmenter: Augmenter,
    x: Any,
    y: ArrayLike | Tensor | None = None,
    *,
    per_class: int | Literal["balance"] = 200,
    classifier: str = "random forest",
    folds: int = 3,
) -> Benefit:
    """Measure whether samples of an augmenter would help a classifier on examples held out.

    The examples are split into ``folds`` parts. For each part a new augmenter with the same
    arguments learns the others. A classifier is trained on these alone, and on these and the
    samples; it predicts the part held out. Real examples have half of the total weight, unless
    classes are balanced. In sets with classes of unequal size, the classifier of real examples
    alone has class weights, because otherwise samples would seem to help where weights would do.
    Hyper-parameters are tuned on the real training examples.

    The interval is that of the mean of paired differences of all examples, each held out once
    (Bayle et al., 2020, *Cross-validation confidence intervals for test error*). It says nothing
    about other examples than those given, of which few may be too easy or too hard. The models of
    the folds learn from fewer examples than ``augmenter.fit(x, y)``.

    It takes as long as ``folds - 1`` trainings of the augmenter. `augmentation_study` compares
    several methods and classifiers, and networks.

    Args:
        augmenter: fitted or not; it does not change.
        x: observations ``(N, *input_shape)``, as for `Augmenter.fit`, or an `ArrayDataset` with
            labels.
        y: labels ``(N,)``.
        per_class: number of samples of each class, or ``"balance"`` for as many as each class lacks
            to the largest one.
        classifier: a name of `CLASSIFIERS` that is no network.
        folds: number of parts, at least 2.

    Raises:
        ConfigurationError: for a wrong argument, or an augmenter that was loaded without its model.
        DataError: as `Augmenter.fit` does.

    >>> from chartae.data import digits
    >>> data = digits()
    >>> data = data.subset((data.y == 3) | (data.y == 8))
    >>> augmenter = Augmenter("ae", "mixture", fit_options={"epochs": 2})
    >>> would_help(augmenter, data, classifier="k-NN", per_class=5, folds=2).classifier
    'k-NN'
    """
    check_choice("classifier", classifier, CLASSIFIERS)
    if CLASSIFIERS[classifier].network:
        raise ConfigurationError(
            f"classifier={classifier!r} is a network: expected another; augmentation_study takes "
            "networks"
        )
    check_integer("folds", folds, minimum=2)
    if per_class != "balance":
        check_integer("per_class", per_class, minimum=1)
    data = augmenter.labelled(x, y)
    labels = class_indices(data)
    sizes = np.bincount(labels)  # of classes that all have an example
    smallest = int(sizes.min())
    answer: Answer = "too few examples to tell"
    facts = (classifier, len(data), smallest, folds, bool(np.ptp(sizes) > 1))
    if per_class == "balance" and np.ptp(sizes) == 0:
        raise ConfigurationError(
            "per_class='balance', and all classes have the same size: expected a number"
        )
    if len(data) < FEWEST or smallest < 2 * folds or len(sizes) < 2:
        return Benefit(answer, *facts)
    inputs = _inputs(augmenter, data, classifier, folds)
    found = [held_out_fold(inputs, fold, augmenter.seed, str(per_class)) for fold in range(folds)]
    order = np.concatenate([draw.test for draw in inputs.draws if draw.test is not None])
    real, both = (np.concatenate(of) for of in zip(*(one[:2] for one in found), strict=True))
    of_class = [np.flatnonzero(labels[order] == index) for index in data.classes]
    variance = [(both - real)[members].var(ddof=1) / len(members) for members in of_class]
    margin = 1.96 * float(np.sqrt(np.sum(variance))) / len(of_class)
    without, augmented = (
        float(np.mean([of[members].mean() for members in of_class])) for of in (real, both)
    )
    return Benefit(
        ANSWERS[Comparison(augmented - without, margin).effect],
        *facts,
        real=without,
        augmented=augmented,
        margin=margin,
        right_label=float(np.mean([one.right_label for one in found])),
        membership_auc=float(np.mean([one.membership_auc for one in found])),
    )


def _inputs(augmenter: Augmenter, data: ArrayDataset, classifier: str, folds: int) -> Inputs:
    """Return what the runs of a study read, with a fold in place of a repeat."""
    from sklearn.model_selection import StratifiedKFold

    seed = derive_seed(augmenter.seed, "folds") % 2**32
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    labels = class_indices(data)
    # Nothing is chosen on a validation set: it only stops networks.
    draws = [Draw(train, test, test) for train, test in split.split(labels, labels)]
    options = {k: v for k, v in augmenter.get_params().items() if k not in ("seed", "output_dir")}
    incomplete = data.mask is not None
    return Inputs(
        data,
        {},
        draws,
        {METHOD: ModelMethod(options)},
        {classifier: CLASSIFIERS[classifier]},
        real_share=0.5,
        typical=[typical_of(data, draw) for draw in draws] if incomplete else (),
    )


class Fold(NamedTuple):
    """What classifiers say about the examples that are held out once.

    Attributes:
        real: for each held-out example, the share of classifiers of real examples that are right.
        both: the same for classifiers of real examples and samples.
        right_label: share of the samples to which the first ones give their label.
        membership_auc: as in `Benefit`.
    """

    real: Array
    both: Array
    right_label: float
    membership_auc: float


def held_out_fold(inputs: Inputs, fold: int, seed: int, number: str) -> Fold:
    """Learn the training set of a fold; train classifiers without and with samples; test them.

    Args:
        inputs: the training and the test set of each fold, one method and one classifier.
        fold: its number.
        seed: seed of the augmenter and of the classifiers.
        number: how many samples, as in `numbers_by_class`.

    Raises:
        DataError: if the method cannot make samples.
    """
    start = {"repeat": fold, "seed": derive_seed(seed, "fold", fold)}
    made = generate({**start, "method": METHOD, "numbers": [number]}, inputs, 0)
    if SYNTHETIC not in made.files:
        raise DataError(str(made.figures["reason"]))
    samples = read_arrays(io.BytesIO(made.files[SYNTHETIC]))
    (classifier,) = inputs.classifiers
    tuned = tune({**start, "classifier": classifier}, inputs, 0).figures
    inputs = replace(inputs, synthetic=[{METHOD: samples}] * len(inputs.draws))
    x, y = inputs.held_out(fold)["test"]
    # Sizes of equal classes differ by one at most within a fold.
    reference = WEIGHTED if np.ptp(np.bincount(inputs.train(fold)[1])) > 1 else REAL
    with_samples = TrainingSet("real + synthetic", METHOD, number)
    real, both, right = np.zeros(len(y)), np.zeros(len(y)), 0.0
    for attempt in range(SEEDS):
        settings = {
            "repeat": fold,
            "seed": derive_seed(seed, "classifier", fold, attempt),
            "classifier": classifier,
            "parameters": tuned,
        }
        without = trained({**settings, **asdict(reference)}, inputs)
        real += (without(x)[0] == y) / SEEDS
        right += float((without(samples[0])[0] == samples[1]).mean()) / SEEDS
        both += (trained({**settings, **asdict(with_samples)}, inputs)(x)[0] == y) / SEEDS
    membership = made.figures["quality"].get("membership_auc", float("nan"))
    return Fold(real, both, right, membership)
