"""Conditions: a property of every model, by labels or by vectors."""

import pytest
import torch
from sklearn.datasets import load_digits
from tests.models.conftest import SMALL, conditions_of, each_case_of
from tests.models.test_contract import has_posterior, loss_of

import chartae
from chartae import fit
from chartae.data import ArrayDataset
from chartae.errors import ConfigurationError, DataError
from chartae.models import CVAE, RHVAE, VAE

LABELS = torch.tensor(load_digits().target[:64])
VECTORS = torch.stack([LABELS / 9, (LABELS % 2).float()], 1)
GIVEN = {10: LABELS, (2,): VECTORS}


each_kind = each_case_of({"labels": (10,), "vectors": ((2,),)}, ["conditions"])


@each_kind
def test_every_parameter_gets_a_gradient(make, digits, conditions):
    model = make(conditions=conditions)
    losses = model.loss(digits, y=GIVEN[conditions])
    groups = model.optimization_groups()
    for group, objective in losses.objectives.items():
        objective.backward(retain_graph=True, inputs=groups[group])
    for name, parameter in model.named_parameters():
        assert parameter.grad.any(), name
        assert torch.isfinite(parameter.grad).all(), name


@each_kind
def test_what_is_encoded_and_decoded_depends_on_them(make, digits, conditions):
    model = make(conditions=conditions).eval()
    y = GIVEN[conditions]
    other = y.roll(1, 0)
    z = model.encode(digits, y)
    assert z.shape == (64, 2)
    assert (model.decode(z, y) != model.decode(z, other)).any()
    if model.latent_space != "codes":  # near codes may be the same
        assert (z != model.encode(digits, other)).any()
    # Each its own: conditions keep their place, in pieces too.
    one = model.encode(digits[3:4], y[3:4])
    torch.testing.assert_close(z[3:4], one)
    torch.testing.assert_close(model.encode(digits, y, batch_size=7), z)
    torch.testing.assert_close(model.decode(z, y, batch_size=7), model.decode(z, y))
    if has_posterior(model):
        draws = model.posterior(digits, y).rsample_and_log_prob((3,))[0]
        together = model.likelihood(draws, y).log_prob(digits)
        apart = torch.stack([model.likelihood(draw, y).log_prob(digits) for draw in draws])
        torch.testing.assert_close(together, apart)
        assert torch.isfinite(model.log_likelihood(digits, 5, y=y, max_batch=13)).all()


@each_kind
def test_they_are_trained_with_the_one_fit_and_saved(make, digits, conditions, tmp_path):
    model = make(conditions=conditions)
    data = ArrayDataset(digits, GIVEN[conditions])
    if hasattr(model, "warmup"):
        model.warmup = 0
    history = fit(model, data, data, epochs=2, batch_size=32, seed=0, progress=False)
    assert history.stopped == "finished"
    model.save_pretrained(tmp_path)
    twin = chartae.load(tmp_path)
    assert twin.conditions == conditions
    assert loss_of(twin, digits) == loss_of(model, digits)


def test_a_condition_tells_what_the_latent_need_not(digits):
    # Half of the images are inverted, and the label says which: only a conditional model can know
    # it without a latent for it.
    label = torch.arange(64) % 2
    x = torch.where(label[:, None, None] == 1, 1 - digits, digits)
    torch.manual_seed(0)
    model = VAE((8, 8), 1, conditions=2, likelihood="bernoulli")
    fit(model, ArrayDataset(x, label), epochs=150, learning_rate=3e-3, seed=0, progress=False)
    z = torch.zeros(1, 1)
    plain, inverted = (model.decode(z, torch.tensor([k])) for k in (0, 1))
    # The corners are always paper, 0 in the one and 1 in the other.
    assert plain[0, :, 0].max() < 0.2
    assert inverted[0, :, 0].min() > 0.8


