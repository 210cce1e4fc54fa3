"""What goes in comes out: dtype, layout and container of the samples that were given."""

import json
import logging

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chartae.data import (
    ArrayDataset,
    Form,
    digits,
    disks_and_rings,
    read_data,
    write_npz,
    write_table,
)
from chartae.data.form import read_samples
from chartae.errors import ConfigurationError, DataError


@given(
    x=hnp.arrays(
        st.sampled_from([np.uint8, np.bool_, np.float32, np.float64]),
        st.sampled_from([(2, 3), (2, 4, 3), (2, 3, 5, 4), (1, 2, 3, 4, 2)]),
        elements={"min_value": 0, "max_value": 1},
    ),
    container=st.sampled_from(["array", "tensor", "list", "list of tensors"]),
    channels_last=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64, "default"]),
)
def test_samples_come_back_as_they_were_given(x, container, channels_last, dtype):
    channels_last = channels_last and x.ndim > 2
    x = np.where(np.abs(x) < 1e-30, x.dtype.type(0), x)
    given_x = {
        "array": x,
        "tensor": torch.from_numpy(x),
        "list": list(x),
        "list of tensors": list(torch.from_numpy(x)),
    }[container]
    data = ArrayDataset.from_arrays(given_x, channels_last=channels_last, dtype=dtype)
    if channels_last:
        assert data.input_shape == (x.shape[-1], *x.shape[1:-1])
    back = data.form.restore(data.x)
    assert isinstance(back, torch.Tensor if "tensor" in container else np.ndarray)
    back = np.asarray(back)
    assert (back.dtype, back.shape) == (x.dtype, x.shape)
    np.testing.assert_allclose(back.astype(float), x.astype(float), rtol=1e-6)


def test_the_form_survives_selections_and_conversions():
    x = np.zeros((4, 6, 6, 3), dtype=np.uint8)
    data = ArrayDataset.from_arrays(x, [0, 0, 1, 1], channels_last=True)
    for part in (data.subset([1, 2]), data.of_class(1), data.to(dtype=torch.float64)):
        assert part.form == data.form
        assert part.form.restore(part.x).dtype == np.uint8


@given(
    st.builds(
        Form,
        st.sampled_from([torch.uint8, torch.bool, torch.float32, torch.float64]),
        st.sampled_from(["tensor", "array", "frame"]),
        st.booleans(),
        st.lists(st.text()).map(tuple),
        st.lists(st.text()).map(tuple),
    )
)
def test_a_form_is_json(form):
    assert Form.from_json(json.loads(json.dumps(form.to_json()))) == form


@pytest.mark.parametrize(
    "record", [{}, {"dtype": "load"}, {"dtype": "uint8", "shape": 3}, None, [1]]
)
def test_another_record_is_no_form(record):
    with pytest.raises(DataError, match="form=.*: expected the result of Form.to_json"):
        Form.from_json(record)


