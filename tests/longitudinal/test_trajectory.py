"""Straight lines in time: against exact likelihoods, and on courses that are known."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm, spearmanr
from sklearn.metrics import adjusted_rand_score
from torch.distributions import MultivariateNormal, Normal, kl_divergence

import chartae
from chartae.data import Sequences
from chartae.errors import ConfigurationError, DataError
from chartae.geometry import EuclideanMetric
from chartae.longitudinal import FlowVAE, TrajectoryVAE, VisitVAE, cluster

SMALL = {
    "encoder": {"name": "mlp", "hidden": [16]},
    "decoder": {"name": "mlp", "hidden": [16]},
    "hidden": 8,
}


def build(latent_dim=3, *, seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TrajectoryVAE((4,), latent_dim, **{**SMALL, **options}).double()


def sequences(count=5, visits=4, *, holes=False):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, visits, 4, generator=generator, dtype=torch.float64)
    times = torch.rand(count, visits, generator=generator).double().cumsum(1) - 1.0
    mask = torch.rand(x.shape, generator=generator) < 0.7 if holes else None
    if mask is not None:
        mask[:, 0, 0], mask[0, 2] = True, False
    return Sequences(x, times=times, mask=mask, dtype=None)


def visits_of(model, data):
    return model.visits(**data.tensors)


# --- exact values ---------------------------------------------------------------------------------


def test_the_path_is_a_straight_line():
    model = build()
    u = torch.tensor([[[0.5, -1.0, 2.0, 3.0], [0.0, 0.25, -1.0, 4.0]]], dtype=torch.float64)
    owner, times = torch.tensor([0, 0, 1]), torch.tensor([-1.0, 1.0, 2.25]).double()
    expected = [[0.0, 2.0, 3.0], [2.0 * math.exp(0.5), 2.0, 3.0], [2.0, -1.0, 4.0]]
    torch.testing.assert_close(model.path(u, owner, times)[0], torch.tensor(expected).double())


def exact(model, x, times, mask):
    """log p of the observed features of one individual, for a linear decoder.

    Given eta, the features are normal; eta is integrated by the Gauss-Hermite rule.
    """
    linear = next(m for m in model.decoder.modules() if isinstance(m, torch.nn.Linear))
    weight, bias = linear.weight, linear.bias
    variance = model.observation_model.scale.square().repeat(len(times))
    (spread_eta, spread_tau), delay = model.log_scales.exp(), model.mean_delay
    center = float(model.mean_log_speed)
    nodes, masses = np.polynomial.hermite_e.hermegauss(120)
    first, space = weight[:, 0], weight[:, 1:]
    logs = []
    for node, mass in zip(nodes, masses, strict=True):
        pace = math.exp(center + float(spread_eta) * node)
        mean = pace * (times - delay)[:, None] * first + bias
        load = torch.cat([-pace * spread_tau * first[:, None], space], 1).repeat(len(times), 1)
        covariance = load @ load.T + variance.diag()
        seen = mask.flatten()
        law = MultivariateNormal(mean.flatten()[seen], covariance[seen][:, seen])
        logs.append(law.log_prob(x.flatten()[seen]) + math.log(mass / math.sqrt(2.0 * math.pi)))
    return torch.stack(logs).logsumexp(0)


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("covariance", ["full", "diagonal"])
@torch.no_grad()
def test_likelihoods_are_those_of_the_linear_model(covariance, holes):
    options = {
        "decoder": {"name": "mlp", "hidden": []},
        "likelihood": {"name": "gaussian", "scale": 1.5},
    }
    model = build(covariance=covariance, speed_scale=0.4, delay_scale=0.7, **options).eval()
    model.mean_delay.fill_(0.3)
    model.mean_log_speed.fill_(-0.2)
    data = sequences(holes=holes)
    known = data.known
    expected = torch.stack(
        [exact(model, data.x[i], data.times[i], known[i]) for i in range(len(data))]
    )
    for proposal in ("set", "prior"):
        found = model.log_likelihood(data, 40_000, proposal=proposal, seed=1)
        error = found.effective_samples.rsqrt()
        assert bool((found.effective_samples > 100.0).all())
        assert bool(((found.log_prob - expected).abs() < 5.0 * error).all())


@torch.no_grad()
def test_ratios_are_those_of_torch():
    model, data = build().eval(), sequences()
    model.log_scales.copy_(torch.tensor([-0.5, 0.2]))
    model.mean_delay.fill_(0.4)
    model.mean_log_speed.fill_(-0.3)
    visits = visits_of(model, data)
    pace, space = model.posteriors(visits)
    u, ratio = model.infer(visits, 7, "set")
    joint = MultivariateNormal(pace.mean, pace.factor @ pace.factor.mT)
    assert float(pace.covariance[:, 0, 1].abs().min()) > 0.0
    prior = Normal(torch.tensor([-0.3, 0.4]).double(), model.log_scales.exp())
    expected = prior.log_prob(u[..., :2]).sum(-1) - joint.log_prob(u[..., :2])
    standard = Normal(torch.zeros(2).double(), torch.ones(2).double())
    own = Normal(space.mean, space.stddev)
    expected += (standard.log_prob(u[..., 2:]) - own.log_prob(u[..., 2:])).sum(-1)
    torch.testing.assert_close(ratio, expected)
    wide = MultivariateNormal(prior.mean, prior.stddev.square().diag())
    kl = kl_divergence(joint, wide) + kl_divergence(own, standard).sum(-1)
    losses = model.loss(**data.tensors)
    torch.testing.assert_close(losses.terms["kl"], kl.mean())


def test_the_weight_of_the_divergence():
    data = sequences()
    terms = {}
    for beta in (0.1, 1.0):
        torch.manual_seed(0)
        terms[beta] = build(beta=beta, prefixes="none").eval().loss(**data.tensors)
    for beta, losses in terms.items():
        expected = losses.terms["reconstruction"] + beta * losses.terms["kl"]
        torch.testing.assert_close(losses.objectives["model"], expected)


# --- what the encoder sees ------------------------------------------------------------------------


@pytest.mark.parametrize("space_from", ["all", "first"])
@torch.no_grad()
def test_a_prefix_is_a_sequence_of_its_own(space_from):
    model, data = build(space_from=space_from).eval(), sequences()
    visits = visits_of(model, data)
    for count in range(1, 5):
        (inside,) = model._posteriors(visits, visits.starts + count - 1)
        short = Sequences(data.x[:, :count], times=data.times[:, :count], dtype=None)
        alone = model.posteriors(visits_of(model, short))
        hidden = model.posteriors(visits_of(model, data.first(count)))
        for one, two, three in zip(inside, alone, hidden, strict=True):
            torch.testing.assert_close(one.mean, two.mean)
            torch.testing.assert_close(one.covariance, two.covariance)
            assert torch.equal(two.mean, three.mean)
            assert torch.equal(two.covariance, three.covariance)


@torch.no_grad()
def test_the_space_of_the_thesis_sees_the_first_visit_only():
    model, data = build(space_from="first").eval(), sequences()
    other = data.x.clone()
    other[:, 1:] += 1.0
    moved = Sequences(other, times=data.times, dtype=None)
    before, after = (model.posteriors(visits_of(model, d)) for d in (data, moved))
    assert torch.equal(before[1].mean, after[1].mean)
    assert not torch.isclose(before[0].mean, after[0].mean).any()


@pytest.mark.parametrize("prefixes", ["matched", "complete", "seen", "none"])
def test_what_is_trained(prefixes):
    """What the encoder sees differs between training and evaluation for two of the choices."""
    model, data = build(prefixes=prefixes), sequences()
    losses = {}
    for mode in (True, False):
        torch.manual_seed(3)
        losses[mode] = model.train(mode).loss(**data.tensors)
    same = torch.equal(losses[True].objectives["model"], losses[False].objectives["model"])
    assert same == (prefixes in ("matched", "none"))
    assert ("matching" in losses[True].terms) == (prefixes == "matched")


@torch.no_grad()
def test_matching_a_posterior_with_itself_gives_its_entropy():
    """With one visit, the prefix is the sequence, and the term is an estimate of the entropy."""
    model, data = build(prefixes="matched"), sequences(1, 1)
    many = {name: t.expand(20_000, *t.shape[1:]) for name, t in data.tensors.items()}
    pace, space = model.posteriors(visits_of(model, data))
    expected = pace.entropy() + space.entropy()
    torch.manual_seed(0)
    found = model.train().loss(**many).terms["matching"]
    error = math.sqrt(0.5 * 4 / 20_000)  # the variance of log q is half of the dimension
    assert abs(float(found - expected[0])) < 5.0 * error


def test_prefixes_teach_neither_prior_nor_noise():
    data = sequences()
    model = build(prefixes="matched").train()
    torch.manual_seed(0)
    losses = model.loss(**data.tensors)
    losses.objectives["model"].backward()
    assert float(losses.terms["completion"].detach()) > 0.0
    plain = build(prefixes="none").train()
    torch.manual_seed(0)
    torch.rand(len(data))  # the lengths of the prefixes
    plain.loss(**data.tensors).objectives["model"].backward()
    for name, parameter in plain.named_parameters():
        own = model.get_parameter(name).grad
        if name.startswith(("observation_model", "log_scales", "mean_")):
            assert parameter.grad is not None
            torch.testing.assert_close(own, parameter.grad)


# --- what is asked --------------------------------------------------------------------------------


@torch.no_grad()
def test_trajectories_are_in_the_units_of_the_data():
    model, data = build().eval(), sequences()
    before = model.trajectories(data)
    visits = visits_of(model, data)
    pace, space = model.posteriors(visits)
    torch.testing.assert_close(before.speed, pace.mean[:, 0].exp())
    torch.testing.assert_close(before.delay_std, pace.covariance[:, 1, 1].sqrt())
    torch.testing.assert_close(before.space, space.mean)
    assert before.ids == data.ids
    model.time_center.fill_(50.0)
    model.time_scale.fill_(10.0)
    after = model.trajectories(Sequences(data.x, times=50.0 + 10.0 * data.times, dtype=None))
    torch.testing.assert_close(after.speed, before.speed / 10.0)
    torch.testing.assert_close(after.delay, 50.0 + 10.0 * before.delay)
    torch.testing.assert_close(after.delay_std, 10.0 * before.delay_std)
    torch.testing.assert_close(after.correlation, before.correlation)
    assert bool((after.correlation.abs() < 1.0).all())


@torch.no_grad()
def test_quantiles_of_speed_and_delay():
    model, data = build().eval(), sequences()
    found = model.trajectories(data)
    torch.testing.assert_close(found.speed_quantile(0.5), found.speed)
    u, _ = model.infer(visits_of(model, data), 40_000, "set")
    for q in (0.1, 0.9):
        share = (u[..., 0].exp() < found.speed_quantile(q)).double().mean(0)
        torch.testing.assert_close(share, torch.full_like(share, q), rtol=0.0, atol=0.01)
        share = (u[..., 1] < found.delay_quantile(q)).double().mean(0)
        torch.testing.assert_close(share, torch.full_like(share, q), rtol=0.0, atol=0.01)
    with pytest.raises(ConfigurationError, match="q=1"):
        found.delay_quantile(1.0)


@torch.no_grad()
def test_a_table_of_trajectories():
    pytest.importorskip("pandas")
    model, data = build().eval(), sequences()
    found = model.trajectories(data)
    table = found.to_frame()
    assert list(table.index) == list(data.ids)
    np.testing.assert_allclose(table["delay"], found.delay)
    low = found.delay + norm.ppf(0.05) * found.delay_std
    np.testing.assert_allclose(table["delay_low"], low)
    assert {"speed", "space_0", "space_1_std"} <= set(table.columns)


@torch.no_grad()
def test_another_delay_moves_a_course_and_another_speed_stretches_it():
    model, data = build().eval(), sequences()
    model.time_center.fill_(50.0)
    model.time_scale.fill_(10.0)
    data = Sequences(data.x, times=50.0 + 10.0 * data.times, dtype=None)
    when = torch.linspace(35.0, 70.0, 6, dtype=torch.float64).expand(len(data), -1)
    own = model.varied(data, when)
    latents = model.individuals(data)[None]
    owner = torch.arange(len(data)).repeat_interleave(6)
    z = model.path(latents, owner, model.model_times(when).flatten())
    torch.testing.assert_close(own, model.decode(z[0]).unflatten(0, (-1, 6)))
    torch.testing.assert_close(model.varied(data, when + 4.0, delay=4.0), own)
    # At the time of the origin nothing changes; after it twice as much.
    origin = model.trajectories(data).delay[:, None]
    torch.testing.assert_close(model.varied(data, origin + (when - origin) / 2.0, speed=2.0), own)
    assert float((model.varied(data, when, speed=2.0) - own).abs().max()) > 1e-3
    torch.testing.assert_close(model.varied(data, when[0]), own)
    for change in ({"speed": 0.0}, {"delay": math.inf}):
        with pytest.raises(ConfigurationError, match="expected"):
            model.varied(data, when, **change)


@torch.no_grad()
def test_spreads_of_speed_and_delay_are_in_the_units_of_the_data():
    model = build(speed_scale=0.4, delay_scale=0.7).eval()
    model.time_scale.fill_(10.0)
    assert model.pace_scales() == pytest.approx((0.4, 7.0))


@torch.no_grad()
def test_the_prior_of_speed_and_delay_ignores_the_visits():
    model, data = build().eval(), sequences()
    other = Sequences(data.x + 1.0, times=data.times, dtype=None)
    drawn = []
    for given in (data, other):
        torch.manual_seed(0)
        drawn.append(model.infer(visits_of(model, given), 5, "prior")[0])
    assert torch.equal(drawn[0][..., :2], drawn[1][..., :2])
    assert not torch.isclose(drawn[0][..., 2:], drawn[1][..., 2:]).any()
    courses = model.possible_courses(data, [0.0, 9.0], n=3)
    assert courses.values.shape == (3, 5, 2, 4)
    assert courses.effective_samples is None


def test_new_individuals_come_from_the_mixture():
    generator = torch.Generator().manual_seed(0)
    group = torch.where(torch.rand(100, 1, 1, generator=generator) < 0.3, -3.0, 3.0)
    x = group + 0.1 * torch.randn(100, 3, 4, generator=generator)
    data = Sequences(x, times=torch.arange(3.0))
    torch.manual_seed(0)
    model = TrajectoryVAE((4,), 2, **SMALL, space_components=2)
    chartae.fit(model, data, epochs=40, learning_rate=2e-2, seed=0, progress=False)
    assert float(model.space_weights.sum()) == pytest.approx(1.0, abs=1e-5)
    drawn = model.generate(1000, [1.0], noise=False)
    assert float((drawn[:, 0, 0] < 0.0).float().mean()) == pytest.approx(0.3, abs=0.12)
    assert bool(((drawn.mean((1, 2)).abs() - 3.0).abs() < 1.0).float().mean() > 0.9)
    model.space_weights[0] = -1.0
    with pytest.raises(DataError, match="expected weights of a mixture"):
        model.check_buffers()
    chartae.fit(model, data.subset(range(4)), epochs=1, seed=0, progress=False)
    assert len(model.space_weights) == 1
    bare = TrajectoryVAE((4,), 2, **SMALL, space_components=0)
    chartae.fit(bare, data, epochs=1, seed=0, progress=False)
    assert not len(bare.space_weights)


def test_futures_from_one_visit_are_not_copies_of_a_few_draws():
    model, data = build(likelihood={"name": "gaussian", "scale": 0.05}).eval(), sequences()
    draws = model.futures(data.first(1), [3.0], 64, how="resample", noise=False)
    assert bool((draws.effective_samples < 4.0).all())  # what the weights alone would leave
    for values in draws.values.transpose(0, 1):
        copies = values.flatten(1).unique(dim=0, return_counts=True)[1]
        # An effective size of 16 allows no share above the root of 1/16; resampling rounds up.
        assert int(copies.max()) <= 64 / 16**0.5 + 1
    assert bool(
        (
            draws.log_fit.mean(0)
            > model.futures(data.first(1), [3.0], 64, how="best", noise=False).log_fit.mean(0)
        ).all()
    )


# --- known courses --------------------------------------------------------------------------------


GROUPS = torch.tensor([[0.7, -1.0], [-0.7, -1.0], [0.0, 1.5]])


@pytest.fixture(scope="module")
def courses():
    """Individuals of three paces: sequences, and the group, log speed and delay of each."""
    generator = torch.Generator().manual_seed(0)
    group = torch.arange(240) % 3
    pace = GROUPS[group] + 0.15 * torch.randn(240, 2, generator=generator)
    times = 6.0 * torch.rand(240, 6, generator=generator).sort(1).values - 3.0
    place = pace[:, :1].exp() * (times - pace[:, 1:])
    space = 0.3 * torch.randn(240, 1, 2, generator=generator)
    x = torch.stack([place.tanh(), 0.3 * place], -1)
    x = torch.cat([x + space[..., :1], x[..., :1] + space], -1)
    x = x + 0.05 * torch.randn(x.shape, generator=generator)
    return Sequences(x, times=10.0 + times), group, pace


@pytest.fixture(scope="module")
def trained(courses):
    torch.manual_seed(0)
    networks = {name: {"name": "mlp", "hidden": [32]} for name in ("encoder", "decoder")}
    model = TrajectoryVAE((4,), 3, **networks, hidden=32)
    train = courses[0].subset(range(180))
    chartae.fit(
        model,
        train,
        epochs=150,
        batch_size=90,
        learning_rate=2e-2,
        scheduler="cosine",
        seed=0,
        progress=False,
    )
    return model


def explained(truth, *columns):
    """The share of the variance that a linear regression explains."""
    design = torch.stack([torch.ones_like(truth), *columns], -1)
    left = truth - design @ torch.linalg.lstsq(design, truth[:, None]).solution[:, 0]
    return 1.0 - float(left.var() / truth.var())


def test_speed_and_delay_are_recovered(courses, trained):
    data, _, pace = courses
    found = trained.trajectories(data.subset(range(180, 240)))
    assert spearmanr(found.speed, pace[180:, 0]).statistic > 0.9
    # The origin of the line is arbitrary: another one adds a multiple of 1 / speed to the delays.
    delay, slowness = found.delay.float(), 1.0 / found.speed.float()
    assert explained(pace[180:, 1], delay, slowness) > 0.8


def test_the_next_visit_is_predicted(courses, trained):
    test = courses[0].subset(range(180, 240))
    truth = test.x[:, 5]
    for seen in (2, 4):
        draws = trained.futures(test.first(seen), test.times[:, 5:], 64, how="best", noise=True)
        carried = (test.x[:, seen - 1] - truth).square().mean()
        assert float((draws.values.mean(0)[:, 0] - truth).square().mean()) < 0.5 * float(carried)
        low, high = (draws.values[:, :, 0].quantile(q, 0) for q in (0.05, 0.95))
        assert 0.8 < float(((truth >= low) & (truth <= high)).float().mean()) < 0.99


def test_groups_are_found(courses, trained):
    data, group, _ = courses
    test = data.subset(range(180, 240))
    found = cluster(trained, test, 3, coordinates=(0, 1))
    assert adjusted_rand_score(group[180:], found.labels) > 0.8
    assert torch.equal(found.predict(trained, test), found.labels)
    sizes = [len(found.members(label)) for label in range(3)]
    assert sum(sizes) == 60
    times = torch.tensor([9.0, 11.0])
    course = found.courses(trained, times)
    for label in range(3):  # the course of a centre is near those of its members
        rows = (found.labels == label).nonzero()[:, 0]
        own = trained.interpolate(test.subset(rows), times).mean().mean(0)
        assert float((course[label] - own).abs().max()) < 0.3
    assert repr(found).startswith("Clusters(60 individuals, groups of ")


# --- groups ---------------------------------------------------------------------------------------


@torch.no_grad()
def test_latents_are_compared_in_units_of_the_prior():
    model, data = build(speed_scale=0.2, delay_scale=3.0).eval(), sequences(12)
    found = cluster(model, data, 3, seed=1)
    points = model.individuals(data) / torch.tensor([0.2, 3.0, 1.0, 1.0]).double()
    again = chartae.geometry.kmeans(EuclideanMetric(4), points, 3, num_restarts=10, seed=1)
    assert adjusted_rand_score(found.labels, again.labels) == 1.0
    assert found.found.inertia == pytest.approx(again.inertia)
    means = torch.stack([model.individuals(data)[found.labels == k].mean(0) for k in range(3)])
    torch.testing.assert_close(found.centers, means)
    own = cluster(model, data, 3, metric=EuclideanMetric(4))
    assert own.found.inertia != pytest.approx(again.inertia)


@torch.no_grad()
def test_groups_of_the_origins_of_a_flow():
    data = sequences(6)
    model = FlowVAE((4,), 2, prior="vamp", num_pseudo_inputs=3, conditions=2).double().eval()
    data = Sequences(data.x, times=data.times, covariates=[0, 1, 0, 1, 0, 1], dtype=None)
    found = cluster(model, data, 2)
    course = found.courses(model, np.array([0.0, 1.0]), y=np.array([0, 1]))
    assert course.shape == (2, 2, 4)
    with pytest.raises(DataError, match="y"):
        found.courses(model, [0.0])


def test_doors():
    with pytest.raises(ConfigurationError, match="latent_dim=1: expected at least 2"):
        TrajectoryVAE((4,), 1)
    model, data = build().eval(), sequences()
    with pytest.raises(ConfigurationError, match="k=0"):
        cluster(model, data, 0)
    with pytest.raises(DataError, match="5 different"):
        cluster(model, data, 6)
    for coordinates in ((), (0, 0)):
        with pytest.raises(ConfigurationError, match="expected different numbers"):
            cluster(model, data, 2, coordinates=coordinates)
    with pytest.raises(ConfigurationError, match="coordinates=4"):
        cluster(model, data, 2, coordinates=(4,))
    found = cluster(model, data, 2)
    with pytest.raises(DataError, match="finite numbers"):
        found.courses(model, [math.nan])
    with pytest.raises(ConfigurationError, match="label=2"):
        found.members(2)
    visit = VisitVAE((4,), 2).double().eval()
    groups = cluster(visit, data, 2)
    with pytest.raises(ConfigurationError, match="a latent for each visit"):
        groups.courses(visit, [0.0])