def test_a_conditional_rhvae_has_one_metric_for_all_classes(digits):
    torch.manual_seed(0)
    model = RHVAE((8, 8), 2, conditions=10, encoder=SMALL, decoder=SMALL, metric_network=SMALL)
    fit(model, ArrayDataset(digits, LABELS), epochs=2, seed=0, progress=False)
    torch.testing.assert_close(model.metric.centroids, model.encode(digits, LABELS))


@pytest.mark.parametrize(
    ("given", "y", "message"),
    [
        (10, None, r"y is missing: this VAE has 10 \(conditions\)"),
        (None, LABELS, r"y is given: this VAE has none \(conditions\)"),
        (10, LABELS.float(), "y is torch.float32: expected labels, a tensor of torch.int64"),
        (10, LABELS.tolist(), "y is list: expected labels, a tensor of torch.int64"),
        (10, LABELS[:5], r"y has shape \(5,\): expected \(64\)"),
        (9, LABELS, "y ranges from 0 to 9: expected labels from 0 to 8"),
        (10, LABELS - 1, "y ranges from -1 to 8"),
        ((2,), LABELS, "y has dtype torch.int64: expected torch.float32 or torch.float64"),
        ((3,), VECTORS, r"y has shape \(64, 2\): expected \(64, 3\)"),
        ((2,), VECTORS.double(), "y has dtype torch.float64: the model has torch.float32"),
        ((2,), VECTORS * torch.nan, "y has 128 NaN or infinite"),
    ],
)
def test_what_does_not_fit_is_refused_at_every_door(digits, given, y, message):
    model = VAE((8, 8), 2, conditions=given, encoder=SMALL, decoder=SMALL)
    for call in (model.encode, model.reconstruct, model.elbo, model.log_likelihood):
        with pytest.raises(DataError, match=message):
            call(digits, y=y)
    with pytest.raises(DataError, match=message):
        model.decode(torch.zeros(64, 2), y)


def test_training_refuses_what_does_not_fit(digits):
    model = CVAE((8, 8), 2, conditions=9, encoder=SMALL, decoder=SMALL)
    for data, message in [
        (digits, "y of train is missing: this CVAE has 9"),
        (ArrayDataset(digits, LABELS), "y of train ranges from 0 to 9"),
        (list(zip(digits, LABELS.tolist(), strict=True)), "y of batch 1 of train ranges from"),
    ]:
        source = data if not isinstance(data, list) else Pairs(data)
        with pytest.raises(DataError, match=message):
            fit(model, source, epochs=1, batch_size=64, progress=False)
    # Labels that a model does not ask for are left alone.
    fit(VAE((8, 8), 2), ArrayDataset(digits, LABELS), epochs=1, progress=False)


class Pairs(torch.utils.data.Dataset):
    def __init__(self, pairs):
        self.pairs = pairs

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        return self.pairs[index]


@pytest.mark.parametrize("conditions", [0, 2.5, True, (2, 3), (0,), "ten", ()])
def test_bad_arguments_are_refused(conditions):
    with pytest.raises(ConfigurationError, match="conditions="):
        VAE((8, 8), 2, conditions=conditions)


def test_data_hold_vectors(digits):
    data = ArrayDataset.from_arrays(digits, VECTORS.numpy())
    assert data.class_names == ()
    assert data.classes == ()
    assert "samples of shape (8, 8)" in repr(data)
    assert data.to(dtype=torch.float64).y.dtype == torch.float64
    assert data.subset([1, 2]).y.shape == (2, 2)
    with pytest.raises(DataError, match="y has no labels"):
        data.of_class(0)
    with pytest.raises(DataError, match="y has dtype torch.float64: expected a tensor"):
        ArrayDataset(digits, VECTORS.double())
    with pytest.raises(DataError, match="y has 2 NaN"):
        ArrayDataset(digits, VECTORS.index_fill(0, torch.tensor([0]), torch.nan))
    assert conditions_of(VAE((8, 8), 2), 5) is None
