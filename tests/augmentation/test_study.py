import csv
import io
import json
from functools import partial

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from chartae.augmentation import (
    CLASSIFIERS,
    REAL,
    Classifier,
    ModelMethod,
    NetworkClassifier,
    StudyResult,
    TrainingSet,
    augmentation_study,
    gaussian_noise,
    smote,
    transforms,
)
from chartae.data import digits
from chartae.errors import ConfigurationError, DataError

DIGITS = digits()
POOL, TEST = slice(0, 300), slice(300, 600)
ARRAYS = (DIGITS.x[POOL], DIGITS.y[POOL], DIGITS.x[TEST], DIGITS.y[TEST])
NEAREST = Classifier(partial(KNeighborsClassifier, 1))
LOGISTIC = Classifier(partial(LogisticRegression, max_iter=50), {"C": [0.1, 10.0]})


def copies(x, y, counts, seed):
    return x, y


def wrong_labels(x, y, counts, seed):
    """Labels of the next class, five times as many examples as real ones."""
    return np.repeat(x, 5, axis=0), np.roll(np.repeat(y, 5), 25)


def study(methods, classifiers=None, **options):
    options = {
        "per_class": 5,
        "synthetic": 5,
        "real_share": None,
        "repeats": 3,
        "workers": 1,
        **options,
    }
    return augmentation_study(
        *ARRAYS, methods=methods, classifiers=classifiers or {"1-NN": NEAREST}, **options
    )


def test_copies_of_real_data_change_nothing_for_the_nearest_neighbour():
    result = study({"copies": copies})
    for part in ("real + synthetic", "synthetic only"):
        scores = result.scores(TrainingSet(part, "copies"), "1-NN")
        assert np.array_equal(scores, result.scores(REAL, "1-NN"))
        comparison = result.compare(TrainingSet(part, "copies"), "1-NN")
        assert (comparison.difference, comparison.effect) == (0.0, "no clear difference")


def test_wrong_labels_hurt():
    result = study({"wrong": wrong_labels}, {"logistic": LOGISTIC}, synthetic=25)
    for part in ("real + synthetic", "synthetic only"):
        comparison = result.compare(TrainingSet(part, "wrong"), "logistic")
        assert comparison.effect == "hurts"
        assert comparison.difference < -0.1


def test_the_answers_help():
    def oracle(x, y, counts, seed):
        return DIGITS.x[TEST].numpy(), DIGITS.y[TEST].numpy()

    result = study({"oracle": oracle}, synthetic=100)
    assert result.compare(TrainingSet("real + synthetic", "oracle"), "1-NN").effect == "helps"
    assert result.scores(TrainingSet("synthetic only", "oracle"), "1-NN").tolist() == [1, 1, 1]


def test_real_share_protects_from_bad_data():
    plain = study({"wrong": wrong_labels}, {"logistic": LOGISTIC})
    guarded = study({"wrong": wrong_labels}, {"logistic": LOGISTIC}, real_share=0.95)
    mixed = TrainingSet("real + synthetic", "wrong")
    assert guarded.scores(mixed, "logistic").mean() > plain.scores(mixed, "logistic").mean() + 0.1


def test_real_share_repeats_for_classifiers_without_weights():
    three = Classifier(partial(KNeighborsClassifier, 3))
    guarded = study({"wrong": wrong_labels}, {"3-NN": three}, real_share=0.8)
    plain = study({"wrong": wrong_labels}, {"3-NN": three})
    mixed = TrainingSet("real + synthetic", "wrong")
    assert guarded.scores(mixed, "3-NN").mean() > plain.scores(mixed, "3-NN").mean()


