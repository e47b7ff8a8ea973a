"""Small images, decoded once: random crop, flip and normalisation of a whole batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_ltsam.data.in_memory.augmentation import (
    crop_draws,
    crop_places,
    cut_out,
    erase,
    erasing_draws,
    square_centres,
    within,
)
from hf_ltsam.data.in_memory.color_jitter import ColorJitter
from hf_ltsam.data.in_memory.image_store import ImageStore, on_device
from hf_ltsam.data.in_memory.randaugment import RandAugment
from hf_ltsam.data.keyed_randomness import KeyedDataset
from hf_ltsam.data.keys import random_key
from hf_ltsam.data.sampling.repeated_draws import sample_words
from hf_ltsam.hyperparameters import UNIT_INTERVAL, require

# Mean and standard deviation per channel. The published long-tail codes (LDAM-DRW and, after it, Rangwani et al. 2022
# and Li et al. 2025) normalise CIFAR-100 with CIFAR-10's values too; their deviations are averages over single images.
# `normalisation` computes the values of a training set.
_LDAM_DRW = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
CUSTOMARY_NORMALISATION = {"cifar10": _LDAM_DRW, "cifar100": _LDAM_DRW}
_CUTOUT, _RANDAUGMENT, _JITTER, _ERASING = (
    0xC07,
    0x4A2D,
    0xC01,
    0xE4A,
)  # key words: no random numbers shared with the crops
_TRIES = 10  # of a rectangle to erase, as in torchvision


class InMemoryImages(KeyedDataset):
    """Images held as uint8, augmented and normalised in batches; random numbers keyed by (seed, epoch, index).

    A sample is `{"pixel_values": float32 (C, H, W), "labels": int}`. `batch` makes a whole batch with a few array
    operations, on the device of the images or on another one; `LTSamTrainer` keeps a copy of the images on its device and
    makes batches there. `__getitems__`, which a `DataLoader` prefers, and `__getitem__` give the same samples one by one.
    A batch takes less time to make than to pass between processes: leave `dataloader_num_workers` at 0.

    The order: crop and flip, colour jitter, RandAugment, normalisation, cutout, random erasing.

    Args:
        images: uint8 (N, C, H, W). Stored in `channels_last` order; copied if they come in another.
        labels: class indices (N,), integers.
        mean: per channel, of pixels in [0, 1]. Length C.
        std: per channel, positive. Length C.
        augment: False switches all the randomness below off, for evaluation.
        seed: any integer.
        crop_padding: pixels of black added on each side before cropping to (H, W) at a uniformly drawn place; None: an
            eighth of the shorter side, the 4 of 32 that the papers have.
        flip: whether half of the images are mirrored left to right.
        cutout: side in pixels of a square around a uniformly drawn pixel, filled with the mean; 0: none.
        randaugment: operations between flip and normalisation; None: none.
        color_jitter: c in [0, 1]: brightness, contrast and saturation times factors from [1 - c, 1 + c]; 0: none.
        random_erasing: probability in [0, 1] that a rectangle is filled with the mean (`erasing_draws`); 0: none.

    Raises:
        ValueError: types, shapes, lengths or values that do not fit.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Sequence[int] | Tensor,
        mean: Sequence[float],
        std: Sequence[float],
        augment: bool,
        seed: int = 0,
        crop_padding: int | None = None,
        flip: bool = True,
        cutout: int = 0,
        randaugment: RandAugment | None = None,
        color_jitter: float = 0.0,
        random_erasing: float = 0.0,
    ) -> None:
        super().__init__(seed)
        labels = torch.as_tensor(labels)
        _check_images(images, labels, mean, std)
        side = min(images.shape[2:])
        crop_padding = side // 8 if crop_padding is None else crop_padding
        require(within(side), "InMemoryImages", crop_padding=crop_padding, cutout=cutout)
        _check_channels(randaugment, color_jitter, channels=images.shape[1])
        require(UNIT_INTERVAL, "InMemoryImages", color_jitter=color_jitter, random_erasing=random_erasing)
        self.labels = labels.long().cpu()
        self.augment = augment
        self.crop_padding = crop_padding
        self.flip = flip
        self.cutout = cutout
        self.randaugment = randaugment
        self.color_jitter = color_jitter
        self.random_erasing = random_erasing
        self.store = ImageStore(  # on the device of the images
            images.permute(0, 2, 3, 1).contiguous(),
            self.labels,
            _per_channel(mean),
            _per_channel(std),
            torch.tensor(255.0),
        ).to(images.device)

    @property
    def images(self) -> Tensor:
        """uint8 (N, C, H, W)."""
        return self.store.pixels.permute(0, 3, 1, 2)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """One sample per index, as views into one batch."""
        batch = self.batch(indices)
        labels = self.labels[list(indices)].tolist()
        return [{"pixel_values": image, "labels": label} for image, label in zip(batch["pixel_values"], labels)]

    def batch(
        self,
        indices: Sequence[int] | NDArray[np.int64],
        store: ImageStore | None = None,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> dict[str, Tensor]:
        """A whole batch: `{"pixel_values": float32 (n, C, H, W), "labels": int64 (n,)}`.

        Nothing waits for a device: random numbers are drawn on the host and copied to it.

        Args:
            indices: of the samples (n,).
            store: the images on the device that makes the batch, `dataset.store.to(device)`; None: `dataset.store`.
            memory_format: of the pixels.

        Raises:
            IndexError: an index outside [-N, N).
        """
        store = self.store if store is None else store
        places = self._places(indices)
        if not self.augment:
            rows = on_device(places, store.device)
            return {"pixel_values": store.normalised(store.taken(rows), memory_format), "labels": store.labels[rows]}
        height, width = store.pixels.shape[1:3]
        samples = sample_words(places, indices)
        draws = crop_draws(self._keys(samples), self.crop_padding, self.flip)
        numbers = [places[:, None], *crop_places(places, draws, height, width, self.crop_padding)]
        if self.cutout:
            numbers.append(square_centres(self._keys(samples, _CUTOUT), height, width).T)
        if self.random_erasing:
            keys = [self._keys(samples, _ERASING, k) for k in range(1 + 3 * _TRIES)]
            numbers.append(erasing_draws(keys, self.random_erasing, height, width).T)
        tensors = on_device(np.concatenate(numbers, axis=1), store.device).split([a.shape[1] for a in numbers], dim=1)
        images, rows = store.cropped(*tensors[1:5]), tensors[0].squeeze(1)
        if self.color_jitter:
            jitter = ColorJitter(self.color_jitter)
            jitter(images.permute(0, 3, 1, 2), *jitter.draws([self._keys(samples, _JITTER, k) for k in range(4)]))
        if self.randaugment is not None:
            keys = [self._keys(samples, _RANDAUGMENT, k) for k in range(self.randaugment.operations)]
            self.randaugment(images.permute(0, 3, 1, 2), self.randaugment.draws(keys))
        pixels = store.normalised(images, memory_format)
        if self.cutout:
            row, column = tensors[5].unbind(1)
            cut_out(pixels, row, column, self.cutout)
        if self.random_erasing:
            erase(pixels, *tensors[-1].unbind(1))
        return {"pixel_values": pixels, "labels": store.labels[rows]}

    def _keys(self, samples: NDArray[np.uint64], *words: int) -> NDArray[np.uint64]:
        keys: NDArray[np.uint64] = random_key(self.seed, self.epoch, samples, *words)
        return keys

    def _places(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Indices as positions from 0 to N - 1: sample -1 is sample N - 1."""
        places = np.asarray(indices, dtype=np.int64)
        if len(places) and not -len(self) <= places.min() <= places.max() < len(self):
            raise IndexError(
                f"Sample indices from {places.min()} to {places.max()} do not fit a data set of {len(self)} samples."
            )
        return places % len(self) if len(self) else places


def normalisation(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of pixels in [0, 1], over all images, computed in float64.

    Args:
        images: uint8 (N, C, H, W), the training images.

    Raises:
        ValueError: all pixels of a channel are equal.
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


def _check_images(images: Tensor, labels: Tensor, mean: Sequence[float], std: Sequence[float]) -> None:
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


def _check_channels(randaugment: RandAugment | None, color_jitter: float, channels: int) -> None:
    for name, wanted in (("randaugment", randaugment is not None), ("color_jitter", bool(color_jitter))):
        if wanted and channels not in (1, 3):
            raise ValueError(
                f"`InMemoryImages({name}=...)` needs images of one or three channels, these have {channels}: leave it out."
            )


def _per_channel(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
