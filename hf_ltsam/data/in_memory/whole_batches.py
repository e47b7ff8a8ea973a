"""Whole batches of in-memory images for a `DataLoader`, made on the device of the training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Subset

from hf_ltsam.data.in_memory.image_store import ImageStore
from hf_ltsam.data.in_memory.images import InMemoryImages
from hf_ltsam.data.keyed_randomness import KeyedRandomness
from hf_ltsam.data.sampling.repeated_draws import as_drawn


class WholeBatches(Dataset[Any]):
    """A data set whose `__getitems__` gives a batch instead of a list of samples; `as_made` is its collator.

    It has no `set_epoch`: a loader calls that whenever it starts, an evaluation's loader with 0, and the training may share
    the source. The trainer sets the epoch of the source.

    Args:
        source: its settings and epoch apply to every batch.
        rows: of the source, in the order of this data set (N,); None: all.
        store: the images on the device that makes the batches.
        memory_format: of the pixels.
    """

    def __init__(
        self,
        source: InMemoryImages,
        rows: NDArray[np.int64] | None,
        store: ImageStore,
        memory_format: torch.memory_format,
    ) -> None:
        self.source, self.rows, self.store, self.memory_format = source, rows, store, memory_format

    def __len__(self) -> int:
        return len(self.source) if self.rows is None else len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: values[0] for name, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        if self.rows is not None:
            rows = self.rows[np.asarray(indices)].tolist()
            indices = [as_drawn(row, index) for row, index in zip(rows, indices)]
        return self.source.batch(indices, self.store, self.memory_format)


def as_made(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The collator of whole batches."""
    return batch


def in_memory_part(dataset: Any) -> tuple[InMemoryImages, NDArray[np.int64] | None] | None:
    """The in-memory images of a data set and its rows of them (N,); None for any other data set.

    Looks through torch's `Subset`, and through `KeyedRandomness`, which changes nothing for samples with their own keys.
    Subclasses of these do not count, since they may give other samples.
    """
    if type(dataset) is InMemoryImages:
        return dataset, None
    if isinstance(dataset, KeyedRandomness):
        return in_memory_part(dataset.dataset)
    if type(dataset) is Subset:
        inner = in_memory_part(dataset.dataset)
        if inner is not None:
            source, rows = inner
            indices = np.asarray(dataset.indices, dtype=np.int64)
            return source, indices if rows is None else rows[indices]
    return None
