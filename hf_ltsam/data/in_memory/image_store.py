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

    def cropped(self, lines: Tensor, columns: Tensor, inside_y: Tensor, inside_x: Tensor) -> Tensor:
        """Images (n, H, W, C) put together from the pixels of other places; see `crop_places`.

        Args:
            lines: for each row of each image, where the line that it shows begins among all pixels of all images (n, H).
            columns: for each column of each image, the column that it shows (n, W).
            inside_y, inside_x: 0 where a row or a column is black (n, H), (n, W).
        """
        channels = self.pixels.shape[3]
        places = lines.unsqueeze(2) + columns.unsqueeze(1)  # (n, H, W)
        found = self.pixels.view(-1, channels).index_select(0, places.flatten()).view(*places.shape, channels)
        inside = inside_y.to(torch.uint8).unsqueeze(2) * inside_x.to(torch.uint8).unsqueeze(1)
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