@pytest.mark.slow
def test_the_seed_decides_everything():
    methods = {"noise": gaussian_noise}
    classifiers = {"MLP": Classifier(CLASSIFIERS["MLP"].make, {"alpha": [1e-4, 1.0]})}
    first, again, other = (
        study(methods, classifiers, repeats=1, seed=seed).score for seed in (3, 3, 4)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_repeats_are_seeds_that_follow_one_another():
    both = study({"noise": gaussian_noise}, repeats=2, seed=5).score
    second = study({"noise": gaussian_noise}, repeats=1, seed=6).score
    assert np.array_equal(both[..., 1], second[..., 0])


@pytest.mark.slow
def test_processes_give_the_same_as_one():
    alone = study({"noise": gaussian_noise}, repeats=2)
    together = study({"noise": gaussian_noise}, repeats=2, workers=2)
    assert np.array_equal(alone.score, together.score)


def test_nobody_sees_the_test_set(monkeypatch):
    """Tuning and methods get examples of the pool only, and per_class of each."""
    pool = {row.tobytes() for row in DIGITS.x[POOL].numpy()}
    seen = []

    def spy(x, y, counts, seed):
        seen.append((x, y))
        return copies(x, y, counts, seed)

    study({"spy": spy}, repeats=2)
    for x, y in seen:
        assert {row.tobytes() for row in x} <= pool
        assert np.bincount(y).tolist() == [5] * 10


def test_a_method_cannot_change_the_real_examples():
    def vandal(x, y, counts, seed):
        made = x.copy(), y.copy()
        x[:] = 0.0
        return made

    vandalised, plain = study({"m": vandal}), study({"m": copies})
    assert np.array_equal(vandalised.score[0], plain.score[0])


def test_tuned_parameters_come_from_the_grid():
    result = study({"copies": copies}, {"logistic": LOGISTIC})
    assert len(result.tuned["logistic"]) == 3
    assert all(choice["C"] in (0.1, 10.0) for choice in result.tuned["logistic"])


def test_few_examples_are_enough_for_every_classifier():
    classifiers = {name: of for name, of in CLASSIFIERS.items() if not of.network}
    result = study({"noise": gaussian_noise}, classifiers, per_class=2, repeats=1)
    assert np.isfinite(result.score).all()


def test_labels_may_be_strings():
    names = np.array([f"digit {k}" for k in range(10)])
    arrays = (ARRAYS[0], names[ARRAYS[1]], ARRAYS[2], names[ARRAYS[3]])
    options = {"per_class": 5, "repeats": 1, "workers": 1, "synthetic": 5, "real_share": None}
    classifiers = {"1-NN": NEAREST}
    named = augmentation_study(*arrays, methods={"c": copies}, classifiers=classifiers, **options)
    assert np.array_equal(named.score, study({"c": copies}, repeats=1).score)


def test_progress_is_told():
    told = []
    study({"copies": copies}, advance=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == list(range(1, 16))  # 3 sets, 3 tunings, 9 scores
    assert told[-1] == (15, 15)


class TestTables:
    @pytest.fixture
    def result(self):
        accuracy = np.array([[[0.8, 0.9]], [[0.95, 0.85]], [[0.1, 0.2]]])
        sets = (REAL, TrainingSet("real + synthetic", "m"), TrainingSet("synthetic only", "m"))
        figures = {"test": {"accuracy": accuracy, "auc": np.full_like(accuracy, np.nan)}}
        settings = {"repeats": 2, "metric": "accuracy"}
        return StudyResult(sets, ("1-NN",), figures, {"1-NN": [{}, {}]}, settings)

    def test_markdown(self, result):
        lines = result.to_markdown().splitlines()
        assert lines[2] == "| real |  | 85.0 ± 7.1 |"
        assert lines[3] == "| real + synthetic | m | **90.0 ± 7.1** |"
        assert len(lines) == 5

    def test_rich(self, result):
        from rich.console import Console

        console = Console(width=80, file=io.StringIO())
        console.print(result.to_table())
        assert "90.0 ± 7.1" in console.file.getvalue()

    def test_csv(self, result):
        rows = list(csv.DictReader(io.StringIO(result.to_csv())))
        assert len(rows) == 6
        assert rows[2] == {
            "training_set": "real + synthetic",
            "method": "m",
            "synthetic": "",
            "classifier": "1-NN",
            "repeat": "0",
            "cohort": "test",
            "accuracy": "0.95",
            "auc": "",
        }

    def test_json(self, result):
        content = json.loads(result.to_json())
        assert content["settings"] == {"repeats": 2, "metric": "accuracy"}
        assert content["records"] == result.records()

    def test_two_repeats_never_make_a_clear_difference(self, result):
        assert result.compare(result.training_sets[2], "1-NN").effect == "no clear difference"

    def test_best(self, result):
        assert result.best("1-NN") == result.training_sets[1]

    def test_unknown_names(self, result):
        with pytest.raises(ConfigurationError, match="classifier"):
            result.scores(REAL, "2-NN")
        with pytest.raises(ConfigurationError, match="training_set"):
            result.scores(TrainingSet("synthetic only", "n"), "1-NN")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_class": 1}, "per_class=1"),
        ({"synthetic": 0}, "synthetic=0"),
        ({"repeats": 0}, "repeats=0"),
        ({"seed": -1}, "seed=-1"),
        ({"real_share": 1.0}, "real_share=1.0"),
        ({"workers": 0}, "workers=0"),
        ({"methods": {}}, "methods or classifiers is empty"),
    ],
)
def test_wrong_options(options, message):
    options = {"methods": {"copies": copies}, **options}
    with pytest.raises(ConfigurationError, match=message):
        study(options.pop("methods"), **options)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda x, y, n, s: (x[:, :4], y), "'bad' returned arrays of shapes"),
        (lambda x, y, n, s: (x, y[:-1]), "'bad' returned arrays of shapes"),
        (lambda x, y, n, s: (x[:0], y[:0]), "'bad' returned arrays of shapes"),
        (lambda x, y, n, s: (x * np.nan, y), "'bad' returned NaN"),
        (lambda x, y, n, s: (x, y + 100), "'bad' returned labels"),
    ],
)
def test_wrong_methods(bad, message):
    with pytest.raises(DataError, match=message):
        study({"bad": bad})


