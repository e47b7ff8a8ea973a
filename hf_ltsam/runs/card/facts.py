"""What a run's folder says about the run. A card states this and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from transformers.utils import logging

from hf_ltsam.class_statistics import FILE_NAME as STATISTICS_FILE
from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.runs.folder import weights_digest
from hf_ltsam.runs.identity import FILE_NAME as IDENTITY_FILE
from hf_ltsam.runs.record import FILE_NAME as METRICS_FILE
from hf_ltsam.runs.record import RunRecord, read_metrics

logger = logging.get_logger(__name__)

RECIPE = "recipe.yaml"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_OF_ONE_RUN = {"seed", "results", "timing", "hardware", "command", "versions", "weights_sha256"}
_SETTINGS_OF_ONE_RUN = re.compile(r"seed|data_seed|output_dir|run_name|resume_from_checkpoint|(push_to_)?hub.*")


@dataclass(frozen=True)
class RunFacts:
    """
    Args:
        folder: of the run.
        config: `config.json`.
        record: `metrics.json`; None where the run has none (yet).
        other_seeds: the records of its siblings `../seed*` that differ in the seed alone.
        identity: `ltsam.json`: method, loss and so on, also of a run without a record.
        statistics: of the training set.
        adapter: `adapter_config.json`; None for a whole model.
        evaluation: `ood_results.json` of these weights.
        sharpness: `sharpness.json` of these weights.
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
    def class_names(self) -> list[str] | None:
        """By logit; None where the model names none."""
        named = self.config.get("id2label") or dict(enumerate(self.config.get("label_names") or ()))
        names = [str(named[key]) for key in sorted(named, key=int)]
        return None if names == [f"LABEL_{c}" for c in range(len(names))] else names

    @property
    def task(self) -> str | None:
        """As the Hub names it; None where it cannot be told."""
        architectures = " ".join(self.config.get("architectures") or ())
        if "ForSequenceClassification" in architectures:
            return "text-classification"
        seen = {"image_size", "num_channels", "vision_config", "base_config", "pretrained_cfg"} & set(self.config)
        return "image-classification" if "ForImageClassification" in architectures or seen else None

    @property
    def trained_from(self) -> str | None:
        """The name on the Hub of the model that the training started from."""
        if self.adapter is not None:
            name = str(self.adapter.get("base_model_name_or_path"))
        else:
            start = self.record.model if self.record else {}
            name = str(start.get("model")) if start.get("pretrained", True) else ""
        name = name.removeprefix("hf-hub:")
        return name if on_hub(name) else None

    @property
    def data_set(self) -> str | None:
        """The name of the training data on the Hub."""
        name = str(self.record.data.get("dataset")) if self.record else ""
        return name if on_hub(name) else None


def read_facts(
    folder: Path, evaluation: Mapping[str, Any] | None = None, sharpness: Mapping[str, Any] | None = None
) -> RunFacts:
    """Read the files of a run; those that are not there are None.

    Args:
        evaluation, sharpness: results that are known to be of these weights.

    Raises:
        ValueError: a file is damaged, and named.
    """
    record = _record(folder)
    return RunFacts(
        folder,
        config=_json(folder / "config.json") or {},
        record=record,
        other_seeds=() if record is None else _other_seeds(folder, record),
        identity=_json(folder / IDENTITY_FILE) or {},
        statistics=_statistics(folder, record),
        adapter=_json(folder / "adapter_config.json"),
        evaluation=evaluation,
        sharpness=sharpness,
    )


def _record(folder: Path) -> RunRecord | None:
    """None too where it is of other weights, which a later training has put in the place of its own."""
    if not (folder / METRICS_FILE).is_file():
        return None
    record = read_metrics(folder)
    if record.weights_sha256 and record.weights_sha256 != weights_digest(folder):
        logger.warning(
            f"{folder / METRICS_FILE} is of other weights than the folder has now: its results are left out."
        )
        return None
    return record


def on_hub(name: str) -> bool:
    """Whether a name reads OWNER/NAME and is no folder here."""
    return _HUB_NAME.fullmatch(name) is not None and not Path(name).exists()


def _other_seeds(folder: Path, record: RunRecord) -> tuple[RunRecord, ...]:
    folder = folder.resolve()
    if not re.fullmatch(r"seed\d+", folder.name):
        return ()
    found = {record.seed: record}
    for file in sorted(folder.parent.glob(f"seed*/{METRICS_FILE}")):
        other = read_metrics(file)
        if other.seed not in found and _same_but_seed(record, other) and _settings(folder) == _settings(file.parent):
            found[other.seed] = other
    return tuple(found[seed] for seed in sorted(found) if seed != record.seed)


def _same_but_seed(one: RunRecord, other: RunRecord) -> bool:
    shared = [f.name for f in fields(RunRecord) if f.name not in _OF_ONE_RUN]
    return all(getattr(one, name) == getattr(other, name) for name in shared)


def _settings(folder: Path) -> dict[str, Any]:
    """What the recipe sets, without what tells one run from another of the same experiment."""
    file = folder / RECIPE
    settings = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {name: value for name, value in (settings or {}).items() if not _SETTINGS_OF_ONE_RUN.fullmatch(name)}


def _statistics(folder: Path, record: RunRecord | None) -> ClassStatistics | None:
    if record is not None:
        return ClassStatistics.from_dict(record.class_statistics)
    return ClassStatistics.load(folder) if (folder / STATISTICS_FILE).is_file() else None


def _json(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    try:
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    return values
