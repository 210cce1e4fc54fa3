import csv as csv_module
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chartae.data import ArrayDataset, Form, read_data, read_labels, read_table, write_table
from chartae.data.labels import LABEL_NAMES
from chartae.errors import ConfigurationError, DataError
from chartae.training import default_options


@pytest.fixture
def csv(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "d.csv"
        path.write_text(text, encoding=encoding)
        return path

    return write


def test_numbers_and_labels_are_read(csv):
    data = read_data(csv("a,label,b\n1,x,2\n3.5,y,-4e1\n"))
    assert data.x.tolist() == [[1.0, 2.0], [3.5, -40.0]]
    assert (data.y.tolist(), data.class_names) == ([0, 1], ("x", "y"))


@pytest.mark.parametrize("name", ["y", "Y", "label", "Class"])
def test_usual_label_columns_are_found(csv, name):
    assert read_table(csv(f"a,{name}\n1,0\n2,1\n")).num_classes == 2


def test_a_label_column_can_be_named(csv):
    data = read_data(csv("kind,y\nu,1\nv,2\n"), label_column="kind")
    assert data.class_names == ("u", "v")
    assert data.x.tolist() == [[1.0], [2.0]]


def test_without_a_label_column_there_are_no_labels(csv):
    assert read_table(csv("a,b\n1,2\n")).y is None


def test_integer_labels_are_ordered_as_numbers(csv):
    assert read_table(csv("a,y\n1,10\n1,9\n")).class_names == ("9", "10")
    assert read_table(csv("a,y\n1,10\n1,09\n")).class_names == ("09", "10")


def test_dtype(csv):
    path = csv("a\n0.1\n")
    assert read_data(path, dtype=torch.float64).x.item() == 0.1
    assert read_data(path).x.dtype == torch.float32


def test_byte_order_marks_quotes_spaces_and_empty_lines_are_accepted(csv):
    data = read_table(csv('"a, first", y\n\n"1", u\n 2 ,v\n\n', encoding="utf-8-sig"))
    assert data.x.tolist() == [[1.0], [2.0]]
    assert data.class_names == ("u", "v")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"has 0 line\(s\): expected a header and at least one sample"),
        ("a,b\n", r"has 1 line\(s\): expected a header and at least one sample"),
        ("1,2\n3,4\n", "starts with numbers: expected a header"),
        ("a,b\n1,2\n3\n", "line 3 has 1 cells: expected 2"),
        ("a,b\n1,2\n\n3,abc\n", "line 4: column 'b' is 'abc', expected a number as in line 2; a"),
        ("a,b\n1,abc\n\n3,2\n", "line 2: column 'b' is 'abc', expected a number as in line 4; a"),
        ("a,b\n1,12%\n3,low\n", "line 3: column 'b' is 'low', expected a number as in line 2; a"),
        ("a;b\n1;1.234,5\n", "line 2: column 'b' is '1.234,5', expected a number"),
        ("a,b\n1,2020-01-31\n2,\n", "a column 'b' with dates, such as '2020-01-31': expected num"),
        ("a,b\n1,31.1.2020\n2,1.2.2020\n", "a column 'b' with dates, such as '1.2.2020'"),
        ("a,b\n1,1/31/20 12:30\n", "a column 'b' with dates, such as '1/31/20 12:30'"),
        (
            "a,id\n" + "".join(f"1,P{k}\n" for k in range(5)),
            "a column 'id' with 5 different texts in 5 cells, such as 'P0': expected categories, "
            "not names of the rows; remove the column",
        ),
        (
            "id,b\n" + "".join(f"P{k % 101},1\n" for k in range(102)),
            "a column 'id' with 101 different texts: expected at most 100; remove the column",
        ),
        ("a,b,b\n1,2,3\n", r"has columns \['b'\] more than once: expected names that differ"),
        ("a,b\n1,\n2,NA\n", "has no value in column 'b'"),
        ("a,b\n1,1_000\n", "line 2: column 'b' is '1_000', expected a number"),
        ("a,b\n1,inf\n", "line 2: column 'b' is 'inf', expected a number"),
        ("a;b\n1;2,5\n", "line 2: column 'b' is '2,5', expected a number, with a decimal point"),
        (",a\n0.5,1\n", "first column without a name: expected a name"),
        (",a\n7,1\n7,2\n", "first column without a name: expected a name"),
        ("a,y\n1,u\n2,\n", "line 3 has no label"),
        (
            "a,y,label\n1,0,0\n",
            r"has columns \['y', 'label'\]: expected label_column to give the name",
        ),
        ("y\n1\n", "has only labels: expected other columns"),
    ],
)
def test_bad_tables_are_refused(csv, text, message):
    with pytest.raises(DataError, match=message):
        read_table(csv(text))


