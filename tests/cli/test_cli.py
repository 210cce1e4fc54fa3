import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_iris

import chartae
from chartae.augmentation import MODELS
from chartae.cli import run
from chartae.data import ArrayDataset, read_data, write_npz
from chartae.samplers import natural_sampler as _natural

COMMANDS = (
    "train",
    "sample",
    "augment",
    "interpolate",
    "explore",
    "impute",
    "futures",
    "generate",
    "evaluate",
    "benchmark",
    "study",
    "push",
    "doctor",
    "demo",
)
QUICK = ["--model", "vae", "--sampler", "normal", "--epochs", "2"]


@pytest.fixture
def data(tmp_path, monkeypatch, trained):
    """A file of 4 images of each of two classes, in the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(trained / "data.npz", tmp_path)
    return "data.npz"


@pytest.fixture
def digits(data):
    """A file of 20 digits, two of each."""
    source = chartae.data.digits()
    rows, _ = chartae.data.few_per_class(source.y, 2, seed=0)
    write_npz("digits.npz", source.subset(rows))
    return "digits.npz"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with what `data` and `model` need, made once."""
    folder = tmp_path_factory.mktemp("trained")
    x = torch.rand(8, 4, 4, generator=torch.Generator().manual_seed(0))
    y = torch.arange(2).repeat_interleave(4)
    data, out = str(folder / "data.npz"), str(folder / "model")
    write_npz(data, ArrayDataset(x, y, class_names=("cat", "dog/wolf")))
    assert run(["train", data, "--out", out, "--epochs", "2", "--latent-dim", "2"]) == 0
    return folder


@pytest.fixture
def model(data, trained):
    """A model trained on the data."""
    shutil.copytree(trained / "model", "model")
    return "model"


def words(command):
    return command.split()


def options_of(path, command):
    return json.loads(Path(path).read_text())[command]


class TestHelp:
    def test_imports_no_torch(self):
        code = (
            "import sys; from chartae.cli import run; run(['--help']); "
            "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'sklearn', 'matplotlib')))"
        )
        assert (
            subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0
        )

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_subcommand_has_an_example(self, command, capsys):
        assert run([command, "--help"]) == 0
        assert f"Example: chartae {command}" in " ".join(capsys.readouterr().out.split())

    def test_names_every_subcommand(self, capsys):
        assert run(["--help"]) == 0
        out = capsys.readouterr().out
        assert all(command in out for command in COMMANDS)

    @pytest.mark.parametrize("command", ["train", "augment"])
    def test_lists_every_model(self, command, capsys):
        assert run([command, "--help"]) == 0
        listed = set(re.findall(r"\w+", capsys.readouterr().out))
        assert set(MODELS) <= listed

    def test_version(self, capsys):
        assert run(["--version"]) == 0
        assert capsys.readouterr().out.strip() == chartae.__version__


