"""The folder of a run: the files in it, whose names are defined here, and what they say.

runs/mine/seed0/
    recipe.yaml                     every setting that was made, and the command
    config.json, model.safetensors  the model, or adapter_config.json, adapter_model.safetensors
    class_statistics.json           what the training set looks like
    ltsam.json                      method, loss and data, so that nothing else resumes the training
    trainer_state.json              the log
    predictions.json                label, predicted class and confidence of every test image
    calibration.json                what was chosen on the reserve, or by `ltsam calibrate`
    metrics.json                    what the run was and what it reached; written last
    checkpoint-500/                 the first five of them, and manifest.json with their checksums
    evaluation/ood_results.json     other test sets, by `ltsam evaluate`
    sharpness/sharpness.json        curvature, by `ltsam sharpness`
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from hf_ltsam.class_statistics import FILE_NAME as STATISTICS
from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.metrics.calibration import Calibration
from hf_ltsam.runs.escaping import visible
from hf_ltsam.runs.files import DamagedFileError, check_folders, mapping, read_json, read_text, write_json, write_whole
from hf_ltsam.runs.predictions import Predictions
from hf_ltsam.runs.recipe_files import parse_mapping
from hf_ltsam.runs.record import RunRecord
from hf_ltsam.runs.secrets import without_secrets
from hf_ltsam.runs.sharpness.parts import check_sharpness
from hf_ltsam.runs.shift.results import check_results

RECORD = "metrics.json"
RECIPE = "recipe.yaml"
PREDICTIONS = "predictions.json"
CALIBRATION = "calibration.json"
IDENTITY = "ltsam.json"
SETTINGS = "settings"  # of an identity, with the number of processes
CARD = "README.md"
MANIFEST = "manifest.json"
TIME = "training_time.json"  # of a checkpoint

# transformers' and peft's
CONFIG = "config.json"
ADAPTER = "adapter_config.json"
STATE = "trainer_state.json"
PICKLED_SETTINGS = "training_args.bin"
CHECKPOINT = "checkpoint"  # of checkpoint-500
SAFE_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")
WEIGHTS = (*SAFE_WEIGHTS, "pytorch_model.bin", "pytorch_model.bin.index.json", "adapter_model.bin")

# folders with the results of other commands
EVALUATION = "evaluation"
EVALUATION_RESULTS = "ood_results.json"
EVALUATION_PAGE = "ood_results.md"
SHARPNESS = "sharpness"
SHARPNESS_RESULTS = "sharpness.json"

_SEED = re.compile(r"seed(\d+)")  # of runs/mine/seed0

MADE_IN_PYTHON = "made in Python by LTSamTrainer"  # the first line of such a recipe, in the place of a command

_ADVICE = {
    RECORD: "`ltsam train` writes it after the last epoch.",
    PREDICTIONS: "`ltsam train` writes it after the last epoch.",
    CALIBRATION: "`ltsam calibrate` writes it again.",
    IDENTITY: "Resume from another checkpoint.",
    EVALUATION_RESULTS: "Remove it, and evaluate again.",
    SHARPNESS_RESULTS: "`ltsam sharpness` with the same options writes it again.",
}

T = TypeVar("T")


@dataclass(frozen=True)
class Recipe:
    """`recipe.yaml`.

    Args:
        settings: those that were made; everything else was at its default.
        text: of the file, whose first line is the command.
    """

    settings: Mapping[str, Any]
    text: str

    @classmethod
    def from_text(cls, text: str) -> Recipe:
        if not text.strip():
            raise ValueError("it is empty")
        return cls(without_secrets(parse_mapping(text, RECIPE)), without_secrets(text))

    @property
    def is_of_python(self) -> bool:
        """Whether the run was made in Python: where its data lie is then not known, unless that was said."""
        return self.text.startswith(f"# {MADE_IN_PYTHON}")


@dataclass(frozen=True)
class RunFolder:
    """A run as it was saved, or one of its checkpoints.

    Whatever a file says is None where there is no such file; a damaged one raises `DamagedFileError`, which names it.

    Args:
        path: the `output_dir` of a training, or a checkpoint in it.
    """

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    def has(self, name: str) -> bool:
        """Whether the file is there."""
        return (self.path / name).is_file()

    def read(self, name: str, parse: Callable[[Any], T]) -> T | None:
        """The content of a JSON file of the run, as `parse` checks it."""
        return read_json(self.path / name, parse, _ADVICE.get(Path(name).name, ""))

    # What the run says about itself.

    @property
    def record(self) -> RunRecord | None:
        """What the run was and what it reached; of a finished run only."""
        return self.read(RECORD, RunRecord.from_json)

    def finished_record(self) -> RunRecord:
        """The record of a run that must have finished.

        Raises:
            FileNotFoundError: it has none.
        """
        record = self.record
        if record is None:
            raise FileNotFoundError(f"{self.path} has no {RECORD}: the run has not finished, or it is no run.")
        return record

    @property
    def recipe(self) -> Recipe | None:
        """The settings of the training."""
        return read_text(self.path / RECIPE, Recipe.from_text)

    @property
    def predictions(self) -> Predictions | None:
        """Of the test images."""
        return self.read(PREDICTIONS, Predictions.from_json)

    @property
    def calibration(self) -> Calibration | None:
        """What was chosen on held-out samples."""
        return self.read(CALIBRATION, Calibration.from_json)

    @property
    def statistics(self) -> ClassStatistics | None:
        """Of the training set."""
        return self.read(STATISTICS, ClassStatistics.from_dict)

    @property
    def identity(self) -> dict[str, Any] | None:
        """What a training must share to be resumed from here."""
        return self.read(IDENTITY, mapping)

    @property
    def config(self) -> dict[str, Any] | None:
        """The model's configuration."""
        return self.read(CONFIG, mapping)

    @property
    def adapter(self) -> dict[str, Any] | None:
        """The adapter's configuration; None for a whole model."""
        return self.read(ADAPTER, mapping)

    @property
    def log_history(self) -> tuple[dict[str, float], ...]:
        """The numbers of each entry of the log; of an unfinished run as far as its last checkpoint."""
        checkpoints = list(self.checkpoints.values())
        folder = self if self.has(STATE) or not checkpoints else checkpoints[-1]
        return folder.read(STATE, _numbers_of_the_log) or ()

    # What other commands found out about its weights.

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """The results of `ltsam evaluate` on other test sets."""
        return self.read(f"{EVALUATION}/{EVALUATION_RESULTS}", check_results)

    @property
    def sharpness(self) -> dict[str, Any] | None:
        """The results of `ltsam sharpness`."""
        return self.read(f"{SHARPNESS}/{SHARPNESS_RESULTS}", check_sharpness)

    # Weights and checkpoints.

    @property
    def has_weights(self) -> bool:
        """Whether a model or an adapter was saved here."""
        return any(self.has(name) for name in WEIGHTS)

    @property
    def weights_sha256(self) -> str:
        """Digest (hex) of the safetensors files; empty where there are none."""
        files = sorted(self.path.glob("*.safetensors"))
        digest = hashlib.sha256()
        for file in files:
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
        return digest.hexdigest() if files else ""

    @property
    def is_of_its_weights(self) -> bool:
        """Whether the record is of the weights beside it; not where one of them is missing or damaged."""
        try:
            record = self.record
        except DamagedFileError:
            return False
        return record is not None and record.weights_sha256 == self.weights_sha256 != ""

    @property
    def checkpoints(self) -> dict[int, RunFolder]:
        """Step -> checkpoint, in the order of the training."""
        folders = [folder for folder in self.path.glob(f"{CHECKPOINT}-*") if folder.is_dir()]
        numbered = {step: RunFolder(f) for f in folders if (step := _number(f)) is not None}
        return dict(sorted(numbered.items()))

    @property
    def step(self) -> int | None:
        """500 of checkpoint-500; of a run the last step of its training, where that is known."""
        number = _number(self.path)
        return self._state.get("global_step") if number is None else number

    @property
    def planned_steps(self) -> int | None:
        """Those that the training was to take, where that is known."""
        return self._state.get("max_steps")

    @property
    def epoch(self) -> float | None:
        """The epoch in which the weights were saved, where that is known."""
        return self._state.get("epoch")

    @property
    def root(self) -> RunFolder:
        """The run, of which this is the folder or a checkpoint.

        Raises:
            FileNotFoundError: no such folder, or no recipe in either.
        """
        self._require_folder()
        root = next((run for run in (self, RunFolder(self.path.parent)) if run.has(RECIPE)), None)
        if root is None:
            raise FileNotFoundError(
                f"{self.path} has no {RECIPE}: give the output folder of `ltsam train`, or a checkpoint in it."
            )
        return root

    def require_weights(self) -> None:
        """Refuse a folder without weights.

        Raises:
            FileNotFoundError: there is no such folder, or no model in it.
        """
        self._require_folder()
        if not self.has_weights:
            raise FileNotFoundError(
                f"{self.path} has no weights ({WEIGHTS[0]}): the run has not finished, or it is no run."
            )

    def _require_folder(self) -> None:
        if not self.path.is_dir():
            raise FileNotFoundError(f"{self.path}: there is no such folder. Give the --output_dir of a run.")

    @property
    def _state(self) -> dict[str, Any]:
        return self.read(STATE, mapping) or {}

    # What is written here, each file all of it or nothing.

    def write_record(self, record: RunRecord) -> Path:
        """Write `metrics.json`.

        Raises:
            TypeError: a value that JSON cannot hold.
        """
        return write_json(self.path / RECORD, record.to_json())

    def write_predictions(self, predictions: Predictions) -> Path:
        """Write `predictions.json`."""
        return write_json(self.path / PREDICTIONS, predictions.to_json(), indent=None)

    def write_calibration(self, calibration: Calibration) -> Path:
        """Write `calibration.json`."""
        return write_json(self.path / CALIBRATION, calibration.to_json(), indent=None)

    def remove_results_of_other_weights(self) -> None:
        """As soon as weights are saved, so that nothing takes the test and the calibration of earlier ones for theirs."""
        if not self.is_of_its_weights:
            for name in (RECORD, PREDICTIONS, CALIBRATION):
                (self.path / name).unlink(missing_ok=True)

    def write_identity(self, identity: Mapping[str, Any]) -> Path:
        """Write `ltsam.json`."""
        return write_json(self.path / IDENTITY, identity)

    def write_recipe(self, settings: Mapping[str, Any], comments: tuple[str, ...] = ()) -> Path:
        """Write `recipe.yaml`: the comments, one on each line, and the settings."""
        text = "".join(f"# {visible(comment)}\n" for comment in comments)
        return write_whole(self.path / RECIPE, text + yaml.safe_dump(without_secrets(dict(settings)), sort_keys=False))


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """The folders themselves where they are runs, else the runs inside them.

    Raises:
        FileNotFoundError: no such folder, or no run in it.
    """
    check_folders(folders)
    runs: dict[Path, None] = {}
    for folder in folders:
        inside = [folder] if _is_run(folder) else sorted(filter(_is_run, folder.rglob("*")))
        if not inside:
            raise FileNotFoundError(
                f"{folder} holds no run (neither {RECORD} nor {RECIPE}): give the --output_dir of `ltsam train`."
            )
        runs.update(dict.fromkeys(inside))
    return list(runs)


