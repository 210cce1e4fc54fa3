import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chartae.augmentation import sample_weight
from chartae.errors import ConfigurationError, DataError


@given(
    counts=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 9)), min_size=1, max_size=4),
    share=st.floats(0.0, 10.0),
)
def test_each_class_keeps_its_part_of_the_whole(counts, share):
    y = np.repeat(np.arange(len(counts)), [real for real, _ in counts])
    y_new = np.repeat(np.arange(len(counts)), [made for _, made in counts])
    weights = sample_weight(y, y_new, share)
    assert (weights[: len(y)] == 1.0).all()
    for label, (real, made) in enumerate(counts):
        total = weights[len(y) :][y_new == label].sum()
        assert total == pytest.approx(share * real if made else 0.0)


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="y_new has the label 'c': expected those of y"):
        sample_weight(["a", "b"], ["a", "c"])
    with pytest.raises(DataError, match=r"y has shape \(2, 2\): expected labels"):
        sample_weight(np.eye(2), [0])
    with pytest.raises(ConfigurationError, match="share=-1"):
        sample_weight([0], [0], share=-1.0)
