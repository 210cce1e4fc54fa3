"""RAE, WAE, AAE, InfoVAE, the capacity of the disentangled beta-VAE, and the learned priors."""

import numpy as np
import pytest
import torch
from tests.models.conftest import SMALL
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.nn.functional import softplus

import chartae
from chartae import fit
from chartae.distributions.base import kl_divergence
from chartae.errors import ConfigurationError
from chartae.models import (
    AAE,
    CVAE,
    RAE,
    VAE,
    VAMP,
    WAE,
    DisentangledBetaVAE,
    InfoVAE,
    MixtureVAE,
)

NETWORKS = {"encoder": SMALL, "decoder": SMALL}


def loss_of(model, x, seed=0, **extras):
    torch.manual_seed(seed)
    return model.loss(x, **extras)


# --- RAE ------------------------------------------------------------------------------------------


def test_the_gradient_penalty_is_the_norm_of_the_jacobian():
    torch.manual_seed(0)
    model = RAE((5,), 3, regularization="gp", **NETWORKS).double()
    z = torch.randn(1, 3).double()
    jacobian = torch.autograd.functional.jacobian(lambda p: model.decode(p)[0], z)[:, 0]
    expected = jacobian.square().sum().item()
    with torch.no_grad():
        values = torch.stack([model.penalty(z.expand(500, 3)) for _ in range(40)])
    error = (values.std() / 40**0.5).item()
    assert error < 0.02 * expected
    assert values.mean().item() == pytest.approx(expected, abs=4 * error)


def test_the_gradient_penalty_moves_the_decoder():
    torch.manual_seed(0)
    model = RAE((5,), 3, regularization="gp", **NETWORKS)
    model.penalty(torch.randn(4, 3)).backward()
    assert model.decoder[0].weight.grad.any()


def test_the_other_penalties():
    torch.manual_seed(0)
    model = RAE((5,), 3, regularization="l2", **NETWORKS)
    squares = [p.square().sum() for p in model.decoder.parameters()]
    torch.testing.assert_close(model.penalty(torch.zeros(2, 3)), sum(squares))
    x = torch.rand(6, 5)
    losses = loss_of(model, x)
    size = 0.5 * model.encode(x).square().sum(1).mean()
    torch.testing.assert_close(losses.terms["embedding"], size)
    terms = losses.terms
    expected = terms["reconstruction"] + 1e-2 * size + 1e-3 * terms["penalty"]
    torch.testing.assert_close(losses.objectives["model"], expected)
    assert "penalty" not in loss_of(RAE((5,), 3, regularization="none", **NETWORKS), x).terms


def test_spectral_norms_are_one():
    torch.manual_seed(0)
    model = RAE((8, 8), 3, regularization="sn", **NETWORKS)
    for _ in range(100):
        model.loss(torch.rand(2, 8, 8))  # a step of the power iteration each
    layers = [m for m in model.decoder.modules() if isinstance(m, nn.Linear)]
    assert len(layers) == 2
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1.0, abs=1e-2)
    assert not any("parametrizations" in name for name, _ in model.encoder.named_parameters())
    convolutional = RAE((8, 8), 3, regularization="sn", encoder="conv", decoder="conv")
    assert sum("original" in n for n, _ in convolutional.decoder.named_parameters()) == 4


# --- aggregated posteriors ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_class", "options"),
    [
        (WAE, {"weight": 100.0}),
        (WAE, {"weight": 100.0, "kernel": "rbf"}),
        (WAE, {"weight": 30.0, "regularization": "gan"}),
        (AAE, {"weight": 30.0}),
        (AAE, {"weight": 30.0, "stochastic": False}),
    ],
    ids=["imq", "rbf", "gan", "aae", "aae deterministic"],
)
def test_codes_come_to_look_like_the_prior(digits, model_class, options):
    torch.manual_seed(0)
    model = model_class((8, 8), 2, **NETWORKS, **options)
    with torch.no_grad():  # far from it at first
        head = model.posterior_head.linear if hasattr(model, "posterior_head") else model.code_head
        head.bias[:2] = 4.0
    before = model.encode(digits).mean(0).norm()
    fit(model, digits, epochs=150, batch_size=64, learning_rate=3e-3, seed=0, progress=False)
    latents = model.encode(digits)
    assert latents.mean(0).norm() < 0.4 * before
    assert 0.3 < latents.std(0).mean() < 2.0


