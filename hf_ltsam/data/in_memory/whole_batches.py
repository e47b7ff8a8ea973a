"""In-memory images for a DataLoader whose batches come as a whole, from the device that trains."""

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


class WholeBatches(Dataset[Any]):
    """A data set whose `__getitems__` gives a batch and no list of samples; `as_made` is its collator.

    It has no `set_epoch`: loaders call that at every start, those of an evaluation with 0, and the source may be shared with
    the training. The trainer tells the source its epoch.

    Args:
        source: whose settings and epoch hold at every batch.
        rows: of the source that this data set shows, in this order (N,); None: all.
        store: the images on the device where batches are made.
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
        chosen = indices if self.rows is None else self.rows[np.asarray(indices)]
        return self.source.batch(chosen, self.store, self.memory_format)


def as_made(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The collator of whole batches."""
    return batch


def in_memory_part(dataset: Any) -> tuple[InMemoryImages, NDArray[np.int64] | None] | None:
    """The in-memory images that a data set shows, and which of them; None: it shows something else.

    Seen through torch's `Subset`, and through `KeyedRandomness`, which changes nothing where samples key their own. Classes
    that are derived from these may give other samples.
    """
    if type(dataset) is InMemoryImages:
        return dataset, None
    if isinstance(dataset, KeyedRandomness):
        return in_memory_part(dataset.dataset)
    if type(dataset) is Subset:
        inner = in_memory_part(dataset.dataset)
        if inner is not None:
            source, rows = inner
            chosen = np.asarray(dataset.indices, dtype=np.int64)
            return source, chosen if rows is None else rows[chosen]
    return None
