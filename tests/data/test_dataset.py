import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chartae.data import ArrayDataset
from chartae.errors import ConfigurationError, DataError

SHAPES = hnp.array_shapes(min_dims=2, max_dims=4, max_side=5)


@pytest.fixture
def dataset():
    x = torch.arange(24.0).reshape(6, 4)
    mask = torch.ones(6, 4, dtype=torch.bool)
    return ArrayDataset(x, torch.tensor([0, 1, 2, 0, 1, 0]), mask, ("a", "b", "c"))


# --- scaling and dtypes ---------------------------------------------------------------------------


@given(hnp.arrays(np.uint8, SHAPES))
def test_uint8_is_divided_by_255(x):
    data = ArrayDataset.from_arrays(x)
    assert data.x.dtype == torch.float32
    np.testing.assert_allclose(data.x.numpy(), x / 255, rtol=1e-6)


@given(hnp.arrays(np.bool_, SHAPES))
def test_booleans_become_zero_and_one(x):
    assert np.array_equal(ArrayDataset.from_arrays(x).x.numpy(), x.astype(np.float32))


@given(
    hnp.arrays(np.float64, SHAPES, elements=st.floats(-1e6, 1e6)),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([torch.float32, torch.float64, None]),
)
def test_floats_are_never_rescaled(x, given_dtype, dtype):
    x = np.where(np.abs(x) < 1e-30, 0.0, x).astype(given_dtype)
    data = ArrayDataset.from_arrays(x, dtype=dtype)
    kept = torch.from_numpy(x).dtype
    assert data.x.dtype == (dtype or kept)
    assert torch.equal(data.x, torch.from_numpy(x).to(data.x.dtype))
    assert data.input_shape == x.shape[1:]
    assert len(data) == len(x)


@pytest.mark.parametrize(
    "dtype", [np.int8, np.int32, np.int64, np.uint16, np.float16, np.complex64]
)
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(DataError, match=r"x has dtype .*: expected uint8 .*convert and scale it"):
        ArrayDataset.from_arrays(np.ones((2, 3), dtype=dtype))


@pytest.mark.parametrize(
    "x", [np.array([["a", "b"]]), np.array([[None, 1]]), [[1.0, 2.0], [[3.0]]]]
)
def test_what_is_no_array_of_numbers_is_refused(x):
    with pytest.raises(DataError, match="x"):
        ArrayDataset.from_arrays(x)


def test_ragged_samples_are_refused():
    with pytest.raises(DataError, match="x has lists of uneven lengths: expected one shape"):
        ArrayDataset.from_arrays([[[1.0], [2.0, 3.0]], [[1.0], [2.0, 3.0]]])


def test_unknown_target_dtype_is_refused():
    with pytest.raises(ConfigurationError, match="dtype=torch.float16: expected torch.float32"):
        ArrayDataset.from_arrays(np.ones((2, 3)), dtype=torch.float16)


def test_unusual_memory_layouts_are_read_right():
    x = np.arange(12.0).reshape(3, 4)
    for same in (x[::-1][::-1], x.astype(">f8"), np.asfortranarray(x)):
        assert torch.equal(ArrayDataset.from_arrays(same, dtype=None).x, torch.from_numpy(x))
    reversed_ = ArrayDataset.from_arrays(x[:, ::-1], dtype=None)
    assert torch.equal(reversed_.x, torch.from_numpy(x).flip(1))


def test_read_only_arrays_are_copied():
    x = np.zeros((2, 3), dtype=np.float32)
    x.flags.writeable = False
    data = ArrayDataset.from_arrays(x)
    data.x[0, 0] = 1.0
    assert x[0, 0] == 0.0


def test_a_float_array_of_the_wanted_dtype_is_not_copied():
    x = np.zeros((2, 3), dtype=np.float32)
    assert np.shares_memory(ArrayDataset.from_arrays(x).x.numpy(), x)


@pytest.mark.parametrize("make", [torch.tensor, np.array, lambda row: row])
def test_lists_of_samples_are_stacked(make):
    data = ArrayDataset.from_arrays([make([0.0, 1.0]), make([2.0, 3.0])])
    assert data.x.tolist() == [[0.0, 1.0], [2.0, 3.0]]


@pytest.mark.parametrize("make", [torch.zeros, np.zeros])
def test_samples_of_different_shapes_are_refused(make):
    message = r"x\[1\] has shape \(3, 2\) and x\[0\] \(2, 2\): expected one shape"
    with pytest.raises(DataError, match=message):
        ArrayDataset.from_arrays([make((2, 2)), make((3, 2))])


def test_a_tensor_with_a_gradient_is_detached():
    x = torch.ones(2, 3, requires_grad=True)
    assert not ArrayDataset.from_arrays(x).x.requires_grad