def test_archives_are_written_in_the_form_of_the_data(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    mask = x > 30
    np.savez(tmp_path / "in.npz", x=np.where(mask, x, 0), y=[3, 3, 5, 5], mask=mask)
    data = read_data(tmp_path / "in.npz", channels_last=True)
    write_npz(tmp_path / "out.npz", data)
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_array_equal(out["x"], np.where(mask, x, 0))
        np.testing.assert_array_equal(out["mask"], mask)
        assert out["x"].dtype == np.uint8
        assert out["class_names"][out["y"]].tolist() == ["3", "3", "5", "5"]
    with pytest.raises(ConfigurationError, match=r"out.npz' exists: overwrite=True replaces it"):
        write_npz(tmp_path / "out.npz", data)


# --- DataFrames, masked arrays --------------------------------------------------------------------


def test_a_data_frame_comes_back_with_its_columns_and_dtypes():
    frame = pd.DataFrame(
        {
            "age": pd.array([60, 71, 65], dtype="Int64"),
            "score": np.array([0.5, 1.5, 2.5], dtype=np.float32),
            "smokes": [True, False, True],
            "visits": [1, 2, 3],
            4: [0.1, 0.2, 0.3],
        }
    )
    data = ArrayDataset.from_arrays(frame, pd.Series(["a", "b", "a"], dtype="category"))
    assert (data.input_shape, data.mask, data.class_names) == ((5,), None, ("a", "b"))
    pd.testing.assert_frame_equal(data.form.restore(data.x), frame)
    drawn = data.form.restore(data.x + 0.4)
    assert drawn["visits"].tolist() == [1, 2, 3]
    assert drawn.dtypes.equals(frame.dtypes)


def test_missing_cells_of_a_data_frame_are_not_observed():
    frame = pd.DataFrame({"a": [1.0, np.nan], "b": pd.array([None, 2], dtype="Int64")})
    data = ArrayDataset.from_arrays(frame)
    assert data.mask.tolist() == [[True, False], [False, True]]
    assert data.x.tolist() == [[1.0, 0.0], [0.0, 2.0]]


def categories():
    """A table with categories of every kind, and a gap in each column."""
    return pd.DataFrame(
        {
            "text": ["v", None, "u", "v"],
            "number": [1.0, np.nan, 2.0, 3.0],
            "order": pd.Categorical(["lo", "hi", None, "lo"], ["lo", "mid", "hi"], ordered=True),
            "code": pd.Categorical([7, 3, 7, None]),
            "string": pd.array(["a", "b", None, "a"], dtype="string"),
            "object": np.array([None, "x", "x", "y"], dtype=object),
            "flag": pd.array([True, None, False, True], dtype="boolean"),
        }
    )


def test_categories_are_one_hot_features_and_come_back():
    frame = categories()
    data = ArrayDataset.from_arrays(frame)
    assert data.form.widths == (2, 1, 3, 2, 2, 2, 1)
    assert data.x[0].tolist() == [0, 1, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 1]
    assert torch.equal(data.form.of_columns(data.mask), torch.from_numpy(frame.notna().to_numpy()))
    form = Form.from_json(json.loads(json.dumps(data.form.to_json())))
    assert form == data.form
    back = form.restore(data.x)
    assert back.dtypes.equals(frame.dtypes)
    pd.testing.assert_frame_equal(back.mask(frame.isna()).astype(frame.dtypes), frame)


def test_a_category_is_the_one_of_the_largest_feature():
    form = ArrayDataset.from_arrays(categories()[["order"]]).form
    drawn = form.restore(torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4]]))
    assert drawn["order"].tolist() == ["mid", "lo"]


def test_categories_are_written_and_named(tmp_path):
    frame = categories()
    frame["same"] = "s"
    data = ArrayDataset.from_arrays(frame, [0, 0, 1, 1])
    assert data.constant_columns == ("same",)
    write_table(tmp_path / "t.csv", data)
    again = pd.read_csv(tmp_path / "t.csv")
    assert again["text"].tolist() == ["v", pytest.approx(np.nan, nan_ok=True), "u", "v"]
    assert again["same"].tolist() == ["s"] * 4
    assert again.isna().to_numpy()[:, :7].tolist() == frame.isna().to_numpy()[:, :7].tolist()


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pd.to_datetime(["2020", "2021"]), "x has a column 'b' of dtype datetime64.*: expected"),
        ([1j, 2j], "x has a column 'b' of dtype complex128: expected columns of numbers"),
        (np.array(["u", 1], dtype=object), "x has a column 'b' of dtype object: expected columns"),
        (["2020-01-31", "2020-02-01"], "x has a column 'b' with dates, such as '2020-01-31'"),
        (np.array([None, None]), "x has a column 'b' without a value: expected at least one"),
        (pd.Categorical(pd.to_datetime(["2020", "2021"])), "x has a column 'b' with the category"),
    ],
)
def test_columns_of_other_types_are_refused_by_name(column, message):
    with pytest.raises(DataError, match=message):
        ArrayDataset.from_arrays(pd.DataFrame({"a": [1, 2], "b": column}))


def test_a_column_of_identifiers_is_refused():
    names = [f"patient {index}" for index in range(101)]
    with pytest.raises(DataError, match="a column 'id' with 101 different texts: expected at most"):
        ArrayDataset.from_arrays(pd.DataFrame({"id": [*names, *names]}))
    with pytest.raises(
        DataError, match="'id' with 5 different texts in 5 cells.*; leave it out, o"
    ):
        ArrayDataset.from_arrays(pd.DataFrame({"id": names[:5]}))
    assert ArrayDataset.from_arrays(pd.DataFrame({"id": names[:4]})).input_shape == (4,)
    declared = pd.DataFrame({"id": pd.Categorical(names)})
    assert ArrayDataset.from_arrays(declared).input_shape == (101,)


def test_columns_of_one_name_are_refused():
    frame = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(DataError, match=r"x has columns \['a', 'a'\]: expected names that differ"):
        ArrayDataset.from_arrays(frame)


