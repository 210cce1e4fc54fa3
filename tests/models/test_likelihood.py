"""log p(x), its bounds and its estimate, against exact values (MATH.md section 1)."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.models.conftest import EUCLIDEAN, batch_of, conditions_of, each_case_of
from torch import nn
from torch.distributions import MultivariateNormal

from chartae.models import IWAE, VAE, BetaVAE


def inverse_softplus(y: torch.Tensor) -> torch.Tensor:
    return torch.log(torch.expm1(y))


# --- a linear Gaussian model: probabilistic PCA -------------------------------------------------

NOISE = 0.5


def ppca(make, *, orthogonal, misfit):
    """A model with x = W z + b + noise, a linear posterior, and the exact law of x."""
    torch.manual_seed(0)
    weights, bias = torch.randn(6, 2).double(), torch.randn(6).double()
    if orthogonal:
        weights = torch.linalg.qr(weights).Q * torch.tensor([2.0, 0.7])
    networks = {"encoder": nn.Flatten(), "decoder": nn.Linear(2, 6)}
    model = make((6,), 2, **networks, likelihood={"name": "gaussian", "scale": NOISE})
    model = model.double().eval()
    # q(z|x) = N(M^-1 W^T (x - b), sigma^2 M^-1), M = W^T W + sigma^2 I (Tipping and Bishop, 1999).
    inverse = torch.linalg.inv(weights.mT @ weights + NOISE**2 * torch.eye(2))
    scale = (1 + 3 * misfit) * NOISE * inverse.diag().sqrt()
    head, slope = model.posterior_head, inverse @ weights.mT
    with torch.no_grad():
        model.decoder.weight.copy_(weights)
        model.decoder.bias.copy_(bias)
        head.linear.weight.zero_()
        head.linear.weight[:2] = slope
        head.linear.bias[:2] = -slope @ bias + misfit
        head.linear.bias[2:] = inverse_softplus(scale - head.floor)
    law = MultivariateNormal(bias, weights @ weights.mT + NOISE**2 * torch.eye(6))
    return model, law


def test_with_the_exact_posterior_every_weight_is_the_likelihood():
    for model_class in (VAE, BetaVAE, IWAE):
        model, law = ppca(model_class, orthogonal=True, misfit=0.0)
        x = law.sample((20,))
        expected = law.log_prob(x)
        torch.testing.assert_close(model.log_weights(x, 5), expected.expand(5, 20))
        torch.testing.assert_close(model.elbo(x), expected)
        torch.testing.assert_close(model.log_likelihood(x, 3), expected)
        if model_class is not BetaVAE:
            # The bound is tight: its gradient in the decoder is that of log p(x).
            many = x.repeat(1000, 1)
            loss = model.loss(many).objectives["model"]
            assert loss.item() == pytest.approx(-expected.mean().item(), abs=0.05)


def test_linear_gaussian_likelihood_with_a_posterior_that_is_off(make_gaussian):
    options = {}
    if "metric_network" in make_gaussian().config():
        options["metric_network"] = nn.Flatten()
    model, law = ppca(
        lambda *shape, **networks: make_gaussian(*shape, **networks, **options),
        orthogonal=False,
        misfit=0.1,
    )
    torch.manual_seed(1)
    x = law.sample((10,))
    model.on_fit_end([batch_of(model, x)])
    expected = law.log_prob(x)
    estimate = model.log_likelihood(x, 10000)
    torch.testing.assert_close(estimate, expected, atol=0.05, rtol=0)
    assert (model.elbo(x, 500) < expected).all()


# --- any model in two dimensions ----------------------------------------------------------------


def quadrature(model, x, seen=slice(None)):
    """log p of the features that are seen, by a sum over a grid of latents, exact to 0.003."""
    ticks = torch.linspace(-7, 7, 71, dtype=x.dtype)
    grid = torch.cartesian_prod(ticks, ticks)
    y = conditions_of(model, len(x))
    with torch.no_grad():
        points = grid[:, None].expand(-1, len(x), -1)
        terms = model.likelihood(points, y).base_dist.log_prob(x)[..., seen]
        log_joint = terms.sum(-1) + model.prior(y).log_prob(points)
    return log_joint.logsumexp(0) + 2 * math.log(0.2)


def two_dimensional(make_euclidean, likelihood="gaussian", *, fitted=True):
    model = make_euclidean((5,), 2, dtype=torch.float64, likelihood=likelihood)
    # A decoder that bends, and a posterior wider than the true one.
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.mul_(2.0)
        model.posterior_head.linear.bias.fill_(0.8)
        if getattr(model, "prior_head", None) is not None:
            model.prior_head.linear.weight.mul_(0.3)
    x = torch.rand(4, 5, generator=torch.Generator().manual_seed(2)).double()
    x = x.round() if likelihood == "bernoulli" else x
    if fitted:
        model.on_fit_end([batch_of(model, x)])
    return model.eval(), x


# Each model with one likelihood; each likelihood with the base, and with a flow along its gradient;
# and the models that a training leaves with a metric also without it.
AGAINST_QUADRATURE = [
    *((name, "gaussian", True) for name in EUCLIDEAN),
    *((name, other, True) for name in ("VAE", "HVAE") for other in ("bernoulli", "laplace")),
    *((name, "gaussian", False) for name in ("RHVAE", "RHVAE posterior")),
]


@pytest.mark.parametrize(
    ("make_euclidean", "likelihood", "fitted"), AGAINST_QUADRATURE, indirect=["make_euclidean"]
)
def test_log_likelihood_against_quadrature(make_euclidean, likelihood, fitted):
    model, x = two_dimensional(make_euclidean, likelihood, fitted=fitted)
    torch.manual_seed(0)
    estimate = model.log_likelihood(x, 20000, y=conditions_of(model, 4))
    torch.testing.assert_close(estimate, quadrature(model, x), atol=0.07, rtol=0)


def test_a_mask_marginalises(make_euclidean):
    # For independent noise, masking features is integrating them out.
    model, x = two_dimensional(make_euclidean)
    mask = torch.tensor([True, False, True, True, False]).expand(4, 5)
    y = conditions_of(model, 4)
    part = model.likelihood(torch.zeros(4, 2).double(), y).base_dist.scale  # a scalar scale
    assert part.unique().numel() == 1
    torch.manual_seed(0)
    estimate = model.log_likelihood(x, 20000, y=y, mask=mask)
    expected = quadrature(model, x, mask[0])
    torch.testing.assert_close(estimate, expected, atol=0.07, rtol=0)


def repeated(model, x, times):
    """x and its conditions, repeated."""
    y = conditions_of(model, len(x))
    return x.repeat(times, 1), None if y is None else y.repeat(times, *[1] * (y.dim() - 1))


def test_bounds_are_in_order(make_euclidean):
    model, x = two_dimensional(make_euclidean)
    torch.manual_seed(0)
    with torch.no_grad():
        bounds = [model.elbo(x, 4000, y=conditions_of(model, 4))]
    for samples in (3, 20):
        many, y = repeated(model, x, 3000 // samples)
        bounds.append(model.log_likelihood(many, samples, y=y).reshape(-1, 4).mean(0))
    exact = quadrature(model, x)
    for lower, upper in zip(bounds, [*bounds[1:], exact], strict=True):
        assert (lower < upper).all()
    assert ((exact - bounds[0]) > 3 * (exact - bounds[2])).all()


BOUNDS = {
    # Whose loss is minus the ELBO, or the bound of the IWAE.
    "VAE", "BetaVAE", "IWAE", "HVAE", "RHVAE", "RHVAE posterior", "VAMP", "MixtureVAE",
    "PlanarFlowVAE", "IAFVAE", "CVAE", "CVAE learned prior",
}  # fmt: skip


def test_the_loss_is_minus_its_bound(make_euclidean):
    if make_euclidean.args[0] not in BOUNDS:
        pytest.skip("another objective, with its own tests")
    model, x = two_dimensional(make_euclidean)
    many, y = repeated(model, x, 1000)  # the loss is a mean over the batch: of 4000 draws here
    with torch.no_grad():
        torch.manual_seed(0)
        losses = [model.loss(many, y=y) for _ in range(20)]
        torch.manual_seed(1)
        if isinstance(model, IWAE):
            bounds = model.log_likelihood(x.repeat(10000, 1), model.num_samples).reshape(20, -1)
        else:
            bounds = model.log_weights(x, 20000, y=conditions_of(model, 4)).reshape(20, -1)
    bounds = bounds.mean(1)
    mean = {
        name: torch.stack([one.terms[name] for one in losses]).mean() for name in losses[0].terms
    }
    objectives = torch.stack([one.objectives["model"] for one in losses])
    error = (objectives.var() / len(objectives) + bounds.var() / len(bounds)).sqrt().item()
    assert error < 0.1
    loss, bound = objectives.mean(), bounds.mean()
    if isinstance(model, BetaVAE):
        torch.testing.assert_close(loss, mean["reconstruction"] + model.beta * mean["kl"])
        loss = loss - (model.beta - 1) * mean["kl"]
    assert loss.item() == pytest.approx(-bound.item(), abs=4 * error)
    if not isinstance(model, IWAE):
        assert loss.item() == pytest.approx((mean["reconstruction"] + mean["kl"]).item(), abs=1e-9)


# --- memory -------------------------------------------------------------------------------------


class Recorder:
    """How many latents each call of a decoder gets."""

    def __init__(self, model):
        self.rows = []
        model.decoder.register_forward_hook(lambda _, inputs, __: self.rows.append(len(inputs[0])))


@each_case_of(
    {"7": (7, 100), "1": (1, 50), "64": (64, 1500)},
    ["max_batch", "samples"],
    fixture="make_euclidean",
    models=EUCLIDEAN,
)
def test_pieces_are_bounded_and_the_estimate_is_the_same(make_euclidean, max_batch, samples):
    model, x = two_dimensional(make_euclidean)
    recorder = Recorder(model)
    torch.manual_seed(0)
    y = conditions_of(model, 4)
    estimate = model.log_likelihood(x, samples, y=y, max_batch=max_batch)
    assert max(recorder.rows) <= max_batch
    assert sum(recorder.rows) % (4 * samples) == 0  # no latent more than asked for
    log_weights = model.log_weights(x, 3000, y=y)
    ratio = (log_weights - log_weights.logsumexp(0) + math.log(3000)).exp()
    tolerance = 5 * ratio.std(0) / samples**0.5
    assert ((estimate - quadrature(model, x)).abs() < tolerance).all()


@each_case_of(
    {
        "many samples": (28, 2, 3000),
        "more samples": (28, 2, 9000),
        "many points": (28, 40, 500),
        "large images": (64, 2, 1200),
    },
    ["side", "points", "samples"],
    fixture="make_euclidean",
    models=EUCLIDEAN,
)
def test_memory_does_not_grow_with_what_is_asked(make_euclidean, side, points, samples):
    model = make_euclidean((side, side), 2).eval()
    recorder = Recorder(model)
    model.log_likelihood(torch.rand(points, side, side), samples, y=conditions_of(model, points))
    assert max(recorder.rows) <= 2**22 // max(1024, side**2)


@given(
    points=st.integers(1, 9), samples=st.integers(1, 9), max_batch=st.none() | st.integers(1, 100)
)
def test_every_split_averages_every_weight_once(points, samples, max_batch):
    class Counting(VAE):
        def log_weights(self, x, num_samples=1, *, mask=None):
            assert (mask[:, 0] == (x[:, 0] > 0.5)).all()
            drawn = torch.arange(self.count, self.count + num_samples) % samples
            self.count += num_samples
            return torch.log(1.0 + drawn[:, None] + x[:, 0])

    model = Counting((1,), 1)
    model.count = 0
    x = torch.linspace(0, 1, points)[:, None]
    result = model.log_likelihood(x, samples, mask=x > 0.5, max_batch=max_batch)
    expected = torch.log(1.0 + (samples - 1) / 2 + x[:, 0])
    torch.testing.assert_close(result, expected)
