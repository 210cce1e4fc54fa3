"""`ManifoldOverSampler`: counts, types and tables; as an estimator of scikit-learn and imblearn."""

import json
import time

import numpy as np
import pandas as pd
import pytest
import torch
from imblearn.pipeline import make_pipeline
from imblearn.utils import estimator_checks as of_imblearn
from sklearn.base import clone
from sklearn.datasets import load_wine, make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks as of_sklearn

from chartae import Augmenter, ManifoldOverSampler
from chartae.errors import CheckpointError, ConfigurationError, DataError

NETWORKS = {name: {"name": "mlp", "hidden": [8]} for name in ("encoder", "decoder")}
RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(40, 4)), np.repeat([0, 1, 2], [24, 10, 6])


def small(**options):
    """Settings that train in no time."""
    options = {"fit_options": {"epochs": 2}, "model_options": NETWORKS, **options}
    return Augmenter("vae", **options)


def quick(**arguments):
    return ManifoldOverSampler(**{"augmenter": small(), **arguments})


# --- as an estimator ------------------------------------------------------------------------------

# Nothing is expected to fail. `check_array_api_input` skips itself without SCIPY_ARRAY_API. What
# imbalanced-learn does for other tags is not run: sparse matrices, text and NaN in arrays.
SLOW = {
    "check_samplers_list",
    "check_samplers_multiclass_ova",
    "check_samplers_pandas",
    "check_samplers_pandas_sparse",
}


def _name(value):
    return getattr(getattr(value, "func", None), "__name__", "")


CHECKS = [
    pytest.param(*pair, marks=[pytest.mark.slow] * (_name(pair[1]) in SLOW))
    for generate in (of_imblearn.estimator_checks_generator, of_sklearn.estimator_checks_generator)
    for pair in generate(quick())
]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("estimator", "check"), CHECKS, ids=_name)
def test_checks_of_estimators(estimator, check):
    check(estimator)


def test_it_is_a_step_of_a_pipeline_whose_settings_are_searched():
    x, y = load_wine(return_X_y=True)
    kept = np.flatnonzero((y != 1) | (np.cumsum(y == 1) <= 12))
    x, y = x[kept], y[kept]
    pipeline = make_pipeline(quick(random_state=0), StandardScaler(), LogisticRegression())
    grid = {
        "manifoldoversampler__augmenter__fit_options": [{"epochs": 1}, {"epochs": 2}],
        "manifoldoversampler__sampling_strategy": ["minority", "auto"],
    }
    search = GridSearchCV(pipeline, grid, cv=3, error_score="raise").fit(x, y)
    assert search.best_estimator_.predict(x).shape == y.shape
    assert search.best_score_ > 0.9
    found = search.best_estimator_[0].augmenter_.get_params()
    assert found["fit_options"] == search.best_params_[next(iter(grid))]


def test_it_is_cloned_with_its_settings_and_without_its_models():
    sampler = quick(sampling_strategy={1: 20}, random_state=3)
    sampler.fit_resample(X, Y)
    copy = clone(sampler)
    assert not hasattr(copy, "augmenter_")
    assert copy.get_params()["augmenter__model_options"] == NETWORKS
    assert copy.get_params()["sampling_strategy"] == {1: 20}
    copy.set_params(augmenter__sampler="mixture", random_state=4)
    assert (copy.augmenter.sampler, sampler.augmenter.sampler) == ("mixture", "volume")
    with pytest.raises(ConfigurationError, match="model='x' is not known"):
        copy.set_params(augmenter__model="x")


