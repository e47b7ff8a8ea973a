"""The screen of the demo: a table of accuracies, and three commands to try next."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hf_ltsam import ClassStatistics
from hf_ltsam.cli.demo.corruptions import SEVERITIES
from hf_ltsam.metrics.corruption import BENCHMARK
from hf_ltsam.runs.card.tables import accuracies
from hf_ltsam.runs.class_frequencies import describe_groups
from hf_ltsam.runs.record import RunRecord
from hf_ltsam.runs.report.configurations import spread
from hf_ltsam.runs.report.content import mean_and_deviation

COLUMNS = ("overall", "many", "medium", "few")

Records = Mapping[str, Sequence[RunRecord]]  # title of a configuration -> one record for each seed


def print_table(console: Console, records: Records, corruption_errors: Mapping[str, Sequence[float]]) -> None:
    """Mean and standard deviation over the seeds, one row per configuration.

    Args:
        corruption_errors: title -> mean error under corruption of every seed, a fraction.
    """
    table = Table("accuracy in %", *COLUMNS, "-C: error", show_edge=False, pad_edge=False)  # 80 columns wide
    for title, runs in records.items():
        tests = [accuracies(run.results["test"]) for run in runs]
        reached = (mean_and_deviation(*spread(100 * test[name] for test in tests)) for name in COLUMNS)
        error = mean_and_deviation(*spread(100 * error for error in corruption_errors[title]))
        table.add_row(title, *reached, error)
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
        f"Mean ± standard deviation over {len(runs)} seed{'s' * (len(runs) > 1)}, on "
        f"{runs[0].results['test']['samples']} test images, as many of each digit.\n"
        f"Training images of digits 0 to 9: {', '.join(map(str, statistics.counts))}.\n"
        f"{describe_groups(statistics)} Digits: many {many}; medium {medium}; few {few}.\n"
        f"-C: mean error (lower is better) on the same images under {len(BENCHMARK)} corruptions at severity "
        f"{', '.join(map(str, SEVERITIES))} of 5, which no training saw.\n"
        "CE cross-entropy, LA logit adjustment: the first two rows differ in the loss alone, the others in the "
        "method, each with a radius of its own."
    )


def _statistics(records: Records) -> ClassStatistics:
    return ClassStatistics.from_dict(next(iter(records.values()))[0].class_statistics)
