import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from chartae.distributions import (
    LIKELIHOODS,
    GaussianLikelihood,
    Likelihood,
    Moments,
    make_likelihood,
)
from chartae.errors import ConfigurationError, DataError

SPECS = {
    "bernoulli": "bernoulli",
    "continuous_bernoulli": "continuous_bernoulli",
    "discretized_logistic": "discretized_logistic",
    "gaussian": "gaussian",
    "gaussian fixed": {"name": "gaussian", "scale": 0.3},
    "gaussian per feature": {"name": "gaussian", "scale": "per_feature"},
    "gaussian sigmoid": {"name": "gaussian", "link": "sigmoid"},
    "laplace": "laplace",
    "laplace per feature": {"name": "laplace", "scale": "per_feature"},
}
every_likelihood = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
BOUNDED = ("bernoulli", "continuous_bernoulli", "discretized_logistic")


def data_for(likelihood: Likelihood, batch: int = 4, seed: int = 0) -> torch.Tensor:
    """Random data in the support of a likelihood."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand((batch, *likelihood.input_shape), generator=generator)
    if type(likelihood).__name__ == "BernoulliLikelihood":
        return x.round()
    if type(likelihood).__name__ == "DiscretizedLogisticLikelihood":
        return (255 * x).round() / 255
    return x


def test_all_are_covered():
    here = {s if isinstance(s, str) else s["name"] for s in SPECS.values()}
    elsewhere = {"categorical", "mixed", "negative_binomial"}  # test_discrete.py
    assert set(LIKELIHOODS) == here | elsewhere


# --- densities ----------------------------------------------------------------------------------

OUTPUTS = torch.tensor([-30.0, -5.0, -1.0, -1e-3, 0.0, 1e-3, 0.3, 2.0, 8.0, 30.0]).double()


def total_mass(likelihood: Likelihood, output: torch.Tensor) -> torch.Tensor:
    """Sum or integrate the density of each feature over all values."""
    distribution = likelihood.features(output)
    name = type(likelihood).__name__
    if name == "BernoulliLikelihood":
        values, weights = torch.tensor([0.0, 1.0]), torch.ones(2)
    elif name == "DiscretizedLogisticLikelihood":
        values, weights = torch.arange(256) / 255, torch.ones(256)
    elif name == "ContinuousBernoulliLikelihood":
        # Gauss-Legendre in disguise: a fine midpoint rule on the support.
        values, weights = (torch.arange(20000) + 0.5) / 20000, torch.full((20000,), 1 / 20000)
    else:
        values = torch.linspace(-45, 45, 200001)
        weights = torch.full((200001,), 90 / 200000)
    values, weights = values.double(), weights.double()
    density = distribution.log_prob(values[:, None]).exp()
    return (weights[:, None] * density).sum(0)


@every_likelihood
def test_mass_of_each_feature_is_one(spec):
    likelihood = make_likelihood(spec, OUTPUTS.shape).double()
    mass = total_mass(likelihood, OUTPUTS)
    torch.testing.assert_close(mass, torch.ones_like(mass), atol=1e-4, rtol=0)


@pytest.mark.parametrize("levels", [2, 16, 256])
@pytest.mark.parametrize("scale", [1e-3, 0.05, 2.0])
def test_discretized_logistic_sums_to_one_over_its_levels(levels, scale):
    likelihood = make_likelihood(
        {"name": "discretized_logistic", "levels": levels, "scale": scale}, (len(OUTPUTS),)
    )
    values = torch.arange(levels) / (levels - 1)
    mass = likelihood.features(OUTPUTS.float()).log_prob(values[:, None]).exp().sum(0)
    torch.testing.assert_close(mass, torch.ones_like(mass), atol=1e-4, rtol=0)


def reference(spec: dict, x: float, output: float) -> float:
    """The log density of one feature, by SciPy."""
    location = 1 / (1 + math.exp(-output)) if spec.get("link") == "sigmoid" else output
    match spec["name"]:
        case "bernoulli":
            return stats.bernoulli.logpmf(round(x), 1 / (1 + math.exp(-output)))
        case "continuous_bernoulli":  # a truncated exponential of rate -output
            flipped, rate = (1 - x, output) if output > 0 else (x, -output)
            return stats.truncexpon.logpdf(min(flipped, 1 - 1e-12), b=rate, scale=1 / rate)
        case "gaussian":
            return stats.norm.logpdf(x, location, spec["scale"])
        case "laplace":
            return stats.laplace.logpdf(x, location, spec["scale"])
        case "discretized_logistic":
            law, level = stats.logistic(1 / (1 + math.exp(-output)), spec["scale"]), round(255 * x)
            low = law.cdf((level - 0.5) / 255) if level > 0 else 0.0
            high = law.cdf((level + 0.5) / 255) if level < 255 else 1.0
            return math.log(high - low)


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "bernoulli"},
        {"name": "continuous_bernoulli"},
        {"name": "gaussian", "scale": 0.3},
        {"name": "gaussian", "scale": 0.7, "link": "sigmoid"},
        {"name": "laplace", "scale": 0.2},
        {"name": "discretized_logistic", "scale": 0.1},
    ],
    ids=lambda spec: "-".join(map(str, spec.values())),
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-6)])
def test_log_prob_with_its_constants_against_scipy(spec, dtype, tolerance):
    likelihood = make_likelihood(spec, (2, 3)).to(dtype)
    x = data_for(likelihood, batch=5).to(dtype)
    x[0] = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    output = torch.linspace(-3.0, 3.1, 30, dtype=dtype).reshape(5, 2, 3)
    expected = [
        sum(reference(spec, a, b) for a, b in zip(xs, outputs, strict=True))
        for xs, outputs in zip(x.flatten(1).tolist(), output.flatten(1).tolist(), strict=True)
    ]
    result = likelihood(output).log_prob(x)
    assert result.dtype == dtype
    torch.testing.assert_close(
        result, torch.tensor(expected, dtype=dtype), atol=tolerance, rtol=tolerance
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-6), (torch.float64, 1e-11)])
@pytest.mark.parametrize("logit", [0.0, 1e-6, 0.004, 0.0999, 0.1001, 1.0, 16.0, 50.0, 300.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_continuous_bernoulli_density_mean_and_slopes_at_any_logit(logit, sign, dtype, tolerance):
    # In float64, the density is l e^(lx) / (e^l - 1) and its mean 1 / (1 - e^-l) - 1 / l, which
    # is 1/2 + l/12 near 0; the slope of the log density in l is x - mean.
    likelihood = make_likelihood("continuous_bernoulli", (1,))
    output = torch.tensor([sign * logit], dtype=dtype, requires_grad=True)
    value = 0.3
    rate = output.item()
    if abs(rate) < 1e-5:
        log_density, mean = rate * (value - 0.5), 0.5 + rate / 12
    else:
        tail = math.log(-math.expm1(-abs(rate)) / abs(rate))
        log_density = rate * value - (rate if rate > 0 else 0.0) - tail
        mean = -1 / math.expm1(-rate) - 1 / rate
    distribution = likelihood(output[None])
    result = distribution.log_prob(torch.tensor([[value]], dtype=dtype))
    (slope,) = torch.autograd.grad(result.sum(), output)
    scale = max(1.0, logit)
    assert result.item() == pytest.approx(log_density, abs=tolerance * scale)
    # Two nearly equal terms of size 1 / l cancel in float32, and so in float64.
    assert distribution.mean.item() == pytest.approx(mean, abs=30 * tolerance)
    assert slope.item() == pytest.approx(value - mean, abs=30 * tolerance)


# --- masks --------------------------------------------------------------------------------------


@every_likelihood
@pytest.mark.parametrize("filler", [0.25, 1e6, math.nan])
def test_masked_features_contribute_nothing_and_neither_do_their_gradients(spec, filler):
    likelihood = make_likelihood(spec, (3, 4))
    x = data_for(likelihood, batch=5)
    mask = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    output = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(2))
    output.requires_grad_()
    likelihood(output).log_prob(torch.where(mask, x, filler), mask).sum().backward()
    masked = likelihood(output).log_prob(torch.where(mask, x, filler), mask)
    terms = likelihood.features(output).log_prob(x)
    torch.testing.assert_close(masked, (terms * mask).flatten(2).sum(-1))
    assert (output.grad[:, ~mask] == 0).all()
    assert (output.grad[:, mask] != 0).all()
    for parameter in likelihood.parameters():
        assert torch.isfinite(parameter.grad).all()
    if likelihood.input_shape == getattr(likelihood, "scale", torch.zeros(())).shape:
        never = ~mask.any(0)
        assert (next(likelihood.parameters()).grad[never] == 0).all()


@every_likelihood
def test_a_full_mask_is_no_mask_and_an_empty_one_is_zero(spec):
    likelihood = make_likelihood(spec, (6,))
    x, output = data_for(likelihood), torch.randn(4, 6)
    everything = torch.ones(4, 6, dtype=torch.bool)
    torch.testing.assert_close(
        likelihood(output).log_prob(x, everything), likelihood(output).log_prob(x)
    )
    assert (likelihood(output).log_prob(x, ~everything) == 0).all()


# --- contract -----------------------------------------------------------------------------------


@every_likelihood
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
    leading=st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_shapes_and_dtypes(spec, shape, leading, dtype):
    likelihood = make_likelihood(spec, shape).to(dtype)
    output = torch.randn(*leading, *likelihood.output_shape, dtype=dtype)
    observation = likelihood(output)
    assert observation.mean.shape == (*leading, *shape)
    assert observation.sample().shape == (*leading, *shape)
    assert observation.sample((2,)).shape == (2, *leading, *shape)
    log_prob = observation.log_prob(data_for(likelihood, batch=leading[-1]).to(dtype))
    assert log_prob.shape == leading
    assert log_prob.dtype == observation.mean.dtype == observation.sample().dtype == dtype


@every_likelihood
@pytest.mark.parametrize("size", [50.0, -50.0])
def test_extreme_outputs_give_finite_values_and_gradients(spec, size):
    likelihood = make_likelihood(spec, (5,))
    output = torch.full((3, 5), size, requires_grad=True)
    x = torch.tensor([[0.0], [128 / 255], [1.0]]).expand(3, 5)
    if spec == "bernoulli":
        x = x.round()
    log_prob = likelihood(output).log_prob(x)
    log_prob.sum().backward()
    assert torch.isfinite(log_prob).all()
    assert torch.isfinite(output.grad).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in likelihood.parameters())


@every_likelihood
def test_mean_is_in_the_range_of_the_data(spec):
    likelihood = make_likelihood(spec, (5,))
    mean = likelihood(torch.linspace(-100, 100, 500).reshape(100, 5)).mean
    low, high = likelihood.support
    assert torch.isfinite(mean).all()
    assert (mean >= low).all()
    assert (mean <= high).all()


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_samples_have_the_mean_and_stay_in_the_support(spec):
    likelihood = make_likelihood(spec, (6,))
    observation = likelihood(torch.tensor([[-20.0, -2.0, -1e-3, 0.0, 0.7, 20.0]]))
    torch.manual_seed(0)
    samples = observation.sample((40000,))[:, 0]
    low, high = type(likelihood).support  # with a sigmoid link, samples may leave the data's range
    assert low <= samples.min()
    assert samples.max() <= high
    error = (samples.mean(0) - observation.mean[0]).abs()
    tolerance = 5 * samples.std(0) / 40000**0.5 + 1e-6
    if spec == "discretized_logistic":  # its mean ignores the tails, by design
        tolerance = tolerance + 0.5
    assert (error <= tolerance).all()


@every_likelihood
@pytest.mark.parametrize("size", [1.0, 100.0])
def test_draws_are_data(spec, size):
    torch.manual_seed(0)
    likelihood = make_likelihood(spec, (6,))
    drawn = likelihood.draw(size * torch.randn(500, 6))
    likelihood.check_data("drawn", drawn)
    assert drawn.shape == (500, 6)
    assert not drawn.requires_grad
    assert not likelihood.discrete


def test_a_draw_varies_as_the_likelihood_says():
    torch.manual_seed(0)
    drawn = make_likelihood({"name": "gaussian", "scale": 0.3}, (1,)).draw(
        torch.full((9000, 1), 2.0)
    )
    assert drawn.mean().item() == pytest.approx(2.0, abs=0.02)
    assert drawn.std().item() == pytest.approx(0.3, abs=0.02)
    squashed = make_likelihood({"name": "gaussian", "scale": 0.3, "link": "sigmoid"}, (1,))
    # Half of the density around a mean of 1 is beyond it.
    share = (squashed.draw(torch.full((9000, 1), 50.0)) == 1.0).double().mean().item()
    assert share == pytest.approx(0.5, abs=0.03)


# --- arrays with bounds --------------------------------------------------------------------------

ENDS = pytest.mark.parametrize("spec", ["gaussian", {"name": "laplace", "scale": 0.5}])


def with_bounds(spec, low=-20.0, high=300.0):
    """Likelihood of arrays whose values, beyond [0, 1], are cut off; centres are inside but one."""
    generator = torch.Generator().manual_seed(0)
    x = 150 + 150 * torch.randn(80, 2, 3, generator=generator, dtype=torch.float64)
    x[:, 0, 0] = low
    x = x.clamp(low, high)
    likelihood = make_likelihood(spec, (2, 3)).double()
    likelihood.set_units(Moments.of([(x, None)]))
    return likelihood, x


@ENDS
def test_the_means_of_arrays_with_bounds_stay_inside(spec):
    likelihood, x = with_bounds(spec)
    for size in (1.0, 1e3):
        mean = likelihood(size * torch.randn(2000, 2, 3, dtype=torch.float64)).mean
        assert mean.amin() >= -20.0
        assert mean.amax() <= 300.0
    assert (mean.amin(), mean.amax()) == (-20.0, 300.0)
    drawn = likelihood.draw(torch.randn(2000, 2, 3, dtype=torch.float64))
    assert (drawn.amin(), drawn.amax()) == (-20.0, 300.0)
    assert likelihood.squashed(10 * torch.randn(99, 2, 3).double()).amin() >= -20.0
    likelihood.check_data("x", x + 500.0)  # what is held out may lie beyond


@ENDS
def test_small_outputs_give_what_they_give_without_bounds(spec):
    likelihood, _ = with_bounds(spec)
    free, _ = with_bounds(
        {**({"name": spec} if isinstance(spec, str) else spec), "link": "identity"}
    )
    output = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(likelihood(output).mean.sum(), output)
    inside = torch.ones(2, 3, dtype=torch.bool)
    inside[0, 0] = False  # a blank pixel, whose centre is put a hundredth of the range above
    mean = likelihood(output).mean
    torch.testing.assert_close(mean[inside], free(output).mean[inside])
    torch.testing.assert_close(slope[inside], free.spread.expand(5))
    assert mean[0, 0].item() == pytest.approx(-20.0 + 3.2)
    assert slope[0, 0].item() == pytest.approx(free.spread.item())


def test_densities_of_arrays_with_bounds_are_in_the_units_of_the_data():
    likelihood, x = with_bounds({"name": "gaussian", "scale": 0.5})
    mean = likelihood(torch.ones(2, 3, dtype=torch.float64)).mean.detach().numpy()
    expected = stats.norm(mean, 0.5 * likelihood.spread.item()).logpdf(x.numpy()).sum((1, 2))
    found = likelihood(torch.ones(80, 2, 3, dtype=torch.float64)).log_prob(x)
    torch.testing.assert_close(found, torch.from_numpy(expected))


def test_bounds_are_those_of_the_latest_training_set_and_never_of_vectors():
    likelihood, x = with_bounds("gaussian")
    output = 1e3 * torch.ones(2, 3, dtype=torch.float64)
    assert likelihood.location(output).amax() == 300.0
    for other in (x / 640 + 0.1, x + 0.01 * torch.rand_like(x)):  # in [0, 1]; without bounds
        likelihood.set_units(Moments.of([(other, None)]))
        free = likelihood.center + likelihood.spread * output
        torch.testing.assert_close(likelihood.location(output), free)
        assert (likelihood.low, likelihood.high) == (-math.inf, math.inf)
    vector = make_likelihood("gaussian", (6,)).double()
    vector.set_units(Moments.of([(x.flatten(1), None)]))
    assert {name for name, _ in vector.named_buffers()} == {"center", "spread"}


def test_continuous_bernoulli_samples_follow_its_density():
    for logit in (-6.0, 0.05, 3.0):
        likelihood = make_likelihood("continuous_bernoulli", (1,))
        torch.manual_seed(0)
        samples = likelihood(torch.tensor([[logit]])).rsample((5000,)).flatten().numpy()
        rate = abs(logit)
        law = stats.truncexpon(b=rate, scale=1 / rate)
        assert stats.kstest(samples if logit < 0 else 1 - samples, law.cdf).pvalue > 1e-3


def test_discretized_logistic_samples_follow_its_probabilities():
    likelihood = make_likelihood({"name": "discretized_logistic", "levels": 8}, (1,))
    observation = likelihood(torch.tensor([[0.4]]))
    levels = torch.arange(8) / 7
    probabilities = observation.log_prob(levels[:, None]).exp().detach()
    torch.manual_seed(0)
    counts = torch.bincount(
        (observation.sample((20000,)) * 7).round().long().flatten(), minlength=8
    )
    assert stats.chisquare(counts, 20000 * probabilities / probabilities.sum()).pvalue > 1e-3


# --- data and arguments -------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*BOUNDED, {"name": "gaussian", "link": "sigmoid"}])
@pytest.mark.parametrize("value", [-0.01, 1.01, 255.0])
def test_data_out_of_the_support_are_refused(name, value):
    likelihood = make_likelihood(name, (3,))
    x = torch.full((2, 3), 0.5)
    likelihood.check_data("x", x)
    x[1, 1] = value
    with pytest.raises(DataError, match=r"x has values in \[.*\]: .* expects values in \[0, 1\]"):
        likelihood.check_data("x", x)


@every_likelihood
def test_non_finite_data_are_refused(spec):
    likelihood = make_likelihood(spec, (3,))
    for bad in (math.nan, math.inf):
        with pytest.raises(DataError, match="NaN or infinite"):
            likelihood.check_data("x", torch.tensor([[0.5, bad, 0.5]]))


def test_gaussian_scales():
    assert GaussianLikelihood((3, 4), scale=0.1).scale == pytest.approx(0.1)
    assert not list(GaussianLikelihood((3, 4), scale=0.1).parameters())
    assert GaussianLikelihood((3, 4)).scale.shape == ()
    assert GaussianLikelihood((3, 4), scale="per_feature").scale.shape == (3, 4)
    tiny = GaussianLikelihood((3,))
    torch.nn.init.constant_(tiny.raw_scale, -1e4)
    assert tiny.scale.shape == (3,)  # each feature of a vector has units of its own
    assert tiny.scale.tolist() == pytest.approx([tiny.floor] * 3)


def test_a_learned_scale_finds_the_maximum_of_the_likelihood():
    # Residuals of standard deviation s, Laplace or Gaussian: the best scale is known.
    residuals = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0)) * 0.2
    for name, best in (("gaussian", residuals.square().mean().sqrt()), ("laplace", None)):
        likelihood = make_likelihood(name, (3,))
        best = residuals.abs().mean() if best is None else best
        optimizer = torch.optim.LBFGS(likelihood.parameters(), max_iter=50)

        def closure(likelihood=likelihood, optimizer=optimizer):
            optimizer.zero_grad()
            loss = -likelihood(torch.zeros(2000, 3)).log_prob(residuals).mean()
            loss.backward()
            return loss

        optimizer.step(closure)
        assert likelihood.scale.tolist() == pytest.approx([float(best)] * 3, rel=1e-3)


@pytest.mark.parametrize(
    ("spec", "chosen"),
    [
        ("bernoulli", "likelihood='bernoulli'"),
        ({"name": "gaussian", "link": "sigmoid"}, "likelihood='gaussian' with link='sigmoid'"),
        ("discretized_logistic", "likelihood='discretized_logistic'"),
        ("negative_binomial", "likelihood='negative_binomial'"),
    ],
)
def test_data_out_of_range_are_told_which_option_changes_it(spec, chosen):
    low, high = make_likelihood(spec, (2,)).support
    expected = re.escape(
        f"x has values in [-2, 3]: {chosen} expects values in [{low:g}, {high:g}]; "
        "likelihood='gaussian' with link='identity' takes any values"
    )
    with pytest.raises(DataError, match=f"^{expected}$"):
        make_likelihood(spec, (2,)).check_data("x", torch.tensor([[-2.0, 3.0]]))
    make_likelihood({"name": "gaussian", "link": "identity"}, (2,)).check_data(
        "x", torch.tensor([[-2.0, 3.0]])
    )


def test_a_likelihood_of_your_own_is_named_by_its_class():
    class Halves(Likelihood):
        support = (0.0, 0.5)

    with pytest.raises(DataError, match=r"the likelihood Halves expects values in \[0, 0.5\]"):
        Halves((2,)).check_data("x", torch.ones(3, 2))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gausian", "likelihood='gausian' is not known.*mean 'gaussian'"),
        ({"name": "gaussian", "sigma": 1.0}, "sigma"),
        ({"scale": 1.0}, "likelihood=None is not known"),
        ({"name": "gaussian", "scale": 0.0}, "scale=0.0: expected .* greater than 0"),
        ({"name": "gaussian", "scale": "all"}, "scale='all' is not known"),
        ({"name": "laplace", "link": "tanh"}, "link='tanh' is not known"),
        ({"name": "discretized_logistic", "levels": 1}, "levels=1: expected .* at least 2"),
        (GaussianLikelihood((4,)), r"for data of shape \(4,\): expected \(3,\)"),
    ],
)
def test_wrong_specifications_are_refused(spec, message):
    with pytest.raises(ConfigurationError, match=message):
        make_likelihood(spec, (3,))


def test_an_object_is_taken_as_it_is():
    likelihood = GaussianLikelihood((3,), scale=2.0)
    assert make_likelihood(likelihood, (3,)) is likelihood
