"""Every sampler is fitted and draws on an accelerator."""

from pathlib import Path

import pytest
import torch
from tests.cuda.conftest import skip_without_device
from tests.samplers.test_samplers import SAMPLERS, X, conditions_of

import chartae
from chartae.samplers import Sampler

skip_without_device()


@pytest.fixture(params=SAMPLERS)
def sampler(
    request: pytest.FixtureRequest, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> Sampler:
    """Every sampler, fitted on the device."""
    monkeypatch.setattr("chartae.geometry.mcmc.jumps.DRAWS", (50, 1))
    make, kind, options = SAMPLERS[request.param]
    model = make().to(device)
    y = {name: value.to(device) for name, value in conditions_of(model, len(X)).items()}
    return kind(model, **options).fit(X.to(device), **y)


def test_it_draws_and_comes_back_from_disk(
    sampler: Sampler, device: torch.device, tmp_path: Path
) -> None:
    y = {name: value.to(device) for name, value in conditions_of(sampler.model, 5).items()}
    first, again = (sampler.sample(5, seed=0, **y) for _ in range(2))
    assert first.device.type == device.type
    assert first.shape == (5, *sampler.model.input_shape)
    assert first.isfinite().all()
    assert torch.equal(first, again)
    sampler.save_pretrained(tmp_path)
    loaded = chartae.load(tmp_path)
    torch.testing.assert_close(
        loaded.to(device).sample(5, seed=0, **y), first, rtol=1e-3, atol=1e-3
    )
    on_cpu = chartae.load(tmp_path).sample(5, seed=0, **conditions_of(sampler.model, 5))
    assert on_cpu.device.type == "cpu"
    assert on_cpu.isfinite().all()