class TestTrain:
    def test_keeps_the_model(self, data, capsys):
        assert run(words(f"train {data} --out m --epochs 2 --latent-dim 2")) == 0
        assert chartae.load("m").latent_dim == 2
        assert "model: m" in capsys.readouterr().out
        options = options_of("m/train.json", "train")
        assert (options["epochs"], options["batch_size"], options["seed"]) == (2, 128, 0)

    def test_is_repeated_from_what_it_wrote(self, model):
        assert run(["train", "--config", "model/train.json", "--out", "again"]) == 0
        first, again = (chartae.load(folder).state_dict() for folder in ("model", "again"))
        assert all(torch.equal(first[name], again[name]) for name in first)

    def test_a_likelihood_with_options_is_repeated_too(self, data):
        iris = load_iris().data
        np.savez("iris.npz", x=iris)
        assert run(words("train iris.npz --out m --epochs 1 --latent-dim 2")) == 0
        assert run(words("train --config m/train.json --out again")) == 0
        first, again = (chartae.load(folder).state_dict() for folder in ("m", "again"))
        assert all(torch.equal(first[name], again[name]) for name in first)

    def test_constant_columns_are_named_once(self, data, capsys):
        names = [f"c{k}" for k in range(12)]
        rows = [f"{k}," + ",".join("5" * 12) + "\n" for k in range(8)]
        Path("table.csv").write_text("".join([f"a,{','.join(names)}\n", *rows]))
        assert run(words("train table.csv --out m --epochs 2 --latent-dim 2")) == 0
        captured = capsys.readouterr()
        expected = f"constant in the training set: {', '.join(names[:10])} and 2 more\n"
        assert captured.out.count("constant") == captured.out.count(expected) == 1
        assert "constant" not in captured.err
        assert json.loads(Path("m/train.json").read_text())["constant_columns"] == names

    def test_options_of_the_model(self, data):
        command = f"train {data} --out m --epochs 1 --model rhvae"
        options = "--model-options.temperature 0.7 --model-options.num-leapfrog 2"
        assert run(words(f"{command} {options}")) == 0
        loaded = chartae.load("m")
        assert (loaded.temperature, loaded.num_leapfrog) == (0.7, 2)

    def test_validation_and_resume(self, data):
        command = f"train {data} --out m --validation 0.25"
        assert run(words(f"{command} --epochs 2")) == 0
        assert run(words(f"{command} --epochs 4 --resume")) == 0
        history = chartae.History.load("m/history.json")
        assert history.num_epochs == 4
        assert len(history.validation["loss"]) == 4

    def test_unlabelled_data(self, data):
        np.save("x.npy", np.random.default_rng(0).random((6, 5), dtype=np.float32))
        command = "train x.npy --out m --epochs 1 --validation 0.3 --model ae"
        assert run(words(command)) == 0

    def test_toml(self, data):
        text = '[train]\nlatent-dim = 3\nepochs = 1\nout = "m"\nmodel = "betavae"\n'
        Path("options.toml").write_text(text + "[train.model_options]\nbeta = 2.5\n")
        assert run(["train", data, "--config", "options.toml", "--latent-dim", "4"]) == 0
        loaded = chartae.load("m")
        assert (loaded.latent_dim, loaded.beta) == (4, 2.5)


