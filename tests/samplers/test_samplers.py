import copy
import functools
import inspect
import json
import logging
import math

import pytest
import torch
from scipy import stats
from torch import nn

import chartae
from chartae.distributions import LIKELIHOODS, NormalMixture
from chartae.errors import CheckpointError, ConfigurationError, DataError
from chartae.geometry import CentroidMetric, EuclideanMetric, Jumps, PosteriorMetric
from chartae.geometry.mcmc.density import ManifoldDensity
from chartae.geometry.mcmc.walk import random_walk
from chartae.models import AAE, AE, CVAE, HRQVAE, RHVAE, SVAE, VAE, VAMP, VQVAE, PoincareVAE
from chartae.randomness import make_generator
from chartae.samplers import (
    CodeSampler,
    FlowSampler,
    MixtureSampler,
    MixupSampler,
    NormalSampler,
    RandomWalkSampler,
    Sampler,
    TwoStageSampler,
    VampSampler,
    VolumeSampler,
    compatible_samplers,
)
from chartae.samplers.learned import LearnedSampler

SMALL = {"name": "mlp", "hidden": [16]}
X = torch.rand(40, 8, 8, generator=torch.Generator().manual_seed(0))


LABELS = torch.arange(40) % 3
VECTORS = torch.rand(40, 2, generator=torch.Generator().manual_seed(1))


def conditions_of(model, n):
    """Conditions of n observations, as arguments: labels, vectors or none."""
    if model.conditions is None:
        return {}
    return {"y": LABELS[:n] if isinstance(model.conditions, int) else VECTORS[:n].to(model.dtype)}


def make_model(model_class, latent_dim=2, on=X, **options):
    torch.manual_seed(0)
    model = model_class((8, 8), latent_dim, encoder=SMALL, decoder=SMALL, **options)
    with torch.no_grad():  # spread the codes
        head = getattr(model, "posterior_head", model)
        linear = getattr(head, "linear", getattr(model, "code_head", None))
        linear.weight.mul_(8.0)
    model.on_fit_end([{"x": on, **conditions_of(model, len(on))}])
    return model.eval()


def rhvae(**options):
    return make_model(RHVAE, metric_network=SMALL, temperature=0.8, regularization=1e-2, **options)


def quantized(model_class=VQVAE, **options):
    return make_model(model_class, 8, num_codes=16, **{"grid": (2, 2), **options})


