"""Functions of tensors that take arrays: what goes in comes out, and tensors pass untouched."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from chartae.data.arrays import restored, scaled, takes_arrays
from chartae.errors import DataError


class Owner:
    """A model as far as the decorator knows one."""

    dtype, device = torch.float32, torch.device("cpu")
    weight = torch.ones((), requires_grad=True)

    @takes_arrays("x", "y", "mask", restores="x")
    def same(self, x, y=None, mask=None):
        assert isinstance(x, torch.Tensor)
        self.seen = {"x": x, "y": y, "mask": mask}
        return x * self.weight

    @takes_arrays("x")
    def total(self, x):
        return x.flatten(1).sum(-1)


@given(
    arrays.arrays(
        st.sampled_from([np.uint8, np.bool_, np.float32, np.float64, ">f4", ">f8"]),
        st.just((3, 2)),
        elements={"min_value": 0, "max_value": 1},
    )
)
def test_data_come_back_in_their_dtype(x: np.ndarray) -> None:
    owner = Owner()
    result = owner.same(x)
    assert owner.seen["x"].dtype == torch.float32
    assert isinstance(result, np.ndarray)
    assert result.dtype == x.dtype.newbyteorder("=")
    np.testing.assert_allclose(result.astype(float), x.astype(float), rtol=1e-6, atol=1e-37)


def test_every_value_of_a_byte_survives() -> None:
    levels = torch.arange(256).to(torch.uint8)
    for dtype in (torch.float32, torch.float64):
        assert torch.equal(restored(scaled(levels, dtype), torch.uint8), levels)


def test_tensors_pass_as_they_are_with_their_gradient() -> None:
    owner, x = Owner(), torch.ones(2, 2, dtype=torch.float64)
    result = owner.same(x)
    assert owner.seen["x"] is x
    assert result.requires_grad


def test_layouts_of_memory_do_not_matter() -> None:
    x = np.arange(12.0).reshape(3, 4)
    x.flags.writeable = False
    for view in (x[::-1], x.T, x[:, ::2]):
        np.testing.assert_array_equal(Owner().total(view), view.sum(-1))


def test_labels_and_masks_keep_their_kind() -> None:
    owner = Owner()
    owner.same(np.zeros((2, 2)), np.array([0, 1]), mask=np.array([[True, False]] * 2))
    assert owner.seen["y"].dtype == torch.int64
    assert owner.seen["mask"].dtype == torch.bool


def test_the_mask_of_a_masked_array_is_handed_over() -> None:
    owner = Owner()
    x = np.ma.masked_array([[1.0, np.nan]], [[False, True]])
    owner.same(x)
    assert owner.seen["mask"].tolist() == [[True, False]]
    assert torch.isfinite(owner.seen["x"]).all()


def test_a_masked_array_is_refused_where_no_mask_is_taken_or_one_is_given() -> None:
    x = np.ma.masked_array([[1.0, 2.0]], [[False, True]])
    with pytest.raises(DataError, match="total expects a plain array"):
        Owner().total(x)
    with pytest.raises(DataError, match="mask given once"):
        Owner().same(x, mask=np.ones((1, 2), bool))


def test_tuples_and_dataclasses_come_back_with_arrays_in_them() -> None:
    @dataclass
    class Found:
        centre: torch.Tensor
        steps: int

    @takes_arrays("z")
    def search(metric: object, z: torch.Tensor) -> tuple[Found, torch.Tensor]:
        return Found(z.mean(0), 3), z.argmax(0)

    found, index = search(None, np.eye(2))
    assert isinstance(found.centre, np.ndarray)
    assert found.steps == 3
    assert index.tolist() == [0, 1]


@pytest.mark.parametrize("dtype", [np.int64, np.float16, np.complex64, object])
def test_other_dtypes_are_refused_by_name(dtype: type) -> None:
    with pytest.raises(DataError, match="x has dtype"):
        Owner().same(np.zeros((2, 2)).astype(dtype))


def test_wrong_arguments_are_reported_as_python_does() -> None:
    with pytest.raises(TypeError, match="misspelt"):
        Owner().same(np.zeros((2, 2)), misspelt=1)
