"""A run as its folder tells it. A damaged file is named, and the rest is read all the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from hf_ltsam import ClassStatistics
from hf_ltsam.runs import predictions
from hf_ltsam.runs import record as run_record
from hf_ltsam.runs.predictions import Predictions, read_predictions
from hf_ltsam.runs.record import RunRecord, read_metrics
from hf_ltsam.runs.report.saved_parts import Curvature, ShiftedSet, TestResult, history_entries
from hf_ltsam.runs.sharpness import parts as sharpness_parts
from hf_ltsam.runs.shift import results as ood_results

RECIPE = "recipe.yaml"
STATE = "trainer_state.json"
T = TypeVar("T")


@dataclass(frozen=True)
class Recorded:
    """metrics.json."""

    record: RunRecord
    statistics: ClassStatistics
    test: TestResult


@dataclass(frozen=True)
class Recipe:
    """recipe.yaml: the settings, and the text itself."""

    settings: dict[str, Any]
    text: str


@dataclass(frozen=True)
class ReportedRun:
    """One run; None and empty stand for what is missing or damaged.

    Args:
        history: entries of the log, numbers only.
        shifted: name of a test set -> what `ltsam evaluate` found.
        damaged: one sentence for each damaged file, with its path.
    """

    folder: Path
    metrics: Recorded | None = None
    recipe: Recipe | None = None
    history: Sequence[Mapping[str, float]] = ()
    predictions: Predictions | None = None
    curvature: Curvature | None = None
    shifted: Mapping[str, ShiftedSet] = field(default_factory=dict)
    damaged: Sequence[str] = ()

    @property
    def seed(self) -> str:
        if self.metrics is not None:
            return str(self.metrics.record.seed)
        return str((self.recipe.settings if self.recipe else {}).get("seed", "?"))


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """The folders themselves, or the runs inside them.

    Raises:
        FileNotFoundError: no such folder, or no run in it.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: there is no such folder. Give the folder of a run, or of several.")
        inside = [folder] if _is_run(folder) else sorted(filter(_is_run, folder.rglob("*")))
        if not inside:
            raise FileNotFoundError(
                f"{folder} holds no run (neither {run_record.FILE_NAME} nor {RECIPE}): give the --output_dir of "
                "`ltsam train`."
            )
        found.update(dict.fromkeys(inside))
    return list(found)


def read_run(folder: Path) -> ReportedRun:
    """Everything that a run's folder holds."""
    damaged: list[str] = []

    def part(path: Path, read: Callable[[Path], T]) -> T | None:
        if not path.is_file():
            return None
        try:
            return read(path)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, OSError, yaml.YAMLError) as error:
            damaged.append(_damage(path, error))
            return None

    return ReportedRun(
        folder,
        part(folder / run_record.FILE_NAME, _metrics),
        part(folder / RECIPE, _recipe),
        part(_state_file(folder), lambda path: history_entries(_json(path))) or (),
        part(folder / predictions.FILE_NAME, read_predictions),
        part(folder / "sharpness" / sharpness_parts.FILE_NAME, lambda path: Curvature.from_json(_json(path))),
        part(folder / "evaluation" / ood_results.FILE_NAME, _shifted) or {},
        tuple(damaged),
    )


def _is_run(folder: Path) -> bool:
    return (folder / run_record.FILE_NAME).is_file() or (folder / RECIPE).is_file()


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _metrics(path: Path) -> Recorded:
    record = read_metrics(path)
    statistics = ClassStatistics.from_dict(record.class_statistics)
    return Recorded(record, statistics, TestResult.from_json(record.results["test"], statistics))


def _recipe(path: Path) -> Recipe:
    text = path.read_text(encoding="utf-8")
    return Recipe(dict(yaml.safe_load(text)), text)


def _shifted(path: Path) -> dict[str, ShiftedSet]:
    sets = ood_results.read_results(path)["sets"]
    finished = {name: values for name, values in sets.items() if "result" in values or "summary" in values}
    return {name: ShiftedSet.from_json(values) for name, values in finished.items()}


def _state_file(folder: Path) -> Path:
    """Of a run that has not finished, that of its last checkpoint."""
    if (folder / STATE).is_file():
        return folder / STATE
    numbered = {
        int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*") if path.name[-1].isdigit()
    }
    return numbered[max(numbered)] / STATE if numbered else folder / STATE


def _damage(path: Path, error: Exception) -> str:
    reason = f"it lacks {error}" if isinstance(error, KeyError) else re.sub(r"\s+", " ", str(error))
    reason = reason.removeprefix(str(path)).strip()
    return f"{path} could not be read: {reason[:300]}"
