"""What all baselines of sequences have in common."""

from collections.abc import Callable

import pytest
import torch

import chartae
from chartae.data import Sequences
from chartae.errors import ConfigurationError, DataError
from chartae.longitudinal import GPVAE, BubbleVAE, SequenceModel, TopographicVAE, VisitVAE

SMALL = {"encoder": {"name": "mlp", "hidden": [16]}, "decoder": {"name": "mlp", "hidden": [16]}}
Make = Callable[..., SequenceModel]

MODELS: dict[str, Make] = {
    "visit": lambda **k: VisitVAE((3,), 2, **SMALL, **k),
    "visit vamp": lambda **k: VisitVAE(
        (3,), 2, model={"name": "vamp", "num_pseudo_inputs": 5}, **SMALL, **k
    ),
    "topographic": lambda **k: TopographicVAE(
        (3,), 4, num_steps=5, coherence="part", capsules=2, **SMALL, **k
    ),
    "bubble": lambda **k: BubbleVAE((3,), 4, num_steps=5, **SMALL, **k),
    "gp": lambda **k: GPVAE((3,), 3, num_scales=2, **SMALL, **k),
    "gp product": lambda **k: GPVAE((3,), 2, inference="product", **SMALL, **k),
    "gp diagonal": lambda **k: GPVAE((3,), 2, kernel="matern", inference="diagonal", **SMALL, **k),
}


@pytest.fixture(params=MODELS)
def make(request: pytest.FixtureRequest) -> Make:
    return MODELS[request.param]


def sequences(count: int = 12, *, covariates: bool = False) -> Sequences:
    """Individuals with 1 to 5 of 5 visits, at irregular times, with missing features."""
    generator = torch.Generator().manual_seed(0)
    level = torch.rand(count, 1, 3, generator=generator)
    times = torch.arange(5.0) + 0.4 * torch.rand(count, 5, generator=generator)
    x = level + 0.1 * times[..., None]
    observed = torch.rand(count, 5, generator=generator) < 0.7
    observed[:, 1] = True
    mask = torch.rand(x.shape, generator=generator) < 0.8
    mask[:, 1, 0] = True
    y = torch.arange(count) % 2 if covariates else None
    return Sequences(x, times=times, observed=observed, mask=mask, covariates=y)


def likelihood(model: SequenceModel, data: Sequences) -> torch.Tensor:
    return model.log_likelihood(data, 7, seed=3).log_prob


def loss_and_gradients(model: SequenceModel, tensors: dict[str, torch.Tensor]) -> list:
    torch.manual_seed(1)
    model.zero_grad()
    loss = model.loss(**tensors).objectives["model"]
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def same(first: list, second: list) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_values_that_were_not_observed_have_no_influence(make: Make) -> None:
    model, data = make(), sequences()
    before, estimate = loss_and_gradients(model, data.tensors), likelihood(model, data)
    tensors = dict(data.tensors)
    tensors["x"] = torch.where(data.mask, data.x, 1e3)
    tensors["times"] = torch.where(data.observed, data.times, -7.0)
    assert same(loss_and_gradients(model, tensors), before)
    data.x, data.times = tensors["x"], tensors["times"]
    assert torch.equal(likelihood(model, data), estimate)


def test_padding_order_and_further_visits_change_nothing(make: Make) -> None:
    model, data = make(), sequences()
    before, estimate = loss_and_gradients(model, data.tensors), likelihood(model, data)
    wider = data.at([-1.0, 2.05, 9.0])
    assert same(loss_and_gradients(model, wider.tensors), before)
    assert torch.equal(likelihood(model, wider), estimate)
    back = {name: value.flip(1) for name, value in data.tensors.items()}
    assert same(loss_and_gradients(model, back), before)


def test_a_mask_of_ones_is_no_mask(make: Make) -> None:
    model, data = make(), sequences()
    tensors = {name: value for name, value in data.tensors.items() if name != "mask"}
    expected = loss_and_gradients(model, tensors)
    found = loss_and_gradients(model, {**tensors, "mask": torch.ones_like(data.mask)})
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_each_visit_matters(make: Make) -> None:
    model, data = make(), sequences()
    x = data.x.clone().requires_grad_()
    torch.manual_seed(0)
    model.loss(**{**data.tensors, "x": x}).objectives["model"].backward()
    reached = (x.grad != 0.0).flatten(2).any(-1)
    assert torch.equal(reached, data.observed)


