"""Spatter: drops of water or mud on the lens. Images x are float32 (H, W, 3) in [0, 1]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dataset_builders.corruptions.arrays import Layer, Pixels

WATER = np.array([175, 238, 238], dtype=np.float32) / 255  # pale turquoise
MUD = np.array([63, 42, 20], dtype=np.float32) / 255
FAR = 20  # pixels: distances from the edge of a drop are cut off here
EMBOSS = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], dtype=np.float32)  # light from the bottom right


def spatter(
    x: Pixels,
    rng: np.random.Generator,
    mean: float,
    std: float,
    sigma: float,
    threshold: float,
    strength: float,
    mud_sigma: float,
) -> Pixels:
    """Where noise(mean, std) blurred by sigma exceeds the threshold there are drops: water adds light, mud covers."""
    noise = mean + std * rng.standard_normal(x.shape[:2], dtype=np.float32)
    liquid = ndimage.gaussian_filter(noise, sigma, mode="nearest")
    if mud_sigma > 0:
        mud = ndimage.gaussian_filter((liquid > threshold).astype(np.float32), mud_sigma, mode="nearest")
        mud = np.where(mud < 0.8, 0, mud)[..., None]
        return (1 - mud) * x + mud * MUD
    return x + strength * _relief(np.where(liquid < threshold, 0, liquid))[..., None] * WATER


def _relief(liquid: Layer) -> Layer:
    """Drops lit from one side, (H, W) with maximum 1; all 0 where there is none.

    The distance to the nearest edge of a drop, its histogram equalised, embossed, times the depth of the liquid. The
    published generators find edges by Canny's detector on the liquid; here an edge is the outermost pixel of a drop.
    """
    drops = liquid > 0
    edges = drops & ~ndimage.binary_erosion(drops, border_value=1)
    if not edges.any():
        return np.zeros_like(liquid)
    distance = np.minimum(ndimage.distance_transform_edt(~edges), FAR)
    height = _equalised(_mean3(distance).astype(np.uint8))
    embossed = np.clip(ndimage.correlate(height, EMBOSS, mode="mirror"), 0, 255)
    relief = liquid * _mean3(embossed)
    return relief / max(float(relief.max()), 1e-12)


def _mean3(layer: NDArray) -> Layer:
    """Means over 3 x 3 pixels."""
    return ndimage.uniform_filter(layer.astype(np.float32), 3, mode="mirror")


def _equalised(levels: NDArray[np.uint8]) -> Layer:
    """Levels mapped so that all from 0 to 255 are about equally frequent, the lowest one to 0."""
    below = np.cumsum(np.bincount(levels.ravel(), minlength=256))
    lowest = below[levels.min()]
    return (255 * (below - lowest) / max(levels.size - lowest, 1))[levels].astype(np.float32)
