"""Crop, mirror image, cutout and erased rectangles of a batch, from 64 random bits per image.

Random bits become crops, squares and operations on the host: cheap there, and the same for every device. Pixels are moved
and hidden on the device that holds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_ltsam.hyperparameters import Domain

Keys = NDArray[np.uint64]  # 64 random bits per image (n,)
_AREA, _RATIO = (0.02, 0.33), (0.3, 1 / 0.3)  # of an erased rectangle: share of the image, height / width


def within(side: int) -> Domain:
    """Pixels of a border, or of a hidden square, that leave something of every image to see.

    Args:
        side: the shorter one of the images.
    """
    return Domain(f"at least 0 and less than the {side} pixels of an image's shorter side", lambda x: 0 <= x < side)


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


def erasing_draws(keys: Sequence[Keys], probability: float, height: int, width: int) -> NDArray[np.int64]:
    """Top, left, height and width of a rectangle (4, n), 0 pixels where nothing is erased.

    Its area is uniform on 2 % to 33 % of the image, its ratio of height to width between 0.3 and 1 / 0.3 with a uniform
    logarithm, its place uniform. One that does not fit is drawn again, as often as there are keys for it.

    Args:
        keys: random bits (n,): one for whether the image has one, then three for each try.
        probability: in [0, 1].

    Source: Zhong et al. 2020 Alg. 1, with the ranges of torchvision's `RandomErasing`.
    """
    first, *others = keys
    chosen = np.zeros((4, len(first)), np.int64)
    waiting = uniform(first) < probability
    for area, ratio, place in zip(*[iter(others)] * 3):
        pixels = height * width * (_AREA[0] + (_AREA[1] - _AREA[0]) * uniform(area))
        aspect = np.exp(np.log(_RATIO[0]) + (np.log(_RATIO[1]) - np.log(_RATIO[0])) * uniform(ratio))
        h, w = (np.rint(np.sqrt(side)).astype(np.int64) for side in (pixels * aspect, pixels / aspect))
        fits = waiting & (h < height) & (w < width)
        free = (np.maximum(height - h, 0) + 1).astype(np.uint64), (np.maximum(width - w, 0) + 1).astype(np.uint64)
        drawn = np.stack([_low(place, free[0]), _high(place, free[1]), h, w]).astype(np.int64)
        chosen = np.where(fits, drawn, chosen)
        waiting &= ~fits
    return chosen


def erase(pixels: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Fill a rectangle of each image with 0 in place, which is the mean of normalised pixels.

    Args:
        pixels: (n, C, H, W).
        top, left, height, width: of the rectangles, in pixels (n,).
    """
    rows = _between(top, height, pixels.shape[2]).unsqueeze(2)
    columns = _between(left, width, pixels.shape[3]).unsqueeze(1)
    return pixels.masked_fill_((rows & columns).unsqueeze(1), 0)


def integers(keys: Keys, choices: int) -> NDArray[np.int64]:
    """0 to choices - 1 (n,), uniform."""
    return _low(keys, choices).astype(np.int64)


def uniform(keys: Keys) -> NDArray[np.float64]:
    """Numbers in [0, 1) (n,)."""
    return (keys >> 11).astype(np.float64) / 2**53


def operation_draws(keys: Keys, operations: int) -> NDArray[np.int64]:
    """One of several operations, uniform, and 1 for a negative magnitude: (2, n)."""
    return np.stack([_low(keys, operations), keys >> 63]).astype(np.int64)


def _low(keys: Keys, choices: int | Keys) -> NDArray[Any]:
    """0 to choices - 1, from the lower 32 bits."""
    return ((keys & 0xFFFFFFFF) * choices) >> 32


def _high(keys: Keys, choices: int | Keys) -> NDArray[Any]:
    """0 to choices - 1, from the 31 bits above them."""
    return ((keys >> 32 & 0x7FFFFFFF) * choices) >> 31


def _crosses(centre: Tensor, length: int, side: int) -> Tensor:
    """Whether each line of the image crosses the square (n, length)."""
    return _between(centre - side // 2, side, length)


def _between(first: Tensor, count: Tensor | int, length: int) -> Tensor:
    """Whether each line of the image is one of `count` lines from `first` on (n, length)."""
    lines = torch.arange(length, device=first.device)
    end = first + count
    return (lines >= first.unsqueeze(1)) & (lines < end.unsqueeze(1))