SHORT = {"num_steps": 8, "num_leapfrog": 4, "num_warmup": 8, "target": "volume"}
POSTERIOR = {"num_centroids": 20, "rho": "mahalanobis", "regularization": 0.1}
WALK = {"num_steps": 2, "num_integration_steps": 2, "num_warmup": 2}
FLOW = {"hidden": [8], "epochs": 2}
STAGE = {"hidden": [8], "epochs": 2}
CODES = {"channels": 4, "num_layers": 1, "kernel_size": 3, "epochs": 2}
SAMPLERS = {
    "NormalSampler": (lambda: make_model(VAE), NormalSampler, {}),
    "MixtureSampler": (lambda: make_model(VAE), MixtureSampler, {"num_components": 3}),
    "MixtureSampler of an AE": (lambda: make_model(AE), MixtureSampler, {"num_components": 1}),
    "VolumeSampler": (rhvae, VolumeSampler, SHORT),
    "VolumeSampler of a VAE": (lambda: make_model(VAE), VolumeSampler, {**SHORT, **POSTERIOR}),
    "VolumeSampler of an RHVAE's posteriors": (
        rhvae,
        VolumeSampler,
        {**SHORT, **POSTERIOR, "geometry": "posterior"},
    ),
    "RandomWalkSampler": (rhvae, RandomWalkSampler, WALK),
    "RandomWalkSampler of a VAE": (
        lambda: make_model(VAE),
        RandomWalkSampler,
        {**WALK, **POSTERIOR, "exact": True, "scale": 0.1, "whitened": True},
    ),
    "MixupSampler": (rhvae, MixupSampler, {"num_points": 5}),
    "FlowSampler": (lambda: make_model(VAE), FlowSampler, FLOW),
    "FlowSampler, IAF": (lambda: make_model(AE), FlowSampler, {**FLOW, "flow": "iaf"}),
    "TwoStageSampler": (lambda: make_model(VAE), TwoStageSampler, STAGE),
    "TwoStageSampler of an AE": (lambda: make_model(AE), TwoStageSampler, STAGE),
    "TwoStageSampler of a deterministic AAE": (
        lambda: make_model(AAE, stochastic=False),
        TwoStageSampler,
        STAGE,
    ),
    "VampSampler": (lambda: make_model(VAMP, num_pseudo_inputs=5), VampSampler, {}),
    "CodeSampler": (quantized, CodeSampler, CODES),
    "CodeSampler in levels": (lambda: quantized(HRQVAE, num_levels=3), CodeSampler, CODES),
    "CodeSampler of one level": (lambda: quantized(HRQVAE, num_levels=1), CodeSampler, CODES),
    "CodeSampler in a row": (lambda: quantized(grid=(4,)), CodeSampler, CODES),
    # Of models with conditions, labels or vectors.
    "NormalSampler, labels": (lambda: make_model(VAE, conditions=3), NormalSampler, {}),
    "MixtureSampler, vectors": (
        lambda: make_model(AE, conditions=(2,)),
        MixtureSampler,
        {"num_components": 2},
    ),
    "VolumeSampler, labels": (lambda: rhvae(conditions=3), VolumeSampler, SHORT),
    "VolumeSampler of posteriors, vectors": (
        lambda: make_model(VAE, conditions=(2,)),
        VolumeSampler,
        {**SHORT, **POSTERIOR},
    ),
    "FlowSampler, labels": (lambda: make_model(VAE, conditions=3), FlowSampler, FLOW),
    "FlowSampler, vectors": (lambda: make_model(VAE, conditions=(2,)), FlowSampler, FLOW),
    "TwoStageSampler, labels": (lambda: make_model(VAE, conditions=3), TwoStageSampler, STAGE),
    "TwoStageSampler, vectors": (lambda: make_model(AE, conditions=(2,)), TwoStageSampler, STAGE),
    "VampSampler of a CVAE": (
        lambda: make_model(CVAE, conditions=3, learned_prior=True),
        VampSampler,
        {},
    ),
    "VampSampler, vectors": (lambda: make_model(VAMP, conditions=(2,)), VampSampler, {}),
    "CodeSampler, labels": (lambda: quantized(conditions=3), CodeSampler, CODES),
    "CodeSampler, vectors": (lambda: quantized(conditions=(2,)), CodeSampler, CODES),
}


@functools.cache
def fitted(name):
    model, sampler_class, options = SAMPLERS[name]
    model = model()
    return sampler_class(model, **options).fit(X, **conditions_of(model, 40))


@pytest.fixture(params=SAMPLERS)
def sampler(request, monkeypatch):
    """Every sampler, fitted: a new one joins by one line of `SAMPLERS`.

    It is fitted once, and each test gets a copy. Jumps are adapted by fewer draws than they need,
    for no test of the contract looks at the law of what is drawn.
    """
    monkeypatch.setattr("chartae.geometry.mcmc.jumps.DRAWS", (50, 1))
    return copy.deepcopy(fitted(request.param))


# --- the contract -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_and_dtypes(sampler, dtype):
    sampler.to(dtype)
    for n in (1, 5):
        given = conditions_of(sampler.model, n)
        z = sampler.sample_latents(n, seed=0, **given)
        x = sampler.sample(n, seed=0, **given)
        assert z.shape == (n, sampler.model.latent_dim)
        assert x.shape == (n, 8, 8)
        assert z.dtype == x.dtype == dtype
        assert torch.isfinite(z).all()
        assert not z.requires_grad
        assert not x.requires_grad


