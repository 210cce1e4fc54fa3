"""Posteriors with full and low-rank covariances, in every model that takes them."""

import math

import pytest
import torch
from tests.models.conftest import MODELS, SMALL, build, conditions_of
from torch import nn
from torch.distributions import MultivariateNormal

import chartae
from chartae.distributions import FullNormal, Gaussian, LowRankNormal
from chartae.errors import ConfigurationError
from chartae.models import IWAE, RHVAE, VAE
from chartae.samplers import VampSampler, VolumeSampler

KINDS = {
    "full": {"posterior_covariance": "full"},
    "low-rank": {"posterior_covariance": "low-rank"},
}
# Their posterior is no Gaussian, or its coordinates must be independent.
WITHOUT = {"BetaTCVAE weighted", "BetaTCVAE stratified"}
WITHOUT |= {"SVAE", "PoincareVAE", "PoincareVAE riemannian"}
# One of each class: heads and distributions have tests of their own.
TAKE = {
    model: name
    for name, (model, options) in MODELS.items()
    if issubclass(model, chartae.models.VariationalAutoencoder)
    and options.get("stochastic", True)
    and name not in WITHOUT
}


def coefficients(correlation: float, kind: str) -> list[float]:
    """Return what a head must give for one correlation of two coordinates."""
    if kind == "full":  # (a, 1) / sqrt(1 + a^2) has a first entry of r
        return [correlation / math.sqrt(1 - correlation**2)]
    size = math.sqrt(abs(correlation) / (1 - abs(correlation)))
    return [size, math.copysign(size, correlation)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model_class", [VAE, IWAE])
def test_with_the_exact_posterior_every_weight_is_the_likelihood(model_class, kind):
    # Probabilistic PCA, with columns that are not orthogonal: no diagonal posterior is exact.
    torch.manual_seed(0)
    weights, bias, noise = torch.randn(6, 2).double(), torch.randn(6).double(), 0.5
    weights[:, 1] += weights[:, 0]
    model = model_class(
        (6,), 2, encoder=nn.Flatten(), decoder=nn.Linear(2, 6), **KINDS[kind],
        likelihood={"name": "gaussian", "scale": noise},
    ).double()  # fmt: skip
    inverse = torch.linalg.inv(weights.mT @ weights + noise**2 * torch.eye(2))
    covariance, slope = noise**2 * inverse, inverse @ weights.mT
    deviations = covariance.diag().sqrt()
    correlation = float(covariance[0, 1] / deviations.prod())
    assert abs(correlation) > 0.5
    head = model.posterior_head
    with torch.no_grad():
        model.decoder.weight.copy_(weights)
        model.decoder.bias.copy_(bias)
        head.linear.weight.zero_()
        head.linear.weight[:2] = slope
        head.linear.bias[:2] = -slope @ bias
        head.linear.bias[2:4] = torch.expm1(deviations - head.floor).log()
        wanted = torch.tensor(coefficients(correlation, kind)).double()
        head.linear.bias[4:] = 30.0 * torch.atanh(wanted / 30.0)
    law = MultivariateNormal(bias, weights @ weights.mT + noise**2 * torch.eye(6))
    x = law.sample((20,))
    expected = law.log_prob(x)
    torch.testing.assert_close(model.posterior(x).covariance[0], covariance)
    torch.testing.assert_close(model.log_weights(x, 5), expected.expand(5, 20))
    # The bound is tight, and so is the loss, whose divergence is in closed form.
    with torch.no_grad():
        loss = torch.stack([model.loss(x).objectives["model"] for _ in range(100)])
    error = 4 * float(loss.std() / 100**0.5) + 1e-9
    assert loss.mean().item() == pytest.approx(-expected.mean().item(), abs=error)


@pytest.mark.parametrize("name", TAKE.values())
def test_every_model_of_gaussian_posteriors_trains_and_loads(name, digits, tmp_path):
    model = build(name, posterior_covariance="full")
    y = conditions_of(model, 64)
    losses, groups = model.loss(digits, y=y), model.optimization_groups()
    for group, objective in losses.objectives.items():
        objective.backward(retain_graph=True, inputs=groups[group])
    for parameter in model.posterior_head.parameters():
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.flatten(1).any(1).all() if parameter.dim() > 1 else True
    model.save_pretrained(tmp_path)
    twin, model = chartae.load(tmp_path), model.eval()
    first, second = (m.log_likelihood(digits, 3, y=y, seed=0) for m in (model, twin))
    assert torch.isfinite(first).all()
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("name", sorted(WITHOUT))
def test_other_models_refuse(name):
    with pytest.raises(ConfigurationError, match="posterior_covariance is not an argument of"):
        build(name, latent_dim=3, posterior_covariance="full")


def test_bad_arguments_are_refused():
    with pytest.raises(ConfigurationError, match="posterior_covariance='fulll' is not known"):
        VAE((4,), 2, posterior_covariance="fulll")
    with pytest.raises(ConfigurationError, match="posterior_rank=3: expected .* at most 2"):
        VAE((4,), 2, posterior_covariance="low-rank", posterior_rank=3)


def test_the_kind_of_posterior():
    for kind, expected in (("full", FullNormal), ("low-rank", LowRankNormal)):
        posterior = VAE((4,), 3, **KINDS[kind]).posterior(torch.rand(5, 4))
        assert type(posterior) is expected
        assert isinstance(posterior, Gaussian)


@pytest.mark.parametrize("kind", KINDS)
def test_the_prior_of_a_vamp_is_the_mixture_of_its_posteriors(kind):
    torch.manual_seed(0)
    model = chartae.VAMP((4,), 2, num_pseudo_inputs=5, **KINDS[kind]).double()
    components, z = model.posterior(model.pseudo_inputs()), torch.randn(9, 2).double()
    expected = components.log_prob(z[:, None]).logsumexp(1) - math.log(5)
    torch.testing.assert_close(model.prior().log_prob(z), expected)
    assert VampSampler(model).sample_latents(7, seed=0).shape == (7, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_an_rhvae_on_the_metric_of_correlated_posteriors(kind, digits, tmp_path):
    torch.manual_seed(0)
    networks = {"encoder": SMALL, "decoder": SMALL}
    model = RHVAE((8, 8), 3, geometry="posterior", num_leapfrog=1, **networks, **KINDS[kind])
    chartae.fit(model, digits, epochs=2, seed=0, progress=False)
    posterior = model.posterior(digits)
    torch.testing.assert_close(model.metric.variances, posterior.covariance.detach())
    model.save_pretrained(tmp_path)
    twin = chartae.load(tmp_path)
    z = torch.randn(5, 3)
    torch.testing.assert_close(twin.metric.tensor(z), model.metric.tensor(z))


@pytest.mark.parametrize("target", ["codes", "volume"])
def test_the_volume_of_correlated_posteriors_is_sampled(target, digits, tmp_path):
    torch.manual_seed(0)
    model = VAE((8, 8), 3, encoder=SMALL, decoder=SMALL, posterior_covariance="full").eval()
    sampler = VolumeSampler(model, target=target, num_steps=5, num_warmup=5).fit(digits)
    assert sampler.variances.shape == (64, 3, 3)
    z = sampler.sample_latents(20, seed=0)
    assert torch.isfinite(z).all()
    sampler.save_pretrained(tmp_path)
    torch.testing.assert_close(chartae.load(tmp_path).sample_latents(20, seed=0), z)
    if target == "volume":
        assert (sampler.diagnostics.acceptance.mean() > 0.5).all()
