"""Samples that come several times in an epoch: each time with random numbers of its own, as a function of the sequence."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import RandomSampler, Sampler, SequentialSampler

from hf_ltsam.data.keys import random_key

_KEY = 0xA9A1  # key word: what is drawn again shares no random numbers with other samples


class AgainDrawn(int):
    """The index of a sample that the sampler has given before in this epoch.

    Args:
        index: of the sample.
        times_before: how often it was given, at least 1.
    """

    times_before: int

    def __new__(cls, index: int, times_before: int) -> AgainDrawn:
        self = super().__new__(cls, index)
        self.times_before = times_before
        return self

    def __reduce__(self) -> Any:  # on the way to the workers of a loader
        return AgainDrawn, (int(self), self.times_before)


class CountedDraws(Sampler[int]):
    """A sampler, each index that comes again as an `AgainDrawn`.

    Args:
        sampler: any, whose attributes this one has: accelerate sets its generator or epoch.
    """

    _sampler: Any

    def __init__(self, sampler: Any) -> None:
        vars(self)["_sampler"] = sampler

    def __iter__(self) -> Iterator[int]:
        given = Counter[int]()
        for drawn in self._sampler:
            index = operator.index(drawn)  # of a tensor too
            yield AgainDrawn(index, given[index]) if given[index] else index
            given[index] += 1

    def __len__(self) -> int:
        return len(self._sampler)

    def __getattr__(self, name: str) -> Any:
        if name == "_sampler":  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self._sampler, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._sampler, name, value)


def counted(sampler: Any) -> Any:
    """The sampler with its draws counted, but torch's `RandomSampler`, of which accelerate makes one that resumes."""
    left_alone = sampler is None or isinstance(sampler, RandomSampler | SequentialSampler)
    return sampler if left_alone else CountedDraws(sampler)


def as_drawn(position: int, index: int) -> int:
    """The position of a sample in another data set, drawn as often as its index in this one."""
    return AgainDrawn(position, index.times_before) if isinstance(index, AgainDrawn) else position


def sample_word(position: int, index: int) -> int:
    """What stands for a sample in the key of its random numbers: its position, or another word where it comes again."""
    return int(random_key(position, _KEY, index.times_before)) if isinstance(index, AgainDrawn) else position


def sample_words(positions: NDArray[np.int64], indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint64]:
    """The same for the samples of a batch (n,)."""
    words = positions.astype(np.uint64)
    if not isinstance(indices, np.ndarray):
        for place, index in enumerate(indices):
            if isinstance(index, AgainDrawn):
                words[place] = sample_word(int(positions[place]), index)
    return words
