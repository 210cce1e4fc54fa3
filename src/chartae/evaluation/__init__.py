"""Evaluation: how good samples and imputations are, by plain functions on arrays."""

from chartae.evaluation.fidelity import frechet_distance
from chartae.evaluation.followups import (
    Calibration,
    calibration,
    carried_forward,
    coverage,
    hidden_error,
    nearest_sequences,
    roughness,
)

__all__ = [
    "Calibration",
    "calibration",
    "carried_forward",
    "coverage",
    "frechet_distance",
    "hidden_error",
    "nearest_sequences",
    "roughness",
]