def test_seeds_decide_and_nothing_else(sampler):
    given = conditions_of(sampler.model, 6)
    first = sampler.sample_latents(6, seed=0, **given)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    assert (sampler.sample_latents(6, seed=0, **given) == first).all()
    assert (torch.get_rng_state() == state).all()
    assert (sampler.sample_latents(6, seed=1, **given) != first).any()
    torch.manual_seed(3)
    unseeded = sampler.sample_latents(6, **given)
    assert (sampler.sample_latents(6, **given) != unseeded).any()
    torch.manual_seed(3)
    assert (sampler.sample_latents(6, **given) == unseeded).all()


def test_samples_are_the_decoded_latents_in_any_pieces(sampler):
    given = conditions_of(sampler.model, 10)
    whole = sampler.sample(10, seed=0, **given)
    with torch.no_grad():
        decoded = sampler.model.decode(sampler.sample_latents(10, seed=0, **given), **given)
    torch.testing.assert_close(whole, decoded)
    rows = []
    sampler.model.decoder.register_forward_hook(lambda _, z, __: rows.append(len(z[0])))
    for batch_size in (3, 100):
        rows.clear()
        x = sampler.sample(10, seed=0, batch_size=batch_size, **given)
        torch.testing.assert_close(x, whole)
        assert max(rows) == min(10, batch_size)


def test_draws_come_from_the_likelihood_whatever_the_pieces(sampler):
    given = conditions_of(sampler.model, 10)
    drawn = sampler.sample(10, seed=0, draw=True, **given)
    for batch_size in (3, 100):
        again = sampler.sample(10, seed=0, batch_size=batch_size, draw=True, **given)
        torch.testing.assert_close(again, drawn)
    # Around the means, with the likelihood's own scale.
    noise = (drawn - sampler.sample(10, seed=0, **given)) / sampler.model.observation_model.scale
    assert stats.kstest(noise.detach().flatten().numpy(), "norm").pvalue > 1e-3
    other = sampler.sample(10, seed=1, draw=True, **given) - sampler.sample(10, seed=1, **given)
    assert (other / sampler.model.observation_model.scale - noise).abs().mean() > 0.5
    with pytest.raises(ConfigurationError, match="draw=1: expected True or False"):
        sampler.sample(10, draw=1, **given)


@pytest.mark.parametrize(
    "likelihood", [*LIKELIHOODS, {"name": "laplace", "link": "sigmoid"}], ids=str
)
def test_what_is_drawn_is_data_of_the_model(likelihood):
    if likelihood == "mixed":
        columns = [["gaussian", 2], ["categorical", 3], ["negative_binomial", 3]]
        likelihood = {"name": "mixed", "columns": columns}
    torch.manual_seed(0)
    model = VAE((8,), 2, encoder=SMALL, decoder=SMALL, likelihood=likelihood).eval()
    state = torch.get_rng_state()
    drawn = NormalSampler(model).sample(50, seed=0, draw=True)
    assert (torch.get_rng_state() == state).all()
    assert torch.isfinite(model.encode(drawn)).all()
    assert not drawn.requires_grad


def test_saved_and_loaded(sampler, tmp_path):
    sampler.save_pretrained(tmp_path)
    twin = chartae.load(tmp_path)
    assert type(twin) is type(sampler)
    given = conditions_of(sampler.model, 6)
    assert (twin.sample(6, seed=0, **given) == sampler.sample(6, seed=0, **given)).all()
    ours, theirs = sampler.config(), twin.config()
    assert ours.pop("model").config() == theirs.pop("model").config()
    assert ours == theirs
    double = chartae.load(tmp_path, dtype=torch.float64)
    assert double.sample(6, **conditions_of(double.model, 6)).dtype == torch.float64


def test_a_configuration_of_an_unknown_class_is_refused(sampler, tmp_path):
    sampler.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["class"] = "NoSuchSampler"
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError):
        chartae.load(tmp_path)