class TestConditions:
    @pytest.fixture
    def conditional(self, data):
        command = f"train {data} --out c --epochs 2 --latent-dim 2 --conditional"
        assert run(words(command)) == 0
        return "c"

    def test_a_model_is_given_the_classes(self, conditional):
        assert chartae.load(conditional).conditions == 2
        assert chartae.load(conditional).metadata["class_names"] == ["cat", "dog/wolf"]
        assert run(words("train --config c/train.json --out again")) == 0
        first, again = (chartae.load(folder).state_dict() for folder in ("c", "again"))
        assert all(torch.equal(first[name], again[name]) for name in first)

    def test_a_cvae_is_conditional_by_nature(self, data):
        assert run(words(f"train {data} --out c --epochs 1 --model cvae")) == 0
        assert chartae.load("c").conditions == 2

    def test_classes_asked_for(self, conditional):
        assert run(words(f"sample {conditional} --label dog/wolf --n 3 --out s.npz")) == 0
        drawn = read_data("s.npz")
        assert drawn.y.tolist() == [1, 1, 1]
        assert drawn.class_names == ("cat", "dog/wolf")
        sampler = chartae.NormalSampler(chartae.load("c"))
        assert torch.equal(drawn.x, sampler.sample(3, seed=0, y=1))

    @pytest.mark.parametrize("asked", ["", "--label cat --label dog/wolf"])
    def test_all_classes_evenly(self, conditional, asked):
        assert run(words(f"sample {conditional} {asked} --n 5 --out s.npz")) == 0
        assert read_data("s.npz").y.tolist() == [0, 0, 0, 1, 1]
        assert run(words("sample --config s.json --out again.npz")) == 0
        assert torch.equal(read_data("s.npz").x, read_data("again.npz").x)

    def test_a_sampler_learns_given_the_labels_by_their_names(self, conditional, data):
        """Classes are numbered otherwise in the file it learns from, which must not matter."""
        source = read_data(data)
        write_npz(
            "turned.npz", ArrayDataset(source.x, 1 - source.y, class_names=("dog/wolf", "cat"))
        )
        command = f"sample {conditional} --sampler flow --n 4 --out"
        for out, fit_on in (("a.npz", data), ("b.npz", "turned.npz")):
            assert run(words(f"{command} {out} --fit-on {fit_on}")) == 0
        assert torch.equal(read_data("a.npz").x, read_data("b.npz").x)

    def test_without_names_labels_are_numbers(self, data):
        chartae.VAE((4, 4), 2, conditions=3).save_pretrained("own")
        assert run(words("sample own --label 2 --n 2 --out s.npz")) == 0
        assert read_data("s.npz").y.tolist() == [2, 2]

    def test_names_beside_a_model_that_was_saved_without(self, data):
        """As the command wrote them before a model's own file had them."""
        x = torch.full((2, 4, 4), 0.5)
        form = {"dtype": "uint8", "container": "array", "channels_last": False}
        chartae.VAE(x.shape[1:], 2, conditions=2).save_pretrained("old/all")
        command = words("sample old/all --n 2 --overwrite --out s.npz")
        for path, names in (
            ("old/augmenter.json", {"labels": {"names": ["ant", "bee"]}}),
            ("old/all/train.json", {"class_names": ["cat", "dog/wolf"]}),
        ):
            Path(path).write_text(json.dumps({"form": form, **names}))
            assert run(command) == 0
            (known,) = [names.get("class_names") or names["labels"]["names"]]
            assert list(read_data("s.npz").class_names) == known
            with np.load("s.npz") as file:
                assert file["x"].dtype == np.uint8

    @pytest.mark.parametrize(
        "text", ["{", "[]", '{"class_names": ["cat"]}', '{"class_names": 2}', '{"form": 1}']
    )
    def test_names_of_another_model(self, data, text, capsys):
        model = chartae.VAE((4, 4), 2, conditions=2)
        model.save_pretrained("old")
        Path("old/train.json").write_text(text)
        assert run(words("sample old --out s.npz")) == 1
        assert "train.json" in capsys.readouterr().err
        if text.startswith("{") and len(text) > 1:
            model.metadata = json.loads(text)
            model.save_pretrained("new")
            assert run(words("sample new --out s.npz")) == 1
            assert "config.json" in capsys.readouterr().err


