"""Tables in the units that they came in: nothing is refused, and classes keep their spread."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris, load_wine

from chartae import Augmenter
from chartae.data import ArrayDataset
from chartae.training import default_options, fills_unit_range

TINY = {"name": "mlp", "hidden": [16]}
QUICK = {
    "model": "vae",
    "sampler": "normal",
    "model_options": {"encoder": TINY, "decoder": TINY, "latent_dim": 2},
    "fit_options": {"epochs": 2},
    "seed": 0,
}


def ratios(x, y, drawn, labels):
    """Deviations of drawn features over those of the data, class by class."""
    return np.stack([drawn[labels == c].std(0) / x[y == c].std(0) for c in np.unique(y)])


@pytest.mark.parametrize(("scale", "offset"), [(1e8, 0.0), (1e-6, 0.0), (1e3, -5.0)])
@pytest.mark.parametrize("conditional", [False, True])
def test_a_table_in_other_units_is_augmented_alike(conditional, scale, offset):
    x, y = load_iris(return_X_y=True)
    both = []
    for data in (x, scale * (x + offset)):
        drawn, _ = Augmenter(**QUICK, conditional=conditional).fit(data, y).sample(20)
        assert drawn.dtype == np.float64
        both.append(drawn)
    np.testing.assert_allclose(both[1] / scale - offset, both[0], rtol=1e-6, atol=1e-6)


def test_holes_of_a_table_far_from_zero_do_no_harm():
    x, y = load_wine(return_X_y=True)
    mask = np.random.default_rng(0).random(x.shape) < 0.8
    holed = np.where(mask, 1e3 + x, np.nan)
    options = {**QUICK, "fit_options": {"epochs": 60, "learning_rate": 1e-2}}
    drawn, labels = Augmenter(**options).fit(holed, y, mask).sample(300)
    for c in np.unique(y):
        mean, deviation = 1e3 + x[y == c].mean(0), x[y == c].std(0)
        assert (np.abs(drawn[labels == c].mean(0) - mean) < deviation).all()
    assert 0.7 < np.median(ratios(x, y, drawn, labels)) < 1.3


def test_the_default_likelihood_fits_the_data():
    unit = torch.rand(20, 4, generator=torch.Generator().manual_seed(0))
    faint = 0.5 + 0.1 * (unit - 0.5)

    def likelihood(x, mask=None):
        data = ArrayDataset.from_arrays(x, mask=mask)
        chosen = default_options("rhvae", data=data)["likelihood"]
        assert fills_unit_range(data) == (chosen.get("link") == "sigmoid")
        return chosen

    sharp = default_options("rhvae")["likelihood"]
    assert sharp == {"name": "gaussian", "scale": 0.1, "link": "sigmoid"}
    assert likelihood(unit) == likelihood(unit.reshape(20, 2, 2)) == sharp
    table, image = ({"name": "gaussian", "scale": scale} for scale in ("per_feature", 0.75))
    for x in (3.0 * unit, unit - 0.5, faint):
        assert likelihood(x) == table
        assert likelihood(x.reshape(20, 2, 2)) == image
    # What was not observed is 0, and has no say.
    holes = torch.ones_like(unit, dtype=torch.bool)
    holes[::2] = False
    assert likelihood(faint.masked_fill(~holes, 0.0), holes) == table


@pytest.mark.slow
@pytest.mark.parametrize("load", [load_iris, load_wine])
def test_classes_keep_their_spread_by_default(load):
    x, y = load(return_X_y=True)
    drawn, labels = Augmenter(seed=0).fit(x, y).sample(500)
    found = ratios(x, y, drawn, labels)
    assert 0.7 < np.median(found) < 1.3
    assert found.min() > 0.5
