"""A Trainer whose runs can be killed: whole checkpoints, exact resume, one training at a time in a folder."""

from __future__ import annotations

import math
import os
import shutil
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from functools import update_wrapper
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_jit_checkpoint import JITCheckpointCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import is_datasets_available, logging

from hf_ltsam.models.renamed_weights import load_renamed
from hf_ltsam.models.spectral_norm import folded_state, load_originals, normalised_layers, save_originals
from hf_ltsam.models.text_classifier import never_repacked
from hf_ltsam.runs.files import is_of_the_disk
from hf_ltsam.training.checkpoint_folders import (
    ASIDE,
    RANDOM_STATES,
    OtherModelError,
    check_all_loaded,
    check_best,
    check_complete,
    checkpoint_error,
    checkpoint_folder,
    put_in_place,
    readable,
    rotate,
    tidy,
    way_back_noted,
)
from hf_ltsam.training.folder_lock import folder_lock
from hf_ltsam.training.interruption import SigtermCheckpoint, check_launched, limit_waiting
from hf_ltsam.training.loaders import Loaders, replaced
from hf_ltsam.training.refusals.problem import check_tied_weights

logger = logging.get_logger(__name__)


class CheckpointedCallback(TrainerCallback, ABC):
    """A callback with a state of its own (a running mean of the weights, say) that belongs in checkpoints.

    `DurableTrainer` saves it with every checkpoint, unless `save_only_model` is set, and gives it back before the first
    step of a training. Every process calls both; `args.should_save` says who writes files that all share.
    """

    @abstractmethod
    def save_state(self, folder: Path, args: TrainingArguments) -> None:
        """Write the state into the folder of a checkpoint, beside the optimizer's."""

    @abstractmethod
    def load_state(self, folder: Path | None, args: TrainingArguments, model: nn.Module) -> None:
        """The inverse; None: a training that starts fresh. The model has the checkpoint's weights already."""


