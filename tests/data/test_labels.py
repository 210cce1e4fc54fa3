import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chartae.data import encode_labels
from chartae.errors import DataError

INTEGERS = st.lists(st.integers(-(2**31), 2**31), min_size=1)
WORDS = st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1), min_size=1)


@given(INTEGERS | WORDS)
def test_names_at_the_indices_give_the_labels_back(labels):
    indices, names = encode_labels(labels)
    assert indices.dtype == torch.int64
    assert [names[i] for i in indices] == [str(label) for label in labels]
    assert set(indices.tolist()) == set(range(len(names)))


@given(WORDS)
def test_names_round_trip(labels):
    indices, names = encode_labels(labels)
    again, same = encode_labels(labels, class_names=names)
    assert torch.equal(again, indices)
    assert same == names


def test_integers_are_ordered_as_numbers():
    assert encode_labels([10, 9, 10]) == (pytest.approx(torch.tensor([1, 0, 1])), ("9", "10"))


@pytest.mark.parametrize(
    "labels",
    [
        torch.tensor([1, 0]),
        np.array([1, 0], dtype=np.uint8),
        np.array(["b", "a"], dtype=object),
        [True, False],
        ("b", "a"),
    ],
)
def test_all_the_ways_to_give_labels(labels):
    assert encode_labels(labels)[0].tolist() == [1, 0]


def test_given_names_keep_their_order_and_absent_classes():
    assert encode_labels(["b"], class_names=["c", "b", "a"]) == (torch.tensor([1]), ("c", "b", "a"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "y is empty"),
        ([[0], [1]], r"y has shape \(2, 1\): expected \(N,\)"),
        (3, r"y has shape \(\): expected"),
        ([0.0, 1.0], r"y has dtype float64: expected integer or string .*y.astype\(int\)"),
        (torch.tensor([0.5]), "y has dtype float32: expected integer or string"),
        (np.array(["a", 1], dtype=object), "y has dtype object: expected integer or string"),
    ],
)
def test_other_labels_are_refused(labels, message):
    with pytest.raises(DataError, match=message):
        encode_labels(labels)


@pytest.mark.parametrize("labels", [[0, 2], [0, -1], ["a", "z"]])
def test_a_label_outside_the_names_is_refused(labels):
    message = (
        rf"y\[1\]={labels[1]!r} is not a class: expected one of the 2 class_names \('a', 'b'\)"
    )
    with pytest.raises(DataError, match=message):
        encode_labels(labels, class_names=["a", "b"])


def test_repeated_names_are_refused():
    with pytest.raises(DataError, match="expected names that differ"):
        encode_labels([0], class_names=["a", "a"])
