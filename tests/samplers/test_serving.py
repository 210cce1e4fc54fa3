"""Which sampler serves which model: the table, and what the wrong pairs are told."""

import inspect

import pytest
import torch
from torch import nn
from torch.distributions import Normal

import chartae.models
from chartae.distributions import DiagonalNormal
from chartae.errors import ConfigurationError
from chartae.models import Autoencoder, VariationalAutoencoder
from chartae.samplers import (
    NormalSampler,
    Sampler,
    VolumeSampler,
    compatible_samplers,
    serving_table,
)

SMALL = {"name": "mlp", "hidden": [8]}
X = torch.rand(12, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 3
OPTIONS = {
    "CVAE": {"conditions": 3},
    "RHVAE": {"regularization": 0.1},
    "VQVAE": {"grid": (2, 2), "num_codes": 8},
    "HRQVAE": {"grid": (2, 2), "num_codes": 8},
}
QUICK = {
    "CodeSampler": {"channels": 4, "num_layers": 1, "epochs": 1},
    "FlowSampler": {"hidden": [4], "epochs": 1},
    "MixtureSampler": {"num_components": 2},
    "MixupSampler": {"num_points": 4},
    "RandomWalkSampler": {"num_steps": 2, "num_warmup": 2, "num_integration_steps": 2},
    "TwoStageSampler": {"hidden": [4], "epochs": 1},
    "VolumeSampler": {"num_steps": 2, "num_warmup": 2, "num_leapfrog": 2},
}
MODELS = [
    name
    for name, cls in vars(chartae.models).items()
    if inspect.isclass(cls)
    and issubclass(cls, Autoencoder)
    and cls not in (Autoencoder, VariationalAutoencoder)
]
EVERY = {
    "CodeSampler",
    "FlowSampler",
    "MixtureSampler",
    "MixupSampler",
    "NormalSampler",
    "PoincareSampler",
    "RandomWalkSampler",
    "SphereSampler",
    "TwoStageSampler",
    "VampSampler",
    "VolumeSampler",
}
VECTORS = EVERY - {"CodeSampler", "PoincareSampler", "SphereSampler"}
MANIFOLD = {"MixupSampler", "RandomWalkSampler", "VolumeSampler"}


def build(name, **changes):
    torch.manual_seed(0)
    model_class = getattr(chartae.models, name)
    options = {"encoder": SMALL, "decoder": SMALL, **OPTIONS.get(name, {}), **changes}
    return model_class((8, 8), 4, **options).eval()


def names(samplers):
    return {sampler.__name__ for sampler in samplers}


@pytest.mark.parametrize("name", MODELS)
def test_every_pair_of_the_table_samples_and_every_other_says_who_does(name):
    model = build(name)
    given = {} if model.conditions is None else {"y": Y}
    if name == "RHVAE":
        model.on_fit_end([{"x": X, **given}])
    served = compatible_samplers(model)
    assert served
    header, rule, row = serving_table({name: model}).splitlines()
    assert rule.count("---") == len(EVERY) + 1
    cells = dict(zip(header.split(" | ")[1:], row.split(" | ")[1:], strict=True))
    cells = {sampler.strip(" |"): cell.strip(" |") for sampler, cell in cells.items()}
    assert cells.keys() == EVERY
    assert {sampler for sampler, cell in cells.items() if cell == "yes"} == names(served)
    for sampler_class in served:
        sampler = sampler_class(model, **QUICK.get(sampler_class.__name__, {}))
        x = sampler.fit(X, **given).sample(3, seed=0, **{k: v[:3] for k, v in given.items()})
        assert x.shape == (3, 8, 8)
        assert torch.isfinite(x).all()
    for sampler_name in EVERY - names(served):
        sampler_class = getattr(chartae.samplers, sampler_name)
        with pytest.raises(ConfigurationError) as caught:
            sampler_class(model)
        message = str(caught.value)
        assert message.startswith(f"{sampler_name} does not serve this {name}, for it")
        assert message.endswith(f"do: {', '.join(sorted(names(served)))}")


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("AE", {}, VECTORS - MANIFOLD - {"VampSampler"}),
        ("VAE", {}, VECTORS - {"VampSampler"}),
        ("VAE", {"conditions": (2,)}, VECTORS - {"VampSampler"}),
        ("RHVAE", {}, VECTORS - {"VampSampler"}),
        ("PlanarFlowVAE", {}, VECTORS - MANIFOLD - {"VampSampler"}),
        ("VAMP", {}, VECTORS - {"NormalSampler"}),
        ("AAE", {}, VECTORS - {"VampSampler"}),
        ("AAE", {"stochastic": False}, VECTORS - MANIFOLD - {"VampSampler"}),
        ("CVAE", {}, VECTORS - {"VampSampler"}),
        ("CVAE", {"learned_prior": True}, VECTORS - {"NormalSampler"}),
        ("VQVAE", {}, {"CodeSampler"}),
        ("HRQVAE", {"grid": (4,)}, {"CodeSampler"}),
    ],
)
def test_who_serves_whom(name, options, expected):
    assert names(compatible_samplers(build(name, **options))) == expected


