"""RandAugment for a batch: each image draws its own operations, and each operation runs on all its images at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_ltsam.data.in_memory import image_operations as images_of
from hf_ltsam.data.in_memory.augmentation import Keys, operation_draws
from hf_ltsam.data.in_memory.image_store import on_device
from hf_ltsam.hyperparameters import COUNT, require

LARGEST = 30  # magnitudes are 0 to 30, as in Cubuk et al. 2020 and torchvision
_MOVED = ("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate")
_BLENDED: Mapping[str, Callable[[Tensor], Tensor]] = {
    "brightness": torch.zeros_like,
    "color": images_of.grey,
    "contrast": images_of.mean_grey,
    "sharpness": images_of.smoothed,
}
_OTHERS = ("posterize", "solarize", "autocontrast", "equalize")
OPERATIONS = (*_MOVED, *_BLENDED, *_OTHERS)


@dataclass(frozen=True)
class RandAugment:
    """A fixed number of operations in a row, each drawn uniformly from 14, all with one magnitude.

    Shears, translations, rotation, brightness, colour, contrast and sharpness take either sign with equal probability.
    Operations, ranges and rounding are those of torchvision's `RandAugment` for tensors: nearest pixels, black outside.

    Args:
        operations: per image, >= 1.
        magnitude: 0 to 30.

    Source: Cubuk et al. 2020 Sec. 3.
    """

    operations: int = 2
    magnitude: int = 9

    def __post_init__(self) -> None:
        require(COUNT, self, operations=self.operations)
        if not 0 <= self.magnitude <= LARGEST:
            raise ValueError(f"`RandAugment(magnitude=...)` must be in [0, {LARGEST}], got {self.magnitude}.")

    def draws(self, keys: Sequence[Keys]) -> NDArray[np.int64]:
        """Index into `OPERATIONS` and sign (1: negative) of every operation of every image.

        Args:
            keys: for each operation in a row, random bits (n,).

        Returns:
            (operations, 2, n).
        """
        return np.stack([operation_draws(k, len(OPERATIONS)) for k in keys])

    def __call__(self, images: Tensor, draws: NDArray[np.int64]) -> Tensor:
        """Apply the drawn operations in place.

        Args:
            images: uint8 (n, C, H, W), C 1 or 3; overwritten.
            draws: of the method `draws`, on the host (operations, 2, n).
        """
        for operation, negative in draws:
            order = np.argsort(operation, kind="stable")
            rows, signs = on_device(np.stack([order, negative[order]]), images.device)
            counts = np.bincount(operation, minlength=len(OPERATIONS)).tolist()
            for name, chosen, sign in zip(OPERATIONS, rows.split(counts), signs.split(counts)):
                if len(chosen) and name != "identity":
                    images.index_copy_(0, chosen, self._applied(name, images.index_select(0, chosen), sign))
        return images

    def _applied(self, name: str, images: Tensor, negative: Tensor) -> Tensor:
        """One operation on its images (k, C, H, W); negative: 0 or 1 (k,)."""
        if name in _MOVED:
            height, width = images.shape[2:]
            sources = _sources(name, self.magnitude, height, width, images.device)
            return images_of.moved(images, sources.index_select(0, negative))
        if name in _BLENDED:
            other = _BLENDED[name](images)
            shares = _shares(self.magnitude, images.device).index_select(0, negative)
            return images if other is images else images_of.blended(images, other, shares)  # a grey image has no colour
        if name == "posterize":
            return images & (256 - 2 ** round(4 * self.magnitude / LARGEST))
        if name == "solarize":
            return torch.where(images >= 255 - 8.5 * self.magnitude, 255 - images, images)
        return images_of.autocontrast(images) if name == "autocontrast" else images_of.equalized(images)


@lru_cache(maxsize=64)
def _sources(name: str, magnitude: int, height: int, width: int, device: torch.device) -> Tensor:
    """Sources of the pixels (2, H * W), for the positive and the negative magnitude; see `image_operations.moved`."""
    share = magnitude / LARGEST
    return torch.stack([_source(name, sign * share, height, width) for sign in (1, -1)]).to(device)


def _source(name: str, share: float, height: int, width: int) -> Tensor:
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) + 0.5 for n in (height, width)), indexing="ij")
    if name == "shear_x":
        x = x + 0.3 * share * y
    elif name == "shear_y":
        y = y + 0.3 * share * x
    elif name == "translate_x":
        x = x - int(150 / 331 * width * share)
    elif name == "translate_y":
        y = y - int(150 / 331 * height * share)
    else:
        angle, u, v = math.radians(30 * share), x - width / 2, y - height / 2
        x = math.cos(angle) * u - math.sin(angle) * v + width / 2
        y = math.sin(angle) * u + math.cos(angle) * v + height / 2
    column, row = x.floor().long(), y.floor().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return torch.where(inside, row * width + column, -1).flatten()


@lru_cache(maxsize=64)
def _shares(magnitude: int, device: torch.device) -> Tensor:
    """Shares of the image and of its blending partner (2, 2), for the positive and the negative magnitude."""
    change = 0.9 * magnitude / LARGEST
    return torch.tensor([[1 + change, -change], [1 - change, change]], dtype=torch.float32, device=device)
