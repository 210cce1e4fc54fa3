"""What every model of sequences keeps to: what was not observed has no influence, and more.

A new model joins every test by a line of `CASES`: a class, its arguments, and what it does not do.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

import chartae
from chartae.data import Sequences
from chartae.errors import DataError
from chartae.longitudinal import (
    GPVAE,
    SEQUENCE_MODELS,
    BubbleVAE,
    FlowVAE,
    SequenceModel,
    TopographicVAE,
    TrajectoryVAE,
    VisitVAE,
)
from chartae.training import Callback

SMALL = {"name": "mlp", "hidden": [16]}
FEATURES, VISITS, COUNT = 3, 4, 6


@dataclass
class Case:
    """A model under contract.

    Attributes:
        model: its class, which is called with ``input_shape`` and the arguments.
        arguments: of the constructor, beside small networks.
        means: whether `individuals` draws nothing at random.
        any_times: whether it takes times that the training set does not have.
        smooth: whether a course follows from the latents without further draws. If not, the
            numbers drawn depend on how many visits are wanted.
        joint: whether visits say something about each other.
    """

    model: type[SequenceModel]
    arguments: dict[str, Any] = field(default_factory=dict)
    means: bool = True
    any_times: bool = True
    smooth: bool = True
    joint: bool = True

    def build(self, *, seed=0, dtype=torch.float64, **changes):
        networks = {"encoder": SMALL, "decoder": SMALL}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = self.model((FEATURES,), 2, **{**networks, **self.arguments, **changes})
            with torch.no_grad():  # what starts at 0 would hide an influence
                for parameter in model.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
        return model.to(dtype)


CHAIN = {"flow": {"name": "chain", "num_times": VISITS, "hidden": [8, 8]}}
VAMP = {"prior": "vamp", "num_pseudo_inputs": 3, "posterior_flows": 1}
THESIS = {"prefixes": "none", "covariance": "diagonal", "space_from": "first", "beta": 0.1}
CASES = {
    "FlowVAE": Case(FlowVAE, {"warmup": 2}),
    "FlowVAE conditions": Case(FlowVAE, {"warmup": 2, "conditions": 2}),
    "FlowVAE visit": Case(FlowVAE, {"warmup": 2, "inference": "visit"}, means=False),
    "FlowVAE vamp iaf": Case(FlowVAE, {"warmup": 2, **VAMP}),
    "FlowVAE visit vamp iaf chain": Case(
        FlowVAE,
        {"warmup": 2, "inference": "visit", **VAMP, **CHAIN},
        means=False,
        any_times=False,
    ),
    "FlowVAE vamp chain": Case(FlowVAE, {**VAMP, **CHAIN}, any_times=False),
    "FlowVAE ode": Case(FlowVAE, {"warmup": 2, "flow": {"name": "ode", "num_steps": 2}}),
    "FlowVAE normalised": Case(
        FlowVAE, {"warmup": 2, "length_normalised": True, "conditions": (2,)}
    ),
    "VisitVAE": Case(VisitVAE, smooth=False, joint=False),
    "GPVAE": Case(GPVAE, smooth=False),
    "TopographicVAE": Case(TopographicVAE, {"num_steps": VISITS}, means=False),
    "BubbleVAE": Case(BubbleVAE, {"num_steps": VISITS}, means=False),
    "TrajectoryVAE": Case(TrajectoryVAE),
    "TrajectoryVAE thesis": Case(TrajectoryVAE, THESIS),
    "TrajectoryVAE seen": Case(TrajectoryVAE, {"prefixes": "seen", "conditions": 2}),
}


# Their parts are in other cases, too, and a chain of autoregressive flows takes its time.
SLOW = {
    "FlowVAE conditions",
    "FlowVAE normalised",
    "FlowVAE ode",
    "FlowVAE vamp chain",
    "FlowVAE visit vamp iaf chain",
}


@pytest.fixture(
    params=[pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in CASES]
)
def case(request):
    return CASES[request.param]


def test_every_model_of_sequences_is_under_contract():
    assert {case.model for case in CASES.values()} == set(SEQUENCE_MODELS.values())


def tensors(case, dtype=torch.float64, *, count=COUNT, seed=1, holes=True):
    """A batch with an unobserved visit, and unobserved features, of some individuals."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, VISITS, FEATURES, generator=generator, dtype=torch.float64).to(dtype)
    batch = {
        "x": x,
        "times": torch.arange(float(VISITS)).double().expand(count, -1).clone(),
        "observed": torch.ones(count, VISITS, dtype=torch.bool),
    }
    if holes:
        batch["observed"][0, 1] = batch["observed"][2, 3] = batch["observed"][3, 1:] = False
        batch["mask"] = torch.rand(x.shape, generator=generator) < 0.8
        batch["mask"] &= batch["observed"][..., None]
        batch["mask"][~batch["mask"].any(-1) & batch["observed"]] = True
    conditions = case.arguments.get("conditions")
    if isinstance(conditions, int):
        batch["y"] = torch.arange(count) % conditions
    elif conditions is not None:
        batch["y"] = torch.randn(count, *conditions, generator=generator).to(dtype)
    return batch


