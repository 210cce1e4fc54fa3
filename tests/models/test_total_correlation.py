"""Estimates of total correlation, against Gaussians of which it is known."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from chartae.distributions import DiagonalNormal
from chartae.distributions.aggregate import log_aggregate, log_shares
from chartae.models import BetaTCVAE, FactorVAE
from chartae.models.adversarial import discriminator_loss
from chartae.models.total_correlation import permuted

COVARIANCE = torch.tensor([[1.0, 0.7], [0.7, 1.5]]).double()
NOISE = 0.3


def shares_of(batch, size, estimator):
    return log_shares(batch, torch.tensor(size, dtype=torch.float64), estimator)


class Codes(BetaTCVAE):
    """The posterior of x is N(x, NOISE^2): a known mixture, a Gaussian in the limit."""

    def posterior(self, x, y=None, mask=None):
        return DiagonalNormal(x, torch.full_like(x, NOISE))


def test_the_three_parts_are_those_of_a_gaussian_and_sum_to_the_divergence():
    model = Codes((2,), 2, encoder=nn.Flatten(), decoder=nn.Linear(2, 2)).double()
    size = 4000
    torch.manual_seed(0)
    x = MultivariateNormal(torch.zeros(2).double(), COVARIANCE).sample((size,))
    model.on_fit_start(size)
    rounds = [model.divergences(batch) for _ in range(4) for batch in x.split(1000)]
    z, information, correlation, coordinates = (
        torch.cat(part) for part in zip(*rounds, strict=True)
    )
    whole = COVARIANCE + NOISE**2 * torch.eye(2)
    log_det = torch.logdet(whole)
    expected_information = 0.5 * (log_det - 4 * math.log(NOISE))
    expected_correlation = 0.5 * (whole.diag().log().sum() - log_det)
    variance = whole.diag()
    expected_coordinates = 0.5 * (variance - 1 - variance.log()).sum()
    assert information.mean().item() == pytest.approx(expected_information.item(), abs=0.06)
    assert correlation.mean().item() == pytest.approx(expected_correlation.item(), abs=0.06)
    assert coordinates.mean().item() == pytest.approx(expected_coordinates.item(), abs=0.06)
    # Draw by draw, they sum to log q(z|x) - log p(z).
    posterior = model.posterior(x.repeat(4, 1))
    exact = posterior.log_prob(z) - model.prior().log_prob(z)
    torch.testing.assert_close(information + correlation + coordinates, exact)


def test_stratified_sampling_is_unbiased_for_the_density():
    # Over the choice of the others in the batch, the estimate of q(z_1) is the mixture of all N.
    size, batch = 7, 4
    density = torch.rand(size, generator=torch.Generator().manual_seed(0)).double()
    weights = shares_of(batch, size, "mss").exp().double()
    torch.manual_seed(0)
    estimates = []
    for _ in range(20000):
        others = 1 + torch.randperm(size - 1)[: batch - 1]
        estimates.append(weights[0] @ density[torch.cat([torch.tensor([0]), others])])
    values = torch.stack(estimates)
    error = (values.std() / len(values) ** 0.5).item()
    assert values.mean().item() == pytest.approx(density.mean().item(), abs=4 * error)


def test_weights_are_those_of_chen_et_al():
    size, batch = 100, 5
    weights = shares_of(batch, size, "mss").exp()
    torch.testing.assert_close(weights.diagonal(), torch.full((5,), 1 / size).double())
    # Each row holds the shares of one mixture.
    for count in (2, batch, size):
        rows = shares_of(count, size, "mss").exp().sum(1)
        torch.testing.assert_close(rows, torch.ones(count).double())
    torch.testing.assert_close(
        shares_of(batch, size, "mws").exp(), torch.full((5, 5), 1 / (size * batch)).double()
    )


def test_a_weight_counts_a_sample_of_the_mixture_so_many_times():
    generator = torch.Generator().manual_seed(0)
    means, scales, z = (torch.randn(3, 2, generator=generator).double() for _ in range(3))
    posterior = DiagonalNormal(means, scales.exp())
    count = torch.tensor([1, 2, 3])
    rows = torch.arange(3).repeat_interleave(count)
    # Three samples of weights 1/2, 1, 3/2 stand for six; each is known of N = 60.
    weighted = log_aggregate(posterior, z, 60, "mws", count / 2)
    repeated = log_aggregate(DiagonalNormal(means[rows], scales[rows].exp()), z[rows], 60, "mws")
    for some, many in zip(weighted, repeated, strict=True):
        torch.testing.assert_close(some[rows], many)
    # Stratified: the shares of q(z_i | x_k), of which Chen et al. say what they are, times weights.
    joint, _ = log_aggregate(posterior, z, 7, "mss", count / 2)
    densities = DiagonalNormal(means[:, None], scales.exp()[:, None]).log_prob(z).exp()
    shares = shares_of(3, 7, "mss").exp() * (count / 2)
    torch.testing.assert_close(joint, (shares * densities.T).sum(1).log())


def test_training_notes_its_size():
    model = BetaTCVAE((2,), 2)
    model.on_fit_start(123)
    assert model.training_size.item() == 123
    assert "training_size" in model.state_dict()


def test_permuting_breaks_the_coordinates_apart_and_keeps_each():
    torch.manual_seed(0)
    z = MultivariateNormal(torch.zeros(2).double(), COVARIANCE).sample((5000,))
    shuffled = permuted(z)
    assert (shuffled.sort(0).values == z.sort(0).values).all()
    assert abs(torch.corrcoef(shuffled.T)[0, 1]) < 0.05
    assert torch.corrcoef(z.T)[0, 1] > 0.5


def test_the_discriminator_finds_the_total_correlation_of_gaussians():
    torch.manual_seed(0)
    body = {"name": "mlp", "hidden": [32, 32]}
    model = FactorVAE((2,), 2, discriminator=body).double()
    rho = 0.8
    covariance = torch.tensor([[1.0, rho], [rho, 1.0]]).double()
    law = MultivariateNormal(torch.zeros(2).double(), covariance)
    optimizer = torch.optim.Adam(model.discriminator.parameters(), lr=5e-3)
    for _ in range(400):
        z = law.sample((512,))
        loss = discriminator_loss(model.discriminator(z), model.discriminator(permuted(z)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    estimate = model.discriminator(law.sample((20000,))).mean().item()
    assert estimate == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.08)