def test_wrong_data():
    x, y, x_test, y_test = ARRAYS
    options = {"methods": {"c": copies}, "classifiers": {"1-NN": NEAREST}, "workers": 1}
    with pytest.raises(DataError, match="y_test has classes that are not in y: 9"):
        augmentation_study(x[y < 9], y[y < 9], x_test, y_test, **options)
    with pytest.raises(DataError, match="x_test has observations of shape"):
        augmentation_study(x, y, x_test[:, :4], y_test, **options)
    with pytest.raises(DataError, match="expected at least 125"):
        augmentation_study(x, y, x_test, y_test, per_class=100, **options)


def test_an_interrupted_study_goes_on(tmp_path):
    data = digits()
    calls = []

    def method(x, y, counts, seed):
        calls.append(seed)
        if seed == 1 and len(calls) == 2:
            raise KeyboardInterrupt
        return gaussian_noise(x, y, counts, seed)

    given = {
        "methods": {"noise": method},
        "classifiers": {"k-NN": CLASSIFIERS["k-NN"]},
        "per_class": 10,
        "synthetic": 5,
        "repeats": 2,
        "workers": 1,
    }
    sets = data.x[:300], data.y[:300], data.x[300:400], data.y[300:400]
    with pytest.raises(KeyboardInterrupt):
        augmentation_study(*sets, folder=tmp_path, **given)
    found = augmentation_study(*sets, folder=tmp_path, **given)
    assert calls == [0, 1, 1]  # the first draw was kept
    given["methods"] = {"noise": gaussian_noise}
    whole = augmentation_study(*sets, **given)
    assert (found.score == whole.score).all()
    with pytest.raises(ConfigurationError, match="expected another folder"):
        augmentation_study(*sets, folder=tmp_path, **given | {"synthetic": 6})


# --- unbalanced classes, numbers, cohorts, quality ------------------------------------------------


def unbalanced(methods, classifiers=None, **options):
    few = {name: 4 if name == "3" else 12 for name in map(str, range(10))}
    return study(methods, classifiers, per_class=few, **options)


def test_balance_fills_up_the_smaller_classes():
    seen = []

    def spy(x, y, counts, seed):
        seen.append(counts)
        return gaussian_noise(x, y, counts, seed)

    result = unbalanced({"spy": spy}, synthetic="balance", repeats=1)
    assert seen == [{3: 8}]
    assert [str(s) for s in result.training_sets] == [
        "real",
        "real (class weights)",
        "real + synthetic (spy, balance)",
    ]
    assert result.metric == "balanced_accuracy"


def test_balanced_classes_leave_nothing_to_balance():
    with pytest.raises(DataError, match="the classes are balanced"):
        study({"noise": gaussian_noise}, synthetic="balance")


def test_one_call_serves_all_numbers():
    seen = []

    def spy(x, y, counts, seed):
        seen.append(counts)
        return gaussian_noise(x, y, counts, seed)

    result = study({"spy": spy}, synthetic=[3, "x4"], repeats=1)
    assert seen == [dict.fromkeys(range(10), 15)]  # four times five is five real and 15 others
    assert [s.number for s in result.training_sets] == [None, "3", "x4", "3", "x4"]