# --- counts and classes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "counts"),
    [
        ("auto", [24, 24, 24]),
        ("minority", [24, 10, 24]),
        ("not minority", [24, 24, 6]),
        ("all", [24, 24, 24]),
        ({1: 13}, [24, 13, 6]),
        ({0: 24, 2: 9}, [24, 10, 9]),
        (lambda y: {2: int((y == 0).sum())}, [24, 10, 24]),
        ({0: 24}, [24, 10, 6]),
    ],
)
def test_classes_have_the_numbers_asked_for(strategy, counts):
    sampler = quick(sampling_strategy=strategy)
    x, y = sampler.fit_resample(X, Y)
    assert np.bincount(y).tolist() == counts
    assert np.array_equal(x[:40], X)
    assert np.array_equal(y[:40], Y)
    added = np.array(counts) - [24, 10, 6]
    learned = {} if sampler.augmenter_ is None else sampler.augmenter_.models_
    assert set(learned) == {str(label) for label in np.flatnonzero(added)}
    assert y[40:].tolist() == np.repeat([0, 1, 2], added).tolist()


def test_a_number_is_the_ratio_of_two_classes():
    _, y = quick(sampling_strategy=0.75).fit_resample(X, Y == 0)
    assert np.bincount(y).tolist() == [18, 24]


def test_a_conditional_augmenter_learns_from_all_classes():
    sampler = quick(augmenter=small(conditional=True))
    _, y = sampler.fit_resample(X, Y)
    assert np.bincount(y).tolist() == [24, 24, 24]
    assert list(sampler.augmenter_.models_) == ["all"]
    assert len(sampler.augmenter_.classes_) == 3


def test_one_seed_gives_one_result():
    first, again, other = (
        quick(random_state=seed).fit_resample(X, Y)[0] for seed in (0, np.random.RandomState(0), 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    settings = quick(augmenter=small(seed=5))
    assert np.array_equal(*(settings.fit_resample(X, Y)[0] for _ in range(2)))


# --- forms of data --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "options"),
    [((4,), {}), ((6, 6), {}), ((1, 6, 6), {}), ((6, 6, 3), {"channels_last": True})],
)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "u1", "i8", "?"])
@pytest.mark.parametrize("container", ["array", "tensor", "list"])
def test_dtype_and_container_are_kept(shape, options, dtype, container):
    x = (100 * np.random.default_rng(0).random((12, *shape))).astype(dtype)
    y = np.repeat([0, 1], [8, 4]).astype("i2")
    given = {
        "array": (x, y),
        "tensor": (torch.from_numpy(x), torch.from_numpy(y)),
        "list": (x.tolist(), y.tolist()),
    }[container]
    x_all, y_all = quick(augmenter=small(**options)).fit_resample(*given)
    kind = {"array": np.ndarray, "tensor": torch.Tensor, "list": list}[container]
    assert isinstance(x_all, kind)
    assert isinstance(y_all, kind)
    if container != "list":
        assert x_all.dtype == given[0].dtype
        assert y_all.dtype == given[1].dtype
    assert np.shape(x_all) == (16, *shape)
    assert np.array_equal(np.asarray(x_all[:12]), x)
    assert np.isfinite(np.asarray(x_all, dtype=float)).all()


@pytest.mark.parametrize(
    "y",
    [
        pd.Series(np.array(["a", "b", "c"])[Y], name="class"),
        pd.Series(np.array(["a", "b", "c"])[Y], dtype="category"),
        np.array([0.0, 0.5, 2.0])[Y] * 2,
        np.array(["a", "b", "c"], dtype=object)[Y],
    ],
)
def test_labels_of_any_type_come_back(y):
    _, y_all = quick().fit_resample(X, y)
    assert type(y_all) is type(y)
    assert y_all.dtype == y.dtype
    assert np.array_equal(np.asarray(y_all[:40]), np.asarray(y))
    _, counts = np.unique(np.asarray(y_all), return_counts=True)
    assert counts.tolist() == [24, 24, 24]


