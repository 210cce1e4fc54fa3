"""Samplers of latents on a sphere and in a ball."""

import math

import pytest
import torch
from scipy import stats

import chartae
from chartae.errors import ConfigurationError
from chartae.models import AE, VAE
from chartae.models.poincare import PoincareVAE
from chartae.models.svae import SVAE
from chartae.samplers import NormalSampler, PoincareSampler, SphereSampler

SMALL = {"name": "mlp", "hidden": [8]}
KINDS = {
    "sphere": (SphereSampler, SVAE, {}),
    "ball": (PoincareSampler, PoincareVAE, {"curvature": 0.5}),
    "riemannian ball": (PoincareSampler, PoincareVAE, {"posterior": "riemannian"}),
    "conditional ball": (PoincareSampler, PoincareVAE, {"conditions": 4}),
    "conditional sphere": (SphereSampler, SVAE, {"conditions": (2,)}),
}


def build(kind: str, **changes):
    sampler_class, model_class, options = KINDS[kind]
    torch.manual_seed(0)
    arguments = {"encoder": SMALL, "decoder": SMALL, **options, **changes}
    return sampler_class(model_class((4, 4), 3, **arguments).eval())


@pytest.fixture(params=KINDS)
def sampler(request):
    return build(request.param)


def conditions(sampler):
    wanted = sampler.model.conditions
    return 2 if isinstance(wanted, int) else torch.ones(2) if wanted else None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_latents_are_points_of_the_models_space(sampler, dtype):
    sampler.to(dtype)
    y = conditions(sampler)
    if isinstance(y, torch.Tensor):
        y = y.to(dtype)
    z = sampler.sample_latents(500, seed=0, y=y)
    assert z.shape == (500, 3)
    assert z.dtype == dtype
    sampler.model.check_latents("z", z)
    assert sampler.fit() is sampler
    x = sampler.sample(7, seed=0, y=y, batch_size=3)
    assert x.shape == (7, 4, 4)
    assert not x.requires_grad
    torch.testing.assert_close(x, sampler.sample(7, seed=0, y=y))


def test_seeds_decide_and_nothing_else(sampler):
    y = conditions(sampler)
    first = sampler.sample_latents(6, seed=0, y=y)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    assert (sampler.sample_latents(6, seed=0, y=y) == first).all()
    assert (torch.get_rng_state() == state).all()
    assert (sampler.sample_latents(6, seed=1, y=y) != first).any()


def test_saved_and_loaded(sampler, tmp_path):
    y = conditions(sampler)
    sampler.save_pretrained(tmp_path)
    twin = chartae.load(tmp_path)
    assert type(twin) is type(sampler)
    assert (twin.sample(6, seed=0, y=y) == sampler.sample(6, seed=0, y=y)).all()


def test_laws_are_the_priors():
    for coordinate in build("sphere").sample_latents(4000, seed=1).T:  # Archimedes
        assert stats.kstest(coordinate, stats.uniform(-1, 2).cdf).pvalue > 1e-3
    root = math.sqrt(0.5)
    z = build("ball").sample_latents(4000, seed=1)
    # The distances to the origin of a wrapped normal of scale 1 are those of a normal.
    distance = 2 / root * torch.atanh(root * z.norm(dim=-1))
    assert stats.kstest(distance, stats.chi(3).cdf).pvalue > 1e-3


@pytest.mark.parametrize("sampler_class", [SphereSampler, PoincareSampler, NormalSampler])
@pytest.mark.parametrize("model_class", [AE, VAE, SVAE, PoincareVAE])
def test_the_wrong_pair_is_refused(sampler_class, model_class):
    torch.manual_seed(0)
    model = model_class((4, 4), 2, encoder=SMALL, decoder=SMALL)
    right = {SVAE: SphereSampler, PoincareVAE: PoincareSampler}.get(model_class, NormalSampler)
    if sampler_class is right:
        assert sampler_class(model).model is model
        return
    message = f"{sampler_class.__name__} does not support this {model_class.__name__}: .*"
    with pytest.raises(ConfigurationError, match=message + right.__name__):
        sampler_class(model)
