"""The subcommand ``study``."""

import csv
import json
import shutil

import numpy as np
import pytest

from chartae.augmentation import augmentation_study
from chartae.cli import run
from chartae.data import digits, write_npz

LINE = [
    *("study", "digits.npz", "--test", "test.npz", "--out", "s", "--jobs", "1", "--per-class", "4"),
    *("--methods", "smote,vae+mixture", "--classifiers", "k-NN", "--synthetic", "6"),
    *("--repeats", "3", "--epochs", "2"),
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_npz(tmp_path / "digits.npz", digits().subset(range(200)))
    write_npz(tmp_path / "test.npz", digits().subset(range(200, 300)))
    write_npz(tmp_path / "other.npz", digits().subset(range(300, 400)))
    return tmp_path


def changed(*options: str) -> list[str]:
    """Return the command with other values of options."""
    line = list(LINE)
    for name, value in zip(options[::2], options[1::2], strict=True):
        if name in line:
            line[line.index(name) + 1] = value
        else:
            line += [name, value]
    return line


def failure(capsys) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_verdict_table_and_report(here, capsys) -> None:
    assert run([*LINE, "--cohort", "other.npz"]) == 0
    out = capsys.readouterr().out
    for question in ("Do synthetic data help?", "Do they harm?", "Are they copies?"):
        assert question in out
    html = (here / "s" / "report.html").read_text()
    assert "Real or synthetic?" in html
    assert html.count('data-real="yes"') == html.count('data-real="no"') == 12
    assert "All figures on the cohort other.npz" in html
    assert "chartae augment digits.npz --model vae --sampler mixture" in html
    with (here / "s" / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["cohort"] for line in lines} == {"validation", "test", "other.npz"}
    assert {line["training_set"] for line in lines} == {
        "real",
        "real + synthetic",
        "synthetic only",
    }
    record = json.loads((here / "s" / "study.json").read_text())
    assert record["study"]["methods"] == "smote,vae+mixture"


def test_cohorts_of_one_name_are_all_measured(here) -> None:
    """The data of a cohort are often called test."""
    for name in ("b/test.npz", "b/other.npz"):
        (here / name).parent.mkdir(exist_ok=True)
        write_npz(here / name, digits().subset(range(400, 450)))
    line = ["study", "digits.npz", "--out", "s", "--jobs", "1", "--per-class", "4"]
    line += ["--methods", "noise", "--classifiers", "k-NN", "--synthetic", "5", "--repeats", "1"]
    for cohort in ("other.npz", "b/other.npz", "b/test.npz"):
        line += ["--cohort", cohort]
    assert run(line) == 0
    with (here / "s" / "results.csv").open() as file:
        found = {row["cohort"] for row in csv.DictReader(file)}
    assert found == {"validation", "test", "./other.npz", "b/other.npz", "test.npz"}


def test_started_again_it_trains_nothing(here, capsys, monkeypatch) -> None:
    assert run(LINE) == 0
    first = (here / "s" / "results.csv").read_text()
    monkeypatch.setattr("chartae.augmentation.study.generate", None)
    monkeypatch.setattr("chartae.augmentation.study.score", None)
    assert run(LINE) == 0
    assert (here / "s" / "results.csv").read_text() == first
    capsys.readouterr()
    assert run(changed("--synthetic", "7")) == 2
    assert "expected another folder" in failure(capsys)


@pytest.mark.slow
def test_a_killed_command_goes_on(here, capsys, monkeypatch) -> None:
    """A killed process cleans up nothing: its folder is copied before the command ends."""

    def killed(*args, **options):
        result = augmentation_study(*args, **options)
        shutil.copytree(here / "s", here / "killed")
        return result

    monkeypatch.setattr("chartae.cli.study.augmentation_study", killed)
    assert run(LINE) == 0
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert not (here / "killed" / "report.html").exists()
    assert run(changed("--out", "killed")) == 0, capsys.readouterr().err
    tables = [(here / name / "results.csv").read_text() for name in ("s", "killed")]
    assert tables[0] == tables[1]


def test_a_table_of_unequal_scales_and_classes(here, capsys) -> None:
    from sklearn.datasets import load_wine

    x, y = load_wine(return_X_y=True)
    rows = np.concatenate([np.flatnonzero(y == 0)[:12], np.flatnonzero(y == 1)[:50]])
    lines = [
        ",".join([*map(str, row), "Château A" if label else "B"])
        for row, label in zip(x[rows], y[rows], strict=True)
    ]
    header = ",".join([*(f"column {k}" for k in range(13)), "label"])
    (here / "wine.csv").write_text("\n".join([header, *lines]), encoding="utf-8")
    line = ["study", "wine.csv", "--out", "w", "--jobs", "1", "--synthetic", "balance,5"]
    line += ["--methods", "smote,vae", "--epochs", "5", "--repeats", "2"]
    assert run([*line, "--classifiers", "logistic regression"]) == 0
    assert "balanced accuracy" in capsys.readouterr().out
    html = (here / "w" / "report.html").read_text()
    assert "class weights" in html
    assert "those of the class &#39;Château A&#39;" in html
    assert "Real or synthetic?" not in html  # rows of a table cannot be told by eye


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "smot"], "methods='smot' is not known"),
        (["--methods", "vae+volum"], "the sampler in --methods='volum'"),
        (["--methods", "smote,smote"], "expected different names"),
        (["--classifiers", "kNN"], "classifiers='kNN' is not known"),
        (["--synthetic", "x1"], "synthetic='x1'"),
        (["--metric", "acc"], "metric='acc'"),
        (["--repeats", "0"], "--repeats=0"),
        (["--per-class", "100"], "expected at least 125"),
        (["--per-class", "4,4"], "--per-class='4,4'"),
        (["--methods", "vae(latent_dim)"], "methods has 'vae(latent_dim)'"),
        (["--test", "nothing.npz"], "nothing.npz"),
    ],
)
def test_wrong_options_cost_one_line(here, capsys, options, message) -> None:
    assert run(changed(*options)) == 2
    assert message in failure(capsys)
    assert not (here / "s").exists() or not any((here / "s").rglob("*.json"))


def test_tables_have_no_networks(here, capsys) -> None:
    (here / "t.csv").write_text("a,label\n" + "".join(f"{k},{k % 2}\n" for k in range(40)))
    line = ["study", "t.csv", "--out", "t", "--classifiers", "DenseNet"]
    assert run(line) == 2
    assert "expects images or volumes" in failure(capsys)


@pytest.mark.slow
def test_several_sizes_are_compared(here, capsys) -> None:
    options = ["--methods", "noise,vae(latent_dim=2)+normal", "--repeats", "1", "--epochs", "1"]
    assert run(changed(*options, "--per-class", "3,6")) == 0
    out = capsys.readouterr().out
    assert "3 of each class: Do synthetic data help?" in out
    assert "6 of each class: Do synthetic data help?" in out
    with (here / "s" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["per_class"] for row in rows} == {"3", "6"}
    assert {row["method"] for row in rows} == {"", "noise", "vae(latent_dim=2)+normal"}
    html = (here / "s" / "report.html").read_text()
    assert "Scores by number of examples" in html
    assert "--model vae --sampler normal --model-options.latent-dim 2" in html
    assert sorted(path.name for path in (here / "s" / "sizes").iterdir()) == ["3", "6"]
