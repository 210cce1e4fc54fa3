"""What goes into an Augmenter comes out; what it refuses leaves it as it was."""

import contextlib
import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone

from chartae import Augmenter, load
from chartae.augmentation import MODELS, SAMPLERS, gaussian_noise, smote
from chartae.data import ArrayDataset, digits
from chartae.errors import ChartaeError, CheckpointError, ConfigurationError, DataError
from chartae.models import VAE
from chartae.naming import folder_name
from chartae.samplers import NormalSampler
from chartae.samplers.learned import LearnedSampler

TINY = {"name": "mlp", "hidden": [4]}
NETWORKS = {"encoder": TINY, "decoder": TINY, "latent_dim": 2}
QUICK = {
    "model": "vae",
    "sampler": "normal",
    "model_options": NETWORKS,
    "fit_options": {"epochs": 1},
}


def examples(shape=(3, 2), per_class=3, classes=2):
    x = np.random.default_rng(0).random((classes * per_class, *shape))
    return x, np.arange(classes).repeat(per_class)


def quick(**options):
    return Augmenter(**{**QUICK, **options})


# --- what goes in comes out -----------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["vectors", "images", "channels last"])
@pytest.mark.parametrize("container", ["array", "tensor", "list", "dataset"])
@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.float32, np.float64])
def test_samples_have_the_dtype_layout_and_container_given(dtype, container, layout):
    shape = {"vectors": (5,), "images": (4, 3), "channels last": (4, 3, 3)}[layout]
    x, y = examples(shape)
    if dtype in (np.uint8, np.bool_):
        x = (x * (255 if dtype == np.uint8 else 2)).astype(int)
    x = x.astype(dtype)
    last = layout == "channels last"
    given = {"array": x, "tensor": torch.from_numpy(x), "list": list(x)}.get(container)
    if container == "dataset":
        dataset = ArrayDataset.from_arrays(x, y, channels_last=last)
        drawn, labels = quick().fit(dataset).sample(2)
        assert isinstance(labels, torch.Tensor)
    else:
        drawn, _ = quick(channels_last=last).fit(given, y).sample(2)
    assert isinstance(drawn, torch.Tensor if container == "tensor" else np.ndarray)
    assert np.asarray(drawn).dtype == dtype
    assert tuple(drawn.shape) == (4, *shape)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([3, 3, 3, 7, 7, 7], dtype=np.int16),
        np.array(["b", "b", "b", "a", "a", "a"]),
        np.array(["b", "b", "b", "a", "a", "a"], dtype=object),
        np.array([True, True, True, False, False, False]),
        torch.tensor([3, 3, 3, 7, 7, 7], dtype=torch.int32),
        [5, 5, 5, 4, 4, 4],
        pd.Series(["b", "b", "b", "a", "a", "a"]),
    ],
)
def test_labels_come_back_as_they_were_given(labels, tmp_path):
    augmenter = quick().fit(examples()[0], labels)
    augmenter.save(tmp_path)
    for each in (augmenter, Augmenter.load(tmp_path)):
        _, drawn = each.sample(2)
        expected = np.sort(np.asarray(labels))[[0, 0, -1, -1]]
        assert np.asarray(drawn).tolist() == expected.tolist()
        assert np.asarray(drawn).dtype == np.asarray(labels).dtype
        kind = np.ndarray if isinstance(labels, list) else type(labels)
        assert isinstance(drawn, kind)
        one = np.asarray(labels)[0]
        assert np.asarray(each.sample({one: 3})[1]).tolist() == [one] * 3


def test_a_data_frame_comes_back_as_a_data_frame():
    frame = pd.DataFrame(
        {"a": np.linspace(0, 1, 6), "b": [True, False] * 3, "c": np.linspace(0, 1, 6, dtype="f")}
    )
    drawn, labels = quick().fit(frame, pd.Series(list("uuuvvv"))).sample(4)
    assert list(drawn.columns) == list(frame.columns)
    assert drawn.dtypes.equals(frame.dtypes)
    assert list(labels) == list("uuuuvvvv")


