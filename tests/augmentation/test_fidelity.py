import json
import logging
import math
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from chartae.augmentation import (
    Augmenter,
    ClassFidelity,
    Fidelity,
    concentration,
    distance_ratio,
    spread_ratio,
)
from chartae.augmentation.messages import warnings_about
from chartae.errors import DataError
from chartae.samplers import NormalSampler

SEEDS = st.integers(0, 2**32 - 1)


def images(seed, n, size=5):
    return np.random.default_rng(seed).normal(3.0, 2.0, (n, size, size))


# --- spread -------------------------------------------------------------------------------------


def test_spread_is_the_root_of_the_mean_variance():
    real, made = images(0, 7), images(1, 9)
    expected = math.sqrt(made.var(0, ddof=1).mean() / real.var(0, ddof=1).mean())
    assert spread_ratio(real, made) == pytest.approx(expected, rel=1e-12)


@given(SEEDS, st.floats(0.01, 3.0), st.floats(-1e3, 1e3))
def test_spread_of_contracted_data_is_the_contraction(seed, factor, shift):
    real = images(seed, 6)
    assert spread_ratio(real, factor * real + shift) == pytest.approx(factor, rel=1e-6)


def test_samples_that_are_all_alike_have_no_spread():
    real = images(0, 6)
    assert spread_ratio(real, np.repeat(real[:1], 4, 0)) == 0.0


def test_real_examples_that_are_all_alike_have_no_ratio():
    alike = np.repeat(images(0, 1), 4, 0)
    assert math.isnan(spread_ratio(alike, images(1, 4)))
    assert math.isnan(distance_ratio(alike, images(1, 4)))
    assert ClassFidelity.of(*(torch.tensor(alike),) * 2).problems == ()


# --- distances and favourites -------------------------------------------------------------------


def test_distance_and_shares_are_those_of_a_table_of_distances():
    real, made = images(0, 8), images(1, 11)
    to_real = cdist(made.reshape(11, -1), real.reshape(8, -1))
    among = cdist(*(real.reshape(8, -1),) * 2) + np.diag([np.inf] * 8)
    # torch's median of an even number is the lower of the two in the middle.
    expected = np.median(to_real.min(1)) / np.sort(among.min(1))[3]
    assert distance_ratio(real, made) == pytest.approx(expected, rel=1e-9)
    shares = [np.sort(np.bincount(d.argmin(1)))[-2:].sum() / len(d) for d in (to_real, among)]
    assert concentration(real, made) == pytest.approx(shares)


def test_held_out_examples_have_ratios_of_one():
    real, held_out = images(0, 400, 2), images(1, 400, 2)
    assert spread_ratio(real, held_out) == pytest.approx(1.0, abs=0.1)
    assert distance_ratio(real, held_out) == pytest.approx(1.0, abs=0.1)
    share, expected = concentration(real, held_out)
    assert share == pytest.approx(expected, abs=0.02)


def test_copies_have_no_distance_even_of_large_numbers():
    real = 1e8 + images(0, 30)
    assert distance_ratio(real, real[[3, 5, 5]]) == 0.0


def test_the_order_of_samples_and_the_unit_do_not_matter():
    real, made = images(0, 12), images(1, 20)
    for measure in (spread_ratio, distance_ratio, concentration):
        expected = measure(real, made)
        assert measure(1e6 * real, 1e6 * made[::-1]) == pytest.approx(expected, rel=1e-9)


@given(SEEDS, st.integers(0, 2))
def test_each_feature_of_vectors_counts_the_same_in_any_unit(seed, feature):
    generator = np.random.default_rng(seed)
    real, made = generator.normal(size=(9, 3)), generator.normal(size=(7, 3))
    units = np.ones(3)
    units[feature] = 1e5
    for measure in (spread_ratio, distance_ratio, concentration):
        assert measure(units * real, units * made) == pytest.approx(measure(real, made), rel=1e-6)


def test_what_was_not_observed_influences_nothing():
    real, made = images(0, 9), images(1, 9)
    mask = np.random.default_rng(2).random(real.shape) < 0.7
    measures = (spread_ratio, distance_ratio, concentration)
    found = [measure(real, made, mask) for measure in measures]
    hidden = np.where(mask, real, np.nan)
    assert [measure(hidden, made, mask) for measure in measures] == found
    everything = np.ones_like(mask)
    assert distance_ratio(real, made, everything) == pytest.approx(distance_ratio(real, made))


def test_some_of_many_real_examples_are_compared_to_all_others(monkeypatch):
    real, made = images(0, 9), images(1, 11)
    among = cdist(*(real.reshape(9, -1),) * 2) + np.diag([np.inf] * 9)
    to_real = cdist(made.reshape(11, -1), real.reshape(9, -1))
    monkeypatch.setattr("chartae.augmentation.fidelity.QUERIES", 3)
    expected = np.median(to_real.min(1)) / np.median(among[::3].min(1))
    assert distance_ratio(real, made) == pytest.approx(expected, rel=1e-9)


def test_pairs_are_compared_in_pieces(monkeypatch):
    real, made = images(0, 9), images(1, 13)
    expected = distance_ratio(real, made), concentration(real, made)
    monkeypatch.setattr("chartae.evaluation.neighbours.PAIRS", 20)
    assert (distance_ratio(real, made), concentration(real, made)) == expected


