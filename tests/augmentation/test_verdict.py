"""Comparisons and the verdict of a study, on results whose answers are known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t

from chartae.augmentation import REAL, WEIGHTED, Comparison, StudyResult, TrainingSet
from chartae.errors import ConfigurationError

ADDED, ONLY = "real + synthetic", "synthetic only"
NOISE = np.array([-0.004, 0.003, 0.002, -0.003, 0.002])
SETS = {
    "real": REAL,
    "transforms": TrainingSet(ADDED, "transforms", "50"),
    "vae": TrainingSet(ADDED, "vae", "50"),
    "both": TrainingSet(ADDED, "transforms & vae", "50"),
    "only": TrainingSet(ONLY, "vae", "50"),
}


def study(
    resplit: bool = False, quality: dict | None = None, validation: int = 60, **means: float
) -> StudyResult:
    """Return a study of one classifier; each set differs from the real one by noise of its own."""
    rows = []
    for k, name in enumerate(SETS):
        rows.append(means.get(name, 0.8) + np.roll(NOISE, k))
    score = np.array(rows)[:, None]
    settings = {
        "metric": "accuracy",
        "models": ["vae"],
        "resplit": resplit,
        "num_test": 60,
        "num_train": 12,
        "num_validation": validation,
        "num_pool": 180,
        "repeats": 5,
        "class_names": ["a", "b"],
    }
    of_score = {"accuracy": score, "balanced_accuracy": score}
    figures = {part: dict(of_score) for part in ("validation", "test")}
    return StudyResult(
        tuple(SETS.values()), ("SVM",), figures, {"SVM": [{}] * 5}, settings, quality or {}
    )


def test_an_interval_is_students():
    found = study(vae=0.9).compare(SETS["vae"], "SVM")
    differences = 0.1 + np.roll(NOISE, 2) - NOISE
    assert found.difference == pytest.approx(0.1)
    expected = t.ppf(0.975, 4) * differences.std(ddof=1) / np.sqrt(5)
    assert found.margin == pytest.approx(expected)
    assert found.effect == "helps"


def test_an_interval_is_wider_for_more_comparisons():
    one = study(vae=0.9).compare(SETS["vae"], "SVM")
    ten = study(vae=0.9).compare(SETS["vae"], "SVM", comparisons=10)
    assert ten.margin / one.margin == pytest.approx(t.ppf(0.9975, 4) / t.ppf(0.975, 4))
    with pytest.raises(ConfigurationError, match="comparisons=0"):
        study().compare(SETS["vae"], "SVM", comparisons=0)


def test_an_interval_is_wider_if_test_sets_overlap():
    """Nadeau and Bengio: the factor of the variance is 1/J + n_test / (n - n_test), not 1/J."""
    apart, again = (study(of).compare(SETS["vae"], "SVM") for of in (False, True))
    assert again.margin / apart.margin == pytest.approx(np.sqrt((1 / 5 + 60 / 120) / (1 / 5)))


def test_the_coverage_of_an_interval_is_95_percent():
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        result = study()
        result.score[2, 0] = result.score[0, 0] + random.normal(0.01, 0.02, 5)
        found = result.compare(SETS["vae"], "SVM")
        inside += abs(found.difference - 0.01) <= found.margin
    assert 0.92 <= inside / 400 <= 0.98


def test_synthetic_data_that_help():
    verdict = study(vae=0.9, both=0.85, only=0.79).verdict()
    assert verdict["Do synthetic data help?"].startswith("Yes. ")
    assert "SVM on real data and vae, 90.0 %" in verdict["Do synthetic data help?"]
    assert verdict["Do they harm?"].startswith("Not clearly")
    assert verdict["Do they add to classic transforms?"].startswith("Yes.")


def test_what_is_best_without_a_model_is_the_reference():
    verdict = study(vae=0.9, transforms=0.95, both=0.9).verdict()
    assert verdict["Do synthetic data help?"].startswith("No: they are clearly worse")
    assert "transforms" in verdict["Do synthetic data help?"]
    assert verdict["Do they add to classic transforms?"].startswith("No, they take away")


def test_synthetic_data_that_harm():
    verdict = study(vae=0.7, both=0.7, only=0.6).verdict()
    assert verdict["Do they harm?"].startswith("Yes, in 1 of 1 ")
    assert verdict["Can they stand in for the real data?"].startswith("It is not shown")


def test_the_harm_that_is_named_is_a_clear_one():
    """Another classifier may lose more on average, in draws that differ more."""
    result = study(vae=0.78)
    scores = result.score
    wild = scores.copy()
    wild[2] += np.array([-0.3, 0.2, -0.3, 0.2, -0.1])
    figures = dict.fromkeys(
        ("accuracy", "balanced_accuracy"), np.concatenate([scores, wild], axis=1)
    )
    both = replace(
        result, classifiers=("SVM", "wild"), figures=dict.fromkeys(("validation", "test"), figures)
    )
    answer = both.verdict()["Do they harm?"]
    assert answer.startswith("Yes, in 1 of 2 comparisons (SVM). The largest loss")
    assert "that of SVM on real data and vae: −2.0 points" in answer


def test_an_interval_wider_than_all_differences_is_not_told():
    assert str(Comparison(-0.4, 1.2)).endswith("the draws differ too much for an interval")
    assert "95 % interval" in str(Comparison(-0.4, 0.9))


def test_numbers_of_samples_are_told_if_there_are_several():
    result = study(vae=0.9)
    more = TrainingSet(ADDED, "smote", "x5")
    sets = (*result.training_sets, more)
    figures = dict.fromkeys(
        ("accuracy", "balanced_accuracy"), np.concatenate([result.score, result.score[:1]])
    )
    several = replace(
        result, training_sets=sets, figures=dict.fromkeys(("validation", "test"), figures)
    )
    assert (
        "SVM on real data and vae (50 of each class)"
        in several.verdict()["Do synthetic data help?"]
    )


def test_one_comparison_needs_no_correction():
    verdict = study(vae=0.7, both=0.7, only=0.6).verdict()
    assert "corrected" not in verdict["Do they harm?"]
    assert "corrected" not in verdict["Can they stand in for the real data?"]


def test_no_difference_is_said_to_be_none():
    verdict = study().verdict()
    assert verdict["Do synthetic data help?"].startswith("No clear difference.")
    assert verdict["Can they stand in for the real data?"].startswith("Yes: no classifier loses")


def test_validation_chooses_and_the_test_set_reports():
    result = study(vae=0.9, both=0.8)
    result.figures["validation"]["accuracy"] = result.score.copy()
    result.figures["validation"]["accuracy"][2:4] = result.score[[3, 2]]
    assert result.chosen([SETS["vae"], SETS["both"]]) == (SETS["both"], "SVM")
    assert "80.0 %" in result.verdict()["Do synthetic data help?"]


def test_a_small_validation_set_does_not_choose():
    """Then the test set does, and the interval is corrected for all candidates with a model."""
    large, small = (study(validation=n, vae=0.9, both=0.8) for n in (40, 39))
    for result in (large, small):
        result.figures["validation"]["accuracy"] = result.score[[0, 1, 3, 2, 4]]
    assert (large.judge, small.judge) == ("validation", "test")
    assert "80.0 %" in large.verdict()["Do synthetic data help?"]
    answer = small.verdict()["Do synthetic data help?"]
    assert "real data and vae, 90.0 %" in answer
    assert "corrected for 3 comparisons" in answer
    assert "there are few validation data" in answer
    margin = small.compare(SETS["vae"], "SVM", comparisons=3).margin
    assert f"+{100 * (0.1 + margin):.1f}, corrected" in answer


def test_copies_are_called_copies():
    quality = {"vae": {k: np.ones(5) for k in ("copies", "membership_auc", "distance_ratio")}}
    quality["vae"]["distance_ratio"] = np.zeros(5)
    answer = study(quality=quality).verdict()["Are they copies?"]
    assert "100.0 % exact copies" in answer
    assert answer.startswith("Some are exact copies, and samples reveal who was in the training")
    quality["vae"] |= {"copies": np.zeros(5), "membership_auc": np.full(5, 0.51)}
    answer = study(quality=quality).verdict()["Are they copies?"]
    assert answer.startswith("There are no exact copies, and samples hardly reveal who")
    quality["vae"]["membership_auc"] += 0.3
    assert ", but samples reveal who" in study(quality=quality).verdict()["Are they copies?"]


def test_without_a_model_there_is_no_verdict():
    result = study()
    result.settings["models"].clear()
    assert result.verdict() == {}


def test_a_number_may_be_left_out_if_there_is_one():
    result = study()
    assert np.array_equal(
        result.scores(TrainingSet(ADDED, "vae"), "SVM"), result.scores(SETS["vae"], "SVM")
    )
    with pytest.raises(ConfigurationError, match="is not known"):
        result.scores(TrainingSet(ADDED, "vae", "7"), "SVM")
    with pytest.raises(ConfigurationError, match="is not known"):
        result.scores(WEIGHTED, "SVM")


# --- classifiers that fail ------------------------------------------------------------------------


def two_classifiers(svm: list[float], forest: list[float], num_test: int = 1000) -> StudyResult:
    """Return a study of two classes and three draws; scores are those with the samples of a VAE."""
    score = np.array([[[0.9, 0.9, 0.9], [0.8, 0.8, 0.8]], [svm, forest]])
    settings = study().settings | {"repeats": 3, "num_test": num_test}
    return StudyResult(
        (REAL, SETS["vae"]),
        ("SVM", "forest"),
        {name: {"accuracy": score, "balanced_accuracy": score} for name in ("validation", "test")},
        {"SVM": [{}] * 3, "forest": [{}] * 3},
        settings,
    )


def test_a_classifier_that_fails_alone_is_named():
    answer = two_classifiers([0.5, 0.9, 0.6], [0.8, 0.7, 0.75]).verdict()["Did a classifier fail?"]
    assert answer.startswith("SVM fails in 2 of 3 draws: its balanced accuracy falls to 50.0 % on")
    assert "real data and vae, from 90.0 %" in answer
    assert "forest" not in answer


@pytest.mark.parametrize(
    ("svm", "forest", "num_test"),
    [
        ([0.71, 0.9, 0.9], [0.8, 0.8, 0.8], 1000),  # it keeps more than half
        ([0.5, 0.9, 0.9], [0.5, 0.8, 0.8], 1000),  # the samples are bad
        ([0.6, 0.9, 0.9], [0.8, 0.8, 0.8], 20),  # six test examples
    ],
)
def test_no_failure_is_none(svm, forest, num_test):
    assert "Did a classifier fail?" not in two_classifiers(svm, forest, num_test).verdict()
