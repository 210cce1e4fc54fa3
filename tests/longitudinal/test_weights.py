"""Importance weights, against closed forms."""

import math

import pytest
import torch

from chartae.longitudinal.weights import effective_samples, resampled, tempered


def normal(spread, count=20_000):
    """Log weights that are normal quantiles times a spread, ``(count, 1)``."""
    places = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return spread * math.sqrt(2.0) * torch.erfinv(2.0 * places - 1.0)[:, None]


@pytest.mark.parametrize("spread", [0.5, 1.0])
def test_the_effective_size_of_log_normal_weights(spread):
    # E[w]^2 / E[w^2] = exp(-spread^2)
    found = float(effective_samples(normal(spread))) / 20_000
    assert found == pytest.approx(math.exp(-(spread**2)), rel=2e-2)


@pytest.mark.parametrize("spread", [2.0, 30.0, 1e5])
@pytest.mark.parametrize(("count", "left"), [(128, 32), (256, 64), (1000, 64)])
def test_weights_are_tempered_until_enough_are_left(spread, count, left):
    log_weights = normal(3.0, count) * spread
    found = tempered(log_weights)
    assert float(effective_samples(found)) == pytest.approx(left, rel=1e-6)
    power = found / log_weights
    torch.testing.assert_close(power, torch.full_like(power, power[0, 0].item()))
    # exp(-(power * spread)^2) = left / count, but for the tails that so few quantiles lack
    expected = math.log(count / left) ** 0.5 / (3.0 * spread)
    assert float(power[0, 0]) == pytest.approx(expected, rel=0.15)


def test_weights_that_leave_enough_of_many_draws_are_right():
    log_weights = normal(2.0)  # 366 of 20,000
    assert torch.equal(tempered(log_weights), log_weights)


def test_good_weights_stay_as_they_are():
    log_weights = torch.cat([normal(1.0), torch.zeros_like(normal(1.0))], 1)
    assert torch.equal(tempered(log_weights), log_weights)


def test_each_individual_has_its_own_power():
    both = torch.cat([normal(1.0), normal(30.0)], 1)
    torch.testing.assert_close(tempered(both)[:, 1:], tempered(normal(30.0)))
    assert torch.equal(tempered(both)[:, 0], both[:, 0])


@pytest.mark.parametrize("left", [1, 10, 50])
def test_draws_without_any_weight_are_never_chosen(left):
    log_weights = torch.full((100, 1), -math.inf)
    log_weights[:left, 0] = torch.linspace(-5.0, 0.0, left)
    assert int(resampled(tempered(log_weights)).max()) < left


def test_each_draw_is_chosen_as_often_as_its_weight_says():
    generator = torch.Generator().manual_seed(0)
    log_weights = torch.randn(50, 3, generator=generator)
    chosen = resampled(log_weights)
    expected = 50.0 * log_weights.softmax(0)
    for row, column in enumerate(chosen.T):
        counts = torch.bincount(column, minlength=50)
        assert bool(((counts - expected[:, row]).abs() < 1.0 + 1e-4).all())