def test_bad_counts_are_refused(sampler):
    for n in (0, -1, 2.0, True):
        with pytest.raises(ConfigurationError, match=f"n={n}: expected an integer at least 1"):
            sampler.sample(n)
    given = conditions_of(sampler.model, 2)
    with pytest.raises(ConfigurationError, match="batch_size=0: expected an integer at least 1"):
        sampler.sample(2, batch_size=0, **given)
    with pytest.raises(ConfigurationError, match="seed=-1: expected an integer at least 0"):
        sampler.sample(2, seed=-1, **given)


def test_conditions_are_asked_for_and_checked(sampler):
    model = sampler.model
    kind = type(model).__name__
    given = conditions_of(model, 4)
    if not given:
        with pytest.raises(DataError, match=f"y is given: this {kind} has none"):
            sampler.sample(2, y=1)
        return
    with pytest.raises(DataError, match=f"y is missing: this {kind} has"):
        sampler.sample(4)
    with pytest.raises(DataError, match=r"y has shape \(3"):
        sampler.sample(4, y=given["y"][:3])
    if sampler.needs_data:
        with pytest.raises(DataError, match=f"y is missing: this {kind} has"):
            sampler.fit(X)
    # One condition is that of all.
    one = given["y"][1]
    assert (sampler.sample(4, 0, one) == sampler.sample(4, 0, one.expand(4, *one.shape))).all()
    if isinstance(model.conditions, int):
        assert (sampler.sample(4, 0, 1) == sampler.sample(4, 0, one)).all()
        with pytest.raises(DataError, match="y ranges from 3 to 3"):
            sampler.sample(2, y=3)
    assert (sampler.sample(4, 0, given["y"][0]) != sampler.sample(4, 0, one)).any()


def test_a_fit_can_be_repeated(sampler):
    if not sampler.needs_data:
        assert sampler.fit() is sampler
        return
    given = conditions_of(sampler.model, 40)
    state = {name: value.clone() for name, value in sampler.state_dict().items()}
    sampler.fit(X.flip(0), **{name: value.flip(0) for name, value in given.items()})
    sampler.fit(X, **given)
    assert all((value == state[name]).all() for name, value in sampler.state_dict().items())


def test_an_unfitted_one_refuses(sampler):
    fresh = type(sampler)(**sampler.config())
    if fresh.needs_data:
        with pytest.raises(ConfigurationError, match="has not been fitted: call"):
            fresh.sample(2, **conditions_of(fresh.model, 2))


def test_a_sampler_wants_a_model():
    for sampler_class in (NormalSampler, MixtureSampler, VolumeSampler, RandomWalkSampler):
        with pytest.raises(ConfigurationError, match="model is Linear: expected a trained model"):
            sampler_class(nn.Linear(2, 2))
        with pytest.raises(ConfigurationError, match="model is the class VAE: expected a trained"):
            sampler_class(VAE)


def test_a_sampler_of_your_own_in_a_few_lines(tmp_path):
    class Shifted(Sampler):
        def __init__(self, model, shift=1.0):
            super().__init__(model)
            self.shift = shift

        def draw_latents(self, n, seed, y=None):
            return self.shift + self.noise((n, self.model.latent_dim), seed)

    sampler = Shifted(make_model(VAE), shift=3.0)
    sampler.save_pretrained(tmp_path)
    twin = chartae.load(tmp_path)
    assert twin.shift == 3.0
    assert (twin.sample_latents(500, seed=0) == sampler.sample_latents(500, seed=0)).all()
    assert abs(float(twin.sample_latents(500, seed=0).mean()) - 3.0) < 0.2


# --- each of them -------------------------------------------------------------------------------


def test_normal_sampler_is_the_prior():
    z = NormalSampler(make_model(VAE)).sample_latents(4000, seed=0)
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    assert abs(float(torch.corrcoef(z.mT)[0, 1])) < 0.06


class Codes(nn.Module):
    """An encoder of data that are codes already."""

    def forward(self, x):
        return x