def test_the_reasons():
    for name, sampler_name, reason in (
        ("VAMP", "NormalSampler", "its prior is not N(0, I)"),
        ("VAE", "VampSampler", "its prior is N(0, I)"),
        ("AE", "VampSampler", "it has no prior"),
        ("AE", "VolumeSampler", "it has neither a metric nor a posterior"),
        ("IAFVAE", "VolumeSampler", "it has neither a metric nor a Gaussian posterior"),
        ("VQVAE", "NormalSampler", "its latents are codes of a codebook"),
        ("VAE", "CodeSampler", "its latents are no codes of a codebook"),
    ):
        sampler_class = getattr(chartae.samplers, sampler_name)
        assert sampler_class.unsupported_reason(build(name)) == reason
    volume = build("VQVAE", grid=(2, 2, 1))
    with pytest.raises(
        ConfigurationError, match="codes are on a grid of 3 dimensions; .* do: none"
    ):
        chartae.samplers.CodeSampler(volume)


class Centred(chartae.models.VAE):
    """A model of one's own, with a prior of one's own."""

    loc, scale = 0.0, 1.0

    def prior(self, y=None):
        zeros = torch.zeros(self.latent_dim)
        return DiagonalNormal(zeros + self.loc, zeros + self.scale)


class Shifted(Centred):
    loc = 0.5


class Wide(Centred):
    scale = 2.0


class OtherFamily(Centred):
    def prior(self, y=None):
        return torch.distributions.Independent(Normal(torch.zeros(4), torch.ones(4)), 1)


def test_the_prior_decides_whatever_the_class():
    arguments = {"encoder": SMALL, "decoder": SMALL}
    assert NormalSampler.unsupported_reason(Centred((8, 8), 4, **arguments)) is None
    for model_class in (Shifted, Wide, OtherFamily):
        model = model_class((8, 8), 4, **arguments)
        assert NormalSampler.unsupported_reason(model) == "its prior is not N(0, I)"
        assert chartae.samplers.VampSampler(model).sample_latents(5, seed=0).shape == (5, 4)


def test_asking_leaves_the_model_as_it_was():
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Dropout())
    model = chartae.models.VAMP((8, 8), 4, encoder=body, decoder=SMALL).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert compatible_samplers(model)
    assert all((value == before[name]).all() for name, value in model.state_dict().items())
    assert all(part.training for part in model.modules())
    assert (torch.get_rng_state() == state).all()


def test_a_sampler_of_ones_own_is_in_no_table():
    class Mine(Sampler):
        def draw_latents(self, n, seed, y=None):
            return self.noise((n, self.model.latent_dim), seed)

    assert "Mine" not in names(compatible_samplers(build("AE")))
    with pytest.raises(ConfigurationError, match="Mine does not serve this VQVAE, for its latents"):
        Mine(build("VQVAE"))
    with pytest.raises(ConfigurationError, match="geometry='model': VAE has no metric"):
        VolumeSampler(build("VAE"), geometry="model")
