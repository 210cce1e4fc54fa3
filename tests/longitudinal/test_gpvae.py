"""The Gaussian-process VAE against dense Gaussian algebra."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, kl_divergence

from chartae.data import Sequences
from chartae.longitudinal import GPVAE
from chartae.longitudinal.kernels import TIME_KERNELS, GaussianProcess

D = torch.float64
CLOSED_FORMS = {
    "rbf": lambda r: math.exp(-0.5 * r * r),
    "cauchy": lambda r: 1.0 / (1.0 + r * r),
    "diffusion": lambda r: max(0.0, 1.0 - r),
    "matern": lambda r: math.exp(-r),
    "matern32": lambda r: (1.0 + math.sqrt(3.0) * r) * math.exp(-math.sqrt(3.0) * r),
}


def dense(kernel: str, length: float, nugget: float, first, second) -> torch.Tensor:
    rows = [
        [
            (1.0 - nugget) * CLOSED_FORMS[kernel](abs(float(a - b)) / length)
            + nugget * float(a == b)
            for b in second
        ]
        for a in first
    ]
    return torch.tensor(rows, dtype=D).reshape(len(first), len(second))


def linear_model(**options) -> GPVAE:
    """A model whose decoder is linear and whose noise is known, in float64."""
    torch.manual_seed(0)
    model = GPVAE(
        (3,),
        2,
        decoder=nn.Linear(2, 3),
        encoder={"name": "mlp", "hidden": [32]},
        likelihood={"name": "gaussian", "scale": 1.5},
        **options,
    )
    return model.double()


def sequences(count: int = 4) -> Sequences:
    generator = torch.Generator().manual_seed(1)
    times = torch.arange(4.0, dtype=D) + torch.rand(count, 4, generator=generator, dtype=D)
    x = torch.randn(count, 4, 3, generator=generator, dtype=D)
    return Sequences(x, times=0.7 * (times - 2.0), dtype=D)


def exact(model: GPVAE, data: Sequences) -> torch.Tensor:
    """The joint log-likelihood, from the covariance of all observed features."""
    weight, bias = model.decoder.weight.detach(), model.decoder.bias.detach()
    logs = []
    for row in range(len(data)):
        times, known = data.times[row], data.observed[row][:, None].expand(4, 3)
        if data.mask is not None:
            known = data.mask[row]
        covariance = 2.25 * torch.eye(12, dtype=D)
        for k in range(2):
            length = model.length_scale * 0.5 ** (k * model.num_scales // 2)
            prior = dense(model.kernel, length, model.nugget, times, times)
            covariance = covariance + torch.kron(prior, torch.outer(weight[:, k], weight[:, k]))
        seen = known.flatten()
        law = MultivariateNormal(bias.repeat(4)[seen], covariance[seen][:, seen])
        logs.append(law.log_prob(data.x[row].flatten()[seen]))
    return torch.stack(logs)


@pytest.mark.parametrize("kernel", TIME_KERNELS)
@pytest.mark.parametrize("length", [0.3, 1.0, 5.0])
def test_kernels_are_positive_definite_at_irregular_times(kernel: str, length: float) -> None:
    times = torch.rand(1, 30, dtype=D, generator=torch.Generator().manual_seed(0)) * 4.0
    times[0, 3] = times[0, 4] + 1e-9
    process = GaussianProcess(kernel, torch.tensor([length, 0.5 * length]), 1e-3)
    found = process.covariance(times, times)
    for scale, own in enumerate((length, 0.5 * length)):
        torch.testing.assert_close(found[0, scale], dense(kernel, own, 1e-3, times[0], times[0]))
    assert float(torch.linalg.eigvalsh(found).min()) > 0.99e-3 - 1e-12
    assert torch.equal(found.diagonal(dim1=-2, dim2=-1), torch.ones(1, 2, 30, dtype=D))


def test_the_diffusion_kernel_at_equal_steps_correlates_successive_visits_only() -> None:
    times = torch.arange(6.0, dtype=D)[None]
    found = GaussianProcess("diffusion", torch.tensor([1.25]), 1e-5).covariance(times, times)[0, 0]
    band = torch.eye(6, dtype=D) + 0.2 * (torch.eye(6, dtype=D).roll(1, 0).tril())
    band = torch.maximum(band, band.mT)
    torch.testing.assert_close(found, band, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("inference", ["diagonal", "tridiagonal", "product"])
@torch.no_grad()
def test_the_posterior_is_a_normal_of_known_precision(inference: str) -> None:
    model = linear_model(inference=inference, num_scales=2)
    nn.init.normal_(model.head.weight, std=0.5)
    data = sequences().hidden(visits=0.4, seed=0)
    visits = model.visits(**data.tensors)
    posterior = model.posterior(visits)
    z, log_q = posterior.rsample_and_log_prob(3)
    divergence = model.divergence(posterior)
    features = model.temporal(model.visit_features(visits), visits)
    location, raw, *others = model.head(features).split(2, -1)
    positive = nn.functional.softplus(raw) + model.floor
    rhos = model.largest_correlation * torch.tanh(others[0]) if others else torch.zeros_like(raw)
    for row, count in enumerate(visits.counts.tolist()):
        rows = visits.owner == row
        log, nats = 0.0, 0.0
        for k in range(2):
            times, zero = visits.times[rows], torch.zeros(count, dtype=D)
            prior = MultivariateNormal(
                zero, dense(model.kernel, 0.5**k, model.nugget, times, times)
            )
            mean, sigma, rho = (part[rows, k] for part in (location, positive, rhos))
            if inference == "product":
                precision = prior.precision_matrix + torch.diag(sigma)
                mean = torch.linalg.solve(precision, sigma * mean)
            else:  # the bidiagonal B with precision B^T B, from the definition of the law
                bidiagonal = torch.diag(1.0 / (sigma * (1.0 - rho**2).sqrt()))
                bidiagonal[0, 0] = 1.0 / sigma[0]
                for t in range(1, count):
                    bidiagonal[t, t - 1] = -rho[t] / (sigma[t - 1] * (1.0 - rho[t] ** 2).sqrt())
                precision = bidiagonal.mT @ bidiagonal
            law = MultivariateNormal(mean, precision_matrix=precision)
            torch.testing.assert_close(posterior.mean[rows, k], mean)
            log = log + law.log_prob(z[:, rows, k])
            nats = nats + kl_divergence(law, prior)
            own = posterior.factor[row, k]
            torch.testing.assert_close((own @ own.mT)[:count, :count], law.covariance_matrix)
            assert not bool(own[count:].any())
            if inference != "product":
                torch.testing.assert_close(law.variance.sqrt(), sigma)
        torch.testing.assert_close(log_q[:, row], log)
        torch.testing.assert_close(divergence[row], nats)


def test_the_product_is_exact_for_a_decoder_that_is_the_identity() -> None:
    # Visits tell their latents with a known noise: the posterior of the product is the true one.
    model = GPVAE(
        (2,),
        2,
        inference="product",
        encoder=nn.Identity(),
        decoder=nn.Linear(2, 2),
        likelihood={"name": "gaussian", "scale": 0.5},
    ).double()

    class Visit(nn.Module):
        def forward(self, features: torch.Tensor, visits: object) -> torch.Tensor:
            return features

    model.temporal = Visit()
    model.head = nn.Linear(2, 4).double()
    with torch.no_grad():
        model.decoder.weight.copy_(torch.eye(2))
        model.decoder.bias.zero_()
        model.head.weight.copy_(torch.cat([torch.eye(2), torch.zeros(2, 2)]))
        model.head.bias.copy_(torch.tensor([0.0, 0.0, *[math.log(math.expm1(4.0 - 1e-5))] * 2]))
    x = torch.randn(5, 6, 2, dtype=D, generator=torch.Generator().manual_seed(0))
    data = Sequences(x, times=torch.arange(6.0), dtype=D).hidden(visits=0.5)
    found = model.log_likelihood(data, 20)
    torch.testing.assert_close(found.effective_samples, torch.full((5,), 20.0, dtype=D))
    for row in range(5):
        times = data.times[row][data.observed[row]]
        covariance = dense("cauchy", 1.0, 1e-3, times, times) + 0.25 * torch.eye(len(times))
        law = MultivariateNormal(torch.zeros(len(times), dtype=D), covariance)
        expected = law.log_prob(data.x[row][data.observed[row]].mT).sum()
        torch.testing.assert_close(found.log_prob[row], expected)


def test_prior_density_of_drawn_latents() -> None:
    model = linear_model(kernel="rbf", length_scale=2.0)
    data = sequences().hidden(visits=0.4, seed=3)
    visits = model.visits(**data.tensors)
    torch.manual_seed(0)
    z, ratio = model.infer_visits(visits, 2)
    torch.manual_seed(0)
    again, log_q = model.posterior(visits).rsample_and_log_prob(2)
    assert torch.equal(z, again)
    for row in range(len(data)):
        rows = visits.owner == row
        prior = dense("rbf", 2.0, 1e-3, visits.times[rows], visits.times[rows])
        law = MultivariateNormal(torch.zeros(len(prior), dtype=D), prior)
        expected = law.log_prob(z[:, rows].mT).sum(-1)
        torch.testing.assert_close(ratio[:, row] + log_q[:, row], expected)


@pytest.mark.parametrize("inference", ["diagonal", "tridiagonal", "product"])
def test_joint_likelihood_of_a_linear_model(inference: str) -> None:
    model = linear_model(inference=inference, kernel="matern", num_scales=2, nugget=0.3)
    with torch.no_grad():  # a posterior that is near the prior, and depends on the data
        raw = -1.5 if inference == "product" else 0.5
        bias = torch.tensor([0.0, 0.0, raw, raw, 0.4, 0.4])
        model.head.bias.copy_(bias[: len(model.head.bias)])
    data = sequences()
    cases = [data, data.hidden(visits=0.5, seed=1), data.hidden(visits=0.3, features=0.3, seed=2)]
    for case in cases:
        found = model.log_likelihood(case, 20000, seed=0)
        size = found.effective_samples
        error = (1.0 / size - 1.0 / 20000.0).sqrt()
        assert float(size.min()) > 500.0
        assert bool(((found.log_prob - exact(model, case)).abs() < 4.0 * error + 1e-6).all())


@pytest.mark.parametrize("given", [0, 1, 3])
def test_other_times_are_drawn_from_the_conditional_normal(given: int) -> None:
    model = linear_model(kernel="cauchy", num_scales=2)
    at, new = torch.tensor([-1.0, 0.2, 1.1], dtype=D)[:given], torch.tensor([0.5, -2.0, 0.9])
    z = torch.randn(given, 2, dtype=D, generator=torch.Generator().manual_seed(4))
    columns = torch.cat([z, at[:, None], torch.ones(given, 1, dtype=D)], -1)
    empty = torch.zeros(1, 4, dtype=D)
    # The second of two individuals, with padding; the first has one visit.
    latents = torch.stack([columns, columns * 0.0]) if given else torch.zeros(2, 0, 4, dtype=D)
    if given:
        latents = torch.cat([latents, empty.expand(2, 1, 4)], 1).flip(0)
        latents[0, 0] = torch.tensor([0.3, -0.3, 0.0, 1.0])
    draws = 30000
    owner = torch.tensor([1, 0, 1, 1])
    times = torch.cat([new[:1], torch.tensor([0.4]), new[1:]]).double()
    torch.manual_seed(0)
    found = model.path(latents.expand(draws, *latents.shape), owner, times)[:, owner == 1]
    for k in range(2):
        between = dense("cauchy", 0.5**k, 1e-3, new, at)
        own = dense("cauchy", 0.5**k, 1e-3, at, at)
        gain = torch.linalg.solve(own, between.mT).mT if given else between
        mean = gain @ z[:, k]
        covariance = dense("cauchy", 0.5**k, 1e-3, new, new) - gain @ between.mT
        sample = found[..., k]
        assert float((sample.mean(0) - mean).abs().max()) < 4.0 / math.sqrt(draws)
        assert float((sample.mT.cov() - covariance).abs().max()) < 6.0 / math.sqrt(draws)


def test_paths_pass_through_the_latents_of_visits() -> None:
    model = linear_model()
    data = sequences()
    visits = model.visits(**data.tensors)
    latents, _ = model.infer(visits, 5, "set")
    z = model.path(latents, visits.owner, visits.times)
    assert torch.equal(z, latents[:, visits.owner, visits.rank, :2])
    many = latents[:1].detach().expand(3000, *latents.shape[1:])
    near = model.path(many, visits.owner, visits.times + 1e-7)
    # However near, a visit has a nugget of its own, and tells no more than that about others.
    deviation = near.std(0)
    assert 0.9 * math.sqrt(1e-3) < float(deviation.min())
    assert float(deviation.max()) < 1.1 * math.sqrt(2e-3)


def test_new_individuals_have_the_law_of_the_prior() -> None:
    model = linear_model(kernel="rbf")
    n, times = 20000, torch.tensor([0.0, 0.0, 1.0], dtype=D)
    owner = torch.arange(n).repeat_interleave(3)
    torch.manual_seed(0)
    z = model.path(model.sample_latents(n), owner, times.repeat(n)).unflatten(0, (n, 3))
    torch.testing.assert_close(z[:, 0], z[:, 1], atol=1e-3, rtol=0.0)
    found = z[..., 0].mT.cov()
    expected = dense("rbf", 1.0, 1e-3, times, times)
    assert float((found - expected).abs().max()) < 6.0 / math.sqrt(n)


def test_single_precision_agrees_with_double() -> None:
    model = linear_model(kernel="rbf", length_scale=3.0)
    data = sequences()
    visits = model.visits(**data.tensors)
    expected = model.divergence(model.posterior(visits)).detach()
    single = linear_model(kernel="rbf", length_scale=3.0).float()
    visits = single.visits(**data.to(dtype=torch.float32).tensors)
    found = single.divergence(single.posterior(visits)).detach()
    torch.testing.assert_close(found.double(), expected, atol=1e-3, rtol=1e-4)
