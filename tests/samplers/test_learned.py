"""The samplers that train something, against distributions that are known."""

import logging
import math

import pytest
import torch
from scipy import stats
from torch import nn
from torch.distributions import Normal

from chartae.data import TensorSet
from chartae.errors import ConfigurationError, DataError, DivergenceError
from chartae.models import AE, CVAE, HRQVAE, VAE, VAMP, VQVAE
from chartae.samplers import CodeSampler, FlowSampler, NormalSampler, TwoStageSampler, VampSampler
from chartae.samplers.learned import Density
from chartae.samplers.pixelcnn import PixelCNN


class Codes(nn.Module):
    """An encoder of data that are codes already."""

    def forward(self, x):
        return x


def identity_model(model_class=AE, spread=0.3, **options):
    """A model whose codes are the data, two numbers; a VAE's posteriors have that spread."""
    torch.manual_seed(0)
    model = model_class((2,), 2, encoder=Codes(), **options)
    linear = model.posterior_head.linear if model_class is VAE else model.code_head
    with torch.no_grad():
        linear.weight.copy_(torch.eye(*linear.weight.shape))
        bias = torch.tensor([0.0, 0.0, 1.0, 1.0]) * math.log(math.expm1(spread))
        linear.bias.copy_(bias[: len(linear.bias)])
    return model.eval()


def banana(n, seed, scale=0.3):
    """Points, and minus the entropy of their density: z2 = z1^2 / 2 + noise keeps volumes."""
    noise = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    first = noise[:, 0]
    points = torch.stack([first, 0.5 * first.square() - 1.0 + scale * noise[:, 1]], 1)
    return 3.0 * points, -(math.log(2 * math.pi * math.e) + math.log(scale) + 2 * math.log(3.0))


def log_banana(z, scale=0.3):
    first, second = (z / 3.0).T
    log_prob = Normal(0.0, 1.0).log_prob(first)
    log_prob = log_prob + Normal(0.5 * first.square() - 1.0, scale).log_prob(second)
    return log_prob - 2 * math.log(3.0)


# --- flows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", ["maf", "iaf"])
def test_a_flow_finds_a_known_density(flow):
    options = {"hidden": [32, 32], "epochs": 40, "learning_rate": 1e-2, "batch_size": 250}
    sampler = FlowSampler(identity_model(), flow, **options).fit(banana(2000, 0)[0])
    test, negentropy = banana(4000, 1)
    with torch.no_grad():
        found = float(sampler.log_prob(test).mean())
    assert negentropy - 0.06 < found < negentropy + 0.03
    z = sampler.sample_latents(4000, seed=0)
    assert float(log_banana(z).mean()) > negentropy - 0.15
    assert stats.kstest(z[:, 0].numpy(), "norm", (0.0, 3.0)).statistic < 0.06


@pytest.mark.parametrize("flow", ["maf", "iaf"])
@pytest.mark.parametrize("d", [1, 2, 5])
def test_a_flow_is_invertible_and_its_density_that_of_its_jacobian(flow, d):
    torch.manual_seed(0)
    model = AE((d,), d, encoder=Codes(), decoder=nn.Linear(d, d)).eval()
    sampler = FlowSampler(model, flow, hidden=[8], epochs=3, learning_rate=0.05)
    sampler.fit(3.0 * torch.randn(50, d) + 1.0).double()
    z = torch.randn(6, d, dtype=torch.float64)
    transform = sampler.density(None).transform

    def to_noise(z):
        return transform((z - sampler.shift[0]) / sampler.spread[0])

    noise = to_noise(z)
    back = sampler.shift + sampler.spread * transform.inv(noise)
    torch.testing.assert_close(back, z)
    jacobian = torch.stack([torch.autograd.functional.jacobian(to_noise, point) for point in z])
    expected = Normal(0.0, 1.0).log_prob(noise).sum(1) + jacobian.slogdet().logabsdet
    torch.testing.assert_close(sampler.log_prob(z), expected)
    assert float((jacobian - torch.eye(d) / 3.0).abs().max()) > 0.01  # it has learned something


