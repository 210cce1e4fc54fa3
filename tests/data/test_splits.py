import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chartae.data import ArrayDataset, few_per_class, held_out_split, stratified_split
from chartae.errors import ConfigurationError, DataError

CLASS_SIZES = st.lists(st.integers(10, 40), min_size=1, max_size=5)
SEEDS = st.integers(0, 2**31)


def labels_of(sizes):
    return torch.cat([torch.full((size,), c) for c, size in enumerate(sizes)])


@given(CLASS_SIZES, SEEDS)
def test_fractions_of_one_make_a_partition(sizes, seed):
    y = labels_of(sizes)
    parts = stratified_split(y, (0.5, 0.3, 0.2), seed=seed)
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(len(y)))
    for part, fraction in zip(parts, (0.5, 0.3, 0.2), strict=True):
        assert abs(len(part) - fraction * len(y)) <= 1


@given(CLASS_SIZES, SEEDS)
def test_each_class_has_its_share_up_to_rounding(sizes, seed):
    y = labels_of(sizes)
    count = len(y) // 2
    (part,) = stratified_split(y, (count,), seed=seed)
    assert len(part) == count
    shares = torch.bincount(y[part], minlength=len(sizes))
    assert ((shares - torch.tensor(sizes) * count / len(y)).abs() < 1).all()


def test_balanced_classes_stay_balanced():
    y = np.repeat(["a", "b", "c"], 20)
    for part in stratified_split(y, (30, 15, 15), seed=1):
        assert len(set(np.unique(y[part], return_counts=True)[1])) == 1


def test_an_odd_sample_does_not_always_go_to_the_same_class():
    y = labels_of([10, 10])
    extra = {int(y[stratified_split(y, (11,), seed=seed)[0]].sum()) for seed in range(20)}
    assert extra == {5, 6}


def test_every_sample_can_be_drawn():
    y = labels_of([10, 10])
    drawn = torch.cat([stratified_split(y, (4,), seed=seed)[0] for seed in range(50)])
    assert len(drawn.unique()) == 20


def test_the_seed_decides():
    y = labels_of([30, 30])
    first, again, other = (stratified_split(y, (0.5, 0.5), seed=s)[0] for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (0.5, "sizes=0.5: expected a sequence of sizes"),
        ((), "expected all integers or all fractions"),
        ((10, 0.5), "expected all integers or all fractions"),
        (("10",), "expected all integers or all fractions"),
        ((0, 5), "expected numbers of at least 1, together at most 20"),
        ((15, 6), "expected numbers of at least 1, together at most 20"),
        ((0.8, 0.3), "expected fractions above 0, together at most 1"),
        ((0.0, 0.5), "expected fractions above 0, together at most 1"),
        ((float("nan"),), "expected fractions above 0, together at most 1"),
    ],
)
def test_impossible_sizes_are_refused(sizes, message):
    with pytest.raises(ConfigurationError, match=message):
        stratified_split(labels_of([10, 10]), sizes, seed=0)


@pytest.mark.parametrize(
    ("class_sizes", "sizes"), [([1, 20], (0.5, 0.5)), ([30, 2], (10, 10, 10)), ([5, 5], (0.01,))]
)
def test_a_class_too_small_for_every_part_is_refused(class_sizes, sizes):
    with pytest.raises(DataError, match="y has too few samples of class '.' for sizes="):
        stratified_split(labels_of(class_sizes), sizes, seed=0)


@given(CLASS_SIZES, st.integers(1, 10), SEEDS)
def test_few_per_class_takes_exactly_n_of_each(sizes, n, seed):
    y = labels_of(sizes)
    chosen, rest = few_per_class(y, n, seed=seed)
    assert torch.bincount(y[chosen]).tolist() == [n] * len(sizes)
    assert torch.equal(torch.cat([chosen, rest]).sort().values, torch.arange(len(y)))


def test_few_per_class_depends_on_the_seed():
    y = ["a"] * 50 + ["b"] * 50
    first, again, other = (few_per_class(y, 5, seed=s)[0] for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_few_per_class_refuses_a_class_too_small():
    message = r"y has 2 sample\(s\) of class 'b': expected at least n=3"
    with pytest.raises(DataError, match=message):
        few_per_class(["a", "a", "a", "b", "b"], 3, seed=0)


@pytest.mark.parametrize("n", [0, -1, 2.0])
def test_few_per_class_refuses_a_bad_number(n):
    with pytest.raises(ConfigurationError, match=f"n={n}: expected an integer at least 1"):
        few_per_class([0, 1], n, seed=0)


@pytest.mark.parametrize(
    "select",
    [
        lambda y, seed: stratified_split(y, (1.0,), seed=seed),
        lambda y, seed: few_per_class(y, 1, seed=seed),
    ],
)
@pytest.mark.parametrize("seed", [-1, None, 0.5])
def test_bad_seeds_are_refused(select, seed):
    with pytest.raises(ConfigurationError, match=f"seed={seed}: expected an integer at least 0"):
        select([0, 1], seed)


@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=4).filter(lambda c: max(c) > 1),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 3),
)
def test_every_class_keeps_a_sample_for_training(counts, fraction, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    data = ArrayDataset.from_arrays(np.arange(len(labels))[:, None].astype(float), labels)
    train, held_out = held_out_split(data, fraction, seed=seed)
    assert sorted([*train.x.flatten().tolist(), *held_out.x.flatten().tolist()]) == list(
        range(len(labels))
    )
    assert train.classes == data.classes
    assert train.class_names == held_out.class_names == data.class_names
    kept = torch.bincount(held_out.y, minlength=len(counts))
    quotas = fraction * torch.tensor(counts)
    # One more or less for rounding, and what classes of one sample leave to the others.
    assert bool((kept <= quotas + 1 + counts.count(1)).all())


def test_large_classes_are_held_out_in_proportion():
    data = ArrayDataset.from_arrays(np.zeros((90, 1)), ["a"] * 60 + ["b"] * 30)
    assert torch.bincount(held_out_split(data, 0.2, seed=0)[1].y).tolist() == [12, 6]


@pytest.mark.parametrize("y", [None, np.arange(20.0).reshape(10, 2)])
def test_without_labels_any_samples_are_held_out(y):
    data = ArrayDataset.from_arrays(np.arange(10.0)[:, None], y)
    drawn = set()
    for seed in range(20):
        train, held_out = held_out_split(data, 0.3, seed=seed)
        assert (len(train), len(held_out)) == (7, 3)
        if y is not None:
            np.testing.assert_array_equal(held_out.y[:, 0], 2 * held_out.x[:, 0])
        drawn |= set(held_out.x.flatten().tolist())
    assert drawn == set(range(10))


def test_where_nothing_can_be_held_out_it_is_said():
    data = ArrayDataset.from_arrays(np.zeros((2, 1)), ["a", "b"])
    with pytest.raises(DataError, match=r"dataset has 2 sample\(s\), all of different classes"):
        held_out_split(data, 0.5, seed=0)
    with pytest.raises(ConfigurationError, match="fraction=1.0: expected a finite number greater"):
        held_out_split(data, 1.0, seed=0)


def test_sizes_are_numbers_of_numpy_too():
    y = np.repeat([0, 1], 10)
    parts = stratified_split(y, np.array([10, 4]), seed=0)
    assert [len(part) for part in parts] == [10, 4]
    parts = stratified_split(y, np.array([0.5, 0.2], dtype=np.float32), seed=0)
    assert [len(part) for part in parts] == [10, 4]
