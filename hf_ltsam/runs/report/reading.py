"""A run as its folder describes it. A damaged file is named, and the rest is read all the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from hf_ltsam.runs.files import DamagedFileError
from hf_ltsam.runs.folder import (
    EVALUATION,
    EVALUATION_RESULTS,
    RECORD,
    SHARPNESS,
    SHARPNESS_RESULTS,
    Recipe,
    RunFolder,
)
from hf_ltsam.runs.predictions import Predictions
from hf_ltsam.runs.report.saved_parts import Curvature, Recorded, ShiftedSet, shifted_sets

T = TypeVar("T")


@dataclass(frozen=True)
class ReportedRun:
    """One run; None and empty stand for what is missing or damaged.

    Args:
        history: entries of the log, numbers only.
        shifted: name of a test set -> results of `ltsam evaluate`.
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


def read_run(folder: Path) -> ReportedRun:
    """Everything that the folder of a run holds."""
    run = RunFolder(folder)
    damaged: list[str] = []

    def part(read: Callable[[], T | None]) -> T | None:
        try:
            return read()
        except (DamagedFileError, OSError) as error:
            damaged.append(str(error))
            return None

    return ReportedRun(
        folder,
        part(lambda: run.read(RECORD, Recorded.from_json)),
        part(lambda: run.recipe),
        part(lambda: run.log_history) or (),
        part(lambda: run.predictions),
        part(lambda: run.read(f"{SHARPNESS}/{SHARPNESS_RESULTS}", Curvature.from_json)),
        part(lambda: run.read(f"{EVALUATION}/{EVALUATION_RESULTS}", shifted_sets)) or {},
        tuple(damaged),
    )
