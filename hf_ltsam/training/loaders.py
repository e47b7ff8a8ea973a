"""Loaders of in-memory images: whole batches, made on the device that trains or tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import Trainer, default_data_collator
from transformers.utils import logging

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.in_memory.image_store import ImageStore
from hf_ltsam.data.in_memory.images import InMemoryImages
from hf_ltsam.data.in_memory.whole_batches import WholeBatches, as_made, in_memory_part
from hf_ltsam.data.keyed_randomness import KeyedDataset
from hf_ltsam.data.sampling.class_sampled_stream import ClassSampledStream
from hf_ltsam.data.sampling.class_sampling import UNIFORM, ClassSampler, full_batches
from hf_ltsam.training.config import LTSamConfig
from hf_ltsam.training.training_set import readable_labels

logger = logging.get_logger(__name__)


class MakesBatchesOnDevice(Trainer):
    """The stock Trainer, which reads `InMemoryImages` a whole batch at a time.

    The images are copied to `args.device` with the first loader, and stay there as long as the trainer. A `data_collator`
    of the user wants samples, and is given them.
    """

    args: LTSamConfig
    data_collator: Callable[..., Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._stores: WeakKeyDictionary[InMemoryImages, ImageStore] = WeakKeyDictionary()  # on `args.device`
        super().__init__(*args, **kwargs)

    def _get_dataloader(
        self,
        dataset: Any,
        description: str,
        batch_size: int,
        sampler_fn: Callable[[Any], Any] | None = None,
        is_training: bool = False,
        dataloader_key: str | None = None,
    ) -> DataLoader:
        batches = self._whole_batches(dataset) if self.data_collator is default_data_collator else None
        if batches is None:
            return super()._get_dataloader(dataset, description, batch_size, sampler_fn, is_training, dataloader_key)
        collator, pinned = self.data_collator, self.args.dataloader_pin_memory
        self.data_collator = as_made
        self.args.dataloader_pin_memory = pinned and batches.store.device.type == "cpu"  # what is there needs no copy
        try:
            sampler = sampler_fn and (lambda _: sampler_fn(dataset))
            return super()._get_dataloader(batches, description, batch_size, sampler, is_training, dataloader_key)
        finally:
            self.data_collator, self.args.dataloader_pin_memory = collator, pinned

    def _get_collator_with_removed_columns(
        self, data_collator: Callable[..., Any], description: str | None = None
    ) -> Callable[..., Any]:
        """As stock, which would take a batch for a list of samples."""
        if data_collator is as_made:
            return data_collator
        return super()._get_collator_with_removed_columns(data_collator, description)

    def _whole_batches(self, dataset: Any) -> WholeBatches | None:
        found = in_memory_part(dataset)
        if found is None:
            return None
        source, rows = found
        store = self._store_for_workers(source) if self.args.dataloader_num_workers else self._store_here(source)
        return WholeBatches(source, rows, store, self.args.memory_format)

    def _store_here(self, source: InMemoryImages) -> ImageStore:
        if source not in self._stores:
            self._stores[source] = source.store.to(self.args.device)
        return self._stores[source]

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


# ---- model and batches in channels-last order, where convolutions are faster; the numbers and the files s ----


class TrainsChannelsLast(Trainer):
    """The stock Trainer, which keeps images and weights of convolutions in channels-last order if `channels_last` is set."""

    args: LTSamConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.channels_last:
            in_channels_last(self.model)

    def call_model_init(self, trial: Any = None) -> nn.Module:
        model = super().call_model_init(trial)
        return in_channels_last(model) if self.args.channels_last else model

    def _prepare_input(self, data: Any) -> Any:
        data = super()._prepare_input(data)
        if self.args.channels_last and isinstance(data, Tensor) and data.ndim == 4:
            return data.contiguous(memory_format=torch.channels_last)
        return data

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """As stock; files hold tensors in the usual order, whatever this training makes of them."""
        if self.args.channels_last:
            given = self.model.state_dict() if state_dict is None else state_dict
            state_dict = {
                name: value.contiguous() if isinstance(value, Tensor) else value for name, value in given.items()
            }
        super()._save(output_dir, state_dict)


def in_channels_last(model: nn.Module) -> nn.Module:
    """The model itself, its weights of four dimensions in channels-last order."""
    return model.to(memory_format=torch.channels_last)


# ---- what a trainer reads, where its `sampling` asks for other shares of the classes than those of the tr ----


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
