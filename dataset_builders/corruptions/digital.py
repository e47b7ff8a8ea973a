"""Contrast, colour, geometry, compression. Images x are float32 (H, W, 3) in [0, 1]."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, ndimage

from dataset_builders.corruptions.arrays import Layer, Pixels


def to_bytes(x: Pixels) -> NDArray[np.uint8]:
    """[0, 1] to 0 ... 255, clipped and rounded to the nearest (the published generators round down)."""
    return np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)


def from_bytes(image: NDArray[np.uint8] | Image.Image) -> Pixels:
    """0 ... 255 to [0, 1]."""
    return np.asarray(image, dtype=np.float32) / 255


def contrast(x: Pixels, rng: np.random.Generator, factor: float) -> Pixels:
    """m + factor (x - m), m the mean colour of the image."""
    mean = x.mean(axis=(0, 1), keepdims=True)
    return mean + factor * (x - mean)


def saturate(x: Pixels, rng: np.random.Generator, factor: float, increase: float) -> Pixels:
    """The saturation S = 1 - min / V of HSV becomes S' = clip(factor S + increase, 0, 1), V = max(R, G, B).

    That is V - (V - x) S' / S. Grey has no hue; as in the published generators it counts as red.
    """
    value = x.max(axis=2, keepdims=True)
    lack = value - x  # 0 in the strongest channel
    saturation = lack.max(axis=2, keepdims=True) / np.maximum(value, 1e-12)
    wanted = np.clip(factor * saturation + increase, 0, 1)
    red = value * np.array([0, 1, 1], dtype=np.float32)
    return value - wanted * np.where(saturation > 0, lack / np.maximum(saturation, 1e-12), red)


def pixelate(x: Pixels, rng: np.random.Generator, factor: float) -> Pixels:
    """Shrunk by this factor and enlarged again, both by means over boxes."""
    image = Image.fromarray(to_bytes(x))
    small = [max(1, int(side * factor)) for side in image.size]
    box = Image.Resampling.BOX
    return from_bytes(image.resize((small[0], small[1]), box).resize(image.size, box))


def jpeg_compression(x: Pixels, rng: np.random.Generator, quality: float) -> Pixels:
    """Pillow's JPEG of this quality."""
    file = io.BytesIO()
    Image.fromarray(to_bytes(x)).save(file, "JPEG", quality=int(quality))
    return from_bytes(Image.open(file))


def elastic_transform(x: Pixels, rng: np.random.Generator, alpha: float, sigma: float, affine: float) -> Pixels:
    """The colour at q becomes that at A(q + alpha d(q)), bilinear, mirrored at the border.

    A is the affine map that undoes a shift of three points around the centre by up to `affine` pixels per axis; d is a
    field of uniform noise in [-1, 1] smoothed by sigma. The published generators interpolate twice, once per map.
    """
    height, width, _ = x.shape
    linear, origin = _random_affine(height, width, affine, rng)
    grid = np.indices((height, width), dtype=np.float64)
    if alpha > 0:
        grid += alpha * np.stack([_smooth_noise(height, width, sigma, rng) for _ in range(2)])
    where = np.tensordot(linear, grid, axes=1) + origin[:, None, None]  # (2, H, W): rows, columns
    channels = [ndimage.map_coordinates(x[:, :, c], where, order=1, mode="mirror") for c in range(x.shape[2])]
    return np.stack(channels, axis=2)


def _random_affine(height: int, width: int, reach: float, rng: np.random.Generator) -> tuple[Layer, Layer]:
    """q -> linear q + origin, which takes three shifted points back to where they were."""
    arm = min(height, width) // 3
    points = np.array([height // 2, width // 2]) + arm * np.array([[1, 1], [1, -1], [-1, -1]])
    shifted = points + rng.uniform(-reach, reach, size=(3, 2))
    solution = np.linalg.solve(np.column_stack([shifted, np.ones(3)]), points)  # (3, 2)
    return solution[:2].T, solution[2]


def _smooth_noise(height: int, width: int, sigma: float, rng: np.random.Generator) -> Layer:
    """Uniform noise in [-1, 1] smoothed by a Gaussian, mirrored at the border.

    Cosines are what a filter with mirrored borders multiplies: that of frequency k/(2n) by exp(-(pi sigma k / n)^2 / 2).
    """
    noise = rng.uniform(-1, 1, (height, width))
    gains = [np.exp(-((np.pi * sigma * np.arange(n) / n) ** 2) / 2) for n in (height, width)]
    return fft.idctn(fft.dctn(noise) * gains[0][:, None] * gains[1])