def test_weights_count_individuals(make: Make) -> None:
    model, data = make(), sequences()
    tensors = data.tensors
    equal = loss_and_gradients(model, {**tensors, "weight": torch.ones(12)})
    for a, b in zip(equal, loss_and_gradients(model, tensors), strict=True):
        torch.testing.assert_close(a, b)
    weight = torch.arange(12) % 2 * 2.0
    expected = loss_and_gradients(model, {**tensors, "weight": weight})
    ignored = (weight == 0.0)[:, None, None]
    changed = {**tensors, "x": torch.where(ignored, 3.0, tensors["x"]), "weight": weight}
    for a, b in zip(loss_and_gradients(model, changed), expected, strict=True):
        torch.testing.assert_close(a, b)


def test_training_saving_and_tasks(make: Make, tmp_path) -> None:
    data = sequences()
    model = make()
    history = chartae.fit(
        model, data, epochs=40, batch_size=6, learning_rate=1e-2, seed=0, progress=False
    )
    losses = history.values("loss") if hasattr(history, "values") else None
    assert losses is None or losses[-1] < losses[0]
    model.save_pretrained(tmp_path)
    copy = chartae.load(tmp_path)
    assert torch.equal(likelihood(copy, data), likelihood(model, data))
    double = chartae.load(tmp_path, dtype=torch.float64)
    exact = likelihood(double, data.to(dtype=torch.float64))
    assert exact.dtype == torch.float64
    for how in ("best", "resample", "naive"):
        draws = model.impute(data, how, 4)
        assert draws.values.shape == (4, 12, 5, 3)
        assert bool(draws.values.isfinite().all())
    assert model.futures(data, [1.0, 1.0, 30.0], 2).values.shape == (2, 12, 3, 3)
    assert model.generate(4, [0.0, 2.5]).shape == (4, 2, 3)
    assert len(model.individuals(data)) == 12


def test_conditions(make: Make) -> None:
    data = sequences(covariates=True)
    model = make(conditions=2)
    chartae.fit(model, data, epochs=1, seed=0, progress=False)
    assert bool(likelihood(model, data).isfinite().all())
    drawn = model.generate(4, [0.0, 1.0], y=torch.tensor([0, 1, 0, 1]))
    assert drawn.shape == (4, 2, 3)
    with pytest.raises(DataError, match="conditions"):
        model.generate(4, [0.0, 1.0])


def test_draws_are_reconstructions_at_observed_visits(make: Make) -> None:
    model, data = make(), sequences()
    draws = model.impute(data, num_draws=3, noise=False, seed=2)
    again = model.futures(data, data.times, 3, how="best", noise=False, seed=2)
    seen = data.observed.expand(3, -1, -1)
    torch.testing.assert_close(draws.values[seen], again.values[seen])
    fit = model.observation_model(draws.values).log_prob(data.x, data.mask)
    fit = torch.where(data.observed, fit, 0.0).sum(-1)
    torch.testing.assert_close(fit, draws.log_fit, atol=1e-3, rtol=1e-3)


def test_bad_arguments() -> None:
    with pytest.raises(ConfigurationError, match="capsules=3"):
        TopographicVAE((3,), 4, num_steps=5, capsules=3)
    with pytest.raises(ConfigurationError, match="coherence='halves'.*did you mean 'half'"):
        TopographicVAE((3,), 4, num_steps=5, coherence="halves")
    with pytest.raises(ConfigurationError, match="num_scales=3"):
        GPVAE((3,), 2, num_scales=3)
    with pytest.raises(ConfigurationError, match="kernel='caucy'.*did you mean 'cauchy'"):
        GPVAE((3,), 2, kernel="caucy")
    with pytest.raises(ConfigurationError, match="nugget=0"):
        GPVAE((3,), 2, nugget=0.0)
    with pytest.raises(ConfigurationError, match="model='rae'"):
        VisitVAE((3,), 2, model="rae")
    with pytest.raises(ConfigurationError, match="model is AE"):
        VisitVAE((3,), 2, model=chartae.AE((3,), 2))
    with pytest.raises(ConfigurationError, match="latent_dim=4: the model has"):
        VisitVAE((3,), 4, model=chartae.VAE((3,), 2))
    with pytest.raises(ConfigurationError, match="encoder given with a model"):
        VisitVAE((3,), 2, model=chartae.VAE((3,), 2), encoder="mlp")
