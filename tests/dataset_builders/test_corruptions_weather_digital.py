"""Weather and digital corruptions against their definitions, by closed forms and by naive loops."""

import colorsys
import io
import math

import numpy as np
import pytest
from corruption_pictures import scene
from PIL import Image
from scipy import ndimage

from dataset_builders.corruptions import SEVERITIES, corrupt, weather
from dataset_builders.corruptions.digital import _smooth_noise, elastic_transform
from dataset_builders.corruptions.textures import ice, plasma

# Hendrycks & Dietterich 2019, as published for 224 and for 32 pixels.
BRIGHTNESS = {"imagenet": (0.1, 0.2, 0.3, 0.4, 0.5), "cifar": (0.05, 0.1, 0.15, 0.2, 0.3)}
CONTRAST = {"imagenet": (0.4, 0.3, 0.2, 0.1, 0.05), "cifar": (0.75, 0.5, 0.4, 0.3, 0.15)}
SATURATE = {
    "imagenet": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    "cifar": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
}
QUALITY = {"imagenet": (25, 18, 15, 10, 7), "cifar": (80, 65, 58, 50, 40)}
FOG = {"imagenet": (1.5, 2, 2.5, 2.5, 3), "cifar": (0.2, 0.5, 0.75, 1, 1.5)}
FROST = {
    "imagenet": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    "cifar": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
}
KEPT_IN_SNOW = (0.8, 0.7, 0.7, 0.65, 0.55)

both_scales = pytest.mark.parametrize("scale", ["imagenet", "cifar"])
every_severity = pytest.mark.parametrize("severity", SEVERITIES)


def colours() -> np.ndarray:
    """All corners of the colour cube, greys, and random colours."""
    rng = np.random.RandomState(0)
    corners = np.array([[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)])
    greys = np.repeat(np.arange(0, 256, 15)[:, None], 3, axis=1)
    return np.concatenate([corners, greys, rng.randint(0, 256, (100 - 26, 3))]).astype(np.uint8).reshape(10, 10, 3)


def by_hsv(image: np.ndarray, change) -> np.ndarray:
    values = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel))) for pixel in image.reshape(-1, 3) / 255]
    return 255 * np.array(values).reshape(image.shape)


@both_scales
@every_severity
def test_brightness_raises_the_value_of_hsv(scale, severity):
    increase = BRIGHTNESS[scale][severity - 1]
    expected = by_hsv(colours(), lambda h, s, v: (h, s, min(v + increase, 1)))
    assert np.abs(corrupt(colours(), "brightness", severity, 0, scale) - expected).max() < 0.502


@both_scales
@every_severity
def test_saturate_changes_the_saturation_of_hsv(scale, severity):
    factor, increase = SATURATE[scale][severity - 1]
    expected = by_hsv(colours(), lambda h, s, v: (h, min(factor * s + increase, 1), v))
    assert np.abs(corrupt(colours(), "saturate", severity, 0, scale) - expected).max() < 0.502


@both_scales
@every_severity
def test_contrast_shrinks_towards_the_mean_colour(scale, severity):
    image = scene(33, 57)
    mean = image.reshape(-1, 3).mean(axis=0)
    expected = mean + CONTRAST[scale][severity - 1] * (image - mean)
    assert np.abs(corrupt(image, "contrast", severity, 0, scale) - expected).max() < 0.502


@both_scales
@every_severity
def test_jpeg_is_pillows_own(scale, severity):
    file = io.BytesIO()
    image = scene(50, 70)
    Image.fromarray(image).save(file, format="JPEG", quality=QUALITY[scale][severity - 1])
    assert np.array_equal(corrupt(image, "jpeg_compression", severity, 0, scale), np.asarray(Image.open(file)))


def test_pixelate_by_a_half_shows_means_of_four():
    image = scene(224, 224)
    blocks = image.reshape(112, 2, 112, 2, 3).mean(axis=(1, 3))
    expected = blocks.repeat(2, axis=0).repeat(2, axis=1)
    assert np.abs(corrupt(image, "pixelate", 2, 0) - expected).max() <= 1


@pytest.mark.parametrize(
    ("scale", "side", "cells"), [("imagenet", 224, (134, 112, 89, 67, 56)), ("cifar", 32, (30, 28, 27, 24, 20))]
)
@every_severity
def test_pixelate_leaves_so_many_cells(scale, side, cells, severity):
    image = np.random.RandomState(0).randint(0, 256, (side, side, 3), dtype=np.uint8)
    result = corrupt(image, "pixelate", severity, 0, scale).astype(int)
    assert 1 + (np.abs(np.diff(result, axis=0)).max(axis=(1, 2)) > 0).sum() == cells[severity - 1]


