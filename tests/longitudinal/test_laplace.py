"""Posteriors that are computed from the model itself: exact where everything is linear."""

import pytest
import torch
from torch.distributions import MultivariateNormal

import chartae
from chartae.data import Sequences
from chartae.errors import ConfigurationError
from chartae.longitudinal import FlowVAE

LINEAR = {"name": "mlp", "hidden": []}
WAVES = {
    "flow": "rotation",
    "inference": "laplace",
    "decoder": LINEAR,
    "likelihood": {"name": "gaussian", "scale": "per_feature"},
}


def people(count: int = 5, visits: int = 4, features: int = 3) -> Sequences:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, visits, features, generator=generator, dtype=torch.float64)
    times = torch.rand(count, visits, generator=generator, dtype=torch.float64).cumsum(1)
    observed = torch.ones(count, visits, dtype=torch.bool)
    observed[0, 1] = observed[2, 2:] = False
    mask = torch.rand(x.shape, generator=generator) > 0.2
    mask[..., 0] = True
    return Sequences(x, times=times, observed=observed, mask=mask, dtype=None)


def waves(dim: int = 4, **changes) -> FlowVAE:
    torch.manual_seed(1)
    model = FlowVAE((3,), dim, **{**WAVES, **changes}).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def exact(model: FlowVAE, data: Sequences) -> torch.Tensor:
    """The joint log density of what was observed, from the joint normal of all visits."""
    found = []
    basis = torch.cat([torch.zeros(1, model.latent_dim), torch.eye(model.latent_dim)]).double()
    scale = model.observation_model.scale.expand(3)
    for x, times, known in zip(data.x, data.times, data.known, strict=True):
        owner = torch.zeros(len(times), dtype=torch.long)
        z = model.path(basis[:, None], owner, model.model_times(times))
        means = model.likelihood(z).mean.flatten(1)
        loadings, seen = (means[1:] - means[0]).mT, known.flatten()
        noise = scale.square().repeat(len(times)).diag()
        covariance = (loadings @ loadings.mT + noise)[seen][:, seen]
        normal = MultivariateNormal(means[0][seen], covariance)
        found.append(normal.log_prob(x.flatten()[seen]))
    return torch.stack(found)


@pytest.mark.parametrize(("dim", "lines"), [(1, 0), (4, 0), (5, 0), (4, 1), (4, 2)])
def test_likelihoods_of_a_linear_model_are_exact(dim: int, lines: int) -> None:
    data, model = people(), waves(dim, flow={"name": "rotation", "lines": lines})
    found = model.log_likelihood(data, 7)
    torch.testing.assert_close(found.log_prob, exact(model, data))
    torch.testing.assert_close(found.effective_samples, torch.full((5,), 7.0).double())


def test_its_objective_is_the_exact_log_likelihood_whatever_is_drawn() -> None:
    data, model = people(), waves()
    model.train()
    expected = -exact(model, data).mean()
    for _ in range(3):
        torch.testing.assert_close(model.loss(**data.tensors).objectives["model"], expected)


def test_steps_find_the_mode_for_a_likelihood_that_is_not_normal() -> None:
    real = people()
    data = Sequences(
        (real.x > 0.0).double(),
        times=real.times,
        observed=real.observed,
        mask=real.mask,
        dtype=None,
    )
    model = waves(2, likelihood="bernoulli", laplace_steps=10)
    visits = model.visits(**data.tensors)
    mode = model.posterior(visits).mean.detach().requires_grad_()
    joint = model.log_fit(mode, visits) + model.prior().log_prob(mode)
    (gradient,) = torch.autograd.grad(joint.sum(), mode)
    assert gradient.abs().max() < 1e-6
    assert model.log_likelihood(data, 100).effective_samples.min() > 30.0


def test_it_trains_saves_and_predicts(tmp_path) -> None:
    data = people(20)
    model = FlowVAE((3,), 4, **WAVES).double()
    history = chartae.fit(model, data, epochs=30, learning_rate=1e-2, seed=0, progress=False)
    assert history.train["loss"][-1] < history.train["loss"][0]
    model.save_pretrained(tmp_path)
    again = chartae.load(tmp_path)
    drawn = [m.futures(data, [5.0], 50, seed=3).quantile(0.5) for m in (model, again)]
    torch.testing.assert_close(*drawn)


@pytest.mark.parametrize("changes", [{"posterior_flows": 1}, {"warmup": 2}, {"prior": "vamp"}])
def test_what_needs_an_encoder_is_refused(changes: dict) -> None:
    with pytest.raises(ConfigurationError, match="it has no encoder"):
        FlowVAE((3,), 2, inference="laplace", **changes)
