import json
import math

import pytest
import torch
from scipy import stats

import chartae
from chartae.distributions import (
    CategoricalLikelihood,
    GaussianLikelihood,
    NegativeBinomialLikelihood,
    make_likelihood,
)
from chartae.errors import ConfigurationError, DataError

COLUMNS = [
    ["gaussian", 3],
    {"name": "bernoulli", "width": 2},
    ["categorical", 4],
    {"name": "negative_binomial", "width": 1, "dispersion": "learned"},
]
MIXED = {"name": "mixed", "columns": COLUMNS}
SPECS = {
    "categorical": ("categorical", (2, 4)),
    "negative_binomial": ("negative_binomial", (3,)),
    "negative_binomial learned": ({"name": "negative_binomial", "dispersion": "learned"}, (2, 2)),
    "mixed": (MIXED, (10,)),
}
every_spec = pytest.mark.parametrize(("spec", "shape"), SPECS.values(), ids=SPECS)


def one_hot(*leading: int, k: int = 4) -> torch.Tensor:
    return torch.eye(k)[torch.randint(k, leading)]


def data_for(spec, shape: tuple[int, ...], batch: int = 5) -> torch.Tensor:
    if spec == "categorical":
        return one_hot(batch, *shape[:-1], k=shape[-1])
    if spec == MIXED:
        flags = torch.rand(batch, 2).round()
        counts = torch.poisson(torch.full((batch, 1), 4.0))
        return torch.cat([torch.randn(batch, 3), flags, one_hot(batch), counts], -1)
    return torch.poisson(torch.full((batch, *shape), 4.0))


# --- probabilities ------------------------------------------------------------------------------


def test_categories_sum_to_one_and_have_torchs_log_probabilities():
    torch.manual_seed(0)
    likelihood = CategoricalLikelihood((4,))
    output = 5 * torch.randn(6, 4)
    log_prob = torch.stack([likelihood(output).log_prob(row) for row in torch.eye(4)], -1)
    torch.testing.assert_close(log_prob, output.log_softmax(-1))
    torch.testing.assert_close(log_prob.exp().sum(-1), torch.ones(6))
    torch.testing.assert_close(likelihood(output).mean, output.softmax(-1))
    # Shares of categories have the cross-entropy.
    shares = torch.rand(6, 4).softmax(-1)
    torch.testing.assert_close(
        likelihood(output).log_prob(shares), (shares * output.log_softmax(-1)).sum(-1)
    )


def dispersed(shape: tuple[int, ...], alpha: float) -> NegativeBinomialLikelihood:
    likelihood = NegativeBinomialLikelihood(shape)
    raw = alpha - likelihood.floor
    torch.nn.init.constant_(
        likelihood.raw_dispersion, raw if raw > 20 else math.log(math.expm1(raw))
    )
    return likelihood


@pytest.mark.parametrize("alpha", [2e-4, 0.3, 5.0])
@pytest.mark.parametrize("mean", [1e-3, 1.0, 50.0])
def test_counts_sum_to_one_with_the_mean_and_variance_stated(alpha, mean):
    likelihood = dispersed((1,), alpha).double()
    distribution = likelihood(torch.tensor([[math.log(mean)]], dtype=torch.float64))
    counts = torch.arange(20_000, dtype=torch.float64)[:, None]
    mass = distribution.log_prob(counts).exp().detach()
    moments = [float((mass * counts[:, 0] ** k).sum()) for k in range(3)]
    assert moments[0] == pytest.approx(1.0, abs=1e-6)
    assert moments[1] == pytest.approx(mean, rel=1e-5)
    assert moments[2] - moments[1] ** 2 == pytest.approx(mean + alpha * mean**2, rel=1e-4)
    assert distribution.mean.item() == pytest.approx(mean)
    assert distribution.variance.item() == pytest.approx(mean + alpha * mean**2, rel=1e-6)


