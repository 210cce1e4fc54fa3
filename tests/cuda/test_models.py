"""Every model trains, encodes and decodes on an accelerator, and agrees with the CPU."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tests.cuda.conftest import skip_without_device
from tests.models.conftest import MODELS, batch_of, build, conditions_of, has_posterior
from tests.training.test_waiting import WAITING
from torch import Tensor

import chartae
from chartae.data import ArrayDataset
from chartae.models import Autoencoder
from chartae.training.batches import InMemoryBatches
from chartae.training.engine import Hidden, Objective

skip_without_device()

X = torch.rand(64, 8, 8, generator=torch.Generator().manual_seed(0))

each_model = pytest.mark.parametrize("name", MODELS)


def fitted(name: str, device: torch.device, **options: object) -> Autoencoder:
    """Return a model that was trained on the device for two epochs, and is there."""
    model = build(name)
    model.warmup = 0
    data = ArrayDataset(X, conditions_of(model, len(X)))
    settings = {"epochs": 2, "batch_size": 32, "seed": 0, "progress": False} | options
    history = chartae.fit(model, data, accelerator=device.type, **settings)
    assert all(map(math.isfinite, history.train["loss"]))
    return model.to(device)


def moved(y: Tensor | None, device: torch.device) -> Tensor | None:
    return None if y is None else y.to(device)


@each_model
def test_it_trains_and_agrees_with_the_cpu(name: str, device: torch.device, tmp_path: Path) -> None:
    model = fitted(name, device)
    y = conditions_of(model, len(X))
    z = model.encode(X.to(device), moved(y, device))
    again = model.decode(z, moved(y, device))
    assert z.device.type == again.device.type == device.type
    model.save_pretrained(tmp_path)
    twin = chartae.load(tmp_path)
    assert twin.device.type == "cpu"
    tolerance = {"rtol": 1e-3, "atol": 1e-4}
    torch.testing.assert_close(twin.encode(X, y), z.cpu(), **tolerance)
    torch.testing.assert_close(twin.decode(z.cpu(), y), again.cpu(), **tolerance)


@each_model
def test_the_seed_decides(name: str, device: torch.device) -> None:
    first, second = (fitted(name, device).state_dict() for _ in range(2))
    for key, tensor in first.items():
        torch.testing.assert_close(second[key], tensor, msg=key)


@each_model
def test_a_training_resumes(name: str, device: torch.device, tmp_path: Path) -> None:
    whole = fitted(name, device).state_dict()
    fitted(name, device, epochs=1, output_dir=tmp_path)
    resumed = fitted(name, device, output_dir=tmp_path, resume=True).state_dict()
    for key, tensor in whole.items():
        torch.testing.assert_close(resumed[key], tensor, msg=key)


@each_model
def test_it_trains_in_bfloat16(name: str, device: torch.device) -> None:
    assert fitted(name, device, precision="bf16-mixed").dtype == torch.float32


@each_model
def test_likelihoods_agree_with_the_cpu(name: str, device: torch.device) -> None:
    model = build(name).eval()
    if not has_posterior(model):
        pytest.skip("it has no likelihood")
    model.on_fit_end([batch_of(model, X)])
    y = conditions_of(model, 8)
    found = []
    for place in (torch.device("cpu"), device):
        model.to(place)
        values = model.log_likelihood(X[:8].to(place), 2000, y=moved(y, place), seed=0)
        assert values.device.type == place.type
        found.append(values.cpu())
    torch.testing.assert_close(*found, rtol=0.05, atol=0.5)  # the noise differs


@contextmanager
def refusing_to_wait(device: torch.device) -> Iterator[None]:
    """Raise an error wherever the CPU would wait for CUDA."""
    if device.type != "cuda":  # a CPU has nothing to wait for
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", sorted(MODELS.keys() - WAITING.keys()))
def test_a_step_does_not_wait(name: str, device: torch.device) -> None:
    model = build(name).to(device).train()
    model.on_fit_start(len(X))
    batches = InMemoryBatches(batch_of(model, X), 16)
    batches.place(device, 0, 1)
    objective, groups = Objective(model, compile=False), model.optimization_groups()
    optimizers = [torch.optim.Adam(group, 1e-3) for group in groups.values()]

    def epoch(made: Iterator[dict[str, Tensor]]) -> None:
        for batch in made:
            objectives, _ = objective(Hidden(batch))
            for group, parameters in groups.items():
                objectives[group].backward(inputs=list(parameters), retain_graph=True)
            for optimizer in optimizers:
                optimizer.step()

    epoch(batches.epoch(0, 0))  # libraries and states of optimizers are made in the first
    made = batches.epoch(0, 1)
    first = next(made)  # the order of an epoch is copied to the device at its start
    with refusing_to_wait(device):
        epoch(iter([first]))
        epoch(made)
