import math

import pytest
import torch

from chartae.errors import DataError
from chartae.evaluation import (
    copies,
    membership_auc,
    nearest_distance_ratio,
    neighbours,
    score_auc,
)


def normals(n: int, seed: int, d: int = 5) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TRAIN, HELD_OUT, NEW = normals(300, 0), normals(300, 1), normals(300, 2)
COPIES = TRAIN[torch.randperm(300, generator=torch.Generator().manual_seed(3))]
NEAR = COPIES + 0.01 * normals(300, 4)


class TestRanking:
    """A memoriser is the worst by every measure, and new data are like held-out ones."""

    def test_distance(self) -> None:
        new, near, copied = (
            nearest_distance_ratio(TRAIN, HELD_OUT, s) for s in (NEW, NEAR, COPIES)
        )
        assert copied == 0.0 < near < 0.05
        assert new == pytest.approx(1.0, abs=0.1)

    def test_copies(self) -> None:
        assert copies(TRAIN, HELD_OUT, COPIES).exact == 1.0
        assert copies(TRAIN, HELD_OUT, NEAR).exact == 0.0
        assert copies(TRAIN, HELD_OUT, NEAR).near == 1.0
        # about 5 %, with the binomial error of both sets
        assert copies(TRAIN, HELD_OUT, NEW).near == pytest.approx(0.05, abs=0.05)

    def test_membership(self) -> None:
        assert membership_auc(TRAIN, HELD_OUT, COPIES) == 1.0
        assert membership_auc(TRAIN, HELD_OUT, NEAR) > 0.99
        # the standard error of an AUC of two times 300 cases is 0.024
        assert membership_auc(TRAIN, HELD_OUT, NEW) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("measure", [nearest_distance_ratio, membership_auc, copies])
class TestInvariance:
    def test_order_and_blocks(self, measure, monkeypatch: pytest.MonkeyPatch) -> None:
        before = measure(TRAIN, HELD_OUT, NEAR)
        monkeypatch.setattr(neighbours, "PAIRS", 1000)
        after = measure(TRAIN.flip(0), HELD_OUT.flip(0), NEAR.flip(0))
        assert after == before or after == pytest.approx(before, rel=1e-9)

    def test_units_of_vectors(self, measure) -> None:
        units = torch.tensor([1e-3, 1.0, 1e3, 5.0, 7.0], dtype=torch.float64)
        before = measure(TRAIN, HELD_OUT, NEAR)
        after = measure(TRAIN * units + 3.0, HELD_OUT * units + 3.0, NEAR * units + 3.0)
        assert after == before or after == pytest.approx(before, rel=1e-6)

    def test_images_and_arrays(self, measure) -> None:
        shape = (300, 1, 5, 1)
        a, b, s = (x.reshape(shape).numpy() for x in (TRAIN, HELD_OUT, NEAR))
        assert measure(a, b, s) == measure(*(torch.from_numpy(x) for x in (a, b, s)))

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({1: HELD_OUT[:, :3]}, "held_out has shape"),
            ({2: NEW.float()}, "synthetic has dtype"),
            ({0: TRAIN[:1]}, "expected at least 2"),
            ({2: torch.full_like(NEW, math.nan)}, "synthetic"),
        ],
    )
    def test_what_cannot_be_compared_is_refused(self, measure, change, match: str) -> None:
        given = {0: TRAIN, 1: HELD_OUT, 2: NEW} | change
        with pytest.raises(DataError, match=match):
            measure(*(given[i] for i in range(3)))


def test_held_out_data_from_the_training_set_are_refused() -> None:
    with pytest.raises(DataError, match="held-out samples are in train"):
        nearest_distance_ratio(TRAIN, TRAIN.flip(0), NEW)


class TestScores:
    def test_the_auc_is_the_share_of_pairs_in_order(self) -> None:
        a, b = normals(40, 5)[:, 0].round(decimals=1), normals(30, 6)[:, 0].round(decimals=1) + 0.5
        pairs = (a[:, None] > b).double() + 0.5 * (a[:, None] == b)
        assert score_auc(a, b) == pytest.approx(float(pairs.mean()), abs=1e-12)
        assert score_auc(b, a) == pytest.approx(1.0 - score_auc(a, b), abs=1e-12)

    def test_two_normals(self) -> None:
        # P(a > b) = Phi(1 / sqrt 2) for a ~ N(1, 1), b ~ N(0, 1)
        a, b = normals(4000, 7)[:, 0] + 1.0, normals(4000, 8)[:, 0]
        expected = 0.5 * (1.0 + math.erf(0.5))
        assert score_auc(a, b) == pytest.approx(expected, abs=0.02)

    @pytest.mark.parametrize(
        ("positive", "negative", "match"),
        [
            ([], [1.0], "positive has shape"),
            ([1.0], [[1.0]], "negative has shape"),
            ([1.0, math.nan], [1.0], "positive"),
        ],
    )
    def test_bad_scores_are_refused(self, positive, negative, match: str) -> None:
        with pytest.raises(DataError, match=match):
            score_auc(positive, negative)


@pytest.mark.parametrize("shape", [(5,), (1, 3, 4, 2)])
def test_the_nearest_real_sample_is_found_by_brute_force(shape, monkeypatch):
    monkeypatch.setattr("chartae.evaluation.neighbours.ENTRIES", 3 * math.prod(shape))
    generator = torch.Generator().manual_seed(0)
    real, synthetic = (torch.randn(n, *shape, generator=generator) * 3.0 for n in (7, 10))
    synthetic[4] = real[2]
    found = neighbours.nearest_real(real, synthetic)
    scale = real.std(0, correction=0) if len(shape) == 1 else 1.0
    apart = ((synthetic[:, None] - real) / scale).square().flatten(2).mean(2).sqrt()
    torch.testing.assert_close(found.distances.float(), apart.amin(1), atol=1e-6, rtol=1e-5)
    assert torch.equal(found.indices, apart.argmin(1))
    assert (found.distances[4], found.indices[4]) == (0.0, 2)
    assert torch.equal(neighbours.nearest_real(real, synthetic[:1]).indices, found.indices[:1])
