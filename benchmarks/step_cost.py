"""Time and memory of one training step per method, against our own SAM and a stock Trainer step of plain SGD.

    python benchmarks/step_cost.py [--repetitions 15] [--models resnet32 vit adapters] [--output step_cost.json]

All steps run in one process, interleaved (one step of each in turn), so that a change in the machine's mood meets all
of them alike. Reported: medians, their ratios, the quartiles of the ratio within a round, and the peak of memory over
that of SGD in copies of the trainable weights. Nothing here is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
from pathlib import Path

import torch
from memory import extra_copies
from steps import (
    BATCH,
    CLASSES,
    MODELS,
    STOCK,
    batch,
    measure,
    public_optimizers,
    ratios,
    rows,
    shown,
    step_of,
    trainer,
)
from transformers.utils import logging

ROWS = rows(
    "sgd",
    "sam",
    "asam",
    "gradient_norm",
    "gsam",
    ("looksam", {"every": 5}, 5),
    "msam",
    "friendly_sam",
    "imbsam",
    ("imbsam", {"reduction": "group"}, 1),
    "sse_sam",
    "focal_sam",
    ("focal_sam", {"plain": "reuse"}, 1),
    "cc_sam",
    ("cc_sam", {"mix": 0.5}, 1),
    "pgd",
    "lpf_sgd",
    "model_perturbation",
)


def report(model: str, seconds: dict[str, list[float]]) -> None:
    to_stock, to_sam = ratios(seconds, STOCK), ratios(seconds, "sam")
    print(f"\n{model}, batch {BATCH}, {CLASSES} classes: median of {len(seconds['sam'])} interleaved steps")
    print(f"{'':34}{'ms':>8}   {'x our SAM (quartiles)':26}{'x stock SGD (quartiles)'}")
    for name, values in seconds.items():
        print(f"{name:34}{1000 * statistics.median(values):8.1f}   {shown(to_sam[name]):26}{shown(to_stock[name])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--methods", nargs="+", help="only these, and SAM")
    parser.add_argument("--output", type=Path, help="write all timings to this JSON file")
    options = parser.parse_args()
    logging.set_verbosity_error()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} cores, {platform.machine()}")
    chosen = [row for row in ROWS if not options.methods or row.method in {"sgd", "sam", *options.methods}]
    results = {}
    for name in options.models:
        torch.manual_seed(0)
        inputs = batch()
        with tempfile.TemporaryDirectory() as folder:
            steps = {STOCK: (step_of(trainer(None, MODELS[name](CLASSES), folder), inputs), 1)}
            for row in chosen:
                steps[row.name] = step_of(trainer(row, MODELS[name](CLASSES), folder), inputs), row.steps
            steps |= public_optimizers(lambda name=name: MODELS[name](CLASSES), inputs)
            results[name] = measure(steps, options.repetitions)
        report(name, results[name])
    print("\npeak memory over plain SGD, in copies of the trainable weights (one linear layer of 16 million, batch 2):")
    for method, copies in extra_copies([row for row in chosen if row.steps == 1]).items():
        print(f"{method:34}{copies:8.2f}")
    if options.output:
        options.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
