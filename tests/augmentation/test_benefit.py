"""`would_help` against generators whose effect is known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import chartae.augmentation.benefit as benefit
from chartae import Augmenter
from chartae.augmentation import Benefit, would_help
from chartae.cli import run
from chartae.data import ArrayDataset
from chartae.errors import ConfigurationError, DataError

FEATURES = 60


def examples(n, seed=0, wrong=False):
    """Two overlapping normal classes; with ``wrong`` each has the label of the other."""
    random = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = random.normal(size=(n, FEATURES)) + 0.5 * y[:, None]
    return x.astype(np.float32), 1 - y if wrong else y


class Known:
    """A method that knows the distribution of the classes, up to their labels."""

    def __init__(self, options, wrong=False):
        self.options, self.wrong = options, wrong

    def of_dataset(self, data, counts, seed):
        x, y = examples(2 * max(counts.values()), seed % 2**32, self.wrong)
        order = np.argsort(y, kind="stable")
        return x[order], y[order]


@pytest.mark.parametrize(
    ("wrong", "answer"), [(False, "help"), (True, "would harm")], ids=["true", "false"]
)
def test_the_answer_is_that_of_a_generator_with_a_known_effect(monkeypatch, wrong, answer):
    monkeypatch.setattr(benefit, "ModelMethod", lambda options: Known(options, wrong))
    x, y = examples(120)
    found = would_help(Augmenter("vae"), x, y, classifier="k-NN", per_class=300)
    assert found.answer == answer
    assert found.examples == 120
    assert (found.augmented > found.real) == (answer == "help")
    assert (found.right_label < 0.5) == wrong
    assert found.answer in str(found)
    if not wrong:  # new examples of the same distribution reveal nothing
        assert found.membership_auc == pytest.approx(0.5, abs=0.12)


def test_the_interval_is_that_of_paired_differences(monkeypatch):
    """The three quarters of one class that improve, and the fifth of the other that get worse."""
    sizes = np.array([80, 40])
    change = [np.repeat([1.0, 0.0], [60, 20]), np.repeat([-1.0, 0.0], [8, 32])]
    y = np.repeat([0, 1], sizes)

    def known(inputs, fold, seed, number):
        test = inputs.draws[fold].test
        real = np.full(len(test), 0.5)
        both = real + np.concatenate(change)[test]
        return benefit.Fold(real, both, 1.0, 0.5)

    monkeypatch.setattr(benefit, "held_out_fold", known)
    found = would_help(Augmenter(), np.zeros((120, 2)), y)
    assert found.comparison.difference == pytest.approx((0.75 - 0.2) / 2)
    errors = [np.var(of, ddof=1) / len(of) for of in change]
    assert found.margin == pytest.approx(1.96 * np.sqrt(sum(errors)) / 2)
    assert found.answer == "help"


def test_unequal_classes_are_compared_with_class_weights(monkeypatch):
    """Balanced copies of the examples bring nothing that weights do not."""

    class Copies(Known):
        def of_dataset(self, data, counts, seed):
            rows = [np.flatnonzero(data.y.numpy() == c) for c in counts]
            chosen = np.concatenate(
                [np.resize(of, n) for of, n in zip(rows, counts.values(), strict=True)]
            )
            return data.x.numpy()[chosen], data.y.numpy()[chosen]

    monkeypatch.setattr(benefit, "ModelMethod", Copies)
    x, y = examples(400)
    kept = np.flatnonzero((y == 0) | (np.arange(400) < 60))
    x, y = x[kept, :4], y[kept]
    found = would_help(Augmenter(), x, y, classifier="logistic regression", per_class="balance")
    assert found.answer == "make no clear difference"
    assert abs(found.comparison.difference) < 0.03
    assert found.weighted
    assert "but with class weights" in str(found)
    assert found.real > 0.6  # without weights the rare class is hardly ever predicted


@pytest.mark.parametrize("y", [[0, 1] * 40, [0] * 150 + [1] * 5])
def test_too_few_examples_have_no_answer(y):
    found = would_help(Augmenter(), np.zeros((len(y), 3)), y)
    unequal = len(set(map(y.count, y))) > 1
    facts = ("random forest", len(y), y.count(1), 3, unequal)
    assert found == Benefit("too few examples to tell", *facts)
    assert "at least 100" in str(found)
    assert found.to_json()["real"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classifier": "CNN"}, "is a network"),
        ({"classifier": "tree"}, "expected one of"),
        ({"folds": 1}, "folds"),
        ({"per_class": 0}, "per_class"),
        ({"per_class": "balance"}, "same size"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        would_help(Augmenter(), np.zeros((120, 2)), [0, 1] * 60, **options)


@pytest.mark.slow
def test_the_command_prints_and_records_the_answer(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = []

    def known(augmenter, source, **options):
        asked.append((augmenter.model, len(source), options))
        return Benefit("would harm", "random forest", 100, 50, 3, True, 0.9, 0.8, 0.05, 0.7, 0.6)

    monkeypatch.setattr("chartae.cli.augment.would_help", known)
    x, y = examples(12)
    np.savez("few.npz", x=x, y=np.array([f"class {c}" for c in y]))
    line = ["augment", "few.npz", "--out", "new.npz", "--model", "ae", "--sampler", "mixture"]
    line += ["--epochs", "1", "--per-class", "5", "--report"]
    assert run(line) == 0
    assert asked == [("ae", 12, {"per_class": 5})]
    assert "check: the samples would harm" in capsys.readouterr().out
    assert json.loads(Path("new.json").read_text())["benefit"]["augmented"] == 0.8
    assert "The samples would harm" in Path("new.html").read_text()
    assert run([*line, "--no-check", "--overwrite"]) == 0
    assert "check" not in capsys.readouterr().out
    assert len(asked) == 1


def test_the_samples_are_kept_if_the_check_fails(tmp_path, monkeypatch, capsys):
    def fails(augmenter, source, **options):
        raise DataError("a fold has one example of class 'a'")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("chartae.cli.augment.would_help", fails)
    x, y = examples(12)
    np.savez("few.npz", x=x, y=np.array([f"class {c}" for c in y]))
    line = "augment few.npz --out new.npz --model ae --sampler mixture --epochs 1 --per-class 5"
    assert run(line.split()) == 0
    assert "check: it failed: a fold has one example" in capsys.readouterr().out
    assert len(np.load("new.npz")["y"]) == 10
    assert "a fold has" in json.loads(Path("new.json").read_text())["benefit"]["error"]


def test_missing_values_are_imputed():
    x, y = examples(100)
    mask = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) > 0.1
    data = ArrayDataset.from_arrays(x, y, mask)
    augmenter = Augmenter("vae", "normal", fit_options={"epochs": 1})
    found = would_help(augmenter, data, classifier="k-NN", per_class=3)
    assert 0.4 < found.real < 1.0
    assert not hasattr(augmenter, "models_")
