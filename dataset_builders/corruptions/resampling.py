"""Linear interpolation along one axis, as sparse matrices."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from dataset_builders.corruptions.arrays import Layer


def interpolation(positions: NDArray[np.floating[Any]], length: int) -> Any:
    """The matrix (len(positions), length) that reads a signal of this length at these positions in [0, length - 1]."""
    lower = np.clip(np.floor(positions).astype(int), 0, max(length - 2, 0))
    upper = np.minimum(lower + 1, length - 1)
    weight = positions - lower
    row = np.arange(len(positions))
    entries = np.concatenate([1 - weight, weight]).astype(np.float32)
    index = np.concatenate([row, row]), np.concatenate([lower, upper])
    return sparse.csr_array((entries, index), shape=(len(positions), length))


@lru_cache(maxsize=64)
def magnifications(length: int, factors: tuple[float, ...]) -> Any:
    """One above the other, for every factor z >= 1: what lies at c + d is read at c + d / z, c the centre."""
    centre = (length - 1) / 2
    away = np.arange(length) - centre
    return sparse.vstack([interpolation(centre + away / z, length) for z in factors], format="csr")


@lru_cache(maxsize=64)
def magnifications_side_by_side(length: int, factors: tuple[float, ...]) -> Any:
    """The same matrices side by side: times stacked signals, the sum of their magnifications."""
    stacked = magnifications(length, factors)
    parts = [stacked[k * length : (k + 1) * length] for k in range(len(factors))]
    return sparse.hstack(parts, format="csr")


def enlarged(layer: Layer, height: int, width: int) -> Layer:
    """A layer (h, w) spread bilinearly over (height, width), corners onto corners."""
    h, w = layer.shape
    down = interpolation(np.linspace(0, h - 1, height), h)
    across = interpolation(np.linspace(0, w - 1, width), w)
    return (across @ (down @ layer).T).T
