"""What a mixture says of data that it hardly fits: in the library's words, as logs or errors."""

import logging
import warnings

import pytest
import torch

from chartae.errors import DataError
from chartae.models import AE
from chartae.samplers import MixtureSampler


class Identity(torch.nn.Module):
    def forward(self, x):
        return x


@pytest.fixture
def model():
    torch.manual_seed(0)
    return AE((2,), 2, encoder=Identity(), decoder=Identity()).eval()


@pytest.fixture(autouse=True)
def no_foreign_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("distinct", [1, 2, 4])
def test_more_components_than_distinct_codes_are_told(model, caplog, distinct):
    x = torch.arange(distinct).repeat(10)[:, None] * torch.ones(2)
    sampler = MixtureSampler(model, num_components=5).fit(x)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"num_components=5: x has {distinct} distinct code(s), and the other components have "
        "weight 0"
    )
    assert record.levelno == logging.WARNING
    assert int((sampler.weights > 1e-6).sum()) == distinct
    draws, codes = sampler.sample_latents(50, seed=0), model.encode(x).detach()
    assert float(torch.cdist(draws, codes).amin(1).max()) < 0.01


@pytest.mark.parametrize("x", [torch.ones(30, 2), torch.rand(300, 2)], ids=["constant", "uniform"])
def test_the_default_says_nothing(model, caplog, x):
    MixtureSampler(model).fit(x)
    assert not caplog.records


def test_a_mixture_that_has_not_converged_is_told(model, caplog, monkeypatch):
    monkeypatch.setattr("sklearn.mixture.GaussianMixture.converged_", False, raising=False)
    monkeypatch.setattr(
        "sklearn.mixture.GaussianMixture.__setattr__",
        lambda self, name, value: (
            None if name == "converged_" else object.__setattr__(self, name, value)
        ),
    )
    MixtureSampler(model, num_components=2).fit(torch.rand(50, 2))
    (record,) = caplog.records
    assert "num_components=2 was still improving after" in record.getMessage()


def test_a_covariance_that_cannot_be_is_a_data_error(model):
    x = 1e12 * torch.ones(30, 2) * torch.tensor([[1.0, 1.0 + 1e-6]])
    x[::2, 0] *= 1 + 1e-6
    with pytest.raises(DataError, match=r"no mixture fits the codes of x.*regularization=1e-30"):
        MixtureSampler(model, num_components=2, regularization=1e-30).fit(x)
