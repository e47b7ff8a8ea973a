"""Micro-batches, which the model sees at once; parts of them, and several as one mini-batch, of several processes too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class MicroBatch:
    """What the model sees at once.

    Args:
        inputs: the keyword arguments of the model, without the labels.
        labels: class indices (b,), or soft ones (b, C).
    """

    inputs: dict[str, Any]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def has_rows(self) -> bool:
        """Whether every input holds one entry per sample, so that some of the samples can be taken."""
        return all(_is_setting(value) or self._is_per_sample(value) for value in self.inputs.values())

    def rows(self, rows: slice | Tensor) -> MicroBatch:
        """Some of its samples: a slice, or indices.

        Raises:
            ValueError: an input does not hold one entry per sample.
        """
        if isinstance(rows, Tensor):
            rows = rows.to(self.labels.device, non_blocking=True)
        return MicroBatch(
            {name: self._cut(name, value, rows) for name, value in self.inputs.items()}, self.labels[rows]
        )

    def _cut(self, name: str, value: Any, rows: slice | Tensor) -> Any:
        if _is_setting(value):
            return value
        if self._is_per_sample(value):
            return value[rows]
        what = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise ValueError(
            f"The model's input {name!r} is {what} and cannot be dealt out to parts of a batch of {len(self)} samples: "
            "tensors with one row per sample can. Leave it out, or what cuts the batch: ascent_size, or the method."
        )

    def _is_per_sample(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.ndim > 0 and len(value) == len(self)


def _is_setting(value: Any) -> bool:
    """The same for every sample."""
    return value is None or isinstance(value, bool | int | float | str)


@dataclass(frozen=True)
class JointBatch:
    """The samples of all processes as one mini-batch.

    Args:
        size: n, their number.
        places: of this process's micro-batches among the n samples.
        processes: their number.
    """

    size: int
    places: tuple[slice, ...]
    processes: int


def in_order(batches: Sequence[MicroBatch]) -> tuple[slice, ...]:
    """The places of micro-batches that follow one another."""
    ends = torch.tensor([0, *map(len, batches)]).cumsum(0).tolist()
    return tuple(slice(start, end) for start, end in pairwise(ends))


def interleaved(sizes: Tensor, process: int) -> JointBatch:
    """The first micro-batch of every process, then the second of every process, and so on.

    Args:
        sizes: of their micro-batches (processes, micro-batches).
        process: whose places are asked for.
    """
    ends = sizes.T.flatten().cumsum(0).view_as(sizes.T)[:, process].tolist()
    places = tuple(slice(end - size, end) for end, size in zip(ends, sizes[process].tolist()))
    return JointBatch(int(sizes.sum()), places, len(sizes))


def dealt_out(batches: Sequence[MicroBatch], count: int) -> list[list[MicroBatch]]:
    """The samples in order, in at most `count` parts of nearly equal size, each a list of pieces of micro-batches."""
    parts = torch.arange(sum(map(len, batches))).tensor_split(count)
    return [_pieces(batches, int(samples[0]), int(samples[-1]) + 1) for samples in parts if len(samples)]


def in_groups(batches: Sequence[MicroBatch], size: int) -> list[list[MicroBatch]]:
    """The samples in order, in parts of `size`; the last one may be smaller."""
    parts = torch.split(torch.arange(sum(map(len, batches))), size)
    return [_pieces(batches, int(samples[0]), int(samples[-1]) + 1) for samples in parts]


def _pieces(batches: Sequence[MicroBatch], first: int, end: int) -> list[MicroBatch]:
    overlaps = [(b, max(first - p.start, 0), min(end, p.stop) - p.start) for b, p in zip(batches, in_order(batches))]
    return [b if stop - start == len(b) else b.rows(slice(start, stop)) for b, start, stop in overlaps if start < stop]
