"""The subcommands ``evaluate`` and ``benchmark``."""

import csv
import json

import numpy as np
import pytest

from chartae.cli import run
from chartae.cli.benchmark import COMMON
from chartae.data import ArrayDataset, digits, write_npz
from chartae.models import MODELS

QUICK = ["--epochs", "1", "--jobs", "1", "--tasks", "reconstruction,generation,classification"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_npz(folder / "digits.npz", digits().subset(range(200)))
    write_npz(folder / "test.npz", digits().subset(range(200, 300)))
    return folder


@pytest.fixture
def here(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("digits.npz", "test.npz"):
        (tmp_path / name).write_bytes((data / name).read_bytes())
    return tmp_path


def failure(capsys) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


class TestBenchmark:
    LINE = ("benchmark", "digits.npz", "--models", "vae,ae", "--out", "b", *QUICK)

    def test_report_and_table(self, here, capsys) -> None:
        assert run(self.LINE) == 0
        out = capsys.readouterr().out
        assert "Which model reconstructs best?" in out
        assert "Which model and sampler generate best?" in out
        html = (here / "b" / "report.html").read_text()
        assert "Equally good" in html or "Next best:" in html
        assert html.count("data:image/png") == 2  # reconstructions and samples
        assert 'class="sortable"' in html
        assert "--row" in html
        with (here / "b" / "results.csv").open() as file:
            lines = list(csv.DictReader(file))
        assert {line["model"] for line in lines} == {"vae", "ae"}
        assert {line["sampler"] for line in lines} == {"", "normal", "mixture"}
        assert (here / "b" / "results.parquet").exists()
        record = json.loads((here / "b" / "benchmark.json").read_text())
        assert record["benchmark"]["models"] == "vae,ae"

    @pytest.mark.slow
    def test_it_goes_on_and_adds_models(self, here, capsys, monkeypatch) -> None:
        assert run(self.LINE) == 0
        rows = {path.name: path.read_bytes() for path in (here / "b" / "rows").iterdir()}
        more = [part.replace("vae,ae", "vae,ae,wae") for part in self.LINE]
        assert run(more) == 0
        after = {path.name: path.read_bytes() for path in (here / "b" / "rows").iterdir()}
        assert len(after) == 3
        assert rows.items() <= after.items()

    @pytest.mark.slow
    def test_one_row_again(self, here, capsys) -> None:
        assert run(self.LINE) == 0
        (key, other) = sorted(path.stem for path in (here / "b" / "rows").iterdir())
        before = {k: (here / "b" / "rows" / f"{k}.json").read_text() for k in (key, other)}
        capsys.readouterr()
        assert run(["benchmark", "digits.npz", "--config", "b/benchmark.json", "--row", key]) == 0
        figures = json.loads(capsys.readouterr().out)
        assert figures["test"] == json.loads(before[key])["figures"]["test"]
        after = {k: (here / "b" / "rows" / f"{k}.json").read_text() for k in (key, other)}
        assert after[other] == before[other]
        assert after[key] != before[key]  # its seconds differ

    def test_without_labels(self, here, capsys) -> None:
        np.savez("bare.npz", x=np.random.default_rng(0).random((60, 4, 4), dtype=np.float32))
        assert run(["benchmark", "bare.npz", "--models", "ae", "--out", "b", *QUICK]) == 0
        assert "no labels" in (here / "b" / "report.html").read_text()

    @pytest.mark.slow
    def test_a_budget_leaves_runs_out(self, here, capsys) -> None:
        assert run([*self.LINE, "--budget", "0.001s"]) == 0
        assert "1 run did not fit into the budget" in capsys.readouterr().out

    @pytest.mark.slow
    def test_a_test_set_of_its_own(self, here) -> None:
        assert run([*self.LINE, "--test", "test.npz"]) == 0
        assert (
            "160 for training, 40 for validation, 100 for test"
            in (here / "b" / "report.html").read_text()
        )

    @pytest.mark.parametrize(
        ("extra", "match"),
        [
            (["--models", "nothing"], "--models='nothing'"),
            (["--models", "vae,"], "--models='vae,'"),
            (["--samplers", "nothing"], "--samplers='nothing'"),
            (["--grid", "none.toml"], "none.toml"),
            (["--latent-dims", "8,x"], "--latent-dims='8,x'"),
            (["--budget", "30"], "--budget='30': expected a time, as in 90s, 30m or 2h"),
            (["--row", "0"], "--row='0'"),
            (["--seeds", "0"], "--seeds=0"),
            (["--scheduler", "tcp://127.0.0.1:1"], "does not answer"),
            (["--test", "none.npz"], "none.npz"),
            (["--train-sizes", "1000"], "--train-sizes has 1000"),
        ],
    )
    def test_bad_usage_is_refused_before_work(
        self, extra, match, here, capsys, monkeypatch
    ) -> None:
        monkeypatch.setattr("chartae.runs.execution.CONNECTION", 0.5)
        line = list(self.LINE)
        if extra[0] == "--models":
            line[line.index("vae,ae")] = extra[1]
            extra = []
        assert run([*line, *extra]) == 2
        assert match in failure(capsys)
        assert not (here / "b" / "rows").exists() or not list((here / "b" / "rows").iterdir())

    @pytest.mark.slow
    def test_a_folder_of_other_data_is_refused(self, here, capsys) -> None:
        assert run(self.LINE) == 0
        capsys.readouterr()
        assert run([*self.LINE, "--seed", "1"]) == 2
        assert "expected another folder" in failure(capsys)

    def test_the_common_models_exist(self) -> None:
        assert set(COMMON.split(",")) <= set(MODELS)


class TestEvaluate:
    @pytest.fixture
    def model(self, here):
        assert run(["train", "digits.npz", "--out", "m", "--epochs", "1"]) == 0
        return here

    def test_report(self, model, capsys) -> None:
        capsys.readouterr()
        line = ["evaluate", "m", "test.npz", "--train", "digits.npz", "--out", "e.html"]
        assert run(line) == 0
        out = capsys.readouterr().out
        assert "mean squared error: " in out
        assert "lower is better" in out
        html = (model / "e.html").read_text()
        assert '<th scope="row">Frechet distance</th><td class="text">normal</td>' in html
        for question in ("How good are reconstructions?", "Are samples copies?"):
            assert question in html.split("What was done")[0]
        assert html.count("data:image/png") == 1

    @pytest.mark.slow
    def test_figures(self, model) -> None:
        line = ["evaluate", "m", "test.npz", "--out", "e.json", "--samplers", "normal,mixture"]
        assert run(line) == 0
        found = json.loads((model / "e.json").read_text())
        assert set(found["samplers"]) == {"normal", "mixture"}
        assert found["figures"]["test"]["mse"] > 0.0

    @pytest.mark.slow
    def test_a_conditional_model(self, here) -> None:
        line = ["train", "digits.npz", "--out", "c", "--epochs", "1", "--conditional"]
        assert run(line) == 0
        assert run(["evaluate", "c", "digits.npz", "--out", "e.json"]) == 0
        assert "conditions" in json.loads((here / "e.json").read_text())["skipped"]["interpolation"]

    def test_without_labels(self, model) -> None:
        write_npz(model / "bare.npz", ArrayDataset(digits().x[:100]))
        assert run(["evaluate", "m", "bare.npz", "--out", "e.json"]) == 0
        skipped = json.loads((model / "e.json").read_text())["skipped"]
        assert skipped == {"classification": "no labels", "clustering": "no labels"}

    @pytest.mark.parametrize(
        ("line", "match"),
        [
            (["none", "test.npz", "--out", "e.html"], "expected the folder of a trained model"),
            (["m", "test.npz", "--out", "e.txt"], "ends in .html or .json"),
            (["m", "small.npz", "--out", "e.html"], "shape"),
            (["m", "test.npz", "--out", "e.html", "--tasks", "x"], "--tasks='x'"),
        ],
    )
    def test_bad_usage(self, line, match, model, capsys) -> None:
        np.savez("small.npz", x=np.random.default_rng(0).random((60, 4, 4), dtype=np.float32))
        capsys.readouterr()
        assert run(["evaluate", *line]) == 2
        assert match in failure(capsys)
        assert not (model / "e.html").exists()
