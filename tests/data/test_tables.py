import pytest
import torch

from chartae.data import read_data, read_table
from chartae.errors import DataError


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
        ("a,b\n1,2\n\n3,abc\n", "line 4: column 'b' is 'abc', expected a number"),
        ("a,b\n1,\n", "line 2: column 'b' is empty, expected a number"),
        ("a,y\n1,u\n2,\n", "line 3 has no label"),
        ("a,y,label\n1,0,0\n", r"has columns \['y', 'label'\]: expected label_column to name"),
        ("a,b\n1,nan\n", r"x has 1 NaN or infinite value.* index \(0, 1\)"),
        ("y\n1\n", r"x has shape \(1, 0\): expected"),
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
    with pytest.raises(DataError, match=r"d.csv cannot be read as comma-separated text"):
        read_data(tmp_path / "d.csv")
