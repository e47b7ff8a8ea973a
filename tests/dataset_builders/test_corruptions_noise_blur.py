"""Noise and blur against their definitions, by closed forms and by naive loops."""

import math

import numpy as np
import pytest
from corruption_pictures import scene
from scipy import ndimage

from dataset_builders.corruptions import SEVERITIES, corrupt
from dataset_builders.corruptions.blur import disk_kernel, displaced, glass_blur, streaked, zoom_blur

GREY = np.full((160, 160, 3), 128, dtype=np.uint8)
# Hendrycks & Dietterich 2019, as published for 224 and for 32 pixels.
SIGMA = {"imagenet": (0.08, 0.12, 0.18, 0.26, 0.38), "cifar": (0.04, 0.06, 0.08, 0.09, 0.10)}
PHOTONS = {"imagenet": (60, 25, 12, 5, 3), "cifar": (500, 250, 100, 75, 50)}
SHARE = {"imagenet": (0.03, 0.06, 0.09, 0.17, 0.27), "cifar": (0.01, 0.02, 0.03, 0.05, 0.07)}
SPECKLE = {"imagenet": (0.15, 0.2, 0.35, 0.45, 0.6), "cifar": (0.06, 0.1, 0.12, 0.16, 0.2)}

both_scales = pytest.mark.parametrize("scale", ["imagenet", "cifar"])


def clipped_normal(mean: float, sigma: float) -> tuple[float, float]:
    """Mean and variance of a normal variable clipped to [0, 1], by summation."""
    z = np.linspace(-8, 8, 200_001)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    value = np.clip(mean + sigma * z, 0, 1)
    first = float((density * value).sum())
    return first, float((density * value**2).sum()) - first**2


@both_scales
@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_noise_is_a_clipped_normal(scale, severity):
    values = corrupt(GREY, "gaussian_noise", severity, 0, scale) / 255
    mean, variance = clipped_normal(128 / 255, SIGMA[scale][severity - 1])
    assert values.mean() == pytest.approx(mean, abs=4 * math.sqrt(variance / values.size))
    assert values.var() == pytest.approx(variance, rel=0.03)
    assert abs(np.corrcoef(values[..., 0].ravel(), values[..., 1].ravel())[0, 1]) < 0.03  # channels alone


@both_scales
@pytest.mark.parametrize("severity", SEVERITIES)
def test_shot_noise_is_a_clipped_poisson(scale, severity):
    photons, level = PHOTONS[scale][severity - 1], 128 / 255
    k = np.arange(1000)
    log_factorial = np.cumsum(np.log(np.maximum(k, 1)))
    probability = np.exp(k * math.log(photons * level) - photons * level - log_factorial)
    value = np.minimum(k / photons, 1)
    mean = (probability * value).sum()
    variance = (probability * value**2).sum() - mean**2
    values = corrupt(GREY, "shot_noise", severity, 0, scale) / 255
    assert values.mean() == pytest.approx(mean, abs=0.005)
    assert values.var() == pytest.approx(variance, rel=0.03)


def test_shot_noise_has_a_variance_of_x_over_photons():
    dark = np.full((160, 160, 3), 51, dtype=np.uint8)  # far from clipping
    assert (corrupt(dark, "shot_noise", 3, 0, "cifar") / 255).var() == pytest.approx(0.2 / 100, rel=0.03)


@both_scales
@pytest.mark.parametrize("severity", SEVERITIES)
def test_impulse_noise_turns_this_share_black_or_white(scale, severity):
    values, share = corrupt(GREY, "impulse_noise", severity, 0, scale), SHARE[scale][severity - 1]
    spread = 5 * math.sqrt(share / values.size)
    assert (values == 0).mean() == pytest.approx(share / 2, abs=spread)
    assert (values == 255).mean() == pytest.approx(share / 2, abs=spread)
    assert (values == 128).mean() == pytest.approx(1 - share, abs=spread)
    assert ((values == 0).any(axis=2) & (values != 0).any(axis=2)).any()  # channels by themselves


