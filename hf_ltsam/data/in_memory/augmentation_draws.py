"""From the 64 random bits of each image to what happens to it. On the host: cheap there, and the same for every device."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]  # 64 random bits per image (n,)


def crop_draws(keys: Keys, padding: int, flip: bool) -> NDArray[np.int64]:
    """Top and left edge of a crop, uniform on 0 to 2 * padding, and whether it is mirrored: (3, n).

    32 bits choose the row, 31 the column, one the mirror image.
    """
    places = 2 * padding + 1
    mirrored = keys >> 63 if flip else np.zeros_like(keys)
    return np.stack([_low(keys, places), _high(keys, places), mirrored]).astype(np.int64)


def crop_places(
    rows: NDArray[np.int64], draws: NDArray[np.int64], height: int, width: int, padding: int
) -> list[NDArray[np.int64]]:
    """What `ImageStore.cropped` takes: lines, columns, and which of both lie inside the image.

    Args:
        rows: which images (n,).
        draws: of `crop_draws` (3, n).
    """
    top, left, mirrored = draws[:, :, None]
    across = np.arange(width)
    y = top - padding + np.arange(height)  # (n, H)
    x = left - padding + np.where(mirrored, width - 1 - across, across)  # (n, W)
    nearest_y, nearest_x = (np.minimum(np.maximum(v, 0), n - 1) for v, n in ((y, height), (x, width)))
    inside = [(v == nearest).astype(np.int64) for v, nearest in ((y, nearest_y), (x, nearest_x))]
    return [(rows[:, None] * height + nearest_y) * width, nearest_x, *inside]


def square_centres(keys: Keys, height: int, width: int) -> NDArray[np.int64]:
    """Row and column of a pixel of the image, uniform: (2, n)."""
    return np.stack([_low(keys, height), _high(keys, width)]).astype(np.int64)


def operation_draws(keys: Keys, operations: int) -> NDArray[np.int64]:
    """One of several operations, uniform, and whether its magnitude is negative, 0 or 1: (2, n)."""
    return np.stack([_low(keys, operations), keys >> 63]).astype(np.int64)


def _low(keys: Keys, choices: int) -> NDArray[Any]:
    """0 to choices - 1, of the lower 32 bits."""
    return ((keys & 0xFFFFFFFF) * choices) >> 32


def _high(keys: Keys, choices: int) -> NDArray[Any]:
    """0 to choices - 1, of the 31 bits above them."""
    return ((keys >> 32 & 0x7FFFFFFF) * choices) >> 31