class DurableTrainer(Trainer):
    """`transformers.Trainer` that may be killed at any moment, and resumed as if nothing had happened.

    Arguments, settings and results are those of `transformers.Trainer`; no method of this library is needed. What is
    added:

    - A `checkpoint-N` is complete or does not exist. It is written aside, brought to the disk and renamed once every
      process has written its files; a full disk leaves the checkpoint before it as it was, and the error says so.
    - A checkpoint lists its files with their checksums. One that has lost a part, or has a damaged one, is not resumed:
      the error names the file, and the last checkpoint that is complete.
    - A resumed run ends bit for bit like an uninterrupted one, random augmentation, workers and several processes
      included: random numbers of a map-style training set depend on (seed, epoch, index) alone (`KeyedRandomness`).
      Weights that transformers saves under other names than the model's (ViT) are loaded under the right ones.
    - One training at a time in `output_dir`: a second process is refused, with the name of the first.
    - With `enable_jit_checkpoint`, SIGTERM ends the run after its step, with a checkpoint of that step and status 143.
    - Where a process dies, the others end with an error after `ddp_timeout`, on CPUs too.
    - Callbacks derived from `CheckpointedCallback` are saved and resumed.

    A stream (`IterableDataset`) resumes exactly where its own order and random numbers do.

    Raises:
        FolderInUseError: by `train`: another process trains in `output_dir`.
        CheckpointError: by `train`: a checkpoint could not be written.

    Example:
        trainer = DurableTrainer(model, TrainingArguments("runs/mine", save_steps=500), train_dataset=data)
        trainer.train(resume_from_checkpoint=True)  # from the last complete checkpoint; False: from the start
    """

    batch_loaders: Loaders
    _sigterm: SigtermCheckpoint
    _writes_aside: bool = False
    _resumed: Path | None = None  # the checkpoint that the training began with
    _loaded_from: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        on_sigterm = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
        super().__init__(*args, **kwargs)
        self._check_made()
        never_repacked(self.model)
        self.batch_loaders = self.make_loaders()
        check_launched(self.args)
        limit_waiting(self.args.ddp_timeout)
        self._sigterm = SigtermCheckpoint()
        if self.args.enable_jit_checkpoint:
            self.pop_callback(JITCheckpointCallback)  # it has set its handler already
            signal.signal(signal.SIGTERM, on_sigterm)
            self.add_callback(self._sigterm)
        self.callback_handler.callbacks.insert(0, _Bookkeeping(self))

    def train(
        self,
        resume_from_checkpoint: str | os.PathLike[str] | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """As stock.

        Args:
            resume_from_checkpoint: a checkpoint's folder, or True for the last one in `output_dir`.

        Raises:
            FolderInUseError: another process trains in `output_dir`.
            CheckpointError: the disk is full, say.
            ValueError: there is no such checkpoint, or it is not complete.
        """
        with ExitStack() as running:
            if self.args.should_save:
                running.enter_context(folder_lock(self.args.output_dir))
                tidy(Path(self.args.output_dir))
            self.accelerator.wait_for_everyone()
            check_tied_weights(self.model)
            if self.args.enable_jit_checkpoint:
                running.enter_context(self._sigterm.listening())
            self._resumed = None
            if resume_from_checkpoint:
                self._resumed = checkpoint_folder(resume_from_checkpoint, self.args.output_dir)
                self._check_complete(self._resumed)
                self.check_checkpoint(self._resumed)
            running.enter_context(way_back_noted(self.args.output_dir))
            return super().train(self._resumed and str(self._resumed), trial, ignore_keys_for_eval)

    def _check_complete(self, folder: Path) -> None:
        """One process reads the files, as it has written them; what it finds ends all of them."""
        refusal: ValueError | None = None
        try:
            if self.args.should_save:
                check_complete(folder)
        except ValueError as error:
            refusal = error
        refusals: list[ValueError] = [error for error in gather_object([refusal]) if error is not None]
        if refusals:
            raise refusals[0]
        processes = len(list(folder.glob(RANDOM_STATES)))
        if processes != self.args.world_size and not self.args.save_on_each_node:
            logger.warning(
                f"{folder} was saved by {processes} process(es) and is resumed by {self.args.world_size}: random numbers "
                "begin anew, and the training does not end as it would have without the interruption."
            )

    # For subclasses.

    def _check_made(self) -> None:
        """Refuse what the classes behind this one have made, before anything here is set; nothing is refused here."""

    def make_loaders(self) -> Loaders:
        """What the loaders of this trainer read, made once."""
        return Loaders(self.args)

    def check_checkpoint(self, folder: Path) -> None:
        """Refuse a checkpoint that this training cannot go on from, by an error; nothing is refused here."""

    def save_companions(self, folder: Path) -> None:
        """Write what belongs beside the weights wherever they are saved, in the process that saves; nothing here."""

    def push_checkpoint(self, folder: Path) -> None:
        """Send a checkpoint that is complete and has its name to the Hub, as `hub_strategy` says; as stock here."""
        super()._push_from_checkpoint(str(folder))

    # What the stock Trainer does otherwise: its model, its loaders, its checkpoints, its end.

    def call_model_init(self, trial: Any = None) -> nn.Module:
        return never_repacked(super().call_model_init(trial))

    def _get_dataloader(
        self,
        dataset: Any,
        description: str,
        batch_size: int,
        sampler_fn: Callable[[Any], Any] | None = None,
        is_training: bool = False,
        dataloader_key: str | None = None,
    ) -> DataLoader:
        """The stock loader, over what `batch_loaders` makes of the data set.

        Columns of a `datasets.Dataset` that the model does not take are removed before anything is read; those of any
        other data set, and those that a transform gives, which may read others, are read and left out of the batch.
        """
        is_table = is_datasets_available() and isinstance(dataset, import_module("datasets").Dataset)
        transformed = is_table and dataset.format["type"] == "custom"
        if is_table and not transformed:
            dataset = self._remove_unused_columns(dataset, description=description)
        source = self.batch_loaders.source(dataset, sampler_fn, self.data_collator, is_training)
        drop = self._get_collator_with_removed_columns if transformed else lambda collator, _: collator
        drops_columns = self.args.remove_unused_columns and not source.whole_batches and not transformed
        with (
            replaced(self, data_collator=drop(source.collator, description)),
            replaced(self.args, dataloader_pin_memory=source.pin_memory, remove_unused_columns=drops_columns),
        ):
            loader = super()._get_dataloader(
                source.dataset, description, batch_size, source.sampler, is_training, dataloader_key
            )
        return self.batch_loaders.resumable(loader) if is_training else loader

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """As stock, but none for a run that is resumed at its end: the stock loop would take one more step."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return [], None
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def _get_output_dir(self, trial: Any) -> str:
        run = super()._get_output_dir(trial)
        return str(Path(run) / ASIDE) if self._writes_aside else run

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if not self._writes_aside:  # the upload reads the folder for a while: not before it has its name
            self.push_checkpoint(Path(checkpoint_folder))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Written aside by the stock method, and given its name when every process has written its files.

        The processes share the folder, or have one on every node with `save_on_each_node`.
        """
        run = Path(self._get_output_dir(trial))
        folder = run / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        written = run / ASIDE / folder.name
        try:
            self._save_aside(model, trial, written)
            self._name_best(run, written)
            self.accelerator.wait_for_everyone()  # the other processes' random states and callbacks are in
            if self.args.should_save:
                put_in_place(written, folder)
        except Exception as error:
            if self.args.should_save:
                shutil.rmtree(run / ASIDE, ignore_errors=True)
            if is_of_the_disk(error):
                raise checkpoint_error(folder, error) from error
            raise
        self.accelerator.wait_for_everyone()  # all may read it from here on
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(folder))
        if self.args.should_save:
            rotate(run, self.args.save_total_limit, {folder, *self._best()})

    def _save_aside(self, model: nn.Module, trial: Any, written: Path) -> None:
        self._writes_aside = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._writes_aside = False
        if not self.args.save_only_model:
            written.mkdir(parents=True, exist_ok=True)  # processes that write nothing else may come first
            for callback in self._checkpointed():
                callback.save_state(written, self.args)

    def _name_best(self, run: Path, written: Path) -> None:
        """The stock method looked for the best checkpoint aside, where only the present one is."""
        if not self.state.best_global_step:
            return
        best = run / f"{PREFIX_CHECKPOINT_DIR}-{self.state.best_global_step}"
        if best.name == written.name or best.is_dir():
            self.state.best_model_checkpoint = str(best)
        if self.args.should_save:
            self.state.save_to_json(str(written / TRAINER_STATE_NAME))

    def _best(self) -> list[Path]:
        best = self.state.best_model_checkpoint
        return [] if best is None else [Path(best)]

    def rotate_resumed(self) -> None:
        """Delete what a run that was killed between naming a checkpoint and rotating has left beyond the limit."""
        run = Path(self._get_output_dir(None))
        if self._resumed is None or not self.args.should_save or self._resumed.parent.resolve() != run.resolve():
            return
        kept = {run / self._resumed.name, run / f"{PREFIX_CHECKPOINT_DIR}-{self.state.best_global_step}"}
        rotate(run, self.args.save_total_limit, {folder for folder in kept if folder.is_dir()})

    def _checkpointed(self) -> list[CheckpointedCallback]:
        return [c for c in self.callback_handler.callbacks if isinstance(c, CheckpointedCallback)]

    def _finalize_training(self, trial: Any, num_train_samples: Any, start_time: Any) -> Any:
        """As stock, which deletes all but the best checkpoint where only one is kept: `rotate` has done it already."""
        if self.args.should_save and self.args.save_total_limit == 1 and self._best():
            rotate(Path(self._get_output_dir(trial)), 1, self._best())
        return super()._finalize_training(trial, num_train_samples, start_time)

    # The weights in a folder.

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """As stock: an ordinary model, whatever the training makes of it, with its companions."""
        super()._save(output_dir, _ordinary_state(self.model, state_dict))
        if self.args.should_save:
            folder = Path(self.args.output_dir if output_dir is None else output_dir)
            save_originals(self.model, folder)
            self.save_companions(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._loaded_from = resume_from_checkpoint
        with readable(resume_from_checkpoint):
            try:
                if not load_renamed(self.model, resume_from_checkpoint):
                    super()._load_from_checkpoint(resume_from_checkpoint, model)
            except RuntimeError as error:
                if not str(error).startswith("Error(s) in loading state_dict"):
                    raise
                first = str(error).splitlines()[1:2] or [str(error)]
                raise OtherModelError(resume_from_checkpoint, first[0].strip().rstrip(".")) from error
            load_originals(self.model if model is None else model, resume_from_checkpoint)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Of a model that was resumed; stock warns, and trains on with weights that are partly new."""
        check_all_loaded(self.model, load_result.missing_keys, self._loaded_from)
        super()._issue_warnings_after_load(load_result)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with readable(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with readable(checkpoint):
            super()._load_rng_state(checkpoint)

    def _load_best_model(self) -> None:
        best = self._loaded_from = str(self.state.best_model_checkpoint)
        check_best(Path(best))
        if not load_renamed(self.model, best):
            super()._load_best_model()
        load_originals(self.model, best)


update_wrapper(DurableTrainer.__init__, Trainer.__init__)  # for those who ask for the arguments: they are stock's


class _Bookkeeping(TrainerCallback):
    """Before all other callbacks: states come back, and the training set knows its epoch."""

    def __init__(self, trainer: DurableTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        for callback in self._trainer._checkpointed():
            callback.load_state(self._trainer._resumed, args, self._trainer.model)
        self._trainer.rotate_resumed()
        # for what reads the data after a last epoch that is over
        self._trainer.batch_loaders.set_epoch(max(math.ceil(state.epoch or 0) - 1, 0))

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.batch_loaders.set_epoch(int(state.epoch or 0))


def _ordinary_state(model: nn.Module, state: dict[str, Any] | None) -> dict[str, Any] | None:
    """As safetensors takes it: without spectral norm, tensors apart and in the usual order of their dimensions.

    None where the stock state is that.
    """
    if normalised_layers(model):
        state = folded_state(model, state)
    has_own_way = hasattr(model, "save_pretrained")  # which knows the tied weights of its model
    if has_own_way and all(p.is_contiguous() for p in model.parameters()):
        return state
    tensors = model.state_dict() if state is None else state
    tensors = tensors if has_own_way else _apart(tensors)
    return {name: value.contiguous() if isinstance(value, Tensor) else value for name, value in tensors.items()}


def _apart(state: dict[str, Any]) -> dict[str, Any]:
    """Tensors that share memory, tied weights say, as copies, so that any loader finds each under its name."""
    storages: set[int] = set()
    tensors = dict(state)
    for name, value in state.items():
        if isinstance(value, Tensor) and value.numel():
            storage = value.untyped_storage().data_ptr()
            tensors[name] = value.clone() if storage in storages else value
            storages.add(storage)
    return tensors