@pytest.mark.parametrize(("column", "times"), [("c", 0), ("b", 2)])
def test_a_label_column_that_is_not_one_is_refused(csv, column, times):
    message = rf"label_column='{column}' is the name of {times} columns of .* \['a', 'b', 'b'\]"
    with pytest.raises(DataError, match=message):
        read_table(csv("a,b,b\n1,2,3\n"), label_column=column)


def test_what_is_no_text_is_refused(tmp_path):
    (tmp_path / "d.csv").write_bytes(b"a,b\n\xff\xfe,1\n")
    with pytest.raises(DataError, match=r"d.csv cannot be read as a table of text"):
        read_data(tmp_path / "d.csv")


@pytest.mark.parametrize("missing", ["", " ", "NA", "nan", "NaN", "null", "N/A"])
def test_missing_cells_become_the_mask(csv, missing):
    data = read_table(csv(f"a,b,label\n1,{missing},u\n2,3,v\n"))
    assert data.x.tolist() == [[1.0, 0.0], [2.0, 3.0]]
    assert data.mask.tolist() == [[True, False], [True, True]]


def test_a_table_without_missing_cells_has_no_mask(csv):
    assert read_table(csv("a,b\n1,2\n")).mask is None


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_separators_are_recognised(tmp_path, separator, suffix):
    path = tmp_path / f"d.{suffix}"
    path.write_text("a,b,label\n1,2,u\n3,4,v\n".replace(",", separator))
    data = read_data(path)
    assert data.x.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert data.class_names == ("u", "v")


def test_a_file_without_a_header(csv):
    path = csv("1,2,u\n3,4,v\n")
    data = read_data(path, header=False, label_column="2")
    assert (data.x.tolist(), data.class_names) == ([[1.0, 2.0], [3.0, 4.0]], ("u", "v"))
    assert (data.form.columns, data.form.label) == ((0, 1), "")


@pytest.mark.parametrize("name", LABEL_NAMES)
def test_the_label_is_called_as_in_archives(csv, tmp_path, name):
    data = read_table(csv(f"a,{name}\n1,u\n2,v\n"))
    assert (data.class_names, data.form.label) == (("u", "v"), name)
    write_table(tmp_path / "again.csv", data)
    assert (tmp_path / "again.csv").read_text() == f'"a","{name}"\n1,u\n2,v\n'
    np.savez(tmp_path / "d.npz", **{"x": np.zeros((2, 1)), name: np.array(["u", "v"])})
    assert read_data(tmp_path / "d.npz").class_names == ("u", "v")


@pytest.mark.parametrize(
    ("index", "reset"), [(["p", "q"], False), ([0, 1], False), ([17, 3], False), ([0, 1], True)]
)
def test_the_index_that_data_frames_write_is_no_feature(tmp_path, index, reset):
    frame = pd.DataFrame({"a": [1.5, 2.5]}, index=index)
    frame.to_csv(tmp_path / "d.csv")
    if reset:  # what comes of reading an index as a column, and writing it again
        pd.read_csv(tmp_path / "d.csv").to_csv(tmp_path / "d.csv", index=False)
    data = read_table(tmp_path / "d.csv")
    assert data.x.tolist() == [[1.5], [2.5]]
    assert data.form.columns == ("a",)