def test_class_weights_serve_the_smaller_class():
    result = unbalanced({"copies": copies}, {"logistic": LOGISTIC}, synthetic=3, metric="accuracy")
    assert "accuracy" in result.title
    assert not np.array_equal(
        result.scores(REAL, "logistic"), result.scores(result.training_sets[1], "logistic")
    )


def test_a_cohort_is_measured_apart():
    hard = DIGITS.x[600:800].flip(-1), DIGITS.y[600:800]
    result = study({"copies": copies}, cohorts={"mirrored": hard}, repeats=1)
    assert set(result.figures) == {"validation", "test", "mirrored"}
    mirrored = result.scores(REAL, "1-NN", cohort="mirrored")
    assert mirrored < result.scores(REAL, "1-NN") - 0.2
    assert {record["cohort"] for record in result.records()} == set(result.figures)


def test_without_a_test_set_each_repeat_has_its_own():
    seen = []

    def spy(x, y, counts, seed):
        seen.append({row.tobytes() for row in x})
        return copies(x, y, counts, seed)

    result = augmentation_study(
        DIGITS.x[:200],
        DIGITS.y[:200],
        methods={"spy": spy},
        classifiers={"1-NN": NEAREST},
        synthetic=2,
        repeats=2,
        workers=1,
    )
    assert result.settings["resplit"]
    assert seen[0] != seen[1]
    assert result.settings["num_test"] + result.settings["num_train"] < 200


def test_a_method_that_cannot_is_left_out():
    def cannot(x, y, counts, seed):
        raise DataError("not of these data")

    result = study({"cannot": cannot, "copies": copies}, repeats=1)
    assert result.left_out == {"cannot": "not of these data"}
    assert result.methods == ("copies",)


class Copier(ModelMethod):
    """A model that has learned by heart."""

    def __call__(self, x, y, counts, seed):
        return copies(x, y, counts, seed)


class Newcomer(ModelMethod):
    """A perfect model: it draws from other real data."""

    def __call__(self, x, y, counts, seed):
        return DIGITS.x[800:1200].numpy(), DIGITS.y[800:1200].numpy()


def test_copies_and_new_samples_are_told_apart():
    result = study({"copier": Copier(), "newcomer": Newcomer()}, synthetic=40)
    copier, newcomer = result.quality["copier"], result.quality["newcomer"]
    assert (copier["copies"] == 1).all()
    assert (copier["membership_auc"] == 1).all()
    assert (copier["distance_ratio"] == 0).all()
    assert (newcomer["copies"] == 0).all()
    assert abs(newcomer["membership_auc"].mean() - 0.5) < 0.1
    assert abs(newcomer["distance_ratio"].mean() - 1.0) < 0.1
    assert (copier["gan_test"] == 1).all()
    assert 0.5 < newcomer["gan_test"].mean() < 1
    assert result.compare(TrainingSet("real + synthetic", "newcomer"), "1-NN").effect == "helps"
    assert "copier: 100.0 % exact copies" in result.verdict()["Are they copies?"]


def test_transforms_are_combined_with_models():
    result = study({"transforms": transforms, "copier": Copier()}, repeats=1)
    assert "transforms & copier" in result.methods
    assert not any(
        s.method == "transforms & copier" and s.part == "synthetic only"
        for s in result.training_sets
    )


def test_tables_of_any_scale_are_standardised():
    from sklearn.datasets import load_wine

    x, y = load_wine(return_X_y=True)
    scale = 10.0 ** np.arange(-6, 7)
    options = {
        "methods": {"smote": smote},
        "classifiers": {"k-NN": CLASSIFIERS["k-NN"]},
        "synthetic": 5,
        "repeats": 1,
        "workers": 1,
    }
    plain = augmentation_study(x, y, **options)
    scaled = augmentation_study(x * scale, y, **options)
    np.testing.assert_allclose(plain.score, scaled.score, atol=0.02)
    assert plain.score.min() > 0.85


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"synthetic": "x1"}, "synthetic='x1'"),
        ({"synthetic": []}, "different numbers"),
        ({"synthetic": [5, "5"]}, "different numbers"),
        ({"metric": "acc"}, "metric='acc'"),
        ({"validation_share": 1.0}, "validation_share=1.0"),
        ({"cohorts": {"test": ARRAYS[2:]}}, "cohorts has the name 'test'"),
        ({"classifiers": {}}, "methods or classifiers is empty"),
    ],
)
def test_more_wrong_options(options, message):
    given = {"methods": {"copies": copies}, "per_class": 5, "workers": 1, **options}
    with pytest.raises(ConfigurationError, match=message):
        augmentation_study(*ARRAYS, **given)


