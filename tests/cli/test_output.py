"""Files are never lost: an output is no input, and replaces only what the command wrote."""

import contextlib
import functools
import io
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import chartae
import chartae.training
from chartae.cli import run
from chartae.cli.output import Outputs
from chartae.data import read_data, read_images, read_table
from chartae.errors import ConfigurationError

QUICK = ["--model", "vae", "--sampler", "normal", "--epochs", "1", "--per-class", "2"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with data: an archive, a table, a folder of images."""
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).integers(0, 256, (6, 4, 4), dtype=np.uint8)
    np.savez("data.npz", x=x, y=np.array(["cat", "dog"])[[0, 0, 0, 1, 1, 1]])
    rows = [f"0.{k},0.{9 - k},{'uv'[k % 2]}" for k in range(6)]
    Path("table.csv").write_text("\n".join(["a,b,label", *rows]))
    for number, image in enumerate(x):
        folder = Path("scans", ("cat", "dog")[number // 3])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    return tmp_path


def contents(folder):
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in Path(folder).rglob("*")
        if file.is_file()
    }


def augment(*options):
    return run(["augment", *map(str, options), *QUICK])


# --- an output is never an input ------------------------------------------------------------------


@pytest.mark.parametrize(
    "out",
    ["data.npz", "./data.npz", "scans/../data.npz", "link.npz", "hard.npz", "{here}/data.npz"],
)
@pytest.mark.parametrize("data", ["data.npz", "link.npz"])
@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_no_spelling_of_a_path_makes_an_input_an_output(here, out, data, overwrite, capsys):
    Path("link.npz").symlink_to("data.npz")
    os.link("data.npz", "hard.npz")
    before = contents(here)
    assert augment(data, "--out", out.format(here=here), *overwrite) == 2
    assert "over the input" in capsys.readouterr().err
    assert contents(here) == before
    assert Path("link.npz").is_symlink()


@given(
    st.lists(st.sampled_from([".", "sub", "..", "sub/..", "../{root}"]), max_size=5),
    st.sampled_from(["data.npz", "link.npz"]),
)
def test_any_way_round_leads_to_the_same_place(steps, name):
    with tempfile.TemporaryDirectory() as root, contextlib.chdir(root):
        Path("sub").mkdir()
        Path("data.npz").write_bytes(b"mine")
        Path("link.npz").symlink_to("data.npz")
        path = Path(*[step.format(root=Path(root).name) for step in steps], name)
        if path.exists():
            given = {"overwrite": True}
            outputs = Outputs("x", Path("r.json"), given, inputs=[Path("data.npz")])
            with pytest.raises(ConfigurationError, match="over the input"):
                outputs.claim(path)


@pytest.mark.parametrize(
    "command",
    [
        "train scans --out scans --epochs 1",
        "train scans --out scans/model --epochs 1",
        "train scans --out . --epochs 1 --config scans/cat/config.json",
        "augment scans --out scans",
        "augment scans --out scans/new.npz",
        "augment scans --out scans/cat/0.npz",
    ],
)
def test_a_folder_of_data_stays_as_it_is(here, command):
    before = contents(here)
    assert run(command.split()) == 2
    assert contents(here) == before
    assert len(read_images("scans")) == 6


def test_what_is_read_beside_the_data_is_an_input_too(here):
    Path("new.json").write_text(json.dumps({"augment": {"per_class": 2}}))
    np.save("x.npy", np.zeros((4, 2), dtype=np.float32))
    Path("y.csv").write_text("u\nu\nv\nv\n")
    before = contents(here)
    assert run(["augment", "data.npz", "--out", "new.npz", "--config", "new.json"]) == 2
    assert run(["augment", "x.npy", "--labels", "y.csv", "--out", "y.csv"]) == 2
    assert contents(here) == before


# --- what others wrote is never replaced ----------------------------------------------------------


@pytest.mark.parametrize("mine", ["study.npz", "study.json", "study.html", "study-models/a.txt"])
@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_files_of_others_are_refused_by_name(here, mine, overwrite, capsys):
    Path(mine).parent.mkdir(exist_ok=True)
    Path(mine).write_text("mine")
    before = contents(here)
    assert augment("data.npz", "--out", "study.npz", "--report", *overwrite) == 2
    assert f"{mine}' was not written by this command" in capsys.readouterr().err
    assert contents(here) == before


@pytest.mark.parametrize("mine", ["new.npz", "new.json", "new-models/a.txt"])
def test_resuming_replaces_no_file_of_others(here, mine):
    Path(mine).parent.mkdir(exist_ok=True)
    Path(mine).write_text("mine")
    before = contents(here)
    assert augment("data.npz", "--out", "new.npz", "--resume") == 2
    assert contents(here) == before


def test_resuming_what_was_finished_does_it_again(here):
    for out in ("new.npz", "folder"):
        assert augment("scans", "--out", out) == 0
        assert augment("scans", "--out", out, "--resume", "--include-real") == 0
    assert len(read_images("folder")) == len(read_data("new.npz")) == 10


def test_a_record_speaks_of_no_file_elsewhere(here):
    assert augment("data.npz", "--out", "sub/new.npz") == 0
    record = json.loads(Path("sub/new.json").read_text())
    (digest,) = [d for name, d in record["files"].items() if name == "new.npz"]
    Path("precious.npz").write_bytes(Path("sub/new.npz").read_bytes())
    record["files"] |= {"../precious.npz": digest, str(here / "precious.npz"): digest}
    Path("sub/new.json").write_text(json.dumps(record))
    assert augment("data.npz", "--out", "sub/new.npz", "--overwrite") == 0
    assert Path("precious.npz").exists()


def test_replacing_never_removes_an_input(here, capsys):
    """The earlier run's file is what this run reads, and its record that of both."""
    assert augment("data.npz", "--out", "new.npz") == 0
    before = contents(here)
    assert augment("new.npz", "--out", "new", "--overwrite") == 2
    assert "'new.npz' of the earlier run would be removed" in capsys.readouterr().err
    assert contents(here) == before


def test_what_replacing_would_remove_too_is_said(here, capsys):
    chartae.VAE((4, 4), 2).save_pretrained("m")
    assert run(["sample", "m", "--n", "2", "--out", "s.npz"]) == 0
    sheet = ["sample", "m", "--n", "2", "--out", "s.png"]
    assert run(sheet) == 2
    assert "expected --overwrite, which removes s.npz too, or" in capsys.readouterr().err
    assert run([*sheet, "--overwrite"]) == 0
    assert not Path("s.npz").exists()
    assert run(sheet) == 2
    assert "expected --overwrite, or another place" in capsys.readouterr().err


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_what_a_killed_run_left_is_kept_and_resuming_is_named(here, overwrite, capsys):
    """It leaves a checkpoint, and no record."""
    train = ["train", "data.npz", "--out", "m", "--epochs"]
    assert run([*train, "1"]) == 0
    for file in Path("m").iterdir():
        if file.name != "checkpoint.safetensors":
            file.unlink()
    before = contents("m")
    assert run([*train, "2", *overwrite]) == 2
    assert "or --resume if a run was killed there" in capsys.readouterr().err
    assert contents("m") == before
    assert run([*train, "2", "--resume"]) == 0
    assert chartae.History.load("m/history.json").num_epochs == 2


def test_a_link_to_nowhere_is_refused(here):
    Path("new.npz").symlink_to("nowhere")
    assert augment("data.npz", "--out", "new.npz") == 2


def test_results_are_replaced_only_if_asked_and_as_they_were_left(here, capsys):
    assert augment("data.npz", "--out", "new.npz") == 0
    first = contents(here)
    assert augment("data.npz", "--out", "new.npz", "--seed", 1) == 2
    assert "new.npz' exists: expected --overwrite" in capsys.readouterr().err
    assert contents(here) == first
    assert augment("data.npz", "--out", "new.npz", "--seed", 1, "--overwrite") == 0
    second = contents(here)
    assert second["new.npz"] != first["new.npz"]
    assert second.keys() == first.keys()
    np.savez("new.npz", x=np.ones(3))  # the user's from now on
    mine = contents(here)
    assert augment("data.npz", "--out", "new.npz", "--overwrite") == 2
    assert "new.npz' was not written by this command, or was changed" in capsys.readouterr().err
    assert contents(here) == mine


def test_classes_of_an_earlier_run_are_not_left_behind(here):
    assert augment("data.npz", "--out", "new.npz") == 0
    assert augment("table.csv", "--out", "new.npz", "--overwrite") == 0
    names = {entry.name for entry in Path("new-models").iterdir()}
    assert names == {"augmenter.json", "u", "v"}


def test_a_file_among_the_models_stops_everything(here):
    assert augment("data.npz", "--out", "new.npz") == 0
    Path("new-models/cat/notes.txt").write_text("mine")
    before = contents(here)
    assert augment("data.npz", "--out", "new.npz", "--overwrite") == 2
    assert contents(here) == before


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "history.json"])
def test_train_replaces_no_file_of_others(here, name):
    Path("m").mkdir()
    Path("m", name).write_text("mine")
    for option in ([], ["--overwrite"], ["--resume"]):
        assert run(["train", "data.npz", "--out", "m", "--epochs", "1", *option]) in (1, 2)
    assert contents("m") == {name: b"mine"}


