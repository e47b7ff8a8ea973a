"""The facts of a run, read from its folder. A card states them and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers.utils import logging

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.class_names import Names, names_of_model
from hf_ltsam.runs.experiment import experiment_of
from hf_ltsam.runs.files import DamagedFileError
from hf_ltsam.runs.folder import EVALUATION, RECORD, RunFolder, seed_folders, seed_of
from hf_ltsam.runs.record import RunRecord, hub_name, samples_of
from hf_ltsam.runs.shift.results import has_groups_of, without_groups

TEXT_CLASSIFICATION = "text-classification"  # on the Hub
logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class RunFacts:
    """A run as its card describes it.

    Args:
        folder: of the run.
        config: of the model.
        record: None where the run has not finished.
        other_seeds: the records of its siblings `../seed*` that differ in the seed alone.
        identity: method, loss and so on, also of a run without a record.
        statistics: of the training set.
        adapter: its configuration; None for a whole model.
        evaluation: results of `ltsam evaluate`, of these weights.
        sharpness: results of `ltsam sharpness`, of these weights.
        step, planned_steps, epoch: at which the weights were saved; None where that is not known.
        losses: of the training, as they were logged.
    """

    folder: Path
    config: Mapping[str, Any]
    record: RunRecord | None = None
    other_seeds: tuple[RunRecord, ...] = ()
    identity: Mapping[str, Any] = field(default_factory=dict)
    statistics: ClassStatistics | None = None
    adapter: Mapping[str, Any] | None = None
    evaluation: Mapping[str, Any] | None = None
    sharpness: Mapping[str, Any] | None = None
    step: int | None = None
    planned_steps: int | None = None
    epoch: float | None = None
    losses: tuple[float, ...] = ()

    @property
    def method(self) -> Mapping[str, Any] | None:
        """`{"name": ..., "args": {...}}`"""
        return self.record.method if self.record else self.identity.get("method")

    @property
    def loss(self) -> Mapping[str, Any] | None:
        return self.record.loss if self.record else self.identity.get("loss")

    @property
    def reweighting(self) -> Mapping[str, Any]:
        return self.record.reweighting if self.record else self.identity.get("reweighting", {})

    @property
    def second_stage(self) -> Mapping[str, Any]:
        """As the record has it; empty where the run was trained from its start."""
        return self.record.second_stage if self.record else self.identity.get("second_stage", {})

    @property
    def class_names(self) -> Names | None:
        """By logit; None where the model names none."""
        return names_of_model(self.config.get("id2label") or dict(enumerate(self.config.get("label_names") or ())))

    @property
    def task(self) -> str | None:
        """As the Hub names it; None where the configuration does not say."""
        architectures = " ".join(self.config.get("architectures") or ())
        if "ForSequenceClassification" in architectures:
            return TEXT_CLASSIFICATION
        seen = {"image_size", "num_channels", "vision_config", "base_config", "pretrained_cfg"} & set(self.config)
        return "image-classification" if "ForImageClassification" in architectures or seen else None

    @property
    def has_several_labels(self) -> bool:
        """Whether a sample may be of several classes."""
        return self.config.get("problem_type") == "multi_label_classification"

    @property
    def samples(self) -> str:
        """What it classifies, in the plural."""
        return samples_of("text" if self.task == TEXT_CLASSIFICATION else None)

    @property
    def trained_from(self) -> str | None:
        """Name on the Hub of the model from which the training started, as it was recorded then.

        Of an adapter that nobody recorded, what the name of its base means now, since it is loaded by that.
        """
        recorded = self.record.hub if self.record else self.identity.get("hub")
        if recorded is not None:
            return recorded.get("model")
        return None if self.adapter is None else hub_name(self.adapter.get("base_model_name_or_path"))

    @property
    def data_set(self) -> str | None:
        """The name of the training data on the Hub, as it was recorded when the run was made."""
        return (self.record.hub or {}).get("dataset") if self.record else None

    @property
    def data_commit(self) -> str | None:
        """The commit there that was trained on; None where it was not recorded."""
        return (self.record.hub or {}).get("dataset_commit") if self.record else None


def read_facts(
    folder: Path, evaluation: Mapping[str, Any] | None = None, sharpness: Mapping[str, Any] | None = None
) -> RunFacts:
    """What the files of a run say; those that are not there are None.

    Args:
        evaluation, sharpness: results that are known to be of these weights.

    Raises:
        DamagedFileError: naming the file.
    """
    run = RunFolder(folder)
    record = _record(run)
    statistics = run.statistics if record is None else ClassStatistics.from_dict(record.class_statistics)
    if evaluation is not None and not has_groups_of(evaluation, statistics):
        logger.warning(
            f"{run.path / EVALUATION} has accuracies by other groups of classes than the run has now: the card leaves them "
            "out. Remove it, and evaluate again."
        )
        evaluation = without_groups(evaluation)
    return RunFacts(
        folder,
        config=run.config or {},
        record=record,
        other_seeds=() if record is None else _other_seeds(run, record),
        identity=run.identity or {},
        statistics=statistics,
        adapter=run.adapter,
        evaluation=evaluation,
        sharpness=sharpness,
        **_log(run),
    )


def _log(run: RunFolder) -> dict[str, Any]:
    """How far the training was, and its losses; no reason to refuse a run whose log is damaged."""
    try:
        losses = tuple(entry["loss"] for entry in run.log_history if "loss" in entry)
        return {"step": run.step, "planned_steps": run.planned_steps, "epoch": run.epoch, "losses": losses}
    except DamagedFileError as error:
        logger.warning(f"{error} The card leaves it out.")
        return {}


def _record(run: RunFolder) -> RunRecord | None:
    """None too where a later training has replaced the weights."""
    record = run.record
    if record is not None and record.weights_sha256 and record.weights_sha256 != run.weights_sha256:
        logger.warning(
            f"{run.path / RECORD} belongs to other weights than the folder has now: its results are left out."
        )
        return None
    return record


def _other_seeds(run: RunFolder, record: RunRecord) -> tuple[RunRecord, ...]:
    """The records of the same experiment with other seeds, of seed0, seed1, ... in one folder."""
    folder = run.path.resolve()
    if seed_of(folder) is None:
        return ()
    experiment, records = experiment_of(record, run.recipe), {record.seed: record}
    for sibling in map(RunFolder, seed_folders(folder.parent)):
        other = sibling.record
        if other is not None and other.seed not in records and experiment_of(other, sibling.recipe) == experiment:
            records[other.seed] = other
    return tuple(records[seed] for seed in sorted(records) if seed != record.seed)
