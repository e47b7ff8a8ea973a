"""Which samples of the training set a batch was made of, found again when something is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from accelerate.data_loader import BatchSamplerShard, DataLoaderShard, SeedableRandomSampler
from torch import Tensor
from torch.utils.data import BatchSampler, SequentialSampler


def indices_of_batches(loader: Any, epoch: int, first: int, count: int) -> list[int] | None:
    """The indices in the training set of some batches, as this process sees it.

    Nothing is loaded: the sampler is asked again. None where it would not give the same order again, or there is none.

    Args:
        loader: the prepared loader of the training.
        epoch: in which the batches came.
        first: number of the first batch since the epoch began.
        count: number of batches.
    """
    batches = loader.batch_sampler if isinstance(loader, DataLoaderShard) else None
    if not isinstance(batches, BatchSampler):
        return None
    sampler = (batches.batch_sampler if isinstance(batches, BatchSamplerShard) else batches).sampler
    if not isinstance(sampler, SequentialSampler | SeedableRandomSampler):
        return None
    with _at_epoch(sampler, epoch):
        return [index for batch in islice(iter(batches), first, first + count) for index in batch]


@contextmanager
def _at_epoch(sampler: Any, epoch: int) -> Iterator[None]:
    """The training's own iterator drew its order when it began, and is not disturbed."""
    if not isinstance(sampler, SeedableRandomSampler):
        yield
        return
    current = sampler.epoch
    sampler.set_epoch(epoch)
    try:
        yield
    finally:
        sampler.set_epoch(current)


def named_with_labels(indices: Sequence[int] | None, labels: Tensor | None, seen: Tensor) -> str | None:
    """The indices in words, if the labels at them are those that were seen; else None."""
    if (
        indices is None
        or labels is None
        or len(indices) != len(seen)
        or labels[list(indices)].tolist() != seen.tolist()
    ):
        return None
    shown = ", ".join(map(str, indices[:16])) + (", ..." if len(indices) > 16 else "")
    return f"sample {shown}" if len(indices) == 1 else f"samples {shown}"
