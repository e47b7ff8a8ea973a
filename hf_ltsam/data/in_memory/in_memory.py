"""Small images, decoded once: random crop, flip and normalisation of a whole batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_ltsam.data.in_memory.augmentation_checks import check_augmentation, check_images
from hf_ltsam.data.in_memory.augmentation_draws import crop_draws, crop_places, square_centres
from hf_ltsam.data.in_memory.cutout import cut_out
from hf_ltsam.data.in_memory.image_store import ImageStore, on_device
from hf_ltsam.data.in_memory.randaugment import RandAugment
from hf_ltsam.data.keyed_randomness import KeyedDataset
from hf_ltsam.data.keys import random_key

# Mean and standard deviation per channel. The published long-tail codes (LDAM-DRW and, after it, Rangwani et al. 2022
# and Li et al. 2025) normalise CIFAR-100 with CIFAR-10's values too; the deviations are means of those of single images.
# `normalisation` gives the training set's own values.
_LDAM_DRW = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
CUSTOMARY_NORMALISATION = {"cifar10": _LDAM_DRW, "cifar100": _LDAM_DRW}
_CUTOUT, _RANDAUGMENT = 0xC07, 0x4A2D  # so that they share no random numbers with the crops


class InMemoryImages(KeyedDataset):
    """Images held as uint8, augmented and normalised in batches; random numbers keyed by (seed, epoch, index).

    A sample is `{"pixel_values": float32 (C, H, W), "labels": int}`. `batch` makes a whole batch with a few array
    operations, where the images are or on another device; `LTSamTrainer` keeps a copy of them on the device that it trains
    on and calls it there. `__getitems__`, which a `DataLoader` prefers, and `__getitem__` give the same samples one by one.
    A batch takes less time to make than to pass between processes: leave `dataloader_num_workers` at 0.

    In this order: crop and flip, RandAugment, normalisation, cutout.

    Args:
        images: uint8 (N, C, H, W). Kept pixel by pixel (`channels_last`); copied where they come otherwise.
        labels: class indices (N,), integers.
        mean: per channel, of pixels in [0, 1]. Length C.
        std: per channel, positive. Length C.
        augment: all the randomness below; False for evaluation.
        seed: any integer.
        crop_padding: pixels of black added on each side before cropping to (H, W) at a uniformly drawn place.
        flip: whether half of the images are mirrored left to right.
        cutout: side of a square around a uniformly drawn pixel that is filled with the mean; 0: none.
        randaugment: what is drawn for each image between flip and normalisation; None: nothing.
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
        cutout: int = 0,
        randaugment: RandAugment | None = None,
    ) -> None:
        super().__init__(seed)
        labels = torch.as_tensor(labels)
        check_images(images, labels, mean, std)
        check_augmentation(crop_padding, cutout, randaugment, channels=images.shape[1])
        self.labels = labels.long().cpu()
        self.augment = augment
        self.crop_padding = crop_padding
        self.flip = flip
        self.cutout = cutout
        self.randaugment = randaugment
        self._store = ImageStore(
            images.permute(0, 2, 3, 1).contiguous(),
            self.labels,
            _per_channel(mean),
            _per_channel(std),
            torch.tensor(255.0),
        ).to(images.device)

    @property
    def images(self) -> Tensor:
        """uint8 (N, C, H, W)."""
        return self._store.pixels.permute(0, 3, 1, 2)

    @property
    def store(self) -> ImageStore:
        """The images where they are."""
        return self._store

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

        Nothing waits for a device: what is random is drawn on the host, and goes there in small copies.

        Args:
            indices: of the samples (n,).
            store: the images on the device where the batch is made, `dataset.store.to(device)`; None: where they are.
            memory_format: of the pixels.
        """
        store = self._store if store is None else store
        places = self._places(indices)
        if not self.augment:
            rows = on_device(places, store.device)
            return {"pixel_values": store.normalised(store.taken(rows), memory_format), "labels": store.labels[rows]}
        height, width = store.pixels.shape[1:3]
        draws = crop_draws(self._keys(places), self.crop_padding, self.flip)
        numbers = [places[:, None], *crop_places(places, draws, height, width, self.crop_padding)]
        if self.cutout:
            numbers.append(square_centres(self._keys(places, _CUTOUT), height, width).T)
        there = on_device(np.concatenate(numbers, axis=1), store.device).split([a.shape[1] for a in numbers], dim=1)
        images, rows = store.cropped(*there[1:5]), there[0].squeeze(1)
        if self.randaugment is not None:
            keys = [self._keys(places, _RANDAUGMENT, k) for k in range(self.randaugment.operations)]
            self.randaugment(images.permute(0, 3, 1, 2), self.randaugment.draws(keys))
        pixels = store.normalised(images, memory_format)
        if self.cutout:
            row, column = there[5].unbind(1)
            cut_out(pixels, row, column, self.cutout)
        return {"pixel_values": pixels, "labels": store.labels[rows]}

    def _keys(self, places: NDArray[np.int64], *words: int) -> NDArray[np.uint64]:
        keys: NDArray[np.uint64] = random_key(self.seed, self.epoch, places.astype(np.uint64), *words)
        return keys

    def _places(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """0 to N - 1: sample -1 is sample N - 1."""
        places = np.asarray(indices, dtype=np.int64)
        if len(places) and not -len(self) <= places.min() <= places.max() < len(self):
            raise IndexError(
                f"A sample of {len(self)} was asked for that does not exist: {places.min()} to {places.max()}."
            )
        return places % len(self) if len(self) else places


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


def _per_channel(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
