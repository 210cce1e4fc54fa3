"""NumPy arrays go into models and samplers and come out of them; tensors as ever."""

import warnings

import numpy as np
import pytest
import torch
from tests.models.conftest import SMALL, conditions_of, has_posterior

from chartae import samplers
from chartae.errors import DataError
from chartae.models import AE, VAE, VQVAE

NETWORKS = {"encoder": SMALL, "decoder": SMALL}
FLOATS = [np.float32, np.float64, np.dtype(">f4"), np.dtype(">f8")]


def numpy(value):
    return None if value is None else value.detach().numpy()


def test_every_model_takes_arrays_and_gives_them(make, digits):
    model = make().eval()
    y = conditions_of(model, 64)
    x, labels = digits.double().numpy(), numpy(y)
    z = model.encode(x, labels)
    calls = {
        "encode": (z, model.encode(digits, y)),
        "decode": (model.decode(z, labels), model.decode(torch.tensor(z).float(), y)),
        "reconstruct": (model.reconstruct(x, labels), model.reconstruct(digits, y)),
    }
    if has_posterior(model):
        mask = digits > 0.1
        for name in ("elbo", "log_likelihood"):
            results = []
            for given in (
                {"x": x, "y": labels, "mask": mask.numpy()},
                {"x": digits, "y": y, "mask": mask},
            ):
                torch.manual_seed(0)
                results.append(getattr(model, name)(num_samples=3, **given))
            calls[name] = tuple(results)
    for name, (array, tensor) in calls.items():
        assert isinstance(array, np.ndarray), name
        assert array.dtype == np.float64, name
        np.testing.assert_allclose(array, numpy(tensor), rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", ["C", "F", "strided", "reversed", "read-only"])
def test_any_array_of_floats_in_the_same_dtype_out(dtype, precision, layout, digits):
    model = VAE((8, 8), 2, **NETWORKS).to(precision).eval()
    plain = digits.numpy().astype(dtype)
    x = {
        "C": lambda: plain,
        "F": lambda: np.asfortranarray(plain),
        "strided": lambda: np.repeat(plain, 2, axis=2)[:, :, ::2],
        "reversed": lambda: plain[::-1].copy()[::-1],
        "read-only": lambda: np.frombuffer(plain.tobytes(), dtype).reshape(plain.shape),
    }[layout]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        z = model.encode(x)
    assert z.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_allclose(z, numpy(model.encode(digits.to(precision))), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_])
def test_bytes_and_booleans_come_back_as_such(dtype, digits):
    model = VAE((8, 8), 2, likelihood="bernoulli", **NETWORKS).eval()
    x = (digits.numpy() * (255 if dtype is np.uint8 else 1)).round().astype(dtype)
    back = model.reconstruct(x)
    assert back.dtype == dtype
    scaled = torch.tensor(x).float() / (255 if dtype is np.uint8 else 1)
    expected = numpy(model.reconstruct(scaled))
    error = np.abs(back / (255 if dtype is np.uint8 else 1) - expected).max()
    assert error <= 0.5 + 1e-6 if dtype is np.bool_ else error <= 0.5 / 255 + 1e-6
    assert model.encode(x).dtype == np.float32


def test_tensors_keep_their_gradients(digits):
    model = VAE((8, 8), 2, **NETWORKS)
    x = digits.clone().requires_grad_()
    for result in (model.encode(x), model.reconstruct(x), model.elbo(x)):
        (gradient,) = torch.autograd.grad(result.sum(), x)
        assert gradient.any()


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_labels_of_any_integers(kind, digits):
    model = VAE((8, 8), 2, conditions=3, **NETWORKS).eval()
    y = torch.arange(64) % 3
    z = model.encode(digits.numpy(), y.numpy().astype(kind))
    np.testing.assert_array_equal(z, numpy(model.encode(digits, y)))
    sampler = samplers.NormalSampler(model)
    many = sampler.sample(4, 0, y[:4].numpy().astype(kind))
    assert isinstance(many, np.ndarray)
    np.testing.assert_array_equal(many, numpy(sampler.sample(4, 0, y[:4])))
    assert torch.equal(sampler.sample(4, 0, kind(2)), sampler.sample(4, 0, 2))
    assert isinstance(sampler.sample_latents(4, 0, np.array([0, 1, 2, 0], kind)), np.ndarray)


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (samplers.NormalSampler, {}),
        (samplers.MixtureSampler, {"num_components": 2}),
        (samplers.VolumeSampler, {"num_steps": 2, "num_warmup": 2}),
        (samplers.MixupSampler, {"num_points": 4}),
        (samplers.FlowSampler, {"hidden": [4], "epochs": 1}),
        (samplers.TwoStageSampler, {"hidden": [4], "epochs": 1}),
    ],
)
def test_samplers_are_fitted_to_arrays(cls, options, digits):
    model = VAE((8, 8), 2, conditions=(2,), **NETWORKS).eval()
    y = conditions_of(model, 64)
    ours = cls(model, **options).fit(digits.double().numpy(), y.double().numpy())
    theirs = cls(model, **options).fit(digits, y)
    assert isinstance(ours, cls)
    assert torch.equal(ours.sample(3, 0, y[:3]), theirs.sample(3, 0, y[:3]))
    single = ours.sample(3, 0, np.array([0.5, 0.5]))
    assert isinstance(single, np.ndarray)
    assert single.dtype == np.float64


