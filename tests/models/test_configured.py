"""Models and samplers know their constructor's arguments, and check their names."""

import copy
import inspect
import json
import pickle
from typing import Unpack

import numpy as np
import pytest
import torch
from tests.models.conftest import SMALL, batch_of, conditions_of

import chartae
from chartae import samplers
from chartae.errors import ConfigurationError
from chartae.models import HVAE, RHVAE, VAE
from chartae.models.base import Networks
from chartae.models.configured import Configured
from chartae.samplers import MixtureSampler, Sampler

PUBLIC = [
    getattr(chartae, name)
    for name in chartae.__all__
    if inspect.isclass(getattr(chartae, name)) and issubclass(getattr(chartae, name), Configured)
]
NETWORKS = {"encoder": SMALL, "decoder": SMALL}


def small_vae(**changes):
    torch.manual_seed(0)
    return VAE((8, 8), 2, **{**NETWORKS, **changes}).eval()


# --- the names of arguments ---------------------------------------------------------------------


@pytest.mark.parametrize("cls", PUBLIC)
def test_a_misspelt_argument_is_told_its_right_name(cls):
    wrong, right = ("modle", "model") if issubclass(cls, Sampler) else ("latent_dims", "latent_dim")
    message = f"^{wrong} is not an argument of {cls.__name__}; did you mean {right}\\?$"
    with pytest.raises(ConfigurationError, match=message):
        cls(**{wrong: 2})
    with pytest.raises(ConfigurationError, match=f"^qqq is not an argument of {cls.__name__}: exp"):
        cls(qqq=2)


def test_arguments_of_the_classes_above_are_known_too():
    for cls, wrong, right in [
        (VAE, "likelihod", "likelihood"),
        (chartae.HRQVAE, "num_code", "num_codes"),
        (chartae.FlowSampler, "epoch", "epochs"),
        (chartae.MixupSampler, "max_chain", "max_chains"),
    ]:
        with pytest.raises(ConfigurationError, match=f"did you mean {right}?"):
            cls(**{wrong: 2})


def test_missing_and_superfluous_arguments_are_named():
    with pytest.raises(
        ConfigurationError, match="VAE: missing .*'latent_dim'; it takes input_shap"
    ):
        VAE((8, 8))
    with pytest.raises(ConfigurationError, match="VAE: missing .*'input_shape'"):
        VAE()
    with pytest.raises(ConfigurationError, match="VAE: too many positional arguments"):
        VAE((8, 8), 2, "mlp")
    with pytest.raises(ConfigurationError, match="VAE: multiple values for argument 'latent_dim'"):
        VAE((8, 8), 2, latent_dim=3)
    with pytest.raises(ConfigurationError, match="NormalSampler: missing .*'model'"):
        chartae.NormalSampler()


def test_signatures_stay_readable():
    assert list(inspect.signature(chartae.BetaVAE).parameters) == [
        "input_shape", "latent_dim", "beta", "networks",
    ]  # fmt: skip


# --- what is recorded ---------------------------------------------------------------------------


def test_numpys_numbers_are_stored_as_pythons(tmp_path):
    model = RHVAE(
        np.array([8, 8]),
        np.int64(2),
        num_leapfrog=np.int32(2),
        step_size=np.float32(0.5),
        encoder={"name": "mlp", "hidden": np.array([16])},
        metric_network=SMALL,
        likelihood={"name": "gaussian", "scale": np.float64(0.3)},
        conditions=np.int64(3),
    )
    config = model.config()
    assert json.loads(json.dumps(config))["encoder"] == {"name": "mlp", "hidden": [16]}
    assert (type(config["latent_dim"]), type(config["step_size"])) == (int, float)
    assert config["input_shape"] == (8, 8)
    model.save_pretrained(tmp_path)
    assert chartae.load(tmp_path).num_leapfrog == 2
    sampler = MixtureSampler(small_vae(), np.int64(3), seed=np.int32(4))
    assert (sampler.num_components, sampler.seed) == (3, 4)


def test_a_changed_attribute_is_saved(tmp_path):
    model = chartae.BetaVAE((8, 8), 2, beta=2.0, **NETWORKS)
    model.beta = 3.0
    model.save_pretrained(tmp_path)
    assert chartae.load(tmp_path).beta == 3.0