@pytest.mark.parametrize("severity", SEVERITIES)
def test_speckle_noise_grows_with_the_brightness(severity):
    for level in (51, 102):
        values = corrupt(np.full_like(GREY, level), "speckle_noise", severity, 0, "cifar") / 255
        assert values.std() == pytest.approx(SPECKLE["cifar"][severity - 1] * level / 255, rel=0.03)


# (radius, softening) -> the number of grid points within the radius, counted by hand for the small ones
@pytest.mark.parametrize(
    ("radius", "softening", "points"), [(0.3, 0.4, 1), (1, 0.2, 5), (1.5, 0.1, 9), (3, 0.1, 29), (10, 0.5, 317)]
)
def test_disk_kernel(radius, softening, points):
    kernel = disk_kernel(radius, softening)
    soft = 1 if radius <= 8 else 2
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert kernel.shape == (2 * (int(radius) + soft) + 1,) * 2
    assert np.allclose(kernel, kernel[::-1]) and np.allclose(kernel, kernel.T)
    assert (kernel > 0.5 / points).sum() == points or radius < 1
    if softening <= 0.1:
        assert kernel[kernel > 1e-3] == pytest.approx(1 / points, rel=1e-3)


def naive_blur(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    reach = len(kernel) // 2
    padded = np.pad(image.astype(float), ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    total = np.zeros(image.shape)
    for i in range(len(kernel)):
        for j in range(len(kernel)):
            total += kernel[i, j] * padded[i : i + image.shape[0], j : j + image.shape[1]]
    return total


@pytest.mark.parametrize(("severity", "softening"), [(1, 0.4), (2, 0.5), (3, 0.6)])
def test_the_lightest_defocus_of_cifar_is_a_gaussian_of_nine_taps(severity, softening):
    taps = np.exp(-(np.arange(-1, 2) ** 2) / (2 * softening**2))
    kernel = np.outer(taps, taps) / taps.sum() ** 2
    image = scene(32, 32)
    assert np.abs(corrupt(image, "defocus_blur", severity, 0) - naive_blur(image, kernel)).max() <= 0.51


def test_the_heaviest_defocus_of_cifar_is_a_mean_over_nine_pixels():
    image = scene(32, 32)
    expected = naive_blur(image, np.full((3, 3), 1 / 9))
    assert np.abs(corrupt(image, "defocus_blur", 5, 0) - expected).max() <= 0.51


def test_defocus_scales_with_the_image():
    point = np.zeros((448, 448, 3), dtype=np.uint8)
    point[220:230, 220:230] = 255
    spread = np.flatnonzero(corrupt(point, "defocus_blur", 3, 0).max(axis=(0, 2)))
    assert np.ptp(spread) + 1 == pytest.approx(10 + 2 * 12, abs=3)  # radius 6 at 224 pixels


@pytest.mark.parametrize("corruption", ["defocus_blur", "gaussian_blur", "glass_blur", "motion_blur", "zoom_blur"])
@pytest.mark.parametrize("size", [(8, 8), (32, 57), (100, 80)])
def test_blur_conserves_a_constant_image(corruption, size):
    image = np.broadcast_to(np.array([3, 128, 254], dtype=np.uint8), (*size, 3)).copy()
    for severity in (1, 5):
        assert np.array_equal(corrupt(image, corruption, severity, 7), image)


def test_gaussian_blur_of_an_edge_is_the_normal_distribution():
    image = np.zeros((224, 224, 3), dtype=np.uint8)
    image[:, 112:] = 200
    profile = corrupt(image, "gaussian_blur", 4, 0)[100, :, 0]  # sigma 4
    expected = [200 * 0.5 * (1 + math.erf((x - 111.5) / (4 * math.sqrt(2)))) for x in range(224)]
    assert np.abs(profile - np.array(expected)).max() < 1.5


@pytest.mark.parametrize("degrees", [-120.0, -90.0, -30.0, 0.0, 17.0, 45.0])
def test_a_streak_is_half_a_gaussian_on_a_ray(degrees):
    x = (scene(20, 24) / 255).astype(np.float32)
    radius, sigma = 2.5, 1.7
    weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(7)]  # 2 * 3 + 1 taps
    expected = np.zeros_like(x)
    for row in range(20):
        for column in range(24):
            for i, weight in enumerate(weights):
                r = row + math.ceil(i * math.sin(math.radians(degrees)) - 0.5)
                c = column + math.ceil(i * math.cos(math.radians(degrees)) - 0.5)
                expected[row, column] += weight / sum(weights) * x[min(max(r, 0), 19), min(max(c, 0), 23)]
    assert np.abs(streaked(x, radius, sigma, degrees) - expected).max() < 1e-5


def test_motion_blur_is_nearly_horizontal():
    image = np.zeros((224, 224, 3), dtype=np.uint8)
    image[112, 112] = 255
    angles = []
    for seed in range(12):
        rows, columns = np.nonzero(corrupt(image, "motion_blur", 1, seed)[..., 0])
        assert columns.max() <= 112
        angles.append(math.degrees(math.atan2(112 - rows[columns.argmin()], 112 - columns.min())))
    assert max(map(abs, angles)) <= 50 and np.ptp(angles) > 30


def test_zoom_blur_is_a_mean_of_magnifications():
    x = (scene(16, 20) / 255).astype(np.float32)

    def magnified(z):
        result = np.empty_like(x)
        for row in range(16):
            for column in range(20):
                r, c = 7.5 + (row - 7.5) / z, 9.5 + (column - 9.5) / z
                i, j = min(int(r), 14), min(int(c), 18)
                a, b = r - i, c - j
                result[row, column] = (
                    (1 - a) * (1 - b) * x[i, j]
                    + (1 - a) * b * x[i, j + 1]
                    + a * (1 - b) * x[i + 1, j]
                    + a * b * x[i + 1, j + 1]
                )
        return result

    expected = (x + sum(magnified(1 + 0.07 * k) for k in range(4))) / 5
    assert np.abs(zoom_blur(x, None, count=4, step=0.07) - expected).max() < 1e-5


@pytest.mark.parametrize(("height", "width", "reach"), [(12, 17, 1), (30, 25, 2), (40, 40, 4)])
def test_glass_blur_displaces_as_the_walk_over_the_pixels_does(height, width, reach):
    """The published order, from the bottom right; the other pixel keeps its colour."""
    rows, columns = range(reach + 1, height - reach + 1), range(reach + 1, width - reach + 1)
    down, right = np.random.default_rng(5).integers(-reach, reach, size=(2, len(rows), len(columns)))
    walked = np.arange(height * width).reshape(height, width)
    for row in reversed(rows):
        for column in reversed(columns):
            i, j = row - rows[0], column - columns[0]
            walked[row, column] = walked[row + down[i, j], column + right[i, j]]
    assert np.array_equal(displaced(height, width, reach, np.random.default_rng(5)), walked)
    assert (walked != np.arange(height * width).reshape(height, width)).mean() > 0.5


def test_swapping_views_of_one_array_copies():
    """Why the published glass blur does not swap."""
    x = np.arange(6).reshape(1, 2, 3)
    x[0, 0], x[0, 1] = x[0, 1], x[0, 0]
    assert x.tolist() == [[[3, 4, 5], [3, 4, 5]]]


def test_glass_blur_walks_as_often_as_it_says_between_two_blurs():
    x = np.zeros((60, 60, 3), dtype=np.float32)
    x[:, 30:] = 1
    sharp = glass_blur(x, np.random.default_rng(0), sigma=0.01, reach=1, rounds=3)
    assert set(np.unique(sharp)) == {0, 1}
    touched = np.flatnonzero(sharp[..., 0].min(axis=0) != sharp[..., 0].max(axis=0))
    assert touched.min() >= 30 and 31 < touched.max() <= 32  # three times up to one pixel to the left is shown


def test_glass_blur_blurs_before_and_after():
    x = (scene(20, 30) / 255).astype(np.float32)

    def blurred(image):
        return ndimage.gaussian_filter1d(
            ndimage.gaussian_filter1d(image, 0.9, axis=0, mode="nearest"), 0.9, axis=1, mode="nearest"
        )

    order = displaced(20, 30, 2, np.random.default_rng(4))
    expected = blurred(blurred(x).reshape(-1, 3)[order.ravel()].reshape(x.shape))
    assert np.abs(glass_blur(x, np.random.default_rng(4), sigma=0.9, reach=2, rounds=1) - expected).max() < 1e-5
