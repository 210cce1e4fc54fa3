"""Classifiers of studies: networks with early stopping, weights, neighbourhoods."""

from dataclasses import replace

import numpy as np
import pytest
import sklearn
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from chartae.augmentation import (
    CLASSIFIERS,
    Classifier,
    NetworkClassifier,
    default_classifiers,
    smote,
)
from chartae.augmentation.classifiers import fit_classifier, scores_of
from chartae.augmentation.study_runs import _held_out_search
from chartae.errors import ConfigurationError

random = np.random.default_rng(0)


def bright_halves(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Images that are brighter on the left or on the right."""
    y = np.arange(n) % 2
    x = random.random((n, 12, 12)).astype(np.float32) * 0.5
    x[y == 0, :, :6] += 0.5
    x[y == 1, :, 6:] += 0.5
    return x, y


TRAIN, TEST = bright_halves(40), bright_halves(60)


def small(**options) -> NetworkClassifier:
    return NetworkClassifier("thesis/classifier", epochs=25, learning_rate=5e-3, **options)


def test_a_network_learns_and_gives_probabilities():
    network = small().fit(*TRAIN)
    assert (network.predict(TEST[0]) == TEST[1]).mean() > 0.95
    probabilities = network.predict_proba(TEST[0])
    np.testing.assert_allclose(probabilities.sum(1), 1.0, rtol=1e-5)
    assert np.array_equal(network.classes_[probabilities.argmax(1)], network.predict(TEST[0]))


def test_examples_of_weight_zero_teach_nothing():
    x, y = TRAIN
    both = np.concatenate([x, x]), np.concatenate([y, 1 - y])
    weight = np.repeat([1.0, 0.0], len(y))
    assert (small().fit(*both, sample_weight=weight).predict(TEST[0]) == TEST[1]).mean() > 0.95
    reverse = small().fit(*both, sample_weight=weight[::-1].copy())
    assert (reverse.predict(TEST[0]) == TEST[1]).mean() < 0.05


def test_the_validation_set_stops_the_training():
    wrong = TEST[0], 1 - TEST[1]
    network = small(patience=2, steps=1).fit(*TRAIN, validation=wrong)
    assert (network.predict(TEST[0]) == TEST[1]).mean() < 0.95  # it stopped before it learned


def test_the_seed_decides():
    first, again, other = (
        small(random_state=seed).set_params(epochs=2).fit(*TRAIN).predict_proba(TEST[0])
        for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_transforms_are_part_of_training_only():
    network = small(transforms=True).set_params(epochs=5).fit(*TRAIN)
    assert np.array_equal(network.predict_proba(TEST[0]), network.predict_proba(TEST[0]))


def test_scikit_learn_clones_a_network():
    network = NetworkClassifier("densenet", patience=3)
    assert sklearn.clone(network).get_params() == network.get_params()
    with pytest.raises(ConfigurationError, match="patiense"):
        network.set_params(patiense=3)


def test_one_class_is_refused():
    with pytest.raises(ConfigurationError, match="one class"):
        small().fit(TRAIN[0], np.zeros(40, dtype=int))


def test_neighbourhoods_grow_with_the_training_set():
    nearest = CLASSIFIERS["k-NN"]
    x, y = TRAIN[0].reshape(40, -1), TRAIN[1]
    found = fit_classifier(nearest, x, y, parameters={"n_neighbors": 3}, seed=0, growth=4.0)
    assert found.n_neighbors == 12
    found = fit_classifier(nearest, x, y, parameters={"n_neighbors": 30}, seed=0, growth=4.0)
    assert found.n_neighbors == 40  # no more than there are


def test_weights_are_repeats_for_estimators_without_weights():
    """A neighbour of weight 2 counts as two neighbours, in a neighbourhood that grows as well."""
    nearest = Classifier(lambda: KNeighborsClassifier(3), grows=("n_neighbors",))
    x, y = np.array([[0.0], [1.0], [1.1], [3.0]]), np.array([0, 1, 1, 0])
    plain = fit_classifier(nearest, x, y, parameters={}, seed=0)
    weight = np.array([2.0, 1.0, 1.0, 2.0])
    weighted = fit_classifier(nearest, x, y, parameters={}, seed=0, weight=weight)
    assert plain.n_neighbors == 3
    assert weighted.n_neighbors == round(3 * 6 / 4)
    assert len(weighted._fit_X) == 6


def test_weights_reach_estimators_that_take_them():
    x, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 0, 1, 1])
    logistic = Classifier(LogisticRegression)
    even = fit_classifier(logistic, x, y, parameters={}, seed=0)
    odd = fit_classifier(logistic, x, y, parameters={}, seed=0, weight=np.array([9.0, 9, 1, 1]))
    assert odd.predict_proba(x)[:, 0].mean() > even.predict_proba(x)[:, 0].mean() + 0.1


def test_scores_have_a_column_for_each_class():
    x, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 0, 2, 2])
    predicted, scores = scores_of(CLASSIFIERS["RBF SVM"].make().fit(x, y), x, 4)
    assert scores.shape == (4, 4)
    assert np.array_equal(scores.argmax(1), predicted)
    assert scores[:, [1, 3]].max() <= scores[:, [0, 2]].min()


def test_networks_are_for_images():
    assert not any(of.network for of in default_classifiers((7,)).values())
    assert any(of.network for of in default_classifiers((1, 8, 8)).values())


@pytest.mark.parametrize("name", ["CNN", "DenseNet 10", "MRI CNN A2", "ResNet", "strong CNN"])
@pytest.mark.parametrize("shape", [(5, 5), (3, 16, 12), (1, 8, 9, 10)])
def test_networks_take_every_size(name, shape):
    x = random.random((8, *shape)).astype(np.float32)
    estimator = CLASSIFIERS[name].make().set_params(epochs=1)
    assert estimator.fit(x, np.arange(8) % 2).predict_proba(x).shape == (8, 2)


@pytest.mark.parametrize(("size", "expected"), [(40, 8), (120, 12), (5000, 200)])
def test_an_epoch_of_a_small_set_has_several_steps(monkeypatch, size, expected):
    given = {}
    monkeypatch.setattr(
        "chartae.augmentation.classifiers.fit", lambda *data, **options: given.update(options)
    )
    NetworkClassifier().fit(np.zeros((size, 8, 8), np.float32), np.arange(size) % 2)
    assert given["batch_size"] == expected


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_perceptron_learns_few_examples_of_many_features():
    # With a patience of five epochs, which are five steps here, it stops at chance.
    random, y = np.random.default_rng(0), np.arange(120) % 3
    shifts = 0.05 * random.standard_normal((3, 3072))
    x = (0.5 + 0.2 * random.standard_normal((120, 3072)) + shifts[y]).clip(0, 1)
    found = fit_classifier(CLASSIFIERS["MLP"], x.astype(np.float32), y, parameters={}, seed=0)
    assert found.score(x, y) > 0.95


@pytest.mark.slow
def test_a_search_trains_what_it_draws_and_keeps_the_best_on_validation_data():
    """Of two learning rates only one learns; the network has the options of the encoder."""
    grid = {"learning_rate": [5e-3, 1e-9], "encoder__channels": [4], "encoder__hidden": [1]}
    grid |= {"encoder__blocks": [1, 2, 3], "encoder__dropout": [0.0]}
    search = replace(CLASSIFIERS["MRI CNN search"], grid=grid, draws=4)
    tried = search.candidates(3)
    assert len(tried) == 4
    assert len({tuple(one.values()) for one in tried}) == 4
    assert tried == search.candidates(3) != search.candidates(4)
    best = _held_out_search(search, TRAIN, TEST, 3)
    assert best in tried
    assert best["learning_rate"] == 5e-3
    network = search.make().set_params(**best)
    assert network.encoder == {
        "name": "thesis/mri_classifier",
        "channels": 4,
        "hidden": 1,
        "blocks": best["encoder__blocks"],
        "dropout": 0.0,
    }
    with pytest.raises(ConfigurationError, match="blocks"):
        NetworkClassifier(torch.nn.Flatten()).set_params(encoder__blocks=2)


def sparse_letters(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Binary images of four letters; each has two thirds of the ink of its letter, and other."""
    random = np.random.default_rng(seed)
    letters = np.random.default_rng(0).random((4, 784)) < 0.1
    y = np.arange(n) % 4
    x = np.where(random.random((n, 784)) < 0.67, letters[y], random.random((n, 784)) < 0.05)
    return x.astype(np.float32), y


def test_the_support_vectors_of_every_candidate_see_their_neighbours():
    """With a kernel that is zero between rows, the intercept decides as soon as rows are added."""
    (x, y), test = sparse_letters(40, 1), sparse_letters(200, 2)
    x_new, y_new = smote(x, y, dict.fromkeys(range(4), 60), 0)
    weight = np.r_[np.ones(40), np.full(240, 40 / 240)]
    svm = CLASSIFIERS["RBF SVM"]
    for parameters in svm.candidates(0):
        options = {"parameters": parameters, "seed": 0}
        real = fit_classifier(svm, x, y, **options)
        both = fit_classifier(svm, np.r_[x, x_new], np.r_[y, y_new], weight=weight, **options)
        assert real.score(*test) > 0.9
        assert both.score(*test) > 0.9
