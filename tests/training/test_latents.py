"""What a history tells of latents, and what is said when they are not used."""

import json

import pytest
import torch

import chartae
from chartae import data, models
from chartae.training import History

SMALL = {"name": "mlp", "hidden": [16]}
NETWORKS = {"encoder": SMALL, "decoder": SMALL}
GAUSSIAN = {
    "VAE": {},
    "RHVAE": {"num_leapfrog": 1, "metric_network": SMALL},
    "IAFVAE": {"hidden": [8]},
    "PlanarFlowVAE": {"flows": "PR"},
    "VAMP": {"num_pseudo_inputs": 5},
    "CIWAE": {"num_samples": 3},
    "FactorVAE": {"discriminator": SMALL},
    "VAEGAN": {"discriminator": SMALL},
    "AAE": {"discriminator": SMALL},
}
OTHERS = {
    "AE": {},
    "WAE": {},
    "SVAE": {},
    "PoincareVAE": {},
    "AAE": {"discriminator": SMALL, "stochastic": False},
}
STILL = {"epochs": 2, "learning_rate": 1e-12, "seed": 0, "progress": False}
"""Trainings that change no weight to speak of, so that an epoch sees one model."""


@pytest.fixture
def x():
    return torch.rand(37, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def make(name, latent_dim=6, shape=(3, 8, 8), **options):
    torch.manual_seed(0)
    return getattr(models, name)(shape, latent_dim, **{**NETWORKS, **options})


@pytest.mark.parametrize("batch_size", [37, 10])
@pytest.mark.parametrize("name", GAUSSIAN)
def test_active_units_are_the_means_that_vary(name, batch_size, x, monkeypatch):
    model = make(name, **GAUSSIAN[name])
    with torch.no_grad():
        variances = model.posterior_head(model.features(x)).mean.var(0, correction=0).sort().values
    threshold = float(variances[1:3].mean())
    monkeypatch.setattr("chartae.models.variational.ACTIVE", threshold)
    history = chartae.fit(model, x, batch_size=batch_size, **STILL)
    assert history.latents == {"active_units": [4, 4]}


@pytest.mark.parametrize("name", OTHERS)
def test_models_without_units_or_codes_are_not_followed(name, x):
    assert chartae.fit(make(name, **OTHERS[name]), x, **STILL).latents == {}


@pytest.mark.parametrize(("name", "options"), [("VQVAE", {}), ("HRQVAE", {"num_levels": 2})])
def test_usage_and_perplexity_are_those_of_the_codes(name, options, x):
    model = make(name, 8, num_codes=5, grid=(2,), decay=0.0, **options)
    codes = model.codes(x).reshape(-1, model.num_levels)
    frequencies = torch.stack([c.bincount(minlength=5) for c in codes.T]) / len(codes)
    history = chartae.fit(model, x, **{**STILL, "epochs": 1})
    usage = (frequencies > 0).double().mean()
    perplexities = torch.distributions.Categorical(frequencies.double()).entropy().exp()
    assert history.latents["code_usage"] == [pytest.approx(float(usage))]
    geometric = float(perplexities.log().mean().exp())
    assert history.latents["perplexity"] == [pytest.approx(geometric, rel=1e-5)]


def test_perplexity_is_the_number_of_codes_that_are_used_alike():
    model = make("VQVAE", 8, num_codes=4, grid=(2,))
    used = model.latent_use([0.5, 0.5, 0.0, 0.0])
    assert used == {"code_usage": 0.5, "perplexity": pytest.approx(2.0)}


def test_the_model_keeps_no_hook(x, make_vae):
    model = make("VAE")
    chartae.fit(model, x, **STILL)
    broken = make("VAE")
    with pytest.raises(ZeroDivisionError):
        chartae.fit(broken, x, callbacks=[Broken()], **STILL)
    for each in (model, broken):
        assert not any(module._forward_hooks for module in each.modules())


class Broken(chartae.training.Callback):
    def on_epoch_end(self, model, history):
        return 1 // 0


def test_a_posterior_that_does_not_use_the_head_is_not_followed(x):
    class Own(models.VAE):
        def posterior(self, x, y=None, mask=None):
            mean = self.posterior_head.linear(self.features(x, y))[:, : self.latent_dim]
            return chartae.distributions.DiagonalNormal(mean, torch.ones_like(mean))

    torch.manual_seed(0)
    model = Own((3, 8, 8), 2, **NETWORKS)
    assert chartae.fit(model, x, **STILL).latents == {}


# --- what is said -------------------------------------------------------------------------------


def test_a_collapsed_posterior_is_told_in_one_line(caplog):
    few = data.digits().x[:100]
    model = models.BetaVAE((8, 8), 4, beta=100.0, likelihood="bernoulli", **NETWORKS)
    history = chartae.fit(model, few, epochs=60, learning_rate=1e-2, seed=0, progress=False)
    assert history.latents["active_units"][history.best_epoch] == 0
    (line,) = caplog.messages
    assert line.startswith("BetaVAE: the latents are not used: none of the 4 posterior means")
    assert "lower beta" in line
    assert "scale" not in line  # which a Bernoulli does not have


def test_dead_codes_are_told_in_one_line(caplog, x):
    alike = x[:1].expand(20, -1, -1, -1)
    model = make("VQVAE", 8, num_codes=64, grid=(2,))
    chartae.fit(model, alike, epochs=2, seed=0, progress=False)
    (line,) = [message for message in caplog.messages if "dead" in message]
    assert line.startswith("VQVAE: most codes are dead: 3% of 64 are used, with a perplexity of")


@pytest.mark.parametrize(("name", "latent_dim"), [("VAE", 8), ("VQVAE", 64)])
def test_defaults_on_digits_warn_of_nothing(name, latent_dim, caplog):
    model = make(name, latent_dim, (8, 8), encoder="mlp", decoder="mlp")
    chartae.fit(model, data.digits().x[:300], epochs=60, seed=0, progress=False)
    assert not caplog.messages


# --- records ------------------------------------------------------------------------------------


def record(**latents):
    history = History()
    for k in range(2):
        use = {name: values[k] for name, values in latents.items()}
        history.add({"loss": 1.0}, {}, learning_rate=0.1, seconds=0.1, latents=use)
    return history


def test_latents_are_saved(tmp_path):
    history = record(code_usage=[0.5, 0.25], perplexity=[3.0, 4.0])
    history.save(tmp_path / "history.json")
    assert History.load(tmp_path / "history.json") == history


def test_a_record_of_an_earlier_version_is_read_and_continued(tmp_path):
    path = tmp_path / "history.json"
    record().save(path)
    content = json.loads(path.read_text())
    del content["latents"]
    path.write_text(json.dumps(content))
    history = History.load(path)
    assert history.latents == {}
    history.add({"loss": 1.0}, {}, learning_rate=0.1, seconds=0.1, latents={"active_units": 2})
    assert str(history.latents["active_units"]) == "[nan, nan, 2]"
    history.save(path)
    assert History.load(path).num_epochs == 3