def test_a_package_that_cannot_be_imported_is_named():
    code = (
        "import sys; sys.modules['torch'] = None; from chartae.cli import run; "
        "sys.exit(run(['train', 'data.npz', '--out', 'm']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("chartae: ModuleNotFoundError: import of torch halted")
    assert done.stderr.count("\n") == 1


SLOW = ("hrqvae", "vqvae")  # the sampler of codes trains a network for long


class TestZoo:
    """Every model trains, and is sampled from what goes with it."""

    @pytest.mark.parametrize(
        "name",
        [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in MODELS],
    )
    def test_train_and_sample(self, name, digits):
        options = {"disentangledbetavae": "--model-options.warmup 1"}.get(name, "")
        command = f"train {digits} --model {name} --out m --epochs 2 {options}"
        assert run(words(command)) == 0
        learns = name in {"ae", "rae", "wae", "vqvae", "hrqvae"}
        assert run(words("sample m --n 3 --out s.npz")) == (2 if learns else 0)
        assert run(words(f"sample m --n 3 --fit-on {digits} --out s.npz --overwrite")) == 0
        assert read_data("s.npz").x.shape == (3, 8, 8)

    @pytest.mark.parametrize(
        ("name", "options", "expected"),
        [
            ("VAE", {}, "normal"),
            ("RHVAE", {}, "volume"),
            ("RHVAE", {"conditions": 2}, "volume"),
            ("CVAE", {"conditions": 2, "learned_prior": True}, "vamp"),
            ("VAMP", {}, "vamp"),
            ("SVAE", {}, "sphere"),
            ("PoincareVAE", {}, "poincare"),
            ("VQVAE", {"grid": (2, 2)}, "code"),
            ("WAE", {}, "mixture"),
        ],
    )
    def test_what_goes_with_a_model(self, name, options, expected):
        assert _natural(getattr(chartae, name)((4, 4), 4, **options)) == expected

    def test_a_model_that_nothing_serves(self, data, capsys):
        chartae.VQVAE((4, 4), 8, grid=(2, 2, 2)).save_pretrained("own")
        assert run(words("sample own --out s.npz")) == 2
        assert "no sampler" in capsys.readouterr().err


class TestSample:
    def test_npz(self, model):
        assert run(["sample", model, "--n", "5", "--out", "s.npz"]) == 0
        assert read_data("s.npz").x.shape == (5, 4, 4)
        assert options_of("s.json", "sample")["n"] == 5

    def test_contact_sheet(self, model):
        assert run(["sample", model, "--n", "4", "--out", "s.png"]) == 0
        with Image.open("s.png") as image:
            assert image.format == "PNG"

    def test_follows_the_seed(self, model):
        for out, seed in (("a.npz", "1"), ("b.npz", "1"), ("c.npz", "2")):
            assert run(["sample", model, "--n", "3", "--out", out, "--seed", seed]) == 0
        a, b, c = (read_data(f"{name}.npz").x for name in "abc")
        assert torch.equal(a, b)
        assert not torch.equal(a, c)

    def test_mixture_learns_from_data(self, data):
        assert run(["train", data, "--out", "ae", "--epochs", "1", "--model", "ae"]) == 0
        assert run(["sample", "ae", "--out", "s.npz"]) == 2
        np.save("x.npy", np.random.default_rng(0).random((20, 4, 4), dtype=np.float32))
        assert run(words("sample ae --sampler mixture --fit-on x.npy --n 3 --out s.npz")) == 0

    @pytest.mark.parametrize("sampler", ["volume", "random_walk"])
    def test_the_manifold_of_a_vae_is_learned_from_data(self, model, data, sampler):
        command = f"sample {model} --sampler {sampler} --fit-on {data} --n 3 --out s.npz"
        assert run(words(command)) == 0
        assert read_data("s.npz").x.shape == (3, 4, 4)


class TestAugment:
    def test_writes_everything(self, data, capsys):
        command = f"augment {data} --out out/new.npz --per-class 3 --report"
        assert run([*words(command), *QUICK]) == 0
        made = read_data("out/new.npz")
        assert made.class_names == ("cat", "dog/wolf")
        assert made.y.tolist() == [0, 0, 0, 1, 1, 1]
        assert made.x.shape == (6, 4, 4)
        assert options_of("out/new.json", "augment")["per_class"] == 3
        page = Path("out/new.html").read_text()
        assert "Latent maps" in page
        assert "dog/wolf" in page
        assert "https://" not in page
        out = capsys.readouterr().out
        assert all(name in out for name in ("out/new.npz", "out/new-models", "out/new.html"))

    def test_a_class_that_collapsed_is_named_everywhere(self, data, capsys):
        """Two epochs are not enough to learn anything."""
        command = words(f"augment {data} --out new.npz --per-class 2 --report")
        assert run([*command, *QUICK]) == 0
        lines = [line for line in capsys.readouterr().err.splitlines() if "collapsed" in line]
        assert [line.split(":")[2].split(";")[0] for line in lines] == [" cat, dog/wolf"]
        figures = json.loads(Path("new.json").read_text())["fidelity"]
        assert figures["cat"]["spread"] < 0.25
        page = Path("new.html").read_text()
        assert "Are samples like real examples?" in page
        assert "Not in 2 of 2 classes." in page
        assert "Classes that have collapsed (spread below 0.25): cat, dog/wolf; scale" in page
        assert run([*command, "--overwrite", "--strict", *QUICK]) == 3
        assert len(read_data("new.npz")) == 4

    def test_samples_like_the_examples_pass_the_strict_check(self, data, capsys):
        options = "--model vae --sampler normal --epochs 60 --learning-rate 0.01"
        command = f"augment {data} --out new.npz --per-class 2 --report --strict {options}"
        assert run(words(command)) == 0
        assert not capsys.readouterr().err
        assert "Yes. </b>No class has collapsed" in Path("new.html").read_text()

    def test_models_can_be_sampled(self, data):
        assert run(["augment", data, "--out", "new.npz", "--per-class", "1", *QUICK]) == 0
        assert sorted(path.name for path in Path("new-models").iterdir()) == [
            "augmenter.json",
            "cat",
            "dog%2fwolf",
        ]
        assert run(["sample", "new-models/dog%2fwolf", "--n", "2", "--out", "s.npz"]) == 0

    @pytest.mark.parametrize("options", ["--model vae --conditional", "--model cvae"])
    def test_one_conditional_model(self, data, options):
        command = f"augment {data} --out new.npz --per-class 3 --sampler normal --epochs 2 --report"
        assert run(words(f"{command} {options}")) == 0
        assert read_data("new.npz").y.tolist() == [0, 0, 0, 1, 1, 1]
        names = {path.name for path in Path("new-models").iterdir()}
        assert names == {"all", "augmenter.json"}
        assert "Latent maps" in Path("new.html").read_text()
        assert run(words("sample new-models/all --label dog/wolf --n 2 --out s.npz")) == 0
        drawn = read_data("s.npz")
        assert drawn.class_names == ("cat", "dog/wolf")
        assert drawn.y.tolist() == [1, 1]

    def test_a_class_without_examples(self, data):
        """A conditional model knows the classes that it saw, by their own names."""
        source = read_data(data)
        names = ("ant", "cat", "dog")
        write_npz("some.npz", ArrayDataset(source.x, 2 * source.y, class_names=names))
        command = "augment some.npz --out new.npz --per-class 1 --conditional"
        assert run([*words(command), *QUICK]) == 0
        assert read_data("new.npz").y.tolist() == [0, 2]
        assert run(words("sample new-models/all --label dog --n 1 --out s.npz")) == 0
        assert run(words("sample new-models/all --label cat --n 1 --out s.npz")) == 2

    def test_real_data_first(self, data):
        command = f"augment {data} --out new.npz --per-class 1 --include-real"
        assert run([*words(command), *QUICK]) == 0
        assert torch.equal(read_data("new.npz").x[:8], read_data(data).x)

    def test_vectors_and_one_latent_dimension(self, data):
        rows = [f"0.{k},0.{9 - k},k{k % 2}\n" for k in range(8)]
        Path("table.csv").write_text("".join(["a,b,kind\n", *rows]))
        command = "augment table.csv --label-column kind --out new.npz --per-class 2 --report"
        assert run([*words(command), *QUICK, "--latent-dim", "1"]) == 0
        assert read_data("new.npz").class_names == ("k0", "k1")
        assert "Latent maps" not in Path("new.html").read_text()

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("target", ""),
            ("Class", ""),
            ("kind", "--label-column kind"),
            ("kind", "--config c.json"),
        ],
    )
    def test_the_column_of_labels_keeps_its_name(self, data, name, options):
        Path("c.json").write_text(json.dumps({"augment": {"label_column": "kind"}}))
        rows = [f"{k},k{k % 2},{9 - k}\n" for k in range(8)]
        Path("table.csv").write_text("".join([f"a,{name},b\n", *rows]))
        command = f"augment table.csv --out new.csv --per-class 2 --include-real {options}"
        assert run([*words(command), *QUICK, "--latent-dim", "1"]) == 0
        written = pd.read_csv("new.csv")
        assert list(written.columns) == ["a", "b", name]
        assert written[name].tolist()[:3] == ["k0", "k1", "k0"]
        assert written[name].tolist()[8:] == ["k0", "k0", "k1", "k1"]

    def test_without_a_header_the_column_of_labels_is_called_label(self, data):
        Path("table.csv").write_text("".join(f"{k},k{k % 2}\n" for k in range(8)))
        command = "augment table.csv --no-header --label-column 1 --out new.csv --per-class 2"
        assert run([*words(command), *QUICK, "--latent-dim", "1"]) == 0
        assert list(pd.read_csv("new.csv").columns) == ["x0", "label"]

    @pytest.mark.parametrize("conditional", [False, True])
    def test_constant_columns_are_named_once(self, data, conditional, capsys):
        rows = [f"{k},7,{k if k % 2 else 5},k{k % 2}\n" for k in range(8)]
        Path("table.csv").write_text("".join(["a,b,c,label\n", *rows, "1,7,1,alone\n"]))
        command = "augment table.csv --out new.csv --per-class 2 --latent-dim 1"
        options = ["--conditional"] if conditional else []
        assert run([*words(command), *QUICK, *options]) == 0
        told = [line for line in capsys.readouterr().out.splitlines() if "constant" in line]
        expected = {"all classes": ["b"]} | ({} if conditional else {"class 'k0'": ["c"]})
        assert told == [f"constant in {place}: {names[0]}" for place, names in expected.items()]
        assert json.loads(Path("new.json").read_text())["constant_columns"] == expected


