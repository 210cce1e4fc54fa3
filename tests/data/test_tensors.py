import pytest
import torch

from chartae.data import ArrayDataset, TensorSet
from chartae.errors import DataError


def test_batches_have_rows_of_every_tensor():
    data = TensorSet(a=torch.arange(6).reshape(3, 2), b=torch.arange(3.0))
    batch = data.batch(torch.tensor([2, 0]))
    assert len(data) == 3
    assert batch["a"].tolist() == [[4, 5], [0, 1]]
    assert batch["b"].tolist() == [2.0, 0.0]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "there are no tensors"),
        ({"a": [1, 2]}, "a is list: expected a tensor"),
        ({"a": torch.tensor(1.0)}, "a is Tensor: expected a tensor \\(N, ...\\)"),
        ({"a": torch.zeros(2), "b": torch.zeros(3)}, "different lengths: {'a': 2, 'b': 3}"),
    ],
)
def test_bad_tensors_are_refused(tensors, message):
    with pytest.raises(DataError, match=message):
        TensorSet(**tensors)


def test_weights_follow_their_samples():
    x, y = torch.rand(4, 3), torch.tensor([0, 1, 0, 1])
    data = ArrayDataset(x, y, weight=torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert data.subset([3, 1]).weight.tolist() == [4.0, 2.0]
    assert data.of_class("0").weight.tolist() == [1.0, 3.0]
    assert data.to(dtype=torch.float64).weight.dtype == torch.float64
    assert ArrayDataset.from_arrays(x, weight=[1, 2, 3, 4]).weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1.0, 2.0], "weight has shape \\(2,\\): expected \\(3\\)"),
        ([1.0, -1.0, 1.0], "weight has a value of -1: expected at least 0"),
        ([1.0, float("nan"), 1.0], "weight has 1 NaN"),
        ([0.0, 0.0, 0.0], "weight is 0 for all samples"),
    ],
)
def test_bad_weights_are_refused(weight, message):
    with pytest.raises(DataError, match=message):
        ArrayDataset.from_arrays(torch.rand(3, 2), weight=weight)
