"""The tables of RESULTS.md from a file of runs: means over the seeds, and differences with intervals.

    python benchmarks/tables.py benchmarks/results/digits_demo.jsonl
    python benchmarks/tables.py benchmarks/results/plankton64_third.jsonl --against plankton/la_sgd_twice

Intervals are 95 % and those of `ltsam report`: test samples are drawn anew within their class, the same ones for both sides
where the file says which ones a run had right, and the seeds make them longer. `benchmarks/collect.py` makes such files.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset_builders.long_tail import exponential_profile
from hf_ltsam.class_statistics.groups import groups_by_bounds
from hf_ltsam.runs.report.comparison.paired_bootstrap import Interval, differences_of_means, interval, resample_images

Floats = NDArray[np.float64]
Row = Mapping[str, Any]
METRICS = ("overall", "balanced", "many", "medium", "few", "macro_f1", "ece")
COMPARED = METRICS[:5]
BOUNDS = {"digits_demo": (40, 10)}  # many above, few below; the others as below
COUNTS = {
    "digits_demo": exponential_profile(128, 10, 50),
    "cifar10_lt_tenth": exponential_profile(500, 10, 100),
    "cifar100_lt_ir100": exponential_profile(500, 100, 100),
}  # of files whose rows do not say
REPLICATES = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--against", help="the configuration that all are compared with; without it the first")
    options = parser.parse_args()
    found = configurations(options.file)
    against = options.against or next(iter(found))
    if against not in found:
        parser.error(f"--against {against} is not in {options.file}, which has {', '.join(found)}.")
    print(f"| | {' | '.join(METRICS)} | seeds |\n|{'---|' * (len(METRICS) + 2)}")
    for name, rows in found.items():
        print(f"| {name} | {' | '.join(means(rows))} | {len(rows)} |")
    print(f"\n| minus {against} | {' | '.join(COMPARED)} |\n|{'---|' * (len(COMPARED) + 1)}")
    groups = groups_of(options.file.stem, found[against][0])
    for name, rows in found.items():
        if name != against:
            print(f"| {name} | {' | '.join(map(shown, differences(rows, found[against], groups).values()))} |")


def configurations(file: Path) -> dict[str, list[Row]]:
    """Name -> runs, one a seed. Trials on a reserve are left out; "NAME adjusted" has log pi subtracted afterwards."""
    found: dict[str, list[Row]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row.get("kind") == "trial":
            continue
        found.setdefault(_name(row), []).append(row)
        if row["loss"] == "cross_entropy" and "test_adjusted" in row:
            adjusted = {**row, "test": row["test_adjusted"], "correct": row.get("correct_adjusted")}
            found.setdefault(f"{_name(row)} adjusted", []).append(adjusted)
    return found


def _name(row: Row) -> str:
    """Its row of a table, or what it was trained with."""
    if "row" in row:
        return str(row["row"])
    known = {key: row[key] for key in ("weight_decay", "epochs", "learning_rate") if key in row}
    settings = {key: value for key, value in {**row["method_args"], **known}.items() if (key, value) != ("start", 0.0)}
    return " ".join([row["loss"], row["method"], *(f"{key}={value}" for key, value in settings.items())])


def means(rows: Sequence[Row]) -> list[str]:
    """Mean and, of several seeds, standard deviation of each metric, in %."""
    return [_mean([row["test"][metric] for row in rows if metric in row["test"]]) for metric in METRICS]


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")


def groups_of(stem: str, row: Row) -> dict[str, Sequence[int]]:
    """Group -> its classes."""
    many_above, few_below = BOUNDS.get(stem, (100, 20))
    counts = row.get("counts") or COUNTS[stem]
    return {"balanced": range(len(counts)), **groups_by_bounds(counts, many_above, few_below)}


def differences(
    rows: Sequence[Row], base: Sequence[Row], groups: Mapping[str, Sequence[int]], seed: int = 0
) -> dict[str, Interval | None]:
    """Group -> mean accuracy of some runs minus that of others, fractions; None: not known class by class."""
    both = [*base, *rows]
    if any("right" not in row and row["correct"] is None for row in both):
        return dict.fromkeys(COMPARED)
    generator = np.random.default_rng(seed)
    total = np.array(base[0]["total"])
    drawn = _paired(both, generator) if all("right" in row for row in both) else _counted(both, generator)
    observed = np.array([row["correct"] for row in both]).T[:, None] / np.maximum(total, 1)[:, None, None]  # (C, 1, R)
    found: dict[str, Interval | None] = {}
    for name in COMPARED:
        seen = _accuracy(observed, total, groups, name)
        first, second = np.split(_accuracy(drawn, total, groups, name), [len(base)], axis=1)
        difference = float(seen[:, len(base) :].mean() - seen[:, : len(base)].mean())
        found[name] = interval(difference, differences_of_means(first, second, generator))
    return found


def _paired(rows: Sequence[Row], generator: np.random.Generator) -> Floats:
    """Accuracies by class (C, B, R), the same test samples drawn anew for all runs."""
    numbers = [len(samples) for samples in rows[0]["right"]]
    right = np.array([[letter == "1" for samples in row["right"] for letter in samples] for row in rows]).T  # (N, R)
    labels = np.repeat(np.arange(len(numbers)), numbers)
    drawn = resample_images(right, labels, {str(c): (c,) for c, n in enumerate(numbers) if n}, generator, REPLICATES)
    untested = np.zeros((REPLICATES, len(rows)))
    return np.stack([drawn.get(str(c), untested) for c in range(len(numbers))])


def _counted(rows: Sequence[Row], generator: np.random.Generator) -> Floats:
    """Accuracies by class (C, B, R), the test samples of each run drawn anew without the others'."""
    total = np.maximum(rows[0]["total"], 1)[:, None]  # (C, 1)
    share = np.array([row["correct"] for row in rows]).T / total  # (C, R)
    return np.asarray(
        generator.binomial(total[:, None], share[:, None], (len(share), REPLICATES, len(rows))) / total[:, None]
    )


def _accuracy(by_class: Floats, total: NDArray[Any], groups: Mapping[str, Sequence[int]], name: str) -> Floats:
    """(B, R) of accuracies (C, B, R): over all samples, or the mean over the classes that are tested."""
    if name == "overall":
        return np.asarray(np.average(by_class, axis=0, weights=total))
    return np.asarray(by_class[[c for c in groups[name] if total[c]]].mean(axis=0))


def shown(difference: Interval | None) -> str:
    """In points, with its interval."""
    if difference is None:
        return "-"
    return f"{100 * difference.difference:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"


if __name__ == "__main__":
    main()
