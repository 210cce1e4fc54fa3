"""Evaluation: how good samples and imputations are, by plain functions on arrays."""

from chartae.evaluation.fidelity import frechet_distance
from chartae.evaluation.followups import (
    calibration,
    coverage,
    hidden_error,
    nearest_sequences,
    roughness,
)

__all__ = [
    "calibration",
    "coverage",
    "frechet_distance",
    "hidden_error",
    "nearest_sequences",
    "roughness",
]
