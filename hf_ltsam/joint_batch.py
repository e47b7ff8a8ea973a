"""Several micro-batches, of several processes too, as one mini-batch; and parts of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .micro_batch import MicroBatch


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
    own = sizes[process].tolist()
    return JointBatch(int(sizes.sum()), tuple(slice(end - size, end) for end, size in zip(ends, own)), len(sizes))


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
