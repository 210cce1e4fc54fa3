"""Precision, compilation, several processes."""

import json
import subprocess
import sys

import pytest
import torch

import chartae
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


def test_a_model_without_autocast_is_not_cast(make_vae, fit, data):
    plain, explicit = make_vae(), make_vae()
    fit(plain, data, epochs=3)
    fit(explicit, data, epochs=3, precision="32-true")
    for key, tensor in plain.state_dict().items():
        assert torch.equal(explicit.state_dict()[key], tensor)


SCRIPT = """
import json, sys, torch, chartae
if __name__ == "__main__":
    torch.manual_seed(0)
    x = torch.rand(40, 6)
    model = chartae.RHVAE((6,), 2, encoder={"name": "mlp", "hidden": [8]})
    history = chartae.fit(
        model, x, x[:9], epochs=4, batch_size=5, seed=1, accelerator="cpu", devices=2,
        patience=3, output_dir=sys.argv[1],
    )
    with open(f"{sys.argv[1]}/{torch.distributed.get_rank()}.json", "w") as file:
        weights = [tensor.tolist() for tensor in model.state_dict().values()]
        json.dump([history.train, history.validation, weights], file)
"""


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    folder = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    model = chartae.load(folder)
    assert len(model.centroids) == 40
    assert len(first[0]["loss"]) == 4


@pytest.mark.slow
def test_opponents_are_refused_on_several_devices(duel):
    """By the trainer, for Fabric is then launched; here with a Fabric that says there are two."""
    from lightning_fabric import Fabric

    from chartae.training.batches import make_batches
    from chartae.training.state import Plan
    from chartae.training.trainer import Trainer

    class Two(Fabric):
        world_size = 2

    model, x = duel(), torch.zeros(4, 3)
    plan = Plan(1, 4, 1e-3, "sgd", None, None, 0, None, None, 2, 0)
    with pytest.raises(ConfigurationError, match="devices=2: Duel has adversaries"):
        Trainer(
            Two(accelerator="cpu"),
            model,
            plan,
            make_batches("train", x, model, 4),
            None,
            optimizer="sgd",
            scheduler=None,
            precision=None,
            compile=False,
            checkpoint=None,
            checkpoint_interval=1.0,
        )


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

    def compile(function):
        def fail(**batch):
            raise BackendCompilerFailed(function, RuntimeError("no working C++ compiler"), None)

        return fail

    monkeypatch.setattr(torch, "compile", compile)
    with pytest.raises(
        ConfigurationError, match=r"compile=True: the loss of VAE[^$]*C\+\+ compiler"
    ):
        fit(make_vae(), data, epochs=1, compile=True)