@both_scales
@every_severity
def test_fog_on_a_constant_image_fills_its_range(scale, severity):
    """(v + d p) v / (v + d) for p from 0 to 1."""
    image, v, density = np.full((32, 32, 3), 153, dtype=np.uint8), 0.6, FOG[scale][severity - 1]
    result = corrupt(image, "fog", severity, 3, scale)
    assert result.max() == 153 and result.min() == round(255 * v * v / (v + density))
    assert np.array_equal(result[..., 0], result[..., 2])


def naive_plasma(side: int, decay: float, rng) -> np.ndarray:
    """Diamond-square on a torus, point by point; noise is drawn grid by grid."""
    height, step, amplitude = {(0, 0): 0.0}, side, 1.0
    while step > 1:
        half, n = step // 2, side // step
        noise = [rng.uniform(-amplitude, amplitude, (n, n)) for _ in range(3)]
        for i in range(n):
            for j in range(n):
                r, c = i * step, j * step
                corners = [height[(r + a) % side, (c + b) % side] for a in (0, step) for b in (0, step)]
                height[r + half, c + half] = sum(corners) / 4 + noise[0][i, j]
        for i in range(n):
            for j in range(n):
                for k, (r, c) in enumerate([(i * step, j * step + half), (i * step + half, j * step)], start=1):
                    around = [(r + half, c), (r - half, c), (r, c + half), (r, c - half)]
                    mean = sum(height[a % side, b % side] for a, b in around) / 4
                    height[r, c] = mean + noise[k][i, j]
        step, amplitude = half, amplitude / decay**2
    result = np.array([[height[i, j] for j in range(side)] for i in range(side)])
    return (result - result.min()) / (result.max() - result.min())


@pytest.mark.parametrize("decay", [1.4, 2, 3])
def test_plasma_is_diamond_square(decay):
    expected = naive_plasma(32, decay, np.random.default_rng(9))
    assert np.abs(plasma(32, decay, np.random.default_rng(9)) - expected).max() < 1e-5


@both_scales
@every_severity
def test_frost_is_a_weighted_sum_with_ice(scale, severity):
    keep, add = FROST[scale][severity - 1]
    dark, light = (np.full((40, 40, 3), level, dtype=np.uint8) for level in (0, 25))
    ice_alone = corrupt(dark, "frost", severity, 5, scale).astype(int)
    assert ice_alone.max() <= 255 * add and ice_alone.std() > 5
    kept = corrupt(light, "frost", severity, 5, scale) - ice_alone
    assert np.abs(kept[ice_alone < 200] - 25 * keep).max() <= 1


def test_ice_is_whitish_and_repeats_without_a_seam():
    for number in range(5):
        texture = ice(number, 512).astype(float)
        assert 80 < texture.mean() < 170 and texture.std() > 30
        seam = np.abs(texture[0] - texture[-1]).mean()
        assert seam < 1.5 * np.abs(np.diff(texture, axis=0)).mean()
        assert (texture[..., 2] >= texture[..., 0]).all()


def test_frost_shows_different_parts_of_all_textures(monkeypatch):
    dark, numbers = np.zeros((64, 64, 3), dtype=np.uint8), []
    monkeypatch.setattr(weather, "ice", lambda number, side: numbers.append(number) or ice(number, side))
    assert len({corrupt(dark, "frost", 5, seed).tobytes() for seed in range(40)}) == 40
    assert set(numbers) == set(range(5))


@every_severity
def test_snow_on_black_is_white_streaks_symmetric_under_half_a_turn(severity):
    """Black becomes (1 - keep) / 2 plus flakes plus flakes turned."""
    result = corrupt(np.zeros((224, 224, 3), dtype=np.uint8), "snow", severity, 0).astype(int)
    assert np.abs(result - result[::-1, ::-1]).max() <= 1
    background = round(255 * (1 - KEPT_IN_SNOW[severity - 1]) / 2)
    assert abs(result.min() - background) <= 1
    assert (result > background + 40).mean() > 0.02


def test_snow_falls():
    """Streaks lie within 45 degrees of the vertical, so grey changes less downwards than across."""
    black = np.zeros((224, 224, 3), dtype=np.uint8)
    layers = [corrupt(black, "snow", 3, seed)[..., 0].astype(int) for seed in range(6)]
    down, across = (np.mean([np.abs(np.diff(layer, axis=axis)).mean() for layer in layers]) for axis in (0, 1))
    assert down < 0.8 * across


