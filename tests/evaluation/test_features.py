"""Features: of pixels, models, modules, a trained classifier, and the Inception network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

import chartae
from chartae.errors import CheckpointError, ConfigurationError, DataError
from chartae.evaluation import (
    InceptionFeatures,
    embedding,
    frechet_distance,
    inception_score,
    module_features,
    pixels,
    train_classifier,
)
from chartae.evaluation.inception import Inception

WIDTH = 1 / 16


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def two_classes(*shape: int, n: int = 120) -> tuple[Tensor, Tensor]:
    """Return noise, the second half of which is brighter in its first half."""
    x, y = rand(n, *shape), torch.arange(n) % 2
    x[y == 1, ..., : shape[-1] // 2] += 1.0
    return x / 2.0, y


# --- pixels, embeddings, modules -----------------------------------------------------------------


def test_pixels_are_the_data_and_bytes_are_scaled() -> None:
    x = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.testing.assert_allclose(pixels(x), x.reshape(2, 12) / 255, rtol=1e-6)
    assert pixels(x / 255).dtype == torch.float64


def test_an_embedding_is_the_models() -> None:
    model = chartae.VAE((6, 6), latent_dim=3).double()
    x = rand(10, 6, 6).double()
    for given in (x, x.numpy(), x.float()):
        torch.testing.assert_close(
            embedding(model, batch_size=4)(given), model.encode(x), atol=1e-6, rtol=0
        )
    assert not embedding(model)(x).requires_grad
    with pytest.raises(DataError, match="expected"):
        embedding(model)(rand(10, 5, 5))


def test_a_module_is_run_in_eval_mode_in_batches_and_left_as_it_was() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5))
    module[1].running_mean += 0.3
    module[2].eval()
    x = rand(10, 1, 5, 5)
    whole, pieces = (module_features(module, batch_size=size)(x) for size in (100, 3))
    assert module[1].training
    assert not module[2].training
    assert not whole.requires_grad
    assert int(module[1].num_batches_tracked) == 0
    torch.testing.assert_close(whole, pieces)
    torch.testing.assert_close(whole, module.eval()(x).flatten(1))


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros(3), r"x has shape \(3,\)"),
        (np.zeros((0, 3)), r"x has shape \(0, 3\)"),
        (np.full((2, 3), np.inf), "x has 6 NaN"),
        (np.zeros((2, 3), int), "x has dtype torch.int64"),
    ],
)
def test_bad_data_are_refused(x: np.ndarray, words: str) -> None:
    model = chartae.AE((3,), latent_dim=2)
    for extract in (pixels, module_features(nn.Linear(3, 2)), embedding(model)):
        with pytest.raises(DataError, match=words):
            extract(x)


def test_a_module_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="Linear does not accept"):
        module_features(nn.Linear(3, 2))(rand(5, 4))
    with pytest.raises(ConfigurationError, match="batch_size=0"):
        module_features(nn.Linear(3, 2), batch_size=0)


# --- a classifier --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6,), (8, 8), (3, 8, 8), (1, 5, 6, 8)])
def test_a_classifier_learns_vectors_images_and_volumes(shape: tuple[int, ...]) -> None:
    x, y = two_classes(*shape)
    classifier = train_classifier(x, y, epochs=10, batch_size=16, seed=0, accelerator="cpu")
    assert classifier.accuracy == 1.0
    p = classifier.probabilities(x)
    torch.testing.assert_close(p.sum(1), torch.ones(len(x)))
    assert ((p.argmax(1) == y).float().mean()) > 0.95
    assert 1.5 < inception_score(p) <= 2.0
    features = classifier.features(x)
    assert features.shape == (len(x), classifier.head.in_features)
    torch.testing.assert_close(classifier.head(features).softmax(1), p)
    halves = frechet_distance(features[y == 0][::2], features[y == 0][1::2])
    assert halves < 0.2 * frechet_distance(features[y == 0], features[y == 1])


def test_a_seed_gives_one_classifier_and_names_are_kept() -> None:
    x, y = two_classes(4, n=60)
    names = np.array(["well", "ill"])[y]
    first, again, other = (
        train_classifier(x, names, epochs=2, seed=seed, accelerator="cpu") for seed in (0, 0, 1)
    )
    assert first.class_names == ("ill", "well")
    torch.testing.assert_close(first.features(x), again.features(x), atol=0, rtol=0)
    assert (first.accuracy * 6) % 1 == 0.0  # of a tenth
    assert not torch.equal(first.features(x), other.features(x))


def test_a_classifier_comes_back_from_its_folder(tmp_path: Path) -> None:
    x, y = two_classes(4, n=60)
    names = np.array(["well", "ill"])[y]
    classifier = train_classifier(x, names, epochs=3, accelerator="cpu")
    classifier.save_pretrained(tmp_path)
    again = chartae.load(tmp_path)
    assert (again.class_names, again.accuracy) == (("ill", "well"), classifier.accuracy)
    torch.testing.assert_close(again.features(x), classifier.features(x), atol=0, rtol=0)


def test_units_and_constant_features_do_not_matter() -> None:
    x, y = two_classes(4)
    units = torch.tensor([1e4, 1e-4, 1.0, 0.0])
    accuracies = [
        train_classifier(data.double(), y, epochs=10, batch_size=16, accelerator="cpu").accuracy
        for data in (x, x * units - 50.0 * units, x * units + torch.tensor([0.0, 0.0, 0.0, 7.0]))
    ]
    assert accuracies == [1.0] * 3


def test_labels_that_cannot_be_learned_are_at_chance() -> None:
    y = torch.arange(200) % 2
    classifier = train_classifier(rand(200, 5), y, epochs=3, accelerator="cpu")
    assert 0.1 < classifier.accuracy < 0.9


def test_a_classifier_refuses_what_it_cannot_use() -> None:
    x = rand(20, 4)
    with pytest.raises(DataError, match="y has 1 class"):
        train_classifier(x, [1] * 20)
    with pytest.raises(DataError, match="3 labels for 20 samples"):
        train_classifier(x, [0, 1, 0])
    with pytest.raises(DataError, match="y has 0 class"):
        train_classifier(x, None)
    with pytest.raises(ConfigurationError, match="epochs=0"):
        train_classifier(x, [0, 1] * 10, epochs=0)
    classifier = train_classifier(x, [0, 1] * 10, epochs=1, accelerator="cpu")
    with pytest.raises(DataError, match=r"x has shape \(2, 5\): expected \(n, 4\)"):
        classifier.features(rand(2, 5))


# --- Inception -----------------------------------------------------------------------------------


def test_the_published_network_has_the_published_parameters() -> None:
    with torch.device("meta"):
        network = Inception()
    state = network.state_dict()
    # torchvision's network without its auxiliary head has 23,834,568 for 1,000 classes.
    assert sum(p.numel() for p in network.parameters()) == 23_834_568 + 8 * 2049
    assert sum(name.endswith("conv.weight") for name in state) == 94
    shapes = {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Conv2d_4a_3x3.bn.running_var": (192,),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_5b.branch_pool.conv.weight": (32, 192, 1, 1),
        "Mixed_5d.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
        "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
        "Mixed_6b.branch7x7_2.conv.weight": (128, 128, 1, 7),
        "Mixed_6e.branch7x7dbl_5.conv.weight": (192, 192, 1, 7),
        "Mixed_7a.branch7x7x3_4.bn.bias": (192,),
        "Mixed_7b.branch3x3_2a.conv.weight": (384, 384, 1, 3),
        "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
        "Mixed_7c.branch3x3dbl_1.conv.weight": (448, 2048, 1, 1),
        "fc.weight": (1008, 2048),
        "fc.bias": (1008,),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


@pytest.fixture(scope="module")
def stand_in() -> dict[str, Tensor]:
    """Return weights of a narrow network, without the counters, as the published file."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, value in Inception(WIDTH).state_dict().items():
        if not name.endswith("num_batches_tracked"):
            state[name] = 0.5 + torch.rand(value.shape, generator=generator)
            if name.endswith("weight") and value.ndim > 1:
                state[name] = torch.randn(value.shape, generator=generator)
                state[name] *= (2 / value[0].numel()) ** 0.5
    return state


