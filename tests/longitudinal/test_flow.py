"""FlowVAE against exact likelihoods and posteriors of linear-Gaussian models."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from chartae.data import Sequences
from chartae.distributions import FullNormal
from chartae.errors import ConfigurationError, DataError
from chartae.longitudinal import FlowVAE
from chartae.longitudinal.time_flows import OdeFlow

FEATURES, LATENTS, VISITS, NOISE = 3, 2, 3, 0.8
MATRIX = torch.tensor([[0.2, -0.4], [0.5, 0.1]], dtype=torch.float64)


class LinearField(OdeFlow):
    """dz/dt = A z, so that z(t) = exp(t A) u."""

    def field(self, z, times, context=None):
        return z @ MATRIX.mT, MATRIX.trace().expand(z.shape[:-1])


def rotated(model):
    """Make the flow that of a linear field."""
    model.time_flow = LinearField(LATENTS, num_steps=12).double()


def scaled(model):
    """Make the coupling flow affine in u, with scales and shifts that depend on time and y."""
    with torch.no_grad():
        for network in model.time_flow.layers.networks:
            network[0].weight[:, : LATENTS // 2] = 0.0
            network[-1].weight.normal_(std=0.1)


def make(flow=rotated, **options):
    """A FlowVAE whose joint law of visits is Gaussian, and which proposes wide posteriors."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = FlowVAE(
            (FEATURES,),
            LATENTS,
            encoder={"name": "mlp", "hidden": [8]},
            decoder=nn.Linear(LATENTS + options.get("conditions", 0), FEATURES),
            likelihood={"name": "gaussian", "scale": NOISE, "link": "identity"},
            **options,
        ).double()
        flow(model)
    with torch.no_grad():
        # Wider than the posteriors: the weights have a variance.
        model.posterior_head.linear.weight.mul_(0.1)
        model.posterior_head.linear.bias[:4] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    return model.eval()


def sequences(kind="complete", conditions=False, count=5):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, VISITS, FEATURES, generator=generator, dtype=torch.float64)
    times = torch.rand(count, VISITS, generator=generator, dtype=torch.float64) * 3.0 - 1.5
    y = torch.arange(count) % 2 if conditions else None
    data = Sequences(x, times=times, covariates=y, dtype=torch.float64)
    hidden = {"visits": {"visits": 0.5}, "features": {"features": 0.4}}
    hidden["both"] = {**hidden["visits"], **hidden["features"]}
    return data.hidden(**hidden[kind], seed=3) if kind in hidden else data


def affine(model, times, y):
    """E(t) and e(t) of z(t) = E(t) u + e(t), from the flow at the origin and the unit vectors."""
    points = torch.cat([torch.zeros(1, LATENTS), torch.eye(LATENTS)]).double()
    count = len(times)
    context = model._context(y)
    if isinstance(model.time_flow, LinearField):
        matrices = torch.linalg.matrix_exp(times[:, None, None] * MATRIX)
        return matrices, torch.zeros(count, LATENTS, dtype=torch.float64)
    images, _ = model.time_flow(points[:, None].expand(-1, count, -1), times, context)
    return (images[1:] - images[0]).permute(1, 2, 0), images[0]


@torch.no_grad()
def law(model, times, y=None):
    """G and g of the mean G u + g of the visits at some times, flattened."""
    matrices, offsets = affine(model, times, None if y is None else y.repeat(len(times)))
    weight, bias = model.decoder.weight[:, :LATENTS], model.decoder.bias
    if y is not None:
        bias = bias + model.decoder.weight[:, LATENTS:] @ model.condition(y[None])[0]
    return (weight @ matrices).flatten(0, 1), (offsets @ weight.mT + bias).flatten()


def components(model):
    """Weights, means and covariances of the prior's components."""
    prior = model.prior()
    if hasattr(prior, "weights"):
        return prior.weights, prior.loc, torch.diag_embed(prior.scale.square())
    return torch.ones(1), torch.zeros(1, LATENTS).double(), torch.eye(LATENTS)[None].double()


def observed(data, row):
    """What was observed of an individual, flattened, and the flags of all its features."""
    known = data.observed[row, :, None].expand(data.x[row].shape)
    known = known if data.mask is None else data.mask[row]
    return data.x[row].flatten()[known.flatten()], known.flatten()


