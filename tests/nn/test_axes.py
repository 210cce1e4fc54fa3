"""Convolutions along any number of axes, with strides and kernels of each axis' own."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import chartae
from chartae.errors import ConfigurationError
from chartae.models import VAE, VAEGAN, VQVAE
from chartae.nn import Discriminator, build_decoder, build_encoder

SMALL = {"channels": [3, 4], "features": 5}
MIRROR = {"channels": [4, 3], "features": 5}


def weights_of(network: nn.Module, kind: type[nn.Module]) -> list[torch.Size]:
    return [part.weight.shape for part in network.modules() if isinstance(part, kind)]


@pytest.mark.parametrize("shape", [(12, 7), (1, 1), (3, 33), (2, 10), (9,)], ids=str)
@pytest.mark.parametrize("name", ["conv", "resnet"])
def test_signals_are_convolved_along_their_length_alone(name, shape):
    encoder = build_encoder({"name": name, "dims": 1, **SMALL}, shape)
    decoder = build_decoder({"name": name, "dims": 1, **MIRROR}, 2, shape)
    assert encoder(torch.randn(4, *shape)).shape == (4, 5)
    assert decoder(torch.randn(4, 2)).shape == (4, *shape)
    channels = shape[0] if len(shape) == 2 else 1
    assert weights_of(encoder, nn.Conv1d)[0] == (3, channels, 3)
    assert weights_of(decoder, nn.ConvTranspose1d)[-1] == (3, channels, 3)
    assert not weights_of(encoder, nn.Conv2d)


def test_without_dims_a_signal_of_channels_is_an_image():
    assert weights_of(build_encoder("conv", (12, 100)), nn.Conv2d)[0] == (32, 1, 3, 3)


def test_channels_of_a_signal_have_no_order():
    # Renaming the channels of a signal is renaming the first weights; of an image it is not.
    torch.manual_seed(0)
    encoder = build_encoder({"name": "conv", "dims": 1, **SMALL}, (6, 20))
    x, order = torch.randn(2, 6, 20), torch.randperm(6)
    expected = encoder(x)
    with torch.no_grad():
        encoder[0].weight.copy_(encoder[0].weight[:, order])
    torch.testing.assert_close(encoder(x[:, order]), expected)


per_axis = st.tuples(*[st.integers(1, 3)] * 3)


@given(
    sizes=st.tuples(*[st.integers(1, 11)] * 3),
    strides=st.one_of(st.integers(1, 4), per_axis, st.lists(per_axis, min_size=2, max_size=2)),
    kernel=st.one_of(st.sampled_from([1, 3, 5]), st.tuples(*[st.sampled_from([1, 3, 5])] * 3)),
    channels=st.booleans(),
)
def test_volumes_of_any_size_go_through_any_strides_and_kernels(sizes, strides, kernel, channels):
    shape = (2, *sizes) if channels else sizes
    options = {"name": "conv3d", "stride": strides, "kernel": kernel}
    encoder = build_encoder({**options, **SMALL}, shape)
    smallest = sizes
    rows = strides if isinstance(strides, list) else [strides] * 2
    for row in rows:
        steps = row if isinstance(row, tuple) else (row,) * 3
        smallest = tuple(math.ceil(n / s) for n, s in zip(smallest, steps, strict=True))
    linear = next(part for part in encoder if isinstance(part, nn.Linear))
    assert linear.in_features == 4 * math.prod(smallest)
    assert encoder(torch.randn(2, *shape)).shape == (2, 5)
    reverse = strides[::-1] if isinstance(strides, list) else strides
    decoder = build_decoder({**options, "stride": reverse, **MIRROR}, 2, shape)
    assert decoder[2].out_features == linear.in_features
    assert decoder(torch.randn(2, 2)).shape == (2, *shape)


def test_a_stride_and_a_width_of_one_keep_slices_apart():
    torch.manual_seed(0)
    options = {"stride": (1, 2, 2), "kernel": (1, 3, 3)}
    encoder = build_encoder({"name": "conv3d", **options, **SMALL}, (5, 8, 8))
    x = torch.randn(1, 5, 8, 8)
    moved = x.clone()
    moved[:, 2] += 1.0
    maps = encoder[:-3]
    changed = (maps(moved) != maps(x)).any(-1).any(-1)[0].any(0)
    assert changed.tolist() == [False, False, True, False, False]


@pytest.mark.parametrize(
    ("name", "options", "shape", "message"),
    [
        ("conv", {"dims": 1}, (3, 8, 8), r"convolutions expect \(L,\) or \(C, L\) for dims=1"),
        ("conv", {"dims": 2}, (8,), r"convolutions expect \(H, W\) or \(C, H, W\) for dims=2"),
        ("resnet", {"dims": 4}, (8,), "dims=4: expected an integer at least 1 and at most 3"),
        ("conv", {"dims": "1"}, (8,), "dims='1': expected an integer"),
        ("conv", {"stride": (1, 2)}, (3, 4, 5, 6), r"stride=\(1, 2\): expected one number, or 3"),
        ("conv", {"stride": [[2], [2]]}, (8, 8), r"stride=\[2\]: expected one number, or 2 numb"),
        ("conv", {"stride": [(1, 2)]}, (8, 8), "expected one entry for each of the 2 layers"),
        ("conv", {"stride": 0}, (8, 8), "stride=0: expected an integer at least 1"),
        ("conv3d", {"kernel": (1, 2, 3)}, (4, 4, 4), r"kernel=\(1, 2, 3\): expected odd numbers"),
        ("conv_map", {"kernel": 2.0}, (4, 4), "kernel=2.0: expected an integer"),
        ("conv", {"channels": 8}, (8, 8), "channels=8: expected one number for each layer"),
        ("conv", {"channels": [0, 8]}, (8, 8), "channels=0: expected an integer at least 1"),
    ],
)
def test_wrong_options_are_named(name, options, shape, message):
    with pytest.raises(ConfigurationError, match=message):
        build_encoder({"name": name, **options}, shape)
    with pytest.raises(ConfigurationError, match=message):
        build_decoder({"name": name, **options}, 40, shape)


def test_what_no_preset_takes_says_which_shapes_are_taken():
    with pytest.raises(ConfigurationError, match=r"\(C, D, H, W\), or another shape with dims"):
        build_encoder("conv", (1, 2, 3, 4, 5))


def test_maps_of_signals():
    options = {"name": "conv_map", "dims": 1, "stride": [2, 3]}
    with pytest.raises(ConfigurationError, match=r"stride=\[2, 3\]: expected one number, or 1"):
        build_encoder(options, (2, 20))
    options["stride"] = [[2], [3]]
    encoder = build_encoder({**options, **SMALL}, (2, 20))
    assert encoder(torch.randn(3, 2, 20)).shape == (3, 5, 4)
    decoder = build_decoder({**options, "stride": [[3], [2]], **MIRROR}, 20, (2, 20))
    assert decoder(torch.randn(3, 20)).shape == (3, 2, 20)


@pytest.mark.parametrize("model_class", [VAE, VAEGAN, VQVAE])
def test_models_of_signals_train_and_come_back_from_a_folder(model_class, tmp_path):
    torch.manual_seed(0)
    networks = {
        "encoder": {"name": "conv", "dims": 1, "stride": (3,), **SMALL},
        "decoder": {"name": "conv", "dims": 1, "stride": [[3], [3]], **MIRROR},
    }
    if model_class is VAEGAN:
        networks["discriminator"] = networks["encoder"]
    if model_class is VQVAE:
        networks["num_codes"] = 8
    x = torch.sin(torch.linspace(0, 6, 19) * torch.rand(16, 2, 1))
    model = model_class((2, 19), 2, **networks)
    chartae.fit(model, x, epochs=1, batch_size=8, seed=0, progress=False)
    model.save_pretrained(tmp_path)
    again = chartae.load(tmp_path)
    assert again.reconstruct(x).shape == x.shape
    torch.testing.assert_close(again.reconstruct(x), model.reconstruct(x))


def test_discriminators_take_signals_and_volumes():
    for options, shape in (
        ({"name": "conv", "dims": 1}, (12, 33)),
        ({"name": "conv3d", "stride": (1, 2, 2)}, (5, 9, 8)),
    ):
        discriminator = Discriminator({**options, **SMALL}, shape)
        x = torch.randn(3, *shape)
        assert discriminator(x).shape == (3,)
        assert discriminator.features(x, 1).shape[1] == 3
