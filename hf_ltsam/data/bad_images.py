"""Unreadable training images: left out on request, counted and named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers.utils import logging

logger = logging.get_logger(__name__)

POLICIES = ("raise", "skip")  # values of `on_bad_image`
NAMED = 5  # warnings name the first few only
_IN_A_ROW = 100  # this many unreadable images in a row are no accident


def check_policy(policy: str) -> None:
    """Refuse another value of `on_bad_image`.

    Raises:
        ValueError: naming it.
    """
    if policy not in POLICIES:
        raise ValueError(f"LTSamConfig(on_bad_image=...) must be {' or '.join(POLICIES)}, got {policy!r}.")


class BadImageError(ValueError):
    """An image that cannot be decoded; the message names its file or row."""


# PIL raises OSError (UnidentifiedImageError is one) on damaged files, and SyntaxError on broken PNG chunks.
UNREADABLE = (BadImageError, OSError, SyntaxError)


class GoodImages(Dataset[Any]):
    """A data set without the samples whose image cannot be read.

    A batch (`__getitems__`) then has fewer samples, but at least one: if all of them are bad, the next good sample takes
    their place. The files alone decide which samples are left out, so a resumed run leaves out the same ones.

    Args:
        dataset: map-style, whose `__getitem__` raises one of `UNREADABLE`.

    Raises:
        ValueError: while reading, if no image of a batch nor any of the 100 samples after it can be read.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        # in shared memory, because the workers of a `DataLoader` read the images
        self.bad: torch.Tensor = torch.zeros(len(dataset), dtype=torch.int32).share_memory_()  # (N,) 0 or 1

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """The readable samples of a batch."""
        good = [sample for index in indices for sample in self._read(index)]
        return good or [self._next_good(indices[-1])]

    def _read(self, index: int) -> list[Any]:
        """The sample, or an empty list."""
        try:
            return [self.dataset[index]]
        except UNREADABLE as error:
            self._note(index, error)
            return []

    def _next_good(self, index: int) -> Any:
        tries = min(_IN_A_ROW, len(self) - 1)
        for step in range(1, tries + 1):
            for sample in self._read((index + step) % len(self)):
                return sample
        raise ValueError(
            f"No image of a batch and of the {tries} samples after it can be read (the last one: sample {index}). These "
            "are not a few bad images: check that the folder or drive with the images is there."
        )

    def _note(self, index: int, error: Exception) -> None:
        if not self.bad[index] and int(self.bad.sum()) < NAMED:
            logger.warning(f"Training sample {index} is left out: {error}")
        self.bad[index] = 1