@torch.no_grad()
def exact(model, data):
    """Log p of what was observed of each individual."""
    logs = []
    for row in range(len(data)):
        matrix, offset = law(model, data.times[row], None if data.y is None else data.y[row])
        values, known = observed(data, row)
        matrix, offset = matrix[known], offset[known]
        parts = [
            weight.log()
            + MultivariateNormal(
                matrix @ mean + offset,
                matrix @ covariance @ matrix.mT + NOISE**2 * torch.eye(len(values)),
            ).log_prob(values)
            for weight, mean, covariance in zip(*components(model), strict=True)
        ]
        logs.append(torch.stack(parts).logsumexp(0))
    return torch.stack(logs)


def posterior_of(model, data, row):
    """Mean and covariance of u given what was observed, under the standard prior."""
    matrix, offset = law(model, data.times[row], None if data.y is None else data.y[row])
    values, known = observed(data, row)
    matrix, offset = matrix[known], offset[known]
    precision = torch.eye(LATENTS) + matrix.mT @ matrix / NOISE**2
    covariance = torch.linalg.inv(precision)
    return covariance @ matrix.mT @ (values - offset) / NOISE**2, covariance


VARIANTS = {
    "set": {},
    "visit": {"inference": "visit"},
    "set, vamp": {"prior": "vamp", "num_pseudo_inputs": 4},
    "visit, vamp": {"inference": "visit", "prior": "vamp", "num_pseudo_inputs": 4},
    "set, iaf": {"posterior_flows": 2},
    "visit, iaf": {"inference": "visit", "posterior_flows": 2},
    "set, full": {"posterior_covariance": "full"},
}


def agrees(model, data, proposal):
    """The estimate, and how far it is from the exact value in Monte Carlo errors."""
    found = model.log_likelihood(data, 4_000, proposal=proposal, seed=2)
    error = (1.0 / found.effective_samples - 1.0 / found.num_samples).sqrt()
    assert float(error.max()) < 0.2
    assert bool(((found.log_prob - exact(model, data)).abs() < 4.5 * error + 1e-6).all())


@pytest.mark.parametrize(
    "variant",
    [pytest.param(name, marks=[pytest.mark.slow] * ("iaf" in name)) for name in VARIANTS],
)
@pytest.mark.parametrize("kind", ["complete", "both"])
def test_every_proposal_agrees_with_the_exact_likelihood(variant, kind):
    model = make(**VARIANTS[variant])
    for proposal in model.proposals:
        agrees(model, sequences(kind), proposal)


@pytest.mark.parametrize("kind", ["visits", "features"])
@pytest.mark.parametrize("inference", ["set", "visit"])
def test_likelihoods_with_conditions(kind, inference):
    model = make(scaled, conditions=2, inference=inference)
    data = sequences(kind, conditions=True)
    for proposal in model.proposals:
        agrees(model, data, proposal)


def test_the_exact_posterior_makes_the_estimate_exact(monkeypatch):
    model, data = make(), sequences("both")
    means, covariances = zip(*(posterior_of(model, data, row) for row in range(5)), strict=True)
    q = FullNormal(torch.stack(means), torch.linalg.cholesky(torch.stack(covariances)))
    monkeypatch.setattr(model, "posterior", lambda visits: q)
    found = model.log_likelihood(data, 10, proposal="set")
    torch.testing.assert_close(found.log_prob, exact(model, data), atol=1e-6, rtol=0.0)
    torch.testing.assert_close(found.effective_samples, torch.full((5,), 10.0).double())


def test_an_individual_with_one_visit_has_one_proposal():
    """Then a mixture over visits is its only component."""
    model, data = make(inference="visit"), sequences().first(1)
    mixture, visit = (model.log_likelihood(data, 500, proposal=p) for p in ("mixture", "visit"))
    error = 5.0 * (1.0 / visit.effective_samples - 1.0 / 500).sqrt()
    assert bool(((mixture.log_prob - visit.log_prob).abs() < error).all())


def test_what_log_likelihood_reports():
    model, data = make(), sequences("both")
    found = model.log_likelihood(data, 50)
    assert found.num_visits.tolist() == data.num_visits.tolist()
    assert found.num_features.tolist() == data.mask.flatten(1).sum(1).tolist()
    assert bool((found.effective_samples <= 50.0).all())
    assert bool((found.effective_samples >= 1.0).all())
    constant = 0.5 * math.log(2.0 * math.pi) * (found.num_features / found.num_visits).mean()
    assert found.per_visit() - found.per_visit(constant=False) == pytest.approx(float(constant))
    again = model.log_likelihood(data, 50)
    assert torch.equal(found.log_prob, again.log_prob)
    assert not torch.equal(found.log_prob, model.log_likelihood(data, 50, seed=1).log_prob)


