"""Training, validation and test sets of the repeats of a study."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chartae.augmentation.draws import make_draws
from chartae.data import ArrayDataset
from chartae.errors import ConfigurationError, DataError


def pool(*sizes: int) -> ArrayDataset:
    y = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return ArrayDataset(torch.zeros(len(y), 2), y)


def draws(data, seeds=(0,), per_class=None, validation=0.2, test=None):
    return make_draws(
        data, repeats=seeds, per_class=per_class, validation_share=validation, test_share=test
    )


@given(
    st.lists(st.integers(4, 30), min_size=2, max_size=4),
    st.floats(0.05, 0.6),
    st.one_of(st.none(), st.floats(0.05, 0.4)),
    st.integers(0, 1000),
)
def test_no_row_is_in_two_sets_and_none_is_lost(sizes, validation, test, seed):
    data = pool(*sizes)
    (draw,) = draws(data, (seed,), validation=validation, test=test)
    parts = [draw.train, draw.validation, *([] if draw.test is None else [draw.test])]
    rows = np.concatenate(parts)
    assert sorted(rows) == list(range(len(data)))
    for part in parts:  # each class is in each set
        assert len(np.unique(data.y.numpy()[part])) == len(sizes)


def test_numbers_by_class():
    data = pool(20, 40, 10)
    (draw,) = draws(data, per_class={"0": 8, "1": 20, "2": 2}, validation=0.2)
    assert np.bincount(data.y.numpy()[draw.train]).tolist() == [8, 20, 2]
    assert np.bincount(data.y.numpy()[draw.validation]).tolist() == [2, 5, 1]


def test_shares_are_those_of_each_class():
    data = pool(100, 50)
    (draw,) = draws(data, validation=0.25, test=0.2)
    y = data.y.numpy()
    assert np.bincount(y[draw.test]).tolist() == [20, 10]
    assert np.bincount(y[draw.validation]).tolist() == [20, 10]
    assert np.bincount(y[draw.train]).tolist() == [60, 30]


def test_each_seed_has_its_draw():
    first, other = draws(pool(30, 30), (1, 2), per_class=5)
    (again,) = draws(pool(30, 30), (1,), per_class=5)
    assert np.array_equal(first.train, again.train)
    assert not np.array_equal(first.train, other.train)


def test_a_class_of_one_is_trained_on():
    (draw,) = draws(pool(30, 1))
    assert 30 in draw.train


def test_too_few_examples_and_unknown_classes():
    with pytest.raises(DataError, match="class '1' has 5 examples .* expected at least 13"):
        draws(pool(30, 5), per_class=10)
    with pytest.raises(DataError, match="class '1' has 0 examples"):
        draws(pool(30, 1), test=0.5)
    with pytest.raises(ConfigurationError, match="per_class='7' is not known"):
        draws(pool(30, 30), per_class={"0": 2, "1": 2, "7": 2})
    with pytest.raises(ConfigurationError, match="the labels of y='1' is not known"):
        draws(pool(30, 30), per_class={"0": 2})
    with pytest.raises(ConfigurationError, match="per_class=1"):
        draws(pool(30, 30), per_class=1)


def test_validation_examples_are_no_more_than_their_share():
    """12 * 0.2 / 0.8 is a little above 3 in floating point."""
    (draw,) = draws(pool(40, 40), per_class=12)
    assert len(draw.validation) == 2 * 3


def test_a_class_of_one_that_is_tested_is_explained():
    with pytest.raises(DataError, match="class '1' has 0 .* beside 1 of the test set: .* least 1"):
        draws(pool(10, 1), test=0.3)
