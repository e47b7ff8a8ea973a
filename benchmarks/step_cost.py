"""Time of one training step per method, against a stock Trainer step of plain SGD and against our own SAM.

    python benchmarks/step_cost.py [--repetitions 15] [--models resnet32 vit] [--output step_cost.json]

All steps run in one process, interleaved (one step of each in turn), so that a change in the machine's mood meets all
of them alike. Reported: medians, their ratios, and the quartiles of the ratio within a round. Nothing here is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification
from transformers.utils import logging

from hf_ltsam import (
    METHODS,
    CifarResNetConfig,
    CifarResNetForImageClassification,
    ClassStatistics,
    LTSamConfig,
    LTSamTrainer,
)

CLASSES, BATCH = 100, 64
COUNTS = [int(500 * 0.01 ** (c / 99)) for c in range(CLASSES)]
TAIL_THRESHOLD = 16        # a fifth of a batch drawn evenly over the classes is tail: see `batch`
STOCK = "stock Trainer, SGD"


def resnet32() -> nn.Module:
    return CifarResNetForImageClassification(CifarResNetConfig(depth=32, num_labels=CLASSES))


def vit() -> nn.Module:
    """2.7 million parameters: 6 blocks of width 192 on 4 x 4 patches."""
    return ViTForImageClassification(
        ViTConfig(hidden_size=192, num_hidden_layers=6, num_attention_heads=3, intermediate_size=768, image_size=32,
                  patch_size=4, num_labels=CLASSES)
    )


MODELS: dict[str, Callable[[], nn.Module]] = {"resnet32": resnet32, "vit": vit}


def batch(tail_share: float = 0.2) -> dict[str, torch.Tensor]:
    """A batch with this share of rows from tail classes."""
    tail = [c for c, n in enumerate(COUNTS) if n <= TAIL_THRESHOLD]
    labels = [tail[i % len(tail)] if i < tail_share * BATCH else i % tail[0] for i in range(BATCH)]
    return {"pixel_values": torch.randn(BATCH, 3, 32, 32), "labels": torch.tensor(labels)}


def trainer(method: str, model: nn.Module, folder: str) -> Trainer:
    settings = {"output_dir": folder, "report_to": "none", "learning_rate": 0.01, "disable_tqdm": True,
                "save_strategy": "no", "use_cpu": not torch.cuda.is_available()}
    if method == STOCK:
        return Trainer(model, TrainingArguments(optim="sgd", optim_args="momentum=0.9", **settings))
    return LTSamTrainer(
        model, LTSamConfig(tail_threshold=TAIL_THRESHOLD, **settings), method=method,
        class_statistics=ClassStatistics(COUNTS),
    )


def step_of(made: Trainer, inputs: dict[str, torch.Tensor]) -> Callable[[], None]:
    """One optimizer step of a trainer, as its own loop makes it."""
    optimizer = made.create_optimizer()
    model, optimizer = made.accelerator.prepare(made.model, optimizer)
    made.current_gradient_accumulation_steps = 1
    made.state.max_steps = 1000

    def step() -> None:
        made.training_step(model, dict(inputs))
        optimizer.step()
        model.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return step


def measure(steps: dict[str, Callable[[], None]], repetitions: int) -> dict[str, list[float]]:
    """Seconds per step, one entry per round."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(-2, repetitions):        # two rounds to warm up
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if round_ >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratios(seconds: dict[str, list[float]], base: str) -> dict[str, dict[str, float]]:
    """Median of a method over the median of the base, and the quartiles of the ratio round by round."""
    table = {}
    for name, values in seconds.items():
        low, _, high = statistics.quantiles([v / b for v, b in zip(values, seconds[base])], n=4)
        table[name] = {"ratio": statistics.median(values) / statistics.median(seconds[base]), "low": low, "high": high}
    return table


def report(model: str, seconds: dict[str, list[float]]) -> None:
    to_stock, to_sam = ratios(seconds, STOCK), ratios(seconds, "sam")
    print(f"\n{model}, batch {BATCH}, {CLASSES} classes: median of {len(seconds['sam'])} interleaved steps")
    print(f"{'':22}{'ms':>8}   {'x stock SGD (quartiles)':28}{'x our SAM (quartiles)'}")
    for name, values in seconds.items():
        print(f"{name:22}{1000 * statistics.median(values):8.1f}   {_shown(to_stock[name]):28}{_shown(to_sam[name])}")


def _shown(ratio: dict[str, float]) -> str:
    return f"{ratio['ratio']:5.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--output", type=Path, help="write all timings to this JSON file")
    options = parser.parse_args()
    logging.set_verbosity_error()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} cores, {platform.machine()}")
    results = {}
    for model in options.models:
        torch.manual_seed(0)
        inputs = batch()
        with tempfile.TemporaryDirectory() as folder:
            steps = {name: step_of(trainer(name, MODELS[model](), folder), inputs) for name in (STOCK, *METHODS)}
            results[model] = measure(steps, options.repetitions)
        report(model, results[model])
    if options.output:
        options.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
