"""The maximum mean discrepancy against closed forms, and against the definition."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chartae.distributions.mmd import IMQ_SCALES, KERNELS, mmd
from chartae.errors import ConfigurationError


def by_definition(a, b, kernel, bandwidth):
    variance = 2 * a.shape[1] * bandwidth**2

    def k(u, v):
        squared = float((u - v).square().sum())
        if kernel == "rbf":
            return math.exp(-squared / variance)
        return sum(s * variance / (s * variance + squared) for s in IMQ_SCALES)

    def mean(values):
        return sum(values) / len(values)

    within = [
        mean([k(u, v) for i, u in enumerate(s) for j, v in enumerate(s) if i != j]) for s in (a, b)
    ]
    return sum(within) - 2 * mean([k(u, v) for u in a for v in b])


@given(
    kernel=st.sampled_from(["imq", "rbf"]),
    m=st.integers(2, 5),
    n=st.integers(2, 5),
    d=st.integers(1, 4),
    bandwidth=st.floats(0.3, 3.0),
    seed=st.integers(0, 99),
)
def test_it_is_the_u_statistic(kernel, m, n, d, bandwidth, seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(k, d, generator=generator).double() for k in (m, n))
    expected = by_definition(a, b, kernel, bandwidth)
    assert mmd(a, b, kernel, bandwidth).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_unbiased_for_gaussians(shift):
    # E exp(-|a - b|^2 / C) over a ~ N(0, I), b ~ N(m, I): (1 + 4/C)^(-d/2) exp(-|m|^2 / (C + 4)).
    d = 3
    torch.manual_seed(0)
    scale = 2.0 * d
    norm = torch.tensor((1 + 4 / scale) ** (-d / 2)).double()
    expected = 2 * norm - 2 * norm * torch.exp(torch.tensor(-d * shift**2 / (scale + 4)).double())
    values = torch.stack(
        [
            mmd(torch.randn(20, d).double(), torch.randn(15, d).double() + shift, "rbf")
            for _ in range(3000)
        ]
    )
    error = (values.std() / len(values) ** 0.5).item()
    assert error < 2e-3
    assert values.mean().item() == pytest.approx(expected.item(), abs=4 * error)
    assert (values < 0).any() or shift


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_the_gradient_pulls_one_sample_to_the_other(kernel):
    torch.manual_seed(0)
    a = (torch.randn(200, 2) + 3.0).requires_grad_()
    before = mmd(a, torch.randn(200, 2), kernel)
    (gradient,) = torch.autograd.grad(before, a)
    assert torch.isfinite(gradient).all()
    moved = (a - 300.0 * gradient).detach()
    assert mmd(moved, torch.randn(200, 2), kernel) < 0.9 * before
    assert gradient.mean(0).min() > 0


def test_coinciding_and_single_points_give_finite_gradients():
    point = torch.zeros(1, 2, requires_grad=True)
    mmd(point.expand(4, 2), torch.zeros(3, 2)).backward()
    assert torch.isfinite(point.grad).all()
    assert torch.isfinite(mmd(torch.zeros(1, 2), torch.ones(1, 2)))


def test_bad_arguments_are_refused():
    sample = torch.zeros(3, 2)
    with pytest.raises(ConfigurationError, match="kernel='gaussian' is not known"):
        mmd(sample, sample, "gaussian")
    with pytest.raises(ConfigurationError, match="bandwidth=0.0"):
        mmd(sample, sample, bandwidth=0.0)


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_weights_are_those_of_rows_and_of_pairs_of_rows(kernel):
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, 2, generator=generator).double() for n in (4, 3))
    w, k = [0.2, 1.3, 0.0, 2.5], KERNELS[kernel]

    def value(u, v):
        return k((u - v).square().sum(), 4.0)  # C = 2 d sigma^2

    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    own = sum(w[i] * w[j] * value(a[i], a[j]) for i, j in pairs)
    own = own / sum(w[i] * w[j] for i, j in pairs)
    others = sum(value(b[i], b[j]) for i in range(3) for j in range(3) if i != j) / 6
    across = sum(w[i] * value(a[i], b[j]) for i in range(4) for j in range(3)) / (3 * sum(w))
    found = mmd(a, b, kernel, weight=torch.tensor(w))
    torch.testing.assert_close(found, own + others - 2 * across)
    equal = mmd(a, b, kernel, weight=torch.full((4,), 0.5))
    torch.testing.assert_close(equal, mmd(a, b, kernel))
