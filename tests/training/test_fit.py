"""What `fit` does to a model: steps, best weights, patience, schedules, seeds."""

import random

import numpy as np
import pytest
import torch
from torch import nn, optim

import chartae
from chartae.data import ArrayDataset
from chartae.errors import ConfigurationError, DivergenceError
from chartae.models import Losses
from chartae.training import Callback


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_the_model_learns_and_ends_in_eval_mode(make_vae, fit, data):
    model = make_vae()
    history = fit(model, data, epochs=30, learning_rate=1e-2)
    assert history.train["loss"][-1] < history.train["loss"][0]
    assert not model.training
    assert history.stopped == "finished"
    assert history.num_epochs == len(history.train["kl"]) == len(history.learning_rate) == 30


def test_a_training_is_the_plain_loop(make_vae, fit, data):
    """One batch and SGD: the weights are those of the three lines that everybody knows."""
    model, copy = make_vae("AE"), make_vae("AE")
    fit(model, data, data, epochs=5, optimizer="sgd", learning_rate=1e-2)
    optimizer = optim.SGD(copy.parameters(), 1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        copy.loss(data).objectives["model"].backward()
        optimizer.step()
    for name, tensor in copy.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor)


def test_terms_are_means_over_samples_of_uneven_batches(parabola, fit):
    """11 samples in batches of at most 4 are three steps, of 4, 4 and 3 samples."""
    model = parabola()
    history = fit(model, torch.zeros(11, 3), epochs=1, batch_size=4, optimizer="sgd")
    p = [0.998**k for k in range(3)]
    expected = (4 * p[0] + 4 * p[1] + 3 * p[2]) / 11
    assert history.train["p"] == [pytest.approx(expected)]


def test_the_best_weights_are_restored_when_the_loss_rises(parabola, fit):
    """With this rate every step multiplies p by -2, so that the first epoch is the best."""
    model = parabola()
    history = fit(
        model, torch.zeros(4, 3), torch.zeros(4, 3), epochs=6, optimizer="sgd", learning_rate=1.5
    )
    assert history.validation["loss"] == [4.0**k for k in range(1, 7)]
    assert history.best_epoch == 0
    assert model.p.item() == -2.0


def test_patience_ends_training_and_keeps_the_best_epoch(parabola, fit):
    model = parabola()
    rates = iter([0.25, 0.25, 1.5, 1.5, 1.5, 1.5])  # p: 1/2, 1/4, -1/2, 1, ...

    class Rates(Callback):
        def on_epoch_end(self, model, history):
            self.optimizer.param_groups[0]["lr"] = next(rates)

    def sgd(parameters, learning_rate):
        Rates.optimizer = optim.SGD(parameters, next(rates))
        return Rates.optimizer

    x = torch.zeros(4, 3)
    history = fit(model, x, x, epochs=50, patience=2, optimizer=sgd, callbacks=[Rates()])
    assert history.stopped == "patience"
    assert (history.num_epochs, history.best_epoch, model.p.item()) == (4, 1, 0.25)
    assert history.learning_rate == [0.25, 0.25, 1.5, 1.5]


def test_gradients_are_clipped(parabola, fit):
    model = parabola(start=100.0)
    fit(model, torch.zeros(4, 3), epochs=1, optimizer="sgd", learning_rate=1.0, clip_grad_norm=3.0)
    assert model.p.item() == pytest.approx(97.0)


def test_cosine_falls_to_nothing_and_plateau_halves(parabola, fit):
    x = torch.zeros(4, 3)
    cosine = fit(parabola(), x, epochs=10, scheduler="cosine").learning_rate
    assert cosine[0] == 1e-3
    assert cosine[5] == pytest.approx(5e-4)
    assert cosine[-1] < 5e-5

    flat = fit(parabola(start=0.0), x, epochs=14, scheduler="plateau").learning_rate
    assert flat == [1e-3] * 12 + [5e-4] * 2


def test_a_scheduler_of_mine(parabola, fit):
    def scheduler(optimizer):
        return optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)

    rates = fit(parabola(), torch.zeros(4, 3), epochs=3, scheduler=scheduler).learning_rate
    assert rates == [1e-3, 5e-4, 2.5e-4]


class Weights(Callback):
    def __init__(self):
        self.seen = []

    def on_epoch_end(self, model, history):
        self.seen.append(model.kl_weight)


