"""Follow-ups in the latent space of an autoencoder of single visits."""

import pytest
import torch

import chartae
from chartae.data import Sequences
from chartae.errors import DataError
from chartae.longitudinal import FlowVAE, decode_visits, encode_visits


def visits() -> Sequences:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(6, 4, 3, 3, generator=generator)
    observed = torch.rand(6, 4, generator=generator) > 0.3
    observed[:, 0] = True
    mask = torch.rand(x.shape, generator=generator) > 0.1
    return Sequences(x, times=torch.arange(4.0), observed=observed, mask=mask, covariates=["a"] * 6)


def test_codes_are_those_of_each_observed_visit() -> None:
    data, model = visits(), chartae.VAE((3, 3), latent_dim=2).eval()
    codes = encode_visits(model, data, batch_size=5)
    seen = data.observed
    expected = model.encode(data.x[seen], mask=data.mask[seen])
    torch.testing.assert_close(codes.x[seen], expected.detach())
    assert torch.equal(codes.observed, seen)
    assert codes.ids == data.ids
    assert codes.class_names == ("a",)
    assert not codes.x[~seen].any()


def test_draws_of_codes_become_draws_of_observations() -> None:
    data, model = visits(), chartae.VAE((3, 3), latent_dim=2).eval()
    codes = encode_visits(model, data)
    course = FlowVAE((2,), latent_dim=2).eval()
    drawn = course.futures(codes, times=[5.0, 6.0], n=3, noise=False)
    decoded = decode_visits(model, drawn)
    assert decoded.values.shape == (3, 6, 2, 3, 3)
    torch.testing.assert_close(decoded.values[1, 2], model.decode(drawn.values[1, 2]).detach())
    assert decoded.mean().shape == (6, 2, 3, 3)


def test_visits_of_another_shape_are_refused() -> None:
    with pytest.raises(DataError, match=r"shape \(3, 3\): the model expects \(4,\)"):
        encode_visits(chartae.VAE((4,), latent_dim=2), visits())
