"""A square of each image, hidden."""

from __future__ import annotations

import torch
from torch import Tensor


def cut_out(pixels: Tensor, row: Tensor, column: Tensor, side: int) -> Tensor:
    """Fill a square with 0 in place: of normalised pixels, with the mean. What lies beyond the border is cut off.

    Args:
        pixels: (n, C, H, W).
        row, column: of the square's centre (n,). Of an even side, it covers one pixel more above and left of it.
        side: of the square, in pixels.

    Source: DeVries & Taylor 2017 Sec. 3.1. Their published code fills after normalising, as here; codes that fill before
    make the square black.
    """
    height, width = pixels.shape[2:]
    hidden = _near(row, height, side).unsqueeze(2) & _near(column, width, side).unsqueeze(1)  # (n, H, W)
    return pixels.masked_fill_(hidden.unsqueeze(1), 0)


def _near(centre: Tensor, length: int, side: int) -> Tensor:
    """Whether a line of the image crosses the square (n, length)."""
    first = (centre - side // 2).unsqueeze(1)
    lines = torch.arange(length, device=centre.device)
    return (lines >= first) & (lines < first + side)