@pytest.mark.parametrize("conditional", [False, True])
def test_categories_and_gaps_of_a_data_frame_are_learned(conditional, tmp_path):
    y = np.arange(60) % 2
    frame = pd.DataFrame(
        {
            "site": np.array(["north", "south"])[y],
            "grade": pd.Categorical(np.array(["low", "high"])[y], ["low", "high"], ordered=True),
            "mass": 1e5 * (y + 1.0) + np.arange(60),
        }
    )
    frame.loc[::7, "site"] = None
    frame.loc[::11, "mass"] = np.nan
    options = {"epochs": 80, "learning_rate": 1e-2}
    augmenter = quick(conditional=conditional, fit_options=options).fit(frame, y)
    augmenter.save(tmp_path)
    drawn, labels = augmenter.sample(30)
    pd.testing.assert_frame_equal(Augmenter.load(tmp_path).sample(30)[0], drawn)
    assert drawn.dtypes.equals(frame.dtypes)
    assert not drawn.isna().any(axis=None)
    assert (drawn["site"] == np.array(["north", "south"])[labels]).mean() > 0.8
    assert (drawn["grade"] == np.array(["low", "high"])[labels]).mean() > 0.8
    assert ((drawn["mass"] > 1.5e5) == labels).mean() > 0.8


@pytest.mark.parametrize(
    ("likelihood", "x"),
    [
        ("negative_binomial", np.random.default_rng(0).poisson(5.0, (6, 4)).astype(float)),
        ("categorical", np.eye(3)[np.random.default_rng(0).integers(0, 3, (6, 2))]),
    ],
)
def test_of_counts_and_categories_samples_are_data(likelihood, x):
    y = np.array([0, 0, 0, 1, 1, 1])
    augmenter = quick(model_options={**NETWORKS, "likelihood": likelihood}).fit(x, y)
    drawn, _ = augmenter.sample(20)
    assert np.array_equal(drawn, drawn.round())
    augmenter.models_["0"].encode(drawn)
    assert np.array_equal(augmenter.sample(20)[0], drawn)


@pytest.mark.parametrize("how", ["masked array", "mask", "dataset"])
@pytest.mark.parametrize("conditional", [False, True])
def test_what_was_not_observed_is_not_learned(how, conditional):
    random = np.random.default_rng(0)
    seen = random.random((40, 6)) < 0.6
    x, y = np.where(seen, 0.8 + 0.05 * random.random((40, 6)), 0.0), np.arange(40) % 2
    given = {
        "masked array": (np.ma.masked_array(x, ~seen), y),
        "mask": (np.where(seen, x, np.nan), y, seen),
        "dataset": (ArrayDataset.from_arrays(x, y, seen),),
    }[how]
    options = {"epochs": 80, "learning_rate": 1e-2}
    drawn, _ = quick(conditional=conditional, fit_options=options).fit(*given).sample(20)
    assert 0.75 < np.median(drawn) < 0.9


# --- refusals -------------------------------------------------------------------------------------

X, Y = examples()


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, None, "y is None: expected .N,., one label per sample"),
        (X, np.eye(2, dtype=int)[Y], r"y has shape \(6, 2\): expected \(N,\).*argmax"),
        (X, np.eye(2)[Y], r"y has shape \(6, 2\): expected \(N,\).*argmax"),
        (X, Y[:, None], r"y has shape \(6, 1\): expected \(N,\).*ravel"),
        (X, Y[:-1], "y has 5 labels for 6 samples"),
        (ArrayDataset.from_arrays(X), None, "x has no labels"),
        (ArrayDataset.from_arrays(X, Y), Y, "x is an ArrayDataset: expected no y, mask or weight"),
        (None, Y, "x is NoneType: expected one array of numbers"),
        (pd.DataFrame({"a": pd.date_range("2020", periods=6)}), Y, "x has a column 'a'"),
    ],
)
@pytest.mark.parametrize("before", ["unfitted", "fitted"])
def test_a_refused_fit_leaves_the_augmenter_as_it_was(x, y, message, before):
    augmenter = quick()
    if before == "fitted":
        augmenter.fit(X.astype(np.float32), np.array(["a", "b"])[Y])
        drawn = augmenter.sample(2)
    with pytest.raises(DataError, match=message):
        augmenter.fit(x, y)
    if before == "unfitted":
        with pytest.raises(ConfigurationError, match="has not been fitted"):
            augmenter.sample(1)
    else:
        again = augmenter.sample(2)
        assert np.array_equal(drawn[0], again[0])
        assert (drawn[1].tolist(), again[0].dtype) == (again[1].tolist(), np.float32)


def test_counts_are_checked():
    augmenter = quick().fit(X, Y)
    with pytest.raises(ConfigurationError, match="per_class is empty: expected counts of 0, 1"):
        augmenter.sample({})
    with pytest.raises(ConfigurationError, match="per_class='2' is not known"):
        augmenter.sample({2: 1})
    counts = dict(zip(*np.unique(Y, return_counts=True), strict=True))
    assert len(augmenter.sample(counts)[0]) == len(Y)
    assert len(augmenter.sample(np.int64(2))[0]) == 4