# --- what does not fit ----------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_refused(bad):
    x = np.zeros((3, 2))
    x[1, 0] = bad
    with pytest.raises(DataError, match=r"x has 1 NaN or infinite .* the first at index \(1, 0\)"):
        ArrayDataset.from_arrays(x)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (3,), ()])
def test_empty_and_flat_arrays_are_refused(shape):
    with pytest.raises(DataError, match=r"x has shape .*: expected \(N, \*input_shape\)"):
        ArrayDataset.from_arrays(np.zeros(shape))


def test_an_empty_list_is_refused():
    with pytest.raises(DataError, match=r"x has shape \(0,\)"):
        ArrayDataset.from_arrays([])


def test_a_length_mismatch_is_refused():
    with pytest.raises(DataError, match="y has 2 labels for 3 samples in x"):
        ArrayDataset.from_arrays(np.zeros((3, 2)), [0, 1])


def test_names_without_labels_are_refused():
    with pytest.raises(DataError, match=r"class_names=\('a',\) without labels in y"):
        ArrayDataset.from_arrays(np.zeros((3, 2)), class_names=["a"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"x": np.zeros((2, 3))}, "x is ndarray: expected a torch.Tensor"),
        ({"x": torch.zeros(2, 3, dtype=torch.float16)}, "x has dtype torch.float16"),
        ({"y": torch.zeros(2)}, "y has dtype torch.float32: expected a tensor of torch.int64"),
        ({"y": [0, 1]}, "y has dtype list: expected a tensor of torch.int64"),
        ({"y": torch.tensor([0, 1, 1])}, r"y has shape \(3,\): expected \(2\)"),
        ({"y": torch.tensor([0, -1])}, "y ranges from -1 to 0: expected class indices"),
        (
            {"y": torch.tensor([0, 2]), "class_names": ("a", "b")},
            "y ranges from 0 to 2: expected class indices from 0 to 1",
        ),
        (
            {"mask": torch.ones(2, 3)},
            "mask has dtype torch.float32: expected a tensor of torch.bool",
        ),
        (
            {"mask": torch.ones(2, 2, dtype=torch.bool)},
            r"mask has shape \(2, 2\): expected \(2, 3\)",
        ),
    ],
)
def test_the_constructor_refuses_what_does_not_fit(fields, message):
    with pytest.raises(DataError, match=message):
        ArrayDataset(**({"x": torch.zeros(2, 3)} | fields))


# --- masks ----------------------------------------------------------------------------------------


@given(
    hnp.arrays(np.float32, (4, 3), elements=st.floats(-5, 5, width=32) | st.just(float("nan"))),
)
def test_unobserved_entries_become_zero_and_the_input_is_left_alone(x):
    before, mask = x.copy(), ~np.isnan(x)
    data = ArrayDataset.from_arrays(x, mask=mask)
    assert np.array_equal(data.x.numpy(), np.nan_to_num(before))
    assert np.array_equal(data.mask.numpy(), mask)
    assert np.array_equal(x, before, equal_nan=True)


def test_finite_values_under_the_mask_do_not_leak():
    data = ArrayDataset.from_arrays(np.full((1, 2), 7.0), mask=[[True, False]])
    assert data.x.tolist() == [[7.0, 0.0]]


def test_nan_at_an_observed_entry_is_refused():
    with pytest.raises(DataError, match=r"x has 1 NaN .* index \(0, 1\)"):
        ArrayDataset.from_arrays([[np.nan, np.nan]], mask=[[False, True]])


@pytest.mark.parametrize("mask", [np.ones((2, 2)), np.ones((2, 2), dtype=np.uint8)])
def test_a_mask_of_numbers_is_refused(mask):
    with pytest.raises(DataError, match="mask has dtype .* expected booleans"):
        ArrayDataset.from_arrays(np.zeros((2, 2)), mask=mask)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(DataError, match=r"mask has shape \(2, 1\): expected \(2, 2\)"):
        ArrayDataset.from_arrays(np.zeros((2, 2)), mask=np.ones((2, 1), dtype=bool))


# --- selections -----------------------------------------------------------------------------------


def test_properties(dataset):
    assert (len(dataset), dataset.input_shape) == (6, (4,))
    assert (dataset.num_classes, dataset.classes) == (3, (0, 1, 2))
    unlabelled = ArrayDataset(dataset.x)
    assert (unlabelled.num_classes, unlabelled.classes, unlabelled.class_names) == (0, (), ())


def test_indices_name_the_classes_that_come_without_names():
    assert ArrayDataset(torch.zeros(2, 1), torch.tensor([2, 0])).class_names == ("0", "1", "2")


