"""The images of a test set as a model sees them, corrupted on the way where that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from PIL import Image
from torch import Tensor

from dataset_builders.corruptions import corrupt
from dataset_builders.corruptions.transform import as_in_imagenet_c
from hf_ltsam.data.decoding import decode_image
from hf_ltsam.data.keys import random_key
from hf_ltsam.data.preprocessing import Preprocessing

LARGE = 224  # pixels; of the images of ImageNet-C: Hendrycks & Dietterich 2019


@dataclass(frozen=True)
class Corruption:
    """Which corruption of an image.

    Args:
        name: of `dataset_builders.corruptions`.
        severity: 1 to 5.
        seed: with the row of the image it keys the random numbers.
    """

    name: str
    severity: int
    seed: int = 0

    def __call__(self, image: Image.Image, row: int) -> Image.Image:
        pixels = corrupt(np.asarray(image.convert("RGB")), self.name, self.severity, random_key(self.seed, row))
        return Image.fromarray(pixels)


@dataclass(frozen=True)
class TestImages:
    """Sample i is the views (V, channels, height, width) of one image.

    Large images are brought to 224 pixels before they are corrupted, as those of ImageNet-C were; so were stored ones.
    Such images are not scaled again for a model that sees 224 pixels. Small images are corrupted as they are.

    Args:
        encoded: one column, "image", not decoded.
        rows: those that count, in this order.
        see: the model's preprocessing.
        test_time: a name in `hf_ltsam.data.preprocessing.TEST_TIME`.
        corruption: made here; None: none.
        cropped: whether the images come as ImageNet-C's do, at the size that a model sees.
    """

    __test__ = False  # for pytest, which takes the name for a test

    encoded: Dataset
    rows: Sequence[int]
    see: Preprocessing
    test_time: str = "none"
    corruption: Corruption | None = None
    cropped: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        row = self.rows[index]
        image, cropped = self._decoded(row), self.cropped
        if self.corruption is not None:
            cropped = cropped or min(image.size) > LARGE
            image = self.corruption(large_as_in_imagenet_c(image), row)
        see = self.see.already_cropped() if cropped else self.see
        return see.views(image, self.test_time)

    def _decoded(self, row: int) -> Image.Image:
        return decode_image(self.encoded[row]["image"], row=row, values=self.see.values)


def large_as_in_imagenet_c(image: Image.Image) -> Image.Image:
    """A large image at 224 x 224, a small one as it is."""
    return image if min(image.size) <= LARGE else as_in_imagenet_c(image, LARGE)
