"""Data augmentation from few labelled examples, and studies of whether it helps."""

__all__ = [
    "CLASSIFIERS",
    "MODELS",
    "REAL",
    "SAMPLERS",
    "Augmenter",
    "Classifier",
    "Comparison",
    "Method",
    "ModelMethod",
    "StudyResult",
    "TrainingSet",
    "augmentation_study",
    "gaussian_noise",
    "smote",
]

from chartae.augmentation.augmenter import MODELS, SAMPLERS, Augmenter
from chartae.augmentation.methods import Method, ModelMethod, gaussian_noise, smote
from chartae.augmentation.study import (
    CLASSIFIERS,
    REAL,
    Classifier,
    Comparison,
    StudyResult,
    TrainingSet,
    augmentation_study,
)
