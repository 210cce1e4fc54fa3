"""Moments in pieces are those of the whole, in NumPy's words."""

import numpy as np
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
    pieces = [offset + random.standard_normal((n, 3, 2)) for n in sizes]
    seen = [random.random(p.shape) < 0.6 if masked else np.ones(p.shape, bool) for p in pieces]
    moments = Moments.of(
        (torch.from_numpy(p), torch.from_numpy(s) if masked else None)
        for p, s in zip(pieces, seen, strict=True)
    )
    whole = np.ma.array(np.concatenate(pieces), mask=~np.concatenate(seen))
    deviation = whole.std(0).filled(0.0)
    np.testing.assert_allclose(moments.deviation, deviation, rtol=1e-6, atol=1e-9 * (1 + offset))
    np.testing.assert_allclose(moments.count, np.concatenate(seen).sum(0))
    np.testing.assert_allclose(moments.mean, whole.mean(0).filled(0.0), rtol=1e-12)
    np.testing.assert_allclose(moments.low, whole.min(0).filled(np.inf))
    pooled = moments.pooled()
    if np.concatenate(seen).any():
        np.testing.assert_allclose(pooled.mean, whole.mean(), rtol=1e-12)
        np.testing.assert_allclose(pooled.deviation, whole.std(), rtol=1e-6, atol=1e-9 * offset)
        np.testing.assert_allclose(pooled.high, whole.max())
    left, right = moments.split([1, 1])
    assert torch.equal(torch.cat([left.mean, right.mean], -1), moments.mean)


def test_float32_values_are_summed_in_float64():
    x = torch.full((4000, 1), 16_777_216.0)
    x[::2] += 2.0
    moments = Moments.of((piece, None) for piece in x.split(100))
    assert moments.mean.item() == 16_777_217.0
    assert moments.deviation.item() == 1.0
