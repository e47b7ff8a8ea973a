"""The tables of a card, in Markdown. A missing number is left out; none is invented."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hf_ltsam.class_statistics import GROUPS, ClassStatistics
from hf_ltsam.runs.card.facts import RunFacts
from hf_ltsam.runs.class_frequencies import group_criterion, group_ranges
from hf_ltsam.runs.escaping import markdown_code, markdown_table, markdown_text
from hf_ltsam.runs.record import RunRecord
from hf_ltsam.runs.shift.results import SCORES, measurements, percent, remarks

SMALL = 20  # classes: a longer table would not be read


def accuracies(result: Mapping[str, Any]) -> dict[str, float]:
    """name -> fraction, of one entry of a record's results; what is null is left out."""
    fractions = {"overall": result.get("overall"), "balanced": result.get("balanced")}
    fractions |= {name: result.get("groups", {}).get(name) for name in GROUPS}
    return {name: float(value) for name, value in fractions.items() if value is not None}


def results_table(facts: RunFacts) -> str:
    """This checkpoint, and mean and deviation over all seeds where there are several; in percent."""
    if facts.record is None:
        return ""
    records = sorted((facts.record, *facts.other_seeds), key=lambda record: record.seed)
    percents = _percents(facts.record)
    rows = [[f"this checkpoint (seed {facts.record.seed})", *(f"{percents[name]:.1f}" for name in percents)]]
    if len(records) > 1:
        seeds = ", ".join(str(record.seed) for record in records)
        spread = [_mean_and_deviation([_percents(record).get(name) for record in records]) for name in percents]
        rows.append([f"mean ± standard deviation, seeds {seeds}", *spread])
    return markdown_table(["", *percents], rows)


def calibration_table(facts: RunFacts) -> str:
    """What was chosen on the reserve, and the test results with it; empty where there was no reserve."""
    results = facts.record.results if facts.record else {}
    rows = []
    for prior, words in (("balanced", "all classes equally frequent"), ("training", "as frequent as in training")):
        if (result := results.get(f"{prior}_prior")) is not None:
            numbers = [percent(result.get(name)) for name in ("overall", "balanced", "ece")]
            rows.append([f"`{prior}`: {words}", *(f"{result[name]:.2f}" for name in ("tau", "temperature")), *numbers])
    return (
        markdown_table(["prior", "tau", "temperature", "overall", "balanced", "calibration error"], rows)
        if rows
        else ""
    )


def _percents(record: RunRecord) -> dict[str, float]:
    result = record.results["test"]
    percents = {name: 100 * value for name, value in accuracies(result).items()}
    percents |= {title: 100 * result[name] for name, title in SCORES.items() if result.get(name) is not None}
    return percents if result.get("ece") is None else {**percents, "calibration error": 100 * result["ece"]}


def _mean_and_deviation(values: Sequence[float | None]) -> str:
    there = [value for value in values if value is not None]
    return f"{np.mean(there):.1f} ± {np.std(there, ddof=1):.1f}" if len(there) == len(values) else "-"


def groups_table(statistics: ClassStatistics, samples: str = "images") -> str:
    """Classes and samples of every reporting group that has any."""
    ranges = group_ranges(statistics)
    rows = [
        [name, ranges[name], f"{len(classes):,}", f"{sum(statistics.counts[c] for c in classes):,}"]
        for name, classes in statistics.groups.items()
        if classes
    ]
    criterion = group_criterion(statistics, samples)
    return markdown_table(["group", criterion, "classes", f"training {samples}"], rows)


def classes_table(facts: RunFacts) -> str:
    """Images and accuracy class by class, where the classes are few."""
    if facts.statistics is None or facts.statistics.num_classes > SMALL:
        return ""
    names = facts.class_names or [str(c) for c in range(facts.statistics.num_classes)]
    tested = facts.record.results["test"].get("per_class") if facts.record else None
    rows = [[markdown_text(name), f"{count:,}"] for name, count in zip(names, facts.statistics.counts)]
    if tested is None:
        return markdown_table(["class", f"training {facts.samples}"], rows)
    for row, accuracy in zip(rows, tested):
        row.append("-" if accuracy is None else f"{100 * accuracy:.1f}")
    return markdown_table(["class", f"training {facts.samples}", "accuracy in %"], rows)


def hyperparameters_table(facts: RunFacts) -> str:
    """Of method and loss, as a recipe would write them."""
    rows = []
    for what, described in (("method", facts.method), ("loss", facts.loss)):
        if described is not None:
            rows.append([what, markdown_code(str(described["name"]), cell=True), _arguments(described)])
    if facts.record is not None and (optimizer := facts.record.optimizer):
        rows.append(["optimizer", markdown_code(str(optimizer["name"]), cell=True), _arguments(optimizer)])
    if stage := facts.second_stage:
        chosen = {"tau": stage["tau"]} if "tau" in stage else {}
        described = {"name": stage["name"], "args": {**stage.get("args", {}), **chosen}}
        rows.append(["second stage", markdown_code(str(stage["name"]), cell=True), _arguments(described)])
    scheme = facts.reweighting.get("scheme", "none")
    if scheme != "none":
        rows.append(
            ["class weights", markdown_code(str(scheme), cell=True), f"`start`: {facts.reweighting.get('start')}"]
        )
    if augmentation := _augmentation(facts.record):
        rows.append(["augmentation", "", _arguments({"args": augmentation})])
    return markdown_table(["", "name", "hyper-parameters"], rows) if rows else ""


