"""What the demo shows: a table, a figure, and three commands to try next."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from hf_ltsam import ClassStatistics
from hf_ltsam.metrics.corruption import BENCHMARK
from hf_ltsam.metrics.run_record import RunRecord
from training_scripts.demo_corruptions import SEVERITIES

COLUMNS = ("overall", "many", "medium", "few")
# Colours of Okabe and Ito, which colour-blind people tell apart too, and shapes for print in grey.
STYLES = (("#000000", "o"), ("#0072B2", "s"), ("#D55E00", "^"))

Records = Mapping[str, Sequence[RunRecord]]        # title of a configuration -> one record for each seed


def print_table(console: Console, records: Records, corruption_errors: Mapping[str, Sequence[float]]) -> None:
    """Mean and standard deviation over the seeds, one row per configuration.

    Args:
        corruption_errors: title -> mean error under corruption of every seed, a fraction.
    """
    table = Table("accuracy in %", *COLUMNS, "-C: error", show_edge=False, pad_edge=False)        # 80 columns wide
    for title, runs in records.items():
        accuracies = (_mean_and_deviation([_accuracy(run, name) for run in runs]) for name in COLUMNS)
        table.add_row(title, *accuracies, _mean_and_deviation([100 * error for error in corruption_errors[title]]))
    console.print(table)
    console.print(_caption(records), highlight=False)


def save_figure(folder: Path, records: Records) -> Path:
    """Accuracy of every digit, and below it the number of its training images, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")        # needs no screen
    from matplotlib import pyplot as plt

    statistics = _statistics(records)
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(8, 5.5), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    _draw_accuracies(upper, records)
    _draw_counts(lower, statistics)
    _draw_groups(upper, lower, statistics)
    seeds = len(next(iter(records.values())))
    upper.set_title(f"Digits with a long tail: test accuracy (mean and standard deviation, seeds: {seeds})")
    path = folder / "accuracy_by_frequency.png"
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def print_next_commands(console: Console, digits: Path, checkpoint: Path) -> None:
    """Three commands that work as they stand, without a download."""
    here = Path(sys.executable).parent
    ltsam, python = (os.path.relpath(here / name) for name in ("ltsam", Path(sys.executable).name))
    load = "import hf_ltsam; from transformers import AutoModelForImageClassification as Auto; "
    console.print("\nTo try next:")
    for command in (
        f"{ltsam} methods focal_sam",
        f"{ltsam} train --config demo/digits --dataset {digits} --method imbsam --method_args '{{\"rho\": 0.1}}'",
        f"""{python} -c "{load}print(Auto.from_pretrained('{checkpoint}'))\"""",
    ):
        console.print(f"  {command}", soft_wrap=True, highlight=False, markup=False)


def _draw_accuracies(axes: Any, records: Records) -> None:
    for k, ((title, runs), (colour, marker)) in enumerate(zip(records.items(), STYLES)):
        accuracies = 100 * np.array([run.results["test"]["per_class"] for run in runs])        # (seeds, C)
        deviations = accuracies.std(axis=0, ddof=1) if len(runs) > 1 else None
        axes.errorbar(
            np.arange(accuracies.shape[1]) + 0.12 * (k - 1), accuracies.mean(axis=0), deviations, label=title,
            color=colour, marker=marker, markersize=6, linewidth=1.2, elinewidth=1, capsize=2,
        )
    axes.set_ylabel("accuracy (%)")
    axes.set_ylim(min(axes.get_ylim()[0], 75), 104)
    axes.grid(axis="y", color="#e0e0e0")
    axes.legend(loc="lower left")


def _draw_counts(axes: Any, statistics: ClassStatistics) -> None:
    bars = axes.bar(range(statistics.num_classes), statistics.counts, color="#9a9a9a", width=0.7)
    axes.bar_label(bars, padding=2)
    axes.set_yscale("log")
    axes.set_ylim(1, 10 * max(statistics.counts))
    axes.set_ylabel("training images\n(log scale)")
    axes.set_xticks(range(statistics.num_classes))
    axes.set_xlabel("digit")


def _draw_groups(upper: Any, lower: Any, statistics: ClassStatistics) -> None:
    """Lines between many, medium and few, named above the bars."""
    groups = {name: classes for name, classes in statistics.groups.items() if classes}
    for name, classes in groups.items():
        centre = (classes[0] + classes[-1]) / 2
        lower.text(centre, 5 * max(statistics.counts), name, ha="center", va="center", style="italic", color="#555555")
    for left, right in pairwise(groups.values()):
        for axes in (upper, lower):
            axes.axvline((left[-1] + right[0]) / 2, color="#777777", linewidth=0.8, linestyle=":")


def _caption(records: Records) -> str:
    runs = next(iter(records.values()))
    statistics = _statistics(records)
    many, medium, few = (", ".join(map(str, classes)) for classes in statistics.groups.values())
    low, high = statistics.few_below, statistics.many_above
    return (
        f"Mean ± standard deviation over {len(runs)} seeds, on {runs[0].results['test']['samples']} test images, as many of "
        "each digit.\n"
        f"Training images of digits 0 to 9: {', '.join(map(str, statistics.counts))}.\n"
        f"many: above {high} (digits {many}); medium: {low} to {high} ({medium}); few: below {low} ({few}).\n"
        f"-C: mean error (lower is better) on the same images under {len(BENCHMARK)} corruptions at severity "
        f"{', '.join(map(str, SEVERITIES))} of 5, which no training saw.\n"
        "CE cross-entropy, LA logit adjustment: the first row differs from the others in loss and method."
    )


def _statistics(records: Records) -> ClassStatistics:
    return ClassStatistics.from_dict(next(iter(records.values()))[0].class_statistics)


def _accuracy(run: RunRecord, name: str) -> float:
    result = run.results["test"]
    return 100 * float(result["overall"] if name == "overall" else result["groups"][name])


def _mean_and_deviation(values: Sequence[float]) -> str:
    deviation = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{deviation}"
