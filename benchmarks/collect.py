"""One line for each run, for the files under benchmarks/results: what it was, and which test samples it had right.

python benchmarks/collect.py runs/plankton/la_sgd/seed* >> benchmarks/results/plankton64_third.jsonl
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from hf_ltsam.runs.folder import PREDICTIONS, RECORD


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs that have ended")
    options = parser.parse_args()
    unfinished = [str(run) for run in options.runs if not (run / RECORD).is_file()]
    if unfinished:
        sys.exit(f"No {RECORD} in {', '.join(unfinished)}: these have not ended.")
    for run in options.runs:
        print(json.dumps(line(run)))


def line(run: Path) -> dict[str, Any]:
    """Accuracies in %. "right" has for each class a 1 or 0 for each of its test samples, in their order."""
    metrics = json.loads((run / RECORD).read_text(encoding="utf-8"))
    test = json.loads((run / PREDICTIONS).read_text(encoding="utf-8"))["test"]
    results = metrics["results"]["test"]
    statistics = metrics["class_statistics"]
    counts = statistics["counts"]
    right = [""] * len(counts)
    for label, predicted in zip(test["labels"], test["predicted"]):
        right[label] += "1" if label == predicted else "0"
    accuracies = {name: results[name] for name in ("overall", "balanced", "macro_f1", "ece")} | results["groups"]
    return {
        "row": "/".join(run.resolve().parent.parts[-2:]),
        "method": metrics["method"]["name"],
        "method_args": metrics["method"]["args"],
        "loss": metrics["loss"]["name"],
        "seed": metrics["seed"],
        "test": {name: round(100 * value, 3) for name, value in accuracies.items()},
        "right": right,
        "correct": [samples.count("1") for samples in right],
        "total": [len(samples) for samples in right],
        "counts": counts,
        "many_above": statistics["many_above"],
        "few_below": statistics["few_below"],
        "train_seconds": metrics["timing"]["train_seconds"],
        "resumed": metrics["resumed"],
        "versions": metrics["versions"],
    }


if __name__ == "__main__":
    main()
