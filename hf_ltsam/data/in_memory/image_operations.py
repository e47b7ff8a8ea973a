"""Operations on uint8 images (k, C, H, W), all of them at once; results as torchvision's for tensors, pixel by pixel."""

from __future__ import annotations

import torch
from torch import Tensor

_GREY = (0.2989, 0.587, 0.114)  # of red, green, blue: torchvision's rounding of ITU-R BT.601


def moved(images: Tensor, sources: Tensor) -> Tensor:
    """Every pixel taken from another place of its image.

    Args:
        sources: row * W + column (k, H * W); -1: from outside, black.
    """
    flat = images.flatten(2)  # (k, C, H * W)
    places = sources.clamp(min=0).unsqueeze(1).expand_as(flat)
    return (flat.gather(2, places) * (sources >= 0).unsqueeze(1)).view(images.shape)


def blended(images: Tensor, other: Tensor, shares: Tensor) -> Tensor:
    """a * image + b * other, cut off at black and white.

    Args:
        other: anything that broadcasts to the images.
        shares: a and b of each image (k, 2), float32.
    """
    a, b = shares.view(-1, 2, 1, 1, 1).unbind(1)
    return (a * images + b * other).clamp(0, 255).to(torch.uint8)


def grey(images: Tensor) -> Tensor:
    """(k, 1, H, W), of one or three channels."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    r, g, b = _GREY
    return (r * red + g * green + b * blue).to(torch.uint8).unsqueeze(1)


def mean_grey(images: Tensor) -> Tensor:
    """(k, 1, 1, 1), float32."""
    return grey(images).float().mean((1, 2, 3), keepdim=True)


def smoothed(images: Tensor) -> Tensor:
    """Each pixel a mean of its neighbourhood of 3 x 3, in which it counts five times; those at the border as they are."""
    if min(images.shape[2:]) <= 2:
        return images
    wide = images.float()  # whole numbers, so that every sum is exact
    rows = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * wide[:, :, 1:-1, 1:-1]
    result = images.clone()
    result[:, :, 1:-1, 1:-1] = (sums / 13).round().to(torch.uint8)
    return result


def autocontrast(images: Tensor) -> Tensor:
    """Each channel stretched from black to white; one of a single level stays."""
    low, high = (extreme.float() for extreme in (images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)))
    flat = low == high
    scale = torch.where(flat, 1.0, 255 / (high - low))
    return ((images - torch.where(flat, 0.0, low)) * scale).clamp(0, 255).to(torch.uint8)


def equalized(images: Tensor) -> Tensor:
    """Each channel's histogram made flat, as PIL does; one of nearly a single level stays."""
    values = images.flatten(2).int()  # (k, C, H * W)
    ordered = values.sort(dim=2).values
    darker = torch.searchsorted(ordered, values)  # how many pixels of the channel are darker than this one
    step = torch.searchsorted(ordered, ordered[..., -1:].contiguous()) // 255  # all but the brightest, over 255
    levels = (darker + step // 2) // step.clamp(min=1)
    return torch.where(step == 0, values, levels.clamp(0, 255)).to(torch.uint8).view(images.shape)
