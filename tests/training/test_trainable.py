"""`fit` trains anything with a loss on named tensors, and counts samples by their weights."""

import pytest
import torch
from torch import nn

import chartae
from chartae.checks import check_shape
from chartae.data import ArrayDataset, TensorSet
from chartae.errors import CheckpointError, ConfigurationError, DataError
from chartae.models import Losses, Trainable


class Trend(Trainable):
    """Least squares through points at some times, which need not be observed."""

    def __init__(self) -> None:
        super().__init__()
        self.slope, self.offset = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def check_batch(self, name, batch):
        for key, value in batch.items():
            check_shape(f"{key} of {name}", value, ("N", 3))

    def loss(self, times, values, *, observed=None):
        error = (self.slope * times + self.offset - values).square()
        return Losses.of((error if observed is None else error.where(observed, 0.0)).mean())


def points():
    times = torch.linspace(-1.0, 1.0, 60).reshape(20, 3)
    return times, 2.0 * times - 1.0


def trained(data, **options):
    model = Trend()
    options = {"epochs": 150, "batch_size": 5, "learning_rate": 0.05, "seed": 0, **options}
    history = chartae.fit(model, data, progress=False, **options)
    return model, history


@pytest.mark.parametrize("form", [TensorSet, dict])
def test_what_has_a_loss_is_trained(form):
    times, values = points()
    model, history = trained(form(times=times, values=values))
    assert model.slope.item() == pytest.approx(2.0, abs=1e-2)
    assert model.offset.item() == pytest.approx(-1.0, abs=1e-2)
    assert history.train["loss"][-1] < 1e-3


def test_tensors_are_known_by_name_alone(tmp_path):
    times, values = points()
    observed = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)) < 0.8
    data = TensorSet(times=times, values=values.where(observed, 50.0), observed=observed)
    model, _ = trained(data)
    assert model.slope.item() == pytest.approx(2.0, abs=1e-2)
    trained(data, epochs=10, output_dir=tmp_path)
    resumed, _ = trained(data, epochs=150, output_dir=tmp_path, resume=True)
    assert resumed.slope.item() == model.slope.item()
    with pytest.raises(CheckpointError, match="train="):
        trained(TensorSet(times=times, values=values), output_dir=tmp_path, resume=True)


def test_names_that_the_loss_lacks_or_needs_are_refused():
    times, values = points()
    with pytest.raises(ConfigurationError, match="train has days, which Trend ignores"):
        trained(TensorSet(times=times, values=values, days=times))
    with pytest.raises(DataError, match="train has no values: Trend needs values"):
        trained(TensorSet(times=times))
    with pytest.raises(DataError, match="values of train has shape .20, 2.: expected .N, 3."):
        trained(TensorSet(times=times, values=values[:, :2]))


@pytest.mark.slow
def test_training_follows_the_weights():
    # Two groups, of which the weights leave one; and 3 : 1 is the mean in between.
    x = torch.cat([torch.zeros(30, 4), torch.ones(10, 4)])
    network = {"encoder": {"name": "mlp", "hidden": [4]}, "decoder": {"name": "mlp", "hidden": [4]}}

    def mean(weight):
        model = chartae.AE((4,), 1, likelihood={"name": "gaussian", "scale": 1.0}, **network)
        for parameter in model.code_head.parameters():
            nn.init.zeros_(parameter)
            parameter.requires_grad_(False)
        data = ArrayDataset(x, weight=weight)
        chartae.fit(model, data, epochs=200, batch_size=8, learning_rate=0.02, seed=0,
                    progress=False)  # fmt: skip
        return model.decode(torch.zeros(1, 1)).mean().item()

    ones = torch.cat([torch.zeros(30), torch.ones(10)])
    assert mean(ones) == pytest.approx(1.0, abs=0.05)
    assert mean(1.0 - ones) == pytest.approx(0.0, abs=0.05)
    assert mean(None) == pytest.approx(0.25, abs=0.05)
    assert mean(1.0 + 8.0 * ones) == pytest.approx(0.75, abs=0.05)


def test_the_size_of_weights_does_not_matter():
    x, weight = torch.rand(20, 4), torch.rand(20)
    model = chartae.VAE((4,), 2)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    losses = []
    for factor in (1.0, 1024.0):
        model.load_state_dict(start)
        history = chartae.fit(
            model, ArrayDataset(x, weight=factor * weight), epochs=3, seed=0, progress=False
        )
        losses.append(history.train["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_dataset_of_torch_brings_weights_too():
    class Weighted(torch.utils.data.Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, index):
            return {"x": torch.full((4,), index / 6), "weight": torch.tensor(-1.0)}

    with pytest.raises(DataError, match="weight of batch 1 of train has a value of -1"):
        chartae.fit(chartae.VAE((4,), 2), Weighted(), epochs=1, progress=False)
