"""Studies of data with missing values, categories and tables."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.dummy import DummyClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from chartae.augmentation import (
    Classifier,
    ModelMethod,
    TrainingSet,
    augmentation_study,
    gaussian_noise,
    resampling,
)
from chartae.augmentation.draws import make_draws
from chartae.augmentation.imputation import imputed, typical_values
from chartae.data import ArrayDataset, Form
from chartae.errors import DataError

LOGISTIC = Classifier(partial(LogisticRegression, max_iter=50))
NEAREST = Classifier(partial(KNeighborsClassifier, 1))
FIRST = Classifier(partial(DummyClassifier, strategy="constant", constant=0))
ONCE = {"repeats": 1, "workers": 1, "synthetic": 20}
SEX, STAGE = slice(1, 3), slice(3, 6)


def patients(n: int = 90, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Return a table with gaps, and labels: a third are ill, and have more gaps in ``marker``."""
    random = np.random.default_rng(seed)
    ill = np.arange(n) % 3 == 0
    frame = pd.DataFrame(
        {
            "age": np.rint(50 + 10 * ill + random.normal(0, 8, n)),
            "sex": random.choice(["f", "m"], n),
            "stage": random.choice(["I", "II", "III"], n),
            "marker": np.exp(ill + random.normal(size=n)),
        }
    )
    for name, share in {"age": 0.1, "sex": 0.2, "stage": 0.1}.items():
        frame.loc[random.random(n) < share, name] = np.nan
    frame.loc[random.random(n) < np.where(ill, 0.8, 0.1), "marker"] = np.nan
    return frame, np.where(ill, "ill", "well")


def dataset(n: int = 90, seed: int = 0) -> ArrayDataset:
    return ArrayDataset.from_arrays(*patients(n, seed))


def arrays(data: ArrayDataset) -> tuple[np.ndarray, np.ndarray]:
    """Return an array with NaN where nothing was observed, and labels."""
    assert data.mask is not None
    x = np.where(data.mask, data.x, np.nan)
    return x, np.asarray(data.class_names)[data.y]


# --- imputation ----------------------------------------------------------------------------------


def test_typical_values_are_those_of_scikit_learn():
    frame, _ = patients()
    data = ArrayDataset.from_arrays(frame)
    found = typical_values(data.x.numpy(), data.mask.numpy(), data.form)
    numbers = SimpleImputer(strategy="median").fit(frame[["age", "marker"]]).statistics_
    np.testing.assert_allclose(found[[0, 6]], numbers, rtol=1e-6)
    texts = SimpleImputer(strategy="most_frequent").fit(frame[["sex", "stage"]]).statistics_
    assert found[SEX].tolist() == [float(kind == texts[0]) for kind in ("f", "m")]
    assert found[STAGE].tolist() == [float(kind == texts[1]) for kind in ("I", "II", "III")]
    full = data.x.numpy()
    np.testing.assert_allclose(
        typical_values(full, None, Form(torch.float32)), np.median(full, 0), rtol=1e-6
    )


def test_a_feature_without_a_value_is_0_in_all_observations():
    x, mask = np.ones((3, 2)), np.array([[True, False]] * 3)
    typical = typical_values(x, mask, Form(torch.float64))
    np.testing.assert_array_equal(typical, [1.0, np.nan])
    np.testing.assert_array_equal(imputed(7 * x, None, typical), [[7.0, 0.0]] * 3)
    assert imputed(x.astype(np.float32), mask, typical).dtype == np.float32


# --- studies -------------------------------------------------------------------------------------


def test_a_study_is_that_of_data_imputed_from_the_training_set():
    pool, test = dataset(), dataset(60, seed=1)
    x, y = arrays(pool)
    x_test, y_test = arrays(test)
    (draw,) = make_draws(pool, repeats=[0], per_class=None, validation_share=0.6, test_share=None)
    fill = np.nanmedian(x[draw.train], 0)
    for part in (SEX, STAGE):
        counts = np.nansum(x[draw.train, part], 0)
        fill[part] = counts == counts.max()
    both = [np.where(np.isnan(given), fill, given).astype(np.float32) for given in (x, x_test)]
    options: dict[str, Any] = {
        "methods": {"noise": gaussian_noise, "resampling": resampling},
        "classifiers": {"LR": LOGISTIC, "1-NN": NEAREST},
        "validation_share": 0.6,
        **ONCE,
    }
    found = augmentation_study(pool, None, test, None, **options)
    expected = augmentation_study(both[0], y, both[1], y_test, **options)
    assert torch.equal(found.samples["real"].x, expected.samples["real"].x)
    assert found.training_sets == expected.training_sets
    for cohort, figures in expected.figures.items():
        for name, values in figures.items():
            np.testing.assert_array_equal(found.figures[cohort][name], values)


