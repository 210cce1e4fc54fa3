"""Data augmentation from few labelled examples, and studies of whether it helps."""

from typing import TYPE_CHECKING, Any

__all__ = [
    "CLASSIFIERS",
    "MODELS",
    "REAL",
    "RECORD_FILE",
    "SAMPLERS",
    "Augmenter",
    "ClassFidelity",
    "Classifier",
    "Comparison",
    "Fidelity",
    "ManifoldOverSampler",
    "Method",
    "ModelMethod",
    "StudyResult",
    "TrainingSet",
    "augmentation_study",
    "concentration",
    "distance_ratio",
    "gaussian_noise",
    "sample_weight",
    "smote",
    "spread_ratio",
]

from chartae.augmentation.augmenter import (
    MODELS,
    RECORD_FILE,
    SAMPLERS,
    Augmenter,
)
from chartae.augmentation.fidelity import (
    ClassFidelity,
    Fidelity,
    concentration,
    distance_ratio,
    spread_ratio,
)
from chartae.augmentation.methods import Method, ModelMethod, gaussian_noise, smote
from chartae.augmentation.results import REAL, Comparison, StudyResult, TrainingSet
from chartae.augmentation.study import CLASSIFIERS, Classifier, augmentation_study
from chartae.augmentation.weights import sample_weight

if TYPE_CHECKING:
    from chartae.augmentation.oversampler import ManifoldOverSampler


def __getattr__(name: str) -> Any:
    if name != "ManifoldOverSampler":
        raise AttributeError(f"module 'chartae.augmentation' has no attribute {name!r}")
    # Its base class is imported at first use, because imbalanced-learn takes a second.
    from chartae.augmentation.oversampler import ManifoldOverSampler

    return ManifoldOverSampler