def _augmentation(record: RunRecord | None) -> dict[str, Any]:
    """What was done to training images beside crops and mirror images, and whether these were left out."""
    if record is None:
        return {}
    data = record.data
    names = ("color_jitter", "cutout", "randaugment", "random_erasing")
    magnitude = {"randaugment_magnitude": data["randaugment_magnitude"]} if data.get("randaugment") else {}
    without = {"flip": False} if data.get("flip") is False else {}
    return {**without, **{name: data[name] for name in names if data.get(name)}, **magnitude, **record.mixing}


def _arguments(described: Mapping[str, Any]) -> str:
    always = {"interval": 1, "start": 0.0, "stop": 1.0}  # a method that is applied on every step
    given = {key: value for key, value in described["args"].items() if key not in always or value != always[key]}
    given |= {key: value for key, value in described.items() if key not in ("name", "args")}
    return ", ".join(f"{markdown_code(key, cell=True)}: {_shown(value)}" for key, value in given.items()) or "none"


def _shown(value: Any) -> str:
    return markdown_text(json.dumps(value, ensure_ascii=False))


def shifted_table(evaluation: Mapping[str, Any] | None, samples: str = "images") -> str:
    """Accuracies on other test sets."""
    sets = {name: of_set for name, of_set in _sets(evaluation).items() if "result" in of_set}
    if not sets:
        return ""
    plain = {name: of_set["result"] for name, of_set in sets.items()}
    remarked = [remarks(of_set) for of_set in sets.values()]
    columns = [name for name in ("overall", "balanced", *GROUPS) if any(name in accuracies(r) for r in plain.values())]
    rows = []
    for (name, result), remark in zip(plain.items(), remarked):
        fractions = accuracies(result)
        shown = [percent(fractions.get(column)) for column in columns]
        row = [markdown_text(name) + views(result.get("identity", {})), f"{result['samples']:,}", *shown]
        rows.append([*row, *([markdown_text(remark)] if any(remarked) else [])])
    return markdown_table(["test set", samples, *columns, *(["remarks"] if any(remarked) else [])], rows)


def corrupted_tables(evaluation: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Of each set of corruptions: its name, the error of every corruption, what the means are, and remarks."""
    sets = []
    for name, of_set in _sets(evaluation).items():
        summary = of_set.get("summary")
        if summary is None:
            continue
        relative = summary.get("ce") or {}
        header = ["corruption", "error in %", *(["CE in %"] if relative else [])]
        rows = [
            [
                markdown_text(c.replace("_", " ")),
                percent(error),
                *([f"{relative[c]:.1f}" if c in relative else "-"] if relative else []),
            ]
            for c, error in summary["errors"].items()
        ]
        sets.append(
            {
                "name": markdown_code(name),
                "table": markdown_table(header, rows),
                "views": "".join(views(result.get("identity", {})) for result in measurements(of_set)[:1]),
                "severities": ", ".join(map(str, summary["severities"])),
                "mean_error": percent(summary["mean_error"]),
                "mce": None if summary.get("mce") is None else f"{summary['mce']:.1f}",
                "relative_to": markdown_text(summary.get("relative_to") or ""),
                "remarks": markdown_text(remarks(of_set)),
            }
        )
    return sets


def curvature_table(sharpness: Mapping[str, Any] | None, samples: str = "images") -> str:
    """Extreme eigenvalues and trace of the Hessian, of every subset that was measured."""
    spectra = (sharpness or {}).get("spectra") or {}
    rows = []
    for name, record in spectra.items():
        ratio = record["ratios"].get("abs_min_over_max")
        row = [record["lam_max"]["value"], record["lam_min"]["value"], ratio, record["trace"]["value"]]
        rows.append(
            [
                markdown_text(name),
                f"{record['samples']:,}",
                *("-" if value is None else f"{value:.3g}" for value in row),
            ]
        )
    header = [f"training {samples} of", samples, "largest eigenvalue", "smallest", "abs(smallest / largest)", "trace"]
    return markdown_table(header, rows) if rows else ""


def views(settings: Mapping[str, Any]) -> str:
    """The words for predictions that are means over several views of an image."""
    test_time = settings.get("test_time") or "none"
    return "" if test_time == "none" else f", mean over views ({test_time.replace('_', ' ')})"


def _sets(evaluation: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return (evaluation or {}).get("sets") or {}
