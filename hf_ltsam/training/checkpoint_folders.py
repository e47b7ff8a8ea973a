"""Checkpoint folders on the disk: named when complete, replaced and deleted without ever being half there."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers.trainer_utils import sort_checkpoints
from transformers.utils import logging

from hf_ltsam.models.spectral_norm import FILE_NAME as ORIGINALS
from hf_ltsam.runs.files import DamagedFileError, mapping, not_written
from hf_ltsam.runs.folder import MANIFEST, STATE, WEIGHTS, RunFolder
from hf_ltsam.runs.manifest import damage, write_manifest

logger = logging.get_logger(__name__)

RANDOM_STATES = "rng_state*.pth"  # of each process

# Parts that every checkpoint needs, and files or folders that stand for them, FSDP's too
_PARTS = {
    "the model": (*WEIGHTS, "pytorch_model_fsdp*", "*/adapter_model.*"),
    "optimizer.pt": ("*optimizer*",),
    "scheduler.pt": ("scheduler.pt",),
    RANDOM_STATES: (RANDOM_STATES,),
    STATE: (STATE,),
}
_OF_DEEPSPEED = "latest"

# Files that hold weights, whoever wrote them: a model is loaded from these, however the training's other parts are
_OF_WEIGHTS = ("*.safetensors", "*.bin", "*.index.json", "*adapter_config.json", ORIGINALS, "pytorch_model_fsdp*")

ASIDE = "_writing"  # transformers pushes nothing with a leading underscore to the Hub
_REPLACED = "replaced-"


class CheckpointError(OSError):
    """The disk is full, say. Earlier checkpoints are as they were."""


def put_in_place(written: Path, name: Path) -> None:
    """Give a complete folder its name, in the place of one that has it.

    Raises:
        OSError: it cannot be brought to the disk or renamed; what had the name has it still, or gets it back by `tidy`.
    """
    write_manifest(written)  # last: it lists all others
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
    """Delete the oldest checkpoints beyond `limit` (None or 0: no limit), as transformers does, except those `kept`.

    Only `checkpoint-N` is one: `checkpoint-8-old` is its owner's.
    """
    if not limit or limit < 0:
        return
    numbered = {folder.path for folder in RunFolder(run).checkpoints.values()}
    folders = [folder for folder in map(Path, sort_checkpoints(str(run), use_mtime=True)) if folder in numbered]
    surplus = len(folders) - max(limit, len(kept))
    for folder in [folder for folder in folders if folder not in kept][: max(surplus, 0)]:
        discard(folder)


def last_checkpoint(output_dir: str | os.PathLike[str]) -> Path | None:
    """The last checkpoint of a run that was written to its end: the stock Trainer writes the state last."""
    folders = _checkpoints(output_dir)
    ended = [folder for folder in folders if (folder / STATE).is_file()]
    if ended and ended[-1] != folders[-1]:
        logger.warning(
            f"{folders[-1]} has no {STATE}, so it is not complete; the last checkpoint with one is {ended[-1]}."
        )
    return ended[-1] if ended else None


def last_complete_checkpoint(output_dir: str | os.PathLike[str], but: Path | None = None) -> Path | None:
    """The last checkpoint, other than `but`, that a training can go on from; every file of it is read."""
    return next((f for f in reversed(_checkpoints(output_dir)) if f != but and not defects(f)), None)


def defects(folder: Path) -> list[str]:
    """What keeps a training from going on from a checkpoint as if it had not been interrupted.

    Files that are not as the manifest lists them; in a checkpoint without one, of the stock Trainer for example, whole
    parts that are missing, or a state that cannot be read. DeepSpeed has parts of its own, and looks after them.
    """
    if (folder / _OF_DEEPSPEED).is_file():
        return damage(folder)
    return (
        damage(folder)
        or [f"{name} is missing" for name, patterns in _PARTS.items() if not _has(folder, patterns)]
        or _of_the_state(folder)
    )


def check_best(folder: Path) -> None:
    """Refuse to load the best model from damaged files; what only a resumed training reads may be gone.

    Raises:
        ValueError: naming the files.
    """
    if reasons := damage(folder, _OF_WEIGHTS):
        raise ValueError(
            f"The best model cannot be loaded from {folder}: {'; '.join(reasons)}. The training is at its end: resumed "
            "with load_best_model_at_end=False, it keeps its last weights."
        )


def checkpoint_folder(resume_from_checkpoint: str | os.PathLike[str] | bool, output_dir: str) -> Path:
    """The folder that was named, or for True the last checkpoint of the run.

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


