"""The files of a run that belong on the Hub. All others stay here: pickles, and whatever else lies in the folder."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from hf_ltsam.runs.folder import (
    CONFIG,
    EVALUATION,
    MANIFEST,
    PICKLED_SETTINGS,
    RECIPE,
    SAFE_WEIGHTS,
    SHARPNESS,
    SHARPNESS_RESULTS,
    STATE,
    TIME,
    RunFolder,
)

_RUN = ("*.safetensors", "*.json", RECIPE, "*.txt", "*.model", "*.jinja", "*.png")  # weights, processor, facts
_RESULTS = {
    EVALUATION: ("*.json", "*.md", "*.png"),
    SHARPNESS: (SHARPNESS_RESULTS, "*.png"),
}
# The state of the trainer names folders of this machine, and the settings are a pickle: neither is needed to load.
_STAYS = {STATE, MANIFEST, PICKLED_SETTINGS, TIME}


def run_files(folder: Path, results: Collection[str] = ()) -> dict[str, Path | bytes]:
    """path in the repository -> file, of a run's folder or one of its checkpoints.

    Args:
        results: which of "evaluation" and "sharpness" go with it: those that are of these weights.
    """
    files = _matching(folder, folder, _RUN)
    for name in results:
        files |= _matching(folder / name, folder, _RESULTS[name])
    return files


def checkpoint_files(folder: Path, path_in_repo: str) -> dict[str, Path | bytes]:
    """path in the repository -> file, of everything that a training resumes from."""
    return {
        f"{path_in_repo}/{f.name}": f for f in sorted(folder.iterdir()) if f.is_file() and f.name != PICKLED_SETTINGS
    }


def check_publishable(folder: Path) -> None:
    """Refuse a folder that others could not load, or not without running a pickle.

    Raises:
        FileNotFoundError: naming what is missing.
        ValueError: its weights are a pickle.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder. Give the --output_dir of a run.")
    run = RunFolder(folder)
    if any(map(run.has, SAFE_WEIGHTS)):
        if not run.has(CONFIG):
            raise FileNotFoundError(f"{folder} has weights but no {CONFIG}, so nobody could load them.")
        return
    pickled = next((file for file in sorted(folder.glob("*.bin")) if file.name not in _STAYS), None)
    if pickled is not None:
        raise ValueError(
            f"{folder} has its weights in {pickled.name}, a pickle, which runs code when it is read. Save them as "
            "safetensors (model.save_pretrained(FOLDER)) and push that."
        )
    run.require_weights()


def _matching(folder: Path, root: Path, patterns: tuple[str, ...]) -> dict[str, Path | bytes]:
    files = {f for pattern in patterns for f in folder.glob(pattern) if f.is_file() and not f.name.startswith(".")}
    return {f.relative_to(root).as_posix(): f for f in sorted(files) if f.name not in _STAYS}
