"""The screen of the demo: a table of accuracies, and three commands to try next."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from hf_ltsam import ClassStatistics
from hf_ltsam.cli.demo.corruptions import SEVERITIES
from hf_ltsam.metrics.corruption import BENCHMARK
from hf_ltsam.runs.class_frequencies import describe_groups
from hf_ltsam.runs.record import RunRecord

COLUMNS = ("overall", "many", "medium", "few")

Records = Mapping[str, Sequence[RunRecord]]  # title of a configuration -> one record for each seed


def print_table(console: Console, records: Records, corruption_errors: Mapping[str, Sequence[float]]) -> None:
    """Mean and standard deviation over the seeds, one row per configuration.

    Args:
        corruption_errors: title -> mean error under corruption of every seed, a fraction.
    """
    table = Table("accuracy in %", *COLUMNS, "-C: error", show_edge=False, pad_edge=False)  # 80 columns wide
    for title, runs in records.items():
        accuracies = (_mean_and_deviation([_accuracy(run, name) for run in runs]) for name in COLUMNS)
        table.add_row(title, *accuracies, _mean_and_deviation([100 * error for error in corruption_errors[title]]))
    console.print(table)
    console.print(_caption(records), highlight=False)


def print_next_commands(console: Console, digits: Path, checkpoint: Path) -> None:
    """Three commands that work as they stand, without a download."""
    here = Path(sys.executable).parent
    ltsam, python = (os.path.relpath(here / name) for name in ("ltsam", Path(sys.executable).name))
    load = "import hf_ltsam.models; from transformers import AutoModelForImageClassification as Auto; "
    console.print("\nTo try next:")
    for command in (
        f"{ltsam} methods focal_sam",
        f"{ltsam} train --config demo/digits --dataset {digits} --method imbsam --method_args '{{\"rho\": 0.1}}'",
        f"""{python} -c "{load}print(Auto.from_pretrained('{checkpoint}'))\"""",
    ):
        console.print(f"  {command}", soft_wrap=True, highlight=False, markup=False)


def _caption(records: Records) -> str:
    runs = next(iter(records.values()))
    statistics = _statistics(records)
    many, medium, few = (", ".join(map(str, classes)) for classes in statistics.groups.values())
    return (
        f"Mean ± standard deviation over {len(runs)} seeds, on {runs[0].results['test']['samples']} test images, as many of "
        "each digit.\n"
        f"Training images of digits 0 to 9: {', '.join(map(str, statistics.counts))}.\n"
        f"{describe_groups(statistics)} Digits: many {many}; medium {medium}; few {few}.\n"
        f"-C: mean error (lower is better) on the same images under {len(BENCHMARK)} corruptions at severity "
        f"{', '.join(map(str, SEVERITIES))} of 5, which no training saw.\n"
        "CE cross-entropy, LA logit adjustment: the first two rows differ in the loss alone, the others in the method."
    )


def _statistics(records: Records) -> ClassStatistics:
    return ClassStatistics.from_dict(next(iter(records.values()))[0].class_statistics)


def _accuracy(run: RunRecord, name: str) -> float:
    result = run.results["test"]
    return 100 * float(result["overall"] if name == "overall" else result["groups"][name])


def _mean_and_deviation(values: Sequence[float]) -> str:
    deviation = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{deviation}"
