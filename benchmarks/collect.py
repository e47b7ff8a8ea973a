"""One line for each run, for the files under benchmarks/results: what it was, and which test samples it had right.

    python benchmarks/collect.py runs/plankton/la_sgd/seed* >> benchmarks/results/NAME.jsonl

A row is called by the last two folders above the seed's, plankton/la_sgd there.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.runs.folder import PREDICTIONS, RECORD, RunFolder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs that have ended")
    options = parser.parse_args()
    unfinished = [str(run) for run in options.runs if not RunFolder(run).has(RECORD)]
    if unfinished:
        sys.exit(f"No {RECORD} in {', '.join(unfinished)}: these have not ended.")
    for run in options.runs:
        print(json.dumps(line(run)))


def line(run: Path) -> dict[str, Any]:
    """Accuracies in %. "right" has for each class a 1 or 0 for each of its test samples, in their order."""
    record, predictions = RunFolder(run).finished_record(), RunFolder(run).predictions
    if predictions is None:
        sys.exit(f"No {PREDICTIONS} in {run}: which test samples it had right is not known.")
    results, statistics = record.results["test"], ClassStatistics.from_dict(record.class_statistics)
    right = [
        "".join("01"[hit] for hit in predictions.right[predictions.labels == c].astype(int))
        for c in range(statistics.num_classes)
    ]
    accuracies = {name: results[name] for name in ("overall", "balanced", "macro_f1", "ece")} | results["groups"]
    return {
        "row": "/".join(run.resolve().parent.parts[-2:]),
        "method": record.method["name"],
        "method_args": record.method["args"],
        "loss": record.loss["name"],
        "seed": record.seed,
        "test": {name: round(100 * value, 3) for name, value in accuracies.items()},
        "right": right,
        "correct": [samples.count("1") for samples in right],
        "total": [len(samples) for samples in right],
        "counts": list(statistics.counts),
        **statistics.bounds,
        "train_seconds": record.timing["train_seconds"],
        "resumed": record.resumed,
        "versions": record.versions,
    }


if __name__ == "__main__":
    main()
