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


def with_resume_point(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`auto` as it turns out: true where the folder of the run has a checkpoint, otherwise false."""
    if str(settings.get("resume_from_checkpoint")).lower() != "auto":
        return dict(settings)
    found = last_checkpoint(_place(settings["output_dir"])) is not None
    return {**settings, "resume_from_checkpoint": "true" if found else "false"}


def check_not_moved(stated: Mapping[str, Any], settings: Mapping[str, Any], recipe: str | Path | None) -> None:
    """Refuse to go on with the run whose `recipe.yaml` is given in the folder that it names, if the run is not there.

    Args:
        stated: settings over the recipe's; a folder among them is what is wanted.
        settings: all of them, the recipe's included.
        recipe: a file, or a name of one of ours.

    Raises:
        ValueError: with the option that goes on with the run.
    """
    goes_on = str(settings.get("resume_from_checkpoint")).lower() in ("true", "auto")
    if not goes_on or "output_dir" in stated or recipe is None or Path(recipe).name != RECIPE:
        return
    lies, named = Path(recipe).parent, _place(settings["output_dir"])
    if _has_begun(lies) and not _has_begun(named):
        raise ValueError(
            f"{recipe} lies beside what its run has saved, but would go on in {named}, where nothing of it is: the run has "
            f"been moved, or began in another working directory. --output_dir {shlex.quote(str(lies))} goes on with it."
        )


def _has_begun(folder: Path) -> bool:
    return RunFolder(folder).has(RECORD) or last_checkpoint(folder) is not None


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
