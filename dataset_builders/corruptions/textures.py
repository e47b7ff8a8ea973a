"""Random textures: clouds for fog, ice for frost."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft

from dataset_builders.corruptions.arrays import Layer

ICE_SIDE = 512  # pixels: at this size a texture suits an image of 224
ICE_TEXTURES = 5
ICE_DARK, ICE_BRIGHT = (30, 38, 52), (236, 244, 250)  # RGB of clear and of frozen glass


def plasma(side: int, decay: float, rng: np.random.Generator) -> Layer:
    """A height map (side, side) in [0, 1] that repeats itself, by the diamond-square algorithm (Fournier et al. 1982).

    From one corner (all corners are the same point), the grid is made twice as fine again and again: the centre of
    every square becomes the mean of its corners plus noise, then the centre of every edge the mean of its two ends and
    of the two centres beside it plus noise. The noise is uniform in [-a, a]; a falls by decay^2 from one grid to the
    next (the published generator multiplies two numbers that both fall by decay).

    Args:
        side: a power of two.
    """
    points = np.zeros((1, 1), dtype=np.float32)
    amplitude = 1.0
    while len(points) < side:
        points = _twice_as_fine(points, amplitude, rng)
        amplitude /= decay**2
    return (points - points.min()) / max(float(np.ptp(points)), 1e-12)


def _twice_as_fine(corner: Layer, amplitude: float, rng: np.random.Generator) -> Layer:
    n = len(corner)

    def jittered(total: Layer) -> Layer:
        return total / 4 + rng.uniform(-amplitude, amplitude, (n, n)).astype(np.float32)

    pairs = corner + np.roll(corner, -1, axis=0)
    centre = jittered(pairs + np.roll(pairs, -1, axis=1))
    fine = np.empty((2 * n, 2 * n), dtype=np.float32)
    fine[::2, ::2], fine[1::2, 1::2] = corner, centre
    fine[::2, 1::2] = jittered(corner + np.roll(corner, -1, axis=1) + centre + np.roll(centre, 1, axis=0))
    fine[1::2, ::2] = jittered(corner + np.roll(corner, -1, axis=0) + centre + np.roll(centre, 1, axis=1))
    return fine


@lru_cache(maxsize=2 * ICE_TEXTURES)
def ice(number: int, side: int) -> NDArray[np.uint8]:
    """One of the textures, brought to this side in pixels."""
    texture = Image.fromarray(_ice(number))
    return np.asarray(texture.resize((side, side), Image.Resampling.BICUBIC))


@lru_cache(maxsize=ICE_TEXTURES)
def _ice(number: int) -> NDArray[np.uint8]:
    """Ice on a window, our own design and no photograph: (ICE_SIDE, ICE_SIDE, 3), repeats itself at the borders.

    Feathers of fine needles whose direction drifts from place to place, brighter along jagged veins, over clear glass
    where the ice is thin.
    """
    rng = np.random.default_rng([number, 0x1CE])
    feathers, veins = _feathers(rng), _veins(rng)
    cover = 1 / (1 + np.exp(-(0.3 + 1.6 * _cloud(rng, 38) + 0.5 * feathers + 1.2 * (veins - 0.5))))
    shade = np.clip(cover * (0.58 + 0.16 * feathers + 0.40 * veins + 0.04 * _cloud(rng, 0.7)), 0, 1)[..., None]
    return np.rint((1 - shade) * ICE_DARK + shade * ICE_BRIGHT).astype(np.uint8)


def _feathers(rng: np.random.Generator) -> Layer:
    """Needles in eight directions, each where the local direction is near its own; mean 0 and variance 1."""
    local = np.pi * (1.2 * _cloud(rng, 30) + 0.25 * _cloud(rng, 8))
    total, weights = np.zeros((2, ICE_SIDE, ICE_SIDE), dtype=np.float32)
    for angle in np.pi * np.arange(8) / 8:
        near = np.exp(5 * (np.cos(2 * (local - angle)) - 1))
        total += near * _needles(rng, angle)
        weights += near
    return _standard(total / weights)


def _veins(rng: np.random.Generator) -> Layer:
    """Ridges along the zero lines of clouds, of four sizes that cross each other, in [0, 1]."""
    ridges = [np.exp(-np.abs(_cloud(rng, width)) * 5) for width in (24, 12, 6, 3)]
    return np.average(ridges, axis=0, weights=(4, 3, 2, 2)).astype(np.float32) / 0.6


def _needles(rng: np.random.Generator, angle: float) -> Layer:
    """Noise drawn out to long thin lines in one direction, mean 0 and variance 1."""
    v, u = _frequencies()
    along, across = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
    return _filtered(rng, np.exp(-2 * np.pi**2 * ((11 * along) ** 2 + (1.1 * across) ** 2)))


def _cloud(rng: np.random.Generator, width: float) -> Layer:
    """Noise smoothed over this many pixels, mean 0 and variance 1."""
    v, u = _frequencies()
    return _filtered(rng, np.exp(-2 * np.pi**2 * width**2 * (u**2 + v**2)))


def _frequencies() -> tuple[Layer, Layer]:
    """Vertical (n, 1) and horizontal (1, n/2 + 1), in cycles per pixel."""
    vertical, horizontal = fft.fftfreq(ICE_SIDE), fft.rfftfreq(ICE_SIDE)
    return vertical[:, None].astype(np.float32), horizontal[None, :].astype(np.float32)


def _filtered(rng: np.random.Generator, response: Layer) -> Layer:
    noise = rng.standard_normal((ICE_SIDE, ICE_SIDE), dtype=np.float32)
    return _standard(fft.irfft2(fft.rfft2(noise) * response))


def _standard(layer: Layer) -> Layer:
    return ((layer - layer.mean()) / layer.std()).astype(np.float32)
