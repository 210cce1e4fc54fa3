import logging

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chartae.data import ArrayDataset, Sequences, check_disjoint
from chartae.errors import ConfigurationError, DataError

NAN = float("nan")
TIMES = [[0.0, 1.0, 3.0], [0.5, 2.5, NAN]]


@pytest.fixture
def scores():
    return np.arange(12.0).reshape(2, 3, 2)


def equal(one, other):
    """Whether two sets have the same tensors, names and form."""
    return (
        one.tensors.keys() == other.tensors.keys()
        and all(torch.equal(value, other.tensors[name]) for name, value in one.tensors.items())
        and torch.equal(one.padding, other.padding)
        and (one.ids, one.form, one.class_names) == (other.ids, other.form, other.class_names)
        and one.covariate_names == other.covariate_names
    )


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"observed": [[True] * 3, [False] * 3]}, "without an observed visit: 'bo'"),
        ({"times": [[0.0, 1.0, 1.0], [0.0, 1.0, 2.0]]}, "with two visits at one time: 'ann'"),
        ({"times": [[0.0, 1.0, 2.0], [0.0, np.inf, 2.0]]}, "not finite: 'bo'"),
        (
            {"times": [[0.0, 1.0, 2.0], [0.0, NAN, 2.0]], "observed": np.ones((2, 3), bool)},
            "not finite: 'bo'",
        ),
        (
            {
                "times": [[0.0, 1.0, 2.0], [0.0, 1.0, -np.inf]],
                "observed": [[True] * 3, [True, True, False]],
            },
            "a time that is infinite: 'bo'",
        ),
        ({"times": [0.0, 1.0]}, r"times has shape \(2, 2\): expected \(2, 3\)"),
        ({"times": [0.0, NAN, NAN], "observed": np.zeros((2, 3), bool)}, "'ann', 'bo'"),
        ({"times": ["a", "b", "c"]}, "times holds text such as 'a'"),
        ({"times": [["a", "b"], ["c"]]}, "times holds text such as 'a'"),
        ({"times": [0.0, [1.0, 2.0]]}, "times has lists of uneven lengths"),
        ({"times": [None, 1.0, 2.0]}, "times holds NoneType such as None"),
        ({"times": np.arange(3).astype("datetime64[D]")}, r"days since a day of your choice"),
        ({"times": np.arange(3).astype("timedelta64[D]")}, r"dtype timedelta64\[D\]"),
        ({"times": [True, False, True]}, "times has dtype torch.bool"),
        ({"mask": np.ones((2, 3), bool)}, r"mask has shape \(2, 3\): expected \(2, 3, 2\)"),
        ({"mask": np.ones((2, 3, 2))}, "mask has dtype torch.float64: expected booleans"),
        ({"observed": np.ones((2, 2), bool)}, r"observed has shape \(2, 2\)"),
        ({"observed": np.ones((2, 3))}, "observed has dtype torch.float64"),
        ({"ids": ["ann"]}, "ids has 1 names for 2 individuals"),
        ({"ids": ["ann", "ann"]}, "ids has 'ann' more than once"),
        ({"ids": [None, "ann"]}, "ids has no name at 0"),
        ({"covariates": [0.5, 1.0]}, "covariates as labels: y has dtype float64"),
        ({"covariates": [[1.0], [NAN]]}, "covariates that are NaN or infinite: 'bo'"),
        ({"covariates": ["a", "b", "c"]}, r"covariates has shape \(3,\): expected \(2\)"),
        ({"covariates": [[1.0], [2.0]], "covariate_names": ["a", "b"]}, r"expected \(2, 2\)"),
        ({"columns": ["a"]}, "a name for each feature"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(scores, given, message):
    with pytest.raises(DataError, match=message):
        Sequences(scores, **{"times": [0.0, 1.0, 2.0], "ids": ["ann", "bo"], **given})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"class_names": ["a"]}, "class_names is given without covariates"),
        ({"covariate_names": ["a"]}, "covariate_names is given without covariates"),
        ({"covariates": [[1.0], [2.0]], "class_names": ["a"]}, "covariates are vectors"),
        ({"covariates": ["a", "b"], "covariate_names": ["u", "v"]}, "expected one, for"),
        ({"dtype": torch.float16}, "dtype=torch.float16"),
    ],
)
def test_options_that_do_not_fit_are_refused(scores, given, message):
    with pytest.raises(ConfigurationError, match=message):
        Sequences(scores, times=[0.0, 1.0, 2.0], **given)


