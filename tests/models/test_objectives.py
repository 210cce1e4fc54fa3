"""Every objective and its gradients, against the model's equation, written out independently.

The equations are in ``tests/models/equations``; a new model joins by a `Case` there.
"""

import pytest
import torch
from tests.models.equations import adversarial, curved, gaussian

from chartae import models
from chartae.models.base import Autoencoder

CASES = {**gaussian.CASES, **adversarial.CASES, **curved.CASES}
ABSTRACT = {models.Autoencoder, models.VariationalAutoencoder, models.DistanceVAE}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_each_objective_and_its_gradients_are_those_of_the_equation(case):
    model = case.build()
    x, y, mask = case.batch(model)
    given = {name: value for name, value in (("y", y), ("mask", mask)) if value is not None}
    torch.manual_seed(3)  # the equation first: in training, a loss moves a codebook
    objectives, terms = case.equation(model, x, y, mask)
    torch.manual_seed(3)
    losses = model.loss(x, **given)
    close(dict(losses.objectives), objectives, "objective")
    close(dict(losses.terms), terms, "term")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = {
        group: {names[id(p)] for p in parameters if p.requires_grad}
        for group, parameters in model.optimization_groups().items()
    }
    trained = case.parameters(model)
    assert groups == {group: set(members) for group, members in trained.items()}
    # As in training, an objective moves the parameters of its own group and no other.
    for group, members in trained.items():
        found, expected = (
            dict(zip(members, gradients(value[group], members.values()), strict=True))
            for value in (losses.objectives, objectives)
        )
        assert any(gradient.any() for gradient in expected.values())
        close(found, expected, f"gradient of {group}")


def gradients(objective, parameters):
    parameters = list(parameters)
    found = torch.autograd.grad(objective, parameters, retain_graph=True, allow_unused=True)
    return [
        torch.zeros_like(p) if gradient is None else gradient
        for p, gradient in zip(parameters, found, strict=True)
    ]


def close(found, expected, what):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{what} {n}: {m}"
        )


def test_every_model_has_an_equation():
    public = [getattr(models, name) for name in models.__all__]
    concrete = {
        kind for kind in public if isinstance(kind, type) and issubclass(kind, Autoencoder)
    } - ABSTRACT
    assert {case.model for case in CASES.values()} == concrete
