"""The subcommands for individuals with several visits."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import chartae
from chartae.cli import run
from chartae.data import Sequences, raising_arms, read_sequences, write_sequences
from chartae.longitudinal import FlowVAE, TrajectoryVAE

QUICK = ["--longitudinal", "--epochs", "1", "--latent-dim", "2"]


def scores() -> Sequences:
    """Ten individuals with two scores, some not observed, and an arm of a trial."""
    generator = torch.Generator().manual_seed(0)
    times = torch.rand(10, 4, generator=generator).cumsum(1)
    x = torch.randn(10, 4, 2, generator=generator)
    mask = torch.rand(x.shape, generator=generator) > 0.25
    mask[:, 0] = True
    arms = ["placebo", "drug"] * 5
    return Sequences(
        x,
        times=times,
        mask=mask,
        ids=[f"p{k}" for k in range(10)],
        covariates=arms,
        covariate_names=["arm"],
        columns=["memory", "speed"],
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with data and the models trained on them, made once."""
    folder = tmp_path_factory.mktemp("followups")
    write_sequences(folder / "scores.csv", scores())
    write_sequences(folder / "scores.npz", scores())
    figures = raising_arms(6, 4, shape=(16, 16), seed=0)
    write_sequences(folder / "figures", figures)
    write_sequences(folder / "figures.npz", figures)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        given = ["--covariates", "arm", "--conditional", "--validation", "0.3"]
        assert run(["train", "scores.csv", "--out", "m", *QUICK, *given]) == 0
        line = ["train", "figures", "--out", "pictures", *QUICK, "--model", "trajectoryvae"]
        assert run(line) == 0
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """A copy of that folder, as the working directory."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def call(line: str) -> int:
    return run(line.split())


def table(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def refused(line: str, capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """Run a command line that must fail with one line, and return the line."""
    assert call(line) == code
    (message,) = capsys.readouterr().err.strip().splitlines()
    assert message.startswith("chartae: ")
    return message


@pytest.mark.usefixtures("here")
class TestTrain:
    def test_keeps_the_model_and_its_report(self):
        model = chartae.load("m")
        assert isinstance(model, FlowVAE)
        assert (model.conditions, model.input_shape) == (2, (2,))
        assert isinstance(chartae.load("pictures"), TrajectoryVAE)
        page = Path("m/report.html").read_text("utf-8")
        assert "3 individuals that the FlowVAE has not seen in training" in page
        pictures = Path("pictures/report.html").read_text("utf-8")
        assert "because none were held out" in pictures
        assert "Other delays, other speeds" in pictures
        assert "Other delays, other speeds" not in page

    def test_scores_have_a_linear_model_by_default(self):
        model = chartae.load("m")
        assert isinstance(model, FlowVAE)
        assert model.config()["inference"] == "laplace"
        assert model.config()["flow"] == {"name": "rotation", "lines": 1}

    @pytest.mark.slow
    def test_options_choose_another_model(self):
        neural = ["--decoder", "mlp", "--model-options.flow", "time"]
        given = ["--model-options.inference", "set"]
        assert (
            run(
                [
                    "train",
                    "scores.csv",
                    "--out",
                    "n",
                    *QUICK,
                    "--covariates",
                    "arm",
                    *neural,
                    *given,
                ]
            )
            == 0
        )
        model = chartae.load("n")
        assert (model.config()["flow"], model.config()["inference"]) == ("time", "set")
        options = json.loads(Path("n/train.json").read_text())["train"]
        assert options["batch_size"] == 32

    def test_one_latent_has_no_line(self):
        line = ["train", "scores.csv", "--out", "one", "--longitudinal", "--epochs", "1"]
        assert run([*line, "--covariates", "arm", "--latent-dim", "1"]) == 0
        assert chartae.load("one").config()["flow"]["lines"] == 0

    def test_the_record_lists_options_and_files(self):
        record = json.loads(Path("m/train.json").read_text())
        options = record["train"]
        assert (options["model"], options["covariates"]) == ("flowvae", "arm")
        assert (options["epochs"], options["batch_size"]) == (1, 1024)
        assert {"report.html", "model.safetensors"} <= set(record["files"])

    @pytest.mark.slow
    def test_is_repeated_from_what_it_wrote(self):
        assert run(["train", "--config", "m/train.json", "--out", "again"]) == 0
        first, again = (chartae.load(folder).state_dict() for folder in ("m", "again"))
        assert all(torch.equal(first[name], again[name]) for name in first)

    @pytest.mark.slow
    def test_more_epochs_with_resume(self, capsys):
        given = "--covariates arm --conditional --validation 0.3 --latent-dim 2 --epochs 2"
        assert call(f"train scores.csv --out m --longitudinal {given} --resume") == 0
        assert "2 epochs" in capsys.readouterr().out
        assert "report.html" in json.loads(Path("m/train.json").read_text())["files"]

    def test_individuals_are_split_not_visits(self, capsys):
        assert run(["train", "scores.npz", "--out", "n", *QUICK, "--validation", "0.4"]) == 0
        assert "trained on 6 individuals" in capsys.readouterr().out
        assert chartae.load("n").conditions is None  # covariates are used with --conditional

    def test_without_a_second_visit_there_is_no_report(self, capsys):
        x = np.random.default_rng(0).random((4, 1, 2))
        write_sequences("single.npz", Sequences(x, times=np.zeros((4, 1))))
        assert run(["train", "single.npz", "--out", "s", *QUICK]) == 0
        assert "no report: no individual has two observed visits" in capsys.readouterr().out
        assert not Path("s/report.html").exists()

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("scores.csv --out n", "expected --longitudinal with it"),
            ("scores.csv --out n --longitudinal", "'arm' that are not numbers"),
            ("scores.npz --out n --longitudinal --conditional --model vae", "bubblevae"),
            ("scores.npz --out n --longitudinal --label-column arm", "--label-column='arm' is not"),
            ("scores.npz --out n --longitudinal --scores a", "not an option of a npz source"),
            ("figures --out n --longitudinal --conditional", "expects --covariates"),
            ("scores.npz --out n --longitudinal --validation 1.5", "--validation=1.5"),
            ("nowhere.npz --out n --longitudinal", "nowhere.npz"),
            ("scores.csv --out m --longitudinal --covariates arm", "expected --overwrite"),
            ("scores.npz --out new/n --longitudinal --batch-size 0", "--batch-size=0"),
            ("scores.npz --out new/n --longitudinal --device tpu", "--device='tpu'"),
        ],
    )
    def test_bad_input_is_refused_with_words_and_leaves_no_folder(self, line, message, capsys):
        before = {*Path().rglob("*")}
        given = "--scores memory " if message == "expected --longitudinal with it" else ""
        assert message in refused(f"train {given}{line}", capsys)
        assert {*Path().rglob("*")} == before

    def test_an_empty_folder_of_the_user_stays(self, capsys):
        Path("mine").mkdir()
        refused("train nowhere.npz --out mine/n --longitudinal", capsys)
        assert Path("mine").is_dir()
        assert not Path("mine/n").exists()

    def test_too_few_individuals_to_hold_out(self, capsys):
        write_sequences("two.npz", scores().subset([0, 1]))
        line = "train two.npz --out n --longitudinal --validation 0.5"
        assert "2 individuals: expected at least 3" in refused(line, capsys)


@pytest.mark.usefixtures("here")
@pytest.mark.slow
class TestImpute:
    @pytest.mark.parametrize("source", ["scores.csv", "scores.npz"])
    def test_a_table_has_values_and_intervals(self, source, capsys):
        assert run(["impute", "m", source, "--out", "out.csv", "--draws", "20"]) == 0
        data, rows = scores(), table("out.csv")
        assert len(rows) == len(table("scores.csv")) == 40
        assert list(rows[0])[:4] == ["individual", "time", "arm", "memory"]
        assert [row["arm"] for row in rows[::4]] == ["placebo", "drug"] * 5
        known = data.known.flatten(0, 1)
        for row, values, seen in zip(rows, data.x.flatten(0, 1), known, strict=True):
            for name, value, was_seen in zip(("memory", "speed"), values, seen, strict=True):
                low, middle, high = (row[f"{name}{end}"] for end in ("_lower", "", "_upper"))
                if was_seen:  # then it has no interval
                    assert (low, high) == ("", "")
                    assert float(middle) == pytest.approx(float(value), abs=1e-6)
                else:
                    assert float(low) < float(high)
                    assert float(low) <= float(middle) <= float(high)
        missing = int((~data.known.all(-1)).sum())
        assert f"{missing} of 40 visits of 10 individuals completed" in capsys.readouterr().out

    def test_outputs_with_one_stem_have_their_own_records(self):
        for out in ("out.csv", "out.npz"):
            assert call(f"impute m scores.csv --out {out} --draws 2") == 0
        for out in ("out.csv", "out.npz"):
            assert call(f"impute m scores.csv --out {out} --draws 2 --overwrite") == 0
            assert list(json.loads(Path(f"{out}.json").read_text())["files"]) == [out]

    def test_it_can_be_read_again(self):
        assert run(["impute", "m", "scores.csv", "--out", "out.csv", "--draws", "3"]) == 0
        again = read_sequences("out.csv", scores=["memory", "speed"], covariates=["arm"])
        data = scores()
        assert again.ids == data.ids
        assert bool(again.known.all())
        torch.testing.assert_close(again.x[data.known], data.x[data.known])
        torch.testing.assert_close(again.times, data.times)

    def test_an_archive_has_everything(self):
        line = "impute m scores.npz --out out.npz --draws 7 --level 0.5 --keep-draws --seed 3"
        assert call(line) == 0
        data, found = scores(), dict(np.load("out.npz"))
        assert found["draws"].shape == (7, 10, 4, 2)
        assert np.array_equal(found["imputed"], ~data.known.numpy())
        low, high = np.quantile(found["draws"], [0.25, 0.75], axis=0)
        assert np.allclose(found["lower"], low, atol=1e-6)
        assert np.allclose(found["upper"], high, atol=1e-6)
        hidden = found["imputed"]
        assert np.allclose(found["x"][hidden], found["draws"].mean(0)[hidden], atol=1e-6)

    def test_how_chooses_the_value(self):
        values = {}
        for how in ("best", "resample", "naive"):
            line = f"impute m scores.npz --out {how}.npz --draws 9 --how {how} --keep-draws"
            assert call(line) == 0
            values[how] = dict(np.load(f"{how}.npz"))
        hidden = values["best"]["imputed"]
        assert np.allclose(
            values["naive"]["x"][hidden], values["naive"]["draws"][0][hidden], atol=1e-6
        )
        best = np.abs(values["best"]["draws"] - values["best"]["x"])
        assert (best.reshape(9, 10, -1).max(-1).min(0) < 1e-6).all()  # one draw per individual

    def test_images_have_the_best_draw_and_a_warning_if_weights_leave_few(self, capsys):
        assert call("impute pictures figures.npz --out one.npz --draws 9 --keep-draws") == 0
        assert "weights" not in capsys.readouterr().err
        assert np.load("one.npz")["draws"].shape == (9, 6, 4, 16, 16)
        assert (
            call("futures pictures figures.npz --times 4 --out f.npz --draws 9 --keep-draws") == 0
        )
        found = np.load("f.npz")
        apart = np.abs(found["draws"].astype(int) - found["x"].astype(int)).reshape(9, 6, -1)
        assert (apart.max(-1).min(0) == 0).all()
        line = "impute pictures figures.npz --out two.npz --draws 9 --how resample"
        assert call(line) == 0
        assert "were tempered" in capsys.readouterr().err

    def test_a_folder_of_images(self):
        rows = table("figures/visits.csv")
        with Path("figures/visits.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows({**row, "file": ""} if k == 1 else row for k, row in enumerate(rows))
        assert run(["impute", "pictures", "figures", "--out", "out", "--draws", "4"]) == 0
        found, before = read_sequences("out"), read_sequences("figures")
        assert int(found.observed.sum()) == 24
        assert int(before.observed.sum()) == 23
        assert torch.equal(found.x[before.observed], before.x[before.observed])
        assert float(found.x[~before.observed].std()) > 0.0

    def test_classes_are_matched_by_name(self):
        """A file in which the first class is another one gives the same imputations."""
        data = scores()
        only = data.subset(data.y == data.class_names.index("placebo"))
        table_of = "\n".join(
            line for line in Path("scores.csv").read_text().splitlines() if "drug" not in line
        )
        Path("placebo.csv").write_text(table_of + "\n")
        assert call("impute m placebo.csv --out one.npz --draws 5") == 0
        write_sequences("other.npz", only)
        assert call("impute m other.npz --out two.npz --draws 5") == 0
        one, two = np.load("one.npz")["x"], np.load("two.npz")["x"]
        assert np.allclose(one, two, atol=1e-6)

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("m scores.csv --out out.png", "ends in .npz or .csv"),
            ("m scores.csv --out out", "not images"),
            ("pictures figures --out out.csv", "are not rows of a table"),
            ("m figures.npz --out out.npz", "the model expects (2,)"),
            ("m scores.csv --out out.csv --how guess", "--how='guess'"),
            ("m scores.csv --out out.csv --draws 0", "--draws=0"),
            ("m scores.csv --out out.csv --level 1", "--level=1"),
            ("m scores.csv --out out.csv --keep-draws", "cannot store draws"),
            ("m scores.csv --out scores.csv", "input"),
            ("nowhere scores.csv --out out.csv", "expected the folder of a trained model"),
            ("m nowhere.csv --out out.csv", "nowhere.csv"),
        ],
    )
    def test_bad_input_is_refused_with_words(self, line, message, capsys):
        assert message in refused(f"impute {line}", capsys)
        assert not Path("out.csv").exists()
        assert not Path("out.npz").exists()

    def test_data_that_do_not_fit_are_refused(self, capsys):
        text = Path("scores.csv").read_text()
        Path("renamed.csv").write_text(text.replace("speed", "pace"))
        assert "speed" in refused("impute m renamed.csv --out out.csv", capsys)
        Path("other.csv").write_text(text.replace("placebo", "sugar"))
        assert "'sugar'" in refused("impute m other.csv --out out.csv", capsys)
        bare = scores()
        write_sequences(
            "bare.npz", Sequences(bare.x, times=bare.times, columns=["memory", "speed"])
        )
        assert "no covariates" in refused("impute m bare.npz --out out.csv", capsys)
        write_sequences(
            "turned.npz", Sequences(bare.x, times=bare.times, columns=["speed", "memory"])
        )
        assert "the model expects ['memory', 'speed']" in refused(
            "impute m turned.npz --out out.csv", capsys
        )

    @pytest.mark.parametrize("names", [["a"], "ab", 3])
    def test_damaged_names_of_columns_are_refused(self, names, capsys):
        model = chartae.load("m")
        model.metadata = {**model.metadata, "key_columns": names}
        model.save_pretrained("odd")
        assert "is damaged" in refused("impute odd scores.csv --out out.csv", capsys, code=1)

    def test_damaged_files_are_refused(self, capsys):
        Path("broken.npz").write_bytes(Path("scores.npz").read_bytes()[:200])
        assert "broken.npz" in refused("impute m broken.npz --out out.npz", capsys)
        Path("m/model.safetensors").write_bytes(b"nothing")
        refused("impute m scores.csv --out out.csv", capsys, code=1)

    def test_outputs_are_replaced_only_if_asked(self, capsys):
        line = "impute m scores.csv --out out.csv --draws 2"
        assert call(line) == 0
        assert "expected --overwrite" in refused(line, capsys)
        first = Path("out.csv").read_text()
        assert run([*line.split(), "--overwrite", "--seed", "5"]) == 0
        assert Path("out.csv").read_text() != first

    def test_a_model_of_single_observations_is_refused(self, capsys):
        chartae.VAE((2,), latent_dim=2).save_pretrained("single")
        message = refused("impute single scores.csv --out out.csv", capsys)
        assert "has a VAE: expected a model of follow-ups" in message
        assert "model of follow-ups" in refused("sample m --out out.npz", capsys)


@pytest.mark.usefixtures("here")
def test_columns_keep_the_names_that_they_have_in_the_table():
    rows = Path("scores.csv").read_text().splitlines()
    header = rows[0].replace("individual", "patient").replace("time", "years")
    Path("own.csv").write_text("\n".join([header, *rows[1:]]))
    line = "train own.csv --out own --individual patient --time years --covariates arm"
    assert run([*line.split(), *QUICK]) == 0
    assert call("generate own --times 0,1 --n 3 --out new.csv") == 0
    assert call("impute own own.csv --out full.csv --draws 2") == 0
    assert call("futures own new.csv --times 3 --out later.csv --draws 2") == 0
    for path in ("new.csv", "full.csv", "later.csv"):
        assert [*table(path)[0]][:2] == ["patient", "years"]


@pytest.mark.usefixtures("here")
@pytest.mark.slow
class TestFutures:
    def test_at_given_times(self):
        line = "futures m scores.csv --out out.csv --times 1,2.5 --first 2 --draws 10"
        assert call(line) == 0
        rows = table("out.csv")
        assert [float(row["time"]) for row in rows] == [1.0, 2.5] * 10
        assert rows[0]["individual"] == rows[1]["individual"] == "p0"
        assert all(float(row["speed_lower"]) < float(row["speed_upper"]) for row in rows)

    def test_after_the_last_visit(self):
        line = "futures m scores.csv --out out.csv --after 1,2 --first 2 --draws 4"
        assert call(line) == 0
        found = torch.tensor([float(row["time"]) for row in table("out.csv")]).reshape(10, 2)
        used = scores().first(2)
        last = torch.where(used.observed, used.times, -torch.inf).amax(1)
        torch.testing.assert_close(found.double(), last[:, None] + torch.tensor([1.0, 2.0]))

    def test_later_visits_have_no_influence(self):
        assert call("futures m scores.npz --out a.npz --times 3 --first 2 --draws 4") == 0
        write_sequences("short.npz", scores().first(2))
        assert call("futures m short.npz --out b.npz --times 3 --draws 4") == 0
        assert np.array_equal(np.load("a.npz")["x"], np.load("b.npz")["x"])

    def test_images(self):
        line = "futures pictures figures.npz --out out.npz --times 4,5 --draws 3 --keep-draws"
        assert call(line) == 0
        found = np.load("out.npz")
        assert found["x"].shape == (6, 2, 16, 16)
        assert found["draws"].shape == (3, 6, 2, 16, 16)
        assert "imputed" not in found

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("", "expected one of --times and --after"),
            ("--times 1 --after 1", "expected one of --times and --after"),
            ("--times one", "--times='one': expected numbers"),
            ("--times 1,,2", "--times='1,,2'"),
            ("--times 1,1", "all different"),
            ("--times inf", "--times=inf"),
            ("--times 1 --first 0", "--first=0"),
        ],
    )
    def test_bad_input_is_refused_with_words(self, line, message, capsys):
        assert message in refused(f"futures m scores.csv --out out.csv {line}", capsys)


@pytest.mark.usefixtures("here")
class TestGenerate:
    def test_individuals_of_each_class(self, capsys):
        assert call("generate m --times 0,1,3 --n 4 --out out.csv") == 0
        rows = table("out.csv")
        assert [float(row["time"]) for row in rows] == [0.0, 1.0, 3.0] * 4
        assert [row["arm"] for row in rows[::3]] == ["drug", "drug", "placebo", "placebo"]
        assert "4 individuals with 3 visits each: out.csv" in capsys.readouterr().out

    def test_of_one_class(self):
        assert call("generate m --times 0 --n 3 --label placebo --out out.npz") == 0
        found = read_sequences("out.npz")
        assert [found.class_names[k] for k in found.y] == ["placebo"] * 3
        assert found.form.columns == ("memory", "speed")

    def test_given_numbers(self):
        assert run(["train", "figures.npz", "--out", "given", *QUICK, "--conditional"]) == 0
        line = "generate given --times=-1,2 --n 3 --covariates 1,0.5,0.9,0.1 --out out.npz"
        assert call(line) == 0
        found = read_sequences("out.npz")
        assert found.covariate_names == ("speed", "delay", "size", "stance")
        assert found.y[2].tolist() == pytest.approx([1.0, 0.5, 0.9, 0.1])
        assert call("futures given figures.npz --times 4 --draws 2 --out f.npz") == 0

    def test_images_as_a_folder_and_as_a_figure(self):
        assert call("generate pictures --times 0,1 --n 3 --out out") == 0
        assert read_sequences("out").x.shape == (3, 2, 16, 16)
        assert call("generate pictures --times 0,1 --n 3 --out sheet.png") == 0
        assert Path("sheet.png").read_bytes().startswith(b"\x89PNG")

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("pictures --times 0 --label a", "has no classes"),
            ("pictures --times 0 --covariates 1", "no numbers as conditions"),
            ("m --times 0 --label water", "'water'"),
            ("m --times x", "--times='x'"),
            ("m --times 0 --n 0", "--n=0"),
        ],
    )
    def test_bad_input_is_refused_with_words(self, line, message, capsys):
        assert message in refused(f"generate {line} --out out.npz", capsys)
