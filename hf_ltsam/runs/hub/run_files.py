"""Which files of a run belong on the Hub. All others stay here, pickles and whatever else lies in the folder."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

_RUN = ("*.safetensors", "*.json", "recipe.yaml", "*.txt", "*.model", "*.jinja", "*.png")  # weights, processor, facts
_RESULTS = {
    "evaluation": ("*.json", "*.md", "*.png"),  # of `ltsam evaluate`
    "sharpness": ("sharpness.json", "*.png"),  # of `ltsam sharpness`
}
# The state of the trainer names folders of this machine, and training_args.bin is a pickle: neither is needed to load.
_STAYS = {"trainer_state.json", "training_args.bin"}
_SAFE_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")


def run_files(folder: Path, results: Collection[str] = ()) -> dict[str, Path | bytes]:
    """path in the repository -> file, of a run's folder or one of its checkpoints.

    Args:
        results: which of "evaluation" and "sharpness" go with it: those that are of these weights.
    """
    found = _matching(folder, folder, _RUN)
    for name in results:
        found |= _matching(folder / name, folder, _RESULTS[name])
    return found


def checkpoint_files(folder: Path, path_in_repo: str) -> dict[str, Path | bytes]:
    """path in the repository -> file, of everything that a training resumes from."""
    return {
        f"{path_in_repo}/{f.name}": f for f in sorted(folder.iterdir()) if f.is_file() and f.name != "training_args.bin"
    }


def check_publishable(folder: Path) -> None:
    """Refuse a folder that others could not load, or not without running a pickle.

    Raises:
        FileNotFoundError: naming what is missing.
        ValueError: its weights are a pickle.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder. Give the --output_dir of a run.")
    if any((folder / name).is_file() for name in _SAFE_WEIGHTS):
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} has weights but no config.json, so nobody could load them.")
        return
    pickled = next(folder.glob("*.bin"), None)
    if pickled is not None and pickled.name not in _STAYS:
        raise ValueError(
            f"{folder} has its weights in {pickled.name}, a pickle, which runs code when it is read. Save them as "
            "safetensors (model.save_pretrained(FOLDER)) and push that."
        )
    raise FileNotFoundError(f"{folder} has no weights ({_SAFE_WEIGHTS[0]}): the run has not finished, or it is no run.")


def _matching(folder: Path, root: Path, patterns: tuple[str, ...]) -> dict[str, Path | bytes]:
    files = {f for pattern in patterns for f in folder.glob(pattern) if f.is_file() and not f.name.startswith(".")}
    return {f.relative_to(root).as_posix(): f for f in sorted(files) if f.name not in _STAYS}
