"""What a loader of the trainers reads: random numbers by index, classes in other shares, images a whole batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset
from transformers import TrainingArguments, default_data_collator
from transformers.utils import logging

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.bad_images import GoodImages
from hf_ltsam.data.in_memory.image_store import ImageStore
from hf_ltsam.data.in_memory.images import InMemoryImages
from hf_ltsam.data.in_memory.whole_batches import WholeBatches, as_made, in_memory_part
from hf_ltsam.data.keyed_randomness import KeyedDataset, keyed
from hf_ltsam.data.sampling.class_sampled_stream import ClassSampledStream
from hf_ltsam.data.sampling.class_sampling import UNIFORM, ClassSampler, full_batches
from hf_ltsam.data.sampling.repeated_draws import counted
from hf_ltsam.data.soft_labels import are_soft
from hf_ltsam.training.config import LTSamConfig

logger = logging.get_logger(__name__)

Sampler: TypeAlias = Callable[[Any], Any]  # data set -> the sampler of its loader


@dataclass(frozen=True)
class Source:
    """What a loader is made of, where that is not what the trainer was given.

    Args:
        dataset: what is read.
        sampler: makes its sampler; None: the data set has no index, or is read in order.
        collator: makes batches of samples.
        whole_batches: whether the data set gives batches, from which no column can be taken.
        pin_memory: whether batches are copied to pinned memory.
    """

    dataset: Any
    sampler: Sampler | None
    collator: Callable[..., Any]
    pin_memory: bool
    whole_batches: bool = False


class Loaders:
    """Training sets whose random numbers depend on (seed, epoch, index) alone.

    The stock loader draws them from the global state one batch ahead of the training, so a resumed run would see other
    augmentations than an uninterrupted one.

    Args:
        args: of the trainer.
    """

    def __init__(self, args: TrainingArguments) -> None:
        self.args = args
        self.keyed: KeyedDataset | None = None  # the training set of the last loader; None: a stream

    def source(self, dataset: Any, sampler: Sampler | None, collator: Callable[..., Any], is_training: bool) -> Source:
        """Of a data set and what the stock loader would be made of."""
        source = Source(dataset, sampler, collator, self.args.dataloader_pin_memory)
        if not is_training:
            return source
        self.keyed = None if isinstance(dataset, IterableDataset) else keyed(dataset, data_seed(self.args))
        if self.keyed is None:
            return source
        indices = None if sampler is None else lambda _: counted(sampler(dataset))
        return replace(source, dataset=self.keyed, sampler=indices)

    def resumable(self, loader: DataLoader) -> DataLoader:
        """The training's loader itself, with a generator of its own for workers that persist.

        Starting workers draws a number from the global state; workers that persist start at other epochs in a resumed run
        than in an uninterrupted one. They need no seed from there.
        """
        if self.args.dataloader_persistent_workers and self.keyed is not None:
            loader.base_dataloader.generator = torch.Generator().manual_seed(data_seed(self.args))  # type: ignore[attr-defined]
        return loader

    def set_epoch(self, epoch: int) -> None:
        """To which the random numbers of the training set belong; accelerate sets it in one process only."""
        if self.keyed is not None:
            self.keyed.set_epoch(epoch)


class ImageLoaders(Loaders):
    """The same, with `sampling` and `on_bad_image`, and `InMemoryImages` read a whole batch at a time.

    In-memory images are copied to `args.device` with the first loader, and stay there as long as the trainer. A
    `data_collator` of the user takes samples, and is given samples.

    Args:
        args: of the trainer.
        label_name: gives the key of the labels.
        statistics: gives those of the training set.
        labels: gives its labels (N,), as batches carry them, or None.
    """

    args: LTSamConfig

    def __init__(
        self,
        args: LTSamConfig,
        label_name: Callable[[], str],
        statistics: Callable[[], ClassStatistics | None],
        labels: Callable[[], Tensor | None],
    ) -> None:
        super().__init__(args)
        self._label_name, self._statistics, self._labels = label_name, statistics, labels
        self.stores: WeakKeyDictionary[InMemoryImages, ImageStore] = WeakKeyDictionary()  # on `args.device`
        self.good_images: GoodImages | None = None
        self.serves_training = False  # whether a loader of the training set was made here

    def source(self, dataset: Any, sampler: Sampler | None, collator: Callable[..., Any], is_training: bool) -> Source:
        source = super().source(dataset, sampler, collator, is_training)
        self.serves_training |= is_training
        by_default = collator is default_data_collator
        if by_default:
            source = replace(source, collator=collated)
        if is_training and self.keyed is None:
            return replace(source, dataset=class_sampled(self.args, dataset, self._label_name(), self._statistics()))
        batches = self._whole_batches(source.dataset) if by_default else None
        if batches is None:
            return replace(source, dataset=self._readable(source.dataset)) if is_training else source
        return Source(
            batches,
            _of(source.sampler, dataset),
            as_made,
            pin_memory=source.pin_memory and batches.store.device.type == "cpu",  # what is there needs no copy
            whole_batches=True,
        )

    def class_sampler(self) -> ClassSampler:
        """Of the training set of the last loader, whose classes come in the shares that `sampling` asks for."""
        return class_sampler(self.args, self.keyed, self._labels())

    def bad_images(self, accelerator: Accelerator) -> dict[str, int]:
        """For the logs: the number of training images that could not be read so far, each counted once."""
        if self.good_images is None:
            return {}
        bad = accelerator.reduce(self.good_images.bad.to(self.args.device), "sum")  # each process saw others
        return {"bad_images": int((bad > 0).sum())}

    def _readable(self, dataset: Dataset[Any]) -> Dataset[Any]:
        """Without images that cannot be read, under `on_bad_image="skip"`; what is in memory has been read."""
        if self.args.on_bad_image == "raise" or in_memory_part(dataset) is not None:
            return dataset
        self.good_images = GoodImages(dataset)
        return self.good_images

    def _whole_batches(self, dataset: Any) -> WholeBatches | None:
        part = in_memory_part(dataset)
        if part is None:
            return None
        source, rows = part
        store = self._store_for_workers(source) if self.args.dataloader_num_workers else self._store_here(source)
        return WholeBatches(source, rows, store, self.args.memory_format)

    def _store_here(self, source: InMemoryImages) -> ImageStore:
        if source not in self.stores:
            self.stores[source] = source.store.to(self.args.device)
        return self.stores[source]

    def _store_for_workers(self, source: InMemoryImages) -> ImageStore:
        """Other processes make the batches, on the CPU.

        Raises:
            ValueError: the images are on an accelerator, which worker processes must not use.
        """
        count = self.args.dataloader_num_workers
        if source.store.device.type != "cpu":
            raise ValueError(
                f"dataloader_num_workers={count}: worker processes cannot make batches of images that are on "
                f"{source.store.device}. Set dataloader_num_workers=0, or make InMemoryImages from images on the CPU."
            )
        logger.warning_once(
            f"dataloader_num_workers={count}: the batches of InMemoryImages are made by worker processes on the CPU. "
            "dataloader_num_workers=0 makes them on the training device, which is faster."
        )
        return source.store


def collated(samples: list[Any]) -> dict[str, Any]:
    """As transformers' default collator.

    Raises:
        ValueError: the samples have no names for their parts.
    """
    if samples and not isinstance(samples[0], Mapping) and not hasattr(samples[0], "__dict__"):
        raise ValueError(
            f"A sample of the data set is a {type(samples[0]).__name__}, whose parts have no names. Pass a data_collator "
            "that gives them: lambda samples: {'pixel_values': torch.stack([x for x, _ in samples]), 'labels': "
            "torch.tensor([y for _, y in samples])}, where 'pixel_values' is what the model's forward calls its input."
        )
    return default_data_collator(samples)


def _of(sampler: Sampler | None, dataset: Any) -> Sampler | None:
    """A sampler of this data set, whatever wraps it."""
    return None if sampler is None else lambda _: sampler(dataset)


@contextmanager
def replaced(owner: Any, **attributes: Any) -> Iterator[None]:
    """Other values of some attributes of an object, methods too, for the duration of a `with` block."""
    before = {name: vars(owner)[name] for name in attributes if name in vars(owner)}
    try:
        for name, value in attributes.items():
            setattr(owner, name, value)
        yield
    finally:
        for name in attributes:
            setattr(owner, name, before[name]) if name in before else delattr(owner, name)


def in_channels_last(value: Any) -> Any:
    """A model with its weights of four dimensions, or a batch with its images, in channels-last order."""
    if isinstance(value, nn.Module):
        return value.to(memory_format=torch.channels_last)
    if isinstance(value, Tensor):
        return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value
    if isinstance(value, Mapping):
        parts: Any = {name: in_channels_last(part) for name, part in value.items()}
        return type(value)(parts)  # type: ignore[call-arg]
    if isinstance(value, list | tuple):
        return type(value)(map(in_channels_last, value))
    return value


def data_seed(args: TrainingArguments) -> int:
    """Of order and augmentation of the training set."""
    return args.seed if args.data_seed is None else args.data_seed


def class_sampler(args: LTSamConfig, dataset: Any, labels: Tensor | None) -> ClassSampler:
    """The sampler of a training set whose classes come in other shares than its own.

    Raises:
        ValueError: its labels are unknown.
    """
    if labels is None:
        raise ValueError(
            f"sampling={args.sampling!r} needs the labels of the training set, which shows none without loading its "
            "samples: give it an attribute `labels` (integers, in its order), or use sampling='uniform'."
        )
    if are_soft(labels):
        raise ValueError(
            f"sampling={args.sampling!r} draws images by their class, and soft labels (n, C) name several: use "
            "sampling='uniform'."
        )
    draws = full_batches(len(labels), args.train_batch_size * args.world_size, args.dataloader_drop_last)
    return ClassSampler(labels, args.sampling, dataset, draws, data_seed(args))


def class_sampled(
    args: LTSamConfig, stream: Any, label_name: str, statistics: ClassStatistics | None
) -> IterableDataset[Any]:
    """A stream, its rows in the shares that `sampling` asks for.

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