def test_nan_where_observed_is_refused_and_elsewhere_is_not(scores):
    scores[1, 0, 1] = NAN
    with pytest.raises(DataError, match="NaN or infinite values where observed .*: '1'$"):
        Sequences(scores, times=TIMES)
    data = Sequences(scores, times=TIMES, mask=~np.isnan(scores))
    assert data.x[1, 0].tolist() == [10.0 - 4.0, 0.0]
    scores[1, 0] = NAN
    hidden = Sequences(scores, times=TIMES, observed=[[True] * 3, [False, True, False]])
    assert hidden.x[1, 0].tolist() == [0.0, 0.0]
    assert hidden.mask is None


def test_many_offenders_are_counted():
    with pytest.raises(DataError, match="'0', '1', '2', '3', '4' and 3 more"):
        Sequences(np.full((8, 2, 1), NAN), times=[0, 1])


@pytest.mark.parametrize("x", [np.zeros((2, 3)), np.zeros((0, 3, 2)), np.zeros((2, 0, 2))])
def test_x_has_individuals_visits_and_features(x):
    with pytest.raises(DataError, match=r"expected \(N, T, \*input_shape\)"):
        Sequences(x, times=[0.0, 1.0, 2.0])


def test_integers_are_not_guessed_to_be_bytes():
    with pytest.raises(DataError, match="x has dtype torch.int64"):
        Sequences(np.zeros((2, 3, 4), np.int64), times=[0, 1, 2])


def test_values_too_fine_for_float32_are_refused():
    x = 1e9 + np.random.default_rng(0).normal(size=(4, 3, 1))
    with pytest.raises(DataError, match="float32 resolves"):
        Sequences(x, times=[0, 1, 2])
    assert Sequences(x, times=[0, 1, 2], dtype=torch.float64).x.dtype == torch.float64


# --- what is accepted -------------------------------------------------------------------------


def test_visits_are_sorted_and_said_so(scores, caplog):
    with caplog.at_level(logging.INFO, "chartae"):
        data = Sequences(scores, times=[[3.0, 0.0, 1.0], [NAN, 2.5, 0.5]])
    assert "they have been sorted" in caplog.text
    assert data.times.tolist() == [[0.0, 1.0, 3.0], [0.5, 2.5, 2.5]]
    assert data.x[0, :, 0].tolist() == [2.0, 4.0, 0.0]
    assert data.x[1, :, 0].tolist() == [10.0, 8.0, 0.0]
    assert data.padding.tolist() == [[False] * 3, [False, False, True]]


def test_padding_anywhere_is_not_disorder(scores, caplog):
    with caplog.at_level(logging.INFO, "chartae"):
        data = Sequences(scores, times=[[0.0, 1.0, 3.0], [0.5, NAN, 2.5]])
    assert not caplog.text
    assert data.x[1, :, 0].tolist() == [6.0, 10.0, 0.0]


def test_the_order_of_visits_does_not_matter(scores):
    mask = np.array([[[1, 1], [0, 1], [1, 0]], [[1, 1], [1, 0], [0, 0]]], bool)
    order = [2, 0, 1]
    times = np.array(TIMES)
    one = Sequences(scores, times=times, mask=mask)
    other = Sequences(scores[:, order], times=times[:, order], mask=mask[:, order])
    assert equal(one, other)


def test_lists_of_uneven_lengths_are_padded(scores):
    whole = Sequences(scores, times=TIMES)
    for kind in (np.array, torch.tensor):
        parts = Sequences(
            [kind(scores[0]), kind(scores[1, :2])],
            times=[kind(row) for row in ([0, 1, 3], [0.5, 2.5])],
        )
        assert torch.equal(parts.x, whole.x)
        assert torch.equal(parts.times, whole.times)
        assert torch.equal(parts.observed, whole.observed)
    with pytest.raises(DataError, match=r"x\[1\] has shape \(2, 1\) and x\[0\] \(3, 2\)"):
        Sequences([scores[0], scores[1, :2, :1]], times=TIMES)


def test_uneven_masks_and_observed_visits_are_padded(scores):
    data = Sequences(
        [scores[0], scores[1, :2]],
        times=[[0, 1, 3], [0.5, 2.5]],
        observed=[[True, True, False], [True, True]],
        mask=[np.ones((3, 2), bool), np.array([[True, False], [True, True]])],
    )
    assert data.num_visits.tolist() == [2, 2]
    assert data.known.sum() == 4 + 3