def test_a_class_of_one_is_left_out_or_refused_as_asked(caplog):
    y = np.array(["a", "a", "a", "b", "b", "one"])
    with caplog.at_level(logging.WARNING):
        augmenter = quick().fit(X, y)
    assert "left out class 'one', with one example each" in caplog.text
    assert augmenter.sample(1)[1].tolist() == ["a", "b"]
    with pytest.raises(ConfigurationError, match="per_class='one' is not known"):
        augmenter.sample({"one": 1})
    with pytest.raises(DataError, match="one example of class 'one'"):
        quick(singles="refuse").fit(X, y)
    assert quick(conditional=True).fit(X, y).sample({"one": 2})[1].tolist() == ["one", "one"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"singles": "drop"}, "singles='drop' is not known"),
        ({"jobs": 0}, "jobs=0: expected an integer"),
        ({"channels_last": 1}, "channels_last=1: expected True or False"),
        ({"model_options": ["mlp"]}, "model_options=.*expected a mapping or None"),
        ({"fit_options": {"epoch": 1}}, "fit_options='epoch' is not known.*did you mean 'epochs'"),
    ],
)
def test_options_are_checked_when_made_and_when_set(options, message):
    with pytest.raises(ConfigurationError, match=message):
        quick(**options)
    augmenter = quick()
    with pytest.raises(ConfigurationError, match=message):
        augmenter.set_params(**options)
    assert augmenter.get_params() == quick().get_params()


# --- as scikit-learn's estimators -----------------------------------------------------------------


def test_it_can_be_cloned_and_shown():
    augmenter = quick(seed=3)
    copy = clone(augmenter)
    assert copy is not augmenter
    assert copy.get_params() == augmenter.get_params()
    assert np.array_equal(copy.fit(X, Y).sample(2)[0], augmenter.fit(X, Y).sample(2)[0])
    assert repr(Augmenter("vae", seed=3)) == "Augmenter(model='vae', seed=3)"
    assert repr(Augmenter()) == "Augmenter()"
    assert augmenter.set_params(seed=4).seed == 4
    with pytest.raises(ConfigurationError, match="params='sede' is not known.*did you mean 'seed'"):
        augmenter.set_params(sede=1)


# --- on disk --------------------------------------------------------------------------------------


@pytest.mark.parametrize("conditional", [False, True])
def test_it_comes_back_from_disk(tmp_path, conditional):
    names = np.array(["..", "a/b"])[Y]
    augmenter = quick(conditional=conditional).fit((255 * X).astype(np.uint8), names)
    augmenter.save(tmp_path / "augmenter")
    again = Augmenter.load(tmp_path / "augmenter")
    for one, other in zip(augmenter.sample(3), again.sample(3), strict=True):
        assert np.array_equal(one, other)
        assert one.dtype == other.dtype
    assert again.get_params() == augmenter.get_params()
    assert repr(again.histories_) == repr(augmenter.histories_)
    assert list(tmp_path.iterdir()) == [tmp_path / "augmenter"]
    again.fit(X, Y)


def test_a_saved_one_is_replaced_with_all_its_folders_and_nothing_else(tmp_path):
    quick().fit(X, np.array(["old", "older"])[Y]).save(tmp_path / "a")
    augmenter = quick().fit(X, np.array(["new", "newer"])[Y])
    augmenter.save(tmp_path / "a")
    folders = sorted(entry.name for entry in (tmp_path / "a").iterdir())
    assert folders == ["augmenter.json", "new", "newer"]
    (tmp_path / "b").mkdir()
    for folder, name in [("a", "mine.txt"), ("a", "new/mine.txt"), ("b", "mine.txt")]:
        mine = tmp_path / folder / name
        mine.write_text("mine")
        with pytest.raises(ConfigurationError, match=f"has {name}, which no augmenter wrote"):
            augmenter.save(tmp_path / folder)
        assert mine.read_text() == "mine"
        mine.unlink()
    assert len(Augmenter.load(tmp_path / "a").sample(1)[0])  # a refusal removes nothing


def test_one_made_of_functions_can_sample_and_says_what_it_lacks(tmp_path):
    made = Augmenter(lambda shape: VAE(shape, **NETWORKS), NormalSampler, fit_options={"epochs": 1})
    made.fit(X, Y).save(tmp_path)
    again = Augmenter.load(tmp_path)
    assert np.array_equal(again.sample(2)[0], made.sample(2)[0])
    with pytest.raises(ConfigurationError, match="its model or sampler was a function: set it"):
        again.fit(X, Y)
    again.set_params(model="vae", sampler="normal", model_options=NETWORKS).fit(X, Y)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"chartae": 1, "names": 3}', None])
