"""Small images, decoded once: random crop, flip and normalisation of a whole batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_ltsam.data.keyed_randomness import KeyedDataset
from hf_ltsam.data.keys import random_key

# Mean and standard deviation per channel. The published long-tail codes (LDAM-DRW and, after it, Rangwani et al. 2022
# and Li et al. 2025) normalise CIFAR-100 with CIFAR-10's values too; the deviations are means of those of single images.
# `normalisation` gives the training set's own values.
_LDAM_DRW = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
CUSTOMARY_NORMALISATION = {"cifar10": _LDAM_DRW, "cifar100": _LDAM_DRW}


class InMemoryImages(KeyedDataset):
    """Images held as uint8, augmented and normalised in batches; random numbers keyed by (seed, epoch, index).

    A sample is `{"pixel_values": float32 (C, H, W), "labels": int}`. `__getitems__`, which a `DataLoader` prefers,
    makes a whole batch with a few array operations; `__getitem__` gives the same tensors one by one. A batch takes
    less time to make than to pass between processes: leave `dataloader_num_workers` at 0.

    Args:
        images: uint8 (N, C, H, W).
        labels: class indices (N,), integers.
        mean: per channel, of pixels in [0, 1]. Length C.
        std: per channel, positive. Length C.
        augment: random crop and flip before normalising; False for evaluation.
        seed: any integer.
        crop_padding: pixels of black added on each side before cropping to (H, W) at a uniformly drawn place.
        flip: whether half of the images are mirrored left to right.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Sequence[int] | Tensor,
        mean: Sequence[float],
        std: Sequence[float],
        augment: bool,
        seed: int = 0,
        crop_padding: int = 4,
        flip: bool = True,
    ) -> None:
        super().__init__(seed)
        labels = torch.as_tensor(labels)
        _check(images, labels, mean, std, crop_padding)
        self.images = images
        self.labels = labels.long()
        self.augment = augment
        self.crop_padding = crop_padding
        self.flip = flip
        self._mean = torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1)
        self._std = torch.tensor(std, dtype=torch.float32).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """One sample per index, as views into one batch."""
        rows = torch.as_tensor(indices, dtype=torch.long)
        images = self.images[rows]                                                   # (n, C, H, W)
        if self.augment:
            positions = rows.remainder(len(self)).numpy().astype(np.uint64)          # sample -1 is sample N-1
            keys = random_key(self.seed, self.epoch, positions)
            images = torch.from_numpy(crop_and_flip(images.numpy(), keys, self.crop_padding, self.flip))
        # x / 255, minus mean, over std, each rounded: torchvision's result to the last bit, which one factor and one
        # offset per channel would not give
        pixels = images.float().div_(255).sub_(self._mean).div_(self._std)
        labels = self.labels[rows].tolist()
        return [{"pixel_values": image, "labels": label} for image, label in zip(pixels, labels)]


def crop_and_flip(
    images: NDArray[np.uint8], keys: NDArray[np.uint64], padding: int, flip: bool
) -> NDArray[np.uint8]:
    """Pad with zeros, crop back to the same size at a random place, mirror every other image.

    Args:
        images: (n, C, H, W).
        keys: 64 random bits per image (n,): 32 choose the row, 31 the column, one the mirror image.
        padding: p; row and column offsets are uniform on 0 to 2p.
        flip: whether to mirror at all.
    """
    n, _, height, width = images.shape
    padded = np.pad(images, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    places = 2 * padding + 1
    top = ((keys & 0xFFFFFFFF) * places) >> 32
    left = ((keys >> 32 & 0x7FFFFFFF) * places) >> 31
    crops = windows[np.arange(n), :, top.astype(np.intp), left.astype(np.intp)]      # (n, C, H, W), a copy
    if flip:
        mirrored = (keys >> 63).astype(bool)
        crops[mirrored] = crops[mirrored, ..., ::-1]
    return crops


def normalisation(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of pixels in [0, 1], over all images, exact in float64.

    Args:
        images: uint8 (N, C, H, W), the training images.

    Raises:
        ValueError: a channel has the same value everywhere.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(images.shape[1]):
        counts = torch.bincount(images[:, channel].flatten(), minlength=256).double()
        mean = (counts @ levels) / counts.sum()
        variance = (counts @ (levels - mean).square()) / counts.sum()
        if variance == 0:
            level = int(images[0, channel, 0, 0])
            raise ValueError(f"All pixels of channel {channel} are {level}: there is nothing to normalise.")
        means.append(float(mean))
        stds.append(float(variance.sqrt()))
    return tuple(means), tuple(stds)


def _check(images: Tensor, labels: Tensor, mean: Sequence[float], std: Sequence[float], crop_padding: int) -> None:
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
    if crop_padding < 0:
        raise ValueError(f"`InMemoryImages(crop_padding=...)` must be non-negative, got {crop_padding}.")