@pytest.mark.slow
@pytest.mark.parametrize("sampler_class", [FlowSampler, TwoStageSampler])
def test_latents_follow_conditions(sampler_class):
    y = torch.arange(1500) % 3
    generator = torch.Generator().manual_seed(0)
    means = torch.tensor([[-5.0, 0.0], [0.0, 4.0], [6.0, 1.0]])
    x = means[y] + (1.0 + y[:, None]) * 0.2 * torch.randn(1500, 2, generator=generator)
    model = identity_model(AE, conditions=3)
    model.conditioning = nn.Identity()
    model.code_head = nn.Linear(5, 2)
    with torch.no_grad():
        model.code_head.weight.copy_(torch.eye(2, 5))
        model.code_head.bias.zero_()
    sampler = sampler_class(model, hidden=[32], epochs=60, learning_rate=1e-2).fit(x, y)
    for label in range(3):
        z = sampler.sample_latents(1000, seed=0, y=label)
        scale = (1.0 + label) * 0.2
        torch.testing.assert_close(z.mean(0), means[label], rtol=0, atol=0.2)
        assert (torch.cdist(z, means).argmin(1) == label).all()
        if sampler_class is FlowSampler:  # the second stage has one scale for all of them
            torch.testing.assert_close(z.std(0), torch.full((2,), scale), rtol=0.25, atol=0)


# --- the second stage ---------------------------------------------------------------------------


def energy_distance(a, b):
    """Zero for samples of one distribution, in expectation."""
    within = (torch.cdist(a, a).sum() / (len(a) * (len(a) - 1))) + (
        torch.cdist(b, b).sum() / (len(b) * (len(b) - 1))
    )
    return float(2.0 * torch.cdist(a, b).mean() - within)


def ring(n, seed):
    angles = 2 * math.pi * torch.rand(n, generator=torch.Generator().manual_seed(seed))
    return 3.0 * torch.stack([angles.cos(), angles.sin()], 1) + 4.0


def test_a_second_stage_draws_from_the_aggregated_posterior():
    model = identity_model(VAE)
    options = {"hidden": [64], "epochs": 120, "learning_rate": 5e-3, "batch_size": 200}
    sampler = TwoStageSampler(model, **options).fit(ring(1000, 0))
    torch.manual_seed(0)
    aggregated = ring(2000, 1) + 0.3 * torch.randn(2000, 2)
    far = energy_distance(NormalSampler(model).sample_latents(2000, seed=0), aggregated)
    near = energy_distance(sampler.sample_latents(2000, seed=0), aggregated)
    assert near < 0.02 * far
    # Nearer than the normal of the same moments, too.
    normal = aggregated.mean(0) + aggregated.std(0) * torch.randn(2000, 2)
    assert near < 0.7 * energy_distance(normal, aggregated)


def test_a_second_stage_trains_on_samples_of_posteriors():
    model = identity_model(VAE, spread=2.0)
    x = torch.zeros(400, 2)
    sampler = TwoStageSampler(model, hidden=[8], epochs=100, learning_rate=1e-2).fit(x)
    # All x are one: what spreads is the posterior.
    assert float(sampler.spread.mean()) == pytest.approx(2.0, abs=0.2)
    z = sampler.sample_latents(2000, seed=0)
    assert float(z.std(0).mean()) == pytest.approx(2.0, abs=0.3)
    alone = TwoStageSampler(identity_model(AE), hidden=[8], epochs=1).fit(x)
    assert (alone.spread == 1.0).all()  # nothing to scale


# --- learned priors -----------------------------------------------------------------------------


def test_samples_of_a_vampprior_follow_its_mixture():
    torch.manual_seed(0)
    model = VAMP((6,), 1, num_pseudo_inputs=4).eval()
    with torch.no_grad():
        model.posterior_head.linear.weight.mul_(20.0)
    z = VampSampler(model).sample_latents(3000, seed=0)
    with torch.no_grad():
        components = model.posterior(model.pseudo_inputs())
    loc, scale = components.mean[:, 0].numpy(), components.stddev[:, 0].numpy()
    assert loc.std() > 0.3  # a mixture indeed

    def cdf(values):
        return stats.norm.cdf(values[:, None], loc, scale).mean(1)

    assert stats.kstest(z[:, 0].numpy(), cdf).pvalue > 1e-3


