import math

import pytest
import torch
from torch import nn

from chartae.errors import ConfigurationError
from chartae.nn import (
    DECODERS,
    ENCODERS,
    Discriminator,
    ResidualBlock,
    build_decoder,
    build_encoder,
    output_features,
    output_shape,
    register_decoder,
    register_encoder,
)

SHAPES = [
    (8, 8),
    (28, 28),
    (64, 48),
    (3, 32, 32),
    (1,),
    (30,),
    (7, 5),
    (1, 1),
    (2, 9, 13),
    (1, 6, 5, 7),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["mlp", "conv", "resnet", "thesis/mnist", "thesis/oasis"])
def test_any_shape_goes_in_and_comes_out(name, shape):
    encoder, decoder = build_encoder(name, shape), build_decoder(name, 3, shape)
    x, z = torch.rand(2, *shape), torch.randn(2, 3)
    features = encoder(x)
    assert features.shape == (2, output_features(encoder, shape))
    assert decoder(z).shape == (2, *shape)
    assert output_features(decoder, (3,)) == math.prod(shape)
    # Everything in them is used, and the batch does not mix.
    (features.square().sum() + decoder(z).square().sum()).backward()
    for parameter in [*encoder.parameters(), *decoder.parameters()]:
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
    torch.testing.assert_close(encoder(x[:1]), features[:1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(decoder(z[:1]), decoder(z)[:1], atol=1e-5, rtol=1e-4)


def test_presets():
    names = {"mlp", "conv", "resnet", "conv3d", "conv_map", "thesis/mnist", "thesis/oasis"}
    assert names <= set(ENCODERS)
    assert names <= set(DECODERS)


def linear_sizes(module: nn.Module) -> list[tuple[int, int]]:
    return [(m.in_features, m.out_features) for m in module.modules() if isinstance(m, nn.Linear)]


def test_options_reach_the_preset():
    encoder = build_encoder({"name": "mlp", "hidden": [32, 7]}, (8, 8))
    assert linear_sizes(encoder) == [(64, 32), (32, 7)]
    assert output_features(build_encoder({"name": "mlp", "hidden": []}, (8, 8)), (8, 8)) == 64
    encoder = build_encoder({"name": "conv", "channels": [4, 8, 16], "features": 5}, (8, 8))
    convolutions = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [4, 8, 16]
    assert encoder(torch.rand(2, 8, 8)).shape == (2, 5)
    blocks = build_decoder({"name": "resnet", "channels": [12, 6], "blocks": 2}, 2, (3, 9, 9))
    assert blocks(torch.rand(2, 2)).shape == (2, 3, 9, 9)


def test_a_mapping_given_is_left_alone():
    spec = {"name": "mlp", "hidden": [4]}
    build_encoder(spec, (3,))
    assert spec == {"name": "mlp", "hidden": [4]}


@pytest.mark.parametrize(
    ("spec", "shape", "message"),
    [
        ("cnov", (8, 8), "encoder='cnov' is not known.*mean 'conv'"),
        ({"hidden": [3]}, (8, 8), "encoder=None is not known"),
        ({"name": "mlp", "depth": 3}, (8, 8), "encoder=.*depth"),
        ({"name": "conv", "channels": []}, (8, 8), r"channels=\[\]: expected one number"),
        ({"name": "mlp", "hidden": [-3]}, (8, 8), "encoder=.*hidden"),
        ("conv", (1, 2, 3, 4, 5), r"input_shape=\(1, 2, 3, 4, 5\): convolutions expect"),
    ],
)
def test_wrong_specifications_are_refused(spec, shape, message):
    with pytest.raises(ConfigurationError, match=message):
        build_encoder(spec, shape)


# --- volumes and maps ---------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 5, 7), (1, 6, 5, 7), (2, 9, 4, 1)], ids=str)
def test_volumes_with_and_without_a_channel(shape):
    encoder, decoder = build_encoder("conv3d", shape), build_decoder("conv3d", 3, shape)
    x = torch.randn(2, *shape)
    assert encoder(x).shape == (2, 128)
    assert decoder(torch.randn(2, 3)).shape == (2, *shape)
    assert any(isinstance(part, nn.Conv3d) for part in encoder)
    assert any(isinstance(part, nn.ConvTranspose3d) for part in decoder)
    # All three dimensions are spatial: a shift along the first is not one of channels.
    first = next(part for part in encoder if isinstance(part, nn.Conv3d))
    assert first.in_channels == (1 if len(shape) == 3 else shape[0])


@pytest.mark.parametrize("shape", [(8, 8), (3, 20, 12), (30,), (2, 8, 8, 6)], ids=str)
def test_maps_are_kept_and_come_back(shape):
    options = {"name": "conv_map", "channels": [6, 8]}
    encoder = build_encoder({**options, "features": 4}, shape)
    features = encoder(torch.randn(2, *shape))
    spatial = shape[1:] if len(shape) > 2 else shape
    assert features.shape == (2, 4, *(-(-size // 4) for size in spatial))
    assert not any(isinstance(part, nn.Linear) for part in encoder.modules())
    size = features[0].numel()
    decoder = build_decoder({**options, "channels": [8, 6]}, size, shape)
    assert decoder(features.flatten(1)).shape == (2, *shape)
    assert decoder[0](features.flatten(1)).equal(features)
    # A condition behind the latent goes everywhere.
    decoder = build_decoder({**options, "channels": [8, 6], "features": 4}, size + 3, shape)
    condition = torch.randn(2, 3)
    places = decoder[0](torch.cat([features.flatten(1), condition], 1))
    assert places[:, :4].equal(features)
    assert (places[:, 4:].flatten(2) == condition[..., None]).all()
    assert decoder(torch.randn(2, size + 3)).shape == (2, *shape)


def test_a_map_decoder_wants_a_latent_for_each_place():
    with pytest.raises(
        ConfigurationError, match=r"latent_dim=3: expected at least 4 for a map of \(2, 2\)"
    ):
        build_decoder("conv_map", 3, (8, 8))


@pytest.mark.parametrize("shape", [(8, 8), (3,)], ids=str)
def test_what_is_no_volume_is_refused(shape):
    with pytest.raises(ConfigurationError, match=r"expect \(D, H, W\) or \(C, D, H, W\)"):
        build_encoder("conv3d", shape)


# --- discriminators -----------------------------------------------------------------------------


def test_a_discriminator_gives_one_logit():
    torch.manual_seed(0)
    discriminator = Discriminator(None, (5,))
    z = torch.randn(7, 5)
    assert discriminator(z).shape == (7,)
    assert linear_sizes(discriminator) == [(5, 256), (256, 256), (256, 1)]
    assert [m.negative_slope for m in discriminator.body if isinstance(m, nn.LeakyReLU)] == [
        0.2
    ] * 2
    torch.testing.assert_close(
        discriminator(z), discriminator.head(discriminator.features(z))[:, 0]
    )
    assert Discriminator("conv", (3, 8, 8))(torch.randn(2, 3, 8, 8)).shape == (2,)


def test_features_stop_after_a_layer():
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Unflatten(1, (1, 8)),
        nn.Conv2d(1, 4, 3, 2, 1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        ResidualBlock(4, 2),
        nn.Conv2d(4, 6, 3, 2, 1),
        nn.Tanh(),
        nn.Flatten(),
    )
    discriminator = Discriminator(body, (8, 8)).eval()
    x = torch.randn(3, 8, 8)
    assert discriminator.depth == 3
    for depth, parts in ((1, 4), (2, 5), (3, 8)):
        torch.testing.assert_close(discriminator.features(x, depth), body[:parts](x))
    assert discriminator.features(x).shape == (3, 24)
    assert discriminator.features(x, 1).min() >= 0
    with torch.device("meta"):
        thesis = Discriminator("thesis/discriminator", (1, 28, 28))
        assert thesis.features(torch.zeros(2, 1, 28, 28), 2).shape == (2, 256, 7, 7)
    for depth in (0, 4):
        with pytest.raises(ConfigurationError, match=f"depth={depth}: .* at least 1 and at most 3"):
            discriminator.features(x, depth)
    with pytest.raises(ConfigurationError, match=r"body is Linear; expected a torch.nn.Sequential"):
        Discriminator(nn.Linear(5, 3), (5,)).features(x, 1)


# --- modules of one's own -----------------------------------------------------------------------


class Tuple(nn.Module):
    def forward(self, x):
        return x, x


def test_a_plain_module_is_taken_as_it_is():
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    assert build_encoder(module, (8, 8)) is module
    flat = nn.Linear(3, 64)
    assert build_decoder(flat, 3, (8, 8)) is flat


def test_probing_leaves_a_module_as_it_was():
    module = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(), nn.Linear(64, 5))
    module[1].eval()
    training = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64))
    output_features(training, (8, 8))
    assert training[1].num_batches_tracked == 0
    assert output_features(module, (8, 8)) == 5
    assert [part.training for part in module] == [True, False, True, True]
    assert all(parameter.grad is None for parameter in module.parameters())
    assert output_features(nn.Linear(4, 2).double(), (4,)) == 2


def test_large_inputs_are_tried_on_their_shape_alone():
    """A meta tensor has no numbers; the answer is that of a real one."""
    devices, shape = [], (1, 1024, 1024)

    class Noted(nn.Flatten):
        def forward(self, x):
            devices.append(x.device.type)
            return super().forward(x)[:, :3]

    encoder = build_encoder({"name": "conv_map", "channels": [2, 3], "features": 4}, shape)
    assert output_shape(encoder, shape) == encoder(torch.zeros(2, *shape)).shape[1:]
    assert next(encoder.parameters()).device.type == "cpu"
    # What is not torch's or ours, or has yet to be completed, may need the numbers.
    assert output_shape(Noted(), shape) == (3,)
    lazy = nn.Sequential(nn.MaxPool2d(512), nn.Flatten(), nn.LazyLinear(5))
    assert output_shape(lazy, shape) == (5,)
    assert devices == ["cpu"]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Linear(9, 3), r"Linear does not accept a batch of shape \(2, 8, 8\)"),
        (Tuple(), "Tuple returned tuple for a batch of 2: expected one tensor"),
        (nn.Flatten(0), r"Flatten returned \(128,\) for a batch of 2"),
    ],
)
def test_wrong_modules_are_refused(module, message):
    with pytest.raises(ConfigurationError, match=message):
        output_features(module, (8, 8))


def test_a_decoder_of_another_size_is_refused():
    with pytest.raises(ConfigurationError, match=r"63 values .* size 3: .* expects 64.*\(8, 8\)"):
        build_decoder(nn.Linear(3, 63), 3, (8, 8))
    with pytest.raises(ConfigurationError, match=r"does not accept a batch of shape \(2, 3\)"):
        build_decoder(nn.Linear(4, 64), 3, (8, 8))


def test_a_registered_preset_is_known_by_its_name(monkeypatch):
    monkeypatch.setattr("chartae.nn.registry.ENCODERS", presets := dict(ENCODERS))
    monkeypatch.setattr("chartae.nn.registry.DECODERS", others := dict(DECODERS))

    @register_encoder("mine")
    def encoder(input_shape, width=4):
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), width))

    @register_decoder("mine")
    def decoder(latent_dim, output_shape):
        return nn.Linear(latent_dim, math.prod(output_shape))

    assert presets["mine"] is encoder
    assert others["mine"] is decoder
    assert build_encoder({"name": "mine", "width": 9}, (2, 3))(torch.zeros(5, 2, 3)).shape == (5, 9)
    assert build_decoder("mine", 2, (2, 3))(torch.zeros(5, 2)).shape == (5, 6)
