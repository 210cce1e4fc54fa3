import colorsys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from chartae.data import color_changes, progression, raising_arms, rotations
from chartae.data.progressions import ARM, ARM_ANGLES, SHOULDER, TURQUOISE, YELLOW
from chartae.errors import ConfigurationError, DataError

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"


@pytest.fixture
def images():
    """Smooth images, 0 at their edges."""
    noise = np.random.default_rng(0).random((3, 21, 16))
    noise[:, :3], noise[:, -3:], noise[:, :, :3], noise[:, :, -3:] = 0, 0, 0, 0
    return ndimage.gaussian_filter(noise, (0, 1, 1))


def turned(image, degrees, zoom=1.0):
    """Turn an image counter-clockwise, and magnify it, by SciPy."""
    angle = np.deg2rad(degrees)
    # Rows go down, so that in rows and columns a counter-clockwise turn has this matrix.
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / zoom
    centre = (np.array(image.shape) - 1) / 2
    return ndimage.affine_transform(
        image, matrix, centre - matrix @ centre, order=1, mode="grid-constant"
    )


# --- rotations --------------------------------------------------------------------------------


def test_quarter_turns_are_exact():
    x = torch.rand(4, 9, 9, dtype=torch.float64)
    data = rotations(x.numpy(), 4)
    for visit in range(4):
        expected = torch.rot90(x, visit, (1, 2)).float()
        assert torch.allclose(data.x[:, visit], expected, atol=1e-5)
    assert data.times[0].tolist() == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("degrees", [360.0, 90.0, -45.0])
def test_rotations_are_those_of_scipy(images, degrees):
    data = rotations(images, 5, degrees=degrees)
    for visit in range(5):
        for row, image in enumerate(images):
            expected = turned(image, degrees * visit / 5)
            assert np.allclose(data.x[row, visit], expected, atol=1e-5)
    sides = ndimage.rotate(images[0], degrees / 5, reshape=False, order=1, mode="grid-constant")
    assert np.allclose(data.x[0, 1], sides, atol=1e-5)


def test_channels_and_bytes_are_accepted():
    x = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 6), dtype=np.uint8)
    data = rotations(x, 3)
    assert data.input_shape == (3, 8, 6)
    assert np.allclose(data.x[:, 0], x / 255.0, atol=1e-6)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
def test_mnist_turns():
    digits = np.load(SHARED / "mnist.npz")["x_train"][:20]
    data = rotations(digits)
    assert (data.x.shape, data.num_visits[0]) == ((20, 8, 28, 28), 8)
    assert torch.allclose(data.x[:, 4], data.x[:, 0].flip(1, 2), atol=1e-5)


# --- colours ----------------------------------------------------------------------------------


@pytest.fixture
def colored(images):
    digits = np.tile(images, (10, 1, 1))
    return digits, color_changes(digits, 6, seed=3)


def test_all_start_alike(colored):
    digits, data = colored
    rgb = colorsys.hsv_to_rgb(TURQUOISE / 360, 1.0, 1.0)
    expected = digits[:, None] * np.array(rgb)[:, None, None]
    assert np.allclose(data.x[:, 0], expected, atol=1e-5)
    assert sorted(set(data.y.tolist())) == [0, 1, 2]
    assert data.covariate_names == ("change",)


def test_one_thing_changes_as_stated(colored):
    digits, data = colored
    for row, digit in enumerate(digits):
        kind = data.class_names[int(data.y[row])]
        for visit in range(6):
            share = visit / 5
            hue = TURQUOISE + (YELLOW - TURQUOISE) * share if kind == "color" else TURQUOISE
            degrees = 60.0 * visit if kind == "rotation" else 0.0
            size = 1.0 - 0.5 * share if kind == "size" else 1.0
            rgb = np.array(colorsys.hsv_to_rgb(hue / 360, 1.0, 1.0))
            expected = turned(digit, degrees, size) * rgb[:, None, None]
            assert np.allclose(data.x[row, visit], expected, atol=1e-5)


# --- progression ------------------------------------------------------------------------------


def test_the_course_is_that_of_the_covariates(images):
    data = progression(images, 4, noise=0.0, seed=2)
    lows, highs = images.min((1, 2), keepdims=True), images.max((1, 2), keepdims=True)
    scaled = (images - lows) / (highs - lows)
    for row, (exponent, growth, rotation) in enumerate(data.y.tolist()):
        for visit in range(4):
            share = (visit + 1) / 4
            image = scaled[row] ** (exponent**share)
            image = turned(image, rotation * share, 1.0 + share * (growth - 1.0))
            expected = (image - image.min()) / (image.max() - image.min())
            assert np.allclose(data.x[row, visit], expected, atol=1e-4)
    assert data.times[0].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_courses_have_the_distribution_of_the_thesis():
    data = progression(np.random.default_rng(0).random((4000, 4, 4)), 1)
    exponent, growth, rotation = data.y.double().T
    assert float((exponent > 1.0).double().mean()) == pytest.approx(0.5, abs=0.03)
    strength = torch.where(exponent > 1.0, exponent, 1.0 / exponent)
    for values, low, high in ((strength, 1, 2), (growth, 1, 1.5), (rotation, -90, 90)):
        assert low <= values.min()
        assert values.max() <= high
        assert float(values.mean()) == pytest.approx((low + high) / 2, abs=0.03 * (high - low))
        assert float(values.std()) == pytest.approx((high - low) / 12**0.5, rel=0.05)
    assert (data.x.amin((2, 3)), data.x.amax((2, 3))) == (pytest.approx(0.0), pytest.approx(1.0))


