"""Resumable random transforms: the random numbers of a sample are a function of (seed, epoch, index)."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset

from hf_ltsam.data.keys import random_key
from hf_ltsam.data.random_states import seeded
from hf_ltsam.data.sampling.repeated_draws import AgainDrawn, as_drawn, sample_word


class KeyedDataset(Dataset[Any], ABC):
    """A map-style data set whose random numbers are a function of (seed, epoch, index). The trainer calls `set_epoch`.

    An index that comes again in an epoch is an `AgainDrawn`, by which a sample is augmented anew.

    Args:
        seed: any integer.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        # in shared memory, so that persistent workers see a new epoch too
        self._epoch: torch.Tensor = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch. Call it before the iterator of the epoch is created: from then on workers read ahead."""
        self._epoch.fill_(epoch)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Any: ...


class KeyedRandomness(KeyedDataset):
    """Any map-style data set, with its random numbers keyed by (seed, epoch, index).

    The stock Trainer cannot resume random transforms in mid-epoch: accelerate reads one batch ahead, and the state of
    the generators is saved after that. Here torch's CPU generator, numpy's global one and Python's `random` are seeded
    for each sample and restored afterwards. CUDA's generators, and private generators of a transform, are left alone.

    Samples are read one by one: `__getitems__` of the data set is not called.

    Args:
        dataset: map-style: `__getitem__` and `__len__`.
        seed: any integer.

    Raises:
        TypeError: a data set that is not map-style.

    Cost: about 0.1 ms per sample, nearly all of it for numpy reading and writing its global state.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        if not is_map_style(dataset):
            raise TypeError(
                f"KeyedRandomness needs a map-style data set (`__getitem__` and `__len__`), got a "
                f"{type(dataset).__name__}. A stream has no index to key its random numbers by."
            )
        super().__init__(seed)
        self.dataset = dataset

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        for inner in _keyed_inside(self.dataset):
            inner.set_epoch(epoch)
        if hasattr(self.dataset, "set_epoch"):  # accelerate's convention
            self.dataset.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        plain = operator.index(index)
        position = plain + len(self) if plain < 0 else plain  # sample -1 is sample N-1, with the same random numbers
        again = isinstance(index, AgainDrawn)
        with seeded(random_key(self.seed, self.epoch, sample_word(position, index))):
            try:
                return _sample(self.dataset, as_drawn(position, index)) if again else self.dataset[plain]
            except Exception as error:
                error.add_note(f"This was sample {position} of the training set.")
                raise


def keyed(dataset: Any, seed: int) -> KeyedDataset:
    """The data set itself if it keys its random numbers, otherwise wrapped in `KeyedRandomness`."""
    return dataset if isinstance(dataset, KeyedDataset) else KeyedRandomness(dataset, seed)


def is_map_style(dataset: Any) -> bool:
    """Whether its class has `__getitem__` and `__len__`, and it is no stream."""
    return {"__getitem__", "__len__"} <= set(dir(type(dataset))) and not isinstance(dataset, IterableDataset)


def _sample(dataset: Any, index: int) -> Any:
    """A sample that is drawn again, of which the keyed data sets inside torch's `Subset` and `ConcatDataset` are told."""
    if type(dataset) is Subset:
        return _sample(dataset.dataset, as_drawn(operator.index(dataset.indices[index]), index))
    if type(dataset) is ConcatDataset:
        part = bisect_right(dataset.cumulative_sizes, index)
        start = dataset.cumulative_sizes[part - 1] if part else 0
        return _sample(dataset.datasets[part], as_drawn(index - start, index))
    return dataset[index if isinstance(dataset, KeyedDataset) else int(index)]


def _keyed_inside(dataset: Any) -> Iterator[KeyedDataset]:
    """The keyed data sets inside torch's `Subset` and `ConcatDataset`."""
    if isinstance(dataset, KeyedDataset):
        yield dataset
    elif isinstance(dataset, Subset):
        yield from _keyed_inside(dataset.dataset)
    elif isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            yield from _keyed_inside(part)