@pytest.mark.parametrize("dtype", [np.uint8, np.float64, bool])
def test_masked_arrays_hide_values(scores, dtype):
    hidden = np.zeros(scores.shape, bool)
    hidden[0, 1], hidden[1, 0, 1] = True, True
    x = np.ma.masked_array((scores % 2).astype(dtype), hidden)
    data = Sequences(x, times=TIMES)
    plain = Sequences(x.filled(1), times=TIMES, mask=~hidden)
    assert equal(data, plain)
    assert data.num_visits.tolist() == [2, 2]
    with pytest.raises(DataError, match="x has a mask of its own"):
        Sequences(x, times=TIMES, mask=~hidden)
    uneven = Sequences([x[0], x[1, :2]], times=[[0, 1, 3], [0.5, 2.5]])
    assert torch.equal(uneven.x, data.x)
    assert torch.equal(uneven.known, data.known)


def test_masked_times_are_padding(scores):
    times = np.ma.masked_array([[0, 1, 3], [0, 2, 9]], [[False] * 3, [False, False, True]])
    data = Sequences(scores, times=times)
    assert data.padding.tolist() == [[False] * 3, [False, False, True]]
    uneven = Sequences([scores[0], scores[1, :2]], times=[times[0], times[1, :2]])
    assert torch.equal(uneven.times, data.times)


def test_a_mask_of_ones_is_no_mask(scores):
    assert equal(
        Sequences(scores, times=TIMES, mask=np.ones(scores.shape, bool)),
        Sequences(scores, times=TIMES),
    )


def test_a_visit_without_features_is_not_observed(scores):
    mask = np.ones(scores.shape, bool)
    mask[0, 1] = False
    data = Sequences(scores, times=TIMES, mask=mask)
    assert data.observed[0].tolist() == [True, False, True]
    assert data.mask is None


def test_covariates_are_classes_or_vectors(scores):
    classes = Sequences(scores, times=TIMES, covariates=["f", "m"], covariate_names=["sex"])
    assert (classes.y.tolist(), classes.class_names, classes.num_classes) == ([0, 1], ("f", "m"), 2)
    assert classes.metadata["covariate_names"] == ["sex"]
    for vectors in ([[1, 2], [3, 4]], np.array([[1.0, 2], [3, 4]]), pd.DataFrame([[1, 2], [3, 4]])):
        data = Sequences(scores, times=TIMES, covariates=vectors)
        assert data.y.tolist() == [[1.0, 2.0], [3.0, 4.0]]
        assert data.y.dtype == data.x.dtype


@pytest.mark.parametrize("ids", [[7, 8], np.array([7, 8]), torch.tensor([7, 8]), pd.Series([7, 8])])
def test_names_are_text(scores, ids):
    assert Sequences(scores, times=TIMES, ids=ids).ids == ("7", "8")


@pytest.mark.parametrize("dtype", [np.uint8, bool, np.float32, np.float64])
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_form_gives_visits_back(dtype, channels_last):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (2, 3, 5, 4, 3)) if dtype == np.uint8 else rng.random((2, 3, 5, 4, 3))
    x = (x > 0.5 if dtype is bool else x).astype(dtype)
    data = Sequences(x, times=[0, 1, 2], channels_last=channels_last, dtype=torch.float64)
    assert data.input_shape == ((3, 5, 4) if channels_last else (5, 4, 3))
    again = data.form.restore(data.x.flatten(0, 1))
    assert again.dtype == x.dtype
    assert np.array_equal(again.reshape(x.shape), x)
    assert equal(data.filled(x), data)


def test_precision_is_kept_on_request(scores):
    assert Sequences(scores / 3, times=TIMES).x.dtype == torch.float32
    exact = Sequences(scores / 3, times=TIMES, dtype=None)
    assert np.array_equal(exact.x[0].numpy(), scores[0] / 3)
    assert exact.times.dtype == torch.float64


# --- other sets -------------------------------------------------------------------------------


@pytest.fixture
def study():
    rng = np.random.default_rng(1)
    times = rng.random((20, 6)).cumsum(1)
    times[::3, 4:] = NAN
    mask = rng.random((20, 6, 3)) < 0.8
    mask[:, 0] = True
    return Sequences(
        rng.normal(size=(20, 6, 3)),
        times=times,
        mask=mask,
        covariates=rng.integers(0, 2, 20),
        ids=[f"p{row}" for row in range(20)],
    )


