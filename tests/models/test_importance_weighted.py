"""MIWAE, PIWAE and CIWAE: each is what its formula says, on the same weights."""

from itertools import pairwise

import pytest
import torch
from tests.models.conftest import SMALL

from chartae.models import CIWAE, IWAE, MIWAE, PIWAE, VariationalAutoencoder

X = torch.rand(7, 5, generator=torch.Generator().manual_seed(0)).double()


def build(model_class, **options):
    torch.manual_seed(0)
    return model_class((5,), 2, encoder=SMALL, decoder=SMALL, **options).double()


def loss_and_gradients(model, group="model"):
    torch.manual_seed(1)
    objective = model.loss(X).objectives[group]
    parameters = model.optimization_groups()[group]
    names = {id(p): n for n, p in model.named_parameters()}
    gradients = torch.autograd.grad(objective, parameters)
    return objective.detach(), {names[id(p)]: g for p, g in zip(parameters, gradients, strict=True)}


def same(first, second):
    torch.testing.assert_close(first[0], second[0])
    for name, gradient in first[1].items():
        torch.testing.assert_close(gradient, second[1][name])


def test_one_group_is_an_iwae_and_groups_of_one_a_vae():
    same(
        loss_and_gradients(build(MIWAE, num_samples=6, num_groups=1)),
        loss_and_gradients(build(IWAE, num_samples=6)),
    )
    model = build(MIWAE, num_samples=1, num_groups=6)
    torch.manual_seed(1)
    elbo = model.elbo(X, 6).mean()
    assert loss_and_gradients(model)[0].item() == pytest.approx(-elbo.item())


def test_between_the_elbo_and_the_iwae():
    same(
        loss_and_gradients(build(CIWAE, num_samples=6, beta=0.0)),
        loss_and_gradients(build(IWAE, num_samples=6)),
    )
    model = build(CIWAE)
    torch.manual_seed(1)
    log_weights = model.log_weights(X, 6).detach()
    elbo, iwae = log_weights.mean(0), log_weights.logsumexp(0) - torch.tensor(6.0).log()
    expected = -(0.3 * elbo + 0.7 * iwae).mean()
    loss, _ = loss_and_gradients(build(CIWAE, num_samples=6, beta=0.3))
    assert loss.item() == pytest.approx(expected.item())


def test_the_encoder_follows_one_bound_and_the_decoder_the_other():
    model = build(PIWAE, num_samples=3, num_groups=2)
    decoder, encoder = loss_and_gradients(model), loss_and_gradients(model, "encoder")
    assert all(name.startswith(("decoder", "observation_model")) for name in decoder[1])
    assert all(name.startswith(("encoder", "posterior_head")) for name in encoder[1])
    same(decoder, loss_and_gradients(build(IWAE, num_samples=6)))
    same(encoder, loss_and_gradients(build(MIWAE, num_samples=3, num_groups=2)))


def test_more_weights_are_a_tighter_bound_on_the_same_parameters():
    # ELBO <= IWAE_10 <= IWAE_100 <= log p(x), in expectation.
    model = build(VariationalAutoencoder).eval()
    with torch.no_grad():
        model.posterior_head.linear.bias.fill_(1.0)
        for parameter in model.decoder.parameters():
            parameter.mul_(2.0)
    torch.manual_seed(0)
    estimates = [
        model.log_likelihood(X.repeat(20000 // k, 1), k).reshape(-1, 7).mean(0)
        for k in (1, 10, 100)
    ]
    estimates.append(model.log_likelihood(X, 100000))
    for lower, upper in pairwise(estimates):
        assert (lower < upper + 1e-3).all()
        assert lower.mean() < upper.mean()
