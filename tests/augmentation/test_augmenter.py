import inspect

import numpy as np
import pytest
import torch

import chartae.models
import chartae.samplers
from chartae.augmentation import MODELS, SAMPLERS, Augmenter
from chartae.errors import ConfigurationError, DataError
from chartae.models import VAE, Autoencoder
from chartae.samplers import NormalSampler, Sampler

QUICK = {"model": "vae", "sampler": "normal", "fit_options": {"epochs": 2}}
CONDITIONAL = {**QUICK, "conditional": True}


def examples(per_class=4, shape=(4, 4), classes=2):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((classes * per_class, *shape), generator=generator)
    return x, torch.arange(classes).repeat_interleave(per_class)


NETWORKS = {n: {"name": "mlp", "hidden": [32]} for n in ("encoder", "decoder")}
VOLUME = {
    "sampler_options": {"num_steps": 20, "num_warmup": 20},
    "model_options": {**NETWORKS, "metric_network": NETWORKS["encoder"]},
}
KINDS = {
    "of each class": VOLUME,
    "conditional": {**VOLUME, "conditional": True},
    "cvae and flow": {
        "model": "cvae",
        "sampler": "flow",
        "sampler_options": {"epochs": 20, "hidden": [32]},
        "model_options": NETWORKS,
    },
}


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS.keys())
def dark_and_light(request):
    """An augmenter of two classes that nobody could confuse: black images and white ones."""
    x, y = examples(per_class=8)
    x = 0.1 * x + 0.9 * y[:, None, None].float()
    training = {"epochs": 50, "learning_rate": 1e-2}
    return Augmenter(**request.param, fit_options=training, seed=1).fit(x, y)


def test_samples_are_of_the_class_of_their_label(dark_and_light):
    x, y = dark_and_light.sample(20)
    assert x[y == 0].mean() < 0.3
    assert x[y == 1].mean() > 0.7


