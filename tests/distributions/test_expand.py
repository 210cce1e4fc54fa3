"""Every distribution expands to a batch, and says what it is."""

import pytest
import torch
from torch.distributions import Distribution, kl_divergence

import chartae.models
from chartae.distributions import (
    ContinuousBernoulli,
    DiagonalNormal,
    DiscretizedLogistic,
    FlowPosterior,
    FullNormal,
    HypersphericalUniform,
    LowRankNormal,
    NormalMixture,
    PoincareNormal,
    RiemannianNormal,
    StandardNormal,
    VonMisesFisher,
    make_likelihood,
)

torch.manual_seed(0)
LOC, SCALE = torch.randn(3, 2), torch.rand(3, 2) + 0.2
FACTOR = torch.diag_embed(SCALE) + torch.tensor([[0.0, 0.0], [0.7, 0.0]])
TABLE = {
    "name": "mixed",
    "columns": [["gaussian", 2], ["categorical", 3], ["negative_binomial", 1]],
}


def observation(spec, *shape):
    return make_likelihood(spec, shape)(torch.randn(3, *shape))


DISTRIBUTIONS = {
    "ContinuousBernoulli": lambda: ContinuousBernoulli(LOC),
    "DiscretizedLogistic": lambda: DiscretizedLogistic(LOC.sigmoid(), torch.tensor(0.1), 16),
    "DiagonalNormal": lambda: DiagonalNormal(LOC, SCALE),
    "DiagonalNormal of one scale": lambda: DiagonalNormal(LOC, torch.tensor(0.5)),
    "FullNormal": lambda: FullNormal(LOC, FACTOR),
    "LowRankNormal": lambda: LowRankNormal(LOC, LOC[..., None], SCALE),
    "StandardNormal": lambda: StandardNormal(torch.zeros(2)),
    "NormalMixture": lambda: NormalMixture(LOC, SCALE),
    "NormalMixture of factors": lambda: NormalMixture(LOC, FACTOR),
    "HypersphericalUniform": lambda: HypersphericalUniform(torch.zeros(2)),
    "VonMisesFisher": lambda: VonMisesFisher(torch.eye(2), torch.tensor([2.0, 3.0])),
    "PoincareNormal": lambda: PoincareNormal(0.3 * LOC.tanh(), SCALE, 0.7),
    "RiemannianNormal": lambda: RiemannianNormal(0.3 * LOC.tanh(), SCALE[:, 0]),
    "BernoulliFeatures": lambda: observation("bernoulli", 2).base_dist,
    "NormalFeatures": lambda: observation("gaussian", 2).base_dist,
    "Observation": lambda: observation("gaussian", 2, 2),
    "_Counts": lambda: observation("negative_binomial", 2).base_dist,
    "_Categories": lambda: observation("categorical", 2, 3).base_dist,
    "_Row": lambda: observation(TABLE, 6),
    "_Blocks": lambda: observation(TABLE, 6).base_dist,
}
every = pytest.mark.parametrize("make", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)


def ours(cls=Distribution):
    for sub in cls.__subclasses__():
        if sub.__module__.startswith("chartae."):
            yield sub.__name__
        yield from ours(sub)


def test_every_distribution_is_tried_here():
    tried = {name.split()[0] for name in DISTRIBUTIONS} | {"FlowPosterior"}
    assert set(ours()) - {"BatchDistribution", "BallDistribution", "Gaussian", "Summed"} == tried


@every
@pytest.mark.parametrize("leading", [(), (4,), (2, 1)])
def test_an_expanded_distribution_is_the_same_everywhere(make, leading):
    torch.manual_seed(0)
    small = make()
    value = small.sample()
    expected = small.log_prob(value)  # also what is computed once is not carried along
    batch = torch.Size([*leading, *small.batch_shape])
    wide = small.expand(batch)
    assert type(wide) is type(small)
    assert wide.batch_shape == batch
    assert wide.event_shape == small.event_shape
    torch.testing.assert_close(wide.log_prob(value), expected.expand(batch))
    torch.testing.assert_close(wide.mean, small.mean.expand(batch + small.event_shape))
    assert wide.sample().shape == batch + small.event_shape
    assert wide.sample(torch.Size([5])).shape == (5, *batch, *small.event_shape)
    if small.has_rsample and hasattr(small, "rsample_and_log_prob"):
        z, log_q = wide.rsample_and_log_prob((5,))
        torch.testing.assert_close(wide.log_prob(z), log_q, rtol=1e-4, atol=1e-4)
    assert small.batch_shape == make().batch_shape  # it is left as it was


@pytest.mark.parametrize("name", ["PlanarFlowVAE", "IAFVAE"])
def test_a_flow_posterior_expands(name):
    torch.manual_seed(0)
    model = getattr(chartae.models, name)((4,), 2)
    posterior = model.posterior(torch.rand(3, 4))
    wide = posterior.expand((5, 3))
    assert isinstance(wide, FlowPosterior)
    torch.testing.assert_close(wide.mean, posterior.mean.expand(5, 3, 2))
    z, log_q = wide.rsample_and_log_prob()
    assert (z.shape, log_q.shape) == ((5, 3, 2), (5, 3))
    assert repr(posterior).startswith("FlowPosterior(base: DiagonalNormal(")


def test_divergences_expand_too():
    for q, p in [
        (DiagonalNormal(LOC, SCALE), StandardNormal(torch.zeros(2))),
        (FullNormal(LOC, FACTOR), StandardNormal(torch.zeros(2))),
        (LowRankNormal(LOC, LOC[..., None], SCALE), StandardNormal(torch.zeros(2))),
        (VonMisesFisher(torch.eye(2), torch.tensor(3.0)), HypersphericalUniform(torch.zeros(2))),
    ]:
        batch = torch.Size([4, *q.batch_shape])
        expected = kl_divergence(q, p).expand(batch)
        torch.testing.assert_close(kl_divergence(q.expand(batch), p.expand(batch)), expected)


@every
def test_the_name_and_the_parameters_are_shown(make):
    text = repr(make())
    assert text.startswith(type(make()).__name__)
    assert "torch.Size" in text


def test_settings_are_shown():
    text = repr(PoincareNormal(torch.zeros(5, 2), torch.ones(()), 0.5))
    assert (
        text == "PoincareNormal(loc: torch.Size([5, 2]), scale: torch.Size([5, 2]), curvature: 0.5)"
    )
    text = repr(DiscretizedLogistic(torch.zeros(5), torch.tensor(0.5), 16))
    assert text == "DiscretizedLogistic(loc: torch.Size([5]), scale: 0.5, levels: 16)"
