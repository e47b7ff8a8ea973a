"""What a trainer reads, where its `sampling` asks for other shares of the classes than those of the training set."""

from __future__ import annotations

from typing import Any

from torch.utils.data import IterableDataset

from .class_statistics import ClassStatistics
from .config import LTSamConfig
from .data.class_sampled_stream import ClassSampledStream
from .data.class_sampling import UNIFORM, ClassSampler, full_batches
from .data.keyed_randomness import KeyedDataset
from .training_set import readable_labels


def data_seed(args: LTSamConfig) -> int:
    """Of order and augmentation of the training set."""
    return args.seed if args.data_seed is None else args.data_seed


def class_sampler(args: LTSamConfig, dataset: KeyedDataset, label_name: str) -> ClassSampler:
    """The sampler of a training set whose shares are not its own.

    Raises:
        ValueError: its labels cannot be read without loading its samples.
    """
    labels = readable_labels(dataset, label_name)
    if labels is None:
        raise ValueError(
            f"sampling={args.sampling!r} needs the labels of the training set, which shows none without loading its "
            "samples: give it an attribute `labels` (integers, in its order), or use sampling='uniform'."
        )
    draws = full_batches(len(labels), args.train_batch_size * args.world_size, args.dataloader_drop_last)
    return ClassSampler(labels, args.sampling, dataset, draws, data_seed(args))


def class_sampled(
    args: LTSamConfig, stream: Any, label_name: str, statistics: ClassStatistics | None
) -> IterableDataset[Any]:
    """A stream, its rows in the shares that are asked for.

    Raises:
        ValueError: it comes in other shares already, or there are no class statistics.
    """
    if isinstance(stream, ClassSampledStream):
        if args.sampling not in (UNIFORM, stream.sampling):
            raise ValueError(
                f"The training set is sampled {stream.sampling!r} already: leave out sampling={args.sampling!r}."
            )
        return stream
    if args.sampling == UNIFORM:
        return stream
    if statistics is None:
        raise ValueError(f"sampling={args.sampling!r} of a stream needs class_statistics=ClassStatistics(...).")
    return ClassSampledStream(stream, statistics, args.sampling, data_seed(args), label_name=label_name)
