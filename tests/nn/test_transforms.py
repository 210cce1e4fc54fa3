"""Random transforms of images and volumes."""

import pytest
import torch

from chartae.errors import ConfigurationError
from chartae.nn import random_affine


def disk(*sizes: int, radius: float = 5.0) -> torch.Tensor:
    grids = torch.meshgrid(*[torch.arange(n) - (n - 1) / 2 for n in sizes], indexing="ij")
    return torch.sigmoid(3.0 * (radius - torch.stack(grids).square().sum(0).sqrt()))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("sizes", [(25, 25), (21, 39), (17, 21, 25)])
def test_a_rotation_keeps_a_disk_whatever_the_sides(sizes: tuple[int, ...]) -> None:
    channel = (1,) if len(sizes) == 3 else ()
    x = disk(*sizes).reshape(*channel, *sizes).expand(6, *channel, *sizes)
    moved = random_affine(x, rotation=180.0, shift=0.0, zoom=0.0, generator=seeded())
    assert (moved - x).abs().max() < 0.12  # linear interpolation of the rim


def test_a_rotation_turns_what_is_not_round() -> None:
    x = torch.zeros(40, 21, 21)
    x[:, 10, 3:18] = 1.0
    moved = random_affine(x, rotation=90.0, shift=0.0, zoom=0.0, generator=seeded())
    places = torch.arange(21) - 10.0
    spread = (moved.sum(2) * places.square()).sum(1) / moved.sum((1, 2))
    assert spread.min() < 3.0
    assert spread.max() > 12.0  # some bars nearly stand


def test_a_shift_is_as_large_as_it_may_be_and_no_larger() -> None:
    x = disk(40, 40, radius=4.0).expand(300, 40, 40)
    moved = random_affine(x, rotation=0.0, shift=0.2, zoom=0.0, generator=seeded())
    places = torch.arange(40) - 19.5
    centres = (moved.sum(2) * places).sum(1) / moved.sum((1, 2))
    assert centres.abs().max() <= 8.0 + 0.1
    assert centres.abs().max() > 7.0
    assert abs(float(centres.mean())) < 1.0


def test_a_zoom_changes_the_area() -> None:
    x = disk(41, 41, radius=8.0).expand(200, 41, 41)
    moved = random_affine(x, rotation=0.0, shift=0.0, zoom=0.25, generator=seeded())
    ratio = moved.sum((1, 2)) / x[0].sum()
    assert ratio.min() == pytest.approx(1.25**-2, abs=0.03)
    assert ratio.max() == pytest.approx(0.75**-2, abs=0.05)


def test_a_flip_mirrors_half_of_the_images() -> None:
    x = torch.rand(60, 3, 8, 10, generator=seeded())
    still = {"rotation": 0.0, "shift": 0.0, "zoom": 0.0}
    moved = random_affine(x, **still, flip=True, generator=seeded())
    same = torch.isclose(moved, x, atol=1e-4).flatten(1).all(1)
    mirrored = torch.isclose(moved, x.flip(-1), atol=1e-4).flatten(1).all(1)
    assert torch.equal(same, ~mirrored)
    assert 15 < int(same.sum()) < 45


def test_the_generator_decides() -> None:
    x = torch.rand(4, 9, 9, generator=seeded()).double()
    first, again = (random_affine(x, generator=seeded(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.dtype == torch.float64
    assert not torch.equal(first, random_affine(x, generator=seeded(2)))


def test_wrong_arguments() -> None:
    with pytest.raises(ConfigurationError, match="zoom=1"):
        random_affine(torch.zeros(2, 8, 8), zoom=1.0)
    with pytest.raises(ConfigurationError, match="rotation"):
        random_affine(torch.zeros(2, 8, 8), rotation=-1.0)
