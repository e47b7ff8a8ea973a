"""Training images that cannot be read: left out where the user wishes it, counted and named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers.utils import logging

logger = logging.get_logger(__name__)

POLICIES = ("raise", "skip")  # what `on_bad_image` may be
NAMED = 5  # so many are named in warnings
_IN_A_ROW = 100  # unreadable images one after another that are no accident


class BadImageError(ValueError):
    """An image that cannot be decoded; the message names its file or row."""


# Beside ours, what PIL raises on damaged files: UnidentifiedImageError is an OSError, broken PNG chunks are SyntaxErrors.
UNREADABLE = (BadImageError, OSError, SyntaxError)


class GoodImages(Dataset[Any]):
    """A data set without the samples whose image cannot be read.

    A batch (`__getitems__`) has fewer samples then, but never none: if all of it is bad, the next good sample takes its
    place. Which samples are left out depends on the files alone, so a resumed run leaves out the same.

    Args:
        dataset: map-style, whose `__getitem__` raises one of `UNREADABLE`.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        # In shared memory, because workers read the images.
        self.bad: torch.Tensor = torch.zeros(len(dataset), dtype=torch.int32).share_memory_()  # (N,) 0 or 1

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """The samples of a batch that can be read."""
        good = [sample for index in indices for sample in self._read(index)]
        return good or [self._next_good(indices[-1])]

    def _read(self, index: int) -> list[Any]:
        """The sample, or nothing."""
        try:
            return [self.dataset[index]]
        except UNREADABLE as error:
            self._note(index, error)
            return []

    def _next_good(self, index: int) -> Any:
        for step in range(1, min(_IN_A_ROW, len(self))):
            for sample in self._read((index + step) % len(self)):
                return sample
        raise ValueError(
            f"No image of a batch and of the {_IN_A_ROW} samples after it can be read (the last one: sample {index}). That "
            "is not a few bad images: check that the folder or drive with the images is there."
        )

    def _note(self, index: int, error: Exception) -> None:
        if not self.bad[index] and int(self.bad.sum()) < NAMED:
            logger.warning(f"Training sample {index} is left out: {error}")
        self.bad[index] = 1
