"""Reconstruction by a distance: structural similarity, norms, a discriminator's features."""

import math

import pytest
import torch
from tests.models.conftest import SMALL
from torch import nn
from torch.nn import functional as F

from chartae import fit
from chartae.errors import ConfigurationError
from chartae.models import MSSSIMVAE, VAEGAN
from chartae.nn import make_distance


def images(shape, seed=0):
    return torch.rand(4, *shape, generator=torch.Generator().manual_seed(seed))


def test_large_images_have_almost_the_value_of_torchmetrics():
    # Which averages the last scale's luminance over reflected margins too.
    from torchmetrics.functional import image as metrics

    x, other = images((1, 192, 192)), images((1, 192, 192), 1)
    distance = make_distance("ms_ssim", (1, 192, 192))
    for share in (0.3, 0.7):
        mean = (1 - share) * x + share * other
        expected = metrics.multiscale_structural_similarity_index_measure(
            mean, x, data_range=1.0, reduction="none", normalize="simple"
        )
        torch.testing.assert_close(distance(x, mean), 1 - expected, atol=5e-3, rtol=0)


SHAPES = [(8, 8), (3, 6, 4), (28, 28), (3, 32, 32), (1, 64, 64), (1, 9, 10, 11)]
# By shape, the window and its deviation, and the published weights of the scales.
SCALES = {
    (8, 8): (3, 0.3, [0.0448, 0.2856]),
    (3, 5, 4): (3, 0.3, [0.0448]),
    (28, 28): (11, 1.5, [0.0448, 0.2856]),
    (1, 50, 64): (11, 1.5, [0.0448, 0.2856, 0.3001]),
    (2, 14, 12, 15): (5, 0.6, [0.0448, 0.2856]),
}


def definition(x, mean, window, deviation, weights):
    """Wang et al. (2003), equations 1 to 7, by convolution with the whole window, per channel."""
    dims = max(x.dim() - 2, 2)
    convolve, pool = ((F.conv2d, F.avg_pool2d), (F.conv3d, F.avg_pool3d))[dims - 2]
    t = torch.arange(window, dtype=x.dtype) - window // 2
    offsets = torch.stack(torch.meshgrid(*[t] * dims, indexing="ij"))
    kernel = (-0.5 * offsets.square().sum(0) / deviation**2).exp()
    kernel = (kernel / kernel.sum())[None, None]
    result = torch.ones(len(x), dtype=x.dtype)
    for scale, weight in enumerate(weights):
        a, b = (i.reshape(-1, 1, *i.shape[-dims:]) for i in (x, mean))
        mu, nu = convolve(a, kernel), convolve(b, kernel)
        variances = [convolve(i**2, kernel) - m**2 for i, m in ((a, mu), (b, nu))]
        covariance = convolve(a * b, kernel) - mu * nu
        value = (2 * covariance + 0.03**2) / (sum(variances) + 0.03**2)
        if scale == len(weights) - 1:
            value = value * (2 * mu * nu + 0.01**2) / (mu**2 + nu**2 + 0.01**2)
        similarity = value.reshape(len(x), -1).mean(1)
        result = result * ((similarity + 1) / 2) ** (weight / sum(weights))
        x, mean = pool(x, 2), pool(mean, 2)
    return 1 - result


@pytest.mark.parametrize("shape", SCALES, ids=str)
def test_it_is_the_published_index_and_so_is_its_gradient(shape):
    x, other = images(shape).double(), images(shape, 1).double()
    distance = make_distance("ms_ssim", shape)
    for guess in (0.8 * x + 0.2 * other, 1 - x):
        guess.requires_grad_()
        value, expected = distance(x, guess), definition(x, guess, *SCALES[shape])
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
        slopes = [torch.autograd.grad(v.sum(), guess)[0] for v in (value, expected)]
        torch.testing.assert_close(*slopes, rtol=1e-8, atol=1e-10)
        single = distance(x.float(), guess.detach().float())
        assert single.dtype == torch.float32
        torch.testing.assert_close(single, expected.detach().float(), rtol=1e-4, atol=5e-5)