def test_train_again(here, capsys):
    train = ["train", "data.npz", "--out", "m", "--epochs", "1"]
    assert run(train) == 0
    before = contents("m")
    assert run(train) == 2
    assert "exists: expected --overwrite" in capsys.readouterr().err
    assert contents("m") == before
    assert run([*train, "--overwrite", "--seed", "1"]) == 0
    assert contents("m")["model.safetensors"] != before["model.safetensors"]
    assert run(["train", "--config", "m/train.json", "--out", "again"]) == 0
    assert run(["train", "--config", "m/train.json", "--epochs", "2", "--resume"]) == 0
    assert chartae.History.load("m/history.json").num_epochs == 2


class CtrlC(chartae.training.Callback):
    """Presses it in the second epoch."""

    def on_epoch_end(self, model, history):
        if history.num_epochs == 2:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def ctrl_c(monkeypatch):
    """Trainings are interrupted in their second epoch, until the end of the test says otherwise."""
    import chartae.augmentation.learning as learning
    import chartae.cli.train as train

    original = chartae.training.fit
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    pressed = monkeypatch.context

    def interrupted(*arguments, **options):
        return original(*arguments, **options, callbacks=[CtrlC()])

    interrupted.__signature__ = __import__("inspect").signature(original)
    with pressed() as patch:
        patch.setattr(train, "fit", interrupted)
        patch.setattr(learning, "fit", interrupted)
        yield patch
    signal.signal(signal.SIGINT, before)