def test_codes_are_arrays_too(digits):
    model = VQVAE((8, 8), 8, grid=(2, 2), num_codes=8, **NETWORKS).eval()
    codes = model.codes(digits.numpy())
    assert codes.dtype == np.int64
    np.testing.assert_allclose(
        model.embed_codes(codes), numpy(model.encode(digits)), rtol=1e-5, atol=1e-6
    )
    assert samplers.CodeSampler(model, channels=4, num_layers=1, epochs=1).fit(digits.numpy())


@pytest.mark.parametrize("given", [[[0.0] * 64], None, "x", 3, (1, 2)], ids=str)
def test_what_is_no_array_is_refused_in_one_sentence(given):
    model = AE((64,), 2, **NETWORKS)
    kind = type(given).__name__
    for call, name in [(model.encode, "x"), (model.reconstruct, "x"), (model.decode, "z")]:
        with pytest.raises(DataError, match=f"^{name} is {kind}: expected a torch.Tensor or a Num"):
            call(given)
    with pytest.raises(DataError, match=f"x is {kind}: MixtureSampler.fit expects .*NumPy array"):
        samplers.MixtureSampler(model).fit(given)


def test_the_mask_of_a_masked_array_counts():
    model = AE((4,), 2, **NETWORKS)
    x, hidden = np.random.default_rng(0).random((3, 4), np.float32), np.eye(3, 4, dtype=bool)
    codes = model.encode(np.ma.masked_array(x, hidden))
    np.testing.assert_array_equal(codes, model.encode(x, mask=~hidden))
    assert (codes != model.encode(x)).any()


def test_arrays_that_hold_no_numbers_are_refused():
    model = AE((4,), 2, **NETWORKS)
    for x, message in [
        (np.array([["a"] * 4]), "x has dtype <U1: expected one array of numbers"),
        (np.array([[None] * 4]), "x has dtype object: expected one array"),
        (np.zeros((3, 4), np.int64), "x has dtype torch.int64: expected uint8"),
        (np.zeros((3, 4), np.complex64), "x has dtype torch.complex64"),
        (np.zeros(4, np.float32), r"x has shape \(4,\): expected \(batch, 4\)"),
        (np.full((3, 4), np.nan), "x has 12 NaN"),
    ]:
        with pytest.raises(DataError, match=message):
            model.encode(x)


def test_one_hot_labels_are_told_what_to_take(digits):
    model = VAE((8, 8), 2, conditions=3, **NETWORKS)
    y = torch.eye(3)[torch.arange(64) % 3]
    for given in (y, y.long(), y.bool()):
        with pytest.raises(DataError, match=r"y has shape \(64, 3\): .*one-hot .* y.argmax\(1\)"):
            model.encode(digits, given)
    with pytest.raises(DataError, match=r"y has shape \(64, 3\): .*one-hot"):
        model.encode(digits.numpy(), y.numpy())
    with pytest.raises(DataError, match="y is list: expected labels"):
        model.encode(digits, [0] * 64)
    with pytest.raises(DataError, match="y is torch.float32: expected labels"):
        model.encode(digits, y[:, 0])


def test_a_mask_of_a_masked_array_is_honoured(digits):
    model = VAE((8, 8), 2, **NETWORKS).eval()
    hidden = (digits > 0.5).numpy()
    torch.manual_seed(0)
    masked = model.elbo(np.ma.masked_array(digits.numpy(), hidden))
    torch.manual_seed(0)
    filled = torch.where(torch.tensor(hidden), 0.0, digits)
    expected = model.elbo(filled, mask=torch.tensor(~hidden))
    np.testing.assert_allclose(masked, numpy(expected), rtol=1e-5)
