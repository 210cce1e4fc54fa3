"""What a process has set does not matter: default dtypes, gradients switched off."""

import contextlib

import pytest
import torch
from tests.models.conftest import SMALL, batch_of, build, conditions_of, has_posterior
from torch import nn

from chartae import samplers
from chartae.errors import ConfigurationError, DataError
from chartae.models import AE, HVAE, VAE, VQVAE, PlanarFlowVAE

NETWORKS = {"encoder": SMALL, "decoder": SMALL}


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def everything(model, x):
    """All that one does with a trained model."""
    y = conditions_of(model, len(x))
    z = model.encode(x, y)
    results = [z, model.decode(z, y), model.reconstruct(x, y)]
    results += model.loss(x, y=y).objectives.values()
    if has_posterior(model):
        results += [model.elbo(x, 2, y=y), model.log_likelihood(x, 2, y=y)]
        results += [model.prior(y).sample(), model.log_weights(x, 2, y=y)]
    if hasattr(type(model), "metric"):
        results += [model.metric.log_volume(z)]
    return results


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_default_dtype_is_a_models_own_and_no_others(make, digits, dtype):
    x = digits[:8].to(dtype)
    with default_dtype(torch.float64):
        model = make(dtype=torch.get_default_dtype())
        tensors = [*model.parameters(), *model.buffers()]
        assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.float64}
        model.to(dtype).on_fit_end([batch_of(model, x)])
        for result in everything(model.eval(), x):
            assert result.dtype == dtype
            assert torch.isfinite(result).all()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_models_work_without_gradients(make, digits, mode):
    model = make().eval()
    model.on_fit_end([batch_of(model, digits)])
    torch.manual_seed(0)
    expected = everything(model, digits[:8])
    torch.manual_seed(0)
    with mode():
        found = everything(model, digits[:8])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other.detach())
        assert not one.requires_grad


@pytest.mark.parametrize("make_model", [lambda: HVAE((8, 8), 2, **NETWORKS)])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_tensors_of_an_inference_mode_are_data_too(make_model, mode):
    model = make_model().eval()
    with torch.inference_mode():
        x, mask = torch.rand(4, 8, 8), torch.rand(4, 8, 8) < 0.5
    with mode():
        assert torch.isfinite(model.log_likelihood(x, 3, mask=mask)).all()


LEARNED = [
    (samplers.FlowSampler, VAE, 2, {}, {"hidden": [8], "epochs": 2}),
    (samplers.TwoStageSampler, VAE, 2, {}, {"hidden": [8], "epochs": 2}),
    (samplers.CodeSampler, VQVAE, 8, {"grid": (2, 2), "num_codes": 8}, {"epochs": 2}),
]


def learned(case, dtype=None):
    cls, model_class, latent_dim, arguments, options = case
    torch.manual_seed(0)
    model = model_class((8, 8), latent_dim, conditions=(1,), **arguments, **NETWORKS)
    return cls(model.to(dtype).eval(), **options)


@pytest.mark.parametrize("case", LEARNED, ids=lambda case: case[0].__name__)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_samplers_learn_without_gradients_of_the_caller(case, mode, digits):
    y = torch.linspace(0.0, 1.0, 64)[:, None]
    expected = learned(case).fit(digits, y).sample(4, 0, y[:4])
    sampler = learned(case)
    with mode():
        sampler.fit(digits.clone(), y.clone())
        drawn = sampler.sample(4, 0, y[:4])
    torch.testing.assert_close(drawn, expected)
    sampler.fit(digits, y)  # and again, outside


@pytest.mark.parametrize("case", LEARNED, ids=lambda case: case[0].__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samplers_learn_under_any_default_dtype(case, dtype, digits):
    y = torch.linspace(0.0, 1.0, 64, dtype=dtype)[:, None]
    with default_dtype(torch.float64):
        sampler = learned(case, dtype).fit(digits.to(dtype), y)
        assert sampler.sample(4, 0, y[:4]).dtype == dtype


def test_a_batch_of_one_and_a_batch_normalisation_of_your_own():
    encoder = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64))
    decoder = nn.Sequential(nn.Linear(2, 64), nn.BatchNorm1d(64))
    for networks in ({"encoder": encoder}, {"decoder": decoder}):
        model = AE((8, 8), 2, **networks)
        with pytest.raises(
            DataError, match=r"one observation: .*expects at least 2.*model.eval\(\)"
        ):
            model.loss(torch.rand(1, 8, 8))
        assert torch.isfinite(model.eval().loss(torch.rand(1, 8, 8)).objectives["model"])


def test_the_density_of_a_flow_elsewhere_is_refused():
    posterior = PlanarFlowVAE((8, 8), 2).posterior(torch.rand(3, 8, 8))
    with pytest.raises(
        ConfigurationError, match="only at its own samples: use rsample_and_log_prob"
    ):
        posterior.log_prob(torch.zeros(3, 2))


@pytest.mark.parametrize("name", ["HVAE", "RHVAE", "RAE gp"])
def test_a_model_that_was_made_in_inference_mode_works_in_it(name):
    x = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        model = build(name)
        loss = model.loss(x).objectives["model"]
        assert torch.isfinite(loss)
        if name != "RAE gp":
            assert torch.isfinite(model.log_likelihood(x, 3)).all()
