"""Surgery of the ELBO against exact values, active units, use of codebooks."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from chartae.errors import ConfigurationError, DataError
from chartae.evaluation import active_units, code_usage, elbo_surgery, surgery
from chartae.models import AE, HRQVAE, VAE, VQVAE, PoincareVAE

POINTS = torch.tensor([[-2.0], [0.0], [0.5], [3.0]], dtype=torch.float64)


def linear_vae(slope: float, scale: float, d: int = 1) -> VAE:
    """A VAE of x in R^d with posteriors N(slope x, scale^2)."""
    model = VAE((d,), d, encoder=nn.Identity(), decoder=nn.Identity()).double()
    head = model.posterior_head
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.weight[:d] = slope * torch.eye(d)
        head.linear.bias.zero_()
        head.linear.bias[d:] = math.log(math.expm1(scale - head.floor))
    return model.eval()


def quadrature(means: torch.Tensor, scale: float) -> tuple[float, float]:
    """Return I(x; z) and KL(q || p) of a mixture of normals, on a grid."""
    grid = torch.linspace(-12.0, 12.0, 40001, dtype=torch.float64)
    logs = torch.distributions.Normal(means.flatten(), scale).log_prob(grid[:, None])
    log_q = logs.logsumexp(1) - math.log(len(means))
    log_p = torch.distributions.Normal(0.0, 1.0).log_prob(grid)
    step = float(grid[1] - grid[0])
    information = (logs.exp() * (logs - log_q[:, None])).mean(1).sum() * step
    marginal = (log_q.exp() * (log_q - log_p)).sum() * step
    return float(information), float(marginal)


@pytest.mark.parametrize(("slope", "scale"), [(1.0, 0.3), (0.5, 1.0), (2.0, 0.1)])
def test_parts_agree_with_quadrature(slope: float, scale: float) -> None:
    model = linear_vae(slope, scale)
    posterior = model.posterior(POINTS)
    assert torch.allclose(posterior.mean, slope * POINTS)
    assert torch.allclose(posterior.stddev, torch.full_like(POINTS, scale))
    found = elbo_surgery(model, POINTS, num_samples=4000)
    information, marginal = quadrature(slope * POINTS, scale)
    assert found.information == pytest.approx(information, abs=0.02)
    assert found.marginal_kl == pytest.approx(marginal, abs=0.05)
    assert found.total_correlation == pytest.approx(0.0, abs=1e-9)  # of one coordinate


def test_the_parts_add_up_to_the_elbo() -> None:
    torch.manual_seed(0)
    model = VAE((6,), 3).double().eval()
    x = torch.rand(40, 6, dtype=torch.float64)
    found = elbo_surgery(model, x, num_samples=400)
    with torch.no_grad():
        kl = torch.distributions.kl_divergence(
            torch.distributions.Normal(model.posterior(x).mean, model.posterior(x).stddev),
            torch.distributions.Normal(0.0, 1.0),
        )
        assert found.kl == pytest.approx(float(kl.sum(1).mean()), abs=0.02)
        elbo = float(model.elbo(x, 400).mean())
    assert found.elbo == pytest.approx(elbo, abs=0.05)


def test_total_correlation_of_correlated_codes() -> None:
    # Posteriors of scale 0.2 around points on a line: q is nearly a normal of two equal codes.
    line = torch.linspace(-2.0, 2.0, 60, dtype=torch.float64)[:, None].expand(-1, 2).contiguous()
    spread = torch.cartesian_prod(*[torch.linspace(-2.0, 2.0, 8, dtype=torch.float64)] * 2)
    model = linear_vae(1.0, 0.5, d=2)
    assert elbo_surgery(model, line, num_samples=50).total_correlation > 0.5
    # A product grid has independent coordinates.
    independent = elbo_surgery(model, spread, num_samples=200).total_correlation
    assert independent == pytest.approx(0.0, abs=0.02)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, x = VAE((6,), 3).eval(), torch.rand(40, 6)
    before = elbo_surgery(model, x)
    monkeypatch.setattr(surgery, "PAIRS", 500)
    after = elbo_surgery(model, x)
    assert after.kl == pytest.approx(before.kl, abs=1e-6)
    assert after.total_correlation == pytest.approx(before.total_correlation, abs=1e-6)


def test_refusals() -> None:
    with pytest.raises(DataError, match="expected at least 2"):
        elbo_surgery(VAE((6,), 3).eval(), torch.rand(1, 6))
    with pytest.raises(DataError, match="shape"):
        elbo_surgery(VAE((6,), 3).eval(), torch.rand(4, 5))
    with pytest.raises(ConfigurationError, match="DiagonalNormal"):
        elbo_surgery(PoincareVAE((6,), 3).eval(), torch.rand(4, 6))


def test_active_units() -> None:
    model = linear_vae(1.0, 1.0, d=3)
    x = torch.randn(500, 3, dtype=torch.float64) * torch.tensor([1.0, 0.05, 0.0])
    assert active_units(model, x) == 1
    assert active_units(model, x, threshold=1e-4) == 2
    assert active_units(model, x.numpy()) == 1
    with pytest.raises(DataError, match="at least 2"):
        active_units(model, x[:1])


class TestCodes:
    @pytest.mark.parametrize("kind", [VQVAE, HRQVAE])
    def test_usage_is_that_of_the_indices(self, kind) -> None:
        torch.manual_seed(0)
        model = kind((8, 8), 16, num_codes=32).eval()
        x = torch.rand(100, 8, 8)
        found = code_usage(model, x)
        indices = model.codes(x)
        levels = [indices] if kind is VQVAE else indices.unbind(-1)
        shares = [len(level.unique()) / 32 for level in levels]
        assert found.share == pytest.approx(np.mean(shares))
        assert 1.0 <= found.perplexity <= 32.0

    def test_one_code_and_all_codes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = VQVAE((8, 8), 16, num_codes=32).eval()
        x = torch.rand(32, 8, 8)
        one = torch.zeros(32, *model.index_shape, dtype=torch.int64)
        monkeypatch.setattr(model, "codes", lambda x: one)
        assert code_usage(model, x) == surgery.CodeUsage(1 / 32, 1.0)
        every = torch.arange(32).reshape(-1, *[1] * len(model.index_shape)).expand_as(one)
        monkeypatch.setattr(model, "codes", lambda x: every)
        found = code_usage(model, x)
        assert found.share == 1.0
        assert found.perplexity == pytest.approx(32.0)

    def test_other_models_are_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="model is AE"):
            code_usage(AE((8, 8), 2), torch.rand(3, 8, 8))
