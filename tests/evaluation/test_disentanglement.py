import numpy as np
import pytest
import torch

from chartae.data import sprites
from chartae.errors import ConfigurationError, DataError
from chartae.evaluation import beta_score, dci, factor_score, mutual_information_gap, sap

RNG = np.random.default_rng(0)
# All combinations of four factors, three times.
FACTORS = np.tile(sprites(size=16, levels=(3, 4, 1, 4, 5)).factors.numpy()[:, [0, 1, 3, 4]], (3, 1))
PERFECT = FACTORS[:, [2, 0, 3, 1]] * np.array([3.0, -1.0, 0.5, 2.0]) + 7.0
STANDARD = (FACTORS - FACTORS.mean(0)) / FACTORS.std(0)
# Every code mixes all factors equally.
ROTATED = STANDARD @ np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
NOISE = RNG.normal(size=FACTORS.shape)


def _dci(codes, factors):
    return dci(codes, factors).disentanglement


def _completeness(codes, factors):
    return dci(codes, factors).completeness


SCORES = [mutual_information_gap, sap, _dci, _completeness]


@pytest.mark.parametrize("score", SCORES)
def test_the_factors_themselves_have_1_and_noise_about_0(score) -> None:
    assert score(PERFECT, FACTORS) == pytest.approx(1.0, abs=1e-6)
    assert score(NOISE, FACTORS) < 0.06


@pytest.mark.parametrize("score", SCORES)
def test_a_rotation_lowers_the_score(score) -> None:
    assert score(ROTATED, FACTORS) < 0.15


@pytest.mark.parametrize("score", [beta_score, factor_score])
def test_scores_of_fixed_factors(score) -> None:
    assert score(PERFECT, FACTORS, num_points=200) == 1.0
    # Chance is 1/4; the standard error of a share of 100 votes is 0.043.
    assert score(NOISE, FACTORS, num_points=200) < 0.45


def test_informativeness_does_not_see_a_rotation() -> None:
    assert dci(PERFECT, FACTORS).informativeness > 0.99
    assert dci(ROTATED, FACTORS).informativeness > 0.9
    assert dci(NOISE, FACTORS).informativeness < 0.4


def test_the_gap_in_closed_form() -> None:
    # The first code has the factor, the second the factor in half of the cases.
    factor = np.arange(4000) % 2
    second = np.where(np.arange(4000) % 4 < 2, factor, RNG.integers(0, 2, 4000))
    second = np.where(np.arange(4000) % 4 < 2, factor, 2)  # a third value says nothing
    # I(first) = log 2, I(second) = 1/2 log 2, entropy log 2
    codes = np.stack([factor, second], 1)
    assert mutual_information_gap(codes, factor[:, None]) == pytest.approx(0.5, abs=1e-3)


def test_completeness_and_disentanglement_are_told_apart() -> None:
    # Two codes for each factor: disentangled, not complete.
    double = np.concatenate([PERFECT, PERFECT[:, ::-1]], 1)
    found = dci(double, FACTORS)
    assert found.disentanglement > 0.95
    assert found.completeness < 0.85
    # One code for two factors: complete, not disentangled.
    merged = np.stack([FACTORS[:, 0] * 10 + FACTORS[:, 1], FACTORS[:, 2] * 10 + FACTORS[:, 3]], 1)
    found = dci(merged, FACTORS)
    assert found.completeness > 0.95
    assert found.disentanglement < 0.6


@pytest.mark.parametrize("score", [*SCORES, beta_score, factor_score])
class TestEvery:
    def test_tensors_and_seeds(self, score) -> None:
        codes, factors = torch.tensor(ROTATED), torch.tensor(FACTORS)
        assert score(codes, factors) == score(ROTATED, FACTORS)

    @pytest.mark.parametrize(
        ("codes", "factors", "match"),
        [
            (PERFECT[:, 0], FACTORS, "codes have shape"),
            (PERFECT[:5], FACTORS[:5], "N at least 10"),
            (PERFECT, FACTORS + 0.5, "expected integers"),
            (PERFECT, FACTORS * [0, 1, 1, 1], "factor 0 has one level"),
            (PERFECT * np.nan, FACTORS, "codes"),
        ],
    )
    def test_bad_input_is_refused(self, score, codes, factors, match) -> None:
        with pytest.raises(DataError, match=match):
            score(codes, factors)


def test_collapsed_codes() -> None:
    flat = np.zeros_like(PERFECT)
    assert mutual_information_gap(flat, FACTORS) == 0.0
    assert dci(flat, FACTORS).disentanglement == 0.0
    with pytest.raises(DataError, match="codes do not vary"):
        factor_score(flat, FACTORS)
    one = np.concatenate([PERFECT[:, :1], flat[:, 1:]], 1)
    assert 0.0 < factor_score(one, FACTORS, num_points=200) < 0.6


class TestSprites:
    def test_all_combinations_are_different_images(self) -> None:
        data = sprites(size=24, levels=(3, 2, 3, 2, 2))
        assert len(data) == 72
        assert len(torch.unique(data.factors, dim=0)) == 72
        distance = torch.cdist(data.x.flatten(1), data.x.flatten(1)) + 9.0 * torch.eye(72)
        assert float(distance.min()) > 0.5

    def test_factors_are_what_they_say(self) -> None:
        data = sprites(size=48, levels=(3, 3, 2, 4, 4))
        places = (torch.arange(48) + 0.5) / 48
        area = data.x.sum((1, 2))
        across = (data.x.sum(1) * places).sum(1) / area
        down = (data.x.sum(2) * places).sum(1) / area
        shape, scale, _, x, y = data.factors.unbind(1)
        for level in range(3):  # positions do not depend on anything else
            step = 0.46 * level / 3
            assert across[x == level].sub(0.27 + step).abs().max() < 0.01
            assert down[y == level].sub(0.27 + step).abs().max() < 0.01
        for kind in range(3):
            areas = [area[(shape == kind) & (scale == level)] for level in range(3)]
            assert areas[0].max() < areas[1].min() < areas[2].min()
        # a square of half diagonal r has the area 2 r^2
        squares = area[(shape == 0) & (scale == 2)] / 48**2
        assert squares.sub(2 * 0.26**2).abs().max() < 0.01

    def test_subsets_follow_the_seed(self) -> None:
        one, same, other = (sprites(50, size=16, seed=s) for s in (0, 0, 1))
        assert one.factors.equal(same.factors)
        assert not one.factors.equal(other.factors)
        assert len(torch.unique(one.factors, dim=0)) == 50
        assert one.x.min() == 0.0
        assert one.x.max() == 1.0

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"size": 8}, "size=8"),
            ({"levels": (4, 1, 1, 1, 1)}, "at most 3 shapes"),
            ({"levels": (1, 1)}, "one number for each"),
            ({"num_samples": 10**6}, "the number of combinations"),
        ],
    )
    def test_bad_input_is_refused(self, options, match) -> None:
        with pytest.raises(ConfigurationError, match=match):
            sprites(**options)