def check_complete(folder: Path) -> None:
    """Refuse a checkpoint that a training cannot go on from exactly.

    Raises:
        ValueError: each file that is missing or damaged, the last complete checkpoint beside it, and how to start anew.
    """
    reasons = defects(folder)
    if not reasons:
        return
    other = last_complete_checkpoint(folder.parent, but=folder)
    beside = "No other checkpoint there is complete" if other is None else f"{other} is complete: resume from that one"
    raise ValueError(
        f"{folder} cannot be resumed, the training would not go on as it was: {'; '.join(reasons)}. {_cause(reasons)}"
        f"{beside}. To start a new training from its weights alone, load them into the model (`ltsam train --model "
        f"{folder}`) and do not resume."
    )


@contextmanager
def readable(folder: str | os.PathLike[str] | None) -> Iterator[None]:
    """Name the checkpoint whose files torch or safetensors cannot read: of one without a manifest nothing says so before.

    Raises:
        DamagedFileError: in the place of their errors.
    """
    try:
        yield
    except (SafetensorError, EOFError, OSError, UnpicklingError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "PytorchStreamReader" not in str(error):
            raise
        raise DamagedFileError(
            f"{folder} is damaged ({type(error).__name__}: {error}). Resume from another checkpoint."
        ) from error


class OtherModelError(ValueError):
    """A checkpoint that is of another model than the one that is to go on from it."""

    def __init__(self, folder: str | os.PathLike[str], difference: str) -> None:
        super().__init__(
            f"{folder} is a checkpoint of another model: {difference}. Resume with the model that it was saved from, or "
            "start a new run."
        )


def check_all_loaded(model: nn.Module, missing: Iterable[str], folder: str | os.PathLike[str]) -> None:
    """Refuse a checkpoint that left weights of the model as they were.

    Args:
        model: after the loading.
        missing: names that the checkpoint does not have; those of tied weights may be among them.

    Raises:
        OtherModelError: weights that are under no other name in it, either.
    """
    state, missing = model.state_dict(), set(missing)
    loaded = {tensor.data_ptr() for name, tensor in state.items() if name not in missing and tensor.numel()}
    ignored = set(getattr(model, "_keys_to_ignore_on_save", None) or ())
    left = [name for name in state if name in missing - ignored and state[name].data_ptr() not in loaded]
    if left:
        raise OtherModelError(folder, f"it has none of {len(left)} tensors of this one, such as {left[0]}")


@contextmanager
def way_back_noted(output_dir: str) -> Iterator[None]:
    """Every error that ends the training says which checkpoint it can be resumed from."""
    try:
        yield
    except (DamagedFileError, OtherModelError):  # of a checkpoint, which says so
        raise
    except Exception as error:
        complete = last_complete_checkpoint(output_dir)
        if complete is not None:
            value = "True" if complete == last_checkpoint(output_dir) else repr(str(complete))
            error.add_note(f"{complete} is complete: resume_from_checkpoint={value} goes on from there.")
        raise


def load_tensors(file: Path, device: torch.device) -> Any:
    """What `torch.save` wrote, on a device; an indexed CPU, as processes side by side have it, is no place for it."""
    return torch.load(file, map_location="cpu" if device.type == "cpu" else device, weights_only=True)


def checkpoint_error(folder: Path, error: Exception) -> CheckpointError:
    """The error of a checkpoint that could not be written: why, which one is left, and what would help."""
    earlier = last_complete_checkpoint(folder.parent)
    remains = "There is no earlier one" if earlier is None else f"{earlier.name} is complete and stays as it is"
    return CheckpointError(
        f"{not_written(folder, error)} {remains}. Make room or permissions there; save_total_limit needs less."
    )


def _checkpoints(output_dir: str | os.PathLike[str]) -> list[Path]:
    return [folder.path for folder in RunFolder(Path(output_dir)).checkpoints.values()]


def _has(folder: Path, patterns: Iterable[str]) -> bool:
    return any(any(folder.glob(pattern)) for pattern in patterns)


def _of_the_state(folder: Path) -> list[str]:
    try:
        RunFolder(folder).read(STATE, mapping)
    except DamagedFileError:
        return [f"{STATE} is damaged"]
    return []


def _cause(reasons: Collection[str]) -> str:
    """What may have led to it, as a sentence; of files that were edited, how to have them taken."""
    if {"optimizer.pt is missing", "scheduler.pt is missing"} <= set(reasons):
        return "save_only_model=True leaves such parts out. "
    edited = all("content" in reason or "bytes" in reason for reason in reasons)
    return f"(If you have changed it on purpose: delete {MANIFEST} there.) " if edited else ""


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
