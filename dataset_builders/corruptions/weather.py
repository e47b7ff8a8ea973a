"""Snow, frost, fog, light. Images x are float32 (H, W, 3) in [0, 1]."""

from __future__ import annotations

import numpy as np

from dataset_builders.corruptions.arrays import Layer, Pixels
from dataset_builders.corruptions.blur import streaked
from dataset_builders.corruptions.resampling import enlarged
from dataset_builders.corruptions.textures import ICE_SIDE, ICE_TEXTURES, ice, plasma

LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, the weights of the usual grey


def snow(
    x: Pixels,
    rng: np.random.Generator,
    mean: float,
    std: float,
    flake: float,
    threshold: float,
    radius: float,
    sigma: float,
    keep: float,
) -> Pixels:
    """Whitened image plus falling flakes plus the same flakes turned by 180 degrees.

    Flakes: Gaussian noise(mean, std) on a grid of `flake` pixels, zero below the threshold, streaked upwards at a
    random angle within 45 degrees of the vertical. Whitened: keep x + (1 - keep) max(x, 1.5 grey(x) + 0.5).
    """
    flakes = streaked(
        _flakes(x.shape, rng, mean, std, max(1.0, flake), threshold), radius, sigma, rng.uniform(-135, -45)
    )
    white = np.maximum(x, 1.5 * (x @ LUMINANCE)[..., None] + 0.5)
    return keep * x + (1 - keep) * white + flakes + flakes[::-1, ::-1]


def _flakes(
    shape: tuple[int, ...], rng: np.random.Generator, mean: float, std: float, flake: float, threshold: float
) -> Layer:
    """(H, W, 1) in [0, 1]."""
    height, width, _ = shape
    coarse = mean + std * rng.standard_normal((int(np.ceil(height / flake)), int(np.ceil(width / flake))), np.float32)
    layer = enlarged(coarse, height, width)
    return np.where(layer < threshold, 0, np.minimum(layer, 1))[..., None].astype(np.float32)


def frost(x: Pixels, rng: np.random.Generator, keep: float, add: float, zoom: float) -> Pixels:
    """keep x + add t, t a random part of one of five textures of ice, turned or mirrored at random.

    The published sets use photographs of frozen windows; these textures are computed (`textures.ice`).
    """
    return keep * x + add * _frozen_glass(x.shape[0], x.shape[1], zoom, rng)


def _frozen_glass(height: int, width: int, zoom: float, rng: np.random.Generator) -> Pixels:
    number, turns, mirrored = rng.integers(ICE_TEXTURES), rng.integers(4), rng.integers(2)
    texture = ice(int(number), max(8, round(ICE_SIDE * zoom)))
    texture = np.rot90(texture[::-1] if mirrored else texture, int(turns))
    top, left = rng.integers(len(texture), size=2)
    rows, columns = np.arange(top, top + height) % len(texture), np.arange(left, left + width) % len(texture)
    return texture[np.ix_(rows, columns)] / np.float32(255)


def fog(x: Pixels, rng: np.random.Generator, density: float, decay: float) -> Pixels:
    """(x + density p) m / (m + density): p plasma in [0, 1], m the largest value of the image."""
    height, width, _ = x.shape
    side = 1 << (max(height, width) - 1).bit_length()
    brightest = float(x.max())
    return (x + density * plasma(side, decay, rng)[:height, :width, None]) * (brightest / (brightest + density))


def brightness(x: Pixels, rng: np.random.Generator, increase: float) -> Pixels:
    """The value V = max(R, G, B) of HSV grows to V' = min(V + increase, 1): x V' / V, and grey V' where x is black."""
    value = x.max(axis=2, keepdims=True)
    brighter = np.minimum(value + np.float32(increase), 1)
    return np.where(value > 0, x * (brighter / np.where(value > 0, value, 1)), brighter)