class Deciding(HVAE):
    """Decides one argument of the class above, and passes on the others, undeclared."""

    def __init__(self, input_shape, latent_dim, extra=1, **options):
        super().__init__(input_shape, latent_dim, step_size=0.02 * extra, **options)


def test_what_a_class_decides_is_no_argument():
    model = Deciding((4,), 2, num_leapfrog=2, likelihood="laplace")
    config = model.config()
    assert {"input_shape", "latent_dim", "extra", "num_leapfrog", "sqrt_beta_0"} <= config.keys()
    assert "step_size" not in config
    assert (config["extra"], config["likelihood"]) == (1, "laplace")
    assert Deciding(**config).config() == config
    with pytest.raises(
        ConfigurationError, match="num_leapfrogs is not an argument of Deciding; di"
    ):
        Deciding((4,), 2, num_leapfrogs=2)


class Hiding(HVAE):
    """Passes on the declared arguments of another class, and leaves those of the HVAE alone."""

    def __init__(self, input_shape, latent_dim, **options: Unpack[Networks]):
        super().__init__(input_shape, latent_dim, **options)


def test_what_a_class_leaves_to_defaults_is_no_argument(tmp_path):
    model = Hiding((4,), 2, likelihood="laplace")
    names = {"input_shape", "latent_dim", "encoder", "decoder", "likelihood", "conditions"}
    assert model.config().keys() == names
    model.save_pretrained(tmp_path)
    assert chartae.load(tmp_path).config() == model.config()


class Swallowing(Sampler):
    """Takes any options."""

    def __init__(self, model, **options):
        super().__init__(model)
        self.options = options

    def draw_latents(self, n, seed, y=None):
        return self.options["shift"] + self.noise((n, self.model.latent_dim), seed)


def test_a_sampler_with_any_options_is_saved(tmp_path):
    sampler = Swallowing(small_vae(), shift=2.0, words=["a"])
    assert sampler.config() == {"model": sampler.model, "shift": 2.0, "words": ["a"]}
    sampler.save_pretrained(tmp_path)
    twin = chartae.load(tmp_path)
    assert twin.options == {"shift": 2.0, "words": ["a"]}
    assert (twin.sample(3, seed=0) == sampler.sample(3, seed=0)).all()


def test_copies_and_pickles_have_the_arguments():
    model = small_vae(encoder=torch.nn.Flatten())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.config()["encoder"] is twin.encoder
        assert twin.config()["latent_dim"] == 2


# --- states of what has been fitted ---------------------------------------------------------------


def test_a_fresh_model_takes_the_state_of_a_fitted_one(make, digits):
    model, fresh = make(), make(seed=1)
    model.on_fit_end([batch_of(model, digits)])
    assert fresh.load_state_dict(model.state_dict()).missing_keys == []
    y = conditions_of(model, 64)
    assert (fresh.eval().encode(digits, y) == model.eval().encode(digits, y)).all()
    losses = []
    for one in (model, fresh):
        torch.manual_seed(0)
        losses.append(sum(one.loss(digits, y=y).objectives.values()))
    assert losses[0] == losses[1]
    # And back: what is not fitted leaves nothing behind.
    model.load_state_dict(make().state_dict())
    assert all(len(model.get_buffer(n)) == 0 for n in model.fitted_buffers if hasattr(model, n))


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (samplers.MixtureSampler, {"num_components": 3}),
        (samplers.VolumeSampler, {"num_steps": 3, "num_warmup": 3}),
        (samplers.FlowSampler, {"hidden": [8], "epochs": 1}),
        (samplers.TwoStageSampler, {"hidden": [8], "epochs": 1}),
    ],
)
def test_a_fresh_sampler_takes_the_state_of_a_fitted_one(cls, options, digits):
    sampler = cls(small_vae(), **options).fit(digits)
    fresh = cls(small_vae(), **options)
    fresh.load_state_dict(sampler.state_dict())
    assert (fresh.sample(4, seed=0) == sampler.sample(4, seed=0)).all()


def test_a_state_of_another_model_is_still_refused(digits):
    model = RHVAE((8, 8), 2, metric_network=SMALL, **NETWORKS)
    other = RHVAE((8, 8), 3, metric_network=SMALL, **NETWORKS)
    other.on_fit_end([{"x": digits}])
    with pytest.raises(RuntimeError, match=r"size mismatch for centroids"):
        model.load_state_dict(other.state_dict())
