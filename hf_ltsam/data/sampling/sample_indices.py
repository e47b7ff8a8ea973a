"""Indices of the samples in a past batch, so that a message about the batch can name them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from accelerate.data_loader import BatchSamplerShard, DataLoaderShard, SeedableRandomSampler
from torch import Tensor
from torch.utils.data import BatchSampler, SequentialSampler
from transformers.trainer_utils import has_length

from hf_ltsam.data.soft_labels import are_soft


def indices_of_batches(loader: Any, epoch: int, first: int, count: int) -> list[int] | None:
    """Indices in the training set of the samples in some batches of this process.

    Nothing is loaded: the sampler runs again. None if there is no sampler, or if it would not repeat its order.

    Args:
        loader: the prepared loader of the training.
        epoch: of the batches.
        first: position of the first batch in the epoch.
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


def indices_of_step(loader: Any, epoch: float | None, before: int, count: int) -> list[int] | None:
    """The same for some micro-batches of an optimizer step.

    Args:
        epoch: at the beginning of the step, as `TrainerState.epoch` has it.
        before: number of micro-batches of the step that came before these.
        count: their number.
    """
    if not has_length(loader):
        return None
    whole = int(epoch or 0)
    first = round(((epoch or 0) - whole) * len(loader)) + before
    return indices_of_batches(loader, whole, first, count)


@contextmanager
def _at_epoch(sampler: Any, epoch: int) -> Iterator[None]:
    """Set the epoch of a sampler for a while; the training's iterator drew its order when it began, and is not disturbed."""
    if not isinstance(sampler, SeedableRandomSampler):
        yield
        return
    current = sampler.epoch
    sampler.set_epoch(epoch)
    try:
        yield
    finally:
        sampler.set_epoch(current)


def named_with_labels(indices: Sequence[int] | None, labels: Tensor | None, batch_labels: Tensor) -> str | None:
    """The indices in words, if the labels at them are those of the batch, or have a share in its soft ones; else None."""
    if (
        indices is None
        or labels is None
        or len(indices) != len(batch_labels)
        or not bool(_fit(labels[list(indices)], batch_labels))
    ):
        return None
    return indices_in_words(indices)


def indices_in_words(indices: Sequence[int]) -> str:
    """The first ones of them."""
    shown = ", ".join(map(str, indices[:16])) + (", ..." if len(indices) > 16 else "")
    return f"sample {shown}" if len(indices) == 1 else f"samples {shown}"


def _fit(labels: Tensor, batch_labels: Tensor) -> Tensor:
    if are_soft(batch_labels) and not are_soft(labels):
        return (batch_labels.gather(1, labels.unsqueeze(1)) > 0).all()
    return (labels == batch_labels).all()
