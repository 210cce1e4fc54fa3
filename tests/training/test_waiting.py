"""A step of a training never waits for an accelerator.

The meta device has no numbers. What would wait for one of an accelerator (a number as a float, a
condition, a shape that depends on values) is an error there.
"""

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from tests.models.conftest import MODELS, batch_of, build

from chartae.training.batches import InMemoryBatches
from chartae.training.engine import Hidden, Objective

WAITING = {
    "VQVAE": "the library of the quantisers looks for dead codes",
    "HRQVAE": "the same",
    "RHVAE posterior": "the metric looks whether float32 is precise enough",
}


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function that runs an epoch of two batches of a model on the meta device."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which has none
    return run


def run(name: str) -> None:
    model = build(name).train()
    model.on_fit_start(8)
    batches = InMemoryBatches(batch_of(model, torch.rand(8, 8, 8)), 4)
    batches.place(torch.device("meta"), 0, 1)
    objective = Objective(model.to("meta"), compile=False)
    groups = model.optimization_groups()
    for batch in batches.epoch(0, 0):
        objectives, values = objective(Hidden(batch))
        assert values.device.type == "meta"
        for group, parameters in groups.items():
            objectives[group].backward(inputs=list(parameters), retain_graph=True)
        assert all(parameter.grad is not None for parameter in model.parameters())


# Those of different losses; the others are slow only because they are many.
FIRST = {"VAE", "BetaTCVAE stratified", "IWAE", "VAMP", "VAEGAN", "MSSSIMVAE", "SVAE", "RHVAE"}


@pytest.mark.parametrize(
    "name",
    [
        name if name in FIRST else pytest.param(name, marks=pytest.mark.slow)
        for name in MODELS
        if name not in WAITING
    ],
)
def test_a_step_needs_no_number(name: str, steps: Callable[[str], None]) -> None:
    steps(name)


@pytest.mark.parametrize("name", WAITING)
def test_the_exceptions_are_still_exceptions(name: str, steps: Callable[[str], None]) -> None:
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        steps(name)
