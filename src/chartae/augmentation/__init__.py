"""Data augmentation from few labelled examples, and studies of whether it helps."""

from typing import TYPE_CHECKING, Any

__all__ = [
    "CLASSIFIERS",
    "METHODS",
    "MODELS",
    "REAL",
    "RECIPES",
    "RECORD_FILE",
    "SAMPLERS",
    "WEIGHTED",
    "Augmenter",
    "Benefit",
    "ClassFidelity",
    "Classifier",
    "Comparison",
    "Fidelity",
    "ManifoldOverSampler",
    "Method",
    "ModelMethod",
    "NetworkClassifier",
    "Recipe",
    "StudyResult",
    "TrainingSet",
    "augmentation_study",
    "concentration",
    "default_classifiers",
    "distance_ratio",
    "gaussian_noise",
    "make_method",
    "mixup",
    "resampling",
    "sample_weight",
    "smote",
    "spread_ratio",
    "transforms",
    "would_help",
]

from chartae.augmentation.augmenter import Augmenter
from chartae.augmentation.benefit import Benefit, would_help
from chartae.augmentation.classifiers import (
    CLASSIFIERS,
    Classifier,
    NetworkClassifier,
    default_classifiers,
)
from chartae.augmentation.fidelity import (
    ClassFidelity,
    Fidelity,
    concentration,
    distance_ratio,
    spread_ratio,
)
from chartae.augmentation.methods import (
    METHODS,
    Method,
    ModelMethod,
    gaussian_noise,
    make_method,
    mixup,
    resampling,
    smote,
    transforms,
)
from chartae.augmentation.recipes import RECIPES, Recipe
from chartae.augmentation.results import REAL, WEIGHTED, Comparison, StudyResult, TrainingSet
from chartae.augmentation.storage import RECORD_FILE
from chartae.augmentation.study import augmentation_study
from chartae.augmentation.weights import sample_weight
from chartae.models import MODELS
from chartae.samplers import SAMPLERS

if TYPE_CHECKING:
    from chartae.augmentation.oversampler import ManifoldOverSampler


def __getattr__(name: str) -> Any:
    if name != "ManifoldOverSampler":
        raise AttributeError(f"module 'chartae.augmentation' has no attribute {name!r}")
    # Its base class is imported at first use, because imbalanced-learn takes a second.
    from chartae.augmentation.oversampler import ManifoldOverSampler

    return ManifoldOverSampler
