"""RandAugment's operations on a batch of uint8 images (k, C, H, W); each result equals torchvision's for tensors."""

from __future__ import annotations

import torch
from torch import Tensor

_GREY = (0.2989, 0.587, 0.114)  # of red, green, blue: torchvision's rounding of ITU-R BT.601


def moved(images: Tensor, sources: Tensor) -> Tensor:
    """Every pixel replaced by another one of its image.

    Args:
        sources: row * W + column of the new pixel (k, H * W); -1: outside of the image, black.
    """
    flat = images.flatten(2)  # (k, C, H * W)
    places = sources.clamp(min=0).unsqueeze(1).expand_as(flat)
    return (flat.gather(2, places) * (sources >= 0).unsqueeze(1)).view(images.shape)


def blended(images: Tensor, other: Tensor, shares: Tensor) -> Tensor:
    """a * image + b * other, clipped to [0, 255].

    Args:
        other: anything that broadcasts to the images.
        shares: a and b of each image (k, 2), float32.
    """
    a, b = shares.view(-1, 2, 1, 1, 1).unbind(1)
    return (a * images + b * other).clamp(0, 255).to(torch.uint8)


def grey(images: Tensor) -> Tensor:
    """Grey levels (k, 1, H, W) of images with one or three channels."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    r, g, b = _GREY
    return (r * red + g * green + b * blue).to(torch.uint8).unsqueeze(1)


def mean_grey(images: Tensor) -> Tensor:
    """Mean grey level of each image (k, 1, 1, 1), float32."""
    return grey(images).float().mean((1, 2, 3), keepdim=True)


def smoothed(images: Tensor) -> Tensor:
    """The mean of 3 x 3 pixels, in which the one in the middle counts five times; pixels at the border stay."""
    if min(images.shape[2:]) <= 2:
        return images
    wide = images.float()  # whole numbers, so that every sum is exact
    rows = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * wide[:, :, 1:-1, 1:-1]
    result = images.clone()
    result[:, :, 1:-1, 1:-1] = (sums / 13).round().to(torch.uint8)
    return result


def autocontrast(images: Tensor) -> Tensor:
    """Each channel stretched from black to white; a channel with a single level stays."""
    low, high = (extreme.float() for extreme in (images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)))
    flat = low == high
    scale = torch.where(flat, 1.0, 255 / (high - low))
    return ((images - torch.where(flat, 0.0, low)) * scale).clamp(0, 255).to(torch.uint8)


def equalized(images: Tensor) -> Tensor:
    """Each channel with a flat histogram, as PIL computes it; a channel with nearly a single level stays."""
    values = images.flatten(2).int()  # (k, C, H * W)
    ordered = values.sort(dim=2).values
    darker = torch.searchsorted(ordered, values)  # number of darker pixels in the channel
    step = torch.searchsorted(ordered, ordered[..., -1:].contiguous()) // 255  # all pixels but the brightest, over 255
    levels = (darker + step // 2) // step.clamp(min=1)
    return torch.where(step == 0, values, levels.clamp(0, 255)).to(torch.uint8).view(images.shape)
