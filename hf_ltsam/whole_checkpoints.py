"""The stock Trainer, whose `checkpoint-N` exist whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from torch import nn
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from .checkpoint_folders import ASIDE, last_checkpoint, publish, rotate


class CheckpointError(OSError):
    """The disk is full, say. Earlier checkpoints are as they were."""


class WritesWholeCheckpoints(Trainer):
    """Checkpoints are written aside by the stock methods and renamed when every process has written its files.

    The processes share the folder, or have one on every node with `save_on_each_node`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._writes_aside = False
        super().__init__(*args, **kwargs)

    def _get_output_dir(self, trial: Any) -> str:
        run = super()._get_output_dir(trial)
        return str(Path(run) / ASIDE) if self._writes_aside else run

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if not self._writes_aside:        # the upload reads the folder for a while: not before it has its name
            super()._push_from_checkpoint(checkpoint_folder)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        run = Path(self._get_output_dir(trial))
        folder = run / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        written = run / ASIDE / folder.name
        try:
            self._save_aside(model, trial)
            self._name_best(run, written)
            self.accelerator.wait_for_everyone()        # the other processes' random states and memories are in
            if self.args.should_save:
                publish(written, folder)
        except Exception as error:
            if self.args.should_save:
                shutil.rmtree(run / ASIDE, ignore_errors=True)
            raise CheckpointError(_what_remains(folder, error)) from error
        self.accelerator.wait_for_everyone()        # all may read it from here on
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(folder))
        if self.args.should_save:
            rotate(run, self.args.save_total_limit, {folder, *self._best()})

    def _save_aside(self, model: nn.Module, trial: Any) -> None:
        self._writes_aside = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._writes_aside = False

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

    def _finalize_training(self, trial: Any, num_train_samples: Any, start_time: Any) -> Any:
        """As stock, which in the end deletes all but the best checkpoint if one is to be kept: done by our own deletion."""
        if self.args.should_save and self.args.save_total_limit == 1 and self._best():
            rotate(Path(self._get_output_dir(trial)), 1, self._best())
        return super()._finalize_training(trial, num_train_samples, start_time)


def _what_remains(folder: Path, error: Exception) -> str:
    earlier = last_checkpoint(folder.parent)
    remains = "There is no earlier one" if earlier is None else f"{earlier.name} is complete and stays as it is"
    there = next(parent for parent in folder.absolute().parents if parent.exists())
    free = shutil.disk_usage(there).free / 2**20
    return (
        f"{folder} could not be written ({type(error).__name__}: {error}; {free:,.0f} MB are free there). {remains}. Make "
        "room or permissions there; save_total_limit and save_only_model need less."
    )