@pytest.mark.parametrize("alpha", [2e-4, 0.5, 30.0])
@pytest.mark.parametrize("count", [0.0, 7.0, 3e3, 1e6, 16_000_000.0])
def test_large_counts_in_float32(alpha, count):
    likelihood = dispersed((1,), alpha)
    size = 1 / likelihood.dispersion.item()
    for mean in (max(count, 1.0), 2.0 * count + 3.0):
        output = torch.tensor([[math.log(mean)]], requires_grad=True)
        expected = stats.nbinom.logpmf(count, size, size / (size + math.exp(output.item())))
        log_prob = likelihood(output).log_prob(torch.tensor([[count]]))
        assert log_prob.dtype == torch.float32
        assert log_prob.item() == pytest.approx(expected, rel=1e-5, abs=1e-5)
        log_prob.sum().backward()
        slope = size * (count - mean) / (size + mean)
        assert output.grad.item() == pytest.approx(slope, rel=1e-4, abs=1e-5 * (1 + size))


def test_a_learned_dispersion_finds_the_maximum_of_the_likelihood():
    torch.manual_seed(0)
    counts = torch.poisson(torch.distributions.Gamma(2.0, 0.2).sample((4000, 1)))  # alpha = 1/2
    likelihood = NegativeBinomialLikelihood((1,))
    optimizer = torch.optim.LBFGS(likelihood.parameters(), max_iter=30)

    def closure():
        optimizer.zero_grad()
        loss = -likelihood(torch.full((4000, 1), math.log(10.0))).log_prob(counts).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert likelihood.dispersion.item() == pytest.approx(0.5, rel=0.08)


def test_mixed_is_the_sum_of_its_blocks():
    torch.manual_seed(0)
    likelihood, x, output = (
        make_likelihood(MIXED, (10,)),
        data_for(MIXED, (10,)),
        torch.randn(5, 10),
    )
    expected, mean = torch.zeros(5), []
    for start, end, spec in [
        (0, 3, "gaussian"),
        (3, 5, "bernoulli"),
        (5, 9, "categorical"),
        (9, 10, {"name": "negative_binomial", "dispersion": "learned"}),
    ]:
        block = make_likelihood(spec, (end - start,))(output[:, start:end])
        expected = expected + block.log_prob(x[:, start:end])
        mean.append(block.mean)
    torch.testing.assert_close(likelihood(output).log_prob(x), expected)
    torch.testing.assert_close(likelihood(output).mean, torch.cat(mean, -1))


# --- masks --------------------------------------------------------------------------------------


@every_spec
@pytest.mark.parametrize("filler", [0.25, -3.0, 1e6, math.nan])
def test_masked_features_contribute_nothing_and_neither_do_their_gradients(spec, shape, filler):
    torch.manual_seed(0)
    likelihood, x = make_likelihood(spec, shape), data_for(spec, shape)
    mask = torch.rand(x.shape) < 0.6
    mask[0], mask[1] = True, False
    output = torch.randn(2, 5, *shape, requires_grad=True)
    log_prob = likelihood(output).log_prob(torch.where(mask, x, filler), mask)
    assert (log_prob[:, 1] == 0).all()
    torch.testing.assert_close(log_prob[:, 0], likelihood(output).log_prob(x)[:, 0])
    torch.testing.assert_close(log_prob, likelihood(output).log_prob(x, mask), rtol=0, atol=0)
    log_prob.sum().backward()
    assert (output.grad[:, ~mask] == 0).all()
    assert (output.grad[:, 0] != 0).all()
    for parameter in likelihood.parameters():
        assert torch.isfinite(parameter.grad).all()


