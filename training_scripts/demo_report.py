"""What the demo shows: a table, a figure, and three commands to try next."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from hf_ltsam import ClassStatistics
from hf_ltsam.metrics.run_record import RunRecord

COLUMNS = ("overall", "many", "medium", "few")
# Colours of Okabe and Ito, which colour-blind people tell apart too, and shapes for print in grey.
STYLES = (("#000000", "o"), ("#0072B2", "s"), ("#D55E00", "^"))

Records = Mapping[str, Sequence[RunRecord]]


def print_table(console: Console, records: Records) -> None:
    """Mean and standard deviation over the seeds, one row per configuration."""
    table = Table("accuracy in %", *COLUMNS)
    for title, runs in records.items():
        table.add_row(title, *(_mean_and_deviation([_accuracy(run, name) for run in runs]) for name in COLUMNS))
    console.print(table)
    console.print(_caption(records))


def save_figure(folder: Path, records: Records) -> Path:
    """Accuracy of every digit over its number of training images, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")        # needs no screen
    from matplotlib import pyplot as plt

    statistics = _statistics(records)
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    _draw_counts(axes, statistics)
    _draw_accuracies(axes, records)
    axes.set_xticks(range(statistics.num_classes), [f"{n}\ndigit {c}" for c, n in enumerate(statistics.counts)])
    axes.set_xlabel("training images")
    axes.set_ylabel("test accuracy (%)")
    axes.set_ylim(0, 104)
    axes.set_title(f"Rare classes gain: long-tailed digits, mean and deviation of {len(next(iter(records.values())))} seeds")
    axes.legend(loc="lower left")
    path = folder / "accuracy_by_frequency.png"
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def print_next_commands(console: Console, digits: Path, checkpoint: Path) -> None:
    """Three commands that work as they are, without a download."""
    here = Path(sys.executable).parent
    ltsam, python = (os.path.relpath(here / name) for name in ("ltsam", Path(sys.executable).name))
    load = f"import hf_ltsam; from transformers import AutoModelForImageClassification as M; print(M.from_pretrained('{checkpoint}'))"
    console.print("\nWhat to try next:")
    for command in (
        f"{ltsam} methods focal_sam",
        f"{ltsam} train --config demo/digits --dataset {digits} --method imbsam --method_args '{{\"rho\": 0.1}}'",
        f'{python} -c "{load}"',
    ):
        console.print(f"  {command}", soft_wrap=True, highlight=False, markup=False)


def _draw_counts(axes: Any, statistics: ClassStatistics) -> None:
    """Grey bars behind the curves, on a logarithmic axis of their own."""
    right = axes.twinx()
    right.bar(range(statistics.num_classes), statistics.counts, color="#dddddd", width=0.8, zorder=0)
    right.set_yscale("log")
    right.set_ylabel("training images (bars, logarithmic)")
    axes.set_zorder(right.get_zorder() + 1)
    axes.patch.set_visible(False)


def _draw_accuracies(axes: Any, records: Records) -> None:
    for k, ((title, runs), (colour, marker)) in enumerate(zip(records.items(), STYLES)):
        accuracies = 100 * np.array([run.results["test"]["per_class"] for run in runs])        # (seeds, C)
        deviations = accuracies.std(axis=0, ddof=1) if len(runs) > 1 else None
        axes.errorbar(
            np.arange(accuracies.shape[1]) + 0.15 * (k - 1), accuracies.mean(axis=0), deviations, label=title,
            color=colour, marker=marker, markersize=6, linewidth=1.2, elinewidth=1, capsize=2,
        )


def _caption(records: Records) -> str:
    runs = next(iter(records.values()))
    statistics = _statistics(records)
    groups = {name: ", ".join(str(c) for c in classes) for name, classes in statistics.groups.items()}
    return (
        f"Mean ± standard deviation over {len(runs)} seeds; {runs[0].results['test']['samples']} test images, as many of each "
        f"digit.\nTraining images of the digits 0 to 9: {', '.join(map(str, statistics.counts))}.\n"
        f"many: more than {statistics.many_above} (digits {groups['many']}); medium: {statistics.few_below} to "
        f"{statistics.many_above} ({groups['medium']}); few: fewer than {statistics.few_below} ({groups['few']})."
    )


def _statistics(records: Records) -> ClassStatistics:
    return ClassStatistics.from_dict(next(iter(records.values()))[0].class_statistics)


def _accuracy(run: RunRecord, name: str) -> float:
    result = run.results["test"]
    return 100 * float(result["overall"] if name == "overall" else result["groups"][name])


def _mean_and_deviation(values: Sequence[float]) -> str:
    deviation = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{deviation}"
