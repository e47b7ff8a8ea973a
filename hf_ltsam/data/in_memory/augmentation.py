"""Crop, mirror image and cutout of a batch, from 64 random bits per image.

Random bits become crops, squares and operations on the host: cheap there, and the same for every device. Pixels are moved
and hidden on the device that holds them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Keys = NDArray[np.uint64]  # 64 random bits per image (n,)


def crop_draws(keys: Keys, padding: int, flip: bool) -> NDArray[np.int64]:
    """Top and left edge of a crop, uniform on 0 to 2 * padding, and 1 for a mirrored image: (3, n).

    32 bits choose the row, 31 the column, one the mirror image.
    """
    places = 2 * padding + 1
    mirrored = keys >> 63 if flip else np.zeros_like(keys)
    return np.stack([_low(keys, places), _high(keys, places), mirrored]).astype(np.int64)


def crop_places(
    rows: NDArray[np.int64], draws: NDArray[np.int64], height: int, width: int, padding: int
) -> list[NDArray[np.int64]]:
    """The arguments of `ImageStore.cropped`: lines, columns, and which of both lie inside the image.

    Args:
        rows: positions of the images in the store (n,).
        draws: from `crop_draws` (3, n).
        height, width: of an image, in pixels.
        padding: pixels of black on each side.
    """
    top, left, mirrored = draws[:, :, None]
    across = np.arange(width)
    y = top - padding + np.arange(height)  # (n, H)
    x = left - padding + np.where(mirrored, width - 1 - across, across)  # (n, W)
    nearest_y, nearest_x = (np.minimum(np.maximum(v, 0), n - 1) for v, n in ((y, height), (x, width)))
    inside = [(v == nearest).astype(np.int64) for v, nearest in ((y, nearest_y), (x, nearest_x))]
    return [(rows[:, None] * height + nearest_y) * width, nearest_x, *inside]


def square_centres(keys: Keys, height: int, width: int) -> NDArray[np.int64]:
    """Row and column of a uniformly drawn pixel: (2, n)."""
    return np.stack([_low(keys, height), _high(keys, width)]).astype(np.int64)


def cut_out(pixels: Tensor, row: Tensor, column: Tensor, side: int) -> Tensor:
    """Fill a square with 0 in place, which is the mean of normalised pixels. It is clipped at the border of the image.

    Args:
        pixels: (n, C, H, W).
        row, column: of the square's centre (n,). A square with an even side reaches one pixel further up and left.
        side: of the square, in pixels.

    Source: DeVries & Taylor 2017 Sec. 3.1. Their published code fills after normalising, as here; codes that fill before
    make the square black.
    """
    height, width = pixels.shape[2:]
    hidden = _crosses(row, height, side).unsqueeze(2) & _crosses(column, width, side).unsqueeze(1)  # (n, H, W)
    return pixels.masked_fill_(hidden.unsqueeze(1), 0)


def operation_draws(keys: Keys, operations: int) -> NDArray[np.int64]:
    """One of several operations, uniform, and 1 for a negative magnitude: (2, n)."""
    return np.stack([_low(keys, operations), keys >> 63]).astype(np.int64)


def _low(keys: Keys, choices: int) -> NDArray[Any]:
    """0 to choices - 1, from the lower 32 bits."""
    return ((keys & 0xFFFFFFFF) * choices) >> 32


def _high(keys: Keys, choices: int) -> NDArray[Any]:
    """0 to choices - 1, from the 31 bits above them."""
    return ((keys >> 32 & 0x7FFFFFFF) * choices) >> 31


def _crosses(centre: Tensor, length: int, side: int) -> Tensor:
    """Whether each line of the image crosses the square (n, length)."""
    first = (centre - side // 2).unsqueeze(1)
    lines = torch.arange(length, device=centre.device)
    return (lines >= first) & (lines < first + side)
