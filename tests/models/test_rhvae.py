"""The RHVAE neither explodes nor collapses (docs/rhvae.md)."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import chartae
from chartae.data import digits
from chartae.distributions import DiagonalNormal
from chartae.errors import ConfigurationError
from chartae.geometry import CentroidMetric, PosteriorMetric, posterior_reach, scott_temperature
from chartae.models import AE, RHVAE, VAE, VQVAE
from chartae.nn import MetricNetwork

BODY = {"name": "mlp", "hidden": [16]}
SMALL = {"encoder": {"name": "mlp", "hidden": [64]}, "decoder": {"name": "mlp", "hidden": [64]}}


def train(num_samples, latent_dim, seed, epochs, **options):
    """A model trained on digits of one class, with the thesis' hyper-parameters."""
    threes = digits().of_class("3").x
    order = torch.randperm(len(threes), generator=torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    model = RHVAE((8, 8), latent_dim, likelihood="bernoulli", **SMALL, **options)
    history = chartae.fit(
        model, threes[order[:num_samples]], epochs=epochs, seed=seed, progress=False
    )
    return model, history


def gap(model):
    """How much larger the volume is in the void, far beyond all codes, than at the codes, in nats.

    The most it can be, with matrices of determinant 1, is about -d / 2 log(regularization).
    """
    metric = model.metric
    codes = metric.centroids
    direction = torch.randn(200, metric.dim, generator=torch.Generator().manual_seed(0))
    reach = getattr(metric, "temperature", None)
    if reach is None:
        reach = metric.rho * float(metric.variances.sqrt().max())
    radius = codes.norm(dim=-1).max() + 3 * reach
    void = radius * direction / direction.norm(dim=-1, keepdim=True)
    return float(metric.log_volume(void).median() - metric.log_volume(codes).median())


@given(dim=st.integers(1, 12), scale=st.floats(0.1, 1e4), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_matrices_have_determinant_one_and_bounded_eigenvalues(dim, scale, seed):
    torch.manual_seed(seed)
    network = MetricNetwork({"name": "mlp", "hidden": [8]}, (5,), dim).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(scale)
        matrices = network(torch.randn(7, 5).double())
        factor = network.cholesky(torch.randn(7, 5).double())
    ones = torch.ones(7).double()
    torch.testing.assert_close(torch.linalg.det(matrices), ones, atol=1e-8, rtol=0)
    assert (factor.diagonal(dim1=-2, dim2=-1) > 0).all()
    assert (factor.triu(1) == 0).all()
    # ||I + S|| <= 1.7, and the centred log-diagonal is at most 2 (d - 1) / d < 2.
    largest = (1.7 * math.exp(2.0)) ** 2
    assert torch.linalg.eigvalsh(matrices).max() <= largest


@given(seed=st.integers(0, 99), scale=st.floats(0.1, 1e3), dim=st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_no_output_of_the_network_can_collapse_the_metric(seed, scale, dim):
    # Minkowski: -log vol(c_i) >= d/2 log(N_i / Nbar) for matrices of determinant 1.
    torch.manual_seed(seed)
    model = RHVAE((5,), dim, encoder="thesis/mnist", decoder="thesis/mnist").double()
    with torch.no_grad():
        for parameter in model.metric_network.parameters():
            parameter.mul_(scale)
    x = torch.rand(20, 5).double()
    model.on_fit_end([{"x": x}])
    metric = model.metric
    squared = torch.cdist(metric.centroids, metric.centroids).square()
    overlap = torch.exp(-squared / metric.temperature**2).sum(-1)
    bound = 0.5 * dim * torch.log(overlap / overlap.mean())
    assert (-metric.log_volume(metric.centroids) >= bound - 1e-9).all()


def test_the_metric_does_not_grow_with_the_number_of_centroids():
    # The sum of overlapping bumps is divided by their mean overlap.
    torch.manual_seed(0)
    model = RHVAE((5,), 2, temperature=1.0)
    x = torch.rand(20, 5)
    model.on_fit_end([{"x": x}])
    few = model.metric.inverse(model.metric.centroids)
    model.on_fit_end([{"x": x.repeat(50, 1)}])
    many = model.metric.inverse(model.metric.centroids[:20])
    torch.testing.assert_close(few, many, atol=1e-4, rtol=1e-4)


def test_the_overlap_of_many_centroids_is_summed_in_pieces():
    torch.manual_seed(0)
    model = RHVAE((5,), 2, temperature=0.7).double()
    x = torch.rand(1500, 5).double()
    model.on_fit_end([{"x": x[:1000]}, {"x": x[1000:]}])
    codes = model.embed(x).detach()
    overlap = torch.exp(-torch.cdist(codes, codes).square() / 0.7**2).sum(-1).mean()
    shapes = model.metric_network(x).detach()
    torch.testing.assert_close(model.metric.matrices, shapes / overlap)


def test_temperature_follows_scotts_rule_for_the_aggregated_posterior():
    mean = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 2.0], [-1.0, 2.0]])
    posterior = DiagonalNormal(mean, 0.5 * torch.ones(4, 2))
    expected = 0.7 * math.sqrt(2) * 4 ** (-1 / 6) * math.sqrt(1.0 + 0.25)
    assert scott_temperature(posterior) == pytest.approx(expected)


