"""Noise. Images x are float32 (H, W, 3) in [0, 1]; a result may leave that range and is clipped by the caller."""

from __future__ import annotations

import numpy as np

from dataset_builders.corruptions.arrays import Pixels


def gaussian_noise(x: Pixels, rng: np.random.Generator, sigma: float) -> Pixels:
    """x + sigma xi, xi standard normal: electronic noise in low light."""
    return x + sigma * rng.standard_normal(x.shape, dtype=np.float32)


def shot_noise(x: Pixels, rng: np.random.Generator, photons: float) -> Pixels:
    """Poisson(photons x) / photons: variance x / photons, the discreteness of light."""
    return (rng.poisson(photons * x) / photons).astype(np.float32)


def impulse_noise(x: Pixels, rng: np.random.Generator, share: float) -> Pixels:
    """This share of all values, every channel by itself, becomes 0 or 1 with equal probability."""
    u = rng.random(x.shape, dtype=np.float32)
    return np.where(u < share / 2, 0, np.where(u >= 1 - share / 2, 1, x)).astype(np.float32)


def speckle_noise(x: Pixels, rng: np.random.Generator, sigma: float) -> Pixels:
    """x + sigma x xi, xi standard normal: noise in proportion to the brightness."""
    return x + sigma * x * rng.standard_normal(x.shape, dtype=np.float32)