def test_a_damaged_record_is_a_sentence(tmp_path, content):
    quick().fit(X, Y).save(tmp_path)
    record = tmp_path / "augmenter.json"
    if content is not None:
        record.write_text(content)
        with pytest.raises(CheckpointError, match=r"augmenter.json cannot be read"):
            Augmenter.load(tmp_path)
        return
    whole = json.loads(record.read_text())
    for key in whole:
        for value in (None, 3, [], {}, "x", {"x": 1}):
            record.write_text(json.dumps({**whole, key: value}))
            with contextlib.suppress(ChartaeError):  # anything else would be raw
                assert len(Augmenter.load(tmp_path).sample(1)[0])


def test_a_record_and_folders_that_do_not_agree_are_damage(tmp_path):
    quick().fit(X, Y).save(tmp_path)
    record = tmp_path / "augmenter.json"
    whole = json.loads(record.read_text())
    short = {**whole["labels"], "values": whole["labels"]["values"][:1]}
    record.write_text(json.dumps({**whole, "labels": short}))
    with pytest.raises(
        CheckpointError, match=r"damaged: it has 2 names for labels of shape \(1,\)"
    ):
        Augmenter.load(tmp_path)
    record.write_text(json.dumps(whole))
    load(tmp_path / "0").model.save_pretrained(tmp_path / "1")
    with pytest.raises(CheckpointError, match="1 contains no sampler: the augmenter is damaged"):
        Augmenter.load(tmp_path)


def test_the_folder_of_an_augmenter_is_no_model(tmp_path):
    quick().fit(X, Y).save(tmp_path)
    with pytest.raises(CheckpointError, match=r"has no config.json"):
        load(tmp_path)


def test_class_names_stay_below_the_folder_and_apart(tmp_path):
    names = ["..", ".", "", "<1", ">1", "A", "a"]
    x, y = examples(per_class=2, classes=len(names))
    quick(output_dir=tmp_path / "in" / "out").fit(x, np.array(names)[y])
    assert [entry.name for entry in tmp_path.iterdir()] == ["in"]
    assert [entry.name for entry in (tmp_path / "in").iterdir()] == ["out"]
    below = {entry.name for entry in (tmp_path / "in" / "out").iterdir()}
    assert below == {"augmenter.json", *map(folder_name, names)}


def test_a_folder_of_other_classes_is_not_taken_for_its_own(tmp_path):
    quick(output_dir=tmp_path).fit(X, np.array(["a", "b"])[Y])
    with pytest.raises(ConfigurationError, match="has models of the classes a, b: expected the"):
        quick(output_dir=tmp_path).fit(X, np.array(["a", "c"])[Y])
    quick(output_dir=tmp_path).fit(X, np.array(["a", "b"])[Y])


# --- several processes, other modes ---------------------------------------------------------------


@pytest.mark.slow
def test_processes_give_the_same_as_one(tmp_path, monkeypatch):
    one, several = quick().fit(X, Y), quick(jobs=2).fit(X, Y)
    assert np.array_equal(one.sample(3)[0], several.sample(3)[0])
    made = Augmenter(
        lambda shape: VAE(shape, **NETWORKS), NormalSampler, fit_options={"epochs": 1}, jobs=2
    )
    assert made.fit(X, Y).models_.keys() == {"0", "1"}
    # Workers that are still there have the working directory in which they were started.
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        monkeypatch.chdir(tmp_path / str(number))
        quick(jobs=2, output_dir="models").fit(X, Y)
        assert {e.name for e in Path("models").iterdir()} == {"0", "1", "augmenter.json"}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("model", ["vae", "rhvae"])
def test_the_mode_of_the_caller_does_not_matter(mode, model):
    options = {**QUICK, "model": model, "sampler": "normal" if model == "vae" else "volume"}
    if model == "rhvae":
        options["model_options"] = {**NETWORKS, "metric_network": TINY}
        options["sampler_options"] = {"num_steps": 3, "num_warmup": 3}
    expected = Augmenter(**options).fit(X, Y).sample(2)[0]
    with mode():
        drawn = Augmenter(**options).fit(X, Y).sample(2)[0]
    np.testing.assert_allclose(drawn, expected, rtol=1e-5)


def test_it_runs_in_float64_by_default():
    torch.set_default_dtype(torch.float64)
    try:
        augmenter = quick().fit(X.astype(np.float32), Y)
        assert augmenter.models_["0"].dtype == torch.float64
        assert augmenter.sample(1)[0].dtype == np.float32
    finally:
        torch.set_default_dtype(torch.float32)


