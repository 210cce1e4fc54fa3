"""Seeds of estimates: the same seed, the same value, and nobody else's draws are disturbed."""

import pytest
import torch
from tests.models.conftest import build, conditions_of

from chartae.errors import ConfigurationError

X = torch.rand(6, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_seed_fixes_an_estimate_and_leaves_the_global_generator_alone(make_variational):
    model = make_variational()
    y = conditions_of(model, len(X))
    model.on_fit_end([{"x": X} if y is None else {"x": X, "y": y}])
    for estimate in (model.log_likelihood, model.elbo):
        torch.manual_seed(5)
        before = torch.get_rng_state()
        first = estimate(X, 4, y=y, seed=3).detach()
        assert torch.get_rng_state().equal(before)
        torch.rand(7)
        torch.testing.assert_close(estimate(X, 4, y=y, seed=3).detach(), first, rtol=0, atol=0)
        assert not torch.equal(estimate(X, 4, y=y, seed=4).detach(), first)
        assert not torch.equal(estimate(X, 4, y=y).detach(), estimate(X, 4, y=y).detach())


def test_work_in_pieces_is_seeded_too():
    model = build("VAE")
    first, second = (model.log_likelihood(X, 7, max_batch=3, seed=2**40) for _ in range(2))
    assert first.equal(second)


@pytest.mark.parametrize("seed", [-1, 0.5, "1", True])
def test_wrong_seeds_are_refused(seed):
    for estimate in (build("VAE").log_likelihood, build("VAE").elbo):
        with pytest.raises(ConfigurationError, match=f"seed={seed!r}: expected an integer"):
            estimate(X, seed=seed)