def mixed_table(n=130):
    """A table in which each class has its own category, integers, and gaps in two columns."""
    random = np.random.default_rng(1)
    y = np.repeat(["many", "few"], [n - 30, 30])
    few = y == "few"
    frame = pd.DataFrame(
        {
            "mass": 1e6 * (few + random.normal(size=n)),
            "site": np.where(few, "north", random.choice(["south", "west"], n)),
            "grade": pd.Categorical(
                random.choice(["low", "mid"], n), ["low", "mid", "high"], ordered=True
            ),
            "visits": pd.array(random.integers(3, 9, n), dtype="Int64"),
            "smokes": few | (random.random(n) < 0.5),
            "ill": random.integers(0, 2, n),
            "unit": np.full(n, 7.0),
            "code": pd.Categorical(random.choice([3, 5], n)),
        }
    )
    frame.loc[random.random(n) < 0.3, "mass"] = np.nan
    frame.loc[few & (random.random(n) < 0.4), "site"] = None
    frame.loc[~few, "visits"] = pd.NA
    return frame, y


def test_a_table_of_mixed_columns_keeps_its_types_and_its_gaps():
    frame, y = mixed_table()
    x_all, y_all = ManifoldOverSampler().fit_resample(frame, y)
    pd.testing.assert_frame_equal(x_all[:130], frame)
    new = x_all[130:]
    assert (y_all[130:] == "few").all()
    assert (new["site"].dropna() == "north").mean() > 0.9
    assert set(new["grade"].dropna()) <= {"low", "mid"}
    assert set(new["ill"]) == {0, 1}
    assert set(new["code"]) == {3, 5}
    assert new["smokes"].mean() > 0.9
    assert (new["unit"] == 7.0).all()
    assert new["visits"].between(3, 8).all()
    assert 0.5e6 < new["mass"].mean() < 1.5e6
    few = frame[y == "few"]
    for name in frame:
        given, made = few[name].isna().mean(), new[name].isna().mean()
        assert (made == 0.0) == (given == 0.0)
        assert abs(made - given) < 0.3


def test_the_scale_of_columns_does_not_matter():
    """Samples have the moments of the class, for columns of any scale; by default."""
    random = np.random.default_rng(0)
    scale, center = np.array([1e-3, 1.0, 1e6, 1.0]), np.array([0.0, 5.0, -3e6, 1.7e9])
    common = random.normal(size=(60, 1))
    rare = center + scale * (0.8 * common + 0.6 * random.normal(size=(60, 4)))
    x = np.concatenate([rare, center + scale * random.normal(size=(260, 4))])
    y = np.repeat([1, 0], [60, 260])
    x_all, _ = ManifoldOverSampler(random_state=0).fit_resample(x, y)
    new = (x_all[320:] - rare.mean(0)) / rare.std(0)
    assert np.abs(new.mean(0)).max() < 0.4
    assert new.std(0).min() > 0.75
    assert new.std(0).max() < 1.35
    correlation = np.corrcoef(new.T)[np.triu_indices(4, 1)]
    assert correlation.min() > 0.35
    assert correlation.max() < 0.95


# --- persistence ----------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["auto", 0.9, {np.int64(1): 20, np.int64(0): 24}])
def test_it_is_saved_without_pickle(strategy, tmp_path):
    frame = pd.DataFrame(X, columns=list("abcd"))
    sampler = quick(sampling_strategy=strategy, random_state=np.int64(2))
    sampler.fit_resample(frame, Y > 0)
    sampler.save(tmp_path)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} <= {
        ".json",
        ".safetensors",
    }
    again = ManifoldOverSampler.load(tmp_path)
    assert again.sampling_strategy == strategy
    assert again.sampling_strategy_ == sampler.sampling_strategy_
    assert again.random_state == 2
    assert again.augmenter.get_params() == sampler.augmenter.get_params()
    assert again.get_feature_names_out().tolist() == list("abcd")
    drawn, same = (each.augmenter_.sample({"True": 5})[0] for each in (sampler, again))
    pd.testing.assert_frame_equal(drawn, same)
    first, second = (each.fit_resample(frame, Y > 0)[0] for each in (sampler, again))
    pd.testing.assert_frame_equal(first, second)
    again.save(tmp_path)


