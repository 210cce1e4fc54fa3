"""The subcommands on a table with numbers, categories and missing cells."""

import csv
from pathlib import Path

import numpy as np
import pytest

from chartae.cli import run
from chartae.data import read_data, read_table

COLUMNS = ["age", "marker", "sex", "stage", "site", "label"]


def row(k: int, random: np.random.Generator) -> list[str]:
    """Return the cells of a row: the class ill has one site, and no stage III."""
    ill = k % 3 == 0
    marker = "" if k % 5 == 0 else f"{random.exponential():.3f}"
    sex = "" if k % 7 == 1 else "fm"[k % 2]
    stage = ["I", "II, early"][k % 2] if ill else ["I", "II, early", "III"][k // 2 % 3]
    site = "1" if ill else str(k % 4)
    return [str(40 + k % 30), marker, sex, stage, site, "ill" if ill else "well"]


@pytest.fixture
def table(tmp_path, monkeypatch) -> list[list[str]]:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    rows = [row(k, random) for k in range(60)]
    write("table.csv", rows)
    write("full.csv", [row for row in rows if all(row)])
    return rows


def write(name: str, rows: list[list[str]], separator: str = ";") -> None:
    with Path(name).open("w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows([COLUMNS, *rows])


def read(name: str) -> list[list[str]]:
    with Path(name).open(newline="") as file:
        names, *rows = csv.reader(file)
    assert names == COLUMNS
    return rows


def check(rows: list[list[str]]) -> None:
    """Check that synthetic rows have cells of the kind of their column, and no gaps."""
    for age, marker, sex, stage, site, _ in rows:
        assert age == str(int(age))
        assert site == str(int(site))
        assert np.isfinite(float(marker))
        assert sex in "fm"
        assert stage in ("I", "II, early", "III")


@pytest.mark.parametrize("name", ["table.csv", "full.csv"])
def test_augment(table, name) -> None:
    line = ["augment", name, "--model", "vae", "--sampler", "mixture", "--epochs", "40"]
    assert run([*line, "--per-class", "40", "--out", "new.csv", "--report"]) == 0
    made = read("new.csv")
    check(made)
    assert [row[-1] for row in made] == ["ill"] * 40 + ["well"] * 40
    # A column that is constant in a class is nearly so in its samples.
    assert np.mean([row[4] == "1" for row in made[:40]]) > 0.9
    assert len({row[4] for row in made[40:]}) > 2
    assert run([*line, "--per-class", "3", "--out", "all.csv", "--include-real"]) == 0
    written, real = read("all.csv"), table if name == "table.csv" else [r for r in table if all(r)]
    for cells, given in zip(written, real, strict=False):
        assert [*cells[:1], *cells[2:]] == [*given[:1], *given[2:]]
        assert cells[1] == given[1] or float(cells[1]) == pytest.approx(float(given[1]))
    check(written[len(real) :])
    assert read_table("new.csv").form.columns == read_table(name).form.columns


def test_augment_leaves_out_what_real_rows_lack(table, capsys) -> None:
    line = ["augment", "table.csv", "--model", "vae", "--sampler", "mixture", "--epochs", "1"]
    assert run([*line, "--per-class", "100", "--out", "new.csv", "--keep-gaps"]) == 0
    pattern = {(kind, not marker, not sex) for _, marker, sex, *_, kind in table}
    rows = read("new.csv")
    assert {(kind, not marker, not sex) for _, marker, sex, *_, kind in rows} == pattern
    assert np.mean([not marker for _, marker, *_ in rows]) == pytest.approx(0.2, abs=0.1)
    assert run(["augment", "full.csv", "--out", "f.csv", "--keep-gaps"]) == 2
    assert "expected data with missing values" in capsys.readouterr().err
    assert run(["train", "table.csv", "--out", "m", "--epochs", "1"]) == 0
    assert run(["evaluate", "m", "table.csv", "--out", "e.json"]) == 2
    assert "leave out their rows or columns" in capsys.readouterr().err


def test_sample(table, capsys) -> None:
    line = ["augment", "table.csv", "--model", "vae", "--epochs", "2", "--per-class", "2"]
    assert run([*line, "--out", "new.csv"]) == 0
    assert run(["sample", "new-models", "--n", "6", "--out", "more.csv"]) == 0
    check(read("more.csv"))
    assert [row[-1] for row in read("more.csv")] == ["ill"] * 3 + ["well"] * 3
    assert run(["sample", "new-models", "--n", "4", "--out", "more.csv", "--overwrite"]) == 0
    assert len(read("more.csv")) == 4
    assert run(["sample", "new-models", "--n", "6", "--out", "features.npz"]) == 0
    assert read_data("features.npz").input_shape == (1 + 1 + 2 + 3 + 1,)


def test_train(table, capsys) -> None:
    assert run(["train", "table.csv", "--out", "model", "--model", "vae", "--epochs", "2"]) == 0
    line = ["sample", "model", "--n", "3", "--sampler", "mixture"]
    line += ["--sampler-options.num-components", "1"]
    write("few.csv", [[*row[:3], "III", *row[4:]] for row in table[:9]], ",")
    assert run([*line, "--out", "s.csv", "--fit-on", "few.csv"]) == 0
    with Path("s.csv").open(newline="") as file:
        names, *rows = csv.reader(file)
    assert names == COLUMNS[:-1]
    check([[*row, ""] for row in rows])
    write("other.csv", [[*row[:2], "x", *row[3:]] for row in table], ",")
    capsys.readouterr()
    assert run([*line, "--out", "t.csv", "--fit-on", "other.csv"]) == 2
    error = capsys.readouterr().err
    assert "the table of --fit-on has 'x' in column 'sex': expected one of 'f', 'm'" in error


def test_evaluate(table) -> None:
    assert run(["train", "full.csv", "--out", "model", "--model", "vae", "--epochs", "2"]) == 0
    assert run(["evaluate", "model", "full.csv", "--out", "e.json"]) == 0


def test_study(table, capsys) -> None:
    write("test.csv", [row for row in table[:30] if row[3] != "III"], ",")
    line = ["study", "table.csv", "--test", "test.csv", "--out", "s", "--jobs", "1"]
    line += ["--methods", "smote,vae+mixture", "--classifiers", "k-NN", "--synthetic", "balance"]
    assert run([*line, "--repeats", "1", "--epochs", "2"]) == 0
    assert "Do synthetic data help?" in capsys.readouterr().out
    assert "left out" not in Path("s/result.json").read_text().replace("left_out", "")
    assert "vae+mixture" in Path("s/results.csv").read_text()


def test_only_vectors_are_rows(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("images.npz", x=np.random.default_rng(0).random((9, 4, 4)))
    assert run(["train", "images.npz", "--out", "model", "--model", "vae", "--epochs", "1"]) == 0
    assert run(["sample", "model", "--n", "2", "--out", "s.csv"]) == 2
    assert "observations of shape (4, 4) are not rows of a table" in capsys.readouterr().err