def test_samples_follow_the_seed(dark_and_light):
    first, _ = dark_and_light.sample(5, seed=3)
    again, _ = dark_and_light.sample(5, seed=3)
    other, _ = dark_and_light.sample(5, seed=4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_counts_by_label(dark_and_light):
    _, y = dark_and_light.sample({1: 3, 0: 2})
    assert sorted(y.tolist()) == [0, 0, 1, 1, 1]


def test_histories_are_kept(dark_and_light):
    assert dark_and_light.histories_
    assert all(history.num_epochs == 50 for history in dark_and_light.histories_.values())


def test_same_seed_same_models():
    x, y = examples()
    first, second = (Augmenter(**QUICK, seed=5).fit(x, y).sample(3)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_classes_of_the_same_data_share_no_noise():
    def same_weights(shape):
        torch.manual_seed(0)
        return VAE(shape, 2)

    one_class, _ = examples(classes=1)
    x, y = one_class.repeat(2, 1, 1), torch.arange(2).repeat_interleave(4)
    still = {**QUICK, "fit_options": {"epochs": 1, "learning_rate": 1e-12}}
    first, second = Augmenter(**still).fit(x, y).models_.values()
    assert not torch.allclose(first.encoder[1].weight, second.encoder[1].weight, atol=1e-3)
    augmenter = Augmenter(**{**still, "model": same_weights}).fit(x, y)
    first, second = augmenter.histories_.values()
    assert first.train["reconstruction"] != second.train["reconstruction"]
    assert augmenter.fidelity_["0"] != augmenter.fidelity_["1"]
    first, second = augmenter.sample(3)[0].split(3)
    assert not torch.allclose(first, second, atol=1e-3)


@pytest.mark.parametrize("options", [QUICK, CONDITIONAL], ids=["of each class", "conditional"])
@pytest.mark.parametrize(
    ("x_type", "y_values"),
    [
        (np.float32, ["dog", "cat"]),
        (np.uint8, [7, 3]),
    ],
)
def test_arrays_come_back_as_what_went_in(x_type, y_values, options):
    x, y = examples()
    x = (255 * x.numpy()).astype(x_type) if x_type is np.uint8 else x.numpy()
    labels = np.array(y_values)[y]
    augmenter = Augmenter(**options).fit(x, labels)
    x_new, y_new = augmenter.sample(3)
    assert augmenter.classes_.tolist() == sorted(y_values)
    assert isinstance(x_new, np.ndarray)
    assert x_new.dtype == x.dtype
    assert x_new.shape == (6, 4, 4)
    assert sorted(set(y_new)) == sorted(y_values)


def test_tensors_come_back_as_tensors():
    x_new, y_new = Augmenter(**QUICK).fit(*examples()).sample(2)
    assert isinstance(x_new, torch.Tensor)
    assert isinstance(y_new, torch.Tensor)


def test_own_model_and_sampler():
    augmenter = Augmenter(
        lambda shape: VAE(shape, latent_dim=2), NormalSampler, fit_options={"epochs": 1}
    )
    assert augmenter.fit(*examples()).sample(1)[0].shape == (2, 4, 4)


def test_one_model_or_one_of_each_class():
    apart = Augmenter(**QUICK).fit(*examples())
    together = Augmenter(**CONDITIONAL).fit(*examples())
    for kept in ("models_", "samplers_", "histories_"):
        assert getattr(apart, kept).keys() == {"0", "1"}
        assert getattr(together, kept).keys() == {"all"}
    assert apart.models_["0"].conditions is None
    assert together.models_["all"].conditions == 2


def test_a_conditional_sampler_is_fitted_to_all_classes_with_their_labels(monkeypatch):
    seen = {}

    def fit(sampler, x=None, y=None):
        seen.update(x=x, y=y)
        return sampler

    monkeypatch.setattr(NormalSampler, "fit", fit)
    x, y = examples()
    Augmenter(**CONDITIONAL).fit(x, y)
    assert torch.equal(seen["x"], x)
    assert torch.equal(seen["y"], y)


def test_labels_are_asked_of_a_conditional_model_by_their_places():
    """The label 9 is class 1 of the model, and the one of white images."""
    x, y = examples(per_class=8)
    x = 0.1 * x + 0.9 * y[:, None, None].float()
    training = {"epochs": 60, "learning_rate": 1e-2}
    augmenter = Augmenter(**{**CONDITIONAL, "fit_options": training})
    x_new, y_new = augmenter.fit(x, torch.tensor([2, 9])[y]).sample({9: 5})
    assert y_new.tolist() == [9] * 5
    assert x_new.mean() > 0.7


def test_one_example_of_a_class_is_enough_for_a_conditional_model():
    x, y = examples()
    assert len(Augmenter(**CONDITIONAL).fit(x[:5], y[:5]).sample({1: 2})[0]) == 2


def test_own_conditional_model():
    options = {"sampler": "normal", "fit_options": {"epochs": 1}, "conditional": True}
    own = Augmenter(lambda shape, conditions: VAE(shape, 2, conditions=conditions), **options)
    assert own.fit(*examples()).sample(1)[0].shape == (2, 4, 4)
    with pytest.raises(ConfigurationError, match="conditions=5: expected 2"):
        Augmenter(lambda shape, conditions: VAE(shape, 2, conditions=5), **options).fit(*examples())


def test_an_interrupted_conditional_training_continues(tmp_path):
    x, y = examples()
    longer = {**CONDITIONAL, "fit_options": {"epochs": 4}}
    Augmenter(**CONDITIONAL, output_dir=tmp_path).fit(x, y)
    assert {entry.name for entry in tmp_path.iterdir()} == {"all", "augmenter.json"}
    resumed = Augmenter(**longer, output_dir=tmp_path).fit(x, y)
    assert resumed.histories_["all"].num_epochs == 4
    assert torch.equal(resumed.sample(3)[0], Augmenter(**longer).fit(x, y).sample(3)[0])


def test_kept_models_are_found_again(tmp_path):
    x, y = examples()
    first = Augmenter(**QUICK, output_dir=tmp_path).fit(x, y).sample(3)[0]
    again = Augmenter(**QUICK, output_dir=tmp_path).fit(x, y).sample(3)[0]
    assert torch.equal(first, again)


def test_interrupted_training_ends_the_fit(monkeypatch):
    from chartae.augmentation import learning as module
    from chartae.training import History

    calls = []

    def interrupted_fit(*arguments, **options):
        calls.append(options)
        return History(stopped="interrupted")

    monkeypatch.setattr(module, "fit", interrupted_fit)
    with pytest.raises(KeyboardInterrupt):
        Augmenter(**{**QUICK, "fit_options": {}}).fit(*examples())
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "rhva"}, "model='rhva' is not known.*'rhvae'"),
        ({"sampler": "volum"}, "sampler='volum' is not known"),
        ({"seed": -1}, "seed=-1"),
        ({"fit_options": {"epoch": 3}}, "fit_options='epoch' is not known.*'epochs'"),
    ],
)
def test_wrong_options_are_refused_at_once(options, message):
    with pytest.raises(ConfigurationError, match=message):
        Augmenter(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"model_options": {"depth": 3}},
        {"sampler_options": {"steps": 3}},
        {"sampler": "volume", "sampler_options": {"geometry": "model"}},
        {"sampler": "sphere"},
        {"model": "cvae", "sampler": "vamp"},
        {"model": "iafvae", "sampler": "volume", "conditional": True},
        {"model_options": {"conditions": 2}},
        {"model_options": {"conditions": 3}, "conditional": True},
    ],
)
def test_wrong_options_are_refused_before_training(options, monkeypatch):
    from chartae.augmentation import learning as module

    def no_fit(*arguments, **options):
        pytest.fail("trained before it refused")

    no_fit.__signature__ = inspect.signature(module.fit)
    monkeypatch.setattr(module, "fit", no_fit)
    with pytest.raises(ConfigurationError):
        Augmenter(**{**QUICK, **options}).fit(*examples())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x, y[:-1]), "y has 7 labels for 8 samples"),
        (lambda x, y: (x.masked_fill(x > 0.5, torch.nan), y), "x has .* NaN"),
        (lambda x, y: (x[3:5], y[3:5]), "one example of class '0'"),
        (lambda x, y: (x[:0], y[:0]), "empty"),
    ],
)
def test_wrong_data_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        Augmenter(**QUICK).fit(*change(*examples()))


