"""What every model promises (DESIGN.md, Models)."""

import copy
import inspect
import math
from functools import partial
from typing import get_args

import pytest
import torch
from tests.models.conftest import (
    MODELS,
    batch_of,
    conditions_of,
    each_case_of,
    has_posterior,
    least_latent_dim,
)
from torch import nn

import chartae
from chartae.data import ArrayDataset
from chartae.errors import ConfigurationError, DataError
from chartae.models import Autoencoder, Losses
from chartae.persistence import describe, rebuild

LIKELIHOODS = ["bernoulli", "continuous_bernoulli", "discretized_logistic", "gaussian", "laplace"]


def loss_of(model: Autoencoder, x: torch.Tensor, seed: int = 0, **extras) -> torch.Tensor:
    """Return the sum of all objectives, under some conditions if the model has any."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        losses = model.loss(x, y=conditions_of(model, len(x)), **extras)
        return torch.stack(list(losses.objectives.values())).sum()


# --- shapes and values --------------------------------------------------------------------------


# Each shape, precision and latent space with some others, not every product of them.
@pytest.mark.parametrize(
    ("shape", "dtype", "latent_dim"),
    [
        ((8, 8), torch.float32, 3),
        ((8, 8), torch.float64, 1),
        ((5,), torch.float32, 1),
        ((3, 6, 4), torch.float64, 3),
    ],
    ids=str,
)
def test_shapes_and_dtypes(make, shape, dtype, latent_dim):
    latent_dim = max(latent_dim, least_latent_dim(make))
    model = make(shape, latent_dim, dtype=dtype)
    x = torch.rand(4, *shape, dtype=dtype)
    y = conditions_of(model, 4)
    z = model.encode(x, y)
    outputs = {
        (4, latent_dim): z,
        (4, *shape): model.reconstruct(x, y),
        (7, *shape): model.decode(z[0].expand(7, -1), conditions_of(model, 7)),
        (): loss_of(model, x),
    }
    if has_posterior(model):
        z, log_q = model.posterior(x, y).rsample_and_log_prob((6,))
        assert z.shape == (6, 4, latent_dim)
        outputs[6, 4] = log_q
        outputs[5, 4] = model.log_weights(x, 5, y=y)
        outputs[2, 4] = model.likelihood(z[:2], y).log_prob(x)
        outputs[4,] = model.elbo(x, 2, y=y)
        assert model.log_likelihood(x, 3, y=y).shape == (4,)
        prior = model.prior(y)
        latents = prior.sample((4,) if prior.batch_shape == () else ())
        assert latents.shape == (4, latent_dim)
        assert latents.dtype == dtype
    for expected, tensor in outputs.items():
        assert tensor.shape == expected
        assert tensor.dtype == dtype
        assert torch.isfinite(tensor).all()
    assert model.dtype == dtype


@pytest.mark.parametrize("batch", [1, 2, 33])
def test_any_batch_size(make, batch):
    model = make()
    x = torch.rand(batch, 8, 8)
    assert torch.isfinite(loss_of(model, x))
    assert model.encode(x, conditions_of(model, batch)).shape == (batch, 2)


@pytest.mark.parametrize("network", ["mlp", "conv", "resnet"])
def test_presets_fit_every_model(make, network):
    model = make(encoder=network, decoder=network)
    assert model.reconstruct(torch.rand(2, 8, 8), conditions_of(model, 2)).shape == (2, 8, 8)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_every_likelihood_fits_every_model(make, likelihood):
    model = make(likelihood=likelihood)
    x = torch.rand(4, 8, 8).round()
    loss = loss_of(model, x)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    if likelihood in ("bernoulli", "continuous_bernoulli", "discretized_logistic"):
        mean = model.likelihood(50 * torch.randn(9, 2), conditions_of(model, 9)).mean
        assert ((mean >= 0) & (mean <= 1)).all()


def test_losses_are_named_and_their_terms_finite(make, digits):
    losses = make().loss(digits, y=conditions_of(make(), 64))
    assert isinstance(losses, Losses)
    assert set(losses.objectives) == set(make().optimization_groups())
    assert "reconstruction" in losses.terms
    assert make().monitored in {"loss", *losses.terms}
    assert all(term.shape == () and torch.isfinite(term) for term in losses.terms.values())


def test_loss_is_a_mean_over_the_batch(make, digits):
    # Twice the batch is the same loss, on average over the noise.
    if make.args[0] == "BetaTCVAE weighted":
        pytest.skip("minibatch-weighted sampling is biased, the more so the smaller the batch")
    model = make().eval()
    model.on_fit_end([batch_of(model, digits)])
    with torch.no_grad():
        once = torch.stack([loss_of(model, digits, seed) for seed in range(20)])
        twice = torch.stack([loss_of(model, digits.repeat(2, 1, 1), s) for s in range(20)])
    tolerance = 4 * float(once.std() / 20**0.5) + 1e-3
    assert once.mean().item() == pytest.approx(twice.mean().item(), abs=tolerance)


# --- training -----------------------------------------------------------------------------------


def test_every_parameter_gets_a_gradient_and_no_other_does(make, digits):
    model = make()
    grouped = [p for group in model.optimization_groups().values() for p in group]
    assert {id(p) for p in grouped} == {id(p) for p in model.parameters()}
    losses = model.loss(digits, y=conditions_of(model, 64))
    groups = model.optimization_groups()
    assert list(losses.objectives) == list(groups)
    for group, objective in losses.objectives.items():
        objective.backward(retain_graph=True, inputs=groups[group])
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name
    # (The library of the quantisers marks a constant of its own.)
    assert not any(b.requires_grad for n, b in model.named_buffers() if not n.endswith(".zero"))


def test_loss_falls(make, digits):
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    torch.manual_seed(0)
    y, groups = conditions_of(model, 64), model.optimization_groups()
    before = model.loss(digits, y=y).terms["reconstruction"].item()
    for _ in range(30):
        optimizer.zero_grad()
        for name, objective in model.loss(digits, y=y).objectives.items():
            objective.backward(inputs=groups[name], retain_graph=True)
        optimizer.step()
    after = model.loss(digits, y=y).terms["reconstruction"].item()
    assert after < before - 5.0
    model.on_fit_end([batch_of(model, digits)])
    model.eval()
    assert math.isfinite(loss_of(model, digits).item())
    assert torch.isfinite(model.reconstruct(digits, y)).all()


def test_evaluation_needs_no_gradient(make, digits):
    model = make().eval()
    with torch.no_grad():
        loss = loss_of(model, digits)
        if has_posterior(model):
            assert not model.log_weights(digits, 2, y=conditions_of(model, 64)).requires_grad
    assert not loss.requires_grad
    expected = loss_of(model, digits)
    torch.testing.assert_close(loss, expected.detach())


def test_the_seed_decides(make, digits):
    model, twin, y = make(seed=1), make(seed=1), conditions_of(make(), 64)
    assert (model.encode(digits, y) == twin.encode(digits, y)).all()
    assert loss_of(model, digits, 3) == loss_of(twin, digits, 3)
    if has_posterior(model):
        assert loss_of(model, digits, 3) != loss_of(model, digits, 4)
    assert (make(seed=2).encode(digits, y) != model.encode(digits, y)).any()


def test_kl_weight_scales_the_divergence_and_never_a_likelihood(make_variational, digits):
    model = make_variational()
    values = {}
    for model.kl_weight in (0.0, 0.5, 1.0):
        values[model.kl_weight] = loss_of(model, digits).item()
    assert values[0.0] < values[0.5] < values[1.0]
    results = []
    for model.kl_weight in (0.0, 1.0):
        torch.manual_seed(0)
        y = conditions_of(model, 64)
        results.append((model.elbo(digits, y=y), model.log_likelihood(digits, 5, y=y)))
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second)


# --- encoding and decoding ----------------------------------------------------------------------


def test_encode_is_deterministic_and_the_posterior_mean(make, digits):
    model = make().eval()  # spectral norms, for one, move while training
    y = conditions_of(model, 64)
    torch.manual_seed(0)
    first = model.encode(digits, y)
    torch.manual_seed(1)
    assert (model.encode(digits, y) == first).all()
    if has_posterior(model):
        assert (model.posterior(digits, y).mean == first).all()
    assert (model.reconstruct(digits, y) == model.decode(first, y)).all()
    torch.testing.assert_close(model.likelihood(first, y).mean, model.decode(first, y))


@each_case_of({str(size): (size,) for size in (7, 1, 64, 1000)}, ["batch_size"])
def test_pieces_give_the_same(make, digits, batch_size):
    model = make().eval()
    y = conditions_of(model, 64)
    z = model.encode(digits, y)
    torch.testing.assert_close(model.encode(digits, y, batch_size=batch_size), z)
    torch.testing.assert_close(model.decode(z, y, batch_size=batch_size), model.decode(z, y))
    with pytest.raises(ConfigurationError, match="batch_size=0: expected an integer at least 1"):
        model.encode(digits, y, batch_size=0)


def test_the_decoder_sees_flat_batches_and_samples_keep_their_place(make, digits):
    model = make().eval()
    z, y = torch.randn(3, 64, 2), conditions_of(model, 64)
    together = model.likelihood(z, y).log_prob(digits)
    apart = torch.stack([model.likelihood(piece, y).log_prob(digits) for piece in z])
    torch.testing.assert_close(together, apart)


# --- masks --------------------------------------------------------------------------------------


def loss_and_gradients(model, x, seed=0, **extras):
    """The objectives on a batch, and what each is to its own parameters."""
    torch.manual_seed(seed)
    losses = model.loss(x, y=conditions_of(model, len(x)), **extras)
    values, groups = [], model.optimization_groups()
    for group, objective in losses.objectives.items():
        options = {"retain_graph": True, "allow_unused": True}
        values += [objective.detach(), *torch.autograd.grad(objective, groups[group], **options)]
    return losses, [value for value in values if value is not None]


@pytest.mark.parametrize("training", [True, False])
def test_what_is_not_observed_influences_nothing(make, digits, training):
    # Exactly: neither the objectives nor their gradients, be it NaN.
    mask = torch.rand(64, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.7
    found = []
    for hidden in (0.0, 0.7, torch.nan):
        model = make().train(training)
        found.append(loss_and_gradients(model, digits.where(mask, hidden), mask=mask)[1])
    for other in found[1:]:
        assert all(bool((a == b).all()) for a, b in zip(found[0], other, strict=True))


def test_masks_leave_the_rest(make, digits):
    full = torch.ones_like(digits, dtype=torch.bool)
    half = full.clone()
    half[:, 5:] = False
    model = make().eval()
    losses, _ = loss_and_gradients(model, digits)
    observed, _ = loss_and_gradients(model, digits, mask=full)
    torch.testing.assert_close(losses.objectives["model"], observed.objectives["model"])
    some, _ = loss_and_gradients(model, digits, mask=half)
    assert some.terms["reconstruction"] != losses.terms["reconstruction"]
    # With nothing observed, nothing is left of the reconstruction.
    nothing, _ = loss_and_gradients(model, digits, mask=~full)
    assert nothing.terms["reconstruction"] == 0


def test_users_may_encode_what_is_partly_observed(make, digits):
    model = make().eval()
    y = conditions_of(model, 64)
    mask = torch.rand(64, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.7
    with torch.no_grad():
        codes = model.encode(digits, y, mask=mask)
        torch.testing.assert_close(codes, model.encode(digits.where(mask, torch.nan), y, mask=mask))
        full = torch.ones_like(mask)
        torch.testing.assert_close(model.encode(digits, y, mask=full), model.encode(digits, y))
        assert (codes != model.encode(digits, y)).any()
        assert model.reconstruct(digits, y, mask=mask).shape == digits.shape
        pieces = model.encode(digits, y, mask=mask, batch_size=7)
    torch.testing.assert_close(pieces, codes, rtol=1e-4, atol=1e-5)


def test_a_sample_without_weight_influences_nothing(make, digits):
    if make.args[0].startswith("RHVAE"):
        pytest.skip("the metric of a batch has a centroid at every sample, whatever its weight")
    weight = torch.full((64,), 64 / 40).where(torch.arange(64) < 40, 0.0)
    found = []
    for other in (digits, digits.flip(0)):
        x = torch.cat([digits[:40], other[40:]])
        found.append(loss_and_gradients(make().train(), x, weight=weight)[1])
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(*found, strict=True))


def test_weights_may_all_be_zero_and_of_another_dtype(make, digits):
    # As those of a small batch may be, and as those of a loader are float64.
    weight = torch.zeros(64, dtype=torch.float64)
    losses, gradients = loss_and_gradients(make().train(), digits, weight=weight)
    assert all(bool(value.isfinite().all()) for value in gradients)
    assert losses.terms["reconstruction"] == 0
    assert losses.objectives["model"].dtype == torch.float32


def test_a_weight_counts_a_sample_so_many_times(make, digits):
    name = make.args[0]
    if name.startswith(("BetaTCVAE", "RHVAE")):
        pytest.skip("its estimates depend on how many samples a batch has")
    count = torch.tensor([1, 3]).repeat(16)
    model = make().eval()
    y = conditions_of(model, 32)

    def losses(repeats, **extras):
        x = digits[:32].repeat_interleave(repeats, 0)
        given = extras if y is None else {"y": y.repeat_interleave(repeats, 0), **extras}
        values = []
        for seed in range(40):
            torch.manual_seed(seed)
            values.append(torch.stack([*model.loss(x, **given).objectives.values()]).sum())
        return torch.stack(values).detach()

    weighted, many = losses(torch.tensor(1), weight=0.5 * count), losses(count)
    tolerance = 4 * float((weighted.var() / 40 + many.var() / 40).sqrt()) + 1e-3
    assert weighted.mean().item() == pytest.approx(many.mean().item(), abs=tolerance)


def test_likelihoods_honour_the_mask(make_variational, digits):
    model = make_variational().eval()
    if model.latent_space != "sphere":
        torch.nn.init.constant_(model.posterior_head.linear.bias[2:], 1.5)  # wider than the prior
    mask = torch.rand(64, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.7
    # With nothing observed p(x) = 1, whatever the posterior.
    nothing = torch.zeros_like(mask)
    torch.manual_seed(0)
    y = conditions_of(model, 64)
    eight = None if y is None else y[:8]
    empty = model.log_likelihood(digits[:8], 3000, y=eight, mask=nothing[:8])
    torch.testing.assert_close(empty, torch.zeros(8), atol=0.15, rtol=0)
    for estimate in (model.elbo, model.log_likelihood):
        torch.manual_seed(0)
        masked = estimate(digits, 4, y=y, mask=mask)
        torch.manual_seed(0)
        assert (estimate(digits, 4, y=y) != masked).any()
        for bad, message in [
            (mask.float(), "mask is torch.float32: expected a tensor of torch.bool"),
            (mask[0], r"mask has shape \(8, 8\): expected \(64, 8, 8\)"),
            (mask.tolist(), "mask is list"),
        ]:
            with pytest.raises(DataError, match=message):
                estimate(digits, 4, y=y, mask=bad)


# --- copies and configuration -------------------------------------------------------------------


def test_a_copy_is_independent(make, digits):
    model = make()
    model.on_fit_end([batch_of(model, digits)])
    twin = copy.deepcopy(model)
    assert loss_of(model.eval(), digits) == loss_of(twin.eval(), digits)
    before = loss_of(model, digits)
    with torch.no_grad():
        for tensor in [*twin.parameters(), *(b for b in twin.buffers() if b.is_floating_point())]:
            tensor.add_(0.1)
    assert loss_of(model, digits) == before
    assert loss_of(twin, digits) != before


def test_config_rebuilds_an_equal_model(make, digits):
    model = make((8, 8), 3, likelihood={"name": "gaussian", "scale": 0.3})
    config = model.config()
    parameters = dict(inspect.signature(type(model)).parameters)
    if "options" in parameters:
        parameters |= inspect.signature(type(model).__mro__[1]).parameters
    options = parameters.pop("networks").annotation
    names = parameters.keys() | get_args(options)[0].__annotations__.keys()
    assert set(config) == names - {"options"}
    twin = type(model)(**config)
    assert twin.config() == config
    twin.load_state_dict(model.state_dict())
    y = conditions_of(model, 64)
    assert (twin.encode(digits, y) == model.encode(digits, y)).all()
    assert loss_of(twin, digits) == loss_of(model, digits)
    assert rebuild(describe(model), {}, {}).config() == config


def test_saved_and_loaded(make, digits, tmp_path):
    model = make()
    model.on_fit_end([batch_of(model, digits)])
    model.save_pretrained(tmp_path)
    twin = chartae.load(tmp_path)
    assert loss_of(twin, digits) == loss_of(model.eval(), digits)


def test_it_casts_after_fitting(make, digits):
    model = make()
    model.on_fit_end([batch_of(model, digits)])
    model.double().eval()
    loss = loss_of(model, digits.double())
    assert loss.dtype == torch.float64
    assert torch.isfinite(loss)


def test_modules_of_your_own_just_work(make, digits):
    encoder = nn.Sequential(nn.Unflatten(1, (1, 8)), nn.Conv2d(1, 3, 3, stride=2), nn.Tanh())
    decoder = nn.Sequential(nn.Linear(2 + make().condition_dim, 10), nn.Tanh(), nn.Linear(10, 64))
    model = make(encoder=encoder, decoder=decoder)
    assert model.encoder is encoder
    assert model.config()["decoder"] is decoder
    y = conditions_of(model, 64)
    assert model.encode(digits, y).shape == (64, 2)  # features of any shape are flattened
    assert model.reconstruct(digits, y).shape == (64, 8, 8)  # and so may be what the decoder gives
    loss_of(model, digits).backward()
    assert all(p.grad is not None for p in [*encoder.parameters(), *decoder.parameters()])


# --- bad input ----------------------------------------------------------------------------------


BAD_DATA = {
    "width": (torch.rand(4, 8, 7), r"x has shape \(4, 8, 7\): expected \(batch, 8, 8\)"),
    "one": (torch.rand(8, 8), r"x has shape \(8, 8\): expected \(batch, 8, 8\)"),
    "channel": (torch.rand(4, 1, 8, 8), r"x has shape \(4, 1, 8, 8\): expected \(batch, 8, 8\)"),
    "empty": (torch.rand(0, 8, 8), "x is empty: expected at least one"),
    "dtype": (torch.zeros(4, 8, 8, dtype=torch.uint8), "x has dtype torch.uint8: expected"),
    "precision": (
        torch.rand(4, 8, 8).double(),
        "x has dtype torch.float64: the model has torch.float32",
    ),
    "nan": (torch.full((4, 8, 8), math.nan), "x has 256 NaN or infinite"),
    "inf": (torch.full((4, 8, 8), math.inf), "x has 256 NaN or infinite"),
    "range": (torch.full((4, 8, 8), 255.0), r"x has values in \[255, 255\]: .* \[0, 1\]"),
    "list": ([[[0.0] * 8] * 8], "x is list: expected a torch.Tensor or a NumPy array"),
}


@each_case_of(BAD_DATA, ["x", "message"])
def test_bad_data_are_refused(make, x, message):
    model = make(likelihood="bernoulli")
    y = conditions_of(model, 4)
    calls = [model.encode, model.reconstruct]
    if has_posterior(model):
        calls += [model.elbo, model.log_likelihood]
    for call in calls:
        with pytest.raises(DataError, match=message):
            call(x, y=y)


BAD_LATENTS = {
    "width": (torch.zeros(4, 3), r"z has shape \(4, 3\): expected \(batch, 2\)"),
    "one": (torch.zeros(2), r"z has shape \(2,\): expected \(batch, 2\)"),
    "precision": (
        torch.zeros(4, 2).double(),
        "z has dtype torch.float64: the model has torch.float32",
    ),
    "nan": (torch.full((4, 2), math.nan), "z has 8 NaN or infinite"),
    "list": ([[0.0, 0.0]], "z is list: expected a torch.Tensor or a NumPy array"),
}


@each_case_of(BAD_LATENTS, ["z", "message"])
def test_bad_latents_are_refused(make, z, message):
    with pytest.raises(DataError, match=message):
        make().decode(z, conditions_of(make(), 4))


BAD_ARGUMENTS = {
    "latent_dim 0": ({"latent_dim": 0}, "latent_dim=0: expected an integer at least"),
    "latent_dim 2.0": ({"latent_dim": 2.0}, "latent_dim=2.0: expected an integer"),
    "no shape": (
        {"input_shape": ()},
        r"input_shape=\(\): expected a tuple of one dimension or more",
    ),
    "number": ({"input_shape": 8}, "input_shape=8: expected a tuple"),
    "size 0": ({"input_shape": (8, 0)}, "input_shape=0: expected an integer at least 1"),
    "size 2.5": ({"input_shape": (8, 2.5)}, "input_shape=2.5: expected an integer"),
    "encoder": ({"encoder": "convv"}, "encoder='convv' is not known.*mean 'conv'"),
    "decoder": ({"decoder": {"name": "mlp", "size": 3}}, "decoder=.*size"),
    "likelihood": ({"likelihood": "normal"}, "likelihood='normal' is not known"),
    "linear": ({"encoder": nn.Linear(3, 3)}, "Linear does not accept a batch of shape"),
    "pool": ({"decoder": nn.AdaptiveAvgPool1d(3)}, "decoder gives 3 values .* expects 64"),
}


@each_case_of(BAD_ARGUMENTS, ["arguments", "message"])
def test_bad_arguments_are_refused(make, arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        make(**{"input_shape": (8, 8), "latent_dim": 2, **arguments})


@pytest.mark.parametrize("arguments", [{"num_samples": 0}, {"num_samples": 2, "max_batch": 0}])
def test_bad_counts_are_refused(make_variational, digits, arguments):
    model = make_variational()
    with pytest.raises(ConfigurationError, match="=0: expected an integer at least 1"):
        model.log_likelihood(digits, y=conditions_of(model, 64), **arguments)


# --- one training loop for all --------------------------------------------------------------------


def test_the_one_loop_moves_every_group(make, digits, fit):
    model = make()
    model.warmup = 0
    before = {name: [p.clone() for p in g] for name, g in model.optimization_groups().items()}
    fit(model, dataset(model, digits), epochs=2, batch_size=32)
    for name, group in model.optimization_groups().items():
        assert any((p != q).any() for p, q in zip(group, before[name], strict=True)), name
    assert not model.training


def test_a_training_is_repeatable_and_resumes(make, digits, fit, tmp_path):
    models = [make(), make(), make()]
    for model in models:
        model.warmup = 0
    data = dataset(models[0], digits)
    fit(models[0], data, epochs=3, batch_size=32)
    fit(models[1], data, epochs=1, batch_size=32, output_dir=tmp_path)
    fit(models[2], data, epochs=3, batch_size=32, output_dir=tmp_path, resume=True)
    for name, tensor in models[0].state_dict().items():
        torch.testing.assert_close(models[2].state_dict()[name], tensor, rtol=0, atol=0, msg=name)


def test_bfloat16(make, digits, fit):
    model = make()
    model.warmup = 0
    history = fit(model, dataset(model, digits), epochs=1, precision="bf16-mixed")
    assert math.isfinite(history.train["loss"][0])
    assert model.dtype == torch.float32


# One of each kind of loss. The others repeat it, or take seconds each (the quantisers, the ball and
# the metric), and are slow.
TRACED = {"VAE", "FactorVAE", "IWAE", "InfoVAE", "WAE imq", "VAMP", "IAFVAE", "VAEGAN", "RAE gp"}
TRACED |= {"SVAE", "CVAE learned prior", "HVAE"}


@pytest.mark.filterwarnings("ignore")  # of the compiler's own
@pytest.mark.parametrize(
    "make",
    [name if name in TRACED else pytest.param(name, marks=pytest.mark.slow) for name in MODELS],
    indirect=True,
)
def test_the_loss_can_be_traced_by_the_compiler(make, digits):
    # Without generating code, which takes a minute a model (see the slow test).
    model = make().eval()
    model.on_fit_end([batch_of(model, digits)])
    torch.compiler.reset()
    compiled = torch.compile(model.loss, backend="eager")
    torch.manual_seed(0)
    losses = compiled(digits, y=conditions_of(model, 64))
    torch.testing.assert_close(
        torch.stack(list(losses.objectives.values())).sum(), loss_of(model, digits)
    )


@pytest.fixture
def fit():
    return partial(chartae.fit, seed=0, progress=False)


def dataset(model, x):
    return ArrayDataset(x, conditions_of(model, len(x)))