def test_mixture_sampler_recovers_a_known_mixture():
    torch.manual_seed(0)
    model = AE((2,), 2, encoder=Codes(), decoder=nn.Linear(2, 2))
    with torch.no_grad():
        model.code_head.weight.copy_(torch.eye(2))
        model.code_head.bias.zero_()
    weights = torch.tensor([0.25, 0.75])
    means = torch.tensor([[-4.0, 1.0], [3.0, -2.0]])
    factors = torch.tensor([[[1.0, 0.0], [0.8, 0.4]], [[0.5, 0.0], [0.0, 1.5]]])
    component = torch.multinomial(weights, 6000, replacement=True)
    noise = torch.randn(6000, 2, 1)
    codes = means[component] + (factors[component] @ noise)[..., 0]
    sampler = MixtureSampler(model, num_components=2).fit(codes)
    order = sampler.means[:, 0].argsort()
    torch.testing.assert_close(sampler.weights[order], weights, atol=0.02, rtol=0)
    torch.testing.assert_close(sampler.means[order], means, atol=0.1, rtol=0)
    torch.testing.assert_close(sampler.factors[order], factors, atol=0.08, rtol=0)
    z = sampler.sample_latents(6000, seed=0)
    for k, side in enumerate([z[z[:, 0] < -0.5], z[z[:, 0] >= -0.5]]):
        assert len(side) / 6000 == pytest.approx(float(weights[k]), abs=0.03)
        torch.testing.assert_close(side.mean(0), means[k], atol=0.15, rtol=0)
        covariance = factors[k] @ factors[k].mT
        torch.testing.assert_close(torch.cov(side.mT), covariance, atol=0.25, rtol=0)


def test_mixture_sampler_is_reproducible_and_can_be_fitted_again():
    model = make_model(VAE)
    first, second = (MixtureSampler(model, num_components=4).fit(X) for _ in range(2))
    assert (first.means == second.means).all()
    first.fit(X[:20])
    assert (first.means != second.means).any()


def test_an_unfitted_sampler_says_so():
    with pytest.raises(ConfigurationError, match=r"this MixtureSampler has not been fitted: call"):
        MixtureSampler(make_model(VAE)).sample(2)
    with pytest.raises(ConfigurationError, match="this RHVAE has no metric yet: expected"):
        VolumeSampler(RHVAE((8, 8), 2)).fit()
    with pytest.raises(ConfigurationError, match="this RHVAE has no metric yet: expected"):
        VolumeSampler(RHVAE((8, 8), 2)).sample(2)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (None, "x is NoneType: MixtureSampler.fit expects the training set"),
        (X.tolist(), "x is list: MixtureSampler.fit expects the training set"),
        (X[:, :4], r"x has shape \(40, 4, 8\): expected \(batch, 8, 8\)"),
        (X * math.nan, "x has 2560 NaN or infinite"),
        (X.double(), "x has dtype torch.float64"),
    ],
)
def test_mixture_sampler_refuses_bad_data(x, message):
    with pytest.raises(DataError, match=message):
        MixtureSampler(make_model(VAE)).fit(x)


@pytest.mark.parametrize(("n", "expected"), [(2, 1), (5, 1), (12, 2), (40, 8), (200, 10)])
def test_the_default_mixture_suits_the_number_of_observations(n, expected):
    x = torch.rand(n, 8, 8, generator=torch.Generator().manual_seed(0))
    sampler = MixtureSampler(make_model(VAE)).fit(x)
    assert len(sampler.weights) == expected
    assert torch.isfinite(sampler.sample(20, seed=0)).all()
    if n < 10:
        with pytest.raises(DataError, match=rf"x has {n} .* mixture of 10 .* needs at least 10"):
            MixtureSampler(make_model(VAE), num_components=10).fit(x)


@pytest.mark.parametrize("model_class", [VAE, AE, RHVAE, VQVAE, HRQVAE, SVAE, PoincareVAE])
def test_every_sampler_works_on_five_observations(model_class):
    x = torch.rand(5, 8, 8, generator=torch.Generator().manual_seed(0))
    model = make_model(model_class, 8, on=x)
    quick = {**FLOW, **SHORT, **WALK, **CODES, "num_points": 4}
    for cls in compatible_samplers(model):
        named = inspect.signature(cls).parameters.keys() | {"epochs"}
        learns = issubclass(cls, LearnedSampler)
        options = {n: v for n, v in quick.items() if n in named and (n != "epochs" or learns)}
        drawn = cls(model, **options).fit(x).sample(4, seed=0)
        assert torch.isfinite(drawn).all(), cls