def test_bytes_are_compared_to_bytes():
    real, made = (images(s, 6).clip(0, 5).astype("uint8") for s in (0, 1))
    assert spread_ratio(real, made) == pytest.approx(spread_ratio(real / 1.0, made / 1.0))


REFUSED = {
    "one sample": (images(0, 4), images(0, 1), "expected at least 2"),
    "one example": (images(0, 1), images(0, 4), "expected at least 2"),
    "shapes": (images(0, 4), images(0, 4, 3), "synthetic has shape"),
    "dtypes": (images(0, 4), images(0, 4).astype("uint8"), "expected that of real data"),
    "not finite": (images(0, 4), np.full((4, 5, 5), np.nan), "NaN"),
}


@pytest.mark.parametrize(("real", "made", "message"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("measure", [spread_ratio, distance_ratio, concentration])
def test_what_cannot_be_compared_is_refused(measure, real, made, message):
    with pytest.raises(DataError, match=message):
        measure(real, made)


# --- what is said -------------------------------------------------------------------------------


def test_sentences_say_what_is_wrong_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    real, held_out = torch.randn((2, 40, 8, 8), generator=generator)
    assert ClassFidelity.of(real, held_out).problems == ()
    (collapsed,) = ClassFidelity(0.06, 0.9, 0.3, 0.3).problems
    assert "6% of the spread" in collapsed
    (copied,) = ClassFidelity.of(real, real + 1e-3 * held_out).problems
    assert "near copies" in copied
    few = torch.cat([real[:2], real[:2], real[:2] + 0.9 * held_out[:2]])
    assert any("nearest to two" in said for said in ClassFidelity.of(real, few).problems)


def test_a_table_by_class_is_written_and_read():
    nan = ClassFidelity(math.nan, 0.5, 0.25, 0.5, ("a warning",))
    table = Fidelity({"rings": nan, "0": ClassFidelity(0.1, 0.8, 0.4, 0.4)})
    again = Fidelity.from_json(json.loads(json.dumps(table.to_json(), allow_nan=False)))
    assert repr(again) == repr(table)
    assert again["rings"].warnings == ("a warning",)
    assert list(again.problems) == ["0"]
    assert len({len(line) for line in repr(table).splitlines()}) == 1


# --- the augmenter says so ----------------------------------------------------------------------


class Constant(NormalSampler):
    """Latents that are all alike, with a warning."""

    def draw_latents(self, n, seed, y=None):
        logging.getLogger("chartae.samplers.mixture").warning("all alike")
        return torch.zeros(n, self.model.latent_dim)


QUICK = {"model": "vae", "fit_options": {"epochs": 60, "learning_rate": 1e-2}}


def two_classes(per_class=12):
    x = torch.rand((2 * per_class, 4, 4), generator=torch.Generator().manual_seed(0))
    return x, torch.arange(2).repeat_interleave(per_class)


def test_a_class_that_collapses_is_named_once_with_what_was_warned_of(caplog):
    augmenter = Augmenter(**QUICK, sampler=Constant).fit(*two_classes())
    assert list(augmenter.fidelity_) == ["0", "1"]
    assert augmenter.fidelity_["1"].spread < 1e-3
    assert augmenter.fidelity_["1"].warnings == ("all alike",)
    lines = [message for message in caplog.messages if "collapsed" in message]
    (line,) = lines
    assert line.startswith("classes that have collapsed (spread below 0.25): 0, 1; scale the data")


def test_figures_are_those_of_samples():
    x, y = two_classes()
    augmenter = Augmenter(**QUICK, sampler="normal", seed=3).fit(x, y)
    made, _ = augmenter.sample({1: 100})
    assert augmenter.fidelity_["1"] == ClassFidelity.of(x[y == 1], made)


@pytest.mark.parametrize("conditional", [False, True])
def test_figures_are_kept(tmp_path, conditional):
    augmenter = Augmenter(**QUICK, sampler="normal", conditional=conditional).fit(*two_classes())
    augmenter.save(tmp_path / "kept")
    assert repr(Augmenter.load(tmp_path / "kept").fidelity_) == repr(augmenter.fidelity_)
    assert len(augmenter.fidelity_) == 2
    record = tmp_path / "kept" / "augmenter.json"  # as an earlier version wrote it
    content = json.loads(record.read_text())
    del content["fidelity"]
    record.write_text(json.dumps(content))
    assert len(Augmenter.load(tmp_path / "kept").fidelity_) == 0


def test_a_class_of_one_example_in_a_conditional_model_is_not_compared():
    x, y = two_classes()
    augmenter = Augmenter(**QUICK, sampler="normal", conditional=True).fit(x[:13], y[:13])
    assert list(augmenter.fidelity_) == ["0"]


def test_warnings_of_a_sample_name_the_class(caplog):
    augmenter = Augmenter(**QUICK, sampler=Constant).fit(*two_classes())
    caplog.clear()
    augmenter.sample({1: 2})
    assert caplog.messages == ["class '1': all alike"]


def test_warnings_of_other_threads_pass(caplog):
    other = logging.getLogger("chartae.samplers.mixture")
    with warnings_about("here") as messages:
        thread = threading.Thread(target=other.warning, args=("there",))
        thread.start()
        thread.join()
        other.warning("%s", "mine")
        other.warning("mine")
        assert caplog.messages == ["there"]
    assert messages == ["mine"]
    assert caplog.messages == ["there", "here: mine"]
    other.warning("after")
    assert caplog.messages[-1] == "after"