def test_a_deterministic_encoder_has_no_posterior(digits):
    model = AAE((8, 8), 2, stochastic=False, **NETWORKS)
    for call in (model.posterior, model.elbo, model.log_likelihood):
        with pytest.raises(
            ConfigurationError,
            match="stochastic=False: expected True, as this AAE has no posterior",
        ):
            call(digits)


def test_infovae_without_its_parts_is_a_vae(digits):
    torch.manual_seed(0)
    vae = VAE((8, 8), 2, **NETWORKS)
    same = InfoVAE((8, 8), 2, alpha=0.0, weight=1.0, **NETWORKS)
    same.load_state_dict(vae.state_dict())
    torch.testing.assert_close(
        loss_of(same, digits).objectives["model"], loss_of(vae, digits).objectives["model"]
    )
    other = InfoVAE((8, 8), 2, alpha=0.7, weight=5.0, **NETWORKS)
    losses = loss_of(other, digits)
    terms = losses.terms
    expected = terms["reconstruction"] + 0.3 * terms["kl"] + 4.7 * terms["mmd"]
    torch.testing.assert_close(losses.objectives["model"], expected)
    with pytest.raises(ConfigurationError, match=r"weight=0.1: expected at least 1 - alpha, 0.5"):
        InfoVAE((8, 8), 2, alpha=0.5, weight=0.1)


# --- capacity -------------------------------------------------------------------------------------


def test_the_capacity_rises_with_the_epochs(digits):
    model = DisentangledBetaVAE((8, 8), 2, beta=3.0, capacity=8.0, warmup=4, **NETWORKS)
    with torch.no_grad():
        divergences = kl_divergence(model.posterior(digits), model.prior())
    costs = {}
    for model.epoch in (0, 1, 4, 9):
        losses = loss_of(model, digits)
        costs[model.epoch] = (
            losses.objectives["model"].item() - losses.terms["reconstruction"].item()
        )
        capacity = 8.0 * min(1.0, model.epoch / 4)
        expected = 3.0 * (divergences - capacity).abs().mean().item()
        assert costs[model.epoch] == pytest.approx(expected, rel=1e-4)
    assert costs[4] == costs[9]


def test_the_capacity_is_that_of_each_observation(digits):
    model = DisentangledBetaVAE((8, 8), 2, beta=3.0, warmup=0, **NETWORKS)
    with torch.no_grad():
        divergences = kl_divergence(model.posterior(digits), model.prior())
    # Half of them are below it: their mean alone is almost at the capacity.
    model.capacity = float(divergences.median())
    losses = loss_of(model, digits)
    cost = losses.objectives["model"].item() - losses.terms["reconstruction"].item()
    expected = 3.0 * (divergences - model.capacity).abs().mean().item()
    of_mean = 3.0 * abs(divergences.mean().item() - model.capacity)
    assert cost == pytest.approx(expected, rel=1e-2)
    assert of_mean < 0.5 * expected


def test_training_tells_the_epoch_and_counts_none_of_the_warmup_as_best(digits):
    seen = []

    class Watched(DisentangledBetaVAE):
        def weighted(self, kl):
            seen.append((self.epoch, self.training))
            return super().weighted(kl)

    model = Watched((8, 8), 2, warmup=3, **NETWORKS)
    history = fit(model, digits, digits, epochs=5, batch_size=64, seed=0, progress=False)
    assert [epoch for epoch, training in seen if training] == [0, 1, 2, 3, 4]
    assert {epoch for epoch, training in seen if not training} == {float("inf")}
    assert history.best_epoch >= 3
    assert model.epoch == float("inf")
    with pytest.raises(ConfigurationError, match="epochs=3: Watched has a warmup of 3"):
        fit(model, digits, epochs=3, progress=False)


# --- priors ---------------------------------------------------------------------------------------