class Seen:
    """A method that checks the training set it gets, and makes samples of one value."""

    def __init__(self, pool: ArrayDataset) -> None:
        self.pool = pool

    def __call__(self, x, y, counts, seed):
        raise AssertionError("expected a call of of_dataset")

    def of_dataset(self, data, counts, seed):
        (draw,) = make_draws(
            self.pool, repeats=[seed], per_class=None, validation_share=0.2, test_share=0.3
        )
        train = self.pool.subset(draw.train)
        assert torch.equal(data.x, train.x)
        assert torch.equal(data.y, train.y)
        assert torch.equal(data.mask, train.mask)
        assert data.form == self.pool.form
        y = np.repeat(list(counts), list(counts.values()))
        return np.full((len(y), data.x.shape[1]), 100.0), y


def test_methods_of_data_sets_get_the_mask_and_samples_have_the_gaps_of_their_class():
    pool = dataset()
    options: dict[str, Any] = {**ONCE, "synthetic": 400}
    result = augmentation_study(
        pool, methods={"seen": Seen(pool)}, classifiers={"first": FIRST}, **options
    )
    made = result.samples["seen"]
    (draw,) = make_draws(pool, repeats=[0], per_class=None, validation_share=0.2, test_share=0.3)
    train = pool.subset(draw.train)
    fill = typical_values(train.x.numpy(), train.mask.numpy(), pool.form)
    seen = made.x.numpy() == 100.0
    np.testing.assert_allclose(np.where(seen, fill, made.x), np.tile(fill, (len(seen), 1)))
    for label in (0, 1):
        real = train.mask[train.y == label].numpy()
        patterns = {tuple(row) for row in real.tolist()}
        rows = seen[made.y.numpy() == label]
        assert {tuple(row) for row in rows.tolist()} <= patterns
        # Five standard errors of a share among 400 draws.
        np.testing.assert_allclose(rows.mean(0), real.mean(0), atol=0.125)


def test_a_model_learns_from_observed_values_only():
    """Filled values have no influence: a model of the data set is that of other fillings."""
    pool = dataset()
    method = ModelMethod({"model": "vae", "sampler": "normal", "fit_options": {"epochs": 3}})
    other = ArrayDataset(
        torch.where(pool.mask, pool.x, torch.ones(())),
        pool.y,
        pool.mask,
        pool.class_names,
        pool.form,
    )
    x, y = method.of_dataset(pool, {0: 5, 1: 3}, 0)
    again, _ = method.of_dataset(other, {0: 5, 1: 3}, 0)
    np.testing.assert_array_equal(x, again)
    assert y.tolist() == [0] * 5 + [1] * 3
    for part in (SEX, STAGE):  # the categories of the columns are known
        assert set(np.unique(x[:, part])) == {0.0, 1.0}
        assert (x[:, part].sum(1) == 1.0).all()
    full = pool.subset(pool.mask.all(1))
    named = ArrayDataset(full.x, full.y, class_names=("0", "1"))
    np.testing.assert_array_equal(
        method.of_dataset(named, {1: 4}, 0)[0],
        method(full.x.numpy(), full.y.numpy(), {1: 4}, 0)[0],
    )


def test_a_study_of_models_and_smote_with_gaps():
    frame, y = patients()
    images = np.ma.masked_array(np.random.default_rng(0).random((60, 4, 4)))
    images[::2, 0, 0] = np.ma.masked
    model = ModelMethod({"model": "vae", "sampler": "mixture", "fit_options": {"epochs": 2}})
    methods = {"noise": gaussian_noise, "vae": model}
    for x, labels in ((frame, y), (images, np.arange(60) % 2)):
        result = augmentation_study(
            x, labels, methods=methods, classifiers={"LR": LOGISTIC}, **ONCE
        )
        assert not result.left_out
        assert np.isfinite(result.scores(TrainingSet("real + synthetic", "vae", "20"), "LR")).all()


def test_test_tables_take_the_columns_of_the_pool():
    frame, y = patients()
    other, y_other = patients(30, seed=1)
    methods, classifiers = {"resampling": resampling}, {"LR": LOGISTIC}
    options: dict[str, Any] = {"methods": methods, "classifiers": classifiers, **ONCE}
    usual = augmentation_study(frame, y, other, y_other, **options)
    turned = other[["stage", "marker", "sex", "age"]].astype({"stage": "category"})
    moved = augmentation_study(frame, y, turned, y_other, **options)
    np.testing.assert_array_equal(moved.score, usual.score)
    few = other[other["stage"] != "II"]  # categories without a row
    named = augmentation_study(frame, y, few, y_other[few.index], **options)
    assert np.isfinite(named.score).all()
    with pytest.raises(DataError, match="x_test has 'IV' in column 'stage': expected one of 'I', "):
        augmentation_study(frame, y, other.replace({"stage": {"I": "IV"}}), y_other, **options)
    cohorts = {"c": (other.assign(sex=1.0), y_other)}
    with pytest.raises(DataError, match="cohort 'c' has numbers in column 'sex': expected categ"):
        augmentation_study(frame, y, cohorts=cohorts, **options)
