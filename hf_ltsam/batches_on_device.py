"""Loaders of in-memory images: whole batches, made on the device that trains or tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from torch.utils.data import DataLoader
from transformers import Trainer, default_data_collator
from transformers.utils import logging

from .config import LTSamConfig
from .data.image_store import ImageStore
from .data.in_memory import InMemoryImages
from .data.whole_batches import WholeBatches, as_made, in_memory_part

logger = logging.get_logger(__name__)


class MakesBatchesOnDevice(Trainer):
    """The stock Trainer, which reads `InMemoryImages` a whole batch at a time.

    The images are copied to `args.device` with the first loader, and stay there as long as the trainer. A `data_collator`
    of the user wants samples, and is given them.
    """

    args: LTSamConfig
    data_collator: Callable[..., Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._stores: WeakKeyDictionary[InMemoryImages, ImageStore] = WeakKeyDictionary()        # on `args.device`
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
        self.args.dataloader_pin_memory = pinned and batches.store.device.type == "cpu"        # what is there needs no copy
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