def test_the_vamp_prior_is_the_mixture_of_posteriors(digits):
    torch.manual_seed(0)
    model = VAMP((8, 8), 2, num_pseudo_inputs=7, likelihood="bernoulli", **NETWORKS).double()
    inputs = model.pseudo_inputs()
    assert inputs.shape == (7, 8, 8)
    assert ((inputs > 0) & (inputs < 1)).all()
    components = model.posterior(inputs)
    z = torch.randn(50, 2).double()
    expected = components.log_prob(z[:, None]).logsumexp(1) - torch.tensor(7.0).log()
    torch.testing.assert_close(model.prior().log_prob(z), expected)
    ticks = torch.linspace(-9, 9, 361).double()
    mass = model.prior().log_prob(torch.cartesian_prod(ticks, ticks)).exp().sum() * 0.05**2
    assert mass.item() == pytest.approx(1.0, abs=1e-4)
    torch.manual_seed(0)
    draws = model.prior().sample((20000,))
    torch.testing.assert_close(draws.mean(0), components.mean.mean(0), atol=0.03, rtol=0)


def test_the_mixture_prior_and_its_clusters_are_those_of_torch(digits):
    torch.manual_seed(0)
    model = MixtureVAE((8, 8), 2, num_components=4, **NETWORKS).double().eval()
    with torch.no_grad():
        model.component_logits.copy_(torch.tensor([0.0, 1.0, -1.0, 2.0]))
        model.raw_deviations.normal_()
    components = Independent(
        Normal(model.component_means, softplus(model.raw_deviations) + 1e-5), 1
    )
    shares = Categorical(logits=model.component_logits)
    x = digits.double()
    z = model.encode(x)
    expected = MixtureSameFamily(shares, components).log_prob(z)
    torch.testing.assert_close(model.prior().log_prob(z), expected)
    probabilities = model.cluster_probabilities(x)
    parts = shares.probs * components.log_prob(z[:, None]).exp()
    torch.testing.assert_close(probabilities, parts / parts.sum(1, keepdim=True))
    assert isinstance(model.cluster_probabilities(x.numpy()), np.ndarray)
    mask = torch.arange(x.numel()).reshape(x.shape) % 3 > 0
    seen = model.cluster_probabilities(x.where(mask, torch.nan), mask=mask)
    assert (seen != probabilities).any()
    assert (seen == model.cluster_probabilities(x, mask=mask)).all()


def test_the_mixture_prior_finds_clusters():
    # Two clusters of vectors: the learned prior gives each a component of its own.
    torch.manual_seed(0)
    labels = torch.arange(200) % 2
    x = torch.randn(200, 6) * 0.3 + torch.where(labels[:, None] == 1, 2.0, -2.0)
    model = MixtureVAE((6,), 2, num_components=2, **NETWORKS)
    fit(model, x, epochs=60, learning_rate=5e-3, seed=0, progress=False)
    found = model.cluster_probabilities(x).argmax(1)
    agree = (found == labels).float().mean()
    assert max(agree, 1 - agree) > 0.98


def test_pseudo_inputs_have_conditions_of_their_own(digits):
    for conditions, total in ((3, 1.0), ((2,), None)):
        model = VAMP((8, 8), 2, num_pseudo_inputs=5, conditions=conditions, **NETWORKS)
        given = model.pseudo_conditions()
        assert given.shape == (5, model.condition_dim)
        if total is not None:
            torch.testing.assert_close(given.sum(1), torch.ones(5))
        assert model.prior().sample((4,)).shape == (4, 2)


def test_a_learned_prior_follows_the_classes(digits):
    from sklearn.datasets import load_digits

    labels = torch.tensor(load_digits().target[:64])
    keep = labels < 2
    data = chartae.data.ArrayDataset(digits[keep], labels[keep])
    torch.manual_seed(0)
    model = CVAE((8, 8), 2, conditions=2, learned_prior=True, **NETWORKS)
    fit(model, data, epochs=100, learning_rate=5e-3, seed=0, progress=False)
    prior = model.prior(torch.tensor([0, 1]))
    assert prior.mean.shape == (2, 2)
    assert (prior.mean[0] - prior.mean[1]).norm() > 0.1
    with pytest.raises(ConfigurationError, match="conditions=None: a CVAE expects"):
        CVAE((8, 8), 2)
