"""Class names become folders: each a child of its own, on any file system."""

import string
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chartae.naming import folder_name

names = st.text(max_size=40) | st.text(alphabet="aA./\\ %@é", max_size=6)


@given(names)
@example("..")
@example("a/../../b")
@example("C:\\x")
@example("\x00")
def test_a_folder_is_always_a_child(name: str) -> None:
    folder = folder_name(name)
    parent = Path("root")
    assert (parent / folder).parent == parent
    assert Path(folder).name == folder
    assert folder not in (".", "..")
    assert not folder.startswith(".")
    assert not folder.endswith((".", " "))
    assert not set(folder) & set('<>:"/\\|?*' + "".join(map(chr, range(32))))


@given(names, names)
@example("a", "A")
@example("<1", ">1")
@example("", "%")
@example("A", "a@1")
@example("a.", "a%2e")
@example("ß", "ss")
def test_names_that_differ_have_folders_that_differ_in_more_than_case(a: str, b: str) -> None:
    assert (folder_name(a).casefold() == folder_name(b).casefold()) == (a == b)


@given(st.text(alphabet=string.printable, min_size=150, max_size=400))
def test_long_names_stay_within_what_file_systems_take(name: str) -> None:
    assert len(folder_name(name).encode()) <= 255
    assert folder_name(name) != folder_name(name + "a")


@pytest.mark.parametrize("name", ["con", "NUL", "com1.txt", "aux."])
def test_names_of_devices_are_changed(name: str) -> None:
    assert folder_name(name).startswith("%")


@pytest.mark.parametrize("name", ["healthy", "class 3", "0", "T-cell_CD4+", "v1.2"])
def test_ordinary_names_stay_readable(name: str) -> None:
    assert folder_name(name).startswith(name)


def test_a_folder_of_every_byte_can_be_made(tmp_path: Path) -> None:
    for code in range(256):
        (tmp_path / folder_name(chr(code))).mkdir()
    assert len(list(tmp_path.iterdir())) == 256