def test_mixed_precision_leaves_it_as_it_is():
    x, guess = images((28, 28)), images((28, 28)).bfloat16()
    distance = make_distance("ms_ssim", (28, 28))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = distance(x, guess)
    assert torch.equal(mixed, distance(x, guess.float()))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_a_distance_of_images_of_any_size(shape):
    distance = make_distance("ms_ssim", shape)
    x, other = images(shape), images(shape, 1)
    torch.testing.assert_close(distance(x, x), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(distance(x, other), distance(other, x))
    near, far = distance(x, 0.9 * x + 0.1 * other), distance(x, other)
    assert (near > 1e-4).all()
    assert (near < far).all()
    assert (far < 1.0).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_its_gradient_is_finite_even_for_flat_images(shape):
    distance = make_distance("ms_ssim", shape)
    for x in (torch.zeros(2, *shape), images(shape)[:2]):
        guess = torch.full_like(x, 0.5).requires_grad_()
        distance(x, guess).sum().backward()
        assert torch.isfinite(guess.grad).all()
    guess = images(shape).requires_grad_()
    distance(guess.detach(), guess).sum().backward()
    assert guess.grad.abs().max() < 1e-3


@pytest.mark.parametrize("shape", [(5,), (2, 8), (3, 2, 8)])
def test_what_is_no_image_is_refused(shape):
    with pytest.raises(ConfigurationError, match=r"distance='ms_ssim' expects images"):
        MSSSIMVAE(shape, 2)


class Edges(nn.Module):
    """A distance of one's own: between horizontal differences."""

    def forward(self, x, mean):
        return (x.diff(dim=-1) - mean.diff(dim=-1)).square().flatten(1).sum(1)


def test_any_distance(digits):
    edges, l2 = (
        MSSSIMVAE((8, 8), 2, distance=d, weight=2.0, encoder=SMALL, decoder=SMALL)
        for d in (Edges(), "l2")
    )
    torch.manual_seed(0)
    flat = digits * 0 + digits.mean()
    assert edges.distance(digits, digits + 0.3).abs().max() < 1e-9
    assert (edges.distance(digits, flat) > 0.1).all()
    torch.testing.assert_close(
        l2.distance(digits, flat), 2.0 * (digits - flat).square().flatten(1).sum(1)
    )
    assert isinstance(edges.config()["distance"], Edges)
    with pytest.raises(ConfigurationError, match="distance='ms_sim' is not known.*mean 'ms_ssim'"):
        MSSSIMVAE((8, 8), 2, distance="ms_sim")


def test_the_scale_follows_by_maximum_likelihood_and_moves_nothing_else(digits):
    model = MSSSIMVAE((8, 8), 2, distance="l2", weight=1.0, encoder=SMALL, decoder=SMALL)
    assert [len(g) for g in model.optimization_groups().values()][-1] == 1
    fit(model, digits, epochs=400, batch_size=64, learning_rate=1e-2, seed=0, progress=False)
    model.eval()
    z = model.posterior(digits).rsample()
    residual = (model.decode(z) - digits).square().mean().sqrt()
    assert model.observation_model.scale.item() == pytest.approx(residual.item(), rel=0.1)
    fixed = MSSSIMVAE(
        (8, 8), 2, distance="l2", likelihood="bernoulli", encoder=SMALL, decoder=SMALL
    )
    assert set(fixed.optimization_groups()) == {"model"}
    assert set(fixed.loss(digits).objectives) == {"model"}


# --- VAEGAN ---------------------------------------------------------------------------------------


def vaegan(**options):
    torch.manual_seed(0)
    body = {"name": "mlp", "hidden": [16, 8]}
    return VAEGAN((8, 8), 2, encoder=SMALL, decoder=SMALL, discriminator=body, **options)


def test_the_distance_is_in_the_features_of_a_layer(digits):
    other = digits.flip(0)
    for layer, width in ((1, 16), (2, 8), (None, 16)):
        model = vaegan(layer=layer)
        features = model.discriminator.features(digits, layer or 1)
        assert features.shape == (64, width)
        expected = features - model.discriminator.features(other, layer or 1)
        expected = 0.5 * expected.square().sum(1)
        torch.testing.assert_close(model.distance(digits, other), expected)
    with pytest.raises(ConfigurationError, match="layer=3: expected an integer .* at most 2"):
        vaegan(layer=3)


def test_without_a_layer_the_features_are_those_of_the_first(digits):
    model = VAEGAN((8, 8), 2, encoder=SMALL, decoder=SMALL)  # a convolution for images
    assert model.discriminator.features(digits, model.layer).shape == (64, 32, 4, 4)
    assert model.distance(digits, digits.flip(0)).shape == (64,)
    model = VAEGAN((64,), 2, encoder=SMALL, decoder=SMALL)  # a perceptron for vectors
    assert model.discriminator.features(digits.flatten(1), model.layer).ndim == 2
    model = VAEGAN((8, 8), 2, encoder=SMALL, decoder=SMALL, discriminator=NoSequence())
    expected = 0.5 * (NoSequence.map(digits) - NoSequence.map(1.0 - digits)).square().sum(1)
    torch.testing.assert_close(model.distance(digits, 1.0 - digits), expected)


class NoSequence(nn.Module):
    """A body whose layers cannot be told apart."""

    @staticmethod
    def map(x):
        return torch.cat([x.flatten(1), x.flatten(1).square()], 1)

    def forward(self, x):
        return self.map(x)


def test_each_player_gets_its_own_objective(digits):
    def objectives(weight):
        model = vaegan(adversarial_weight=weight, feature_scale=1.0)
        torch.manual_seed(1)
        return model.loss(digits)

    losses = objectives(0.0)
    torch.testing.assert_close(losses.objectives["decoder"], losses.terms["features"])
    losses = objectives(1.0)
    torch.testing.assert_close(losses.objectives["decoder"], losses.terms["deception"])
    half = objectives(0.5)
    torch.testing.assert_close(
        half.objectives["decoder"], 0.5 * (half.terms["features"] + half.terms["deception"])
    )
    torch.testing.assert_close(half.objectives["model"], half.terms["features"] + half.terms["kl"])
    groups = vaegan().optimization_groups()
    assert set(groups) == {"model", "decoder", "discriminator", "likelihood"}


@pytest.mark.parametrize("weighted", [False, True])
def test_the_learned_scale_of_features_is_the_best_one(digits, weighted):
    weight = torch.rand(64, generator=torch.Generator().manual_seed(0)) if weighted else None

    def fit(scale):
        model = vaegan(adversarial_weight=0.0, feature_scale=scale)
        torch.manual_seed(1)
        losses = model.loss(digits, weight=weight)
        return losses.objectives["decoder"].item(), losses.terms["features"].item()

    learned, features = fit("learned")
    share = 1.0 if weight is None else weight.mean().item()
    best = (2.0 * features / (16 * share)) ** 0.5
    constant = 0.5 * 16 * share  # the squares, divided by their own mean
    assert learned + constant == pytest.approx(fit(best)[0], rel=1e-5)
    assert all(fit(other * best)[0] > learned + constant for other in (0.5, 0.9, 1.1, 2.0))


def test_the_unit_of_features_does_not_matter_if_their_scale_is_learned(digits):
    def gradient(unit):
        model = vaegan()
        with torch.no_grad():
            for parameter in model.discriminator.body[1].parameters():
                parameter *= unit
        torch.manual_seed(1)
        objective = model.loss(digits).objectives["model"]
        return torch.autograd.grad(objective, list(model.encoder.parameters()))

    for a, b in zip(gradient(1.0), gradient(1e-3), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_equal_features_and_weights_of_zero_have_finite_objectives(digits):
    model = vaegan()
    zeros = torch.zeros(64)
    assert all(v.isfinite() for v in model.loss(digits, weight=zeros).objectives.values())
    with torch.no_grad():
        for parameter in model.discriminator.body.parameters():
            parameter.zero_()
    losses = model.loss(digits)
    gradients = torch.autograd.grad(losses.objectives["model"], list(model.encoder.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), "fitted", None])
def test_other_scales_of_features_are_refused(scale):
    with pytest.raises(ConfigurationError, match="feature_scale="):
        vaegan(feature_scale=scale)


@pytest.mark.parametrize(
    ("margin", "certainty", "learns"), [(0.3, 0.0, True), (0.3, 50.0, False), (0.7, 50.0, True)]
)
def test_a_discriminator_that_is_right_enough_rests(digits, margin, certainty, learns):
    # It looks at the mean of an image. All fakes are black.
    model = vaegan(margin=margin)
    with torch.no_grad():
        for parameter in [*model.decoder.parameters(), *model.discriminator.parameters()]:
            parameter.zero_()
        assert not model.decode(torch.zeros(1, 2)).any()
        darkest = digits.mean((1, 2)).min().item()
        first, second = (m for m in model.discriminator.body if isinstance(m, nn.Linear))
        first.weight[0] = 1.0 / 64
        second.weight[0, 0] = 1.0
        model.discriminator.head.weight[0, 0] = 2.0 * certainty / darkest
        model.discriminator.head.bias[0] = -certainty
    verdict = model.loss(digits).objectives["discriminator"]
    assert (verdict.item() < 1e-6) == (certainty > 0.0)
    head = model.discriminator.head.weight
    (gradient,) = torch.autograd.grad(verdict, [head], allow_unused=True)
    if certainty == 0.0:
        assert verdict.item() == pytest.approx(math.log(2.0))
    assert (gradient is not None and bool(gradient.any())) == learns


def test_a_perfect_discriminator_says_how_far_the_fakes_are(digits):
    # One that answers "real" to all has the cross-entropy log 2 on a coin's toss.
    model = vaegan()
    with torch.no_grad():
        model.discriminator.head.weight.zero_()
        model.discriminator.head.bias.zero_()
    losses = model.loss(digits)
    assert losses.objectives["discriminator"].item() == pytest.approx(
        torch.tensor(2.0).log().item()
    )
