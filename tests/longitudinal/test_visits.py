"""Packed visits: sums, log-sum-exps and choices within individuals, against plain loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chartae.longitudinal import Visits

SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=6)


def packed(sizes, *, mask=False, y=False):
    generator = torch.Generator().manual_seed(sum(sizes))
    count = sum(sizes)
    owner = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    x = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    return Visits(
        x,
        torch.arange(float(count)),
        owner,
        torch.tensor(sizes),
        x > 0.0 if mask else None,
        10 * torch.arange(len(sizes)) if y else None,
    )


@given(sizes=SIZES)
def test_reductions_equal_loops(sizes):
    visits = packed(sizes)
    values = torch.randn(3, len(visits), dtype=torch.float64)
    parts = values.split(sizes, -1)
    expected = torch.stack([part.sum(-1) for part in parts], -1)
    torch.testing.assert_close(visits.sum(values), expected)
    expected = torch.stack([part.logsumexp(-1) for part in parts], -1)
    torch.testing.assert_close(visits.logsumexp(values), expected)
    torch.testing.assert_close(visits.logsumexp(values + 1e4), expected + 1e4)
    rows = torch.stack([part.mean(0) for part in values.mT.split(sizes)])
    torch.testing.assert_close(visits.mean(values.mT), rows)
    assert visits.starts.tolist() == [sum(sizes[:row]) for row in range(len(sizes))]
    assert visits.rank.tolist() == [rank for size in sizes for rank in range(size)]


def test_logsumexp_of_nothing_and_its_gradient():
    visits, none = packed([2, 3]), -torch.inf
    values = torch.tensor([none, none, none, 0.0, 1.0], requires_grad=True)
    found = visits.logsumexp(values)
    assert found[0] == none
    found[1].backward()
    torch.testing.assert_close(values.grad[3:], torch.tensor([0.0, 1.0]).softmax(0))


@given(sizes=SIZES, share=st.floats(0.0, 1.0, exclude_max=True))
def test_a_pick_is_a_visit_of_its_individual(sizes, share):
    visits = packed(sizes)
    chosen = visits.pick(torch.full((4, len(sizes)), share, dtype=torch.float64))
    assert torch.equal(visits.owner[chosen], torch.arange(len(sizes)).expand(4, -1))
    rank = (share * visits.counts).long()
    assert torch.equal(chosen[0] - visits.starts, rank.minimum(visits.counts - 1))


def test_picks_are_equally_likely():
    visits = packed([1, 2, 4])
    chosen = visits.pick(torch.rand(20_000, 3))
    share = torch.bincount(chosen.flatten(), minlength=7) / 20_000
    expected = torch.tensor([1.0, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25])
    torch.testing.assert_close(share, expected, atol=0.02, rtol=0.0)


@pytest.mark.parametrize("given", [{}, {"mask": True}, {"y": True}])
def test_kept_visits(given):
    visits = packed([2, 3], **given)
    keep = torch.tensor([False, True, True, False, True])
    kept = visits.kept(keep)
    assert torch.equal(kept.x, visits.x[keep])
    assert kept.times.tolist() == [1.0, 2.0, 4.0]
    assert kept.owner.tolist() == [0, 1, 1]
    assert kept.counts.tolist() == [1, 2]
    assert kept.y is visits.y
    assert kept.mask is None or torch.equal(kept.mask, visits.mask[keep])


def test_visits_as_individuals():
    visits = packed([2, 3], mask=True, y=True)
    single = visits.singly()
    assert single.owner.tolist() == list(range(5))
    assert single.counts.tolist() == [1] * 5
    assert single.y.tolist() == visits.conditions.tolist() == [0, 0, 10, 10, 10]
    alone = visits.alone(torch.tensor([4, 1, 4]))
    assert torch.equal(alone.x, visits.x[[4, 1, 4]])
    assert torch.equal(alone.mask, visits.mask[[4, 1, 4]])
    assert alone.y.tolist() == [10, 0, 10]
    assert alone.counts.tolist() == [1, 1, 1]


def test_unsorted_visits_are_sorted():
    x = torch.arange(6.0).reshape(2, 3, 1)
    times = torch.tensor([[2.0, 0.0, 1.0], [5.0, 9.0, 4.0]])
    observed = torch.tensor([[True, True, True], [True, False, True]])
    visits = Visits.of(x, times, observed, x > 1.0, None)
    assert visits.times.tolist() == [0.0, 1.0, 2.0, 4.0, 5.0]
    assert visits.x[:, 0].tolist() == [1.0, 2.0, 0.0, 5.0, 3.0]
    assert visits.mask[:, 0].tolist() == [False, True, False, True, True]
    assert visits.owner.tolist() == [0, 0, 0, 1, 1]
