"""A limit on memory: what exceeds it is not made, and what fits is what it is without a limit."""

import pytest
import torch
from torch import nn

import chartae
from chartae.allowance import LEAST, Allowance
from chartae.errors import ConfigurationError

MB = 1_000_000


@pytest.mark.parametrize(
    "work",
    [
        lambda: torch.empty(10**12),
        lambda: torch.zeros(10**6, 10**6),
        lambda: torch.eye(10**6),
        lambda: torch.arange(10**12),
        lambda: torch.randn(10**12, generator=torch.Generator()),
        lambda: torch.tril_indices(10**6, 10**6),
        lambda: torch.ones(10**5, 1) < torch.ones(10**5),
        lambda: torch.ones(10**5, 1) @ torch.ones(1, 10**5),
        lambda: torch.ones(2).repeat(10**6, 10**6),
        lambda: torch.cat([torch.ones(10**6)] * 100),
        lambda: nn.Conv2d(1, 10**4, 1)(torch.ones(1, 1, 10**3, 10**3)),
        lambda: [torch.ones(10**6) for _ in range(10**6)],
        lambda: [torch.ones(1) for _ in range(10**9)],
    ],
)
def test_what_is_too_large_is_not_made(work):
    with pytest.raises(ConfigurationError, match="MB: expected at most"), Allowance(100 * MB):
        work()


def test_what_is_gone_does_not_count():
    with Allowance(50 * MB) as allowance:
        for _ in range(100):
            part = torch.ones(10**6)
        used = allowance.used
        view = part[:3]
        del part
        assert allowance.used == used
        del view
        assert allowance.used == 0


def test_small_ones_count_for_the_objects_around_them():
    with Allowance(MB) as allowance:
        parts = [torch.ones(1) for _ in range(5)]
        assert allowance.used == len(parts) * LEAST


def test_what_fits_is_the_same():
    def build():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return chartae.RHVAE((8, 8), 2).state_dict()

    with Allowance(100 * MB):
        limited = build()
    assert all(torch.equal(limited[k].nan_to_num(), t.nan_to_num()) for k, t in build().items())


def test_shapes_alone_take_no_memory():
    with Allowance(MB) as allowance:
        output = nn.Linear(4, 4, device="meta")(torch.zeros(10**9, 4, device="meta"))
        assert allowance.used == 0
    assert output.shape == (10**9, 4)