def test_an_interrupted_training_names_its_continuation(here, ctrl_c, capsys):
    train = ["train", "data.npz", "--out", "m", "--epochs", "4"]
    assert run(train) == 130
    assert "the same command with --resume continues in m" in capsys.readouterr().err
    ctrl_c.undo()
    before = contents("m")
    assert run(train) == 2
    assert contents("m") == before
    assert run([*train, "--resume"]) == 0
    assert chartae.History.load("m/history.json").num_epochs == 4
    assert run(["train", "data.npz", "--out", "uncut", "--epochs", "4"]) == 0
    assert contents("m")["model.safetensors"] == contents("uncut")["model.safetensors"]


def test_an_interrupted_training_can_be_replaced(here, ctrl_c):
    train = ["train", "data.npz", "--out", "m", "--epochs", "4"]
    assert run(train) == 130
    ctrl_c.undo()
    assert run([*train, "--overwrite"]) == 0


@pytest.mark.parametrize("option", ["--resume", "--overwrite"])
def test_an_interrupted_augmentation_goes_on(here, ctrl_c, capsys, option):
    command = [*["data.npz", "--out", "new.npz", "--epochs", "3"]]
    quick = [option for option in QUICK if option not in ("--epochs", "1")]
    assert run(["augment", *command, *quick]) == 130
    assert "with --resume continues in new-models" in capsys.readouterr().err
    ctrl_c.undo()
    assert run(["augment", *command, *quick]) == 2
    assert run(["augment", *command, *quick, option]) == 0
    assert run(["augment", "data.npz", "--out", "uncut.npz", "--epochs", "3", *quick]) == 0
    assert torch.equal(read_data("new.npz").x, read_data("uncut.npz").x)


