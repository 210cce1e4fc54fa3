import logging
import math

import pytest
import torch
from scipy import stats
from torch import nn

import chartae
from chartae.errors import ConfigurationError, DataError
from chartae.models import AE, RHVAE, VAE
from chartae.samplers.mixup import MixupSampler

SMALL = {"name": "mlp", "hidden": [16]}


class Codes(nn.Module):
    """An encoder of data that are codes already."""

    def forward(self, x):
        return x


def code_model(model_class=VAE, **options):
    """A model whose codes are the data, two numbers."""
    torch.manual_seed(0)
    model = model_class((2,), 2, encoder=Codes(), decoder=nn.Identity(), **options)
    linear = model.posterior_head.linear
    with torch.no_grad():
        linear.weight.copy_(torch.eye(4, 2))
        linear.bias.copy_(torch.tensor([0.0, 0.0, 1.0, 1.0]) * math.log(math.expm1(0.3)))
    return model.eval()


def arc(n=40, degrees=300.0):
    angles = torch.linspace(-degrees / 2, degrees / 2, n).deg2rad()
    return 2 * torch.stack([angles.cos(), angles.sin()], -1)


def rhvae(x):
    model = code_model(RHVAE, metric_network=SMALL, temperature=0.5, regularization=1e-2)
    model.on_fit_end([{"x": x}])
    return model


# --- the contract -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("own_metric", [True, False])
def test_shapes_dtypes_and_seeds(own_metric, dtype):
    x = arc(20)
    sampler = (
        MixupSampler(rhvae(x) if own_metric else code_model(), num_points=8, rho=1.0)
        .fit(x)
        .to(dtype)
    )
    z = sampler.sample_latents(6, seed=0)
    assert z.shape == sampler.sample(6, seed=0).shape == (6, 2)
    assert z.dtype == dtype
    assert torch.isfinite(z).all()
    state = torch.get_rng_state()
    assert (sampler.sample_latents(6, seed=0) == z).all()
    assert (torch.get_rng_state() == state).all()
    assert (sampler.sample_latents(6, seed=1) != z).any()


def test_saved_and_loaded(tmp_path):
    model = chartae.VAE((8, 8), 2, encoder=SMALL, decoder=SMALL).eval()
    sampler = MixupSampler(model, 3, alpha=0.5, strength=0.2, num_points=8, rho=1.0)
    sampler.fit(torch.rand(10, 8, 8))
    sampler.save_pretrained(tmp_path)
    twin = chartae.load(tmp_path)
    assert (twin.sample(4, seed=0) == sampler.sample(4, seed=0)).all()
    assert (twin.neighbours, twin.alpha, twin.strength, twin.num_points) == (3, 0.5, 0.2, 8)


# --- where latents lie --------------------------------------------------------------------------


def test_latents_lie_on_straight_lines_of_a_flat_metric():
    # Without strength the paths are straight: each latent is a share of a segment of two codes.
    x = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 3.0]])
    sampler = MixupSampler(code_model(), strength=0.0, num_points=5).fit(x)
    z = sampler.sample_latents(600, seed=0)
    ends = x[[0, 1, 2]], x[[1, 2, 0]]
    along = ends[1] - ends[0]
    shares = ((z[:, None] - ends[0]) * along).sum(-1) / along.square().sum(-1)
    gaps = (ends[0] + shares[..., None] * along - z[:, None]).norm(dim=-1)
    nearest = gaps.argmin(1)
    assert float(gaps.amin(1).max()) < 1e-4
    # Every pair as often, every position too.
    assert stats.chisquare(nearest.bincount(minlength=3).numpy()).pvalue > 1e-3
    t = shares.gather(1, nearest[:, None])[:, 0].numpy()
    assert stats.kstest(t, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.3, 4.0])
def test_positions_follow_a_beta(alpha):
    x = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    sampler = MixupSampler(code_model(), alpha=alpha, strength=0.0, num_points=5).fit(x)
    t = sampler.sample_latents(800, seed=1)[:, 0] / 4
    assert stats.kstest(t.numpy(), stats.beta(alpha, alpha).cdf).pvalue > 1e-3


