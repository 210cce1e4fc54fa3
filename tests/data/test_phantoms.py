import math

import pytest
import torch

from chartae.data import phantom_heads
from chartae.data.phantoms import (
    AGES,
    BRAIN,
    SEMI_AXES,
    SKULL,
    VENTRICLE,
    VENTRICLE_SHAPE,
    rotations_about,
    ventricle_radius,
)
from chartae.errors import ConfigurationError


@pytest.fixture(scope="module")
def heads():
    return phantom_heads(120, noise=0.0)


def positions(size):
    steps = (torch.arange(size) + 0.5) * 2.0 / size - 1.0
    return torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), -1)


def test_ventricles_have_the_volume_of_their_class_and_age():
    size = 56
    data, ages = phantom_heads(24, size, noise=0.0)
    middle = (positions(size) / torch.tensor([0.4, 0.55, 0.4])).norm(dim=-1) < 1.0  # brain only
    share = (BRAIN - data.x[:, 0, middle]) / (BRAIN - VENTRICLE)
    volume = share.sum(1) * (2.0 / size) ** 3
    axes = math.prod(SEMI_AXES) * math.prod(VENTRICLE_SHAPE)
    expected = 2.0 * 4.0 / 3.0 * math.pi * axes * ventricle_radius(data.y, ages) ** 3
    # Heads differ in size by 3 %, which is 9 % of a volume.
    ratio = volume / expected
    assert ratio.mean() == pytest.approx(1.0, abs=0.05)
    assert 0.05 < ratio.std() < 0.13
    assert torch.corrcoef(torch.stack([volume, expected]))[0, 1] > 0.97


def test_patients_have_the_ventricles_of_older_controls():
    ages = torch.tensor([50.0, 60.0, 70.0])
    ones = torch.ones(3, dtype=torch.int64)
    torch.testing.assert_close(ventricle_radius(ones, ages), ventricle_radius(0 * ones, ages + 20))
    assert (ventricle_radius(ones, ages).diff() > 0).all()


def test_the_skull_is_bright_around_the_brain_and_all_is_inside(heads):
    x = heads.data.x[:, 0]
    for side in (x[:, 0], x[:, -1], x[:, :, 0], x[:, :, -1], x[..., 0], x[..., -1]):
        assert side.max() == 0.0
    assert x.max() == pytest.approx(SKULL, abs=1e-3)
    assert x.min() == 0.0
    # Every line through the middle meets the skull twice.
    for line in (x[:, :, 16, 16], x[:, 16, :, 16], x[:, 16, 16, :]):
        assert (line[:, :16].amax(1) > BRAIN).all()
        assert (line[:, 16:].amax(1) > BRAIN).all()
    volume = (x > 0.45).flatten(1).sum(1) * (2.0 / 32) ** 3
    assert volume.mean() == pytest.approx(4.0 / 3.0 * math.pi * math.prod(SEMI_AXES), rel=0.1)


def test_labels_and_ages(heads):
    data, ages = heads
    assert data.class_names == ("control", "patient")
    assert torch.bincount(data.y).tolist() == [60, 60]
    assert AGES[0] <= ages.min() < 55 < 85 < ages.max() <= AGES[1]
    assert data.input_shape == (1, 32, 32, 32)
    assert data.x.dtype == torch.float32


def test_noise_has_its_deviation():
    clean, noisy = (phantom_heads(4, size=24, noise=noise).data.x for noise in (0.0, 0.05))
    inside = (clean > 0.5) & (clean < 0.7)
    assert (noisy - clean)[inside].std() == pytest.approx(0.05, rel=0.05)
    assert noisy.min() == 0.0


def test_the_seed_decides():
    first, again, other = (phantom_heads(4, size=16, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.data.x, again.data.x)
    assert torch.equal(first.ages, again.ages)
    assert not torch.equal(first.data.x, other.data.x)


def test_rotations_turn_about_their_axis_by_their_length():
    axes = torch.tensor([[0.0, 0.0, math.pi / 2], [0.3, -0.2, 0.5]])
    turns = rotations_about(axes)
    torch.testing.assert_close(turns[0] @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1.0, 0]))
    torch.testing.assert_close(turns[1] @ axes[1], axes[1])
    torch.testing.assert_close(turns @ turns.mT, torch.eye(3).expand(2, 3, 3), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "arguments", [{"n": 1}, {"size": 15}, {"noise": -0.1}, {"noise": math.nan}, {"seed": -1}]
)
def test_bad_arguments_are_refused(arguments):
    (name,) = arguments
    with pytest.raises(ConfigurationError, match=f"{name}="):
        phantom_heads(**{"n": 4, **arguments})
