"""Data of any scale: what a model does is the same in the units of the data."""

import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset

import chartae
from chartae import RHVAE, VAE, fit, models
from chartae.data import ArrayDataset
from chartae.distributions import make_likelihood
from chartae.errors import CheckpointError, DataError, DivergenceError

OPTIONS = {"epochs": 2, "batch_size": 16, "seed": 0, "progress": False}
SMALL = {"name": "mlp", "hidden": [8]}
NETS = {"encoder": SMALL, "decoder": SMALL}


def table(n=48, d=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return 3.0 * torch.randn(n, d, generator=generator, dtype=torch.float64) @ mixing


def trained(data, model=VAE, *, lazily=False, **options):
    x, mask = data if isinstance(data, tuple) else (data, None)
    torch.manual_seed(0)
    made = model(tuple(x.shape[1:]), 2, **NETS, **options).to(x.dtype)
    given = data if mask is None else Rows(x, mask) if lazily else (x, None, mask)
    return made, fit(made, given, **OPTIONS)


@settings(max_examples=16, deadline=None)
@given(
    power=st.floats(-8, 8),
    offset=st.floats(-3, 3),
    likelihood=st.sampled_from(["gaussian", "laplace"]),
    scale=st.sampled_from(["learned", "per_feature", 0.3]),
    shape=st.sampled_from([(5,), (1, 5)]),
    most=st.sampled_from([math.inf, 9.0]),
)
def test_a_training_in_other_units_is_the_same_training(
    power, offset, likelihood, scale, shape, most
):
    s = 10.0**power
    x = table().clamp(max=most).reshape(-1, *shape) + 2.0  # beyond [0, 1], in either units
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
    assert image.center.tolist() == [[2.0, 300.0]]
    assert image.spread.item() == pytest.approx(math.sqrt((1.0 + 200.0**2) / 2))


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
    x = table(n=42)
    x[:, 1], x[:, 3] = 0.3, 0.0  # of which the mean in float64 is not 0.3
    model, _ = trained(x, likelihood={"name": "gaussian", "scale": "per_feature"})
    assert "constant in the training set: feature(s) 1, 3" in caplog.text
    said = [record for record in caplog.records if "constant" in record.message]
    assert [record.levelno for record in said] == [logging.INFO]
    z = torch.randn(9, 2, dtype=torch.float64)
    for values in (model.decode(z), model.draw(z, seed=0)):
        assert (values[:, 1] == 0.3).all()
        assert (values[:, 3] == 0.0).all()
        assert (values[:, 0].std() > 0).all()
    assert model.log_likelihood(x, 10, seed=0).isfinite().all()


@pytest.mark.parametrize("scale", ["learned", "per_feature"])
def test_constant_features_have_no_say_in_a_learned_scale(scale):
    x = table()
    both = torch.cat([x, torch.full((48, 20), 7e5, dtype=torch.float64)], 1)
    gradients = []
    for data in (x, both):
        likelihood = make_likelihood({"name": "gaussian", "scale": scale}, data[0].shape).double()
        VAE(tuple(data[0].shape), 1, likelihood=likelihood).set_units([{"x": data}])
        output = torch.zeros_like(data)
        assert likelihood.scale[5:].tolist() == [1.0] * (data.shape[1] - 5)
        (gradient,) = torch.autograd.grad(
            likelihood(output).log_prob(data).sum(), likelihood.raw_scale
        )
        gradients.append(gradient.flatten())
    assert gradients[1][5:].tolist() == [0.0] * len(gradients[1][5:])
    torch.testing.assert_close(gradients[1][:5], gradients[0])


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 18), (torch.float64, 150)])
def test_values_whose_squares_are_no_numbers_are_refused(dtype, most):
    for power in (most - 2, 2 - most):
        _, history = trained((10.0**power * table()).to(dtype), likelihood="gaussian")
        assert math.isfinite(history.train["loss"][-1])
    model = VAE((5,), 2, **NETS, likelihood="gaussian").to(dtype)
    with pytest.raises(DataError, match=rf"train has values up to .*e\+.* at most 1e\+{most}"):
        fit(model, (10.0**most * table()).to(dtype), **OPTIONS)
    x = table()
    x[:, 3] *= 10.0 ** (-2 - most)
    with pytest.raises(DataError, match=f"deviation of .* in feature 3: expected .* 1e-{most}"):
        fit(model, x.to(dtype), **OPTIONS)