@given(
    x=hnp.arrays(
        st.sampled_from([np.float32, np.float64]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=4),
        elements=st.floats(-1e6, 1e6, width=32),
    ),
    labelled=st.booleans(),
    masked=st.booleans(),
    names=st.lists(st.text(min_size=1, max_size=5), min_size=4, max_size=4, unique=True),
)
def test_what_is_written_is_read_back(x, labelled, masked, names):
    y = np.arange(len(x)) % 2 if labelled else None
    classes = ["one", "two"] if labelled else None
    mask = None
    if masked:
        mask = np.arange(x.size).reshape(x.shape) % 3 > 0
        mask[0] = True
    dtype = torch.float32 if x.dtype == np.float32 else torch.float64
    columns = tuple(f"c{name}".strip() for name in names)[: x.shape[1]]
    columns = columns if len(set(columns)) == x.shape[1] else ()
    data = ArrayDataset.from_arrays(x, y, mask, class_names=classes, columns=columns, dtype=dtype)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d.csv"
        write_table(path, data)
        again = read_table(path, dtype=dtype)
    assert torch.equal(again.x, data.x)
    assert again.form.columns == (columns or tuple(f"x{index}" for index in range(x.shape[1])))
    assert (again.y is None) == (y is None)
    if y is not None:
        assert [again.class_names[i] for i in again.y] == [classes[i] for i in y]
    if data.mask is not None and not data.mask.all():
        assert torch.equal(again.mask, data.mask)


# --- text ----------------------------------------------------------------------------------------

MIXED = """\
age;sex;"stage; at first";marker;smokes;label
61;f;II;0.25;True;ill
58;;I;;False;ill
49;m;"II, late";1e-3;NA;well
70;f;I;2.5;True;well
"""


def test_a_table_with_text_is_read_as_the_data_frame_is(csv):
    path = csv(MIXED)
    data = read_table(path)
    frame = pd.read_csv(path, sep=";", dtype={"smokes": object}).drop(columns="label")
    frame["smokes"] = frame["smokes"].map(
        {True: "True", False: "False", "True": "True"} | {"False": "False"}
    )
    expected = ArrayDataset.from_arrays(frame, ["ill", "ill", "well", "well"])
    assert torch.equal(data.x, expected.x)
    assert torch.equal(data.mask, expected.mask)
    assert data.form.columns == ("age", "sex", "stage; at first", "marker", "smokes")
    assert data.form.widths == expected.form.widths == (1, 2, 3, 1, 2)
    assert data.form.column_dtypes == ("int64", "text", "text", "float64", "text")
    assert default_options("vae", data=data) == default_options("vae", data=expected)


def test_a_table_with_text_is_written_as_it_came(csv, tmp_path):
    data = read_table(csv(MIXED))
    write_table(tmp_path / "again.csv", data)
    lines = (tmp_path / "again.csv").read_text().splitlines()
    assert lines == [
        '"age","sex","stage; at first","marker","smokes","label"',
        "61,f,II,0.25,True,ill",
        "58,,I,,False,ill",
        '49,m,"II, late",0.001,,well',
        "70,f,I,2.5,True,well",
    ]
    form = Form.from_json(json.loads(json.dumps(data.form.to_json())))
    assert form == data.form
    cells = form.restore(data.x)
    assert cells[0].tolist() == [61, "f", "II", 0.25, "True"]
    assert form.restore(data.x + 0.3)[0, 0] == 61


def test_numbers_of_a_table_come_back_as_numbers(csv):
    data = read_table(csv("a,b\n1,2.5\n-3,4\n"))
    assert data.form.restore(data.x).tolist() == [[1.0, 2.5], [-3.0, 4.0]]
    whole = read_table(csv("a,b\n1,2\n-3,+4\n"))
    assert whole.form.restore(whole.x + 0.4).dtype == np.int64
    assert whole.form.restore(whole.x + 0.4).tolist() == [[1, 2], [-3, 4]]
    huge = read_table(csv(f"a,b\n{2**60},1\n{2**61},2\n"))
    assert huge.form.column_dtypes == ("float64", "int64")


def test_text_without_a_header(csv):
    data = read_table(csv("1,u,f\n2,v,m\n3,u,f\n"), header=False, label_column="1")
    assert (data.form.columns, data.form.widths) == ((0, 2), (1, 2))
    assert data.form.restore(data.x)[1].tolist() == [2, "m"]


TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=4
).map(lambda text: f"t{text}t")


@given(st.data())
def test_mixed_tables_come_back(data):
    """Each cell that was written by Python's csv module is read, and written again, as it came."""
    rows = data.draw(st.integers(2, 6))
    kinds = data.draw(st.lists(st.sampled_from(["int", "float", "text"]), min_size=1, max_size=4))
    columns = []
    for kind in kinds:
        if kind == "int":
            cells = st.integers(-(2**20), 2**20).map(str)
        elif kind == "float":
            cells = st.floats(-1e3, 1e3).map(lambda value: f"{value:.3f}")
        else:  # two texts, so that they are not the names of the rows
            cells = st.sampled_from(data.draw(st.lists(TEXTS, min_size=1, max_size=2)))
        column = data.draw(st.lists(cells | st.just(""), min_size=rows, max_size=rows))
        columns.append([column[0] or data.draw(cells), *column[1:]])
    separator = data.draw(st.sampled_from(",;\t"))
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / "a.csv", Path(folder) / "b.csv"
        with first.open("w", newline="", encoding="utf-8") as file:
            writer = csv_module.writer(file, delimiter=separator, quoting=csv_module.QUOTE_ALL)
            # Names of one letter: the separator of the first line is the file's.
            writer.writerows([list("abcd")[: len(kinds)], *zip(*columns, strict=True)])
        read = read_table(first, dtype=torch.float64)
        write_table(second, read)
        with second.open(newline="", encoding="utf-8") as file:
            written = list(zip(*list(csv_module.reader(file))[1:], strict=True))
        again = read_table(second, dtype=torch.float64)
    for kind, column, cells in zip(kinds, columns, written, strict=True):
        if kind == "float":
            assert [c and float(c) for c in cells] == [c and float(c) for c in column]
        else:
            assert list(cells) == column
    assert torch.equal(again.x, read.x)
    assert (again.mask is None) == (read.mask is None) == all(map(all, columns))
    assert again.form.categories == read.form.categories


def test_a_data_frame_is_written_in_its_form(tmp_path):
    frame = pd.DataFrame({"n": [1, 2], "b": [True, False], 7: [0.1, 0.25]})
    data = ArrayDataset.from_arrays(frame, ["u", "v"])
    write_table(tmp_path / "d.csv", replace(data, x=data.x + 0.2))
    text = (tmp_path / "d.csv").read_text()
    assert text == '"n","b","x7","label"\n1,1,0.3,u\n2,0,0.45,v\n'


@pytest.mark.parametrize("table", ["0,1,2\n3,4,5\n", "0,1,2,label\n3,4,5,u\n"])
def test_numbered_columns_of_data_frames_are_a_header(csv, table):
    assert read_table(csv(table)).x.tolist() == [[3.0, 4.0, 5.0]]


def test_what_a_table_cannot_hold_is_refused(tmp_path):
    vectors = ArrayDataset(torch.zeros(2, 2), torch.zeros(2, 3))
    with pytest.raises(DataError, match="y holds vectors: expected labels"):
        write_table(tmp_path / "d.csv", vectors)
    named = ArrayDataset.from_arrays(np.zeros((2, 1)), ["u", "v"], columns=["label"])
    with pytest.raises(
        ConfigurationError, match="label='label' is a column of x: expected another"
    ):
        write_table(tmp_path / "d.csv", named)
    assert not list(tmp_path.iterdir())


def test_a_feature_that_float32_would_merge_is_named(csv):
    text = "time,a\n" + "".join(f"{1_700_000_000 + i},{i}\n" for i in range(9))
    with pytest.raises(DataError, match="feature 'time' that differ by less than float32"):
        read_table(csv(text))
    assert read_table(csv(text), dtype=torch.float64).x[:, 0].diff().tolist() == [1.0] * 8


def test_labels_with_another_column_are_refused(tmp_path):
    (tmp_path / "y.csv").write_text("0,u\n1,v\n")
    with pytest.raises(DataError, match="y.csv has several cells in its first line"):
        read_labels(tmp_path / "y.csv")