def test_blocks_of_samples_change_the_estimate_by_monte_carlo_error_only(monkeypatch):
    model, data = make(), sequences("both")
    monkeypatch.setattr("chartae.longitudinal.base.BLOCK", 2_000)
    agrees(model, data, "set")


# --- draws --------------------------------------------------------------------------------------


@pytest.mark.parametrize("inference", ["set", "visit"])
def test_resampled_futures_have_the_moments_of_the_posterior(inference):
    model, data = make(inference=inference), sequences("both")
    when = torch.tensor([-0.5, 1.0, 2.0])
    draws = model.futures(data, when, 8_000, noise=False)
    for row in range(len(data)):
        mean, covariance = posterior_of(model, data, row)
        matrix, offset = law(model, when.double())
        expected = (matrix @ mean + offset).reshape(3, FEATURES)
        deviation = (matrix @ covariance @ matrix.mT).diagonal().sqrt().reshape(3, FEATURES)
        error = 5.0 * deviation / draws.effective_samples[row].sqrt()
        assert bool(((draws.mean()[row] - expected).abs() < error).all())
        assert bool(((draws.std()[row] - deviation).abs() < error).all())
        upper = expected + 1.2816 * deviation
        assert bool(((draws.quantile(0.9)[row] - upper).abs() < 2.0 * error).all())


def test_noise_adds_that_of_the_likelihood():
    model, data = make(), sequences()
    plain = model.impute(data, "resample", 4_000, noise=False).std().square()
    noisy = model.impute(data, "resample", 4_000, noise=True).std().square()
    torch.testing.assert_close(noisy - plain, torch.full_like(plain, NOISE**2), atol=0.15, rtol=0.0)


def test_the_best_draw_fits_best_and_the_naive_one_sees_one_visit():
    model, data = make(), sequences("visits")
    draws = model.impute(data, "best", 32, noise=False)
    assert draws.values.shape == (32, 5, VISITS, FEATURES)
    index = draws.log_fit.argmax(0)
    assert torch.equal(draws.point(), draws.values[index, torch.arange(5)])
    assert torch.equal(draws.completed()[data.observed], data.x[data.observed])
    assert torch.equal(draws.completed()[~data.observed], draws.point()[~data.observed])
    naive = model.impute(data, "naive", 4, noise=False)
    assert torch.equal(naive.point(), naive.values[0])
    assert draws.effective_samples is None


def test_log_fit_of_draws_is_the_likelihood_of_what_was_observed():
    model, data = make(), sequences("both")
    for how in ("best", "resample"):
        draws = model.impute(data, how, 6, noise=False)
        for row in range(len(data)):
            values, known = observed(data, row)
            means = draws.values[:, row].flatten(1)[:, known]
            expected = torch.distributions.Normal(means, NOISE).log_prob(values).sum(-1)
            torch.testing.assert_close(draws.log_fit[:, row], expected)


def test_generated_individuals_have_the_law_of_the_model():
    model, when = make(), torch.tensor([-1.0, 0.5])
    x = model.generate(8_000, when, noise=True, seed=4).flatten(1)
    matrix, offset = law(model, when.double())
    covariance = matrix @ matrix.mT + NOISE**2 * torch.eye(len(offset))
    torch.testing.assert_close(x.mean(0), offset, atol=0.06, rtol=0.0)
    torch.testing.assert_close(x.mT.cov(), covariance, atol=0.1, rtol=0.0)


# --- the objective ------------------------------------------------------------------------------


def repeated(data, times):
    return {name: value.repeat_interleave(times, 0) for name, value in data.tensors.items()}


@pytest.mark.parametrize("normalised", [False, True])
def test_the_objective_is_the_bound_of_the_thesis(monkeypatch, normalised):
    """With the exact posterior, the bound is log p; a mean over visits divides the fit alone."""
    model, data = make(length_normalised=normalised), sequences("both", count=1)
    mean, covariance = posterior_of(model, data, 0)
    factor = torch.linalg.cholesky(covariance)
    q = FullNormal(mean.expand(8_000, -1), factor.expand(8_000, -1, -1))
    monkeypatch.setattr(model, "posterior", lambda visits: q)
    terms = model.loss(**repeated(data, 8_000)).terms
    divisor = int(data.num_visits[0]) if normalised else 1
    bound = -divisor * terms["reconstruction"] - terms["kl"]
    assert float(bound.detach()) == pytest.approx(float(exact(model, data)), abs=0.1)