def test_the_mask_of_a_masked_array_is_kept():
    x = np.ma.masked_array([[1.0, np.nan], [3.0, 4.0]], [[False, True], [False, False]])
    data = ArrayDataset.from_arrays(x)
    assert data.mask.tolist() == [[True, False], [True, True]]
    assert data.x.tolist() == [[1.0, 0.0], [3.0, 4.0]]
    assert ArrayDataset.from_arrays(np.ma.masked_array([[1.0, 2.0]])).mask is None
    with pytest.raises(DataError, match="x has a mask of its own, and mask is given"):
        ArrayDataset.from_arrays(x, mask=np.ones((2, 2), dtype=bool))


def test_a_mask_follows_the_channels():
    x = np.random.default_rng(0).random((2, 4, 5, 3), dtype=np.float32)
    data = ArrayDataset.from_arrays(x, mask=x > 0.5, channels_last=True)
    assert torch.equal(data.mask, torch.from_numpy(np.moveaxis(x > 0.5, -1, 1)))
    assert torch.equal(data.x != 0, data.mask)


# --- what looks wrong is said ---------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_that_seem_to_be_last_are_said_once(channels, caplog):
    with caplog.at_level(logging.WARNING):
        ArrayDataset.from_arrays(np.zeros((2, 20, 20, channels)))
    assert len(caplog.records) == 1
    assert "read as 20 channels" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        ArrayDataset.from_arrays(np.zeros((2, 20, 20, channels)), channels_last=True)
        ArrayDataset.from_arrays(np.zeros((2, 3, 20, 3)))
    assert not caplog.records


def test_images_of_bytes_given_as_floats_are_told_to_divide(caplog):
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8)).astype(np.float32)
    with caplog.at_level(logging.WARNING):
        ArrayDataset.from_arrays(images)
    assert "divide them by 255 or give them as uint8" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        ArrayDataset.from_arrays(images / 255)
        ArrayDataset.from_arrays(images.reshape(2, -1).clip(0, 99))  # a table may hold counts
        ArrayDataset.from_arrays(images > 100)
        ArrayDataset.from_arrays((images > 100).astype(np.float32))
        ArrayDataset.from_arrays(images - 300)
    assert not caplog.records


def test_values_that_float32_would_merge_are_refused_by_name():
    times = 1.7e9 + np.arange(20.0)
    frame = pd.DataFrame({"a": np.zeros(20), "time": times})
    with pytest.raises(DataError, match="feature 'time' that differ by less than float32 resolves"):
        ArrayDataset.from_arrays(frame)
    with pytest.raises(DataError, match=r"feature \(1,\) that differ"):
        ArrayDataset.from_arrays(frame.to_numpy())
    assert ArrayDataset.from_arrays(frame, dtype=torch.float64).x[:, 1].unique().numel() == 20
    assert ArrayDataset.from_arrays(frame - [0, 1.7e9]).x[:, 1].unique().numel() == 20
    hidden = np.arange(20) > 12
    with pytest.raises(DataError, match="feature 'time' that differ"):
        ArrayDataset.from_arrays(frame.mask(frame.gt(0) & hidden[:, None]))


def test_rounding_of_float64_is_no_difference_between_values():
    x = np.array([[0.1 + 0.2, 1e-40, 1e300], [0.3, 2e-40, 1e300]])
    ArrayDataset.from_arrays(x[:, :2])
    with pytest.raises(DataError, match="x has 2 NaN or infinite"):
        ArrayDataset.from_arrays(x)


def test_images_of_reals_that_reach_far_are_told_to_divide(caplog):
    with caplog.at_level(logging.WARNING):
        ArrayDataset.from_arrays(np.linspace(0.5, 200, 32).reshape(2, 4, 4))
    assert "x ranges from 0.5 to 200" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        ArrayDataset.from_arrays(np.linspace(0.5, 3, 32).reshape(2, 4, 4))
        ArrayDataset.from_arrays(np.linspace(0.5, 2000, 32).reshape(2, 4, 4))
    assert not caplog.records


def test_images_as_vectors_of_bytes_are_told_to_divide(caplog):
    with caplog.at_level(logging.WARNING):
        ArrayDataset.from_arrays(np.arange(256.0).reshape(2, 128))
    assert "x ranges from 0 to 255" in caplog.text


