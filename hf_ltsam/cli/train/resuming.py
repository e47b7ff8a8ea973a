"""`--resume_from_checkpoint`: from where a training goes on, and with what it began."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_ltsam.runs.folder import RECIPE, RECORD, RunFolder
from hf_ltsam.training.checkpoint_folders import last_checkpoint


def resume_point(resume_from_checkpoint: str | None) -> str | bool:
    """A checkpoint's folder, True for the last one of the run, or False."""
    value = resume_from_checkpoint or "false"
    return {"true": True, "false": False}.get(value.lower(), value)


def with_resume_point(
    settings: Mapping[str, Any], stated: Mapping[str, Any], recipe: str | Path | None
) -> dict[str, Any]:
    """`auto` as it turns out: true where the folder of the run has a checkpoint, otherwise false.

    Args:
        settings: all of them, the recipe's included.
        stated: those over the recipe's; a folder among them is what is wanted.
        recipe: a file, or a name of one of ours.

    Raises:
        ValueError: the run of which this is the recipe lies elsewhere; with the option that goes on with it.
    """
    wanted = str(settings.get("resume_from_checkpoint")).lower()
    if wanted not in ("true", "auto"):
        return dict(settings)
    place = _place(settings["output_dir"])
    found = last_checkpoint(place) is not None
    if not found and "output_dir" not in stated and not RunFolder(place).has(RECORD):
        _check_not_moved(recipe, place)
    return dict(settings) if wanted == "true" else {**settings, "resume_from_checkpoint": "true" if found else "false"}


def _check_not_moved(recipe: str | Path | None, place: Path) -> None:
    """Refuse to begin in the place that the recipe of a run names, where this run lies beside its recipe."""
    if recipe is None or Path(recipe).name != RECIPE:
        return
    lies = Path(recipe).parent
    if RunFolder(lies).has(RECORD) or last_checkpoint(lies) is not None:
        raise ValueError(
            f"{recipe} lies beside what its run has saved, but would go on in {place}, where nothing of it is: the run has "
            f"been moved, or began in another working directory. --output_dir {shlex.quote(str(lies))} goes on with it."
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
