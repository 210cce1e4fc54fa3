"""Measures of follow-ups, on draws whose law is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from chartae.data import Form, Sequences
from chartae.errors import DataError
from chartae.evaluation import (
    calibration,
    carried_forward,
    coverage,
    hidden_error,
    nearest_sequences,
    roughness,
)
from chartae.longitudinal import Draws


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def people(x: Tensor) -> Sequences:
    return Sequences(x, times=torch.arange(float(x.shape[1])))


def draws(values: Tensor, how: str = "resample") -> Draws:
    times = torch.arange(float(values.shape[2])).expand(values.shape[1], -1)
    fit = torch.zeros(values.shape[:2])
    return Draws(values, times, fit, how, Form(values.dtype))


def test_only_what_was_hidden_counts() -> None:
    truth = people(torch.rand(4, 5, 3, generator=rng()))
    seen = truth.first(3)
    values = truth.x.clone()
    values[:, :3] += 100.0
    values[:, 3:] += 2.0
    assert hidden_error(draws(values[None]), truth, seen) == pytest.approx(4.0, rel=1e-5)
    values[0, 3:] -= 2.0
    assert hidden_error(draws(values[None]), truth, seen) == pytest.approx(3.0, rel=1e-5)


def test_errors_of_images_of_bytes_are_in_the_range_of_the_model() -> None:
    truth = Sequences(np.full((4, 3, 5, 5), 51, np.uint8), times=[0, 1, 2])
    values = torch.full((1, 4, 3, 5, 5), 0.3)
    drawn = replace(draws(values), form=truth.form)
    assert hidden_error(drawn, truth, truth.first(1)) == pytest.approx(0.01, rel=1e-4)


def test_coverage_is_the_level_if_draws_have_the_law_of_the_truth() -> None:
    truth = people(torch.randn(200, 6, 2, generator=rng()))
    right = draws(torch.randn(400, 200, 6, 2, generator=rng(1)))
    narrow = draws(0.5 * right.values)
    seen = truth.first(1)
    found = calibration(right, truth, seen)
    assert (found.shares - found.levels).abs().max() < 0.04
    assert coverage(right, truth, seen) == pytest.approx(0.9, abs=0.03)
    # P(|x| < 1.645 / 2) of a standard normal
    assert coverage(narrow, truth, seen) == pytest.approx(0.589, abs=0.04)


def test_calibration_of_some_features_is_that_of_these_alone() -> None:
    truth = people(torch.randn(50, 4, 3, generator=rng()))
    drawn = torch.randn(100, 50, 4, 3, generator=rng(1))
    drawn[..., 0] *= 0.1
    features = torch.tensor([False, True, True])
    found = calibration(draws(drawn), truth, truth.first(1), features=features)
    alone = people(truth.x[..., 1:])
    expected = calibration(draws(drawn[..., 1:]), alone, alone.first(1))
    assert torch.equal(found.shares, expected.shares)
    with pytest.raises(DataError, match="features"):
        calibration(draws(drawn), truth, truth.first(1), features=features[:2])
    with pytest.raises(DataError, match="no value of these features"):
        calibration(draws(drawn), truth, truth.first(1), features=~(features | True))


def test_the_last_value_is_carried_forward_by_feature() -> None:
    x = torch.tensor([[[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]], [[4.0, 40.0]] * 3])
    mask = torch.tensor(
        [
            [[True, False], [False, True], [False, False]],
            [[False, True], [True, False], [True, True]],
        ]
    )
    mask[1, :, 1] = False
    carried = carried_forward(Sequences(x, times=torch.arange(3.0), mask=mask))
    assert carried[0].tolist() == [[1.0, 20.0]] * 3  # 20 is carried backward, too
    assert carried[1].tolist() == [[4.0, 20.0]] * 3  # 20 is the mean over the others


def test_roughness_of_lines_is_0_and_of_noise_the_root_of_three_quarters() -> None:
    times = torch.rand(50, 8, generator=rng()).cumsum(1).double()
    lines = Sequences(
        times[..., None] * torch.randn(50, 1, 3, generator=rng(1)), times=times, dtype=None
    )
    assert roughness(lines) == pytest.approx(0.0, abs=1e-6)
    noise = people(torch.randn(500, 8, 3, generator=rng()))
    assert roughness(noise) == pytest.approx(0.75**0.5, abs=0.02)
    assert roughness(people(torch.ones(2, 4, 3))) == 0.0


def test_visits_that_were_not_observed_do_not_count() -> None:
    x = torch.randn(30, 6, 2, generator=rng())
    observed = torch.ones(30, 6, dtype=torch.bool)
    observed[:, 5] = False
    data = Sequences(x, times=torch.arange(6.0), observed=observed)
    assert roughness(data) == pytest.approx(roughness(people(x[:, :5])), rel=1e-9)


def test_the_nearest_individual_is_found_by_what_was_observed_of_it() -> None:
    x = torch.rand(20, 4, 3, generator=rng())
    mask = torch.rand(x.shape, generator=rng(1)) > 0.3
    train = Sequences(x, times=torch.arange(4.0), mask=mask)
    found = nearest_sequences(train, x[[7, 3]] + 0.01)
    assert found.index.tolist() == [7, 3]
    torch.testing.assert_close(found.distance, torch.full((2,), 0.01).double(), rtol=1e-3, atol=0)
    generated = torch.rand(5, 4, 3, generator=rng(2))
    difference = (generated[:, None] - train.x).square() * train.known
    direct = (difference.flatten(2).sum(-1) / train.known.flatten(1).sum(1)).sqrt().min(1)
    torch.testing.assert_close(
        nearest_sequences(train, generated).distance.float(), direct.values, rtol=1e-4, atol=1e-5
    )


def test_bad_input_is_refused() -> None:
    truth = people(torch.rand(4, 5, 3))
    with pytest.raises(DataError, match="nothing is hidden"):
        hidden_error(draws(truth.x[None]), truth, truth)
    with pytest.raises(DataError, match="expected the same individuals"):
        hidden_error(draws(truth.x[None, :2]), truth, truth.first(1))
    with pytest.raises(DataError, match="three consecutive visits"):
        roughness(truth.first(2))
    with pytest.raises(DataError, match=r"expected \(n, 5, 3\)"):
        nearest_sequences(truth, torch.rand(2, 4, 3))
