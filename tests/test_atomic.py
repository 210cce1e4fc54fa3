import os
import stat
import sys

import pytest

from chartae.atomic import atomic_content, atomic_path, check_writable, remove_leftovers, write_text
from chartae.errors import ConfigurationError


def test_the_file_appears_whole(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.suffix == ".txt"
    assert path.read_text() == "half"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), SystemExit()])
def test_an_interrupted_writing_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def write():
        with atomic_path(path) as temporary:
            temporary.write_text("half of the n")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "file.txt"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_text_is_utf8(tmp_path):
    write_text(tmp_path / "file.txt", "λ → β")
    assert (tmp_path / "file.txt").read_bytes().decode("utf-8") == "λ → β"


@pytest.mark.skipif(sys.platform == "win32", reason="no such modes")
def test_the_mode_is_that_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file.txt", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file.txt").stat().st_mode) == 0o640


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    (tmp_path / ".a[1].txt.0123abcd.txt").write_text("left by a killed process")
    kept = {"a[1].txt", ".a1.txt.0123abcd.txt", ".a[1].txt.mine", "b.txt"}
    for name in kept:
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path / "a[1].txt")
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_leftovers_have_the_names_that_writing_gives(tmp_path):
    path = tmp_path / "file.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        copy = temporary.read_text()
        remove_leftovers(path)
        assert not temporary.exists()
        temporary.write_text(copy)


def test_a_folder_is_made_and_left_empty(tmp_path):
    folder = check_writable("out", tmp_path / "a" / "b")
    assert list(folder.iterdir()) == []


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigurationError, match="out='.*' cannot be written to"):
            check_writable("out", path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigurationError, match="Permission denied"):
        check_writable("out", tmp_path)
    tmp_path.chmod(0o700)


def test_the_content_of_a_folder_is_complete_or_absent(tmp_path):
    def write(folder, stop):
        with atomic_content(folder) as place:
            (place / "deeper").mkdir()
            (place / "deeper" / "one").write_text("1")
            assert not (folder / "deeper").exists()
            if stop:
                raise ValueError("stop")

    out = tmp_path / "sub" / "out"
    with pytest.raises(ValueError, match="stop"):
        write(out, stop=True)
    assert not out.exists()
    write(out, stop=False)
    assert [file.name for file in out.iterdir()] == ["deeper"]
    with pytest.raises(ConfigurationError, match="cannot be written to"):
        write(out / "deeper" / "one", stop=False)
