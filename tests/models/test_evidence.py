"""Evidence is never above the largest density that the likelihood can give, whatever the model."""

import math

import pytest
import torch
from tests.models.conftest import (
    SMALL,
    VARIATIONAL,
    batch_of,
    conditions_of,
    each_case_of,
    has_posterior,
)

from chartae import fit, models
from chartae.errors import DivergenceError
from chartae.models import MSSSIMVAE

COUNT = 24


def data(likelihood: str, scale: float, dtype: torch.dtype) -> torch.Tensor:
    x = torch.rand(COUNT, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    match likelihood:
        case "gaussian" | "laplace":
            return scale * x
        case "bernoulli":
            return x.round()
        case "categorical":
            return torch.eye(6, dtype=dtype)[x.argmax(-1)]
        case "negative_binomial":
            return (10 * scale * x).round()
    return ((255 * x).round() / 255).clamp(1 / 255, 254 / 255)


def highest(model, x: torch.Tensor) -> torch.Tensor:
    """Largest log p(x|z) of any decoder's output: with the location at x, and the present scale."""
    likelihood = model.observation_model
    match type(likelihood).__name__:
        case "GaussianLikelihood":
            each = -likelihood.scale.log() - 0.5 * math.log(2 * math.pi)
        case "LaplaceLikelihood":
            each = -likelihood.scale.log() - math.log(2)
        case "ContinuousBernoulliLikelihood":
            # The best logit of each value, on a grid: the density is smooth away from 0 and 1.
            logit = torch.linspace(-500, 500, 20001).double()[:, None, None]
            return likelihood(logit).base_dist.log_prob(x.double()).amax(0).sum(-1) + 1e-3
        case _:  # probabilities
            return torch.zeros(len(x), dtype=x.dtype)
    return each.detach().expand(x.shape).flatten(1).sum(-1)


def assert_possible(model, x):
    y = conditions_of(model, len(x))
    bound = highest(model, x)
    slack = 1e-2 + 1e-5 * bound.abs()
    assert (model.log_likelihood(x, 100, y=y, seed=0) <= bound + slack).all()
    # The mean of log weights is NaN where the path of one overflowed: no evidence either.
    assert not (model.elbo(x, 30, y=y, seed=0) > bound + slack).any()


EVERY_LIKELIHOOD = [
    "gaussian",
    "laplace",
    "bernoulli",
    "continuous_bernoulli",
    "discretized_logistic",
    "categorical",
    "negative_binomial",
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [30.0, 1e3])
def test_wild_posteriors_make_no_evidence(make_variational, size, dtype):
    """A training that goes astray, in one step: all parameters of the posterior times a number."""
    x = data("gaussian", 1.0, dtype)
    model = make_variational((6,), 2, dtype=dtype).eval()
    with torch.no_grad():
        for parameter in model.posterior_head.parameters():
            parameter.mul_(size)
    model.on_fit_end([batch_of(model, x)])
    assert_possible(model, x)


@pytest.mark.parametrize("likelihood", EVERY_LIKELIHOOD)
@pytest.mark.parametrize("name", ["VAE", "SVAE", "PoincareVAE", "IAFVAE", "VAMP", "HVAE"])
def test_no_likelihood_is_passed(name, likelihood):
    x = data(likelihood, 100.0, torch.float32)
    torch.manual_seed(0)
    model = getattr(models, name)((6,), 2, encoder=SMALL, decoder=SMALL, likelihood=likelihood)
    fit(model, x, epochs=5, batch_size=8, learning_rate=3e-2, seed=0, progress=False)
    assert_possible(model, x)


@each_case_of(
    {"10000": (1e4, 1e-1, 2), "100": (100.0, 1e-3, 1), "10": (10.0, 1e-2, 0)},
    ["scale", "learning_rate", "seed"],
    fixture="make_variational",
    models=VARIATIONAL,
)
def test_training_on_data_of_any_scale_gives_possible_evidence(
    make_variational, scale, learning_rate, seed
):
    x = data("gaussian", scale, torch.float32)
    model = make_variational((6,), 2, seed=seed)
    y = conditions_of(model, len(x))
    options = {"epochs": 11, "batch_size": 8, "learning_rate": learning_rate, "seed": seed}
    try:
        fit(model, x if y is None else (x, y), **options, progress=False)
    except DivergenceError:
        return  # said, and not kept
    assert_possible(model, x)


@pytest.mark.parametrize(
    ("scale", "learning_rate", "posterior"),
    [
        (10.0, 1e-2, "wrapped"),
        (100.0, 1e-3, "riemannian"),
        pytest.param(10.0, 1e-2, "riemannian", marks=pytest.mark.slow),
        pytest.param(100.0, 1e-3, "wrapped", marks=pytest.mark.slow),
    ],
)
def test_evidence_of_the_ball_after_a_training_that_found_the_rim(scale, learning_rate, posterior):
    x = data("gaussian", scale, torch.float32)
    torch.manual_seed(2)
    model = models.PoincareVAE((6,), 2, posterior=posterior)
    fit(model, x, epochs=100, learning_rate=learning_rate, seed=2, progress=False)
    assert_possible(model, x)


def test_objectives_are_no_lower_than_their_terms_can_be(make):
    """The reconstruction is minus a log density, or a distance; objectives average above that."""
    model = make((8, 8), 2).train()
    if not has_posterior(model):
        pytest.skip("has no likelihood in its objective")
    x = torch.rand(16, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    losses = [model.loss(**batch_of(model, x)) for _ in range(20)]
    reconstruction = torch.stack([loss.terms["reconstruction"] for loss in losses]).detach()
    floor = 0.0 if isinstance(model, MSSSIMVAE) else -float(highest(model, x)[0])
    assert (reconstruction >= floor - 1e-3).all()
    if not isinstance(model, models.VAEGAN):  # it compares features, and keeps no such bound
        objectives = torch.stack([loss.objectives["model"] for loss in losses]).detach()
        assert float(objectives.mean()) >= floor