def sequences(batch):
    return Sequences(
        batch["x"],
        times=batch["times"],
        observed=batch.get("observed"),
        mask=batch.get("mask"),
        covariates=batch.get("y"),
        dtype=None,
    )


def step(model, batch, *, seed=0, epoch=1.5):
    """The terms of the loss and the gradients of one training step."""
    model.train()
    model.epoch = epoch
    model.zero_grad()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        losses = model.loss(**batch)
    for objective in losses.objectives.values():
        objective.backward(retain_graph=True)
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return [*losses.objectives.values(), *losses.terms.values(), *gradients.values()]


def results(model, batch, *, draws=True):
    """Everything that a model says about a batch, without what is at visits that it adds."""
    model.eval()
    model.epoch = math.inf
    data = sequences(batch)
    found = [*model.log_likelihood(data, 5, seed=3).__dict__.values()]
    for proposal in model.proposals:
        found.append(model.log_likelihood(data, 5, proposal=proposal).log_prob)
    for how in ("best", "resample", "naive") if draws else ():
        found.append(model.impute(data, how, 3, noise=False).values[:, :, :VISITS])
        found.append(model.futures(data, [1.0, 3.0], 3, how=how, noise=False).values)
    return [*found, model.individuals(data)]


def assert_same(found, expected, *, tolerance=0.0):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(
            *(torch.as_tensor(of) for of in (one, other)),
            rtol=tolerance,
            atol=tolerance,
        )


def assert_equal_results(model, batch, other, *, draws=True, tolerance=0.0):
    """Assert that two batches give the same results, by default bit for bit."""
    for epoch in (0, 1.5, math.inf):
        found = step(model, other, epoch=epoch), step(model, batch, epoch=epoch)
        assert_same(*found, tolerance=tolerance)
    found = results(model, other, draws=draws), results(model, batch, draws=draws)
    assert_same(*found, tolerance=tolerance)


@pytest.mark.parametrize("value", [1e30, math.nan])
def test_what_is_not_observed_has_no_influence(case, value):
    batch = tensors(case)
    unseen = batch["x"].masked_fill(~batch["mask"], value)
    hidden = batch["times"].masked_fill(~batch["observed"], math.nan)
    model = case.build()
    changed = {**batch, "x": unseen}
    for epoch in (0, 1.5, math.inf):
        expected = step(model, batch, epoch=epoch)
        assert_same(step(model, changed, epoch=epoch), expected)
        assert_same(step(model, {**changed, "times": hidden}, epoch=epoch), expected)
    assert_same(results(model, changed), results(model, batch))


def test_an_added_unobserved_visit_and_padding_change_nothing(case):
    batch, model = tensors(case), case.build()
    empty = batch["x"].new_full((COUNT, 1, FEATURES), math.nan)
    none = torch.zeros(COUNT, 1, dtype=torch.bool)
    later = torch.full((COUNT, 1), 9.0 if case.any_times else math.nan, dtype=torch.float64)
    wider = {
        **batch,
        "x": torch.cat([batch["x"], empty], 1),
        "times": torch.cat([batch["times"], later], 1),
        "observed": torch.cat([batch["observed"], none], 1),
        "mask": torch.cat([batch["mask"], none[..., None].expand(empty.shape)], 1),
    }
    # Some processors round the products of matrices of other sizes in another way.
    assert_equal_results(model, batch, wider, draws=case.smooth, tolerance=1e-9)
    wider["times"][:, -1] = math.nan  # padding
    assert_equal_results(model, batch, wider, draws=case.smooth, tolerance=1e-9)


