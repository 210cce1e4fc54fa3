"""Precision and compilation."""

import pytest
import torch
from safetensors.torch import load_file

from chartae.errors import ConfigurationError


def test_mixed_precision_computes_in_bfloat16_on_data_that_stay_exact(make_vae, fit, data):
    model, seen = make_vae(), {}

    def record(module, inputs, output):
        seen["activations"] = output.dtype

    model.encoder[-1].register_forward_hook(record)
    model.encoder[-2].register_forward_hook(record)
    original = type(model).loss
    model.loss = lambda x: seen.update(data=x) or original(model, x)
    fit(model, data, epochs=3, precision="bf16-mixed")
    assert seen["activations"] == torch.bfloat16
    assert torch.equal(seen["data"], data)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_half_precision_is_refused_on_a_cpu(make_vae, fit, data):
    with pytest.raises(ConfigurationError, match="no 16-bit floats but bfloat16; try 'bf16-mixed'"):
        fit(make_vae(), data, precision="16-mixed")


def test_a_model_without_autocast_is_not_cast(make_vae, fit, data):
    plain, explicit = make_vae(), make_vae()
    fit(plain, data, epochs=3)
    fit(explicit, data, epochs=3, precision="32-true")
    for key, tensor in plain.state_dict().items():
        assert torch.equal(explicit.state_dict()[key], tensor)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_loss_trains_alike(make_vae, fit, data):
    plain, compiled = make_vae("AE"), make_vae("AE")
    fit(plain, data, epochs=3, optimizer="sgd")
    fit(compiled, data, epochs=3, optimizer="sgd", compile=True)
    for key, tensor in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[key], tensor)


@pytest.mark.filterwarnings("ignore")
def test_no_compiler_is_said(make_vae, fit, data, monkeypatch):
    from torch._dynamo.exc import BackendCompilerFailed

    def compile(function, **options):
        def fail(**batch):
            raise BackendCompilerFailed(function, RuntimeError("no working C++ compiler"), None)

        return fail

    monkeypatch.setattr(torch, "compile", compile)
    with pytest.raises(
        ConfigurationError, match=r"compile=True: the loss of VAE[^$]*C\+\+ compiler"
    ):
        fit(make_vae(), data, epochs=1, compile=True)


@pytest.mark.parametrize("name", ["AE", "VAE", "VAMP", "IWAE"])
def test_mixed_precision_saves_float32(name, make_vae, fit, data, tmp_path):
    fit(make_vae(name), data, data[:9], epochs=2, precision="bf16-mixed", output_dir=tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values() if tensor.is_floating_point()} == {
        torch.float32
    }


def test_a_mode_is_that_of_the_compiler(make_vae, fit, data, monkeypatch):
    given = []

    def compile(function, **options):
        given.append(options)
        return function

    monkeypatch.setattr(torch, "compile", compile)
    fit(make_vae(), data, epochs=1, compile=True)
    fit(make_vae(), data, epochs=1, compile="reduce-overhead")
    assert given == [{}, {"mode": "reduce-overhead", "dynamic": False}]
    for wrong in ("reduce_overhead", 1):
        with pytest.raises(ConfigurationError, match=f"compile={wrong!r}"):
            fit(make_vae(), data, epochs=1, compile=wrong)
