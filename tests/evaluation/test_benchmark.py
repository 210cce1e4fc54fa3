"""The benchmark: selection by validation, retries, resumption, refusals."""

import json
import math
from dataclasses import replace

import pytest
import torch

from chartae.data import ArrayDataset, digits
from chartae.errors import ConfigurationError, DataError, DivergenceError
from chartae.evaluation import (
    GRIDS,
    BenchmarkResult,
    benchmark,
    benchmark_settings,
    read_grid,
    split_data,
)
from chartae.models import MODELS
from chartae.runs import Row, RunTable

DATA = digits().subset(range(300))
SPLITS = split_data(DATA)
QUICK = {"epochs": 2, "runs": 1, "samplers": ["auto", "mixture"]}


def table(*rows: Row, tmp_path="/nowhere") -> BenchmarkResult:
    return BenchmarkResult(RunTable(rows, tmp_path), None)


def row(model="vae", seed=0, validation=None, test=None, samplers=None, **settings) -> Row:
    return Row(
        {"model": model, "options": {}, "latent_dim": None, "train_size": None, "seed": seed}
        | settings,
        {
            "validation": validation or {},
            "test": test or {},
            "samplers": samplers or {},
            "train_seconds": 1.0,
            "epochs": 2,
            "best_epoch": 2,
            "parameters": 3,
        },
    )


class TestSplit:
    def test_parts_are_disjoint_and_stratified(self) -> None:
        x = torch.arange(100.0)[:, None]
        data = ArrayDataset(x, torch.arange(100) % 4, class_names=tuple("abcd"))
        found = split_data(data, seed=3)
        parts = [found.train, found.validation, found.test]
        assert [len(part) for part in parts] == [60, 20, 20]
        assert torch.cat([part.x for part in parts]).flatten().sort().values.equal(x[:, 0])
        assert all((torch.bincount(part.y) == len(part) / 4).all() for part in parts)
        assert split_data(data, seed=3).test.x.equal(found.test.x)
        assert not split_data(data, seed=4).test.x.equal(found.test.x)

    def test_a_test_set_of_its_own(self) -> None:
        data = ArrayDataset(torch.arange(50.0)[:, None])
        test = ArrayDataset(torch.ones(7, 1))
        found = split_data(data, test=test)
        assert [len(found.train), len(found.validation)] == [40, 10]
        assert found.test is test


class TestSelection:
    """Validation chooses, and the test set reports."""

    def test_the_configuration_with_the_best_validation_figure_is_reported(self) -> None:
        result = table(
            row(options={"beta": 1}, validation={"mse": 0.2}, test={"mse": 0.1}),
            row(options={"beta": 2}, validation={"mse": 0.1}, test={"mse": 0.3}),
            row("ae", validation={"mse": 0.5}, test={"mse": 0.2}),
        )
        best = result.best("mse")
        assert [(e.model, dict(e.options), e.test) for e in best] == [
            ("ae", {}, 0.2),
            ("vae", {"beta": 2}, 0.3),
        ]

    def test_higher_is_better_for_accuracies(self) -> None:
        name = "probe_accuracy"
        result = table(
            row(options={"beta": 1}, validation={name: 0.8}, test={name: 0.7}),
            row(options={"beta": 2}, validation={name: 0.9}, test={name: 0.6}),
            row("ae", validation={name: 0.1}, test={name: 0.65}),
        )
        assert [e.test for e in result.best(name)] == [0.65, 0.6]
        assert [e.test for e in result.entries(name)] == [0.7, 0.65, 0.6]

    def test_seeds_are_averaged_and_samplers_compared(self) -> None:
        def samplers(a: float, b: float) -> dict:
            return {
                "normal": {"validation": {"frechet": a}, "test": {"frechet": a + 1}},
                "mixture": {"validation": {"frechet": b}, "test": {"frechet": b + 1}},
            }

        result = table(row(samplers=samplers(4.0, 3.0)), row(seed=1, samplers=samplers(8.0, 1.0)))
        (best,) = result.best("frechet")
        assert (best.sampler, best.validation, best.test) == ("mixture", 2.0, 3.0)
        assert best.deviation == pytest.approx(math.sqrt(2.0))
        assert len(best.rows) == 2

    def test_a_figure_without_validation_is_compared_on_the_test_set(self) -> None:
        def samplers(value: float) -> dict:
            return {"normal": {"validation": {}, "test": {"prd_f8": value}}}

        result = table(
            row(options={"a": 1}, samplers=samplers(0.4)),
            row(options={"a": 2}, samplers=samplers(0.6)),
        )
        assert [e.test for e in result.best("prd_f8")] == [0.6]
        assert math.isnan(result.best("prd_f8")[0].validation)

    def test_figures_that_were_not_finite_are_left_out(self) -> None:
        result = table(row(test={"psnr": None}), row("ae", test={"psnr": 3.0}))
        assert [e.model for e in result.entries("psnr")] == ["ae"]

    def test_the_tidy_table_has_a_line_for_each_figure(self) -> None:
        result = table(row(validation={"mse": 0.2}, test={"mse": 0.1}))
        lines = {line["metric"]: line for line in result.records()}
        assert (lines["mse"]["validation"], lines["mse"]["test"]) == (0.2, 0.1)
        assert lines["mse"]["task"] == "reconstruction"
        assert lines["train_seconds"]["task"] == "cost"


