"""Data augmentation from few labelled examples, and studies of whether it helps."""

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