@pytest.mark.parametrize("wrong", ["--device=abacus", "--batch-size=0", "--sampler=none"])
# Processes are slow to start. That they give the same as one is tested by the augmenter.
@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_refused_option_leaves_nothing_in_the_way(here, wrong, jobs, capsys):
    before = contents(here)
    refused = augment("data.npz", "--out", "new.npz", "--jobs", jobs, *wrong.split("="))
    assert refused == 2
    assert wrong.split("=")[0] in capsys.readouterr().err
    assert contents(here) == before


def test_what_was_learned_before_a_refusal_is_recorded(here, monkeypatch, capsys):
    """The second class is refused in its training; the first one's is kept."""
    import chartae.augmentation.learning as learning

    original, calls = learning.fit, []

    @functools.wraps(original)
    def refuses(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise ConfigurationError("x: expected something else")
        return original(*arguments, **options)

    monkeypatch.setattr(learning, "fit", refuses)
    assert augment("data.npz", "--out", "new.npz") == 2
    assert Path("new-models/cat/model.safetensors").exists()
    assert augment("data.npz", "--out", "new.npz") == 2
    assert "exists: expected --overwrite" in capsys.readouterr().err
    assert augment("data.npz", "--out", "new.npz", "--resume") == 0
    assert augment("data.npz", "--out", "new.npz", "--overwrite") == 0


# --- forms of output ------------------------------------------------------------------------------


def test_an_archive_comes_back_as_it_was_given(here):
    x = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
    np.savez("last.npz", x=x, y=[0, 0, 0, 1, 1, 1])
    assert augment("last.npz", "--channels-last", "--include-real", "--out", "new.npz") == 0
    with np.load("new.npz") as made:
        assert (made["x"].shape, made["x"].dtype) == ((10, 5, 4, 3), np.uint8)
        np.testing.assert_array_equal(made["x"][:6], x)


@pytest.mark.parametrize("conditional", [[], ["--conditional"]])
def test_samples_have_the_form_of_the_training_data(here, conditional):
    x = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
    np.savez("last.npz", x=x, y=[0, 0, 0, 1, 1, 1])
    last = ["last.npz", "--channels-last", "--epochs", "1", *conditional]
    assert run(["train", *last, "--out", "m"]) == 0
    models = ["m", "new-models/all" if conditional else "new-models/1"]
    assert run(["augment", *last, "--out", "new.npz", *QUICK[:4], "--per-class", "2"]) == 0
    for number, folder in enumerate(models):
        assert run(["sample", folder, "--n", "2", "--out", f"{number}.npz"]) == 0
        with np.load(f"{number}.npz") as drawn:
            assert (drawn["x"].shape, drawn["x"].dtype) == ((2, 5, 4, 3), np.uint8)
            assert drawn["x"].max() > 1
    assert run(["sample", "m", "--n", "2", "--out", "sheet.png"]) == 0


@pytest.mark.parametrize("options", [[], ["--conditional"], ["--include-real"]])
def test_the_mask_of_the_file_is_used(here, options):
    random = np.random.default_rng(0)
    seen = random.random((40, 6)) < 0.6
    x = np.where(seen, 0.8 + 0.05 * random.random((40, 6)), 0.0)
    np.savez("holes.npz", x=x, y=np.arange(40) % 2, mask=seen)
    command = "augment holes.npz --out new.npz --model vae --sampler normal --epochs 80"
    train = "--learning-rate 0.01 --per-class 20 --latent-dim 2"
    assert run([*command.split(), *train.split(), *options]) == 0
    with np.load("new.npz") as made:
        assert 0.75 < np.median(made["x"][-40:]) < 0.9
        if options == ["--include-real"]:
            np.testing.assert_array_equal(made["mask"][:40], seen)
            assert made["mask"][40:].all()


def test_a_report_leaves_blank_what_was_not_observed(here, monkeypatch):
    import chartae.cli.results as results

    random, drawn = np.random.default_rng(0), {}
    seen = random.random((6, 4, 4)) < 0.6
    np.savez("holes.npz", x=random.random((6, 4, 4)), y=[0, 0, 0, 1, 1, 1], mask=seen)
    original = results.image_grid

    def grid(groups, **options):
        drawn.update(groups)
        return original(groups, **options)

    monkeypatch.setattr(results, "image_grid", grid)
    assert augment("holes.npz", "--out", "new.npz", "--report") == 0
    assert set(drawn) == {"real", "synthetic"}
    rows = np.concatenate([drawn["real"][:3], drawn["real"][10:13]])
    np.testing.assert_array_equal(np.isnan(rows), ~seen)


def test_images_are_written_in_folders_of_their_classes(here):
    assert augment("scans", "--out", "new") == 0
    made = read_images("new")
    assert (made.class_names, made.y.tolist()) == (("cat", "dog"), [0, 0, 1, 1])
    assert {file.name for file in Path("new").iterdir()} == {"cat", "dog", "manifest.csv"}
    assert augment("scans", "--out", "new", "--overwrite") == 0


def test_a_table_is_written_as_a_table(here):
    assert augment("table.csv", "--out", "new.csv") == 0
    made = read_table("new.csv")
    assert made.form.columns == ("a", "b")
    assert (made.class_names, made.y.tolist()) == (("u", "v"), [0, 0, 1, 1])


def test_the_models_of_an_augmentation_are_sampled_by_class(here):
    assert augment("data.npz", "--out", "new.npz") == 0
    assert run(["sample", "new-models", "--n", "5", "--out", "s.npz"]) == 0
    drawn = read_data("s.npz")
    assert [drawn.class_names[k] for k in drawn.y] == ["cat", "cat", "cat", "dog", "dog"]
    with np.load("s.npz") as file:
        assert file["x"].dtype == np.uint8
    assert run(["sample", "new-models", "--n", "3", "--label", "dog", "--out", "d.npz"]) == 0
    drawn = read_data("d.npz")
    assert [drawn.class_names[k] for k in drawn.y] == ["dog"] * 3
    assert run(["sample", "new-models", "--n", "3", "--label", "cow", "--out", "e.npz"]) == 2
    assert run(["sample", "new-models", "--n", "3", "--sampler", "normal", "--out", "e.npz"]) == 2


@pytest.mark.slow  # it starts processes
def test_jobs_threads_and_device(here):
    threads = torch.get_num_threads()
    try:
        options = ["--jobs", 2, "--threads", 1, "--device", "cpu"]
        assert augment("data.npz", "--out", "two.npz", *options) == 0
        assert augment("data.npz", "--out", "one.npz") == 0
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(read_data("one.npz").x, read_data("two.npz").x)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    "command", ["train data.npz --out m", "augment data.npz --out n.npz", "sample m --out s.npz"]
)
def test_a_device_that_is_not_there_is_a_line(here, command, capsys):
    chartae.VAE((4, 4), 2).save_pretrained("m" if command.startswith("sample") else "own")
    assert run([*command.split(), "--device", "cuda"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# --- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train names.npz --out m", ["--x-key"]),
        ("train data.npz --out m --label-column a", ["--label-column='a'"]),
        ("train data.npz --out m --batch-size 0", ["--batch-size=0"]),
        ("train numbers.csv --out m", ["--no-header"]),
        ("train nothing.npz --out m", ["DATA='nothing.npz'"]),
        ("train x_key.npz --out m", ["DATA='x_key.npz'"]),
        ("train data.npz --out m --device abacus", ["--device='abacus'"]),
        ("augment data.npz --out n.npz --per-class 0", ["--per-class=0"]),
        ("train mixed --out m", ["--resize"]),
    ],
)
def test_messages_speak_of_options(here, command, words, capsys):
    np.savez("names.npz", a=np.zeros((2, 3)), b=np.zeros((2, 3)))
    Path("numbers.csv").write_text("1,2\n3,4\n")
    Path("mixed").mkdir()
    for side in (4, 5):
        Image.new("L", (side, side)).save(f"mixed/{side}.png")
    assert run(command.split()) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words)


