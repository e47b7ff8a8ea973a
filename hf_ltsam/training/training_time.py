"""The time of a training, also of one that was interrupted and resumed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainingArguments

from hf_ltsam.runs.files import read_json, write_json
from hf_ltsam.runs.folder import TIME
from hf_ltsam.runs.record import BEFORE
from hf_ltsam.training.durable_trainer import CheckpointedCallback

_SECONDS = "train_seconds"


class TrainingTime(CheckpointedCallback):
    """The seconds that a training has taken, with those before each resume; every checkpoint holds those up to it.

    What a process did after its last checkpoint, and was done again by the next one, is in none.
    """

    def __init__(self) -> None:
        self.before: float | None = 0.0  # seconds up to the checkpoint that was resumed; None: it does not say
        self._start = time.perf_counter()

    def save_state(self, folder: Path, args: TrainingArguments) -> None:
        if args.should_save and self.before is not None:
            write_json(folder / TIME, {_SECONDS: self.before + time.perf_counter() - self._start})

    def load_state(self, folder: Path | None, args: TrainingArguments, model: nn.Module) -> None:
        self._start = time.perf_counter()
        self.before = 0.0 if folder is None else read_json(folder / TIME, lambda values: float(values[_SECONDS]))


def timing(train: Mapping[str, Any], before: float | None = 0.0) -> dict[str, float]:
    """`RunRecord.timing`; without steps the seconds alone, without a training nothing.

    Args:
        train: the metrics that training returned; of a resumed one they count from the resume on.
        before: `TrainingTime.before`.
    """
    if "train_runtime" not in train or (before is None and not has_steps(train)):
        return {}
    steps = train.get("train_steps_per_second")
    return {
        "train_seconds": (before or 0.0) + train["train_runtime"],
        **({"seconds_per_step": 1 / steps} if steps else {}),
        **({BEFORE: before} if before else {}),
    }


def has_steps(train: Mapping[str, Any]) -> bool:
    """Whether the metrics are of a training that took a step."""
    return "train_runtime" in train and not took_no_step(train)


def took_no_step(train: Mapping[str, Any]) -> bool:
    """Whether they are of one that was resumed at its end."""
    return train.get("train_steps_per_second") == 0