@pytest.fixture(scope="module")
def file(stand_in: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(stand_in, path)
    return path


def reference(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Return the features by a second, plain implementation; x is in [-1, 1]."""

    def conv(x: Tensor, name: str, stride: int = 1, padding: int | tuple[int, int] = 0) -> Tensor:
        x = F.conv2d(x, state[f"{name}.conv.weight"], None, stride, padding)
        mean, variance = (state[f"{name}.bn.running_{part}"] for part in ("mean", "var"))
        weight, bias = (state[f"{name}.bn.{part}"] for part in ("weight", "bias"))
        return F.relu(F.batch_norm(x, mean, variance, weight, bias, eps=0.001))

    def average(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    def a(x: Tensor, n: str) -> Tensor:
        five = conv(conv(x, f"{n}.branch5x5_1"), f"{n}.branch5x5_2", padding=2)
        three = conv(conv(x, f"{n}.branch3x3dbl_1"), f"{n}.branch3x3dbl_2", padding=1)
        three = conv(three, f"{n}.branch3x3dbl_3", padding=1)
        pooled = conv(average(x), f"{n}.branch_pool")
        return torch.cat([conv(x, f"{n}.branch1x1"), five, three, pooled], 1)

    def c(x: Tensor, n: str) -> Tensor:
        seven = conv(conv(x, f"{n}.branch7x7_1"), f"{n}.branch7x7_2", padding=(0, 3))
        seven = conv(seven, f"{n}.branch7x7_3", padding=(3, 0))
        double = conv(x, f"{n}.branch7x7dbl_1")
        for number, padding in ((2, (3, 0)), (3, (0, 3)), (4, (3, 0)), (5, (0, 3))):
            double = conv(double, f"{n}.branch7x7dbl_{number}", padding=padding)
        pooled = conv(average(x), f"{n}.branch_pool")
        return torch.cat([conv(x, f"{n}.branch1x1"), seven, double, pooled], 1)

    def e(x: Tensor, n: str, pooled: Tensor) -> Tensor:
        three = conv(x, f"{n}.branch3x3_1")
        three = [
            conv(three, f"{n}.branch3x3_2a", padding=(0, 1)),
            conv(three, f"{n}.branch3x3_2b", padding=(1, 0)),
        ]
        double = conv(conv(x, f"{n}.branch3x3dbl_1"), f"{n}.branch3x3dbl_2", padding=1)
        double = [
            conv(double, f"{n}.branch3x3dbl_3a", padding=(0, 1)),
            conv(double, f"{n}.branch3x3dbl_3b", padding=(1, 0)),
        ]
        last = conv(pooled, f"{n}.branch_pool")
        return torch.cat([conv(x, f"{n}.branch1x1"), *three, *double, last], 1)

    x = conv(conv(x, "Conv2d_1a_3x3", 2), "Conv2d_2a_3x3")
    x = F.max_pool2d(conv(x, "Conv2d_2b_3x3", padding=1), 3, 2)
    x = F.max_pool2d(conv(conv(x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3"), 3, 2)
    assert x.shape[2:] == (35, 35)
    for letter in "bcd":
        x = a(x, f"Mixed_5{letter}")
    double = conv(conv(x, "Mixed_6a.branch3x3dbl_1"), "Mixed_6a.branch3x3dbl_2", padding=1)
    double = conv(double, "Mixed_6a.branch3x3dbl_3", 2)
    x = torch.cat([conv(x, "Mixed_6a.branch3x3", 2), double, F.max_pool2d(x, 3, 2)], 1)
    for letter in "bcde":
        x = c(x, f"Mixed_6{letter}")
    three = conv(conv(x, "Mixed_7a.branch3x3_1"), "Mixed_7a.branch3x3_2", 2)
    seven = conv(conv(x, "Mixed_7a.branch7x7x3_1"), "Mixed_7a.branch7x7x3_2", padding=(0, 3))
    seven = conv(conv(seven, "Mixed_7a.branch7x7x3_3", padding=(3, 0)), "Mixed_7a.branch7x7x3_4", 2)
    x = torch.cat([three, seven, F.max_pool2d(x, 3, 2)], 1)
    assert x.shape[2:] == (8, 8)
    x = e(x, "Mixed_7b", average(x))
    return e(x, "Mixed_7c", F.max_pool2d(x, 3, 1, 1)).mean((2, 3))


def test_features_are_those_of_a_second_implementation(
    file: Path, stand_in: dict[str, Tensor]
) -> None:
    x = rand(3, 3, 40, 30)
    extract = InceptionFeatures(file, batch_size=2, _width=WIDTH)
    resized = F.interpolate(x, (299, 299), mode="bilinear", align_corners=False)
    expected = reference(stand_in, 2.0 * resized - 1.0)
    assert expected.shape == (3, 128)
    assert expected.std(0).mean() > 2e-3  # images differ by more than the tolerance
    features = extract(x)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)
    logits = expected @ stand_in["fc.weight"].mT
    torch.testing.assert_close(extract.probabilities(x), logits.softmax(1), rtol=1e-3, atol=1e-5)


def test_grey_images_bytes_and_slight_excess_are_accepted(file: Path) -> None:
    extract = InceptionFeatures(file, _width=WIDTH)
    grey = (255 * rand(2, 28, 28)).round().to(torch.uint8)
    expected = extract((grey / 255)[:, None].expand(-1, 3, -1, -1))
    for x in (grey, grey[:, None], grey.numpy(), (grey / 255).double()):
        torch.testing.assert_close(extract(x), expected, rtol=1e-4, atol=1e-4)
    noisy = grey / 255 + 0.2 * (rand(2, 28, 28) - 0.5)
    torch.testing.assert_close(extract(noisy), extract(noisy.clamp(0, 1)))


def test_safetensors_hold_the_same(file: Path, stand_in: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(stand_in, tmp_path / "inception.safetensors")
    x = rand(1, 28, 28)
    features = [
        InceptionFeatures(p, _width=WIDTH)(x) for p in (file, tmp_path / "inception.safetensors")
    ]
    torch.testing.assert_close(*features, rtol=0, atol=0)


def test_other_files_are_refused_with_what_differs(
    stand_in: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    with pytest.raises(CheckpointError, match="cannot be read"):
        InceptionFeatures(path)
    path.write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match="cannot be read"):
        InceptionFeatures(path)
    (tmp_path / "weights.safetensors").write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match="cannot be read"):
        InceptionFeatures(tmp_path / "weights.safetensors")
    changed = {**stand_in, "fc.weight": torch.zeros(1000, 128), "AuxLogits.fc.bias": torch.zeros(3)}
    del changed["Mixed_7c.branch_pool.bn.bias"]
    torch.save(changed, path)
    words = (
        "1 missing, such as Mixed_7c.branch_pool.bn.bias; 1 unknown, such as AuxLogits.fc.bias; "
        r"1 of another shape, such as fc.weight \(1000, 128\) instead of \(1008, 128\)"
    )
    with pytest.raises(CheckpointError, match=words):
        InceptionFeatures(path, _width=WIDTH)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (rand(2, 2, 8, 8), r"\(2, 2, 8, 8\): expected images"),
        (rand(2, 8), r"\(2, 8\): expected images"),
        (255.0 * rand(2, 8, 8), "expected images in .0, 1."),
        (2.0 * rand(2, 8, 8) - 1.0, "expected images in .0, 1."),
    ],
)
def test_what_is_no_image_is_refused(file: Path, x: Tensor, words: str) -> None:
    with pytest.raises(DataError, match=words):
        InceptionFeatures(file, _width=WIDTH)(x)
