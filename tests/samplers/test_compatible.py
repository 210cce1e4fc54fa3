"""Which sampler supports which model, and what the errors of the other pairs say."""

import inspect

import pytest
import torch
from torch import nn

import chartae.models
from chartae.distributions import DiagonalNormal, StandardNormal
from chartae.errors import ConfigurationError
from chartae.models import Autoencoder, VariationalAutoencoder
from chartae.samplers import (
    NormalSampler,
    Sampler,
    VampSampler,
    VolumeSampler,
    compatible_samplers,
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
def test_every_compatible_pair_samples_and_every_other_says_which_does(name):
    model = build(name)
    given = {} if model.conditions is None else {"y": Y}
    if name == "RHVAE":
        model.on_fit_end([{"x": X, **given}])
    served = compatible_samplers(model)
    assert served
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
        assert message.startswith(f"{sampler_name} does not support this {name}: it")
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
        ("VAE", "CodeSampler", "its latents are not codes of a codebook"),
    ):
        sampler_class = getattr(chartae.samplers, sampler_name)
        assert sampler_class.unsupported_reason(build(name)) == reason
    volume = build("VQVAE", grid=(2, 2, 1))
    with pytest.raises(
        ConfigurationError, match="codes are on a grid of 3 dimensions; .* do: none"
    ):
        chartae.samplers.CodeSampler(volume)


class Shifted(chartae.models.VAE):
    """A model of one's own, whose prior and posterior are its own too."""

    def prior(self, y=None):
        prior = super().prior(y)
        return DiagonalNormal(prior.mean + 5.0, prior.stddev)

    def posterior(self, x, y=None):
        return super().posterior(x, y)


class Named(Shifted):
    posterior_family = DiagonalNormal
    prior_family = StandardNormal

    def prior(self, y=None):
        return StandardNormal(self.origin)


def test_distributions_of_ones_own_are_known_once_they_are_named():
    shifted, named = (cls((8, 8), 4, encoder=SMALL, decoder=SMALL) for cls in (Shifted, Named))
    assert NormalSampler.unsupported_reason(shifted) == "its prior is not N(0, I)"
    assert "nor a Gaussian posterior" in VolumeSampler.unsupported_reason(shifted)
    z = VampSampler(shifted).sample_latents(400, seed=0)
    assert z.mean(0).numpy() == pytest.approx(5.0, abs=0.3)
    assert NormalSampler.unsupported_reason(named) is None
    assert VolumeSampler.unsupported_reason(named) is None
    assert VampSampler.unsupported_reason(named) == "its prior is N(0, I)"


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
    with pytest.raises(ConfigurationError, match="Mine does not support this VQVAE: its latents"):
        Mine(build("VQVAE"))
    with pytest.raises(ConfigurationError, match="geometry='model': VAE has no metric"):
        VolumeSampler(build("VAE"), geometry="model")


@pytest.mark.parametrize("kind", ["MixtureSampler", "VolumeSampler", "FlowSampler"])
def test_what_is_not_observed_does_not_change_a_fit(kind):
    model = build("VAE")
    mask = torch.rand(X.shape, generator=torch.Generator().manual_seed(1)) < 0.7
    made = [
        getattr(chartae.samplers, kind)(model, **QUICK.get(kind, {}))
        .fit(X.where(mask, hidden), mask=mask)
        .sample(4, seed=0)
        for hidden in (0.0, 0.7, torch.nan)
    ]
    assert (made[0] == made[1]).all()
    assert (made[0] == made[2]).all()
