"""A finished or running training, opened again from its folder: settings, training images without augmentation, weights."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hf_ltsam import ClassStatistics
from hf_ltsam.adapters.factory import FULL
from hf_ltsam.class_statistics import FILE_NAME as STATISTICS_FILE
from hf_ltsam.cli.train.arguments import Run, parse
from hf_ltsam.cli.train.data import prepare
from hf_ltsam.cli.train.model import adapted, image_format
from hf_ltsam.cli.train.splits import Splits, load_splits
from hf_ltsam.runs.folder import WEIGHTS, has_weights, load_run

RECIPE = "recipe.yaml"


@dataclass(frozen=True)
class SavedRun:
    """Of a run's folder, or of a checkpoint inside it.

    Args:
        folder: where the weights are.
        root: the run's folder, where its recipe is.
        run: the settings it was trained with.
        splits: its data.
        statistics: of its training set.
    """

    folder: Path
    root: Path
    run: Run
    splits: Splits
    statistics: ClassStatistics

    def training_images(self, model: nn.Module, progress: bool = True) -> Any:
        """The training images as the test would see them: `{"pixel_values", "labels"}`, without random augmentation."""
        settings = dataclasses.replace(self.run.data, check_images=False)  # they have been trained on
        wanted = image_format(model, self.run.model, settings.image_size)
        return prepare(self.splits, settings, wanted, self.run.config.seed, progress).plain_train

    def model(self, folder: Path | None = None) -> nn.Module:
        """The model of this folder, or of another checkpoint of the run; what was trained requires gradients."""
        model = load_run(self.folder if folder is None else folder, trainable=True)
        return adapted(model, self.run.model) if self.run.model.adapter == FULL else model

    def checkpoints(self) -> list[Path]:
        """All checkpoints of the run that have weights, by step, and the run's last weights where no checkpoint has them.

        Raises:
            FileNotFoundError: there is none.
        """
        numbered = {
            step: f for f in self.root.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if (step := step_of(f)) and has_weights(f)
        }
        if not numbered:
            raise FileNotFoundError(
                f"{self.root} has no {PREFIX_CHECKPOINT_DIR}-N folders: train with --save_strategy epoch (and without "
                "--save_total_limit) to follow the curvature through training."
            )
        last = step_of(self.root)
        if last is not None and last not in numbered and has_weights(self.root):
            numbered[last] = self.root
        return [numbered[step] for step in sorted(numbered)]


def open_run(folder: str | Path, dataset: str | None = None) -> SavedRun:
    """Settings and data of a run, from its folder or that of one of its checkpoints.

    Args:
        dataset: where the data are now; None: where they were.

    Raises:
        FileNotFoundError: no such folder, no recipe or no weights in it, or the data are not where they were.
        ValueError: the data are not those of the training.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder. Give the --output_dir of a run.")
    root = root_of(folder)
    require_weights(folder)
    run = parse(["--config", str(root / RECIPE), *([] if dataset is None else ["--dataset", dataset])])
    try:
        splits = load_splits(run.data)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} The run was trained on it: --dataset PATH says where it is now.") from error
    statistics = splits.statistics(run.data, run.config.tail_threshold)
    _check_counts(folder, statistics)
    return SavedRun(folder, root, run, splits, statistics)


def root_of(folder: Path) -> Path:
    """The run's folder, given it or one of its checkpoints.

    Raises:
        FileNotFoundError: there is no recipe in either.
    """
    root = next((place for place in (folder, folder.parent) if (place / RECIPE).is_file()), None)
    if root is None:
        raise FileNotFoundError(
            f"{folder} has no {RECIPE}: give the output folder of `ltsam train`, or a checkpoint in it."
        )
    return root


def require_weights(folder: Path) -> None:
    """Refuse a folder without weights.

    Raises:
        FileNotFoundError: naming it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder.")
    if not has_weights(folder):
        raise FileNotFoundError(
            f"{folder} has no weights ({WEIGHTS[0]}): the run has not finished, or it is no checkpoint."
        )


def step_of(folder: Path) -> int | None:
    """500 of checkpoint-500; of a run's folder the last step of its training, where it is known."""
    numbered = re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)", folder.name)
    return int(numbered[1]) if numbered else _state(folder).get("global_step")


def epoch_of(folder: Path) -> float | None:
    """The epoch that a checkpoint was written in."""
    return _state(folder).get("epoch")


def _state(folder: Path) -> dict[str, Any]:
    file = folder / TRAINER_STATE_NAME
    return json.loads(file.read_text()) if file.is_file() else {}


def _check_counts(folder: Path, now: ClassStatistics) -> None:
    if not (folder / STATISTICS_FILE).is_file():
        return
    then = ClassStatistics.load(folder)
    if then.counts != now.counts:
        raise ValueError(
            f"The data have changed since the training. Then: {then.describe_counts()} Now: {now.describe_counts()} "
            "--dataset PATH names the data of the training."
        )
