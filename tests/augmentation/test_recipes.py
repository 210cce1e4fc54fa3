"""The hyper-parameters of the thesis' tables."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from chartae import Augmenter
from chartae.augmentation import RECIPES
from chartae.cli import run
from chartae.errors import ConfigurationError
from chartae.models import MODELS

# Latent dimension, K, step size, T, lambda, sqrt(beta_0), the widths of the dense encoder,
# learning rate and patience.
TABLES = {
    "thesis/mnist": ((16, 16), 2, 3, 1e-2, 0.8, 1e-3, 0.3, [400], 1e-3, 20),
    "thesis/fashion": ((16, 16), 5, 3, 1e-2, 0.8, 1e-3, 0.3, [400], 1e-3, 20),
    "thesis/ten_dimensions": ((16, 16), 10, 3, 1e-2, 1.5, 1e-3, 0.3, [400], 1e-3, 20),
    "thesis/cifar": ((3, 32, 32), 5, 3, 1e-2, 0.8, 1e-3, 0.3, None, 1e-4, None),
    "thesis/adni": ((1, 4, 5, 6), 10, 3, 1e-3, 1.5, 1e-2, 0.3, [500, 500, 400], 1e-5, 50),
    "thesis/oasis": ((13, 11), 2, 3, 1e-3, 0.8, 1e-2, 0.3, [1000, 400], 1e-4, 50),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_builds_the_model_of_its_table(name):
    shape, d, steps, step_size, temperature, ridge, beta, hidden, rate, patience = TABLES[name]
    augmenter = Augmenter.from_recipe(name)
    model = MODELS[augmenter.model](shape, **augmenter.model_options)
    assert (model.latent_dim, model.num_leapfrog) == (d, steps)
    assert (model.temperature, model.regularization) == (temperature, ridge)
    assert (model.step_size, model.sqrt_beta_0) == (step_size, beta)
    if hidden is not None:
        layers = [m for m in model.encoder.modules() if isinstance(m, torch.nn.Linear)]
        assert [layer.out_features for layer in layers] == hidden
    training = augmenter.fit_options
    assert (training["learning_rate"], training["patience"]) == (rate, patience)


def test_arguments_replace_those_of_the_recipe():
    options = {"fit_options": {"epochs": 1}, "model_options": {"latent_dim": 3}}
    augmenter = Augmenter.from_recipe("thesis/mnist", sampler="mixture", seed=5, **options)
    assert augmenter.seed == 5
    assert augmenter.sampler_options is None  # those of the recipe are for another sampler
    assert augmenter.model_options["temperature"] == 0.8
    x, y = np.random.default_rng(0).random((8, 4, 4)), np.arange(8) % 2
    assert augmenter.fit(x, y).sample(2)[0].shape == (4, 4, 4)
    assert augmenter.histories_["0"].num_epochs == 1
    assert augmenter.models_["0"].latent_dim == 3
    with pytest.raises(ConfigurationError, match="one of the model 'rhvae'"):
        Augmenter.from_recipe("thesis/mnist", model="vae")
    with pytest.raises(ConfigurationError, match="thesis/oasis"):
        Augmenter.from_recipe("thesis/mri")


def test_the_command_takes_a_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x, y = np.random.default_rng(0).random((8, 4, 4)), np.array(["a", "b"] * 4)
    np.savez("few.npz", x=x, y=y)
    line = "augment few.npz --out new.npz --recipe thesis/oasis --epochs 1 --per-class 2"
    assert run([*line.split(), "--sampler-options.num-steps", "2"]) == 0
    record = json.loads((Path("new-models") / "augmenter.json").read_text())["arguments"]
    assert record["model_options"]["encoder"] == "thesis/oasis"
    assert record["sampler_options"] == {
        **RECIPES["thesis/oasis"].arguments["sampler_options"],
        "num_steps": 2,
    }
    assert (record["fit_options"]["epochs"], record["fit_options"]["patience"]) == (1, 50)
    assert run(["augment", "--help"]) == 0
    assert set(RECIPES) <= set(re.findall(r"thesis/\w+", capsys.readouterr().out))
