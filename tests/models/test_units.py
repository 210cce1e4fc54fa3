"""Data of any scale: what a model does is the same in the units of the data."""

import json
import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import chartae
from chartae import RHVAE, VAE, fit, models
from chartae.distributions import make_likelihood
from chartae.errors import CheckpointError

OPTIONS = {"epochs": 2, "batch_size": 16, "seed": 0, "progress": False}
SMALL = {"name": "mlp", "hidden": [8]}
NETS = {"encoder": SMALL, "decoder": SMALL}


def table(n=48, d=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return 3.0 * torch.randn(n, d, generator=generator, dtype=torch.float64) @ mixing


def trained(x, model=VAE, **options):
    torch.manual_seed(0)
    made = model(tuple(x.shape[1:]), 2, **NETS, **options).to(x.dtype)
    return made, fit(made, x, **OPTIONS)


@settings(max_examples=12, deadline=None)
@given(
    power=st.floats(-8, 8),
    offset=st.floats(-3, 3),
    likelihood=st.sampled_from(["gaussian", "laplace"]),
    scale=st.sampled_from(["learned", "per_feature", 0.3]),
    shape=st.sampled_from([(5,), (1, 5)]),
)
def test_a_training_in_other_units_is_the_same_training(power, offset, likelihood, scale, shape):
    s = 10.0**power
    x = table().reshape(-1, *shape) + 2.0  # beyond [0, 1], in either units
    moved = s * (x + offset)
    if float(moved.min()) >= 0.0 and float(moved.max()) <= 1.0:
        return  # it keeps its units
    spec = {"name": likelihood, "scale": scale}
    (ours, history), (theirs, other) = (trained(data, likelihood=spec) for data in (x, moved))
    shift = x[0].numel() * math.log(s)
    np.testing.assert_allclose(
        np.array(other.train["loss"]) - shift, history.train["loss"], rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(
        theirs.reconstruct(moved) / s - offset, ours.reconstruct(x), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(
        theirs.log_likelihood(moved, 20, seed=0) + shift, ours.log_likelihood(x, 20, seed=0)
    )


def test_units_of_vectors_are_those_of_each_feature_and_of_arrays_those_of_all():
    x = torch.tensor([[1.0, 100.0], [3.0, 500.0]])
    vector, image = make_likelihood("gaussian", (2,)), make_likelihood("gaussian", (1, 2))
    model = VAE((2,), 1, likelihood=vector)
    model.set_units([{"x": x}])
    assert vector.center.tolist() == [2.0, 300.0]
    assert vector.spread.tolist() == [1.0, 200.0]
    assert model.observation_model.encoder_input(x).tolist() == [[-1.0, -1.0], [1.0, 1.0]]
    VAE((1, 2), 1, likelihood=image).set_units([{"x": x[:, None]}])
    assert image.center.item() == 151.0
    assert image.spread.item() == pytest.approx(float(x.std(correction=0)))


def test_only_what_was_observed_counts():
    x = torch.tensor([[1.0, 100.0], [3.0, 1e9], [1e9, 500.0]])
    mask = x < 1e9
    model = VAE((2,), 1, likelihood="gaussian")
    model.set_units([{"x": x[:2], "mask": mask[:2]}, {"x": x[2:], "mask": mask[2:]}])
    assert model.observation_model.center.tolist() == [2.0, 300.0]
    assert model.observation_model.spread.tolist() == [1.0, 200.0]


@pytest.mark.parametrize("low", [0.0, 0.3])
def test_data_in_the_unit_range_keep_their_units(low):
    x = low + (1.0 - low) * torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    model, _ = trained(x, likelihood="gaussian")
    assert model.observation_model.center.tolist() == [0.0] * 3
    assert model.observation_model.spread.tolist() == [1.0] * 3
    tiny, _ = trained(1e-6 * x, likelihood="gaussian")
    assert tiny.observation_model.spread.max() < 1e-6


def test_another_training_takes_the_units_of_its_data():
    x = table()
    model, _ = trained(x, likelihood="gaussian")
    fit(model, 1e3 * x, **OPTIONS)
    again, _ = trained(1e3 * x, likelihood="gaussian")
    torch.testing.assert_close(
        model.observation_model.spread, again.observation_model.spread, rtol=1e-12, atol=0
    )


def test_constant_features_come_back_as_they_are(caplog):
    caplog.set_level(logging.INFO)
    x = table()
    x[:, 1], x[:, 3] = 7e5, 0.0
    model, _ = trained(x, likelihood={"name": "gaussian", "scale": "per_feature"})
    assert "constant in the training set, and decoded as such: feature(s) 1, 3" in caplog.text
    assert all(record.levelno == logging.INFO for record in caplog.records)
    z = torch.randn(9, 2, dtype=torch.float64)
    for values in (model.decode(z), model.draw(z, seed=0)):
        assert (values[:, 1] == 7e5).all()
        assert (values[:, 3] == 0.0).all()
        assert (values[:, 0].std() > 0).all()
    assert model.log_likelihood(x, 10, seed=0).isfinite().all()


def test_a_constant_training_set_is_said_to_be_one(caplog):
    trained(torch.full((8, 3), 5.0), likelihood="gaussian")
    assert "the training set is constant: there is nothing to learn from it" in caplog.text


@pytest.mark.parametrize("rate", [1e-3, 1e-2])
@pytest.mark.parametrize("size", [30.0, 1e6])
def test_counts_of_any_size_are_decoded_to_their_size(rate, size):
    generator = torch.Generator().manual_seed(0)
    x = (size * torch.rand(200, 6, generator=generator).square()).round()
    torch.manual_seed(0)
    model = VAE((6,), 2, **NETS, likelihood="negative_binomial")
    fit(model, x, epochs=30, batch_size=50, learning_rate=rate, seed=0, progress=False)
    assert 0.5 < float(model.reconstruct(x).mean().detach() / x.mean()) < 2.0


def test_counts_that_are_all_zero_have_units_too():
    x = torch.zeros(10, 3)
    x[:, 0] = 4.0
    model, history = trained(x, likelihood="negative_binomial")
    assert model.observation_model.log_mean.isfinite().all()
    assert math.isfinite(history.train["loss"][-1])


def test_a_mixed_table_has_the_units_of_its_blocks():
    x = torch.cat([1e5 * table().float(), torch.eye(3).repeat(16, 1)], 1)
    columns = [["gaussian", 5], ["categorical", 3]]
    model, history = trained(x, likelihood={"name": "mixed", "columns": columns})
    block = model.observation_model.blocks[0]
    torch.testing.assert_close(block.spread, x[:, :5].std(0, correction=0))
    assert history.train["loss"][-1] < history.train["loss"][0]
    assert model.reconstruct(x).detach()[:, :5].std() > 1e4


@pytest.mark.parametrize("name", ["RHVAE", "VAMP", "VAEGAN", "IWAE", "VQVAE", "FactorVAE", "WAE"])
def test_every_kind_of_model_works_in_the_units_of_the_data(name):
    """Models that look at x in other places than the encoder: pseudo-inputs, metrics, features."""
    x = 1e6 * (table(d=8).float() + 50.0)
    kind = getattr(models, name)
    options = {"grid": (2, 2)} if name == "VQVAE" else {}
    torch.manual_seed(0)
    model = kind((8,), 8 if options else 2, **NETS, likelihood="gaussian", **options)
    history = fit(model, x, **{**OPTIONS, "epochs": 15})
    assert history.stopped == "finished"
    rebuilt = model.reconstruct(x).detach()
    spread = x.std(0)
    assert ((rebuilt.mean(0) - x.mean(0)).abs() < spread).all()
    assert float((rebuilt - x).div(spread).square().mean()) < 1.3


def test_saved_models_keep_their_units_and_older_files_have_none(tmp_path):
    x = table()
    model, _ = trained(x, likelihood="gaussian")
    model.save_pretrained(tmp_path)
    twin = chartae.load(tmp_path)
    torch.testing.assert_close(twin.reconstruct(x), model.reconstruct(x))
    fresh = VAE((5,), 2, **NETS).double()
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(fresh.reconstruct(x), model.reconstruct(x))

    weights = tmp_path / "model.safetensors"
    tensors = load_file(weights)
    metadata = {"config": json.loads(weights.read_bytes()[8:].split(b"}}")[0] + b"}}")
                ["__metadata__"]["config"]}  # fmt: skip
    older = {name: t for name, t in tensors.items() if not name.endswith(("center", "spread"))}
    assert len(older) == len(tensors) - 2
    save_file(older, weights, metadata=metadata)
    twin = chartae.load(tmp_path)
    assert twin.observation_model.spread.tolist() == [1.0] * 5
    older_state = {k: v for k, v in model.state_dict().items() if k in older}
    fresh.load_state_dict(older_state)
    assert fresh.observation_model.center.tolist() == model.observation_model.center.tolist()

    tensors["observation_model.spread"] = -tensors["observation_model.spread"]
    save_file(tensors, weights, metadata=metadata)
    with pytest.raises(CheckpointError, match="spread has negative values"):
        chartae.load(tmp_path)


def test_a_resumed_training_is_the_uncut_one(tmp_path):
    x = table()
    whole, _ = trained(x, RHVAE)
    torch.manual_seed(0)
    part = RHVAE((5,), 2, **NETS).double()
    fit(part, x, **{**OPTIONS, "epochs": 1}, output_dir=tmp_path)
    torch.manual_seed(0)
    rest = RHVAE((5,), 2, **NETS).double()
    fit(rest, x, **OPTIONS, output_dir=tmp_path, resume=True)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, rest.state_dict()[name]), name