def test_names_of_columns_are_kept_with_arrays_too():
    data = ArrayDataset.from_arrays(np.zeros((2, 2)), columns=["a", "b"])
    assert data.form.columns == ("a", "b")
    with pytest.raises(DataError, match=r"columns=\('a',\): expected a name for each feature"):
        ArrayDataset.from_arrays(np.zeros((2, 2)), columns=["a"])


def test_integers_of_a_data_frame_stay_in_the_range_of_their_dtype():
    frame = pd.DataFrame({"a": np.array([1, 2], dtype=np.int8), "b": pd.array([1, 2], "UInt8")})
    form = ArrayDataset.from_arrays(frame).form
    drawn = form.restore(torch.tensor([[300.0, -5.0], [-300.0, 3.6]]))
    assert drawn["a"].tolist() == [127, -128]
    assert drawn["b"].tolist() == [0, 4]
    assert drawn.dtypes.equals(frame.dtypes)


def test_columns_without_a_plain_name_are_refused():
    frame = pd.DataFrame(np.ones((1, 1)), columns=pd.MultiIndex.from_tuples([("a", 1)]))
    with pytest.raises(DataError, match=r"column \('a', 1\): expected names that are text or int"):
        ArrayDataset.from_arrays(frame)


@given(hnp.arrays(np.float64, (6, 3), elements=st.floats(-1, 1)), st.floats(-15, 15))
def test_ordinary_numbers_of_any_scale_are_precise_enough(x, exponent):
    x = (np.round(x, 3) + np.arange(6)[:, None]) * 10.0**exponent
    ArrayDataset.from_arrays(x)
    ArrayDataset.from_arrays(np.full((6, 3), 0.1 * 10.0**exponent))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.eye(2).to_sparse(), "x is a sparse or nested tensor: expected a dense one"),
        (np.zeros((2, 2), dtype=complex), "x has dtype torch.complex128: expected uint8"),
        (np.zeros((2, 2), dtype=np.float16), "x has dtype torch.float16: expected uint8"),
        (np.array([[None, 1]]), "x has dtype object: expected one array of numbers"),
        (np.zeros((2, 2), dtype="M8[s]"), r"x has dtype datetime64\[s\]: expected one array of"),
        (["a", "b"], "x is list: expected one array of numbers"),
        ({"x": [1.0]}, "x is dict: expected one array of numbers"),
        (None, "x is NoneType: expected one array of numbers"),
        ([torch.eye(2).to_sparse()], r"x\[0\] is a sparse or nested tensor: expected a dense"),
        ([[1.0, 2.0], [1.0]], r"x\[1\] has shape \(1,\) and x\[0\] \(2,\): expected one shape"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(x, message):
    with pytest.raises(DataError, match=message):
        ArrayDataset.from_arrays(x)


def test_sparse_arrays_of_scipy_are_refused():
    from scipy.sparse import csr_array

    with pytest.raises(DataError, match=r"x is a sparse array: expected a dense one, x.toarray\("):
        ArrayDataset.from_arrays(csr_array(np.eye(2)))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "y is None: expected"),
        (np.eye(2, dtype=int), r"y has shape \(2, 2\): expected \(N,\).*y.argmax\(1\)"),
        (np.zeros((2, 1), dtype=int), r"y has shape \(2, 1\): expected \(N,\).*y.ravel\(\)"),
        (np.array([0.5, 1.5]), "y has dtype float64: expected integer or string labels"),
        ([[1], [1, 2]], r"y is list: expected \(N,\), one integer or string label per sample"),
        (torch.zeros(2, dtype=torch.bfloat16), "y has dtype torch.bfloat16: expected"),
        (torch.eye(2).to_sparse(), "y is a sparse or nested tensor: expected a dense one"),
    ],
)
def test_labels_of_another_form_are_told_the_way_out(y, message):
    from chartae.data import encode_labels

    with pytest.raises(DataError, match=message):
        encode_labels(y)


def test_the_default_dtype_is_that_of_torch():
    torch.set_default_dtype(torch.float64)
    try:
        for data in (digits(), disks_and_rings(4), ArrayDataset.from_arrays(np.zeros((2, 2), "f"))):
            assert data.x.dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert digits().x.dtype == torch.float32
    with pytest.raises(ConfigurationError, match="dtype=torch.float16: expected"):
        ArrayDataset.from_arrays(np.zeros((2, 2)), dtype=torch.float16)


def test_reading_costs_no_copy_where_none_is_needed():
    x = torch.zeros(3, 2)
    assert read_samples(x).values is x or read_samples(x).values.data_ptr() == x.data_ptr()