def test_options_of_the_readers(here):
    Image.new("RGB", (9, 9)).save("scans/cat/9.png")
    Path("scans/README.txt").write_text("x")
    Path("scans/dog/broken.png").write_text("x")
    command = "train scans --out m --epochs 1 --resize 4x5 --grey --skip-unreadable"
    assert run(command.split()) == 0
    assert chartae.load("m").input_shape == (4, 5)
    Path("numbers.csv").write_text("0.1,0.2,u\n0.3,0.4,v\n")
    command = "train numbers.csv --out n --epochs 1 --no-header --label-column 2"
    assert run(command.split()) == 0
    assert chartae.load("n").input_shape == (2,)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_any_encoding_of_the_terminal_will_do(here, encoding, monkeypatch):
    Path("scans/cat").rename("scans/Zürich→")
    for command in (
        ["--help"],
        ["augment", "--help"],
        ["augment", "scans", "--out", "новый.npz", *QUICK],
        ["augment", "scans", "--out", "новый.npz", *QUICK],
        ["train", "данные.npz", "--out", "m"],
    ):
        out, err = (
            io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True) for _ in "ab"
        )
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        assert run(command) in (0, 2)


@pytest.mark.skipif(sys.platform != "linux", reason="names are text there")
def test_names_in_another_encoding_are_a_line_or_an_escape(here, capsys):
    Path("data.npz").rename("b\udcffd.npz")
    assert augment("b\udcffd.npz", "--out", "new.npz", "--report") == 0
    assert "b\\udcffd.npz" in Path("new.html").read_text(encoding="utf-8")
    capsys.readouterr()
    Path("scans/cat").rename("scans/c\udcff")
    assert augment("scans", "--out", "other.npz") == 2
    assert "not UTF-8" in capsys.readouterr().err