def test_kl_warmup(make_vae, fit, data, monkeypatch):
    """The weight rises in training, never in validation, and no warm-up epoch is the best."""
    seen = []
    original = chartae.VAE.loss

    def loss(self, x, *, y=None, mask=None):
        seen.append((self.training, self.kl_weight))
        return original(self, x, y=y, mask=mask)

    monkeypatch.setattr(chartae.VAE, "loss", loss)
    model = make_vae()
    history = fit(model, data, data, epochs=6, kl_warmup=4, patience=1, learning_rate=1e-5)
    assert [w for training, w in seen if training] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert [w for training, w in seen if not training] == [1.0] * 6
    assert history.best_epoch >= 4
    assert model.kl_weight == 1.0


def test_the_weight_of_mine_is_what_the_warmup_rises_to(make_vae, fit, data):
    model, record = make_vae(), Weights()
    model.kl_weight = 0.5
    fit(model, data, epochs=4, kl_warmup=2, callbacks=[record])
    assert record.seen == [0.0, 0.25, 0.5, 0.5]
    assert model.kl_weight == 0.5


def test_plateau_ignores_the_warmup(make_vae, fit, data):
    """Warm-up losses are lower than any that follows: they must not look like a plateau's best."""
    rates = fit(make_vae(), data, epochs=20, kl_warmup=8, scheduler="plateau").learning_rate
    assert rates == [1e-3] * 20


def test_the_same_seed_gives_the_same_weights(make_vae, fit, data):
    runs = []
    for seed in (1, 1, 2):
        model = make_vae()
        torch.manual_seed(len(runs))  # the global state has no say
        fit(model, data, epochs=4, batch_size=8, seed=seed)
        runs.append(weights(model))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_the_global_random_states_are_left_alone(make_vae, fit, data):
    def states():
        return torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002

    before = states()
    fit(make_vae(), data, data, epochs=2, batch_size=8, seed=5)
    after = states()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_without_a_seed_the_global_state_decides(make_vae, fit, data):
    runs = []
    for number in (1, 1, 2):
        model = make_vae()
        torch.manual_seed(number)
        fit(model, data, epochs=2, seed=None)
        runs.append(weights(model))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_callbacks_and_validation_do_not_shift_the_noise(make_vae, fit, data):
    class Draws(Callback):
        def on_epoch_end(self, model, history):
            torch.rand(100)

    plain, disturbed = make_vae(), make_vae()
    fit(plain, data, epochs=4, batch_size=8)
    fit(disturbed, data, epochs=4, batch_size=8, callbacks=[Draws()])
    assert same(weights(plain), weights(disturbed))


def test_each_epoch_has_its_own_noise(parabola, fit, data):
    drawn = []

    class Noisy(parabola):
        def loss(self, x):
            drawn.append(float(torch.randn(())))
            return super().loss(x)

    fit(Noisy((6,)), data, epochs=3)
    assert len(set(drawn)) == len(drawn) == 3


def test_float64_trains_in_float64(make_vae, fit, data):
    model = make_vae().double()
    fit(model, data.double(), epochs=2)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float64}


def test_numpy_arrays_are_taken(make_vae, fit, data):
    model, other = make_vae(), make_vae()
    fit(model, data.double().numpy(), data.numpy(), epochs=2)
    fit(other, data, data, epochs=2)
    assert same(weights(model), weights(other))


def test_a_mask_is_used(make_vae, fit, data):
    model, other = make_vae(), make_vae()
    mask = torch.rand(data.shape) < 0.7
    fit(model, ArrayDataset(data.masked_fill(~mask, 0.0), mask=mask), epochs=2)
    fit(other, ArrayDataset(data.masked_fill(~mask, 1.0), mask=torch.ones_like(mask)), epochs=2)
    assert not same(weights(model), weights(other))


def test_training_again_goes_on_from_the_weights(make_vae, fit, data):
    model = make_vae()
    first = fit(model, data, epochs=20, learning_rate=1e-2)
    second = fit(model, data, epochs=1, learning_rate=1e-2)
    assert second.train["loss"][0] < first.train["loss"][0]


def test_the_metric_of_a_rhvae_is_of_the_whole_set_in_order(make_vae, fit, data):
    model = make_vae("RHVAE")
    fit(model, data, epochs=2, batch_size=8)
    torch.testing.assert_close(model.centroids, model.encode(data))
    fit(model, data[:10], epochs=1)
    assert len(model.centroids) == 10