def test_a_category_is_observed_as_a_whole_or_not_at_all():
    torch.manual_seed(0)
    x, output = one_hot(5, 2), torch.randn(5, 2, 4)
    mask = torch.ones(5, 2, 4, dtype=torch.bool)
    mask[:, 1, 2] = False
    expected = (x * output.log_softmax(-1)).sum(-1)[:, 0]
    torch.testing.assert_close(CategoricalLikelihood((2, 4))(output).log_prob(x, mask), expected)
    table, x, output = make_likelihood(MIXED, (10,)), data_for(MIXED, (10,)), torch.randn(5, 10)
    mask = torch.ones(5, 10, dtype=torch.bool)
    mask[:, 6] = False
    whole = mask.clone()
    whole[:, 5:9] = False
    torch.testing.assert_close(
        table(output).log_prob(x, mask), table(output).log_prob(x, whole), rtol=0, atol=0
    )


# --- contract -----------------------------------------------------------------------------------


@every_spec
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("leading", [(4,), (3, 4)])
def test_shapes_and_dtypes(spec, shape, dtype, leading):
    likelihood = make_likelihood(spec, shape).to(dtype)
    observation = likelihood(torch.randn(*leading, *likelihood.output_shape, dtype=dtype))
    assert observation.mean.shape == observation.sample().shape == (*leading, *shape)
    assert observation.sample(torch.Size([2])).shape == (2, *leading, *shape)
    log_prob = observation.log_prob(data_for(spec, shape, leading[-1]).to(dtype))
    assert log_prob.shape == leading
    assert log_prob.dtype == observation.mean.dtype == observation.sample().dtype == dtype


@every_spec
def test_samples_are_data_and_have_the_mean(spec, shape):
    torch.manual_seed(0)
    likelihood = make_likelihood(spec, shape)
    observation = likelihood(torch.randn(1, *shape))
    samples = observation.sample(torch.Size([20_000]))[:, 0].detach()
    likelihood.check_data("samples", samples)
    error = (samples.mean(0) - observation.mean[0]).abs()
    assert (error <= 5 * samples.std(0) / 20_000**0.5 + 1e-6).all()


@every_spec
@pytest.mark.parametrize("size", [1.0, 20.0, 100.0])
def test_draws_are_data_and_their_means_are_not(spec, shape, size):
    torch.manual_seed(0)
    likelihood = make_likelihood(spec, shape)
    output = size * torch.randn(200, *shape)
    drawn = likelihood.draw(output)
    likelihood.check_data("drawn", drawn)
    assert drawn.shape == output.shape
    assert likelihood.discrete
    if spec != "categorical":
        with pytest.raises(DataError):
            likelihood.check_data("mean", likelihood(torch.randn(200, *shape)).mean.detach())


def test_a_table_is_discrete_if_a_column_is():
    assert not make_likelihood(
        {"name": "mixed", "columns": [["gaussian", 2], ["bernoulli", 1]]}, (3,)
    ).discrete
    assert make_likelihood(MIXED, (10,)).discrete


@pytest.mark.parametrize("log_mean", [30.0, 45.0, 70.0])
def test_draws_of_very_large_counts(log_mean):
    torch.manual_seed(0)
    drawn = NegativeBinomialLikelihood((1,)).draw(torch.full((4000, 1), log_mean)).double()
    alpha = math.log(2.0) + 1e-4
    assert drawn.mean().item() / math.exp(log_mean) == pytest.approx(1.0, abs=0.05)
    assert (drawn.std() / drawn.mean()).item() == pytest.approx(alpha**0.5, abs=0.05)


@every_spec
@pytest.mark.parametrize("size", [100.0, -100.0])
def test_extreme_outputs_give_finite_values_and_gradients(spec, shape, size):
    torch.manual_seed(0)
    likelihood = make_likelihood(spec, shape)
    output = (size * torch.rand(5, *shape)).requires_grad_()
    observation = likelihood(output)
    log_prob = observation.log_prob(data_for(spec, shape))
    log_prob.sum().backward()
    assert torch.isfinite(observation.mean).all()
    assert torch.isfinite(log_prob).all()
    assert torch.isfinite(output.grad).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in likelihood.parameters())