def test_the_order_of_visits_changes_nothing(case):
    batch, model = tensors(case), case.build()
    order = torch.tensor([2, 0, 3, 1])
    moved = {n: t if n == "y" else t[:, order] for n, t in batch.items()}
    assert_equal_results(model, batch, moved)


def test_a_mask_of_all_observed_equals_no_mask(case):
    batch, model = tensors(case, holes=False), case.build()
    full = {**batch, "mask": torch.ones_like(batch["x"], dtype=torch.bool)}
    bare = {n: t for n, t in batch.items() if n != "observed"}
    expected = step(model, batch)
    assert_same(step(model, bare), expected)
    for one, other in zip(step(model, full), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    assert_same(results(model, full), results(model, batch))


def test_permuted_individuals_have_permuted_results(case):
    if not case.means:
        pytest.skip("the means of individuals are estimated from draws")
    batch, model = tensors(case), case.build().eval()
    order = torch.tensor([3, 0, 5, 4, 1, 2])
    moved = {name: tensor[order] for name, tensor in batch.items()}
    found = model.individuals(sequences(moved))
    expected = model.individuals(sequences(batch))
    torch.testing.assert_close(found, expected[order], rtol=0.0, atol=1e-10)
    for row in range(COUNT):
        alone = model.individuals(sequences(batch).subset([row]))
        torch.testing.assert_close(alone[0], expected[row], rtol=0.0, atol=1e-10)


def fits(model, batch, latents):
    """log p(x|u) of given latents, and the course of u, which draw nothing at random."""
    visits = model.visits(**batch)
    course = model.path(latents, visits.owner, visits.times, visits.y)
    return model.log_fit(latents, visits), course


def test_a_row_alone_equals_the_row_in_a_batch(case):
    batch, model = tensors(case), case.build().eval()
    latents, _ = model.infer(model.visits(**batch), 3, model.proposals[0])
    fit, course = fits(model, batch, latents)
    at = 0
    for row in range(COUNT):
        alone = {name: tensor[row : row + 1] for name, tensor in batch.items()}
        own_fit, own_course = fits(model, alone, latents[:, row : row + 1])
        torch.testing.assert_close(own_fit[:, 0], fit[:, row], rtol=0.0, atol=1e-10)
        end = at + own_course.shape[-2]
        torch.testing.assert_close(own_course, course[..., at:end, :], rtol=0.0, atol=1e-10)
        at = end


def test_an_early_visit_matters(case):
    if not case.joint:
        pytest.skip("visits are independent")
    batch, model = tensors(case, holes=False), case.build().eval()
    moved = {**batch, "x": batch["x"].clone()}
    moved["x"][:, 0] += 3.0
    for how in ("best", "resample"):
        draws = [
            model.futures(sequences(b), [3.0], 20, how=how, noise=False).values
            for b in (batch, moved)
        ]
        assert bool(((draws[0] - draws[1]).abs().amax((0, 2, 3)) > 1e-6).all())


def test_each_individual_follows_its_own_mask(case):
    """The weight of one individual picks its loss: what another one hides does not change it."""
    batch, model = tensors(case), case.build(**no_hiding(case))
    weight = torch.zeros(COUNT, dtype=torch.float64)
    weight[1] = COUNT
    expected = step(model, {**batch, "weight": weight})[0]
    other = {**batch, "mask": batch["mask"].clone()}
    other["mask"][0, 0] = torch.tensor([True, False, False])
    found = step(model, {**other, "weight": weight})[0]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    other["mask"][1, 0] = torch.tensor([True, False, False])
    found = step(model, {**other, "weight": weight})[0]
    assert float((found - expected).detach().abs()) > 1e-4


def no_hiding(case):
    return {"hidden_share": 0.0} if case.model is FlowVAE else {}


def test_blocks_change_draws_by_monte_carlo_only(case, monkeypatch):
    model, data = case.build().eval(), sequences(tensors(case))
    before = model.impute(data, num_draws=300, noise=False).values.tanh()  # a law may have tails
    spread = before.std(0) / 300**0.5 + 1e-9
    for size in (300 * VISITS * FEATURES, 500):  # an individual at once, and parts of its draws
        monkeypatch.setattr("chartae.longitudinal.base.BLOCK", size)
        after = model.impute(data, num_draws=300, noise=False).values.tanh()
        assert bool(((after.mean(0) - before.mean(0)).abs() < 6.0 * spread).all())


def test_seeds(case):
    model, data = case.build().eval(), sequences(tensors(case))
    draws = [model.impute(data, num_draws=4, seed=seed).values for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    state = torch.get_rng_state()
    y = data.y if model.conditions is not None else None
    made = [model.generate(COUNT, [0.0, 1.0], y=y, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    assert made[0].shape == (COUNT, 2, FEATURES)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtypes(case, dtype):
    model, batch = case.build(dtype=dtype), tensors(case, dtype)
    history = chartae.fit(model, sequences(batch), epochs=3, seed=0, progress=False)
    assert all(math.isfinite(value) for value in history.train["loss"])
    data = sequences(batch)
    assert model.impute(data).values.dtype == dtype
    assert model.log_likelihood(data, 3).log_prob.dtype == dtype
    assert bool(model.impute(data).values.isfinite().all())


def test_saved_and_loaded(case, tmp_path):
    model, data = case.build(dtype=torch.float32), sequences(tensors(case, torch.float32))
    chartae.fit(model, data, epochs=3, seed=0, progress=False)
    model.save_pretrained(tmp_path)
    loaded = chartae.load(tmp_path)
    assert type(loaded) is type(model)
    assert loaded.config() == model.config()
    assert torch.equal(loaded.impute(data).values, model.impute(data).values)
    found = [m.log_likelihood(data, 4).log_prob for m in (loaded, model)]
    assert torch.equal(*found)


def test_a_resumed_training_equals_one_without_a_break(case, tmp_path):
    data = sequences(tensors(case, torch.float32))
    whole, broken = (case.build(dtype=torch.float32) for _ in range(2))
    options = {"epochs": 4, "batch_size": 3, "seed": 0, "progress": False}
    chartae.fit(whole, data, **options)

    class Killed(Exception): ...

    class Kill(Callback):
        def on_epoch_end(self, model, history):
            if history.num_epochs == 3:
                raise Killed

    folder = {"output_dir": tmp_path, "checkpoint_interval": 0.0}
    with pytest.raises(Killed):
        chartae.fit(broken, data, **options, **folder, callbacks=[Kill()])
    resumed = case.build(seed=1, dtype=torch.float32)
    chartae.fit(resumed, data, **options, **folder, resume=True)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_arrays_give_arrays(case):
    batch = tensors(case, torch.float32)
    given = {name: tensor.numpy() for name, tensor in batch.items()}
    model = case.build(dtype=torch.float32).eval()
    data = sequences(batch)
    from_arrays = Sequences(
        given["x"],
        times=given["times"],
        observed=given["observed"],
        mask=given["mask"],
        covariates=given.get("y"),
    )
    draws, expected = model.impute(from_arrays), model.impute(data)
    for name in ("mean", "point", "completed"):
        found = getattr(draws, name)()
        assert not isinstance(found, torch.Tensor)
        assert torch.equal(torch.from_numpy(found), getattr(expected, name)())


def test_doors(case):
    batch, model = tensors(case), case.build()
    unseen = {**batch, "observed": torch.zeros_like(batch["observed"])}
    with pytest.raises(DataError, match="at least one visit an individual"):
        model.check_batch("train", unseen)
    with pytest.raises(DataError, match=r"times of train has shape \(6, 3\)"):
        model.check_batch("train", {**batch, "times": batch["times"][:, 1:]})
    with pytest.raises(DataError, match="NaN or infinite values at observed visits"):
        model.check_batch("train", {**batch, "times": batch["times"] * math.nan})
    with pytest.raises(DataError, match="mask of train"):
        model.check_batch("train", {**batch, "mask": batch["mask"][..., 1:]})
    with pytest.raises(DataError, match="dtype"):
        model.check_batch("train", {**batch, "x": batch["x"].float()})