def test_one_observation_is_too_few_for_any_mixture():
    with pytest.raises(DataError, match=r"x has 1 observation\(s\): .* needs at least 2"):
        MixtureSampler(make_model(VAE), num_components=1).fit(X[:1])


@pytest.mark.parametrize(
    ("sampler_class", "arguments", "message"),
    [
        (MixtureSampler, {"num_components": 0}, "num_components=0: .* at least 1"),
        (MixtureSampler, {"regularization": 0.0}, "regularization=0.0: .* greater than 0"),
        (MixtureSampler, {"seed": -1}, "seed=-1: .* at least 0"),
        (VolumeSampler, {"num_steps": 0}, "num_steps=0: .* at least 1"),
        (VolumeSampler, {"num_leapfrog": 0}, "num_leapfrog=0: .* at least 1"),
        (VolumeSampler, {"num_warmup": -1}, "num_warmup=-1: .* at least 0"),
        (VolumeSampler, {"step_size": -0.1}, "step_size=-0.1: .* greater than 0"),
        (VolumeSampler, {"max_chains": 0}, "max_chains=0: .* at least 1"),
        (VolumeSampler, {"geometry": "postrior"}, "geometry='postrior' is not known"),
        (VolumeSampler, {"num_centroids": 0}, "num_centroids=0: .* at least 1"),
        (VolumeSampler, {"selection": "first"}, "selection='first' is not known"),
        (VolumeSampler, {"rho": "euclid"}, "rho='euclid' is not known"),
        (VolumeSampler, {"rho": 0.0}, "rho=0.0: .* greater than 0"),
        (VolumeSampler, {"regularization": 0.0}, "regularization=0.0: .* greater than 0"),
        (RandomWalkSampler, {"num_steps": 0}, "num_steps=0: .* at least 1"),
        (RandomWalkSampler, {"scale": 0.0}, "scale=0.0: .* greater than 0"),
        (RandomWalkSampler, {"num_integration_steps": 0}, "num_integration_steps=0: .* at least"),
        (RandomWalkSampler, {"num_warmup": -1}, "num_warmup=-1: .* at least 0"),
        (RandomWalkSampler, {"whitened": True}, "whitened=True: expected exact=True too"),
    ],
)
def test_bad_arguments_are_refused(sampler_class, arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        sampler_class(rhvae(), **arguments)


@pytest.mark.parametrize("sampler_class", [VolumeSampler, RandomWalkSampler])
def test_manifold_samplers_want_a_manifold(sampler_class):
    message = (
        f"{sampler_class.__name__} does not support this AE: it has neither a metric nor a post"
    )
    with pytest.raises(ConfigurationError, match=message):
        sampler_class(make_model(AE))
    with pytest.raises(ConfigurationError, match="geometry='model': VAE has no metric; expected"):
        sampler_class(make_model(VAE), geometry="model")
    sampler = sampler_class(rhvae())
    assert sampler.fit() is sampler
    assert isinstance(sampler.metric, CentroidMetric)
    sampler = sampler_class(rhvae(), geometry="posterior")
    with pytest.raises(ConfigurationError, match=f"this {sampler_class.__name__} has not been fit"):
        sampler.sample(2)
    assert isinstance(sampler.fit(X).metric, PosteriorMetric)
    with pytest.raises(DataError, match=f"x is NoneType: {sampler_class.__name__}.fit expects the"):
        sampler.fit()
    for asked, kept in ((7, 7), (41, 40), (None, 40)):  # all of fewer
        fitted = sampler_class(make_model(VAE), num_centroids=asked).fit(X)
        assert len(fitted.metric.centroids) == kept


def test_the_posterior_metric_is_that_of_the_training_set():
    model = make_model(VAE)
    options = {"num_centroids": 15, "selection": "random", "rho": "mahalanobis"}
    ours = VolumeSampler(model, **options, regularization=0.2).fit(X).metric
    theirs = PosteriorMetric.from_model(model, X, **options, regularization=0.2)
    assert (ours.means == theirs.means).all()
    z = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours.tensor(z), theirs.tensor(z))