def test_subset_keeps_everything_of_its_individuals(study):
    part = study.subset([4, 2])
    assert part.ids == ("p4", "p2")
    assert torch.equal(part.x, study.x[[4, 2]])
    assert torch.equal(part.y, study.y[[4, 2]])
    assert torch.equal(part.padding, study.padding[[4, 2]])
    assert equal(study.subset(range(20)), study)
    assert study.subset(study.num_visits > 4).num_visits.min() > 4
    assert study.subset([3, 3]).ids == ("0", "1")
    with pytest.raises(DataError, match="ranges from -1 to 2"):
        study.subset([-1, 2])
    with pytest.raises(DataError, match="selects no sample"):
        study.subset([])


def test_split_is_by_individual(study):
    parts = study.split((0.5, 0.3, 0.2), seed=1)
    assert [len(part) for part in parts] == [10, 6, 4]
    assert sorted(name for part in parts for name in part.ids) == sorted(study.ids)
    assert equal(parts[0], study.split((0.5, 0.3, 0.2), seed=1)[0])
    assert not equal(parts[0], study.split((0.5, 0.3, 0.2), seed=2)[0])
    with pytest.raises(ConfigurationError, match="at most 20"):
        study.split((15, 6))
    with pytest.raises(ConfigurationError, match=r"give \(20, 0\): expected at least 1"):
        study.split((0.99, 0.01))


def test_first_hides_later_visits(study):
    few = study.first(2)
    assert few.num_visits.max() == 2
    assert torch.equal(few.times, study.times)
    assert torch.equal(few.known, study.known & few.known)
    for row in range(20):
        seen = study.observed[row].nonzero()[:2, 0]
        assert few.observed[row].nonzero()[:, 0].tolist() == seen.tolist()
    assert not few.x[~few.known].any()
    assert equal(study.first(6), study)


def test_hidden_hides_the_share_and_leaves_something(study):
    hidden = study.hidden(visits=0.5, seed=3)
    wanted = (study.num_visits - (0.5 * study.num_visits).round()).clamp(min=1)
    assert torch.equal(hidden.num_visits, wanted)
    assert not (hidden.known & ~study.known).any()
    assert not hidden.x[~hidden.known].any()
    assert equal(hidden, study.hidden(visits=0.5, seed=3))
    assert not equal(hidden, study.hidden(visits=0.5, seed=4))
    assert equal(study.hidden(), study)
    features = study.hidden(features=0.4)
    share = features.known.sum() / study.known.sum()
    assert 0.5 < share < 0.7
    almost = study.hidden(visits=0.9, features=0.99)
    assert almost.num_visits.min() == 1
    with pytest.raises(ConfigurationError, match="visits=1"):
        study.hidden(visits=1.0)


def test_hidden_values_are_those_that_the_door_would_read(study):
    hidden = study.hidden(visits=0.3, features=0.3)
    again = Sequences(
        study.x,
        times=torch.where(study.padding, NAN, study.times),
        mask=hidden.known,
        ids=study.ids,
        covariates=study.y,
    )
    assert torch.equal(again.x, hidden.x)
    assert torch.equal(again.observed, hidden.observed)
    assert torch.equal(again.mask, hidden.mask)


def test_at_adds_visits_that_are_not_observed(study):
    wanted = study.at([0.0, 100.0])
    assert torch.equal(wanted.num_visits, study.num_visits)
    assert torch.equal((~wanted.padding).sum(1), (~study.padding).sum(1) + 2)
    assert (wanted.times[:, 0] == 0.0).all()
    assert torch.equal(wanted.x[wanted.known], study.x[study.known])
    assert (wanted.times.diff(dim=1) >= 0.0).all()
    own = study.at(study.times[:, :1])
    assert equal(own, study)
    with pytest.raises(DataError, match="equal times in times: 'p0'"):
        study.at([1.0, 1.0])
    with pytest.raises(DataError, match="infinite time"):
        study.at([np.inf])
    with pytest.raises(DataError, match="times has shape"):
        study.at(1.0)


def test_at_is_what_the_door_would_read(scores):
    data = Sequences(scores, times=TIMES).at([[2.0], [NAN]])
    x = np.concatenate([scores, np.zeros((2, 1, 2))], 1)
    times = [[0.0, 1.0, 3.0, 2.0], [0.5, 2.5, NAN, NAN]]
    observed = [[True, True, True, False], [True, True, False, False]]
    assert equal(data, Sequences(x, times=times, observed=observed))


