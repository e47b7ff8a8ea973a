"""Blur. Images x are float32 (H, W, 3) in [0, 1]."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.signal import fftconvolve

from dataset_builders.corruptions.arrays import Layer, Pixels
from dataset_builders.corruptions.resampling import magnifications, magnifications_side_by_side


def gaussian_blur(x: Pixels, rng: np.random.Generator, sigma: float) -> Pixels:
    """Convolution with a Gaussian, cut off at 4 sigma; beyond the border the nearest pixel."""
    return ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest")


def defocus_blur(x: Pixels, rng: np.random.Generator, radius: float, softening: float) -> Pixels:
    """Convolution with a disk, the image of a point that is out of focus; mirrored at the border."""
    kernel = disk_kernel(radius, softening)
    reach = len(kernel) // 2
    padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    return fftconvolve(padded, kernel[:, :, None], mode="valid", axes=(0, 1))


@lru_cache(maxsize=64)
def disk_kernel(radius: float, softening: float) -> Layer:
    """The pixels within the radius, equally weighted, softened by a Gaussian of 3 x 3 taps (5 x 5 beyond radius 8)."""
    reach = int(radius)
    soft = 1 if radius <= 8 else 2
    i = np.arange(-reach - soft, reach + soft + 1)
    disk = (i[:, None] ** 2 + i**2 <= radius**2).astype(np.float64)
    return ndimage.gaussian_filter(disk / disk.sum(), softening, mode="constant", radius=soft).astype(np.float32)


def motion_blur(x: Pixels, rng: np.random.Generator, radius: float, sigma: float) -> Pixels:
    """A streak at a random angle within 45 degrees of the horizontal."""
    return streaked(x, radius, sigma, rng.uniform(-45, 45))


def streaked(x: Pixels, radius: float, sigma: float, degrees: float) -> Pixels:
    """Every pixel is a mean over pixels on a ray from it, weighted by half a Gaussian; beyond the border the nearest.

    As ImageMagick's motion blur, which the published sets were made with: 2 ceil(radius) + 1 taps, one pixel apart.

    Args:
        x: (H, W, 3) or (H, W, 1).
        degrees: of the ray, clockwise from the right.
    """
    step = np.arange(2 * int(np.ceil(radius)) + 1)
    weights = np.exp(-(step**2) / (2 * sigma**2))
    angle = np.deg2rad(degrees)
    offsets = np.ceil(step[:, None] * [np.sin(angle), np.cos(angle)] - 0.5).astype(int)  # (taps, 2), rounded
    height, width, _ = x.shape
    reach = int(np.abs(offsets).max())
    padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    total = np.zeros_like(x)
    for weight, (down, right) in zip((weights / weights.sum()).tolist(), offsets + reach):
        total += weight * padded[down : down + height, right : right + width]
    return total


def zoom_blur(x: Pixels, rng: np.random.Generator, count: float, step: float) -> Pixels:
    """The mean of x and of its magnifications by 1, 1 + step, ... about the centre, which is a camera moving in.

    With A_z the bilinear magnification by z along one axis: (x + sum_z A_z x A_z^T) / (count + 1). The generators of
    the published sets magnify a crop whose size is rounded to whole pixels; here the centre stays where it is.
    """
    height, width, channels = x.shape
    factors = tuple(1 + step * k for k in range(int(count)))
    rows = (magnifications(height, factors) @ x.reshape(height, -1)).reshape(len(factors), height, width, channels)
    columns = rows.transpose(0, 2, 1, 3).reshape(len(factors) * width, -1)
    total = magnifications_side_by_side(width, factors) @ columns
    return (x + total.reshape(width, height, channels).transpose(1, 0, 2)) / np.float32(len(factors) + 1)


def glass_blur(x: Pixels, rng: np.random.Generator, sigma: float, reach: float, rounds: float) -> Pixels:
    """A Gaussian blur, pixels displaced at random (`displaced`) in every round, a Gaussian blur again."""
    blurred = gaussian_blur(x, rng, sigma)
    colours = blurred.reshape(-1, x.shape[2])
    for _ in range(int(rounds)):
        colours = colours[displaced(x.shape[0], x.shape[1], max(1, round(reach)), rng).ravel()]
    return gaussian_blur(colours.reshape(x.shape), rng, sigma)


def displaced(height: int, width: int, reach: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Which pixel each pixel shows after one round, as flat indices (H, W).

    The published generators walk over the pixels from the bottom right to the top left, leave out a border, draw
    offsets (dy, dx) from {-reach, ..., reach - 1}^2, and give pixel p the colour that pixel p + (dy, dx) has at that
    moment. (They mean to swap the two; but they swap views of one array, so the other pixel keeps its colour.) When the
    source s(p) comes after p in reading order it was overwritten before, so p shows what s(p) shows: follow s while it
    leads on. That is the same result without the walk.
    """
    pixel = np.arange(height * width).reshape(height, width)
    source = pixel.copy()
    inner = source[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1]
    down, right = rng.integers(-reach, reach, size=(2, *inner.shape))
    inner += down * width + right
    flat = source.ravel()
    shown = flat.copy()
    pending = np.flatnonzero(flat > pixel.ravel())
    last = flat[pending]
    while len(pending):
        onward = flat[last]
        shown[pending] = onward
        leads_on = onward > last
        pending, last = pending[leads_on], onward[leads_on]
    return shown.reshape(height, width)