@every_spec
def test_a_model_of_it_trains_and_is_saved(spec, shape, tmp_path):
    torch.manual_seed(0)
    model = chartae.VAE(shape, 2, encoder={"name": "mlp", "hidden": [8]}, likelihood=spec)
    x = data_for(spec, shape, 20)
    model.loss(x).objectives["model"].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert torch.isfinite(model.eval().log_likelihood(x, 5)).all()
    model.save_pretrained(tmp_path)
    twin = chartae.load(tmp_path)
    assert (twin.reconstruct(x) == model.reconstruct(x)).all()
    assert json.loads(json.dumps(model.config()["likelihood"])) == twin.config()["likelihood"]


# --- large counts in models ---------------------------------------------------------------------


class Recorded(torch.nn.Module):
    """An encoder that keeps what it has seen."""

    def forward(self, x):
        self.seen = x.detach()
        return x.flatten(1)


def test_encoders_see_counts_as_logs_and_other_columns_as_they_are():
    x = torch.tensor([[-0.5, 2.0, 0.3, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1e5]])
    encoder = Recorded()
    chartae.AE((10,), 2, encoder=encoder, likelihood=MIXED).encode(x)
    torch.testing.assert_close(encoder.seen[:, :9], x[:, :9])
    assert encoder.seen[0, 9].item() == pytest.approx(math.log1p(1e5))
    chartae.AE((10,), 2, encoder=encoder, likelihood="negative_binomial").encode(x.abs().round())
    torch.testing.assert_close(encoder.seen, x.abs().round().log1p())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_class", "spec"),
    [
        (chartae.AE, "negative_binomial"),
        (chartae.VAE, {"name": "mixed", "columns": [["negative_binomial", 20]]}),
        (chartae.VAMP, "negative_binomial"),
    ],
)
def test_counts_up_to_a_hundred_thousand_are_reconstructed(model_class, spec):
    torch.manual_seed(0)
    weights, z = torch.randn(2, 20), torch.randn(300, 2)
    x = torch.poisson((4.0 + 2.5 * z @ weights).clamp(max=11.5).exp())
    model = model_class((20,), 2, likelihood=spec)
    chartae.fit(model, x[:200], epochs=100, seed=0, progress=False)
    assert x.max() > 9e4
    means = model.reconstruct(x[200:]).detach()
    assert means.max() < 1e7
    assert (means.log1p() - x[200:].log1p()).abs().median() < 1.0


@pytest.mark.parametrize(
    "spec", ["negative_binomial", "categorical", "bernoulli", "gaussian", MIXED], ids=str
)
def test_every_pseudo_input_is_in_the_support_and_learns(spec):
    torch.manual_seed(0)
    model = chartae.VAMP((10,), 2, num_pseudo_inputs=30, likelihood=spec)
    inputs = model.pseudo_inputs()
    likelihood = model.observation_model
    for block, piece in likelihood._pieces(inputs) if spec == MIXED else [(likelihood, inputs)]:
        low, high = block.support
        assert ((piece >= low) & (piece <= high)).all()
    (gradient,) = torch.autograd.grad(inputs.square().sum(), model.raw_pseudo_inputs)
    assert (gradient != 0).all()


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, math.inf), (-math.inf, 2.0), (-1.0, 3.0), (-math.inf, math.inf)]
)
def test_a_likelihood_of_your_own_has_its_pseudo_inputs_in_its_support(low, high):
    class Own(GaussianLikelihood):
        support = (low, high)

    raw = torch.linspace(-20.0, 20.0, 50).requires_grad_()
    values = Own((50,)).squashed(raw)
    assert (values >= low).all()
    assert (values <= high).all()
    (slope,) = torch.autograd.grad(values[10:40].sum(), raw)
    assert (slope[10:40] != 0).all()


# --- data and arguments -------------------------------------------------------------------------