# One experiment, several seeds: a folder each, beside each other.


def default_folder(name: str, seed: int) -> Path:
    """Of a run that was given no folder: runs/mine/seed0, so that the seeds of one recipe do not overwrite each other."""
    return seed_folder(Path("runs") / name, seed)


def seed_folder(experiment: Path, seed: int) -> Path:
    """runs/mine -> runs/mine/seed0"""
    return experiment / f"seed{seed}"


def seed_folders(experiment: Path) -> list[Path]:
    """Of all seeds that there are."""
    return sorted(folder for folder in experiment.glob("seed*") if seed_of(folder) is not None and folder.is_dir())


def seed_of(folder: Path) -> int | None:
    """The seed that the name says, where it says nothing more."""
    named = _SEED.fullmatch(folder.name)
    return None if named is None else int(named[1])


def without_seed(folder: str) -> str:
    """runs/mine/seed0 -> runs/mine/seed*"""
    return Path(*("seed*" if _SEED.fullmatch(part) else part for part in Path(folder).parts)).as_posix()


def _is_run(folder: Path) -> bool:
    return (folder / RECORD).is_file() or (folder / RECIPE).is_file()


def _number(folder: Path) -> int | None:
    """500 of checkpoint-500."""
    numbered = re.fullmatch(rf"{CHECKPOINT}-(\d+)", folder.name)
    return int(numbered[1]) if numbered else None


def _numbers_of_the_log(state: Any) -> tuple[dict[str, float], ...]:
    entries: list[Mapping[str, Any]] = state["log_history"]
    return tuple({name: float(v) for name, v in entry.items() if isinstance(v, int | float)} for entry in entries)
