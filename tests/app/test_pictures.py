"""Pictures of observations have their pixels."""

import base64
import io

import numpy as np
import torch
from PIL import Image

from chartae.app.pictures import Painter, sheet, slices


def opened(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def test_an_image_is_its_pixels():
    x = torch.tensor([[0.0, 0.2], [0.4, 1.0]])
    assert opened(Painter(0.0, 1.0).uri(x)).tolist() == [[0, 51], [102, 255]]


def test_colours_have_their_channels_last():
    x = torch.rand(3, 4, 5)
    shown = opened(Painter(0.0, 1.0).uri(x))
    assert np.array_equal(shown, (255 * x).round().byte().movedim(0, -1).numpy())


def test_values_beyond_the_scale_are_cut():
    assert opened(Painter(-1.0, 1.0).uri(torch.tensor([[-5.0, 0.0, 7.0]]))).tolist() == [
        [0, 128, 255]
    ]


def test_a_volume_is_three_middle_slices():
    volume = np.arange(2 * 4 * 6, dtype=float).reshape(1, 2, 4, 6)
    first, second, third = slices(volume)
    assert np.array_equal(first, volume[0, 1])
    assert np.array_equal(second, volume[0, :, 2])
    assert np.array_equal(third, volume[0, :, :, 3])
    shown = Painter(0.0, 47.0).pixels(volume)
    assert shown.shape == (4, 6 + 2 + 6 + 2 + 4)
    assert np.array_equal(shown[:, :6], np.rint(first * 255 / 47))


def test_bars_are_as_high_as_values():
    shown = Painter(0.0, 1.0).pixels(torch.tensor([0.0, 0.5, 1.0]))
    inked = (shown != 255).any(-1)[:-1]  # the last row is the axis
    heights = inked.sum(0)[[10, 74, 138]]
    assert np.abs(heights - np.array([0, 47, 94])).max() <= 1


def test_a_sheet_has_its_pictures_in_rows():
    pictures = [np.full((2, 3), k, dtype=np.uint8) for k in range(3)]
    whole = sheet(pictures, 2)
    assert whole.shape == (2 + 2 + 2, 3 + 2 + 3)
    assert (whole[:2, :3] == 0).all()
    assert (whole[:2, 5:] == 1).all()
    assert (whole[4:, :3] == 2).all()
    assert (whole[4:, 3:] == 255).all()
