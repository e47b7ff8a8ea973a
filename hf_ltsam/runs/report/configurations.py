"""Runs that differ in the seed only are one configuration, whose numbers have a mean and a deviation."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_ltsam import ClassStatistics
from hf_ltsam.hyperparameters import title_of
from hf_ltsam.losses import LOSSES
from hf_ltsam.methods import METHODS
from hf_ltsam.runs.report.reading import ReportedRun
from hf_ltsam.runs.report.saved_parts import TestResult

# Settings that change neither the training nor what it is trained on; data are told apart by their labels.
_OF_NO_CONSEQUENCE = frozenset(
    ["seed", "data_seed", "output_dir", "dataset", "disable_tqdm", "report_to", "run_name", "resume_from_checkpoint"]
)
_PREFIXES = ("logging_", "save_", "eval_", "dataloader_", "per_device_eval_")
NAN = float("nan")


@dataclass(frozen=True)
class Configuration:
    """Args:
    title: unique in the report.
    runs: at least one.
    """

    title: str
    runs: tuple[ReportedRun, ...]

    @property
    def tested(self) -> list[TestResult]:
        """The test results of its runs that have one."""
        return [run.metrics.test for run in self.runs if run.metrics is not None]

    @property
    def statistics(self) -> ClassStatistics | None:
        """Of the training set, from the first run that tells it."""
        return next((run.metrics.statistics for run in self.runs if run.metrics is not None), None)

    def accuracies(self, group: str) -> list[float]:
        """One for each tested run that has the group: "overall", "balanced", "many", "medium", "few", "head", "tail"."""
        values = (_accuracy(test, group) for test in self.tested)
        return [value for value in values if value is not None]

    def first(self, has: Callable[[ReportedRun], bool]) -> ReportedRun | None:
        """Its first run of which something is true."""
        return next((run for run in self.runs if has(run)), None)


def spread(values: Iterable[float]) -> tuple[float, float]:
    """Mean and standard deviation over seeds; the deviation is NaN for one value, both are for none."""
    array = np.asarray(list(values), dtype=np.float64)
    if not array.size:
        return NAN, NAN
    return float(array.mean()), float(array.std(ddof=1)) if array.size > 1 else NAN


def configurations(runs: Sequence[ReportedRun]) -> list[Configuration]:
    """In the order of their first runs."""
    grouped: dict[str, list[ReportedRun]] = {}
    for run in runs:
        grouped.setdefault(json.dumps(facts(run), sort_keys=True, default=str), []).append(run)
    members = list(grouped.values())
    return [Configuration(name, tuple(own)) for name, own in zip(_titles([own[0] for own in members]), members)]


def facts(run: ReportedRun) -> dict[str, Any]:
    """All that distinguishes a run from others, but for the seed; by its folder alone where nothing is known."""
    known: dict[str, Any] = {}
    if run.recipe is not None:
        settings = run.recipe.settings.items()
        known |= {k: v for k, v in settings if k not in _OF_NO_CONSEQUENCE and not k.startswith(_PREFIXES)}
    if run.metrics is not None:
        record = run.metrics.record
        own_data = {k: v for k, v in record.data.items() if k not in _OF_NO_CONSEQUENCE}
        known |= {
            "method": record.method["name"], "method_args": record.method.get("args"),
            "loss": record.loss["name"], "loss_args": record.loss.get("args"),
            "reweighting": record.reweighting.get("scheme", "none"),
            "reweighting_start": record.reweighting.get("start"), "weight_averaging": record.weight_averaging,
            **record.model, **own_data, "counts": list(run.metrics.statistics.counts),
        }  # fmt: skip
    return known or {"folder": str(run.folder)}


def differing(configurations: Sequence[Configuration]) -> list[str]:
    """Names of the settings in which configurations differ."""
    return _differing([_flat(facts(c.runs[0])) for c in configurations])


def setting(configuration: Configuration, name: str) -> str:
    """The value of a setting, as text; a dash where it has none."""
    value = _flat(facts(configuration.runs[0])).get(name)
    return "-" if value is None else str(value)


def title(facts: Mapping[str, Any]) -> str:
    """CE + SGD, or CE-DRW + SAM for deferred re-weighting.

    Args:
        facts: may hold `loss`, `method`, `reweighting` and `reweighting_start`.
    """
    loss = title_of(LOSSES, str(facts.get("loss", "cross_entropy")))
    method = title_of(METHODS, str(facts.get("method", "sam")))
    weighted = facts.get("reweighting", "none") != "none"
    suffix = ("-DRW" if facts.get("reweighting_start") else "-RW") if weighted else ""
    return f"{loss}{suffix} + {method}"


def _titles(runs: Sequence[ReportedRun]) -> list[str]:
    """Method and loss, with the settings in which equal titles differ, and at last the folder."""
    known = [facts(run) for run in runs]
    plain = [title(own) if "folder" not in own else str(own["folder"]) for own in known]
    namesakes = [[other for other, its_name in zip(known, plain) if its_name == name] for name in plain]
    detailed = [_with_differences(*one) for one in zip(plain, known, namesakes)]
    several = Counter(detailed)
    return [name if several[name] == 1 else f"{name} ({run.folder})" for name, run in zip(detailed, runs)]


def _with_differences(name: str, own: Mapping[str, Any], namesakes: Sequence[Mapping[str, Any]]) -> str:
    flat = _flat(own)
    shown = [f"{key} {flat[key]}" for key in _differing([_flat(other) for other in namesakes]) if key in flat]
    words = ", ".join(shown[:3])
    return f"{name} ({words})" if 0 < len(words) <= 60 else name


def _differing(flat: Sequence[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(key for one in flat for key in one)
    return [key for key in names if len({json.dumps(one.get(key), default=str) for one in flat}) > 1]


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """method_args {"rho": 0.1} as rho 0.1; what is nested deeper stays as it is."""
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        if isinstance(value, Mapping) and key.endswith("_args"):
            flat |= {name if name not in facts else f"{key} {name}": v for name, v in value.items()}
        elif key != "counts":
            flat[key] = value
    return flat


def _accuracy(test: TestResult, group: str) -> float | None:
    if group in ("overall", "balanced"):
        return test.overall if group == "overall" else test.balanced
    return test.groups.get(group)
