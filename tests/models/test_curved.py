"""Models with latents on a sphere and in a ball."""

import math

import pytest
import torch
from scipy import special

from chartae.errors import ConfigurationError, DataError
from chartae.geometry import PoincareMetric
from chartae.models.poincare import PoincareVAE
from chartae.models.svae import SVAE

SMALL = {"name": "mlp", "hidden": [8]}
POINCARE = [
    {"curvature": 1.0, "posterior": "wrapped"},
    {"curvature": 0.4, "posterior": "riemannian"},
]


def build(model_class, latent_dim=2, **options):
    torch.manual_seed(0)
    model = model_class((3,), latent_dim, encoder=SMALL, decoder=SMALL, **options)
    with torch.no_grad():  # a decoder to whom the latent matters
        for parameter in model.decoder.parameters():
            parameter.mul_(2.0)
    return model.double().eval()


def circle(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    angle = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
    points = torch.stack([angle.cos(), angle.sin()], -1)
    return points, torch.full((n,), 2 * math.pi / n, dtype=torch.float64)


def disc(c: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of the ball, and how much Riemannian volume each stands for."""
    node, weight = map(torch.as_tensor, special.roots_legendre(80))
    limit = 1 / math.sqrt(c)
    radius, weight = 0.5 * limit * (node + 1.0), 0.5 * limit * weight
    directions, angles = circle(128)
    z = radius[:, None, None] * directions
    area = weight[:, None] * radius[:, None] * angles * PoincareMetric(2, c).log_volume(z).exp()
    return z.reshape(-1, 2), area.reshape(-1)


def quadrature(model, x, z, weights):
    joint = model.likelihood(z[:, None]).log_prob(x) + model.prior().log_prob(z)[:, None]
    return (joint + weights.log()[:, None]).logsumexp(0)


def test_svae_log_likelihood_against_quadrature():
    model = build(SVAE)
    x = torch.rand(5, 3, dtype=torch.float64)
    z, weights = circle(400)
    with torch.no_grad():
        expected = quadrature(model, x, z, weights)
        torch.manual_seed(0)
        torch.testing.assert_close(model.log_likelihood(x, 40_000), expected, atol=0.03, rtol=0)
        assert (model.elbo(x, 2000) < expected + 0.03).all()


@pytest.mark.slow
@pytest.mark.parametrize("options", POINCARE, ids=str)
def test_poincare_log_likelihood_against_quadrature(options):
    model = build(PoincareVAE, **options)
    torch.nn.init.constant_(model.posterior_head.linear.bias, 1.0)  # wider than the prior
    x = torch.rand(5, 3, dtype=torch.float64)
    z, weights = disc(options["curvature"])
    with torch.no_grad():
        expected = quadrature(model, x, z, weights)
        mass = (model.prior().log_prob(z).exp() * weights).sum()
        assert mass.item() == pytest.approx(1.0, abs=1e-3)
        torch.manual_seed(0)
        torch.testing.assert_close(model.log_likelihood(x, 60_000), expected, atol=0.05, rtol=0)
        assert (model.elbo(x, 2000) < expected + 0.05).all()


def test_svae_loss_has_the_divergence_of_the_samples():
    model = build(SVAE, 4)
    x = torch.rand(6, 3, dtype=torch.float64)
    with torch.no_grad():
        torch.manual_seed(0)
        _, divergence = model.log_weight_terms(x, 4000)
        assert model.loss(x).terms["kl"].item() == pytest.approx(
            -divergence.mean().item(), abs=0.03
        )


def test_training_finds_the_circle():
    # Points of a circle, whose angle a latent on a circle gives without a break.
    angles = 2 * math.pi * torch.rand(256, generator=torch.Generator().manual_seed(0))
    x = torch.stack([angles.cos(), angles.sin(), torch.zeros(256)], -1)
    torch.manual_seed(0)
    model = SVAE(
        (3,), 2, encoder=SMALL, decoder=SMALL, likelihood={"name": "gaussian", "scale": 0.1}
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(x).objectives["model"].backward()
        optimizer.step()
    z = model.encode(x).detach()
    turns = torch.atan2(z[:, 1], z[:, 0])
    # Up to reflection and rotation the two angles agree.
    phases = [torch.polar(torch.ones(256), turns - sign * angles).mean().abs() for sign in (1, -1)]
    assert max(phases) > 0.95


@pytest.mark.parametrize(
    ("model_class", "z", "message"),
    [
        (SVAE, [[1.0, 0.0], [0.5, 0.0]], "z has points of norm 0.5 to 1: .* on the unit sphere"),
        (SVAE, [[2.0, 0.0]], "z has points of norm 2 to 2"),
        (PoincareVAE, [[0.9, 0.0], [0.8, 0.6001]], "norm up to 1.00.*: .* the ball of radius 1"),
    ],
)
def test_latents_of_another_space_are_refused(model_class, z, message):
    model = model_class((3,), 2, encoder=SMALL, decoder=SMALL)
    with pytest.raises(DataError, match=message):
        model.decode(torch.tensor(z))


def test_a_ball_too_deep_for_float32_is_said(caplog):
    for options, warned in [
        ({"latent_dim": 50, "posterior": "riemannian"}, True),
        ({"latent_dim": 50, "posterior": "riemannian", "curvature": 0.1}, False),
        ({"latent_dim": 50}, False),
        ({"latent_dim": 50, "curvature": 9.0}, True),
    ]:
        caplog.clear()
        PoincareVAE((3,), encoder=SMALL, decoder=SMALL, **options)
        assert ("use a smaller curvature, or float64" in caplog.text) == warned


def test_bad_arguments_are_refused():
    with pytest.raises(ConfigurationError, match="latent_dim=1: expected an integer at least 2"):
        SVAE((3,), 1)
    with pytest.raises(ConfigurationError, match="curvature=0: expected .* greater than 0"):
        PoincareVAE((3,), 2, curvature=0)
    with pytest.raises(ConfigurationError, match="posterior='wraped' is not known.*'wrapped'"):
        PoincareVAE((3,), 2, posterior="wraped")
