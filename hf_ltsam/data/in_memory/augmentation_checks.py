"""What `InMemoryImages` refuses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hf_ltsam.data.in_memory.randaugment import RandAugment


def check_images(images: Tensor, labels: Tensor, mean: Sequence[float], std: Sequence[float]) -> None:
    """Types, shapes and lengths."""
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(
            "`InMemoryImages(images=...)` must be uint8 of shape (N, C, H, W), "
            f"got {images.dtype} of shape {tuple(images.shape)}."
        )
    if labels.ndim != 1 or labels.is_floating_point():
        raise ValueError(
            f"`InMemoryImages(labels=...)` must be integers (N,), got {labels.dtype} of shape {tuple(labels.shape)}."
        )
    if len(labels) != len(images):
        raise ValueError(f"`InMemoryImages(labels=...)`: {len(labels)} labels for {len(images)} images.")
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != images.shape[1]:
            raise ValueError(
                f"`InMemoryImages({name}=...)` needs a value for each of {images.shape[1]} channels, got {len(values)}."
            )
    if min(std) <= 0:
        raise ValueError(f"`InMemoryImages(std=...)` must be positive, got {tuple(std)}.")


def check_augmentation(crop_padding: int, cutout: int, randaugment: RandAugment | None, channels: int) -> None:
    """Values, and what goes with images of one or three channels only."""
    for name, value in (("crop_padding", crop_padding), ("cutout", cutout)):
        if value < 0:
            raise ValueError(f"`InMemoryImages({name}=...)` must be non-negative, got {value}.")
    if randaugment is not None and channels not in (1, 3):
        raise ValueError(
            f"`InMemoryImages(randaugment=...)` needs images of one or three channels, these have {channels}: leave it out."
        )