def test_the_validation_set_chooses_the_rate_of_a_network():
    """A rate of 1e-9 learns nothing."""
    network = Classifier(
        partial(NetworkClassifier, "thesis/classifier", epochs=15),
        {"learning_rate": [1e-9, 1e-2]},
        network=True,
    )
    result = study({"copies": copies}, {"CNN": network}, per_class=8, repeats=1)
    assert result.tuned["CNN"] == [{"learning_rate": 1e-2}]
    assert result.scores(REAL, "CNN") > 0.4


# --- what broke it --------------------------------------------------------------------------------


def test_balanced_classes_leave_a_number_beside_balance():
    result = study({"noise": gaussian_noise}, synthetic=["balance", 5], repeats=1)
    assert [s.number for s in result.training_sets] == [None, "5", "5"]


def test_a_method_of_one_class_is_left_out():
    def first_class(x, y, counts, seed):
        return x[y == y[0]], y[y == y[0]]

    result = study({"one": first_class, "copies": copies}, {"logistic": LOGISTIC}, repeats=1)
    assert result.left_out == {"one": "it makes samples of one class only"}


def test_labels_of_a_method_may_be_floats():
    def as_floats(x, y, counts, seed):
        return x, y.astype(float)

    assert (study({"f": as_floats}).score == study({"f": copies}).score).all()


@pytest.mark.parametrize("name", ["real", "a & b"])
def test_names_that_mean_something_else_are_refused(name):
    with pytest.raises(ConfigurationError, match=f"methods has the name '{name}'"):
        study({name: copies})


def test_figures_of_samples_may_lack_in_a_repeat():
    def one_sample_first(x, y, counts, seed):
        return (x[-1:], y[-1:]) if seed == 0 else (x, y)

    few = {str(c): 6 if c else 5 for c in range(10)} | {"1": 5}
    result = study({"m": one_sample_first}, per_class=few, synthetic="balance", repeats=2)
    assert np.isnan(result.quality["m"]["copies"]).tolist() == [True, False]


def test_a_validation_set_without_examples_is_refused():
    rows = [int((DIGITS.y == c).nonzero()[0]) for c in range(10)]
    with pytest.raises(DataError, match="one example of each class"):
        augmentation_study(
            *(DIGITS.x[rows], DIGITS.y[rows], *ARRAYS[2:]), methods={"c": copies}, workers=1
        )


def test_an_area_under_the_curve_needs_two_classes():
    few = DIGITS.y < 2
    one = DIGITS.y == 0
    with pytest.raises(DataError, match="the test set has one class"):
        augmentation_study(
            *(DIGITS.x[few], DIGITS.y[few], DIGITS.x[one], DIGITS.y[one]),
            methods={"c": copies},
            metric="auc",
            workers=1,
        )


def test_constant_and_huge_features_change_nothing_else():
    """A constant of single precision has a deviation by rounding; a square of 1e30 is infinite."""
    random = np.random.default_rng(0)
    y = np.arange(90) % 2
    signal = (random.normal(0, 1, (90, 2)) + 1.5 * y[:, None]).astype(np.float32)
    given = {"methods": {"c": copies}, "classifiers": {"1-NN": NEAREST}, "workers": 1, "repeats": 2}
    plain = augmentation_study(signal[:60], y[:60], signal[60:], y[60:], **given)
    huge = (signal * [1e30, 1.0]).astype(np.float32)
    constant = np.c_[signal, np.float32([0.1] * 60 + [0.4, 0.1] * 15)]
    for x in (huge, constant):
        found = augmentation_study(x[:60], y[:60], x[60:], y[60:], **given)
        assert np.abs(found.score - plain.score).max() < 0.1


def test_networks_of_vectors_are_tuned_in_the_units_of_training():
    seen = []

    class Spy(NetworkClassifier):
        def fit(self, x, y, sample_weight=None, validation=None):
            seen.append((x.mean(), validation[0].mean()))
            return super().fit(x, y, sample_weight, validation)

    network = Classifier(partial(Spy, "mlp", epochs=1), {"learning_rate": [1e-3]}, network=True)
    x = 1000.0 + DIGITS.x[:200].flatten(1)
    study = {"methods": {"c": copies}, "classifiers": {"net": network}, "workers": 1, "repeats": 1}
    augmentation_study(x, DIGITS.y[:200], **study)
    assert len(seen) == 5  # tuning, and four training sets
    assert np.abs(seen).max() < 1.0


