"""Checkpoints that a killed run continues from as if nothing had happened."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler
from transformers import PreTrainedModel, TrainerCallback
from transformers.utils import logging

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.bad_images import GoodImages
from hf_ltsam.data.in_memory.whole_batches import in_memory_part
from hf_ltsam.data.keyed_randomness import KeyedDataset, KeyedRandomness, keyed
from hf_ltsam.data.sampling.class_sampling import UNIFORM
from hf_ltsam.landscape.sharded import memory_like, whole_memory
from hf_ltsam.models.renamed_weights import load_renamed
from hf_ltsam.models.spectral_norm import folded_state, load_originals, normalised_layers, save_originals
from hf_ltsam.runs.identity import check_identity, save_identity
from hf_ltsam.training.checkpoints import last_checkpoint
from hf_ltsam.training.config import LTSamConfig
from hf_ltsam.training.interruption import Endures, not_looked_for
from hf_ltsam.training.loaders import class_sampled, class_sampler, data_seed
from hf_ltsam.training.refusals import check_batches
from hf_ltsam.training.training_set import without_adapter
from hf_ltsam.training.weight_averaging import WeightAveraging

logger = logging.get_logger(__name__)

_MEAN_FILE = "weight_average.pt"  # the running mean of the weights, beside the optimizer's state


class Resumes(Endures):
    """The stock Trainer with what it forgets between checkpoints.

    Random numbers of the training set depend on (seed, epoch, index) alone, the memory of the method is saved beside the
    optimizer's state, and a checkpoint knows the method, loss and data set that it was made with.
    """

    args: LTSamConfig
    class_statistics: ClassStatistics | None = None
    train_dataset: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.method_memory: dict[str, Any] = {}
        self._keyed_dataset: KeyedDataset | None = None
        self._good_images: GoodImages | None = None
        self._identity: dict[str, Any] | None = None  # of the training; it hashes all labels, so it is made once
        super().__init__(*args, **kwargs)
        self.add_callback(_EpochOfDataset(self))
        if self.args.on_bad_image == "skip" and isinstance(self.train_dataset, IterableDataset):
            raise ValueError(
                "on_bad_image='skip' is for data sets with an index, and a stream has none: leave it out, and make the "
                "stream with on_the_fly_stream(..., on_bad_image='skip')."
            )
        if self.args.swa_start is not None:
            self._add_averaging(WeightAveraging(self.args.swa_start, self.args.swa_interval))

    def _add_averaging(self, averaging: WeightAveraging) -> None:
        if self.averaging:
            raise ValueError(
                "Weights are averaged once: set swa_start, or pass a WeightAveraging callback, but not both."
            )
        self.callback_handler.callbacks.insert(0, averaging)  # first: others may save the model at the end of training

    @property
    def averaging(self) -> WeightAveraging | None:
        """The callback that averages weights, where there is one."""
        return next((c for c in self.callback_handler.callbacks if isinstance(c, WeightAveraging)), None)

    def identity(self) -> dict[str, Any]:
        """What a checkpoint of this run was made with; a run that differs must not resume it."""
        raise NotImplementedError

    def start_anew(self) -> None:
        """Forget what belongs to an earlier training."""
        self.method_memory.clear()

    def train(
        self,
        resume_from_checkpoint: str | os.PathLike[str] | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """As stock; refuses to resume what was made with another method, loss or data set.

        Raises:
            FolderInUseError: another process trains in `output_dir`.
            CheckpointError: the disk is full, say.
        """
        self._identity = self.identity()
        with self.enduring():
            if resume_from_checkpoint:
                folder = checkpoint_folder(resume_from_checkpoint, self.args.output_dir)
                check_identity(folder, self._identity)
                resume_from_checkpoint = str(folder)
            self.start_anew()
            with self.telling_how_to_go_on(), not_looked_for("lomo_optim"):
                return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def get_train_dataloader(self) -> DataLoader:
        """The stock loader over a data set whose random numbers depend on (seed, epoch, index) alone.

        The stock loader draws them from the global state one batch ahead of the training, so a resumed run would see
        other augmentations than an uninterrupted one.
        """
        dataset: Any = self.train_dataset
        if dataset is None:
            return super().get_train_dataloader()
        is_stream, seed = isinstance(dataset, IterableDataset), data_seed(self.args)
        self._keyed_dataset = None if is_stream else keyed(dataset, seed)
        if self._keyed_dataset is not None:
            warning = check_batches(
                len(dataset), self._train_batch_size, self.args.world_size, self.args.dataloader_drop_last, self.model
            )
            if warning:
                logger.warning(warning)
        try:
            if self._keyed_dataset is not None:
                self.train_dataset = self._readable(self._keyed_dataset)
            else:
                self.train_dataset = class_sampled(self.args, dataset, self.label_names[0], self.class_statistics)
            loader = super().get_train_dataloader()
        finally:
            self.train_dataset = dataset
        if self.args.dataloader_persistent_workers and not is_stream:
            # Starting workers draws a number from the global state; workers that persist start at other epochs in a
            # resumed run than in an uninterrupted one. They need no seed from there.
            loader.base_dataloader.generator = torch.Generator().manual_seed(seed)
        return loader

    def _readable(self, dataset: KeyedDataset) -> Dataset:
        """Without images that cannot be read, where that is wished; what is in memory has been read."""
        if self.args.on_bad_image == "raise" or in_memory_part(dataset) is not None:
            return dataset
        self._good_images = GoodImages(dataset)
        return self._good_images

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As stock, with the number of training images that could not be read so far, each counted once."""
        if self._good_images is not None and "loss" in logs:
            bad = self.accelerator.reduce(self._good_images.bad.to(self.args.device), "sum")  # each process saw others
            logs = {**logs, "bad_images": int((bad > 0).sum())}
        super().log(logs, start_time)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        train_dataset = train_dataset.dataset if isinstance(train_dataset, GoodImages) else train_dataset
        if isinstance(train_dataset, KeyedDataset) and self.args.sampling != UNIFORM:
            return class_sampler(self.args, train_dataset, self.label_names[0])
        inner = train_dataset.dataset if isinstance(train_dataset, KeyedRandomness) else train_dataset
        return super()._get_train_sampler(inner)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """As stock, what the model was trained on and with, and under an adapter its configuration; spectral norm folded."""
        if normalised_layers(self.model):
            state_dict = folded_state(self.model, state_dict)
        super()._save(output_dir, state_dict)
        if not self.args.should_save:
            return
        folder = Path(self.args.output_dir if output_dir is None else output_dir)
        inner = without_adapter(self.model)
        if inner is not self.model and isinstance(inner, PreTrainedModel):
            inner.config.save_pretrained(folder)  # classes and sizes, for load_run
        save_originals(self.model, folder)
        if self.class_statistics is not None:
            self.class_statistics.save(folder)
            save_identity(folder, self._identity or self.identity())

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if not load_renamed(self.model, resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        load_originals(self.model if model is None else model, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        best = str(self.state.best_model_checkpoint)
        if not load_renamed(self.model, best):
            super()._load_best_model()
        load_originals(self.model, best)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.method_memory:  # every process has its own: it saw other samples
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            torch.save(whole_memory(self.method_memory), Path(output_dir) / _memory_file(self.args.process_index))
        mean = self.averaging and self.averaging.mean_state()
        if mean and self.args.should_save:
            torch.save(mean, Path(output_dir) / _MEAN_FILE)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        own, first = (Path(checkpoint) / _memory_file(process) for process in (self.args.process_index, 0))
        file = own if own.is_file() else first  # of the first process where there were fewer of them
        if file.is_file():
            trainable: list[torch.Tensor] = [p for p in self.model.parameters() if p.requires_grad]
            self.method_memory.update(memory_like(self._tensors(file), trainable))
        mean = Path(checkpoint) / _MEAN_FILE
        if self.averaging:
            self.averaging.load_mean_state(self._tensors(mean) if mean.is_file() else None, self.model)

    def _tensors(self, file: Path) -> Any:
        """On the device of this process; an indexed CPU, as processes side by side have it, is no place for torch.load."""
        device = self.args.device
        return torch.load(file, map_location="cpu" if device.type == "cpu" else device, weights_only=True)


def _memory_file(process: int) -> str:
    """The memory of the method, beside the optimizer's state."""
    return "method_memory.pt" if process == 0 else f"method_memory_{process}.pt"


class _EpochOfDataset(TrainerCallback):
    """Tells the training set which epoch its random numbers belong to (accelerate does so in one process only)."""

    def __init__(self, trainer: Resumes) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._tell(max(math.ceil(state.epoch or 0) - 1, 0))  # for what reads the data after a last epoch that is over

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._tell(int(state.epoch or 0))

    def _tell(self, epoch: int) -> None:
        if self.trainer._keyed_dataset is not None:
            self.trainer._keyed_dataset.set_epoch(epoch)


def checkpoint_folder(resume_from_checkpoint: str | os.PathLike[str] | bool, output_dir: str) -> Path:
    """The folder that was named, or for True the last complete checkpoint of the run.

    Raises:
        ValueError: there is none.
    """
    if not isinstance(resume_from_checkpoint, bool):
        if not Path(resume_from_checkpoint).is_dir():
            raise ValueError(f"resume_from_checkpoint={str(resume_from_checkpoint)!r} is not a folder.")
        return Path(resume_from_checkpoint)
    folder = last_checkpoint(output_dir)
    if folder is None:
        raise ValueError(f"resume_from_checkpoint=True, but {output_dir} holds no checkpoint: start without it.")
    return folder
