"""Colour jitter for a batch: each image has its own factors of brightness, contrast and saturation, and its own order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_ltsam.data.in_memory import image_operations as images_of
from hf_ltsam.data.in_memory.augmentation import Keys, integers, uniform
from hf_ltsam.data.in_memory.image_store import on_device
from hf_ltsam.hyperparameters import UNIT_INTERVAL, require

# what brightness, contrast and saturation blend with
_OTHERS: tuple[Callable[[Tensor], Tensor], ...] = (torch.zeros_like, images_of.mean_grey, images_of.grey)
_ORDERS = np.array(list(permutations(range(len(_OTHERS)))))  # (6, 3)


@dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast and saturation, each multiplied by a factor from [1 - strength, 1 + strength], in random order.

    Operations and rounding are those of torchvision's `ColorJitter` for tensors.

    Args:
        strength: in [0, 1].
    """

    strength: float

    def __post_init__(self) -> None:
        require(UNIT_INTERVAL, self, strength=self.strength)

    def draws(self, keys: Sequence[Keys]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The order of the three operations of every image (n, 3), and their factors, by operation (n, 3).

        Args:
            keys: random bits (n,), one for the order and one for each operation.
        """
        order, *factors = keys
        shares = np.stack([uniform(key) for key in factors], axis=1)
        return _ORDERS[integers(order, len(_ORDERS))], 1 + self.strength * (2 * shares - 1)

    def __call__(self, images: Tensor, order: NDArray[np.int64], factors: NDArray[np.float64]) -> Tensor:
        """Apply the drawn operations in place.

        Args:
            images: uint8 (n, C, H, W), C 1 or 3; overwritten.
            order, factors: of the method `draws`, on the host.
        """
        for operations in order.T:
            rows = np.argsort(operations, kind="stable")
            scaled = np.rint(2**20 * factors[rows, operations[rows]]).astype(np.int64)  # one copy of whole numbers
            places, shares = on_device(np.stack([rows, scaled]), images.device)
            counts = np.bincount(operations, minlength=len(_OTHERS)).tolist()
            for other, chosen, share in zip(_OTHERS, places.split(counts), shares.split(counts)):
                if len(chosen):
                    before, f = images.index_select(0, chosen), share.float() / 2**20
                    images.index_copy_(
                        0, chosen, images_of.blended(before, other(before), torch.stack([f, 1 - f], dim=1))
                    )
        return images
