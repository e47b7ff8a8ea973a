"""Images and labels on one device, and how a batch is taken out of them there, without waiting for the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class ImageStore:
    """What a batch is made from.

    Args:
        pixels: uint8 (N, H, W, C), so that a pixel is taken with all its channels at once.
        labels: class indices (N,), int64.
        mean, std: float32 (C, 1, 1), of pixels in [0, 1].
        white: float32 (), 255. A tensor, since dividing by a number multiplies by its rounded inverse on some devices.
    """

    pixels: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor
    white: Tensor

    @property
    def device(self) -> torch.device:
        return self.pixels.device

    def to(self, device: torch.device | str) -> ImageStore:
        """The store on a device; what is there already is not copied."""
        return ImageStore(*(t.to(device) for t in (self.pixels, self.labels, self.mean, self.std, self.white)))

    def taken(self, rows: Tensor) -> Tensor:
        """The images (n, H, W, C) at some places (n,)."""
        return self.pixels.index_select(0, rows)

    def cropped(self, rows: Tensor, top: Tensor, left: Tensor, mirrored: Tensor, padding: int) -> Tensor:
        """The images (n, H, W, C) at some places, padded with black, cropped back to their size, mirrored left to right.

        Args:
            rows: places (n,).
            top, left: where the crop begins in the padded image, 0 to 2 * padding (n,).
            mirrored: 0 or 1 (n,).
            padding: pixels on each side.
        """
        _, height, width, channels = self.pixels.shape
        columns = torch.arange(width, device=self.device)
        y = (top - padding).unsqueeze(1) + torch.arange(height, device=self.device)                         # (n, H)
        x = (left - padding).unsqueeze(1) + torch.where(mirrored.bool().unsqueeze(1), width - 1 - columns, columns)
        inside = ((y >= 0) & (y < height)).unsqueeze(2) & ((x >= 0) & (x < width)).unsqueeze(1)             # (n, H, W)
        lines = rows.unsqueeze(1) * height + y.clamp(0, height - 1)
        places = (lines * width).unsqueeze(2) + x.clamp(0, width - 1).unsqueeze(1)                          # (n, H, W)
        found = self.pixels.view(-1, channels).index_select(0, places.flatten()).view(*places.shape, channels)
        return found.mul_(inside.unsqueeze(3))

    def normalised(self, images: Tensor, memory_format: torch.memory_format) -> Tensor:
        """uint8 (n, H, W, C) -> float32 (n, C, H, W): x / 255, minus mean, over std.

        Each is rounded, which is torchvision's result to the last bit; one factor and one offset per channel would not be.
        """
        pixels = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=memory_format)
        return pixels.div_(self.white).sub_(self.mean).div_(self.std)


def on_device(numbers: NDArray[np.int64], device: torch.device) -> Tensor:
    """Numbers of the host, without waiting for the device."""
    here = torch.from_numpy(numbers)
    return here.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else here.to(device)