def test_samples_of_a_learned_prior_follow_their_conditions():
    torch.manual_seed(0)
    model = CVAE((6,), 2, conditions=3, learned_prior=True).eval()
    y = torch.arange(3000) % 3
    z = VampSampler(model).sample_latents(3000, seed=0, y=y)
    with torch.no_grad():
        prior = model.prior(y)
    standard = (z - prior.mean) / prior.stddev
    assert stats.kstest(standard.flatten().numpy(), "norm").pvalue > 1e-3
    assert float(prior.mean[:3].std(0).min()) > 0.05


# --- codes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grid", "levels", "conditions"), [((3, 4), 1, 0), ((1, 6), 1, 0), ((4, 3), 3, 2)]
)
def test_no_code_depends_on_itself_or_later_ones(grid, levels, conditions):
    torch.manual_seed(0)
    net = PixelCNN(5, levels, conditions, channels=16, num_layers=4, kernel_size=3).double()
    codes = torch.randint(5, (1, *grid, levels))
    condition = torch.randn(1, conditions, dtype=torch.float64) if conditions else None

    def logits(codes, condition=condition):
        return net.logits(codes, condition).detach().reshape(-1, 5)

    before = logits(codes)
    sees = []
    for place in range(codes.numel()):
        changed = codes.clone().flatten()
        changed[place] = (changed[place] + 1) % 5
        sees.append((logits(changed.reshape(codes.shape)) != before).any(-1))
    sees = torch.stack(sees)
    assert not sees.tril().any()
    assert sees.triu(1).sum() == codes.numel() * (codes.numel() - 1) / 2  # and all before it
    if conditions:
        assert (logits(codes, condition + 1.0) != before).any(-1).all()


@pytest.mark.parametrize(("grid", "levels"), [((2, 2), 1), ((1, 2), 2)])
def test_probabilities_of_codes_sum_to_one_and_samples_follow_them(grid, levels):
    torch.manual_seed(0)
    net = PixelCNN(2, levels, 0, channels=8, num_layers=2, kernel_size=3).double()
    with torch.no_grad():  # far from uniform
        for head in net.heads:
            head[-1].weight.mul_(5.0)
    every = torch.cartesian_prod(*[torch.arange(2)] * 4).reshape(16, *grid, levels)
    with torch.no_grad():
        probabilities = net.log_prob(every).exp()
        drawn = net.sample(4000, grid, torch.Generator().manual_seed(0))
    assert float(probabilities.sum()) == pytest.approx(1.0, abs=1e-12)
    assert float(probabilities.max()) > 0.1
    number = (drawn.flatten(1) * torch.tensor([8, 4, 2, 1])).sum(1)
    counts = number.bincount(minlength=16).numpy()
    assert stats.chisquare(counts, 4000 * probabilities.numpy()).pvalue > 1e-3


@pytest.mark.parametrize(("grid", "levels", "conditions"), [((5, 3), 2, 0), ((4, 6), 1, 3)])
def test_samples_are_drawn_from_the_logits_of_what_is_before(grid, levels, conditions, monkeypatch):
    # Drawing goes row by row from memory; the logits of the finished grids must be the same.
    torch.manual_seed(0)
    net = PixelCNN(4, levels, conditions, channels=6, num_layers=3, kernel_size=5).double()
    condition = torch.randn(7, conditions, dtype=torch.float64) if conditions else None
    asked = []
    draw = torch.multinomial
    monkeypatch.setattr(
        torch, "multinomial", lambda p, *a, **k: asked.append(p) or draw(p, *a, **k)
    )
    with torch.no_grad():
        codes = net.sample(7, grid, torch.Generator().manual_seed(0), condition)
        expected = net.logits(codes, condition).softmax(-1)
    torch.testing.assert_close(torch.stack(asked, 1).reshape(expected.shape), expected)


class Known(VQVAE):
    """A model whose data are its codes."""

    def codes(self, x, y=None):
        return x.long()


class KnownLevels(HRQVAE):
    def codes(self, x, y=None):
        return x.long()


SHARES = torch.tensor([0.9, 0.07, 0.03])
ENTROPY = float(-(SHARES * SHARES.log()).sum())