class Rows(Dataset):
    """Samples made as they are asked for, with noise from torch's global generator."""

    def __init__(self, x, mask, noise=0.0):
        self.x, self.mask, self.noise = x, mask, noise

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        x = self.x[index]
        return {"x": x + self.noise * torch.rand_like(x), "mask": self.mask[index]}


def holes(x):
    return torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.7


@pytest.mark.parametrize("lazily", [False, True])
def test_what_was_not_observed_is_neutral_in_any_units(lazily):
    x, moved = table() + 2.0, 1e3 * (table() + 52.0)
    mask = holes(x)
    ours, history = trained((x, mask), lazily=lazily)
    theirs, other = trained((moved, mask), lazily=lazily)
    shift = float(mask.sum(1).double().mean()) * math.log(1e3)
    np.testing.assert_allclose(
        np.array(other.train["loss"]) - shift, history.train["loss"], rtol=1e-9
    )
    torch.testing.assert_close(
        theirs.log_likelihood(moved, 20, mask=mask, seed=0) + mask.sum(1) * math.log(1e3),
        ours.log_likelihood(x, 20, mask=mask, seed=0),
    )
    filled = ours.filled(x.masked_fill(~mask, 1e9), mask)
    assert (filled[mask] == x[mask]).all()
    seen = ours.observation_model.encoder_input(filled)
    assert (seen[~mask] == 0.0).all()
    torch.testing.assert_close(
        theirs.elbo(moved.masked_fill(~mask, 1e9), mask=mask, seed=0),
        theirs.elbo(moved, mask=mask, seed=0),
    )


def test_a_mask_of_another_shape_is_refused_by_filled():
    model = VAE((5,), 2, **NETS)
    with pytest.raises(DataError, match="mask has shape"):
        model.filled(torch.zeros(4, 5), torch.ones(4, 1, dtype=torch.bool))


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
@pytest.mark.parametrize("kind", ["array", "mask", "dataset"])
@pytest.mark.parametrize("shape", [(5,), (1, 5)])
def test_data_in_the_unit_range_train_bit_for_bit_as_without_units(
    kind, shape, likelihood, monkeypatch
):
    x = torch.rand(40, *shape, generator=torch.Generator().manual_seed(0)).clamp(max=0.9)
    mask = holes(x)
    data = {"array": x, "mask": (x, None, mask), "dataset": Rows(x, mask, noise=0.1)}[kind]
    found = []
    for forced in (False, True):
        if forced:
            monkeypatch.setattr(VAE, "set_units", lambda self, batches: None)
        torch.manual_seed(0)
        model = VAE(shape, 2, **NETS, likelihood=likelihood)
        history = fit(model, data, **OPTIONS)
        found.append((history.train["loss"], model.reconstruct(x)))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