class TestBenchmark:
    def test_rows_are_kept_and_the_same_call_goes_on(self, tmp_path) -> None:
        settings = benchmark_settings(models=["vae", "ae"], **QUICK)
        first = benchmark(SPLITS, settings[:1], folder=tmp_path, jobs=1)
        both = benchmark(SPLITS, settings, folder=tmp_path, jobs=1)
        assert both.table[0].to_json() == first.table[0].to_json()
        assert not both.table.failed
        assert {e.model for e in both.best("mse")} == {"vae", "ae"}
        pictures = both.pictures(both.table[0])
        assert pictures["samples/normal"].shape == (10, 8, 8)
        assert 0.0 < both.feature_accuracy <= 1.0

    @pytest.mark.slow
    def test_the_same_settings_give_the_same_figures(self, tmp_path) -> None:
        settings = benchmark_settings(models=["vae"], **QUICK)
        one, two = (
            benchmark(SPLITS, settings, folder=tmp_path / name, jobs=1).table[0].figures
            for name in "ab"
        )
        for name in ("validation", "test", "samplers"):
            assert one[name] == two[name]

    def test_a_training_that_diverges_is_repeated_with_a_lower_rate(
        self, tmp_path, monkeypatch
    ) -> None:
        rates = []
        train = benchmark.__globals__["fit"]

        def fit(model, *data, learning_rate, **options):
            rates.append(learning_rate)
            if learning_rate > 1e-3:
                raise DivergenceError("loss is nan")
            return train(model, *data, learning_rate=learning_rate, **options)

        monkeypatch.setitem(benchmark.__globals__, "fit", fit)
        settings = benchmark_settings(models=["ae"], learning_rate=1e-2, **QUICK)
        result = benchmark(SPLITS, settings, folder=tmp_path, jobs=1)
        assert rates == pytest.approx([1e-2, 1e-3])
        assert result.table[0].attempts == 2
        assert all(line["diverged"] for line in result.records())

    @pytest.mark.slow
    def test_training_sizes_are_subsets_of_the_training_set(self, tmp_path) -> None:
        settings = benchmark_settings(models=["ae"], train_sizes=[30, 90], **QUICK)
        result = benchmark(SPLITS, settings, folder=tmp_path, jobs=1)
        assert {e.train_size for e in result.entries("mse")} == {30, 90}

    @pytest.mark.slow
    def test_warnings_of_workers_are_kept(self, tmp_path) -> None:
        settings = benchmark_settings(
            models=["betavae"], grid={"betavae": [{"beta": 1000.0}]}, **QUICK
        )
        result = benchmark(SPLITS, settings, folder=tmp_path, jobs=1)
        assert any("latents" in text for text in result.table[0].figures["warnings"])

    @pytest.mark.parametrize(
        ("settings", "error", "match"),
        [
            ({"models": ["nothing"]}, ConfigurationError, "models='nothing'"),
            ({"models": []}, ConfigurationError, "models is empty"),
            ({"samplers": ["nothing"]}, ConfigurationError, "samplers='nothing'"),
            ({"epochs": 0}, ConfigurationError, "epochs=0"),
            ({"train_sizes": [10**6]}, ConfigurationError, "train_sizes has 1000000"),
            ({"grid": {"vae": [{"beta": 2}]}}, ConfigurationError, "beta is not an argument"),
            ({"grid": {"vae": [{"latent_dim": 0}]}}, ConfigurationError, "latent_dim"),
        ],
    )
    def test_bad_settings_are_refused_before_work(self, settings, error, match, tmp_path) -> None:
        with pytest.raises(error, match=match):
            benchmark(
                SPLITS,
                benchmark_settings(**{"models": ["vae"], **QUICK, **settings}),
                folder=tmp_path,
                jobs=1,
            )
        assert not list(tmp_path.iterdir())

    def test_a_conditional_model_needs_labels(self, tmp_path) -> None:
        splits = split_data(ArrayDataset(DATA.x))
        with pytest.raises(DataError, match="'cvae' needs labels"):
            benchmark(splits, benchmark_settings(models=["cvae"]), folder=tmp_path, jobs=1)

    def test_a_report_needs_a_test_set(self, tmp_path) -> None:
        splits = replace(SPLITS, test=None)
        with pytest.raises(DataError, match="splits has no test set"):
            benchmark(splits, benchmark_settings(models=["ae"]), folder=tmp_path / "b", jobs=1)
        assert not list(tmp_path.iterdir())

    def test_other_data_are_refused(self, tmp_path) -> None:
        settings = benchmark_settings(models=["ae"], **QUICK)
        benchmark(SPLITS, settings, folder=tmp_path, jobs=1)
        with pytest.raises(ConfigurationError, match="expected another folder"):
            benchmark(split_data(DATA, seed=1), settings, folder=tmp_path, jobs=1)


