"""Measures of reconstructions, against closed forms and an implementation with SciPy."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from chartae.errors import ConfigurationError, DataError
from chartae.evaluation import frechet_distance, ms_ssim, mse, psnr, reconstruction, ssim

ALL = (mse, psnr, ssim, ms_ssim)


def images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=(4, *shape))


def noisy(x: np.ndarray, share: float = 0.2) -> np.ndarray:
    return (1.0 - share) * x + share * images(*x.shape[1:], seed=1)


def windowed(x: np.ndarray, width: int, deviation: float) -> np.ndarray:
    """Return Gaussian averages of each image (H, W) or volume, which is reflected at margins."""
    t = np.arange(width) - width // 2
    weights = np.exp(-0.5 * (t / deviation) ** 2)
    for axis in range(x.ndim):
        x = correlate1d(x, weights / weights.sum(), axis, mode="mirror")
    return x


def similarity_maps(
    x: np.ndarray, y: np.ndarray, width: int, deviation: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return maps of luminance times structure, and of structure (Wang et al., 2004, eq. 13)."""
    a, b = windowed(x, width, deviation), windowed(y, width, deviation)
    variances = (
        windowed(x * x, width, deviation) - a * a + windowed(y * y, width, deviation) - b * b
    )
    covariance = windowed(x * y, width, deviation) - a * b
    structure = (2 * covariance + 0.03**2) / (variances + 0.03**2)
    return (2 * a * b + 0.01**2) / (a * a + b * b + 0.01**2) * structure, structure


WINDOWS = {(28, 28): (11, 1.5), (9, 8): (7, 0.9), (5, 6): (5, 0.6), (3, 4): (3, 0.3)}
WINDOWS[12, 11, 13] = (11, 1.5)


@pytest.mark.parametrize("shape", WINDOWS)
def test_ssim_is_that_of_a_second_implementation(shape: tuple[int, ...]) -> None:
    channels = (1,) if len(shape) == 3 else ()
    x = images(*channels, *shape)
    y = noisy(x)
    expected = np.mean(
        [
            similarity_maps(a.reshape(shape), b.reshape(shape), *WINDOWS[shape])[0].mean()
            for a, b in zip(x, y, strict=True)
        ]
    )
    assert ssim(x, y) == pytest.approx(expected, abs=1e-6)


def test_ms_ssim_of_28_pixels_is_that_of_a_second_implementation_with_two_scales() -> None:
    x = images(28, 28)
    y = noisy(x)
    weights = np.array([0.0448, 0.2856]) / (0.0448 + 0.2856)
    values = []
    for a, b in zip(x, y, strict=True):
        fine = similarity_maps(a, b, 11, 1.5)[1][5:-5, 5:-5].mean()
        a, b = (i.reshape(14, 2, 14, 2).mean((1, 3)) for i in (a, b))
        coarse = similarity_maps(a, b, 11, 1.5)[0].mean()
        values.append(fine ** weights[0] * coarse ** weights[1])
    assert ms_ssim(x, y) == pytest.approx(np.mean(values), abs=1e-6)


def test_constant_images_have_the_similarity_of_their_luminance() -> None:
    a, b = np.full((3, 28, 28), 0.3), np.full((3, 28, 28), 0.7)
    luminance = (2 * 0.3 * 0.7 + 0.01**2) / (0.3**2 + 0.7**2 + 0.01**2)
    assert ssim(a, b) == pytest.approx(luminance)
    coarsest = 0.2856 / (0.0448 + 0.2856)  # its weight among two scales
    assert ms_ssim(a, b) == pytest.approx(luminance**coarsest)


def test_psnr_is_an_average_over_images_of_its_closed_form() -> None:
    x = np.zeros((2, 1, 6, 6))
    y = x.copy()
    y[0], y[1] = 0.1, 0.01
    assert psnr(x, y) == pytest.approx((20 + 40) / 2)
    assert psnr(255 * x, 255 * y, data_range=255) == pytest.approx(30)
    assert psnr(x, x) == np.inf
    from torchmetrics.functional.image import peak_signal_noise_ratio

    a = images(3, 9, 9)
    expected = [
        peak_signal_noise_ratio(torch.from_numpy(q), torch.from_numpy(p), data_range=1.0)
        for p, q in zip(a, noisy(a), strict=True)
    ]
    assert psnr(a, noisy(a)) == pytest.approx(float(np.mean(expected)), rel=1e-6)


def test_mse_is_that_of_features_of_any_data() -> None:
    x, y = images(7), images(7, seed=1)
    assert mse(x, y) == pytest.approx(((x - y) ** 2).mean())


# Each window, each number of scales, and the sizes at which torchmetrics asks for more.
SIDES = [3, 5, 6, 9, 10, 13, 14, 21, 22, 28, 43, 44, 87, 88, 95, 98, 99, 175, 176]