def test_a_function_is_not_saved(tmp_path):
    sampler = quick(sampling_strategy=lambda y: {1: 12}, random_state=np.random.RandomState(0))
    sampler.fit_resample(X, Y)
    sampler.save(tmp_path)
    again = ManifoldOverSampler.load(tmp_path)
    assert (again.sampling_strategy, again.random_state) == (None, None)
    with pytest.raises(ValueError, match="The 'sampling_strategy' parameter .* Got None"):
        again.fit_resample(X, Y)


def test_damaged_records_are_named(tmp_path):
    with pytest.raises(ConfigurationError, match="has no models: call fit_resample"):
        quick().save(tmp_path)
    with pytest.raises(CheckpointError, match=r"oversampler\.json cannot be read"):
        ManifoldOverSampler.load(tmp_path)
    sampler = quick()
    sampler.fit_resample(X, Y)
    sampler.save(tmp_path)
    record = json.loads((tmp_path / "oversampler.json").read_text())
    for damage in ({"augmenter": {"model": "x"}}, {"sampling_strategy_": 3}):
        (tmp_path / "oversampler.json").write_text(json.dumps({**record, **damage}))
        with pytest.raises(CheckpointError, match=r"oversampler\.json cannot be read"):
            ManifoldOverSampler.load(tmp_path)


# --- refusals -------------------------------------------------------------------------------------

BAD = np.where(X.max() - 1e-9 < X, np.nan, X)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (BAD, Y, "x has 1 NaN or infinite value"),
        (np.where(np.isnan(BAD), np.inf, BAD), Y, "x has 1 NaN or infinite value"),
        (pd.DataFrame(BAD).fillna(np.inf), Y, "x has 1 NaN or infinite value"),
        (np.ma.masked_invalid(BAD), Y, "X is a masked array"),
        (X, np.r_[Y[:-1] % 2, 2], "one example of class '2': expected at least 2"),
        (X, np.array(["a"] * 39 + [1], dtype=object), "labels 'a' and 1: expected labels of one"),
        (X, [1] * 39 + ["a"], "labels 'a' and 1: expected labels of one"),
        (X[:-1], Y, "y has 40 labels for 39 samples"),
        (
            pd.DataFrame({"t": pd.date_range("2020", periods=40), "a": X[:, 0]}),
            Y,
            "a column 't' of dtype datetime64",
        ),
        (
            pd.DataFrame({"id": [f"p{i}" for i in range(240)]}),
            np.repeat(Y, 6),
            "a column 'id' with 240 different texts in 240 cells",
        ),
        (pd.DataFrame({"a": X[:, 0], "b": [None] * 40}), Y, "a column 'b' without a value"),
        (torch.eye(40).to_sparse(), Y, "sparse or nested tensor"),
    ],
)
def test_bad_data_give_one_error(x, y, message):
    with pytest.raises(DataError, match=message):
        quick().fit_resample(x, y)


def test_kept_models_of_other_data_are_not_reused(tmp_path):
    with pytest.raises(ConfigurationError, match="augmenter has output_dir=.*: expected None"):
        quick(augmenter=small(output_dir=tmp_path)).fit_resample(X, Y)


@pytest.mark.parametrize("shape", [(3,), (5, 5)])
def test_constant_data_stay_constant(shape):
    x_all, _ = quick().fit_resample(np.full((40, *shape), 7.5), Y)
    np.testing.assert_allclose(x_all, 7.5, rtol=1e-6)


@pytest.mark.slow
def test_a_table_of_a_thousand_rows_takes_less_than_twenty_seconds():
    x, y = make_classification(
        1000, 30, n_informative=8, n_classes=3, weights=[0.1, 0.3, 0.6], random_state=0
    )
    started = time.process_time()
    ManifoldOverSampler().fit_resample(x, y)
    assert time.process_time() - started < 20.0
