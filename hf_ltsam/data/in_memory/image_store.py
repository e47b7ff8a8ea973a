"""Images and labels on one device, and the batches made from them without waiting for the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class ImageStore:
    """Images, labels and normalisation of a data set, on one device.

    Args:
        pixels: uint8 (N, H, W, C), with the channels of a pixel side by side, so that one read takes all of them.
        labels: class indices (N,), int64.
        mean, std: float32 (C, 1, 1), of pixels in [0, 1].
        white: float32 (), 255. A tensor, because some devices divide by a number by multiplying with its rounded inverse.
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
        """The store on a device; tensors already there are not copied."""
        return ImageStore(*(t.to(device) for t in (self.pixels, self.labels, self.mean, self.std, self.white)))

    def taken(self, rows: Tensor) -> Tensor:
        """The images (n, H, W, C) at the given positions (n,)."""
        return self.pixels.index_select(0, rows)

    def cropped(self, lines: Tensor, columns: Tensor, inside_y: Tensor, inside_x: Tensor) -> Tensor:
        """Crops (n, H, W, C), mirrored or not, black outside of the image; see `crop_places`.

        Args:
            lines: source of each row of each crop: the position of its first pixel among the pixels of all images (n, H).
            columns: source of each column of each crop (n, W).
            inside_y, inside_x: 0 for black rows and columns (n, H), (n, W).
        """
        channels = self.pixels.shape[3]
        places = lines.unsqueeze(2) + columns.unsqueeze(1)  # (n, H, W)
        crops = self.pixels.view(-1, channels).index_select(0, places.flatten()).view(*places.shape, channels)
        inside = inside_y.to(torch.uint8).unsqueeze(2) * inside_x.to(torch.uint8).unsqueeze(1)
        return crops.mul_(inside.unsqueeze(3))

    def normalised(self, images: Tensor, memory_format: torch.memory_format) -> Tensor:
        """uint8 (n, H, W, C) -> float32 (n, C, H, W): (x / 255 - mean) / std.

        Three operations, each rounded, give torchvision's result bit for bit; one factor and one offset would not.
        """
        pixels = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=memory_format)
        return pixels.div_(self.white).sub_(self.mean).div_(self.std)


def on_device(numbers: NDArray[np.int64], device: torch.device) -> Tensor:
    """Numbers of the host as a tensor on the device, without waiting for it."""
    tensor = torch.from_numpy(numbers)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
