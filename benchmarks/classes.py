"""Cost of a step against the number of classes, for the methods that look at classes one by one.

    python benchmarks/classes.py [--repetitions 10] [--output classes.json]

The small ViT of `step_cost.py`; every number of classes has its own SAM as base, so that the size of the head is aside.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch
from steps import batch, measure, ratios, rows, shown, step_of, trainer, vit
from transformers.utils import logging

ROWS = rows("sam", "focal_sam", ("focal_sam", {"plain": "reuse"}, 1), "cc_sam", ("cc_sam", {"norm": "per_tensor"}, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100, 1000, 8142])
    parser.add_argument("--output", type=Path, help="write all timings to this JSON file")
    options = parser.parse_args()
    logging.set_verbosity_error()
    results = {}
    print(f"{'x our SAM (quartiles)':34}" + "".join(f"C = {c:<22}" for c in options.classes))
    for C in options.classes:
        torch.manual_seed(0)
        inputs = batch(C)
        with tempfile.TemporaryDirectory() as folder:
            steps = {row.name: (step_of(trainer(row, vit(C), folder, C), inputs), 1) for row in ROWS}
            results[C] = measure(steps, options.repetitions)
    for row in ROWS:
        print(f"{row.name:34}" + "".join(f"{shown(ratios(results[C], 'sam')[row.name]):26}" for C in options.classes))
    if options.output:
        options.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