# --- the cheap methods ----------------------------------------------------------------------------


def test_each_class_has_as_many_neighbours_as_it_can():
    """On a circle, chords between the nearest points stay near it, those to others do not."""
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    x, y = np.concatenate([[[5.0, 5.0], [6.0, 6.0]], circle]), np.array([0] * 2 + [1] * 20)
    drawn, labels = smote(x, y, {0: 300, 1: 300}, seed=0)
    pair = drawn[labels == 0]
    assert ((pair >= 5) & (pair <= 6)).all()
    np.testing.assert_allclose(pair[:, 0], pair[:, 1])
    radii = np.linalg.norm(drawn[labels == 1], axis=1)
    assert radii.min() < np.cos(2 * np.pi / 20) + 0.01 < np.cos(np.pi / 20)
    assert radii.max() <= 1.0 + 1e-9


def test_a_class_of_one_has_no_neighbours():
    with pytest.raises(DataError, match=r"1 example\(s\) of class 2: SMOTE expects at least 2"):
        smote(np.eye(3), np.array([1, 1, 2]), {1: 2, 2: 2}, seed=0)


def test_noise_on_bytes_is_on_the_scale_of_images():
    x = np.full((50, 20), 128, dtype=np.uint8)
    x[0] = [0, 255] * 10
    drawn, _ = gaussian_noise(x, np.zeros(50, dtype=int), {0: 200}, seed=0)
    assert drawn.dtype == np.uint8
    assert abs(drawn.astype(float).mean() - 128) < 2
    assert 20 < drawn.astype(float).std() < 35


# --- every pair -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_every_model_with_every_sampler_learns_from_five_of_a_class(model):
    """All that `--help` names, with the defaults, but for the number of epochs."""
    x, y = examples((12, 12), per_class=5, classes=2)
    tried = 0
    for name, sampler in SAMPLERS.items():
        fast = {"epochs": 1} if issubclass(sampler, LearnedSampler) else {}
        augmenter = Augmenter(model, name, fit_options={"epochs": 12}, sampler_options=fast)
        try:
            drawn, _ = augmenter.fit(x.astype(np.float32), y).sample(2)
        except ConfigurationError as error:
            assert "does not support" in str(error)  # noqa: PT017
            continue
        tried += 1
        assert drawn.shape == (4, 12, 12)
        assert np.isfinite(drawn).all()
    assert tried


@pytest.mark.parametrize("contrast", [1.0, 0.1])
def test_faint_classes_keep_their_spread(contrast):
    """A class whose pixels hardly vary is measured in its own units: nothing collapses."""
    data = digits()
    few = (data.y == 3).nonzero()[:12, 0]
    x = (0.5 + contrast * (data.x[few] - 0.5)).numpy()
    augmenter = Augmenter("vae", "mixture").fit(x, np.zeros(12, int))
    samples, _ = augmenter.sample(100)
    spread = np.sqrt(samples.var(0).mean() / x.var(0).mean())
    assert 0.6 < spread < 1.2
    kind = augmenter.models_["0"].observation_model.link
    assert kind == ("sigmoid" if contrast == 1.0 else "auto")


def test_weights_reach_the_models():
    x, y = digits().x[:24].numpy(), np.zeros(24, int)
    weight = (np.arange(24) < 16).astype(float)
    states = []
    for others in (x, x[::-1]):
        augmenter = Augmenter("vae", "normal", fit_options={"epochs": 3})
        augmenter.fit(np.concatenate([x[:16], others[16:]]), y, weight=weight)
        states.append(augmenter.models_["0"].state_dict())
    assert all(bool((states[0][name] == states[1][name]).all()) for name in states[0])
    unweighted = Augmenter("vae", "normal", fit_options={"epochs": 3}).fit(x, y)
    theirs = unweighted.models_["0"].state_dict()
    assert any(bool((states[0][name] != theirs[name]).any()) for name in theirs)


def test_masks_reach_the_samplers():
    # Unobserved cells are kept as 0, a hundred deviations from the others.
    generator = np.random.default_rng(0)
    x, seen = 100.0 + generator.standard_normal((30, 4)), generator.random((30, 4)) < 0.7
    augmenter = Augmenter("ae", "mixture", fit_options={"epochs": 3})
    augmenter.fit(x, np.zeros(30, int), mask=seen)
    codes = augmenter.models_["0"].encode(x.astype(np.float32), mask=seen)
    means = augmenter.samplers_["0"].means.numpy()
    assert (means >= codes.min(0) - 1e-3).all()
    assert (means <= codes.max(0) + 1e-3).all()