@pytest.mark.parametrize("own_metric", [True, False])
def test_geodesics_keep_to_the_data(own_metric):
    # Codes on an arc: straight lines cut through its void, geodesics do not.
    x = arc()
    model, options = (rhvae(x), {}) if own_metric else (code_model(), {"rho": 1.0})
    z = MixupSampler(model, **options).fit(x).sample_latents(30, seed=0)
    straight = MixupSampler(code_model(), strength=0.0, num_points=3).fit(x)
    assert float((z.norm(dim=-1) - 2).abs().mean()) < 0.12
    assert float((straight.sample_latents(30, seed=0).norm(dim=-1) - 2).abs().mean()) > 0.3


def test_neighbours_keep_pairs_close():
    x = torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.0, 0.1], [9.0, 9.0], [9.1, 9.0], [9.0, 9.1]])
    options = {"strength": 0.0, "num_points": 3, "rho": 1.0}
    near = MixupSampler(code_model(), neighbours=2, **options).fit(x).sample_latents(50, seed=0)
    assert bool(((near < 0.2).all(-1) | (near > 8.8).all(-1)).all())
    # More neighbours than there are other codes: all of them.
    for neighbours in (50, None):
        sampler = MixupSampler(code_model(), neighbours=neighbours, **options).fit(x)
        z = sampler.sample_latents(50, seed=0)
        assert ((z > 1).all(-1) & (z < 8).all(-1)).any()


def test_no_code_is_paired_with_itself():
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    for neighbours in (1, None):
        sampler = MixupSampler(code_model(), neighbours, strength=0.0, num_points=3).fit(x)
        z = sampler.sample_latents(100, seed=0)
        assert ((z[:, 0] > 0) & (z[:, 0] < 1)).all()


def test_paths_are_sought_in_blocks(monkeypatch):
    from chartae.samplers import mixup

    solve, sizes = mixup.shortest_paths, []

    def counted(metric, start, end, **options):
        sizes.append(len(start))
        return solve(metric, start, end, **options)

    monkeypatch.setattr(mixup, "shortest_paths", counted)
    x, options = arc(20), {"rho": 1.0}
    sampler = MixupSampler(code_model(), max_chains=4, **options).fit(x)
    whole = MixupSampler(code_model(), **options).fit(x).sample_latents(10, seed=0)
    sizes.clear()
    torch.testing.assert_close(sampler.sample_latents(10, seed=0), whole, rtol=0, atol=1e-2)
    assert sizes == [4, 4, 2]


@pytest.mark.slow
def test_paths_that_are_not_found_are_counted(caplog, monkeypatch):
    from chartae.samplers import mixup

    caplog.set_level(logging.WARNING)
    sampler = MixupSampler(code_model(), rho=1.0).fit(arc(20))
    sampler.sample_latents(5, seed=0)
    assert not caplog.records
    monkeypatch.setattr(mixup, "TOLERANCE", 1e-12)
    sampler.sample_latents(5, seed=0)
    assert "5 of 5 paths between codes are not geodesics to the tolerance" in caplog.text


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neighbours": 0}, "neighbours=0: expected an integer at least 1"),
        ({"alpha": 0.0}, "alpha=0.0: expected a finite number greater than 0"),
        ({"strength": -1.0}, "strength=-1.0: expected a finite number at least 0"),
        ({"num_points": 2}, "num_points=2: expected an integer at least 3"),
        ({"geometry": "model"}, "geometry='model': VAE has no metric"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        MixupSampler(code_model(), **options)


def test_it_wants_a_manifold_and_two_codes():
    with pytest.raises(ConfigurationError, match="MixupSampler does not support this AE"):
        MixupSampler(AE((2,), 2, encoder=Codes(), decoder=nn.Linear(2, 2)))
    with pytest.raises(ConfigurationError, match="this MixupSampler has not been fitted"):
        MixupSampler(code_model()).sample(2)
    with pytest.raises(ConfigurationError, match="there is 1 code: mix-up needs at least 2"):
        MixupSampler(code_model(), rho=1.0).fit(arc(1)).sample(2)
    with pytest.raises(DataError, match="x is NoneType: MixupSampler.fit expects the training set"):
        MixupSampler(code_model()).fit()