def noise(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.multinomial(SHARES, math.prod(shape), replacement=True, generator=generator)
    return drawn.reshape(shape)


def markov_images(n, y=0, seed=0):
    """Codes that are the sum of the one above, the one to the left, y and noise, modulo 3."""
    e = noise((n, 4, 4), seed)
    codes = torch.zeros_like(e)
    for i in range(4):
        for j in range(4):
            above = codes[:, i - 1, j] if i else 0
            left = codes[:, i, j - 1] if j else 0
            codes[:, i, j] = (above + left + y + e[:, i, j]) % 3
    return codes


LEARNING = {
    "kernel_size": 3,
    "num_layers": 2,
    "learning_rate": 1e-2,
    "epochs": 12,
    "batch_size": 50,
}


@pytest.mark.slow
def test_a_pixelcnn_learns_a_known_markov_image():
    model = Known((4, 4), 16, num_codes=3, grid=(4, 4)).eval()
    sampler = CodeSampler(model, channels=16, **LEARNING)
    sampler.fit(markov_images(1000).float())
    test = markov_images(1000, seed=1)
    with torch.no_grad():
        nats = -float(sampler.log_prob(test).mean()) / 16
    assert nats == pytest.approx(ENTROPY, abs=0.03)  # untrained: log 3 = 1.1
    with torch.no_grad():
        drawn = sampler.network.sample(500, (4, 4), torch.Generator().manual_seed(0))[..., 0]
    above = torch.cat([torch.zeros(500, 1, 4), drawn[:, :-1]], 1)
    left = torch.cat([torch.zeros(500, 4, 1), drawn[..., :-1]], 2)
    rule = (drawn - above - left) % 3 == 0
    assert float(rule.float().mean()) == pytest.approx(0.9, abs=0.04)
    latents = sampler.sample_latents(7, seed=0)
    assert (latents == model.embed_codes(model_codes(sampler, 7))).all()


def model_codes(sampler, n):
    """The codes that the sampler draws for seed 0."""
    from chartae.randomness import make_generator

    with torch.no_grad():
        return sampler.network.sample(n, sampler.grid, make_generator(0, "CodeSampler", 0))[..., 0]


@pytest.mark.slow
def test_codes_follow_conditions():
    y = torch.arange(1000) % 3
    model = Known((4, 4), 16, num_codes=3, grid=(4, 4), conditions=3).eval()
    sampler = CodeSampler(model, channels=16, **LEARNING)
    sampler.fit(markov_images(1000, y).float(), y)
    test = markov_images(600, y[:600], seed=1)
    with torch.no_grad():
        right = -float(sampler.log_prob(test, y[:600]).mean()) / 16
        wrong = -float(sampler.log_prob(test, (y[:600] + 1) % 3).mean()) / 16
    assert right == pytest.approx(ENTROPY, abs=0.06)
    assert wrong > right + 1.0


@pytest.mark.slow
def test_levels_follow_one_another():
    # A row of three places: a level-0 code is the level-1 code before it, and a level-1 code the
    # level-0 code of its place, up to noise.
    def rows(n, seed):
        e = noise((n, 3, 2), seed)
        return torch.cumsum(e.flatten(1), 1).reshape(n, 3, 2) % 3

    model = KnownLevels((3, 2), 6, num_codes=3, num_levels=2, grid=(3,)).eval()
    sampler = CodeSampler(model, channels=16, **LEARNING).fit(rows(1000, 0).float())
    with torch.no_grad():
        nats = -float(sampler.log_prob(rows(1000, 1)).mean()) / 6
    assert nats == pytest.approx(ENTROPY, abs=0.03)


def test_codes_of_a_convolutional_model():
    torch.manual_seed(0)
    model = VQVAE(
        (1, 12, 8),
        24,
        grid=(3, 2),
        num_codes=8,
        conditions=3,
        encoder={"name": "conv_map", "channels": [4, 6], "features": 4},
        decoder={"name": "conv_map", "channels": [6, 4], "features": 4},
    ).eval()
    assert isinstance(model.code_head, nn.Identity)
    x, y = torch.rand(20, 1, 12, 8), torch.arange(20) % 3
    sampler = CodeSampler(model, channels=4, num_layers=1, epochs=1).fit(x, y)
    assert sampler.sample(5, seed=0, y=2).shape == (5, 1, 12, 8)


# --- training -----------------------------------------------------------------------------------


def test_training_stops_early_and_keeps_the_best(caplog):
    caplog.set_level(logging.INFO, logger="chartae")
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    options = {"hidden": [128, 128], "learning_rate": 1e-2, "held_out": 0.5}
    long = FlowSampler(identity_model(), epochs=400, patience=5, **options).fit(x)
    stopped = caplog.records[-1]
    assert stopped.args[2] < 100
    # Fewer epochs than it took to overfit give the same weights.
    short = FlowSampler(identity_model(), epochs=stopped.args[2] + 1, **options).fit(x)
    with torch.no_grad():
        assert (short.log_prob(x) == long.log_prob(x)).all()


def test_the_held_out_loss_is_a_mean_over_rows_not_over_pieces():
    """Of (w - t)^2 at four t = 0 and one t = 1 the mean is least at w = 0.2, where w stops.

    Adam moves w by the learning rate at each step. With pieces of 4 and 1, the mean of their means
    is least at 0.5.
    """
    t = torch.tensor([9.0, 9.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    sampler = FlowSampler(identity_model(), epochs=8, batch_size=4, learning_rate=0.1)
    objective = Density(network, lambda t, y: (network.weight - t).square().flatten())
    sampler.fit_network(objective, TensorSet(samples=t[:2]), TensorSet(samples=t[2:]))
    assert network.weight.item() == pytest.approx(0.2, abs=0.01)


def test_a_loss_that_is_not_finite_stops_it():
    x = banana(100, 0)[0]
    sampler = FlowSampler(identity_model(), epochs=5).fit(x)
    broken = FlowSampler(identity_model(), epochs=5, learning_rate=1e30)
    with pytest.raises(DivergenceError, match="the term 'loss' became"):
        broken.fit(x)
    with pytest.raises(ConfigurationError, match="has not been fitted"):
        broken.sample(2)
    sampler.learning_rate = 1e30
    with pytest.raises(DivergenceError):
        sampler.fit(x)
    with pytest.raises(ConfigurationError, match="has not been fitted"):
        sampler.sample(2)


@pytest.mark.parametrize("sampler_class", [FlowSampler, TwoStageSampler])
def test_few_data_are_refused_and_three_are_enough(sampler_class):
    x = banana(3, 0)[0]
    sampler = sampler_class(identity_model(), hidden=[4], epochs=1)
    with pytest.raises(DataError, match=r"x has 2 observation\(s\): .* needs at least 3"):
        sampler.fit(x[:2])
    assert sampler.fit(x).sample(2, seed=0).shape == (2, 2)


@pytest.mark.parametrize(
    ("sampler_class", "arguments", "message"),
    [
        (FlowSampler, {"flow": "mfa"}, "flow='mfa' is not known"),
        (FlowSampler, {"num_transforms": 0}, "num_transforms=0: .* at least 1"),
        (FlowSampler, {"hidden": [0]}, "hidden=0: .* at least 1"),
        (FlowSampler, {"epochs": 0}, "epochs=0: .* at least 1"),
        (FlowSampler, {"batch_size": 0}, "batch_size=0: .* at least 1"),
        (FlowSampler, {"learning_rate": 0.0}, "learning_rate=0.0: .* greater than 0"),
        (FlowSampler, {"patience": 0}, "patience=0: .* at least 1"),
        (FlowSampler, {"held_out": 1.0}, "held_out=1.0: .* less than 1"),
        (FlowSampler, {"seed": -1}, "seed=-1: .* at least 0"),
        (TwoStageSampler, {"hidden": [0]}, "hidden=0: .* at least 1"),
        (CodeSampler, {"channels": 0}, "channels=0: .* at least 1"),
        (CodeSampler, {"num_layers": 0}, "num_layers=0: .* at least 1"),
        (CodeSampler, {"kernel_size": 1}, "kernel_size=1: .* at least 3"),
        (CodeSampler, {"kernel_size": 4}, "kernel_size=4: expected an odd number"),
    ],
)
def test_bad_arguments_are_refused(sampler_class, arguments, message):
    model = identity_model() if sampler_class is not CodeSampler else Known((4, 4), 16)
    with pytest.raises(ConfigurationError, match=message):
        sampler_class(model, **arguments)