def test_a_folder_takes_other_methods_and_options(tmp_path):
    def model(scale):
        return Scaled({"model": "vae", "fit_options": {"scale": scale}})

    first = study({"m": model(0.0), "copies": copies}, folder=tmp_path, repeats=1)
    more = study({"m": model(5.0), "copies": copies, "noise": gaussian_noise}, folder=tmp_path)
    fewer = study({"copies": copies}, folder=tmp_path)
    whole = study({"m": model(5.0), "copies": copies, "noise": gaussian_noise})
    only = TrainingSet("synthetic only", "m")
    assert (first.scores(only, "1-NN") != more.scores(only, "1-NN")[:1]).all()
    assert (more.score == whole.score).all()
    for result in (more, fewer):
        for name in result.quality:
            assert (result.quality[name]["gan_test"] == whole.quality[name]["gan_test"]).all()


def test_a_folder_takes_other_hyper_parameters(tmp_path):
    def of(candidates):
        return {"logistic": Classifier(LOGISTIC.make, {"C": candidates})}

    first = study({"copies": copies}, of([10.0]), folder=tmp_path, repeats=1)
    other = study({"copies": copies}, of([1e-4]), folder=tmp_path, repeats=1)
    whole = study({"copies": copies}, of([1e-4]), repeats=1)
    assert other.tuned == whole.tuned != first.tuned
    assert (other.score == whole.score).all()
    assert (other.score != first.score).any()


class Scaled(ModelMethod):
    """Adds noise, as much as an option says."""

    def __call__(self, x, y, counts, seed):
        scale = self.options["fit_options"]["scale"]
        noise = np.random.default_rng(seed).normal(0.0, 1.0, x.shape)
        return (x + scale * noise).astype(x.dtype), y


# --- what classifiers get -------------------------------------------------------------------------

SEEN = []


class Weighed(LogisticRegression):
    """Keeps the total weight of each class."""

    def fit(self, x, y, sample_weight=None):
        weight = np.ones(len(y)) if sample_weight is None else sample_weight
        SEEN.append(np.bincount(y, weights=weight))
        return super().fit(x, y, sample_weight)


class Counted(KNeighborsClassifier):
    """Keeps the number of its neighbours and of its training examples."""

    def fit(self, x, y):
        SEEN.append((self.n_neighbors, len(x)))
        return super().fit(x, y)


def test_class_weights_give_each_class_the_same_total():
    SEEN.clear()
    unbalanced({"copies": copies}, {"spy": Classifier(Weighed)}, synthetic=3, repeats=1)
    real, weighted, *_ = SEEN
    assert real.tolist() == [12, 12, 12, 4, *[12] * 6]
    np.testing.assert_allclose(weighted, real.sum() / 10)


def test_synthetic_examples_have_the_share_that_is_left():
    SEEN.clear()
    study({"copies": copies}, {"spy": Classifier(Weighed)}, real_share=0.8, repeats=1)
    real, both, _ = SEEN
    assert real.sum() == 50
    assert both.sum() == pytest.approx(50 / 0.8)


def test_a_neighbourhood_is_the_same_share_of_every_training_set():
    SEEN.clear()
    spy = Classifier(partial(Counted, 3), grows=("n_neighbors",))

    def twice(x, y, counts, seed):
        return np.repeat(x, 2, axis=0), np.repeat(y, 2)

    study({"twice": twice}, {"spy": spy}, synthetic=10, repeats=1)
    assert SEEN == [(3, 50), (9, 150), (6, 100)]  # real, both, synthetic only


def test_channels_may_be_last():
    random = np.random.default_rng(0)
    x, y = random.random((60, 3, 4, 5)), np.arange(60) % 2
    options = {"methods": {"copies": copies}, "classifiers": {"1-NN": NEAREST}, "repeats": 1}
    options |= {"synthetic": 5, "workers": 1, "cohorts": {"other": (x[:9], y[:9])}}
    first = augmentation_study(x[:40], y[:40], x[40:], y[40:], **options)
    last = np.moveaxis(x, 1, -1)
    options["cohorts"] = {"other": (last[:9], y[:9])}
    second = augmentation_study(
        *(last[:40], y[:40], last[40:], y[40:]), **options, channels_last=True
    )
    assert second.settings["input_shape"] == [3, 4, 5]
    assert second.to_json() == first.to_json()