def test_help_tells_the_defaults_that_hold(capsys):
    import inspect

    from chartae.augmentation.learning import ENOUGH, EPOCHS, LONGEST
    from chartae.training import default_options

    fit = inspect.signature(chartae.fit).parameters
    for command in ("train", "augment"):
        run([command, "--help"])
        text = " ".join(capsys.readouterr().out.replace("│", " ").split())
        for fact in (
            f"[default: {fit['epochs'].default} for train; for augment {EPOCHS}, or from {ENOUGH} "
            f"examples on the number that held-out examples choose, at most {LONGEST}]",
            f"[default: {fit['batch_size'].default}]",
            f"[default: {fit['learning_rate'].default}]",
            f"[default: {default_options('vae')['latent_dim']}; with codebooks "
            f"{default_options('vqvae')['latent_dim']}]",
        ):
            assert fact in text, fact
        assert default_options("vae")["likelihood"]["scale"] == 0.1
        assert default_options("vae", conditional=True)["likelihood"]["scale"] == 0.5


def test_samplers_take_arguments(here, capsys):
    options = ["--model", "rhvae", "--epochs", "1", "--per-class", "2"]
    asked = ["--sampler-options.target", "volume", "--sampler-options.num-steps", "2"]
    assert run(["augment", "data.npz", "--out", "new.npz", *options, *asked]) == 0
    record = json.loads(Path("new.json").read_text())
    assert record["augment"]["sampler_options"] == {"target": "volume", "num-steps": "2"}
    sampler = chartae.load("new-models/cat")
    assert (sampler.target, sampler.num_steps) == ("volume", 2)
    capsys.readouterr()
    wrong = ["--sampler-options.steps", "2"]
    assert run(["augment", "data.npz", "--out", "other.npz", *options, *wrong]) == 2
    assert "steps" in capsys.readouterr().err
    assert run(["train", "table.csv", "--out", "model", "--model", "vae", "--epochs", "1"]) == 0
    drawn = ["sample", "model", "--n", "3", "--out", "drawn.npz", "--sampler", "mixture"]
    drawn += ["--fit-on", "table.csv"]
    assert run([*drawn, "--sampler-options.num-components", "1"]) == 0
    assert run([*drawn, "--overwrite", *wrong]) == 2
    assert "steps" in capsys.readouterr().err


def test_a_table_keeps_the_name_of_its_labels(here):
    text = Path("table.csv").read_text().replace("label", "kind")
    Path("kinds.csv").write_text(text)
    assert augment("kinds.csv", "--label-column", "kind", "--out", "new.csv") == 0
    assert Path("new.csv").read_text().splitlines()[0].replace('"', "") == "a,b,kind"
    assert read_table("new.csv", label_column="kind").class_names == ("u", "v")
