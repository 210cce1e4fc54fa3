import math

import pytest
import torch
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal, kl_divergence

from chartae.distributions import (
    DiagonalNormal,
    DiagonalNormalHead,
    FullNormal,
    FullNormalHead,
    LowRankNormal,
    LowRankNormalHead,
    StandardNormal,
    joined,
    normal_head,
)
from chartae.errors import ConfigurationError


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_prob_is_the_multivariate_one(dtype):
    loc = torch.randn(5, 3, dtype=dtype)
    scale = torch.rand(5, 3, dtype=dtype) + 0.1
    q = DiagonalNormal(loc, scale)
    z, log_prob = q.rsample_and_log_prob((7,))
    assert z.shape == (7, 5, 3)
    assert log_prob.dtype == dtype
    expected = MultivariateNormal(loc, scale_tril=torch.diag_embed(scale)).log_prob(z)
    torch.testing.assert_close(log_prob, expected)
    assert q.mean is loc
    assert q.rsample_and_log_prob()[0].shape == (5, 3)


def test_kl_to_the_prior_is_in_closed_form():
    loc, scale = torch.randn(5, 3).double(), torch.rand(5, 3).double() + 0.1
    prior = DiagonalNormal(torch.zeros(3).double(), torch.ones(3).double())
    expected = 0.5 * (scale.square() + loc.square() - 1 - 2 * scale.log()).sum(-1)
    torch.testing.assert_close(kl_divergence(DiagonalNormal(loc, scale), prior), expected)


def test_samples_are_reparametrised():
    loc = torch.zeros(4, 2, requires_grad=True)
    scale = torch.ones(4, 2, requires_grad=True)
    z, _ = DiagonalNormal(loc, scale).rsample_and_log_prob((3,))
    z.sum().backward()
    torch.testing.assert_close(loc.grad, torch.full((4, 2), 3.0))
    torch.testing.assert_close(scale.grad, z.detach().sum(0))


HEADS = {
    "diagonal": DiagonalNormalHead,
    "full": FullNormalHead,
    "low-rank": lambda features, d: LowRankNormalHead(features, d, 2),
}


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("size", [-1e4, -50.0, 0.0, 50.0, 1e4])
def test_head_gives_a_positive_finite_scale_for_any_feature(kind, size):
    head = HEADS[kind](2, 3)
    torch.nn.init.constant_(head.linear.weight, 1.0)
    features = torch.full((4, 2), size, requires_grad=True)
    q = head(features)
    log_prob = q.log_prob(q.mean)
    log_prob.sum().backward()
    assert (q.stddev >= head.floor * (1 - 1e-6)).all()
    assert torch.isfinite(log_prob).all()
    assert torch.isfinite(features.grad).all()
    assert float(log_prob.detach().abs().max()) < 3 * math.log(1e5) + 9
    assert torch.isfinite(q.rsample_and_log_prob((5,))[1]).all()


def test_kl_to_the_standard_normal_is_the_general_one():
    torch.manual_seed(0)
    posterior = DiagonalNormal(torch.randn(7, 3).double(), torch.rand(7, 3).double() + 0.1)
    zeros = torch.zeros(3).double()
    general = kl_divergence(posterior, DiagonalNormal(zeros, torch.ones_like(zeros)))
    torch.testing.assert_close(kl_divergence(posterior, StandardNormal(zeros)), general)


# --- correlations -------------------------------------------------------------------------------


def correlated(kind, batch=5, d=4):
    """Return a normal with correlations, and what torch makes of its parameters."""
    torch.manual_seed(0)
    loc, scale = torch.randn(batch, d).double(), torch.rand(batch, d).double() + 0.1
    if kind == "full":
        factor = torch.randn(batch, d, d).double().tril(-1) + torch.diag_embed(scale)
        return FullNormal(loc, factor), MultivariateNormal(loc, scale_tril=factor)
    columns = torch.randn(batch, d, 2).double()
    torchs = LowRankMultivariateNormal(loc, columns, scale)
    return LowRankNormal(loc, columns, scale), torchs