def test_default_temperature_is_the_training_sets_and_is_saved(tmp_path):
    model, _ = train(20, 2, seed=0, epochs=3)
    assert model.metric.temperature == float(model.fitted_temperature) > 0
    model.save_pretrained(tmp_path)
    assert chartae.load(tmp_path).metric.temperature == model.metric.temperature


@pytest.mark.parametrize("geometry", ["learned", "posterior"])
def test_the_metric_is_made_once_and_again_when_anything_changes(geometry, tmp_path):
    torch.manual_seed(0)
    x, z = torch.rand(20, 6), torch.randn(5, 2)
    model, other = (RHVAE((6,), 2, geometry=geometry, metric_network=BODY) for _ in range(2))
    model.on_fit_end([{"x": x}])
    other.on_fit_end([{"x": x[:11]}])
    model.eval()

    def known():
        """What the metric should be, made anew from what is saved."""
        model.save_pretrained(tmp_path)
        return chartae.load(tmp_path).metric

    def cast():
        model.double().float()

    def change_in_place():
        with torch.no_grad():
            model.centroids.mul_(1.5)

    def cast_the_metric():
        model.metric.double()

    changes = [
        cast, change_in_place, cast_the_metric,
        lambda: model.load_state_dict(other.state_dict()),
        lambda: model.on_fit_end([{"x": x[:7]}]),
        lambda: setattr(model, "regularization", 2.0),
        lambda: (model.fitted_rho if geometry == "posterior" else model.fitted_temperature).mul_(2),
    ]  # fmt: skip
    for change in changes:
        before = model.metric
        assert model.metric is before
        change()
        assert model.metric is not before
        torch.testing.assert_close(model.metric.log_volume(z), known().log_volume(z))
    model.on_fit_start(0)
    with pytest.raises(ConfigurationError, match="no metric yet"):
        _ = model.metric


def test_copies_and_pickles_have_their_own_metric():
    torch.manual_seed(0)
    model = RHVAE((6,), 2, metric_network=BODY)
    model.on_fit_end([{"x": torch.rand(20, 6)}])
    expected = model.eval().metric.log_volume(torch.zeros(1, 2))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), copy.copy(model)):
        assert twin.metric is not model.metric
        torch.testing.assert_close(twin.metric.log_volume(torch.zeros(1, 2)), expected)
    assert "_kept" not in model.state_dict()


@pytest.mark.parametrize("model_class", [AE, VAE, VQVAE])
def test_a_model_without_a_metric_says_where_there_is_one(model_class):
    model = model_class((4, 4), 16)
    assert not hasattr(model, "metric")
    assert not hasattr(type(model), "metric")
    assert getattr(model, "metric", None) is None
    name = model_class.__name__
    with pytest.raises(
        AttributeError, match=f"this {name} has no metric of its own, unlike an RHVAE: .*from_model"
    ):
        _ = model.metric
    with pytest.raises(AttributeError, match="no attribute 'metrics'"):
        _ = model.metrics


def test_a_given_temperature_is_kept():
    model, _ = train(20, 2, seed=0, epochs=3, temperature=0.8)
    assert model.metric.temperature == pytest.approx(0.8)


@pytest.mark.parametrize("geometry", ["learned", "posterior"])
@pytest.mark.parametrize("latent_dim", [2, 10])
def test_untrained_weights_are_moderate(latent_dim, geometry):
    # Codes nearly coincide before training: bumps narrower than the posterior would blow the
    # momentum up (log weights of -1e7 were seen).
    torch.manual_seed(0)
    model = RHVAE((8, 8), latent_dim, geometry=geometry, likelihood="bernoulli")
    x = digits().x[:50]
    with torch.no_grad():
        log_weights = model.log_weights(x, 200)
    assert torch.isfinite(log_weights).all()
    assert log_weights.min() > -150.0
    assert model.log_weights(x).mean() > -60.0


