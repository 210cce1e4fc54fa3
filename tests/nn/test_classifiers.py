"""The bodies of the thesis' classifiers."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from chartae.errors import ConfigurationError
from chartae.nn import DenseNet, MRIClassifier, RegularisedConv, ThesisClassifier


def convolutions(module: nn.Module) -> list[tuple[int, ...]]:
    """Return channels in, channels out, kernel and stride of each convolution."""
    kinds = (nn.Conv2d, nn.Conv3d)
    found = [m for m in module.modules() if isinstance(m, kinds)]
    return [(m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0]) for m in found]


def test_a_densenet_has_the_layers_of_depth_20_growth_10_and_reduction_one_half() -> None:
    """Three blocks of two bottlenecks; with the last linear layer it has 20 weighted layers."""
    found = convolutions(DenseNet((1, 28, 28)))
    block = [(20, 40, 1, 1), (40, 10, 3, 1), (30, 40, 1, 1), (40, 10, 3, 1)]
    transition = [(40, 20, 1, 1)]
    assert found == [(1, 20, 3, 1), *block, *transition, *block, *transition, *block]
    # Of these, 15 convolutions here. Amos (2020) counts (depth - 4) // 3 // 2 bottlenecks a block.
    assert len(found) == 1 + 3 * 4 + 2


def test_the_layers_of_table_2_6() -> None:
    module = ThesisClassifier((1, 208, 176))
    assert convolutions(module) == [(1, 8, 3, 1), (8, 16, 3, 1), (16, 32, 3, 2), (32, 64, 3, 2)]
    (linear,) = (m for m in module.modules() if isinstance(m, nn.Linear))
    # The table has 256 entries here, 64 channels of 2 x 2. With its own strides, paddings and
    # poolings, images of 208 x 176 become 3 x 3.
    assert (linear.in_features, linear.out_features) == (64 * 3 * 3, 100)


def test_the_network_a1_of_volumes() -> None:
    with torch.device("meta"):
        module = MRIClassifier((1, 169, 208, 179))
    widths = (1, 8, 16, 32, 64, 128)
    assert convolutions(module) == [(a, b, 3, 1) for a, b in pairwise(widths)]
    linear = [m for m in module.modules() if isinstance(m, nn.Linear)]
    # 169 x 208 x 179, halved five times and rounded up, is 6 x 7 x 6.
    assert [m.in_features for m in linear] == [128 * 6 * 7 * 6, 1300]


def test_the_network_a2_keeps_the_ratio_of_inputs_to_outputs() -> None:
    with torch.device("meta"):
        module = MRIClassifier((1, 84, 104, 89), hidden=2)
    linear = [m for m in module.modules() if isinstance(m, nn.Linear)]
    sizes = [linear[0].in_features, *(m.out_features for m in linear), 2]
    assert sizes[0] == 128 * 3 * 4 * 3
    ratios = [before / after for before, after in pairwise(sizes)]
    assert max(ratios) / min(ratios) < 1.05


def test_the_search_varies_blocks_channels_convolutions_and_layers() -> None:
    options = {"blocks": 2, "channels": 4, "convolutions": 3, "hidden": 0, "dropout": 0.0}
    module = MRIClassifier((1, 9, 8, 7), **options)
    widths = (1, 4, 4, 4, 8, 8, 8)
    assert convolutions(module) == [(a, b, 3, 1) for a, b in pairwise(widths)]
    assert module(torch.zeros(2, 1, 9, 8, 7)).shape == (2, 8 * 3 * 2 * 2)
    for name, value in {"blocks": 0, "hidden": -1, "convolutions": 0}.items():
        with pytest.raises(ConfigurationError, match=name):
            MRIClassifier((1, 9, 8, 7), **{name: value})


@pytest.mark.parametrize("kind", [DenseNet, ThesisClassifier, RegularisedConv, MRIClassifier])
@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (3, 9, 4), (2, 5, 6, 3)])
def test_every_size_has_features_and_gradients(kind: type[nn.Module], shape: tuple) -> None:
    torch.manual_seed(0)
    module = kind(shape)
    features = module(torch.rand(4, *shape))
    assert features.shape[0] == 4
    assert features.ndim == 2
    features.square().sum().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_wrong_arguments() -> None:
    with pytest.raises(ConfigurationError, match="depth=9"):
        DenseNet((8, 8), depth=9)
    with pytest.raises(ConfigurationError, match="reduction=0"):
        DenseNet((8, 8), reduction=0.0)
    with pytest.raises(ConfigurationError, match="dropout=1"):
        RegularisedConv((8, 8), dropout=1.0)
    with pytest.raises(ConfigurationError, match="channels is empty"):
        RegularisedConv((8, 8), channels=())