def test_batch_holds_only_what_there_is(dataset):
    rows = torch.tensor([4, 0])
    batch = dataset.batch(rows)
    assert list(batch) == ["x", "y", "mask"]
    assert torch.equal(batch["x"], dataset.x[rows])
    assert batch["y"].tolist() == [1, 0]
    assert list(ArrayDataset(dataset.x).batch(rows)) == ["x"]


@given(st.lists(st.integers(0, 5), min_size=1), st.sampled_from([list, np.array, torch.tensor]))
def test_subset_takes_rows_in_order(rows, make):
    x = torch.arange(12.0).reshape(6, 2)
    part = ArrayDataset(x, torch.arange(6)).subset(make(rows))
    assert torch.equal(part.x, x[rows])
    assert part.y.tolist() == rows
    assert part.num_classes == 6


def test_subset_takes_booleans(dataset):
    part = dataset.subset(dataset.x[:, 0] > 10)
    assert torch.equal(part.x, dataset.x[3:])
    assert torch.equal(part.mask, dataset.mask[3:])


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([], "selects no sample"),
        (torch.zeros(6, dtype=torch.bool), "selects no sample"),
        ([0, 6], "ranges from 0 to 6: expected 0 to 5"),
        ([-1], "ranges from -1 to -1: expected 0 to 5"),
        ([0.0], "dtype torch.float64: expected integers or booleans"),
        ([[0, 1]], r"shape \(1, 2\)"),
        ([True], r"shape \(1,\): expected \(6\)"),
    ],
)
def test_subset_refuses_bad_indices(dataset, indices, message):
    with pytest.raises(DataError, match=f"indices .*{message}"):
        dataset.subset(indices)


def test_of_class_takes_the_name_of_a_class(dataset):
    assert torch.equal(dataset.of_class("b").x, dataset.x[[1, 4]])
    assert dataset.of_class("b").class_names == ("a", "b", "c")


def test_a_number_is_a_class_as_it_was_given_never_an_index():
    data = ArrayDataset.from_arrays(np.arange(3.0)[:, None], [1, 2, 2])
    assert data.of_class(1).x.flatten().tolist() == [0.0]
    assert data.of_class(np.int64(2)).x.flatten().tolist() == [1.0, 2.0]
    with pytest.raises(DataError, match=r"class 0 has no sample: expected one of \('1', '2'\)"):
        data.of_class(0)


def test_of_class_refuses_an_absent_class(dataset):
    for absent in ("d", 3, -1):
        with pytest.raises(DataError, match=f"class {absent!r} has no sample: expected one of"):
            dataset.of_class(absent)
    with pytest.raises(DataError, match="y has no labels"):
        ArrayDataset(dataset.x).of_class(0)


def test_to_changes_the_dtype_of_x_only(dataset):
    double = dataset.to(dtype=torch.float64)
    assert (double.x.dtype, double.y.dtype) == (torch.float64, torch.int64)
    assert double.mask.dtype == torch.bool
    assert double.class_names == dataset.class_names
    assert torch.equal(double.x.float(), dataset.x)
    with pytest.raises(DataError, match="x has dtype torch.float16"):
        dataset.to(dtype=torch.float16)


def test_to_moves_everything(dataset):
    moved = dataset.to(device="cpu")
    assert {field.device.type for field in moved.batch(torch.tensor([0])).values()} == {"cpu"}


def test_fields_cannot_be_reassigned(dataset):
    with pytest.raises(AttributeError):
        dataset.x = torch.zeros(1, 1)


def test_repr_tells_the_classes_and_what_was_observed(dataset):
    dataset.mask[0] = False
    text = "ArrayDataset(6 samples of shape (4,), float32; a: 3, b: 2, c: 1; 83.3% observed)"
    assert repr(dataset) == text


def test_constant_columns_are_named():
    x = np.array([[1.0, 2.0, 0.3, 4.0], [1.0, 3.0, 0.3, 5.0]])
    assert ArrayDataset.from_arrays(x).constant_columns == ("0", "2")
    named = ArrayDataset.from_arrays(x, columns=["a", "b", "c", "d"])
    assert named.constant_columns == ("a", "c")
    mask = np.array([[True, True, True, False], [True, False, False, False]])
    hidden = ArrayDataset.from_arrays(x, mask=mask, columns=["a", "b", "c", "d"])
    assert hidden.constant_columns == ("a", "b", "c", "d")  # one value each, or none
    assert ArrayDataset.from_arrays(x[:, None]).constant_columns == ()


def test_names_follow_their_samples():
    data = ArrayDataset(torch.arange(3.0)[:, None], torch.tensor([0, 1, 0]), names=("p", "q", "r"))
    assert data.subset([2, 0]).names == ("r", "p")
    assert data.of_class(0).names == ("p", "r")
    assert data.to(dtype=torch.float64).names == data.names
    with pytest.raises(DataError, match="names are 2 for 3 samples"):
        ArrayDataset(data.x, names=("p", "q"))
