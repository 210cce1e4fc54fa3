"""Moments in pieces are those of the whole, in NumPy's words."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chartae.distributions import Moments


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    offset=st.sampled_from([0.0, 1.0, 1e8]),
    masked=st.booleans(),
)
def test_pieces_are_as_good_as_the_whole(seed, sizes, offset, masked):
    random = np.random.default_rng(seed)
    # In steps of a fourth, so that several values are the least.
    pieces = [offset + (4 * random.standard_normal((n, 3, 2))).round() / 4 for n in sizes]
    seen = [random.random(p.shape) < 0.6 if masked else np.ones(p.shape, bool) for p in pieces]
    moments = Moments.of(
        (torch.from_numpy(p), torch.from_numpy(s) if masked else None)
        for p, s in zip(pieces, seen, strict=True)
    )
    whole = np.ma.array(np.concatenate(pieces), mask=~np.concatenate(seen))
    deviation = whole.std(0).filled(0.0)
    np.testing.assert_allclose(moments.deviation, deviation, rtol=1e-6, atol=1e-9 * (1 + offset))
    np.testing.assert_allclose(moments.count, np.concatenate(seen).sum(0))
    np.testing.assert_allclose(moments.mean, whole.mean(0).filled(0.0), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(moments.low, whole.min(0).filled(np.inf))
    np.testing.assert_allclose(moments.at_low, (whole == whole.min(0)).sum(0).filled(0))
    np.testing.assert_allclose(moments.at_high, (whole == whole.max(0)).sum(0).filled(0))
    pooled = moments.pooled()
    if np.concatenate(seen).any():
        np.testing.assert_allclose(pooled.mean, whole.mean(), rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(pooled.deviation, whole.std(), rtol=1e-6, atol=1e-9 * offset)
        np.testing.assert_allclose(pooled.high, whole.max())
        assert pooled.at_low == (whole == whole.min()).sum()
        assert pooled.at_high == (whole == whole.max()).sum()
    left, right = moments.split([1, 1])
    assert torch.equal(torch.cat([left.mean, right.mean], -1), moments.mean)
    assert torch.equal(torch.cat([left.at_high, right.at_high], -1), moments.at_high)


def test_float32_values_are_summed_in_float64():
    x = torch.full((4000, 1), 16_777_216.0)
    x[::2] += 2.0
    moments = Moments.of((piece, None) for piece in x.split(100))
    assert moments.mean.item() == 16_777_217.0
    assert moments.deviation.item() == 1.0


def noise():
    return torch.randn(50, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 255.0])
@pytest.mark.parametrize(
    ("x", "shown"),
    [
        (noise(), False),
        (noise().clamp(min=-2.0), True),
        (noise().clamp(max=2.0), True),
        (noise().clamp(max=2.9), False),  # of which there are 5 in 3,200
        (noise()[:1, :3, :3].clamp(max=0.0), False),  # of which there are few
        (noise().clamp(max=2.0) * (-1.0) ** torch.arange(50)[:, None, None], False),
        (torch.full((50, 8, 8), 3.0), False),
    ],
    ids=["noise", "blank", "saturated", "rarely", "few", "within", "constant"],
)
def test_blank_or_saturated_values_show_bounds_in_any_units(x, shown, scale):
    moments = Moments.of((piece, None) for piece in (scale * x - scale).split(7))
    assert moments.shows_bounds == shown


def test_what_is_masked_shows_no_bounds():
    x = noise()
    mask = x > -1.0
    filled = torch.where(mask, x, x.min())
    assert Moments.of([(filled, None)]).shows_bounds
    assert not Moments.of([(filled, mask)]).shows_bounds
