import math

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from chartae.distributions import DiagonalNormal, DiagonalNormalHead, StandardNormal


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


@pytest.mark.parametrize("size", [-1e4, -50.0, 0.0, 50.0, 1e4])
def test_head_gives_a_positive_finite_scale_for_any_feature(size):
    head = DiagonalNormalHead(2, 3)
    torch.nn.init.constant_(head.linear.weight, 1.0)
    features = torch.full((4, 2), size, requires_grad=True)
    q = head(features)
    log_prob = q.log_prob(q.mean)
    log_prob.sum().backward()
    assert (q.stddev >= head.floor).all()
    assert torch.isfinite(log_prob).all()
    assert torch.isfinite(features.grad).all()
    assert float(log_prob.detach().abs().max()) < 3 * math.log(1e5)


def test_kl_to_the_standard_normal_is_the_general_one():
    torch.manual_seed(0)
    posterior = DiagonalNormal(torch.randn(7, 3).double(), torch.rand(7, 3).double() + 0.1)
    zeros = torch.zeros(3).double()
    general = kl_divergence(posterior, DiagonalNormal(zeros, torch.ones_like(zeros)))
    torch.testing.assert_close(kl_divergence(posterior, StandardNormal(zeros)), general)