def test_noise_has_its_standard_deviation(images):
    still, moved = (progression(images[:, 3:-3, 3:-3], 8, noise=n) for n in (0.0, 0.001))
    # Scaling to [0, 1] moves all values a little, hence the wide tolerance.
    assert float((moved.x - still.x).std()) == pytest.approx(0.001, rel=0.5)


def test_channels_have_one_course(images):
    grey = progression(images, 3, noise=0.0)
    rgb = progression(np.repeat(images[:, None], 3, 1), 3, noise=0.0)
    assert torch.allclose(rgb.x, grey.x[:, :, None].expand_as(rgb.x), atol=1e-6)


def test_constant_images_are_not_divided_by_zero():
    assert not progression(np.ones((1, 5, 5)), 2, noise=0.0).x.isnan().any()


# --- figures ----------------------------------------------------------------------------------


def test_the_arm_is_where_the_covariates_say():
    side = 128
    data = raising_arms(30, 6, shape=(side, side), seed=4)
    speed, delay, size, _ = (column[:, None] for column in data.y.double().T)
    low, high = ARM_ANGLES
    expected = low + (high - low) / (1.0 + (-speed * (data.times - delay)).exp())
    rows = ((side - 1) / 2 - torch.arange(side))[:, None] / (size[..., None] * side) - SHOULDER[1]
    columns = (torch.arange(side) - (side - 1) / 2) / (size[..., None] * side) - SHOULDER[0]
    radius = torch.hypot(rows, columns)
    angle = torch.atan2(rows, columns).rad2deg()
    # A ring about the shoulder, to the right of head and body, meets nothing but the arm.
    ring = (radius > 0.6 * ARM) & (radius < 0.9 * ARM) & (angle > -74.0) & (angle < 74.0)
    ring &= torch.hypot(rows - 0.16, columns) > 0.11
    ink = data.x.double() * ring[:, None]
    found = (ink * angle[:, None]).sum((2, 3)) / ink.sum((2, 3))
    assert (found - expected).abs().max() < 2.5
    assert (found - expected).abs().mean() < 0.5


def test_figures_have_the_stated_distributions():
    data = raising_arms(3000, 2, shape=(16, 16))
    speed, delay, size, stance = data.y.double().T
    assert float(speed.log().mean()) == pytest.approx(0.0, abs=0.03)
    assert float(speed.log().std()) == pytest.approx(0.4, rel=0.05)
    assert (float(delay.mean()), float(delay.std())) == pytest.approx((0.0, 1.0), abs=0.05)
    assert 0.8 <= size.min() <= size.max() <= 1.0
    assert 0.08 <= stance.min() <= stance.max() <= 0.2


def test_visits_are_where_the_jitter_says():
    regular = raising_arms(3, 7, jitter=0.0)
    assert torch.allclose(regular.times, torch.linspace(-3, 3, 7, dtype=torch.float64).expand(3, 7))
    moved = raising_arms(200, 7, jitter=0.4).times - regular.times[:1]
    assert 0.38 < moved.abs().max() <= 0.4


def test_figures_are_inside_their_image_and_only_the_arm_moves():
    data = raising_arms(40, 5, shape=(20, 40))
    assert (data.x.amin(), data.x.amax()) == (0.0, 1.0)
    moves = data.x.amax(1) - data.x.amin(1) > 0.01
    left = moves[:, :, :17]
    assert not left.any()
    edges = torch.cat(
        [data.x[..., 0].flatten(), data.x[..., -1].flatten(), data.x[..., 0, :].flatten()]
    )
    assert not edges.any()


# --- all --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: color_changes(np.ones((9, 8, 8)), seed=seed),
        lambda seed: progression(np.eye(8)[None], seed=seed),
        lambda seed: raising_arms(2, seed=seed),
    ],
)
def test_seeds_decide(make):
    assert torch.equal(make(1).x, make(1).x)
    assert torch.equal(make(1).y, make(1).y)
    assert not torch.equal(make(1).y, make(2).y)


def test_the_default_dtype_is_that_of_torch(monkeypatch):
    torch.set_default_dtype(torch.float64)
    try:
        data = [rotations(np.eye(8)[None]), color_changes(np.eye(8)[None]), raising_arms(2)]
        data.append(progression(np.eye(8)[None]))
        assert {d.x.dtype for d in data} == {torch.float64}
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: rotations(np.ones((2, 4))), DataError, r"images has shape \(2, 4\)"),
        (lambda: rotations(np.ones((2, 4, 4)), 0), ConfigurationError, "num_visits=0"),
        (lambda: rotations(np.ones((2, 4, 4)), degrees=np.inf), ConfigurationError, "degrees"),
        (lambda: color_changes(np.ones((2, 3, 4, 4))), DataError, "images has shape"),
        (lambda: color_changes(2 * np.ones((2, 4, 4))), DataError, r"in \[0, 1\]"),
        (lambda: color_changes(np.ones((2, 4, 4)), 1), ConfigurationError, "num_visits=1"),
        (lambda: progression(np.ones((2, 4, 4)), noise=-1), ConfigurationError, "noise=-1"),
        (lambda: raising_arms(0), ConfigurationError, "num_individuals=0"),
        (lambda: raising_arms(jitter=0.5), ConfigurationError, "jitter=0.5"),
        (lambda: raising_arms(shape=(8, 32)), ConfigurationError, r"shape\[0\]=8"),
        (lambda: raising_arms(shape=(32,)), ConfigurationError, "expected .height, width"),
        (lambda: raising_arms(seed=-1), ConfigurationError, "seed=-1"),
    ],
)
def test_arguments_out_of_range_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