@pytest.mark.parametrize("name", ["AE", "VAE", "BetaVAE", "IWAE", "HVAE", "RHVAE"])
def test_every_model_trains(name, make_vae, fit, data):
    model = make_vae(name)
    before = weights(model)
    history = fit(model, data, epochs=8, batch_size=16, learning_rate=1e-2)
    assert history.train["loss"][-1] < history.train["loss"][0]
    for key, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[key]), key


# --- opponents ----------------------------------------------------------------------------------


def test_opponents_move_from_the_same_point(duel, fit):
    """d(pq)/dp = q lowers p, d(-pq)/dq = -p raises q; the second does not see the first's step."""
    model = duel()
    history = fit(model, torch.zeros(4, 3), epochs=1, optimizer="sgd", learning_rate=0.1)
    assert model.p.item() == pytest.approx(1.0 - 0.1 * 2.0)
    assert model.q.item() == pytest.approx(2.0 + 0.1 * 1.0)
    assert history.train == {"loss": [2.0], "opponent": [-2.0]}


def test_opponents_are_clipped_apart(duel, fit):
    model = duel()
    fit(
        model,
        torch.zeros(4, 3),
        epochs=1,
        optimizer="sgd",
        learning_rate=0.1,
        clip_grad_norm=1.5,
    )
    assert model.p.item() == pytest.approx(1.0 - 0.1 * 1.5)
    assert model.q.item() == pytest.approx(2.0 + 0.1 * 1.0)


def test_groups_without_the_model_are_refused(duel, fit):
    model = duel()
    model.optimization_groups = lambda: {"generator": [model.p]}
    with pytest.raises(ConfigurationError, match="expected 'model'"):
        fit(model, torch.zeros(4, 3))


def test_a_frozen_model_is_refused(make_vae, fit, data):
    model = make_vae().requires_grad_(False)
    with pytest.raises(ConfigurationError, match="nothing to train"):
        fit(model, data)


def test_frozen_parameters_stay(make_vae, fit, data):
    model = make_vae()
    model.encoder.requires_grad_(False)
    before = weights(model.encoder)
    fit(model, data, epochs=2)
    assert same(weights(model.encoder), before)


# --- divergence ---------------------------------------------------------------------------------


def test_divergence_names_epoch_step_and_term_and_keeps_good_weights(parabola, fit):
    """Each step multiplies p by -1e5: its square leaves float32 after the fourth."""
    model = parabola()
    rate = (1e5 + 1) / 2
    with pytest.raises(DivergenceError, match="'loss' became inf in step 1 of epoch 3"):
        fit(
            model,
            torch.zeros(4, 3),
            epochs=100,
            batch_size=2,
            optimizer="sgd",
            learning_rate=rate,
        )
    assert not model.training
    # Those after the first epoch; after the second the loss was infinite.
    assert model.p.item() == pytest.approx(1e10, rel=1e-5)


def test_divergence_in_the_first_step_leaves_the_first_weights(make_vae, fit, data):
    model = make_vae()
    before = weights(model)
    with pytest.raises(DivergenceError, match="step [0-9]+ of epoch [12]"):
        fit(model, data, epochs=5, batch_size=8, learning_rate=1e30, optimizer="sgd")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values())
    assert before.keys() == model.state_dict().keys()
    model.reconstruct(data)


def test_weights_whose_loss_diverges_are_not_the_last_good_ones(parabola, fit):
    """Those after the only complete epoch are finite, but the square of p is not."""
    model = parabola()
    with pytest.raises(DivergenceError, match="'loss' became inf in step 1 of epoch 2"):
        fit(model, torch.zeros(4, 3), epochs=9, optimizer="sgd", learning_rate=1e20)
    assert model.p.item() == 1.0


def test_clipping_an_infinite_gradient_is_a_divergence(parabola, fit):
    class Root(parabola):
        def loss(self, x):
            return Losses.of(self.p.abs().sqrt() + 0.0 * x.sum())

    model = Root(start=0.0)
    with pytest.raises(DivergenceError, match="'loss' became nan in step 2 of epoch 1"):
        fit(model, torch.zeros(4, 3), epochs=9, batch_size=2, clip_grad_norm=1.0)
    assert model.p.item() == 0.0


