import pytest
import torch

from chartae.data import digits, disks_and_rings
from chartae.errors import ConfigurationError


@pytest.mark.parametrize("shape", [(16, 16), (28, 28), (17, 33), (64, 48)])
def test_disks_are_full_and_rings_are_hollow(shape):
    data = disks_and_rings(2000, shape=shape, seed=3)
    assert data.x.shape == (2000, *shape)
    assert set(data.x.unique().tolist()) == {0.0, 1.0}
    centre = data.x[:, shape[0] // 2, shape[1] // 2]
    assert torch.equal(centre, (data.y == 0).float())
    # A horizontal line through the centre crosses a disk once and a ring twice.
    middle = torch.nn.functional.pad(data.x[:, shape[0] // 2], (1, 1))
    entries = (middle.diff(dim=1) == 1).sum(1)
    assert torch.equal(entries, 1 + data.y)


def test_classes_are_balanced_and_named():
    data = disks_and_rings(181)
    assert torch.bincount(data.y).tolist() == [91, 90]
    assert data.class_names == ("disk", "ring")


def test_images_are_symmetric_and_inside():
    x = disks_and_rings().x
    assert torch.equal(x, x.flip(1))
    assert torch.equal(x, x.transpose(1, 2))
    assert x[:, 0, 0].sum() == 0


def test_diameters_and_thicknesses_vary():
    data = disks_and_rings(1000)
    diameters = data.x.amax(1).sum(1)
    assert len(diameters.unique()) >= 8
    one_size = data.subset((diameters == 20) & (data.y == 1)).x
    thicknesses = one_size[:, 14, :14].sum(1)
    assert len(thicknesses.unique()) >= 4


def test_the_seed_decides():
    assert torch.equal(disks_and_rings(seed=1).x, disks_and_rings(seed=1).x)
    assert not torch.equal(disks_and_rings(seed=1).x, disks_and_rings(seed=2).x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 1}, "num_samples=1: expected an integer at least 2"),
        ({"num_samples": 10.0}, "num_samples=10.0: expected an integer"),
        ({"shape": (28,)}, r"shape=\(28,\): expected \(height, width\)"),
        ({"shape": (28, 15)}, r"shape\[1\]=15: expected an integer at least 16"),
        ({"seed": -1}, "seed=-1: expected an integer at least 0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        disks_and_rings(**arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_digits_are_in_the_unit_interval(dtype):
    data = digits(dtype)
    assert data.x.shape == (1797, 8, 8)
    assert data.x.dtype == dtype
    assert (data.x.min(), data.x.max()) == (0.0, 1.0)
    assert torch.equal(data.x * 16, (data.x * 16).round())
    assert data.class_names == tuple("0123456789")
    assert torch.bincount(data.y).min() >= 170
