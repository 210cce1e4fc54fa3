"""The Topographic VAE: its variances, its window and its roll."""

import math

import pytest
import torch
from scipy import stats

from chartae.data import Sequences
from chartae.longitudinal import BubbleVAE, TopographicVAE

D = torch.float64


def model(kind: type[TopographicVAE] = TopographicVAE, **options) -> TopographicVAE:
    options = {"num_steps": 6, "capsules": 2, "shift": 0.5, **options}
    torch.manual_seed(0)
    return kind((3,), 8, **options).double()


def definition(net: TopographicVAE, z: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """The formula of s, entry by entry."""
    steps, size = net.num_steps, net.latent_dim // net.capsules
    s = torch.empty_like(z)
    for t in range(steps):
        for capsule in range(net.capsules):
            for place in range(size):
                total = net.floor
                for delta in net.window:
                    for k in net.places:
                        moved = place - delta if net.rolls else place
                        index = capsule * size + (moved + k) % size
                        total = total + u[(t + delta) % steps, index] ** 2
                entry = capsule * size + place
                s[t, entry] = (z[t, entry] + net.shift) / total**0.5
    return s.detach()


@pytest.mark.parametrize("kind", [TopographicVAE, BubbleVAE])
@pytest.mark.parametrize("coherence", [0, 1, "half"])
@pytest.mark.parametrize("neighbours", [0, 1, 2])
def test_definition(kind: type[TopographicVAE], coherence: int | str, neighbours: int) -> None:
    net = model(kind, coherence=coherence, neighbours=neighbours)
    z, u = torch.randn(2, 6, 8, dtype=D, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(net.topographic(z, u).detach(), definition(net, z, u))


@pytest.mark.parametrize(
    ("coherence", "steps", "window"),
    [
        ("none", 8, (0,)),
        ("short", 8, (-1, 0, 1)),
        ("part", 8, (-2, -1, 0, 1, 2)),
        ("half", 8, (-3, -2, -1, 0, 1, 2, 3, 4)),
        ("half", 5, (-2, -1, 0, 1, 2)),
        (9, 3, (-1, 0, 1)),
    ],
)
def test_no_step_counts_twice(coherence: str | int, steps: int, window: tuple[int, ...]) -> None:
    net = model(coherence=coherence, num_steps=steps)
    assert net.window == window
    assert len({offset % steps for offset in window}) == len(window)


def test_a_pattern_that_moves_with_time_keeps_its_variances() -> None:
    # If u moves by one place a step, the rolled sum is one number times the moved pattern.
    net = TopographicVAE((3,), 4, num_steps=4, coherence="half", neighbours=0, shift=1.0).double()
    pattern = torch.tensor([5.0, 0.1, 0.2, 0.1], dtype=D)
    u = torch.stack([pattern.roll(-t) for t in range(4)])
    s = net.topographic(torch.zeros(4, 4, dtype=D), u)
    moved = torch.stack([s[0].roll(-t) for t in range(4)])
    torch.testing.assert_close(s, moved)
    torch.testing.assert_close(s[0].detach(), 1.0 / (2.0 * pattern), rtol=1e-4, atol=0.0)
    bubble = BubbleVAE((3,), 4, num_steps=4, coherence="half", neighbours=0).double()
    s = bubble.topographic(torch.zeros(4, 4, dtype=D), u)
    torch.testing.assert_close(s, s[:1, :1].expand(4, 4))  # the whole pattern passes everywhere


def test_time_is_circular() -> None:
    net = model(coherence="part")
    z, u = torch.randn(2, 6, 8, dtype=D)
    torch.testing.assert_close(
        net.topographic(z.roll(2, 0), u.roll(2, 0)), net.topographic(z, u).roll(2, 0)
    )


def test_without_coherence_steps_are_independent() -> None:
    for coherence, reach in (("none", {2}), ("part", {0, 1, 2, 3, 4})):
        net = model(coherence=coherence, num_steps=8)
        z, u = torch.randn(2, 8, 8, dtype=D)
        u.requires_grad_()
        net.topographic(z, u)[2].sum().backward()
        assert set(u.grad.abs().sum(-1).nonzero()[:, 0].tolist()) == reach


@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_entries_have_students_law(shift: float) -> None:
    # (z + mu) / sqrt(chi2_n) sqrt(n) has the noncentral t law of n degrees of freedom.
    net = model(coherence=1, neighbours=1, num_steps=6, shift=shift)
    latents = net.sample_latents(4000)
    s = net.topographic(*latents.unbind(-2)).detach()
    entries = (math.sqrt(9.0) * s[:, 2, 5]).numpy()
    law = stats.nct(9, shift) if shift else stats.t(9)
    assert stats.kstest(entries, law.cdf).pvalue > 0.01


def test_steps_follow_the_training_times() -> None:
    net = model()
    data = Sequences(torch.rand(3, 6, 3, dtype=D), times=2.0 * torch.arange(6.0) + 10.0, dtype=D)
    net.set_units([data.tensors])
    times = net.model_times(torch.tensor([10.0, 12.9, 13.1, 20.0, 99.0, -5.0]))
    assert net.steps(times).tolist() == [0, 1, 2, 5, 5, 0]


@torch.no_grad()
def test_unobserved_steps_have_their_prior() -> None:
    net = model(num_steps=4)
    data = Sequences(torch.rand(2, 4, 3, dtype=D), times=torch.arange(4.0), dtype=D)
    net.set_units([data.tensors])
    visits = net.visits(**data.first(2).tensors)
    torch.manual_seed(0)
    latents, ratio = net.infer(visits, 5000, "set")
    assert latents.shape == (5000, 2, 4, 2, 8)
    hidden = latents[:, :, 2:]
    assert abs(float(hidden.mean())) < 0.01
    assert abs(float(hidden.std()) - 1.0) < 0.01
    normal, used = net.posterior(visits)
    assert used.tolist() == [0, 1, 4, 5]
    drawn = latents.flatten(1, 2)[:, used].flatten(-2)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(drawn).sum(-1) - normal.log_prob(drawn)
    torch.testing.assert_close(ratio, expected.unflatten(1, (2, 2)).sum(-1))


def test_visits_at_one_step_share_their_latent() -> None:
    net = model(num_steps=2)
    x, times = torch.rand(1, 3, 3, dtype=D), torch.tensor([[0.0, 0.9, 1.0]], dtype=D)
    data = Sequences(x, times=times, dtype=D)
    net.set_units([data.tensors])
    latents, _ = net.infer(net.visits(**data.tensors), 2, "set")
    z = net.path(latents, torch.zeros(3, dtype=torch.long), net.model_times(times[0]))
    assert torch.equal(z[:, 1], z[:, 2])
    assert not torch.equal(z[:, 0], z[:, 1])


def test_weights_of_a_model_whose_data_do_not_depend_on_its_latents() -> None:
    # Then p(x) is known: every importance weight has its mean.
    net = model(likelihood={"name": "gaussian", "scale": 1.0})
    with torch.no_grad():
        for parameter in net.decoder.parameters():
            parameter.zero_()
        net.heads.linear.weight.zero_()
        net.heads.linear.bias.copy_(torch.cat([torch.zeros(16), torch.full((16,), 0.5413)]))
    data = Sequences(torch.rand(3, 6, 3, dtype=D), times=torch.arange(6.0), dtype=D)
    data = data.hidden(visits=0.5, features=0.3, seed=0)
    net.set_units([data.tensors])
    mean = net.observation_model(net.decoder_output(torch.zeros(1, 8, dtype=D))).mean[0]
    each = torch.distributions.Normal(mean, 1.0).log_prob(data.x)
    expected = torch.where(data.mask, each, 0.0).sum((1, 2)).detach()
    found = net.log_likelihood(data, 500)
    torch.testing.assert_close(found.log_prob, expected, atol=1e-3, rtol=0.0)
    assert float(found.effective_samples.min()) > 499.0


@pytest.mark.parametrize("kind", [TopographicVAE, BubbleVAE])
@torch.no_grad()
def test_joint_likelihood_against_draws_of_the_prior(kind: type[TopographicVAE]) -> None:
    torch.manual_seed(0)
    small = {"name": "mlp", "hidden": [8]}
    noise = {"name": "gaussian", "scale": 0.8}
    options = {"num_steps": 3, "coherence": 1, "encoder": small, "decoder": small}
    net = kind((3,), 4, likelihood=noise, **options).double()
    net.heads.linear.weight.mul_(0.3)
    net.heads.linear.bias.copy_(torch.cat([torch.zeros(8), torch.full((8,), 0.5413)]))
    for parameter in net.decoder.parameters():
        parameter.mul_(1.5)
    x = torch.rand(3, 3, 3, dtype=D, generator=torch.Generator().manual_seed(0))
    data = Sequences(x, times=torch.arange(3.0), dtype=D)
    net.set_units([data.tensors])
    data = data.hidden(visits=0.5, features=0.2, seed=1)
    visits, draws = net.visits(**data.tensors), 20000
    torch.manual_seed(0)
    latents = net.sample_latents(draws)[:, None].expand(-1, 3, -1, -1, -1)
    logs = net.log_fit(latents, visits)
    expected = logs.logsumexp(0) - math.log(draws)
    spread = (logs - expected).exp().std(0) / math.sqrt(draws)
    found = net.log_likelihood(data, 10000)
    error = (1.0 / found.effective_samples).sqrt() + spread
    assert float(error.max()) < 0.1
    assert bool(((found.log_prob - expected).abs() < 3.0 * error).all())
    assert float(logs.std(0).min()) > 0.05  # the latents matter
