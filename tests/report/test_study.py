"""The tables of a report of a study."""

import numpy as np

from chartae.augmentation import REAL, StudyResult
from chartae.evaluation import CLASSIFICATION_FIGURES
from chartae.report.study import study_tables


def test_ratios_are_not_percentages() -> None:
    """The text says that 1 is as new as test data, and that 0.5 is no membership at all."""
    figures = {"test": {name: np.array([[[0.25, 0.75]]]) for name in CLASSIFICATION_FIGURES}}
    quality = {
        "vae": {
            "gan_test": np.array([0.9, 0.8]),
            "copies": np.array([0.0, np.nan]),
            "membership_auc": np.array([0.5, 0.54]),
            "distance_ratio": np.array([1.0, 1.1]),
        }
    }
    settings = {"metric": "accuracy", "class_names": ["<b>", "é, è"]}
    result = StudyResult((REAL,), ("k-NN",), figures, {}, settings, quality)
    scores, likeness = study_tables(result)
    assert scores.rows == [["real", "k-NN", *["50.0"] * 7]]
    cells = dict(zip(likeness.headings, likeness.rows[0], strict=True))
    assert (cells["right label"], cells["exact copies"]) == ("85.0", "0.0")
    assert (cells["distance to training data"], cells["membership AUC"]) == ("1.05", "0.52")
    assert cells["precision"] == "–"