BAD = {
    "no such command": "foo",
    "no data": "train --out m",
    "no out": "train data.npz",
    "unknown option": "train data.npz --out m --epoch 3",
    "no number": "train data.npz --out m --epochs many",
    "no such file": "train nothing.npz --out m",
    "another kind of file": "train data.txt --out m",
    "no such model": "train data.npz --out m --model rhva",
    "no such likelihood": "train data.npz --out m --likelihood bernouli",
    "no such encoder": "train data.npz --out m --encoder cnn",
    "no such model option": "train data.npz --out m --model-options.depth 3",
    "epochs": "train data.npz --out m --epochs 0",
    "learning rate": "train data.npz --out m --learning-rate -1",
    "validation": "train data.npz --out m --validation 1.5",
    "seed": "train data.npz --out m --seed -1",
    "unwritable folder": "train data.npz --out data.npz/m",
    "no such config": "train data.npz --out m --config nothing.toml",
    "config of another kind": "train data.npz --out m --config data.npz",
    "damaged config": "train data.npz --out m --config damaged.toml",
    "unknown option in config": "train data.npz --out m --config unknown.toml",
    "no such model folder": "sample nothing --out s.npz",
    "sample suffix": "sample model --out s.jpg",
    "sample count": "sample model --out s.npz --n 0",
    "sampler of a manifold without data": "sample model --out s.npz --sampler volume",
    "sampler without data": "sample model --out s.npz --sampler mixture",
    "sampler that does not serve": "sample model --out s.npz --sampler sphere",
    "label without conditions": "sample model --out s.npz --label cat",
    "unknown label": "sample conditional --out s.npz --label wolf",
    "vectors as conditions": "sample vectors --out s.npz",
    "sampler without labels": "sample conditional --out s.npz --fit-on unlabelled.npy",
    "sampler with other labels": "sample conditional --out s.npz --fit-on others.npz",
    "conditional without labels": "train unlabelled.npy --out m --conditional",
    "cvae without labels": "train unlabelled.npy --out m --model cvae",
    "augment folder": "augment data.npz --out folder.npz",
    "augment count": "augment data.npz --out new.npz --per-class 0",
    "no labels": "augment unlabelled.npy --out new.npz",
    "one of a class": "augment lonely.npz --out new.npz --singles refuse",
    "two outputs": "train data.npz --out m --resume --overwrite",
    "an input as output": "augment data.npz --out data.npz",
    "size of images": "train data.npz --out m --resize 8",
    "two colours": "train data.npz --out m --grey --rgb",
    "threads": "train data.npz --out m --threads 0",
    "device": "train data.npz --out m --device tpu",
    "image folder of a table": "augment table.csv --out new --per-class 1",
    "rows of images": "augment data.npz --out new.csv --per-class 1",
    "kind of output": "augment data.npz --out new.txt --per-class 1",
    "not a number": "augment nan.npz --out new.npz",
    "out of range": "augment wide.npz --out new.npz --likelihood bernoulli",
    "no such sampler": "augment data.npz --out new.npz --sampler volum",
    "no seeds": "demo --seeds 0",
    "demo on a file": "demo --out data.npz",
}


