"""The Hamiltonian flows: volume, reversibility, energy, gradients (MATH.md section 3)."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from scipy import stats
from tests.models.conftest import build
from torch import nn
from torch.distributions import MultivariateNormal

import chartae
from chartae.errors import ConfigurationError

CONVERGED = 16
X = torch.rand(4, 5, generator=torch.Generator().manual_seed(0)).double()


def smooth(sizes):
    layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.Tanh())]
    return nn.Sequential(*layers[:-1])


def hamiltonian_model(make_hamiltonian, latent_dim=2, **options):
    """A smooth model whose metric and forces are strong enough to matter."""
    torch.manual_seed(1)
    options = {"encoder": smooth([5, 8]), "decoder": smooth([latent_dim, 8, 5]), **options}
    implicit = "fixed_point_steps" in make_hamiltonian().config()
    if implicit:
        options = {"metric_network": smooth([5, 8]), "fixed_point_steps": CONVERGED, **options}
    else:
        options.pop("fixed_point_steps", None)
    model = make_hamiltonian(
        (5,), latent_dim, dtype=torch.float64,
        likelihood={"name": "gaussian", "scale": 0.4}, **options,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.mul_(1.5)
        for parameter in (getattr(model, "metric_network", None) or nn.Identity()).parameters():
            parameter.mul_(5.0)  # matrices that are far from round
    model.on_fit_end([{"x": X}])
    return model.eval()


def flow(model, x, z, momentum):
    """(z_K, v_K) from (z_0, gamma)."""
    z, momentum, fit = model.flow(x, z, momentum)
    torch.testing.assert_close(fit, model.likelihood(z).log_prob(x))
    return z, momentum


def energy(model, x, z, momentum):
    """H(z, v) = -log p(x, z) - log N(v; 0, G(z))."""
    log_joint = model.likelihood(z).log_prob(x) + model.prior().log_prob(z)
    if hasattr(model, "metric"):
        kinetic = model.metric.hamiltonian(z, momentum) + model.metric.log_volume(z)
    else:
        kinetic = 0.5 * momentum.square().sum(-1)
    return kinetic - log_joint


def start(latent_dim=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 4, latent_dim, generator=generator, dtype=torch.float64) * 0.8


def log_determinants(model, latent_dim):
    """log |det| of the Jacobian of (z_0, gamma) -> (z_K, v_K) at each of four points."""
    z, momentum = start(latent_dim)

    def single(point, x):
        z0, gamma = point.split(latent_dim)
        return torch.cat(flow(model, x[None], z0[None], gamma[None]), -1)[0]

    points = torch.cat([z, momentum], -1)
    return torch.stack(
        [
            torch.autograd.functional.jacobian(lambda p, x=x: single(p, x), point).slogdet()[1]
            for point, x in zip(points, X, strict=True)
        ]
    )


@pytest.mark.parametrize(
    ("latent_dim", "sqrt_beta_0", "num_leapfrog"),
    [(1, 0.4, 4), (2, 1.0, 1), (2, 0.4, 4), (3, 0.4, 1)],
)
def test_the_flow_preserves_volume(make_hamiltonian, latent_dim, sqrt_beta_0, num_leapfrog):
    # With tempering, the factors of the start and of the coolings cancel.
    options = {"sqrt_beta_0": sqrt_beta_0, "num_leapfrog": num_leapfrog, "step_size": 0.1}
    model = hamiltonian_model(make_hamiltonian, latent_dim, **options)
    assert log_determinants(model, latent_dim).abs().max() < 1e-8
    z, momentum = start(latent_dim)
    moved, _ = flow(model, X, z, momentum)
    assert (moved - z).norm(dim=-1).min() > 1e-3  # and it does move


def test_the_flow_preserves_volume_on_a_metric_of_covariances():
    options = {"posterior_covariance": "full", "step_size": 0.1}
    model = hamiltonian_model(partial(build, "RHVAE posterior"), 2, **options)
    assert model.metric.variances.shape == (4, 2, 2)
    assert log_determinants(model, 2).abs().max() < 1e-8


@pytest.mark.parametrize("num_leapfrog", [1, 5])
def test_the_flow_is_reversible_without_tempering(make_hamiltonian, num_leapfrog):
    options = {"sqrt_beta_0": 1.0, "num_leapfrog": num_leapfrog, "step_size": 0.1}
    model = hamiltonian_model(make_hamiltonian, **options)
    z, momentum = start()
    there = flow(model, X, z, momentum)
    back = flow(model, X, there[0], -there[1])
    torch.testing.assert_close(back[0], z, atol=1e-9, rtol=0)
    torch.testing.assert_close(-back[1], momentum, atol=1e-9, rtol=0)


def test_the_energy_error_is_of_second_order(make_hamiltonian):
    z, momentum = start()
    errors = []
    for num_leapfrog in (8, 16, 32):
        model = hamiltonian_model(
            make_hamiltonian,
            sqrt_beta_0=1.0,
            num_leapfrog=num_leapfrog,
            step_size=0.8 / num_leapfrog,
        )
        before = energy(model, X, z, momentum)
        after = energy(model, X, *flow(model, X, z, momentum))
        errors.append((after - before).abs().mean().item())
    slope = math.log(errors[0] / errors[2]) / math.log(4)
    assert 1.7 < slope < 2.3
    assert 1e-9 < errors[2] < 1e-2


def test_tempering_rises_to_one(make_hamiltonian):
    model = make_hamiltonian(num_leapfrog=5, sqrt_beta_0=0.3)
    roots = model.tempering()
    assert len(roots) == 6
    assert roots[0] == pytest.approx(0.3)
    assert roots[-1] == pytest.approx(1.0)
    assert roots == sorted(roots)
    # MATH.md: ((1 - 1/sqrt(beta_0)) k^2/K^2 + 1/sqrt(beta_0))^-1
    assert roots[2] == pytest.approx(1 / ((1 - 1 / 0.3) * 4 / 25 + 1 / 0.3))


def numbers(roots):
    return [float(torch.as_tensor(root).detach()) for root in roots]


def test_a_learned_tempering_starts_where_it_was_given(make_hamiltonian, tmp_path):
    given = make_hamiltonian(num_leapfrog=5, sqrt_beta_0=0.3)
    model = make_hamiltonian(num_leapfrog=5, sqrt_beta_0=0.3, learn_beta_0=True)
    assert numbers(model.tempering()) == pytest.approx(given.tempering())
    for raw in (-30.0, 0.7, 30.0):
        model.raw_sqrt_beta_0.data.fill_(raw)
        roots = numbers(model.tempering())
        assert 0.0 < roots[0] <= 1.0
        assert roots == sorted(roots)
    model.save_pretrained(tmp_path)
    assert chartae.load(tmp_path).tempering() == model.tempering()
    with pytest.raises(ConfigurationError, match="sqrt_beta_0=1.0: expected a number below 1"):
        make_hamiltonian(sqrt_beta_0=1.0, learn_beta_0=True)


def test_training_learns_the_tempering(make_hamiltonian):
    # Shared start, same data: only the model that learns it moves it.
    x = torch.rand(20, 8, 8)
    roots = []
    for learn_beta_0 in (False, True):
        model = make_hamiltonian(sqrt_beta_0=0.3, learn_beta_0=learn_beta_0)
        chartae.fit(model, x, epochs=3, learning_rate=1e-2, seed=0, progress=False)
        roots.append(numbers(model.tempering())[0])
    assert roots[0] == pytest.approx(0.3)
    assert abs(roots[1] - 0.3) > 1e-3


@pytest.mark.parametrize("fixed_point_steps", [3, CONVERGED])
def test_gradient_of_the_whole_loss_against_finite_differences(make_hamiltonian, fixed_point_steps):
    # In training mode: through the encoder, the metric network, the momentum, the tempering and
    # the whole flow.
    model = hamiltonian_model(
        make_hamiltonian, fixed_point_steps=fixed_point_steps, step_size=0.1, learn_beta_0=True
    )
    model.train()
    parameters = list(model.parameters())

    def loss():
        torch.manual_seed(0)
        return model.loss(X).objectives["model"]

    gradients = torch.autograd.grad(loss(), parameters)
    step = 1e-5
    with torch.no_grad():
        for seed, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            generator = torch.Generator().manual_seed(seed)
            direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter += step * direction
            above = loss().item()
            parameter -= 2 * step * direction
            below = loss().item()
            parameter += step * direction
            expected = (above - below) / (2 * step)
            assert (gradient * direction).sum().item() == pytest.approx(
                expected, rel=1e-5, abs=1e-7
            )


def test_what_a_few_iterations_cost(make_hamiltonian):
    if "fixed_point_steps" not in make_hamiltonian().config():
        pytest.skip("an explicit flow iterates nothing")
    z, momentum = start()
    volume, reversal, drift = [], [], []
    reference = None
    for iterations in (CONVERGED, 1, 2, 3, 6):
        model = hamiltonian_model(
            make_hamiltonian, sqrt_beta_0=1.0, num_leapfrog=3, step_size=0.1,
            fixed_point_steps=iterations,
        )  # fmt: skip
        there = flow(model, X, z, momentum)
        back = flow(model, X, there[0], -there[1])
        if reference is None:
            reference = there
            continue
        volume.append(log_determinants(model, 2).abs().max().item())
        reversal.append((back[0] - z).norm(dim=-1).max().item())
        drift.append((there[0] - reference[0]).norm(dim=-1).max().item())
    for errors in (volume, reversal, drift):
        assert errors == sorted(errors, reverse=True)
        assert errors[0] > 1e-7  # one iteration is not exact
        assert errors[2] < errors[0] / 30
        assert errors[3] < errors[2] / 30
    assert volume[2] < 1e-3  # three: a thousandth of a nat, at ten times the thesis' step


def log_weights_and_flow(model, num_samples):
    """Return the weights, and what went into and came out of the flow."""
    seen = []
    name = "flow_on" if hasattr(model, "metric") else "flow"
    original = getattr(model, name)

    def spy(*arguments, **options):
        result = original(*arguments, **options)
        seen.extend([*arguments[-2:], *result[:2]])
        return result

    setattr(model, name, spy)
    torch.manual_seed(0)
    with torch.no_grad():
        weights = model.log_weights(X, num_samples)
    start, gamma, end, momentum = seen
    return weights, getattr(start, "z", start), gamma, getattr(end, "z", end), momentum


def momentum_law(model, z):
    tensor = model.metric.tensor(z) if hasattr(model, "metric") else torch.eye(z.shape[-1]).double()
    return MultivariateNormal(torch.zeros_like(z), covariance_matrix=tensor)


def test_weights_are_those_of_the_formula(make_hamiltonian):
    # log p(x|z_K) + log p(z_K) + log p(v_K|z_K) - log q(z_0|x) - log p(gamma|z_0)
    model = hamiltonian_model(make_hamiltonian, 2, step_size=0.1)
    weights, z0, gamma, z, momentum = log_weights_and_flow(model, 50)
    expected = (
        model.likelihood(z).log_prob(X)
        + model.prior().log_prob(z)
        + momentum_law(model, z).log_prob(momentum)
        - model.posterior(X).log_prob(z0)
        - momentum_law(model, z0).log_prob(gamma)
    )
    torch.testing.assert_close(weights, expected)


def test_momenta_follow_the_metric(make_hamiltonian):
    # gamma ~ N(0, G(z_0)): whitened by a root of G^-1, it is standard normal.
    model = hamiltonian_model(make_hamiltonian, 3)
    _, z, gamma, _, _ = log_weights_and_flow(model, 1000)
    if hasattr(model, "metric"):
        white = torch.linalg.cholesky(model.metric.inverse(z)).mT @ gamma[..., None]
        white = white[..., 0]
    else:
        white = gamma
    assert stats.kstest(white.square().sum(-1).flatten().numpy(), stats.chi2(3).cdf).pvalue > 1e-3
    covariance = torch.cov(white.flatten(0, 1).mT)
    torch.testing.assert_close(covariance, torch.eye(3).double(), atol=0.08, rtol=0)


def test_no_gradient_is_needed_to_flow(make_hamiltonian):
    model = hamiltonian_model(make_hamiltonian)
    z, momentum = start()
    with torch.no_grad():
        quiet = flow(model, X, z, momentum)
    assert not quiet[0].requires_grad
    for first, second in zip(quiet, flow(model, X, z, momentum), strict=True):
        torch.testing.assert_close(first, second.detach())


def test_the_mask_reaches_the_forces(make_hamiltonian):
    model = hamiltonian_model(make_hamiltonian)
    z, _ = start()
    mask = torch.ones_like(X, dtype=torch.bool)
    assert (model.fit_and_grad(X, z, mask=~mask)[1] + z).abs().max() < 1e-12  # the prior's alone
    torch.testing.assert_close(model.fit_and_grad(X, z, mask=mask), model.fit_and_grad(X, z))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_leapfrog": 0}, "num_leapfrog=0: .* at least 1"),
        ({"step_size": 0.0}, "step_size=0.0: .* greater than 0"),
        ({"sqrt_beta_0": 1.5}, "sqrt_beta_0=1.5: .* greater than 0 and at most 1"),
        ({"sqrt_beta_0": 0.0}, "sqrt_beta_0=0.0: .* greater than 0 and at most 1"),
    ],
)
def test_bad_arguments_are_refused(make_hamiltonian, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_hamiltonian(**arguments)