class TestGrids:
    @pytest.mark.slow
    def test_every_configuration_of_the_thesis_makes_a_model(self) -> None:
        for name, configurations in GRIDS["thesis"].items():
            for options in configurations:
                MODELS[name]((1, 28, 28), 64 if name == "vqvae" else 16, **options)

    def test_it_has_the_configurations_of_the_tables(self) -> None:
        thesis = GRIDS["thesis"]
        counts = {name: len(configurations) for name, configurations in thesis.items()}
        assert counts["vamp"] == counts["iwae"] == counts["betavae"] == 10
        assert counts["wae"] == counts["infovae"] == counts["rae"] == 20
        # slips of Tables 4.8 and 4.20
        assert [c["num_pseudo_inputs"] for c in thesis["vamp"]][3] == 50
        assert [c["num_codes"] for c in thesis["vqvae"]][-1] == 2048
        # slip of Table 4.15: the weight of the MMD is never negative
        assert all(c["weight"] + c["alpha"] > 1.0 for c in thesis["infovae"])

    def test_grids_of_files(self, tmp_path) -> None:
        path = tmp_path / "grid.toml"
        path.write_text("betavae = [{beta = 2}, {beta = 4.5}]\nvae = [{}]\n")
        assert read_grid(str(path)) == {"betavae": [{"beta": 2}, {"beta": 4.5}], "vae": [{}]}
        path = tmp_path / "grid.json"
        path.write_text(json.dumps({"vae": [{}]}))
        assert read_grid(str(path)) == {"vae": [{}]}

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("vae = [", "cannot be read"),
            ("vae = 3", "expected a list of tables"),
            ("vae = []", "expected a list of tables"),
            ("other = [{}]", "the model in grid"),
            ("", "expected lists of configurations"),
        ],
    )
    def test_bad_files_are_refused(self, text, match, tmp_path) -> None:
        path = tmp_path / "grid.toml"
        path.write_text(text)
        with pytest.raises(ConfigurationError, match=match):
            read_grid(str(path))
        with pytest.raises(ConfigurationError, match="cannot be read"):
            read_grid(str(tmp_path / "none.toml"))
        with pytest.raises(ConfigurationError, match="grid='other'"):
            read_grid("other")
