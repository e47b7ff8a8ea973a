"""The record of a run: what it was and what it reached, from which reports, cards and tables are made."""

from __future__ import annotations

import math
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.metrics.calibration import COVERAGE, PRIORS, Calibration
from hf_ltsam.metrics.long_tail import LongTailCounts, group_accuracies, per_class_accuracy

SCHEMA_VERSION = 1
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_AT_REVISION = re.compile(rf"({_HUB_NAME.pattern})@(.+)")
_COMMIT = re.compile(r"[0-9a-f]{40}")
BEFORE = "seconds_before"  # of `RunRecord.timing`
DIVERGED = 1.5  # times the first loss that was logged
_PACKAGES = ("hf_ltsam", "torch", "transformers", "accelerate", "datasets", "numpy")


@dataclass(frozen=True)
class RunRecord:
    """One run. In JSON the same keys, and `schema_version`; a number that does not exist (NaN) is null.

    Args:
        seed: of the run.
        method: `{"name": ..., "args": {...}}`, as `identity.describe` gives it.
        loss: likewise.
        class_statistics: of the training set, as `ClassStatistics.to_dict` gives them.
        results: split -> {"overall", "balanced", "groups": {"many", "medium", "few"}, "per_class": [C numbers or
            null], "ece", "samples"}, and in newer runs "worst", "macro_precision", "macro_f1", "top5", "macro_auprc" and of
            every class "precision", "f1" and "auprc", as `split_results` gives them. Fractions in [0, 1]. Where there is a
            calibration, `calibrated_results` are beside "test".
        optimizer: `{"name": ..., "args": {...}}` of one that is not the settings', as `own_optimizer` gives it, else empty.
        reweighting: `{"scheme": ..., "start": ...}`.
        sampling: which training images an epoch showed, as in `LTSamConfig`.
        mixing: `{"mixup_alpha": ..., "cutmix_alpha": ...}`, those that are not 0.
        second_stage: `{"name", "args", "title", "source", "citations", "first_stage": {"folder", "method", "loss",
            "weights_sha256"}}` of a run that started from another one and changed its classifier alone, and whatever the
            stage chose (`tau`); else empty.
        weight_averaging: `{"start": ..., "interval": ...}` where the results are those of averaged weights, else empty.
        best_checkpoint: `{"step": ..., "metric": ...}` where the results are those of the checkpoint that was best in the
            evaluations during the training, else empty.
        model: whatever names it, such as `{"model": "cifar_resnet", "depth": 32, "head": "linear"}`.
        data: whatever names it, such as `{"name": "cifar10", "imbalance_ratio": 100, "fingerprint": ...}`.
        hub: `{"dataset": OWNER/NAME, "dataset_commit": ..., "model": OWNER/NAME}`: what the names of data and model meant on
            the Hub when the run was made, and where it is known the commit that the data were loaded at; a name that meant a
            folder is not in it. None where that is not known.
        timing: in seconds, such as `{"train_seconds": ..., "seconds_per_step": ...}`; of a resumed run also
            "seconds_before", the part of "train_seconds" up to the checkpoint. Without that it counts from the resume on.
        resumed: whether training went on from a checkpoint.
        hardware: in words, with the number of processes first: "2 x NVIDIA H100".
        command: that repeats the run.
        weights_sha256: of the weights that the results are of, as `RunFolder` gives it; empty where it is not known.
        versions: package -> version, as `installed_versions` gives them.
    """

    seed: int
    method: dict[str, Any]
    loss: dict[str, Any]
    class_statistics: dict[str, Any]
    results: dict[str, dict[str, Any]]
    optimizer: dict[str, Any] = field(default_factory=dict)
    reweighting: dict[str, Any] = field(default_factory=dict)
    sampling: str = "uniform"
    mixing: dict[str, float] = field(default_factory=dict)
    second_stage: dict[str, Any] = field(default_factory=dict)
    weight_averaging: dict[str, Any] = field(default_factory=dict)
    best_checkpoint: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    hub: dict[str, str] | None = None
    timing: dict[str, float] = field(default_factory=dict)
    resumed: bool = False
    hardware: str = ""
    command: str = ""
    weights_sha256: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def samples(self) -> str:
        """What was classified, in the plural."""
        return samples_of(self.data.get("task"))

    @property
    def weights(self) -> str:
        """Those that the results are of, in words."""
        if self.weight_averaging:
            return "with the averaged weights"
        if self.best_checkpoint:
            step, metric = self.best_checkpoint["step"], self.best_checkpoint["metric"]
            return f"of step {step}, chosen by {metric} in the evaluations during the training"
        return "after the last epoch"

    @property
    def processes(self) -> int:
        """How many trained, as `hardware` begins; 1 where that is not known."""
        count = self.hardware.partition(" x ")[0]
        return int(count) if count.isdigit() else 1

    @property
    def train_seconds(self) -> float | None:
        """Of the whole training; None where it is known from a resume on only, as in older runs."""
        return self.timing.get("train_seconds") if not self.resumed or BEFORE in self.timing else None

    def to_json(self) -> dict[str, Any]:
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, values: Any) -> RunRecord:
        """The record that `to_json` gave.

        Raises:
            ValueError: another schema, or keys missing or unknown.
        """
        if not isinstance(values, Mapping) or "schema_version" not in values:
            raise ValueError("it has no schema_version")
        if values["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"its schema_version is {values['schema_version']!r}, this release reads {SCHEMA_VERSION}")
        given = {key: value for key, value in values.items() if key != "schema_version"}
        missing = {"seed", "method", "loss", "class_statistics", "results"} - set(given)
        unknown = set(given) - {field.name for field in fields(cls)}
        if missing or unknown:
            raise ValueError(f"keys missing: {sorted(missing)}; keys unknown: {sorted(unknown)}")
        return cls(**given)


def samples_of(task: str | None) -> str:
    """What is classified, in the plural, by the task of a run: "text" or "image"; None: of an older run."""
    return "texts" if task == "text" else "images"


def hub_name(name: str | None) -> str | None:
    """OWNER/NAME that a name means on the Hub, seen from here and now; None for a folder and for anything else."""
    name = str(name).removeprefix("hf-hub:")
    return name if _HUB_NAME.fullmatch(name) and not Path(name).exists() else None


def split_revision(word: str) -> tuple[str, str | None]:
    """OWNER/NAME and REVISION of OWNER/NAME@REVISION, where one word names a data set; of another word itself and None."""
    parts = _AT_REVISION.fullmatch(word)
    if parts is None or os.path.exists(word):  # noqa: PTH110  takes a name that is too long for a file
        return word, None
    return parts[1], parts[2]


def hub_commit(rows: Any, name: str | None) -> str | None:
    """The commit that rows of OWNER/NAME were loaded at, by where `datasets` keeps them; None where that does not tell.

    Args:
        rows: a `datasets.Dataset`, also one that was selected or mapped; any other data set tells nothing.
    """
    from datasets.naming import camelcase_to_snakecase  # slow to import

    owner, _, title = str(name).partition("/")
    kept_in = f"{owner}___{camelcase_to_snakecase(title)}"  # OWNER___NAME/CONFIGURATION/VERSION/COMMIT
    folders = [Path(file["filename"]).parts for file in getattr(rows, "cache_files", None) or ()]
    commits = {
        parts[parts.index(kept_in) + 3]
        for parts in folders
        if kept_in in parts and len(parts) > parts.index(kept_in) + 4
    }
    return commits.pop() if len(commits) == 1 and _COMMIT.fullmatch(next(iter(commits))) else None


def split_results(
    outputs: Any, labels: Any, statistics: ClassStatistics | None, num_classes: int = 0
) -> dict[str, Any]:
    """One entry of `RunRecord.results`.

    Args:
        outputs: logits (N, C), or what is kept of them (`Decisions`).
        labels: true classes (N,).
        statistics: of the training set; None: there are no groups, and `num_classes` is C.
    """
    counts = LongTailCounts(num_classes if statistics is None else statistics.num_classes)
    counts.add(outputs, labels)
    metrics, names = counts.metrics(statistics), () if statistics is None else statistics.groups
    groups = {name: metrics.pop(name) for name in names if name in metrics}
    of_classes = counts.of_classes
    return {
        "ece": None, **metrics, "groups": groups, "per_class": of_classes.pop("recall"), **of_classes, "samples": len(labels)
    }  # fmt: skip


def calibrated_results(
    calibration: Calibration, logits: Any, labels: Any, statistics: ClassStatistics
) -> dict[str, dict[str, Any]]:
    """Entries of `RunRecord.results` for the test split as its calibration makes it.

    Args:
        logits: (N, C).
        labels: true classes (N,).

    Returns:
        "balanced_prior" and "training_prior", each as `split_results` with "tau" and "temperature"; "conformal_sets" with
        the "level" that was asked for, the "coverage" that was reached as mean over classes, by "groups" and "per_class",
        the mean "size" of a set, "pooled", the number of classes that share a threshold, and the "source" of the samples
        that all of this was chosen by, where the training did not leave them out.
    """
    results = {}
    for prior in PRIORS:
        of_prior = split_results(calibration.adjusted(logits, prior), labels, statistics)
        results[f"{prior}_prior"] = {**of_prior, **asdict(getattr(calibration, prior))}
    sets, true = calibration.sets(logits), np.asarray(labels)
    coverage = per_class_accuracy(np.where(sets[np.arange(len(true)), true], true, -1), true, statistics.num_classes)
    results["conformal_sets"] = {
        "level": COVERAGE,
        "coverage": float(np.nanmean(coverage)),
        "groups": group_accuracies(coverage, statistics),
        "per_class": coverage.tolist(),
        "size": float(sets.sum(axis=1).mean()),
        "pooled": len(calibration.pooled()),
        "samples": len(true),
        **({"source": calibration.source} if calibration.source else {}),
    }
    return results


def chance_level(per_class: Sequence[float | None]) -> float:
    """The accuracy of guesses among the classes of a test: the expected one of every class, so of every group and of all.

    Args:
        per_class: accuracies (C,); None or NaN for a class without test sample.
    """
    return 1 / max(sum(accuracy is not None and accuracy == accuracy for accuracy in per_class), 1)


def two_errors(accuracy: float, number: int) -> float:
    """Two standard errors of an accuracy that was measured on so many samples."""
    return 2 * math.sqrt(accuracy * (1 - accuracy) / max(number, 1))


def at_chance(
    balanced: float | None, chance: float, number: int, samples: str, where: str = "no better than guesses"
) -> list[str]:
    """A sentence where the mean accuracy over classes is that of guesses, within its error; none for a test of one class.

    Args:
        number: of the samples it was measured on.
        samples: what they are.
        where: how the predictions look.
    """
    if balanced is None or chance >= 1 or balanced > chance + two_errors(chance, number):
        return []
    return [
        f"The mean accuracy over classes, {100 * balanced:.2f} %, is at chance ({100 * chance:.2f} %, within the error "
        f"of {number} {samples}): {where}. Nothing was learned; look at learning rate and labels."
    ]


def untested(record: RunRecord) -> list[str]:
    """A sentence where the test has no sample of some classes, which the means over classes and groups then leave out."""
    per_class = record.results["test"]["per_class"]
    lacking = sum(accuracy is None or accuracy != accuracy for accuracy in per_class)
    if not lacking:
        return []
    what = "1 of the {} classes has" if lacking == 1 else f"{lacking} of the {{}} classes have"
    return [
        f"{what.format(len(per_class))} no test {record.samples.removesuffix('s')}: all means leave "
        f"{'it' if lacking == 1 else 'them'} out."
    ]


def shortcomings(record: RunRecord, losses: Sequence[float] = ()) -> list[str]:
    """What says that a training has failed, in sentences; none for one that has not.

    Args:
        losses: of the training, as they were logged.
    """
    result = record.results["test"]
    per_class = [accuracy for accuracy in result["per_class"] if accuracy is not None and accuracy == accuracy]
    where = (
        f"every test {record.samples.removesuffix('s')} was taken for one class"
        if sorted(per_class)[-2:] == [0.0, 1.0]
        else "no better than guesses"
    )
    samples = f"test {record.samples}"
    remarks = at_chance(result["balanced"], chance_level(per_class), result["samples"], samples, where)
    finite = [loss for loss in losses if math.isfinite(loss)]
    changes = record.loss.get("start") or record.reweighting.get("start")  # of the loss itself in mid-training
    guesses = math.log(max(len(per_class), 1))  # a second stage may raise the small loss that it begins with
    rises = len(finite) > 1 and not changes and finite[-1] > max(DIVERGED * finite[0], guesses / 2)
    if rises or len(finite) < len(losses):
        remarks.append(
            f"The training has diverged: its loss went from {losses[0]:.4g} to {losses[-1]:.4g}. A smaller learning rate, "
            "or a longer warm-up, is the way out."
        )
    return remarks


def installed_versions() -> dict[str, str]:
    """Python's and the packages' that results depend on; one that is not installed is left out."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