@every_severity
def test_snow_whitens_towards_the_luminance(severity):
    """Between the flakes: keep x + (1 - keep) max(x, 1.5 grey + 0.5)."""
    x, keep = np.array([60, 10, 200]) / 255, KEPT_IN_SNOW[severity - 1]
    image = np.broadcast_to((255 * x).astype(np.uint8), (224, 224, 3))
    grey = 0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2]
    expected = keep * x + (1 - keep) * np.maximum(x, 1.5 * grey + 0.5)
    assert np.abs(corrupt(image, "snow", severity, 0).reshape(-1, 3).min(axis=0) - 255 * expected).max() <= 1


def test_snow_only_brightens():
    image = scene(32, 32)
    for severity in SEVERITIES:
        assert (corrupt(image, "snow", severity, 1).astype(int) >= image.astype(int) - 1).all()


def test_spatter_is_first_water_and_then_mud():
    image = np.full((224, 224, 3), 100, dtype=np.uint8)
    for severity in (1, 2, 3):
        wet = corrupt(image, "spatter", severity, 0).astype(int)
        assert (wet >= image).all()
        strongest = (wet - image).reshape(-1, 3).max(axis=0)
        strength = (0.6, 0.6, 0.5)[severity - 1]
        assert np.abs(strongest - strength * np.array([175, 238, 238])).max() <= 1
    for severity in (4, 5):
        dirty = corrupt(image, "spatter", severity, 0)
        assert (dirty == [63, 42, 20]).all(axis=2).any() and (dirty == 100).all(axis=2).mean() > 0.4


@pytest.mark.parametrize("severity", [1, 4])
def test_spatter_covers_the_same_share_at_every_size(severity):
    shares = []
    for side in (224, 448):
        image = np.full((side, side, 3), 100, dtype=np.uint8)
        shares.append(np.mean([(corrupt(image, "spatter", severity, s) != 100).any(axis=2).mean() for s in range(4)]))
    assert shares[1] == pytest.approx(shares[0], rel=0.35)


def test_an_image_without_a_drop_stays():
    image = scene(8, 8)
    assert any(np.array_equal(corrupt(image, "spatter", 1, seed), image) for seed in range(40))


@pytest.mark.parametrize("sigma", [1.0, 2.44, 6.0])
def test_smooth_noise_is_blurred_uniform_noise(sigma):
    noise = np.random.default_rng(3).uniform(-1, 1, (40, 56))
    expected = ndimage.gaussian_filter(noise, sigma, mode="reflect", truncate=8)
    result = _smooth_noise(40, 56, sigma, np.random.default_rng(3))
    assert np.abs(result - expected).max() < 0.01 * expected.std() / 0.05


def ramp(height: int, width: int) -> np.ndarray:
    """Rows in red, columns in green."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y / height, x / width, 0 * x], axis=-1).astype(np.float32)


def test_the_affine_part_takes_three_points_back():
    """The colours at three shifted points are those of the points, and between them all is affine."""
    reach, (height, width) = 2.56, (32, 36)
    warped = elastic_transform(ramp(height, width), np.random.default_rng(1), alpha=0, sigma=0, affine=reach)
    shifts = np.random.default_rng(1).uniform(-reach, reach, size=(3, 2))
    for (i, j), shift in zip([(26, 28), (26, 8), (6, 8)], shifts):
        found = [
            ndimage.map_coordinates(warped[..., c], (np.array([i, j]) + shift)[:, None], order=1)[0] for c in (0, 1)
        ]
        assert found == pytest.approx([i / height, j / width], abs=1e-4)


def test_the_elastic_part_displaces_by_alpha_times_the_field():
    height, width, alpha, sigma = 40, 48, 30.0, 4.0
    warped = elastic_transform(ramp(height, width), np.random.default_rng(2), alpha, sigma, affine=0)
    rng = np.random.default_rng(2)
    rng.uniform(0, 0, size=(3, 2))
    down, right = (ndimage.gaussian_filter(rng.uniform(-1, 1, (height, width)), sigma, truncate=8) for _ in range(2))
    y, x = np.mgrid[:height, :width]
    inside = (slice(8, -8),) * 2
    assert np.abs(warped[..., 0] * height - (y + alpha * down))[inside].max() < 0.15
    assert np.abs(warped[..., 1] * width - (x + alpha * right))[inside].max() < 0.15
    assert np.abs(alpha * down).max() > 1


def test_displacements_grow_with_the_image():
    """sigma and alpha / sigma, both in pixels, are twice as large at twice the size."""
    from dataset_builders.corruptions.parameters import parameters

    small, large = (parameters("elastic_transform", 5, side, "imagenet") for side in (224, 448))
    assert large["sigma"] == 2 * small["sigma"] and large["affine"] == 2 * small["affine"]
    assert large["alpha"] / large["sigma"] == pytest.approx(2 * small["alpha"] / small["sigma"])
    assert small["alpha"] == pytest.approx(0.12 * 244) and math.isclose(small["sigma"], 0.01 * 244)
