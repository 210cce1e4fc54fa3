import numpy as np
import pytest

from chartae.augmentation import ModelMethod, gaussian_noise, make_method, smote
from chartae.augmentation.methods import OVERSAMPLERS
from chartae.errors import ConfigurationError, DataError

X = np.random.default_rng(0).random((8, 3, 3)).astype(np.float32)
Y = np.repeat([0, 1], 4)
TINY = ModelMethod({"model": "vae", "sampler": "normal", "fit_options": {"epochs": 2}})


@pytest.mark.parametrize("method", [smote, gaussian_noise, TINY], ids=["smote", "noise", "model"])
class TestEveryMethod:
    def test_gives_so_many_of_each_class(self, method):
        x, y = method(X, Y, {0: 5, 1: 5}, 0)
        assert x.shape == (10, 3, 3)
        assert np.bincount(y).tolist() == [5, 5]

    def test_stays_in_the_range_of_the_data(self, method):
        x, _ = method(X, Y, {0: 50, 1: 50}, 0)
        assert x.min() >= -1e-6
        assert x.max() <= 1 + 1e-6

    def test_follows_the_seed(self, method):
        first, again, other = (method(X, Y, {0: 5, 1: 5}, seed)[0] for seed in (2**40, 2**40, 1))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)


def test_smote_interpolates_within_a_class():
    x = np.array([[0.0], [1.0], [10.0], [11.0]])
    new, y = smote(x, np.array([0, 0, 1, 1]), {0: 20, 1: 20}, 0)
    assert new[y == 0].max() <= 1
    assert new[y == 1].min() >= 10


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("adasyn", "ADASYN cannot make samples of these data: .*neigh?bours"),
        ("borderline", "BorderlineSMOTE makes no sample of these data"),
    ],
)
def test_methods_of_the_border_need_classes_that_touch(kind, message):
    x = np.random.default_rng(0).normal(size=(40, 2)) + 100.0 * np.repeat([0, 1], 20)[:, None]
    with pytest.raises(DataError, match=message):
        make_method(kind)(x, np.repeat([0, 1], 20), {0: 5}, 0)


def test_models_are_kept_and_found_again(tmp_path):
    method = ModelMethod(TINY.options, output_dir=tmp_path)
    made, _ = method(X, Y, {0: 3, 1: 3}, 7)
    augmenter = method.augmenter(7).fit(X, Y)
    assert np.array_equal(made, augmenter.sample(3)[0])
    assert (tmp_path / "seed-7").is_dir()


@pytest.mark.parametrize("kind", OVERSAMPLERS)
def test_integers_are_interpolated_as_their_floats_are(kind):
    """Differences of uint8 wrap around: 10 - 20 is 246."""
    random = np.random.default_rng(0)
    x = np.clip(random.normal(120, 60, (60, 12)), 0, 255).astype(np.uint8)
    y = np.repeat([0, 1], [40, 20])
    given = [x, x.astype(np.float64) / 255]
    made, expected = (smote(of, y, {1: 20}, 0, kind=kind)[0] for of in given)
    assert made.dtype == np.uint8
    np.testing.assert_allclose(made / 255, expected, atol=0.501 / 255)


def test_a_name_has_options_of_the_model():
    method = make_method("conditional vae(latent_dim=3 encoder=mlp)+normal", model_options={"a": 1})
    assert method.options == {
        "model": "vae",
        "sampler": "normal",
        "conditional": True,
        "model_options": {"a": 1, "latent_dim": 3, "encoder": "mlp"},
    }
    options = {"fit_options": {"epochs": 1}}
    augmenter = make_method("vae(latent_dim=3)+normal", **options).augmenter(0).fit(X, Y)
    assert augmenter.models_["0"].latent_dim == 3
    for wrong in ("vae(latent_dim)+normal", "vae(latent_dim=3", "vae(latent_dim=3)normal", ""):
        with pytest.raises(ConfigurationError, match="methods"):
            make_method(wrong)
