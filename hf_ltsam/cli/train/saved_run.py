"""A finished or running training, opened again from its folder: settings, training images without augmentation, weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from hf_ltsam import ClassStatistics
from hf_ltsam.adapters.factory import FULL
from hf_ltsam.cli.train.arguments import options_of, run_of, with_recipe
from hf_ltsam.cli.train.data import TrainingData, prepare
from hf_ltsam.cli.train.model import adapted, input_format
from hf_ltsam.cli.train.settings import Run
from hf_ltsam.cli.train.splits import Splits, load_splits
from hf_ltsam.data.class_names import compare_names, names_of_model
from hf_ltsam.models.partial_training import train_only
from hf_ltsam.runs.folder import CHECKPOINT, RECIPE, RunFolder
from hf_ltsam.runs.model import load_run
from hf_ltsam.runs.record import hub_name, split_revision
from hf_ltsam.training.training_set import without_adapter


@dataclass(frozen=True)
class SavedRun:
    """A run's folder, or a checkpoint inside it, opened.

    Args:
        folder: where the weights are.
        root: the run's folder, where its recipe is.
        run: the settings it was trained with.
        splits: its data.
        statistics: of its training set.
    """

    folder: RunFolder
    root: RunFolder
    run: Run
    splits: Splits
    statistics: ClassStatistics

    def training_data(self, model: nn.Module, progress: bool = True) -> TrainingData:
        """Its images or texts as the model takes them."""
        settings = dataclasses.replace(self.run.data, check_images=False)  # they have been trained on
        wanted = input_format(model, self.run.model, settings)
        return prepare(self.splits, settings, wanted, self.run.config.seed, progress)

    def model(self, folder: Path | None = None) -> nn.Module:
        """The model of this folder, or of another checkpoint of the run; what was trained requires gradients.

        Raises:
            ValueError: it numbers the same classes otherwise than the data.
        """
        model = load_run(self.folder.path if folder is None else folder, trainable=True)
        config = getattr(without_adapter(model), "config", None)
        names = names_of_model(getattr(config, "id2label", None))
        if names is not None:
            whose = (f"the model in {self.folder.path}", "the data set")
            compare_names(names, self.splits.class_names, whose, "--dataset PATH names the data of the training.")
        if self.run.model.train_only is not None:
            train_only(model, self.run.model.train_only)
        return adapted(model, self.run.model) if self.run.model.adapter == FULL else model

    def checkpoints(self) -> list[RunFolder]:
        """All checkpoints of the run that have weights, by step, and the run's last weights where no checkpoint has them.

        Raises:
            FileNotFoundError: there is none.
        """
        checkpoints = {step: checkpoint for step, checkpoint in self.root.checkpoints.items() if checkpoint.has_weights}
        if not checkpoints:
            raise FileNotFoundError(
                f"{self.root.path} has no {CHECKPOINT}-N folders: train with --save_strategy epoch (and without "
                "--save_total_limit) to follow the curvature through training."
            )
        if self.root.step is not None and self.root.has_weights:
            checkpoints.setdefault(self.root.step, self.root)
        return [checkpoints[step] for step in sorted(checkpoints)]


def open_run(folder: str | Path, dataset: str | None = None) -> SavedRun:
    """Settings and data of a run, from its folder or that of one of its checkpoints.

    Args:
        dataset: where the data are now; None: where they were, on the Hub at the commit that was recorded.

    Raises:
        FileNotFoundError: no such folder, no weights or no recipe in it, or the data are not where they were.
        ValueError: the data are not those of the training.
    """
    weights = RunFolder(Path(folder))
    root = weights.root
    weights.require_weights()
    settings, recipe = {**settings_beside_recipe(root), **_place(root, dataset)}, root.path / RECIPE
    run = run_of(with_recipe(settings, recipe), options_of(settings, recipe))  # nothing starts, so nothing is decided
    if run.data.dataset is None:
        raise ValueError(
            f"{root.path} was made in Python and does not say where its data lie: name them by --dataset PATH."
        )
    try:
        splits = load_splits(run.data)
    except FileNotFoundError as error:
        if root.recipe and dataset not in (None, root.recipe.settings.get("dataset")):
            raise
        raise FileNotFoundError(f"{error} The run was trained on it: --dataset PATH says where it is now.") from error
    statistics = splits.statistics(run.data, run.config.tail_threshold)
    _check_counts(weights, statistics)
    return SavedRun(weights, root, run, splits, statistics)


def _place(root: RunFolder, dataset: str | None) -> dict[str, Any]:
    """Where the data of a run are, as far as its recipe does not say it."""
    hub = (root.record.hub if root.record else None) or {}
    if dataset is None or dataset == hub.get("dataset"):
        return {"dataset_revision": hub["dataset_commit"]} if "dataset_commit" in hub else {}
    name, revision = split_revision(dataset)
    on_the_hub = hub_name(name) is not None
    return {"dataset": name, **({"dataset_revision": revision} if revision or not on_the_hub else {})}


def settings_beside_recipe(root: RunFolder) -> dict[str, Any]:
    """What a run's recipe may leave out: the bounds of its groups; of one made in Python the model, which its folder has."""
    recipe, statistics = root.recipe, root.statistics
    model = {"model": str(root.path)} if recipe is not None and recipe.is_of_python else {}
    return model if statistics is None else {**model, **statistics.bounds}


def _check_counts(folder: RunFolder, now: ClassStatistics) -> None:
    then = folder.statistics
    if then is not None and then.counts != now.counts:
        raise ValueError(
            f"The data have changed since the training. Then: {then.describe_counts()} Now: {now.describe_counts()} "
            "--dataset PATH names the data of the training."
        )
