"""Errors under corruption: CE per corruption relative to a baseline, mCE, and the mean error.

A table of errors is `{corruption: {severity: error}}` with errors as fractions in [0, 1].
Source: Hendrycks & Dietterich 2019, Sec. 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

ErrorTable: TypeAlias = Mapping[str, Mapping[int, float]]

SEVERITIES = (1, 2, 3, 4, 5)

# AlexNet's top-1 errors on ImageNet-C, means over the five severities, for the 15 corruptions in their usual order:
# Hendrycks & Dietterich 2019, with the digits in AugMix's evaluation (Hendrycks et al. 2020).
ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428, "shot_noise": 0.894468, "impulse_noise": 0.922640,
    "defocus_blur": 0.819880, "glass_blur": 0.826268, "motion_blur": 0.785948, "zoom_blur": 0.798360,
    "snow": 0.866816, "frost": 0.826572, "fog": 0.819324, "brightness": 0.564592,
    "contrast": 0.853204, "elastic_transform": 0.646056, "pixelate": 0.717840, "jpeg_compression": 0.606500,
}  # fmt: skip
BENCHMARK = tuple(ALEXNET_ERRORS)  # the corruptions in mCE and mean error; a table may have others beside them


@dataclass(frozen=True)
class Baseline:
    """The errors of a reference model.

    Args:
        name: of the model, for every table with a CE.
        errors: corruption -> mean error over `severities`, a fraction in (0, 1].
        severities: 1 to 5, the range of the means.
    """

    name: str
    errors: Mapping[str, float]
    severities: tuple[int, ...] = SEVERITIES

    @classmethod
    def from_table(cls, name: str, table: ErrorTable) -> Baseline:
        """The means of another model's table.

        Raises:
            ValueError: rows with different severities, or an error that is no fraction.
        """
        return cls(name, mean_errors(table), severities_of(table))


ALEXNET = Baseline("AlexNet (Hendrycks & Dietterich 2019)", ALEXNET_ERRORS)


def severities_of(table: ErrorTable) -> tuple[int, ...]:
    """The severities of a table, the same in every row.

    Raises:
        ValueError: an empty table, or rows with different severities.
    """
    by_row = {corruption: tuple(sorted(row)) for corruption, row in table.items()}
    if not by_row or () in by_row.values():
        raise ValueError("A table of corruption errors needs at least one corruption and one severity.")
    (first, severities), *others = by_row.items()
    for corruption, differing in others:
        if differing != severities:
            raise ValueError(
                f"Means over different severities cannot be compared: {first} has {_listed(severities)}, "
                f"{corruption} has {_listed(differing)}."
            )
    return severities


def mean_errors(table: ErrorTable) -> dict[str, float]:
    """Corruption -> mean error over the severities.

    Raises:
        ValueError: rows with different severities, or an error that is no fraction.
    """
    severities_of(table)
    _check_fractions(table)
    return {corruption: float(np.mean(list(row.values()))) for corruption, row in table.items()}


def mean_error(table: ErrorTable) -> float:
    """Mean over the severities and over the 15 corruptions, as far as the table has them; over all it has if it has none.

    Raises:
        ValueError: as in `mean_errors`.
    """
    errors = mean_errors(table)
    return float(np.mean([errors[corruption] for corruption in _benchmark_part(errors)]))


def corruption_errors(table: ErrorTable, baseline: Baseline) -> dict[str, float]:
    """CE_c = 100 sum_s E_{s,c} / sum_s E_{s,c}^baseline in percent, for every corruption that the baseline has too.

    Raises:
        ValueError: other severities than those of the baseline, or a baseline without errors.
    """
    errors = mean_errors(table)
    if severities_of(table) != tuple(sorted(baseline.severities)):
        raise ValueError(
            f"The errors of {baseline.name} are means over the severities {_listed(baseline.severities)}, this table has "
            f"{_listed(severities_of(table))}: evaluate the same severities."
        )
    perfect = [corruption for corruption in errors if baseline.errors.get(corruption) == 0]
    if perfect:
        raise ValueError(f"{baseline.name} makes no error under {perfect[0]}, so there is no error relative to it.")
    return {c: 100 * error / baseline.errors[c] for c, error in errors.items() if c in baseline.errors}


def mean_corruption_error(table: ErrorTable, baseline: Baseline) -> float:
    """mCE: the mean CE over the 15 corruptions, in percent.

    Raises:
        ValueError: one of the 15 is missing, here or in the baseline.
    """
    errors = corruption_errors(table, baseline)
    missing = [corruption for corruption in BENCHMARK if corruption not in errors]
    if missing:
        raise ValueError(f"mCE is the mean over all 15 corruptions; missing: {', '.join(missing)}.")
    return float(np.mean([errors[corruption] for corruption in BENCHMARK]))


def corruption_summary(table: ErrorTable, baseline: Baseline | None = None) -> dict[str, Any]:
    """All metrics of a table.

    Returns:
        "mean_error" (fraction), "errors" (corruption -> fraction), "severities", "relative_to" (the baseline's name, or
        None), and with a baseline "ce" (corruption -> percent) and "mce" (percent; None unless all 15 are there).

    Raises:
        ValueError: as in `mean_errors` and `corruption_errors`.
    """
    summary: dict[str, Any] = {
        "mean_error": mean_error(table),
        "errors": mean_errors(table),
        "severities": list(severities_of(table)),
        "relative_to": None,
    }
    if baseline is None:
        return summary
    ce = corruption_errors(table, baseline)
    complete = set(BENCHMARK) <= set(ce)
    mce = mean_corruption_error(table, baseline) if complete else None
    return {**summary, "relative_to": baseline.name, "ce": ce, "mce": mce}


def error_table(predictions: Any, labels: Any, corruptions: Any, severities: Any) -> dict[str, dict[int, float]]:
    """The table of errors of predictions.

    Args:
        predictions, labels: predicted and true classes (N,).
        corruptions, severities: of every sample (N,).

    Raises:
        ValueError: no samples, or different lengths.
    """
    wrong = np.asarray(predictions) != np.asarray(labels)
    names, levels = np.asarray(corruptions), np.asarray(severities)
    if wrong.ndim != 1 or not wrong.size or names.shape != wrong.shape or levels.shape != wrong.shape:
        raise ValueError(
            "Predictions, labels, corruptions and severities must be four lists of the same length, not empty; got the "
            f"shapes {np.shape(predictions)}, {np.shape(labels)}, {names.shape} and {levels.shape}."
        )
    table: dict[str, dict[int, float]] = {}
    for name in sorted(set(names.tolist()), key=_benchmark_order):
        rows = names == name
        table[name] = {int(s): float(wrong[rows & (levels == s)].mean()) for s in np.unique(levels[rows])}
    return table


def _benchmark_part(names: Mapping[str, Any]) -> list[str]:
    return [name for name in names if name in ALEXNET_ERRORS] or list(names)


def _benchmark_order(name: str) -> tuple[int, str]:
    return (BENCHMARK.index(name) if name in ALEXNET_ERRORS else len(BENCHMARK), name)


def _check_fractions(table: ErrorTable) -> None:
    for corruption, row in table.items():
        for severity, error in row.items():
            if not 0 <= error <= 1:
                raise ValueError(
                    f"The error under {corruption} at severity {severity} must be a fraction in [0, 1], got {error!r}."
                )


def _listed(severities: tuple[int, ...]) -> str:
    return ", ".join(map(str, severities))