@pytest.mark.parametrize("side", SIDES)
def test_every_size_has_a_value_that_is_1_for_equal_images(side: int) -> None:
    x = images(side, side + 1)[:2]
    for metric in (ssim, ms_ssim):
        assert metric(x, x) == pytest.approx(1.0, abs=1e-6)
        assert 0.0 < metric(x, noisy(images(side, side + 1))[:2]) < 0.999


@pytest.mark.parametrize("shape", [(28, 28), (1, 28, 28), (3, 32, 24), (1, 12, 16, 14)])
def test_worse_reconstructions_have_worse_values(shape: tuple[int, ...]) -> None:
    x = images(*shape)
    for metric, sign in zip(ALL, (-1, 1, 1, 1), strict=True):
        values = [sign * metric(x, noisy(x, share)) for share in (0.1, 0.3, 0.6)]
        assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("metric", ALL)
def test_neither_blocks_order_units_nor_containers_matter(
    metric: Callable[..., float], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = np.rint(255 * images(1, 28, 28)).astype(np.uint8)
    fake = np.rint(255 * noisy(images(1, 28, 28))).astype(np.uint8)
    expected = metric(real, fake)
    x, y = real / 255.0, fake / 255.0
    assert metric(x, y) == pytest.approx(expected, rel=1e-6)
    assert metric(torch.tensor(x).float(), y) == pytest.approx(expected, rel=1e-5)
    assert metric(x[:, 0], y[:, 0]) == pytest.approx(expected)
    assert metric(x[::-1], y[::-1]) == pytest.approx(expected)
    if metric is not mse:
        assert metric(255 * x - 9, 255 * y - 9, data_range=255) == pytest.approx(
            metric(x - 9 / 255, y - 9 / 255, data_range=1)
        )
    monkeypatch.setattr(reconstruction, "ENTRIES", 1)
    assert metric(real, fake) == pytest.approx(expected)


def test_a_shuffled_decoder_is_last_though_its_images_have_the_right_distribution() -> None:
    smooth = np.linspace(0, 1, 28)[None, :, None] ** np.linspace(0.2, 5, 40)[:, None, None]
    x = np.broadcast_to(smooth, (40, 28, 28)).copy()
    good, constant = 0.9 * x + 0.1 * x.mean(0), np.broadcast_to(x.mean(0), x.shape)
    shuffled = np.roll(x, 13, axis=0)
    for metric, sign in zip(ALL, (-1, 1, 1, 1), strict=True):
        assert sign * metric(x, good) > sign * metric(x, shuffled)
    assert mse(x, good) < mse(x, constant) < mse(x, shuffled)
    assert frechet_distance(x, shuffled) == pytest.approx(0.0, abs=1e-6)
    assert frechet_distance(x, good) < frechet_distance(x, constant)


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize(
    ("real", "fake", "words"),
    [
        (np.zeros((2, 8, 8)), np.zeros((2, 8, 9)), r"reconstruction has shape \(2, 8, 9\)"),
        (np.zeros((0, 8, 8)), np.zeros((0, 8, 8)), r"real has shape \(0, 8, 8\)"),
        (np.zeros(8), np.zeros(8), r"real has shape \(8,\)"),
        (np.zeros((2, 8, 8)), np.full((2, 8, 8), np.nan), "reconstruction has 128 NaN"),
        (np.zeros((2, 8, 8), int), np.zeros((2, 8, 8)), "real has dtype torch.int64"),
    ],
)
def test_bad_input_is_refused(
    metric: Callable[..., float], real: np.ndarray, fake: np.ndarray, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        metric(real, fake)


def test_what_would_be_nan_is_refused() -> None:
    x = images(8, 8)
    for metric in (ssim, ms_ssim):
        with pytest.raises(DataError, match="which give NaN: expected smaller ones"):
            metric(0.0 * x, 0.0 * x, data_range=1e-200)
        with pytest.raises(
            DataError, match="real and reconstruction have values up to 9.*e.199 and"
        ):
            metric(1e200 * x, 1e200 * x, data_range=1.0)


def test_what_is_no_image_or_has_another_range_is_refused() -> None:
    for metric in (ssim, ms_ssim):
        for shape in [(5, 9), (5, 2, 9), (5, 1, 1, 2, 9, 9), (5, 9, 9, 2)]:
            with pytest.raises(DataError, match="at least 3 wide"):
                metric(np.zeros(shape), np.zeros(shape))
    for metric in (psnr, ssim, ms_ssim):
        x = 2.0 * images(8, 8)
        with pytest.raises(DataError, match="expected data in .0, 1., or the argument data_range"):
            metric(x, x)
        for bad in (0, -1.0, np.nan, "1"):
            with pytest.raises(ConfigurationError, match="data_range"):
                metric(x, x, data_range=bad)
