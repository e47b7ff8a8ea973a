"""The stock Trainer, whose `checkpoint-N` exist whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import nn
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, sort_checkpoints
from transformers.utils import logging

# ---- checkpoint folders on the disk: named when complete, replaced and deleted without ever being half th ----

logger = logging.get_logger(__name__)

ASIDE = "_writing"  # transformers pushes nothing with a leading underscore to the Hub
_REPLACED = "replaced-"


def publish(written: Path, name: Path) -> None:
    """Give a complete folder its name, in the place of one that has it.

    Raises:
        OSError: it cannot be brought to the disk or renamed; what had the name has it still, or gets it back by `tidy`.
    """
    for file in written.rglob("*"):
        _flush(file)
    _flush(written)
    replaced = written.with_name(_REPLACED + name.name)
    if name.exists():  # a folder that is not empty cannot be renamed over
        shutil.rmtree(replaced, ignore_errors=True)
        name.rename(replaced)
    written.rename(name)
    _flush(name.parent)
    tidy(name.parent)


def discard(folder: Path) -> None:
    """Delete it, out of sight first: a process killed meanwhile leaves no half of a checkpoint."""
    aside = folder.parent / ASIDE
    aside.mkdir(exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(aside / f"discarded-{folder.name}")
    tidy(folder.parent)


def tidy(run: Path) -> None:
    """Delete what a killed process left aside, and give back its name to what it was about to replace."""
    aside = run / ASIDE
    for replaced in aside.glob(_REPLACED + "*"):
        name = run / replaced.name.removeprefix(_REPLACED)
        if not name.exists():
            replaced.rename(name)
    shutil.rmtree(aside, ignore_errors=True)


def rotate(run: Path, limit: int | None, kept: Collection[Path]) -> None:
    """Delete the oldest checkpoints beyond `limit` (None or 0: no limit), as transformers does, except those `kept`."""
    if not limit or limit < 0:
        return
    folders = [Path(folder) for folder in sort_checkpoints(str(run), use_mtime=True)]
    surplus = len(folders) - max(limit, len(kept))
    for folder in [folder for folder in folders if folder not in kept][: max(surplus, 0)]:
        discard(folder)


def last_checkpoint(output_dir: str | os.PathLike[str]) -> Path | None:
    """The last checkpoint of a run that was written to its end: its state comes last."""
    named = [f for f in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if f.name.split("-")[-1].isdigit()]
    folders = sorted(named, key=lambda f: int(f.name.split("-")[-1]))
    complete = [f for f in folders if (f / TRAINER_STATE_NAME).is_file()]
    if complete and complete[-1] != folders[-1]:
        logger.warning(f"{folders[-1]} was not written to its end; the last complete checkpoint is {complete[-1]}.")
    return complete[-1] if complete else None


def _flush(path: Path) -> None:
    """Bring a file or folder to the disk, which is also when a full disk or quota on a network shows at the latest."""
    descriptor = os.open(path, os.O_RDONLY)
    # Some file systems cannot flush folders, which then are as safe as they make them.
    unable = contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext()
    try:
        with unable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
        if not self._writes_aside:  # the upload reads the folder for a while: not before it has its name
            super()._push_from_checkpoint(checkpoint_folder)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        run = Path(self._get_output_dir(trial))
        folder = run / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        written = run / ASIDE / folder.name
        try:
            self._save_aside(model, trial)
            self._name_best(run, written)
            self.accelerator.wait_for_everyone()  # the other processes' random states and memories are in
            if self.args.should_save:
                publish(written, folder)
        except Exception as error:
            if self.args.should_save:
                shutil.rmtree(run / ASIDE, ignore_errors=True)
            raise CheckpointError(_what_remains(folder, error)) from error
        self.accelerator.wait_for_everyone()  # all may read it from here on
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