def test_filled_has_all_visits(study):
    full = study.first(1).at([50.0]).filled(np.ones((20, 7, 3)))
    assert full.mask is None
    assert torch.equal(full.observed, ~full.padding)
    assert (full.ids, full.class_names) == (study.ids, study.class_names)
    with pytest.raises(DataError, match="expected"):
        study.filled(np.ones((20, 6, 2)))


def test_visits_are_samples(study):
    samples = study.visits()
    assert isinstance(samples, ArrayDataset)
    assert torch.equal(samples.x, study.x[study.observed])
    assert torch.equal(samples.y, study.y.repeat_interleave(study.num_visits))
    assert torch.equal(samples.mask, study.mask[study.observed])


def test_to_changes_the_dtype(study):
    double = study.to(dtype=torch.float64)
    assert (double.x.dtype, double.y.dtype) == (torch.float64, torch.int64)
    assert equal(double.to(dtype=torch.float32), study)
    vectors = Sequences(np.ones((2, 2, 1)), times=[0, 1], covariates=np.ones((2, 1)))
    assert vectors.to(dtype=torch.float64).y.dtype == torch.float64


def test_operations_leave_the_set_unchanged(study):
    before = {name: value.clone() for name, value in study.tensors.items()}
    for other in (study.first(1), study.hidden(features=0.5), study.at([0.0]), study.subset([1])):
        other.x.add_(1.0)
    assert all(torch.equal(before[name], value) for name, value in study.tensors.items())


# --- individuals in two sets ------------------------------------------------------------------


def test_an_individual_in_two_sets_is_refused(study):
    train, test = study.split((0.5, 0.5))
    check_disjoint(train=train, test=test)
    with pytest.raises(DataError, match=f"both in train and in validation: '{train.ids[0]}'"):
        check_disjoint(train=train, test=test, validation=train.subset([0]))


def test_numbers_are_compared_only_within_one_source(scores):
    one, other = Sequences(scores, times=TIMES), Sequences(scores, times=TIMES)
    check_disjoint(train=one, test=other)
    with pytest.raises(DataError, match="'1'"):
        check_disjoint(train=one.first(1), test=one.subset([1]))
    named = Sequences(scores, times=TIMES, ids=[0, 1])
    check_disjoint(train=one, test=named)


# --- invariances ------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_order_padding_and_unobserved_values_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    count, visits = rng.integers(1, 5, 2)
    x = rng.normal(size=(count, visits, 2))
    times = rng.permuted(np.tile(np.arange(visits) * 0.5, (count, 1)), axis=1)
    observed = rng.random((count, visits)) < 0.7
    observed[:, 0] = True
    mask = rng.random(x.shape) < 0.7
    mask[:, 0, 0] = True
    one = Sequences(x, times=times, observed=observed, mask=mask)
    x[~(mask & observed[..., None])] = rng.choice([NAN, np.inf, 1e9])
    order = rng.permutation(visits + 2)

    def padded(values, fill):
        ends = np.full((count, 2, *values.shape[2:]), fill, values.dtype)
        return np.concatenate([values, ends], 1)[:, order]

    other = Sequences(
        padded(x, NAN),
        times=padded(times, NAN),
        observed=padded(observed, False),
        mask=padded(mask, True),
    )
    assert torch.equal(other.x[:, :visits], one.x)
    assert torch.equal(other.times[:, :visits], one.times)
    assert torch.equal(other.observed[:, :visits], one.observed)
    assert torch.equal(other.known[:, :visits], one.known)
    assert other.padding[:, visits:].all()
    assert not other.x[:, visits:].any()


# --- text -------------------------------------------------------------------------------------


def test_the_text_says_what_is_in_it(study):
    assert "20 individuals" in repr(study)
    assert "of their features observed" in repr(study)
    lines = dict(line.split(maxsplit=1) for line in study.at([50.0]).summary().splitlines())
    assert lines["individuals"] == "20"
    assert lines["covariates"].startswith("0 ")
    assert "not" in lines
    assert "scores" not in lines
    mask = np.array([[[True, True], [True, False]]])
    scores = Sequences(np.ones((1, 2, 2)), times=[0, 1], mask=mask, columns=["a", "b"])
    assert "scores         a 100%, b 50%" in scores.summary()
    one = Sequences(np.ones((1, 1, 1)), times=[0], covariates=[[2.0]], covariate_names=["age"])
    assert "age 2" in one.summary()
    assert "gaps" not in one.summary()
    assert repr(one).endswith("1 each)")