@pytest.mark.parametrize("kind", ["full", "low-rank"])
def test_correlated_normals_are_those_of_torch(kind):
    q, torchs = correlated(kind)
    z, log_prob = q.rsample_and_log_prob((7,))
    torch.testing.assert_close(log_prob, torchs.log_prob(z))
    torch.testing.assert_close(q.log_prob(z), torchs.log_prob(z))
    torch.testing.assert_close(q.mean, torchs.mean)
    torch.testing.assert_close(q.covariance, torchs.covariance_matrix)
    torch.testing.assert_close(q.factor @ q.factor.mT, torchs.covariance_matrix)
    assert (q.factor.triu(1) == 0).all()


@pytest.mark.parametrize("kind", ["full", "low-rank"])
def test_correlated_samples_have_the_covariance(kind):
    q, torchs = correlated(kind, batch=2)
    for draws in (q.rsample_and_log_prob((40_000,))[0], q.rsample(torch.Size([40_000]))):
        for k in range(2):
            found, expected = torch.cov(draws[:, k].mT), torchs.covariance_matrix[k]
            torch.testing.assert_close(found, expected, atol=0.03 * expected.max().item(), rtol=0)


def test_the_log_density_of_a_full_sample_has_its_gradient():
    # That of log q(z(parameters), parameters), though it is computed from the noise.
    q, _ = correlated("full")
    loc, factor = q.loc.clone().requires_grad_(), q.scale_tril.clone().requires_grad_()
    q = FullNormal(loc, factor.tril())
    z, log_prob = q.rsample_and_log_prob()
    (found,) = torch.autograd.grad(log_prob.sum(), factor, retain_graph=True)
    expected, shift = torch.autograd.grad(q.log_prob(z).sum(), (factor, loc))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(shift, torch.zeros_like(shift))


@pytest.mark.parametrize("kind", ["full", "low-rank"])
def test_the_divergence_of_a_correlated_normal_is_that_of_torch(kind):
    q, torchs = correlated(kind)
    p = DiagonalNormal(torch.randn(4).double(), torch.rand(4).double() + 0.3)
    for prior in (p, StandardNormal(torch.zeros(4).double())):
        expected = kl_divergence(
            torchs, MultivariateNormal(prior.mean, covariance_matrix=prior.covariance.diag())
        )
        torch.testing.assert_close(kl_divergence(q, prior), expected)


@pytest.mark.parametrize("kind", ["full", "low-rank"])
def test_a_head_has_the_deviations_of_the_diagonal_one(kind):
    # Coefficients make correlations, and leave each coordinate its mean and deviation.
    torch.manual_seed(0)
    head, diagonal = HEADS[kind](6, 4).double(), DiagonalNormalHead(6, 4).double()
    diagonal.linear.weight.data = head.linear.weight.data[:8]
    diagonal.linear.bias.data = head.linear.bias.data[:8]
    features = 3 * torch.randn(5, 6).double()
    q, p = head(features), diagonal(features)
    torch.testing.assert_close(q.mean, p.mean)
    torch.testing.assert_close(q.stddev, p.stddev)
    correlations = q.covariance / (q.stddev[:, :, None] * q.stddev[:, None])
    assert (correlations - torch.eye(4).double()).abs().amax((1, 2)).min() > 0.05


def test_a_low_rank_is_of_that_rank():
    q = LowRankNormalHead(6, 5, 2)(torch.randn(3, 6))
    extra = q.covariance - torch.diag_embed(q.cov_diag)
    assert torch.linalg.matrix_rank(extra, atol=1e-5, rtol=0.0).tolist() == [2, 2, 2]
    for rank in (0, 6):
        with pytest.raises(ConfigurationError, match=f"posterior_rank={rank}: expected .* 1 .* 5"):
            normal_head("low-rank", 6, 5, rank)
    with pytest.raises(ConfigurationError, match="posterior_covariance='ful' .* mean 'full'"):
        normal_head("ful", 6, 5)


@pytest.mark.parametrize("kind", HEADS)
def test_batches_join(kind):
    head, features = HEADS[kind](6, 4).double(), torch.randn(7, 6).double()
    whole = head(features)
    parts = joined([head(features[:3]), head(features[3:])])
    torch.testing.assert_close(parts.mean, whole.mean)
    torch.testing.assert_close(parts.covariance, whole.covariance)
