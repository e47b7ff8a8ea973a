"""Checkpoint folders on the disk: named when complete, replaced and deleted without ever being half there."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, sort_checkpoints
from transformers.utils import logging

logger = logging.get_logger(__name__)

ASIDE = "_writing"  # transformers pushes nothing with a leading underscore to the Hub
_REPLACED = "replaced-"


class CheckpointError(OSError):
    """The disk is full, say. Earlier checkpoints are as they were."""


def put_in_place(written: Path, name: Path) -> None:
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
    """The last complete checkpoint of a run; in one of the stock Trainer's, the state is written last."""
    numbered = [f for f in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if f.name.split("-")[-1].isdigit()]
    folders = sorted(numbered, key=lambda f: int(f.name.split("-")[-1]))
    complete = [f for f in folders if (f / TRAINER_STATE_NAME).is_file()]
    if complete and complete[-1] != folders[-1]:
        logger.warning(f"{folders[-1]} was not written to its end; the last complete checkpoint is {complete[-1]}.")
    return complete[-1] if complete else None


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


def load_tensors(file: Path, device: torch.device) -> Any:
    """What `torch.save` wrote, on a device; an indexed CPU, as processes side by side have it, is no place for it."""
    return torch.load(file, map_location="cpu" if device.type == "cpu" else device, weights_only=True)


def checkpoint_error(folder: Path, error: Exception) -> CheckpointError:
    """The error of a checkpoint that could not be written: why, which one is left, and what would help."""
    earlier = last_checkpoint(folder.parent)
    remains = "There is no earlier one" if earlier is None else f"{earlier.name} is complete and stays as it is"
    there = next(parent for parent in folder.absolute().parents if parent.exists())
    free = shutil.disk_usage(there).free / 2**20
    return CheckpointError(
        f"{folder} could not be written ({type(error).__name__}: {error}; {free:,.0f} MB are free there). {remains}. Make "
        "room or permissions there; save_total_limit and save_only_model need less."
    )


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