def test_a_training_that_diverges_at_once_leaves_the_units_of_the_model_before():
    x = table()
    model, _ = trained(x, likelihood="gaussian")
    before = model.reconstruct(x).detach()
    broken = 1e3 * x
    rate = {**OPTIONS, "learning_rate": 1e30, "optimizer": "sgd"}
    with pytest.raises(DivergenceError):
        fit(model, broken, **rate)
    assert torch.equal(model.reconstruct(x), before)


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
    with torch.no_grad():
        assert 0.5 < float(model.reconstruct(x).mean() / x.mean()) < 2.0


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
    assert model.reconstruct(x)[:, :5].std() > 1e4


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in ("AE", "RAE", "WAE", "IWAE", "FactorVAE", "HVAE", "VAEGAN")),
        ("RAE", {"regularization": "gp"}),
        ("MSSSIMVAE", {"distance": "l2"}),
        ("VAMP", {"num_pseudo_inputs": 5}),
        ("RHVAE", {"geometry": "learned"}),
        ("VQVAE", {"grid": (1, 1)}),
    ],
)
@pytest.mark.parametrize("bounded", [False, True])
def test_every_kind_of_model_works_in_the_units_of_the_data(name, options, bounded):
    """Of some, other parts than the encoder see x: pseudo-inputs, metrics, penalties, critics."""
    x, kind = table(), getattr(models, name)
    if bounded:
        x = x.clamp(-4.0, 4.0)[:, None]
    ours, _ = trained(x, kind, likelihood="gaussian", **options)
    theirs, _ = trained(1e6 * (x + 3.0), kind, likelihood="gaussian", **options)
    assert bounded == (hasattr(ours.observation_model, "high"))
    with torch.no_grad():
        rebuilt, moved = ours.reconstruct(x), theirs.reconstruct(1e6 * (x + 3.0))
    torch.testing.assert_close(moved / 1e6 - 3.0, rebuilt, rtol=1e-5, atol=1e-5)
    z = torch.randn(9, 2, dtype=torch.float64)
    if name not in ("VQVAE",):
        with torch.no_grad():
            torch.testing.assert_close(theirs.decode(z), 1e6 * (ours.decode(z) + 3.0))


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
    with safe_open(weights, "pt") as file:
        metadata = file.metadata()
    older = {name: t for name, t in tensors.items() if not name.endswith(("center", "spread"))}
    assert len(older) == len(tensors) - 2
    save_file(older, weights, metadata=metadata)
    twin = chartae.load(tmp_path)
    assert twin.observation_model.spread.tolist() == [1.0] * 5
    older_state = {k: v for k, v in model.state_dict().items() if k in older}
    fresh.load_state_dict(older_state)  # into a model that has units of its own already
    assert fresh.observation_model.center.tolist() == [0.0] * 5
    assert fresh.observation_model.spread.tolist() == [1.0] * 5

    tensors["observation_model.spread"] = -tensors["observation_model.spread"]
    save_file(tensors, weights, metadata=metadata)
    with pytest.raises(CheckpointError, match="spread has negative values"):
        chartae.load(tmp_path)


def test_saved_models_keep_their_bounds_and_older_files_have_none(tmp_path):
    x = table().clamp(max=9.0)[:, None]
    model, _ = trained(x, likelihood="gaussian")
    far = 100.0 * torch.randn(50, 2, dtype=torch.float64)
    model.save_pretrained(tmp_path)
    twin = chartae.load(tmp_path)
    torch.testing.assert_close(twin.decode(far), model.decode(far))
    assert twin.decode(far).max() <= 9.0

    weights = tmp_path / "model.safetensors"
    tensors = load_file(weights)
    with safe_open(weights, "pt") as file:
        metadata = file.metadata()
    older = {name: t for name, t in tensors.items() if not name.endswith(("low", "high"))}
    assert len(older) == len(tensors) - 2
    save_file(older, weights, metadata=metadata)
    twin = chartae.load(tmp_path)
    torch.manual_seed(0)
    free = VAE((1, 5), 2, **NETS, likelihood={"name": "gaussian", "link": "identity"}).double()
    free.load_state_dict(older)
    torch.testing.assert_close(twin.decode(far), free.decode(far))
    assert twin.decode(far).max() > 9.0
    twin.save_pretrained(tmp_path / "again")  # infinite bounds are kept as well
    torch.testing.assert_close(chartae.load(tmp_path / "again").decode(far), free.decode(far))

    tensors["observation_model.low"] = tensors["observation_model.high"].clone()
    save_file(tensors, weights, metadata=metadata)
    with pytest.raises(CheckpointError, match="low=9 and high=9: expected low below high"):
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


def test_a_category_that_was_not_observed_is_no_category() -> None:
    columns = [["gaussian", 1], ["categorical", 3]]
    generator = torch.Generator().manual_seed(0)
    kind = torch.eye(3)[torch.randint(3, (40,), generator=generator)]
    x = torch.cat([torch.randn(40, 1, generator=generator), kind], 1)
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:10, 1:] = False
    model = chartae.VAE((4,), 2, likelihood={"name": "mixed", "columns": columns})
    chartae.fit(model, ArrayDataset(torch.where(mask, x, 0.0), mask=mask), epochs=2, progress=False)
    nats = model.log_likelihood(x, mask=mask, seed=0)
    torch.testing.assert_close(nats, model.log_likelihood(x * mask, mask=mask, seed=0))
    with pytest.raises(DataError, match="row of sum 0"):
        model.log_likelihood(x * mask)