def test_the_posterior_metric_of_a_conditional_model_is_that_of_its_conditions():
    model = make_model(VAE, conditions=3)
    metric = VolumeSampler(model, **POSTERIOR | {"num_centroids": None}).fit(X, LABELS).metric
    with torch.no_grad():
        posterior = model.posterior(X, LABELS)
        others = model.posterior(X, (LABELS + 1) % 3)
    torch.testing.assert_close(metric.means, posterior.mean)
    torch.testing.assert_close(metric.variances, posterior.variance)
    assert (metric.means != others.mean).any()


def test_another_training_set_replaces_the_first():
    sampler = VolumeSampler(make_model(VAE), rho=1.0).fit(X)
    assert len(sampler.fit(X[:7]).metric.centroids) == 7


FOLLOWING = {
    "volume": (VolumeSampler, {**SHORT, "num_steps": 40, "num_warmup": 40}),
    "volume of posteriors": (
        VolumeSampler,
        {**SHORT, "num_steps": 40, "num_warmup": 40, "geometry": "posterior"},
    ),
}


@pytest.mark.parametrize("name", FOLLOWING)
def test_manifold_samplers_follow_the_density_inside_s(name):
    # Against a quadrature over S = {|z| <= 2 max |c_i|} of the volume, whichever way it goes.
    model = rhvae()
    sampler_class, options = FOLLOWING[name]
    sampler = sampler_class(model, **options, rho=6.0, regularization=0.1, max_chains=2000).fit(X)
    z = sampler.sample_latents(2000, seed=0).double()
    sampler.double()
    density = ManifoldDensity(sampler.metric)
    wall = density.radius
    assert float(z.norm(dim=-1).max()) <= wall
    ticks = torch.linspace(-wall, wall, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(ticks, ticks)
    grid = grid[density.contains(grid)]
    log_prob = density.log_prob(grid)
    weights = log_prob.softmax(0)
    mean = weights @ grid
    spread = (weights @ (grid - mean).square()).sqrt()
    standard_error = spread / 2000**0.5
    assert ((z.mean(0) - mean).abs() < 5 * standard_error).all()
    torch.testing.assert_close(z.std(0), spread, atol=0.06 * float(spread.max()), rtol=0)
    # The log density itself, whose mean is minus the entropy.
    expected, error = weights @ log_prob, 5 * log_prob.std() / 2000**0.5
    assert abs(density.log_prob(z).mean() - expected) < error
    assert float(expected) > float(log_prob.mean()) + 0.1  # it is far from uniform


def test_the_random_walk_is_that_of_the_metric():
    model = rhvae()
    sampler = RandomWalkSampler(model, num_steps=5, scale=0.3, num_integration_steps=4)
    z = sampler.sample_latents(50, seed=0)
    assert sampler.diagnostics.step_size == 1.0
    assert ManifoldDensity(model.metric).contains(z).all()
    generator = make_generator(0, "RandomWalkSampler", 0)
    start = torch.randint(40, (50,), generator=generator)
    chain = random_walk(
        model.metric,
        model.metric.centroids[start],
        num_steps=5,
        covariance=0.3**2,
        num_integration_steps=4,
        generator=generator,
    )
    assert (chain.final == z).all()


def test_volume_sampler_works_in_blocks_and_keeps_its_diagnostics(caplog):
    model = rhvae()
    calls = []
    sampler = VolumeSampler(model, **SHORT, max_chains=4)
    original = sampler.run
    sampler.run = lambda *arguments: calls.append(original(*arguments)) or calls[-1]
    assert sampler.diagnostics is None
    z = sampler.sample_latents(10, seed=0)
    assert [chain.samples.shape[1] for chain in calls] == [4, 4, 2]
    assert (sampler.diagnostics.final == z[-2:]).all()
    assert (calls[0].final == z[:4]).all()
    assert len(z.unique(dim=0)) == 10  # no block repeats another
    assert (sampler.sample_latents(10, seed=0) == z).all()
    assert sampler.diagnostics.acceptance.shape == (2,)
    assert sampler.diagnostics.step_size > 0


def test_volume_sampler_warns_when_it_is_stuck(caplog):
    caplog.set_level(logging.WARNING)
    VolumeSampler(rhvae(), target="volume").sample_latents(50, seed=0)
    assert not caplog.records
    VolumeSampler(rhvae(), **SHORT, step_size=50.0).sample_latents(50, seed=0)
    assert "VolumeSampler accepted 0 % of its steps" in caplog.text
    assert "lower step_size" in caplog.text


def test_volume_sampler_warns_when_its_chains_have_not_mixed(caplog, monkeypatch):
    def useless(log_prob, proposal, generator):
        far = NormalMixture(proposal.loc + 1e3, proposal.scale)
        return Jumps(log_prob, far), proposal.loc

    monkeypatch.setattr(Jumps, "adapted", useless)
    caplog.set_level(logging.WARNING)
    VolumeSampler(rhvae(), **SHORT, step_size=0.02).sample_latents(50, seed=0)
    assert "chains have not mixed (R-hat" in caplog.text
    assert "raise num_steps" in caplog.text


@pytest.mark.parametrize("geometry", ["model", "posterior"])
def test_codes_have_equal_masses_and_the_widths_of_their_bumps(geometry):
    """The target of the codes is the mixture of what each centroid alone makes."""
    model = rhvae()
    sampler = VolumeSampler(model, geometry=geometry, width=1.0, rho=0.5).fit(X)
    metric, n = sampler.metric, 20_000
    z = sampler.sample_latents(n, seed=0)
    expected = metric.bumps
    wide = VolumeSampler(model, geometry=geometry, width=2.0, rho=0.5).fit(X)
    within = expected.scale.square().mean(0)
    grown = wide.sample_latents(n, seed=0).var(0) - z.var(0)
    torch.testing.assert_close(grown, 3.0 * within, rtol=0.2, atol=0.02 * float(z.var(0).max()))
    error = 5 * (expected.variance / n).sqrt()
    assert ((z.mean(0) - expected.mean).abs() < error).all()
    assert ((z.std(0) - expected.stddev).abs() < error).all()
    assert (sampler.sample_latents(50, seed=0) == sampler.sample_latents(50, seed=0)).all()
    narrow = VolumeSampler(model, geometry="posterior", rho=1e-4).fit(X)
    near = torch.cdist(narrow.sample_latents(4000, seed=0), narrow.metric.centroids).argmin(1)
    counts = torch.bincount(near, minlength=40).float()
    assert ((counts - 100).abs() < 5 * 10).all()


def test_the_codes_of_a_vae_are_all_its_posteriors():
    model = make_model(VAE)
    x = torch.rand(1001, 8, 8, generator=torch.Generator().manual_seed(3))
    sampler = VolumeSampler(model, width=1.0).fit(x)
    posterior = model.posterior(x)
    torch.testing.assert_close(sampler.bumps.loc, posterior.mean)
    torch.testing.assert_close(sampler.bumps.scale, posterior.stddev)
    torch.testing.assert_close(sampler.metric.bumps.scale, posterior.stddev)
    assert len(VolumeSampler(model, num_centroids=10).fit(x).metric.centroids) == 10


def test_a_metric_without_bumps_has_no_codes():
    class FlatVAE(VAE):
        metric = EuclideanMetric(2)

    sampler = VolumeSampler(FlatVAE((8, 8), 2))
    with pytest.raises(ConfigurationError, match="target='codes': EuclideanMetric has no bumps"):
        sampler.sample_latents(2)