def test_a_last_step_that_ruins_the_weights_is_undone(parabola, fit):
    """The loss was finite in every step, and yet the last update made the weights infinite."""
    model = parabola(start=1e10)
    history = fit(model, torch.zeros(4, 3), epochs=1, optimizer="sgd", learning_rate=1e35)
    assert history.train["loss"] == [pytest.approx(1e20)]
    assert model.p.item() == 1e10
    assert history.best_epoch is None


def test_a_buffer_may_be_nan(parabola, fit):
    """The mark of "not known yet" is not a sign of ruin: the best weights are kept."""
    model = parabola()
    model.register_buffer("unknown", torch.tensor(float("nan")))
    fit(model, torch.zeros(4, 3), epochs=3, optimizer="sgd", learning_rate=0.25)
    assert model.p.item() == 0.125


def test_divergence_on_the_validation_set(parabola, fit):
    with pytest.raises(DivergenceError, match="'loss' became inf on the validation set"):
        fit(
            parabola(),
            torch.zeros(4, 3),
            torch.zeros(4, 3),
            epochs=3,
            optimizer="sgd",
            learning_rate=1e30,
        )


def test_a_late_divergence_is_found_in_its_step(fit, parabola):
    """Losses are looked at every 50 steps; the step named is the right one all the same."""

    class Bomb(parabola):
        calls = 0

        def loss(self, x):
            self.calls += 1
            loss = self.p.square() + 0.0 * x.sum()
            return Losses.of(loss, odd=loss * (float("nan") if self.calls == 68 else 1.0))

    with pytest.raises(DivergenceError, match="'odd' became nan in step 68 of epoch 1"):
        fit(Bomb(), torch.zeros(200, 3), epochs=1, batch_size=2)


# --- callbacks and loggers ----------------------------------------------------------------------


class Recorder(Callback):
    def __init__(self, stop_after=None):
        self.events, self.stop_after = [], stop_after

    def on_fit_start(self, model, history):
        self.events.append("start")

    def on_epoch_end(self, model, history):
        self.events.append(history.num_epochs)
        return history.num_epochs == self.stop_after

    def on_fit_end(self, model, history):
        self.events.append(("end", model.training))


def test_callbacks_are_called_and_may_stop(make_vae, fit, data):
    stopper, other = Recorder(stop_after=2), Recorder()
    history = fit(make_vae(), data, epochs=9, callbacks=[stopper, other])
    assert stopper.events == other.events == ["start", 1, 2, ("end", False)]
    assert history.stopped == "callback"


def test_an_error_in_a_callback_comes_out_and_leaves_a_usable_model(parabola, fit):
    class Faulty(Callback):
        def on_epoch_end(self, model, history):
            if history.num_epochs == 3:
                raise ZeroDivisionError("mine")

    model = parabola()
    x = torch.zeros(4, 3)
    with pytest.raises(ZeroDivisionError, match="mine"):
        fit(model, x, x, epochs=9, optimizer="sgd", learning_rate=1.5, callbacks=[Faulty()])
    assert not model.training
    assert model.p.item() == -2.0


def test_loggers_get_every_term_and_the_end(make_vae, fit, data):
    from lightning_fabric.loggers import Logger

    class Memory(Logger):
        name, version = "memory", 0

        def __init__(self):
            self.rows, self.status = [], None

        def log_hyperparams(self, *arguments, **options):
            pass

        def log_metrics(self, metrics, step=None):
            self.rows.append((step, metrics))

        def finalize(self, status):
            self.status = status

    memory = Memory()
    history = fit(make_vae(), data, data, epochs=2, loggers=[memory])
    assert [step for step, _ in memory.rows] == [0, 1]
    assert memory.rows[1][1] == {
        **{f"train/{name}": values[1] for name, values in history.train.items()},
        **{f"validation/{name}": values[1] for name, values in history.validation.items()},
        "latents/active_units": history.latents["active_units"][1],
        "learning_rate": 1e-3,
    }
    assert memory.status == "success"


def test_a_batch_norm_never_sees_a_single_sample(fit, data):
    encoder = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
    model = chartae.VAE((6,), 2, encoder=encoder, decoder={"name": "mlp", "hidden": [4]})
    fit(model, data[:9], epochs=1, batch_size=8)