def test_what_is_no_category_is_refused():
    likelihood = CategoricalLikelihood((2, 3))
    likelihood.check_data("x", torch.eye(3)[:2].expand(4, 2, 3))
    likelihood.check_data("x", torch.full((4, 2, 3), 1 / 3))
    for row, message in [
        ([0.0, 0.0, 0.0], "x has a row of sum 0: .* expects categories"),
        ([1.0, 1.0, 0.0], "x has a row of sum 2"),
        ([2.0, -1.0, 0.0], r"x has values in \[-1, 2\]"),
        ([math.nan, 0.0, 1.0], "x has 1 NaN or infinite"),
    ]:
        x = torch.eye(3)[:2].repeat(4, 1, 1)
        x[2, 1] = torch.tensor(row)
        with pytest.raises(DataError, match=message):
            likelihood.check_data("x", x)


def test_what_is_no_count_is_refused():
    likelihood = NegativeBinomialLikelihood((3,))
    likelihood.check_data("x", torch.tensor([[0.0, 7.0, 1e7]]))
    for value, message in [
        (-1.0, r"x has values in \[-1, 2\]: .* expects values in \[0, inf\]"),
        (1.5, r"x has 1 value\(s\) that are not whole numbers, such as 1.5"),
        (math.inf, "x has 1 NaN or infinite"),
    ]:
        with pytest.raises(DataError, match=message):
            likelihood.check_data("x", torch.tensor([[1.0, value, 2.0]]))


def test_a_table_names_the_block_that_is_wrong():
    likelihood, x = make_likelihood(MIXED, (10,)), data_for(MIXED, (10,))
    likelihood.check_data("x", x)
    for column, value, message in [
        (0, math.nan, r"x\[..., 0:3\] has 5 NaN"),
        (4, 2.0, r"x\[..., 3:5\] has values in .*'bernoulli'"),
        (6, 0.5, r"x\[..., 5:9\] has a row of sum"),
        (9, 0.5, r"x\[..., 9:10\] has 5 value\(s\) that are not whole"),
    ]:
        bad = x.clone()
        bad[:, column] = value
        with pytest.raises(DataError, match=message):
            likelihood.check_data("x", bad)


@pytest.mark.parametrize(
    ("shape", "spec", "message"),
    [
        ((3,), {"name": "negative_binomial", "dispersion": "one"}, "dispersion='one' is not known"),
        ((9,), MIXED, r"blocks of \[3, 2, 4, 1\], 10 in all: expected .*\(9,\)"),
        ((2, 5), MIXED, r"10 in all: expected .* input_shape=\(2, 5\)"),
        ((3,), "mixed", "columns"),
        ((3,), {"name": "mixed", "columns": []}, r"blocks of \[\], 0 in all"),
        ((3,), {"name": "mixed", "columns": [["gauss", 3]]}, "likelihood='gauss' is not known"),
        ((3,), {"name": "mixed", "columns": [["gaussian", 0]]}, "width=0: expected an integer"),
        ((3,), {"name": "mixed", "columns": [{"name": "gaussian"}]}, "width=None: expected"),
        ((3,), {"name": "mixed", "columns": ["gaussian"]}, "columns has 'gaussian': expected"),
        ((3,), {"name": "mixed", "columns": [{"name": "gaussian", "width": 3, "sd": 1}]}, "sd"),
        ((3,), {"name": "mixed", "columns": 3}, "columns"),
    ],
)
def test_bad_arguments_are_refused(shape, spec, message):
    with pytest.raises(ConfigurationError, match=message):
        make_likelihood(spec, shape)


@pytest.mark.parametrize(
    ("spec", "width"),
    [
        ("categorical", 4),
        ("negative_binomial", 4),
        ({"name": "mixed", "columns": [["gaussian", 2], ["bernoulli", 1], ["categorical", 3]]}, 6),
    ],
)
def test_data_without_an_observed_value_are_valid(spec, width):
    likelihood = make_likelihood(spec, (width,))
    x = torch.full((5, width), torch.nan)
    filled = likelihood.filled(x, torch.zeros_like(x, dtype=torch.bool))
    likelihood.check_data("x", filled)
    assert likelihood.encoder_input(filled).isfinite().all()