SETTINGS = [(10, 2), (10, 16), pytest.param(100, 2, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("num_samples", "latent_dim"), SETTINGS)
def test_trains_and_keeps_an_informative_metric(num_samples, latent_dim):
    model, history = train(num_samples, latent_dim, seed=0, epochs=60)
    assert history.train["loss"][-1] < history.train["loss"][0]
    assert max(history.train["loss"]) < 100.0
    assert gap(model) > -0.3 * latent_dim * math.log(model.regularization)


# --- the posterior metric in place of the learned one -------------------------------------------


def posterior_of(n, d, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    deviations = 0.1 + torch.rand(n, d, generator=generator)
    return DiagonalNormal(scale * torch.randn(n, d, generator=generator), deviations)


def test_the_reach_bridges_codes_and_covers_what_is_drawn_from_them():
    posterior = posterior_of(30, 3)
    gaps = ((posterior.mean[:, None] - posterior.mean) / posterior.stddev).square().sum(-1)
    median = gaps.fill_diagonal_(math.inf).amin(1).sqrt().median()
    assert posterior_reach(posterior) == pytest.approx(math.sqrt(3 + float(median) ** 2), rel=1e-5)
    # Means that coincide, or a single one, still leave room for their posteriors.
    assert posterior_reach(posterior_of(30, 3, scale=0.0)) == pytest.approx(math.sqrt(3))
    assert posterior_reach(posterior_of(1, 3)) == pytest.approx(math.sqrt(3))


def test_the_posterior_metric_is_the_training_sets_and_needs_no_network(tmp_path):
    model, _ = train(20, 2, seed=0, epochs=3, geometry="posterior")
    assert not any("metric" in name for name, _ in model.named_parameters())
    assert isinstance(model.metric, PosteriorMetric)
    assert model.metric.centroids.shape == (20, 2)
    model.save_pretrained(tmp_path)
    twin = chartae.load(tmp_path)
    z = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(twin.metric.tensor(z), model.metric.tensor(z))
    assert twin.metric.rho == model.metric.rho
    given, _ = train(20, 2, seed=0, epochs=1, geometry="posterior", rho=2.5, regularization=0.3)
    assert (given.metric.rho, given.metric.regularization) == (2.5, 0.3)
    assert isinstance(train(20, 2, seed=0, epochs=1)[0].metric, CentroidMetric)


@pytest.mark.parametrize(("num_samples", "latent_dim"), SETTINGS)
def test_trains_with_the_posterior_metric(num_samples, latent_dim):
    model, history = train(num_samples, latent_dim, seed=0, epochs=60, geometry="posterior")
    assert history.train["loss"][-1] < history.train["loss"][0]
    assert max(history.train["loss"]) < 100.0
    assert gap(model) < -0.3 * latent_dim  # large near the data, small in the void
    # Latents in the void do not explode either: digits of other classes, drawn many times.
    with torch.no_grad():
        log_weights = model.log_weights(digits().x[:200], 50)
    assert torch.isfinite(log_weights).all()
    assert log_weights.mean(0).min() > -500.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"geometry": "pullback"}, "geometry='pullback' is not known"),
        ({"rho": 0.0}, "rho=0.0: .* greater than 0"),
        ({"temperature": 0.0}, "temperature=0.0: .* greater than 0"),
        ({"regularization": 0.0}, "regularization=0.0: .* greater than 0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        RHVAE((8, 8), 2, **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [None, "thesis"])
@pytest.mark.parametrize(("num_samples", "latent_dim"), [(10, 2), (50, 2), (50, 10), (170, 16)])
def test_trains_to_the_end_for_any_seed(num_samples, latent_dim, temperature):
    if temperature == "thesis":
        temperature = 0.8 if latent_dim == 2 else 1.5
    for seed in range(10):
        model, history = train(
            num_samples, latent_dim, seed=seed, epochs=150, temperature=temperature
        )
        assert history.num_epochs == 150
        assert max(history.train["loss"]) < 100.0
        assert gap(model) > -0.3 * latent_dim * math.log(model.regularization)