@pytest.mark.parametrize("per_class", [0, -1, 2.5, {"2": 3}, {0: 0}])
def test_wrong_counts_are_refused(dark_and_light, per_class):
    with pytest.raises(ConfigurationError, match="per_class"):
        dark_and_light.sample(per_class)


def test_sampling_needs_a_fit():
    with pytest.raises(ConfigurationError, match="not been fitted"):
        Augmenter().sample(1)


def usable(package, base):
    """Return the classes of a package that say of themselves that they are no bases."""
    classes = (getattr(package, name) for name in package.__all__)
    return {
        cls
        for cls in classes
        if inspect.isclass(cls)
        and issubclass(cls, base)
        and not inspect.cleandoc(cls.__doc__).startswith(("Base of", "The base of"))
    }


def test_every_model_and_every_sampler_has_a_name():
    assert set(MODELS.values()) == usable(chartae.models, Autoencoder)
    assert set(SAMPLERS.values()) == {
        cls for cls in usable(chartae.samplers, Sampler) if not inspect.isabstract(cls)
    }
    assert all(name == cls.__name__.lower() for name, cls in MODELS.items())
    assert set(MODELS) >= {"vae", "betatcvae", "iafvae", "vqvae", "rhvae", "cvae"}
    assert set(SAMPLERS) >= {"normal", "mixture", "mixup", "random_walk", "volume", "two_stage"}


def test_held_out_examples_choose_the_number_of_epochs_of_many(monkeypatch):
    """Noise cannot be learned: every epoch after the first few makes held-out examples worse."""
    from chartae.augmentation import learning as module

    monkeypatch.setattr(module, "ENOUGH", 30)
    monkeypatch.setattr(module, "LONGEST", 60)
    monkeypatch.setattr(module, "PATIENCE", 10)
    x = np.random.default_rng(0).standard_normal((60, 20)).astype(np.float32)
    many, few = np.zeros(40, dtype=int), np.ones(20, dtype=int)
    options = {"model_options": {"latent_dim": 8}, "fit_options": {"learning_rate": 1e-2}}
    learned = Augmenter("vae", "normal", **options).fit(x, np.concatenate([many, few]))
    assert learned.histories_["0"].num_epochs < 60
    assert learned.histories_["1"].num_epochs == module.EPOCHS
    fixed = {**options, "fit_options": {"epochs": 3}}
    learned = Augmenter("vae", "normal", **fixed).fit(x, np.concatenate([many, few]))
    assert learned.histories_["0"].num_epochs == 3


def test_balance_fills_up_to_the_largest_class(tmp_path):
    x = np.random.default_rng(0).random((12, 6)).astype(np.float32)
    y = np.array(["a"] * 3 + ["b"] * 7 + ["c"] * 2)
    augmenter = Augmenter("vae", "normal", fit_options={"epochs": 2}).fit(x, y)
    labels = augmenter.sample("balance")[1]
    assert labels.tolist() == ["a"] * 4 + ["c"] * 5
    augmenter.save(tmp_path)
    assert Augmenter.load(tmp_path).sample("balance")[1].tolist() == labels.tolist()
    with pytest.raises(ConfigurationError, match="per_class='balanced'"):
        augmenter.sample("balanced")
    even = Augmenter("vae", "normal", fit_options={"epochs": 1}).fit(x[:6], y[[0, 1, 2, 3, 4, 5]])
    with pytest.raises(ConfigurationError, match="all classes have the same size"):
        even.sample("balance")
