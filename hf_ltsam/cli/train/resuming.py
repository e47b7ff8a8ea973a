"""`--resume_from_checkpoint`: from where a training goes on, and with what it began."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_ltsam.runs.folder import RunFolder
from hf_ltsam.training.checkpoint_folders import last_checkpoint


def resume_point(resume_from_checkpoint: str | None) -> str | bool:
    """A checkpoint's folder, True for the last one of the run, or False."""
    value = resume_from_checkpoint or "false"
    return {"true": True, "false": False}.get(value.lower(), value)


def with_resume_point(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`auto` as it turns out: true where the folder of the run has a checkpoint, otherwise false."""
    if str(settings.get("resume_from_checkpoint")).lower() != "auto":
        return dict(settings)
    found = last_checkpoint(_place(settings["output_dir"])) is not None
    return {**settings, "resume_from_checkpoint": "true" if found else "false"}


def check_not_moved(settings: Mapping[str, Any], recipe: str | Path | None) -> None:
    """Refuse to resume by the recipe of a run that has been moved: it names the folder where the run was.

    Args:
        settings: all of them, the folder from the recipe.
        recipe: the file; a name of one of ours is nobody's run.

    Raises:
        ValueError: with the option that goes on with the moved run.
    """
    if recipe is None or not Path(recipe).is_file() or not resume_point(settings.get("resume_from_checkpoint")):
        return
    lies, named = Path(recipe).parent, _place(settings["output_dir"])
    if lies.resolve() != named.resolve() and last_checkpoint(lies) is not None and last_checkpoint(named) is None:
        raise ValueError(
            f"{recipe} lies beside the checkpoints of a run, but its output_dir is {named}, where there is none: the run "
            f"has been moved. --output_dir {lies} goes on with it."
        )


def interrupted_settings(settings: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What was set for the training that is resumed; None: of a new one, or where its recipe is gone."""
    point = resume_point(settings.get("resume_from_checkpoint"))
    if not point:
        return None
    try:
        recipe = RunFolder(_place(settings["output_dir"] if point is True else str(point))).root.recipe
    except FileNotFoundError:
        return None
    return None if recipe is None else recipe.settings


def _place(folder: str) -> Path:
    """As transformers reads it, where the shell has not."""
    return Path(folder).expanduser()