@pytest.mark.parametrize("inference", ["set", "visit"])
def test_the_divergence_is_that_of_the_origin(inference):
    """The mean of log q(u) - log p(u), which `infer` gives, is the term of the objective."""
    model, data = make(inference=inference), sequences(count=1)
    terms = model.loss(**repeated(data, 8_000)).terms
    _, ratio = model.infer(
        model.visits(**data.tensors), 8_000, model.proposals[-1] if inference == "visit" else "set"
    )
    assert float(terms["kl"].detach()) == pytest.approx(-float(ratio.detach().mean()), abs=0.1)


@pytest.mark.parametrize("inference", ["set", "visit"])
def test_warmup_passes_from_single_visits_to_sequences_without_a_jump(inference):
    model, data = make(inference=inference, warmup=10), sequences("both")

    def loss(epoch):
        model.epoch = epoch
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return float(model.loss(**data.tensors).objectives["model"].detach())

    assert loss(0) == loss(3) == loss(5)
    assert loss(10) == loss(11) == loss(math.inf)
    assert loss(10 - 1e-6) == pytest.approx(loss(10), abs=1e-4)
    middle = loss(7.5)
    assert loss(7.5 + 1e-6) == pytest.approx(middle, abs=1e-4)
    model.warmup = 0
    assert loss(0) == loss(10)


def test_the_first_epochs_are_those_of_a_vae_of_single_visits():
    model, data = make(inference="visit", warmup=10), sequences()
    model.epoch = 0
    before = model.loss(**repeated(data, 400)).objectives["model"]
    model.time_flow.forward = None  # the flow has no part in it
    model.time_flow.along = None
    after = model.loss(**repeated(data, 400)).objectives["model"]
    assert float(before.detach()) == pytest.approx(float(after.detach()), rel=0.02)
    visits = data.x.flatten(0, 1).repeat(400, 1)
    q = model.posterior_head(model.features(visits))
    fit = model.likelihood(q.rsample()).log_prob(visits)
    kl = 0.5 * (q.mean.square() + q.variance - 1.0) - q.stddev.log()
    expected = -VISITS * (fit - kl.sum(-1)).mean()
    assert float(after.detach()) == pytest.approx(float(expected.detach()), rel=0.02)


def test_hidden_visits_of_training():
    model, data = make(hidden_share=1.0), sequences(count=5)
    visits = model.visits(**repeated(data, 2_000))
    kept = model._partly_hidden(visits)
    share = torch.bincount(kept.counts, minlength=VISITS + 1).double() / len(kept.counts)
    torch.testing.assert_close(share[1:], torch.full((3,), 1 / 3).double(), atol=0.02, rtol=0.0)
    assert bool((kept.counts >= 1).all())
    # A first visit stays always in the half that keeps prefixes, else as often as any.
    starts = visits.times[visits.starts]
    first = (kept.times[kept.starts] == starts).double().mean()
    assert float(first) == pytest.approx(0.5 + 0.5 * 2 / 3, abs=0.02)
    assert len(make(hidden_share=0.0)._partly_hidden(visits)) == len(visits)


# --- arguments ----------------------------------------------------------------------------------


def test_refusals():
    with pytest.raises(ConfigurationError, match="inference='sets' is not known"):
        make(inference="sets")
    with pytest.raises(ConfigurationError, match=r"hidden_share=1\.5"):
        make(hidden_share=1.5)
    model, data = make(inference="visit"), sequences()
    with pytest.raises(ConfigurationError, match="proposal='set' is not known"):
        model.log_likelihood(data, 5, proposal="set")
    with pytest.raises(ConfigurationError, match="how='first' is not known"):
        model.impute(data, "first")
    for times in ([], [0.0, math.nan]):
        with pytest.raises(DataError, match="times is empty, or has NaN"):
            model.futures(data, times)
    with pytest.raises(DataError, match=r"times has shape \(2, 1\): expected \(K,\) or \(5, K\)"):
        model.futures(data, [[1.0], [2.0]])
    with pytest.raises(DataError, match="sequences is Tensor"):
        model.log_likelihood(data.x)