@pytest.fixture
def bad_files(model):
    x, y = np.full((4, 4, 4), 0.5, dtype=np.float32), np.array([0, 0, 1, 1])
    np.save("unlabelled.npy", x)
    np.savez("lonely.npz", x=x, y=[0, 0, 0, 1])
    np.savez("nan.npz", x=x * np.nan, y=y)
    np.savez("wide.npz", x=x * 11, y=y)
    np.savez("others.npz", x=x, y=y + 5)
    chartae.VAE((4, 4), 2, conditions=2).save_pretrained("conditional")
    chartae.VAE((4, 4), 2, conditions=(3,)).save_pretrained("vectors")
    Path("table.csv").write_text("a,b,label\n0,1,u\n1,0,u\n0,0,v\n1,1,v\n")
    Path("folder.npz").mkdir()
    Path("damaged.toml").write_text("x[train]")
    Path("unknown.toml").write_text("[train]\nepoch = 3\n")


@pytest.mark.parametrize("command", BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line_and_exit_code_2(command, bad_files, capsys):
    capsys.readouterr()
    before = set(Path().iterdir())
    assert run(words(command)) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("chartae: ")
    assert error.count("\n") == 1
    assert set(Path().iterdir()) - before <= {Path("m")}


def test_a_damaged_model_is_exit_code_1(model, capsys):
    Path("model/model.safetensors").unlink()
    assert run(["sample", model, "--out", "s.npz"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_ctrl_c_is_exit_code_130(data, monkeypatch, capsys):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("chartae.cli.options.read_data", interrupt)
    assert run(["train", data, "--out", "m"]) == 130
    assert capsys.readouterr().err == "chartae: interrupted\n"


def test_what_nobody_foresaw_is_a_line_too(data, monkeypatch, capsys):
    def stumble(*arguments, **options):
        raise ZeroDivisionError("a\nb")

    monkeypatch.setattr("chartae.cli.options.read_data", stumble)
    assert run(["train", data, "--out", "m"]) == 1
    assert capsys.readouterr().err == "chartae: ZeroDivisionError: a b (--debug shows where)\n"
    with pytest.raises(ZeroDivisionError):
        run(["train", data, "--out", "m", "--debug"])


@pytest.mark.parametrize("module", ["chartae", pytest.param("chartae.cli", marks=pytest.mark.slow)])
def test_a_process_ends_with_its_exit_code(module):
    command = [sys.executable, "-m", module, "train", "nothing.npz", "--out", "m"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("chartae: DATA='nothing.npz' does not exist")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_table_in_its_own_units_needs_no_option(tmp_path, monkeypatch):
    """A class of deviation .38 comes back with about that."""
    monkeypatch.chdir(tmp_path)
    iris = load_iris(as_frame=True)
    frame = iris.frame.drop(columns="target")
    frame["species"] = iris.target_names[iris.target]
    frame.to_csv("iris.csv", index=False)
    assert run(["augment", "iris.csv", "--label-column", "species", "--out", "new.csv"]) == 0
    drawn = pd.read_csv("new.csv")
    assert list(drawn.columns[:4]) == list(frame.columns[:4])
    real = frame[frame.species == "setosa"]["sepal width (cm)"].std()
    found = drawn[drawn.iloc[:, 4] == "setosa"]["sepal width (cm)"].std()
    assert real == pytest.approx(0.38, abs=0.01)
    assert found == pytest.approx(real, rel=0.3)


def test_augment_balances_classes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{k / 7:.3f},{k % 5},{'rare' if k < 4 else 'common'}\n" for k in range(14))
    (tmp_path / "t.csv").write_text("a,b,label\n" + rows)
    line = ["augment", "t.csv", "--out", "new.csv", "--epochs", "2", "--balance"]
    assert run(line) == 0
    lines = (tmp_path / "new.csv").read_text().splitlines()
    assert len(lines) == 1 + 6
    assert all(line.endswith("rare") for line in lines[1:])
    (tmp_path / "even.csv").write_text("a,label\n" + "1,x\n2,x\n3,y\n4,y\n")
    assert run(["augment", "even.csv", "--out", "e.csv", "--balance"]) == 2
    assert "all classes have 2 observations" in capsys.readouterr().err