def test_writing_replaces_nothing(tmp_path):
    write_table(tmp_path / "d.csv", ArrayDataset(torch.zeros(2, 2)))
    with pytest.raises(ConfigurationError, match="d.csv' exists: expected a new file"):
        write_table(tmp_path / "d.csv", ArrayDataset(torch.ones(2, 2)))
    with pytest.raises(DataError, match=r"x has shape \(2, 3, 3\): expected \(N, columns\)"):
        write_table(tmp_path / "e.csv", ArrayDataset(torch.zeros(2, 3, 3)))
    with pytest.raises(ConfigurationError, match="expected a file whose name ends in .csv"):
        write_table(tmp_path / "e.txt", ArrayDataset(torch.zeros(2, 2)))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("y.csv", "label\nu\nv\n", ["u", "v"]),
        ("y.txt", "10\n9\n", [10, 9]),
        ("y.txt", '"a b"\nc\n', ["a b", "c"]),
    ],
)
def test_labels_from_text(tmp_path, name, content, expected):
    (tmp_path / name).write_text(content)
    assert read_labels(tmp_path / name).tolist() == expected


def test_an_array_file_takes_its_labels_from_another(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 3)))
    np.save(tmp_path / "y.npy", np.array(["u", "v"]))
    assert read_data(tmp_path / "x.npy", labels=tmp_path / "y.npy").class_names == ("u", "v")
    (tmp_path / "y.txt").write_text("u\n\nv\n")
    with pytest.raises(DataError, match=r"y.txt has lines without a label"):
        read_data(tmp_path / "x.npy", labels=tmp_path / "y.txt")
    with pytest.raises(DataError, match=r"absent.txt cannot be read as labels"):
        read_data(tmp_path / "x.npy", labels=tmp_path / "absent.txt")


# --- a second table ------------------------------------------------------------------------------


def test_a_second_table_takes_the_columns_and_categories_of_the_first(csv):
    train = read_table(csv("n,sex,stage\n1,f,II\n2,m,I\n3,f,III\n"))
    test = read_table(csv("stage,n,sex\nIII,7,m\n,8,m\nIII,,m\n"))
    found = test.with_columns_of(train.form)
    assert found.form == train.form
    assert found.x.tolist() == [[7, 0, 1, 0, 0, 1], [8, 0, 1, 0, 0, 0], [0, 0, 1, 0, 0, 1]]
    seen = train.form.of_columns(found.mask).tolist()
    assert seen == [[True, True, True], [True, True, False], [False, True, True]]
    frame = pd.DataFrame({"sex": ["m"], "stage": ["I"], "n": [4]})
    assert ArrayDataset.from_arrays(frame).with_columns_of(train.form).x.tolist() == [
        [4, 0, 1, 1, 0, 0]
    ]
    plain = ArrayDataset(torch.zeros(2, 6))
    assert plain.with_columns_of(train.form) is plain


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n,sex\n1,x\n", "test has 'x' in column 'sex': expected one of 'f', 'm'"),
        ("n,sex\n1,2\n", "test has numbers in column 'sex': expected categories"),
        ("n,sex\nu,m\n", "test has categories in column 'n': expected numbers"),
        ("n,m\n1,m\n", r"test has the columns \['n', 'm'\]: expected \['n', 'sex'\]"),
    ],
)
def test_a_second_table_that_does_not_fit_is_refused(csv, text, message):
    train = read_table(csv("n,sex\n1,f\n2,m\n"))
    with pytest.raises(DataError, match=message):
        read_table(csv(text)).with_columns_of(train.form, "test")


def test_a_declared_category_without_a_row_does_no_harm(csv):
    train = read_table(csv("n,sex\n1,f\n2,m\n"))
    frame = pd.DataFrame({"n": [3], "sex": pd.Categorical(["m"], ["m", "x"])})
    assert ArrayDataset.from_arrays(frame).with_columns_of(train.form).x.tolist() == [[3, 0, 1]]


def test_the_fingerprint_tells_gaps_from_zeros():
    x = torch.eye(2)
    assert ArrayDataset(x).fingerprint != ArrayDataset(x, mask=x > 0).fingerprint
